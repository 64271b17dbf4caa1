// Package recipe reads image.yaml: what an image is made of, before anything is
// resolved. It tells all that is wrong with a file at once, with its line.
package recipe

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Scratch is the base that holds nothing.
const Scratch = "scratch"

// Recipe is an image.yaml, or the description of a base.
type Recipe struct {
	Name        string `yaml:"name"`
	Version     string `yaml:"version"` // the tag: upstream's version, "-", our release
	From        string `yaml:"from"`    // a base's name, or scratch
	Description string `yaml:"description"`
	License     string `yaml:"license"` // SPDX expression
	Website     string `yaml:"website"`

	User        User              `yaml:"user"`
	Debian      Debian            `yaml:"debian"`
	Maven       []Maven           `yaml:"maven"`
	PyPI        PyPI              `yaml:"pypi"`
	NPM         NPM               `yaml:"npm"`
	Go          []Program         `yaml:"go"`
	Files       []File            `yaml:"files"`
	Directories []Directory       `yaml:"directories"`
	Links       map[string]string `yaml:"links"` // path → target
	Prune       []string          `yaml:"prune"` // what of the packages stays out: path.Match patterns, whole trees

	Env        map[string]string `yaml:"env"`
	Entrypoint []string          `yaml:"entrypoint"`
	Command    []string          `yaml:"command"`
	WorkDir    string            `yaml:"workdir"`
	Ports      []string          `yaml:"ports"` // "9092/tcp"
	Health     *Health           `yaml:"health"`
	Checks     []Check           `yaml:"checks"`

	path string // of the file
}

// User is who runs in a container of the image, and owns what says so.
type User struct {
	Name string `yaml:"name"`
	UID  int    `yaml:"uid"`
	GID  int    `yaml:"gid"` // 0: that of UID
	Home string `yaml:"home"`
}

// Debian lists packages; their dependencies come along.
type Debian struct {
	Packages []string `yaml:"packages"`
	Exclude  []string `yaml:"exclude"` // dependencies that the image does without
}

// Maven is one set of jars, resolved together.
type Maven struct {
	Into      string   `yaml:"into"`
	Artifacts []string `yaml:"artifacts"` // group:artifact[:type[:classifier]]:version
	Exclude   []string `yaml:"exclude"`   // group:artifact, also with *
	Omit      []string `yaml:"omit"`      // patterns of file names, e.g. of other platforms
	Unpack    []string `yaml:"unpack"`    // folders in the jars: they are taken out, and the jars left
	Managed   []string `yaml:"managed"`   // group:artifact:version that wins over what dependencies ask for
}

// PyPI lists requirements; they come as wheels.
type PyPI struct {
	Packages []string `yaml:"packages"` // name==version
	Python   string   `yaml:"python"`   // version of the interpreter in the image, e.g. "3.11"
	Sources  []string `yaml:"sources"`  // name==version that has no wheel: its package folder is taken from the source archive
}

// NPM lists packages, installed into one node_modules.
type NPM struct {
	Packages []string `yaml:"packages"` // name@version
	Into     string   `yaml:"into"`
}

// Program is a static Go program.
type Program struct {
	Module  string `yaml:"module"`  // module@version; empty: of this repository
	Package string `yaml:"package"` // import path; empty: the module's
	Path    string `yaml:"path"`    // in the image
	Tags    string `yaml:"tags"`
	LDFlags string `yaml:"ldflags"`
}

// File is a script or a configuration: either its text, or a file beside the
// recipe.
type File struct {
	Path   string `yaml:"path"`
	Text   string `yaml:"text"`
	Source string `yaml:"source"`
	Mode   int64  `yaml:"mode"` // 0: 0644, or 0755 when it starts with #!
	Owned  bool   `yaml:"owned"`
}

// Directory is made empty.
type Directory struct {
	Path  string `yaml:"path"`
	Mode  int64  `yaml:"mode"`  // 0: 0755
	Owned bool   `yaml:"owned"` // by the image's user
}

