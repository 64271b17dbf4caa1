// Package cgroup makes, limits, kills and removes groups of processes in
// whatever hierarchies the machine has: version 1, version 2, or both side by
// side (hybrid). A group exists under the same path in every hierarchy, so
// that processes of different hosts never meet. It is used on the machine and,
// by dcos-init, inside a host.
package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"dcos.example/dcos/runtime/fault"
)

// Hierarchy is one mounted tree of cgroups.
type Hierarchy struct {
	Mount   string `json:"mount"`             // "/sys/fs/cgroup/cpu,cpuacct"
	V2      bool   `json:"v2,omitempty"`      // of version 2
	Options string `json:"options,omitempty"` // version 1: what to mount it with again, "cpu,cpuacct" or "none,name=systemd"
}

// has reports whether the version 1 controller c is in h.
func (h Hierarchy) has(c string) bool {
	return !h.V2 && slices.Contains(strings.Split(h.Options, ","), c)
}

// Layout is every hierarchy of the machine.
type Layout struct {
	Hierarchies []Hierarchy `json:"hierarchies"`
	Controllers []string    `json:"controllers"` // what can be limited: those of version 1 and the usable ones of version 2
}

// Limits of a group. Zero means no limit.
type Limits struct {
	CPUs   float64 // in cores
	Memory int64   // bytes
	Pids   int64
}

// Detect finds the hierarchies that are mounted under /sys/fs/cgroup.
func Detect() (Layout, error) {
	mounts, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) {
		return i.FSType != "cgroup" && i.FSType != "cgroup2" || !strings.HasPrefix(i.Mountpoint, "/sys/fs/cgroup"), false
	})
	if err != nil {
		return Layout{}, fault.New("find cgroup hierarchies", fault.Internal, err)
	}
	var l Layout
	for _, m := range mounts {
		h := Hierarchy{Mount: m.Mountpoint, V2: m.FSType == "cgroup2"}
		if h.V2 {
			b, _ := os.ReadFile(filepath.Join(h.Mount, "cgroup.controllers")) // missing: none
			l.Controllers = append(l.Controllers, strings.Fields(string(b))...)
		} else {
			for _, o := range strings.Split(m.VFSOptions, ",") {
				switch {
				case o == "rw" || o == "ro" || o == "xattr" || strings.HasPrefix(o, "release_agent="):
				case strings.HasPrefix(o, "name="):
					h.Options = "none," + o
				default:
					h.Options = strings.TrimPrefix(h.Options+","+o, ",")
					l.Controllers = append(l.Controllers, o)
				}
			}
		}
		if !slices.ContainsFunc(l.Hierarchies, func(o Hierarchy) bool { return o.Mount == h.Mount }) {
			l.Hierarchies = append(l.Hierarchies, h)
		}
	}
	slices.Sort(l.Controllers)
	l.Controllers = slices.Compact(l.Controllers)
	return l, nil
}

// Missing returns which of the controllers that a host's limits need the
// machine does not offer.
func (l Layout) Missing() (names []string) {
	for _, c := range []string{"cpu", "memory", "pids"} {
		if !slices.Contains(l.Controllers, c) {
			names = append(names, c)
		}
	}
	return names
}

// Group is a path in every hierarchy, relative to the mounts.
type Group struct {
	layout Layout
	path   string
}

// Group returns the group at path; it need not exist.
func (l Layout) Group(path string) Group { return Group{l, filepath.Clean("/" + path)} }

func (g Group) dir(h Hierarchy) string { return filepath.Join(h.Mount, g.path) }

