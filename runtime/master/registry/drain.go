package registry

import (
	"context"
	"encoding/json"
	"time"

	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/maintenance"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/master/drain"
	"dcos.example/dcos/runtime/task"
)

// Drain returns what an operator wants of the agent.
func (r *Registry) Drain(id task.AgentID) Drain {
	a, _ := r.agents.get(string(id))
	return a.Drain
}

// Drained returns the agents that are not active, by id: O(agents).
func (r *Registry) Drained() map[task.AgentID]Drain {
	r.agents.mu.Lock()
	defer r.agents.mu.Unlock()
	out := map[task.AgentID]Drain{}
	for id, o := range r.agents.objs {
		if o.Spec.Standing != Gone && o.Spec.Drain.State != drain.Active {
			out[task.AgentID(id)] = o.Spec.Drain
		}
	}
	return out
}

// MoveDrain takes the agent's drain to the state after e, and returns what it
// is then. want gives the bounds of a drain. An agent that is not known, or
// gone, is fault.Invalid, as is an event that its state does not allow.
func (r *Registry) MoveDrain(ctx context.Context, now time.Time, id task.AgentID, e drain.Event, want Drain) (Drain, error) {
	var refused error
	var got Drain
	err := r.agents.update(ctx, string(id), func(a *Agent, found bool) bool {
		from := a.Drain.State
		if !found || a.Standing == Gone {
			from = drain.Gone
		}
		to, err := drain.Next(from, e)
		if err != nil {
			refused = err
			return false
		}
		next := a.Drain
		switch {
		case to == drain.Active:
			next = Drain{}
		case e == drain.Drain:
			next = Drain{State: to, Since: now, MaxGrace: want.MaxGrace, Bounded: want.Bounded, MarkGone: want.MarkGone}
		case to != from:
			next.State = to
			if e == drain.Deactivate {
				next.Since = now
			}
		}
		got = next
		if next == a.Drain {
			return false
		}
		a.Drain = next
		return true
	})
	if refused != nil {
		return got, refused
	}
	return got, err
}

// Maintenance is the stored schedule with the machines that are down. Machines
// that are in the schedule and not down are draining, in the words of Mesos.
type Maintenance struct {
	Schedule    *maintenance.Schedule `json:"-"`
	RawSchedule json.RawMessage       `json:"schedule"`
	Down        []*mesos.MachineID    `json:"-"`
	RawDown     []json.RawMessage     `json:"down,omitempty"`
}

const scheduleID = "schedule"

func (m *Maintenance) open() error {
	m.Schedule = new(maintenance.Schedule)
	if err := decode(m.RawSchedule, m.Schedule); err != nil {
		return err
	}
	m.Down = nil
	for _, raw := range m.RawDown {
		id := new(mesos.MachineID)
		if err := decode(raw, id); err != nil {
			return err
		}
		m.Down = append(m.Down, id)
	}
	return nil
}

// Maintenance returns the schedule; it is never nil and must not be changed.
func (r *Registry) Maintenance() Maintenance {
	m, found := r.upkeep.get(scheduleID)
	if !found {
		m.Schedule = &maintenance.Schedule{}
	}
	return m
}

// EditMaintenance stores what edit makes of the schedule. An error of edit is
// returned, and nothing is stored. edit must not change what it gets, but
// return something new.
func (r *Registry) EditMaintenance(ctx context.Context, edit func(Maintenance) (Maintenance, error)) error {
	var refused error
	err := r.upkeep.update(ctx, scheduleID, func(m *Maintenance, found bool) bool {
		if !found {
			m.Schedule = &maintenance.Schedule{}
		}
		next, err := edit(*m)
		if err == nil {
			err = next.close()
		}
		if err != nil {
			refused = err
			return false
		}
		*m = next
		return true
	})
	if refused != nil {
		return refused
	}
	return err
}

func (m *Maintenance) close() error {
	raw, err := encode(m.Schedule)
	if err != nil {
		return fault.New("store the maintenance schedule", fault.Invalid, err)
	}
	m.RawSchedule, m.RawDown = raw, nil
	for _, id := range m.Down {
		raw, err := encode(id)
		if err != nil {
			return err
		}
		m.RawDown = append(m.RawDown, raw)
	}
	return nil
}
