package repo

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"dcos.example/dcos/runtime/fault"
)

// A repository is kept in two files: <name>.json, which is Kept, and
// <name>-<sha256>, which is what came. The first is replaced last, so that a
// stop at any moment leaves the former state or the new one.

func (s *Store) base(uri string) string {
	sum := sha256.Sum256([]byte(uri))
	return filepath.Join(s.dir, hex.EncodeToString(sum[:16]))
}

func (s *Store) keep(file string, k Kept) error {
	const op = "keep repository"
	base := s.base(k.URI)
	if err := os.Rename(file, base+"-"+k.SHA256); err != nil {
		return fault.New(op, fault.Internal, err)
	}
	text, err := json.Marshal(k)
	if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	tmp, err := os.CreateTemp(s.dir, "fetch-*")
	if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(text)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return fault.New(op, fault.Internal, err)
	}
	if err := os.Rename(tmp.Name(), base+".json"); err != nil {
		return fault.New(op, fault.Internal, err)
	}
	return s.drop(base, base+".json", base+"-"+k.SHA256)
}

// drop removes the files of a repository except some.
func (s *Store) drop(base string, except ...string) error {
	files, err := filepath.Glob(base + "*")
	if err != nil {
		return fault.New("drop repository", fault.Internal, err)
	}
	for _, f := range files {
		if slices.Contains(except, f) {
			continue
		}
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fault.New("drop repository", fault.Internal, err)
		}
	}
	return nil
}

// Load returns what is kept of a repository; fault.NotFound if nothing is, or
// nothing whole.
func (s *Store) Load(uri string) (*Content, error) {
	const op = "load repository"
	base := s.base(uri)
	text, err := os.ReadFile(base + ".json")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(op, fault.NotFound, ErrNothing)
	} else if err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	var k Kept
	if err := json.Unmarshal(text, &k); err != nil || k.URI != uri {
		return nil, fault.Newf(op, fault.NotFound, "%s.json is damaged", base)
	}
	f, err := os.Open(base + "-" + filepath.Base(k.SHA256))
	if err != nil {
		return nil, fault.New(op, fault.NotFound, err)
	}
	defer f.Close()
	sum := sha256.New()
	if n, err := io.Copy(sum, f); err != nil || n != k.Size || hex.EncodeToString(sum.Sum(nil)) != k.SHA256 {
		return nil, fault.Newf(op, fault.NotFound, "%s is damaged", f.Name())
	}
	return open(f, k)
}

// Drop removes what is kept of a repository.
func (s *Store) Drop(uri string) error { return s.drop(s.base(uri)) }

// Retain removes what is kept of all other repositories.
func (s *Store) Retain(uris []string) error {
	var bases []string
	for _, u := range uris {
		bases = append(bases, filepath.Base(s.base(u)))
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fault.New("drop repositories", fault.Internal, err)
	}
	for _, e := range entries {
		base, _, _ := strings.Cut(strings.TrimSuffix(e.Name(), ".json"), "-")
		if base == "fetch" || slices.Contains(bases, base) {
			continue
		}
		if err := os.Remove(filepath.Join(s.dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fault.New("drop repositories", fault.Internal, err)
		}
	}
	return nil
}
