package resolver_test

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/miekg/dns"

	"dcos.example/dcos/ci/lab/resolver"
)

func TestResolver(t *testing.T) {
	asked := filepath.Join(t.TempDir(), "asked")
	s := &resolver.Server{Asked: asked, Lookup: func(name string) (netip.Addr, bool) {
		return netip.MustParseAddr("198.19.20.11"), name == "h1"
	}}
	// A port that is free for both.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	ctx, stop := context.WithCancel(t.Context())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- s.Run(ctx, address, func() error { close(ready); return nil })
	}()
	<-ready
	for _, c := range []struct {
		network, name string
		qtype         uint16
		code, answers int
	}{
		{"udp", "h1.", dns.TypeA, dns.RcodeSuccess, 1},
		{"tcp", "H1.", dns.TypeA, dns.RcodeSuccess, 1},
		{"udp", "h1.", dns.TypeAAAA, dns.RcodeSuccess, 0},
		{"udp", "h2.", dns.TypeA, dns.RcodeNameError, 0},
		{"udp", "registry.invalid.", dns.TypeA, dns.RcodeNameError, 0},
		{"tcp", "registry.invalid.", dns.TypeA, dns.RcodeNameError, 0},
	} {
		q := new(dns.Msg)
		q.SetQuestion(c.name, c.qtype)
		m, _, err := (&dns.Client{Net: c.network}).Exchange(q, address)
		if err != nil {
			t.Fatal(err)
		}
		if m.Rcode != c.code || len(m.Answer) != c.answers {
			t.Errorf("%s %s: %v", c.network, c.name, m)
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	got, err := os.ReadFile(asked)
	if want := "h2 A\nregistry.invalid A\n"; err != nil || string(got) != want {
		t.Errorf("noted %q (%v), want %q", got, err, want)
	}
}
