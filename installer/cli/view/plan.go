package view

import (
	"fmt"
	"slices"
	"strings"

	"github.com/charmbracelet/x/ansi"

	"dcos.example/dcos/installer/engine"
	"dcos.example/dcos/installer/impact"
	"dcos.example/dcos/runtime/config"
)

// Plan shows what an apply or a destroy would do.
type Plan struct {
	Cluster string `json:"cluster"`
	*engine.Plan
	Summary engineCounts `json:"summary"`
	// Saved is the file that the plan was written to.
	Saved string `json:"saved,omitempty"`
	// Destroy says that the plan is one of a destroy.
	Destroy bool `json:"destroy,omitempty"`
	// Impact is what the plan does to what runs on the cluster.
	Impact *impact.Report `json:"impact,omitempty"`
	// Versions are those of releases, by their digests, as far as known.
	Versions map[string]string `json:"versions,omitempty"`
	// Roles are those of the recorded hosts, by their names.
	Roles map[string]string `json:"-"`
}

type engineCounts map[engine.Op]int

// NewPlan returns the document of p.
func NewPlan(cluster string, p *engine.Plan) Plan {
	return Plan{Cluster: cluster, Plan: p, Summary: p.Counts()}
}

func (Plan) Kind() string { return "plan" }

var (
	symbols = map[engine.Op]string{engine.OpCreate: "+", engine.OpUpdate: "~", engine.OpReplace: "-/+", engine.OpDelete: "-", engine.OpForget: "x", engine.OpSame: " "}
	colors  = map[engine.Op]style{engine.OpCreate: green, engine.OpUpdate: yellow, engine.OpReplace: red, engine.OpDelete: red, engine.OpForget: yellow}
	verbs   = []struct {
		op   engine.Op
		verb string
		done string
	}{
		{engine.OpCreate, "to create", "created"}, {engine.OpUpdate, "to change", "changed"}, {engine.OpReplace, "to replace", "replaced"},
		{engine.OpDelete, "to delete", "deleted"}, {engine.OpForget, "to forget", "forgotten"},
	}
)

func (d Plan) WriteText(p *Printer) {
	d.drift(p)
	if !d.HasChanges() {
		p.Printf("Nothing to do: cluster %s is as wanted (%d resources).\n", d.Cluster, len(d.Steps))
		return
	}
	p.Printf("%s\n\n", p.paint(bold, "Plan for cluster "+d.Cluster))
	for _, s := range d.Steps {
		if s.Op != engine.OpSame {
			d.step(p, s)
		}
	}
	writeImpact(p, d.Impact)
	p.Printf("\n%s\n", p.paint(bold, "Plan: "+countsText(d.Summary, false)))
	writeExpected(p, d.Impact)
	if d.Saved != "" {
		p.Printf("Written to %s. Carry it out with: dcos-install apply %s\n", d.Saved, d.Saved)
	}
}

func (d Plan) drift(p *Printer) {
	if len(d.Drift) == 0 {
		return
	}
	p.Printf("%s\n\n", p.paint(bold, "Changed since the last apply, outside of it"))
	for _, x := range d.Drift {
		k := engine.KeyOf(x.URN)
		if x.Gone {
			p.Printf("  %s %s is gone\n", p.paint(red, "!"), k)
			continue
		}
		p.Printf("  %s %s\n", p.paint(yellow, "!"), k)
		d.changes(p, x.Changes, engine.OpUpdate, nil)
	}
	p.Printf("\n")
}

func (d Plan) step(p *Printer, s engine.Step) {
	mark := fmt.Sprintf("%3s", symbols[s.Op])
	name := s.Key().String()
	line := fmt.Sprintf(" %s %-*s", p.paint(colors[s.Op], mark), d.widest(), name)
	if s.Op == engine.OpCreate {
		line += "  " + p.fit(brief(s.Changes), ansi.StringWidth(line)+2)
	}
	if why := because(s); why != "" {
		line += "  " + p.paint(dim, "# "+why)
	}
	p.Printf("%s\n", strings.TrimRight(line, " "))
	if s.Op == engine.OpUpdate || s.Op == engine.OpReplace {
		d.changes(p, s.Changes, s.Op, s.ReplaceKeys)
	}
	if effect := effectOf(s, d.Roles[s.Name]); effect != "" && !d.told(s) {
		p.Printf("       %s %s\n", p.paint(yellow, "⚠"), effect)
	}
}

// told reports whether the impact says better what a step does to tasks.
func (d Plan) told(s engine.Step) bool {
	return d.Impact != nil && d.Impact.Unknown == "" && slices.ContainsFunc(d.Impact.Effects, func(e impact.Effect) bool {
		return e.Host == s.Name && e.Empties() && e.Known && len(e.Volumes) == 0
	})
}

// widest is the length of the longest name among the steps that are shown.
func (d Plan) widest() int {
	n := 0
	for _, s := range d.Steps {
		if s.Op != engine.OpSame {
			n = max(n, len(s.Key().String()))
		}
	}
	return n
}

// brief shows what is telling of a new resource on one line: plain properties
// but those that say again where it belongs.
func brief(cs []engine.Change) string {
	var parts []string
	files := map[string]bool{}
	for _, c := range cs {
		if file, ok := fileOf(c.Path); ok {
			files[file] = true
			continue
		}
		switch root := rootOf(c.Path); {
		case root != c.Path || slices.Contains([]string{"name", "cluster", "clusterName", "bundle", "programs", "network", "caCert"}, root):
		default:
			parts = append(parts, c.Path+" "+strings.Trim(value(c.New), `"`))
		}
	}
	if len(files) > 0 {
		parts = append(parts, plural(len(files), "file"))
	}
	return strings.Join(parts, ", ")
}

