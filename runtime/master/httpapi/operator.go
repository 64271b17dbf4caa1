package httpapi

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/master"
	"dcos.example/dcos/runtime/api/mesos/quota"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/master/about"
	"dcos.example/dcos/runtime/master/core"
	"dcos.example/dcos/runtime/task"
)

// Operator serves POST /api/v1. Calls that change the cluster are 403 for
// callers that mayChange refuses.
func Operator(c *core.Core, self about.About, mayChange func(*http.Request) bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		call := new(master.Call)
		if _, ok := decode(w, r, call); !ok {
			return
		}
		if msg := checkOperatorCall(call); msg != "" {
			fail(w, http.StatusBadRequest, "Failed to validate master::Call: %s", msg)
			return
		}
		if !reads(call.GetType()) && !mayChange(r) {
			fail(w, http.StatusForbidden, "an agent's certificate does not allow %s", call.GetType())
			return
		}
		if agent, op, _ := operationOf(call); op != nil {
			operated(w, c.Operate(r.Context(), task.AgentID(agent.GetValue()), op))
			return
		}
		switch call.GetType() {
		case master.Call_SUBSCRIBE:
			watch(c, w, r)
		case master.Call_TEARDOWN:
			done(w, c.RemoveFramework(r.Context(), task.FrameworkID(call.GetTeardown().GetFrameworkId().GetValue())))
		case master.Call_MARK_AGENT_GONE:
			err := c.MarkGone(r.Context(), task.AgentID(call.GetMarkAgentGone().GetAgentId().GetValue()))
			if fault.Is(err, fault.NotFound) {
				fail(w, http.StatusNotFound, "%s", reason(err))
				return
			}
			done(w, err)
		case master.Call_DRAIN_AGENT:
			var bound *time.Duration
			if g := call.GetDrainAgent().MaxGracePeriod; g != nil {
				bound = new(g.AsDuration())
			}
			done(w, c.DrainAgent(r.Context(), task.AgentID(call.DrainAgent.GetAgentId().GetValue()), bound, call.DrainAgent.GetMarkGone()))
		case master.Call_DEACTIVATE_AGENT:
			done(w, c.DeactivateAgent(r.Context(), task.AgentID(call.DeactivateAgent.GetAgentId().GetValue())))
		case master.Call_REACTIVATE_AGENT:
			// Mesos has no way to end a drain before its end; this parameter is
			// ours, and what does not know it is not affected.
			cancel := r.URL.Query().Get("cancel_drain") == "true"
			done(w, c.ReactivateAgent(r.Context(), task.AgentID(call.ReactivateAgent.GetAgentId().GetValue()), cancel))
		case master.Call_UPDATE_MAINTENANCE_SCHEDULE:
			done(w, c.UpdateSchedule(r.Context(), call.UpdateMaintenanceSchedule.GetSchedule()))
		case master.Call_START_MAINTENANCE:
			done(w, c.StartMaintenance(r.Context(), call.StartMaintenance.GetMachines()))
		case master.Call_STOP_MAINTENANCE:
			done(w, c.StopMaintenance(r.Context(), call.StopMaintenance.GetMachines()))
		default:
			answer := read(c, self, call.GetType())
			if answer == nil {
				fail(w, http.StatusNotImplemented, "%s is not supported by this release", call.GetType())
				return
			}
			reply(w, r, answer)
		}
	})
}

// reads reports whether a call of this type changes nothing. What is not known
// here counts as a change.
func reads(t master.Call_Type) bool {
	switch t {
	case master.Call_SUBSCRIBE, master.Call_LIST_FILES, master.Call_READ_FILE:
		return true
	}
	return strings.HasPrefix(t.String(), "GET_")
}

