package etcd_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/state"
	"dcos.example/dcos/runtime/state/etcd"
)

// TestSnapshot: what was there when the snapshot was taken, and nothing else,
// is in a scratch member and in a member restored from it.
func TestSnapshot(t *testing.T) {
	m := start(t, peers(t, 1), 0)
	b := etcd.New(m.Client())
	for i := range 50 {
		if _, err := b.Commit(t.Context(), state.Op{Key: state.Key{Kind: "app", ID: fmt.Sprint(i)}, Value: []byte("before")}); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), "snapshot.db")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	n, err := m.Snapshot(t.Context(), f)
	if err != nil || n == 0 || f.Close() != nil {
		t.Fatal(n, err)
	}
	if _, err := b.Commit(t.Context(), state.Op{Key: state.Key{Kind: "app", ID: "late"}, Value: []byte("after")}); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "s") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	looked := false
	err = etcd.Scratch(t.Context(), file, dir, func(ctx context.Context, s state.Backend, has etcd.Contents) error {
		looked = true
		live, err := m.Contents(ctx, has.Revision)
		if err != nil || live != has || has.Keys != 50 {
			t.Errorf("scratch %+v, live %+v, %v", has, live, err)
		}
		now, err := m.Contents(ctx, 0)
		if err != nil || now.Keys != 51 || now.Digest == has.Digest {
			t.Errorf("the store now: %+v, %v", now, err)
		}
		recs, _, err := s.List(ctx, "app")
		if err != nil || len(recs) != 50 {
			t.Errorf("%d records, %v", len(recs), err)
		}
		return nil
	})
	if err != nil || !looked {
		t.Fatal(looked, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("a scratch member leaves %v, %v", left, err)
	}

	o := etcd.Options{Self: peers(t, 1)[0], Token: "other", DataDir: t.TempDir(), Heartbeat: 50 * time.Millisecond, Election: 500 * time.Millisecond}
	if err := etcd.Restore(o, file); err != nil {
		t.Fatal(err)
	}
	if err := etcd.Restore(o, file); !fault.Is(err, fault.Exists) {
		t.Errorf("restore over a store: %v", err)
	}
	o.Peers = []etcd.Peer{o.Self}
	again, err := etcd.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if _, err := etcd.New(again.Client()).Get(t.Context(), state.Key{Kind: "app", ID: "49"}); err != nil {
		t.Error(err)
	}
	if _, err := etcd.New(again.Client()).Get(t.Context(), state.Key{Kind: "app", ID: "late"}); !fault.Is(err, fault.NotFound) {
		t.Errorf("what came after the snapshot: %v", err)
	}
}

// TestDamagedSnapshot: a file with one byte changed or cut off is refused.
func TestDamagedSnapshot(t *testing.T) {
	m := start(t, peers(t, 1), 0)
	file := filepath.Join(t.TempDir(), "snapshot.db")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Snapshot(t.Context(), f); err != nil || f.Close() != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	flipped := append([]byte(nil), whole...)
	flipped[len(flipped)/2] ^= 1
	for what, b := range map[string][]byte{"flipped": flipped, "cut off": whole[:len(whole)-512]} {
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		o := etcd.Options{Self: etcd.Peer{Name: "m", Addr: peers(t, 1)[0].Addr}, DataDir: t.TempDir(), Heartbeat: 50 * time.Millisecond, Election: 500 * time.Millisecond}
		if err := etcd.Restore(o, file); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := os.Stat(filepath.Join(o.DataDir, "etcd")); err == nil {
			t.Errorf("%s: a store was left", what)
		}
	}
}
