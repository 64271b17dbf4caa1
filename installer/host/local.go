package host

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"dcos.example/dcos/installer/bundle"
	"dcos.example/dcos/providers/local/control"
	"dcos.example/dcos/providers/local/simhost"
	"dcos.example/dcos/runtime/fault"
)

// local is a host made by providers/local. Units and programs go through its
// dcos-init; files are reached through /proc/PID/root, where no link can lead
// out of the host's own tree.
type local struct {
	ref Ref
	ctl control.Client
}

// OpenLocal is the Opener of hosts that providers/local made.
func OpenLocal(_ context.Context, ref Ref) (Host, error) {
	st, err := simhost.At(ref.Dir)
	if err != nil {
		return nil, fault.New("reach host "+ref.Name, fault.KindOf(err), err)
	}
	if !st.Running {
		return nil, fault.Newf("reach host "+ref.Name, fault.Unavailable, "it is down; the next apply starts it")
	}
	return &local{ref, control.Client{Dir: ref.Dir}}, nil
}

func (l *local) op(format string, args ...any) string {
	return "host " + l.ref.Name + ": " + fmt.Sprintf(format, args...)
}

func (l *local) fail(err error, format string, args ...any) error {
	op := l.op(format, args...)
	// The path in it is ours; that of the host is in op.
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		err = p.Err
	}
	switch {
	case errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT):
		return fault.New(op, fault.Exhausted, fmt.Errorf("%w (%s)", err, l.space()))
	case errors.Is(err, fs.ErrNotExist):
		return fault.New(op, fault.NotFound, err)
	default:
		return fault.New(op, fault.KindOf(err), err)
	}
}

// asked is fail for what the host was asked to do. Its answer, and the client
// that carried the question, name host and operation again; once is enough.
func (l *local) asked(err error, format string, args ...any) error {
	kind, what := fault.KindOf(err), fmt.Sprintf(format, args...)
	if f, ok := err.(*fault.Error); ok && f.Err != nil {
		err = f.Err
	}
	if text, again := strings.CutPrefix(err.Error(), what+": "); again {
		err = errors.New(text)
	}
	return fault.New(l.op("%s", what), kind, err)
}

// space says how much room the host has left, and whether it is the machine's
// disk beneath that is full.
func (l *local) space() string {
	text := "free space of the host: unknown"
	if root, err := l.root(); err == nil {
		var st unix.Statfs_t
		if unix.Fstatfs(int(root.Fd()), &st) == nil {
			text = fmt.Sprintf("%d of %d MiB free on the host", int64(st.Bavail)*st.Bsize>>20, int64(st.Blocks)*st.Bsize>>20)
		}
		root.Close()
	}
	if free, err := (simhost.Machine{Dir: l.ref.Dir}).Free(); err == nil {
		text += fmt.Sprintf(", %d MiB on the machine's disk below it", free>>20)
	}
	return text
}

