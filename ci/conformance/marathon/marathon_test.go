//go:build e2e

package marathon_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"dcos.example/dcos/ci/conformance/target"
)

var c target.Cluster

func TestMain(m *testing.M) { os.Exit(target.Main(m, &c, "confmarathon", "198.19.190.0/24")) }

const api = "/service/marathon/v2"

func send(t *testing.T, method, path, body string) target.Answer {
	t.Helper()
	return c.Ask(t, method, api+path, body, "Content-Type", "application/json")
}

type result struct{ Version, DeploymentID string }

// deployed checks the answer to a change and waits for its deployment.
func deployed(t *testing.T, a target.Answer, code int) result {
	t.Helper()
	var r result
	a.Is(t, code).JSON(t, &r)
	if r.DeploymentID == "" { // the body is the app
		var app struct {
			Version     string
			Deployments []struct{ ID string }
		}
		a.JSON(t, &app)
		if len(app.Deployments) != 1 {
			t.Fatalf("deployments: %s", a.Body)
		}
		r = result{app.Version, app.Deployments[0].ID}
	}
	if r.DeploymentID == "" || r.Version == "" || a.Header.Get("Marathon-Deployment-Id") != r.DeploymentID {
		t.Errorf("deployment %+v, header %q", r, a.Header.Get("Marathon-Deployment-Id"))
	}
	target.Eventually(t, "deployment "+r.DeploymentID+" ends", func() error {
		if list := c.Ask(t, "GET", api+"/deployments", ""); strings.Contains(list.Body, r.DeploymentID) {
			return fmt.Errorf("%s", list.Body)
		}
		return nil
	})
	return r
}

// clean removes a group of a test, before and after it.
func clean(t *testing.T, group string) {
	remove := func() {
		if send(t, "GET", "/groups"+group, "").Code == 200 {
			send(t, "DELETE", "/groups"+group+"?force=true", "")
			target.Eventually(t, group+" is gone", func() error {
				if a := send(t, "GET", "/groups"+group, ""); a.Code != 404 {
					return fmt.Errorf("%d %s", a.Code, a.Body)
				}
				return nil
			})
		}
	}
	remove()
	t.Cleanup(remove)
}

func TestErrors(t *testing.T) {
	clean(t, "/conf-errors")
	const kind = "application/json; charset=utf-8"
	for _, tc := range []struct {
		method, path, body string
		code               int
		says               []string
	}{
		{"POST", "/apps", `{"id":`, 400, []string{`"message":"Invalid JSON","details":`}},
		{"POST", "/apps", `{"id":1}`, 400, []string{`{"message":"Invalid JSON","details":[{"path":"/id","errors":["error.expected.jsstring"]}]}`}},
		{"POST", "/apps", `{"id":"/x","cmd":["a"]}`, 400, []string{`"path":"/cmd"`, "error.expected.jsstring"}},
		{"POST", "/apps", `{"id":"/Bad_Name","cmd":"true"}`, 422, []string{`{"message":"Object is not valid","details":[`, `"path":"/id"`, "must fully match regular expression"}},
		{"POST", "/apps", `{"id":"/conf-errors/x"}`, 422, []string{"AppDefinition must either contain one of 'cmd' or 'args', and/or a 'container'."}},
		{"POST", "/apps", `{"id":"/conf-errors/x","cmd":"true","args":["a"]}`, 422, []string{"AppDefinition must either contain one of 'cmd' or 'args'"}},
		{"POST", "/apps", `{"id":"/conf-errors/x","cmd":"true","upgradeStrategy":{"minimumHealthCapacity":2,"maximumOverCapacity":0}}`, 422, []string{"/upgradeStrategy/minimumHealthCapacity", "is greater than 1"}},
		{"POST", "/apps", `{"id":"/conf-errors/x","cmd":"true","constraints":[["hostname","NOPE"]]}`, 422, []string{"operator must be one of the following UNIQUE, CLUSTER, GROUP_BY, LIKE, MAX_PER, UNLIKE or IS"}},
		{"POST", "/apps", `{"id":"/conf-errors/x","cmd":"true","portDefinitions":[{"port":8080},{"port":8080}]}`, 422, []string{"Ports must be unique."}},
		{"GET", "/apps/conf-errors/none", "", 404, []string{`{"message":"App '/conf-errors/none' does not exist"}`}},
		{"PATCH", "/apps/conf-errors/none", `{"instances":1}`, 404, []string{"App '/conf-errors/none' does not exist"}},
		{"DELETE", "/apps/conf-errors/none", "", 404, []string{"App '/conf-errors/none' does not exist"}},
		{"GET", "/groups/conf-errors", "", 404, []string{`{"message":"Group '/conf-errors' does not exist"}`}},
		{"DELETE", "/deployments/none", "", 404, []string{"DeploymentPlan none does not exist"}},
		{"DELETE", "/queue/conf-errors/none/delay", "", 404, []string{"Application /conf-errors/none not found in tasks queue."}},
		{"GET", "/none", "", 404, []string{`"message"`}},
	} {
		a := send(t, tc.method, tc.path, tc.body).Is(t, tc.code, tc.says...)
		if got := a.Header.Get("Content-Type"); got != kind {
			t.Errorf("%s %s: Content-Type %q", tc.method, tc.path, got)
		}
	}
}

