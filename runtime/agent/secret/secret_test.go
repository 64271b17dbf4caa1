package secret_test

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"dcos.example/dcos/runtime/agent/secret"
)

func TestSecrets(t *testing.T) {
	// Memory that is there already needs no mount, which would take root.
	dir, err := os.MkdirTemp("/dev/shm", "dct-secret-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || st.Type != unix.TMPFS_MAGIC {
		t.Fatalf("/dev/shm is no tmpfs: %v", err)
	}
	s := secret.Store{Dir: filepath.Join(dir, "secrets")}
	if ids, err := s.Containers(); err != nil || len(ids) != 0 {
		t.Errorf("at first: %v, %v", ids, err)
	}
	if _, err := s.Write("c1", [][]byte{[]byte("old"), []byte("older")}); err != nil {
		t.Fatal(err)
	}
	files, err := s.Write("c1", [][]byte{[]byte("new"), {}})
	if err != nil || len(files) != 2 {
		t.Fatalf("%v, %v", files, err)
	}
	if b, err := os.ReadFile(files[0]); string(b) != "new" {
		t.Errorf("%q, %v", b, err)
	}
	for name, mode := range map[string]os.FileMode{files[0]: 0o440, filepath.Dir(files[0]): 0o700, s.Dir: 0o700} {
		if fi, err := os.Stat(name); err != nil || fi.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", name, fi.Mode(), err)
		}
	}
	if ids, err := s.Containers(); err != nil || len(ids) != 1 || ids[0] != "c1" {
		t.Errorf("%v, %v", ids, err)
	}
	for range 2 {
		if err := s.Remove("c1"); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(files[0]); err == nil {
		t.Error("the secret outlives its container")
	}
}
