package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"dcos.example/dcos/ci/lab/disk"
	"dcos.example/dcos/ci/lab/lever"
	"dcos.example/dcos/ci/lab/rules"
	"dcos.example/dcos/providers/local/boot"
	"dcos.example/dcos/runtime/fault"
)

// Faults are what is broken on purpose. They hold until they are undone, also
// while a host reboots or has no power.
type Faults struct {
	Cuts  []Cut              `json:"cuts,omitempty"`
	Loss  map[string]float64 `json:"loss,omitempty"`  // per cent of a host's packets, both ways
	Delay map[string]Delay   `json:"delay,omitempty"` // of a host's packets, each way
	Disk  map[string]Disk    `json:"disk,omitempty"`  // hosts with a slow disk
}

// Cut is a direction in which nothing passes.
type Cut struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// Delay is how long packets take longer: Delay, and up to Jitter more. Their
// order stays.
type Delay struct {
	Delay  time.Duration `json:"delay"`
	Jitter time.Duration `json:"jitter,omitempty"`
}

// Disk bounds what a host may ask of its disk, reading and writing apart. Zero
// is no bound.
type Disk struct {
	IOPS           int64 `json:"iops,omitempty"`
	BytesPerSecond int64 `json:"bytes_per_second,omitempty"`
}

// Faults returns what is broken now.
func (l *Lab) Faults() (f Faults, err error) {
	err = readJSON(filepath.Join(l.Dir, faultsFile), &f)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return f, fault.New("read the faults of lab "+l.Name, fault.Internal, err)
	}
	return f, nil
}

// alter changes the faults: edit says how, act brings it about.
func (l *Lab) alter(ctx context.Context, op string, hosts []string, edit func(*Faults), act func(Faults) error) error {
	unlock, err := l.enter(ctx, op)
	if err != nil {
		return err
	}
	defer unlock()
	for _, h := range hosts {
		if _, err := l.host(h); err != nil && h != machinePort {
			return err
		}
	}
	f, err := l.Faults()
	if err != nil {
		return err
	}
	edit(&f)
	if err := act(f); err != nil {
		return fault.New(op, fault.KindOf(err), err)
	}
	if err := writeJSON(filepath.Join(l.Dir, faultsFile), f); err != nil {
		return fault.New(op, fault.Internal, err)
	}
	return nil
}

// Partition cuts every host of a off from every host of b: what a sends does
// not reach b, and unless oneWay the other way round. "machine" is the machine
// itself. An empty b stands for all hosts that are not in a.
func (l *Lab) Partition(ctx context.Context, a, b []string, oneWay bool) error {
	if len(b) == 0 {
		for _, h := range l.hosts() {
			if !slices.Contains(a, h.Name) {
				b = append(b, h.Name)
			}
		}
	}
	return l.alter(ctx, "partition", slices.Concat(a, b), func(f *Faults) {
		add := func(c Cut) {
			if c.From != c.To && !slices.Contains(f.Cuts, c) {
				f.Cuts = append(f.Cuts, c)
			}
		}
		for _, x := range a {
			for _, y := range b {
				add(Cut{x, y})
				if !oneWay {
					add(Cut{y, x})
				}
			}
		}
	}, l.applyFaults)
}

// Heal undoes every partition that has to do with one of the hosts, or all
// when none is named.
func (l *Lab) Heal(ctx context.Context, hosts ...string) error {
	return l.alter(ctx, "heal", hosts, func(f *Faults) {
		f.Cuts = slices.DeleteFunc(f.Cuts, func(c Cut) bool {
			return len(hosts) == 0 || slices.Contains(hosts, c.From) || slices.Contains(hosts, c.To)
		})
	}, l.applyFaults)
}

// Loss drops so many per cent of what a host sends and of what it is sent; 0
// is none.
func (l *Lab) Loss(ctx context.Context, host string, percent float64) error {
	if percent < 0 || percent > 100 {
		return fault.Newf("lose packets", fault.Invalid, "%g per cent", percent)
	}
	return l.alter(ctx, "lose packets of "+host, []string{host}, func(f *Faults) { put(&f.Loss, host, percent) }, l.applyFaults)
}

// SlowDisk bounds the host's disk; the zero Disk does not. An iops bound of 20
// makes a flush of one page take 0.2 s.
func (l *Lab) SlowDisk(ctx context.Context, host string, d Disk) error {
	if d.IOPS < 0 || d.BytesPerSecond < 0 {
		return fault.Newf("slow the disk", fault.Invalid, "bounds must be positive, or 0 for none: %+v", d)
	}
	return l.alter(ctx, "slow the disk of "+host, []string{host}, func(f *Faults) { put(&f.Disk, host, d) }, func(Faults) error {
		part := "slow-" + host
		if err := l.end(ctx, part); err != nil {
			return err
		}
		if d == (Disk{}) {
			return l.bound(host, &lever.Throttle{Group: l.levers(host)})
		}
		if err := l.group(part).Create(noLimits); err != nil {
			return err
		}
		cmd := exec.Command(l.program, "slow", l.Dir, host, strconv.FormatInt(d.IOPS, 10), strconv.FormatInt(d.BytesPerSecond, 10))
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		return l.spawn(ctx, cmd, part)
	})
}

