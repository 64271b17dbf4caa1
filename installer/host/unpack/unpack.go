// Package unpack is how a release travels to a host: a compressed stream of
// those files that the host lacks, put together there by a small program with
// what it has. Both ends are here. The program has to be small, so nothing of
// the installer is imported.
package unpack

import (
	"archive/tar"
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

	"github.com/klauspost/compress/zstd"
)

// Manifest names the files of a release, and is one of them itself.
const Manifest = "manifest.json"

// maxManifest bounds what is read before anything is verified.
const maxManifest = 8 << 20

// file is one file as the manifest has it.
type file struct {
	Path   string      `json:"path"`
	Mode   fs.FileMode `json:"mode"`
	Size   int64       `json:"size"`
	SHA256 string      `json:"sha256"`
}

// Pack writes the manifest and the named files of the release in dir. It is
// made for speed: networks that are slower than it are rare.
func Pack(w io.Writer, dir string, names []string) error {
	zw, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return err
	}
	tw := tar.NewWriter(zw)
	for _, name := range append([]string{Manifest}, names...) {
		if err := pack(tw, dir, name); err != nil {
			return err
		}
	}
	return errors.Join(tw.Close(), zw.Close())
}

func pack(tw *tar.Writer, dir, name string) error {
	f, err := os.Open(filepath.Join(dir, filepath.FromSlash(name)))
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: st.Size(), Format: tar.FormatPAX}); err != nil {
		return err
	}
	_, err = io.Copy(tw, f)
	return err
}

// Into reads a stream that Pack wrote and completes the release in dir, whose
// manifest must have the given digest: files that the stream has are written,
// and all others must be there, but those whose paths begin with one of
// without: the host is to do without them. Each is compared with the manifest and given
// its mode. A stream that is cut off, or damaged, leaves files that the next
// one need not bring: Have finds them.
func Into(dir, digest string, r io.Reader, without ...string) error {
	zr, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return err
	}
	defer zr.Close()
	tr := tar.NewReader(zr)
	h, err := tr.Next()
	if err != nil || h.Name != Manifest {
		return fmt.Errorf("the stream does not begin with %s: %w", Manifest, errors.Join(err, io.ErrUnexpectedEOF))
	}
	text, err := io.ReadAll(io.LimitReader(tr, maxManifest))
	if err != nil {
		return err
	}
	files, err := parse(text, digest)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	left := make(map[string]file, len(files))
	for _, f := range files {
		left[f.Path] = f
	}
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		f, ok := left[h.Name]
		if !ok {
			return fmt.Errorf("the stream has %s, which the manifest does not", h.Name)
		}
		if err := write(root, f, tr); err != nil {
			return err
		}
		delete(left, h.Name)
	}
	for _, f := range files {
		if _, ok := left[f.Path]; !ok || slices.ContainsFunc(without, func(p string) bool { return strings.HasPrefix(f.Path, p) }) {
			continue
		}
		if err := holds(root, f); err != nil {
			return errors.Join(err, root.Remove(f.Path))
		}
		if err := root.Chmod(f.Path, f.Mode.Perm()); err != nil {
			return err
		}
	}
	return root.WriteFile(Manifest, text, 0o644)
}

func parse(text []byte, digest string) ([]file, error) {
	sum := sha256.Sum256(text)
	if got := hex.EncodeToString(sum[:]); got != digest {
		return nil, fmt.Errorf("the manifest has the digest %s, not %s", got, digest)
	}
	var m struct {
		Files []file `json:"files"`
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, err
	}
	for _, f := range m.Files {
		if !filepath.IsLocal(f.Path) || f.Path == Manifest {
			return nil, fmt.Errorf("the manifest has a bad entry %q", f.Path)
		}
	}
	return m.Files, nil
}

// write makes a file under a name of its own and renames it when it is whole.
func write(root *os.Root, f file, r io.Reader) error {
	if err := root.MkdirAll(filepath.Dir(f.Path), 0o755); err != nil {
		return err
	}
	tmp := f.Path + ".part"
	if err := root.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	out, err := root.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(out, sum), r)
	if err = errors.Join(err, out.Chmod(f.Mode.Perm()), out.Close()); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); n != f.Size || got != f.SHA256 {
		return errors.Join(fmt.Errorf("%s arrived damaged", f.Path), root.Remove(tmp))
	}
	return root.Rename(tmp, f.Path)
}

// holds compares a file that is there with the manifest.
func holds(root *os.Root, f file) error {
	in, err := root.Open(f.Path)
	if err != nil {
		return err
	}
	defer in.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, in)
	if err != nil {
		return err
	}
	if n != f.Size || hex.EncodeToString(sum.Sum(nil)) != f.SHA256 {
		return fmt.Errorf("%s, of an older release or an earlier attempt, is damaged", f.Path)
	}
	return nil
}
