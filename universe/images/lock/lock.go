// Package lock is image.lock.json: what a recipe resolved to, so that the next
// build takes the same.
package lock

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
)

// File is the content of a lock.
type File struct {
	Debian *Debian `json:"debian,omitempty"`
	Maven  []Maven `json:"maven,omitempty"` // in the recipe's order
	PyPI   *PyPI   `json:"pypi,omitempty"`
	NPM    *NPM    `json:"npm,omitempty"`
	Go     []Go    `json:"go,omitempty"`
}

// Debian is a closure of packages, without those of the bases below.
type Debian struct {
	Request  []string `json:"request"`
	Packages []Deb    `json:"packages"`
}

// Deb is one Debian package.
type Deb struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Arch    string `json:"arch"`
	SHA256  string `json:"sha256"`
	Size    int64  `json:"size"`
}

// Maven is a closure of artifacts.
type Maven struct {
	Request   []string `json:"request"`
	Artifacts []Jar    `json:"artifacts"`
}

// Jar is one file of Maven's.
type Jar struct {
	Group      string `json:"group"`
	Artifact   string `json:"artifact"`
	Version    string `json:"version"`
	Type       string `json:"type,omitempty"` // empty: jar
	Classifier string `json:"classifier,omitempty"`
	SHA256     string `json:"sha256"`
}

// Ext returns the file's ending.
func (j Jar) Ext() string {
	if j.Type == "" || j.Type == "test-jar" || j.Type == "bundle" {
		return "jar"
	}
	return j.Type
}

// Base returns the file's name in Maven's repositories.
func (j Jar) Base() string {
	name := j.Artifact + "-" + j.Version
	if j.Classifier != "" {
		name += "-" + j.Classifier
	}
	return name + "." + j.Ext()
}

func (j Jar) String() string {
	s := j.Group + ":" + j.Artifact + ":" + j.Ext()
	if j.Classifier != "" {
		s += ":" + j.Classifier
	}
	return s + ":" + j.Version
}

// PyPI is a closure of wheels and source archives.
type PyPI struct {
	Request []string `json:"request"`
	Files   []Wheel  `json:"files"`
}

// Wheel is one file of the Python package index.
type Wheel struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	File    string `json:"file"`
	SHA256  string `json:"sha256"`
}

// NPM is npm's own lock.
type NPM struct {
	Request []string        `json:"request"`
	Lock    json.RawMessage `json:"lock"`
}

// Go is a module with the sum that its checksum database vouches for.
type Go struct {
	Module string `json:"module"` // module@version
	Sum    string `json:"sum"`
}

// Read reads a lock; one that is not there is nil.
func Read(file string) (*File, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var f File
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return &f, nil
}

// Write writes the lock, if it holds anything.
func (f *File) Write(file string) error {
	if f.Debian == nil && f.Maven == nil && f.PyPI == nil && f.NPM == nil && f.Go == nil {
		if err := os.Remove(file); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	b, err := json.MarshalIndent(f, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}

// Stale is a lock that was made for another request than the recipe's.
type Stale struct {
	Lock, Part       string
	Added, NotWanted []string
}

func (s *Stale) Error() string {
	return fmt.Sprintf("%s is not of this recipe: %s asks also for %q and no longer for %q; resolve again with -update-locks", s.Lock, s.Part, s.Added, s.NotWanted)
}

// Same tells whether a lock was made for this request.
func Same(file, part string, locked, wanted []string) error {
	if slices.Equal(locked, wanted) {
		return nil
	}
	return &Stale{Lock: file, Part: part, Added: without(wanted, locked), NotWanted: without(locked, wanted)}
}

func without(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
}
