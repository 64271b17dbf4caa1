package simhost

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"dcos.example/dcos/providers/local/boot"
	"dcos.example/dcos/providers/local/network"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
)

// launch starts dcos-init for the host directory dir, calls connect with its
// process id before it boots, and returns when it has booted.
func (m Machine) launch(ctx context.Context, dir, bootID string, connect func(pid int) error) (p process, err error) {
	console, err := os.OpenFile(filepath.Join(dir, boot.ConsoleFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return p, err
	}
	defer console.Close()
	goR, goW, err := os.Pipe()
	if err != nil {
		return p, err
	}
	defer goR.Close()
	defer goW.Close() // unwritten: dcos-init goes away
	reportR, reportW, err := os.Pipe()
	if err != nil {
		return p, err
	}
	defer reportR.Close()
	defer reportW.Close()
	cmd := exec.CommandContext(ctx, m.Init, "launch", dir)
	cmd.Dir, cmd.Env, cmd.Stderr = "/", []string{}, console
	cmd.ExtraFiles = []*os.File{goR, reportW}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // an interrupt at the terminal is not for the host
	out, err := cmd.Output()
	if err != nil {
		return p, fmt.Errorf("start %s: %w; %s", m.Init, err, lastLine(filepath.Join(dir, boot.ConsoleFile)))
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		return p, fmt.Errorf("start %s: it answered %q", m.Init, out)
	}
	reportW.Close()
	goR.Close()
	if p, err = identify(pid, bootID); err != nil {
		return p, fmt.Errorf("dcos-init ended at once: %w; %s", err, lastLine(filepath.Join(dir, boot.ConsoleFile)))
	}
	if err := writeJSON(filepath.Join(dir, pidFile), p); err != nil {
		return p, err
	}
	if err := connect(pid); err != nil {
		return p, err
	}
	if _, err := goW.Write([]byte{1}); err != nil {
		return p, fmt.Errorf("let dcos-init go on: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { reportR.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	report, err := io.ReadAll(reportR)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return p, fmt.Errorf("wait for the boot: %w", err)
	}
	if len(report) > 0 {
		return p, fmt.Errorf("boot: %s", report)
	}
	if !p.alive() {
		return p, errors.New("boot: dcos-init ended; " + lastLine(filepath.Join(dir, boot.ConsoleFile)))
	}
	return p, nil
}

func lastLine(path string) string {
	b, _ := os.ReadFile(path) // none: nothing to quote
	b = bytes.TrimSpace(b)
	return string(b[bytes.LastIndexByte(b, '\n')+1:])
}

// connect gives the namespace of pid its interface "eth0": one end of a veth
// pair whose other end is a port of the bridge.
func connect(pid int, net network.Info, h Host) error {
	addr, err := netip.ParseAddr(h.Address)
	if err != nil {
		return err
	}
	br, err := netlink.LinkByName(net.Bridge)
	if err != nil {
		return fmt.Errorf("find bridge %s: %w", net.Bridge, err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.MasterIndex = vethName(h.Cluster, h.Name), net.MTU, br.Attrs().Index
	veth := &netlink.Veth{
		LinkAttrs: attrs, PeerName: "eth0", PeerHardwareAddr: network.MAC(addr), PeerNamespace: netlink.NsPid(pid), PeerMTU: uint32(net.MTU),
	}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("add interface pair %s: %w", attrs.Name, err)
	}
	network.QuietIPv6(attrs.Name)
	if err := netlink.LinkSetUp(veth); err != nil {
		return fmt.Errorf("bring %s up: %w", attrs.Name, err)
	}
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return err
	}
	defer ns.Close()
	inside, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer inside.Close()
	return configure(inside, net, addr)
}

// configure sets addresses and routes inside the host's network namespace.
func configure(in *netlink.Handle, net network.Info, addr netip.Addr) error {
	for name, a := range map[string]*netlink.Addr{
		"lo":   nil,
		"eth0": {IPNet: netlink.NewIPNet(addr.AsSlice())},
	} {
		l, err := in.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find %s in the host: %w", name, err)
		}
		if a != nil {
			a.Mask = cidrMask(net.CIDR.Bits())
			if err := in.AddrReplace(l, a); err != nil {
				return fmt.Errorf("give the host its address: %w", err)
			}
		}
		if err := in.LinkSetUp(l); err != nil {
			return fmt.Errorf("bring %s up in the host: %w", name, err)
		}
	}
	// The host's own daemons route named VIPs and overlays. Until they do, or
	// when they do not know an address, nothing of these ranges leaves.
	var routes []netlink.Route
	for _, r := range []string{config.VIPRange, config.OverlayRange} {
		dst, err := netlink.ParseIPNet(r)
		if err != nil {
			return err
		}
		routes = append(routes, netlink.Route{Dst: dst, Type: unix.RTN_UNREACHABLE, Priority: 1 << 20})
	}
	if net.Uplink {
		all, err := netlink.ParseIPNet("0.0.0.0/0")
		if err != nil {
			return err
		}
		routes = append(routes, netlink.Route{Dst: all, Gw: net.Gateway.AsSlice()})
	}
	for _, r := range routes {
		if err := in.RouteReplace(&r); err != nil {
			return fmt.Errorf("add route %s in the host: %w", r.Dst, err)
		}
	}
	return nil
}

func cidrMask(bits int) []byte {
	p := netip.PrefixFrom(netip.MustParseAddr("255.255.255.255"), bits).Masked().Addr().As4()
	return p[:]
}

// connected reports whether the host's port is on the cluster's bridge.
func connected(cluster, name string) (bool, error) {
	port, err := netlink.LinkByName(vethName(cluster, name))
	if _, ok := errors.AsType[netlink.LinkNotFoundError](err); ok {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	br, err := netlink.LinkByName(network.BridgeName(cluster))
	if _, ok := errors.AsType[netlink.LinkNotFoundError](err); ok {
		return false, nil
	}
	return err == nil && port.Attrs().MasterIndex == br.Attrs().Index, err
}

// disconnect deletes the host's port. The kernel does so too once the host's
// namespace is gone, only later.
func disconnect(cluster, name string) error {
	l, err := netlink.LinkByName(vethName(cluster, name))
	if _, ok := errors.AsType[netlink.LinkNotFoundError](err); ok {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(l)
	}
	if err != nil && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("delete interface of host %s: %w", name, err)
	}
	return nil
}

// ensureDisk makes the host's disk: a sparse file with an ext4 file system. It
// has no journal, because the machine keeps what a killed host wrote; only a
// crash of the machine itself can damage it, and then the host is made anew.
func ensureDisk(ctx context.Context, dir string, mib int64) error {
	image := filepath.Join(dir, boot.ImageFile)
	for _, d := range []string{"disk", "root"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	if _, err := os.Stat(image); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if have, err := free(dir); err == nil && have < 64<<20 {
		return fault.Newf("make disk", fault.Exhausted, "%s has %d MiB free, too little for any host", dir, have>>20)
	}
	mkfs, err := findMkfs()
	if err != nil {
		return err
	}
	tmp := image + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	err = errors.Join(f.Truncate(mib<<20), f.Close())
	if err != nil {
		return fmt.Errorf("make disk of %d MiB: %w", mib, err)
	}
	out, err := exec.CommandContext(ctx, mkfs, "-q", "-F", "-m", "0", "-O", "^has_journal,^resize_inode",
		"-E", "lazy_itable_init=1,nodiscard", tmp).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", mkfs, err, bytes.TrimSpace(out))
	}
	return os.Rename(tmp, image)
}

func findMkfs() (string, error) {
	for _, p := range []string{"mkfs.ext4", "/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4"} {
		if found, err := exec.LookPath(p); err == nil {
			return found, nil
		}
	}
	return "", errors.New("mkfs.ext4 is missing; install the package e2fsprogs")
}

func free(dir string) (int64, error) {
	var st unix.Statfs_t
	for ; ; dir = filepath.Dir(dir) {
		err := unix.Statfs(dir, &st)
		if err == nil {
			return int64(st.Bavail) * st.Bsize, nil
		}
		if !errors.Is(err, unix.ENOENT) || dir == "/" {
			return 0, err
		}
	}
}
