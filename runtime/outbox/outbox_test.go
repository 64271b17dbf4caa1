package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/outbox"
	"dcos.example/dcos/runtime/state"
	"dcos.example/dcos/runtime/state/memory"
)

// flaky refuses commits while err is set.
type flaky struct {
	state.Backend
	err error
}

func (f *flaky) Commit(ctx context.Context, ops ...state.Op) (state.Rev, error) {
	if f.err != nil {
		return 0, f.err
	}
	return f.Backend.Commit(ctx, ops...)
}

func start(t *testing.T, store state.Backend) (*outbox.Box, func() error) {
	o := outbox.New(store, "store things", slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- o.Run(ctx) }()
	return o, func() error { cancel(); return <-done }
}

// Calls are made in order, after what was staged before them is stored, and
// not before.
func TestCallsFollowRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &flaky{memory.New(), fault.New("x", fault.Unavailable, nil)}
		o, stop := start(t, store)
		var calls []int
		for i := range 300 { // several commits
			id := fmt.Sprintf("%03d", i)
			o.Put("thing", id, i)
			o.After(func(ctx context.Context) {
				if _, err := store.Get(ctx, state.Key{Kind: "thing", ID: id}); err != nil {
					t.Error(err)
				}
				calls = append(calls, i)
			})
		}
		flushed := o.Flushed()
		time.Sleep(time.Second)
		if len(calls) > 0 {
			t.Error("called before anything is stored")
		}
		store.err = nil
		if err := o.Wait(t.Context(), flushed); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for i, c := range calls {
			if i != c {
				t.Fatalf("call %d is the %dth", c, i)
			}
		}
		if len(calls) != 300 {
			t.Errorf("%d calls", len(calls))
		}
		o.Put("thing", "x", 1)
		o.Drop("thing", "x") // never stored at all
		o.Drop("thing", "000")
		if err := o.Wait(t.Context(), o.Flushed()); err != nil {
			t.Fatal(err)
		}
		if recs, _, _ := store.List(t.Context(), "thing"); len(recs) != 299 {
			t.Errorf("%d records", len(recs))
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// When another has written, or the store refuses, nothing is called any more
// and who waits is told.
func TestConflictEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		if _, err := store.Commit(t.Context(), state.Op{Key: state.Key{Kind: "thing", ID: "a"}, Value: []byte("1")}); err != nil {
			t.Fatal(err)
		}
		o, stop := start(t, store)
		o.Put("thing", "a", 2) // at a revision it does not know
		o.After(func(context.Context) { t.Error("called") })
		if err := o.Wait(t.Context(), o.Flushed()); !fault.Is(err, fault.Unavailable) {
			t.Error(err)
		}
		if err := stop(); !fault.Is(errors.Unwrap(err), fault.Conflict) && !fault.Is(err, fault.Conflict) {
			t.Error(err)
		}
	})
}
