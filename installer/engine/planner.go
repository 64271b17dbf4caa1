package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"

	"dcos.example/dcos/installer/stack"
	"dcos.example/dcos/providers"
	"dcos.example/dcos/runtime/fault"
)

// planner turns goals and state into a plan. It changes nothing: providers are
// asked to check, compare, read, and to predict. It calls them one after the
// other, twice per resource, and is otherwise linear in resources and
// dependencies.
type planner struct {
	opts  *Options
	state *stack.State
	mask  *mask
	drift map[resource.URN]Drift

	nodes    []*node // dependencies first
	byURN    map[resource.URN]*node
	removals []*removal
	drops    []stack.Pending // creates that left nothing and are wanted no more
	problems []error
}

// removal is the deletion of one object.
type removal struct {
	res    *stack.Resource
	op     Op     // OpDelete or OpForget
	reason string // for the plan
	first  bool   // before its replacement is made
	adopt  bool   // known only from an interrupted create: record it first
	node   *node  // the goal this makes room for or cleans up after; or nil
	listed bool   // has its own step in the plan
	step   *Step
}

func (p *planner) problem(u resource.URN, err error) {
	k := KeyOf(u)
	p.problems = append(p.problems, p.mask.fault(k.String(), err))
}

// plan decides for every goal, and what goes.
func (p *planner) plan(ctx context.Context, stackName string, goals []Goal) error {
	nodes, err := buildGraph(stackName, goals, p.opts.Providers)
	if err != nil {
		return err
	}
	p.nodes = nodes
	p.byURN = make(map[resource.URN]*node, len(nodes))
	for _, n := range nodes {
		p.byURN[n.urn] = n
		if err := ctx.Err(); err != nil {
			return fault.New("plan", fault.Unavailable, err)
		}
		p.node(ctx, n)
	}
	p.cascade()
	p.collectRemovals(ctx)
	p.refuseProtected()
	if len(p.problems) > 0 {
		kind := fault.KindOf(p.problems[0])
		for _, err := range p.problems {
			if fault.KindOf(err) != kind {
				kind = fault.Invalid
			}
		}
		return fault.New("plan", kind, errors.Join(p.problems...))
	}
	return nil
}

// node decides for one goal, whose dependencies have been decided, and predicts
// its outputs.
func (p *planner) node(ctx context.Context, n *node) {
	n.old = p.state.Live(n.urn)
	for _, d := range n.deps {
		if d.blocked {
			n.blocked = true // the dependency's problem has been noted
			return
		}
	}
	d, err := decide(ctx, p.state, n, n.old, n.inputs(), true)
	if err == nil {
		n.decision = d
		p.mask.learn(d.inputs)
		err = p.predict(ctx, n)
	}
	if err != nil {
		n.blocked = true
		p.problem(n.urn, err)
		return
	}
	n.step = p.stepOf(n)
}

// inputs returns what the input function of n may see.
func (n *node) inputs() Outputs {
	o := Outputs{of: make(map[Key]outputs, len(n.deps))}
	for _, d := range n.deps {
		o.of[d.goal.Key] = d.out
	}
	return o
}

// predict fills n.out with what dependents see before the change is made.
func (p *planner) predict(ctx context.Context, n *node) error {
	d, g := n.decision, n.goal
	switch d.op {
	case OpSame:
		n.out = outputs{id: n.old.ID, props: n.old.Outputs}
	case OpUpdate:
		resp, err := guard(func() (plugin.UpdateResponse, error) {
			return n.provider.Update(ctx, plugin.UpdateRequest{URN: n.urn, Name: g.Name, Type: g.Type, ID: n.old.ID,
				OldInputs: n.old.Inputs, OldOutputs: n.old.Outputs, NewInputs: d.inputs, IgnoreChanges: g.IgnoreChanges,
				Timeout: g.Timeouts.Update, Preview: true})
		})
		if err != nil {
			return fmt.Errorf("preview update: %w", err)
		}
		n.out = outputs{id: n.old.ID, props: keepSecret(resp.Properties, d.inputs, g.SecretOutputs), partial: true}
	default:
		resp, err := guard(func() (plugin.CreateResponse, error) {
			return n.provider.Create(ctx, plugin.CreateRequest{URN: n.urn, Name: g.Name, Type: g.Type,
				Properties: d.inputs, Timeout: g.Timeouts.Create, Preview: true})
		})
		if err != nil {
			return fmt.Errorf("preview create: %w", err)
		}
		n.out = outputs{props: keepSecret(resp.Properties, d.inputs, g.SecretOutputs), partial: true}
	}
	p.mask.learn(n.out.props)
	return nil
}

