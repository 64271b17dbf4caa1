package pki

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"dcos.example/dcos/runtime/fault"
	"github.com/cenkalti/backoff/v5"
)

// Credentials are a host's certificate, always the newest, and its trust in
// the cluster's CA. Every tls.Config made from them follows rotations.
type Credentials struct {
	pool    *x509.CertPool
	caPEM   []byte
	obtain  func(context.Context) (tls.Certificate, error)
	save    func(tls.Certificate) error // nil: in memory only
	log     *slog.Logger
	current atomic.Pointer[tls.Certificate]
}

// SelfIssue returns credentials that a itself issues: a master's. When file is
// not empty the newest certificate and key are also kept there (0600, one PEM
// file with both), for components that can only read files.
func SelfIssue(a *Authority, r Request, file string, log *slog.Logger) (*Credentials, error) {
	c := &Credentials{pool: a.Pool(), caPEM: a.CertPEM(), log: log}
	c.obtain = func(context.Context) (tls.Certificate, error) { return a.Issue(r) }
	if file != "" {
		c.save = func(cert tls.Certificate) error { return saveCertificate(file, cert) }
	}
	if err := c.renew(context.Background()); err != nil {
		return nil, err
	}
	return c, nil
}

// Run replaces the certificate after two thirds of its life until ctx ends,
// trying again with backoff while that fails. It always returns nil: an
// expired certificate shows as refused connections and as logged errors.
func (c *Credentials) Run(ctx context.Context) error {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = time.Second, 5*time.Minute
	wait := c.untilRenewal()
	for {
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
		if err := c.renew(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			wait = b.NextBackOff()
			c.log.Warn("renew certificate", "err", err, "expires", c.Certificate().Leaf.NotAfter, "again_in", wait)
			continue
		}
		b.Reset()
		wait = c.untilRenewal()
		c.log.Info("certificate renewed", "expires", c.Certificate().Leaf.NotAfter)
	}
}

func (c *Credentials) renew(ctx context.Context) error {
	cert, err := c.obtain(ctx)
	if err != nil {
		return err
	}
	c.current.Store(&cert)
	if c.save != nil {
		return c.save(cert)
	}
	return nil
}

func (c *Credentials) untilRenewal() time.Duration {
	return time.Until(renewAt(c.current.Load().Leaf))
}

func renewAt(leaf *x509.Certificate) time.Time {
	life := leaf.NotAfter.Sub(leaf.NotBefore) - skew
	return leaf.NotAfter.Add(-life / 3)
}

// Certificate is the newest certificate; its Leaf is set.
func (c *Credentials) Certificate() *tls.Certificate { return c.current.Load() }

// CAPEM is the cluster CA's certificate.
func (c *Credentials) CAPEM() []byte { return c.caPEM }

// ServerTLS is for a listener. With requireClient a peer without a
// certificate of the cluster is refused in the handshake; otherwise a
// certificate is verified when there is one, and RequireRole decides.
func (c *Credentials) ServerTLS(requireClient bool) *tls.Config {
	auth := tls.VerifyClientCertIfGiven
	if requireClient {
		auth = tls.RequireAndVerifyClientCert
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		ClientAuth: auth,
		ClientCAs:  c.pool,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return c.current.Load(), nil
		},
	}
}

// PublicServerTLS is for a listener that people's browsers use: it asks for
// no client certificate, so that no browser asks its user for one.
func (c *Credentials) PublicServerTLS() *tls.Config {
	cfg := c.ServerTLS(false)
	cfg.ClientAuth = tls.NoClientCert
	cfg.ClientCAs = nil
	return cfg
}

// ClientTLS is for connections to other hosts of the cluster. The peer must
// have a certificate of the cluster for the address dialed and, when peers are
// named, one of these roles: a stolen agent certificate does not make a master.
func (c *Credentials) ClientTLS(peers ...Role) *tls.Config {
	return clientTLS(c.pool, peers, func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return c.current.Load(), nil
	})
}

func clientTLS(pool *x509.CertPool, peers []Role, get func(*tls.CertificateRequestInfo) (*tls.Certificate, error)) *tls.Config {
	return &tls.Config{
		MinVersion:           tls.VersionTLS12,
		RootCAs:              pool,
		GetClientCertificate: get,
		VerifyConnection: func(cs tls.ConnectionState) error {
			if len(peers) == 0 {
				return nil
			}
			role, _ := roleOf(cs.PeerCertificates[0])
			if !slices.Contains(peers, role) {
				return fault.Newf("verify peer", fault.Denied, "%s has role %q, needs one of %v", cs.PeerCertificates[0].Subject.CommonName, role, peers)
			}
			return nil
		},
	}
}

// VerifyMaster returns a check for tls.Config.VerifyConnection together with
// InsecureSkipVerify: the peer's chain ends in the PEM CA and its role is
// master, whatever name or address it was dialed by. Clients outside the
// cluster use it, because a master behind NAT or a load balancer is reached
// at addresses that its certificate cannot know.
func VerifyMaster(caPEM []byte) (func(tls.ConnectionState) error, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(caPEM) {
		return nil, fault.Newf("read cluster CA", fault.Invalid, "no certificate in PEM form")
	}
	return func(cs tls.ConnectionState) error {
		opts := x509.VerifyOptions{Roots: pool, Intermediates: x509.NewCertPool()}
		for _, c := range cs.PeerCertificates[1:] {
			opts.Intermediates.AddCert(c)
		}
		if _, err := cs.PeerCertificates[0].Verify(opts); err != nil {
			return err
		}
		if role, _ := roleOf(cs.PeerCertificates[0]); role != RoleMaster {
			return fault.Newf("verify peer", fault.Denied, "its certificate has role %q, not master", role)
		}
		return nil
	}, nil
}

// validFor reports whether cert can be used by host name at addr without
// asking for a new one first.
func validFor(cert tls.Certificate, pool *x509.CertPool, name string, addr netip.Addr) bool {
	if _, err := cert.Leaf.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return false
	}
	return cert.Leaf.Subject.CommonName == name &&
		cert.Leaf.VerifyHostname(addr.String()) == nil &&
		time.Now().Before(renewAt(cert.Leaf))
}
