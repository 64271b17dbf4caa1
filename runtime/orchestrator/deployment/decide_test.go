package deployment_test

import (
	"math"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"dcos.example/dcos/runtime/orchestrator/deployment"
	"dcos.example/dcos/runtime/orchestrator/spec"
)

// world plays the agents: launched instances become ready, killed ones vanish,
// in any order the property test draws.
type world struct {
	v    deployment.View
	next int
}

func (w *world) ready() int {
	n := 0
	for _, l := range [][]deployment.Instance{w.v.Old, w.v.Current} {
		for _, i := range l {
			if i.Ready && !i.Killing {
				n++
			}
		}
	}
	return n
}

func (w *world) total() int { return len(w.v.Old) + len(w.v.Current) }

func (w *world) apply(d deployment.Decision) {
	for range d.Launch {
		w.next++
		w.v.Current = append(w.v.Current, deployment.Instance{ID: "new" + strconv.Itoa(w.next), Condition: deployment.Staging, Since: int64(w.next)})
	}
	for _, id := range d.Kill {
		for _, l := range [][]deployment.Instance{w.v.Old, w.v.Current} {
			for i := range l {
				if l[i].ID == id {
					l[i].Killing = true
				}
			}
		}
	}
}

// step lets one thing happen: a death, a start, or (rarely) a failure.
func (w *world) step(t *rapid.T, failures bool) {
	type at struct {
		list *[]deployment.Instance
		i    int
	}
	var moves []at
	for _, l := range []*[]deployment.Instance{&w.v.Old, &w.v.Current} {
		for i, in := range *l {
			if in.Killing || !in.Ready {
				moves = append(moves, at{l, i})
			}
		}
	}
	if len(moves) == 0 {
		return
	}
	m := moves[rapid.IntRange(0, len(moves)-1).Draw(t, "move")]
	in := &(*m.list)[m.i]
	if in.Killing || failures && rapid.IntRange(0, 3).Draw(t, "fails") == 0 {
		*m.list = append((*m.list)[:m.i], (*m.list)[m.i+1:]...)
		return
	}
	in.Condition, in.Ready = deployment.Running, true
}

func TestReplaceKeepsItsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{v: deployment.View{
			Target:    rapid.IntRange(1, 12).Draw(t, "target"),
			MinHealth: rapid.Float64Range(0, 1).Draw(t, "min"),
			MaxOver:   rapid.Float64Range(0, 1).Draw(t, "over"),
		}}
		for i := range rapid.IntRange(0, 14).Draw(t, "old") {
			ready := rapid.Bool().Draw(t, "ready")
			c := deployment.Starting
			if ready {
				c = deployment.Running
			}
			w.v.Old = append(w.v.Old, deployment.Instance{ID: "old" + strconv.Itoa(i), Condition: c, Ready: ready})
		}
		minReady := int(math.Ceil(float64(w.v.Target) * w.v.MinHealth))
		capacity := max(int(math.Floor(float64(w.v.Target)*(1+w.v.MaxOver))), minReady+1)
		failures := 20
		for range 400 {
			before := w.ready()
			d := deployment.Replace(w.v)
			w.apply(d)
			if after := w.ready(); after < before && after < minReady {
				t.Fatalf("ready went from %d to %d, below %d: %+v", before, after, minReady, d)
			}
			if d.Launch > 0 && w.total() > capacity {
				t.Fatalf("%d instances, more than %d: %+v", w.total(), capacity, d)
			}
			if d.Done {
				if w.total() != w.v.Target || w.ready() != w.v.Target || len(w.v.Old) != 0 {
					t.Fatalf("done with %+v", w.v)
				}
				return
			}
			failures--
			w.step(t, failures > 0)
		}
		t.Fatalf("does not end: %+v", w.v)
	})
}

func TestResizeEnds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{v: deployment.View{Target: rapid.IntRange(0, 12).Draw(t, "target")}}
		for i := range rapid.IntRange(0, 14).Draw(t, "have") {
			w.v.Old = append(w.v.Old, deployment.Instance{
				ID: "i" + strconv.Itoa(i), Ready: true, Condition: deployment.Running,
				Spread: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "spread"),
			})
		}
		for range 200 {
			d := deployment.Resize(w.v)
			w.apply(d)
			if d.Done {
				return
			}
			w.step(t, false)
		}
		t.Fatalf("does not end: %+v", w.v)
	})
}

func TestQuickDecisionsAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := deployment.View{
			Target:    rapid.IntRange(1, 6).Draw(t, "target"),
			MinHealth: rapid.Float64Range(0, 1).Draw(t, "min"),
			MaxOver:   rapid.Float64Range(0, 1).Draw(t, "over"),
		}
		draw := func(prefix string) (is []deployment.Instance, n deployment.Tally) {
			for i := range rapid.IntRange(0, 7).Draw(t, prefix) {
				in := deployment.Instance{
					ID: prefix + strconv.Itoa(i), Ready: rapid.Bool().Draw(t, "ready"), Killing: rapid.Bool().Draw(t, "killing"),
				}
				is = append(is, in)
				n.Total++
				if !in.Killing {
					n.Living++
					if in.Ready {
						n.Ready++
					}
				}
			}
			return is, n
		}
		var old, current deployment.Tally
		v.Old, old = draw("old")
		v.Current, current = draw("new")
		if quick, ok := deployment.QuickReplace(v, old, current); ok {
			if diff := cmp.Diff(deployment.Replace(v), quick); diff != "" {
				t.Fatalf("%+v: %s", v, diff)
			}
		}
		if quick, ok := deployment.QuickResize(v, old.Plus(current)); ok {
			if diff := cmp.Diff(deployment.Resize(v), quick); diff != "" {
				t.Fatalf("%+v: %s", v, diff)
			}
		}
	})
}

func TestKillOrder(t *testing.T) {
	running := func(id string, since int64, spread string) deployment.Instance {
		return deployment.Instance{ID: id, Condition: deployment.Running, Ready: true, Since: since, Spread: spread}
	}
	for name, tc := range map[string]struct {
		view deployment.View
		want []string
	}{
		"youngest first": {deployment.View{Target: 1, Current: []deployment.Instance{running("a", 1, ""), running("b", 3, ""), running("c", 2, "")}}, []string{"b", "c"}},
		"oldest first":   {deployment.View{Target: 1, OldestFirst: true, Current: []deployment.Instance{running("a", 1, ""), running("b", 3, ""), running("c", 2, "")}}, []string{"a", "c"}},
		"unreachable, staging, then running": {deployment.View{Target: 1, Current: []deployment.Instance{
			running("r", 9, ""), {ID: "s", Condition: deployment.Staging}, {ID: "u", Condition: deployment.Unreachable}, running("q", 1, ""),
		}}, []string{"u", "s", "r"}},
		"largest group first": {deployment.View{Target: 2, Current: []deployment.Instance{
			running("a1", 1, "a"), running("a2", 2, "a"), running("a3", 3, "a"), running("b1", 9, "b"),
		}}, []string{"a3", "a2"}},
		"what is dying counts as gone": {deployment.View{Target: 1, Current: []deployment.Instance{
			running("a", 1, ""), {ID: "b", Ready: true, Condition: deployment.Running, Killing: true},
		}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, deployment.Resize(tc.view).Kill); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestReplaceSingleInstance(t *testing.T) {
	// 0/0: the old one goes first, then the new one starts.
	v := deployment.View{Target: 1, Old: []deployment.Instance{{ID: "o", Condition: deployment.Running, Ready: true}}}
	if diff := cmp.Diff(deployment.Decision{Kill: []string{"o"}}, deployment.Replace(v)); diff != "" {
		t.Error(diff)
	}
	v.Old[0].Killing = true
	if d := deployment.Replace(v); d.Launch != 0 {
		t.Errorf("launches %d beside the old one", d.Launch)
	}
	v.Old = nil
	if d := deployment.Replace(v); d.Launch != 1 {
		t.Errorf("launches %d, want 1", d.Launch)
	}
}

func TestPlan(t *testing.T) {
	deps := map[spec.AppID][]spec.AppID{"/web": {"/api"}, "/api": {"/db"}, "/cron": {"/db"}}
	got := deployment.Plan([]deployment.Change{
		{App: "/web", Was: true, Is: true, Changed: true, Replaces: true, Instances: 2},
		{App: "/api", Was: true, Is: true, Changed: true, Instances: 5},
		{App: "/db", Is: true, Changed: true, Instances: 1},
		{App: "/cron", Was: true, Is: true, Changed: true, Replaces: true},
		{App: "/same", Was: true, Is: true},
		{App: "/gone", Was: true},
	}, func(id spec.AppID) []spec.AppID { return deps[id] })
	want := []deployment.Step{
		{{deployment.Stop, "/gone"}},
		{{deployment.Start, "/db"}},
		{{deployment.Scale, "/db"}},
		{{deployment.Scale, "/api"}, {deployment.Scale, "/cron"}},
		{{deployment.Restart, "/web"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
