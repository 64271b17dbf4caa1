package launch

import (
	"cmp"
	"container/heap"
	"slices"

	"dcos.example/dcos/runtime/api/marathon"
	"dcos.example/dcos/runtime/orchestrator/spec"
	"dcos.example/dcos/runtime/placement"
	"dcos.example/dcos/runtime/resource"
)

// Reason is why an offer does not suit an app.
type Reason uint8

// Reasons in the order of the funnel.
const (
	UnfulfilledRole Reason = iota
	UnfulfilledConstraint
	NoCorrespondingReservationFound
	AgentMaintenance
	InsufficientCpus
	InsufficientMemory
	InsufficientDisk
	InsufficientGpus
	InsufficientPorts
	DeclinedScarceResources
	Reasons // how many there are
)

var reasonNames = [Reasons]string{
	"UnfulfilledRole", "UnfulfilledConstraint", "NoCorrespondingReservationFound", "AgentMaintenance",
	"InsufficientCpus", "InsufficientMemory", "InsufficientDisk", "InsufficientGpus", "InsufficientPorts",
	"DeclinedScarceResources",
}

func (r Reason) String() string { return reasonNames[r] }

// Want is instances of one app that should be launched.
type Want struct {
	App     *marathon.App
	Count   int
	OnAgent map[string]int    // the app's instances by agent
	Placed  []placement.Place // where they are; needed only when App has constraints
}

// Launch is one instance and the offer it takes its resources from.
type Launch struct {
	Offer     int
	Want      int
	HostPorts []int64 // per port of the app; 0 for a port without
	Resources resource.Resources
}

// Refusal is an offer that an app could not use, with every reason.
type Refusal struct {
	Offer   int
	Reasons []Reason
}

// Verdict is what one Want made of the offers.
type Verdict struct {
	Used     int
	Refusals []Refusal
}

// Settings are rules for all apps.
type Settings struct {
	DefaultRoles []string // whose resources apps without acceptedResourceRoles use
	HomeRegion   string   // where apps without a @region constraint stay; "" for anywhere
	// Random returns a number below n; it picks host ports.
	Random func(n uint64) uint64
}

// Match launches as many wanted instances as the offers hold, apps in the
// order given, each spread evenly over the agents. It costs O(log offers) per
// instance of an app without constraints, and O(offers) of one with.
func Match(offers []Offer, wants []Want, set Settings) ([]Launch, []Verdict) {
	left := make([]resource.Resources, len(offers))
	for i, o := range offers {
		left[i] = o.Resources
	}
	var launches []Launch
	verdicts := make([]Verdict, len(wants))
	for w, want := range wants {
		m := newMatcher(want, set)
		used := map[int]bool{}
		refused := map[int][]Reason{}
		for _, l := range m.place(offers, left, refused) {
			l.Want = w
			launches = append(launches, l)
			used[l.Offer] = true
		}
		v := Verdict{Used: len(used)}
		for i := range offers {
			if rs := refused[i]; !used[i] && len(rs) > 0 {
				v.Refusals = append(v.Refusals, Refusal{i, rs})
			}
		}
		verdicts[w] = v
	}
	return launches, verdicts
}

// matcher places the instances of one Want.
type matcher struct {
	want      Want
	set       Settings
	roles     []string
	ports     []int64 // host ports asked for: -1 none, 0 any
	rules     placement.Rules
	anyRegion bool
}

