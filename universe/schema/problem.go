// Package schema says what a package is: it reads and judges package.json,
// config.json, resource.json and command.json of packaging versions 2.0 to 5.0,
// the templates beside them, and what is ours (service.yaml.mustache and
// profiles), and it checks options against a package's config.json.
package schema

import (
	"cmp"
	"slices"
	"strings"

	"github.com/agext/levenshtein"
)

// Problem is something wrong with a package.
type Problem struct {
	File    string // "config.json"; empty: the package as a whole
	Path    string // "properties.service.name"; empty: the file as a whole
	Message string
}

func (p Problem) String() string {
	parts := []string{p.File, p.Path, p.Message}
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ": ")
}

// Problems is everything wrong with a package, and an error if there is any.
type Problems []Problem

func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i := range p {
		lines[i] = p[i].String()
	}
	return strings.Join(lines, "; ")
}

// Err is p, or nil when there are no problems.
func (p Problems) Err() error {
	if len(p) == 0 {
		return nil
	}
	return p
}

func (p *Problems) add(file, path, message string) {
	*p = append(*p, Problem{file, path, message})
}

// Nearest returns up to three of names that word may be a misspelling of, the
// likeliest first. It takes time in proportion to the number of names.
func Nearest(word string, names []string) []string {
	type near struct {
		name     string
		distance int
	}
	var all []near
	for _, n := range names {
		d := levenshtein.Distance(strings.ToLower(word), strings.ToLower(n), nil)
		switch {
		case d <= 1+len(word)/4:
		case len(word) >= 3 && (strings.Contains(n, word) || len(n) >= 3 && strings.Contains(word, n)):
		default:
			continue
		}
		all = append(all, near{n, d})
	}
	slices.SortFunc(all, func(a, b near) int { return cmp.Or(a.distance-b.distance, strings.Compare(a.name, b.name)) })
	all = all[:min(len(all), 3)]
	found := make([]string, len(all))
	for i, n := range all {
		found[i] = n.name
	}
	return found
}
