package engine

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"path"
	"time"

	"software.sslmate.com/src/go-pkcs12"

	"dcos.example/dcos/runtime/api/service"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/service/launch"
	"dcos.example/dcos/runtime/service/spec"
)

// certificateLife is how long a task's certificate is valid. A task gets a new
// one at each start; none is likely to run for so long without.
const certificateLife = 5 * 365 * 24 * time.Hour

// keystorePassword guards nothing: it lies beside the store, in the same
// private folder, because Java wants one.
const keystorePassword = "notsecure"

// certificates issues what a task wants of the cluster's CA.
func (e *Engine) certificates(ctx context.Context, t launch.Task) ([]launch.File, error) {
	def := t.Spec.Pods.Get(t.Instance.Pod).Tasks.Get(t.Name)
	if len(def.TLS) == 0 {
		return nil, nil
	}
	op := "issue certificates for " + launch.FullName(t.Instance, t.Name)
	if e.cfg.CA == nil {
		return nil, fault.Newf(op, fault.Unavailable, "there is no certificate authority")
	}
	names := []string{launch.FullName(t.Instance, t.Name) + "." + spec.Domain(t.Spec.Name)}
	for _, p := range def.Ports.All() {
		if p.VIP != nil {
			names = append(names, p.VIP.Prefix+"."+spec.VIPDomain(t.Spec.Name))
		}
	}
	var out []launch.File
	for _, enc := range def.TLS {
		key, chain, root, err := e.cfg.CA.Issue(ctx, names, certificateLife)
		if err != nil {
			return nil, fault.New(op, fault.KindOf(err), err)
		}
		parts := [][]byte{chain, key, root}
		if enc.Type == service.Keystore {
			if parts, err = keystores(key, chain, root); err != nil {
				return nil, fault.New(op, fault.Internal, err)
			}
		}
		for k, name := range spec.TLSFiles(enc) {
			out = append(out, launch.File{Path: path.Join(enc.Dir, name), Data: parts[k]})
		}
	}
	return out, nil
}

// keystores makes a key store, a trust store and the file with their password.
func keystores(key, chain, root []byte) ([][]byte, error) {
	block, _ := pem.Decode(key)
	if block == nil {
		return nil, fault.Newf("read key", fault.Internal, "it is not PEM")
	}
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	certs, err := certificatesOf(chain)
	if err != nil {
		return nil, err
	}
	roots, err := certificatesOf(root)
	if err != nil {
		return nil, err
	}
	store, err := pkcs12.Modern.WithRand(rand.Reader).Encode(private, certs[0], append(certs[1:], roots...), keystorePassword)
	if err != nil {
		return nil, err
	}
	trust, err := pkcs12.Modern.WithRand(rand.Reader).EncodeTrustStore(roots, keystorePassword)
	if err != nil {
		return nil, err
	}
	return [][]byte{store, trust, []byte(keystorePassword)}, nil
}

func certificatesOf(text []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, fault.Newf("read certificates", fault.Internal, "there are none")
	}
	return out, nil
}
