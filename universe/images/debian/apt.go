// Package debian takes packages from Debian with the machine's own apt: its
// sources, its keys, its proxies; but with a state of its own, in which nothing
// is installed. Packages are unpacked, their scripts never run.
package debian

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"dcos.example/dcos/universe/images/lock"
	"dcos.example/dcos/universe/images/store"
)

// Source is Debian, as this machine sees it.
type Source struct {
	dir   string
	files *store.Store
	flags []string

	mu    sync.Mutex
	fresh bool // the lists are of this run
}

// listsAge is how old package lists may be before they are fetched again.
const listsAge = 12 * time.Hour

// pins leaves only what Debian itself publishes, whatever else the machine uses.
const pins = `Package: *
Pin: release o=Debian
Pin-Priority: 500

Package: *
Pin: release o=*
Pin-Priority: -1
`

// New returns a source that keeps its state in dir. Flags are further options
// of apt's, for tests.
func New(dir string, files *store.Store, flags ...string) (*Source, error) {
	for _, sub := range []string{"lists/partial", "archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	for name, text := range map[string]string{"status": "", "preferences": pins} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	return &Source{dir: dir, files: files, flags: flags}, nil
}

// Failure is what apt said when it failed.
type Failure struct{ Said string }

func (f *Failure) Error() string {
	return fmt.Sprintf("apt-get: %s", strings.ReplaceAll(f.Said, "\n", "; "))
}

func (s *Source) apt(ctx context.Context, dir string, args ...string) ([]byte, error) {
	base := []string{
		"-o", "Dir::State=" + s.dir, "-o", "Dir::State::lists=" + filepath.Join(s.dir, "lists"),
		"-o", "Dir::State::status=" + filepath.Join(s.dir, "status"), "-o", "Dir::Cache=" + s.dir,
		"-o", "Dir::Etc::preferences=" + filepath.Join(s.dir, "preferences"), "-o", "Dir::Etc::preferencesparts=-",
		"-o", "APT::Architecture=amd64", "-o", "APT::Architectures=amd64", "-o", "APT::Install-Recommends=0", "-o", "APT::Install-Suggests=0",
		"-o", "Acquire::ForceHash=SHA256", "-o", "Acquire::Languages=none", "-o", "Acquire::Retries=3", "-o", "Acquire::http::Timeout=30",
		"-o", "APT::Sandbox::User=root", "-qq", "-y",
	}
	cmd := exec.CommandContext(ctx, "apt-get", append(append(base, s.flags...), args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	if errors.Is(err, exec.ErrNotFound) {
		return nil, errors.New("apt-get is not on this machine: images are made on Debian 12")
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		text := strings.TrimSpace(said.String())
		if text == "" {
			text = strings.TrimSpace(out.String())
		}
		// What went wrong, without what apt only wonders about.
		lines := slices.DeleteFunc(strings.Split(text, "\n"), func(l string) bool { return !strings.HasPrefix(l, "E: ") })
		if len(lines) > 0 {
			text = strings.Join(lines, "\n")
		}
		return nil, &Failure{text}
	}
	return out.Bytes(), nil
}

// update fetches package lists that are old, or with now in any case, once a
// run. It reports whether it did.
func (s *Source) update(ctx context.Context, now bool) (bool, error) {
	stamp := filepath.Join(s.dir, "updated")
	if s.fresh {
		return false, nil
	}
	if i, err := os.Stat(stamp); err == nil && !now && time.Since(i.ModTime()) < listsAge {
		return false, nil
	}
	if _, err := s.apt(ctx, "", "-o", "APT::Update::Error-Mode=any", "update"); err != nil {
		return false, fmt.Errorf("fetch Debian's package lists (are its mirrors in the apt sources reachable?): %w", err)
	}
	s.fresh = true
	return true, os.WriteFile(stamp, nil, 0o644)
}

// Resolve returns the packages and all that they depend on, by name, without
// recommendations, without the excluded ones, and without what only those need.
func (s *Source) Resolve(ctx context.Context, names, exclude []string) ([]lock.Deb, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.update(ctx, false); err != nil {
		return nil, err
	}
	status, err := s.pretend(ctx, exclude)
	if err != nil {
		return nil, err
	}
	defer os.Remove(status)
	out, err := s.apt(ctx, "", append([]string{"-o", "Dir::State::status=" + status, "--print-uris", "install"}, names...)...)
	if err != nil {
		return nil, fmt.Errorf("resolve Debian packages %s: %w", strings.Join(names, " "), err)
	}
	return parse(string(out))
}

// pretend writes a status in which these packages are installed: apt takes
// neither them nor what they depend on.
func (s *Source) pretend(ctx context.Context, names []string) (string, error) {
	var text strings.Builder
	if len(names) > 0 {
		out, err := s.apt(ctx, "", append([]string{"--print-uris", "download"}, names...)...)
		if f := (*Failure)(nil); errors.As(err, &f) {
			// What Debian does not have, nothing can bring along.
			known := slices.DeleteFunc(slices.Clone(names), func(n string) bool {
				return slices.Contains(strings.Split(f.Said, "\n"), "E: Unable to locate package "+n)
			})
			if len(known) < len(names) {
				return s.pretend(ctx, known)
			}
		}
		if err != nil {
			return "", fmt.Errorf("look for the Debian packages to exclude: %w", err)
		}
		debs, err := parse(string(out))
		if err != nil {
			return "", err
		}
		for _, d := range debs {
			fmt.Fprintf(&text, "Package: %s\nStatus: install ok installed\nVersion: %s\nArchitecture: amd64\nMulti-Arch: foreign\nMaintainer: nobody\nDescription: not in this image\n\n", d.Name, d.Version)
		}
	}
	f, err := os.CreateTemp(s.dir, "status-")
	if err != nil {
		return "", err
	}
	_, err = f.WriteString(text.String())
	return f.Name(), errors.Join(err, f.Close())
}

var uriLine = regexp.MustCompile(`^'([^']*)' (\S+) (\d+) SHA256:([0-9a-f]{64})$`)

func parse(out string) ([]lock.Deb, error) {
	var debs []lock.Deb
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "'") {
			continue
		}
		m := uriLine.FindStringSubmatch(line)
		if m == nil {
			return nil, fmt.Errorf("apt prints %q: want an address with a size and a SHA-256", line)
		}
		parts := strings.Split(strings.TrimSuffix(m[2], ".deb"), "_")
		if len(parts) != 3 {
			return nil, fmt.Errorf("apt names a file %q: want name_version_architecture.deb", m[2])
		}
		version, err := url.PathUnescape(parts[1])
		if err != nil {
			return nil, fmt.Errorf("apt names a file %q: %w", m[2], err)
		}
		size, err := strconv.ParseInt(m[3], 10, 64)
		if err != nil {
			return nil, err
		}
		debs = append(debs, lock.Deb{Name: parts[0], Version: version, Arch: parts[2], SHA256: m[4], Size: size})
	}
	slices.SortFunc(debs, func(a, b lock.Deb) int { return strings.Compare(a.Name, b.Name) })
	return debs, nil
}

// Gone is a version that Debian no longer offers.
type Gone struct{ Said string }

func (g *Gone) Error() string { return "Debian no longer offers it: " + g.Said }

// Fetch brings the packages into the store. A version that is offered no more
// is a *Gone, another file than the locked one a *store.Mismatch.
func (s *Source) Fetch(ctx context.Context, debs []lock.Deb) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var args []string
	missing := map[string]lock.Deb{}
	for _, d := range debs {
		if !s.files.Has(d.SHA256) {
			args = append(args, d.Name+"="+d.Version)
			missing[d.Name] = d
		}
	}
	if len(args) == 0 {
		return nil
	}
	if _, err := s.update(ctx, false); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(s.dir, "fetch-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	_, err = s.apt(ctx, dir, append([]string{"download"}, args...)...)
	if gone(err) {
		// Lists of some hours ago may not know it yet.
		if updated, uerr := s.update(ctx, true); uerr != nil {
			return uerr
		} else if updated {
			_, err = s.apt(ctx, dir, append([]string{"download"}, args...)...)
		}
	}
	var f *Failure
	if gone(err) && errors.As(err, &f) {
		return &Gone{f.Said}
	}
	if err != nil {
		return fmt.Errorf("download Debian packages: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil {
		return err
	}
	for _, file := range files {
		name, _, _ := strings.Cut(filepath.Base(file), "_")
		d, ok := missing[name]
		if !ok {
			continue
		}
		if _, err := s.files.Take(file, "Debian package "+d.Name+" "+d.Version, d.SHA256); err != nil {
			return err
		}
		delete(missing, name)
	}
	for name := range missing {
		return fmt.Errorf("download Debian packages: apt gave no file of %s", name)
	}
	return nil
}

func gone(err error) bool {
	var f *Failure
	return errors.As(err, &f) && (strings.Contains(f.Said, "was not found") || strings.Contains(f.Said, "Unable to locate package") ||
		strings.Contains(f.Said, "no installation candidate") || strings.Contains(f.Said, "Can't find a source to download") ||
		strings.Contains(f.Said, "404  Not Found"))
}
