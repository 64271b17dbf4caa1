// Package impact says what changes of hosts do to what runs on a cluster: which
// tasks move, which apps fall below their minimum and for how long about,
// whether the masters keep their quorum, whether the other agents have room. It
// is pure; what it knows is in the Snapshot, and what it does not know it says.
// It plays the orchestrator's rules (runtime/orchestrator/deployment.Move), not
// its code.
package impact

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// Kind is what happens to a host.
type Kind string

const (
	Create  Kind = "create"
	Update  Kind = "update"  // its units start anew; tasks outlive that
	Drain   Kind = "drain"   // emptied, and used again later
	Replace Kind = "replace" // emptied, and made anew
	Remove  Kind = "remove"  // emptied, and gone
	Reboot  Kind = "reboot"  // emptied, and started anew
)

// Change is one host that changes.
type Change struct {
	Host    string `json:"host"`
	Role    string `json:"role"` // master, agent, public_agent
	Address string `json:"address,omitempty"`
	Kind    Kind   `json:"change"`
	// Drained says that an Update empties the agent first.
	Drained bool `json:"drained,omitempty"`
}

// Empties reports whether tasks have to leave the host.
func (c Change) Empties() bool {
	return c.Role != master && (c.Kind == Drain || c.Kind == Replace || c.Kind == Remove || c.Kind == Reboot || c.Kind == Update && c.Drained)
}

// leaves reports whether the host is not there for others meanwhile: changes
// of one apply that empty agents for good empty them before anything else, so
// none takes the tasks of another.
func (c Change) leaves() bool { return c.Empties() && c.Kind != Update }

const master = "master"

// Effect is what one change does.
type Effect struct {
	Change
	// Known is false for an agent that the cluster does not have: nothing of
	// it moves, as nothing is known to run there.
	Known   bool          `json:"known"`
	Tasks   []Moved       `json:"tasks,omitempty"`
	Apps    []AppEffect   `json:"apps,omitempty"`
	Volumes []string      `json:"volumes,omitempty"` // unavailable, and lost if the host goes
	Quorum  *Quorum       `json:"quorum,omitempty"`
	Lacking []Lack        `json:"lacking,omitempty"` // what the other agents do not have
	Moving  time.Duration `json:"movingNanos,omitempty"`
}

// Moved is one task that leaves.
type Moved struct {
	ID        string `json:"id"`
	App       string `json:"app,omitempty"`
	Framework string `json:"framework"`
	// Fits is false when no other agent has room for it now.
	Fits bool `json:"fits"`
	// Killed says that its framework is not asked: the task ends at once.
	Killed bool `json:"killed,omitempty"`
}

// AppEffect is what a change does to one app.
type AppEffect struct {
	ID        string        `json:"id"`
	Instances int           `json:"instances"` // wanted
	Moving    int           `json:"moving"`
	Minimum   int           `json:"minimum"` // that its upgradeStrategy wants ready
	Ready     int           `json:"ready"`   // now
	Lowest    int           `json:"lowest"`  // ready, at the worst moment
	Below     bool          `json:"belowMinimum"`
	Down      bool          `json:"down"`
	For       time.Duration `json:"forNanos,omitempty"` // about how long it has fewer than now; zero with Below: until there is room
	Why       string        `json:"why"`
}

// Quorum is what a change does to the masters.
type Quorum struct {
	Voters int  `json:"voters"` // without a master that leaves
	Needed int  `json:"needed"`
	During int  `json:"during"` // healthy voters while the master is away, or after it has left
	Holds  bool `json:"holds"`
	// Alone says that the only master starts anew: its API is away for a
	// moment and nothing is lost.
	Alone bool `json:"alone,omitempty"`
}

// Lack is a resource that the other agents are short of.
type Lack struct {
	Resource string  `json:"resource"`
	Needed   float64 `json:"needed"`
	Free     float64 `json:"free"`
}

// Report is what all changes of a plan do.
type Report struct {
	// Unknown says why nothing is known of the cluster's workloads, "" when
	// they are.
	Unknown string   `json:"unknown,omitempty"`
	Effects []Effect `json:"effects"`
	// Refusals are the reasons not to go on without being told to.
	Refusals []string `json:"refusals,omitempty"`
	Expected Expected `json:"expected"`
}

// Of returns the effects of changes on what s shows.
func Of(s Snapshot, changes []Change) Report {
	w := newWorld(s, changes)
	r := Report{Effects: []Effect{}}
	for _, c := range changes {
		e := Effect{Change: c, Known: true}
		if c.Role == master {
			e.Quorum = w.quorum(c)
		} else if c.Empties() {
			w.empty(&e)
		}
		r.Effects = append(r.Effects, e)
		r.Refusals = append(r.Refusals, refusals(e)...)
	}
	return r
}

// Matters reports whether changes may touch what runs.
func Matters(changes []Change) bool {
	return slices.ContainsFunc(changes, func(c Change) bool { return c.Empties() || c.Role == master && c.Kind != Create })
}

