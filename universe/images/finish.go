package images

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"dcos.example/dcos/universe/images/layer"
	"dcos.example/dcos/universe/images/recipe"
	"dcos.example/dcos/universe/images/sbom"
)

// entry is something of a recipe's own in a layer.
type entry struct {
	Path, Kind, Text string
	Mode             int64
	Owner            layer.Owner
}

// filesPart makes the layer of what a recipe itself brings.
func (b *Builder) filesPart(s *stage) (*layer.Layer, error) {
	r := s.recipe
	owner := layer.Owner{UID: r.User.UID, GID: r.User.Group()}
	var entries []entry
	own := func(owned bool) layer.Owner {
		if owned {
			return owner
		}
		return layer.Owner{}
	}
	for _, f := range r.Files {
		e := entry{Path: f.Path, Kind: "file", Text: f.Text, Mode: f.Mode, Owner: own(f.Owned)}
		if f.Source != "" {
			text, err := os.ReadFile(filepath.Join(r.Dir(), f.Source))
			if err != nil {
				return nil, err
			}
			e.Text = string(text)
		}
		if e.Mode == 0 {
			e.Mode = 0o644
			if strings.HasPrefix(e.Text, "#!") {
				e.Mode = 0o755
			}
		}
		entries = append(entries, e)
	}
	for _, d := range r.Directories {
		mode := d.Mode
		if mode == 0 {
			mode = 0o755
		}
		entries = append(entries, entry{Path: d.Path, Kind: "dir", Mode: mode, Owner: own(d.Owned)})
	}
	for _, p := range slices.Sorted(maps.Keys(r.Links)) {
		entries = append(entries, entry{Path: p, Kind: "link", Text: r.Links[p]})
	}
	if r.Version != "" {
		more, err := b.account(s)
		if err != nil {
			return nil, err
		}
		entries = append(entries, more...)
	}
	if len(entries) == 0 {
		return nil, nil
	}
	return b.layers.Get(struct{ Entries []entry }{entries}, func(w *layer.Writer) error {
		for _, e := range entries {
			var err error
			switch e.Kind {
			case "file":
				err = w.Bytes(e.Path, e.Mode, e.Owner, []byte(e.Text))
			case "dir":
				err = w.Dir(e.Path, e.Mode, e.Owner)
			case "link":
				err = w.Symlink(e.Path, e.Text)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// account returns what every image has: its users, its user's home, and the
// bill of what it is made of.
func (b *Builder) account(s *stage) ([]entry, error) {
	u := s.user()
	passwd, group := "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n", "root:x:0:\nshadow:x:42:\nnogroup:x:65534:\n"
	var entries []entry
	if u.UID != 0 && u.UID != 65534 {
		passwd += fmt.Sprintf("%s:x:%d:%d:%s:%s:/bin/bash\n", u.Name, u.UID, u.Group(), s.recipe.Name, u.Home)
		group += fmt.Sprintf("%s:x:%d:\n", u.Name, u.Group())
		if u.Home != "/" {
			entries = append(entries, entry{Path: u.Home, Kind: "dir", Mode: 0o755, Owner: layer.Owner{UID: u.UID, GID: u.Group()}})
		}
	}
	entries = append(entries,
		entry{Path: "/etc/passwd", Kind: "file", Text: passwd, Mode: 0o644},
		entry{Path: "/etc/group", Kind: "file", Text: group, Mode: 0o644})
	if s.below == nil {
		entries = append(entries, entry{Path: "/tmp", Kind: "dir", Mode: 0o1777})
	}
	bill := sbom.New(s.recipe.Name, s.recipe.Version, s.recipe.License)
	for p := s; p != nil; p = p.below {
		if p.made.Debian != nil {
			for _, d := range p.made.Debian.Packages {
				bill.Deb(d, p.old[d.Name])
			}
		}
		for _, m := range p.made.Maven {
			for _, j := range m.Artifacts {
				bill.Jar(j)
			}
		}
		if p.made.PyPI != nil {
			for _, w := range p.made.PyPI.Files {
				bill.Wheel(w)
			}
		}
		if p.made.NPM != nil {
			for name, version := range b.npm.Packages(p.made.NPM) {
				bill.NPM(name, version)
			}
		}
		for _, file := range p.programs {
			if err := bill.Program(file); err != nil {
				return nil, err
			}
		}
	}
	text, err := bill.Bytes()
	if err != nil {
		return nil, err
	}
	return append(entries, entry{Path: "/usr/share/sbom/" + s.recipe.Name + ".cdx.json", Kind: "file", Text: string(text), Mode: 0o644}), nil
}

// user returns who runs in the image. Nobody runs as root by default.
func (s *stage) user() recipe.User {
	u := s.recipe.User
	if u.Name == "" {
		u = recipe.User{Name: "nobody", UID: 65534, GID: 65534}
	}
	if u.Home == "" {
		u.Home = "/"
	}
	return u
}

func (s *stage) chain() []*stage {
	if s == nil {
		return nil
	}
	return append(s.below.chain(), s)
}

// finish puts layers and configuration together and writes the archive.
func (b *Builder) finish(_ context.Context, s *stage, out string) (*Built, error) {
	r := s.recipe
	u := s.user()
	built := &Built{Name: r.Name, Version: r.Version, Reference: Registry + "/" + r.Name + ":" + r.Version, Layers: s.layers, Recipe: r}
	env := map[string]string{"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	cfg := v1.Config{User: fmt.Sprintf("%d:%d", u.UID, u.Group()), Labels: map[string]string{
		"org.opencontainers.image.title": r.Name, "org.opencontainers.image.version": r.Version,
	}}
	for _, p := range s.chain() {
		maps.Copy(env, p.recipe.Env)
		if p.recipe.Entrypoint != nil {
			cfg.Entrypoint = p.recipe.Entrypoint
		}
		if p.recipe.Command != nil {
			cfg.Cmd = p.recipe.Command
		}
		if p.recipe.WorkDir != "" {
			cfg.WorkingDir = p.recipe.WorkDir
		}
	}
	for _, k := range slices.Sorted(maps.Keys(env)) {
		cfg.Env = append(cfg.Env, k+"="+env[k])
	}
	for label, v := range map[string]string{"description": r.Description, "licenses": r.License, "url": r.Website} {
		if v != "" {
			cfg.Labels["org.opencontainers.image."+label] = v
		}
	}
	cfg.Labels["org.opencontainers.image.base.name"] = r.From
	for _, p := range r.Ports {
		if cfg.ExposedPorts == nil {
			cfg.ExposedPorts = map[string]struct{}{}
		}
		cfg.ExposedPorts[p] = struct{}{}
	}
	if h := r.Health; h != nil {
		cfg.Healthcheck = &v1.HealthConfig{Test: []string{"CMD-SHELL", h.Command}, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.Grace, Retries: h.Retries}
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	var err error
	for _, l := range s.layers {
		if img, err = mutate.AppendLayers(img, l); err != nil {
			return nil, err
		}
		size, _ := l.Size()
		built.Size += size
		built.Unpacked += l.Unpacked()
	}
	have, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	have = have.DeepCopy()
	have.OS, have.Architecture, have.Created, have.Config = "linux", "amd64", v1.Time{Time: epoch}, cfg
	if img, err = mutate.ConfigFile(img, have); err != nil {
		return nil, err
	}
	built.config = cfg
	img = mutate.Annotations(img, cfg.Labels).(v1.Image)
	if built.Digest, err = img.Digest(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return nil, err
	}
	built.File = filepath.Join(out, r.Name+"-"+r.Version+".tar")
	return built, writeImage(img, built.Reference, built.File)
}

// writeImage writes the archive, unless the same is there.
func writeImage(img v1.Image, reference, file string) error {
	manifest, err := img.RawManifest()
	if err != nil {
		return err
	}
	digest := sha256.Sum256(append([]byte(reference+"\n"), manifest...))
	stamp := filepath.Join(filepath.Dir(file), "."+filepath.Base(file)+".of")
	if have, err := os.ReadFile(stamp); err == nil && bytes.Equal(have, []byte(hex.EncodeToString(digest[:]))) {
		if _, err := os.Stat(file); err == nil {
			return nil
		}
	}
	if err := writeLayout(img, reference, file); err != nil {
		return err
	}
	return os.WriteFile(stamp, []byte(hex.EncodeToString(digest[:])), 0o644)
}
