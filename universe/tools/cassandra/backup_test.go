package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestMine: every node of a backup is brought back by exactly one instance,
// however many there are.
func TestMine(t *testing.T) {
	var keys []string
	for _, n := range []string{"node-0", "node-1", "node-2", "node-10"} {
		keys = append(keys, "prod/cassandra/monday/"+n+"/files.json", "prod/cassandra/monday/"+n+"/shop/orders/files.json")
	}
	keys = append(keys, "prod/cassandra/monday/schema.json")
	for _, c := range []struct {
		self, count int
		want        []string
	}{
		{0, 3, []string{"node-0"}},
		{1, 3, []string{"node-1", "node-10"}},
		{2, 3, []string{"node-2"}},
		{0, 1, []string{"node-0", "node-1", "node-10", "node-2"}},
		{10, 12, []string{"node-10"}},
	} {
		var got []string
		for _, k := range mine(keys, "prod/cassandra/monday", c.self, c.count) {
			got = append(got, filepath.Base(k))
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("instance %d of %d:\n%s", c.self, c.count, diff)
		}
	}
}

func TestSnapshotFiles(t *testing.T) {
	data := t.TempDir()
	for _, f := range []string{
		"shop/orders-0123/snapshots/monday/nb-1-big-Data.db", "shop/orders-0123/snapshots/monday/manifest.json",
		"shop/orders-0123/snapshots/tuesday/nb-2-big-Data.db", "shop/orders-0123/nb-2-big-Data.db",
		"system_schema/tables-77/snapshots/monday/nb-1-big-Data.db",
	} {
		path := filepath.Join(data, f)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	files, err := snapshotFiles(data, "monday")
	if err != nil || len(files) != 1 || files[0].key != "shop/orders/nb-1-big-Data.db" {
		t.Errorf("%v, %v", files, err)
	}
}

func TestNames(t *testing.T) {
	for name, ok := range map[string]bool{"monday-2": true, "": false, "../x": false, "a/b": false} {
		if err := (environment{snapshot: name}).named(); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}
