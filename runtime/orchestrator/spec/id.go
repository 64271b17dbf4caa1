// Package spec is what users ask for: apps and groups, read strictly, brought
// from every older form to one canonical form, checked completely, and kept as
// a tree. It is pure: the current version and ports in use are passed in.
package spec

import (
	"regexp"
	"strings"
)

// AppID is the absolute path of an app or group: "/a/b"; "/" is the root.
type AppID string

// Root is the id of the group that holds everything.
const Root AppID = "/"

const segment = `(([a-z0-9]|[a-z0-9][a-z0-9\-]*[a-z0-9])\.)*([a-z0-9]|[a-z0-9][a-z0-9\-]*[a-z0-9])|(\.|\.\.)`

// idPattern is the text that Marathon's error shows.
const idPattern = `^(([a-z0-9]|[a-z0-9][a-z0-9\-]*[a-z0-9])\.)*([a-z0-9]|[a-z0-9][a-z0-9\-]*[a-z0-9])|(\.|\.\.)$`

var segmentRE = regexp.MustCompile(`^(?:` + segment + `)$`)

// ParseID resolves text against base and drops empty segments: "" is base,
// "c", "./c" and "../x" are relative, "/c" is absolute. Segments are not
// checked.
func ParseID(text string, base AppID) AppID {
	var segs []string
	if !strings.HasPrefix(text, "/") {
		segs = base.segments()
	}
	for s := range strings.SplitSeq(text, "/") {
		switch s {
		case "", ".":
		case "..":
			segs = segs[:max(0, len(segs)-1)]
		default:
			segs = append(segs, s)
		}
	}
	return AppID("/" + strings.Join(segs, "/"))
}

func (id AppID) segments() []string {
	if id == "" || id == Root {
		return nil
	}
	return strings.Split(strings.Trim(string(id), "/"), "/")
}

// Parent is the group that holds id; the root's parent is the root.
func (id AppID) Parent() AppID {
	i := strings.LastIndexByte(string(id), '/')
	if i <= 0 {
		return Root
	}
	return id[:i]
}

// Within reports whether id is group or lies below it.
func (id AppID) Within(group AppID) bool {
	return group == Root || id == group || strings.HasPrefix(string(id), string(group)+"/")
}

// Flat joins the segments by "_": the head of task ids.
func (id AppID) Flat() string { return strings.Join(id.segments(), "_") }

// Hostname reverses the segments and joins them by dots: "/a/b" is "b.a". It
// is the name of tasks and of their DNS records.
func (id AppID) Hostname() string {
	segs := id.segments()
	for i, j := 0, len(segs)-1; i < j; i, j = i+1, j-1 {
		segs[i], segs[j] = segs[j], segs[i]
	}
	return strings.Join(segs, ".")
}

// reservedNames may not be the last segment of an app id: they are routes
// below an app.
var reservedNames = []string{"restart", "tasks", "versions", ".", ".."}

// checkID returns what is wrong with text as an id, "" if nothing.
func checkID(text string) string {
	for s := range strings.SplitSeq(strings.Trim(text, "/"), "/") {
		if s != "" && !segmentRE.MatchString(s) {
			return "must fully match regular expression '" + idPattern + "'"
		}
	}
	return ""
}
