package feed_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/master"
	"dcos.example/dcos/runtime/api/wire"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/feed"
	"dcos.example/dcos/runtime/server"
	"dcos.example/dcos/runtime/task"
)

// masterd serves the operator API's SUBSCRIBE as a leader: a snapshot, then
// what the test sends. A nil event closes the stream.
type masterd struct {
	state    atomic.Pointer[master.Response_GetState]
	redirect atomic.Pointer[string]
	events   chan *master.Event
	subs     atomic.Int32
}

func (m *masterd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if to := m.redirect.Load(); to != nil {
		w.Header().Set("Location", *to)
		w.WriteHeader(http.StatusTemporaryRedirect)
		return
	}
	call := &master.Call{}
	body, _ := io.ReadAll(r.Body)
	if err := wire.Protobuf.Unmarshal(body, call); err != nil || call.GetType() != master.Call_SUBSCRIBE || r.URL.Path != feed.Path {
		http.Error(w, fmt.Sprint(err, call), http.StatusBadRequest)
		return
	}
	m.subs.Add(1)
	w.Header().Set("Content-Type", wire.TypeProtobuf)
	out := wire.NewRecordWriter(w)
	e := &master.Event{Type: master.Event_SUBSCRIBED.Enum(), Subscribed: &master.Event_Subscribed{
		GetState: m.state.Load(), HeartbeatIntervalSeconds: proto.Float64(15),
	}}
	for {
		if b, err := wire.Protobuf.Marshal(e); err != nil || out.Write(b) != nil {
			return
		}
		select {
		case e = <-m.events:
			if e == nil {
				return
			}
		case <-r.Context().Done():
			return
		}
	}
}

// world is masters a and b on an in-memory network, and a feed that runs.
type world struct {
	a, b *masterd
	feed *feed.Feed
}

