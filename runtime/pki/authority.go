// Package pki is the cluster's certificate authority and what daemons do with
// it: issue short-lived certificates that say a host's role, keep the newest
// one in memory, and tell the role of a peer.
//
// One CA per cluster, made by the installer, signs every certificate.
// Masters hold its key and issue their own certificates; agents send a signing
// request with the join token, later with the certificate they have. The role
// is the certificate's organizational unit: only a master can make one that
// says master.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"dcos.example/dcos/runtime/fault"
)

// Role is what a certificate's holder is in the cluster.
type Role string

// The roles of hosts.
const (
	RoleMaster Role = "master"
	RoleAgent  Role = "agent"
)

const (
	// AuthorityTTL is how long a cluster CA is valid.
	AuthorityTTL = 10 * 365 * 24 * time.Hour
	// LeafTTL is how long a host's certificate is valid; it is replaced
	// after two thirds of that.
	LeafTTL = 24 * time.Hour

	// skew is how far clocks of hosts may differ before a fresh certificate
	// is refused as "not yet valid".
	skew = 5 * time.Minute
)

// Request is what a certificate shall say.
type Request struct {
	Role  Role
	Name  string        // host name
	Names []string      // further DNS names
	Addrs []netip.Addr  // addresses the host is reached at
	TTL   time.Duration // zero: LeafTTL
}

// Authority is a cluster's CA with its key.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes the CA of the cluster of that name, valid AuthorityTTL
// from now.
func NewAuthority(clusterName string) (*Authority, error) {
	const op = "make cluster CA"
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	sn, err := serial()
	if err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	now := time.Now()
	tmpl := &x509.Certificate{
		SerialNumber:          sn,
		Subject:               pkix.Name{Organization: []string{"DC/OS"}, CommonName: clusterName + " cluster CA"},
		NotBefore:             now.Add(-skew),
		NotAfter:              now.Add(AuthorityTTL),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	return &Authority{cert: cert, key: key}, nil
}

// ParseAuthority reads a CA from its certificate and key in PEM.
func ParseAuthority(certPEM, keyPEM []byte) (*Authority, error) {
	const op = "read cluster CA"
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fault.New(op, fault.Invalid, err)
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fault.Newf(op, fault.Invalid, "key is %T, must be ECDSA", pair.PrivateKey)
	}
	if !pair.Leaf.IsCA {
		return nil, fault.Newf(op, fault.Invalid, "%s is not a CA certificate", pair.Leaf.Subject)
	}
	return &Authority{cert: pair.Leaf, key: key}, nil
}

// LoadAuthority reads a CA from its two PEM files.
func LoadAuthority(certFile, keyFile string) (*Authority, error) {
	certPEM, err := os.ReadFile(certFile)
	if err != nil {
		return nil, fault.New("read cluster CA", fault.NotFound, err)
	}
	keyPEM, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, fault.New("read cluster CA", fault.NotFound, err)
	}
	return ParseAuthority(certPEM, keyPEM)
}

// Save writes the CA to two PEM files, the key readable by its owner only.
func (a *Authority) Save(certFile, keyFile string) error {
	keyPEM, err := a.KeyPEM()
	if err != nil {
		return err
	}
	if err := writeFile(keyFile, keyPEM, 0o600); err != nil {
		return fault.New("save cluster CA", fault.Internal, err)
	}
	if err := writeFile(certFile, a.CertPEM(), 0o644); err != nil {
		return fault.New("save cluster CA", fault.Internal, err)
	}
	return nil
}

// CertPEM is the CA's certificate, which everyone may know.
func (a *Authority) CertPEM() []byte { return certPEM(a.cert.Raw) }

// KeyPEM is the CA's private key.
func (a *Authority) KeyPEM() ([]byte, error) { return keyPEM(a.key) }

