// Package archive is the format of a backup: a tar of named files, compressed
// with zstd, encrypted with age. Standard tools open it:
//
//	age -d -i KEY FILE | zstd -d | tar -t
//
// The first file is the manifest, which lists all others with their digests.
// Encryption authenticates every 64 KiB and the end, so damage and truncation
// are found wherever they are; nothing is used before all of it was checked.
package archive

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"dcos.example/dcos/runtime/fault"
)

// Format is the version of the format that this package writes.
const Format = 1

// Names in an archive. Files of the masters' configuration are below ConfigDir,
// by their path on the host.
const (
	ManifestName = "manifest.json"
	SnapshotName = "store/snapshot.db"
	ReleaseName  = "release/manifest.json"
	DepositName  = "installer-state"
	ConfigDir    = "host"
	maxManifest  = 16 << 20
	maxSmall     = 128 << 20 // of a file other than the snapshot
	maxSnapshot  = 16 << 30
	headerOfAge  = "age-encryption.org/"
)

// Contents identifies what the store holds; see runtime/state/etcd.
type Contents struct {
	Revision int64  `json:"revision"`
	Keys     int    `json:"keys"`
	Digest   string `json:"digest"`
}

// Agent is an agent that was admitted when the backup was made.
type Agent struct {
	ID       string     `json:"id"`
	Hostname string     `json:"hostname"`
	Addr     netip.Addr `json:"addr,omitzero"`
}

// File is one file of the archive.
type File struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// Manifest tells what is in a backup.
type Manifest struct {
	Format      int       `json:"format"`
	ID          string    `json:"id"`
	Created     time.Time `json:"created"`
	ClusterID   string    `json:"cluster_id"`
	ClusterName string    `json:"cluster_name"`
	Release     string    `json:"release"` // version
	Master      string    `json:"master"`  // which made it
	Store       Contents  `json:"store"`
	Agents      []Agent   `json:"agents"`
	Files       []File    `json:"files"`
}

// Source is a file to be put into an archive: bytes, or a file on the disk.
type Source struct {
	Name string
	Data []byte
	Path string
}

// Recipients reads age public keys.
func Recipients(keys []string) ([]age.Recipient, error) {
	var out []age.Recipient
	for _, k := range keys {
		r, err := age.ParseX25519Recipient(k)
		if err != nil {
			return nil, fault.Newf("read a backup's recipient", fault.Invalid, "%q is not an age public key (age1…)", k)
		}
		out = append(out, r)
	}
	return out, nil
}

