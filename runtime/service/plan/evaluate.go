package plan

import (
	"slices"

	"dcos.example/dcos/runtime/api/service"
)

// Control is what people told a plan.
type Control struct {
	Interrupted bool `json:"interrupted,omitempty"`
	// Go counts how often a canary was told to continue.
	Go     int                     `json:"go,omitempty"`
	Phases map[string]PhaseControl `json:"phases,omitempty"` // by id
}

// PhaseControl is what people told a phase.
type PhaseControl struct {
	Interrupted bool `json:"interrupted,omitempty"`
	Go          int  `json:"go,omitempty"`
}

// Seen is how far a step is, as its caller sees it.
type Seen struct {
	Status  service.PlanStatus // PENDING, PREPARED, STARTING, STARTED, DELAYED, ERROR or COMPLETE
	Message string
	// Down says that the instance was in service once and is not now.
	Down bool
}

// View is a plan with the statuses of its parts, in its order.
type View struct {
	Status service.PlanStatus
	Phases []PhaseView
	// Next are the steps to be worked on now: those begun, and those that may
	// begin.
	Next []Step
}

// PhaseView is a phase's.
type PhaseView struct {
	Status service.PlanStatus
	Steps  []Seen
}

// Evaluate says how far a plan is and what is next. It costs O(steps).
//
// A step that has begun goes on, also when its plan was interrupted: an
// instance is not left half way. In a serial phase the next step begins when
// none is under way. It is the first of an instance that is down already, if
// there is one, so that an update repairs what the last one broke; else it is
// the first, and only while no other instance of the phase is down.
func Evaluate(p Plan, seen func(Step) Seen, c Control) View {
	v := View{Phases: make([]PhaseView, len(p.Phases))}
	for i, ph := range p.Phases {
		v.Phases[i].Steps = make([]Seen, len(ph.Steps))
		for j, st := range ph.Steps {
			v.Phases[i].Steps[j] = seen(st)
		}
	}
	gate := gate{p.Strategy, c.Interrupted, c.Go}
	for i, ph := range p.Phases {
		open := gate.opens(i, func(n int) bool { return v.Phases[n].complete() })
		v.phase(ph, &v.Phases[i], c, open)
	}
	v.Status = service.Complete
	for i := range v.Phases {
		ph := &v.Phases[i]
		ph.Status = ph.status()
		if i == 0 {
			v.Status = ph.Status
		} else {
			v.Status = Combine(v.Status, ph.Status)
		}
	}
	return v
}

// gate decides which parts may begin.
type gate struct {
	strategy    Strategy
	interrupted bool
	proceeds    int
}

// access is whether a part may begin.
type access uint8

const (
	shut   access = iota // not its turn
	waits                // somebody has to continue
	opened               // it may
)

func (g gate) opens(i int, complete func(int) bool) access {
	turn := g.strategy.parallel()
	if !turn {
		turn = true
		for n := range i {
			turn = turn && complete(n)
		}
	}
	switch {
	case !turn:
		return shut
	case g.interrupted:
		return waits
	case g.strategy.Canary() && g.proceeds == 0, g.strategy.Canary() && g.proceeds == 1 && i > 0:
		return waits
	}
	return opened
}

func (ph *PhaseView) complete() bool {
	return !slices.ContainsFunc(ph.Steps, func(s Seen) bool { return s.Status != service.Complete })
}

func (ph *PhaseView) status() service.PlanStatus {
	if len(ph.Steps) == 0 {
		return service.Complete
	}
	st := ph.Steps[0].Status
	for _, s := range ph.Steps[1:] {
		st = Combine(st, s.Status)
	}
	return st
}

// phase decides about the steps of one phase. Steps that have begun go on,
// whatever the gates say.
func (v *View) phase(ph Phase, pv *PhaseView, c Control, open access) {
	pc := c.Phases[ph.ID]
	g := gate{ph.Strategy, pc.Interrupted, pc.Go}
	busy := false
	for j, s := range pv.Steps {
		if begun(s.Status) || s.Status == service.Error {
			v.Next = append(v.Next, ph.Steps[j])
			busy = true
		}
	}
	if open == shut {
		return
	}
	pick := -1
	if !g.strategy.parallel() && !busy {
		pick = nextOf(ph, pv)
	}
	for j := range pv.Steps {
		s := &pv.Steps[j]
		if s.Status != service.Pending {
			continue
		}
		// Its turn in the phase: which steps before it are complete is what a
		// serial strategy asks, and nextOf has answered.
		at := gate{Parallel, g.interrupted, 0}.opens(j, nil)
		if g.strategy.Canary() && at == opened {
			at = gate{ParallelCanary, false, g.proceeds}.opens(j, nil)
		}
		if open == waits || at == waits {
			s.Status = service.Waiting
			continue
		}
		if g.strategy.parallel() || j == pick {
			v.Next = append(v.Next, ph.Steps[j])
			continue
		}
		if pick < 0 && !busy && s.Message == "" {
			if i := downOf(ph, pv, ph.Steps[j].Instance); i >= 0 {
				s.Message = "waits for " + ph.Steps[i].Instance.String() + ", which is down"
			}
		}
	}
}

// nextOf returns the step of a serial phase that may begin, or -1.
func nextOf(ph Phase, pv *PhaseView) int {
	first := -1
	for j, s := range pv.Steps {
		if s.Status != service.Pending {
			continue
		}
		if s.Down {
			return j
		}
		if first < 0 {
			first = j
		}
	}
	if first >= 0 && downOf(ph, pv, ph.Steps[first].Instance) >= 0 {
		return -1
	}
	return first
}

// downOf returns a step of another instance that is down, or -1.
func downOf(ph Phase, pv *PhaseView, but Instance) int {
	for j, s := range pv.Steps {
		if s.Down && ph.Steps[j].Instance != but {
			return j
		}
	}
	return -1
}
