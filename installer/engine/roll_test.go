package engine_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"dcos.example/dcos/installer/engine"
	"dcos.example/dcos/providers/providertest"
	"dcos.example/dcos/runtime/fault"
)

// rolling returns one goal per rank given, all in one roll.
func rolling(props m, most int, ranks ...int) []engine.Goal {
	var goals []engine.Goal
	for i, rank := range ranks {
		g := thing(fmt.Sprintf("n%d", i), props)
		g.Roll = engine.Roll{Name: "hosts", Rank: rank, Max: most}
		goals = append(goals, g)
	}
	return goals
}

func TestRollGoesByRank(t *testing.T) {
	for name, change := range map[string]struct{ before, after m }{
		"updates":      {m{"size": 1}, m{"size": 2}},
		"replacements": {m{"zone": "x"}, m{"zone": "y"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.apply(rolling(change.before, 1, 2, 0, 1)...)
			f.calls()
			f.prov.Fail(providertest.OpUpdate, "n2", providertest.Fault{Err: fault.Newf("u", fault.Internal, "no")})
			f.prov.Fail(providertest.OpCreate, "n2", providertest.Fault{Err: fault.Newf("c", fault.Internal, "no")})
			res, _ := f.applyFails(rolling(change.after, 1, 2, 0, 1)...)
			if len(res.Failed) != 1 || res.Failed[0].URN.Name() != "n2" || !slices.ContainsFunc(res.Skipped, func(s engine.Skip) bool { return s.URN.Name() == "n0" }) {
				t.Fatalf("failed %v, skipped %v", res.Failed, res.Skipped)
			}
			for _, s := range res.Skipped {
				if !strings.Contains(s.Reason, "Thing n2 failed") {
					t.Errorf("%s is skipped because %q", s.URN.Name(), s.Reason)
				}
			}
			f.prov.Fail(providertest.OpUpdate, "n2", providertest.Fault{})
			f.prov.Fail(providertest.OpCreate, "n2", providertest.Fault{})
			f.calls()
			f.apply(rolling(change.after, 1, 2, 0, 1)...)
			calls := f.calls()
			if i, j := strings.Index(calls, "n2"), strings.Index(calls, "n0"); i < 0 || j < i {
				t.Errorf("calls %q: n2 is to go before n0", calls)
			}
			if p := f.preview(rolling(change.after, 1, 2, 0, 1)...); p.HasChanges() {
				t.Errorf("left over: %s", ops(p))
			}
		})
	}
}

// Within a rank, the first failure ends the roll although nothing depends on
// what failed.
func TestRollStopsAtAFailure(t *testing.T) {
	f := newFixture(t)
	f.apply(rolling(m{"size": 1}, 1, 0, 0, 0, 0)...)
	f.calls()
	for i := range 4 {
		f.prov.Fail(providertest.OpUpdate, fmt.Sprintf("n%d", i), providertest.Fault{Err: fault.Newf("u", fault.Internal, "no")})
	}
	res, _ := f.applyFails(rolling(m{"size": 2}, 1, 0, 0, 0, 0)...)
	if len(res.Failed) != 1 || len(res.Skipped) != 3 {
		t.Fatalf("failed %v, skipped %v", res.Failed, res.Skipped)
	}
	if got := f.calls(); strings.Contains(got, ",") {
		t.Errorf("calls %q, want one", got)
	}
}

func TestRollAgainstItsDependenciesIsRefused(t *testing.T) {
	f := newFixture(t)
	goals := rolling(nil, 1, 1, 0)
	goals[1].Dependencies = []engine.Key{key("n0")}
	_, err := engine.Preview(context.Background(), f.stack, goals, f.opts)
	if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "Thing n1 has rank 0 in roll hosts and depends on a resource of rank 1") {
		t.Errorf("error %v", err)
	}
}

// Whatever changes, fails and depends: no more members of a rank change at
// once than may, no rank begins before the lower ones are done, and every
// member ends as done, failed or skipped.
func TestRollProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		f := newFixture(t)
		f.opts.Parallel = rapid.IntRange(1, 8).Draw(rt, "parallel")
		n := rapid.IntRange(1, 8).Draw(rt, "members")
		most := rapid.IntRange(1, 3).Draw(rt, "most")
		var before, after []engine.Goal
		rank := map[string]int{}
		for i := range n {
			name := fmt.Sprintf("n%d", i)
			rank[name] = rapid.IntRange(0, 2).Draw(rt, "rank")
			for step, goals := range []*[]engine.Goal{&before, &after} {
				props := m{"size": 0, "zone": "x"}
				if step == 1 {
					props = rapid.SampledFrom([]m{{"size": 0, "zone": "x"}, {"size": 1, "zone": "x"}, {"size": 0, "zone": "y"}}).Draw(rt, "change")
				}
				g := thing(name, props)
				g.Roll = engine.Roll{Name: "hosts", Rank: rank[name], Max: most}
				g.DeleteBeforeReplace = i%2 == 0
				*goals = append(*goals, g)
			}
		}
		f.apply(before...)
		plan := f.preview(after...)
		changing := map[string]bool{}
		for _, s := range plan.Steps {
			changing[s.Name] = s.Op != engine.OpSame
		}
		bad := rapid.SampledFrom([]string{"", "n0", "n1"}).Draw(rt, "bad")
		if bad != "" {
			for _, op := range []providertest.Op{providertest.OpUpdate, providertest.OpCreate} {
				f.prov.Fail(op, bad, providertest.Fault{Err: fault.Newf("change", fault.Internal, "no")})
			}
		}
		var mu sync.Mutex
		active, ended := map[string]bool{}, map[string]bool{}
		f.prov.Hook = func(point string) {
			mu.Lock()
			defer mu.Unlock()
			w := strings.Fields(point)
			op, name := w[0], w[1]
			// A call that is made to fail has no end here, and an old object goes
			// after the new one stands.
			if name == bad && op != "delete" || op == "delete" && ended[name] {
				return
			}
			switch w[2] {
			case "before":
				active[name] = true
				same := 0
				for other := range active {
					if rank[other] == rank[name] {
						same++
					}
				}
				if same > most {
					t.Errorf("%v change at once, %d may", active, most)
				}
				for other := range changing {
					if changing[other] && rank[other] < rank[name] && !ended[other] {
						t.Errorf("%s of rank %d begins before %s of rank %d is done", name, rank[name], other, rank[other])
					}
				}
			case "after":
				if op != "delete" { // a replacement goes on
					delete(active, name)
					ended[name] = true
				}
			}
		}
		res, err := engine.Apply(context.Background(), f.stack, after, f.opts)
		f.prov.Hook = nil
		total := len(res.Failed) + len(res.Skipped)
		for _, k := range res.Done {
			total += k
		}
		changes := 0
		for _, c := range changing {
			if c {
				changes++
			}
		}
		if err == nil && total != changes {
			t.Errorf("%d of %d changes ended", total, changes)
		}
		if err != nil && (bad == "" || !slices.ContainsFunc(res.Failed, func(x engine.Failure) bool { return x.URN.Name() == bad })) {
			t.Errorf("apply: %v", err)
		}
		f.prov.Fail(providertest.OpUpdate, "n0", providertest.Fault{})
		f.prov.Fail(providertest.OpCreate, "n0", providertest.Fault{})
		f.prov.Fail(providertest.OpUpdate, "n1", providertest.Fault{})
		f.prov.Fail(providertest.OpCreate, "n1", providertest.Fault{})
		f.apply(after...)
		if p := f.preview(after...); p.HasChanges() {
			t.Errorf("left over: %s", ops(p))
		}
	})
}
