package core

import (
	"fmt"
	"math"
	"time"

	"dcos.example/dcos/runtime/allocator"
	"dcos.example/dcos/runtime/api/agentlink"
	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/master"
	"dcos.example/dcos/runtime/api/mesos/scheduler"
	"dcos.example/dcos/runtime/master/validate"
	"dcos.example/dcos/runtime/resource"
	"dcos.example/dcos/runtime/task"
)

// refusal reads filters: absent means 5 s, as do values that make no sense.
func refusal(f *mesos.Filters) time.Duration {
	s := f.GetRefuseSeconds()
	switch {
	case math.IsNaN(s) || s < 0:
		s = 5
	case s > 365*24*3600:
		s = 365 * 24 * 3600
	}
	return time.Duration(s * float64(time.Second))
}

// Decline gives offers back.
func (c *Core) Decline(id task.FrameworkID, call *scheduler.Call_Decline) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counters["messages_decline_offers"]++
	f := c.frameworks[id]
	if f == nil {
		return
	}
	for _, oid := range call.OfferIds {
		o := c.offers[task.OfferID(oid.GetValue())]
		if o == nil || o.framework != f {
			continue // rescinded meanwhile
		}
		c.dropOffer(o)
		c.counters["frameworks/"+string(id)+"/offers/declined"]++
		c.alloc.Recover(c.cfg.Now(), o.agent.id, id, o.res, allocator.Refusal{For: refusal(call.Filters), Pass: true})
	}
	c.changed()
}

// acceptance is one ACCEPT on its way through its operations.
type acceptance struct {
	c     *Core
	f     *framework
	agent *agent
	role  string
	rest  resource.Resources // of the offers, not used yet
	done  bool               // something was used
}

// Accept uses offers: operations in order, what is left goes back.
func (c *Core) Accept(id task.FrameworkID, call *scheduler.Call_Accept) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counters["messages_launch_tasks"]++
	f := c.frameworks[id]
	if f == nil {
		return
	}
	offers, err := c.claim(f, call.OfferIds)
	if err != nil {
		for _, o := range offers {
			c.dropOffer(o)
			c.alloc.Recover(c.cfg.Now(), o.agent.id, f.id, o.res, allocator.Refusal{})
		}
		for _, op := range call.Operations {
			c.drop(f, op, err)
		}
		c.changed()
		return
	}
	x := acceptance{c: c, f: f, agent: offers[0].agent, role: offers[0].role}
	for _, o := range offers {
		c.dropOffer(o)
		x.rest = x.rest.Add(o.res)
		c.counters["frameworks/"+string(id)+"/offers/accepted"]++
	}
	if once := x.rest.Distinct(); once.Len() != x.rest.Len() { // each offer had the shared volumes
		c.alloc.Recover(c.cfg.Now(), x.agent.id, f.id, x.rest.Sub(once), allocator.Refusal{})
		x.rest = once
	}
	for _, op := range call.Operations {
		x.apply(op)
	}
	c.flush(x.agent)
	c.alloc.Recover(c.cfg.Now(), x.agent.id, f.id, x.rest, allocator.Refusal{For: refusal(call.Filters), Pass: !x.done})
	c.changed()
}

// claim looks the offers up. With an error it returns those that are valid
// alone, for them to be given back.
func (c *Core) claim(f *framework, ids []*mesos.OfferID) ([]*offer, error) {
	var offers []*offer
	var bad error
	seen := map[task.OfferID]bool{}
	for _, oid := range ids {
		id := task.OfferID(oid.GetValue())
		o := c.offers[id]
		switch {
		case seen[id]:
			bad = fmt.Errorf("Duplicate offer %s in offer list", id)
			continue
		case o == nil:
			bad = fmt.Errorf("Offer %s is no longer valid", id)
			continue
		case o.framework != f:
			bad = fmt.Errorf("Offer %s has invalid framework %s while framework %s is expected", id, o.framework.id, f.id)
			continue
		case len(offers) > 0 && o.agent != offers[0].agent:
			bad = fmt.Errorf("Aggregated offers must belong to one single agent. Offer %s uses agent %s and agent %s", id, o.agent.id, offers[0].agent.id)
		case len(offers) > 0 && o.role != offers[0].role:
			bad = fmt.Errorf("Aggregated offers must be allocated to the same role. Offer %s uses role '%s' but another is allocated to '%s'", id, o.role, offers[0].role)
		}
		seen[id] = true
		offers = append(offers, o)
	}
	if bad == nil && len(offers) == 0 {
		bad = fmt.Errorf("No offers specified")
	}
	return offers, bad
}

// drop tells the framework that op came to nothing because of its offers.
func (c *Core) drop(f *framework, op *mesos.Offer_Operation, err error) {
	launch := append(op.GetLaunch().GetTaskInfos(), op.GetLaunchGroup().GetTaskGroup().GetTasks()...)
	for _, t := range launch {
		c.counters["task_lost/source_master/reason_invalid_offers"]++
		f.sendUpdate(c.status(task.ID(t.GetTaskId().GetValue()), task.AgentID(t.GetAgentId().GetValue()), task.Dropped,
			mesos.TaskStatus_REASON_INVALID_OFFERS, "Task launched with invalid offers: "+err.Error()))
	}
	if len(launch) == 0 {
		c.operationError(f, op, err)
	}
}

