package rolepackage

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"dcos.example/dcos/installer/topology"
	"dcos.example/dcos/runtime/fault"
)

// Server hands out a Directory: the script, the program and the bundle to
// anybody, packages over TLS for a token. A package is given to one address
// only, though as often as it asks. One port speaks both HTTP and HTTPS.
type Server struct {
	dir      Directory
	cert     tls.Certificate
	packages []Package
	tokens   map[topology.Role]string
	until    time.Time
	log      *slog.Logger
	now      func() time.Time

	mu    sync.Mutex
	taken map[string]netip.Addr // host → who has its package
	named map[netip.Addr]string // addresses of unnamed agents → their names
}

// ServerOptions configure a Server.
type ServerOptions struct {
	For time.Duration    // how long packages are handed out
	Log *slog.Logger     // nil: none
	Now func() time.Time // nil: time.Now
}

// NewServer reads the directory and makes tokens, which end with it.
func NewServer(dir Directory, o ServerOptions) (*Server, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	packages, err := dir.Packages()
	if err != nil {
		return nil, err
	}
	cert, err := dir.certificate()
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, cert: cert, packages: packages, tokens: map[topology.Role]string{}, until: o.Now().Add(o.For), log: o.Log, now: o.Now,
		taken: map[string]netip.Addr{}, named: map[netip.Addr]string{}}
	for _, p := range packages {
		if s.tokens[p.Host.Role] == "" {
			s.tokens[p.Host.Role] = rand.Text()
		}
	}
	return s, nil
}

// Cluster is the cluster's name, and Master one of its masters.
func (s *Server) Cluster() string    { return s.packages[0].Cluster.Cluster.Name }
func (s *Server) Master() netip.Addr { return s.packages[0].Cluster.Hosts[0].Addr }

// Token returns the token of a role; "" when no host may have it.
func (s *Server) Token(role topology.Role) string { return s.tokens[role] }

// Pin identifies the server's key, in the form that curl takes after
// "sha256//".
func (s *Server) Pin() string { return pinOf(s.cert) }

func pinOf(c tls.Certificate) string {
	sum := sha256.Sum256(c.Leaf.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// certificate returns the server's, made once. Whoever connects knows its key
// and looks at nothing else of it.
func (d Directory) certificate() (tls.Certificate, error) {
	const op = "read the server's certificate"
	key, crt := filepath.Join(d.Path, keyName), filepath.Join(d.Path, certName)
	if _, err := os.Stat(key); errors.Is(err, os.ErrNotExist) {
		if err := makeCertificate(key, crt); err != nil {
			return tls.Certificate{}, fault.New("make the server's certificate", fault.Denied, err)
		}
	}
	c, err := tls.LoadX509KeyPair(crt, key)
	if err != nil {
		return c, fault.New(op, fault.Invalid, err)
	}
	return c, nil
}

func makeCertificate(key, crt string) error {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return err
	}
	t := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: "dcos-install genconf"}, DNSNames: []string{"dcos-install"},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().AddDate(10, 0, 0), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, t, t, k.Public(), k)
	if err != nil {
		return err
	}
	pk, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return err
	}
	// The key last: without it both are made anew.
	if err := replace(crt, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		return err
	}
	return replace(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pk}), 0o600)
}

// Serve answers on l until ctx ends.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	plain, secure := split(l)
	servers := []*http.Server{
		{Handler: s.Handler(), ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)},
		{Handler: s.Handler(), ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
			TLSConfig: &tls.Config{Certificates: []tls.Certificate{s.cert}, MinVersion: tls.VersionTLS12}},
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		sort(l, plain, secure)
		return nil
	})
	g.Go(func() error { return servers[0].Serve(plain) })
	g.Go(func() error { return servers[1].ServeTLS(secure, "", "") })
	g.Go(func() error {
		<-gctx.Done()
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		var errs []error
		for _, srv := range servers {
			if err := srv.Shutdown(stop); err != nil {
				errs = append(errs, srv.Close())
			}
		}
		return errors.Join(errs...)
	})
	err := g.Wait()
	if errors.Is(err, http.ErrServerClosed) || ctx.Err() != nil {
		return nil
	}
	return fault.New("serve", fault.Unavailable, err)
}

// PackagePath is where hosts ask for their packages.
const PackagePath = "/package"

// ask is what a host posts to PackagePath.
type ask struct {
	Role      string       `json:"role"`
	Name      string       `json:"name"`
	Addresses []netip.Addr `json:"addresses"` // the one that others use first
}

// Handler is what the server answers.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, name := range []string{ProgramName, s.packages[0].Release.Bundle} {
		mux.HandleFunc("GET /"+name, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/octet-stream")
			http.ServeFile(w, r, filepath.Join(s.dir.Path, name))
		})
	}
	mux.HandleFunc("GET /"+ScriptName, s.script)
	mux.HandleFunc("POST "+PackagePath, s.hand)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "Here are "+ScriptName+", "+ProgramName+" and "+s.packages[0].Release.Bundle+".", http.StatusNotFound)
	})
	return mux
}

// addressRE are hosts with a port as they may stand in the script.
var addressRE = regexp.MustCompile(`^([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?$`)

