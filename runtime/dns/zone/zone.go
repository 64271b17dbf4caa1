// Package zone computes what the cluster's DNS answers from a feed view: the
// names of Mesos-DNS (*.mesos) and those of DC/OS (*.thisdcos.directory,
// *.spartan). It is pure; the server is package dns. A Zone never changes.
package zone

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"dcos.example/dcos/runtime/feed"
	"dcos.example/dcos/runtime/feed/label"
	"dcos.example/dcos/runtime/task"
)

// Apexes are the domains that the cluster answers for itself.
var Apexes = [...]string{"mesos.", "thisdcos.directory.", "thisdcos.global.", "spartan."}

// aliases are suffixes that mean another one, as in DC/OS. The first that fits
// is applied, then the list is tried again.
var aliases = [...]struct{ from, to string }{
	{".thisdcos.global.", ".thisdcos.directory."},
	{".mesos.thisdcos.directory.", ".mesos."},
	{".dclb.thisdcos.directory.", ".l4lb.thisdcos.directory."},
}

const dcos = "dcos.thisdcos.directory."

// Options is what a zone is made of besides the view.
type Options struct {
	// Masters are the addresses of all masters, in the cluster's order.
	Masters []netip.Addr
	// VIPs are the addresses of named VIPs by full name, without a dot at
	// the end ("web.marathon.l4lb.thisdcos.directory").
	VIPs map[string]netip.Addr
	// MasterPort and AgentPort stand in SRV records of leader and agents.
	MasterPort, AgentPort uint16
}

// SRV is the target of a service record.
type SRV struct {
	Target string // lower case, with a dot at the end
	Port   uint16
}

// Set is all records of one name, sorted, without doubles. An empty Set is a
// name that exists only because names below it do.
type Set struct {
	A   []netip.Addr
	SRV []SRV
}

// Zone answers for the cluster's names.
type Zone struct {
	names map[string]*Set
	tasks []TaskRecords
	ready bool
}

// TaskRecords lists what one task brought into the zone.
type TaskRecords struct {
	Framework, Name string
	ID              task.ID
	Records         []Record
}

// Record is one record as text.
type Record struct {
	Name, Type, Value string
}

// Build computes the zone of a view. It costs O(n log n) in tasks, about ten
// records each.
func Build(v *feed.View, o Options) *Zone {
	z := &Zone{names: map[string]*Set{}, ready: v.Revision() > 0}
	z.masters(v, o)
	z.agents(v, o)
	for t := range v.Tasks() {
		if t.State == task.Running && t.Health != feed.Unhealthy {
			z.task(v, t)
		}
	}
	for name, addr := range o.VIPs {
		z.a(strings.ToLower(name)+".", addr)
	}
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	z.a("ready.spartan.", loopback)
	z.a("ns.spartan.", loopback)
	z.finish()
	return z
}

// Ready reports whether the zone comes from a master's answer; until then a
// name that it does not have may exist.
func (z *Zone) Ready() bool { return z.ready }

// Apex returns the cluster's domain that a lower-case name with a dot at the
// end is in, or false when the name is not the cluster's.
func Apex(name string) (string, bool) {
	for _, apex := range Apexes {
		if name == apex || strings.HasSuffix(name, "."+apex) {
			return apex, true
		}
	}
	return "", false
}

// Lookup returns the records of a lower-case name with a dot at the end, and
// whether the name exists.
func (z *Zone) Lookup(name string) (*Set, bool) {
	s, ok := z.names[canonical(name)]
	return s, ok
}

func canonical(name string) string {
	for again := true; again; {
		again = false
		for _, a := range aliases {
			if head, ok := strings.CutSuffix(name, a.from); ok {
				name, again = head+a.to, true
				break
			}
		}
	}
	return name
}

// All returns every name that has records, in order.
func (z *Zone) All() iter.Seq2[string, *Set] {
	return func(yield func(string, *Set) bool) {
		for _, name := range slices.Sorted(maps.Keys(z.names)) {
			if s := z.names[name]; len(s.A)+len(s.SRV) > 0 && !yield(name, s) {
				return
			}
		}
	}
}

// Tasks returns what each task brought in, in order of framework, name and id.
func (z *Zone) Tasks() []TaskRecords { return z.tasks }

func (z *Zone) masters(v *feed.View, o Options) {
	for i, m := range o.Masters {
		z.a("master.mesos.", m)
		z.a("master."+dcos, m)
		z.a(fmt.Sprintf("master%d.mesos.", i), m)
	}
	_, leader := v.Leader()
	if !leader.IsValid() {
		return
	}
	z.a("leader.mesos.", leader)
	z.a("leader."+dcos, leader)
	for _, proto := range protocols("") {
		z.srv("_leader._"+proto+".mesos.", "leader.mesos.", o.MasterPort)
	}
	for fw := range v.Frameworks() {
		if name := label.Domain(fw.Name); name != "" {
			addr, err := netip.ParseAddr(fw.Host)
			if err != nil && name == "marathon" {
				addr = leader // the orchestrator is part of the leading master
			}
			if addr.IsValid() {
				z.a(name+".mesos.", addr)
			}
		}
	}
}

