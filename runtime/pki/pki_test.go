package pki_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/pki"
)

var (
	loopback = netip.MustParseAddr("127.0.0.1")
	quiet    = slog.New(slog.DiscardHandler)
)

func authority(t *testing.T) *pki.Authority {
	t.Helper()
	a, err := pki.NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func credentials(t *testing.T, a *pki.Authority, role pki.Role, name string) *pki.Credentials {
	t.Helper()
	c, err := pki.SelfIssue(a, pki.Request{Role: role, Name: name, Addrs: []netip.Addr{loopback}}, "", quiet)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAuthoritySaveLoad(t *testing.T) {
	dir := t.TempDir()
	crt, key := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key")
	a := authority(t)
	if err := a.Save(crt, key); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(key); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v, %v; want 0600", fi.Mode(), err)
	}
	b, err := pki.LoadAuthority(crt, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := b.Issue(pki.MasterRequest("m1", netip.MustParseAddr("198.19.50.1")))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"m1", "leader.mesos", "198.19.50.1", "127.0.0.1"} {
		if _, err := leaf.Leaf.Verify(x509.VerifyOptions{Roots: a.Pool(), DNSName: name}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if life := time.Until(a2NotAfter(t, a)); life < 9*365*24*time.Hour {
		t.Errorf("CA lives %v", life)
	}
	if _, err := pki.LoadAuthority(crt, crt); !fault.Is(err, fault.Invalid) {
		t.Errorf("certificate as key: %v; want Invalid", err)
	}
}

func a2NotAfter(t *testing.T, a *pki.Authority) time.Time {
	t.Helper()
	c, err := pki.ParseCert(a.CertPEM())
	if err != nil {
		t.Fatal(err)
	}
	return c.NotAfter
}

func TestIssueRefuses(t *testing.T) {
	a := authority(t)
	for _, r := range []pki.Request{{Role: "root", Name: "x"}, {Role: pki.RoleAgent}} {
		if _, err := a.Issue(r); !fault.Is(err, fault.Invalid) {
			t.Errorf("Issue(%+v) = %v; want Invalid", r, err)
		}
	}
}

// serveTLS serves h with cfg. httptest's own StartTLS would add a certificate
// that wins over cfg.GetCertificate when a client dials an address.
func serveTLS(t *testing.T, cfg *tls.Config, h http.Handler) (url string) {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.Listener = tls.NewListener(srv.Listener, cfg)
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	srv.Start()
	t.Cleanup(srv.Close)
	return "https://" + srv.Listener.Addr().String()
}

// handshake connects client to server over TCP loopback and returns the
// server's view of an HTTP request.
func handshake(t *testing.T, server, client *tls.Config) (role pki.Role, err error) {
	t.Helper()
	url := serveTLS(t, server, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, string(pki.PeerRole(r)))
	}))
	tr := &http.Transport{TLSClientConfig: client}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return pki.Role(b), err
}

func TestHandshake(t *testing.T) {
	a, other := authority(t), authority(t)
	master, agent := credentials(t, a, pki.RoleMaster, "m1"), credentials(t, a, pki.RoleAgent, "a1")
	stranger := credentials(t, other, pki.RoleMaster, "evil")
	anonymous := &tls.Config{RootCAs: a.Pool()}
	verify, err := pki.VerifyMaster(a.CertPEM())
	if err != nil {
		t.Fatal(err)
	}
	pinned := &tls.Config{InsecureSkipVerify: true, VerifyConnection: verify, ServerName: "nat.example"}
	for name, tc := range map[string]struct {
		server, client *tls.Config
		role           pki.Role
		refused        bool
	}{
		"agent to master":              {server: master.ServerTLS(true), client: agent.ClientTLS(pki.RoleMaster), role: pki.RoleAgent},
		"master to agent":              {server: agent.ServerTLS(true), client: master.ClientTLS(pki.RoleAgent), role: pki.RoleMaster},
		"agent posing as master":       {server: agent.ServerTLS(true), client: agent.ClientTLS(pki.RoleMaster), refused: true},
		"no certificate":               {server: master.ServerTLS(true), client: anonymous, refused: true},
		"no certificate, optional":     {server: master.ServerTLS(false), client: anonymous},
		"other CA as client":           {server: master.ServerTLS(false), client: stranger.ClientTLS(), refused: true},
		"other CA as server":           {server: stranger.ServerTLS(false), client: agent.ClientTLS(), refused: true},
		"browser":                      {server: master.PublicServerTLS(), client: anonymous},
		"pinned by role, other name":   {server: master.PublicServerTLS(), client: pinned},
		"pinned by role, agent":        {server: agent.PublicServerTLS(), client: pinned, refused: true},
		"pinned by role, other CA":     {server: stranger.PublicServerTLS(), client: pinned, refused: true},
		"TLS 1.1":                      {server: master.PublicServerTLS(), client: &tls.Config{RootCAs: a.Pool(), MinVersion: tls.VersionTLS11, MaxVersion: tls.VersionTLS11}, refused: true},
		"any role when none is wanted": {server: agent.ServerTLS(true), client: master.ClientTLS(), role: pki.RoleMaster},
	} {
		t.Run(name, func(t *testing.T) {
			role, err := handshake(t, tc.server, tc.client)
			if (err != nil) != tc.refused || role != tc.role {
				t.Errorf("role %q, error %v; want role %q, refused %v", role, err, tc.role, tc.refused)
			}
		})
	}
}

