// Package rules writes the packet filter of a lab: which frames its bridge does
// not pass on, and whom its router remembers being asked for. Each call
// replaces one nft table in one transaction.
package rules

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Frames says what the bridge drops.
type Frames struct {
	// Range is the lab's; nothing for other addresses leaves through the port Out.
	Range netip.Prefix
	Out   string
	Cuts  [][2]string        // from and to, by port
	Loss  map[string]float64 // per cent of what comes from and goes to a port
}

// Drop makes the bridges in lan drop what f says, and nothing else. Cost grows
// with the cuts when it is called, not per frame.
func Drop(lan netns.NsHandle, f Frames) error {
	c, err := nftables.New(nftables.WithNetNSFd(int(lan)))
	if err != nil {
		return err
	}
	t := &nftables.Table{Family: nftables.TableFamilyBridge, Name: "faults"}
	c.AddTable(t)
	c.DelTable(t)
	c.AddTable(t)
	chain := c.AddChain(&nftables.Chain{
		Name: "forward", Table: t, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
	})
	drop := &expr.Verdict{Kind: expr.VerdictDrop}
	rule := func(exprs ...expr.Any) { c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: exprs}) }

	// No way out: the machine might pass on what is not for it.
	rule(slices.Concat(port(expr.MetaKeyOIFNAME, f.Out),
		[]expr.Any{&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(unix.ETH_P_IP)}},
		destination(expr.CmpOpNeq, f.Range), []expr.Any{drop})...)

	cuts := &nftables.Set{
		Table: t, Name: "cuts", Concatenation: true,
		KeyType: nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIFName),
	}
	var elements []nftables.SetElement
	for _, cut := range f.Cuts {
		elements = append(elements, nftables.SetElement{Key: slices.Concat(ifname(cut[0]), ifname(cut[1]))})
	}
	if err := c.AddSet(cuts, elements); err != nil {
		return fmt.Errorf("list the cuts: %w", err)
	}
	rule(&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, &expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 2},
		&expr.Lookup{SourceRegister: 1, SetName: cuts.Name, SetID: cuts.ID}, &expr.Counter{}, drop)

	for name, percent := range f.Loss {
		for _, key := range []expr.MetaKey{expr.MetaKeyIIFNAME, expr.MetaKeyOIFNAME} {
			rule(slices.Concat(port(key, name), []expr.Any{
				&expr.Numgen{Register: 1, Modulus: 10000, Type: unix.NFT_NG_RANDOM},
				&expr.Byteorder{SourceRegister: 1, DestRegister: 1, Op: expr.ByteorderHton, Len: 4, Size: 4},
				&expr.Cmp{Op: expr.CmpOpLt, Register: 1, Data: binaryutil.BigEndian.PutUint32(uint32(percent * 100))},
				&expr.Counter{}, drop,
			})...)
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("write nft table %s: %w", t.Name, err)
	}
	return nil
}

// port matches packets that come from or go to a port of the bridge.
func port(key expr.MetaKey, name string) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: ifname(name)}}
}

// destination compares the IPv4 destination with a range.
func destination(op expr.CmpOp, r netip.Prefix) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: net.CIDRMask(r.Bits(), 32), Xor: make([]byte, 4)},
		&expr.Cmp{Op: op, Register: 1, Data: r.Addr().AsSlice()},
	}
}

// ifname is an interface's name as the kernel compares it.
func ifname(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

const (
	askedTable = "asked"
	register32 = 8 // the first of the kernel's registers of 32 bits
)

// Watch has the router of the range r remember which addresses outside of it it
// is asked for through the link in. It acts on the calling thread's network.
func Watch(in string, r netip.Prefix) error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	t := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: askedTable})
	set := askedSet(t)
	if err := c.AddSet(set, nil); err != nil {
		return err
	}
	chain := c.AddChain(&nftables.Chain{
		Name: "prerouting", Table: t, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityFilter,
	})
	unicast := []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
		&expr.Cmp{Op: expr.CmpOpLt, Register: 1, Data: []byte{224, 0, 0, 0}},
	}
	for _, protocol := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: slices.Concat(port(expr.MetaKeyIIFNAME, in), unicast, destination(expr.CmpOpNeq, r), []expr.Any{
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}},
			&expr.Payload{DestRegister: register32, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register32 + 1},
			&expr.Payload{DestRegister: register32 + 2, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			&expr.Dynset{SrcRegKey: register32, SetName: set.Name, SetID: set.ID, Operation: uint32(unix.NFT_DYNSET_OP_ADD)},
		})})
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("write nft table %s: %w", t.Name, err)
	}
	return nil
}

func askedSet(t *nftables.Table) *nftables.Set {
	return &nftables.Set{
		Table: t, Name: "asked", Dynamic: true, Concatenation: true, Size: 1 << 16,
		KeyType: nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService),
	}
}

// Asked returns what Watch has seen, such as "tcp 192.0.2.1:443", in order and
// without duplicates.
func Asked(lan netns.NsHandle) ([]string, error) {
	c, err := nftables.New(nftables.WithNetNSFd(int(lan)))
	if err != nil {
		return nil, err
	}
	elements, err := c.GetSetElements(askedSet(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: askedTable}))
	if err != nil {
		return nil, fmt.Errorf("read nft set %s: %w", askedTable, err)
	}
	var out []string
	for _, e := range elements {
		if len(e.Key) != 12 {
			return nil, fmt.Errorf("an element of nft set %s has %d bytes", askedTable, len(e.Key))
		}
		protocol := map[byte]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp"}[e.Key[4]]
		out = append(out, protocol+" "+netip.AddrFrom4([4]byte(e.Key)).String()+":"+strconv.Itoa(int(binary.BigEndian.Uint16(e.Key[8:]))))
	}
	slices.Sort(out)
	return out, nil
}
