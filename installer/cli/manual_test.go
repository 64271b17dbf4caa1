package cli_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const root = "../.."

// sources returns what the programs are made of, as one text.
func sources(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, dir := range []string{"installer", "providers", "cmd", "runtime"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") || strings.HasSuffix(path, ".pb.go") {
				return err
			}
			b, err := os.ReadFile(path)
			all.Write(b)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all.String()
}

// Every message that INSTALL.md explains is one that the programs still give,
// and every variable of the environment that they read is in it.
func TestManualIsTrue(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(root, "INSTALL.md"))
	if err != nil {
		t.Fatal(err)
	}
	manual, source := string(b), sources(t)
	_, troubles, found := strings.Cut(manual, "\n## When something goes wrong\n")
	if !found {
		t.Fatal("INSTALL.md has no section about what goes wrong")
	}
	said := regexp.MustCompile("(?m)^### `(.*)`$").FindAllStringSubmatch(troubles, -1)
	_, apps, _ := strings.Cut(troubles, "| it says |")
	for row := range strings.Lines(apps) {
		if cell := strings.Split(row, "|"); len(cell) > 2 {
			said = append(said, regexp.MustCompile("`([^`]*)`").FindAllStringSubmatch(cell[1], -1)...)
		}
	}
	if len(said) < 20 {
		t.Fatalf("only %d messages found", len(said))
	}
	for _, m := range said {
		text := regexp.MustCompile(`\d+$`).ReplaceAllString(m[1], "") // a status is an argument
		if !strings.Contains(source, text) {
			t.Errorf("INSTALL.md explains %q, which nothing says", m[1])
		}
	}
	for _, m := range regexp.MustCompile(`"(DCOS_(?:PASSPHRASE|BUNDLE)[A-Z_]*)"`).FindAllStringSubmatch(source, -1) {
		if !strings.Contains(manual, "`"+m[1]+"`") {
			t.Errorf("%s is not in INSTALL.md", m[1])
		}
	}
}
