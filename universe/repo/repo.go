// Package repo makes a repository's index, repo.json, of a folder of packages:
// NAME/RELEASE/package.json and what belongs to it, NAME/image.yaml beside the
// releases. What is wrong is told all at once, with file and line.
package repo

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"dcos.example/dcos/runtime/api/cosmos"
	"dcos.example/dcos/universe/schema"
)

// File is the name of an index, and Signature that of its minisign signature.
const (
	File      = "repo.json"
	Signature = File + ".minisig"
)

// Index is the content of repo.json.
type Index struct {
	Packages []cosmos.Package `json:"packages"`
}

// Options narrow and judge an index.
type Options struct {
	Only []string // names of packages; empty: all
	// Registry is the host whose images must be in Images, by their references.
	Registry string
	Images   []string
}

// Build reads the packages in folder, which messages call name. Revisions are in
// the order of names, newest release first. Its error joins one for each
// problem.
func Build(folder fs.FS, name string, o Options) (Index, error) {
	index := Index{Packages: []cosmos.Package{}}
	names, err := packages(folder, o.Only)
	if err != nil {
		return index, err
	}
	var errs []error
	for _, n := range names {
		b := builder{folder: folder, at: path.Join(name, n), o: o}
		releases, err := b.releases(n)
		if err != nil {
			return index, err
		}
		index.Packages = append(index.Packages, releases...)
		errs = append(errs, b.errs...)
	}
	return index, errors.Join(errs...)
}

// Marshal returns the index as a file. Equal packages give equal bytes.
func (i Index) Marshal() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(i)
	return b.Bytes(), err
}

// Images returns the names of the images that a package needs.
func Images(p *cosmos.Package) []string {
	var r cosmos.Resource
	if p.Resource == nil || json.Unmarshal(p.Resource, &r) != nil || r.Assets == nil || r.Assets.Container == nil {
		return nil
	}
	var images []string
	for _, i := range r.Assets.Container.Docker {
		images = append(images, i)
	}
	slices.Sort(images)
	return slices.Compact(images)
}

func packages(folder fs.FS, only []string) ([]string, error) {
	entries, err := fs.ReadDir(folder, ".")
	if err != nil {
		return nil, err
	}
	var all []string
	for _, e := range entries {
		if e.IsDir() {
			all = append(all, e.Name())
		}
	}
	if len(only) == 0 {
		return all, nil
	}
	var errs []error
	for _, n := range only {
		if !slices.Contains(all, n) {
			message := "there is no package " + n
			if near := schema.Nearest(n, all); len(near) > 0 {
				message += "; did you mean " + strings.Join(near, " or ") + "?"
			}
			errs = append(errs, errors.New(message))
		}
	}
	return slices.DeleteFunc(all, func(n string) bool { return !slices.Contains(only, n) }), errors.Join(errs...)
}

type builder struct {
	folder fs.FS
	at     string // of the package's folder, for messages
	o      Options
	errs   []error
}

// releases reads the releases of one package.
func (b *builder) releases(name string) ([]cosmos.Package, error) {
	entries, err := fs.ReadDir(b.folder, name)
	if err != nil {
		return nil, err
	}
	var found []cosmos.Package
	for _, e := range entries {
		release, err := strconv.ParseInt(e.Name(), 10, 64)
		if !e.IsDir() || err != nil || release < 0 {
			continue
		}
		dir := path.Join(name, e.Name())
		sub, err := fs.Sub(b.folder, dir)
		if err != nil {
			return nil, err
		}
		p, err := schema.ReadDir(sub, release)
		if err == nil {
			err = schema.CheckOwn(&p)
		}
		if err != nil {
			b.report(sub, e.Name(), err)
			continue
		}
		if p.Name != name {
			b.report(sub, e.Name(), schema.Problems{{File: "package.json", Path: "name", Message: fmt.Sprintf("it is %q in folder %q", p.Name, name)}})
		}
		for _, i := range Images(&p) {
			if strings.HasPrefix(i, b.o.Registry+"/") && !slices.Contains(b.o.Images, i) {
				b.report(sub, e.Name(), schema.Problems{{File: "resource.json", Path: "assets.container.docker", Message: "no image.yaml makes " + i}})
			}
		}
		found = append(found, p)
	}
	slices.SortFunc(found, func(x, y cosmos.Package) int { return int(*y.ReleaseVersion - *x.ReleaseVersion) })
	b.paths(found)
	return found, nil
}

// paths looks whether versions that a package comes from or goes to exist.
func (b *builder) paths(releases []cosmos.Package) {
	for _, p := range releases {
		dir := strconv.FormatInt(*p.ReleaseVersion, 10)
		sub, err := fs.Sub(b.folder, path.Join(p.Name, dir))
		if err != nil {
			continue
		}
		for key, versions := range map[string][]string{"upgradesFrom": p.UpgradesFrom, "downgradesTo": p.DowngradesTo} {
			for _, v := range versions {
				known := slices.ContainsFunc(releases, func(o cosmos.Package) bool { return o.Version == v })
				if v != "*" && !known {
					b.report(sub, dir, schema.Problems{{File: "package.json", Path: key, Message: "there is no version " + v + " of this package"}})
				}
			}
		}
		for _, o := range releases {
			if *o.ReleaseVersion < *p.ReleaseVersion && o.Version == p.Version {
				b.report(sub, dir, schema.Problems{{File: "package.json", Path: "version", Message: fmt.Sprintf("release %d has version %s too", *o.ReleaseVersion, o.Version)}})
			}
		}
	}
}

// report notes what is wrong with a release, with file and line.
func (b *builder) report(dir fs.FS, release string, err error) {
	var problems schema.Problems
	if !errors.As(err, &problems) {
		b.errs = append(b.errs, fmt.Errorf("%s: %w", path.Join(b.at, release), err))
		return
	}
	for _, p := range problems {
		at := path.Join(b.at, release, p.File)
		if strings.HasSuffix(p.File, ".json") {
			if text, err := fs.ReadFile(dir, p.File); err == nil {
				at += ":" + strconv.Itoa(line(text, p.Path))
			}
		}
		if p.Path != "" {
			at += ": " + p.Path
		}
		b.errs = append(b.errs, fmt.Errorf("%s: %s", at, p.Message))
	}
}

// line returns the line of the value at a path of keys with dots between, or of
// the deepest part of it that is there; of what cannot be read, that of the
// mistake.
func line(text []byte, at string) int {
	d := json.NewDecoder(bytes.NewReader(text))
	best := int64(0)
	var walk func(prefix string) error
	walk = func(prefix string) error {
		t, err := d.Token()
		if err != nil {
			return err
		}
		open, ok := t.(json.Delim)
		if !ok {
			return nil
		}
		for i := 0; d.More(); i++ {
			key := strconv.Itoa(i)
			if open == '{' {
				t, err := d.Token()
				if err != nil {
					return err
				}
				key, _ = t.(string)
			}
			p := strings.TrimPrefix(prefix+"."+key, ".")
			if at == p || strings.HasPrefix(at, p+".") || strings.HasPrefix(at, p+"[") {
				best = d.InputOffset()
			}
			if err := walk(p); err != nil {
				return err
			}
		}
		_, err = d.Token()
		return err
	}
	if err := walk(""); err != nil {
		best = d.InputOffset()
		var wrong *json.SyntaxError
		if errors.As(err, &wrong) {
			best = wrong.Offset
		}
	}
	return 1 + bytes.Count(text[:min(best, int64(len(text)))], []byte("\n"))
}
