package allocator

import (
	"cmp"
	"slices"
	"time"

	"dcos.example/dcos/runtime/resource"
	"dcos.example/dcos/runtime/task"
)

type agent struct {
	Agent
	active bool
	plain  bool // nothing reserved, revocable, shared or of gpus: all may use it
	gpus   bool
	free   resource.Resources
	over   bool // more is in use than there is: free is not the difference
	ledger []holding
	dirty  bool

	blocked bitset    // clients that may not be offered this agent in the normal round
	passes  []refusal // by client; valid while the client's bit is set
	refused *resource.Resources
	sweepAt time.Time // earliest end of a filter, zero: none
	rest    time.Time // no repeated offers before

	wake    time.Time // when to look at it again, zero: not by time
	wakePos int       // in the heap, -1: not there
}

// holding is what one client uses of an agent, offers included.
type holding struct {
	client *client
	res    resource.Resources
}

// refusal is a client's memory of having turned an agent down.
type refusal struct {
	client  int32
	until   time.Time
	seq     uint64 // order among passes; zero: a filter only, gone after until
	refused *resource.Resources
}

// AddAgent adds an agent with nothing used; Use adds what tasks use.
func (a *Allocator) AddAgent(ag Agent) {
	if a.agents[ag.ID] != nil {
		a.UpdateAgent(ag.ID, ag.Total)
		return
	}
	x := &agent{active: true, wakePos: -1}
	x.Agent = ag
	a.agents[ag.ID] = x
	a.order = append(a.order, x)
	a.setTotal(x, ag.Total)
}

// UpdateAgent changes what the agent has. It clears what was remembered of
// refusals.
func (a *Allocator) UpdateAgent(id task.AgentID, total resource.Resources) {
	if ag := a.agents[id]; ag != nil {
		a.addTotal(ag.Total, -1)
		ag.blocked = ag.blocked[:0]
		ag.passes = ag.passes[:0]
		a.setTotal(ag, total)
	}
}

func (a *Allocator) setTotal(ag *agent, total resource.Resources) {
	ag.Total = total
	a.addTotal(total, 1)
	ag.gpus = total.Scalar(resource.GPUs) > 0
	ag.plain = isPlain(total)
	ag.recount()
	a.stale = true
	a.mark(ag)
}

// isPlain reports whether everybody may use all of r.
func isPlain(r resource.Resources) bool {
	for it := range r.All() {
		if it.Reserved() || it.Revocable() || it.Shared() {
			return false
		}
	}
	return true
}

func hasVolume(r resource.Resources) bool {
	for it := range r.All() {
		if it.VolumeID() != "" {
			return true
		}
	}
	return false
}

// recount makes free what the books leave of the total, in O(holdings·entries).
// Shared volumes are always free: who uses one takes nothing from others.
func (ag *agent) recount() {
	ag.free, ag.over = ag.Total, false
	for _, h := range ag.ledger {
		r := h.res.Exclusive()
		ag.over = ag.over || !ag.free.Contains(r)
		ag.free = ag.free.Sub(r)
	}
}

func (a *Allocator) addTotal(r resource.Resources, sign resource.Fixed) {
	for d, v := range a.quantities(r) {
		a.total[d] += sign * v
	}
}

// RemoveAgent forgets the agent and everything used on it.
func (a *Allocator) RemoveAgent(id task.AgentID) {
	ag := a.agents[id]
	if ag == nil {
		return
	}
	for _, h := range ag.ledger {
		a.charge(h.client.leaf, a.quantities(h.res.Exclusive()), -1, false)
	}
	a.addTotal(ag.Total, -1)
	a.stale = true
	ag.active = false
	a.schedule(ag, time.Time{})
	delete(a.agents, id)
	a.order = slices.DeleteFunc(a.order, func(x *agent) bool { return x == ag })
}

