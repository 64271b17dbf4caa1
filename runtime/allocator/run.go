package allocator

import (
	"container/heap"
	"slices"
	"time"

	"dcos.example/dcos/runtime/resource"
	"dcos.example/dcos/runtime/task"
)

// Allocate decides what to offer at now, and says when to call it again though
// nothing may have changed by then (zero: not by time alone). The offers count
// as used from here on.
func (a *Allocator) Allocate(now time.Time) (offers []Offer, next time.Time) {
	a.runs++
	a.resort()
	for len(a.wakes) > 0 && !a.wakes[0].wake.After(now) {
		ag := a.wakes[0]
		a.schedule(ag, time.Time{})
		a.mark(ag)
	}
	agents := a.dirty
	if a.allDirty {
		agents = a.order
	}
	for _, ag := range agents {
		ag.dirty = false
		offers = a.evaluate(ag, now, offers)
	}
	for _, ag := range a.dirty {
		ag.dirty = false
	}
	a.dirty, a.allDirty = a.dirty[:0], false
	if len(a.wakes) > 0 {
		next = a.wakes[0].wake
	}
	return offers, next
}

// Pending reports whether a change since the last run may allow new offers.
func (a *Allocator) Pending() bool { return a.allDirty || len(a.dirty) > 0 }

// evaluate offers what is free on ag.
func (a *Allocator) evaluate(ag *agent, now time.Time, offers []Offer) []Offer {
	if !ag.active || !a.worthwhile(ag.free) {
		a.schedule(ag, time.Time{})
		return offers
	}
	a.sweep(ag, now)
	for a.worthwhile(ag.free) {
		c, r := a.walk(ag)
		if c == nil {
			break
		}
		offers = append(offers, a.give(ag, c, r, now))
	}
	if !a.worthwhile(ag.free) {
		a.schedule(ag, time.Time{})
		return offers
	}
	// Everybody has turned down what is left. Those whose filters are over
	// see it again, who waited longest first, one a rest.
	if !now.Before(ag.rest) {
		if c, r := a.longestWaiting(ag, now); c != nil {
			ag.blocked.clear(c.idx)
			offers = append(offers, a.give(ag, c, r, now))
		}
	}
	a.schedule(ag, a.nextTry(ag, now))
	return offers
}

func (a *Allocator) give(ag *agent, c *client, r resource.Resources, now time.Time) Offer {
	a.take(ag, c, r, true)
	ag.rest = now.Add(a.opt.Interval)
	return Offer{c.fw.ID, c.role, ag.ID, r.Allocate(c.role)}
}

// sweep ends filters that are over. Passes stay until everybody else has seen
// the agent.
func (a *Allocator) sweep(ag *agent, now time.Time) {
	if ag.sweepAt.IsZero() || now.Before(ag.sweepAt) {
		return
	}
	ag.sweepAt = time.Time{}
	for i := range ag.passes {
		p := &ag.passes[i]
		switch {
		case p.seq != 0 || !ag.blocked.has(p.client):
		case !now.Before(p.until):
			ag.blocked.clear(p.client)
		case ag.sweepAt.IsZero() || p.until.Before(ag.sweepAt):
			ag.sweepAt = p.until
		}
	}
}

// longestWaiting returns the client that passed longest ago of those whose
// filter is over.
func (a *Allocator) longestWaiting(ag *agent, now time.Time) (*client, resource.Resources) {
	for {
		var best *refusal
		for i := range ag.passes {
			p := &ag.passes[i]
			if p.seq != 0 && ag.blocked.has(p.client) && !now.Before(p.until) && (best == nil || p.seq < best.seq) && a.clients[p.client].leaf.active {
				best = p
			}
		}
		if best == nil {
			return nil, resource.Resources{}
		}
		c := a.clients[best.client]
		if r := a.offerable(ag, c); a.worthwhile(r) {
			return c, r
		}
		ag.blocked.clear(best.client) // has nothing to refuse any more
	}
}

// nextTry returns when a rejected agent may find a taker by time alone.
func (a *Allocator) nextTry(ag *agent, now time.Time) time.Time {
	var t time.Time
	for i := range ag.passes {
		p := &ag.passes[i]
		if !ag.blocked.has(p.client) || !a.clients[p.client].leaf.active {
			continue
		}
		at := p.until
		if p.seq != 0 && at.Before(ag.rest) {
			at = ag.rest
		}
		if t.IsZero() || at.Before(t) {
			t = at
		}
	}
	if !t.IsZero() && !t.After(now) {
		t = now.Add(a.opt.Interval)
	}
	return t
}

