// Package topology decides, from a blueprint alone, which hosts a cluster has:
// their names, roles, sizes and addresses. It is pure, and a host's address
// depends on the range, the role and the number of that host only, so adding
// or removing one moves no other.
package topology

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"dcos.example/dcos/installer/blueprint"
	"dcos.example/dcos/installer/diag"
	"dcos.example/dcos/runtime/config"
)

// Role and Size are the blueprint's, so that whoever works on a topology needs
// no blueprint.
type (
	Role = blueprint.Role
	Size = blueprint.Size
)

const (
	RoleMaster      = blueprint.RoleMaster
	RoleAgent       = blueprint.RoleAgent
	RolePublicAgent = blueprint.RolePublicAgent

	MiB = blueprint.MiB
	GiB = blueprint.GiB
)

// Topology is a cluster as hosts on a network.
type Topology struct {
	Cluster Cluster
	Network Network
	Hosts   []Host // masters, agents, public agents; each in the order of their numbers
}

// Cluster is what all hosts share.
type Cluster struct {
	Name          string
	Release       string // wanted version, empty: any
	AdminUser     string
	AdminPassword string // secret; empty: one is generated
	Resolvers     []netip.AddrPort
}

// Network is the one network of the hosts.
type Network struct {
	Range   netip.Prefix
	Gateway netip.Addr
	Uplink  bool // whether it reaches the outside
}

// Host is one machine.
type Host struct {
	Name       string // "agent-2": the role and the number
	Role       Role
	Addr       netip.Addr
	CPUs       float64
	Memory     Size
	Disk       Size
	Attributes map[string]string
}

// Masters returns the hosts with the role of a master.
func (t *Topology) Masters() []Host { return t.withRole(RoleMaster) }

// Count returns how many hosts have a role.
func (t *Topology) Count(r Role) int { return len(t.withRole(r)) }

func (t *Topology) withRole(r Role) []Host {
	var out []Host
	for _, h := range t.Hosts {
		if h.Role == r {
			out = append(out, h)
		}
	}
	return out
}

// reserved are ranges that hosts of a cluster use for themselves.
func reserved() []struct {
	prefix netip.Prefix
	what   string
} {
	bridge := config.DefaultAgent().Bridge.Subnet
	return []struct {
		prefix netip.Prefix
		what   string
	}{
		{netip.MustParsePrefix(config.VIPRange), "named VIPs"},
		{netip.MustParsePrefix(config.OverlayRange), "overlay networks"},
		{netip.PrefixFrom(netip.MustParseAddr(config.DNSAddr), 24).Masked(), "the DNS server of each host, " + config.DNSAddr},
		{bridge, "the container bridge of each agent"},
		{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
		{netip.MustParsePrefix("169.254.0.0/16"), "link-local addresses"},
		{netip.MustParsePrefix("224.0.0.0/3"), "multicast and reserved addresses"},
		{netip.MustParsePrefix("0.0.0.0/8"), `addresses of "this network"`},
	}
}

// Bounds of a range's prefix.
const (
	minBits = 8
	maxBits = 28
)

// New returns the hosts of b, or what is wrong with its network.
func New(b *blueprint.Blueprint) (*Topology, diag.List) {
	var l diag.List
	local := b.Provider.Local
	pre := local.Range.Value
	at := local.Range.Range
	fail := func(summary, hint, format string, args ...any) {
		l.Add(diag.Diagnostic{Summary: summary, Detail: fmt.Sprintf(format, args...), Hint: hint, Range: &at})
	}
	if !pre.IsValid() || !pre.Addr().Is4() {
		fail("Invalid address range", `For example "198.18.0.0/24".`, "The range of hosts must be an IPv4 range, not %s.", pre)
		return nil, l
	}
	if m := pre.Masked(); m != pre {
		fail("Address range with host bits", fmt.Sprintf("Write %q.", m), "%s is an address inside the range %s.", pre, m)
	}
	pre = pre.Masked()
	if pre.Bits() < minBits || pre.Bits() > maxBits {
		fail("Address range of unusable size", "", "The range %s must be between a /%d and a /%d.", pre, minBits, maxBits)
		return nil, l
	}
	for _, r := range reserved() {
		if pre.Overlaps(r.prefix) {
			fail("Address range in use", `For example "198.18.0.0/24".`, "%s overlaps with %s, which hosts use for %s.", pre, r.prefix, r.what)
		}
	}
	p := planOf(pre)
	t := &Topology{
		Cluster: Cluster{Name: b.Cluster.Name.Value, Release: b.Cluster.Release.Value, AdminUser: b.Cluster.AdminUser.Value,
			AdminPassword: b.Cluster.AdminPassword.Value, Resolvers: b.Cluster.Resolvers.Value},
		Network: Network{Range: pre, Gateway: p.at(1), Uplink: local.Uplink.Value},
	}
	agents, public := 0, 0
	for _, g := range b.Groups {
		switch g.Role {
		case RoleAgent:
			agents = g.Count.Value
		case RolePublicAgent:
			public = g.Count.Value
		}
		for i, n := range g.Nodes {
			t.Hosts = append(t.Hosts, Host{Name: HostName(g.Role, i+1), Role: g.Role, Addr: p.addr(g.Role, i+1),
				CPUs: n.CPUs.Value, Memory: n.Memory.Value, Disk: n.Disk.Value, Attributes: n.Attributes.Value})
		}
	}
	if room := p.room(); agents+public > room {
		fail("Address range too small", fmt.Sprintf("A /%d would do.", fitting(agents+public)),
			"%s has room for 5 masters and %d agents, and the cluster has %d agents (%d public).", pre, room, agents+public, public)
	}
	if l.HasErrors() {
		return nil, l
	}
	return t, l
}

// HostName returns the name of the n-th host of a role, counting from 1.
func HostName(r Role, n int) string {
	if r == RolePublicAgent {
		return fmt.Sprintf("public-agent-%d", n)
	}
	return fmt.Sprintf("%s-%d", r, n)
}

// plan is where in a range the hosts of each role are. The first address is
// the gateway. Masters have five places. Agents count up from there, public
// agents count down from the end, so each may grow until they meet. In a /26
// and larger the numbers are easy to read: master-1 is .11, agent-1 is .21.
type plan struct {
	base            uint32
	size            uint32
	masters, agents uint32 // the place before the first
}

func planOf(pre netip.Prefix) plan {
	b := pre.Addr().As4()
	p := plan{base: binary.BigEndian.Uint32(b[:]), size: 1 << (32 - pre.Bits()), masters: 1, agents: 6}
	if pre.Bits() <= 26 {
		p.masters, p.agents = 10, 20
	}
	return p
}

func (p plan) at(offset uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], p.base+offset)
	return netip.AddrFrom4(b)
}

func (p plan) addr(r Role, n int) netip.Addr {
	switch r {
	case RoleMaster:
		return p.at(p.masters + uint32(n))
	case RoleAgent:
		return p.at(p.agents + uint32(n))
	default:
		return p.at(p.size - 1 - uint32(n)) // the last address is the broadcast
	}
}

// room returns how many agents, public or not, fit.
func (p plan) room() int { return int(p.size) - 2 - int(p.agents) }

// fitting returns the longest prefix with room for n agents.
func fitting(n int) int {
	for bits := maxBits; bits > minBits; bits-- {
		if planOf(netip.PrefixFrom(netip.IPv4Unspecified(), bits)).room() >= n {
			return bits
		}
	}
	return minBits
}
