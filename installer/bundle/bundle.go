// Package bundle reads and writes release bundles: one file with everything a
// host needs, addressed by its content.
//
// A bundle is a tar compressed with zstd. Its first entry, manifest.json, names
// every other file with mode, size and SHA-256; the SHA-256 of that entry is
// the release's digest. The same files give the same bytes.
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
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/klauspost/compress/zstd"

	"dcos.example/dcos/runtime/fault"
)

// CacheDir is where releases are unpacked on the installer's machine.
const CacheDir = "/var/lib/dcos-install/bundles"

const (
	// ManifestName is the file beside a release's own that names them all.
	ManifestName = "manifest.json"
	// maxManifest bounds what is read before anything is verified.
	maxManifest = 8 << 20
)

// Manifest says what a release holds.
type Manifest struct {
	Version string `json:"version"`
	// Components are the versions of what the release is made of, by name.
	Components map[string]string `json:"components,omitempty"`
	Files      []File            `json:"files"` // in path order
}

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
		if !filepath.IsLocal(f.Path) || f.Path == ManifestName || f.Path <= last || f.Size < 0 {
			return fmt.Errorf("bad entry %q", f.Path)
		}
		last = f.Path
	}
	if m.Version == "" || !filepath.IsLocal(m.Version) || filepath.Base(m.Version) != m.Version {
		return fmt.Errorf("bad version %q", m.Version)
	}
	return nil
}

// Describe lists the regular files below dir as a release of version.
func Describe(dir, version string) (Manifest, error) {
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
	slices.SortFunc(m.Files, func(a, b File) int { return bytes.Compare([]byte(a.Path), []byte(b.Path)) })
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

// Write packs the files below dir into w and returns their manifest.
func Write(w io.Writer, dir, version string, components map[string]string) (Manifest, error) {
	m, err := Describe(dir, version)
	if err != nil {
		return m, err
	}
	m.Components = components
	op := "write bundle of " + m.Release()
	// One encoder goroutine: with more, block borders depend on timing.
	zw, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return m, fault.New(op, fault.Internal, err)
	}
	tw := tar.NewWriter(zw)
	text := m.encode()
	if err := entry(tw, ManifestName, 0o644, int64(len(text)), bytes.NewReader(text)); err != nil {
		return m, fault.New(op, fault.Internal, err)
	}
	for _, f := range m.Files {
		in, err := os.Open(filepath.Join(dir, filepath.FromSlash(f.Path)))
		if err != nil {
			return m, fault.New(op, fault.Internal, err)
		}
		err = entry(tw, f.Path, int64(f.Mode), f.Size, in)
		in.Close()
		if err != nil {
			return m, fault.New(op, fault.Internal, err)
		}
	}
	if err := errors.Join(tw.Close(), zw.Close()); err != nil {
		return m, fault.New(op, fault.Internal, err)
	}
	return m, nil
}

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
}

// open reads the manifest of the bundle at path and leaves the reader before
// the first file.
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
	if err == nil && !bytes.Equal(text, r.m.encode()) {
		err = errors.New("the manifest is not in canonical form")
	}
	if err != nil {
		r.close()
		return nil, fault.New(op, fault.Invalid, fmt.Errorf("not a release bundle: %w", err))
	}
	return r, nil
}

func (r *reader) close() {
	r.zr.Close()
	r.file.Close()
}

// ReadManifest returns the manifest of the bundle at path. It reads only the
// beginning of the file.
func ReadManifest(path string) (Manifest, error) {
	r, err := open(path)
	if err != nil {
		return Manifest{}, err
	}
	defer r.close()
	return r.m, nil
}

// Unpack puts the bundle's files into the directory cache/RELEASE, verified,
// and returns that directory. An unpacked release is left as it is: the
// directory appears by a rename, when it is whole.
func Unpack(path, cache string) (string, Manifest, error) {
	r, err := open(path)
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
		if errors.Is(err, syscall.ENOSPC) {
			return "", r.m, fault.New(op, fault.Exhausted, err)
		}
		return "", r.m, fault.Newf(op, fault.Invalid, "it is damaged or cut off, fetch or build it again: %w", err)
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

func (r *reader) unpack(dir string) error {
	for _, want := range r.m.Files {
		h, err := r.tar.Next()
		if err != nil {
			return fmt.Errorf("%s is missing: %w", want.Path, err)
		}
		if h.Name != want.Path || h.Size != want.Size {
			return fmt.Errorf("found %s of %d bytes where %s of %d belongs", h.Name, h.Size, want.Path, want.Size)
		}
		if err := r.extract(filepath.Join(dir, filepath.FromSlash(want.Path)), want); err != nil {
			return err
		}
	}
	if h, err := r.tar.Next(); err != io.EOF {
		return fmt.Errorf("after the last file: %v, %w", h, err)
	}
	return os.WriteFile(filepath.Join(dir, ManifestName), r.m.encode(), 0o644)
}

func (r *reader) extract(path string, want File) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, want.Mode.Perm())
	if err != nil {
		return err
	}
	h := sha256.New()
	_, err = io.Copy(io.MultiWriter(out, h), r.tar)
	if err = errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("write %s: %w", want.Path, err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want.SHA256 {
		return fmt.Errorf("%s is damaged: its SHA-256 is %s, the manifest says %s", want.Path, got, want.SHA256)
	}
	return nil
}
