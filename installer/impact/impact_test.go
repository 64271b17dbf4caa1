package impact_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"dcos.example/dcos/installer/impact"
)

// cluster has agents a1, a2, … of 4 cpus each, and masters m1, m2, m3.
func cluster(agents int, apps ...impact.App) impact.Snapshot {
	s := impact.Snapshot{Apps: apps, Members: []impact.Member{{"m1", true, true}, {"m2", true, true}, {"m3", true, true}}}
	for i := range agents {
		n := fmt.Sprintf("a%d", i+1)
		s.Agents = append(s.Agents, impact.Agent{ID: "S" + n, Host: n, Hostname: n, Offered: true, Attributes: map[string]string{"rack": fmt.Sprint("r", i%2)},
			Total: impact.Resources{"cpus": 4, "mem": 1024}, Used: impact.Resources{}})
	}
	return s
}

// run places instances of an app, one cpu each unless its id says otherwise.
func run(s *impact.Snapshot, app string, cpus float64, on ...string) {
	for _, host := range on {
		for i := range s.Agents {
			if s.Agents[i].Host == host {
				s.Agents[i].Used["cpus"] += cpus
			}
		}
		s.Tasks = append(s.Tasks, impact.Task{ID: fmt.Sprintf("%s.%d", app, len(s.Tasks)), Agent: "S" + host, Framework: "marathon", App: app, Ready: true,
			Resources: impact.Resources{"cpus": cpus}})
	}
}

func agentChange(host string, k impact.Kind) impact.Change {
	return impact.Change{Host: host, Role: "agent", Kind: k}
}

var remove = []impact.Change{agentChange("a1", impact.Remove)}

func TestApps(t *testing.T) {
	for name, tc := range map[string]struct {
		app     impact.App
		cpus    float64
		on      []string
		changes []impact.Change
		lowest  int
		below   bool
		down    bool
		refused string // part of the refusal, "" if there is none
	}{
		"four, more allowed":                                {impact.App{ID: "/web", Instances: 4, MinimumShare: 1, OverShare: 1}, 1, []string{"a1", "a1", "a2", "a3"}, remove, 4, false, false, ""},
		"four, no more, fewer allowed":                      {impact.App{ID: "/web", Instances: 4, MinimumShare: 0.5}, 1, []string{"a1", "a2", "a2", "a3"}, remove, 3, false, false, ""},
		"four, no more and none fewer: one more is allowed": {impact.App{ID: "/web", Instances: 4, MinimumShare: 1}, 1, []string{"a1", "a2", "a2", "a3"}, remove, 4, false, false, ""},
		"one, new first":                                    {impact.App{ID: "/one", Instances: 1, MinimumShare: 1, OverShare: 1}, 1, []string{"a1"}, remove, 1, false, false, ""},
		"one, old first":                                    {impact.App{ID: "/one", Instances: 1}, 1, []string{"a1"}, remove, 0, false, true, "a1: app /one has one instance and would be down for about 12s"},
		"one, no room":                                      {impact.App{ID: "/one", Instances: 1, MinimumShare: 1, OverShare: 1}, 5, []string{"a1"}, remove, 0, true, true, "a1: app /one has one instance and would be down: 1 instance has no room"},
		"all of it on one agent, no more, none needed":      {impact.App{ID: "/job", Instances: 2}, 1, []string{"a1", "a1"}, remove, 0, false, true, "a1: app /job would be down"},
		"unique hosts, none free": {impact.App{ID: "/u", Instances: 3, MinimumShare: 1, OverShare: 1, Constraints: []impact.Constraint{{"hostname", "UNIQUE", ""}}},
			1, []string{"a1", "a2", "a3"}, remove, 2, true, false, "a1: app /u would have 2 of 3 instances, and wants 3"},
		"unique racks, its own is free again": {impact.App{ID: "/u", Instances: 2, MinimumShare: 1, OverShare: 1, Constraints: []impact.Constraint{{"rack", "UNIQUE", ""}}},
			1, []string{"a1", "a2"}, remove, 2, false, false, ""},
		"bound to the host": {impact.App{ID: "/pin", Instances: 1, MinimumShare: 1, OverShare: 1, Constraints: []impact.Constraint{{"hostname", "CLUSTER", "a1"}}},
			1, []string{"a1"}, remove, 0, true, true, "no room or no allowed place"},
		"two agents at once take each other's place": {impact.App{ID: "/big", Instances: 2, MinimumShare: 1, OverShare: 1}, 3, []string{"a1", "a2"},
			[]impact.Change{agentChange("a1", impact.Remove), agentChange("a2", impact.Replace), agentChange("a3", impact.Remove)}, 1, true, false, "would have 1 of 2"},
		"an update moves nothing": {impact.App{ID: "/one", Instances: 1}, 1, []string{"a1"}, []impact.Change{agentChange("a1", impact.Update)}, -1, false, false, ""},
		"an update that drains":   {impact.App{ID: "/one", Instances: 1}, 1, []string{"a1"}, []impact.Change{{Host: "a1", Role: "agent", Kind: impact.Update, Drained: true}}, 0, false, true, "would be down"},
	} {
		t.Run(name, func(t *testing.T) {
			tc.app.Startup, tc.app.Grace = 7*time.Second, 5*time.Second
			s := cluster(3, tc.app)
			run(&s, tc.app.ID, tc.cpus, tc.on...)
			r := impact.Of(s, tc.changes)
			var apps []impact.AppEffect
			for _, e := range r.Effects {
				apps = append(apps, e.Apps...)
			}
			if tc.lowest < 0 {
				if len(apps) > 0 || len(r.Refusals) > 0 {
					t.Errorf("%+v", r)
				}
				return
			}
			if len(apps) == 0 || apps[0].Lowest != tc.lowest || apps[0].Below != tc.below || apps[0].Down != tc.down {
				t.Errorf("%+v", apps)
			}
			if got := strings.Join(r.Refusals, "\n"); tc.refused == "" && got != "" || !strings.Contains(got, tc.refused) {
				t.Errorf("refused with %q, want %q", got, tc.refused)
			}
		})
	}
}

