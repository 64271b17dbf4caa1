package master_test

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/api/agentlink"
	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/master"
	"dcos.example/dcos/runtime/api/mesos/scheduler"
	"dcos.example/dcos/runtime/api/wire"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/leader"
	dcosmaster "dcos.example/dcos/runtime/master"
	"dcos.example/dcos/runtime/resource"
	"dcos.example/dcos/runtime/state/memory"
)

//lint:file-ignore SA1019 Frameworks without the newer capabilities use the older fields.

var formats = []wire.Format{wire.JSON, wire.Protobuf}

const small = "cpus:4;mem:1024;disk:1000;ports:[31000-31009]"

// TestTaskLife follows one task from offer to acknowledged end, in both
// formats, and what agent, framework and operator see of it.
func TestTaskLife(t *testing.T) {
	for _, format := range formats {
		t.Run(format.String(), func(t *testing.T) {
			c := newCluster(t)
			events := c.watch(format)
			next(t, events, "SUBSCRIBED", func(e *master.Event) bool { return e.GetType() == master.Event_SUBSCRIBED })
			f := c.subscribed(format, frameworkInfo(nil))
			f.event(scheduler.Event_HEARTBEAT)
			a := c.agent(agentInfo("h1", small))
			next(t, events, "AGENT_ADDED", func(e *master.Event) bool {
				return e.GetAgentAdded().GetAgent().GetAgentInfo().GetId().GetValue() == a.id.GetValue()
			})

			o := f.offer()
			if o.GetHostname() != "h1" || o.GetAllocationInfo().GetRole() != "test" || o.GetUrl().GetAddress().GetIp() != "h1" {
				t.Errorf("offer: %v", o)
			}
			f.accept([]*mesos.OfferID{o.Id}, launchOp(taskInfo(o, "t1", "cpus:1;mem:64;ports:[31000-31000]")))
			run := a.receive("RunTask", func(d *agentlink.Downlink) bool { return d.RunTask != nil }).RunTask
			if run.Task.Resources[0].GetAllocationInfo().GetRole() != "test" || run.Framework.GetId().GetValue() != f.id.GetValue() {
				t.Errorf("RunTask: %v", run)
			}
			next(t, events, "TASK_ADDED", func(e *master.Event) bool {
				return e.GetTaskAdded().GetTask().GetState() == mesos.TaskState_TASK_STAGING
			})
			rest := f.offer()
			if got, _ := resource.FromProto(rest.Resources); got.Scalar("cpus") != 3*resource.Unit || got.Ports().Has(31000) {
				t.Errorf("the rest is offered at once: %v", got)
			}

			a.update(f.id, "t1", mesos.TaskState_TASK_RUNNING, func(s *mesos.TaskStatus) {
				s.Healthy = proto.Bool(true)
				s.Data = []byte{1, 2}
				s.ContainerStatus = &mesos.ContainerStatus{ContainerId: &mesos.ContainerID{Value: proto.String("c1")}}
			})
			running := f.status("t1", mesos.TaskState_TASK_RUNNING)
			if string(running.Data) != "\x01\x02" || len(running.Uuid) != 16 {
				t.Errorf("status: %v", running)
			}
			up := next(t, events, "TASK_UPDATED", func(e *master.Event) bool { return e.GetType() == master.Event_TASK_UPDATED }).TaskUpdated
			if up.GetState() != mesos.TaskState_TASK_RUNNING || !up.Status.GetHealthy() || up.Status.GetContainerStatus().GetContainerId().GetValue() != "c1" {
				t.Errorf("TASK_UPDATED: %v", up)
			}
			f.acknowledge(running)
			ack := a.receive("Acknowledge", func(d *agentlink.Downlink) bool { return d.Acknowledge != nil }).Acknowledge
			if string(ack.Uuid) != string(running.Uuid) {
				t.Error("another uuid is acknowledged")
			}

			f.call(&scheduler.Call{Type: scheduler.Call_KILL.Enum(), Kill: &scheduler.Call_Kill{TaskId: running.TaskId}})
			a.receive("KillTask", func(d *agentlink.Downlink) bool { return d.GetKillTask().GetTaskId().GetValue() == "t1" })
			f.call(&scheduler.Call{Type: scheduler.Call_DECLINE.Enum(), Decline: &scheduler.Call_Decline{OfferIds: []*mesos.OfferID{rest.Id}}})
			a.update(f.id, "t1", mesos.TaskState_TASK_KILLED, nil)
			killed := f.status("t1", mesos.TaskState_TASK_KILLED)
			whole := f.offer() // before the acknowledgement, and in spite of the filter on less
			if got, _ := resource.FromProto(whole.Resources); got.Scalar("cpus") != 4*resource.Unit {
				t.Errorf("after the end all is offered: %v", got)
			}
			tasks := c.operate(format, &master.Call{Type: master.Call_GET_TASKS.Enum()}).GetTasks
			if len(tasks.Tasks) != 1 || tasks.Tasks[0].GetState() != mesos.TaskState_TASK_KILLED {
				t.Errorf("before the acknowledgement: %v", tasks)
			}
			f.acknowledge(killed)
			tasks = c.operate(format, &master.Call{Type: master.Call_GET_TASKS.Enum()}).GetTasks
			if len(tasks.Tasks) != 0 || len(tasks.CompletedTasks) != 1 {
				t.Errorf("after the acknowledgement: %v", tasks)
			}
		})
	}
}

