package engine

import (
	"context"
	"slices"
	"time"

	"dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/scheduler"
	"dcos.example/dcos/runtime/api/service"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/service/match"
	"dcos.example/dcos/runtime/service/plan"
	"dcos.example/dcos/runtime/service/spec"
)

// claim is a reservation that is to be given back: offers are asked for until
// it is gone.
type claim struct {
	claimRecord
	away bool // its agent cannot be reached
}

// operation is what an ACCEPT asked for beside launches.
type operation struct {
	leaks []string // reservations that it gives back
	pods  []plan.Instance
	what  string
	at    time.Time
}

// auditEvery is how often the master is asked whether claims are settled, and
// about agents from which nothing is heard.
const (
	auditEvery = 10 * time.Second
	auditSoon  = 200 * time.Millisecond // after the last, when there is news
)

// settled is how long after a subscription agents that are up have come back to
// a new master.
const settled = 30 * time.Second

// settle forgets a claim.
func (e *Engine) settle(id string) {
	if _, ok := e.claims[id]; ok {
		delete(e.claims, id)
		e.drop(kindClaim, id)
	}
}

// operated takes the status of an operation.
func (e *Engine) operated(s *mesos.OperationStatus, now time.Time) {
	id := s.GetOperationId().GetValue()
	if op := e.pending[id]; op != nil {
		switch s.GetState() {
		case mesos.OperationState_OPERATION_PENDING, mesos.OperationState_OPERATION_RECOVERING:
		case mesos.OperationState_OPERATION_FINISHED:
			// Whether that was all of it the master tells: what a task still
			// held was not offered.
			delete(e.pending, id)
			e.soon = e.soon || len(op.leaks) > 0
		default:
			delete(e.pending, id)
			e.log.Warn("operation failed", "operation", op.what, "state", s.GetState().String(), "message", s.GetMessage())
			for _, at := range op.pods {
				if i := e.instances[at]; i != nil {
					i.reason = op.what + ": " + s.GetMessage()
				}
			}
			e.flow.again = true
		}
	}
	if len(s.GetUuid().GetValue()) == 0 {
		return
	}
	e.call(&scheduler.Call{
		Type: scheduler.Call_ACKNOWLEDGE_OPERATION_STATUS.Enum(),
		AcknowledgeOperationStatus: &scheduler.Call_AcknowledgeOperationStatus{
			AgentId: s.GetAgentId(), OperationId: s.GetOperationId(), Uuid: s.GetUuid().GetValue(),
		},
	})
}

// audit asks the master, now and then, what became of what is waited for:
// whether claims are settled although nobody said so, and whether agents that
// are waited for are still there. It costs O(agents), only while something is
// waited for.
func (e *Engine) audit(now time.Time) {
	waiting := len(e.claims) > 0 || e.rec.Uninstall && len(e.instances) == 0 && !e.swept
	for _, i := range e.instances {
		waiting = waiting || !i.rec.Away.IsZero() || e.lonely(i, now)
	}
	if !waiting || !e.flow.connected {
		return
	}
	if e.auditing {
		return // its end wakes the loop
	}
	due := e.lastAudit.Add(auditEvery)
	if e.soon || e.rec.Uninstall && len(e.instances)+len(e.claims) == 0 {
		due = e.lastAudit.Add(auditSoon)
	}
	if now.Before(due) {
		e.lookAgain(due)
		return
	}
	e.lastAudit, e.auditing, e.soon = now, true, false
	e.lookAgain(now.Add(auditEvery))
	began, epoch := now, e.flow.epoch
	e.out.After(func(ctx context.Context) {
		agents, err := e.cfg.Agents(ctx)
		e.mu.Lock()
		defer e.mu.Unlock()
		e.auditing = false
		e.nudge()
		if err != nil || e.flow.epoch != epoch {
			if err != nil && e.ctx.Err() == nil {
				e.log.Warn("ask for the agents", "err", err)
			}
			return
		}
		e.audited(agents, began)
	})
}

// lonely reports whether an instance has waited for its own agent's offers for
// longer than they take.
func (e *Engine) lonely(i *instance, now time.Time) bool {
	if i.wanted.IsZero() || i.rec.Agent == "" {
		return false
	}
	if due := i.wanted.Add(auditEvery); now.Before(due) {
		e.lookAgain(due)
		return false
	}
	return true
}

