package engine

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/scheduler"
	"dcos.example/dcos/runtime/api/service"
	"dcos.example/dcos/runtime/placement"
	"dcos.example/dcos/runtime/resource"
	"dcos.example/dcos/runtime/service/launch"
	"dcos.example/dcos/runtime/service/match"
	"dcos.example/dcos/runtime/service/plan"
	"dcos.example/dcos/runtime/service/spec"
)

const (
	// hold is how long offers wait for those of other agents, so that instances
	// are spread over all of them.
	hold = 4 * time.Millisecond
	// refuse is for how long the master keeps what we declined. It does not
	// delay anything: a revive clears it, and so do freed resources.
	refuse = 120 * time.Second
	// reviveEvery bounds how often the allocator is asked to start over.
	reviveEvery = 100 * time.Millisecond
	reviveAgain = time.Second // after a revive that the master did not take
	// reconcileEvery is how often the master is asked about all tasks.
	reconcileEvery = 10 * time.Minute
	// keptOutcomes is how many outcomes of offers the debug pages show.
	keptOutcomes = 200
)

// flow is whether offers come.
type flow struct {
	epoch      uint64 // counts subscriptions
	connected  bool
	since      time.Time // of the subscription
	flowing    bool      // the master was asked to send offers
	revived    time.Time // when last
	after      time.Time // no revive before
	again      bool      // something new is wanted since
	reconciled time.Time
}

// debug is what became of offers lately.
type debug struct {
	outcomes []service.OfferOutcome // a ring
	next     int
	rejected map[string]int
}

// offered is an agent's offers with what the engine knows of the agent.
type offered struct {
	match.Agent
	address string
}

