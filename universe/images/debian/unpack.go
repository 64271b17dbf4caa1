package debian

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path"
	"strings"

	"dcos.example/dcos/universe/images/layer"
	"dcos.example/dcos/universe/images/lock"
)

// pruned is what no container needs of a package: what people read, and what
// only a machine's own init, cron or package manager uses. Licences stay.
var pruned = []string{
	"usr/share/man", "usr/share/info", "usr/share/locale", "usr/share/lintian", "usr/share/bug", "usr/share/doc-base",
	"usr/share/bash-completion", "usr/share/zsh", "usr/share/fish", "usr/share/menu", "usr/share/pixmaps", "usr/share/icons",
	"usr/share/applications", "usr/share/gdb", "usr/share/gcc", "usr/share/initramfs-tools", "usr/share/polkit-1", "usr/share/apport",
	"usr/share/debconf", "usr/share/i18n", "usr/share/metainfo", "usr/share/keyrings", "usr/share/upstart",
	"etc/cron.*", "etc/init.d", "etc/rc?.d", "etc/logrotate.d", "etc/logcheck", "etc/ufw", "etc/apparmor.d", "etc/kernel",
	"usr/lib/systemd", "usr/lib/sysusers.d", "usr/lib/tmpfiles.d", "usr/lib/udev", "usr/lib/lsb", "usr/lib/valgrind",
	"usr/lib/x86_64-linux-gnu/gconv", "usr/lib/x86_64-linux-gnu/audit", "var/lib/dpkg", "var/cache", "lib/systemd", "lib/udev", "lib/lsb",
}

// keeps tells whether a path of a package goes into an image.
func keeps(p string, more []string) bool {
	if rest, ok := strings.CutPrefix(p, "usr/share/doc/"); ok {
		// A folder, a link to one, or a licence.
		pkg, file, below := strings.Cut(rest, "/")
		return pkg != "" && (!below || file == "" || file == "copyright")
	}
	for _, patterns := range [][]string{pruned, more} {
		for _, pattern := range patterns {
			n := strings.Count(pattern, "/") + 1
			parts := strings.SplitN(p, "/", n+1)
			if len(parts) < n {
				continue
			}
			if ok, err := path.Match(pattern, strings.Join(parts[:n], "/")); ok && err == nil {
				return false
			}
		}
	}
	return true
}

// Unpack writes the packages' files, without those that a container does not
// need and those that match prune.
func (s *Source) Unpack(ctx context.Context, debs []lock.Deb, prune []string, w *layer.Writer) error {
	for _, d := range debs {
		err := s.walk(ctx, d, func(h *tar.Header, r io.Reader) error {
			p := layer.Clean(h.Name)
			if p == "" || !keeps(p, prune) {
				return nil
			}
			o := layer.Owner{UID: h.Uid, GID: h.Gid}
			switch h.Typeflag {
			case tar.TypeDir:
				return w.Dir(p, h.Mode, o)
			case tar.TypeReg:
				return w.File(p, h.Mode, h.Size, o, r)
			case tar.TypeSymlink:
				return w.Symlink(p, h.Linkname)
			case tar.TypeLink:
				return w.Link(p, h.Linkname)
			}
			return fmt.Errorf("%s: a file of type %q", h.Name, h.Typeflag)
		})
		if err != nil {
			return fmt.Errorf("unpack Debian package %s %s: %w", d.Name, d.Version, err)
		}
	}
	return nil
}

// Read returns the files of a package that want accepts, by path.
func (s *Source) Read(ctx context.Context, d lock.Deb, want func(path string) bool) (map[string][]byte, error) {
	files := map[string][]byte{}
	err := s.walk(ctx, d, func(h *tar.Header, r io.Reader) error {
		p := layer.Clean(h.Name)
		if h.Typeflag != tar.TypeReg || !want(p) {
			return nil
		}
		b, err := io.ReadAll(r)
		files[p] = b
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read Debian package %s %s: %w", d.Name, d.Version, err)
	}
	return files, nil
}

func (s *Source) walk(ctx context.Context, d lock.Deb, visit func(*tar.Header, io.Reader) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", s.files.Path(d.SHA256))
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	err = func() error {
		tr := tar.NewReader(out)
		for {
			h, err := tr.Next()
			if err == io.EOF {
				_, err = io.Copy(io.Discard, out)
				return err
			}
			if err != nil {
				return err
			}
			if err := visit(h, tr); err != nil {
				return err
			}
		}
	}()
	if err != nil {
		stop()
		return errors.Join(err, ignore(cmd.Wait()))
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(said.String()))
	}
	return nil
}

// ignore drops the end of a program that was stopped because of another error.
func ignore(error) error { return nil }
