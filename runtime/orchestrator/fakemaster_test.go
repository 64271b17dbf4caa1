package orchestrator_test

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/scheduler"
	"dcos.example/dcos/runtime/api/wire"
	"dcos.example/dcos/runtime/resource"
	"dcos.example/dcos/runtime/server"
	"dcos.example/dcos/runtime/task"
)

// master speaks the scheduler API for one framework and plays the agents
// behind it: tasks run as soon as they are launched, unless hold says so.
type master struct {
	t   *testing.T
	mem *server.Memory

	mu         sync.Mutex
	agents     []*agent
	tasks      map[string]*mtask
	framework  *mesos.FrameworkInfo
	stream     chan *scheduler.Event // of the present subscription
	streamID   string
	gone       chan struct{} // closed to cut the subscription
	suppressed bool
	offers     map[string]*agent
	nextOffer  int
	acks       int
	calls      map[scheduler.Call_Type]int
	hold       func(*mesos.TaskInfo) bool // tasks that stay staging
	launched   []*mesos.TaskInfo
	biggest    int          // most tasks in one ACCEPT
	ended      func(*mtask) // called when a task has ended, with mu held
	asked      int          // inverse offers made
}

type agent struct {
	id, host string
	free     resource.Resources
	attrs    []*mesos.Attribute
	offered  bool
	filtered bool
	away     bool
	drain    string // the inverse offer that asks for it; "": it is not drained
	since    time.Time
}

type mtask struct {
	info  *mesos.TaskInfo
	agent *agent
	state mesos.TaskState
	res   resource.Resources
}

func newMaster(t *testing.T, agents int, res string) *master {
	m := &master{
		t: t, mem: server.NewMemory(), tasks: map[string]*mtask{}, offers: map[string]*agent{},
		calls: map[scheduler.Call_Type]int{},
	}
	for i := range agents {
		m.addAgent(fmt.Sprintf("host-%d", i), res)
	}
	s := &http.Server{Handler: m}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(m.mem) }()
	t.Cleanup(func() {
		m.cut()
		_ = s.Close()
		<-done
	})
	return m
}

func (m *master) addAgent(host, res string, attrs ...*mesos.Attribute) *agent {
	rs := resource.MustParse(res).Allocate("slave_public")
	a := &agent{id: "agent-" + host, host: host, free: rs, attrs: attrs}
	m.agents = append(m.agents, a)
	return a
}

// cut ends the subscription as a network failure does.
func (m *master) cut() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.gone != nil {
		close(m.gone)
		m.gone, m.stream = nil, nil
	}
	for _, a := range m.agents {
		if a.offered {
			a.offered = false
		}
		a.filtered = false
	}
	clear(m.offers)
}

func (m *master) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
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
	if m.stream == nil || r.Header.Get(wire.HeaderStreamID) != m.streamID {
		http.Error(w, "Framework is not subscribed", http.StatusForbidden)
		return
	}
	m.calls[c.GetType()]++
	m.take(c)
	w.WriteHeader(http.StatusAccepted)
}

func (m *master) subscribe(w http.ResponseWriter, r *http.Request, s *scheduler.Call_Subscribe) {
	m.mu.Lock()
	if m.gone != nil {
		close(m.gone)
	}
	gone, stream := make(chan struct{}), make(chan *scheduler.Event, 10000)
	m.gone, m.stream, m.streamID = gone, stream, uuid.NewString()
	info := proto.CloneOf(s.GetFrameworkInfo())
	if info.GetId() == nil {
		info.Id = &mesos.FrameworkID{Value: proto.String("fw-0001")}
	}
	m.framework = info
	m.suppressed = len(s.GetSuppressedRoles()) > 0
	w.Header().Set("Content-Type", wire.Protobuf.ContentType())
	w.Header().Set(wire.HeaderStreamID, m.streamID)
	m.mu.Unlock()
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
	send(&scheduler.Event{Type: scheduler.Event_SUBSCRIBED.Enum(), Subscribed: &scheduler.Event_Subscribed{
		FrameworkId: info.Id, HeartbeatIntervalSeconds: proto.Float64(15),
		MasterInfo: &mesos.MasterInfo{Id: proto.String("m"), Ip: proto.Uint32(0), Port: proto.Uint32(5050), Hostname: proto.String("master")},
	}})
	m.mu.Lock()
	for _, a := range m.agents {
		if a.drain != "" && m.stream == stream {
			m.ask(a)
		}
	}
	m.mu.Unlock()
	beat := time.NewTicker(15 * time.Second)
	defer beat.Stop()
	for {
		var e *scheduler.Event
		select {
		case e = <-stream:
		case <-beat.C:
			e = &scheduler.Event{Type: scheduler.Event_HEARTBEAT.Enum()}
		case <-gone:
			panic(http.ErrAbortHandler)
		case <-r.Context().Done():
			return
		}
		if !send(e) {
			return
		}
	}
}

