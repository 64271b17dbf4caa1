package allocator

import (
	"cmp"
	"slices"
	"strings"

	"dcos.example/dcos/runtime/resource"
)

// node is a role, the group of frameworks directly in a role (the virtual leaf
// "." of Mesos), or one framework in a role.
type node struct {
	name   string // last component of a role path, ".", or a framework id
	path   string // full role path, for role nodes
	parent *node
	kids   []*node // the active ones, lowest share first
	leaf   *node   // of a role: its virtual leaf
	client *client // of a framework
	alloc  []resource.Fixed
	weight float64
	share  float64 // dominant share divided by weight
	count  uint64  // offers made, so that equals take turns
	active bool    // listed in parent.kids
}

func less(x, y *node) int {
	switch {
	case x.share < y.share:
		return -1
	case x.share > y.share:
		return 1
	case x.count != y.count:
		return cmp.Compare(x.count, y.count)
	}
	return strings.Compare(x.name, y.name)
}

// role returns the node of a role path, made with its ancestors when missing.
// Role nodes stay: there are few, and their weights outlive frameworks.
func (a *Allocator) role(path string) *node {
	if n := a.roles[path]; n != nil {
		return n
	}
	parent, name := a.root, path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		parent, name = a.role(path[:i]), path[i+1:]
	}
	n := &node{name: name, path: path, parent: parent, weight: 1}
	if w, ok := a.weights[path]; ok {
		n.weight = w
	}
	n.leaf = &node{name: ".", parent: n, weight: 1}
	a.roles[path] = n
	return n
}

func (a *Allocator) virtualLeaf(role string) *node { return a.role(role).leaf }

// activate lists n and, when they were empty, its ancestors.
func (a *Allocator) activate(n *node) {
	for ; n.parent != nil && !n.active; n = n.parent {
		n.active = true
		n.share = a.shareOf(n) // totals may have changed while nobody looked
		a.insert(n)
	}
}

// deactivate takes n off the list, and ancestors that have become empty.
func (a *Allocator) deactivate(n *node) {
	for ; n.parent != nil && n.active && len(n.kids) == 0; n = n.parent {
		a.remove(n)
		n.active = false
	}
}

func (a *Allocator) insert(n *node) {
	p := n.parent
	i := len(p.kids)
	if !a.stale {
		i, _ = slices.BinarySearchFunc(p.kids, n, less)
	}
	p.kids = slices.Insert(p.kids, i, n)
}

func (a *Allocator) remove(n *node) {
	i := n.parent.position(n, a.stale)
	n.parent.kids = slices.Delete(n.parent.kids, i, i+1)
}

// position returns where n is among the kids: by search while they are in
// order, else by looking at each.
func (p *node) position(n *node, stale bool) int {
	if !stale {
		if i, ok := slices.BinarySearchFunc(p.kids, n, less); ok && p.kids[i] == n {
			return i
		}
	}
	return slices.Index(p.kids, n)
}

// charge adds sign·q to what the leaf and its ancestors use, and moves each to
// its new place.
func (a *Allocator) charge(leaf *node, q []resource.Fixed, sign resource.Fixed, offer bool) {
	for n := leaf; n.parent != nil; n = n.parent {
		moves := n.active && !a.stale
		i := 0
		if moves {
			i = n.parent.position(n, false)
		}
		for len(n.alloc) < len(q) {
			n.alloc = append(n.alloc, 0)
		}
		for d, v := range q {
			n.alloc[d] += sign * v
		}
		if offer {
			n.count++
		}
		n.share = a.shareOf(n)
		if moves {
			n.parent.move(i)
		}
	}
}

// move brings the kid at i, whose share has changed, to its place.
func (p *node) move(i int) {
	kids, n := p.kids, p.kids[i]
	if i > 0 && less(n, kids[i-1]) < 0 {
		j, _ := slices.BinarySearchFunc(kids[:i], n, less)
		copy(kids[j+1:i+1], kids[j:i])
		kids[j] = n
		return
	}
	j, _ := slices.BinarySearchFunc(kids[i+1:], n, less)
	copy(kids[i:i+j], kids[i+1:i+1+j])
	kids[i+j] = n
}

func (a *Allocator) shareOf(n *node) float64 {
	var s float64
	for d, v := range n.alloc {
		if v > 0 && a.total[d] > 0 {
			s = max(s, float64(v)/float64(a.total[d]))
		}
	}
	if n.weight <= 0 {
		return s
	}
	return s / n.weight
}

// resort brings the whole tree up to date after totals or weights changed, in
// O(C log C).
func (a *Allocator) resort() {
	if !a.stale {
		return
	}
	a.stale = false
	var walk func(n *node)
	walk = func(n *node) {
		for _, k := range n.kids {
			k.share = a.shareOf(k)
			walk(k)
		}
		slices.SortFunc(n.kids, less)
	}
	walk(a.root)
}

// dimension returns the index of the scalar name, giving it one when new.
func (a *Allocator) dimension(name string) int {
	if i := slices.Index(a.names, name); i >= 0 {
		return i
	}
	a.names = append(a.names, name)
	a.total = append(a.total, 0)
	return len(a.names) - 1
}

// quantities returns the scalars of r by dimension.
func (a *Allocator) quantities(r resource.Resources) []resource.Fixed {
	q := make([]resource.Fixed, len(a.names), 8)
	for it := range r.All() {
		if it.Kind() != resource.KindScalar {
			continue
		}
		d := a.dimension(it.Name())
		for len(q) <= d {
			q = append(q, 0)
		}
		q[d] += it.Scalar()
	}
	return q
}
