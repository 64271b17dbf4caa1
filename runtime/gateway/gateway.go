// Package gateway is the front door of the cluster: one HTTPS address on
// every master where people, the CLI and DC/OS's clients reach everything.
//
// Every path is in one table (routes.go) that says who may ask and who
// answers. What is not in the table needs a token and does not exist. Callers'
// tokens and cookies end here: components behind the gateway see the master's
// own certificate, apps see neither.
package gateway

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"

	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/feed"
	"dcos.example/dcos/runtime/gateway/route"
	"dcos.example/dcos/runtime/server"
)

// authenticator says who a caller is: runtime/identity.
type authenticator interface {
	// Authenticate is fault.Denied for a caller without a valid token.
	Authenticate(r *http.Request) (uid string, err error)
	// Login is fault.Denied for wrong credentials and fault.Exhausted after
	// too many attempts.
	Login(ctx context.Context, uid, password, remote string) (token string, err error)
	LoginCookies(uid, token string, secure bool) []*http.Cookie
	LogoutCookies(secure bool) []*http.Cookie
}

// Config is what a Gateway is made from. Handlers that are nil answer 404.
type Config struct {
	Cluster config.Cluster
	Host    config.Host
	CAPEM   []byte // the cluster CA's certificate

	Auth     authenticator
	Identity http.Handler // answers /acs/api/v1/…

	Leader  func() (netip.Addr, bool) // the leading master's address
	Members func() []config.Member    // the masters there are now
	View    func() *feed.View         // what runs
	Masters http.RoundTripper         // to masters' TLS ports, with this master's certificate
	Agents  http.RoundTripper         // to agents' TLS ports, likewise

	// Operated reports whether the operator has a service of that name, which
	// may hold slashes; nil: it has none.
	Operated func(name string) bool
	Catalog  http.Handler // /package/…, /cosmos/… and /capabilities

	DNS  http.Handler // Mesos-DNS API: /v1/…
	VIPs http.Handler // GET /v1/vips

	// Admin is the user who may use what the table keeps for admins; empty:
	// nobody.
	Admin   string
	Deposit http.Handler // the installer's state
	// Membership answers /members and what is below.
	Membership http.Handler

	// Components of the release and their versions, as /pkgpanda shows them.
	Components map[string]string
	Log        *slog.Logger
}

// Gateway is the handler of one master's front door.
type Gateway struct {
	cfg    Config
	routes []row
	apps   http.RoundTripper
	cross  *http.CrossOriginProtection
	pages  *pages
	// streams of every kind pass through the same buffers
	buffers *bufferPool

	mu    sync.Mutex
	table *route.Table
	built *feed.View // what table was made from
}

// New returns a Gateway.
func New(cfg Config) (*Gateway, error) {
	p, err := newPages()
	if err != nil {
		return nil, err
	}
	g := &Gateway{cfg: cfg, pages: p, cross: http.NewCrossOriginProtection(), buffers: newBufferPool()}
	// Apps' certificates are their own affair: the gateway cannot know who
	// should have signed them, and it reaches them by the address that the
	// agent reported.
	apps := server.Transport(&tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}) //nolint:gosec // see above
	apps.DialContext = dialApps(nil)
	g.apps = apps
	g.routes = g.frontDoor()
	return g, nil
}

// ServeHTTP finds the row of the path, asks who calls, and passes on.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if unsafePath(r.URL) {
		g.refuse(w, r, http.StatusBadRequest, "The path has segments that lead upward or cannot be read.")
		return
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	row := g.match(r.URL.Path)
	if row.access == everyone {
		row.handler.ServeHTTP(g.audit(w, r, ""), r) // logins, by the status that they got
		return
	}
	uid, err := g.cfg.Auth.Authenticate(r)
	switch {
	case fault.Is(err, fault.Denied):
		g.unauthenticated(w, r)
		return
	case err != nil:
		g.cfg.Log.Warn("authenticate caller", "err", err)
		g.refuse(w, r, http.StatusServiceUnavailable, "The cluster's store cannot be reached, so nobody can be recognized right now.")
		return
	}
	if r.Header.Get("Authorization") == "" && !g.sameOrigin(r) {
		g.refuse(g.audit(w, r, uid), r, http.StatusForbidden, "The request was made by a page of another origin.")
		return
	}
	w = g.audit(w, r, uid)
	if row.access == admins && uid != g.cfg.Admin {
		g.refuse(w, r, http.StatusForbidden, "Only the cluster's administrator may do this.")
		return
	}
	row.handler.ServeHTTP(w, r)
}

// sameOrigin refuses what another site's page can make a browser send with
// the user's cookie: changes, and websockets, which start as a plain GET.
func (g *Gateway) sameOrigin(r *http.Request) bool {
	if g.cross.Check(r) != nil {
		return false
	}
	if r.Header.Get("Upgrade") == "" {
		return true
	}
	origin := r.Header.Get("Origin")
	return origin == "" || origin == "https://"+r.Host
}

// services returns the table of /service/ names for what runs now. It is made
// anew when the view has changed and somebody asks: the cost is one pass over
// the tasks per change at most.
func (g *Gateway) services() *route.Table {
	view := g.cfg.View()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.table != nil && g.built == view {
		return g.table
	}
	table, errs := route.New(instances(view), frameworks(view))
	for _, err := range errs {
		g.cfg.Log.Debug("service not routed", "err", err)
	}
	g.table, g.built = table, view
	return table
}

func (g *Gateway) operated(name string) bool { return g.cfg.Operated != nil && g.cfg.Operated(name) }

func instances(view *feed.View) []route.Instance {
	var list []route.Instance
	for t := range view.Tasks() {
		if !t.Serving() {
			continue
		}
		in := route.Instance{ID: string(t.Framework) + " " + string(t.Task), TaskName: t.Name, Labels: make(map[string]string, len(t.Labels))}
		for _, l := range t.Labels {
			in.Labels[l.GetKey()] = l.GetValue()
		}
		host, onHost := view.HostAddr(t)
		own, isolated := view.OwnAddr(t)
		switch {
		case len(t.HostPorts) > 0 && onHost:
			in.Host = host.String()
			for _, p := range t.HostPorts {
				in.Ports = append(in.Ports, int(p))
			}
		case isolated:
			in.Host = own.String()
			for _, p := range t.Discovery.GetPorts().GetPorts() {
				in.Ports = append(in.Ports, int(p.GetNumber()))
			}
		}
		list = append(list, in)
	}
	return list
}

func frameworks(view *feed.View) []route.Framework {
	var list []route.Framework
	for f := range view.Frameworks() {
		if f.Active {
			list = append(list, route.Framework{ID: string(f.ID), Name: f.Name, WebUI: f.WebUI})
		}
	}
	return list
}

// Plain returns the handler of port 80: everything leads to HTTPS, except the
// CA certificate, which a client needs before it can trust HTTPS.
func (g *Gateway) Plain() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == caPath {
			g.caCert(w, r)
			return
		}
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		if !plainHost.MatchString(host) {
			host = g.cfg.Host.Addr.String()
		}
		w.Header().Set("Location", "https://"+host+r.URL.RequestURI())
		w.WriteHeader(http.StatusPermanentRedirect)
	})
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(v) // the connection is gone: nobody to tell
}
