// Package repo brings the content of repositories here and keeps the last good
// one on disk. Repositories are strangers: what they send is bounded in size
// and time, checked whole before any of it is used, and refused whole.
package repo

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/klauspost/compress/gzip"

	"dcos.example/dcos/runtime/api/cosmos"
	"dcos.example/dcos/runtime/catalog/index"
	"dcos.example/dcos/runtime/fault"
)

// Reasons why a repository is not taken, for errors.Is.
var (
	ErrUnreachable = errors.New("it cannot be read")
	ErrType        = errors.New("it is no repository")
	ErrContent     = errors.New("its content is refused")
)

// refusal is a reason with what exactly is wrong, which is what it says.
type refusal struct{ reason, err error }

func (r *refusal) Error() string        { return r.err.Error() }
func (r *refusal) Is(target error) bool { return target == r.reason }
func (r *refusal) Unwrap() error        { return r.err }

// ErrNothing is a repository of which nothing is kept.
var ErrNothing = errors.New("nothing is kept of it")

// Kept is what is known of a content besides its revisions.
type Kept struct {
	URI     string    `json:"uri"`
	Fetched time.Time `json:"fetched"`
	Type    string    `json:"type"`   // media type
	Gzip    bool      `json:"gzip"`   // whether the file is compressed
	SHA256  string    `json:"sha256"` // of the file
	Size    int64     `json:"size"`   // of the file
	// For asking whether there is something newer.
	ETag         string `json:"etag,omitempty"`
	LastModified string `json:"lastModified,omitempty"`
}

// Content is one state of a repository.
type Content struct {
	Kept
	Revisions []index.Revision
}

// Store fetches repositories and keeps them in a directory, which no one else
// uses. Its methods may be called at once for different repositories.
type Store struct {
	dir    string
	client *http.Client
	agent  string
}

// Patience is how long a repository may take to come whole.
const Patience = 60 * time.Second

// New returns a store in dir, which is made. Via is the way to repositories;
// release is told to them.
func New(dir string, via http.RoundTripper, release string) (*Store, error) {
	const op = "open the folder of repositories"
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	stale, err := filepath.Glob(filepath.Join(dir, "fetch-*"))
	if err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	for _, f := range stale {
		if err := os.Remove(f); err != nil {
			return nil, fault.New(op, fault.Internal, err)
		}
	}
	return &Store{
		dir: dir, agent: "cosmos/0.6.3 dcos/" + release,
		client: &http.Client{Transport: via, Timeout: Patience, CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) >= 5 {
				return errors.New("it redirects more than 5 times")
			}
			if s := r.URL.Scheme; s != "http" && s != "https" {
				return fmt.Errorf("it redirects, and nobody fetches %s from there", s)
			}
			return nil
		}},
	}, nil
}

// Check reports whether a URI is one that can be fetched: fault.Invalid if it
// is no URI, fault.Denied if nobody fetches such.
func Check(uri string) error {
	_, err := parse(uri)
	return err
}

func parse(uri string) (*url.URL, error) {
	const op = "read URI"
	u, err := url.Parse(uri)
	if err != nil {
		var e *url.Error
		if errors.As(err, &e) {
			err = e.Err
		}
		return nil, fault.New(op, fault.Invalid, err)
	}
	switch u.Scheme {
	case "http", "https":
		if u.Host == "" {
			return nil, fault.Newf(op, fault.Invalid, "it names no host")
		}
	case "file":
		if u.Host != "" && u.Host != "localhost" || !filepath.IsAbs(u.Path) {
			return nil, fault.Newf(op, fault.Invalid, "it names no absolute path on this host")
		}
	case "":
		return nil, fault.Newf(op, fault.Invalid, "it has no scheme")
	default:
		return nil, fault.Newf(op, fault.Denied, "nobody fetches %s", u.Scheme)
	}
	return u, nil
}

// Fetch brings a repository here if it is another than have, which may be nil;
// otherwise it returns have. What it brings is kept.
func (s *Store) Fetch(ctx context.Context, uri string, have *Content) (*Content, error) {
	u, err := parse(uri)
	if err != nil {
		return nil, err
	}
	tmp, err := os.CreateTemp(s.dir, "fetch-*")
	if err != nil {
		return nil, fault.New("fetch repository", fault.Internal, err)
	}
	defer func() {
		tmp.Close()
		os.Remove(tmp.Name()) // or it was renamed
	}()
	var kept *Kept
	if u.Scheme == "file" {
		kept, err = s.copy(u.Path, have, tmp)
	} else {
		kept, err = s.download(ctx, uri, have, tmp)
	}
	if err != nil {
		return nil, err
	}
	if kept == nil {
		return have, nil
	}
	kept.URI, kept.Fetched = uri, time.Now().UTC().Truncate(time.Second)
	content, err := open(tmp, *kept)
	if err != nil {
		return nil, err
	}
	if err := tmp.Sync(); err != nil {
		return nil, fault.New("keep repository", fault.Internal, err)
	}
	return content, s.keep(tmp.Name(), content.Kept)
}

func unreachable(format string, args ...any) error {
	return fault.New("fetch repository", fault.Unavailable, &refusal{ErrUnreachable, fmt.Errorf(format, args...)})
}

func wrongType(format string, args ...any) error {
	return fault.New("fetch repository", fault.Invalid, &refusal{ErrType, fmt.Errorf(format, args...)})
}

func refused(format string, args ...any) error {
	return fault.New("read repository", fault.Invalid, &refusal{ErrContent, fmt.Errorf(format, args...)})
}

