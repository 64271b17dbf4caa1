package probe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// appendSize is the size of a small write to etcd's log.
	appendSize  = 2300
	appends     = 100
	appendsTime = 400 * time.Millisecond
)

// fsync appends to a file as etcd does to its log.
func fsync(ctx context.Context, dir string) *Fsync {
	f := &Fsync{Measured: nearest(dir)}
	if err := f.run(ctx); err != nil {
		f.Error = err.Error()
	}
	return f
}

func (f *Fsync) run(ctx context.Context) error {
	file, err := os.CreateTemp(f.Measured, ".dcos-probe-")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	b := make([]byte, appendSize)
	var all []time.Duration
	// What others left to be written comes first, and does not count.
	if _, err := file.Write(b); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	for end := time.Now().Add(appendsTime); len(all) < appends && time.Now().Before(end) && ctx.Err() == nil; {
		start := time.Now()
		if _, err := file.Write(b); err != nil {
			return err
		}
		if err := unix.Fdatasync(int(file.Fd())); err != nil {
			return os.NewSyscallError("fdatasync", err)
		}
		all = append(all, time.Since(start))
	}
	slices.Sort(all)
	f.Writes, f.P50, f.P99 = len(all), percentile(all, 50), percentile(all, 99)
	return nil
}

// overlay tries whether containers' root file systems can lie in dir.
func overlay(dir string) string {
	at, err := os.MkdirTemp(nearest(dir), ".dcos-probe-")
	if err != nil {
		return short(err)
	}
	defer os.RemoveAll(at)
	err = apart(unix.CLONE_NEWNS, func() error {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return os.NewSyscallError("make mounts private", err)
		}
		for _, d := range []string{"lower/d", "upper", "work", "merged"} {
			if err := os.MkdirAll(filepath.Join(at, d), 0o700); err != nil {
				return err
			}
		}
		merged := filepath.Join(at, "merged")
		options := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", at)
		if err := unix.Mount("overlay", merged, "overlay", 0, options); err != nil {
			return os.NewSyscallError("mount", err)
		}
		// Removing what is below needs whiteouts, and directory entries with
		// types to see them.
		err := os.Remove(filepath.Join(merged, "d"))
		if es, rerr := os.ReadDir(merged); err == nil && rerr == nil && len(es) > 0 {
			err = errors.New("what was removed is still seen")
		}
		return errors.Join(err, os.NewSyscallError("unmount", unix.Unmount(merged, unix.MNT_DETACH)))
	})
	if err != nil {
		return err.Error()
	}
	return Works
}

// kernel tries, in a network of its own, what the runtime does with it.
func kernel() map[string]string {
	got := map[string]string{}
	err := apart(unix.CLONE_NEWNET, func() error {
		for name, try := range map[string]func() error{
			"bridge": func() error { return netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs("probe0")}) },
			"veth":   func() error { return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs("probe1"), PeerName: "probe2"}) },
			"vxlan": func() error {
				return netlink.LinkAdd(&netlink.Vxlan{LinkAttrs: attrs("probe3"), VxlanId: 1, Port: 4789})
			},
			"nf_tables": natChain,
		} {
			got[name] = Works
			if err := try(); err != nil {
				got[name] = err.Error()
			}
		}
		return nil
	})
	got["namespaces"] = Works
	if err == nil {
		err = apart(unix.CLONE_NEWNS|unix.CLONE_NEWIPC|unix.CLONE_NEWUTS|unix.CLONE_NEWCGROUP, func() error { return nil })
	}
	if err != nil {
		got["namespaces"] = err.Error()
	}
	return got
}

func attrs(name string) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name = name
	return a
}

// natChain makes what the balancer does: a table with a chain that translates
// addresses.
func natChain() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	t := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "probe"})
	c.AddChain(&nftables.Chain{Name: "probe", Table: t, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest})
	return c.Flush()
}

// apart runs f on a thread that shares nothing of the given kinds with the
// process. The thread ends with it, and what f made in them.
func apart(flags int, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread is not used again
		if err := unix.Unshare(flags); err != nil {
			done <- os.NewSyscallError("unshare", err)
			return
		}
		done <- f()
	}()
	return <-done
}

// clock asks the kernel whether something keeps its clock right.
func clock() Clock {
	var t unix.Timex
	if _, err := unix.Adjtimex(&t); err != nil {
		return Clock{Error: os.NewSyscallError("adjtimex", err).Error()}
	}
	return Clock{Synchronised: t.Status&unix.STA_UNSYNC == 0, MaxError: time.Duration(t.Maxerror) * time.Microsecond}
}
