// Package conformance tests state.Backend implementations.
package conformance

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/state"
)

var (
	a = state.Key{Kind: "app", ID: "/a"}
	b = state.Key{Kind: "app", ID: "/b/c"}
	x = state.Key{Kind: "apple", ID: "/a"} // a kind that begins like another
)

// Run runs every case against fresh backends made by open.
func Run(t *testing.T, open func(t *testing.T) state.Backend) {
	for name, test := range map[string]func(*testing.T, state.Backend){
		"write needs the current revision": conditions,
		"all ops or none":                  atomic,
		"check guards without writing":     guard,
		"two ops on one key are invalid":   duplicate,
		"list is one kind in id order":     list,
		"watch resumes after a revision":   watch,
		"watch sees deletes":               watchDelete,
		"watch ends with its context":      watchEnds,
		"get of nothing is not found":      absent,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

func commit(t *testing.T, s state.Backend, ops ...state.Op) state.Rev {
	t.Helper()
	rev, err := s.Commit(t.Context(), ops...)
	if err != nil {
		t.Fatalf("commit: %v", err)
	}
	return rev
}

func refuse(t *testing.T, s state.Backend, want fault.Kind, ops ...state.Op) {
	t.Helper()
	if _, err := s.Commit(t.Context(), ops...); !fault.Is(err, want) {
		t.Fatalf("commit: got %v, want %s", err, want)
	}
}

func conditions(t *testing.T, s state.Backend) {
	r1 := commit(t, s, state.Op{Key: a, Value: []byte("1")})
	refuse(t, s, fault.Conflict, state.Op{Key: a, Value: []byte("2")})
	r2 := commit(t, s, state.Op{Key: a, IfRev: r1, Value: []byte("2")})
	if r2 <= r1 {
		t.Errorf("revision went from %d to %d", r1, r2)
	}
	refuse(t, s, fault.Conflict, state.Op{Key: a, IfRev: r1})
	rec, err := s.Get(t.Context(), a)
	if err != nil || rec.Rev != r2 || string(rec.Value) != "2" || rec.Key != a {
		t.Errorf("got %+v, %v", rec, err)
	}
	commit(t, s, state.Op{Key: a, IfRev: r2})
	commit(t, s, state.Op{Key: a, Value: []byte("3")})
}

func atomic(t *testing.T, s state.Backend) {
	commit(t, s, state.Op{Key: a, Value: []byte("1")})
	refuse(t, s, fault.Conflict, state.Op{Key: b, Value: []byte("1")}, state.Op{Key: a, Value: []byte("2")})
	if _, err := s.Get(t.Context(), b); !fault.Is(err, fault.NotFound) {
		t.Errorf("the first op of a refused commit was applied: %v", err)
	}
}

func guard(t *testing.T, s state.Backend) {
	r1 := commit(t, s, state.Op{Key: a, Value: []byte("1")})
	commit(t, s, state.Op{Key: b, Value: []byte("1")}, state.Op{Key: a, IfRev: r1, Check: true})
	rec, err := s.Get(t.Context(), a)
	if err != nil || rec.Rev != r1 {
		t.Errorf("a check moved its key: %+v, %v", rec, err)
	}
	fenced := state.Fence(s, a, r1)
	commit(t, s, state.Op{Key: a, IfRev: r1, Value: []byte("2")})
	refuse(t, fenced, fault.Conflict, state.Op{Key: x, Value: []byte("late")})
}

func duplicate(t *testing.T, s state.Backend) {
	refuse(t, s, fault.Invalid, state.Op{Key: a, Value: []byte("1")}, state.Op{Key: a, Value: []byte("2")})
}

func list(t *testing.T, s state.Backend) {
	commit(t, s, state.Op{Key: b, Value: []byte("b")}, state.Op{Key: x, Value: []byte("x")}, state.Op{Key: a, Value: []byte("a")})
	last := commit(t, s, state.Op{Key: state.Key{Kind: "other", ID: "o"}, Value: []byte("o")})
	recs, rev, err := s.List(t.Context(), "app")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range recs {
		got = append(got, r.Key.ID+"="+string(r.Value))
	}
	if diff := cmp.Diff([]string{"/a=a", "/b/c=b"}, got); diff != "" {
		t.Error(diff)
	}
	if rev < last {
		t.Errorf("list is at %d, before the last commit %d", rev, last)
	}
}

func watch(t *testing.T, s state.Backend) {
	r1 := commit(t, s, state.Op{Key: a, Value: []byte("1")})
	commit(t, s, state.Op{Key: x, Value: []byte("no")})
	r2 := commit(t, s, state.Op{Key: a, IfRev: r1, Value: []byte("2")})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	want, n := []state.Rev{r2, 0}, 0
	for c, err := range s.Watch(ctx, r1, "app") {
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			want[1] = commit(t, s, state.Op{Key: b, Value: []byte("live")})
		}
		if c.Rev != want[n] || c.Key.Kind != "app" {
			t.Fatalf("change %d is %+v, want revision %d", n, c, want[n])
		}
		if n++; n == len(want) {
			return
		}
	}
	t.Fatalf("watch ended after %d changes", n)
}

func watchDelete(t *testing.T, s state.Backend) {
	r1 := commit(t, s, state.Op{Key: a, Value: []byte("1")})
	commit(t, s, state.Op{Key: a, IfRev: r1})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for c, err := range s.Watch(ctx, r1, "app", "apple") {
		if err != nil || c.Key != a || c.Value != nil {
			t.Fatalf("got %+v, %v; want the deletion of %s", c, err, a)
		}
		return
	}
	t.Fatal("watch ended without the deletion")
}

func watchEnds(t *testing.T, s state.Backend) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int)
	go func() {
		n := 0
		for range s.Watch(ctx, 0, "app") {
			n++
		}
		done <- n
	}()
	cancel()
	select {
	case n := <-done:
		if n > 1 { // one error is allowed, a change is not
			t.Errorf("watch of nothing yielded %d times", n)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("watch goes on after its context ended")
	}
}

func absent(t *testing.T, s state.Backend) {
	if _, err := s.Get(t.Context(), a); !fault.Is(err, fault.NotFound) {
		t.Errorf("got %v, want not found", err)
	}
	if recs, _, err := s.List(t.Context(), "app"); err != nil || len(recs) != 0 {
		t.Errorf("got %v, %v; want nothing", recs, err)
	}
}
