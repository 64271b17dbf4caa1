package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"dcos.example/dcos/runtime/catalog/failure"
)

const (
	maxResource     = 1 << 30
	resourceTimeout = 10 * time.Minute
)

// resource passes on what lies at a URL that a package names, for clients that
// have no way there: icons, programs of the command line. No other URL is asked
// for.
func (a *api) resource(w http.ResponseWriter, r *http.Request) {
	wanted := r.URL.Query().Get("url")
	if ix := a.Index(); ix == nil || !ix.HasURL(wanted) {
		a.fail(w, r, failure.ResourceNotFound(wanted))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), resourceTimeout)
	defer cancel()
	resp, err := a.fetch(ctx, wanted)
	if err != nil {
		a.fail(w, r, failure.ServiceUnavailable("resource", err))
		return
	}
	defer resp.Body.Close()
	h := w.Header()
	// It is shown below the cluster's own name and must not be run there.
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "sandbox; default-src 'none'")
	h.Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", filename(wanted)))
	if kind := resp.Header.Get("Content-Type"); kind != "" {
		h.Set("Content-Type", kind)
	}
	if length := resp.Header.Get("Content-Length"); length != "" {
		h.Set("Content-Length", length)
	}
	if _, err := io.Copy(w, io.LimitReader(resp.Body, maxResource)); err != nil {
		a.Log.Debug("pass on a resource", "url", wanted, "err", err)
	}
}

func (a *api) fetch(ctx context.Context, wanted string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, wanted, nil)
	if err != nil {
		return nil, err
	}
	if req.URL.Scheme != "http" && req.URL.Scheme != "https" {
		return nil, fmt.Errorf("nobody fetches %q", req.URL.Scheme)
	}
	client := &http.Client{Transport: a.Resources}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	switch {
	case resp.StatusCode != http.StatusOK:
		err = fmt.Errorf("it answers with status %d", resp.StatusCode)
	case resp.ContentLength > maxResource:
		err = errors.New("it is too large")
	}
	if err != nil {
		resp.Body.Close()
		return nil, err
	}
	return resp, nil
}

// filename is the last part of a URL, of harmless signs.
func filename(from string) string {
	u, err := url.Parse(from)
	if err != nil {
		return "resource"
	}
	name := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || strings.ContainsRune(`"\/;`, r) {
			return '_'
		}
		return r
	}, path.Base(u.Path))
	if name == "." || name == "_" {
		return "resource"
	}
	return name
}