// Pool is the trust in this CA alone.
func (a *Authority) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// Issue makes a key and a certificate for it.
func (a *Authority) Issue(r Request) (tls.Certificate, error) {
	const op = "issue certificate"
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fault.New(op, fault.Internal, err)
	}
	der, err := a.sign(key.Public(), r)
	if err != nil {
		return tls.Certificate{}, fault.Newf(op+" for "+r.Name, fault.KindOf(err), "%w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, fault.New(op, fault.Internal, err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// SignCSR signs the key of a PEM signing request. Only the key is taken from
// it: what the certificate says is decided by the caller.
func (a *Authority) SignCSR(csrPEM []byte, r Request) (certificatePEM []byte, err error) {
	csr, err := parseCSR(csrPEM)
	if err != nil {
		return nil, err
	}
	der, err := a.sign(csr.PublicKey, r)
	if err != nil {
		return nil, err
	}
	return certPEM(der), nil
}

func (a *Authority) sign(pub crypto.PublicKey, r Request) ([]byte, error) {
	const op = "sign certificate"
	if r.Role != RoleMaster && r.Role != RoleAgent && r.Role != roleTask {
		return nil, fault.Newf(op, fault.Invalid, "there is no role %q", r.Role)
	}
	if r.Name == "" {
		return nil, fault.Newf(op, fault.Invalid, "host has no name")
	}
	sn, err := serial()
	if err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	ttl := r.TTL
	if ttl == 0 {
		ttl = LeafTTL
	}
	now := time.Now()
	tmpl := &x509.Certificate{
		SerialNumber: sn,
		Subject: pkix.Name{
			Organization:       []string{"DC/OS"},
			OrganizationalUnit: []string{string(r.Role)},
			CommonName:         r.Name,
		},
		NotBefore:             now.Add(-skew),
		NotAfter:              now.Add(ttl),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		DNSNames:              append([]string{r.Name}, r.Names...),
	}
	for _, addr := range r.Addrs {
		tmpl.IPAddresses = append(tmpl.IPAddresses, net.IP(addr.Unmap().AsSlice()))
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, pub, a.key)
	if err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	return der, nil
}

// MasterName is in the certificate of every master and of no other host, for
// peers that can check a name but no role.
const MasterName = "master.mesos"

// MasterRequest is what a master's certificate says: its own name and
// address, the names clients reach masters by, and loopback.
func MasterRequest(name string, addr netip.Addr) Request {
	return Request{
		Role:  RoleMaster,
		Name:  name,
		Names: []string{"localhost", "leader.mesos", MasterName, "leader.dcos.thisdcos.directory", "master.dcos.thisdcos.directory", registryName},
		Addrs: []netip.Addr{addr, netip.MustParseAddr("127.0.0.1")},
	}
}

// registryName is what images of the cluster's registry call their host, and
// agents dial it by.
const registryName = "registry.dcos"

// reserved reports whether a host may not be called name: the cluster's own
// domains are for masters and for what the cluster's DNS says.
func reserved(name string) bool {
	name = strings.ToLower(name)
	for _, domain := range []string{"mesos", "thisdcos.directory", "localhost", registryName} {
		if name == domain || strings.HasSuffix(name, "."+domain) {
			return true
		}
	}
	return false
}

// Fingerprint is the SHA-256 of a PEM certificate, in the form people compare
// by eye: upper-case hex pairs with colons.
func Fingerprint(pemBytes []byte) (string, error) {
	cert, err := ParseCert(pemBytes)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(cert.Raw)
	h := strings.ToUpper(hex.EncodeToString(sum[:]))
	var b strings.Builder
	for i := 0; i < len(h); i += 2 {
		if i > 0 {
			b.WriteByte(':')
		}
		b.WriteString(h[i : i+2])
	}
	return b.String(), nil
}

// ParseCert reads the first certificate of a PEM text.
func ParseCert(pemBytes []byte) (*x509.Certificate, error) {
	for {
		block, rest := pem.Decode(pemBytes)
		if block == nil {
			return nil, fault.Newf("read certificate", fault.Invalid, "no certificate in PEM form")
		}
		if block.Type == "CERTIFICATE" {
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, fault.New("read certificate", fault.Invalid, err)
			}
			return cert, nil
		}
		pemBytes = rest
	}
}

func parseCSR(csrPEM []byte) (*x509.CertificateRequest, error) {
	const op = "read signing request"
	block, _ := pem.Decode(csrPEM)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, fault.Newf(op, fault.Invalid, "no signing request in PEM form")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fault.New(op, fault.Invalid, err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fault.New(op, fault.Invalid, err)
	}
	if k, ok := csr.PublicKey.(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P256() {
		return nil, fault.Newf(op, fault.Invalid, "key must be ECDSA P-256")
	}
	return csr, nil
}

func serial() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
}

func certPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func keyPEM(key crypto.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fault.New("encode private key", fault.Internal, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// writeFile replaces path in one step, so that a reader never sees half of
// it, and syncs it so that a crash does not leave an empty one.
func writeFile(path string, data []byte, mode os.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(f.Name(), path)
}
