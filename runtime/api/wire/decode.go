package wire

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// maxDepth bounds how deep messages may nest, so that hostile input cannot
// exhaust the stack.
const maxDepth = 100

// decode reads one JSON object over m. The text is checked as a whole first;
// the walk after that can trust its structure.
func decode(b []byte, m proto.Message) error {
	if !json.Valid(b) {
		var raw json.RawMessage
		if err := json.Unmarshal(b, &raw); err != nil {
			return fmt.Errorf("not JSON: %w", err)
		}
		return errors.New("not JSON")
	}
	proto.Reset(m)
	d := decoder{b: b}
	d.space()
	if d.peek() != '{' {
		return fmt.Errorf("must be a JSON object, is %s", d.what())
	}
	if err := d.message(m.ProtoReflect(), 0); err != nil {
		return err
	}
	return proto.CheckInitialized(m)
}

// decoder walks text that is known to be valid JSON. Every method starts at
// the first byte of its value and leaves the position after it and after the
// white space that follows. Cost is linear in the text.
type decoder struct {
	b   []byte
	pos int
}

func (d *decoder) peek() byte { return d.b[d.pos] }

func (d *decoder) space() {
	for d.pos < len(d.b) {
		switch d.b[d.pos] {
		case ' ', '\t', '\n', '\r':
			d.pos++
		default:
			return
		}
	}
}

// next steps over one structural byte.
func (d *decoder) next() {
	d.pos++
	d.space()
}

// what names the value ahead for error messages.
func (d *decoder) what() string {
	switch c := d.peek(); c {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	default:
		return "a number"
	}
}

// quoted returns the string ahead without its quotes, still escaped, and
// whether it has escapes.
func (d *decoder) quoted() (text []byte, escaped bool) {
	d.pos++
	start := d.pos
	for d.b[d.pos] != '"' {
		if d.b[d.pos] == '\\' {
			escaped = true
			d.pos++
		}
		d.pos++
	}
	text = d.b[start:d.pos]
	d.next()
	return text, escaped
}

func (d *decoder) text() string {
	start := d.pos
	text, escaped := d.quoted()
	if !escaped {
		return strings.ToValidUTF8(string(text), "\ufffd")
	}
	var s string
	_ = json.Unmarshal(d.b[start:start+len(text)+2], &s) // cannot fail: the text is valid JSON
	return s
}

// literal returns the number, boolean or null ahead.
func (d *decoder) literal() string {
	start := d.pos
	for d.pos < len(d.b) {
		switch d.b[d.pos] {
		case ',', '}', ']', ' ', '\t', '\n', '\r':
			s := string(d.b[start:d.pos])
			d.space()
			return s
		}
		d.pos++
	}
	return string(d.b[start:])
}

// skip steps over any value without recursion.
func (d *decoder) skip() {
	depth := 0
	for {
		switch d.peek() {
		case '{', '[':
			depth++
			d.next()
		case '}', ']':
			depth--
			d.next()
		case '"':
			d.quoted()
		case ',', ':':
			d.next()
		default:
			d.literal()
		}
		if depth == 0 {
			return
		}
	}
}

// object calls entry for each key, positioned at the value, which entry must
// consume.
func (d *decoder) object(entry func(key string) error) error {
	d.next()
	for d.peek() != '}' {
		key := d.text()
		d.next() // the colon
		if err := entry(key); err != nil {
			return err
		}
		if d.peek() == ',' {
			d.next()
		}
	}
	d.next()
	return nil
}

func (d *decoder) message(m protoreflect.Message, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("nested deeper than %d messages", maxDepth)
	}
	l := layoutOf(m.Descriptor())
	return d.object(func(key string) error {
		f := l.byName[key]
		if f == nil {
			d.skip()
			return nil
		}
		if err := d.field(m, f, depth); err != nil {
			return at(key, err)
		}
		return nil
	})
}

// at puts the field's name before err, so that errors read "a.b.c: why".
func at(key string, err error) error {
	if p, ok := errors.AsType[*pathError](err); ok {
		return &pathError{key + "." + p.path, p.err}
	}
	return &pathError{key, err}
}

type pathError struct {
	path string
	err  error
}

