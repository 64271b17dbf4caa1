package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/state"
	"dcos.example/dcos/runtime/state/conformance"
	"dcos.example/dcos/runtime/state/etcd"
)

func start(t *testing.T, peers []etcd.Peer, i int) *etcd.Member {
	t.Helper()
	m, err := etcd.Start(t.Context(), etcd.Options{
		Self: peers[i], Peers: peers, Token: t.Name(), DataDir: t.TempDir(),
		Heartbeat: 50 * time.Millisecond, Election: 500 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func peers(t *testing.T, n int) []etcd.Peer {
	var ps []etcd.Peer
	for i := range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ps = append(ps, etcd.Peer{Name: fmt.Sprint("m", i), Addr: netip.MustParseAddrPort(l.Addr().String())})
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return ps
}

func TestConformance(t *testing.T) {
	m := start(t, peers(t, 1), 0)
	if !m.Leads() {
		t.Error("the only member does not lead")
	}
	conformance.Run(t, func(t *testing.T) state.Backend {
		if _, err := m.Client().Delete(t.Context(), "/dcos/", clientv3.WithPrefix()); err != nil {
			t.Fatal(err)
		}
		return etcd.New(m.Client())
	})
	t.Run("long lists come in pages of one revision", func(t *testing.T) {
		b := etcd.New(m.Client())
		const n = 2500
		for first := 0; first < n; first += 500 {
			var ops []state.Op
			for i := range 500 {
				ops = append(ops, state.Op{Key: state.Key{Kind: "many", ID: fmt.Sprintf("%05d", first+i)}, Value: []byte("x")})
			}
			if _, err := b.Commit(t.Context(), ops...); err != nil {
				t.Fatal(err)
			}
		}
		recs, _, err := b.List(t.Context(), "many")
		if err != nil || len(recs) != n || recs[n-1].Key.ID != "02499" {
			t.Errorf("got %d records, %v", len(recs), err)
		}
	})
	t.Run("too large a value is invalid", func(t *testing.T) {
		op := state.Op{Key: state.Key{Kind: "app", ID: "big"}, Value: make([]byte, 5<<20)}
		if _, err := etcd.New(m.Client()).Commit(t.Context(), op); !fault.Is(err, fault.Invalid) {
			t.Errorf("got %v, want invalid", err)
		}
	})
}

// TestStartGivesUp: a member that finds no others can be stopped.
func TestStartGivesUp(t *testing.T) {
	ps := peers(t, 3)
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	time.AfterFunc(100*time.Millisecond, func() { cancel(stop) })
	m, err := etcd.Start(ctx, etcd.Options{
		Self: ps[0], Peers: ps, Token: t.Name(), DataDir: t.TempDir(),
		Heartbeat: 50 * time.Millisecond, Election: 500 * time.Millisecond,
	})
	if m != nil || !fault.Is(err, fault.Unavailable) {
		t.Errorf("start of one member of three: %v, %v", m, err)
	}
}

// TestCloseAll: when all members are stopped at once, the leader does not wait
// long for one that has gone to take its leadership.
func TestCloseAll(t *testing.T) {
	ps := peers(t, 3)
	members := make([]*etcd.Member, len(ps))
	var starting sync.WaitGroup
	for i := range ps {
		starting.Go(func() {
			m, err := etcd.Start(t.Context(), etcd.Options{
				Self: ps[i], Peers: ps, Token: t.Name(), DataDir: filepath.Join(t.TempDir(), ps[i].Name),
				Heartbeat: 50 * time.Millisecond, Election: 500 * time.Millisecond,
			})
			if err != nil {
				t.Error(err)
				return
			}
			members[i] = m
		})
	}
	starting.Wait()
	if t.Failed() {
		t.FailNow()
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		var closing sync.WaitGroup
		defer closing.Wait()
		for _, m := range members {
			closing.Go(func() {
				if err := m.Close(); err != nil {
					t.Error(err)
				}
			})
		}
	}()
	select {
	case <-closed:
	case <-time.After(5 * time.Second): // etcd's own patience is 6 s
		t.Error("closing takes as long as etcd waits for a member that has gone")
		<-closed
	}
}