func because(s engine.Step) string {
	why := s.Reason
	if why == "" && len(s.ReplaceKeys) > 0 {
		why = strings.Join(s.ReplaceKeys, ", ") + " cannot change in place"
	}
	if s.DeleteFirst {
		why = strings.TrimPrefix(why+"; the old one goes first", "; ")
	}
	return why
}

// effectOf says what a step does to what runs on the cluster. The role is that
// of the host that it is about.
func effectOf(s engine.Step, role string) string {
	gone := s.Op == engine.OpReplace || s.Op == engine.OpDelete
	switch string(s.Key().Type) + " " + role {
	case "local:host:Host agent", "local:host:Host public_agent":
		if gone {
			return "its tasks are started on other agents; its persistent volumes are lost"
		}
	case "local:host:Host master":
		if gone {
			return "its copy of the cluster's state is lost"
		}
	case "dcos:host:Node agent", "dcos:host:Node public_agent":
		if s.Op == engine.OpUpdate && !Quiet(s) {
			return "the agent restarts; its tasks keep running"
		}
	case "dcos:host:Node master":
		if s.Op == engine.OpUpdate && !Quiet(s) {
			return "the master restarts; tasks keep running"
		}
	}
	return ""
}

// Quiet reports whether a step changes only what nothing is restarted for: the
// list of masters and files that are not the cluster's own, which are read anew
// while daemons run, how the host is reached, and a release of the same programs
// with other packages.
func Quiet(s engine.Step) bool {
	for _, c := range s.Changes {
		if slices.Contains([]string{"host", "release", "bundle"}, rootOf(c.Path)) {
			continue // other programs are a change of "programs"
		}
		file, ok := fileOf(c.Path)
		if !ok || strings.HasPrefix(file, config.UnitDir+"/") || strings.HasPrefix(file, config.EtcDir+"/") && file != config.MastersFile {
			return false
		}
	}
	return len(s.Changes) > 0
}

// changes writes the inputs that differ, one line each. What is inside "files"
// is one line per file: contents are too long to show, and often secret.
func (d Plan) changes(p *Printer, cs []engine.Change, op engine.Op, replace []string) {
	var rows [][]string
	seen := map[string]bool{}
	other := slices.ContainsFunc(cs, func(c engine.Change) bool { return c.Path == "release" })
	for _, c := range cs {
		if c.Path == "programs" && other {
			continue // the release says it
		}
		if file, ok := fileOf(c.Path); ok {
			if !seen[file] {
				seen[file] = true
				rows = append(rows, []string{file, p.paint(dim, how(c))})
			}
			continue
		}
		to, from := d.value(c.New), d.value(c.Old)
		switch {
		case c.Old != "" && c.New != "":
			to = from + " → " + to
		case c.New == "":
			to = from + " → (none)"
		case op == engine.OpUpdate:
			to = "(none) → " + to
		}
		if slices.Contains(replace, rootOf(c.Path)) {
			to += "  " + p.paint(red, "# forces replacement")
		}
		rows = append(rows, []string{c.Path, to})
	}
	for i := range rows {
		rows[i][1] = p.fit(rows[i][1], ansi.StringWidth(rows[i][0])+9)
	}
	p.table("       ", rows)
}

func how(c engine.Change) string {
	switch {
	case c.Old == "":
		return "new file"
	case c.New == "":
		return "no longer needed"
	}
	return "changed"
}

// rootOf returns the top-level input of a path like `host.dir` or `a["b"]`.
func rootOf(path string) string {
	if i := strings.IndexAny(path, ".["); i >= 0 {
		return path[:i]
	}
	return path
}

// fileOf recognises a path into the files of a node, such as
// files./etc/hosts.content, and returns the file's.
func fileOf(path string) (string, bool) {
	file, ok := strings.CutPrefix(path, "files.")
	if !ok {
		return "", false
	}
	for _, field := range []string{".content", ".mode"} {
		if name, ok := strings.CutSuffix(file, field); ok {
			return name, true
		}
	}
	return file, true
}

const maxValue = 72

// value shows one JSON text of a plan, a release by its version.
func (d Plan) value(s string) string {
	if v := d.Versions[strings.Trim(s, `"`)]; v != "" {
		return ReleaseName(strings.Trim(s, `"`), v)
	}
	return value(s)
}

// ReleaseName is how a release is called: its version, if that is known, with
// the beginning of its digest.
func ReleaseName(digest, version string) string {
	if version == "" {
		return shortDigest(digest)
	}
	return version + "-" + shortDigest(digest)
}

// value shows one JSON text of a plan, digests cut to what tells them apart.
func value(s string) string {
	if len(s) == 66 && strings.Trim(s, `"0123456789abcdef`) == "" {
		return s[:13] + `"`
	}
	r := strings.NewReplacer(`"[secret]"`, "(sensitive)", "[secret]", "(sensitive)", `"[unknown]"`, "(known after apply)", "[unknown]", "(known after apply)")
	return ansi.Truncate(r.Replace(s), maxValue, "…")
}

// countsText is "3 to create, 1 to change", or what was done.
func countsText(n map[engine.Op]int, done bool) string {
	var parts []string
	for _, v := range verbs {
		if n[v.op] > 0 {
			word := v.verb
			if done {
				word = v.done
			}
			parts = append(parts, fmt.Sprintf("%d %s", n[v.op], word))
		}
	}
	if n[engine.OpSame] > 0 {
		parts = append(parts, fmt.Sprintf("%d unchanged", n[engine.OpSame]))
	}
	if len(parts) == 0 {
		return "nothing"
	}
	return strings.Join(parts, ", ") + "."
}
