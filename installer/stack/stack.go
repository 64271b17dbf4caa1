// Package stack keeps what an installer run must remember between runs and
// across crashes: the state of every resource, the journal of the operation
// under way, the lock, the history and the key that encrypts secrets. All of it
// lives in one directory that only its owner can read.
//
//	state.json     the resources as of the last finished operation
//	journal        what the running (or killed) operation did since
//	lock           held by the running operation; says by whom
//	history.jsonl  one line per operation
//	stack.json     the name, and how secrets are encrypted: by key or passphrase
//	key            the key file (absent with a passphrase)
//	backup/        the last states before state.json
//
// # Journal and state
//
// An operation never changes state.json while it runs. It appends entries to
// the journal, each with a checksum, and waits until they are on the disk; many
// that arrive together share one fsync. The state in memory is the fold of the
// entries over state.json, so what a crash leaves can be folded again by the
// next process. When the operation ends, the state is written to a new file
// that replaces state.json, and the journal is removed. The first entry names
// the serial of the state it builds on: a journal that outlived its state
// (crash between the two) is recognised as already folded.
//
// Memory and the time to load or commit grow linearly with the resources; the
// journal grows with the changes of one operation.
package stack

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"

	"dcos.example/dcos/runtime/fault"
)

const (
	stateFile    = "state.json"
	journalFile  = "journal"
	lockFile     = "lock"
	historyFile  = "history.jsonl"
	identityFile = "stack.json"
	keyFile      = "key"
	backupDir    = "backup"

	keepBackups = 10
)

// Options for Open.
type Options struct {
	// Name of the stack. It is part of every URN and cannot change. Empty means
	// the name it has, or for a new stack that of the directory.
	Name string
	// Passphrase encrypts the secrets of a new stack and opens those of an
	// existing one. Empty: a new stack generates a key file.
	Passphrase string
	// Logger receives warnings; nil discards them.
	Logger *slog.Logger
	// Observe, when set, is called at every point where a crash could leave
	// something half done, with a name for the point. Crash tests use it.
	Observe func(point string)
}

// Stack is an open stack directory. Several processes may have it open; one at
// a time has an Operation.
type Stack struct {
	dir     string
	name    string
	log     *slog.Logger
	observe func(string)
	secrets *secrets
}

var nameRule = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}$`)

// Open opens the stack in dir, and makes the directory when there is none.
func Open(dir string, o Options) (*Stack, error) {
	const op = "open stack"
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fault.New(op, fault.Invalid, err)
	}
	name := o.Name
	if name == "" {
		name = filepath.Base(dir)
	}
	if !nameRule.MatchString(name) {
		return nil, fault.Newf(op, fault.Invalid,
			"%q is not a stack name: letters, digits, dot, dash and underscore, at most 63, first a letter or digit", name)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fault.New(op, fault.Invalid, err)
	}
	// The directory may have been there before, with the mode of its maker.
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fault.New(op, fault.Denied, err)
	}
	doc, err := openIdentity(dir, name, o.Passphrase)
	if err != nil {
		return nil, err
	}
	if o.Name != "" && o.Name != doc.Name {
		return nil, fault.Newf(op, fault.Invalid, "%s holds the stack %q, not %q", dir, doc.Name, o.Name)
	}
	s := &Stack{dir: dir, name: doc.Name, log: o.Logger, observe: o.Observe}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.observe == nil {
		s.observe = func(string) {}
	}
	if s.secrets, err = newSecrets(dir, doc, o.Passphrase, s.log); err != nil {
		return nil, err
	}
	return s, nil
}

// Name of the stack.
func (s *Stack) Name() string { return s.name }

// Dir is the absolute path of the stack's directory.
func (s *Stack) Dir() string { return s.dir }

func (s *Stack) path(name string) string { return filepath.Join(s.dir, name) }

// writeFile replaces name with b so that after a crash either the old or the
// new content is there, whole.
func (s *Stack) writeFile(name string, b []byte) error {
	f, err := os.CreateTemp(s.dir, ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // a no-op after the rename
	_, err = f.Write(b)
	s.observe("file written " + name)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	s.observe("file synced " + name)
	if err := os.Rename(f.Name(), s.path(name)); err != nil {
		return err
	}
	s.observe("file renamed " + name)
	return syncDir(s.dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// readFile returns nil, nil for a file that does not exist.
func (s *Stack) readFile(name string) ([]byte, error) {
	b, err := os.ReadFile(s.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}
