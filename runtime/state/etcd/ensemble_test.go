package etcd_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/state"
	"dcos.example/dcos/runtime/state/etcd"
)

func options(t *testing.T, p etcd.Peer, dir string) etcd.Options {
	return etcd.Options{Self: p, Peers: []etcd.Peer{p}, Token: t.Name(), DataDir: dir, Heartbeat: 50 * time.Millisecond, Election: 500 * time.Millisecond}
}

func stop(t *testing.T, m *etcd.Member) {
	t.Helper()
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
}

// eventually tries until f returns nil.
func eventually(t *testing.T, what string, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		err := f(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// join adds a member to the ensemble of first, which leads, and starts it.
func join(t *testing.T, first *etcd.Member, p etcd.Peer, dir string) *etcd.Member {
	t.Helper()
	var id etcd.ID
	eventually(t, "add", func(ctx context.Context) (err error) {
		id, err = first.AddLearner(ctx, p.Addr)
		return err
	})
	o := options(t, p, dir)
	o.Join, o.Peers = true, nil
	for _, m := range first.Members() {
		o.Peers = append(o.Peers, etcd.Peer{Name: m.Addr.String(), Addr: m.Addr})
		if m.ID == id {
			o.Peers[len(o.Peers)-1].Name = p.Name
		}
	}
	m, err := etcd.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if m.ID() != id || !m.Learner() {
		t.Errorf("joined as %x, learner %t; was added as %x", m.ID(), m.Learner(), id)
	}
	eventually(t, "promote", func(ctx context.Context) error { return first.Promote(ctx, id) })
	eventually(t, "know of the vote", func(context.Context) error {
		if m.Learner() {
			return errors.New("still a learner")
		}
		return nil
	})
	return m
}

func put(t *testing.T, m *etcd.Member, id string) {
	t.Helper()
	if _, err := etcd.New(m.Client()).Commit(t.Context(), state.Op{Key: state.Key{Kind: "app", ID: id}, Value: []byte("x")}); err != nil {
		t.Fatal(err)
	}
}

func has(t *testing.T, m *etcd.Member, id string) {
	t.Helper()
	if _, err := etcd.New(m.Client()).Get(t.Context(), state.Key{Kind: "app", ID: id}); err != nil {
		t.Error(err)
	}
}

// TestMembersChange: one founds, another joins, is told when it is removed, and
// what was written is there.
func TestMembersChange(t *testing.T) {
	t.Parallel()
	ps, dirs := peers(t, 2), []string{t.TempDir(), t.TempDir()}
	if _, err := etcd.Inspect(dirs[0]); !fault.Is(err, fault.NotFound) {
		t.Errorf("inspect nothing: %v", err)
	}
	first, err := etcd.Start(t.Context(), options(t, ps[0], dirs[0]))
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	put(t, first, "1")
	second := join(t, first, ps[1], dirs[1])
	has(t, second, "1")
	put(t, second, "2")
	eventually(t, "read back", func(context.Context) error {
		if p := second.Progress(); p.Applied < first.Progress().Index {
			return errors.New("behind")
		}
		return nil
	})
	if err := first.Check(t.Context()); err != nil {
		t.Error(err)
	}
	if err := first.HandOver(t.Context(), second.ID()); err != nil || first.Leader() != second.ID() {
		t.Errorf("leader %x, %v", first.Leader(), err)
	}
	id := second.ID()
	eventually(t, "remove", func(ctx context.Context) error { return first.Remove(ctx, id) })
	if err := second.Wait(t.Context()); !errors.Is(err, etcd.ErrRemoved) {
		t.Errorf("a removed member ends with %v", err)
	}
	stop(t, second)
	eventually(t, "lead again", first.Check)
	has(t, first, "2")
	if err := first.Remove(t.Context(), id); !fault.Is(err, fault.NotFound) {
		t.Errorf("removed twice: %v", err)
	}
	if d, err := etcd.Inspect(dirs[1]); err != nil || d.ID != id || d.Ensemble != first.Ensemble() {
		t.Errorf("inspect: %+v, %v", d, err)
	}
	aside, err := etcd.SetAside(dirs[1], time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(aside); err != nil {
		t.Error(err)
	}
	again := join(t, first, ps[1], dirs[1])
	defer again.Close()
	if again.ID() == id {
		t.Error("a member came back under its old identity")
	}
}

// TestAddressesChange: both members come back elsewhere, with their data.
func TestAddressesChange(t *testing.T) {
	t.Parallel()
	ps, dirs := peers(t, 4), []string{t.TempDir(), t.TempDir()}
	first, err := etcd.Start(t.Context(), options(t, ps[0], dirs[0]))
	if err != nil {
		t.Fatal(err)
	}
	second := join(t, first, ps[1], dirs[1])
	put(t, first, "1")
	to := map[etcd.ID]netip.AddrPort{first.ID(): ps[2].Addr, second.ID(): ps[3].Addr}
	stop(t, second)
	stop(t, first)
	members := make([]*etcd.Member, 2)
	for i := range members {
		o := options(t, etcd.Peer{Name: ps[i].Name, Addr: ps[i+2].Addr}, dirs[i])
		if err := etcd.Relocate(o, to); err != nil {
			t.Fatal(err)
		}
		if members[i], err = etcd.Launch(o); err != nil {
			t.Fatal(err)
		}
		defer members[i].Close()
	}
	for _, m := range members {
		if err := m.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range members {
		eventually(t, "tell", func(ctx context.Context) error { return m.Readdress(ctx, m.ID(), to[m.ID()]) })
		compact(m)
	}
	has(t, members[1], "1")
	for _, m := range members {
		eventually(t, "all know", func(ctx context.Context) error {
			if err := m.Check(ctx); err != nil {
				return err
			}
			if !slices.ContainsFunc(m.Members(), func(i etcd.Info) bool { return i.Addr == to[i.ID] }) {
				return errors.New("old addresses")
			}
			return nil
		})
	}
}

// TestRecoverKeepsWhatWasNotAgreed: the member was killed between writing an
// entry and hearing that the others have it. Only it is left to say so.
func TestRecoverKeepsWhatWasNotAgreed(t *testing.T) {
	t.Parallel()
	o := options(t, peers(t, 1)[0], t.TempDir())
	m, err := etcd.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	put(t, m, "1")
	stop(t, m)
	logs := filepath.Join(o.DataDir, "etcd", "member", "wal")
	snaps, err := wal.ValidSnapshotEntries(zap.NewNop(), logs)
	if err != nil {
		t.Fatal(err)
	}
	w, err := wal.Open(zap.NewNop(), logs, snaps[len(snaps)-1])
	if err != nil {
		t.Fatal(err)
	}
	_, hard, entries, err := w.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	data, err := proto.Marshal(&etcdserverpb.InternalRaftRequest{
		Header: &etcdserverpb.RequestHeader{ID: 1}, Put: &etcdserverpb.PutRequest{Key: []byte("/dcos/v1/app/2"), Value: []byte("2")},
	})
	if err != nil {
		t.Fatal(err)
	}
	index := entries[len(entries)-1].GetIndex() + 1
	if err := w.Save(hard, []*raftpb.Entry{{Term: hard.Term, Index: &index, Type: raftpb.EntryNormal.Enum(), Data: data}}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := etcd.Recover(t.Context(), o, func(_ context.Context, m *etcd.Member) error {
		has(t, m, "1")
		has(t, m, "2")
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// TestRecover: of two members one is lost for good. The other goes on alone,
// and one that comes back with old data is told that it is out.
func TestRecover(t *testing.T) {
	t.Parallel()
	ps, dirs := peers(t, 2), []string{t.TempDir(), t.TempDir()}
	first, err := etcd.Start(t.Context(), options(t, ps[0], dirs[0]))
	if err != nil {
		t.Fatal(err)
	}
	second := join(t, first, ps[1], dirs[1])
	put(t, second, "1")
	stop(t, first)
	stop(t, second)
	o := options(t, ps[1], dirs[1])
	for range 2 { // a second time, as after a crash, changes nothing
		noted := false
		if err := etcd.Recover(t.Context(), o, func(ctx context.Context, m *etcd.Member) error {
			noted = true
			has(t, m, "1")
			put(t, m, "2")
			_, err := etcd.New(m.Client()).Commit(ctx, state.Op{Key: state.Key{Kind: "app", ID: "2"}, IfRev: 1, Value: []byte("x")})
			if !fault.Is(err, fault.Conflict) {
				t.Errorf("conditions: %v", err)
			}
			_, err = m.Client().Delete(ctx, "/dcos/v1/app/2")
			return err
		}); err != nil || !noted {
			t.Fatal(noted, err)
		}
	}
	alone, err := etcd.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer alone.Close()
	if all := alone.Members(); len(all) != 1 || all[0].Addr != ps[1].Addr || !alone.Leads() {
		t.Errorf("members %+v", all)
	}
	has(t, alone, "1")
	more := join(t, alone, peers(t, 1)[0], t.TempDir()) // its address is one that others can use
	defer more.Close()
	old, err := etcd.Launch(options(t, ps[0], dirs[0]))
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if err := old.Ready(t.Context()); !errors.Is(err, etcd.ErrRemoved) {
		t.Errorf("a forgotten member: %v", err)
	}
}
