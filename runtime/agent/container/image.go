package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"dcos.example/dcos/runtime/fault"
)

// image is an unpacked image with what containers need of its configuration.
type image struct {
	containerd.Image
	config  ocispec.ImageConfig
	chainID string
}

// labelArchive marks an image with the archive it came from.
const labelArchive = "dcos/archive"

// Normalize returns the full form of an image reference: registry, repository
// and tag or digest. "redis" is docker.io/library/redis:latest.
func Normalize(ref string) (string, error) {
	n, err := reference.ParseDockerRef(ref)
	if err != nil {
		return "", fault.Newf("parse image reference", fault.Invalid, "%q: %w", ref, err)
	}
	return n.String(), nil
}

// image returns an image that is unpacked on this host, pulling it if need be.
func (d *Containerd) image(ctx context.Context, ref string, force bool) (*image, error) {
	name, err := Normalize(ref)
	if err != nil {
		return nil, err
	}
	defer d.touch(name)
	if !force {
		d.mu.Lock()
		img := d.images[name]
		d.mu.Unlock()
		if img != nil {
			return img, nil
		}
	}
	// One pull for all who wait; it goes on if the first of them gives up.
	ch := d.pulls.DoChan(fmt.Sprint(name, force), func() (any, error) {
		return d.obtain(context.WithoutCancel(ctx), name, force)
	})
	select {
	case r := <-ch:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(*image), nil
	case <-ctx.Done():
		return nil, fault.New("get image "+name, fault.Unavailable, context.Cause(ctx))
	}
}

func (d *Containerd) obtain(ctx context.Context, name string, force bool) (*image, error) {
	var img containerd.Image
	err := error(errdefs.ErrNotFound)
	if !force {
		img, err = d.client.GetImage(ctx, name)
	}
	if errdefs.IsNotFound(err) {
		img, err = d.pull(ctx, name)
	}
	if err != nil {
		return nil, err
	}
	return d.remember(ctx, img)
}

// remember unpacks an image and reads its configuration.
func (d *Containerd) remember(ctx context.Context, img containerd.Image) (*image, error) {
	op := "unpack image " + img.Name()
	ok, err := img.IsUnpacked(ctx, d.o.Snapshotter)
	if err == nil && !ok {
		err = img.Unpack(ctx, d.o.Snapshotter)
	}
	if err != nil {
		return nil, fault.New(op, kind(err), err)
	}
	desc, err := img.Config(ctx)
	if err != nil {
		return nil, fault.New(op, kind(err), err)
	}
	blob, err := content.ReadBlob(ctx, img.ContentStore(), desc)
	if err != nil {
		return nil, fault.New(op, kind(err), err)
	}
	var full ocispec.Image
	if err := json.Unmarshal(blob, &full); err != nil {
		return nil, fault.New(op, fault.Invalid, err)
	}
	known := &image{Image: img, config: full.Config, chainID: identity.ChainID(full.RootFS.DiffIDs).String()}
	d.mu.Lock()
	d.images[img.Name()] = known
	d.mu.Unlock()
	return known, nil
}

// Import loads every OCI archive (*.tar) of a directory that was not loaded
// before and returns the images' names. A directory that does not exist is
// empty.
func (d *Containerd) Import(ctx context.Context, dir string) ([]string, error) {
	ctx = d.ctx(ctx)
	files, err := filepath.Glob(filepath.Join(dir, "*.tar"))
	if err != nil {
		return nil, fault.New("import images", fault.Internal, err)
	}
	var names []string
	var errs []error
	for _, f := range files {
		got, err := d.importFile(ctx, f)
		names = append(names, got...)
		if err != nil {
			errs = append(errs, fault.Newf("import images", kind(err), "%s: %w", f, err))
		}
	}
	return names, errors.Join(errs...)
}

func (d *Containerd) importFile(ctx context.Context, file string) (names []string, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	origin := fmt.Sprintf("%s-%d-%d", fi.Name(), fi.Size(), fi.ModTime().UnixNano())
	known, err := d.client.ListImages(ctx, `labels."`+labelArchive+`"=="`+origin+`"`)
	if err != nil {
		return nil, err
	}
	if len(known) == 0 {
		got, err := d.client.Import(ctx, f, containerd.WithImageLabels(map[string]string{labelArchive: origin}))
		if err != nil {
			return nil, err
		}
		for _, i := range got {
			known = append(known, containerd.NewImage(d.client, i))
		}
	}
	for _, i := range known {
		if _, err := d.remember(ctx, i); err != nil {
			return names, err
		}
		names = append(names, i.Name())
		d.mu.Lock()
		d.bundled[i.Name()] = true
		d.mu.Unlock()
	}
	return names, nil
}