func (m *master) emit(e *scheduler.Event) {
	if m.stream != nil {
		m.stream <- e
	}
}

func (m *master) take(c *scheduler.Call) {
	switch c.GetType() {
	case scheduler.Call_REVIVE:
		m.suppressed = false
		for _, a := range m.agents {
			a.filtered = false
		}
		m.allocate()
	case scheduler.Call_SUPPRESS:
		m.suppressed = true
	case scheduler.Call_DECLINE:
		for _, id := range c.GetDecline().GetOfferIds() {
			m.giveBack(id.GetValue(), true)
		}
	case scheduler.Call_ACCEPT:
		m.accept(c.GetAccept())
	case scheduler.Call_KILL:
		if t := m.tasks[c.GetKill().GetTaskId().GetValue()]; t != nil && !t.agent.away {
			m.report(t, task.Killed, nil, "Command terminated with signal Terminated")
		}
	case scheduler.Call_ACKNOWLEDGE:
		m.acks++
	case scheduler.Call_RECONCILE:
		want := c.GetReconcile().GetTasks()
		if len(want) == 0 {
			for _, t := range m.tasks {
				m.reconciled(t.info.GetTaskId().GetValue(), t.state)
			}
			return
		}
		for _, w := range want {
			id := w.GetTaskId().GetValue()
			if t := m.tasks[id]; t != nil {
				m.reconciled(id, t.state)
			} else {
				m.reconciled(id, task.Gone)
			}
		}
	}
}

func (m *master) reconciled(id string, s mesos.TaskState) {
	m.emit(&scheduler.Event{Type: scheduler.Event_UPDATE.Enum(), Update: &scheduler.Event_Update{Status: &mesos.TaskStatus{
		TaskId: &mesos.TaskID{Value: proto.String(id)}, State: s.Enum(), Reason: mesos.TaskStatus_REASON_RECONCILIATION.Enum(),
	}}})
}

func (m *master) giveBack(id string, filter bool) {
	if a := m.offers[id]; a != nil {
		delete(m.offers, id)
		a.offered, a.filtered = false, filter
	}
}

// allocate offers everything free on every agent.
func (m *master) allocate() {
	if m.suppressed || m.stream == nil {
		return
	}
	var offers []*mesos.Offer
	for _, a := range m.agents {
		if a.offered || a.filtered || a.away || a.drain != "" || a.free.Scalar(resource.CPUs) <= 0 {
			continue
		}
		m.nextOffer++
		id := fmt.Sprintf("O%06d", m.nextOffer)
		a.offered = true
		m.offers[id] = a
		offers = append(offers, &mesos.Offer{
			Id: &mesos.OfferID{Value: &id}, FrameworkId: m.framework.GetId(), AgentId: &mesos.AgentID{Value: &a.id},
			Hostname: &a.host, Resources: a.free.Proto(), Attributes: a.attrs,
			AllocationInfo: &mesos.Resource_AllocationInfo{Role: proto.String("slave_public")},
		})
	}
	if len(offers) > 0 {
		m.emit(&scheduler.Event{Type: scheduler.Event_OFFERS.Enum(), Offers: &scheduler.Event_Offers{Offers: offers}})
	}
}

