package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	digest "github.com/opencontainers/go-digest"

	"dcos.example/dcos/installer/bundle/sbom"
	"dcos.example/dcos/runtime/fault"
)

// Additions is what Add adds.
type Additions struct {
	// Images are for agents. Each is an image archive (OCI's or docker save's,
	// gzip or not), a directory in OCI's layout, or a directory with such
	// archives. One that is there already, byte for byte, is fine.
	Images []string
	// Packages are NAME, which is its newest version, or NAME:VERSION, of the
	// universe in the directory Universe: repo.json and images/*.tar. One that
	// is there already is replaced. What needs no image is added besides.
	Packages []string
	Universe string
}

// Add writes to out, which may be base, the bundle at base with more in it,
// signed with key.
func Add(base, out string, add Additions, key Key, t Trust) (Manifest, error) {
	op := "add to bundle " + base
	r, err := openTrusted(base, t)
	if err != nil {
		return Manifest{}, err
	}
	r.close()
	tmp, err := os.MkdirTemp(filepath.Dir(out), ".bundle-add-")
	if err != nil {
		return Manifest{}, fault.New(op, fault.Denied, err)
	}
	defer os.RemoveAll(tmp)
	staged, err := stageImages(add.Images, tmp)
	if err != nil {
		return Manifest{}, fault.New(op, fault.KindOf(err), err)
	}
	a := addition{dir: tmp, m: r.m, files: map[string]bool{}}
	a.m.Base = r.m.Release()
	a.m.Files, a.m.Images = slices.Clone(r.m.Files), slices.Clone(r.m.Images)
	for _, name := range staged {
		if err := a.image(name); err != nil {
			return Manifest{}, fault.New(op, fault.KindOf(err), err)
		}
	}
	if err := a.read(base, t); err != nil {
		return Manifest{}, err
	}
	if len(add.Packages) > 0 {
		if err := a.packages(add); err != nil {
			return Manifest{}, fault.New(op, fault.KindOf(err), err)
		}
	}
	if err := a.materials(); err != nil {
		return Manifest{}, fault.New(op, fault.KindOf(err), err)
	}
	slices.SortFunc(a.m.Files, byPath)
	slices.SortFunc(a.m.Images, byName)
	if err := a.m.check(); err != nil {
		return Manifest{}, fault.New(op, fault.Invalid, err)
	}
	return a.m, rewrite(base, out, a.m, tmp, a.files, &key, t)
}

func byPath(a, b File) int  { return strings.Compare(a.Path, b.Path) }
func byName(a, b Image) int { return strings.Compare(a.Name, b.Name) }

// stageImages copies the images to dir/images and returns their file names.
func stageImages(paths []string, dir string) ([]string, error) {
	if err := os.Mkdir(filepath.Join(dir, ImagesDir), 0o755); err != nil {
		return nil, err
	}
	var names []string
	for _, p := range paths {
		sources, err := imagesAt(p)
		if err != nil {
			return nil, fault.New("read "+p, fault.Invalid, err)
		}
		for _, s := range sources {
			name := archiveName(s)
			err := stageImage(s, filepath.Join(dir, ImagesDir, name))
			if errors.Is(err, fs.ErrExist) {
				return nil, fault.Newf("read "+s, fault.Exists, "two of the images have the file name %s; rename one", name)
			}
			if err != nil {
				return nil, fault.New("read "+s, fault.Invalid, err)
			}
			names = append(names, name)
		}
	}
	return names, nil
}

// imagesAt returns the images that path means.
func imagesAt(path string) ([]string, error) {
	fi, err := os.Stat(path)
	if err != nil || !fi.IsDir() {
		return []string{path}, err
	}
	if _, err := os.Stat(filepath.Join(path, "index.json")); err == nil {
		return []string{path}, nil
	}
	var found []string
	for _, pattern := range []string{"*.tar", "*.tar.gz", "*.tgz"} {
		m, err := filepath.Glob(filepath.Join(path, pattern))
		if err != nil {
			return nil, err
		}
		found = append(found, m...)
	}
	if len(found) == 0 {
		return nil, errors.New("neither an image in OCI's layout nor image archives (*.tar) are in this directory")
	}
	return found, nil
}

func archiveName(path string) string {
	name := filepath.Base(filepath.Clean(path))
	for _, suffix := range []string{".gz", ".tgz", ".tar"} {
		name = strings.TrimSuffix(name, suffix)
	}
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r) {
			return r
		}
		return '-'
	}, name) + ".tar"
}

// addition is a bundle in the making: m, of which files are in dir and the
// others in the base.
type addition struct {
	dir   string
	m     Manifest
	files map[string]bool
	new   []Image

	// Of the base: its bill of materials, its repository, and its packages'
	// images.
	bill, repo []byte
	stored     *store
}

// read reads of the base what depends on what is added.
func (a *addition) read(base string, t Trust) error {
	a.stored = newStore()
	r, err := openTrusted(base, t)
	if err != nil {
		return err
	}
	defer r.close()
	err = r.each(func(f File, in io.Reader) (err error) {
		hex, isBlob := strings.CutPrefix(f.Path, packBlobs)
		switch {
		case f.Path == sbom.File:
			a.bill, err = io.ReadAll(in)
		case f.Path == repoFile:
			a.repo, err = io.ReadAll(in)
		case f.Path == packIndex:
			var text []byte
			if text, err = io.ReadAll(in); err == nil {
				err = a.stored.index(text)
			}
		case isBlob:
			d := digest.NewDigestFromEncoded(digest.SHA256, hex)
			a.stored.sizes[d] = f.Size
			if f.Size <= maxDocument {
				var doc []byte
				if doc, err = io.ReadAll(in); err == nil && len(doc) > 0 && doc[0] == '{' {
					a.stored.docs[d] = doc
				}
			}
		}
		return err
	})
	if err != nil {
		return damaged("read bundle "+base, err)
	}
	return nil
}

