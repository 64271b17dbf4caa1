package rolepackage

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"dcos.example/dcos/installer/topology"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
)

// Source is where a host gets its package and the release from: a Server, or a
// copy of its Directory.
type Source struct {
	URL   string // of a Server, or the path of a Directory
	Pin   string // of the Server's key
	Token string
}

// Machine is who a machine says it is.
type Machine struct {
	Role  topology.Role
	Name  string       // for agents that the cluster's file does not name
	Addrs []netip.Addr // the one that others use first
}

func (s Source) remote() bool {
	return strings.HasPrefix(s.URL, "https://") || strings.HasPrefix(s.URL, "http://")
}

// Package returns the package of m.
func (s Source) Package(ctx context.Context, m Machine) (Package, error) {
	if s.remote() {
		return s.ask(ctx, m)
	}
	all, err := Directory{s.URL}.Packages()
	if err != nil {
		return Package{}, err
	}
	return choose(all, m.Role, m.Addrs, m.Name)
}

func (s Source) ask(ctx context.Context, m Machine) (Package, error) {
	op := "ask " + s.URL + " for this host's package"
	if s.Token == "" {
		return Package{}, fault.Newf(op, fault.Invalid, "there is no token; genconf serve shows one for each role. Give it as DCOS_TOKEN=TOKEN, before bash, or -t TOKEN")
	}
	body, err := json.Marshal(ask{Role: RoleName(m.Role), Name: m.Name, Addresses: m.Addrs})
	if err != nil {
		return Package{}, fault.New(op, fault.Internal, err)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	resp, err := s.do(ctx, http.MethodPost, PackagePath, body)
	if err != nil {
		return Package{}, fault.New(op, fault.Unavailable, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return Package{}, fault.New(op, fault.Unavailable, err)
	}
	if resp.StatusCode != http.StatusOK {
		return Package{}, fault.Newf(op, fault.Denied, "%s", strings.TrimSpace(string(text)))
	}
	return Decode(text)
}

// Bundle brings the release's bundle to dir and returns its path.
func (s Source) Bundle(ctx context.Context, r Release, dir string) (string, error) {
	if filepath.Base(r.Bundle) != r.Bundle {
		return "", fault.Newf("fetch the release", fault.Invalid, "%q is not the name of a file", r.Bundle)
	}
	if !s.remote() {
		return filepath.Join(s.URL, r.Bundle), nil
	}
	op := "fetch " + s.URL + "/" + r.Bundle
	resp, err := s.do(ctx, http.MethodGet, "/"+r.Bundle, nil)
	if err != nil {
		return "", fault.New(op, fault.Unavailable, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fault.Newf(op, fault.Unavailable, "status %s", resp.Status)
	}
	// What it holds is verified by its signature, when it is opened.
	to := filepath.Join(dir, r.Bundle)
	err = put(to, 0o600, func(w io.Writer) error {
		n, err := io.Copy(w, resp.Body)
		if err == nil && resp.ContentLength >= 0 && n != resp.ContentLength {
			err = fmt.Errorf("%d of %d bytes came", n, resp.ContentLength)
		}
		return err
	})
	if err != nil {
		return "", fault.New(op, fault.Unavailable, err)
	}
	return to, nil
}

// do asks the server that has the pinned key, and no other.
func (s Source) do(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, s.URL+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if path == PackagePath {
		if req.URL.Scheme != "https" || s.Pin == "" {
			return nil, errors.New("packages hold secrets: they are fetched over HTTPS only, from a server whose key is known. Fetch the script from genconf serve, which tells the key, or copy this host's package and name it with --package")
		}
		req.Header.Set("Authorization", "Bearer "+s.Token)
	}
	client := &http.Client{Transport: &http.Transport{
		DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext, TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: 30 * time.Second, DisableKeepAlives: true,
		// Who the server is its key says, whatever its address.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12, VerifyConnection: s.pinned}, //nolint:gosec // see above
	}}
	return client.Do(req)
}

func (s Source) pinned(c tls.ConnectionState) error {
	if len(c.PeerCertificates) == 0 || pinFor(c.PeerCertificates[0]) != s.Pin {
		return errors.New("the server has another key than the one that the script was made with: it is not your bootstrap server, or it was made anew; fetch the script again")
	}
	return nil
}

func pinFor(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// Addresses returns the IPv4 addresses of this machine. The one that it uses
// towards to, if that is valid, comes first: no packet is sent to find out.
func Addresses(ctx context.Context, to netip.Addr) ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fault.New("look for this machine's addresses", fault.Internal, err)
	}
	var out []netip.Addr
	bridge := config.DefaultAgent().Bridge.Subnet
	for _, a := range all {
		p, err := netip.ParsePrefix(a.String())
		if err != nil || !p.Addr().Is4() || p.Addr().IsLoopback() || p.Addr().IsLinkLocalUnicast() || p.Addr().String() == config.DNSAddr || bridge.Contains(p.Addr()) {
			continue // the last two are ours, and the same on every host
		}
		out = append(out, p.Addr())
	}
	if !to.IsValid() {
		return out, nil
	}
	c, err := (&net.Dialer{}).DialContext(ctx, "udp4", net.JoinHostPort(to.String(), strconv.Itoa(config.PortMaster)))
	if err != nil {
		return out, nil // no route: the order is as good as any
	}
	defer c.Close()
	if ap, err := netip.ParseAddrPort(c.LocalAddr().String()); err == nil {
		if i := slices.Index(out, ap.Addr()); i > 0 {
			out[0], out[i] = out[i], out[0]
		}
	}
	return out, nil
}

// Hostname is the name of this machine as hosts have one.
func Hostname() (string, error) {
	n, err := os.Hostname()
	if err != nil {
		return "", fault.New("look for this machine's name", fault.Internal, err)
	}
	return strings.ToLower(n), nil
}
