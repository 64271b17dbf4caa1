//go:build e2e

package mesos_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/ci/conformance/target"
	"dcos.example/dcos/runtime/api/mesos/master"
	"dcos.example/dcos/runtime/api/mesos/scheduler"
)

var c target.Cluster

func TestMain(m *testing.M) { os.Exit(target.Main(m, &c, "confmesos", "198.19.189.0/24")) }

const (
	schedulerAPI = "/mesos/api/v1/scheduler"
	operatorAPI  = "/mesos/api/v1"
	asJSON       = "application/json"
	asProto      = "application/x-protobuf"
)

// The order of checks and their words are those of Mesos.
func TestSchedulerCodes(t *testing.T) {
	c.Ask(t, "GET", schedulerAPI, "").Is(t, 405, "Expecting one of { 'POST' }, but received 'GET'").Has(t, "Allow", "POST")
	for _, tc := range []struct {
		kind, body string
		code       int
		says       string
	}{
		{"", `{}`, 400, "Expecting 'Content-Type' to be present"},
		{"text/plain", `{}`, 415, "Expecting 'Content-Type' of application/json or application/x-protobuf"},
		{asJSON, `{`, 400, "Failed to parse body into JSON: "},
		{asJSON, `[]`, 400, "Failed to convert JSON into Call protobuf: "},
		{asProto, "\xff", 400, "Failed to parse body into Call protobuf"},
		{asJSON, `{}`, 400, "Failed to validate scheduler::Call: Expecting 'type' to be present"},
		{asJSON, `{"type":"SUBSCRIBE"}`, 400, "Expecting 'subscribe' to be present"},
		{asJSON, `{"type":"REVIVE"}`, 400, "Expecting 'framework_id' to be present"},
		{asJSON, `{"type":"KILL","framework_id":{"value":"x"}}`, 400, "Expecting 'kill' to be present"},
		{asJSON, `{"type":"REVIVE","framework_id":{"value":"x"}}`, 400, "Framework cannot be found"},
		{asJSON, `{"type":"ACKNOWLEDGE","framework_id":{"value":"x"},"acknowledge":{"agent_id":{"value":"a"},"task_id":{"value":"t"},"uuid":"AAAA"}}`, 400, "UUID"},
		{asJSON, `{"type":"SUBSCRIBE","framework_id":{"value":"x"},"subscribe":{"framework_info":{"user":"root","name":"n","id":{"value":"y"}}}}`, 400, "Failed to validate scheduler::Call"},
	} {
		header := []string{}
		if tc.kind != "" {
			header = append(header, "Content-Type", tc.kind)
		}
		c.Ask(t, "POST", schedulerAPI, tc.body, header...).Is(t, tc.code, tc.says)
	}
	subscribe := `{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"root","name":"n"}}}`
	c.Ask(t, "POST", schedulerAPI, subscribe, "Content-Type", asJSON, "Accept", "text/html").Is(t, 406)
	c.Ask(t, "POST", schedulerAPI, subscribe, "Content-Type", asJSON, "Mesos-Stream-Id", "x").Is(t, 400, "Mesos-Stream-Id")
	// What is wrong with a framework is said by an event.
	bad := `{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"root","name":"n","roles":["a b"],"capabilities":[{"type":"MULTI_ROLE"}]}}}`
	c.Ask(t, "POST", schedulerAPI, bad, "Content-Type", asJSON).Is(t, 200, `{"type":"ERROR","error":{"message":"`).Has(t, "Content-Type", asJSON)
}

// stream is a subscription, read by hand: <decimal length>\n<bytes>.
type stream struct {
	r   *bufio.Reader
	end func()
	id  string // Mesos-Stream-Id
}

func subscribe(t *testing.T, path, kind, body string) *stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*target.Patience)
	resp := c.Open(t, ctx, "POST", path, body, "Authorization", "token="+c.Token, "Content-Type", asJSON, "Accept", kind)
	s := &stream{r: bufio.NewReader(resp.Body), id: resp.Header.Get("Mesos-Stream-Id"), end: func() { cancel(); _ = resp.Body.Close() }}
	t.Cleanup(s.end)
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != kind || len(resp.TransferEncoding) != 1 || resp.TransferEncoding[0] != "chunked" || resp.ContentLength >= 0 {
		t.Fatalf("stream of %s: %s %v %v", kind, resp.Status, resp.Header, resp.TransferEncoding)
	}
	return s
}

