package httpapi_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	mesos "dcos.example/dcos/runtime/api/mesos"
	agentapi "dcos.example/dcos/runtime/api/mesos/agent"

	"dcos.example/dcos/runtime/agent/agenttest"
	"dcos.example/dcos/runtime/agent/container"
	"dcos.example/dcos/runtime/agent/files"
	"dcos.example/dcos/runtime/agent/httpapi"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/resource"
)

// source is an agent with one running and one finished task.
type source struct{}

func (source) View() httpapi.View {
	task := func(id string, st mesos.TaskState) httpapi.Task {
		ti := agenttest.Task(id, "true")
		return httpapi.Task{
			Info: ti, Framework: agenttest.Framework(), ContainerID: "c-" + id, Sandbox: "/box/" + id,
			Running: st == mesos.TaskState_TASK_RUNNING, Done: st == mesos.TaskState_TASK_FINISHED,
			Status: &mesos.ContainerStatus{ContainerId: &mesos.ContainerID{Value: proto.String("c-" + id)}},
			Task: &mesos.Task{
				Name: ti.Name, TaskId: ti.TaskId, FrameworkId: agenttest.Framework().Id, AgentId: ti.AgentId, State: st.Enum(), Resources: ti.Resources,
				Statuses: []*mesos.TaskStatus{{TaskId: ti.TaskId, State: st.Enum(), Timestamp: proto.Float64(1.5), Healthy: proto.Bool(true)}},
			},
		}
	}
	return httpapi.View{
		Agent:   &mesos.AgentInfo{Hostname: proto.String("10.0.0.1"), Id: &mesos.AgentID{Value: proto.String("a-1")}, Port: proto.Int32(5051)},
		Version: "1.2.3", Endpoint: "10.0.0.1:5051", MasterHost: "10.0.0.9", Registered: true, Started: time.Unix(100, 0), Uptime: time.Minute,
		Resources: resource.MustParse("cpus:4;mem:1024;disk:10;ports:[31000-31005,31007-31007];cpus(r):1"), Flags: map[string]string{"work_dir": "/w"},
		Tasks:    []httpapi.Task{task("run", mesos.TaskState_TASK_RUNNING), task("fin", mesos.TaskState_TASK_FINISHED)},
		Terminal: map[string]int{"TASK_FINISHED": 1},
	}
}

func (source) Usage(_ context.Context, id string) (*mesos.ResourceStatistics, error) {
	if id != "c-run" {
		return nil, fault.New("usage", fault.NotFound, nil)
	}
	return &mesos.ResourceStatistics{Timestamp: proto.Float64(1), MemRssBytes: proto.Uint64(7)}, nil
}

func (source) Exec(context.Context, string, container.Command) (container.Process, error) {
	return nil, fault.Newf("exec", fault.NotFound, "container cannot be found")
}
func (source) Signal(_ context.Context, id string, _ syscall.Signal) error {
	if id != "c-run" {
		return fault.New("signal", fault.NotFound, nil)
	}
	return nil
}

func (source) Ended(_ context.Context, id string) (*mesos.TaskStatus, error) {
	if id != "c-run" {
		return nil, fault.New("wait", fault.NotFound, nil)
	}
	return &mesos.TaskStatus{State: mesos.TaskState_TASK_FAILED.Enum(), Message: proto.String("m")}, nil
}

func (source) Images(context.Context) ([]container.Image, error) {
	return []container.Image{{Name: "registry.dcos/kafka:1", Digest: "sha256:0", Size: 7, Running: true}}, nil
}

func (source) RemoveImage(_ context.Context, name string) error {
	if name != "registry.dcos/kafka:1" {
		return fault.New("remove image", fault.NotFound, nil)
	}
	return fault.Newf("remove image", fault.Conflict, "a container uses it")
}

func (source) PruneImages(_ context.Context, keep []string) error {
	if len(keep) != 1 || keep[0] != "docker.io/library/redis:latest" {
		return fault.Newf("prune images", fault.Invalid, "kept %v", keep)
	}
	return nil
}

func do(t *testing.T, method, path, body string, header ...string) (*http.Response, string) {
	t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	httpapi.New(source{}, files.New(), slog.New(slog.DiscardHandler)).ServeHTTP(w, r)
	b, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Result(), string(b)
}

