package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"dcos.example/dcos/ci/lab/resolver"
	"dcos.example/dcos/ci/lab/rules"
	"dcos.example/dcos/providers/local/network"
	"dcos.example/dcos/runtime/fault"
)

const (
	bridgeName  = "br0"
	machinePort = "machine" // the machine's own port, and its name in Partition

	// routeProtocol marks our blackhole routes, lastResort their metric.
	routeProtocol = 218
	lastResort    = 1 << 20

	aliasTag = "dcos lab "
)

// delayBridge and the two taps join a host's port to the lab's bridge when its
// frames are delayed on the way.
func delayBridge(host string) string { return "b-" + host }
func innerTap(host string) string    { return "i-" + host }
func outerTap(host string) string    { return "o-" + host }

// clash refuses a range or a name that the machine uses already.
func (l *Lab) clash() error {
	op := "check the range " + l.Range.String()
	if _, err := netlink.LinkByName(l.Name); err == nil {
		return fault.Newf(op, fault.Invalid, "this machine has a link %s already: choose another name", l.Name)
	}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	for _, r := range routes { // with those of its own addresses
		p, ok := prefix(r.Dst)
		if !ok || p.Bits() == 0 || !p.Overlaps(l.Range) || r.Protocol == routeProtocol && p == l.Range {
			continue
		}
		return fault.Newf(op, fault.Invalid, "this machine uses %s already: choose another range", p)
	}
	return nil
}

func prefix(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP.To4())
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(a, ones), ok
}

func ipNet(a netip.Addr, bits int) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, 32)}
}

// startSwitch starts the process that holds the lab's network, and connects
// the machine to it.
func (l *Lab) startSwitch(ctx context.Context) error {
	if err := l.group("switch").Create(noLimits); err != nil {
		return err
	}
	cmd := exec.Command(l.program, "switch", l.Dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWNET}
	if err := l.spawn(ctx, cmd, "switch"); err != nil {
		return err
	}
	lan, err := l.lan()
	if err != nil {
		return err
	}
	defer lan.Close()
	if err := l.connectMachine(lan); err != nil {
		return err
	}
	return l.applyFaults(Faults{})
}

// Switch is the process that holds the network of the lab in dir: it makes the
// bridge and the router in its own namespace, says so on ready, and answers
// for the site's DNS.
func Switch(ctx context.Context, dir string, ready *os.File) error {
	l, err := inside(dir)
	if err != nil {
		return err
	}
	if err := l.group("switch").Join(os.Getpid()); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	br, err := addBridge(bridgeName, network.MAC(l.Router()))
	if err != nil {
		return err
	}
	if err := netlink.AddrReplace(br, &netlink.Addr{IPNet: ipNet(l.Router(), l.Range.Bits())}); err != nil {
		return fmt.Errorf("give the router its address: %w", err)
	}
	// Hosts are told at once that what they ask for cannot be reached, as often
	// as they ask.
	all := ipNet(netip.IPv4Unspecified(), 0)
	if err := netlink.RouteReplace(&netlink.Route{Dst: all, Type: unix.RTN_UNREACHABLE}); err != nil {
		return fmt.Errorf("add the route to nowhere: %w", err)
	}
	for file, value := range map[string]string{"ip_forward": "1", "icmp_ratelimit": "0"} {
		if err := os.WriteFile("/proc/sys/net/ipv4/"+file, []byte(value), 0); err != nil {
			return err
		}
	}
	if err := rules.Watch(bridgeName, l.Range); err != nil {
		return err
	}
	site := &resolver.Server{Asked: filepath.Join(l.Dir, askedFile), Lookup: func(name string) (netip.Addr, bool) {
		h, err := l.host(name)
		return h.Address, err == nil
	}}
	return site.Run(ctx, netip.AddrPortFrom(l.Router(), 53).String(), func() error { return announce(ready) })
}

func addBridge(name string, mac net.HardwareAddr) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = name, mac
	off := false
	br := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &off}
	if err := netlink.LinkAdd(br); err != nil {
		return nil, fmt.Errorf("add bridge %s: %w", name, err)
	}
	network.QuietIPv6(name)
	if err := netlink.LinkSetUp(br); err != nil {
		return nil, fmt.Errorf("bring bridge %s up: %w", name, err)
	}
	return br, nil
}

