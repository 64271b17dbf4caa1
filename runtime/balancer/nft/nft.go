// Package nft puts the balancer's rules into the kernel: one nftables table in
// which new connections to a VIP get the address of a backend, and a route that
// makes the range of VIPs reachable from the host itself.
//
// The table has two maps. "vips" leads from address, protocol and port to a
// chain that is shared by all VIPs with that many backends; the chain draws a
// number and looks the backend up in "backends" by the same key and the number:
//
//	vips      10.1.2.3 . tcp . 80      : goto pick-2
//	backends  10.1.2.3 . tcp . 80 . 0  : 10.0.0.11 . 31000
//	          10.1.2.3 . tcp . 80 . 1  : 10.0.0.12 . 31000
//	pick-2    dnat to (draw 0 or 1, then look up in backends)
//
// So a change is a few elements of two hash maps, in one transaction, and costs
// the same whether there are ten VIPs or ten thousand.
package nft

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"dcos.example/dcos/runtime/balancer/ruleset"
	"dcos.example/dcos/runtime/fault"
)

// Table is the table's name on a host.
const Table = "dcos_l4lb"

const (
	// socketBuffer must hold the acknowledgements of a whole transaction.
	socketBuffer = 64 << 20
	// chunk is how many elements go in one message, which netlink limits to
	// 64 KiB.
	chunk = 400
)

// Config says where the rules go.
type Config struct {
	Table string // "" means Table
	// Range is where VIPs live. It is routed to nowhere, and connections to
	// what is no VIP in it are refused.
	Range netip.Prefix
	// Self is the host's address, the source of its own connections to VIPs.
	Self netip.Addr
	// Subnets are networks of containers on this host. A connection that
	// comes from one and goes back into it gets the host's address, or the
	// answer would not pass through the host.
	Subnets []netip.Prefix
	// NetNS is a network namespace's file, or 0 for that of the process.
	NetNS int
}

// Applier makes the kernel follow rules. It is for one goroutine at a time.
type Applier struct {
	cfg   Config
	table *nftables.Table
	// applied is what the kernel has; nil when that is not known.
	applied map[ruleset.Key][]netip.AddrPort
	picks   map[int]bool // lengths of the pick chains in the kernel
}

// New returns an applier. It does not touch the kernel yet.
func New(cfg Config) (*Applier, error) {
	const op = "configure VIPs"
	if !cfg.Range.IsValid() || !cfg.Range.Addr().Is4() || !cfg.Self.Is4() {
		return nil, fault.Newf(op, fault.Invalid, "needs an IPv4 range and the host's IPv4 address")
	}
	if cfg.Table == "" {
		cfg.Table = Table
	}
	return &Applier{cfg: cfg, table: &nftables.Table{Family: nftables.TableFamilyIPv4, Name: cfg.Table}}, nil
}

func (a *Applier) conn() (*nftables.Conn, error) {
	return nftables.New(nftables.WithNetNSFd(a.cfg.NetNS), nftables.WithSockOptions(func(c *netlink.Conn) error {
		if err := c.SetReadBuffer(socketBuffer); err != nil {
			return err
		}
		return c.SetWriteBuffer(socketBuffer)
	}))
}

// Apply makes the kernel have exactly these rules, in one transaction. The
// first time, and after an error, it replaces the whole table, which does not
// disturb connections that exist; then it only writes what changed. The cost
// is O(VIPs) to compare and O(changes) in the kernel.
func (a *Applier) Apply(rules ruleset.Rules) error {
	const op = "apply VIPs"
	want := make(map[ruleset.Key][]netip.AddrPort, len(rules.VIPs))
	for _, v := range rules.VIPs {
		if len(v.Backends) > 0 {
			want[v.Key] = v.Backends
		}
	}
	had, err := a.applied, error(nil)
	if had == nil {
		if err = a.ensureRoute(); err == nil {
			err = a.replace(want)
		}
	} else {
		err = a.change(want)
	}
	if err != nil {
		a.applied = nil
		return fault.New(op, fault.Unavailable, err)
	}
	a.applied = want
	if err := a.forget(had, want); err != nil {
		return fault.New("forget flows to removed backends", fault.Unavailable, err)
	}
	return nil
}

// Intact reports whether the kernel still has the table and the route; others,
// like a firewall being reloaded, may flush both. After false the next Apply
// writes everything.
func (a *Applier) Intact() (bool, error) {
	if a.applied == nil {
		return false, nil
	}
	c, err := a.conn()
	if err != nil {
		return false, fault.New("check VIPs", fault.Unavailable, err)
	}
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return false, fault.New("check VIPs", fault.Unavailable, err)
	}
	here := 0
	for _, ch := range chains {
		if ch.Table.Name != a.cfg.Table {
			continue
		}
		rules, err := c.GetRules(ch.Table, ch)
		if err != nil {
			return false, fault.New("check VIPs", fault.Unavailable, err)
		}
		if len(rules) > 0 {
			here++
		}
	}
	routed, err := a.hasRoute()
	if err != nil {
		return false, fault.New("check VIPs", fault.Unavailable, err)
	}
	if !routed || here != len(a.picks)+hooks {
		a.applied = nil
	}
	return a.applied != nil, nil
}

