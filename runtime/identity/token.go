package identity

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"math/big"
	"net"
	"net/http"
	"strings"
	"time"

	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/password"
	"github.com/golang-jwt/jwt/v5"
)

// The cookies that DC/OS sets at login.
const (
	AuthCookie = "dcos-acs-auth-cookie"
	InfoCookie = "dcos-acs-info-cookie"
)

// claims are those of DC/OS, and the generation of the user's credentials.
type claims struct {
	UID        string `json:"uid"`
	Generation string `json:"gen,omitempty"`
	jwt.RegisteredClaims
}

// Authenticate returns the user that r comes from: by its Authorization header
// (token=… or Bearer …), else by its cookie. It is fault.Denied when there is
// no valid token and fault.Unavailable when that cannot be told.
func (s *Service) Authenticate(r *http.Request) (uid string, err error) {
	raw, ok := tokenOf(r)
	if !ok {
		return "", fault.Newf("authenticate", fault.Denied, "no token")
	}
	return s.verify(r.Context(), raw)
}

// tokenOf finds the token of a request. A header, even one of another scheme,
// hides the cookie, as in DC/OS.
func tokenOf(r *http.Request) (string, bool) {
	if h := r.Header.Get("Authorization"); h != "" {
		if t, ok := strings.CutPrefix(h, "token="); ok {
			return strings.TrimSpace(t), true
		}
		if scheme, t, ok := strings.Cut(h, " "); ok && strings.EqualFold(scheme, "Bearer") {
			return strings.TrimSpace(t), true
		}
		return "", false
	}
	if c, err := r.Cookie(AuthCookie); err == nil && c.Value != "" {
		return c.Value, true
	}
	return "", false
}

// verify accepts RS256 by the cluster's key alone: naming another algorithm
// in the token's header does not make it one. Expiry is required.
func (s *Service) verify(ctx context.Context, raw string) (string, error) {
	const op = "verify token"
	key, err := s.signer()
	if err != nil {
		return "", err
	}
	var c claims
	_, err = jwt.ParseWithClaims(raw, &c, func(*jwt.Token) (any, error) { return &key.rsa.PublicKey, nil },
		jwt.WithValidMethods([]string{"RS256"}), jwt.WithExpirationRequired(), jwt.WithStrictDecoding())
	if err != nil {
		return "", fault.New(op, fault.Denied, err)
	}
	u, err := s.lookup(ctx, c.UID)
	switch {
	case fault.Is(err, fault.NotFound):
		return "", fault.Newf(op, fault.Denied, "user %s does not exist any more", c.UID)
	case err != nil:
		return "", err
	case subtle.ConstantTimeCompare([]byte(u.Generation), []byte(c.Generation)) != 1:
		return "", fault.Newf(op, fault.Denied, "credentials of %s have changed since", c.UID)
	}
	return c.UID, nil
}

func (s *Service) issue(uid string, u User) (string, error) {
	key, err := s.signer()
	if err != nil {
		return "", err
	}
	now := time.Now()
	t := jwt.NewWithClaims(jwt.SigningMethodRS256, claims{UID: uid, Generation: u.Generation, RegisteredClaims: jwt.RegisteredClaims{
		IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(TokenTTL)),
	}})
	t.Header["kid"] = key.id
	raw, err := t.SignedString(key.rsa)
	if err != nil {
		return "", fault.New("sign token", fault.Internal, err)
	}
	return raw, nil
}

// Login checks a password and returns a token. remote is the caller's address
// ("ip:port" or "ip"), for the limit on attempts. Wrong user and wrong
// password are the same fault.Denied and take the same time; too many attempts
// are fault.Exhausted.
func (s *Service) Login(ctx context.Context, uid, pw, remote string) (token string, err error) {
	const op = "log in"
	if _, err := s.signer(); err != nil {
		return "", err // not set up yet: nobody's attempt
	}
	allowed, release := s.limits.attempt(uid, host(remote))
	if !allowed {
		s.log.Warn("login refused: too many attempts", "user", uid, "remote", remote)
		return "", fault.Newf(op, fault.Exhausted, "too many attempts")
	}
	u, err := s.lookup(ctx, uid)
	if err != nil && !fault.Is(err, fault.NotFound) {
		release()
		return "", err
	}
	hash := u.PasswordHash
	known := err == nil && hash != ""
	if !known {
		hash = s.decoy
	}
	ok, err := s.compare(ctx, hash, pw)
	if err != nil {
		return "", err
	}
	if !ok || !known {
		s.log.Warn("login refused: wrong credentials", "user", uid, "remote", remote)
		return "", fault.Newf(op, fault.Denied, "wrong user ID or password")
	}
	release()
	s.log.Info("login", "user", uid, "remote", remote)
	return s.issue(uid, u)
}

// loginService checks a token that a service signed with its own key.
func (s *Service) loginService(ctx context.Context, uid, raw, remote string) (string, error) {
	const op = "log in service"
	allowed, release := s.limits.attempt(uid, host(remote))
	if !allowed {
		return "", fault.Newf(op, fault.Exhausted, "too many attempts")
	}
	u, err := s.lookup(ctx, uid)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return "", err
	}
	if err != nil || u.PublicKey == "" {
		return "", fault.Newf(op, fault.Denied, "no such service account")
	}
	key, err := parsePublicKey(u.PublicKey)
	if err != nil {
		return "", fault.New(op, fault.Internal, err)
	}
	var c claims
	_, err = jwt.ParseWithClaims(raw, &c, func(*jwt.Token) (any, error) { return key, nil },
		jwt.WithValidMethods([]string{"RS256"}), jwt.WithExpirationRequired(), jwt.WithStrictDecoding())
	if err != nil || c.UID != uid {
		s.log.Warn("service login refused", "user", uid, "remote", remote, "err", err)
		return "", fault.Newf(op, fault.Denied, "service login token is not valid")
	}
	release()
	return s.issue(uid, u)
}

func (s *Service) compare(ctx context.Context, hash, pw string) (bool, error) {
	select {
	case s.hashing <- struct{}{}:
		defer func() { <-s.hashing }()
	case <-ctx.Done():
		return false, fault.New("log in", fault.Unavailable, ctx.Err())
	}
	return password.Verify(hash, pw)
}

// jwk is an RSA key as RFC 7517 has it.
type jwk struct {
	Kty string `json:"kty"`
	Use string `json:"use"`
	Alg string `json:"alg"`
	Kid string `json:"kid"`
	N   string `json:"n"`
	E   string `json:"e"`
}

func (k *signingKey) jwk() jwk {
	enc := base64.RawURLEncoding
	return jwk{
		Kty: "RSA", Use: "sig", Alg: "RS256", Kid: k.id,
		N: enc.EncodeToString(k.rsa.N.Bytes()), E: enc.EncodeToString(big.NewInt(int64(k.rsa.E)).Bytes()),
	}
}

func host(remote string) string {
	if h, _, err := net.SplitHostPort(remote); err == nil {
		return h
	}
	return remote
}
