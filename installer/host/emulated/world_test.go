package emulated_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/installer/host/emulated"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/pki"
)

// The cluster answers with what its machines run.
func TestWorldAnswers(t *testing.T) {
	ca, err := pki.NewAuthority("demo")
	if err != nil {
		t.Fatal(err)
	}
	key, err := ca.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	master, agent := emulated.NewMachine("m1", "192.0.2.1"), emulated.NewMachine("a1", "192.0.2.2")
	w := emulated.NewWorld(master, agent)
	t.Cleanup(w.Close)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca.CertPEM())
	client := &http.Client{Transport: &http.Transport{DialContext: w.Dial, TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
	get := func(path string) string {
		t.Helper()
		resp, err := client.Get("https://" + netip.MustParseAddr("192.0.2.1").String() + path)
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if got := get("/mesos/slaves"); !strings.Contains(got, "refused") {
		t.Error(got)
	}
	install := func(m *emulated.Machine, unit string) {
		h := m.Host()
		if err := h.Change(t.Context(),
			host.Put(config.CACertFile, host.File{Data: ca.CertPEM()}), host.Put(config.CAKeyFile, host.File{Data: key}),
			host.Put(config.UnitDir+"/"+unit, host.File{Data: []byte("[Service]\nExecStart=/bin/true\n")})); err != nil {
			t.Fatal(err)
		}
		if err := h.StartUnit(t.Context(), unit); err != nil {
			t.Fatal(err)
		}
	}
	install(master, config.UnitMaster)
	if got := get("/mesos/slaves"); strings.Contains(got, "192.0.2.2") {
		t.Error(got)
	}
	install(agent, config.UnitAgent)
	if got := get("/mesos/slaves"); !strings.Contains(got, `"hostname":"192.0.2.2","active":true`) {
		t.Error(got)
	}
	agent.Power(false)
	if got := get("/mesos/slaves"); strings.Contains(got, "192.0.2.2") {
		t.Error(got)
	}
	if _, err := w.Open(t.Context(), host.Ref{Kind: host.KindSSH, Name: "a1"}); !fault.Is(err, fault.Unavailable) {
		t.Error(err)
	}
	if text, err := w.Ask(t.Context(), host.Ref{Kind: host.KindSSH, SSH: host.SSH{Login: host.Login{Address: "192.0.2.1"}}}); err != nil || !strings.Contains(text, "machine ") {
		t.Error(text, err)
	}
}

// A release is there without its bytes, links lead where they say, and what is
// removed is gone with all below it.
func TestTree(t *testing.T) {
	m := emulated.NewMachine("m1", "192.0.2.1")
	h := m.Host()
	before := m.Picture()
	if err := h.Change(t.Context(), host.Put("/a/b/c", host.File{Data: []byte("x"), Mode: 0o600, UID: 3}), host.Put("/a/l", host.File{Link: "b"}), host.Put("/d/e", host.File{})); err != nil {
		t.Fatal(err)
	}
	if f, err := h.ReadFile(t.Context(), "/a/l/c"); err != nil || string(f.Data) != "x" || f.UID != 3 {
		t.Errorf("%+v, %v", f, err)
	}
	v, err := h.Look(t.Context(), host.Query{Files: []string{"/a/l", "/a/b/c", "/none"}, Dirs: []string{"/a", "/none"}})
	if err != nil || v.Files["/a/l"].Link != "b" || v.Files["/a/b/c"].SHA256 == "" || len(v.Files) != 2 || strings.Join(v.Dirs["/a"], " ") != "b l" {
		t.Errorf("%+v, %v", v, err)
	}
	if err := h.Change(t.Context(), host.Gone("/a"), host.Gone("/d"), host.Gone("/never")); err != nil {
		t.Fatal(err)
	}
	after := m.Picture()
	if len(after) != len(before) {
		t.Errorf("%d entries before, %d after", len(before), len(after))
	}
}
