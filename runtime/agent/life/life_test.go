package life_test

import (
	"testing"

	"dcos.example/dcos/runtime/agent/life"
)

// TestAllPairs names the outcome of every event in every state; an empty
// outcome is a refusal.
func TestAllPairs(t *testing.T) {
	want := map[string]map[string]string{
		"fetching": {"fetched": "starting", "failed": "done", "killed": "done"},
		"starting": {"launched": "running", "failed": "done", "killed": "killing"},
		"running":  {"killed": "killing", "exited": "done"},
		"killing":  {"launched": "killing", "failed": "done", "killed": "killing", "exited": "done"},
		"done":     {"killed": "done"},
	}
	for _, s := range life.States() {
		for _, e := range life.Events() {
			got, err := life.Next(s, e)
			w, allowed := want[s.String()][e.String()]
			switch {
			case allowed && (err != nil || got.String() != w):
				t.Errorf("%s + %s = %s, %v; want %s", s, e, got, err, w)
			case !allowed && err == nil:
				t.Errorf("%s + %s = %s; want a refusal", s, e, got)
			case !allowed && got != s:
				t.Errorf("%s + %s refused but moved to %s", s, e, got)
			}
		}
	}
}
