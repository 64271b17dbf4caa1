// Package core is what a leading master knows: agents, frameworks, offers and
// tasks, under one mutex. Nothing here waits while it holds the mutex: messages
// go to bounded queues (package session), the store is written before or after,
// and readers take a Snapshot of values that do not change any more.
//
// Order of writing: the registry first, then memory, then the news to others;
// a master that dies in between leaves nothing that its successor contradicts.
//
// Cost: a status update or launch is O(1) map work and some microseconds; a
// snapshot is one pass over pointers (100,000 tasks: some milliseconds under
// the mutex, kept until something changes); a liveness sweep is O(agents) a
// second; an offer costs what the allocator states. 10,000 agents and 100,000
// tasks take about 300 MB.
package core

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/allocator"
	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/master/registry"
	"dcos.example/dcos/runtime/master/session"
	"dcos.example/dcos/runtime/resource"
	"dcos.example/dcos/runtime/task"
)

// Heartbeat is how often schedulers and operators hear from the master.
const Heartbeat = 15 * time.Second

const (
	frameworkQueue = 200_000 // records a scheduler may be behind
	agentQueue     = 200_000
	maxCompleted   = 50    // completed frameworks shown
	maxDone        = 1_000 // completed tasks shown a framework
)

// Config is what the core needs to know about time and itself.
type Config struct {
	Info       *mesos.MasterInfo // without id, which is made for each term
	Ping       time.Duration     // between pings to agents
	Missed     int               // pings an agent may miss
	Reregister time.Duration     // agents may take to come back after a fail-over
	Now        func() time.Time
}

// Core is the soft state of one term of leadership.
type Core struct {
	cfg Config
	log *slog.Logger
	reg *registry.Registry

	Info    *mesos.MasterInfo
	Elected time.Time

	kick    chan struct{} // one token: the allocator may have something to do
	emptied chan struct{} // one token: a draining agent has no tasks left

	mu         sync.Mutex
	over       bool // the term has ended: no new streams
	alloc      *allocator.Allocator
	agents     map[task.AgentID]*agent
	endpoints  map[string]task.AgentID
	recovered  map[task.AgentID]registry.Agent // known to the last leader, not back yet
	frameworks map[task.FrameworkID]*framework
	completed  []*framework // newest last
	offers     map[task.OfferID]*offer
	leaving    map[task.AgentID]registry.Drain // agents that are not active, in touch or not
	machines   map[machineKey]*machine         // of the maintenance schedule
	inverse    map[task.OfferID]*inverse
	inverseOf  map[inverseKey]*inverse
	away       map[task.AgentID]map[taskKey]*record // tasks of unreachable agents
	unacked    map[*operation]bool                  // told to their framework, not acknowledged
	stale      map[task.AgentID]bool                // agents whose document can be made smaller
	subs       []*session.Stream                    // operators, oldest first
	numbers    struct{ agent, framework, offer uint64 }
	counters   Counters
	version    uint64 // grows with every change a snapshot shows
	cached     *Snapshot
}

// Counters count since the term began, by their names in /metrics/snapshot
// without "master/".
type Counters map[string]uint64

type agent struct {
	id           task.AgentID
	info         *mesos.AgentInfo
	capabilities []*mesos.AgentInfo_Capability
	version      string
	endpoint     string
	stream       *session.Stream
	connected    bool
	lastSeen     time.Time
	registered   time.Time
	reregistered time.Time
	total        resource.Resources
	used         resource.Resources // by tasks and executors
	offered      resource.Resources
	tasks        map[taskKey]*record
	executors    map[executorKey]*executor
	offers       map[task.OfferID]*offer
	operations   map[string]*operation // by uuid
	document     document
}

type executorKey struct {
	framework task.FrameworkID
	id        task.ExecutorID
}

type executor struct {
	info *mesos.ExecutorInfo
	res  resource.Resources
}

type taskKey struct {
	framework task.FrameworkID
	id        task.ID
}

// record is one task. view is replaced, never changed, so that snapshots may
// keep it.
type record struct {
	key     taskKey
	view    *mesos.Task
	state   task.State // that of view
	agent   task.AgentID
	res     resource.Resources // allocated; empty once released
	held    bool               // res counts as used
	unacked *mesos.TaskStatus  // newest update that the framework has not acknowledged
	killed  *mesos.KillPolicy  // a kill was asked for
	kill    bool
	drained bool      // the kill of its agent's drain was sent
	since   time.Time // of being unreachable
}

type offer struct {
	id        task.OfferID
	framework *framework
	role      string
	agent     *agent
	res       resource.Resources
	view      *mesos.Offer // as sent
}

// New returns the core of a new term over the registry.
func New(cfg Config, reg *registry.Registry, log *slog.Logger) *Core {
	now := cfg.Now()
	c := &Core{
		cfg: cfg, log: log, reg: reg, Elected: now, kick: make(chan struct{}, 1), emptied: make(chan struct{}, 1),
		alloc:  allocator.New(allocator.Options{}),
		agents: map[task.AgentID]*agent{}, endpoints: map[string]task.AgentID{}, recovered: map[task.AgentID]registry.Agent{},
		frameworks: map[task.FrameworkID]*framework{}, offers: map[task.OfferID]*offer{},
		away: map[task.AgentID]map[taskKey]*record{}, counters: Counters{},
		unacked: map[*operation]bool{}, stale: map[task.AgentID]bool{},
		leaving: reg.Drained(), inverse: map[task.OfferID]*inverse{}, inverseOf: map[inverseKey]*inverse{},
	}
	c.Info = proto.CloneOf(cfg.Info)
	c.Info.Id = proto.String(uuid.NewString())
	c.loadMaintenance()
	for id, a := range reg.Agents() {
		if a.Standing == registry.Admitted {
			c.recovered[task.AgentID(id)] = a
		}
	}
	for id, f := range reg.Frameworks() {
		if f.Removed == nil {
			fw := c.addFramework(task.FrameworkID(id), f.Info, f.Registered)
			fw.deadline = now.Add(max(failoverTimeout(f.Info), cfg.Reregister))
		}
	}
	return c
}

