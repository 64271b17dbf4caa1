package gateway

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/feed"
	"dcos.example/dcos/runtime/gateway/route"
	"dcos.example/dcos/runtime/task"
)

// access is who may use a row of the table.
type access uint8

const (
	everyone access = iota // also callers without a token
	users                  // any user of the cluster
	admins                 // the cluster's administrator
)

func (a access) String() string { return [...]string{"everyone", "users", "admins"}[a] }

// row is one line of the table. A path that ends in "/" stands for all below
// it; of several rows that fit the longest counts.
type row struct {
	path    string
	access  access
	says    string // what answers, for the golden file and for readers
	handler http.Handler
}

const caPath = "/ca/dcos-ca.crt"

// plainHost is a Host header that may be repeated in a redirect.
var plainHost = regexp.MustCompile(`^([a-zA-Z0-9.-]{1,253}|\[[0-9a-fA-F:.]{2,45}\])$`)

// frontDoor is the whole front door.
func (g *Gateway) frontDoor() []row {
	fn := func(f http.HandlerFunc) http.Handler { return f }
	master := g.proxyToMaster
	rows := []row{
		{"/", everyone, "page or login", fn(g.home)},
		{"/login", everyone, "login form", fn(g.login)},
		{"/logout", everyone, "end session", fn(g.logout)},
		{caPath, everyone, "CA certificate", fn(g.caCert)},
		{"/dcos-metadata/dcos-version.json", everyone, "version", fn(g.version)},
		{"/dcos-metadata/ui-config.json", everyone, "identity /acs/api/v1/uiconfig", fn(g.uiConfig)},
		{"/acs/api/v1/auth/", everyone, "identity", g.cfg.Identity},
		{"/acs/api/v1/uiconfig", everyone, "identity", g.cfg.Identity},
		{"/acs/api/v1/", users, "identity", g.cfg.Identity},
		{"/metadata", users, "cluster id", fn(g.metadata)},
		{"/pkgpanda/active.buildinfo.full.json", users, "components", fn(g.components)},
		{"/mesos", everyone, "301 /mesos/", redirect(http.StatusMovedPermanently)},
		{"/mesos/", users, "leader :5050", g.exceptMastersOnly("/mesos", master("/mesos", config.PortMaster))},
		{"/marathon", everyone, "307 /marathon/", redirect(http.StatusTemporaryRedirect)},
		{"/marathon/", users, "leader :8080", master("/marathon", config.PortOrchestrator)},
		{"/service/marathon", everyone, "301 /service/marathon/", redirect(http.StatusMovedPermanently)},
		{"/service/marathon/", users, "leader :8080", master("/service/marathon", config.PortOrchestrator)},
		{"/service/", users, "app or framework by name", fn(g.service)},
		{"/services", everyone, "301 /services/", redirect(http.StatusMovedPermanently)},
		{"/services/", users, "leader :5050", master("", config.PortMaster)},
		{"/package/", users, "catalog", g.inside(g.cfg.Catalog)},
		// A repository decides what everybody installs, and masters fetch it.
		{"/package/repository/add", admins, "catalog", g.inside(g.cfg.Catalog)},
		{"/package/repository/delete", admins, "catalog", g.inside(g.cfg.Catalog)},
		{"/cosmos/", users, "catalog", g.inside(g.cfg.Catalog)},
		{"/capabilities", users, "catalog", g.inside(g.cfg.Catalog)},
		{"/slave/", users, "agent :5051", fn(g.agent)},
		{"/agent/", users, "agent :5051", fn(g.agent)},
		{"/mesos_dns", everyone, "301 /mesos_dns/", redirect(http.StatusMovedPermanently)},
		{"/mesos_dns/", users, "DNS API", g.stripped("/mesos_dns", g.cfg.DNS)},
		{"/net", everyone, "301 /net/", redirect(http.StatusMovedPermanently)},
		{"/net/v1/nodes", users, "hosts", fn(g.nodes)},
		{"/net/v1/vips", users, "VIPs", g.stripped("/net", g.cfg.VIPs)},
		{"/system/v1/backups", admins, "leader :5050", master("/system/v1", config.PortMaster)},
		{"/system/v1/backups/", admins, "leader :5050", master("/system/v1", config.PortMaster)},
		{"/system/v1/members", admins, "masters", g.stripped("/system/v1", g.cfg.Membership)},
		{"/system/v1/members/", admins, "masters", g.stripped("/system/v1", g.cfg.Membership)},
		{"/system/v1/installer-state", admins, "the installer's state", g.cfg.Deposit},
	}
	for i := range rows {
		if rows[i].handler == nil {
			rows[i].handler = fn(g.notFound)
		}
	}
	// Longest first, so that the first row that fits is the one.
	slices.SortStableFunc(rows, func(a, b row) int { return len(b.path) - len(a.path) })
	return rows
}

