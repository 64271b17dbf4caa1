//go:build e2e

package main

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// The short version of `make drill`: one fault of each kind that takes no new
// machines and no second release.
func TestShort(t *testing.T) {
	bundle, bin := os.Getenv("DCOS_BUNDLE"), os.Getenv("DCOS_BIN")
	if bundle == "" || bin == "" {
		t.Fatal("DCOS_BUNDLE and DCOS_BIN name the release and its programs: run through make test")
	}
	program := filepath.Join(t.TempDir(), "lab")
	if out, err := exec.Command("go", "build", "-o", program, "dcos.example/dcos/ci/lab/cmd/lab").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	defer cancel()
	s := settings{
		bin: bin, bundle: bundle, next: bundle, program: program, name: "dctdrill",
		cidr: netip.MustParsePrefix("198.19.241.0/24"), only: []string{"kill-leader", "partition-agent", "replace-master"},
	}
	if err := all(ctx, s, testWriter{t}); err != nil {
		t.Error(err)
	}
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", b)
	return len(b), nil
}
