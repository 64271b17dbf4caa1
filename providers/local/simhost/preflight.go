package simhost

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"dcos.example/dcos/providers/local/cgroup"
	"dcos.example/dcos/runtime/fault"
)

// Preflight returns everything that this machine lacks for local hosts, each
// with what to do about it, as one fault.Invalid error. It changes nothing.
func (m Machine) Preflight() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if os.Geteuid() != 0 {
		bad("local hosts need root: run with sudo")
	}
	if st, err := os.Stat(m.Init); err != nil {
		bad("dcos-init is missing (%v); it belongs beside dcos-install", err)
	} else if st.Mode()&0o111 == 0 {
		bad("%s is not executable", m.Init)
	}
	if _, err := findMkfs(); err != nil {
		errs = append(errs, err)
	}
	b, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		errs = append(errs, err)
	}
	have := strings.Fields(string(b))
	for _, fs := range []string{"overlay", "ext4", "tmpfs", "proc", "sysfs"} {
		// A module may still be loaded on first use.
		if !contains(have, fs) && !module(fs) {
			bad("the kernel has no file system %s: load its module (modprobe %s)", fs, fs)
		}
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		bad("loop devices are missing: load the module (modprobe loop)")
	}
	for _, ns := range []string{"net", "mnt", "pid", "uts", "ipc", "cgroup"} {
		if _, err := os.Stat("/proc/self/ns/" + ns); err != nil {
			bad("the kernel has no %s namespaces", ns)
		}
	}
	layout, err := cgroup.Detect()
	if err != nil {
		errs = append(errs, err)
	} else if missing := layout.Missing(); len(missing) > 0 {
		bad("cgroup controllers are missing under /sys/fs/cgroup: %s; mount or enable them (kernel option cgroup_enable=...)", strings.Join(missing, ", "))
	}
	for _, h := range layout.Hierarchies {
		if unix.Access(h.Mount, unix.W_OK) != nil {
			bad("%s is read-only: run on the machine itself, or in a container with writable cgroups", h.Mount)
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return fault.New("check this machine for local hosts", fault.Invalid, errors.Join(errs...))
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

// module reports whether the running kernel has the file system as a module.
func module(fs string) bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	b, err := os.ReadFile("/lib/modules/" + unix.ByteSliceToString(u.Release[:]) + "/modules.dep")
	return err == nil && strings.Contains(string(b), "/"+fs+".ko")
}
