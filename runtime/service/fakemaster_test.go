package service_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/api/mesos"
	masterapi "dcos.example/dcos/runtime/api/mesos/master"
	"dcos.example/dcos/runtime/api/mesos/scheduler"
	"dcos.example/dcos/runtime/api/wire"
	"dcos.example/dcos/runtime/resource"
	"dcos.example/dcos/runtime/server"
	"dcos.example/dcos/runtime/task"
)

// master speaks the scheduler API for many frameworks and plays the agents
// behind it, with their reservations and volumes. It refuses nothing silently:
// an operation that a master would refuse fails the test, as does a task that
// would run twice.
type master struct {
	t   *testing.T
	mem *server.Memory

	mu         sync.Mutex
	agents     []*agent
	frameworks map[string]*fw
	tasks      map[string]*mtask
	next       int
	fate       func(*mesos.TaskInfo) fate // of a task; nil: it runs, or ends if that is its goal
	lose       func() bool                // whether the next ACCEPT gets lost
	launched   []*mesos.TaskInfo
	refuse     string       // the framework that may not subscribe
	ended      func(*mtask) // with mu held, when a task has ended
	live       func()       // with mu held, after each launch
}

// fate is what becomes of a task.
type fate struct {
	fails    time.Duration // it fails after so long; 0: it does not
	sick     bool          // its checks do not pass
	stubborn bool          // a kill takes a minute
}

type agent struct {
	id, host string
	total    resource.Resources // reservations and volumes included
	attrs    []*mesos.Attribute
	away     bool
	gone     bool
}

type fw struct {
	info       *mesos.FrameworkInfo
	stream     chan *scheduler.Event
	streamID   string
	cut        chan struct{}
	suppressed bool
	filtered   map[string]bool // agents it declined
	offers     map[string]*offer
	calls      map[scheduler.Call_Type]int
}

type offer struct {
	agent *agent
	res   resource.Resources
}

type mtask struct {
	fw    *fw
	info  *mesos.TaskInfo
	agent *agent
	state mesos.TaskState
	res   resource.Resources
	up    bool // running and ready
}

func newMaster(t *testing.T, agents int, res string) *master {
	m := &master{t: t, mem: server.NewMemory(), frameworks: map[string]*fw{}, tasks: map[string]*mtask{}}
	for range agents {
		m.add(res)
	}
	s := &http.Server{Handler: m}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(m.mem) }()
	t.Cleanup(func() {
		m.cutAll()
		_ = s.Close()
		<-done
	})
	return m
}

func (m *master) add(res string) *agent {
	n := len(m.agents)
	a := &agent{id: fmt.Sprint("agent-", n), host: fmt.Sprint("host-", n), total: resource.MustParse(res)}
	m.agents = append(m.agents, a)
	return a
}

// cutAll ends all subscriptions as a network failure does.
func (m *master) cutAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, f := range m.frameworks {
		if f.cut != nil {
			close(f.cut)
		}
		f.cut, f.stream = nil, nil
		f.offers = map[string]*offer{}
	}
}

func (m *master) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	if r.URL.Path == "/api/v1" {
		c := &masterapi.Call{}
		if err := wire.Protobuf.Unmarshal(body, c); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		m.operator(w, c.GetType())
		return
	}
	c := &scheduler.Call{}
	if err := wire.Protobuf.Unmarshal(body, c); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if c.GetType() == scheduler.Call_SUBSCRIBE {
		m.subscribe(w, r, c.GetSubscribe())
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.frameworks[c.GetFrameworkId().GetValue()]
	if f == nil || f.stream == nil || r.Header.Get(wire.HeaderStreamID) != f.streamID {
		http.Error(w, "Framework is not subscribed", http.StatusForbidden)
		return
	}
	f.calls[c.GetType()]++
	m.take(f, c)
	w.WriteHeader(http.StatusAccepted)
}

