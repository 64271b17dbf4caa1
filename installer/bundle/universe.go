package bundle

import (
	"archive/tar"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/distribution/reference"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
)

// What is in PackagesDir: the repository that the catalog reads, and the
// images in OCI's layout. Images share the blobs that they have in common, and
// the registry of a master links them as they are.
const (
	repoFile   = PackagesDir + "/repo.json"
	packImages = PackagesDir + "/images"
	packIndex  = packImages + "/" + v1.ImageIndexFile
	packBlobs  = packImages + "/blobs/sha256/"
)

// entry is what is needed to know of a package in a repository, and all of it.
type repoEntry struct {
	text json.RawMessage
	Name string `json:"name"`
	// Version is for people, ReleaseVersion orders them.
	Version        string `json:"version"`
	ReleaseVersion int64  `json:"releaseVersion"`
	Resource       struct {
		Assets struct {
			Container struct {
				Docker map[string]string `json:"docker"`
			} `json:"container"`
		} `json:"assets"`
	} `json:"resource"`
}

func (e repoEntry) is(o repoEntry) bool {
	return e.Name == o.Name && (e.Version == o.Version || e.ReleaseVersion == o.ReleaseVersion)
}

func (e repoEntry) same(o repoEntry) bool {
	return e.Name == o.Name && e.ReleaseVersion == o.ReleaseVersion
}

// images are the names of the images that it needs, in order.
func (e repoEntry) images() (out []string) {
	for _, n := range e.Resource.Assets.Container.Docker {
		if !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}

func readRepo(text []byte) ([]repoEntry, error) {
	var doc struct {
		Packages []json.RawMessage `json:"packages"`
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return nil, err
	}
	out := make([]repoEntry, len(doc.Packages))
	for i, p := range doc.Packages {
		if err := json.Unmarshal(p, &out[i]); err != nil {
			return nil, fmt.Errorf("package %d: %w", i, err)
		}
		if out[i].text = p; out[i].Name == "" || out[i].Version == "" {
			return nil, fmt.Errorf("package %d has no name or no version", i)
		}
	}
	return out, nil
}

func writeRepo(entries []repoEntry) ([]byte, error) {
	doc := struct {
		Packages []json.RawMessage `json:"packages"`
	}{[]json.RawMessage{}}
	for _, e := range entries {
		doc.Packages = append(doc.Packages, e.text)
	}
	return json.Marshal(doc)
}

func byEntry(a, b repoEntry) int {
	return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(a.ReleaseVersion, b.ReleaseVersion))
}

// store is images in OCI's layout, put together from several.
type store struct {
	images map[string]v1.Descriptor // by name
	docs   map[digest.Digest][]byte // manifests and indexes
	sizes  map[digest.Digest]int64
	// in are the archives that blobs are read from; others are in the base.
	in map[digest.Digest]string
}

func newStore() *store {
	return &store{images: map[string]v1.Descriptor{}, docs: map[digest.Digest][]byte{}, sizes: map[digest.Digest]int64{}, in: map[digest.Digest]string{}}
}

// index takes up the images that an index.json names.
func (s *store) index(text []byte) error {
	var l v1.Index
	if err := json.Unmarshal(text, &l); err != nil {
		return fmt.Errorf("%s: %w", v1.ImageIndexFile, err)
	}
	for _, d := range l.Manifests {
		name, err := ociName(d.Annotations)
		if err != nil {
			return err
		}
		d.Annotations = map[string]string{v1.AnnotationRefName: name}
		s.images[name] = d
	}
	return nil
}

// walk calls f for all blobs of an image that there are: an index may name
// images of other platforms.
func (s *store) walk(d digest.Digest, f func(digest.Digest)) error {
	if err := d.Validate(); err != nil || d.Algorithm() != digest.SHA256 {
		return fmt.Errorf("digest %q: %w", d, cmp.Or(err, errors.New("only sha256 is known here")))
	}
	text, ok := s.docs[d]
	if !ok {
		return fmt.Errorf("manifest %s is missing", d)
	}
	f(d)
	var m struct {
		Config    *v1.Descriptor
		Layers    []v1.Descriptor
		Manifests []v1.Descriptor
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return fmt.Errorf("manifest %s: %w", d, err)
	}
	if m.Config != nil {
		for _, part := range append(m.Layers, *m.Config) {
			if _, ok := s.sizes[part.Digest]; !ok {
				return fmt.Errorf("blob %s is missing", part.Digest)
			}
			f(part.Digest)
		}
	}
	for _, child := range m.Manifests {
		if _, ok := s.docs[child.Digest]; ok {
			if err := s.walk(child.Digest, f); err != nil {
				return err
			}
		}
	}
	return nil
}

