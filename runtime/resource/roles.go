package resource

import (
	"errors"
	"slices"
	"strings"
	"unicode"

	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/fault"
)

// CheckRole returns what is wrong with role as the name of a role. AnyRole is
// valid.
func CheckRole(role string) error {
	const op = "check role"
	if role == AnyRole {
		return nil
	}
	if role == "" {
		return fault.Newf(op, fault.Invalid, "Empty role name is invalid")
	}
	for part := range strings.SplitSeq(role, "/") {
		switch {
		case part == "":
			return fault.Newf(op, fault.Invalid, "Role '%s' is invalid: it has an empty path component", role)
		case part == "." || part == "..":
			return fault.Newf(op, fault.Invalid, "Role name '%s' is invalid: '%s' is not a name", role, part)
		case part == AnyRole:
			return fault.Newf(op, fault.Invalid, "Role name '%s' is invalid: '*' cannot be nested", role)
		case part[0] == '-':
			return fault.Newf(op, fault.Invalid, "Role name '%s' is invalid: it starts with '-'", role)
		case strings.ContainsFunc(part, func(r rune) bool { return unicode.IsSpace(r) || r == '\b' }):
			return fault.Newf(op, fault.Invalid, "Role name '%s' is invalid: it contains whitespace or backspace", role)
		}
	}
	return nil
}

// IsAncestor reports whether role lies strictly below ancestor.
func IsAncestor(ancestor, role string) bool {
	return len(role) > len(ancestor) && role[len(ancestor)] == '/' && role[:len(ancestor)] == ancestor
}

// Allocate returns r marked as allocated to role.
func (r Resources) Allocate(role string) Resources {
	return r.mapItems(func(i Item) Item { i.alloc = role; return i })
}

// Unallocate returns r without allocation.
func (r Resources) Unallocate() Resources { return r.Allocate("") }