func checkOperatorCall(call *master.Call) string {
	switch {
	case call.Type == nil || call.GetType() == master.Call_UNKNOWN:
		return "Expecting 'type' to be present"
	case call.GetType() == master.Call_TEARDOWN && call.Teardown == nil:
		return "Expecting 'teardown' to be present"
	case call.GetType() == master.Call_MARK_AGENT_GONE && call.MarkAgentGone == nil:
		return "Expecting 'mark_agent_gone' to be present"
	case call.GetType() == master.Call_DRAIN_AGENT && call.DrainAgent == nil:
		return "Expecting 'drain_agent' to be present"
	case call.GetType() == master.Call_DRAIN_AGENT && call.DrainAgent.MaxGracePeriod.AsDuration() < 0:
		return "Expecting 'max_grace_period' to be non-negative"
	case call.GetType() == master.Call_DEACTIVATE_AGENT && call.DeactivateAgent == nil:
		return "Expecting 'deactivate_agent' to be present"
	case call.GetType() == master.Call_REACTIVATE_AGENT && call.ReactivateAgent == nil:
		return "Expecting 'reactivate_agent' to be present"
	case call.GetType() == master.Call_UPDATE_MAINTENANCE_SCHEDULE && call.UpdateMaintenanceSchedule == nil:
		return "Expecting 'update_maintenance_schedule' to be present"
	case call.GetType() == master.Call_START_MAINTENANCE && call.StartMaintenance == nil:
		return "Expecting 'start_maintenance' to be present"
	case call.GetType() == master.Call_STOP_MAINTENANCE && call.StopMaintenance == nil:
		return "Expecting 'stop_maintenance' to be present"
	}
	_, _, missing := operationOf(call)
	return missing
}

func done(w http.ResponseWriter, err error) {
	if fault.Is(err, fault.NotFound) {
		fail(w, http.StatusBadRequest, "%s", reason(err))
		return
	}
	if err != nil {
		failWith(w, err)
		return
	}
	w.WriteHeader(http.StatusOK)
}

func reply(w http.ResponseWriter, r *http.Request, answer *master.Response) {
	format, ok := accept(w, r)
	if !ok {
		return
	}
	b, err := format.Marshal(answer)
	if err != nil {
		failWith(w, err)
		return
	}
	w.Header().Set("Content-Type", format.ContentType())
	w.Header().Set("Content-Length", strconv.Itoa(len(b))) // clients tell streams by its absence
	_, _ = w.Write(b)                                      // the client is gone when this fails
}

// watch streams events, beginning with all there is.
func watch(c *core.Core, w http.ResponseWriter, r *http.Request) {
	format, ok := accept(w, r)
	if !ok {
		return
	}
	s := c.Watch(format, func(snap *core.Snapshot) proto.Message {
		return &master.Event{Type: master.Event_SUBSCRIBED.Enum(), Subscribed: &master.Event_Subscribed{
			GetState: stateOf(snap), HeartbeatIntervalSeconds: proto.Float64(core.Heartbeat.Seconds()),
		}}
	})
	defer c.Unwatch(s)
	_ = s.Serve(r.Context(), w, core.Heartbeat, &master.Event{Type: master.Event_HEARTBEAT.Enum()})
}

