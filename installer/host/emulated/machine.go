// Package emulated is a host in memory. What runs on it is made up, but it
// starts, fails and leaves files as the real thing does; everything above the
// interface host.Host is real. Tests use it to break off an installation at
// every single call, and to install hundreds of hosts at once.
//
// A World is the machines and the network between them: it is a host.Opener, it
// answers for the cluster that the machines make up, and it tells what they
// are.
package emulated

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"dcos.example/dcos/installer/bundle"
	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
)

// Machine is one emulated host. Its exported fields are set before it is used.
type Machine struct {
	Name, Address string
	// Latency is how long each call takes, Copy how long it takes to bring a
	// release.
	Latency, Copy time.Duration
	// Fault is called at every point at which something can go wrong: before
	// and after each call, and between the parts of one. The error that it
	// returns ends the call there. Nil: nothing goes wrong.
	Fault func(Point) error
	// Command runs what the machine does not know itself; nil: nothing.
	Command func(argv []string) (host.Output, bool)
	// Breaks says of the program of a unit, and of the files that it is started
	// with, why it does not stay up; "" when it does. Nil: all do.
	Breaks func(unit, programSHA256 string, read func(path string) string) string

	mu      sync.Mutex
	down    bool
	points  int
	tree    *tree
	units   map[string]*unit
	written map[string]bool
	calls   map[string]int
	ran     []string
}

// Point is a moment of a call.
type Point struct {
	N    int    // from 1, counted over all calls
	What string // "change: after 2 of 5"
}

// unit is one unit that was started or enabled.
type unit struct {
	active, enabled bool
	broken          string // why it does not stay up
	since           time.Time
	restarts        int
	starts          int
}

// NewMachine returns a machine as its distribution leaves it.
func NewMachine(name, address string) *Machine {
	m := &Machine{Name: name, Address: address, tree: newTree(), units: map[string]*unit{}, written: map[string]bool{}, calls: map[string]int{}}
	for _, d := range []string{config.UnitDir, "/opt", "/run/systemd/resolve", "/var/lib", "/var/log", "/tmp", "/sys/fs/cgroup"} {
		m.must(m.tree.mkdir(d))
	}
	for p, f := range map[string]host.File{
		machineID:                               {Data: []byte(digest([]byte(name))[:32] + "\n"), Mode: 0o444},
		"/etc/hosts":                            {Data: []byte("127.0.0.1 localhost\n127.0.1.1 " + name + "\n"), Mode: 0o644},
		"/etc/hostname":                         {Data: []byte(name + "\n"), Mode: 0o640, UID: 1, GID: 2},
		"/etc/resolv.conf":                      {Link: "../run/systemd/resolve/stub-resolv.conf"},
		"/run/systemd/resolve/stub-resolv.conf": {Data: []byte("nameserver 127.0.0.53\n"), Mode: 0o644},
	} {
		m.must(m.tree.put(p, f))
	}
	return m
}

const machineID = "/etc/machine-id"

func (m *Machine) must(err error) {
	if err != nil {
		panic("make an emulated machine: " + err.Error())
	}
}

// handle is a machine as an Opener hands it out.
type handle struct{ m *Machine }

var _ host.Host = handle{}

// Host returns the machine as a host, whether it is up or not.
func (m *Machine) Host() host.Host { return handle{m} }

func (m *Machine) fail(what string, err error) error {
	return fault.New("host "+m.Name+": "+what, fault.KindOf(err), err)
}

// errDown is the answer of a machine without power.
var errDown = fault.New("reach it", fault.Unavailable, errors.New("it is down"))

// call is one call of the machine. Part is run between points, each of them
// with the machine locked.
func (h handle) call(ctx context.Context, name, what string, parts ...func() error) error {
	m := h.m
	if err := m.wait(ctx, m.Latency); err != nil {
		return m.fail(what, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls[name]++
	for i := 0; ; i++ {
		when := "before"
		if i > 0 {
			when = fmt.Sprintf("after %d of %d", i, len(parts))
		}
		if m.down {
			return m.fail(what, errDown)
		}
		if err := m.point(name + ": " + what + ": " + when); err != nil {
			return m.fail(what, err)
		}
		if i == len(parts) {
			return nil
		}
		if err := parts[i](); err != nil {
			return m.fail(what, err)
		}
	}
}

func (m *Machine) wait(ctx context.Context, d time.Duration) error {
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-ctx.Done():
		case <-t.C:
		}
	}
	if ctx.Err() != nil {
		return fault.New("go on", fault.Unavailable, context.Cause(ctx))
	}
	return nil
}

