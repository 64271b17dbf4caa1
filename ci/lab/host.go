package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"dcos.example/dcos/ci/lab/disk"
	"dcos.example/dcos/ci/lab/lever"
	"dcos.example/dcos/providers/local/cgroup"
	"dcos.example/dcos/runtime/fault"
)

// Booted is what a boot took.
type Booted struct {
	Host      string     `json:"host"`
	Address   netip.Addr `json:"address"`
	Seconds   float64    `json:"boot_seconds"` // from power-on to the first login
	MemoryMiB float64    `json:"memory_mib"`   // then in use, without page cache
}

// Power is whether a host runs.
type Power string

// States of a host.
const (
	Off    Power = "off"
	On     Power = "on"
	Frozen Power = "frozen"
)

// State is a host as it is.
type State struct {
	Host
	Power     Power   `json:"power"`
	MemoryMiB float64 `json:"memory_in_use_mib"` // without page cache
}

// States returns the hosts as they are.
func (l *Lab) States() ([]State, error) {
	var out []State
	for _, h := range l.hosts() {
		p, err := l.power(h.Name)
		if err != nil {
			return nil, fault.New("look at host "+h.Name, fault.Internal, err)
		}
		out = append(out, State{Host: h, Power: p, MemoryMiB: l.memory(h.Name)})
	}
	return out, nil
}

func (l *Lab) power(host string) (Power, error) {
	pid, err := l.first(host)
	switch {
	case err != nil:
		return "", err
	case pid == 0:
		return Off, nil
	}
	frozen, err := l.levers(host).Frozen()
	if err == nil && frozen {
		return Frozen, nil
	}
	return On, err
}

// levers are the cgroup of everything that runs on the host.
func (l *Lab) levers(host string) lever.Group {
	return lever.New(l.layout, filepath.Join(cgroupRoot, l.Name, host, "machine"))
}

// memory returns what the host uses, without what the kernel would give up for
// others, in MiB; 0 when the machine does not account for it.
func (l *Lab) memory(host string) float64 {
	return math.Round(float64(l.levers(host).Memory())/(1<<20)*10) / 10
}

// start gives a host power and waits for the first login. whole also waits
// until every unit has started, and wants none to have failed.
func (l *Lab) start(ctx context.Context, h Host, whole bool) (Booted, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, bootTime, fmt.Errorf("host %s did not boot within %s", h.Name, bootTime))
	defer cancel()
	if err := l.group(h.Name + "/power").Create(noLimits); err != nil {
		return Booted{}, err
	}
	if err := l.group(h.Name + "/machine").Create(cgroup.Limits{CPUs: h.CPUs, Memory: h.MemoryMiB << 20}); err != nil {
		return Booted{}, err
	}
	if err := l.know(h); err != nil {
		return Booted{}, err
	}
	began := time.Now()
	cmd := exec.Command(l.program, "supervise", l.Dir, h.Name)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Unshareflags: unix.CLONE_NEWNS}
	if err := l.inLAN(ctx, cmd, h.Name); err != nil {
		return Booted{}, err
	}
	return l.awaitLogin(ctx, h, began, whole)
}

// know tells the machine the host's hardware address: what is asked for while
// the host boots would delay the first answer by a second.
func (l *Lab) know(h Host) error {
	link, err := netlink.LinkByName(l.Name)
	if err != nil {
		return err
	}
	return netlink.NeighSet(&netlink.Neigh{
		LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: h.Address.AsSlice(), HardwareAddr: hardwareAddr(h.Address),
	})
}

