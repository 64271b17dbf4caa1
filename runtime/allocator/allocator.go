// Package allocator decides who is offered what: hierarchical dominant
// resource fairness over a tree of roles, with memory of who has turned an
// agent's resources down.
//
// It is pure state and functions: no clock, no goroutine, no locks. Time comes
// in as an argument. The caller feeds every change and calls Allocate when
// something may have become offerable; only agents that changed are looked at.
//
// Fairness differs from Mesos in one point. Mesos offers an agent to the client
// with the lowest share whether or not it has just declined that same agent,
// so clients with nothing to run keep those with work from ever seeing an
// offer. Here an agent's resources go to every client that has not turned them
// down, in the order of shares, before anybody sees them again; after a full
// round without a taker the agent rests for Options.Interval between offers,
// which bounds the traffic of idle frameworks as Mesos' batch interval does.
//
// What is reserved is offered to its role and the roles below it only, ranked
// like everything else. Shared volumes are part of each offer to whoever may use
// them, as often as there are offers, and count towards nobody's share.
//
// Cost, with C clients (framework × role), A agents: an offer is O(depth·log C)
// comparisons plus a memory move of at most 8·C bytes; an agent that nobody
// wants is O(C) bit tests; an agent that did not change is free. Memory is C
// bits per agent and 48 bytes per remembered refusal.
package allocator

import (
	"slices"
	"time"

	"dcos.example/dcos/runtime/resource"
	"dcos.example/dcos/runtime/task"
)

// Options tune an Allocator; the zero value means the defaults.
type Options struct {
	// Interval is how long an agent that everybody has turned down rests
	// between offers, and how long a client waits at least before it sees the
	// same resources again. Default 1 s.
	Interval time.Duration
	// MinCPUs, MinMem: less than both is not worth an offer. Defaults 0.01, 32.
	MinCPUs, MinMem resource.Fixed
}

// Agent is what the allocator needs to know of an agent.
type Agent struct {
	ID    task.AgentID
	Total resource.Resources
	// Remote agents are in another region than the master: only region-aware
	// frameworks see them.
	Remote bool
}

// Framework is what the allocator needs to know of a framework.
type Framework struct {
	ID         task.FrameworkID
	Roles      []string
	Suppressed []string // of Roles: no offers until revived

	Revocable, GPU, Shared, Refinement, RegionAware bool // its capabilities

	// Accepts, when set, says whether tasks of role may be offered the agent
	// at all (offer constraints). It must be pure.
	Accepts func(role string, agent task.AgentID) bool
}

// Offer is a decision: resources of one agent for one framework, allocated to
// one of its roles. They count as used until recovered.
type Offer struct {
	Framework task.FrameworkID
	Role      string
	Agent     task.AgentID
	Resources resource.Resources // marked as allocated to Role
}

// Refusal says how resources of an offer come back.
type Refusal struct {
	// For is how long the framework does not want to see them again.
	For time.Duration
	// Pass is set when the framework used nothing of the offer: others go
	// before it.
	Pass bool
}

// Allocator holds the view that decisions are made on.
type Allocator struct {
	opt        Options
	names      []string         // scalar resource names, position is the dimension
	total      []resource.Fixed // of all agents
	root       *node
	roles      map[string]*node
	weights    map[string]float64
	stale      bool // shares and orders in the tree are out of date
	frameworks map[task.FrameworkID]*framework
	clients    []*client // by index; nil: free
	agents     map[task.AgentID]*agent
	order      []*agent
	dirty      []*agent
	allDirty   bool
	wakes      wakeHeap
	seq        uint64
	runs       uint64
}

type framework struct {
	Framework
	active  bool
	clients []*client
}

// client is one framework in one role: what DRF ranks.
type client struct {
	idx        int32
	fw         *framework
	role       string
	leaf       *node
	suppressed bool
}

// New returns an empty Allocator.
func New(opt Options) *Allocator {
	if opt.Interval == 0 {
		opt.Interval = time.Second
	}
	if opt.MinCPUs == 0 {
		opt.MinCPUs = 10
	}
	if opt.MinMem == 0 {
		opt.MinMem = 32 * resource.Unit
	}
	return &Allocator{
		opt: opt, root: &node{}, roles: map[string]*node{}, weights: map[string]float64{},
		frameworks: map[task.FrameworkID]*framework{}, agents: map[task.AgentID]*agent{},
	}
}

