package volume_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dcos.example/dcos/runtime/agent/volume"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/resource"
)

// disk reads a persistent volume of a role; more is its source.
func disk(t *testing.T, role, id, more string) resource.Resources {
	t.Helper()
	r, err := resource.Parse(`[{"name":"disk","type":"SCALAR","scalar":{"value":64},"reservations":[{"type":"DYNAMIC","role":"` + role +
		`"}],"disk":{"persistence":{"id":"` + id + `"},"volume":{"mode":"RW","containerPath":"data"}` + more + `}}]`)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func one(t *testing.T, l volume.Layout, r resource.Resources) volume.Volume {
	t.Helper()
	vs, err := l.All(r)
	if err != nil || len(vs) != 1 {
		t.Fatalf("%v, %v", vs, err)
	}
	return vs[0]
}

func write(t *testing.T, dir string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "data"), []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestPaths(t *testing.T) {
	l := volume.Layout{Work: "/work"}
	for _, c := range []struct{ role, id, more, want string }{
		{"db", "a", "", "/work/volumes/roles/db/a"},
		{"db/kafka", "a", "", "/work/volumes/roles/db kafka/a"},
		{"db", "a", `,"source":{"type":"PATH","path":{"root":"/disk1"}}`, "/disk1/volumes/roles/db/a"},
		{"db", "a", `,"source":{"type":"PATH","path":{"root":"disks/1"}}`, "/work/disks/1/volumes/roles/db/a"},
		{"db", "a", `,"source":{"type":"MOUNT","mount":{"root":"/disk2"}}`, "/disk2"},
	} {
		if v := one(t, l, disk(t, c.role, c.id, c.more)); v.Path != c.want || v.Role != c.role || v.ID != c.id {
			t.Errorf("%+v: %+v", c, v)
		}
	}
	for _, bad := range []resource.Resources{
		disk(t, "db", "..", ""), disk(t, "db", "a/b", ""), disk(t, "db", "a", `,"source":{"type":"RAW"}`),
		disk(t, "db", "a", "").Add(disk(t, "db", "a", "")), // two in one directory
	} {
		if vs, err := l.All(bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v, %v", bad, vs, err)
		}
	}
	if vs, err := l.All(resource.MustParse("disk(db):5;cpus:1")); err != nil || len(vs) != 0 {
		t.Errorf("%v, %v", vs, err)
	}
}

func TestLife(t *testing.T) {
	l := volume.Layout{Work: t.TempDir()}
	v := one(t, l, disk(t, "db", "a", ""))
	if err := v.Ready(); !fault.Is(err, fault.NotFound) {
		t.Errorf("before it is made: %v", err)
	}
	if aside, err := v.Make(); err != nil || aside != "" {
		t.Fatalf("%q, %v", aside, err)
	}
	if _, err := v.Make(); err != nil { // of a crash before the checkpoint
		t.Fatal(err)
	}
	write(t, v.Path)
	if err := v.Ready(); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(filepath.Join(l.Work, "volumes")); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", fi, err)
	}
	left, err := v.Retire()
	if err != nil || left == "" {
		t.Fatalf("%q, %v", left, err)
	}
	if _, err := os.Stat(filepath.Dir(v.Path)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the role's directory: %v", err)
	}
	if _, err := v.Make(); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(v.Path); err != nil || len(entries) != 0 {
		t.Errorf("the next volume of that id has %v, %v", entries, err)
	}
	if err := volume.Remove(t.Context(), left); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("destroyed data: %v", err)
	}
	if err := v.Unmake(); err != nil {
		t.Error(err)
	}
	if left, err := v.Retire(); left != "" || err != nil {
		t.Errorf("what is not there was retired: %q, %v", left, err)
	}
}

// Data that no list has ever known is not shown to anybody, and not lost.
func TestForeignData(t *testing.T) {
	l := volume.Layout{Work: t.TempDir()}
	v := one(t, l, disk(t, "db", "a", ""))
	if err := os.MkdirAll(v.Path, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, v.Path)
	aside, err := v.Make()
	if err != nil || !strings.HasPrefix(aside, filepath.Join(l.Work, "volumes", "aside")) {
		t.Fatalf("%q, %v", aside, err)
	}
	if entries, err := os.ReadDir(v.Path); err != nil || len(entries) != 0 {
		t.Errorf("the new volume has %v, %v", entries, err)
	}
	if b, err := os.ReadFile(filepath.Join(aside, "data")); string(b) != "kept" {
		t.Errorf("set aside: %q, %v", b, err)
	}
	write(t, v.Path)
	moved, err := l.SetAside(resource.Resources{})
	if err != nil || len(moved) != 1 {
		t.Fatalf("%v, %v", moved, err)
	}
	if b, err := os.ReadFile(filepath.Join(moved[0], "db", "a", "data")); string(b) != "kept" {
		t.Errorf("set aside: %q, %v", b, err)
	}
	if moved, err := l.SetAside(resource.Resources{}); err != nil || len(moved) != 0 {
		t.Errorf("again: %v, %v", moved, err)
	}
}

// What was destroyed just before a crash is gone after it, on every disk.
func TestTidy(t *testing.T) {
	l := volume.Layout{Work: t.TempDir()}
	other := t.TempDir()
	source := `,"source":{"type":"PATH","path":{"root":"` + other + `"}}`
	stays, goes, far := one(t, l, disk(t, "db", "a", "")), one(t, l, disk(t, "db", "b", "")), one(t, l, disk(t, "db/x", "c", source))
	for _, v := range []volume.Volume{stays, goes, far} {
		if _, err := v.Make(); err != nil {
			t.Fatal(err)
		}
		write(t, v.Path)
	}
	host, err := resource.Parse(`[{"name":"disk","type":"SCALAR","scalar":{"value":64},"disk":{"source":{"type":"PATH","path":{"root":"` + other + `"}}}}]`)
	if err != nil {
		t.Fatal(err)
	}
	left, err := l.Tidy(host, []volume.Volume{stays})
	if err != nil || len(left) != 2 {
		t.Fatalf("%v, %v", left, err)
	}
	if err := stays.Ready(); err != nil {
		t.Error(err)
	}
	for _, v := range []volume.Volume{goes, far} {
		if err := v.Ready(); !fault.Is(err, fault.NotFound) {
			t.Errorf("%s: %v", v, err)
		}
	}
}

// A disk that is to be a volume must be mounted: what is below is another's.
func TestUnmounted(t *testing.T) {
	v := one(t, volume.Layout{Work: "/work"}, disk(t, "db", "a", `,"source":{"type":"MOUNT","mount":{"root":"`+t.TempDir()+`"}}`))
	if err := v.Ready(); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "not mounted") {
		t.Errorf("use: %v", err)
	}
	if _, err := v.Make(); !fault.Is(err, fault.Unavailable) {
		t.Errorf("make: %v", err)
	}
}

func TestUsage(t *testing.T) {
	l := volume.Layout{Work: t.TempDir()}
	v := one(t, l, disk(t, "db", "a", ""))
	var m volume.Meter
	now := time.Now()
	if n, ok := m.Usage(v, now); ok {
		t.Errorf("a volume that is not there has %d bytes", n)
	}
	if _, err := v.Make(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(v.Path, "data")
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(file, file+"-snapshot"); err != nil {
		t.Fatal(err)
	}
	if _, ok := m.Usage(v, now.Add(time.Second)); ok {
		t.Error("measured again at once")
	}
	n, ok := m.Usage(v, now.Add(time.Minute))
	if !ok || n < 1<<20 || n > 3<<19 {
		t.Errorf("%d bytes, %v", n, ok)
	}
}
