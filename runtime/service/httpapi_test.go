package service_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	api "dcos.example/dcos/runtime/api/service"
	"dcos.example/dcos/runtime/service/httpapi"
	"dcos.example/dcos/runtime/state/memory"
)

// caller asks the API of a rig's operator.
type caller struct {
	t *testing.T
	h http.Handler
}

func (r *rig) caller() *caller {
	return &caller{r.t, httpapi.New(httpapi.Config{
		Service: r.s, Self: "m1:5050", Leader: func() (string, bool) { return "", false }, Log: slog.New(slog.DiscardHandler),
	})}
}

func (c *caller) ask(method, path, body string, header ...string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(c.t.Context(), method, path, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	c.h.ServeHTTP(w, r)
	return w
}

// want asks, and compares the status and what the body has in it.
func (c *caller) want(method, path, body string, status int, contains string, header ...string) {
	c.t.Helper()
	w := c.ask(method, path, body, header...)
	if w.Code != status || !strings.Contains(w.Body.String(), contains) {
		c.t.Errorf("%s %s: %d %s; want %d %s", method, path, w.Code, w.Body, status, contains)
	}
	if w.Header().Get("Content-Type") == "application/json; charset=utf-8" && !json.Valid(w.Body.Bytes()) {
		c.t.Errorf("%s %s answers no JSON: %s", method, path, w.Body)
	}
}

func installation(spec string) string {
	b, _ := json.Marshal(request(spec))
	return string(b)
}

func TestAPIOfServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newMaster(t, 4, room), memory.New())
		c := r.caller()
		c.want("GET", "/services/", "", 200, `{"services":[]}`)
		c.want("GET", "/services/kafka", "", 404, `there is no service`)
		c.want("GET", "/services/kafka/v1/plans", "", 404, `there is no service`)
		c.want("PUT", "/services/kafka", `{"spex":1}`, 400, `unknown field \"spex\"`)
		c.want("PUT", "/services/kafka", `{`, 400, "The body is not the JSON that is wanted here")
		c.want("PUT", "/services/kafka", `{}`, 400, `{"path":"spec","message":"is missing"}`)
		c.want("PUT", "/services/other", installation(kafka), 400, `"path":"name"`)
		c.want("PUT", "/services/kafka", installation(edit(kafka, "cpus: 0.5, memory", "cpus: 0, memory")), 400, `"path":"pods.kafka.tasks.format.cpus"`)
		c.want("POST", "/services/check", installation(edit(kafka, "count: 3", "count: 5")), 400, "too few agents for the placement rule")
		c.want("POST", "/services/check", installation(kafka), 200, "can be installed")
		c.want("GET", "/services/", "", 200, `{"services":[]}`)

		c.want("PUT", "/services/kafka", installation(kafka), 201, `"name":"kafka"`)
		c.want("PUT", "/services/kafka", installation(kafka), 409, "", "If-None-Match", "*")
		c.want("GET", "/services/kafka/v1/plans/deploy", "", 202, `"status":"`)
		c.want("GET", "/services/kafka/v1/health", "", 202, `"status":"DEPLOYING"`)
		r.untilPlan("deploy", api.Complete, 20*time.Second)
		c.want("GET", "/services/", "", 200, `"status":"RUNNING"`)
		c.want("GET", "/services/kafka", "", 200, `"role":"kafka-role"`)
		c.want("PUT", "/services/kafka", installation(edit(kafka, `VERSION: "1"`, `VERSION: "2"`)), 200, `"status":"UPDATING"`)
		r.untilPlan("deploy", api.Complete, 60*time.Second)

		c.want("PATCH", "/services/kafka", "", 405, "")
		c.want("DELETE", "/services/kafka", "", 202, "uninstalled")
		c.want("GET", "/services/kafka", "", 200, `"status":"UNINSTALLING"`)
		c.want("PUT", "/services/kafka", installation(kafka), 409, "")
		r.after(20 * time.Second)
		c.want("GET", "/services/kafka", "", 404, "")
	})
}

