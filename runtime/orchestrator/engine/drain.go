package engine

import (
	"time"

	"dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/scheduler"
)

// Instances leave agents that are to be unavailable: the master asks for such
// an agent by an inverse offer, at once when it is drained and ahead of time
// when its machine is in the maintenance schedule. From the moment it is
// unavailable its instances are moved by their app's upgradeStrategy
// (deployment.Move). That an instance has to leave is stored with it, so that
// the next leader goes on before the master has told it.

const (
	// movePatience is how long the replacements of leaving instances may find
	// no place before instances are given up without.
	movePatience = 30 * time.Second
	// confirmPatience is how long after a subscription the master may take to
	// ask again for an agent.
	confirmPatience = 15 * time.Second
)

// departure is one agent that is to be unavailable.
type departure struct {
	offer  string // the inverse offer; "": from the store, not confirmed in this subscription
	active bool   // the time has come
}

// asked takes inverse offers, and accepts them all: apps move.
func (e *Engine) asked(offers []*mesos.InverseOffer, now time.Time) {
	var ids []*mesos.OfferID
	for _, o := range offers {
		ids = append(ids, o.GetId())
		id, agent := o.GetId().GetValue(), o.GetAgentId().GetValue()
		start, end := window(o.GetUnavailability())
		was := e.departures[agent]
		d := &departure{offer: id, active: was != nil && was.active && !now.Before(start)}
		e.departures[agent] = d
		still := func() bool { return e.departures[agent] == d }
		if now.Before(start) {
			e.setLeaving(agent, false)
			e.timers.add(start, func(time.Time) {
				if still() {
					e.depart(agent, d)
				}
			})
		} else {
			e.depart(agent, d)
		}
		if !end.IsZero() {
			e.timers.add(end, func(time.Time) {
				if still() {
					e.stay(agent)
				}
			})
		}
	}
	e.call(&scheduler.Call{
		Type:                scheduler.Call_ACCEPT_INVERSE_OFFERS.Enum(),
		AcceptInverseOffers: &scheduler.Call_AcceptInverseOffers{InverseOfferIds: ids},
	})
}

// window is when an agent is unavailable; a zero end means for good.
func window(u *mesos.Unavailability) (start, end time.Time) {
	start = time.Unix(0, u.GetStart().GetNanoseconds())
	if d := u.GetDuration(); d != nil {
		end = start.Add(time.Duration(d.GetNanoseconds()))
	}
	return start, end
}

// unavailable reports whether an offer is of an agent that should be left.
func unavailable(u *mesos.Unavailability, now time.Time) bool {
	if u == nil {
		return false
	}
	start, end := window(u)
	return !now.Before(start) && (end.IsZero() || now.Before(end))
}

// askedNoMore ends the departure that an inverse offer began.
func (e *Engine) askedNoMore(offer string) {
	for agent, d := range e.departures {
		if d.offer == offer {
			e.stay(agent)
			return
		}
	}
}

func (e *Engine) depart(agent string, d *departure) {
	if !d.active {
		e.log.Info("instances leave an agent", "agent", agent)
	}
	d.active = true
	e.setLeaving(agent, true)
}

func (e *Engine) stay(agent string) {
	delete(e.departures, agent)
	e.setLeaving(agent, false)
}

// departs reports whether instances have to leave the agent now.
func (e *Engine) departs(agent string) bool {
	d := e.departures[agent]
	return d != nil && d.active
}

// setLeaving costs O(all instances), once per agent and change of mind.
func (e *Engine) setLeaving(agent string, leaving bool) {
	for _, i := range e.instances {
		if i.rec.Agent != agent || i.rec.Leaving == leaving {
			continue
		}
		i.rec.Leaving = leaving
		e.put(kindInstance, i.rec.ID, i.rec)
		e.count(i)
		e.markDirty(i.rec.App)
	}
}

// confirmDepartures drops what the master does not ask for again within a
// while after a subscription: the drain was called off while nobody listened.
func (e *Engine) confirmDepartures() {
	for _, d := range e.departures {
		d.offer = ""
	}
	epoch := e.flow.epoch
	e.timers.add(time.Now().Add(confirmPatience), func(time.Time) {
		if e.flow.epoch != epoch || !e.flow.connected {
			return
		}
		for agent, d := range e.departures {
			if d.offer == "" {
				e.stay(agent)
			}
		}
	})
}

// stuck reports whether replacements for leaving instances find no place.
func (a *app) stuck(now time.Time) bool {
	q := a.queue
	return q.want > 0 && !now.Before(q.waiting().Add(movePatience))
}

// waiting is since when nothing of what is wanted could be launched.
func (q queued) waiting() time.Time {
	if q.lastUsed.After(q.since) {
		return q.lastUsed
	}
	return q.since
}

// watchMove has the app looked at when its move may have got stuck.
func (e *Engine) watchMove(a *app, now time.Time) {
	if a.leaving == 0 || a.queue.want == 0 || a.moveCheck.After(now) {
		return
	}
	at := a.queue.waiting().Add(movePatience)
	if !at.After(now) {
		return // it is stuck already
	}
	a.moveCheck = at
	e.timers.add(at, func(time.Time) {
		a.moveCheck = time.Time{}
		e.markDirty(a.id)
	})
}
