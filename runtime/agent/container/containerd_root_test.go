//go:build root

package container_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
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