// needs are the blobs of images.
func (s *store) needs(images []string) (map[digest.Digest]bool, error) {
	out := map[digest.Digest]bool{}
	for _, name := range images {
		d, ok := s.images[name]
		if !ok {
			return nil, fault.Newf("look for image "+name, fault.NotFound, "it is not there")
		}
		if err := s.walk(d.Digest, func(d digest.Digest) { out[d] = true }); err != nil {
			return nil, fault.New("read image "+name, fault.Invalid, err)
		}
	}
	return out, nil
}

// list writes the index of images.
func (s *store) list(images []string) ([]byte, error) {
	l := v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{}}
	for _, name := range images {
		l.Manifests = append(l.Manifests, s.images[name])
	}
	return json.Marshal(l)
}

// tars finds which images the archives in dir have. Only what names them is
// read: the rest when they are wanted.
func tars(dir string) (map[string]string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.tar"))
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, path := range files {
		s := newStore()
		text, err := tarFile(path, v1.ImageIndexFile)
		if err == nil {
			err = s.index(text)
		}
		if err != nil {
			return nil, fault.New("read "+path, fault.Invalid, err)
		}
		for name := range s.images {
			out[name] = path
		}
	}
	return out, nil
}

// tarFile returns a small file of an archive.
func tarFile(path, name string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for tr := tar.NewReader(f); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return nil, fmt.Errorf("there is no %s in it: it is no image in OCI's layout", name)
		}
		if err != nil {
			return nil, err
		}
		if filepath.ToSlash(filepath.Clean(h.Name)) == name {
			return io.ReadAll(io.LimitReader(tr, maxDocument))
		}
	}
}

// archive takes up what is in an archive, after comparing it with its digests.
func (s *store) archive(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	a := archive{docs: map[string][]byte{}, files: map[string]bool{}, sizes: map[string]int64{}}
	if err := a.read(f); err != nil {
		return err
	}
	if _, err := a.oci(); err != nil {
		return err
	}
	if err := s.index(a.docs[v1.ImageIndexFile]); err != nil {
		return err
	}
	for name, size := range a.sizes {
		hex, ok := strings.CutPrefix(name, "blobs/sha256/")
		if !ok {
			continue
		}
		d := digest.NewDigestFromEncoded(digest.SHA256, hex)
		if _, there := s.sizes[d]; there {
			continue // the base, or an archive before this one, has it
		}
		s.sizes[d], s.in[d] = size, path
		if doc := a.docs[name]; doc != nil {
			s.docs[d] = doc
		}
	}
	return nil
}

