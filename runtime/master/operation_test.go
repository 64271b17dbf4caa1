package master_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/api/agentlink"
	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/master"
	"dcos.example/dcos/runtime/api/mesos/scheduler"
	"dcos.example/dcos/runtime/api/wire"
	dcosmaster "dcos.example/dcos/runtime/master"
	"dcos.example/dcos/runtime/resource"
	"dcos.example/dcos/runtime/state/memory"
)

// reserved is text with a reservation for each role, outermost first.
func reserved(t *testing.T, text string, roles ...string) resource.Resources {
	t.Helper()
	r := resource.MustParse(text)
	for _, role := range roles {
		var err error
		if r, err = r.Push(resource.Reservation{Role: role, Principal: "p"}); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// volume is the reserved disk d as a volume.
func volume(d resource.Resources, id string, edit ...func(*mesos.Resource)) []*mesos.Resource {
	p := proto.CloneOf(d.Proto()[0])
	p.Disk = &mesos.Resource_DiskInfo{
		Persistence: &mesos.Resource_DiskInfo_Persistence{Id: proto.String(id), Principal: proto.String("p")},
		Volume:      &mesos.Volume{ContainerPath: proto.String("data"), Mode: mesos.Volume_RW.Enum()},
	}
	for _, e := range edit {
		e(p)
	}
	return []*mesos.Resource{p}
}

func shared(p *mesos.Resource) { p.Shared = &mesos.Resource_SharedInfo{} }

func reserveOp(id string, r resource.Resources) *mesos.Offer_Operation {
	return named(id, &mesos.Offer_Operation{Type: mesos.Offer_Operation_RESERVE.Enum(), Reserve: &mesos.Offer_Operation_Reserve{Resources: r.Proto()}})
}

func unreserveOp(id string, r resource.Resources) *mesos.Offer_Operation {
	return named(id, &mesos.Offer_Operation{Type: mesos.Offer_Operation_UNRESERVE.Enum(), Unreserve: &mesos.Offer_Operation_Unreserve{Resources: r.Proto()}})
}

func createOp(id string, v []*mesos.Resource) *mesos.Offer_Operation {
	return named(id, &mesos.Offer_Operation{Type: mesos.Offer_Operation_CREATE.Enum(), Create: &mesos.Offer_Operation_Create{Volumes: v}})
}

func destroyOp(id string, v []*mesos.Resource) *mesos.Offer_Operation {
	return named(id, &mesos.Offer_Operation{Type: mesos.Offer_Operation_DESTROY.Enum(), Destroy: &mesos.Offer_Operation_Destroy{Volumes: v}})
}

func named(id string, op *mesos.Offer_Operation) *mesos.Offer_Operation {
	if id != "" {
		op.Id = &mesos.OperationID{Value: &id}
	}
	return op
}

// operation waits for a status of the operation.
func (f *framework) operation(id string, st mesos.OperationState) *mesos.OperationStatus {
	f.c.t.Helper()
	return next(f.c.t, f.events, id+" "+st.String(), func(e *scheduler.Event) bool {
		s := e.GetUpdateOperationStatus().GetStatus()
		if s.GetOperationId().GetValue() == id && s.GetState() != st {
			f.c.t.Fatalf("operation %s is %v", id, s)
		}
		return s.GetOperationId().GetValue() == id
	}).UpdateOperationStatus.Status
}

func (f *framework) acknowledgeOperation(s *mesos.OperationStatus) {
	f.c.t.Helper()
	f.call(&scheduler.Call{Type: scheduler.Call_ACKNOWLEDGE_OPERATION_STATUS.Enum(), AcknowledgeOperationStatus: &scheduler.Call_AcknowledgeOperationStatus{
		AgentId: s.AgentId, OperationId: s.OperationId, Uuid: s.Uuid.GetValue(),
	}})
}

func (f *framework) reconcileOperation(id string, agent *mesos.AgentID) {
	f.c.t.Helper()
	f.call(&scheduler.Call{Type: scheduler.Call_RECONCILE_OPERATIONS.Enum(), ReconcileOperations: &scheduler.Call_ReconcileOperations{
		Operations: []*scheduler.Call_ReconcileOperations_Operation{{OperationId: &mesos.OperationID{Value: &id}, AgentId: agent}},
	}})
}

// offerWith waits for an offer that contains r.
func (f *framework) offerWith(r resource.Resources) *mesos.Offer {
	f.c.t.Helper()
	var found *mesos.Offer
	next(f.c.t, f.events, "offer with "+r.String(), func(e *scheduler.Event) bool {
		for _, o := range e.GetOffers().GetOffers() {
			if got, _ := resource.FromProto(o.Resources); got.Unallocate().Contains(r) {
				found = o
			}
		}
		return found != nil
	})
	return found
}

func withPrincipal(f *mesos.FrameworkInfo) { f.Principal = proto.String("p") }

func (c *cluster) operations() []*mesos.Operation {
	c.t.Helper()
	return c.operate(wire.Protobuf, &master.Call{Type: master.Call_GET_OPERATIONS.Enum()}).GetOperations.Operations
}

func (c *cluster) total() resource.Resources {
	c.t.Helper()
	as := c.operate(wire.Protobuf, &master.Call{Type: master.Call_GET_AGENTS.Enum()}).GetAgents.Agents
	if len(as) == 0 {
		return resource.Resources{}
	}
	r, err := resource.FromProto(as[0].TotalResources)
	if err != nil {
		c.t.Fatal(err)
	}
	return r
}

func isDocument(d *agentlink.Downlink) bool { return d.CheckpointResources != nil }

// TestOperationFeedback follows one operation through all its life.
func TestOperationFeedback(t *testing.T) {
	c := newCluster(t)
	f := c.subscribed(wire.Protobuf, frameworkInfo(withPrincipal))
	a := c.agent(agentInfo("h1", small))
	release := make(chan struct{})
	a.onKeep(func(*agentlink.CheckpointResources) (string, bool) { <-release; return "", true })
	o := f.offer()
	disk := reserved(t, "disk:100", "test")
	f.accept([]*mesos.OfferID{o.Id}, reserveOp("r", disk), createOp("c", volume(disk, "v")), reserveOp("", reserved(t, "cpus:1", "test")))
	again := f.offer()
	d := a.receive("one document", isDocument).CheckpointResources
	if d.GetVersion() != 1 || len(d.Operations) != 2 || len(d.Resources) != 2 {
		t.Errorf("document: %v", d)
	}
	eventually(t, "three operations are pending", func() bool {
		ops := c.operations()
		return len(ops) == 3 && ops[0].LatestStatus.GetState() == mesos.OperationState_OPERATION_PENDING
	})
	f.reconcileOperation("r", a.id)
	if s := f.operation("r", mesos.OperationState_OPERATION_PENDING); s.Uuid != nil {
		t.Errorf("reconciled: %v", s)
	}
	close(release)
	var done [2]*mesos.OperationStatus
	for range 2 {
		e := f.event(scheduler.Event_UPDATE_OPERATION_STATUS).UpdateOperationStatus.Status
		if e.GetState() != mesos.OperationState_OPERATION_FINISHED || len(e.Uuid.GetValue()) != 16 || e.AgentId.GetValue() != a.id.GetValue() {
			t.Errorf("%v", e)
		}
		done[map[string]int{"r": 0, "c": 1}[e.OperationId.GetValue()]] = e
	}
	if got, _ := resource.FromProto(done[1].ConvertedResources); got.Len() != 1 || got.Scalar("disk") != 100*resource.Unit || got.Reserved("test").Empty() {
		t.Errorf("CREATE made %v", got)
	}
	// Its id is taken while it is not acknowledged.
	f.accept([]*mesos.OfferID{again.Id}, reserveOp("r", reserved(t, "cpus:1", "test")))
	f.operation("r", mesos.OperationState_OPERATION_ERROR)
	wrong := proto.CloneOf(done[0])
	wrong.Uuid = &mesos.UUID{Value: make([]byte, 16)}
	f.acknowledgeOperation(wrong)
	// A framework that comes again hears what it has not acknowledged.
	f.acknowledgeOperation(done[1])
	g := c.subscribed(wire.JSON, frameworkInfo(func(i *mesos.FrameworkInfo) { withPrincipal(i); i.Id = f.id }))
	s := g.operation("r", mesos.OperationState_OPERATION_FINISHED)
	g.acknowledgeOperation(s)
	eventually(t, "nothing is left of it", func() bool { return len(c.operations()) == 0 })
	a.receive("a document without operations", func(d *agentlink.Downlink) bool {
		return isDocument(d) && len(d.CheckpointResources.Operations) == 0 && len(d.CheckpointResources.Resources) == 2
	})
	g.reconcileOperation("r", a.id)
	g.operation("r", mesos.OperationState_OPERATION_UNKNOWN)
	_, metrics, _ := c.get("/metrics/snapshot")
	var m map[string]float64
	if err := json.Unmarshal([]byte(metrics), &m); err != nil || m["master/operations/reserve/finished"] != 2 || m["master/operations/reserve/error"] != 1 || m["master/operations/pending"] != 0 {
		t.Errorf("metrics: %v, %v", err, m)
	}
}

// TestOperationsSurviveFailOver: the agent's memory makes the new leader's.
func TestOperationsSurviveFailOver(t *testing.T) {
	c := newCluster(t)
	f := c.subscribed(wire.Protobuf, frameworkInfo(withPrincipal))
	a := c.agent(agentInfo("h1", small))
	disk := reserved(t, "disk:100", "test")
	f.accept([]*mesos.OfferID{f.offer().Id}, reserveOp("r", disk), createOp("c", volume(disk, "v")))
	f.operation("r", mesos.OperationState_OPERATION_FINISHED)
	before := c.total()
	c.stop()
	n := lead(t, c.store, testConfig())
	g := n.subscribed(wire.Protobuf, frameworkInfo(func(i *mesos.FrameworkInfo) { withPrincipal(i); i.Id = f.id }))
	g.reconcileOperation("r", a.id)
	g.operation("r", mesos.OperationState_OPERATION_RECOVERING)
	a.c = n
	a.connect()
	for range 2 {
		s := g.event(scheduler.Event_UPDATE_OPERATION_STATUS).UpdateOperationStatus.Status
		if s.GetState() != mesos.OperationState_OPERATION_FINISHED || len(s.Uuid.GetValue()) != 16 {
			t.Errorf("after the fail-over: %v", s)
		}
		g.acknowledgeOperation(s)
	}
	if now := n.total(); !now.Equal(before) {
		t.Errorf("the agent has %v, had %v", now, before)
	}
	o := g.offer()
	if got, _ := resource.FromProto(o.Resources); !got.Unallocate().Equal(before) {
		t.Errorf("offered %v of %v", got, before)
	}
	v := volume(disk, "v")
	g.accept([]*mesos.OfferID{o.Id}, destroyOp("d", v), unreserveOp("u", disk))
	g.operation("d", mesos.OperationState_OPERATION_FINISHED)
	if now := n.total(); !now.Equal(resource.MustParse(small)) {
		t.Errorf("after all is undone: %v", now)
	}
}

// TestOperationFails: the agent cannot write; everything is as it was before.
func TestOperationFails(t *testing.T) {
	c := newCluster(t)
	f := c.subscribed(wire.Protobuf, frameworkInfo(withPrincipal))
	a := c.agent(agentInfo("h1", small))
	a.onKeep(func(*agentlink.CheckpointResources) (string, bool) { return "no space left on device", true })
	disk := reserved(t, "disk:100", "test")
	o := f.offer()
	x := taskInfo(o, "db", "cpus:1")
	x.Resources = append(x.Resources, volume(disk, "v")...)
	f.accept([]*mesos.OfferID{o.Id}, reserveOp("r", disk), createOp("c", volume(disk, "v")), launchOp(x))
	for range a.down { // ends: the master closed it
	}
	a.onKeep(nil)
	a.connect()
	for range 2 {
		s := f.event(scheduler.Event_UPDATE_OPERATION_STATUS).UpdateOperationStatus.Status
		if s.GetState() != mesos.OperationState_OPERATION_FAILED || s.GetMessage() != "no space left on device" || s.Uuid == nil {
			t.Errorf("%v", s)
		}
		f.acknowledgeOperation(s)
	}
	if now := c.total(); !now.Equal(resource.MustParse(small)) {
		t.Errorf("the agent has %v", now)
	}
	if got, _ := resource.FromProto(f.offer().Resources); !got.Unallocate().Equal(resource.MustParse(small)) {
		t.Errorf("offered again: %v", got)
	}
	if len(c.operations()) != 0 {
		t.Errorf("%v", c.operations())
	}
}

// TestOperationsOnAgentsThatGo: never arrived, out of reach, gone.
func TestOperationsOnAgentsThatGo(t *testing.T) {
	c := newCluster(t)
	f := c.subscribed(wire.Protobuf, frameworkInfo(withPrincipal))
	a := c.agent(agentInfo("h1", small))
	mute := func(*agentlink.CheckpointResources) (string, bool) { return "", false }
	a.onKeep(mute)
	cpu := reserved(t, "cpus:1", "test")
	f.accept([]*mesos.OfferID{f.offer().Id}, reserveOp("dropped", cpu))
	a.receive("document", isDocument)
	a.hangup()
	a.connect()
	f.acknowledgeOperation(f.operation("dropped", mesos.OperationState_OPERATION_DROPPED))

	f.accept([]*mesos.OfferID{f.offer().Id}, reserveOp("lost", cpu))
	a.receive("document", isDocument)
	a.hangup()
	if s := f.operation("lost", mesos.OperationState_OPERATION_UNREACHABLE); s.Uuid != nil {
		t.Errorf("%v", s)
	}
	f.reconcileOperation("lost", a.id)
	f.operation("lost", mesos.OperationState_OPERATION_UNREACHABLE)

	a.connect()
	f.accept([]*mesos.OfferID{f.offer().Id}, reserveOp("gone", cpu))
	a.receive("document", isDocument)
	c.operateCode(&master.Call{Type: master.Call_MARK_AGENT_GONE.Enum(), MarkAgentGone: &master.Call_MarkAgentGone{AgentId: a.id}}, 200, "")
	f.operation("gone", mesos.OperationState_OPERATION_GONE_BY_OPERATOR)
	f.reconcileOperation("gone", a.id)
	f.operation("gone", mesos.OperationState_OPERATION_GONE_BY_OPERATOR)
	f.reconcileOperation("never", &mesos.AgentID{Value: proto.String("nobody")})
	f.operation("never", mesos.OperationState_OPERATION_UNKNOWN)
}

// operateCode sends a call of the operator and checks code and part of the body.
func (c *cluster) operateCode(call *master.Call, code int, says string) {
	c.t.Helper()
	b, err := wire.Protobuf.Marshal(call)
	if err != nil {
		c.t.Fatal(err)
	}
	got, body, _ := c.post("/api/v1", map[string]string{"Content-Type": wire.TypeProtobuf}, b)
	if got != code || !strings.Contains(body, says) {
		c.t.Fatalf("%s: %d %q, want %d %q", call.GetType(), got, body, code, says)
	}
}

func TestOperatorsOperations(t *testing.T) {
	c := newCluster(t)
	f := c.subscribed(wire.Protobuf, frameworkInfo(withPrincipal))
	a := c.agent(agentInfo("h1", small))
	o := f.offer()
	disk := reserved(t, "disk:100", "test")
	v := volume(disk, "v")
	reserve := func(r resource.Resources) *master.Call {
		return &master.Call{Type: master.Call_RESERVE_RESOURCES.Enum(), ReserveResources: &master.Call_ReserveResources{AgentId: a.id, Resources: r.Proto()}}
	}
	unreserve := &master.Call{Type: master.Call_UNRESERVE_RESOURCES.Enum(), UnreserveResources: &master.Call_UnreserveResources{AgentId: a.id, Resources: disk.Proto()}}
	create := &master.Call{Type: master.Call_CREATE_VOLUMES.Enum(), CreateVolumes: &master.Call_CreateVolumes{AgentId: a.id, Volumes: v}}
	destroy := &master.Call{Type: master.Call_DESTROY_VOLUMES.Enum(), DestroyVolumes: &master.Call_DestroyVolumes{AgentId: a.id, Volumes: v}}

	c.operateCode(&master.Call{Type: master.Call_RESERVE_RESOURCES.Enum()}, 400, "Expecting 'reserve_resources' to be present")
	bad := reserve(disk)
	bad.ReserveResources.AgentId = &mesos.AgentID{Value: proto.String("nobody")}
	c.operateCode(bad, 400, "No agent found with specified ID")
	c.operateCode(reserve(resource.MustParse("disk:1")), 400, "has no dynamic reservation")
	c.operateCode(reserve(reserved(t, "disk:1000000", "test")), 409, "not contained")
	c.operateCode(create, 409, "not contained")

	c.operateCode(reserve(disk), 202, "")
	if r := f.event(scheduler.Event_RESCIND).Rescind; r.OfferId.GetValue() != o.Id.GetValue() {
		t.Errorf("rescinded %v", r)
	}
	c.operateCode(create, 202, "")
	c.operateCode(create, 400, "Persistence ID 'v' is in use")
	c.operateCode(unreserve, 409, "not contained") // it is a volume
	d := a.receive("document", func(d *agentlink.Downlink) bool { return d.GetCheckpointResources().GetVersion() == 2 }).CheckpointResources
	if len(d.Resources) != 1 || d.Resources[0].GetDisk().GetPersistence().GetId() != "v" || len(d.Operations) != 0 {
		t.Errorf("document %v", d)
	}
	eventually(t, "the operator's operations are done", func() bool { return len(c.operations()) == 0 })

	was, _ := resource.FromProto(v)
	o = f.offerWith(was)
	x := taskInfo(o, "db", "cpus:1")
	other := volume(disk, "v", func(p *mesos.Resource) { p.Disk.Volume.ContainerPath = proto.String("/elsewhere") })
	x.Resources = append(x.Resources, other...)
	f.accept([]*mesos.OfferID{o.Id}, launchOp(x))
	run := a.receive("RunTask", func(d *agentlink.Downlink) bool { return d.RunTask != nil }).RunTask
	if got := run.Task.Resources[len(run.Task.Resources)-1].GetDisk().GetVolume().GetContainerPath(); got != "/elsewhere" {
		t.Errorf("the task mounts its volume at %q", got)
	}
	c.operateCode(destroy, 409, "Persistent volume 'v' is in use")
	a.update(f.id, "db", mesos.TaskState_TASK_FINISHED, nil)
	f.acknowledge(f.status("db", mesos.TaskState_TASK_FINISHED))
	if back, _ := resource.FromProto(f.offerWith(was).Resources); !strings.Contains(back.String(), "v]") {
		t.Errorf("%v", back)
	}
	c.operateCode(&master.Call{Type: master.Call_GROW_VOLUME.Enum(), GrowVolume: &master.Call_GrowVolume{AgentId: a.id, Volume: v[0], Addition: disk.Proto()[0]}}, 409, "not contained")
	c.operateCode(reserve(reserved(t, "disk:50", "test")), 202, "")
	c.operateCode(&master.Call{Type: master.Call_GROW_VOLUME.Enum(), GrowVolume: &master.Call_GrowVolume{AgentId: a.id, Volume: v[0], Addition: reserved(t, "disk:50", "test").Proto()[0]}}, 202, "")
	v = volume(reserved(t, "disk:150", "test"), "v")
	c.operateCode(&master.Call{Type: master.Call_SHRINK_VOLUME.Enum(), ShrinkVolume: &master.Call_ShrinkVolume{AgentId: a.id, Volume: v[0], Subtract: &mesos.Value_Scalar{Value: proto.Float64(50)}}}, 202, "")
	c.operateCode(destroy, 202, "")
	c.operateCode(unreserve, 202, "")
	c.operateCode(&master.Call{Type: master.Call_UNRESERVE_RESOURCES.Enum(), UnreserveResources: &master.Call_UnreserveResources{AgentId: a.id, Resources: reserved(t, "disk:50", "test").Proto()}}, 202, "")
	if now := c.total(); !now.Equal(resource.MustParse(small)) {
		t.Errorf("at the end: %v", now)
	}
}

// TestReservationsAreUpdated: an operator moves resources from role to role.
func TestReservationsAreUpdated(t *testing.T) {
	c := newCluster(t)
	a := c.agent(agentInfo("h1", small))
	call := func(from, to resource.Resources) *master.Call {
		return &master.Call{Type: master.Call_RESERVE_RESOURCES.Enum(), ReserveResources: &master.Call_ReserveResources{AgentId: a.id, Source: from.Proto(), Resources: to.Proto()}}
	}
	one, two := reserved(t, "cpus:1", "one"), reserved(t, "cpus:1", "two", "two/x")
	c.operateCode(call(resource.MustParse("cpus:1"), one), 202, "")
	c.operateCode(call(one, reserved(t, "cpus:2", "two")), 400, "differ in more")
	c.operateCode(call(one, two), 202, "")
	if now := c.total(); !now.Reserved("two/x").Equal(two) || !now.Reserved("one").Empty() {
		t.Errorf("%v", now)
	}
}

func TestLegacyOperations(t *testing.T) {
	c := newCluster(t)
	a := c.agent(agentInfo("h1", small))
	post := func(path string, code int, says string, form url.Values) {
		t.Helper()
		got, body, _ := c.post(path, map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, []byte(form.Encode()))
		if got != code || !strings.Contains(body, says) {
			t.Errorf("%s: %d %q, want %d %q", path, got, body, code, says)
		}
	}
	id := a.id.GetValue()
	const res = `{"name":"disk","type":"SCALAR","scalar":{"value":64},"role":"r","reservation":{"principal":"p"}%s}`
	disk := strings.Replace(res, "%s", "", 1)
	v := strings.Replace(res, "%s", `,"disk":{"persistence":{"id":"v"},"volume":{"mode":"RW","container_path":"x"}}`, 1)
	post("/reserve", 400, "Missing 'slaveId'", url.Values{})
	post("/reserve", 400, "Missing 'resources'", url.Values{"slaveId": {id}})
	post("/reserve", 400, "Error in parsing", url.Values{"slaveId": {id}, "resources": {"{"}})
	post("/reserve", 400, "No agent found", url.Values{"slaveId": {"x"}, "resources": {"[" + disk + "]"}})
	post("/master/reserve", 202, "", url.Values{"slaveId": {id}, "resources": {"[" + disk + "]"}})
	post("/create-volumes", 202, "", url.Values{"slaveId": {id}, "volumes": {"[" + v + "]"}})
	if _, body, _ := c.get("/slaves"); !strings.Contains(body, `"reserved_resources":{"r":{"cpus":0,"gpus":0,"mem":0,"disk":64}}`) {
		t.Errorf("/slaves: %s", body)
	}
	post("/destroy-volumes", 202, "", url.Values{"slaveId": {id}, "volumes": {"[" + v + "]"}})
	post("/unreserve", 202, "", url.Values{"slaveId": {id}, "resources": {"[" + disk + "]"}})
	if now := c.total(); !now.Equal(resource.MustParse(small)) {
		t.Errorf("at the end: %v", now)
	}
	if code, _, h := c.get("/reserve"); code != http.StatusMethodNotAllowed || h.Get("Allow") != "POST" {
		t.Errorf("GET: %d", code)
	}
}

func TestSharedVolumes(t *testing.T) {
	c := newCluster(t)
	f := c.subscribed(wire.Protobuf, frameworkInfo(func(i *mesos.FrameworkInfo) {
		withPrincipal(i)
		i.Capabilities = append(i.Capabilities, &mesos.FrameworkInfo_Capability{Type: mesos.FrameworkInfo_Capability_SHARED_RESOURCES.Enum()})
	}))
	a := c.agent(agentInfo("h1", small))
	disk := reserved(t, "disk:100", "test")
	v := volume(disk, "v", shared)
	o := f.offer()
	task := func(id string) *mesos.TaskInfo {
		x := taskInfo(o, id, "cpus:1")
		x.Resources = append(x.Resources, v...)
		return x
	}
	// Two tasks of one call have it, and it is offered all the same.
	f.accept([]*mesos.OfferID{o.Id}, reserveOp("", disk), createOp("", v), launchOp(task("t1"), task("t2")), destroyOp("early", v))
	f.operation("early", mesos.OperationState_OPERATION_ERROR)
	for range 2 {
		a.receive("RunTask", func(d *agentlink.Downlink) bool { return d.RunTask != nil })
	}
	was, _ := resource.FromProto(v)
	o = f.offerWith(was)
	agents := c.operate(wire.Protobuf, &master.Call{Type: master.Call_GET_AGENTS.Enum()}).GetAgents.Agents
	if used, _ := resource.FromProto(agents[0].AllocatedResources); used.Scalar("disk") != 100*resource.Unit || used.Scalar("cpus") != 2*resource.Unit {
		t.Errorf("used: %v", used)
	}
	g := c.subscribed(wire.Protobuf, frameworkInfo(withPrincipal))
	c.operateCode(&master.Call{Type: master.Call_DESTROY_VOLUMES.Enum(), DestroyVolumes: &master.Call_DestroyVolumes{AgentId: a.id, Volumes: v}}, 409, "is in use")
	for _, id := range []string{"t1", "t2"} {
		a.update(f.id, id, mesos.TaskState_TASK_FINISHED, nil)
		f.acknowledge(f.status(id, mesos.TaskState_TASK_FINISHED))
	}
	got, _ := resource.FromProto(g.offer().Resources)
	if !got.Filter(resource.Item.Shared).Empty() {
		t.Errorf("offered to a framework without the capability: %v", got)
	}
	// It is part of an offer that is still out, which must go.
	c.operateCode(&master.Call{Type: master.Call_DESTROY_VOLUMES.Enum(), DestroyVolumes: &master.Call_DestroyVolumes{AgentId: a.id, Volumes: v}}, 202, "")
	f.event(scheduler.Event_RESCIND)
	if now := c.total(); !now.Reserved("test").Equal(disk) {
		t.Errorf("at the end: %v", now)
	}
}

// TestOldAgentsGetNoOperations: what they would not answer is not asked of them.
func TestOldAgentsGetNoOperations(t *testing.T) {
	c := newCluster(t)
	f := c.subscribed(wire.Protobuf, frameworkInfo(withPrincipal))
	sub := agentInfo("h1", small)
	sub.Capabilities = nil
	a := c.agent(sub)
	cpu := reserved(t, "cpus:1", "test")
	f.accept([]*mesos.OfferID{f.offer().Id}, reserveOp("r", cpu))
	f.operation("r", mesos.OperationState_OPERATION_ERROR)
	c.operateCode(&master.Call{Type: master.Call_RESERVE_RESOURCES.Enum(), ReserveResources: &master.Call_ReserveResources{AgentId: a.id, Resources: cpu.Proto()}}, 409, "release")
}

// TestReservationsOutliveTheConfiguration: less is configured than was reserved.
func TestReservationsOutliveTheConfiguration(t *testing.T) {
	c := newCluster(t)
	a := c.agent(agentInfo("h1", "cpus:4;mem:100"))
	call := &master.Call{Type: master.Call_RESERVE_RESOURCES.Enum(), ReserveResources: &master.Call_ReserveResources{AgentId: a.id, Resources: reserved(t, "cpus:4;mem:50", "r").Proto()}}
	c.operateCode(call, 202, "")
	a.receive("document", isDocument)
	eventually(t, "it is kept", func() bool { return len(c.operations()) == 0 })
	a.hangup()
	a.sub.Agent.Resources = resource.MustParse("cpus:2;mem:100").Proto()
	a.connect()
	if now := c.total(); !now.Equal(reserved(t, "cpus:4;mem:50", "r").Add(resource.MustParse("mem:50"))) {
		t.Errorf("%v", now)
	}
}

// TestStatusesAreRepeated until they are acknowledged.
func TestStatusesAreRepeated(t *testing.T) {
	cfg := testConfig()
	cfg.AgentMissedPings = 1_000_000
	var ahead atomic.Int64
	c := lead(t, memory.New(), cfg, func(o *dcosmaster.Options) {
		o.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	})
	f := c.subscribed(wire.Protobuf, frameworkInfo(withPrincipal))
	c.agent(agentInfo("h1", small))
	f.accept([]*mesos.OfferID{f.offer().Id}, reserveOp("r", reserved(t, "cpus:1", "test")))
	first := f.operation("r", mesos.OperationState_OPERATION_FINISHED)
	ahead.Add(int64(10 * time.Second))
	again := f.operation("r", mesos.OperationState_OPERATION_FINISHED)
	if string(again.Uuid.GetValue()) != string(first.Uuid.GetValue()) {
		t.Errorf("%v is not %v", again, first)
	}
}
