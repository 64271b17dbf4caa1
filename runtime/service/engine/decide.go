package engine

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"dcos.example/dcos/runtime/api/service"
	"dcos.example/dcos/runtime/service/plan"
	"dcos.example/dcos/runtime/service/spec"
	"dcos.example/dcos/runtime/task"
)

// want is an instance with tasks to launch now.
type want struct {
	i      *instance
	tasks  []string
	finish string            // token of tasks that run to their end in each plan
	env    map[string]string // of the plan
}

// decide looks at the whole service: it stops, forgets and makes anew what is
// to be, and returns what is to be launched, the deployment's first.
func (e *Engine) decide(now time.Time) []want {
	if e.rec.Uninstall {
		e.uninstall(now)
		e.pursueAll(now)
		return nil
	}
	e.retarget()
	e.replaceDue(now)
	var wants []want
	busy := map[plan.Instance]bool{}
	add := func(w *want) {
		if w == nil || busy[w.i.id] {
			return
		}
		busy[w.i.id] = true
		if len(w.tasks) > 0 && w.i.fault == "" {
			wants = append(wants, *w)
		}
	}
	_, v := e.deploy(now)
	for _, st := range v.Next {
		add(e.workDeploy(st, now))
	}
	e.decommission(v, now)
	for _, w := range e.recover(now) {
		add(&w)
	}
	for _, w := range e.custom(now) {
		add(&w)
	}
	e.pursueAll(now)
	e.trim()
	e.note(wants, now)
	return wants
}

func (e *Engine) pursueAll(now time.Time) {
	for _, i := range e.instances {
		e.pursue(i, now)
	}
}

// note keeps since when instances wait for offers.
func (e *Engine) note(wants []want, now time.Time) {
	waiting := map[*instance]bool{}
	for _, w := range wants {
		waiting[w.i] = true
		if w.i.wanted.IsZero() {
			w.i.wanted = now
			e.flow.again = true
		}
	}
	for _, i := range e.instances {
		if !waiting[i] {
			i.wanted, i.reason = time.Time{}, ""
		}
	}
}

// extra reports whether an instance is beyond what the target wants.
func (e *Engine) extra(i *instance) bool {
	pod := e.target().Spec.Pods.Get(i.id.Pod)
	return pod == nil || i.id.Index >= pod.Count
}

// retarget moves instances that the target does not change to it, and forgets
// steps that it does not have. It writes each instance at most once for each
// configuration.
func (e *Engine) retarget() {
	t := e.target()
	e.deployPlan()
	ids := e.deploying.ids
	for _, i := range e.instances {
		changed := false
		if i.rec.Config != t.ID && !e.extra(i) && i.hash(e.configOf(i)) == i.hash(t) {
			i.rec.Config, changed = t.ID, true
		}
		for _, tr := range i.rec.Tasks {
			if tr.Config != i.rec.Config && e.configs[tr.Config] != nil && i.hash(e.configs[tr.Config]) == i.hash(e.configOf(i)) {
				tr.Config, changed = i.rec.Config, true
			}
		}
		if i.rec.Step != "" {
			if i.rec.Config != t.ID || !ids[i.rec.Step] {
				i.rec.Step, i.fault, changed = "", "", true // the new target begins with it anew
			}
		}
		if changed {
			e.save(i)
		}
	}
}

// deployPlan is the plan of the target: deploy, or update if the service was
// installed before and has such a plan.
func (e *Engine) deployPlan() plan.Plan {
	installed := e.status.First != "" && e.status.First != e.rec.Target
	if c := &e.deploying; c.target != e.rec.Target || c.installed != installed {
		p := plan.Deploy(e.target().Spec, installed)
		*c = cachedPlan{e.rec.Target, installed, p, map[string]bool{}}
		for _, ph := range p.Phases {
			for _, st := range ph.Steps {
				c.ids[st.ID] = true
			}
		}
	}
	return e.deploying.plan
}

// deployToken is what a step of deploy is complete for.
func (e *Engine) deployToken(st plan.Step) string {
	t := e.target()
	for _, name := range st.Tasks {
		if tok := e.taskToken(st, name); tok != "pod:"+t.hash[st.Instance.Pod] {
			return tok
		}
	}
	return "pod:" + t.hash[st.Instance.Pod]
}