func (z *Zone) agents(v *feed.View, o Options) {
	for a := range v.Agents() {
		if !a.Addr.IsValid() {
			continue
		}
		z.a("agent.mesos.", a.Addr)
		z.a("slave.mesos.", a.Addr)
		for _, proto := range protocols("") {
			z.srv("_slave._"+proto+".mesos.", "slave.mesos.", o.AgentPort)
		}
	}
}

// task adds the records of one running task. With task name and framework
// name as labels T and F, and C the name of this very task,
//
//	T.F.mesos, C.F.mesos                            A    where others reach it
//	T.F.slave.mesos, C.F.slave.mesos                A    its host
//	T.F.{agentip,containerip,autoip}.dcos.thisd…    A    as they say
//	_T._tcp.F.mesos, _port._T._tcp.F.mesos          SRV  discovery ports
//	_T._tcp.F.mesos (no discovery), .F.slave.mesos  SRV  host ports
func (z *Zone) task(v *feed.View, t *feed.Task) {
	name := t.Name
	if d := t.Discovery.GetName(); d != "" {
		name = d
	}
	T, F := label.Of(name), label.Domain(t.FrameworkName)
	host, ok := v.HostAddr(t)
	if T == "" || F == "" || !ok {
		return
	}
	own, _ := v.ContainerAddr(t)
	auto, _ := v.AutoAddr(t)
	rec := TaskRecords{Framework: t.FrameworkName, Name: t.Name, ID: t.Task}
	a := func(name string, addr netip.Addr) {
		z.a(name, addr)
		rec.Records = append(rec.Records, Record{name, "A", addr.String()})
	}
	srv := func(name, target string, port uint16) {
		z.srv(name, target, port)
		rec.Records = append(rec.Records, Record{name, "SRV", fmt.Sprintf("%s:%d", target, port)})
	}

	agent := string(t.Agent)
	C := T + "-" + label.Hash(string(t.Task)) + "-" + label.Of(agent[strings.LastIndex(agent, "-")+1:])
	if len(C) > label.Max {
		C = label.Of(C)
	}
	for _, n := range []string{T, C} {
		a(n+"."+F+".mesos.", auto)
		a(n+"."+F+".slave.mesos.", host)
	}
	a(T+"."+F+".agentip."+dcos, host)
	a(T+"."+F+".containerip."+dcos, own)
	a(T+"."+F+".autoip."+dcos, auto)

	onHost, inside := C+"."+F+".slave.mesos.", C+"."+F+".containerip."+dcos
	for _, port := range t.HostPorts {
		for _, proto := range protocols("") {
			if t.Discovery == nil {
				srv("_"+T+"._"+proto+"."+F+".mesos.", onHost, port)
			}
			srv("_"+T+"._"+proto+"."+F+".slave.mesos.", onHost, port)
		}
	}
	for _, p := range t.Discovery.GetPorts().GetPorts() {
		at, ok := v.Endpoint(t, p)
		if !ok {
			continue
		}
		target := onHost
		if at.Addr() != host {
			target = inside
			a(inside, own)
		}
		for _, proto := range protocols(p.GetProtocol()) {
			base := "_" + T + "._" + proto + "." + F + ".mesos."
			srv(base, target, at.Port())
			if port := label.Of(p.GetName()); port != "" {
				srv("_"+port+"."+base, target, at.Port())
			}
		}
	}
	z.tasks = append(z.tasks, rec)
}

// protocols splits Marathon's "tcp,udp"; none means both.
func protocols(p string) []string {
	if p == "" {
		return []string{"tcp", "udp"}
	}
	return strings.Split(strings.ToLower(p), ",")
}

func (z *Zone) set(name string) *Set {
	s := z.names[name]
	if s == nil {
		s = &Set{}
		z.names[name] = s
	}
	return s
}

func (z *Zone) a(name string, addr netip.Addr) {
	s := z.set(name)
	s.A = append(s.A, addr)
}

func (z *Zone) srv(name, target string, port uint16) {
	s := z.set(name)
	s.SRV = append(s.SRV, SRV{target, port})
}

// finish sorts the records, and adds the names above those that have records.
func (z *Zone) finish() {
	for _, name := range slices.Collect(maps.Keys(z.names)) {
		s := z.names[name]
		slices.SortFunc(s.A, netip.Addr.Compare)
		s.A = slices.Compact(s.A)
		slices.SortFunc(s.SRV, func(a, b SRV) int {
			return cmp.Or(cmp.Compare(a.Target, b.Target), cmp.Compare(a.Port, b.Port))
		})
		s.SRV = slices.Compact(s.SRV)
		for {
			_, rest, ok := strings.Cut(name, ".")
			if _, known := z.names[rest]; !ok || rest == "" || known {
				break
			}
			if _, ours := Apex(rest); !ours {
				break
			}
			z.names[rest] = &Set{}
			name = rest
		}
	}
	for _, apex := range Apexes {
		z.set(apex)
	}
	slices.SortFunc(z.tasks, func(a, b TaskRecords) int {
		return cmp.Or(cmp.Compare(a.Framework, b.Framework), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
}
