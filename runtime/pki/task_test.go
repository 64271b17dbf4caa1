package pki_test

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/pki"
)

// A task's certificate proves its names, and opens no door of the cluster.
func TestIssueTask(t *testing.T) {
	ca, err := pki.NewAuthority("c")
	if err != nil {
		t.Fatal(err)
	}
	const name = "kafka-0-broker.kafka.autoip.dcos.thisdcos.directory"
	key, chain, root, err := ca.IssueTask([]string{name, "broker.kafka.l4lb.thisdcos.directory"}, 48*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(chain, key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(root)
	for _, n := range []string{name, "broker.kafka.l4lb.thisdcos.directory"} {
		if _, err := cert.Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: n}); err != nil {
			t.Error(err)
		}
	}
	if left := time.Until(cert.Leaf.NotAfter); left < 47*time.Hour || left > 49*time.Hour {
		t.Errorf("it lasts %s", left)
	}

	creds, err := pki.SelfIssue(ca, pki.MasterRequest("m1", netip.MustParseAddr("127.0.0.1")), "", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(pki.RequireRole(http.NotFoundHandler(), pki.RoleMaster, pki.RoleAgent))
	srv.TLS = creds.ServerTLS(false)
	srv.StartTLS()
	defer srv.Close()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{cert}}}}
	resp, err := client.Get(srv.URL)
	if err == nil {
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("with a task's certificate: %s", resp.Status)
		}
	}

	for _, names := range [][]string{nil, {"example.com"}, {name, "master.mesos"}, {"leader.dcos.thisdcos.directory"}, {"MASTER.dcos.thisdcos.directory"}} {
		if _, _, _, err := ca.IssueTask(names, 0); !fault.Is(err, fault.Invalid) && !fault.Is(err, fault.Denied) {
			t.Errorf("%v: %v", names, err)
		}
	}
}
