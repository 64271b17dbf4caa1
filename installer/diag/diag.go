// Package diag is the list of findings about what a user wrote: each with a
// severity, a summary, a detail, a hint and the place in the source. Findings
// are collected, never stopped at the first. Rendering, as text with a source
// snippet or as JSON, lives here too so that every command shows the same.
//
// Whoever appends a finding about a secret sets Secret: the source line is
// then not shown, for it may hold the secret itself.
package diag

import (
	"fmt"
	"sort"
	"strings"

	"github.com/agext/levenshtein"
	"github.com/hashicorp/hcl/v2"
)

// Severity says whether a finding stops the operation.
type Severity string

const (
	Error   Severity = "error"
	Warning Severity = "warning"
)

// Diagnostic is one finding.
type Diagnostic struct {
	Severity Severity
	Summary  string     // what is wrong, a few words
	Detail   string     // why, in sentences
	Hint     string     // what to write or do instead; may be empty
	Range    *hcl.Range // where; nil when no source is at fault
	Context  *hcl.Range // lines to show around Range; may be nil
	Secret   bool       // the source at Range may hold a secret: do not show it

	// Expression and EvalContext, where known, let the text form say which
	// values the names in the expression had. Marked values are not shown.
	Expression  hcl.Expression
	EvalContext *hcl.EvalContext
}

// List is a collection of findings.
type List []Diagnostic

// FromHCL converts findings of the HCL library.
func FromHCL(in hcl.Diagnostics) List {
	out := make(List, 0, len(in))
	for _, d := range in {
		sev := Error
		if d.Severity == hcl.DiagWarning {
			sev = Warning
		}
		out = append(out, Diagnostic{Severity: sev, Summary: d.Summary, Detail: d.Detail, Range: d.Subject, Context: d.Context,
			Expression: d.Expression, EvalContext: d.EvalContext})
	}
	return out
}

// AddHCL appends findings of the HCL library.
func (l *List) AddHCL(in hcl.Diagnostics) { *l = append(*l, FromHCL(in)...) }

// Add appends one finding.
func (l *List) Add(d Diagnostic) {
	if d.Severity == "" {
		d.Severity = Error
	}
	*l = append(*l, d)
}

// Errorf appends an error at r with a formatted detail.
func (l *List) Errorf(r *hcl.Range, summary, format string, args ...any) {
	l.Add(Diagnostic{Severity: Error, Summary: summary, Detail: fmt.Sprintf(format, args...), Range: r})
}

// HasErrors reports whether any finding is an error.
func (l List) HasErrors() bool {
	for _, d := range l {
		if d.Severity == Error {
			return true
		}
	}
	return false
}

// Count returns how many errors and warnings there are.
func (l List) Count() (errors, warnings int) {
	for _, d := range l {
		if d.Severity == Error {
			errors++
		} else {
			warnings++
		}
	}
	return errors, warnings
}

// Sort orders the findings by place, keeping the order of those without one,
// which come first, and removes exact repetitions (an expression evaluated for
// each host of a group is wrong once).
func (l *List) Sort() {
	s := *l
	sort.SliceStable(s, func(i, j int) bool {
		a, b := s[i].Range, s[j].Range
		if a == nil || b == nil {
			return a == nil && b != nil
		}
		if a.Filename != b.Filename {
			return a.Filename < b.Filename
		}
		return a.Start.Byte < b.Start.Byte
	})
	type key struct {
		sev             Severity
		summary, detail string
		at              hcl.Range
	}
	seen := make(map[key]bool, len(s))
	out := s[:0]
	for _, d := range s {
		k := key{sev: d.Severity, summary: d.Summary, detail: d.Detail}
		if d.Range != nil {
			k.at = *d.Range
		}
		if !seen[k] {
			seen[k] = true
			out = append(out, d)
		}
	}
	*l = out
}

// Nearest returns the candidate that given is probably a misspelling of, or
// the empty string.
func Nearest(given string, candidates []string) string {
	best, bestDist := "", 3 // Terraform's bound: two edits
	for _, c := range candidates {
		if d := levenshtein.Distance(strings.ToLower(given), strings.ToLower(c), nil); d < bestDist {
			best, bestDist = c, d
		}
	}
	if best != "" && bestDist >= len(best) { // "ab" is not a misspelt "cd"
		return ""
	}
	return best
}

// DidYouMean returns ` Did you mean "x"?` or the empty string.
func DidYouMean(given string, candidates []string) string {
	if n := Nearest(given, candidates); n != "" {
		return fmt.Sprintf("Did you mean %q?", n)
	}
	return ""
}
