package program_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dcos.example/dcos/installer/blueprint"
	"dcos.example/dcos/installer/engine"
	"dcos.example/dcos/installer/program"
	"dcos.example/dcos/installer/topology"
)

func goals(t *testing.T, agents int) []engine.Goal {
	t.Helper()
	src := fmt.Sprintf(`
cluster "demo" {}
provider "local" {}
node_group "master" {}
node_group "agent" { count = %d }
`, agents)
	bp, l := blueprint.Parse(blueprint.Source{Name: "c.hcl", Text: []byte(src)}, blueprint.Values{})
	if l.HasErrors() {
		t.Fatal(l)
	}
	top, l := topology.New(bp)
	if l.HasErrors() {
		t.Fatal(l)
	}
	return program.Goals(top, program.Release{Version: "0.1.0", Digest: "d", Bundle: "/b"})
}

// Hosts depend on no other host: they are made and installed side by side, and
// one more of them concerns the cluster alone.
func TestGraph(t *testing.T) {
	graph := func(gs []engine.Goal) []string {
		var out []string
		for _, g := range gs {
			var needs []string
			for _, d := range g.Dependencies {
				needs = append(needs, d.String())
			}
			out = append(out, g.String()+" < "+strings.Join(needs, ", "))
		}
		return out
	}
	one := graph(goals(t, 1))
	want := []string{
		"Secrets demo < ", "Network demo < ",
		"Host master-1 < Network demo", "Node master-1 < Secrets demo, Host master-1",
		"Host agent-1 < Network demo", "Node agent-1 < Secrets demo, Host agent-1",
		"Cluster demo < Secrets demo, Host master-1, Node master-1, Host agent-1, Node agent-1",
	}
	if d := cmp.Diff(want, one); d != "" {
		t.Error(d)
	}
	two := graph(goals(t, 2))
	if d := cmp.Diff(one[:len(one)-1], two[:len(one)-1]); d != "" {
		t.Errorf("a second agent changes what others need:\n%s", d)
	}
	if len(two) != len(one)+2 {
		t.Errorf("a second agent takes %d goals", len(two)-len(one))
	}
}

func TestRollGoesThroughTheLeaderLast(t *testing.T) {
	gs := goals(t, 2)
	for _, m := range []string{"m1", "m2", "m3"} {
		gs = append(gs, engine.Goal{Key: engine.Key{Type: program.TypeNode, Name: m}})
	}
	program.Roll(gs, program.Rolling{Masters: []string{"master-1", "m1", "m2", "m3"}, Leader: "m1", Agents: 2})
	var got []string
	for _, g := range gs {
		if g.Roll.Name != "" {
			got = append(got, fmt.Sprintf("%s %d %d", g.Name, g.Roll.Rank, g.Roll.Max))
		}
	}
	want := []string{"master-1 0 1", "agent-1 4 2", "agent-2 4 2", "m1 3 1", "m2 1 1", "m3 2 1"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
