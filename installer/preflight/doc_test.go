package preflight_test

import (
	"flag"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dcos.example/dcos/installer/preflight"
)

var update = flag.Bool("update", false, "rewrite docs/preflight.md")

func TestDocument(t *testing.T) {
	const path = "../../docs/preflight.md"
	if *update {
		if err := os.WriteFile(path, []byte(preflight.Document()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(b), preflight.Document()); d != "" {
		t.Errorf("docs/preflight.md is not what the table says; go test -update writes it:\n%s", d)
	}
}