func TestSchedulerStatusCodes(t *testing.T) {
	c := newCluster(t)
	js := map[string]string{"Content-Type": "application/json"}
	for name, tc := range map[string]struct {
		header map[string]string
		body   string
		code   int
		says   string
	}{
		"no content type":   {nil, "{}", 400, "Expecting 'Content-Type' to be present"},
		"charset":           {map[string]string{"Content-Type": "application/json; charset=utf-8"}, "{}", 415, ""},
		"not JSON":          {js, "{", 400, "Failed to parse body into JSON"},
		"not a call":        {js, `{"subscribe":{"framework_info":{}}}`, 400, "Failed to convert JSON into Call protobuf"},
		"not protobuf":      {map[string]string{"Content-Type": "application/x-protobuf"}, "\xff\xff", 400, "Failed to parse body into Call protobuf"},
		"no type":           {js, "{}", 400, "Failed to validate scheduler::Call: Expecting 'type' to be present"},
		"no subscribe":      {js, `{"type":"SUBSCRIBE"}`, 400, "Expecting 'subscribe' to be present"},
		"no framework id":   {js, `{"type":"REVIVE"}`, 400, "Expecting 'framework_id' to be present"},
		"no kill":           {js, `{"type":"KILL","framework_id":{"value":"x"}}`, 400, "Expecting 'kill' to be present"},
		"short uuid":        {js, `{"type":"ACKNOWLEDGE","framework_id":{"value":"x"},"acknowledge":{"agent_id":{"value":"a"},"task_id":{"value":"t"},"uuid":"AAAA"}}`, 400, "not a valid UUID"},
		"ids differ":        {js, `{"type":"SUBSCRIBE","framework_id":{"value":"x"},"subscribe":{"framework_info":{"user":"u","name":"n","id":{"value":"y"}}}}`, 400, "differs"},
		"unknown framework": {js, `{"type":"REVIVE","framework_id":{"value":"x"}}`, 400, "Framework cannot be found"},
		"not acceptable": {map[string]string{"Content-Type": "application/json", "Accept": "text/html"},
			`{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"u","name":"n"}}}`, 406, ""},
		"stream id on subscribe": {map[string]string{"Content-Type": "application/json", "Mesos-Stream-Id": "x"},
			`{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"u","name":"n"}}}`, 400, "should not include"},
	} {
		code, body, _ := c.post("/master/api/v1/scheduler", tc.header, []byte(tc.body))
		if code != tc.code || !strings.Contains(body, tc.says) {
			t.Errorf("%s: %d %q, want %d %q", name, code, body, tc.code, tc.says)
		}
	}
	resp, err := http.Get(c.url + "/api/v1/scheduler")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 405 || resp.Header.Get("Allow") != "POST" {
		t.Errorf("GET: %s, Allow %q", resp.Status, resp.Header.Get("Allow"))
	}

	f := c.subscribed(wire.JSON, frameworkInfo(nil))
	revive := &scheduler.Call{Type: scheduler.Call_REVIVE.Enum()}
	if code, _ := f.try(revive, ""); code != 400 {
		t.Errorf("without stream id: %d", code)
	}
	if code, _ := f.try(revive, "other"); code != 400 {
		t.Errorf("wrong stream id: %d", code)
	}
	f.hangup()
	eventually(t, "403 after the stream ended", func() bool {
		code, body := f.try(revive, f.stream)
		return code == 403 && body == "Framework is not subscribed"
	})
}

func TestSubscriptionsThatMakeNoSense(t *testing.T) {
	c := newCluster(t)
	f := c.subscribed(wire.JSON, frameworkInfo(func(f *mesos.FrameworkInfo) { f.Principal = proto.String("p") }))
	for name, tc := range map[string]struct {
		edit func(*mesos.FrameworkInfo)
		says string
	}{
		"bad role":          {func(f *mesos.FrameworkInfo) { f.Roles = []string{"a b"} }, "whitespace"},
		"duplicate role":    {func(f *mesos.FrameworkInfo) { f.Roles = []string{"a", "a"} }, "duplicate role"},
		"role and roles":    {func(f *mesos.FrameworkInfo) { f.Role = proto.String("a") }, "MULTI_ROLE"},
		"negative failover": {func(f *mesos.FrameworkInfo) { f.FailoverTimeout = proto.Float64(-1) }, "failover_timeout"},
		"other principal":   {func(i *mesos.FrameworkInfo) { i.Id, i.Principal = f.id, proto.String("q") }, "principal"},
	} {
		got := c.subscribe(wire.Protobuf, frameworkInfo(tc.edit))
		e := next(t, got.events, "ERROR", func(*scheduler.Event) bool { return true })
		if e.GetType() != scheduler.Event_ERROR || !strings.Contains(e.Error.GetMessage(), tc.says) {
			t.Errorf("%s: %v, want an ERROR about %q", name, e, tc.says)
		}
		if _, open := <-got.events; open {
			t.Errorf("%s: the stream goes on", name)
		}
	}
	f.call(&scheduler.Call{Type: scheduler.Call_TEARDOWN.Enum()})
	got := c.subscribe(wire.JSON, frameworkInfo(func(i *mesos.FrameworkInfo) { i.Id, i.Principal = f.id, proto.String("p") }))
	if e := got.event(scheduler.Event_ERROR); e.Error.GetMessage() != "Framework has been removed" {
		t.Errorf("after teardown: %v", e)
	}
}