// Blind is the report when the cluster does not say what it runs. Changes that
// empty an agent or take a master away are then refused: nobody knows what
// they break.
func Blind(changes []Change, why string) Report {
	r := Report{Unknown: why, Effects: []Effect{}}
	for _, c := range changes {
		r.Effects = append(r.Effects, Effect{Change: c})
		if c.Empties() || c.Role == master && c.Kind != Create && c.Kind != Update {
			r.Refusals = append(r.Refusals, fmt.Sprintf("%s: what runs there is not known, as the cluster does not answer", c.Host))
		}
	}
	return r
}

func refusals(e Effect) (out []string) {
	for _, a := range e.Apps {
		switch {
		case a.Down && a.Instances == 1:
			out = append(out, fmt.Sprintf("%s: app %s has one instance and would be down%s: %s", e.Host, a.ID, about(a.For), a.Why))
		case a.Down:
			out = append(out, fmt.Sprintf("%s: app %s would be down%s: %s", e.Host, a.ID, about(a.For), a.Why))
		case a.Below:
			out = append(out, fmt.Sprintf("%s: app %s would have %d of %d instances, and wants %d%s: %s", e.Host, a.ID, a.Lowest, a.Instances, a.Minimum, about(a.For), a.Why))
		}
	}
	if q := e.Quorum; q != nil && !q.Holds && !q.Alone {
		out = append(out, fmt.Sprintf("%s: %d of %d masters would be left while it is away, and %d are needed", e.Host, q.During, q.Voters, q.Needed))
	}
	return out
}

func about(d time.Duration) string {
	if d <= 0 {
		return ""
	}
	return " for about " + Round(d).String()
}

// Round makes an estimate look like one.
func Round(d time.Duration) time.Duration {
	switch {
	case d > 10*time.Minute:
		return d.Round(time.Minute)
	case d > 20*time.Second:
		return d.Round(5 * time.Second)
	}
	return max(d.Round(time.Second), time.Second)
}

// world is the snapshot indexed, as changes go through it.
type world struct {
	agents  []*agent
	byHost  map[string]*agent
	apps    map[string]App
	ready   map[string]int
	members map[string]Member
	volumes map[string][]string // by agent
}

type agent struct {
	Agent
	free   Resources
	tasks  []Task
	leaves bool
}

func newWorld(s Snapshot, changes []Change) *world {
	w := &world{byHost: map[string]*agent{}, apps: map[string]App{}, ready: map[string]int{}, volumes: map[string][]string{}}
	byID := map[string]*agent{}
	for _, a := range s.Agents {
		x := &agent{Agent: a, free: Resources{}}
		for n, v := range a.Total {
			x.free[n] = v - a.Used[n]
		}
		w.agents = append(w.agents, x)
		byID[a.ID] = x
		if a.Host != "" {
			w.byHost[a.Host] = x
		}
	}
	slices.SortFunc(w.agents, func(a, b *agent) int { return cmp.Compare(a.ID, b.ID) })
	for _, t := range s.Tasks {
		if a := byID[t.Agent]; a != nil {
			a.tasks = append(a.tasks, t)
		}
		if t.App != "" && t.Ready {
			w.ready[t.App]++
		}
	}
	for _, a := range s.Apps {
		w.apps[a.ID] = a
	}
	for _, v := range s.Volumes {
		w.volumes[v.Agent] = append(w.volumes[v.Agent], v.ID)
	}
	if s.Members != nil {
		w.members = map[string]Member{}
		for _, m := range s.Members {
			w.members[m.Name] = m
		}
	}
	for _, c := range changes {
		if a := w.byHost[c.Host]; a != nil && c.leaves() {
			a.leaves = true
		}
	}
	return w
}

// quorum plays a master's change. Members go and come one at a time. One that
// goes leaves the others first, and is not counted among them any more; for that
// there must be a majority with it, if it works, or without it.
func (w *world) quorum(c Change) *Quorum {
	me, member := w.members[c.Host]
	if c.Kind == Create || !member || !me.Voter {
		return nil
	}
	q := &Quorum{}
	for _, m := range w.members {
		if !m.Voter {
			continue
		}
		q.Voters++
		if m.Healthy && m.Name != c.Host {
			q.During++
		}
	}
	q.Needed = q.Voters/2 + 1
	q.Alone = q.Voters == 1 && c.Kind == Update
	if c.Kind != Remove && c.Kind != Replace {
		q.Holds = q.During >= q.Needed
		return q
	}
	with := q.During
	if me.Healthy {
		with++
	}
	q.Holds = with >= q.Needed
	q.Voters--
	q.Needed = q.Voters/2 + 1
	q.Holds = q.Holds && q.During >= q.Needed
	if c.Kind == Remove && q.Holds {
		delete(w.members, c.Host) // it has left before the next change
	}
	return q
}

