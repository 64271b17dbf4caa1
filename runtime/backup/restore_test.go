package backup_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dcos.example/dcos/runtime/backup"
	"dcos.example/dcos/runtime/backup/archive"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/state"
	"dcos.example/dcos/runtime/state/etcd"
)

func TestRestore(t *testing.T) {
	m := startStore(t)
	put(t, m, "app", "/web", "{}")
	put(t, m, "agent", "old", "{}")
	put(t, m, "agent", "kept", "{}")
	dir := t.TempDir()
	db := filepath.Join(dir, archive.OrderSnapshot)
	f, err := os.Create(db)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Snapshot(t.Context(), f); err != nil || f.Close() != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(db)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	order := archive.Order{Backup: "b1", ClusterID: "c1", SHA256: hex.EncodeToString(sum[:]), ForgetAgents: []string{"old", "never there"}}
	write := func() {
		b, err := json.Marshal(order)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, archive.OrderName), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	self := etcd.Peer{Name: "m1", Addr: netip.MustParseAddrPort(l.Addr().String())}
	l.Close()
	o := etcd.Options{Self: self, Peers: []etcd.Peer{self}, Token: "c1", DataDir: t.TempDir(), Heartbeat: 50 * time.Millisecond, Election: 500 * time.Millisecond}

	if got, err := backup.Begin(dir, o); got != nil || err != nil {
		t.Fatalf("without an order: %v, %v", got, err)
	}
	order.ClusterID = "c2"
	write()
	if _, err := backup.Begin(dir, o); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "for cluster c2") {
		t.Errorf("of another cluster: %v", err)
	}
	order.ClusterID, order.SHA256 = "c1", strings.Repeat("0", 64)
	write()
	if _, err := backup.Begin(dir, o); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "digest") {
		t.Errorf("of another snapshot: %v", err)
	}
	order.SHA256 = hex.EncodeToString(sum[:])
	write()
	for range 2 { // the second is a master that died right after
		got, err := backup.Begin(dir, o)
		if err != nil || got == nil || got.Backup != "b1" {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	again, err := etcd.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	store := etcd.New(again.Client())
	if err := backup.Finish(t.Context(), dir, &order, store); err != nil {
		t.Fatal(err)
	}
	recs, _, err := store.List(t.Context(), "agent")
	if err != nil || len(recs) != 1 || recs[0].Key.ID != "kept" {
		t.Errorf("agents %v, %v", recs, err)
	}
	if _, err := store.Get(t.Context(), state.Key{Kind: "app", ID: "/web"}); err != nil {
		t.Error(err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the order is left: %v", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	order.Backup = "b2"
	write()
	if _, err := backup.Begin(dir, o); !fault.Is(err, fault.Exists) {
		t.Errorf("beside a store: %v", err)
	}
}