func TestInvalidTasksAndOffers(t *testing.T) {
	c := newCluster(t)
	f := c.subscribed(wire.Protobuf, frameworkInfo(nil))
	c.agent(agentInfo("h1", small))
	o := f.offer()
	both := taskInfo(o, "both", "cpus:1")
	both.Executor = &mesos.ExecutorInfo{ExecutorId: &mesos.ExecutorID{Value: proto.String("e")}}
	f.accept([]*mesos.OfferID{o.Id}, launchOp(
		taskInfo(o, "a/b", "cpus:1"), taskInfo(o, "much", "cpus:5"), taskInfo(o, "none", ""), both,
		taskInfo(o, "fine", "cpus:1"), taskInfo(o, "fine", "cpus:1"),
	), &mesos.Offer_Operation{Type: mesos.Offer_Operation_LAUNCH_GROUP.Enum(), LaunchGroup: &mesos.Offer_Operation_LaunchGroup{
		Executor: &mesos.ExecutorInfo{ExecutorId: &mesos.ExecutorID{Value: proto.String("g")}}, TaskGroup: &mesos.TaskGroupInfo{Tasks: []*mesos.TaskInfo{taskInfo(o, "grouped", "cpus:1")}},
	}})
	for _, id := range []string{"a/b", "much", "none", "both", "fine", "grouped"} {
		s := f.status(id, mesos.TaskState_TASK_ERROR)
		if s.GetSource() != mesos.TaskStatus_SOURCE_MASTER || len(s.Uuid) != 0 || s.GetMessage() == "" {
			t.Errorf("%s: %v", id, s)
		}
		want := mesos.TaskStatus_REASON_TASK_INVALID
		if id == "grouped" {
			want = mesos.TaskStatus_REASON_TASK_GROUP_INVALID
		}
		if s.GetReason() != want {
			t.Errorf("%s: reason %s", id, s.GetReason())
		}
	}
	// The offer is used up: a launch with it is dropped, old words for old frameworks.
	f.accept([]*mesos.OfferID{o.Id}, launchOp(taskInfo(o, "late", "cpus:1")))
	if s := f.status("late", mesos.TaskState_TASK_DROPPED); s.GetReason() != mesos.TaskStatus_REASON_INVALID_OFFERS {
		t.Errorf("late: %v", s)
	}
	old := c.subscribed(wire.JSON, &mesos.FrameworkInfo{User: proto.String("u"), Name: proto.String("old")})
	old.accept([]*mesos.OfferID{o.Id}, launchOp(taskInfo(o, "late", "cpus:1")))
	old.status("late", mesos.TaskState_TASK_LOST)
}

func TestLegacyFrameworkSeesLegacyResources(t *testing.T) {
	c := newCluster(t)
	f := c.subscribed(wire.JSON, &mesos.FrameworkInfo{User: proto.String("u"), Name: proto.String("old"), Role: proto.String("web")})
	c.agent(agentInfo("h1", "cpus(web):1;cpus:1;mem:128"))
	o := f.offer()
	if o.AllocationInfo != nil {
		t.Error("allocation_info without MULTI_ROLE")
	}
	roles := map[string]int{}
	for _, r := range o.Resources {
		if r.AllocationInfo != nil || len(r.Reservations) != 0 {
			t.Errorf("resource in a form the framework does not know: %v", r)
		}
		roles[r.GetRole()]++
	}
	if roles["web"] != 1 || roles["*"] != 2 {
		t.Errorf("roles: %v", roles)
	}
	x := taskInfo(o, "t", "")
	x.Resources = o.Resources
	f.accept([]*mesos.OfferID{o.Id}, launchOp(x))
	eventually(t, "task of legacy resources", func() bool {
		return len(c.operate(wire.JSON, &master.Call{Type: master.Call_GET_TASKS.Enum()}).GetTasks.Tasks) == 1
	})
}

func TestReserveCreateLaunchInOneAccept(t *testing.T) {
	c := newCluster(t)
	f := c.subscribed(wire.Protobuf, frameworkInfo(func(f *mesos.FrameworkInfo) { f.Principal = proto.String("p") }))
	a := c.agent(agentInfo("h1", small))
	o := f.offer()
	reserved, err := resource.MustParse("cpus:1;disk:100").Push(resource.Reservation{Role: "test", Principal: "p"})
	if err != nil {
		t.Fatal(err)
	}
	var volume *mesos.Resource
	for _, r := range reserved.Proto() {
		if r.GetName() == "disk" {
			volume = proto.CloneOf(r)
			volume.Disk = &mesos.Resource_DiskInfo{
				Persistence: &mesos.Resource_DiskInfo_Persistence{Id: proto.String("v1"), Principal: proto.String("p")},
				Volume:      &mesos.Volume{ContainerPath: proto.String("data"), Mode: mesos.Volume_RW.Enum()},
			}
		}
	}
	x := taskInfo(o, "db", "mem:64")
	x.Resources = append(x.Resources, volume)
	for _, r := range reserved.Proto() {
		if r.GetName() == "cpus" {
			x.Resources = append(x.Resources, r)
		}
	}
	f.accept([]*mesos.OfferID{o.Id},
		&mesos.Offer_Operation{Type: mesos.Offer_Operation_RESERVE.Enum(), Id: &mesos.OperationID{Value: proto.String("op1")}, Reserve: &mesos.Offer_Operation_Reserve{Resources: reserved.Proto()}},
		&mesos.Offer_Operation{Type: mesos.Offer_Operation_CREATE.Enum(), Create: &mesos.Offer_Operation_Create{Volumes: []*mesos.Resource{volume}}},
		launchOp(x),
	)
	if s := f.event(scheduler.Event_UPDATE_OPERATION_STATUS).UpdateOperationStatus.Status; s.GetState() != mesos.OperationState_OPERATION_FINISHED {
		t.Errorf("RESERVE: %v", s)
	}
	a.receive("volume to checkpoint", func(d *agentlink.Downlink) bool {
		for _, r := range d.GetCheckpointResources().GetResources() {
			if r.GetDisk().GetPersistence().GetId() == "v1" {
				return true
			}
		}
		return false
	})
	a.receive("RunTask", func(d *agentlink.Downlink) bool { return d.RunTask != nil })
	a.update(f.id, "db", mesos.TaskState_TASK_FINISHED, nil)
	f.acknowledge(f.status("db", mesos.TaskState_TASK_FINISHED))
	eventually(t, "the volume is offered again to its role", func() bool {
		s := c.operate(wire.JSON, &master.Call{Type: master.Call_GET_AGENTS.Enum()}).GetAgents.Agents[0]
		total, _ := resource.FromProto(s.OfferedResources)
		return total.Reserved("test").Scalar("disk") == 100*resource.Unit
	})
	// The agent comes back with its checkpoint: the volume is still there.
	a.hangup()
	a.connect()
	eventually(t, "reservations survive", func() bool {
		s := c.operate(wire.JSON, &master.Call{Type: master.Call_GET_AGENTS.Enum()}).GetAgents.Agents[0]
		for _, r := range s.TotalResources {
			if r.GetDisk().GetPersistence().GetId() == "v1" {
				return true
			}
		}
		return false
	})
}

