package engine

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"

	"dcos.example/dcos/installer/stack"
	"dcos.example/dcos/runtime/fault"
)

// executor carries a plan out. Every resource is a task, and every object that
// goes is one; a task runs when all it waits for have ended, and a slot is free.
//
//	waiting ──► running ──► done
//	   │           └──────► failed
//	   └──► skipped (what it needs failed, or the operator stopped)
type executor struct {
	opts    *Options
	plan    *planner
	state   *stack.State // as planned on; never changes
	journal *stack.Operation
	mask    *mask
	emit    func(Event)
	slots   chan struct{}
	stop    context.Context // done: start nothing more
	callCtx context.Context // of provider calls; outlives stop

	mu     sync.Mutex
	result *Result
}

type outcome uint8

const (
	waiting outcome = iota
	done
	failed
	skipped
)

// task is one thing to do. Its outcome is written before ended is closed and
// read after.
type task struct {
	urn     resource.URN
	op      Op     // as planned
	label   string // for people: "Machine m1", "old Machine m1"
	quiet   bool   // part of another step: no count of its own
	removes bool   // deletes an object
	needs   []*task
	after   []*task // must have ended, however
	turn    *turn   // among others that change a few at a time; may be nil
	run     func() (kept bool, err error)

	ended   chan struct{}
	outcome outcome
	did     Op     // what it took in the end; empty: as planned
	reason  string // why dependents are skipped
	clean   bool   // nothing changed here or below
}

// tasks builds the graph of tasks.
//
// A deletion needs the deletions of what depends on the object. Deletions that
// make room (first) run before their resource is made anew: the root of a
// cascade once its dependencies are in place, the others as soon as those of
// their dependencies are that no deletion can reach. All other deletions wait
// until everything wanted has been tried, and need the resources that used the
// object to have let go of it.
func (x *executor) tasks() []*task {
	ensure := make(map[*node]*task, len(x.plan.nodes))
	var all, ensures []*task
	// unsettled: a deletion lies below, so waiting for it could be a circle.
	unsettled := map[*node]bool{}
	for _, r := range x.plan.removals {
		if r.first {
			unsettled[r.node] = true
		}
	}
	for _, n := range x.plan.nodes {
		t := &task{urn: n.urn, op: n.step.Op, label: n.goal.Key.String(), ended: make(chan struct{})}
		for _, d := range n.deps {
			t.needs = append(t.needs, ensure[d])
			unsettled[n] = unsettled[n] || unsettled[d]
		}
		t.run = func() (bool, error) { return x.ensure(n, t) }
		ensure[n] = t
		ensures = append(ensures, t)
	}
	all = append(all, ensures...)

	dependents := map[resource.URN][]*removal{}
	for _, r := range x.plan.removals {
		for _, u := range r.res.Dependencies {
			dependents[u] = append(dependents[u], r)
		}
	}
	early := x.early(dependents)
	goesEarly := map[resource.URN]bool{}
	for r := range early {
		goesEarly[r.res.URN] = true
	}
	// root: r goes for its own sake, and no early deletion waits for it.
	root := func(r *removal) bool {
		return !slices.ContainsFunc(r.res.Dependencies, func(u resource.URN) bool { return goesEarly[u] })
	}
	byRemoval := map[*removal]*task{}
	for _, r := range x.plan.removals {
		t := &task{urn: r.res.URN, op: r.op, label: KeyOf(r.res.URN).String(), quiet: !r.listed, removes: true, ended: make(chan struct{})}
		if r.node != nil {
			t.label = "old " + t.label
		}
		t.run = func() (bool, error) { return true, x.remove(r) }
		byRemoval[r] = t
		all = append(all, t)
	}
	for _, r := range x.plan.removals {
		t := byRemoval[r]
		for _, d := range dependents[r.res.URN] {
			if d != r && !(early[r] && !early[d]) {
				t.needs = append(t.needs, byRemoval[d])
			}
		}
		if early[r] {
			if r.first {
				ensure[r.node].needs = append(ensure[r.node].needs, t)
			}
			if r.node != nil && !r.listed { // what is listed is not in use: it can go at once
				for _, d := range r.node.deps {
					if !unsettled[d] || root(r) {
						t.needs = append(t.needs, ensure[d])
					}
				}
			}
			continue
		}
		t.after = slices.Clone(ensures)
		if r.node != nil {
			t.needs = append(t.needs, ensure[r.node]) // the replacement must stand first
		}
	}
	x.needUsers(byRemoval, ensure, early)
	x.rolls(ensure, byRemoval)
	x.oneAtATime(byRemoval, early)
	return all
}