// Health is how to ask a container whether it is well.
type Health struct {
	Command  string        `yaml:"command"` // for /bin/sh -c
	Interval time.Duration `yaml:"interval"`
	Timeout  time.Duration `yaml:"timeout"`
	Grace    time.Duration `yaml:"grace"`
	Retries  int           `yaml:"retries"`
}

// Check proves an image: a command for /bin/sh -c, run in it without a network
// but loopback, as the image's user.
type Check struct {
	Run     string        `yaml:"run"`
	Expect  string        `yaml:"expect"`  // what the output must contain
	Timeout time.Duration `yaml:"timeout"` // 0: five minutes
}

// Path returns the recipe's file.
func (r *Recipe) Path() string { return r.path }

// Dir returns the folder that sources are relative to.
func (r *Recipe) Dir() string { return filepath.Dir(r.path) }

// Lock returns the file that holds what the recipe resolved to.
func (r *Recipe) Lock() string { return strings.TrimSuffix(r.path, ".yaml") + ".lock.json" }

// Read reads a recipe. Its error joins one for each problem, each with file and
// line.
func Read(file string) (*Recipe, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	r := &Recipe{path: file}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	if err := dec.Decode(r); err != nil {
		var many *yaml.TypeError
		if !errors.As(err, &many) {
			return nil, fmt.Errorf("%s: %s", file, strings.TrimPrefix(err.Error(), "yaml: "))
		}
		var errs []error
		for _, e := range many.Errors {
			errs = append(errs, fmt.Errorf("%s:%s", file, strings.TrimPrefix(e, "line ")))
		}
		return nil, errors.Join(errs...)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	c := checker{file: file, doc: &doc}
	c.recipe(r)
	return r, errors.Join(c.errs...)
}

type checker struct {
	file string
	doc  *yaml.Node
	errs []error
}

// fault adds a problem at a place: keys and, for lists, indices.
func (c *checker) fault(at []any, format string, args ...any) {
	n, line := c.doc, 1
	if n.Kind == yaml.DocumentNode && len(n.Content) > 0 {
		n = n.Content[0]
	}
	for _, step := range at {
		var next *yaml.Node
		switch step := step.(type) {
		case string:
			for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
				if n.Content[i].Value == step {
					next, line = n.Content[i+1], n.Content[i].Line
				}
			}
		case int:
			if n.Kind == yaml.SequenceNode && step < len(n.Content) {
				next = n.Content[step]
				line = next.Line
			}
		}
		if next == nil {
			break
		}
		n = next
	}
	c.errs = append(c.errs, fmt.Errorf("%s:%d: %s", c.file, line, fmt.Sprintf(format, args...)))
}