// TestPartition lets an agent go silent, and come back.
func TestPartition(t *testing.T) {
	c := newCluster(t)
	events := c.watch(wire.JSON)
	f := c.subscribed(wire.JSON, frameworkInfo(nil))
	a := c.agent(agentInfo("h1", small))
	o := f.offer()
	f.accept([]*mesos.OfferID{o.Id}, launchOp(taskInfo(o, "stays", "cpus:1"), taskInfo(o, "dies", "cpus:1")))
	rest := f.offer()
	a.hangup()
	if r := f.event(scheduler.Event_RESCIND).Rescind; r.OfferId.GetValue() != rest.Id.GetValue() {
		t.Errorf("rescinded %v", r)
	}
	for _, id := range []string{"stays", "dies"} {
		seen := next(t, events, id+" unreachable", func(e *master.Event) bool {
			return e.GetTaskUpdated().GetStatus().GetTaskId().GetValue() != "" && e.TaskUpdated.GetState() == mesos.TaskState_TASK_UNREACHABLE
		})
		if seen.TaskUpdated.Status.UnreachableTime == nil {
			t.Errorf("%v", seen)
		}
	}
	next(t, events, "AGENT_REMOVED", func(e *master.Event) bool { return e.GetAgentRemoved().GetAgentId().GetValue() == a.id.GetValue() })
	if e := f.event(scheduler.Event_FAILURE).Failure; e.AgentId.GetValue() != a.id.GetValue() || e.ExecutorId != nil {
		t.Errorf("FAILURE: %v", e)
	}
	f.call(&scheduler.Call{Type: scheduler.Call_RECONCILE.Enum(), Reconcile: &scheduler.Call_Reconcile{Tasks: []*scheduler.Call_Reconcile_Task{
		{TaskId: &mesos.TaskID{Value: proto.String("stays")}, AgentId: a.id}, {TaskId: &mesos.TaskID{Value: proto.String("never")}, AgentId: a.id},
		{TaskId: &mesos.TaskID{Value: proto.String("nowhere")}, AgentId: &mesos.AgentID{Value: proto.String("?")}},
	}}})
	f.status("stays", mesos.TaskState_TASK_UNREACHABLE)
	f.status("never", mesos.TaskState_TASK_UNREACHABLE)
	f.status("nowhere", mesos.TaskState_TASK_UNKNOWN)

	id := a.id.GetValue()
	a.sub.Tasks = []*mesos.Task{{
		Name: proto.String("stays"), TaskId: &mesos.TaskID{Value: proto.String("stays")}, FrameworkId: f.id, AgentId: a.id,
		State: mesos.TaskState_TASK_RUNNING.Enum(), Resources: resource.MustParse("cpus:1").Allocate("test").Proto(),
	}}
	a.connect()
	if a.id.GetValue() != id {
		t.Errorf("the agent came back as %s, was %s", a.id.GetValue(), id)
	}
	if s := f.status("stays", mesos.TaskState_TASK_RUNNING); s.GetReason() != mesos.TaskStatus_REASON_AGENT_REREGISTERED || len(s.Uuid) != 0 {
		t.Errorf("back: %v", s)
	}
	f.status("dies", mesos.TaskState_TASK_GONE)
	if got, _ := resource.FromProto(f.offer().Resources); got.Scalar("cpus") != 3*resource.Unit {
		t.Errorf("offered beside the task that stays: %v", got)
	}
}

func TestReconnectKeepsTasksAndReplacesTheStream(t *testing.T) {
	c := newCluster(t)
	f := c.subscribed(wire.JSON, frameworkInfo(nil))
	a := c.agent(agentInfo("h1", small))
	o := f.offer()
	f.accept([]*mesos.OfferID{o.Id}, launchOp(taskInfo(o, "t1", "cpus:1"), taskInfo(o, "t2", "cpus:1")))
	old, oldStream := a.down, a.stream
	a.sub.Tasks = []*mesos.Task{{
		Name: proto.String("t1"), TaskId: &mesos.TaskID{Value: proto.String("t1")}, FrameworkId: f.id, AgentId: a.id, State: mesos.TaskState_TASK_RUNNING.Enum(),
	}}
	f.call(&scheduler.Call{Type: scheduler.Call_KILL.Enum(), Kill: &scheduler.Call_Kill{TaskId: &mesos.TaskID{Value: proto.String("t1")}}})
	a.connect()
	for range old { // ends: the master closed it
	}
	a.receive("the kill once more", func(d *agentlink.Downlink) bool { return d.GetKillTask().GetTaskId().GetValue() == "t1" })
	f.status("t2", mesos.TaskState_TASK_DROPPED) // launched into the void
	now := a.stream
	a.stream = oldStream
	if code, _ := a.send(&agentlink.Uplink{Pong: &agentlink.Pong{}}); code != http.StatusConflict {
		t.Errorf("call on the old stream: %d", code)
	}
	a.stream = now
	if code, _ := a.send(&agentlink.Uplink{Pong: &agentlink.Pong{}}); code != http.StatusAccepted {
		t.Errorf("call on the new stream: %d", code)
	}
}

