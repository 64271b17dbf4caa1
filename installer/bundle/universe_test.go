package bundle_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dcos.example/dcos/installer/bundle"
	"dcos.example/dcos/installer/bundle/sbom"
	"dcos.example/dcos/runtime/fault"
)

// universe writes a universe of packages with an image each, whose layers are
// given by name; a package without a layer needs no image.
func universe(t *testing.T, packages map[string]string) string {
	dir := t.TempDir()
	var entries []string
	for id, layer := range packages {
		name, version, _ := strings.Cut(id, ":")
		release := version[strings.LastIndex(version, "-")+1:]
		entry := `{"packagingVersion":"5.0","name":"` + name + `","version":"` + version + `","releaseVersion":` + release + `,"kept":{"as":["it"]}`
		if layer != "" {
			image := "registry.dcos/" + id
			layoutTar(t, filepath.Join(dir, "images", strings.ReplaceAll(id, ":", "-")+".tar"), image, layer)
			entry += `,"resource":{"assets":{"container":{"docker":{"main":"` + image + `"}}}}`
		}
		entries = append(entries, entry+"}")
	}
	slices.Sort(entries)
	put(t, filepath.Join(dir, "repo.json"), `{"packages":[`+strings.Join(entries, ",")+`]}`)
	return dir
}

func TestAddPackages(t *testing.T) {
	key := newKey(t)
	trust := bundle.TrustKey(key.Public())
	base, before := write(t, release(t), &key)
	u := universe(t, map[string]string{"kafka:4.0-1": "old", "kafka:4.1-2": "jvm", "cassandra:5.0-1": "jvm", "spark:4.0-1": "spark", "tool:1-1": ""})
	out := filepath.Join(t.TempDir(), "o.bundle")
	add := bundle.Additions{Universe: u, Packages: []string{"kafka", "cassandra"}}
	m, err := bundle.Add(base, out, add, key, trust)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range m.Packages {
		names = append(names, p.Name+" "+p.Version+" "+strings.Join(p.Images, ","))
	}
	want := []string{"cassandra 5.0-1 registry.dcos/cassandra:5.0-1", "kafka 4.1-2 registry.dcos/kafka:4.1-2", "tool 1-1 "}
	if d := cmp.Diff(want, names); d != "" {
		t.Error(d)
	}
	if _, _, err := bundle.Verify(out, trust); err != nil {
		t.Fatal(err)
	}
	dir, _, err := bundle.Unpack(out, t.TempDir(), trust)
	if err != nil {
		t.Fatal(err)
	}
	blobs, err := os.ReadDir(filepath.Join(dir, "packages/images/blobs/sha256"))
	if err != nil || len(blobs) != 3 { // the two images have the same layer and configuration, and so the same manifest
		t.Errorf("%d blobs, %v", len(blobs), err)
	}
	var repo struct{ Packages []map[string]any }
	text, err := os.ReadFile(filepath.Join(dir, "packages/repo.json"))
	if err != nil || json.Unmarshal(text, &repo) != nil || len(repo.Packages) != 3 || repo.Packages[1]["kept"] == nil {
		t.Errorf("repo.json: %s, %v", text, err)
	}
	// The release's own files are as they were, and agents see nothing new.
	if agents := m.Share(false); !agents.Partial || len(agents.Files) != len(before.Files) {
		t.Errorf("agents have %d files, before %d", len(agents.Files), len(before.Files))
	}
	if m.Programs() != before.Programs() {
		t.Error("with packages it is another program")
	}
	if s := before.Share(false); s.Partial || m.Share(true).Partial {
		t.Error("masters have all, and all have all of a release without packages")
	}
	if n := count(t, dir, `"bom-ref": "package:`); n != 3 {
		t.Errorf("%d packages are on the bill of materials", n)
	}

	// The same bytes come of the same.
	again, err := bundle.Add(base, out+"2", add, key, trust)
	if err != nil || !cmp.Equal(again, m) {
		t.Errorf("again: %v", err)
	}
	a, _ := os.ReadFile(out)
	if b, err := os.ReadFile(out + "2"); err != nil || string(a) != string(b) {
		t.Errorf("other bytes: %v", err)
	}

	// A newer one by the same version, in place: what nothing needs goes.
	u = universe(t, map[string]string{"kafka:4.1-2": "better", "spark:4.0-1": "spark"})
	m, err = bundle.Add(out, out, bundle.Additions{Universe: u, Packages: []string{"kafka:4.1-2", "spark"}}, key, trust)
	if err != nil {
		t.Fatal(err)
	}
	if dir, _, err = bundle.Unpack(out, t.TempDir(), trust); err != nil {
		t.Fatal(err)
	}
	if blobs, err = os.ReadDir(filepath.Join(dir, "packages/images/blobs/sha256")); err != nil || len(blobs) != 7 || len(m.Packages) != 4 {
		t.Errorf("%d blobs of %d packages, %v", len(blobs), len(m.Packages), err)
	}
	if n := count(t, dir, `"bom-ref": "package:`); n != 4 {
		t.Errorf("%d packages are on the bill of materials", n)
	}
}

func count(t *testing.T, dir, text string) int {
	b, err := os.ReadFile(filepath.Join(dir, sbom.File))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(b), text)
}

func TestAddPackagesRefuses(t *testing.T) {
	key := newKey(t)
	trust := bundle.TrustKey(key.Public())
	base, _ := write(t, release(t), &key)
	good := universe(t, map[string]string{"kafka:4.1-1": "jvm"})
	bare := universe(t, map[string]string{"kafka:4.1-1": "jvm"})
	if err := os.RemoveAll(filepath.Join(bare, "images")); err != nil {
		t.Fatal(err)
	}
	foreign := t.TempDir()
	put(t, filepath.Join(foreign, "repo.json"), `{"packages":[{"name":"web","version":"1","resource":{"assets":{"container":{"docker":{"x":"nginx:1.27"}}}}}]}`)
	damaged := universe(t, map[string]string{"kafka:4.1-1": "jvm"})
	tar := filepath.Join(damaged, "images", "kafka-4.1-1.tar")
	b, err := os.ReadFile(tar)
	if err != nil {
		t.Fatal(err)
	}
	put(t, tar, strings.Replace(string(b), "jvm", "jam", 1))
	for name, test := range map[string]struct {
		universe, packages, want string
	}{
		"no universe":       {filepath.Join(good, "none"), "kafka", "make universe"},
		"no such package":   {good, "kafca", "there is no package kafca; there are kafka"},
		"no such version":   {good, "kafka:3", "kafka has no version 3; there are 4.1-1"},
		"no image":          {bare, "kafka", "needs image registry.dcos/kafka:4.1-1"},
		"a foreign image":   {foreign, "web", "masters do not serve"},
		"a damaged archive": {damaged, "kafka", "damaged"},
	} {
		out := filepath.Join(t.TempDir(), "o.bundle")
		_, err := bundle.Add(base, out, bundle.Additions{Universe: test.universe, Packages: []string{test.packages}}, key, trust)
		if err == nil || !strings.Contains(err.Error(), test.want) || fault.KindOf(err) == fault.Internal {
			t.Errorf("%s: %v (%s)", name, err, fault.KindOf(err))
		}
	}
}
