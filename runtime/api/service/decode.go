package service

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/agext/levenshtein"
	"go.yaml.in/yaml/v3"
)

// MaxBytes bounds the text of a spec.
const MaxBytes = 4 << 20

// maxNodes bounds what a spec may grow to through YAML's aliases.
const maxNodes = 200_000

// Problem is what is wrong at one place of a document.
type Problem struct {
	Path    string `json:"path"`           // "pods.kafka.tasks.broker.cpus", "" for the whole
	Line    int    `json:"line,omitempty"` // from 1; 0 if unknown
	Message string `json:"message"`
}

func (p Problem) String() string {
	var b strings.Builder
	if p.Line > 0 {
		fmt.Fprintf(&b, "line %d: ", p.Line)
	}
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	return b.String() + p.Message
}

// Problems is everything wrong with a document. It is an error if not empty.
type Problems []Problem

func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i := range p {
		lines[i] = p[i].String()
	}
	return strings.Join(lines, "\n")
}

// Err is p, or nil when there are no problems.
func (p Problems) Err() error {
	if len(p) == 0 {
		return nil
	}
	return p
}

// Lines tells where in a document a path was written.
type Lines map[string]int

// Of returns the line of path, or of the nearest place around it that was
// written.
func (l Lines) Of(path string) int {
	for {
		if n, ok := l[path]; ok {
			return n
		}
		i := strings.LastIndexAny(path, ".[")
		if i < 0 {
			return l[""]
		}
		path = path[:i]
	}
}

// Parse reads a spec in YAML or JSON. Unknown and repeated keys and values of
// a wrong type are all listed, in a Problems. Whether the spec makes sense is
// for the operator to judge.
func Parse(text []byte) (*Spec, Lines, error) {
	if len(text) > MaxBytes {
		return nil, nil, Problems{{Message: fmt.Sprintf("the spec is longer than %d bytes", MaxBytes)}}
	}
	doc, problem := document(text)
	if problem != nil {
		return nil, nil, Problems{*problem}
	}
	w := &walk{lines: Lines{}}
	s := &Spec{}
	w.value("", doc, reflect.ValueOf(s).Elem())
	return s, w.lines, w.problems.Err()
}

// document reads one YAML document or JSON value. JSON goes through a reader
// of its own, because not all of it is what the YAML library takes for YAML.
func document(text []byte) (*yaml.Node, *Problem) {
	if json.Valid(text) {
		r := jsonReader{text: text, dec: json.NewDecoder(bytes.NewReader(text)), line: 1}
		r.dec.UseNumber()
		return r.value(), nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, more yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, &Problem{Message: "the spec is empty"}
	} else if err != nil {
		return nil, syntaxProblem(err)
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, &Problem{Line: more.Line, Message: "there is a second document, and a spec is one"}
	}
	return doc.Content[0], nil
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

func syntaxProblem(err error) *Problem {
	text := err.Error()
	p := &Problem{Message: "this is neither YAML nor JSON: " + yamlLine.ReplaceAllString(text, "")}
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		p.Line, _ = strconv.Atoi(m[1])
	}
	return p
}

// jsonReader makes the nodes that YAML would have. Its text is valid.
type jsonReader struct {
	text []byte
	dec  *json.Decoder
	at   int64
	line int
}

func (r *jsonReader) value() *yaml.Node {
	tok, _ := r.dec.Token()
	now := r.dec.InputOffset()
	r.line += bytes.Count(r.text[r.at:now], []byte{'\n'})
	r.at = now
	n := &yaml.Node{Kind: yaml.ScalarNode, Line: r.line}
	switch v := tok.(type) {
	case json.Delim:
		n.Kind, n.Tag = yaml.MappingNode, "!!map"
		if v == '[' {
			n.Kind, n.Tag = yaml.SequenceNode, "!!seq"
		}
		for r.dec.More() {
			n.Content = append(n.Content, r.value()) // keys and values in turn, if it is an object
		}
		_, _ = r.dec.Token()
	case string:
		n.Tag, n.Value = "!!str", v
	case json.Number:
		n.Tag, n.Value = "!!float", v.String()
		if _, err := v.Int64(); err == nil {
			n.Tag = "!!int"
		}
	case bool:
		n.Tag, n.Value = "!!bool", strconv.FormatBool(v)
	default:
		n.Tag, n.Value = "!!null", "null"
	}
	return n
}

