// Package engine brings what exists to what is wanted: it compares the goals of
// a run with the recorded state of a stack, plans, and carries the plan out in
// parallel through the providers, writing down every step so that a run that
// was killed at any point is resumed without losing or doubling anything.
//
// It knows no domain: goals name types, providers serve them.
package engine

import (
	"log/slog"
	"time"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"

	"dcos.example/dcos/providers"
)

// Options of a run.
type Options struct {
	// Providers serve the types of goals and of what the state holds. Required.
	Providers providers.Set
	// Parallel bounds provider calls at any moment; zero means 10.
	Parallel int
	// Refresh reads every object before planning, so that drift is repaired.
	Refresh bool
	// ConfigHash stands for the configuration the goals were made from. A plan
	// carries it, and is refused for another one.
	ConfigHash string
	// Plan, when set, holds Apply and Destroy to a plan made earlier: they
	// refuse when it is stale and fail a step that turns out differently.
	Plan *Plan
	// Events receives what happens; nil discards it. The caller closes it.
	Events *Log
	// Drain bounds how long running calls may go on after ctx is cancelled
	// before their contexts end too; zero means 5 minutes.
	Drain time.Duration
	// Abandon bounds how long a call may go on after its context has ended
	// before it is given up, as a crash would; zero means 20 seconds.
	Abandon time.Duration
	// Operation is what an Apply is called in the history and in events, such
	// as "upgrade"; empty: "apply".
	Operation string
	// Command names what runs, for others who find the stack locked. It must
	// hold no secrets.
	Command string
	// Logger receives what concerns the engine itself; nil discards it.
	Logger *slog.Logger
}

// Result is what an operation did. It is valid also when an error is returned.
type Result struct {
	Plan    *Plan
	Done    map[Op]int // changes carried out
	Failed  []Failure
	Skipped []Skip
	Stopped bool // ctx was cancelled before everything was done
	// Outputs of all resources that are in place. Secrets are not masked.
	Outputs map[Key]resource.PropertyMap
}

// Failure is a change that was tried and did not work.
type Failure struct {
	URN resource.URN
	Op  Op
	Err error // a fault; its text holds no secrets
	// Kept says that part of the object exists and is recorded.
	Kept bool
}

// Skip is a change that was not tried.
type Skip struct {
	URN    resource.URN
	Op     Op
	Reason string
}
