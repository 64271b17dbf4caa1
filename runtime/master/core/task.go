package core

import (
	"time"

	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/allocator"
	"dcos.example/dcos/runtime/api/agentlink"
	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/master"
	"dcos.example/dcos/runtime/api/mesos/scheduler"
	"dcos.example/dcos/runtime/master/registry"
	"dcos.example/dcos/runtime/resource"
	"dcos.example/dcos/runtime/task"
)

// status is a status of the master's own making. It has no uuid: nobody
// acknowledges it.
func (c *Core) status(id task.ID, agent task.AgentID, st task.State, reason mesos.TaskStatus_Reason, message string) *mesos.TaskStatus {
	s := &mesos.TaskStatus{
		TaskId:    &mesos.TaskID{Value: proto.String(string(id))},
		State:     st.Enum(),
		Source:    mesos.TaskStatus_SOURCE_MASTER.Enum(),
		Reason:    reason.Enum(),
		Message:   proto.String(message),
		Timestamp: proto.Float64(seconds(c.cfg.Now())),
	}
	if agent != "" {
		s.AgentId = &mesos.AgentID{Value: proto.String(string(agent))}
	}
	return s
}

func seconds(t time.Time) float64 { return float64(t.UnixNano()) / 1e9 }

// hold counts the task's resources as used.
func (c *Core) hold(a *agent, f *framework, r *record) {
	r.held = true
	a.used = a.used.Add(r.res)
	f.used = f.used.Add(scalars(r.res))
	c.alloc.Use(a.id, f.id, r.res)
}

// release frees the task's resources, once.
func (c *Core) release(r *record) {
	if !r.held {
		return
	}
	r.held = false
	if a := c.agents[r.agent]; a != nil {
		a.used = a.used.Sub(r.res)
	}
	if f := c.frameworks[r.key.framework]; f != nil {
		f.used = f.used.Sub(scalars(r.res))
	}
	c.alloc.Recover(c.cfg.Now(), r.agent, r.key.framework, r.res, allocator.Refusal{})
}

// setState records what s says of the task and tells the operators. It does
// not tell the framework. The caller holds mu.
func (c *Core) setState(f *framework, r *record, s *mesos.TaskStatus) {
	c.setLatest(f, r, s, s.GetState())
}

// setLatest is setState for a status that is older than the state the agent
// already knows of.
func (c *Core) setLatest(f *framework, r *record, s *mesos.TaskStatus, latest task.State) {
	held := r.state
	now := task.Next(held, latest)
	if task.Terminal(now) || now == task.Unreachable {
		c.release(r)
	} else if held == task.Unreachable && !r.held {
		if a := c.agents[r.agent]; a != nil {
			c.hold(a, f, r)
		}
	}
	if now != held && task.Terminal(now) {
		c.counters["tasks/"+now.String()]++
		if now == task.Lost {
			c.counters["task_lost/"+s.GetSource().String()+"/"+s.GetReason().String()]++
		}
	}
	kept := s
	if len(s.Data) > 0 { // of no use to readers, and may be large
		kept = proto.CloneOf(s)
		kept.Data = nil
	}
	old := r.view
	r.state = now
	statuses := make([]*mesos.TaskStatus, 0, len(old.Statuses)+1)
	statuses = append(statuses, old.Statuses...)
	if n := len(statuses); n > 0 && statuses[n-1].GetState() == s.GetState() {
		statuses = statuses[:n-1]
	}
	r.view = &mesos.Task{
		Name: old.Name, TaskId: old.TaskId, FrameworkId: old.FrameworkId, ExecutorId: old.ExecutorId, AgentId: old.AgentId,
		State: now.Enum(), Resources: old.Resources, Statuses: append(statuses, kept),
		StatusUpdateState: s.State, StatusUpdateUuid: s.Uuid,
		Labels: old.Labels, Discovery: old.Discovery, Container: old.Container, HealthCheck: old.HealthCheck,
		KillPolicy: old.KillPolicy, User: old.User, Limits: old.Limits,
	}
	c.publish(&master.Event{Type: master.Event_TASK_UPDATED.Enum(), TaskUpdated: &master.Event_TaskUpdated{
		FrameworkId: f.info.Id, Status: kept, State: now.Enum(),
	}})
	c.changed()
}