// SetAgentActive starts or stops offers of the agent.
func (a *Allocator) SetAgentActive(id task.AgentID, active bool) {
	if ag := a.agents[id]; ag != nil && ag.active != active {
		ag.active = active
		a.mark(ag)
	}
}

// Use counts resources, allocated to a role, as used by the framework. It is
// for tasks that came with an agent; offers count by themselves.
func (a *Allocator) Use(id task.AgentID, framework task.FrameworkID, r resource.Resources) {
	a.split(id, framework, r, func(ag *agent, c *client, part resource.Resources) { a.take(ag, c, part, false) })
}

// Recover gives back resources, allocated to a role, that the framework used.
// What it did not use is ignored, so that late news do no harm.
func (a *Allocator) Recover(now time.Time, id task.AgentID, framework task.FrameworkID, r resource.Resources, ref Refusal) {
	a.split(id, framework, r, func(ag *agent, c *client, part resource.Resources) {
		a.release(ag, c, part)
		if ref.Pass || ref.For > 0 {
			a.refuse(now, ag, c, part, ref)
		}
	})
}

// Replace turns resources that the framework holds, allocated to one role, into
// others of the same quantities: an operation on an offer, such as a reservation,
// which changes the agent's total too. What others turned down is remembered,
// since nothing becomes free.
func (a *Allocator) Replace(id task.AgentID, framework task.FrameworkID, from, to resource.Resources) {
	a.split(id, framework, from, func(ag *agent, c *client, part resource.Resources) {
		into := to.Unallocate()
		i := slices.IndexFunc(ag.ledger, func(h holding) bool { return h.client == c })
		if i < 0 || !ag.ledger[i].res.Contains(part) {
			return // late news of an agent that has changed since
		}
		ag.ledger[i].res = ag.ledger[i].res.Sub(part).Add(into)
		ag.swapTotal(part, into)
		ag.free = ag.free.Sub(part.Filter(resource.Item.Shared)).Add(into.Filter(resource.Item.Shared))
		a.charge(c.leaf, a.quantities(part.Exclusive()), -1, false)
		a.charge(c.leaf, a.quantities(into.Exclusive()), 1, false)
	})
}

// Convert turns resources that nobody holds into others of the same quantities:
// an operation of the cluster's operator. It reports false, and changes nothing,
// when they are not free.
func (a *Allocator) Convert(id task.AgentID, from, to resource.Resources) bool {
	ag := a.agents[id]
	if ag == nil || !ag.free.Contains(from) {
		return false
	}
	ag.swapTotal(from, to)
	ag.free = ag.free.Sub(from).Add(to)
	a.recheck(ag)
	a.mark(ag)
	return true
}

// swapTotal exchanges a part of what the agent has. The sums over all agents
// stay.
func (ag *agent) swapTotal(from, to resource.Resources) {
	ag.Total = ag.Total.Sub(from).Add(to)
	ag.plain = isPlain(ag.Total)
}

// split calls f for the part of r allocated to each role of the framework.
func (a *Allocator) split(id task.AgentID, framework task.FrameworkID, r resource.Resources, f func(*agent, *client, resource.Resources)) {
	ag, fw := a.agents[id], a.frameworks[framework]
	if ag == nil || fw == nil {
		return
	}
	roles := r.AllocationRoles()
	for _, role := range roles {
		c := fw.client(role)
		if c == nil {
			c = a.addClient(fw, role)
			c.suppressed = true // tasks of a role the framework has left
		}
		part := r
		if len(roles) > 1 {
			part = r.Filter(func(i resource.Item) bool { return i.AllocationRole() == role })
		}
		f(ag, c, part.Unallocate())
	}
}

func (ag *agent) held(c *client) resource.Resources {
	for i := range ag.ledger {
		if ag.ledger[i].client == c {
			return ag.ledger[i].res
		}
	}
	return resource.Resources{}
}

