package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	digest "github.com/opencontainers/go-digest"

	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/registry/blob"
)

// Path is where masters ask each other for blobs: Path + DIGEST. The answer is
// what the asked master has itself, so that masters never ask in a circle.
const Path = "/registry/v1/blobs/"

// silence is how long a master may send nothing before another is asked.
const silence = 15 * time.Second

// Handler answers Path. Its caller lets only masters through.
func (r *Replica) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		d := digest.Digest(strings.TrimPrefix(req.URL.Path, Path))
		if req.Method != http.MethodGet && req.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "405 Method Not Allowed", http.StatusMethodNotAllowed)
			return
		}
		f, _, err := r.cfg.Blobs.Open(d)
		switch {
		case fault.Is(err, fault.NotFound):
			http.NotFound(w, req)
			return
		case fault.Is(err, fault.Invalid):
			http.Error(w, "400 Bad Request", http.StatusBadRequest)
			return
		case err != nil:
			r.cfg.Log.Error("answer another master", "err", err)
			http.Error(w, "500 Internal Server Error", http.StatusInternalServerError)
			return
		}
		defer f.Close()
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, req, "", time.Time{}, f)
	})
}

// copy copies a blob from a file.
func (r *Replica) copy(ctx context.Context, d digest.Digest, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fault.New("open "+path, fault.Unavailable, err)
	}
	defer f.Close()
	return r.cfg.Blobs.Put(ctx, d, f)
}

// fromMasters asks one master after another. The next goes on where one broke
// off.
func (r *Replica) fromMasters(ctx context.Context, d digest.Digest) error {
	op := "bring blob " + string(d) + " from another master"
	var u *blob.Upload
	defer func() {
		if u != nil {
			u.Cancel()
		}
	}()
	kind := fault.NotFound
	var errs []error
	for _, m := range r.others() {
		if u == nil {
			var err error
			if u, err = r.cfg.Blobs.Begin(); err != nil {
				return err
			}
		}
		err := r.receive(ctx, m, d, u)
		if err == nil {
			if err = u.Finish(d); err == nil {
				return nil
			}
			u = nil // what came is not what it should be: nothing of it is used
			r.cfg.Log.Warn("a master sent a damaged blob", "from", m.Name, "err", err)
		}
		if fault.Is(err, fault.Exhausted) {
			return err
		}
		if !fault.Is(err, fault.NotFound) {
			kind = fault.Unavailable
		}
		errs = append(errs, fmt.Errorf("master %s: %w", m.Name, err))
	}
	if len(errs) == 0 {
		errs = append(errs, errors.New("there is no other master"))
	}
	return fault.New(op, kind, errors.Join(errs...))
}

// receive appends to u what it lacks of blob d.
func (r *Replica) receive(ctx context.Context, m config.Member, d digest.Digest, u *blob.Upload) error {
	op := "ask for it"
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	alarm := time.AfterFunc(silence, func() { cancel(fmt.Errorf("silent for %s", silence)) })
	defer alarm.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.at(m.Addr)+Path+string(d), nil)
	if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	want := http.StatusOK
	if have := u.Size(); have > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", have))
		want = http.StatusPartialContent
	}
	resp, err := r.cfg.Client.Do(req)
	if err != nil {
		return fault.New(op, fault.Unavailable, err)
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case want:
	case http.StatusNotFound:
		return fault.Newf(op, fault.NotFound, "it has none")
	default:
		return fault.Newf(op, fault.Unavailable, "status %s", resp.Status)
	}
	_, err = u.Append(ctx, &awake{resp.Body, alarm})
	return err
}

// awake puts off an alarm whenever something comes.
type awake struct {
	r     io.Reader
	alarm *time.Timer
}

func (a *awake) Read(p []byte) (int, error) {
	n, err := a.r.Read(p)
	a.alarm.Reset(silence)
	return n, err
}
