package registry_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	digest "github.com/opencontainers/go-digest"
	spec "github.com/opencontainers/image-spec/specs-go/v1"

	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/registry"
	"dcos.example/dcos/runtime/registry/replica"
	"dcos.example/dcos/runtime/state"
	"dcos.example/dcos/runtime/state/memory"
)

// people are the cluster's users: passwords by name. A token is "token-NAME".
type people map[string]string

func (p people) Authenticate(r *http.Request) (string, error) {
	uid, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer token-")
	uid = strings.TrimSuffix(uid, ".x.y")
	if !ok || p[uid] == "" {
		return "", fault.Newf("authenticate", fault.Denied, "no token")
	}
	return uid, nil
}

func (p people) Login(_ context.Context, uid, pw, _ string) (string, error) {
	if pw == "" || p[uid] != pw {
		return "", fault.Newf("log in", fault.Denied, "wrong user or password")
	}
	return "token-" + uid, nil
}

var (
	admin  = remote.WithAuth(&authn.Basic{Username: "admin", Password: "secret"})
	reader = remote.WithAuth(&authn.Basic{Username: "jane", Password: "pw"})
)

// roleHeader stands for a certificate, which plain HTTP has none of.
const roleHeader = "Test-Role"

// master is a registry that a test can take off the network.
type master struct {
	*registry.Registry
	member config.Member
	dir    string
	url    string // host:port
	down   atomic.Bool
}

type cluster struct {
	t       *testing.T
	store   state.Backend
	masters []*master
}

// newCluster runs n masters until the test ends.
func newCluster(t *testing.T, n int) *cluster {
	c := &cluster{t: t, store: memory.New()}
	for i := range n {
		c.masters = append(c.masters, c.master(i))
	}
	for _, m := range c.masters {
		c.run(m)
	}
	return c
}

func (c *cluster) members() (out []config.Member) {
	for _, m := range c.masters {
		out = append(out, m.member)
	}
	return out
}

func (c *cluster) master(i int) *master {
	m := &master{
		member: config.Member{Name: fmt.Sprintf("m%d", i+1), Addr: netip.AddrFrom4([4]byte{198, 18, 0, byte(i + 1)})}, dir: c.t.TempDir(),
	}
	r, err := registry.New(registry.Options{
		Dir: filepath.Join(m.dir, "registry"), Current: filepath.Join(m.dir, "current"), Self: m.member.Name, Store: c.store,
		Users: people{"admin": "secret", "jane": "pw"}, Admin: "admin", Masters: c.members, Transport: c, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		c.t.Fatal(err)
	}
	m.Registry = r
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if m.down.Load() {
			panic(http.ErrAbortHandler)
		}
		if role := req.Header.Get(roleHeader); role != "" {
			cert := &x509.Certificate{Subject: pkix.Name{OrganizationalUnit: []string{role}, CommonName: "h"}}
			req.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{cert}}}
		}
		r.Handler().ServeHTTP(w, req)
	}))
	c.t.Cleanup(srv.Close)
	m.url = strings.TrimPrefix(srv.URL, "http://")
	return m
}

func (c *cluster) run(m *master) {
	ctx, cancel := context.WithCancel(c.t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	c.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			c.t.Error(err)
		}
	})
}

// RoundTrip reaches a master as another master does.
func (c *cluster) RoundTrip(req *http.Request) (*http.Response, error) {
	for _, m := range c.masters {
		if req.URL.Host == netip.AddrPortFrom(m.member.Addr, config.PortRegistry).String() {
			if m.down.Load() {
				return nil, errors.New("connection refused")
			}
			req = req.Clone(req.Context())
			req.URL.Scheme, req.URL.Host = "http", m.url
			req.Header.Set(roleHeader, "master")
			return http.DefaultTransport.RoundTrip(req)
		}
	}
	return nil, errors.New("no route to host")
}

func (c *cluster) ref(m *master, text string) name.Reference {
	c.t.Helper()
	r, err := name.ParseReference(m.url + "/" + text)
	if err != nil {
		c.t.Fatal(err)
	}
	return r
}

