// Package network makes the network that the local hosts of one cluster share:
// a bridge on the machine whose own address is the hosts' gateway.
//
// Nothing meant for the cluster's range ever leaves the machine: behind the
// bridge's connected route lies a blackhole for the same range, which takes
// over when the bridge is gone or down. With an uplink the machine translates
// the hosts' addresses to its own, in one nft table named for the cluster.
//
// Everything is found by the cluster's name: the bridge by a name derived from
// it (and its alias, which says the name in full), the range by the bridge's
// addresses and a small file beside the cluster's hosts.
//
// All calls act on the network namespace of the calling thread.
package network

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"dcos.example/dcos/runtime/fault"
)

// routeProtocol marks our blackhole routes ("ip route show proto 219").
const routeProtocol = 219

// lastResort is the metric of the blackhole: after every real route.
const lastResort = 1 << 20

const (
	infoFile = "network.json"
	aliasTag = "dcos local network of cluster "
)

// Info is a network as it was made.
type Info struct {
	Cluster string       `json:"cluster"`
	CIDR    netip.Prefix `json:"cidr"`
	Gateway netip.Addr   `json:"gateway"`
	Uplink  bool         `json:"uplink"`
	Bridge  string       `json:"bridge"`
	MTU     int          `json:"mtu"`
	Owner   string       `json:"owner,omitempty"` // whoever made it knows this token
	// Stack is the directory of the installer's state that the cluster belongs
	// to, for whoever finds the cluster and not its state.
	Stack string `json:"stack,omitempty"`
	// Forwarding names the interface for which we switched forwarding on.
	Forwarding string `json:"forwarding,omitempty"`
}

// LinkName derives a link's name (at most 15 bytes) from what it belongs to: a
// readable beginning and 28 bits of hash.
func LinkName(prefix, readable string, parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	keep := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, readable)
	return prefix + keep[:min(len(keep), 6)] + hex.EncodeToString(sum[:])[:7]
}

// BridgeName returns the name of a cluster's bridge.
func BridgeName(cluster string) string { return LinkName("db", cluster, cluster) }

// Networks are the networks of one machine. Dir holds a directory per cluster.
type Networks struct{ Dir string }

func (n Networks) file(cluster string) string { return filepath.Join(n.Dir, cluster, infoFile) }

// Load returns the network of the cluster as recorded, and fault.NotFound when
// none was made.
func (n Networks) Load(cluster string) (info Info, err error) {
	b, err := os.ReadFile(n.file(cluster))
	if errors.Is(err, fs.ErrNotExist) {
		return info, fault.New("find the network of cluster "+cluster, fault.NotFound, err)
	}
	if err == nil {
		err = json.Unmarshal(b, &info)
	}
	if err != nil {
		return info, fault.New("read the network of cluster "+cluster, fault.Internal, err)
	}
	return info, nil
}

// Ensure makes the network, or what is missing of it. It refuses a range that
// the machine already uses, with fault.Invalid.
func (n Networks) Ensure(ctx context.Context, want Info) (Info, error) {
	op := "make the network of cluster " + want.Cluster
	want.Bridge = BridgeName(want.Cluster)
	if err := want.check(); err != nil {
		return want, fault.New(op, fault.Invalid, err)
	}
	if err := Clash(want.CIDR, want.Bridge); err != nil {
		return want, err
	}
	old, err := n.Load(want.Cluster)
	switch {
	case err == nil && old.CIDR != want.CIDR:
		return want, fault.Newf(op, fault.Exists, "it exists with the range %s", old.CIDR)
	case err == nil:
		want.Forwarding = old.Forwarding
	case !fault.Is(err, fault.NotFound):
		return want, err
	}
	var up netlink.Link
	want.MTU = 1500
	if want.Uplink {
		if up, err = uplink(); err != nil {
			return want, fault.New(op, fault.Invalid, err)
		}
		want.MTU = min(want.MTU, up.Attrs().MTU)
	}
	if err := ctx.Err(); err != nil {
		return want, fault.New(op, fault.Unavailable, err)
	}
	// The record comes first: Remove then finds whatever follows.
	if err := n.save(want); err != nil {
		return want, fault.New(op, fault.Internal, err)
	}
	if err := want.link(); err != nil {
		return want, fault.New(op, fault.Internal, err)
	}
	if !want.Uplink {
		if err := n.closeUplink(&want); err != nil {
			return want, fault.New(op, fault.Internal, err)
		}
		return want, nil
	}
	if err := n.openUplink(&want, up.Attrs().Name); err != nil {
		return want, fault.New(op, fault.Internal, err)
	}
	return want, nil
}

