package schema

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

// Report says what is wrong with options at one place. Its JSON is the one of
// the validator of DC/OS; Fields and Hint are ours.
type Report struct {
	Level    string   `json:"level"` // error
	Schema   Place    `json:"schema"`
	Instance Place    `json:"instance"`
	Domain   string   `json:"domain"` // validation
	Keyword  string   `json:"keyword"`
	Message  string   `json:"message"`
	Found    any      `json:"found,omitempty"`
	Expected []string `json:"expected,omitempty"`
	Missing  []string `json:"missing,omitempty"`
	Unwanted []string `json:"unwanted,omitempty"`

	// Fields are the options meant, with dots: "brokers.count".
	Fields []string `json:"fields"`
	// Hint says what may have been meant.
	Hint string `json:"hint,omitempty"`
}

// Place is a JSON pointer.
type Place struct {
	LoadingURI string `json:"loadingURI,omitempty"`
	Pointer    string `json:"pointer"`
}

func (r Report) String() string {
	s := r.Message
	if len(r.Fields) > 0 {
		s = strings.Join(r.Fields, ", ") + ": " + s
	}
	if r.Hint != "" {
		s += " (" + r.Hint + ")"
	}
	return s
}

// Reports is everything wrong with options, and an error if there is any.
type Reports []Report

func (r Reports) Error() string {
	lines := make([]string, len(r))
	for i := range r {
		lines[i] = r[i].String()
	}
	return strings.Join(lines, "; ")
}

// Check returns everything wrong with options, which have the defaults in them,
// as Reports; or fault.Invalid if the config.json is no schema.
func (c *Config) Check(options map[string]any) error {
	s, err := c.compile()
	if err != nil {
		return err
	}
	err = s.Validate(options)
	if err == nil {
		return nil
	}
	var invalid *jsonschema.ValidationError
	if !errors.As(err, &invalid) {
		return err
	}
	all := reports(invalid, options)
	for i := range all {
		all[i].Hint = c.hint(all[i])
	}
	slices.SortFunc(all, func(a, b Report) int { return strings.Compare(a.Instance.Pointer, b.Instance.Pointer) })
	return Reports(all)
}

// reports flattens e: alternatives stay one report each.
func reports(e *jsonschema.ValidationError, root any) []Report {
	switch e.ErrorKind.(type) {
	case *kind.Schema, *kind.Group, *kind.AllOf, *kind.Reference:
		var all []Report
		for _, c := range e.Causes {
			all = append(all, reports(c, root)...)
		}
		return all
	}
	_, pointer, _ := strings.Cut(e.SchemaURL, "#")
	r := Report{
		Level: "error", Domain: "validation", Schema: Place{"#", pointer}, Instance: Place{Pointer: jsonPointer(e.InstanceLocation)},
		Fields: []string{},
	}
	at := strings.Join(e.InstanceLocation, ".")
	if at != "" {
		r.Fields = []string{at}
	}
	if path := e.ErrorKind.KeywordPath(); len(path) > 0 {
		r.Keyword = path[0]
	}
	r.describe(e, at, root)
	return []Report{r}
}

func jsonPointer(path []string) string {
	var b strings.Builder
	for _, p := range path {
		b.WriteByte('/')
		b.WriteString(strings.NewReplacer("~", "~0", "/", "~1").Replace(p))
	}
	return b.String()
}

