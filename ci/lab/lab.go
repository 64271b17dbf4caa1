// Package lab makes simulated hosts on this machine for tests and drills: each
// a Debian of its own with systemd as its first process, sshd, an address, a
// disk and limits, reached over SSH as a real one would be. It can take away
// their power, their network and their disk, and give them back.
//
// A lab is a directory <Dir>/<name>:
//
//	lab.json          what was asked for; written first, so that Down finds all
//	faults.json       what is broken on purpose (see Faults)
//	key, known_hosts  what a client needs to log in
//	hosts/<host>/     disk.img, console.log, the host's own SSH key
//
// and in the kernel a cgroup "dcos-lab/<name>" in every hierarchy, whose
// processes hold everything else: the switch holds the lab's network namespace
// with its bridge; each host that has power has a supervisor (Supervise) with
// a private mount namespace that holds the disk, and below it systemd-nspawn.
// Ending those processes is what takes a lab away. On the machine itself there
// is one end of a veth pair, named for the lab, through which the machine is a
// neighbour of the hosts, and a blackhole route behind it, so that nothing
// meant for the lab ever leaves. The lab has no uplink: hosts have a default
// route to a router that refuses everything and remembers what was asked for.
//
// Hosts share the machine's kernel, with its clock, its page cache and its log:
// skewed clocks and writes lost with the power cannot be had here.
package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"dcos.example/dcos/ci/lab/disk"
	"dcos.example/dcos/providers/local/boot"
	"dcos.example/dcos/providers/local/cgroup"
	"dcos.example/dcos/runtime/fault"
)

// DefaultDir holds the labs of a machine.
const DefaultDir = "/var/lib/dcos-lab"

const (
	cgroupRoot  = "dcos-lab"
	recordFile  = "lab.json"
	downFile    = "lab.json.down" // the record of a lab that is being taken down
	faultsFile  = "faults.json"
	askedFile   = "asked" // names that the site's DNS does not know
	consoleFile = "console.log"

	// bootTime bounds a boot and downTime a power-off. Both take about a second
	// and are given this much for overloaded machines.
	bootTime = 90 * time.Second
	downTime = 30 * time.Second
)

// Defaults for what a Host leaves out.
const (
	DefaultMemoryMiB = 1024
	DefaultDiskMiB   = 8192
)

// Host is what a host is to be.
type Host struct {
	Name      string     `json:"name"`
	Address   netip.Addr `json:"address"`
	CPUs      float64    `json:"cpus,omitempty"` // 0: all of the machine's
	MemoryMiB int64      `json:"memory_mib"`
	DiskMiB   int64      `json:"disk_mib"`
}

// Record is a lab as it was asked for.
type Record struct {
	Name  string       `json:"name"`
	Range netip.Prefix `json:"range"`
	Hosts []Host       `json:"hosts"`
}

// Machine is the address of the machine itself among the hosts.
func (r Record) Machine() netip.Addr { return r.Range.Addr().Next() }

// Router is the address of the hosts' default route, which leads nowhere.
func (r Record) Router() netip.Addr {
	a := r.Range.Addr().As4()
	for i, m := range net4mask(r.Range.Bits()) {
		a[i] |= ^m
	}
	return netip.AddrFrom4(a).Prev()
}

func net4mask(bits int) [4]byte {
	m := ^uint32(0) << (32 - bits)
	return [4]byte{byte(m >> 24), byte(m >> 16), byte(m >> 8), byte(m)}
}

// Options say where labs live and which program runs their processes.
type Options struct {
	Dir     string // DefaultDir when empty
	Program string // the lab command; Supervise, Switch and the wire run in it
}

func (o Options) dir(name string) string {
	if o.Dir == "" {
		return filepath.Join(DefaultDir, name)
	}
	return filepath.Join(o.Dir, name)
}

// Lab is a lab that exists. Its methods may be called from several goroutines
// and processes at once.
type Lab struct {
	Record
	Dir     string
	program string
	layout  cgroup.Layout

	mu       sync.Mutex // guards Record.Hosts, which Add makes longer, and children
	children []*child
}

var (
	labName  = regexp.MustCompile(`^[a-z][a-z0-9-]{0,14}$`)
	hostName = regexp.MustCompile(`^[a-z][a-z0-9]([a-z0-9-]{0,9}[a-z0-9])?$`)
)

