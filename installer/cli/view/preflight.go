package view

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/mitchellh/go-wordwrap"

	"dcos.example/dcos/installer/preflight"
)

// Preflight is what a preflight found.
type Preflight struct {
	Cluster string             `json:"cluster"`
	Hosts   []PreflightHost    `json:"hosts"`
	Summary map[string]int     `json:"summary"` // results by state; failed ones by severity
	Results []preflight.Result `json:"results"`
	Note    string             `json:"note,omitempty"` // why not everything was measured
	Elapsed time.Duration      `json:"elapsedNanos"`
	// Before is the operation that the preflight is made for; empty when it is
	// made for its own sake.
	Before string `json:"before,omitempty"`
	// All shows what passed, too.
	All bool `json:"-"`
}

// PreflightHost counts the results of one host.
type PreflightHost struct {
	Name    string         `json:"name"`
	Role    string         `json:"role"`
	Address string         `json:"address"`
	State   string         `json:"state"` // checked, unreached, absent
	Summary map[string]int `json:"summary"`
}

// NewPreflight returns the document of what was found on hosts.
func NewPreflight(cluster string, hosts []*preflight.Host, results []preflight.Result) Preflight {
	d := Preflight{Cluster: cluster, Hosts: []PreflightHost{}, Summary: map[string]int{}, Results: results}
	at := map[string]int{}
	for i, h := range hosts {
		state := "checked"
		switch {
		case h.Absent != "":
			state = "absent"
		case h.Facts == nil:
			state = "unreached"
		}
		d.Hosts = append(d.Hosts, PreflightHost{h.Name, string(h.Role), h.Addr.String(), state, map[string]int{}})
		at[h.Name] = i
	}
	for _, r := range results {
		d.Summary[outcome(r)]++
		for _, name := range strings.Split(r.Host, ", ") {
			if i, ok := at[name]; ok {
				d.Hosts[i].Summary[outcome(r)]++
			}
		}
	}
	return d
}

// outcome is the state of a result, with failures told apart by severity.
func outcome(r preflight.Result) string {
	if r.State == preflight.Failed {
		return string(r.Severity)
	}
	return string(r.State)
}

// Stops says whether what was found forbids to install.
func (d Preflight) Stops() bool { return d.Summary[string(preflight.Error)] > 0 }

func (Preflight) Kind() string { return "preflight" }

// WriteText shows failures first, errors before warnings, each once for all
// hosts that have it.
func (d Preflight) WriteText(p *Printer) {
	for _, sev := range []preflight.Severity{preflight.Error, preflight.Warning} {
		d.failures(p, sev)
	}
	if d.Before == "" {
		d.table(p)
	}
	d.ignored(p)
	if d.All {
		d.everything(p)
	}
	if d.Note != "" {
		p.Printf("%s\n", d.Note)
	}
	var parts []string
	for _, s := range []struct{ key, one string }{{"error", "error"}, {"warning", "warning"}} {
		if n := d.Summary[s.key]; n > 0 {
			parts = append(parts, plural(n, s.one))
		}
	}
	for _, s := range []string{"ignored", "passed", "unknown"} {
		if n := d.Summary[s]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, s))
		}
	}
	if len(parts) == 0 {
		parts = []string{"nothing to check yet"}
	}
	color := green
	switch {
	case d.Stops():
		color = red
	case d.Summary["warning"] > 0:
		color = yellow
	}
	p.Printf("%s %s (%s)\n", p.paint(color, "Preflight:"), strings.Join(parts, ", "), short(d.Elapsed))
	if d.Stops() && d.Before != "" {
		p.Printf("Nothing was changed. Repair the errors and run %s again, or go on in spite of one with -ignore ID.\n", d.Before)
	}
}

