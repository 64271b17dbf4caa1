package memory_test

import (
	"testing"

	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/state"
	"dcos.example/dcos/runtime/state/conformance"
	"dcos.example/dcos/runtime/state/memory"
)

func TestConformance(t *testing.T) {
	conformance.Run(t, func(*testing.T) state.Backend { return memory.New() })
}

func TestWatchOfCompactedRevisionFails(t *testing.T) {
	b, key := memory.New(), state.Key{Kind: "app", ID: "a"}
	rev, err := b.Commit(t.Context(), state.Op{Key: key, Value: []byte("1")})
	if err != nil {
		t.Fatal(err)
	}
	b.Compact()
	for c, err := range b.Watch(t.Context(), rev-1, "app") {
		if !fault.Is(err, fault.Unavailable) {
			t.Errorf("got %+v, %v; want unavailable", c, err)
		}
		return
	}
	t.Error("watch ended silently")
}
