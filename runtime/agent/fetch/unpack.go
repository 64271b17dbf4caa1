package fetch

import (
	"archive/tar"
	"archive/zip"
	"compress/bzip2"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// unpack extracts the archive name into the sandbox, next to itself; a file of
// another kind stays as it is.
func unpack(ctx context.Context, root *os.Root, name string, owner Owner) error {
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	dir := path.Dir(name)
	switch lower := strings.ToLower(name); {
	case hasSuffix(lower, ".tar"):
		return untar(ctx, root, dir, f, owner)
	case hasSuffix(lower, ".tar.gz", ".tgz"):
		z, err := gzip.NewReader(f)
		if err != nil {
			return err
		}
		return untar(ctx, root, dir, z, owner)
	case hasSuffix(lower, ".tar.bz2", ".tbz2"):
		return untar(ctx, root, dir, bzip2.NewReader(f), owner)
	case hasSuffix(lower, ".tar.xz", ".txz"):
		return unxz(ctx, f, func(r io.Reader) error { return untar(ctx, root, dir, r, owner) })
	case hasSuffix(lower, ".zip"):
		return unzip(ctx, root, dir, f, owner)
	case hasSuffix(lower, ".gz"):
		z, err := gzip.NewReader(f)
		if err != nil {
			return err
		}
		return write(root, name[:len(name)-len(".gz")], z, 0o644, owner)
	}
	return nil
}

func hasSuffix(s string, suffixes ...string) bool {
	for _, x := range suffixes {
		if strings.HasSuffix(s, x) && len(s) > len(x) {
			return true
		}
	}
	return false
}

// unxz runs the host's xz, the one format the standard library cannot read.
func unxz(ctx context.Context, r io.Reader, use func(io.Reader) error) error {
	bin, err := exec.LookPath("xz")
	if err != nil {
		return errors.New("xz archives need the program xz on the agent: it is not installed")
	}
	cmd := exec.CommandContext(ctx, bin, "-dc")
	cmd.Stdin = r
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	err = use(out)
	_, drain := io.Copy(io.Discard, out)
	if werr := cmd.Wait(); werr != nil {
		werr = fmt.Errorf("xz: %w", werr)
		return errors.Join(err, werr)
	}
	return errors.Join(err, drain)
}

func untar(ctx context.Context, root *os.Root, dir string, r io.Reader, owner Owner) error {
	t := tar.NewReader(r)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		name, err := inside(dir, h.Name)
		if err != nil {
			return err
		}
		if err := entry(root, name, h, t, owner); err != nil {
			return fmt.Errorf("unpack %s: %w", h.Name, err)
		}
	}
}

// entry makes one member of a tar archive. os.Root refuses any path that
// leaves the sandbox, also through links that the archive itself made.
func entry(root *os.Root, name string, h *tar.Header, r io.Reader, owner Owner) error {
	mode := fs.FileMode(h.Mode) & fs.ModePerm
	if h.Typeflag == tar.TypeDir {
		return directory(root, name, mode, owner)
	}
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeReg:
		return write(root, name, r, mode, owner)
	case tar.TypeSymlink:
		if err := replace(root, name); err != nil {
			return err
		}
		if err := root.Symlink(h.Linkname, name); err != nil {
			return err
		}
		return root.Lchown(name, owner.UID, owner.GID)
	case tar.TypeLink:
		old, err := inside(".", h.Linkname)
		if err != nil {
			return err
		}
		if dir := path.Dir(name); !exists(root, old) && dir != "." {
			old = path.Join(dir, h.Linkname)
		}
		if err := replace(root, name); err != nil {
			return err
		}
		return root.Link(old, name)
	case tar.TypeXGlobalHeader:
		return nil
	default:
		return fmt.Errorf("members of type %q are not supported", h.Typeflag)
	}
}

func exists(root *os.Root, name string) bool {
	_, err := root.Lstat(name)
	return err == nil
}

func replace(root *os.Root, name string) error {
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func directory(root *os.Root, name string, mode fs.FileMode, owner Owner) error {
	if name == "." {
		return nil
	}
	if err := root.MkdirAll(name, 0o755); err != nil {
		return err
	}
	return errors.Join(root.Chmod(name, mode|0o700), root.Chown(name, owner.UID, owner.GID))
}

func unzip(ctx context.Context, root *os.Root, dir string, f *os.File, owner Owner) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	z, err := zip.NewReader(f, fi.Size())
	if err != nil {
		return err
	}
	for _, m := range z.File {
		if err := ctx.Err(); err != nil {
			return err
		}
		name, err := inside(dir, m.Name)
		if err != nil {
			return err
		}
		if err := member(root, name, m, owner); err != nil {
			return fmt.Errorf("unpack %s: %w", m.Name, err)
		}
	}
	return nil
}

func member(root *os.Root, name string, m *zip.File, owner Owner) error {
	if m.Mode().IsDir() {
		return directory(root, name, m.Mode().Perm(), owner)
	}
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	r, err := m.Open()
	if err != nil {
		return err
	}
	if m.Mode()&fs.ModeSymlink != 0 {
		to, err := io.ReadAll(io.LimitReader(r, 4096))
		if err = errors.Join(err, r.Close(), replace(root, name)); err != nil {
			return err
		}
		return root.Symlink(string(to), name)
	}
	mode := m.Mode().Perm() &^ 0o022 // archives without Unix modes read as 0666
	if mode == 0 {
		mode = 0o644
	}
	return errors.Join(write(root, name, r, mode, owner), r.Close())
}

// inside returns the path of an archive's member in the sandbox. Names that
// climb out are refused, not bent: the archive is broken or hostile.
func inside(dir, name string) (string, error) {
	clean := path.Clean(strings.TrimPrefix(name, "/"))
	if clean == "." || clean == "" {
		return dir, nil
	}
	if !filepath.IsLocal(clean) {
		return "", fmt.Errorf("the archive names %q, which is outside the sandbox", name)
	}
	return path.Join(dir, clean), nil
}