func TestFrameworkFailover(t *testing.T) {
	c := newCluster(t)
	f := c.subscribed(wire.JSON, frameworkInfo(nil))
	a := c.agent(agentInfo("h1", small))
	o := f.offer()
	f.accept([]*mesos.OfferID{o.Id}, launchOp(taskInfo(o, "t1", "cpus:1")))
	a.receive("RunTask", func(d *agentlink.Downlink) bool { return d.RunTask != nil })
	sent := a.update(f.id, "t1", mesos.TaskState_TASK_RUNNING, nil)
	g := c.subscribed(wire.Protobuf, frameworkInfo(func(i *mesos.FrameworkInfo) {
		i.Id, i.User, i.Name = f.id, proto.String("other"), proto.String("renamed")
	}))
	if e := f.event(scheduler.Event_ERROR); e.Error.GetMessage() != "Framework failed over" {
		t.Errorf("old scheduler: %v", e)
	}
	for range f.events { // ends
	}
	if s := g.status("t1", mesos.TaskState_TASK_RUNNING); string(s.Uuid) != string(sent.Uuid) {
		t.Error("what nobody acknowledged is told to the new scheduler at once")
	}
	a.receive("UpdateFramework", func(d *agentlink.Downlink) bool { return d.GetUpdateFramework().GetFramework().GetName() == "renamed" })
	info := c.operate(wire.JSON, &master.Call{Type: master.Call_GET_FRAMEWORKS.Enum()}).GetFrameworks.Frameworks[0].FrameworkInfo
	if info.GetUser() != "root" || info.GetName() != "renamed" {
		t.Errorf("user stays, name changes: %v", info)
	}
	if code, _ := f.try(&scheduler.Call{Type: scheduler.Call_REVIVE.Enum()}, f.stream); code != 400 {
		t.Errorf("call of the old scheduler: %d", code)
	}
}

func TestFrameworkWithoutFailoverTimeoutEndsWithItsStream(t *testing.T) {
	c := newCluster(t)
	events := c.watch(wire.Protobuf)
	f := c.subscribed(wire.JSON, frameworkInfo(func(f *mesos.FrameworkInfo) { f.FailoverTimeout = nil }))
	a := c.agent(agentInfo("h1", small))
	o := f.offer()
	f.accept([]*mesos.OfferID{o.Id}, launchOp(taskInfo(o, "t1", "cpus:1")))
	f.hangup()
	a.receive("ShutdownFramework", func(d *agentlink.Downlink) bool {
		return d.GetShutdownFramework().GetFrameworkId().GetValue() == f.id.GetValue()
	})
	next(t, events, "task killed", func(e *master.Event) bool {
		return e.GetTaskUpdated().GetStatus().GetReason() == mesos.TaskStatus_REASON_FRAMEWORK_REMOVED
	})
	next(t, events, "FRAMEWORK_REMOVED", func(e *master.Event) bool { return e.GetType() == master.Event_FRAMEWORK_REMOVED })
	if fs := c.operate(wire.JSON, &master.Call{Type: master.Call_GET_FRAMEWORKS.Enum()}).GetFrameworks; len(fs.CompletedFrameworks) != 1 || len(fs.Frameworks) != 0 {
		t.Errorf("%v", fs)
	}
	// Late news of its tasks are acknowledged by the master.
	u := a.update(f.id, "t1", mesos.TaskState_TASK_KILLED, nil)
	a.receive("Acknowledge", func(d *agentlink.Downlink) bool { return string(d.GetAcknowledge().GetUuid()) == string(u.Uuid) })
}