// take books r as used by c.
func (a *Allocator) take(ag *agent, c *client, r resource.Resources, offer bool) {
	now := r.Exclusive()
	ag.over = ag.over || !offer && !ag.free.Contains(now)
	ag.free = ag.free.Sub(now)
	i := slices.IndexFunc(ag.ledger, func(h holding) bool { return h.client == c })
	if i < 0 {
		ag.ledger = append(ag.ledger, holding{c, r})
	} else {
		ag.ledger[i].res = ag.ledger[i].res.Add(r)
	}
	a.charge(c.leaf, a.quantities(now), 1, offer)
}

// release books r as no longer used by c and forgets refusals of less than is
// free now.
func (a *Allocator) release(ag *agent, c *client, r resource.Resources) {
	i := slices.IndexFunc(ag.ledger, func(h holding) bool { return h.client == c })
	if i < 0 {
		return
	}
	held := ag.ledger[i].res
	left := held.Sub(r)
	if !held.Contains(r) {
		r = held.Sub(left)
	}
	if left.Empty() {
		ag.ledger = slices.Delete(ag.ledger, i, i+1)
	} else {
		ag.ledger[i].res = left
	}
	r = r.Exclusive()
	a.charge(c.leaf, a.quantities(r), -1, false)
	// A volume comes back as its user wrote it, mounted elsewhere perhaps.
	if ag.free = ag.free.Add(r); ag.over || hasVolume(r) || !ag.Total.Contains(ag.free) {
		ag.recount()
	}
	a.recheck(ag)
	a.mark(ag)
}

// recheck drops refusals that do not cover what is free now: O(refusals), one
// comparison of resources for each distinct refused amount.
func (a *Allocator) recheck(ag *agent) {
	var seen *resource.Resources
	var covers bool
	for i := range ag.passes {
		p := &ag.passes[i]
		if !ag.blocked.has(p.client) {
			continue
		}
		if p.refused != seen || !ag.plain {
			free := ag.free
			if !ag.plain {
				free = a.visible(free, a.clients[p.client])
			}
			seen, covers = p.refused, p.refused.Contains(free)
		}
		if !covers {
			ag.blocked.clear(p.client)
		}
	}
}

// refuse remembers that c turned r down.
func (a *Allocator) refuse(now time.Time, ag *agent, c *client, r resource.Resources, ref Refusal) {
	if ag.refused == nil || !ag.refused.Equal(r) {
		ag.refused = &r
	}
	p := refusal{client: c.idx, until: now.Add(ref.For), refused: ag.refused}
	if ref.Pass {
		a.seq++
		p.seq = a.seq
		p.until = now.Add(max(ref.For, a.opt.Interval))
	}
	i, found := slices.BinarySearchFunc(ag.passes, c.idx, func(p refusal, idx int32) int { return cmp.Compare(p.client, idx) })
	if found {
		ag.passes[i] = p
	} else {
		ag.passes = slices.Insert(ag.passes, i, p)
	}
	ag.blocked.set(c.idx)
	if ag.sweepAt.IsZero() || p.until.Before(ag.sweepAt) {
		ag.sweepAt = p.until
	}
	if !r.Contains(a.visible(ag.free, c)) {
		ag.blocked.clear(c.idx)
	}
}

// mark has the agent looked at in the next run.
func (a *Allocator) mark(ag *agent) {
	if !ag.dirty {
		ag.dirty = true
		a.dirty = append(a.dirty, ag)
	}
}

// bitset is a set of client indices.
type bitset []uint64

func (b bitset) has(i int32) bool { w := int(i >> 6); return w < len(b) && b[w]&(1<<(i&63)) != 0 }

func (b *bitset) set(i int32) {
	for int(i>>6) >= len(*b) {
		*b = append(*b, 0)
	}
	(*b)[i>>6] |= 1 << (i & 63)
}

func (b bitset) clear(i int32) {
	if w := int(i >> 6); w < len(b) {
		b[w] &^= 1 << (i & 63)
	}
}