func (i Info) check() error {
	var errs []error
	if i.Cluster == "" || i.Cluster != filepath.Base(i.Cluster) {
		errs = append(errs, fmt.Errorf("cluster: %q is not a name", i.Cluster))
	}
	if !i.CIDR.Addr().Is4() || i.CIDR != i.CIDR.Masked() || i.CIDR.Bits() > 29 {
		errs = append(errs, fmt.Errorf("cidr: %s is not an IPv4 range of /29 or larger, written with its first address", i.CIDR))
	}
	if !i.CIDR.Contains(i.Gateway) || i.Gateway == i.CIDR.Addr() {
		errs = append(errs, fmt.Errorf("gateway: %s is not a host address in %s", i.Gateway, i.CIDR))
	}
	return errors.Join(errs...)
}

func (n Networks) save(i Info) error {
	b, err := json.MarshalIndent(i, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(n.file(i.Cluster)), 0o700); err != nil {
		return err
	}
	tmp := n.file(i.Cluster) + ".new"
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, n.file(i.Cluster))
}

// Clash returns a fault.Invalid error that names the address or route of the
// machine that r overlaps. What belongs to the bridge itself does not count,
// nor does the default route. Cost grows with the machine's routes.
func Clash(r netip.Prefix, bridge string) error {
	op := "check the range " + r.String()
	refuse := func(what string) error {
		return fault.Newf(op, fault.Invalid, "it overlaps %s of this machine; choose another one: attribute \"range\" of the provider block", what)
	}
	own := -1
	if l, err := netlink.LinkByName(bridge); err == nil {
		own = l.Attrs().Index
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return fault.New(op, fault.Internal, fmt.Errorf("list addresses: %w", err))
	}
	for _, a := range addrs {
		if p, ok := prefix(a.IPNet); ok && a.LinkIndex != own && p.Masked().Overlaps(r) {
			return refuse(fmt.Sprintf("address %s (%s)", p, linkName(a.LinkIndex)))
		}
	}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return fault.New(op, fault.Internal, fmt.Errorf("list routes: %w", err))
	}
	for _, rt := range routes {
		p, ok := prefix(rt.Dst)
		if !ok || p.Bits() == 0 || !p.Overlaps(r) || own >= 0 && rt.LinkIndex == own {
			continue
		}
		if rt.Protocol == routeProtocol && p == r {
			continue // our own blackhole, or one that a crash left: same range, same effect
		}
		via := linkName(rt.LinkIndex)
		if rt.Gw != nil {
			via += " via " + rt.Gw.String()
		}
		return refuse(fmt.Sprintf("route %s (%s)", p, via))
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

func linkName(index int) string {
	if index == 0 {
		return "no interface"
	}
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		return fmt.Sprintf("interface %d", index)
	}
	return l.Attrs().Name
}

func ipNet(a netip.Addr, bits int) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, 32)}
}

// find returns the cluster's bridge, nil when there is none, and an error when
// its name belongs to something else.
func find(cluster string) (netlink.Link, error) {
	l, err := netlink.LinkByName(BridgeName(cluster))
	if _, ok := errors.AsType[netlink.LinkNotFoundError](err); ok {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	// One without alias is ours too: whoever made it was killed before naming
	// it, which takes a second call.
	if alias := l.Attrs().Alias; l.Type() != "bridge" || alias != "" && alias != aliasTag+cluster {
		return nil, fmt.Errorf("link %s exists and is not the bridge of cluster %s", l.Attrs().Name, cluster)
	}
	return l, nil
}

// link makes the bridge and the blackhole behind it.
func (i Info) link() error {
	hole := &netlink.Route{Dst: ipNet(i.CIDR.Addr(), i.CIDR.Bits()), Type: unix.RTN_BLACKHOLE, Protocol: routeProtocol, Priority: lastResort}
	if err := netlink.RouteReplace(hole); err != nil {
		return fmt.Errorf("add blackhole route for %s: %w", i.CIDR, err)
	}
	br, err := find(i.Cluster)
	if err != nil {
		return err
	}
	if br == nil {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = i.Bridge, i.MTU
		// A fixed address: a bridge otherwise takes that of a port, and hosts
		// lose their gateway's when that port goes.
		attrs.HardwareAddr = MAC(i.Gateway)
		off := false
		b := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &off}
		if err := netlink.LinkAdd(b); err != nil {
			return fmt.Errorf("add bridge %s: %w", i.Bridge, err)
		}
		br = b
	}
	if br.Attrs().Alias == "" {
		if err := netlink.LinkSetAlias(br, aliasTag+i.Cluster); err != nil {
			return fmt.Errorf("name bridge %s: %w", i.Bridge, err)
		}
	}
	QuietIPv6(i.Bridge)
	if err := netlink.AddrReplace(br, &netlink.Addr{IPNet: ipNet(i.Gateway, i.CIDR.Bits())}); err != nil {
		return fmt.Errorf("give bridge %s the address %s: %w", i.Bridge, i.Gateway, err)
	}
	if err := netlink.LinkSetUp(br); err != nil {
		return fmt.Errorf("bring bridge %s up: %w", i.Bridge, err)
	}
	return nil
}

