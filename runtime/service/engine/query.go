package engine

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/service"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/service/launch"
	"dcos.example/dcos/runtime/service/match"
	"dcos.example/dcos/runtime/service/plan"
	"dcos.example/dcos/runtime/service/spec"
	"dcos.example/dcos/runtime/task"
)

// Name is the service's name.
func (e *Engine) Name() string { return e.name }

// FrameworkID is "" before the first subscription.
func (e *Engine) FrameworkID() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.status.Framework
}

// TargetID is the id of the configuration aimed at.
func (e *Engine) TargetID() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.rec.Target
}

// Target is the spec aimed at, without secrets; it must not be changed.
func (e *Engine) Target() *service.Spec {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.target().Spec
}

// Leaving reports whether the service is being uninstalled.
func (e *Engine) Leaving() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.rec.Uninstall
}

// Detail is the service as a whole.
func (e *Engine) Detail() service.Detail {
	e.mu.Lock()
	defer e.mu.Unlock()
	t := e.target()
	return service.Detail{
		Summary: e.summary(time.Now()), Package: t.Package, Spec: t.Spec, TargetID: t.ID,
		FrameworkID: e.status.Framework, Role: e.role,
	}
}

// Summary is the service in a list.
func (e *Engine) Summary() service.Summary {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.summary(time.Now())
}

func (e *Engine) summary(now time.Time) service.Summary {
	t := e.target()
	h := e.health(now)
	s := service.Summary{
		ID: "/" + e.name, Name: e.name, Package: service.PackageVersion{Name: t.Package.Name, Version: t.Package.Version},
		Status: h.Status, Message: h.Message, Pods: []service.PodSummary{},
	}
	for name, p := range t.Spec.Pods.All() {
		sum := service.PodSummary{Name: name, Count: p.Count}
		for n := range p.Count {
			i := e.instances[plan.Instance{Pod: name, Index: n}]
			if i == nil {
				continue
			}
			running, serving := true, true
			for tn, def := range e.podOf(i).Tasks.All() {
				if def.Goal != service.Running {
					continue
				}
				tr := i.rec.Tasks[tn]
				running = running && tr != nil && tr.state() == task.Running
				serving = serving && tr != nil && ready(def, tr)
			}
			if running {
				sum.Running++
			}
			if running && serving {
				sum.Ready++
			}
		}
		s.Pods = append(s.Pods, sum)
	}
	return s
}

// Health sums the service up: RUNNING when all is well.
func (e *Engine) Health() service.Health {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.health(time.Now())
}

func (e *Engine) health(now time.Time) service.Health {
	p, v, err := e.view(spec.PlanDeploy, now)
	h := service.Health{Status: service.StatusRunning}
	switch {
	case err != nil:
	case e.rec.Uninstall:
		h.Status = service.StatusUninstalling
	case v.Status == service.Error:
		h.Status = service.StatusError
	case v.Status != service.Complete && e.status.First == "":
		h.Status = service.StatusDeploying
	case v.Status != service.Complete:
		h.Status = service.StatusUpdating
	}
	if e.problem != "" {
		h.Message = "the master refuses the framework: " + e.problem
		return h
	}
	if h.Message = said(p, v); h.Message == "" && h.Status == service.StatusRunning {
		if p, v, err := e.view(spec.PlanRecovery, now); err == nil && v.Status != service.Complete {
			h.Message = "recovers: " + said(p, v)
		}
	}
	return h
}

// said is the first message of a step that is under way.
func said(p plan.Plan, v plan.View) string {
	for k, ph := range v.Phases {
		for n, s := range ph.Steps {
			if s.Status != service.Complete && s.Message != "" {
				return p.Phases[k].Steps[n].Name + ": " + s.Message
			}
		}
	}
	return ""
}

// Plans lists the plans by name, deploy (or update), recovery and decommission
// first.
func (e *Engine) Plans() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.rec.Uninstall {
		return []string{spec.PlanDeploy}
	}
	out := []string{e.deployPlan().Name, spec.PlanRecovery, spec.PlanDecommission}
	for name := range e.target().Spec.Plans.All() {
		if _, ok := e.customPlan(name); ok {
			out = append(out, name)
		}
	}
	return out
}

