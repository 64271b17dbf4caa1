package engine_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dcos.example/dcos/installer/engine"
	"dcos.example/dcos/providers/providertest"
)

// Readers at any pace, joining at any time, see the same events; a reader that
// stops reading holds nobody up.
func TestLogReaders(t *testing.T) {
	f := newFixture(t)
	log := engine.NewLog()
	f.opts.Events = log
	var mu sync.Mutex
	seen := map[string][]int{}
	var wg sync.WaitGroup
	reader := func(name string, from, stopAfter int) {
		wg.Go(func() {
			n := 0
			for e := range log.Events(context.Background(), from) {
				mu.Lock()
				seen[name] = append(seen[name], e.Seq)
				mu.Unlock()
				if n++; n == stopAfter {
					return
				}
			}
		})
	}
	reader("first", 0, -1)
	reader("short", 0, 2)
	reader("ahead", 5, -1)
	f.apply(thing("a", nil), thing("b", nil, "a"))
	reader("late", 3, -1)
	log.Close()
	wg.Wait()
	all := make([]int, log.Len())
	for i := range all {
		all[i] = i
	}
	for name, want := range map[string][]int{"first": all, "short": all[:2], "ahead": all[5:], "late": all[3:]} {
		if !slices.Equal(seen[name], want) {
			t.Errorf("%s saw %v, want %v", name, seen[name], want)
		}
	}
}

func TestLogReaderEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		for range engine.NewLog().Events(ctx, 0) {
			t.Error("an event in an empty log")
		}
		if ctx.Err() == nil {
			t.Error("ended before its context")
		}
	})
}

// A call that ignores even the end of its context is given up after a while.
func TestCallThatNeverEndsIsGivenUp(t *testing.T) {
	f := newFixture(t)
	release := make(chan struct{})
	ended := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	f.prov.Hook = func(point string) {
		switch point {
		case "create a half":
			cancel()
			<-release
		case "create a after":
			close(ended)
		}
	}
	f.opts.Drain, f.opts.Abandon = time.Millisecond, time.Millisecond
	r, err := engine.Apply(ctx, f.stack, []engine.Goal{thing("a", nil), thing("b", nil, "a")}, f.opts)
	if err == nil || !r.Stopped || len(r.Done) != 0 {
		t.Errorf("%v, result %+v", err, r)
	}
	if p := f.state().Pending(); len(p) != 1 || p[0].Op != "create" {
		t.Errorf("pending %+v", p)
	}
	close(release)
	<-ended
	f.prov = providertest.New(f.dir + "/world")
	f.opts.Providers, f.opts.Drain = f.prov.Set(), 0
	f.apply(thing("a", nil), thing("b", nil, "a"))
	f.wantObjects("a", "b")
}