func (m *master) operator(w http.ResponseWriter, typ masterapi.Call_Type) {
	m.mu.Lock()
	defer m.mu.Unlock()
	answer := &masterapi.Response{Type: masterapi.Response_Type(masterapi.Response_Type_value[typ.String()]).Enum(), GetFrameworks: &masterapi.Response_GetFrameworks{}}
	for _, f := range m.frameworks {
		if f.info != nil {
			answer.GetFrameworks.Frameworks = append(answer.GetFrameworks.Frameworks, &masterapi.Response_GetFrameworks_Framework{
				FrameworkInfo: f.info, Active: proto.Bool(f.stream != nil), Connected: proto.Bool(f.stream != nil), Recovered: proto.Bool(false),
			})
		}
	}
	out := &masterapi.Response_GetAgents{}
	for _, a := range m.agents {
		if a.away || a.gone {
			continue
		}
		var used resource.Resources
		for _, t := range m.tasks {
			if t.agent == a {
				used = used.Add(t.res)
			}
		}
		out.Agents = append(out.Agents, &masterapi.Response_GetAgents_Agent{
			AgentInfo: &mesos.AgentInfo{Hostname: &a.host, Id: &mesos.AgentID{Value: &a.id}, Attributes: a.attrs},
			Active:    proto.Bool(true), Version: proto.String("x"), TotalResources: a.total.Proto(), AllocatedResources: used.Proto(),
		})
	}
	answer.GetAgents = out
	b, err := wire.Protobuf.Marshal(answer)
	if err != nil {
		m.t.Error(err)
	}
	w.Header().Set("Content-Type", wire.Protobuf.ContentType())
	_, _ = w.Write(b)
}

func (m *master) subscribe(w http.ResponseWriter, r *http.Request, s *scheduler.Call_Subscribe) {
	m.mu.Lock()
	info := proto.CloneOf(s.GetFrameworkInfo())
	if m.refuse == info.GetName() {
		m.mu.Unlock()
		http.Error(w, "Not authorized to use role", http.StatusForbidden)
		return
	}
	if info.GetId() == nil {
		info.Id = &mesos.FrameworkID{Value: proto.String(fmt.Sprintf("fw-%04d", len(m.frameworks)))}
		m.frameworks[info.GetId().GetValue()] = &fw{calls: map[scheduler.Call_Type]int{}}
	}
	f := m.frameworks[info.GetId().GetValue()]
	out := wire.NewRecordWriter(w)
	flush := http.NewResponseController(w)
	send := func(e *scheduler.Event) bool {
		b, err := wire.Protobuf.Marshal(e)
		if err != nil {
			m.t.Errorf("event: %v", err)
			return false
		}
		return out.Write(b) == nil && flush.Flush() == nil
	}
	w.Header().Set("Content-Type", wire.Protobuf.ContentType())
	if f == nil {
		m.mu.Unlock()
		w.Header().Set(wire.HeaderStreamID, "none")
		send(&scheduler.Event{Type: scheduler.Event_ERROR.Enum(), Error: &scheduler.Event_Error{Message: proto.String("Framework has been removed")}})
		return
	}
	if f.cut != nil {
		close(f.cut)
	}
	cut, stream := make(chan struct{}), make(chan *scheduler.Event, 10000)
	f.info, f.cut, f.stream, f.streamID = info, cut, stream, uuid.NewString()
	f.suppressed, f.filtered, f.offers = len(s.GetSuppressedRoles()) > 0, map[string]bool{}, map[string]*offer{}
	w.Header().Set(wire.HeaderStreamID, f.streamID)
	m.mu.Unlock()
	send(&scheduler.Event{Type: scheduler.Event_SUBSCRIBED.Enum(), Subscribed: &scheduler.Event_Subscribed{
		FrameworkId: info.Id, HeartbeatIntervalSeconds: proto.Float64(15),
		MasterInfo: &mesos.MasterInfo{Id: proto.String("m"), Ip: proto.Uint32(0), Port: proto.Uint32(5050), Hostname: proto.String("master")},
	}})
	beat := time.NewTicker(15 * time.Second)
	defer beat.Stop()
	for {
		var e *scheduler.Event
		select {
		case e = <-stream:
		case <-beat.C:
			e = &scheduler.Event{Type: scheduler.Event_HEARTBEAT.Enum()}
		case <-cut:
			panic(http.ErrAbortHandler)
		case <-r.Context().Done():
			m.mu.Lock()
			if f.stream == stream {
				f.stream, f.cut, f.offers = nil, nil, map[string]*offer{}
			}
			m.mu.Unlock()
			return
		}
		if !send(e) {
			return
		}
	}
}