func (e *Engine) taskToken(st plan.Step, name string) string {
	t := e.target()
	return token(t, st.Instance.Pod, name, "config:"+t.ID)
}

// deploy settles what is complete and evaluates the plan.
func (e *Engine) deploy(now time.Time) (plan.Plan, plan.View) {
	p := e.deployPlan()
	for _, ph := range p.Phases {
		for _, st := range ph.Steps {
			e.settleStep(st)
		}
	}
	v := plan.Evaluate(p, func(st plan.Step) plan.Seen { return e.seeDeploy(st, now) }, e.deployControl())
	if v.Status == service.Complete && e.status.Deployed != e.rec.Target {
		e.log.Info("deployed", "config", e.rec.Target)
		e.status.Deployed = e.rec.Target
		if e.status.First == "" {
			e.status.First = e.rec.Target
		}
		e.putStatus()
	}
	return p, v
}

// deployControl is what people told the deployment of the present target.
func (e *Engine) deployControl() plan.Control {
	if r := e.plans[spec.PlanDeploy]; r != nil && r.For == e.rec.Target {
		return r.Control
	}
	return plan.Control{}
}

// settleStep marks a step whose tasks have all reached their goals.
func (e *Engine) settleStep(st plan.Step) {
	i := e.instances[st.Instance]
	if i == nil || i.rec.Replace != "" || i.rec.Done[st.ID] == e.deployToken(st) {
		return
	}
	for _, name := range st.Tasks {
		if !i.reached(name, e.taskToken(st, name)) {
			return
		}
	}
	e.complete(i, st)
}

// complete marks a step as done.
func (e *Engine) complete(i *instance, st plan.Step) {
	if i.rec.Done == nil {
		i.rec.Done = map[string]string{}
	}
	i.rec.Done[st.ID] = e.deployToken(st)
	if i.rec.Step == st.ID {
		i.rec.Step = ""
	}
	i.fault = ""
	e.save(i)
}

// deployed reports whether all steps of deploy for an instance are complete.
func (e *Engine) deployed(i *instance) bool {
	for _, ph := range e.deployPlan().Phases {
		for _, st := range ph.Steps {
			if st.Instance == i.id && i.rec.Done[st.ID] != e.deployToken(st) {
				return false
			}
		}
	}
	return true
}

func (e *Engine) seeDeploy(st plan.Step, now time.Time) plan.Seen {
	i := e.instances[st.Instance]
	switch {
	case i == nil:
		return plan.Seen{Status: service.Pending}
	case i.rec.Done[st.ID] == e.deployToken(st):
		return plan.Seen{Status: service.Complete, Down: e.down(i)}
	case i.rec.Step != st.ID:
		return plan.Seen{Status: service.Pending, Down: e.down(i)}
	}
	return e.progress(i, st.Tasks, func(name string) string { return e.taskToken(st, name) }, now)
}

// progress is how far work on tasks of an instance is that has begun.
func (e *Engine) progress(i *instance, names []string, token func(string) string, now time.Time) plan.Seen {
	s := plan.Seen{Status: service.Started}
	worse := func(to service.PlanStatus, message string) {
		order := []service.PlanStatus{service.Started, service.Starting, service.Prepared, service.Delayed, service.Error}
		if slices.Index(order, to) > slices.Index(order, s.Status) {
			s.Status = to
			s.Message = message
		} else if s.Message == "" && to == s.Status {
			s.Message = message
		}
	}
	if i.fault != "" {
		worse(service.Error, i.fault)
	}
	if i.stopping() {
		worse(service.Prepared, "waits for tasks to end")
	}
	if !i.rec.Away.IsZero() {
		worse(service.Prepared, e.awayText(i))
	}
	pod := e.podOf(i)
	for _, name := range names {
		def := pod.Tasks.Get(name)
		t := i.rec.Tasks[name]
		done := i.reached(name, token(name))
		switch {
		case done && (def == nil || def.Goal != service.Running || t.live()):
		case t.live() && i.rec.Paused[name]:
			worse(service.Started, "task "+name+" is paused")
		case t.live() && (t.state() == task.Running || t.state() == task.Killing):
			worse(service.Started, t.Message)
		case t.live():
			worse(service.Starting, t.Message)
		case t != nil && now.Before(t.Retry):
			worse(service.Delayed, fmt.Sprintf("task %s has failed %d times (%s: %s), tried again at %s",
				name, t.Failures, t.State, t.Message, t.Retry.UTC().Format(time.RFC3339)))
		default:
			worse(service.Prepared, i.reason)
		}
	}
	return s
}