// oneAtATime orders the deletions of objects that share a URN, the early ones
// first: providers are promised that.
func (x *executor) oneAtATime(byRemoval map[*removal]*task, early map[*removal]bool) {
	last := map[resource.URN]*task{}
	chain := func(which bool) {
		for _, r := range x.plan.removals {
			if early[r] != which {
				continue
			}
			t := byRemoval[r]
			if prev := last[t.urn]; prev != nil {
				t.after = append(t.after, prev)
			}
			last[t.urn] = t
		}
	}
	chain(true)
	chain(false)
}

// needUsers makes the late deletions need every wanted resource that, by the
// record, still uses the object.
func (x *executor) needUsers(byRemoval map[*removal]*task, ensure map[*node]*task, early map[*removal]bool) {
	users := map[resource.URN][]*task{}
	for _, n := range x.plan.nodes {
		if n.old != nil {
			for _, u := range n.old.Dependencies {
				users[u] = append(users[u], ensure[n])
			}
		}
	}
	for r, t := range byRemoval {
		if !early[r] {
			t.needs = append(t.needs, users[r.res.URN]...)
		}
	}
}

// early returns the deletions that run before something is made anew: those
// that make room, and what goes anyway and depends on one of them.
func (x *executor) early(dependents map[resource.URN][]*removal) map[*removal]bool {
	early := map[*removal]bool{}
	var mark func(r *removal)
	mark = func(r *removal) {
		if early[r] {
			return
		}
		early[r] = true
		for _, d := range dependents[r.res.URN] {
			if d.first || d.node == nil {
				mark(d)
			}
		}
	}
	for _, r := range x.plan.removals {
		if r.first {
			mark(r)
		}
	}
	return early
}

// execute runs all tasks and returns when the last has ended, or when running
// calls did not end within the bounds that a stop sets.
func (x *executor) execute(tasks []*task) {
	for _, t := range tasks {
		x.announce(t)
	}
	finished := make(chan struct{})
	var wg sync.WaitGroup
	for _, t := range tasks {
		wg.Go(func() { x.perform(t) })
	}
	go func() { wg.Wait(); close(finished) }()
	select {
	case <-finished:
		return
	case <-x.callCtx.Done():
	}
	// The calls were told to end. One that does not is abandoned, as a crash
	// would: the journal says that it began.
	select {
	case <-finished:
	case <-time.After(x.opts.Abandon):
		x.notice("", "some calls do not end; they are given up and will be looked after by the next apply")
	}
}

func (x *executor) announce(t *task) {
	if t.op == OpSame {
		return
	}
	var names []string
	for _, w := range t.needs {
		if w.op != OpSame {
			names = append(names, w.label)
		}
	}
	x.event(t, Event{Kind: EventWaiting, Waiting: names})
}

func (x *executor) event(t *task, e Event) {
	k := KeyOf(t.urn)
	e.URN, e.Type, e.Name = t.urn, string(k.Type), k.Name
	if e.Op == "" {
		e.Op = t.op
	}
	x.emit(e)
}

func (x *executor) notice(u resource.URN, text string) {
	x.emit(Event{Kind: EventNotice, URN: u, Message: x.mask.text(text)})
}

