// Package secret keeps the files that tasks are given by value: in memory, one
// directory per container, for root alone, until the container is gone. Whom a
// file belongs to is settled when the container starts.
package secret

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"dcos.example/dcos/runtime/fault"
)

// Store is a directory of secrets. Its zero value is not usable.
type Store struct{ Dir string }

// size bounds what all secrets of a host take, in tmpfs's terms.
const size = "size=64m"

// ensure makes the directory, on a file system in memory.
func (s Store) ensure() error {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(s.Dir, &st); err != nil {
		return err
	}
	if st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC {
		return nil
	}
	return unix.Mount("dcos-secrets", s.Dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=700,"+size)
}

// Write puts a container's secrets into files and returns their paths, in the
// same order. What the container had before is gone.
func (s Store) Write(container string, secrets [][]byte) (files []string, err error) {
	const op = "write secrets"
	if err := s.ensure(); err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	if err := s.Remove(container); err != nil {
		return nil, err
	}
	dir := filepath.Join(s.Dir, container)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	for i, b := range secrets {
		file := filepath.Join(dir, strconv.Itoa(i))
		if err := os.WriteFile(file, b, 0o440); err != nil {
			return nil, fault.New(op, fault.Internal, errors.Join(err, s.Remove(container)))
		}
		files = append(files, file)
	}
	return files, nil
}

// Remove removes a container's secrets. It may be repeated.
func (s Store) Remove(container string) error {
	if err := os.RemoveAll(filepath.Join(s.Dir, container)); err != nil {
		return fault.New("remove secrets", fault.Internal, err)
	}
	return nil
}

// Containers returns the containers that have secrets.
func (s Store) Containers() ([]string, error) {
	entries, err := os.ReadDir(s.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New("list secrets", fault.Internal, err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out, nil
}
