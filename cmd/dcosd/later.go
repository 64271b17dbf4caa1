package main

import (
	"net/http"
	"sync/atomic"
)

// later is a handler that is set after its port is open: a master listens
// before its store has found the other masters.
type later struct{ h atomic.Pointer[http.Handler] }

func (l *later) set(h http.Handler) { l.h.Store(&h) }

func (l *later) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h := l.h.Load(); h != nil {
		(*h).ServeHTTP(w, r)
		return
	}
	w.Header().Set("Retry-After", "1")
	http.Error(w, "This master is waiting for the others: its store has no quorum yet.", http.StatusServiceUnavailable)
}
