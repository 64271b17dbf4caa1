package service

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"

	"dcos.example/dcos/runtime/api/mesos/master"
	"dcos.example/dcos/runtime/api/service"
	"dcos.example/dcos/runtime/api/wire"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/framework"
	"dcos.example/dcos/runtime/placement"
	"dcos.example/dcos/runtime/resource"
	"dcos.example/dcos/runtime/service/engine"
	"dcos.example/dcos/runtime/service/launch"
	"dcos.example/dcos/runtime/service/match"
	"dcos.example/dcos/runtime/service/plan"
	"dcos.example/dcos/runtime/service/spec"
)

// specText is the spec of a request: an object, or a text that holds YAML.
func specText(r service.Request) ([]byte, error) {
	var text string
	if json.Unmarshal(r.Spec, &text) == nil {
		return []byte(text), nil
	}
	if len(r.Spec) == 0 {
		return nil, invalid("read request", service.Problems{{Path: "spec", Message: "the request has no spec"}})
	}
	return r.Spec, nil
}

// render tries every template with what a task would see, so that a name that
// is nowhere is told before anything starts.
func render(s *service.Spec, lines service.Lines) service.Problems {
	var ps service.Problems
	for pod, p := range s.Pods.All() {
		ports := map[string]int{}
		for task, t := range p.Tasks.All() {
			for port := range t.Ports.All() {
				ports[launch.PortKey(task, port)] = 1
			}
		}
		for task, t := range p.Tasks.All() {
			if startedByPeople(s, pod, task) {
				continue // who starts its plan gives it more variables
			}
			lt := launch.Task{Spec: s, Instance: plan.Instance{Pod: pod}, Name: task, Ports: ports, Secrets: map[string]string{}}
			data := launch.Values(lt, p, launch.Environment(lt))
			for name, c := range t.Configs.All() {
				if _, err := launch.Render(s.Templates[c.Template], data); err != nil {
					at := "pods." + pod + ".tasks." + task + ".configs." + name
					ps = append(ps, service.Problem{Path: at, Line: lines.Of(at), Message: fmt.Sprintf("template %s: %v", c.Template, err)})
				}
			}
		}
	}
	return ps
}

// startedByPeople reports whether a task belongs to a plan of its own.
func startedByPeople(s *service.Spec, pod, task string) bool {
	for name, pl := range s.Plans.All() {
		if spec.IsDeploy(name) {
			continue
		}
		for _, ph := range pl.Phases.All() {
			for _, st := range ph.Steps {
				for _, t := range st.Tasks {
					if ph.Pod == pod && t == task {
						return true
					}
				}
			}
		}
	}
	return false
}

func wantsCA(s *service.Spec, lines service.Lines) service.Problems {
	var ps service.Problems
	for pod, p := range s.Pods.All() {
		for task, t := range p.Tasks.All() {
			if at := "pods." + pod + ".tasks." + task + ".transport-encryption"; len(t.TLS) > 0 {
				ps = append(ps, service.Problem{Path: at, Line: lines.Of(at), Message: "this cluster has no certificate authority to issue certificates"})
			}
		}
	}
	return ps
}

// admit says which pods would find no place on the agents as they are.
func (s *Service) admit(ctx context.Context, e *engine.Engine, sp *service.Spec) ([]match.Shortage, error) {
	all, err := s.agents(ctx)
	if err != nil {
		return nil, err
	}
	wants, known := e.Wholes(sp)
	role := spec.Role(sp.Name)
	agents := make([]match.Agent, len(all))
	for i, a := range all {
		agents[i] = match.Agent{ID: a.ID, Place: a.Place, Resources: match.Free(a.Total, a.Used, role, known), Unavailable: a.Leaving}
	}
	constraints := map[string][][]string{}
	for pod, p := range sp.Pods.All() {
		constraints[pod] = p.Placement
	}
	return match.Admit(agents, wants, constraints, match.Settings{
		Role: role, Load: map[string]int{}, Known: known, Random: func(uint64) uint64 { return 0 },
	}), nil
}

// ask makes a call to the master's operator API.
func (s *Service) ask(ctx context.Context, typ master.Call_Type) (*master.Response, error) {
	op := "ask the master: " + typ.String()
	base, err := url.Parse(s.opt.Master)
	if err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	resp, _, err := framework.Post(ctx, framework.NoRedirects(s.opt.Client), base, "/api/v1", wire.Protobuf, &master.Call{Type: typ.Enum()}, "")
	if err != nil {
		return nil, fault.New(op, fault.KindOf(err), err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, framework.Refusal(op, resp)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fault.New(op, fault.Unavailable, err)
	}
	answer := &master.Response{}
	if err := wire.Protobuf.Unmarshal(body, answer); err != nil {
		return nil, fault.New(op, fault.Unavailable, err)
	}
	return answer, nil
}

// maxAnswer bounds answers: some 2 KiB for each of 30,000 agents.
const maxAnswer = 64 << 20

// orphan returns the id of a framework that was made for a service and is
// connected to nobody: the one of a leader that ended before it had stored the
// id. It is "" if there is none.
func (s *Service) orphan(ctx context.Context, name, role string) (string, error) {
	answer, err := s.ask(ctx, master.Call_GET_FRAMEWORKS)
	if err != nil {
		return "", err
	}
	for _, f := range answer.GetGetFrameworks().GetFrameworks() {
		if info := f.GetFrameworkInfo(); info.GetName() == name && slices.Equal(info.GetRoles(), []string{role}) && !f.GetConnected() {
			return info.GetId().GetValue(), nil
		}
	}
	return "", nil
}

// agents asks the master for its agents.
func (s *Service) agents(ctx context.Context) ([]engine.Agent, error) {
	const op = "read the agents"
	answer, err := s.ask(ctx, master.Call_GET_AGENTS)
	if err != nil {
		return nil, err
	}
	var out []engine.Agent
	for _, a := range answer.GetGetAgents().GetAgents() {
		total, err := resource.FromProto(a.GetTotalResources())
		if err != nil {
			return nil, fault.New(op, fault.Internal, err)
		}
		used, err := resource.FromProto(a.GetAllocatedResources())
		if err != nil {
			return nil, fault.New(op, fault.Internal, err)
		}
		info := a.GetAgentInfo()
		out = append(out, engine.Agent{
			ID: info.GetId().GetValue(), Place: placement.Of(info.GetHostname(), info.GetDomain(), info.GetAttributes()),
			Total: total, Used: used.Unallocate(), Leaving: a.GetDeactivated() || a.GetDrainInfo() != nil || !a.GetActive(),
		})
	}
	return out, nil
}