// Plan returns a plan; "update" and "deploy" are one.
func (e *Engine) Plan(name string) (service.PlanInfo, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	p, v, err := e.view(name, time.Now())
	if err != nil {
		return service.PlanInfo{}, err
	}
	out := service.PlanInfo{Name: p.Name, Phases: []service.PhaseInfo{}, Errors: []string{}, Status: v.Status, Strategy: string(p.Strategy)}
	for k, ph := range p.Phases {
		info := service.PhaseInfo{ID: ph.ID, Name: ph.Name, Steps: []service.StepInfo{}, Strategy: string(ph.Strategy), Status: v.Phases[k].Status}
		for n, st := range ph.Steps {
			s := v.Phases[k].Steps[n]
			info.Steps = append(info.Steps, service.StepInfo{ID: st.ID, Name: st.Name, Status: s.Status, Message: s.Message})
			if s.Status == service.Error {
				out.Errors = append(out.Errors, st.Name+": "+s.Message)
			}
		}
		out.Phases = append(out.Phases, info)
	}
	return out, nil
}

// Pods lists the instances: "kafka-0".
func (e *Engine) Pods() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := []string{}
	for _, i := range e.sorted() {
		out = append(out, i.id.String())
	}
	return out
}

// PodsStatus shows all instances and tasks.
func (e *Engine) PodsStatus() service.PodsStatus {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := service.PodsStatus{Service: e.name, Pods: []service.PodStatus{}}
	for _, i := range e.sorted() {
		if n := len(out.Pods); n == 0 || out.Pods[n-1].Name != i.id.Pod {
			out.Pods = append(out.Pods, service.PodStatus{Name: i.id.Pod})
		}
		p := &out.Pods[len(out.Pods)-1]
		p.Instances = append(p.Instances, e.instanceStatus(i))
	}
	return out
}

func (e *Engine) instanceStatus(i *instance) service.InstanceStatus {
	out := service.InstanceStatus{Name: i.id.String(), Tasks: []service.TaskStatus{}, Agent: i.rec.Agent, Host: i.rec.Place.Host}
	for name, def := range e.podOf(i).Tasks.All() {
		out.Tasks = append(out.Tasks, e.taskStatus(i, name, def))
	}
	return out
}

func (e *Engine) taskStatus(i *instance, name string, def *service.Task) service.TaskStatus {
	t := i.rec.Tasks[name]
	out := service.TaskStatus{Name: launch.FullName(i.id, name), Status: service.TaskNone}
	if t == nil || t.ID == "" {
		return out
	}
	out.ID, out.ConfigID, out.Message, out.Ready = t.ID, t.Config, t.Message, ready(def, t)
	out.Status = strings.TrimPrefix(t.state().String(), "TASK_")
	switch {
	case t.live() && t.Idle:
		out.Status = service.TaskPaused
	case t.live() && i.rec.Paused[name]:
		out.Status = service.TaskPausing
	}
	return out
}

// Pod shows one instance.
func (e *Engine) Pod(name string) (service.InstanceStatus, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	i, err := e.instanceNamed(name)
	if err != nil {
		return service.InstanceStatus{}, err
	}
	return e.instanceStatus(i), nil
}

// PodInfo shows an instance's tasks as they were launched, without secrets and
// files, and their last status.
func (e *Engine) PodInfo(name string) ([]service.TaskInfo, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	i, err := e.instanceNamed(name)
	if err != nil {
		return nil, err
	}
	out := []service.TaskInfo{}
	for n := range e.podOf(i).Tasks.All() {
		t := i.rec.Tasks[n]
		if t == nil || t.ID == "" {
			continue
		}
		lt := e.launched(i, n, t)
		info, err := launch.Info(lt)
		if err != nil {
			return nil, err
		}
		withhold(info)
		var one service.TaskInfo
		if one.Info, err = protojson.Marshal(info); err != nil {
			return nil, fault.New("show task", fault.Internal, err)
		}
		state := t.state()
		status := &mesos.TaskStatus{
			TaskId: info.TaskId, State: state.Enum(), AgentId: info.AgentId, Message: proto.String(t.Message), Healthy: t.Healthy,
			Timestamp: proto.Float64(float64(t.Since.UnixMilli()) / 1000),
		}
		if one.Status, err = protojson.Marshal(status); err != nil {
			return nil, fault.New("show task", fault.Internal, err)
		}
		out = append(out, one)
	}
	return out, nil
}

