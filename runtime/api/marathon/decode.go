package marathon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Texts of type errors, as Marathon's JSON library writes them.
const (
	expectedString = "error.expected.jsstring"
	expectedNumber = "error.expected.jsnumber"
	expectedInt    = "error.expected.int"
	expectedBool   = "error.expected.jsboolean"
	expectedArray  = "error.expected.jsarray"
	expectedObject = "error.expected.jsobject"
	pathMissing    = "error.path.missing"
)

// Detail is what is wrong at one place of a document.
type Detail struct {
	Path   string   `json:"path"`
	Errors []string `json:"errors"`
}

// SyntaxError is a body that is not JSON.
type SyntaxError struct{ Text string }

func (e *SyntaxError) Error() string { return "Invalid JSON: " + e.Text }

// TypeError is JSON whose values have other types than the schema's.
type TypeError struct{ Details []Detail }

func (e *TypeError) Error() string {
	var b strings.Builder
	b.WriteString("Invalid JSON")
	for _, d := range e.Details {
		fmt.Fprintf(&b, "; %s: %s", d.Path, strings.Join(d.Errors, ", "))
	}
	return b.String()
}

// checker is a union type: CheckJSON returns the error text for v, or "".
type checker interface{ CheckJSON(v any) string }

// Decode reads one JSON document into out, a pointer to a wire type, over the
// values it already has. Every value of a wrong type, and every missing field
// tagged need:"true", is listed in a *TypeError; text that is no JSON is a
// *SyntaxError. Unknown fields are ignored, as Marathon does since 1.4.
func Decode(body []byte, out any) error {
	doc, err := Document(body)
	if err != nil {
		return err
	}
	var w walk
	w.value(nil, doc, reflect.TypeOf(out).Elem())
	if len(w.details) > 0 {
		return &TypeError{w.details}
	}
	if err := json.Unmarshal(body, out); err != nil {
		// The walk has seen every type; what is left is a number out of range.
		var te *json.UnmarshalTypeError
		if errors.As(err, &te) {
			return &TypeError{[]Detail{{"/" + strings.ReplaceAll(te.Field, ".", "/"), []string{expectedInt}}}}
		}
		return &SyntaxError{err.Error()}
	}
	return nil
}

// Document reads body as one JSON value with json.Number for numbers.
func Document(body []byte) (any, error) {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	var doc any
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, &SyntaxError{"No content to map due to end-of-input"}
		}
		return nil, &SyntaxError{err.Error()}
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, &SyntaxError{"more than one JSON value"}
	}
	return doc, nil
}

// walk compares a document with a Go type. Its cost is that of the document.
type walk struct{ details []Detail }

func (w *walk) fail(path []string, text string) {
	w.details = append(w.details, Detail{"/" + strings.Join(path, "/"), []string{text}})
}

var rawType = reflect.TypeFor[json.RawMessage]()

func (w *walk) value(path []string, v any, t reflect.Type) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == rawType || v == nil && len(path) > 0 {
		return // null is absence
	}
	if c, ok := reflect.Zero(t).Interface().(checker); ok {
		if text := c.CheckJSON(v); text != "" {
			w.fail(path, text)
		}
		return
	}
	switch t.Kind() {
	case reflect.Struct:
		w.object(path, v, t)
	case reflect.Map:
		m, ok := v.(map[string]any)
		if !ok {
			w.fail(path, expectedObject)
			return
		}
		for _, k := range sortedKeys(m) {
			if m[k] == nil {
				w.fail(append(path, k), expectedString)
				continue
			}
			w.value(append(path, k), m[k], t.Elem())
		}
	case reflect.Slice:
		s, ok := v.([]any)
		if !ok {
			w.fail(path, expectedArray)
			return
		}
		for i, e := range s {
			w.value(element(path, i), e, t.Elem())
		}
	case reflect.String:
		if _, ok := v.(string); !ok {
			w.fail(path, expectedString)
		}
	case reflect.Bool:
		if _, ok := v.(bool); !ok {
			w.fail(path, expectedBool)
		}
	case reflect.Float64:
		if _, ok := v.(json.Number); !ok {
			w.fail(path, expectedNumber)
		}
	case reflect.Int64, reflect.Int:
		n, ok := v.(json.Number)
		if !ok {
			w.fail(path, expectedNumber)
		} else if _, err := n.Int64(); err != nil {
			w.fail(path, expectedInt)
		}
	}
}

// element is the path of the i-th element of the array at path: "/ports(1)".
func element(path []string, i int) []string {
	out := slices.Clone(path)
	index := "(" + strconv.Itoa(i) + ")"
	if len(out) == 0 {
		return []string{index}
	}
	out[len(out)-1] += index
	return out
}

func (w *walk) object(path []string, v any, t reflect.Type) {
	m, ok := v.(map[string]any)
	if !ok {
		w.fail(path, expectedObject)
		return
	}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			w.object(path, v, f.Type)
			continue
		}
		if name == "-" || name == "" {
			continue
		}
		fv, given := m[name]
		if !given || fv == nil {
			if f.Tag.Get("need") == "true" {
				w.fail(append(path, name), pathMissing)
			}
			continue
		}
		w.value(append(path, name), fv, f.Type)
	}
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
