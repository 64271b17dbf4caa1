package master_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"dcos.example/dcos/runtime/api/agentlink"
	mesos "dcos.example/dcos/runtime/api/mesos"
	inverseoffer "dcos.example/dcos/runtime/api/mesos/allocator"
	"dcos.example/dcos/runtime/api/mesos/maintenance"
	"dcos.example/dcos/runtime/api/mesos/master"
	"dcos.example/dcos/runtime/api/mesos/scheduler"
	"dcos.example/dcos/runtime/api/wire"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/resource"
)

// say sends an operator call that has no answer, and returns code and text.
func (c *cluster) say(call *master.Call) (int, string) {
	c.t.Helper()
	b, err := wire.JSON.Marshal(call)
	if err != nil {
		c.t.Fatal(err)
	}
	code, body, _ := c.post("/api/v1", map[string]string{"Content-Type": wire.TypeJSON}, b)
	return code, body
}

func (c *cluster) must(call *master.Call) {
	c.t.Helper()
	if code, body := c.say(call); code != http.StatusOK || body != "" {
		c.t.Fatalf("%s: %d %s", call.GetType(), code, body)
	}
}

func drainCall(id *mesos.AgentID, bound time.Duration, gone bool) *master.Call {
	d := &master.Call_DrainAgent{AgentId: id, MarkGone: proto.Bool(gone)}
	if bound >= 0 {
		d.MaxGracePeriod = durationpb.New(bound)
	}
	return &master.Call{Type: master.Call_DRAIN_AGENT.Enum(), DrainAgent: d}
}

func deactivateCall(id *mesos.AgentID) *master.Call {
	return &master.Call{Type: master.Call_DEACTIVATE_AGENT.Enum(), DeactivateAgent: &master.Call_DeactivateAgent{AgentId: id}}
}

func reactivateCall(id *mesos.AgentID) *master.Call {
	return &master.Call{Type: master.Call_REACTIVATE_AGENT.Enum(), ReactivateAgent: &master.Call_ReactivateAgent{AgentId: id}}
}

const unbounded = -time.Second

// the returns the only agent as GET_AGENTS has it.
func (c *cluster) the(id *mesos.AgentID) *master.Response_GetAgents_Agent {
	for _, a := range c.operate(wire.JSON, &master.Call{Type: master.Call_GET_AGENTS.Enum()}).GetAgents.Agents {
		if a.GetAgentInfo().GetId().GetValue() == id.GetValue() {
			return a
		}
	}
	return nil
}

func (c *cluster) drained(id *mesos.AgentID) func() bool {
	return func() bool { return c.the(id).GetDrainInfo().GetState() == mesos.DrainState_DRAINED }
}

func withGrace(t *mesos.TaskInfo, d time.Duration) *mesos.TaskInfo {
	t.KillPolicy = &mesos.KillPolicy{GracePeriod: &mesos.DurationInfo{Nanoseconds: proto.Int64(int64(d))}}
	return t
}

func killed(id string) func(*agentlink.Downlink) bool {
	return func(d *agentlink.Downlink) bool { return d.GetKillTask().GetTaskId().GetValue() == id }
}

func mover(i *mesos.FrameworkInfo) {
	i.Labels = &mesos.Labels{Labels: []*mesos.Label{{Key: proto.String(wire.LabelMovesTasks), Value: proto.String("true")}}}
}

func TestDrainWithoutTasksIsOverAtOnce(t *testing.T) {
	c := newCluster(t)
	a := c.agent(agentInfo("h1", small))
	c.must(drainCall(a.id, 10*time.Second, false))
	got := c.the(a.id)
	want := &mesos.DrainInfo{State: mesos.DrainState_DRAINED.Enum(), Config: &mesos.DrainConfig{
		MaxGracePeriod: &mesos.DurationInfo{Nanoseconds: proto.Int64(10e9)}, MarkGone: proto.Bool(false)}}
	if !proto.Equal(got.DrainInfo, want) || !got.GetDeactivated() || got.GetActive() || got.GetEstimatedDrainStartTime().GetNanoseconds() == 0 {
		t.Errorf("%v", got)
	}
	for _, path := range []string{"/state", "/state-summary", "/slaves"} {
		_, body, _ := c.get(path)
		var doc struct {
			Slaves []struct {
				Active, Deactivated bool
				DrainInfo           struct {
					State  string
					Config struct {
						MaxGracePeriod struct{ Nanoseconds int64 } `json:"max_grace_period"`
					}
				} `json:"drain_info"`
				Start int64 `json:"estimated_drain_start_time_seconds"`
			}
		}
		if err := json.Unmarshal([]byte(body), &doc); err != nil {
			t.Fatal(err)
		}
		s := doc.Slaves[0]
		if s.Active || !s.Deactivated || s.DrainInfo.State != "DRAINED" || s.DrainInfo.Config.MaxGracePeriod.Nanoseconds != 10e9 || s.Start == 0 {
			t.Errorf("%s: %s", path, body)
		}
	}
	f := c.subscribed(wire.JSON, frameworkInfo(nil))
	c.must(reactivateCall(a.id))
	if o := f.offer(); o.AgentId.GetValue() != a.id.GetValue() {
		t.Errorf("offered: %v", o)
	}
	if got := c.the(a.id); got.GetDeactivated() || got.DrainInfo != nil || got.EstimatedDrainStartTime != nil || !got.GetActive() {
		t.Errorf("%v", got)
	}
}