// Close takes table and route out of the kernel. Connections that exist go on.
func (a *Applier) Close() error {
	a.applied = nil
	c, err := a.conn()
	if err != nil {
		return fault.New("remove VIPs", fault.Unavailable, err)
	}
	c.AddTable(a.table) // so that removing works when there is none
	c.DelTable(a.table)
	if err := c.Flush(); err != nil {
		return fault.New("remove VIPs", fault.Unavailable, err)
	}
	return a.removeRoute()
}

// replace writes the table anew.
func (a *Applier) replace(want map[ruleset.Key][]netip.AddrPort) error {
	c, err := a.conn()
	if err != nil {
		return err
	}
	c.AddTable(a.table)
	c.DelTable(a.table)
	c.AddTable(a.table)
	vips, backends, err := a.sets()
	if err != nil {
		return err
	}
	for _, s := range []*nftables.Set{vips, backends} {
		if err := c.AddSet(s, nil); err != nil {
			return err
		}
	}
	a.picks = map[int]bool{}
	a.addHooks(c, vips)
	if err := a.elements(c, vips, backends, nil, want); err != nil {
		return err
	}
	return c.Flush()
}

// change writes what differs from applied.
func (a *Applier) change(want map[ruleset.Key][]netip.AddrPort) error {
	gone, fresh := map[ruleset.Key][]netip.AddrPort{}, map[ruleset.Key][]netip.AddrPort{}
	for k, old := range a.applied {
		if !slices.Equal(old, want[k]) {
			gone[k] = old
		}
	}
	for k, bs := range want {
		if !slices.Equal(bs, a.applied[k]) {
			fresh[k] = bs
		}
	}
	if len(gone)+len(fresh) == 0 {
		return nil
	}
	c, err := a.conn()
	if err != nil {
		return err
	}
	vips, backends, err := a.sets()
	if err != nil {
		return err
	}
	if err := a.elements(c, vips, backends, gone, fresh); err != nil {
		return err
	}
	return c.Flush()
}

// keyTypes are the parts of a VIP's key; each takes four bytes.
func (a *Applier) sets() (vips, backends *nftables.Set, err error) {
	key, err := nftables.ConcatSetType(nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService)
	if err != nil {
		return nil, nil, err
	}
	numbered, err := nftables.ConcatSetType(nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService, nftables.TypeMark)
	if err != nil {
		return nil, nil, err
	}
	target, err := nftables.ConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService)
	if err != nil {
		return nil, nil, err
	}
	vips = &nftables.Set{Table: a.table, Name: "vips", IsMap: true, Concatenation: true, KeyType: key, DataType: nftables.TypeVerdict}
	backends = &nftables.Set{Table: a.table, Name: "backends", IsMap: true, Concatenation: true, KeyType: numbered, DataType: target}
	return vips, backends, nil
}

// elements removes gone and adds fresh, with the pick chains that fresh needs.
func (a *Applier) elements(c *nftables.Conn, vips, backends *nftables.Set, gone, fresh map[ruleset.Key][]netip.AddrPort) error {
	var oldVIPs, oldBackends, newVIPs, newBackends []nftables.SetElement
	for k, bs := range gone {
		oldVIPs = append(oldVIPs, nftables.SetElement{Key: encodeKey(k)})
		for i := range bs {
			oldBackends = append(oldBackends, nftables.SetElement{Key: encodeNumbered(k, i)})
		}
	}
	needed := map[int]bool{}
	for k, bs := range fresh {
		needed[len(bs)] = true
		newVIPs = append(newVIPs, nftables.SetElement{
			Key: encodeKey(k), VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: pick(len(bs))},
		})
		for i, b := range bs {
			newBackends = append(newBackends, nftables.SetElement{Key: encodeNumbered(k, i), Val: encodeTarget(b)})
		}
	}
	for _, n := range slices.Sorted(maps.Keys(needed)) {
		if !a.picks[n] { // they stay: there are at most as many as sizes of VIPs
			a.addPick(c, backends, n)
			a.picks[n] = true
		}
	}
	for _, step := range []struct {
		do   func(*nftables.Set, []nftables.SetElement) error
		set  *nftables.Set
		vals []nftables.SetElement
	}{
		{c.SetDeleteElements, vips, oldVIPs}, {c.SetDeleteElements, backends, oldBackends},
		{c.SetAddElements, backends, newBackends}, {c.SetAddElements, vips, newVIPs},
	} {
		for part := range slices.Chunk(step.vals, chunk) {
			if err := step.do(step.set, part); err != nil {
				return err
			}
		}
	}
	return nil
}

func pick(n int) string { return "pick-" + strconv.Itoa(n) }

