// Package match finds places for instances of pods in offers, and writes the
// operations that make them: reserve what an instance needs as a whole, create
// its volumes, launch its tasks, and give back what nobody needs. It is pure.
//
// All that an instance reserves carries one label, its reservation. So it is
// told apart from what other instances have on the same agent, and offered back
// whole whenever its tasks end. What no instance has is given back if it is
// known that nobody wants it; a reservation of which nothing is known is left
// alone, since there may be data in it.
package match

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/placement"
	"dcos.example/dcos/runtime/resource"
	"dcos.example/dcos/runtime/service/spec"
)

// Label is the key of the label that every reservation of the operator has.
const Label = "service-reservation"

// Agent is all that one agent offers.
type Agent struct {
	ID     string
	Offers []*mesos.OfferID
	placement.Place
	Resources   resource.Resources // unallocated, non-revocable
	Unavailable bool               // it is to leave: nothing new goes there
}

// Port is a port of a task.
type Port struct {
	Key   string // "broker/jmx": task and name
	Fixed int    // 0: any
	Had   int    // the one chosen before, kept if it can be
}

// Volume is a persistent volume of an instance.
type Volume struct {
	Name, ID string
	Path     string // in the container
	Size     resource.Fixed
	Shared   bool
	// Exists says that it has been made: it is not made again, its data would
	// be missing.
	Exists bool
}

// Task is one to be launched.
type Task struct {
	Name   string
	Amount spec.Amount
	Ports  []string // keys
}

// Want is an instance with tasks to launch.
type Want struct {
	Name        string // "kafka-0"
	Pod         string // wants of a pod share its Rules
	Agent       string // where it has its place, "" before
	Reservation string // id of its label
	Need        spec.Amount
	Ports       []Port
	Volumes     []Volume
	// InUse is what running tasks of the instance hold of its reservation.
	InUse resource.Resources
	Tasks []Task
}

// Settings are the rules for all wants.
type Settings struct {
	Role string
	// Rules by pod, with the places of instances that have one and keep it.
	Rules map[string]placement.Rules
	// Load counts instances by agent: less loaded agents are taken first.
	Load map[string]int
	// Known are the reservations of instances that exist, and of wants.
	Known map[string]bool
	// Claimed are reservations to be given back. With All, so is whatever else
	// is labelled and not known.
	Claimed map[string]bool
	All     bool
	// Random returns a number below n; it picks ports.
	Random func(n uint64) uint64
}

// Placed is a want with its place.
type Placed struct {
	Want  int
	Ports map[string]int // by key
	// Tasks are the resources of the want's tasks, by index.
	Tasks []resource.Resources
}

// Use is what is to be done with one agent's offers.
type Use struct {
	Agent int
	// Release, Reserve and Create are operations in this order, before the
	// launches. Destroy goes before Unreserve.
	Destroy, Unreserve, Reserve, Create resource.Resources
	Placed                              []Placed
	// Leaks are the reservations given back, by id.
	Leaks []string
}

// Empty reports whether nothing is to be done.
func (u *Use) Empty() bool {
	return len(u.Placed) == 0 && u.Destroy.Empty() && u.Unreserve.Empty() && u.Reserve.Empty() && u.Create.Empty()
}

// Reason is one thing looked at in an offer for a want.
type Reason struct {
	Passes bool
	Name   string
	Text   string
}

// Outcome is what an agent's offers were to a want.
type Outcome struct {
	Want, Agent int
	Passes      bool
	Reasons     []Reason
}

// ReservationOf is the id of the operator's label on an entry, or "".
func ReservationOf(it resource.Item) string {
	rs := it.Reservations()
	if len(rs) == 0 || rs[len(rs)-1].Static {
		return ""
	}
	for _, l := range rs[len(rs)-1].Labels.GetLabels() {
		if l.GetKey() == Label {
			return l.GetValue()
		}
	}
	return ""
}

// reservation is the one that carries id.
func reservation(role, id string) resource.Reservation {
	return resource.Reservation{Role: role, Labels: &mesos.Labels{Labels: []*mesos.Label{
		{Key: proto.String(Label), Value: proto.String(id)},
	}}}
}

// state is what is left of an agent's offers in one round.
type state struct {
	use  Use
	left resource.Resources
	more int // instances placed in this round
}

