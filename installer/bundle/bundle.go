// Package bundle reads and writes release bundles: one file with everything a
// host needs, addressed by its content.
//
// A bundle is a tar compressed with zstd. Its first entry, manifest.json, names
// every other file with mode, size and SHA-256; the SHA-256 of that entry is
// the release's digest. The second entry is a signature of the first, by a key
// that whoever uses the bundle must trust. The same files, signed with the same
// key, give the same bytes.
package bundle

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/klauspost/compress/zstd"

	"dcos.example/dcos/installer/bundle/sbom"
	"dcos.example/dcos/runtime/fault"
)

// CacheDir is where releases are unpacked on the installer's machine.
const CacheDir = "/var/lib/dcos-install/bundles"

// Cache is where releases are unpacked by a user: CacheDir is root's.
func Cache(uid int, getenv func(string) string) string {
	cache := getenv("XDG_CACHE_HOME")
	if home := getenv("HOME"); cache == "" && home != "" {
		cache = filepath.Join(home, ".cache")
	}
	if uid == 0 || !filepath.IsAbs(cache) {
		return CacheDir
	}
	return filepath.Join(cache, "dcos", "bundles")
}

const (
	// ManifestName is the file beside a release's own that names them all.
	ManifestName = "manifest.json"
	// maxManifest bounds what is read before anything is verified.
	maxManifest = 8 << 20
)

// Manifest says what a release holds.
type Manifest struct {
	Version string `json:"version"`
	// Platform is what its programs run on, as "linux/amd64"; empty: anything.
	Platform string `json:"platform,omitempty"`
	// Base is the release that this one was made of by adding files.
	Base string `json:"base,omitempty"`
	// Components are the versions of what the release is made of, by name.
	Components map[string]string `json:"components,omitempty"`
	// Formats are the newest formats that its programs read and write, by what
	// is kept in them: "config", "checkpoint", "state".
	Formats map[string]int `json:"formats,omitempty"`
	// Images are what agents load from archives in ImagesDir, in name order.
	Images []Image `json:"images,omitempty"`
	// Packages are what can be installed on the cluster, by name and version.
	// Their images are in PackagesDir; they go to the masters' registry.
	Packages []Package `json:"packages,omitempty"`
	Files    []File    `json:"files"` // in path order
}

// Image is a container image in a release.
type Image struct {
	Name string `json:"name"` // in full: "docker.io/library/nginx:1.27"
	Path string `json:"path"` // of the archive
}

// Package is one version of a package in a release.
type Package struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Release int64  `json:"release"` // what orders the versions of a package
	// Images are the names of its images; Size is what they have in bytes,
	// each layer counted once.
	Images []string `json:"images,omitempty"`
	Size   int64    `json:"size,omitempty"`
}

// PackagesDir is the folder of a release that masters alone have.
const PackagesDir = "packages"

// File is one file of a release.
type File struct {
	Path   string      `json:"path"` // relative, with slashes
	Mode   fs.FileMode `json:"mode"` // permission bits
	Size   int64       `json:"size"` // bytes
	SHA256 string      `json:"sha256"`
}

// Digest is the release's identity: the SHA-256 of its manifest, in hex.
func (m Manifest) Digest() string {
	sum := sha256.Sum256(m.encode())
	return hex.EncodeToString(sum[:])
}

// Release names the directory that holds the release on a host: the version
// for people, the digest for certainty.
func (m Manifest) Release() string { return m.Version + "-" + m.Digest()[:12] }