// AddFramework adds f, or replaces what is known of it. An inactive framework
// keeps what it uses but gets no offers.
func (a *Allocator) AddFramework(f Framework, active bool) {
	fw := a.frameworks[f.ID]
	if fw == nil {
		fw = &framework{}
		a.frameworks[f.ID] = fw
	}
	fw.Framework, fw.active = f, active
	for _, role := range f.Roles {
		c := fw.client(role)
		if c == nil {
			c = a.addClient(fw, role)
		}
		c.suppressed = slices.Contains(f.Suppressed, role)
	}
	for _, c := range slices.Clone(fw.clients) {
		if !slices.Contains(f.Roles, c.role) {
			c.suppressed = true // stays while it uses something there
			if a.unused(c) {
				a.removeClient(c)
				continue
			}
		}
		a.refresh(c)
	}
}

// RemoveFramework forgets f and frees all it used.
func (a *Allocator) RemoveFramework(id task.FrameworkID) {
	fw := a.frameworks[id]
	if fw == nil {
		return
	}
	for _, c := range slices.Clone(fw.clients) {
		for _, ag := range a.order {
			if r := ag.held(c); !r.Empty() {
				a.release(ag, c, r)
			}
		}
		a.removeClient(c)
	}
	delete(a.frameworks, id)
}

// SetActive starts or stops offers to the framework.
func (a *Allocator) SetActive(id task.FrameworkID, active bool) {
	if fw := a.frameworks[id]; fw != nil {
		fw.active = active
		for _, c := range fw.clients {
			a.refresh(c)
		}
	}
}

// Suppress stops offers to the framework for roles, or all its roles.
func (a *Allocator) Suppress(id task.FrameworkID, roles ...string) {
	a.eachClient(id, roles, func(c *client) {
		c.suppressed = true
		a.refresh(c)
	})
}

// Revive undoes Suppress and forgets what the framework turned down, for roles
// or all its roles.
func (a *Allocator) Revive(id task.FrameworkID, roles ...string) {
	a.eachClient(id, roles, func(c *client) {
		c.suppressed = false
		for _, ag := range a.order {
			ag.blocked.clear(c.idx)
		}
		a.refresh(c)
		a.allDirty = true
	})
}

func (a *Allocator) eachClient(id task.FrameworkID, roles []string, f func(*client)) {
	fw := a.frameworks[id]
	if fw == nil {
		return
	}
	for _, c := range fw.clients {
		if (len(roles) == 0 || slices.Contains(roles, c.role)) && slices.Contains(fw.Roles, c.role) {
			f(c)
		}
	}
}

// SetWeight sets the weight of a role path; the default is 1.
func (a *Allocator) SetWeight(role string, weight float64) {
	a.weights[role] = weight
	if n := a.roles[role]; n != nil {
		n.weight = weight
	}
	a.stale = true
}

func (fw *framework) client(role string) *client {
	for _, c := range fw.clients {
		if c.role == role {
			return c
		}
	}
	return nil
}

func (a *Allocator) addClient(fw *framework, role string) *client {
	c := &client{idx: -1, fw: fw, role: role}
	if i := slices.Index(a.clients, nil); i >= 0 {
		c.idx, a.clients[i] = int32(i), c
	} else {
		c.idx = int32(len(a.clients))
		a.clients = append(a.clients, c)
	}
	c.leaf = &node{name: string(fw.ID), parent: a.virtualLeaf(role), weight: 1, client: c}
	fw.clients = append(fw.clients, c)
	return c
}

func (a *Allocator) removeClient(c *client) {
	a.deactivate(c.leaf)
	for _, ag := range a.order {
		ag.blocked.clear(c.idx)
	}
	a.clients[c.idx] = nil
	c.fw.clients = slices.DeleteFunc(c.fw.clients, func(x *client) bool { return x == c })
}

func (a *Allocator) unused(c *client) bool {
	return !slices.ContainsFunc(a.order, func(ag *agent) bool { return !ag.held(c).Empty() })
}

// refresh puts c in or out of the order of those who get offers.
func (a *Allocator) refresh(c *client) {
	if c.fw.active && !c.suppressed {
		if !c.leaf.active {
			a.activate(c.leaf)
			a.allDirty = true
		}
		return
	}
	a.deactivate(c.leaf)
}
