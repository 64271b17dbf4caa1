package lab

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"dcos.example/dcos/providers/local/boot"
	"dcos.example/dcos/providers/local/cgroup"
	"dcos.example/dcos/providers/local/network"
)

const (
	diskImage = "disk.img"

	// rebooted is systemd-nspawn's exit code when the host asked for a reboot.
	rebooted = 133
)

// Supervise is the power supply of a host: it prepares the disk, boots the
// host again whenever it reboots, and ends when it shuts down. It runs in the
// lab's network and in a mount namespace of its own; killing it and the host's
// processes is pulling the plug. It says on ready that the host boots.
func Supervise(ctx context.Context, dir, name string, ready *os.File) error {
	l, err := inside(dir)
	if err != nil {
		return err
	}
	h, err := l.host(name)
	if err != nil {
		return err
	}
	if err := l.group(name + "/power").Join(os.Getpid()); err != nil {
		return err
	}
	// Relative paths from here on: a colon or comma in the directory's name
	// would be read as part of mount options.
	if err := os.Chdir(l.hostDir(name)); err != nil {
		return err
	}
	if err := l.mountDisk(ctx, h); err != nil {
		return err
	}
	// The machine's own may be no tmpfs, and is not ours to write to.
	const runtimeDir = "/run/systemd/nspawn"
	if err := os.MkdirAll(runtimeDir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", runtimeDir, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount %s: %w", runtimeDir, err)
	}
	for {
		again, err := l.boot(h, ready)
		if err != nil || !again {
			return err
		}
		ready = nil
	}
}

// boot runs the host until it ends, and reports whether it wants to reboot.
// Each boot has a fresh network, as with a real machine.
func (l *Lab) boot(h Host, ready *os.File) (again bool, err error) {
	ns, err := newNamespace()
	if err != nil {
		return false, err
	}
	defer ns.Close()
	if err := l.connectHost(ns, h); err != nil {
		return false, err
	}
	cmd := l.nspawn(ns, h)
	if err := cmd.Start(); err != nil {
		return false, err
	}
	if ready != nil {
		if err := announce(ready); err != nil {
			return false, err
		}
	}
	err = cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == rebooted {
		return true, nil
	}
	return false, err
}

// nspawn returns the command that boots the host.
func (l *Lab) nspawn(ns netns.NsHandle, h Host) *exec.Cmd {
	// A shell enters the host's cgroup before anything else happens.
	enter := `for dir; do [ "$dir" = -- ] && break; echo $$ >"$dir/cgroup.procs" || exit 1; shift; done; shift; exec systemd-nspawn "$@"`
	args := []string{"-c", enter, "enter"}
	for _, hierarchy := range l.layout.Hierarchies {
		args = append(args, filepath.Join(hierarchy.Mount, cgroupRoot, l.Name, h.Name, "machine"))
	}
	args = append(args, "--",
		"--quiet", "--keep-unit", "--register=no", "--machine="+h.Name, "--directory=root",
		fmt.Sprintf("--network-namespace-path=/proc/%d/fd/%d", os.Getpid(), int(ns)),
		// Everything that root of a machine may do, but for what would change
		// the one below: its clock and its kernel.
		"--capability=all", "--drop-capability=CAP_SYS_TIME,CAP_SYS_MODULE",
		"--system-call-filter=bpf keyctl add_key perf_event_open @mount",
		"--bind=/dev/net/tun", "--bind=/dev/fuse",
		"--resolv-conf=off", "--link-journal=no", "--timezone=off", "--console=pipe", "--kill-signal=SIGRTMIN+3",
		"/usr/lib/dcos-lab/init")
	cmd := exec.Command("/bin/sh", args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "SYSTEMD_NSPAWN_API_VFS_WRITABLE=network", "SYSTEMD_NSPAWN_TMPFS_TMP=0")
	return cmd
}

