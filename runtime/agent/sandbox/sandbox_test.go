package sandbox_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"dcos.example/dcos/runtime/agent/sandbox"
)

func create(t *testing.T, l sandbox.Layout, executor, container string, age time.Duration) string {
	t.Helper()
	dir, err := l.Create("a", "f", executor, container, os.Getuid(), os.Getgid())
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(-age)
	for _, f := range []string{"stdout", "stderr", "."} {
		if err := os.Chtimes(filepath.Join(dir, f), at, at); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestCreate(t *testing.T) {
	l := sandbox.Layout{Work: t.TempDir()}
	create(t, l, "e", "c1", 0)
	dir := create(t, l, "e", "c2", 0)
	if want := filepath.Join(l.Work, "slaves/a/frameworks/f/executors/e/runs/c2"); dir != want || dir != l.Run("a", "f", "e", "c2") {
		t.Errorf("made %s, want %s", dir, want)
	}
	if to, err := os.Readlink(filepath.Join(filepath.Dir(dir), "latest")); err != nil || to != "c2" {
		t.Errorf("latest points at %q, %v", to, err)
	}
	for _, f := range []string{"stdout", "stderr"} {
		if _, err := os.Stat(filepath.Join(dir, f)); err != nil {
			t.Error(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "stdout"), []byte("kept"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Create("a", "f", "e", "c2", os.Getuid(), os.Getgid()); err != nil {
		t.Errorf("a repeated start: %v", err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "stdout")); err != nil || string(b) != "kept" {
		t.Errorf("after it stdout holds %q, %v", b, err)
	}
}

func TestCollect(t *testing.T) {
	day := 24 * time.Hour
	for _, c := range []struct {
		name string
		used float64
		keep map[string]bool
	}{
		{"an empty disk keeps for six days", 0, map[string]bool{"new": true, "day": true, "live": true}},
		{"a disk half full keeps for less", 0.8, map[string]bool{"new": true, "live": true}},
		{"a full disk keeps what lives", 0.95, map[string]bool{"live": true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := sandbox.Layout{Work: t.TempDir()}
			dirs := map[string]string{
				"new": create(t, l, "e1", "new", time.Minute), "day": create(t, l, "e2", "day", day),
				"old": create(t, l, "e3", "old", 8*day), "live": create(t, l, "e4", "live", 30*day),
			}
			g := sandbox.Collector{
				Layout: l, Log: slog.New(slog.DiscardHandler), Live: func(id string) bool { return id == "live" },
				Usage: func() (float64, error) { return c.used, nil },
			}
			n, err := g.Collect(time.Now())
			if err != nil || n != 4-len(c.keep) {
				t.Errorf("removed %d, %v", n, err)
			}
			for name, dir := range dirs {
				_, err := os.Stat(dir)
				if (err == nil) != c.keep[name] {
					t.Errorf("%s: %v, kept should be %t", name, err, c.keep[name])
				}
				if _, err := os.Stat(filepath.Join(dir, "../../..", filepath.Base(filepath.Dir(filepath.Dir(dir))))); (err == nil) != c.keep[name] {
					t.Errorf("%s: its executor's directory: %v", name, err)
				}
			}
		})
	}
}
