// Package placement is Marathon's constraints: where an instance may be put,
// given where the others of its kind are. It is pure.
package placement

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/resource"
)

// The operators.
const (
	Unique  = "UNIQUE"
	Cluster = "CLUSTER"
	GroupBy = "GROUP_BY"
	Like    = "LIKE"
	Unlike  = "UNLIKE"
	MaxPer  = "MAX_PER"
	Is      = "IS"
)

// Place is where an instance runs or could run, as constraints see it.
type Place struct {
	Host       string            `json:"host"`
	Region     string            `json:"region,omitempty"`
	Zone       string            `json:"zone,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
}

// Of makes the place of an agent or an offer of its parts.
func Of(host string, domain *mesos.DomainInfo, attributes []*mesos.Attribute) Place {
	d := domain.GetFaultDomain()
	p := Place{Host: host, Region: d.GetRegion().GetName(), Zone: d.GetZone().GetName(), Attributes: map[string]string{}}
	for _, a := range attributes {
		if _, ok := p.Attributes[a.GetName()]; !ok { // the first of duplicates counts
			p.Attributes[a.GetName()] = attribute(a)
		}
	}
	return p
}

// attribute writes an agent's attribute as constraints compare it.
func attribute(a *mesos.Attribute) string {
	switch a.GetType() {
	case mesos.Value_SCALAR:
		return resource.Float(a.GetScalar().GetValue()).String()
	case mesos.Value_RANGES:
		var rs []resource.Range
		for _, r := range a.GetRanges().GetRange() {
			rs = append(rs, resource.Range{Begin: r.GetBegin(), End: r.GetEnd()})
		}
		return strings.ReplaceAll(resource.NewRanges(rs...).String(), " ", "")
	case mesos.Value_SET:
		return "{" + strings.Join(slices.Sorted(slices.Values(a.GetSet().GetItem())), ",") + "}"
	}
	return a.GetText().GetValue()
}

// Value returns the place's value of a constraint's field.
func (p Place) Value(field string) (string, bool) {
	switch field {
	case "hostname", "@hostname":
		return p.Host, true
	case "@region":
		return p.Region, p.Region != ""
	case "@zone":
		return p.Zone, p.Zone != ""
	}
	v, ok := p.Attributes[field]
	return v, ok
}

var isValueRE = regexp.MustCompile(`^[a-zA-Z0-9_/.-]*$`)

// Check returns what is wrong with a constraint, in Marathon's words, or "".
// The operator must be in upper case.
func Check(c []string) string {
	if len(c) < 2 || len(c) > 3 {
		return "Each constraint must have either 2 or 3 fields"
	}
	value, given := "", len(c) == 3
	if given {
		value = c[2]
	}
	if c[0] == "" {
		return "Missing field and operator"
	}
	_, notInt := strconv.Atoi(value)
	switch c[1] {
	case Unique:
		if given {
			return "UNIQUE does not accept a value"
		}
	case Cluster:
	case GroupBy:
		if given && value != "" && notInt != nil {
			return "Value was specified but is not a number"
		}
	case Like, Unlike:
		if !given {
			return "A regular expression value must be provided"
		}
		if _, err := regexp.Compile(value); err != nil {
			return fmt.Sprintf("'%s' is not a valid regular expression", value)
		}
	case MaxPer:
		if notInt != nil {
			return "Value was not specified or is not a number"
		}
	case Is:
		if !given {
			return "IS requires a value"
		}
		if !isValueRE.MatchString(value) {
			return "IS only supports scalar and text values: must match " + isValueRE.String()
		}
	default:
		return "operator must be one of the following UNIQUE, CLUSTER, GROUP_BY, LIKE, MAX_PER, UNLIKE or IS"
	}
	return ""
}

// Rules are the constraints of one kind of instance, with where the instances
// are so far. The cost of a question is that of the number of constraints, and
// of the groups of a GROUP_BY.
type Rules []*rule

type rule struct {
	field, op string
	value     string
	number    int
	re        *regexp.Regexp
	count     map[string]int // instances by value of the field
}

// Compile reads constraints that Check finds nothing wrong with. Instances are
// at placed.
func Compile(constraints [][]string, placed []Place) Rules {
	out := make(Rules, 0, len(constraints))
	for _, s := range constraints {
		c := &rule{field: s[0], op: s[1], count: map[string]int{}}
		if len(s) > 2 {
			c.value = s[2]
		}
		switch c.op {
		case Like, Unlike:
			c.re = regexp.MustCompile(`^(?:` + c.value + `)$`)
		case GroupBy, MaxPer:
			c.number, _ = strconv.Atoi(c.value)
		}
		out = append(out, c)
	}
	for _, p := range placed {
		out.Add(p)
	}
	return out
}

// Add counts an instance at p.
func (rs Rules) Add(p Place) {
	for _, c := range rs {
		if v, ok := p.Value(c.field); ok {
			c.count[v]++
		}
	}
}

// Accept reports whether one more instance may be put at p.
func (rs Rules) Accept(p Place) bool { return rs.Against(p) == "" }

// Against returns the first constraint that keeps p from having one more
// instance, with the reason, or "".
func (rs Rules) Against(p Place) string {
	for _, c := range rs {
		if c.accepts(p) {
			continue
		}
		text := c.field + " " + c.op
		if c.value != "" {
			text += " " + c.value
		}
		v, ok := p.Value(c.field)
		if !ok {
			return text + ": the agent has no " + c.field
		}
		return fmt.Sprintf("%s: it is %q, with %d instances there", text, v, c.count[v])
	}
	return ""
}

// Group is how many instances share p's values of the GROUP_BY fields.
func (rs Rules) Group(p Place) int {
	n := 0
	for _, c := range rs {
		if c.op == GroupBy {
			v, _ := p.Value(c.field)
			n += c.count[v]
		}
	}
	return n
}

func (c *rule) accepts(p Place) bool {
	v, ok := p.Value(c.field)
	if !ok {
		return c.op == Unlike
	}
	n := c.count[v]
	switch c.op {
	case Unique:
		return n == 0
	case Cluster:
		if c.value != "" {
			return v == c.value
		}
		return len(c.count) == 0 || n > 0
	case GroupBy:
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
	case Like:
		return c.re.MatchString(v)
	case Unlike:
		return !c.re.MatchString(v)
	case MaxPer:
		return n < c.number
	case Is:
		return v == c.value || sameNumber(v, c.value)
	}
	return false
}

func sameNumber(a, b string) bool {
	x, errX := strconv.ParseFloat(a, 64)
	y, errY := strconv.ParseFloat(b, 64)
	return errX == nil && errY == nil && x == y
}

// Spread returns p's values of the GROUP_BY fields of constraints: instances
// that share it are one group.
func Spread(constraints [][]string, p Place) string {
	key := ""
	for _, s := range constraints {
		if s[1] == GroupBy {
			v, _ := p.Value(s[0])
			key += v + "\x00"
		}
	}
	return key
}
