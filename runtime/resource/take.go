package resource

import (
	"slices"
)

// Take draws amount of the scalar name from r for a launch: first from what is
// reserved to roles, in their order, where AnyRole stands for what is not
// reserved. Without roles everything counts, reserved before unreserved.
// Volumes and whole disks are never drawn from. It returns what was taken and
// what is left; ok is false, and nothing taken, when r has too little.
func (r Resources) Take(name string, amount Fixed, roles ...string) (taken, left Resources, ok bool) {
	if amount <= 0 {
		return Resources{}, r, true
	}
	var got []Item
	need := amount
	r.eachUsable(name, KindScalar, roles, func(it Item) bool {
		n := min(need, it.scalar)
		it.scalar = n
		got = append(got, it)
		need -= n
		return need > 0
	})
	if need > 0 {
		return Resources{}, r, false
	}
	taken = build(got)
	return taken, r.Sub(taken), true
}

// TakePorts draws exactly the given ports, each once, in the order of
// reservations that Take uses.
func (r Resources) TakePorts(ports []uint64, roles ...string) (taken, left Resources, ok bool) {
	want := make([]Range, len(ports))
	for i, p := range ports {
		want[i] = Range{p, p}
	}
	need := NewRanges(want...)
	if need.Count() != uint64(len(ports)) {
		return Resources{}, r, false
	}
	var got []Item
	r.eachUsable(Ports, KindRanges, roles, func(it Item) bool {
		if it.ranges = it.ranges.Intersect(need); len(it.ranges) > 0 {
			need = need.Minus(it.ranges)
			got = append(got, it)
		}
		return len(need) > 0
	})
	if len(need) > 0 {
		return Resources{}, r, false
	}
	taken = build(got)
	return taken, r.Sub(taken), true
}

// PortsFor returns the ports that TakePorts could draw for roles.
func (r Resources) PortsFor(roles ...string) Ranges {
	var out Ranges
	r.eachUsable(Ports, KindRanges, roles, func(it Item) bool {
		out = out.Union(it.ranges)
		return true
	})
	return out
}

// eachUsable calls f for the divisible entries called name in the order a
// launch uses them, until f returns false.
func (r Resources) eachUsable(name string, kind Kind, roles []string, f func(Item) bool) {
	if len(roles) == 0 {
		roles = append(r.ReservedRoles(), AnyRole)
	}
	for k, role := range roles {
		if slices.Contains(roles[:k], role) {
			continue
		}
		for _, it := range r.items {
			if it.name == name && it.kind == kind && it.Role() == role && !it.atomic() && it.Disk() == nil && !f(it) {
				return
			}
		}
	}
}