// point counts, and asks whether something goes wrong here.
func (m *Machine) point(what string) error {
	m.points++
	if m.Fault == nil {
		return nil
	}
	return m.Fault(Point{m.points, what})
}

// Run knows the few programs that the installer runs.
func (h handle) Run(ctx context.Context, argv ...string) (out host.Output, err error) {
	err = h.call(ctx, "run", "run "+strings.Join(argv, " "), func() error {
		h.m.ran = append(h.m.ran, strings.Join(argv, " "))
		out = h.m.run(argv)
		return nil
	})
	return out, err
}

func (m *Machine) run(argv []string) host.Output {
	if m.Command != nil {
		if out, known := m.Command(argv); known {
			return out
		}
	}
	line := strings.Join(argv, " ")
	switch {
	case argv[0] == "/bin/sh" && strings.Contains(line, "/proc/net/tcp"):
		return host.Output{Stdout: "disk 1000000 4096\nmemory 4000000\ncontroller cpu\ncontroller memory\ncontroller pids\nfilesystem overlay\nfeature ipv4\n"}
	case argv[0] == "systemctl" && argv[1] == "try-reload-or-restart":
		return host.Output{}
	case argv[0] == "rmdir":
		return m.rmdir(argv[1:])
	case argv[0] == daemon:
		return m.daemon(argv[1:])
	}
	return host.Output{Code: 127, Stderr: argv[0] + ": not found\n"}
}

const daemon = config.CurrentLink + "/bin/dcosd"

// daemon is what dcosd answers on the command line.
func (m *Machine) daemon(args []string) host.Output {
	if m.tree.get(daemon, true) == nil {
		return host.Output{Code: 127, Stderr: daemon + ": not found\n"}
	}
	switch strings.Join(args, " ") {
	case "status":
		for name, u := range m.units {
			if u.enabled && (!u.active || u.broken != "") {
				return host.Output{Code: 1, Stderr: "dcosd: " + name + " does not run\n"}
			}
		}
		return host.Output{}
	case "members leave":
		return host.Output{}
	case "clean":
		m.tree.remove("/sys/fs/cgroup/dcos")
		return host.Output{}
	}
	return host.Output{Code: 2, Stderr: "dcosd: start: which role?\n"}
}

func (m *Machine) rmdir(args []string) host.Output {
	var out host.Output
	for _, dir := range args {
		if strings.HasPrefix(dir, "-") {
			continue
		}
		names, there := m.tree.names(dir)
		if !there {
			out.Code, out.Stderr = 1, out.Stderr+"rmdir: failed to remove '"+dir+"': No such file or directory\n"
			continue
		}
		if len(names) == 0 {
			m.tree.remove(dir)
		}
	}
	return out
}

// Stage keeps the release by reference.
func (h handle) Stage(ctx context.Context, _ string, s bundle.Share) error {
	if err := h.m.wait(ctx, h.m.Copy); err != nil {
		return h.m.fail("stage release "+s.Release, err)
	}
	t := h.m.tree
	part := host.ReleasePath(s.Release) + ".part"
	return h.call(ctx, "stage", "stage release "+s.Release,
		func() error {
			if t.releases[s.Release] != nil {
				return nil
			}
			return h.m.mkdir(part + "/bin")
		},
		func() error {
			h.m.remove(part)
			h.m.written[host.ReleasePath(s.Release)] = true
			t.releases[s.Release] = &s
			return nil
		})
}

func (m *Machine) mkdir(p string) error {
	m.written[p] = true
	return m.tree.mkdir(p)
}

func (m *Machine) remove(p string) {
	m.written[p] = true
	m.tree.remove(p)
}