// match returns the row of path. There are some two dozen rows, so a walk
// beats anything cleverer.
func (g *Gateway) match(asked string) row {
	for _, r := range g.routes {
		if asked == r.path || len(r.path) > 1 && strings.HasSuffix(r.path, "/") && strings.HasPrefix(asked, r.path) {
			return r
		}
	}
	return row{access: users, handler: http.HandlerFunc(g.notFound)}
}

// unsafePath reports a path that means one thing to the table and perhaps
// another to who answers: with "." or ".." segments, plain or escaped, or
// with an escaped slash among the segments that the table reads.
func unsafePath(u *url.URL) bool {
	for seg := range strings.SplitSeq(strings.ReplaceAll(u.Path, `\`, "/"), "/") {
		if seg == "." || seg == ".." {
			return true
		}
	}
	if u.RawPath == "" {
		return false
	}
	// /service/a%2Fb and /agent/x/files%2F… are fine; /me%73os is not.
	first, _, _ := strings.Cut(strings.TrimPrefix(u.RawPath, "/"), "/")
	return strings.Contains(first, "%")
}

// redirect adds a slash. The answer names no host, so that a forged Host
// header leads nowhere.
func redirect(status int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		to := url.URL{Path: r.URL.Path + "/", RawQuery: r.URL.RawQuery}
		w.Header().Set("Location", to.String())
		w.WriteHeader(status)
	})
}

func (g *Gateway) stripped(prefix string, h http.Handler) http.Handler {
	if h == nil {
		return nil
	}
	return http.StripPrefix(prefix, h)
}

// inside is for a component of this process that needs to know nothing of who
// calls. It is nil for nil. A path that the component might read as another
// than the table does is none.
func (g *Gateway) inside(h http.Handler) http.Handler {
	if h == nil {
		return nil
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if path.Clean(r.URL.Path) != r.URL.Path {
			g.notFound(w, r)
			return
		}
		in := r.Clone(r.Context())
		stripCredentials(in)
		h.ServeHTTP(w, in)
	})
}

func (g *Gateway) service(w http.ResponseWriter, r *http.Request) {
	if name, rest, ok := route.Operated(r.URL.EscapedPath(), g.operated); ok {
		g.proxyToOperator(w, r, name, rest)
		return
	}
	rest := strings.TrimPrefix(r.URL.Path, "/service/")
	if rest != "" && !strings.Contains(rest, "/") {
		redirect(http.StatusMovedPermanently).ServeHTTP(w, r)
		return
	}
	target, ok := g.services().Resolve(r.URL.EscapedPath())
	if !ok {
		g.refuse(w, r, http.StatusNotFound, "Service not found. It may not be running, or may have no label DCOS_SERVICE_NAME.")
		return
	}
	g.proxyToApp(w, r, target)
}

func (g *Gateway) agent(w http.ResponseWriter, r *http.Request) {
	escaped := r.URL.EscapedPath()
	prefix, rest, ok := cutSegments(escaped, 2)
	if !ok {
		redirectOrMissing(g, w, r)
		return
	}
	_, id, _ := strings.Cut(prefix[1:], "/")
	a, ok := g.cfg.View().Agent(task.AgentID(id))
	if !ok || !a.Addr.IsValid() {
		g.refuse(w, r, http.StatusNotFound, "Agent "+id+" is not registered.")
		return
	}
	g.proxyToHost(w, r, g.cfg.Agents, fmt.Sprintf("%s:%d", a.Addr, cmp.Or(a.Port, config.PortAgent)), prefix, rest)
}

// redirectOrMissing answers /agent/<id> and /agent/.
func redirectOrMissing(g *Gateway, w http.ResponseWriter, r *http.Request) {
	if strings.Count(r.URL.Path, "/") == 2 && !strings.HasSuffix(r.URL.Path, "/") {
		redirect(http.StatusMovedPermanently).ServeHTTP(w, r)
		return
	}
	g.notFound(w, r)
}

// cutSegments splits "/a/b/c/d" after n segments: "/a/b" and "/c/d".
func cutSegments(path string, n int) (prefix, rest string, ok bool) {
	at := 0
	for range n {
		i := strings.IndexByte(path[at+1:], '/')
		if i <= 0 {
			return "", "", false
		}
		at += 1 + i
	}
	return path[:at], path[at:], true
}

func (g *Gateway) caCert(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/x-x509-ca-cert")
	_, _ = w.Write(g.cfg.CAPEM)
}

func (g *Gateway) uiConfig(w http.ResponseWriter, r *http.Request) {
	if g.cfg.Identity == nil {
		g.notFound(w, r)
		return
	}
	in := r.Clone(r.Context())
	in.URL = &url.URL{Path: "/acs/api/v1/uiconfig"}
	g.cfg.Identity.ServeHTTP(w, in)
}

func (g *Gateway) version(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, map[string]string{
		"version": g.cfg.Cluster.Release, "dcos-variant": "open", "dcos-image-commit": "", "bootstrap-id": "",
	})
}

func (g *Gateway) metadata(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, map[string]string{"PUBLIC_IPV4": g.cfg.Host.Addr.String(), "CLUSTER_ID": g.cfg.Cluster.ID})
}

// components is what the DC/OS CLI asks for to see whether its token is good.
func (g *Gateway) components(w http.ResponseWriter, _ *http.Request) {
	type component struct {
		Name    string `json:"name"`
		Version string `json:"version"`
	}
	all := make(map[string]component, len(g.cfg.Components))
	for name, version := range g.cfg.Components {
		all[name] = component{name, version}
	}
	writeJSON(w, all)
}

// nodes is dcos-net's list of hosts: the masters and the registered agents.
func (g *Gateway) nodes(w http.ResponseWriter, _ *http.Request) {
	type node struct {
		PrivateIP string   `json:"private_ip"`
		PublicIPs []string `json:"public_ips"`
		Hostname  string   `json:"hostname"`
		Updated   string   `json:"updated"`
	}
	now := time.Now().UTC().Format(time.RFC3339)
	byIP := make(map[string]node)
	for _, m := range g.cfg.Members() {
		byIP[m.Addr.String()] = node{m.Addr.String(), []string{}, m.Name, now}
	}
	for a := range agents(g.cfg.View()) {
		if a.Active {
			byIP[a.Addr.String()] = node{a.Addr.String(), []string{}, a.Hostname, now}
		}
	}
	list := make([]node, 0, len(byIP))
	for _, ip := range slices.Sorted(maps.Keys(byIP)) {
		list = append(list, byIP[ip])
	}
	writeJSON(w, list)
}

// agents yields those whose address is known.
func agents(view *feed.View) func(func(*feed.Agent) bool) {
	return func(yield func(*feed.Agent) bool) {
		for a := range view.Agents() {
			if a.Addr.IsValid() && !yield(a) {
				return
			}
		}
	}
}

func (g *Gateway) notFound(w http.ResponseWriter, r *http.Request) {
	g.refuse(w, r, http.StatusNotFound, "Nothing is at "+r.URL.Path+".")
}
