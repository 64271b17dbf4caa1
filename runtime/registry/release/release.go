// Package release brings the images that came with the release on this host
// into the registry. They are not copied: the registry links the release's
// files.
package release

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/distribution/reference"
	digest "github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/registry/blob"
	"dcos.example/dcos/runtime/registry/index"
)

// lookEvery is how often the link to the current release is read: a release
// that brings only packages restarts nobody.
const lookEvery = 3 * time.Second

// Images is the folder of images, in OCI's layout, in the folder of packages.
const Images = "images"

// Blobs is the folder of their blobs, by the hex of their digests.
const Blobs = Images + "/blobs/sha256"

// Config is what an Importer is made from.
type Config struct {
	Current  string // the link to the release's folder
	Remember string // file with the release that was taken in last
	Blobs    *blob.Store
	Index    *index.Index
	Changed  func() // is called when there is another release
	Log      *slog.Logger
}

// Importer takes in one release after another.
type Importer struct{ cfg Config }

// New returns an Importer.
func New(cfg Config) *Importer { return &Importer{cfg} }

// Run takes in the release that is current, and each that becomes it, until
// ctx ends.
func (i *Importer) Run(ctx context.Context) {
	done := ""
	for ctx.Err() == nil {
		now, err := os.Readlink(i.cfg.Current)
		if err == nil && now != done {
			var n int
			if n, err = i.Import(ctx); err == nil {
				done = now
				i.cfg.Changed()
				if n > 0 {
					i.cfg.Log.Info("the release's images are in the registry", "release", filepath.Base(now), "images", n)
				}
			}
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) && ctx.Err() == nil {
			i.cfg.Log.Warn("take the release's images into the registry", "err", err, "again_in", lookEvery)
		}
		t := time.NewTimer(lookEvery)
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
}

// Import takes in the release that is current and returns how many images it
// has. What is in already costs a look at each blob.
func (i *Importer) Import(ctx context.Context) (int, error) {
	link, err := os.Readlink(i.cfg.Current)
	if err != nil {
		return 0, fault.New("look which release is current", fault.Internal, err)
	}
	in := intake{Importer: i, dir: filepath.Join(i.cfg.Current, "packages", Images), release: filepath.Base(link)}
	last, err := os.ReadFile(i.cfg.Remember)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, fault.New("read "+i.cfg.Remember, fault.Internal, err)
	}
	// A master that comes back with the release that it had, or a new one, must
	// not put tags back that another master has brought forward since.
	in.moves = len(last) > 0 && string(last) != in.release
	text, err := os.ReadFile(filepath.Join(in.dir, v1.ImageIndexFile))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, i.remember(in.release)
	}
	var layout v1.Index
	if err == nil {
		err = json.Unmarshal(text, &layout)
	}
	if err != nil {
		return 0, fault.New("read the release's images", fault.Invalid, err)
	}
	var errs []error
	for _, d := range layout.Manifests {
		if err := in.image(ctx, d); err != nil {
			errs = append(errs, fmt.Errorf("image %s: %w", d.Annotations[v1.AnnotationRefName], err))
		}
	}
	if len(errs) > 0 {
		return 0, fault.New("take in release "+in.release, fault.KindOf(errs[0]), errors.Join(errs...))
	}
	return len(layout.Manifests), i.remember(in.release)
}

func (i *Importer) remember(release string) error {
	tmp := i.cfg.Remember + ".new"
	if err := os.WriteFile(tmp, []byte(release), 0o600); err != nil {
		return fault.New("write "+tmp, fault.Internal, err)
	}
	if err := os.Rename(tmp, i.cfg.Remember); err != nil {
		return fault.New("write "+i.cfg.Remember, fault.Internal, err)
	}
	return nil
}

// intake is one release being taken in.
type intake struct {
	*Importer
	dir     string
	release string
	moves   bool // tags of other releases
}

func (in intake) image(ctx context.Context, d v1.Descriptor) error {
	repo, tag, err := split(d.Annotations[v1.AnnotationRefName])
	if err != nil {
		return err
	}
	t, err := in.cfg.Index.Tag(ctx, repo, tag)
	switch {
	case fault.Is(err, fault.NotFound):
	case err != nil:
		return err
	case t.Digest == d.Digest:
	case t.Release == "":
		in.cfg.Log.Info("somebody pushed another image than the release's, it stays", "repository", repo, "tag", tag)
		return nil
	case !in.moves:
		return nil
	}
	return in.manifest(ctx, repo, tag, d)
}

// split takes the name of an image apart: it must be of this registry.
func split(name string) (repo, tag string, err error) {
	named, err := reference.ParseNamed(name)
	if err != nil {
		return "", "", fault.New("read the image's name", fault.Invalid, err)
	}
	tagged, ok := named.(reference.NamedTagged)
	if !ok || reference.Domain(named) != config.RegistryHost {
		return "", "", fault.Newf("read the image's name", fault.Invalid, "%q is not %s/NAME:TAG", name, config.RegistryHost)
	}
	return reference.Path(named), tagged.Tag(), nil
}

// manifest takes in one manifest with what it names; of an index, those images
// that the release has.
func (in intake) manifest(ctx context.Context, repo, tag string, d v1.Descriptor) error {
	if err := blob.Check(d.Digest); err != nil {
		return err
	}
	text, err := os.ReadFile(in.path(d.Digest))
	if err != nil {
		return fault.New("read manifest "+string(d.Digest), fault.Invalid, err)
	}
	if digest.FromBytes(text) != d.Digest {
		return fault.Newf("read manifest "+string(d.Digest), fault.Invalid, "it is damaged")
	}
	m, err := index.ParseManifest(text, d.MediaType)
	if err != nil {
		return err
	}
	for _, child := range m.Manifests {
		if _, err := os.Stat(in.path(child)); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := in.manifest(ctx, repo, "", v1.Descriptor{Digest: child}); err != nil {
			return err
		}
	}
	if err := in.take(d.Digest); err != nil {
		return err
	}
	for _, b := range m.Blobs {
		if err := in.take(b.Digest); err != nil {
			return err
		}
	}
	return in.cfg.Index.Put(ctx, index.Ref{Repository: repo, Digest: d.Digest}, m, tag, in.release)
}

func (in intake) path(d digest.Digest) string {
	return filepath.Join(in.dir, filepath.FromSlash(strings.TrimPrefix(Blobs, Images+"/")), d.Encoded())
}

// take links a blob of the release. Where no link can be made the blob is read
// in its place.
func (in intake) take(d digest.Digest) error {
	if in.cfg.Blobs.Own(d) {
		return nil
	}
	err := in.cfg.Blobs.Link(d, in.path(d))
	if fault.Is(err, fault.Unavailable) && in.cfg.Blobs.Has(d) {
		return nil
	}
	return err
}
