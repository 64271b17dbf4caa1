package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	api "dcos.example/dcos/runtime/api/service"
)

// operator keeps services the way the API of the operator shows them. Each
// look at the plan of a service moves it one status on.
type operator struct {
	mu       sync.Mutex
	services map[string]*operated
}

type operated struct {
	request api.Request
	looks   int
	leaving bool
	paused  bool
}

// newOperator has a service that is there, and one in a group.
func newOperator() *operator {
	from := func(name string) *operated {
		return &operated{request: api.Request{Package: api.Package{Name: name, Version: "1.0"}}}
	}
	return &operator{services: map[string]*operated{"kafka": from("kafka"), "prod/search": from("opensearch")}}
}

// has is what the gateway asks.
func (o *operator) has(name string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.services[name] != nil
}

func (o *operator) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	segs := strings.Split(strings.TrimPrefix(r.URL.EscapedPath(), "/services/"), "/")
	name, err := url.PathUnescape(segs[0])
	s := o.services[name]
	switch {
	case err != nil:
		refuse(w, 400, api.ErrorBody{Message: err.Error()})
	case name == "":
		list := api.List{Services: []api.Summary{}}
		for n, s := range o.services {
			if s.leaving {
				if s.looks++; s.looks > 2 {
					delete(o.services, n)
					continue
				}
			}
			list.Services = append(list.Services, s.summary(n))
		}
		refuse(w, 200, list)
	case r.Method == http.MethodPut && len(segs) == 1, r.Method == http.MethodPost && name == "check":
		o.put(w, r, name)
	case s == nil:
		refuse(w, 404, api.ErrorBody{Message: fmt.Sprintf("there is no service %q", name)})
	case r.Method == http.MethodDelete:
		s.leaving, s.looks = true, 0
		refuse(w, 202, api.CommandResult{Message: "The service is being uninstalled."})
	case len(segs) == 1:
		refuse(w, 200, api.Detail{Summary: s.summary(name), Package: s.request.Package})
	default:
		s.below(w, r, name, strings.Join(segs[1:], "/"))
	}
}

func (o *operator) put(w http.ResponseWriter, r *http.Request, name string) {
	var in api.Request
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		refuse(w, 400, api.ErrorBody{Message: err.Error()})
		return
	}
	spec, _, err := api.Parse(in.Spec)
	if err != nil {
		refuse(w, 400, api.ErrorBody{Message: err.Error()})
		return
	}
	if pods := spec.Pods; len(pods) > 0 && pods[0].Value.Count > 3 && !in.Force {
		refuse(w, 400, api.ErrorBody{Message: "The service cannot be as it is asked for.", Errors: []api.Problem{
			{Path: "pods.node.placement", Message: "needs 4 agents, and there are 3"},
		}})
		return
	}
	if r.Method == http.MethodPost {
		refuse(w, 200, api.CommandResult{Message: "The service can be installed."})
		return
	}
	status := 201
	if o.services[name] != nil {
		status = 200
		if r.Header.Get("If-None-Match") == "*" {
			refuse(w, 409, api.ErrorBody{Message: "the service is there already"})
			return
		}
	}
	o.services[name] = &operated{request: in}
	refuse(w, status, api.Detail{Summary: o.services[name].summary(name), Package: in.Package})
}

func (s *operated) summary(name string) api.Summary {
	status := api.StatusRunning
	if s.leaving {
		status = api.StatusUninstalling
	}
	return api.Summary{
		ID: "/" + name, Name: name, Status: status, Package: api.PackageVersion{Name: s.request.Package.Name, Version: s.request.Package.Version},
		Pods: []api.PodSummary{{Name: "node", Count: 1, Running: 1, Ready: 1}},
	}
}

func (s *operated) plan() api.PlanInfo {
	at := []api.PlanStatus{api.Prepared, api.Starting, api.Started, api.Complete}
	status := at[min(s.looks, len(at)-1)]
	all := api.InProgress
	if status == api.Complete {
		all = api.Complete
	}
	if s.paused {
		status, all = api.Waiting, api.Waiting
	}
	return api.PlanInfo{
		Status: all, Strategy: "serial", Errors: []string{},
		Phases: []api.PhaseInfo{{ID: "p1", Name: "node", Status: all, Strategy: "serial", Steps: []api.StepInfo{
			{ID: "s1", Name: "node-0:[server]", Status: status, Message: "as it should be"},
			{ID: "s2", Name: "node-1:[server]", Status: api.Pending},
		}}},
	}
}

