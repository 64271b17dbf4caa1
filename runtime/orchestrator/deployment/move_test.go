package deployment_test

import (
	"math"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"dcos.example/dcos/runtime/orchestrator/deployment"
)

func TestMove(t *testing.T) {
	up := func(id string, since int64) deployment.Instance {
		return deployment.Instance{ID: id, Condition: deployment.Running, Ready: true, Since: since}
	}
	starting := func(id string, since int64) deployment.Instance {
		return deployment.Instance{ID: id, Condition: deployment.Starting, Since: since}
	}
	one := []deployment.Instance{up("a", 1)}
	three := []deployment.Instance{up("b", 2), up("c", 3), up("d", 4)}
	for name, tc := range map[string]struct {
		view deployment.View
		want deployment.Decision
	}{
		"the new one first": {deployment.View{Target: 1, MinHealth: 1, MaxOver: 1, Old: one}, deployment.Decision{Launch: 1, Done: true}},
		"also where none need be healthy": {deployment.View{Target: 1, MaxOver: 1, Old: one, Current: []deployment.Instance{starting("n", 9)}},
			deployment.Decision{}},
		"then the old one goes": {deployment.View{Target: 1, MinHealth: 1, MaxOver: 1, Old: one, Current: []deployment.Instance{up("n", 9)}},
			deployment.Decision{Kill: []string{"a"}}},
		"no over-capacity, nothing to spare: one more is allowed": {deployment.View{Target: 4, MinHealth: 1, Old: one, Current: three},
			deployment.Decision{Launch: 1, Done: true}},
		"no over-capacity, one to spare": {deployment.View{Target: 4, MinHealth: 0.75, Old: one, Current: three},
			deployment.Decision{Kill: []string{"a"}, Done: true}},
		"a sick one elsewhere holds nobody up": {deployment.View{Target: 4, MinHealth: 0.5, MaxOver: 0.25, Old: one,
			Current: []deployment.Instance{{ID: "b", Condition: deployment.Running, Sick: true}, up("c", 3), up("d", 4), up("n", 9)}}, deployment.Decision{Kill: []string{"a"}}},
		"no place for the new one": {deployment.View{Target: 4, MinHealth: 0.75, MaxOver: 1, Stuck: true, Old: one, Current: three},
			deployment.Decision{Kill: []string{"a"}, Launch: 1, Done: true}},
		"no place, and all are needed": {deployment.View{Target: 4, MinHealth: 1, MaxOver: 1, Stuck: true, Old: one, Current: three},
			deployment.Decision{Launch: 1, Done: true}},
		"what does not serve goes at once": {deployment.View{Target: 4, MinHealth: 1, MaxOver: 1, Old: []deployment.Instance{starting("a", 1)}, Current: three},
			deployment.Decision{Kill: []string{"a"}, Launch: 1}},
		"scaled to nothing": {deployment.View{Target: 0, MinHealth: 1, MaxOver: 1, Old: one}, deployment.Decision{Kill: []string{"a"}}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, deployment.Move(tc.view)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestMoveKeepsItsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{v: deployment.View{
			Target:    rapid.IntRange(1, 12).Draw(t, "target"),
			MinHealth: rapid.Float64Range(0, 1).Draw(t, "min"),
			MaxOver:   rapid.Float64Range(0, 1).Draw(t, "over"),
		}}
		leave := rapid.IntRange(0, w.v.Target).Draw(t, "leave")
		for i := range w.v.Target {
			in := deployment.Instance{ID: "i" + strconv.Itoa(i), Condition: deployment.Running, Ready: true, Since: int64(-i)}
			if i < leave {
				w.v.Old = append(w.v.Old, in)
			} else {
				w.v.Current = append(w.v.Current, in)
			}
		}
		minReady := int(math.Ceil(float64(w.v.Target) * w.v.MinHealth))
		capacity := max(int(math.Floor(float64(w.v.Target)*(1+w.v.MaxOver))), minReady+1)
		floor := minReady
		if capacity > w.v.Target {
			floor = w.v.Target
		}
		failures := rapid.IntRange(0, 5).Draw(t, "failures")
		if failures > 0 {
			floor = minReady // an instance that fails was not given up
		}
		for range 400 {
			before := w.ready()
			d := deployment.Move(w.v)
			w.apply(d)
			if after := w.ready(); after < before && after < floor {
				t.Fatalf("ready went from %d to %d, below %d: %+v", before, after, floor, d)
			}
			if d.Launch > 0 && w.total() > capacity {
				t.Fatalf("%d instances, more than %d: %+v", w.total(), capacity, d)
			}
			if d.Done && len(w.v.Old) == 0 {
				return
			}
			failures--
			w.step(t, failures > 0)
		}
		t.Fatalf("does not end: %+v", w.v)
	})
}