// Programs identifies the release but for its packages: two that have it in
// common run the same daemons with the same files.
func (m Manifest) Programs() string {
	h := sha256.New()
	fmt.Fprintln(h, m.Version)
	for _, f := range m.Files {
		if f.Path != sbom.File && !strings.HasPrefix(f.Path, PackagesDir+"/") {
			fmt.Fprintf(h, "%s %o %s\n", f.Path, f.Mode, f.SHA256)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Share is what a host has of a release: masters all of it, agents no packages.
type Share struct {
	Release, Digest string // as of its manifest, which every host has whole
	Files           []File
	Partial         bool // there are files that the host does not have
}

// Share returns what masters, or else agents, have of the release.
func (m Manifest) Share(master bool) Share {
	s := Share{Release: m.Release(), Digest: m.Digest(), Files: m.Files}
	if !master {
		s.Files = slices.DeleteFunc(slices.Clone(m.Files), func(f File) bool { return strings.HasPrefix(f.Path, PackagesDir+"/") })
		s.Partial = len(s.Files) < len(m.Files)
	}
	return s
}

// Size is what the files of the share have together, in bytes.
func (s Share) Size() (n int64) {
	for _, f := range s.Files {
		n += f.Size
	}
	return n
}

func (m Manifest) encode() []byte {
	b, err := json.MarshalIndent(m, "", " ")
	if err != nil { // strings and numbers only
		panic("encode manifest: " + err.Error())
	}
	return append(b, '\n')
}

// check refuses manifests that would write outside their directory.
func (m Manifest) check() error {
	last := ""
	for _, f := range m.Files {
		if !filepath.IsLocal(f.Path) || f.Path == ManifestName || f.Path == SignatureName || f.Path <= last || f.Size < 0 {
			return fmt.Errorf("bad entry %q", f.Path)
		}
		last = f.Path
	}
	if m.Version == "" || !filepath.IsLocal(m.Version) || filepath.Base(m.Version) != m.Version {
		return fmt.Errorf("bad version %q", m.Version)
	}
	return nil
}

// manifestOf lists the regular files below dir as a release of version.
func manifestOf(dir, version string) (Manifest, error) {
	m := Manifest{Version: version}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if !d.Type().IsRegular() {
			return fmt.Errorf("%s is not a regular file", path)
		}
		f, err := describe(dir, path)
		m.Files = append(m.Files, f)
		return err
	})
	if err != nil {
		return m, fault.New("describe release in "+dir, fault.Invalid, err)
	}
	slices.SortFunc(m.Files, byPath)
	for _, f := range m.Files {
		if path.Dir(f.Path) != ImagesDir || path.Ext(f.Path) != ".tar" {
			continue
		}
		images, err := describeImage(dir, f.Path)
		if err != nil {
			return m, fault.New("describe release in "+dir, fault.Invalid, err)
		}
		m.Images = append(m.Images, images...)
	}
	slices.SortFunc(m.Images, byName)
	if err := m.check(); err != nil {
		return m, fault.New("describe release in "+dir, fault.Invalid, err)
	}
	return m, nil
}

func describe(dir, path string) (File, error) {
	rel, err := filepath.Rel(dir, path)
	if err != nil {
		return File{}, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return File{}, err
	}
	in, err := os.Open(path)
	if err != nil {
		return File{}, err
	}
	defer in.Close()
	h := sha256.New()
	size, err := io.Copy(h, in)
	return File{
		Path: filepath.ToSlash(rel), Mode: info.Mode().Perm() | 0o444, Size: size,
		SHA256: hex.EncodeToString(h.Sum(nil)),
	}, err
}

func describeImage(dir, path string) ([]Image, error) {
	f, err := os.Open(filepath.Join(dir, filepath.FromSlash(path)))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := scanImage(f)
	if err != nil {
		return nil, fault.New("read image archive "+path, fault.Invalid, err)
	}
	var out []Image
	for _, n := range names {
		out = append(out, Image{n, path})
	}
	return out, nil
}

// Contents is what Write packs.
type Contents struct {
	Dir string // the files
	// The rest is as in the manifest.
	Version, Platform, Base string
	Components              map[string]string
	Formats                 map[string]int
}

// Write packs c into w, signed with key, and returns its manifest. A nil key
// leaves it unsigned: then nobody takes it before it is signed.
func Write(w io.Writer, c Contents, key *Key) (Manifest, error) {
	m, err := manifestOf(c.Dir, c.Version)
	if err != nil {
		return m, err
	}
	m.Platform, m.Base, m.Components, m.Formats = c.Platform, c.Base, c.Components, c.Formats
	op := "write bundle of " + m.Release()
	p, err := newPacker(w, m, key)
	if err != nil {
		return m, fault.New(op, fault.Internal, err)
	}
	for _, f := range m.Files {
		if err := p.file(f, c.Dir); err != nil {
			return m, fault.New(op, fault.Internal, err)
		}
	}
	if err := p.close(); err != nil {
		return m, fault.New(op, fault.Internal, err)
	}
	return m, nil
}

// packer writes a bundle; after newPacker come the files, in the manifest's
// order.
type packer struct {
	tar *tar.Writer
	zst *zstd.Encoder
}

func newPacker(w io.Writer, m Manifest, key *Key) (packer, error) {
	// One encoder goroutine: with more, block borders depend on timing.
	zw, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return packer{}, err
	}
	p := packer{tar.NewWriter(zw), zw}
	text := m.encode()
	if err := entry(p.tar, ManifestName, 0o644, int64(len(text)), bytes.NewReader(text)); err != nil {
		return p, err
	}
	if key == nil {
		return p, nil
	}
	sig := key.sign(text, "DC/OS release "+m.Release())
	return p, entry(p.tar, SignatureName, 0o644, int64(len(sig)), bytes.NewReader(sig))
}

