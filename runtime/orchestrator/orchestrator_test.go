package orchestrator_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/api/marathon"
	"dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/scheduler"
	"dcos.example/dcos/runtime/orchestrator"
	"dcos.example/dcos/runtime/server"
	"dcos.example/dcos/runtime/state"
	"dcos.example/dcos/runtime/state/memory"
	"dcos.example/dcos/runtime/task"
)

var update = flag.Bool("update", false, "rewrite golden files")

// rig is one master process with an orchestrator, in virtual time.
type rig struct {
	t     *testing.T
	m     *master
	store state.Backend
	o     *orchestrator.Orchestrator
	h     http.Handler
	stop  func()
	ready atomic.Int64 // what readiness probes answer
}

// RoundTrip answers readiness probes.
func (r *rig) RoundTrip(req *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	w.WriteHeader(int(r.ready.Load()))
	_, _ = w.WriteString(req.URL.Path)
	return w.Result(), nil
}

func newRig(t *testing.T, m *master, store state.Backend) *rig {
	t.Helper()
	r := &rig{t: t, m: m, store: store}
	o, err := orchestrator.New(orchestrator.Options{
		Master: "http://master", Client: m.mem.Client(), Advertise: "http://10.0.0.1:8080", Hostname: "m1",
		Probe:  &http.Client{Transport: r},
		Leader: func() (string, bool) { return "http://10.0.0.1:8080", true },
		Log:    slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		t.Fatal(err)
	}
	r.o, r.h = o, o.Handler()
	r.start()
	t.Cleanup(func() { r.stop() })
	return r
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

func (r *rig) start() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.o.Run(ctx, r.store); err != nil {
			r.t.Error(err)
		}
	}()
	r.stop = func() { cancel(); <-done; r.stop = func() {} }
	synctest.Wait()
}

// do makes a request and waits until everything that follows at once is over.
func (r *rig) do(method, path, body string) (int, string) {
	r.t.Helper()
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	w := httptest.NewRecorder()
	r.h.ServeHTTP(w, req)
	r.settle()
	return w.Code, w.Body.String()
}

// settle lets held offers be matched.
func (r *rig) settle() { r.after(200 * time.Millisecond) }

func (r *rig) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (r *rig) must(want int, method, path, body string) string {
	r.t.Helper()
	code, out := r.do(method, path, body)
	if code != want {
		r.t.Fatalf("%s %s: %d %s, want %d", method, path, code, out, want)
	}
	return out
}

func get[T any](r *rig, path string) T {
	r.t.Helper()
	var v T
	if err := json.Unmarshal([]byte(r.must(200, "GET", path, "")), &v); err != nil {
		r.t.Fatal(err)
	}
	return v
}

func (r *rig) app(id string) marathon.AppInfo {
	r.t.Helper()
	return get[struct{ App marathon.AppInfo }](r, "/v2/apps"+id).App
}

func (r *rig) deployments() []marathon.Deployment {
	r.t.Helper()
	return get[[]marathon.Deployment](r, "/v2/deployments")
}

// virtual runs f in a bubble with a master of some agents.
func virtual(t *testing.T, agents int, res string, f func(*testing.T, *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, newRig(t, newMaster(t, agents, res), memory.New())) })
}

const big = "cpus:16;mem:16384;disk:10000;ports:[31000-32000]"

func TestLaunchIsSpreadAndFast(t *testing.T) {
	virtual(t, 4, big, func(t *testing.T, r *rig) {
		start := time.Now()
		w := httptest.NewRecorder()
		r.h.ServeHTTP(w, httptest.NewRequest("POST", "/v2/apps", strings.NewReader(`{"id":"/web","cmd":"sleep 1000","cpus":0.1,"mem":32,"instances":40}`)))
		if w.Code != 201 {
			t.Fatal(w.Code, w.Body)
		}
		r.after(10 * time.Millisecond)
		if n := len(r.m.spread()); n != 4 {
			t.Fatalf("%v after the POST: on %d agents: %v", time.Since(start), n, r.m.spread())
		}
		for host, n := range r.m.spread() {
			if n != 10 {
				t.Errorf("%s has %d of 40", host, n)
			}
		}
		if a := r.app("/web"); *a.TasksRunning != 40 || len(a.Deployments) != 0 {
			t.Errorf("running %d, deployments %v", *a.TasksRunning, a.Deployments)
		}
		r.m.mu.Lock()
		defer r.m.mu.Unlock()
		if r.m.biggest != 10 {
			t.Errorf("largest ACCEPT has %d tasks, want one per agent with 10", r.m.biggest)
		}
		if !r.m.suppressed {
			t.Error("offers still flow although nothing is wanted")
		}
		if r.m.acks != 80 {
			t.Errorf("%d updates acknowledged, want 80", r.m.acks)
		}
	})
}

