// Package catalogtest has stand-ins for what a catalog speaks with: an
// orchestrator, a Mesos master and an operator that only keep what they are
// told, each with the answers of the real one as far as a catalog sees them.
package catalogtest

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Cluster is all three behind one address. Its fields are what was told and
// what to answer; hold Mu to use them while requests may come.
type Cluster struct {
	URL string

	Mu         sync.Mutex
	Apps       map[string]map[string]any // by id, from the root
	Frameworks map[string]string         // name by id
	TornDown   []string                  // framework ids
	Services   map[string]map[string]any // by name: the body of PUT
	Refuse     map[string]any            // what the operator answers to checks and PUT with 400
	Required   map[string]bool           // services that others need
	Down       string                    // "marathon", "mesos" or "services" answers 503
}

// New starts a cluster that ends with t.
func New(t testing.TB) *Cluster {
	c := &Cluster{
		Apps: map[string]map[string]any{}, Frameworks: map[string]string{}, Services: map[string]map[string]any{}, Required: map[string]bool{},
	}
	mux := http.NewServeMux()
	handle := func(pattern, part string, h func(w http.ResponseWriter, r *http.Request)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			c.Mu.Lock()
			defer c.Mu.Unlock()
			if c.Down == part {
				answer(w, http.StatusServiceUnavailable, map[string]any{"message": "down"})
				return
			}
			h(w, r)
		})
	}
	handle("GET /v2/apps", "marathon", c.apps)
	handle("POST /v2/apps", "marathon", c.create)
	handle("GET /v2/apps/", "marathon", c.app)
	handle("PUT /v2/apps/", "marathon", c.put)
	handle("DELETE /v2/apps/", "marathon", c.remove)
	handle("GET /master/frameworks", "mesos", c.frameworks)
	handle("POST /master/teardown", "mesos", c.teardown)
	handle("GET /services/", "services", c.services)
	handle("GET /services/{name}", "services", c.service)
	handle("POST /services/check", "services", c.check)
	handle("PUT /services/{name}", "services", c.putService)
	handle("DELETE /services/{name}", "services", c.removeService)
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	c.URL = s.URL
	return c
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		panic(err)
	}
}

func body(r *http.Request) map[string]any {
	var v map[string]any
	if err := json.NewDecoder(r.Body).Decode(&v); err != nil {
		panic(err)
	}
	return v
}

func id(s string) string { return "/" + strings.Trim(strings.TrimPrefix(s, "/v2/apps"), "/") }

func (c *Cluster) apps(w http.ResponseWriter, r *http.Request) {
	list := []any{}
	for _, k := range slices.Sorted(maps.Keys(c.Apps)) {
		labels, _ := c.Apps[k]["labels"].(map[string]any)
		if l := r.URL.Query().Get("label"); l != "" && labels[l] == nil {
			continue
		}
		list = append(list, c.Apps[k])
	}
	answer(w, http.StatusOK, map[string]any{"apps": list})
}

func (c *Cluster) create(w http.ResponseWriter, r *http.Request) {
	app := body(r)
	name, _ := app["id"].(string)
	if name == "" {
		answer(w, http.StatusUnprocessableEntity, map[string]any{
			"message": "Object is not valid", "details": []any{map[string]any{"path": "/id", "errors": []any{"error.path.missing"}}},
		})
		return
	}
	app["id"] = id(name)
	if c.Apps[id(name)] != nil {
		answer(w, http.StatusConflict, map[string]any{"message": "An app with id [" + id(name) + "] already exists."})
		return
	}
	c.Apps[id(name)] = app
	answer(w, http.StatusCreated, app)
}

func (c *Cluster) app(w http.ResponseWriter, r *http.Request) {
	app := c.Apps[id(r.URL.Path)]
	if app == nil {
		answer(w, http.StatusNotFound, map[string]any{"message": "App does not exist"})
		return
	}
	answer(w, http.StatusOK, map[string]any{"app": app})
}

func (c *Cluster) put(w http.ResponseWriter, r *http.Request) {
	app := body(r)
	app["id"] = id(r.URL.Path)
	if r.URL.Query().Get("partialUpdate") == "true" {
		whole := maps.Clone(c.Apps[id(r.URL.Path)])
		maps.Copy(whole, app)
		app = whole
	}
	c.Apps[id(r.URL.Path)] = app
	answer(w, http.StatusOK, map[string]any{"version": "v", "deploymentId": "deployment-1"})
}

func (c *Cluster) remove(w http.ResponseWriter, r *http.Request) {
	if c.Apps[id(r.URL.Path)] == nil {
		answer(w, http.StatusNotFound, map[string]any{"message": "App does not exist"})
		return
	}
	delete(c.Apps, id(r.URL.Path))
	answer(w, http.StatusOK, map[string]any{"version": "v", "deploymentId": "deployment-2"})
}

func (c *Cluster) frameworks(w http.ResponseWriter, _ *http.Request) {
	list := []any{}
	for k, name := range c.Frameworks {
		list = append(list, map[string]any{"id": k, "name": name})
	}
	answer(w, http.StatusOK, map[string]any{"frameworks": list, "completed_frameworks": []any{}})
}

func (c *Cluster) teardown(w http.ResponseWriter, r *http.Request) {
	k := r.FormValue("frameworkId")
	if _, ok := c.Frameworks[k]; !ok {
		http.Error(w, "No framework found with specified ID", http.StatusBadRequest)
		return
	}
	delete(c.Frameworks, k)
	c.TornDown = append(c.TornDown, k)
}

func (c *Cluster) services(w http.ResponseWriter, _ *http.Request) {
	list := []any{}
	for _, k := range slices.Sorted(maps.Keys(c.Services)) {
		list = append(list, c.record(k))
	}
	answer(w, http.StatusOK, map[string]any{"services": list})
}

func (c *Cluster) record(name string) map[string]any {
	return map[string]any{
		"id": "/" + name, "name": name, "status": "RUNNING", "pods": []any{}, "package": c.Services[name]["package"], "spec": c.Services[name]["spec"],
	}
}

func (c *Cluster) service(w http.ResponseWriter, r *http.Request) {
	if c.Services[name(r)] == nil {
		answer(w, http.StatusNotFound, map[string]any{"message": "there is no such service"})
		return
	}
	answer(w, http.StatusOK, c.record(name(r)))
}

func name(r *http.Request) string {
	n, err := url.PathUnescape(r.PathValue("name"))
	if err != nil {
		panic(err)
	}
	return n
}

func (c *Cluster) check(w http.ResponseWriter, r *http.Request) {
	if c.Refuse != nil {
		answer(w, http.StatusBadRequest, c.Refuse)
		return
	}
	body(r)
	answer(w, http.StatusOK, map[string]any{})
}

func (c *Cluster) putService(w http.ResponseWriter, r *http.Request) {
	there := c.Services[name(r)] != nil
	switch {
	case c.Refuse != nil:
		answer(w, http.StatusBadRequest, c.Refuse)
		return
	case there && r.Header.Get("If-None-Match") == "*":
		answer(w, http.StatusConflict, map[string]any{"message": "it is there"})
		return
	}
	c.Services[name(r)] = body(r)
	status := http.StatusCreated
	if there {
		status = http.StatusOK
	}
	answer(w, status, c.record(name(r)))
}

func (c *Cluster) removeService(w http.ResponseWriter, r *http.Request) {
	if c.Required[name(r)] {
		answer(w, http.StatusConflict, map[string]any{"message": "Service " + name(r) + " is required by spark"})
		return
	}
	delete(c.Services, name(r))
	answer(w, http.StatusAccepted, map[string]any{})
}