// connectHost gives the host's namespace its interface eth0, whose other end is
// a port of the lab's bridge with the host's name.
func (l *Lab) connectHost(ns netns.NsHandle, h Host) error {
	lan, err := netlink.NewHandle()
	if err != nil {
		return err
	}
	defer lan.Close()
	if err := unplug(lan, h.Name); err != nil { // the kernel may not have done so yet
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = h.Name
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerHardwareAddr: network.MAC(h.Address), PeerNamespace: netlink.NsFd(ns)}
	if err := lan.LinkAdd(veth); err != nil {
		return fmt.Errorf("add interface pair %s: %w", h.Name, err)
	}
	network.QuietIPv6(h.Name)
	err = plug(lan, h.Name, delayBridge(h.Name))
	if _, none := errors.AsType[netlink.LinkNotFoundError](err); none {
		err = plug(lan, h.Name, bridgeName)
	}
	if err != nil {
		return err
	}
	in, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer in.Close()
	for _, name := range []string{"lo", "eth0"} {
		link, err := in.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find %s in the host: %w", name, err)
		}
		if name == "eth0" {
			if err := in.AddrReplace(link, &netlink.Addr{IPNet: ipNet(h.Address, l.Range.Bits())}); err != nil {
				return fmt.Errorf("give the host its address: %w", err)
			}
		}
		if err := in.LinkSetUp(link); err != nil {
			return fmt.Errorf("bring %s up in the host: %w", name, err)
		}
	}
	out := &netlink.Route{Dst: ipNet(netip.IPv4Unspecified(), 0), Gw: l.Router().AsSlice()}
	if err := in.RouteReplace(out); err != nil {
		return fmt.Errorf("add the host's default route: %w", err)
	}
	return nil
}

// unplug deletes a host's port, and with it the host's interface.
func unplug(lan *netlink.Handle, host string) error {
	port, err := lan.LinkByName(host)
	if err == nil {
		err = lan.LinkDel(port)
	}
	if _, gone := errors.AsType[netlink.LinkNotFoundError](err); gone || errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("delete port %s: %w", host, err)
	}
	return nil
}

// mountDisk lays the host's disk over the root file system of the lab. All that
// the host writes is on that disk. What is below /var lies on it directly: a
// container's snapshots cannot lie on an overlay.
func (l *Lab) mountDisk(ctx context.Context, h Host) error {
	for _, d := range []string{"disk", "root"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	if err := makeDisk(ctx, h.DiskMiB); err != nil {
		return err
	}
	loop, err := boot.Attach(diskImage)
	if err != nil {
		return fmt.Errorf("attach disk: %w", err)
	}
	defer loop.Close() // the mount keeps it
	faults, err := l.Faults()
	if err != nil {
		return err
	}
	if err := l.throttle(h.Name, loop.Name(), faults.Disk[h.Name]); err != nil {
		return err
	}
	if err := unix.Mount(loop.Name(), "disk", "ext4", unix.MS_NOATIME, ""); err != nil {
		return fmt.Errorf("mount disk: %w", err)
	}
	const made = "disk/made"
	_, err = os.Stat(made)
	fresh := errors.Is(err, fs.ErrNotExist)
	if err != nil && !fresh {
		return err
	}
	if fresh {
		for _, d := range []string{"disk/upper", "disk/work", "disk/var"} {
			if err := os.RemoveAll(d); err != nil { // a first boot that was interrupted
				return err
			}
		}
		for _, d := range []string{"disk/upper", "disk/work"} {
			if err := os.Mkdir(d, 0o755); err != nil {
				return err
			}
		}
		if out, err := exec.CommandContext(ctx, "cp", "-a", filepath.Join(Rootfs(), "var"), "disk/var").CombinedOutput(); err != nil {
			return fmt.Errorf("copy /var: %w: %s", err, bytes.TrimSpace(out))
		}
	}
	if err := unix.Mount("overlay", "root", "overlay", 0, "lowerdir="+Rootfs()+",upperdir=disk/upper,workdir=disk/work"); err != nil {
		return fmt.Errorf("mount root: %w", err)
	}
	if err := unix.Mount("disk/var", "root/var", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount /var: %w", err)
	}
	if !fresh {
		return nil
	}
	if err := l.personalise(h); err != nil {
		return err
	}
	return os.WriteFile(made, nil, 0o600)
}

// personalise writes what differs from host to host, once.
func (l *Lab) personalise(h Host) error {
	var id [16]byte
	rand.Read(id[:])
	files := map[string]string{
		"etc/machine-id":  fmt.Sprintf("%x\n", id),
		"etc/hostname":    h.Name + "\n",
		"etc/hosts":       "127.0.0.1\tlocalhost\n127.0.1.1\t" + h.Name + "\n::1\tlocalhost ip6-localhost ip6-loopback\n",
		"etc/resolv.conf": "nameserver " + l.Router().String() + "\n",
	}
	for path, content := range files {
		if err := os.WriteFile(filepath.Join("root", path), []byte(content), 0o644); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		from, to string
		mode     fs.FileMode
	}{
		{hostKeyFile, "etc/ssh/" + hostKeyFile, 0o600},
		{hostKeyFile + ".pub", "etc/ssh/" + hostKeyFile + ".pub", 0o644},
		{filepath.Join(l.Dir, keyFile+".pub"), "root/.ssh/authorized_keys", 0o600},
		{filepath.Join(l.Dir, keyFile+".pub"), "home/admin/.ssh/authorized_keys", 0o600},
		{filepath.Join(l.Dir, keyFile+".pub"), "home/ops/.ssh/authorized_keys", 0o600},
	} {
		b, err := os.ReadFile(f.from)
		if err != nil {
			return err
		}
		to := filepath.Join("root", f.to)
		if err := os.WriteFile(to, b, f.mode); err != nil {
			return err
		}
		var dir unix.Stat_t
		if err := unix.Stat(filepath.Dir(to), &dir); err != nil {
			return err
		}
		if err := os.Chown(to, int(dir.Uid), int(dir.Gid)); err != nil {
			return err
		}
	}
	return nil
}

// makeDisk makes the disk in the working directory: a sparse file with an ext4
// file system. It has no journal: the machine keeps what a killed host wrote,
// and its writes are then the host's own, which is what SlowDisk slows down.
func makeDisk(ctx context.Context, mib int64) error {
	if _, err := os.Stat(diskImage); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	const tmp = diskImage + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(mib<<20), f.Close()); err != nil {
		return fmt.Errorf("make disk of %d MiB: %w", mib, err)
	}
	out, err := exec.CommandContext(ctx, "mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal,^resize_inode",
		"-E", "lazy_itable_init=1,nodiscard", tmp).CombinedOutput()
	if err != nil {
		return fmt.Errorf("mkfs.ext4: %w: %s", err, bytes.TrimSpace(out))
	}
	return os.Rename(tmp, diskImage)
}

