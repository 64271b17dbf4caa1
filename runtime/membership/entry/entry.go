// Package entry decides how a master that starts comes to its place: it founds
// an ensemble, joins one, starts with the data it has, or waits. It is pure; it
// sees what other masters say of themselves and what this host remembers.
//
// Two ensembles under one cluster are the worst that can happen, a master that
// waits and says why is the least. So whenever others may know more than those
// who answer, it waits.
package entry

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/membership"
)

// Patience is how long a founder waits for all the others before a majority of
// them is enough. A founder that comes later has to be added by the others.
const Patience = 10 * time.Second

// Action is what to do.
type Action string

const (
	Found  Action = "found"  // make an ensemble with Decision.With
	Join   Action = "join"   // ask for a place, without data
	Start  Action = "start"  // with the data that is there
	Rejoin Action = "rejoin" // set the data aside, then join
	Leave  Action = "leave"  // was removed on purpose: do nothing more
	Wait   Action = "wait"   // ask again
)

// Data is what is on this host's disk.
type Data struct {
	ID       string                    // of the member
	Founding bool                      // it never had a majority
	Addrs    map[string]netip.AddrPort // of all members by id, as it knows them
}

// Situation is everything that the decision depends on.
type Situation struct {
	Cluster  string
	Self     config.Member
	Seed     config.Masters
	Known    membership.List // remembered on this host; zero: none
	Data     *Data           // nil: none
	Previous string          // id of the member whose data was set aside here
	// Views are the answers of other masters, by the address that was asked.
	Views  map[netip.Addr]membership.View
	Waited time.Duration // since the first look
	Port   uint16        // where members reach each other
}

// Decision is what to do, and why.
type Decision struct {
	Do     Action
	Reason string
	// With are the founders, Self among them.
	With []config.Member
	// Ask are masters that can pass a request to join on, best first.
	Ask []netip.Addr
	// Addrs are addresses of other members that differ from what the data says.
	Addrs map[string]netip.AddrPort
}

// Decide returns what to do.
func Decide(s Situation) Decision {
	s.Views = ours(s)
	if s.Data != nil {
		return withData(s)
	}
	return empty(s)
}

// ours drops answers of masters of other clusters, and those of this master
// itself under another address.
func ours(s Situation) map[netip.Addr]membership.View {
	out := map[netip.Addr]membership.View{}
	for a, v := range s.Views {
		if v.Cluster == s.Cluster && !(v.Name == s.Self.Name && v.Addr == s.Self.Addr) {
			out[a] = v
		}
	}
	return out
}

// newest is the newest list that anybody knows.
func newest(s Situation) membership.List {
	l := s.Known
	for _, v := range s.Views {
		if v.List.Newer(l) {
			l = v.List
		}
	}
	return l
}

