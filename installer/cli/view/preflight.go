package view

import (
	"fmt"
	"regexp"
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
	if d.Before != "" {
		p.Printf("\n")
	}
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

// group is what failed in the same way on several hosts.
type group struct {
	preflight.Result // of the first, with names replaced by marks
	hosts, peers     []string
	measured         [][2]string // host or pair → what
}

// Marks stand for the names of the host and the peer in a text.
const (
	hostMark = "\x01"
	peerMark = "\x02"
)

// failures shows what is the same on several hosts once.
func (d Preflight) failures(p *Printer, sev preflight.Severity) {
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
		r.Limit, r.Fix = d.nameless(r, r.Limit), d.nameless(r, r.Fix)
		key := strings.Join([]string{r.Check, r.Limit, r.Fix}, "\x00")
		g := by[key]
		if g == nil {
			g = &group{Result: r}
			by[key], list = g, append(list, g)
		}
		g.measured = append(g.measured, [2]string{who, r.Measured})
		if !slices.Contains(g.hosts, r.Host) {
			g.hosts = append(g.hosts, r.Host)
		}
		if r.Peer != "" && !slices.Contains(g.peers, r.Peer) {
			g.peers = append(g.peers, r.Peer)
		}
	}
	for _, g := range list {
		g.write(p)
	}
	if len(list) > 0 {
		p.Printf("\n")
	}
}

// nameless puts marks for the names of a result's host and peer, and for their
// addresses after them.
func (d Preflight) nameless(r preflight.Result, text string) string {
	for _, x := range [][2]string{{r.Host, hostMark}, {r.Peer, peerMark}} {
		if x[0] != "" {
			text = regexp.MustCompile(`\b`+regexp.QuoteMeta(x[0])+`\b( \([0-9.]+\))?`).ReplaceAllString(text, x[1])
		}
	}
	return text
}

func (g *group) write(p *Printer) {
	color, mark := red, "✗"
	if g.Severity == preflight.Warning {
		color, mark = yellow, "!"
	}
	who, host, peer := strings.Join(g.hosts, ", "), "each of them", strings.Join(g.peers, ", ")
	if len(g.hosts) == 1 {
		host = g.hosts[0]
	}
	switch {
	case len(g.hosts) > 1 && len(g.peers) > 1:
		var pairs []string
		for _, m := range g.measured {
			pairs = append(pairs, m[0])
		}
		who, peer = some(pairs), "the other"
	case len(g.peers) > 0:
		who += " → " + peer
	}
	named := func(text string) string {
		return strings.NewReplacer(hostMark, host, peerMark, peer).Replace(text)
	}
	p.Printf("%s %s %s  %s\n", p.paint(color, mark), p.paint(bold, who), g.Check, p.paint(dim, string(g.Severity)))
	same := !slices.ContainsFunc(g.measured, func(m [2]string) bool { return m[1] != g.measured[0][1] })
	if same {
		sep := "; wanted: "
		if strings.Contains(g.measured[0][1], "\n") {
			sep = "\nwanted: "
		}
		p.paragraph("    ", "", g.measured[0][1]+sep+named(g.Limit))
	} else {
		for _, m := range g.measured {
			p.paragraph("    ", m[0]+": ", m[1])
		}
		p.paragraph("    ", "", "wanted: "+named(g.Limit))
	}
	p.paragraph("    ", "→ ", named(g.Fix))
}

// paragraph writes text, wrapped to the terminal, the lines after the first
// indented below it. Lines that begin with a blank are to be copied as they
// are.
func (p *Printer) paragraph(indent, lead, text string) {
	width := 100
	if p.Width > 0 {
		width = p.Width
	}
	under := indent + strings.Repeat(" ", ansi.StringWidth(lead))
	before := indent + lead
	for given := range strings.Lines(text) {
		given = strings.TrimRight(given, "\n")
		lines := []string{given}
		if !strings.HasPrefix(given, " ") {
			lines = strings.Split(wordwrap.WrapString(given, uint(max(width-len(under), 20))), "\n")
		}
		for _, l := range lines {
			p.Printf("%s%s\n", before, l)
			before = under
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
