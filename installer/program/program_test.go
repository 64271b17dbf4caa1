package program_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"

	"dcos.example/dcos/installer/blueprint"
	"dcos.example/dcos/installer/engine"
	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/installer/program"
	"dcos.example/dcos/installer/stack"
	"dcos.example/dcos/installer/topology"
	"dcos.example/dcos/providers"
	"dcos.example/dcos/providers/input"
	"dcos.example/dcos/runtime/config"
)

func goals(t *testing.T, agents int) []engine.Goal {
	t.Helper()
	return goalsOf(t, fmt.Sprintf(`
cluster "demo" {}
provider "local" {}
node_group "master" {}
node_group "agent" { count = %d }
`, agents))
}

func goalsOf(t *testing.T, src string) []engine.Goal {
	t.Helper()
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

func graph(gs []engine.Goal) []string {
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

const ownMachines = `
variable "sudo" {
  sensitive = true
  default   = "s3cret-text"
}
cluster "demo" {}
provider "onprem" {
  user          = "admin"
  key_file      = "/k"
  sudo_password = var.sudo
  bastion { address = "jump" }
}
node_group "master" { hosts = { %s } }
node_group "agent" { hosts = { a1 = "10.0.0.21" } }
`

func TestOwnMachines(t *testing.T) {
	gs := goalsOf(t, fmt.Sprintf(ownMachines, `m1 = "10.0.0.11"`))
	want := []string{
		"Secrets demo < ", "Host m1 < ", "Node m1 < Secrets demo, Host m1", "Host a1 < ", "Node a1 < Secrets demo, Host a1",
		"Cluster demo < Secrets demo, Host m1, Node m1, Host a1, Node a1",
	}
	if d := cmp.Diff(want, graph(gs)); d != "" {
		t.Error(d)
	}
	in, err := gs[1].Inputs(engine.Outputs{})
	if err != nil || gs[1].Type != program.TypeOnPremHost {
		t.Fatal(err)
	}
	ref, err := host.ReadRef("m1", in["connection"].ObjectValue())
	if err != nil || ref.SSH.Sudo != host.SudoPassword || ref.SSH.SudoPassword != "s3cret-text" || ref.SSH.Endpoint() != "10.0.0.11:22" || ref.SSH.Bastion.Endpoint() != "jump:22" || ref.SSH.Bastion.KeyFile != "/k" {
		t.Errorf("%+v %v", ref, err)
	}
	if !in["connection"].ObjectValue()["sudoPassword"].IsSecret() {
		t.Error("the password of sudo is not secret")
	}
}

// A whole plan and apply over providers that only remember: what a host is
// asked for reaches its node, and a further master changes no agent's
// configuration.
func TestMastersAreNoBusinessOfAgents(t *testing.T) {
	st, err := stack.Open(t.TempDir(), stack.Options{Name: "demo"})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{objects: map[resource.URN]resource.PropertyMap{}}
	set := providers.Set{"onprem": w, "dcos": w}
	apply := func(masters string) {
		t.Helper()
		if _, err := engine.Apply(t.Context(), st, goalsOf(t, fmt.Sprintf(ownMachines, masters)), engine.Options{Providers: set, Parallel: 2}); err != nil {
			t.Fatal(err)
		}
	}
	node := func(name string) resource.PropertyMap {
		return w.objects[engine.Key{Type: program.TypeNode, Name: name}.URN("demo")]
	}
	file := func(name, path string) string {
		v, _ := input.Plain(node(name)["files"].ObjectValue()[resource.PropertyKey(path)].ObjectValue()["content"])
		return v.StringValue()
	}
	apply(`m1 = "10.0.0.11"`)
	h := node("a1")["host"].ObjectValue()
	if h["hostKey"].StringValue() != "key of a1" || h["machineId"].StringValue() != "machine a1" || h["bootId"].StringValue() != "boot a1" || !h["sudoPassword"].IsSecret() {
		t.Errorf("the node is reached by %v", h)
	}
	if _, err := host.ReadRef("a1", resource.PropertyMap{"kind": h["kind"], "address": h["address"], "hostKey": h["hostKey"]}); err != nil {
		t.Error(err)
	}
	if c := file("a1", config.AgentFile); !strings.Contains(c, `"10.0.0.2:53"`) {
		t.Errorf("the machine's resolvers are not asked: %s", c)
	}
	before := node("a1")["files"].ObjectValue()
	apply(`m1 = "10.0.0.11", m2 = "10.0.0.12", m3 = "10.0.0.13"`)
	for path, f := range node("a1")["files"].ObjectValue() {
		if same := f.DeepEquals(before[path]); same == (path == config.MastersFile) {
			t.Errorf("%s: the same is %t", path, same)
		}
	}
	var m config.Masters
	if err := json.Unmarshal([]byte(file("a1", config.MastersFile)), &m); err != nil || len(m.Masters) != 3 || !slices.Equal(m.Founders, []string{"m1"}) {
		t.Errorf("masters: %+v %v", m, err)
	}
}

// world keeps inputs, and gives the outputs that goals ask for.
type world struct {
	mu      sync.Mutex
	objects map[resource.URN]resource.PropertyMap
}

func (w *world) outputs(u resource.URN, in resource.PropertyMap) resource.PropertyMap {
	str := resource.NewProperty[string]
	switch u.Type() {
	case program.TypeSecrets:
		return resource.PropertyMap{"clusterId": str("id"), "caCert": str("CA"), "caKey": str("KEY"), "joinToken": str("TOKEN"), "sealKey": str("SEAL"),
			"adminPassword": str("password"), "adminHash": str("HASH"), "backupRecipient": str("age1"), "founders": in["founders"]}
	case program.TypeOnPremHost:
		c := in["connection"].ObjectValue().Copy()
		c["hostKey"] = str("key of " + u.Name())
		return resource.PropertyMap{"connection": resource.NewProperty(c), "machineId": str("machine " + u.Name()), "bootId": str("boot " + u.Name()),
			"facts": resource.NewProperty(resource.PropertyMap{"resolver": str("file"), "resolvers": resource.NewProperty([]resource.PropertyValue{str("10.0.0.2")})})}
	}
	return resource.PropertyMap{}
}

func (w *world) put(u resource.URN, in resource.PropertyMap, preview bool) resource.PropertyMap {
	if preview {
		return nil // all unknown
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.objects[u] = in
	return w.outputs(u, in)
}

func (w *world) Check(_ context.Context, r plugin.CheckRequest) (plugin.CheckResponse, error) {
	return plugin.CheckResponse{Properties: r.News}, nil
}

func (w *world) Diff(_ context.Context, r plugin.DiffRequest) (plugin.DiffResponse, error) {
	if r.Type == program.TypeSecrets {
		return plugin.DiffResponse{Changes: plugin.DiffNone}, nil
	}
	return providers.DiffInputs(r), nil
}

func (w *world) Create(_ context.Context, r plugin.CreateRequest) (plugin.CreateResponse, error) {
	return plugin.CreateResponse{ID: resource.ID(r.URN.Name()), Properties: w.put(r.URN, r.Properties, r.Preview)}, nil
}

func (w *world) Update(_ context.Context, r plugin.UpdateRequest) (plugin.UpdateResponse, error) {
	return plugin.UpdateResponse{Properties: w.put(r.URN, r.NewInputs, r.Preview)}, nil
}

func (w *world) Read(_ context.Context, r plugin.ReadRequest) (plugin.ReadResponse, error) {
	return plugin.ReadResponse{ReadResult: plugin.ReadResult{ID: r.ID, Inputs: r.Inputs, Outputs: r.State}}, nil
}

func (w *world) Delete(_ context.Context, r plugin.DeleteRequest) (plugin.DeleteResponse, error) {
	return plugin.DeleteResponse{}, nil
}
