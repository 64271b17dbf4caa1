package impact

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Step is one thing that an apply does to one resource, as far as time goes.
type Step struct {
	Op   string // create, update, replace, delete
	Kind string // Secrets, Network, Host, Node, Cluster
	Role string // master, agent, public_agent; "" for what belongs to no host
	Host string
}

// class is what steps have in common that take equally long.
func (s Step) class() string {
	c := s.Op + " " + s.Kind
	if s.Role != "" {
		c += " " + s.Role
	}
	return c
}

// Past is how long steps of one class took: the mean of each of the last
// applies in which there were any, oldest first.
type Past map[string][]time.Duration

// Class is the key of Past for a step.
func Class(op, kind, role string) string { return Step{Op: op, Kind: kind, Role: role}.class() }

// Expected is about how long an apply takes, and how that is known.
type Expected struct {
	Duration time.Duration `json:"durationNanos"`
	// Own is how many of the steps were timed in this stack's own history; for
	// the others what was measured on a small local cluster stands in.
	Own   int `json:"own"`
	Steps int `json:"steps"`
}

// Text says it to people.
func (e Expected) Text() string {
	if e.Steps == 0 {
		return ""
	}
	basis := "this stack's own history"
	switch {
	case e.Own == 0:
		basis = "measured with local hosts: this stack has no history of such steps"
	case e.Own < e.Steps:
		basis = fmt.Sprintf("%d of %d steps from this stack's own history, the others measured with local hosts", e.Own, e.Steps)
	}
	return fmt.Sprintf("about %s (%s)", Round(e.Duration), basis)
}

// usual are the times of a cluster of five local hosts on two cores, with the
// bundle unpacked once before.
var usual = map[string]time.Duration{
	"create Secrets": 100 * time.Millisecond, "create Network": 100 * time.Millisecond, "delete Network": 100 * time.Millisecond,
	"create Host": 300 * time.Millisecond, "update Host": 300 * time.Millisecond, "replace Host": 500 * time.Millisecond, "delete Host": 200 * time.Millisecond,
	"create Node": 1300 * time.Millisecond, "update Node": time.Second, "replace Node": 1500 * time.Millisecond, "delete Node": 500 * time.Millisecond,
	"create Cluster": 600 * time.Millisecond, "update Cluster": 400 * time.Millisecond,
}

// Expect estimates an apply of steps with up to parallel of them at once, of
// which changes of running nodes go one master, and rolling agents, at a time.
// moving are the times that agents take to be emptied first, all at once.
func Expect(steps []Step, past Past, parallel, rolling int, moving []time.Duration) Expected {
	e := Expected{Steps: len(steps)}
	kinds := map[string]map[string][]Step{} // by kind, then class
	for _, s := range steps {
		if kinds[s.Kind] == nil {
			kinds[s.Kind] = map[string][]Step{}
		}
		kinds[s.Kind][s.class()] = append(kinds[s.Kind][s.class()], s)
	}
	for _, kind := range kinds { // one kind after the other: each needs those before
		var at time.Duration
		for class, list := range kind {
			took, own := typical(list[0], past[class])
			if own {
				e.Own += len(list)
			}
			lanes := max(1, parallel)
			rolls := list[0].Kind == "Node" && (list[0].Op == "update" || list[0].Op == "replace")
			if rolls {
				lanes = max(1, rolling)
				if list[0].Role == master {
					lanes = 1
				}
			}
			d := time.Duration((len(list)+lanes-1)/lanes) * took
			if rolls {
				at += d
			} else {
				at = max(at, d)
			}
		}
		e.Duration += at
	}
	if len(moving) > 0 {
		e.Duration += slices.Max(moving)
	}
	return e
}

// typical is the median of the past, and whether there was any.
func typical(s Step, past []time.Duration) (time.Duration, bool) {
	if len(past) == 0 {
		return usual[s.Op+" "+s.Kind], false
	}
	sorted := slices.SortedFunc(slices.Values(past), func(a, b time.Duration) int { return cmp.Compare(a, b) })
	return sorted[len(sorted)/2], true
}
