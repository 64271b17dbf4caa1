// Package agenttest is the master's side of the agent link, for tests of an
// agent: it registers one agent, hands it messages, and keeps its updates.
package agenttest

import (
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	mesos "dcos.example/dcos/runtime/api/mesos"

	"dcos.example/dcos/runtime/api/agentlink"
	"dcos.example/dcos/runtime/api/wire"
)

// AgentID is the id that the master gives to an agent without one.
const AgentID = "5e1f-S0"

// Master is a master with one agent. Its zero value is not usable.
type Master struct {
	*httptest.Server
	AutoAck bool // acknowledge every update as its framework would

	mu        sync.Mutex
	down      chan *agentlink.Downlink
	stream    string
	subscribe []*agentlink.Subscribe
	updates   []*agentlink.StatusUpdate
	kept      []*agentlink.ResourcesCheckpointed
	version   uint64
	pongs     int
}

// New starts a master that ends with the test.
func New(t testing.TB) *Master {
	m := &Master{AutoAck: true}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /agentlink/v1/subscribe", m.serveSubscribe)
	mux.HandleFunc("POST /agentlink/v1/call", m.serveCall)
	m.Server = httptest.NewServer(mux)
	t.Cleanup(func() { m.Drop(); m.Server.Close() })
	return m
}

func body(r *http.Request, into proto.Message) error {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	return proto.Unmarshal(b, into)
}

func (m *Master) serveSubscribe(w http.ResponseWriter, r *http.Request) {
	s := &agentlink.Subscribe{}
	if err := body(r, s); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	id := s.GetAgent().GetId()
	if id == nil {
		id = &mesos.AgentID{Value: proto.String(AgentID)}
	}
	down := make(chan *agentlink.Downlink, 1000)
	m.mu.Lock()
	m.subscribe = append(m.subscribe, s)
	m.down, m.stream = down, uuid.NewString()
	w.Header().Set("Mesos-Stream-Id", m.stream)
	m.mu.Unlock()
	down <- &agentlink.Downlink{Registered: &agentlink.Registered{AgentId: id, PingSeconds: proto.Float64(1), MissedPings: proto.Uint32(5)}}
	w.Header().Set("Content-Type", wire.Protobuf.ContentType())
	records := wire.NewRecordWriter(w)
	ping := time.NewTicker(200 * time.Millisecond)
	defer ping.Stop()
	for {
		var d *agentlink.Downlink
		var open bool
		select {
		case d, open = <-down:
			if !open {
				return
			}
		case <-ping.C:
			d = &agentlink.Downlink{Ping: &agentlink.Ping{}}
		case <-r.Context().Done():
			return
		}
		b, err := proto.Marshal(d)
		if err != nil || records.Write(b) != nil {
			return
		}
	}
}

func (m *Master) serveCall(w http.ResponseWriter, r *http.Request) {
	u := &agentlink.Uplink{}
	if err := body(r, u); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if u.GetStreamId() != m.stream {
		http.Error(w, "stale stream", http.StatusConflict)
		return
	}
	if u.GetPong() != nil {
		m.pongs++
	}
	if k := u.GetResourcesCheckpointed(); k != nil {
		m.kept = append(m.kept, k)
	}
	m.updates = append(m.updates, u.GetStatusUpdates()...)
	if m.AutoAck && m.down != nil {
		for _, s := range u.GetStatusUpdates() {
			m.down <- acknowledge(s)
		}
	}
	w.WriteHeader(http.StatusAccepted)
}

func acknowledge(s *agentlink.StatusUpdate) *agentlink.Downlink {
	return &agentlink.Downlink{Acknowledge: &agentlink.Acknowledge{
		FrameworkId: s.GetFrameworkId(), TaskId: s.GetStatus().GetTaskId(), Uuid: s.GetStatus().GetUuid(),
	}}
}

// Send gives the agent a message; it waits for a connection up to 10 s.
func (m *Master) Send(t testing.TB, d *agentlink.Downlink) {
	t.Helper()
	m.Until(t, "the agent is connected", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.down == nil {
			return false
		}
		m.down <- d
		return true
	})
}

// Keep entrusts resources to the agent and returns its answer: empty, or why it
// does not have them.
func (m *Master) Keep(t testing.TB, rs ...*mesos.Resource) string {
	t.Helper()
	m.mu.Lock()
	m.version++
	version := m.version
	m.mu.Unlock()
	m.Send(t, &agentlink.Downlink{CheckpointResources: &agentlink.CheckpointResources{Resources: rs, Version: &version}})
	var answer string
	m.Until(t, "the agent answers for its resources", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, k := range m.kept {
			if k.GetVersion() == version {
				answer = k.GetError()
				return true
			}
		}
		return false
	})
	return answer
}

