package diag

import (
	"fmt"
	"io"

	"github.com/hashicorp/hcl/v2"
	"github.com/mitchellh/go-wordwrap"
)

// WriteText writes the findings with their source lines, wrapped at width
// columns (0: no wrapping), in colour when asked.
func (l List) WriteText(w io.Writer, files map[string]*hcl.File, width uint, color bool) error {
	wr := hcl.NewDiagnosticTextWriter(w, files, width, color)
	for _, d := range l {
		h := d.hcl()
		switch r := d.Range; {
		case r == nil:
		case d.Secret:
			h.Summary += fmt.Sprintf("\n\n  on %s line %d (not shown: it may hold a secret)", r.Filename, r.Start.Line)
			h.Subject, h.Expression, h.EvalContext = nil, nil, nil
		case r.End.Byte == 0: // the file, no line of it
			h.Summary += "\n\n  in " + r.Filename
			h.Subject = nil
		}
		if err := wr.WriteDiagnostic(h); err != nil {
			return err
		}
		if d.Hint == "" {
			continue
		}
		hint := "Hint: " + d.Hint
		if width > 0 {
			hint = wordwrap.WrapString(hint, width)
		}
		if _, err := fmt.Fprintf(w, "%s\n\n", hint); err != nil {
			return err
		}
	}
	return nil
}

func (d Diagnostic) hcl() *hcl.Diagnostic {
	sev := hcl.DiagError
	if d.Severity == Warning {
		sev = hcl.DiagWarning
	}
	return &hcl.Diagnostic{Severity: sev, Summary: d.Summary, Detail: d.Detail, Subject: d.Range, Context: d.Context,
		Expression: d.Expression, EvalContext: d.EvalContext}
}

// JSON is the form of a finding that tools read. Its names are stable.
type JSON struct {
	Severity Severity   `json:"severity"`
	Summary  string     `json:"summary"`
	Detail   string     `json:"detail,omitempty"`
	Hint     string     `json:"hint,omitempty"`
	Range    *RangeJSON `json:"range,omitempty"`
}

// RangeJSON is a place in a source file. Lines and columns count from 1,
// columns in characters; bytes count from 0.
type RangeJSON struct {
	Filename string  `json:"filename"`
	Start    PosJSON `json:"start"`
	End      PosJSON `json:"end"`
}

// PosJSON is one end of a range.
type PosJSON struct {
	Line   int `json:"line"`
	Column int `json:"column"`
	Byte   int `json:"byte"`
}

// JSON returns the findings in their stable form; never nil.
func (l List) JSON() []JSON {
	out := make([]JSON, 0, len(l))
	for _, d := range l {
		j := JSON{Severity: d.Severity, Summary: d.Summary, Detail: d.Detail, Hint: d.Hint}
		if r := d.Range; r != nil {
			j.Range = &RangeJSON{Filename: r.Filename, Start: PosJSON(r.Start), End: PosJSON(r.End)}
		}
		out = append(out, j)
	}
	return out
}
