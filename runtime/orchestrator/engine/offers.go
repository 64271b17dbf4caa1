package engine

import (
	"cmp"
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/api/marathon"
	"dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/scheduler"
	"dcos.example/dcos/runtime/orchestrator/launch"
)

const (
	// hold is how long offers wait for those of other agents, so that
	// instances are spread over all of them.
	hold = 4 * time.Millisecond
	// refuse is for how long the master keeps what we declined. It does not
	// delay anything: a revive clears it, and so do freed resources.
	refuse = 120 * time.Second
	// reviveEvery bounds how often the allocator is asked to start over.
	reviveEvery = 100 * time.Millisecond
)

// flow is whether offers come.
type flow struct {
	epoch     uint64 // counts subscriptions
	connected bool
	flowing   bool      // whether the master was asked to send offers
	revived   time.Time // when last
	again     bool      // something new is wanted since
}

type heldOffer struct {
	launch.Offer
	at time.Time
}

// queued is an app's place in the launch queue.
type queued struct {
	want      int  // instances to launch, whether or not the delay is over
	delayed   bool // launches wait for the app's delay
	since     time.Time
	processed int
	unused    int
	lastUsed  time.Time
	lastNot   time.Time
	funnel    [launch.Reasons]marathon.Reject // over all offers since the app is queued
	last      map[string]refusal              // by agent: the last offer it could not use
}

type refusal struct {
	offer   launch.Offer
	reasons []launch.Reason
	at      time.Time
}

// setWant changes how many instances of a are to be launched.
func (e *Engine) setWant(a *app, n int, now time.Time) {
	if n == a.queue.want {
		return
	}
	if a.queue.want == 0 {
		a.queue = queued{since: now, last: map[string]refusal{}}
	}
	if n > a.queue.want {
		e.flow.again = true
	}
	a.queue.want = n
	if n == 0 {
		a.queue = queued{}
		delete(e.wants, a.id)
		return
	}
	e.wants[a.id] = a
}