// Drop ends the agent's connection.
func (m *Master) Drop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down != nil {
		close(m.down)
		m.down = nil
	}
}

// Subscriptions returns what agents have sent to subscribe, in order.
func (m *Master) Subscriptions() []*agentlink.Subscribe {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]*agentlink.Subscribe(nil), m.subscribe...)
}

// Pongs is how many pings were answered.
func (m *Master) Pongs() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pongs
}

// Updates returns a task's updates in the order they came, without repeats.
func (m *Master) Updates(task string) (out []*mesos.TaskStatus) {
	m.mu.Lock()
	defer m.mu.Unlock()
	seen := map[string]bool{}
	for _, u := range m.updates {
		if s := u.GetStatus(); s.GetTaskId().GetValue() == task && !seen[string(s.GetUuid())] {
			seen[string(s.GetUuid())] = true
			out = append(out, s)
		}
	}
	return out
}

// Wait returns a task's first update that ok accepts, waiting up to 30 s.
func (m *Master) Wait(t testing.TB, task, what string, ok func(*mesos.TaskStatus) bool) *mesos.TaskStatus {
	t.Helper()
	var found *mesos.TaskStatus
	m.Until(t, "task "+task+" "+what, func() bool {
		for _, s := range m.Updates(task) {
			if ok(s) {
				found = s
				return true
			}
		}
		return false
	})
	return found
}

// State waits for a task's first update of a state.
func (m *Master) State(t testing.TB, task string, st mesos.TaskState) *mesos.TaskStatus {
	t.Helper()
	return m.Wait(t, task, "is "+st.String(), func(s *mesos.TaskStatus) bool { return s.GetState() == st })
}

// Until polls for a condition up to 30 s and fails with all updates so far.
func (m *Master) Until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			m.mu.Lock()
			defer m.mu.Unlock()
			for _, u := range m.updates {
				t.Logf("%s %s %s %q", u.GetStatus().GetTaskId().GetValue(), u.GetStatus().GetState(), u.GetStatus().GetReason(), u.GetStatus().GetMessage())
			}
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// Framework is a framework for tests.
func Framework(capabilities ...mesos.FrameworkInfo_Capability_Type) *mesos.FrameworkInfo {
	f := &mesos.FrameworkInfo{User: proto.String("root"), Name: proto.String("test"), Id: &mesos.FrameworkID{Value: proto.String("fw-1")}}
	for _, c := range capabilities {
		f.Capabilities = append(f.Capabilities, &mesos.FrameworkInfo_Capability{Type: c.Enum()})
	}
	return f
}

// Task is a task with resources that runs a shell command.
func Task(id, command string) *mesos.TaskInfo {
	scalar := func(name string, v float64) *mesos.Resource {
		return &mesos.Resource{
			Name: proto.String(name), Type: mesos.Value_SCALAR.Enum(), Scalar: &mesos.Value_Scalar{Value: proto.Float64(v)},
			AllocationInfo: &mesos.Resource_AllocationInfo{Role: proto.String("*")},
		}
	}
	return &mesos.TaskInfo{
		Name: proto.String(id), TaskId: &mesos.TaskID{Value: proto.String(id)}, AgentId: &mesos.AgentID{Value: proto.String(AgentID)},
		Resources: []*mesos.Resource{scalar("cpus", 0.1), scalar("mem", 64)},
		Command:   &mesos.CommandInfo{Value: proto.String(command)},
	}
}

// Run is the message that launches a task.
func Run(f *mesos.FrameworkInfo, t *mesos.TaskInfo) *agentlink.Downlink {
	return &agentlink.Downlink{RunTask: &agentlink.RunTask{Framework: f, Task: t}}
}

// Kill is the message that kills a task.
func Kill(f *mesos.FrameworkInfo, task string, grace time.Duration) *agentlink.Downlink {
	return &agentlink.Downlink{KillTask: &agentlink.KillTask{
		FrameworkId: f.GetId(), TaskId: &mesos.TaskID{Value: proto.String(task)},
		KillPolicy: &mesos.KillPolicy{GracePeriod: &mesos.DurationInfo{Nanoseconds: proto.Int64(int64(grace))}},
	}}
}