func TestOthersAndVolumes(t *testing.T) {
	s := cluster(2)
	s.Tasks = []impact.Task{{ID: "broker", Agent: "Sa1", Framework: "kafka", Ready: true, Resources: impact.Resources{"cpus": 3}}}
	s.Agents[1].Used["cpus"] = 2
	s.Volumes = []impact.Volume{{ID: "v2", Agent: "Sa1"}, {ID: "v1", Agent: "Sa1"}, {ID: "v3", Agent: "Sa2"}}
	e := impact.Of(s, remove).Effects[0]
	if diff := cmp.Diff([]impact.Moved{{ID: "broker", Framework: "kafka", Killed: true}}, e.Tasks); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"v1", "v2"}, e.Volumes); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]impact.Lack{{Resource: "cpus", Needed: 3, Free: 2}}, e.Lacking); diff != "" {
		t.Error(diff)
	}
	if e := impact.Of(s, []impact.Change{agentChange("a9", impact.Remove)}).Effects[0]; e.Known {
		t.Error("an agent that is not there is known")
	}
}

func TestQuorum(t *testing.T) {
	sick := func(names ...string) impact.Snapshot {
		s := cluster(0)
		for i, m := range s.Members {
			s.Members[i].Healthy = !strings.Contains(strings.Join(names, " "), m.Name)
		}
		return s
	}
	one := impact.Snapshot{Members: []impact.Member{{"m1", true, true}}}
	of := func(kind impact.Kind, names ...string) (cs []impact.Change) {
		for _, n := range names {
			cs = append(cs, impact.Change{Host: n, Role: "master", Kind: kind})
		}
		return cs
	}
	for name, tc := range map[string]struct {
		s       impact.Snapshot
		changes []impact.Change
		want    []impact.Quorum
		refused int
	}{
		"one restarts":                      {sick(), of(impact.Update, "m2"), []impact.Quorum{{3, 2, 2, true, false}}, 0},
		"one restarts, one is down":         {sick("m3"), of(impact.Update, "m2"), []impact.Quorum{{3, 2, 1, false, false}}, 1},
		"the one that is down":              {sick("m3"), of(impact.Replace, "m3"), []impact.Quorum{{2, 2, 2, true, false}}, 0},
		"another than the one that is down": {sick("m3"), of(impact.Replace, "m2"), []impact.Quorum{{2, 2, 1, false, false}}, 1},
		"two go, one after the other":       {sick(), of(impact.Remove, "m2", "m3"), []impact.Quorum{{2, 2, 2, true, false}, {1, 1, 1, true, false}}, 0},
		"all go":                            {sick(), of(impact.Remove, "m1", "m2", "m3"), []impact.Quorum{{2, 2, 2, true, false}, {1, 1, 1, true, false}, {0, 1, 0, false, false}}, 1},
		"one of two goes, which is down":    {impact.Snapshot{Members: []impact.Member{{"m1", true, true}, {"m2", true, false}}}, of(impact.Remove, "m2"), []impact.Quorum{{1, 1, 1, false, false}}, 1},
		"the only one restarts":             {one, of(impact.Update, "m1"), []impact.Quorum{{1, 1, 0, false, true}}, 0},
		"the only one goes":                 {one, of(impact.Remove, "m1"), []impact.Quorum{{0, 1, 0, false, false}}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := impact.Of(tc.s, tc.changes)
			var got []impact.Quorum
			for _, e := range r.Effects {
				got = append(got, *e.Quorum)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
			if len(r.Refusals) != tc.refused {
				t.Errorf("refused: %q", r.Refusals)
			}
		})
	}
	if e := impact.Of(impact.Snapshot{}, of(impact.Update, "m1")).Effects[0]; e.Quorum != nil {
		t.Error("a quorum of masters of which nothing is known")
	}
}