// check returns everything that is wrong with the record.
func (r Record) check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !labName.MatchString(r.Name) {
		bad("name: %q is not 1 to 15 lower-case letters, digits and hyphens", r.Name)
	}
	if !r.Range.Addr().Is4() || r.Range != r.Range.Masked() || r.Range.Bits() > 28 {
		bad("range: %s is not an IPv4 range of /28 or larger, written with its first address", r.Range)
		return errors.Join(errs...)
	}
	taken := map[string]string{r.Machine().String(): "the machine", r.Router().String(): "the router"}
	for _, h := range r.Hosts {
		if !hostName.MatchString(h.Name) || h.Name == machinePort || h.Name == bridgeName {
			bad("host %q: a name has 2 to 12 lower-case letters, digits and hyphens, and is not %q or %q", h.Name, machinePort, bridgeName)
		}
		if !r.Range.Contains(h.Address) || h.Address == r.Range.Addr() || h.Address == r.Router().Next() {
			bad("host %s: %s is not an address for a host in %s", h.Name, h.Address, r.Range)
		}
		if h.MemoryMiB < 64 || h.DiskMiB < 256 || h.CPUs < 0 {
			bad("host %s: it needs at least 64 MiB of memory and 256 MiB of disk", h.Name)
		}
		for _, key := range []string{h.Address.String(), "name " + h.Name} {
			if by := taken[key]; by != "" {
				bad("host %s: %s belongs to %s", h.Name, key, by)
			}
			taken[key] = "host " + h.Name
		}
	}
	return errors.Join(errs...)
}

// Hosts returns n hosts, h1 at the eleventh address of the range and so on.
func Hosts(r netip.Prefix, n int) []Host { return number(r, 1, n) }

// number returns the hosts h<first> to h<last>.
func number(r netip.Prefix, first, last int) (hosts []Host) {
	a := r.Addr()
	for i := range 10 + last {
		a = a.Next()
		if n := i - 9; n >= first {
			hosts = append(hosts, Host{Name: fmt.Sprintf("h%d", n), Address: a})
		}
	}
	return hosts
}

func (r *Record) fill() {
	for i := range r.Hosts {
		h := &r.Hosts[i]
		if h.MemoryMiB == 0 {
			h.MemoryMiB = DefaultMemoryMiB
		}
		if h.DiskMiB == 0 {
			h.DiskMiB = DefaultDiskMiB
		}
	}
}

// Up makes the lab and returns when one can log into every host. When it
// fails or ctx ends, nothing of it is left. Hosts boot at once, about a second
// of both CPUs for two.
func Up(ctx context.Context, o Options, r Record) (*Lab, []Booted, error) {
	op := "make lab " + r.Name
	r.fill()
	if err := r.check(); err != nil {
		return nil, nil, fault.New(op, fault.Invalid, err)
	}
	if err := ready(); err != nil {
		return nil, nil, err
	}
	l, err := open(o, r.Name)
	if err != nil {
		return nil, nil, err
	}
	l.Record = r
	unlock, err := l.lock(ctx)
	if err != nil {
		return nil, nil, fault.New(op, fault.Unavailable, err)
	}
	defer unlock()
	if left, err := filepath.Glob(filepath.Join(l.Dir, recordFile+"*")); err != nil || len(left) > 0 || l.group("").Exists() {
		return nil, nil, fault.Newf(op, fault.Exists, "it exists, or something is left of it; take it down first")
	}
	if err := l.clash(); err != nil {
		os.RemoveAll(l.Dir) // holds the lock's file alone
		return nil, nil, err
	}
	booted, err := l.make(ctx)
	if err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), downTime)
		defer cancel()
		return nil, nil, fault.New(op, fault.KindOf(err), errors.Join(err, l.remove(undo)))
	}
	return l, booted, nil
}

func (l *Lab) make(ctx context.Context) ([]Booted, error) {
	if err := l.save(); err != nil { // first: Down finds whatever follows
		return nil, err
	}
	if err := l.makeKey(); err != nil {
		return nil, err
	}
	if err := l.startSwitch(ctx); err != nil {
		return nil, err
	}
	return l.makeHosts(ctx, l.Record.Hosts)
}

// makeHosts makes hosts that are in the record already.
func (l *Lab) makeHosts(ctx context.Context, hosts []Host) ([]Booted, error) {
	for _, h := range hosts {
		if err := l.makeHostKey(h); err != nil {
			return nil, err
		}
	}
	if err := l.writeKnownHosts(); err != nil {
		return nil, err
	}
	booted := make([]Booted, len(hosts))
	g, ctx := errgroup.WithContext(ctx)
	for i, h := range hosts {
		g.Go(func() (err error) {
			booted[i], err = l.start(ctx, h, true)
			return err
		})
	}
	return booted, g.Wait()
}