// Look implements host.Batch.
func (h handle) Look(ctx context.Context, q host.Query) (host.View, error) {
	v := host.View{Files: map[string]host.Entry{}, Dirs: map[string][]string{}, Units: map[string]host.Unit{}}
	err := h.call(ctx, "look", fmt.Sprintf("look at %d files and %d units", len(q.Files)+len(q.Content), len(q.Units)), func() error {
		for i, p := range slices.Concat(q.Files, q.Content) {
			if n := h.m.tree.get(p, false); n != nil {
				v.Files[p] = n.entry(i >= len(q.Files))
			}
		}
		for _, d := range q.Dirs {
			if names, ok := h.m.tree.names(d); ok {
				v.Dirs[d] = names
			}
		}
		for _, name := range q.Units {
			if u, ok := h.m.status(name); ok {
				v.Units[name] = u
			}
		}
		return nil
	})
	return v, err
}

// Change implements host.Batch.
func (h handle) Change(ctx context.Context, changes ...host.Change) error {
	var parts []func() error
	for _, c := range changes {
		parts = append(parts, func() error {
			if c.File == nil {
				h.m.remove(c.Path)
				return nil
			}
			h.m.written[c.Path] = true
			return h.m.tree.put(c.Path, *c.File)
		})
	}
	what := "nothing"
	if len(changes) > 0 {
		what = changes[len(changes)-1].Path
	}
	return h.call(ctx, "change", "change "+what, parts...)
}

// ReadFile implements host.Files.
func (h handle) ReadFile(ctx context.Context, p string) (f host.File, err error) {
	err = h.call(ctx, "read", "read "+p, func() error {
		n := h.m.tree.get(p, true)
		if n == nil {
			return fault.New("open", fault.NotFound, fs.ErrNotExist)
		}
		f = n.entry(true).File
		return nil
	})
	return f, err
}

// WriteFile implements host.Files.
func (h handle) WriteFile(ctx context.Context, p string, f host.File) error {
	return h.Change(ctx, host.Put(p, f))
}

// Remove implements host.Files.
func (h handle) Remove(ctx context.Context, p string) error { return h.Change(ctx, host.Gone(p)) }

// Link implements host.Files.
func (h handle) Link(ctx context.Context, p, target string) error {
	return h.Change(ctx, host.Put(p, host.File{Link: target}))
}

// ReadLink implements host.Files.
func (h handle) ReadLink(ctx context.Context, p string) (to string, err error) {
	err = h.call(ctx, "read", "read link "+p, func() error {
		n := h.m.tree.get(p, false)
		if n == nil || n.link == "" {
			return fault.New("readlink", fault.NotFound, fs.ErrNotExist)
		}
		to = n.link
		return nil
	})
	return to, err
}

// status is what init says of a unit; false when it has no file.
func (m *Machine) status(name string) (host.Unit, bool) {
	u := m.units[name]
	if m.tree.get(path.Join(config.UnitDir, name), true) == nil && (u == nil || !u.active) {
		return host.Unit{}, false
	}
	switch {
	case u == nil || !u.active:
		return host.Unit{State: "inactive"}, true
	case u.broken != "":
		u.restarts++ // each time one looks it has died once more
		return host.Unit{State: "activating (auto-restart)", Restarts: u.restarts, LastExit: "exit status 3", Log: u.broken + "\n"}, true
	}
	return host.Unit{Active: true, State: "active", Since: u.since}, true
}