func (e *pathError) Error() string { return e.path + ": " + e.err.Error() }
func (e *pathError) Unwrap() error { return e.err }

func (d *decoder) field(m protoreflect.Message, f *field, depth int) error {
	m.Clear(f.FieldDescriptor) // of a key given twice the last one counts
	if d.peek() == 'n' {
		d.literal()
		return nil
	}
	switch f.shape {
	case dictionary:
		return d.dictionary(m.Mutable(f.FieldDescriptor).Map(), f, depth)
	case list:
		vs := m.Mutable(f.FieldDescriptor).List()
		if d.peek() != '[' { // a single value stands for a list of one
			return d.element(vs, f, depth)
		}
		d.next()
		for d.peek() != ']' {
			if err := d.element(vs, f, depth); err != nil {
				return err
			}
			if d.peek() == ',' {
				d.next()
			}
		}
		d.next()
		return nil
	}
	v, ok, err := d.value(f, depth, func() protoreflect.Value { return m.NewField(f.FieldDescriptor) })
	if err == nil && ok {
		m.Set(f.FieldDescriptor, v)
	}
	return err
}

func (d *decoder) element(vs protoreflect.List, f *field, depth int) error {
	if d.peek() == 'n' {
		d.literal()
		return nil
	}
	v, ok, err := d.value(f, depth, vs.NewElement)
	if err == nil && ok {
		vs.Append(v)
	}
	return err
}

func (d *decoder) dictionary(m protoreflect.Map, f *field, depth int) error {
	if d.peek() != '{' {
		return fmt.Errorf("must be an object, is %s", d.what())
	}
	return d.object(func(k string) error {
		if d.peek() == 'n' {
			d.literal()
			return nil
		}
		kv, _, err := f.mapKey.fromString(k)
		if err != nil {
			return at(k, err)
		}
		v, ok, err := d.value(f.mapValue, depth, m.NewValue)
		if err != nil {
			return at(k, err)
		}
		if ok {
			m.Set(kv.MapKey(), v)
		}
		return nil
	})
}

// value reads one value of f's kind. False means: leave the field unset.
func (d *decoder) value(f *field, depth int, fresh func() protoreflect.Value) (protoreflect.Value, bool, error) {
	c := d.peek()
	if f.kind == protoreflect.MessageKind || f.kind == protoreflect.GroupKind {
		v := fresh()
		switch {
		case c == '{':
			return v, true, d.message(v.Message(), depth+1)
		case c == '"' && f.Message().FullName() == "google.protobuf.Duration":
			return v, true, setDuration(v.Message(), d.text())
		}
		return v, false, fmt.Errorf("must be an object, is %s", d.what())
	}
	switch c {
	case '"':
		return f.fromString(d.text())
	case '{', '[':
		return protoreflect.Value{}, false, fmt.Errorf("must be a %s, is %s", f.kind, d.what())
	case 't', 'f':
		if f.kind != protoreflect.BoolKind {
			return protoreflect.Value{}, false, fmt.Errorf("must be a %s, is a boolean", f.kind)
		}
		return protoreflect.ValueOfBool(d.literal() == "true"), true, nil
	}
	switch f.kind {
	case protoreflect.BoolKind, protoreflect.StringKind, protoreflect.BytesKind:
		return protoreflect.Value{}, false, fmt.Errorf("must be a %s, is a number", f.kind)
	}
	return f.fromNumber(d.literal())
}

// fromString reads s as f's kind: strings, bytes and enum names are spelled
// so, and numbers and booleans may be.
func (f *field) fromString(s string) (v protoreflect.Value, ok bool, err error) {
	switch f.kind {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(s), true, nil
	case protoreflect.BytesKind:
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return v, false, fmt.Errorf("must be base64: %w", err)
		}
		return protoreflect.ValueOfBytes(b), true, nil
	case protoreflect.EnumKind:
		if e := f.Enum().Values().ByName(protoreflect.Name(s)); e != nil {
			return protoreflect.ValueOfEnum(e.Number()), true, nil
		}
		if f.Cardinality() == protoreflect.Required {
			return v, false, fmt.Errorf("has no value %q", s)
		}
		return v, false, nil // a name from a newer protocol: as if unset
	case protoreflect.BoolKind:
		switch s {
		case "true", "false":
			return protoreflect.ValueOfBool(s == "true"), true, nil
		}
		return v, false, fmt.Errorf("must be a boolean, is %q", s)
	}
	return f.fromNumber(s)
}