// failures groups what is the same on several hosts.
func (d Preflight) failures(p *Printer, sev preflight.Severity) {
	type group struct {
		preflight.Result
		on []string
	}
	var list []*group
	by := map[string]*group{}
	for _, r := range d.Results {
		if r.State != preflight.Failed || r.Severity != sev {
			continue
		}
		who := r.Host
		if r.Peer != "" {
			who += " → " + r.Peer
		}
		// The fix may name the host; the first one's is shown.
		key := strings.Join([]string{r.Check, r.Measured, r.Limit}, "\x00")
		g := by[key]
		if g == nil {
			g = &group{Result: r}
			by[key], list = g, append(list, g)
		}
		g.on = append(g.on, who)
	}
	for _, g := range list {
		color, mark := red, "✗"
		if sev == preflight.Warning {
			color, mark = yellow, "!"
		}
		p.Printf("%s %s %s  %s\n", p.paint(color, mark), p.paint(bold, strings.Join(g.on, ", ")), g.Check, p.paint(dim, string(sev)))
		p.paragraph("    ", "", g.Measured+"; wanted: "+g.Limit)
		fix := g.Fix
		if len(g.on) > 1 {
			for _, who := range g.on[1:] {
				fix = strings.ReplaceAll(fix, " "+who+":", " "+g.on[0]+":")
			}
			fix = strings.Replace(fix, "on "+g.on[0]+":", "on each of them:", 1)
			fix = strings.Replace(fix, "on "+g.on[0]+",", "on each of them,", 1)
		}
		p.paragraph("    ", "→ ", fix)
	}
	if len(list) > 0 {
		p.Printf("\n")
	}
}

// paragraph writes text, wrapped to the terminal, the lines after the first
// indented below it.
func (p *Printer) paragraph(indent, lead, text string) {
	width := 100
	if p.Width > 0 {
		width = p.Width
	}
	under := indent + strings.Repeat(" ", ansi.StringWidth(lead))
	for i, l := range strings.Split(wordwrap.WrapString(text, uint(max(width-len(under), 20))), "\n") {
		if i == 0 {
			p.Printf("%s%s%s\n", indent, lead, l)
		} else {
			p.Printf("%s%s\n", under, l)
		}
	}
}

func (d Preflight) table(p *Printer) {
	if len(d.Hosts) == 0 {
		return
	}
	rows := [][]string{{"HOST", "ROLE", "ADDRESS", "ERRORS", "WARNINGS", "IGNORED", "PASSED", "UNKNOWN"}}
	for _, h := range d.Hosts {
		row := []string{h.Name, h.Role, h.Address}
		if h.State == "absent" {
			row = append(row, "not made yet")
		} else {
			for _, s := range []string{"error", "warning", "ignored", "passed", "unknown"} {
				n := "-"
				if h.Summary[s] > 0 {
					n = fmt.Sprint(h.Summary[s])
				}
				row = append(row, n)
			}
		}
		rows = append(rows, row)
	}
	p.table("", rows)
	p.Printf("\n")
}

func (d Preflight) ignored(p *Printer) {
	var seen []string
	for _, r := range d.Results {
		if r.State != preflight.Ignored {
			continue
		}
		line := fmt.Sprintf("Ignored: %s on %s (%s): %s", r.Check, r.Host, r.Measured, r.Reason)
		if !slices.Contains(seen, line) {
			seen = append(seen, line)
			p.Printf("%s\n", line)
		}
	}
}

// Checks is the table of preflight checks.
type Checks struct {
	Checks []preflight.Check `json:"checks"`
}

func (Checks) Kind() string { return "checks" }

func (d Checks) WriteText(p *Printer) {
	rows := [][]string{{"CHECK", "SEVERITY", "WHAT"}}
	for _, c := range d.Checks {
		rows = append(rows, []string{c.ID, string(c.Severity), c.Title})
	}
	p.table("", rows)
}

func (d Preflight) everything(p *Printer) {
	rows := [][]string{{"HOST", "CHECK", "RESULT", "MEASURED"}}
	for _, r := range d.Results {
		who := r.Host
		if r.Peer != "" {
			who += " → " + r.Peer
		}
		if who == "" {
			who = "all"
		}
		what := r.Measured
		if r.State == preflight.Unknown || r.State == preflight.Skipped {
			what = r.Reason
		}
		rows = append(rows, []string{who, r.Check, outcome(r), what})
	}
	p.table("", rows)
	p.Printf("\n")
}
