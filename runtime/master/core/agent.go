package core

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/allocator"
	"dcos.example/dcos/runtime/api/agentlink"
	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/master"
	"dcos.example/dcos/runtime/api/mesos/scheduler"
	"dcos.example/dcos/runtime/api/wire"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/master/registry"
	"dcos.example/dcos/runtime/master/session"
	"dcos.example/dcos/runtime/resource"
	"dcos.example/dcos/runtime/task"
)

func (a *agent) send(d *agentlink.Downlink) bool { return a.stream != nil && a.stream.Send(d) }

// pid is the agent's address in the form that old clients parse.
func (a *agent) pid() string { return "slave(1)@" + a.endpoint }

func (a *agent) url() *mesos.URL {
	host, port, err := net.SplitHostPort(a.endpoint)
	if err != nil {
		return nil
	}
	n, err := strconv.ParseInt(port, 10, 32)
	if err != nil {
		return nil
	}
	return &mesos.URL{
		Scheme:  proto.String("http"),
		Address: &mesos.Address{Hostname: a.info.Hostname, Ip: proto.String(host), Port: proto.Int32(int32(n))},
		Path:    proto.String("/slave(1)"),
	}
}

func (a *agent) hasFramework(id task.FrameworkID) bool {
	for key := range a.tasks {
		if key.framework == id {
			return true
		}
	}
	for key := range a.executors {
		if key.framework == id {
			return true
		}
	}
	return false
}

// PingDownlink is what an agent's stream repeats.
func PingDownlink() *agentlink.Downlink { return &agentlink.Downlink{Ping: &agentlink.Ping{}} }

// totalOf returns what the agent has: its configured resources with dynamic
// reservations and volumes that it has on disk. missing is what these were made
// of that the configuration has no more; they hold all the same.
func totalOf(sub *agentlink.Subscribe) (total, missing resource.Resources, err error) {
	configured, err := resource.FromProto(sub.GetAgent().GetResources())
	if err != nil {
		return total, missing, err
	}
	kept, err := resource.FromProto(sub.CheckpointedResources)
	if err != nil {
		return total, missing, err
	}
	was := kept.Configured()
	return configured.Sub(was).Add(kept.Unallocate()), was.Sub(configured), nil
}