// bound applies a bound to the host's disk; a host without power has none.
func (l *Lab) bound(host string, t *lever.Throttle) error {
	loops, err := boot.Attached(filepath.Join(l.hostDir(host), disk.Image))
	if err != nil || len(loops) == 0 {
		return err
	}
	return t.Apply(loops[0])
}

// Slow is the process that bounds what a host asks of its disk: it looks for
// groups that the host made meanwhile, ten times a second.
func Slow(ctx context.Context, dir, host string, d Disk, ready *os.File) error {
	l, err := inside(dir)
	if err != nil {
		return err
	}
	if err := l.group("slow-" + host).Join(os.Getpid()); err != nil {
		return err
	}
	t := &lever.Throttle{Group: l.levers(host), IOPS: d.IOPS, BytesPerSecond: d.BytesPerSecond}
	if err := l.bound(host, t); err != nil {
		return err
	}
	if err := announce(ready); err != nil {
		return err
	}
	for tick := time.NewTicker(100 * time.Millisecond); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return nil
		case <-tick.C:
		}
		if err := l.bound(host, t); err != nil {
			fmt.Fprintln(os.Stderr, err) // between power-off and power-on; the next one may do
		}
	}
}

// end ends a process of the lab that may run.
func (l *Lab) end(ctx context.Context, part string) error {
	g := l.group(part)
	if !g.Exists() {
		return nil
	}
	if err := g.Kill(ctx); err != nil {
		return err
	}
	l.reap(part)
	return g.Remove(ctx)
}

// Delay makes what a host sends, and what it is sent, arrive later; the zero
// Delay does not. The kernel may have no qdisc for that: a process passes the
// packets on (see package wire). Connections live on; the packets on the way
// are lost when it changes.
func (l *Lab) Delay(ctx context.Context, host string, d Delay) error {
	if d.Delay < 0 || d.Jitter < 0 {
		return fault.Newf("delay packets", fault.Invalid, "a delay cannot be negative: %+v", d)
	}
	op := "delay packets of " + host
	return l.alter(ctx, op, []string{host}, func(f *Faults) { put(&f.Delay, host, d) }, func(Faults) error {
		if err := l.unwire(ctx, host); err != nil {
			return err
		}
		if d == (Delay{}) {
			return nil
		}
		group := "wire-" + host
		if err := l.group(group).Create(noLimits); err != nil {
			return err
		}
		cmd := exec.Command(l.program, "wire", l.Dir, host, d.Delay.String(), d.Jitter.String())
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		return l.inLAN(ctx, cmd, group)
	})
}

func put[V comparable](m *map[string]V, host string, v V) {
	var none V
	if *m == nil {
		*m = map[string]V{}
	}
	(*m)[host] = v
	if v == none {
		delete(*m, host)
	}
}

// unwire connects the host's port to the lab's bridge again, and ends the wire
// between them.
func (l *Lab) unwire(ctx context.Context, host string) error {
	part := "wire-" + host
	if !l.group(part).Exists() {
		return nil
	}
	if err := l.end(ctx, part); err != nil {
		return err
	}
	lan, err := l.lan()
	if err != nil {
		return err
	}
	defer lan.Close()
	in, err := netlink.NewHandleAt(lan, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer in.Close()
	if br, err := in.LinkByName(delayBridge(host)); err == nil {
		if err := in.LinkDel(br); err != nil {
			return err
		}
	}
	err = plug(in, host, bridgeName)
	if _, off := errors.AsType[netlink.LinkNotFoundError](err); err != nil && !off {
		return err
	}
	return nil
}

// applyFaults has the bridge drop what does not pass.
func (l *Lab) applyFaults(f Faults) error {
	lan, err := l.lan()
	if err != nil {
		return err
	}
	defer lan.Close()
	frames := rules.Frames{Range: l.Range, Out: machinePort, Loss: f.Loss}
	for _, cut := range f.Cuts {
		for _, from := range []string{cut.From, outerTap(cut.From)} { // delayed or not
			for _, to := range []string{cut.To, outerTap(cut.To)} {
				frames.Cuts = append(frames.Cuts, [2]string{from, to})
			}
		}
	}
	return rules.Drop(lan, frames)
}

// Asked returns what hosts have tried to reach outside of the lab since it was
// made, such as "tcp 192.0.2.1:443" and "dns registry.example A", in order and
// without duplicates.
func (l *Lab) Asked() ([]string, error) {
	const op = "see what hosts asked for"
	lan, err := l.lan()
	if err != nil {
		return nil, err
	}
	defer lan.Close()
	asked, err := rules.Asked(lan)
	if err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	names, err := os.ReadFile(filepath.Join(l.Dir, askedFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(op, fault.Internal, err)
	}
	for line := range strings.Lines(string(names)) {
		asked = append(asked, "dns "+strings.TrimSpace(line))
	}
	slices.Sort(asked)
	return asked, nil
}
