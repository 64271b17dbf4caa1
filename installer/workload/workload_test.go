package workload_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"dcos.example/dcos/installer/impact"
	"dcos.example/dcos/installer/workload"
	"dcos.example/dcos/runtime/fault"
)

// gateway answers from texts, by method and path.
type gateway struct {
	answers map[string]string
	asked   []string
	next    func(path string) // before an answer
	err     error
}

func (g *gateway) JSON(_ context.Context, method, path string, in, out any) error {
	b, err := json.Marshal(in)
	if err != nil {
		return err
	}
	g.asked = append(g.asked, strings.TrimSuffix(method+" "+path+" "+string(b), " null"))
	if g.next != nil {
		g.next(path)
	}
	if g.err != nil {
		return g.err
	}
	text, ok := g.answers[method+" "+path]
	if !ok {
		return fault.Newf(path, fault.NotFound, "status 404")
	}
	if out == nil || text == "" {
		return nil
	}
	return json.Unmarshal([]byte(text), out)
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The files are answers of a cluster of one master and three agents.
func recorded(t *testing.T) *gateway {
	return &gateway{answers: map[string]string{
		"GET /mesos/state": read(t, "state.json"), "GET /mesos/state-summary": read(t, "state-summary.json"),
		"GET /service/marathon/v2/apps?embed=apps.tasks": read(t, "apps.json"), "GET /system/v1/members": read(t, "members.json"),
		"POST /mesos/api/v1": "", "POST /mesos/api/v1?cancel_drain=true": "",
	}}
}

func TestSnapshot(t *testing.T) {
	s, err := workload.New(recorded(t)).Snapshot(t.Context(), map[string]string{"198.19.60.21": "agent-1", "198.19.60.22": "agent-2", "198.19.60.23": "agent-3"})
	if err != nil {
		t.Fatal(err)
	}
	var agents, tasks []string
	for _, a := range s.Agents {
		agents = append(agents, fmt.Sprintf("%q at %s offered %v public %v cpus %g used %g", a.Host, a.Address, a.Offered, a.Public, a.Total["cpus"], a.Used["cpus"]))
	}
	on := map[string]string{}
	for _, a := range s.Agents {
		on[a.ID] = a.Host
	}
	for _, x := range s.Tasks {
		tasks = append(tasks, fmt.Sprintf("%s of %s on %s ready %v cpus %g", x.App, x.Framework, on[x.Agent], x.Ready, x.Resources["cpus"]))
	}
	want := strings.TrimSpace(read(t, "snapshot.golden"))
	got := strings.Join(agents, "\n") + "\n" + strings.Join(tasks, "\n")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s\n%s", diff, got)
	}
	if diff := cmp.Diff([]impact.Member{{Name: "master-1", Voter: true, Healthy: true}}, s.Members); diff != "" {
		t.Error(diff)
	}
	for _, a := range s.Apps {
		if a.ID == "/hello" && (a.Instances != 4 || a.MinimumShare != 0.5 || a.OverShare != 0.5 || a.Startup <= 0 || a.Startup > time.Minute) {
			t.Errorf("%+v", a)
		}
		if a.ID == "/pin" && cmp.Diff([]impact.Constraint{{Field: "hostname", Operator: "CLUSTER", Value: "198.19.60.22"}}, a.Constraints) != "" {
			t.Errorf("%+v", a)
		}
	}
}

func TestAgents(t *testing.T) {
	g := recorded(t)
	c := workload.New(g)
	a, err := c.AgentAt(t.Context(), "198.19.60.23")
	if err != nil || a.State != workload.Drained || a.Drain == nil || a.Drain.MaxGrace == nil || *a.Drain.MaxGrace != 20*time.Second || a.Tasks != 0 {
		t.Errorf("%+v, %v", a, err)
	}
	if a, err = c.AgentAt(t.Context(), "198.19.60.22"); err != nil || a.State != workload.Active || a.Drain != nil || a.Tasks == 0 {
		t.Errorf("%+v, %v", a, err)
	}
	if _, err := c.AgentAt(t.Context(), "198.19.60.99"); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	delete(g.answers, "GET /system/v1/members")
	if m, err := c.Masters(t.Context()); m != nil || err != nil {
		t.Errorf("a release without members: %v, %v", m, err)
	}
}

