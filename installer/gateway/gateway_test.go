package gateway_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"dcos.example/dcos/installer/gateway"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/pki"
)

// A cluster of two masters, the first of which is down; tokens end after two
// uses.
func cluster(t *testing.T, password string) *gateway.Client {
	a, err := pki.NewAuthority("demo")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := a.Issue(pki.MasterRequest("m2", netip.MustParseAddr("198.19.80.6")))
	if err != nil {
		t.Fatal(err)
	}
	left := 0
	mux := http.NewServeMux()
	mux.HandleFunc("POST /acs/api/v1/auth/login", func(w http.ResponseWriter, r *http.Request) {
		if b, _ := io.ReadAll(r.Body); !strings.Contains(string(b), `"secret"`) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		left = 2
		w.Write([]byte(`{"token":"T"}`))
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if left--; left < 0 || r.Header.Get("Authorization") != "token=T" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if r.URL.Path == "/missing" {
			w.WriteHeader(http.StatusNotFound)
			w.Write([]byte(`{"message":"no such thing"}`))
			return
		}
		w.Write([]byte(`{"method":"` + r.Method + `"}`))
	})
	srv := httptest.NewUnstartedServer(mux)
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	c, err := gateway.New(gateway.Config{
		Masters: []string{"198.19.80.5", "198.19.80.6"}, CA: string(a.CertPEM()), User: "admin", Password: password,
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if addr != "198.19.80.6:443" {
				return nil, errors.New("host is down")
			}
			return (&net.Dialer{}).DialContext(ctx, network, srv.Listener.Addr().String())
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestAsksWhoeverAnswersAndSignsInAgain(t *testing.T) {
	c := cluster(t, "secret")
	for i := range 5 {
		var out struct{ Method string }
		if err := c.JSON(t.Context(), http.MethodPut, "/thing", map[string]int{"n": i}, &out); err != nil || out.Method != "PUT" {
			t.Fatalf("call %d: %+v, %v", i, out, err)
		}
	}
	err := c.JSON(t.Context(), http.MethodGet, "/missing", nil, nil)
	if !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "no such thing") {
		t.Errorf("error %v", err)
	}
}

func TestWrongPassword(t *testing.T) {
	err := cluster(t, "wrong").JSON(t.Context(), http.MethodGet, "/thing", nil, nil)
	if !fault.Is(err, fault.Denied) || !strings.Contains(err.Error(), "sign in as admin: the cluster does not take the installer's password") {
		t.Errorf("error %v", err)
	}
}

// Every master is asked, not only until one answers, and without a password.
func TestReachNamesTheMasterThatIsDown(t *testing.T) {
	master, err := cluster(t, "wrong").Reach(t.Context())
	if master != "198.19.80.5" || !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "host is down") {
		t.Errorf("master %q, error %v", master, err)
	}
}

func TestNobodyAnswers(t *testing.T) {
	c, err := gateway.New(gateway.Config{Masters: []string{"m1", "m2"}, CA: certificate(t), User: "admin",
		Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("host is down") }})
	if err != nil {
		t.Fatal(err)
	}
	err = c.JSON(t.Context(), http.MethodGet, "/thing", nil, nil)
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "master m1: host is down\nmaster m2: host is down") {
		t.Errorf("error %v", err)
	}
}

func certificate(t *testing.T) string {
	a, err := pki.NewAuthority("demo")
	if err != nil {
		t.Fatal(err)
	}
	return string(a.CertPEM())
}