// fromNumber reads s as f's kind of number. As in Mesos, integers may be
// written as floats, of which the fraction is dropped.
func (f *field) fromNumber(s string) (v protoreflect.Value, ok bool, err error) {
	switch f.kind {
	case protoreflect.DoubleKind, protoreflect.FloatKind:
		bits := 64
		if f.kind == protoreflect.FloatKind {
			bits = 32
		}
		x, err := strconv.ParseFloat(s, bits)
		if err != nil {
			return v, false, notNumber(s, err)
		}
		if bits == 32 {
			return protoreflect.ValueOfFloat32(float32(x)), true, nil
		}
		return protoreflect.ValueOfFloat64(x), true, nil
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		x, err := parseUint(s, 32)
		return protoreflect.ValueOfUint32(uint32(x)), err == nil, err
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		x, err := parseUint(s, 64)
		return protoreflect.ValueOfUint64(x), err == nil, err
	case protoreflect.EnumKind:
		x, err := parseInt(s, 32)
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(x)), err == nil, err
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		x, err := parseInt(s, 64)
		return protoreflect.ValueOfInt64(x), err == nil, err
	default:
		x, err := parseInt(s, 32)
		return protoreflect.ValueOfInt32(int32(x)), err == nil, err
	}
}

func notNumber(s string, err error) error {
	if errors.Is(err, strconv.ErrRange) {
		return fmt.Errorf("%s is out of range", s)
	}
	return fmt.Errorf("must be a number, is %q", s)
}

func parseInt(s string, bits int) (int64, error) {
	x, err := strconv.ParseInt(s, 10, bits)
	if err == nil || errors.Is(err, strconv.ErrRange) {
		if err != nil {
			err = notNumber(s, err)
		}
		return x, err
	}
	f, ferr := strconv.ParseFloat(s, 64)
	if ferr != nil {
		return 0, notNumber(s, ferr)
	}
	limit := math.Ldexp(1, bits-1)
	if f = math.Trunc(f); !(f >= -limit && f < limit) {
		return 0, notNumber(s, strconv.ErrRange)
	}
	return int64(f), nil
}

func parseUint(s string, bits int) (uint64, error) {
	x, err := strconv.ParseUint(s, 10, bits)
	if err == nil || errors.Is(err, strconv.ErrRange) {
		if err != nil {
			err = notNumber(s, err)
		}
		return x, err
	}
	f, ferr := strconv.ParseFloat(s, 64)
	if ferr != nil {
		return 0, notNumber(s, ferr)
	}
	if f = math.Trunc(f); !(f >= 0 && f < math.Ldexp(1, bits)) {
		return 0, notNumber(s, strconv.ErrRange)
	}
	return uint64(f), nil
}

// durationUnits are stout's, longest spelling first where one ends in another.
var durationUnits = [...]struct {
	suffix string
	unit   time.Duration
}{
	{"weeks", 7 * 24 * time.Hour}, {"days", 24 * time.Hour}, {"hrs", time.Hour}, {"mins", time.Minute},
	{"secs", time.Second}, {"ms", time.Millisecond}, {"us", time.Microsecond}, {"ns", 1}, {"s", time.Second},
}

// setDuration reads "10mins" or "1.5s" into a google.protobuf.Duration, whose
// fields are seconds = 1 and nanos = 2.
func setDuration(m protoreflect.Message, s string) error {
	for _, u := range durationUnits {
		digits, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		x, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
		if err != nil || math.Abs(x*float64(u.unit)) >= math.MaxInt64 {
			break
		}
		d := time.Duration(x * float64(u.unit))
		fields := m.Descriptor().Fields()
		m.Set(fields.ByNumber(1), protoreflect.ValueOfInt64(int64(d/time.Second)))
		m.Set(fields.ByNumber(2), protoreflect.ValueOfInt32(int32(d%time.Second)))
		return nil
	}
	return fmt.Errorf(`must be a duration like "10secs", is %q`, s)
}
