package supervise

// For tests of the state machine.
type Event = event

var (
	Next   = next
	States = []State{Inactive, Starting, Active, Stopping, Backoff, Failed}
	Events = []Event{start, ready, ended, broke, again, elapsed, stop}
)

// Launcher is what New takes.
type Launcher = launcher
