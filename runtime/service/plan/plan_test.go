package plan_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"dcos.example/dcos/runtime/api/service"
	"dcos.example/dcos/runtime/service/plan"
	"dcos.example/dcos/runtime/service/spec"
)

func read(t testing.TB, text string) *service.Spec {
	t.Helper()
	s, _, err := service.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	spec.Normalize(s)
	return s
}

// names of the steps by phase, as one text.
func names(p plan.Plan) string {
	var b strings.Builder
	for _, ph := range p.Phases {
		fmt.Fprintf(&b, "%s %s:", ph.Name, ph.Strategy)
		for _, st := range ph.Steps {
			b.WriteString(" " + st.Name)
		}
		b.WriteString("\n")
	}
	return b.String()
}

const hdfs = `
name: hdfs
pods:
  journal: {count: 2, tasks: {node: {cmd: x, cpus: 1, memory: 10}}}
  name:
    count: 3
    tasks:
      format: {goal: ONCE, cmd: x, cpus: 1, memory: 10}
      bootstrap: {goal: ONCE, cmd: x, cpus: 1, memory: 10}
      node: {cmd: x, cpus: 1, memory: 10}
  data: {count: 1, tasks: {node: {cmd: x, cpus: 1, memory: 10}, clean: {goal: FINISH, cmd: x, cpus: 1, memory: 10}}}
plans:
  deploy:
    phases:
      journals: {pod: journal, strategy: parallel}
      names: {pod: name, steps: [[0, [format]], [0, [node]], [default, [bootstrap]], [default, [node]]]}
      data: {pod: data}
  replace: {phases: {n: {pod: name, steps: [[default, [bootstrap]], [default, [node]]]}}}
  clean: {strategy: parallel, phases: {c: {pod: data, steps: [[default, [clean]]]}}}
`

func TestBuild(t *testing.T) {
	s := read(t, hdfs)
	want := `journals parallel: journal-0:[node] journal-1:[node]
names serial: name-0:[format] name-0:[node] name-1:[bootstrap] name-1:[node] name-2:[bootstrap] name-2:[node]
data serial: data-0:[node]
`
	p := plan.Deploy(s, true) // there is no plan called update
	if d := cmp.Diff(want, names(p)); d != "" {
		t.Error(d)
	}
	s.Plans = nil
	if d := cmp.Diff("journal serial: journal-0:[node] journal-1:[node]\n"+
		"name serial: name-0:[format, bootstrap, node] name-1:[format, bootstrap, node] name-2:[format, bootstrap, node]\n"+
		"data serial: data-0:[node, clean]\n", names(plan.Deploy(s, false))); d != "" {
		t.Error("without plans:", d)
	}
	s = read(t, hdfs)
	if _, ok := plan.Of(s, "nothing"); ok {
		t.Error("a plan that is nowhere")
	}
	var anew []string
	for _, st := range plan.Anew(s, plan.Instance{Pod: "name", Index: 0}) {
		anew = append(anew, st.Name)
	}
	if d := cmp.Diff([]string{"name-0:[bootstrap]", "name-0:[node]"}, anew); d != "" {
		t.Error("replaced:", d)
	}
	if got := plan.Anew(s, plan.Instance{Pod: "journal", Index: 1}); len(got) != 1 || got[0].Name != "journal-1:[node]" {
		t.Errorf("replaced by deploy's steps: %v", got)
	}
}