// inside opens the lab for one of its own processes.
func inside(dir string) (*Lab, error) {
	return Open(Options{Dir: filepath.Dir(dir)}, filepath.Base(dir))
}

// lan opens the network namespace of the lab.
func (l *Lab) lan() (netns.NsHandle, error) {
	pids, err := l.group("switch").Procs()
	if err != nil {
		return netns.None(), err
	}
	if len(pids) == 0 {
		return netns.None(), fault.Newf("find the network of lab "+l.Name, fault.Unavailable, "its switch does not run; take the lab down and make it anew")
	}
	return netns.GetFromPid(pids[0])
}

// connectMachine makes the machine a neighbour of the hosts.
func (l *Lab) connectMachine(lan netns.NsHandle) error {
	hole := &netlink.Route{Dst: ipNet(l.Range.Addr(), l.Range.Bits()), Type: unix.RTN_BLACKHOLE, Protocol: routeProtocol, Priority: lastResort}
	if err := netlink.RouteReplace(hole); err != nil {
		return fmt.Errorf("add blackhole route for %s: %w", l.Range, err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = l.Name, network.MAC(l.Machine())
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: machinePort, PeerNamespace: netlink.NsFd(lan)}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("add interface pair %s: %w", l.Name, err)
	}
	network.QuietIPv6(l.Name)
	if err := netlink.LinkSetAlias(veth, aliasTag+l.Name); err != nil {
		return err
	}
	if err := netlink.AddrReplace(veth, &netlink.Addr{IPNet: ipNet(l.Machine(), l.Range.Bits())}); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(veth); err != nil {
		return err
	}
	in, err := netlink.NewHandleAt(lan, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer in.Close()
	return plug(in, machinePort, bridgeName)
}

// plug makes a link a port of a bridge.
func plug(in *netlink.Handle, link, bridge string) error {
	port, err := in.LinkByName(link)
	if err != nil {
		return fmt.Errorf("find port %s: %w", link, err)
	}
	br, err := in.LinkByName(bridge)
	if err != nil {
		return fmt.Errorf("find bridge %s: %w", bridge, err)
	}
	if err := in.LinkSetMaster(port, br); err != nil {
		return fmt.Errorf("connect %s to %s: %w", link, bridge, err)
	}
	if err := in.LinkSetUp(port); err != nil {
		return fmt.Errorf("bring port %s up: %w", link, err)
	}
	return nil
}

// removeLinks takes away what the lab made in the machine's own namespace.
func (l *Lab) removeLinks() error {
	link, err := netlink.LinkByName(l.Name)
	if _, gone := errors.AsType[netlink.LinkNotFoundError](err); gone {
		link = nil
	} else if err != nil {
		return err
	}
	// Naming it took a second call: one without alias is known by its address.
	if link != nil && (link.Attrs().Alias == aliasTag+l.Name ||
		link.Attrs().Alias == "" && bytes.Equal(link.Attrs().HardwareAddr, network.MAC(l.Machine()))) {
		if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("delete link %s: %w", l.Name, err)
		}
	}
	holes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: routeProtocol}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return err
	}
	for _, h := range holes {
		if p, ok := prefix(h.Dst); ok && p == l.Range {
			if err := netlink.RouteDel(&h); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("delete blackhole route: %w", err)
			}
		}
	}
	return nil
}

// within calls f in the network namespace ns. Programs that f starts are in it
// too.
func within(ns netns.NsHandle, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for ever: the thread ends with the goroutine
		if err := netns.Set(ns); err != nil {
			done <- fmt.Errorf("enter network namespace: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

// newNamespace makes a network namespace that lasts as long as its handle or a
// process in it.
func newNamespace() (netns.NsHandle, error) {
	type result struct {
		ns  netns.NsHandle
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // for ever
		ns, err := netns.New()
		done <- result{ns, err}
	}()
	r := <-done
	return r.ns, r.err
}
