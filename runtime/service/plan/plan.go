// Package plan is the work on a service in phases and steps: which there are,
// how far each is, and what may be worked on next. It is pure: how far a step
// is, is what the caller sees; what people told a plan is a Control.
//
//	PENDING ──► PREPARED ──► STARTING ──► STARTED ──► COMPLETE
//	  │  ▲         ▲            │            │
//	  ▼  │         └── DELAYED ◄┴────────────┘   ERROR from everywhere
//	WAITING
package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"dcos.example/dcos/runtime/api/service"
	"dcos.example/dcos/runtime/service/spec"
)

// Strategy is the order in which parts are worked on.
type Strategy string

// The strategies. A canary waits to be continued before its first part and
// again before the rest.
const (
	Serial         Strategy = "serial"
	Parallel       Strategy = "parallel"
	Canary         Strategy = "canary" // serial
	SerialCanary   Strategy = "serial-canary"
	ParallelCanary Strategy = "parallel-canary"
)

// Canary reports whether people let it go on.
func (s Strategy) Canary() bool { return s == Canary || s == SerialCanary || s == ParallelCanary }

func (s Strategy) parallel() bool { return s == Parallel || s == ParallelCanary }

// Plan is work in phases.
type Plan struct {
	Name     string
	Strategy Strategy
	Phases   []Phase
}

// Phase is a group of steps.
type Phase struct {
	ID, Name string
	Strategy Strategy
	Steps    []Step
}

// Step is work on one instance. Tasks are those of the pod that it starts; a
// step without tasks is something else, which its caller knows.
type Step struct {
	ID, Name string
	Instance Instance
	Tasks    []string
}

// Instance names one instance of a pod.
type Instance struct {
	Pod   string
	Index int
}

func (i Instance) String() string { return fmt.Sprintf("%s-%d", i.Pod, i.Index) }

// Parse reads "kafka-0".
func Parse(s string) (Instance, bool) {
	i := strings.LastIndexByte(s, '-')
	if i <= 0 {
		return Instance{}, false
	}
	n, err := strconv.Atoi(s[i+1:])
	at := Instance{s[:i], n}
	if err != nil || n < 0 || at.String() != s { // "01" is no number of an instance
		return Instance{}, false
	}
	return at, true
}

// Compare orders instances by pod and number.
func (i Instance) Compare(o Instance) int {
	return cmp.Or(cmp.Compare(i.Pod, o.Pod), cmp.Compare(i.Index, o.Index))
}

var space = uuid.MustParse("5cbd2c6d-4b8a-4c5e-9a5b-3f1a8ce26b56")

// id gives a phase or step an identity that stays over restarts.
func id(parts ...string) string {
	return uuid.NewSHA1(space, []byte(strings.Join(parts, "\x00"))).String()
}

// NewStep makes a step with the name and identity that go with it.
func NewStep(plan, phase string, i Instance, tasks []string) Step {
	name := fmt.Sprintf("%s:[%s]", i, strings.Join(tasks, ", "))
	return Step{ID: id(plan, phase, name), Name: name, Instance: i, Tasks: tasks}
}

// NewPhase makes a phase.
func NewPhase(plan, name string, s Strategy, steps ...Step) Phase {
	return Phase{ID: id(plan, name), Name: name, Strategy: s, Steps: steps}
}

// Of makes a plan of a spec. A spec without deploy has a phase for each pod.
// Steps get the identity of the plan called identity: deploy and update are one
// work under two names.
func Of(s *service.Spec, name string) (Plan, bool) {
	def := s.Plans.Get(name)
	identity := name
	if spec.IsDeploy(name) {
		identity = spec.PlanDeploy
	}
	p := Plan{Name: name, Strategy: Serial}
	switch {
	case def != nil:
		p.Strategy = Strategy(def.Strategy)
		for phase, ph := range def.Phases.All() {
			p.Phases = append(p.Phases, NewPhase(identity, phase, Strategy(ph.Strategy), steps(s, identity, phase, ph)...))
		}
	case name == spec.PlanDeploy:
		for pod := range s.Pods.All() {
			ph := service.Phase{Pod: pod}
			p.Phases = append(p.Phases, NewPhase(identity, pod, Serial, steps(s, identity, pod, &ph)...))
		}
	default:
		return p, false
	}
	return p, true
}

// Deploy is the plan that installs, or that updates what is installed.
func Deploy(s *service.Spec, installed bool) Plan {
	if installed {
		if p, ok := Of(s, spec.PlanUpdate); ok {
			return p
		}
	}
	p, _ := Of(s, spec.PlanDeploy)
	return p
}

// steps of a phase, by instance and then as written. Steps for no instance in
// particular are those of every instance that has none of its own.
func steps(s *service.Spec, plan, phase string, ph *service.Phase) []Step {
	var out []Step
	for n := range s.Pods.Get(ph.Pod).Count {
		for _, tasks := range tasksOf(s, ph, n) {
			out = append(out, NewStep(plan, phase, Instance{ph.Pod, n}, tasks))
		}
	}
	return out
}

// tasksOf lists the tasks of each step for instance n of a phase's pod.
func tasksOf(s *service.Spec, ph *service.Phase, n int) [][]string {
	if len(ph.Steps) == 0 {
		return spec.DefaultSteps(s, ph.Pod)
	}
	var own, rest [][]string
	for _, st := range ph.Steps {
		switch st.Instance {
		case n:
			own = append(own, st.Tasks)
		case service.EveryInstance:
			rest = append(rest, st.Tasks)
		}
	}
	if len(own) > 0 {
		return own
	}
	return rest
}

// Anew are the steps by which an instance is made again elsewhere: those of the
// plan "replace" if it has a phase for the pod, else those of deploy.
func Anew(s *service.Spec, i Instance) []Step {
	for _, name := range []string{spec.PlanReplace, spec.PlanDeploy, spec.PlanUpdate} {
		p, ok := Of(s, name)
		if !ok {
			continue
		}
		var own []Step
		for _, ph := range p.Phases {
			for _, st := range ph.Steps {
				if st.Instance == i {
					own = append(own, NewStep(spec.PlanRecovery, i.String(), i, st.Tasks))
				}
			}
		}
		if len(own) > 0 {
			return own
		}
	}
	return nil
}

// Find returns a phase and a step of it by name or id; step "" is none.
func (p *Plan) Find(phase, step string) (ph *Phase, st *Step, ok bool) {
	for i := range p.Phases {
		f := &p.Phases[i]
		if f.ID != phase && f.Name != phase {
			continue
		}
		if step == "" {
			return f, nil, true
		}
		for j := range f.Steps {
			if s := &f.Steps[j]; s.ID == step || s.Name == step {
				return f, s, true
			}
		}
	}
	return nil, nil, false
}

// Select lists the steps that people mean by a phase and a step, either of them
// "" for all.
func (p *Plan) Select(phase, step string) ([]Step, bool) {
	if phase == "" {
		var all []Step
		for _, ph := range p.Phases {
			all = append(all, ph.Steps...)
		}
		return all, step == ""
	}
	ph, st, ok := p.Find(phase, step)
	switch {
	case !ok:
		return nil, false
	case st != nil:
		return []Step{*st}, true
	}
	return slices.Clone(ph.Steps), true
}
