// Package providertest is a provider for tests: real behaviour over a world of
// its own, a directory with one file per object (or memory), that outlives the
// process and shows what was leaked or doubled. Failures, latency and crashes
// are injected.
//
// It serves two types. A Thing may exist twice under one URN, so it is replaced
// by a new one first. A Slot has a fixed place in the world, so it is deleted
// before it is replaced. Both take any inputs; a change of "zone" replaces, any
// other updates.
package providertest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"

	"dcos.example/dcos/providers"
	"dcos.example/dcos/runtime/fault"
)

const (
	// Package is the package of both types, the key in a providers.Set.
	Package tokens.Package = "test"
	// Thing is replaced by making the new one first.
	Thing tokens.Type = "test:object:Thing"
	// Slot is deleted before it is replaced.
	Slot tokens.Type = "test:object:Slot"
)

// Op names a call for Fail and Hook.
type Op string

const (
	OpCheck  Op = "check"
	OpDiff   Op = "diff"
	OpCreate Op = "create"
	OpRead   Op = "read"
	OpUpdate Op = "update"
	OpDelete Op = "delete"
)

// Fault is what goes wrong with a call.
type Fault struct {
	Err error
	// After lets the effect happen before the error is returned.
	After bool
	// Partial leaves the object unfinished and reports it as such.
	Partial bool
	// Panic panics instead of returning Err.
	Panic bool
	// Times bounds how often; zero means always.
	Times int
}

// Call is a call that was meant to change something.
type Call struct {
	Op   Op
	Name string
}

// Provider is the test provider. Its fields are set before use.
type Provider struct {
	// Latency of every call that changes or reads the world. A call whose
	// context ends meanwhile returns at once with nothing done.
	Latency time.Duration
	// Hook is called at named points of the calls that change the world:
	// "create m1 before", "create m1 half", "create m1 after".
	Hook func(point string)
	// Leak adds an output that spells out the input "password", unmarked.
	Leak bool

	world  world
	mu     sync.Mutex
	faults map[Call]*Fault
	calls  []Call
	active map[resource.URN]Op
	peak   int
}

var _ providers.Provider = (*Provider)(nil)

// New returns a provider whose world is the directory dir, or memory when dir
// is empty.
func New(dir string) *Provider {
	return &Provider{world: openWorld(dir), faults: map[Call]*Fault{}, active: map[resource.URN]Op{}}
}

// Set returns the set of providers with only this one.
func (p *Provider) Set() providers.Set { return providers.Set{Package: p} }

// Fail makes calls of op on the resource of that name fail; a zero Fault ends
// that.
func (p *Provider) Fail(op Op, name string, f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f == (Fault{}) {
		delete(p.faults, Call{op, name})
		return
	}
	p.faults[Call{op, name}] = &f
}

// Calls returns the calls that were meant to change the world, in the order in
// which they began, and forgets them.
func (p *Provider) Calls() []Call {
	p.mu.Lock()
	defer p.mu.Unlock()
	calls := p.calls
	p.calls = nil
	return calls
}

// Peak returns the greatest number of changing calls that ran at once.
func (p *Provider) Peak() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.peak
}

// World returns the objects that exist, sorted by ID.
func (p *Provider) World() ([]Object, error) { return p.world.list() }

// Edit changes the object with that ID behind the engine's back.
func (p *Provider) Edit(id resource.ID, change func(*Object)) error {
	o, ok, err := p.world.get(id)
	if err != nil || !ok {
		return fault.Newf("edit object", fault.NotFound, "no object %s (%v)", id, err)
	}
	change(&o)
	return p.world.put(o)
}

// Remove removes the object with that ID behind the engine's back.
func (p *Provider) Remove(id resource.ID) error { return p.world.remove(id) }