func (e *Engine) awayText(i *instance) string {
	text := fmt.Sprintf("agent %s cannot be reached since %s", i.rec.Place.Host, i.rec.Away.UTC().Format(time.RFC3339))
	if after, ok := e.replaceAfter(i); ok {
		return text + "; the instance is made anew at " + i.rec.Away.Add(after).UTC().Format(time.RFC3339)
	}
	return text + "; its data is there, so it is waited for until somebody replaces the pod"
}

// workDeploy begins a step or goes on with it.
func (e *Engine) workDeploy(st plan.Step, now time.Time) *want {
	t := e.target()
	i := e.instances[st.Instance]
	if i == nil {
		i = &instance{id: st.Instance, rec: podRecord{Config: t.ID, Reservation: newID()}}
		e.adopt(i)
	}
	if i.rec.Replace != "" || i.rec.Step != "" && i.rec.Step != st.ID {
		return nil
	}
	if i.rec.Step == "" {
		i.rec.Step, i.rec.Config, i.rec.Anew, i.fault = st.ID, t.ID, false, ""
		e.save(i)
		e.log.Info("step begins", "step", st.Name, "config", t.ID)
	}
	e.stop(i, "its configuration changes", func(_ string, tr *taskRecord) bool {
		return tr.Token != stale && e.configs[tr.Config] != nil && i.hash(e.configs[tr.Config]) == i.hash(t)
	})
	w := e.launchable(i, st.Tasks, func(name string) string { return e.taskToken(st, name) }, now)
	w.finish = "config:" + t.ID
	return w
}

// launchable lists those of an instance's tasks that are to be launched now.
func (e *Engine) launchable(i *instance, names []string, token func(string) string, now time.Time) *want {
	w := &want{i: i}
	if i.stopping() {
		return w
	}
	pod := e.podOf(i)
	for _, name := range names {
		def, t := pod.Tasks.Get(name), i.rec.Tasks[name]
		switch {
		case def == nil || t.live():
			continue
		case t.away(): // nothing is started twice; it may come back
			return &want{i: i}
		case def.Goal != service.Running && i.reached(name, token(name)):
			continue
		case t != nil && now.Before(t.Retry):
			e.lookAgain(t.Retry)
			continue
		}
		w.tasks = append(w.tasks, name)
	}
	return w
}

// recovery lists what is to be brought back, as a plan: instances that are made
// anew by their steps, and tasks that ran and do not run.
func (e *Engine) recovery() plan.Plan {
	p := plan.Plan{Name: spec.PlanRecovery, Strategy: plan.Parallel}
	for _, i := range e.sorted() {
		if i.rec.Step != "" || i.rec.Replace != "" || i.rec.Decommission {
			continue
		}
		if i.rec.Anew {
			p.Phases = append(p.Phases, plan.NewPhase(p.Name, i.id.String(), plan.Serial, plan.Anew(e.configOf(i).Spec, i.id)...))
			continue
		}
		if names := e.fallen(i); len(names) > 0 {
			p.Phases = append(p.Phases, plan.NewPhase(p.Name, i.id.String(), plan.Serial, plan.NewStep(p.Name, i.id.String(), i.id, names)))
		}
	}
	return p
}

// fallen lists the tasks of an instance that were in service and are not.
func (e *Engine) fallen(i *instance) []string {
	var out []string
	c := e.configOf(i)
	for name, def := range e.podOf(i).Tasks.All() {
		t := i.rec.Tasks[name]
		if def.Goal != service.Running || !i.reached(name, token(c, i.id.Pod, name, "")) {
			continue
		}
		if t.live() && t.Stop == "" && (t.Idle || ready(def, t)) {
			continue
		}
		out = append(out, name)
	}
	return out
}