// Statuses and forms are those of the SDK.
func TestAPIOfOneService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newMaster(t, 3, room), memory.New())
		spec := kafka + `
`
		spec = edit(spec, "plans:\n", "plans:\n  backup: {phases: {brokers: {pod: kafka, steps: [[default, [save]]]}}}\n")
		spec = edit(spec, "      broker:\n        cpus", "      save: {goal: FINISH, cmd: ./save, cpus: 0.1, memory: 10}\n      broker:\n        cpus")
		spec = edit(spec, "allow-decommission: true", "allow-decommission: true\n    share-volumes: true")
		r.put(spec)
		r.untilPlan("deploy", api.Complete, 20*time.Second)
		c := r.caller()
		const at = "/services/kafka"
		c.want("GET", at+"/v1/plans", "", 200, `["deploy","recovery","decommission","backup"]`)
		c.want("GET", at+"/v1/plans/deploy", "", 200, `"strategy":"serial"`)
		c.want("GET", at+"/v1/plans/update", "", 200, `"status":"COMPLETE"`)
		c.want("GET", at+"/v1/plans/none", "", 404, `no plan`)
		c.want("POST", at+"/v1/plans/deploy", "", 405, "")
		c.want("POST", at+"/v1/plans/deploy/interrupt", "", 200, `"Received cmd: interrupt"`)
		c.want("POST", at+"/v1/plans/deploy/interrupt", "", 208, "Already so")
		c.want("POST", at+"/v1/plans/deploy/continue", "", 200, "")
		c.want("POST", at+"/v1/plans/deploy/continue", "", 208, "")
		c.want("POST", at+"/v1/plans/deploy/interrupt?phase=brokers", "", 200, "")
		c.want("POST", at+"/v1/plans/deploy/interrupt?phase=brokers", "", 208, "")
		c.want("POST", at+"/v1/plans/deploy/continue?phase=brokers", "", 200, "")
		c.want("POST", at+"/v1/plans/deploy/continue?phase=none", "", 404, "no phase")
		c.want("POST", at+"/v1/plans/deploy/forceComplete?phase=brokers&step=kafka-0:[broker]", "", 208, "")
		c.want("POST", at+"/v1/plans/deploy/dance", "", 404, "")
		c.want("POST", at+"/v1/plans/backup/start", `["A"]`, 400, "")
		c.want("POST", at+"/v1/plans/backup/start", `{"TO":"here"}`, 200, `"Received cmd: start"`)
		c.want("GET", at+"/v1/plans/backup", "", 202, "")
		c.want("POST", at+"/v1/plans/backup/start", "", 409, "")
		r.untilPlan("backup", api.Complete, 20*time.Second)
		if got := variable(r.m.last("kafka-2-save"), "TO"); got != "here" {
			t.Errorf("the plan's variable is %q", got)
		}

		c.want("GET", at+"/v1/pod", "", 200, `["kafka-0","kafka-1","kafka-2"]`)
		c.want("GET", at+"/v1/pod/status", "", 200, `{"service":"kafka","pods":[{"name":"kafka","instances":[{"name":"kafka-0","tasks":[`)
		c.want("GET", at+"/v1/pod/kafka-1/status", "", 200, `"name":"kafka-1-broker"`)
		c.want("GET", at+"/v1/pod/kafka-1/info", "", 200, `"name":"kafka-1-broker"`)
		c.want("GET", at+"/v1/pod/kafka-9/status", "", 404, "kafka-9")
		c.want("POST", at+"/v1/pod/kafka-9/restart", "", 404, "kafka-9")
		c.want("POST", at+"/v1/pod/kafka-0/dance", "", 404, "")
		c.want("GET", at+"/v1/pod/kafka-0/restart", "", 405, "")
		c.want("POST", at+"/v1/pod/kafka-0/pause", `["broker"]`, 200, `{"pod":"kafka-0","tasks":["kafka-0-broker"]}`)
		c.want("POST", at+"/v1/pod/kafka-0/pause", `["broker"]`, 409, "")
		r.after(10 * time.Second)
		c.want("GET", at+"/v1/pod/kafka-0/status", "", 200, `"status":"PAUSED"`)
		c.want("POST", at+"/v1/pod/kafka-0/resume", "", 200, "kafka-0-broker")
		r.after(10 * time.Second)
		c.want("POST", at+"/v1/pod/kafka-0/restart", "", 200, `{"pod":"kafka-0","tasks":["kafka-0-broker"]}`)
		r.untilPlan("recovery", api.Complete, 20*time.Second)
		c.want("POST", at+"/v1/pod/kafka-0/replace", "", 200, `"pod":"kafka-0"`)
		r.after(30 * time.Second)

		c.want("GET", at+"/v1/endpoints", "", 200, `["broker"]`)
		c.want("GET", at+"/v1/endpoints/broker", "", 200, `"vip":"broker.kafka.l4lb.thisdcos.directory:9092"`)
		c.want("GET", at+"/v1/endpoints/none", "", 404, "")
		target := r.find("kafka").TargetID()
		c.want("GET", at+"/v1/configurations", "", 200, fmt.Sprintf("[%q]", target))
		c.want("GET", at+"/v1/configurations/targetId", "", 200, fmt.Sprintf("[%q]", target))
		c.want("GET", at+"/v1/configurations/target", "", 200, `"name":"kafka"`)
		c.want("GET", at+"/v1/configurations/"+target, "", 200, `"name":"kafka"`)
		c.want("GET", at+"/v1/configurations/none", "", 404, "")
		c.want("GET", at+"/v1/artifacts/template/"+target+"/kafka/broker/server", "", 200, "id={{POD_INSTANCE_INDEX}}")
		c.want("GET", at+"/v1/artifacts/template/"+target+"/kafka/broker/none", "", 404, "")
		c.want("GET", at+"/v1/state/frameworkId", "", 200, `["fw-`)
		c.want("GET", at+"/v1/state/properties", "", 200, `[`)
		c.want("GET", at+"/v1/state/properties/none", "", 404, "")
		c.want("PUT", at+"/v1/state/refresh", "", 200, "Received cmd: refresh")
		c.want("GET", at+"/v1/state/files", "", 200, "[]")
		c.want("PUT", at+"/v1/state/files/x", "", 404, "keeps no files")
		c.want("GET", at+"/v1/health", "", 200, `{"status":"RUNNING"}`)
		c.want("GET", at+"/v1/debug/plans", "", 200, "[")
		c.want("GET", at+"/v1/debug/taskStatuses", "", 200, "kafka-2-broker")
		c.want("GET", at+"/v1/debug/reservations", "", 200, "kafka-2")
		c.want("GET", at+"/v1/debug/offers", "", 200, `"outcomes":[`)
		c.want("GET", at+"/v2/debug/offers", "", 200, `"outcomes":[`)
		c.want("GET", at+"/v1/debug/threads", "", 501, "no threads")
		c.want("GET", at+"/v1/metrics", "", 200, `"tasks.running":{"value":3}`)
		c.want("GET", at+"/v1/metrics/prometheus", "", 200, `dcos_service_plan_status_deploy{service="kafka"} 0`)
		for _, path := range []string{"/v1", "/v1/", "/v2/plans", "/v1/none", "/v1/health/x", "/v1/metrics/x", "/v1/pod/a/b/c", "/v1/state/none", "/v1/endpoints/a/b"} {
			c.want("GET", at+path, "", 404, "")
		}
		// Secrets are shown nowhere.
		secret := ""
		for _, v := range r.m.last("kafka-0-broker").GetContainer().GetVolumes() {
			if v.GetContainerPath() == "/secret" {
				secret = string(v.GetSource().GetSecret().GetValue().GetData())
			}
		}
		for _, path := range []string{"", "/v1/pod/kafka-0/info", "/v1/configurations/target", "/v1/debug/taskStatuses"} {
			if w := c.ask("GET", at+path, ""); secret == "" || strings.Contains(w.Body.String(), secret) {
				t.Errorf("%s shows the secret %q", path, secret)
			}
		}
	})
}

// A master that has lost the lead answers nothing of what it knew.
func TestAPIWithoutLead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newMaster(t, 3, room), memory.New())
		r.put(kafka)
		r.stop()
		c := r.caller()
		c.want("GET", "/services/", "", 503, "Could not determine the current leader")
		c.want("GET", "/services/kafka/v1/plans", "", 503, "Could not determine the current leader")
	})
}
