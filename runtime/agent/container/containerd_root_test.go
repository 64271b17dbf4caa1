//go:build root

package container_test

import (
	"archive/tar"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/uuid"

	"dcos.example/dcos/runtime/agent/container"
	"dcos.example/dcos/runtime/agent/container/conformance"
	"dcos.example/dcos/runtime/agent/container/containerdtest"
	"dcos.example/dcos/runtime/fault"
)

func TestConformance(t *testing.T) {
	e := containerdtest.Start(t)
	conformance.Run(t, e.Driver(t), containerdtest.Image)
}

func TestPull(t *testing.T) {
	e := containerdtest.Start(t)
	d := e.Driver(t)
	srv := httptest.NewServer(registry.New())
	host := strings.TrimPrefix(srv.URL, "http://")
	push(t, srv.URL+"/v2/apps/tiny", "2", e.Tiny(t))
	run := func(image string) error {
		id := uuid.NewString()
		if _, err := d.Start(t.Context(), container.Spec{ID: id, Image: image}); err != nil {
			return err
		}
		if _, err := d.Wait(t.Context(), id); err != nil {
			return err
		}
		return d.Remove(t.Context(), id)
	}
	if err := run(host + "/apps/tiny:2"); err != nil {
		t.Fatal(err)
	}
	if err := run(host + "/apps/none:1"); err == nil || !strings.Contains(err.Error(), "does not give it") {
		t.Errorf("an image that the registry does not have: %v", err)
	}
	srv.Close()
	if err := run(host + "/apps/tiny:2"); err != nil {
		t.Errorf("an image that is here needs no registry: %v", err)
	}
	err := run(host + "/apps/tiny:3")
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "is not on this host and registry "+host+" does not answer") {
		t.Errorf("an image of a registry that is away: %v", err)
	}
	if err := run("Not A Reference"); !fault.Is(err, fault.Invalid) {
		t.Errorf("a bad reference: %v, want invalid", err)
	}
}

// push uploads an image by the registry protocol.
func push(t *testing.T, repo, tag string, img v1.Image) {
	t.Helper()
	send := func(method, url, kind string, body []byte) string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", kind)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode > 299 {
			t.Fatalf("%s %s: %s", method, url, resp.Status)
		}
		u, err := resp.Request.URL.Parse(resp.Header.Get("Location"))
		if err != nil {
			t.Fatal(err)
		}
		return u.String()
	}
	blob := func(digest v1.Hash, content []byte) {
		to := send(http.MethodPost, repo+"/blobs/uploads/", "", nil)
		send(http.MethodPut, to+"?digest="+digest.String(), "application/octet-stream", content)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		digest, err := l.Digest()
		if err != nil {
			t.Fatal(err)
		}
		r, err := l.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		blob(digest, content)
	}
	config, err := img.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	digest, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	blob(digest, config)
	manifest, err := img.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	kind, err := img.MediaType()
	if err != nil {
		t.Fatal(err)
	}
	send(http.MethodPut, repo+"/manifests/"+tag, string(kind), manifest)
}

// Containers outlive this program and containerd, and their exits are learned.
func TestSurvive(t *testing.T) {
	e := containerdtest.Start(t)
	d := e.Driver(t)
	id := uuid.NewString()
	started, err := d.Start(t.Context(), container.Spec{ID: id, Image: containerdtest.Image, Cmd: []string{"sleep", "1000"}, Limits: container.Limits{CPUQuota: 0.5}})
	if err != nil {
		t.Fatal(err)
	}
	exits := make(chan container.Exit, 1)
	go func() {
		x, err := d.Wait(t.Context(), id)
		if err != nil {
			t.Error(err)
		}
		exits <- x
	}()
	e.Kill(t)
	e.Up(t)
	again := e.Driver(t)
	list, err := again.List(t.Context())
	if err != nil || len(list) != 1 || list[0].PID != started.PID {
		t.Fatalf("after a crash of containerd: %+v, %v; want pid %d", list, err, started.PID)
	}
	if err := again.Signal(t.Context(), id, syscall.SIGKILL, true); err != nil {
		t.Fatal(err)
	}
	if x := <-exits; x.Signal != syscall.SIGKILL || x.Lost {
		t.Errorf("exit %+v, want killed", x)
	}
}