func TestApps(t *testing.T) {
	clean(t, "/conf-apps")
	const path = "/apps/conf-apps/a"
	a := send(t, "POST", "/apps", `{"id":"/conf-apps/a","cmd":"sleep 1000","cpus":0.1,"mem":32,"labels":{"team":"conf"},"env":{"A":"b"}}`)
	if got := a.Header.Get("Location"); !strings.HasSuffix(got, "/conf-apps/a") {
		t.Errorf("Location %q", got)
	}
	a.Keys(t, "id", "backoffFactor", "backoffSeconds", "cpus", "disk", "executor", "instances", "killSelection", "maxLaunchDelaySeconds", "mem", "gpus", "networks",
		"requirePorts", "upgradeStrategy", "unreachableStrategy", "version", "versionInfo", "labels", "portDefinitions", "deployments",
		"tasksStaged", "tasksRunning", "tasksHealthy", "tasksUnhealthy")
	first := deployed(t, a, 201)
	send(t, "POST", "/apps", `{"id":"/conf-apps/a","cmd":"sleep 1"}`).Is(t, 409, "An app with id [/conf-apps/a] already exists.")
	for _, q := range []string{"?id=conf-ap", "?label=team==conf", "?label=team", "?label=team%20in%20(conf,x)", "?cmd=sleep"} {
		send(t, "GET", "/apps"+q, "").Is(t, 200, `"id":"/conf-apps/a"`)
	}
	send(t, "GET", "/apps?label=team!=conf&id=conf-apps", "").Is(t, 200, `{"apps":[]}`)
	send(t, "GET", "/apps/conf-apps/*", "").Is(t, 200, `{"*":[`)
	send(t, "GET", "/apps//conf-apps//a", "").Is(t, 200, `{"app":{"id":"/conf-apps/a"`)
	send(t, "GET", path, "").Is(t, 200, `"tasksRunning":1`, `"tasks":[{`)

	scaled := deployed(t, send(t, "PUT", path, `{"instances":2}`), 200)
	var tasks struct {
		Tasks []struct {
			ID, AppID, Host, SlaveID, State, Version, StagedAt, StartedAt string
			Ports                                                         []int
		}
	}
	send(t, "GET", path+"/tasks", "").Is(t, 200).JSON(t, &tasks)
	if len(tasks.Tasks) != 2 || tasks.Tasks[0].AppID != "/conf-apps/a" || tasks.Tasks[0].State != "TASK_RUNNING" || len(tasks.Tasks[0].Ports) != 1 || tasks.Tasks[0].Version != first.Version {
		t.Errorf("tasks after scaling: %+v", tasks)
	}
	deployed(t, send(t, "PATCH", path, `{"env":{"A":"c"}}`), 200)
	var versions struct{ Versions []string }
	send(t, "GET", path+"/versions", "").Is(t, 200).JSON(t, &versions)
	if len(versions.Versions) != 3 || versions.Versions[2] != first.Version || !slices.IsSortedFunc(versions.Versions, func(a, b string) int { return strings.Compare(b, a) }) {
		t.Errorf("versions %q, first %s", versions.Versions, first.Version)
	}
	send(t, "GET", path+"/versions/"+scaled.Version, "").Is(t, 200, `"A":"b"`, `"instances":2`)
	send(t, "GET", path+"/versions/2000-01-01T00:00:00.000Z", "").Is(t, 404)
	deployed(t, send(t, "PUT", path, `{"version":"`+first.Version+`"}`), 200)
	send(t, "GET", path, "").Is(t, 200, `"A":"b"`, `"instances":1`)
	deployed(t, send(t, "POST", path+"/restart", ""), 200)

	send(t, "GET", path+"/tasks", "").JSON(t, &tasks)
	id := tasks.Tasks[0].ID
	send(t, "DELETE", path+"/tasks/"+id, "").Is(t, 200, `{"task":{`, id)
	target.Eventually(t, "a killed task is replaced", func() error {
		if a := send(t, "GET", path+"/tasks", ""); strings.Contains(a.Body, id) || !strings.Contains(a.Body, "TASK_RUNNING") {
			return fmt.Errorf("%s", a.Body)
		}
		return nil
	})
	send(t, "DELETE", path+"/tasks?scale=true&wipe=true", "").Is(t, 400, "You cannot use scale and wipe at the same time.")
	deployed(t, send(t, "DELETE", path+"/tasks?scale=true", ""), 200)
	send(t, "GET", path, "").Is(t, 200, `"instances":0`)
	send(t, "POST", "/tasks/delete", `{"ids":[]}`).Is(t, 200, `{"tasks":[]}`)
	deployed(t, send(t, "PUT", path+"?partialUpdate=false", `{"cmd":"sleep 2000","instances":0}`), 200)
	send(t, "GET", path, "").Is(t, 200, `"labels":{}`)
	deployed(t, send(t, "DELETE", path, ""), 200)
	send(t, "GET", path, "").Is(t, 404)
}