// SubscribeAgent admits an agent and opens its stream. An agent that may not
// go on under its id gets a stream that tells it so and ends.
func (c *Core) SubscribeAgent(ctx context.Context, sub *agentlink.Subscribe) (task.AgentID, *session.Stream, error) {
	const op = "subscribe agent"
	now := c.cfg.Now()
	total, missing, err := totalOf(sub)
	if err != nil {
		return "", nil, fault.New(op, fault.Invalid, err)
	}
	info := proto.CloneOf(sub.GetAgent())
	id := task.AgentID(info.GetId().GetValue())
	stream := session.New(wire.Protobuf, agentQueue)
	if id == "" {
		id = c.newAgentID()
		info.Id = &mesos.AgentID{Value: proto.String(string(id))}
	}
	if c.isDown(info.GetHostname(), sub.GetEndpoint()) {
		return "", nil, fault.Newf(op, fault.Unavailable, "the machine is down for maintenance")
	}
	if !c.atHome(id, sub.GetEndpoint()) {
		return "", nil, fault.Newf(op, fault.Denied, "agent %s is registered at another address", id)
	}
	if err := c.reg.Admit(ctx, now, info, sub.GetVersion()); fault.Is(err, fault.Denied) {
		stream.Send(c.registered(info.Id)) // always the first record
		stream.Send(&agentlink.Downlink{Shutdown: &agentlink.Shutdown{Message: proto.String("agent was marked gone")}})
		stream.Close("agent was marked gone")
		return id, stream, nil
	} else if err != nil {
		return "", nil, err
	}
	for _, f := range sub.Frameworks { // those that no leader has stored yet
		if _, known := c.reg.Framework(task.FrameworkID(f.GetId().GetValue())); !known && f.GetId().GetValue() != "" {
			if err := c.reg.PutFramework(ctx, now, f); err != nil {
				return "", nil, err
			}
		}
	}
	stale := c.staleAgents(id, sub.GetEndpoint())
	if err := c.reg.SetStanding(ctx, now, registry.Gone, stale...); err != nil {
		return "", nil, err
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.ended(op); err != nil {
		return "", nil, err
	}
	for _, old := range stale {
		c.log.Info("agent was replaced on its host", "agent", old, "by", id)
		c.counters["slave_removals/reason_registered"]++
		c.removeAgent(old, task.Gone, mesos.TaskStatus_REASON_AGENT_REMOVED, "A new agent registered at the same address")
		c.refreshDrain(old)
	}
	a, known := c.agents[id]
	if known {
		if a.stream != nil {
			a.stream.Close("replaced by a newer connection")
		}
		for _, o := range a.offers {
			c.rescind(o)
		}
		a.reregistered = now
		c.counters["slave_reregistrations"]++
	} else {
		a = &agent{
			id: id, registered: now,
			tasks: map[taskKey]*record{}, executors: map[executorKey]*executor{}, offers: map[task.OfferID]*offer{},
			operations: map[string]*operation{},
		}
		if r, back := c.recovered[id]; back {
			a.registered, a.reregistered = r.Since, now
			delete(c.recovered, id)
			c.counters["slave_reregistrations"]++
		} else {
			c.counters["slave_registrations"]++
		}
		c.agents[id] = a
	}
	a.info, a.total, a.version, a.endpoint, a.capabilities = info, total, sub.GetVersion(), sub.GetEndpoint(), sub.Capabilities
	a.stream, a.connected, a.lastSeen = stream, true, now
	c.endpoints[a.endpoint] = id
	c.alloc.AddAgent(allocator.Agent{ID: id, Total: total, Remote: c.remote(info)})
	c.offerOrNot(a)
	a.send(c.registered(info.Id))
	c.adopt(a, sub)
	c.adoptOperations(a, sub)
	c.drainTasks(a)
	c.maybeEmptied(a)
	c.syncInverse(id)
	if !known {
		c.publish(&master.Event{Type: master.Event_AGENT_ADDED.Enum(), AgentAdded: &master.Event_AgentAdded{Agent: c.viewOf(a).Proto()}})
	}
	if !missing.Empty() {
		c.log.Warn("an agent's configuration lacks what is reserved on it", "agent", id, "missing", missing)
	}
	c.log.Info("agent subscribed", "agent", id, "host", info.GetHostname(), "tasks", len(sub.Tasks), "new", !known)
	c.changed()
	return id, stream, nil
}

// atHome reports whether agent id, if it is registered, was at the host of
// endpoint before. Else any agent could take over another's tasks by its id.
func (c *Core) atHome(id task.AgentID, endpoint string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, ok := c.agents[id]
	if !ok || a.endpoint == "" || a.endpoint == endpoint {
		return true
	}
	was, err1 := netip.ParseAddrPort(a.endpoint)
	is, err2 := netip.ParseAddrPort(endpoint)
	return err1 == nil && err2 == nil && was.Addr() == is.Addr()
}

func (c *Core) registered(id *mesos.AgentID) *agentlink.Downlink {
	return &agentlink.Downlink{Registered: &agentlink.Registered{
		AgentId: id, MasterId: c.Info.Id,
		PingSeconds: proto.Float64(c.cfg.Ping.Seconds()), MissedPings: proto.Uint32(uint32(c.cfg.Missed)),
	}}
}

func (c *Core) newAgentID() task.AgentID {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := task.AgentID(fmt.Sprintf("%s-S%d", c.Info.GetId(), c.numbers.agent))
	c.numbers.agent++
	return id
}

// remote reports whether the agent is in another region than the master.
func (c *Core) remote(info *mesos.AgentInfo) bool {
	mine, its := c.Info.GetDomain().GetFaultDomain(), info.GetDomain().GetFaultDomain()
	return mine != nil && its != nil && mine.GetRegion().GetName() != its.GetRegion().GetName()
}

// staleAgents returns other agents that were at endpoint: their host lost its
// memory and is here again under id.
func (c *Core) staleAgents(id task.AgentID, endpoint string) []task.AgentID {
	if endpoint == "" {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if old, ok := c.endpoints[endpoint]; ok && old != id && c.agents[old] != nil {
		return []task.AgentID{old}
	}
	return nil
}

// adopt makes the master's view of a's tasks that of the agent.
func (c *Core) adopt(a *agent, sub *agentlink.Subscribe) {
	seen := map[taskKey]bool{}
	shut := map[task.FrameworkID]bool{}
	for _, t := range sub.Tasks {
		key := taskKey{task.FrameworkID(t.GetFrameworkId().GetValue()), task.ID(t.GetTaskId().GetValue())}
		f := c.frameworks[key.framework]
		if f == nil {
			stored, known := c.reg.Framework(key.framework)
			if !known || stored.Removed != nil {
				if !shut[key.framework] {
					shut[key.framework] = true
					a.send(&agentlink.Downlink{ShutdownFramework: &agentlink.ShutdownFramework{FrameworkId: t.FrameworkId}})
				}
				continue
			}
			f = c.addFramework(key.framework, stored.Info, stored.Registered)
			f.deadline = c.cfg.Now().Add(max(failoverTimeout(stored.Info), c.cfg.Reregister))
		}
		seen[key] = true
		c.adoptTask(a, f, key, t)
	}
	for key, r := range a.tasks {
		if seen[key] || task.Terminal(r.state) {
			continue
		}
		c.end(r, task.Dropped, mesos.TaskStatus_REASON_RECONCILIATION, "Task is unknown to the agent")
	}
	for key, r := range c.away[a.id] {
		if !seen[key] {
			c.end(r, task.Gone, mesos.TaskStatus_REASON_AGENT_REREGISTERED, "Agent is back without the task")
		}
	}
	delete(c.away, a.id)
}

// end gives a task its last state, at the master's word.
func (c *Core) end(r *record, st task.State, reason mesos.TaskStatus_Reason, message string) {
	f := c.frameworks[r.key.framework]
	s := c.status(r.key.id, r.agent, st, reason, message)
	c.setState(f, r, s)
	f.sendUpdate(s)
	c.forget(f, r)
}

func (c *Core) adoptTask(a *agent, f *framework, key taskKey, t *mesos.Task) {
	r := f.tasks[key.id]
	if r == nil {
		res, err := resource.FromProto(t.Resources)
		if err != nil {
			c.log.Warn("agent reports a task with invalid resources", "agent", a.id, "task", key.id, "err", err)
			return
		}
		if len(res.AllocationRoles()) == 0 && len(f.roles) > 0 {
			res = res.Allocate(f.roles[0])
		}
		t.Resources = res.Proto()
		r = &record{key: key, view: t, state: t.GetState(), agent: a.id, res: res}
		f.tasks[key.id], a.tasks[key] = r, r
		if !task.Terminal(t.GetState()) {
			c.hold(a, f, r)
		}
		c.publish(&master.Event{Type: master.Event_TASK_ADDED.Enum(), TaskAdded: &master.Event_TaskAdded{Task: t}})
		return
	}
	if r.agent != a.id {
		c.log.Warn("two agents report one task", "task", key.id, "framework", key.framework, "agent", a.id, "other", r.agent)
		return
	}
	a.tasks[key] = r
	was := r.state
	if task.Follows(was, t.GetState()) && was != t.GetState() || was == task.Unreachable {
		s := c.status(key.id, a.id, t.GetState(), mesos.TaskStatus_REASON_AGENT_REREGISTERED, "Agent re-registered")
		if n := len(t.Statuses); n > 0 {
			last := t.Statuses[n-1]
			s.Healthy, s.ContainerStatus, s.CheckStatus, s.Labels, s.ExecutorId = last.Healthy, last.ContainerStatus, last.CheckStatus, last.Labels, last.ExecutorId
		}
		c.setState(f, r, s)
		if was == task.Unreachable {
			f.sendUpdate(s)
		}
	}
	if r.kill && !task.Terminal(r.state) {
		a.send(killTask(r))
	}
}

// AgentDisconnected notes that stream has ended: no more offers of the agent,
// and it is unreachable unless it is back in time.
func (c *Core) AgentDisconnected(id task.AgentID, stream *session.Stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.agents[id]
	if a == nil || a.stream != stream {
		return
	}
	a.stream, a.connected, a.lastSeen = nil, false, c.cfg.Now()
	c.offerOrNot(a)
	c.log.Info("agent disconnected", "agent", id, "host", a.info.GetHostname(), "reason", stream.Reason())
	c.changed()
}

// sweep acts on what only time tells: agents that are silent, agents that did
// not come back after a fail-over, frameworks whose failover timeout is over.
func (c *Core) sweep(ctx context.Context) {
	now := c.cfg.Now()
	patience := c.cfg.Ping * time.Duration(c.cfg.Missed)
	var silent []task.AgentID
	var overdue []task.FrameworkID
	c.mu.Lock()
	for id, a := range c.agents {
		if now.Sub(a.lastSeen) >= patience {
			silent = append(silent, id)
		}
	}
	if now.Sub(c.Elected) >= c.cfg.Reregister {
		for id := range c.recovered {
			silent = append(silent, id)
		}
	}
	for id, f := range c.frameworks {
		if f.stream == nil && !now.Before(f.deadline) {
			overdue = append(overdue, id)
		}
	}
	c.mu.Unlock()

	if len(silent) > 0 {
		if err := c.reg.SetStanding(ctx, now, registry.Unreachable, silent...); err != nil {
			c.log.Error("mark agents unreachable", "err", err) // the next sweep tries again
		} else {
			c.unreachable(ctx, silent, now, patience)
		}
	}
	for _, id := range overdue {
		if !c.frameworkOverdue(id, now) {
			continue
		}
		if err := c.RemoveFramework(ctx, id); err != nil && !fault.Is(err, fault.NotFound) {
			c.log.Error("remove framework", "framework", id, "err", err)
		}
	}
}

func (c *Core) frameworkOverdue(id task.FrameworkID, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.frameworks[id]
	return f != nil && f.stream == nil && !now.Before(f.deadline)
}

// unreachable removes agents that the registry now holds as unreachable. One
// that came back meanwhile is admitted again.
func (c *Core) unreachable(ctx context.Context, ids []task.AgentID, now time.Time, patience time.Duration) {
	var back []*agent
	c.mu.Lock()
	for _, id := range ids {
		if a := c.agents[id]; a != nil && now.Sub(a.lastSeen) < patience {
			back = append(back, a)
			continue
		}
		if _, ok := c.recovered[id]; ok {
			delete(c.recovered, id)
			c.counters["recovery_slave_removals"]++
			c.publishAgentRemoved(id)
			continue
		}
		c.log.Warn("agent is unreachable", "agent", id, "after", patience)
		c.counters["slave_unreachable_completed"]++
		c.counters["slave_removals/reason_unhealthy"]++
		c.removeAgent(id, task.Unreachable, mesos.TaskStatus_REASON_AGENT_REMOVED, "Agent is unreachable")
	}
	c.changed()
	c.mu.Unlock()
	for _, a := range back {
		if err := c.reg.Admit(ctx, now, a.info, a.version); err != nil {
			c.log.Error("admit agent again", "agent", a.id, "err", err)
		}
	}
}

// removeAgent takes the agent out of memory; its tasks become state. The
// caller holds mu and has written the registry.
func (c *Core) removeAgent(id task.AgentID, st task.State, reason mesos.TaskStatus_Reason, message string) {
	a := c.agents[id]
	if a == nil {
		return
	}
	c.counters["slave_removals"]++
	if a.stream != nil {
		a.stream.Close(message)
	}
	for _, o := range a.offers {
		c.rescind(o)
	}
	for _, r := range a.tasks {
		f := c.frameworks[r.key.framework]
		if task.Terminal(r.state) {
			c.forget(f, r) // its acknowledgement can go nowhere
			continue
		}
		if task.Terminal(st) {
			c.end(r, st, reason, message)
			continue
		}
		s := c.status(r.key.id, id, st, reason, message)
		r.since = c.cfg.Now()
		s.UnreachableTime = &mesos.TimeInfo{Nanoseconds: proto.Int64(r.since.UnixNano())}
		c.setState(f, r, s)
		f.sendUpdate(s)
		if c.away[id] == nil {
			c.away[id] = map[taskKey]*record{}
		}
		c.away[id][r.key] = r
	}
	for key := range a.executors {
		c.removeExecutor(a, key)
	}
	c.abandonOperations(a, st, message)
	delete(c.agents, id)
	if c.endpoints[a.endpoint] == id {
		delete(c.endpoints, a.endpoint)
	}
	c.alloc.RemoveAgent(id)
	for _, f := range c.frameworks {
		f.send(&scheduler.Event{Type: scheduler.Event_FAILURE.Enum(), Failure: &scheduler.Event_Failure{AgentId: a.info.Id}})
	}
	c.publishAgentRemoved(id)
	c.syncInverse(id)
}

func (c *Core) publishAgentRemoved(id task.AgentID) {
	c.publish(&master.Event{Type: master.Event_AGENT_REMOVED.Enum(), AgentRemoved: &master.Event_AgentRemoved{AgentId: &mesos.AgentID{Value: proto.String(string(id))}}})
}

// MarkGone removes an agent for good, by an operator's word.
func (c *Core) MarkGone(ctx context.Context, id task.AgentID) error {
	if s, _ := c.reg.Standing(id); s == "" {
		return fault.Newf("mark agent gone", fault.NotFound, "Agent '%s' not found", id)
	}
	if err := c.reg.SetStanding(ctx, c.cfg.Now(), registry.Gone, id); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.retire(id, task.GoneByOperator, mesos.TaskStatus_REASON_AGENT_REMOVED_BY_OPERATOR, "Agent has been marked gone by operator")
	return nil
}

// UnregisterAgent removes an agent that says it leaves for good.
func (c *Core) UnregisterAgent(ctx context.Context, id task.AgentID) error {
	if err := c.reg.SetStanding(ctx, c.cfg.Now(), registry.Gone, id); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counters["messages_unregister_slave"]++
	c.counters["slave_removals/reason_unregistered"]++
	c.retire(id, task.Gone, mesos.TaskStatus_REASON_AGENT_REMOVED, "Agent unregistered")
	return nil
}

// retire removes the agent, wherever it is remembered.
func (c *Core) retire(id task.AgentID, st task.State, reason mesos.TaskStatus_Reason, message string) {
	if a := c.agents[id]; a != nil {
		a.send(&agentlink.Downlink{Shutdown: &agentlink.Shutdown{Message: proto.String(message)}})
		c.removeAgent(id, st, reason, message)
	} else if _, ok := c.recovered[id]; ok {
		delete(c.recovered, id)
		c.publishAgentRemoved(id)
	}
	for _, r := range c.away[id] {
		c.end(r, st, reason, message)
	}
	delete(c.away, id)
	c.refreshDrain(id)
	c.changed()
}

// isDown reports whether the machine of an agent is down for maintenance.
func (c *Core) isDown(hostname, endpoint string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.machineAt(hostname, endpoint)
	return m != nil && m.down
}

// Seen notes that an agent has spoken on the stream; false means that stream
// is not the agent's current one.
func (c *Core) Seen(id task.AgentID, streamID string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.agents[id]
	if a == nil || a.stream == nil || a.stream.ID != streamID {
		return false
	}
	a.lastSeen = c.cfg.Now()
	return true
}

// ExecutorExited frees what an executor used and tells its framework.
func (c *Core) ExecutorExited(id task.AgentID, e *agentlink.ExecutorExited) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counters["messages_exited_executor"]++
	a := c.agents[id]
	if a == nil {
		return
	}
	key := executorKey{task.FrameworkID(e.GetFrameworkId().GetValue()), task.ExecutorID(e.GetExecutorId().GetValue())}
	c.removeExecutor(a, key)
	if f := c.frameworks[key.framework]; f != nil {
		f.send(&scheduler.Event{Type: scheduler.Event_FAILURE.Enum(), Failure: &scheduler.Event_Failure{
			AgentId: a.info.Id, ExecutorId: e.ExecutorId, Status: e.Status,
		}})
	}
	c.changed()
}

func (c *Core) removeExecutor(a *agent, key executorKey) {
	if e := a.executors[key]; e != nil {
		delete(a.executors, key)
		a.used = a.used.Sub(e.res)
		if f := c.frameworks[key.framework]; f != nil {
			f.used = f.used.Sub(scalars(e.res))
		}
		c.alloc.Recover(c.cfg.Now(), a.id, key.framework, e.res, allocator.Refusal{})
	}
}

// MessageToFramework carries an executor's message to its scheduler.
func (c *Core) MessageToFramework(id task.AgentID, m *agentlink.ExecutorMessage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counters["messages_executor_to_framework"]++
	a, f := c.agents[id], c.frameworks[task.FrameworkID(m.GetFrameworkId().GetValue())]
	if a == nil || f == nil {
		c.counters["invalid_executor_to_framework_messages"]++
		return
	}
	c.counters["valid_executor_to_framework_messages"]++
	f.send(&scheduler.Event{Type: scheduler.Event_MESSAGE.Enum(), Message: &scheduler.Event_Message{
		AgentId: a.info.Id, ExecutorId: m.ExecutorId, Data: m.Data,
	}})
}
