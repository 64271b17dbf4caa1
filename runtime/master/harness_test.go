package master_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/api/agentlink"
	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/master"
	"dcos.example/dcos/runtime/api/mesos/scheduler"
	"dcos.example/dcos/runtime/api/wire"
	"dcos.example/dcos/runtime/config"
	dcosmaster "dcos.example/dcos/runtime/master"
	"dcos.example/dcos/runtime/resource"
	"dcos.example/dcos/runtime/state"
	"dcos.example/dcos/runtime/state/memory"
)

// patience bounds every wait of these tests; nothing waits that long unless
// it fails.
const patience = 20 * time.Second

// cluster is one leading master over HTTP.
type cluster struct {
	t      *testing.T
	store  state.Backend
	url    string
	master *dcosmaster.Master
	stop   func()
}

func testConfig() config.Master {
	cfg := config.DefaultMaster()
	cfg.Cluster = config.Cluster{ID: "c", Name: "test", Release: "0.1.0"}
	cfg.Host = config.Host{Name: "m1", Addr: netip.MustParseAddr("127.0.0.1")}
	cfg.AgentPing = config.Duration(50 * time.Millisecond)
	cfg.AgentMissedPings = 6
	return cfg
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	return lead(t, memory.New(), testConfig())
}

// lead starts a master on store.
func lead(t *testing.T, store state.Backend, cfg config.Master, edit ...func(*dcosmaster.Options)) *cluster {
	t.Helper()
	opt := dcosmaster.Options{Config: cfg, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), PlainAgents: true}
	for _, e := range edit {
		e(&opt)
	}
	m := dcosmaster.New(opt)
	ctx, cancel := context.WithCancel(context.Background())
	srv := httptest.NewServer(m.Handler())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := m.Run(ctx, store); err != nil {
			t.Error(err)
		}
	})
	c := &cluster{t: t, store: store, url: srv.URL, master: m}
	c.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		srv.CloseClientConnections()
		srv.Close()
	})
	t.Cleanup(c.stop)
	eventually(t, "master leads", func() bool {
		code, _, _ := c.get("/state")
		return code == 200
	})
	return c
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("never: %s", what)
}

func (c *cluster) get(path string) (int, string, http.Header) {
	resp, err := http.Get(c.url + path)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), resp.Header
}

// post sends a raw request and returns code and body.
func (c *cluster) post(path string, header map[string]string, body []byte) (int, string, http.Header) {
	c.t.Helper()
	resp := c.open(context.Background(), path, header, body)
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), resp.Header
}

func (c *cluster) open(ctx context.Context, path string, header map[string]string, body []byte) *http.Response {
	c.t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+path, bytes.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp
}

// records turns a RecordIO stream into a channel that closes with it.
func records[M proto.Message](t *testing.T, format wire.Format, body io.Reader, fresh func() M) <-chan M {
	ch := make(chan M, 10_000)
	go func() {
		defer close(ch)
		r := wire.NewRecordReader(body, 64<<20)
		for {
			b, err := r.Read()
			if err != nil {
				return
			}
			m := fresh()
			if err := format.Unmarshal(b, m); err != nil {
				t.Errorf("record %q: %v", b, err)
				return
			}
			ch <- m
		}
	}()
	return ch
}

// next returns the first message that want accepts.
func next[M any](t *testing.T, ch <-chan M, what string, want func(M) bool) M {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case m, ok := <-ch:
			if !ok {
				t.Fatalf("stream ended before %s", what)
			}
			if want(m) {
				return m
			}
		case <-timer.C:
			t.Fatalf("no %s", what)
		}
	}
}

// framework is a raw scheduler.
type framework struct {
	c      *cluster
	format wire.Format
	id     *mesos.FrameworkID
	stream string
	events <-chan *scheduler.Event
	hangup func()
}