// launched is a task as it was launched.
func (e *Engine) launched(i *instance, name string, t *taskRecord) launch.Task {
	c := e.configs[t.Config]
	def := c.Spec.Pods.Get(i.id.Pod).Tasks.Get(name)
	var ports []int
	for port := range def.Ports.All() {
		ports = append(ports, i.rec.Ports[launch.PortKey(name, port)])
	}
	return launch.Task{
		Spec: c.Spec, Instance: i.id, Name: name, ID: t.ID, ConfigID: t.Config, Agent: i.rec.Agent, Place: i.rec.Place,
		Address: i.rec.Address, Ports: i.rec.Ports, Resources: match.Reserved(e.role, i.rec.Reservation, spec.Of(def), ports), Paused: t.Idle,
		Replaced: i.rec.Replaced,
	}
}

// withhold takes the contents of files and secrets out of a task.
func withhold(info *mesos.TaskInfo) {
	for _, v := range info.GetContainer().GetVolumes() {
		if s := v.GetSource().GetSecret(); s != nil {
			s.Value = nil
		}
	}
	for _, v := range info.GetCommand().GetEnvironment().GetVariables() {
		if s := v.GetSecret(); s != nil {
			s.Value = nil
		}
	}
}

// endpoint is a port or VIP that is advertised.
type endpoint struct {
	task string
	port string
	def  *service.Port
	pod  string
}

// endpoints lists them by the name of the port, with the pod in front if two
// pods have one.
func (e *Engine) endpoints() map[string][]endpoint {
	out := map[string][]endpoint{}
	for pod, p := range e.target().Spec.Pods.All() {
		for tn, t := range p.Tasks.All() {
			for port, def := range t.Ports.All() {
				if !def.Advertise && def.VIP == nil {
					continue
				}
				name := port
				if have := out[name]; len(have) > 0 && have[0].pod != pod {
					name = pod + "-" + name
				}
				out[name] = append(out[name], endpoint{tn, port, def, pod})
			}
		}
	}
	return out
}

// Endpoints lists the names of ports that are advertised or have a VIP.
func (e *Engine) Endpoints() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := []string{}
	for name := range e.endpoints() {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// Endpoint tells where one is reached.
func (e *Engine) Endpoint(name string) (service.Endpoint, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	list, ok := e.endpoints()[name]
	if !ok {
		return service.Endpoint{}, fault.Newf("find endpoint", fault.NotFound, "service %s has no endpoint %q", e.name, name)
	}
	out := service.Endpoint{Address: []string{}, DNS: []string{}}
	for _, ep := range list {
		if v := ep.def.VIP; v != nil {
			out.VIP = fmt.Sprintf("%s.%s:%d", v.Prefix, spec.VIPDomain(e.name), v.Port)
		}
		for _, i := range e.sorted() {
			t := i.rec.Tasks[ep.task]
			if i.id.Pod != ep.pod || t == nil || t.state() != task.Running || t.Idle {
				continue
			}
			port := strconv.Itoa(i.rec.Ports[launch.PortKey(ep.task, ep.port)])
			out.Address = append(out.Address, net.JoinHostPort(i.rec.Address, port))
			out.DNS = append(out.DNS, launch.FullName(i.id, ep.task)+"."+spec.Domain(e.name)+":"+port)
		}
	}
	return out, nil
}

// Properties lists what is kept beside the records of pods and plans.
func (e *Engine) Properties() []string {
	return []string{"first-deployed", "last-completed-deploy", "last-replaced", "suppressed", "target-configuration"}
}

// Property returns one of them.
func (e *Engine) Property(key string) (string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch key {
	case "first-deployed":
		return e.status.First, nil
	case "last-completed-deploy":
		return e.status.Deployed, nil
	case "last-replaced":
		if e.status.Replaced.IsZero() {
			return "", nil
		}
		return e.status.Replaced.UTC().Format(time.RFC3339), nil
	case "suppressed":
		return strconv.FormatBool(!e.flow.flowing), nil
	case "target-configuration":
		return e.rec.Target, nil
	}
	return "", fault.Newf("find property", fault.NotFound, "there is no property %q", key)
}

// Configurations lists the ids of the configurations kept, the newest first.
func (e *Engine) Configurations() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := []string{}
	for _, c := range newest(e.configs) {
		out = append(out, c.ID)
	}
	return out
}

