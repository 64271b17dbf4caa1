package bootstrap

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
)

// probe prints facts about a host, one "name value…" per line. It needs
// nothing but a shell and coreutils.
const probe = `
cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | while read -r _ local _ state _; do
  [ "$state" = 0A ] && echo "listen $local"
done
echo "disk $(stat -f -c '%a %S' /var/lib)"
echo "memory $(while read -r k v _; do [ "$k" = MemTotal: ] && echo "$v"; done < /proc/meminfo)"
while read -r name _ _ enabled; do [ "$enabled" = 1 ] && echo "controller $name"; done < /proc/cgroups
[ -e /sys/fs/cgroup/cgroup.controllers ] && for c in $(cat /sys/fs/cgroup/cgroup.controllers); do echo "controller $c"; done
while read -r a b; do echo "filesystem ${b:-$a}"; done < /proc/filesystems
[ -d /proc/sys/net/ipv4 ] && echo "feature ipv4"
exit 0
`

// The least a host needs to be installed: room for logs, state and images
// beside the release, and memory that the daemons idle in.
const (
	leastDisk   = 128 << 20
	leastMemory = 128 << 20
)

// ports lists what a role listens on; others would be in the way.
func ports(role string) []int {
	if role == roleMaster {
		return []int{config.PortGateway, config.PortGatewayPlain, config.PortMaster, config.PortOrchestrator, config.PortEtcdPeer, config.PortRegistry}
	}
	return []int{config.PortAgent}
}

// judge returns everything in the facts that keeps a host from running role
// with a release of size bytes, as one fault.Invalid error.
func judge(facts, role string, size int64, release string) error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	var controllers, filesystems []string
	busy := map[int]bool{}
	for l := range strings.Lines(facts) {
		f := strings.Fields(l)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "listen":
			_, hexPort, _ := strings.Cut(f[1], ":")
			if b, err := hex.DecodeString(hexPort); err == nil && len(b) == 2 {
				busy[int(b[0])<<8|int(b[1])] = true
			}
		case "disk":
			if free, ok := product(f[1:]); ok && free < size+leastDisk {
				bad("disk: %d MiB free in /var/lib, release %s and its data need %d", free>>20, release, (size+leastDisk)>>20)
			}
		case "memory":
			if kib, err := strconv.ParseInt(f[1], 10, 64); err == nil && kib<<10 < leastMemory {
				bad("memory: %d MiB, at least %d are needed", kib>>10, leastMemory>>20)
			}
		case "controller":
			controllers = append(controllers, f[1])
		case "filesystem":
			filesystems = append(filesystems, f[1])
		}
	}
	for _, p := range ports(role) {
		if busy[p] {
			bad("port %d: something else listens on it; stop that first", p)
		}
	}
	for _, c := range []string{"cpu", "memory", "pids"} {
		if role != roleMaster && !slices.Contains(controllers, c) {
			bad("cgroup controller %s: not there; enable it in the kernel's command line", c)
		}
	}
	if role != roleMaster && !slices.Contains(filesystems, "overlay") {
		bad("file system overlay: not there; load its module (modprobe overlay)")
	}
	if len(errs) == 0 {
		return nil
	}
	return fault.New("check host", fault.Invalid, errors.Join(errs...))
}

func product(f []string) (int64, bool) {
	p := int64(1)
	for _, s := range f {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return 0, false
		}
		p *= n
	}
	return p, len(f) > 0
}