func frameworkInfo(edit func(*mesos.FrameworkInfo)) *mesos.FrameworkInfo {
	f := &mesos.FrameworkInfo{User: proto.String("root"), Name: proto.String("test"), FailoverTimeout: proto.Float64(3600)}
	for _, c := range []mesos.FrameworkInfo_Capability_Type{mesos.FrameworkInfo_Capability_MULTI_ROLE,
		mesos.FrameworkInfo_Capability_RESERVATION_REFINEMENT, mesos.FrameworkInfo_Capability_PARTITION_AWARE} {
		f.Capabilities = append(f.Capabilities, &mesos.FrameworkInfo_Capability{Type: c.Enum()})
	}
	f.Roles = []string{"test"}
	if edit != nil {
		edit(f)
	}
	return f
}

func (c *cluster) subscribe(format wire.Format, info *mesos.FrameworkInfo) *framework {
	c.t.Helper()
	call := &scheduler.Call{Type: scheduler.Call_SUBSCRIBE.Enum(), FrameworkId: info.Id, Subscribe: &scheduler.Call_Subscribe{FrameworkInfo: info}}
	b, err := format.Marshal(call)
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.t.Cleanup(cancel)
	resp := c.open(ctx, "/api/v1/scheduler", map[string]string{"Content-Type": format.ContentType(), "Accept": format.ContentType()}, b)
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != format.ContentType() || resp.ContentLength != -1 {
		c.t.Fatalf("subscribe: %s %v", resp.Status, resp.Header)
	}
	f := &framework{c: c, format: format, stream: resp.Header.Get("Mesos-Stream-Id"), hangup: cancel,
		events: records(c.t, format, resp.Body, func() *scheduler.Event { return &scheduler.Event{} })}
	return f
}

// subscribed is subscribe that must succeed.
func (c *cluster) subscribed(format wire.Format, info *mesos.FrameworkInfo) *framework {
	c.t.Helper()
	f := c.subscribe(format, info)
	e := next(c.t, f.events, "event", func(*scheduler.Event) bool { return true })
	if e.GetType() != scheduler.Event_SUBSCRIBED {
		c.t.Fatalf("first event is %v", e)
	}
	f.id = e.Subscribed.FrameworkId
	return f
}

func (f *framework) try(call *scheduler.Call, stream string) (int, string) {
	f.c.t.Helper()
	if call.FrameworkId == nil {
		call.FrameworkId = f.id
	}
	b, err := f.format.Marshal(call)
	if err != nil {
		f.c.t.Fatal(err)
	}
	h := map[string]string{"Content-Type": f.format.ContentType()}
	if stream != "" {
		h["Mesos-Stream-Id"] = stream
	}
	code, body, _ := f.c.post("/api/v1/scheduler", h, b)
	return code, body
}

// call must be answered 202 without a body.
func (f *framework) call(call *scheduler.Call) {
	f.c.t.Helper()
	if code, body := f.try(call, f.stream); code != http.StatusAccepted || body != "" {
		f.c.t.Fatalf("%s: %d %q", call.GetType(), code, body)
	}
}

func (f *framework) event(t scheduler.Event_Type) *scheduler.Event {
	f.c.t.Helper()
	return next(f.c.t, f.events, t.String(), func(e *scheduler.Event) bool { return e.GetType() == t })
}

func (f *framework) offer() *mesos.Offer {
	f.c.t.Helper()
	return f.event(scheduler.Event_OFFERS).Offers.Offers[0]
}

func (f *framework) status(id string, st mesos.TaskState) *mesos.TaskStatus {
	f.c.t.Helper()
	return next(f.c.t, f.events, id+" "+st.String(), func(e *scheduler.Event) bool {
		s := e.GetUpdate().GetStatus()
		return s.GetTaskId().GetValue() == id && s.GetState() == st
	}).Update.Status
}

func taskInfo(o *mesos.Offer, id, res string) *mesos.TaskInfo {
	return &mesos.TaskInfo{
		Name: proto.String(id), TaskId: &mesos.TaskID{Value: proto.String(id)}, AgentId: o.AgentId,
		Resources: resource.MustParse(res).Proto(), Command: &mesos.CommandInfo{Value: proto.String("sleep 1")},
	}
}

