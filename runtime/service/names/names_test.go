package names_test

import (
	"context"
	"testing"
	"testing/synctest"

	"dcos.example/dcos/runtime/service/names"
	"dcos.example/dcos/runtime/state"
	"dcos.example/dcos/runtime/state/memory"
)

func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		key := func(id string) state.Key { return state.Key{Kind: "service", ID: id} }
		rev, err := store.Commit(t.Context(), state.Op{Key: key("kafka"), Value: []byte("{}")}, state.Op{Key: state.Key{Kind: "app", ID: "/web"}, Value: []byte("{}")})
		if err != nil {
			t.Fatal(err)
		}
		var n names.Names
		if n.Has("kafka") {
			t.Error("it knows before it has looked")
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); n.Follow(ctx, store) }()
		synctest.Wait()
		if !n.Has("kafka") || n.Has("/web") || n.Has("prod/db") {
			t.Error("what was there is not what it knows")
		}
		if _, err := store.Commit(t.Context(), state.Op{Key: key("prod/db"), Value: []byte("{}")}, state.Op{Key: key("kafka"), IfRev: rev}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n.Has("kafka") || !n.Has("prod/db") {
			t.Error("what has changed is not what it knows")
		}
		cancel()
		<-done
		if !n.Has("prod/db") {
			t.Error("it forgot")
		}
	})
}