func TestLocksAndQueue(t *testing.T) {
	clean(t, "/conf-locks")
	a := send(t, "POST", "/apps", `{"id":"/conf-locks/big","cmd":"sleep 1000","cpus":1000,"mem":32}`).Is(t, 201)
	id := a.Header.Get("Marathon-Deployment-Id")
	send(t, "PUT", "/apps/conf-locks/big", `{"instances":3}`).Is(t, 409,
		"App is locked by one or more deployments. Override with the option '?force=true'. View details at '/v2/deployments/<DEPLOYMENT_ID>'.", `"deployments":[{"id":"`+id+`"}]`)
	send(t, "GET", "/deployments", "").Is(t, 200, id, `"currentStep"`, `"totalSteps"`, `"affectedApps":["/conf-locks/big"]`, `{"action":"ScaleApplication","app":"/conf-locks/big"`)
	target.Eventually(t, "the queue says why", func() error {
		q := send(t, "GET", "/queue?embed=lastUnusedOffers", "").Is(t, 200, `"queue":[`)
		for _, part := range []string{`"/conf-locks/big"`, `"rejectSummaryLastOffers"`, `"InsufficientCpus"`, `"lastUnusedOffers"`, `"delay":{"timeLeftSeconds":`} {
			if !strings.Contains(q.Body, part) {
				return fmt.Errorf("no %s in %s", part, q.Body)
			}
		}
		return nil
	})
	send(t, "DELETE", "/queue/conf-locks/big/delay", "").Is(t, 204)
	send(t, "PUT", "/apps/conf-locks/big?force=true", `{"instances":2}`).Is(t, 200)
	type deployment struct {
		ID           string
		AffectedApps []string
	}
	var list []deployment
	send(t, "GET", "/deployments", "").JSON(t, &list)
	list = slices.DeleteFunc(list, func(d deployment) bool { return !slices.Contains(d.AffectedApps, "/conf-locks/big") })
	if len(list) != 1 || list[0].ID == id {
		t.Fatalf("after force: %+v", list)
	}
	send(t, "DELETE", "/deployments/"+list[0].ID+"?force=true", "").Is(t, 202)
}