// file packs one file of the manifest from below dir.
func (p packer) file(f File, dir string) error {
	in, err := os.Open(filepath.Join(dir, filepath.FromSlash(f.Path)))
	if err != nil {
		return err
	}
	defer in.Close()
	return entry(p.tar, f.Path, int64(f.Mode), f.Size, in)
}

func (p packer) close() error { return errors.Join(p.tar.Close(), p.zst.Close()) }

func entry(tw *tar.Writer, name string, mode, size int64, r io.Reader) error {
	h := &tar.Header{Name: name, Mode: mode, Size: size, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.Copy(tw, r)
	return err
}

// reader walks an open bundle.
type reader struct {
	file *os.File
	zr   *zstd.Decoder
	tar  *tar.Reader
	m    Manifest
	sig  Signature
	next *tar.Header // read already: the first file, when there is no signature
}

// open reads manifest and signature of the bundle at path and leaves the
// reader before the first file. It believes neither.
func open(path string) (*reader, error) {
	op := "read bundle " + path
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.New(op, fault.NotFound, err)
	}
	zr, err := zstd.NewReader(f)
	if err != nil {
		f.Close()
		return nil, fault.New(op, fault.Internal, err)
	}
	r := &reader{file: f, zr: zr, tar: tar.NewReader(zr)}
	if err := r.begin(); err != nil {
		r.close()
		return nil, fault.New(op, fault.Invalid, fmt.Errorf("not a release bundle: %w", err))
	}
	return r, nil
}

func (r *reader) begin() error {
	h, err := r.tar.Next()
	if err == nil && h.Name != ManifestName {
		err = fmt.Errorf("begins with %q, not with %s", h.Name, ManifestName)
	}
	var text []byte
	if err == nil {
		text, err = io.ReadAll(io.LimitReader(r.tar, maxManifest))
	}
	if err == nil {
		err = json.Unmarshal(text, &r.m)
	}
	if err == nil {
		err = r.m.check()
	}
	if err != nil {
		return err
	}
	if !bytes.Equal(text, r.m.encode()) {
		return errors.New("the manifest is not in the form that this program knows; a newer dcos-install may know it")
	}
	h, err = r.tar.Next()
	if err == io.EOF && len(r.m.Files) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	if h.Name != SignatureName {
		r.next = h
		return nil
	}
	sig, err := io.ReadAll(io.LimitReader(r.tar, maxSignature))
	if err != nil {
		return err
	}
	r.sig, err = parseSignature(sig)
	return err
}

// entry returns the header of the next file.
func (r *reader) entry() (*tar.Header, error) {
	if h := r.next; h != nil {
		r.next = nil
		return h, nil
	}
	return r.tar.Next()
}

func (r *reader) close() {
	r.zr.Close()
	r.file.Close()
}

// openTrusted is open for who is going to use what is in the bundle.
func openTrusted(path string, t Trust) (*reader, error) {
	r, err := open(path)
	if err != nil {
		return nil, err
	}
	if err := t.verify(r.m.encode(), &r.sig); err != nil {
		r.close()
		return nil, fault.New("verify bundle "+path, fault.Denied, err)
	}
	return r, nil
}

// ReadManifest returns the manifest of the bundle at path when one of the keys
// of t has signed it. It reads only the beginning of the file.
func ReadManifest(path string, t Trust) (Manifest, error) {
	r, err := openTrusted(path, t)
	if err != nil {
		return Manifest{}, err
	}
	defer r.close()
	return r.m, nil
}

// Inspect returns what the bundle at path says of itself. Whether that is true
// is another question: the signature may be missing, wrong, or of a key that t
// does not have; the third result says so.
func Inspect(path string, t Trust) (m Manifest, s Signature, trust error, err error) {
	r, err := open(path)
	if err != nil {
		return Manifest{}, Signature{}, nil, err
	}
	defer r.close()
	if verr := t.verify(r.m.encode(), &r.sig); verr != nil {
		trust = fault.New("verify bundle "+path, fault.Denied, verr)
	}
	return r.m, r.sig, trust, nil
}

