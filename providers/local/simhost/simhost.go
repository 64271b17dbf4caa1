// Package simhost makes local hosts: process trees on this machine with their
// own network, mounts, processes, name and limits, which behave like machines
// of their own. dcos-init (providers/local/cmd/dcos-init) is their first
// process; killing it is pulling the plug.
//
// A host is a directory <Dir>/<cluster>/<host> on the machine:
//
//	host.json    what was asked for
//	pid.json     the first process, so that no other is ever killed for it
//	boot.json    what dcos-init was told at the last start
//	disk.img     the host's disk, a sparse file; all it writes is in here
//	control.sock where dcos-init listens
//	console.log  what dcos-init says
//	disk, root   mount points, in the host's eyes only
//
// and in the kernel a cgroup "dcos-local/<cluster>/<host>" in every hierarchy
// and one end of a veth pair on the cluster's bridge. Mounts, namespaces and
// the loop device vanish with the host's last process.
package simhost

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/moby/sys/mountinfo"

	"dcos.example/dcos/providers/local/boot"
	"dcos.example/dcos/providers/local/cgroup"
	"dcos.example/dcos/providers/local/control"
	"dcos.example/dcos/providers/local/network"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
)

// DefaultDir holds what the installer keeps on this machine; hosts do not see
// it.
const DefaultDir = "/var/lib/dcos-install"

const (
	hostFile   = "host.json"
	cgroupRoot = "dcos-local"

	// maxPids bounds the processes and threads of a host.
	maxPids = 32768

	// bootTime bounds a boot, downTime a power-off; both take well under a
	// second unless the machine is overloaded.
	bootTime = 30 * time.Second
	downTime = 20 * time.Second
)

// Host is what a local host is to be.
type Host struct {
	Cluster   string  `json:"cluster"`
	Name      string  `json:"name"`
	Address   string  `json:"address"` // in the range of the cluster's network
	CPUs      float64 `json:"cpus"`
	MemoryMiB int64   `json:"memory_mib"`
	DiskMiB   int64   `json:"disk_mib"`
	Role      string  `json:"role,omitempty"`    // for people who look at the file
	Network   string  `json:"network,omitempty"` // name of the bridge
	Owner     string  `json:"owner,omitempty"`   // whoever made it knows this token
}

// The least a host needs.
const (
	MinCPUs      = 0.05
	MinMemoryMiB = 32
	MinDiskMiB   = 64
)

// State is a host as it is.
type State struct {
	Host    Host
	Dir     string
	PID     int // of the first process, on the machine
	Boot    string
	Running bool
	// Connected says that its port is on the bridge.
	Connected bool
}

// Machine is the machine on which hosts live.
type Machine struct {
	Dir  string   // holds the hosts' directories
	Init string   // the dcos-init program
	Hide []string // directories of the machine that hosts see empty, besides the usual
	Show []string // directories of the machine that hosts see read-only
}

func (m Machine) dir(cluster, name string) string { return filepath.Join(m.Dir, cluster, name) }

func (m Machine) networks() network.Networks { return network.Networks{Dir: m.Dir} }

func group(l cgroup.Layout, cluster, name string) cgroup.Group {
	return l.Group(filepath.Join(cgroupRoot, cluster, name))
}

func vethName(cluster, name string) string { return network.LinkName("dv", name, cluster, name) }

func (h Host) check() error {
	var errs []error
	for what, v := range map[string]string{"cluster": h.Cluster, "name": h.Name} {
		if v == "" || v != filepath.Base(v) || v[0] == '.' {
			errs = append(errs, fmt.Errorf("%s: %q is not a name", what, v))
		}
	}
	if h.CPUs < MinCPUs || h.MemoryMiB < MinMemoryMiB || h.DiskMiB < MinDiskMiB {
		errs = append(errs, fmt.Errorf("a host needs at least %g CPUs, %d MiB of memory and %d MiB of disk, not %g, %d and %d",
			MinCPUs, MinMemoryMiB, MinDiskMiB, h.CPUs, h.MemoryMiB, h.DiskMiB))
	}
	return errors.Join(errs...)
}

