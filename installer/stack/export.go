package stack

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"

	"dcos.example/dcos/runtime/fault"
)

// keepPrefix begins the names of the files that Keep writes.
const keepPrefix = "kept-"

// Keep remembers m under name beside the state, across operations and after
// everything was destroyed. Secrets in it are encrypted like those of the state.
func (s *Stack) Keep(name string, m resource.PropertyMap) error {
	op := "keep " + name
	enc, err := s.secrets.encodeMap(m)
	if err != nil {
		return fault.New(op, fault.KindOf(err), err)
	}
	b, err := json.MarshalIndent(enc, "", " ")
	if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	if err := s.writeFile(keepPrefix+name+".json", append(b, '\n')); err != nil {
		return fault.New(op, fault.Denied, err)
	}
	return nil
}

// Kept returns what Keep was given last; nil if it never was.
func (s *Stack) Kept(name string) (resource.PropertyMap, error) {
	op := "read what was kept of " + name
	b, err := s.readFile(keepPrefix + name + ".json")
	if b == nil || err != nil {
		if err != nil {
			err = fault.New(op, fault.Denied, err)
		}
		return nil, err
	}
	var enc map[string]any
	if err := json.Unmarshal(b, &enc); err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	m, err := s.secrets.decodeMap(enc)
	if err != nil {
		return nil, fault.New(op, fault.KindOf(err), err)
	}
	return m, nil
}

// portable reports whether a file of the directory belongs to what Export
// returns: everything but the lock, older states and what is half written. The
// journal is there while an operation runs, and after a crash.
func portable(name string) bool {
	fixed := []string{stateFile, journalFile, identityFile, keyFile, historyFile}
	return slices.Contains(fixed, name) || strings.HasPrefix(name, keepPrefix) && strings.HasSuffix(name, ".json")
}

// Export returns the files of the stack, by name, and those of extra that are
// there. With them, and the passphrase if it has one, another machine goes on
// where this one stopped. They hold every secret of the cluster.
func (s *Stack) Export(extra ...string) (map[string][]byte, error) {
	const op = "export the stack"
	es, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fault.New(op, fault.Denied, err)
	}
	out := map[string][]byte{}
	for _, e := range es {
		if !portable(e.Name()) && !slices.Contains(extra, e.Name()) {
			continue
		}
		b, err := os.ReadFile(filepath.Join(s.dir, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fault.New(op, fault.Denied, err)
		}
		out[e.Name()] = b
	}
	return out, nil
}

// Import makes the directory of a stack from what Export returned. The directory
// must be empty, or not there. The files of extra are taken too; others are
// refused.
func Import(dir string, files map[string][]byte, extra ...string) error {
	const op = "import the stack"
	if es, err := os.ReadDir(dir); err == nil && len(es) > 0 {
		return fault.Newf(op, fault.Exists, "%s is not empty", dir)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.New(op, fault.Denied, err)
	}
	for _, must := range []string{identityFile, stateFile} {
		if _, ok := files[must]; !ok {
			return fault.Newf(op, fault.Invalid, "there is no %s in it", must)
		}
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return fault.New(op, fault.Denied, err)
	}
	// Made beside it and moved there whole.
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".import-*")
	if err != nil {
		return fault.New(op, fault.Denied, err)
	}
	defer os.RemoveAll(tmp) // nothing is there after the rename
	for name, b := range files {
		if !portable(name) && !slices.Contains(extra, name) {
			return fault.Newf(op, fault.Invalid, "%q is no file of a stack", name)
		}
		if err := os.WriteFile(filepath.Join(tmp, name), b, 0o600); err != nil {
			return fault.New(op, fault.Denied, err)
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.New(op, fault.Denied, err)
	}
	if err := os.Rename(tmp, dir); err != nil {
		return fault.New(op, fault.Denied, err)
	}
	return syncDir(filepath.Dir(dir))
}