// The texts and codes are those of Mesos 1.11.
func TestDrainRefusals(t *testing.T) {
	c := newCluster(t)
	a := c.agent(agentInfo("h1", small))
	nobody := &mesos.AgentID{Value: proto.String("x")}
	refused := func(call *master.Call, code int, text string) {
		t.Helper()
		if got, body := c.say(call); got != code || body != text {
			t.Errorf("%s: %d %q, want %d %q", call.GetType(), got, body, code, text)
		}
	}
	refused(drainCall(nobody, unbounded, false), 400, "Unknown agent")
	refused(deactivateCall(nobody), 400, "Unknown agent")
	refused(reactivateCall(a.id), 400, "Agent is not deactivated")
	refused(&master.Call{Type: master.Call_MARK_AGENT_GONE.Enum(), MarkAgentGone: &master.Call_MarkAgentGone{AgentId: nobody}}, 404, "Agent 'x' not found")
	refused(&master.Call{Type: master.Call_DRAIN_AGENT.Enum()}, 400, "Failed to validate master::Call: Expecting 'drain_agent' to be present")

	f := c.subscribed(wire.JSON, frameworkInfo(nil))
	o := f.offer()
	f.accept([]*mesos.OfferID{o.Id}, launchOp(taskInfo(o, "t1", "cpus:1")))
	c.must(deactivateCall(a.id))
	if got := c.the(a.id); !got.GetDeactivated() || got.DrainInfo != nil {
		t.Errorf("%v", got)
	}
	c.must(drainCall(a.id, unbounded, false))
	refused(reactivateCall(a.id), 400, "Agent is still in the DRAINING state")
	code, body, _ := c.post("/api/v1?cancel_drain=true", map[string]string{"Content-Type": wire.TypeJSON},
		[]byte(`{"type":"REACTIVATE_AGENT","reactivate_agent":{"agent_id":{"value":"`+a.id.GetValue()+`"}}}`))
	if code != 200 || c.the(a.id).GetDeactivated() {
		t.Errorf("cancel: %d %s", code, body)
	}
}

func TestDrainKillsWithinItsBound(t *testing.T) {
	c := newCluster(t)
	a := c.agent(agentInfo("h1", small))
	f := c.subscribed(wire.JSON, frameworkInfo(nil))
	o := f.offer()
	f.accept([]*mesos.OfferID{o.Id}, launchOp(
		withGrace(taskInfo(o, "long", "cpus:1"), time.Hour), withGrace(taskInfo(o, "short", "cpus:1"), time.Second), taskInfo(o, "plain", "cpus:1")))
	rest := f.offer()
	c.must(drainCall(a.id, 3*time.Second, false))
	if r := f.event(scheduler.Event_RESCIND); r.Rescind.OfferId.GetValue() != rest.Id.GetValue() {
		t.Errorf("rescinded: %v", r)
	}
	got := map[string]time.Duration{}
	for range 3 {
		k := a.receive("KillTask", func(d *agentlink.Downlink) bool { return d.KillTask != nil }).KillTask
		got[k.TaskId.GetValue()] = time.Duration(k.GetKillPolicy().GetGracePeriod().GetNanoseconds())
	}
	if fmt.Sprint(got) != "map[long:3s plain:3s short:1s]" {
		t.Errorf("killed with %v", got)
	}
	for id := range got {
		a.update(f.id, id, mesos.TaskState_TASK_KILLED, nil)
		s := f.status(id, mesos.TaskState_TASK_KILLED)
		if s.GetReason() != mesos.TaskStatus_REASON_AGENT_DRAINING {
			t.Errorf("%v", s)
		}
		if c.the(a.id).GetDrainInfo().GetState() != mesos.DrainState_DRAINING {
			t.Error("drained before the last acknowledgement")
		}
		f.acknowledge(s)
	}
	eventually(t, "drained", c.drained(a.id))
}