// audited compares what the master has with what is waited for.
func (e *Engine) audited(agents []Agent, began time.Time) {
	there := map[string]map[string]bool{} // reservations by agent
	for _, a := range agents {
		held := map[string]bool{}
		for it := range a.Total.All() {
			if id := match.ReservationOf(it); id != "" && it.Role() == e.role {
				held[id] = true
			}
		}
		there[a.ID] = held
	}
	busy := map[string]bool{}
	for _, op := range e.pending {
		for _, leak := range op.leaks {
			busy[leak] = busy[leak] || began.Sub(op.at) < time.Minute
		}
	}
	e.sweep(agents, there)
	var questions []*scheduler.Call_Reconcile_Task
	for id, c := range e.claims {
		held, registered := there[c.Agent]
		switch {
		case !registered && e.rec.Force && began.Sub(e.flow.since) > settled:
			// The record stays, for a service that has this name again.
			e.log.Warn("what is reserved on an agent that cannot be reached is left behind", "pod", c.Pod, "agent", c.Agent)
			delete(e.claims, id)
		case !registered && c.Task != "":
			questions = append(questions, question(c.Task, c.Agent))
		case !registered:
			c.away = true
		case !held[id] && !busy[id] && c.Since.Before(began):
			e.settle(id)
		default:
			c.away = false
			e.flow.again = e.flow.again || !busy[id] // it should have been offered
		}
	}
	for _, i := range e.instances {
		if i.rec.Agent == "" || i.rec.Away.IsZero() && !e.lonely(i, began) {
			continue
		}
		if _, registered := there[i.rec.Agent]; registered {
			if !i.rec.Away.IsZero() && len(i.live()) == 0 && !i.anyAway() {
				i.rec.Away = time.Time{}
				e.save(i)
			}
			e.flow.again = e.flow.again || !i.wanted.IsZero()
			continue
		}
		for _, t := range i.rec.Tasks {
			if t.ID != "" {
				questions = append(questions, question(t.ID, i.rec.Agent))
				break
			}
		}
	}
	if len(questions) > 0 {
		e.call(&scheduler.Call{Type: scheduler.Call_RECONCILE.Enum(), Reconcile: &scheduler.Call_Reconcile{Tasks: questions}})
	}
}

// sweep looks, when all instances are gone, for what nobody knew of.
func (e *Engine) sweep(agents []Agent, there map[string]map[string]bool) {
	if !e.rec.Uninstall || len(e.instances) > 0 {
		return
	}
	e.swept = true
	for _, a := range agents {
		for id := range there[a.ID] {
			if e.claims[id] != nil {
				continue
			}
			e.swept = false
			e.log.Warn("a reservation of which nothing was known is given back", "agent", a.ID, "reservation", id)
			c := claimRecord{Pod: "unknown-0", Agent: a.ID, Host: a.Host, Since: time.Now()}
			e.claims[id] = &claim{claimRecord: c}
			e.put(kindClaim, id, c)
			e.flow.again = true
		}
	}
}

func (i *instance) anyAway() bool {
	for _, t := range i.rec.Tasks {
		if t.away() {
			return true
		}
	}
	return false
}

// forget removes an instance that has ended; what it has on its agent is given
// back.
func (e *Engine) forget(i *instance, now time.Time) {
	e.giveUp(i, now)
	for _, t := range i.rec.Tasks {
		delete(e.tasks, t.ID)
	}
	delete(e.instances, i.id)
	e.order = nil
	e.drop(kindPod, i.id.String())
}

// decommission ends the instances that the target does not want, one at a time,
// the last first, while the deployment takes none down.
func (e *Engine) decommission(v plan.View, now time.Time) {
	var extras []*instance
	ending := false
	for _, i := range slices.Backward(e.sorted()) {
		if !e.extra(i) {
			continue
		}
		if !i.rec.Decommission {
			extras = append(extras, i)
			continue
		}
		e.stop(i, "the instance is decommissioned", nil)
		if len(i.live()) == 0 {
			e.forget(i, now)
			continue
		}
		ending = true
	}
	if r := e.plans[spec.PlanDecommission]; len(extras) == 0 || ending || r != nil && r.Interrupted || disturbs(v) {
		return
	}
	i := extras[0]
	e.log.Info("instance is decommissioned", "pod", i.id.String())
	i.rec.Decommission, i.rec.Step, i.rec.Anew = true, "", false
	e.save(i)
	e.stop(i, "the instance is decommissioned", nil)
	if len(i.live()) == 0 {
		e.forget(i, now)
	}
	e.nudge()
}

// disturbs reports whether a deployment has instances down that will be up
// again.
func disturbs(v plan.View) bool {
	for _, ph := range v.Phases {
		for _, s := range ph.Steps {
			if s.Status == service.Starting || s.Status == service.Started {
				return true
			}
		}
	}
	return false
}