func (f *fw) emit(e *scheduler.Event) {
	if f.stream != nil {
		f.stream <- e
	}
}

func (f *fw) role() string { return f.info.GetRoles()[0] }

func (m *master) take(f *fw, c *scheduler.Call) {
	switch c.GetType() {
	case scheduler.Call_REVIVE:
		f.suppressed = false
		clear(f.filtered)
		m.allocate()
	case scheduler.Call_SUPPRESS:
		f.suppressed = true
	case scheduler.Call_DECLINE:
		for _, id := range c.GetDecline().GetOfferIds() {
			if o := f.offers[id.GetValue()]; o != nil {
				delete(f.offers, id.GetValue())
				f.filtered[o.agent.id] = true
			}
		}
		m.allocate()
	case scheduler.Call_ACCEPT:
		m.accept(f, c.GetAccept())
	case scheduler.Call_KILL:
		m.kill(c.GetKill().GetTaskId().GetValue())
	case scheduler.Call_RECONCILE:
		m.reconcile(f, c.GetReconcile().GetTasks())
	case scheduler.Call_TEARDOWN:
		for id, t := range m.tasks {
			if t.fw == f {
				if t.agent.away {
					delete(m.tasks, id) // when the agent returns
					continue
				}
				m.t.Errorf("framework %s is removed while task %s runs", f.info.GetName(), id)
				delete(m.tasks, id)
			}
		}
		delete(m.frameworks, f.info.GetId().GetValue())
		close(f.cut)
		f.cut, f.stream = nil, nil
	}
}

func (m *master) kill(id string) {
	t := m.tasks[id]
	if t == nil || t.agent.away || t.state == task.Killing {
		return
	}
	after := 100 * time.Millisecond
	if m.fated(t.info).stubborn {
		after = time.Minute
	}
	m.report(t, task.Killing, nil, "")
	time.AfterFunc(after, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.tasks[id] == t && !t.agent.away {
			m.report(t, task.Killed, nil, "Command terminated with signal Terminated")
		}
	})
}

func (m *master) reconcile(f *fw, want []*scheduler.Call_Reconcile_Task) {
	answer := func(id, agentID string, s mesos.TaskState, healthy *bool) {
		f.emit(&scheduler.Event{Type: scheduler.Event_UPDATE.Enum(), Update: &scheduler.Event_Update{Status: &mesos.TaskStatus{
			TaskId: &mesos.TaskID{Value: &id}, State: s.Enum(), Reason: mesos.TaskStatus_REASON_RECONCILIATION.Enum(),
			AgentId: &mesos.AgentID{Value: &agentID}, Healthy: healthy,
		}}})
	}
	latest := func(id string, t *mtask) {
		var healthy *bool
		if t.info.GetHealthCheck() != nil && t.state == task.Running && t.up {
			healthy = proto.Bool(true)
		}
		answer(id, t.agent.id, t.state, healthy)
	}
	if len(want) == 0 {
		for id, t := range m.tasks {
			if t.fw == f {
				latest(id, t)
			}
		}
		return
	}
	for _, w := range want {
		id := w.GetTaskId().GetValue()
		if t := m.tasks[id]; t != nil {
			latest(id, t)
			continue
		}
		state := task.Unknown
		for _, a := range m.agents {
			if a.id == w.GetAgentId().GetValue() {
				switch {
				case a.gone:
					state = task.GoneByOperator
				case a.away:
					state = task.Unreachable
				default:
					state = task.Gone
				}
			}
		}
		answer(id, w.GetAgentId().GetValue(), state, nil)
	}
}

