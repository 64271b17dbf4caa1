package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/containerd/cgroups/v3"
	"golang.org/x/sys/unix"
)

// cgroupTree reads and writes the kernel files of containers' cgroups for what
// the runtime does not offer, or only at the price of another process. Both
// cgroup versions are spoken.
type cgroupTree struct {
	root    string
	unified bool
}

func detectCgroups() cgroupTree {
	return cgroupTree{root: "/sys/fs/cgroup", unified: cgroups.Mode() == cgroups.Unified}
}

// dir is a cgroup's directory in the hierarchy of a v1 controller.
func (t cgroupTree) dir(controller, cgroup string) string {
	if t.unified {
		return filepath.Join(t.root, cgroup)
	}
	return filepath.Join(t.root, controller, cgroup)
}

const cfsPeriod = 100_000 // microseconds

// setQuota bounds a cgroup to cpus CPUs; zero sets nothing.
func (t cgroupTree) setQuota(cgroup string, cpus float64) error {
	if cpus <= 0 {
		return nil
	}
	quota := max(1000, int64(cpus*cfsPeriod)) // the kernel's minimum is 1 ms
	file, text := "cpu.cfs_quota_us", strconv.FormatInt(quota, 10)
	if t.unified {
		file, text = "cpu.max", fmt.Sprintf("%d %d", quota, cfsPeriod)
	}
	err := os.WriteFile(filepath.Join(t.dir("cpu", cgroup), file), []byte(text), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the process has ended already
	}
	if err != nil {
		return fmt.Errorf("set CPU quota: %w", err)
	}
	return nil
}

// oomKills is how often the kernel killed a process of the cgroup for lack of
// memory; 0 when the cgroup is gone.
func (t cgroupTree) oomKills(cgroup string) int {
	file := "memory.oom_control"
	if t.unified {
		file = "memory.events"
	}
	b, err := os.ReadFile(filepath.Join(t.dir("memory", cgroup), file))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "oom_kill "); ok {
			n, _ := strconv.Atoi(strings.TrimSpace(v)) // a number, by the kernel's word
			return n
		}
	}
	return 0
}

// signal sends sig to the cgroup's first process or to all. Processes that
// come into being meanwhile may miss it; only SIGKILL, which the runtime sends,
// must not.
//
// The first process of a pid namespace is deaf to signals that it does not
// handle, where any other process would end. Such a process stands for the
// whole: all others get the signal, and when there are none it is killed, as
// the signal would have done.
func (t cgroupTree) signal(cgroup string, sig syscall.Signal, all bool) error {
	b, err := os.ReadFile(filepath.Join(t.dir("pids", cgroup), "cgroup.procs"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var pids []int
	first, deaf := 0, false
	for _, f := range strings.Fields(string(b)) {
		pid, err := strconv.Atoi(f)
		if err != nil || pid <= 0 {
			continue // 0 is a process of an outer pid namespace
		}
		pids = append(pids, pid)
		if isInit, handles := disposition(pid, sig); isInit {
			first, deaf = pid, !handles
		}
	}
	if len(pids) == 0 {
		return nil
	}
	slices.Sort(pids)
	switch {
	case deaf && len(pids) == 1:
		sig = syscall.SIGKILL
	case !all && !deaf && first != 0:
		pids = []int{first}
	case !all && !deaf: // in the host's pid namespace: the oldest
		pids = pids[:1]
	}
	var errs []error
	for _, pid := range pids {
		if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// disposition reports whether pid is the first of its pid namespace, and
// whether it catches or ignores sig.
func disposition(pid int, sig syscall.Signal) (isInit, handles bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false, true
	}
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		switch name {
		case "NSpid":
			f := strings.Fields(value)
			isInit = len(f) > 1 && f[len(f)-1] == "1"
		case "SigCgt", "SigIgn":
			mask, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			handles = handles || err != nil || mask&(1<<(sig-1)) != 0
		}
	}
	return isInit, handles
}

// clamp knows the resource limits that a container may be given here. Without
// CAP_SYS_RESOURCE a limit above the host's hard one fails the whole start.
type clamp struct {
	limited bool
	hard    map[string]uint64
}

var rlimitNames = map[string]int{
	"RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_CPU": unix.RLIMIT_CPU,
	"RLIMIT_DATA": unix.RLIMIT_DATA, "RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS,
	"RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK, "RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE, "RLIMIT_NICE": unix.RLIMIT_NICE,
	"RLIMIT_NOFILE": unix.RLIMIT_NOFILE, "RLIMIT_NPROC": unix.RLIMIT_NPROC, "RLIMIT_RSS": unix.RLIMIT_RSS,
	"RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO, "RLIMIT_RTTIME": unix.RLIMIT_RTTIME,
	"RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING, "RLIMIT_STACK": unix.RLIMIT_STACK,
}

func detectClamp() (clamp, error) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return clamp{}, err
	}
	c := clamp{limited: true, hard: make(map[string]uint64)}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "CapEff:"); ok {
			caps, err := strconv.ParseUint(strings.TrimSpace(v), 16, 64)
			if err != nil {
				return clamp{}, err
			}
			c.limited = caps&(1<<unix.CAP_SYS_RESOURCE) == 0
		}
	}
	for name, id := range rlimitNames {
		var l unix.Rlimit
		if err := unix.Getrlimit(id, &l); err != nil {
			return clamp{}, err
		}
		c.hard[name] = l.Max
	}
	return c, nil
}

// apply lowers a limit to what may be set.
func (c clamp) apply(r Rlimit) Rlimit {
	if hard, ok := c.hard[r.Type]; ok && c.limited {
		r.Hard = min(r.Hard, hard)
	}
	r.Soft = min(r.Soft, r.Hard)
	return r
}
