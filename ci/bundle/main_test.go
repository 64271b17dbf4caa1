//go:build e2e

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dcos.example/dcos/installer/bundle/sbom"
)

// TestSameBytes builds the release again, elsewhere, and compares it with the
// one that `make bundle` built. A build from another directory with an empty
// GOCACHE gives the same bytes, too, but takes minutes.
func TestSameBytes(t *testing.T) {
	file := os.Getenv("DCOS_BUNDLE")
	if file == "" {
		t.Fatal("DCOS_BUNDLE is not set: it must name the bundle that `make bundle` built")
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir("../..")
	version, err := os.ReadFile("VERSION")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	again := filepath.Join(dir, "again.bundle")
	key, err := signingKey("", os.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	if err := build(t.Context(), strings.TrimSpace(string(version)), filepath.Join(dir, "work"), again, key); err != nil {
		t.Fatal(err)
	}
	bill, err := os.ReadFile(filepath.Join(dir, "work", "release", sbom.File))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"pkg:golang/go.etcd.io/etcd/server/v3@", "pkg:golang/github.com/containerd/containerd/v2@", "pkg:golang/stdlib@", "libseccomp", demoName} {
		if !bytes.Contains(bill, []byte(part)) {
			t.Errorf("%s is missing in the bill of materials", part)
		}
	}
	got, err := os.ReadFile(again)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s and a bundle built again differ; is it older than the source?", file)
	}
}