func TestFailureBacksOffAndRecovers(t *testing.T) {
	virtual(t, 2, big, func(t *testing.T, r *rig) {
		r.must(201, "POST", "/v2/apps", `{"id":"/job","cmd":"exit 1","backoffSeconds":10,"backoffFactor":2}`)
		fail := func() {
			r.m.each(func(_ string, tk *mtask) { r.m.report(tk, task.Failed, nil, "Command exited with status 1") })
			r.settle()
		}
		fail()
		if n := len(r.m.spread()); n != 0 {
			t.Fatal("relaunched without a delay")
		}
		q := get[struct{ Queue []marathon.QueueItem }](r, "/v2/queue").Queue
		if len(q) != 1 || q[0].Delay.TimeLeftSeconds != 10 || q[0].Delay.Overdue {
			t.Fatalf("queue %+v", q)
		}
		r.after(10 * time.Second)
		if len(r.m.spread()) != 1 {
			t.Fatal("not relaunched after the delay")
		}
		fail()
		r.after(15 * time.Second)
		if len(r.m.spread()) != 0 {
			t.Fatal("the delay did not grow")
		}
		r.must(204, "DELETE", "/v2/queue/job/delay", "")
		if len(r.m.spread()) != 1 {
			t.Fatal("not relaunched after the delay was reset")
		}
		f := r.app("/job").LastTaskFailure
		if f == nil || f.Message != "Command exited with status 1" || f.State != "TASK_FAILED" {
			t.Errorf("last failure %+v", f)
		}
	})
}

func TestHealthGatesRollingUpgrade(t *testing.T) {
	virtual(t, 3, big, func(t *testing.T, r *rig) {
		healthy := func(version string) {
			r.m.each(func(_ string, tk *mtask) {
				if strings.Contains(tk.info.GetCommand().GetValue(), version) {
					r.m.report(tk, task.Running, proto.Bool(true), "")
				}
			})
			r.settle()
		}
		app := func(version string) string {
			return `{"id":"/web","cmd":"serve ` + version + `","cpus":1,"mem":32,"instances":4,
				"upgradeStrategy":{"minimumHealthCapacity":0.5,"maximumOverCapacity":0.25},
				"healthChecks":[{"path":"/health"}]}`
		}
		count := func() (v1, v2 int) {
			r.m.each(func(_ string, tk *mtask) {
				if strings.Contains(tk.info.GetCommand().GetValue(), "v1") {
					v1++
				} else {
					v2++
				}
			})
			return v1, v2
		}
		r.must(201, "POST", "/v2/apps", app("v1"))
		if ds := r.deployments(); len(ds) != 1 || ds[0].CurrentStep != 2 {
			t.Fatalf("deployment does not wait for health: %+v", ds)
		}
		healthy("v1")
		if len(r.deployments()) != 0 {
			t.Fatal("deployment is not over")
		}
		r.must(200, "PUT", "/v2/apps/web", app("v2"))
		// 2 of 4 must stay, 5 may run: 2 old die at once, 3 new start.
		if v1, v2 := count(); v1 != 2 || v2 != 3 {
			t.Fatalf("%d old and %d new, want 2 and 3", v1, v2)
		}
		code, body := r.do("PUT", "/v2/apps/web", `{"instances":9}`)
		if code != 409 || !strings.Contains(body, "App is locked by one or more deployments") {
			t.Fatal(code, body)
		}
		for range 3 {
			healthy("v2")
		}
		if v1, v2 := count(); v1 != 0 || v2 != 4 {
			t.Fatalf("%d old and %d new, want 0 and 4", v1, v2)
		}
		a := r.app("/web")
		if len(r.deployments()) != 0 || *a.TasksHealthy != 4 || len(a.Tasks[0].HealthCheckResults) != 1 || !a.Tasks[0].HealthCheckResults[0].Alive {
			t.Errorf("deployments %v, app %+v", r.deployments(), a)
		}
	})
}

