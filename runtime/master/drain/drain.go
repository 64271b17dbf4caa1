// Package drain is the life of an agent in the hands of an operator, as a
// table: which call may follow which state (Mesos 1.9 and later). Whether the
// agent can be reached is another matter, and not in here.
//
//	          deactivate                 drain
//	active ───────────────► deactivated ───────► draining ──emptied──► drained
//	  ▲ ▲  ◄──reactivate───      ▲     ▲            │ ▲                 │ │
//	  │ │                        │     │   cancel   │ └──────drain──────┘ │
//	  │ └────────────────────────┼─────┼────────────┘                     │
//	  └──────────────────────────┴─────┴───────────reactivate─────────────┘
//
// An agent that is not active gets no offers. mark gone leads from anywhere to
// gone, from which nothing leads away.
package drain

import "dcos.example/dcos/runtime/fault"

// State is where an agent is.
type State string

const (
	Active      State = "" // the state of agents that nobody has spoken of
	Deactivated State = "deactivated"
	Draining    State = "draining"
	Drained     State = "drained"
	Gone        State = "gone"
)

// Event is what happens to an agent.
type Event string

const (
	Deactivate Event = "deactivate"
	Drain      Event = "drain"
	Emptied    Event = "emptied" // no task is left whose end was not acknowledged
	Reactivate Event = "reactivate"
	Cancel     Event = "cancel" // ends a drain before its end; not a call of Mesos
	MarkGone   Event = "mark gone"
)

// States and Events list all there are.
var (
	States = [...]State{Active, Deactivated, Draining, Drained, Gone}
	Events = [...]Event{Deactivate, Drain, Emptied, Reactivate, Cancel, MarkGone}
)

// next has a row for each state; what is not in a row is refused.
var next = map[State]map[Event]State{
	Active:      {Deactivate: Deactivated, Drain: Draining, Emptied: Active, MarkGone: Gone},
	Deactivated: {Deactivate: Deactivated, Drain: Draining, Emptied: Deactivated, Reactivate: Active, Cancel: Active, MarkGone: Gone},
	Draining:    {Deactivate: Draining, Drain: Draining, Emptied: Drained, Cancel: Active, MarkGone: Gone},
	Drained:     {Deactivate: Drained, Drain: Draining, Emptied: Drained, Reactivate: Active, Cancel: Active, MarkGone: Gone},
	Gone:        {Emptied: Gone, MarkGone: Gone},
}

// Next returns the state after e. A refusal is fault.Invalid, in the words of
// Mesos.
func Next(s State, e Event) (State, error) {
	if to, ok := next[s][e]; ok {
		return to, nil
	}
	op := string(e) + " agent"
	switch s {
	case Gone:
		return s, fault.Newf(op, fault.Invalid, "Unknown agent")
	case Draining:
		return s, fault.Newf(op, fault.Invalid, "Agent is still in the DRAINING state")
	}
	return s, fault.Newf(op, fault.Invalid, "Agent is not deactivated")
}

// Offered reports whether an agent in state s may be offered.
func Offered(s State) bool { return s == Active }