// worthwhile reports whether r is enough for an offer. What somebody reserved
// at run time is, however little: who reserved it may want to use what is left,
// or to give it up.
func (a *Allocator) worthwhile(r resource.Resources) bool {
	if r.Empty() {
		return false
	}
	if r.Scalar(resource.CPUs) >= a.opt.MinCPUs || r.Scalar(resource.Mem) >= a.opt.MinMem {
		return true
	}
	for it := range r.All() {
		if it.Dynamic() && !it.Shared() {
			return true
		}
	}
	return false
}

// walker finds the first client, in the order of shares, that can be offered
// something of ag.
type walker struct {
	a  *Allocator
	ag *agent
	// only are the roles for whose sake there is something left, nil: for all.
	// It spares looking at every client of a large cluster for the sake of a
	// reservation that one of them can use.
	only []string
}

func (a *Allocator) walk(ag *agent) (*client, resource.Resources) {
	w := walker{a: a, ag: ag}
	if !ag.plain && !a.worthwhile(ag.free.Unreserved()) {
		w.only = ag.free.ReservedRoles()
	}
	return w.first(a.root)
}

func (w *walker) first(n *node) (*client, resource.Resources) {
	for _, k := range n.kids {
		if k.client == nil {
			if w.only != nil && k.path != "" && !slices.ContainsFunc(w.only, k.related) {
				continue
			}
			if c, r := w.first(k); c != nil {
				return c, r
			}
			continue
		}
		if w.ag.blocked.has(k.client.idx) {
			continue
		}
		if r := w.a.offerable(w.ag, k.client); w.a.worthwhile(r) {
			return k.client, r
		}
	}
	return nil, resource.Resources{}
}

// related reports whether role is n, above or below it.
func (n *node) related(role string) bool {
	return role == n.path || resource.IsAncestor(role, n.path) || resource.IsAncestor(n.path, role)
}

// offerable returns what of ag's free resources c may be offered.
func (a *Allocator) offerable(ag *agent, c *client) resource.Resources {
	fw := c.fw
	if ag.gpus && !fw.GPU || ag.Remote && !fw.RegionAware || fw.Accepts != nil && !fw.Accepts(c.role, ag.ID) {
		return resource.Resources{}
	}
	if ag.plain {
		return ag.free
	}
	return a.visible(ag.free, c)
}

// visible returns what of r the client may use, by role and capability.
func (a *Allocator) visible(r resource.Resources, c *client) resource.Resources {
	fw := c.fw
	return r.Filter(func(i resource.Item) bool {
		return i.AllocatableTo(c.role) && (fw.Revocable || !i.Revocable()) && (fw.Shared || !i.Shared()) && (fw.Refinement || !i.Refined())
	})
}

// schedule has the agent looked at at t; zero: not by time.
func (a *Allocator) schedule(ag *agent, t time.Time) {
	ag.wake = t
	switch {
	case t.IsZero() && ag.wakePos >= 0:
		heap.Remove(&a.wakes, ag.wakePos)
	case t.IsZero():
	case ag.wakePos >= 0:
		heap.Fix(&a.wakes, ag.wakePos)
	default:
		heap.Push(&a.wakes, ag)
	}
}

type wakeHeap []*agent

func (h wakeHeap) Len() int           { return len(h) }
func (h wakeHeap) Less(i, j int) bool { return h[i].wake.Before(h[j].wake) }
func (h wakeHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].wakePos, h[j].wakePos = i, j
}
func (h *wakeHeap) Push(x any) {
	ag := x.(*agent)
	ag.wakePos = len(*h)
	*h = append(*h, ag)
}
func (h *wakeHeap) Pop() any {
	old := *h
	ag := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	ag.wakePos = -1
	return ag
}

// Stats is what metrics show.
type Stats struct {
	Runs        uint64
	Total, Used map[string]resource.Fixed // by scalar name; Used includes offers
	Shares      map[string]float64        // dominant share by role
	Filters     map[string]int            // refusals remembered by role
}

// Stats returns a snapshot. It costs O(A + roles + refusals).
func (a *Allocator) Stats() Stats {
	a.resort()
	s := Stats{a.runs, map[string]resource.Fixed{}, map[string]resource.Fixed{}, map[string]float64{}, map[string]int{}}
	for d, name := range a.names {
		s.Total[name] = a.total[d]
	}
	for _, ag := range a.order {
		for _, h := range ag.ledger {
			for d, v := range a.quantities(h.res.Exclusive()) {
				s.Used[a.names[d]] += v
			}
		}
		for i := range ag.passes {
			if p := &ag.passes[i]; ag.blocked.has(p.client) {
				s.Filters[a.clients[p.client].role]++
			}
		}
	}
	for path, n := range a.roles {
		s.Shares[path] = a.shareOf(n) * n.weight
	}
	return s
}

// Free returns what the agent has left, and false when it is not known.
func (a *Allocator) Free(id task.AgentID) (resource.Resources, bool) {
	ag := a.agents[id]
	if ag == nil {
		return resource.Resources{}, false
	}
	return ag.free, true
}
