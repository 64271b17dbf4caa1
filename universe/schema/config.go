package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"dcos.example/dcos/runtime/fault"
)

// Bounds of JSON that others wrote.
const (
	maxDepth = 64
	maxNodes = 100_000

	maxExponent = 400
)

// Config is a package's config.json: a JSON Schema of draft 4 that says which
// options there are, and their defaults. It may be used by several at once.
type Config struct {
	doc     map[string]any
	compile func() (*jsonschema.Schema, error)
}

// ParseConfig reads a config.json. Whether it is a schema shows when options
// are checked; errors are fault.Invalid.
func ParseConfig(text []byte) (*Config, error) {
	const op = "read config.json"
	v, err := Decode(text)
	if err != nil {
		return nil, fault.New(op, fault.Invalid, err)
	}
	doc, ok := v.(map[string]any)
	if !ok {
		return nil, fault.Newf(op, fault.Invalid, "it is no JSON object")
	}
	c := &Config{doc: doc}
	c.compile = sync.OnceValues(func() (*jsonschema.Schema, error) {
		s, err := compile(doc)
		if err != nil {
			return nil, fault.New(op, fault.Invalid, err)
		}
		return s, nil
	})
	return c, nil
}

// Decode reads one JSON value, numbers as json.Number. It must be of ordinary
// depth and size, and so must its numbers: whoever reckons with 1e9999999
// exactly runs out of memory.
func Decode(text []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is something after the JSON value")
	}
	nodes := 0
	return v, bound(v, 0, &nodes)
}

func bound(v any, depth int, nodes *int) error {
	if *nodes++; *nodes > maxNodes {
		return fmt.Errorf("it has more than %d values", maxNodes)
	}
	if depth > maxDepth {
		return fmt.Errorf("it is more than %d deep", maxDepth)
	}
	switch v := v.(type) {
	case json.Number:
		if _, exponent, ok := strings.Cut(strings.ToLower(v.String()), "e"); ok {
			if n, err := strconv.Atoi(exponent); err != nil || max(n, -n) > maxExponent {
				return fmt.Errorf("the number %.40s is out of range", v)
			}
		}
	case map[string]any:
		for _, e := range v {
			if err := bound(e, depth+1, nodes); err != nil {
				return err
			}
		}
	case []any:
		for _, e := range v {
			if err := bound(e, depth+1, nodes); err != nil {
				return err
			}
		}
	}
	return nil
}

// Valid reports why the config.json is no schema, if so.
func (c *Config) Valid() error {
	_, err := c.compile()
	return err
}

// Defaults are the options of someone who gave none. A property has its default
// or else those of its own properties.
func (c *Config) Defaults() map[string]any {
	return defaults(c.doc)
}

func defaults(s map[string]any) map[string]any {
	all := map[string]any{}
	properties, _ := s["properties"].(map[string]any)
	for name, p := range properties {
		p, ok := p.(map[string]any)
		if !ok {
			continue
		}
		if v, ok := p["default"]; ok {
			all[name] = v
			continue
		}
		if inner := defaults(p); len(inner) > 0 {
			all[name] = inner
		}
	}
	return all
}

// Has reports whether there is a property at path.
func (c *Config) Has(path ...string) bool {
	s := c.doc
	for _, name := range path {
		properties, _ := s["properties"].(map[string]any)
		var ok bool
		if s, ok = properties[name].(map[string]any); !ok {
			return false
		}
	}
	return true
}

// Merge returns options over what is below them: objects are merged, all else
// replaces. Neither is changed.
func Merge(below, options map[string]any) map[string]any {
	all := make(map[string]any, len(below)+len(options))
	for k, v := range below {
		all[k] = v
	}
	for k, v := range options {
		if over, ok := v.(map[string]any); ok {
			if under, ok := all[k].(map[string]any); ok {
				all[k] = Merge(under, over)
				continue
			}
		}
		all[k] = v
	}
	return all
}

// compile makes a checker of a config.json. It reads nothing else: identifiers
// name nothing, and a schema that refers to others, or to itself, is refused,
// because checking it might take for ever.
func compile(doc map[string]any) (*jsonschema.Schema, error) {
	plain, err := anonymous(doc, "")
	if err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft4)
	c.UseLoader(nowhere{})
	const url = "config.json"
	if err := c.AddResource(url, plain); err != nil {
		return nil, err
	}
	s, err := c.Compile(url)
	var invalid *jsonschema.SchemaValidationError
	var why *jsonschema.ValidationError
	if errors.As(err, &invalid) && errors.As(invalid.Err, &why) {
		return nil, errors.New(Reports(reports(why, nil)).Error())
	}
	return s, err
}

type nowhere struct{}

func (nowhere) Load(url string) (any, error) { return nil, fmt.Errorf("%s is not in config.json", url) }

// anonymous returns a copy of the schema s without id and $schema.
func anonymous(s map[string]any, place string) (map[string]any, error) {
	plain := make(map[string]any, len(s))
	for k, v := range s {
		at := place + "/" + k
		var err error
		switch k {
		case "id", "$schema":
			continue
		case "$ref":
			return nil, fmt.Errorf("%s: a config.json must do without references", at)
		case "properties", "patternProperties", "definitions", "dependencies":
			v, err = each(v, at)
		case "items", "additionalItems", "additionalProperties", "not", "anyOf", "oneOf", "allOf":
			v, err = nested(v, at)
		}
		if err != nil {
			return nil, err
		}
		plain[k] = v
	}
	return plain, nil
}

// each goes through an object whose values are schemas.
func each(v any, place string) (any, error) {
	m, ok := v.(map[string]any)
	if !ok {
		return v, nil
	}
	out := make(map[string]any, len(m))
	for k, e := range m {
		e, err := nested(e, place+"/"+k)
		if err != nil {
			return nil, err
		}
		out[k] = e
	}
	return out, nil
}

// nested goes through what is a schema or a list of them.
func nested(v any, place string) (any, error) {
	switch v := v.(type) {
	case map[string]any:
		return anonymous(v, place)
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			e, err := nested(e, fmt.Sprintf("%s/%d", place, i))
			if err != nil {
				return nil, err
			}
			out[i] = e
		}
		return out, nil
	}
	return v, nil
}
