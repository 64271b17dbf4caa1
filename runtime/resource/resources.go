// Package resource is the algebra of what an agent has: scalars in fixed
// point, ranges and sets, each with the reservations, allocation and volume
// that say who may use it.
//
// A Resources value is immutable and canonical: two values that hold the same
// things are Equal, whatever order they were put together in. Two entries
// merge only when name, type, provider, reservations, allocation, revocable,
// shared and disk are the same; persistent volumes and whole disks (MOUNT,
// BLOCK, RAW with an id) never merge, because half of one is of no use.
//
// All operations are O(n+m) in the number of entries, which is the number of
// names times the number of distinct reservations, usually under ten.
package resource

import (
	"cmp"
	"iter"
	"slices"
	"strings"

	mesos "dcos.example/dcos/runtime/api/mesos"
)

// Names with a meaning of their own.
const (
	CPUs  = "cpus"
	GPUs  = "gpus"
	Mem   = "mem"  // MB
	Disk  = "disk" // MB
	Ports = "ports"
)

// AnyRole is the role of what is not reserved.
const AnyRole = "*"

// Kind is the type of a quantity.
type Kind uint8

const (
	KindScalar Kind = iota
	KindRanges
	KindSet
)

// Reservation is one entry of a reservation stack.
type Reservation struct {
	Static    bool // made by the agent's configuration; cannot be undone
	Role      string
	Principal string
	Labels    *mesos.Labels
}

// meta is what two entries must agree on to merge, besides name, kind and
// allocation. It is immutable; nil means none of it.
type meta struct {
	key          string // canonical form of all fields, compared instead of them
	reservations []Reservation
	provider     string
	revocable    bool
	shared       bool
	disk         *mesos.Resource_DiskInfo
	atomic       bool // never merged nor split
}

// Item is one entry of a Resources.
type Item struct {
	name   string
	kind   Kind
	alloc  string // allocation role, "" when not allocated
	meta   *meta
	scalar Fixed
	ranges Ranges
	set    []string // sorted
}

func (i Item) Name() string   { return i.name }
func (i Item) Kind() Kind     { return i.kind }
func (i Item) Scalar() Fixed  { return i.scalar }
func (i Item) Ranges() Ranges { return i.ranges }
func (i Item) Set() []string  { return i.set }

// AllocationRole is the role i is allocated or offered to, "" for none.
func (i Item) AllocationRole() string { return i.alloc }

// Role is the role i is reserved to (the innermost), or AnyRole.
func (i Item) Role() string {
	if i.meta == nil || len(i.meta.reservations) == 0 {
		return AnyRole
	}
	return i.meta.reservations[len(i.meta.reservations)-1].Role
}

// Reservations is the stack, innermost last. It must not be changed.
func (i Item) Reservations() []Reservation {
	if i.meta == nil {
		return nil
	}
	return i.meta.reservations
}

// Reserved reports whether i is reserved to any role.
func (i Item) Reserved() bool { return i.meta != nil && len(i.meta.reservations) > 0 }

// Dynamic reports whether i's innermost reservation was made at run time.
func (i Item) Dynamic() bool {
	r := i.Reservations()
	return len(r) > 0 && !r[len(r)-1].Static
}

// Refined reports whether i's reservation is more than one deep.
func (i Item) Refined() bool   { return i.meta != nil && len(i.meta.reservations) > 1 }
func (i Item) Revocable() bool { return i.meta != nil && i.meta.revocable }
func (i Item) Shared() bool    { return i.meta != nil && i.meta.shared }

// Disk is the disk's source and volume, nil for a plain quantity. It must not
// be changed.
func (i Item) Disk() *mesos.Resource_DiskInfo {
	if i.meta == nil {
		return nil
	}
	return i.meta.disk
}

// VolumeID is the id of the persistent volume that i is, or "".
func (i Item) VolumeID() string { return i.Disk().GetPersistence().GetId() }

// AllocatableTo reports whether tasks of role may use i: it is not reserved,
// or reserved to role or to an ancestor of role.
func (i Item) AllocatableTo(role string) bool {
	r := i.Role()
	return r == AnyRole || r == role || len(role) > len(r) && role[len(r)] == '/' && role[:len(r)] == r
}

func (i Item) atomic() bool { return i.meta != nil && i.meta.atomic }

func (i Item) empty() bool {
	switch i.kind {
	case KindScalar:
		return i.scalar <= 0
	case KindRanges:
		return len(i.ranges) == 0
	default:
		return len(i.set) == 0
	}
}

// compare orders entries so that those that may merge are equal.
func compare(a, b *Item) int {
	if c := strings.Compare(a.name, b.name); c != 0 {
		return c
	}
	if a.meta != b.meta {
		var ka, kb string
		if a.meta != nil {
			ka = a.meta.key
		}
		if b.meta != nil {
			kb = b.meta.key
		}
		if c := strings.Compare(ka, kb); c != 0 {
			return c
		}
	}
	if c := strings.Compare(a.alloc, b.alloc); c != 0 {
		return c
	}
	if a.kind != b.kind {
		return cmp.Compare(a.kind, b.kind)
	}
	if a.atomic() {
		return cmp.Compare(a.scalar, b.scalar)
	}
	return 0
}

// Resources is an immutable collection of entries. The zero value is empty.
type Resources struct {
	items []Item // sorted by compare; equal neighbours only when atomic
}