func TestBlind(t *testing.T) {
	r := impact.Blind([]impact.Change{agentChange("a1", impact.Update), agentChange("a2", impact.Remove), {Host: "m1", Role: "master", Kind: impact.Update}}, "no answer")
	if r.Unknown != "no answer" || len(r.Refusals) != 1 || !strings.HasPrefix(r.Refusals[0], "a2: ") {
		t.Errorf("%+v", r)
	}
}

func TestExpected(t *testing.T) {
	steps := []impact.Step{
		{Op: "create", Kind: "Host", Role: "agent", Host: "a1"}, {Op: "create", Kind: "Node", Role: "agent", Host: "a1"},
		{Op: "update", Kind: "Node", Role: "master", Host: "m1"}, {Op: "update", Kind: "Node", Role: "master", Host: "m2"},
		{Op: "update", Kind: "Node", Role: "agent", Host: "a2"}, {Op: "update", Kind: "Node", Role: "agent", Host: "a3"}, {Op: "update", Kind: "Node", Role: "agent", Host: "a4"},
	}
	past := impact.Past{
		impact.Class("update", "Node", "master"): {10 * time.Second, 90 * time.Second, 11 * time.Second},
		impact.Class("update", "Node", "agent"):  {4 * time.Second},
		impact.Class("create", "Host", "agent"):  {time.Second},
	}
	// Hosts 1 s; masters one by one 22 s, agents two at once 8 s, beside the
	// new one of 5 s that has no past; and 30 s of moving first.
	got := impact.Expect(steps, past, 10, 2, []time.Duration{30 * time.Second, 10 * time.Second})
	if got.Steps != 7 || got.Own != 6 || got.Duration < 60*time.Second || got.Duration > 66*time.Second {
		t.Errorf("%+v", got)
	}
	if text := got.Text(); !strings.Contains(text, "6 of 7 steps from this stack's own history") {
		t.Error(text)
	}
}

// Whatever runs where: no app is said to be higher than it is, a refusal has a
// reason, and what fits is not more than there is room for.
func TestAlwaysSensible(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 5).Draw(t, "agents")
		s := cluster(n)
		for i := range rapid.IntRange(0, 4).Draw(t, "apps") {
			a := impact.App{ID: fmt.Sprintf("/app%d", i), MinimumShare: rapid.Float64Range(0, 1).Draw(t, "min"), OverShare: rapid.Float64Range(0, 1).Draw(t, "over")}
			for range rapid.IntRange(1, 4).Draw(t, "instances") {
				run(&s, a.ID, 1, fmt.Sprintf("a%d", rapid.IntRange(1, n).Draw(t, "on")))
				a.Instances++
			}
			s.Apps = append(s.Apps, a)
		}
		var changes []impact.Change
		for i := range n {
			if rapid.Bool().Draw(t, "changes") {
				changes = append(changes, agentChange(fmt.Sprintf("a%d", i+1), rapid.SampledFrom([]impact.Kind{impact.Remove, impact.Drain, impact.Update}).Draw(t, "kind")))
			}
		}
		r := impact.Of(s, changes)
		bad := 0
		for _, e := range r.Effects {
			for _, a := range e.Apps {
				if a.Lowest < 0 || a.Lowest > a.Ready || a.Why == "" || a.Down && a.Lowest > 0 {
					t.Fatalf("%+v", a)
				}
				if a.Down || a.Below {
					bad++
				}
			}
		}
		if bad != len(r.Refusals) {
			t.Fatalf("%d apps suffer, %d refusals: %q", bad, len(r.Refusals), r.Refusals)
		}
	})
}
