// Package httpapi speaks the OCI distribution protocol, version 1.1
// (github.com/opencontainers/distribution-spec), which clients of Docker's
// registries speak too. Who the caller is, and what he may, is decided here
// before anything else.
package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	digest "github.com/opencontainers/go-digest"

	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/registry/blob"
	"dcos.example/dcos/runtime/registry/index"
)

// Prefix is where clients look for the protocol.
const Prefix = "/v2/"

// images brings what this master lacks, and waits until others have what it
// was given.
type images interface {
	Ensure(ctx context.Context, d digest.Digest) error
	Spread(ctx context.Context, d digest.Digest) (have, want int)
}

// Config is what an API is made from.
type Config struct {
	Blobs  *blob.Store
	Index  *index.Index
	Images images
	Guard  *Guard
	Log    *slog.Logger
}

// API is the protocol's server.
type API struct{ cfg Config }

// New returns an API.
func New(cfg Config) *API { return &API{cfg} }

// Names as the protocol has them.
var (
	repository = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tag        = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
)

// maxRepository keeps names within what file names and the store's keys bear.
const maxRepository = 255

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Docker-Distribution-API-Version", "registry/2.0")
	if err := a.serve(w, r); err != nil {
		a.fail(w, r, err)
	}
}

func (a *API) serve(w http.ResponseWriter, r *http.Request) error {
	if err := a.cfg.Guard.admit(w, r); err != nil {
		return err
	}
	path, ok := strings.CutPrefix(r.URL.Path, Prefix)
	switch {
	case !ok && r.URL.Path+"/" != Prefix:
		return wrong(codeUnsupported, http.StatusNotFound, "no such path")
	case !ok || path == "":
		return a.base(w, r)
	case path == "_catalog":
		return a.only(w, r, methods{http.MethodGet: a.catalog})
	}
	// Names hold slashes, and may hold the protocol's words: the last counts.
	for _, part := range []struct {
		mark  string
		serve func(http.ResponseWriter, *http.Request, string, string) error
	}{{"/blobs/uploads/", a.uploads}, {"/blobs/", a.blobs}, {"/manifests/", a.manifests}, {"/tags/", a.tags}, {"/referrers/", a.referrers}} {
		at := strings.LastIndex(path, part.mark)
		if at < 0 {
			continue
		}
		repo, rest := path[:at], path[at+len(part.mark):]
		if strings.Contains(rest, "/") {
			continue
		}
		if len(repo) > maxRepository || !repository.MatchString(repo) {
			return wrong(codeNameInvalid, http.StatusBadRequest, "%q is not the name of a repository: small letters, digits, and . _ - / between them", repo)
		}
		return part.serve(w, r, repo, rest)
	}
	if repo, ok := strings.CutSuffix(path, "/blobs/uploads"); ok && repository.MatchString(repo) {
		return a.uploads(w, r, repo, "")
	}
	return wrong(codeUnsupported, http.StatusNotFound, "no such path")
}

type methods map[string]func(http.ResponseWriter, *http.Request) error

func (a *API) only(w http.ResponseWriter, r *http.Request, m methods) error {
	if r.Method == http.MethodHead && m[http.MethodHead] == nil && m[http.MethodGet] != nil {
		return m[http.MethodGet](w, r)
	}
	if f := m[r.Method]; f != nil {
		return f(w, r)
	}
	var allowed []string
	for name := range m {
		allowed = append(allowed, name)
	}
	slices.Sort(allowed)
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	return wrong(codeUnsupported, http.StatusMethodNotAllowed, "%s is not for this path", r.Method)
}

func (a *API) base(w http.ResponseWriter, r *http.Request) error {
	return a.only(w, r, methods{http.MethodGet: func(w http.ResponseWriter, _ *http.Request) error {
		return answer(w, http.StatusOK, "application/json", struct{}{})
	}})
}

func (a *API) catalog(w http.ResponseWriter, r *http.Request) error {
	names, err := page(w, r, a.cfg.Index.Repositories())
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, "application/json", map[string]any{"repositories": names})
}

func (a *API) tags(w http.ResponseWriter, r *http.Request, repo, rest string) error {
	if rest != "list" {
		return wrong(codeUnsupported, http.StatusNotFound, "no such path")
	}
	return a.only(w, r, methods{http.MethodGet: func(w http.ResponseWriter, r *http.Request) error {
		all, ok := a.cfg.Index.Tags(repo)
		if !ok {
			return wrong(codeNameUnknown, http.StatusNotFound, "there is no repository %s", repo)
		}
		names, err := page(w, r, all)
		if err != nil {
			return err
		}
		return answer(w, http.StatusOK, "application/json", map[string]any{"name": repo, "tags": names})
	}})
}