func TestDrainThatMarksGone(t *testing.T) {
	c := newCluster(t)
	a := c.agent(agentInfo("h1", small))
	f := c.subscribed(wire.JSON, frameworkInfo(nil))
	o := f.offer()
	f.accept([]*mesos.OfferID{o.Id}, launchOp(taskInfo(o, "t1", "cpus:1")))
	c.must(drainCall(a.id, 0, true))
	a.receive("KillTask", killed("t1"))
	a.update(f.id, "t1", mesos.TaskState_TASK_KILLED, nil)
	s := f.status("t1", mesos.TaskState_TASK_GONE_BY_OPERATOR)
	if s.GetReason() != mesos.TaskStatus_REASON_AGENT_DRAINING {
		t.Errorf("%v", s)
	}
	f.acknowledge(s)
	a.receive("Shutdown", func(d *agentlink.Downlink) bool { return d.Shutdown != nil })
	eventually(t, "no agent is left", func() bool { return c.the(a.id) == nil })
	if code, body := c.say(drainCall(a.id, 0, false)); code != 400 || body != "Unknown agent" {
		t.Errorf("drain of a gone agent: %d %s", code, body)
	}
}

// A framework that moves its tasks itself is told, and left alone until the
// last moment.
func TestFrameworkMovesItsTasks(t *testing.T) {
	c := newCluster(t)
	a := c.agent(agentInfo("h1", small))
	f := c.subscribed(wire.JSON, frameworkInfo(mover))
	o := f.offer()
	f.accept([]*mesos.OfferID{o.Id}, launchOp(withGrace(taskInfo(o, "t1", "cpus:1"), 0), withGrace(taskInfo(o, "t2", "cpus:1"), 0)))
	f.call(&scheduler.Call{Type: scheduler.Call_DECLINE.Enum(), Decline: &scheduler.Call_Decline{
		OfferIds: []*mesos.OfferID{f.offer().Id}, Filters: &mesos.Filters{RefuseSeconds: proto.Float64(3600)}}})
	other := c.subscribed(wire.JSON, frameworkInfo(func(i *mesos.FrameworkInfo) { i.Name = proto.String("other") }))
	oo := other.offer()
	other.accept([]*mesos.OfferID{oo.Id}, launchOp(taskInfo(oo, "x1", "cpus:1")))
	a.receive("RunTask x1", func(d *agentlink.Downlink) bool { return d.GetRunTask().GetTask().GetTaskId().GetValue() == "x1" })

	const bound = 400 * time.Millisecond
	begin := time.Now()
	c.must(drainCall(a.id, bound, false))
	in := f.event(scheduler.Event_INVERSE_OFFERS).InverseOffers.InverseOffers[0]
	if in.AgentId.GetValue() != a.id.GetValue() || in.Unavailability.Duration != nil || time.Unix(0, in.Unavailability.Start.GetNanoseconds()).After(time.Now()) {
		t.Errorf("%v", in)
	}
	if got, _ := resource.FromProto(in.Resources); got.Scalar("cpus") != 2*resource.Unit {
		t.Errorf("asked for %v", got)
	}
	f.call(&scheduler.Call{Type: scheduler.Call_ACCEPT_INVERSE_OFFERS.Enum(), AcceptInverseOffers: &scheduler.Call_AcceptInverseOffers{InverseOfferIds: []*mesos.OfferID{in.Id}}})
	// The other framework's task goes at once, the first kill of all.
	if k := a.receive("KillTask", func(d *agentlink.Downlink) bool { return d.KillTask != nil }).KillTask; k.TaskId.GetValue() != "x1" {
		t.Errorf("killed first: %v", k)
	}
	// One task the framework stops itself; the other is taken from it.
	f.call(&scheduler.Call{Type: scheduler.Call_KILL.Enum(), Kill: &scheduler.Call_Kill{TaskId: &mesos.TaskID{Value: proto.String("t1")}}})
	a.receive("KillTask t1", killed("t1"))
	k := a.receive("KillTask t2", killed("t2")).KillTask
	if time.Since(begin) < bound || k.GetKillPolicy().GetGracePeriod().GetNanoseconds() != 0 {
		t.Errorf("t2 killed after %v with %v", time.Since(begin), k.KillPolicy)
	}
}

