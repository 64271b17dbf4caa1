//go:build e2e

package e2e

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"dcos.example/dcos/runtime/config"
)

const (
	imagesCIDR = "198.19.131.0/24"
	imagesHCL  = `
cluster "e2eimages" {}

provider "local" {
  range = "` + imagesCIDR + `"
}

node_group "master" {
  count  = 3
  cpus   = 1
  memory = "1GiB"
  disk   = "4GiB"
}

node_group "agent" {
  count  = 2
  cpus   = 1
  memory = "1GiB"
  disk   = "4GiB"
}
`
)

// TestImages uses the cluster's own registry: an image that was pushed to a
// master outlives that master, packages bring theirs with the release, and
// other packages come to a running cluster without a restart.
func TestImages(t *testing.T) {
	c := newCluster(t, "e2eimages", imagesCIDR, imagesHCL)
	u := universe{dir: filepath.Join(c.dir, "universe"), demo: demoImage(t)}
	u.add(t, "store", "1.0-1")
	c.extended(t, os.Getenv("DCOS_BUNDLE"), "first.bundle", u, "store")
	c.install(t, "apply", "-auto-approve")
	c.print.look(t)
	c.setup(t)

	t.Run("a package's image is there from the start", func(t *testing.T) {
		for host, address := range c.hosts {
			if strings.HasPrefix(host, "master") {
				c.pulls(t, address, "store:1.0-1", u.image(t, "store:1.0-1"))
			}
		}
		c.deploy(t, hello(t, object{"id": "/store", "instances": 1, "container": container("store:1.0-1")}))
	})
	t.Run("a push outlives the master that took it", func(t *testing.T) {
		lost := ""
		for host, address := range c.hosts {
			if address == c.masters[0] {
				lost = host
			}
		}
		pushed := u.image(t, "team/web:1")
		must(t, remote.Write(c.reference(t, c.masters[0], "team/web:1"), pushed, c.admin(t)...))
		c.install(t, "host", "stop", "-now", lost)
		c.deploy(t, hello(t, object{"id": "/web", "instances": 2, "container": container("team/web:1")}))
		c.install(t, "host", "start", lost)
		// What came meanwhile is brought to it.
		later := u.image(t, "team/later:1")
		must(t, remote.Write(c.reference(t, c.masters[1], "team/later:1"), later, c.admin(t)...))
		eventually(t, lost+" serves what came while it was away", func() error {
			return c.pull(t, c.masters[0], "team/later:1", later)
		})
	})
	t.Run("other packages restart nobody", func(t *testing.T) {
		before := c.daemons(t)
		u.add(t, "second", "2.0-1")
		c.extended(t, filepath.Join(c.dir, "first.bundle"), "second.bundle", u, "second")
		c.install(t, "apply", "-auto-approve")
		for _, address := range c.masters {
			eventually(t, address+" serves the new package's image", func() error {
				return c.pull(t, address, "second:2.0-1", u.image(t, "second:2.0-1"))
			})
		}
		for host, pids := range c.daemons(t) {
			if pids != before[host] {
				t.Errorf("daemons of %s started anew: %s, before %s", host, pids, before[host])
			}
		}
		c.deploy(t, hello(t, object{"id": "/second", "instances": 1, "container": container("second:2.0-1")}))
	})
	c.install(t, "destroy", "-auto-approve")
	c.print.gone(t)
}

// universe is a directory of packages, each with the demo app as its image.
type universe struct {
	dir     string
	demo    v1.Image
	entries []string
}

func demoImage(t *testing.T) v1.Image {
	t.Helper()
	bin := os.Getenv("DCOS_RUNTIME_BIN")
	if bin == "" {
		t.Fatal("DCOS_RUNTIME_BIN must name the programs of the release; `make test` sets it")
	}
	dir := t.TempDir()
	f, err := os.Open(filepath.Join(bin, "..", "images", "hello.tar"))
	must(t, err)
	defer f.Close()
	for tr := tar.NewReader(f); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		must(t, err)
		if h.Typeflag != tar.TypeReg {
			continue
		}
		b, err := io.ReadAll(tr)
		must(t, err)
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, h.Name)), 0o700))
		must(t, os.WriteFile(filepath.Join(dir, h.Name), b, 0o600))
	}
	index, err := layout.ImageIndexFromPath(dir)
	must(t, err)
	list, err := index.IndexManifest()
	must(t, err)
	img, err := index.Image(list.Manifests[0].Digest)
	must(t, err)
	return img
}