// empty plays the tasks' way off an agent.
func (w *world) empty(e *Effect) {
	a := w.byHost[e.Host]
	if a == nil {
		e.Known = false
		return
	}
	e.Volumes = slices.Sorted(slices.Values(w.volumes[a.ID]))
	tasks := slices.Clone(a.tasks)
	slices.SortFunc(tasks, func(x, y Task) int { // the large first: they are the hard ones
		return cmp.Or(-cmp.Compare(x.Resources["mem"], y.Resources["mem"]), cmp.Compare(x.ID, y.ID))
	})
	moving, homeless := map[string]int{}, map[string]int{}
	needed := Resources{}
	for _, t := range tasks {
		m := Moved{ID: t.ID, App: t.App, Framework: t.Framework, Killed: t.App == ""}
		for n, v := range t.Resources {
			needed[n] += v
		}
		to := w.place(a, t)
		if to != nil {
			m.Fits = true
			for n, v := range t.Resources {
				to.free[n] -= v
			}
			to.tasks = append(to.tasks, t)
		}
		if t.App != "" {
			moving[t.App]++
			if to == nil {
				homeless[t.App]++
			}
		}
		e.Tasks = append(e.Tasks, m)
	}
	if slices.ContainsFunc(e.Tasks, func(m Moved) bool { return !m.Fits }) {
		e.Lacking = w.lacks(a, needed)
	}
	for id, n := range moving {
		app, known := w.apps[id]
		if !known { // it is being removed
			continue
		}
		x := w.appEffect(app, n, homeless[id])
		e.Apps = append(e.Apps, x)
		e.Moving = max(e.Moving, moveTime(app, n))
	}
	slices.SortFunc(e.Apps, func(x, y AppEffect) int { return cmp.Compare(x.ID, y.ID) })
	slices.SortFunc(e.Tasks, func(x, y Moved) int { return cmp.Or(cmp.Compare(x.App, y.App), cmp.Compare(x.ID, y.ID)) })
	if !e.leaves() { // it takes its share again before the next agent changes
		for n, v := range a.Total {
			a.free[n] = v
		}
	}
	a.tasks = nil
}

// place returns an agent that could run t when it leaves from.
func (w *world) place(from *agent, t Task) *agent {
	for _, a := range w.agents {
		if a == from || a.leaves || !a.Offered || a.Public != from.Public {
			continue
		}
		if holds(a.free, t.Resources) && w.allows(a, from, t) {
			return a
		}
	}
	return nil
}

func holds(free, want Resources) bool {
	for n, v := range want {
		if free[n] < v-1e-6 {
			return false
		}
	}
	return true
}

// lacks are the resources of which all other agents together have too little;
// none when it is their pieces that are too small, or constraints.
func (w *world) lacks(from *agent, needed Resources) (out []Lack) {
	free := Resources{}
	for _, a := range w.agents {
		if a != from && !a.leaves && a.Offered && a.Public == from.Public {
			for n := range needed {
				free[n] += a.Total[n] - a.Used[n]
			}
		}
	}
	for _, n := range []string{"cpus", "gpus", "mem", "disk"} {
		if needed[n] > free[n]+1e-6 {
			out = append(out, Lack{n, needed[n], max(0, free[n])})
		}
	}
	return out
}

const (
	// usualStartup stands in for an app whose instances have not told how long
	// they take.
	usualStartup = 5 * time.Second
	usualGrace   = 5 * time.Second
)

func startup(a App) time.Duration {
	if a.Startup > 0 {
		return a.Startup
	}
	return usualStartup
}

func grace(a App) time.Duration {
	if a.Grace > 0 {
		return a.Grace
	}
	return usualGrace
}

// bounds are those of the orchestrator's replacements.
func bounds(a App) (minReady, capacity int) {
	n := float64(a.Instances)
	minReady = int(math.Ceil(n * a.MinimumShare))
	capacity = int(math.Floor(n * (1 + a.OverShare)))
	if capacity <= minReady {
		capacity = minReady + 1
	}
	return minReady, capacity
}

// moveTime is how long n instances take to move, in rounds of as many as the
// strategy lets move at once.
func moveTime(a App, n int) time.Duration {
	minReady, capacity := bounds(a)
	at := capacity - a.Instances
	if at <= 0 {
		at = a.Instances - minReady
	}
	at = max(1, at)
	return time.Duration((n+at-1)/at) * (startup(a) + grace(a))
}

func (w *world) appEffect(a App, moving, homeless int) AppEffect {
	minReady, capacity := bounds(a)
	now := w.ready[a.ID]
	e := AppEffect{ID: a.ID, Instances: a.Instances, Moving: moving, Minimum: minReady, Ready: now, Lowest: now}
	switch {
	case homeless > 0:
		// Down to the minimum after a while, and to what is left when the
		// drain's time is over.
		e.Lowest = max(0, now-homeless)
		e.Why = fmt.Sprintf("%s no room or no allowed place on the other agents", count(homeless, "instance has", "instances have"))
	case capacity > a.Instances:
		e.Why = "each starts elsewhere before it stops here"
	default:
		e.Lowest = max(0, min(now, minReady), now-moving)
		e.For = moveTime(a, moving)
		e.Why = "its upgradeStrategy allows no instance more than wanted (maximumOverCapacity), so one stops before the next starts"
	}
	e.Below = e.Lowest < min(minReady, now)
	e.Down = e.Lowest == 0 && now > 0
	return e
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