// put makes text a file of the bundle.
func (a *addition) put(path string, text []byte) error {
	at := filepath.Join(a.dir, filepath.FromSlash(path))
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(at, text, 0o644); err != nil {
		return err
	}
	return a.take(path)
}

// take makes a file in dir a file of the bundle, in place of one by that name.
func (a *addition) take(path string) error {
	f, err := describe(a.dir, filepath.Join(a.dir, filepath.FromSlash(path)))
	if err != nil {
		return err
	}
	f.Mode = 0o644
	a.m.Files = append(slices.DeleteFunc(a.m.Files, func(o File) bool { return o.Path == path }), f)
	a.files[path] = true
	return nil
}

func (a *addition) image(name string) error {
	f, err := describe(a.dir, filepath.Join(a.dir, ImagesDir, name))
	if err != nil {
		return err
	}
	f.Mode = 0o644
	images, err := describeImage(a.dir, f.Path)
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(a.m.Files, func(o File) bool { return o.Path == f.Path }); i >= 0 {
		if a.m.Files[i].SHA256 == f.SHA256 {
			return nil
		}
		return fault.Newf("add "+f.Path, fault.Exists, "another file of that name is in the bundle; rename yours")
	}
	for _, img := range images {
		if i := slices.IndexFunc(a.m.Images, func(o Image) bool { return o.Name == img.Name }); i >= 0 {
			return fault.Newf("add "+f.Path, fault.Exists, "image %s is in the bundle already, in %s", img.Name, a.m.Images[i].Path)
		}
		a.m.Images = append(a.m.Images, img)
		a.new = append(a.new, img)
	}
	a.m.Files = append(a.m.Files, f)
	a.files[f.Path] = true
	return nil
}

// materials brings the bill of materials up to date, if the base has one.
func (a *addition) materials() error {
	if a.bill == nil {
		return nil
	}
	doc, err := sbom.Read(bytes.NewReader(a.bill))
	if err != nil {
		return err
	}
	for _, img := range a.new {
		at := slices.IndexFunc(a.m.Files, func(f File) bool { return f.Path == img.Path })
		doc.Image(img.Name, img.Path, a.m.Files[at].SHA256)
	}
	doc.Drop(PackagesDir + "/")
	for _, p := range a.m.Packages {
		for _, name := range p.Images {
			d := a.stored.images[name].Digest
			doc.Image(name, packBlobs+d.Encoded(), d.Encoded())
		}
		doc.Package(p.Name, p.Version, repoFile, p.Images)
	}
	var b bytes.Buffer
	if err := doc.Write(&b); err != nil {
		return err
	}
	return a.put(sbom.File, b.Bytes())
}

// Sign writes the bundle at path to out with a signature of key, in place of
// the one that it may have, and returns its manifest. Every file is checked on
// the way. out may be path.
func Sign(path, out string, key Key, t Trust) (Manifest, error) {
	r, err := open(path)
	if err != nil {
		return Manifest{}, err
	}
	r.close()
	if len(r.sig.text) > 0 {
		// Whoever signs vouches for it; a wrong signature says: better not.
		if err := t.verify(r.m.encode(), &r.sig); err != nil {
			return Manifest{}, fault.New("sign bundle "+path, fault.Denied, err)
		}
	}
	return r.m, rewrite(path, out, r.m, "", nil, &key, Trust{})
}

// rewrite packs m into out: mine from dir, the others from the bundle at base.
// A t without keys takes the base unverified.
func rewrite(base, out string, m Manifest, dir string, mine map[string]bool, key *Key, t Trust) error {
	op := "write bundle " + out
	r, err := open(base)
	if err != nil {
		return err
	}
	defer r.close()
	if len(t.keys) > 0 {
		if err := t.verify(r.m.encode(), &r.sig); err != nil { // it may be another file by now
			return fault.New(op, fault.Denied, err)
		}
	}
	tmp, err := os.CreateTemp(filepath.Dir(out), ".bundle-")
	if err != nil {
		return fault.New(op, fault.Denied, err)
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	p, err := newPacker(tmp, m, key)
	if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	left := m.Files
	stays := make(map[string]bool, len(m.Files))
	for _, f := range m.Files {
		stays[f.Path] = true
	}
	own := func(until string) error { // writes those of dir that come before
		for ; len(left) > 0 && left[0].Path < until && mine[left[0].Path]; left = left[1:] {
			if err := p.file(left[0], dir); err != nil {
				return err
			}
		}
		return nil
	}
	err = r.each(func(f File, in io.Reader) error {
		if err := own(f.Path); err != nil {
			return err
		}
		if !stays[f.Path] {
			return nil
		}
		if len(left) == 0 || left[0].Path != f.Path {
			return fmt.Errorf("%s is not what it was", base)
		}
		want := left[0]
		left = left[1:]
		if mine[f.Path] {
			return p.file(want, dir)
		}
		return entry(p.tar, want.Path, int64(want.Mode), want.Size, in)
	})
	if err != nil {
		return damaged(op, err)
	}
	if err := own("\xff"); err != nil {
		return damaged(op, err)
	}
	if err := errors.Join(p.close(), tmp.Chmod(0o644), tmp.Sync()); err != nil {
		return damaged(op, err)
	}
	if err := os.Rename(tmp.Name(), out); err != nil {
		return fault.New(op, fault.Denied, err)
	}
	return nil
}
