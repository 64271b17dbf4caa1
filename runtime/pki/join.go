package pki

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"dcos.example/dcos/runtime/fault"
	"github.com/cenkalti/backoff/v5"
)

// SignPath is where masters answer signing requests, on their TLS port.
const SignPath = "/pki/v1/sign"

// signRequest is the body of POST SignPath. Token is empty when the
// connection shows a certificate of the same host.
type signRequest struct {
	CSR   string `json:"csr"`
	Token string `json:"token,omitempty"`
}

type signResponse struct {
	Certificate string `json:"certificate"`
}

type signError struct {
	Message string `json:"message"`
}

// hostName is an RFC 1123 name of up to 253 characters.
var hostName = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*$`)

// SignHandler answers POST SignPath: it signs agents' certificates. A host
// proves that it belongs to the cluster by the join token or, on a connection
// that ServerTLS accepted, by its present certificate. The certificate is for
// the name the host gives and for the address it calls from, and nothing
// else, so that one host cannot obtain a certificate for another's address,
// nor for a name that only masters have.
func SignHandler(a *Authority, joinToken string, log *slog.Logger) http.Handler {
	want := sha256.Sum256([]byte(joinToken))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", "POST")
			reply(w, http.StatusMethodNotAllowed, signError{"use POST"})
			return
		}
		var body signRequest
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 16<<10)).Decode(&body); err != nil {
			reply(w, http.StatusBadRequest, signError{"read signing request: " + err.Error()})
			return
		}
		csr, err := parseCSR([]byte(body.CSR))
		if err != nil {
			reply(w, http.StatusBadRequest, signError{err.Error()})
			return
		}
		name := csr.Subject.CommonName
		if !hostName.MatchString(name) || len(name) > 253 {
			reply(w, http.StatusBadRequest, signError{"common name of the signing request is not a host name"})
			return
		}
		if reserved(name) {
			log.Warn("signing request refused", "name", name, "remote", r.RemoteAddr)
			reply(w, http.StatusBadRequest, signError{name + " is in a domain of the cluster itself: no host may have that name"})
			return
		}
		got := sha256.Sum256([]byte(body.Token))
		byToken := joinToken != "" && subtle.ConstantTimeCompare(want[:], got[:]) == 1
		role, peer, byCert := Peer(r)
		byCert = byCert && role == RoleAgent && peer == name
		if !byToken && !byCert {
			log.Warn("signing request refused", "name", name, "remote", r.RemoteAddr)
			reply(w, http.StatusForbidden, signError{"join token is wrong and the connection shows no certificate of " + name})
			return
		}
		remote, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil {
			reply(w, http.StatusBadRequest, signError{"address of the caller is unknown"})
			return
		}
		cert, err := a.SignCSR([]byte(body.CSR), Request{
			Role: RoleAgent, Name: name,
			Addrs: []netip.Addr{remote.Addr().Unmap(), netip.MustParseAddr("127.0.0.1")},
		})
		if err != nil {
			log.Error("sign certificate", "name", name, "err", err)
			reply(w, http.StatusInternalServerError, signError{"the master could not sign"})
			return
		}
		log.Info("certificate signed", "name", name, "addr", remote.Addr(), "renewal", !byToken)
		reply(w, http.StatusOK, signResponse{string(cert)})
	})
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the connection is gone: nobody to tell
}

// JoinConfig says how a host obtains its certificate from the masters.
type JoinConfig struct {
	CAPEM []byte     // the cluster's CA certificate
	Token string     // the join token
	Name  string     // host name
	Addr  netip.Addr // the host's address; requests are sent from it
	// Masters returns "host:port" of the masters' TLS ports, to be tried in turn.
	Masters func() []string
	File    string // where certificate and key are kept (0600), e.g. VarDir/pki/host.pem
}

// Join returns an agent's credentials: those saved in cfg.File while they
// last, else a certificate that a master signs. It asks again with backoff
// until ctx ends, except when a master refuses.
func Join(ctx context.Context, cfg JoinConfig, log *slog.Logger) (*Credentials, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(cfg.CAPEM) {
		return nil, fault.Newf("read cluster CA", fault.Invalid, "no certificate in PEM form")
	}
	c := &Credentials{pool: pool, caPEM: cfg.CAPEM, log: log}
	c.save = func(cert tls.Certificate) error { return saveCertificate(cfg.File, cert) }
	c.obtain = func(ctx context.Context) (tls.Certificate, error) { return obtain(ctx, cfg, c) }
	saved, err := loadCertificate(cfg.File)
	switch {
	case err == nil && validFor(saved, pool, cfg.Name, cfg.Addr):
		c.current.Store(&saved)
		return c, nil
	case err != nil && !errors.Is(err, os.ErrNotExist):
		log.Warn("saved certificate is unusable", "file", cfg.File, "err", err)
	}
	if err := os.MkdirAll(filepath.Dir(cfg.File), 0o700); err != nil {
		return nil, fault.New("join cluster", fault.Internal, err)
	}
	_, err = backoff.Retry(ctx, func() (struct{}, error) {
		err := c.renew(ctx)
		if fault.Is(err, fault.Denied) || fault.Is(err, fault.Invalid) {
			return struct{}{}, backoff.Permanent(err)
		}
		if err != nil {
			log.Warn("join cluster", "err", err)
		}
		return struct{}{}, err
	}, backoff.WithMaxElapsedTime(0))
	if err != nil {
		return nil, err
	}
	return c, nil
}

// obtain asks the masters in turn to sign a new key. It shows the present
// certificate and sends the token only when there is none or it has expired.
func obtain(ctx context.Context, cfg JoinConfig, c *Credentials) (tls.Certificate, error) {
	const op = "obtain certificate"
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fault.New(op, fault.Internal, err)
	}
	csrDER, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: cfg.Name}}, key)
	if err != nil {
		return tls.Certificate{}, fault.New(op, fault.Internal, err)
	}
	req := signRequest{CSR: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csrDER}))}
	shown := c.current.Load()
	if shown == nil || time.Now().After(shown.Leaf.NotAfter) {
		shown, req.Token = &tls.Certificate{}, cfg.Token
	}
	dialer := net.Dialer{Timeout: 5 * time.Second}
	if cfg.Addr.IsValid() {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(cfg.Addr, 0))
	}
	tr := &http.Transport{
		DialContext:       dialer.DialContext,
		DisableKeepAlives: true,
		TLSClientConfig: clientTLS(c.pool, []Role{RoleMaster}, func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return shown, nil
		}),
	}
	client := &http.Client{Transport: tr, Timeout: 15 * time.Second}
	errs := []error{errors.New("no master is known")}
	for i, m := range cfg.Masters() {
		certPEM, err := postSign(ctx, client, m, req)
		if err == nil {
			return pairOf(certPEM, key)
		}
		if fault.Is(err, fault.Denied) {
			return tls.Certificate{}, err
		}
		if i == 0 {
			errs = nil
		}
		errs = append(errs, err)
	}
	return tls.Certificate{}, fault.New(op, fault.Unavailable, errors.Join(errs...))
}

func postSign(ctx context.Context, client *http.Client, master string, body signRequest) ([]byte, error) {
	op := "ask master " + master + " for a certificate"
	b, err := json.Marshal(body)
	if err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+master+SignPath, bytes.NewReader(b))
	if err != nil {
		return nil, fault.New(op, fault.Invalid, err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return nil, fault.New(op, fault.Unavailable, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return nil, fault.New(op, fault.Unavailable, err)
	}
	if resp.StatusCode != http.StatusOK {
		kind := fault.Unavailable
		switch resp.StatusCode {
		case http.StatusForbidden:
			kind = fault.Denied
		case http.StatusBadRequest:
			kind = fault.Invalid
		}
		var e signError
		_ = json.Unmarshal(data, &e) // without a message the status has to do
		return nil, fault.Newf(op, kind, "%s: %s", resp.Status, e.Message)
	}
	var ok signResponse
	if err := json.Unmarshal(data, &ok); err != nil {
		return nil, fault.New(op, fault.Unavailable, err)
	}
	return []byte(ok.Certificate), nil
}

func pairOf(certPEM []byte, key crypto.PrivateKey) (tls.Certificate, error) {
	keyPEM, err := keyPEM(key)
	if err != nil {
		return tls.Certificate{}, err
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return cert, fault.New("read signed certificate", fault.Unavailable, err)
	}
	return cert, nil
}

func saveCertificate(file string, cert tls.Certificate) error {
	key, err := keyPEM(cert.PrivateKey)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fault.New("save certificate", fault.Internal, err)
	}
	if err := writeFile(file, append(certPEM(cert.Certificate[0]), key...), 0o600); err != nil {
		return fault.New("save certificate", fault.Internal, err)
	}
	return nil
}

func loadCertificate(file string) (tls.Certificate, error) {
	return tls.LoadX509KeyPair(file, file)
}