func newWorld(t *testing.T, state *master.Response_GetState) *world {
	t.Helper()
	w := &world{}
	listeners := map[string]*server.Memory{}
	serve := func(addr string, to string) *masterd {
		m := &masterd{events: make(chan *master.Event, 2000)}
		m.state.Store(state)
		if to != "" {
			m.redirect.Store(&to)
		}
		l := server.NewMemory()
		listeners[addr] = l
		s := &http.Server{Handler: m}
		done := make(chan struct{})
		go func() { defer close(done); _ = s.Serve(l) }()
		t.Cleanup(func() { s.Close(); <-done })
		return m
	}
	w.a = serve("10.0.0.1:5050", "")
	w.b = serve("10.0.0.2:5050", "//10.0.0.1:5050/api/v1")
	tr := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		return listeners[addr].DialContext(ctx, network, addr)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	f, err := feed.New(feed.Config{
		Masters: func() []string { return []string{"http://10.0.0.2:5050", "http://10.0.0.1:5050"} }, Client: &http.Client{Transport: tr}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	w.feed = f
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); f.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	synctest.Wait()
	return w
}

func str[T ~string](s T) *string { return proto.String(string(s)) }

func agent(id string) *master.Response_GetAgents_Agent {
	return &master.Response_GetAgents_Agent{
		AgentInfo: &mesos.AgentInfo{Id: &mesos.AgentID{Value: &id}, Hostname: str(id + ".host")},
		Active:    proto.Bool(true), Version: str("1"), Pid: str("slave(1)@10.0.1.7:5051"),
		TotalResources: []*mesos.Resource{{Name: str("cpus"), Type: mesos.Value_SCALAR.Enum(), Role: str("slave_public")}},
	}
}

func job(id, agentID string, state mesos.TaskState) *mesos.Task {
	return &mesos.Task{
		Name: str("web"), TaskId: &mesos.TaskID{Value: &id}, FrameworkId: &mesos.FrameworkID{Value: str("fw")},
		AgentId: &mesos.AgentID{Value: &agentID}, State: &state,
	}
}

func fw(name string) *master.Response_GetFrameworks_Framework {
	return &master.Response_GetFrameworks_Framework{
		FrameworkInfo: &mesos.FrameworkInfo{User: str("root"), Name: &name, Id: &mesos.FrameworkID{Value: str("fw")}},
		Active:        proto.Bool(true), Connected: proto.Bool(true), Recovered: proto.Bool(false),
	}
}

func state(agents []*master.Response_GetAgents_Agent, recovered []string, tasks ...*mesos.Task) *master.Response_GetState {
	s := &master.Response_GetState{
		GetAgents:     &master.Response_GetAgents{Agents: agents},
		GetTasks:      &master.Response_GetTasks{Tasks: tasks},
		GetFrameworks: &master.Response_GetFrameworks{Frameworks: []*master.Response_GetFrameworks_Framework{fw("marathon")}},
	}
	for _, id := range recovered {
		s.GetAgents.RecoveredAgents = append(s.GetAgents.RecoveredAgents, &mesos.AgentInfo{Id: &mesos.AgentID{Value: &id}, Hostname: str("h")})
	}
	return s
}

func updated(id string, s mesos.TaskState, status *mesos.TaskStatus) *master.Event {
	status.TaskId, status.State = &mesos.TaskID{Value: &id}, &s
	return &master.Event{Type: master.Event_TASK_UPDATED.Enum(), TaskUpdated: &master.Event_TaskUpdated{
		FrameworkId: &mesos.FrameworkID{Value: str("fw")}, Status: status, State: &s,
	}}
}

func added(t *mesos.Task) *master.Event {
	return &master.Event{Type: master.Event_TASK_ADDED.Enum(), TaskAdded: &master.Event_TaskAdded{Task: t}}
}

func agentAdded(id string) *master.Event {
	return &master.Event{Type: master.Event_AGENT_ADDED.Enum(), AgentAdded: &master.Event_AgentAdded{Agent: agent(id)}}
}

func agentRemoved(id string) *master.Event {
	return &master.Event{Type: master.Event_AGENT_REMOVED.Enum(), AgentRemoved: &master.Event_AgentRemoved{AgentId: &mesos.AgentID{Value: &id}}}
}

// show lists a view as "task@agent:state", sorted.
func show(v *feed.View) string {
	var out []string
	for t := range v.Tasks() {
		out = append(out, fmt.Sprintf("%s@%s:%s", t.Task, t.Agent, strings.TrimPrefix(t.State.String(), "TASK_")))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func (w *world) expect(t *testing.T, want string) {
	t.Helper()
	synctest.Wait()
	if got := show(w.feed.View()); got != want {
		t.Fatalf("view has %q, want %q", got, want)
	}
}

func agents(ids ...string) (out []*master.Response_GetAgents_Agent) {
	for _, id := range ids {
		out = append(out, agent(id))
	}
	return out
}

func TestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, state(agents("a1"), nil, job("t1", "a1", task.Running), job("done", "a1", task.Finished)))
		w.expect(t, "t1@a1:RUNNING")
		if w.feed.Leader() != "http://10.0.0.1:5050" {
			t.Fatalf("leader %q", w.feed.Leader())
		}
		first := w.feed.View()
		w.a.events <- added(job("t2", "a1", task.Staging))
		w.expect(t, "t1@a1:RUNNING t2@a1:STAGING")
		w.a.events <- updated("t2", task.Running, &mesos.TaskStatus{Healthy: proto.Bool(true), ContainerStatus: &mesos.ContainerStatus{
			NetworkInfos: []*mesos.NetworkInfo{{IpAddresses: []*mesos.NetworkInfo_IPAddress{{IpAddress: str("9.0.1.2")}}}},
		}})
		w.a.events <- updated("t2", task.Running, &mesos.TaskStatus{}) // says nothing new
		w.expect(t, "t1@a1:RUNNING t2@a1:RUNNING")
		t2, _ := w.feed.View().Task(feed.TaskKey{Framework: "fw", Task: "t2"})
		if t2.Health != feed.Healthy || len(t2.Addrs) != 1 || t2.FrameworkName != "marathon" || !t2.Serving() {
			t.Fatalf("t2 is %+v", t2)
		}
		w.a.events <- &master.Event{Type: master.Event_FRAMEWORK_UPDATED.Enum(), FrameworkUpdated: &master.Event_FrameworkUpdated{Framework: fw("renamed")}}
		w.a.events <- agentAdded("a2")
		w.a.events <- added(job("t3", "a2", task.Running))
		w.a.events <- agentRemoved("a1")
		w.a.events <- updated("unknown", task.Running, &mesos.TaskStatus{})
		w.expect(t, "t1@a1:UNREACHABLE t2@a1:UNREACHABLE t3@a2:RUNNING")
		if t2, _ := w.feed.View().Task(t2.TaskKey); t2.FrameworkName != "renamed" {
			t.Fatalf("framework of t2 is %q", t2.FrameworkName)
		}
		w.a.events <- updated("t1", task.GoneByOperator, &mesos.TaskStatus{})
		w.expect(t, "t2@a1:UNREACHABLE t3@a2:RUNNING")
		w.a.events <- &master.Event{Type: master.Event_FRAMEWORK_REMOVED.Enum(), FrameworkRemoved: &master.Event_FrameworkRemoved{FrameworkInfo: fw("renamed").GetFrameworkInfo()}}
		w.expect(t, "")
		if a, f, n := w.feed.View().Counts(); a != 1 || f != 0 || n != 0 {
			t.Fatalf("counts %d %d %d", a, f, n)
		}
		if show(first) != "t1@a1:RUNNING" {
			t.Fatalf("an old view changed to %s", show(first))
		}
	})
}