func image(t *testing.T) v1.Image {
	t.Helper()
	img, err := random.Image(1<<16, 3)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// pull reads all of an image and compares its digests.
func (c *cluster) pull(m *master, ref string) (v1.Hash, error) {
	img, err := remote.Image(c.ref(m, ref), reader)
	if err != nil {
		return v1.Hash{}, err
	}
	if err := validate.Image(img); err != nil {
		return v1.Hash{}, err
	}
	return img.Digest()
}

func (c *cluster) has(m *master, ref string, want v1.Image) {
	c.t.Helper()
	got, err := c.pull(m, ref)
	d, _ := want.Digest()
	if err != nil || got != d {
		c.t.Errorf("%s of %s: %v, %v; want %v", ref, m.member.Name, got, err, d)
	}
}

func status(err error) int {
	if e, ok := errors.AsType[*transport.Error](err); ok {
		return e.StatusCode
	}
	return 0
}

// eventually waits for what other masters do.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

func TestClients(t *testing.T) {
	c := newCluster(t, 1)
	m := c.masters[0]
	first, second := image(t), image(t)
	for ref, img := range map[string]v1.Image{"app:1": first, "team/app/blobs:2": second, "app:3": second} {
		if err := remote.Write(c.ref(m, ref), img, admin); err != nil {
			t.Fatalf("push %s: %v", ref, err)
		}
		c.has(m, ref, img)
	}
	repo := c.ref(m, "app:1").Context()
	if tags, err := remote.List(repo, reader); err != nil || !slices.Equal(tags, []string{"1", "3"}) {
		t.Errorf("tags %v, %v", tags, err)
	}
	reg, _ := name.NewRegistry(m.url)
	if names, err := remote.Catalog(t.Context(), reg, reader); err != nil || !slices.Equal(names, []string{"app", "team/app/blobs"}) {
		t.Errorf("repositories %v, %v", names, err)
	}
	if page, err := remote.CatalogPage(reg, "app", 1, reader); err != nil || !slices.Equal(page, []string{"team/app/blobs"}) {
		t.Errorf("a page: %v, %v", page, err)
	}
	for ref, want := range map[string]bool{"app:1": true, "registry.dcos/app:3": true, "app:2": false, "none:1": false} {
		if ok, err := m.Has(t.Context(), ref); err != nil || ok != want {
			t.Errorf("has %s: %v, %v", ref, ok, err)
		}
	}

	idx, err := random.Index(1<<12, 2, 3)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(c.ref(m, "many:1"), idx, admin); err != nil {
		t.Fatal(err)
	}
	got, err := remote.Index(c.ref(m, "many:1"), reader)
	if err != nil || validate.Index(got) != nil {
		t.Errorf("index: %v, %v", err, validate.Index(got))
	}

	// What says something of another image.
	desc, err := remote.Get(c.ref(m, "app:1"), reader)
	if err != nil {
		t.Fatal(err)
	}
	about, ok := mutate.Subject(mutate.ConfigMediaType(image(t), "application/vnd.test.sbom"), desc.Descriptor).(v1.Image)
	if !ok {
		t.Fatal("no image")
	}
	d, _ := about.Digest()
	if err := remote.Write(repo.Digest(d.String()), about, admin); err != nil {
		t.Fatal(err)
	}
	refs, err := remote.Referrers(repo.Digest(desc.Digest.String()), reader, remote.WithFilter("artifactType", "application/vnd.test.sbom"))
	if err != nil {
		t.Fatal(err)
	}
	if l, err := refs.IndexManifest(); err != nil || len(l.Manifests) != 1 || l.Manifests[0].Digest != d {
		t.Errorf("referrers %+v, %v", l, err)
	}

	if err := remote.Delete(c.ref(m, "app:1"), admin); err != nil {
		t.Fatal(err)
	}
	if _, err := c.pull(m, "app:1"); status(err) != http.StatusNotFound {
		t.Errorf("a tag that was removed: %v", err)
	}
	c.has(m, "app@"+desc.Digest.String(), first) // for whoever runs it by digest
	if err := m.Delete(t.Context(), "app@"+desc.Digest.String()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.pull(m, "app@"+desc.Digest.String()); status(err) != http.StatusNotFound {
		t.Errorf("a manifest that was removed: %v", err)
	}
	if err := m.Delete(t.Context(), "app:1"); !fault.Is(err, fault.NotFound) {
		t.Errorf("removed twice: %v", err)
	}
}

// The resolver is that of containerd, which agents pull with.
func TestContainerd(t *testing.T) {
	c := newCluster(t, 1)
	m := c.masters[0]
	resolver := func(user, pw string) interface {
		Push(ref string, parts map[string][]byte) error
		Pull(ref string) (spec.Descriptor, []byte, error)
	} {
		return containerdClient{t, docker.NewResolver(docker.ResolverOptions{Hosts: docker.ConfigureDefaultRegistries(
			docker.WithPlainHTTP(docker.MatchLocalhost), docker.WithAuthorizer(docker.NewDockerAuthorizer(docker.WithAuthCreds(
				func(string) (string, string, error) { return user, pw, nil })))),
		})}
	}
	config, layer := []byte(`{"architecture":"amd64"}`), bytes.Repeat([]byte("layer "), 1000)
	manifest := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[{"mediaType":%q,"digest":%q,"size":%d}]}`,
		spec.MediaTypeImageManifest, spec.MediaTypeImageConfig, digest.FromBytes(config), len(config), spec.MediaTypeImageLayer, digest.FromBytes(layer), len(layer))
	parts := map[string][]byte{spec.MediaTypeImageConfig: config, spec.MediaTypeImageLayer: layer, spec.MediaTypeImageManifest: manifest}
	if err := resolver("jane", "pw").Push(m.url+"/app:1", parts); err == nil {
		t.Error("a user may push who is not the administrator")
	}
	for range 2 { // the second finds all there
		if err := resolver("admin", "secret").Push(m.url+"/app:1", parts); err != nil {
			t.Fatal(err)
		}
	}
	desc, got, err := resolver("jane", "pw").Pull(m.url + "/app:1")
	if err != nil || desc.MediaType != spec.MediaTypeImageManifest || !bytes.Equal(got, manifest) {
		t.Errorf("%+v %s %v", desc, got, err)
	}
	if _, _, err := resolver("jane", "wrong").Pull(m.url + "/app:1"); err == nil {
		t.Error("a wrong password opens")
	}
}

func TestWhoMay(t *testing.T) {
	c := newCluster(t, 1)
	m := c.masters[0]
	if err := remote.Write(c.ref(m, "app:1"), image(t), admin); err != nil {
		t.Fatal(err)
	}
	basic := func(user, pw string) func(*http.Request) {
		return func(r *http.Request) { r.SetBasicAuth(user, pw) }
	}
	with := func(key, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(key, value) }
	}
	const get, del, put, post = http.MethodGet, http.MethodDelete, http.MethodPut, http.MethodPost
	some := digest.FromString("x")
	for _, test := range []struct {
		who, method, path string
		as                func(*http.Request)
		want              int
	}{
		{"nobody", get, "/v2/", nil, 401},
		{"nobody", get, "/v2/app/manifests/1", nil, 401},
		{"jane", get, "/v2/", basic("jane", "pw"), 200},
		{"jane", get, "/v2/app/manifests/1", basic("jane", "pw"), 200},
		{"jane", del, "/v2/app/manifests/1", basic("jane", "pw"), 403},
		{"jane", post, "/v2/app/blobs/uploads/", basic("jane", "pw"), 403},
		{"not jane", get, "/v2/", basic("jane", "pw2"), 401},
		{"jane by token", get, "/v2/", with("Authorization", "Bearer token-jane"), 200},
		{"admin by token", post, "/v2/app/blobs/uploads/", with("Authorization", "Bearer token-admin"), 202},
		{"jane by token as password", get, "/v2/", basic("jane", "token-jane.x.y"), 200},
		{"jane by another's token", get, "/v2/", basic("jane", "token-admin.x.y"), 401},
		{"a browser", get, "/v2/", with("Cookie", "dcos-acs-auth-cookie=token-jane"), 401},
		{"an agent", get, "/v2/app/manifests/1", with(roleHeader, "agent"), 200},
		{"an agent", put, "/v2/app/manifests/2", with(roleHeader, "agent"), 403},
		{"an agent", post, "/v2/app/blobs/uploads/", with(roleHeader, "agent"), 403},
		{"an agent", get, replica.Path + string(some), with(roleHeader, "agent"), 403},
		{"a master", get, replica.Path + string(some), with(roleHeader, "master"), 404},
		{"a master", del, "/v2/app/manifests/1", with(roleHeader, "master"), 403},
		{"admin", get, replica.Path + string(some), basic("admin", "secret"), 403},
		{"admin", del, "/v2/app/blobs/" + string(some), basic("admin", "secret"), 405},
		{"admin", del, "/v2/app/manifests/1", basic("admin", "secret"), 202},
	} {
		req, err := http.NewRequestWithContext(t.Context(), test.method, "http://"+m.url+test.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if test.as != nil {
			test.as(req)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != test.want {
			t.Errorf("%s, %s %s: %s %s; want %d", test.who, test.method, test.path, resp.Status, text, test.want)
		}
		if test.want == 401 && !strings.HasPrefix(resp.Header.Get("WWW-Authenticate"), `Basic realm="`) {
			t.Errorf("%s: challenge %q", test.who, resp.Header.Get("WWW-Authenticate"))
		}
	}
}

