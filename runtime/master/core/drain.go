package core

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/master/drain"
	"dcos.example/dcos/runtime/master/registry"
	"dcos.example/dcos/runtime/task"
)

// defaultGrace is how long agents let a task end that has no kill policy.
const defaultGrace = 5 * time.Second

// DrainAgent empties an agent and keeps it empty. Tasks are killed at once,
// each with its own grace period; those of a framework that moves its tasks
// itself (ADR 11) are left to it until the last moment that maxGrace allows. A
// nil maxGrace sets no bound. With markGone the agent is gone once it is empty.
func (c *Core) DrainAgent(ctx context.Context, id task.AgentID, maxGrace *time.Duration, markGone bool) error {
	c.mu.Lock()
	if a := c.agents[id]; a != nil {
		if m := c.machineOf(a); m != nil {
			c.mu.Unlock()
			return fault.Newf("drain agent", fault.Invalid, "Agent %s is part of a maintenance schedule under Machine %s", id, machineText(m.id))
		}
	}
	c.mu.Unlock()
	want := registry.Drain{MarkGone: markGone}
	if maxGrace != nil {
		want.MaxGrace, want.Bounded = max(0, *maxGrace), true
	}
	return c.moveDrain(ctx, id, drain.Drain, want)
}

// DeactivateAgent ends offers of an agent; its tasks stay.
func (c *Core) DeactivateAgent(ctx context.Context, id task.AgentID) error {
	return c.moveDrain(ctx, id, drain.Deactivate, registry.Drain{})
}

// ReactivateAgent starts offers of an agent again. While it is draining that is
// refused, as in Mesos, unless cancel says that the drain is to end; tasks that
// were asked to stop do so all the same.
func (c *Core) ReactivateAgent(ctx context.Context, id task.AgentID, cancel bool) error {
	e := drain.Reactivate
	if cancel {
		e = drain.Cancel
	}
	return c.moveDrain(ctx, id, e, registry.Drain{})
}

func (c *Core) moveDrain(ctx context.Context, id task.AgentID, e drain.Event, want registry.Drain) error {
	d, err := c.reg.MoveDrain(ctx, c.cfg.Now(), id, e, want)
	if err != nil {
		return err
	}
	c.log.Info("an operator spoke of an agent", "agent", id, "call", e, "state", d.State, "mark_gone", d.MarkGone)
	c.mu.Lock()
	if e == drain.Drain {
		c.forgetDrainKills(id)
	}
	c.refreshDrain(id)
	c.mu.Unlock()
	return c.settle(ctx, id)
}

// forgetDrainKills has a drain with other bounds kill once more.
func (c *Core) forgetDrainKills(id task.AgentID) {
	if a := c.agents[id]; a != nil {
		for _, r := range a.tasks {
			r.drained = false
		}
	}
}

// refreshDrain makes memory and the world follow what the registry says of the
// agent. The caller holds mu.
func (c *Core) refreshDrain(id task.AgentID) {
	d := c.reg.Drain(id)
	if s, _ := c.reg.Standing(id); s == registry.Gone || d.State == drain.Active {
		delete(c.leaving, id)
	} else {
		c.leaving[id] = d
	}
	if a := c.agents[id]; a != nil {
		c.offerOrNot(a)
		c.drainTasks(a)
	}
	c.syncInverse(id)
	c.version++
	c.changed()
}

// offered reports whether an operator lets the agent be offered.
func (c *Core) offered(id task.AgentID) bool { return drain.Offered(c.leaving[id].State) }

// offerOrNot starts or ends offers of the agent.
func (c *Core) offerOrNot(a *agent) {
	on := a.connected && c.offered(a.id)
	c.alloc.SetAgentActive(a.id, on)
	if !on {
		for _, o := range a.offers {
			c.rescind(o)
		}
	}
}

// drainTasks kills those tasks of a draining agent whose time has come. It
// costs O(tasks of the agent).
func (c *Core) drainTasks(a *agent) {
	d := c.leaving[a.id]
	if d.State != drain.Draining {
		return
	}
	now := c.cfg.Now()
	for _, r := range a.tasks {
		if r.drained || task.Terminal(r.state) {
			continue
		}
		grace := graceOf(r)
		if d.Bounded {
			grace = min(grace, d.MaxGrace)
		}
		if c.movedByFramework(r) && (!d.Bounded || now.Before(d.Since.Add(d.MaxGrace-grace))) {
			continue
		}
		again := r.kill
		r.drained, r.kill = true, true
		if d.Bounded {
			r.killed = &mesos.KillPolicy{GracePeriod: &mesos.DurationInfo{Nanoseconds: proto.Int64(int64(grace))}}
		} else if again {
			continue // its framework has asked already, and there is no bound
		}
		c.log.Info("killing a task of a draining agent", "agent", a.id, "framework", r.key.framework, "task", r.key.id, "grace", grace)
		a.send(killTask(r))
	}
}

