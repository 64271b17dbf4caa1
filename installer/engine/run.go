package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"

	"dcos.example/dcos/installer/stack"
	"dcos.example/dcos/runtime/fault"
)

// defaults fills in what the caller left out.
func (o Options) defaults(kind string) Options {
	if o.Parallel <= 0 {
		o.Parallel = 10
	}
	if o.Drain <= 0 {
		o.Drain = 5 * time.Minute
	}
	if o.Abandon <= 0 {
		o.Abandon = 20 * time.Second
	}
	if o.Command == "" {
		o.Command = kind
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

func (o *Options) emit(e Event) {
	if o.Events != nil {
		o.Events.append(e)
	}
}

// Preview returns what Apply would do with these goals, and Destroy with none.
// It changes nothing, takes no lock, and works on a stack of which another
// process is in the middle of an operation as on any other state.
func Preview(ctx context.Context, s *stack.Stack, goals []Goal, opts Options) (plan *Plan, err error) {
	o := opts.defaults("preview")
	start := time.Now()
	o.emit(Event{Kind: EventStart, Operation: "preview"})
	k := newMask()
	defer func() { o.end("preview", start, nil, err, k) }()
	st, err := s.State()
	if err != nil {
		return nil, err
	}
	serial := st.Serial
	learnState(k, st)
	found, err := observe(ctx, &o, k, toRead(&o, st, s.Name(), goals))
	if err != nil {
		return nil, err
	}
	for _, f := range found {
		st.Apply(f.op, f.res)
	}
	p := &planner{opts: &o, state: st, mask: k, drift: driftMap(found)}
	if err := p.plan(ctx, s.Name(), goals); err != nil {
		return nil, err
	}
	plan = p.result(s.Name(), serial)
	o.emit(Event{Kind: EventPlan, Counts: plan.Counts()})
	return plan, nil
}

// Apply brings the stack to the goals: it plans, and carries the plan out as far
// as it can. What succeeded stays and is recorded when something else fails, so
// the next Apply does the rest. When ctx is cancelled nothing more is started;
// running calls get Options.Drain to end by themselves.
//
// The error says what is left; the result has it in detail.
func Apply(ctx context.Context, s *stack.Stack, goals []Goal, opts Options) (*Result, error) {
	return operate(ctx, s, cmp.Or(opts.Operation, "apply"), goals, opts)
}

// Destroy deletes everything in the stack, dependents first.
func Destroy(ctx context.Context, s *stack.Stack, opts Options) (*Result, error) {
	return operate(ctx, s, "destroy", nil, opts)
}

// Refresh reads every object and records what it finds; it repairs nothing. The
// plan in the result has the drift and no steps.
func Refresh(ctx context.Context, s *stack.Stack, opts Options) (res *Result, err error) {
	o := opts.defaults("refresh")
	start := time.Now()
	o.emit(Event{Kind: EventStart, Operation: "refresh"})
	k := newMask()
	res = &Result{Done: map[Op]int{}}
	defer func() { o.end("refresh", start, res, err, k) }()
	journal, err := s.Begin("refresh", o.Command)
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, journal.End(resultOf(res, err), nil)) }()
	st := journal.State()
	learnState(k, st)
	found, err := observe(ctx, &o, k, st.Resources())
	if err != nil {
		return res, err
	}
	res.Plan = &Plan{Stack: s.Name(), Serial: st.Serial, ConfigHash: o.ConfigHash, Created: start.UTC()}
	for _, f := range found {
		if err := journal.Done(f.op, f.res); err != nil {
			return res, err
		}
		res.Plan.Drift = append(res.Plan.Drift, f.drift)
		o.emit(Event{Kind: EventNotice, URN: f.res.URN, Message: f.drift.String()})
	}
	res.Outputs = outputsOf(journal.State())
	return res, nil
}

func operate(ctx context.Context, s *stack.Stack, kind string, goals []Goal, opts Options) (res *Result, err error) {
	o := opts.defaults(kind)
	start := time.Now()
	o.emit(Event{Kind: EventStart, Operation: kind})
	k := newMask()
	res = &Result{Done: map[Op]int{}}
	defer func() { o.end(kind, start, res, err, k) }()
	journal, err := s.Begin(kind, o.Command)
	if err != nil {
		return res, err
	}
	defer func() {
		res.Outputs = outputsOf(journal.State())
		res.Stopped = res.Stopped || err != nil && ctx.Err() != nil // stopped while planning
		err = errors.Join(err, journal.End(resultOf(res, err), countsOf(res)))
	}()
	st := journal.State()
	if err := o.Plan.fits(s.Name(), st.Serial, o.ConfigHash); err != nil {
		return res, err
	}
	serial := st.Serial
	learnState(k, st)
	found, err := observe(ctx, &o, k, toRead(&o, st, s.Name(), goals))
	if err != nil {
		return res, err
	}
	p := &planner{opts: &o, state: st, mask: k, drift: driftMap(found)}
	for _, f := range found {
		st.Apply(f.op, f.res)
	}
	if err := p.plan(ctx, s.Name(), goals); err != nil {
		return res, err
	}
	res.Plan = p.result(s.Name(), serial)
	if err := o.Plan.holds(res.Plan); err != nil {
		return res, err
	}
	o.emit(Event{Kind: EventPlan, Counts: res.Plan.Counts()})
	for _, f := range found { // only now: a refused plan leaves the state as it was
		if err := journal.Done(f.op, f.res); err != nil {
			return res, err
		}
	}
	for _, d := range p.drops {
		if err := journal.Done(stack.OpDrop, &stack.Resource{URN: d.URN, Type: d.Type}); err != nil {
			return res, err
		}
	}
	res = carryOut(ctx, &o, p, journal, res)
	return res, res.err(kind)
}