// root opens the host's root directory.
func (l *local) root() (*os.File, error) {
	st, err := simhost.At(l.ref.Dir)
	if err != nil {
		return nil, err
	}
	if !st.Running {
		return nil, fault.New("open root", fault.Unavailable, errors.New("the host is down"))
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/root", st.PID))
	if err != nil {
		return nil, err
	}
	// Only now is it certain that the id was still the host's.
	if again, err := simhost.At(l.ref.Dir); err != nil || again.Boot != st.Boot || !again.Running {
		f.Close()
		return nil, fault.New("open root", fault.Unavailable, errors.New("the host went down"))
	}
	return f, nil
}

// tree is root for changes.
func (l *local) tree(ctx context.Context) (*os.Root, error) {
	if err := stopped(ctx); err != nil {
		return nil, err
	}
	f, err := l.root()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
}

// open opens a path for reading as a process on the host would.
func (l *local) open(ctx context.Context, path string) (*os.File, error) {
	return l.openAs(ctx, path, unix.O_RDONLY|unix.O_NONBLOCK)
}

func (l *local) openAs(ctx context.Context, path string, flags uint64) (*os.File, error) {
	if err := stopped(ctx); err != nil {
		return nil, err
	}
	root, err := l.root()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	fd, err := unix.Openat2(int(root.Fd()), path, &unix.OpenHow{
		Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// stopped is the error of a call whose context has ended.
func stopped(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return fault.New("go on", fault.Unavailable, context.Cause(ctx))
}

func inside(path string) string { return strings.TrimPrefix(filepath.Clean(path), "/") }

func (l *local) ReadFile(ctx context.Context, path string) (File, error) {
	f, err := l.open(ctx, path)
	if err != nil {
		return File{}, l.fail(err, "read %s", path)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return File{}, l.fail(err, "read %s", path)
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return File{}, l.fail(err, "read %s", path)
	}
	return File{Data: b, Mode: st.Mode().Perm()}, nil
}

func (l *local) WriteFile(ctx context.Context, path string, f File) error {
	if f.Link != "" {
		return l.Link(ctx, path, f.Link)
	}
	t, err := l.tree(ctx)
	if err != nil {
		return l.fail(err, "write %s", path)
	}
	defer t.Close()
	if err := replace(t, inside(path), f); err != nil {
		return l.fail(err, "write %s", path)
	}
	return nil
}

func replace(t *os.Root, path string, f File) error {
	if err := t.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	out, err := t.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = out.Write(f.Data)
	if err = errors.Join(err, out.Chown(f.UID, f.GID), out.Chmod(f.Mode.Perm()), out.Close()); err == nil {
		err = t.Rename(tmp, path)
	}
	if err != nil {
		t.Remove(tmp)
	}
	return err
}

func (l *local) Remove(ctx context.Context, path string) error {
	t, err := l.tree(ctx)
	if err != nil {
		return l.fail(err, "remove %s", path)
	}
	defer t.Close()
	if err := t.RemoveAll(inside(path)); err != nil {
		return l.fail(err, "remove %s", path)
	}
	return nil
}

func (l *local) ReadLink(ctx context.Context, path string) (string, error) {
	t, err := l.tree(ctx)
	if err != nil {
		return "", l.fail(err, "read link %s", path)
	}
	defer t.Close()
	target, err := t.Readlink(inside(path))
	if err != nil {
		return "", l.fail(err, "read link %s", path)
	}
	return target, nil
}

func (l *local) Link(ctx context.Context, path, target string) error {
	t, err := l.tree(ctx)
	if err != nil {
		return l.fail(err, "link %s", path)
	}
	defer t.Close()
	if err := relink(t, inside(path), target); err != nil {
		return l.fail(err, "link %s to %s", path, target)
	}
	return nil
}

func relink(t *os.Root, path, target string) error {
	if err := t.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err := t.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := t.Symlink(target, tmp); err != nil {
		return err
	}
	return t.Rename(tmp, path)
}

// Look asks for one thing after another: nothing is far away.
func (l *local) Look(ctx context.Context, q Query) (View, error) {
	v := View{Files: map[string]Entry{}, Dirs: map[string][]string{}, Units: map[string]Unit{}}
	for i, path := range slices.Concat(q.Files, q.Content) {
		e, err := l.entry(ctx, path, i >= len(q.Files))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			continue
		}
		if err != nil {
			return v, l.fail(err, "look at %s", path)
		}
		v.Files[path] = e
	}
	for _, dir := range q.Dirs {
		names, err := l.names(ctx, dir)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			continue
		}
		if err != nil {
			return v, l.fail(err, "look into %s", dir)
		}
		v.Dirs[dir] = names
	}
	for _, u := range q.Units {
		st, err := l.UnitStatus(ctx, u, 0)
		if fault.Is(err, fault.NotFound) || fault.Is(err, fault.Invalid) { // no such unit, or none that can be read
			continue
		}
		if err != nil {
			return v, err
		}
		v.Units[u] = st
	}
	return v, nil
}

// entry tells what is at path, without following a link that it may be.
func (l *local) entry(ctx context.Context, path string, content bool) (e Entry, err error) {
	f, err := l.openAs(ctx, path, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return e, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return e, err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		to := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(int(f.Fd()), "", to)
		return Entry{File: File{Link: string(to[:max(n, 0)])}}, err
	case unix.S_IFREG:
	default:
		return Entry{File: File{Mode: fs.FileMode(st.Mode & 0o777), UID: int(st.Uid), GID: int(st.Gid)}}, nil
	}
	e.Mode, e.UID, e.GID = fs.FileMode(st.Mode&0o777), int(st.Uid), int(st.Gid)
	b, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	sum := sha256.Sum256(b)
	e.SHA256 = hex.EncodeToString(sum[:])
	if content {
		e.Data = b
	}
	return e, err
}

func (l *local) names(ctx context.Context, dir string) ([]string, error) {
	f, err := l.openAs(ctx, dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

// Change makes one change after another. dcos-init reads units when it starts
// them, so it need not be told.
func (l *local) Change(ctx context.Context, changes ...Change) error {
	for _, c := range changes {
		var err error
		if c.File == nil {
			err = l.Remove(ctx, c.Path)
		} else {
			err = l.WriteFile(ctx, c.Path, *c.File)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *local) Run(ctx context.Context, argv ...string) (Output, error) {
	resp, err := l.ctl.Do(ctx, control.Request{Op: control.OpExec, Argv: argv})
	if err != nil {
		return Output{}, l.asked(err, "run %s", argv[0])
	}
	e := resp.Exec
	return Output{Code: e.Code, Stdout: string(e.Stdout), Stderr: string(e.Stderr)}, nil
}

func (l *local) unit(ctx context.Context, op control.Op, name string) error {
	if _, err := l.ctl.Do(ctx, control.Request{Op: op, Unit: name}); err != nil {
		return l.asked(err, "%s %s", op, name)
	}
	return nil
}

func (l *local) StartUnit(ctx context.Context, name string) error {
	return l.unit(ctx, control.OpStart, name)
}

func (l *local) StopUnit(ctx context.Context, name string) error {
	return l.unit(ctx, control.OpStop, name)
}

func (l *local) EnableUnit(ctx context.Context, name string, on bool) error {
	if on {
		return l.unit(ctx, control.OpEnable, name)
	}
	return l.unit(ctx, control.OpDisable, name)
}

func (l *local) UnitStatus(ctx context.Context, name string, tail int) (Unit, error) {
	resp, err := l.ctl.Do(ctx, control.Request{Op: control.OpStatus, Unit: name, Tail: tail})
	if err != nil {
		return Unit{}, l.asked(err, "look at %s", name)
	}
	if len(resp.Units) != 1 {
		return Unit{}, fault.Newf(l.op("look at %s", name), fault.Internal, "%d units in the answer", len(resp.Units))
	}
	u := resp.Units[0]
	return Unit{Active: u.State == "active", State: u.State, Since: u.Since, Restarts: u.Restarts, LastExit: u.LastExit, Log: u.Log}, nil
}

// Stage links to the release on the machine where the host sees that same
// directory: hosts then share its files, on disk and in memory. Otherwise it
// copies.
func (l *local) Stage(ctx context.Context, dir string, s bundle.Share) error {
	at := ReleasePath(s.Release)
	if f, err := l.open(ctx, at+"/"+bundle.ManifestName); err == nil {
		return f.Close() // staged: links and copies appear whole
	} else if !errors.Is(err, fs.ErrNotExist) {
		return l.fail(err, "stage release %s", s.Release)
	}
	if l.sees(ctx, filepath.Join(dir, bundle.ManifestName)) {
		return l.Link(ctx, at, dir)
	}
	t, err := l.tree(ctx)
	if err != nil {
		return l.fail(err, "stage release %s", s.Release)
	}
	defer t.Close()
	if err := copyRelease(ctx, t, inside(at), dir, s); err != nil {
		return l.fail(err, "stage release %s", s.Release)
	}
	return nil
}

// sees reports whether path names the same file here and on the host.
func (l *local) sees(ctx context.Context, path string) bool {
	here, err := os.Stat(path)
	if err != nil {
		return false
	}
	f, err := l.open(ctx, path)
	if err != nil {
		return false
	}
	defer f.Close()
	there, err := f.Stat()
	return err == nil && os.SameFile(here, there)
}

func copyRelease(ctx context.Context, t *os.Root, at, dir string, s bundle.Share) error {
	tmp := at + ".new"
	if err := t.RemoveAll(tmp); err != nil {
		return err
	}
	defer t.RemoveAll(tmp) // nothing after the rename
	files := append([]bundle.File{{Path: bundle.ManifestName, Mode: 0o644}}, s.Files...)
	for _, f := range files {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		path := filepath.FromSlash(f.Path)
		if err := t.MkdirAll(filepath.Dir(filepath.Join(tmp, path)), 0o755); err != nil {
			return err
		}
		if err := copyFile(t, filepath.Join(tmp, path), filepath.Join(dir, path), f.Mode); err != nil {
			return err
		}
	}
	return t.Rename(tmp, at)
}

func copyFile(t *os.Root, to, from string, mode fs.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := t.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode.Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
