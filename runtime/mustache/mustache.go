// Package mustache renders Mustache templates (mustache(5)) over plain values:
// names, dotted names, sections, inverted sections, comments, changed
// delimiters, standalone lines, and lambdas. It is pure, and bounded: however a
// template is written, rendering ends, with so much output and no more.
//
// Partials and inheritance are refused by Parse: a template is one text. Values
// are written as they are, without escaping for HTML, unless Options say so.
//
// Values are map[string]any, map[string]string, []any, []string, Lambda, and
// scalars. False, nil, "" and empty lists are what an inverted section shows;
// zero is not among them.
package mustache

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"dcos.example/dcos/runtime/fault"
)

// What Options mean by zero, and what bounds every rendering.
const (
	defaultMaxBytes = 4 << 20
	defaultMaxDepth = 64
	maxNesting      = 64      // sections within sections, as written
	maxSteps        = 2 << 20 // parts visited: loops within loops may write nothing
)

// Lambda is a value that a section hands its unrendered text. render renders
// such a text where the section stands.
type Lambda func(text string, render func(string) (string, error)) (string, error)

// Options of one rendering. The zero value is of use.
type Options struct {
	// Format says how a value is written; nil means Text.
	Format func(v any) (string, error)
	// Escape is applied to what {{name}} writes, not to {{{name}}} or {{&name}}.
	Escape func(string) string
	// Strict makes writing a name that is nowhere an error; nil values and
	// sections may still be absent.
	Strict bool
	// MaxBytes of output; 0 means 4 MiB.
	MaxBytes int
	// MaxDepth of sections and lambdas in each other; 0 means 64.
	MaxDepth int
}

// Template is a parsed text. It may be rendered by several at once.
type Template struct {
	nodes []node
}

type kind uint8

const (
	literal kind = iota
	variable
	verbatim // {{{name}}} and {{&name}}
	section
	inverted
)

type node struct {
	kind        kind
	line        int
	text        string // of a literal; of a section: what stands in it, unrendered
	path        []string
	open, close string // delimiters where a section's text begins
	nodes       []node
}

// Text is how values are written when nobody says otherwise: strings as they
// are, nil as nothing, everything else as JSON.
func Text(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	case json.Number:
		return v.String(), nil
	case bool:
		return strconv.FormatBool(v), nil
	case int:
		return strconv.Itoa(v), nil
	case Lambda:
		return "", fmt.Errorf("a lambda is no value")
	}
	b, err := json.Marshal(v)
	return string(b), err
}

// Render returns the text of the template over data. Errors are fault.Invalid
// and name the line.
func (t *Template) Render(data any, o Options) (string, error) {
	if o.Format == nil {
		o.Format = Text
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = defaultMaxBytes
	}
	if o.MaxDepth == 0 {
		o.MaxDepth = defaultMaxDepth
	}
	r := &renderer{options: o, stack: []any{data}}
	if err := r.nodes(t.nodes, 0); err != nil {
		return "", fault.New("render template", fault.Invalid, err)
	}
	return r.out.String(), nil
}

// Names returns the dotted names that the template writes or asks for, sorted.
// Those within a section may be meant of its value.
func (t *Template) Names() []string {
	seen := map[string]bool{}
	var walk func([]node)
	walk = func(nodes []node) {
		for _, n := range nodes {
			if n.kind != literal {
				seen[name(n.path)] = true
			}
			walk(n.nodes)
		}
	}
	walk(t.nodes)
	names := make([]string, 0, len(seen))
	for n := range seen {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

type renderer struct {
	options Options
	out     strings.Builder
	stack   []any
	steps   int
}

func (r *renderer) nodes(nodes []node, depth int) error {
	for i := range nodes {
		if err := r.node(&nodes[i], depth); err != nil {
			return err
		}
	}
	return nil
}

func (r *renderer) node(n *node, depth int) error {
	if r.steps++; r.steps > maxSteps {
		return fmt.Errorf("line %d: the template takes more than %d steps", n.line, maxSteps)
	}
	if depth > r.options.MaxDepth {
		return fmt.Errorf("line %d: sections are more than %d deep", n.line, r.options.MaxDepth)
	}
	if n.kind == literal {
		return r.write(n, n.text)
	}
	v, found := r.lookup(n.path)
	switch n.kind {
	case section:
		return r.section(n, v, depth)
	case inverted:
		if empty(v) {
			return r.nodes(n.nodes, depth+1)
		}
		return nil
	}
	if !found && r.options.Strict {
		return fmt.Errorf("line %d: there is no value for %s", n.line, name(n.path))
	}
	s, err := r.options.Format(v)
	if err != nil {
		return fmt.Errorf("line %d: write %s: %w", n.line, name(n.path), err)
	}
	if n.kind == variable && r.options.Escape != nil {
		s = r.options.Escape(s)
	}
	return r.write(n, s)
}

func (r *renderer) section(n *node, v any, depth int) error {
	each := func(v any) error {
		r.stack = append(r.stack, v)
		err := r.nodes(n.nodes, depth+1)
		r.stack = r.stack[:len(r.stack)-1]
		return err
	}
	switch v := v.(type) {
	case Lambda:
		return r.lambda(n, v, depth)
	case []any:
		for _, v := range v {
			if r.steps++; r.steps > maxSteps {
				return fmt.Errorf("line %d: the template takes more than %d steps", n.line, maxSteps)
			}
			if err := each(v); err != nil {
				return err
			}
		}
		return nil
	case []string:
		for _, v := range v {
			if err := each(v); err != nil {
				return err
			}
		}
		return nil
	}
	if empty(v) {
		return nil
	}
	return each(v)
}

func (r *renderer) lambda(n *node, f Lambda, depth int) error {
	s, err := f(n.text, func(text string) (string, error) {
		nodes, err := parse(text, n.open, n.close)
		if err != nil {
			return "", err
		}
		inner := &renderer{options: r.options, stack: r.stack, steps: r.steps}
		err = inner.nodes(nodes, depth+1)
		r.steps = inner.steps
		return inner.out.String(), err
	})
	if err != nil {
		return fmt.Errorf("line %d: %s: %w", n.line, name(n.path), err)
	}
	return r.write(n, s)
}

func (r *renderer) write(n *node, s string) error {
	if len(s) > r.options.MaxBytes-r.out.Len() {
		return fmt.Errorf("line %d: the output is more than %d bytes", n.line, r.options.MaxBytes)
	}
	r.out.WriteString(s)
	return nil
}

// lookup finds the first part in the innermost context that has it, and the
// others in what was found.
func (r *renderer) lookup(path []string) (any, bool) {
	if len(path) == 0 {
		return r.stack[len(r.stack)-1], true
	}
	for i := len(r.stack) - 1; i >= 0; i-- {
		v, found := member(r.stack[i], path[0])
		if !found {
			continue
		}
		for _, p := range path[1:] {
			if v, found = member(v, p); !found {
				return nil, false
			}
		}
		return v, true
	}
	return nil, false
}

func member(v any, name string) (any, bool) {
	switch v := v.(type) {
	case map[string]any:
		m, ok := v[name]
		return m, ok
	case map[string]string:
		m, ok := v[name]
		return m, ok
	}
	return nil, false
}

func empty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case bool:
		return !v
	case string:
		return v == ""
	case []any:
		return len(v) == 0
	case []string:
		return len(v) == 0
	}
	return false
}

// name is a path as it was written; the empty one is the context itself.
func name(path []string) string {
	if len(path) == 0 {
		return "."
	}
	return strings.Join(path, ".")
}
