package bundle

import (
	"archive/tar"
	"bufio"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	digest "github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// ImagesDir is the folder of a release whose archives (*.tar) agents load.
const ImagesDir = "images"

// imageName is the annotation that containerd takes an image's name from.
const imageName = "io.containerd.image.name"

// maxDocument bounds what of an archive is kept in memory at once: its
// indexes, manifests and configurations.
const maxDocument = 4 << 20

// scanImage reads an image archive, in OCI's layout or docker save's, checks
// that it is whole, and returns the names of its images.
func scanImage(r io.Reader) ([]string, error) {
	a := archive{docs: map[string][]byte{}, files: map[string]bool{}}
	if err := a.read(r); err != nil {
		return nil, err
	}
	var names []string
	var err error
	switch {
	case a.docs["manifest.json"] != nil: // containerd prefers it, too
		names, err = a.docker()
	case a.docs["index.json"] != nil:
		names, err = a.oci()
	default:
		err = errors.New("it is no image archive: neither docker save's manifest.json nor OCI's index.json is in it")
	}
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// archive is what is remembered of an image archive.
type archive struct {
	docs  map[string][]byte // small JSON files by path
	files map[string]bool
	sizes map[string]int64 // of regular files; nil: nobody asks
}

func (a archive) read(r io.Reader) error {
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("it is no tar archive, or cut off: %w", err)
		}
		name := filepath.ToSlash(filepath.Clean(h.Name))
		if h.Typeflag == tar.TypeSymlink || h.Typeflag == tar.TypeLink { // docker save links equal layers
			a.files[name] = true
			continue
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		a.files[name] = true
		if a.sizes != nil {
			a.sizes[name] = h.Size
		}
		if err := a.file(name, h.Size, tr); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
}

func (a archive) file(name string, size int64, r io.Reader) error {
	in := bufio.NewReader(r)
	sum := sha256.New()
	first, err := in.Peek(1)
	if err != nil && err != io.EOF {
		return err
	}
	if size <= maxDocument && len(first) == 1 && (first[0] == '{' || first[0] == '[') {
		b, err := io.ReadAll(io.TeeReader(in, sum))
		if err != nil {
			return err
		}
		a.docs[name] = b
	} else if _, err := io.Copy(sum, in); err != nil {
		return err
	}
	if want, ok := strings.CutPrefix(name, "blobs/sha256/"); ok && hex.EncodeToString(sum.Sum(nil)) != want {
		return errors.New("damaged: its content does not have that digest")
	}
	return nil
}

func (a archive) docker() ([]string, error) {
	var list []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(a.docs["manifest.json"], &list); err != nil {
		return nil, fmt.Errorf("manifest.json: %w", err)
	}
	var names []string
	for _, m := range list {
		for _, f := range append([]string{m.Config}, m.Layers...) {
			if !a.files[filepath.ToSlash(filepath.Clean(f))] {
				return nil, fmt.Errorf("%s is named in manifest.json and missing", f)
			}
		}
		if len(m.RepoTags) == 0 {
			return nil, errors.New("an image in it has no name: save it by name (docker save NAME:TAG), not by id")
		}
		for _, t := range m.RepoTags {
			n, err := reference.ParseDockerRef(t)
			if err != nil {
				return nil, fmt.Errorf("name %q: %w", t, err)
			}
			names = append(names, n.String())
		}
	}
	return names, nil
}

func (a archive) oci() ([]string, error) {
	var index v1.Index
	if err := json.Unmarshal(a.docs["index.json"], &index); err != nil {
		return nil, fmt.Errorf("index.json: %w", err)
	}
	var names []string
	for _, d := range index.Manifests {
		if err := a.whole(d); err != nil {
			return nil, err
		}
		n, err := ociName(d.Annotations)
		if err != nil {
			return nil, err
		}
		names = append(names, n)
	}
	if len(names) == 0 {
		return nil, errors.New("no image is in it")
	}
	return names, nil
}

func ociName(annotations map[string]string) (string, error) {
	name := cmp.Or(annotations[imageName], annotations[v1.AnnotationRefName])
	n, err := reference.ParseNormalizedNamed(name)
	if err == nil && n.String() == name && !reference.IsNameOnly(n) {
		return name, nil
	}
	const how = "write it with its full name, as in: skopeo copy docker://docker.io/library/nginx:1.27 docker-archive:nginx.tar:docker.io/library/nginx:1.27"
	if name == "" {
		return "", errors.New("an image in it has no name; " + how)
	}
	return "", fmt.Errorf("an image in it is named %q, which is no full name with registry and tag; %s", name, how)
}

func blob(d digest.Digest) string { return "blobs/" + d.Algorithm().String() + "/" + d.Encoded() }

// whole reports what of an image is missing. Of an index one image is enough:
// archives often hold a single platform.
func (a archive) whole(d v1.Descriptor) error {
	if err := d.Digest.Validate(); err != nil {
		return fmt.Errorf("digest %q: %w", d.Digest, err)
	}
	doc, ok := a.docs[blob(d.Digest)]
	if !ok {
		return fmt.Errorf("%s is missing", blob(d.Digest))
	}
	var m struct {
		Manifests []v1.Descriptor
		Config    *v1.Descriptor
		Layers    []v1.Descriptor
	}
	if err := json.Unmarshal(doc, &m); err != nil {
		return fmt.Errorf("%s: %w", blob(d.Digest), err)
	}
	if m.Config != nil {
		for _, part := range append(m.Layers, *m.Config) {
			if !a.files[blob(part.Digest)] {
				return fmt.Errorf("%s is missing: the archive holds part of an image", blob(part.Digest))
			}
		}
		return nil
	}
	err := errors.New("no image is in " + blob(d.Digest))
	for _, child := range m.Manifests {
		if err = a.whole(child); err == nil {
			return nil
		}
	}
	return err
}

// stageImage copies the image at path, an archive that may be compressed with
// gzip or a directory in OCI's layout, to the archive at to.
func stageImage(path, to string) error {
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	if fi.IsDir() {
		err = packLayout(path, out)
	} else {
		err = expand(path, out)
	}
	return errors.Join(err, out.Close())
}

func expand(path string, w io.Writer) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var in io.Reader = bufio.NewReader(f)
	if magic, _ := in.(*bufio.Reader).Peek(2); string(magic) == "\x1f\x8b" {
		if in, err = gzip.NewReader(in); err != nil {
			return err
		}
	}
	_, err = io.Copy(w, in)
	return err
}

// packLayout writes the files below dir as a tar in name order, without times.
func packLayout(dir string, w io.Writer) error {
	tw := tar.NewWriter(w)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		in, err := os.Open(path)
		if err != nil {
			return err
		}
		defer in.Close()
		fi, err := in.Stat()
		if err != nil {
			return err
		}
		h := &tar.Header{Name: filepath.ToSlash(rel), Mode: 0o644, Size: fi.Size(), ModTime: time.Unix(0, 0)}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		_, err = io.Copy(tw, in)
		return err
	})
	return errors.Join(err, tw.Close())
}
