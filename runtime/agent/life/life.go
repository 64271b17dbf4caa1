// Package life is the state machine of one task on its agent, from the moment
// the agent accepts it until its container is gone. It decides nothing about
// Mesos task states; those are reported when a state is entered.
//
//	          Fetched          Launched
//	Fetching ────────▶ Starting ────────▶ Running ──┐
//	   │ │                │ │               │ │     │ Exited
//	   │ └─ Killed ───────┼─┴─ Killed ──────┘ │     ▼
//	   │                  │        │          │   Done
//	   │ Failed           │ Failed ▼          │     ▲
//	   └──────────────────┴─────▶ Done   Killing ───┘ Exited
//
// Killed in Fetching leads to Done at once, as nothing runs yet; in Starting
// and Running it leads to Killing, which ends when the container has exited
// or failed to start.
package life

import "fmt"

// State is where a task is.
type State uint8

// States in the order a task goes through them.
const (
	Fetching State = iota // its files are being brought to the sandbox
	Starting              // network and container are being made
	Running               // its process runs
	Killing               // it was told to end and has not yet
	Done                  // nothing of it runs any more
)

var states = [...]string{"fetching", "starting", "running", "killing", "done"}

// String returns the state's name.
func (s State) String() string { return states[s] }

// States lists every state.
func States() []State { return []State{Fetching, Starting, Running, Killing, Done} }

// Event is what happened to a task.
type Event uint8

// Events.
const (
	Fetched  Event = iota // every file is in the sandbox
	Failed                // fetching or starting did not work
	Launched              // the process runs
	Killed                // somebody wants it to end
	Exited                // the process ended
)

var events = [...]string{"fetched", "failed", "launched", "killed", "exited"}

// String returns the event's name.
func (e Event) String() string { return events[e] }

// Events lists every event.
func Events() []Event { return []Event{Fetched, Failed, Launched, Killed, Exited} }

type edge struct {
	from State
	on   Event
}

// table has every allowed transition; a pair that is missing cannot happen.
// A kill is welcome at any time and often repeated, so it is in every row.
var table = map[edge]State{
	{Fetching, Fetched}:  Starting,
	{Fetching, Failed}:   Done,
	{Fetching, Killed}:   Done,
	{Starting, Launched}: Running,
	{Starting, Failed}:   Done,
	{Starting, Killed}:   Killing,
	{Running, Killed}:    Killing,
	{Running, Exited}:    Done,
	{Killing, Launched}:  Killing,
	{Killing, Failed}:    Done,
	{Killing, Killed}:    Killing,
	{Killing, Exited}:    Done,
	{Done, Killed}:       Done,
}

// Next returns the state after event e in state s, or an error when e cannot
// happen in s, which is a broken invariant of the caller.
func Next(s State, e Event) (State, error) {
	if n, ok := table[edge{s, e}]; ok {
		return n, nil
	}
	return s, fmt.Errorf("a task that is %s cannot be %s", s, e)
}
