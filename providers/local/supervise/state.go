package supervise

// State is where a service is in its life.
//
//	inactive ──start──► starting ──ready──► active
//	   ▲  ▲                │  │               │ │
//	   │  └────ended───────┼──┼───────────────┘ │
//	   │                   │  └─again─► backoff ◄┘   backoff ──elapsed/start──► starting
//	 ended                 └─broke─► failed ◄─broke (active)   failed ──start──► starting
//	   │
//	stopping ◄──stop── starting, active             backoff, failed ──stop──► inactive
type State string

const (
	Inactive State = "inactive"
	Starting State = "starting"
	Active   State = "active"
	Stopping State = "stopping"
	Backoff  State = "backoff"
	Failed   State = "failed"
)

// event is what can happen to a service.
type event string

const (
	start   event = "start"   // someone wants it to run
	ready   event = "ready"   // it counts as started
	ended   event = "ended"   // its main process is gone, as it should
	broke   event = "broke"   // it ended badly and will not be restarted
	again   event = "again"   // it ended and its Restart= rule wants it back
	elapsed event = "elapsed" // the pause before a restart is over
	stop    event = "stop"    // someone wants it gone
)

var transitions = map[State]map[event]State{
	Inactive: {start: Starting},
	Starting: {ready: Active, ended: Inactive, broke: Failed, again: Backoff, stop: Stopping},
	Active:   {ended: Inactive, broke: Failed, again: Backoff, stop: Stopping},
	Stopping: {ended: Inactive},
	Backoff:  {start: Starting, elapsed: Starting, stop: Inactive},
	Failed:   {start: Starting, stop: Inactive},
}

// next returns the state after e, and false when e means nothing in s.
func next(s State, e event) (State, bool) {
	to, ok := transitions[s][e]
	return to, ok
}