func (l *Lab) awaitLogin(ctx context.Context, h Host, began time.Time, whole bool) (Booted, error) {
	b := Booted{Host: h.Name, Address: h.Address}
	var last error
	err := poll(ctx, func() (bool, error) {
		// Until then only root may log in.
		_, last = l.run(ctx, h, "admin", "true")
		if last == nil {
			return true, nil
		}
		if c := l.child(h.Name); c != nil {
			select {
			case <-c.done:
				return false, fault.Newf("boot host "+h.Name, fault.Internal, "it ended: %s", l.tail(h.Name))
			default:
			}
		}
		return false, nil
	})
	if err != nil {
		if ctx.Err() != nil && last != nil {
			err = fmt.Errorf("%w: %w; %s", err, last, l.tail(h.Name))
		}
		return b, err
	}
	b.Seconds = math.Round(time.Since(began).Seconds()*1000) / 1000
	if whole {
		out, err := l.run(ctx, h, "root", "systemctl is-system-running --wait || systemctl --failed --no-legend --plain")
		if err != nil {
			return b, fault.Newf("boot host "+h.Name, fault.Internal, "ask whether all of its units started: %w", err)
		}
		if state := strings.TrimSpace(out); state != "running" {
			return b, fault.Newf("boot host "+h.Name, fault.Internal, "not all of its units started: %s", state)
		}
	}
	b.MemoryMiB = l.memory(h.Name)
	return b, nil
}

// change does f for one host, alone with the lab.
func (l *Lab) change(ctx context.Context, what, name string, f func(Host) error) error {
	op := what + " " + name
	unlock, err := l.enter(ctx, op)
	if err != nil {
		return err
	}
	defer unlock()
	h, err := l.host(name)
	if err != nil {
		return err
	}
	if err := f(h); err != nil {
		return fault.New(op, fault.KindOf(err), err)
	}
	return nil
}

// PowerOff ends a host at once, as pulling the plug would. Its disk stays. A
// host that is off is fine.
func (l *Lab) PowerOff(ctx context.Context, name string) error {
	return l.change(ctx, "power off", name, func(h Host) error { return l.off(ctx, h) })
}

