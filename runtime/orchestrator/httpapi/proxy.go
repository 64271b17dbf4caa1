package httpapi

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"dcos.example/dcos/runtime/api/marathon"
	"dcos.example/dcos/runtime/server"
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

// ServeHTTP answers, forwards, or says why neither is possible.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if first, _, _ := strings.Cut(strings.TrimLeft(r.URL.Path, "/"), "/"); first == "ping" || first == "metrics" {
		p.Local.ServeHTTP(w, r)
		return
	}
	(&server.Leading{
		Self: p.Self, Local: p.Local, Leads: p.Leading, Leader: p.Leader, Transport: p.Transport, Patience: p.Patience,
		Via: "X-Marathon-Via", ByLeader: "X-Marathon-Leader", Refuse: answer, Log: p.Log,
	}).ServeHTTP(w, r)
}

func answer(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(marathon.Message{Message: text}) // the client is gone if it fails
}
