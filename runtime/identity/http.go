package identity

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/password"
	"dcos.example/dcos/runtime/state"
)

// Prefix is where Handler is mounted.
const Prefix = "/acs/api/v1"

const (
	minPassword = 5 // what DC/OS asks for
	maxPassword = 1024
	maxBody     = 64 << 10
)

// apiError is an error as DC/OS's identity service words it.
type apiError struct {
	Title       string `json:"title"`
	Description string `json:"description"`
	Code        string `json:"code,omitempty"`
	status      int
}

func (e *apiError) Error() string { return e.Description }

func bad(code, description string) error {
	return &apiError{"Bad Request", description, code, http.StatusBadRequest}
}

// Handler answers Prefix. Below Prefix+"/auth" and at Prefix+"/uiconfig" it
// serves everyone; the caller lets only known users reach the rest.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, h func(http.ResponseWriter, *http.Request) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := h(w, r); err != nil {
				s.answerError(w, r, err)
			}
		})
	}
	handle("GET "+Prefix+"/auth/providers", s.providers)
	handle("POST "+Prefix+"/auth/login", s.login)
	handle("GET "+Prefix+"/auth/logout", s.logout)
	handle("GET "+Prefix+"/auth/jwks", s.jwks)
	handle("GET "+Prefix+"/uiconfig", s.uiConfig)
	handle("GET "+Prefix+"/users", s.listUsers)
	handle("GET "+Prefix+"/users/{$}", s.listUsers)
	handle("GET "+Prefix+"/users/{uid}", s.getUser)
	handle("PUT "+Prefix+"/users/{uid}", s.putUser)
	handle("PATCH "+Prefix+"/users/{uid}", s.patchUser)
	handle("DELETE "+Prefix+"/users/{uid}", s.deleteUser)
	return mux
}

// answerError is the one place where faults become answers.
func (s *Service) answerError(w http.ResponseWriter, r *http.Request, err error) {
	e, ok := errors.AsType[*apiError](err)
	if !ok {
		switch fault.KindOf(err) {
		case fault.Denied:
			e = &apiError{"Unauthorized", "Login failed: invalid credentials.", "ERR_INVALID_CREDENTIALS", http.StatusUnauthorized}
		case fault.Exhausted:
			w.Header().Set("Retry-After", "5")
			e = &apiError{"Too Many Requests", "Too many failed logins. Wait a few seconds and try again.", "ERR_TOO_MANY_ATTEMPTS", http.StatusTooManyRequests}
		case fault.Conflict:
			e = &apiError{"Conflict", "The user was changed at the same time. Try again.", "ERR_CONFLICT", http.StatusConflict}
		case fault.Unavailable:
			e = &apiError{"Service Unavailable", "The cluster's store cannot be reached.", "ERR_UNAVAILABLE", http.StatusServiceUnavailable}
		default:
			s.log.Error("answer identity request", "method", r.Method, "path", r.URL.Path, "err", err)
			e = &apiError{"Internal Server Error", "The identity service met an unexpected condition.", "ERR_INTERNAL", http.StatusInternalServerError}
		}
	}
	answer(w, e.status, e)
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v) // the connection is gone: nobody to tell
}

func (s *Service) providers(w http.ResponseWriter, _ *http.Request) error {
	start := map[string]string{"start_flow_url": Prefix + "/auth/login"}
	answer(w, http.StatusOK, map[string]any{
		"dcos-users": map[string]any{
			"authentication-type": "dcos-uid-password",
			"client-method":       "dcos-usercredential-post-receive-authtoken",
			"description":         "Default DC/OS login provider",
			"config":              start,
		},
		"dcos-services": map[string]any{
			"authentication-type": "dcos-uid-servicekey",
			"client-method":       "dcos-servicecredential-post-receive-authtoken",
			"description":         "Default DC/OS login provider",
			"config":              start,
		},
	})
	return nil
}

