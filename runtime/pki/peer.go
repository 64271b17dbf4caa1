package pki

import (
	"crypto/x509"
	"net/http"
	"slices"
)

// Peer is the role and host name that the caller's verified certificate says,
// and false when the connection has none.
func Peer(r *http.Request) (Role, string, bool) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return "", "", false
	}
	leaf := r.TLS.VerifiedChains[0][0]
	role, ok := roleOf(leaf)
	return role, leaf.Subject.CommonName, ok
}

// PeerRole is the role of the caller, empty when it has no certificate of the
// cluster.
func PeerRole(r *http.Request) Role {
	role, _, _ := Peer(r)
	return role
}

// RequireRole passes on requests whose caller has one of roles and answers
// the others 403. It is for handlers behind ServerTLS; a listener in clear
// must not use it, since nobody there has a certificate.
func RequireRole(h http.Handler, roles ...Role) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if role, _, ok := Peer(r); !ok || !slices.Contains(roles, role) {
			http.Error(w, "a certificate of this cluster with another role is needed here", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// roleOf wants exactly one organizational unit: a certificate that says more
// was not made by this package.
func roleOf(cert *x509.Certificate) (Role, bool) {
	if len(cert.Subject.OrganizationalUnit) != 1 {
		return "", false
	}
	role := Role(cert.Subject.OrganizationalUnit[0])
	return role, role == RoleMaster || role == RoleAgent
}
