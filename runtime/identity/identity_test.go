package identity_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/identity"
	"dcos.example/dcos/runtime/password"
	"dcos.example/dcos/runtime/state"
	"dcos.example/dcos/runtime/state/memory"
	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"
)

const adminPassword = "correct horse"

var adminHash = sync.OnceValue(func() string {
	h, err := password.Hash(adminPassword)
	if err != nil {
		panic(err)
	}
	return h
})

// start runs a Service over store until the test ends.
func start(t *testing.T, store state.Backend) *identity.Service {
	t.Helper()
	s, err := identity.New(identity.Config{
		Store: store, SealKey: bytes.Repeat([]byte{7}, 32), ClusterID: "cluster-1",
		First: identity.FirstUser{UID: "admin", PasswordHash: adminHash()}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Run(ctx); err != nil {
			t.Errorf("Run = %v", err)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return s
}

// ready starts a Service and waits, in the bubble, until it follows the store.
func ready(t *testing.T, store state.Backend) *identity.Service {
	t.Helper()
	s := start(t, store)
	synctest.Wait()
	return s
}

func call(t *testing.T, s *identity.Service, method, path, body string) (int, map[string]any, *http.Response) {
	t.Helper()
	r := httptest.NewRequest(method, identity.Prefix+path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	var v map[string]any
	if w.Body.Len() > 0 {
		if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
			t.Fatalf("%s %s: %q: %v", method, path, w.Body, err)
		}
	}
	return w.Code, v, w.Result()
}

func withToken(token string) *http.Request {
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Authorization", "token="+token)
	return r
}

func TestFirstBootAndLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		one, two := start(t, store), start(t, store) // two masters race
		synctest.Wait()
		status, v, resp := call(t, one, "POST", "/auth/login", `{"uid":"admin","password":"`+adminPassword+`"}`)
		if status != 200 {
			t.Fatalf("login = %d %v", status, v)
		}
		token := v["token"].(string)
		for i, s := range []*identity.Service{one, two} {
			if uid, err := s.Authenticate(withToken(token)); uid != "admin" || err != nil {
				t.Errorf("master %d: Authenticate = %q, %v", i, uid, err)
			}
		}
		var auth *http.Cookie
		for _, c := range resp.Cookies() {
			if c.Name == identity.AuthCookie {
				auth = c
			}
		}
		if auth == nil || !auth.HttpOnly || auth.SameSite != http.SameSiteLaxMode || auth.Value != token {
			t.Errorf("auth cookie = %+v", auth)
		}
		// Nothing readable is stored.
		recs, _, err := store.List(t.Context(), identity.KindSigningKey)
		if err != nil || len(recs) != 1 || bytes.Contains(recs[0].Value, []byte("PRIVATE")) {
			t.Errorf("%d signing keys, %v", len(recs), err)
		}
		// The key that signed is in the JWKS.
		_, set, _ := call(t, two, "GET", "/auth/jwks", "")
		if uid := verifyWith(t, set, token); uid != "admin" {
			t.Errorf("token by JWKS says %q", uid)
		}
	})
}

