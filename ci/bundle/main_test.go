//go:build e2e

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
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
	if err := build(t.Context(), strings.TrimSpace(string(version)), filepath.Join(dir, "work"), again); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(again)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s and a bundle built again differ; is it older than the source?", file)
	}
}