func TestRollback(t *testing.T) {
	virtual(t, 2, big, func(t *testing.T, r *rig) {
		r.must(201, "POST", "/v2/apps", `{"id":"/web","cmd":"serve v1","instances":2}`)
		before := r.app("/web")
		r.m.mu.Lock()
		r.m.hold = func(*mesos.TaskInfo) bool { return true } // the new version never starts
		r.m.mu.Unlock()
		r.must(200, "PUT", "/v2/apps/web", `{"cmd":"serve v2"}`)
		ds := r.deployments()
		if len(ds) != 1 || ds[0].Steps[0].Actions[0].Action != "RestartApplication" {
			t.Fatalf("%+v", ds)
		}
		r.m.mu.Lock()
		r.m.hold = nil
		r.m.mu.Unlock()
		r.must(200, "DELETE", "/v2/deployments/"+ds[0].ID, "")
		a := r.app("/web")
		if a.Version != before.Version || *a.Cmd != "serve v1" || len(r.deployments()) != 0 {
			t.Fatalf("version %s, was %s; deployments %v", a.Version, before.Version, r.deployments())
		}
		old := map[string]bool{}
		for _, tk := range before.Tasks {
			old[tk.ID] = true
		}
		for _, tk := range a.Tasks {
			if !old[tk.ID] {
				t.Errorf("task %s was not there before the rollback", tk.ID)
			}
		}
		if len(a.Tasks) != 2 {
			t.Errorf("%d tasks", len(a.Tasks))
		}
	})
}

func TestFailOverRestartsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, store := newMaster(t, 3, big), memory.New()
		r := newRig(t, m, store)
		r.must(201, "POST", "/v2/apps", `{"id":"/a/web","cmd":"x1","instances":5}`)
		m.mu.Lock()
		m.hold = func(i *mesos.TaskInfo) bool { return strings.Contains(i.GetCommand().GetValue(), "x2") }
		m.mu.Unlock()
		r.must(200, "PUT", "/v2/apps/a/web", `{"cmd":"x2"}`)
		before := r.app("/a/web")
		deployment := r.deployments()[0].ID
		r.stop()
		// While nobody leads, one old instance dies and one new one starts.
		m.cut()
		var running string
		m.mu.Lock()
		for id, tk := range m.tasks {
			if tk.state == task.Starting && running == "" {
				tk.state, running = task.Running, id
			}
		}
		m.mu.Unlock()

		r2 := newRig(t, m, store)
		r2.settle()
		if got := m.id(); got != "fw-0001" {
			t.Errorf("subscribed as %s", got)
		}
		if ds := r2.deployments(); len(ds) != 1 || ds[0].ID != deployment {
			t.Fatalf("deployments %+v", ds)
		}
		after := r2.app("/a/web")
		if after.Version != before.Version {
			t.Error("version changed")
		}
		state := map[string]string{}
		for _, tk := range after.Tasks {
			state[tk.ID] = tk.State
		}
		if state[running] != "TASK_RUNNING" {
			t.Errorf("%s is %q after reconciliation", running, state[running])
		}
		// The deployment goes on to its end.
		m.mu.Lock()
		m.hold = nil
		for _, tk := range m.tasks {
			if tk.state == task.Starting {
				m.report(tk, task.Running, nil, "")
			}
		}
		m.mu.Unlock()
		r2.settle()
		if len(r2.deployments()) != 0 {
			t.Fatalf("the deployment did not end: %+v", r2.app("/a/web").Tasks)
		}
		m.each(func(id string, tk *mtask) {
			if tk.info.GetCommand().GetValue() != "x2" {
				t.Errorf("%s runs %s", id, tk.info.GetCommand().GetValue())
			}
		})
		launched := m.launches()
		m.cut()
		r2.after(10 * time.Second)
		if m.launches() != launched || m.called(scheduler.Call_RECONCILE) == 0 {
			t.Error("a lost connection restarted something")
		}
	})
}