func TestMoverThatDeclinesIsKilled(t *testing.T) {
	c := newCluster(t)
	a := c.agent(agentInfo("h1", small))
	f := c.subscribed(wire.JSON, frameworkInfo(mover))
	o := f.offer()
	f.accept([]*mesos.OfferID{o.Id}, launchOp(taskInfo(o, "t1", "cpus:1")))
	c.must(drainCall(a.id, unbounded, false))
	in := f.event(scheduler.Event_INVERSE_OFFERS).InverseOffers.InverseOffers[0]
	f.call(&scheduler.Call{Type: scheduler.Call_DECLINE_INVERSE_OFFERS.Enum(), DeclineInverseOffers: &scheduler.Call_DeclineInverseOffers{InverseOfferIds: []*mesos.OfferID{in.Id}}})
	a.receive("KillTask", killed("t1"))
}

// A drain goes on under the next leader, and an agent that was away when it
// was ordered drains when it is back.
func TestDrainOutlivesMastersAndAbsence(t *testing.T) {
	first := newCluster(t)
	f := first.subscribed(wire.JSON, frameworkInfo(nil))
	a := first.agent(agentInfo("h1", small))
	o := f.offer()
	f.accept([]*mesos.OfferID{o.Id}, launchOp(taskInfo(o, "t1", "cpus:1")))
	a.receive("RunTask", func(d *agentlink.Downlink) bool { return d.RunTask != nil })
	a.hangup()
	eventually(t, "disconnected", func() bool { return !first.the(a.id).GetActive() })
	first.must(drainCall(a.id, 2*time.Second, false))
	started := first.the(a.id).GetEstimatedDrainStartTime().GetNanoseconds()
	first.stop()

	cfg := testConfig()
	cfg.AgentReregister = config.Duration(time.Minute)
	c := lead(t, first.store, cfg)
	f2 := c.subscribed(wire.JSON, frameworkInfo(func(i *mesos.FrameworkInfo) { i.Id = f.id }))
	m := c.subscribed(wire.JSON, frameworkInfo(func(i *mesos.FrameworkInfo) { mover(i); i.Name = proto.String("mover") }))
	if in := m.event(scheduler.Event_INVERSE_OFFERS).InverseOffers.InverseOffers[0]; in.AgentId.GetValue() != a.id.GetValue() {
		t.Errorf("a mover is told of %v", in)
	}
	a.c = c
	a.sub.Tasks = []*mesos.Task{{
		Name: proto.String("t1"), TaskId: &mesos.TaskID{Value: proto.String("t1")}, FrameworkId: f.id, AgentId: a.id,
		State: mesos.TaskState_TASK_RUNNING.Enum(), Resources: resource.MustParse("cpus:1").Allocate("test").Proto(),
	}}
	a.connect()
	k := a.receive("KillTask", killed("t1")).KillTask
	if k.GetKillPolicy().GetGracePeriod().GetNanoseconds() != 2e9 {
		t.Errorf("killed with %v", k.KillPolicy)
	}
	if got := c.the(a.id); got.GetDrainInfo().GetState() != mesos.DrainState_DRAINING || got.GetEstimatedDrainStartTime().GetNanoseconds() != started {
		t.Errorf("%v, started at %d", got, started)
	}
	a.update(f.id, "t1", mesos.TaskState_TASK_KILLED, nil)
	f2.acknowledge(f2.status("t1", mesos.TaskState_TASK_KILLED))
	eventually(t, "drained", c.drained(a.id))
	a.connect() // and stays so
	if !c.drained(a.id)() || c.the(a.id).GetActive() {
		t.Errorf("after it came back: %v", c.the(a.id))
	}
}