// Match places the wants, in their order, and finds what is to be given back.
// It costs O(wants × agents) for wants without a place, O(agents) for those
// with one, times the few entries of an offer.
func Match(agents []Agent, wants []Want, set Settings) ([]Use, []Outcome) {
	m := &matcher{set: set, agents: agents, states: make([]state, len(agents))}
	for i, a := range agents {
		m.states[i] = state{use: Use{Agent: i}, left: a.Resources}
		m.release(i)
	}
	for w := range wants {
		m.want(w, &wants[w])
	}
	var uses []Use
	for i := range m.states {
		if !m.states[i].use.Empty() {
			uses = append(uses, m.states[i].use)
		}
	}
	return uses, m.outcomes
}

type matcher struct {
	set      Settings
	agents   []Agent
	states   []state
	outcomes []Outcome
}

// release gives back what is claimed.
func (m *matcher) release(i int) {
	s := &m.states[i]
	leaks := map[string]bool{}
	gone := s.left.Filter(func(it resource.Item) bool {
		id := ReservationOf(it)
		leak := id != "" && it.Role() == m.set.Role && !m.set.Known[id] && (m.set.All || m.set.Claimed[id])
		if leak {
			leaks[id] = true
		}
		return leak
	})
	if gone.Empty() {
		return
	}
	s.left = s.left.Sub(gone)
	s.use.Leaks = slices.Sorted(maps.Keys(leaks))
	s.giveBack(gone)
}

// giveBack adds reserved resources, volumes too, to what is undone. They are
// not used again in this round: a launch does not depend on them.
func (s *state) giveBack(rs resource.Resources) {
	volumes := rs.Filter(func(it resource.Item) bool { return it.VolumeID() != "" })
	s.use.Destroy = s.use.Destroy.Add(volumes)
	s.use.Unreserve = s.use.Unreserve.Add(rs.Sub(volumes)).Add(volumes.WithoutVolumes())
}

// want places one want, or tells why not.
func (m *matcher) want(n int, w *Want) {
	rules := m.set.Rules[w.Pod]
	best, bestFit := -1, fit{}
	for i := range m.agents {
		a := &m.agents[i]
		if w.Agent != "" && a.ID != w.Agent {
			continue
		}
		f := fit{placed: Placed{Ports: map[string]int{}}}
		if w.Agent == "" {
			if text := rules.Against(a.Place); text != "" {
				f.fail("placement", "%s", text)
			} else if len(rules) > 0 {
				f.pass("placement", "every rule accepts the agent")
			}
			if a.Unavailable {
				f.fail("maintenance", "the agent is to be taken out of service")
			}
		}
		m.try(w, i, &f)
		if f.failed {
			m.outcomes = append(m.outcomes, Outcome{n, i, false, f.reasons})
			continue
		}
		if best < 0 || m.better(w, rules, i, best) {
			best, bestFit = i, f
		}
	}
	if best < 0 {
		return
	}
	m.outcomes = append(m.outcomes, Outcome{n, best, true, bestFit.reasons})
	s := &m.states[best]
	s.left = s.left.Sub(bestFit.own).Sub(bestFit.fresh)
	s.use.Reserve = s.use.Reserve.Add(bestFit.reserve)
	s.use.Create = s.use.Create.Add(bestFit.create)
	s.giveBack(bestFit.surplus)
	bestFit.placed.Want = n
	s.use.Placed = append(s.use.Placed, bestFit.placed)
	if w.Agent == "" {
		s.more++
		rules.Add(m.agents[best].Place)
	}
}

// better reports whether agent a suits w better than b: smaller groups first,
// then less instances, then more cpus.
func (m *matcher) better(w *Want, rules placement.Rules, a, b int) bool {
	load := func(i int) int { return m.set.Load[m.agents[i].ID] + m.states[i].more }
	return cmp.Or(
		cmp.Compare(rules.Group(m.agents[a].Place), rules.Group(m.agents[b].Place)),
		cmp.Compare(load(a), load(b)),
		cmp.Compare(m.states[b].left.Scalar(resource.CPUs), m.states[a].left.Scalar(resource.CPUs)),
		cmp.Compare(a, b),
	) < 0
}

// fit is how a want would lie on an agent.
type fit struct {
	failed  bool
	reasons []Reason
	own     resource.Resources // of the offers, reserved for the want already
	fresh   resource.Resources // of the offers, unreserved
	reserve resource.Resources // fresh, as reserved
	create  resource.Resources
	surplus resource.Resources // own that is needed no more
	placed  Placed
}

func (f *fit) fail(name, format string, args ...any) {
	f.failed = true
	f.reasons = append(f.reasons, Reason{false, name, fmt.Sprintf(format, args...)})
}

func (f *fit) pass(name, format string, args ...any) {
	f.reasons = append(f.reasons, Reason{true, name, fmt.Sprintf(format, args...)})
}
