package layer

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"path"
	"strings"
)

// Owner is who owns a file.
type Owner struct{ UID, GID int }

// Writer writes the files of a layer. Of two with one path the first stays.
// Paths are those of a merged /usr, times are the epoch, and nothing is
// set-user-id: containers gain no rights.
type Writer struct {
	tw   *tar.Writer
	seen map[string]bool
}

// merged are the folders that are links into /usr.
var merged = []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32"}

// Clean returns a path as layers hold it.
func Clean(p string) string {
	p = strings.TrimPrefix(path.Clean("/"+p), "/")
	first, _, _ := strings.Cut(p, "/")
	for _, m := range merged {
		if first == m {
			return "usr/" + p
		}
	}
	return p
}

// Has tells whether something was written at the path.
func (w *Writer) Has(p string) bool { return w.seen[Clean(p)] }

// enter notes a path, and writes the folders above it. It reports false when
// the path is taken, or is none.
func (w *Writer) enter(p string) (string, bool, error) {
	p = Clean(p)
	if p == "" || w.seen[p] {
		return p, false, nil
	}
	if dir := path.Dir(p); dir != "." {
		// Folders that everybody shares keep their mode.
		mode := int64(0o755)
		if dir == "tmp" || dir == "var/tmp" {
			mode = 0o1777
		}
		if err := w.Dir(dir, mode, Owner{}); err != nil {
			return p, false, err
		}
	}
	w.seen[p] = true
	return p, true, nil
}

func (w *Writer) header(h *tar.Header, o Owner) error {
	h.Uid, h.Gid, h.ModTime = o.UID, o.GID, epoch
	h.Mode &^= 0o6000
	if err := w.tw.WriteHeader(h); err != nil {
		return fmt.Errorf("write %s: %w", h.Name, err)
	}
	return nil
}

// Dir writes a folder.
func (w *Writer) Dir(p string, mode int64, o Owner) error {
	p, fresh, err := w.enter(p)
	if err != nil || !fresh {
		return err
	}
	return w.header(&tar.Header{Typeflag: tar.TypeDir, Name: p + "/", Mode: mode}, o)
}

// File writes size bytes of r.
func (w *Writer) File(p string, mode, size int64, o Owner, r io.Reader) error {
	p, fresh, err := w.enter(p)
	if err != nil || !fresh {
		return err
	}
	if err := w.header(&tar.Header{Typeflag: tar.TypeReg, Name: p, Mode: mode, Size: size}, o); err != nil {
		return err
	}
	if _, err := io.CopyN(w.tw, r, size); err != nil {
		return fmt.Errorf("write %s: %w", p, err)
	}
	return nil
}

// Bytes writes a file.
func (w *Writer) Bytes(p string, mode int64, o Owner, b []byte) error {
	return w.File(p, mode, int64(len(b)), o, bytes.NewReader(b))
}

// Symlink writes a link to target, which is kept as it is.
func (w *Writer) Symlink(p, target string) error {
	p, fresh, err := w.enter(p)
	if err != nil || !fresh {
		return err
	}
	return w.header(&tar.Header{Typeflag: tar.TypeSymlink, Name: p, Linkname: target, Mode: 0o777}, Owner{})
}

// Link writes another name of a file of this layer.
func (w *Writer) Link(p, of string) error {
	of = Clean(of)
	if !w.seen[of] {
		return fmt.Errorf("write %s: it is a second name of %s, which the layer leaves out", p, of)
	}
	p, fresh, err := w.enter(p)
	if err != nil || !fresh {
		return err
	}
	return w.header(&tar.Header{Typeflag: tar.TypeLink, Name: p, Linkname: of}, Owner{})
}

// Merge writes the links of the merged /usr, and the folders they lead to.
func (w *Writer) Merge() error {
	for _, m := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := w.Dir("usr/"+m, 0o755, Owner{}); err != nil {
			return err
		}
		// Not through enter: it would clean the name away.
		w.seen[m] = true
		if err := w.header(&tar.Header{Typeflag: tar.TypeSymlink, Name: m, Linkname: "usr/" + m, Mode: 0o777}, Owner{}); err != nil {
			return err
		}
	}
	return nil
}