func (m *master) accept(c *scheduler.Call_Accept) {
	a := m.offers[c.GetOfferIds()[0].GetValue()]
	if a == nil {
		for _, op := range c.GetOperations() { // rescinded on the way
			for _, info := range op.GetLaunch().GetTaskInfos() {
				m.emit(&scheduler.Event{Type: scheduler.Event_UPDATE.Enum(), Update: &scheduler.Event_Update{Status: &mesos.TaskStatus{
					TaskId: info.GetTaskId(), State: task.Dropped.Enum(), AgentId: info.GetAgentId(), Reason: mesos.TaskStatus_REASON_INVALID_OFFERS.Enum(),
				}}})
			}
		}
		return
	}
	m.giveBack(c.GetOfferIds()[0].GetValue(), true)
	for _, op := range c.GetOperations() {
		m.biggest = max(m.biggest, len(op.GetLaunch().GetTaskInfos()))
		for _, info := range op.GetLaunch().GetTaskInfos() {
			rs, err := resource.FromProto(info.GetResources())
			if err != nil || !a.free.Contains(rs) {
				m.t.Errorf("task %s wants %v of %v (%v)", info.GetTaskId().GetValue(), rs, a.free, err)
				continue
			}
			a.free = a.free.Sub(rs)
			t := &mtask{info: info, agent: a, state: task.Staging, res: rs}
			m.tasks[info.GetTaskId().GetValue()] = t
			m.launched = append(m.launched, info)
			m.report(t, task.Starting, nil, "")
			if m.hold == nil || !m.hold(info) {
				m.report(t, task.Running, nil, "")
			}
		}
	}
}

// report sends a status as an agent does and frees resources at the end.
func (m *master) report(t *mtask, s mesos.TaskState, healthy *bool, text string) {
	t.state = s
	id := uuid.New()
	m.emit(&scheduler.Event{Type: scheduler.Event_UPDATE.Enum(), Update: &scheduler.Event_Update{Status: &mesos.TaskStatus{
		TaskId: t.info.GetTaskId(), State: s.Enum(), AgentId: t.info.GetAgentId(), Uuid: id[:], Healthy: healthy, Message: &text,
		Source: mesos.TaskStatus_SOURCE_EXECUTOR.Enum(),
		ContainerStatus: &mesos.ContainerStatus{NetworkInfos: []*mesos.NetworkInfo{{
			IpAddresses: []*mesos.NetworkInfo_IPAddress{{IpAddress: proto.String("198.19.30.1")}},
		}}},
	}}})
	if task.Terminal(s) {
		delete(m.tasks, t.info.GetTaskId().GetValue())
		if m.ended != nil {
			m.ended(t)
		}
		t.agent.free = t.agent.free.Add(t.res)
		t.agent.filtered = false
		m.allocate()
	}
}

// each applies f to every living task.
func (m *master) each(f func(id string, t *mtask)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, t := range m.tasks {
		f(id, t)
	}
}

// spread counts living tasks by host.
func (m *master) spread() map[string]int {
	out := map[string]int{}
	m.each(func(_ string, t *mtask) { out[t.agent.host]++ })
	return out
}

func (m *master) launches() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.launched)
}

func (m *master) living() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.tasks)
}

func (m *master) id() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.framework.GetId().GetValue()
}

func (m *master) called(t scheduler.Call_Type) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls[t]
}

// ask makes the inverse offer for an agent.
func (m *master) ask(a *agent) {
	m.asked++
	a.drain = fmt.Sprintf("I%06d", m.asked)
	m.emit(&scheduler.Event{Type: scheduler.Event_INVERSE_OFFERS.Enum(), InverseOffers: &scheduler.Event_InverseOffers{InverseOffers: []*mesos.InverseOffer{{
		Id: &mesos.OfferID{Value: proto.String(a.drain)}, FrameworkId: m.framework.GetId(), AgentId: &mesos.AgentID{Value: &a.id},
		Unavailability: &mesos.Unavailability{Start: &mesos.TimeInfo{Nanoseconds: proto.Int64(a.since.UnixNano())}},
	}}}})
}

// drain begins a drain of the agent on host.
func (m *master) drain(host string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range m.agents {
		if a.host != host || a.drain != "" {
			continue
		}
		for id, of := range m.offers {
			if of == a {
				m.giveBack(id, false)
				m.emit(&scheduler.Event{Type: scheduler.Event_RESCIND.Enum(), Rescind: &scheduler.Event_Rescind{OfferId: &mesos.OfferID{Value: proto.String(id)}}})
			}
		}
		a.drain, a.since = "asked when somebody listens", time.Now()
		if m.stream != nil {
			m.ask(a)
		}
	}
}

// undrain ends it.
func (m *master) undrain(host string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range m.agents {
		if a.host == host && a.drain != "" {
			m.emit(&scheduler.Event{Type: scheduler.Event_RESCIND_INVERSE_OFFER.Enum(), RescindInverseOffer: &scheduler.Event_RescindInverseOffer{
				InverseOfferId: &mesos.OfferID{Value: proto.String(a.drain)},
			}})
			a.drain = ""
			m.allocate()
		}
	}
}