func TestLostAgent(t *testing.T) {
	lose := func(r *rig, host string) (lost []*mtask) {
		r.m.mu.Lock()
		for _, a := range r.m.agents {
			if a.host == host {
				a.away = true
			}
		}
		for _, tk := range r.m.tasks {
			if tk.agent.host == host {
				tk.state = task.Unreachable
				lost = append(lost, tk)
				r.m.emit(&scheduler.Event{Type: scheduler.Event_UPDATE.Enum(), Update: &scheduler.Event_Update{Status: &mesos.TaskStatus{
					TaskId: tk.info.GetTaskId(), State: task.Unreachable.Enum(), AgentId: tk.info.GetAgentId(),
				}}})
			}
		}
		r.m.mu.Unlock()
		r.settle()
		return lost
	}
	back := func(r *rig, host string, lost []*mtask) {
		r.m.mu.Lock()
		for _, a := range r.m.agents {
			a.away = a.away && a.host != host
		}
		for _, tk := range lost {
			r.m.report(tk, task.Running, nil, "Unreachable agent re-reregistered")
		}
		r.m.mu.Unlock()
		r.settle()
	}
	t.Run("default strategy replaces at once", func(t *testing.T) {
		virtual(t, 3, big, func(t *testing.T, r *rig) {
			r.must(201, "POST", "/v2/apps", `{"id":"/web","cmd":"xx","instances":3}`)
			lost := lose(r, "host-1")
			if s := r.m.spread(); s["host-0"]+s["host-2"] != 3 {
				t.Fatalf("not replaced: %v", s)
			}
			back(r, "host-1", lost)
			if s := r.m.spread(); s["host-0"]+s["host-1"]+s["host-2"] != 3 {
				t.Errorf("surplus is not killed: %v", s)
			}
		})
	})
	t.Run("strategy with times", func(t *testing.T) {
		virtual(t, 3, big, func(t *testing.T, r *rig) {
			r.must(201, "POST", "/v2/apps", `{"id":"/web","cmd":"xx","instances":3,
				"unreachableStrategy":{"inactiveAfterSeconds":60,"expungeAfterSeconds":600}}`)
			lost := lose(r, "host-1")
			if r.m.launches() != 3 {
				t.Fatal("replaced too early")
			}
			r.after(61 * time.Second)
			if r.m.launches() != 4 {
				t.Fatal("not replaced when inactive")
			}
			if n := len(r.app("/web").Tasks); n != 4 {
				t.Fatalf("%d tasks, want the lost one too", n)
			}
			back(r, "host-1", lost)
			if n := len(r.app("/web").Tasks); n != 3 {
				t.Errorf("%d tasks after the agent came back", n)
			}
		})
	})
}

func TestQueueSaysWhy(t *testing.T) {
	virtual(t, 2, big, func(t *testing.T, r *rig) {
		r.must(201, "POST", "/v2/apps", `{"id":"/huge","cmd":"xx","cpus":64,"mem":99999,"constraints":[["rack","LIKE","r1"]]}`)
		q := get[struct{ Queue []marathon.QueueItem }](r, "/v2/queue?embed=lastUnusedOffers").Queue
		if len(q) != 1 || len(q[0].LastUnusedOffers) != 2 {
			t.Fatalf("%+v", q)
		}
		want := []string{"UnfulfilledConstraint", "InsufficientCpus", "InsufficientMemory"}
		if diff := cmp.Diff(want, q[0].LastUnusedOffers[0].Reason); diff != "" {
			t.Error(diff)
		}
		rows := q[0].ProcessedOffersSummary.RejectSummaryLastOffers
		if rows[1] != (marathon.Reject{Reason: "UnfulfilledConstraint", Declined: 2, Processed: 2}) || rows[4].Processed != 0 {
			t.Errorf("%+v", rows)
		}
	})
}