// Ensure makes the host, or what is missing of it, and sees that it runs with
// these limits. A host that runs is not restarted. Other addresses or disk
// sizes than it was made with are refused with fault.Exists.
func (m Machine) Ensure(ctx context.Context, h Host) (State, error) {
	op := "make host " + h.Name
	if err := h.check(); err != nil {
		return State{}, fault.New(op, fault.Invalid, err)
	}
	net, err := m.networks().Load(h.Cluster)
	if err != nil {
		return State{}, err
	}
	if addr, err := netip.ParseAddr(h.Address); err != nil || !net.CIDR.Contains(addr) || addr == net.Gateway {
		return State{}, fault.Newf(op, fault.Invalid, "address: %q is not free for a host in %s", h.Address, net.CIDR)
	}
	layout, err := cgroup.Detect()
	if err != nil {
		return State{}, err
	}
	unlock, err := lock(ctx, m.dir(h.Cluster, h.Name))
	if err != nil {
		return State{}, fault.New(op, fault.Unavailable, err)
	}
	defer unlock()
	old, err := m.inspect(h.Cluster, h.Name)
	if err != nil {
		return State{}, err
	}
	if old.Host.Name != "" && (old.Host.Address != h.Address || old.Host.DiskMiB != h.DiskMiB) {
		return old, fault.Newf(op, fault.Exists, "it exists with address %s and %d MiB of disk", old.Host.Address, old.Host.DiskMiB)
	}
	if err := writeJSON(filepath.Join(old.Dir, hostFile), h); err != nil {
		return old, fault.New(op, fault.Internal, err)
	}
	old.Host = h
	if old.Running {
		if err := limit(layout, h); err != nil {
			return old, fault.New(op, fault.KindOf(err), err)
		}
		if !old.Connected {
			if err := errors.Join(disconnect(h.Cluster, h.Name), connect(old.PID, net, h)); err != nil {
				return old, fault.New(op, fault.Internal, err)
			}
			old.Connected = true
		}
		return old, nil
	}
	st, err := m.start(ctx, layout, net, h)
	if err != nil {
		return st, fault.New(op, fault.KindOf(err), err)
	}
	return st, nil
}

// limit makes the host's cgroup with the host's limits.
func limit(layout cgroup.Layout, h Host) error {
	return group(layout, h.Cluster, h.Name).Create(cgroup.Limits{CPUs: h.CPUs, Memory: h.MemoryMiB << 20, Pids: maxPids})
}

// Inspect returns the host as it is; its Dir is empty when there is none.
func (m Machine) Inspect(cluster, name string) (State, error) {
	st, err := m.inspect(cluster, name)
	if err == nil && st.Host.Name == "" {
		return State{}, nil
	}
	return st, err
}

// At returns the host whose directory is dir, as a State of Inspect names it;
// fault.NotFound when there is none.
func At(dir string) (State, error) {
	cluster := filepath.Dir(dir)
	m := Machine{Dir: filepath.Dir(cluster)}
	st, err := m.Inspect(filepath.Base(cluster), filepath.Base(dir))
	if err == nil && st.Dir == "" {
		err = fault.Newf("find local host", fault.NotFound, "there is none in %s", dir)
	}
	return st, err
}

func (m Machine) inspect(cluster, name string) (State, error) {
	st := State{Dir: m.dir(cluster, name)}
	var p process
	for file, v := range map[string]any{hostFile: &st.Host, pidFile: &p} {
		if err := readJSON(filepath.Join(st.Dir, file), v); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return st, fault.New("look at host "+name, fault.Internal, err)
		}
	}
	if p.alive() {
		st.PID, st.Boot, st.Running = p.PID, p.Boot, true
		var err error
		if st.Connected, err = connected(cluster, name); err != nil {
			return st, fault.New("look at host "+name, fault.Internal, err)
		}
	}
	return st, nil
}

// Hosts returns the names of the cluster's hosts, or of what is left of them,
// in name order.
func (m Machine) Hosts(cluster string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(m.Dir, cluster))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New("list hosts", fault.Internal, err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// start boots the host. The caller holds its lock; it does not run.
func (m Machine) start(ctx context.Context, layout cgroup.Layout, net network.Info, h Host) (st State, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, bootTime, fmt.Errorf("it did not boot within %s", bootTime))
	defer cancel()
	st = State{Host: h, Dir: m.dir(h.Cluster, h.Name)}
	// What is left of an earlier life would hold the disk.
	if err := m.clear(ctx, layout, h.Cluster, h.Name); err != nil {
		return st, err
	}
	// An old group may have handed its controllers to groups below it, and then
	// takes no process itself.
	if err := group(layout, h.Cluster, h.Name).Remove(ctx); err != nil {
		return st, err
	}
	if err := limit(layout, h); err != nil {
		return st, err
	}
	if err := ensureDisk(ctx, st.Dir, h.DiskMiB); err != nil {
		return st, err
	}
	show, err := m.shown()
	if err != nil {
		return st, err
	}
	spec := boot.Spec{
		Cluster: h.Cluster, Name: h.Name, Boot: uuid.NewString(), Address: h.Address,
		Cgroup: filepath.Join(cgroupRoot, h.Cluster, h.Name), Layout: layout, Resolvers: []string{config.DNSAddr},
		Hide:  slices.Concat([]string{"/root", "/home", DefaultDir, m.Dir}, m.Hide),
		Show:  show,
		Clear: []string{config.UnitDir, config.EtcDir, filepath.Dir(config.CurrentLink), config.LogDir},
	}
	if err := writeJSON(filepath.Join(st.Dir, boot.SpecFile), spec); err != nil {
		return st, err
	}
	p, err := m.launch(ctx, st.Dir, spec.Boot, func(pid int) error { return connect(pid, net, h) })
	if err != nil {
		// Nobody waits for a half-made host: leave nothing running.
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), downTime)
		defer cancel()
		return st, errors.Join(err, m.clear(undo, layout, h.Cluster, h.Name))
	}
	st.PID, st.Boot, st.Running, st.Connected = p.PID, p.Boot, true, true
	return st, nil
}