// page returns the part of names that the query asks for, with the link to the
// next.
func page(w http.ResponseWriter, r *http.Request, names []string) ([]string, error) {
	q := r.URL.Query()
	if last := q.Get("last"); last != "" {
		at, found := slices.BinarySearch(names, last)
		if found {
			at++
		}
		names = names[at:]
	}
	if q.Has("n") {
		n, err := strconv.Atoi(q.Get("n"))
		if err != nil || n < 0 {
			return nil, wrong(codePagination, http.StatusBadRequest, "n=%s is not a number of names", q.Get("n"))
		}
		if n < len(names) {
			names = names[:n]
			if n > 0 {
				next := *r.URL
				q.Set("last", names[n-1])
				next.RawQuery = q.Encode()
				w.Header().Set("Link", "<"+next.RequestURI()+`>; rel="next"`)
			}
		}
	}
	if names == nil {
		names = []string{}
	}
	return names, nil
}

func answer(w http.ResponseWriter, status int, mediaType string, body any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return fault.New("encode answer", fault.Internal, err)
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	_, _ = w.Write(b) // the caller is gone
	return nil
}

// The protocol's codes of errors.
const (
	codeBlobUnknown   = "BLOB_UNKNOWN"
	codeUploadInvalid = "BLOB_UPLOAD_INVALID"
	codeUploadUnknown = "BLOB_UPLOAD_UNKNOWN"
	codeDigestInvalid = "DIGEST_INVALID"
	codeManifestBlob  = "MANIFEST_BLOB_UNKNOWN"
	codeManifest      = "MANIFEST_INVALID"
	codeManifestNone  = "MANIFEST_UNKNOWN"
	codeNameInvalid   = "NAME_INVALID"
	codeNameUnknown   = "NAME_UNKNOWN"
	codeTagInvalid    = "TAG_INVALID"
	codeSizeInvalid   = "SIZE_INVALID"
	codeUnauthorized  = "UNAUTHORIZED"
	codeDenied        = "DENIED"
	codeUnsupported   = "UNSUPPORTED"
	codeTooMany       = "TOOMANYREQUESTS"
	codePagination    = "PAGINATION_NUMBER_INVALID"
	codeUnknown       = "UNKNOWN"
)

// apiError is an answer that the protocol has a code for.
type apiError struct {
	code   string
	status int
	err    error
}

func (e *apiError) Error() string { return e.err.Error() }
func (e *apiError) Unwrap() error { return e.err }

func wrong(code string, status int, format string, args ...any) error {
	return &apiError{code, status, fault.Newf("serve images", fault.Invalid, format, args...)}
}

// coded gives the fault of err, of one of kinds, a code of its own.
func coded(err error, code string, kind fault.Kind, status int) error {
	if fault.Is(err, kind) {
		return &apiError{code, status, err}
	}
	return err
}

// statuses are the answers to faults without a code.
var statuses = map[fault.Kind]struct {
	status int
	code   string
}{
	fault.Invalid:     {http.StatusBadRequest, codeUnsupported},
	fault.NotFound:    {http.StatusNotFound, codeUnknown},
	fault.Conflict:    {http.StatusConflict, codeUnknown},
	fault.Denied:      {http.StatusForbidden, codeDenied},
	fault.Exhausted:   {http.StatusInsufficientStorage, codeUnknown},
	fault.Unavailable: {http.StatusServiceUnavailable, codeUnknown},
}

func (a *API) fail(w http.ResponseWriter, r *http.Request, err error) {
	s, ok := statuses[fault.KindOf(err)]
	if !ok {
		s.status, s.code = http.StatusInternalServerError, codeUnknown
	}
	message := err.Error()
	if e, ok := errors.AsType[*apiError](err); ok {
		s.status, s.code = e.status, e.code
		if f, ok := errors.AsType[*fault.Error](e.err); ok && f.Err != nil {
			message = f.Err.Error()
		}
	}
	if s.status >= 500 && r.Context().Err() == nil {
		a.cfg.Log.Warn("serve images", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	if s.status == http.StatusInternalServerError {
		message = "see the log of this master"
	}
	_ = answer(w, s.status, "application/json", map[string]any{ // strings only
		"errors": []map[string]string{{"code": s.code, "message": message}},
	})
}