// movedByFramework reports whether r's framework moves it off draining agents.
func (c *Core) movedByFramework(r *record) bool {
	f := c.frameworks[r.key.framework]
	if f == nil || !f.mover {
		return false
	}
	i := c.inverseOf[inverseKey{f.id, r.agent}]
	return i == nil || !i.declined()
}

func graceOf(r *record) time.Duration {
	for _, p := range []*mesos.KillPolicy{r.killed, r.view.KillPolicy} {
		if g := p.GetGracePeriod(); g != nil {
			return max(0, time.Duration(g.GetNanoseconds()))
		}
	}
	return defaultGrace
}

// settle ends the drain of an agent on which nothing is left.
func (c *Core) settle(ctx context.Context, id task.AgentID) error {
	c.mu.Lock()
	d, a := c.leaving[id], c.agents[id]
	over := d.State == drain.Drained && d.MarkGone || d.State == drain.Draining && a != nil && a.connected && len(a.tasks) == 0
	c.mu.Unlock()
	if !over {
		return nil
	}
	d, err := c.reg.MoveDrain(ctx, c.cfg.Now(), id, drain.Emptied, registry.Drain{})
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.refreshDrain(id)
	c.mu.Unlock()
	if d.State != drain.Drained { // cancelled meanwhile
		return nil
	}
	c.log.Info("agent is drained", "agent", id, "mark_gone", d.MarkGone)
	if d.MarkGone {
		return c.MarkGone(ctx, id)
	}
	return nil
}

// sweepDrains does what time and acknowledgements have made due on agents that
// are being drained: O(their tasks).
func (c *Core) sweepDrains(ctx context.Context) {
	c.mu.Lock()
	var due []task.AgentID
	for id, d := range c.leaving {
		if a := c.agents[id]; a != nil && d.State == drain.Draining {
			c.drainTasks(a)
		}
		if d.State == drain.Draining || d.State == drain.Drained && d.MarkGone {
			due = append(due, id)
		}
	}
	c.mu.Unlock()
	for _, id := range due {
		if err := c.settle(ctx, id); err != nil && ctx.Err() == nil {
			c.log.Error("end the drain of an agent", "agent", id, "err", err) // the next sweep tries again
		}
	}
}

// maybeEmptied wakes who ends drains when the last task of a draining agent is
// gone. The caller holds mu.
func (c *Core) maybeEmptied(a *agent) {
	if len(a.tasks) == 0 && c.leaving[a.id].State == drain.Draining {
		select {
		case c.emptied <- struct{}{}:
		default:
		}
	}
}

// asDrained puts the word of a drain into a status of one of the agent's
// tasks: a killed task of an agent that leaves for good is gone.
func (c *Core) asDrained(id task.AgentID, s *mesos.TaskStatus, latest task.State) task.State {
	d := c.leaving[id]
	if !d.Drains() {
		return latest
	}
	word := func(st task.State) task.State {
		if st == task.Killed && d.MarkGone {
			return task.GoneByOperator
		}
		return st
	}
	switch s.GetState() {
	case task.Killing, task.Killed:
		s.Reason = mesos.TaskStatus_REASON_AGENT_DRAINING.Enum()
		s.State = word(s.GetState()).Enum()
	}
	return word(latest)
}

// drainInfo writes d as GET_AGENTS does.
func drainInfo(d registry.Drain) *mesos.DrainInfo {
	if !d.Drains() {
		return nil
	}
	info := &mesos.DrainInfo{State: mesos.DrainState_DRAINING.Enum(), Config: &mesos.DrainConfig{MarkGone: proto.Bool(d.MarkGone)}}
	if d.State == drain.Drained {
		info.State = mesos.DrainState_DRAINED.Enum()
	}
	if d.Bounded {
		info.Config.MaxGracePeriod = &mesos.DurationInfo{Nanoseconds: proto.Int64(int64(d.MaxGrace))}
	}
	return info
}