// Identities stay the same, and are the same for update and deploy.
func TestIdentities(t *testing.T) {
	s := read(t, strings.Replace(hdfs, "  clean:", "  update: {phases: {data: {pod: data}, names: {pod: name}, journals: {pod: journal}}}\n  clean:", 1))
	a, b := plan.Deploy(s, false), plan.Deploy(s, true)
	if a.Name != "deploy" || b.Name != "update" || a.Phases[2].Steps[0].ID != b.Phases[0].Steps[0].ID {
		t.Errorf("%v\n%v", a, b)
	}
	if ph, st, ok := a.Find("names", "name-0:[node]"); !ok || ph.Name != "names" || st.Instance != (plan.Instance{Pod: "name", Index: 0}) {
		t.Error("not found by name")
	}
	if _, st, ok := a.Find(a.Phases[1].ID, a.Phases[1].Steps[1].ID); !ok || st.Name != "name-0:[node]" {
		t.Error("not found by id")
	}
	if all, ok := a.Select("", ""); !ok || len(all) != 9 {
		t.Errorf("all: %v", all)
	}
	if _, ok := a.Select("names", "x"); ok {
		t.Error("a step that is nowhere")
	}
	for text, want := range map[string]bool{"a-0": true, "a-b-12": true, "a": false, "-1": false, "a-": false, "a-01": false} {
		if i, ok := plan.Parse(text); ok != want || ok && i.String() != text {
			t.Errorf("%q: %v %v", text, i, ok)
		}
	}
}

// TestCombine has every pair.
func TestCombine(t *testing.T) {
	const table = `
             ERROR WAITING DELAYED IN_PROGRESS PENDING PREPARED STARTING STARTED COMPLETE
ERROR        E     E       E       E           E       E        E        E       E
WAITING      E     W       W       W           W       W        W        W       W
DELAYED      E     W       D       D           D       D        D        D       D
IN_PROGRESS  E     W       D       I           I       I        I        I       I
PENDING      E     W       D       I           PENDING I        I        I       I
PREPARED     E     W       D       I           I       PREPARED I        I       I
STARTING     E     W       D       I           I       I        STARTING I       I
STARTED      E     W       D       I           I       I        I        STARTED I
COMPLETE     E     W       D       I           I       I        I        I       COMPLETE
`
	pairs(t, table, func(a, b service.PlanStatus) string {
		s := string(plan.Combine(a, b))
		if s == "ERROR" || s == "WAITING" || s == "DELAYED" || s == "IN_PROGRESS" {
			return s[:1]
		}
		return s
	})
	for _, a := range plan.Statuses {
		for _, b := range plan.Statuses {
			for _, c := range plan.Statuses {
				if plan.Combine(a, plan.Combine(b, c)) != plan.Combine(plan.Combine(a, b), c) {
					t.Errorf("%s, %s and %s depend on their order", a, b, c)
				}
			}
		}
	}
}

// TestFollows has every pair: rows are from, columns to.
func TestFollows(t *testing.T) {
	pairs(t, `
             ERROR WAITING DELAYED IN_PROGRESS PENDING PREPARED STARTING STARTED COMPLETE
ERROR        y     -       y       -           -       y        y        y       y
WAITING      y     y       -       -           y       y        y        y       y
DELAYED      y     -       y       -           -       y        y        y       y
IN_PROGRESS  -     -       -       -           -       -        -        -       -
PENDING      y     y       -       -           y       y        y        y       y
PREPARED     y     -       y       -           -       y        y        y       y
STARTING     y     -       y       -           -       y        y        y       y
STARTED      y     -       y       -           -       y        y        y       y
COMPLETE     -     -       -       -           -       -        -        -       y
`, func(a, b service.PlanStatus) string {
		if plan.Follows(a, b) {
			return "y"
		}
		return "-"
	})
}

func pairs(t *testing.T, table string, f func(a, b service.PlanStatus) string) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(table), "\n")
	columns := strings.Fields(lines[0])
	if len(columns) != len(plan.Statuses) || len(lines) != len(plan.Statuses)+1 {
		t.Fatalf("the table has %d columns and %d lines", len(columns), len(lines))
	}
	for _, line := range lines[1:] {
		cells := strings.Fields(line)
		for i, want := range cells[1:] {
			if got := f(service.PlanStatus(cells[0]), service.PlanStatus(columns[i])); got != want {
				t.Errorf("%s, %s: %s, want %s", cells[0], columns[i], got, want)
			}
		}
	}
}