func TestLosingAMasterLosesNoImage(t *testing.T) {
	c := newCluster(t, 3)
	img := image(t)
	if err := remote.Write(c.ref(c.masters[0], "app:1"), img, admin); err != nil {
		t.Fatal(err)
	}
	c.masters[0].down.Store(true) // the push was answered: it is on another master
	for _, m := range c.masters[1:] {
		c.has(m, "app:1", img)
	}
	// What a master loses, it gets from the others when it is asked for.
	if err := os.RemoveAll(filepath.Join(c.masters[2].dir, "registry", "blobs", "sha256")); err != nil {
		t.Fatal(err)
	}
	c.has(c.masters[2], "app:1", img)
	if err := os.RemoveAll(filepath.Join(c.masters[2].dir, "registry", "blobs", "sha256")); err != nil {
		t.Fatal(err)
	}
	c.masters[1].down.Store(true)
	resp, text := raw(t, http.MethodGet, "http://"+c.masters[2].url+"/v2/app/manifests/1", nil, "")
	if resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(text, "master m1") {
		t.Errorf("what may be on masters that are away: %s %s", resp.Status, text)
	}
}

func TestDamagedCopy(t *testing.T) {
	c := newCluster(t, 3)
	img := image(t)
	if err := remote.Write(c.ref(c.masters[0], "app:1"), img, admin); err != nil {
		t.Fatal(err)
	}
	layers, _ := img.Layers()
	d, _ := layers[0].Digest()
	blob := func(m *master) string {
		return filepath.Join(m.dir, "registry", "blobs", "sha256", d.Hex[:2], d.Hex)
	}
	eventually(t, "all masters hold it", func() bool {
		return !slices.ContainsFunc(c.masters, func(m *master) bool { _, err := os.Stat(blob(m)); return err != nil })
	})
	b, err := os.ReadFile(blob(c.masters[0]))
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := errors.Join(os.WriteFile(blob(c.masters[0]), b, 0o600), os.Remove(blob(c.masters[2]))); err != nil {
		t.Fatal(err)
	}
	c.has(c.masters[2], "app:1", img)
}

