// Package store keeps what was downloaded, by its SHA-256.
package store

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Store is a folder of files named by content. Several processes may use one.
type Store struct{ dir string }

// New returns the store in dir, which is made when needed.
func New(dir string) (*Store, error) {
	return &Store{dir}, os.MkdirAll(dir, 0o755)
}

// Path returns where the file with this sum lies, or would.
func (s *Store) Path(sum string) string { return filepath.Join(s.dir, sum) }

// Has tells whether the file with this sum is there.
func (s *Store) Has(sum string) bool {
	_, err := os.Stat(s.Path(sum))
	return err == nil
}

// Mismatch is a file that is not what a lock says.
type Mismatch struct{ What, Want, Got string }

func (m *Mismatch) Error() string {
	return fmt.Sprintf("%s has SHA-256 %s, and the lock says %s: the registry, or something on the way to it, gave another file than before. Look into why; only if the new one is right, resolve again with -update-locks", m.What, m.Got, m.Want)
}

// Take moves file into the store, and returns its sum. With a wanted sum,
// another one is a *Mismatch.
func (s *Store) Take(file, what, want string) (string, error) {
	got, err := Sum(file)
	if err != nil {
		return "", err
	}
	if want != "" && got != want {
		return got, &Mismatch{what, want, got}
	}
	// A link, so that whoever downloaded it finds it again.
	if err := os.Link(file, s.Path(got)); err != nil && !s.Has(got) {
		return got, s.copy(file, got)
	}
	return got, nil
}

func (s *Store) copy(file, sum string) error {
	in, err := os.Open(file)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.CreateTemp(s.dir, ".new-")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	if err := out.Close(); err != nil {
		return err
	}
	return os.Rename(out.Name(), s.Path(sum))
}

// Sum returns a file's SHA-256 in hexadecimal.
func Sum(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
