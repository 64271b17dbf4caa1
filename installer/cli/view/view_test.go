package view_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"iter"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"dcos.example/dcos/installer/cli/view"
	"dcos.example/dcos/installer/engine"
	"dcos.example/dcos/installer/program"
)

var update = flag.Bool("update", false, "rewrite golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := "testdata/" + name
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Error(d)
	}
}

func step(key engine.Key, op engine.Op, changes ...engine.Change) engine.Step {
	return engine.Step{URN: key.URN("demo"), Type: string(key.Type), Name: key.Name, Op: op, Changes: changes}
}

func TestPlan(t *testing.T) {
	host := func(n string) engine.Key { return engine.Key{Type: program.TypeHost, Name: n} }
	node := func(n string) engine.Key { return engine.Key{Type: program.TypeNode, Name: n} }
	replaced := step(host("agent-2"), engine.OpReplace, engine.Change{Path: "address", Old: `"198.18.0.22"`, New: `"198.18.0.23"`})
	replaced.ReplaceKeys, replaced.DeleteFirst = []string{"address"}, true
	deleted := step(host("master-2"), engine.OpDelete)
	deleted.Reason = "no longer wanted"
	digest := func(c string) string { return `"` + strings.Repeat(c, 64) + `"` }
	p := &engine.Plan{Stack: "demo", Steps: []engine.Step{
		step(program.SecretsKey("demo"), engine.OpUpdate, engine.Change{Path: "adminPassword", Old: "[secret]", New: "[secret]"}),
		step(host("agent-1"), engine.OpSame),
		step(node("agent-1"), engine.OpUpdate,
			engine.Change{Path: "files./etc/dcos/agent.json.content", Old: `"{...}"`, New: `"{...}"`},
			engine.Change{Path: "files./etc/dcos/agent.json.mode", Old: "1", New: "2"},
			engine.Change{Path: "files./etc/new.content", New: `"x"`},
			engine.Change{Path: "files./etc/old.content", Old: `"x"`},
			engine.Change{Path: "host.bootId", Old: `"a"`, New: "[unknown]"},
			engine.Change{Path: "release", Old: digest("a"), New: digest("b")},
			engine.Change{Path: "tag", New: `"x"`}, engine.Change{Path: "gone", Old: `"x"`}),
		replaced, deleted,
		step(host("agent-3"), engine.OpCreate, engine.Change{Path: "address", New: `"198.18.0.24"`}, engine.Change{Path: "name", New: `"agent-3"`}, engine.Change{Path: "list[0]", New: "1"}),
	}, Drift: []engine.Drift{
		{URN: host("agent-1").URN("demo"), Gone: true},
		{URN: node("agent-1").URN("demo"), Changes: []engine.Change{{Path: "output active", Old: "true", New: "false"}}},
	}}
	packages := []engine.Change{{Path: "bundle", Old: `"a"`, New: `"b"`}, {Path: "release", Old: digest("a"), New: digest("b")}}
	if s := step(node("agent-1"), engine.OpUpdate, packages...); !view.Quiet(s) {
		t.Error("a release with other packages restarts daemons")
	}
	if s := step(node("agent-1"), engine.OpUpdate, append(packages, engine.Change{Path: "programs", Old: digest("c"), New: digest("d")})...); view.Quiet(s) {
		t.Error("a release with other programs restarts nobody")
	}
	doc := view.NewPlan("demo", p)
	doc.Roles = map[string]string{"agent-1": "agent", "agent-2": "agent", "agent-3": "agent", "master-1": "master", "master-2": "master", "master-3": "master"}
	doc.Versions = map[string]string{strings.Repeat("b", 64): "0.2.0"}
	for name, printer := range map[string]*view.Printer{"plan.golden": {}, "plan-color.golden": {Color: true, Width: 60}} {
		var b bytes.Buffer
		printer.W = &b
		doc.WriteText(printer)
		golden(t, name, b.String())
	}
	var b bytes.Buffer
	if err := view.WriteJSON(&b, doc, true); err != nil {
		t.Fatal(err)
	}
	golden(t, "plan.json", b.String())
	var back engine.Plan
	if err := json.Unmarshal(b.Bytes(), &back); err != nil || len(back.Steps) != len(p.Steps) {
		t.Errorf("the JSON form cannot be read back: %v", err)
	}
}

// script is a log whose events come at set times.
type script []struct {
	after time.Duration
	event engine.Event
}

func (s script) Events(context.Context, int) iter.Seq[engine.Event] {
	return func(yield func(engine.Event) bool) {
		for _, e := range s {
			time.Sleep(e.after)
			if !yield(e.event) {
				return
			}
		}
	}
}

