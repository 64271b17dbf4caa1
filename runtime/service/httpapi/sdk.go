package httpapi

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	api "dcos.example/dcos/runtime/api/service"
	"dcos.example/dcos/runtime/service/engine"
)

// below routes what is under one service: the SDK's API.
func (c *call) below() {
	e, err := c.services.Find(c.segs[0])
	if err != nil {
		c.fail(err)
		return
	}
	s := &sdk{call: c, e: e}
	if len(c.segs) == 4 && c.segs[1] == "v2" && c.segs[2] == "debug" && c.segs[3] == "offers" {
		s.get(e.DebugOffers())
		return
	}
	if c.segs[1] != "v1" || len(c.segs) < 3 {
		c.notFound()
		return
	}
	rest := c.segs[3:]
	switch c.segs[2] {
	case "plans":
		s.plans(rest)
	case "pod":
		s.pods(rest)
	case "endpoints":
		s.endpoints(rest)
	case "configurations":
		s.configurations(rest)
	case "state":
		s.state(rest)
	case "health":
		s.exactly(rest, s.health)
	case "debug":
		s.debug(rest)
	case "artifacts":
		s.artifacts(rest)
	case "metrics":
		s.metrics(rest)
	default:
		c.notFound()
	}
}

// sdk is a call to the API of one service.
type sdk struct {
	*call
	e *engine.Engine
}

// get answers a view.
func (s *sdk) get(v any) { s.only(http.MethodGet, func() { s.json(http.StatusOK, v) }) }

// exactly runs f for a path that ends here, for GET.
func (s *sdk) exactly(rest []string, f func()) {
	if len(rest) > 0 {
		s.notFound()
		return
	}
	s.only(http.MethodGet, f)
}

// list makes [] of nothing.
func list[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}

func (s *sdk) plans(rest []string) {
	switch len(rest) {
	case 0:
		s.get(list(s.e.Plans()))
	case 1:
		s.only(http.MethodGet, func() {
			p, err := s.e.Plan(rest[0])
			if err != nil {
				s.fail(err)
				return
			}
			p.Phases, p.Errors = list(p.Phases), list(p.Errors)
			s.json(planStatus(p), p)
		})
	case 2:
		s.only(http.MethodPost, func() { s.tellPlan(rest[0], rest[1]) })
	default:
		s.notFound()
	}
}

// planStatus is the status that tells a script how a plan fares.
func planStatus(p api.PlanInfo) int {
	switch {
	case len(p.Errors) > 0 || p.Status == api.Error:
		return http.StatusExpectationFailed
	case p.Status == api.Complete:
		return http.StatusOK
	}
	return http.StatusAccepted
}

func (s *sdk) tellPlan(plan, verb string) {
	q, ctx := s.r.URL.Query(), s.r.Context()
	phase, step := q.Get("phase"), q.Get("step")
	changed := true
	var err error
	switch verb {
	case "start":
		var env map[string]string
		if !s.body(&env, false) {
			return
		}
		err = s.e.StartPlan(ctx, plan, env)
	case "stop":
		err = s.e.StopPlan(ctx, plan)
	case "continue":
		changed, err = s.e.Continue(ctx, plan, phase)
	case "interrupt":
		changed, err = s.e.Interrupt(ctx, plan, phase)
	case "forceComplete":
		changed, err = s.e.ForceComplete(ctx, plan, phase, step)
	case "restart":
		err = s.e.Restart(ctx, plan, phase, step)
	default:
		s.notFound()
		return
	}
	if err == nil && !changed {
		s.json(http.StatusAlreadyReported, api.CommandResult{Message: "Already so: " + verb})
		return
	}
	s.done(http.StatusOK, "Received cmd: "+verb, err)
}

func (s *sdk) pods(rest []string) {
	switch {
	case len(rest) == 0:
		s.get(list(s.e.Pods()))
	case len(rest) == 1 && rest[0] == "status":
		all := s.e.PodsStatus()
		all.Pods = list(all.Pods)
		s.get(all)
	case len(rest) != 2:
		s.notFound()
	case rest[1] == "status":
		s.only(http.MethodGet, func() { s.result(s.e.Pod(rest[0])) })
	case rest[1] == "info":
		s.only(http.MethodGet, func() {
			infos, err := s.e.PodInfo(rest[0])
			s.result(list(infos), err)
		})
	default:
		s.only(http.MethodPost, func() { s.tellPod(rest[0], rest[1]) })
	}
}

func (s *sdk) tellPod(instance, verb string) {
	ctx := s.r.Context()
	var tasks []string
	switch verb {
	case "restart":
		s.result(s.e.RestartPod(ctx, instance))
	case "replace":
		s.result(s.e.ReplacePod(ctx, instance))
	case "pause":
		if s.body(&tasks, false) {
			s.result(s.e.PausePod(ctx, instance, tasks))
		}
	case "resume":
		if s.body(&tasks, false) {
			s.result(s.e.ResumePod(ctx, instance, tasks))
		}
	default:
		s.notFound()
	}
}

func (s *sdk) endpoints(rest []string) {
	switch len(rest) {
	case 0:
		s.get(list(s.e.Endpoints()))
	case 1:
		s.only(http.MethodGet, func() { s.result(s.e.Endpoint(rest[0])) })
	default:
		s.notFound()
	}
}