var (
	nameForm     = regexp.MustCompile(`^[a-z][a-z0-9-]*[a-z0-9]$`)
	versionForm  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
	debianForm   = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+$`)
	artifactForm = regexp.MustCompile(`^[\w.-]+:[\w.-]+(:[\w-]+(:[\w.-]+)?)?:[\w.-]+$`)
	excludeForm  = regexp.MustCompile(`^[\w.*-]+:[\w.*-]+$`)
	managedForm  = regexp.MustCompile(`^[\w.-]+:[\w.-]+:[\w.-]+$`)
	pinnedForm   = regexp.MustCompile(`^[A-Za-z0-9][\w.-]*(\[[\w,-]+\])?==[\w.!+-]+$`)
	npmForm      = regexp.MustCompile(`^(@[\w.-]+/)?[\w.-]+@\d[\w.+-]*$`)
	moduleForm   = regexp.MustCompile(`^[\w.~/-]+@v\d[\w.+-]*$`)
	portForm     = regexp.MustCompile(`^\d{1,5}/(tcp|udp)$`)
)

func (c *checker) each(at []any, list []string, form *regexp.Regexp, want string) {
	for i, s := range list {
		if !form.MatchString(s) {
			c.fault(append(slices.Clone(at), i), "%q: want %s", s, want)
		}
	}
}

func (c *checker) absolute(at []any, p string) {
	if !path.IsAbs(p) || path.Clean(p) != p || p == "/" {
		c.fault(at, "%q: want an absolute path without . or ..", p)
	}
}

func (c *checker) recipe(r *Recipe) {
	if !nameForm.MatchString(r.Name) {
		c.fault([]any{"name"}, "name %q: want lower-case letters, digits and -", r.Name)
	}
	if r.Version != "" && !versionForm.MatchString(r.Version) {
		c.fault([]any{"version"}, "version %q: want what a tag may be: letters, digits, . _ -", r.Version)
	}
	if r.From == "" {
		c.fault([]any{"from"}, "from is missing: the name of a base, or %s", Scratch)
	}
	if r.User.UID < 0 || r.User.GID < 0 || (r.User.UID != 0 && r.User.Name == "") {
		c.fault([]any{"user"}, "user needs a name, and a uid above 0")
	}
	c.sources(r)
	for i, f := range r.Files {
		c.absolute([]any{"files", i, "path"}, f.Path)
		if (f.Text == "") == (f.Source == "") {
			c.fault([]any{"files", i}, "%s: want either text or source", f.Path)
		}
		if f.Source != "" {
			if !filepath.IsLocal(f.Source) {
				c.fault([]any{"files", i, "source"}, "%q: want a file in the folder of this recipe", f.Source)
			} else if _, err := os.Stat(filepath.Join(r.Dir(), f.Source)); err != nil {
				c.fault([]any{"files", i, "source"}, "%v", err)
			}
		}
	}
	for i, d := range r.Directories {
		c.absolute([]any{"directories", i, "path"}, d.Path)
	}
	for p := range r.Links {
		c.absolute([]any{"links", p}, p)
	}
	for i, p := range r.Prune {
		if _, err := path.Match(p, ""); err != nil || path.IsAbs(p) {
			c.fault([]any{"prune", i}, "%q: want a pattern of a path, without / in front", p)
		}
	}
	c.each([]any{"ports"}, r.Ports, portForm, "NUMBER/tcp or NUMBER/udp")
	if r.Health != nil && r.Health.Command == "" {
		c.fault([]any{"health"}, "health needs a command")
	}
}

func (c *checker) sources(r *Recipe) {
	c.each([]any{"debian", "packages"}, r.Debian.Packages, debianForm, "the name of a Debian package")
	c.each([]any{"debian", "exclude"}, r.Debian.Exclude, debianForm, "the name of a Debian package")
	for i, m := range r.Maven {
		c.absolute([]any{"maven", i, "into"}, m.Into)
		c.each([]any{"maven", i, "artifacts"}, m.Artifacts, artifactForm, "group:artifact:version, with type and classifier between if needed")
		c.each([]any{"maven", i, "exclude"}, m.Exclude, excludeForm, "group:artifact, each may be *")
		for n, o := range m.Omit {
			if _, err := path.Match(o, ""); err != nil {
				c.fault([]any{"maven", i, "omit", n}, "%q: want a pattern of file names", o)
			}
		}
		c.each([]any{"maven", i, "managed"}, m.Managed, managedForm, "group:artifact:version")
	}
	c.each([]any{"pypi", "packages"}, r.PyPI.Packages, pinnedForm, "name==version")
	c.each([]any{"pypi", "sources"}, r.PyPI.Sources, pinnedForm, "name==version")
	if len(r.PyPI.Packages)+len(r.PyPI.Sources) > 0 && r.PyPI.Python == "" {
		c.fault([]any{"pypi"}, "pypi needs python: the version of the interpreter in the image, e.g. \"3.11\"")
	}
	c.each([]any{"npm", "packages"}, r.NPM.Packages, npmForm, "name@version")
	if len(r.NPM.Packages) > 0 {
		c.absolute([]any{"npm", "into"}, r.NPM.Into)
	}
	for i, g := range r.Go {
		c.absolute([]any{"go", i, "path"}, g.Path)
		if g.Module == "" && g.Package == "" {
			c.fault([]any{"go", i}, "want module: module@version, or package: of this repository")
		} else if g.Module != "" && !moduleForm.MatchString(g.Module) {
			c.fault([]any{"go", i, "module"}, "%q: want module@vVERSION", g.Module)
		}
	}
}

// Group returns the user's group.
func (u User) Group() int {
	if u.GID == 0 {
		return u.UID
	}
	return u.GID
}
