package images_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"dcos.example/dcos/universe/images"
)

// mirror is a Debian of a few small packages in a folder, of apt's flat kind.
type mirror struct {
	dir string
	apt []string
}

// offer makes the mirror offer exactly these packages: name, version and what it
// depends on.
func (m *mirror) offer(t *testing.T, packages ...[3]string) {
	t.Helper()
	var index bytes.Buffer
	for _, p := range packages {
		root := t.TempDir()
		for file, text := range map[string]string{
			"DEBIAN/control":                           fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: amd64\nMaintainer: a <a@example.com>\nDepends: %s\nDescription: a\n", p[0], p[1], p[2]),
			"usr/bin/" + p[0]:                          "#!/bin/sh\necho " + p[1] + "\n",
			"bin/old-" + p[0]:                          "x",
			"usr/share/man/man1/" + p[0] + ".1":        "manual",
			"usr/share/doc/" + p[0] + "/copyright":     "licence",
			"usr/share/doc/" + p[0] + "/changelog.txt": "changes",
		} {
			if file == "DEBIAN/control" && p[2] == "" {
				text = strings.Replace(text, "Depends: \n", "", 1)
			}
			at := filepath.Join(root, file)
			must(t, os.MkdirAll(filepath.Dir(at), 0o755))
			must(t, os.WriteFile(at, []byte(text), 0o755))
		}
		name := fmt.Sprintf("%s_%s_amd64.deb", p[0], p[1])
		at := filepath.Join(m.dir, name)
		if _, err := os.Stat(at); err != nil {
			build := exec.Command("dpkg-deb", "--root-owner-group", "-Znone", "--build", root, at)
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("dpkg-deb: %v\n%s", err, out)
			}
		}
		b, err := os.ReadFile(at)
		must(t, err)
		control, err := os.ReadFile(filepath.Join(root, "DEBIAN/control"))
		must(t, err)
		sum := sha256.Sum256(b)
		fmt.Fprintf(&index, "%sFilename: ./%s\nSize: %d\nSHA256: %s\n\n", control, name, len(b), hex.EncodeToString(sum[:]))
	}
	must(t, os.WriteFile(filepath.Join(m.dir, "Packages"), index.Bytes(), 0o644))
	sum := sha256.Sum256(index.Bytes())
	release := fmt.Sprintf("Origin: Debian\nSHA256:\n %s %d Packages\n", hex.EncodeToString(sum[:]), index.Len())
	must(t, os.WriteFile(filepath.Join(m.dir, "Release"), []byte(release), 0o644))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newMirror(t *testing.T) *mirror {
	t.Helper()
	m := &mirror{dir: t.TempDir()}
	list := filepath.Join(m.dir, "sources.list")
	must(t, os.WriteFile(list, []byte("deb [trusted=yes] file:"+m.dir+" ./\n"), 0o644))
	m.apt = []string{"-o", "Dir::Etc::sourcelist=" + list, "-o", "Dir::Etc::sourceparts=-"}
	return m
}

// site is a folder with a base and an image on it.
func site(t *testing.T, base, image string) (dir, recipe string) {
	t.Helper()
	dir = t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "bases"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "bases", "base.yaml"), []byte(base), 0o644))
	recipe = filepath.Join(dir, "image.yaml")
	must(t, os.WriteFile(recipe, []byte(image), 0o644))
	return dir, recipe
}

const (
	baseRecipe  = "name: base\nfrom: scratch\ndebian: {packages: [tool]}\n"
	imageRecipe = `name: echo
version: 1-1
from: base
user: {name: echo, uid: 1000}
debian: {packages: [echo], exclude: [noise]}
files: [{path: /etc/echo.conf, text: "a: b\n"}]
health: {command: "true", interval: 10s}
env: {A: b}
`
)

func build(t *testing.T, m *mirror, dir, recipe, work string) (*images.Built, []string) {
	t.Helper()
	var notices []string
	b, err := images.NewBuilder(images.Options{Root: dir, Bases: filepath.Join(dir, "bases"), Work: work, Apt: m.apt, Notice: func(s string) { notices = append(notices, s) }})
	must(t, err)
	built, err := b.Build(context.Background(), recipe, filepath.Join(work, "out"))
	must(t, err)
	return built, notices
}

func files(t *testing.T, b *images.Built) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, l := range b.Layers {
		r, err := l.Uncompressed()
		must(t, err)
		for tr := tar.NewReader(r); ; {
			h, err := tr.Next()
			if err == io.EOF {
				break
			}
			must(t, err)
			text, err := io.ReadAll(tr)
			must(t, err)
			found[h.Name] = string(text) + h.Linkname
		}
		must(t, r.Close())
	}
	return found
}