// hosts are masters that have a majority and belong to list l, in a stable
// order.
func hosts(s Situation, l membership.List) (out []netip.Addr) {
	for a, v := range s.Views {
		if _, member := l.Find(v.ID); v.Majority && member && v.List.Generation == l.Generation {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

func empty(s Situation) Decision {
	l := newest(s)
	if s.Previous != "" && slices.Contains(l.Left, s.Previous) {
		return Decision{Do: Leave, Reason: "this master was removed from the cluster"}
	}
	if l.Known() {
		if via := hosts(s, l); len(via) > 0 {
			return Decision{Do: Join, Ask: via, Reason: "the cluster has masters"}
		}
		return Decision{Do: Wait, Reason: "the cluster has its masters (" + list(l) + "), but none of them that has a majority answers"}
	}
	for _, a := range sorted(s.Views) {
		v := s.Views[a]
		switch v.Stage {
		case membership.Empty, membership.Founding, membership.Gone:
			continue
		}
		if v.Majority { // it has not written its list down yet
			return Decision{Do: Join, Ask: []netip.Addr{a}, Reason: v.Name + " is in an ensemble"}
		}
		return Decision{Do: Wait, Reason: fmt.Sprintf("%s (%s) has data of this cluster, but no majority yet", v.Name, a)}
	}
	if s.Previous != "" {
		return Decision{Do: Wait, Reason: "this master was in an ensemble, of which no master answers"}
	}
	return found(s)
}

func found(s Situation) Decision {
	founders := Founders(s.Seed)
	if !slices.Contains(founders, s.Self) {
		return Decision{Do: Wait, Reason: "no master answers that has an ensemble, and this one was not there when the cluster was made, so that it may not found one"}
	}
	answered, ready := 1, 1
	var missing []string
	for _, m := range s.Seed.Masters {
		if m == s.Self {
			continue
		}
		v, ok := s.Views[m.Addr]
		founder := slices.Contains(founders, m)
		switch {
		case !ok:
			missing = append(missing, m.Name+" ("+m.Addr.String()+") does not answer")
			continue
		case founder && v.Founders != Text(s.Seed):
			missing = append(missing, m.Name+" was told of other founders ("+v.Founders+")")
		case founder:
			ready++
		}
		answered++
	}
	for _, name := range s.Seed.Founders {
		if !slices.ContainsFunc(founders, func(m config.Member) bool { return m.Name == name }) {
			missing = append(missing, name+" is not among the masters any more")
		}
	}
	why := strings.Join(missing, "; ")
	switch {
	case ready < majority(len(s.Seed.Founders)):
		return Decision{Do: Wait, Reason: fmt.Sprintf("a new ensemble needs %d of %d founders: %s", majority(len(s.Seed.Founders)), len(s.Seed.Founders), why)}
	case answered < majority(len(s.Seed.Masters)):
		return Decision{Do: Wait, Reason: fmt.Sprintf("one of the masters that do not answer may know an ensemble: %s", why)}
	case ready < len(s.Seed.Founders) && s.Waited < Patience:
		return Decision{Do: Wait, Reason: "a majority of founders is here, the rest is waited for a moment: " + why}
	}
	return Decision{Do: Found, With: founders, Reason: "no ensemble is there, and founders agree"}
}

// Founders are the masters that found an ensemble together.
func Founders(seed config.Masters) (out []config.Member) {
	for _, m := range seed.Masters {
		if slices.Contains(seed.Founders, m.Name) {
			out = append(out, m)
		}
	}
	return out
}

// Text writes the founders the same way on every host.
func Text(seed config.Masters) string {
	var out []string
	for _, m := range Founders(seed) {
		out = append(out, m.Name+"="+m.Addr.String())
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func majority(n int) int { return n/2 + 1 }

// withData decides for a master that was a member. It must not start when the
// ensemble has gone on without it: with another that was forgotten too, it
// could make up a majority of its own.
func withData(s Situation) Decision {
	l := newest(s)
	_, member := l.Find(s.Data.ID)
	switch {
	case slices.Contains(l.Left, s.Data.ID):
		return Decision{Do: Leave, Reason: "this master was removed from the cluster"}
	case !l.Known() || member:
		return Decision{Do: Start, Addrs: moved(s), Reason: "it has data"}
	}
	// Another generation may have been made in a partition, from less than
	// what this one's majority holds.
	for _, a := range sorted(s.Views) {
		v := s.Views[a]
		if _, with := v.List.Find(s.Data.ID); with && v.Majority {
			return Decision{Do: Start, Addrs: moved(s), Reason: v.Name + " is in the ensemble of its data, and has a majority"}
		}
	}
	if len(hosts(s, l)) > 0 {
		return Decision{Do: Rejoin, Reason: "the masters (" + list(l) + ") went on without this one"}
	}
	return Decision{Do: Wait, Reason: "the masters (" + list(l) + ") went on without this one, and none of them that has a majority answers"}
}

// moved finds other members that answer at another address than the data says.
// Of itself a member needs to know only what it tells the others when it runs.
func moved(s Situation) map[string]netip.AddrPort {
	out := map[string]netip.AddrPort{}
	for a, v := range s.Views {
		if old, ok := s.Data.Addrs[v.ID]; ok && v.Addr == a && v.ID != s.Data.ID && old.Addr() != a {
			out[v.ID] = netip.AddrPortFrom(a, s.Port)
		}
	}
	return out
}

func sorted(views map[netip.Addr]membership.View) []netip.Addr {
	out := make([]netip.Addr, 0, len(views))
	for a := range views {
		out = append(out, a)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

func list(l membership.List) string {
	ms := slices.SortedFunc(slices.Values(l.Members), func(a, b membership.Member) int { return cmp.Compare(a.Name, b.Name) })
	var out []string
	for _, m := range ms {
		out = append(out, m.Name)
	}
	return strings.Join(out, ", ")
}
