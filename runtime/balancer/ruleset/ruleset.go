// Package ruleset decides which virtual addresses the cluster has and which
// backends are behind them, from a feed view. It is pure: every host that sees
// the same view decides the same, without asking another.
//
// A VIP is declared by a label on a discovery port whose key starts with VIP
// or vip: "/name:port" for an address of our choice, or "ip:port". The first
// is reached as name.framework.l4lb.thisdcos.directory.
package ruleset

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/feed"
	"dcos.example/dcos/runtime/feed/label"
)

// Domain is the domain of named VIPs.
const Domain = "l4lb.thisdcos.directory"

// Protocol of a VIP.
type Protocol string

const (
	TCP Protocol = "tcp"
	UDP Protocol = "udp"
)

// Key is what a client connects to.
type Key struct {
	Addr     netip.Addr
	Port     uint16
	Protocol Protocol
}

func (k Key) String() string {
	return netip.AddrPortFrom(k.Addr, k.Port).String() + "/" + string(k.Protocol)
}

func (k Key) compare(o Key) int {
	return cmp.Or(k.Addr.Compare(o.Addr), cmp.Compare(k.Port, o.Port), cmp.Compare(k.Protocol, o.Protocol))
}

// VIP is one virtual service. Backends are sorted, without doubles; a VIP
// whose tasks do not serve has none, and connections to it are refused.
type VIP struct {
	Key
	Name     string // full name without a dot at the end; "" for an "ip:port" VIP
	Backends []netip.AddrPort
}

// Options are what rules depend on besides the view.
type Options struct {
	// Range is where named VIPs get their addresses from.
	Range netip.Prefix
	// Self is the address of the host that the rules are for. Mapped ports of
	// containers on this host are replaced by the container's own. It may be
	// invalid.
	Self netip.Addr
	// Reserved addresses are refused as "ip:port" VIPs, as those of agents
	// are: nobody may take over a master's port with a label.
	Reserved []netip.Addr
}

// Rules are the VIPs of a view in order of their keys. They are immutable.
type Rules struct {
	VIPs    []VIP
	Refused []string // labels that make no VIP, with the reason, sorted
}

// service is a VIP before it has an address.
type service struct {
	name     string     // of a named one
	addr     netip.Addr // of the others
	port     uint16
	protocol Protocol
}

// Plan computes the rules of a view. It costs O(n log n) in the labels, after
// one look at every task.
func Plan(v *feed.View, o Options) Rules {
	var rules Rules
	backends := map[service][]netip.AddrPort{}
	taken := map[netip.Addr]bool{}
	for _, a := range o.Reserved {
		taken[a] = true
	}
	for a := range v.Agents() {
		taken[a.Addr] = true
	}
	for t := range v.Tasks() {
		for _, p := range t.Discovery.GetPorts().GetPorts() {
			for _, l := range p.GetLabels().GetLabels() {
				if !strings.HasPrefix(l.GetKey(), "VIP") && !strings.HasPrefix(l.GetKey(), "vip") {
					continue
				}
				s, err := parse(l.GetValue(), t.FrameworkName, taken)
				if err != nil {
					rules.Refused = append(rules.Refused, fmt.Sprintf("task %s, label %s=%s: %v", t.Task, l.GetKey(), l.GetValue(), err))
					continue
				}
				for _, s.protocol = range protocols(p) {
					backends[s] = append(backends[s], endpoint(v, t, p, s.protocol, o.Self)...)
				}
			}
		}
	}
	addrs := addresses(backends, o.Range)
	for s, bs := range backends {
		addr := s.addr
		if s.name != "" {
			var ok bool
			if addr, ok = addrs[s.name]; !ok {
				rules.Refused = append(rules.Refused, fmt.Sprintf("%s: no free address in %s", s.name, o.Range))
				continue
			}
		}
		slices.SortFunc(bs, netip.AddrPort.Compare)
		rules.VIPs = append(rules.VIPs, VIP{Key{addr, s.port, s.protocol}, s.name, slices.Compact(bs)})
	}
	slices.SortFunc(rules.VIPs, func(a, b VIP) int { return a.compare(b.Key) })
	slices.Sort(rules.Refused)
	rules.Refused = slices.Compact(rules.Refused)
	return rules
}

