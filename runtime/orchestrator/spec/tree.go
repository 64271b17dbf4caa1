package spec

import (
	"maps"
	"slices"

	"dcos.example/dcos/runtime/api/marathon"
	"dcos.example/dcos/runtime/fault"
)

// Group is what is known of a group beside what it holds.
type Group struct {
	Dependencies []AppID `json:"dependencies,omitempty"`
	EnforceRole  bool    `json:"enforceRole,omitempty"`
	Version      string  `json:"version"`
}

// Tree is all apps and groups. It is not safe for concurrent use; the apps in
// it are never changed, only replaced.
type Tree struct {
	apps   map[AppID]*marathon.App
	groups map[AppID]Group
	kids   map[AppID]*children
	ports  map[int64]int // service ports in use, and by how many
}

type children struct{ apps, groups map[AppID]struct{} }

// NewTree returns a Tree that holds the root group alone.
func NewTree() *Tree {
	return &Tree{
		apps: map[AppID]*marathon.App{}, groups: map[AppID]Group{Root: {}},
		kids: map[AppID]*children{}, ports: map[int64]int{},
	}
}

// App returns the app id, nil if there is none.
func (t *Tree) App(id AppID) *marathon.App { return t.apps[id] }

// Group returns the group id.
func (t *Tree) Group(id AppID) (Group, bool) {
	g, ok := t.groups[id]
	return g, ok
}

// Len is the number of apps.
func (t *Tree) Len() int { return len(t.apps) }

// AppsOf returns the ids of the apps directly in group, in order.
func (t *Tree) AppsOf(group AppID) []AppID {
	if k := t.kids[group]; k != nil {
		return slices.Sorted(maps.Keys(k.apps))
	}
	return nil
}

// GroupsOf returns the ids of the groups directly in group, in order.
func (t *Tree) GroupsOf(group AppID) []AppID {
	if k := t.kids[group]; k != nil {
		return slices.Sorted(maps.Keys(k.groups))
	}
	return nil
}

// AppsBelow returns the ids of all apps in group at any depth, in order.
// Its cost is that of the subtree.
func (t *Tree) AppsBelow(group AppID) []AppID {
	out := t.AppsOf(group)
	for _, g := range t.GroupsOf(group) {
		out = append(out, t.AppsBelow(g)...)
	}
	slices.Sort(out)
	return out
}

// GroupsBelow returns the ids of all groups in group at any depth.
func (t *Tree) GroupsBelow(group AppID) []AppID {
	var out []AppID
	for _, g := range t.GroupsOf(group) {
		out = append(append(out, g), t.GroupsBelow(g)...)
	}
	return out
}

// Change is a set of new definitions; nil removes.
type Change struct {
	Apps   map[AppID]*marathon.App
	Groups map[AppID]*Group
}

// NewChange returns an empty Change.
func NewChange() Change {
	return Change{Apps: map[AppID]*marathon.App{}, Groups: map[AppID]*Group{}}
}

// Apply makes c true. c should have passed Check; groups that new apps need
// are made.
func (t *Tree) Apply(c Change, version string) {
	for id, g := range c.Groups {
		if g == nil && id != Root {
			t.removeGroup(id)
		} else if g != nil {
			t.PutGroup(id, *g)
		}
	}
	for id, a := range c.Apps {
		if a == nil {
			t.removeApp(id)
			continue
		}
		for g := id.Parent(); ; g = g.Parent() {
			if _, ok := t.groups[g]; ok {
				break
			}
			t.PutGroup(g, Group{Version: version})
		}
		t.PutApp(a)
	}
}

// PutApp adds or replaces one app.
func (t *Tree) PutApp(a *marathon.App) {
	id := AppID(a.ID)
	t.countPorts(t.apps[id], -1)
	t.apps[id] = a
	t.countPorts(a, 1)
	t.childrenOf(id.Parent()).apps[id] = struct{}{}
}

// PutGroup adds or replaces the record of one group, and adds the groups
// around it.
func (t *Tree) PutGroup(id AppID, g Group) {
	t.groups[id] = g
	for id != Root {
		p := id.Parent()
		t.childrenOf(p).groups[id] = struct{}{}
		if _, ok := t.groups[p]; !ok {
			t.groups[p] = Group{Version: g.Version}
		}
		id = p
	}
}

