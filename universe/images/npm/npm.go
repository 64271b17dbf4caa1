// Package npm takes packages from npm's registry with the machine's own npm.
package npm

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

// Source is npm's registry, as this machine sees it.
type Source struct{ dir string }

// New returns a source that keeps its state in dir.
func New(dir string) (*Source, error) { return &Source{dir}, os.MkdirAll(dir, 0o755) }

// Resolve returns npm's own lock of the packages (name@version) and all they
// need.
func (s *Source) Resolve(ctx context.Context, packages []string) (json.RawMessage, error) {
	dir, err := s.project(packages)
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := s.npm(ctx, dir, "install", "--package-lock-only"); err != nil {
		return nil, fmt.Errorf("resolve npm packages %s: %w", strings.Join(packages, " "), err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "package-lock.json"))
	if err != nil {
		return nil, err
	}
	return withoutAddresses(b)
}

// withoutAddresses drops where packages came from: integrity says what they
// are, and each machine knows its own registry.
func withoutAddresses(b []byte) (json.RawMessage, error) {
	var l map[string]any
	if err := json.Unmarshal(b, &l); err != nil {
		return nil, err
	}
	packages, _ := l["packages"].(map[string]any)
	for _, p := range packages {
		if p, ok := p.(map[string]any); ok {
			delete(p, "resolved")
		}
	}
	return json.Marshal(l)
}

// Install returns a folder, which the caller removes, whose node_modules holds
// what the lock names; npm checks each package's integrity. No script of a
// package runs.
func (s *Source) Install(ctx context.Context, packages []string, locked json.RawMessage) (string, error) {
	dir, err := s.project(packages)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "package-lock.json"), locked, 0o644); err != nil {
		return dir, err
	}
	if err := s.npm(ctx, dir, "ci", "--ignore-scripts", "--omit=dev"); err != nil {
		return dir, fmt.Errorf("install npm packages: %w", err)
	}
	// npm's note of what it did; nothing reads it in an image.
	return dir, os.RemoveAll(filepath.Join(dir, "node_modules", ".package-lock.json"))
}

// Packages returns the names and versions in a lock.
func (s *Source) Packages(l *lock.NPM) map[string]string {
	var doc struct {
		Packages map[string]struct{ Version string }
	}
	found := map[string]string{}
	if json.Unmarshal(l.Lock, &doc) != nil {
		return found
	}
	for at, p := range doc.Packages {
		if i := strings.LastIndex(at, "node_modules/"); i >= 0 {
			found[at[i+len("node_modules/"):]] = p.Version
		}
	}
	return found
}

func (s *Source) project(packages []string) (string, error) {
	deps := map[string]string{}
	for _, p := range packages {
		at := strings.LastIndex(p, "@")
		deps[p[:at]] = p[at+1:]
	}
	b, err := json.Marshal(map[string]any{"name": "image", "version": "1.0.0", "private": true, "dependencies": deps})
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(s.dir, "project-")
	if err != nil {
		return "", err
	}
	return dir, os.WriteFile(filepath.Join(dir, "package.json"), b, 0o644)
}

func (s *Source) npm(ctx context.Context, dir string, args ...string) error {
	cmd := exec.CommandContext(ctx, "npm", append(args, "--no-audit", "--no-fund", "--loglevel=error", "--cache", filepath.Join(s.dir, "cache"))...)
	cmd.Dir = dir
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	err := cmd.Run()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, exec.ErrNotFound):
		return errors.New("npm is not on this machine: install Debian's package npm")
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return errors.New(strings.TrimSpace(said.String()))
}
