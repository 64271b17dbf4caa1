// Package host is the installer's hands on a machine: run a command, read and
// write files, start and stop units, bring a release there. A machine is
// whatever Host is implemented for: a local host, reached through its dcos-init
// and its view of the file system; any machine that one can log into
// (host/ssh); one in memory (host/emulated).
//
// Every change of a machine goes through this interface. What is written, and
// where, is listed in docs/hosts.md.
package host

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"dcos.example/dcos/installer/bundle"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
)

// Host is one machine. Errors name it.
type Host interface {
	Files
	Units
	Batch
	// Run runs a program to its end. Its failure is in Output, not an error.
	Run(ctx context.Context, argv ...string) (Output, error)
	// Stage brings a share of the release unpacked in dir, on this machine, to
	// ReleasePath there. A release that is staged already is left alone.
	Stage(ctx context.Context, dir string, s bundle.Share) error
}

// Files are the files of a machine. Paths are absolute.
type Files interface {
	// ReadFile returns a file; fault.NotFound when there is none.
	ReadFile(ctx context.Context, path string) (File, error)
	// WriteFile replaces a file at once, or not at all; directories are made.
	WriteFile(ctx context.Context, path string, f File) error
	// Remove removes a file, link or directory with all that is in it. One
	// that is gone is fine.
	Remove(ctx context.Context, path string) error
	// ReadLink returns where a link points; fault.NotFound when there is none.
	ReadLink(ctx context.Context, path string) (string, error)
	// Link makes path a link to target at once, or not at all.
	Link(ctx context.Context, path, target string) error
}

// Batch does many things in one round trip.
type Batch interface {
	// Look reads all that q asks for. What is not there is not in the answer.
	Look(ctx context.Context, q Query) (View, error)
	// Change makes changes in their order, each at once or not at all, and ends
	// at the first that cannot be made. When it is over the machine's init knows
	// of changed unit files.
	Change(ctx context.Context, changes ...Change) error
}

// Query says what to look at.
type Query struct {
	Files   []string // what they are
	Content []string // what they are, and what is in them
	Dirs    []string // the names in them
	Units   []string // without their logs
}

// View is what a machine has.
type View struct {
	Files map[string]Entry
	Dirs  map[string][]string // names, sorted
	Units map[string]Unit
}

// Entry is what is at a path. Of a link it tells the link alone; of anything
// else that is no regular file it has only the mode.
type Entry struct {
	File          // Data only when asked for
	SHA256 string // of the content, in hex; "" when it is no regular file
}

// Change is one change of a machine's files: what is to be at a path, nothing
// if File is nil. Directories are made, and removed with what is in them.
type Change struct {
	Path string
	File *File
}

// Put is a Change after which f is at path.
func Put(path string, f File) Change { return Change{Path: path, File: &f} }

// Gone is a Change after which nothing is at path.
func Gone(path string) Change { return Change{Path: path} }

// Quote makes a word of the shell out of any text.
func Quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// Units are the units of a machine.
type Units interface {
	// StartUnit starts a unit; the error quotes the end of its log.
	StartUnit(ctx context.Context, name string) error
	// StopUnit stops a unit. One that is not there is fine.
	StopUnit(ctx context.Context, name string) error
	// EnableUnit makes a unit start at boot, or no longer.
	EnableUnit(ctx context.Context, name string, on bool) error
	// UnitStatus returns what a unit does, with up to tail bytes of its log;
	// fault.NotFound when there is none.
	UnitStatus(ctx context.Context, name string, tail int) (Unit, error)
}

// File is a regular file, or a symbolic link.
type File struct {
	Data     []byte
	Mode     fs.FileMode // permission bits
	UID, GID int         // whose it is, 0 is root
	Link     string      // where it leads; then it has no data, mode or owner of its own
}

// Output is what a program left.
type Output struct {
	Code           int // 128 + signal when killed
	Stdout, Stderr string
	Noise          string // what the login wrote by itself before the program began
}

// Unit is the state of a unit.
type Unit struct {
	Active   bool
	State    string // in the words of the machine's init
	Since    time.Time
	Restarts int    // by its Restart= rule
	LastExit string // how it ended last, "" if it never did
	Log      string
}

// Alive reports whether the unit runs, or will by itself: starting it would not
// start it anew.
func (u Unit) Alive() bool { return u.State != "" && u.State != "inactive" && u.State != "failed" }

// ReleasePath is where a release lies on every host.
func ReleasePath(release string) string { return filepath.Join(config.ReleaseDir, release) }

// Switch is the change that makes the staged release the one that units run at
// their next start.
func Switch(release string) Change {
	// Relative, so that it means the same seen from outside the host.
	rel, err := filepath.Rel(filepath.Dir(config.CurrentLink), ReleasePath(release))
	if err != nil { // both are constants but for a name
		panic("switch to " + release + ": " + err.Error())
	}
	return Put(config.CurrentLink, File{Link: rel})
}

// Current returns the name of the release that is switched to, "" when none is.
func Current(ctx context.Context, f Files) (string, error) {
	target, err := f.ReadLink(ctx, config.CurrentLink)
	if fault.Is(err, fault.NotFound) {
		return "", nil
	}
	return filepath.Base(target), err
}

// ErrOther is wrapped by the error of an Opener that found another machine
// than the one whose key the reference names.
var ErrOther = errors.New("another machine answers")

// Opener reaches a host: fault.NotFound when there is no such host,
// fault.Unavailable when it is down or does not answer, fault.Denied when it
// does not let us in. What it holds open ends with whoever made it.
type Opener func(ctx context.Context, ref Ref) (Host, error)

// Kinds reaches hosts of several kinds.
type Kinds map[Kind]Opener

// Open is an Opener.
func (k Kinds) Open(ctx context.Context, ref Ref) (Host, error) {
	open := k[ref.Kind]
	if open == nil {
		return nil, fault.Newf("reach host "+ref.Name, fault.Invalid, "no way to reach hosts of kind %q", ref.Kind)
	}
	return open(ctx, ref)
}