// decommissionPlan shows what is to go and what has gone but for its
// reservation.
func (e *Engine) decommissionPlan() (plan.Plan, plan.View) {
	p := plan.Plan{Name: spec.PlanDecommission, Strategy: plan.Serial}
	seen := map[string]plan.Seen{}
	add := func(i plan.Instance, kill, free service.PlanStatus, message string) {
		ph := plan.NewPhase(p.Name, i.String(), plan.Serial,
			plan.NewStep(p.Name, i.String(), i, []string{"kill"}), plan.NewStep(p.Name, i.String(), i, []string{"unreserve"}))
		seen[ph.Steps[0].ID], seen[ph.Steps[1].ID] = plan.Seen{Status: kill}, plan.Seen{Status: free, Message: message}
		p.Phases = append(p.Phases, ph)
	}
	for _, id := range e.claimsInOrder() {
		if c := e.claims[id]; c.Decommission {
			at, _ := plan.Parse(c.Pod)
			add(at, service.Complete, service.Prepared, c.text())
		}
	}
	for _, i := range slices.Backward(e.sorted()) {
		switch {
		case !e.extra(i):
		case i.rec.Decommission:
			add(i.id, service.Started, service.Pending, "")
		default:
			add(i.id, service.Pending, service.Pending, "")
		}
	}
	var control plan.Control
	if r := e.plans[spec.PlanDecommission]; r != nil {
		control = r.Control
	}
	return p, plan.Evaluate(p, func(st plan.Step) plan.Seen { return seen[st.ID] }, control)
}

func (c *claim) text() string {
	if c.away {
		return "agent " + c.Host + " cannot be reached; what is reserved there is given back when it returns, or forgotten once the agent is marked gone"
	}
	return "waits for an offer of agent " + c.Host
}

func (e *Engine) claimsInOrder() []string {
	ids := make([]string, 0, len(e.claims))
	for id := range e.claims {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b string) int {
		x, y := e.claims[a], e.claims[b]
		if c := x.Since.Compare(y.Since); c != 0 {
			return c
		}
		if a < b {
			return -1
		}
		return 1
	})
	return ids
}

// uninstall ends everything, gives all back, and then removes the framework and
// the records.
func (e *Engine) uninstall(now time.Time) {
	for _, i := range e.sorted() {
		e.stop(i, "the service is uninstalled", nil)
		if len(i.live()) == 0 {
			e.forget(i, now)
		}
	}
	if len(e.instances) > 0 || len(e.claims) > 0 || !e.swept || !e.flow.connected || e.teardown {
		return
	}
	if now.Before(e.teardownAt) {
		e.lookAgain(e.teardownAt)
		return
	}
	e.teardown = true
	e.log.Info("nothing is left, the framework is removed", "framework", e.status.Framework)
	e.out.After(func(ctx context.Context) {
		err := e.client.Load().Call(ctx, &scheduler.Call{Type: scheduler.Call_TEARDOWN.Enum()})
		e.mu.Lock()
		defer e.mu.Unlock()
		if err != nil && !fault.Is(err, fault.NotFound) {
			if e.ctx.Err() == nil {
				e.log.Warn("remove the framework", "err", err)
			}
			e.teardown, e.teardownAt = false, time.Now().Add(time.Second)
			e.nudge()
			return
		}
		e.finish()
	})
}

// finish forgets all records, the service's own last: it is why the others are
// looked at.
func (e *Engine) finish() {
	if e.finished {
		return
	}
	e.finished = true
	for id := range e.claims {
		e.drop(kindClaim, id)
	}
	for i := range e.instances {
		e.drop(kindPod, i.String())
	}
	for name := range e.plans {
		e.drop(kindPlan, name)
	}
	for id := range e.configs {
		e.drop(kindConfig, id)
	}
	e.drop(kindStatus, "")
	e.out.Drop(kindService, e.name)
	e.out.After(func(context.Context) {
		e.log.Info("uninstalled")
		close(e.over)
	})
}

// uninstallPlan shows how far that is; it takes deploy's place.
func (e *Engine) uninstallPlan() (plan.Plan, plan.View) {
	const name = spec.PlanDeploy
	seen := map[string]plan.Seen{}
	step := func(phase string, i plan.Instance, what string, s plan.Seen) plan.Step {
		st := plan.NewStep(name, phase, i, []string{what})
		seen[st.ID] = s
		return st
	}
	var kills, frees []plan.Step
	for _, i := range e.sorted() {
		kills = append(kills, step("kill-tasks", i.id, "kill", plan.Seen{Status: service.Started}))
	}
	for _, id := range e.claimsInOrder() {
		c := e.claims[id]
		at, _ := plan.Parse(c.Pod)
		frees = append(frees, step("unreserve-resources", at, "unreserve", plan.Seen{Status: service.Prepared, Message: c.text()}))
	}
	last := plan.Seen{Status: service.Pending}
	if len(kills)+len(frees) == 0 {
		last.Status = service.Prepared
	}
	p := plan.Plan{Name: name, Strategy: plan.Serial, Phases: []plan.Phase{
		plan.NewPhase(name, "kill-tasks", plan.Parallel, kills...),
		plan.NewPhase(name, "unreserve-resources", plan.Parallel, frees...),
		plan.NewPhase(name, "deregister-service", plan.Serial, step("deregister-service", plan.Instance{Pod: "service"}, "deregister", last)),
	}}
	return p, plan.Evaluate(p, func(st plan.Step) plan.Seen { return seen[st.ID] }, plan.Control{})
}
