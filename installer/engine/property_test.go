package engine_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"pgregory.net/rapid"

	"dcos.example/dcos/installer/engine"
	"dcos.example/dcos/installer/stack"
	"dcos.example/dcos/providers/providertest"
)

// drawGoals draws an acyclic set of goals over a few names. Later names may
// depend on earlier ones, use their addresses, and be replaced by a change.
func drawGoals(t *rapid.T, label string) []engine.Goal {
	names := []string{"a", "slotb", "c", "slotd", "e", "slotf", "g"}
	var goals []engine.Goal
	var have []string
	for _, n := range names {
		if rapid.IntRange(0, 4).Draw(t, label+" "+n+" wanted") == 0 {
			continue
		}
		var deps []string
		for _, d := range have {
			if rapid.IntRange(0, 2).Draw(t, label+" "+n+" on "+d) == 0 {
				deps = append(deps, d)
			}
		}
		props := m{"size": rapid.IntRange(1, 2).Draw(t, label+" "+n+" size")}
		if rapid.Bool().Draw(t, label+" "+n+" zoned") {
			props["zone"] = rapid.SampledFrom([]string{"x", "y"}).Draw(t, label+" "+n+" zone")
		}
		var g engine.Goal
		switch rapid.IntRange(0, 2).Draw(t, label+" "+n+" follows") {
		case 0:
			g = thing(n, props, deps...)
		case 1:
			g = following(n, false, props, deps...)
		default:
			g = following(n, true, props, deps...)
		}
		g.DeleteBeforeReplace = rapid.IntRange(0, 3).Draw(t, label+" "+n+" first") == 0
		goals = append(goals, g)
		have = append(have, n)
	}
	return goals
}

// world is what the property tests work on.
type world struct {
	t    *rapid.T
	st   *stack.Stack
	prov *providertest.Provider
	opts engine.Options
}

func newWorld(t *rapid.T, parallel int) *world {
	dir, err := os.MkdirTemp("/dev/shm", "engine-property-") // in memory: nobody pulls the plug here
	if err != nil {
		dir, err = os.MkdirTemp("", "engine-property-")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s, err := stack.Open(filepath.Join(dir, "stack"), stack.Options{Name: "s"})
	if err != nil {
		t.Fatal(err)
	}
	p := providertest.New("")
	return &world{t: t, st: s, prov: p, opts: engine.Options{Providers: p.Set(), Parallel: parallel}}
}

// settled checks that world and state are exactly the goals and that nothing is
// left to do.
func (w *world) settled(goals []engine.Goal) {
	objects, err := w.prov.World()
	if err != nil {
		w.t.Fatal(err)
	}
	st, err := w.st.State()
	if err != nil {
		w.t.Fatal(err)
	}
	if len(objects) != len(goals) || len(st.Resources()) != len(goals) || len(st.Doomed())+len(st.Pending()) > 0 {
		w.t.Fatalf("%d goals, %d resources, doomed %v, pending %v, objects %+v", len(goals), len(st.Resources()), st.Doomed(), st.Pending(), objects)
	}
	for _, o := range objects {
		r := st.Live(o.URN)
		if r == nil || r.ID != o.ID || !o.Complete || !resource.NewPropertyMapFromMap(o.Inputs).DeepEquals(r.Inputs) {
			w.t.Fatalf("object %+v is recorded as %+v", o, r)
		}
	}
	p, err := engine.Preview(context.Background(), w.st, goals, w.opts)
	if err != nil || p.HasChanges() {
		w.t.Fatalf("something is left to do: %v %v", err, p)
	}
}

// TestApplyDoesWhatPreviewSays: whatever the goals before and after, apply makes
// the calls that the preview announces, in an order that keeps dependencies
// alive, and ends with exactly what is wanted.
func TestApplyDoesWhatPreviewSays(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, rapid.IntRange(1, 4).Draw(t, "parallel"))
		for round := range rapid.IntRange(1, 3).Draw(t, "rounds") {
			goals := drawGoals(t, fmt.Sprint(round))
			before, err := w.st.State()
			if err != nil {
				t.Fatal(err)
			}
			plan, err := engine.Preview(context.Background(), w.st, goals, w.opts)
			if err != nil {
				t.Fatal(err)
			}
			if calls := w.prov.Calls(); len(calls) > 0 {
				t.Fatalf("preview called %v", calls)
			}
			w.opts.Plan = plan
			r, err := engine.Apply(context.Background(), w.st, goals, w.opts)
			w.opts.Plan = nil
			if err != nil {
				t.Fatal(err)
			}
			ignore := cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Created" }, cmp.Ignore())
			if d := cmp.Diff(plan, r.Plan, ignore); d != "" {
				t.Fatalf("applied another plan:\n%s", d)
			}
			calls := w.prov.Calls()
			compareCalls(t, plan, calls)
			checkOrder(t, before, goals, calls)
			w.settled(goals)
		}
	})
}