// perform waits for what t needs, and runs it.
func (x *executor) perform(t *task) {
	defer close(t.ended)
	defer x.give(t)
	t.clean = t.op == OpSame
	for _, w := range t.needs {
		<-w.ended
		t.clean = t.clean && w.clean
	}
	for _, w := range t.after {
		<-w.ended
	}
	for _, w := range t.needs {
		if w.outcome != done {
			x.skip(t, w.reason)
			return
		}
	}
	if why := x.take(t); why != "" {
		x.skip(t, why)
		return
	}
	select {
	case x.slots <- struct{}{}:
	case <-x.stop.Done():
	}
	if x.stop.Err() != nil { // also when both were ready
		x.skip(t, "stopped before it began")
		return
	}
	defer func() { <-x.slots }()
	start := time.Now()
	if t.op != OpSame {
		x.event(t, Event{Kind: EventResourceStart})
	}
	kept, err := t.run()
	if err != nil {
		x.fail(t, kept, err, time.Since(start))
		return
	}
	t.outcome = done
	if t.op == OpSame {
		return
	}
	end := Event{Kind: EventResourceEnd, Elapsed: time.Since(start), Op: t.op}
	if t.did == OpSame || t.did == OpUpdate {
		end.Op = t.did // less than planned
	}
	if !t.quiet && end.Op != OpSame {
		x.mu.Lock()
		x.result.Done[end.Op]++
		x.mu.Unlock()
	}
	x.event(t, end)
}

func (x *executor) skip(t *task, reason string) {
	t.outcome, t.reason = skipped, reason
	if t.op == OpSame {
		return // nothing was to be done
	}
	x.mu.Lock()
	x.result.Skipped = append(x.result.Skipped, Skip{URN: t.urn, Op: t.op, Reason: reason})
	x.mu.Unlock()
	x.event(t, Event{Kind: EventSkipped, Message: reason})
}

func (x *executor) fail(t *task, kept bool, err error, took time.Duration) {
	t.outcome, t.reason = failed, t.label+" failed"
	err = x.mask.fault(fmt.Sprintf("%s %s", t.op, t.label), err)
	x.mu.Lock()
	x.result.Failed = append(x.result.Failed, Failure{URN: t.urn, Op: t.op, Err: err, Kept: kept})
	x.mu.Unlock()
	x.event(t, Event{Kind: EventResourceEnd, Elapsed: took, Error: err.Error()})
}

// ensure brings one resource to its goal, now that its dependencies are.
func (x *executor) ensure(n *node, t *task) (kept bool, err error) {
	old := n.old
	if n.decision.op == OpReplace && n.decision.deleteFirst {
		old = nil
	}
	d := n.decision
	if !t.clean || d.inputs.ContainsUnknowns() {
		// What the plan could only guess is known now.
		if d, err = decide(x.callCtx, x.state, n, old, n.inputs(), false); err != nil {
			return old != nil, err
		}
		x.mask.learn(d.inputs)
	}
	if err := x.hold(n, d); err != nil {
		return old != nil, err
	}
	t.did = d.op
	switch d.op {
	case OpSame:
		n.out = outputs{id: old.ID, props: old.Outputs}
		if res, changed := n.recorded(old, d.inputs); changed {
			n.out.props = res.Outputs
			return true, x.journal.Done(stack.OpRecord, res)
		}
		return true, nil
	case OpUpdate:
		if t.op == OpSame {
			t.clean, t.op, n.step.Op = false, OpUpdate, OpUpdate
			x.event(t, Event{Kind: EventResourceStart, Message: "not planned: a dependency turned out other than foreseen"})
		}
		return x.update(n, d, old)
	default:
		return x.create(n, d, old)
	}
}

// hold refuses what goes beyond the plan. Less than planned is fine.
func (x *executor) hold(n *node, d decision) error {
	planned := n.decision
	ok := d.op == planned.op && d.deleteFirst == (planned.deleteFirst && d.op == OpReplace)
	switch planned.op {
	case OpSame:
		ok = ok || d.op == OpUpdate && x.opts.Plan == nil
	case OpUpdate:
		ok = ok || d.op == OpSame
	case OpReplace:
		if planned.deleteFirst {
			ok = d.op == OpCreate // the old one is gone
		} else {
			ok = ok || d.op == OpSame || d.op == OpUpdate
		}
	}
	if !ok {
		return fault.Newf("hold to the plan", fault.Conflict,
			"planned: %s; now that its dependencies are in place it takes a %s; plan and apply again", planned.op, d.op)
	}
	return nil
}