// walk fills Go values from nodes. Its cost is that of the document.
type walk struct {
	problems Problems
	lines    Lines
	nodes    int
}

func (w *walk) fail(path string, n *yaml.Node, format string, args ...any) {
	w.problems = append(w.problems, Problem{path, n.Line, fmt.Sprintf(format, args...)})
}

// decoder is a type with a form of its own.
type decoder interface {
	decode(w *walk, path string, n *yaml.Node)
}

func (w *walk) value(path string, n *yaml.Node, to reflect.Value) {
	if w.nodes++; w.nodes > maxNodes {
		if w.nodes == maxNodes+1 {
			w.fail(path, n, "the spec has more than %d values", maxNodes)
		}
		return
	}
	w.lines[path] = n.Line
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.ShortTag() == "!!null" {
		return // absence
	}
	if d, ok := to.Addr().Interface().(decoder); ok {
		d.decode(w, path, n)
		return
	}
	switch to.Kind() {
	case reflect.Pointer:
		to.Set(reflect.New(to.Type().Elem()))
		w.value(path, n, to.Elem())
	case reflect.Struct:
		w.object(path, n, to)
	case reflect.Map:
		to.Set(reflect.MakeMap(to.Type()))
		w.pairs(path, n, func(path, name string, v *yaml.Node) {
			e := reflect.New(to.Type().Elem()).Elem()
			w.value(path, v, e)
			to.SetMapIndex(reflect.ValueOf(name), e)
		})
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			w.fail(path, n, "%s where a list is wanted", said(n))
			return
		}
		to.Set(reflect.MakeSlice(to.Type(), len(n.Content), len(n.Content)))
		for i, e := range n.Content {
			w.value(fmt.Sprintf("%s[%d]", path, i), e, to.Index(i))
		}
	default:
		w.scalar(path, n, to)
	}
}

func (w *walk) scalar(path string, n *yaml.Node, to reflect.Value) {
	if n.Kind != yaml.ScalarNode {
		w.fail(path, n, "%s where %s is wanted", said(n), wanted(to.Kind()))
		return
	}
	bad := func() { w.fail(path, n, "%s where %s is wanted", said(n), wanted(to.Kind())) }
	switch to.Kind() {
	case reflect.String:
		to.SetString(n.Value) // numbers too: "user: 1000"
	case reflect.Bool:
		b, err := strconv.ParseBool(n.Value)
		if err != nil || n.ShortTag() != "!!bool" {
			bad()
			return
		}
		to.SetBool(b)
	case reflect.Int:
		var f float64
		if tag := n.ShortTag(); tag != "!!int" && tag != "!!float" || n.Decode(&f) != nil || f != math.Trunc(f) || math.Abs(f) > math.MaxInt32 {
			bad()
			return
		}
		to.SetInt(int64(f))
	case reflect.Float64:
		var f float64
		if tag := n.ShortTag(); tag != "!!int" && tag != "!!float" || n.Decode(&f) != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			bad()
			return
		}
		to.SetFloat(f)
	default:
		panic("service: a field of kind " + to.Kind().String())
	}
}

// pairs calls f for each key of an object, in order.
func (w *walk) pairs(path string, n *yaml.Node, f func(path, name string, v *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		w.fail(path, n, "%s where an object is wanted", said(n))
		return
	}
	seen := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode {
			w.fail(path, k, "a key that is no text")
			continue
		}
		at := join(path, k.Value)
		if line, twice := seen[k.Value]; twice {
			w.fail(at, k, "the key is there already, in line %d", line)
			continue
		}
		seen[k.Value] = k.Line
		f(at, k.Value, v)
	}
}

func (w *walk) object(path string, n *yaml.Node, to reflect.Value) {
	t := to.Type()
	fields := make(map[string]int, t.NumField())
	names := make([]string, 0, t.NumField())
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		fields[name] = i
		names = append(names, name)
	}
	w.pairs(path, n, func(path, name string, v *yaml.Node) {
		i, ok := fields[name]
		if !ok {
			w.fail(path, v, "there is no such key%s", suggest(name, names))
			return
		}
		w.value(path, v, to.Field(i))
	})
}

