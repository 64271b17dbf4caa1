package engine

import (
	"slices"
	"time"

	"dcos.example/dcos/runtime/api/marathon"
	"dcos.example/dcos/runtime/orchestrator/deployment"
	"dcos.example/dcos/runtime/orchestrator/event"
	"dcos.example/dcos/runtime/orchestrator/launch"
	"dcos.example/dcos/runtime/orchestrator/spec"
	"dcos.example/dcos/runtime/placement"
)

// mode is what is being done with an app.
//
//	steady ──deployment──▶ waiting ──its step──▶ resizing │ replacing │ ending
//	   ▲                                                       │
//	   └──────────────── deployment over ◀──── done ◀──────────┘
type mode uint8

const (
	steady    mode = iota // keep the size
	waiting               // a deployment will get to it: keep it as it was
	resizing              // ScaleApplication
	replacing             // RestartApplication
	ending                // StopApplication
)

// running is a deployment that is not over.
type running struct {
	rec      deploymentRecord
	from, to map[spec.AppID]*marathon.App // nil entries: no app
	step     int                          // from 0
	pending  map[spec.AppID]deployment.Kind
}

// begin starts d at the step after d.step.
func (e *Engine) begin(d *running) {
	e.deployments[d.rec.ID] = d
	for id := range d.rec.Apps {
		e.lockedBy[id] = d.rec.ID
		a := e.app(id)
		a.mode = waiting
		a.activate(d.from[id])
	}
	for n, step := range d.rec.Steps {
		if n > d.step {
			break
		}
		for _, act := range step { // done before this term
			e.enter(d, act, false)
		}
	}
	e.nextStep(d)
}

// enter puts an app into the mode of its action.
func (e *Engine) enter(d *running, act deployment.Action, fresh bool) {
	a := e.app(act.App)
	e.markDirty(act.App)
	switch act.Kind {
	case deployment.Start:
		return
	case deployment.Stop:
		a.mode = ending
		a.activate(nil)
		e.setWant(a, 0, time.Now())
		return
	case deployment.Scale:
		a.mode = resizing
	case deployment.Restart:
		a.mode = replacing
	}
	a.activate(d.to[act.App])
	if fresh {
		a.delay = launch.Delay{}
	}
}

// nextStep moves d on; with nothing left it ends it.
func (e *Engine) nextStep(d *running) {
	for {
		if d.step >= 0 && d.step < len(d.rec.Steps) && d.pending != nil {
			e.publish("deployment_step_success", event.Fields{"plan": lightPlan(d), "currentStep": stepOf(d)})
		}
		d.step++
		d.pending = map[spec.AppID]deployment.Kind{}
		if d.step >= len(d.rec.Steps) {
			e.finish(d)
			return
		}
		e.put(kindDeploymentStatus, d.rec.ID, deploymentStatusRecord{d.step})
		e.publish("deployment_info", event.Fields{"plan": lightPlan(d), "currentStep": stepOf(d)})
		for _, act := range d.rec.Steps[d.step] {
			e.enter(d, act, true)
			if act.Kind != deployment.Start { // starting at zero is nothing to do
				d.pending[act.App] = act.Kind
			}
		}
		if len(d.pending) > 0 {
			return
		}
	}
}

// done notes that an app's action is done.
func (e *Engine) done(a *app) {
	d := e.deployments[e.lockedBy[a.id]]
	if d == nil || d.pending[a.id] == "" {
		return
	}
	if d.pending[a.id] == deployment.Stop {
		e.publish("app_terminated_event", event.Fields{"appId": a.id})
	}
	delete(d.pending, a.id)
	if len(d.pending) == 0 {
		e.nextStep(d)
	}
}

// finish ends a deployment that reached its target.
func (e *Engine) finish(d *running) {
	e.unlock(d)
	e.publish("deployment_success", event.Fields{"id": d.rec.ID, "plan": lightPlan(d)})
}

// cancel ends a deployment where it is.
func (e *Engine) cancel(d *running, reason string) {
	e.unlock(d)
	e.publish("deployment_failed", event.Fields{"id": d.rec.ID, "plan": lightPlan(d), "reason": reason})
}

func (e *Engine) unlock(d *running) {
	delete(e.deployments, d.rec.ID)
	e.drop(kindDeployment, d.rec.ID)
	e.drop(kindDeploymentStatus, d.rec.ID)
	for id := range d.rec.Apps {
		if e.lockedBy[id] != d.rec.ID {
			continue
		}
		delete(e.lockedBy, id)
		a := e.app(id)
		a.mode = steady
		a.activate(e.tree.App(id))
		e.markDirty(id)
	}
}

// evaluateDirty decides about every app that something happened to, until
// nothing more follows from it.
func (e *Engine) evaluateDirty(now time.Time) {
	for len(e.dirty) > 0 {
		ids := make([]spec.AppID, 0, len(e.dirty))
		for id := range e.dirty {
			ids = append(ids, id)
		}
		clear(e.dirty)
		slices.Sort(ids)
		for _, id := range ids {
			if a := e.apps[id]; a != nil {
				e.evaluate(a, now)
			}
		}
	}
	for _, id := range e.later {
		e.markDirty(id)
	}
	e.later = e.later[:0]
}