// forget moves a task whose end is known everywhere to the completed ones.
func (c *Core) forget(f *framework, r *record) {
	c.release(r)
	delete(f.tasks, r.key.id)
	if a := c.agents[r.agent]; a != nil {
		delete(a.tasks, r.key)
		c.maybeEmptied(a)
	}
	delete(c.away[r.agent], r.key)
	if f.done = append(f.done, r.view); len(f.done) > maxDone {
		f.done = f.done[len(f.done)-maxDone:]
	}
	c.version++
}

// Update takes a status update from an agent: record it, tell operators and
// the framework. Updates for nobody are acknowledged here, so that the agent
// stops sending them.
func (c *Core) Update(id task.AgentID, u *agentlink.StatusUpdate) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counters["messages_status_update"]++
	a := c.agents[id]
	if a == nil {
		c.counters["invalid_status_updates"]++
		return
	}
	s := u.GetStatus()
	key := taskKey{task.FrameworkID(u.GetFrameworkId().GetValue()), task.ID(s.GetTaskId().GetValue())}
	f := c.frameworks[key.framework]
	if f == nil {
		c.counters["invalid_status_updates"]++
		if len(s.Uuid) > 0 {
			a.send(acknowledge(u.FrameworkId, s.TaskId, s.Uuid))
		}
		return
	}
	c.counters["valid_status_updates"]++
	if s.AgentId == nil {
		s.AgentId = a.info.Id
	}
	was := s.GetState()
	if u.LatestState != nil && task.Terminal(u.GetLatestState()) {
		was = u.GetLatestState()
	}
	latest := c.asDrained(id, s, was)
	// A task not in memory was forgotten when its end was acknowledged, and
	// that acknowledgement got lost: the framework hears it once more.
	if r := f.tasks[key.id]; r != nil && r.agent == id {
		again := r.unacked != nil && len(s.Uuid) > 0 && string(r.unacked.Uuid) == string(s.Uuid)
		if !again {
			c.setLatest(f, r, s, latest)
		}
		if len(s.Uuid) > 0 {
			r.unacked = s
		} else if task.Terminal(s.GetState()) {
			defer c.forget(f, r)
		}
	}
	f.sendUpdate(s)
}

func acknowledge(f *mesos.FrameworkID, t *mesos.TaskID, uuid []byte) *agentlink.Downlink {
	return &agentlink.Downlink{Acknowledge: &agentlink.Acknowledge{FrameworkId: f, TaskId: t, Uuid: uuid}}
}

// Acknowledge carries a scheduler's acknowledgement to the agent, and forgets
// a task whose end it acknowledges.
func (c *Core) Acknowledge(id task.FrameworkID, ack *scheduler.Call_Acknowledge) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counters["messages_status_update_acknowledgement"]++
	f, a := c.frameworks[id], c.agents[task.AgentID(ack.GetAgentId().GetValue())]
	if f == nil || a == nil {
		c.counters["invalid_status_update_acknowledgements"]++
		return
	}
	c.counters["valid_status_update_acknowledgements"]++
	if r := f.tasks[task.ID(ack.GetTaskId().GetValue())]; r != nil && r.unacked != nil && string(r.unacked.Uuid) == string(ack.Uuid) {
		if task.Terminal(r.unacked.GetState()) {
			c.forget(f, r)
		}
		r.unacked = nil
	}
	a.send(acknowledge(f.info.Id, ack.TaskId, ack.Uuid))
}

func killTask(r *record) *agentlink.Downlink {
	return &agentlink.Downlink{KillTask: &agentlink.KillTask{
		FrameworkId: r.view.FrameworkId, TaskId: r.view.TaskId, KillPolicy: r.killed,
	}}
}

// Kill asks the agent to end a task. When the agent is away it is asked again
// when it is back.
func (c *Core) Kill(id task.FrameworkID, k *scheduler.Call_Kill) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counters["messages_kill_task"]++
	f := c.frameworks[id]
	if f == nil {
		return
	}
	r := f.tasks[task.ID(k.GetTaskId().GetValue())]
	if r == nil {
		c.answer(f, &scheduler.Call_Reconcile_Task{TaskId: k.TaskId, AgentId: k.AgentId})
		return
	}
	r.kill, r.killed = true, k.KillPolicy
	if a := c.agents[r.agent]; a != nil {
		a.send(killTask(r))
	}
}