// suggest proposes what was probably meant.
func suggest(name string, names []string) string {
	slices.Sort(names)
	for _, n := range names {
		if levenshtein.Distance(strings.ReplaceAll(name, "_", "-"), n, nil) <= 2 {
			return "; did you mean " + n + "?"
		}
	}
	return "; known are " + strings.Join(names, ", ")
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// said describes a node in an error.
func said(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "an object"
	case yaml.SequenceNode:
		return "a list"
	}
	v := n.Value
	if r := []rune(v); len(r) > 40 {
		v = string(r[:40]) + "…"
	}
	if n.ShortTag() == "!!str" {
		return strconv.Quote(v)
	}
	return v
}

func wanted(k reflect.Kind) string {
	switch k {
	case reflect.String:
		return "a text"
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "a whole number"
	}
	return "a number"
}

func (o *Ordered[T]) decode(w *walk, path string, n *yaml.Node) {
	w.pairs(path, n, func(path, name string, v *yaml.Node) {
		*o = append(*o, Named[T]{Name: name})
		w.value(path, v, reflect.ValueOf(&(*o)[len(*o)-1].Value).Elem())
	})
}

func (c *Constraints) decode(w *walk, path string, n *yaml.Node) {
	if n.Kind == yaml.ScalarNode {
		text := strings.TrimSpace(n.Value)
		if text == "" {
			return
		}
		inner, problem := document([]byte(text))
		if problem != nil || inner.Kind != yaml.SequenceNode {
			w.fail(path, n, `%s is no list of constraints; one is written [["hostname","UNIQUE"]]`, said(n))
			return
		}
		setLine(inner, n.Line)
		n = inner
	}
	if n.Kind == yaml.SequenceNode && len(n.Content) > 0 && n.Content[0].Kind == yaml.ScalarNode {
		n = &yaml.Node{Kind: yaml.SequenceNode, Line: n.Line, Content: []*yaml.Node{n}} // a single one, bare
	}
	w.value(path, n, reflect.ValueOf((*[][]string)(c)).Elem())
}

func setLine(n *yaml.Node, line int) {
	n.Line = line
	for _, c := range n.Content {
		setLine(c, line)
	}
}

// decode reads both ways to write steps: [0, [a, b]] is one, and
// {0: [[a], [b]]} is two.
func (s *Steps) decode(w *walk, path string, n *yaml.Node) {
	if n.Kind != yaml.SequenceNode {
		w.fail(path, n, "%s where a list of steps is wanted", said(n))
		return
	}
	for i, e := range n.Content {
		at := fmt.Sprintf("%s[%d]", path, i)
		w.lines[at] = e.Line
		switch {
		case e.Kind == yaml.SequenceNode && len(e.Content) == 2:
			s.add(w, at, e.Content[0], e.Content[1])
		case e.Kind == yaml.MappingNode && len(e.Content) == 2 && e.Content[1].Kind == yaml.SequenceNode:
			list := e.Content[1]
			if len(list.Content) > 0 && list.Content[0].Kind != yaml.SequenceNode {
				s.add(w, at, e.Content[0], list)
				continue
			}
			for _, tasks := range list.Content {
				s.add(w, at, e.Content[0], tasks)
			}
		default:
			w.fail(at, e, "a step is written [0, [task]] or [default, [task]]")
		}
	}
}

func (s *Steps) add(w *walk, path string, instance, tasks *yaml.Node) {
	step := Step{Instance: EveryInstance}
	if instance.Value != everyInstance {
		n, err := strconv.Atoi(instance.Value)
		if instance.Kind != yaml.ScalarNode || err != nil || n < 0 {
			w.fail(path, instance, "%s where the number of an instance or default is wanted", said(instance))
			return
		}
		step.Instance = n
	}
	w.value(path+"[1]", tasks, reflect.ValueOf(&step.Tasks).Elem())
	*s = append(*s, step)
}