func (e *Engine) recoveryToken(i *instance, name string) string {
	return token(e.configOf(i), i.id.Pod, name, "replace:"+i.rec.Reservation)
}

func (e *Engine) recoveryView(now time.Time) (plan.Plan, plan.View) {
	p := e.recovery()
	var control plan.Control
	if r := e.plans[spec.PlanRecovery]; r != nil {
		control = r.Control
	}
	return p, plan.Evaluate(p, func(st plan.Step) plan.Seen { return e.seeRecovery(st, now) }, control)
}

func (e *Engine) seeRecovery(st plan.Step, now time.Time) plan.Seen {
	i := e.instances[st.Instance]
	tok := func(name string) string { return e.recoveryToken(i, name) }
	if i.rec.Anew {
		done := true
		for _, name := range st.Tasks {
			done = done && i.reached(name, tok(name))
		}
		if done {
			return plan.Seen{Status: service.Complete}
		}
	}
	if !i.active {
		return plan.Seen{Status: service.Pending}
	}
	if i.rec.Anew && !e.current(st) {
		return plan.Seen{Status: service.Pending}
	}
	// What comes back has its token already: it is looked at as it runs.
	return e.progress(i, st.Tasks, func(name string) string {
		if i.rec.Anew {
			return tok(name)
		}
		return stale
	}, now)
}

// current reports whether a step by which an instance is made anew is the first
// that is not done.
func (e *Engine) current(st plan.Step) bool {
	i := e.instances[st.Instance]
	for _, s := range plan.Anew(e.configOf(i).Spec, i.id) {
		for _, name := range s.Tasks {
			if !i.reached(name, e.recoveryToken(i, name)) {
				return s.ID == st.ID
			}
		}
	}
	return false
}

// recover works on the recovery plan.
func (e *Engine) recover(now time.Time) []want {
	for _, i := range e.instances {
		if !i.rec.Anew {
			continue
		}
		done := true
		for _, st := range plan.Anew(e.configOf(i).Spec, i.id) {
			for _, name := range st.Tasks {
				done = done && i.reached(name, e.recoveryToken(i, name))
			}
		}
		if done {
			i.rec.Anew, i.active = false, false
			e.log.Info("instance is made anew and in service", "pod", i.id.String())
			e.save(i)
		}
	}
	p, v := e.recoveryView(now)
	under := map[plan.Instance]bool{}
	for _, ph := range p.Phases {
		for _, st := range ph.Steps {
			under[st.Instance] = true
		}
	}
	for _, i := range e.instances {
		if !under[i.id] {
			i.active = false
		}
	}
	var wants []want
	for _, st := range v.Next {
		i := e.instances[st.Instance]
		i.active = true
		w := e.launchable(i, st.Tasks, func(name string) string { return e.recoveryToken(i, name) }, now)
		w.finish = "replace:" + i.rec.Reservation
		wants = append(wants, *w)
	}
	return wants
}

// replaceAfter is how long an instance's agent may be away before the instance
// is made anew; ok is false if that never happens by itself.
func (e *Engine) replaceAfter(i *instance) (time.Duration, bool) {
	if r := e.target().Spec.Replacement; r != nil && r.Timeout != nil {
		return time.Duration(*r.Timeout) * time.Second, true
	}
	made := false
	for _, v := range i.rec.Volumes {
		made = made || v.Made
	}
	return service.DefaultReplaceAfter * time.Second, !made
}

// replaceDue gives up instances whose agents were away for too long, and makes
// anew those that nobody runs any more.
func (e *Engine) replaceDue(now time.Time) {
	for _, i := range e.sorted() {
		if i.rec.Replace == "" && !i.rec.Away.IsZero() && i.rec.Agent != "" && !i.rec.Decommission {
			after, ok := e.replaceAfter(i)
			due := i.rec.Away.Add(after)
			if r := e.target().Spec.Replacement; r != nil && due.Before(e.status.Replaced.Add(time.Duration(r.Pause)*time.Second)) {
				due = e.status.Replaced.Add(time.Duration(r.Pause) * time.Second)
			}
			switch {
			case !ok:
			case now.Before(due):
				e.lookAgain(due)
			default:
				i.rec.Replace = fmt.Sprintf("agent %s could not be reached for %s", i.rec.Place.Host, now.Sub(i.rec.Away).Round(time.Second))
				e.status.Replaced = now
				e.putStatus()
				e.save(i)
			}
		}
		if i.rec.Replace != "" {
			e.stop(i, "the instance is made anew: "+i.rec.Replace, nil)
			if len(i.live()) == 0 {
				e.renew(i, now)
			}
		}
	}
}