func TestGroups(t *testing.T) {
	virtual(t, 2, big, func(t *testing.T, r *rig) {
		group := `{"id":"/prod","groups":[
			{"id":"db","apps":[{"id":"pg","cmd":"pg","cpus":0.1}]},
			{"id":"web","dependencies":["/prod/db"],"apps":[{"id":"front","cmd":"front","cpus":0.1,"instances":2},{"id":"back","cmd":"back","cpus":0.1}]}]}`
		dry := r.must(200, "PUT", "/v2/groups/prod?dryRun=true", group)
		var plan struct{ Steps []marathon.Step }
		if err := json.Unmarshal([]byte(dry), &plan); err != nil || len(plan.Steps) != 3 || plan.Steps[1].Actions[0].App != "/prod/db/pg" {
			t.Fatalf("dry run %s", dry)
		}
		r.must(201, "POST", "/v2/groups", group)
		if r.m.living() != 4 || len(r.deployments()) != 0 {
			t.Fatalf("%d tasks, deployments %v", r.m.living(), r.deployments())
		}
		version := get[marathon.GroupInfo](r, "/v2/groups").Version
		r.must(200, "PUT", "/v2/groups/prod/web", `{"scaleBy":2.5}`)
		if a := r.app("/prod/web/front"); a.Instances != 5 || *a.TasksRunning != 5 {
			t.Errorf("front has %d of %d", *a.TasksRunning, a.Instances)
		}
		r.must(200, "PUT", "/v2/groups/prod/web", `{"apps":[{"id":"front","cmd":"front","cpus":0.1,"instances":5}]}`)
		if code, _ := r.do("GET", "/v2/apps/prod/web/back", ""); code != 404 {
			t.Errorf("back is still there: %d", code)
		}
		r.must(200, "PUT", "/v2/groups/prod", `{"version":"`+version+`"}`)
		if a := r.app("/prod/web/front"); a.Instances != 2 {
			t.Errorf("front has %d instances after the rollback", a.Instances)
		}
		r.app("/prod/web/back")
		code, body := r.do("PUT", "/v2/apps/prod/db/pg", `{"dependencies":["/prod/web/front"]}`)
		if code != 422 || !strings.Contains(body, "Dependency graph has cyclic dependencies.") {
			t.Error(code, body)
		}
		r.must(200, "DELETE", "/v2/groups", "")
		if r.m.living() != 0 || r.must(200, "GET", "/v2/apps", "") != `{"apps":[]}` {
			t.Error("the root group is not empty")
		}
	})
}

func TestKillAndScale(t *testing.T) {
	virtual(t, 2, big, func(t *testing.T, r *rig) {
		r.must(201, "POST", "/v2/apps", `{"id":"/web","cmd":"xx","instances":3,"backoffSeconds":3600}`)
		tasks := r.app("/web").Tasks
		r.must(200, "DELETE", "/v2/apps/web/tasks/"+tasks[0].ID, "")
		if n := len(r.app("/web").Tasks); n != 3 {
			t.Errorf("%d tasks after a kill: what a user kills is replaced without delay", n)
		}
		tasks = r.app("/web").Tasks
		r.must(200, "POST", "/v2/tasks/delete?scale=true", `{"ids":["`+tasks[0].ID+`"]}`)
		a := r.app("/web")
		if a.Instances != 2 || len(a.Tasks) != 2 || slices.ContainsFunc(a.Tasks, func(x marathon.Task) bool { return x.ID == tasks[0].ID }) {
			t.Errorf("%d instances, tasks %v", a.Instances, a.Tasks)
		}
		code, body := r.do("DELETE", "/v2/apps/web/tasks?scale=true&wipe=true", "")
		if code != 400 || body != `{"message":"You cannot use scale and wipe at the same time."}` {
			t.Error(code, body)
		}
		r.must(200, "POST", "/v2/apps/web/restart", "")
		for _, x := range r.app("/web").Tasks {
			if x.Version == a.Version {
				t.Errorf("%s was not restarted", x.ID)
			}
		}
	})
}

func TestReadinessGatesDeployment(t *testing.T) {
	virtual(t, 1, big, func(t *testing.T, r *rig) {
		r.ready.Store(503)
		r.must(201, "POST", "/v2/apps", `{"id":"/web","cmd":"xx","portDefinitions":[{"name":"http-api"}],
			"readinessChecks":[{"intervalSeconds":2,"timeoutSeconds":1,"path":"/ok","preserveLastResponse":true}]}`)
		ds := r.deployments()
		if len(ds) != 1 {
			t.Fatal("the deployment did not wait until the instance is ready")
		}
		if res := ds[0].CurrentActions[0].ReadinessCheckResults; len(res) != 1 || res[0].Ready || res[0].LastResponse.Body != "/ok" {
			t.Errorf("results %+v", res)
		}
		r.ready.Store(200)
		r.after(2 * time.Second)
		if ds := r.deployments(); len(ds) != 0 {
			t.Errorf("deployment goes on although ready: %+v", ds)
		}
	})
}