// extract writes those blobs to dir that are in archives.
func (s *store) extract(want map[digest.Digest]bool, dir string) error {
	from := map[string]map[string]bool{}
	for d := range want {
		if path := s.in[d]; path != "" {
			if from[path] == nil {
				from[path] = map[string]bool{}
			}
			from[path][blob(d)] = true
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for path, names := range from {
		if err := extractFrom(path, names, dir); err != nil {
			return fault.New("read "+path, fault.KindOf(err), err)
		}
	}
	return nil
}

func extractFrom(path string, names map[string]bool, dir string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for tr := tar.NewReader(f); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		name := filepath.ToSlash(filepath.Clean(h.Name))
		if !names[name] || h.Typeflag != tar.TypeReg {
			continue
		}
		delete(names, name)
		out, err := os.OpenFile(filepath.Join(dir, filepath.Base(name)), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		if _, err := io.Copy(out, tr); err != nil {
			return errors.Join(err, out.Close())
		}
		if err := out.Close(); err != nil {
			return err
		}
	}
}

// choose returns the packages of a universe that are wanted by NAME, the
// newest, or NAME:VERSION.
func choose(all []repoEntry, wanted []string) ([]repoEntry, error) {
	var out []repoEntry
	var errs []error
	for _, w := range wanted {
		name, version, exact := strings.Cut(w, ":")
		var found *repoEntry
		var versions, names []string
		for i, e := range all {
			if !slices.Contains(names, e.Name) {
				names = append(names, e.Name)
			}
			if e.Name != name {
				continue
			}
			versions = append(versions, e.Version)
			if (!exact || e.Version == version) && (found == nil || e.ReleaseVersion > found.ReleaseVersion) {
				found = &all[i]
			}
		}
		switch {
		case found != nil:
			out = append(out, *found)
		case len(versions) > 0:
			errs = append(errs, fmt.Errorf("package %s has no version %s; there are %s", name, version, strings.Join(versions, ", ")))
		default:
			errs = append(errs, fmt.Errorf("there is no package %s; there are %s", name, strings.Join(names, ", ")))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fault.New("choose packages", fault.NotFound, err)
	}
	return out, nil
}

// packages makes the chosen packages, with their images, those of the bundle
// besides what it has.
func (a *addition) packages(add Additions) error {
	text, err := os.ReadFile(filepath.Join(add.Universe, "repo.json"))
	if err != nil {
		return fault.Newf("read the universe", fault.NotFound, "%w; make universe makes one, -universe DIR says where it is", err)
	}
	all, err := readRepo(text)
	if err != nil {
		return fault.New("read "+filepath.Join(add.Universe, "repo.json"), fault.Invalid, err)
	}
	chosen, err := choose(all, add.Packages)
	if err != nil {
		return err
	}
	if err := a.packageImages(chosen, filepath.Join(add.Universe, "images")); err != nil {
		return err
	}
	var entries []repoEntry
	if a.repo != nil {
		if entries, err = readRepo(a.repo); err != nil {
			return fault.New("read "+repoFile, fault.Invalid, err)
		}
	}
	for _, e := range all {
		if len(e.images()) == 0 || slices.ContainsFunc(chosen, e.same) {
			entries = append(slices.DeleteFunc(entries, e.is), e)
		}
	}
	slices.SortFunc(entries, byEntry)
	return a.pack(entries)
}

// packageImages finds the images of packages among the archives in dir.
func (a *addition) packageImages(chosen []repoEntry, dir string) error {
	at, err := tars(dir)
	if err != nil {
		return err
	}
	var errs []error
	read := map[string]bool{}
	for _, e := range chosen {
		for _, name := range e.images() {
			path := at[name]
			switch {
			case !served(name):
				errs = append(errs, fmt.Errorf("package %s needs image %s, which masters do not serve: only %s/NAME:TAG is theirs; add its archive for agents, and package repo.json yourself", e.Name, name, config.RegistryHost))
			case path == "":
				errs = append(errs, fmt.Errorf("package %s needs image %s, and no archive in %s has it; make universe builds it", e.Name, name, dir))
			case !read[path]:
				read[path] = true
				if err := a.stored.archive(path); err != nil {
					errs = append(errs, fault.New("read "+path, fault.Invalid, err))
				}
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fault.New("look for the packages' images", fault.Invalid, err)
	}
	return nil
}

// pack makes these packages those of the bundle.
func (a *addition) pack(entries []repoEntry) error {
	var images []string
	a.m.Packages = nil
	for _, e := range entries {
		p := Package{Name: e.Name, Version: e.Version, Release: e.ReleaseVersion, Images: e.images()}
		blobs, err := a.stored.needs(p.Images)
		if err != nil {
			return fault.Newf("package "+e.Name, fault.KindOf(err), "%w", err)
		}
		for d := range blobs {
			p.Size += a.stored.sizes[d]
		}
		images = append(images, p.Images...)
		a.m.Packages = append(a.m.Packages, p)
	}
	slices.Sort(images)
	images = slices.Compact(images)
	needed, err := a.stored.needs(images)
	if err != nil {
		return err
	}
	if err := a.stored.extract(needed, filepath.Join(a.dir, filepath.FromSlash(packBlobs))); err != nil {
		return err
	}
	a.m.Files = slices.DeleteFunc(a.m.Files, func(f File) bool {
		hex, ok := strings.CutPrefix(f.Path, packBlobs)
		return ok && !needed[digest.NewDigestFromEncoded(digest.SHA256, hex)]
	})
	for d := range needed {
		if a.stored.in[d] != "" {
			if err := a.take(packBlobs + d.Encoded()); err != nil {
				return err
			}
		}
	}
	index, err := a.stored.list(images)
	if err != nil {
		return err
	}
	repo, err := writeRepo(entries)
	if err != nil {
		return err
	}
	return errors.Join(a.put(packIndex, index), a.put(repoFile, repo),
		a.put(packImages+"/"+v1.ImageLayoutFile, []byte(`{"imageLayoutVersion":"`+v1.ImageLayoutVersion+`"}`)))
}

// served reports whether masters can serve an image of that name.
func served(name string) bool {
	n, err := reference.ParseNamed(name)
	return err == nil && !reference.IsNameOnly(n) && reference.Domain(n) == config.RegistryHost
}
