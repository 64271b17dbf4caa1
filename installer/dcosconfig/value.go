package dcosconfig

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"go.yaml.in/yaml/v3"

	"dcos.example/dcos/installer/diag"
)

// value is one entry of a config.yaml. DC/OS makes text of every value, and
// JSON of lists and maps.
type value struct {
	key  string
	text string
	at   hcl.Range // of the value
	name hcl.Range // of the key
}

// list is the value as a list of texts.
func (v value) list() ([]string, error) {
	text := strings.TrimSpace(v.text)
	if text == "" {
		return nil, nil
	}
	var list []any
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return nil, fmt.Errorf("%q is not a list", v.text)
	}
	out := []string{}
	for _, e := range list {
		s, ok := e.(string)
		if !ok {
			return nil, fmt.Errorf("%v in it is not a text", e)
		}
		out = append(out, s)
	}
	return out, nil
}

// parse reads the entries of a config.yaml, in their order.
func parse(src Source, l *diag.List) []value {
	var doc yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(src.Text))
	if err := dec.Decode(&doc); err != nil {
		if len(bytes.TrimSpace(src.Text)) == 0 {
			err = errors.New("the file is empty")
		}
		l.Add(diag.Diagnostic{Summary: "Not YAML", Detail: sentence(err.Error()), Range: src.line(yamlLine(err))})
		return nil
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		l.Add(diag.Diagnostic{Summary: "Not a config.yaml", Detail: "The file must hold keys with values, as genconf/config.yaml does.", Range: src.line(1)})
		return nil
	}
	var out []value
	m := doc.Content[0]
	for i := 0; i+1 < len(m.Content); i += 2 {
		k, n := m.Content[i], m.Content[i+1]
		v := value{key: k.Value, name: src.span(k), at: src.span(n)}
		if j := slices.IndexFunc(out, func(o value) bool { return o.key == v.key }); j >= 0 {
			l.Add(diag.Diagnostic{Summary: "Key twice", Detail: fmt.Sprintf("%s is on line %d, too.", v.key, out[j].name.Start.Line), Range: &v.name})
			continue
		}
		text, err := stringify(n)
		if err != nil {
			l.Add(diag.Diagnostic{Summary: "Not readable", Detail: sentence(err.Error()), Range: &v.at, Secret: true})
			continue
		}
		v.text = text
		out = append(out, v)
	}
	return out
}

// sentence makes a message of the library one of ours.
func sentence(s string) string {
	s = strings.TrimPrefix(s, "yaml: ")
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:] + "."
}

// yamlLine is the line in a message of the library, which has no field for it.
func yamlLine(err error) int {
	_, rest, ok := strings.Cut(err.Error(), "line ")
	n := 1
	if ok {
		if _, err := fmt.Sscanf(rest, "%d", &n); err != nil {
			n = 1
		}
	}
	return n
}

// stringify is what DC/OS's own reader makes of a value.
func stringify(n *yaml.Node) (string, error) {
	if n.Kind == yaml.ScalarNode {
		if n.Tag == "!!null" {
			return "", nil
		}
		if n.Style == 0 { // plain: YAML 1.1 knows more words for truth
			switch strings.ToLower(n.Value) {
			case "true", "yes", "on":
				return "true", nil
			case "false", "no", "off":
				return "false", nil
			}
		}
		return n.Value, nil
	}
	var v any
	if err := n.Decode(&v); err != nil {
		return "", err
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return "", err
	}
	return strings.TrimSpace(b.String()), nil
}

// span is where a node is. Its end is that of its first line.
func (s Source) span(n *yaml.Node) hcl.Range {
	r := *s.line(n.Line)
	text := s.Text[r.Start.Byte:r.End.Byte]
	skip := 0
	for col := 1; col < n.Column && skip < len(text); col++ {
		_, size := decodeRune(text[skip:])
		skip += size
	}
	r.Start.Byte += skip
	r.Start.Column = n.Column
	if n.Kind == yaml.ScalarNode && n.Style == 0 && len(n.Value) <= r.End.Byte-r.Start.Byte {
		r.End.Byte = r.Start.Byte + len(n.Value)
		r.End.Column = r.Start.Column + len([]rune(n.Value))
	}
	return r
}

func decodeRune(b []byte) (rune, int) {
	r := []rune(string(b[:min(len(b), 4)]))
	return r[0], len(string(r[0]))
}

// line is the range of a whole line, counted from 1.
func (s Source) line(n int) *hcl.Range {
	start := 0
	for i := 1; i < n; i++ {
		next := bytes.IndexByte(s.Text[start:], '\n')
		if next < 0 {
			break
		}
		start += next + 1
	}
	end := len(s.Text)
	if next := bytes.IndexByte(s.Text[start:], '\n'); next >= 0 {
		end = start + next
	}
	return &hcl.Range{Filename: s.Name, Start: hcl.Pos{Line: n, Column: 1, Byte: start}, End: hcl.Pos{Line: n, Column: len([]rune(string(s.Text[start:end]))) + 1, Byte: end}}
}
