package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"path"
	"strings"
	"sync"
	"syscall"
	"time"

	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/gateway/route"
)

// mastersOnly are the paths of the masters' port by which masters speak with
// each other, or that have a row of their own. That a user may use the Mesos
// API says nothing of them.
var mastersOnly = []string{"/backups", "/backup-copies", "/membership", "/services"}

// exceptMastersOnly guards a row that passes whole trees on to masters.
func (g *Gateway) exceptMastersOnly(prefix string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rest := path.Clean("/" + strings.TrimPrefix(r.URL.Path, prefix))
		for _, p := range mastersOnly {
			if rest == p || strings.HasPrefix(rest, p+"/") {
				g.notFound(w, r)
				return
			}
		}
		h.ServeHTTP(w, r)
	})
}

// proxyToMaster passes requests below prefix to a port of the leading master.
func (g *Gateway) proxyToMaster(prefix string, port int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		addr, ok := g.cfg.Leader()
		if !ok {
			g.noLeader(w, r)
			return
		}
		rest, ok := strings.CutPrefix(r.URL.EscapedPath(), prefix)
		if !ok || !strings.HasPrefix(rest, "/") { // the prefix was there only after decoding
			g.refuse(w, r, http.StatusBadRequest, "The path has an escaped slash where a plain one is needed.")
			return
		}
		g.proxyToHost(w, r, g.cfg.Masters, fmt.Sprintf("%s:%d", addr, port), prefix, rest)
	})
}

// proxyToOperator passes a request below /service/<name> to the API of that
// service.
func (g *Gateway) proxyToOperator(w http.ResponseWriter, r *http.Request, name, rest string) {
	addr, ok := g.cfg.Leader()
	if !ok {
		g.noLeader(w, r)
		return
	}
	host := fmt.Sprintf("%s:%d", addr, config.PortMaster)
	prefix := strings.TrimSuffix(r.URL.EscapedPath(), rest)
	g.proxy(w, r, g.cfg.Masters, route.Target{Scheme: "https", Host: host, Path: "/services/" + url.PathEscape(name) + rest, Prefix: prefix}, true)
}

func (g *Gateway) noLeader(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Retry-After", "1")
	g.refuse(w, r, http.StatusServiceUnavailable, "No master leads right now. An election takes a few seconds.")
}

// proxyToHost passes a request to a component of the cluster.
func (g *Gateway) proxyToHost(w http.ResponseWriter, r *http.Request, via http.RoundTripper, host, prefix, rest string) {
	g.proxy(w, r, via, route.Target{Scheme: "https", Host: host, Path: rest, Prefix: prefix}, true)
}

// proxyToApp passes a request to what runs in the cluster. It is untrusted:
// it sees the Host that the caller used, but no token of the caller.
func (g *Gateway) proxyToApp(w http.ResponseWriter, r *http.Request, t route.Target) {
	g.proxy(w, r, g.apps, t, false)
}

func (g *Gateway) proxy(w http.ResponseWriter, r *http.Request, via http.RoundTripper, t route.Target, component bool) {
	plain, err := url.PathUnescape(t.Path)
	if err != nil {
		g.refuse(w, r, http.StatusBadRequest, "The path cannot be read.")
		return
	}
	p := &httputil.ReverseProxy{
		Transport:     via,
		FlushInterval: -1, // events and records must not wait for a full buffer
		BufferPool:    g.buffers,
		ErrorLog:      slog.NewLogLogger(g.cfg.Log.Handler(), slog.LevelDebug),
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.Out.URL = &url.URL{Scheme: t.Scheme, Host: t.Host, Path: plain, RawPath: t.Path, RawQuery: pr.In.URL.RawQuery}
			pr.Out.Host = pr.In.Host
			if component {
				pr.Out.Host = t.Host
			}
			pr.SetXForwarded()
			if t.Prefix != "" {
				pr.Out.Header.Set("X-Forwarded-Prefix", t.Prefix)
			}
			stripCredentials(pr.Out)
		},
		ModifyResponse: func(resp *http.Response) error {
			rewriteLocation(resp, r, t)
			keepCookies(resp)
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if errors.Is(err, context.Canceled) && r.Context().Err() != nil {
				return // the caller has gone
			}
			g.cfg.Log.Info("pass on request", "to", t.Host, "path", r.URL.Path, "err", err)
			g.refuse(w, r, http.StatusBadGateway, "What should answer at "+t.Host+" does not: "+reason(err))
		},
	}
	// A caller may send while it receives (ATTACH_CONTAINER_INPUT). HTTP/2
	// does that anyway and has no such switch.
	_ = http.NewResponseController(w).EnableFullDuplex()
	p.ServeHTTP(w, r)
}

