//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long a condition may take to come true on a busy machine.
// Reaching it is a failure, never a measurement.
const patience = 90 * time.Second

// interrupted ends with the first SIGINT or SIGTERM: tests then fail, and
// their clean-ups destroy their clusters.
var interrupted context.Context

func TestMain(m *testing.M) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	interrupted = ctx
	flag.Parse()
	// Tests that run at once mostly wait for the cluster: the number of CPUs is
	// no measure of how many there may be.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	code := m.Run()
	stop()
	os.Exit(code)
}

// eventually calls f until it returns nil.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(interrupted, patience)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	start := time.Now()
	for {
		err := f()
		if err == nil {
			if took := time.Since(start); took > 3*time.Second {
				t.Logf("waited %v until %s", took.Round(100*time.Millisecond), what)
			}
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %v: %v", what, ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// cluster is one local cluster and a user of it.
type cluster struct {
	name    string
	dir     string // with cluster.hcl, the stack and the dcos profile
	bin     string
	print   *footprint        // of a local cluster
	env     []string          // besides the test's own
	hosts   map[string]string // addresses by name
	masters []string          // addresses
	token   string
	http    *http.Client
	next    int // of masters: who is asked first
	mu      sync.Mutex
}

// newCluster prepares a cluster that is described by hcl; nothing is made yet.
// Its directory has a fixed name so that the next run finds what a killed one
// left, and destroys it.
func newCluster(t *testing.T, name, cidr, hcl string) *cluster {
	t.Helper()
	c := &cluster{name: name, dir: filepath.Join(os.TempDir(), "dcos-"+name), bin: release(t)}
	if _, err := os.Stat(filepath.Join(c.dir, "cluster.hcl")); err == nil {
		t.Logf("an earlier run left %s: destroying it", c.dir)
		c.destroy(t)
	}
	must(t, os.MkdirAll(c.dir, 0o700))
	must(t, os.WriteFile(filepath.Join(c.dir, "cluster.hcl"), []byte(hcl), 0o600))
	c.print = newFootprint(t, name, netip.MustParsePrefix(cidr))
	t.Cleanup(func() {
		if t.Failed() {
			c.report(t)
		}
		c.destroy(t)
	})
	return c
}

// release returns the directory of the binaries under test.
func release(t *testing.T) string {
	t.Helper()
	bin := os.Getenv("DCOS_BIN")
	if bin == "" || os.Getenv("DCOS_BUNDLE") == "" {
		t.Fatal("DCOS_BIN and DCOS_BUNDLE must name the binaries and the bundle; `make test` sets them")
	}
	return bin
}

// destroy removes the cluster and its directory. It works after interrupts.
func (c *cluster) destroy(t *testing.T) {
	t.Helper()
	out, err := c.command(context.Background(), "dcos-install", "destroy", "-auto-approve").CombinedOutput()
	if err != nil {
		t.Errorf("destroy %s by hand, with `dcos-install -chdir %s destroy`: %v\n%s", c.name, c.dir, err, out)
		return
	}
	must(t, os.RemoveAll(c.dir))
}

// report logs the ends of the daemons' logs, for who looks into a failure.
func (c *cluster) report(t *testing.T) {
	dirs, err := filepath.Glob("/var/lib/dcos-install/local/" + c.name + "/*/host.json")
	must(t, err)
	for _, file := range dirs {
		host := filepath.Base(filepath.Dir(file))
		out, err := c.command(context.Background(), "dcos-install", "host", "exec", host, "--", "sh", "-c", "tail -n 15 /var/log/dcos/dcos-[am]*.log").CombinedOutput()
		t.Logf("log of %s (%v):\n%s", host, err, out)
	}
}

// command is a program of the release run in the cluster's directory.
func (c *cluster) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin, program), args...)
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), "DCOS_DIR="+filepath.Join(c.dir, "profile"), "PATH="+c.bin+":"+os.Getenv("PATH"))
	cmd.Env = append(cmd.Env, c.env...)
	// A Ctrl-C is for the test, which ends its programs in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	return cmd
}

// try runs a program and returns its standard output; the error has the rest.
func (c *cluster) try(program string, args ...string) (string, error) {
	cmd := c.command(interrupted, program, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s %s: %w\n%s%s", program, strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String(), nil
}

func (c *cluster) install(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.try("dcos-install", args...)
	must(t, err)
	return out
}

func (c *cluster) dcos(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.try("dcos", args...)
	must(t, err)
	return out
}

// on runs a shell script on a host.
func (c *cluster) on(host, script string) (string, error) {
	return c.try("dcos-install", "host", "exec", host, "--", "sh", "-c", script)
}

// setup logs in, with the CLI and for the APIs.
func (c *cluster) setup(t *testing.T) {
	t.Helper()
	ca := c.install(t, "output", "-raw", "ca_certificate")
	caFile := filepath.Join(c.dir, "ca.crt")
	must(t, os.WriteFile(caFile, []byte(ca), 0o600))
	url := strings.TrimSpace(c.install(t, "output", "-raw", "url"))
	password := strings.TrimSpace(c.install(t, "output", "-raw", "-reveal", "admin_password"))
	c.dcos(t, "cluster", "setup", url, "--ca-certs", caFile, "--username", "admin", "--password", password)
	c.client(t)
	var session struct{ Token string }
	must(t, c.call("POST", "/acs/api/v1/auth/login", map[string]string{"uid": "admin", "password": password}, &session))
	c.token = session.Token
}

// client learns the cluster's hosts, and whom to trust.
func (c *cluster) client(t *testing.T) {
	t.Helper()
	ca := c.install(t, "output", "-raw", "ca_certificate")
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(ca)) {
		t.Fatalf("the CA certificate cannot be read: %q", ca)
	}
	// A connection that is kept to a host that lost its power tells nothing for
	// long; a new one fails at once.
	c.http = &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool}, DialContext: (&net.Dialer{Timeout: 2 * time.Second}).DialContext, DisableKeepAlives: true,
	}}
	var status struct {
		Hosts []struct{ Name, Role, Address string }
	}
	must(t, json.Unmarshal([]byte(c.install(t, "status", "-json")), &status))
	c.hosts = map[string]string{}
	for _, h := range status.Hosts {
		c.hosts[h.Name] = h.Address
		if h.Role == "master" {
			c.masters = append(c.masters, h.Address)
		}
	}
}

// call sends a request to the masters' gateways in turn, until one that is up
// answers, as a client behind a load balancer sees it.
func (c *cluster) call(method, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	var errs []error
	for range c.masters {
		c.mu.Lock()
		master := c.masters[c.next%len(c.masters)]
		c.mu.Unlock()
		again, err := c.ask(master, method, path, body, out)
		if !again {
			return err
		}
		errs = append(errs, err)
		c.mu.Lock()
		c.next++
		c.mu.Unlock()
	}
	return errors.Join(errs...)
}

// ask sends one request to one master; again says that another may know better.
func (c *cluster) ask(master, method, path string, body []byte, out any) (again bool, err error) {
	ctx, cancel := context.WithTimeout(interrupted, 60*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "https://"+master+path, bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	if c.token != "" {
		req.Header.Set("Authorization", "token="+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return true, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return true, err
	}
	if resp.StatusCode/100 != 2 {
		return resp.StatusCode >= 502, fmt.Errorf("%s %s on %s: %s: %s", method, path, master, resp.Status, b)
	}
	if out == nil {
		return false, nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return false, fmt.Errorf("%s %s on %s: %w: %s", method, path, master, err, b)
	}
	return false, nil
}