// Verify reads the whole bundle at path and checks its signature and every
// file in it.
func Verify(path string, t Trust) (Manifest, Signature, error) {
	r, err := openTrusted(path, t)
	if err != nil {
		return Manifest{}, Signature{}, err
	}
	defer r.close()
	if err := r.each(func(File, io.Reader) error { return nil }); err != nil {
		return r.m, r.sig, damaged("verify bundle "+path, err)
	}
	return r.m, r.sig, nil
}

func damaged(op string, err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		return fault.New(op, fault.Exhausted, err)
	}
	return fault.Newf(op, fault.Invalid, "it is damaged or cut off, fetch or build it again: %w", err)
}

// Unpack puts the files of a bundle that one of the keys of t has signed into
// the directory cache/RELEASE, verified, and returns that directory. An
// unpacked release is left as it is: the directory appears by a rename, when it
// is whole.
func Unpack(path, cache string, t Trust) (string, Manifest, error) {
	r, err := openTrusted(path, t)
	if err != nil {
		return "", Manifest{}, err
	}
	defer r.close()
	dir := filepath.Join(cache, r.m.Release())
	if _, err := os.Stat(dir); err == nil {
		return dir, r.m, nil
	}
	op := "unpack bundle " + path
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", r.m, fault.New(op, fault.Internal, err)
	}
	tmp, err := os.MkdirTemp(cache, ".unpack-")
	if err != nil {
		return "", r.m, fault.New(op, fault.Internal, err)
	}
	defer os.RemoveAll(tmp)
	if err := r.unpack(tmp); err != nil {
		return "", r.m, damaged(op, err)
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return "", r.m, fault.New(op, fault.Internal, err)
	}
	if err := os.Rename(tmp, dir); err != nil {
		if _, there := os.Stat(dir); there == nil { // another installer was faster
			return dir, r.m, nil
		}
		return "", r.m, fault.New(op, fault.Internal, err)
	}
	return dir, r.m, nil
}

// ReadFile returns one file of the bundle at path when one of the keys of t has
// signed it; fault.NotFound when there is none of that name. It reads the
// bundle up to that file.
func ReadFile(path, name string, t Trust) ([]byte, error) {
	r, err := openTrusted(path, t)
	if err != nil {
		return nil, err
	}
	defer r.close()
	op := "read " + name + " in bundle " + path
	if !slices.ContainsFunc(r.m.Files, func(f File) bool { return f.Path == name }) {
		return nil, fault.Newf(op, fault.NotFound, "there is no such file")
	}
	var out []byte
	found := errors.New("found")
	last := "" // the file after which nothing more is read
	err = r.each(func(f File, in io.Reader) error {
		if last != "" {
			return found
		}
		if f.Path != name {
			return nil
		}
		last = name
		out, err = io.ReadAll(in)
		return err
	})
	if err != nil && err != found {
		return nil, damaged(op, err)
	}
	return out, nil
}

// each calls f for every file in order and checks it against the manifest.
func (r *reader) each(f func(File, io.Reader) error) error {
	for _, want := range r.m.Files {
		h, err := r.entry()
		if err != nil {
			return fmt.Errorf("%s is missing: %w", want.Path, err)
		}
		if h.Name != want.Path || h.Size != want.Size {
			return fmt.Errorf("found %s of %d bytes where %s of %d belongs", h.Name, h.Size, want.Path, want.Size)
		}
		sum := sha256.New()
		in := io.TeeReader(r.tar, sum)
		if err := f(want, in); err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, in); err != nil { // what f left
			return err
		}
		if got := hex.EncodeToString(sum.Sum(nil)); got != want.SHA256 {
			return fmt.Errorf("%s is damaged: its SHA-256 is %s, the manifest says %s", want.Path, got, want.SHA256)
		}
	}
	if h, err := r.entry(); err != io.EOF {
		return fmt.Errorf("after the last file: %v, %w", h, err)
	}
	// The checksum is at the very end: it tells of damage between the files, too.
	if _, err := io.Copy(io.Discard, r.zr); err != nil {
		return fmt.Errorf("after the last file: %w", err)
	}
	return nil
}

func (r *reader) unpack(dir string) error {
	err := r.each(func(f File, in io.Reader) error {
		return extract(filepath.Join(dir, filepath.FromSlash(f.Path)), f, in)
	})
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, ManifestName), r.m.encode(), 0o644),
		os.WriteFile(filepath.Join(dir, SignatureName), r.sig.text, 0o644))
}

func extract(path string, f File, in io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, f.Mode.Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("write %s: %w", f.Path, err)
	}
	return nil
}
