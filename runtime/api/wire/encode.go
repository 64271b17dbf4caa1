package wire

import (
	"encoding/base64"
	"math"
	"slices"
	"strconv"
	"sync"
	"unicode/utf8"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// layout is what the codec needs to know of a message type: computed once per
// type, immutable.
type layout struct {
	fields []field           // in order of declaration, which is the order of output
	byName map[string]*field // for decoding
}

type field struct {
	protoreflect.FieldDescriptor
	key      []byte // `"name":`
	fallback []byte // encoded default that is written when the field is unset, or nil
	kind     protoreflect.Kind
	shape    shape
	enum     map[protoreflect.EnumNumber][]byte // quoted names
	mapKey   *field                             // of a dictionary
	mapValue *field
}

type shape uint8

const (
	singular shape = iota
	list
	dictionary
)

// layouts remembers the layout of each message type. It only grows, by at
// most one entry per type compiled into the program.
var layouts sync.Map // protoreflect.MessageDescriptor → *layout

func layoutOf(d protoreflect.MessageDescriptor) *layout {
	if l, ok := layouts.Load(d); ok {
		return l.(*layout)
	}
	fds := d.Fields()
	l := &layout{fields: make([]field, fds.Len()), byName: make(map[string]*field, fds.Len())}
	for i := range l.fields {
		l.fields[i] = newField(fds.Get(i))
		l.byName[string(fds.Get(i).Name())] = &l.fields[i]
	}
	actual, _ := layouts.LoadOrStore(d, l)
	return actual.(*layout)
}

func newField(fd protoreflect.FieldDescriptor) field {
	f := field{FieldDescriptor: fd, kind: fd.Kind(), key: append(appendString(nil, string(fd.Name())), ':')}
	switch {
	case fd.IsMap():
		f.shape = dictionary
		key, value := newField(fd.MapKey()), newField(fd.MapValue())
		f.mapKey, f.mapValue = &key, &value
	case fd.IsList():
		f.shape = list
	}
	if fd.Enum() != nil {
		values := fd.Enum().Values()
		f.enum = make(map[protoreflect.EnumNumber][]byte, values.Len())
		for i := range values.Len() {
			v := values.Get(i)
			if _, dup := f.enum[v.Number()]; !dup {
				f.enum[v.Number()] = appendString(nil, string(v.Name()))
			}
		}
	}
	// Like Mesos, declared defaults of unset fields are spelled out, unless
	// the field is deprecated: clients rely on reading, say, "checkpoint":false.
	opts, _ := fd.Options().(*descriptorpb.FieldOptions)
	if fd.HasDefault() && !opts.GetDeprecated() {
		f.fallback = f.appendScalar(nil, fd.Default())
	}
	return f
}

// appendMessage costs O(fields declared in the types used + bytes written),
// and allocates only for maps.
func appendMessage(b []byte, m protoreflect.Message) []byte {
	b = append(b, '{')
	start := len(b)
	l := layoutOf(m.Descriptor())
	for i := range l.fields {
		f := &l.fields[i]
		if !m.Has(f.FieldDescriptor) {
			if f.fallback != nil {
				b = append(append(appendComma(b, start), f.key...), f.fallback...)
			}
			continue
		}
		b = append(appendComma(b, start), f.key...)
		v := m.Get(f.FieldDescriptor)
		switch f.shape {
		case singular:
			b = f.appendValue(b, v)
		case list:
			b = append(b, '[')
			vs := v.List()
			for j := range vs.Len() {
				if j > 0 {
					b = append(b, ',')
				}
				b = f.appendValue(b, vs.Get(j))
			}
			b = append(b, ']')
		case dictionary:
			b = f.appendMap(b, v.Map())
		}
	}
	return append(b, '}')
}

func appendComma(b []byte, start int) []byte {
	if len(b) > start {
		b = append(b, ',')
	}
	return b
}

func (f *field) appendValue(b []byte, v protoreflect.Value) []byte {
	if f.kind == protoreflect.MessageKind || f.kind == protoreflect.GroupKind {
		return appendMessage(b, v.Message())
	}
	return f.appendScalar(b, v)
}

// appendMap writes entries sorted by key, so that equal messages are equal
// text.
func (f *field) appendMap(b []byte, m protoreflect.Map) []byte {
	keys := make([]string, 0, m.Len())
	byKey := make(map[string]protoreflect.Value, m.Len())
	m.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		keys = append(keys, k.String())
		byKey[k.String()] = v
		return true
	})
	slices.Sort(keys)
	b = append(b, '{')
	for i, k := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, k), ':')
		b = f.mapValue.appendValue(b, byKey[k])
	}
	return append(b, '}')
}

func (f *field) appendScalar(b []byte, v protoreflect.Value) []byte {
	switch f.kind {
	case protoreflect.BoolKind:
		return strconv.AppendBool(b, v.Bool())
	case protoreflect.StringKind:
		return appendString(b, v.String())
	case protoreflect.BytesKind:
		b = append(b, '"')
		b = base64.StdEncoding.AppendEncode(b, v.Bytes())
		return append(b, '"')
	case protoreflect.EnumKind:
		if name, ok := f.enum[v.Enum()]; ok {
			return append(b, name...)
		}
		return strconv.AppendInt(b, int64(v.Enum()), 10)
	case protoreflect.FloatKind:
		return appendFloat(b, v.Float(), 32)
	case protoreflect.DoubleKind:
		return appendFloat(b, v.Float(), 64)
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind, protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return strconv.AppendUint(b, v.Uint(), 10)
	default: // the signed integers
		return strconv.AppendInt(b, v.Int(), 10)
	}
}

// appendFloat writes the shortest text that reads back as f, with a fraction
// or exponent always, as Mesos does: typed clients tell 1.0 from 1.
func appendFloat(b []byte, f float64, bits int) []byte {
	switch {
	case math.IsNaN(f):
		return append(b, `"NaN"`...)
	case math.IsInf(f, 1):
		return append(b, `"Infinity"`...)
	case math.IsInf(f, -1):
		return append(b, `"-Infinity"`...)
	}
	start := len(b)
	format := byte('f')
	if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) {
		format = 'e'
	}
	b = strconv.AppendFloat(b, f, format, -1, bits)
	for _, c := range b[start:] {
		if c == '.' || c == 'e' {
			return b
		}
	}
	return append(b, ".0"...)
}

const hex = "0123456789abcdef"

// appendString quotes s. Bytes that are not UTF-8 become U+FFFD, since JSON
// has no other text.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= ' ' && c != '"' && c != '\\' {
				i++
				continue
			}
			b = append(b, s[start:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			case '\n':
				b = append(b, '\\', 'n')
			case '\r':
				b = append(b, '\\', 'r')
			case '\t':
				b = append(b, '\\', 't')
			default:
				b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			}
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			b = append(b, s[start:i]...)
			b = append(b, `\ufffd`...)
			i++
			start = i
			continue
		}
		i += size
	}
	return append(append(b, s[start:]...), '"')
}
