package agent

import (
	"bufio"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	mesos "dcos.example/dcos/runtime/api/mesos"

	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/resource"
)

// Port ranges that agents offer unless told otherwise: those of DC/OS, less
// what the daemons of every host listen on.
const (
	privatePorts = "[1025-2180,2182-2378,2381-3887,3889-5049,5052-8079,8082-8180,8182-32000]"
	publicPorts  = "[1-21,23-52,54-2378,2381-5049,5052-32000]"
	publicRole   = "slave_public"
)

// resources returns what the agent offers, with the parts of it that are
// reserved by configuration.
func resources(c config.Agent) (resource.Resources, error) {
	all, err := unreserved(c)
	if err != nil {
		return all, err
	}
	from := resource.AnyRole
	if c.Public {
		from = publicRole
	}
	var errs []error
	for _, role := range slices.Sorted(maps.Keys(c.Reservations)) {
		part, err := resource.Parse(c.Reservations[role])
		var next resource.Resources
		if err == nil {
			next, err = all.Assign(from, role, part)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("reservations of %s: %w", role, err))
			continue
		}
		all = next
	}
	if err := errors.Join(errs...); err != nil {
		return resource.Resources{}, fault.New("read resources", fault.Invalid, err)
	}
	return all, nil
}

// unreserved is what is configured, and for each kind that is not, what the
// host has.
func unreserved(c config.Agent) (resource.Resources, error) {
	const op = "read resources"
	configured, err := resource.Parse(c.Resources)
	if err != nil {
		return resource.Resources{}, err
	}
	if strings.HasPrefix(strings.TrimSpace(c.Resources), "[") {
		return configured, nil // JSON is the whole truth
	}
	have := map[string]bool{}
	for it := range configured.All() {
		have[it.Name()] = true
	}
	role := ""
	ports := privatePorts
	if c.Public {
		role, ports = "("+publicRole+")", publicPorts
	}
	var missing []string
	add := func(name, value string) {
		if !have[name] {
			missing = append(missing, name+role+":"+value)
		}
	}
	mem, err := totalMemory()
	if err != nil {
		return resource.Resources{}, fault.New(op, fault.Internal, err)
	}
	disk, err := totalDisk(c.WorkDir)
	if err != nil {
		return resource.Resources{}, fault.New(op, fault.Internal, err)
	}
	add("cpus", strconv.Itoa(runtime.NumCPU()))
	add("mem", strconv.FormatUint(lessHeadroom(mem, 1024), 10))
	add("disk", strconv.FormatUint(lessHeadroom(disk, 5*1024), 10))
	add("ports", ports)
	detected, err := resource.Parse(strings.Join(missing, ";"))
	if err != nil {
		return resource.Resources{}, err
	}
	return configured.Add(detected), nil
}

// lessHeadroom leaves some of a total to the host, half of it if it is little.
func lessHeadroom(total, headroom uint64) uint64 {
	if total < 2*headroom {
		return total / 2
	}
	return total - headroom
}

// totalMemory is the host's memory in MiB. A host that is itself a control
// group, as simulated ones are, has what the group allows.
func totalMemory() (uint64, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var kib uint64
	for s := bufio.NewScanner(f); s.Scan(); {
		if n, err := fmt.Sscanf(s.Text(), "MemTotal: %d kB", &kib); n == 1 && err == nil {
			break
		}
	}
	if kib == 0 {
		return 0, fmt.Errorf("/proc/meminfo has no MemTotal")
	}
	mib := kib / 1024
	for _, file := range []string{"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max"} {
		if b, err := os.ReadFile(file); err == nil {
			if n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64); err == nil {
				mib = min(mib, n>>20)
			}
		}
	}
	return mib, nil
}

// totalDisk is the size in MiB of the file system that holds dir.
func totalDisk(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("%s: %w", dir, err)
	}
	return st.Blocks * uint64(st.Bsize) >> 20, nil
}

// attributes returns what the agent says about itself beside its resources.
func attributes(c config.Agent) ([]*mesos.Attribute, error) {
	all := maps.Clone(c.Attributes)
	if c.Public {
		if all == nil {
			all = map[string]string{}
		}
		if _, ok := all["public_ip"]; !ok {
			all["public_ip"] = "true"
		}
	}
	return resource.Attributes(all)
}

// bootID names the boot of this host. Simulated hosts share a kernel with the
// machine they run on, so the start of their first process counts as well.
func bootID() (string, error) {
	const op = "read boot id"
	kernel, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fault.New(op, fault.Internal, err)
	}
	stat, err := os.ReadFile("/proc/1/stat")
	if err != nil {
		return "", fault.New(op, fault.Internal, err)
	}
	// The second field, the command, is in parentheses and may hold anything.
	_, rest, ok := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " ")
	f := strings.Fields(rest)
	const startTime = 22 - 3 // fields are counted from 1, and two are cut off
	if !ok || len(f) <= startTime {
		return "", fault.Newf(op, fault.Internal, "/proc/1/stat has an unknown form")
	}
	return strings.TrimSpace(string(kernel)) + "-" + f[startTime], nil
}
