package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/agent/files"
	"dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/agent"
	"dcos.example/dcos/runtime/api/mesos/master"
	"dcos.example/dcos/runtime/api/wire"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/feed"
	"dcos.example/dcos/runtime/gateway"
	"dcos.example/dcos/runtime/identity"
	"dcos.example/dcos/runtime/password"
	"dcos.example/dcos/runtime/pki"
	"dcos.example/dcos/runtime/server"
	"dcos.example/dcos/runtime/state/memory"
)

var (
	store     = sync.OnceValue(memory.New) // shared: its signing key takes long to make
	adminHash = sync.OnceValue(func() string {
		h, err := password.Hash("secret")
		if err != nil {
			panic(err)
		}
		return h
	})
)

// world is a cluster of one master and one agent. Gateway, identity, PKI and
// the agent's files are the real ones.
type world struct {
	url, caFile string
	stops       []func()
}

func (w *world) close() {
	for _, stop := range slices.Backward(w.stops) {
		stop()
	}
}

func newWorld(t *testing.T, name, dir string) *world {
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	w := &world{caFile: filepath.Join(dir, "ca.crt")}
	ca, err := pki.NewAuthority(name)
	must(err)
	must(os.WriteFile(w.caFile, ca.CertPEM(), 0o644))
	// The certificate does not know the address that clients use.
	quiet := slog.New(slog.DiscardHandler)
	creds, err := pki.SelfIssue(ca, pki.Request{Role: pki.RoleMaster, Name: "m1", Addrs: []netip.Addr{netip.MustParseAddr("198.19.50.1")}}, "", quiet)
	must(err)
	ids, err := identity.New(identity.Config{
		Store: store(), SealKey: make([]byte, 32), ClusterID: "c1a5-" + name,
		First: identity.FirstUser{UID: "admin", PasswordHash: adminHash()}, Log: quiet,
	})
	must(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = ids.Run(ctx) }()
	w.stops = append(w.stops, func() { cancel(); <-done })
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := ids.Login(ctx, "admin", "secret", "198.19.50.9"); err == nil {
			break
		} else if !fault.Is(err, fault.Unavailable) || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	services := newOperator()
	first := http.NewServeMux()
	first.Handle("/services/", services)
	first.Handle("/", fakeMaster(name))
	hosts := map[string]http.Handler{
		"198.19.50.1:5050":  first,
		"198.19.50.1:8080":  newOrchestrator(),
		"198.19.50.21:5051": newAgent(t, dir),
	}
	packages := w.newCatalog(t, dir, hosts)
	via := w.network(hosts)
	g, err := gateway.New(gateway.Config{
		Cluster: config.Cluster{ID: "c1a5-" + name, Name: name, Release: "0.1.0"},
		Members: func() []config.Member { return []config.Member{{Name: "m1", Addr: netip.MustParseAddr("198.19.50.1")}} },
		Host:    config.Host{Name: "m1", Addr: netip.MustParseAddr("198.19.50.1")},
		CAPEM:   ca.CertPEM(), Auth: ids, Identity: ids.Handler(), Masters: via, Agents: via, Log: quiet,
		Leader:     func() (netip.Addr, bool) { return netip.MustParseAddr("198.19.50.1"), true },
		View:       func() *feed.View { return feed.Of("https://198.19.50.1:5050", clusterState()) },
		Components: map[string]string{"mesos": "1.11"}, Operated: services.has,
		Admin: "admin", Catalog: packages,
	})
	must(err)
	srv := httptest.NewUnstartedServer(g)
	srv.Listener = tls.NewListener(srv.Listener, creds.PublicServerTLS())
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	srv.Start()
	w.stops = append(w.stops, srv.Close)
	w.url = "https://" + srv.Listener.Addr().String()
	return w
}

