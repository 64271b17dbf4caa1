package network

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// natTable is the agent's own nft table:
//
//	table ip dcos_agent {
//	  map ports { type inet_proto . inet_service : ipv4_addr . inet_service }
//	  chain guard       { prerouting raw;    iifname BRIDGE ip daddr 127.0.0.0/8 drop }
//	  chain prerouting  { dstnat; fib daddr type local dnat to meta l4proto . th dport map @ports }
//	  chain output      { dstnat; the same }
//	  chain postrouting { srcnat; ip saddr SUBNET oifname != BRIDGE masquerade
//	                              oifname BRIDGE ip saddr SUBNET ct status dnat masquerade
//	                              oifname BRIDGE ip saddr 127.0.0.0/8 masquerade }
//	}
//
// A packet meets one map lookup however many ports there are, and a port comes
// and goes as one element. The guard keeps containers off the services of the
// host's loopback, which route_localnet would let them reach.
type natTable struct {
	name   string
	bridge string
	subnet netip.Prefix

	mu    sync.Mutex
	table *nftables.Table
	ports *nftables.Set
}

// mapping is one element of the port map.
type mapping struct {
	Port
	to netip.Addr
}

// rebuild replaces the table in one transaction, so that established and new
// connections see either the old or the new one.
func (n *natTable) rebuild(ports []mapping) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	c, err := nftables.New()
	if err != nil {
		return err
	}
	t := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: n.name}
	c.AddTable(t) // so that the deletion cannot fail
	c.DelTable(t)
	n.table = c.AddTable(t)
	key, err1 := nftables.ConcatSetType(nftables.TypeInetProto, nftables.TypeInetService)
	to, err2 := nftables.ConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	n.ports = &nftables.Set{Table: n.table, Name: "ports", IsMap: true, Concatenation: true, KeyType: key, DataType: to}
	if err := c.AddSet(n.ports, elements(ports)); err != nil {
		return err
	}
	n.chains(c)
	return c.Flush()
}

func (n *natTable) chains(c *nftables.Conn) {
	chain := func(name string, kind nftables.ChainType, hook *nftables.ChainHook, prio *nftables.ChainPriority, rules ...[]expr.Any) {
		ch := c.AddChain(&nftables.Chain{Name: name, Table: n.table, Type: kind, Hooknum: hook, Priority: prio})
		for _, r := range rules {
			c.AddRule(&nftables.Rule{Table: n.table, Chain: ch, Exprs: r})
		}
	}
	loopback := netip.MustParsePrefix("127.0.0.0/8")
	guard := join(ifname(expr.MetaKeyIIFNAME, expr.CmpOpEq, n.bridge), address(16, loopback), one(&expr.Verdict{Kind: expr.VerdictDrop}))
	chain("guard", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw, guard)

	toPort := join(
		one(&expr.Fib{Register: 1, ResultADDRTYPE: true, FlagDADDR: true}),
		one(&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)}),
		one(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}),
		one(&expr.Payload{DestRegister: 9, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}),
		one(&expr.Lookup{SourceRegister: 1, DestRegister: 1, IsDestRegSet: true, SetName: n.ports.Name, SetID: n.ports.ID}),
		one(&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: 9, Specified: true}),
	)
	chain("prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest, toPort)
	chain("output", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest, toPort)

	masq := one(&expr.Masq{})
	dnatted := []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATUS, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(statusDNAT), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
	toBridge := ifname(expr.MetaKeyOIFNAME, expr.CmpOpEq, n.bridge)
	chain("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource,
		join(address(12, n.subnet), ifname(expr.MetaKeyOIFNAME, expr.CmpOpNeq, n.bridge), masq),
		join(toBridge, address(12, n.subnet), dnatted, masq),
		join(toBridge, address(12, loopback), masq),
	)
}

// statusDNAT is IPS_DST_NAT of linux/netfilter/nf_conntrack_common.h.
const statusDNAT = 1 << 5

func one(e expr.Any) []expr.Any { return []expr.Any{e} }

func join(parts ...[]expr.Any) (out []expr.Any) {
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

// ifname compares the name of a packet's link.
func ifname(key expr.MetaKey, op expr.CmpOp, name string) []expr.Any {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: b}}
}

// address matches the IPv4 address at an offset of the header against p.
func address(offset uint32, p netip.Prefix) []expr.Any {
	mask := binary.BigEndian.AppendUint32(nil, ^uint32(0)<<(32-p.Bits()))
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: p.Masked().Addr().AsSlice()},
	}
}

// elements encodes mappings; each part of a concatenation fills four bytes.
func elements(ports []mapping) []nftables.SetElement {
	out := make([]nftables.SetElement, 0, len(ports))
	for _, p := range ports {
		proto := byte(unix.IPPROTO_TCP)
		if p.Protocol == "udp" {
			proto = unix.IPPROTO_UDP
		}
		key := []byte{proto, 0, 0, 0, byte(p.Host >> 8), byte(p.Host), 0, 0}
		val := append(p.to.AsSlice(), byte(p.Container>>8), byte(p.Container), 0, 0)
		out = append(out, nftables.SetElement{Key: key, Val: val})
	}
	return out
}

func (n *natTable) add(ports []mapping) error {
	return n.change(ports, func(c *nftables.Conn, e []nftables.SetElement) error { return c.SetAddElements(n.ports, e) })
}

// remove takes mappings out. Those that are not there are no error: a former
// attempt may have got this far.
func (n *natTable) remove(ports []mapping) error {
	var errs []error
	for _, p := range ports {
		err := n.change([]mapping{p}, func(c *nftables.Conn, e []nftables.SetElement) error { return c.SetDeleteElements(n.ports, e) })
		if !errors.Is(err, unix.ENOENT) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (n *natTable) change(ports []mapping, do func(*nftables.Conn, []nftables.SetElement) error) error {
	if len(ports) == 0 {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	c, err := nftables.New()
	if err != nil {
		return err
	}
	if err := do(c, elements(ports)); err != nil {
		return err
	}
	return c.Flush()
}

// drop removes the table.
func (n *natTable) drop() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	c, err := nftables.New()
	if err != nil {
		return err
	}
	t := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: n.name}
	c.AddTable(t)
	c.DelTable(t)
	return c.Flush()
}
