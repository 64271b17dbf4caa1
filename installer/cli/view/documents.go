package view

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"

	"dcos.example/dcos/installer/diag"
	"dcos.example/dcos/installer/engine"
)

// Validation is the answer of validate, and of any command whose input is
// wrong.
type Validation struct {
	Valid       bool        `json:"valid"`
	File        string      `json:"file"`
	Errors      int         `json:"errors"`
	Warnings    int         `json:"warnings"`
	Diagnostics []diag.JSON `json:"diagnostics"`
}

func (Validation) Kind() string { return "validation" }

// WriteText says the verdict only; the findings have been shown with their
// source.
func (d Validation) WriteText(p *Printer) {
	switch {
	case !d.Valid:
		p.Printf("%s is not valid: %s.\n", d.File, plural(d.Errors, "error"))
	case d.Warnings > 0:
		p.Printf("%s is valid, with %s.\n", d.File, plural(d.Warnings, "warning"))
	default:
		p.Printf("%s is valid.\n", d.File)
	}
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// Result is how an apply or a destroy ended.
type Result struct {
	Operation string            `json:"operation"`
	Cluster   string            `json:"cluster"`
	Success   bool              `json:"success"`
	Stopped   bool              `json:"stopped,omitempty"`
	Done      map[engine.Op]int `json:"done"`
	Failed    []Failure         `json:"failed,omitempty"`
	Skipped   []Skip            `json:"skipped,omitempty"`
	Elapsed   time.Duration     `json:"elapsedNanos"`
	URL       string            `json:"url,omitempty"`
	AdminUser string            `json:"adminUser,omitempty"`
	Outputs   []Output          `json:"outputs,omitempty"`
	Resume    string            `json:"resume,omitempty"` // the command that goes on
	Back      string            `json:"back,omitempty"`   // the command that undoes what was done
	Error     string            `json:"error,omitempty"`  // what is wrong beyond single resources

	// Password is shown to a person once. It is in no JSON form: those are
	// kept in logs.
	Password string `json:"-"`
}

// Failure is a resource whose change did not work.
type Failure struct {
	Type  string    `json:"type"`
	Name  string    `json:"name"`
	Op    engine.Op `json:"op"`
	Error string    `json:"error"`
	Kind  string    `json:"errorKind"`
	Kept  bool      `json:"kept,omitempty"`
}

// Skip is a resource that was not tried.
type Skip struct {
	Type   string    `json:"type"`
	Name   string    `json:"name"`
	Op     engine.Op `json:"op"`
	Reason string    `json:"reason"`
}

func (Result) Kind() string { return "result" }

func (d Result) WriteText(p *Printer) {
	for _, f := range d.Failed {
		what := fmt.Sprintf("%s %s: ", f.Op, keyText(f.Type, f.Name))
		why := strings.TrimSpace(strings.TrimPrefix(f.Error, what))
		p.Printf("\n%s %s%s\n", p.paint(red, "Error:"), what, strings.ReplaceAll(why, "\n", "\n  "))
		if f.Kept && (f.Op == engine.OpCreate || f.Op == engine.OpReplace) {
			p.Printf("  Part of it exists and is recorded; the next apply finishes it.\n")
		}
	}
	if len(d.Skipped) > 0 {
		p.Printf("\nNot tried:\n")
		var rows [][]string
		for _, s := range d.Skipped {
			rows = append(rows, []string{string(s.Op), keyText(s.Type, s.Name), s.Reason})
		}
		p.table("  ", rows)
	}
	if d.Error != "" && len(d.Failed) == 0 {
		p.Printf("\n%s %s\n", p.paint(red, "Error:"), d.Error)
	}
	title := strings.ToUpper(d.Operation[:1]) + d.Operation[1:]
	switch {
	case d.Success && len(d.Done) == 0:
		p.Printf("\n%s nothing had to be done (%s)\n", p.paint(green, title+" complete:"), short(d.Elapsed))
	case d.Success:
		p.Printf("\n%s %s (%s)\n", p.paint(green, title+" complete:"), strings.TrimSuffix(countsText(d.Done, true), "."), short(d.Elapsed))
	case d.Stopped:
		p.Printf("\n%s %s (%s)\n", p.paint(yellow, title+" stopped:"), strings.TrimSuffix(countsText(d.Done, true), "."), short(d.Elapsed))
	default:
		p.Printf("\n%s %s (%s)\n", p.paint(red, title+" failed:"), strings.TrimSuffix(countsText(d.Done, true), "."), short(d.Elapsed))
	}
	if d.Resume != "" {
		p.Printf("What was done is recorded. Go on with: %s\n", d.Resume)
	}
	if d.Back != "" {
		p.Printf("Or go back to how it was, with: %s\n", d.Back)
	}
	if d.Success && d.URL != "" {
		p.Printf("\n  Console   %s\n  User      %s\n", d.URL, d.AdminUser)
		if d.Password != "" {
			p.Printf("  Password  %s\n\nThe password is shown this once; keep it now.\n", d.Password)
		}
	}
	if len(d.Outputs) > 0 {
		p.Printf("\nOutputs\n")
		Outputs{Outputs: d.Outputs}.WriteText(p)
	}
}

// Output is one output of a blueprint. Value is absent when it is sensitive or
// not known.
type Output struct {
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
	Sensitive   bool            `json:"sensitive,omitempty"`
	Known       bool            `json:"known"`
	Value       json.RawMessage `json:"value,omitempty"`
}

// maxOutput is the length of a value that is still shown whole among others.
const maxOutput = 200

// Outputs is the answer of output.
type Outputs struct {
	Outputs []Output `json:"outputs"`
}

func (Outputs) Kind() string { return "outputs" }

func (d Outputs) WriteText(p *Printer) {
	if len(d.Outputs) == 0 {
		p.Printf("The blueprint has no outputs.\n")
		return
	}
	var rows [][]string
	for _, o := range d.Outputs {
		v := string(o.Value)
		switch {
		case o.Sensitive:
			v = "(sensitive)"
		case !o.Known:
			v = "(known after apply)"
		case len(v) > maxOutput:
			v = fmt.Sprintf("%s… (all of it: dcos-install output -raw %s)", v[:maxOutput/2], o.Name)
		}
		rows = append(rows, []string{o.Name, "= " + v})
	}
	p.table("  ", rows)
}

// Status is the answer of status.
type Status struct {
	Cluster   string          `json:"cluster"`
	ID        string          `json:"id,omitempty"`
	URL       string          `json:"url,omitempty"`
	State     string          `json:"state"` // absent, complete, partial, drifted
	Serial    uint64          `json:"serial"`
	StateDir  string          `json:"stateDir"`
	Hosts     []HostStatus    `json:"hosts"`
	Pending   []PendingStatus `json:"pending,omitempty"`
	Drift     []engine.Drift  `json:"drift,omitempty"`
	LastRun   *Run            `json:"lastRun,omitempty"`
	Backup    *Backups        `json:"backup,omitempty"`    // as the cluster says, if it does
	Unchecked string          `json:"unchecked,omitempty"` // why the machines were not looked at
}

// HostStatus is one host of the cluster as recorded, and whether it is there.
type HostStatus struct {
	Name    string `json:"name"`
	Role    string `json:"role"`
	Address string `json:"address"`
	Release string `json:"release,omitempty"`
	Version string `json:"version,omitempty"` // of the release
	State   string `json:"state"`             // ready, unfinished, down, gone, changed, recorded
}

// PendingStatus is an operation on a resource whose outcome is open.
type PendingStatus struct {
	Type  string `json:"type"`
	Name  string `json:"name"`
	Op    string `json:"op"`
	Error string `json:"error,omitempty"`
	// Step is the last that is known of; StepDone says that it was ended.
	Step     string `json:"step,omitempty"`
	StepDone bool   `json:"stepDone,omitempty"`
}

// text says what did not finish, and where it was.
func (x PendingStatus) text() string {
	line := fmt.Sprintf("%s of %s did not finish", x.Op, keyText(x.Type, x.Name))
	switch {
	case x.Step != "" && x.StepDone:
		line += ", after step " + x.Step
	case x.Step != "":
		line += ", in step " + x.Step
	}
	if x.Error != "" {
		line += ": " + x.Error
	}
	return line
}

func (Status) Kind() string { return "status" }

func (d Status) WriteText(p *Printer) {
	p.Printf("Cluster %s: %s\n", p.paint(bold, d.Cluster), d.State)
	if d.URL != "" {
		p.Printf("Console %s\n", d.URL)
	}
	if len(d.Hosts) > 0 {
		p.Printf("\n")
		rows := [][]string{{"HOST", "ROLE", "ADDRESS", "RELEASE", "STATE"}}
		for _, h := range d.Hosts {
			rows = append(rows, []string{h.Name, h.Role, h.Address, ReleaseName(h.Release, h.Version), h.State})
		}
		p.table("", rows)
	}
	for _, x := range d.Pending {
		p.Printf("\n%s %s\n", p.paint(yellow, "!"), x.text())
	}
	if len(d.Drift) > 0 {
		p.Printf("\n")
		Plan{Plan: &engine.Plan{Drift: d.Drift}}.drift(p)
		p.Printf("An apply repairs this.\n")
	}
	if d.Unchecked != "" {
		p.Printf("\nThe hosts were not looked at: %s.\n", d.Unchecked)
	}
	if d.LastRun != nil {
		p.Printf("\nLast run: %s by %s, %s, %s\n", d.LastRun.Operation, d.LastRun.User, d.LastRun.Start.Local().Format(time.DateTime), d.LastRun.Result)
	}
	if d.Backup != nil {
		d.Backup.line(p)
	}
}

func shortDigest(s string) string {
	if _, hex, ok := strings.Cut(s, ":"); ok {
		s = hex
	}
	return s[:min(len(s), 12)]
}

// Run is one operation of the history.
type Run struct {
	ID        string         `json:"id"`
	Operation string         `json:"operation"`
	User      string         `json:"user"`
	Host      string         `json:"host"`
	Start     time.Time      `json:"start"`
	End       time.Time      `json:"end,omitzero"`
	Result    string         `json:"result"`
	Counts    map[string]int `json:"counts,omitempty"`
	Serial    uint64         `json:"serial"`
	// Unfinished are the changes that it began and did not end.
	Unfinished []PendingStatus `json:"unfinished,omitempty"`
}

// History is the answer of history, oldest first.
type History struct {
	Runs []Run `json:"runs"`
	// Verbose shows people what did not finish, too.
	Verbose bool `json:"-"`
}

func (History) Kind() string { return "history" }

func (d History) WriteText(p *Printer) {
	if len(d.Runs) == 0 {
		p.Printf("Nothing was done yet.\n")
		return
	}
	rows := [][]string{{"SERIAL", "START", "OPERATION", "RESULT", "TOOK", "USER", "CHANGES"}}
	for _, r := range slices.Backward(d.Runs) {
		took := ""
		if !r.End.IsZero() {
			took = short(r.End.Sub(r.Start))
		}
		n := map[engine.Op]int{}
		for k, v := range r.Counts {
			if k != string(engine.OpSame) {
				n[engine.Op(k)] = v
			}
		}
		serial := ""
		if r.Serial != 0 {
			serial = fmt.Sprint(r.Serial)
		}
		rows = append(rows, []string{serial, r.Start.Local().Format(time.DateTime), r.Operation, r.Result, took, r.User, strings.TrimSuffix(countsText(n, true), ".")})
	}
	p.table("", rows)
	if !d.Verbose {
		return
	}
	for _, r := range slices.Backward(d.Runs) {
		if len(r.Unfinished) > 0 {
			p.Printf("\n%s of %s left unfinished:\n", r.Operation, r.Start.Local().Format(time.DateTime))
		}
		for _, x := range r.Unfinished {
			p.Printf("  %s\n", x.text())
		}
	}
}

// Message is a plain answer: a version, a file that was written.
type Message struct {
	What   string            `json:"-"`
	Text   string            `json:"text"`
	Fields map[string]string `json:"fields,omitempty"`
}

func (d Message) Kind() string         { return d.What }
func (d Message) WriteText(p *Printer) { p.Printf("%s\n", d.Text) }

// Problem is why a command could not do its work.
type Problem struct {
	Error     string `json:"error"`
	ErrorKind string `json:"errorKind"`
	Hint      string `json:"hint,omitempty"`
	ExitCode  int    `json:"exitCode"`
}

func (Problem) Kind() string { return "error" }

func (d Problem) WriteText(p *Printer) {
	p.Printf("%s %s\n", p.paint(red, "Error:"), d.Error)
	if d.Hint != "" {
		p.Printf("\nHint: %s\n", d.Hint)
	}
}

func short(d time.Duration) string {
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

func keyText(typ, name string) string {
	return engine.Key{Type: tokens.Type(typ), Name: name}.String()
}