func TestSweep(t *testing.T) {
	c := newCluster(t, 1)
	m := c.masters[0]
	shared, old, now := image(t), image(t), image(t)
	for _, p := range []struct {
		ref string
		img v1.Image
	}{{"app:1", shared}, {"other:1", shared}, {"app:latest", old}, {"app:latest", now}} {
		if err := remote.Write(c.ref(m, p.ref), p.img, admin); err != nil {
			t.Fatal(err)
		}
	}
	if err := remote.Delete(c.ref(m, "app:1"), admin); err != nil {
		t.Fatal(err)
	}
	// A push under way: its layers are there, its manifest is not.
	coming := image(t)
	layers, _ := coming.Layers()
	if err := remote.WriteLayer(c.ref(m, "app:2").Context(), layers[0], admin); err != nil {
		t.Fatal(err)
	}
	count := func() (n int) {
		all, err := filepath.Glob(filepath.Join(m.dir, "registry", "blobs", "sha256", "*", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	before := count()
	if err := m.Sweep(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if n := count(); n != before {
		t.Errorf("%d of %d blobs are left at once", n, before)
	}
	if err := m.Sweep(t.Context(), time.Now().Add(25*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if n := count(); n != 10 { // two images of a manifest, a configuration and three layers
		t.Errorf("%d blobs are left", n)
	}
	c.has(m, "other:1", shared)
	c.has(m, "app:latest", now)
	if err := remote.Write(c.ref(m, "app:2"), coming, admin); err != nil {
		t.Errorf("after the sweep: %v", err)
	}
	c.has(m, "app:2", coming)
}

// A release's images are there from the start, and not twice on the disk.
func TestRelease(t *testing.T) {
	c := newCluster(t, 1)
	m := c.masters[0]
	one, two, mine := image(t), image(t), image(t)
	bring := func(release string, images map[string]v1.Image) {
		dir := filepath.Join(m.dir, "releases", release, "packages", "images")
		at, err := layout.Write(dir, empty.Index)
		if err != nil {
			t.Fatal(err)
		}
		for ref, img := range images {
			if err := at.AppendImage(img, layout.WithAnnotations(map[string]string{spec.AnnotationRefName: ref})); err != nil {
				t.Fatal(err)
			}
		}
		tmp := filepath.Join(m.dir, "new")
		if err := errors.Join(os.Symlink(filepath.Join("releases", release), tmp), os.Rename(tmp, filepath.Join(m.dir, "current"))); err != nil {
			t.Fatal(err)
		}
	}
	if err := remote.Write(c.ref(m, "mine:1"), mine, admin); err != nil {
		t.Fatal(err)
	}
	bring("1", map[string]v1.Image{"registry.dcos/kafka:4": one, "registry.dcos/mine:1": two})
	for range 2 {
		if n, err := m.Import(t.Context()); err != nil || n != 2 {
			t.Fatal(n, err)
		}
	}
	c.has(m, "kafka:4", one)
	c.has(m, "mine:1", mine)
	layers, _ := one.Layers()
	d, _ := layers[1].Digest()
	in, err := os.Stat(filepath.Join(m.dir, "releases", "1", "packages", "images", "blobs", "sha256", d.Hex))
	if err != nil {
		t.Fatal(err)
	}
	of, err := os.Stat(filepath.Join(m.dir, "registry", "blobs", "sha256", d.Hex[:2], d.Hex))
	if err != nil || !os.SameFile(in, of) {
		t.Errorf("it is a copy: %v", err)
	}
	// The next release has another image by that name; the first one goes.
	bring("2", map[string]v1.Image{"registry.dcos/kafka:4": two})
	if _, err := m.Import(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.has(m, "kafka:4", two)
	if err := os.RemoveAll(filepath.Join(m.dir, "releases", "1")); err != nil {
		t.Fatal(err)
	}
	h, _ := one.Digest()
	c.has(m, "kafka@"+h.String(), one)
	// Another master that still has the first release does not put it back.
	bring("3", map[string]v1.Image{"registry.dcos/kafka:4": one})
	if err := os.WriteFile(filepath.Join(m.dir, "registry", "release"), []byte("3"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Import(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.has(m, "kafka:4", two)
	bring("4", map[string]v1.Image{"docker.io/library/nginx:1": one})
	if _, err := m.Import(t.Context()); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "docker.io/library/nginx:1") {
		t.Errorf("an image of another registry: %v", err)
	}
}
