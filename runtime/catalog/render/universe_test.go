package render_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"dcos.example/dcos/runtime/catalog/failure"
	"dcos.example/dcos/runtime/catalog/index"
	"dcos.example/dcos/runtime/catalog/render"
	"dcos.example/dcos/runtime/catalog/repo"
	"dcos.example/dcos/universe/schema"
)

var update = flag.Bool("update", false, "rewrite golden files")

// universe is read once: it takes as long as all tests together.
var universe = sync.OnceValues(func() ([]index.Revision, error) {
	dir, err := os.MkdirTemp("", "universe-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	store, err := repo.New(dir, http.DefaultTransport, "test")
	if err != nil {
		return nil, err
	}
	path, err := filepath.Abs("../testdata/universe-up-to-1.8.json.gz")
	if err != nil {
		return nil, err
	}
	c, err := store.Fetch(context.Background(), "file:"+path, nil)
	if err != nil {
		return nil, err
	}
	return c.Revisions, nil
})

// TestUniverse renders the whole public Universe with default options. What
// cannot be rendered could not be in DC/OS either, and the golden list says
// why: packages that only have a command line, options that everybody must give,
// and defaults that the repository quotes once too often for clients so old.
func TestUniverse(t *testing.T) {
	revisions, err := universe()
	if err != nil {
		t.Fatal(err)
	}
	if len(revisions) != 552 {
		t.Fatalf("there are %d revisions", len(revisions))
	}
	var refused []string
	rendered := 0
	for _, r := range revisions {
		p, err := r.Packed.Package()
		if err != nil {
			t.Fatal(err)
		}
		out, err := render.Render(render.Input{Package: p, Packed: r.Packed, Source: "file:universe"})
		var f *failure.Error
		if errors.As(err, &f) {
			why := f.Message
			if all, ok := f.Data["errors"].(schema.Reports); ok {
				why = all.Error()
			}
			refused = append(refused, fmt.Sprintf("%s: %s: %s", schema.Key(p), f.Type, why))
			continue
		} else if err != nil {
			t.Errorf("%s: %v", schema.Key(p), err)
			continue
		}
		var app struct {
			ID     string            `json:"id"`
			Labels map[string]string `json:"labels"`
		}
		if err := json.Unmarshal(out.App, &app); err != nil {
			t.Errorf("%s: %v", schema.Key(p), err)
		}
		if app.Labels[render.LabelName] != p.Name {
			t.Errorf("%s has the labels %v", schema.Key(p), app.Labels)
		}
		rendered++
	}
	slices.Sort(refused)
	golden(t, "refused.golden", []byte(strings.Join(refused, "\n")+"\n"))
	t.Logf("%d rendered, %d refused", rendered, len(refused))
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; run with -update and look at the difference", path)
	}
}
