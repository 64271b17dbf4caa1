package engine

import (
	"context"
	"fmt"
	"slices"
	"time"

	"dcos.example/dcos/runtime/api/service"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/service/plan"
	"dcos.example/dcos/runtime/service/spec"
)

// Update makes a valid spec the target. The same spec changes nothing but the
// package.
func (e *Engine) Update(ctx context.Context, s *service.Spec, p service.Package) error {
	return e.change(ctx, func(now time.Time) error {
		const op = "update service"
		if e.rec.Uninstall {
			return fault.Newf(op, fault.Conflict, "service %s is being uninstalled", e.name)
		}
		before := e.target()
		r, err := newRecord(e.cfg.Vault, s, p, &before.configRecord, now)
		if err != nil {
			return err
		}
		if !r.At.After(before.At) {
			r.At = before.At.Add(time.Millisecond)
		}
		e.log.Info("new target", "config", r.ID, "before", before.ID)
		e.configs[r.ID] = newConfig(r)
		e.rec.Target = r.ID
		e.put(kindConfig, r.ID, r)
		e.putService()
		return nil
	})
}

// Uninstall begins to remove the service; force gives up what is on agents that
// cannot be reached.
func (e *Engine) Uninstall(ctx context.Context, force bool) error {
	return e.change(ctx, func(time.Time) error {
		if e.rec.Uninstall && (e.rec.Force || !force) {
			return nil
		}
		e.rec.Uninstall, e.rec.Force = true, e.rec.Force || force
		e.lastAudit = time.Time{}
		e.putService()
		return nil
	})
}

// Stored waits until all that was staged is in the store.
func (e *Engine) Stored(ctx context.Context) error {
	return e.change(ctx, func(time.Time) error { return nil })
}

func (e *Engine) planName(name string) string {
	if spec.IsDeploy(name) {
		return spec.PlanDeploy
	}
	return name
}

// view returns a plan with its statuses.
func (e *Engine) view(name string, now time.Time) (plan.Plan, plan.View, error) {
	switch {
	case e.rec.Uninstall && spec.IsDeploy(name):
		p, v := e.uninstallPlan()
		return p, v, nil
	case e.rec.Uninstall:
	case spec.IsDeploy(name):
		p := e.deployPlan()
		return p, plan.Evaluate(p, func(st plan.Step) plan.Seen { return e.seeDeploy(st, now) }, e.deployControl()), nil
	case name == spec.PlanRecovery:
		p, v := e.recoveryView(now)
		return p, v, nil
	case name == spec.PlanDecommission:
		p, v := e.decommissionPlan()
		return p, v, nil
	default:
		if p, ok := e.customPlan(name); ok {
			r := e.plans[name]
			if r == nil || r.Run == "" {
				r = &planRecord{Control: plan.Control{Interrupted: true}} // it waits to be started
			}
			return p, plan.Evaluate(p, func(st plan.Step) plan.Seen { return e.seeCustom(r, st, now) }, r.Control), nil
		}
	}
	return plan.Plan{}, plan.View{}, fault.Newf("find plan", fault.NotFound, "service %s has no plan %q", e.name, name)
}

// control returns the record of what people tell a plan, to be changed.
func (e *Engine) control(name string) *planRecord {
	name = e.planName(name)
	r := e.plans[name]
	if r == nil || name == spec.PlanDeploy && r.For != e.rec.Target {
		r = &planRecord{}
		if name == spec.PlanDeploy {
			r.For = e.rec.Target
		}
		e.plans[name] = r
	}
	return r
}

func (e *Engine) putPlan(name string) {
	name = e.planName(name)
	e.put(kindPlan, name, e.plans[name])
}