// rest is how long a decision that looked at all instances of an app is
// followed by none, as a multiple of what it took: events of large apps are
// handled many at once.
const rest = 4

// evaluate asks the decider about one app and carries out what it says. It
// costs O(1) while nothing must be killed, else O(instances of the app), once
// for all events since the last turn.
func (e *Engine) evaluate(a *app, now time.Time) {
	if a.active == nil && a.mode == waiting {
		return // it will be started
	}
	d, ok := e.quick(a)
	if !ok {
		if now.Before(a.rested) {
			e.later = append(e.later, a.id)
			e.lookAgain(a.rested)
			return
		}
		start := time.Now()
		d = e.decide(a, now)
		a.rested = start.Add((rest + 1) * time.Since(start))
	}
	for _, id := range d.Kill {
		if i := a.instances[id]; i != nil {
			e.kill(i, why(a.mode, i))
		}
	}
	e.setWant(a, d.Launch, now)
	e.watchMove(a, now)
	if a.active != nil && len(a.active.ReadinessChecks) > 0 {
		e.probe(a)
	}
	if d.Done {
		e.done(a)
	}
	if a.active == nil && len(a.instances) == 0 && e.lockedBy[a.id] == "" && e.tree.App(a.id) == nil {
		e.drop(kindAppStatus, string(a.id))
		delete(e.apps, a.id)
		delete(e.wants, a.id)
	}
}

// quick decides from counts.
func (e *Engine) quick(a *app) (deployment.Decision, bool) {
	switch {
	case a.active == nil:
		all := a.old.Plus(a.current)
		return deployment.Decision{Done: all.Total == 0}, all.Living == 0
	case a.leaving > 0:
		return deployment.Decision{}, false
	case a.mode == replacing:
		return deployment.QuickReplace(bounds(a.active), a.old, a.current)
	default:
		return deployment.QuickResize(bounds(a.active), a.old.Plus(a.current))
	}
}

// decide decides from the list of instances.
func (e *Engine) decide(a *app, now time.Time) deployment.Decision {
	switch {
	case a.active == nil:
		return deployment.End(a.view(isOld))
	case a.mode == replacing:
		v := a.view(isOld)
		d := deployment.Replace(v)
		if a.leaving > 0 && a.leaving == len(v.Old) {
			// Nothing but moving is left; that goes on without the deployment.
			d.Done = d.Done || deployment.Resize(v).Done
		}
		return d
	case a.leaving > 0:
		v := a.view(func(i *instance) bool { return i.left })
		v.Stuck = a.stuck(now)
		return deployment.Move(v)
	default:
		return deployment.Resize(a.view(isOld))
	}
}

func bounds(def *marathon.App) deployment.View {
	return deployment.View{
		Target: int(def.Instances), OldestFirst: def.KillSelection == marathon.OldestFirst,
		MinHealth: def.UpgradeStrategy.MinimumHealthCapacity, MaxOver: def.UpgradeStrategy.MaximumOverCapacity,
	}
}

func isOld(i *instance) bool { return i.isOld }

func why(m mode, i *instance) string {
	switch {
	case m == ending:
	case i.left:
		return "its agent is to be unavailable"
	}
	switch m {
	case replacing:
		return "another version replaces it"
	case ending:
		return "its app is removed"
	}
	return "there are more instances than wanted"
}

// view is what the decider sees of an app, with the instances that old picks
// as those to be replaced.
func (a *app) view(old func(*instance) bool) deployment.View {
	v := deployment.View{}
	if a.active != nil {
		v = bounds(a.active)
	}
	for _, i := range a.instances {
		if i.inactive && a.active != nil {
			continue // it is being replaced
		}
		in := deployment.Instance{
			ID: i.rec.ID, Condition: i.condition(), Ready: i.ready(a.active), Killing: i.stopping(),
			Since: i.rec.Launched.UnixNano(), Sick: i.st.Health.Known && !i.st.Health.Alive && !i.st.Health.FirstSuccess.IsZero(),
		}
		if a.active != nil {
			in.Spread = placement.Spread(a.active.Constraints, i.rec.Place)
		}
		if !old(i) {
			v.Current = append(v.Current, in)
		} else {
			v.Old = append(v.Old, in)
		}
	}
	return v
}

func lightPlan(d *running) marathon.Plan {
	return marathon.Plan{ID: d.rec.ID, Version: d.rec.Version, Steps: wireSteps(d.rec.Steps)}
}

func stepOf(d *running) marathon.Step {
	return wireSteps(d.rec.Steps[d.step : d.step+1])[0]
}

func wireSteps(steps []deployment.Step) []marathon.Step {
	out := make([]marathon.Step, len(steps))
	for n, s := range steps {
		out[n].Actions = []marathon.Action{}
		for _, act := range s {
			out[n].Actions = append(out[n].Actions, marathon.Action{Action: string(act.Kind), App: string(act.App)})
		}
	}
	return out
}
