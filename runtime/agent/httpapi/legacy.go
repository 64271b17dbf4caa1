package httpapi

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	mesos "dcos.example/dcos/runtime/api/mesos"

	"dcos.example/dcos/runtime/api/wire"
	"dcos.example/dcos/runtime/resource"
)

type object = map[string]any

// model is how the JSON endpoints write resources: scalars as numbers, ranges
// and sets as text.
func model(r resource.Resources) object {
	out := object{"cpus": 0.0, "gpus": 0.0, "mem": 0.0, "disk": 0.0}
	for it := range r.All() {
		switch name := it.Name(); it.Kind() {
		case resource.KindScalar:
			have, _ := out[name].(float64)
			out[name] = have + it.Scalar().Float()
		case resource.KindRanges:
			out[name] = r.Ranges(name).String()
		default:
			out[name] = "{" + strings.Join(it.Set(), ", ") + "}"
		}
	}
	return out
}

// raw writes a message in the JSON of the v1 API.
func raw(m proto.Message) json.RawMessage {
	b, err := wire.JSON.Marshal(m)
	if err != nil { // a required field is missing: show that, not nothing
		b, _ = json.Marshal(err.Error())
	}
	return b
}

func rawAll[T proto.Message](ms []T) []json.RawMessage {
	out := make([]json.RawMessage, 0, len(ms))
	for _, m := range ms {
		out = append(out, raw(m))
	}
	return out
}

func seconds(t time.Time) float64 { return float64(t.UnixMicro()) / 1e6 }

func attributes(as []*mesos.Attribute) object {
	out := object{}
	for _, a := range as {
		switch a.GetType() {
		case mesos.Value_SCALAR:
			out[a.GetName()] = a.GetScalar().GetValue()
		default:
			out[a.GetName()] = resource.AttributeText(a)
		}
	}
	return out
}

func (a *api) state(w http.ResponseWriter, r *http.Request) {
	v := a.src.View()
	used := allocated(v.Tasks)
	id := v.Agent.GetId().GetValue()
	reserved, full, allotted := object{}, object{}, object{}
	for _, role := range v.Resources.ReservedRoles() {
		reserved[role], allotted[role] = model(v.Resources.Reserved(role)), model(used.Reserved(role))
		full[role] = rawAll(v.Resources.Reserved(role).ProtoBoth())
	}
	out := object{
		"version": v.Version, "id": id, "pid": "slave(1)@" + v.Endpoint, "hostname": v.Agent.GetHostname(), "port": v.Agent.GetPort(),
		"start_time": seconds(v.Started), "build_date": "", "build_time": 0, "build_user": "",
		"resources": model(v.Resources), "used_resources": model(used),
		"reserved_resources": reserved, "reserved_resources_full": full, "reserved_resources_allocated": allotted,
		"unreserved_resources":           model(v.Resources.Unreserved()),
		"unreserved_resources_full":      rawAll(v.Resources.Unreserved().ProtoBoth()),
		"unreserved_resources_allocated": model(used.Unreserved()),
		"attributes":                     attributes(v.Agent.GetAttributes()), "master_hostname": v.MasterHost, "flags": v.Flags,
		"frameworks":           frameworksJSON(v, func(t Task) bool { return !t.Done }),
		"completed_frameworks": frameworksJSON(v, func(t Task) bool { return t.Done && !alive(v, t) }),
	}
	if f := v.Flags["log_file"]; f != "" {
		out["external_log_file"] = f
	}
	reply(w, r, out)
}

// alive reports whether t's framework has a task that is not done.
func alive(v View, t Task) bool {
	for _, o := range v.Tasks {
		if !o.Done && o.Framework.GetId().GetValue() == t.Framework.GetId().GetValue() {
			return true
		}
	}
	return false
}

func frameworksJSON(v View, keep func(Task) bool) []object {
	out := []object{}
	for _, f := range byFramework(v.Tasks, keep) {
		o := object{
			"id": f.info.GetId().GetValue(), "name": f.info.GetName(), "user": f.info.GetUser(),
			"failover_timeout": f.info.GetFailoverTimeout(), "checkpoint": f.info.GetCheckpoint(),
			"hostname": f.info.GetHostname(), "executors": []object{}, "completed_executors": []object{},
		}
		if p := f.info.GetPrincipal(); p != "" {
			o["principal"] = p
		}
		if len(f.info.GetRoles()) > 0 {
			o["roles"] = f.info.GetRoles()
		} else {
			//lint:ignore SA1019 the field of frameworks without MULTI_ROLE
			o["role"] = f.info.GetRole()
		}
		live, done := []object{}, []object{}
		for _, t := range v.Tasks {
			if t.Framework.GetId().GetValue() != f.info.GetId().GetValue() {
				continue
			}
			if t.Done {
				done = append(done, executorJSON(t))
			} else {
				live = append(live, executorJSON(t))
			}
		}
		o["executors"], o["completed_executors"] = live, done
		out = append(out, o)
	}
	return out
}

