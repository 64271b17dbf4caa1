package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"dcos.example/dcos/providers/local/boot"
	"dcos.example/dcos/runtime/fault"
)

// Faults are what is broken on purpose. They hold until they are undone, also
// while a host reboots or has no power.
type Faults struct {
	Cuts  []Cut              `json:"cuts,omitempty"`
	Loss  map[string]float64 `json:"loss,omitempty"`  // per cent of a host's packets, both ways
	Delay map[string]Delay   `json:"delay,omitempty"` // of a host's packets, each way
	Disk  map[string]Disk    `json:"disk,omitempty"`  // hosts with a slow disk
}

// Cut is a direction in which nothing passes.
type Cut struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// Delay is how long packets take longer: Delay, and up to Jitter more. Their
// order stays.
type Delay struct {
	Delay  time.Duration `json:"delay"`
	Jitter time.Duration `json:"jitter,omitempty"`
}

// Disk bounds what a host may ask of its disk, reading and writing apart. Zero
// is no bound.
type Disk struct {
	IOPS           int64 `json:"iops,omitempty"`
	BytesPerSecond int64 `json:"bytes_per_second,omitempty"`
}

// Faults returns what is broken now.
func (l *Lab) Faults() (f Faults, err error) {
	err = readJSON(filepath.Join(l.Dir, faultsFile), &f)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return f, fault.New("read the faults of lab "+l.Name, fault.Internal, err)
	}
	return f, nil
}

// alter changes the faults: edit says how, act brings it about.
func (l *Lab) alter(ctx context.Context, op string, hosts []string, edit func(*Faults), act func(Faults) error) error {
	unlock, err := l.lock(ctx)
	if err != nil {
		return fault.New(op, fault.Unavailable, err)
	}
	defer unlock()
	if err := l.load(); err != nil {
		return err
	}
	for _, h := range hosts {
		if _, err := l.host(h); err != nil && h != machinePort {
			return err
		}
	}
	f, err := l.Faults()
	if err != nil {
		return err
	}
	edit(&f)
	if err := act(f); err != nil {
		return fault.New(op, fault.KindOf(err), err)
	}
	if err := writeJSON(filepath.Join(l.Dir, faultsFile), f); err != nil {
		return fault.New(op, fault.Internal, err)
	}
	return nil
}

// Partition cuts every host of a off from every host of b: what a sends does
// not reach b, and unless oneWay the other way round. "machine" is the machine
// itself. An empty b stands for all hosts that are not in a.
func (l *Lab) Partition(ctx context.Context, a, b []string, oneWay bool) error {
	if len(b) == 0 {
		for _, h := range l.Record.Hosts {
			if !slices.Contains(a, h.Name) {
				b = append(b, h.Name)
			}
		}
	}
	return l.alter(ctx, "partition", slices.Concat(a, b), func(f *Faults) {
		add := func(c Cut) {
			if c.From != c.To && !slices.Contains(f.Cuts, c) {
				f.Cuts = append(f.Cuts, c)
			}
		}
		for _, x := range a {
			for _, y := range b {
				add(Cut{x, y})
				if !oneWay {
					add(Cut{y, x})
				}
			}
		}
	}, l.applyFaults)
}

// Heal undoes every partition that has to do with one of the hosts, or all
// when none is named.
func (l *Lab) Heal(ctx context.Context, hosts ...string) error {
	return l.alter(ctx, "heal", hosts, func(f *Faults) {
		f.Cuts = slices.DeleteFunc(f.Cuts, func(c Cut) bool {
			return len(hosts) == 0 || slices.Contains(hosts, c.From) || slices.Contains(hosts, c.To)
		})
	}, l.applyFaults)
}

// Loss drops so many per cent of what a host sends and of what it is sent; 0
// is none.
func (l *Lab) Loss(ctx context.Context, host string, percent float64) error {
	if percent < 0 || percent > 100 {
		return fault.Newf("lose packets", fault.Invalid, "%g per cent", percent)
	}
	return l.alter(ctx, "lose packets of "+host, []string{host}, func(f *Faults) { put(&f.Loss, host, percent) }, l.applyFaults)
}

// SlowDisk bounds the host's disk; the zero Disk does not. An iops bound of 20
// makes a flush of one page take 0.2 s.
func (l *Lab) SlowDisk(ctx context.Context, host string, d Disk) error {
	if d.IOPS < 0 || d.BytesPerSecond < 0 {
		return fault.Newf("slow the disk", fault.Invalid, "bounds must be positive, or 0 for none: %+v", d)
	}
	return l.alter(ctx, "slow the disk of "+host, []string{host}, func(f *Faults) { put(&f.Disk, host, d) }, func(Faults) error {
		loops, err := boot.Attached(filepath.Join(l.hostDir(host), diskImage))
		if err != nil || len(loops) == 0 { // off: the next boot reads it
			return err
		}
		return l.throttle(host, loops[0], d)
	})
}

// Delay makes what a host sends, and what it is sent, arrive later; the zero
// Delay does not. The kernel may have no qdisc for that: a process passes the
// packets on (see package wire). Connections live on; the packets on the way
// are lost when it changes.
func (l *Lab) Delay(ctx context.Context, host string, d Delay) error {
	if d.Delay < 0 || d.Jitter < 0 {
		return fault.Newf("delay packets", fault.Invalid, "a delay cannot be negative: %+v", d)
	}
	op := "delay packets of " + host
	return l.alter(ctx, op, []string{host}, func(f *Faults) { put(&f.Delay, host, d) }, func(Faults) error {
		if err := l.unwire(ctx, host); err != nil {
			return err
		}
		if d == (Delay{}) {
			return nil
		}
		group := "wire-" + host
		if err := l.group(group).Create(noLimits); err != nil {
			return err
		}
		cmd := exec.Command(l.program, "wire", l.Dir, host, d.Delay.String(), d.Jitter.String())
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		return l.inLAN(ctx, cmd, group)
	})
}

