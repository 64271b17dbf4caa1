package gateway

import (
	"log/slog"
	"net/http"
)

// audit returns w so that one line is logged when the request is answered: who
// asked for what change from where, and the status that it got. What only
// reads is not logged; the v1 APIs of Mesos read by POST too, and are.
func (g *Gateway) audit(w http.ResponseWriter, r *http.Request, uid string) http.ResponseWriter {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return w
	}
	return &audited{ResponseWriter: w, log: g.cfg.Log.With("user", uid, "method", r.Method, "path", r.URL.Path, "remote", r.RemoteAddr)}
}

// audited logs at the answer's header: streams last for hours.
type audited struct {
	http.ResponseWriter
	log  *slog.Logger
	done bool
}

// Unwrap is for http.ResponseController.
func (a *audited) Unwrap() http.ResponseWriter { return a.ResponseWriter }

func (a *audited) WriteHeader(status int) {
	if !a.done && (status >= 200 || status == http.StatusSwitchingProtocols) {
		a.done = true
		a.log.Info("audit", "status", status)
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *audited) Write(b []byte) (int, error) {
	if !a.done {
		a.done = true
		a.log.Info("audit", "status", http.StatusOK)
	}
	return a.ResponseWriter.Write(b)
}
