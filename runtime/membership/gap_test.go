//go:build root

package membership_test

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"time"
)

// BenchmarkWriteGap reports the longest time between two acknowledged writes
// of a writer that does nothing else, while masters come, leave and die. The
// masters' election timeout is 500 ms, half of the default.
func BenchmarkWriteGap(b *testing.B) {
	worst := map[string]time.Duration{}
	for b.Loop() {
		w := newWorld(b, 8, "m1")
		w.want("m1")
		w.start("m1")
		w.settled("m1")
		n := 0
		gap := func(what string, during func(), through ...string) {
			ctx, cancel := context.WithCancel(b.Context())
			var longest time.Duration
			var wg sync.WaitGroup
			wg.Go(func() {
				for last := time.Now(); w.put(ctx, strconv.Itoa(n), through...) == nil; n++ {
					longest = max(longest, time.Since(last))
					last = time.Now()
				}
			})
			during()
			cancel()
			wg.Wait()
			worst[what] = max(worst[what], longest)
		}
		gap("join", func() {
			w.want("m1", "m2", "m3")
			w.start("m2", "m3")
			w.settled("m1", "m2", "m3")
		}, "m1")
		gap("replace", func() {
			w.host("m3")
			w.want("m1", "m2", "m3")
			w.start("m3")
			w.settled("m1", "m2", "m3")
		}, "m1", "m2")
		gap("leader-leaves", func() {
			w.leave(w.settled("m1", "m2", "m3").Leader)
			time.Sleep(2 * time.Second)
		}, "m1", "m2", "m3")
		for _, name := range w.names() {
			w.kill(name)
		}
	}
	for what, gap := range worst {
		b.ReportMetric(float64(gap.Milliseconds()), what+"-ms")
	}
}
