// Package httpapi is the orchestrator's API as Marathon's clients know it:
// routes, parameters, status codes and error texts. It decides nothing about
// apps.
package httpapi

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"

	"dcos.example/dcos/runtime/api/marathon"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/orchestrator/engine"
	"dcos.example/dcos/runtime/orchestrator/spec"
)

// maxBody bounds request bodies; a group of thousands of apps fits.
const maxBody = 32 << 20

// Config is what the API needs.
type Config struct {
	// Engine returns the leading engine, nil while this process does not lead
	// or has not loaded.
	Engine func() *engine.Engine
	// Leader returns host:port of the leading API, "" if nobody leads.
	Leader func() string
	// Info describes this process for /v2/info, beside what Engine knows.
	Info func() marathon.Info
	// Abdicate gives leadership up; nil if that cannot be asked for.
	Abdicate func()
	Log      *slog.Logger
}

// API answers requests on the leader.
type API struct{ cfg Config }

// New returns the handler of a leading process. Requests that any master
// answers, /ping and /metrics, work without leading.
func New(cfg Config) *API { return &API{cfg} }

// call is one request on its way.
type call struct {
	api *API
	w   http.ResponseWriter
	r   *http.Request
	e   *engine.Engine
}

// ServeHTTP routes by hand: ids hold slashes, doubled ones count once, and
// the words behind an id are routes.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	segs := strings.FieldsFunc(r.URL.Path, func(c rune) bool { return c == '/' })
	c := &call{api: a, w: w, r: r, e: a.cfg.Engine()}
	if len(segs) == 0 {
		c.notFound()
		return
	}
	switch segs[0] {
	case "ping":
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, "pong")
		return
	case "metrics":
		c.metrics(segs[1:])
		return
	case "v2":
	default:
		c.notFound()
		return
	}
	if c.e == nil {
		c.message(http.StatusServiceUnavailable, "This instance is not leading, or has not loaded its state yet.")
		return
	}
	if len(segs) == 1 {
		c.notFound()
		return
	}
	rest := segs[2:]
	switch segs[1] {
	case "apps":
		c.apps(rest)
	case "tasks":
		c.tasks(rest)
	case "groups":
		c.groups(rest)
	case "deployments":
		c.deployments(rest)
	case "queue":
		c.queue(rest)
	case "info":
		c.only(http.MethodGet, func() { c.info() })
	case "leader":
		c.leader()
	case "events":
		c.only(http.MethodGet, func() { c.events() })
	case "pods":
		c.pods()
	case "plugins":
		c.only(http.MethodGet, func() { c.json(http.StatusOK, map[string]any{"plugins": []any{}}) })
	default:
		c.notFound()
	}
}

func (c *call) notFound() { c.message(http.StatusNotFound, "URI not found") }

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
	c.message(http.StatusMethodNotAllowed, "Method "+c.r.Method+" is not allowed here")
}

// flag reads a boolean parameter, in any case as Marathon does: clients in
// Python write True.
func (c *call) flag(name string, absent bool) bool {
	switch strings.ToLower(c.r.URL.Query().Get(name)) {
	case "true":
		return true
	case "false":
		return false
	}
	return absent
}

func (c *call) body() ([]byte, bool) {
	b, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, maxBody))
	if err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			c.message(http.StatusRequestEntityTooLarge, fmt.Sprintf("The body is larger than %d bytes", maxBody))
		} else {
			c.message(http.StatusBadRequest, "The body could not be read")
		}
		return nil, false
	}
	return b, true
}

func (c *call) caller() engine.Caller {
	ip, _, err := net.SplitHostPort(c.r.RemoteAddr)
	if err != nil {
		ip = c.r.RemoteAddr
	}
	return engine.Caller{IP: ip, URI: c.r.URL.Path}
}

// json answers with v, compressed if the client likes that.
func (c *call) json(status int, v any) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false) // clients compare texts that hold "<"
	err := enc.Encode(v)
	b := bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
	if err != nil {
		c.api.cfg.Log.Error("answer does not marshal", "path", c.r.URL.Path, "err", err)
		http.Error(c.w, `{"message":"internal error"}`, http.StatusInternalServerError)
		return
	}
	h := c.w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Add("Vary", "Accept-Encoding")
	if len(b) < 1024 || !strings.Contains(c.r.Header.Get("Accept-Encoding"), "gzip") {
		c.w.WriteHeader(status)
		_, _ = c.w.Write(b)
		return
	}
	h.Set("Content-Encoding", "gzip")
	c.w.WriteHeader(status)
	zip, _ := gzip.NewWriterLevel(c.w, gzip.BestSpeed) // the level is valid
	_, _ = zip.Write(b)
	_ = zip.Close()
}

func (c *call) message(status int, text string) { c.json(status, marathon.Message{Message: text}) }

// result answers a change that is now being deployed.
func (c *call) result(status int, r marathon.DeploymentResult) {
	c.w.Header().Set("Marathon-Deployment-Id", r.DeploymentID)
	c.json(status, r)
}

// fail is the one place where errors become HTTP.
func (c *call) fail(err error) {
	var syntax *marathon.SyntaxError
	var types *marathon.TypeError
	var rules *spec.Problems
	var locked *engine.Locked
	switch {
	case errors.As(err, &syntax):
		c.json(http.StatusBadRequest, marathon.Message{Message: "Invalid JSON", Details: syntax.Text})
		return
	case errors.As(err, &types):
		c.json(http.StatusBadRequest, marathon.Message{Message: "Invalid JSON", Details: types.Details})
		return
	case errors.As(err, &rules):
		c.json(http.StatusUnprocessableEntity, marathon.Message{Message: "Object is not valid", Details: rules.Details})
		return
	case errors.As(err, &locked):
		m := marathon.Message{Message: locked.Error()}
		for _, id := range locked.Deployments {
			m.Deployments = append(m.Deployments, marathon.DeploymentRef{ID: id})
		}
		c.json(http.StatusConflict, m)
		return
	}
	status := http.StatusInternalServerError
	switch fault.KindOf(err) {
	case fault.Invalid:
		status = http.StatusUnprocessableEntity
	case fault.NotFound:
		status = http.StatusNotFound
	case fault.Exists, fault.Conflict:
		status = http.StatusConflict
	case fault.Denied:
		status = http.StatusForbidden
	case fault.Exhausted, fault.Unavailable:
		status = http.StatusServiceUnavailable
	case fault.Internal:
		c.api.cfg.Log.Error("request failed", "method", c.r.Method, "path", c.r.URL.Path, "err", err)
	}
	c.message(status, text(err))
}

// text is the innermost cause: what clients compare with.
func text(err error) string {
	for {
		var f *fault.Error
		if !errors.As(err, &f) || f.Err == nil {
			return err.Error()
		}
		err = f.Err
	}
}
