package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"dcos.example/dcos/runtime/config"
)

func tableName(cluster string) string { return "dcos-local-" + cluster }

// uplink returns the interface of the machine's default route.
func uplink() (netlink.Link, error) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if p, ok := prefix(r.Dst); (!ok || p.Bits() == 0) && r.LinkIndex > 0 && (r.Type == unix.RTN_UNICAST || r.Type == 0) {
			return netlink.LinkByIndex(r.LinkIndex)
		}
	}
	return nil, errors.New("uplink: this machine has no default route to share; set the network's uplink to false")
}

func forwarding(link string) string { return "/proc/sys/net/ipv4/conf/" + link + "/forwarding" }

// openUplink lets the hosts reach what the machine reaches, under its address.
// Forwarding is switched on for the two interfaces concerned, not for the
// whole machine.
func (n Networks) openUplink(i *Info, up string) error {
	if b, err := os.ReadFile(forwarding(up)); err != nil {
		return err
	} else if strings.TrimSpace(string(b)) == "0" {
		i.Forwarding = up
		if err := n.save(*i); err != nil {
			return err
		}
	}
	for _, l := range []string{up, i.Bridge} {
		if err := os.WriteFile(forwarding(l), []byte("1"), 0); err != nil {
			return fmt.Errorf("forward packets on %s: %w", l, err)
		}
	}
	return writeTable(*i)
}

// closeUplink undoes openUplink. An interface goes on forwarding while another
// cluster needs it to.
func (n Networks) closeUplink(i *Info) error {
	there, err := tableExists(i.Cluster)
	if err != nil {
		return err
	}
	if there {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		c.DelTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: tableName(i.Cluster)})
		if err := c.Flush(); err != nil {
			return fmt.Errorf("delete nft table %s: %w", tableName(i.Cluster), err)
		}
	}
	if i.Forwarding == "" {
		return nil
	}
	up := i.Forwarding
	i.Forwarding = ""
	heir, err := n.otherUplink(i.Cluster)
	if err != nil {
		return err
	}
	if heir != nil { // it takes over switching it off
		heir.Forwarding = up
		if err := n.save(*heir); err != nil {
			return err
		}
	} else if err := os.WriteFile(forwarding(up), []byte("0"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return n.save(*i)
}

func (n Networks) otherUplink(cluster string) (*Info, error) {
	files, err := filepath.Glob(filepath.Join(n.Dir, "*", infoFile))
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		other := filepath.Base(filepath.Dir(f))
		if i, err := n.Load(other); other != cluster && err == nil && i.Uplink {
			return &i, nil
		}
	}
	return nil, nil
}

func tableExists(cluster string) (bool, error) {
	c, err := nftables.New()
	if err != nil {
		return false, err
	}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return false, fmt.Errorf("list nft tables: %w", err)
	}
	for _, t := range tables {
		if t.Name == tableName(cluster) {
			return true, nil
		}
	}
	return false, nil
}

// writeTable writes the cluster's table anew, in one transaction.
func writeTable(i Info) error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	t := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: tableName(i.Cluster)}
	c.AddTable(t)
	c.DelTable(t)
	c.AddTable(t)
	nat := c.AddChain(&nftables.Chain{
		Name: "postrouting", Table: t, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	c.AddRule(&nftables.Rule{Table: t, Chain: nat, Exprs: join(
		address(12, i.CIDR), // from a host
		[]expr.Any{
			&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: ifname(i.Bridge)},
			&expr.Masq{},
		})})
	fwd := c.AddChain(&nftables.Chain{
		Name: "forward", Table: t, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
	})
	// Named VIPs and overlay addresses mean something on the hosts only.
	for _, r := range []string{config.VIPRange, config.OverlayRange} {
		c.AddRule(&nftables.Rule{Table: t, Chain: fwd, Exprs: join(
			[]expr.Any{
				&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: ifname(i.Bridge)},
			},
			address(16, netip.MustParsePrefix(r)),
			[]expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}})})
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("write nft table %s: %w", t.Name, err)
	}
	return nil
}

func join(parts ...[]expr.Any) (all []expr.Any) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// address matches the IPv4 address at offset of the header against r.
func address(offset uint32, r netip.Prefix) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: net.CIDRMask(r.Bits(), 32), Xor: binaryutil.NativeEndian.PutUint32(0)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: r.Addr().AsSlice()},
	}
}

// ifname is an interface's name as the kernel compares it.
func ifname(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}
