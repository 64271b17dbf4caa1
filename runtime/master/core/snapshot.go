package core

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/allocator"
	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/master"
	"dcos.example/dcos/runtime/api/wire"
	"dcos.example/dcos/runtime/master/drain"
	"dcos.example/dcos/runtime/master/registry"
	"dcos.example/dcos/runtime/master/session"
	"dcos.example/dcos/runtime/resource"
	"dcos.example/dcos/runtime/task"
)

const (
	maxSubscribers = 1_000
	operatorQueue  = 50_000 // records an operator may be behind
)

// Snapshot is everything readers see, at one moment. It does not change.
type Snapshot struct {
	Info        *mesos.MasterInfo
	Elected     time.Time
	Agents      []AgentView
	Recovered   []*mesos.AgentInfo
	Frameworks  []FrameworkView
	Completed   []FrameworkView
	Operations  []*mesos.Operation // not done, or not acknowledged
	Subscribers int
	Offers      int
	Unreachable int // agents

	version uint64
	once    sync.Once
}

// AgentView is one agent.
type AgentView struct {
	Info                     *mesos.AgentInfo
	Capabilities             []*mesos.AgentInfo_Capability
	Version, PID             string
	Connected                bool
	Active                   bool // connected, and offered
	Drain                    registry.Drain
	Registered, Reregistered time.Time
	Total, Used, Offered     resource.Resources
}

// FrameworkView is one framework with its tasks.
type FrameworkView struct {
	Info                                   *mesos.FrameworkInfo
	Roles                                  []string
	Suppressed                             []string
	Active, Connected, Recovered           bool
	Registered, Reregistered, Unregistered time.Time
	Tasks, Unreachable, Done               []*mesos.Task
	Offers                                 []*mesos.Offer
	InverseOffers                          []*mesos.InverseOffer
	Executors                              []ExecutorView
	Used, Offered                          resource.Resources
}

// ExecutorView is one executor on one agent.
type ExecutorView struct {
	Info  *mesos.ExecutorInfo
	Agent *mesos.AgentID
}

// Snapshot returns the state now. Snapshots are shared by all readers until
// something changes.
func (c *Core) Snapshot() *Snapshot {
	c.mu.Lock()
	s := c.snapshot()
	c.mu.Unlock()
	s.finish()
	return s
}

// finish does what needs no mutex, by whoever wants the snapshot first.
func (s *Snapshot) finish() {
	s.once.Do(func() {
		slices.SortFunc(s.Agents, func(a, b AgentView) int {
			return strings.Compare(a.Info.GetId().GetValue(), b.Info.GetId().GetValue())
		})
		slices.SortFunc(s.Frameworks, func(a, b FrameworkView) int {
			return strings.Compare(a.Info.GetId().GetValue(), b.Info.GetId().GetValue())
		})
	})
}

// snapshot collects; the caller holds mu, and calls finish without it.
func (c *Core) snapshot() *Snapshot {
	if c.cached != nil && c.cached.version == c.version {
		return c.cached
	}
	s := &Snapshot{
		Info: c.Info, Elected: c.Elected,
		Subscribers: len(c.subs), Offers: len(c.offers), version: c.version,
		Unreachable: c.reg.Count(registry.Unreachable),
		Agents:      make([]AgentView, 0, len(c.agents)), Frameworks: make([]FrameworkView, 0, len(c.frameworks)),
	}
	executors := map[task.FrameworkID][]ExecutorView{}
	for _, a := range c.agents {
		s.Agents = append(s.Agents, c.viewOf(a))
		for _, o := range a.operations {
			s.Operations = append(s.Operations, o.proto(o.status))
		}
		for key, e := range a.executors {
			executors[key.framework] = append(executors[key.framework], ExecutorView{e.info, a.info.Id})
		}
	}
	asked := map[task.FrameworkID][]*mesos.InverseOffer{}
	for _, i := range c.inverse {
		asked[i.framework] = append(asked[i.framework], i.view)
	}
	for _, a := range c.recovered {
		s.Recovered = append(s.Recovered, a.Info)
	}
	for _, f := range c.frameworks {
		v := f.view()
		v.Executors, v.InverseOffers = executors[f.id], asked[f.id]
		s.Frameworks = append(s.Frameworks, v)
	}
	for _, f := range c.completed {
		s.Completed = append(s.Completed, f.view())
	}
	c.cached = s
	return s
}

func (c *Core) viewOf(a *agent) AgentView {
	return AgentView{
		Info: a.info, Capabilities: a.capabilities, Version: a.version, PID: a.pid(),
		Connected: a.connected, Active: a.connected && c.offered(a.id), Drain: c.leaving[a.id],
		Registered: a.registered, Reregistered: a.reregistered, Total: a.total,
		Used: a.used.Distinct(), Offered: a.offered.Distinct(),
	}
}

