// Package deployment decides how apps get from one definition to the next: the
// steps of a plan by dependency layers, and within a step what to launch and
// kill now. It is pure; the orchestrator carries decisions out and asks again
// after every change, so that a leader that takes over continues where the
// last one stopped.
//
//	Plan:    stop removed apps │ start new apps at 0 │ layer 1 │ layer 2 …
//	Decide:  instances now ──▶ launch n, kill these, or done
package deployment

import (
	"cmp"
	"slices"

	"dcos.example/dcos/runtime/orchestrator/spec"
)

// Kind is what a deployment does to an app.
type Kind string

// The kinds, spelled as the API does.
const (
	Start   Kind = "StartApplication"
	Stop    Kind = "StopApplication"
	Scale   Kind = "ScaleApplication"
	Restart Kind = "RestartApplication"
)

// Action is one thing to do to one app.
type Action struct {
	Kind Kind       `json:"kind"`
	App  spec.AppID `json:"app"`
}

// Step is actions that run at once; the next step waits for all of them.
type Step []Action

// Change is one app whose definition changes.
type Change struct {
	App       spec.AppID
	Was, Is   bool // whether the app exists before and after
	Changed   bool // whether the definition differs at all
	Replaces  bool // whether instances of another configuration must go
	Instances int64
}

// Plan returns the steps that carry changes out. deps lists what an app waits
// for; only the apps in changes get a step. Its cost is that of the changes
// and of the dependencies that can be reached from them.
func Plan(changes []Change, deps func(spec.AppID) []spec.AppID) []Step {
	changes = slices.SortedFunc(slices.Values(changes), func(a, b Change) int { return cmp.Compare(a.App, b.App) })
	var stop, start Step
	layers := map[int]Step{}
	depth := depths(deps)
	for _, c := range changes {
		switch {
		case c.Was && !c.Is:
			stop = append(stop, Action{Stop, c.App})
		case !c.Was && c.Is:
			start = append(start, Action{Start, c.App})
			layers[depth(c.App)] = append(layers[depth(c.App)], Action{Scale, c.App})
		case c.Is && c.Changed:
			kind := Scale
			if c.Replaces && c.Instances > 0 {
				kind = Restart
			}
			layers[depth(c.App)] = append(layers[depth(c.App)], Action{kind, c.App})
		}
	}
	var steps []Step
	for _, s := range []Step{stop, start} {
		if len(s) > 0 {
			steps = append(steps, s)
		}
	}
	order := make([]int, 0, len(layers))
	for d := range layers {
		order = append(order, d)
	}
	slices.Sort(order)
	for _, d := range order {
		steps = append(steps, layers[d])
	}
	return steps
}

// depths returns the length of the longest chain of dependencies below an app.
// Groups are checked to be free of cycles before; one met here counts as 0.
func depths(deps func(spec.AppID) []spec.AppID) func(spec.AppID) int {
	known := map[spec.AppID]int{}
	var depth func(spec.AppID) int
	depth = func(id spec.AppID) int {
		if d, ok := known[id]; ok {
			return d
		}
		known[id] = 0
		n := 0
		for _, d := range deps(id) {
			n = max(n, depth(d)+1)
		}
		known[id] = n
		return n
	}
	return depth
}

// Overlap returns the ids of the running plans that touch any of apps.
func Overlap[ID comparable](lockedBy map[spec.AppID]ID, apps []spec.AppID) []ID {
	var out []ID
	for _, a := range apps {
		if id, ok := lockedBy[a]; ok && !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	return out
}