func (t *Tree) removeApp(id AppID) {
	t.countPorts(t.apps[id], -1)
	delete(t.apps, id)
	if k := t.kids[id.Parent()]; k != nil {
		delete(k.apps, id)
	}
}

func (t *Tree) removeGroup(id AppID) {
	delete(t.groups, id)
	if k := t.kids[id.Parent()]; k != nil {
		delete(k.groups, id)
	}
}

func (t *Tree) childrenOf(id AppID) *children {
	k := t.kids[id]
	if k == nil {
		k = &children{map[AppID]struct{}{}, map[AppID]struct{}{}}
		t.kids[id] = k
	}
	return k
}

func (t *Tree) countPorts(a *marathon.App, by int) {
	for _, p := range ServicePorts(a) {
		if t.ports[p] += by; t.ports[p] <= 0 {
			delete(t.ports, p)
		}
	}
}

// Check returns Invalid when c would break a rule between apps and groups.
// Its cost is that of c and of what c depends on, not of the tree.
func (t *Tree) Check(c Change) error {
	var p Problems
	isGroup := func(id AppID) bool {
		if g, ok := c.Groups[id]; ok {
			return g != nil
		}
		_, ok := t.groups[id]
		return ok
	}
	app := t.with(c)
	const clash = "Groups and Applications may not have the same identifier."
	for _, id := range sortedIDs(c.Apps) {
		if c.Apps[id] == nil {
			continue
		}
		p.check(!isGroup(id), string(id), clash)
		for g := id.Parent(); g != Root; g = g.Parent() {
			p.check(app(g) == nil, string(id), clash)
		}
	}
	for _, id := range sortedIDs(c.Groups) {
		if c.Groups[id] != nil {
			p.check(app(id) == nil, string(id), clash)
		}
	}
	if len(p.Details) == 0 {
		p.check(!t.cyclic(c), "/", "Dependency graph has cyclic dependencies.")
	}
	if err := p.err(); err != nil {
		return fault.New("check groups", fault.Invalid, err)
	}
	return nil
}

// with looks apps up as they are after c.
func (t *Tree) with(c Change) func(AppID) *marathon.App {
	return func(id AppID) *marathon.App {
		if a, ok := c.Apps[id]; ok {
			return a
		}
		return t.apps[id]
	}
}

func (t *Tree) cyclic(c Change) bool {
	deps := t.Dependencies(c)
	const (
		open = 1
		done = 2
	)
	state := map[AppID]int{}
	var visit func(AppID) bool
	visit = func(id AppID) bool {
		switch state[id] {
		case open:
			return true
		case done:
			return false
		}
		state[id] = open
		for _, d := range deps(id) {
			if visit(d) {
				return true
			}
		}
		state[id] = done
		return false
	}
	for _, id := range sortedIDs(c.Apps) {
		if visit(id) {
			return true
		}
	}
	for _, id := range sortedIDs(c.Groups) {
		for _, a := range t.AppsBelow(id) {
			if visit(a) {
				return true
			}
		}
	}
	return false
}

// Dependencies returns the function that lists, after c, the apps that an app
// waits for: its own dependencies and those of the groups around it, where a
// group stands for all its apps.
func (t *Tree) Dependencies(c Change) func(AppID) []AppID {
	app := t.with(c)
	group := func(id AppID) Group {
		if g, ok := c.Groups[id]; ok {
			if g == nil {
				return Group{}
			}
			return *g
		}
		return t.groups[id]
	}
	expand := func(out []AppID, d AppID) []AppID {
		if app(d) != nil {
			return append(out, d)
		}
		for _, a := range t.AppsBelow(d) {
			if app(a) != nil {
				out = append(out, a)
			}
		}
		for id, a := range c.Apps {
			if a != nil && t.apps[id] == nil && id.Within(d) {
				out = append(out, id)
			}
		}
		return out
	}
	return func(id AppID) []AppID {
		a := app(id)
		if a == nil {
			return nil
		}
		var out []AppID
		for _, d := range a.Dependencies {
			out = expand(out, AppID(d))
		}
		for g := id.Parent(); ; g = g.Parent() {
			for _, d := range group(g).Dependencies {
				if !id.Within(d) {
					out = expand(out, d)
				}
			}
			if g == Root {
				break
			}
		}
		slices.Sort(out)
		return slices.Compact(out)
	}
}

func sortedIDs[V any](m map[AppID]V) []AppID { return slices.Sorted(maps.Keys(m)) }