func TestLegacy(t *testing.T) {
	for path, parts := range map[string][]string{
		"/state": {`"pid":"slave(1)@10.0.0.1:5051"`, `"master_hostname":"10.0.0.9"`, `"ports":"[31000-31005, 31007-31007]"`, `"cpus":5`, `"gpus":0`,
			`"directory":"/box/run"`, `"reserved_resources":{"r":{"cpus":1`, `"executor_id":""`, `"healthy":true`, `"start_time":100`},
		"/slave(1)/state":              {`"id":"a-1"`},
		"/tasks":                       {`"id":"run"`, `"id":"fin"`},
		"/containers":                  {`"container_id":"c-run"`, `"mem_rss_bytes":7`},
		"/slave(1)/monitor/statistics": {`"executor_id":"run"`, `"statistics":{`},
		"/metrics/snapshot":            {`"slave/tasks_running":1`, `"slave/tasks_finished":1`, `"slave/cpus_total":5`, `"slave/cpus_used":0.1`, `"slave/uptime_secs":60`},
		"/version":                     {`{"version":"1.2.3"}`},
		"/flags":                       {`{"flags":{"work_dir":"/w"}}`},
		"/state-summary":               {`"TASK_RUNNING":1`},
		"/frameworks":                  {`"completed_frameworks":[]`},
		"/version?jsonp=cb":            {`cb({"version":"1.2.3"});`},
	} {
		resp, body := do(t, http.MethodGet, path, "")
		if resp.StatusCode != 200 {
			t.Errorf("%s: %s", path, resp.Status)
		}
		for _, p := range parts {
			if !strings.Contains(body, p) {
				t.Errorf("%s has no %s: %s", path, p, body)
			}
		}
		if !strings.Contains(path, "jsonp") && !json.Valid([]byte(body)) {
			t.Errorf("%s is not JSON: %s", path, body)
		}
	}
	if resp, body := do(t, http.MethodGet, "/health", ""); resp.StatusCode != 200 || body != "" {
		t.Errorf("health: %s %q", resp.Status, body)
	}
}

func TestImages(t *testing.T) {
	if resp, body := do(t, http.MethodGet, "/images", ""); resp.StatusCode != 200 || !strings.Contains(body, `"name":"registry.dcos/kafka:1"`) || !strings.Contains(body, `"running":true`) {
		t.Errorf("list: %s %s", resp.Status, body)
	}
	if resp, body := do(t, http.MethodDelete, "/images?name=registry.dcos/kafka:1", ""); resp.StatusCode != 409 || !strings.Contains(body, "uses it") {
		t.Errorf("remove one in use: %s %s", resp.Status, body)
	}
	if resp, _ := do(t, http.MethodDelete, "/images?name=none", ""); resp.StatusCode != 404 {
		t.Errorf("remove one that is not there: %s", resp.Status)
	}
	call := `{"type":"PRUNE_IMAGES","prune_images":{"excluded_images":[{"type":"DOCKER","docker":{"name":"redis"}}]}}`
	if resp, body := do(t, http.MethodPost, "/api/v1", call, "Content-Type", "application/json"); resp.StatusCode != 200 {
		t.Errorf("prune: %s %s", resp.Status, body)
	}
}

func TestViews(t *testing.T) {
	h := httpapi.Views(httpapi.New(source{}, files.New(), slog.New(slog.DiscardHandler)))
	for request, want := range map[string]int{
		"GET /state":                200,
		"GET /slave(1)/state":       200,
		"HEAD /health":              200,
		"GET /files/debug":          403,
		"GET /files/read?path=/box": 403,
		"POST /api/v1":              403,
		"POST /slave(1)/api/v1":     403,
		"GET //files/debug":         301, // to the path that is refused
	} {
		method, path, _ := strings.Cut(request, " ")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, "http://a"+path, nil))
		if w.Code/100 != want/100 || want == 403 && w.Code != 403 {
			t.Errorf("%s: %d, want %d", request, w.Code, want)
		}
	}
}