// executorJSON shows a task as the command executor that Mesos would have
// started for it. Clients read the sandbox's path from here.
func executorJSON(t Task) object {
	id := t.Info.GetTaskId().GetValue()
	res, err := resource.FromProto(t.Info.GetResources())
	if err != nil {
		res = resource.Resources{}
	}
	o := object{
		"id": id, "name": "Command Executor (Task: " + id + ")", "source": id, "container": t.ContainerID,
		"directory": t.Sandbox, "resources": model(res), "tasks": []object{}, "queued_tasks": []object{}, "completed_tasks": []object{},
	}
	key := "tasks"
	switch {
	case t.Done:
		key = "completed_tasks"
	case !t.Running:
		key = "queued_tasks"
	}
	o[key] = []object{taskJSON(t)}
	return o
}

func taskJSON(t Task) object {
	res, err := resource.FromProto(t.Info.GetResources())
	if err != nil {
		res = resource.Resources{}
	}
	statuses := []object{}
	for _, s := range t.Task.GetStatuses() {
		o := object{"state": s.GetState().String(), "timestamp": s.GetTimestamp()}
		if s.Healthy != nil {
			o["healthy"] = s.GetHealthy()
		}
		if s.ContainerStatus != nil {
			o["container_status"] = raw(s.ContainerStatus)
		}
		statuses = append(statuses, o)
	}
	out := object{
		"id": t.Info.GetTaskId().GetValue(), "name": t.Info.GetName(), "framework_id": t.Framework.GetId().GetValue(),
		"executor_id": "", "slave_id": t.Task.GetAgentId().GetValue(), "state": t.Task.GetState().String(),
		"resources": model(res), "statuses": statuses, "role": role(t.Info),
	}
	if l := t.Info.GetLabels(); l != nil {
		out["labels"] = rawAll(l.GetLabels())
	}
	if t.Info.Discovery != nil {
		out["discovery"] = raw(t.Info.Discovery)
	}
	if t.Task.Container != nil {
		out["container"] = raw(t.Task.Container)
	}
	if t.Info.HealthCheck != nil {
		out["health_check"] = raw(t.Info.HealthCheck)
	}
	if u := t.Task.GetUser(); u != "" {
		out["user"] = u
	}
	return out
}

func role(ti *mesos.TaskInfo) string {
	for _, r := range ti.GetResources() {
		if role := r.GetAllocationInfo().GetRole(); role != "" {
			return role
		}
	}
	return "*"
}

func (a *api) summary(w http.ResponseWriter, r *http.Request) {
	v := a.src.View()
	counts := object{}
	for _, t := range v.Tasks {
		s := t.Task.GetState().String()
		n, _ := counts[s].(int)
		counts[s] = n + 1
	}
	reply(w, r, object{
		"id": v.Agent.GetId().GetValue(), "hostname": v.Agent.GetHostname(), "resources": model(v.Resources),
		"used_resources": model(allocated(v.Tasks)), "attributes": attributes(v.Agent.GetAttributes()), "tasks": counts,
	})
}

func (a *api) tasks(w http.ResponseWriter, r *http.Request) {
	out := []object{}
	for _, t := range a.src.View().Tasks {
		out = append(out, taskJSON(t))
	}
	reply(w, r, object{"tasks": out})
}

func (a *api) frameworks(w http.ResponseWriter, r *http.Request) {
	v := a.src.View()
	reply(w, r, object{
		"frameworks":           frameworksJSON(v, func(t Task) bool { return !t.Done }),
		"completed_frameworks": frameworksJSON(v, func(t Task) bool { return t.Done && !alive(v, t) }),
	})
}

func (a *api) containers(w http.ResponseWriter, r *http.Request) { reply(w, r, a.usage(r, true)) }

func (a *api) statistics(w http.ResponseWriter, r *http.Request) { reply(w, r, a.usage(r, false)) }

// usage asks for each running container in turn. One that ends meanwhile is
// shown without numbers.
func (a *api) usage(r *http.Request, status bool) []object {
	out := []object{}
	for _, t := range a.src.View().Tasks {
		if !t.Running {
			continue
		}
		id := t.Info.GetTaskId().GetValue()
		o := object{
			"framework_id": t.Framework.GetId().GetValue(), "executor_id": id,
			"executor_name": "Command Executor (Task: " + id + ")", "source": id,
		}
		if status {
			o["container_id"], o["status"] = t.ContainerID, raw(t.Status)
		}
		if s, err := a.src.Usage(r.Context(), t.ContainerID); err == nil {
			o["statistics"] = raw(s)
		} else {
			a.log.Debug("read usage", "container", t.ContainerID, "error", err)
		}
		out = append(out, o)
	}
	return out
}