// device returns "major:minor" of a device's file.
func device(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", err
	}
	return strconv.Itoa(int(unix.Major(st.Rdev))) + ":" + strconv.Itoa(int(unix.Minor(st.Rdev))), nil
}

// throttle bounds what the host asks of its disk.
func (l *Lab) throttle(host, loop string, d Disk) error {
	dev, err := device(loop)
	if err != nil {
		return err
	}
	for _, h := range l.layout.Hierarchies {
		dir := filepath.Join(h.Mount, cgroupRoot, l.Name, host, "machine")
		switch {
		case controls(h, "blkio"):
			for file, v := range map[string]int64{
				"read_iops": d.IOPS, "write_iops": d.IOPS, "read_bps": d.BytesPerSecond, "write_bps": d.BytesPerSecond,
			} {
				if err := os.WriteFile(filepath.Join(dir, "blkio.throttle."+file+"_device"), fmt.Appendf(nil, "%s %d", dev, v), 0); err != nil {
					return fmt.Errorf("bound the disk: %w", err)
				}
			}
			return nil
		case h.V2:
			max := func(v int64) string {
				if v == 0 {
					return "max"
				}
				return strconv.FormatInt(v, 10)
			}
			iops, bps := max(d.IOPS), max(d.BytesPerSecond)
			line := fmt.Sprintf("%s rbps=%s wbps=%s riops=%s wiops=%s", dev, bps, bps, iops, iops)
			err := os.WriteFile(filepath.Join(dir, "io.max"), []byte(line), 0)
			if errors.Is(err, fs.ErrNotExist) {
				continue // hybrid: the controller is in a hierarchy of version 1
			}
			if err != nil {
				return fmt.Errorf("bound the disk: %w", err)
			}
			return nil
		}
	}
	if d != (Disk{}) {
		return errors.New("bound the disk: this machine has no cgroup controller for disks")
	}
	return nil
}

// controls reports whether h is the version 1 hierarchy of a controller.
func controls(h cgroup.Hierarchy, controller string) bool {
	return !h.V2 && strings.Contains(","+h.Options+",", ","+controller+",")
}
