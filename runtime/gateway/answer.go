package gateway

import (
	"encoding/json"
	"net/http"
	"strings"
)

// refuse answers an error of the gateway itself: a small page for browsers,
// JSON for everyone who asks for it, text for the rest.
func (g *Gateway) refuse(w http.ResponseWriter, r *http.Request, status int, text string) {
	w.Header().Set("Cache-Control", "no-store")
	switch accept := r.Header.Get("Accept"); {
	case strings.Contains(accept, "text/html"):
		g.pages.write(w, status, "error.html", errorPage{Status: status, Title: http.StatusText(status), Text: text})
	case strings.Contains(accept, "application/json"), strings.Contains(accept, "application/vnd.dcos"):
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]string{"message": text}) // the connection is gone: nobody to tell
	default:
		http.Error(w, text, status)
	}
}

// unauthenticated is the 401 that DC/OS's clients know: the CLI reads the
// header, a browser follows the script or, without scripts, the refresh.
func (g *Gateway) unauthenticated(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("WWW-Authenticate", "oauthjwt")
	if accept := r.Header.Get("Accept"); strings.Contains(accept, "application/json") && !strings.Contains(accept, "text/html") {
		g.refuse(w, r, http.StatusUnauthorized, "A login is needed, or the last one has expired: POST /acs/api/v1/auth/login.")
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	g.pages.write(w, http.StatusUnauthorized, "401.html", errorPage{Status: http.StatusUnauthorized})
}

type errorPage struct {
	Status      int
	Title, Text string
}
