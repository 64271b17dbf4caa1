package httpapi

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

const (
	word = `(?:[-A-Za-z0-9_.]|\\.)+`
	list = `\(\s*` + word + `(?:\s*,\s*` + word + `)*\s*\)`
)

var (
	termRE   = regexp.MustCompile(`^\s*(` + word + `)\s*(?:(==|!=)\s*(` + word + `)|\s(in|notin)\s*(` + list + `))?\s*(?:,|$)`)
	wordRE   = regexp.MustCompile(word)
	escapeRE = regexp.MustCompile(`\\(.)`)
)

// selector compiles a label selector: "a", "a==b", "a!=b", "a in (b,c)",
// "a notin (b,c)", joined by commas that mean "and".
func selector(text string) (func(map[string]string) bool, error) {
	type term struct {
		key    string
		exists bool // the key alone
		in     bool
		values []string
	}
	var terms []term
	for rest := text; strings.TrimSpace(rest) != ""; {
		m := termRE.FindStringSubmatch(rest)
		if m == nil {
			return nil, fmt.Errorf("Can not parse label selector '%s' at '%s'", text, rest)
		}
		t := term{key: plain(m[1])}
		switch {
		case m[2] != "":
			t.in, t.values = m[2] == "==", []string{plain(m[3])}
		case m[4] != "":
			t.in = m[4] == "in"
			for _, v := range wordRE.FindAllString(m[5], -1) {
				t.values = append(t.values, plain(v))
			}
		default:
			t.exists = true
		}
		terms = append(terms, t)
		rest = rest[len(m[0]):]
	}
	return func(labels map[string]string) bool {
		for _, t := range terms {
			v, ok := labels[t.key]
			switch {
			case t.exists:
				if !ok {
					return false
				}
			case !ok || slices.Contains(t.values, v) != t.in:
				return false
			}
		}
		return true
	}, nil
}

func plain(s string) string { return escapeRE.ReplaceAllString(s, "$1") }
