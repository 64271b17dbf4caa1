// Package server runs HTTP servers for the length of a context and provides
// the transports between components: a listener in memory for those of one
// process, and a client for those of one cluster.
package server

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"dcos.example/dcos/runtime/fault"
	"golang.org/x/sync/errgroup"
)

const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	// drain is how long requests under way at the end keep their context;
	// grace is how long after that they have to return.
	drain = time.Second
	grace = 5 * time.Second
)

// Endpoint is one listener and what answers on it.
type Endpoint struct {
	Name     string // for logs: "gateway", "master loopback"
	Listener net.Listener
	TLS      *tls.Config // nil: in clear
	Handler  http.Handler
}

// Listen opens a TCP listener for an Endpoint.
func Listen(ctx context.Context, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fault.New("listen on "+addr, fault.Unavailable, err)
	}
	return l, nil
}

// Run serves all endpoints until ctx ends, then stops them: no new
// connections, one second for requests under way, then their contexts end
// (that is what ends streams), then connections are cut. It returns nil after
// such a stop and the first error when a server fails on its own. The
// listeners are closed when it returns.
func Run(ctx context.Context, log *slog.Logger, endpoints ...Endpoint) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, e := range endpoints {
		g.Go(func() error { return serve(ctx, log, e) })
	}
	return g.Wait()
}

func serve(ctx context.Context, log *slog.Logger, e Endpoint) error {
	reqCtx, endRequests := context.WithCancel(context.WithoutCancel(ctx))
	defer endRequests()
	srv := &http.Server{
		Handler:           Logged(log.With("server", e.Name), e.Handler),
		TLSConfig:         e.TLS,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    64 << 10,
		BaseContext:       func(net.Listener) context.Context { return reqCtx },
		ErrorLog:          slog.NewLogLogger(log.With("server", e.Name).Handler(), slog.LevelDebug),
	}
	done := make(chan error, 1)
	go func() {
		if e.TLS != nil {
			done <- srv.ServeTLS(e.Listener, "", "")
		} else {
			done <- srv.Serve(e.Listener)
		}
	}()
	select {
	case err := <-done:
		return fault.New("serve "+e.Name, fault.Unavailable, err)
	case <-ctx.Done():
	}
	end := time.AfterFunc(drain, endRequests)
	defer end.Stop()
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain+grace)
	defer cancel()
	err := srv.Shutdown(stop)
	if err != nil {
		log.Warn("requests cut at shutdown", "server", e.Name, "err", err)
		_ = srv.Close() // cuts what Shutdown waited for; its error repeats the one logged
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return fault.New("serve "+e.Name, fault.Unavailable, err)
	}
	return nil
}

// Logged writes one debug line per request, and sees to it that a handler that
// did not finish does not look as if it had, when nothing was sent yet: a panic
// becomes a logged error and a 500, and a request whose context ended, as all
// do when the server stops, a 503. Without an answer of the handler's net/http
// would send 200. Run wraps every handler in it.
func Logged(log *slog.Logger, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		rec := &recorder{ResponseWriter: w}
		defer func() {
			v := recover()
			if v == http.ErrAbortHandler {
				panic(v)
			}
			if v != nil {
				log.Error("handler panics", "method", r.Method, "path", r.URL.Path, "panic", v, "stack", string(debug.Stack()))
				if rec.status != 0 {
					panic(http.ErrAbortHandler) // half an answer must not look whole
				}
				http.Error(rec, "500 Internal Server Error", http.StatusInternalServerError)
			}
			log.Debug("request", "method", r.Method, "path", r.URL.Path, "status", rec.status,
				"bytes", rec.bytes, "duration", time.Since(start), "remote", r.RemoteAddr)
		}()
		h.ServeHTTP(rec, r)
		if rec.status == 0 && r.Context().Err() != nil {
			http.Error(rec, "503 Service Unavailable: this server stops", http.StatusServiceUnavailable)
		}
	})
}

// recorder notes what was answered. It keeps Flush and Hijack for handlers
// that assert them instead of asking http.ResponseController.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && status >= 200 || status == http.StatusSwitchingProtocols {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(b)
	r.bytes += int64(n)
	return n, err
}

func (r *recorder) Flush() {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	_ = http.NewResponseController(r.ResponseWriter).Flush() // Flusher has no way to say it
}

func (r *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(r.ResponseWriter).Hijack()
	if err == nil {
		r.status = http.StatusSwitchingProtocols
	}
	return conn, rw, err
}