// TestMasterFailover: a new leader on the same store knows agents and
// frameworks, and gets the tasks back from the agents.
func TestMasterFailover(t *testing.T) {
	first := newCluster(t)
	f := first.subscribed(wire.JSON, frameworkInfo(nil))
	a := first.agent(agentInfo("h1", small))
	b := first.agent(agentInfo("h2", small))
	o := f.offer()
	f.accept([]*mesos.OfferID{o.Id}, launchOp(taskInfo(o, "t1", "cpus:1")))
	on := map[string]*agent{a.id.GetValue(): a, b.id.GetValue(): b}[o.AgentId.GetValue()]
	on.receive("RunTask", func(d *agentlink.Downlink) bool { return d.RunTask != nil })
	first.stop()

	cfg := testConfig()
	cfg.AgentReregister = config.Duration(2 * time.Second)
	c := lead(t, first.store, cfg)
	events := c.watch(wire.JSON)
	st := next(t, events, "SUBSCRIBED", func(e *master.Event) bool { return e.GetType() == master.Event_SUBSCRIBED }).Subscribed.GetState
	if len(st.GetAgents.RecoveredAgents) != 2 || len(st.GetAgents.Agents) != 0 || len(st.GetFrameworks.Frameworks) != 1 || !st.GetFrameworks.Frameworks[0].GetRecovered() {
		t.Fatalf("after fail-over: %v", st)
	}
	f2 := c.subscribed(wire.JSON, frameworkInfo(func(i *mesos.FrameworkInfo) { i.Id = f.id }))
	if f2.id.GetValue() != f.id.GetValue() {
		t.Fatalf("framework became %s", f2.id.GetValue())
	}
	// While agents may come back nothing is said of their tasks; "gone" is the
	// answer that must not come first.
	f2.call(&scheduler.Call{Type: scheduler.Call_RECONCILE.Enum(), Reconcile: &scheduler.Call_Reconcile{Tasks: []*scheduler.Call_Reconcile_Task{
		{TaskId: &mesos.TaskID{Value: proto.String("t1")}, AgentId: on.id}}}})
	on.c = c
	on.sub.Tasks = []*mesos.Task{{
		Name: proto.String("t1"), TaskId: &mesos.TaskID{Value: proto.String("t1")}, FrameworkId: f.id, AgentId: on.id,
		State: mesos.TaskState_TASK_RUNNING.Enum(), Resources: resource.MustParse("cpus:1").Allocate("test").Proto(),
	}}
	id := on.id.GetValue()
	on.connect()
	if on.id.GetValue() != id {
		t.Errorf("agent became %s", on.id.GetValue())
	}
	next(t, events, "TASK_ADDED", func(e *master.Event) bool { return e.GetTaskAdded().GetTask().GetTaskId().GetValue() == "t1" })
	if got, _ := resource.FromProto(f2.offer().Resources); got.Scalar("cpus") != 3*resource.Unit {
		t.Errorf("offered beside the task: %v", got)
	}
	f2.call(&scheduler.Call{Type: scheduler.Call_RECONCILE.Enum(), Reconcile: &scheduler.Call_Reconcile{}})
	if s := f2.status("t1", mesos.TaskState_TASK_RUNNING); s.GetReason() != mesos.TaskStatus_REASON_RECONCILIATION {
		t.Errorf("reconciled: %v", s)
	}
	// The other agent does not come back.
	next(t, events, "AGENT_REMOVED", func(e *master.Event) bool { return e.GetAgentRemoved() != nil })
}

func TestMarkAgentGone(t *testing.T) {
	c := newCluster(t)
	f := c.subscribed(wire.JSON, frameworkInfo(nil))
	a := c.agent(agentInfo("h1", small))
	o := f.offer()
	f.accept([]*mesos.OfferID{o.Id}, launchOp(taskInfo(o, "t1", "cpus:1")))
	body := []byte(`{"type":"MARK_AGENT_GONE","mark_agent_gone":{"agent_id":{"value":"` + a.id.GetValue() + `"}}}`)
	code, text, h := c.post("/master/api/v1", map[string]string{"Content-Type": "application/json"}, body)
	if code != 200 || text != "" || h.Get("Content-Type") != "" {
		t.Fatalf("%d %q %v", code, text, h)
	}
	f.status("t1", mesos.TaskState_TASK_GONE_BY_OPERATOR)
	a.receive("Shutdown", func(d *agentlink.Downlink) bool { return d.Shutdown != nil })
	a.connect()
	a.receive("Shutdown once more", func(d *agentlink.Downlink) bool { return d.Shutdown != nil })
	f.call(&scheduler.Call{Type: scheduler.Call_KILL.Enum(), Kill: &scheduler.Call_Kill{TaskId: &mesos.TaskID{Value: proto.String("x")}, AgentId: o.AgentId}})
	f.status("x", mesos.TaskState_TASK_GONE_BY_OPERATOR)
}

func TestSuppressRevive(t *testing.T) {
	c := newCluster(t)
	f := c.subscribed(wire.JSON, frameworkInfo(nil))
	f.call(&scheduler.Call{Type: scheduler.Call_SUPPRESS.Enum()})
	g := c.subscribed(wire.JSON, frameworkInfo(nil))
	c.agent(agentInfo("h1", small))
	o := g.offer()
	f.call(&scheduler.Call{Type: scheduler.Call_REVIVE.Enum(), Revive: &scheduler.Call_Revive{}})
	g.call(&scheduler.Call{Type: scheduler.Call_DECLINE.Enum(), Decline: &scheduler.Call_Decline{OfferIds: []*mesos.OfferID{o.Id}}})
	if got := f.offer(); got.GetHostname() != "h1" {
		t.Errorf("%v", got)
	}
}

func TestUpdateFramework(t *testing.T) {
	c := newCluster(t)
	f := c.subscribed(wire.JSON, frameworkInfo(nil))
	call := func(edit func(*mesos.FrameworkInfo)) (int, string) {
		return f.try(&scheduler.Call{Type: scheduler.Call_UPDATE_FRAMEWORK.Enum(), UpdateFramework: &scheduler.Call_UpdateFramework{
			FrameworkInfo: frameworkInfo(func(i *mesos.FrameworkInfo) { i.Id = f.id; edit(i) })}}, f.stream)
	}
	if code, body := call(func(i *mesos.FrameworkInfo) { i.Roles = []string{"b", "c"} }); code != 200 {
		t.Fatalf("%d %s", code, body)
	}
	if code, _ := call(func(i *mesos.FrameworkInfo) { i.User = proto.String("other") }); code != 400 {
		t.Errorf("user changed: %d", code)
	}
	c.agent(agentInfo("h1", small))
	if role := f.offer().GetAllocationInfo().GetRole(); role != "b" {
		t.Errorf("offered to %s", role)
	}
}

