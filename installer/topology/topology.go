// Package topology decides, from a blueprint alone, which hosts a cluster has:
// their names, roles, sizes and addresses, and how they are reached and kept.
// It is pure. A local host's address depends on the range, the role and the
// number of that host only, and a machine of one's own is what its name says,
// so adding or removing one moves no other.
package topology

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"dcos.example/dcos/installer/blueprint"
	"dcos.example/dcos/installer/diag"
	"dcos.example/dcos/runtime/config"
)

// Role, Size and Window are the blueprint's, so that whoever works on a
// topology needs no blueprint.
type (
	Role   = blueprint.Role
	Size   = blueprint.Size
	Window = blueprint.Window
)

const (
	RoleMaster      = blueprint.RoleMaster
	RoleAgent       = blueprint.RoleAgent
	RolePublicAgent = blueprint.RolePublicAgent

	MiB = blueprint.MiB
	GiB = blueprint.GiB

	Local  = blueprint.ProviderLocal
	OnPrem = blueprint.ProviderOnPrem
)

// Topology is a cluster as hosts on a network. Its JSON form leaves secrets
// out.
type Topology struct {
	Provider  string // Local or OnPrem
	Cluster   Cluster
	Network   Network // local only
	Parallel  int     // how many hosts are worked on at once; 0: not said
	Hosts     []Host  // masters, agents, public agents; each in the order of their numbers or names
	Preflight Preflight
	Upgrade   Upgrade
	Backup    *Backup `json:",omitempty"` // nil: only when asked for
}

// Cluster is what all hosts share.
type Cluster struct {
	Name          string
	Release       string // wanted version, empty: any
	AdminUser     string
	AdminPassword string `json:"-"` // secret; empty: one is generated
	Resolvers     []netip.AddrPort
}

// Network is the one network of local hosts.
type Network struct {
	Range   netip.Prefix
	Gateway netip.Addr
	Uplink  bool // whether it reaches the outside
}

// Host is one machine.
type Host struct {
	Name string // local: "agent-2", the role and the number
	Role Role
	Addr netip.Addr // that other hosts use
	// What a local host has. Of a machine of one's own, what its agent offers;
	// zero: what it finds.
	CPUs       float64
	Memory     Size
	Disk       Size
	Attributes map[string]string
	// Reservations are the parts of the agent that only a role may use.
	Reservations map[string]string `json:",omitempty"`

	Connection   *Connection `json:",omitempty"` // onprem only
	PricePerHour float64     `json:",omitempty"`
}

// Connection is how the installer logs in to a machine.
type Connection struct {
	Login
	SudoPassword string        `json:"-"` // secret; empty: sudo asks for none
	Timeout      time.Duration // of one attempt; 0: the default
	Bastion      *Login        // the machine to go through; nil: none
}

// Login is how one logs in to one machine.
type Login struct {
	Address         string // name or address
	Port            int
	User            string
	KeyFile         string
	Agent           bool   // the SSH agent's keys
	Password        string `json:"-"` // secret
	KnownHosts      string
	TrustOnFirstUse bool
}

// Preflight says which checks do not count, by id.
type Preflight struct {
	Ignore map[string]string // id → reason
}

// Upgrade says how changes go through agents that work.
type Upgrade struct {
	MaxUnavailable int
	Drain          bool
	Window         Window
}

// Backup says when the cluster is backed up, and where to.
type Backup struct {
	Every      time.Duration
	Keep       int
	Dir        string // on every master; empty: the default, or S3
	S3         *S3
	Recipients []string
}

// S3 is a bucket of an S3-compatible store.
type S3 struct {
	Endpoint, Bucket, Prefix, Region string
	AccessKey                        string
	SecretKey                        string `json:"-"`
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
	t := &Topology{
		Provider: b.Provider.Kind.Value,
		Cluster: Cluster{Name: b.Cluster.Name.Value, Release: b.Cluster.Release.Value, AdminUser: b.Cluster.AdminUser.Value,
			AdminPassword: b.Cluster.AdminPassword.Value, Resolvers: b.Cluster.Resolvers.Value},
		Upgrade: Upgrade{MaxUnavailable: b.Upgrade.MaxUnavailable.Value, Drain: b.Upgrade.Drain.Value, Window: b.Upgrade.Window.Value},
		Backup:  backup(b.Backup),
	}
	for _, i := range b.Preflight.Ignore {
		if t.Preflight.Ignore == nil {
			t.Preflight.Ignore = map[string]string{}
		}
		t.Preflight.Ignore[i.ID] = i.Reason
	}
	var l diag.List
	if o := b.Provider.OnPrem; o != nil {
		t.onprem(b, o, &l)
	} else {
		t.local(b, &l)
	}
	if l.HasErrors() {
		return nil, l
	}
	return t, l
}

func backup(b *blueprint.Backup) *Backup {
	if b == nil {
		return nil
	}
	out := &Backup{Every: b.Every.Value, Keep: b.Keep.Value, Dir: b.Dir.Value, Recipients: b.Recipients.Value}
	if s := b.S3; s != nil {
		out.S3 = &S3{Endpoint: s.Endpoint.Value, Bucket: s.Bucket.Value, Prefix: s.Prefix.Value, Region: s.Region.Value,
			AccessKey: s.AccessKey.Value, SecretKey: s.SecretKey.Value}
	}
	return out
}

