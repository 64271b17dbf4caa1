package engine_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"dcos.example/dcos/installer/engine"
	"dcos.example/dcos/installer/stack"
)

// Whatever an apply changed, made or deleted, the goals of the state before it
// bring back.
func TestBackToAnEarlierState(t *testing.T) {
	f := newFixture(t)
	f.apply(thing("a", m{"size": 1}), thing("b", m{"zone": "x"}, "a"), thing("c", nil, "b"))
	before := f.state()
	f.apply(thing("a", m{"size": 2}), thing("b", m{"zone": "y"}, "a"), thing("d", nil, "a"))
	var earlier *stack.State
	for st, err := range f.stack.Earlier() {
		if err != nil {
			t.Fatal(err)
		}
		if by, _ := st.By(); by.Result == stack.Succeeded {
			earlier = st
			break
		}
	}
	if earlier == nil || earlier.Serial != before.Serial {
		t.Fatalf("the newest earlier state is %+v, want serial %d", earlier, before.Serial)
	}
	goals := engine.Recorded(earlier)
	if got, want := ops(f.preview(goals...)), "update a, replace b, create c, delete d"; got != want {
		t.Errorf("plan %q, want %q", got, want)
	}
	f.apply(goals...)
	f.wantObjects("a", "b", "c")
	for _, r := range f.state().Resources() {
		was := before.Live(r.URN)
		if d := cmp.Diff(was.Inputs, r.Inputs); d != "" {
			t.Errorf("%s: %s", r.URN.Name(), d)
		}
	}
}
