package view

import (
	"fmt"
	"slices"
	"strings"

	"dcos.example/dcos/installer/impact"
)

// writeImpact says what a plan does to what runs on the cluster.
func writeImpact(p *Printer, r *impact.Report) {
	if r == nil {
		return
	}
	if r.Unknown != "" {
		p.Printf("\n%s\n  %s\n", p.paint(yellow, "The cluster does not answer; what this does to its apps is unknown."), p.fit(r.Unknown, 2))
	} else if slices.ContainsFunc(r.Effects, telling) {
		p.Printf("\n%s\n", p.paint(bold, "What it does to the cluster"))
		for _, e := range r.Effects {
			if telling(e) {
				writeEffect(p, e)
			}
		}
	}
	if len(r.Refusals) > 0 {
		p.Printf("\n%s\n", p.paint(red, "Without -force this is refused:"))
		for _, x := range r.Refusals {
			p.Printf("  %s\n", x)
		}
	}
}

// writeExpected says how long a plan takes about.
func writeExpected(p *Printer, r *impact.Report) {
	if r != nil && r.Expected.Steps > 0 {
		p.Printf("Expected time: %s.\n", r.Expected.Text())
	}
}

// telling reports whether there is something to say of a change.
func telling(e impact.Effect) bool { return e.Empties() || e.Quorum != nil }

var happens = map[impact.Kind]string{
	impact.Update: "restarts", impact.Drain: "is drained", impact.Replace: "is made anew", impact.Remove: "goes away", impact.Reboot: "is started anew",
}

func writeEffect(p *Printer, e impact.Effect) {
	what := happens[e.Kind]
	if e.Kind == impact.Update && e.Drained {
		what = "is emptied and restarts"
	}
	if q := e.Quorum; q != nil {
		switch {
		case q.Alone:
			p.Printf("  %s %s: the cluster's API is away for a moment; tasks run on\n", e.Host, what)
		case q.Holds:
			p.Printf("  %s %s: %d of %d masters stay, %d are needed\n", e.Host, what, q.During, q.Voters, q.Needed)
		default:
			p.Printf("  %s %s %s: %d of %d masters stay, and %d are needed\n", p.paint(yellow, "⚠"), e.Host, what, q.During, q.Voters, q.Needed)
		}
		return
	}
	switch {
	case !e.Known:
		p.Printf("  %s %s: the cluster has no agent there, so nothing moves\n", e.Host, what)
		return
	case len(e.Tasks) == 0:
		p.Printf("  %s %s: no task runs there\n", e.Host, what)
	default:
		p.Printf("  %s %s: %s\n", e.Host, what, moved(e))
	}
	for _, a := range e.Apps {
		mark, line := " ", fmt.Sprintf("%d of %d stay ready", a.Lowest, a.Instances)
		switch {
		case a.Down:
			mark, line = p.paint(yellow, "⚠"), "down"
		case a.Below:
			mark, line = p.paint(yellow, "⚠"), fmt.Sprintf("%d of %d ready, %d wanted", a.Lowest, a.Instances, a.Minimum)
		}
		if a.For > 0 && a.Lowest < a.Ready {
			line += " for about " + impact.Round(a.For).String()
		}
		p.Printf("    %s %s  %s: %s\n", mark, a.ID, line, a.Why)
	}
	for _, l := range e.Lacking {
		p.Printf("    %s the other agents lack %s: %g wanted, %g free\n", p.paint(yellow, "⚠"), l.Resource, l.Needed, l.Free)
	}
	if len(e.Volumes) > 0 {
		p.Printf("    %s persistent volumes that are there only: %s\n", p.paint(yellow, "⚠"), strings.Join(e.Volumes, ", "))
	}
}

// moved is "3 tasks move (/web 2, /db); 1 of framework kafka is killed".
func moved(e impact.Effect) string {
	apps, others := map[string]int{}, map[string]int{}
	homeless := 0
	for _, t := range e.Tasks {
		if t.Killed {
			others[t.Framework]++
		} else {
			apps[t.App]++
		}
		if !t.Fits {
			homeless++
		}
	}
	var parts []string
	if n := total(apps); n > 0 {
		parts = append(parts, fmt.Sprintf("%s %s (%s)", plural(n, "task"), verb(n, "moves", "move"), each(apps)))
	}
	if n := total(others); n > 0 {
		parts = append(parts, fmt.Sprintf("%s of other frameworks %s killed (%s)", plural(n, "task"), verb(n, "is", "are"), each(others)))
	}
	if homeless > 0 {
		parts = append(parts, fmt.Sprintf("%d of them %s nowhere", homeless, verb(homeless, "fits", "fit")))
	}
	return strings.Join(parts, "; ")
}

func verb(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

func total(m map[string]int) (n int) {
	for _, v := range m {
		n += v
	}
	return n
}

// each is "/db, /web 2".
func each(m map[string]int) string {
	var out []string
	for k, n := range m {
		if n > 1 {
			k = fmt.Sprintf("%s %d", k, n)
		}
		out = append(out, k)
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// Impact is the effects of a change alone, without a plan of resources.
type Impact struct {
	*impact.Report
}

func (Impact) Kind() string { return "impact" }

// WriteText writes the form for people.
func (d Impact) WriteText(p *Printer) { writeImpact(p, d.Report) }

// Nodes is the answer of node list.
type Nodes struct {
	Cluster string `json:"cluster"`
	Nodes   []Node `json:"nodes"`
	// Unasked says why the cluster did not tell of itself.
	Unasked string `json:"unasked,omitempty"`
}

// Node is one host with what the cluster makes of it.
type Node struct {
	Name    string `json:"name"`
	Role    string `json:"role"`
	Address string `json:"address"`
	Release string `json:"release,omitempty"`
	Version string `json:"version,omitempty"` // of the release
	// State: of an agent active, deactivated, draining, drained, disconnected or
	// absent; of a master leader, follower, learner, unhealthy or absent; unknown
	// when the cluster does not tell, and recorded for one that is not finished.
	State string `json:"state"`
	Agent string `json:"agent,omitempty"` // the agent's id
	Tasks int    `json:"tasks"`
	Drain *Drain `json:"drain,omitempty"`
	// Stray says that the stack has no such host.
	Stray bool `json:"stray,omitempty"`
}

// Drain is an agent's drain.
type Drain struct {
	Since    string `json:"since"`
	MaxGrace string `json:"maxGrace,omitempty"`
}

func (Nodes) Kind() string { return "nodes" }

// WriteText writes the form for people.
func (d Nodes) WriteText(p *Printer) {
	if len(d.Nodes) == 0 {
		p.Printf("Cluster %s has no nodes.\n", d.Cluster)
		return
	}
	rows := [][]string{{"NODE", "ROLE", "ADDRESS", "RELEASE", "STATE", "TASKS", "DRAIN"}}
	for _, n := range d.Nodes {
		tasks, drain, name := "", "", n.Name
		if n.Agent != "" {
			tasks = fmt.Sprint(n.Tasks)
		}
		if n.Drain != nil {
			drain = "since " + n.Drain.Since
			if n.Drain.MaxGrace != "" {
				drain += ", at most " + n.Drain.MaxGrace
			}
		}
		if n.Stray {
			name += " (not in the stack)"
		}
		rows = append(rows, []string{name, n.Role, n.Address, ReleaseName(n.Release, n.Version), n.State, tasks, drain})
	}
	p.table("", rows)
	if d.Unasked != "" {
		p.Printf("\nThe cluster does not answer: %s\n", d.Unasked)
	}
}
