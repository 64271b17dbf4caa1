package httpapi

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/pki"
)

// users is who knows the cluster's users.
type users interface {
	// Authenticate returns the user whose token a request has; fault.Denied
	// without a valid one, fault.Unavailable when that cannot be told.
	Authenticate(r *http.Request) (uid string, err error)
	// Login checks a password and returns a token; remote is the caller's
	// address.
	Login(ctx context.Context, uid, password, remote string) (token string, err error)
}

// Guard decides who may do what: hosts of the cluster read, by their
// certificates; users read, and the administrator writes, by password or by
// token, which may stand in the place of the password.
type Guard struct {
	users users
	admin string

	mu sync.Mutex
	// tokens has a token for each password that was right, by a code of it: a
	// push is hundreds of requests, and checking a password is meant to be
	// slow. Tokens end with the password that they were given for.
	tokens map[[sha256.Size]byte]string
	key    []byte
}

// maxTokens bounds what is remembered.
const maxTokens = 1000

// NewGuard returns a Guard that lets admin write.
func NewGuard(u users, admin string) *Guard {
	return &Guard{users: u, admin: admin, tokens: map[[sha256.Size]byte]string{}, key: []byte(rand.Text())}
}

const challenge = `Basic realm="DC/OS images", charset="UTF-8"`

// admit returns nil when the caller of r may do what it asks.
func (g *Guard) admit(w http.ResponseWriter, r *http.Request) error {
	reads := r.Method == http.MethodGet || r.Method == http.MethodHead
	if role, name, ok := pki.Peer(r); ok && r.Header.Get("Authorization") == "" {
		if reads && !strings.Contains(r.URL.Path, "/blobs/uploads/") {
			return nil
		}
		return wrong(codeDenied, http.StatusForbidden, "%s %s may only pull", role, name)
	}
	uid, err := g.user(r)
	switch {
	case fault.Is(err, fault.Denied):
		w.Header().Set("WWW-Authenticate", challenge)
		return &apiError{codeUnauthorized, http.StatusUnauthorized, err}
	case fault.Is(err, fault.Exhausted):
		w.Header().Set("Retry-After", "5")
		return &apiError{codeTooMany, http.StatusTooManyRequests, err}
	case err != nil:
		return err
	}
	if !reads && uid != g.admin {
		return wrong(codeDenied, http.StatusForbidden, "user %s may only pull; %s may push", uid, g.admin)
	}
	return nil
}

// user returns who the caller says he is, and shows to be.
func (g *Guard) user(r *http.Request) (string, error) {
	uid, pw, ok := r.BasicAuth()
	if !ok { // cookies do not count: pages of others make browsers send them
		return g.authenticate(r, r.Header.Get("Authorization"))
	}
	if strings.Count(pw, ".") == 2 { // clients that know passwords only take a token for one
		who, err := g.authenticate(r, "Bearer "+pw)
		if err == nil && who == uid || fault.Is(err, fault.Unavailable) {
			return who, err
		}
	}
	mac := hmac.New(sha256.New, g.key)
	fmt.Fprintf(mac, "%d %s%s", len(uid), uid, pw)
	id := [sha256.Size]byte(mac.Sum(nil))
	g.mu.Lock()
	token := g.tokens[id]
	g.mu.Unlock()
	if token != "" {
		who, err := g.authenticate(r, "Bearer "+token)
		if !fault.Is(err, fault.Denied) {
			return who, err
		}
	}
	token, err := g.users.Login(r.Context(), uid, pw, r.RemoteAddr)
	if err != nil {
		return "", err
	}
	g.mu.Lock()
	if len(g.tokens) >= maxTokens {
		clear(g.tokens) // the price is one slow check for each
	}
	g.tokens[id] = token
	g.mu.Unlock()
	return g.authenticate(r, "Bearer "+token)
}

func (g *Guard) authenticate(r *http.Request, authorization string) (string, error) {
	with := &http.Request{Method: r.Method, URL: r.URL, RemoteAddr: r.RemoteAddr, Header: http.Header{}}
	if authorization != "" {
		with.Header.Set("Authorization", authorization)
	}
	return g.users.Authenticate(with.WithContext(r.Context()))
}
