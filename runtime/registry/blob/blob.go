// Package blob keeps the registry's blobs on a master's disk, by their digest.
//
// A blob is there whole or not at all: it is written beside, compared with its
// digest while that happens, brought to the disk, and renamed. Blobs that the
// release holds are linked from it, not copied, and where that cannot be they
// are read in its place. Methods may be called at the same time.
package blob

import (
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"
	digest "github.com/opencontainers/go-digest"

	"dcos.example/dcos/runtime/fault"
)

// Store is the blobs in one directory.
type Store struct {
	dir string
	// beside is a folder of the release with blobs by the hex of their digest.
	beside string

	// using is held by those for whom a blob that is there must stay, until
	// its time is set; Sweep holds it alone.
	using sync.RWMutex

	mu      sync.Mutex
	uploads map[string]*Upload
}

// Open returns the store in dir, which is made if it is not there. Uploads
// that were under way when the process ended are gone. Blobs in the directory
// beside, which may come and go, are read there.
func Open(dir, beside string) (*Store, error) {
	const op = "open the registry's blobs"
	s := &Store{dir: dir, beside: beside, uploads: map[string]*Upload{}}
	if err := os.RemoveAll(s.partial()); err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	for _, d := range []string{s.blobs(), s.partial()} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fault.New(op, fault.Internal, err)
		}
	}
	return s, nil
}

func (s *Store) blobs() string   { return filepath.Join(s.dir, "blobs", "sha256") }
func (s *Store) partial() string { return filepath.Join(s.dir, "uploads") }

func (s *Store) path(d digest.Digest) string {
	hex := d.Encoded()
	return filepath.Join(s.blobs(), hex[:2], hex)
}

// Check refuses digests that this store does not know: it has SHA-256 only.
func Check(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return fault.New("read digest "+string(d), fault.Invalid, err)
	}
	if d.Algorithm() != digest.SHA256 {
		return fault.Newf("read digest "+string(d), fault.Invalid, "only sha256 is known here")
	}
	return nil
}

// Size returns the size of a blob, or fault.NotFound.
func (s *Store) Size(d digest.Digest) (int64, error) {
	f, size, err := s.Open(d)
	if err != nil {
		return 0, err
	}
	return size, f.Close()
}

// Has reports whether a blob is there.
func (s *Store) Has(d digest.Digest) bool {
	_, err := s.Size(d)
	return err == nil
}

// Open returns a blob and its size, or fault.NotFound.
func (s *Store) Open(d digest.Digest) (*os.File, int64, error) {
	op := "open blob " + string(d)
	if err := Check(d); err != nil {
		return nil, 0, err
	}
	f, err := os.Open(s.path(d))
	if errors.Is(err, fs.ErrNotExist) && s.beside != "" {
		f, err = os.Open(filepath.Join(s.beside, d.Encoded()))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, fault.New(op, fault.NotFound, err)
	}
	if err != nil {
		return nil, 0, fault.New(op, fault.Internal, err)
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, fault.New(op, fault.Internal, err)
	}
	return f, st.Size(), nil
}

// Use is Has for who is going to name the blob in a manifest: Sweep then leaves
// it alone for as long as if it had just been written.
func (s *Store) Use(d digest.Digest) bool {
	if Check(d) != nil {
		return false
	}
	s.using.RLock()
	defer s.using.RUnlock()
	now := time.Now()
	err := os.Chtimes(s.path(d), now, now)
	return err == nil || s.Has(d)
}

// Put writes a blob that r has, and returns once it is on the disk. Another
// content than d says is fault.Invalid. A blob that is there is left as it is.
func (s *Store) Put(ctx context.Context, d digest.Digest, r io.Reader) error {
	if err := Check(d); err != nil {
		return err
	}
	if s.Use(d) {
		return nil
	}
	u, err := s.Begin()
	if err != nil {
		return err
	}
	defer u.Cancel()
	if _, err := u.Append(ctx, r); err != nil {
		return err
	}
	return u.Finish(d)
}

// Link makes the file at path, which holds blob d and will not be written to
// again, a blob of the store. Without links between the two file systems it is
// fault.Unavailable.
func (s *Store) Link(d digest.Digest, path string) error {
	op := "link blob " + string(d)
	if err := Check(d); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(s.path(d)), 0o700); err != nil {
		return fault.New(op, fault.Internal, err)
	}
	s.using.RLock()
	defer s.using.RUnlock()
	err := os.Link(path, s.path(d))
	switch {
	case err == nil, errors.Is(err, fs.ErrExist):
		now := time.Now()
		if err := os.Chtimes(s.path(d), now, now); err != nil {
			return fault.New(op, fault.Internal, err)
		}
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return fault.New(op, fault.NotFound, err)
	}
	return fault.New(op, fault.Unavailable, err)
}

// Own reports whether a blob is in the store's own directory, not only beside.
func (s *Store) Own(d digest.Digest) bool {
	if Check(d) != nil {
		return false
	}
	_, err := os.Stat(s.path(d))
	return err == nil
}

// Begin starts an upload.
func (s *Store) Begin() (*Upload, error) {
	u := &Upload{ID: uuid.NewString(), s: s, sum: sha256.New(), touched: time.Now()}
	f, err := os.OpenFile(filepath.Join(s.partial(), u.ID), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, failed("begin upload", err)
	}
	u.file = f
	s.mu.Lock()
	s.uploads[u.ID] = u
	s.mu.Unlock()
	return u, nil
}