func TestCalls(t *testing.T) {
	g := recorded(t)
	c := workload.New(g)
	bound := 1500 * time.Millisecond
	for _, err := range []error{c.Drain(t.Context(), "S1", nil), c.Drain(t.Context(), "S1", &bound), c.Reactivate(t.Context(), "S1"), c.MarkGone(t.Context(), "S1")} {
		if err != nil {
			t.Error(err)
		}
	}
	want := []string{
		`POST /mesos/api/v1 {"drain_agent":{"agent_id":{"value":"S1"}},"type":"DRAIN_AGENT"}`,
		`POST /mesos/api/v1 {"drain_agent":{"agent_id":{"value":"S1"},"max_grace_period":{"nanos":500000000,"seconds":1}},"type":"DRAIN_AGENT"}`,
		`POST /mesos/api/v1?cancel_drain=true {"reactivate_agent":{"agent_id":{"value":"S1"}},"type":"REACTIVATE_AGENT"}`,
		`POST /mesos/api/v1 {"mark_agent_gone":{"agent_id":{"value":"S1"}},"type":"MARK_AGENT_GONE"}`,
	}
	if diff := cmp.Diff(want, g.asked); diff != "" {
		t.Error(diff)
	}
}

// states plays a drain: each look finds the next state.
func states(all ...string) *gateway {
	g := &gateway{answers: map[string]string{}}
	g.next = func(string) {
		now := all[0]
		if len(all) > 1 {
			all = all[1:]
		}
		g.err = nil
		switch now {
		case "away":
			g.err = fault.Newf("ask", fault.Unavailable, "no leader")
		case "refused":
			g.err = fault.Newf("ask", fault.Denied, "no")
		case "gone":
			g.answers["GET /mesos/state-summary"] = `{"slaves":[]}`
		case "active":
			g.answers["GET /mesos/state-summary"] = `{"slaves":[{"id":"S1","pid":"slave(1)@10.0.0.1:5051","active":true}]}`
		default:
			state, n, _ := strings.Cut(now, " ")
			g.answers["GET /mesos/state-summary"] = fmt.Sprintf(`{"slaves":[{"id":"S1","pid":"slave(1)@10.0.0.1:5051","deactivated":true,"TASK_RUNNING":%s,"drain_info":{"state":%q}}]}`, n, state)
		}
	}
	return g
}

func TestWaitDrained(t *testing.T) {
	for name, tc := range map[string]struct {
		states []string
		told   string
		kind   fault.Kind
		fails  bool
	}{
		"to its end":                      {[]string{"DRAINING 2", "DRAINING 2", "away", "DRAINING 1", "DRAINED 0"}, "draining 2, draining 1, drained 0", 0, false},
		"gone meanwhile":                  {[]string{"DRAINING 1", "gone"}, "draining 1", 0, false},
		"away and back after a fail-over": {[]string{"DRAINING 2", "gone", "gone", "DRAINING 2", "DRAINED 0"}, "draining 2, drained 0", 0, false},
		"called off":                      {[]string{"DRAINING 1", "active"}, "draining 1, active 0", fault.Conflict, true},
		"not allowed":                     {[]string{"refused"}, "", fault.Denied, true},
		"takes too long":                  {[]string{"DRAINING 3"}, "draining 3", fault.Unavailable, true},
		"never answering":                 {[]string{"away"}, "", fault.Unavailable, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
				defer cancel()
				var told []string
				err := workload.New(states(tc.states...)).WaitDrained(ctx, "S1", func(p workload.Progress) { told = append(told, fmt.Sprintf("%s %d", p.State, p.Tasks)) })
				if (err != nil) != tc.fails || tc.fails && !fault.Is(err, tc.kind) {
					t.Errorf("%v", err)
				}
				if got := strings.Join(told, ", "); got != tc.told {
					t.Errorf("told %q, want %q", got, tc.told)
				}
			})
		})
	}
}

func TestFind(t *testing.T) {
	for name, tc := range map[string]struct {
		states []string
		want   string
		kind   fault.Kind
		fails  bool
	}{
		"at once":           {[]string{"active"}, workload.Active, 0, false},
		"after a fail-over": {[]string{"away", "gone", "gone", "DRAINED 0"}, workload.Drained, 0, false},
		"not there":         {[]string{"gone"}, "", fault.NotFound, true},
		"not allowed":       {[]string{"refused"}, "", fault.Denied, true},
		"nobody ever leads": {[]string{"away"}, "", fault.Unavailable, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, err := workload.New(states(tc.states...)).Find(t.Context(), "10.0.0.1", 20*time.Second)
				if (err != nil) != tc.fails || tc.fails && !fault.Is(err, tc.kind) || a.State != tc.want {
					t.Errorf("%+v, %v", a, err)
				}
			})
		})
	}
}