// Run drives time and the allocator until ctx ends; then it ends all streams.
// It may be called once.
func (c *Core) Run(ctx context.Context) {
	defer c.close()
	sweep := time.NewTicker(min(time.Second, max(c.cfg.Ping, 10*time.Millisecond)))
	defer sweep.Stop()
	wake := time.NewTimer(time.Hour)
	defer wake.Stop()
	for {
		if next := c.allocate(); !next.IsZero() {
			wake.Reset(max(time.Millisecond, next.Sub(c.cfg.Now())))
		}
		select {
		case <-ctx.Done():
			return
		case <-c.kick:
		case <-wake.C:
		case <-c.emptied:
			c.sweepDrains(ctx)
		case <-sweep.C:
			c.sweep(ctx)
			c.sweepDrains(ctx)
			c.sweepOperations()
		}
	}
}

func (c *Core) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	for _, a := range c.agents {
		if a.stream != nil {
			a.stream.Close("master lost leadership")
		}
	}
	for _, f := range c.frameworks {
		if f.stream != nil {
			f.stream.Close("master lost leadership")
		}
	}
	for _, s := range c.subs {
		s.Close("master lost leadership")
	}
}

// ended is fault.Unavailable once the term is over. The caller holds mu.
func (c *Core) ended(op string) error {
	if c.over {
		return fault.Newf(op, fault.Unavailable, "this master does not lead any more")
	}
	return nil
}

// changed notes that snapshots are out of date and the allocator may have work.
// The caller holds mu.
func (c *Core) changed() {
	c.version++
	if c.alloc.Pending() {
		select {
		case c.kick <- struct{}{}:
		default:
		}
	}
}

// allocate runs the allocator and sends the offers it made.
func (c *Core) allocate() (next time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	made, next := c.alloc.Allocate(c.cfg.Now())
	if len(made) == 0 {
		return next
	}
	c.version++
	byFramework := map[*framework][]*mesos.Offer{}
	for _, m := range made {
		f, a := c.frameworks[m.Framework], c.agents[m.Agent]
		if f == nil || a == nil || f.stream == nil {
			c.alloc.Recover(c.cfg.Now(), m.Agent, m.Framework, m.Resources, allocator.Refusal{})
			continue
		}
		o := c.newOffer(f, a, m)
		byFramework[f] = append(byFramework[f], o.view)
	}
	for f, views := range byFramework {
		f.sendOffers(views)
		c.counters["frameworks/"+string(f.id)+"/offers/sent"] += uint64(len(views))
	}
	return next
}

func (c *Core) newOffer(f *framework, a *agent, m allocator.Offer) *offer {
	o := &offer{
		id:        task.OfferID(fmt.Sprintf("%s-O%d", c.Info.GetId(), c.numbers.offer)),
		framework: f, role: m.Role, agent: a, res: m.Resources,
	}
	c.numbers.offer++
	o.view = &mesos.Offer{
		Id:          &mesos.OfferID{Value: proto.String(string(o.id))},
		FrameworkId: f.info.Id,
		AgentId:     a.info.Id,
		Hostname:    a.info.Hostname,
		Url:         a.url(),
		Domain:      a.info.Domain,
		Resources:   f.resources(m.Resources),
		Attributes:  a.info.Attributes,
	}
	if m := c.machineOf(a); m != nil {
		o.view.Unavailability = m.unavailability
	}
	for key, e := range a.executors {
		if key.framework == f.id {
			o.view.ExecutorIds = append(o.view.ExecutorIds, e.info.ExecutorId)
		}
	}
	if f.multiRole {
		o.view.AllocationInfo = &mesos.Resource_AllocationInfo{Role: proto.String(m.Role)}
	}
	c.offers[o.id], a.offers[o.id], f.offers[o.id] = o, o, o
	a.offered = a.offered.Add(m.Resources)
	f.offered = f.offered.Add(scalars(m.Resources))
	return o
}

// dropOffer forgets the offer; what becomes of its resources is the caller's.
func (c *Core) dropOffer(o *offer) {
	delete(c.offers, o.id)
	delete(o.agent.offers, o.id)
	delete(o.framework.offers, o.id)
	o.agent.offered = o.agent.offered.Sub(o.res)
	o.framework.offered = o.framework.offered.Sub(scalars(o.res))
}

// rescind takes the offer back and tells the framework.
func (c *Core) rescind(o *offer) {
	c.dropOffer(o)
	c.alloc.Recover(c.cfg.Now(), o.agent.id, o.framework.id, o.res, allocator.Refusal{})
	o.framework.sendRescind(o.id)
	c.counters["frameworks/"+string(o.framework.id)+"/offers/rescinded"]++
}
