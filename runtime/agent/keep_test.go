package agent

import (
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	mesos "dcos.example/dcos/runtime/api/mesos"

	"dcos.example/dcos/runtime/agent/agenttest"
	"dcos.example/dcos/runtime/agent/life"
	"dcos.example/dcos/runtime/agent/status"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/resource"
)

// reserved are resources of role db as the master lists them.
func reserved(t *testing.T, texts ...string) []*mesos.Resource {
	t.Helper()
	var out resource.Resources
	for _, text := range texts {
		r, err := resource.Parse(`[` + text + `]`)
		if err != nil {
			t.Fatal(err)
		}
		out = out.Add(r)
	}
	return out.Proto()
}

func quantity(name, amount, more string) string {
	return `{"name":"` + name + `","type":"SCALAR","scalar":{"value":` + amount + `},"reservations":[{"type":"DYNAMIC","role":"db","principal":"ops"}]` + more + `}`
}

func persistent(id, amount string) string {
	return quantity("disk", amount, `,"disk":{"persistence":{"id":"`+id+`"},"volume":{"mode":"RW","containerPath":"data"}}`)
}

// onDisk makes an agent with the work directory dir that is not run.
func onDisk(t *testing.T, dir, resources string) (*Agent, error) {
	t.Helper()
	c := config.DefaultAgent()
	c.WorkDir, c.Resources = dir, resources
	a, err := New(Options{
		Config: c, Masters: func() []string { return nil }, Client: http.DefaultClient, Log: slog.New(slog.DiscardHandler),
		SecretsDir: filepath.Join(dir, "secrets"),
	})
	if err == nil {
		a.base = t.Context()
	}
	return a, err
}

const small = "cpus:2;mem:1024;disk:500;ports:[1-10]"

func TestKeep(t *testing.T) {
	dir := t.TempDir()
	a, err := onDisk(t, dir, small)
	if err != nil {
		t.Fatal(err)
	}
	path := func(id string) string { return filepath.Join(dir, "volumes", "roles", "db", id) }
	there := func(id string, want bool) {
		t.Helper()
		if _, err := os.Stat(path(id)); (err == nil) != want {
			t.Errorf("volume %s: %v", id, err)
		}
	}
	op := []*mesos.Operation{{Info: &mesos.Offer_Operation{Type: mesos.Offer_Operation_CREATE.Enum()}, LatestStatus: &mesos.OperationStatus{State: mesos.OperationState_OPERATION_FINISHED.Enum()}, Uuid: &mesos.UUID{Value: []byte("u")}}}
	if err := a.keep(reserved(t, quantity("cpus", "1", ""), persistent("a", "100"), persistent("b", "50")), op); err != nil {
		t.Fatal(err)
	}
	there("a", true)
	there("b", true)
	if err := os.WriteFile(filepath.Join(path("a"), "data"), []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := a.View().Resources; got.Scalar("disk") != resource.MustParse(small).Scalar("disk") || got.Reserved("db").Scalar("cpus") != resource.Unit {
		t.Errorf("the total is %s", got)
	}

	// What does not fit leaves everything as it was.
	for what, rs := range map[string][]*mesos.Resource{
		"mem of role db":        reserved(t, persistent("a", "100"), quantity("mem", "2000", "")),
		"volume c of role db":   reserved(t, persistent("a", "100"), persistent("c", "401")),
		"not the name":          reserved(t, persistent("a", "100"), persistent("..", "1")),
		"of type BLOCK":         reserved(t, quantity("disk", "1", `,"disk":{"persistence":{"id":"d"},"source":{"type":"BLOCK"}}`)),
		"volume a of role db i": reserved(t, persistent("a", "100"), persistent("a", "50")),
	} {
		if err := a.keep(rs, nil); !fault.Is(err, fault.Invalid) && !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
	there("a", true)
	there("c", false)

	// After a restart all of it is known, and the operations as well.
	if a, err = onDisk(t, dir, small); err != nil {
		t.Fatal(err)
	}
	if s := a.subscription(); len(s.GetCheckpointedResources()) != 3 || len(s.GetOperations()) != 1 {
		t.Errorf("subscribes with %v and %v", s.GetCheckpointedResources(), s.GetOperations())
	}
	if err := a.tidyVolumes(); err != nil { // without an id nothing is known to be wanted, so nothing is removed
		t.Fatal(err)
	}
	if aside, err := filepath.Glob(filepath.Join(dir, "volumes", "aside", "*", "db", "a", "data")); err != nil || len(aside) != 1 {
		t.Fatalf("set aside: %v, %v", aside, err)
	}
}

func TestKeepDestroys(t *testing.T) {
	dir := t.TempDir()
	a, err := onDisk(t, dir, small)
	if err != nil {
		t.Fatal(err)
	}
	two := reserved(t, persistent("a", "100"), persistent("b", "50"))
	if err := a.keep(two, nil); err != nil {
		t.Fatal(err)
	}
	ti := agenttest.Task("t", "true")
	ti.Resources = reserved(t, persistent("a", "100"))
	k := status.Key{Framework: "f", Task: "t"}
	a.tasks[k] = &task{key: k, info: ti, state: life.Running}
	if err := a.entrusted(ti); err != nil {
		t.Error(err)
	}
	if err := a.keep(nil, nil); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "used by task t") {
		t.Errorf("destroyed under a task: %v", err)
	}
	if err := a.keep(reserved(t, persistent("a", "100")), nil); err != nil { // the other one
		t.Fatal(err)
	}
	a.tasks[k].state = life.Done
	if err := a.keep(nil, nil); err != nil {
		t.Fatal(err)
	}
	a.sessions.Wait()
	if left, err := filepath.Glob(filepath.Join(dir, "volumes", "*", "*")); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if err := a.entrusted(ti); !fault.Is(err, fault.Conflict) {
		t.Errorf("a task with a volume that is gone: %v", err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "meta", "agent.json"))
	if err != nil || !strings.Contains(string(b), `"format": 1,`) {
		t.Errorf("%s, %v", b, err)
	}
}

// An agent that has less than what is reserved on it says what and stays down.
func TestShrunkAgentRefuses(t *testing.T) {
	dir := t.TempDir()
	a, err := onDisk(t, dir, small)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.keep(reserved(t, quantity("mem", "1000", ""), persistent("a", "400")), nil); err != nil {
		t.Fatal(err)
	}
	_, err = onDisk(t, dir, "cpus:2;mem:512;disk:100")
	if !fault.Is(err, fault.Invalid) {
		t.Fatal(err)
	}
	for _, want := range []string{"volume a of role db: disk:400 is taken", `"disk:100"`, "mem of role db: mem:1000 is taken", "set aside"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	if _, err := onDisk(t, dir, "cpus:1;mem:2000;disk:400"); err != nil { // other changes are fine
		t.Error(err)
	}
}

func TestRefined(t *testing.T) {
	host := resource.MustParse("cpus(eng):4;cpus:1")
	list, err := resource.Parse(`[{"name":"cpus","type":"SCALAR","scalar":{"value":3},"reservations":[{"type":"STATIC","role":"eng"},{"type":"DYNAMIC","role":"eng/a"},{"type":"DYNAMIC","role":"eng/a/b"}]}]`)
	if err != nil {
		t.Fatal(err)
	}
	got, err := total(host, list)
	if err != nil || got.Reserved("eng/a/b").Scalar("cpus") != 3*resource.Unit || got.Reserved("eng").Scalar("cpus") != resource.Unit {
		t.Errorf("%s, %v", got, err)
	}
}