func TestNegotiation(t *testing.T) {
	const health = `{"type":"GET_HEALTH"}`
	const js, pb, rec = "application/json", "application/x-protobuf", "application/recordio"
	for _, c := range []struct {
		name, method, body string
		header             []string
		want               int
	}{
		{"fine", "POST", health, []string{"Content-Type", js}, 200},
		{"not POST", "GET", "", nil, 405},
		{"no type", "POST", health, nil, 400},
		{"another type", "POST", health, []string{"Content-Type", "text/plain"}, 415},
		{"not JSON", "POST", "{", []string{"Content-Type", js}, 400},
		{"no call type", "POST", "{}", []string{"Content-Type", js}, 400},
		{"its part is missing", "POST", `{"type":"READ_FILE"}`, []string{"Content-Type", js}, 400},
		{"not acceptable", "POST", health, []string{"Content-Type", js, "Accept", "text/html"}, 406},
		{"protobuf asked for", "POST", health, []string{"Content-Type", js, "Accept", pb}, 200},
		{"message type without stream", "POST", health, []string{"Content-Type", js, "Message-Content-Type", js}, 415},
		{"stream without message type", "POST", health, []string{"Content-Type", rec}, 400},
		{"message accept without stream", "POST", health, []string{"Content-Type", js, "Message-Accept", js}, 400},
		{"stream of something else", "POST", "2\n{}", []string{"Content-Type", rec, "Message-Content-Type", js}, 400},
		{"unsupported call", "POST", `{"type":"LAUNCH_CONTAINER"}`, []string{"Content-Type", js}, 400},
		{"unknown container", "POST", `{"type":"WAIT_CONTAINER","wait_container":{"container_id":{"value":"x"}}}`, []string{"Content-Type", js}, 404},
		{"unknown nested container", "POST", `{"type":"WAIT_NESTED_CONTAINER","wait_nested_container":{"container_id":{"value":"x","parent":{"value":"c-run"}}}}`, []string{"Content-Type", js}, 404},
		{"kill", "POST", `{"type":"KILL_CONTAINER","kill_container":{"container_id":{"value":"c-run"},"signal":15}}`, []string{"Content-Type", js}, 200},
		{"kill unknown", "POST", `{"type":"KILL_NESTED_CONTAINER","kill_nested_container":{"container_id":{"value":"x","parent":{"value":"c-run"}}}}`, []string{"Content-Type", js}, 404},
		{"attach to a task", "POST", `{"type":"ATTACH_CONTAINER_OUTPUT","attach_container_output":{"container_id":{"value":"c-run"}}}`, []string{"Content-Type", js}, 409},
		{"session without parent", "POST", `{"type":"LAUNCH_NESTED_CONTAINER_SESSION","launch_nested_container_session":{"container_id":{"value":"x"},"command":{"value":"x"}}}`, []string{"Content-Type", js}, 400},
		{"session in an unknown container", "POST", `{"type":"LAUNCH_NESTED_CONTAINER_SESSION","launch_nested_container_session":{"container_id":{"value":"x","parent":{"value":"y"}},"command":{"value":"x"}}}`, []string{"Content-Type", js}, 404},
	} {
		resp, body := do(t, c.method, "/api/v1", c.body, c.header...)
		if resp.StatusCode != c.want {
			t.Errorf("%s: %s %s, want %d", c.name, resp.Status, body, c.want)
		}
		if c.want == 405 && resp.Header.Get("Allow") != "POST" {
			t.Errorf("%s: allows %q", c.name, resp.Header.Get("Allow"))
		}
	}
}

func TestOperator(t *testing.T) {
	for call, parts := range map[string][]string{
		`{"type":"GET_HEALTH"}`:  {`"type":"GET_HEALTH"`, `"healthy":true`},
		`{"type":"GET_VERSION"}`: {`"version":"1.2.3"`},
		`{"type":"GET_FLAGS"}`:   {`"work_dir"`},
		`{"type":"GET_METRICS"}`: {`"slave/cpus_total"`},
		`{"type":"GET_AGENT"}`:   {`"hostname":"10.0.0.1"`},
		`{"type":"GET_TASKS"}`:   {`"launched_tasks":[{"name":"run"`, `"completed_tasks":[{"name":"fin"`},
		`{"type":"GET_STATE"}`:   {`"get_tasks"`, `"get_frameworks"`},
		`{"type":"GET_CONTAINERS","get_containers":{"show_nested":true}}`:               {`"container_id":{"value":"c-run"}`, `"resource_statistics"`},
		`{"type":"GET_FRAMEWORKS"}`:                                                     {`"framework_info"`},
		`{"type":"WAIT_CONTAINER","wait_container":{"container_id":{"value":"c-run"}}}`: {`"state":"TASK_FAILED"`, `"message":"m"`},
	} {
		resp, body := do(t, http.MethodPost, "/slave(1)/api/v1", call, "Content-Type", "application/json")
		if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %s %v %s", call, resp.Status, resp.Header, body)
		}
		for _, p := range parts {
			if !strings.Contains(body, p) {
				t.Errorf("%s has no %s: %s", call, p, body)
			}
		}
	}
	body, err := proto.Marshal(&agentapi.Call{Type: agentapi.Call_GET_VERSION.Enum()})
	if err != nil {
		t.Fatal(err)
	}
	resp, text := do(t, http.MethodPost, "/api/v1", string(body), "Content-Type", "application/x-protobuf", "Accept", "application/x-protobuf")
	got := &agentapi.Response{}
	if err := proto.Unmarshal([]byte(text), got); err != nil || resp.Header.Get("Content-Type") != "application/x-protobuf" || got.GetGetVersion().GetVersionInfo().GetVersion() != "1.2.3" {
		t.Errorf("protobuf: %v %v %v", resp.Header, got, err)
	}
	if resp, _ := do(t, http.MethodPost, "/api/v1/executor", "{}"); resp.StatusCode != http.StatusNotImplemented {
		t.Errorf("executor API: %s", resp.Status)
	}
}