// Shutdown asks the agent to end an executor.
func (c *Core) Shutdown(id task.FrameworkID, s *scheduler.Call_Shutdown) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, a := c.frameworks[id], c.agents[task.AgentID(s.GetAgentId().GetValue())]
	if f != nil && a != nil {
		a.send(&agentlink.Downlink{ShutdownExecutor: &agentlink.ShutdownExecutor{FrameworkId: f.info.Id, ExecutorId: s.ExecutorId}})
	}
}

// Message carries a scheduler's message to an executor; it may get lost.
func (c *Core) Message(id task.FrameworkID, m *scheduler.Call_Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counters["messages_framework_to_executor"]++
	f, a := c.frameworks[id], c.agents[task.AgentID(m.GetAgentId().GetValue())]
	if f == nil || a == nil {
		c.counters["invalid_framework_to_executor_messages"]++
		return
	}
	c.counters["valid_framework_to_executor_messages"]++
	a.send(&agentlink.Downlink{FrameworkMessage: &agentlink.FrameworkMessage{FrameworkId: f.info.Id, ExecutorId: m.ExecutorId, Data: m.Data}})
}

// Reconcile answers with the latest state of the tasks asked for, or of all.
func (c *Core) Reconcile(id task.FrameworkID, call *scheduler.Call_Reconcile) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counters["messages_reconcile_tasks"]++
	f := c.frameworks[id]
	if f == nil {
		return
	}
	if len(call.GetTasks()) == 0 {
		for _, r := range f.tasks {
			f.sendUpdate(c.latest(r))
		}
		return
	}
	for _, t := range call.Tasks {
		c.answer(f, t)
	}
}

// latest is the state of a task as reconciliation tells it.
func (c *Core) latest(r *record) *mesos.TaskStatus {
	s := c.status(r.key.id, r.agent, r.state, mesos.TaskStatus_REASON_RECONCILIATION, "Reconciliation: Latest task state")
	if n := len(r.view.Statuses); n > 0 {
		last := r.view.Statuses[n-1]
		s.Healthy, s.ContainerStatus, s.CheckStatus, s.Labels, s.ExecutorId = last.Healthy, last.ContainerStatus, last.CheckStatus, last.Labels, last.ExecutorId
	}
	if r.state == task.Unreachable {
		s.UnreachableTime = &mesos.TimeInfo{Nanoseconds: proto.Int64(r.since.UnixNano())}
	}
	return s
}

// answer reconciles one task. No answer is given while the agent that may run
// it has not come back after a fail-over.
func (c *Core) answer(f *framework, t *scheduler.Call_Reconcile_Task) {
	id, agent := task.ID(t.GetTaskId().GetValue()), task.AgentID(t.GetAgentId().GetValue())
	if r := f.tasks[id]; r != nil {
		f.sendUpdate(c.latest(r))
		return
	}
	if _, away := c.recovered[agent]; away || agent == "" && len(c.recovered) > 0 {
		return
	}
	st := task.Unknown
	standing, since := c.reg.Standing(agent)
	switch {
	case c.agents[agent] != nil:
		st = task.Gone
	case standing == registry.Unreachable:
		st = task.Unreachable
	case standing == registry.Gone:
		st = task.GoneByOperator
	}
	s := c.status(id, agent, st, mesos.TaskStatus_REASON_RECONCILIATION, "Reconciliation: Task is unknown")
	if st == task.Unreachable {
		s.UnreachableTime = &mesos.TimeInfo{Nanoseconds: proto.Int64(since.UnixNano())}
	}
	f.sendUpdate(s)
}

// newTask is the master's record of t as it is launched.
func (f *framework) newTask(t *mesos.TaskInfo, res resource.Resources) *mesos.Task {
	v := &mesos.Task{
		Name: t.Name, TaskId: t.TaskId, FrameworkId: f.info.Id, AgentId: t.AgentId, State: task.Staging.Enum(),
		Resources: res.Proto(), Labels: t.Labels, Discovery: t.Discovery, Container: task.WithoutSecrets(t.Container),
		HealthCheck: t.HealthCheck, KillPolicy: t.KillPolicy, Limits: t.Limits,
	}
	switch {
	case t.GetCommand().GetUser() != "":
		v.User = t.Command.User
	case t.GetExecutor().GetCommand().GetUser() != "":
		v.User = t.Executor.Command.User
	default:
		v.User = f.info.User
	}
	if t.Executor != nil {
		v.ExecutorId = t.Executor.ExecutorId
		if v.Container == nil {
			v.Container = task.WithoutSecrets(t.Executor.Container)
		}
	}
	return v
}