// QuietIPv6 keeps the kernel from putting IPv6 addresses on a link and asking
// for routers there. Hosts are IPv4 only; a kernel without IPv6 is fine too.
func QuietIPv6(link string) {
	os.WriteFile("/proc/sys/net/ipv6/conf/"+link+"/disable_ipv6", []byte("1"), 0)
}

// MAC returns the hardware address of the interface with address a. It is the
// same at every boot: neighbours that remember it reach a restarted host at
// once.
func MAC(a netip.Addr) net.HardwareAddr {
	b := a.As4()
	return net.HardwareAddr{0x02, 0x00, b[0], b[1], b[2], b[3]}
}

// Inspect reports whether the network is complete: recorded, its bridge up
// with its address, its blackhole there.
func (n Networks) Inspect(cluster string) (Info, bool, error) {
	op := "look at the network of cluster " + cluster
	info, err := n.Load(cluster)
	if fault.Is(err, fault.NotFound) {
		return info, false, nil
	}
	if err != nil {
		return info, false, err
	}
	br, err := find(cluster)
	if err != nil {
		return info, false, fault.New(op, fault.Internal, err)
	}
	if br == nil || br.Attrs().Flags&net.FlagUp == 0 {
		return info, false, nil
	}
	addrs, err := netlink.AddrList(br, netlink.FAMILY_V4)
	if err != nil {
		return info, false, fault.New(op, fault.Internal, err)
	}
	whole := false
	for _, a := range addrs {
		p, ok := prefix(a.IPNet)
		whole = whole || ok && p.Addr() == info.Gateway && p.Bits() == info.CIDR.Bits()
	}
	holes, err := blackholes(info.CIDR)
	if err != nil {
		return info, false, fault.New(op, fault.Internal, err)
	}
	if info.Uplink {
		there, err := tableExists(cluster)
		if err != nil {
			return info, false, fault.New(op, fault.Internal, err)
		}
		whole = whole && there
	}
	return info, whole && len(holes) > 0, nil
}

func blackholes(r netip.Prefix) ([]netlink.Route, error) {
	all, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: routeProtocol}, netlink.RT_FILTER_PROTOCOL)
	var ours []netlink.Route
	for _, rt := range all {
		if p, ok := prefix(rt.Dst); ok && p == r {
			ours = append(ours, rt)
		}
	}
	return ours, err
}

// Remove takes the network away. What is gone already is fine.
func (n Networks) Remove(cluster string) error {
	op := "remove the network of cluster " + cluster
	info, err := n.Load(cluster)
	recorded := err == nil
	if err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	info.Cluster = cluster
	br, err := find(cluster)
	if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	ranges := map[netip.Prefix]bool{}
	if recorded {
		ranges[info.CIDR] = true
	}
	if br != nil {
		addrs, err := netlink.AddrList(br, netlink.FAMILY_V4)
		if err != nil {
			return fault.New(op, fault.Internal, err)
		}
		for _, a := range addrs {
			if p, ok := prefix(a.IPNet); ok {
				ranges[p.Masked()] = true
			}
		}
	}
	info.Uplink = false
	if err := n.closeUplink(&info); err != nil {
		return fault.New(op, fault.Internal, err)
	}
	if br != nil {
		if err := netlink.LinkDel(br); err != nil && !errors.Is(err, unix.ENODEV) {
			return fault.New(op, fault.Internal, fmt.Errorf("delete bridge: %w", err))
		}
	}
	for r := range ranges {
		holes, err := blackholes(r)
		if err != nil {
			return fault.New(op, fault.Internal, err)
		}
		for _, h := range holes {
			if err := netlink.RouteDel(&h); err != nil && !errors.Is(err, unix.ESRCH) {
				return fault.New(op, fault.Internal, fmt.Errorf("delete blackhole route: %w", err))
			}
		}
	}
	if err := os.Remove(n.file(cluster)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.New(op, fault.Internal, err)
	}
	os.Remove(filepath.Join(n.Dir, cluster)) // unless hosts are left in it
	return nil
}

// Filtered returns a sentence about what on this machine may keep hosts from
// reaching each other, or "". Where the kernel hands bridged packets to the
// machine's firewall, a policy such as Docker's "drop what is forwarded" cuts
// the hosts off.
func Filtered() string {
	b, err := os.ReadFile("/proc/sys/net/bridge/bridge-nf-call-iptables")
	if err != nil || strings.TrimSpace(string(b)) != "1" {
		return ""
	}
	return "this machine passes bridged packets through its firewall (net.bridge.bridge-nf-call-iptables=1); " +
		"if hosts cannot reach each other, set it to 0 or accept forwarding on the cluster's bridge"
}