// describe words the error as DC/OS does.
func (r *Report) describe(e *jsonschema.ValidationError, at string, root any) {
	within := func(names []string) []string {
		all := make([]string, len(names))
		for i, n := range names {
			all[i] = strings.TrimPrefix(at+"."+n, ".")
		}
		return all
	}
	switch k := e.ErrorKind.(type) {
	case *kind.Type:
		found := typeName(value(root, e.InstanceLocation), k.Got)
		r.Found, r.Expected = found, k.Want
		r.Message = fmt.Sprintf("instance type (%s) does not match any allowed primitive type (allowed: %s)", found, text(k.Want))
	case *kind.Required:
		r.Missing, r.Fields = k.Missing, within(k.Missing)
		r.Message = fmt.Sprintf("object has missing required properties (%s)", text(k.Missing))
	case *kind.AdditionalProperties:
		r.Unwanted, r.Fields = k.Properties, within(k.Properties)
		r.Message = "object instance has properties which are not allowed by the schema: " + text(k.Properties)
	case *kind.Enum:
		r.Found = k.Got
		r.Message = fmt.Sprintf("instance value (%s) not found in enum (possible values: %s)", text(k.Got), text(k.Want))
	case *kind.Minimum:
		r.Found = number(k.Got)
		r.Message = fmt.Sprintf("numeric instance is lower than the required minimum (minimum: %s, found: %s)", number(k.Want), number(k.Got))
	case *kind.Maximum:
		r.Found = number(k.Got)
		r.Message = fmt.Sprintf("numeric instance is greater than the required maximum (maximum: %s, found: %s)", number(k.Want), number(k.Got))
	case *kind.Pattern:
		r.Found = k.Got
		r.Message = fmt.Sprintf("ECMA 262 regex %q does not match input string %q", k.Want, k.Got)
	case *kind.MinLength:
		r.Message = fmt.Sprintf("string %s is too short (length: %d, required minimum: %d)", text(value(root, e.InstanceLocation)), k.Got, k.Want)
	case *kind.MaxLength:
		r.Message = fmt.Sprintf("string %s is too long (length: %d, maximum allowed: %d)", text(value(root, e.InstanceLocation)), k.Got, k.Want)
	case *kind.MinItems:
		r.Message = fmt.Sprintf("array is too short: must have at least %d elements but instance has %d elements", k.Want, k.Got)
	case *kind.MaxItems:
		r.Message = fmt.Sprintf("array is too long: must have at most %d elements but instance has %d elements", k.Want, k.Got)
	case *kind.AnyOf:
		r.Message = fmt.Sprintf("instance failed to match at least one required schema among %d", len(e.Causes))
	case *kind.OneOf:
		r.Message = fmt.Sprintf("instance failed to match exactly one schema (matched %d out of %d)", len(k.Subschemas), max(len(e.Causes), len(k.Subschemas)))
	default:
		r.Message = k.LocalizedString(message.NewPrinter(language.English))
	}
}

// hint looks among the properties of the schema for what an unknown one may
// mean.
func (c *Config) hint(r Report) string {
	if len(r.Unwanted) == 0 {
		return ""
	}
	s := any(c.doc)
	for _, p := range strings.Split(strings.Trim(r.Schema.Pointer, "/"), "/") {
		if m, ok := s.(map[string]any); ok && p != "" {
			s = m[strings.NewReplacer("~1", "/", "~0", "~").Replace(p)]
		}
	}
	m, _ := s.(map[string]any)
	properties, _ := m["properties"].(map[string]any)
	names := make([]string, 0, len(properties))
	for n := range properties {
		names = append(names, n)
	}
	var near []string
	for _, u := range r.Unwanted {
		near = append(near, Nearest(u, names)...)
	}
	if len(near) > 0 {
		return "did you mean " + strings.Join(near, " or ") + "?"
	}
	slices.Sort(names)
	if len(names) > 10 || len(names) == 0 {
		return ""
	}
	return "there are " + strings.Join(names, ", ")
}

func value(root any, path []string) any {
	for _, p := range path {
		switch v := root.(type) {
		case map[string]any:
			root = v[p]
		case []any:
			i, err := strconv.Atoi(p)
			if err != nil || i < 0 || i >= len(v) {
				return nil
			}
			root = v[i]
		default:
			return nil
		}
	}
	return root
}

// typeName tells integers from other numbers, as DC/OS does.
func typeName(v any, got string) string {
	if n, ok := v.(json.Number); ok {
		if _, err := n.Int64(); err == nil {
			return "integer"
		}
	}
	return got
}

func number(r *big.Rat) json.Number {
	if r.IsInt() {
		return json.Number(r.Num().String())
	}
	f, _ := r.Float64()
	return json.Number(strconv.FormatFloat(f, 'g', -1, 64))
}

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}