// Configuration returns one, without secrets.
func (e *Engine) Configuration(id string) (*service.Spec, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.configs[id]
	if c == nil {
		return nil, fault.Newf("find configuration", fault.NotFound, "service %s has no configuration %q", e.name, id)
	}
	return c.Spec, nil
}

// Template returns the text of a config of a task in a configuration.
func (e *Engine) Template(configID, pod, taskName, configName string) (string, error) {
	s, err := e.Configuration(configID)
	if err != nil {
		return "", err
	}
	if p := s.Pods.Get(pod); p != nil {
		if t := p.Tasks.Get(taskName); t != nil {
			if c := t.Configs.Get(configName); c != nil {
				return s.Templates[c.Template], nil
			}
		}
	}
	return "", fault.Newf("find template", fault.NotFound, "there is no config %s of task %s of pod %s", configName, taskName, pod)
}

// DebugOffers tells what became of the latest offers, the newest first.
func (e *Engine) DebugOffers() service.DebugOffers {
	e.mu.Lock()
	defer e.mu.Unlock()
	d := &e.debug
	out := service.DebugOffers{Outcomes: []service.OfferOutcome{}, Rejections: map[string]int{}}
	for k := range d.outcomes {
		out.Outcomes = append(out.Outcomes, d.outcomes[(d.next+len(d.outcomes)-1-k)%len(d.outcomes)])
	}
	for k, n := range d.rejected {
		out.Rejections[k] = n
	}
	return out
}

// DebugReservations lists what is reserved, and what is to be given back.
func (e *Engine) DebugReservations() []service.DebugReservation {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := []service.DebugReservation{}
	for _, i := range e.sorted() {
		if i.rec.Agent == "" {
			continue
		}
		r := service.DebugReservation{Pod: i.id.String(), Agent: i.rec.Agent, Host: i.rec.Place.Host, Reservation: i.rec.Reservation}
		for _, v := range i.rec.Volumes {
			r.Volumes = append(r.Volumes, v.ID)
		}
		slices.Sort(r.Volumes)
		n := spec.Need(e.configOf(i).Spec, i.id.Pod)
		r.Resources = fmt.Sprintf("cpus:%s;mem:%s;disk:%s;gpus:%s", n.CPUs, n.Mem, n.Disk, n.GPUs)
		if !i.rec.Away.IsZero() {
			r.Note = e.awayText(i)
		}
		out = append(out, r)
	}
	for _, id := range e.claimsInOrder() {
		c := e.claims[id]
		out = append(out, service.DebugReservation{Agent: c.Agent, Host: c.Host, Reservation: id, Note: "of " + c.Pod + ": " + c.text()})
	}
	for id, c := range e.strange {
		out = append(out, service.DebugReservation{
			Agent: c.Agent, Host: c.Host, Reservation: id,
			Note: "nothing is known of it, so it is left alone: it is from after the backup that was restored, or from before its agent was given up; uninstalling the service gives it back",
		})
	}
	return out
}

// DebugPlans lists the steps that are not complete, with what they wait for.
func (e *Engine) DebugPlans() []service.DebugPlan {
	out := []service.DebugPlan{}
	for _, name := range e.Plans() {
		p, err := e.Plan(name)
		if err != nil {
			continue // gone meanwhile
		}
		for _, ph := range p.Phases {
			for _, st := range ph.Steps {
				if st.Status != service.Complete {
					out = append(out, service.DebugPlan{Plan: p.Name, Phase: ph.Name, Step: st.Name, Status: st.Status, Message: st.Message})
				}
			}
		}
	}
	return out
}

// DebugTasks shows the tasks with their last status.
func (e *Engine) DebugTasks() []service.TaskStatus {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := []service.TaskStatus{}
	for _, i := range e.sorted() {
		for name, def := range e.podOf(i).Tasks.All() {
			if t := i.rec.Tasks[name]; t != nil && t.ID != "" {
				out = append(out, e.taskStatus(i, name, def))
			}
		}
	}
	return out
}