// verifyWith checks token as a client of the JWKS would.
func verifyWith(t *testing.T, set map[string]any, token string) string {
	t.Helper()
	k := set["keys"].([]any)[0].(map[string]any)
	num := func(name string) *big.Int {
		b, err := base64.RawURLEncoding.DecodeString(k[name].(string))
		if err != nil {
			t.Fatal(err)
		}
		return new(big.Int).SetBytes(b)
	}
	parsed, err := jwt.Parse(token, func(tok *jwt.Token) (any, error) {
		if tok.Header["kid"] != k["kid"] || tok.Header["typ"] != "JWT" {
			return nil, fmt.Errorf("header %v", tok.Header)
		}
		return &rsa.PublicKey{N: num("n"), E: int(num("e").Int64())}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	c := parsed.Claims.(jwt.MapClaims)
	exp, err := c.GetExpirationTime()
	if err != nil || time.Until(exp.Time) > identity.TokenTTL || time.Until(exp.Time) < identity.TokenTTL-time.Minute {
		t.Errorf("exp = %v, %v", exp, err)
	}
	return c["uid"].(string)
}

func login(t *testing.T, s *identity.Service) string {
	t.Helper()
	token, err := s.Login(t.Context(), "admin", adminPassword, "198.19.50.9:1")
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestForgedTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		s := ready(t, store)
		good := login(t, s)
		users := state.NewTable[identity.User](store, identity.KindUser)
		admin, err := users.Get(t.Context(), "admin")
		if err != nil {
			t.Fatal(err)
		}
		claims := jwt.MapClaims{"uid": "admin", "gen": admin.Spec.Generation, "exp": time.Now().Add(time.Hour).Unix()}
		other, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		_, set, _ := call(t, s, "GET", "/auth/jwks", "")
		k := set["keys"].([]any)[0].(map[string]any)
		nb, _ := base64.RawURLEncoding.DecodeString(k["n"].(string))
		pub := &rsa.PublicKey{N: new(big.Int).SetBytes(nb), E: 65537}
		der, err := x509.MarshalPKIXPublicKey(pub)
		if err != nil {
			t.Fatal(err)
		}
		pubPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
		sign := func(m jwt.SigningMethod, c jwt.MapClaims, key any) string {
			raw, err := jwt.NewWithClaims(m, c).SignedString(key)
			if err != nil {
				t.Fatal(err)
			}
			return raw
		}
		parts := strings.Split(good, ".")
		for name, raw := range map[string]string{
			"alg none":           sign(jwt.SigningMethodNone, claims, jwt.UnsafeAllowNoneSignatureType),
			"HS256 with PEM":     sign(jwt.SigningMethodHS256, claims, pubPEM),
			"HS256 with DER":     sign(jwt.SigningMethodHS256, claims, der),
			"another RSA key":    sign(jwt.SigningMethodRS256, claims, other),
			"signature stripped": parts[0] + "." + parts[1] + ".",
			"other payload":      parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"uid":"root"}`)) + "." + parts[2],
			"junk":               "x", "empty": "",
		} {
			if uid, err := s.Authenticate(withToken(raw)); uid != "" || !fault.Is(err, fault.Denied) {
				t.Errorf("%s: Authenticate = %q, %v; want Denied", name, uid, err)
			}
		}
		// The cluster's own key must not sign more than it should either.
		for name, c := range map[string]jwt.MapClaims{
			"no exp":      {"uid": "admin", "gen": admin.Spec.Generation},
			"expired":     {"uid": "admin", "gen": admin.Spec.Generation, "exp": time.Now().Add(-time.Second).Unix()},
			"no uid":      {"exp": time.Now().Add(time.Hour).Unix()},
			"old user":    {"uid": "admin", "gen": "0000", "exp": time.Now().Add(time.Hour).Unix()},
			"no such uid": {"uid": "ghost", "exp": time.Now().Add(time.Hour).Unix()},
		} {
			raw := identity.SignAs(t, s, c)
			if uid, err := s.Authenticate(withToken(raw)); uid != "" || !fault.Is(err, fault.Denied) {
				t.Errorf("%s: Authenticate = %q, %v; want Denied", name, uid, err)
			}
		}
		if uid, err := s.Authenticate(withToken(identity.SignAs(t, s, claims))); uid != "admin" || err != nil {
			t.Errorf("control: %q, %v", uid, err)
		}
		time.Sleep(identity.TokenTTL + time.Second)
		if _, err := s.Authenticate(withToken(good)); !fault.Is(err, fault.Denied) {
			t.Errorf("after its time: %v; want Denied", err)
		}
	})
}

func TestWhereTheTokenIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := ready(t, memory.New())
		token := login(t, s)
		for name, tc := range map[string]struct {
			header, cookie string
			ok             bool
		}{
			"token=":                     {"token=" + token, "", true},
			"Bearer":                     {"Bearer " + token, "", true},
			"bearer":                     {"bearer " + token, "", true},
			"cookie":                     {"", token, true},
			"header hides cookie":        {"token=x", token, false},
			"other scheme hides cookie":  {"Basic eDp5", token, false},
			"nothing":                    {"", "", false},
			"token without its key word": {token, "", false},
		} {
			r := httptest.NewRequest("GET", "/", nil)
			if tc.header != "" {
				r.Header.Set("Authorization", tc.header)
			}
			if tc.cookie != "" {
				r.AddCookie(&http.Cookie{Name: identity.AuthCookie, Value: tc.cookie})
			}
			if uid, err := s.Authenticate(r); (err == nil) != tc.ok || tc.ok && uid != "admin" {
				t.Errorf("%s: %q, %v", name, uid, err)
			}
		}
	})
}

// Deleting a user or changing a password ends sessions on every master.
func TestSessionsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		one, two := start(t, store), start(t, store)
		synctest.Wait()
		if status, v, _ := call(t, one, "PUT", "/users/bob", `{"password":"secret"}`); status != 201 {
			t.Fatalf("add bob: %d %v", status, v)
		}
		synctest.Wait()
		token, err := two.Login(t.Context(), "bob", "secret", "198.19.50.9:1")
		if err != nil {
			t.Fatal(err)
		}
		check := func(when string, want fault.Kind) {
			t.Helper()
			synctest.Wait()
			for _, s := range []*identity.Service{one, two} {
				if _, err := s.Authenticate(withToken(token)); !fault.Is(err, want) {
					t.Errorf("%s: %v; want %v", when, err, want)
				}
			}
		}
		if status, v, _ := call(t, one, "PATCH", "/users/bob", `{"password":"secret2"}`); status != 204 {
			t.Fatalf("change password: %d %v", status, v)
		}
		check("password changed", fault.Denied)
		if token, err = one.Login(t.Context(), "bob", "secret2", "198.19.50.9:1"); err != nil {
			t.Fatal(err)
		}
		if _, err := two.Authenticate(withToken(token)); err != nil {
			t.Errorf("new session: %v", err)
		}
		if status, _, _ := call(t, two, "DELETE", "/users/bob", ""); status != 204 {
			t.Fatalf("delete: %d", status)
		}
		check("deleted", fault.Denied)
		// The same name again is another user.
		if status, _, _ := call(t, two, "PUT", "/users/bob", `{"password":"secret2"}`); status != 201 {
			t.Fatal("add bob again")
		}
		check("made anew", fault.Denied)
		// A first user who was deleted does not come back with a new master.
		if status, _, _ := call(t, two, "DELETE", "/users/admin", ""); status != 204 {
			t.Fatal("delete admin")
		}
		three := ready(t, store)
		if _, err := three.Login(t.Context(), "admin", adminPassword, "198.19.50.9:1"); !fault.Is(err, fault.Denied) {
			t.Errorf("deleted first user logs in: %v", err)
		}
		if status, v, _ := call(t, two, "DELETE", "/users/bob", ""); status != 409 || v["code"] != "ERR_LAST_USER" {
			t.Errorf("delete the last user: %d %v", status, v)
		}
	})
}

func TestLoginLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := ready(t, memory.New())
		try := func(uid, pw, from string) error {
			_, err := s.Login(t.Context(), uid, pw, from+":4711")
			return err
		}
		for i := range 5 {
			if err := try("admin", "wrong", "198.19.50.1"); !fault.Is(err, fault.Denied) {
				t.Fatalf("attempt %d: %v; want Denied", i, err)
			}
		}
		if err := try("admin", adminPassword, "198.19.50.1"); !fault.Is(err, fault.Exhausted) {
			t.Errorf("sixth attempt with the right password: %v; want Exhausted", err)
		}
		if err := try("admin", adminPassword, "198.19.50.2"); err != nil {
			t.Errorf("the user from another address: %v", err)
		}
		status, v, resp := call(t, s, "POST", "/auth/login", `{"uid":"admin","password":"x"}`)
		if status != 401 || v["code"] != "ERR_INVALID_CREDENTIALS" {
			t.Errorf("login = %d %v %v", status, v, resp.Header)
		}
		time.Sleep(5 * time.Second)
		if err := try("admin", adminPassword, "198.19.50.1"); err != nil {
			t.Errorf("after five seconds: %v", err)
		}
		// Logins that work are free.
		for range 20 {
			if err := try("admin", adminPassword, "198.19.50.3"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
		// Many users from one address are limited too.
		var refused bool
		for i := range 40 {
			refused = refused || fault.Is(try(fmt.Sprintf("u%d", i), "x", "198.19.50.4"), fault.Exhausted)
		}
		if !refused {
			t.Error("forty users from one address were all tried")
		}
	})
}

func TestUsersAPI(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	pubPEM := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	quoted, _ := json.Marshal(pubPEM)
	synctest.Test(t, func(t *testing.T) {
		s := ready(t, memory.New())
		for _, tc := range []struct {
			method, path, body string
			status             int
			want               string // in code or description
		}{
			{"PUT", "/users/usera", `{"description":"User A","password":"ThisIsAPassword"}`, 201, ""},
			{"PUT", "/users/usera", `{"password":"ThisIsAPassword"}`, 409, "ERR_USER_EXISTS"},
			{"PUT", "/users/userx", `{"password":"1234"}`, 400, "Password does not match rules"},
			{"PUT", "/users/userx", `{"password":""}`, 400, "must not be empty when provided"},
			{"PUT", "/users/userx", `{"password":"secret","someprop":"x"}`, 400, "Unexpected JSON input"},
			{"PUT", "/users/userx", `{}`, 400, "One of `password` or `public_key` must be provided"},
			{"PUT", "/users/userx", `{"password":"secret","public_key":"x"}`, 400, "One of `password` or `public_key` must be provided"},
			{"PUT", "/users/userx", `{"public_key":"x"}`, 400, "ERR_INVALID_PUBLIC_KEY"},
			{"PUT", "/users/userx", `{"provider_type":"oidc","provider_id":"x"}`, 400, "Invalid provider_type"},
			{"PUT", "/users/userx", ``, 400, "Request has bad Content-Type or lacks JSON data"},
			{"PUT", "/users/user!", `{"password":"secret"}`, 400, "ERR_INVALID_USER_ID"},
			{"PUT", "/users/" + strings.Repeat("a", 97), `{"password":"secret"}`, 400, "ERR_INVALID_USER_ID"},
			{"PUT", "/users/svc", `{"description":"S","public_key":` + string(quoted) + `}`, 201, ""},
			{"PATCH", "/users/svc", `{"password":"secret"}`, 400, "no password"},
			{"PATCH", "/users/usera", `{}`, 400, "One of `description` and `password` must be provided"},
			{"PATCH", "/users/usera", `{"description":"new"}`, 204, ""},
			{"PATCH", "/users/ghost", `{"description":"new"}`, 400, "ERR_UNKNOWN_USER_ID"},
			{"DELETE", "/users/ghost", ``, 400, "User with uid `ghost` not known"},
			{"GET", "/users/ghost", ``, 400, "ERR_UNKNOWN_USER_ID"},
			{"POST", "/auth/login", `{"uid":"usera","password":"nope!"}`, 401, "ERR_INVALID_CREDENTIALS"},
			{"POST", "/auth/login", `{"uid":"ghost","password":"nope!"}`, 401, "ERR_INVALID_CREDENTIALS"},
			{"POST", "/auth/login", `{"token":"an OIDC token"}`, 401, "not set up"},
			{"POST", "/auth/login", `{"uid":"usera"}`, 400, "ERR_INVALID_DATA"},
		} {
			status, v, _ := call(t, s, tc.method, tc.path, tc.body)
			text := fmt.Sprint(v["code"], " ", v["description"])
			if status != tc.status || !strings.Contains(text, tc.want) {
				t.Errorf("%s %s %s = %d %s; want %d %s", tc.method, tc.path, tc.body, status, text, tc.status, tc.want)
			}
		}
		_, got, _ := call(t, s, "GET", "/users", "")
		want := map[string]any{"array": []any{
			map[string]any{"uid": "admin", "url": "/acs/api/v1/users/admin", "description": "First user, made at installation", "is_remote": false, "is_service": false, "provider_type": "internal", "provider_id": ""},
			map[string]any{"uid": "svc", "url": "/acs/api/v1/users/svc", "description": "S", "is_remote": false, "is_service": true, "provider_type": "internal", "provider_id": "", "public_key": pubPEM},
			map[string]any{"uid": "usera", "url": "/acs/api/v1/users/usera", "description": "new", "is_remote": false, "is_service": false, "provider_type": "internal", "provider_id": ""},
		}}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("users (-want +got):\n%s", d)
		}
		if _, got, _ := call(t, s, "GET", "/users/?type=service", ""); len(got["array"].([]any)) != 1 {
			t.Errorf("services = %v", got)
		}
		// A service logs in with a token that it signs itself.
		synctest.Wait()
		raw, err := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{"uid": "svc", "exp": time.Now().Add(time.Minute).Unix()}).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		status, v, _ := call(t, s, "POST", "/auth/login", `{"uid":"svc","token":"`+raw+`"}`)
		if status != 200 {
			t.Fatalf("service login = %d %v", status, v)
		}
		if uid, err := s.Authenticate(withToken(v["token"].(string))); uid != "svc" || err != nil {
			t.Errorf("service = %q, %v", uid, err)
		}
		hs, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"uid": "svc", "exp": time.Now().Add(time.Minute).Unix()}).SignedString([]byte(pubPEM))
		if err != nil {
			t.Fatal(err)
		}
		if status, _, _ := call(t, s, "POST", "/auth/login", `{"uid":"svc","token":"`+hs+`"}`); status != 401 {
			t.Errorf("service login with HS256 by the public key = %d", status)
		}
		_, cfg, _ := call(t, s, "GET", "/uiconfig", "")
		if d := cmp.Diff(map[string]any{"firstUser": false, "id": "cluster-1"}, cfg["clusterConfiguration"]); d != "" {
			t.Error(d)
		}
		_, p, _ := call(t, s, "GET", "/auth/providers", "")
		if p["dcos-users"].(map[string]any)["authentication-type"] != "dcos-uid-password" {
			t.Errorf("providers = %v", p)
		}
	})
}

func TestNotConnected(t *testing.T) {
	s, err := identity.New(identity.Config{Store: memory.New(), SealKey: make([]byte, 32), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Authenticate(withToken("x")); !fault.Is(err, fault.Unavailable) {
		t.Errorf("Authenticate before Run: %v; want Unavailable", err)
	}
	r := httptest.NewRequest("GET", identity.Prefix+"/auth/jwks", nil)
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	if b, _ := io.ReadAll(w.Body); w.Code != 503 {
		t.Errorf("jwks before Run = %d %s", w.Code, b)
	}
}

func TestNewRefuses(t *testing.T) {
	for name, cfg := range map[string]identity.Config{
		"short seal key": {SealKey: make([]byte, 16)},
		"bad uid":        {SealKey: make([]byte, 32), First: identity.FirstUser{UID: "a b", PasswordHash: adminHash()}},
		"plain password": {SealKey: make([]byte, 32), First: identity.FirstUser{UID: "a", PasswordHash: "secret"}},
	} {
		cfg.Store, cfg.Log = memory.New(), slog.New(slog.DiscardHandler)
		if _, err := identity.New(cfg); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v; want Invalid", name, err)
		}
	}
}
