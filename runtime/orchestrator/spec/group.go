package spec

import (
	"fmt"
	"math"
	"strings"

	"dcos.example/dcos/runtime/api/marathon"
	"dcos.example/dcos/runtime/fault"
)

// ParseGroup reads a group as clients write it.
func ParseGroup(body []byte) (*marathon.Group, error) {
	g := new(marathon.Group)
	if err := marathon.Decode(body, g); err != nil {
		return nil, fault.New("read group", fault.Invalid, err)
	}
	return g, nil
}

// GroupChange returns what makes group id look like g: what g lists is
// replaced whole, and what a listed collection leaves out is removed. Problems
// of all apps are reported together.
func (t *Tree) GroupChange(id AppID, g *marathon.Group, pol Policy, version string) (Change, error) {
	c := NewChange()
	var p Problems
	if err := t.groupChange(id, g, pol, version, c, &p); err != nil {
		return c, err
	}
	if err := p.err(); err != nil {
		return c, fault.New("check group "+string(id), fault.Invalid, err)
	}
	return c, nil
}

func (t *Tree) groupChange(id AppID, g *marathon.Group, pol Policy, version string, c Change, p *Problems) error {
	if text := checkID(string(id)); text != "" {
		p.add("/id", text)
	}
	if len(g.Pods) > 0 {
		p.add("/pods", "pods are not supported by this version")
	}
	old, existed := t.groups[id]
	now := old
	now.Version = version
	if g.Dependencies != nil {
		now.Dependencies = nil
		for _, d := range g.Dependencies {
			now.Dependencies = append(now.Dependencies, ParseID(d, id.Parent()))
		}
	}
	if g.EnforceRole != nil {
		now.EnforceRole = *g.EnforceRole
	}
	c.Groups[id] = &now
	if g.Apps != nil || !existed {
		listed := map[AppID]bool{}
		for i, raw := range g.Apps {
			a, err := ParseApp(raw, id, pol)
			if err != nil {
				if !merge(p, at("/apps", i), err) {
					return err
				}
				continue
			}
			app := AppID(a.ID)
			if app.Parent() != id {
				p.add(at("/apps", i)+"/id", fmt.Sprintf("Identifier %s is not child of '%s'", app, id))
				continue
			}
			p.check(!listed[app], "/apps", fmt.Sprintf("Two apps have the id %s", app))
			listed[app] = true
			c.Apps[app] = a
		}
		for _, app := range t.AppsOf(id) {
			if !listed[app] {
				c.Apps[app] = nil
			}
		}
	}
	if g.Groups == nil && existed {
		return nil
	}
	listed := map[AppID]bool{}
	for i := range g.Groups {
		sub := ParseID(g.Groups[i].ID, id)
		if sub.Parent() != id || sub == Root {
			p.add(at("/groups", i)+"/id", fmt.Sprintf("Identifier %s is not child of '%s'", sub, id))
			continue
		}
		listed[sub] = true
		if err := t.groupChange(sub, &g.Groups[i], pol, version, c, p); err != nil {
			return err
		}
	}
	for _, sub := range t.GroupsOf(id) {
		if !listed[sub] {
			t.Remove(sub, c)
		}
	}
	return nil
}

// merge adds err's details to p below path; false when err has none.
func merge(p *Problems, path string, err error) bool {
	details, ok := Details(err)
	for _, d := range details {
		for _, text := range d.Errors {
			p.add(strings.TrimSuffix(path+d.Path, "/"), text)
		}
	}
	return ok
}

// Remove adds to c the removal of group id and all it holds.
func (t *Tree) Remove(id AppID, c Change) {
	for _, a := range t.AppsBelow(id) {
		c.Apps[a] = nil
	}
	for _, g := range t.GroupsBelow(id) {
		c.Groups[g] = nil
	}
	if id != Root {
		c.Groups[id] = nil
	}
}

// Scale returns the change that multiplies the instances of all apps below
// group id by factor, rounded up.
func (t *Tree) Scale(id AppID, factor float64) Change {
	c := NewChange()
	for _, app := range t.AppsBelow(id) {
		a := *t.apps[app]
		a.Instances = int64(math.Ceil(float64(a.Instances) * factor))
		c.Apps[app] = &a
	}
	return c
}