func BenchmarkStartRemove(b *testing.B) {
	e := containerdtest.Start(b)
	d := e.Driver(b)
	one := func(b *testing.B, s container.Spec) {
		b.Helper()
		s.ID = uuid.NewString()
		s.Limits = container.Limits{CPUs: 0.1, CPUQuota: 0.1, Memory: 64 << 20, Pids: 100}
		if _, err := d.Start(b.Context(), s); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := d.Remove(b.Context(), s.ID); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.Run("image", func(b *testing.B) {
		for b.Loop() {
			one(b, container.Spec{Image: containerdtest.Image, Cmd: []string{"sleep", "1000"}})
		}
	})
	b.Run("host", func(b *testing.B) {
		for b.Loop() {
			one(b, container.Spec{Entrypoint: []string{"/bin/sleep"}, Cmd: []string{"1000"}})
		}
	})
}

// cluster is a registry as masters have it: reached at addresses, with
// certificates on both sides.
type cluster struct {
	srv   *httptest.Server
	asked atomic.Int32

	mu    sync.Mutex
	blobs int // layers under way now
	most  int // and at most
}

func newCluster(t *testing.T, store http.Handler) *cluster {
	c := &cluster{}
	c.srv = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.asked.Add(1)
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			c.mu.Lock()
			c.blobs++
			c.most = max(c.most, c.blobs)
			c.mu.Unlock()
			time.Sleep(300 * time.Millisecond) // long enough for others to arrive
			defer func() {
				c.mu.Lock()
				c.blobs--
				c.mu.Unlock()
			}()
		}
		store.ServeHTTP(w, r)
	}))
	c.srv.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	c.srv.StartTLS()
	t.Cleanup(c.srv.Close)
	return c
}

func TestClusterRegistry(t *testing.T) {
	e := containerdtest.Start(t)
	store := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	plain := httptest.NewServer(store)
	t.Cleanup(plain.Close)
	img := e.Tiny(t)
	for i := range 3 { // more layers
		var err error
		if img, err = mutate.AppendLayers(img, layer(t, i)); err != nil {
			t.Fatal(err)
		}
	}
	push(t, plain.URL+"/v2/kafka", "4.1.0-1", img)

	one, two := newCluster(t, store), newCluster(t, store)
	pool := x509.NewCertPool() // httptest's certificate is its own authority
	pool.AddCert(one.srv.Certificate())
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: one.srv.TLS.Certificates}}}
	down := "127.0.0.1:1"
	endpoints := []string{down, one.srv.Listener.Addr().String(), down, two.srv.Listener.Addr().String()}
	e.Options.Registry = container.Registry{Host: "registry.dcos", Endpoints: func() []string { return endpoints }, Client: client}
	d := e.Driver(t)
	start := func(image string) error {
		id := uuid.NewString()
		if _, err := d.Start(t.Context(), container.Spec{ID: id, Image: image, Cmd: []string{"print", "x"}}); err != nil {
			return err
		}
		if _, err := d.Wait(t.Context(), id); err != nil {
			return err
		}
		return d.Remove(t.Context(), id)
	}
	const kafka = "registry.dcos/kafka:4.1.0-1"
	for range 4 { // beginning with each of them once
		if err := start(kafka); err != nil {
			t.Fatal(err)
		}
		if err := d.RemoveImage(t.Context(), kafka); err != nil {
			t.Fatal(err)
		}
	}
	if one.asked.Load() == 0 || two.asked.Load() == 0 {
		t.Errorf("the masters were asked %d and %d times", one.asked.Load(), two.asked.Load())
	}
	if most := max(one.most, two.most); most < 2 {
		t.Errorf("at most %d layer was transferred at a time", most)
	}
	err := start("registry.dcos/none:1")
	if !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), down) || !strings.Contains(err.Error(), one.srv.Listener.Addr().String()+": 404 Not Found") {
		t.Errorf("an image that is not there: %v", err)
	}
	endpoints = []string{down}
	if err := start("registry.dcos/none:2"); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "registry registry.dcos does not answer ("+down) {
		t.Errorf("no master there: %v", err)
	}
	endpoints = nil
	if err := start("registry.dcos/none:3"); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "no master is known") {
		t.Errorf("no master known: %v", err)
	}
}

