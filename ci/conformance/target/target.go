//go:build e2e

package target

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Patience bounds every wait; nothing takes that long unless it fails.
const Patience = 30 * time.Second

// Cluster is what a suite asks.
type Cluster struct {
	URL, User, Password, Token string
	HTTP                       *http.Client
}

// Main runs a package's tests against a cluster, which it puts into c first.
// The name and the range of addresses are for a cluster of its own.
func Main(m *testing.M, c *Cluster, name, cidr string) int {
	stop, err := c.open(name, cidr)
	if stop != nil {
		defer stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "no cluster to test:", err)
		return 1
	}
	return m.Run()
}

func (c *Cluster) open(name, cidr string) (stop func(), err error) {
	c.URL, c.User, c.Password = os.Getenv("DCOS_CONFORMANCE_URL"), os.Getenv("DCOS_CONFORMANCE_USER"), os.Getenv("DCOS_CONFORMANCE_PASSWORD")
	if c.URL == "" {
		if stop, err = c.start(name, cidr); err != nil {
			return stop, err
		}
	}
	c.URL = strings.TrimSuffix(c.URL, "/")
	if err := c.trust(); err != nil {
		return stop, err
	}
	body, err := json.Marshal(map[string]string{"uid": c.User, "password": c.Password})
	if err != nil {
		return stop, err
	}
	req, err := http.NewRequest(http.MethodPost, c.URL+"/acs/api/v1/auth/login", bytes.NewReader(body))
	if err != nil {
		return stop, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return stop, err
	}
	defer resp.Body.Close()
	var login struct{ Token string }
	if err := json.NewDecoder(resp.Body).Decode(&login); err != nil {
		return stop, fmt.Errorf("log in as %q: %s, %w", c.User, resp.Status, err)
	}
	if login.Token == "" {
		return stop, fmt.Errorf("log in as %q: %s, no token in the answer", c.User, resp.Status)
	}
	c.Token = login.Token
	return stop, nil
}

// trust takes the certificate that the cluster shows: the suites ask what it
// answers, not whether it is the right one.
func (c *Cluster) trust() error {
	blind := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}, Timeout: Patience}
	resp, err := blind.Get(c.URL + "/ca/dcos-ca.crt")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	pem, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return fmt.Errorf("/ca/dcos-ca.crt is no certificate: %s %q", resp.Status, pem)
	}
	c.HTTP = &http.Client{
		// Clients of Mesos want chunks, which only HTTP/1.1 has.
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return nil
}

const blueprint = `cluster %q {}
provider "local" {
  range = %q
}
node_group "master" {
  count  = 1
  cpus   = 1
  memory = "1GiB"
  disk   = "4GiB"
}
node_group "agent" {
  count  = 1
  cpus   = 2
  memory = "2GiB"
  disk   = "8GiB"
}
`

// start makes a cluster of one master and one agent. What a run that was
// killed left is destroyed first.
func (c *Cluster) start(name, cidr string) (stop func(), err error) {
	bin, bundle := os.Getenv("DCOS_BIN"), os.Getenv("DCOS_BUNDLE")
	if bin == "" || bundle == "" {
		return nil, fmt.Errorf("set DCOS_CONFORMANCE_URL, or DCOS_BIN and DCOS_BUNDLE for a cluster of its own")
	}
	dir := filepath.Join(os.TempDir(), "dcos-conformance-"+name)
	install := func(args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, filepath.Join(bin, "dcos-install"), append([]string{"-chdir", dir}, args...)...)
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Run(); err != nil {
			return "", fmt.Errorf("dcos-install %s: %w\n%s%s", strings.Join(args, " "), err, &out, &errs)
		}
		return strings.TrimSpace(out.String()), nil
	}
	stop = func() {
		if _, err := install("destroy", "-auto-approve"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return
		}
		_ = os.RemoveAll(dir) // its state says that nothing is left
	}
	if _, err := os.Stat(dir); err == nil {
		stop()
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "cluster.hcl"), fmt.Appendf(nil, blueprint, name, cidr), 0o600); err != nil {
		return nil, err
	}
	if _, err := install("apply", "-auto-approve", "-bundle", bundle); err != nil {
		return stop, err
	}
	for _, o := range []struct {
		to   *string
		args []string
	}{
		{&c.URL, []string{"output", "-raw", "url"}},
		{&c.User, []string{"output", "-raw", "admin_user"}},
		{&c.Password, []string{"output", "-raw", "-reveal", "admin_password"}},
	} {
		if *o.to, err = install(o.args...); err != nil {
			return stop, err
		}
	}
	return stop, nil
}

// Answer is what came back.
type Answer struct {
	Code   int
	Header http.Header
	Body   string
	what   string
}

// Ask sends a request as the first user. Header is names and values in turn.
func (c *Cluster) Ask(t *testing.T, method, path, body string, header ...string) Answer {
	t.Helper()
	return c.Anonymous(t, method, path, body, append([]string{"Authorization", "token=" + c.Token}, header...)...)
}

// Anonymous sends a request as nobody, unless header says who.
func (c *Cluster) Anonymous(t *testing.T, method, path, body string, header ...string) Answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience) // also while a test cleans up
	defer cancel()
	resp := c.Open(t, ctx, method, path, body, header...)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return Answer{resp.StatusCode, resp.Header, string(b), method + " " + path}
}

// Open sends a request and leaves the answer open, for streams.
func (c *Cluster) Open(t *testing.T, ctx context.Context, method, path, body string, header ...string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, c.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.HTTP.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp
}

// Is checks the status, and that the body has all of parts.
func (a Answer) Is(t *testing.T, code int, parts ...string) Answer {
	t.Helper()
	if a.Code != code {
		t.Errorf("%s: %d, want %d: %.300s", a.what, a.Code, code, a.Body)
	}
	for _, p := range parts {
		if !strings.Contains(a.Body, p) {
			t.Errorf("%s: %q is not in %.600s", a.what, p, a.Body)
		}
	}
	return a
}

// Has checks a header.
func (a Answer) Has(t *testing.T, name, want string) Answer {
	t.Helper()
	if got := a.Header.Get(name); got != want {
		t.Errorf("%s: %s is %q, want %q", a.what, name, got, want)
	}
	return a
}

// JSON decodes the body.
func (a Answer) JSON(t *testing.T, v any) Answer {
	t.Helper()
	if err := json.Unmarshal([]byte(a.Body), v); err != nil {
		t.Fatalf("%s: %v in %.600s", a.what, err, a.Body)
	}
	return a
}

// Keys checks that the body is a JSON object with all of these keys.
func (a Answer) Keys(t *testing.T, keys ...string) Answer {
	t.Helper()
	var m map[string]json.RawMessage
	a.JSON(t, &m)
	for _, k := range keys {
		if _, ok := m[k]; !ok {
			t.Errorf("%s has no %q", a.what, k)
		}
	}
	return a
}

// Eventually waits for f to succeed.
func Eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(Patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatalf("never: %s: %v", what, err)
}