func (f *framework) accept(offers []*mesos.OfferID, ops ...*mesos.Offer_Operation) {
	f.c.t.Helper()
	f.call(&scheduler.Call{Type: scheduler.Call_ACCEPT.Enum(), Accept: &scheduler.Call_Accept{
		OfferIds: offers, Operations: ops, Filters: &mesos.Filters{RefuseSeconds: proto.Float64(0)},
	}})
}

func launchOp(tasks ...*mesos.TaskInfo) *mesos.Offer_Operation {
	return &mesos.Offer_Operation{Type: mesos.Offer_Operation_LAUNCH.Enum(), Launch: &mesos.Offer_Operation_Launch{TaskInfos: tasks}}
}

func (f *framework) acknowledge(s *mesos.TaskStatus) {
	f.c.t.Helper()
	f.call(&scheduler.Call{Type: scheduler.Call_ACKNOWLEDGE.Enum(), Acknowledge: &scheduler.Call_Acknowledge{AgentId: s.AgentId, TaskId: s.TaskId, Uuid: s.Uuid}})
}

// agent speaks the agents' link.
type agent struct {
	c      *cluster
	sub    *agentlink.Subscribe
	id     *mesos.AgentID
	stream string
	down   <-chan *agentlink.Downlink
	hangup func()

	mu   sync.Mutex
	kept *agentlink.CheckpointResources // on its disk; nil: what sub says
	// keep, when set, answers a document in the agent's stead: an error, which
	// may be "", and whether to answer at all.
	keep func(*agentlink.CheckpointResources) (string, bool)
}

// onKeep sets keep; nil keeps everything.
func (a *agent) onKeep(f func(*agentlink.CheckpointResources) (string, bool)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.keep = f
}

// checkpoint does with a document what the protocol asks for.
func (a *agent) checkpoint(d *agentlink.CheckpointResources) *agentlink.Uplink {
	a.mu.Lock()
	defer a.mu.Unlock()
	message, answer := "", true
	if a.keep != nil {
		message, answer = a.keep(d)
	}
	r := &agentlink.ResourcesCheckpointed{Version: d.Version}
	if message != "" {
		r.Error = &message
	} else if answer {
		a.kept = d
	}
	if !answer {
		return nil
	}
	return &agentlink.Uplink{ResourcesCheckpointed: r}
}

func agentInfo(host, res string) *agentlink.Subscribe {
	return &agentlink.Subscribe{
		Agent:    &mesos.AgentInfo{Hostname: proto.String(host), Resources: resource.MustParse(res).Proto()},
		Version:  proto.String("0.1.0"),
		Endpoint: proto.String(host + ":5051"),
		Capabilities: []*mesos.AgentInfo_Capability{
			{Type: mesos.AgentInfo_Capability_RESERVATION_REFINEMENT.Enum()}, {Type: mesos.AgentInfo_Capability_AGENT_OPERATION_FEEDBACK.Enum()},
		},
	}
}

func (c *cluster) agent(sub *agentlink.Subscribe) *agent {
	c.t.Helper()
	a := &agent{c: c, sub: sub}
	a.connect()
	return a
}