// script tells whoever fetches it to fetch the rest where it was found.
func (s *Server) script(w http.ResponseWriter, r *http.Request) {
	if !addressRE.MatchString(r.Host) {
		http.Error(w, "The Host header is no address.", http.StatusBadRequest)
		return
	}
	scheme := "https" // also for those who came without: only the script itself is taken on trust
	b, err := s.dir.script(s.packages[0], scheme+"://"+r.Host)
	if err != nil {
		s.log.Error("render script", "err", err)
		http.Error(w, "The script cannot be written; see the log of the server.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/x-shellscript; charset=utf-8")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
}

// hand gives a host its package.
func (s *Server) hand(w http.ResponseWriter, r *http.Request) {
	refuse := func(code int, format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		s.log.Warn("no package", "from", r.RemoteAddr, "status", code, "why", text)
		http.Error(w, text, code)
	}
	if r.TLS == nil {
		refuse(http.StatusForbidden, "Packages hold secrets: they are given over HTTPS only.")
		return
	}
	var a ask
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&a); err != nil {
		refuse(http.StatusBadRequest, "The question cannot be read: %v", err)
		return
	}
	role, err := ParseRole(a.Role)
	if err != nil {
		refuse(http.StatusBadRequest, "%v", err)
		return
	}
	token := s.tokens[role]
	if token == "" || subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte("Bearer "+token)) != 1 {
		refuse(http.StatusUnauthorized, "The token is not that of role %s; genconf serve shows it when it starts, and makes another one each time.", RoleName(role))
		return
	}
	if s.now().After(s.until) {
		refuse(http.StatusGone, "The time for which packages are handed out is over; start genconf serve again.")
		return
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		refuse(http.StatusInternalServerError, "The address that you come from cannot be read.")
		return
	}
	p, err := choose(s.packages, role, a.Addresses, a.Name)
	if err == nil {
		err = s.take(p, from.Addr().Unmap())
	}
	if err != nil {
		refuse(http.StatusConflict, "%v", err)
		return
	}
	b, err := p.encode()
	if err != nil {
		refuse(http.StatusInternalServerError, "%v", err)
		return
	}
	s.log.Info("package handed out", "host", p.Host.Name, "role", RoleName(role), "address", p.Host.Addr, "to", from.Addr())
	w.Header().Set("Content-Type", "application/json")
	if _, err := w.Write(b); err != nil {
		s.log.Warn("hand out package", "host", p.Host.Name, "err", err)
	}
}

// take notes who has the package of a host.
func (s *Server) take(p Package, from netip.Addr) error {
	const op = "hand out the package"
	s.mu.Lock()
	defer s.mu.Unlock()
	if other, ok := s.taken[p.Host.Name]; ok && other != from {
		return fault.Newf(op, fault.Conflict, "the package of host %s was given to %s. If that was not you, the token is known to somebody: stop genconf serve, and replace the cluster's secrets", p.Host.Name, other)
	}
	if name, ok := s.named[p.Host.Addr]; ok && name != p.Host.Name {
		return fault.Newf(op, fault.Conflict, "address %s is that of host %s", p.Host.Addr, name)
	}
	s.taken[p.Host.Name], s.named[p.Host.Addr] = from, p.Host.Name
	return nil
}

// split returns listeners for the connections of l that begin with TLS, and for
// the others; sort tells them apart.
func split(l net.Listener) (plain, secure *side) {
	return &side{Listener: l, conns: make(chan net.Conn), over: make(chan struct{})}, &side{Listener: l, conns: make(chan net.Conn), over: make(chan struct{})}
}

// sort accepts connections for both sides until l is closed.
func sort(l net.Listener, plain, secure *side) {
	var wg sync.WaitGroup
	defer func() {
		wg.Wait()
		close(plain.conns)
		close(secure.conns)
	}()
	for {
		c, err := l.Accept()
		if err != nil {
			if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
				continue
			}
			return
		}
		wg.Go(func() {
			// The first byte of TLS is the type of a handshake record.
			in := bufio.NewReader(c)
			if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
				c.Close()
				return
			}
			first, err := in.Peek(1)
			if err != nil || c.SetReadDeadline(time.Time{}) != nil {
				c.Close()
				return
			}
			to := plain
			if first[0] == 0x16 {
				to = secure
			}
			select {
			case to.conns <- peeked{c, in}:
			case <-to.over:
				c.Close()
			}
		})
	}
}

// side is one kind of a listener's connections.
type side struct {
	net.Listener
	conns chan net.Conn
	once  sync.Once
	over  chan struct{}
}

func (s *side) Accept() (net.Conn, error) {
	select {
	case c, ok := <-s.conns:
		if ok {
			return c, nil
		}
	case <-s.over:
	}
	return nil, net.ErrClosed
}

func (s *side) Close() error {
	s.once.Do(func() { close(s.over) })
	if err := s.Listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// peeked is a connection of which the first bytes have been looked at.
type peeked struct {
	net.Conn
	in io.Reader
}

func (p peeked) Read(b []byte) (int, error) { return p.in.Read(b) }