func (s *Service) login(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		UID      string `json:"uid"`
		Password string `json:"password"`
		Token    string `json:"token"`
	}
	if err := decode(w, r, &body, false); err != nil {
		return err
	}
	var token string
	var err error
	switch {
	case body.UID == "" && body.Token != "":
		return &apiError{"Unauthorized", "Login by an ID token of an OpenID Connect provider is not set up on this cluster.", "ERR_INVALID_CREDENTIALS", http.StatusUnauthorized}
	case body.UID == "" || body.Password == "" && body.Token == "":
		return bad("ERR_INVALID_DATA", "Unexpected JSON input: `uid` and one of `password` and `token` must be provided")
	case body.Token != "":
		token, err = s.loginService(r.Context(), body.UID, body.Token, r.RemoteAddr)
	default:
		token, err = s.Login(r.Context(), body.UID, body.Password, r.RemoteAddr)
	}
	if err != nil {
		return err
	}
	for _, c := range s.LoginCookies(body.UID, token, r.TLS != nil) {
		http.SetCookie(w, c)
	}
	answer(w, http.StatusOK, map[string]string{"token": token})
	return nil
}

func (s *Service) logout(w http.ResponseWriter, r *http.Request) error {
	for _, c := range s.LogoutCookies(r.TLS != nil) {
		http.SetCookie(w, c)
	}
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	return nil
}

func (s *Service) jwks(w http.ResponseWriter, _ *http.Request) error {
	key, err := s.signer()
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, map[string]any{"keys": []jwk{key.jwk()}})
	return nil
}

// uiConfig is the part of DC/OS's answer that says something true here.
func (s *Service) uiConfig(w http.ResponseWriter, r *http.Request) error {
	objs, _, err := s.users.List(r.Context())
	if err != nil {
		return err
	}
	first := !slices.ContainsFunc(objs, func(o state.Object[User]) bool { return o.Spec.PublicKey == "" })
	off := map[string]bool{"enabled": false}
	answer(w, http.StatusOK, map[string]any{
		"uiConfiguration": map[string]any{"plugins": map[string]any{
			"banner": off, "branding": off, "external-links": off, "authentication": off,
			"oauth": map[string]any{"enabled": true, "authHost": ""},
			"mesos": map[string]string{"logging-strategy": "logrotate"},
		}},
		"clusterConfiguration": map[string]any{"firstUser": first, "id": s.cluster},
	})
	return nil
}

// LoginCookies returns what a login sets: the token, which scripts cannot read, and
// who it is, which they can. A request that a page of another site makes
// the browser send carries neither, unless it is a plain visit (SameSite=Lax).
func (s *Service) LoginCookies(uid, token string, secure bool) []*http.Cookie {
	info, _ := json.Marshal(map[string]any{"uid": uid, "description": uid, "is_remote": false}) // strings and a bool always encode
	age := int(TokenTTL / time.Second)
	return []*http.Cookie{
		cookie(AuthCookie, token, age, true, secure),
		cookie(InfoCookie, base64.StdEncoding.EncodeToString(info), age, false, secure),
	}
}

// LogoutCookies returns what a logout sets.
func (s *Service) LogoutCookies(secure bool) []*http.Cookie {
	return []*http.Cookie{cookie(AuthCookie, "", -1, true, secure), cookie(InfoCookie, "", -1, false, secure)}
}

func cookie(name, value string, age int, httpOnly, secure bool) *http.Cookie {
	return &http.Cookie{Name: name, Value: value, Path: "/", MaxAge: age, HttpOnly: httpOnly, Secure: secure, SameSite: http.SameSiteLaxMode}
}

// userJSON is a user as the API shows it.
type userJSON struct {
	UID          string `json:"uid"`
	URL          string `json:"url"`
	Description  string `json:"description"`
	IsRemote     bool   `json:"is_remote"`
	IsService    bool   `json:"is_service"`
	ProviderType string `json:"provider_type"`
	ProviderID   string `json:"provider_id"`
	PublicKey    string `json:"public_key,omitempty"`
}