// gather joins the held offers of each agent.
func (e *Engine) gather(now time.Time) []offered {
	by := map[string]*offered{}
	for _, o := range e.offers {
		rs, err := resource.FromProto(o.GetResources())
		if err != nil {
			e.log.Warn("offer not understood", "offer", o.GetId().GetValue(), "err", err)
			continue
		}
		a := by[o.GetAgentId().GetValue()]
		if a == nil {
			a = &offered{address: o.GetUrl().GetAddress().GetIp()}
			a.ID, a.Place = o.GetAgentId().GetValue(), placement.Of(o.GetHostname(), o.GetDomain(), o.GetAttributes())
			if a.address == "" {
				a.address = o.GetHostname()
			}
			by[a.ID] = a
		}
		a.Offers = append(a.Offers, o.GetId())
		a.Resources = a.Resources.Add(rs.NonRevocable().Unallocate())
		if u := o.GetUnavailability(); u != nil {
			start := time.Unix(0, u.GetStart().GetNanoseconds())
			end := start.Add(time.Duration(u.GetDuration().GetNanoseconds()))
			a.Unavailable = a.Unavailable || u.Duration == nil || now.Before(end)
		}
	}
	out := make([]offered, 0, len(by))
	for _, a := range by {
		out = append(out, *a)
	}
	slices.SortFunc(out, func(a, b offered) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// matchHeld serves the wants with the held offers, once the oldest has waited
// long enough.
func (e *Engine) matchHeld(now time.Time, wants []want) {
	if len(e.offers) == 0 {
		return
	}
	if now.Sub(e.heldSince) < hold {
		e.lookAgain(e.heldSince.Add(hold))
		return
	}
	agents := e.gather(now)
	all := make([]*mesos.OfferID, 0, len(e.offers))
	for _, o := range e.offers {
		all = append(all, o.GetId())
	}
	clear(e.offers)
	e.present(agents)
	e.wonder(agents, now)
	ms, of := e.matchWants(wants)
	plain := make([]match.Agent, len(agents))
	for k, a := range agents {
		plain[k] = a.Agent
	}
	uses, outcomes := match.Match(plain, ms, e.settings(of))
	e.judge(agents, ms, of, outcomes, now)
	used := map[string]bool{}
	for _, u := range uses {
		if e.accept(agents[u.Agent], u, of, now) {
			for _, id := range agents[u.Agent].Offers {
				used[id.GetValue()] = true
			}
		}
	}
	unused := slices.DeleteFunc(all, func(id *mesos.OfferID) bool { return used[id.GetValue()] })
	slices.SortFunc(unused, func(a, b *mesos.OfferID) int { return cmp.Compare(a.GetValue(), b.GetValue()) })
	e.decline(unused)
}

// present notes which agents are there.
func (e *Engine) present(agents []offered) {
	there := map[string]bool{}
	for _, a := range agents {
		there[a.ID] = true
	}
	for _, i := range e.instances {
		if !i.rec.Away.IsZero() && there[i.rec.Agent] && !i.anyAway() {
			i.rec.Away = time.Time{}
			e.save(i)
		}
	}
}

// wonder notes reservations of which nothing is known. There are none but
// after a backup was restored, or when an agent returns that was given up. They
// are left alone, as there may be data in them, and shown.
func (e *Engine) wonder(agents []offered, now time.Time) {
	known := map[string]bool{}
	for _, i := range e.instances {
		known[i.rec.Reservation] = true
	}
	for _, a := range agents {
		for it := range a.Resources.All() {
			id := match.ReservationOf(it)
			if id == "" || it.Role() != e.role || known[id] || e.claims[id] != nil {
				continue
			}
			if _, told := e.strange[id]; !told {
				e.log.Warn("a reservation of which nothing is known is left alone", "agent", a.ID, "host", a.Host, "reservation", id)
				e.strange[id] = claimRecord{Agent: a.ID, Host: a.Host, Since: now}
			}
		}
	}
}

func (e *Engine) decline(ids []*mesos.OfferID) {
	if len(ids) == 0 {
		return
	}
	e.call(&scheduler.Call{
		Type:    scheduler.Call_DECLINE.Enum(),
		Decline: &scheduler.Call_Decline{OfferIds: ids, Filters: &mesos.Filters{RefuseSeconds: proto.Float64(refuse.Seconds())}},
	})
}

// settings are what the rules and reservations are now.
func (e *Engine) settings(of []want) match.Settings {
	s := match.Settings{
		Role: e.role, Rules: map[string]placement.Rules{}, Load: map[string]int{}, Random: random,
		Known: map[string]bool{}, Claimed: map[string]bool{}, All: e.rec.Uninstall,
	}
	for id := range e.claims {
		s.Claimed[id] = true
	}
	placed := map[string][]placement.Place{}
	for _, i := range e.instances {
		s.Known[i.rec.Reservation] = true
		if i.rec.Agent != "" {
			s.Load[i.rec.Agent]++
			placed[i.id.Pod] = append(placed[i.id.Pod], i.rec.Place)
		}
	}
	for _, w := range of {
		if pod := e.podOf(w.i); s.Rules[w.i.id.Pod] == nil {
			s.Rules[w.i.id.Pod] = placement.Compile(pod.Placement, placed[w.i.id.Pod])
		}
	}
	return s
}

// matchWants writes the wants as match reads them.
func (e *Engine) matchWants(wants []want) ([]match.Want, []want) {
	out := make([]match.Want, 0, len(wants))
	of := make([]want, 0, len(wants))
	for _, w := range wants {
		i := w.i
		pod := e.podOf(i)
		for name := range pod.Volumes.All() {
			if i.rec.Volumes[name].ID == "" {
				if i.rec.Volumes == nil {
					i.rec.Volumes = map[string]volumeRecord{}
				}
				i.rec.Volumes[name] = volumeRecord{ID: newID()}
				e.save(i)
			}
		}
		m := whole(e.configOf(i).Spec, i.id, i.rec)
		m.InUse = e.inUse(i)
		for _, name := range w.tasks {
			def := pod.Tasks.Get(name)
			t := match.Task{Name: name, Amount: spec.Of(def)}
			for port := range def.Ports.All() {
				t.Ports = append(t.Ports, launch.PortKey(name, port))
			}
			m.Tasks = append(m.Tasks, t)
		}
		out, of = append(out, m), append(of, w)
	}
	return out, of
}

// whole is an instance as it reserves, without tasks.
func whole(s *service.Spec, i plan.Instance, rec podRecord) match.Want {
	pod := s.Pods.Get(i.Pod)
	m := match.Want{Name: i.String(), Pod: i.Pod, Agent: rec.Agent, Reservation: rec.Reservation, Need: spec.Need(s, i.Pod)}
	for name, def := range pod.Tasks.All() {
		for port, p := range def.Ports.All() {
			key := launch.PortKey(name, port)
			m.Ports = append(m.Ports, match.Port{Key: key, Fixed: p.Port, Had: rec.Ports[key]})
		}
	}
	for name, v := range pod.Volumes.All() {
		m.Volumes = append(m.Volumes, match.Volume{
			Name: name, ID: rec.Volumes[name].ID, Path: v.Path, Size: resource.Float(float64(v.Size)), Shared: pod.ShareVolumes,
			Exists: rec.Volumes[name].Made,
		})
	}
	return m
}

// Wholes are all instances of a spec as they would reserve, those that exist
// already with their places, and the reservations that are known. e is nil for
// a service that is not installed.
func (e *Engine) Wholes(s *service.Spec) (wants []match.Want, known map[string]bool) {
	known = map[string]bool{}
	if e != nil {
		e.mu.Lock()
		defer e.mu.Unlock()
		for _, i := range e.instances {
			known[i.rec.Reservation] = true
		}
	}
	for pod, p := range s.Pods.All() {
		for n := range p.Count {
			at := plan.Instance{Pod: pod, Index: n}
			rec := podRecord{Reservation: "new " + at.String()}
			if e != nil && e.instances[at] != nil {
				rec = e.instances[at].rec
			}
			known[rec.Reservation] = true
			w := whole(s, at, rec)
			for k := range w.Volumes {
				if w.Volumes[k].ID == "" {
					w.Volumes[k].ID = rec.Reservation + " " + w.Volumes[k].Name
				}
			}
			wants = append(wants, w)
		}
	}
	return wants, known
}

// inUse is what the running tasks of an instance hold of its reservation.
func (e *Engine) inUse(i *instance) resource.Resources {
	var all resource.Resources
	for name, t := range i.rec.Tasks {
		if !t.live() && !t.away() {
			continue
		}
		def := e.configs[t.Config].Spec.Pods.Get(i.id.Pod).Tasks.Get(name)
		var ports []int
		for port := range def.Ports.All() {
			ports = append(ports, i.rec.Ports[launch.PortKey(name, port)])
		}
		all = all.Add(match.Reserved(e.role, i.rec.Reservation, spec.Of(def), ports))
	}
	return all
}

// accept uses an agent's offers: what changes is stored, then the call made. It
// reports whether the offers are used.
func (e *Engine) accept(a offered, u match.Use, of []want, now time.Time) bool {
	ready := make([][]launch.Task, len(u.Placed))
	for n, p := range u.Placed {
		var err error
		if ready[n], err = e.prepare(a, of[p.Want], p); err != nil {
			// The others get their offers again.
			of[p.Want].i.fault = err.Error()
			e.log.Error("task cannot be launched", "pod", of[p.Want].i.id.String(), "err", err)
			e.flow.again = true
			e.nudge()
			return false
		}
	}
	var tasks []launch.Task
	var started []*run
	var pods []plan.Instance
	for n, p := range u.Placed {
		started = append(started, e.launch(a, of[p.Want], ready[n], p.Ports, now)...)
		tasks, pods = append(tasks, ready[n]...), append(pods, of[p.Want].i.id)
	}
	var ops []*mesos.Offer_Operation
	add := func(o *mesos.Offer_Operation, rs resource.Resources, leaks []string) {
		if rs.Empty() {
			return
		}
		id := newID()
		o.Id = &mesos.OperationID{Value: proto.String(id)}
		what := strings.ToLower(o.GetType().String()) + " " + rs.Flatten().String() + " on " + a.Host
		e.pending[id] = &operation{leaks: leaks, pods: pods, what: what, at: now}
		ops = append(ops, o)
	}
	as := func(rs resource.Resources) []*mesos.Resource { return rs.Allocate(e.role).Proto() }
	add(&mesos.Offer_Operation{Type: mesos.Offer_Operation_DESTROY.Enum(), Destroy: &mesos.Offer_Operation_Destroy{Volumes: as(u.Destroy)}}, u.Destroy, nil)
	add(&mesos.Offer_Operation{Type: mesos.Offer_Operation_UNRESERVE.Enum(), Unreserve: &mesos.Offer_Operation_Unreserve{Resources: as(u.Unreserve)}}, u.Unreserve, u.Leaks)
	add(&mesos.Offer_Operation{Type: mesos.Offer_Operation_RESERVE.Enum(), Reserve: &mesos.Offer_Operation_Reserve{Resources: as(u.Reserve)}}, u.Reserve, nil)
	add(&mesos.Offer_Operation{Type: mesos.Offer_Operation_CREATE.Enum(), Create: &mesos.Offer_Operation_Create{Volumes: as(u.Create)}}, u.Create, nil)
	e.out.After(func(ctx context.Context) { e.send(ctx, a, ops, tasks, started) })
	return true
}

// send makes the ACCEPT. Should the master have taken a call that seems to have
// failed, its tasks are strangers, and killed.
func (e *Engine) send(ctx context.Context, a offered, ops []*mesos.Offer_Operation, tasks []launch.Task, started []*run) {
	infos, err := e.infos(ctx, tasks)
	if err == nil {
		if len(infos) > 0 {
			ops = append(ops, &mesos.Offer_Operation{
				Type: mesos.Offer_Operation_LAUNCH.Enum(), Launch: &mesos.Offer_Operation_Launch{TaskInfos: infos},
			})
		}
		err = e.client.Load().Call(ctx, &scheduler.Call{
			Type: scheduler.Call_ACCEPT.Enum(),
			Accept: &scheduler.Call_Accept{
				OfferIds: a.Offers, Operations: ops, Filters: &mesos.Filters{RefuseSeconds: proto.Float64(refuse.Seconds())},
			},
		})
	}
	if err == nil || e.ctx.Err() != nil {
		return
	}
	e.log.Warn("accept offers", "agent", a.ID, "err", err)
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	for _, op := range ops {
		delete(e.pending, op.GetId().GetValue())
	}
	for _, r := range started {
		if r.rec.live() && r.rec.State == "" && e.tasks[r.rec.ID] == r {
			delete(e.tasks, r.rec.ID)
			r.rec.State, r.rec.Stop, r.rec.Message, r.rec.Since = "TASK_DROPPED", "", err.Error(), now
			r.rec.Retry = now.Add(firstBackoff)
			e.save(r.of)
		}
	}
	e.nudge()
}

// infos writes the tasks, with fresh certificates for those that want any.
func (e *Engine) infos(ctx context.Context, tasks []launch.Task) ([]*mesos.TaskInfo, error) {
	var out []*mesos.TaskInfo
	for _, t := range tasks {
		files, err := e.certificates(ctx, t)
		if err != nil {
			return nil, err
		}
		t.Files = files
		info, err := launch.Info(t)
		if err != nil {
			return nil, err
		}
		out = append(out, info)
	}
	return out, nil
}

// prepare writes a want's tasks for an agent, and changes nothing.
func (e *Engine) prepare(a offered, w want, p match.Placed) ([]launch.Task, error) {
	i := w.i
	c := e.configOf(i)
	secrets, err := e.cfg.Vault.reveal(c, spec.Secrets(e.podOf(i)))
	if err != nil {
		return nil, err
	}
	var tasks []launch.Task
	for k, name := range w.tasks {
		t := launch.Task{
			Spec: c.Spec, Instance: i.id, Name: name, ID: taskID(e.name, launch.FullName(i.id, name)), ConfigID: c.ID,
			Agent: a.ID, Place: a.Place, Address: a.address, Ports: p.Ports, Resources: p.Tasks[k], Secrets: secrets, Env: w.env,
			Paused: i.rec.Paused[name], Replaced: i.rec.Replaced,
		}
		if _, err := launch.Info(t); err != nil {
			return nil, err
		}
		tasks = append(tasks, t)
	}
	return tasks, nil
}

// launch makes the records of a want's tasks on an agent.
func (e *Engine) launch(a offered, w want, tasks []launch.Task, ports map[string]int, now time.Time) []*run {
	i := w.i
	c := e.configOf(i)
	var runs []*run
	for k, name := range w.tasks {
		t := i.rec.Tasks[name]
		if t == nil {
			t = &taskRecord{}
			i.rec.Tasks[name] = t
		}
		delete(e.tasks, t.ID)
		*t = taskRecord{
			ID: tasks[k].ID, Config: c.ID, Since: now, Token: token(c, i.id.Pod, name, w.finish),
			Reached: t.Reached, Failures: t.Failures, Idle: tasks[k].Paused,
		}
		r := &run{i, name, t}
		e.tasks[t.ID] = r
		runs = append(runs, r)
		e.log.Info("launching", "task", t.ID, "agent", a.ID, "host", a.Host)
	}
	i.rec.Agent, i.rec.Place, i.rec.Address, i.rec.Ports, i.rec.Away = a.ID, a.Place, a.address, ports, time.Time{}
	i.reason, i.fault, i.wanted = "", "", time.Time{}
	e.save(i)
	return runs
}

// judge keeps what offers were to the wants, for the plans' messages and the
// debug pages.
func (e *Engine) judge(agents []offered, ms []match.Want, of []want, outcomes []match.Outcome, now time.Time) {
	passed := map[int]bool{}
	reasons := map[int][]string{}
	for _, o := range outcomes {
		a := agents[o.Agent]
		out := service.OfferOutcome{
			Time: now.UTC().Format(time.RFC3339Nano), OfferID: a.Offers[0].GetValue(), Agent: a.ID, Host: a.Host,
			Pod: ms[o.Want].Name, Outcome: "fail", Offered: a.Resources.String(),
		}
		if o.Passes {
			passed[o.Want], out.Outcome = true, "pass"
		}
		counted := false
		for _, r := range o.Reasons {
			out.Reasons = append(out.Reasons, service.OfferReason{Passes: r.Passes, Name: r.Name, Reason: r.Text})
			if r.Passes {
				continue
			}
			reasons[o.Want] = append(reasons[o.Want], a.Host+": "+r.Name+": "+r.Text)
			if !counted {
				counted = true
				if e.debug.rejected == nil {
					e.debug.rejected = map[string]int{}
				}
				kind, _, _ := strings.Cut(r.Name, " ")
				e.debug.rejected[kind]++
			}
		}
		e.debug.add(out)
	}
	for k, w := range of {
		if !passed[k] && len(reasons[k]) > 0 {
			w.i.reason = "no offer fits: " + strings.Join(first(reasons[k], 5), "; ")
		}
	}
}

// first shortens a list for a message.
func first(list []string, n int) []string {
	if len(list) <= n {
		return list
	}
	return append(slices.Clone(list[:n]), fmt.Sprintf("and %d more", len(list)-n))
}

func (d *debug) add(o service.OfferOutcome) {
	if len(d.outcomes) < keptOutcomes {
		d.outcomes = append(d.outcomes, o)
		return
	}
	d.outcomes[d.next] = o
	d.next = (d.next + 1) % keptOutcomes
}

// steer tells the master whether offers are wanted, and asks about the tasks
// now and then.
func (e *Engine) steer(now time.Time, wanted bool) {
	if !e.flow.connected {
		return
	}
	if due := e.flow.reconciled.Add(reconcileEvery); !now.Before(due) {
		e.reconcile(now)
	} else {
		e.lookAgain(due)
	}
	wanted = wanted || len(e.claims) > 0
	switch {
	case wanted && (!e.flow.flowing || e.flow.again):
		if next := later(e.flow.revived.Add(reviveEvery), e.flow.after); now.Before(next) {
			e.lookAgain(next)
			return
		}
		e.flow.flowing, e.flow.again, e.flow.revived = true, false, now
		e.revive()
	case !wanted && e.flow.flowing:
		e.flow.flowing, e.flow.again = false, false
		e.call(&scheduler.Call{Type: scheduler.Call_SUPPRESS.Enum(), Suppress: &scheduler.Call_Suppress{}})
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// revive asks for offers from all agents, and again should that fail.
func (e *Engine) revive() {
	epoch := e.flow.epoch
	e.out.After(func(ctx context.Context) {
		err := e.client.Load().Call(ctx, &scheduler.Call{Type: scheduler.Call_REVIVE.Enum(), Revive: &scheduler.Call_Revive{}})
		if err == nil || e.ctx.Err() != nil {
			return
		}
		e.log.Warn("ask for offers", "err", err)
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.flow.epoch == epoch {
			e.flow.again, e.flow.after = true, time.Now().Add(reviveAgain)
		}
		e.nudge()
	})
}
