package master

import (
	"net/http"

	"dcos.example/dcos/runtime/pki"
)

// Who may do what (ADR 8): a caller with an agent's certificate may use the
// agents' link and read; masters, and who reaches this process without TLS,
// which is on loopback or inside it, may do everything but act as an agent.

// agentsOnly refuses who has no agent's certificate.
func (m *Master) agentsOnly(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !m.opt.PlainAgents && pki.PeerRole(r) != pki.RoleAgent {
			http.Error(w, "only agents may use this link", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// notForAgents refuses who has an agent's certificate: a framework, even one
// that runs on an agent, comes through the gateway with a user's token.
func notForAgents(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !mayChange(r) {
			http.Error(w, "an agent's certificate is not enough here; frameworks connect through the gateway, /mesos/api/v1/scheduler, with a user's token", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// mayChange reports whether the caller may change the cluster by a call.
func mayChange(r *http.Request) bool { return pki.PeerRole(r) != pki.RoleAgent }
