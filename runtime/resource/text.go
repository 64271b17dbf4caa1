package resource

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/fault"
)

// Parse reads Mesos' text form, "cpus(role):4;mem:1024;ports:[1-5,7-7];s:{a,b}",
// or a JSON array of Resource. A role in parentheses is a static reservation.
// All problems are returned at once.
func Parse(text string) (Resources, error) {
	const op = "parse resources"
	t := strings.TrimSpace(text)
	if strings.HasPrefix(t, "[") {
		return parseJSON(t)
	}
	var items []Item
	var errs []error
	for part := range strings.SplitSeq(t, ";") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		it, err := parseItem(part)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		items = append(items, it)
	}
	if len(errs) > 0 {
		return Resources{}, fault.New(op, fault.Invalid, errors.Join(errs...))
	}
	return build(items), nil
}

// MustParse is Parse for text that is part of the program.
func MustParse(text string) Resources {
	r, err := Parse(text)
	if err != nil {
		panic(err)
	}
	return r
}

func parseItem(part string) (Item, error) {
	const op = "parse resource"
	name, value, ok := strings.Cut(part, ":")
	if !ok {
		return Item{}, fault.Newf(op, fault.Invalid, "%q is not of the form name:value", part)
	}
	it := Item{name: strings.TrimSpace(name)}
	if open := strings.IndexByte(it.name, '('); open >= 0 {
		role, ok := strings.CutSuffix(it.name[open+1:], ")")
		if !ok {
			return it, fault.Newf(op, fault.Invalid, "%q: the role's parenthesis is not closed", part)
		}
		it.name, role = strings.TrimSpace(it.name[:open]), strings.TrimSpace(role)
		if err := CheckRole(role); err != nil {
			return it, err
		}
		if role != AnyRole {
			it.meta = seal(meta{reservations: []Reservation{{Static: true, Role: role}}})
		}
	}
	if it.name == "" {
		return it, fault.Newf(op, fault.Invalid, "%q has no name", part)
	}
	value = strings.TrimSpace(value)
	var err error
	switch {
	case strings.HasPrefix(value, "["):
		it.kind = KindRanges
		it.ranges, err = ParseRanges(value)
	case strings.HasPrefix(value, "{"):
		it.kind = KindSet
		inner, ok := strings.CutSuffix(value[1:], "}")
		if !ok {
			return it, fault.Newf(op, fault.Invalid, "%q: the set's brace is not closed", part)
		}
		for s := range strings.SplitSeq(inner, ",") {
			if s = strings.TrimSpace(s); s != "" {
				it.set = append(it.set, s)
			}
		}
		slices.Sort(it.set)
		it.set = slices.Compact(it.set)
	default:
		it.kind = KindScalar
		it.scalar, err = ParseFixed(value)
		if err == nil && it.name == GPUs && it.scalar%Unit != 0 {
			err = fault.Newf(op, fault.Invalid, "%q: gpus must be a whole number", part)
		}
	}
	return it, err
}

func parseJSON(text string) (Resources, error) {
	const op = "parse resources"
	var raws []json.RawMessage
	if err := json.Unmarshal([]byte(text), &raws); err != nil {
		return Resources{}, fault.New(op, fault.Invalid, err)
	}
	var ps []*mesos.Resource
	for _, raw := range raws {
		p := new(mesos.Resource)
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(raw, p); err != nil {
			return Resources{}, fault.New(op, fault.Invalid, err)
		}
		ps = append(ps, p)
	}
	return FromProto(ps)
}

// String writes r in the text form. Only plain quantities and static
// reservations can be read back with Parse; other metadata is written for
// people.
func (r Resources) String() string {
	parts := make([]string, len(r.items))
	for i, it := range r.items {
		parts[i] = it.String()
	}
	return strings.Join(parts, ";")
}

// String writes one entry: "cpus(role):4".
func (i Item) String() string {
	var b strings.Builder
	b.WriteString(i.name)
	if i.alloc != "" {
		b.WriteString("(allocated: " + i.alloc + ")")
	}
	switch rs := i.Reservations(); {
	case len(rs) == 1 && rs[0].Static:
		b.WriteString("(" + rs[0].Role + ")")
	case len(rs) > 0:
		b.WriteString("(reservations: [")
		for k, r := range rs {
			if k > 0 {
				b.WriteString(", ")
			}
			kind := "DYNAMIC"
			if r.Static {
				kind = "STATIC"
			}
			b.WriteString("(" + kind + "," + r.Role)
			if r.Principal != "" {
				b.WriteString("," + r.Principal)
			}
			b.WriteString(")")
		}
		b.WriteString("])")
	}
	if d := i.Disk(); d != nil {
		b.WriteString("[" + d.GetSource().GetType().String() + "," + i.VolumeID() + "]")
	}
	if i.Revocable() {
		b.WriteString("{REV}")
	}
	if i.Shared() {
		b.WriteString("<SHARED>")
	}
	b.WriteByte(':')
	switch i.kind {
	case KindScalar:
		b.WriteString(i.scalar.String())
	case KindRanges:
		b.WriteString(i.ranges.String())
	case KindSet:
		b.WriteString("{" + strings.Join(i.set, ", ") + "}")
	}
	return b.String()
}

// ParseAttribute reads one attribute's value: a number is a scalar, [..] are
// ranges, anything else is text.
func ParseAttribute(name, value string) (*mesos.Attribute, error) {
	a := &mesos.Attribute{Name: proto.String(name)}
	value = strings.TrimSpace(value)
	if name == "" || value == "" {
		return nil, fault.Newf("parse attribute", fault.Invalid, "%q:%q needs a name and a value", name, value)
	}
	if value[0] == '[' {
		rs, err := ParseRanges(value)
		if err != nil {
			return nil, err
		}
		a.Type, a.Ranges = mesos.Value_RANGES.Enum(), rs.Proto()
		return a, nil
	}
	if v, err := strconv.ParseFloat(value, 64); err == nil {
		a.Type, a.Scalar = mesos.Value_SCALAR.Enum(), &mesos.Value_Scalar{Value: proto.Float64(v)}
		return a, nil
	}
	a.Type, a.Text = mesos.Value_TEXT.Enum(), &mesos.Value_Text{Value: proto.String(value)}
	return a, nil
}

// Attributes reads a map of attributes, sorted by name.
func Attributes(m map[string]string) ([]*mesos.Attribute, error) {
	var out []*mesos.Attribute
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(m)) {
		a, err := ParseAttribute(name, m[name])
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out = append(out, a)
	}
	return out, errors.Join(errs...)
}

// AttributeText writes a's value as text, as constraints compare it.
func AttributeText(a *mesos.Attribute) string {
	switch a.GetType() {
	case mesos.Value_SCALAR:
		return Float(a.GetScalar().GetValue()).String()
	case mesos.Value_RANGES:
		return rangesFromProto(a.GetRanges()).String()
	case mesos.Value_SET:
		return "{" + strings.Join(a.GetSet().GetItem(), ", ") + "}"
	default:
		return a.GetText().GetValue()
	}
}

func rangesFromProto(p *mesos.Value_Ranges) Ranges {
	rs := make([]Range, 0, len(p.GetRange()))
	for _, r := range p.GetRange() {
		rs = append(rs, Range{r.GetBegin(), r.GetEnd()})
	}
	return NewRanges(rs...)
}
