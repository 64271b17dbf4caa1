// Package httpapi is the operator's API: /services/ to install, change and
// remove services, and below each of them the routes of the SDK of DC/OS, with
// its statuses. It decides nothing about services.
package httpapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	api "dcos.example/dcos/runtime/api/service"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/server"
	"dcos.example/dcos/runtime/service"
)

const (
	// maxBody bounds requests: a spec with its templates, and the definition of
	// the package it comes from.
	maxBody = 16 << 20
	// patience is how long a request waits for a leader, or for its state.
	patience = 10 * time.Second
)

// Config is what the API needs.
type Config struct {
	Service *service.Service
	Self    string // host:port of this master's API
	// Leader returns the base URL of the leading master's API, if one leads.
	Leader func() (base string, ok bool)
	// Transport reaches it.
	Transport http.RoundTripper
	Log       *slog.Logger
}

// New returns the handler of /services/. It answers while this master leads,
// and else hands requests to the leader.
func New(cfg Config) http.Handler {
	a := &handler{cfg.Service, cfg.Log}
	return &server.Leading{
		Self: cfg.Self, Local: a, Leads: cfg.Service.Leading, Transport: cfg.Transport, Patience: patience, Log: cfg.Log,
		Leader: func() string {
			base, ok := cfg.Leader()
			if u, err := url.Parse(base); !ok || err != nil || u.Host == cfg.Self {
				return "" // nobody, or ourselves before the state is loaded
			}
			return base
		},
		Via: "X-Dcos-Services-Via",
		Refuse: func(w http.ResponseWriter, status int, text string) {
			w.Header().Set("Retry-After", "1")
			answer(w, status, api.ErrorBody{Message: text})
		},
	}
}

// handler answers on the leader.
type handler struct {
	services *service.Service
	log      *slog.Logger
}

// call is one request on its way. Segments are those below /services/, without
// their escapes: a name may hold slashes.
type call struct {
	*handler
	w    http.ResponseWriter
	r    *http.Request
	segs []string
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{handler: h, w: w, r: r}
	rest, ok := strings.CutPrefix(r.URL.EscapedPath(), "/services/")
	if !ok {
		c.notFound()
		return
	}
	for seg := range strings.SplitSeq(strings.TrimSuffix(rest, "/"), "/") {
		plain, err := url.PathUnescape(seg)
		if err != nil {
			c.say(http.StatusBadRequest, "The path cannot be read.")
			return
		}
		c.segs = append(c.segs, plain)
	}
	switch {
	case c.segs[0] == "":
		c.only(http.MethodGet, func() { c.result(h.services.List()) })
	case len(c.segs) > 1:
		c.below()
	case c.segs[0] == "check" && r.Method == http.MethodPost:
		if in, ok := c.request(); ok {
			c.done(http.StatusOK, "The service can be installed.", h.services.Check(r.Context(), in))
		}
	default:
		c.one(c.segs[0])
	}
}

// one is a service as a whole.
func (c *call) one(name string) {
	switch c.r.Method {
	case http.MethodGet, http.MethodHead:
		e, err := c.services.Find(name)
		if err != nil {
			c.fail(err)
			return
		}
		c.json(http.StatusOK, e.Detail())
	case http.MethodPut:
		in, ok := c.request()
		if !ok {
			return
		}
		d, created, err := c.services.Put(c.r.Context(), name, in, c.r.Header.Get("If-None-Match") == "*")
		switch {
		case err != nil:
			c.fail(err)
		case created:
			c.w.Header().Set("Location", "/services/"+url.PathEscape(name))
			c.json(http.StatusCreated, d)
		default:
			c.json(http.StatusOK, d)
		}
	case http.MethodDelete:
		c.done(http.StatusAccepted, "The service is being uninstalled.", c.services.Delete(c.r.Context(), name, c.flag("force")))
	default:
		c.methods("GET", "PUT", "DELETE")
	}
}