func TestBuildFromDebian(t *testing.T) {
	m := newMirror(t)
	m.offer(t, [3]string{"tool", "1", ""}, [3]string{"echo", "2", "tool, lib, noise"}, [3]string{"lib", "3", ""}, [3]string{"noise", "1", ""})
	dir, recipe := site(t, baseRecipe, imageRecipe)
	one, _ := build(t, m, dir, recipe, t.TempDir())
	got := files(t, one)
	for p, want := range map[string]string{
		"usr/bin/echo": "#!/bin/sh\necho 2\n", "usr/bin/old-lib": "x", "bin": "usr/bin", "usr/share/doc/lib/copyright": "licence", "etc/echo.conf": "a: b\n",
	} {
		if got[p] != want {
			t.Errorf("%s is %q, want %q", p, got[p], want)
		}
	}
	for _, p := range []string{"usr/bin/noise", "usr/share/man/man1/echo.1", "usr/share/doc/lib/changelog.txt"} {
		if _, ok := got[p]; ok {
			t.Errorf("there is a %s", p)
		}
	}
	for _, want := range []string{"pkg:deb/debian/lib@3?arch=amd64", "pkg:deb/debian/tool@1?arch=amd64"} {
		if bill := got["usr/share/sbom/echo.cdx.json"]; !strings.Contains(bill, want) {
			t.Errorf("no %s in %s", want, bill)
		}
	}
	if !strings.Contains(got["etc/passwd"], "echo:x:1000:1000:") {
		t.Errorf("passwd is %s", got["etc/passwd"])
	}

	// Another machine, with the locks: the same bytes.
	two, _ := build(t, m, dir, recipe, t.TempDir())
	if one.Digest != two.Digest {
		t.Errorf("digests %s and %s", one.Digest, two.Digest)
	}
	a, err := os.ReadFile(one.File)
	must(t, err)
	b, err := os.ReadFile(two.File)
	must(t, err)
	if !bytes.Equal(a, b) {
		t.Error("two archives differ")
	}

	// Debian moved on: what it has now, and a word about it.
	m.offer(t, [3]string{"tool", "1", ""}, [3]string{"echo", "2", "tool, lib"}, [3]string{"lib", "4", ""})
	three, notices := build(t, m, dir, recipe, t.TempDir())
	if len(notices) != 1 || !strings.Contains(notices[0], "lib 4 (locked: 3)") {
		t.Errorf("notices %q", notices)
	}
	got = files(t, three)
	if got["usr/bin/lib"] != "#!/bin/sh\necho 4\n" || !strings.Contains(got["usr/share/sbom/echo.cdx.json"], `"value": "3"`) && !strings.Contains(got["usr/share/sbom/echo.cdx.json"], `"value":"3"`) {
		t.Errorf("lib is %q, bill %s", got["usr/bin/lib"], got["usr/share/sbom/echo.cdx.json"])
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	m := newMirror(t)
	m.offer(t, [3]string{"tool", "1", ""}, [3]string{"echo", "2", ""})
	for name, c := range map[string]struct{ recipe, want string }{
		"unknown package": {strings.ReplaceAll(imageRecipe, "[echo]", "[ecko]"), "Unable to locate package ecko"},
		"unknown base":    {strings.Replace(imageRecipe, "from: base", "from: bass", 1), "bass.yaml: no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, recipe := site(t, baseRecipe, c.recipe)
			b, err := images.NewBuilder(images.Options{Root: dir, Bases: filepath.Join(dir, "bases"), Work: t.TempDir(), Apt: m.apt})
			must(t, err)
			if _, err = b.Build(context.Background(), recipe, t.TempDir()); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
	t.Run("stale lock", func(t *testing.T) {
		dir, recipe := site(t, baseRecipe, imageRecipe)
		build(t, m, dir, recipe, t.TempDir())
		must(t, os.WriteFile(recipe, []byte(strings.Replace(imageRecipe, "[echo]", "[echo, tool]", 1)), 0o644))
		b, err := images.NewBuilder(images.Options{Root: dir, Bases: filepath.Join(dir, "bases"), Work: t.TempDir(), Apt: m.apt})
		must(t, err)
		if _, err = b.Build(context.Background(), recipe, t.TempDir()); err == nil || !strings.Contains(err.Error(), "-update-locks") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("another file than the locked one", func(t *testing.T) {
		dir, recipe := site(t, baseRecipe, imageRecipe)
		build(t, m, dir, recipe, t.TempDir())
		file := filepath.Join(dir, "image.lock.json")
		b, err := os.ReadFile(file)
		must(t, err)
		at := bytes.Index(b, []byte(`"sha256": "`)) + len(`"sha256": "`)
		copy(b[at:], "0000")
		must(t, os.WriteFile(file, b, 0o644))
		builder, err := images.NewBuilder(images.Options{Root: dir, Bases: filepath.Join(dir, "bases"), Work: t.TempDir(), Apt: m.apt})
		must(t, err)
		if _, err = builder.Build(context.Background(), recipe, t.TempDir()); err == nil || !strings.Contains(err.Error(), "the lock says 0000") {
			t.Errorf("got %v", err)
		}
	})
}