func run() script {
	a := engine.Key{Type: program.TypeNode, Name: "agent-1"}.URN("demo")
	c := program.ClusterKey("demo").URN("demo")
	s := script{}
	add := func(after time.Duration, e engine.Event) {
		s = append(s, struct {
			after time.Duration
			event engine.Event
		}{after, e})
	}
	add(0, engine.Event{Kind: engine.EventStart, Operation: "apply"})
	add(0, engine.Event{Kind: engine.EventPlan, Counts: map[engine.Op]int{engine.OpCreate: 2, engine.OpSame: 3}})
	add(0, engine.Event{Kind: engine.EventWaiting, URN: a, Op: engine.OpCreate})
	add(0, engine.Event{Kind: engine.EventWaiting, URN: c, Op: engine.OpCreate, Waiting: []string{"Node agent-1", "Node b", "Node c", "Node d"}})
	add(0, engine.Event{Kind: engine.EventResourceStart, URN: a, Op: engine.OpCreate})
	add(0, engine.Event{Kind: engine.EventStepStart, URN: a, Step: "stage bundle"})
	add(0, engine.Event{Kind: engine.EventStepNote, URN: a, Step: "stage bundle", Message: "120 of 310 MiB"})
	add(1100*time.Millisecond, engine.Event{Kind: engine.EventStepEnd, URN: a, Step: "stage bundle", Elapsed: 1100 * time.Millisecond})
	add(0, engine.Event{Kind: engine.EventStepStart, URN: a, Step: "start units"})
	add(300*time.Millisecond, engine.Event{Kind: engine.EventStepEnd, URN: a, Step: "start units", Elapsed: 300 * time.Millisecond, Error: "it crashed"})
	add(0, engine.Event{Kind: engine.EventResourceEnd, URN: a, Op: engine.OpCreate, Elapsed: 1400 * time.Millisecond, Error: "it crashed"})
	add(0, engine.Event{Kind: engine.EventSkipped, URN: c, Op: engine.OpCreate, Message: "Node agent-1 failed"})
	add(0, engine.Event{Kind: engine.EventNotice, Message: "look at the log"})
	add(0, engine.Event{Kind: engine.EventNotice, URN: c, Message: "Cluster demo is odd"})
	add(0, engine.Event{Kind: engine.EventEnd, Operation: "apply"})
	return s
}

func TestPlainProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		view.FollowPlain(t.Context(), &view.Printer{W: &b}, run())
		golden(t, "progress-plain.golden", b.String())
	})
}

// The picture at the bottom of the terminal never leaves anything behind: after
// all control sequences are carried out, only the lines for what ended remain.
func TestLiveProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		view.FollowLive(t.Context(), &view.Printer{W: &b, Color: true, Width: 80}, run(), time.Now)
		if s := b.String(); !strings.Contains(s, "stage bundle: 120 of 310 MiB") || !strings.Contains(s, "waits for Node agent-1, Node b, Node c and 1 more") || !strings.Contains(s, "0 of 2 done, 1 running") {
			t.Errorf("what runs is not shown:\n%q", s)
		}
		golden(t, "progress-live.golden", strings.Join(screen(b.String()), "\n")+"\n")
	})
}

// screen carries out the two control sequences that the live view uses.
func screen(s string) []string {
	var lines []string
	for s != "" {
		if up, rest, ok := cutUp(s); ok {
			lines, s = lines[:len(lines)-up], rest
			continue
		}
		line, rest, _ := strings.Cut(s, "\n")
		lines, s = append(lines, line), rest
	}
	for i := range lines {
		for _, c := range []string{"\x1b[31m", "\x1b[32m", "\x1b[2m", "\x1b[0m"} {
			lines[i] = strings.ReplaceAll(lines[i], c, "")
		}
	}
	return lines
}

func cutUp(s string) (n int, rest string, ok bool) {
	if !strings.HasPrefix(s, "\x1b[") {
		return 0, s, false
	}
	digits, rest, ok := strings.Cut(s[2:], "A\x1b[J")
	if !ok || digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, s, false
	}
	for _, c := range digits {
		n = n*10 + int(c-'0')
	}
	return n, rest, true
}

func TestJSONProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		view.FollowJSON(t.Context(), &view.Printer{W: &b}, run())
		lines := slices.Collect(strings.Lines(b.String()))
		if len(lines) != len(run()) {
			t.Fatalf("%d lines for %d events", len(lines), len(run()))
		}
		for _, l := range lines {
			var d struct {
				Format int
				Kind   string
				Event  engine.Event
			}
			if err := json.Unmarshal([]byte(l), &d); err != nil || d.Format != view.Format || d.Kind != "event" || d.Event.Kind == "" {
				t.Errorf("%v: %s", err, l)
			}
		}
	})
}

// The JSON form of a result goes into logs: the password must not be in it.
func TestResultHidesThePassword(t *testing.T) {
	d := view.Result{Operation: "apply", Cluster: "demo", Success: true, URL: "https://x", AdminUser: "admin", Password: "hunter2hunter2", Done: map[engine.Op]int{engine.OpCreate: 1}}
	var j, b bytes.Buffer
	if err := view.WriteJSON(&j, d, false); err != nil {
		t.Fatal(err)
	}
	d.WriteText(&view.Printer{W: &b})
	if strings.Contains(j.String(), d.Password) || !strings.Contains(b.String(), d.Password) {
		t.Errorf("JSON: %s\ntext: %s", &j, &b)
	}
}
