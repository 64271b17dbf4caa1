package lab

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"dcos.example/dcos/ci/lab/disk"
	"dcos.example/dcos/providers/local/network"
)

// rebooted is systemd-nspawn's exit code when the host asked for a reboot.
const rebooted = 133

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
	if err := l.mount(ctx, h); err != nil {
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
	// The kernel copied this from the machine, which may well forward.
	return within(ns, func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0) })
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

// mount attaches the host's disk and puts the host's root together in the
// working directory.
func (l *Lab) mount(ctx context.Context, h Host) error {
	loop, err := disk.Attach(ctx, h.DiskMiB)
	if err != nil {
		return err
	}
	defer loop.Close() // the mount keeps it
	client := filepath.Join(l.Dir, keyFile+".pub")
	return disk.Mount(ctx, loop.Name(), rootfs(), func(root string) error {
		var id [16]byte
		rand.Read(id[:])
		files := []disk.File{
			{Path: "etc/machine-id", Content: fmt.Sprintf("%x\n", id)},
			{Path: "etc/hostname", Content: h.Name + "\n"},
			{Path: "etc/hosts", Content: "127.0.0.1\tlocalhost\n127.0.1.1\t" + h.Name + "\n::1\tlocalhost ip6-localhost ip6-loopback\n"},
			{Path: "etc/resolv.conf", Content: "nameserver " + l.Router().String() + "\n"},
			{Path: "etc/ssh/" + hostKeyFile, From: hostKeyFile, Secret: true},
			{Path: "etc/ssh/" + hostKeyFile + ".pub", From: hostKeyFile + ".pub"},
		}
		for _, home := range []string{"root", "home/admin", "home/ops"} {
			files = append(files, disk.File{Path: home + "/.ssh/authorized_keys", From: client, Secret: true})
		}
		for _, f := range files {
			if err := f.Write(root); err != nil {
				return err
			}
		}
		return nil
	})
}