// accepted are the types asked for, the newest first.
var accepted = strings.Join([]string{
	cosmos.RepositoryType(5), cosmos.RepositoryType(4), cosmos.RepositoryType(3), cosmos.TypeRepositoryZip + ";q=0.5", "application/json;q=0.1",
}, ", ")

// download fills file. It returns nil if have is what there is.
func (s *Store) download(ctx context.Context, uri string, have *Content, file *os.File) (*Kept, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, uri, nil)
	if err != nil {
		return nil, fault.New("fetch repository", fault.Invalid, err)
	}
	req.Header.Set("Accept", accepted)
	req.Header.Set("Accept-Encoding", "gzip") // so that nobody unpacks without counting
	req.Header.Set("User-Agent", s.agent)
	if have != nil {
		if have.ETag != "" {
			req.Header.Set("If-None-Match", have.ETag)
		}
		if have.LastModified != "" {
			req.Header.Set("If-Modified-Since", have.LastModified)
		}
	}
	resp, err := s.client.Do(req)
	if err != nil {
		var e *url.Error
		if errors.As(err, &e) {
			if e.Timeout() {
				return nil, unreachable("it did not answer within %v", Patience)
			}
			err = e.Err
		}
		return nil, unreachable("%w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotModified && have != nil {
		return nil, nil
	}
	if resp.StatusCode != http.StatusOK {
		return nil, unreachable("it answers with status %d", resp.StatusCode)
	}
	k := &Kept{Type: resp.Header.Get("Content-Type"), ETag: resp.Header.Get("ETag"), LastModified: resp.Header.Get("Last-Modified")}
	if _, err := versionOf(k.Type); err != nil {
		return nil, err
	}
	switch enc := resp.Header.Get("Content-Encoding"); enc {
	case "", "identity":
	case "gzip", "x-gzip":
		k.Gzip = true
	default:
		return nil, wrongType("its encoding is %q", enc)
	}
	if resp.ContentLength > maxWire {
		return nil, refused("it is %d bytes long, and at most %d are taken", resp.ContentLength, maxWire)
	}
	return k, k.fill(file, resp.Body)
}

// fill writes r to file, and what it was to k.
func (k *Kept) fill(file *os.File, r io.Reader) error {
	sum := sha256.New()
	over := limit(r, maxWire, "it is longer than %d bytes", maxWire)
	n, err := io.Copy(io.MultiWriter(file, sum), over)
	if err != nil {
		var timeout interface{ Timeout() bool }
		switch {
		case errors.Is(err, over.err):
			return refused("%w", err)
		case errors.As(err, &timeout) && timeout.Timeout():
			return unreachable("it did not come whole within %v: %d bytes came", Patience, n)
		}
		return unreachable("%w", err)
	}
	k.Size, k.SHA256 = n, hex.EncodeToString(sum.Sum(nil))
	return nil
}

// copy fills file from path. It returns nil if have is what is there.
func (s *Store) copy(path string, have *Content, file *os.File) (*Kept, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, unreachable("%w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, unreachable("%s is no file", path)
	}
	k := &Kept{LastModified: info.ModTime().UTC().Format(time.RFC3339Nano), ETag: identity(info)}
	if have != nil && have.LastModified == k.LastModified && have.ETag == k.ETag {
		return nil, nil
	}
	if info.Size() > maxWire {
		return nil, refused("it is %d bytes long, and at most %d are taken", info.Size(), maxWire)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, unreachable("%w", err)
	}
	defer f.Close()
	r := bufio.NewReader(f)
	head, err := r.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, unreachable("%w", err)
	}
	k.Type, k.Gzip = cosmos.RepositoryType(5), isGzip(head)
	if isZip(head) {
		k.Type = cosmos.TypeRepositoryZip
	}
	return k, k.fill(file, r)
}

// identity tells a file from what it was and from others in its place. Files of
// a release all have the same time; when they were put there they have not.
func identity(info os.FileInfo) string {
	id := strconv.FormatInt(info.Size(), 10)
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		id += fmt.Sprintf("-%d-%d.%d", st.Ino, st.Ctim.Sec, st.Ctim.Nsec)
	}
	return id
}

// versionOf returns which repository a media type is of: 2 to 5. Plain JSON may
// be any of 3 to 5.
func versionOf(mediaType string) (int, error) {
	kind, params, err := mime.ParseMediaType(mediaType)
	if err != nil {
		return 0, wrongType("its type %q is none", mediaType)
	}
	switch kind {
	case cosmos.TypeRepositoryZip:
		return 2, nil
	case "application/json":
		return 5, nil
	case cosmos.TypeRepository:
		switch params["version"] {
		case "v3", "v4", "v5":
			return int(params["version"][1] - '0'), nil
		}
	}
	return 0, wrongType("its type is %q, and repositories are of type %s with version v3, v4 or v5, or %s", mediaType, cosmos.TypeRepository, cosmos.TypeRepositoryZip)
}

// open reads a file from its beginning.
func open(f *os.File, k Kept) (*Content, error) {
	version, err := versionOf(k.Type)
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, fault.New("read repository", fault.Internal, err)
	}
	c := &Content{Kept: k}
	if version == 2 {
		if k.Gzip {
			return nil, refused("it is a zip archive within gzip")
		}
		if c.Revisions, err = decodeZip(f, k.Size); err != nil {
			return nil, refused("%w", err)
		}
		return c, nil
	}
	var r io.Reader = bufio.NewReaderSize(f, 64<<10)
	if k.Gzip {
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, refused("it is not compressed as it says: %w", err)
		}
		r = z
	}
	if c.Revisions, err = decodeJSON(r, version); err != nil {
		return nil, refused("%w", err)
	}
	return c, nil
}
