//go:build root

package membership_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/membership"
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

// TestFoundersTogether: three that start at the same time are one ensemble.
func TestFoundersTogether(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, "m1", "m2", "m3")
	w.want("m1", "m2", "m3")
	w.start("m1", "m2", "m3")
	st := w.settled("m1", "m2", "m3")

	// A removed one stays out until somebody makes it anew.
	w.eventually("remove m3", func(ctx context.Context) error {
		_, err := w.c.Leave(ctx, w.hosts["m1"].addr, membership.LeaveRequest{Name: "m3"})
		if fault.Is(err, fault.NotFound) {
			return nil
		}
		return err
	})
	w.settled("m1", "m2")
	w.stop("m3")
	w.start("m3")
	w.eventually("m3 knows", func(ctx context.Context) error {
		v, err := w.c.View(ctx, w.hosts["m3"].addr)
		if err == nil && v.Stage != membership.Gone {
			err = fmt.Errorf("m3 is %s", v.Stage)
		}
		return err
	})
	w.settled("m1", "m2")
	w.host("m3")
	w.want("m1", "m2", "m3")
	w.start("m3")
	again := w.settled("m1", "m2", "m3")
	if again.Members[2].ID == st.Members[2].ID {
		t.Error("m3 is the member that it was")
	}
}

// TestReplaceFounder: the first master, which leads, is gone for good; an empty
// host of its name takes its place, at its address and then at another.
func TestReplaceFounder(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3, "m1")
	w.want("m1")
	w.start("m1")
	w.settled("m1")
	w.want("m1", "m2", "m3")
	w.start("m2", "m3")
	w.settled("m1", "m2", "m3")
	stop := w.writer("m2", "m3")
	w.host("m1") // kills it
	w.want("m1", "m2", "m3")
	w.start("m1")
	w.settled("m1", "m2", "m3")
	w.host("m2")
	w.at("m2", 12)
	w.want("m1", "m2", "m3")
	w.start("m2")
	w.settled("m1", "m2", "m3")
	w.holds("m1", stop())
}

// TestLeaderDiesWhileOneJoins: both come to their places in the end.
func TestLeaderDiesWhileOneJoins(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 4, "m1", "m2", "m3")
	w.want("m1", "m2", "m3")
	w.start("m1", "m2", "m3")
	w.settled("m1", "m2", "m3")
	stop := w.writer("m1", "m2", "m3")
	w.want("m1", "m2", "m3", "m4")
	w.start("m4")
	w.eventually("m4 is let in", func(ctx context.Context) error {
		l, err := w.c.List(ctx, w.hosts["m2"].addr, membership.List{}, 0)
		if err == nil && len(l.Members) < 4 {
			err = fmt.Errorf("%d members", len(l.Members))
		}
		return err
	})
	st, err := w.c.Status(t.Context(), w.hosts["m2"].addr)
	if err != nil {
		t.Fatal(err)
	}
	w.kill(st.Leader)
	if st.Leader != "m4" {
		w.start(st.Leader)
	}
	w.settled("m1", "m2", "m3", "m4")
	w.holds("m4", stop())
}

// TestAddressesChange: a lone master moves, with what it holds; so does one of
// three, and then all of them at once.
func TestAddressesChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 5, "m1")
	w.want("m1")
	w.start("m1")
	w.settled("m1")
	if err := w.put(t.Context(), "0", "m1"); err != nil {
		t.Fatal(err)
	}
	w.stop("m1")
	w.at("m1", 11)
	w.want("m1")
	w.start("m1")
	first := w.settled("m1")
	if err := w.put(t.Context(), "1", "m1"); err != nil {
		t.Fatal(err)
	}
	w.want("m1", "m2", "m3")
	w.start("m2", "m3")
	w.settled("m1", "m2", "m3")
	w.kill("m2")
	w.at("m2", 12)
	w.want("m1", "m2", "m3")
	w.start("m2")
	w.settled("m1", "m2", "m3")
	for i, name := range []string{"m1", "m2", "m3"} {
		w.kill(name)
		w.at(name, 21+i)
	}
	w.want("m1", "m2", "m3")
	w.start("m1", "m2", "m3")
	st := w.settled("m1", "m2", "m3")
	if st.Members[0].ID != first.Members[0].ID || st.Generation != first.Generation {
		t.Errorf("m1 is another member: %+v, was %+v", st, first)
	}
	for _, m := range st.Members {
		if m.Addr != w.hosts[m.Name].addr {
			t.Errorf("%s is at %s, the list says %s", m.Name, w.hosts[m.Name].addr, m.Addr)
		}
	}
	w.holds("m3", 2)
}

