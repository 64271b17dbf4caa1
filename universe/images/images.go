// Package images builds OCI images without a container engine or a registry:
// one static program (WriteArchive), or what a recipe describes (Builder), from
// the registries of packages. The same input gives the same bytes.
package images

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Spec describes an image that holds one static program.
type Spec struct {
	Name    string // full reference, e.g. "docker.io/dcos/hello:0.1"
	Program string // file on this machine, put at Path in the image
	Path    string // absolute path in the image; it becomes the entry point
	Args    []string
	User    string // "uid:gid"; empty: root
	Port    string // exposed, e.g. "8080/tcp"
}

// epoch is every file's time: a build must not depend on when it ran.
var epoch = time.Unix(0, 0).UTC()

// WriteArchive writes the image as a tar of an OCI layout to file.
func WriteArchive(s Spec, file string) error {
	layer, err := programLayer(s)
	if err != nil {
		return fmt.Errorf("build layer of %s: %w", s.Name, err)
	}
	img, err := assemble(s, layer)
	if err != nil {
		return fmt.Errorf("assemble %s: %w", s.Name, err)
	}
	return writeLayout(img, s.Name, file)
}

// writeLayout writes the image, named so, as an archive of an OCI layout.
func writeLayout(img v1.Image, name, file string) error {
	dir, err := os.MkdirTemp(filepath.Dir(file), ".image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	index, err := layout.Write(dir, empty.Index)
	if err != nil {
		return fmt.Errorf("write layout of %s: %w", name, err)
	}
	names := map[string]string{"io.containerd.image.name": name}
	if err := index.AppendImage(img, layout.WithAnnotations(names)); err != nil {
		return fmt.Errorf("write layout of %s: %w", name, err)
	}
	return archive(dir, file)
}

func programLayer(s Spec) (v1.Layer, error) {
	program, err := os.ReadFile(s.Program)
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, dir := range []struct {
		name string
		mode int64
	}{{"dev/", 0o755}, {"etc/", 0o755}, {"proc/", 0o755}, {"sys/", 0o755}, {"tmp/", 0o1777}} {
		if err := tw.WriteHeader(&tar.Header{Name: dir.name, Typeflag: tar.TypeDir, Mode: dir.mode, ModTime: epoch}); err != nil {
			return nil, err
		}
	}
	if err := tw.WriteHeader(&tar.Header{Name: s.Path[1:], Mode: 0o755, Size: int64(len(program)), ModTime: epoch}); err != nil {
		return nil, err
	}
	if _, err := tw.Write(program); err != nil {
		return nil, err
	}
	if err := tw.Close(); err != nil {
		return nil, err
	}
	// Not compressed: the bundle around it is.
	return static.NewLayer(buf.Bytes(), types.OCIUncompressedLayer), nil
}

func assemble(s Spec, layer v1.Layer) (v1.Image, error) {
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	img, err := mutate.AppendLayers(img, layer)
	if err != nil {
		return nil, err
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture = "linux", "amd64"
	cfg.Created = v1.Time{Time: epoch}
	cfg.Config = v1.Config{Entrypoint: []string{s.Path}, Cmd: s.Args, User: s.User}
	if s.Port != "" {
		cfg.Config.ExposedPorts = map[string]struct{}{s.Port: {}}
	}
	return mutate.ConfigFile(img, cfg)
}

// archive writes dir's files to file as a tar in name order.
func archive(dir, file string) error {
	out, err := os.CreateTemp(filepath.Dir(file), ".archive-")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	tw := tar.NewWriter(out)
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: info.Size(), ModTime: epoch}); err != nil {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(tw, f)
		return err
	})
	if err != nil {
		return fmt.Errorf("archive %s: %w", file, err)
	}
	if err := tw.Close(); err != nil {
		return err
	}
	if err := out.Chmod(0o644); err != nil {
		return err
	}
	return os.Rename(out.Name(), file)
}