func show(uid string, u User) userJSON {
	return userJSON{
		UID: uid, URL: Prefix + "/users/" + url.PathEscape(uid), Description: u.Description,
		IsService: u.PublicKey != "", ProviderType: "internal", PublicKey: u.PublicKey,
	}
}

func (s *Service) listUsers(w http.ResponseWriter, r *http.Request) error {
	objs, _, err := s.users.List(r.Context())
	if err != nil {
		return err
	}
	kind := r.URL.Query().Get("type")
	list := []userJSON{}
	for _, o := range objs {
		service := o.Spec.PublicKey != ""
		if kind == "service" && !service || kind == "user" && service {
			continue
		}
		list = append(list, show(o.ID, o.Spec))
	}
	slices.SortFunc(list, func(a, b userJSON) int { return strings.Compare(a.UID, b.UID) })
	answer(w, http.StatusOK, map[string]any{"array": list})
	return nil
}

func (s *Service) find(r *http.Request) (state.Object[User], error) {
	uid := r.PathValue("uid")
	obj, err := s.users.Get(r.Context(), uid)
	if fault.Is(err, fault.NotFound) {
		return obj, bad("ERR_UNKNOWN_USER_ID", "User with uid `"+uid+"` not known.")
	}
	return obj, err
}

func (s *Service) getUser(w http.ResponseWriter, r *http.Request) error {
	obj, err := s.find(r)
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, show(obj.ID, obj.Spec))
	return nil
}

// userBody is what PUT and PATCH take; nil means not given.
type userBody struct {
	Description  *string `json:"description"`
	Password     *string `json:"password"`
	PublicKey    *string `json:"public_key"`
	ProviderType *string `json:"provider_type"`
	ProviderID   *string `json:"provider_id"`
	CreatorUID   *string `json:"creator_uid"`
	ClusterURL   *string `json:"cluster_url"`
}

// check returns the first thing that is wrong with b, whoever it is for.
func (b userBody) check() error {
	if b.Password != nil && *b.Password == "" {
		return bad("ERR_INVALID_DATA", "`password` must not be empty when provided")
	}
	if b.PublicKey != nil && *b.PublicKey == "" {
		return bad("ERR_INVALID_DATA", "`public_key` must not be empty when provided")
	}
	if b.ProviderType != nil && *b.ProviderType != "" && *b.ProviderType != "internal" {
		return bad("ERR_INVALID_DATA", "Invalid provider_type: this cluster has local users only (`internal`)")
	}
	if b.ProviderID != nil && strings.TrimSpace(*b.ProviderID) != "" {
		return bad("ERR_INVALID_DATA", "Invalid provider_id: provider_id must not be provided unless provider_type is saml or oidc")
	}
	if b.Password != nil {
		if n := len(*b.Password); n < minPassword || n > maxPassword {
			return bad("ERR_INVALID_DATA", "Password does not match rules. It must have 5 to 1024 characters.")
		}
	}
	if b.PublicKey != nil && b.Password == nil {
		if _, err := parsePublicKey(*b.PublicKey); err != nil {
			return bad("ERR_INVALID_PUBLIC_KEY", "Invalid public key: "+err.Error())
		}
	}
	return nil
}

func (s *Service) putUser(w http.ResponseWriter, r *http.Request) error {
	uid := r.PathValue("uid")
	if !validUID(uid) {
		return bad("ERR_INVALID_USER_ID", "Invalid user ID: it must have 1 to 96 characters of a-z A-Z 0-9 - _ @ .")
	}
	var body userBody
	if err := decode(w, r, &body, true); err != nil {
		return err
	}
	if err := body.check(); err != nil {
		return err
	}
	if (body.Password == nil) == (body.PublicKey == nil) {
		return bad("ERR_INVALID_DATA", "One of `password` or `public_key` must be provided")
	}
	gen, err := randomHex(8)
	if err != nil {
		return err
	}
	u := User{Generation: gen, Created: time.Now().UTC()}
	if body.Description != nil {
		u.Description = *body.Description
	}
	if body.PublicKey != nil {
		u.PublicKey = *body.PublicKey
	} else if u.PasswordHash, err = s.hash(r.Context(), *body.Password); err != nil {
		return err
	}
	_, err = s.users.Write(r.Context(), state.Object[User]{ID: uid, Spec: u})
	if fault.Is(err, fault.Conflict) {
		return &apiError{"Conflict", "User with uid `" + uid + "` already exists.", "ERR_USER_EXISTS", http.StatusConflict}
	}
	if err != nil {
		return err
	}
	s.log.Info("user added", "user", uid)
	w.WriteHeader(http.StatusCreated)
	return nil
}

