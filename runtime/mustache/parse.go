package mustache

import (
	"fmt"
	"slices"
	"strings"

	"dcos.example/dcos/runtime/fault"
)

// Parse reads a template. Errors are fault.Invalid and name the line.
func Parse(text string) (*Template, error) {
	nodes, err := parse(text, "{{", "}}")
	if err != nil {
		return nil, fault.New("parse template", fault.Invalid, err)
	}
	return &Template{nodes: nodes}, nil
}

// tag is what stands between two delimiters.
type tag struct {
	sigil      byte   // one of #^/&{!=, or 0
	content    string // without sigil and surrounding space
	start, end int    // in the text, delimiters included
}

// parser reads a text once, from its beginning. frames are the sections that
// are open, outermost first; the first frame is the template itself.
type parser struct {
	text        string
	open, close string
	pos         int
	line        int // of counted
	counted     int
	frames      []frame
}

type frame struct {
	node  node
	start int // where the section's text begins
}

func parse(text, open, closing string) ([]node, error) {
	p := &parser{text: text, open: open, close: closing, line: 1, frames: []frame{{}}}
	for {
		t, ok, err := p.next()
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		if err := p.tag(t); err != nil {
			return nil, fmt.Errorf("line %d: %w", p.lineOf(t.start), err)
		}
	}
	p.literal(len(text))
	if last := p.frames[len(p.frames)-1]; len(p.frames) > 1 {
		return nil, fmt.Errorf("line %d: the section %s is never closed", last.node.line, name(last.node.path))
	}
	return p.frames[0].node.nodes, nil
}

// next finds the next tag from pos on.
func (p *parser) next() (tag, bool, error) {
	i := strings.Index(p.text[p.pos:], p.open)
	if i < 0 {
		return tag{}, false, nil
	}
	t := tag{start: p.pos + i}
	body := t.start + len(p.open)
	rest := strings.TrimLeft(p.text[body:], " \t\r\n")
	body = len(p.text) - len(rest)
	closing := p.close
	if rest != "" && strings.IndexByte("#^/&{!=><$", rest[0]) >= 0 {
		t.sigil = rest[0]
		body++
		switch t.sigil {
		case '{':
			closing = "}" + p.close
		case '=':
			closing = "=" + p.close
		}
	}
	i = strings.Index(p.text[body:], closing)
	if i < 0 {
		return tag{}, false, fmt.Errorf("line %d: %s is never closed by %s", p.lineOf(t.start), p.open, closing)
	}
	t.content, t.end = strings.TrimSpace(p.text[body:body+i]), body+i+len(closing)
	return t, true, nil
}

func (p *parser) tag(t tag) error {
	from, to := t.start, t.end
	if t.sigil != 0 && strings.IndexByte("#^/!=", t.sigil) >= 0 {
		from, to = p.standalone(t)
	}
	p.literal(from)
	p.pos = to
	switch t.sigil {
	case '!':
		return nil
	case '=':
		return p.delimiters(t.content)
	case '>', '<', '$':
		return fmt.Errorf("{{%c%s}}: a template is one text, without partials and parents", t.sigil, t.content)
	}
	path, err := path(t.content)
	if err != nil {
		return err
	}
	n := node{line: p.lineOf(t.start), path: path}
	switch t.sigil {
	case '#', '^':
		if n.kind = section; t.sigil == '^' {
			n.kind = inverted
		}
		if len(p.frames) > maxNesting {
			return fmt.Errorf("sections are more than %d deep", maxNesting)
		}
		n.open, n.close = p.open, p.close
		p.frames = append(p.frames, frame{node: n, start: t.end})
		return nil
	case '/':
		last := p.frames[len(p.frames)-1]
		if len(p.frames) == 1 {
			return fmt.Errorf("{{/%s}} closes a section that was never opened", t.content)
		}
		if !slices.Equal(path, last.node.path) {
			return fmt.Errorf("{{/%s}} stands where the section %s of line %d should be closed", t.content, name(last.node.path), last.node.line)
		}
		last.node.text = p.text[last.start:t.start]
		p.frames = p.frames[:len(p.frames)-1]
		p.add(last.node)
		return nil
	case '&', '{':
		n.kind = verbatim
	default:
		n.kind = variable
	}
	p.add(n)
	return nil
}

func (p *parser) delimiters(content string) error {
	both := strings.Fields(content)
	if len(both) != 2 || strings.Contains(content, "=") {
		return fmt.Errorf("{{=%s=}} must name two delimiters, without =", content)
	}
	p.open, p.close = both[0], both[1]
	return nil
}

// standalone widens a tag that is alone on its line to the whole line.
func (p *parser) standalone(t tag) (from, to int) {
	from = len(strings.TrimRight(p.text[:t.start], " \t"))
	if from > 0 && p.text[from-1] != '\n' {
		return t.start, t.end
	}
	rest := strings.TrimLeft(p.text[t.end:], " \t")
	after, ok := strings.CutPrefix(rest, "\r\n")
	if !ok {
		after, ok = strings.CutPrefix(rest, "\n")
	}
	if !ok && rest != "" {
		return t.start, t.end
	}
	return from, len(p.text) - len(after)
}

// literal adds the text from pos up to end.
func (p *parser) literal(end int) {
	if end > p.pos {
		p.add(node{line: p.lineOf(p.pos), text: p.text[p.pos:end]})
	}
	p.pos = max(p.pos, end)
}

func (p *parser) add(n node) {
	f := &p.frames[len(p.frames)-1]
	f.node.nodes = append(f.node.nodes, n)
}

// lineOf counts from the last place asked for: the places only grow, or stay
// within the present tag.
func (p *parser) lineOf(pos int) int {
	if pos < p.counted {
		return p.line - strings.Count(p.text[pos:p.counted], "\n")
	}
	p.line += strings.Count(p.text[p.counted:pos], "\n")
	p.counted = pos
	return p.line
}

// path splits a dotted name; that of the context itself is empty.
func path(s string) ([]string, error) {
	if s == "." {
		return nil, nil
	}
	parts := strings.Split(s, ".")
	if slices.Contains(parts, "") {
		return nil, fmt.Errorf("%q is no name", s)
	}
	return parts, nil
}
