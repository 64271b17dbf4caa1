package bundle_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dcos.example/dcos/installer/bundle"
	"dcos.example/dcos/runtime/fault"
)

func release(t *testing.T) string {
	dir := t.TempDir()
	for path, text := range map[string]string{"bin/dcosd": strings.Repeat("program", 100000), "images/a.tar": "image"} {
		file := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func write(t *testing.T, dir string) (string, bundle.Manifest) {
	var buf bytes.Buffer
	m, err := bundle.Write(&buf, dir, "1.2.3", map[string]string{"runc": "1.5.2"})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "x.bundle")
	if err := os.WriteFile(file, buf.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, m
}

func TestSameFilesGiveSameBytes(t *testing.T) {
	dir := release(t)
	a, _ := write(t, dir)
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(filepath.Join(dir, "bin/dcosd"), later, later); err != nil {
		t.Fatal(err)
	}
	b, _ := write(t, dir)
	x, _ := os.ReadFile(a)
	y, _ := os.ReadFile(b)
	if len(x) == 0 || !bytes.Equal(x, y) {
		t.Error("two bundles of the same files differ")
	}
}

func TestUnpackVerifiesAndIsIdempotent(t *testing.T) {
	file, want := write(t, release(t))
	cache := t.TempDir()
	for range 2 {
		dir, m, err := bundle.Unpack(file, cache)
		if err != nil {
			t.Fatal(err)
		}
		if m.Digest() != want.Digest() || filepath.Base(dir) != want.Release() {
			t.Errorf("unpacked %s to %s, want %s", m.Digest(), dir, want.Release())
		}
		info, err := os.Stat(filepath.Join(dir, "bin/dcosd"))
		if err != nil || info.Mode().Perm() != 0o755 || info.Size() != 700000 {
			t.Errorf("bin/dcosd: %v, %v", info, err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(cache, ".unpack-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestDamagedBundlesAreRefused(t *testing.T) {
	file, _ := write(t, release(t))
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{
		"cut short":   good[:len(good)-20],
		"not a tar":   []byte("hello"),
		"a bit moved": append(append([]byte{}, good[:len(good)/2]...), append([]byte{good[len(good)/2] ^ 1}, good[len(good)/2+1:]...)...),
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(file, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			cache := t.TempDir()
			if _, _, err := bundle.Unpack(file, cache); !fault.Is(err, fault.Invalid) {
				t.Errorf("got %v, want invalid", err)
			}
			if left, _ := os.ReadDir(cache); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
	if _, err := bundle.ReadManifest(file + ".none"); !fault.Is(err, fault.NotFound) {
		t.Errorf("got %v, want not found", err)
	}
}