// read answers the calls that change nothing; nil when there is no such call.
func read(c *core.Core, self about.About, t master.Call_Type) *master.Response {
	out := &master.Response{}
	switch t {
	case master.Call_GET_HEALTH:
		out.Type, out.GetHealth = master.Response_GET_HEALTH.Enum(), &master.Response_GetHealth{Healthy: proto.Bool(true)}
	case master.Call_GET_FLAGS:
		out.Type, out.GetFlags = master.Response_GET_FLAGS.Enum(), &master.Response_GetFlags{}
		for _, f := range self.Flags {
			out.GetFlags.Flags = append(out.GetFlags.Flags, &mesos.Flag{Name: proto.String(f.Name), Value: proto.String(f.Value)})
		}
	case master.Call_GET_VERSION:
		out.Type, out.GetVersion = master.Response_GET_VERSION.Enum(), &master.Response_GetVersion{VersionInfo: &mesos.VersionInfo{
			Version: proto.String(about.MesosVersion), GitTag: proto.String(self.Release),
		}}
	case master.Call_GET_METRICS:
		out.Type, out.GetMetrics = master.Response_GET_METRICS.Enum(), &master.Response_GetMetrics{}
		m := self.Metrics(c)
		for _, name := range slices.Sorted(maps.Keys(m)) {
			out.GetMetrics.Metrics = append(out.GetMetrics.Metrics, &mesos.Metric{Name: proto.String(name), Value: proto.Float64(m[name])})
		}
	case master.Call_GET_MASTER:
		out.Type, out.GetMaster = master.Response_GET_MASTER.Enum(), &master.Response_GetMaster{
			MasterInfo: c.Info, StartTime: proto.Float64(float64(self.Started.UnixNano()) / 1e9), ElectedTime: proto.Float64(float64(c.Elected.UnixNano()) / 1e9),
		}
	case master.Call_GET_STATE:
		out.Type, out.GetState = master.Response_GET_STATE.Enum(), stateOf(c.Snapshot())
	case master.Call_GET_AGENTS:
		out.Type, out.GetAgents = master.Response_GET_AGENTS.Enum(), agentsOf(c.Snapshot())
	case master.Call_GET_FRAMEWORKS:
		out.Type, out.GetFrameworks = master.Response_GET_FRAMEWORKS.Enum(), frameworksOf(c.Snapshot())
	case master.Call_GET_EXECUTORS:
		out.Type, out.GetExecutors = master.Response_GET_EXECUTORS.Enum(), executorsOf(c.Snapshot())
	case master.Call_GET_TASKS:
		out.Type, out.GetTasks = master.Response_GET_TASKS.Enum(), tasksOf(c.Snapshot())
	case master.Call_GET_ROLES:
		out.Type, out.GetRoles = master.Response_GET_ROLES.Enum(), &master.Response_GetRoles{}
		for _, v := range about.Roles(c.Snapshot()) {
			out.GetRoles.Roles = append(out.GetRoles.Roles, &mesos.Role{
				Name: proto.String(v.Name), Weight: proto.Float64(v.Weight), Frameworks: v.Frameworks, Resources: v.Whole.ProtoBoth(),
			})
		}
	case master.Call_GET_MAINTENANCE_STATUS:
		out.Type, out.GetMaintenanceStatus = master.Response_GET_MAINTENANCE_STATUS.Enum(), &master.Response_GetMaintenanceStatus{Status: c.MaintenanceStatus()}
	case master.Call_GET_MAINTENANCE_SCHEDULE:
		out.Type, out.GetMaintenanceSchedule = master.Response_GET_MAINTENANCE_SCHEDULE.Enum(), &master.Response_GetMaintenanceSchedule{Schedule: c.Schedule()}
	case master.Call_GET_OPERATIONS:
		out.Type, out.GetOperations = master.Response_GET_OPERATIONS.Enum(), &master.Response_GetOperations{Operations: c.Snapshot().Operations}
	// Of these there are none, as this release has no call that makes one.
	case master.Call_GET_WEIGHTS:
		out.Type, out.GetWeights = master.Response_GET_WEIGHTS.Enum(), &master.Response_GetWeights{}
	case master.Call_GET_QUOTA:
		out.Type, out.GetQuota = master.Response_GET_QUOTA.Enum(), &master.Response_GetQuota{Status: &quota.QuotaStatus{}}
	default:
		return nil
	}
	return out
}

func stateOf(s *core.Snapshot) *master.Response_GetState {
	return &master.Response_GetState{GetTasks: tasksOf(s), GetExecutors: executorsOf(s), GetFrameworks: frameworksOf(s), GetAgents: agentsOf(s)}
}

func agentsOf(s *core.Snapshot) *master.Response_GetAgents {
	out := &master.Response_GetAgents{RecoveredAgents: s.Recovered}
	for _, a := range s.Agents {
		out.Agents = append(out.Agents, a.Proto())
	}
	return out
}

func frameworksOf(s *core.Snapshot) *master.Response_GetFrameworks {
	out := &master.Response_GetFrameworks{}
	for _, f := range s.Frameworks {
		out.Frameworks = append(out.Frameworks, f.Proto())
	}
	for _, f := range s.Completed {
		out.CompletedFrameworks = append(out.CompletedFrameworks, f.Proto())
	}
	return out
}

func tasksOf(s *core.Snapshot) *master.Response_GetTasks {
	out := &master.Response_GetTasks{}
	for _, list := range [][]core.FrameworkView{s.Frameworks, s.Completed} {
		for _, f := range list {
			out.Tasks = append(out.Tasks, f.Tasks...)
			out.UnreachableTasks = append(out.UnreachableTasks, f.Unreachable...)
			out.CompletedTasks = append(out.CompletedTasks, f.Done...)
		}
	}
	return out
}

func executorsOf(s *core.Snapshot) *master.Response_GetExecutors {
	out := &master.Response_GetExecutors{}
	for _, f := range s.Frameworks {
		for _, e := range f.Executors {
			out.Executors = append(out.Executors, &master.Response_GetExecutors_Executor{ExecutorInfo: e.Info, AgentId: e.Agent})
		}
	}
	return out
}