func (p *planner) stepOf(n *node) *Step {
	d := n.decision
	s := &Step{URN: n.urn, Type: string(n.goal.Type), Name: n.goal.Name, Op: d.op, Reason: p.mask.text(d.reason),
		DeleteFirst: d.deleteFirst, ReplaceKeys: d.replaceKeys}
	for _, dep := range n.deps {
		s.Dependencies = append(s.Dependencies, dep.urn)
	}
	if d.op != OpSame {
		var old resource.PropertyMap
		if n.old != nil {
			old = n.old.Inputs
		}
		s.Changes = changesBetween(old, d.inputs)
		for i := range s.Changes { // a plain value may still contain a secret
			s.Changes[i].Old, s.Changes[i].New = p.mask.text(s.Changes[i].Old), p.mask.text(s.Changes[i].New)
		}
		if len(s.Changes) == 0 {
			for _, path := range d.diffKeys {
				s.Changes = append(s.Changes, Change{Path: path})
			}
		}
	}
	if drift, ok := p.drift[n.urn]; ok && s.Reason == "" && d.op != OpSame {
		s.Reason = "changed outside"
		if drift.Gone {
			s.Reason = "vanished outside"
		}
	}
	return s
}

// cascade finds what else must go first when a resource is deleted before it is
// replaced: those that depend on it, perhaps through others that go, and are to
// be replaced themselves. What is merely updated stays and follows afterwards.
func (p *planner) cascade() {
	dependents := map[resource.URN][]resource.URN{}
	for _, r := range p.state.Resources() {
		for _, u := range r.Dependencies {
			dependents[u] = append(dependents[u], r.URN)
		}
	}
	var queue []resource.URN
	for _, n := range p.nodes {
		if n.decision.op == OpReplace && n.decision.deleteFirst {
			queue = append(queue, n.urn)
		}
	}
	seen := map[resource.URN]bool{}
	for len(queue) > 0 {
		root := queue[0]
		queue = queue[1:]
		for _, u := range dependents[root] {
			d := p.byURN[u]
			if seen[u] || d != nil && (d.step == nil || d.decision.op != OpReplace) {
				continue
			}
			seen[u] = true
			queue = append(queue, u)
			if d == nil || d.decision.deleteFirst {
				continue
			}
			d.decision.deleteFirst, d.step.DeleteFirst = true, true
			if d.step.Reason == "" {
				d.step.Reason = fmt.Sprintf("%s goes before it is made anew", KeyOf(root))
			}
		}
	}
}

// collectRemovals lists every object that goes, dependents first.
func (p *planner) collectRemovals(ctx context.Context) {
	for _, r := range p.state.Resources() {
		n := p.byURN[r.URN]
		switch {
		case n == nil:
			p.removals = append(p.removals, &removal{res: r, op: deleteOp(r), listed: true})
		case n.decision.op == OpReplace:
			p.removals = append(p.removals, &removal{res: r, op: deleteOp(r), node: n, first: n.decision.deleteFirst})
		}
	}
	for _, r := range p.state.Doomed() {
		n := p.byURN[r.URN]
		// A new object may need the place of this one; if its ID is a name, it
		// would even be the object that is deleted afterwards.
		first := n != nil && n.decision.op == OpCreate
		p.removals = append(p.removals, &removal{res: r, op: deleteOp(r), node: n, first: first, listed: true,
			reason: "replaced earlier, its deletion is outstanding"})
	}
	for _, pend := range p.state.Pending() {
		n := p.byURN[pend.URN]
		if pend.ID != "" || n != nil && (n.blocked || n.decision.op == OpCreate || n.decision.op == OpReplace) {
			continue // not a create, or one that is to be tried again
		}
		found, err := p.leftover(ctx, pend)
		switch {
		case err != nil:
			p.problem(pend.URN, fmt.Errorf("look for what an interrupted create left: %w", err))
		case found == nil:
			p.drops = append(p.drops, pend)
		default:
			p.removals = append(p.removals, &removal{res: found, op: OpDelete, adopt: true, listed: true, node: n,
				reason: "left by a create that did not finish"})
		}
	}
	for _, r := range p.removals {
		if _, err := p.opts.Providers.For(r.res.Type); err != nil {
			p.problem(r.res.URN, err)
		}
	}
	p.removals = sortRemovals(p.removals)
	for _, r := range p.removals {
		r.step = &Step{URN: r.res.URN, Type: string(r.res.Type), Name: r.res.URN.Name(), Op: r.op, Reason: p.mask.text(r.reason)}
	}
}

