// Package golang builds static programs, from modules of the Go module proxy or
// from this repository.
package golang

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"dcos.example/dcos/universe/images/lock"
)

// Source builds with the machine's Go, whose checksum database vouches for
// modules.
type Source struct{ dir, root string }

// New returns a source that keeps its state in dir and takes this repository's
// packages from root.
func New(dir, root string) (*Source, error) {
	return &Source{dir, root}, os.MkdirAll(dir, 0o755)
}

// Program is what to build.
type Program struct{ Module, Package, Tags, LDFlags string }

// Resolve returns a module's sum.
func (s *Source) Resolve(ctx context.Context, module string) (lock.Go, error) {
	dir, err := s.module()
	if err != nil {
		return lock.Go{}, err
	}
	defer os.RemoveAll(dir)
	out, err := s.run(ctx, dir, "mod", "download", "-json", module)
	var said struct{ Sum, Error string }
	if json.Unmarshal(out, &said) == nil && said.Error != "" {
		return lock.Go{}, fmt.Errorf("resolve Go module %s: %s", module, said.Error)
	}
	if err != nil {
		return lock.Go{}, fmt.Errorf("resolve Go module %s: %w", module, err)
	}
	return lock.Go{Module: module, Sum: said.Sum}, nil
}

// Build builds a program into file. With a lock, the module must have its sum.
func (s *Source) Build(ctx context.Context, p Program, locked *lock.Go, file string) error {
	file, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	dir, pkg := s.root, p.Package
	if p.Module != "" {
		if locked != nil {
			got, err := s.Resolve(ctx, p.Module)
			if err != nil {
				return err
			}
			if got.Sum != locked.Sum {
				return fmt.Errorf("module %s has sum %s, and the lock says %s: look into why; only if the new one is right, resolve again with -update-locks", p.Module, got.Sum, locked.Sum)
			}
		}
		if dir, err = s.module(); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		if pkg == "" {
			pkg, _, _ = strings.Cut(p.Module, "@")
		}
		// In a module of its own: replacements in the program's do not count, as
		// with everybody who depends on it.
		if _, err := s.run(ctx, dir, "get", p.Module); err != nil {
			return fmt.Errorf("fetch Go module %s: %w", p.Module, err)
		}
	}
	args := []string{"build", "-trimpath", "-buildvcs=false", "-o", file, "-ldflags", strings.TrimSpace("-s -w -buildid= " + p.LDFlags)}
	if p.Tags != "" {
		args = append(args, "-tags", p.Tags)
	}
	if p.Module != "" {
		args = append(args, "-mod=mod")
	}
	if _, err := s.run(ctx, dir, append(args, pkg)...); err != nil {
		return fmt.Errorf("build %s: %w", pkg, err)
	}
	return nil
}

func (s *Source) module() (string, error) {
	dir, err := os.MkdirTemp(s.dir, "module-")
	if err != nil {
		return "", err
	}
	return dir, os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module image\n\ngo 1.26\n"), 0o644)
}

func (s *Source) run(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOFLAGS=", "GOWORK=off", "GOTOOLCHAIN=local")
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if errors.Is(err, exec.ErrNotFound) {
		return nil, errors.New("go is not on this machine")
	}
	if err != nil {
		if ctx.Err() != nil {
			return out, ctx.Err()
		}
		return out, errors.New(strings.TrimSpace(said.String()))
	}
	return out, nil
}
