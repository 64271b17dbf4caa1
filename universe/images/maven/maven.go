// Package maven takes jars from Maven's repositories with the machine's own
// Maven: its settings, its mirrors, and its way to resolve what depends on what.
package maven

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"dcos.example/dcos/universe/images/lock"
	"dcos.example/dcos/universe/images/store"
)

// plugin resolves and copies.
const plugin = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:"

// Source is Maven's repositories, as this machine sees them.
type Source struct {
	dir   string // a local repository, and scratch
	files *store.Store
	mu    sync.Mutex // one Maven at a time in a local repository
}

// New returns a source that keeps its state in dir.
func New(dir string, files *store.Store) (*Source, error) {
	if err := os.MkdirAll(filepath.Join(dir, "none"), 0o755); err != nil {
		return nil, err
	}
	none := fmt.Sprintf(settings, "file://"+filepath.Join(dir, "none"))
	return &Source{dir: dir, files: files}, os.WriteFile(filepath.Join(dir, "settings.xml"), []byte(none), 0o644)
}

// settings stand below the user's own. Projects name repositories of theirs,
// mirrors and snapshots, which are not asked: the central one has what is
// released.
const settings = `<settings><mirrors><mirror><id>none</id><mirrorOf>*,!central</mirrorOf><url>%s</url></mirror></mirrors></settings>
`

// Set is what is resolved together.
type Set struct{ Artifacts, Exclude, Managed []string }

// project is the part of a pom.xml that is used here.
type project struct {
	XMLName      xml.Name     `xml:"project"`
	ModelVersion string       `xml:"modelVersion"`
	GroupID      string       `xml:"groupId"`
	ArtifactID   string       `xml:"artifactId"`
	Version      string       `xml:"version"`
	Packaging    string       `xml:"packaging"`
	Managed      []dependency `xml:"dependencyManagement>dependencies>dependency,omitempty"`
	Dependencies []dependency `xml:"dependencies>dependency,omitempty"`
	Plugin       *copying     `xml:"build>plugins>plugin"`
}

// copying is the configuration of the plugin that copies artifacts.
type copying struct {
	GroupID    string       `xml:"groupId"`
	ArtifactID string       `xml:"artifactId"`
	Items      []dependency `xml:"configuration>artifactItems>artifactItem"`
}

type dependency struct {
	GroupID    string      `xml:"groupId"`
	ArtifactID string      `xml:"artifactId"`
	Version    string      `xml:"version"`
	Type       string      `xml:"type,omitempty"`
	Classifier string      `xml:"classifier,omitempty"`
	Exclusions *exclusions `xml:"exclusions"`
}

type exclusions struct {
	List []exclusion `xml:"exclusion"`
}

type exclusion struct {
	GroupID    string `xml:"groupId"`
	ArtifactID string `xml:"artifactId"`
}

func newProject() project {
	return project{ModelVersion: "4.0.0", GroupID: "image", ArtifactID: "image", Version: "1", Packaging: "pom"}
}

// coordinate reads group:artifact[:type[:classifier]]:version.
func coordinate(s string) dependency {
	p := strings.Split(s, ":")
	d := dependency{GroupID: p[0], ArtifactID: p[1], Version: p[len(p)-1]}
	if len(p) > 3 {
		d.Type = p[2]
	}
	if len(p) > 4 {
		d.Classifier = p[3]
	}
	return d
}

// Resolve returns what the set and all it needs at run time is, in the order of
// the class path, and brings it into the store.
func (s *Source) Resolve(ctx context.Context, set Set) ([]lock.Jar, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := newProject()
	var out *exclusions
	for _, e := range set.Exclude {
		g, a, _ := strings.Cut(e, ":")
		if out == nil {
			out = &exclusions{}
		}
		out.List = append(out.List, exclusion{g, a})
	}
	for _, a := range set.Artifacts {
		d := coordinate(a)
		d.Exclusions = out
		p.Dependencies = append(p.Dependencies, d)
	}
	for _, m := range set.Managed {
		d := coordinate(m)
		d.Exclusions = out
		p.Managed = append(p.Managed, d)
	}
	dir, err := s.project(p)
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	list := filepath.Join(dir, "list")
	err = s.mvn(ctx, dir, plugin+"list", "-DincludeScope=runtime", "-DoutputAbsoluteArtifactFilename=true", "-DoutputFile="+list)
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", strings.Join(set.Artifacts, " "), err)
	}
	b, err := os.ReadFile(list)
	if err != nil {
		return nil, err
	}
	var jars []lock.Jar
	for line := range strings.Lines(string(b)) {
		j, file, ok := parse(line)
		if !ok {
			continue
		}
		if j.SHA256, err = s.files.Take(file, j.String(), ""); err != nil {
			return nil, err
		}
		jars = append(jars, j)
	}
	if len(jars) == 0 {
		return nil, fmt.Errorf("resolve %s: Maven named no file", strings.Join(set.Artifacts, " "))
	}
	return jars, nil
}

