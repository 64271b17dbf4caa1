package main

import (
	"net/http"
	"strings"
	"sync/atomic"
)

// later is a handler that is set after its port is open: a master listens
// before it has its place among the masters.
type later struct {
	h      atomic.Pointer[http.Handler]
	reason func() string // why there is none yet
}

func (l *later) set(h http.Handler) { l.h.Store(&h) }

func (l *later) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h := l.h.Load(); h != nil {
		(*h).ServeHTTP(w, r)
		return
	}
	w.Header().Set("Retry-After", "1")
	http.Error(w, "This master does not serve yet: "+strings.TrimSuffix(l.reason(), ".")+".", http.StatusServiceUnavailable)
}
