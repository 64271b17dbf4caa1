package unpack_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dcos.example/dcos/installer/host/unpack"
)

// release writes files with their manifest and returns its digest.
func release(t *testing.T, files map[string]string) (dir, digest string) {
	dir = t.TempDir()
	type entry struct {
		Path   string      `json:"path"`
		Mode   fs.FileMode `json:"mode"`
		Size   int         `json:"size"`
		SHA256 string      `json:"sha256"`
	}
	var m struct {
		Files []entry `json:"files"`
	}
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256([]byte(text))
		m.Files = append(m.Files, entry{name, 0o755, len(text), hex.EncodeToString(sum[:])})
	}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, unpack.Manifest), b, 0o644); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	return dir, hex.EncodeToString(sum[:])
}

func TestStream(t *testing.T) {
	big := strings.Repeat("0123456789", 100_000)
	files := map[string]string{"bin/a": "one", "bin/b": big, "share/x/y": ""}
	dir, digest := release(t, files)
	var all, some bytes.Buffer
	if err := unpack.Pack(&all, dir, []string{"bin/a", "bin/b", "share/x/y"}); err != nil {
		t.Fatal(err)
	}
	if err := unpack.Pack(&some, dir, []string{"bin/a", "share/x/y"}); err != nil {
		t.Fatal(err)
	}
	if all.Len() > len(big)/10 {
		t.Errorf("%d bytes are sent", all.Len())
	}
	to := t.TempDir()
	check := func() {
		t.Helper()
		for name, text := range files {
			b, err := os.ReadFile(filepath.Join(to, name))
			st, serr := os.Stat(filepath.Join(to, name))
			if err != nil || serr != nil || string(b) != text || st.Mode().Perm() != 0o755 {
				t.Errorf("%s: %d bytes, %v, %v", name, len(b), err, serr)
			}
		}
	}
	if err := unpack.Into(to, digest, bytes.NewReader(all.Bytes())); err != nil {
		t.Fatal(err)
	}
	check()
	// Half of it is there.
	if err := os.Remove(filepath.Join(to, "bin/a")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(to, "bin/b"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unpack.Into(to, digest, bytes.NewReader(some.Bytes())); err != nil {
		t.Fatal(err)
	}
	check()
	// A host that is to do without some.
	without := t.TempDir()
	if err := unpack.Into(without, digest, bytes.NewReader(some.Bytes()), "bin/b"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(without, "bin/b")); !os.IsNotExist(err) {
		t.Errorf("it is there: %v", err)
	}
	if err := unpack.Into(t.TempDir(), digest, bytes.NewReader(some.Bytes()), "share/"); err == nil {
		t.Error("a file is missing that nobody is to do without")
	}
	// What is there is damaged: it is removed, so that it is sent next time.
	if err := os.WriteFile(filepath.Join(to, "bin/b"), []byte("bad"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unpack.Into(to, digest, bytes.NewReader(some.Bytes())); err == nil || !strings.Contains(err.Error(), "bin/b, of an older release or an earlier attempt, is damaged") {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(to, "bin/b")); !os.IsNotExist(err) {
		t.Error("it is still there")
	}
	if err := unpack.Into(t.TempDir(), strings.Repeat("0", 64), bytes.NewReader(all.Bytes())); err == nil || !strings.Contains(err.Error(), "digest") {
		t.Error(err)
	}
}

// A stream cut off anywhere is an error, and no file that is there is wrong.
func TestStreamIsCutOff(t *testing.T) {
	files := map[string]string{"bin/a": strings.Repeat("one", 1000), "bin/b": strings.Repeat("two", 1000)}
	dir, digest := release(t, files)
	var all bytes.Buffer
	if err := unpack.Pack(&all, dir, []string{"bin/a", "bin/b"}); err != nil {
		t.Fatal(err)
	}
	for n := range all.Len() {
		to := t.TempDir()
		if err := unpack.Into(to, digest, bytes.NewReader(all.Bytes()[:n])); err == nil {
			// The end of the archive is blocks of nothing: without it all is there.
			for name := range files {
				if _, err := os.Stat(filepath.Join(to, name)); err != nil {
					t.Fatalf("%d of %d bytes: taken without %s", n, all.Len(), name)
				}
			}
		}
		for name, text := range files {
			if b, err := os.ReadFile(filepath.Join(to, name)); err == nil && string(b) != text {
				t.Fatalf("%d bytes: %s is wrong", n, name)
			}
		}
	}
}