// network reaches handlers by "host:port" in memory.
func (w *world) network(hosts map[string]http.Handler) *http.Transport {
	open := map[string]*server.Memory{}
	for addr, h := range hosts {
		l := server.NewMemory()
		open[addr] = l
		srv := &http.Server{Handler: h}
		done := make(chan struct{})
		go func() { defer close(done); _ = srv.Serve(l) }()
		w.stops = append(w.stops, func() { _ = srv.Close(); <-done })
	}
	return &http.Transport{DialTLSContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		l, ok := open[addr]
		if !ok {
			return nil, fmt.Errorf("dial %s: connection refused", addr)
		}
		return l.DialContext(ctx, network, addr)
	}}
}

func str(s string) *string { return &s }

func task(id, name string, state mesos.TaskState) *mesos.Task {
	return &mesos.Task{
		Name: &name, TaskId: &mesos.TaskID{Value: &id}, FrameworkId: &mesos.FrameworkID{Value: str("fw")}, AgentId: &mesos.AgentID{Value: str("agent-1")},
		State: &state, User: str("nobody"),
		Resources: []*mesos.Resource{{Name: str("cpus"), Type: mesos.Value_SCALAR.Enum(), Scalar: &mesos.Value_Scalar{Value: proto.Float64(0.5)}}},
		Statuses: []*mesos.TaskStatus{{
			TaskId: &mesos.TaskID{Value: &id}, State: &state,
			ContainerStatus: &mesos.ContainerStatus{ContainerId: &mesos.ContainerID{Value: str("container-" + id)}},
		}},
	}
}

func clusterState() *master.Response_GetState {
	return &master.Response_GetState{
		GetAgents: &master.Response_GetAgents{Agents: []*master.Response_GetAgents_Agent{{
			AgentInfo: &mesos.AgentInfo{Id: &mesos.AgentID{Value: str("agent-1")}, Hostname: str("a1")},
			Active:    proto.Bool(true), Version: str("1"), Pid: str("slave(1)@198.19.50.21:5051"),
		}}},
		GetFrameworks: &master.Response_GetFrameworks{Frameworks: []*master.Response_GetFrameworks_Framework{{
			FrameworkInfo: &mesos.FrameworkInfo{User: str("root"), Name: str("marathon"), Hostname: str("m1"), Id: &mesos.FrameworkID{Value: str("fw")}},
			Active:        proto.Bool(true), Connected: proto.Bool(true), Recovered: proto.Bool(false),
		}}},
		GetTasks: &master.Response_GetTasks{
			Tasks:          []*mesos.Task{task("web.1", "web", mesos.TaskState_TASK_RUNNING), task("web.2", "web", mesos.TaskState_TASK_RUNNING), task("db.1", "db", mesos.TaskState_TASK_RUNNING)},
			CompletedTasks: []*mesos.Task{task("old.1", "old", mesos.TaskState_TASK_FINISHED)},
		},
	}
}

// fakeMaster answers the calls of the operator API that the CLI makes.
func fakeMaster(name string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /state-summary", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, `{"cluster":%q}`, name) })
	mux.HandleFunc("POST /api/v1", func(w http.ResponseWriter, r *http.Request) {
		call := &master.Call{}
		b, _ := io.ReadAll(r.Body)
		if err := wire.Protobuf.Unmarshal(b, call); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s := clusterState()
		resp := &master.Response{}
		switch call.GetType() {
		case master.Call_GET_AGENTS:
			resp.Type, resp.GetAgents = master.Response_GET_AGENTS.Enum(), s.GetAgents
		case master.Call_GET_TASKS:
			resp.Type, resp.GetTasks = master.Response_GET_TASKS.Enum(), s.GetTasks
		case master.Call_GET_FRAMEWORKS:
			resp.Type, resp.GetFrameworks = master.Response_GET_FRAMEWORKS.Enum(), s.GetFrameworks
		case master.Call_GET_MASTER:
			resp.Type, resp.GetMaster = master.Response_GET_MASTER.Enum(), &master.Response_GetMaster{MasterInfo: &mesos.MasterInfo{
				Id: str("master-1"), Ip: proto.Uint32(0), Port: proto.Uint32(5050), Address: &mesos.Address{Ip: str("198.19.50.1"), Port: proto.Int32(5050)},
			}}
		default:
			http.Error(w, "unknown call", http.StatusNotImplemented)
			return
		}
		w.Header().Set("Content-Type", wire.TypeProtobuf)
		b, _ = wire.Protobuf.Marshal(resp)
		_, _ = w.Write(b)
	})
	return mux
}