func TestRequireRole(t *testing.T) {
	h := pki.RequireRole(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), pki.RoleMaster)
	a := authority(t)
	leaf := func(role pki.Role) *tls.ConnectionState {
		c, err := a.Issue(pki.Request{Role: role, Name: "x"})
		if err != nil {
			t.Fatal(err)
		}
		return &tls.ConnectionState{PeerCertificates: []*x509.Certificate{c.Leaf}, VerifiedChains: [][]*x509.Certificate{{c.Leaf}}}
	}
	unverified := leaf(pki.RoleMaster)
	unverified.VerifiedChains = nil
	for name, tc := range map[string]struct {
		tls  *tls.ConnectionState
		want int
	}{
		"master": {leaf(pki.RoleMaster), 200}, "agent": {leaf(pki.RoleAgent), 403},
		"unverified": {unverified, 403}, "clear": {nil, 403},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.TLS = tc.tls
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != tc.want {
			t.Errorf("%s: %d, want %d", name, w.Code, tc.want)
		}
	}
}

// The certificate is replaced at two thirds of its life, before it expires,
// and configurations made earlier use the new one.
func TestRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := authority(t)
		file := filepath.Join(t.TempDir(), "host.pem")
		c, err := pki.SelfIssue(a, pki.Request{Role: pki.RoleMaster, Name: "m1", Addrs: []netip.Addr{loopback}}, file, quiet)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		cfg := c.ServerTLS(true)
		serial := func() string {
			cert, err := cfg.GetCertificate(nil)
			if err != nil {
				t.Fatal(err)
			}
			return cert.Leaf.SerialNumber.String()
		}
		first := serial()
		time.Sleep(pki.LeafTTL*2/3 - time.Minute)
		synctest.Wait()
		if serial() != first {
			t.Error("rotated before two thirds of its life")
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		second := serial()
		if second == first {
			t.Error("not rotated after two thirds of its life")
		}
		saved, err := tls.LoadX509KeyPair(file, file)
		if err != nil || saved.Leaf.SerialNumber.String() != second {
			t.Errorf("saved file has another certificate (%v)", err)
		}
		if fi, err := os.Stat(file); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("file mode %v, %v; want 0600", fi.Mode(), err)
		}
		for range 5 {
			time.Sleep(pki.LeafTTL)
			synctest.Wait()
			if left := time.Until(c.Certificate().Leaf.NotAfter); left < pki.LeafTTL/3-time.Minute {
				t.Errorf("certificate has %v left", left)
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
}

func signer(t *testing.T, a *pki.Authority, token string) (addr string) {
	t.Helper()
	url := serveTLS(t, credentials(t, a, pki.RoleMaster, "m1").ServerTLS(false), pki.SignHandler(a, token, quiet))
	return strings.TrimPrefix(url, "https://")
}

func TestJoin(t *testing.T) {
	a := authority(t)
	addr := signer(t, a, "s3cret")
	// A port nobody listens on: the first master is down.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	down := l.Addr().String()
	_ = l.Close()
	cfg := pki.JoinConfig{
		CAPEM: a.CertPEM(), Token: "s3cret", Name: "a1", Addr: loopback,
		Masters: func() []string { return []string{down, addr} }, File: filepath.Join(t.TempDir(), "pki", "host.pem"),
	}
	c, err := pki.Join(t.Context(), cfg, quiet)
	if err != nil {
		t.Fatal(err)
	}
	role, err := handshake(t, credentials(t, a, pki.RoleMaster, "m1").ServerTLS(true), c.ClientTLS(pki.RoleMaster))
	if err != nil || role != pki.RoleAgent {
		t.Fatalf("role %q, %v; want agent", role, err)
	}
	// A restart uses the saved certificate and needs no master.
	cfg.Masters, cfg.Token = func() []string { return []string{down} }, "wrong"
	again, err := pki.Join(t.Context(), cfg, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if again.Certificate().Leaf.SerialNumber.Cmp(c.Certificate().Leaf.SerialNumber) != 0 {
		t.Error("restart did not use the saved certificate")
	}
	// Another name must not use it.
	cfg.Name, cfg.Masters = "a2", func() []string { return []string{addr} }
	if _, err := pki.Join(t.Context(), cfg, quiet); !fault.Is(err, fault.Denied) {
		t.Errorf("wrong token: %v; want Denied", err)
	}
}

// A master that another CA vouches for gets no token.
func TestJoinRefusesForeignMaster(t *testing.T) {
	var called bool
	url := serveTLS(t, credentials(t, authority(t), pki.RoleMaster, "evil").ServerTLS(false),
		http.HandlerFunc(func(http.ResponseWriter, *http.Request) { called = true }))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := pki.Join(ctx, pki.JoinConfig{
		CAPEM: authority(t).CertPEM(), Token: "s3cret", Name: "a1", Addr: loopback,
		Masters: func() []string { return []string{strings.TrimPrefix(url, "https://")} }, File: filepath.Join(t.TempDir(), "host.pem"),
	}, quiet)
	if err == nil || called {
		t.Errorf("Join = %v, token sent %v", err, called)
	}
}

// Renewal shows the certificate; the token is no longer needed, and a
// certificate of one host does not renew another's.
func TestRenewByCertificate(t *testing.T) {
	a := authority(t)
	addr := signer(t, a, "s3cret")
	csr, _ := pki.NewCSR(t, "a1")
	post := func(cfg *tls.Config, body string) int {
		t.Helper()
		tr := &http.Transport{TLSClientConfig: cfg}
		defer tr.CloseIdleConnections()
		resp, err := (&http.Client{Transport: tr}).Post("https://"+addr+pki.SignPath, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	body := `{"csr":` + quote(csr) + `}`
	for name, tc := range map[string]struct {
		cfg  *tls.Config
		body string
		want int
	}{
		"own certificate":     {credentials(t, a, pki.RoleAgent, "a1").ClientTLS(), body, 200},
		"another host's":      {credentials(t, a, pki.RoleAgent, "a2").ClientTLS(), body, 403},
		"master's, same name": {credentials(t, a, pki.RoleMaster, "a1").ClientTLS(), body, 403},
		"nothing":             {&tls.Config{RootCAs: a.Pool()}, body, 403},
		"no CSR":              {&tls.Config{RootCAs: a.Pool()}, `{"csr":"x"}`, 400},
		"no JSON":             {&tls.Config{RootCAs: a.Pool()}, `x`, 400},
	} {
		if got := post(tc.cfg, tc.body); got != tc.want {
			t.Errorf("%s: %d, want %d", name, got, tc.want)
		}
	}
}

func quote(s string) string { return `"` + strings.ReplaceAll(s, "\n", `\n`) + `"` }

// etcd tells masters by a name, and browsers know masters by names: whoever
// has the token must not obtain one.
func TestClusterNamesAreNotSigned(t *testing.T) {
	a := authority(t)
	addr := signer(t, a, "s3cret")
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: a.Pool()}}
	t.Cleanup(tr.CloseIdleConnections)
	for name, want := range map[string]int{
		pki.MasterName: 400, "LEADER.mesos": 400, "mesos": 400, "localhost": 400, "x.localhost": 400,
		"leader.dcos.thisdcos.directory": 400, "mesos.example": 200, "notmesos": 200,
	} {
		csr, _ := pki.NewCSR(t, name)
		resp, err := (&http.Client{Transport: tr}).Post("https://"+addr+pki.SignPath, "application/json",
			strings.NewReader(`{"csr":`+quote(csr)+`,"token":"s3cret"}`))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %d, want %d", name, resp.StatusCode, want)
		}
	}
	for _, name := range pki.MasterRequest("m1", loopback).Names {
		if !pki.Reserved(name) {
			t.Errorf("an agent may be called %s, as masters are", name)
		}
	}
}

func TestFingerprint(t *testing.T) {
	a := authority(t)
	fp, err := pki.Fingerprint(a.CertPEM())
	if err != nil || len(fp) != 95 || strings.ToUpper(fp) != fp {
		t.Errorf("Fingerprint = %q, %v", fp, err)
	}
	if _, err := pki.Fingerprint([]byte("x")); !fault.Is(err, fault.Invalid) {
		t.Errorf("Fingerprint of junk = %v", err)
	}
}
