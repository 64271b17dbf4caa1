package launch

import (
	"regexp"
	"strconv"
)

// constraint is a constraint of an app with what its instances have of the
// field so far.
type constraint struct {
	field, op string
	value     string
	number    int
	re        *regexp.Regexp
	count     map[string]int // instances by value of the field
}

func compile(specs [][]string, placed []Place) []*constraint {
	out := make([]*constraint, 0, len(specs))
	for _, s := range specs {
		c := &constraint{field: s[0], op: s[1], count: map[string]int{}}
		if len(s) > 2 {
			c.value = s[2]
		}
		switch c.op {
		case "LIKE", "UNLIKE":
			c.re = regexp.MustCompile(`^(?:` + c.value + `)$`) // checked when the app was read
		case "GROUP_BY", "MAX_PER":
			c.number, _ = strconv.Atoi(c.value)
		}
		for _, p := range placed {
			c.add(p)
		}
		out = append(out, c)
	}
	return out
}

func (c *constraint) add(p Place) {
	if v, ok := p.value(c.field); ok {
		c.count[v]++
	}
}

// accepts reports whether one more instance may be put at p.
func (c *constraint) accepts(p Place) bool {
	v, ok := p.value(c.field)
	if !ok {
		return c.op == "UNLIKE"
	}
	n := c.count[v]
	switch c.op {
	case "UNIQUE":
		return n == 0
	case "CLUSTER":
		if c.value != "" {
			return v == c.value
		}
		return len(c.count) == 0 || n > 0
	case "GROUP_BY":
		// A new group is always welcome; a known one only if no other has
		// less, and once as many groups as asked for have been seen.
		if n == 0 {
			return true
		}
		for _, other := range c.count {
			if other < n {
				return false
			}
		}
		return len(c.count) >= c.number
	case "LIKE":
		return c.re.MatchString(v)
	case "UNLIKE":
		return !c.re.MatchString(v)
	case "MAX_PER":
		return n < c.number
	case "IS":
		return v == c.value || sameNumber(v, c.value)
	}
	return false
}

func sameNumber(a, b string) bool {
	x, errX := strconv.ParseFloat(a, 64)
	y, errY := strconv.ParseFloat(b, 64)
	return errX == nil && errY == nil && x == y
}

// Spread returns p's values of the GROUP_BY fields of an app's constraints:
// instances that share it are one group.
func Spread(specs [][]string, p Place) string {
	key := ""
	for _, s := range specs {
		if s[1] == "GROUP_BY" {
			v, _ := p.value(s[0])
			key += v + "\x00"
		}
	}
	return key
}