// orchestrator keeps apps the way the API shows them. Deployments end when
// they have been listed twice.
type orchestrator struct {
	mu     sync.Mutex
	apps   map[string]map[string]any
	looks  int
	active string
}

func newOrchestrator() http.Handler {
	o := &orchestrator{apps: map[string]map[string]any{}}
	mux := http.NewServeMux()
	mux.HandleFunc("/v2/apps", o.collection)
	mux.HandleFunc("/v2/apps/", o.item)
	mux.HandleFunc("GET /v2/deployments", o.deployments)
	mux.HandleFunc("DELETE /v2/deployments/", func(w http.ResponseWriter, r *http.Request) {
		id := strings.TrimPrefix(r.URL.Path, "/v2/deployments/")
		if id != "d1" {
			refuse(w, 404, map[string]any{"message": "DeploymentPlan " + id + " does not exist"})
			return
		}
		_, _ = io.WriteString(w, `{"version":"v","deploymentId":"d2"}`)
	})
	mux.HandleFunc("GET /v2/queue", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, stuckQueue)
	})
	mux.HandleFunc("GET /v2/tasks", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `{"tasks":[{"appId":"/web","id":"web.1","host":"a1","startedAt":"2026-01-02T03:04:05.000Z","healthCheckResults":[{"alive":false}]}]}`)
	})
	return mux
}