// begin notes a call, waits, and returns the fault to inject, if any.
func (p *Provider) begin(ctx context.Context, op Op, u resource.URN) (*Fault, func(), error) {
	change := op == OpCreate || op == OpUpdate || op == OpDelete
	name := u.Name()
	p.mu.Lock()
	if change {
		if other, busy := p.active[u]; busy {
			p.mu.Unlock()
			panic(fmt.Sprintf("providertest: %s of %s while its %s runs", op, u, other))
		}
		p.active[u] = op
		p.calls = append(p.calls, Call{op, name})
		p.peak = max(p.peak, len(p.active))
	}
	f := p.faults[Call{op, name}]
	if f != nil && f.Times > 0 {
		if f.Times--; f.Times == 0 {
			delete(p.faults, Call{op, name})
		}
	}
	p.mu.Unlock()
	end := func() {
		if change {
			p.mu.Lock()
			delete(p.active, u)
			p.mu.Unlock()
		}
	}
	if p.Latency > 0 && op != OpCheck && op != OpDiff {
		select {
		case <-time.After(p.Latency):
		case <-ctx.Done():
			return nil, end, context.Cause(ctx)
		}
	}
	if f != nil && f.Panic {
		end()
		panic(fmt.Sprintf("%s %s: injected", op, name))
	}
	if f != nil && f.Err != nil && !f.After && !f.Partial {
		return nil, end, f.Err
	}
	return f, end, nil
}

func (p *Provider) at(op Op, u resource.URN, where string) {
	if p.Hook != nil {
		p.Hook(fmt.Sprintf("%s %s %s", op, u.Name(), where))
	}
}

// Check accepts any inputs but "bad", and gives "size" the default 1.
func (p *Provider) Check(ctx context.Context, r plugin.CheckRequest) (plugin.CheckResponse, error) {
	_, end, err := p.begin(ctx, OpCheck, r.URN)
	defer end()
	if err != nil {
		return plugin.CheckResponse{}, err
	}
	if r.Type != Thing && r.Type != Slot {
		return plugin.CheckResponse{}, fault.Newf("check", fault.Invalid, "unknown type %s", r.Type)
	}
	in := r.News.Copy()
	if _, ok := in["size"]; !ok {
		in["size"] = resource.NewProperty(1.0)
	}
	var failures []plugin.CheckFailure
	if v, ok := in["bad"]; ok {
		failures = append(failures, plugin.CheckFailure{Property: "bad", Reason: "is not allowed: " + v.String()})
	}
	return plugin.CheckResponse{Properties: in, Failures: failures}, nil
}

// Diff replaces on "zone" and updates on all else.
func (p *Provider) Diff(ctx context.Context, r plugin.DiffRequest) (plugin.DiffResponse, error) {
	_, end, err := p.begin(ctx, OpDiff, r.URN)
	defer end()
	if err != nil {
		return plugin.DiffResponse{}, err
	}
	d := providers.DiffInputs(r, "zone")
	d.DeleteBeforeReplace = r.Type == Slot
	return d, nil
}

// Create makes an object in two steps, between which it is half made.
func (p *Provider) Create(ctx context.Context, r plugin.CreateRequest) (plugin.CreateResponse, error) {
	if r.Preview {
		out := r.Properties.Copy()
		out["address"] = providers.Unknown()
		if p.Leak {
			out["url"] = providers.Unknown()
		}
		return plugin.CreateResponse{Properties: out}, nil
	}
	f, end, err := p.begin(ctx, OpCreate, r.URN)
	defer end()
	if err != nil {
		return plugin.CreateResponse{}, err
	}
	token := providers.Token(ctx)
	id := resource.ID(r.URN.Name())
	if r.Type == Thing {
		if len(token) < 8 {
			return plugin.CreateResponse{}, fault.Newf("create", fault.Invalid, "no token in the context")
		}
		id += resource.ID("-" + token[:8])
	}
	p.at(OpCreate, r.URN, "before")
	done := providers.Step(ctx, "allocate")
	o := Object{ID: id, URN: r.URN, Type: r.Type, Token: token, Inputs: plain(r.Properties)}
	old, ok, err := p.world.get(id)
	if err == nil && ok && old.URN != r.URN {
		err = fault.Newf("create", fault.Exists, "%s is taken by %s", id, old.URN)
	}
	if err == nil {
		err = p.world.put(o)
	}
	if done(err) != nil {
		return plugin.CreateResponse{}, err
	}
	p.at(OpCreate, r.URN, "half")
	if f != nil && f.Partial {
		return plugin.CreateResponse{ID: id, Properties: p.outputs(o, r.Properties)}, providers.Partial(f.Err)
	}
	done = providers.Step(ctx, "finish")
	o.Complete = true
	if err := done(p.world.put(o)); err != nil {
		return plugin.CreateResponse{}, err
	}
	p.at(OpCreate, r.URN, "after")
	if f != nil {
		return plugin.CreateResponse{}, f.Err
	}
	return plugin.CreateResponse{ID: id, Properties: p.outputs(o, r.Properties)}, nil
}