// free is what of an agent is neither used nor offered.
func (m *master) free(a *agent) resource.Resources {
	rs := a.total
	for _, t := range m.tasks {
		if t.agent == a {
			rs = rs.Sub(private(t.res))
		}
	}
	for _, f := range m.frameworks {
		for _, o := range f.offers {
			if o.agent == a {
				rs = rs.Sub(private(o.res))
			}
		}
	}
	return rs
}

// private is what only one can have: all but shared volumes.
func private(rs resource.Resources) resource.Resources {
	return rs.Filter(func(it resource.Item) bool { return !it.Shared() })
}

// allocate offers what is free to the first framework that wants it.
func (m *master) allocate() {
	names := make([]string, 0, len(m.frameworks))
	for id := range m.frameworks {
		names = append(names, id)
	}
	slices.Sort(names)
	for _, id := range names {
		f := m.frameworks[id]
		if f.suppressed || f.stream == nil {
			continue
		}
		var offers []*mesos.Offer
		for _, a := range m.agents {
			if a.away || a.gone || f.filtered[a.id] {
				continue
			}
			rs := m.free(a).AllocatableTo(f.role())
			if private(rs).Empty() {
				continue
			}
			m.next++
			id := fmt.Sprintf("O%06d", m.next)
			f.offers[id] = &offer{a, rs}
			offers = append(offers, &mesos.Offer{
				Id: &mesos.OfferID{Value: &id}, FrameworkId: f.info.GetId(), AgentId: &mesos.AgentID{Value: &a.id},
				Hostname: &a.host, Resources: rs.Allocate(f.role()).Proto(), Attributes: a.attrs,
				AllocationInfo: &mesos.Resource_AllocationInfo{Role: proto.String(f.role())},
			})
		}
		if len(offers) > 0 {
			f.emit(&scheduler.Event{Type: scheduler.Event_OFFERS.Enum(), Offers: &scheduler.Event_Offers{Offers: offers}})
		}
	}
}

func (m *master) accept(f *fw, c *scheduler.Call_Accept) {
	var a *agent
	var rest resource.Resources
	for _, id := range c.GetOfferIds() {
		o := f.offers[id.GetValue()]
		delete(f.offers, id.GetValue())
		if o == nil || a != nil && o.agent != a {
			a = nil
			break
		}
		a, rest = o.agent, rest.Add(o.res)
	}
	if a == nil || a.away || m.lose != nil && m.lose() {
		for _, op := range c.GetOperations() { // rescinded on the way
			for _, info := range op.GetLaunch().GetTaskInfos() {
				f.emit(status(info, task.Dropped, "Task launched with invalid offers"))
			}
			if op.GetId() != nil {
				f.emit(operationStatus(op, mesos.OperationState_OPERATION_DROPPED))
			}
		}
		m.allocate()
		return
	}
	for _, op := range c.GetOperations() {
		if op.GetType() == mesos.Offer_Operation_LAUNCH {
			for _, info := range op.GetLaunch().GetTaskInfos() {
				rest = m.launch(f, a, info, rest)
			}
			continue
		}
		from, to := m.conversion(op)
		if !rest.Contains(from) {
			m.t.Errorf("%s of %v, but only %v is there", op.GetType(), from, rest)
			f.emit(operationStatus(op, mesos.OperationState_OPERATION_ERROR))
			continue
		}
		rest, a.total = rest.Sub(from).Add(to), a.total.Sub(from).Add(to)
		f.emit(operationStatus(op, mesos.OperationState_OPERATION_FINISHED))
	}
	f.filtered[a.id] = true
	m.allocate()
}

