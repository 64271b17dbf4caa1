package core_test

import (
	"cmp"
	"fmt"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"dcos.example/dcos/runtime/api/agentlink"
	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/scheduler"
	"dcos.example/dcos/runtime/api/wire"
	"dcos.example/dcos/runtime/master/core"
	"dcos.example/dcos/runtime/resource"
	"dcos.example/dcos/runtime/task"
)

const base = "cpus:4;mem:1000;disk:100;cpus(r):1"

// node is an agent with its disk.
type node struct {
	id   task.AgentID
	kept *agentlink.CheckpointResources
}

// world drives a master as frameworks, agents and an operator do.
type world struct {
	t          *rapid.T
	c          *core.Core
	frameworks []task.FrameworkID
	nodes      []*node
	n          int
}

func (w *world) id(prefix string) string {
	w.n++
	return fmt.Sprint(prefix, w.n)
}

func (w *world) subscribe(n *node) {
	sub := &agentlink.Subscribe{
		Agent:    &mesos.AgentInfo{Id: &mesos.AgentID{Value: proto.String(string(n.id))}, Hostname: proto.String(string(n.id)), Resources: resource.MustParse(base).Proto()},
		Endpoint: proto.String(string(n.id) + ":1"), CheckpointedResources: n.kept.Resources, Operations: n.kept.Operations,
		Capabilities: []*mesos.AgentInfo_Capability{{Type: mesos.AgentInfo_Capability_AGENT_OPERATION_FEEDBACK.Enum()}},
	}
	kept, err := resource.FromProto(n.kept.Resources)
	if err != nil {
		w.t.Fatal(err)
	}
	has := resource.MustParse(base).Sub(kept.Configured()).Add(kept)
	for _, x := range w.tasks() { // those that the agent does not refuse
		use, err := resource.FromProto(x.Resources)
		if err != nil {
			w.t.Fatal(err)
		}
		if use = use.Unallocate(); x.GetAgentId().GetValue() == string(n.id) && !task.Terminal(x.GetState()) && has.Contains(use) {
			has = has.Sub(use.Exclusive())
			sub.Tasks = append(sub.Tasks, x)
		}
	}
	if _, _, err := w.c.SubscribeAgent(w.t.Context(), sub); err != nil {
		w.t.Fatal(err)
	}
}

// tasks lists all tasks in the order they were launched in.
func (w *world) tasks() (out []*mesos.Task) {
	for _, f := range w.c.Snapshot().Frameworks {
		out = append(out, f.Tasks...)
	}
	slices.SortFunc(out, func(a, b *mesos.Task) int { return byNumber(a.TaskId.GetValue(), b.TaskId.GetValue()) })
	return out
}

// byNumber orders ids that differ in the number at their end.
func byNumber(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) }

// operations are some on the resources of an offer, sensible or not.
func (w *world) operations(role string, of resource.Resources) (ops []*mesos.Offer_Operation) {
	t := w.t
	for range rapid.IntRange(1, 4).Draw(t, "operations") {
		items := slices.Collect(of.All())
		it := items[rapid.IntRange(0, len(items)-1).Draw(t, "item")]
		r := resource.Of(it)
		op := &mesos.Offer_Operation{}
		if rapid.Bool().Draw(t, "feedback") {
			op.Id = &mesos.OperationID{Value: proto.String(w.id("op"))}
		}
		switch kind := rapid.IntRange(0, 4).Draw(t, "kind"); {
		case kind == 0:
			to, err := r.Push(resource.Reservation{Role: role})
			if err != nil {
				continue
			}
			op.Type, op.Reserve = mesos.Offer_Operation_RESERVE.Enum(), &mesos.Offer_Operation_Reserve{Resources: to.Proto()}
			of = of.Sub(r).Add(to)
		case kind == 1:
			op.Type, op.Unreserve = mesos.Offer_Operation_UNRESERVE.Enum(), &mesos.Offer_Operation_Unreserve{Resources: r.Proto()}
			if to, err := r.Pop(); err == nil {
				of = of.Sub(r).Add(to)
			}
		case kind == 2 && it.VolumeID() == "" && it.Name() == resource.Disk:
			p := proto.CloneOf(r.Proto()[0])
			p.Disk = &mesos.Resource_DiskInfo{
				Persistence: &mesos.Resource_DiskInfo_Persistence{Id: proto.String(w.id("v"))},
				Volume:      &mesos.Volume{ContainerPath: proto.String("x"), Mode: mesos.Volume_RW.Enum()},
			}
			if rapid.Bool().Draw(t, "shared") {
				p.Shared = &mesos.Resource_SharedInfo{}
			}
			op.Type, op.Create = mesos.Offer_Operation_CREATE.Enum(), &mesos.Offer_Operation_Create{Volumes: []*mesos.Resource{p}}
			if to, err := resource.FromProto(op.Create.Volumes); err == nil {
				of = of.Sub(r).Add(to)
			}
		case kind == 3:
			op.Type, op.Destroy = mesos.Offer_Operation_DESTROY.Enum(), &mesos.Offer_Operation_Destroy{Volumes: r.Proto()}
			of = of.Sub(r).Add(r.WithoutVolumes())
		default:
			op.Type, op.Id = mesos.Offer_Operation_LAUNCH.Enum(), nil
			op.Launch = &mesos.Offer_Operation_Launch{TaskInfos: []*mesos.TaskInfo{{
				Name: proto.String("t"), TaskId: &mesos.TaskID{Value: proto.String(w.id("t"))}, Resources: r.Proto(), Command: &mesos.CommandInfo{Value: proto.String("x")},
			}}}
			of = of.Sub(r.Exclusive())
		}
		ops = append(ops, op)
		if of.Empty() {
			break
		}
	}
	return ops
}