// summary is the framework without its tasks and executors: O(offers).
func (f *framework) summary() FrameworkView {
	v := FrameworkView{
		Info: f.info, Roles: f.roles, Active: f.stream != nil, Connected: f.stream != nil, Recovered: f.recovered,
		Registered: f.registered, Reregistered: f.reregistered, Unregistered: f.unregistered,
		Used: f.used, Offered: f.offered,
	}
	for r, on := range f.suppressed {
		if on {
			v.Suppressed = append(v.Suppressed, r)
		}
	}
	for _, o := range f.offers {
		v.Offers = append(v.Offers, o.view)
	}
	return v
}

// view copies the framework with its tasks, for readers.
func (f *framework) view() FrameworkView {
	v := f.summary()
	v.Done = slices.Clone(f.done)
	v.Tasks = make([]*mesos.Task, 0, len(f.tasks))
	for _, r := range f.tasks {
		if r.state == task.Unreachable {
			v.Unreachable = append(v.Unreachable, r.view)
		} else {
			v.Tasks = append(v.Tasks, r.view)
		}
	}
	return v
}

// Counters returns a copy of the counters.
func (c *Core) Counters() Counters {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.counters)
}

// Stats returns the allocator's.
func (c *Core) Stats() allocator.Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.alloc.Stats()
}

func timeInfo(t time.Time) *mesos.TimeInfo {
	if t.IsZero() {
		return nil
	}
	return &mesos.TimeInfo{Nanoseconds: proto.Int64(t.UnixNano())}
}

// Proto writes the agent as GET_AGENTS and AGENT_ADDED do.
func (v AgentView) Proto() *master.Response_GetAgents_Agent {
	out := &master.Response_GetAgents_Agent{
		AgentInfo: v.Info, Active: proto.Bool(v.Active), Deactivated: proto.Bool(v.Deactivated()), Version: proto.String(v.Version),
		Pid: proto.String(v.PID), RegisteredTime: timeInfo(v.Registered), ReregisteredTime: timeInfo(v.Reregistered),
		TotalResources: v.Total.ProtoBoth(), AllocatedResources: v.Used.ProtoBoth(), OfferedResources: v.Offered.ProtoBoth(),
		Capabilities: v.Capabilities, DrainInfo: v.DrainInfo(),
	}
	if v.Drain.Drains() {
		out.EstimatedDrainStartTime = timeInfo(v.Drain.Since)
	}
	return out
}

// Deactivated reports whether an operator took the agent out of service.
func (v AgentView) Deactivated() bool { return !drain.Offered(v.Drain.State) }

// DrainInfo is the agent's drain, nil if there is none.
func (v AgentView) DrainInfo() *mesos.DrainInfo { return drainInfo(v.Drain) }

// Proto writes the framework as GET_FRAMEWORKS and FRAMEWORK_ADDED do.
func (v FrameworkView) Proto() *master.Response_GetFrameworks_Framework {
	return &master.Response_GetFrameworks_Framework{
		FrameworkInfo: v.Info, Active: proto.Bool(v.Active), Connected: proto.Bool(v.Connected), Recovered: proto.Bool(v.Recovered),
		RegisteredTime: timeInfo(v.Registered), ReregisteredTime: timeInfo(v.Reregistered), UnregisteredTime: timeInfo(v.Unregistered),
		Offers: v.Offers, InverseOffers: v.InverseOffers, AllocatedResources: v.Used.ProtoBoth(), OfferedResources: v.Offered.ProtoBoth(),
	}
}

// publish sends an event to every operator. One that is too slow is dropped.
// The caller holds mu; the message must not change any more.
func (c *Core) publish(e *master.Event) {
	c.version++
	if len(c.subs) == 0 {
		return
	}
	rec := session.NewRecord(e)
	c.subs = slices.DeleteFunc(c.subs, func(s *session.Stream) bool { return !s.SendRecord(rec) })
}

// Watch opens an operator's stream, whose first record is made of first's
// message: events follow without a gap. The oldest stream makes room.
func (c *Core) Watch(format wire.Format, first func(*Snapshot) proto.Message) *session.Stream {
	c.mu.Lock()
	defer c.mu.Unlock()
	snap := c.snapshot()
	s := session.New(format, operatorQueue)
	s.SendRecord(session.NewLazyRecord(func() proto.Message { snap.finish(); return first(snap) }))
	if len(c.subs) >= maxSubscribers {
		c.subs[0].Close("too many subscribers")
		c.subs = c.subs[1:]
	}
	if err := c.ended("watch"); err != nil {
		s.Close(err.Error())
		return s
	}
	c.subs = append(c.subs, s)
	c.version++
	return s
}

// Unwatch forgets an operator's stream.
func (c *Core) Unwatch(s *session.Stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.subs = slices.DeleteFunc(c.subs, func(x *session.Stream) bool { return x == s })
	c.version++
}
