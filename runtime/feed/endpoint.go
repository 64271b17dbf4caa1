package feed

import (
	"net/netip"
	"slices"

	"dcos.example/dcos/runtime/api/mesos"
)

// HostAddr returns the address of the host that t runs on.
func (v *View) HostAddr(t *Task) (netip.Addr, bool) {
	a, ok := v.agents.get(t.Agent)
	if !ok || !a.Addr.IsValid() {
		return netip.Addr{}, false
	}
	return a.Addr, true
}

// OwnAddr returns the IPv4 address of t's own network, which it has not when
// it shares its host's.
func (v *View) OwnAddr(t *Task) (netip.Addr, bool) {
	host, _ := v.HostAddr(t)
	for _, a := range t.Addrs {
		if a.Is4() && a != host && !a.IsLoopback() && !a.IsUnspecified() {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// ContainerAddr is DC/OS' "containerip": t's own address, or its host's when
// it has none.
func (v *View) ContainerAddr(t *Task) (netip.Addr, bool) {
	if a, ok := v.OwnAddr(t); ok {
		return a, true
	}
	return v.HostAddr(t)
}

// AutoAddr is DC/OS' "autoip": the address at which other hosts reach t. That
// is its own, unless its ports are mapped to its host's.
func (v *View) AutoAddr(t *Task) (netip.Addr, bool) {
	if slices.ContainsFunc(t.Mappings, func(m PortMapping) bool { return m.Host != 0 }) {
		return v.HostAddr(t)
	}
	return v.ContainerAddr(t)
}

// Endpoint says where a discovery port of t listens, seen from another host:
// at the host's address and a host port, or at t's own and a container port.
// The label network-scope decides, as Marathon writes it. Without it a number
// that t holds on its host means the host.
func (v *View) Endpoint(t *Task, p *mesos.Port) (netip.AddrPort, bool) {
	number := uint16(p.GetNumber())
	host, hok := v.HostAddr(t)
	own, isolated := v.OwnAddr(t)
	scope := ""
	for _, l := range p.GetLabels().GetLabels() {
		if l.GetKey() == "network-scope" {
			scope = l.GetValue()
		}
	}
	if number == 0 || !hok {
		return netip.AddrPort{}, false
	}
	onHost := !isolated || scope == "host"
	if isolated && scope == "" {
		onHost = slices.Contains(t.HostPorts, number) ||
			slices.ContainsFunc(t.Mappings, func(m PortMapping) bool { return m.Host == number })
	}
	if onHost {
		return netip.AddrPortFrom(host, number), true
	}
	return netip.AddrPortFrom(own, number), true
}

// LocalEndpoint turns an endpoint of t into the one that t's own host should
// use: the container behind a mapped host port, whose mapping does not apply
// to traffic that was redirected already.
func (v *View) LocalEndpoint(t *Task, at netip.AddrPort, protocol string) netip.AddrPort {
	own, isolated := v.OwnAddr(t)
	if !isolated || at.Addr() == own {
		return at
	}
	for _, m := range t.Mappings {
		if m.Host == at.Port() && m.Protocol == protocol {
			return netip.AddrPortFrom(own, m.Container)
		}
	}
	return at
}
