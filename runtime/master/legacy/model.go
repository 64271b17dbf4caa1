package legacy

import (
	"encoding/json"
	"strings"
	"time"

	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/master/about"
	"dcos.example/dcos/runtime/master/core"
	"dcos.example/dcos/runtime/master/validate"
	"dcos.example/dcos/runtime/task"
)

type slave struct {
	ID           string               `json:"id"`
	Hostname     string               `json:"hostname"`
	Port         int32                `json:"port"`
	Attributes   map[string]any       `json:"attributes"`
	Domain       json.Marshaler       `json:"domain,omitempty"`
	PID          string               `json:"pid"`
	Registered   float64              `json:"registered_time"`
	Reregistered float64              `json:"reregistered_time,omitempty"`
	Resources    resources            `json:"resources"`
	Used         resources            `json:"used_resources"`
	Offered      resources            `json:"offered_resources"`
	Reserved     map[string]resources `json:"reserved_resources"`
	Unreserved   resources            `json:"unreserved_resources"`
	Active       bool                 `json:"active"`
	Deactivated  bool                 `json:"deactivated"`
	Version      string               `json:"version"`
	Capabilities []string             `json:"capabilities"`
	DrainInfo    json.Marshaler       `json:"drain_info,omitempty"`
	DrainStart   int64                `json:"estimated_drain_start_time_seconds,omitempty"`
}

type slaveFull struct {
	slave
	ReservedFull   map[string][]message `json:"reserved_resources_full"`
	UnreservedFull []message            `json:"unreserved_resources_full"`
	UsedFull       []message            `json:"used_resources_full"`
	OfferedFull    []message            `json:"offered_resources_full"`
}

func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixNano()) / 1e9
}

func newSlave(a core.AgentView) slave {
	s := slave{
		ID: a.Info.GetId().GetValue(), Hostname: a.Info.GetHostname(), Port: a.Info.GetPort(),
		Attributes: attributes(a.Info.Attributes), Domain: optional(a.Info.Domain), PID: a.PID,
		Registered: seconds(a.Registered), Reregistered: seconds(a.Reregistered),
		Resources: resources{a.Total}, Used: resources{a.Used}, Offered: resources{a.Offered},
		Reserved: map[string]resources{}, Unreserved: resources{a.Total.Unreserved()},
		Active: a.Active, Deactivated: a.Deactivated(), Version: a.Version, Capabilities: []string{},
		DrainInfo: optional(a.DrainInfo()),
	}
	if a.Drain.Drains() {
		s.DrainStart = a.Drain.Since.Unix()
	}
	for _, role := range a.Total.ReservedRoles() {
		s.Reserved[role] = resources{a.Total.Reserved(role)}
	}
	for _, c := range a.Capabilities {
		s.Capabilities = append(s.Capabilities, c.GetType().String())
	}
	return s
}

func newSlaveFull(a core.AgentView) slaveFull {
	s := slaveFull{
		slave: newSlave(a), ReservedFull: map[string][]message{}, UnreservedFull: messages(a.Total.Unreserved().ProtoBoth()),
		UsedFull: messages(a.Used.ProtoBoth()), OfferedFull: messages(a.Offered.ProtoBoth()),
	}
	for _, role := range a.Total.ReservedRoles() {
		s.ReservedFull[role] = messages(a.Total.Reserved(role).ProtoBoth())
	}
	return s
}

type status struct {
	State     string         `json:"state"`
	Timestamp float64        `json:"timestamp"`
	Labels    []message      `json:"labels,omitempty"`
	Container json.Marshaler `json:"container_status,omitempty"`
	Healthy   *bool          `json:"healthy,omitempty"`
}