func operationStatus(op *mesos.Offer_Operation, s mesos.OperationState) *scheduler.Event {
	id := uuid.New()
	return &scheduler.Event{Type: scheduler.Event_UPDATE_OPERATION_STATUS.Enum(), UpdateOperationStatus: &scheduler.Event_UpdateOperationStatus{
		Status: &mesos.OperationStatus{OperationId: op.GetId(), State: s.Enum(), Uuid: &mesos.UUID{Value: id[:]}},
	}}
}

func (m *master) conversion(op *mesos.Offer_Operation) (from, to resource.Resources) {
	read := func(ps []*mesos.Resource) resource.Resources {
		rs, err := resource.FromProto(ps)
		if err != nil {
			m.t.Error(err)
		}
		return rs.Unallocate()
	}
	pop := func(rs resource.Resources) resource.Resources {
		out, err := rs.Pop()
		if err != nil {
			m.t.Error(err)
		}
		return out
	}
	switch op.GetType() {
	case mesos.Offer_Operation_RESERVE:
		to = read(op.GetReserve().GetResources())
		return pop(to), to
	case mesos.Offer_Operation_UNRESERVE:
		from = read(op.GetUnreserve().GetResources())
		return from, pop(from)
	case mesos.Offer_Operation_CREATE:
		to = read(op.GetCreate().GetVolumes())
		return to.WithoutVolumes(), to
	default:
		from = read(op.GetDestroy().GetVolumes())
		return from, from.WithoutVolumes()
	}
}

func (m *master) fated(info *mesos.TaskInfo) fate {
	if m.fate == nil {
		return fate{}
	}
	return m.fate(info)
}

func (m *master) launch(f *fw, a *agent, info *mesos.TaskInfo, rest resource.Resources) resource.Resources {
	rs, err := resource.FromProto(info.GetResources())
	rs = rs.Unallocate()
	if err != nil || !rest.Contains(rs) {
		m.t.Errorf("task %s wants %v of %v (%v)", info.GetTaskId().GetValue(), rs, rest, err)
		return rest
	}
	for id, t := range m.tasks {
		if t.fw == f && t.info.GetName() == info.GetName() && !t.agent.away {
			m.t.Errorf("task %s is launched while %s runs", info.GetTaskId().GetValue(), id)
		}
	}
	t := &mtask{fw: f, info: info, agent: a, state: task.Staging, res: rs}
	id := info.GetTaskId().GetValue()
	m.tasks[id] = t
	m.launched = append(m.launched, info)
	if m.live != nil {
		m.live()
	}
	fate := m.fated(info)
	short := label(info.GetLabels(), "goal_state") != "RUNNING" && !strings.HasPrefix(info.GetCommand().GetValue(), "trap")
	after := func(d time.Duration, g func()) {
		time.AfterFunc(d, func() {
			m.mu.Lock()
			defer m.mu.Unlock()
			if m.tasks[id] == t && !a.away && t.state != task.Killing {
				g()
			}
		})
	}
	after(10*time.Millisecond, func() { t.up = info.GetHealthCheck() == nil; m.report(t, task.Running, nil, "") })
	if info.GetHealthCheck() != nil && !fate.sick {
		after(2*time.Second, func() { t.up = true; m.report(t, task.Running, proto.Bool(true), "") })
	}
	if fate.fails > 0 {
		after(fate.fails, func() { m.report(t, task.Failed, nil, "Command exited with status 1") })
	} else if short {
		after(time.Second, func() { m.report(t, task.Finished, nil, "") })
	}
	return rest.Sub(private(rs))
}

func label(ls *mesos.Labels, key string) string {
	for _, l := range ls.GetLabels() {
		if l.GetKey() == key {
			return l.GetValue()
		}
	}
	return ""
}