// tell changes the control of a plan, or of one of its phases.
func (e *Engine) tell(ctx context.Context, name, phase string, f func(p plan.Plan, whole *plan.Control, part *plan.PhaseControl) bool) (changed bool, err error) {
	err = e.change(ctx, func(now time.Time) error {
		p, _, err := e.view(name, now)
		if err != nil {
			return err
		}
		if e.rec.Uninstall {
			return fault.Newf("change plan", fault.Conflict, "service %s is being uninstalled", e.name)
		}
		if _, custom := e.customPlan(name); custom && (e.plans[name] == nil || e.plans[name].Run == "") {
			return fault.Newf("change plan", fault.Conflict, "plan %s is not started", name)
		}
		r := e.control(name)
		if phase == "" {
			changed = f(p, &r.Control, nil)
		} else {
			ph, _, ok := p.Find(phase, "")
			if !ok {
				return fault.Newf("find phase", fault.NotFound, "plan %s has no phase %q", name, phase)
			}
			pc := r.Phases[ph.ID]
			if changed = f(p, nil, &pc); changed {
				if r.Phases == nil {
					r.Phases = map[string]plan.PhaseControl{}
				}
				r.Phases[ph.ID] = pc
			}
		}
		if changed {
			e.putPlan(name)
		}
		return nil
	})
	return changed, err
}

// Interrupt keeps a plan, or one phase of it by name or id, from beginning
// further steps; changed is false if that is so already (HTTP 208).
func (e *Engine) Interrupt(ctx context.Context, name, phase string) (changed bool, err error) {
	return e.tell(ctx, name, phase, func(_ plan.Plan, whole *plan.Control, part *plan.PhaseControl) bool {
		was := false
		if whole != nil {
			was, whole.Interrupted = whole.Interrupted, true
		} else {
			was, part.Interrupted = part.Interrupted, true
		}
		return !was
	})
}

// goes is how often a canary is continued before all may go on.
const goes = 2

// Continue undoes Interrupt, and lets a canary go on.
func (e *Engine) Continue(ctx context.Context, name, phase string) (changed bool, err error) {
	// Only a canary counts how often it was continued: to tell another plan
	// again what it does already changes nothing.
	again := func(s plan.Strategy, n int) int {
		if !s.Canary() {
			return n
		}
		return min(n+1, goes)
	}
	return e.tell(ctx, name, phase, func(p plan.Plan, whole *plan.Control, part *plan.PhaseControl) bool {
		if part != nil {
			was := *part
			ph, _, _ := p.Find(phase, "") // it is there: part is its
			part.Interrupted, part.Go = false, again(ph.Strategy, part.Go)
			return was != *part
		}
		was, n := whole.Interrupted, whole.Go
		whole.Interrupted, whole.Go = false, again(p.Strategy, n)
		changed := was || n != whole.Go
		// A plan with one phase: who continues it means its canary.
		if len(p.Phases) == 1 {
			ph := &p.Phases[0]
			pc := whole.Phases[ph.ID]
			old := pc
			pc.Interrupted, pc.Go = false, again(ph.Strategy, pc.Go)
			if whole.Phases == nil {
				whole.Phases = map[string]plan.PhaseControl{}
			}
			whole.Phases[ph.ID] = pc
			changed = changed || old != pc
		}
		return changed
	})
}

// ForceComplete takes a step (by name or id), a phase (step "") or a plan
// (phase "") for done; changed is false if it is.
func (e *Engine) ForceComplete(ctx context.Context, name, phase, step string) (changed bool, err error) {
	err = e.steps(ctx, name, phase, step, func(st plan.Step) {
		switch i := e.instances[st.Instance]; {
		case spec.IsDeploy(name):
			if i == nil {
				i = &instance{id: st.Instance, rec: podRecord{Config: e.rec.Target, Reservation: newID()}}
				e.adopt(i)
			}
			if i.rec.Done[st.ID] != e.deployToken(st) {
				e.complete(i, st)
				changed = true
			}
		case name == spec.PlanRecovery:
			if i == nil {
				return
			}
			// What was to be brought back is not any more.
			i.rec.Anew, i.active, changed = false, false, true
			for _, n := range st.Tasks {
				if t := i.rec.Tasks[n]; t != nil {
					t.Reached = ""
				}
			}
			e.save(i)
		default:
			r := e.control(name)
			if !r.Done[st.ID] {
				if r.Done == nil {
					r.Done = map[string]bool{}
				}
				r.Done[st.ID], changed = true, true
				e.putPlan(name)
			}
		}
	})
	return changed, err
}