func (w *world) accept() {
	var offers []*mesos.Offer
	for _, f := range w.c.Snapshot().Frameworks {
		offers = append(offers, f.Offers...)
	}
	if len(offers) == 0 {
		return
	}
	slices.SortFunc(offers, func(a, b *mesos.Offer) int { return byNumber(a.Id.GetValue(), b.Id.GetValue()) })
	o := offers[rapid.IntRange(0, len(offers)-1).Draw(w.t, "offer")]
	rs, err := resource.FromProto(o.Resources)
	if err != nil {
		w.t.Fatal(err)
	}
	ops := w.operations(o.AllocationInfo.GetRole(), rs)
	for _, op := range ops {
		for _, x := range op.GetLaunch().GetTaskInfos() {
			x.AgentId = o.AgentId
		}
	}
	w.c.Accept(task.FrameworkID(o.FrameworkId.GetValue()), &scheduler.Call_Accept{OfferIds: []*mesos.OfferID{o.Id}, Operations: ops})
}

// finish ends a task.
func (w *world) finish() {
	if ts := w.tasks(); len(ts) > 0 {
		x := ts[rapid.IntRange(0, len(ts)-1).Draw(w.t, "task")]
		w.c.Update(task.AgentID(x.AgentId.GetValue()), &agentlink.StatusUpdate{FrameworkId: x.FrameworkId, Status: &mesos.TaskStatus{
			TaskId: x.TaskId, State: mesos.TaskState_TASK_FINISHED.Enum(), AgentId: x.AgentId,
		}})
	}
}

// TestBooksOfOperations: whatever happens, what an agent has is free, offered or
// used, once, and an agent that says what it has is believed.
func TestBooksOfOperations(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{t: t, c: newCore(t)}
		for i, role := range []string{"r", "r/x", "s"} {
			info := &mesos.FrameworkInfo{User: proto.String("u"), Name: proto.String("f"), Roles: []string{role}, FailoverTimeout: proto.Float64(1e6)}
			for _, c := range []mesos.FrameworkInfo_Capability_Type{mesos.FrameworkInfo_Capability_MULTI_ROLE, mesos.FrameworkInfo_Capability_RESERVATION_REFINEMENT, mesos.FrameworkInfo_Capability_SHARED_RESOURCES} {
				if i != 2 || c != mesos.FrameworkInfo_Capability_SHARED_RESOURCES {
					info.Capabilities = append(info.Capabilities, &mesos.FrameworkInfo_Capability{Type: c.Enum()})
				}
			}
			id, _, err := w.c.SubscribeFramework(t.Context(), &scheduler.Call_Subscribe{FrameworkInfo: info}, wire.Protobuf)
			if err != nil {
				t.Fatal(err)
			}
			w.frameworks = append(w.frameworks, id)
		}
		for i := range 2 {
			n := &node{id: task.AgentID(fmt.Sprint("a", i)), kept: &agentlink.CheckpointResources{}}
			w.nodes = append(w.nodes, n)
			w.subscribe(n)
		}
		for range rapid.IntRange(1, 50).Draw(t, "events") {
			n := w.nodes[rapid.IntRange(0, 1).Draw(t, "agent")]
			switch rapid.IntRange(0, 9).Draw(t, "event") {
			case 0, 1, 2, 3:
				w.accept()
			case 4:
				w.finish()
			case 5: // it is on disk
				n.kept = w.c.ToKeep(n.id)
				w.c.Checkpointed(n.id, &agentlink.ResourcesCheckpointed{Version: n.kept.Version})
			case 6: // it cannot be written, and the agent comes again
				w.c.Checkpointed(n.id, &agentlink.ResourcesCheckpointed{Version: w.c.ToKeep(n.id).Version, Error: proto.String("disk full")})
				w.subscribe(n)
			case 7: // the connection broke, after the document arrived or before
				if rapid.Bool().Draw(t, "arrived") {
					n.kept = w.c.ToKeep(n.id)
				}
				w.subscribe(n)
			case 8:
				op := &mesos.Offer_Operation{Type: mesos.Offer_Operation_RESERVE.Enum()}
				r, err := resource.MustParse("disk:10").Push(resource.Reservation{Role: rapid.SampledFrom([]string{"r", "r/x", "s"}).Draw(t, "role")})
				if err != nil {
					t.Fatal(err)
				}
				op.Reserve = &mesos.Offer_Operation_Reserve{Resources: r.Proto()}
				_ = w.c.Operate(t.Context(), n.id, op) // may be refused
			case 9:
				w.c.SweepOperations()
				for _, o := range w.c.Snapshot().Operations {
					if s := o.LatestStatus; s.Uuid != nil && o.FrameworkId != nil {
						w.c.AcknowledgeOperation(task.FrameworkID(o.FrameworkId.GetValue()), &scheduler.Call_AcknowledgeOperationStatus{Uuid: s.Uuid.GetValue(), OperationId: s.OperationId, AgentId: s.AgentId})
					}
				}
			}
			w.c.AllocateNow()
			if err := w.c.CheckBooks(); err != nil {
				t.Fatal(err)
			}
			for _, a := range w.c.Snapshot().Agents {
				if now := a.Total.Configured(); !now.Equal(resource.MustParse(base)) {
					t.Fatalf("agent %s has %v, which is %v", a.Info.GetId().GetValue(), a.Total, now)
				}
			}
		}
		for _, n := range w.nodes {
			w.subscribe(n)
			kept, err := resource.FromProto(n.kept.Resources)
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range w.c.Snapshot().Agents {
				if a.Info.GetId().GetValue() == string(n.id) && !a.Total.Checkpointed().Equal(kept) {
					t.Fatalf("agent %s has kept %v, and has %v", n.id, kept, a.Total)
				}
			}
		}
	})
}