func (l *Lab) off(ctx context.Context, h Host) error {
	ctx, cancel := context.WithTimeout(ctx, downTime)
	defer cancel()
	pid, err := l.first(h.Name)
	if err != nil {
		return err
	}
	if pid != 0 { // first: with it the kernel ends all others of the host
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	if err := l.kill(ctx, h.Name); err != nil {
		return err
	}
	l.reap(h.Name)
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
	if err := unplug(in, h.Name); err != nil {
		return err
	}
	if err := l.group(h.Name).Remove(ctx); err != nil {
		return err
	}
	return detached(ctx, filepath.Join(l.hostDir(h.Name), disk.Image))
}

// PowerOn boots a host that is off, and returns when one can log in. A host
// that runs is fine.
func (l *Lab) PowerOn(ctx context.Context, name string) (b Booted, err error) {
	err = l.change(ctx, "power on", name, func(h Host) error {
		p, err := l.power(name)
		if err != nil {
			return err
		}
		if p != Off {
			b = Booted{Host: name, Address: h.Address, MemoryMiB: l.memory(name)}
			return nil
		}
		if err := l.off(ctx, h); err != nil { // what is left of a host that shut itself down
			return err
		}
		b, err = l.start(ctx, h, false)
		return err
	})
	return b, err
}

// Reboot has the host stop its units and boot again, and returns when one can
// log in.
func (l *Lab) Reboot(ctx context.Context, name string) (b Booted, err error) {
	err = l.change(ctx, "reboot", name, func(h Host) error {
		ctx, cancel := context.WithTimeoutCause(ctx, bootTime, fmt.Errorf("it did not reboot within %s", bootTime))
		defer cancel()
		began := time.Now()
		pid, err := l.ask(name, unix.SIGINT) // to systemd: Ctrl-Alt-Del
		if err != nil {
			return err
		}
		err = poll(ctx, func() (bool, error) {
			now, err := l.first(name)
			return now != 0 && now != pid, err
		})
		if err != nil {
			return err
		}
		b, err = l.awaitLogin(ctx, h, began, false)
		return err
	})
	return b, err
}

// Shutdown has the host stop its units and power off.
func (l *Lab) Shutdown(ctx context.Context, name string) error {
	return l.change(ctx, "shut down", name, func(h Host) error {
		ctx, cancel := context.WithTimeoutCause(ctx, bootTime, fmt.Errorf("it did not shut down within %s", bootTime))
		defer cancel()
		if _, err := l.ask(name, unix.Signal(34+4)); err != nil { // SIGRTMIN+4 to systemd: poweroff.target
			return err
		}
		err := poll(ctx, func() (bool, error) {
			pids, err := l.group(name).Procs()
			return len(pids) == 0, err
		})
		if err != nil {
			return err
		}
		return l.off(ctx, h)
	})
}

// ask sends a signal to the host's first process.
func (l *Lab) ask(name string, sig unix.Signal) (pid int, err error) {
	p, err := l.power(name)
	if err == nil && p != On {
		err = fault.Newf("ask the host", fault.Conflict, "it is %s", p)
	}
	if err != nil {
		return 0, err
	}
	if pid, err = l.first(name); err != nil {
		return 0, err
	}
	return pid, unix.Kill(pid, sig)
}

// Renew puts a new machine in a host's place: the same name and address, an
// empty disk, another SSH key. It stays off.
func (l *Lab) Renew(ctx context.Context, name string) error {
	return l.change(ctx, "renew", name, func(h Host) error {
		if err := l.off(ctx, h); err != nil {
			return err
		}
		for _, f := range []string{disk.Image, hostKeyFile, hostKeyFile + ".pub"} {
			if err := os.Remove(filepath.Join(l.hostDir(name), f)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		if err := l.makeHostKey(h); err != nil {
			return err
		}
		return l.writeKnownHosts()
	})
}

// Freeze stops every process of a host; its kernel still answers pings and
// keeps connections. Thaw lets them go on.
func (l *Lab) Freeze(ctx context.Context, name string) error {
	return l.change(ctx, "freeze", name, func(h Host) error {
		p, err := l.power(name)
		if err == nil && p == Off {
			err = fault.Newf("freeze", fault.Conflict, "it is off")
		}
		if err != nil {
			return err
		}
		return l.levers(name).Freeze(ctx)
	})
}

// Thaw undoes Freeze.
func (l *Lab) Thaw(ctx context.Context, name string) error {
	return l.change(ctx, "thaw", name, func(h Host) error { return l.levers(name).Thaw(ctx) })
}

// fillFile takes the space of a full disk.
const fillFile = "/var/lab-fill"

// FillDisk leaves so many bytes of a running host's disk free, for anyone.
func (l *Lab) FillDisk(ctx context.Context, name string, leave int64) error {
	return l.change(ctx, "fill the disk of", name, func(h Host) error {
		path, err := l.inside(name, fillFile)
		if err != nil {
			return err
		}
		f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		var fsys unix.Statfs_t
		var st unix.Stat_t
		if err := errors.Join(unix.Fstatfs(int(f.Fd()), &fsys), unix.Fstat(int(f.Fd()), &st)); err != nil {
			return err
		}
		size := st.Blocks*512 + int64(fsys.Bavail)*fsys.Bsize - leave
		// Blocks of the file's own index are taken as well: come near in steps.
		for ; size > st.Size; size -= 1 << 20 {
			err = unix.Fallocate(int(f.Fd()), 0, 0, size)
			if err == nil {
				return nil
			}
			if !errors.Is(err, unix.ENOSPC) {
				return fmt.Errorf("fill to %d bytes: %w", size, err)
			}
			if leave > 0 {
				continue
			}
			return nil // full: what could be had is taken
		}
		return nil
	})
}

// FreeDisk undoes FillDisk.
func (l *Lab) FreeDisk(ctx context.Context, name string) error {
	return l.change(ctx, "free the disk of", name, func(h Host) error {
		path, err := l.inside(name, fillFile)
		if err != nil {
			return err
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
}

// inside returns where a file of a running host is seen from here.
func (l *Lab) inside(name, path string) (string, error) {
	pid, err := l.first(name)
	if err == nil && pid == 0 {
		err = fault.Newf("look into the host", fault.Conflict, "it is off")
	}
	return fmt.Sprintf("/proc/%d/root%s", pid, path), err
}