// Add makes n more hosts, numbered on from those there are.
func (l *Lab) Add(ctx context.Context, n int) ([]Booted, error) {
	op := "add hosts to lab " + l.Name
	unlock, err := l.enter(ctx, op)
	if err != nil {
		return nil, err
	}
	defer unlock()
	r, err := l.read()
	if err != nil {
		return nil, err
	}
	have := len(r.Hosts)
	r.Hosts = slices.Concat(r.Hosts, number(r.Range, have+1, have+n))
	r.fill()
	if err := r.check(); err != nil {
		return nil, fault.New(op, fault.Invalid, err)
	}
	l.mu.Lock()
	l.Record = r
	l.mu.Unlock()
	if err := l.save(); err != nil {
		return nil, err
	}
	return l.makeHosts(ctx, r.Hosts[have:])
}

// ready says what this machine lacks for a lab.
func ready() error {
	var errs []error
	if os.Geteuid() != 0 {
		errs = append(errs, errors.New("a lab needs root"))
	}
	for _, p := range []string{"/usr/bin/systemd-nspawn", "/usr/sbin/mkfs.ext4"} {
		if _, err := os.Stat(p); err != nil {
			errs = append(errs, fmt.Errorf("%s is missing: run ci/setup", p))
		}
	}
	if dir := rootfs(); !isDir(dir) {
		errs = append(errs, fmt.Errorf("%s is missing: run ci/setup, which makes it once and needs Debian's packages for that", dir))
	}
	if len(errs) == 0 {
		return nil
	}
	return fault.New("check this machine for a lab", fault.Invalid, errors.Join(errs...))
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

func open(o Options, name string) (*Lab, error) {
	if !labName.MatchString(name) {
		return nil, fault.Newf("find lab", fault.Invalid, "%q is not the name of a lab", name)
	}
	layout, err := cgroup.Detect()
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(o.dir(name))
	if err != nil {
		return nil, fault.New("find lab "+name, fault.Internal, err)
	}
	return &Lab{Record: Record{Name: name}, Dir: dir, program: o.Program, layout: layout}, nil
}

// Open returns a lab that exists, fault.NotFound when there is none.
func Open(o Options, name string) (*Lab, error) {
	l, err := open(o, name)
	if err != nil {
		return nil, err
	}
	l.Record, err = l.read()
	if err != nil {
		return nil, err
	}
	return l, nil
}

// List returns the names of the labs, or of what is left of them.
func List(o Options) ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(o.dir("x")))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New("list labs", fault.Internal, err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Down takes the lab away, or whatever is left of one. None is fine.
func Down(ctx context.Context, o Options, name string) error {
	l, err := open(o, name)
	if err != nil {
		return err
	}
	return l.Down(ctx)
}

// Down takes the lab away, with its disks.
func (l *Lab) Down(ctx context.Context) error {
	op := "take down lab " + l.Name
	ctx, cancel := context.WithTimeout(ctx, downTime)
	defer cancel()
	if !isDir(l.Dir) && !l.group("").Exists() {
		return nil
	}
	unlock, err := l.lock(ctx)
	if err != nil {
		return fault.New(op, fault.Unavailable, err)
	}
	defer unlock()
	for _, file := range []string{recordFile, downFile} { // to know its range, and by that its routes
		err := readJSON(filepath.Join(l.Dir, file), &l.Record)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fault.New(op, fault.Internal, err)
		}
	}
	if err := l.remove(ctx); err != nil {
		return fault.New(op, fault.KindOf(err), err)
	}
	return nil
}