// trim forgets configurations that nothing names, but for the newest.
func (e *Engine) trim() {
	if len(e.configs) <= keptConfigs {
		return
	}
	used := map[string]bool{e.rec.Target: true, e.status.First: true, e.status.Deployed: true}
	for _, i := range e.instances {
		used[i.rec.Config] = true
		for _, t := range i.rec.Tasks {
			used[t.Config] = true
		}
	}
	for n, c := range newest(e.configs) {
		if n >= keptConfigs && !used[c.ID] {
			delete(e.configs, c.ID)
			e.drop(kindConfig, c.ID)
		}
	}
}

// custom works on the plans that people started.
func (e *Engine) custom(now time.Time) []want {
	var wants []want
	for _, name := range slices.Sorted(maps.Keys(e.plans)) {
		r := e.plans[name]
		if r.Run == "" {
			continue
		}
		p, ok := e.customPlan(name)
		if !ok {
			delete(e.plans, name)
			e.drop(kindPlan, name)
			continue
		}
		for _, ph := range p.Phases {
			for _, st := range ph.Steps {
				e.settleRun(name, r, st)
			}
		}
		v := plan.Evaluate(p, func(st plan.Step) plan.Seen { return e.seeCustom(r, st, now) }, r.Control)
		for _, st := range v.Next {
			i := e.instances[st.Instance]
			if !e.idle(i) {
				continue
			}
			if !r.Begun[st.ID] {
				if r.Begun == nil {
					r.Begun = map[string]bool{}
				}
				r.Begun[st.ID] = true
				e.put(kindPlan, name, r)
			}
			w := e.launchable(i, st.Tasks, func(n string) string { return token(e.configOf(i), i.id.Pod, n, "run:"+r.Run) }, now)
			w.finish, w.env = "run:"+r.Run, r.Env
			wants = append(wants, *w)
		}
	}
	return wants
}

// customPlan returns a plan of the target's that people start.
func (e *Engine) customPlan(name string) (plan.Plan, bool) {
	if spec.IsDeploy(name) || name == spec.PlanReplace {
		return plan.Plan{}, false
	}
	return plan.Of(e.target().Spec, name)
}

// idle reports whether nothing else is being done with an instance.
func (e *Engine) idle(i *instance) bool {
	return i != nil && i.rec.Step == "" && i.rec.Replace == "" && !i.rec.Anew && !i.rec.Decommission && !i.active && i.rec.Away.IsZero()
}

func (e *Engine) settleRun(name string, r *planRecord, st plan.Step) {
	i := e.instances[st.Instance]
	if r.Done[st.ID] || !r.Begun[st.ID] || i == nil {
		return
	}
	for _, t := range st.Tasks {
		if !i.reached(t, token(e.configOf(i), i.id.Pod, t, "run:"+r.Run)) {
			return
		}
	}
	if r.Done == nil {
		r.Done = map[string]bool{}
	}
	r.Done[st.ID] = true
	e.put(kindPlan, name, r)
}

func (e *Engine) seeCustom(r *planRecord, st plan.Step, now time.Time) plan.Seen {
	i := e.instances[st.Instance]
	switch {
	case r.Done[st.ID]:
		return plan.Seen{Status: service.Complete}
	case i == nil:
		return plan.Seen{Status: service.Pending, Message: "the instance is not deployed yet"}
	case !r.Begun[st.ID]:
		return plan.Seen{Status: service.Pending}
	case !e.idle(i):
		return plan.Seen{Status: service.Prepared, Message: "waits for other work on " + i.id.String()}
	}
	return e.progress(i, st.Tasks, func(n string) string { return token(e.configOf(i), i.id.Pod, n, "run:"+r.Run) }, now)
}