// Restart does a plan, phase or step again, in the order of its strategies.
func (e *Engine) Restart(ctx context.Context, name, phase, step string) error {
	return e.steps(ctx, name, phase, step, func(st plan.Step) {
		i := e.instances[st.Instance]
		if !spec.IsDeploy(name) && name != spec.PlanRecovery {
			r := e.control(name)
			delete(r.Done, st.ID)
			delete(r.Begun, st.ID)
			e.putPlan(name)
		}
		if i == nil {
			return
		}
		if spec.IsDeploy(name) {
			delete(i.rec.Done, st.ID)
			if i.rec.Step == st.ID {
				i.rec.Step = ""
			}
		}
		i.fault = ""
		for _, n := range st.Tasks {
			if t := i.rec.Tasks[n]; t != nil {
				t.Failures, t.Retry = 0, time.Time{}
				if name != spec.PlanRecovery && t.Reached != "" {
					t.Reached, t.Token = stale, stale
				}
			}
		}
		e.save(i)
	})
}

// steps does f with the steps of a plan that are meant.
func (e *Engine) steps(ctx context.Context, name, phase, step string, f func(plan.Step)) error {
	return e.change(ctx, func(now time.Time) error {
		p, _, err := e.view(name, now)
		if err != nil {
			return err
		}
		if e.rec.Uninstall || name == spec.PlanDecommission {
			return fault.Newf("change plan", fault.Conflict, "plan %s cannot be changed so", name)
		}
		if _, custom := e.customPlan(name); custom && (e.plans[name] == nil || e.plans[name].Run == "") {
			return fault.Newf("change plan", fault.Conflict, "plan %s is not started", name)
		}
		all, ok := p.Select(phase, step)
		if !ok {
			return fault.Newf("find step", fault.NotFound, "plan %s has no phase %q with step %q", name, phase, step)
		}
		for _, st := range all {
			f(st)
		}
		return nil
	})
}

// StartPlan starts a plan of the spec's other than deploy, with variables for
// its tasks; Conflict while it runs.
func (e *Engine) StartPlan(ctx context.Context, name string, env map[string]string) error {
	return e.change(ctx, func(now time.Time) error {
		const op = "start plan"
		if e.rec.Uninstall {
			return fault.Newf(op, fault.Conflict, "service %s is being uninstalled", e.name)
		}
		_, v, err := e.view(name, now)
		if err != nil {
			return err
		}
		if _, custom := e.customPlan(name); !custom {
			return fault.Newf(op, fault.Conflict, "plan %s runs by itself; restart it if it is to be done again", name)
		}
		if r := e.plans[name]; r != nil && r.Run != "" && v.Status != service.Complete {
			return fault.Newf(op, fault.Conflict, "plan %s runs already; stop it first", name)
		}
		e.plans[name] = &planRecord{Run: newID(), Env: env}
		e.putPlan(name)
		return nil
	})
}

// StopPlan ends such a plan and kills its tasks.
func (e *Engine) StopPlan(ctx context.Context, name string) error {
	return e.change(ctx, func(time.Time) error {
		if _, custom := e.customPlan(name); !custom {
			return fault.Newf("stop plan", fault.NotFound, "service %s has no plan %q that people start", e.name, name)
		}
		r := e.plans[name]
		if r == nil || r.Run == "" {
			return fault.Newf("stop plan", fault.Conflict, "plan %s is not started", name)
		}
		for _, i := range e.instances {
			e.stop(i, "plan "+name+" is stopped", func(_ string, t *taskRecord) bool { return t.Token != "run:"+r.Run })
		}
		delete(e.plans, name)
		e.drop(kindPlan, name)
		return nil
	})
}