// endpoint returns where t serves p, or nothing while it does not.
func endpoint(v *feed.View, t *feed.Task, p *mesos.Port, protocol Protocol, self netip.Addr) []netip.AddrPort {
	at, ok := v.Endpoint(t, p)
	if !ok || !t.Serving() || !at.Addr().Is4() {
		return nil
	}
	if at.Addr() == self {
		at = v.LocalEndpoint(t, at, string(protocol))
	}
	return []netip.AddrPort{at}
}

func protocols(p *mesos.Port) []Protocol {
	var out []Protocol
	for s := range strings.SplitSeq(strings.ToLower(p.GetProtocol()), ",") {
		switch s = strings.TrimSpace(s); s {
		case "", "tcp":
			out = append(out, TCP)
		case "udp":
			out = append(out, UDP)
		}
	}
	return out
}

// parse reads the value of a VIP label.
func parse(value, framework string, taken map[netip.Addr]bool) (s service, err error) {
	i := strings.LastIndexByte(value, ':')
	if i < 0 {
		return s, fmt.Errorf(`must be "/name:port" or "ip:port"`)
	}
	port, err := strconv.ParseUint(value[i+1:], 10, 16)
	if err != nil || port == 0 {
		return s, fmt.Errorf("port must be 1 to 65535")
	}
	s.port = uint16(port)
	if addr, err := netip.ParseAddr(value[:i]); err == nil {
		switch {
		case !addr.Is4():
			return s, fmt.Errorf("only IPv4 addresses can be VIPs")
		case !addr.IsGlobalUnicast() || taken[addr]:
			return s, fmt.Errorf("%s is not free to be a VIP", addr)
		}
		s.addr = addr
		return s, nil
	}
	name, fw := label.Domain(value[:i]), label.Domain(framework)
	if name == "" || fw == "" {
		return s, fmt.Errorf("the name has no characters that DNS allows")
	}
	s.name = name + "." + fw + "." + Domain
	return s, nil
}

// maxTries bounds the search for a free address; a range that is half full
// makes it fail once in 2^maxTries.
const maxTries = 256

// addresses gives every name an address in r. The first try is a hash of the
// name, the next ones hashes of the name and the number of the try; names are
// served in order. So the address of a name depends on other names only when
// their hashes collide, and then the name that sorts first stays where it is.
//
// What this cannot do without a memory that all hosts share: when a name comes
// that sorts before another and hashes to the same address, the other one
// moves. Among n names in a /8 that happens to the newest with probability
// n/2^24 (1,000 names: 0.006 %), and clients follow within the DNS answer's
// 5 s.
func addresses(services map[service][]netip.AddrPort, r netip.Prefix) map[string]netip.Addr {
	used := map[netip.Addr]bool{}
	names := map[string]bool{}
	for s := range services {
		if s.name != "" {
			names[s.name] = true
		} else {
			used[s.addr] = true
		}
	}
	out := make(map[string]netip.Addr, len(names))
	for _, name := range slices.Sorted(maps.Keys(names)) {
		for try := range uint32(maxTries) {
			if a := hashed(name, try, r); !used[a] {
				used[a], out[name] = true, a
				break
			}
		}
	}
	return out
}

// hashed returns a host address in r: neither its first nor its last.
func hashed(name string, try uint32, r netip.Prefix) netip.Addr {
	sum := sha256.Sum256(binary.BigEndian.AppendUint32([]byte(name), try))
	size := uint64(1)<<(32-r.Bits()) - 2
	base := r.Masked().Addr().As4()
	n := uint64(binary.BigEndian.Uint32(base[:])) + 1 + binary.BigEndian.Uint64(sum[:])%size
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], uint32(n))
	return netip.AddrFrom4(a)
}

// Names returns the addresses of the named VIPs, for DNS.
func (r Rules) Names() map[string]netip.Addr {
	out := map[string]netip.Addr{}
	for _, v := range r.VIPs {
		if v.Name != "" {
			out[v.Name] = v.Addr
		}
	}
	return out
}
