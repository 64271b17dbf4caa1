// Package disk makes the disk of a lab host and puts the host's root together
// from it: an overlay over the root file system that all hosts share, with /var
// on the disk itself, because a container's snapshots cannot lie on an overlay.
// All that a host writes is on its disk.
//
// Everything happens in the working directory, the host's own, and in the
// mount namespace of the caller: with its last process mounts and loop device
// go.
package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"dcos.example/dcos/providers/local/boot"
)

// Names in the host's directory.
const (
	Image = "disk.img"
	Root  = "root" // what the host sees as /
)

const (
	mounted = "disk"
	made    = "disk/made" // says that the disk is complete
)

// Attach puts the disk on a loop device, and makes it of so many MiB if there
// is none: a sparse file with an ext4 file system. It has no journal: the
// machine keeps what a killed host wrote, and writes are then the host's own,
// which is what bounds on them need.
func Attach(ctx context.Context, mib int64) (*os.File, error) {
	if err := create(ctx, mib); err != nil {
		return nil, err
	}
	loop, err := boot.Attach(Image)
	if err != nil {
		return nil, fmt.Errorf("attach disk: %w", err)
	}
	return loop, nil
}

func create(ctx context.Context, mib int64) error {
	if _, err := os.Stat(Image); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	const tmp = Image + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(mib<<20), f.Close()); err != nil {
		return fmt.Errorf("make disk of %d MiB: %w", mib, err)
	}
	out, err := exec.CommandContext(ctx, "mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal,^resize_inode",
		"-E", "lazy_itable_init=1,nodiscard", tmp).CombinedOutput()
	if err != nil {
		return fmt.Errorf("mkfs.ext4: %w: %s", err, bytes.TrimSpace(out))
	}
	return os.Rename(tmp, Image)
}

// Mount mounts the disk on the device dev over base, and lets personalise write
// what differs from host to host below Root, once in the disk's life.
func Mount(ctx context.Context, dev, base string, personalise func(root string) error) error {
	for _, d := range []string{mounted, Root} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount(dev, mounted, "ext4", unix.MS_NOATIME, ""); err != nil {
		return fmt.Errorf("mount disk: %w", err)
	}
	_, err := os.Stat(made)
	fresh := errors.Is(err, fs.ErrNotExist)
	if err != nil && !fresh {
		return err
	}
	if fresh {
		if err := fill(ctx, base); err != nil {
			return err
		}
	}
	// Relative paths: a colon or comma in the directory's name would be read as
	// part of the options.
	if err := unix.Mount("overlay", Root, "overlay", 0, "lowerdir="+base+",upperdir=disk/upper,workdir=disk/work"); err != nil {
		return fmt.Errorf("mount root: %w", err)
	}
	if err := unix.Mount("disk/var", Root+"/var", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount /var: %w", err)
	}
	if !fresh {
		return nil
	}
	if err := personalise(Root); err != nil {
		return err
	}
	return os.WriteFile(made, nil, 0o600)
}

// fill makes the directories of a fresh disk, or of one whose first boot was
// interrupted.
func fill(ctx context.Context, base string) error {
	for _, d := range []string{"disk/upper", "disk/work", "disk/var"} {
		if err := os.RemoveAll(d); err != nil {
			return err
		}
	}
	for _, d := range []string{"disk/upper", "disk/work"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	if out, err := exec.CommandContext(ctx, "cp", "-a", filepath.Join(base, "var"), "disk/var").CombinedOutput(); err != nil {
		return fmt.Errorf("copy /var: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// File is a file of a host's own.
type File struct {
	Path    string // below the root
	Content string
	From    string // copied instead of Content
	Secret  bool   // for its owner alone, who is that of the directory
}

// Write writes the file below root. Its directory must exist.
func (f File) Write(root string) error {
	content := []byte(f.Content)
	if f.From != "" {
		var err error
		if content, err = os.ReadFile(f.From); err != nil {
			return err
		}
	}
	mode := fs.FileMode(0o644)
	if f.Secret {
		mode = 0o600
	}
	path := filepath.Join(root, f.Path)
	if err := os.WriteFile(path, content, mode); err != nil {
		return err
	}
	var dir unix.Stat_t
	if err := unix.Stat(filepath.Dir(path), &dir); err != nil {
		return err
	}
	return os.Chown(path, int(dir.Uid), int(dir.Gid))
}
