package cli_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// Every blueprint is in the usual layout, valid without any variable set, and
// makes what its golden plan says.
func TestBlueprints(t *testing.T) {
	const root = "../../blueprints"
	files, err := filepath.Glob(filepath.Join(root, "*", "cluster.hcl"))
	if err != nil || len(files) < 2 {
		t.Fatalf("found %d blueprints: %v", len(files), err)
	}
	dir := t.TempDir()
	for _, f := range files {
		name := filepath.Base(filepath.Dir(f))
		src, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		golden := filepath.Join(filepath.Dir(f), "plan.golden")
		want, err := os.ReadFile(golden)
		if err != nil && !*update {
			t.Fatal(err)
		}
		script := strings.Join([]string{
			"exec dcos-install fmt -check", "exec dcos-install plan", "cmp stdout plan.golden", "exec dcos-install apply -auto-approve",
			"exits 0 dcos-install plan -detailed-exitcode", "-- cluster.hcl --", strings.TrimSuffix(string(src), "\n"), "-- plan.golden --", string(want),
		}, "\n")
		path := filepath.Join(dir, name+".txtar")
		if err := os.WriteFile(path, []byte(script), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { // the script's own file holds what -update found
			b, err := os.ReadFile(path)
			if _, plan, ok := strings.Cut(string(b), "-- plan.golden --\n"); *update && err == nil && ok {
				if err := os.WriteFile(golden, []byte(plan), 0o644); err != nil {
					t.Error(err)
				}
			}
		})
	}
	p := params()
	p.Dir = dir
	t.Run("apply", func(t *testing.T) { testscript.Run(t, p) })
}