// remove ends every process of the lab, which takes its namespaces, mounts and
// links with it, and removes the rest.
func (l *Lab) remove(ctx context.Context) error {
	// Without its record no process of the lab starts anything more.
	err := os.Rename(filepath.Join(l.Dir, recordFile), filepath.Join(l.Dir, downFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := l.clear(ctx); err != nil {
		return err
	}
	l.layout.Group(cgroupRoot).Prune()
	if err := os.RemoveAll(l.Dir); err != nil {
		return fault.New("remove the lab's directory", fault.Internal, err)
	}
	// The directory of labs stays: somewhere else something may be mounted on
	// it, which the kernel would take away with it.
	return nil
}

func (l *Lab) clear(ctx context.Context) error {
	if err := l.kill(ctx, ""); err != nil {
		return err
	}
	l.reap()
	if err := l.removeLinks(); err != nil {
		return err
	}
	images, err := filepath.Glob(filepath.Join(l.Dir, "hosts", "*", disk.Image))
	if err != nil {
		return err
	}
	for _, image := range images {
		if err := detached(ctx, image); err != nil {
			return err
		}
	}
	// A supervisor that was just starting may have entered its group meanwhile.
	for {
		short, cancel := context.WithTimeout(ctx, time.Second)
		err := l.group("").Remove(short)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		if err := l.kill(ctx, ""); err != nil {
			return err
		}
	}
}

// detached waits until the kernel has let go of a disk: mounts end a moment
// after their last process.
func detached(ctx context.Context, image string) error {
	return poll(ctx, func() (bool, error) {
		loops, err := boot.Attached(image)
		return len(loops) == 0, err
	})
}

// group returns the cgroup of a part of the lab: "" for all of it.
func (l *Lab) group(part string) cgroup.Group {
	return l.layout.Group(filepath.Join(cgroupRoot, l.Name, part))
}

// kill kills every process of a host, or of the lab for "", frozen or not.
func (l *Lab) kill(ctx context.Context, host string) error {
	g, hosts := l.group(host), []string{host}
	if host == "" {
		entries, err := os.ReadDir(filepath.Join(l.Dir, "hosts"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, e := range entries {
			hosts = append(hosts, e.Name())
		}
	}
	if err := g.Signal(unix.SIGKILL); err != nil {
		return err
	}
	// Version 1 keeps the frozen from dying.
	for _, h := range hosts {
		if err := l.levers(h).Thaw(ctx); err != nil {
			return err
		}
	}
	return g.Kill(ctx)
}

// host returns the named host, which another process may have added.
func (l *Lab) host(name string) (Host, error) {
	find := func(hosts []Host) int { return slices.IndexFunc(hosts, func(h Host) bool { return h.Name == name }) }
	hosts := l.hosts()
	if find(hosts) < 0 {
		r, err := l.read()
		if err != nil {
			return Host{}, err
		}
		l.mu.Lock()
		l.Record = r
		l.mu.Unlock()
		hosts = r.Hosts
	}
	if i := find(hosts); i >= 0 {
		return hosts[i], nil
	}
	var names []string
	for _, h := range hosts {
		names = append(names, h.Name)
	}
	return Host{}, fault.Newf("find host", fault.NotFound, "lab %s has no host %q; it has %v", l.Name, name, names)
}

// hosts returns the hosts that this process knows of; nobody changes the slice.
func (l *Lab) hosts() []Host {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Record.Hosts
}

func (l *Lab) hostDir(name string) string { return filepath.Join(l.Dir, "hosts", name) }

// read returns the record as it is now, fault.NotFound when there is no lab.
func (l *Lab) read() (r Record, err error) {
	err = readJSON(filepath.Join(l.Dir, recordFile), &r)
	if errors.Is(err, fs.ErrNotExist) {
		return r, fault.Newf("find lab", fault.NotFound, "there is no lab %s in %s", l.Name, filepath.Dir(l.Dir))
	}
	if err != nil {
		return r, fault.New("read lab "+l.Name, fault.Internal, err)
	}
	return r, nil
}

func (l *Lab) save() error { return writeJSON(filepath.Join(l.Dir, recordFile), l.Record) }

// enter locks a lab that exists.
func (l *Lab) enter(ctx context.Context, op string) (unlock func(), err error) {
	if _, err := l.read(); err != nil {
		return nil, err
	}
	unlock, err = l.lock(ctx)
	if err != nil {
		return nil, fault.New(op, fault.Unavailable, err)
	}
	if _, err := l.read(); err != nil { // it was taken down meanwhile
		os.Remove(filepath.Join(l.Dir, "lock"))
		os.Remove(l.Dir)
		unlock()
		return nil, err
	}
	return unlock, nil
}

// lock serialises changes of the lab across processes until unlock is called.
func (l *Lab) lock(ctx context.Context) (unlock func(), err error) {
	for {
		if err := os.MkdirAll(l.Dir, 0o700); err != nil {
			return nil, err
		}
		f, err := os.OpenFile(filepath.Join(l.Dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was removed just now by whoever held the lock
		}
		if err != nil {
			return nil, err
		}
		err = poll(ctx, func() (bool, error) {
			err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
			if errors.Is(err, unix.EWOULDBLOCK) {
				return false, nil
			}
			return err == nil, err
		})
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s, in use by another process: %w", l.Dir, err)
		}
		have, err1 := f.Stat()
		want, err2 := os.Stat(f.Name())
		if err1 == nil && err2 == nil && os.SameFile(have, want) {
			return func() { f.Close() }, nil
		}
		f.Close() // of a lab that is gone
	}
}

// poll calls f until it reports true or an error, or ctx ends.
func poll(ctx context.Context, f func() (bool, error)) error {
	for {
		if done, err := f(); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", append(b, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