// StartUnit implements host.Units.
func (h handle) StartUnit(ctx context.Context, name string) error {
	m := h.m
	return h.call(ctx, "start", "start "+name, func() error {
		file := m.tree.get(path.Join(config.UnitDir, name), true)
		if file == nil {
			return fault.Newf("find unit", fault.NotFound, "Unit %s not found.", name)
		}
		u := m.unit(name)
		if u.active {
			return nil
		}
		program := execOf(string(file.data))
		n := m.tree.get(program, true)
		if n == nil && strings.HasPrefix(program, config.CurrentLink) {
			return fault.Newf("start", fault.Internal, "%s: No such file or directory", program)
		}
		u.active, u.since, u.broken = true, time.Now(), ""
		u.starts++
		if m.Breaks != nil {
			sum := ""
			if n != nil {
				sum = n.sum
			}
			u.broken = m.Breaks(name, sum, func(p string) string {
				if n := m.tree.get(p, true); n != nil {
					return string(n.data)
				}
				return ""
			})
		}
		// What daemons leave behind.
		for _, p := range []string{config.VarDir + "/" + name + "/data", config.RunDir + "/" + name + ".sock", config.LogDir + "/" + name + ".log", "/sys/fs/cgroup/dcos/" + name} {
			if err := m.tree.put(p, host.File{Data: []byte("data"), Mode: 0o600}); err != nil {
				return err
			}
		}
		return nil
	})
}

func (m *Machine) unit(name string) *unit {
	if m.units[name] == nil {
		m.units[name] = &unit{}
	}
	return m.units[name]
}

// execOf returns the program of a unit's file.
func execOf(text string) string {
	for l := range strings.Lines(text) {
		if cmd, ok := strings.CutPrefix(strings.TrimSpace(l), "ExecStart="); ok {
			return strings.Fields(cmd)[0]
		}
	}
	return ""
}

// StopUnit implements host.Units.
func (h handle) StopUnit(ctx context.Context, name string) error {
	return h.call(ctx, "stop", "stop "+name, func() error {
		if u := h.m.units[name]; u != nil {
			u.active, u.broken, u.restarts = false, "", 0
		}
		return nil
	})
}

// EnableUnit implements host.Units.
func (h handle) EnableUnit(ctx context.Context, name string, on bool) error {
	return h.call(ctx, "enable", fmt.Sprintf("enable %s %t", name, on), func() error {
		if u := h.m.units[name]; u != nil || on {
			h.m.unit(name).enabled = on
		}
		return nil
	})
}

// UnitStatus implements host.Units.
func (h handle) UnitStatus(ctx context.Context, name string, _ int) (u host.Unit, err error) {
	err = h.call(ctx, "status", "look at "+name, func() error {
		var ok bool
		if u, ok = h.m.status(name); !ok {
			return fault.Newf("find unit", fault.NotFound, "there is no such unit")
		}
		return nil
	})
	return u, err
}

// Power switches the machine on or off. Units that are enabled start with it.
func (m *Machine) Power(on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = !on
	for _, u := range m.units {
		u.active = on && u.enabled
		if u.active {
			u.starts++
			u.since = time.Now()
		}
	}
	m.tree.remove(config.RunDir)
}

// Points is how many points there were so far.
func (m *Machine) Points() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.points
}

// Starts is how often each unit was started.
func (m *Machine) Starts() map[string]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[string]int{}
	for name, u := range m.units {
		out[name] = u.starts
	}
	return out
}

// Calls is how often each kind of call was made.
func (m *Machine) Calls() map[string]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.calls)
}

// Ran lists the commands that were run.
func (m *Machine) Ran() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.ran)
}

// Written lists the paths that were ever written through the host interface,
// sorted.
func (m *Machine) Written() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.written))
}

// Put changes a file as somebody else on the machine would.
func (m *Machine) Put(p string, f host.File) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.must(m.tree.put(p, f))
}

// Picture is all there is on the machine: files with their modes, owners and
// contents, and units, one line each. Two pictures are equal when nothing
// changed.
func (m *Machine) Picture() map[string]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[string]string{}
	for p, n := range m.tree.nodes {
		switch {
		case n.dir:
			out[p] = fmt.Sprintf("directory %o", n.mode)
		case n.link != "":
			out[p] = "link to " + n.link
		default:
			out[p] = fmt.Sprintf("file %o %d:%d %q", n.mode, n.uid, n.gid, n.data)
		}
	}
	for name := range m.tree.releases {
		out[host.ReleasePath(name)] = "release"
	}
	for name, u := range m.units {
		if u.active || u.enabled {
			out["unit "+name] = fmt.Sprintf("active=%t enabled=%t broken=%q", u.active, u.enabled, u.broken)
		}
	}
	return out
}
