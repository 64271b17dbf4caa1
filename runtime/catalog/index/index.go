// Package index is the merged view of all repositories: which packages there
// are, in which revisions, and which of them is meant. It is pure; an Index is
// built once and only read after that.
package index

import (
	"bytes"
	"cmp"
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"dcos.example/dcos/runtime/api/cosmos"
	"dcos.example/dcos/runtime/catalog/envelope"
	"dcos.example/dcos/runtime/catalog/failure"
	"dcos.example/dcos/universe/schema"
)

// Revision is one revision of a package. What is not needed to find it is in
// Packed alone.
type Revision struct {
	Name, Version string
	Release       int64
	Packed        envelope.Packed

	Description  string
	Tags         []string
	Framework    bool
	Selected     *bool
	Images       *cosmos.Images
	UpgradesFrom []string
	DowngradesTo []string
	URLs         []string // of files and pictures
}

// NewRevision packs p.
func NewRevision(p *cosmos.Package) (Revision, error) {
	r := Revision{
		Name: p.Name, Version: p.Version, Description: p.Description, Tags: p.Tags, Framework: p.Framework != nil && *p.Framework,
		Selected: p.Selected, UpgradesFrom: p.UpgradesFrom, DowngradesTo: p.DowngradesTo,
	}
	if p.ReleaseVersion != nil {
		r.Release = *p.ReleaseVersion
	}
	if p.Resource != nil {
		var res cosmos.Resource
		if err := json.Unmarshal(p.Resource, &res); err != nil {
			return r, err
		}
		r.Images, r.URLs = res.Images, urls(&res)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(p); err != nil {
		return r, err
	}
	var err error
	r.Packed, err = envelope.Pack(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
	return r, err
}

func urls(r *cosmos.Resource) []string {
	var all []string
	if r.Assets != nil {
		all = slices.AppendSeq(all, maps.Values(r.Assets.URIs))
	}
	if i := r.Images; i != nil {
		all = append(append(all, i.IconSmall, i.IconMedium, i.IconLarge), i.Screenshots...)
	}
	if r.CLI != nil {
		for _, system := range r.CLI.Binaries {
			for _, b := range system {
				all = append(all, b.URL)
			}
		}
	}
	// A data: URL is its own content.
	return slices.DeleteFunc(all, func(u string) bool { return u == "" || strings.HasPrefix(u, "data:") })
}

// Source is a repository with what it has.
type Source struct {
	Repository cosmos.Repository
	Revisions  []Revision
}

// Entry is a revision and the URI of the repository it is taken from.
type Entry struct {
	*Revision
	Source string
}

// Index finds packages. Its size grows with the number of revisions.
type Index struct {
	names  []string           // sorted
	byName map[string][]Entry // in the order of preference, versions once
	found  []found            // in the order of answers
	all    []byte             // the answer of all
	urls   map[string]struct{}
}

// found is a package as a search answers it.
type found struct {
	texts []string // name, description and tags
	lower []string // the same in lower case
	json  []byte   // a cosmos.SearchResult
}

// New merges sources, the preferred first. Of one version of a package the
// first source's is taken, and of several in one source the latest released;
// the current version is the latest released of the first source that has the
// name.
func New(sources []Source) (*Index, error) {
	ix := &Index{byName: map[string][]Entry{}, urls: map[string]struct{}{}}
	for _, s := range sources {
		latestFirst := make([]*Revision, len(s.Revisions))
		for i := range s.Revisions {
			latestFirst[i] = &s.Revisions[i]
		}
		slices.SortStableFunc(latestFirst, func(a, b *Revision) int { return cmp.Compare(b.Release, a.Release) })
		for _, r := range latestFirst {
			have := ix.byName[r.Name]
			if slices.ContainsFunc(have, func(e Entry) bool { return e.Version == r.Version }) {
				continue
			}
			ix.byName[r.Name] = append(have, Entry{r, s.Repository.URI})
			for _, u := range r.URLs {
				ix.urls[u] = struct{}{}
			}
		}
	}
	ix.names = slices.Sorted(maps.Keys(ix.byName))
	order := slices.Clone(ix.names)
	slices.SortStableFunc(order, func(a, b string) int { return selected(ix.byName[b][0]) - selected(ix.byName[a][0]) })
	for _, name := range order {
		f, err := ix.result(name)
		if err != nil {
			return nil, err
		}
		ix.found = append(ix.found, f)
	}
	ix.all = ix.answer(func(found) bool { return true })
	return ix, nil
}

func selected(e Entry) int {
	if e.Selected != nil && *e.Selected {
		return 1
	}
	return 0
}

func (ix *Index) result(name string) (found, error) {
	current := ix.byName[name][0]
	result := cosmos.SearchResult{
		Name: name, CurrentVersion: current.Version, Versions: ix.versions(name), Description: current.Description,
		Framework: current.Framework, Tags: current.Tags, Selected: current.Selected, Images: current.Images,
	}
	text, err := json.Marshal(result)
	f := found{json: text, texts: append([]string{name, current.Description}, current.Tags...)}
	for _, t := range f.texts {
		f.lower = append(f.lower, strings.ToLower(t))
	}
	return f, err
}

func (ix *Index) versions(name string) map[string]string {
	all := map[string]string{}
	for _, e := range ix.byName[name] {
		all[e.Version] = strconv.FormatInt(e.Release, 10)
	}
	return all
}

// Packages is the number of names.
func (ix *Index) Packages() int { return len(ix.names) }

// Search writes the packages whose name, description or a tag has the query in
// it, in whatever case; with * for any text in it, those where it matches one
// of them whole and as written. The answer is a cosmos.SearchResponse, and not
// the caller's to change. Cost grows with the number of packages.
func (ix *Index) Search(query string) []byte {
	if query == "" {
		return ix.all
	}
	return ix.answer(matcher(query))
}

// answer writes what match is true of.
func (ix *Index) answer(match func(found) bool) []byte {
	const begin, end = `{"packages":[`, "]}"
	size := len(begin) + len(end)
	var texts [][]byte
	for _, f := range ix.found {
		if match(f) {
			texts = append(texts, f.json)
			size += len(f.json) + 1
		}
	}
	b := make([]byte, 0, size)
	b = append(b, begin...)
	for i, t := range texts {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, t...)
	}
	return append(b, end...)
}

func matcher(query string) func(found) bool {
	if !strings.Contains(query, "*") {
		query = strings.ToLower(query)
		return func(f found) bool {
			return slices.ContainsFunc(f.lower, func(s string) bool { return strings.Contains(s, query) })
		}
	}
	parts := strings.Split(query, "*")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	whole := regexp.MustCompile("^" + strings.Join(parts, ".*") + "$")
	return func(f found) bool { return slices.ContainsFunc(f.texts, whole.MatchString) }
}

// Find returns a revision; with no version, the current one. Errors are
// *failure.Error, with names that may have been meant.
func (ix *Index) Find(name, version string) (Entry, error) {
	all, ok := ix.byName[name]
	if !ok {
		return Entry{}, failure.PackageNotFound(name).Suggest(schema.Nearest(name, ix.names))
	}
	if version == "" {
		return all[0], nil
	}
	for _, e := range all {
		if e.Version == version {
			return e, nil
		}
	}
	versions := make([]string, len(all))
	for i, e := range all {
		versions[i] = e.Version
	}
	near := schema.Nearest(version, versions)
	if len(near) == 0 {
		near = versions[:min(len(versions), 3)]
	}
	return Entry{}, failure.VersionNotFound(name, version).Suggest(near)
}

// Versions returns release versions by version.
func (ix *Index) Versions(name string) (map[string]string, error) {
	if _, err := ix.Find(name, ""); err != nil {
		return nil, err
	}
	return ix.versions(name), nil
}

// UpgradesTo returns the versions that may follow version, preferred first. One
// that follows all follows itself, too.
func (ix *Index) UpgradesTo(name, version string) []string {
	all := []string{}
	for _, e := range ix.byName[name] {
		if slices.Contains(e.UpgradesFrom, version) || slices.Contains(e.UpgradesFrom, "*") {
			all = append(all, e.Version)
		}
	}
	return all
}

// DowngradesTo returns the versions to which a package that says so of itself
// may go back, preferred first.
func (ix *Index) DowngradesTo(name string, downgradesTo []string) []string {
	all := []string{}
	for _, e := range ix.byName[name] {
		if slices.Contains(downgradesTo, e.Version) || slices.Contains(downgradesTo, "*") {
			all = append(all, e.Version)
		}
	}
	return all
}

// HasURL reports whether a package names url as a file or picture of its own.
func (ix *Index) HasURL(url string) bool {
	_, ok := ix.urls[url]
	return ok
}