func status(info *mesos.TaskInfo, s mesos.TaskState, text string) *scheduler.Event {
	id := uuid.New()
	return &scheduler.Event{Type: scheduler.Event_UPDATE.Enum(), Update: &scheduler.Event_Update{Status: &mesos.TaskStatus{
		TaskId: info.GetTaskId(), State: s.Enum(), AgentId: info.GetAgentId(), Uuid: id[:], Message: &text,
	}}}
}

// report sends a status as an agent does and frees resources at the end.
func (m *master) report(t *mtask, s mesos.TaskState, healthy *bool, text string) {
	t.state = s
	e := status(t.info, s, text)
	e.GetUpdate().GetStatus().Healthy = healthy
	t.fw.emit(e)
	if task.Terminal(s) {
		t.up = false
		delete(m.tasks, t.info.GetTaskId().GetValue())
		if m.ended != nil {
			m.ended(t)
		}
		for _, f := range m.frameworks { // freed resources clear filters
			delete(f.filtered, t.agent.id)
		}
		m.allocate()
	}
}

func (m *master) agent(host string) *agent {
	for _, a := range m.agents {
		if a.host == host {
			return a
		}
	}
	m.t.Fatalf("there is no %s", host)
	return nil
}

// leave cuts a host off: its tasks run on, unseen.
func (m *master) leave(host string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.agent(host)
	a.away = true
	for _, f := range m.frameworks {
		for id, o := range f.offers {
			if o.agent == a {
				delete(f.offers, id)
				f.emit(&scheduler.Event{Type: scheduler.Event_RESCIND.Enum(), Rescind: &scheduler.Event_Rescind{OfferId: &mesos.OfferID{Value: proto.String(id)}}})
			}
		}
	}
	for _, t := range m.tasks {
		if t.agent == a {
			t.state = task.Unreachable
			t.fw.emit(status(t.info, task.Unreachable, "Agent is not reachable"))
		}
	}
}

// comeBack ends that.
func (m *master) comeBack(host string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.agent(host)
	a.away = false
	for _, t := range m.tasks {
		if t.agent == a {
			t.up = true
			m.report(t, task.Running, nil, "Agent re-registered")
		}
	}
	for _, f := range m.frameworks {
		delete(f.filtered, a.id)
	}
	m.allocate()
}

// die makes a host that is gone for good, marked so by an operator.
func (m *master) die(host string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.agent(host)
	a.away, a.gone = true, true
	for id, t := range m.tasks {
		if t.agent == a {
			delete(m.tasks, id)
			t.fw.emit(status(t.info, task.GoneByOperator, "Agent is gone"))
		}
	}
	a.total = resource.Resources{}
}

// crash ends the tasks of a name as if they had failed.
func (m *master) crash(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range m.tasks {
		if t.info.GetName() == name {
			m.report(t, task.Failed, nil, "Command exited with status 137")
		}
	}
}

// where lists the tasks that run, by name, with their host.
func (m *master) where() map[string]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[string]string{}
	for _, t := range m.tasks {
		if !t.agent.away {
			out[t.info.GetName()] = t.agent.host
		}
	}
	return out
}

// leftovers lists what is reserved on any host.
func (m *master) leftovers() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := ""
	for _, a := range m.agents {
		if rs := a.total.Reserved(""); !rs.Empty() {
			out += a.host + ": " + rs.String() + "\n"
		}
	}
	return out
}

// last is the latest launch of a name.
func (m *master) last(name string) *mesos.TaskInfo {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, info := range slices.Backward(m.launched) {
		if info.GetName() == name {
			return info
		}
	}
	return nil
}

func (m *master) launches(name string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, info := range m.launched {
		if info.GetName() == name {
			n++
		}
	}
	return n
}

// volumeOf is the id of a task's volume.
func volumeOf(info *mesos.TaskInfo) string {
	for _, r := range info.GetResources() {
		if id := r.GetDisk().GetPersistence().GetId(); id != "" {
			return id
		}
	}
	return ""
}
