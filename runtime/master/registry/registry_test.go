package registry_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/master/registry"
	"dcos.example/dcos/runtime/state"
	"dcos.example/dcos/runtime/state/memory"
	"dcos.example/dcos/runtime/task"
)

var now = time.Unix(1_700_000_000, 0).UTC()

func agent(id string) *mesos.AgentInfo {
	return &mesos.AgentInfo{Id: &mesos.AgentID{Value: &id}, Hostname: proto.String("h")}
}

func load(t *testing.T, b state.Backend) *registry.Registry {
	t.Helper()
	r, err := registry.Load(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestStandings(t *testing.T) {
	b := memory.New()
	r := load(t, b)
	ctx := t.Context()
	for _, step := range []error{
		r.Admit(ctx, now, agent("a"), "1"), r.Admit(ctx, now, agent("b"), "1"),
		r.SetStanding(ctx, now.Add(time.Hour), registry.Unreachable, "a", "b", "unknown"),
		r.Admit(ctx, now.Add(2*time.Hour), agent("a"), "1"), r.SetStanding(ctx, now, registry.Gone, "b"),
		r.SetStanding(ctx, now, registry.Unreachable, "b"),
	} {
		if step != nil {
			t.Fatal(step)
		}
	}
	if err := r.Admit(ctx, now, agent("b"), "1"); !fault.Is(err, fault.Denied) {
		t.Errorf("an agent that is gone is admitted: %v", err)
	}
	again := load(t, b)
	if s, since := again.Standing("a"); s != registry.Admitted || !since.Equal(now.Add(2*time.Hour)) {
		t.Errorf("a is %s since %v", s, since)
	}
	if s, _ := again.Standing("b"); s != registry.Gone || again.Count(registry.Gone) != 1 {
		t.Errorf("b is %s", s)
	}
	if got := again.Agents()["a"]; !proto.Equal(got.Info, agent("a")) {
		t.Errorf("a was stored as %v", got.Info)
	}
}

func TestRemovedFrameworksStayRemoved(t *testing.T) {
	b := memory.New()
	r := load(t, b)
	ctx := t.Context()
	info := func(i int) *mesos.FrameworkInfo {
		return &mesos.FrameworkInfo{Id: &mesos.FrameworkID{Value: proto.String(fmt.Sprintf("f%04d", i))}, User: proto.String("u"), Name: proto.String("n")}
	}
	for i := range 1100 {
		if err := r.PutFramework(ctx, now, info(i)); err != nil {
			t.Fatal(err)
		}
		id := task.FrameworkID(info(i).GetId().GetValue())
		if err := r.RemoveFramework(ctx, now.Add(time.Duration(i)*time.Second), id); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.PutFramework(ctx, now, info(1099)); !fault.Is(err, fault.Denied) {
		t.Errorf("a removed framework came back: %v", err)
	}
	again := load(t, b)
	if n := len(again.Frameworks()); n != 1000 {
		t.Errorf("%d tombstones are kept", n)
	}
	if _, ok := again.Framework("f0099"); ok {
		t.Error("the oldest is still there")
	}
	if f, ok := again.Framework("f0100"); !ok || f.Removed == nil {
		t.Error("a newer one is not")
	}
}

// TestStoredAsWritten: a default that was not set must not be set afterwards.
func TestStoredAsWritten(t *testing.T) {
	b := memory.New()
	info := &mesos.FrameworkInfo{Id: &mesos.FrameworkID{Value: proto.String("f")}, User: proto.String("u"), Name: proto.String("n"), Roles: []string{"r"}}
	if err := load(t, b).PutFramework(t.Context(), now, info); err != nil {
		t.Fatal(err)
	}
	if f, _ := load(t, b).Framework("f"); !proto.Equal(f.Info, info) {
		t.Errorf("stored %v, read %v", info, f.Info)
	}
}
