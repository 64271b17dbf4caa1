package engine_test

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"

	"dcos.example/dcos/installer/engine"
	"dcos.example/dcos/installer/stack"
	"dcos.example/dcos/providers/providertest"
)

// fixture is a stack and a world.
type fixture struct {
	t     testing.TB
	dir   string
	stack *stack.Stack
	prov  *providertest.Provider
	opts  engine.Options
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	dir := memoryDir(t)
	if _, ok := t.(*testing.B); ok {
		dir = t.TempDir() // benchmarks pay for their fsyncs
	}
	f := &fixture{t: t, dir: dir, prov: providertest.New(filepath.Join(dir, "world"))}
	f.stack = openStack(t, dir)
	f.opts = engine.Options{Providers: f.prov.Set(), Parallel: 4}
	return f
}

func openStack(t testing.TB, dir string) *stack.Stack {
	t.Helper()
	s, err := stack.Open(filepath.Join(dir, "stack"), stack.Options{Name: "s"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (f *fixture) preview(goals ...engine.Goal) *engine.Plan {
	f.t.Helper()
	p, err := engine.Preview(context.Background(), f.stack, goals, f.opts)
	if err != nil {
		f.t.Fatalf("preview: %v", err)
	}
	return p
}

func (f *fixture) apply(goals ...engine.Goal) *engine.Result {
	f.t.Helper()
	r, err := engine.Apply(context.Background(), f.stack, goals, f.opts)
	if err != nil {
		f.t.Fatalf("apply: %v", err)
	}
	return r
}

func (f *fixture) applyFails(goals ...engine.Goal) (*engine.Result, error) {
	f.t.Helper()
	r, err := engine.Apply(context.Background(), f.stack, goals, f.opts)
	if err == nil {
		f.t.Fatal("apply succeeded")
	}
	return r, err
}

// objects returns the names of what exists, with "!" for what is unfinished.
func (f *fixture) objects() []string {
	f.t.Helper()
	all, err := f.prov.World()
	if err != nil {
		f.t.Fatal(err)
	}
	var names []string
	for _, o := range all {
		n := o.URN.Name()
		if !o.Complete {
			n += "!"
		}
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

func (f *fixture) wantObjects(want ...string) {
	f.t.Helper()
	if got := f.objects(); !slices.Equal(got, want) {
		f.t.Fatalf("objects %v, want %v", got, want)
	}
}

func (f *fixture) state() *stack.State {
	f.t.Helper()
	st, err := f.stack.State()
	if err != nil {
		f.t.Fatal(err)
	}
	return st
}

// calls returns the changing calls as "create a update b", in order.
func (f *fixture) calls() string {
	var out []string
	for _, c := range f.prov.Calls() {
		out = append(out, string(c.Op)+" "+c.Name)
	}
	return strings.Join(out, ", ")
}

func thing(name string, props map[string]any, deps ...string) engine.Goal {
	g := engine.Goal{Key: key(name), Inputs: engine.Constant(resource.NewPropertyMapFromMap(props))}
	for _, d := range deps {
		g.Dependencies = append(g.Dependencies, key(d))
	}
	return g
}

// key makes a Slot of names that begin with "slot" and a Thing of all others.
func key(name string) engine.Key {
	if strings.HasPrefix(name, "slot") {
		return engine.Key{Type: providertest.Slot, Name: name}
	}
	return engine.Key{Type: providertest.Thing, Name: name}
}

// following returns a goal with one input for every dependency's address, under
// the name of the dependency, or under "zone" when that should replace it.
func following(name string, replace bool, props map[string]any, deps ...string) engine.Goal {
	g := thing(name, props, deps...)
	g.Inputs = func(o engine.Outputs) (resource.PropertyMap, error) {
		m := resource.NewPropertyMapFromMap(props)
		for _, d := range deps {
			k := resource.PropertyKey(d)
			if replace {
				k = "zone"
			}
			m[k] = o.Get(key(d), "address")
		}
		return m, nil
	}
	return g
}

func ops(p *engine.Plan) string {
	var out []string
	for _, s := range p.Steps {
		out = append(out, string(s.Op)+" "+s.Name)
	}
	return strings.Join(out, ", ")
}