// TestMajorityLost: two of three are gone. The third goes on alone when it is
// told to; one of the others comes back with its data, one without.
func TestMajorityLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 6, "m1", "m2", "m3")
	w.want("m1", "m2", "m3")
	w.start("m1", "m2", "m3")
	before := w.settled("m1", "m2", "m3")
	stop := w.writer("m1", "m2", "m3")
	time.Sleep(500 * time.Millisecond)
	n := stop()
	m3 := w.hosts["m3"].addr
	if err := w.c.Recover(t.Context(), m3, membership.RecoverRequest{Force: true}); !fault.Is(err, fault.Conflict) {
		t.Errorf("recover with a majority: %v", err)
	}
	w.kill("m1")
	w.kill("m2")
	w.eventually("m3 has no majority", func(ctx context.Context) error {
		st, err := w.c.Status(ctx, m3)
		if err == nil && st.Members[2].Healthy {
			err = fmt.Errorf("it has one")
		}
		return err
	})
	if _, err := w.c.Leave(t.Context(), m3, membership.LeaveRequest{Name: "m1"}); !fault.Is(err, fault.Unavailable) && !fault.Is(err, fault.Conflict) {
		t.Errorf("remove without a majority: %v", err)
	}
	if err := w.c.Recover(t.Context(), m3, membership.RecoverRequest{}); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "-force") {
		t.Errorf("recover without force: %v", err)
	}
	if err := w.c.Recover(t.Context(), m3, membership.RecoverRequest{Force: true}); err != nil {
		t.Fatal(err)
	}
	alone := w.settled("m3")
	if alone.Generation <= before.Generation {
		t.Errorf("generation %d after %d", alone.Generation, before.Generation)
	}
	if err := w.put(t.Context(), "alone", "m3"); err != nil {
		t.Fatal(err)
	}
	w.host("m1")
	w.want("m1", "m2", "m3")
	w.start("m1", "m2")
	w.settled("m1", "m2", "m3")
	w.holds("m2", n)
	if err := w.kv(t.Context(), "GET", "alone", "m1"); err != nil {
		t.Error(err)
	}
}

// TestNoEmptyMasterFounds: with a majority of the masters away, an empty one
// waits and says what for, founder or not.
func TestNoEmptyMasterFounds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 7, "m1")
	w.want("m1")
	w.start("m1")
	w.settled("m1")
	w.want("m1", "m2", "m3")
	w.start("m2", "m3")
	w.settled("m1", "m2", "m3")
	for _, name := range []string{"m1", "m2", "m3"} {
		w.kill(name)
	}
	w.host("m1")
	w.want("m1", "m2", "m3")
	w.start("m1")
	w.eventually("m1 waits", func(ctx context.Context) error {
		v, err := w.c.View(ctx, w.hosts["m1"].addr)
		if err == nil && (v.Stage != membership.Empty || !strings.Contains(v.Reason, "may know an ensemble: m2 (127.40.7.2) does not answer; m3")) {
			err = fmt.Errorf("m1 is %s: %s", v.Stage, v.Reason)
		}
		return err
	})
	w.start("m2", "m3")
	w.settled("m1", "m2", "m3")
}
