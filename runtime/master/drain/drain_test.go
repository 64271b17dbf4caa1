package drain_test

import (
	"testing"

	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/master/drain"
)

func TestAllPairs(t *testing.T) {
	const no = drain.State("refused")
	// In the order of drain.Events: deactivate, drain, emptied, reactivate,
	// cancel, mark gone.
	want := map[drain.State][len(drain.Events)]drain.State{
		drain.Active:      {drain.Deactivated, drain.Draining, drain.Active, no, no, drain.Gone},
		drain.Deactivated: {drain.Deactivated, drain.Draining, drain.Deactivated, drain.Active, drain.Active, drain.Gone},
		drain.Draining:    {drain.Draining, drain.Draining, drain.Drained, no, drain.Active, drain.Gone},
		drain.Drained:     {drain.Drained, drain.Draining, drain.Drained, drain.Active, drain.Active, drain.Gone},
		drain.Gone:        {no, no, drain.Gone, no, no, drain.Gone},
	}
	if len(want) != len(drain.States) {
		t.Fatalf("%d rows for %d states", len(want), len(drain.States))
	}
	for _, s := range drain.States {
		for i, e := range drain.Events {
			got, err := drain.Next(s, e)
			switch w := want[s][i]; {
			case w == no && !fault.Is(err, fault.Invalid):
				t.Errorf("%q after %q is %q, want a refusal", e, s, got)
			case w == no && got != s:
				t.Errorf("a refused %q moves %q to %q", e, s, got)
			case w != no && (err != nil || got != w):
				t.Errorf("%q after %q is %q (%v), want %q", e, s, got, err, w)
			}
		}
	}
}

// An agent that is not active is never offered, and only an operator makes it
// active again.
func TestOnlyOperatorsReactivate(t *testing.T) {
	for _, s := range drain.States {
		if drain.Offered(s) != (s == drain.Active) {
			t.Errorf("%q is offered: %v", s, drain.Offered(s))
		}
		for _, e := range drain.Events {
			if to, err := drain.Next(s, e); err == nil && to == drain.Active && s != drain.Active && e != drain.Reactivate && e != drain.Cancel {
				t.Errorf("%q makes %q active", e, s)
			}
		}
	}
}