func (s *sdk) configurations(rest []string) {
	switch {
	case len(rest) == 0:
		s.get(list(s.e.Configurations()))
	case len(rest) > 1:
		s.notFound()
	case rest[0] == "targetId":
		s.get([]string{s.e.TargetID()})
	case rest[0] == "target":
		s.only(http.MethodGet, func() { s.result(s.e.Configuration(s.e.TargetID())) })
	default:
		s.only(http.MethodGet, func() { s.result(s.e.Configuration(rest[0])) })
	}
}

func (s *sdk) state(rest []string) {
	what := strings.Join(rest, "/")
	key, isProperty := strings.CutPrefix(what, "properties/")
	switch {
	case what == "frameworkId":
		s.only(http.MethodGet, func() {
			id := s.e.FrameworkID()
			if id == "" {
				s.say(http.StatusNotFound, "The service has no framework yet.")
				return
			}
			s.json(http.StatusOK, []string{id})
		})
	case what == "properties":
		s.get(list(s.e.Properties()))
	case isProperty:
		s.only(http.MethodGet, func() { s.result(s.e.Property(key)) })
	case what == "refresh":
		// The leader is the only writer, so that there is nothing to read anew.
		s.only(http.MethodPut, func() { s.done(http.StatusOK, "Received cmd: refresh", nil) })
	case what == "files":
		s.get([]string{})
	case rest != nil && rest[0] == "files":
		s.say(http.StatusNotFound, "The operator keeps no files for services; their configurations have the texts of all templates.")
	default:
		s.notFound()
	}
}

// health is the SDK's, for load balancers and scripts: the status says it all.
func (s *sdk) health() {
	h := s.e.Health()
	status := http.StatusAccepted
	switch h.Status {
	case api.StatusRunning:
		status = http.StatusOK
	case api.StatusError:
		status = http.StatusExpectationFailed
	case "":
		status = http.StatusInternalServerError
	}
	s.json(status, h)
}

func (s *sdk) debug(rest []string) {
	switch strings.Join(rest, "/") {
	case "plans":
		s.get(list(s.e.DebugPlans()))
	case "taskStatuses":
		s.get(list(s.e.DebugTasks()))
	case "reservations":
		s.get(list(s.e.DebugReservations()))
	case "offers":
		s.get(s.e.DebugOffers())
	case "threads":
		s.say(http.StatusNotImplemented, "A service has no threads of its own: the operator is part of the leading master.")
	default:
		s.notFound()
	}
}

// artifacts is the text of a config template: /v1/artifacts/template/{config}/{pod}/{task}/{name}.
func (s *sdk) artifacts(rest []string) {
	if len(rest) != 5 || rest[0] != "template" {
		s.notFound()
		return
	}
	s.only(http.MethodGet, func() {
		body, err := s.e.Template(rest[1], rest[2], rest[3], rest[4])
		if err != nil {
			s.fail(err)
			return
		}
		s.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		s.w.Header().Set("X-Content-Type-Options", "nosniff")
		_, _ = io.WriteString(s.w, body) // the client is gone if it fails
	})
}

// gauge is one number of a service.
type gauge struct {
	name  string
	value int
}

func (s *sdk) gauges() []gauge {
	var instances, tasks, running, ready int
	for _, p := range s.e.PodsStatus().Pods {
		instances += len(p.Instances)
		for _, in := range p.Instances {
			for _, t := range in.Tasks {
				tasks++
				if t.Status == "RUNNING" {
					running++
				}
				if t.Ready {
					ready++
				}
			}
		}
	}
	all := []gauge{{"pods.instances", instances}, {"tasks.total", tasks}, {"tasks.running", running}, {"tasks.ready", ready}}
	for _, name := range s.e.Plans() {
		if p, err := s.e.Plan(name); err == nil {
			all = append(all, gauge{"plan_status." + name, planLevel(p.Status)})
		}
	}
	return all
}

// planLevel is a plan's status as the SDK's metrics have it: negative for
// errors, 0 when complete, and more the farther it is from that.
func planLevel(s api.PlanStatus) int {
	order := []api.PlanStatus{api.Error, api.Complete, api.Waiting, api.Pending, api.Prepared, api.Starting, api.Started, api.InProgress, api.Delayed}
	return slices.Index(order, s) - 1
}

func (s *sdk) metrics(rest []string) {
	if len(rest) > 1 || len(rest) == 1 && rest[0] != "prometheus" {
		s.notFound()
		return
	}
	s.only(http.MethodGet, func() {
		all := s.gauges()
		if len(rest) == 0 {
			out := map[string]any{}
			for _, g := range all {
				out[g.name] = map[string]int{"value": g.value}
			}
			s.json(http.StatusOK, map[string]any{
				"version": "4.0.0", "gauges": out, "counters": map[string]any{}, "histograms": map[string]any{}, "meters": map[string]any{}, "timers": map[string]any{},
			})
			return
		}
		s.w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		for _, g := range all {
			name := "dcos_service_" + strings.NewReplacer(".", "_", "-", "_").Replace(g.name)
			_, _ = fmt.Fprintf(s.w, "# TYPE %s gauge\n%s{service=%q} %d\n", name, name, s.e.Name(), g.value)
		}
	})
}
