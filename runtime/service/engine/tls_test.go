package engine

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"testing"
	"time"

	"software.sslmate.com/src/go-pkcs12"

	"dcos.example/dcos/runtime/api/service"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/pki"
	"dcos.example/dcos/runtime/service/launch"
	"dcos.example/dcos/runtime/service/plan"
	"dcos.example/dcos/runtime/service/spec"
)

type authority struct{ *pki.Authority }

func (a authority) Issue(_ context.Context, names []string, life time.Duration) (key, chain, root []byte, err error) {
	return a.IssueTask(names, life)
}

// TestCertificates: a task gets a key and a certificate for its name and its
// VIP, in both forms, which any client of the cluster's CA accepts.
func TestCertificates(t *testing.T) {
	ca, err := pki.NewAuthority("c")
	if err != nil {
		t.Fatal(err)
	}
	s, _, err := service.Parse([]byte(`
name: kafka
pods:
  kafka:
    count: 1
    image: i
    tasks:
      broker:
        cpus: 1
        memory: 10
        ports: {tls: {port: 9093, vip: {prefix: broker, port: 9093}}}
        transport-encryption: [{name: node, type: TLS, dir: /tls}, {name: node, type: KEYSTORE}]
`))
	if err != nil {
		t.Fatal(err)
	}
	spec.Normalize(s)
	e := &Engine{cfg: Config{CA: authority{ca}}}
	task := launch.Task{Spec: s, Instance: plan.Instance{Pod: "kafka"}, Name: "broker"}
	files, err := e.certificates(t.Context(), task)
	if err != nil {
		t.Fatal(err)
	}
	by := map[string][]byte{}
	for _, f := range files {
		by[f.Path] = f.Data
	}
	if len(by) != 6 {
		t.Fatalf("%d files", len(by))
	}
	pair, err := tls.X509KeyPair(by["/tls/node.crt"], by["/tls/node.key"])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(by["/tls/node.ca"]) {
		t.Fatal("no root")
	}
	password := string(by["/etc/tls/node.password"])
	_, stored, chain, err := pkcs12.DecodeChain(by["/etc/tls/node.keystore"], password)
	if err != nil || len(chain) == 0 {
		t.Fatal(chain, err)
	}
	trusted, err := pkcs12.DecodeTrustStore(by["/etc/tls/node.truststore"], password)
	if err != nil || len(trusted) != 1 || !trusted[0].IsCA {
		t.Fatal(trusted, err)
	}
	for _, leaf := range []*x509.Certificate{pair.Leaf, stored} {
		for _, name := range []string{"kafka-0-broker.kafka.autoip.dcos.thisdcos.directory", "broker.kafka.l4lb.thisdcos.directory"} {
			if _, err := leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	e.cfg.CA = nil
	if _, err := e.certificates(t.Context(), task); !fault.Is(err, fault.Unavailable) {
		t.Error(err)
	}
}

// TestVault: what is sealed is opened with the same key under the same name,
// and nowhere else; generated secrets stay.
func TestVault(t *testing.T) {
	v, err := NewVault([]byte("0123456789abcdef0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewVault([]byte("another key 6789abcdef0123456789"))
	if err != nil {
		t.Fatal(err)
	}
	sealed := v.seal("a", "secret")
	if got, err := v.open("a", sealed); err != nil || got != "secret" {
		t.Error(got, err)
	}
	for name, f := range map[string]func() (string, error){
		"another key":  func() (string, error) { return other.open("a", sealed) },
		"another name": func() (string, error) { return v.open("b", sealed) },
		"cut off":      func() (string, error) { return v.open("a", sealed[:5]) },
		"changed":      func() (string, error) { return v.open("a", append(sealed[:len(sealed)-1:len(sealed)-1], 0)) },
	} {
		if got, err := f(); !fault.Is(err, fault.Internal) {
			t.Errorf("%s: %q %v", name, got, err)
		}
	}
	again, err := NewVault([]byte("0123456789abcdef0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	if v.print("a", "x") == v.print("a", "y") || v.print("a", "x") != again.print("a", "x") || v.print("a", "x") == other.print("a", "x") {
		t.Error("prints do not tell values apart")
	}
	make1 := func(n int, value string) *service.Spec {
		return &service.Spec{Secrets: map[string]service.Secret{"g": {Generate: n}, "v": {Value: value}}}
	}
	read := func(r configRecord) map[string]string {
		out, err := v.reveal(newConfigOf(r), []string{"g", "v"})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	first, err := newRecord(v, make1(12, "x"), service.Package{}, nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	second, err := newRecord(v, make1(12, "y"), service.Package{}, &first, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	a, b := read(first), read(second)
	if len(a["g"]) != 12 || a["g"] != b["g"] || b["v"] != "y" || first.Spec.Secrets["v"].Value != "" {
		t.Errorf("%v %v", a, b)
	}
	if first.Prints["v"] == second.Prints["v"] || first.Prints["g"] != second.Prints["g"] {
		t.Error("prints")
	}
}

func newConfigOf(r configRecord) *config { return &config{configRecord: r} }