// carryOut runs the plan and returns the result. Calls that were given up do
// not change it any more.
func carryOut(ctx context.Context, o *Options, p *planner, journal *stack.Operation, res *Result) *Result {
	callCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	// The timer belongs to the run: it starts when the operator stops it and
	// ends with it.
	var drain atomic.Pointer[time.Timer]
	unhook := context.AfterFunc(ctx, func() {
		o.emit(Event{Kind: EventNotice, Message: fmt.Sprintf("stopping: nothing more is started, running calls have %s to end", o.Drain)})
		drain.Store(time.AfterFunc(o.Drain, cancel))
	})
	defer func() {
		unhook()
		if t := drain.Load(); t != nil {
			t.Stop()
		}
	}()
	x := &executor{opts: o, plan: p, state: p.state, journal: journal, mask: p.mask, emit: o.emit,
		slots: make(chan struct{}, o.Parallel), stop: ctx, callCtx: callCtx, result: res}
	x.execute(x.tasks())
	x.mu.Lock()
	defer x.mu.Unlock()
	final := *res
	final.Done = maps.Clone(res.Done)
	final.Failed, final.Skipped = slices.Clone(res.Failed), slices.Clone(res.Skipped)
	final.Stopped = ctx.Err() != nil && (len(final.Skipped)+len(final.Failed) > 0 || callCtx.Err() != nil)
	return &final
}

// learnState makes the mask know every secret that is recorded.
func learnState(k *mask, st *stack.State) {
	for _, r := range append(st.Resources(), st.Doomed()...) {
		k.learn(r.Inputs)
		k.learn(r.Outputs)
	}
	for _, p := range st.Pending() {
		k.learn(p.Inputs)
	}
}

func outputsOf(st *stack.State) map[Key]resource.PropertyMap {
	out := map[Key]resource.PropertyMap{}
	for _, r := range st.Resources() {
		out[KeyOf(r.URN)] = r.Outputs
	}
	return out
}

func resultOf(res *Result, err error) stack.OperationResult {
	switch {
	case res.Stopped:
		return stack.Stopped
	case err != nil:
		return stack.Failed
	}
	return stack.Succeeded
}

func countsOf(res *Result) map[string]int {
	out := map[string]int{}
	for op, n := range res.Done {
		out[string(op)] = n
	}
	if len(res.Failed) > 0 {
		out["failed"] = len(res.Failed)
	}
	if len(res.Skipped) > 0 {
		out["skipped"] = len(res.Skipped)
	}
	return out
}

// end emits the last event of an operation.
func (o *Options) end(kind string, start time.Time, res *Result, err error, k *mask) {
	e := Event{Kind: EventEnd, Operation: kind, Elapsed: time.Since(start)}
	if res != nil {
		e.Counts = res.Done
	}
	if err != nil {
		e.Error = k.text(err.Error())
	}
	o.emit(e)
}

// err says what is left to do, or is nil.
func (r *Result) err(kind string) error {
	if len(r.Failed) == 0 && len(r.Skipped) == 0 && !r.Stopped {
		return nil
	}
	fk := fault.Unavailable // stopped: nothing wrong, try again
	var parts []string
	if n := len(r.Failed); n > 0 {
		fk = fault.KindOf(r.Failed[0].Err)
		parts = append(parts, fmt.Sprintf("%d failed", n))
	}
	if n := len(r.Skipped); n > 0 {
		parts = append(parts, fmt.Sprintf("%d not tried", n))
	}
	if r.Stopped {
		parts = append(parts, "stopped by the operator")
	}
	done := 0
	for _, n := range r.Done {
		done += n
	}
	msg := fmt.Sprintf("%d done, %s; what is done is kept, run %s again for the rest", done, strings.Join(parts, ", "), kind)
	all := []error{errors.New(msg)}
	for _, f := range r.Failed {
		all = append(all, f.Err)
	}
	return fault.New(kind, fk, errors.Join(all...))
}