// dialApps connects to apps and frameworks. It refuses what only this master
// should reach, by the address that a name has led to: a framework chooses the
// name of its web UI, and on loopback components trust who calls.
func dialApps(names *net.Resolver) func(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: 2 * time.Second, KeepAlive: 15 * time.Second, Resolver: names}
	d.Control = func(_, addr string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(addr)
		if err != nil {
			return err
		}
		if !route.Reachable(ap.Addr()) {
			return fault.Newf("connect to app", fault.Denied, "%s is this master's own", ap.Addr())
		}
		return nil
	}
	return d.DialContext
}

// stripCredentials removes what proves who the caller is to this cluster.
// Nothing behind the gateway needs it, and an app could use it.
func stripCredentials(r *http.Request) {
	r.Header.Del("Authorization")
	cookies := r.Cookies()
	r.Header.Del("Cookie")
	for _, c := range cookies {
		if !ours(c.Name) {
			r.AddCookie(c)
		}
	}
}

// keepCookies drops cookies by which an app would log the user in as another.
func keepCookies(resp *http.Response) {
	set := resp.Cookies()
	lines := resp.Header.Values("Set-Cookie")
	if len(set) == 0 || len(lines) == 0 {
		return
	}
	var keep []string
	for _, line := range lines {
		name, _, _ := strings.Cut(line, "=")
		if !ours(strings.TrimSpace(name)) {
			keep = append(keep, line)
		}
	}
	resp.Header["Set-Cookie"] = keep
}

func ours(cookie string) bool {
	return strings.HasPrefix(cookie, "dcos-acs-") || cookie == csrfCookie
}

// rewriteLocation keeps redirects behind the gateway: what was answered by
// path, or by the address that only the gateway uses, is put below the prefix.
func rewriteLocation(resp *http.Response, in *http.Request, t route.Target) {
	text := resp.Header.Get("Location")
	if text == "" || t.Prefix == "" {
		return
	}
	u, err := url.Parse(text)
	if err != nil {
		return
	}
	own := u.Host == t.Host || u.Host == in.Host
	pathOnly := u.Host == "" && strings.HasPrefix(u.Path, "/") && resp.StatusCode >= 300 && resp.StatusCode < 400
	if !own && !pathOnly {
		return
	}
	to := u.EscapedPath()
	if to != t.Prefix && !strings.HasPrefix(to, t.Prefix+"/") {
		to = t.Prefix + "/" + strings.TrimPrefix(to, "/")
	}
	if u.RawQuery != "" {
		to += "?" + u.RawQuery
	}
	if u.Fragment != "" {
		to += "#" + u.EscapedFragment()
	}
	resp.Header.Set("Location", to)
}

// reason says what went wrong without the details of certificates.
func reason(err error) string {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "its certificate is not one of this cluster."
	}
	if _, ok := errors.AsType[*url.Error](err); ok {
		err = errors.Unwrap(err)
	}
	return err.Error()
}

// bufferPool lends out copy buffers; a pointer to the slice is pooled, so
// that returning one does not allocate.
type bufferPool struct{ pool sync.Pool }

const bufferSize = 32 << 10

func newBufferPool() *bufferPool {
	return &bufferPool{sync.Pool{New: func() any { return new([bufferSize]byte) }}}
}

func (b *bufferPool) Get() []byte { return b.pool.Get().(*[bufferSize]byte)[:] }

func (b *bufferPool) Put(buf []byte) {
	if len(buf) == bufferSize {
		b.pool.Put((*[bufferSize]byte)(buf))
	}
}