// layer makes a layer with a file of its own.
func layer(t *testing.T, i int) v1.Layer {
	t.Helper()
	content := bytes.Repeat([]byte{byte(i)}, 1<<16)
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	err := w.WriteHeader(&tar.Header{Name: fmt.Sprint("file", i), Mode: 0o644, Size: int64(len(content))})
	_, werr := w.Write(content)
	if err := errors.Join(err, werr, w.Close()); err != nil {
		t.Fatal(err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestCollectImages(t *testing.T) {
	e := containerdtest.Start(t)
	d := e.Driver(t)
	srv := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(srv.Close)
	host := strings.TrimPrefix(srv.URL, "http://")
	start := func(name string) string {
		push(t, srv.URL+"/v2/"+name, "1", e.Tiny(t))
		id := uuid.NewString()
		if _, err := d.Start(t.Context(), container.Spec{ID: id, Image: host + "/" + name + ":1", Cmd: []string{"sleep", "1000"}}); err != nil {
			t.Fatal(err)
		}
		return id
	}
	used := start("used")
	if err := d.Remove(t.Context(), start("idle")); err != nil {
		t.Fatal(err)
	}
	names := func(d *container.Containerd) string {
		list, err := d.Images(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, i := range list {
			out = append(out, fmt.Sprintf("%s running=%v bundled=%v", strings.TrimPrefix(i.Name, host+"/"), i.Running, i.Bundled))
			if i.Size == 0 || !strings.HasPrefix(i.Digest, "sha256:") || time.Since(i.Used) > time.Hour {
				t.Errorf("%+v", i)
			}
		}
		return strings.Join(out, ", ")
	}
	const all = "idle:1 running=false bundled=false, used:1 running=true bundled=false, test.local/tiny:1 running=false bundled=true"
	if got := names(d); got != all {
		t.Errorf("images: %s", got)
	}
	collect := func(d *container.Containerd, after time.Duration, usage float64, keep ...string) string {
		removed, err := d.CollectImages(t.Context(), time.Now().Add(after), usage, keep...)
		if err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(strings.Join(removed, " "), host+"/", "")
	}
	if got := collect(d, time.Minute, 1) + collect(d, 2*24*time.Hour, 0.5) + collect(d, 30*24*time.Hour, 0, host+"/idle:1"); got != "" {
		t.Errorf("collected too early: %s", got)
	}
	if err := d.RemoveImage(t.Context(), host+"/used:1"); !fault.Is(err, fault.Conflict) {
		t.Errorf("remove one in use: %v", err)
	}
	if err := d.RemoveImage(t.Context(), containerdtest.Image); !fault.Is(err, fault.Conflict) {
		t.Errorf("remove one of the release: %v", err)
	}
	if err := d.RemoveImage(t.Context(), host+"/none:1"); !fault.Is(err, fault.NotFound) {
		t.Errorf("remove one that is not there: %v", err)
	}
	again := e.Driver(t) // another run of the program knows what was used when
	if got := collect(again, 4*24*time.Hour, 0.5); got != "idle:1" {
		t.Errorf("collected %s", got)
	}
	if err := d.Remove(t.Context(), used); err != nil {
		t.Fatal(err)
	}
	if err := d.RemoveImage(t.Context(), host+"/used:1"); err != nil {
		t.Errorf("remove by name: %v", err)
	}
	if got := names(d); got != "test.local/tiny:1 running=false bundled=true" {
		t.Errorf("images: %s", got)
	}
}