func newMatcher(w Want, set Settings) *matcher {
	m := &matcher{want: w, set: set, roles: w.App.AcceptedResourceRoles, ports: hostPorts(w.App)}
	if len(m.roles) == 0 {
		m.roles = set.DefaultRoles
	}
	// What is reserved for us goes before what others could use too.
	m.roles = slices.SortedFunc(slices.Values(m.roles), func(a, b string) int {
		return cmp.Compare(b2i(a == resource.AnyRole), b2i(b == resource.AnyRole))
	})
	m.rules = placement.Compile(w.App.Constraints, w.Placed)
	m.anyRegion = set.HomeRegion == ""
	for _, c := range w.App.Constraints {
		m.anyRegion = m.anyRegion || c[0] == "@region"
	}
	return m
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// hostPorts lists the host ports a needs, by port index: -1 for none, 0 for
// any.
func hostPorts(a *marathon.App) []int64 {
	var out []int64
	if spec.OnHost(a) {
		for _, d := range a.PortDefinitions {
			if !a.RequirePorts {
				d.Port = 0
			}
			out = append(out, d.Port)
		}
		return out
	}
	if a.Container != nil {
		for _, p := range a.Container.PortMappings {
			if p.HostPort == nil {
				out = append(out, -1)
			} else {
				out = append(out, *p.HostPort)
			}
		}
	}
	return out
}

// candidates is a heap of offers, the best first.
type candidates struct {
	m      *matcher
	offers []Offer
	left   []resource.Resources
	more   map[string]int // instances placed in this round, by agent
	order  []int
}

func (c *candidates) load(i int) int {
	agent := c.offers[i].Agent
	return c.m.want.OnAgent[agent] + c.more[agent]
}

func (c *candidates) better(a, b int) bool {
	return cmp.Or(
		cmp.Compare(c.m.rules.Group(c.offers[a].Place), c.m.rules.Group(c.offers[b].Place)),
		cmp.Compare(c.load(a), c.load(b)),
		cmp.Compare(c.left[b].Scalar(resource.CPUs), c.left[a].Scalar(resource.CPUs)),
		cmp.Compare(a, b),
	) < 0
}

func (c *candidates) Len() int           { return len(c.order) }
func (c *candidates) Less(i, j int) bool { return c.better(c.order[i], c.order[j]) }
func (c *candidates) Swap(i, j int)      { c.order[i], c.order[j] = c.order[j], c.order[i] }
func (c *candidates) Push(x any)         { c.order = append(c.order, x.(int)) }
func (c *candidates) Pop() any {
	last := c.order[len(c.order)-1]
	c.order = c.order[:len(c.order)-1]
	return last
}

// place puts the instances on offers and takes their resources from left.
func (m *matcher) place(offers []Offer, left []resource.Resources, refused map[int][]Reason) []Launch {
	c := &candidates{m: m, offers: offers, left: left, more: map[string]int{}, order: make([]int, len(offers))}
	for i := range offers {
		c.order[i] = i
	}
	heap.Init(c)
	var out []Launch
	for len(out) < m.want.Count && c.Len() > 0 {
		var aside []int // refused by constraints that a later instance may lift
		placed := false
		for c.Len() > 0 && !placed {
			i := heap.Pop(c).(int)
			l, reasons := m.try(offers[i], left[i])
			if len(reasons) > 0 {
				refused[i] = reasons
				if slices.Contains(reasons, UnfulfilledConstraint) {
					aside = append(aside, i)
				}
				continue
			}
			left[i] = left[i].Sub(l.Resources)
			l.Offer = i
			out = append(out, l)
			c.more[offers[i].Agent]++
			m.rules.Add(offers[i].Place)
			heap.Push(c, i)
			placed = true
		}
		if !placed {
			break
		}
		if len(m.rules) > 0 {
			// Groups have grown: every key may have changed.
			c.order = append(c.order, aside...)
			heap.Init(c)
		}
	}
	// What was never looked at because everything found its place is not
	// refused; what is left over after a shortage is.
	return out
}

// try takes one instance's resources from what is left of an offer, or says
// everything that stands against it.
func (m *matcher) try(o Offer, left resource.Resources) (Launch, []Reason) {
	a := m.want.App
	var reasons []Reason
	if !m.roleFits(o.Resources) {
		reasons = append(reasons, UnfulfilledRole)
	}
	if !m.anyRegion && o.Region != m.set.HomeRegion || !m.rules.Accept(o.Place) {
		reasons = append(reasons, UnfulfilledConstraint)
	}
	if o.Maintenance {
		reasons = append(reasons, AgentMaintenance)
	}
	l := Launch{}
	for _, need := range []struct {
		name   string
		amount float64
		reason Reason
	}{
		{resource.CPUs, a.CPUs, InsufficientCpus}, {resource.Mem, a.Mem, InsufficientMemory},
		{resource.Disk, a.Disk, InsufficientDisk}, {resource.GPUs, float64(a.GPUs), InsufficientGpus},
	} {
		taken, rest, ok := left.Take(need.name, resource.Float(need.amount), m.roles...)
		if !ok {
			reasons = append(reasons, need.reason)
			continue
		}
		left = rest
		l.Resources = l.Resources.Add(taken)
	}
	ports, ok := m.pickPorts(left)
	if ok && len(ports.take) > 0 {
		var taken resource.Resources
		if taken, _, ok = left.TakePorts(ports.take, m.roles...); ok {
			l.Resources = l.Resources.Add(taken)
		}
	}
	if !ok {
		reasons = append(reasons, InsufficientPorts)
	}
	l.HostPorts = ports.byIndex
	return l, reasons
}

func (m *matcher) roleFits(rs resource.Resources) bool {
	for it := range rs.All() {
		if slices.Contains(m.roles, it.Role()) {
			return true
		}
	}
	return false
}

type picked struct {
	byIndex []int64
	take    []uint64
}

// pickPorts chooses the host ports: the ones named, and random ones for the
// rest, so that a port is not reused at once.
func (m *matcher) pickPorts(left resource.Resources) (picked, bool) {
	var p picked
	if len(m.ports) == 0 {
		return p, true
	}
	free := left.PortsFor(m.roles...)
	for _, want := range m.ports {
		if want > 0 {
			n := uint64(want)
			if !free.Has(n) {
				return p, false
			}
			free = free.Minus(resource.NewRanges(resource.Range{Begin: n, End: n}))
		}
	}
	for _, want := range m.ports {
		switch {
		case want < 0:
			p.byIndex = append(p.byIndex, 0)
			continue
		case want == 0:
			n := free.Count()
			if n == 0 {
				return p, false
			}
			port := free.At(m.set.Random(n))
			free = free.Minus(resource.NewRanges(resource.Range{Begin: port, End: port}))
			want = int64(port)
		}
		p.byIndex = append(p.byIndex, want)
		p.take = append(p.take, uint64(want))
	}
	return p, true
}