type taskModel struct {
	ID          string           `json:"id"`
	Name        string           `json:"name"`
	Framework   string           `json:"framework_id"`
	Executor    string           `json:"executor_id"`
	Slave       string           `json:"slave_id"`
	State       string           `json:"state"`
	Resources   resources        `json:"resources"`
	Limits      map[string]limit `json:"limits,omitempty"`
	Role        string           `json:"role"`
	Statuses    []status         `json:"statuses"`
	User        string           `json:"user,omitempty"`
	Labels      []message        `json:"labels,omitempty"`
	Discovery   json.Marshaler   `json:"discovery,omitempty"`
	Container   json.Marshaler   `json:"container,omitempty"`
	HealthCheck json.Marshaler   `json:"health_check,omitempty"`
}

func newTask(t *mesos.Task, f core.FrameworkView) taskModel {
	m := taskModel{
		ID: t.GetTaskId().GetValue(), Name: t.GetName(), Framework: t.GetFrameworkId().GetValue(),
		Executor: t.GetExecutorId().GetValue(), Slave: t.GetAgentId().GetValue(),
		State: stateOf(t, f).String(), Resources: fromProto(t.Resources), Role: about.TaskRole(t, f),
		Statuses: make([]status, len(t.Statuses)), User: t.GetUser(), Labels: labels(t.Labels),
		Discovery: optional(t.Discovery), Container: optional(t.Container), HealthCheck: optional(t.HealthCheck),
	}
	for i, s := range t.Statuses {
		m.Statuses[i] = status{s.GetState().String(), s.GetTimestamp(), labels(s.Labels), optional(s.ContainerStatus), s.Healthy}
	}
	for name, v := range t.Limits {
		if m.Limits == nil {
			m.Limits = map[string]limit{}
		}
		m.Limits[name] = limit(v.GetValue())
	}
	return m
}

// stateOf is the state in the words that the task's framework knows.
func stateOf(t *mesos.Task, f core.FrameworkView) task.State {
	return task.ForFramework(t.GetState(), validate.HasCapability(f.Info, mesos.FrameworkInfo_Capability_PARTITION_AWARE))
}

func newTasks(ts []*mesos.Task, f core.FrameworkView) []taskModel {
	out := make([]taskModel, len(ts))
	for i, t := range ts {
		out[i] = newTask(t, f)
	}
	return out
}

type frameworkSummary struct {
	ID           string    `json:"id"`
	Name         string    `json:"name"`
	Used         resources `json:"used_resources"`
	Offered      resources `json:"offered_resources"`
	Capabilities []string  `json:"capabilities"`
	Hostname     string    `json:"hostname"`
	WebUI        string    `json:"webui_url"`
	Active       bool      `json:"active"`
	Connected    bool      `json:"connected"`
	Recovered    bool      `json:"recovered"`
}

func newFrameworkSummary(f core.FrameworkView) frameworkSummary {
	m := frameworkSummary{
		ID: f.Info.GetId().GetValue(), Name: f.Info.GetName(), Used: resources{f.Used}, Offered: resources{f.Offered},
		Capabilities: []string{}, Hostname: f.Info.GetHostname(), WebUI: f.Info.GetWebuiUrl(),
		Active: f.Active, Connected: f.Connected, Recovered: f.Recovered,
	}
	for _, c := range f.Info.Capabilities {
		m.Capabilities = append(m.Capabilities, c.GetType().String())
	}
	return m
}

type executorModel struct {
	message
	slave string
}

func (e executorModel) MarshalJSON() ([]byte, error) {
	b, err := e.message.MarshalJSON()
	if err != nil {
		return nil, err
	}
	id, err := json.Marshal(e.slave)
	if err != nil {
		return nil, err
	}
	b = append(b[:len(b)-1], `,"slave_id":`...) // an ExecutorInfo has required fields: never "{}"
	return append(append(b, id...), '}'), nil
}

