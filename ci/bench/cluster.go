package main

import (
	"bufio"
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
	"strconv"
	"strings"
	"time"
)

// cluster is a local cluster under measurement, in the eyes of its user.
type cluster struct {
	s       settings
	dir     string // of its blueprint and state
	masters int

	urls   []string // gateways
	token  string
	client *http.Client
}

// newCluster writes the blueprint; nothing is made yet.
func newCluster(s settings, work string, masters int) (*cluster, error) {
	c := &cluster{s: s, dir: filepath.Join(work, fmt.Sprintf("stack-%d", masters)), masters: masters}
	text, err := os.ReadFile(s.blueprint)
	if err != nil {
		return nil, err
	}
	// The blueprint as it is, under a name of its own: someone may be using it.
	named := strings.Replace(string(text), `cluster "local"`, fmt.Sprintf("cluster %q", s.name), 1)
	if named == string(text) {
		return nil, fmt.Errorf("%s names no cluster \"local\"", s.blueprint)
	}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return nil, err
	}
	return c, os.WriteFile(filepath.Join(c.dir, "cluster.hcl"), []byte(named), 0o644)
}

// install runs dcos-install in the cluster's directory.
func (c *cluster) install(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(c.s.bin, "dcos-install"), append([]string{"-chdir", c.dir}, args...)...)
	cmd.Env = append(os.Environ(), "DCOS_VAR_range="+c.s.addresses, "DCOS_VAR_uplink=false", "DCOS_VAR_masters="+strconv.Itoa(c.masters))
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("dcos-install %s: %w\n%s%s", args[0], err, out.Bytes(), problem.Bytes())
	}
	return out.Bytes(), nil
}

func (c *cluster) apply(ctx context.Context) error {
	_, err := c.install(ctx, "apply", "-auto-approve", "-bundle", c.s.bundle)
	return err
}

func (c *cluster) destroy(ctx context.Context) error {
	_, err := c.install(ctx, "destroy", "-auto-approve")
	c.urls, c.token = nil, ""
	if c.client != nil {
		c.client.CloseIdleConnections()
	}
	return err
}

// login learns addresses and secrets from the outputs and gets a token.
func (c *cluster) login(ctx context.Context) error {
	text, err := c.install(ctx, "output", "-json")
	if err != nil {
		return err
	}
	password, err := c.install(ctx, "output", "-raw", "-reveal", "admin_password")
	if err != nil {
		return err
	}
	var doc struct {
		Outputs []struct {
			Name  string
			Value any
		}
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return err
	}
	out := make(map[string]string)
	for _, o := range doc.Outputs {
		out[o.Name] = fmt.Sprint(o.Value)
	}
	first := strings.TrimPrefix(out["url"], "https://")
	cut := strings.LastIndexByte(first, '.')
	last, err := strconv.Atoi(first[cut+1:])
	if err != nil {
		return fmt.Errorf("url %q: %w", out["url"], err)
	}
	c.urls = nil
	for i := range c.masters { // masters have addresses in a row
		c.urls = append(c.urls, fmt.Sprintf("https://%s.%d", first[:cut], last+i))
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(out["ca_certificate"])) {
		return fmt.Errorf("output ca_certificate holds no certificate")
	}
	c.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}}
	body, _ := json.Marshal(map[string]string{"uid": out["admin_user"], "password": strings.TrimSpace(string(password))}) // cannot fail
	var answer struct{ Token string }
	if err := c.call(ctx, c.urls[0], "POST", "/acs/api/v1/auth/login", body, &answer); err != nil {
		return err
	}
	c.token = answer.Token
	return nil
}

// call makes one request and decodes the answer into into, unless nil.
func (c *cluster) call(ctx context.Context, base, method, path string, body []byte, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	c.dress(req)
	res, err := c.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %.200s", method, path, res.Status, text)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(text, into)
}

func (c *cluster) dress(req *http.Request) {
	req.Header.Set("Content-Type", "application/json")
	if c.token != "" {
		req.Header.Set("Authorization", "token="+c.token)
	}
}

func (c *cluster) marathon(ctx context.Context, method, path string, body []byte, into any) error {
	return c.call(ctx, c.urls[0], method, "/marathon/v2"+path, body, into)
}

// app makes a definition of the hello image with a network of its own.
func app(id string, instances int, more map[string]any) []byte {
	a := map[string]any{
		"id": id, "instances": instances, "cpus": 0.01, "mem": 10,
		"container": map[string]any{
			"type": "MESOS", "docker": map[string]any{"image": "dcos/hello:0.1"},
			"portMappings": []any{map[string]any{"containerPort": 8080, "hostPort": 0}},
		},
		"networks": []any{map[string]any{"mode": "container/bridge"}},
	}
	for k, v := range more {
		a[k] = v
	}
	text, _ := json.Marshal(a) // cannot fail
	return text
}

// event is what the benchmark reads of an event of /v2/events.
type event struct {
	Type   string `json:"eventType"`
	App    string `json:"appId"`
	Status string `json:"taskStatus"`
	at     time.Time
}

// events subscribes to status updates. The stream is open when it returns, and
// closed by cancelling ctx.
func (c *cluster) events(ctx context.Context) (<-chan event, error) {
	req, err := http.NewRequestWithContext(ctx, "GET", c.urls[0]+"/marathon/v2/events?event_type=status_update_event", nil)
	if err != nil {
		return nil, err
	}
	c.dress(req)
	req.Header.Set("Accept", "text/event-stream")
	res, err := c.client.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		res.Body.Close()
		return nil, fmt.Errorf("GET /v2/events: %s", res.Status)
	}
	ch := make(chan event, 4096)
	go func() {
		defer close(ch)
		defer res.Body.Close()
		lines := bufio.NewScanner(res.Body)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			data, ok := strings.CutPrefix(lines.Text(), "data:")
			e := event{at: time.Now()}
			if ok && json.Unmarshal([]byte(data), &e) == nil {
				ch <- e
			}
		}
	}()
	return ch, nil
}

// await returns when n tasks of the app have reported status, with the time of
// the last of them.
func await(ctx context.Context, ch <-chan event, app, status string, n int) (time.Time, error) {
	for {
		select {
		case e, ok := <-ch:
			if !ok {
				return time.Time{}, fmt.Errorf("the event stream ended")
			}
			if e.App == app && (e.Status == "TASK_FAILED" || e.Status == "TASK_ERROR") {
				return time.Time{}, fmt.Errorf("a task of %s ended: %s", app, e.Status)
			}
			if e.App == app && e.Status == status {
				if n--; n == 0 {
					return e.at, nil
				}
			}
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("wait for %d more %s of %s: %w", n, status, app, context.Cause(ctx))
		}
	}
}

// healthy waits until all instances of an app pass their health checks.
func (c *cluster) healthy(ctx context.Context, id string, n int) error {
	for {
		var a struct {
			App struct{ TasksHealthy int }
		}
		if err := c.marathon(ctx, "GET", "/apps/"+id, nil, &a); err != nil {
			return err
		}
		if a.App.TasksHealthy == n {
			return nil
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("wait for %s to be healthy: %w", id, err)
		}
	}
}

// remove deletes an app and waits until nothing of it runs.
func (c *cluster) remove(ctx context.Context, id string) error {
	if err := c.marathon(ctx, "DELETE", "/apps/"+id+"?force=true", nil, nil); err != nil {
		return err
	}
	for {
		var d []struct{}
		if err := c.marathon(ctx, "GET", "/deployments", nil, &d); err != nil {
			return err
		}
		if len(d) == 0 {
			return nil
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
