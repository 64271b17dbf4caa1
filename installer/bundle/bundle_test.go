package bundle_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dcos.example/dcos/installer/bundle"
	"dcos.example/dcos/installer/bundle/sbom"
	"dcos.example/dcos/runtime/fault"
)

func release(t *testing.T) string {
	dir := t.TempDir()
	for path, text := range map[string]string{"bin/dcosd": strings.Repeat("program", 100000), "cni/bridge": "bridge", "sbom.cdx.json": bill(t)} {
		put(t, filepath.Join(dir, path), text)
	}
	layoutTar(t, filepath.Join(dir, "images/hello.tar"), "docker.io/dcos/hello:0.1", "hello")
	return dir
}

func put(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

func bill(t *testing.T) string {
	d := sbom.New("1.2.3")
	d.Image("docker.io/dcos/hello:0.1", "images/hello.tar", "00")
	var b bytes.Buffer
	if err := d.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func newKey(t *testing.T) bundle.Key {
	k, err := bundle.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func write(t *testing.T, dir string, key *bundle.Key) (string, bundle.Manifest) {
	var buf bytes.Buffer
	m, err := bundle.Write(&buf, bundle.Contents{Dir: dir, Version: "1.2.3", Components: map[string]string{"runc": "1.5.2"}, Formats: map[string]int{"state": 1}}, key)
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
	dir, key := release(t), newKey(t)
	a, _ := write(t, dir, &key)
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(filepath.Join(dir, "bin/dcosd"), later, later); err != nil {
		t.Fatal(err)
	}
	b, _ := write(t, dir, &key)
	x, _ := os.ReadFile(a)
	y, _ := os.ReadFile(b)
	if len(x) == 0 || !bytes.Equal(x, y) {
		t.Error("two bundles of the same files differ")
	}
}

func TestUnpackVerifiesAndIsIdempotent(t *testing.T) {
	key := newKey(t)
	file, want := write(t, release(t), &key)
	cache := t.TempDir()
	for range 2 {
		dir, m, err := bundle.Unpack(file, cache, bundle.TrustKey(key.Public()))
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
	// What lies unpacked does not make up for a missing signature.
	if _, _, err := bundle.Unpack(file, cache, bundle.Trust{}); !fault.Is(err, fault.Denied) {
		t.Errorf("unpacked before, not trusted: %v", err)
	}
}

func TestDamagedBundlesAreRefused(t *testing.T) {
	key := newKey(t)
	trust := bundle.TrustKey(key.Public())
	file, _ := write(t, release(t), &key)
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
			if _, _, err := bundle.Unpack(file, cache, trust); !fault.Is(err, fault.Invalid) {
				t.Errorf("got %v, want invalid", err)
			}
			if left, _ := os.ReadDir(cache); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
			if _, _, err := bundle.Verify(file, trust); !fault.Is(err, fault.Invalid) {
				t.Errorf("verify: %v, want invalid", err)
			}
		})
	}
	if _, err := bundle.ReadManifest(file+".none", trust); !fault.Is(err, fault.NotFound) {
		t.Errorf("got %v, want not found", err)
	}
}
