package mustache_test

import (
	"errors"
	"fmt"
	"html"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/mustache"
)

type m = map[string]any
type l = []any

// TestRender goes through the rules of the specification, one case each.
func TestRender(t *testing.T) {
	for _, c := range []struct {
		name, text string
		data       any
		want       string
	}{
		// names
		{"no tags", "plain { } text", nil, "plain { } text"},
		{"name", "a {{x}} b", m{"x": "1"}, "a 1 b"},
		{"space in tag", "{{ x }}|{{{ x }}}|{{& x }}", m{"x": "1"}, "1|1|1"},
		{"no escaping", `{{x}}`, m{"x": `<&">`}, `<&">`},
		{"missing is nothing", "[{{x}}]", m{}, "[]"},
		{"nil is nothing", "[{{x}}]", m{"x": nil}, "[]"},
		{"number, bool", "{{i}} {{f}} {{b}}", m{"i": 7, "f": 1.25, "b": true}, "7 1.25 true"},
		{"list and object are JSON", "{{l}} {{o}}", m{"l": l{"a", 1}, "o": m{"k": "v"}}, `["a",1] {"k":"v"}`},
		{"triple in braces", `{"a":{{{x}}}}`, m{"x": "1"}, `{"a":1}`},
		{"name in braces", `{"a":{{x}}}`, m{"x": "1"}, `{"a":1}`},
		{"environment", "{{A}}-{{B}}", map[string]string{"A": "1"}, "1-"},
		{"lines stay around names", "  {{x}}\n", m{"x": "1"}, "  1\n"},
		// dotted names
		{"dotted", "{{a.b.c}}", m{"a": m{"b": m{"c": "v"}}}, "v"},
		{"dotted, broken", "[{{a.b.c}}]", m{"a": m{}}, "[]"},
		{"dotted is resolved by its first part", "[{{#in}}{{a.b}}{{/in}}]", m{"a": m{"b": "outer"}, "in": m{"a": m{}}}, "[]"},
		{"dotted section", "{{#a.b}}y{{/a.b}}{{^a.c}}n{{/a.c}}", m{"a": m{"b": true}}, "yn"},
		{"implicit", "{{#l}}({{.}}){{/l}}", m{"l": l{"a", 1, true}}, "(a)(1)(true)"},
		{"implicit of strings", "{{#l}}({{.}}){{/l}}", m{"l": []string{"a", "b"}}, "(a)(b)"},
		// sections
		{"true", "{{#b}}y{{/b}}", m{"b": true}, "y"},
		{"false", "[{{#b}}y{{/b}}]", m{"b": false}, "[]"},
		{"missing section", "[{{#b}}y{{/b}}]", m{}, "[]"},
		{"empty string", "[{{#b}}y{{/b}}{{^b}}n{{/b}}]", m{"b": ""}, "[n]"},
		{"zero is something", "[{{#b}}y{{/b}}]", m{"b": 0}, "[y]"},
		{"empty object is something", "[{{#b}}y{{/b}}]", m{"b": m{}}, "[y]"},
		{"string is context", "{{#s}}<{{.}}>{{/s}}", m{"s": "v"}, "<v>"},
		{"object is context", "{{#o}}{{x}}{{y}}{{/o}}", m{"o": m{"x": "1"}, "y": "2"}, "12"},
		{"inner hides outer", "{{#o}}{{x}}{{/o}}{{x}}", m{"o": m{"x": "1"}, "x": "2"}, "12"},
		{"list", "{{#l}}{{n}},{{/l}}", m{"l": l{m{"n": 1}, m{"n": 2}}}, "1,2,"},
		{"empty list", "[{{#l}}x{{/l}}{{^l}}n{{/l}}]", m{"l": l{}}, "[n]"},
		{"lists in lists", "{{#l}}{{#.}}{{.}}{{/.}};{{/l}}", m{"l": l{l{1, 2}, l{3}}}, "12;3;"},
		{"same name within", "{{#a}}{{#a}}x{{/a}}{{/a}}", m{"a": true}, "x"},
		{"inverted", "{{^b}}n{{/b}}", m{}, "n"},
		{"inverted of something", "[{{^b}}n{{/b}}]", m{"b": m{"x": 1}}, "[]"},
		// comments and delimiters
		{"comment", "a{{! no }}b", nil, "ab"},
		{"comment over lines", "a\n{{!\n no\n}}\nb\n", nil, "a\nb\n"},
		{"delimiters", "{{=<% %>=}}<% x %>{{x}}", m{"x": "1"}, "1{{x}}"},
		{"delimiters of pipes", "{{=| |=}}|x||&x||={{ }}=|{{x}}", m{"x": "1"}, "111"},
		{"delimiters outlive sections", "{{#b}}{{=| |=}}{{/b}}|/b||x|", m{"b": true, "x": "1"}, "{{/b}}1"},
		// standalone lines
		{"standalone section", "a\n  {{#b}}  \nx\n\t{{/b}}\nc\n", m{"b": true}, "a\nx\nc\n"},
		{"standalone, CRLF", "a\r\n{{#b}}\r\nx\r\n{{/b}}\r\nc", m{"b": true}, "a\r\nx\r\nc"},
		{"standalone at the ends", "{{#b}}\nx\n{{/b}}", m{"b": true}, "x\n"},
		{"standalone comment, delimiters", "a\n {{! c }}\n {{=| |=}} \nb", nil, "a\nb"},
		{"two on a line are not", "a\n {{#b}}{{/b}} \nc", m{"b": true}, "a\n  \nc"},
		{"inline", " a {{#b}}x{{/b}} \n", m{"b": true}, " a x \n"},
		{"inverted standalone", "a\n{{^b}}\nx\n{{/b}}\n", nil, "a\nx\n"},
		// lambdas
		{"lambda", "{{#up}}a {{x}}{{/up}}", m{"x": "b", "up": upper}, "A B"},
		{"lambda sees raw text", "{{#raw}}a {{x}}{{/raw}}", m{"x": "b", "raw": raw}, "a {{x}}"},
		{"lambda is not empty", "[{{^up}}n{{/up}}]", m{"up": upper}, "[]"},
		{"lambda keeps delimiters", "{{=| |=}}|#up|x|x||/up|", m{"x": "b", "up": upper}, "XB"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tmpl, err := mustache.Parse(c.text)
			if err != nil {
				t.Fatal(err)
			}
			got, err := tmpl.Render(c.data, mustache.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

var (
	upper mustache.Lambda = func(text string, render func(string) (string, error)) (string, error) {
		s, err := render(text)
		return strings.ToUpper(s), err
	}
	raw mustache.Lambda = func(text string, _ func(string) (string, error)) (string, error) { return text, nil }
)

func TestParseErrors(t *testing.T) {
	for text, want := range map[string]string{
		"a\n{{x":                       "line 2: {{ is never closed by }}",
		"{{{x}}":                       "line 1: {{ is never closed by }}}",
		"\n\n{{#a}}\n":                 "line 3: the section a is never closed",
		"{{/a}}":                       "line 1: {{/a}} closes a section that was never opened",
		"{{#a}}\n{{#b}}\n{{/a}}{{/b}}": "line 3: {{/a}} stands where the section b of line 2 should be closed",
		"{{> other}}":                  "line 1: {{>other}}: a template is one text, without partials and parents",
		"{{=x=}}":                      "line 1: {{=x=}} must name two delimiters, without =",
		"{{}}":                         `line 1: "" is no name`,
		"{{a..b}}":                     `line 1: "a..b" is no name`,
		strings.Repeat("{{#a}}", 65):   "line 1: sections are more than 64 deep",
	} {
		_, err := mustache.Parse(text)
		if err == nil || !fault.Is(err, fault.Invalid) || err.Error() != "parse template: "+want {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
}

func TestOptions(t *testing.T) {
	tmpl, err := mustache.Parse("{{x}}\n{{{x}}}\n{{#no}}{{/no}}{{nil}}\n{{missing.name}}")
	if err != nil {
		t.Fatal(err)
	}
	data := m{"x": "<", "nil": nil}
	got, err := tmpl.Render(data, mustache.Options{Escape: html.EscapeString, Format: func(v any) (string, error) { return fmt.Sprint(v), nil }})
	if want := "&lt;\n<\n&lt;nil&gt;\n&lt;nil&gt;"; err != nil || got != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	for want, o := range map[string]mustache.Options{
		"line 4: there is no value for missing.name": {Strict: true},
		"line 2: the output is more than 3 bytes":    {MaxBytes: 3},
		"line 1: write x: no such format":            {Format: func(any) (string, error) { return "", errors.New("no such format") }},
	} {
		if _, err := tmpl.Render(data, o); err == nil || err.Error() != "render template: "+want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if got, want := strings.Join(tmpl.Names(), " "), "missing.name nil no x"; got != want {
		t.Errorf("names are %q, want %q", got, want)
	}
}

// TestBounds: what is written to take for ever does not.
func TestBounds(t *testing.T) {
	long := make(l, 100)
	for i := range long {
		long[i] = i
	}
	var endless mustache.Lambda = func(text string, render func(string) (string, error)) (string, error) {
		return render("{{#f}}" + text + "{{/f}}")
	}
	loops := strings.Repeat("{{#l}}", 20) + strings.Repeat("{{/l}}", 20)
	for text, want := range map[string]string{
		loops: "steps",
		strings.Repeat("{{#o}}", 20) + strings.Repeat("{{/o}}", 20): "more than 10 deep",
		"{{#f}}x{{/f}}": "deep",
	} {
		tmpl, err := mustache.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		o := mustache.Options{}
		if strings.Contains(want, "10") {
			o.MaxDepth = 10
		}
		_, err = tmpl.Render(m{"l": long, "o": m{}, "f": endless}, o)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20s: got %v, want an error of %s", text, err, want)
		}
	}
}

// TestAnyText: no text panics, and what parses renders or says why not.
func TestAnyText(t *testing.T) {
	part := rapid.SampledFrom([]string{"{{", "}}", "{{{", "}}}", "#", "^", "/", "a", "b", ".", " ", "\n", "=", "|", "!", "{{#a}}", "{{/a}}", "{{=| |=}}", "text"})
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOfN(part, 0, 20).Draw(t, "parts"), "")
		tmpl, err := mustache.Parse(text)
		if err != nil {
			return
		}
		out, err := tmpl.Render(m{"a": l{m{"b": "v"}}}, mustache.Options{})
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if !strings.Contains(text, "{{") && out != text {
			t.Fatalf("%q became %q", text, out)
		}
	})
}