func (s *Service) patchUser(w http.ResponseWriter, r *http.Request) error {
	obj, err := s.find(r)
	if err != nil {
		return err
	}
	var body userBody
	if err := decode(w, r, &body, true); err != nil {
		return err
	}
	if err := body.check(); err != nil {
		return err
	}
	u := &obj.Spec
	switch {
	case body.Description == nil && body.Password == nil && body.PublicKey == nil:
		return bad("ERR_INVALID_DATA", "One of `description` and `password` must be provided")
	case body.Password != nil && u.PublicKey != "":
		return bad("ERR_INVALID_DATA", "A service account has no password")
	case body.PublicKey != nil && u.PublicKey == "":
		return bad("ERR_INVALID_DATA", "Only a service account has a public key")
	}
	if body.Description != nil {
		u.Description = *body.Description
	}
	if body.PublicKey != nil {
		u.PublicKey = *body.PublicKey
	}
	if body.Password != nil {
		if u.PasswordHash, err = s.hash(r.Context(), *body.Password); err != nil {
			return err
		}
	}
	if body.PublicKey != nil || body.Password != nil {
		if u.Generation, err = randomHex(8); err != nil {
			return err
		}
	}
	if _, err := s.users.Write(r.Context(), obj); err != nil {
		return err
	}
	s.log.Info("user changed", "user", obj.ID, "credentials", body.PublicKey != nil || body.Password != nil)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// deleteUser refuses to delete the last person: nobody could log in again.
func (s *Service) deleteUser(w http.ResponseWriter, r *http.Request) error {
	obj, err := s.find(r)
	if err != nil {
		return err
	}
	objs, _, err := s.users.List(r.Context())
	if err != nil {
		return err
	}
	others := slices.ContainsFunc(objs, func(o state.Object[User]) bool { return o.ID != obj.ID && o.Spec.PasswordHash != "" })
	if obj.Spec.PasswordHash != "" && !others {
		return &apiError{"Conflict", "User `" + obj.ID + "` is the last one who can log in. Add another user first.", "ERR_LAST_USER", http.StatusConflict}
	}
	if _, err := s.store.Commit(r.Context(), s.users.Drop(obj)); err != nil {
		return err
	}
	s.log.Info("user deleted", "user", obj.ID)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Service) hash(ctx context.Context, pw string) (string, error) {
	select {
	case s.hashing <- struct{}{}:
		defer func() { <-s.hashing }()
	case <-ctx.Done():
		return "", fault.New("hash password", fault.Unavailable, ctx.Err())
	}
	return password.Hash(pw)
}

// decode reads a JSON body. With strict, members that v does not have are
// refused; a login may carry some that other versions of DC/OS know.
func decode(w http.ResponseWriter, r *http.Request, v any, strict bool) error {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return bad("ERR_INVALID_DATA", "Request body cannot be read: "+err.Error())
	}
	if len(bytes.TrimSpace(b)) == 0 || !strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		return bad("", "Request has bad Content-Type or lacks JSON data")
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	if strict {
		dec.DisallowUnknownFields()
	}
	if err := dec.Decode(v); err != nil {
		return bad("ERR_INVALID_DATA", "Unexpected JSON input: "+err.Error())
	}
	return nil
}
