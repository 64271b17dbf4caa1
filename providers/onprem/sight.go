package onprem

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"

	"dcos.example/dcos/installer/host/facts"
	"dcos.example/dcos/runtime/config"
)

// script prints what parse reads, besides what package facts asks for. It
// needs a POSIX shell and coreutils.
//
// Where systemd-resolved answers on its stub, the resolvers are those that it
// asks. Of those that belong to no link it asks one alone, until that fails.
const script = facts.Script + `
for f in /etc/machine-id /var/lib/dbus/machine-id; do
  [ -s "$f" ] && { echo "machine $(cat "$f")"; break; }
done
echo "boot $(cat /proc/sys/kernel/random/boot_id)"
echo "arch $(uname -m)"
echo "kernel $(uname -sr)"
echo "cpus $(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)"
while read -r k v _; do [ "$k" = MemTotal: ] && echo "memory $v"; done < /proc/meminfo
echo "disk $(stat -f -c '%b %S' /var/lib)"
echo "hostname $(cat /proc/sys/kernel/hostname)"
r=/etc/resolv.conf
if [ -r /run/systemd/resolve/resolv.conf ] && [ -r $r ]; then
  while read -r k v _; do case "$k $v" in "nameserver 127.0.0.53"|"nameserver 127.0.0.54") stub=yes;; esac; done < $r
  [ "$stub" = yes ] && { echo "resolver resolved"; r=/run/systemd/resolve/resolv.conf; timeout 3 resolvectl dns 2>/dev/null; }
fi
if [ -r $r ]; then
  while read -r k v w || [ -n "$k" ]; do
    case "$k" in nameserver) echo "nameserver $v";; search|domain) echo "search $v $w";; esac
  done < $r
fi
[ -d /run/NetworkManager ] && echo "networkmanager yes"
[ -d /etc/dhcp/dhclient-enter-hooks.d ] && echo "dhclient yes"
exit 0
`

// sight is what was seen of a machine.
type sight struct {
	facts.Facts
	key            string // of the machine, as in authorized_keys
	machine, boot  string
	arch, kernel   string
	hostname       string
	cpus           int
	memoryMiB      int64
	diskMiB        int64 // size of the file system of /var/lib
	resolved       bool  // systemd-resolved answers for the machine, and finds out by link whom to ask
	networkManager bool
	dhclient       bool
	resolvers      []string // that it asks, or asked before us
	search         string
}

var machineIDRE = regexp.MustCompile(`^[0-9a-f]{32}$`)

func parse(text string) (sight, error) {
	s := sight{Facts: facts.Parse(text)}
	var now []string
	shared := false // resolvers that belong to no link
	for l := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimRight(l, "\r\n"), " ")
		switch key {
		case "machine":
			s.machine = value
		case "boot":
			s.boot = value
		case "arch":
			s.arch = value
		case "kernel":
			s.kernel = value
		case "hostname":
			s.hostname = value
		case "cpus":
			s.cpus, _ = strconv.Atoi(value)
		case "memory":
			kib, _ := strconv.ParseInt(value, 10, 64)
			s.memoryMiB = kib >> 10
		case "disk":
			var blocks, size int64
			if n, _ := fmt.Sscan(value, &blocks, &size); n == 2 {
				s.diskMiB = blocks * size >> 20
			}
		case "resolver":
			s.resolved = true
		case "Global:":
			shared = strings.Trim(strings.ReplaceAll(value, config.DNSAddr, ""), " ") != ""
		case "networkmanager":
			s.networkManager = true
		case "nameserver":
			now = append(now, value)
		case "search":
			s.search = strings.Join(strings.Fields(value), " ") // the last one counts
			if s.search == "." {
				s.search = "" // names as they are
			}
		case "dhclient":
			s.dhclient = true
		}
	}
	s.resolved = s.resolved && !shared
	for _, a := range now { // ours comes first where we have been
		if ip, err := netip.ParseAddr(a); err == nil && ip.Zone() == "" && a != config.DNSAddr && !slices.Contains(s.resolvers, a) {
			s.resolvers = append(s.resolvers, a)
		}
	}
	switch {
	case s.machine == "":
		return s, errors.New("it has no machine-id, by which machines are told apart; run there: systemd-machine-id-setup")
	case !machineIDRE.MatchString(s.machine):
		return s, fmt.Errorf("its machine-id %q is none; run there: rm -f /etc/machine-id && systemd-machine-id-setup", s.machine)
	case s.boot == "":
		return s, errors.New("it does not tell its boot id; is /proc mounted there?")
	}
	return s, nil
}

// unfit says why a machine can never be a host, whatever else it has.
func (s sight) unfit() error {
	switch {
	case !strings.HasPrefix(s.kernel, "Linux "):
		return fmt.Errorf("it runs %s; hosts run Linux", s.kernel)
	case !s.Systemd:
		return fmt.Errorf("its first process is %s; daemons are started by systemd", s.Init)
	}
	return nil
}

// outputs are those of a Host. Which resolvers a machine had is remembered
// from the first time: what is written from it must not change with every
// lease of an address.
func (s sight) outputs(in, before resource.PropertyMap) resource.PropertyMap {
	str := resource.NewProperty[string]
	list := func(ss []string) resource.PropertyValue {
		vs := []resource.PropertyValue{}
		for _, x := range ss {
			vs = append(vs, str(x))
		}
		return resource.NewProperty(vs)
	}
	resolver := "file"
	if s.resolved {
		resolver = "resolved"
	}
	f := resource.PropertyMap{
		"os": str(s.ID), "osVersion": str(s.Version), "osName": str(s.Name), "family": str(string(s.Family)),
		"arch": str(s.arch), "kernel": str(s.kernel), "hostname": str(s.hostname),
		"cpus": resource.NewProperty(float64(s.cpus)), "memoryMiB": resource.NewProperty(float64(s.memoryMiB)), "diskMiB": resource.NewProperty(float64(s.diskMiB)),
		"selinux": str(string(s.SELinux)), "firewall": list(s.Firewall),
		"resolver": str(resolver), "resolvers": list(s.resolvers), "search": str(s.search),
		"networkManager": resource.NewProperty(s.networkManager), "dhclient": resource.NewProperty(s.dhclient),
	}
	if v := before["facts"]; v.IsObject() {
		for _, k := range []resource.PropertyKey{"resolver", "resolvers", "search", "networkManager", "dhclient"} {
			if old, ok := v.ObjectValue()[k]; ok {
				f[k] = old
			}
		}
	}
	c, _ := read(in)
	return resource.PropertyMap{
		"address": in["address"], "connection": withKey(c.connection, s.key), "machineId": str(s.machine), "bootId": str(s.boot),
		"facts": resource.NewProperty(f), "online": resource.NewProperty(true),
	}
}

// fingerprint is how a key is written for people to compare.
func fingerprint(key string) string {
	f := strings.Fields(key)
	if len(f) < 2 {
		return ""
	}
	b, err := base64.StdEncoding.DecodeString(f[1])
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(b)
	return f[0] + " SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}