// offered takes offers in. They are held for a moment if anything is wanted.
func (e *Engine) offered(offers []*mesos.Offer) {
	now := time.Now()
	for _, p := range offers {
		o, err := launch.FromProto(p)
		if err != nil {
			e.log.Warn("offer not understood", "err", err)
			e.decline([]*mesos.OfferID{p.GetId()})
			continue
		}
		if unavailable(p.GetUnavailability(), now) || e.departs(o.Agent) {
			e.decline([]*mesos.OfferID{p.GetId()})
			continue
		}
		e.offers[o.ID] = &heldOffer{o, now}
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

// matchHeld matches the held offers once the oldest has waited long enough.
func (e *Engine) matchHeld(now time.Time) {
	if len(e.offers) == 0 {
		return
	}
	oldest := now
	for _, o := range e.offers {
		if o.at.Before(oldest) {
			oldest = o.at
		}
	}
	if now.Sub(oldest) < hold {
		e.lookAgain(oldest.Add(hold))
		return
	}
	held := make([]launch.Offer, 0, len(e.offers))
	for _, o := range e.offers {
		held = append(held, o.Offer)
	}
	slices.SortFunc(held, func(a, b launch.Offer) int { return cmp.Compare(a.ID, b.ID) })
	clear(e.offers)
	wants, apps := e.launchable(now)
	launches, verdicts := launch.Match(held, wants, launch.Settings{
		DefaultRoles: e.cfg.DefaultRoles, HomeRegion: e.homeRegion, Random: random,
	})
	byOffer := make([][]*mesos.TaskInfo, len(held))
	started := make([][]*instance, len(held))
	for _, l := range launches {
		i, info := e.launch(apps[l.Want], held[l.Offer], l, now)
		byOffer[l.Offer] = append(byOffer[l.Offer], info)
		started[l.Offer] = append(started[l.Offer], i)
	}
	for w, a := range apps {
		e.judge(a, held, verdicts[w], now)
	}
	var unused []*mesos.OfferID
	for n, o := range held {
		if len(byOffer[n]) == 0 {
			unused = append(unused, o.Proto.GetId())
			continue
		}
		e.accept(o, byOffer[n], started[n])
	}
	e.decline(unused)
}

// launchable lists what may be launched now, the longest waiting first.
func (e *Engine) launchable(now time.Time) ([]launch.Want, []*app) {
	var apps []*app
	for _, a := range e.wants {
		if a.active != nil && a.queue.want > 0 && a.delay.Left(a.active, now) == 0 {
			apps = append(apps, a)
		}
	}
	slices.SortFunc(apps, func(a, b *app) int {
		return cmp.Or(a.queue.since.Compare(b.queue.since), cmp.Compare(a.id, b.id))
	})
	wants := make([]launch.Want, len(apps))
	for n, a := range apps {
		wants[n] = launch.Want{App: a.active, Count: a.queue.want, OnAgent: a.onAgent}
		if len(a.active.Constraints) > 0 {
			for _, i := range a.instances {
				if i.rec.Config == a.active.VersionInfo.LastConfigChangeAt && !i.inactive && !i.left {
					wants[n].Placed = append(wants[n].Placed, i.rec.Place)
				}
			}
		}
	}
	return wants, apps
}

// launch makes the instance of a match.
func (e *Engine) launch(a *app, o launch.Offer, l launch.Launch, now time.Time) (*instance, *mesos.TaskInfo) {
	id, taskID := newInstance(a.id)
	place := o.Place
	i := &instance{rec: instanceRecord{
		ID: id, Task: taskID, App: a.id, Version: a.active.Version, Config: a.active.VersionInfo.LastConfigChangeAt,
		Agent: o.Agent, Place: place, Launched: now,
		HostPorts: l.HostPorts, Leaving: e.departs(o.Agent), Ports: launch.Reached(a.active, l.HostPorts),
	}}
	e.index(i)
	e.put(kindInstance, id, i.rec)
	e.watchInstance(i)
	e.setWant(a, a.queue.want-1, now)
	e.log.Info("launching", "app", a.id, "task", taskID, "agent", o.Agent)
	return i, launch.Info(launch.Task{
		App: a.active, ID: taskID, Agent: o.Agent, Host: o.Host, HostPorts: l.HostPorts, Resources: l.Resources,
	})
}

// accept launches tasks on an offer once their instances are stored.
func (e *Engine) accept(o launch.Offer, tasks []*mesos.TaskInfo, started []*instance) {
	c := &scheduler.Call{
		Type: scheduler.Call_ACCEPT.Enum(),
		Accept: &scheduler.Call_Accept{
			OfferIds: []*mesos.OfferID{o.Proto.GetId()},
			Operations: []*mesos.Offer_Operation{{
				Type:   mesos.Offer_Operation_LAUNCH.Enum(),
				Launch: &mesos.Offer_Operation_Launch{TaskInfos: tasks},
			}},
			Filters: &mesos.Filters{RefuseSeconds: proto.Float64(refuse.Seconds())},
		},
	}
	e.out.After(func(ctx context.Context) {
		err := e.client.Call(ctx, c)
		if err == nil || e.ctx.Err() != nil {
			return
		}
		// Should the master have taken the call after all, the tasks are
		// strangers, and killed.
		e.log.Warn("accept offer", "offer", o.ID, "agent", o.Agent, "err", err)
		e.mu.Lock()
		defer e.mu.Unlock()
		for _, i := range started {
			if e.alive(i) && i.st.State == "" {
				e.remove(i)
			}
		}
		e.nudge()
	})
}

// judge keeps what the queue tells about an app's offers. It costs O(offers).
func (e *Engine) judge(a *app, held []launch.Offer, v launch.Verdict, now time.Time) {
	q := &a.queue
	if q.want == 0 {
		return
	}
	q.processed += v.Used + len(v.Refusals)
	q.unused += len(v.Refusals)
	if v.Used > 0 {
		q.lastUsed = now
	}
	for _, r := range v.Refusals {
		q.lastNot = now
		o := held[r.Offer]
		q.last[o.Agent] = refusal{o, r.Reasons, now}
		funnel(&q.funnel, r.Reasons)
	}
	for range v.Used {
		funnel(&q.funnel, nil)
	}
}

// funnel counts one offer: it passes every row up to its first reason.
func funnel(f *[launch.Reasons]marathon.Reject, reasons []launch.Reason) {
	for r := range f {
		f[r].Processed++
		if len(reasons) > 0 && launch.Reason(r) == reasons[0] {
			f[r].Declined++
			return
		}
	}
}

// reviveAgain is the pause after a revive that the master did not take.
const reviveAgain = time.Second

// revive asks for offers from all agents, and again should that fail.
func (e *Engine) revive() {
	epoch := e.flow.epoch
	e.out.After(func(ctx context.Context) {
		err := e.client.Call(ctx, &scheduler.Call{Type: scheduler.Call_REVIVE.Enum(), Revive: &scheduler.Call_Revive{}})
		if err == nil || e.ctx.Err() != nil {
			return
		}
		e.log.Warn("ask for offers", "err", err)
		e.mu.Lock()
		defer e.mu.Unlock()
		e.timers.add(time.Now().Add(reviveAgain), func(time.Time) {
			e.flow.again = e.flow.again || e.flow.epoch == epoch
		})
		e.nudge()
	})
}

// steer tells the master whether offers are wanted.
func (e *Engine) steer(now time.Time) {
	if !e.flow.connected {
		return
	}
	wanted := false
	for _, a := range e.wants {
		if a.active == nil {
			continue
		}
		if left := a.delay.Left(a.active, now); left > 0 {
			a.queue.delayed = true
			e.lookAgain(now.Add(left))
			continue
		}
		wanted = true
		if a.queue.delayed {
			a.queue.delayed = false
			e.flow.again = true
		}
	}
	switch {
	case wanted && (!e.flow.flowing || e.flow.again):
		if next := e.flow.revived.Add(reviveEvery); now.Before(next) {
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