func TestMessages(t *testing.T) {
	c := newCluster(t)
	f := c.subscribed(wire.JSON, frameworkInfo(nil))
	a := c.agent(agentInfo("h1", small))
	ex := &mesos.ExecutorID{Value: proto.String("e1")}
	f.call(&scheduler.Call{Type: scheduler.Call_MESSAGE.Enum(), Message: &scheduler.Call_Message{AgentId: a.id, ExecutorId: ex, Data: []byte("down")}})
	a.receive("message", func(d *agentlink.Downlink) bool { return string(d.GetFrameworkMessage().GetData()) == "down" })
	f.call(&scheduler.Call{Type: scheduler.Call_SHUTDOWN.Enum(), Shutdown: &scheduler.Call_Shutdown{AgentId: a.id, ExecutorId: ex}})
	a.receive("shutdown", func(d *agentlink.Downlink) bool { return d.GetShutdownExecutor().GetExecutorId().GetValue() == "e1" })
	a.send(&agentlink.Uplink{ExecutorMessage: &agentlink.ExecutorMessage{FrameworkId: f.id, ExecutorId: ex, Data: []byte("up")}})
	if m := f.event(scheduler.Event_MESSAGE).Message; string(m.Data) != "up" {
		t.Errorf("%v", m)
	}
	a.send(&agentlink.Uplink{ExecutorExited: &agentlink.ExecutorExited{FrameworkId: f.id, ExecutorId: ex, Status: proto.Int32(256)}})
	if e := f.event(scheduler.Event_FAILURE).Failure; e.GetStatus() != 256 || e.ExecutorId.GetValue() != "e1" {
		t.Errorf("%v", e)
	}
}

func TestOperatorReads(t *testing.T) {
	c := newCluster(t)
	c.agent(agentInfo("h1", small))
	for _, format := range formats {
		for _, call := range []master.Call_Type{
			master.Call_GET_HEALTH, master.Call_GET_FLAGS, master.Call_GET_VERSION, master.Call_GET_METRICS, master.Call_GET_STATE,
			master.Call_GET_AGENTS, master.Call_GET_FRAMEWORKS, master.Call_GET_EXECUTORS, master.Call_GET_TASKS, master.Call_GET_ROLES,
			master.Call_GET_MASTER, master.Call_GET_WEIGHTS, master.Call_GET_QUOTA, master.Call_GET_OPERATIONS,
			master.Call_GET_MAINTENANCE_STATUS, master.Call_GET_MAINTENANCE_SCHEDULE,
		} {
			if got := c.operate(format, &master.Call{Type: call.Enum()}); got.GetType().String() != call.String() {
				t.Errorf("%s answered as %s", call, got.GetType())
			}
		}
	}
	js := map[string]string{"Content-Type": "application/json"}
	if code, body, _ := c.post("/api/v1", js, []byte(`{"type":"UPDATE_QUOTA","update_quota":{}}`)); code != 501 || !strings.Contains(body, "UPDATE_QUOTA is not supported") {
		t.Errorf("UPDATE_QUOTA: %d %s", code, body)
	}
	if code, body, _ := c.post("/api/v1", js, []byte(`{"type":"TEARDOWN","teardown":{"framework_id":{"value":"x"}}}`)); code != 400 {
		t.Errorf("TEARDOWN of nobody: %d %s", code, body)
	}
	if code, body, _ := c.post("/api/v1", js, []byte(`{}`)); code != 400 || !strings.Contains(body, "Failed to validate master::Call") {
		t.Errorf("no type: %d %s", code, body)
	}
}

