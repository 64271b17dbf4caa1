package server

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"time"
)

// Leading answers requests that only the leading master can: itself while it
// leads, else by asking the leader, whom it waits for if there is none.
type Leading struct {
	Self   string        // host:port of this process's API, to see loops by
	Local  http.Handler  // answers while leading
	Leads  func() bool   // whether Local has its state
	Leader func() string // base URL of the leader's API, "" if there is none or it is us
	// Transport reaches the leader.
	Transport http.RoundTripper
	// Patience is how long a request waits for a leader.
	Patience time.Duration
	// Via is the header that names whom a request went through; ByLeader, if
	// not empty, the one that tells a client who answered.
	Via, ByLeader string
	// Refuse answers what cannot be passed on.
	Refuse func(w http.ResponseWriter, status int, text string)
	Log    *slog.Logger
}

// retry is the pause between two looks for a leader.
const retry = 50 * time.Millisecond

const noLeader = "Could not determine the current leader"

// ServeHTTP answers, forwards, or says why neither is possible.
func (l *Leading) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), l.Patience)
	defer cancel()
	for {
		if l.Leads() {
			l.Local.ServeHTTP(w, r)
			return
		}
		if leader := l.Leader(); leader != "" {
			l.forward(w, r, leader)
			return
		}
		select {
		case <-ctx.Done():
			l.Refuse(w, http.StatusServiceUnavailable, noLeader)
			return
		case <-time.After(retry):
		}
	}
}

func (l *Leading) forward(w http.ResponseWriter, r *http.Request, leader string) {
	target, err := url.Parse(leader)
	if err != nil {
		l.Refuse(w, http.StatusServiceUnavailable, noLeader)
		return
	}
	via := r.Header.Values(l.Via)
	if slices.Contains(via, l.Self) {
		l.Refuse(w, http.StatusBadGateway, "Detected proxying loop.")
		return
	}
	(&httputil.ReverseProxy{
		Transport:     l.Transport,
		FlushInterval: -1, // events must not wait
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.SetURL(target)
			pr.SetXForwarded()
			pr.Out.URL.Path, pr.Out.URL.RawPath = r.URL.Path, r.URL.RawPath
			pr.Out.Header[http.CanonicalHeaderKey(l.Via)] = append(slices.Clone(via), l.Self)
		},
		ModifyResponse: func(resp *http.Response) error {
			if l.ByLeader != "" {
				resp.Header.Set(l.ByLeader, leader)
			}
			resp.Header.Set(l.Via, l.Self)
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			l.Log.Warn("forward to the leader", "leader", leader, "path", r.URL.Path, "err", err)
			l.Refuse(w, http.StatusBadGateway, "Failed to successfully establish a connection to the leader.")
		},
	}).ServeHTTP(w, r)
}
