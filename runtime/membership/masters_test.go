package membership_test

import (
	"context"
	"strconv"
	"sync"
	"testing"
)

// writer writes one record after the other through all of names, until stop
// returns how many were acknowledged.
func (w *world) writer(names ...string) (stop func() int) {
	ctx, cancel := context.WithCancel(w.t.Context())
	n := 0
	var wg sync.WaitGroup
	wg.Go(func() {
		for w.put(ctx, strconv.Itoa(n), names...) == nil {
			n++
		}
	})
	return func() int {
		cancel()
		wg.Wait()
		return n
	}
}

// holds checks that nothing that was acknowledged is lost.
func (w *world) holds(name string, acknowledged int) {
	w.t.Helper()
	if acknowledged == 0 {
		w.t.Error("nothing was written")
	}
	for i := range acknowledged {
		id := strconv.Itoa(i)
		w.eventually("read "+id, func(ctx context.Context) error { return w.kv(ctx, "GET", id, name) })
	}
}

// TestGrowAndShrink: 1 → 3 → 5 → 3 → 1 masters while somebody writes. The last
// one is not the first.
func TestGrowAndShrink(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, "m1")
	w.want("m1")
	w.start("m1")
	w.settled("m1")
	for _, n := range []string{"m2", "m3", "m4", "m5"} {
		w.host(n)
	}
	stop := w.writer("m1", "m2", "m3", "m4", "m5")
	w.want("m1", "m2", "m3")
	w.start("m2", "m3")
	w.settled("m1", "m2", "m3")
	w.want("m1", "m2", "m3", "m4", "m5")
	w.start("m4", "m5")
	w.settled("m1", "m2", "m3", "m4", "m5")
	w.want("m3", "m4", "m5")
	w.leave("m1")
	w.leave("m2")
	w.settled("m3", "m4", "m5")
	w.want("m5")
	w.leave("m4")
	w.leave("m3")
	w.settled("m5")
	w.holds("m5", stop())
}
