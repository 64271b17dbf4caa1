package state_test

import (
	"strings"
	"testing"

	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/state"
	"dcos.example/dcos/runtime/state/memory"
)

func TestFormat(t *testing.T) {
	ctx := t.Context()
	b := memory.New()
	if err := state.CheckFormat(ctx, b, "0.1.0"); err != nil {
		t.Fatalf("an empty store: %v", err)
	}
	for range 2 {
		if err := state.ClaimFormat(ctx, b, "0.1.0"); err != nil {
			t.Fatal(err)
		}
	}
	key := state.Key{Kind: "format", ID: "state"}
	r, err := b.Get(ctx, key)
	if err != nil || string(r.Value) != `{"format":1,"release":"0.1.0"}` {
		t.Fatalf("claimed: %s, %v", r.Value, err)
	}
	if _, err := b.Commit(ctx, state.Op{Key: key, IfRev: r.Rev, Value: []byte(`{"format":2,"release":"0.2.0"}`)}); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{"check": state.CheckFormat(ctx, b, "0.1.0"), "claim": state.ClaimFormat(ctx, b, "0.1.0")} {
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "release 0.2.0") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
