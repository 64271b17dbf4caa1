package core_test

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/api/agentlink"
	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/scheduler"
	"dcos.example/dcos/runtime/api/wire"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/master/core"
	"dcos.example/dcos/runtime/master/registry"
	"dcos.example/dcos/runtime/resource"
	"dcos.example/dcos/runtime/state/memory"
	"dcos.example/dcos/runtime/task"
)

func newCore(t interface {
	Helper()
	Context() context.Context
	Fatal(...any)
}) *core.Core {
	t.Helper()
	reg, err := registry.Load(t.Context(), memory.New())
	if err != nil {
		t.Fatal(err)
	}
	return core.New(core.Config{
		Info: &mesos.MasterInfo{Ip: proto.Uint32(0), Port: proto.Uint32(5050)}, Ping: time.Second, Missed: 5,
		Reregister: time.Minute, Now: time.Now,
	}, reg, slog.New(slog.DiscardHandler))
}

// fill makes a core with agents and tasks that agents report as running, as
// after a fail-over.
func fill(t testing.TB, agents, tasksPerAgent int) (*core.Core, *mesos.FrameworkID) {
	t.Helper()
	c := newCore(t)
	id, _, err := c.SubscribeFramework(t.Context(), &scheduler.Call_Subscribe{FrameworkInfo: &mesos.FrameworkInfo{
		User: proto.String("root"), Name: proto.String("f"), FailoverTimeout: proto.Float64(1e6),
	}}, wire.Protobuf)
	if err != nil {
		t.Fatal(err)
	}
	f := &mesos.FrameworkID{Value: proto.String(string(id))}
	res := resource.MustParse("cpus:0.1;mem:5").Allocate("*").Proto()
	total := resource.MustParse("cpus:20;mem:10240;ports:[31000-32000]").Proto()
	for i := range agents {
		sub := &agentlink.Subscribe{Agent: &mesos.AgentInfo{
			Hostname: proto.String(fmt.Sprintf("h%d", i)), Resources: total, Id: &mesos.AgentID{Value: proto.String(fmt.Sprintf("S%d", i))},
		}}
		for k := range tasksPerAgent {
			sub.Tasks = append(sub.Tasks, &mesos.Task{
				Name: proto.String("t"), TaskId: &mesos.TaskID{Value: proto.String(fmt.Sprintf("t-%d-%d", i, k))}, FrameworkId: f,
				AgentId: sub.Agent.Id, State: task.Running.Enum(), Resources: res,
			})
		}
		if _, _, err := c.SubscribeAgent(t.Context(), sub); err != nil {
			t.Fatal(err)
		}
	}
	return c, f
}

func TestSnapshotIsStable(t *testing.T) {
	c, f := fill(t, 2, 2)
	before := c.Snapshot()
	if c.Snapshot() != before {
		t.Error("nothing changed, and yet there is another snapshot")
	}
	st := task.Failed
	c.Update("S0", &agentlink.StatusUpdate{FrameworkId: f, Status: &mesos.TaskStatus{
		TaskId: &mesos.TaskID{Value: proto.String("t-0-0")}, State: st.Enum(), Uuid: []byte("0123456789abcdef"),
	}})
	count := func(s *core.Snapshot, st task.State) (n int) {
		for _, k := range s.Frameworks[0].Tasks {
			if k.GetState() == st {
				n++
			}
		}
		return n
	}
	after := c.Snapshot()
	if count(before, task.Running) != 4 || count(after, task.Running) != 3 || count(after, task.Failed) != 1 {
		t.Errorf("running before %d, after %d", count(before, task.Running), count(after, task.Running))
	}
	if used := after.Agents[0].Used.Scalar("cpus"); used != 100 {
		t.Errorf("a failed task still uses cpus: %s", used)
	}
}

// TestDuplicateUpdates: what an agent sends again changes nothing.
func TestDuplicateUpdates(t *testing.T) {
	c, f := fill(t, 1, 1)
	u := func() *agentlink.StatusUpdate {
		return &agentlink.StatusUpdate{FrameworkId: f, Status: &mesos.TaskStatus{
			TaskId: &mesos.TaskID{Value: proto.String("t-0-0")}, State: task.Killing.Enum(), Uuid: []byte("0123456789abcdef"),
		}}
	}
	c.Update("S0", u())
	one := c.Snapshot()
	c.Update("S0", u())
	late := u()
	late.Status.State, late.Status.Uuid = task.Running.Enum(), []byte("fedcba9876543210")
	c.Update("S0", late)
	if got := c.Snapshot().Frameworks[0].Tasks[0]; got.GetState() != task.Killing || len(one.Frameworks[0].Tasks[0].Statuses) != 1 {
		t.Errorf("after a late report: %v", got)
	}
}

// TestNoStreamsAfterTheTerm: whoever subscribes late must not be kept by a
// master that does not lead.
func TestNoStreamsAfterTheTerm(t *testing.T) {
	c, f := fill(t, 1, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c.Run(ctx)
	_, _, err := c.SubscribeAgent(t.Context(), &agentlink.Subscribe{Agent: &mesos.AgentInfo{Hostname: proto.String("h")}})
	if !fault.Is(err, fault.Unavailable) {
		t.Errorf("agent: %v", err)
	}
	_, _, err = c.SubscribeFramework(t.Context(), &scheduler.Call_Subscribe{FrameworkInfo: &mesos.FrameworkInfo{
		Id: f, User: proto.String("root"), Name: proto.String("f"), FailoverTimeout: proto.Float64(1e6)}}, wire.JSON)
	if !fault.Is(err, fault.Unavailable) {
		t.Errorf("framework: %v", err)
	}
	if s := c.Watch(wire.JSON, func(*core.Snapshot) proto.Message { return &mesos.TaskID{Value: proto.String("")} }); s.Send(&mesos.TaskID{}) {
		t.Error("operator: the stream is open")
	}
}

func BenchmarkScale(b *testing.B) {
	const agents, perAgent = 10_000, 10
	var c *core.Core
	var f *mesos.FrameworkID
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	t0 := time.Now()
	c, f = fill(b, agents, perAgent)
	took := time.Since(t0)
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.Logf("figure fail-over: %d agents with %d tasks re-registered in %v; heap %d MB; Mesos 1.5: 4.5 s for 10,000 agents (40,000: 19 s) on another machine",
		agents, agents*perAgent, took, (after.HeapAlloc-before.HeapAlloc)>>20)
	b.Run("update", func(b *testing.B) {
		i := 0
		for b.Loop() {
			c.Update(task.AgentID(fmt.Sprintf("S%d", i%agents)), &agentlink.StatusUpdate{FrameworkId: f, Status: &mesos.TaskStatus{
				TaskId: &mesos.TaskID{Value: proto.String(fmt.Sprintf("t-%d-%d", i%agents, i%perAgent))}, State: task.Running.Enum(),
				Uuid: fmt.Appendf(nil, "%016d", i),
			}})
			i++
		}
	})
	b.Run("snapshot", func(b *testing.B) {
		for b.Loop() {
			c.Suppress(task.FrameworkID(f.GetValue()), nil) // a change
			c.CollectSnapshot()
		}
		b.Logf("figure snapshot: %.1f ms under the mutex for %d agents and %d tasks", float64(b.Elapsed())/float64(b.N)/1e6, agents, agents*perAgent)
	})
}