// compareCalls checks the calls against the plan. A planned change may turn out
// smaller when an unknown value turns out as it was, which happens to what
// depends on a Slot: its address survives a replacement.
func compareCalls(t *rapid.T, plan *engine.Plan, calls []providertest.Call) {
	slotReplaced := slices.ContainsFunc(plan.Steps, func(s engine.Step) bool {
		return s.Op == engine.OpReplace && s.Type == string(providertest.Slot)
	})
	want := map[providertest.Call]int{}
	for _, s := range plan.Steps {
		switch s.Op {
		case engine.OpCreate, engine.OpUpdate, engine.OpDelete:
			want[providertest.Call{Op: providertest.Op(s.Op), Name: s.Name}]++
		case engine.OpReplace:
			want[providertest.Call{Op: providertest.OpCreate, Name: s.Name}]++
			want[providertest.Call{Op: providertest.OpDelete, Name: s.Name}]++
		}
	}
	got := map[providertest.Call]int{}
	for _, c := range calls {
		got[c]++
	}
	if !slotReplaced {
		// Updates of a Thing keep its address as previewed, so all is exact.
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("calls differ from the plan:\n%s", d)
		}
		return
	}
	for c, n := range got {
		planned := want[c]
		if c.Op == providertest.OpUpdate { // a replacement may shrink to an update
			planned = max(planned, want[providertest.Call{Op: providertest.OpCreate, Name: c.Name}])
		}
		if n > planned {
			t.Fatalf("%v was called %d times, planned %d", c, n, planned)
		}
	}
}

// checkOrder checks that what is made comes after what it depends on, and what
// is deleted after what depended on it and is deleted too.
func checkOrder(t *rapid.T, before *stack.State, goals []engine.Goal, calls []providertest.Call) {
	at := map[providertest.Call]int{}
	for i, c := range calls {
		at[c] = i
	}
	after := func(a, b providertest.Call) {
		i, ok := at[a]
		j, too := at[b]
		if ok && too && i < j {
			t.Fatalf("%v before %v in %v", a, b, calls)
		}
	}
	for _, g := range goals {
		for _, d := range g.Dependencies {
			for _, made := range []providertest.Op{providertest.OpCreate, providertest.OpUpdate} {
				after(providertest.Call{Op: made, Name: g.Name}, providertest.Call{Op: providertest.OpCreate, Name: d.Name})
				after(providertest.Call{Op: made, Name: g.Name}, providertest.Call{Op: providertest.OpUpdate, Name: d.Name})
			}
		}
	}
	for _, r := range before.Resources() {
		for _, u := range r.Dependencies {
			after(providertest.Call{Op: providertest.OpDelete, Name: u.Name()}, providertest.Call{Op: providertest.OpDelete, Name: r.URN.Name()})
		}
	}
}

// TestEveryFailureIsRecovered: with calls failing at random, before or after
// their effect, repeated applies of changing goals lose nothing, and once
// nothing fails the world is exactly what is wanted.
func TestEveryFailureIsRecovered(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, 3)
		names := []string{"a", "slotb", "c", "slotd", "e", "slotf", "g"}
		var goals []engine.Goal
		for round := range rapid.IntRange(1, 4).Draw(t, "rounds") {
			for _, op := range []providertest.Op{providertest.OpCreate, providertest.OpUpdate, providertest.OpDelete} {
				n := rapid.SampledFrom(names).Draw(t, fmt.Sprintf("%d %s", round, op))
				f := providertest.Fault{Err: errors.New("injected")}
				switch rapid.IntRange(0, 3).Draw(t, fmt.Sprintf("%d %s how", round, op)) {
				case 0:
					f.After = true
				case 1:
					f.Partial = true
				case 2:
					f.Panic = true
				}
				w.prov.Fail(op, n, f)
			}
			goals = drawGoals(t, fmt.Sprint(round))
			if _, err := engine.Apply(context.Background(), w.st, goals, w.opts); err == nil {
				w.settled(goals)
			}
			for _, op := range []providertest.Op{providertest.OpCreate, providertest.OpUpdate, providertest.OpDelete} {
				for _, n := range names {
					w.prov.Fail(op, n, providertest.Fault{})
				}
			}
		}
		// An address that was unknown may turn out to need a replacement, which
		// is refused as not planned; each round settles at least one more.
		var err error
		for range names {
			if _, err = engine.Apply(context.Background(), w.st, goals, w.opts); err == nil {
				w.settled(goals)
				return
			}
		}
		t.Fatalf("does not settle: %v", err)
	})
}