func (s *stream) next(t *testing.T) []byte {
	t.Helper()
	line, err := s.r.ReadString('\n')
	if err != nil {
		t.Fatalf("read length of record: %v", err)
	}
	n, err := strconv.ParseUint(strings.TrimSuffix(line, "\n"), 10, 32)
	if err != nil {
		t.Fatalf("length of record: %v", err)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(s.r, b); err != nil {
		t.Fatalf("read record of %d: %v", n, err)
	}
	return b
}

// event is what the suite reads of a JSON event, in Mesos' own spelling.
type event struct {
	Type       string
	Subscribed struct {
		FrameworkID              struct{ Value string } `json:"framework_id"`
		HeartbeatIntervalSeconds float64                `json:"heartbeat_interval_seconds"`
		MasterInfo               map[string]any         `json:"master_info"`
	}
	Offers struct {
		Offers []struct {
			ID      struct{ Value string }
			AgentID struct{ Value string } `json:"agent_id"`
		}
	}
	Update struct{ Status status }
	Error  struct{ Message string }
}

type status struct {
	TaskID  struct{ Value string } `json:"task_id"`
	AgentID struct{ Value string } `json:"agent_id"`
	State   string
	UUID    string
	Reason  string
	Source  string
	Message string
}

// until reads events to the first of a type.
func (s *stream) until(t *testing.T, kind string, ok func(event) bool) event {
	t.Helper()
	for {
		var e event
		if err := json.Unmarshal(s.next(t), &e); err != nil {
			t.Fatal(err)
		}
		if e.Type == kind && (ok == nil || ok(e)) {
			return e
		}
	}
}

type framework struct {
	*stream
	id, agent string
}

func (f *framework) post(t *testing.T, call string, header ...string) target.Answer {
	t.Helper()
	call = `{"framework_id":{"value":"` + f.id + `"},` + call[1:]
	return c.Ask(t, "POST", schedulerAPI, call, append([]string{"Content-Type", asJSON}, header...)...)
}

func (f *framework) call(t *testing.T, call string) {
	t.Helper()
	a := f.post(t, call, "Mesos-Stream-Id", f.stream.id).Is(t, 202)
	if a.Body != "" {
		t.Errorf("202 with a body: %q", a.Body)
	}
}

func info(id string) string {
	if id != "" {
		id = `"id":{"value":"` + id + `"},`
	}
	return `{` + id + `"user":"root","name":"conformance","roles":["conformance"],"failover_timeout":60,"capabilities":[{"type":"MULTI_ROLE"},{"type":"PARTITION_AWARE"},{"type":"TASK_KILLING_STATE"}]}`
}

func register(t *testing.T) *framework {
	t.Helper()
	f := &framework{stream: subscribe(t, schedulerAPI, asJSON, `{"type":"SUBSCRIBE","subscribe":{"framework_info":`+info("")+`}}`)}
	e := f.until(t, "SUBSCRIBED", nil)
	f.id = e.Subscribed.FrameworkID.Value
	if f.id == "" || len(f.stream.id) < 32 || e.Subscribed.HeartbeatIntervalSeconds != 15 || e.Subscribed.MasterInfo["id"] == nil {
		t.Fatalf("SUBSCRIBED %+v, stream %q", e, f.stream.id)
	}
	t.Cleanup(func() {
		f.stream.end()
		c.Ask(t, "POST", operatorAPI, `{"type":"TEARDOWN","teardown":{"framework_id":{"value":"`+f.id+`"}}}`, "Content-Type", asJSON)
	})
	f.until(t, "HEARTBEAT", nil) // at once, then every 15 s
	return f
}

// launch runs a command in the first offer, and waits until it runs.
func (f *framework) launch(t *testing.T, id, command string) status {
	t.Helper()
	offer := f.until(t, "OFFERS", nil).Offers.Offers[0]
	f.agent = offer.AgentID.Value
	f.call(t, fmt.Sprintf(`{"type":"ACCEPT","accept":{"offer_ids":[{"value":%q}],"filters":{"refuse_seconds":0},"operations":[{"type":"LAUNCH","launch":{"task_infos":[{"name":"t","task_id":{"value":%q},"agent_id":{"value":%q},
		"command":{"value":%q},"resources":[{"name":"cpus","type":"SCALAR","scalar":{"value":0.1}},{"name":"mem","type":"SCALAR","scalar":{"value":32}}]}]}}]}}`, offer.ID.Value, id, f.agent, command))
	return f.state(t, id, "TASK_RUNNING")
}

// state acknowledges what comes until the task is in a state.
func (f *framework) state(t *testing.T, id, want string) status {
	t.Helper()
	for {
		s := f.until(t, "UPDATE", func(e event) bool { return e.Update.Status.TaskID.Value == id }).Update.Status
		if s.UUID != "" {
			if raw, err := base64.StdEncoding.DecodeString(s.UUID); err != nil || len(raw) != 16 {
				t.Errorf("uuid %q", s.UUID)
			}
			f.call(t, fmt.Sprintf(`{"type":"ACKNOWLEDGE","acknowledge":{"agent_id":{"value":%q},"task_id":{"value":%q},"uuid":%q}}`, f.agent, id, s.UUID))
		}
		if s.State == want {
			return s
		}
	}
}

func TestSchedulerSession(t *testing.T) {
	f := register(t)
	f.post(t, `{"type":"REVIVE"}`).Is(t, 400, "Mesos-Stream-Id")
	f.post(t, `{"type":"REVIVE"}`, "Mesos-Stream-Id", "other").Is(t, 400, "didn't match")
	f.launch(t, "run", "sleep 1000")
	f.call(t, `{"type":"RECONCILE","reconcile":{"tasks":[]}}`)
	if s := f.until(t, "UPDATE", nil).Update.Status; s.Reason != "REASON_RECONCILIATION" || s.UUID != "" || s.State != "TASK_RUNNING" {
		t.Errorf("reconciled: %+v", s)
	}
	f.call(t, `{"type":"RECONCILE","reconcile":{"tasks":[{"task_id":{"value":"never"},"agent_id":{"value":"never"}}]}}`)
	if s := f.until(t, "UPDATE", nil).Update.Status; s.TaskID.Value != "never" || s.State != "TASK_UNKNOWN" {
		t.Errorf("unknown task on unknown agent: %+v", s)
	}
	// An offer that is gone.
	f.call(t, fmt.Sprintf(`{"type":"ACCEPT","accept":{"offer_ids":[{"value":"none"}],"operations":[{"type":"LAUNCH","launch":{"task_infos":[{"name":"t","task_id":{"value":"late"},"agent_id":{"value":%q},"command":{"value":"true"},
		"resources":[{"name":"cpus","type":"SCALAR","scalar":{"value":0.1}}]}]}}]}}`, f.agent))
	if s := f.state(t, "late", "TASK_DROPPED"); s.Reason != "REASON_INVALID_OFFERS" || s.Source != "SOURCE_MASTER" || s.UUID != "" {
		t.Errorf("invalid offer: %+v", s)
	}
	// Fail-over: the old stream is told and ends, tasks stay.
	g := &framework{id: f.id, agent: f.agent, stream: subscribe(t, schedulerAPI, asJSON, `{"type":"SUBSCRIBE","framework_id":{"value":"`+f.id+`"},"subscribe":{"framework_info":`+info(f.id)+`}}`)}
	if e := f.until(t, "ERROR", nil); e.Error.Message != "Framework failed over" {
		t.Errorf("the old stream: %+v", e)
	}
	if e := g.until(t, "SUBSCRIBED", nil); e.Subscribed.FrameworkID.Value != f.id || g.stream.id == f.stream.id {
		t.Errorf("the new stream: %+v", e)
	}
	g.call(t, `{"type":"KILL","kill":{"task_id":{"value":"run"}}}`)
	g.state(t, "run", "TASK_KILLED")
	// Without a stream nothing is accepted, until the framework is back.
	g.stream.end()
	target.Eventually(t, "framework is not subscribed", func() error {
		if a := g.post(t, `{"type":"REVIVE"}`, "Mesos-Stream-Id", g.stream.id); a.Code != 403 || a.Body != "Framework is not subscribed" {
			return fmt.Errorf("%d %s", a.Code, a.Body)
		}
		return nil
	})
	c.Ask(t, "POST", operatorAPI, `{"type":"TEARDOWN","teardown":{"framework_id":{"value":"`+f.id+`"}}}`, "Content-Type", asJSON).Is(t, 200)
	gone := c.Ask(t, "POST", schedulerAPI, `{"type":"SUBSCRIBE","framework_id":{"value":"`+f.id+`"},"subscribe":{"framework_info":`+info(f.id)+`}}`, "Content-Type", asJSON)
	gone.Is(t, 200, "Framework has been removed")
}

func TestSchedulerProtobuf(t *testing.T) {
	s := subscribe(t, schedulerAPI, asProto, `{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"root","name":"conformance-pb","roles":["conformance"],"capabilities":[{"type":"MULTI_ROLE"}]}}}`)
	var e scheduler.Event
	if err := proto.Unmarshal(s.next(t), &e); err != nil || e.GetType() != scheduler.Event_SUBSCRIBED {
		t.Fatalf("%v %v", err, &e)
	}
	call, err := proto.Marshal(&scheduler.Call{Type: scheduler.Call_TEARDOWN.Enum(), FrameworkId: e.GetSubscribed().GetFrameworkId()})
	if err != nil {
		t.Fatal(err)
	}
	c.Ask(t, "POST", schedulerAPI, string(call), "Content-Type", asProto, "Mesos-Stream-Id", s.id).Is(t, 202)
}

func TestOperator(t *testing.T) {
	c.Ask(t, "GET", operatorAPI, "").Is(t, 405).Has(t, "Allow", "POST")
	c.Ask(t, "POST", operatorAPI, `{}`, "Content-Type", asJSON).Is(t, 400, "Failed to validate master::Call: Expecting 'type' to be present")
	c.Ask(t, "POST", operatorAPI, `{"type":"GET_HEALTH"}`, "Content-Type", asJSON).Is(t, 200, `{"type":"GET_HEALTH","get_health":{"healthy":true}}`).Has(t, "Content-Type", asJSON)
	for call, part := range map[string]string{
		"GET_VERSION": "version_info", "GET_MASTER": "master_info", "GET_AGENTS": "agent_info", "GET_FRAMEWORKS": "framework_info",
		"GET_TASKS": "get_tasks", "GET_ROLES": "roles", "GET_STATE": "get_agents", "GET_METRICS": "master/uptime_secs", "GET_FLAGS": "agent_ping_timeout",
		"GET_QUOTA": "get_quota", "GET_WEIGHTS": "get_weights", "GET_MAINTENANCE_STATUS": "get_maintenance_status",
	} {
		c.Ask(t, "POST", operatorAPI, `{"type":"`+call+`"}`, "Content-Type", asJSON).Is(t, 200, `"type":"`+call+`"`, part)
	}
	c.Ask(t, "POST", operatorAPI, `{"type":"TEARDOWN","teardown":{"framework_id":{"value":"none"}}}`, "Content-Type", asJSON).Is(t, 400, "No framework found with specified ID")
	// Both forms, mixed; a single reply has a length.
	a := c.Ask(t, "POST", operatorAPI, `{"type":"GET_AGENTS"}`, "Content-Type", asJSON, "Accept", asProto).Is(t, 200).Has(t, "Content-Type", asProto)
	var r master.Response
	if err := proto.Unmarshal([]byte(a.Body), &r); err != nil || len(r.GetGetAgents().GetAgents()) == 0 || a.Header.Get("Content-Length") == "" {
		t.Errorf("%v %v %v", err, a.Header, &r)
	}
	s := subscribe(t, operatorAPI, asProto, `{"type":"SUBSCRIBE"}`)
	var first master.Event
	if err := proto.Unmarshal(s.next(t), &first); err != nil || first.GetSubscribed().GetHeartbeatIntervalSeconds() != 15 || len(first.GetSubscribed().GetGetState().GetGetAgents().GetAgents()) == 0 {
		t.Errorf("%v %v", err, &first)
	}
}

// TestDrain takes an agent without tasks of its own out of use and back.
func TestDrain(t *testing.T) {
	say := func(typ, field, id, more string) target.Answer {
		return c.Ask(t, "POST", operatorAPI, `{"type":"`+typ+`","`+field+`":{"agent_id":{"value":"`+id+`"}`+more+`}}`, "Content-Type", asJSON)
	}
	say("DRAIN_AGENT", "drain_agent", "none", "").Is(t, 400, "Unknown agent")
	say("DEACTIVATE_AGENT", "deactivate_agent", "none", "").Is(t, 400, "Unknown agent")
	say("MARK_AGENT_GONE", "mark_agent_gone", "none", "").Is(t, 404, "Agent 'none' not found")
	c.Ask(t, "POST", operatorAPI, `{"type":"DRAIN_AGENT"}`, "Content-Type", asJSON).Is(t, 400, "Expecting 'drain_agent' to be present")
	var state struct{ Slaves []struct{ ID string } }
	c.Ask(t, "GET", "/mesos/slaves", "").JSON(t, &state)
	id := state.Slaves[0].ID
	say("REACTIVATE_AGENT", "reactivate_agent", id, "").Is(t, 400, "Agent is not deactivated")
	say("DEACTIVATE_AGENT", "deactivate_agent", id, "").Is(t, 200)
	c.Ask(t, "GET", "/mesos/slaves?slave_id="+id, "").Is(t, 200, `"deactivated":true`, `"active":false`)
	say("REACTIVATE_AGENT", "reactivate_agent", id, "").Is(t, 200)
	c.Ask(t, "GET", "/mesos/slaves?slave_id="+id, "").Is(t, 200, `"deactivated":false`)
	c.Ask(t, "GET", "/mesos/maintenance/schedule", "").Is(t, 200).Has(t, "Content-Type", asJSON)
	c.Ask(t, "GET", "/mesos/maintenance/status", "").Is(t, 200).Has(t, "Content-Type", asJSON)
	c.Ask(t, "POST", "/mesos/machine/up", `[]`, "Content-Type", asJSON).Is(t, 400, "List of machines is empty")
}

func TestViews(t *testing.T) {
	for _, path := range []string{"/mesos/state", "/mesos/master/state", "/mesos/state.json", "/mesos/master/state.json"} {
		c.Ask(t, "GET", path, "").Is(t, 200).Has(t, "Content-Type", asJSON).Keys(t, "version", "start_time", "elected_time", "id", "pid", "hostname",
			"activated_slaves", "deactivated_slaves", "unreachable_slaves", "leader", "leader_info", "flags", "slaves", "recovered_slaves",
			"frameworks", "completed_frameworks", "orphan_tasks", "unregistered_frameworks", "capabilities", "cluster")
	}
	var state struct {
		Leader     string
		Slaves     []json.RawMessage
		Frameworks []json.RawMessage
	}
	c.Ask(t, "GET", "/mesos/state", "").JSON(t, &state)
	keys(t, "slave", state.Slaves[0], "id", "hostname", "port", "pid", "attributes", "registered_time", "resources", "used_resources", "offered_resources",
		"reserved_resources", "unreserved_resources", "active", "deactivated", "version", "capabilities",
		"reserved_resources_full", "unreserved_resources_full", "used_resources_full", "offered_resources_full")
	keys(t, "framework", state.Frameworks[0], "id", "name", "used_resources", "offered_resources", "capabilities", "hostname", "webui_url", "active", "connected",
		"recovered", "user", "failover_timeout", "checkpoint", "registered_time", "unregistered_time", "resources", "roles", "tasks",
		"unreachable_tasks", "completed_tasks", "offers", "executors")
	var summary struct{ Slaves, Frameworks []json.RawMessage }
	c.Ask(t, "GET", "/mesos/master/state-summary", "").Is(t, 200).Keys(t, "hostname", "cluster", "slaves", "frameworks").JSON(t, &summary)
	keys(t, "slave of the summary", summary.Slaves[0], "id", "TASK_STAGING", "TASK_RUNNING", "TASK_ERROR", "TASK_UNREACHABLE", "framework_ids", "resources")
	keys(t, "framework of the summary", summary.Frameworks[0], "id", "name", "TASK_RUNNING", "slave_ids", "webui_url", "active")
	c.Ask(t, "GET", "/mesos/slaves", "").Is(t, 200).Keys(t, "slaves", "recovered_slaves")
	c.Ask(t, "GET", "/mesos/slaves?slave_id=none", "").Is(t, 200, `"slaves":[]`)
	c.Ask(t, "GET", "/mesos/frameworks", "").Is(t, 200).Keys(t, "frameworks", "completed_frameworks", "unregistered_frameworks")
	c.Ask(t, "GET", "/mesos/tasks?limit=1&order=asc", "").Is(t, 200).Keys(t, "tasks")
	c.Ask(t, "GET", "/mesos/roles", "").Is(t, 200).Keys(t, "roles")
	c.Ask(t, "GET", "/mesos/state?jsonp=cb", "").Is(t, 200, "cb({").Has(t, "Content-Type", "text/javascript")
	c.Ask(t, "GET", "/mesos/version", "").Is(t, 200).Keys(t, "version", "build_date", "build_time", "build_user")
	c.Ask(t, "GET", "/mesos/flags", "").Is(t, 200).Keys(t, "flags")
	if a := c.Ask(t, "GET", "/mesos/health", "").Is(t, 200); a.Body != "" {
		t.Errorf("health says %q", a.Body)
	}
	c.Ask(t, "GET", "/mesos/master/redirect", "", "Host", "bad.host").Is(t, 307).Has(t, "Location", "/mesos/")
	c.Ask(t, "GET", "/mesos/nothing", "").Is(t, 404)
	var metrics map[string]float64
	c.Ask(t, "GET", "/mesos/metrics/snapshot?timeout=5secs", "").Is(t, 200).JSON(t, &metrics)
	for _, k := range []string{"master/elected", "master/uptime_secs", "master/cpus_total", "master/cpus_used", "master/cpus_percent", "master/mem_total", "master/disk_total",
		"master/slaves_active", "master/slaves_connected", "master/slaves_inactive", "master/frameworks_active", "master/frameworks_connected",
		"master/tasks_running", "master/tasks_staging", "master/tasks_failed", "master/tasks_killed", "master/tasks_lost", "master/tasks_unreachable"} {
		if _, ok := metrics[k]; !ok {
			t.Errorf("no metric %s", k)
		}
	}
	if metrics["master/elected"] != 1 || metrics["master/slaves_active"] < 1 {
		t.Errorf("elected %v, active agents %v", metrics["master/elected"], metrics["master/slaves_active"])
	}
}

func keys(t *testing.T, what string, raw json.RawMessage, want ...string) {
	t.Helper()
	var m map[string]json.RawMessage
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	for _, k := range want {
		if _, ok := m[k]; !ok {
			t.Errorf("%s has no %q", what, k)
		}
	}
}

func TestAgent(t *testing.T) {
	f := register(t)
	f.launch(t, "files", "printf 0123456789; printf error >&2; mkdir d; sleep 1000")
	agent := "/agent/" + f.agent
	var state struct {
		Frameworks []struct {
			ID        string
			Executors []struct {
				ID, Directory, Container string
				Tasks                    []json.RawMessage
			}
		}
	}
	for _, path := range []string{"/state", "/slave(1)/state"} {
		c.Ask(t, "GET", agent+path, "").Is(t, 200).Has(t, "Content-Type", asJSON).Keys(t, "version", "id", "pid", "hostname", "resources", "attributes",
			"master_hostname", "flags", "frameworks", "completed_frameworks").JSON(t, &state)
	}
	dir := ""
	for _, fw := range state.Frameworks {
		if fw.ID == f.id && len(fw.Executors) == 1 {
			dir = fw.Executors[0].Directory
		}
	}
	if dir == "" {
		t.Fatalf("no executor of %s in %+v", f.id, state)
	}
	for _, root := range []string{dir, "/frameworks/" + f.id + "/executors/files/runs/latest"} {
		q := func(name string) string { return url.QueryEscape(root + name) }
		var list []map[string]any
		c.Ask(t, "GET", agent+"/files/browse?path="+q(""), "").Is(t, 200, "stdout", "stderr", `"mode":"drwx`).JSON(t, &list)
		for _, k := range []string{"path", "nlink", "size", "mtime", "mode", "uid", "gid"} {
			if _, ok := list[0][k]; !ok {
				t.Errorf("browse has no %s: %v", k, list[0])
			}
		}
		target.Eventually(t, "the task has written", func() error {
			if a := c.Ask(t, "GET", agent+"/files/read?path="+q("/stdout"), ""); a.Body != `{"data":"","offset":10}` {
				return fmt.Errorf("%s", a.Body)
			}
			return nil
		})
		c.Ask(t, "GET", agent+"/files/read?path="+q("/stdout")+"&offset=2&length=3", "").Is(t, 200, `{"data":"234","offset":2}`)
		c.Ask(t, "GET", agent+"/files/read?path="+q("/stdout")+"&offset=0&length=-1", "").Is(t, 200, `"data":"0123456789"`)
		c.Ask(t, "GET", agent+"/files/read?path="+q("/none")+"&offset=0", "").Is(t, 404)
		a := c.Ask(t, "GET", agent+"/files/download?path="+q("/stderr"), "").Is(t, 200, "error")
		if !strings.HasPrefix(a.Header.Get("Content-Disposition"), "attachment") {
			t.Errorf("download: %v", a.Header)
		}
		c.Ask(t, "GET", agent+"/files/download?path="+q("/../../../../../../../../../../etc/passwd"), "").Is(t, 404)
	}
	c.Ask(t, "GET", agent+"/files/browse", "").Is(t, 400)
	c.Ask(t, "GET", agent+"/files/debug", "").Is(t, 200)
	c.Ask(t, "GET", agent+"/containers", "").Is(t, 200, `"container_id"`, `"statistics"`, f.id)
	c.Ask(t, "GET", agent+"/monitor/statistics", "").Is(t, 200, `"mem_rss_bytes"`)
	c.Ask(t, "GET", agent+"/metrics/snapshot", "").Is(t, 200, `"slave/tasks_running"`)
	c.Ask(t, "GET", agent+"/flags", "").Is(t, 200).Keys(t, "flags")
	c.Ask(t, "GET", "/slave/"+f.agent+"/version", "").Is(t, 200).Keys(t, "version")
	c.Ask(t, "GET", "/agent/none/state", "").Is(t, 404)
	for _, call := range []string{"GET_HEALTH", "GET_VERSION", "GET_STATE", "GET_CONTAINERS", "GET_TASKS", "GET_FRAMEWORKS", "GET_AGENT", "GET_METRICS", "GET_FLAGS"} {
		c.Ask(t, "POST", agent+"/api/v1", `{"type":"`+call+`"}`, "Content-Type", asJSON).Is(t, 200, `"type":"`+call+`"`)
	}
	c.Ask(t, "POST", agent+"/api/v1", `{"type":"WAIT_CONTAINER","wait_container":{"container_id":{"value":"none"}}}`, "Content-Type", asJSON).Is(t, 404)
	var containers []struct {
		ContainerID string `json:"container_id"`
		FrameworkID string `json:"framework_id"`
	}
	c.Ask(t, "GET", agent+"/containers", "").JSON(t, &containers)
	for _, x := range containers {
		if x.FrameworkID == f.id {
			session(t, agent+"/api/v1", x.ContainerID)
		}
	}
}

// session runs a command in a container, and asks how it ended.
func session(t *testing.T, path, container string) {
	t.Helper()
	id := fmt.Sprintf(`{"value":"conformance","parent":{"value":%q}}`, container)
	launch := `{"type":"LAUNCH_NESTED_CONTAINER_SESSION","launch_nested_container_session":{"container_id":` + id + `,"command":{"value":"echo out; exit 3"}}}`
	ctx, cancel := context.WithTimeout(t.Context(), target.Patience)
	defer cancel()
	resp := c.Open(t, ctx, http.MethodPost, path, launch, "Authorization", "token="+c.Token, "Content-Type", asJSON, "Accept", "application/recordio", "Message-Accept", asJSON)
	defer resp.Body.Close()
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/recordio" || resp.Header.Get("Message-Content-Type") != asJSON {
		t.Fatalf("session: %s %v", resp.Status, resp.Header)
	}
	var p struct {
		Type string
		Data struct{ Type, Data string }
	}
	s := &stream{r: bufio.NewReader(resp.Body)}
	if err := json.Unmarshal(s.next(t), &p); err != nil || p.Type != "DATA" || p.Data.Type != "STDOUT" || p.Data.Data != base64.StdEncoding.EncodeToString([]byte("out\n")) {
		t.Errorf("output: %+v %v", p, err)
	}
	wait := `{"type":"WAIT_CONTAINER","wait_container":{"container_id":` + id + `}}`
	c.Ask(t, "POST", path, wait, "Content-Type", asJSON).Is(t, 200, `"exit_status":768`) // as waitpid(2) gives it
}
