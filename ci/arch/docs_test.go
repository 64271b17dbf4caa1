package arch_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const root = "../.."

// link is a relative link of a Markdown text, without its anchor.
var link = regexp.MustCompile(`\]\(([^):#\s]+)(?:#[^)]*)?\)`)

// TestLinks: what the documents point to is there.
func TestLinks(t *testing.T) {
	n := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := d.Name(); d.IsDir() && path != root && (name == "build" || strings.HasPrefix(name, ".") || name == "node_modules") {
			return fs.SkipDir
		}
		if filepath.Ext(path) != ".md" {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			n++
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), m[1])); errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s points to %s, which is not there", path, m[1])
			} else if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n == 0 {
		t.Error("no links found")
	}
}

// TestDecisionsAreListed: the index has every decision with its title, and
// numbers are used once.
func TestDecisionsAreListed(t *testing.T) {
	index, err := os.ReadFile(root + "/docs/adr/README.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(root + "/docs/adr/[0-9]*.md")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	seen := map[string]string{}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(f)
		number, _, _ := strings.Cut(name, "-")
		if other, twice := seen[number]; twice {
			t.Errorf("%s and %s have the same number", other, name)
		}
		seen[number] = name
		heading, _, _ := strings.Cut(string(text), "\n")
		title, ok := strings.CutPrefix(heading, "# "+number+" ")
		if !ok {
			t.Errorf("%s begins with %q, not with its number", name, heading)
		}
		if want := "* [" + number + "](" + name + ") " + title + "\n"; !strings.Contains(string(index), want) {
			t.Errorf("docs/adr/README.md lacks %q", want)
		}
	}
}