// instanceNamed returns an instance that people name.
func (e *Engine) instanceNamed(name string) (*instance, error) {
	if at, ok := plan.Parse(name); ok {
		if i := e.instances[at]; i != nil {
			return i, nil
		}
	}
	return nil, fault.Newf("find pod", fault.NotFound, "service %s has no pod %q", e.name, name)
}

// onPod changes an instance that is there to stay.
func (e *Engine) onPod(ctx context.Context, name string, f func(i *instance, now time.Time) ([]string, error)) (r service.PodResult, err error) {
	r.Pod, r.Tasks = name, []string{}
	err = e.change(ctx, func(now time.Time) error {
		i, err := e.instanceNamed(name)
		if err != nil {
			return err
		}
		if e.rec.Uninstall || i.rec.Decommission {
			return fault.Newf("change pod", fault.Conflict, "pod %s is being removed", name)
		}
		tasks, err := f(i, now)
		for _, t := range tasks {
			r.Tasks = append(r.Tasks, i.id.String()+"-"+t)
		}
		return err
	})
	return r, err
}

// RestartPod restarts an instance where it is.
func (e *Engine) RestartPod(ctx context.Context, name string) (service.PodResult, error) {
	return e.onPod(ctx, name, func(i *instance, now time.Time) ([]string, error) {
		for _, t := range i.rec.Tasks {
			t.Failures, t.Retry = 0, time.Time{}
		}
		i.fault = ""
		live := i.live()
		e.stop(i, "restarted by hand", nil)
		e.save(i)
		return live, nil
	})
}

// ReplacePod gives an instance up, with its volumes, and makes it anew
// elsewhere.
func (e *Engine) ReplacePod(ctx context.Context, name string) (service.PodResult, error) {
	return e.onPod(ctx, name, func(i *instance, now time.Time) ([]string, error) {
		live := i.live()
		if i.rec.Replace == "" && i.rec.Agent != "" {
			i.rec.Replace = "replaced by hand"
			e.save(i)
		}
		return live, nil
	})
}

// PausePod replaces the commands of an instance's tasks (all if none is named)
// by one that does nothing; Conflict if they are.
func (e *Engine) PausePod(ctx context.Context, name string, tasks []string) (service.PodResult, error) {
	return e.pause(ctx, name, tasks, true)
}

// ResumePod undoes PausePod.
func (e *Engine) ResumePod(ctx context.Context, name string, tasks []string) (service.PodResult, error) {
	return e.pause(ctx, name, tasks, false)
}

func (e *Engine) pause(ctx context.Context, name string, tasks []string, on bool) (service.PodResult, error) {
	return e.onPod(ctx, name, func(i *instance, _ time.Time) ([]string, error) {
		var known, changed []string
		for t, def := range e.podOf(i).Tasks.All() {
			if def.Goal == service.Running {
				known = append(known, t)
			}
		}
		for _, t := range tasks {
			if !slices.Contains(known, t) {
				return nil, fault.Newf("pause pod", fault.Invalid, "pod %s has no task %q that runs for ever; it has %v", name, t, known)
			}
		}
		if len(tasks) == 0 {
			tasks = known
		}
		for _, t := range tasks {
			if i.rec.Paused[t] != on {
				changed = append(changed, t)
			}
		}
		if len(changed) == 0 {
			return nil, fault.Newf("pause pod", fault.Conflict, "nothing of pod %s is to be changed: paused are %s", name, pausedText(i))
		}
		if i.rec.Paused == nil {
			i.rec.Paused = map[string]bool{}
		}
		for _, t := range changed {
			if on {
				i.rec.Paused[t] = true
			} else {
				delete(i.rec.Paused, t)
			}
		}
		e.stop(i, map[bool]string{true: "paused by hand", false: "resumed by hand"}[on], func(t string, _ *taskRecord) bool { return !slices.Contains(changed, t) })
		e.save(i)
		return changed, nil
	})
}

func pausedText(i *instance) string {
	if len(i.rec.Paused) == 0 {
		return "none"
	}
	return fmt.Sprint(len(i.rec.Paused), " tasks")
}