func put[V comparable](m *map[string]V, host string, v V) {
	var none V
	if *m == nil {
		*m = map[string]V{}
	}
	(*m)[host] = v
	if v == none {
		delete(*m, host)
	}
}

// unwire connects the host's port to the lab's bridge again, and ends the wire
// between them.
func (l *Lab) unwire(ctx context.Context, host string) error {
	g := l.group("wire-" + host)
	if !g.Exists() {
		return nil
	}
	if err := g.Kill(ctx); err != nil {
		return err
	}
	l.reap("wire-" + host)
	lan, err := l.lan()
	if err != nil {
		return err
	}
	defer lan.Close()
	in, err := netlink.NewHandleAt(lan, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer in.Close()
	if br, err := in.LinkByName(delayBridge(host)); err == nil {
		if err := in.LinkDel(br); err != nil {
			return err
		}
	}
	err = plug(in, host, bridgeName)
	if _, off := errors.AsType[netlink.LinkNotFoundError](err); err != nil && !off {
		return err
	}
	return g.Remove(ctx)
}

// applyFaults writes the table of packets that do not pass, in one transaction.
// Its cost grows with the cuts.
func (l *Lab) applyFaults(f Faults) error {
	lan, err := l.lan()
	if err != nil {
		return err
	}
	defer lan.Close()
	return writeRules(lan, l.Range, f)
}

func writeRules(lan netns.NsHandle, r netip.Prefix, f Faults) error {
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
	rule(slices.Concat(port(expr.MetaKeyOIFNAME, machinePort),
		[]expr.Any{&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(unix.ETH_P_IP)}},
		destination(expr.CmpOpNeq, r.Addr(), r.Bits()), []expr.Any{drop})...)

	cuts := &nftables.Set{
		Table: t, Name: "cuts", Concatenation: true,
		KeyType: nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIFName),
	}
	var elements []nftables.SetElement
	for _, cut := range f.Cuts {
		for _, from := range []string{cut.From, outerTap(cut.From)} {
			for _, to := range []string{cut.To, outerTap(cut.To)} {
				elements = append(elements, nftables.SetElement{Key: slices.Concat(ifname(from), ifname(to))})
			}
		}
	}
	if err := c.AddSet(cuts, elements); err != nil {
		return fmt.Errorf("list the cuts: %w", err)
	}
	rule(&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, &expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 2},
		&expr.Lookup{SourceRegister: 1, SetName: cuts.Name, SetID: cuts.ID}, &expr.Counter{}, drop)

	for host, percent := range f.Loss {
		for _, key := range []expr.MetaKey{expr.MetaKeyIIFNAME, expr.MetaKeyOIFNAME} {
			rule(slices.Concat(port(key, host), []expr.Any{
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
func destination(op expr.CmpOp, a netip.Addr, bits int) []expr.Any {
	mask := net4mask(bits)
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask[:], Xor: make([]byte, 4)},
		&expr.Cmp{Op: op, Register: 1, Data: a.AsSlice()},
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

// watchAsked has the router remember whom hosts ask for: every address outside
// of the range, and every port of its own. It acts on the calling process's
// network.
func watchAsked(r Record) error {
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
	for _, to := range [][]expr.Any{destination(expr.CmpOpNeq, r.Range.Addr(), r.Range.Bits()), destination(expr.CmpOpEq, r.Router(), 32)} {
		for _, protocol := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: slices.Concat(port(expr.MetaKeyIIFNAME, bridgeName), unicast, to, []expr.Any{
				&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}},
				&expr.Payload{DestRegister: register32, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
				&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register32 + 1},
				&expr.Payload{DestRegister: register32 + 2, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
				&expr.Dynset{SrcRegKey: register32, SetName: set.Name, SetID: set.ID, Operation: uint32(unix.NFT_DYNSET_OP_ADD)},
			})})
		}
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

// Asked returns what hosts have tried to reach outside of the lab, such as
// "tcp 192.0.2.1:443", and ports of the router, such as "udp 198.19.20.254:53"
// for DNS. In order, without duplicates, since the lab was made.
func (l *Lab) Asked() ([]string, error) {
	op := "see what hosts asked for"
	lan, err := l.lan()
	if err != nil {
		return nil, err
	}
	defer lan.Close()
	c, err := nftables.New(nftables.WithNetNSFd(int(lan)))
	if err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	elements, err := c.GetSetElements(askedSet(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: askedTable}))
	if err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	var out []string
	for _, e := range elements {
		if len(e.Key) != 12 {
			return nil, fault.Newf(op, fault.Internal, "an element has %d bytes", len(e.Key))
		}
		protocol := map[byte]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp"}[e.Key[4]]
		out = append(out, protocol+" "+netip.AddrFrom4([4]byte(e.Key)).String()+":"+strconv.Itoa(int(binary.BigEndian.Uint16(e.Key[8:]))))
	}
	slices.Sort(out)
	return out, nil
}