// build sorts and merges items, which it owns.
func build(items []Item) Resources {
	items = slices.DeleteFunc(items, Item.empty)
	slices.SortStableFunc(items, func(a, b Item) int { return compare(&a, &b) })
	out := items[:0]
	for i := range items {
		if n := len(out); n > 0 && !items[i].atomic() && compare(&out[n-1], &items[i]) == 0 {
			out[n-1] = merge(out[n-1], &items[i])
			continue
		}
		out = append(out, items[i])
	}
	if len(out) == 0 {
		return Resources{}
	}
	return Resources{out}
}

func merge(a Item, b *Item) Item {
	switch a.kind {
	case KindScalar:
		a.scalar += b.scalar
	case KindRanges:
		a.ranges = a.ranges.Union(b.ranges)
	case KindSet:
		a.set = union(a.set, b.set)
	}
	return a
}

// Empty reports whether r holds nothing.
func (r Resources) Empty() bool { return len(r.items) == 0 }

// Len returns how many entries r has.
func (r Resources) Len() int { return len(r.items) }

// All yields every entry in a stable order.
func (r Resources) All() iter.Seq[Item] { return slices.Values(r.items) }

// Of returns the Resources that hold items.
func Of(items ...Item) Resources { return build(slices.Clone(items)) }

// Add returns r + o.
func (r Resources) Add(o Resources) Resources {
	if len(r.items) == 0 {
		return o
	}
	if len(o.items) == 0 {
		return r
	}
	out := make([]Item, 0, len(r.items)+len(o.items))
	i, j := 0, 0
	for i < len(r.items) && j < len(o.items) {
		a, b := &r.items[i], &o.items[j]
		switch c := compare(a, b); {
		case c < 0 || c == 0 && a.atomic():
			out = append(out, *a)
			i++
		case c > 0:
			out = append(out, *b)
			j++
		default:
			out = append(out, merge(*a, b))
			i, j = i+1, j+1
		}
	}
	out = append(out, r.items[i:]...)
	return Resources{append(out, o.items[j:]...)}
}

// Sub returns r without what o holds. What o has and r has not is ignored;
// a scalar does not go below zero.
func (r Resources) Sub(o Resources) Resources {
	if len(r.items) == 0 || len(o.items) == 0 {
		return r
	}
	out := make([]Item, 0, len(r.items))
	j := 0
	for i := range r.items {
		a := &r.items[i]
		for j < len(o.items) && compare(&o.items[j], a) < 0 {
			j++
		}
		if j == len(o.items) || compare(&o.items[j], a) != 0 {
			out = append(out, *a)
			continue
		}
		b := &o.items[j]
		j++
		if a.atomic() {
			continue
		}
		left := *a
		switch a.kind {
		case KindScalar:
			left.scalar -= b.scalar
		case KindRanges:
			left.ranges = a.ranges.Minus(b.ranges)
		case KindSet:
			left.set = minus(a.set, b.set)
		}
		if !left.empty() {
			out = append(out, left)
		}
	}
	if len(out) == 0 {
		return Resources{}
	}
	return Resources{out}
}

// Contains reports whether o can be taken from r entirely.
func (r Resources) Contains(o Resources) bool {
	i := 0
	for j := range o.items {
		b := &o.items[j]
		for i < len(r.items) && compare(&r.items[i], b) < 0 {
			i++
		}
		if i == len(r.items) || compare(&r.items[i], b) != 0 {
			return false
		}
		a := &r.items[i]
		i++
		if a.atomic() {
			continue
		}
		switch a.kind {
		case KindScalar:
			if a.scalar < b.scalar {
				return false
			}
		case KindRanges:
			if !a.ranges.Contains(b.ranges) {
				return false
			}
		case KindSet:
			if len(minus(b.set, a.set)) > 0 {
				return false
			}
		}
	}
	return true
}

// Equal reports whether r and o hold the same.
func (r Resources) Equal(o Resources) bool {
	return slices.EqualFunc(r.items, o.items, func(a, b Item) bool {
		return compare(&a, &b) == 0 && a.scalar == b.scalar && a.ranges.Equal(b.ranges) && slices.Equal(a.set, b.set)
	})
}

// Filter returns the entries that keep accepts.
func (r Resources) Filter(keep func(Item) bool) Resources {
	all := true
	n := 0
	for i := range r.items {
		if keep(r.items[i]) {
			n++
		} else {
			all = false
		}
	}
	if all {
		return r
	}
	if n == 0 {
		return Resources{}
	}
	out := make([]Item, 0, n)
	for i := range r.items {
		if keep(r.items[i]) {
			out = append(out, r.items[i])
		}
	}
	return Resources{out}
}

// Scalar returns the sum of all scalars called name, whoever they are
// reserved or allocated to.
func (r Resources) Scalar(name string) Fixed {
	var sum Fixed
	for i := range r.items {
		if it := &r.items[i]; it.kind == KindScalar && it.name == name {
			sum += it.scalar
		}
	}
	return sum
}

// Ranges returns the union of all ranges called name.
func (r Resources) Ranges(name string) Ranges {
	var out Ranges
	for i := range r.items {
		if it := &r.items[i]; it.kind == KindRanges && it.name == name {
			out = out.Union(it.ranges)
		}
	}
	return out
}

// Ports returns the union of all "ports" ranges.
func (r Resources) Ports() Ranges { return r.Ranges(Ports) }

func union(a, b []string) []string {
	out := append(slices.Clone(a), b...)
	slices.Sort(out)
	return slices.Compact(out)
}

// minus returns sorted a without the members of sorted b.
func minus(a, b []string) []string {
	var out []string
	for _, s := range a {
		if _, found := slices.BinarySearch(b, s); !found {
			out = append(out, s)
		}
	}
	return out
}
