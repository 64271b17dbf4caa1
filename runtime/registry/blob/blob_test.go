package blob_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	digest "github.com/opencontainers/go-digest"

	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/registry/blob"
)

func open(t *testing.T, dir, beside string) *blob.Store {
	t.Helper()
	s, err := blob.Open(dir, beside)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// What was cut off is no blob, and nothing of it is left after a restart.
func TestCutOff(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, "")
	u, err := s.Begin()
	if err != nil {
		t.Fatal(err)
	}
	d := digest.FromString("one two")
	if _, err := u.Append(t.Context(), strings.NewReader("one ")); err != nil {
		t.Fatal(err)
	}
	if _, err := u.AppendAt(t.Context(), 5, strings.NewReader("two")); !fault.Is(err, fault.Conflict) {
		t.Errorf("at another place: %v", err)
	}
	if s.Has(d) {
		t.Error("half a blob is there")
	}
	s = open(t, dir, "")
	if _, err := s.Upload(u.ID); !fault.Is(err, fault.NotFound) {
		t.Errorf("after a restart: %v", err)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "uploads")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestDigests(t *testing.T) {
	s := open(t, t.TempDir(), "")
	text := []byte("text")
	if err := s.Put(t.Context(), digest.FromString("another"), bytes.NewReader(text)); !fault.Is(err, fault.Invalid) {
		t.Errorf("another text: %v", err)
	}
	for _, d := range []digest.Digest{"", "sha256:..", "sha256:../../../../etc/passwd", digest.Digest("sha512:" + strings.Repeat("0", 128))} {
		if err := s.Put(t.Context(), d, bytes.NewReader(text)); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", d, err)
		}
		if s.Has(d) || s.Use(d) || s.Own(d) {
			t.Errorf("%q is there", d)
		}
	}
	var all sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		all.Go(func() { errs[i] = s.Put(t.Context(), digest.FromBytes(text), bytes.NewReader(text)) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil || !s.Has(digest.FromBytes(text)) {
		t.Error(err)
	}
}

// A blob that is about to be named stays, however old it is.
func TestSweepLeavesWhatIsUsed(t *testing.T) {
	s := open(t, t.TempDir(), "")
	var all []digest.Digest
	for _, text := range []string{"named", "used", "old"} {
		if err := s.Put(t.Context(), digest.FromString(text), strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
		all = append(all, digest.FromString(text))
	}
	time.Sleep(20 * time.Millisecond) // the file system's clock is coarse
	old := time.Now()
	time.Sleep(20 * time.Millisecond)
	if !s.Use(all[1]) {
		t.Fatal("it is not there")
	}
	swept, err := s.Sweep(t.Context(), func(d digest.Digest) bool { return d == all[0] }, old, old)
	if err != nil || swept.Blobs != 1 || swept.Bytes != 3 || !s.Has(all[0]) || !s.Has(all[1]) || s.Has(all[2]) {
		t.Errorf("%+v, %v", swept, err)
	}
}

// Blobs beside are read where they are, and links outlive them.
func TestBeside(t *testing.T) {
	beside := t.TempDir()
	one, two := digest.FromString("one"), digest.FromString("two")
	for d, text := range map[digest.Digest]string{one: "one", two: "two"} {
		if err := os.WriteFile(filepath.Join(beside, d.Encoded()), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, t.TempDir(), beside)
	if !s.Has(one) || s.Own(one) {
		t.Error("it is not read beside")
	}
	if err := s.Link(one, filepath.Join(beside, one.Encoded())); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(beside); err != nil {
		t.Fatal(err)
	}
	if !s.Own(one) || !s.Has(one) || s.Has(two) {
		t.Error("the link is gone, or the other is not")
	}
	if err := s.Link(two, filepath.Join(beside, two.Encoded())); !fault.Is(err, fault.NotFound) {
		t.Errorf("a link to nothing: %v", err)
	}
}
