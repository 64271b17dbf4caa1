package images

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Check runs the checks of an image's recipe in its unpacked file system, as
// its user, in a network of its own that has loopback alone. It needs root.
func (b *Builder) Check(ctx context.Context, i *Built, say func(string)) error {
	if len(i.Recipe.Checks) == 0 {
		return nil
	}
	if os.Geteuid() != 0 {
		return errors.New("checks need root: they run in a file system and a network of their own")
	}
	root, err := os.MkdirTemp(b.o.Work, "check-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	if err := os.Chmod(root, 0o755); err != nil {
		return err
	}
	if err := b.unpack(i, root); err != nil {
		return err
	}
	for n, c := range i.Recipe.Checks {
		limit := c.Timeout
		if limit == 0 {
			limit = 5 * time.Minute
		}
		began := time.Now()
		out, err := inside(ctx, root, i, c.Run, limit)
		if err == nil && !strings.Contains(string(out), c.Expect) {
			err = fmt.Errorf("it does not say %q", c.Expect)
		}
		if err != nil {
			return fmt.Errorf("check %d: %w\n%s", n+1, err, tail(out))
		}
		say(fmt.Sprintf("check %d passed in %.1f s", n+1, time.Since(began).Seconds()))
	}
	return nil
}

func tail(b []byte) []byte {
	const most = 4096
	if len(b) > most {
		b = b[len(b)-most:]
	}
	return b
}

// inside runs a command in the image. Its processes end with it: they are in a
// process namespace whose first is the command's shell.
func inside(ctx context.Context, root string, i *Built, command string, limit time.Duration) ([]byte, error) {
	ctx, stop := context.WithTimeout(ctx, limit)
	defer stop()
	user := i.config.User
	// The namespaces are made by unshare; loopback comes up before the user changes.
	script := `mount --bind "$0" "$0" && cd "$0" && mount -t proc proc "$0/proc" && ip link set lo up && hostname image && exec chroot --userspec="$1" "$0" /bin/sh -c "$2"`
	cmd := exec.CommandContext(ctx, "unshare", "--net", "--uts", "--pid", "--mount", "--fork", "--kill-child", "sh", "-c", script, root, user, command)
	cmd.Env = i.config.Env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if ctx.Err() == context.DeadlineExceeded {
		err = fmt.Errorf("it did not end within %s", limit)
	}
	return out.Bytes(), err
}

// unpack lays an image's layers over each other.
func (b *Builder) unpack(i *Built, root string) error {
	for _, l := range i.Layers {
		r, err := l.Uncompressed()
		if err != nil {
			return err
		}
		err = untar(r, root)
		if err := errors.Join(err, r.Close()); err != nil {
			return err
		}
	}
	for _, d := range []string{"proc", "dev", "sys"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return err
		}
	}
	for name, minor := range map[string]uint32{"null": 3, "zero": 5, "random": 8, "urandom": 9} {
		file := filepath.Join(root, "dev", name)
		if err := unix.Mknod(file, unix.S_IFCHR|0o666, int(unix.Mkdev(1, minor))); err != nil {
			return err
		}
		if err := os.Chmod(file, 0o666); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(root, "etc", "hosts"), []byte("127.0.0.1 localhost image\n"), 0o644); err != nil {
		return err
	}
	return os.Symlink("/proc/self/fd", filepath.Join(root, "dev", "fd"))
}

func untar(r io.Reader, root string) error {
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		// Through links in the image, such as the merged /usr's.
		file := filepath.Join(root, h.Name)
		if i, err := os.Lstat(file); err == nil && (!i.IsDir() || h.Typeflag != tar.TypeDir) {
			if err := os.RemoveAll(file); err != nil {
				return err
			}
		}
		switch h.Typeflag {
		case tar.TypeDir:
			if err = os.Mkdir(file, 0o755); errors.Is(err, fs.ErrExist) {
				err = nil
			}
		case tar.TypeSymlink:
			err = os.Symlink(h.Linkname, file)
		case tar.TypeLink:
			err = os.Link(filepath.Join(root, h.Linkname), file)
		default:
			err = write(file, tr)
		}
		if err != nil {
			return err
		}
		if err := os.Lchown(file, h.Uid, h.Gid); err != nil {
			return err
		}
		if h.Typeflag != tar.TypeSymlink {
			if err := unix.Chmod(file, uint32(h.Mode)); err != nil {
				return err
			}
		}
		at := []unix.Timeval{unix.NsecToTimeval(h.ModTime.UnixNano()), unix.NsecToTimeval(h.ModTime.UnixNano())}
		if err := unix.Lutimes(file, at); err != nil {
			return err
		}
	}
}

func write(file string, r io.Reader) error {
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, r)
	return errors.Join(err, out.Close())
}
