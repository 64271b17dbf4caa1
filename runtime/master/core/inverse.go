package core

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	mesos "dcos.example/dcos/runtime/api/mesos"
	inverseoffer "dcos.example/dcos/runtime/api/mesos/allocator"
	"dcos.example/dcos/runtime/api/mesos/scheduler"
	"dcos.example/dcos/runtime/resource"
	"dcos.example/dcos/runtime/task"
)

// Inverse offers ask a framework to give an agent up. There is one for each
// framework and agent: for every draining agent to frameworks that move their
// tasks themselves, and for agents of scheduled machines to frameworks with
// tasks there. They are made when their reason begins or the framework
// subscribes, and are rescinded with their reason.

type inverseKey struct {
	framework task.FrameworkID
	agent     task.AgentID
}

type inverse struct {
	inverseKey
	id     task.OfferID
	view   *mesos.InverseOffer // as sent
	status inverseoffer.InverseOfferStatus_Status
	at     time.Time // of status
}

func (i *inverse) declined() bool { return i.status == inverseoffer.InverseOfferStatus_DECLINE }

// unavailability is when the agent will not be there, nil for never.
func (c *Core) unavailability(id task.AgentID) *mesos.Unavailability {
	if d := c.leaving[id]; d.Drains() {
		return &mesos.Unavailability{Start: timeInfo(d.Since)}
	}
	if a := c.agents[id]; a != nil {
		if m := c.machineOf(a); m != nil {
			return m.unavailability
		}
	}
	return nil
}

// syncInverse makes and rescinds inverse offers for an agent. It costs
// O(frameworks), and O(tasks of the agent) for each if its machine is
// scheduled.
func (c *Core) syncInverse(id task.AgentID) {
	if len(c.leaving)+len(c.machines)+len(c.inverse) == 0 {
		return
	}
	for _, f := range c.frameworks {
		c.syncInverseOf(f, id)
	}
}

// syncInversesOf does so for all agents, and one framework.
func (c *Core) syncInversesOf(f *framework) {
	for id := range c.leaving {
		c.syncInverseOf(f, id)
	}
	if len(c.machines) > 0 {
		for id := range c.agents {
			c.syncInverseOf(f, id)
		}
	}
}

func (c *Core) syncInverseOf(f *framework, id task.AgentID) {
	un, a := c.unavailability(id), c.agents[id]
	asked := f.mover || a != nil && !c.leaving[id].Drains() && a.hasFramework(f.id)
	old := c.inverseOf[inverseKey{f.id, id}]
	if un == nil || !asked || f.stream == nil {
		if old != nil {
			c.dropInverse(f, old)
		}
		return
	}
	if old != nil {
		if proto.Equal(old.view.Unavailability, un) {
			return
		}
		c.dropInverse(f, old)
	}
	i := &inverse{inverseKey: inverseKey{f.id, id}, id: task.OfferID(fmt.Sprintf("%s-O%d", c.Info.GetId(), c.numbers.offer))}
	c.numbers.offer++
	i.view = &mesos.InverseOffer{
		Id: &mesos.OfferID{Value: proto.String(string(i.id))}, FrameworkId: f.info.Id,
		AgentId: &mesos.AgentID{Value: proto.String(string(id))}, Unavailability: un,
	}
	if a != nil {
		i.view.Url = a.url()
		var used resource.Resources
		for _, r := range a.tasks {
			if r.key.framework == f.id && r.held {
				used = used.Add(r.res)
			}
		}
		i.view.Resources = f.resources(used)
	}
	c.inverse[i.id], c.inverseOf[i.inverseKey] = i, i
	f.send(&scheduler.Event{Type: scheduler.Event_INVERSE_OFFERS.Enum(), InverseOffers: &scheduler.Event_InverseOffers{InverseOffers: []*mesos.InverseOffer{i.view}}})
}

// dropInverse forgets an inverse offer and tells the framework, if it is there.
func (c *Core) dropInverse(f *framework, i *inverse) {
	delete(c.inverse, i.id)
	delete(c.inverseOf, i.inverseKey)
	f.send(&scheduler.Event{Type: scheduler.Event_RESCIND_INVERSE_OFFER.Enum(), RescindInverseOffer: &scheduler.Event_RescindInverseOffer{InverseOfferId: i.view.Id}})
}

// dropInverses forgets those of a framework that has gone away: O(inverse
// offers).
func (c *Core) dropInverses(f *framework) {
	for _, i := range c.inverse {
		if i.framework == f.id {
			c.dropInverse(f, i)
		}
	}
}

// AnswerInverse records a framework's answer to inverse offers. Who moves its
// tasks itself and declines leaves it to the master to kill them.
func (c *Core) AnswerInverse(id task.FrameworkID, ids []*mesos.OfferID, accept bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, oid := range ids {
		i := c.inverse[task.OfferID(oid.GetValue())]
		if i == nil || i.framework != id {
			continue // rescinded meanwhile
		}
		i.at = c.cfg.Now()
		i.status = inverseoffer.InverseOfferStatus_ACCEPT
		if !accept {
			i.status = inverseoffer.InverseOfferStatus_DECLINE
			if a := c.agents[i.agent]; a != nil {
				c.drainTasks(a)
			}
		}
	}
}

// inverseStatuses are the answers of frameworks that were asked for an agent.
func (c *Core) inverseStatuses(id task.AgentID) (out []*inverseoffer.InverseOfferStatus) {
	for _, f := range c.frameworks {
		if i := c.inverseOf[inverseKey{f.id, id}]; i != nil && i.status != 0 {
			out = append(out, &inverseoffer.InverseOfferStatus{Status: i.status.Enum(), FrameworkId: f.info.Id, Timestamp: timeInfo(i.at)})
		}
	}
	return out
}