// Write writes the archive of m and sources for recipients. It fills in
// m.Format and m.Files.
func Write(w io.Writer, recipients []age.Recipient, m Manifest, sources []Source) error {
	const op = "write a backup"
	if len(recipients) == 0 {
		return fault.Newf(op, fault.Invalid, "no recipient is known, so nobody could read it")
	}
	m.Format, m.Files = Format, nil
	for _, s := range sources {
		f, err := s.file()
		if err != nil {
			return fault.New(op, fault.Internal, err)
		}
		m.Files = append(m.Files, f)
	}
	manifest, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	sealed, err := age.Encrypt(w, recipients...)
	if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	// One core: it is made on a master that leads.
	packed, err := zstd.NewWriter(sealed, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	t := tar.NewWriter(packed)
	err = add(t, Source{Name: ManifestName, Data: manifest}, int64(len(manifest)), m.Created)
	for i, s := range sources {
		if err == nil {
			err = add(t, s, m.Files[i].Size, m.Created)
		}
	}
	if err = errors.Join(err, t.Close(), packed.Close(), sealed.Close()); err != nil {
		return fault.New(op, fault.Internal, err)
	}
	return nil
}

func (s Source) open() (io.ReadCloser, error) {
	if s.Path != "" {
		return os.Open(s.Path)
	}
	return io.NopCloser(strings.NewReader(string(s.Data))), nil
}

func (s Source) file() (File, error) {
	r, err := s.open()
	if err != nil {
		return File{}, err
	}
	defer r.Close()
	h := sha256.New()
	n, err := io.Copy(h, r)
	return File{Name: s.Name, Size: n, SHA256: hex.EncodeToString(h.Sum(nil))}, err
}

func add(t *tar.Writer, s Source, size int64, at time.Time) error {
	r, err := s.open()
	if err != nil {
		return err
	}
	defer r.Close()
	if err := t.WriteHeader(&tar.Header{Name: s.Name, Size: size, Mode: 0o600, ModTime: at, Format: tar.FormatPAX}); err != nil {
		return err
	}
	_, err = io.Copy(t, r)
	return err
}

// Backup is an opened archive. Small files are in memory; the snapshot is a
// file on the disk.
type Backup struct {
	Manifest Manifest
	Files    map[string][]byte
	Snapshot string // path
}

// Config returns a file of the masters' configuration by its path on the host.
func (b *Backup) Config(path string) []byte { return b.Files[ConfigDir+path] }

// Open reads an archive with identities and checks everything in it. The
// snapshot is written to dir, which must exist.
func Open(r io.Reader, identities []age.Identity, dir string) (*Backup, error) {
	const op = "open the backup"
	head := make([]byte, len(headerOfAge))
	if n, err := io.ReadFull(r, head); err != nil || string(head) != headerOfAge {
		return nil, fault.Newf(op, fault.Invalid, "it is not a backup: it begins with %q", head[:n])
	}
	plain, err := age.Decrypt(io.MultiReader(strings.NewReader(headerOfAge), r), identities...)
	if err != nil {
		if _, ok := errors.AsType[*age.NoIdentityMatchError](err); ok {
			return nil, fault.Newf(op, fault.Denied, "none of the keys given opens it: it was encrypted for other ones")
		}
		return nil, fault.Newf(op, fault.Invalid, "its header is damaged: %v", err)
	}
	in := &noted{r: plain}
	b, err := read(in, dir)
	if err == nil {
		return b, nil
	}
	// Whatever the tar, the compression or a digest complained about: if the
	// encryption does not hold, that is the cause.
	_, _ = io.Copy(io.Discard, in)
	if in.err != nil {
		return nil, fault.Newf(op, fault.Invalid, "the file is damaged or cut off: %v", in.err)
	}
	return nil, fault.New(op, fault.Invalid, err)
}

// noted remembers that reading failed.
type noted struct {
	r   io.Reader
	err error
}

func (n *noted) Read(p []byte) (int, error) {
	c, err := n.r.Read(p)
	if err != nil && err != io.EOF {
		n.err = err
	}
	return c, err
}

func read(plain io.Reader, dir string) (*Backup, error) {
	packed, err := zstd.NewReader(plain, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	defer packed.Close()
	t := tar.NewReader(packed)
	h, err := t.Next()
	if err != nil {
		return nil, err
	}
	if h.Name != ManifestName || h.Size > maxManifest {
		return nil, fmt.Errorf("it begins with %s instead of its manifest", h.Name)
	}
	b := &Backup{Files: map[string][]byte{}}
	if err := json.NewDecoder(t).Decode(&b.Manifest); err != nil {
		return nil, fmt.Errorf("read its manifest: %w", err)
	}
	if b.Manifest.Format != Format {
		return nil, fmt.Errorf("it has format %d, this program reads %d: use the program of release %s", b.Manifest.Format, Format, b.Manifest.Release)
	}
	for _, want := range b.Manifest.Files {
		h, err := t.Next()
		if err != nil {
			return nil, fmt.Errorf("look for %s: %w", want.Name, err)
		}
		if h.Name != want.Name || h.Size != want.Size {
			return nil, fmt.Errorf("its manifest lists %s of %d bytes, there is %s of %d", want.Name, want.Size, h.Name, h.Size)
		}
		if err := b.take(t, want, dir); err != nil {
			return nil, err
		}
	}
	if _, err := t.Next(); err != io.EOF {
		return nil, fmt.Errorf("there is more in it than its manifest lists: %v", err)
	}
	// To the very end, where truncation shows.
	if _, err := io.Copy(io.Discard, packed); err != nil {
		return nil, err
	}
	if _, err := io.Copy(io.Discard, plain); err != nil {
		return nil, err
	}
	return b, nil
}

func (b *Backup) take(r io.Reader, want File, dir string) error {
	h := sha256.New()
	limit := int64(maxSmall)
	var small strings.Builder
	var to io.Writer = &small
	if want.Name == SnapshotName {
		limit, b.Snapshot = maxSnapshot, filepath.Join(dir, "snapshot.db")
		f, err := os.OpenFile(b.Snapshot, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		defer f.Close() // what matters is checked against the digest when it is used
		to = f
	}
	if want.Size > limit {
		return fmt.Errorf("%s has %d bytes, %d are the most", want.Name, want.Size, limit)
	}
	if _, err := io.Copy(io.MultiWriter(to, h), r); err != nil {
		return fmt.Errorf("read %s: %w", want.Name, err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want.SHA256 {
		return fmt.Errorf("%s has the digest %s, its manifest says %s", want.Name, got, want.SHA256)
	}
	if want.Name != SnapshotName {
		b.Files[want.Name] = []byte(small.String())
	}
	return nil
}