// Upload returns the upload of that id, or fault.NotFound.
func (s *Store) Upload(id string) (*Upload, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.uploads[id]
	if u == nil {
		return nil, fault.Newf("look for upload "+id, fault.NotFound, "it is not known to this master; begin again")
	}
	return u, nil
}

// Upload is a blob that comes in pieces.
type Upload struct {
	ID string
	s  *Store

	mu      sync.Mutex // one piece at a time
	file    *os.File   // nil when it is over
	sum     hash.Hash
	size    int64
	touched time.Time
}

// Size is how much has come.
func (u *Upload) Size() int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.size
}

// Append adds what r has and returns the size. What came before r broke off
// stays.
func (u *Upload) Append(ctx context.Context, r io.Reader) (int64, error) {
	return u.append(ctx, -1, r)
}

// AppendAt is Append when size bytes have come, and fault.Conflict otherwise.
func (u *Upload) AppendAt(ctx context.Context, size int64, r io.Reader) (int64, error) {
	return u.append(ctx, size, r)
}

func (u *Upload) append(ctx context.Context, at int64, r io.Reader) (int64, error) {
	op := "write upload " + u.ID
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.file == nil {
		return u.size, fault.Newf(op, fault.NotFound, "it is over")
	}
	if at >= 0 && at != u.size {
		return u.size, fault.Newf(op, fault.Conflict, "%d bytes have come, not %d", u.size, at)
	}
	n, err := io.Copy(u.file, io.TeeReader(reader{ctx, r}, u.sum))
	u.size += n
	u.touched = time.Now()
	if _, werr := errors.AsType[*fs.PathError](err); werr { // the disk's, not r's: the sum is ahead of the file
		u.end()
		return u.size, failed(op, err)
	}
	if err != nil {
		return u.size, fault.New(op, fault.Unavailable, err)
	}
	return u.size, nil
}

// reader ends with its context.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(p)
}

// Finish makes what has come blob d; if it is not, that is fault.Invalid and
// the upload is over.
func (u *Upload) Finish(d digest.Digest) error {
	op := "finish upload " + u.ID
	if err := Check(d); err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.file == nil {
		return fault.Newf(op, fault.NotFound, "it is over")
	}
	defer u.end()
	if got := digest.NewDigest(digest.SHA256, u.sum); got != d {
		return fault.Newf(op, fault.Invalid, "%d bytes came with digest %s, not %s", u.size, got, d)
	}
	if err := errors.Join(u.file.Chmod(0o600), u.file.Sync()); err != nil {
		return failed(op, err)
	}
	to := u.s.path(d)
	u.s.using.RLock() // Sweep would find an old blob of that digest
	defer u.s.using.RUnlock()
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return failed(op, err)
	}
	if err := os.Rename(u.file.Name(), to); err != nil {
		return failed(op, err)
	}
	if err := syncDir(filepath.Dir(to)); err != nil {
		return failed(op, err)
	}
	return nil
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Cancel forgets an upload. One that is finished stays a blob.
func (u *Upload) Cancel() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.end()
}

func (u *Upload) end() {
	if u.file == nil {
		return
	}
	_ = os.Remove(u.file.Name()) // it is a blob now, or Open removes it
	_ = u.file.Close()           // what counts was synced
	u.file = nil
	u.s.mu.Lock()
	delete(u.s.uploads, u.ID)
	u.s.mu.Unlock()
}

// failed gives an error of the disk its kind.
func failed(op string, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fault.New(op, fault.Exhausted, err)
	}
	return fault.New(op, fault.Internal, err)
}

// Swept is what Sweep removed.
type Swept struct {
	Blobs, Uploads int
	Bytes          int64
}

// Sweep removes blobs that keep does not want and that were last used before
// old, and uploads without a piece since stale. keep is asked while nobody can
// begin to use a blob. It grows with the number of blobs.
func (s *Store) Sweep(ctx context.Context, keep func(digest.Digest) bool, old, stale time.Time) (Swept, error) {
	const op = "sweep the registry's blobs"
	var out Swept
	s.mu.Lock()
	var idle []*Upload
	for _, u := range s.uploads {
		idle = append(idle, u)
	}
	s.mu.Unlock()
	for _, u := range idle {
		if u.mu.TryLock() { // one that is locked is at work
			if u.file != nil && u.touched.Before(stale) {
				u.end()
				out.Uploads++
			}
			u.mu.Unlock()
		}
	}
	err := s.each(func(path string, d digest.Digest) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		size, gone, err := s.sweep(path, d, keep, old)
		if gone {
			out.Blobs++
			out.Bytes += size
		}
		return err
	})
	if err != nil {
		return out, fault.New(op, fault.Internal, err)
	}
	return out, nil
}

func (s *Store) sweep(path string, d digest.Digest, keep func(digest.Digest) bool, old time.Time) (int64, bool, error) {
	s.using.Lock()
	defer s.using.Unlock()
	st, err := os.Stat(path)
	if err != nil || keep(d) || !st.ModTime().Before(old) {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return 0, false, err
	}
	return st.Size(), true, os.Remove(path)
}

// each calls f for every blob in the store's own directory.
func (s *Store) each(f func(path string, d digest.Digest) error) error {
	return filepath.WalkDir(s.blobs(), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		return f(path, digest.NewDigestFromEncoded(digest.SHA256, e.Name()))
	})
}
