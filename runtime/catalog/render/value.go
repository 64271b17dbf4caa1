package render

import (
	"bytes"
	"encoding/json"
	"math/big"
	"strconv"
	"strings"

	"dcos.example/dcos/runtime/mustache"
)

// context is what a template sees: values as they are written into it, and the
// lambda asJson, which writes a string as it is.
func context(values map[string]any) map[string]any {
	seen := make(map[string]any, len(values)+1)
	seen["asJson"] = asJSON(values)
	for k, v := range values {
		seen[k] = written(v)
	}
	return seen
}

// written is v in the form in which a template writes it: text without quotes,
// escaped so that it may stand between them, but with quotes if it is an
// element of a list; numbers whole if they are, else as Java writes them.
func written(v any) any {
	switch v := v.(type) {
	case string:
		quoted := quote(v)
		return quoted[1 : len(quoted)-1]
	case json.Number:
		return number(v)
	case []any:
		list := make([]any, len(v))
		for i, e := range v {
			if s, ok := e.(string); ok {
				list[i] = quote(s)
			} else {
				list[i] = written(e)
			}
		}
		return list
	case map[string]any:
		m := make(map[string]any, len(v))
		for k, e := range v {
			m[k] = written(e)
		}
		return m
	}
	return v
}

// format writes what written returned.
func format(v any) (string, error) {
	switch v := v.(type) {
	case []any:
		parts := make([]string, len(v))
		for i, e := range v {
			s, err := format(e)
			if err != nil {
				return "", err
			}
			if e == nil {
				s = "null"
			}
			parts[i] = s
		}
		return "[" + strings.Join(parts, ", ") + "]", nil
	case map[string]any:
		return braces(v), nil
	}
	return mustache.Text(v)
}

// braces writes an object as JSON; the original wrote what was none.
func braces(m map[string]any) string {
	var b strings.Builder
	b.WriteByte('{')
	for i, k := range sortedKeys(m) {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(quote(k) + ": ")
		switch e := m[k].(type) {
		case string:
			b.WriteString(`"` + e + `"`) // escaped already
		case nil:
			b.WriteString("null")
		default:
			s, err := format(e)
			if err != nil {
				s = "null"
			}
			b.WriteString(s)
		}
	}
	b.WriteByte('}')
	return b.String()
}

func quote(s string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		panic(err) // a string always encodes
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// number writes 3.0 and 3e0 as 3, and fractions as Java's Double does.
func number(n json.Number) json.Number {
	text := n.String()
	if !strings.ContainsAny(text, ".eE") {
		return n
	}
	r, ok := new(big.Rat).SetString(text)
	if !ok {
		return n
	}
	if r.IsInt() {
		return json.Number(r.Num().String())
	}
	f, _ := r.Float64()
	return json.Number(java(f))
}

func java(f float64) string {
	if size := max(f, -f); size >= 1e-3 && size < 1e7 {
		s := strconv.FormatFloat(f, 'f', -1, 64)
		if !strings.Contains(s, ".") {
			s += ".0"
		}
		return s
	}
	mantissa, exponent, _ := strings.Cut(strconv.FormatFloat(f, 'E', -1, 64), "E")
	if !strings.Contains(mantissa, ".") {
		mantissa += ".0"
	}
	sign := ""
	if strings.HasPrefix(exponent, "-") {
		sign = "-"
	}
	return mantissa + "E" + sign + strings.TrimLeft(exponent, "+-0")
}

// asJSON is the lambda by which {{#asJson}}name{{/asJson}} writes the option
// of that name: a string as it is, all else as JSON.
func asJSON(options map[string]any) mustache.Lambda {
	return func(text string, render func(string) (string, error)) (string, error) {
		name, err := render(text)
		if err != nil {
			return "", err
		}
		var v any = options
		for _, part := range strings.Split(strings.TrimSpace(name), ".") {
			m, _ := v.(map[string]any)
			v = m[part]
		}
		if s, ok := v.(string); ok {
			return s, nil
		}
		if v == nil {
			return "", nil
		}
		b, err := encode(v)
		return string(b), err
	}
}