func deleteOp(r *stack.Resource) Op {
	if r.Retain {
		return OpForget
	}
	return OpDelete
}

// leftover asks the provider whether an unfinished create left an object.
func (p *planner) leftover(ctx context.Context, pend stack.Pending) (*stack.Resource, error) {
	prov, err := p.opts.Providers.For(pend.Type)
	if err != nil {
		return nil, err
	}
	resp, err := guard(func() (plugin.ReadResponse, error) {
		return prov.Read(providers.WithToken(ctx, pend.Token), plugin.ReadRequest{URN: pend.URN, Name: pend.URN.Name(),
			Type: pend.Type, Inputs: pend.Inputs, Timeout: pend.Timeouts.Read})
	})
	if err != nil || resp.ID == "" {
		return nil, err
	}
	if live := p.state.Live(pend.URN); live != nil && live.ID == resp.ID {
		return nil, nil // the provider knows no tokens and found the one we keep
	}
	for _, r := range p.state.Doomed() {
		if r.URN == pend.URN && r.ID == resp.ID {
			return nil, nil
		}
	}
	return &stack.Resource{URN: pend.URN, ID: resp.ID, Type: pend.Type, Inputs: pend.Inputs,
		Outputs: keepSecret(resp.Outputs, pend.Inputs, nil), Timeouts: pend.Timeouts, Doomed: true}, nil
}

// sortRemovals orders by the recorded dependencies, dependents first, otherwise
// by name. Two objects of one URN keep their order.
func sortRemovals(rs []*removal) []*removal {
	slices.SortStableFunc(rs, func(a, b *removal) int { return cmp.Compare(a.res.URN, b.res.URN) })
	byURN := map[resource.URN][]*removal{}
	for _, r := range rs {
		byURN[r.res.URN] = append(byURN[r.res.URN], r)
	}
	seen := make(map[*removal]bool, len(rs))
	var order []*removal
	var visit func(r *removal)
	visit = func(r *removal) {
		if seen[r] {
			return
		}
		seen[r] = true
		for _, u := range r.res.Dependencies {
			for _, d := range byURN[u] {
				visit(d)
			}
		}
		order = append(order, r)
	}
	for _, r := range rs {
		visit(r)
	}
	slices.Reverse(order)
	return order
}

// refuseProtected turns every deletion of a protected resource into a problem.
func (p *planner) refuseProtected() {
	for _, r := range p.removals {
		protected := r.res.Protect
		if r.node != nil && !r.listed {
			protected = r.node.goal.Protect // the goal is the newer word
		}
		if !protected || r.op == OpForget {
			continue
		}
		verb := "delete"
		if r.node != nil {
			verb = "replace (" + strings.Join(r.node.decision.replaceKeys, ", ") + " changed)"
		}
		p.problems = append(p.problems, fault.Newf(fmt.Sprintf("%s %s", verb, KeyOf(r.res.URN)), fault.Denied,
			"it is protected; apply with its protection removed first"))
	}
}

// result returns the plan as a value.
func (p *planner) result(stackName string, serial uint64) *Plan {
	plan := &Plan{Stack: stackName, Serial: serial, ConfigHash: p.opts.ConfigHash, Created: time.Now().UTC()}
	for _, n := range p.nodes {
		plan.Steps = append(plan.Steps, *n.step)
	}
	for _, r := range p.removals {
		if r.listed {
			plan.Steps = append(plan.Steps, *r.step)
		}
	}
	for _, d := range p.drift {
		plan.Drift = append(plan.Drift, d)
	}
	slices.SortFunc(plan.Drift, func(a, b Drift) int { return cmp.Compare(a.URN, b.URN) })
	return plan
}