func refuse(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func (o *orchestrator) deployments(w http.ResponseWriter, _ *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.looks++; o.active == "" || o.looks > 2 {
		_, _ = io.WriteString(w, "[]")
		return
	}
	fmt.Fprintf(w, `[{"id":"d1","version":"v","affectedApps":[%q],"currentActions":[{"action":"ScaleApplication","app":%q}],"currentStep":%d,"totalSteps":2}]`, o.active, o.active, o.looks)
}

func (o *orchestrator) collection(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if r.Method == http.MethodGet {
		list := []any{}
		for _, a := range o.apps {
			list = append(list, a)
		}
		refuse(w, 200, map[string]any{"apps": list})
		return
	}
	var app map[string]any
	_ = json.NewDecoder(r.Body).Decode(&app)
	id, _ := app["id"].(string)
	switch {
	case id == "":
		refuse(w, 422, map[string]any{"message": "Object is not valid", "details": []any{map[string]any{"path": "/id", "errors": []string{"must not be empty"}}}})
		return
	case o.apps[id] != nil:
		refuse(w, 409, map[string]any{"message": "An app with id [" + id + "] already exists."})
		return
	}
	if _, ok := app["instances"]; !ok {
		app["instances"] = 1.0
	}
	app["tasksRunning"] = app["instances"]
	o.apps[id], o.active, o.looks = app, id, 0
	out := map[string]any{"deployments": []any{map[string]any{"id": "d1"}}}
	for k, v := range app {
		out[k] = v
	}
	refuse(w, 201, out)
}

func (o *orchestrator) item(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	id := strings.TrimPrefix(r.URL.Path, "/v2/apps")
	id, restart := strings.CutSuffix(id, "/restart")
	id, versions := strings.CutSuffix(id, "/versions")
	app := o.apps[id]
	if app == nil {
		refuse(w, 404, map[string]any{"message": "App '" + id + "' does not exist"})
		return
	}
	if r.Method != http.MethodGet && id == "/locked" && r.URL.Query().Get("force") != "true" {
		refuse(w, 409, map[string]any{"message": "App is locked by one or more deployments."})
		return
	}
	switch {
	case versions:
		_, _ = io.WriteString(w, `{"versions":["2026-01-02T00:00:00.000Z","2026-01-01T00:00:00.000Z"]}`)
		return
	case restart:
	case r.Method == http.MethodGet:
		refuse(w, 200, map[string]any{"app": app})
		return
	case r.Method == http.MethodDelete:
		delete(o.apps, id)
	case r.Method == http.MethodPut:
		_ = json.NewDecoder(r.Body).Decode(&app)
		app["tasksRunning"] = app["instances"]
	}
	o.active, o.looks = id, 0
	_, _ = io.WriteString(w, `{"version":"v","deploymentId":"d1"}`)
}

// fakeAgent serves sandboxes by the real file API and runs commands of
// sessions as processes of this machine.
type fakeAgent struct {
	mu       sync.Mutex
	sessions map[string]*session
}

type session struct {
	stdin io.WriteCloser
	done  chan struct{}
	exit  int32
}

func newAgent(t *testing.T, dir string) http.Handler {
	tree := files.New()
	for _, id := range []string{"web.1", "web.2", "db.1"} {
		box := filepath.Join(dir, "sandbox", id)
		if err := os.MkdirAll(box, 0o755); err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		for i := range 20_000 {
			fmt.Fprintf(&out, "%s line %d ü\n", id, i)
		}
		for name, text := range map[string]string{"stdout": out.String(), "stderr": "no newline at the end", "empty": ""} {
			if err := os.WriteFile(filepath.Join(box, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		tree.Attach("/frameworks/fw/executors/"+id+"/runs/latest", box)
	}
	a := &fakeAgent{sessions: map[string]*session{}}
	mux := http.NewServeMux()
	mux.Handle("/files/", tree.Handler())
	mux.HandleFunc("POST /api/v1", a.api)
	return mux
}

func (a *fakeAgent) api(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Content-Type") == "application/recordio" {
		a.input(w, r)
		return
	}
	call := &agent.Call{}
	b, _ := io.ReadAll(r.Body)
	if err := wire.Protobuf.Unmarshal(b, call); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	switch call.GetType() {
	case agent.Call_LAUNCH_NESTED_CONTAINER_SESSION:
		a.launch(w, r, call.GetLaunchNestedContainerSession())
	case agent.Call_WAIT_CONTAINER:
		a.mu.Lock()
		s := a.sessions[call.GetWaitContainer().GetContainerId().GetValue()]
		a.mu.Unlock()
		if s == nil {
			http.Error(w, "no such container", http.StatusNotFound)
			return
		}
		<-s.done
		b, _ := wire.Protobuf.Marshal(&agent.Response{Type: agent.Response_WAIT_CONTAINER.Enum(), WaitContainer: &agent.Response_WaitContainer{ExitStatus: &s.exit}})
		_, _ = w.Write(b)
	default:
		http.Error(w, "unknown call", http.StatusNotImplemented)
	}
}

type recordOut struct {
	mu   *sync.Mutex
	to   *wire.RecordWriter
	kind agent.ProcessIO_Data_Type
}

func (o recordOut) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	b, _ := wire.Protobuf.Marshal(&agent.ProcessIO{Type: agent.ProcessIO_DATA.Enum(), Data: &agent.ProcessIO_Data{Type: &o.kind, Data: p}})
	return len(p), o.to.Write(b)
}

func (a *fakeAgent) launch(w http.ResponseWriter, r *http.Request, l *agent.Call_LaunchNestedContainerSession) {
	if !strings.HasPrefix(l.GetContainerId().GetParent().GetValue(), "container-") || r.Header.Get("Accept") != "application/recordio" || r.Header.Get("Message-Accept") != wire.TypeProtobuf {
		http.Error(w, "bad launch", http.StatusBadRequest)
		return
	}
	cmd := exec.CommandContext(r.Context(), l.GetCommand().GetValue())
	cmd.Args = l.GetCommand().GetArguments()
	if l.GetContainer().GetTtyInfo() != nil {
		cmd.Env = []string{fmt.Sprintf("TTY=%dx%d", l.GetContainer().GetTtyInfo().GetWindowSize().GetColumns(), l.GetContainer().GetTtyInfo().GetWindowSize().GetRows())}
	}
	s := &session{done: make(chan struct{})}
	var err error
	if s.stdin, err = cmd.StdinPipe(); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/recordio")
	w.WriteHeader(http.StatusOK)
	w.(http.Flusher).Flush()
	var mu sync.Mutex
	out := wire.NewRecordWriter(w)
	cmd.Stdout = recordOut{&mu, out, agent.ProcessIO_Data_STDOUT}
	cmd.Stderr = recordOut{&mu, out, agent.ProcessIO_Data_STDERR}
	a.mu.Lock()
	a.sessions[l.GetContainerId().GetValue()] = s
	a.mu.Unlock()
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		s.exit = int32(exit.Sys().(interface{ ExitStatus() int }).ExitStatus()) << 8
		if code := exit.ExitCode(); code < 0 {
			s.exit = 9
		}
	} else if err != nil {
		_, _ = cmd.Stderr.Write([]byte(err.Error() + "\n"))
		s.exit = 127 << 8
	}
	close(s.done)
}

func (a *fakeAgent) input(w http.ResponseWriter, r *http.Request) {
	records := wire.NewRecordReader(r.Body, 1<<20)
	var s *session
	for {
		b, err := records.Read()
		if err != nil {
			return
		}
		call := &agent.Call{}
		if err := wire.Protobuf.Unmarshal(b, call); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		in := call.GetAttachContainerInput()
		if s == nil {
			a.mu.Lock()
			s = a.sessions[in.GetContainerId().GetValue()]
			a.mu.Unlock()
			if s == nil {
				http.Error(w, "no such container", http.StatusNotFound)
				return
			}
			continue
		}
		if d := in.GetProcessIo().GetData(); d.GetType() == agent.ProcessIO_Data_STDIN {
			if len(d.GetData()) == 0 {
				_ = s.stdin.Close()
				<-s.done
				return
			}
			_, _ = s.stdin.Write(d.GetData())
		}
	}
}

// stuckQueue is the queue of a cluster of two agents and a public one, with an
// app that wants 1000 CPUs.
const stuckQueue = `{"queue":[{"count":1,"since":"2026-01-02T03:04:05.000Z","app":{"id":"/stuck","cpus":1000,"mem":128},"delay":{"overdue":true},
"processedOffersSummary":{"processedOffersCount":9,"unusedOffersCount":9,"lastUnusedOfferAt":"2026-01-02T03:05:00.000Z","rejectSummaryLastOffers":[
{"reason":"UnfulfilledRole","declined":1,"processed":3},{"reason":"UnfulfilledConstraint","declined":0,"processed":2},
{"reason":"InsufficientCpus","declined":2,"processed":2},{"reason":"InsufficientMemory","declined":0,"processed":0}]},
"lastUnusedOffers":[
{"offer":{"hostname":"a3","resources":[{"name":"cpus","role":"slave_public","scalar":64}]},"reason":["UnfulfilledRole","InsufficientCpus"],"timestamp":"2026-01-02T03:05:00.000Z"},
{"offer":{"hostname":"a1","resources":[{"name":"cpus","role":"*","scalar":1.5}]},"reason":["InsufficientCpus"],"timestamp":"2026-01-02T03:05:00.000Z"},
{"offer":{"hostname":"a2","resources":[{"name":"cpus","role":"*","scalar":2},{"name":"mem","role":"*","scalar":512}]},"reason":["InsufficientCpus"],"timestamp":"2026-01-02T03:05:00.000Z"}]}]}`