// image is the demo app as an image of its own: no agent has it.
func (u *universe) image(t *testing.T, ref string) v1.Image {
	t.Helper()
	cfg, err := u.demo.ConfigFile()
	must(t, err)
	cfg = cfg.DeepCopy()
	cfg.Author = ref
	img, err := mutate.ConfigFile(u.demo, cfg)
	must(t, err)
	return img
}

func (u *universe) add(t *testing.T, pkg, version string) {
	t.Helper()
	ref := pkg + ":" + version
	dir := t.TempDir()
	at, err := layout.Write(dir, empty.Index)
	must(t, err)
	must(t, at.AppendImage(u.image(t, ref), layout.WithAnnotations(map[string]string{"io.containerd.image.name": config.RegistryHost + "/" + ref})))
	must(t, os.MkdirAll(filepath.Join(u.dir, "images"), 0o700))
	f, err := os.Create(filepath.Join(u.dir, "images", pkg+".tar"))
	must(t, err)
	tw := tar.NewWriter(f)
	must(t, tw.AddFS(os.DirFS(dir)))
	must(t, errors.Join(tw.Close(), f.Close()))
	u.entries = append(u.entries, fmt.Sprintf(
		`{"packagingVersion":"4.0","name":%q,"version":%q,"releaseVersion":0,"maintainer":"m@example.com","description":"d","tags":[],"resource":{"assets":{"container":{"docker":{"main":%q}}}}}`,
		pkg, version, config.RegistryHost+"/"+ref))
	must(t, os.WriteFile(filepath.Join(u.dir, "repo.json"), []byte(`{"packages":[`+strings.Join(u.entries, ",")+`]}`), fs.FileMode(0o600)))
}

// extended adds packages to a bundle, and lets the cluster be of the result.
func (c *cluster) extended(t *testing.T, base, out string, u universe, packages ...string) {
	t.Helper()
	key := filepath.Join(c.dir, "site.key")
	if _, err := os.Stat(key); err != nil {
		c.install(t, "bundle", "keygen", key)
	}
	out = filepath.Join(c.dir, out)
	c.install(t, append([]string{"bundle", "add", "-bundle", base, "-universe", u.dir, "-out", out, "-key", key}, packages...)...)
	c.env = append(c.env, "DCOS_BUNDLE="+out, "DCOS_TRUST_KEY="+filepath.Join(c.dir, "site.pub"))
}

func container(ref string) object {
	return object{
		"type": "MESOS", "docker": object{"image": config.RegistryHost + "/" + ref},
		"portMappings": []object{{"containerPort": 8080, "hostPort": 0, "name": "http"}},
	}
}

// admin is how the administrator reaches a master's registry.
func (c *cluster) admin(t *testing.T) []remote.Option {
	t.Helper()
	password := strings.TrimSpace(c.install(t, "output", "-raw", "-reveal", "admin_password"))
	var transport http.RoundTripper = c.http.Transport
	return []remote.Option{remote.WithTransport(transport), remote.WithAuth(&authn.Basic{Username: "admin", Password: password})}
}

func (c *cluster) reference(t *testing.T, master, ref string) name.Reference {
	t.Helper()
	r, err := name.ParseReference(fmt.Sprintf("%s:%d/%s", master, config.PortRegistry, ref))
	must(t, err)
	return r
}

// pull reads an image from one master, by a token this time.
func (c *cluster) pull(t *testing.T, master, ref string, want v1.Image) error {
	img, err := remote.Image(c.reference(t, master, ref), remote.WithTransport(c.http.Transport), remote.WithAuth(&authn.Bearer{Token: c.token}))
	if err != nil {
		return err
	}
	got, err := img.Digest()
	if err != nil {
		return err
	}
	if d, err := want.Digest(); err != nil || got != d {
		return fmt.Errorf("it is %s, not %s: %w", got, d, err)
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	for _, l := range layers {
		r, err := l.Compressed() // compares with the digest
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			return err
		}
		if err := r.Close(); err != nil {
			return err
		}
	}
	return nil
}

func (c *cluster) pulls(t *testing.T, master, ref string, want v1.Image) {
	t.Helper()
	eventually(t, master+" serves "+ref, func() error { return c.pull(t, master, ref, want) })
}

// daemons returns the processes of dcosd by host.
func (c *cluster) daemons(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for host := range c.hosts {
		pids, err := c.on(host, "pidof dcosd")
		must(t, err)
		out[host] = strings.TrimSpace(pids)
	}
	return out
}