// connect subscribes, and answers pings until hung up.
func (a *agent) connect() {
	t := a.c.t
	t.Helper()
	a.mu.Lock()
	if a.kept != nil {
		a.sub.CheckpointedResources, a.sub.Operations = a.kept.Resources, a.kept.Operations
	}
	a.mu.Unlock()
	b, err := wire.Protobuf.Marshal(a.sub)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	resp := a.c.open(ctx, "/agentlink/v1/subscribe", map[string]string{"Content-Type": wire.TypeProtobuf}, b)
	if resp.StatusCode != 200 {
		t.Fatalf("agent subscribe: %s", resp.Status)
	}
	a.stream, a.hangup = resp.Header.Get("Mesos-Stream-Id"), cancel
	all := records(t, wire.Protobuf, resp.Body, func() *agentlink.Downlink { return &agentlink.Downlink{} })
	first := next(t, all, "downlink", func(*agentlink.Downlink) bool { return true })
	down := make(chan *agentlink.Downlink, 10_000)
	a.down = down
	if first.Registered == nil {
		t.Fatalf("the first record is %v", first)
	}
	a.id = first.Registered.AgentId
	a.sub.Agent.Id = a.id
	id, stream := a.id, a.stream
	go func() {
		defer close(down)
		for d := range all {
			var up *agentlink.Uplink
			if d.Ping != nil {
				up = &agentlink.Uplink{Pong: &agentlink.Pong{}}
			} else {
				down <- d
			}
			if d.CheckpointResources != nil {
				up = a.checkpoint(d.CheckpointResources)
			}
			if up != nil {
				up.AgentId, up.StreamId = id, &stream
				b, _ := wire.Protobuf.Marshal(up)
				req, _ := http.NewRequestWithContext(ctx, http.MethodPost, a.c.url+"/agentlink/v1/call", bytes.NewReader(b))
				req.Header.Set("Content-Type", wire.TypeProtobuf)
				if resp, err := http.DefaultClient.Do(req); err == nil {
					resp.Body.Close()
				}
			}
		}
	}()
}

func (a *agent) send(up *agentlink.Uplink) (int, string) {
	a.c.t.Helper()
	up.AgentId, up.StreamId = a.id, &a.stream
	b, err := wire.Protobuf.Marshal(up)
	if err != nil {
		a.c.t.Fatal(err)
	}
	code, body, _ := a.c.post("/agentlink/v1/call", map[string]string{"Content-Type": wire.TypeProtobuf}, b)
	return code, body
}

// update reports a task's state, with a uuid of its own.
func (a *agent) update(f *mesos.FrameworkID, id string, st mesos.TaskState, edit func(*mesos.TaskStatus)) *mesos.TaskStatus {
	a.c.t.Helper()
	u := uuid.New()
	s := &mesos.TaskStatus{
		TaskId: &mesos.TaskID{Value: &id}, State: st.Enum(), AgentId: a.id, Uuid: u[:],
		Source: mesos.TaskStatus_SOURCE_EXECUTOR.Enum(), Timestamp: proto.Float64(1),
	}
	if edit != nil {
		edit(s)
	}
	if code, body := a.send(&agentlink.Uplink{StatusUpdates: []*agentlink.StatusUpdate{{FrameworkId: f, Status: s}}}); code != http.StatusAccepted {
		a.c.t.Fatalf("update: %d %s", code, body)
	}
	return s
}

func (a *agent) receive(what string, want func(*agentlink.Downlink) bool) *agentlink.Downlink {
	a.c.t.Helper()
	return next(a.c.t, a.down, what, want)
}

// operate sends an operator call and reads the answer.
func (c *cluster) operate(format wire.Format, call *master.Call) *master.Response {
	c.t.Helper()
	b, err := format.Marshal(call)
	if err != nil {
		c.t.Fatal(err)
	}
	code, body, h := c.post("/api/v1", map[string]string{"Content-Type": format.ContentType(), "Accept": format.ContentType()}, b)
	if code != 200 || h.Get("Content-Type") != format.ContentType() || h.Get("Content-Length") != fmt.Sprint(len(body)) {
		c.t.Fatalf("%s: %d %s %v", call.GetType(), code, body, h)
	}
	out := &master.Response{}
	if err := format.Unmarshal([]byte(body), out); err != nil {
		c.t.Fatal(err)
	}
	return out
}

// watch opens the operator's event stream.
func (c *cluster) watch(format wire.Format) <-chan *master.Event {
	c.t.Helper()
	b, err := format.Marshal(&master.Call{Type: master.Call_SUBSCRIBE.Enum()})
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.t.Cleanup(cancel)
	resp := c.open(ctx, "/api/v1", map[string]string{"Content-Type": format.ContentType(), "Accept": format.ContentType()}, b)
	if resp.StatusCode != 200 {
		c.t.Fatal(resp.Status)
	}
	return records(c.t, format, resp.Body, func() *master.Event { return &master.Event{} })
}