var colours = regexp.MustCompile("\x1b\\[[0-9;]*m")

// parse reads g:a:type[:classifier]:version:scope:/file -- module …
func parse(line string) (lock.Jar, string, bool) {
	line, _, _ = strings.Cut(strings.TrimSpace(colours.ReplaceAllString(line, "")), " ")
	at := strings.Index(line, ":/")
	if at < 0 {
		return lock.Jar{}, "", false
	}
	p := strings.Split(line[:at], ":")
	if len(p) < 5 {
		return lock.Jar{}, "", false
	}
	j := lock.Jar{Group: p[0], Artifact: p[1], Version: p[len(p)-2]}
	if p[2] != "jar" {
		j.Type = p[2]
	}
	if len(p) > 5 {
		j.Classifier = p[3]
	}
	return j, line[at+1:], true
}

// Fetch brings the artifacts into the store, and nothing besides.
func (s *Source) Fetch(ctx context.Context, jars []lock.Jar) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := newProject()
	p.Plugin = &copying{GroupID: "org.apache.maven.plugins", ArtifactID: "maven-dependency-plugin"}
	var missing []lock.Jar
	for _, j := range jars {
		if !s.files.Has(j.SHA256) {
			missing = append(missing, j)
			p.Plugin.Items = append(p.Plugin.Items, dependency{GroupID: j.Group, ArtifactID: j.Artifact, Version: j.Version, Type: j.Type, Classifier: j.Classifier})
		}
	}
	if len(missing) == 0 {
		return nil
	}
	dir, err := s.project(p)
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := s.mvn(ctx, dir, plugin+"copy", "-DoutputDirectory="+filepath.Join(dir, "out")); err != nil {
		return fmt.Errorf("download from Maven's repositories: %w", err)
	}
	for _, j := range missing {
		file := filepath.Join(s.dir, "repository", strings.ReplaceAll(j.Group, ".", "/"), j.Artifact, j.Version, j.Base())
		if _, err := s.files.Take(file, j.String(), j.SHA256); err != nil {
			return err
		}
	}
	return nil
}

func (s *Source) project(p project) (string, error) {
	b, err := xml.MarshalIndent(p, "", " ")
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(s.dir, "project-")
	if err != nil {
		return "", err
	}
	return dir, os.WriteFile(filepath.Join(dir, "pom.xml"), b, 0o644)
}

func (s *Source) mvn(ctx context.Context, dir string, args ...string) error {
	cmd := exec.CommandContext(ctx, "mvn", append([]string{"-B", "-ntp", "-q", "-C", "-Dstyle.color=never",
		"-gs", filepath.Join(s.dir, "settings.xml"), "-Dmaven.repo.local=" + filepath.Join(s.dir, "repository"), "-Dmaven.artifact.threads=8"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "MAVEN_OPTS=-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	err := cmd.Run()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, exec.ErrNotFound):
		return errors.New("mvn is not on this machine: install Debian's package maven (ci/setup universe does)")
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return errors.New(explain(said.String()))
}

var (
	absent  = regexp.MustCompile(`Could not find artifact (\S+)`)
	offline = regexp.MustCompile(`Could not transfer artifact (\S+) from/to (\S+) [^:]*: *([^\n]*?)(?: -> \[Help|\n|$)`)
)

// explain tells in a line what Maven tells in pages.
func explain(said string) string {
	var lines []string
	add := func(l string) {
		if !slices.Contains(lines, l) {
			lines = append(lines, l)
		}
	}
	for _, m := range absent.FindAllStringSubmatch(said, -1) {
		add("no repository of this machine's Maven has " + m[1] + ": check group, artifact and version")
	}
	if len(lines) == 0 {
		for _, m := range offline.FindAllStringSubmatch(said, -1) {
			add("repository " + m[2] + " does not give " + m[1] + ": " + m[3])
		}
	}
	if len(lines) == 0 {
		said, _, _ = strings.Cut(colours.ReplaceAllString(said, ""), "-> [Help 1]")
		return strings.TrimSpace(said)
	}
	return strings.Join(lines, "; ")
}
