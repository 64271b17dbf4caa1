package leader_test

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/leader"
	"dcos.example/dcos/runtime/state"
	"dcos.example/dcos/runtime/state/memory"
)

// ensemble is a raft whose leader the test chooses.
type ensemble struct {
	mu      sync.Mutex
	leader  string
	changed chan struct{}
}

func (r *ensemble) elect(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leader = name
	close(r.changed)
	r.changed = make(chan struct{})
}

type member struct {
	*ensemble
	name string
}

func (m member) Leads() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.leader == m.name
}

func (m member) LeaderChanged() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

func TestOneLeaderAtATimeAndLateWritesFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		store, raft := memory.New(), &ensemble{changed: make(chan struct{})}
		terms := map[string]state.Backend{}
		var wg sync.WaitGroup
		electors := map[string]*leader.Elector{}
		for _, name := range []string{"m1", "m2"} {
			e := leader.New(store, member{raft, name}, name, netip.MustParseAddr("198.19.0.1"), slog.New(slog.DiscardHandler))
			electors[name] = e
			wg.Go(func() {
				if err := e.Run(ctx, func(ctx context.Context, b state.Backend) error {
					terms[name] = b
					<-ctx.Done()
					return ctx.Err()
				}); err != nil {
					t.Error(err)
				}
			})
		}
		write := func(name string) error {
			_, err := terms[name].Commit(ctx, state.Op{Key: state.Key{Kind: "app", ID: name}, Value: []byte("1")})
			return err
		}

		raft.elect("m1")
		synctest.Wait()
		if err := write("m1"); err != nil {
			t.Fatalf("the leader cannot write: %v", err)
		}
		raft.elect("m2")
		synctest.Wait()
		if err := write("m1"); !fault.Is(err, fault.Conflict) {
			t.Errorf("a former leader's write: got %v, want conflict", err)
		}
		if err := write("m2"); err != nil {
			t.Errorf("the new leader cannot write: %v", err)
		}
		for name, e := range electors {
			if info, ok := e.Current(); !ok || info.Name != "m2" {
				t.Errorf("%s thinks that %q leads, want m2", name, info.Name)
			}
		}
		cancel()
		wg.Wait()
	})
}

func TestLosingTheQuorumEndsTheTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		raft := &ensemble{changed: make(chan struct{}), leader: "m1"}
		e := leader.New(memory.New(), member{raft, "m1"}, "m1", netip.MustParseAddr("198.19.0.1"), slog.New(slog.DiscardHandler))
		leading := false
		var wg sync.WaitGroup
		wg.Go(func() {
			e.Run(ctx, func(ctx context.Context, _ state.Backend) error {
				leading = true
				<-ctx.Done()
				leading = false
				return nil
			})
		})
		synctest.Wait()
		if !leading {
			t.Fatal("the raft leader does not lead")
		}
		raft.mu.Lock() // no notice is given
		raft.leader = ""
		raft.mu.Unlock()
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if leading {
			t.Error("leads without a quorum")
		}
		cancel()
		wg.Wait()
	})
}
