package bundle

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"dcos.example/dcos/installer/bundle/sbom"
	"dcos.example/dcos/runtime/fault"
)

// Add writes to out the bundle at base with images added, signed with key.
// Each of paths is an image archive (OCI's or docker save's, gzip or not), a
// directory in OCI's layout, or a directory with such archives. An image that
// is there already, byte for byte, is fine.
func Add(base, out string, paths []string, key Key, t Trust) (Manifest, error) {
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
	staged, err := stageImages(paths, tmp)
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
	if err := a.materials(base, t); err != nil {
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

// materials adds what is new to the bill of materials, if the base has one.
func (a *addition) materials(base string, t Trust) error {
	i := slices.IndexFunc(a.m.Files, func(f File) bool { return f.Path == sbom.File })
	if i < 0 || len(a.new) == 0 {
		return nil
	}
	r, err := openTrusted(base, t)
	if err != nil {
		return err
	}
	defer r.close()
	var text []byte
	err = r.each(func(f File, in io.Reader) (err error) {
		if f.Path == sbom.File {
			text, err = io.ReadAll(in)
		}
		return err
	})
	if err != nil {
		return damaged("read "+sbom.File, err)
	}
	doc, err := sbom.Read(bytes.NewReader(text))
	if err != nil {
		return err
	}
	for _, img := range a.new {
		at := slices.IndexFunc(a.m.Files, func(f File) bool { return f.Path == img.Path })
		doc.Image(img.Name, img.Path, a.m.Files[at].SHA256)
	}
	var b bytes.Buffer
	if err := doc.Write(&b); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(a.dir, sbom.File), b.Bytes(), 0o644); err != nil {
		return err
	}
	sum := sha256.Sum256(b.Bytes())
	a.m.Files[i].Size, a.m.Files[i].SHA256 = int64(b.Len()), hex.EncodeToString(sum[:])
	a.files[sbom.File] = true
	return nil
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