// A plan of one phase with steps p-0 … p-(n-1).
func row(s plan.Strategy, n int) plan.Plan {
	var steps []plan.Step
	for i := range n {
		steps = append(steps, plan.NewStep("deploy", "p", plan.Instance{Pod: "p", Index: i}, []string{"t"}))
	}
	return plan.Plan{Name: "deploy", Strategy: plan.Serial, Phases: []plan.Phase{plan.NewPhase("deploy", "p", s, steps...)}}
}

func TestEvaluate(t *testing.T) {
	phase := row(plan.Serial, 1).Phases[0].ID
	for name, c := range map[string]struct {
		strategy plan.Strategy
		control  plan.Control
		seen     string // a letter per step; upper case: down
		want     string // statuses and what is next
	}{
		"begins with the first":     {plan.Serial, plan.Control{}, "eee", "PENDING: PENDING PENDING PENDING > 0"},
		"one at a time":             {plan.Serial, plan.Control{}, "ce", "IN_PROGRESS: COMPLETE PENDING > 1"},
		"waits for the one begun":   {plan.Serial, plan.Control{}, "csee", "IN_PROGRESS: COMPLETE STARTED PENDING PENDING > 1"},
		"parallel":                  {plan.Parallel, plan.Control{}, "ese", "IN_PROGRESS: PENDING STARTED PENDING > 1 0 2"},
		"what is down goes first":   {plan.Serial, plan.Control{}, "eEe", "PENDING: PENDING PENDING PENDING > 1"},
		"another is down":           {plan.Serial, plan.Control{}, "Cee", "IN_PROGRESS: COMPLETE PENDING PENDING > "},
		"interrupted":               {plan.Serial, plan.Control{Interrupted: true}, "cpe", "WAITING: COMPLETE PREPARED WAITING > 1"},
		"interrupted phase":         {plan.Serial, plan.Control{Phases: map[string]plan.PhaseControl{phase: {Interrupted: true}}}, "ee", "WAITING: WAITING WAITING > "},
		"interrupted when done":     {plan.Serial, plan.Control{Interrupted: true}, "cc", "COMPLETE: COMPLETE COMPLETE > "},
		"canary at first":           {plan.Canary, plan.Control{}, "eee", "WAITING: WAITING WAITING WAITING > "},
		"canary continued":          {plan.Canary, plan.Control{Phases: map[string]plan.PhaseControl{phase: {Go: 1}}}, "eee", "WAITING: PENDING WAITING WAITING > 0"},
		"canary lives":              {plan.Canary, plan.Control{Phases: map[string]plan.PhaseControl{phase: {Go: 1}}}, "cee", "WAITING: COMPLETE WAITING WAITING > "},
		"canary continued again":    {plan.Canary, plan.Control{Phases: map[string]plan.PhaseControl{phase: {Go: 2}}}, "cee", "IN_PROGRESS: COMPLETE PENDING PENDING > 1"},
		"parallel canary, first":    {plan.ParallelCanary, plan.Control{Phases: map[string]plan.PhaseControl{phase: {Go: 1}}}, "eee", "WAITING: PENDING WAITING WAITING > 0"},
		"parallel canary, the rest": {plan.ParallelCanary, plan.Control{Phases: map[string]plan.PhaseControl{phase: {Go: 2}}}, "cee", "IN_PROGRESS: COMPLETE PENDING PENDING > 1 2"},
		"an error stops serial":     {plan.Serial, plan.Control{}, "xe", "ERROR: ERROR PENDING > 0"},
		"delayed is under way":      {plan.Serial, plan.Control{}, "de", "DELAYED: DELAYED PENDING > 0"},
		"nothing to do":             {plan.Serial, plan.Control{}, "", "COMPLETE:  > "},
	} {
		p := row(c.strategy, len(c.seen))
		v := plan.Evaluate(p, func(st plan.Step) plan.Seen {
			l := c.seen[st.Instance.Index : st.Instance.Index+1]
			return plan.Seen{Down: l != strings.ToLower(l), Status: map[string]service.PlanStatus{
				"e": service.Pending, "c": service.Complete, "s": service.Started, "p": service.Prepared,
				"x": service.Error, "d": service.Delayed,
			}[strings.ToLower(l)]}
		}, c.control)
		var statuses, next []string
		for _, s := range v.Phases[0].Steps {
			statuses = append(statuses, string(s.Status))
		}
		for _, st := range v.Next {
			next = append(next, fmt.Sprint(st.Instance.Index))
		}
		got := fmt.Sprintf("%s: %s > %s", v.Status, strings.Join(statuses, " "), strings.Join(next, " "))
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

func TestPhasesInOrder(t *testing.T) {
	s := read(t, hdfs)
	p := plan.Deploy(s, false)
	done := map[string]bool{}
	next := func(c plan.Control) string {
		var out []string
		for _, st := range plan.Evaluate(p, func(st plan.Step) plan.Seen {
			if done[st.Name] {
				return plan.Seen{Status: service.Complete}
			}
			return plan.Seen{Status: service.Pending}
		}, c).Next {
			out = append(out, st.Name)
		}
		return strings.Join(out, " ")
	}
	if got := next(plan.Control{}); got != "journal-0:[node] journal-1:[node]" {
		t.Error(got)
	}
	done["journal-0:[node]"], done["journal-1:[node]"] = true, true
	if got := next(plan.Control{}); got != "name-0:[format]" {
		t.Error(got)
	}
	if got := next(plan.Control{Interrupted: true}); got != "" {
		t.Error(got)
	}
	p.Strategy = plan.Parallel
	if got := next(plan.Control{}); got != "name-0:[format] data-0:[node]" {
		t.Error(got)
	}
}

// TestUpdateKeepsTheRestUp plays updates of a serial phase against instances
// that fail and come back as they like. Whatever happens, the plan takes an
// instance down only while all others are up, never two at once, and once
// failures end it gets done.
func TestUpdateKeepsTheRestUp(t *testing.T) {
	type inst struct{ new, up, begun, broken bool }
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 5).Draw(t, "instances")
		p := row(rapid.SampledFrom([]plan.Strategy{plan.Serial, plan.Canary}).Draw(t, "strategy"), n)
		control := plan.Control{Phases: map[string]plan.PhaseControl{p.Phases[0].ID: {Go: 2}}}
		is := make([]inst, n)
		for i := range is {
			is[i].up = true
			is[i].broken = rapid.IntRange(0, 4).Draw(t, "broken") == 0 // the old configuration never comes up again
		}
		seen := func(st plan.Step) plan.Seen {
			i := is[st.Instance.Index]
			s := plan.Seen{Status: service.Pending, Down: !i.up}
			switch {
			case i.new:
				s.Status = service.Complete
			case i.begun:
				s.Status = service.Starting
			}
			return s
		}
		turns := rapid.IntRange(0, 60).Draw(t, "turns")
		for turn := 0; ; turn++ {
			v := plan.Evaluate(p, seen, control)
			if v.Status == service.Complete && turn >= turns {
				return
			}
			if turn > turns+10*n+10 {
				t.Fatalf("the update does not end: %+v", is)
			}
			under := 0
			for _, st := range v.Next {
				i := &is[st.Instance.Index]
				if !i.begun && i.up {
					for j, o := range is {
						if j != st.Instance.Index && !o.up {
							t.Fatalf("%d is taken down while %d is down: %+v", st.Instance.Index, j, is)
						}
					}
				}
				i.begun, i.up = true, false
				under++
			}
			if under > 1 {
				t.Fatalf("%d under way at once", under)
			}
			for j := range is {
				i := &is[j]
				switch {
				case i.begun: // it comes up, sooner or later
					if turn >= turns || rapid.Bool().Draw(t, "ready") {
						i.begun, i.new, i.up, i.broken = false, true, true, false
					}
				case i.up:
					i.up = turn >= turns || rapid.IntRange(0, 9).Draw(t, "fails") > 0
				case !i.broken: // recovery brings it back
					i.up = turn >= turns || rapid.Bool().Draw(t, "recovers")
				}
			}
		}
	})
}