// shown returns the directories that hosts see as they are on the machine:
// those asked for, and file systems of the machine's own that hold programs,
// which the root file system alone lacks.
func (m Machine) shown() ([]string, error) {
	show := slices.Clone(m.Show)
	for _, d := range show {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	mounts, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) {
		for _, top := range []string{"/usr", "/bin", "/sbin", "/lib", "/lib64", "/nix"} {
			if i.Mountpoint == top || strings.HasPrefix(i.Mountpoint, top+"/") {
				return false, false
			}
		}
		return true, false
	})
	for _, mt := range mounts {
		if st, err := os.Stat(mt.Mountpoint); err == nil && st.IsDir() {
			show = append(show, mt.Mountpoint)
		}
	}
	return show, err
}

// clear kills whatever runs of the host and waits until the kernel has let go
// of its disk. Nothing running is fine.
func (m Machine) clear(ctx context.Context, layout cgroup.Layout, cluster, name string) error {
	var p process
	dir := m.dir(cluster, name)
	if err := readJSON(filepath.Join(dir, pidFile), &p); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if p.alive() {
		if err := p.signal(9); err != nil {
			return fmt.Errorf("kill host %s: %w", name, err)
		}
		if err := p.wait(ctx); err != nil {
			return fmt.Errorf("wait for the end of host %s: %w", name, err)
		}
	}
	if err := group(layout, cluster, name).Kill(ctx); err != nil {
		return err
	}
	if err := disconnect(cluster, name); err != nil {
		return err
	}
	return poll(ctx, func() (bool, error) {
		loops, err := boot.Attached(filepath.Join(dir, boot.ImageFile))
		return len(loops) == 0, err
	})
}

// PowerOff ends the host at once, as pulling the plug would; its disk stays.
// Ensure starts it again. A host that is down is fine.
func (m Machine) PowerOff(ctx context.Context, cluster, name string) error {
	return m.down(ctx, cluster, name, func(context.Context, State) {})
}

// Shutdown lets the host stop its units, then ends it.
func (m Machine) Shutdown(ctx context.Context, cluster, name string) error {
	return m.down(ctx, cluster, name, func(ctx context.Context, st State) {
		var p process
		if readJSON(filepath.Join(st.Dir, pidFile), &p) != nil {
			return
		}
		// If it cannot be asked, it is killed below.
		if _, err := (control.Client{Dir: st.Dir}).Do(ctx, control.Request{Op: control.OpShutdown}); err == nil {
			p.wait(ctx)
		}
	})
}

func (m Machine) down(ctx context.Context, cluster, name string, ask func(context.Context, State)) error {
	op := "power off host " + name
	st, err := m.Inspect(cluster, name)
	if err != nil || st.Dir == "" {
		return err
	}
	unlock, err := lock(ctx, st.Dir)
	if err != nil {
		return fault.New(op, fault.Unavailable, err)
	}
	defer unlock()
	asked, cancel := context.WithTimeout(ctx, downTime+5*time.Second)
	if st.Running {
		ask(asked, st)
	}
	cancel()
	layout, err := cgroup.Detect()
	if err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, downTime)
	defer cancel()
	if err := m.clear(bounded, layout, cluster, name); err != nil {
		return fault.New(op, fault.Unavailable, err)
	}
	return nil
}

// Remove ends the host and takes everything of it away, disk included. What is
// gone already is fine.
func (m Machine) Remove(ctx context.Context, cluster, name string) error {
	op := "remove host " + name
	if err := (Host{Cluster: cluster, Name: name, CPUs: 1, MemoryMiB: 64, DiskMiB: 64}).check(); err != nil {
		return fault.New(op, fault.Invalid, err)
	}
	layout, err := cgroup.Detect()
	if err != nil {
		return err
	}
	dir := m.dir(cluster, name)
	g := group(layout, cluster, name)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) && !g.Exists() {
		return nil
	}
	unlock, err := lock(ctx, dir)
	if err != nil {
		return fault.New(op, fault.Unavailable, err)
	}
	defer unlock()
	bounded, cancel := context.WithTimeout(ctx, downTime)
	defer cancel()
	if err := m.clear(bounded, layout, cluster, name); err != nil {
		return fault.New(op, fault.Unavailable, err)
	}
	if err := g.Remove(bounded); err != nil {
		return fault.New(op, fault.Unavailable, err)
	}
	layout.Group(filepath.Join(cgroupRoot, cluster)).Prune()
	layout.Group(cgroupRoot).Prune()
	if err := os.RemoveAll(dir); err != nil {
		return fault.New(op, fault.Internal, err)
	}
	os.Remove(filepath.Dir(dir)) // unless other hosts or the network are left
	return nil
}

// Free returns the bytes that the file system with the hosts' disks has left.
func (m Machine) Free() (int64, error) { return free(m.Dir) }