// AllocationRoles returns the roles that r is allocated to, sorted.
func (r Resources) AllocationRoles() []string {
	var out []string
	for i := range r.items {
		if a := r.items[i].alloc; a != "" && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	slices.Sort(out)
	return out
}

// AllocatableTo returns what tasks of role may use: what is not reserved and
// what is reserved to role or an ancestor of it.
func (r Resources) AllocatableTo(role string) Resources {
	return r.Filter(func(i Item) bool { return i.AllocatableTo(role) })
}

// Reserved returns what is reserved to role; to any role when role is "".
func (r Resources) Reserved(role string) Resources {
	return r.Filter(func(i Item) bool { return i.Reserved() && (role == "" || i.Role() == role) })
}

// Unreserved returns what is reserved to no role.
func (r Resources) Unreserved() Resources {
	return r.Filter(func(i Item) bool { return !i.Reserved() })
}

// ReservedRoles returns the roles with reservations in r, sorted.
func (r Resources) ReservedRoles() []string {
	var out []string
	for i := range r.items {
		if role := r.items[i].Role(); role != AnyRole && !slices.Contains(out, role) {
			out = append(out, role)
		}
	}
	slices.Sort(out)
	return out
}

// Revocable and NonRevocable split r by whether the agent may take it back.
func (r Resources) Revocable() Resources { return r.Filter(Item.Revocable) }
func (r Resources) NonRevocable() Resources {
	return r.Filter(func(i Item) bool { return !i.Revocable() })
}

// Distinct returns r with each shared volume once, however many copies of it
// are in use.
func (r Resources) Distinct() Resources {
	if !slices.ContainsFunc(r.items, Item.Shared) {
		return r
	}
	return Resources{slices.CompactFunc(slices.Clone(r.items), func(a, b Item) bool {
		return a.Shared() && compare(&a, &b) == 0
	})}
}

// Exclusive returns what of r only one can have at a time: all but shared
// volumes.
func (r Resources) Exclusive() Resources { return r.Filter(func(i Item) bool { return !i.Shared() }) }

// Checkpointed returns what an agent must keep on disk: dynamic reservations
// and persistent volumes.
func (r Resources) Checkpointed() Resources {
	return r.Filter(func(i Item) bool { return i.Dynamic() || i.VolumeID() != "" })
}

// Configured returns r as the agent's configuration has it: without volumes and
// dynamic reservations.
func (r Resources) Configured() Resources {
	return r.WithoutVolumes().mapItems(func(i Item) Item {
		if i.Dynamic() {
			m := metaOf(i)
			m.reservations = nil
			if first := i.meta.reservations[0]; first.Static {
				m.reservations = []Reservation{first}
			}
			i.meta = seal(m)
		}
		return i
	})
}

// Flatten returns the bare quantities: without reservations, allocation and
// volumes, merged by name.
func (r Resources) Flatten() Resources {
	return r.mapItems(func(i Item) Item { i.alloc, i.meta = "", nil; return i })
}

// Push returns r with res pushed on every entry's reservation stack.
func (r Resources) Push(res Reservation) (Resources, error) {
	const op = "reserve resources"
	if res.Role == AnyRole {
		return Resources{}, fault.Newf(op, fault.Invalid, "role '*' cannot be reserved")
	}
	if err := CheckRole(res.Role); err != nil {
		return Resources{}, err
	}
	var bad error
	out := r.mapItems(func(i Item) Item {
		if role := i.Role(); role != AnyRole && !IsAncestor(role, res.Role) {
			bad = fault.Newf(op, fault.Invalid, "'%s' does not refine '%s'", res.Role, role)
		}
		m := metaOf(i)
		m.reservations = append(slices.Clone(m.reservations), res)
		i.meta = seal(m)
		return i
	})
	return out, bad
}

// Assign returns r with part, which is bare quantities, moved from what from
// holds (AnyRole, or a role by static reservation) to a static reservation of
// role.
func (r Resources) Assign(from, role string, part Resources) (Resources, error) {
	const op = "reserve resources"
	if role == AnyRole || role == from {
		return Resources{}, fault.Newf(op, fault.Invalid, "role '%s' has them already", role)
	}
	if err := CheckRole(role); err != nil {
		return Resources{}, err
	}
	held := func(role string) *meta {
		if role == AnyRole {
			return nil
		}
		return seal(meta{reservations: []Reservation{{Static: true, Role: role}}})
	}
	was, now := held(from), held(role)
	var errs []error
	for it := range part.All() {
		if it.meta != nil || it.alloc != "" {
			errs = append(errs, fault.Newf(op, fault.Invalid, "'%s' is more than a quantity", it))
			continue
		}
		it.meta = was
		if !r.Contains(Of(it)) {
			left := r.Filter(func(i Item) bool { return i.name == it.name && i.Role() == from })
			it.meta = nil
			errs = append(errs, fault.Newf(op, fault.Invalid, "%s are not there for role '%s': left are '%s'", it, role, left.Flatten()))
			continue
		}
		r = r.Sub(Of(it))
		it.meta = now
		r = r.Add(Of(it))
	}
	return r, errors.Join(errs...)
}

// Pop returns r with the innermost reservation of every entry removed.
func (r Resources) Pop() (Resources, error) {
	const op = "unreserve resources"
	var bad error
	out := r.mapItems(func(i Item) Item {
		switch {
		case !i.Dynamic():
			bad = fault.Newf(op, fault.Invalid, "%s is not dynamically reserved", i)
			return i
		case i.VolumeID() != "":
			bad = fault.Newf(op, fault.Invalid, "persistent volume %s must be destroyed first", i.VolumeID())
			return i
		}
		m := metaOf(i)
		m.reservations = m.reservations[:len(m.reservations)-1]
		i.meta = seal(m)
		return i
	})
	return out, bad
}

// WithoutVolumes returns r with persistent volumes turned back into the disk
// they were made from.
func (r Resources) WithoutVolumes() Resources {
	return r.mapItems(func(i Item) Item {
		if i.VolumeID() == "" {
			return i
		}
		m := metaOf(i)
		m.shared = false
		if src := m.disk.GetSource(); src != nil {
			m.disk = &mesos.Resource_DiskInfo{Source: src}
		} else {
			m.disk = nil
		}
		i.meta = seal(m)
		return i
	})
}

func (r Resources) mapItems(f func(Item) Item) Resources {
	if len(r.items) == 0 {
		return r
	}
	out := make([]Item, len(r.items))
	for i := range r.items {
		out[i] = f(r.items[i])
	}
	return build(out)
}

func metaOf(i Item) meta {
	if i.meta == nil {
		return meta{}
	}
	return *i.meta
}