// request reads the body of an installation.
func (c *call) request() (in api.Request, ok bool) {
	if !c.body(&in, true) {
		return in, false
	}
	if len(in.Spec) == 0 {
		c.json(http.StatusBadRequest, api.ErrorBody{Message: "The request has no spec.", Errors: []api.Problem{{Path: "spec", Message: "is missing"}}})
		return in, false
	}
	in.Force = in.Force || c.flag("force")
	return in, true
}

// body decodes the request's JSON; an empty body is fine unless it is needed.
func (c *call) body(into any, needed bool) bool {
	b, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, maxBody))
	if err != nil {
		if _, large := errors.AsType[*http.MaxBytesError](err); large {
			c.say(http.StatusRequestEntityTooLarge, fmt.Sprintf("The body is larger than %d bytes.", maxBody))
		} else {
			c.say(http.StatusBadRequest, "The body could not be read.")
		}
		return false
	}
	if len(strings.TrimSpace(string(b))) == 0 && !needed {
		return true
	}
	dec := json.NewDecoder(strings.NewReader(string(b)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		c.say(http.StatusBadRequest, "The body is not the JSON that is wanted here: "+strings.TrimPrefix(err.Error(), "json: "))
		return false
	}
	return true
}

func (c *call) flag(name string) bool { return strings.EqualFold(c.r.URL.Query().Get(name), "true") }

// only runs f for one method; HEAD is GET without a body.
func (c *call) only(method string, f func()) {
	if c.r.Method == method || method == http.MethodGet && c.r.Method == http.MethodHead {
		f()
		return
	}
	c.methods(method)
}

func (c *call) methods(allowed ...string) {
	c.w.Header().Set("Allow", strings.Join(allowed, ", "))
	c.say(http.StatusMethodNotAllowed, "Method "+c.r.Method+" is not allowed here.")
}

func (c *call) notFound() { c.say(http.StatusNotFound, "Nothing is at "+c.r.URL.Path+".") }

func (c *call) say(status int, text string) { c.json(status, api.ErrorBody{Message: text}) }

// done answers a change.
func (c *call) done(status int, text string, err error) {
	if err != nil {
		c.fail(err)
		return
	}
	c.json(status, api.CommandResult{Message: text})
}

// result answers what was asked.
func (c *call) result(v any, err error) {
	if err != nil {
		c.fail(err)
		return
	}
	c.json(http.StatusOK, v)
}

func (c *call) json(status int, v any) {
	if !answer(c.w, status, v) {
		c.log.Error("answer does not marshal", "path", c.r.URL.Path)
	}
}

func answer(w http.ResponseWriter, status int, v any) bool {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, `{"message":"internal error"}`)
		return false
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, b.String()) // the client is gone if it fails
	return true
}

// fail is the one place where errors become HTTP.
func (c *call) fail(err error) {
	var problems api.Problems
	status := http.StatusInternalServerError
	switch fault.KindOf(err) {
	case fault.Invalid:
		status = http.StatusBadRequest
	case fault.NotFound:
		status = http.StatusNotFound
	case fault.Exists, fault.Conflict:
		status = http.StatusConflict
	case fault.Denied:
		status = http.StatusForbidden
	case fault.Exhausted, fault.Unavailable:
		status = http.StatusServiceUnavailable
		c.w.Header().Set("Retry-After", "1")
	case fault.Internal:
		if errors.As(err, &problems) {
			status = http.StatusBadRequest
			break
		}
		c.log.Error("request failed", "method", c.r.Method, "path", c.r.URL.Path, "err", err)
	}
	if errors.As(err, &problems) {
		c.json(status, api.ErrorBody{Message: "The service cannot be as it is asked for.", Errors: problems})
		return
	}
	c.say(status, text(err))
}

// text is the innermost cause.
func text(err error) string {
	for {
		f, ok := errors.AsType[*fault.Error](err)
		if !ok || f.Err == nil {
			return err.Error()
		}
		err = f.Err
	}
}
