package membership_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/membership"
	"dcos.example/dcos/runtime/state/memory"
)

// host is what a Source has besides the network.
type host struct{ seed, saved string }

func newHost(t *testing.T, masters ...string) host {
	dir := t.TempDir()
	h := host{filepath.Join(dir, "seed.json"), filepath.Join(dir, "var", "saved.json")}
	h.write(t, masters...)
	return h
}

func (h host) write(t *testing.T, masters ...string) {
	t.Helper()
	s := config.Masters{Founders: masters[:1]}
	for _, name := range masters {
		s.Masters = append(s.Masters, config.Member{Name: name, Addr: at(name)})
	}
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	tmp := h.seed + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, h.seed); err != nil {
		t.Fatal(err)
	}
}

// at is the address of master m1 … m9.
func at(name string) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, name[1] - '0'}) }

func listed(generation, revision int64, masters ...string) membership.List {
	l := membership.List{Cluster: "c", Generation: generation, Revision: revision}
	for _, name := range masters {
		l.Members = append(l.Members, membership.Member{Name: name, Addr: at(name), ID: name, Role: membership.Voter})
	}
	return l
}

// cluster is what masters answer.
type cluster struct {
	mu    sync.Mutex
	lists map[netip.Addr]membership.List // of those that answer
	asked map[netip.Addr]int
}

// ask answers as masters do: with news at once, else after the wait.
func (c *cluster) ask(ctx context.Context, master netip.Addr, after membership.List, wait time.Duration) (membership.List, error) {
	end := time.Now().Add(wait)
	for {
		c.mu.Lock()
		l, ok := c.lists[master]
		if c.asked != nil {
			c.asked[master]++
		}
		c.mu.Unlock()
		if !ok {
			return l, fault.New("ask", fault.Unavailable, nil)
		}
		if l.Newer(after) || !time.Now().Before(end) {
			return l, nil
		}
		select {
		case <-ctx.Done():
			return l, ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

func (c *cluster) say(l membership.List, masters ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lists = map[netip.Addr]membership.List{}
	for _, name := range masters {
		c.lists[at(name)] = l
	}
}

func (h host) source(t *testing.T, c *cluster) *membership.Source {
	t.Helper()
	s, err := membership.NewSource(membership.SourceConfig{Cluster: "c", Seed: h.seed, Saved: h.saved, Ask: c.ask, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func masters(s *membership.Source) (out []string) {
	for _, m := range s.Masters() {
		out = append(out, m.Name)
	}
	return out
}

func expect(t *testing.T, s *membership.Source, names ...string) {
	t.Helper()
	if got := masters(s); !slices.Equal(got, names) {
		t.Errorf("masters %v, want %v", got, names)
	}
}

func TestSourceFollows(t *testing.T) {
	h := newHost(t, "m1")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c := &cluster{}
		s := h.source(t, c)
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		wg.Go(func() { s.Run(ctx) })
		seen := [][]string{}
		wg.Go(func() {
			for range s.Changes(ctx) {
				seen = append(seen, masters(s))
			}
		})
		synctest.Wait()
		expect(t, s, "m1") // the seed, while nobody answers

		h.write(t, "m1", "m2")
		time.Sleep(5 * time.Second)
		expect(t, s, "m1", "m2")

		c.say(listed(1, 10, "m1", "m2", "m3"), "m2")
		time.Sleep(20 * time.Second)
		expect(t, s, "m1", "m2", "m3")

		// A stale seed does not undo what the cluster said, and a stale master
		// neither.
		h.write(t, "m1")
		c.say(listed(1, 9, "m1"), "m1", "m3")
		time.Sleep(3 * time.Minute)
		expect(t, s, "m1", "m2", "m3")

		// News come from whoever has them, at once while a question is open.
		c.say(listed(1, 11, "m3", "m4", "m5"), "m3")
		time.Sleep(2 * time.Minute)
		expect(t, s, "m3", "m4", "m5")

		// Those that a host knows are all gone; the installer names others.
		c.say(listed(1, 20, "m7"), "m7")
		h.write(t, "m7", "m8")
		time.Sleep(30 * time.Second)
		expect(t, s, "m7")

		// Another generation counts, whatever its revisions are; another
		// cluster does not.
		c.say(listed(2, 3, "m8"), "m7", "m8")
		time.Sleep(2 * time.Minute)
		expect(t, s, "m8")
		foreign := listed(9, 9, "m9")
		foreign.Cluster = "d"
		if s.Learn(foreign) {
			t.Error("learned from another cluster")
		}
		cancel()
		wg.Wait()
		if want := []string{"m8"}; !slices.Equal(seen[len(seen)-1], want) {
			t.Errorf("changes end with %v", seen[len(seen)-1])
		}
		expect(t, h.source(t, c), "m8") // after a restart
		s, err := membership.NewSource(membership.SourceConfig{Cluster: "d", Seed: h.seed, Saved: h.saved, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		expect(t, s, "m7", "m8") // in another cluster the memory is of no use
	})
}

// Learners are not turned to, and a master that has no list is not believed to
// have an empty one.
func TestSourceCountsVoters(t *testing.T) {
	h := newHost(t, "m1", "m2")
	s := h.source(t, &cluster{})
	if s.Learn(membership.List{Cluster: "c"}) {
		t.Error("learned nothing")
	}
	expect(t, s, "m1", "m2")
	l := listed(1, 1, "m1", "m2")
	l.Members[1].Role = membership.Learner
	s.Learn(l)
	expect(t, s, "m1")
}

// A master that answers at once without news is not asked without a pause.
func TestSourceDoesNotHammer(t *testing.T) {
	h := newHost(t, "m1")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		asked := 0
		s, err := membership.NewSource(membership.SourceConfig{
			Cluster: "c", Seed: h.seed, Saved: h.saved, Log: slog.New(slog.DiscardHandler),
			Ask: func(context.Context, netip.Addr, membership.List, time.Duration) (membership.List, error) {
				asked++
				return listed(1, 1, "m1"), nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() { s.Run(ctx) })
		time.Sleep(time.Minute)
		cancel()
		wg.Wait()
		if asked > 65 {
			t.Errorf("asked %d times in a minute", asked)
		}
	})
}

func TestSourceFollowsStore(t *testing.T) {
	h := newHost(t, "m1")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		store := memory.New()
		s := h.source(t, &cluster{})
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		wg.Go(func() { s.FollowStore(ctx, store) })
		l, rev, err := membership.Write(ctx, store, 0, listed(1, 0, "m2"))
		if err != nil || l.Revision != int64(rev) {
			t.Fatal(l, err)
		}
		time.Sleep(5 * time.Second)
		expect(t, s, "m2")
		if _, _, err = membership.Write(ctx, store, 0, listed(1, 0, "m3")); !fault.Is(err, fault.Conflict) {
			t.Errorf("written over: %v", err)
		}
		if _, _, err = membership.Write(ctx, store, rev, listed(1, 0, "m2", "m3")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		expect(t, s, "m2", "m3")
		got, _, err := membership.Read(ctx, store)
		if err != nil || !slices.EqualFunc(got.Members, s.Current().List.Members, func(a, b membership.Member) bool { return a == b }) {
			t.Errorf("%+v %v", got, err)
		}
	})
}