// Create makes the group with its parents and sets its limits. The group may
// exist.
func (g Group) Create(lim Limits) error {
	op := "make cgroup " + g.path
	for _, h := range g.layout.Hierarchies {
		if err := g.mkdir(h); err != nil {
			return fault.New(op, fault.Internal, err)
		}
		var files [][2]string
		set := func(name string, v any) { files = append(files, [2]string{name, fmt.Sprint(v)}) }
		period := int64(100000) // µs
		quota := int64(lim.CPUs * float64(period))
		if h.V2 && g.path != "/" {
			has, _ := os.ReadFile(filepath.Join(g.dir(h), "cgroup.controllers")) // none: hybrid
			enabled := strings.Fields(string(has))
			if quota > 0 && slices.Contains(enabled, "cpu") {
				set("cpu.max", fmt.Sprintf("%d %d", quota, period))
			}
			if lim.Memory > 0 && slices.Contains(enabled, "memory") {
				set("memory.max", lim.Memory)
			}
			if lim.Pids > 0 && slices.Contains(enabled, "pids") {
				set("pids.max", lim.Pids)
			}
		}
		if h.has("cpu") && quota > 0 {
			set("cpu.cfs_period_us", period)
			set("cpu.cfs_quota_us", quota)
		}
		if h.has("memory") && lim.Memory > 0 {
			set("memory.limit_in_bytes", lim.Memory)
		}
		if h.has("pids") && lim.Pids > 0 {
			set("pids.max", lim.Pids)
		}
		for _, f := range files {
			if err := os.WriteFile(filepath.Join(g.dir(h), f[0]), []byte(f[1]), 0); err != nil {
				return fault.New(op, fault.Internal, fmt.Errorf("write %q: %w", f[1], err))
			}
		}
	}
	return nil
}

// mkdir makes the group and its parents in h. On the way a cpuset of version 1
// gets the CPUs of its parent, without which no process may enter, and
// controllers of version 2 are handed down.
func (g Group) mkdir(h Hierarchy) error {
	at := h.Mount
	for name := range strings.SplitSeq(strings.Trim(g.path, "/"), "/") {
		if name == "" {
			break
		}
		if h.V2 {
			if err := handDown(at); err != nil {
				return err
			}
		}
		parent := at
		at = filepath.Join(at, name)
		// A parent may be removed by whoever deletes a neighbour: try again.
		for try := 0; ; try++ {
			err := os.Mkdir(at, 0o755)
			if err == nil || errors.Is(err, fs.ErrExist) {
				break
			}
			if try == 10 || !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			os.Mkdir(parent, 0o755)
		}
		if h.has("cpuset") {
			for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
				if err := inherit(parent, at, f); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func inherit(parent, child, file string) error {
	if b, err := os.ReadFile(filepath.Join(child, file)); err != nil || strings.TrimSpace(string(b)) != "" {
		return err
	}
	b, err := os.ReadFile(filepath.Join(parent, file))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(child, file), b, 0)
}

// handDown lets the children of the version 2 group at dir have every
// controller that it has itself.
func handDown(dir string) error {
	has, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, c := range strings.Fields(string(has)) {
		err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0)
		switch {
		case errors.Is(err, unix.EBUSY) && slices.Contains([]string{"cpu", "memory", "pids"}, c):
			return fmt.Errorf("hand controller %s down from %s: processes are in that cgroup itself; "+
				"run the installer where the root cgroup is empty of processes (for example on the machine rather than in a container)", c, dir)
		case err != nil && !errors.Is(err, unix.EBUSY) && slices.Contains([]string{"cpu", "memory", "pids"}, c):
			return err
		}
	}
	return nil
}

// HandDown empties the root of each version 2 hierarchy into the group named
// leaf and hands its controllers down, so that the other groups can have
// limits: what an init does first inside its own cgroup namespace.
func (l Layout) HandDown(leaf string) error {
	for _, h := range l.Hierarchies {
		if !h.V2 {
			continue
		}
		dir := filepath.Join(h.Mount, leaf)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		procs, err := pidsIn(h.Mount)
		if err != nil {
			return err
		}
		for _, pid := range procs {
			if err := join(dir, pid); err != nil {
				return err
			}
		}
		if err := handDown(h.Mount); err != nil {
			return err
		}
	}
	return nil
}

// Join moves the process into the group.
func (g Group) Join(pid int) error {
	for _, h := range g.layout.Hierarchies {
		if err := join(g.dir(h), pid); err != nil {
			return fault.New("enter cgroup "+g.path, fault.Internal, err)
		}
	}
	return nil
}

func join(dir string, pid int) error {
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
}

func pidsIn(dir string) (pids []int, err error) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil, nil // removed meanwhile
	}
	for f := range strings.FieldsSeq(string(b)) {
		pid, err := strconv.Atoi(f)
		if err != nil {
			return nil, err
		}
		if pid > 0 { // 0: in another pid namespace, out of our sight
			pids = append(pids, pid)
		}
	}
	return pids, err
}