func (s *operated) below(w http.ResponseWriter, r *http.Request, name, rest string) {
	said := func(text string) { refuse(w, 200, api.CommandResult{Message: text}) }
	verb := r.Method + " " + rest
	if instance, ok := strings.CutPrefix(rest, "v1/pod/node-"); ok && !strings.HasPrefix(instance, "0") {
		refuse(w, 404, api.ErrorBody{Message: "there is no instance node-" + strings.Split(instance, "/")[0]})
		return
	}
	switch verb {
	case "GET v1/plans":
		refuse(w, 200, []string{"deploy", "recovery"})
	case "GET v1/plans/deploy":
		p := s.plan()
		if s.looks++; p.Status == api.Complete {
			refuse(w, 200, p)
			return
		}
		refuse(w, 202, p)
	case "GET v1/plans/recovery":
		refuse(w, 417, api.PlanInfo{Status: api.Error, Strategy: "parallel", Errors: []string{"no room for node-0"}, Phases: []api.PhaseInfo{}})
	case "POST v1/plans/deploy/interrupt":
		if s.paused {
			refuse(w, 208, api.CommandResult{Message: "Already so: interrupt"})
			return
		}
		s.paused = true
		said("Received cmd: interrupt " + r.URL.Query().Get("phase"))
	case "POST v1/plans/deploy/continue":
		s.paused = false
		said("Received cmd: continue")
	case "POST v1/plans/deploy/restart", "POST v1/plans/deploy/forceComplete":
		said(fmt.Sprintf("Received cmd: %s %s %s", rest[len("v1/plans/deploy/"):], r.URL.Query().Get("phase"), r.URL.Query().Get("step")))
	case "POST v1/plans/backup/start":
		var env map[string]string
		_ = json.NewDecoder(r.Body).Decode(&env)
		said(fmt.Sprint("Received cmd: start ", env))
	case "GET v1/pod":
		refuse(w, 200, []string{"node-0"})
	case "GET v1/pod/status":
		refuse(w, 200, api.PodsStatus{Service: name, Pods: []api.PodStatus{
			{Name: "meta", Instances: []api.InstanceStatus{}},
			{Name: "node", Instances: []api.InstanceStatus{s.instance()}},
		}})
	case "GET v1/pod/node-0/status":
		refuse(w, 200, s.instance())
	case "GET v1/pod/node-0/info":
		refuse(w, 200, []api.TaskInfo{{Info: json.RawMessage(`{"name":"node-0-server"}`)}})
	case "POST v1/pod/node-0/restart", "POST v1/pod/node-0/replace":
		refuse(w, 200, api.PodResult{Pod: "node-0", Tasks: []string{"node-0-server"}})
	case "POST v1/pod/node-0/pause", "POST v1/pod/node-0/resume":
		var tasks []string
		_ = json.NewDecoder(r.Body).Decode(&tasks)
		if slices.Contains(tasks, "broken") {
			refuse(w, 409, api.ErrorBody{Message: "it is paused already"})
			return
		}
		refuse(w, 200, api.PodResult{Pod: "node-0", Tasks: tasks})
	case "GET v1/endpoints":
		refuse(w, 200, []string{"server", "site.xml"})
	case "GET v1/endpoints/server":
		refuse(w, 200, api.Endpoint{Address: []string{"198.19.50.21:9092"}, DNS: []string{"node-0-server." + name + ".autoip.dcos.thisdcos.directory:9092"}, VIP: "server." + name + ".l4lb.thisdcos.directory:9092"})
	case "GET v1/endpoints/site.xml":
		fmt.Fprintln(w, "<configuration/>")
	case "GET v1/configurations":
		refuse(w, 200, []string{"c1"})
	case "GET v1/configurations/targetId":
		refuse(w, 200, []string{"c1"})
	case "GET v1/configurations/target", "GET v1/configurations/c1":
		refuse(w, 200, map[string]string{"name": name})
	case "GET v1/state/frameworkId":
		refuse(w, 200, []string{"fw-1"})
	case "GET v1/state/properties":
		refuse(w, 200, []string{"suppressed"})
	case "GET v1/state/properties/suppressed":
		refuse(w, 200, "true")
	case "PUT v1/state/refresh":
		said("Received cmd: refresh")
	case "GET v1/debug/offers":
		refuse(w, 200, api.DebugOffers{Outcomes: []api.OfferOutcome{
			{Time: "2026-01-02T03:04:05Z", Host: "a1", Pod: "node-1", Outcome: "fail", Reasons: []api.OfferReason{{Passes: true, Name: "mem"}, {Name: "cpus", Reason: "4 wanted, 2 offered"}}},
		}, Rejections: map[string]int{"cpus": 7}})
	case "GET v1/debug/reservations":
		refuse(w, 200, []api.DebugReservation{{Pod: "node-0", Host: "a1", Resources: "cpus:1; mem:512", Volumes: []string{"data"}}})
	case "GET v1/debug/plans":
		refuse(w, 200, []api.DebugPlan{{Plan: "deploy", Phase: "node", Step: "node-1:[server]", Status: api.Prepared, Message: "no offer fits"}})
	default:
		refuse(w, 404, api.ErrorBody{Message: "Nothing is at " + r.URL.Path + "."})
	}
}

func (s *operated) instance() api.InstanceStatus {
	return api.InstanceStatus{Name: "node-0", Host: "a1", Tasks: []api.TaskStatus{
		{Name: "node-0-server", ID: "node-0-server__1", Status: "RUNNING", Ready: true},
		{Name: "node-0-helper", ID: "node-0-helper__1", Status: "RUNNING", Message: "port 1 is closed"},
		{Name: "node-0-init", ID: "node-0-init__1", Status: "FAILED", Message: "exit status 3"},
	}}
}