var volatile = regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]+Z|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|"ports":\[[0-9,]+\]`)

func TestGoldenAnswers(t *testing.T) {
	virtual(t, 1, big, func(t *testing.T, r *rig) {
		var out bytes.Buffer
		show := func(method, path, body string) {
			code, got := r.do(method, path, body)
			got = volatile.ReplaceAllStringFunc(got, func(s string) string {
				switch {
				case strings.HasPrefix(s, `"ports"`):
					return `"ports":["PORTS"]`
				case strings.Contains(s, "T"):
					return "TIME"
				}
				return "UUID"
			})
			var pretty bytes.Buffer
			if json.Indent(&pretty, []byte(got), "", "  ") != nil {
				pretty.WriteString(got)
			}
			fmt.Fprintf(&out, "%s %s %s\n%d %s\n\n", method, path, body, code, &pretty)
		}
		show("POST", "/v2/apps", `{"id":"web","cmd":"sleep 100","labels":{"VIP":"x"}}`)
		show("POST", "/v2/apps", `{"id":"/web","cmd":"sleep 100"}`)
		show("GET", "/v2/apps/web", "")
		show("GET", "/v2/apps?label=VIP==x&embed=apps.tasks", "")
		show("POST", "/v2/apps", `{"id":"old","container":{"docker":{"image":"nginx","network":"BRIDGE","portMappings":[{"containerPort":80}]}},"uris":["http://x/a.tgz"],"instances":0}`)
		show("GET", "/v2/groups?embed=group.apps&embed=group.groups", "")
		show("PUT", "/v2/apps/web", `{"instances":"many","cpus":true,"portDefinitions":[{"port":"x"}]}`)
		show("PUT", "/v2/apps/web", `{"cmd":`)
		show("PUT", "/v2/apps/web", `{"upgradeStrategy":{"minimumHealthCapacity":2},"args":["x"]}`)
		show("PATCH", "/v2/apps/none", `{"instances":1}`)
		show("GET", "/v2/apps/none", "")
		show("GET", "/v2/groups/none", "")
		show("GET", "/v2/tasks", "")
		show("GET", "/v2/deployments", "")
		show("GET", "/v2/queue", "")
		show("GET", "/v2/leader", "")
		show("GET", "/v2/info", "")
		show("GET", "/v2/pods", "")
		show("DELETE", "/v2/deployments/none", "")
		show("DELETE", "/v2/queue/web/delay", "")
		show("DELETE", "/v2/apps/web", "")
		show("GET", "/v2/nothing", "")
		show("GET", "/ping", "")
		golden(t, "answers.txt", out.Bytes())
	})
}

func TestGoldenTask(t *testing.T) {
	virtual(t, 1, "cpus:4;mem:4096;disk:100;ports:[31000-31001]", func(t *testing.T, r *rig) {
		r.must(201, "POST", "/v2/apps", `{"id":"/shop/cart","cpus":0.5,"mem":64,"env":{"A":"b"},"labels":{"team":"x y"},
			"taskKillGracePeriodSeconds":7,"fetch":[{"uri":"http://x/y.zip"}],
			"container":{"type":"DOCKER","docker":{"image":"nginx:1","forcePullImage":true},"volumes":[{"containerPath":"/d","hostPath":"/h","mode":"RO"}]},
			"networks":[{"mode":"container/bridge"}],
			"healthChecks":[{"protocol":"HTTP","path":"/up","portIndex":0},{"protocol":"COMMAND","command":{"value":"true"},"maxConsecutiveFailures":0}]}`)
		r.must(200, "PUT", "/v2/apps/shop/cart?force=true", `{"instances":0}`)
		r.must(200, "PUT", "/v2/apps/shop/cart", `{"instances":1,"container":{"type":"DOCKER","docker":{"image":"nginx:1"},
			"portMappings":[{"containerPort":8080,"hostPort":31001,"name":"http","labels":{"VIP_0":"/cart:80"}},{"containerPort":53,"hostPort":31000,"protocol":"udp,tcp"}]}}`)
		n := r.m.launches()
		r.m.mu.Lock()
		info := proto.CloneOf(r.m.launched[n-1])
		r.m.mu.Unlock()
		b, err := json.MarshalIndent(info, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "task.json", volatile.ReplaceAll(b, []byte("X")))
	})
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func TestEvents(t *testing.T) {
	virtual(t, 1, big, func(t *testing.T, r *rig) {
		mem := server.NewMemory()
		s := &http.Server{Handler: r.h}
		go func() { _ = s.Serve(mem) }()
		defer s.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, "GET", "http://m/v2/events?event_type=deployment_info&event_type=status_update_event&event_type=deployment_success&event_type=api_post_event&event_type=group_change_success&event_type=deployment_step_success", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := mem.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.Header.Get("Content-Type") != "text/event-stream" {
			t.Error(resp.Header)
		}
		r.must(201, "POST", "/v2/apps", `{"id":"/e","cmd":"xx"}`)
		want := []string{
			"api_post_event", "group_change_success", "deployment_info", "deployment_step_success", "deployment_info",
			"status_update_event", "status_update_event", "deployment_step_success", "deployment_success",
		}
		var got []string
		lines := bufio.NewScanner(resp.Body)
		for len(got) < len(want) && lines.Scan() {
			if typ, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
				got = append(got, typ)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestFollowerProxies(t *testing.T) {
	leader := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(299)
		_, _ = io.WriteString(w, r.URL.Path+" via "+r.Header.Get("X-Marathon-Via"))
	}))
	defer leader.Close()
	follower := func(advertise string) http.Handler {
		o, err := orchestrator.New(orchestrator.Options{
			Master: "http://master", Client: &http.Client{}, Advertise: advertise,
			Leader: func() (string, bool) { return leader.URL, true }, Log: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		return o.Handler()
	}
	w := httptest.NewRecorder()
	follower("http://10.0.0.2:8080").ServeHTTP(w, httptest.NewRequest("GET", "/v2/apps//a", nil))
	if w.Code != 299 || w.Body.String() != "/v2/apps//a via 10.0.0.2:8080" || w.Header().Get("X-Marathon-Leader") != leader.URL {
		t.Error(w.Code, w.Body, w.Header())
	}
	req := httptest.NewRequest("GET", "/v2/apps", nil)
	req.Header.Set("X-Marathon-Via", "10.0.0.2:8080")
	w = httptest.NewRecorder()
	follower("http://10.0.0.2:8080").ServeHTTP(w, req)
	if w.Code != 502 {
		t.Error("loop not seen:", w.Code)
	}
	w = httptest.NewRecorder()
	follower("http://10.0.0.2:8080").ServeHTTP(w, httptest.NewRequest("GET", "/ping", nil))
	if w.Code != 200 || w.Body.String() != "pong" {
		t.Error(w.Code, w.Body)
	}
}

func TestHundredsRoll(t *testing.T) {
	virtual(t, 20, "cpus:100;mem:163840;disk:10000;ports:[31000-32000]", func(t *testing.T, r *rig) {
		r.must(201, "POST", "/v2/apps", `{"id":"/web","cmd":"v1","cpus":0.1,"mem":32,"instances":600}`)
		if a := r.app("/web"); *a.TasksRunning != 600 {
			t.Fatalf("%d running", *a.TasksRunning)
		}
		r.must(200, "PUT", "/v2/apps/web", `{"cmd":"v2","upgradeStrategy":{"minimumHealthCapacity":0.9,"maximumOverCapacity":0.1}}`)
		r.after(10 * time.Second)
		a := r.app("/web")
		if *a.TasksRunning != 600 || len(a.Deployments) != 0 {
			t.Fatalf("%d running, deployments %v", *a.TasksRunning, a.Deployments)
		}
		for _, x := range a.Tasks {
			if x.Version != a.Version {
				t.Fatalf("%s has version %s", x.ID, x.Version)
			}
		}
	})
}
