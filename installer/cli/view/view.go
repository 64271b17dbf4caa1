// Package view shows what the installer's commands found and did, to people as
// text and to programs as JSON. A command builds a document; the document knows
// both of its forms. The JSON form is stable and described in
// docs/cli-json.md: fields are added, never renamed.
package view

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// Format is the version of all JSON forms.
const Format = 1

// Document is one thing to show.
type Document interface {
	// Kind is the value of "kind" in the JSON form.
	Kind() string
	// WriteText writes the form for people.
	WriteText(p *Printer)
}

// Printer writes text with or without colour and remembers the first error, so
// that documents need not look at each write.
type Printer struct {
	W     io.Writer
	Color bool
	Width int // columns of the terminal; 0: not a terminal
	Err   error
}

// Printf writes formatted text.
func (p *Printer) Printf(format string, args ...any) {
	if p.Err == nil {
		_, p.Err = fmt.Fprintf(p.W, format, args...)
	}
}

type style string

const (
	bold   style = "\x1b[1m"
	dim    style = "\x1b[2m"
	red    style = "\x1b[31m"
	green  style = "\x1b[32m"
	yellow style = "\x1b[33m"
	reset        = "\x1b[0m"
)

func (p *Printer) paint(s style, text string) string {
	if !p.Color || text == "" {
		return text
	}
	return string(s) + text + reset
}

// fit cuts text to the width of the terminal less used columns.
func (p *Printer) fit(text string, used int) string {
	if p.Width <= 0 {
		return text
	}
	return ansi.Truncate(text, max(p.Width-used, 20), "…")
}

// table writes rows with aligned columns.
func (p *Printer) table(indent string, rows [][]string) {
	var width []int
	for _, r := range rows {
		for i, c := range r {
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], ansi.StringWidth(c))
		}
	}
	for _, r := range rows {
		var b strings.Builder
		b.WriteString(indent)
		for i, c := range r {
			b.WriteString(c)
			if i < len(r)-1 {
				b.WriteString(strings.Repeat(" ", width[i]-ansi.StringWidth(c)+2))
			}
		}
		p.Printf("%s\n", strings.TrimRight(b.String(), " "))
	}
}

// WriteJSON writes d on one line, or indented, with its kind and format first.
func WriteJSON(w io.Writer, d Document, indent bool) error {
	body, err := json.Marshal(d)
	if err != nil {
		return err
	}
	head := fmt.Sprintf(`{"format":%d,"kind":%q`, Format, d.Kind())
	text := []byte(head + "}")
	if rest := strings.TrimPrefix(string(body), "{"); rest != "}" {
		text = []byte(head + "," + rest)
	}
	if indent {
		var v json.RawMessage = text
		if text, err = json.MarshalIndent(v, "", "  "); err != nil {
			return err
		}
	}
	_, err = w.Write(append(text, '\n'))
	return err
}