type framework struct {
	frameworkSummary
	User         string          `json:"user"`
	Failover     float64         `json:"failover_timeout"`
	Checkpoint   bool            `json:"checkpoint"`
	Registered   float64         `json:"registered_time"`
	Unregistered float64         `json:"unregistered_time"`
	Principal    string          `json:"principal,omitempty"`
	Resources    resources       `json:"resources"`
	Reregistered float64         `json:"reregistered_time,omitempty"`
	Roles        []string        `json:"roles,omitempty"`
	Role         *string         `json:"role,omitempty"`
	Tasks        []taskModel     `json:"tasks"`
	Unreachable  []taskModel     `json:"unreachable_tasks"`
	Done         []taskModel     `json:"completed_tasks"`
	Offers       []message       `json:"offers"`
	Executors    []executorModel `json:"executors"`
	Labels       []message       `json:"labels,omitempty"`
}

func newFramework(f core.FrameworkView) framework {
	m := framework{
		frameworkSummary: newFrameworkSummary(f),
		User:             f.Info.GetUser(), Failover: f.Info.GetFailoverTimeout(), Checkpoint: f.Info.GetCheckpoint(),
		Registered: seconds(f.Registered), Unregistered: seconds(f.Unregistered), Reregistered: seconds(f.Reregistered),
		Principal: f.Info.GetPrincipal(), Resources: resources{f.Used.Add(f.Offered)},
		Tasks: newTasks(f.Tasks, f), Unreachable: newTasks(f.Unreachable, f), Done: newTasks(f.Done, f),
		Offers: messages(f.Offers), Executors: []executorModel{}, Labels: labels(f.Info.Labels),
	}
	if validate.HasCapability(f.Info, mesos.FrameworkInfo_Capability_MULTI_ROLE) {
		m.Roles = f.Roles
	} else {
		//lint:ignore SA1019 the field of frameworks without MULTI_ROLE
		m.Role = new(f.Info.GetRole())
	}
	for _, e := range f.Executors {
		m.Executors = append(m.Executors, executorModel{message{e.Info}, e.Agent.GetValue()})
	}
	return m
}

// counts are how many tasks are in each state: TASK_RUNNING and so on.
type counts map[string]int

func newCounts() counts {
	c := make(counts, len(task.States))
	for _, s := range task.States {
		if s != task.Unknown && s != task.Dropped && s != task.Gone && s != task.GoneByOperator {
			c[s.String()] = 0
		}
	}
	return c
}

func (c counts) add(ts []*mesos.Task) {
	for _, t := range ts {
		c[t.GetState().String()]++
	}
}

// inline writes v and c as one object.
func inline(v any, more ...map[string]any) (json.RawMessage, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	for _, m := range more {
		x, err := json.Marshal(m)
		if err != nil {
			return nil, err
		}
		if len(m) > 0 {
			b = append(append(b[:len(b)-1], ','), x[1:]...)
		}
	}
	return b, nil
}

func masterPID(m *mesos.MasterInfo) string {
	return "master@" + m.GetAddress().GetIp() + ":" + portOf(m)
}

func leaderInfo(m *mesos.MasterInfo) map[string]any {
	caps := []string{}
	for _, c := range m.Capabilities {
		caps = append(caps, c.GetType().String())
	}
	return map[string]any{
		"id": m.GetId(), "pid": masterPID(m), "port": m.GetPort(), "hostname": m.GetHostname(), "capabilities": caps,
	}
}

func roleModel(v about.RoleView) (map[string]any, error) {
	ids := []string{}
	for _, f := range v.Frameworks {
		ids = append(ids, f.GetValue())
	}
	none := resources{}
	return map[string]any{
		"name": v.Name, "weight": v.Weight, "frameworks": ids,
		"resources": resources{v.Whole}, "allocated": resources{v.Allocated}, "offered": resources{v.Offered}, "reserved": resources{v.Reserved},
		"quota": map[string]any{"role": v.Name, "guarantee": map[string]any{}, "limit": map[string]any{}, "consumed": none},
	}, nil
}

// isIn reports whether the list of ids, as clients write it, is empty or has id.
func isIn(list, id string) bool {
	return list == "" || strings.EqualFold(list, id)
}
