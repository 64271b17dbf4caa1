package resource

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"

	"dcos.example/dcos/runtime/fault"
)

// Range is the whole numbers from Begin to End, both included.
type Range struct{ Begin, End uint64 }

// Ranges is a set of whole numbers: sorted, neither overlapping nor touching.
// A Ranges is never changed after it is made.
type Ranges []Range

// NewRanges returns the union of rs, which may overlap and be in any order.
// A range that ends before it begins is empty.
func NewRanges(rs ...Range) Ranges {
	out := make(Ranges, 0, len(rs))
	for _, r := range rs {
		if r.Begin <= r.End {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b Range) int { return cmp.Compare(a.Begin, b.Begin) })
	return coalesce(out)
}

// coalesce joins touching neighbours of sorted rs in place.
func coalesce(rs Ranges) Ranges {
	if len(rs) == 0 {
		return nil
	}
	n := 0
	for _, r := range rs[1:] {
		last := &rs[n]
		if r.Begin <= last.End || r.Begin == last.End+1 {
			last.End = max(last.End, r.End)
			continue
		}
		n++
		rs[n] = r
	}
	return rs[:n+1]
}

// Union returns a ∪ b in O(len(a)+len(b)).
func (a Ranges) Union(b Ranges) Ranges {
	if len(a) == 0 {
		return b
	}
	if len(b) == 0 {
		return a
	}
	out := make(Ranges, 0, len(a)+len(b))
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		if j == len(b) || i < len(a) && a[i].Begin <= b[j].Begin {
			out = append(out, a[i])
			i++
		} else {
			out = append(out, b[j])
			j++
		}
	}
	return coalesce(out)
}

// Minus returns a \ b in O(len(a)+len(b)).
func (a Ranges) Minus(b Ranges) Ranges {
	if len(a) == 0 || len(b) == 0 {
		return a
	}
	out := make(Ranges, 0, len(a)+len(b))
	j := 0
	for _, r := range a {
		for j < len(b) && b[j].End < r.Begin {
			j++
		}
		begin, done := r.Begin, false
		for k := j; k < len(b) && b[k].Begin <= r.End; k++ {
			if b[k].Begin > begin {
				out = append(out, Range{begin, b[k].Begin - 1})
			}
			if b[k].End >= r.End || b[k].End == math.MaxUint64 {
				done = true
				break
			}
			begin = b[k].End + 1
		}
		if !done {
			out = append(out, Range{begin, r.End})
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// Intersect returns a ∩ b.
func (a Ranges) Intersect(b Ranges) Ranges {
	var out Ranges
	i, j := 0, 0
	for i < len(a) && j < len(b) {
		lo, hi := max(a[i].Begin, b[j].Begin), min(a[i].End, b[j].End)
		if lo <= hi {
			out = append(out, Range{lo, hi})
		}
		if a[i].End < b[j].End {
			i++
		} else {
			j++
		}
	}
	return out
}

// Contains reports whether b ⊆ a.
func (a Ranges) Contains(b Ranges) bool {
	i := 0
	for _, r := range b {
		for i < len(a) && a[i].End < r.Begin {
			i++
		}
		if i == len(a) || a[i].Begin > r.Begin || a[i].End < r.End {
			return false
		}
	}
	return true
}

// Has reports whether n is in a, in O(log len(a)).
func (a Ranges) Has(n uint64) bool {
	i, found := slices.BinarySearchFunc(a, n, func(r Range, n uint64) int { return cmp.Compare(r.Begin, n) })
	return found || i > 0 && n <= a[i-1].End
}

// Count returns how many numbers are in a.
func (a Ranges) Count() uint64 {
	var n uint64
	for _, r := range a {
		n += r.End - r.Begin + 1
	}
	return n
}

// At returns the i-th smallest number in a; i must be below Count.
func (a Ranges) At(i uint64) uint64 {
	for _, r := range a {
		if size := r.End - r.Begin + 1; i < size {
			return r.Begin + i
		} else {
			i -= size
		}
	}
	panic("resource: Ranges.At beyond Count")
}

// Equal reports whether a and b are the same set.
func (a Ranges) Equal(b Ranges) bool { return slices.Equal(a, b) }

// String writes a as Mesos does: "[1-5, 7-7]".
func (a Ranges) String() string {
	b := []byte{'['}
	for i, r := range a {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = strconv.AppendUint(b, r.Begin, 10)
		b = append(b, '-')
		b = strconv.AppendUint(b, r.End, 10)
	}
	return string(append(b, ']'))
}

// ParseRanges reads "[1-5,7-7]"; a single number stands for itself.
func ParseRanges(s string) (Ranges, error) {
	const op = "parse ranges"
	t := strings.TrimSpace(s)
	if len(t) < 2 || t[0] != '[' || t[len(t)-1] != ']' {
		return nil, fault.Newf(op, fault.Invalid, "%q is not of the form [1-5,7-7]", s)
	}
	var rs []Range
	if t = strings.TrimSpace(t[1 : len(t)-1]); t == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(t, ",") {
		lo, hi, two := strings.Cut(part, "-")
		if !two {
			hi = lo
		}
		b, err := strconv.ParseUint(strings.TrimSpace(lo), 10, 64)
		if err != nil {
			return nil, fault.Newf(op, fault.Invalid, "%q in %q is not a whole number", lo, s)
		}
		e, err := strconv.ParseUint(strings.TrimSpace(hi), 10, 64)
		if err != nil {
			return nil, fault.Newf(op, fault.Invalid, "%q in %q is not a whole number", hi, s)
		}
		if e < b {
			return nil, fault.Newf(op, fault.Invalid, "range %q ends before it begins", part)
		}
		rs = append(rs, Range{b, e})
	}
	return NewRanges(rs...), nil
}
