package httpapi

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"time"

	"dcos.example/dcos/runtime/api/marathon"
)

// Headers of requests that went through another master.
const (
	headerLeader = "X-Marathon-Leader"
	headerVia    = "X-Marathon-Via"
)

// Proxy hands requests to the leader and answers the rest itself.
type Proxy struct {
	Self    string        // host:port of this process's API, to see loops by
	Local   http.Handler  // answers while leading, and what any process answers
	Leading func() bool   // whether Local has its state
	Leader  func() string // base URL of the leader's API, "" if there is none or it is us
	// Transport reaches the leader.
	Transport http.RoundTripper
	// Patience is how long a request waits for a leader.
	Patience time.Duration
	Log      *slog.Logger
}

// retry is the pause between two looks for a leader.
const retry = 50 * time.Millisecond

// ServeHTTP answers, forwards, or says why neither is possible.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if first, _, _ := strings.Cut(strings.TrimLeft(r.URL.Path, "/"), "/"); first == "ping" || first == "metrics" {
		p.Local.ServeHTTP(w, r)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), p.Patience)
	defer cancel()
	for {
		if p.Leading() {
			p.Local.ServeHTTP(w, r)
			return
		}
		if leader := p.Leader(); leader != "" {
			p.forward(w, r, leader)
			return
		}
		select {
		case <-ctx.Done():
			answer(w, http.StatusServiceUnavailable, "Could not determine the current leader")
			return
		case <-time.After(retry):
		}
	}
}

func (p *Proxy) forward(w http.ResponseWriter, r *http.Request, leader string) {
	target, err := url.Parse(leader)
	if err != nil {
		answer(w, http.StatusServiceUnavailable, "Could not determine the current leader")
		return
	}
	via := r.Header.Values(headerVia)
	if slices.ContainsFunc(via, func(v string) bool { return v == p.Self }) {
		answer(w, http.StatusBadGateway, "Detected proxying loop.")
		return
	}
	(&httputil.ReverseProxy{
		Transport:     p.Transport,
		FlushInterval: -1, // events must not wait
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.SetURL(target)
			pr.SetXForwarded()
			pr.Out.URL.Path, pr.Out.URL.RawPath = r.URL.Path, r.URL.RawPath
			pr.Out.Header[headerVia] = append(slices.Clone(via), p.Self)
		},
		ModifyResponse: func(resp *http.Response) error {
			resp.Header.Set(headerLeader, leader)
			resp.Header.Set(headerVia, p.Self)
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			p.Log.Warn("forward to the leader", "leader", leader, "path", r.URL.Path, "err", err)
			answer(w, http.StatusBadGateway, "Failed to successfully establish a connection to the leader.")
		},
	}).ServeHTTP(w, r)
}

func answer(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(marathon.Message{Message: text}) // the client is gone if it fails
}