func TestMaintenance(t *testing.T) {
	c := newCluster(t)
	sub := agentInfo("198.19.60.1", small)
	sub.Agent.Hostname = proto.String("Host1")
	a := c.agent(sub)
	f := c.subscribed(wire.JSON, frameworkInfo(nil))
	o := f.offer()
	if o.Unavailability != nil {
		t.Errorf("%v", o.Unavailability)
	}
	f.accept([]*mesos.OfferID{o.Id}, launchOp(taskInfo(o, "t1", "cpus:1")))
	plain := f.offer()
	js := map[string]string{"Content-Type": wire.TypeJSON}
	refused := func(path, body, want string) {
		t.Helper()
		if code, text, _ := c.post(path, js, []byte(body)); code != 400 || !strings.Contains(text, want) {
			t.Errorf("%s %s: %d %s, want %s", path, body, code, text, want)
		}
	}
	refused("/maintenance/schedule", `{"windows":[{"machine_ids":[],"unavailability":{"start":{"nanoseconds":1}}}]}`, "List of machines in the maintenance window is empty")
	refused("/maintenance/schedule", `{"windows":[{"machine_ids":[{}],"unavailability":{"start":{"nanoseconds":1}}}]}`, "Both 'hostname' and 'ip' for a machine are empty")
	refused("/maintenance/schedule", `{"windows":[{"machine_ids":[{"hostname":"a"},{"hostname":"A"}],"unavailability":{"start":{"nanoseconds":1}}}]}`, "appears more than once")
	refused("/maintenance/schedule", `{"windows":[{"machine_ids":[{"hostname":"a"}],"unavailability":{"start":{"nanoseconds":1},"duration":{"nanoseconds":-1}}}]}`, "'duration' is negative")
	machine := `{"hostname":"host1","ip":"198.19.60.1"}`
	refused("/machine/down", `[`+machine+`]`, "is not part of a maintenance schedule")
	refused("/machine/down", `[]`, "List of machines is empty")

	start := time.Now().Add(time.Hour).UnixNano()
	schedule := fmt.Sprintf(`{"windows":[{"machine_ids":[%s],"unavailability":{"start":{"nanoseconds":%d},"duration":{"nanoseconds":3600000000000}}}]}`, machine, start)
	if code, text, _ := c.post("/master/maintenance/schedule", js, []byte(schedule)); code != 200 || text != "" {
		t.Fatalf("%d %s", code, text)
	}
	in := f.event(scheduler.Event_INVERSE_OFFERS).InverseOffers.InverseOffers[0]
	if in.Unavailability.Start.GetNanoseconds() != start {
		t.Errorf("%v", in)
	}
	again := f.offer()
	if again.Id.GetValue() == plain.Id.GetValue() || again.GetUnavailability().GetStart().GetNanoseconds() != start {
		t.Errorf("%v", again)
	}
	f.call(&scheduler.Call{Type: scheduler.Call_ACCEPT_INVERSE_OFFERS.Enum(), AcceptInverseOffers: &scheduler.Call_AcceptInverseOffers{InverseOfferIds: []*mesos.OfferID{in.Id}}})
	status := c.operate(wire.JSON, &master.Call{Type: master.Call_GET_MAINTENANCE_STATUS.Enum()}).GetMaintenanceStatus.Status
	if len(status.DrainingMachines) != 1 || len(status.DrainingMachines[0].Statuses) != 1 || status.DrainingMachines[0].Statuses[0].GetStatus() != inverseoffer.InverseOfferStatus_ACCEPT {
		t.Errorf("%v", status)
	}
	if _, text, _ := c.get("/maintenance/schedule"); text != schedule {
		t.Errorf("%s, want %s", text, schedule)
	}
	if code, text := c.say(drainCall(a.id, 0, false)); code != 400 || !strings.Contains(text, "is part of a maintenance schedule under Machine "+machine) {
		t.Errorf("%d %s", code, text)
	}

	refused("/machine/up", `[`+machine+`]`, "is not in DOWN mode and cannot be brought up")
	ids := []*mesos.MachineID{{Hostname: proto.String("HOST1"), Ip: proto.String("198.19.60.1")}}
	c.must(&master.Call{Type: master.Call_START_MAINTENANCE.Enum(), StartMaintenance: &master.Call_StartMaintenance{Machines: ids}})
	f.status("t1", mesos.TaskState_TASK_GONE)
	a.receive("Shutdown", func(d *agentlink.Downlink) bool { return d.Shutdown != nil })
	refused("/machine/down", `[`+machine+`]`, "is not in DRAINING mode and cannot be brought down")
	refused("/maintenance/schedule", `{}`, "is deactivated and cannot be removed from the schedule")
	fresh := agentInfo("198.19.60.1", small)
	fresh.Agent.Hostname = proto.String("Host1")
	if code, text, _ := c.post("/agentlink/v1/subscribe", map[string]string{"Content-Type": wire.TypeProtobuf}, mustMarshal(t, fresh)); code != 503 || !strings.Contains(text, "maintenance") {
		t.Errorf("an agent of a machine that is down: %d %s", code, text)
	}
	c.must(&master.Call{Type: master.Call_STOP_MAINTENANCE.Enum(), StopMaintenance: &master.Call_StopMaintenance{Machines: ids}})
	if s := c.operate(wire.JSON, &master.Call{Type: master.Call_GET_MAINTENANCE_SCHEDULE.Enum()}).GetMaintenanceSchedule.Schedule; !proto.Equal(s, &maintenance.Schedule{}) {
		t.Errorf("%v", s)
	}
	c.agent(fresh)
	if o := f.offer(); o.Unavailability != nil {
		t.Errorf("%v", o)
	}
}