// onprem fills in machines of one's own, by name: their order in the file says
// nothing.
func (t *Topology) onprem(b *blueprint.Blueprint, o *blueprint.OnPrem, l *diag.List) {
	t.Parallel = o.Parallel.Value
	for _, g := range b.Groups {
		var hosts []Host
		for _, h := range g.Hosts {
			for _, r := range reserved() {
				if r.prefix.Contains(h.Address.Value) {
					l.Add(diag.Diagnostic{Summary: "Address in use", Detail: fmt.Sprintf("%s of %s is in %s, which hosts use for %s.", h.Address.Value, h.Name.Value, r.prefix, r.what),
						Hint: "Give the machine an address outside of it, perhaps on a second interface.", Range: &h.Address.Range})
				}
			}
			hosts = append(hosts, Host{Name: h.Name.Value, Role: g.Role, Addr: h.Address.Value, CPUs: h.CPUs.Value, Memory: h.Memory.Value, Disk: h.Disk.Value,
				Attributes: h.Attributes.Value, Reservations: h.Reservations.Value, PricePerHour: h.PricePerHour.Value, Connection: connection(o, h)})
		}
		slices.SortFunc(hosts, func(a, b Host) int { return natural(a.Name, b.Name) })
		t.Hosts = append(t.Hosts, hosts...)
	}
}

// connection is the provider's, with what a host says otherwise. A key of the
// host's own takes the place of all other ways to log in.
func connection(o *blueprint.OnPrem, h blueprint.Host) *Connection {
	c := &Connection{Login: login(o.Login), SudoPassword: o.SudoPassword.Value, Timeout: o.Timeout.Value}
	c.Address = cmp.Or(h.SSHAddress.Value, h.Address.Value.String())
	c.Port, c.User = cmp.Or(h.Port.Value, c.Port), cmp.Or(h.User.Value, c.User)
	if h.KeyFile.Value != "" {
		c.KeyFile, c.Agent, c.Password = h.KeyFile.Value, false, ""
	}
	if c.User == "root" {
		c.SudoPassword = ""
	}
	if b := o.Bastion; b != nil {
		l := login(b.Login)
		l.Address = b.Address.Value
		c.Bastion = &l
	}
	return c
}

func login(l blueprint.Login) Login {
	return Login{Port: l.Port.Value, User: l.User.Value, KeyFile: l.KeyFile.Value, Agent: l.Agent.Value, Password: l.Password.Value,
		KnownHosts: l.KnownHosts.Value, TrustOnFirstUse: l.TrustOnFirstUse.Value}
}

// natural orders names as people count: a2 before a10.
func natural(a, b string) int {
	digits := func(s string) int {
		n := 0
		for n < len(s) && s[n] >= '0' && s[n] <= '9' {
			n++
		}
		return n
	}
	x, y := a, b
	for x != "" && y != "" {
		i, j := digits(x), digits(y)
		if i > 0 && j > 0 {
			m, n := strings.TrimLeft(x[:i], "0"), strings.TrimLeft(y[:j], "0")
			if c := cmp.Or(cmp.Compare(len(m), len(n)), cmp.Compare(m, n)); c != 0 {
				return c
			}
			x, y = x[i:], y[j:]
			continue
		}
		if x[0] != y[0] {
			return cmp.Compare(x[0], y[0])
		}
		x, y = x[1:], y[1:]
	}
	return cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(a, b)) // "a1" and "a01" have an order too
}

// local fills in hosts that this machine makes.
func (t *Topology) local(b *blueprint.Blueprint, l *diag.List) {
	local := b.Provider.Local
	pre := local.Range.Value
	at := local.Range.Range
	fail := func(summary, hint, format string, args ...any) {
		l.Add(diag.Diagnostic{Summary: summary, Detail: fmt.Sprintf(format, args...), Hint: hint, Range: &at})
	}
	if !pre.IsValid() || !pre.Addr().Is4() {
		fail("Invalid address range", `For example "198.18.0.0/24".`, "The range of hosts must be an IPv4 range, not %s.", pre)
		return
	}
	if m := pre.Masked(); m != pre {
		fail("Address range with host bits", fmt.Sprintf("Write %q.", m), "%s is an address inside the range %s.", pre, m)
	}
	pre = pre.Masked()
	if pre.Bits() < minBits || pre.Bits() > maxBits {
		fail("Address range of unusable size", "", "The range %s must be between a /%d and a /%d.", pre, minBits, maxBits)
		return
	}
	for _, r := range reserved() {
		if pre.Overlaps(r.prefix) {
			fail("Address range in use", `For example "198.18.0.0/24".`, "%s overlaps with %s, which hosts use for %s.", pre, r.prefix, r.what)
		}
	}
	p := planOf(pre)
	t.Network = Network{Range: pre, Gateway: p.at(1), Uplink: local.Uplink.Value}
	agents, public := 0, 0
	for _, g := range b.Groups {
		switch g.Role {
		case RoleAgent:
			agents = g.Count.Value
		case RolePublicAgent:
			public = g.Count.Value
		}
		for i, n := range g.Nodes {
			t.Hosts = append(t.Hosts, Host{Name: hostName(g.Role, i+1), Role: g.Role, Addr: p.addr(g.Role, i+1),
				CPUs: n.CPUs.Value, Memory: n.Memory.Value, Disk: n.Disk.Value, Attributes: n.Attributes.Value, Reservations: n.Reservations.Value})
		}
	}
	if room := p.room(); agents+public > room {
		fail("Address range too small", fmt.Sprintf("A /%d would do.", fitting(agents+public)),
			"%s has room for 5 masters and %d agents, and the cluster has %d agents (%d public).", pre, room, agents+public, public)
	}
}

// hostName returns the name of the n-th host of a role, counting from 1.
func hostName(r Role, n int) string {
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