func TestLegacyEndpoints(t *testing.T) {
	c := newCluster(t)
	f := c.subscribed(wire.JSON, frameworkInfo(nil))
	sub := agentInfo("h1", small+";cpus(db):1")
	sub.Agent.Attributes, _ = resource.Attributes(map[string]string{"rack": "r1"})
	a := c.agent(sub)
	o := f.offer()
	x := taskInfo(o, "t1", "cpus:0.5;mem:64;ports:[31000-31001]")
	x.Discovery = &mesos.DiscoveryInfo{Visibility: mesos.DiscoveryInfo_CLUSTER.Enum(), Ports: &mesos.Ports{Ports: []*mesos.Port{{Number: proto.Uint32(31000)}}}}
	f.accept([]*mesos.OfferID{o.Id}, launchOp(x))
	a.update(f.id, "t1", mesos.TaskState_TASK_RUNNING, nil)
	f.status("t1", mesos.TaskState_TASK_RUNNING)

	var st struct {
		Leader, PID, Cluster string
		Slaves               []struct {
			ID, PID, Hostname string
			Attributes        map[string]any
			Used              map[string]any `json:"used_resources"`
			Reserved          map[string]any `json:"reserved_resources"`
			UsedFull          []any          `json:"used_resources_full"`
		}
		Frameworks []struct {
			ID    string
			Roles []string
			Tasks []struct {
				ID, State, Role string
				SlaveID         string `json:"slave_id"`
				Resources       map[string]any
				Discovery       map[string]any
				Statuses        []map[string]any
			}
		}
	}
	read := func(path string, v any) {
		t.Helper()
		code, body, h := c.get(path)
		if code != 200 || h.Get("Content-Type") != "application/json" {
			t.Fatalf("%s: %d %s", path, code, body)
		}
		if err := json.Unmarshal([]byte(body), v); err != nil {
			t.Fatalf("%s: %v: %s", path, err, body)
		}
	}
	read("/master/state", &st)
	s := st.Slaves[0]
	if st.Leader != "master@127.0.0.1:5050" || s.PID != "slave(1)@h1:5051" || s.Attributes["rack"] != "r1" ||
		s.Used["cpus"] != 0.5 || s.Used["ports"] != "[31000-31001]" || s.Used["gpus"] != 0.0 || s.Reserved["db"] == nil || len(s.UsedFull) != 3 {
		t.Errorf("state: %+v", st)
	}
	k := st.Frameworks[0].Tasks[0]
	if k.ID != "t1" || k.State != "TASK_RUNNING" || k.Role != "test" || k.SlaveID != s.ID || k.Resources["disk"] != 0.0 || len(k.Statuses) != 1 || k.Discovery["visibility"] != "CLUSTER" {
		t.Errorf("task: %+v", k)
	}
	var sum struct {
		Slaves []struct {
			Running    int      `json:"TASK_RUNNING"`
			Frameworks []string `json:"framework_ids"`
		}
		Frameworks []struct {
			Running int      `json:"TASK_RUNNING"`
			Slaves  []string `json:"slave_ids"`
		}
	}
	read("/state-summary", &sum)
	if sum.Slaves[0].Running != 1 || sum.Frameworks[0].Running != 1 || sum.Frameworks[0].Slaves[0] != s.ID || sum.Slaves[0].Frameworks[0] != st.Frameworks[0].ID {
		t.Errorf("summary: %+v", sum)
	}
	var metrics map[string]float64
	read("/metrics/snapshot", &metrics)
	for key, want := range map[string]float64{
		"master/elected": 1, "master/tasks_running": 1, "master/slaves_active": 1, "master/frameworks_active": 1, "master/cpus_total": 5,
		"master/cpus_used": .5, "master/cpus_percent": .1, "master/slaves_unreachable": 0, "master/tasks_lost": 0, "master/messages_status_update": 1,
	} {
		if got, ok := metrics[key]; !ok || got != want {
			t.Errorf("metric %s is %v, want %v", key, got, want)
		}
	}
	var any map[string]any
	for _, path := range []string{"/slaves", "/master/slaves?slave_id=" + s.ID, "/tasks?limit=1", "/frameworks", "/roles", "/version", "/flags", "/master/state.json", "/state?framework_id=none"} {
		read(path, &any)
	}
	if code, body, h := c.get("/version?jsonp=cb"); code != 200 || !strings.HasPrefix(body, "cb({") || h.Get("Content-Type") != "text/javascript" {
		t.Errorf("jsonp: %d %s", code, body)
	}
	if code, _, _ := c.get("/version?jsonp=alert(1)//"); code != 400 {
		t.Errorf("script in jsonp: %d", code)
	}
	if code, body, _ := c.get("/health"); code != 200 || body != "" {
		t.Errorf("health: %d %q", code, body)
	}
	if code, _, _ := c.get("/nothing"); code != 404 {
		t.Errorf("unknown path: %d", code)
	}
}

func TestWithoutLeadership(t *testing.T) {
	var known bool
	m := dcosmaster.New(dcosmaster.Options{Config: testConfig(), Leader: func() (leader.Info, bool) {
		return leader.Info{Name: "m2", Addr: netip.MustParseAddr("198.19.20.2")}, known
	}})
	do := func(method, path string) *http.Response {
		req, _ := http.NewRequest(method, path, strings.NewReader("{}"))
		w := &recorder{header: http.Header{}}
		m.Handler().ServeHTTP(w, req)
		return &http.Response{StatusCode: w.code, Header: w.header}
	}
	if r := do("POST", "/api/v1/scheduler"); r.StatusCode != 503 {
		t.Errorf("no leader: %d", r.StatusCode)
	}
	known = true
	for path, want := range map[string]string{
		"/api/v1/scheduler": "//198.19.20.2:5050/api/v1/scheduler", "/master/state?x=1": "//198.19.20.2:5050/master/state?x=1",
		"/agentlink/v1/subscribe": "//198.19.20.2:5050/agentlink/v1/subscribe", "/redirect": "//198.19.20.2:5050",
	} {
		if r := do("POST", path); r.StatusCode != 307 || r.Header.Get("Location") != want {
			t.Errorf("%s: %d %s, want %s", path, r.StatusCode, r.Header.Get("Location"), want)
		}
	}
	for _, path := range []string{"/health", "/version", "/flags", "/metrics/snapshot"} {
		if r := do("GET", path); r.StatusCode != 200 {
			t.Errorf("%s: %d", path, r.StatusCode)
		}
	}
}

type recorder struct {
	code   int
	header http.Header
}

func (r *recorder) Header() http.Header { return r.header }
func (r *recorder) WriteHeader(c int)   { r.code = c }
func (r *recorder) Write(b []byte) (int, error) {
	if r.code == 0 {
		r.code = 200
	}
	return len(b), nil
}

func TestAgentLinkWantsCertificates(t *testing.T) {
	up := mustMarshal(t, &agentlink.Uplink{AgentId: &mesos.AgentID{Value: proto.String("x")}})
	h := map[string]string{"Content-Type": wire.TypeProtobuf}
	if code, _, _ := newCluster(t).post("/agentlink/v1/call", h, up); code != http.StatusConflict {
		t.Errorf("unknown agent where plain agents are let in: %d", code)
	}
	strict := lead(t, memory.New(), testConfig(), func(o *dcosmaster.Options) { o.PlainAgents = false })
	for _, path := range []string{"/agentlink/v1/call", "/agentlink/v1/subscribe", "/master/agentlink/v1/subscribe"} {
		if code, _, _ := strict.post(path, h, up); code != http.StatusForbidden {
			t.Errorf("%s without a certificate: %d", path, code)
		}
	}
}

func mustMarshal(t *testing.T, m proto.Message) []byte {
	b, err := wire.Protobuf.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
