// Package files gives read access to sandboxes and logs by virtual paths, over
// the /files endpoints of Mesos and, through List and Read, the operator API.
// A virtual path reaches nothing outside the directory it is attached to,
// whatever links a task made in its sandbox.
package files

import (
	"cmp"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/user"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"dcos.example/dcos/runtime/fault"
)

// MaxRead is the longest piece that one read returns.
const MaxRead = 16 * 4096

// Info is one file of a listing.
type Info struct {
	Path  string
	Nlink uint64
	Size  int64
	Mtime time.Time
	Mode  fs.FileMode
	UID   string // user's name, or number when it has none
	GID   string
}

// Tree maps virtual paths to real files and directories.
type Tree struct {
	mu    sync.RWMutex
	roots map[string]string
}

// New returns an empty tree.
func New() *Tree { return &Tree{roots: make(map[string]string)} }

// Attach makes the file or directory real, and all below it, reachable as
// virtual.
func (t *Tree) Attach(virtual, real string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.roots[path.Clean("/"+virtual)] = real
}

// Detach takes away a virtual path.
func (t *Tree) Detach(virtual string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.roots, path.Clean("/"+virtual))
}

// Roots returns the virtual paths with what they stand for.
func (t *Tree) Roots() map[string]string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return maps.Clone(t.roots)
}

// open opens what a virtual path stands for. The longest attached prefix wins.
func (t *Tree) open(op, virtual string) (*os.File, error) {
	if virtual == "" {
		return nil, fault.Newf(op, fault.Invalid, "expecting 'path=value' in query")
	}
	clean := path.Clean("/" + virtual)
	t.mu.RLock()
	prefix := clean
	real, ok := t.roots[prefix]
	for !ok && prefix != "/" {
		prefix = path.Dir(prefix)
		real, ok = t.roots[prefix]
	}
	t.mu.RUnlock()
	if !ok {
		return nil, fault.Newf(op, fault.NotFound, "%s: no such file", virtual)
	}
	rest := strings.TrimPrefix(strings.TrimPrefix(clean, prefix), "/")
	f, err := openBelow(real, rest)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fault.Newf(op, fault.NotFound, "%s: no such file", virtual)
	case err != nil:
		return nil, fault.Newf(op, fault.Denied, "%s: %w", virtual, err)
	}
	return f, nil
}

// openBelow opens without waiting: a task may have put a pipe in its sandbox.
func openBelow(real, rest string) (*os.File, error) {
	if rest == "" {
		return os.OpenFile(real, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	}
	root, err := os.OpenRoot(real)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return root.OpenFile(rest, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

// List returns what is in a directory, by name; of a file, itself.
func (t *Tree) List(virtual string) ([]Info, error) {
	const op = "list files"
	f, err := t.open(op, virtual)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	base := strings.TrimSuffix(virtual, "/")
	if !fi.IsDir() {
		return []Info{info(base, fi)}, nil
	}
	entries, err := f.Readdir(-1)
	if err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	slices.SortFunc(entries, func(a, b fs.FileInfo) int { return cmp.Compare(a.Name(), b.Name()) })
	out := make([]Info, 0, len(entries))
	for _, e := range entries {
		out = append(out, info(base+"/"+e.Name(), e))
	}
	return out, nil
}

func info(p string, fi fs.FileInfo) Info {
	i := Info{Path: p, Nlink: 1, Size: fi.Size(), Mtime: fi.ModTime(), Mode: fi.Mode()}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		i.Nlink = uint64(st.Nlink)
		i.UID, i.GID = userName(st.Uid), groupName(st.Gid)
	}
	return i
}

func userName(id uint32) string {
	n := strconv.FormatUint(uint64(id), 10)
	if u, err := user.LookupId(n); err == nil {
		return u.Username
	}
	return n
}

func groupName(id uint32) string {
	n := strconv.FormatUint(uint64(id), 10)
	if g, err := user.LookupGroupId(n); err == nil {
		return g.Name
	}
	return n
}

// Read returns up to length bytes from offset, at most MaxRead, and the file's
// size. A negative length means to the end.
func (t *Tree) Read(virtual string, offset, length int64) (data []byte, size int64, err error) {
	const op = "read file"
	f, err := t.Open(virtual)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, 0, fault.New(op, fault.Internal, err)
	}
	size = fi.Size()
	if length < 0 || length > MaxRead {
		length = MaxRead
	}
	length = max(0, min(length, size-offset))
	buf := make([]byte, length)
	n, err := f.ReadAt(buf, offset)
	if err != nil && err != io.EOF {
		return nil, 0, fault.New(op, fault.Internal, err)
	}
	return buf[:n], size, nil
}

// Open opens a regular file.
func (t *Tree) Open(virtual string) (*os.File, error) {
	const op = "read file"
	f, err := t.open(op, virtual)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fault.Newf(op, fault.Invalid, "%s is not a regular file", virtual)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
