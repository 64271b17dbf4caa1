// Package fetch brings the files a task names into its sandbox: copies or
// downloads them, unpacks archives and marks programs executable. Nothing is
// ever written outside the sandbox, whatever names an archive or a link holds.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/fault"
)

// StallTimeout is how long a download may bring nothing before it fails.
const StallTimeout = time.Minute

// Fetcher fetches for many tasks at once.
type Fetcher struct {
	// Client downloads http and https URIs; nil means a client without
	// credentials that follows redirects.
	Client *http.Client
	// Stall is how long a download may bring nothing; zero means StallTimeout.
	Stall time.Duration
}

// Owner is who owns the fetched files, and with whose rights files of the host
// are read.
type Owner struct{ UID, GID int }

// Fetch brings uris to sandbox one after another, as an archive may need a
// file before it to be in place. It says on out what it does, and returns at
// the first URI that does not work.
func (f *Fetcher) Fetch(ctx context.Context, uris []*mesos.CommandInfo_URI, sandbox string, owner Owner, out io.Writer) error {
	const op = "fetch URIs"
	if len(uris) == 0 {
		return nil
	}
	root, err := os.OpenRoot(sandbox)
	if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	defer root.Close()
	for _, u := range uris {
		fmt.Fprintf(out, "Fetching '%s'\n", u.GetValue())
		if err := f.one(ctx, u, root, owner); err != nil {
			fmt.Fprintf(out, "Failed to fetch '%s': %v\n", u.GetValue(), err)
			return fault.Newf(op, fault.Invalid, "%s: %w", u.GetValue(), err)
		}
	}
	return nil
}

func (f *Fetcher) one(ctx context.Context, u *mesos.CommandInfo_URI, root *os.Root, owner Owner) error {
	name, err := target(u)
	if err != nil {
		return err
	}
	if dir := path.Dir(name); dir != "." {
		if err := root.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	src, err := f.open(ctx, u.GetValue(), owner)
	if err != nil {
		return err
	}
	mode := fs.FileMode(0o644)
	if u.GetExecutable() {
		mode = 0o755
	}
	if err := write(root, name, src, mode, owner); err != nil {
		return errors.Join(err, src.Close())
	}
	if err := src.Close(); err != nil {
		return err
	}
	if u.GetExecutable() || !u.GetExtract() {
		return nil
	}
	return unpack(ctx, root, name, owner)
}

// target is the file's name in the sandbox.
func target(u *mesos.CommandInfo_URI) (string, error) {
	name := u.GetOutputFile()
	if name == "" {
		v := u.GetValue()
		if p, err := url.Parse(v); err == nil && p.Scheme != "" && p.Path != "" {
			v = p.Path
		}
		name = path.Base(v)
	}
	name = path.Clean(name)
	if !filepath.IsLocal(name) || name == "." {
		return "", fmt.Errorf("%q does not name a file in the sandbox", name)
	}
	return name, nil
}

// open returns the content of a URI.
func (f *Fetcher) open(ctx context.Context, uri string, owner Owner) (io.ReadCloser, error) {
	p, err := url.Parse(uri)
	if err != nil {
		return nil, err
	}
	switch strings.ToLower(p.Scheme) {
	case "http", "https":
		return f.download(ctx, uri)
	case "file":
		return openLocal(p.Path, owner)
	case "":
		if !path.IsAbs(uri) {
			return nil, errors.New("a URI without a scheme must be an absolute path on the agent")
		}
		return openLocal(uri, owner)
	default:
		return nil, fmt.Errorf("scheme %q is not supported: use http, https or file", p.Scheme)
	}
}

func (f *Fetcher) download(ctx context.Context, uri string) (io.ReadCloser, error) {
	client, stall := f.Client, f.Stall
	if client == nil {
		client = http.DefaultClient
	}
	if stall == 0 {
		stall = StallTimeout
	}
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(stall, func() { cancel(fmt.Errorf("nothing arrived for %s", stall)) })
	b := &body{ctx: ctx, cancel: cancel, timer: timer, stall: stall}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, uri, nil)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		timer.Stop()
		err = b.explain(err)
		cancel(nil)
		return nil, err
	}
	b.rc = resp.Body
	if resp.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("the server answered %s", resp.Status), b.Close())
	}
	return b, nil
}

// body is a response body that ends with an error when it stalls.
type body struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	rc     io.ReadCloser
	timer  *time.Timer
	stall  time.Duration
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.rc.Read(p)
	if n > 0 {
		b.timer.Reset(b.stall)
	}
	return n, b.explain(err)
}

// explain replaces a cancellation by its cause.
func (b *body) explain(err error) error {
	if err != nil && err != io.EOF && b.ctx.Err() != nil {
		return context.Cause(b.ctx)
	}
	return err
}

func (b *body) Close() error {
	b.timer.Stop()
	err := b.rc.Close()
	b.cancel(nil)
	return err
}

// write makes or replaces a file in the sandbox.
func write(root *os.Root, name string, r io.Reader, mode fs.FileMode, owner Owner) error {
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if err == nil {
		err = f.Chown(owner.UID, owner.GID)
	}
	if err == nil {
		err = f.Chmod(mode)
	}
	return errors.Join(err, f.Close())
}