// Registers, in units of four bytes: VIP keys are put together from key0 on.
const (
	key0 = unix.NFT_REG32_00
	key1 = unix.NFT_REG32_01
	key2 = unix.NFT_REG32_02
	key3 = unix.NFT_REG32_03
)

// loadKey puts destination address, protocol and destination port into the
// registers. TCP and UDP have the port at the same place.
func loadKey() []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: key0, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: key1},
		&expr.Payload{DestRegister: key2, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
	}
}

// addPick adds the chain that chooses one of n backends.
func (a *Applier) addPick(c *nftables.Conn, backends *nftables.Set, n int) {
	chain := c.AddChain(&nftables.Chain{Name: pick(n), Table: a.table})
	c.AddRule(&nftables.Rule{Table: a.table, Chain: chain, Exprs: append(loadKey(),
		&expr.Numgen{Register: key3, Modulus: uint32(n), Type: unix.NFT_NG_RANDOM},
		&expr.Lookup{SourceRegister: key0, DestRegister: key0, IsDestRegSet: true, SetName: backends.Name, SetID: backends.ID},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: key0, RegProtoMin: key1, Specified: true},
	)})
}

// hooks is how many chains addHooks adds.
const hooks = 5

// addHooks adds the chains that packets pass through.
func (a *Applier) addHooks(c *nftables.Conn, vips *nftables.Set) {
	base := func(name string, t nftables.ChainType, hook *nftables.ChainHook, prio *nftables.ChainPriority) *nftables.Chain {
		return c.AddChain(&nftables.Chain{Name: name, Table: a.table, Type: t, Hooknum: hook, Priority: prio})
	}
	rule := func(chain *nftables.Chain, parts ...[]expr.Any) {
		c.AddRule(&nftables.Rule{Table: a.table, Chain: chain, Exprs: slices.Concat(parts...)})
	}
	translate := append(loadKey(), &expr.Lookup{SourceRegister: key0, DestRegister: 0, IsDestRegSet: true, SetName: vips.Name, SetID: vips.ID})
	rule(base("prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest), translate)
	rule(base("output", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest), translate)

	post := base("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	for _, s := range a.cfg.Subnets {
		rule(post, within(12, s), within(16, s), translated(), []expr.Any{&expr.Masq{}})
	}
	if len(a.cfg.Subnets) == 0 { // Intact counts on a rule in every chain
		rule(post, []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}})
	}
	for name, hook := range map[string]*nftables.ChainHook{"refuse-output": nftables.ChainHookOutput, "refuse-forward": nftables.ChainHookForward} {
		refuse := base(name, nftables.ChainTypeFilter, hook, nftables.ChainPriorityFilter)
		rule(refuse, within(16, a.cfg.Range), []expr.Any{
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: key0},
			&expr.Cmp{Op: expr.CmpOpEq, Register: key0, Data: []byte{unix.IPPROTO_TCP}},
			&expr.Reject{Type: unix.NFT_REJECT_TCP_RST},
		})
		const portUnreachable = 3
		rule(refuse, within(16, a.cfg.Range), []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: portUnreachable}})
	}
}

// within matches packets whose IPv4 address at offset is in p.
func within(offset uint32, p netip.Prefix) []expr.Any {
	addr := p.Masked().Addr().As4()
	mask := make([]byte, 4)
	binary.BigEndian.PutUint32(mask, ^uint32(0)<<(32-p.Bits()))
	return []expr.Any{
		&expr.Payload{DestRegister: key0, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Bitwise{SourceRegister: key0, DestRegister: key0, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: key0, Data: addr[:]},
	}
}

// translated matches packets of connections whose destination was changed.
func translated() []expr.Any {
	const dstNAT = 1 << 5 // IPS_DST_NAT of the kernel's nf_conntrack_common.h
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATUS, Register: key0},
		&expr.Bitwise{SourceRegister: key0, DestRegister: key0, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(dstNAT), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: key0, Data: make([]byte, 4)},
	}
}

func encodeKey(k ruleset.Key) []byte {
	addr := k.Addr.As4()
	b := append(make([]byte, 0, 16), addr[:]...)
	b = append(b, protocolNumber(k.Protocol), 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, k.Port)
	return append(b, 0, 0)
}

func encodeNumbered(k ruleset.Key, i int) []byte {
	return binary.NativeEndian.AppendUint32(encodeKey(k), uint32(i))
}

func encodeTarget(t netip.AddrPort) []byte {
	addr := t.Addr().As4()
	return append(binary.BigEndian.AppendUint16(addr[:], t.Port()), 0, 0)
}

func protocolNumber(p ruleset.Protocol) byte {
	switch p {
	case ruleset.TCP:
		return unix.IPPROTO_TCP
	case ruleset.UDP:
		return unix.IPPROTO_UDP
	}
	panic(fmt.Sprintf("ruleset made a VIP of protocol %q", p))
}