// Procs returns the processes in the group and below it, in any hierarchy.
func (g Group) Procs() (pids []int, err error) {
	for _, h := range g.layout.Hierarchies {
		err := filepath.WalkDir(g.dir(h), func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || !d.IsDir() {
				return err
			}
			more, err := pidsIn(path)
			pids = append(pids, more...)
			return err
		})
		if err != nil {
			return nil, fault.New("list cgroup "+g.path, fault.Internal, err)
		}
	}
	slices.Sort(pids)
	return slices.Compact(pids), nil
}

// Signal sends sig to every process in the group and below.
func (g Group) Signal(sig syscall.Signal) error {
	pids, err := g.Procs()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fault.New("signal cgroup "+g.path, fault.Internal, err)
		}
	}
	return nil
}

// Kill kills every process in the group and below and returns when they are
// gone or ctx ends.
func (g Group) Kill(ctx context.Context) error {
	for {
		if err := g.Signal(syscall.SIGKILL); err != nil {
			return err
		}
		pids, err := g.Procs()
		if err != nil || len(pids) == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return fault.Newf("kill cgroup "+g.path, fault.Unavailable, "processes %v do not die: %w", pids, context.Cause(ctx))
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// Remove removes the group and those below it, which must hold no process. A
// group that does not exist is fine. Dying processes may still hold it for a
// moment: Remove tries until ctx ends.
func (g Group) Remove(ctx context.Context) error {
	for {
		err := g.rmdir()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fault.New("remove cgroup "+g.path, fault.Unavailable, err)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func (g Group) rmdir() (first error) {
	for _, h := range g.layout.Hierarchies {
		var dirs []string
		filepath.WalkDir(g.dir(h), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil // vanishes meanwhile: as wanted
		})
		for _, d := range slices.Backward(dirs) {
			if err := unix.Rmdir(d); err != nil && !errors.Is(err, unix.ENOENT) && first == nil {
				first = fmt.Errorf("%s: %w", d, err)
			}
		}
	}
	return first
}

// Prune removes the group if it is empty, and leaves it alone otherwise.
func (g Group) Prune() {
	for _, h := range g.layout.Hierarchies {
		unix.Rmdir(g.dir(h)) // busy or not empty: others use it
	}
}

// Exists reports whether the group is there in any hierarchy.
func (g Group) Exists() bool {
	return slices.ContainsFunc(g.layout.Hierarchies, func(h Hierarchy) bool {
		_, err := os.Stat(g.dir(h))
		return err == nil
	})
}

// MountAt mounts the hierarchies as the calling process may see them below
// root, at the same places as on the machine.
func (l Layout) MountAt(root string) error {
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if len(l.Hierarchies) == 1 && l.Hierarchies[0].V2 {
		return mount("cgroup2", filepath.Join(root, l.Hierarchies[0].Mount), "cgroup2", flags, "")
	}
	base := filepath.Join(root, "/sys/fs/cgroup")
	if err := mount("tmpfs", base, "tmpfs", flags&^unix.MS_NOEXEC, "mode=755,size=1m"); err != nil {
		return err
	}
	for _, h := range l.Hierarchies {
		at := filepath.Join(root, h.Mount)
		if err := os.Mkdir(at, 0o755); err != nil {
			return err
		}
		kind := "cgroup"
		if h.V2 {
			kind = "cgroup2"
		}
		if err := mount(kind, at, kind, flags, h.Options); err != nil {
			return err
		}
		// Programs look for /sys/fs/cgroup/cpu even where it is cpu,cpuacct.
		for o := range strings.SplitSeq(h.Options, ",") {
			link := filepath.Join(base, o)
			if _, err := os.Lstat(link); errors.Is(err, fs.ErrNotExist) && o != "none" && o != "" && !strings.HasPrefix(o, "name=") {
				if err := os.Symlink(filepath.Base(h.Mount), link); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func mount(source, target, kind string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s (%s): %w", kind, target, data, err)
	}
	return nil
}
