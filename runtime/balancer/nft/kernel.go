package nft

import (
	"errors"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"dcos.example/dcos/runtime/balancer/ruleset"
	"dcos.example/dcos/runtime/fault"
)

// routeProtocol marks our route among others' in `ip route`; the number is
// free in rtnetlink's list.
const routeProtocol = 113

func (a *Applier) handle() (*netlink.Handle, error) {
	if a.cfg.NetNS != 0 {
		return netlink.NewHandleAt(netns.NsHandle(a.cfg.NetNS), unix.NETLINK_ROUTE, unix.NETLINK_NETFILTER)
	}
	return netlink.NewHandle(unix.NETLINK_ROUTE, unix.NETLINK_NETFILTER)
}

// ensureRoute routes the range to the loopback device. A host's own connection
// to a VIP needs some route before its destination is changed, after which the
// kernel looks for another; and what is not changed must not leave the host.
// Unlike a blackhole route this one lets packets reach the output hook.
func (a *Applier) ensureRoute() error {
	h, err := a.handle()
	if err != nil {
		return err
	}
	defer h.Close()
	r, err := a.route(h)
	if err != nil {
		return err
	}
	return h.RouteReplace(r)
}

func (a *Applier) route(h *netlink.Handle) (*netlink.Route, error) {
	lo, err := h.LinkByName("lo")
	if err != nil {
		return nil, err
	}
	self := a.cfg.Self.As4()
	r := &netlink.Route{
		LinkIndex: lo.Attrs().Index, Dst: ipNet(a.cfg.Range), Src: self[:],
		Scope: netlink.SCOPE_LINK, Protocol: routeProtocol,
	}
	// TCP takes its segment size from this route: it must be the network's,
	// not loopback's.
	addrs, err := h.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, err
	}
	for _, addr := range addrs {
		if addr.IP.Equal(self[:]) {
			link, err := h.LinkByIndex(addr.LinkIndex)
			if err != nil {
				return nil, err
			}
			r.MTU = link.Attrs().MTU
		}
	}
	return r, nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	addr := p.Masked().Addr().As4()
	return &net.IPNet{IP: addr[:], Mask: net.CIDRMask(p.Bits(), 32)}
}

// ours returns our routes in the kernel.
func (a *Applier) ours(h *netlink.Handle) ([]netlink.Route, error) {
	return h.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Dst: ipNet(a.cfg.Range), Protocol: routeProtocol}, netlink.RT_FILTER_DST|netlink.RT_FILTER_PROTOCOL)
}

func (a *Applier) hasRoute() (bool, error) {
	h, err := a.handle()
	if err != nil {
		return false, err
	}
	defer h.Close()
	routes, err := a.ours(h)
	return len(routes) > 0, err
}

func (a *Applier) removeRoute() error {
	h, err := a.handle()
	if err != nil {
		return fault.New("remove route of VIPs", fault.Unavailable, err)
	}
	defer h.Close()
	routes, err := a.ours(h)
	for i := range routes {
		if e := h.RouteDel(&routes[i]); !errors.Is(e, unix.ESRCH) {
			err = errors.Join(err, e)
		}
	}
	if err != nil {
		return fault.New("remove route of VIPs", fault.Unavailable, err)
	}
	return nil
}

// forget removes the kernel's memory of flows to backends that went, so that
// the next packet of such a flow chooses anew: all UDP flows, which may never
// end, and TCP connections that are not established, whose next SYN would go
// the old way. Established connections are left to drain. It costs one pass
// over the host's flows, only when a backend went.
func (a *Applier) forget(had, has map[ruleset.Key][]netip.AddrPort) error {
	gone := staleFlows{}
	for k, old := range had {
		left := map[netip.AddrPort]bool{}
		for _, b := range has[k] {
			left[b] = true
		}
		for _, b := range old {
			if !left[b] {
				gone[flow{k, b}] = true
			}
		}
	}
	if len(gone) == 0 {
		return nil
	}
	h, err := a.handle()
	if err != nil {
		return err
	}
	defer h.Close()
	_, err = h.ConntrackDeleteFilters(netlink.ConntrackTable, netlink.InetFamily(unix.AF_INET), gone)
	if errors.Is(err, os.ErrNotExist) {
		err = nil // a flow ended by itself meanwhile
	}
	return err
}

type flow struct {
	vip     ruleset.Key
	backend netip.AddrPort
}

// staleFlows says which flows to forget.
type staleFlows map[flow]bool

const tcpEstablished = 3 // TCP_CONNTRACK_ESTABLISHED

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (s staleFlows) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	key := ruleset.Key{Port: f.Forward.DstPort, Protocol: ruleset.UDP}
	if f.Forward.Protocol == unix.IPPROTO_TCP {
		key.Protocol = ruleset.TCP
		if tcp, ok := f.ProtoInfo.(*netlink.ProtoInfoTCP); ok && tcp.State >= tcpEstablished {
			return false
		}
	}
	vip, ok := netip.AddrFromSlice(f.Forward.DstIP)
	backend, ok2 := netip.AddrFromSlice(f.Reverse.SrcIP)
	if !ok || !ok2 {
		return false
	}
	key.Addr = vip.Unmap()
	return s[flow{key, netip.AddrPortFrom(backend.Unmap(), f.Reverse.SrcPort)}]
}