func (x *acceptance) apply(op *mesos.Offer_Operation) {
	switch op.GetType() {
	case mesos.Offer_Operation_LAUNCH:
		x.c.flush(x.agent) // a task comes after what it is made of
		for _, t := range op.GetLaunch().GetTaskInfos() {
			if op.Id != nil {
				x.refuse(t, mesos.TaskStatus_REASON_TASK_INVALID, "'id' must not be set in a LAUNCH operation")
				continue
			}
			x.launch(t)
		}
	case mesos.Offer_Operation_LAUNCH_GROUP:
		for _, t := range op.GetLaunchGroup().GetTaskGroup().GetTasks() {
			x.refuse(t, mesos.TaskStatus_REASON_TASK_GROUP_INVALID, "Task groups are not supported by this release")
		}
	default:
		if err := x.convert(op); err != nil {
			x.c.operationError(x.f, op, err)
		}
	}
}

// refuse answers a task that cannot be launched.
func (x *acceptance) refuse(t *mesos.TaskInfo, reason mesos.TaskStatus_Reason, message string) {
	x.c.counters["tasks/TASK_ERROR"]++
	x.f.sendUpdate(x.c.status(task.ID(t.GetTaskId().GetValue()), x.agent.id, task.Error, reason, message))
}

func (x *acceptance) launch(t *mesos.TaskInfo) {
	c, f, a := x.c, x.f, x.agent
	invalid := func(format string, args ...any) {
		x.refuse(t, mesos.TaskStatus_REASON_TASK_INVALID, fmt.Sprintf(format, args...))
	}
	if r := f.tasks[task.ID(t.GetTaskId().GetValue())]; r != nil {
		if r.state == task.Unreachable {
			invalid("Task reuses the ID of an unreachable task")
		} else {
			invalid("Task has duplicate ID: %s", t.GetTaskId().GetValue())
		}
		return
	}
	validate.InferHealthCheck(t.HealthCheck)
	key := executorKey{f.id, task.ExecutorID(t.GetExecutor().GetExecutorId().GetValue())}
	l := validate.Launch{AgentID: string(a.id), Framework: f.info, Role: x.role, Available: x.rest}
	if t.Executor != nil {
		if e := a.executors[key]; e != nil {
			l.Executor = e.info
		}
	}
	use, executorUse, err := validate.Task(t, l)
	if err != nil {
		invalid("%s", err)
		return
	}
	t.Resources = use.Proto()
	if t.Executor != nil {
		t.Executor.FrameworkId = f.info.Id
		if l.Executor == nil {
			t.Executor.Resources = executorUse.Proto()
			a.executors[key] = &executor{t.Executor, executorUse}
			a.used = a.used.Add(executorUse)
			f.used = f.used.Add(scalars(executorUse))
		}
	}
	// A shared volume stays in the offer for the next task.
	c.alloc.Use(a.id, f.id, use.Add(executorUse).Filter(resource.Item.Shared))
	x.rest, x.done = x.rest.Sub(use.Exclusive()).Sub(executorUse.Exclusive()), true
	r := &record{key: taskKey{f.id, task.ID(t.GetTaskId().GetValue())}, view: f.newTask(t, use), state: task.Staging, agent: a.id, res: use, held: true}
	f.tasks[r.key.id], a.tasks[r.key] = r, r
	f.used = f.used.Add(scalars(use))
	a.used = a.used.Add(use) // the allocator counts it since it was offered
	c.publish(&master.Event{Type: master.Event_TASK_ADDED.Enum(), TaskAdded: &master.Event_TaskAdded{Task: r.view}})
	a.send(&agentlink.Downlink{RunTask: &agentlink.RunTask{Framework: f.info, Task: t}})
	if len(c.machines) > 0 {
		c.syncInverseOf(f, a.id)
	}
}

// convert applies an operation that turns resources into others, on the offer,
// in the books and, with flush, on the agent.
func (x *acceptance) convert(op *mesos.Offer_Operation) error {
	c, f, a := x.c, x.f, x.agent
	if op.Id != nil {
		if err := validate.ID(op.Id.GetValue()); err != nil {
			return fmt.Errorf("Operation ID is invalid: %w", err)
		}
		if f.operations[op.Id.GetValue()] != nil {
			return fmt.Errorf("Operation has duplicate ID: %s", op.Id.GetValue())
		}
	}
	if !a.takesOperations() {
		return errNoOperations
	}
	from, to, err := validate.Conversion(op, validate.Asking{
		Role: x.role, Principal: f.info.GetPrincipal(), Refinement: f.refinement, Shared: f.shared,
		Total: a.total, InUse: a.usesVolume,
	})
	if err != nil {
		return err
	}
	if !x.rest.Contains(from) {
		return fmt.Errorf("%s is not contained in the offered resources %s", from.Unallocate(), x.rest.Unallocate())
	}
	c.rescindShared(a, from)
	c.alloc.Replace(a.id, f.id, from, to)
	x.rest = x.rest.Sub(from).Add(to)
	c.operate(a, f, op, from, to)
	x.done = true
	return nil
}
