// Package input reads typed values out of a resource's properties and collects
// what is wrong with them, as Check has to report it. Unknown values are noted
// and read as zero; secrets are read as what they hide.
package input

import (
	"fmt"
	"slices"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
)

// Reader reads one property map.
type Reader struct {
	m        resource.PropertyMap
	prefix   string
	opaque   bool // the map itself is unknown
	seen     []resource.PropertyKey
	failures *[]plugin.CheckFailure
	unknown  *[]string
}

// Read returns a reader of m.
func Read(m resource.PropertyMap) *Reader {
	return &Reader{m: m, failures: new([]plugin.CheckFailure), unknown: new([]string)}
}

// Fail notes that the value at key is wrong.
func (r *Reader) Fail(key, format string, args ...any) {
	*r.failures = append(*r.failures, plugin.CheckFailure{Property: resource.PropertyKey(r.prefix + key), Reason: fmt.Sprintf(format, args...)})
}

// Failures returns what was wrong so far, including properties that nobody
// asked for.
func (r *Reader) Failures() []plugin.CheckFailure {
	r.Close()
	return *r.failures
}

// Close notes properties that nobody asked for; of the outermost reader,
// Failures does so.
func (r *Reader) Close() {
	var extra []string
	for k := range r.m {
		if !slices.Contains(r.seen, k) {
			extra = append(extra, string(k))
		}
	}
	slices.Sort(extra)
	for _, k := range extra {
		r.Fail(k, "is not a property of this resource")
		r.seen = append(r.seen, resource.PropertyKey(k))
	}
}

// Unknown reports whether a value that was read is known only after apply.
func (r *Reader) Unknown(keys ...string) bool {
	if len(keys) == 0 {
		return len(*r.unknown) > 0
	}
	return slices.ContainsFunc(*r.unknown, func(k string) bool { return slices.Contains(keys, k) })
}

// Plain returns what a value is beneath secrets and outputs, and false when it
// is unknown.
func Plain(v resource.PropertyValue) (resource.PropertyValue, bool) {
	for {
		switch {
		case v.IsSecret():
			v = v.SecretValue().Element
		case v.IsOutput():
			if !v.OutputValue().Known {
				return v, false
			}
			v = v.OutputValue().Element
		default:
			return v, !v.IsComputed()
		}
	}
}

// get returns the value at key when it is there, known, and what is asked for.
func (r *Reader) get(key, kind string, is func(resource.PropertyValue) bool) (resource.PropertyValue, bool) {
	r.seen = append(r.seen, resource.PropertyKey(key))
	v, known := Plain(r.m[resource.PropertyKey(key)])
	switch {
	case !known:
		*r.unknown = append(*r.unknown, r.prefix+key)
	case v.IsNull():
	case !is(v):
		r.Fail(key, "must be %s, not %s", kind, v.TypeString())
	default:
		return v, true
	}
	return v, false
}

// missing notes that the value at key has to be there and is not.
func (r *Reader) missing(key string) {
	if v, known := Plain(r.m[resource.PropertyKey(key)]); known && v.IsNull() && !r.opaque {
		r.Fail(key, "is missing")
	}
}

// Text returns a string that has to be there.
func (r *Reader) Text(key string) string {
	v, ok := r.get(key, "a string", resource.PropertyValue.IsString)
	if !ok {
		r.missing(key)
		return ""
	}
	if v.StringValue() == "" {
		r.Fail(key, "is empty")
	}
	return v.StringValue()
}

// OptionalText returns a string, "" when it is not there.
func (r *Reader) OptionalText(key string) string {
	v, ok := r.get(key, "a string", resource.PropertyValue.IsString)
	if !ok {
		return ""
	}
	return v.StringValue()
}

// Number returns a number that has to be there.
func (r *Reader) Number(key string) float64 {
	v, ok := r.get(key, "a number", resource.PropertyValue.IsNumber)
	if !ok {
		r.missing(key)
		return 0
	}
	return v.NumberValue()
}

// OptionalNumber returns a number, otherwise when it is not there.
func (r *Reader) OptionalNumber(key string, otherwise float64) float64 {
	v, ok := r.get(key, "a number", resource.PropertyValue.IsNumber)
	if !ok {
		return otherwise
	}
	return v.NumberValue()
}

// Bool returns a truth value, false when it is not there.
func (r *Reader) Bool(key string) bool {
	v, ok := r.get(key, "true or false", resource.PropertyValue.IsBool)
	return ok && v.BoolValue()
}

// List returns the elements of a list, none when it is not there.
func (r *Reader) List(key string) []resource.PropertyValue {
	v, ok := r.get(key, "a list", resource.PropertyValue.IsArray)
	if !ok {
		return nil
	}
	return v.ArrayValue()
}

// Object returns a reader of the map at key; an empty one when it is not
// there. It reports to r.
func (r *Reader) Object(key string) *Reader {
	sub := &Reader{prefix: r.prefix + key + ".", failures: r.failures, unknown: r.unknown}
	if v, ok := r.get(key, "an object", resource.PropertyValue.IsObject); ok {
		sub.m = v.ObjectValue()
	}
	_, known := Plain(r.m[resource.PropertyKey(key)])
	sub.opaque = !known || r.opaque
	return sub
}

// Keys returns the keys of the map, sorted.
func (r *Reader) Keys() []string {
	var keys []string
	for k := range r.m {
		keys = append(keys, string(k))
	}
	slices.Sort(keys)
	return keys
}