func TestConversion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := job("t1", "a1", task.Running)
		j.HealthCheck = &mesos.HealthCheck{}
		j.Resources = []*mesos.Resource{{Name: str("ports"), Type: mesos.Value_RANGES.Enum(), Ranges: &mesos.Value_Ranges{
			Range: []*mesos.Value_Range{{Begin: proto.Uint64(31000), End: proto.Uint64(31001)}},
		}}}
		j.Container = &mesos.ContainerInfo{Type: mesos.ContainerInfo_DOCKER.Enum(), Docker: &mesos.ContainerInfo_DockerInfo{
			Image: str("x"), PortMappings: []*mesos.ContainerInfo_DockerInfo_PortMapping{{HostPort: proto.Uint32(31000), ContainerPort: proto.Uint32(80)}},
		}}
		w := newWorld(t, state(agents("a1"), nil, j))
		w.expect(t, "t1@a1:RUNNING")
		got, _ := w.feed.View().Task(feed.TaskKey{Framework: "fw", Task: "t1"})
		if !slices.Equal(got.HostPorts, []uint16{31000, 31001}) || !slices.Equal(got.Mappings, []feed.PortMapping{{Host: 31000, Container: 80, Protocol: "tcp"}}) {
			t.Errorf("ports %v, mappings %v", got.HostPorts, got.Mappings)
		}
		if got.Serving() {
			t.Error("a checked task serves before its first check")
		}
		a, _ := w.feed.View().Agent("a1")
		if a.Addr.String() != "10.0.1.7" || a.Port != 5051 || !a.Active || !slices.Equal(a.Roles, []string{"slave_public"}) {
			t.Errorf("agent %+v", a)
		}
	})
}

// b becomes the leader and knows only some of the agents.
func (w *world) failOver(s *master.Response_GetState) {
	w.b.state.Store(s)
	to := "//10.0.0.2:5050/api/v1"
	w.b.redirect.Store(nil)
	w.a.redirect.Store(&to)
	w.a.events <- nil
	time.Sleep(time.Second)
}

