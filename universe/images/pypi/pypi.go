// Package pypi takes wheels from the Python package index with the machine's
// own pip, and unpacks them as pip would install them.
package pypi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"dcos.example/dcos/universe/images/lock"
	"dcos.example/dcos/universe/images/store"
)

// Source is the Python package index, as this machine sees it.
type Source struct {
	dir   string
	files *store.Store
	mu    sync.Mutex
}

// New returns a source that keeps its state in dir.
func New(dir string, files *store.Store) (*Source, error) {
	return &Source{dir: dir, files: files}, os.MkdirAll(dir, 0o755)
}

// platforms are those whose wheels run on the images' Debian.
var platforms = []string{"manylinux_2_36_x86_64", "manylinux_2_35_x86_64", "manylinux_2_34_x86_64", "manylinux_2_31_x86_64", "manylinux_2_28_x86_64",
	"manylinux_2_27_x86_64", "manylinux_2_24_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64", "any"}

// Resolve returns the wheels of packages and all they need, and the source
// archives of sources, for a version of Python.
func (s *Source) Resolve(ctx context.Context, python string, packages, sources []string) ([]lock.Wheel, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	dir, err := os.MkdirTemp(s.dir, "resolve-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if len(packages) > 0 {
		args := append([]string{"download", "--only-binary", ":all:", "--python-version", python, "--implementation", "cp", "--dest", dir}, platformFlags()...)
		if err := s.pip(ctx, append(args, packages...)...); err != nil {
			return nil, fmt.Errorf("resolve Python packages %s: %w", strings.Join(packages, " "), err)
		}
	}
	if len(sources) > 0 {
		args := []string{"download", "--no-deps", "--dest", dir}
		for _, p := range sources {
			name, _, _ := strings.Cut(p, "==")
			args = append(args, "--no-binary", name)
		}
		if err := s.pip(ctx, append(args, sources...)...); err != nil {
			return nil, fmt.Errorf("resolve Python packages %s: %w", strings.Join(sources, " "), err)
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var found []lock.Wheel
	for _, f := range files {
		w, err := named(f.Name())
		if err != nil {
			return nil, err
		}
		if w.SHA256, err = s.files.Take(filepath.Join(dir, f.Name()), f.Name(), ""); err != nil {
			return nil, err
		}
		found = append(found, w)
	}
	slices.SortFunc(found, func(a, b lock.Wheel) int { return strings.Compare(a.File, b.File) })
	return found, nil
}

func platformFlags() []string {
	var flags []string
	for _, p := range platforms {
		flags = append(flags, "--platform", p)
	}
	return flags
}

// named reads name and version from a file's name.
func named(file string) (lock.Wheel, error) {
	stem, isWheel := strings.CutSuffix(file, ".whl")
	if isWheel {
		p := strings.Split(stem, "-")
		if len(p) < 5 {
			return lock.Wheel{}, fmt.Errorf("pip gave %s: want a wheel's name", file)
		}
		return lock.Wheel{Name: p[0], Version: p[1], File: file}, nil
	}
	stem, ok := strings.CutSuffix(file, ".tar.gz")
	at := strings.LastIndex(stem, "-")
	if !ok || at < 0 {
		return lock.Wheel{}, fmt.Errorf("pip gave %s: want a wheel or a .tar.gz", file)
	}
	return lock.Wheel{Name: stem[:at], Version: stem[at+1:], File: file}, nil
}

// Fetch brings the files into the store.
func (s *Source) Fetch(ctx context.Context, python string, files []lock.Wheel) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var wheels, archives bytes.Buffer
	var fromSource []string
	var missing []lock.Wheel
	for _, w := range files {
		if s.files.Has(w.SHA256) {
			continue
		}
		missing = append(missing, w)
		to := &wheels
		if strings.HasSuffix(w.File, ".tar.gz") {
			to = &archives
			fromSource = append(fromSource, "--no-binary", w.Name)
		}
		fmt.Fprintf(to, "%s==%s --hash=sha256:%s\n", w.Name, w.Version, w.SHA256)
	}
	dir, err := os.MkdirTemp(s.dir, "fetch-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, k := range []struct {
		list *bytes.Buffer
		args []string
	}{
		{&wheels, append([]string{"--only-binary", ":all:", "--python-version", python, "--implementation", "cp"}, platformFlags()...)},
		{&archives, fromSource},
	} {
		if k.list.Len() == 0 {
			continue
		}
		list := filepath.Join(dir, "requirements.txt")
		if err := os.WriteFile(list, k.list.Bytes(), 0o644); err != nil {
			return err
		}
		args := append([]string{"download", "--no-deps", "--require-hashes", "--dest", dir, "-r", list}, k.args...)
		if err := s.pip(ctx, args...); err != nil {
			return fmt.Errorf("download Python packages: %w", err)
		}
	}
	for _, w := range missing {
		if _, err := s.files.Take(filepath.Join(dir, w.File), w.File, w.SHA256); err != nil {
			return err
		}
	}
	return nil
}

func (s *Source) pip(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "python3", append([]string{"-m", "pip", "--disable-pip-version-check", "--quiet", "--cache-dir", filepath.Join(s.dir, "cache")}, args...)...)
	cmd.Dir = s.dir
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	err := cmd.Run()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, exec.ErrNotFound), strings.Contains(said.String(), "No module named pip"):
		return errors.New("pip is not on this machine: install Debian's package python3-pip (ci/setup universe does)")
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return errors.New(strings.TrimSpace(said.String()))
}