func TestGroups(t *testing.T) {
	clean(t, "/conf-groups")
	app := func(id, more string) string {
		return `{"id":"` + id + `","cmd":"sleep 1000","cpus":0.1,"mem":32` + more + `}`
	}
	deployed(t, send(t, "POST", "/groups", `{"id":"/conf-groups","groups":[{"id":"inner","apps":[`+app("db", "")+`,`+app("web", `,"dependencies":["../inner/db"]`)+`]}]}`), 201)
	send(t, "POST", "/groups", `{"id":"/conf-groups"}`).Is(t, 409, "Group /conf-groups is already created. Use PUT to change this group.")
	send(t, "GET", "/groups/conf-groups/inner", "").Is(t, 200, `"id":"/conf-groups/inner"`, `"/conf-groups/inner/db"`, `"dependencies":["/conf-groups/inner/db"]`)
	send(t, "GET", "/groups?embed=group.groups&embed=group.apps&embed=group.apps.counts&embed=group.apps.tasks", "").Is(t, 200, `"tasksRunning"`)
	send(t, "PUT", "/groups/conf-groups/inner?dryRun=true", `{"apps":[`+app("db", "")+`]}`).Is(t, 200, `{"steps":[{"actions":[{"action":"StopApplication","app":"/conf-groups/inner/web"`)
	deployed(t, send(t, "PUT", "/groups/conf-groups/inner", `{"scaleBy":2}`), 200)
	send(t, "GET", "/apps/conf-groups/inner/db", "").Is(t, 200, `"instances":2`)
	send(t, "PUT", "/groups/conf-groups", `{"apps":[`+app("a", `,"dependencies":["/conf-groups/b"]`)+`,`+app("b", `,"dependencies":["/conf-groups/a"]`)+`]}`).Is(t, 422, "cyclic dependencies")
	// As clients in Python write it.
	send(t, "PUT", "/groups/conf-groups", `{"apps":[{"id":"never","cmd":"true","cpus":1000}]}`).Is(t, 200)
	deployed(t, send(t, "DELETE", "/groups/conf-groups?force=True", ""), 200)
}

// Events come as server-sent events, in order, from registration on.
func TestEvents(t *testing.T) {
	clean(t, "/conf-events")
	ctx, cancel := context.WithTimeout(t.Context(), target.Patience)
	defer cancel()
	resp := c.Open(t, ctx, "GET", api+"/events?plan-format=light", "", "Authorization", "token="+c.Token, "Accept", "text/event-stream")
	defer resp.Body.Close()
	if resp.StatusCode != 200 || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		t.Fatalf("%s %v", resp.Status, resp.Header)
	}
	seen := map[string]bool{}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	next := func() string {
		name := ""
		for lines.Scan() {
			if v, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
				name = v
			}
			if v, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				var e struct{ EventType, Timestamp string }
				if err := json.Unmarshal([]byte(v), &e); err != nil || e.EventType != name || e.Timestamp == "" {
					t.Errorf("event %s: %v %s", name, err, v)
				}
				return name
			}
		}
		t.Fatalf("the stream ended: %v; seen %v", lines.Err(), seen)
		return ""
	}
	if name := next(); name != "event_stream_attached" {
		t.Errorf("the first event is %s", name)
	}
	send(t, "POST", "/apps", `{"id":"/conf-events/a","cmd":"sleep 1000","cpus":0.1,"mem":32}`).Is(t, 201)
	var order []string
	for !seen["deployment_success"] {
		name := next()
		if !seen[name] {
			order = append(order, name)
		}
		seen[name] = true
	}
	for _, want := range []string{"api_post_event", "deployment_info", "status_update_event", "instance_changed_event", "deployment_step_success"} {
		if !seen[want] {
			t.Errorf("no %s in %v", want, order)
		}
	}
	if i, j := slices.Index(order, "api_post_event"), slices.Index(order, "deployment_info"); i > j {
		t.Errorf("order %v", order)
	}
}

func TestAbout(t *testing.T) {
	c.Ask(t, "GET", "/service/marathon/ping", "").Is(t, 200, "pong")
	c.Ask(t, "GET", "/marathon/ping", "").Is(t, 200, "pong")
	var info struct {
		Name, Version, FrameworkID, Leader string
		Elected                            bool
		MarathonConfig                     map[string]any `json:"marathon_config"`
	}
	send(t, "GET", "/info", "").Is(t, 200).Keys(t, "name", "version", "elected", "leader", "frameworkId", "marathon_config", "http_config", "zookeeper_config").JSON(t, &info)
	if info.Name != "marathon" || info.FrameworkID == "" || !info.Elected {
		t.Errorf("%+v", info)
	}
	var leader struct{ Leader string }
	send(t, "GET", "/leader", "").Is(t, 200).JSON(t, &leader)
	if leader.Leader == "" || leader.Leader != info.Leader {
		t.Errorf("leader %q, info says %q", leader.Leader, info.Leader)
	}
	send(t, "GET", "/tasks?status=running", "").Is(t, 200).Keys(t, "tasks")
	send(t, "GET", "/plugins", "").Is(t, 200, `{"plugins":`)
	c.Ask(t, "GET", "/service/marathon/metrics", "").Is(t, 200)
	send(t, "GET", "/groups/versions", "").Is(t, 200, "[")
}