func TestFailOverKeepsWhatIsNotKnownYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := state(agents("back", "late", "dead", "gone"), nil,
			job("t1", "back", task.Running), job("lost", "back", task.Running), job("t2", "late", task.Running),
			job("lost2", "late", task.Running), job("t3", "dead", task.Running), job("t4", "gone", task.Running))
		w := newWorld(t, before)
		w.failOver(state(agents("back"), []string{"late", "dead"}, job("t1", "back", task.Running)))
		w.expect(t, "lost2@late:RUNNING t1@back:RUNNING t2@late:RUNNING t3@dead:RUNNING t4@gone:RUNNING")
		if w.feed.Leader() != "http://10.0.0.2:5050" {
			t.Fatalf("leader %q", w.feed.Leader())
		}
		if a, ok := w.feed.View().Agent("late"); !ok || a.Active || !a.Addr.IsValid() {
			t.Fatalf("agent late is %+v", a)
		}
		// late registers, one of its tasks follows
		w.b.events <- agentAdded("late")
		w.b.events <- added(job("t2", "late", task.Running))
		w.expect(t, "lost2@late:RUNNING t1@back:RUNNING t2@late:RUNNING t3@dead:RUNNING t4@gone:RUNNING")
		time.Sleep(11 * time.Second)
		w.expect(t, "t1@back:RUNNING t2@late:RUNNING t3@dead:RUNNING t4@gone:RUNNING")
		time.Sleep(time.Minute) // gone is not even recovered
		w.expect(t, "t1@back:RUNNING t2@late:RUNNING t3@dead:RUNNING")
		if _, ok := w.feed.View().Agent("gone"); ok {
			t.Fatal("agent gone is still there")
		}
		w.b.events <- agentRemoved("dead")
		w.expect(t, "t1@back:RUNNING t2@late:RUNNING")
	})
}

func TestViewOutlivesMasters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, state(agents("a1"), nil, job("t1", "a1", task.Running)))
		loop := "//10.0.0.2:5050/api/v1"
		w.a.redirect.Store(&loop)
		w.b.redirect.Store(&loop)
		w.a.events <- nil
		time.Sleep(time.Hour)
		w.expect(t, "t1@a1:RUNNING")
		w.a.redirect.Store(nil)
		w.a.state.Store(state(agents("a1"), nil))
		time.Sleep(5 * time.Second)
		w.expect(t, "")
	})
}

func TestSilentMasterIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, state(nil, nil))
		time.Sleep(46 * time.Second)
		if n := w.a.subs.Load(); n != 2 {
			t.Fatalf("%d subscriptions after three missed heartbeats", n)
		}
	})
}

func TestChangesCoalesce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, state(agents("a1"), nil))
		ctx, cancel := context.WithCancel(t.Context())
		var seen []uint64
		var last string
		done := make(chan struct{})
		go func() {
			defer close(done)
			for v := range w.feed.Changes(ctx) {
				seen = append(seen, v.Revision())
				last = show(v)
				time.Sleep(time.Second) // slower than the events
			}
		}()
		for i := range 1000 {
			w.a.events <- added(job(fmt.Sprintf("t%04d", i), "a1", task.Running))
		}
		time.Sleep(5 * time.Second)
		cancel()
		<-done
		if len(seen) < 2 || len(seen) > 5 || !slices.IsSorted(seen) {
			t.Errorf("consumer saw %v", seen)
		}
		if n := strings.Count(last, "RUNNING"); n != 1000 {
			t.Errorf("last view has %d tasks", n)
		}
	})
}

// TestAgain: what depends on the masters besides the view is computed anew
// when they change.
func TestAgain(t *testing.T) {
	f, err := feed.New(feed.Config{Masters: func() []string { return nil }, Client: &http.Client{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if f.Again(); f.View().Revision() != 0 {
		t.Error("there is a view although no master has answered")
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, &master.Response_GetState{})
		before := w.feed.View()
		w.feed.Again()
		if after := w.feed.View(); after.Revision() != before.Revision()+1 || before.Revision() == 0 {
			t.Errorf("revision %d after %d", after.Revision(), before.Revision())
		}
	})
}

func TestNewRefuses(t *testing.T) {
	for _, cfg := range []feed.Config{
		{}, {Client: &http.Client{}, Log: slog.Default()}, {Masters: func() []string { return nil }, Client: &http.Client{Timeout: 1}, Log: slog.Default()},
	} {
		if _, err := feed.New(cfg); !fault.Is(err, fault.Invalid) {
			t.Errorf("%v: %v", cfg.Client, err)
		}
	}
}
