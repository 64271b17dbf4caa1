package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	digest "github.com/opencontainers/go-digest"

	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/registry/blob"
)

// blobs serves /v2/REPOSITORY/blobs/DIGEST. Whoever may read one repository
// may read all, so the repository is only a part of the address.
func (a *API) blobs(w http.ResponseWriter, r *http.Request, _, ref string) error {
	d := digest.Digest(ref)
	if err := blob.Check(d); err != nil {
		return coded(err, codeDigestInvalid, fault.Invalid, http.StatusBadRequest)
	}
	return a.only(w, r, methods{
		http.MethodGet: func(w http.ResponseWriter, r *http.Request) error { return a.getBlob(w, r, d) },
		// What other images share would be gone for them, too.
		http.MethodDelete: func(http.ResponseWriter, *http.Request) error {
			return wrong(codeUnsupported, http.StatusMethodNotAllowed, "blobs go by themselves when no manifest names them; delete manifests or tags")
		},
	})
}

func (a *API) getBlob(w http.ResponseWriter, r *http.Request, d digest.Digest) error {
	if err := a.have(r.Context(), d); err != nil {
		return err
	}
	// A client that finds a blob does not send it: it must stay for a while.
	a.cfg.Blobs.Use(d)
	f, _, err := a.cfg.Blobs.Open(d)
	if err != nil {
		return coded(err, codeBlobUnknown, fault.NotFound, http.StatusNotFound)
	}
	defer f.Close()
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Docker-Content-Digest", string(d))
	h.Set("ETag", `"`+string(d)+`"`)
	http.ServeContent(w, r, "", time.Time{}, f)
	return nil
}

// have returns once blob d is on this master: one that the index names may be
// on another only.
func (a *API) have(ctx context.Context, d digest.Digest) error {
	if a.cfg.Blobs.Has(d) {
		return nil
	}
	if !a.cfg.Index.Needs(d) {
		return wrong(codeBlobUnknown, http.StatusNotFound, "there is no blob %s", d)
	}
	return coded(a.cfg.Images.Ensure(ctx, d), codeBlobUnknown, fault.NotFound, http.StatusNotFound)
}

// uploads serves /v2/REPOSITORY/blobs/uploads/[ID].
func (a *API) uploads(w http.ResponseWriter, r *http.Request, repo, id string) error {
	if id == "" {
		return a.only(w, r, methods{http.MethodPost: func(w http.ResponseWriter, r *http.Request) error { return a.begin(w, r, repo) }})
	}
	u, err := a.cfg.Blobs.Upload(id)
	if err != nil {
		return coded(err, codeUploadUnknown, fault.NotFound, http.StatusNotFound)
	}
	return a.only(w, r, methods{
		http.MethodGet: func(w http.ResponseWriter, _ *http.Request) error {
			return progress(w, repo, u, u.Size(), http.StatusNoContent)
		},
		http.MethodPatch: func(w http.ResponseWriter, r *http.Request) error { return a.piece(w, r, repo, u) },
		http.MethodPut:   func(w http.ResponseWriter, r *http.Request) error { return a.finish(w, r, repo, u) },
		http.MethodDelete: func(w http.ResponseWriter, _ *http.Request) error {
			u.Cancel()
			w.WriteHeader(http.StatusNoContent)
			return nil
		},
	})
}

// begin starts an upload, takes a whole blob at once, or finds that it is here
// already.
func (a *API) begin(w http.ResponseWriter, r *http.Request, repo string) error {
	q := r.URL.Query()
	if d := digest.Digest(q.Get("mount")); d != "" {
		// A mount that cannot be is an upload.
		if blob.Check(d) == nil && (a.cfg.Blobs.Use(d) || a.cfg.Index.Needs(d) && a.cfg.Images.Ensure(r.Context(), d) == nil) {
			return created(w, repo, d)
		}
	}
	u, err := a.cfg.Blobs.Begin()
	if err != nil {
		return err
	}
	if !q.Has("digest") {
		return progress(w, repo, u, 0, http.StatusAccepted)
	}
	defer u.Cancel()
	return a.finish(w, r, repo, u)
}

func (a *API) piece(w http.ResponseWriter, r *http.Request, repo string, u *blob.Upload) error {
	size, err := a.add(r, u)
	if err != nil {
		return err
	}
	return progress(w, repo, u, size, http.StatusAccepted)
}

// add appends the body at the place that the request names, if it names one.
func (a *API) add(r *http.Request, u *blob.Upload) (int64, error) {
	in := body{r: r.Body}
	size, err := int64(0), error(nil)
	if text := r.Header.Get("Content-Range"); text == "" {
		size, err = u.Append(r.Context(), &in)
	} else {
		from, to, ok := span(text)
		if !ok || r.ContentLength >= 0 && to-from+1 != r.ContentLength {
			return 0, wrong(codeSizeInvalid, http.StatusBadRequest, "Content-Range %q is not FIRST-LAST of the %d bytes that come", text, r.ContentLength)
		}
		size, err = u.AppendAt(r.Context(), from, &in)
	}
	if in.broken {
		return size, &apiError{codeUploadInvalid, http.StatusBadRequest, err}
	}
	err = coded(err, codeUploadInvalid, fault.Conflict, http.StatusRequestedRangeNotSatisfiable)
	return size, coded(err, codeUploadUnknown, fault.NotFound, http.StatusNotFound)
}

// body remembers whether it was the client who broke off.
type body struct {
	r      io.Reader
	broken bool
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		b.broken = true
	}
	return n, err
}

// span reads FIRST-LAST.
func span(text string) (from, to int64, ok bool) {
	a, b, ok := strings.Cut(strings.TrimPrefix(text, "bytes="), "-")
	from, err := strconv.ParseInt(a, 10, 64)
	to, err2 := strconv.ParseInt(b, 10, 64)
	return from, to, ok && errors.Join(err, err2) == nil && from >= 0 && to >= from
}

func (a *API) finish(w http.ResponseWriter, r *http.Request, repo string, u *blob.Upload) error {
	d := digest.Digest(r.URL.Query().Get("digest"))
	if err := blob.Check(d); err != nil {
		return coded(err, codeDigestInvalid, fault.Invalid, http.StatusBadRequest)
	}
	if r.ContentLength != 0 {
		if _, err := a.add(r, u); err != nil {
			return err
		}
	}
	err := coded(u.Finish(d), codeDigestInvalid, fault.Invalid, http.StatusBadRequest)
	if err = coded(err, codeUploadUnknown, fault.NotFound, http.StatusNotFound); err != nil {
		return err
	}
	return created(w, repo, d)
}

func created(w http.ResponseWriter, repo string, d digest.Digest) error {
	h := w.Header()
	h.Set("Location", Prefix+repo+"/blobs/"+string(d))
	h.Set("Docker-Content-Digest", string(d))
	h.Set("Content-Length", "0")
	w.WriteHeader(http.StatusCreated)
	return nil
}

func progress(w http.ResponseWriter, repo string, u *blob.Upload, size int64, status int) error {
	h := w.Header()
	h.Set("Location", Prefix+repo+"/blobs/uploads/"+u.ID)
	h.Set("Range", fmt.Sprintf("0-%d", max(size-1, 0)))
	h.Set("Docker-Upload-UUID", u.ID)
	h.Set("OCI-Chunk-Min-Length", "1")
	if status != http.StatusNoContent {
		h.Set("Content-Length", "0")
	}
	w.WriteHeader(status)
	return nil
}