// Read looks an object up by ID, or by URN and token.
func (p *Provider) Read(ctx context.Context, r plugin.ReadRequest) (plugin.ReadResponse, error) {
	_, end, err := p.begin(ctx, OpRead, r.URN)
	defer end()
	if err != nil {
		return plugin.ReadResponse{}, err
	}
	o, ok, err := p.world.get(r.ID)
	if r.ID == "" {
		o, ok, err = p.world.find(r.URN, providers.Token(ctx))
	}
	if err != nil || !ok {
		return plugin.ReadResponse{}, err
	}
	in := resource.NewPropertyMapFromMap(o.Inputs)
	return plugin.ReadResponse{ReadResult: plugin.ReadResult{ID: o.ID, Inputs: in, Outputs: p.outputs(o, in)}}, nil
}

// Update puts the new inputs, in two steps.
func (p *Provider) Update(ctx context.Context, r plugin.UpdateRequest) (plugin.UpdateResponse, error) {
	if r.Preview {
		o := Object{ID: r.ID}
		if a := r.OldOutputs["address"]; a.IsString() {
			o.Address = a.StringValue()
		}
		return plugin.UpdateResponse{Properties: p.outputs(o, r.NewInputs)}, nil
	}
	f, end, err := p.begin(ctx, OpUpdate, r.URN)
	defer end()
	if err != nil {
		return plugin.UpdateResponse{}, err
	}
	o, ok, err := p.world.get(r.ID)
	if err == nil && !ok {
		err = fault.Newf("update", fault.NotFound, "%s is gone", r.ID)
	}
	if err != nil {
		return plugin.UpdateResponse{}, err
	}
	p.at(OpUpdate, r.URN, "before")
	o.Complete, o.Inputs = false, plain(r.NewInputs)
	if err := p.world.put(o); err != nil {
		return plugin.UpdateResponse{}, err
	}
	p.at(OpUpdate, r.URN, "half")
	if f != nil && f.Partial {
		return plugin.UpdateResponse{Properties: p.outputs(o, r.NewInputs)}, providers.Partial(f.Err)
	}
	o.Complete = true
	if err := p.world.put(o); err != nil {
		return plugin.UpdateResponse{}, err
	}
	p.at(OpUpdate, r.URN, "after")
	if f != nil {
		return plugin.UpdateResponse{}, f.Err
	}
	return plugin.UpdateResponse{Properties: p.outputs(o, r.NewInputs)}, nil
}

// Delete removes the object.
func (p *Provider) Delete(ctx context.Context, r plugin.DeleteRequest) (plugin.DeleteResponse, error) {
	f, end, err := p.begin(ctx, OpDelete, r.URN)
	defer end()
	if err != nil {
		return plugin.DeleteResponse{}, err
	}
	p.at(OpDelete, r.URN, "before")
	if err := p.world.remove(r.ID); err != nil {
		return plugin.DeleteResponse{}, err
	}
	p.at(OpDelete, r.URN, "after")
	if f != nil {
		return plugin.DeleteResponse{}, f.Err
	}
	return plugin.DeleteResponse{}, nil
}

// outputs are the inputs and the address; a Leak spells out the password.
func (p *Provider) outputs(o Object, in resource.PropertyMap) resource.PropertyMap {
	out := in.Copy()
	out["address"] = resource.NewProperty(o.address())
	if p.Leak {
		if pw, ok := plain(in)["password"].(string); ok {
			out["url"] = resource.NewProperty("https://admin:" + pw + "@" + o.address())
		}
	}
	return out
}

// plain returns the values without the marks of secrets: what is real has none.
func plain(m resource.PropertyMap) map[string]any {
	out := make(map[string]any, len(m))
	for k, v := range m {
		out[string(k)] = plainValue(v)
	}
	return out
}

func plainValue(v resource.PropertyValue) any {
	switch {
	case v.IsSecret():
		return plainValue(v.SecretValue().Element)
	case v.IsObject():
		return plain(v.ObjectValue())
	case v.IsArray():
		out := slices.Grow([]any{}, len(v.ArrayValue()))
		for _, e := range v.ArrayValue() {
			out = append(out, plainValue(e))
		}
		return out
	}
	return v.V
}
