package feed

import (
	"net/netip"
	"slices"
	"strings"

	"dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/master"
	"dcos.example/dcos/runtime/task"
)

func newAgent(a *master.Response_GetAgents_Agent) *Agent {
	info := a.GetAgentInfo()
	out := &Agent{
		ID: task.AgentID(info.GetId().GetValue()), Hostname: info.GetHostname(), Port: uint16(info.GetPort()),
		PID: a.GetPid(), Active: a.GetActive() && !a.GetDeactivated(),
		Attributes: info.GetAttributes(), Domain: info.GetDomain(),
	}
	_, endpoint, _ := strings.Cut(a.GetPid(), "@")
	if ap, err := netip.ParseAddrPort(endpoint); err == nil {
		out.Addr, out.Port = ap.Addr().Unmap(), ap.Port()
	} else if addr, err := netip.ParseAddr(info.GetHostname()); err == nil {
		out.Addr = addr.Unmap()
	}
	total := a.GetTotalResources()
	if len(total) == 0 {
		total = info.GetResources()
	}
	for _, r := range total {
		role := ""
		//lint:ignore SA1019 a master may answer in the form before reservation refinement
		old := r.Role
		if n := len(r.GetReservations()); n > 0 {
			role = r.GetReservations()[n-1].GetRole()
		} else if old != nil && *old != "*" {
			role = *old
		}
		if role != "" {
			out.Roles = append(out.Roles, role)
		}
	}
	slices.Sort(out.Roles)
	out.Roles = slices.Compact(out.Roles)
	return out
}

func newFramework(info *mesos.FrameworkInfo, active bool) *Framework {
	return &Framework{
		ID: task.FrameworkID(info.GetId().GetValue()), Name: info.GetName(), WebUI: info.GetWebuiUrl(), Host: info.GetHostname(), Active: active,
	}
}

func newTask(t *mesos.Task) *Task {
	out := &Task{
		TaskKey: TaskKey{task.FrameworkID(t.GetFrameworkId().GetValue()), task.ID(t.GetTaskId().GetValue())},
		Name:    t.GetName(), Executor: task.ExecutorID(t.GetExecutorId().GetValue()),
		Agent: task.AgentID(t.GetAgentId().GetValue()), State: t.GetState(),
		Checked: t.GetHealthCheck() != nil, Discovery: t.GetDiscovery(), Labels: t.GetLabels().GetLabels(),
	}
	for _, r := range t.GetResources() {
		if r.GetName() != "ports" {
			continue
		}
		for _, rg := range r.GetRanges().GetRange() {
			// A task holds single ports or small ranges; the bound keeps a
			// nonsensical one from costing memory.
			for p := rg.GetBegin(); p <= min(rg.GetEnd(), 65535); p++ {
				out.HostPorts = append(out.HostPorts, uint16(p))
			}
		}
	}
	out.Mappings = mappings(t.GetContainer())
	// Statuses are in order; what a later one leaves out an earlier one said.
	for _, s := range t.GetStatuses() {
		out.report(s)
	}
	return out
}

func mappings(c *mesos.ContainerInfo) (out []PortMapping) {
	for _, m := range c.GetDocker().GetPortMappings() {
		out = append(out, newMapping(m.GetHostPort(), m.GetContainerPort(), m.GetProtocol()))
	}
	if len(out) > 0 {
		return out // Marathon sends Docker's mappings in both places
	}
	for _, n := range c.GetNetworkInfos() {
		for _, m := range n.GetPortMappings() {
			out = append(out, newMapping(m.GetHostPort(), m.GetContainerPort(), m.GetProtocol()))
		}
	}
	return out
}

func newMapping(host, container uint32, protocol string) PortMapping {
	if protocol == "" {
		protocol = "tcp"
	}
	return PortMapping{uint16(host), uint16(container), strings.ToLower(protocol)}
}

// report takes over what a status says of health and addresses.
func (t *Task) report(s *mesos.TaskStatus) {
	if s.Healthy != nil {
		t.Health = Unhealthy
		if s.GetHealthy() {
			t.Health = Healthy
		}
	}
	infos := s.GetContainerStatus().GetNetworkInfos()
	if len(infos) == 0 {
		return
	}
	t.Addrs = nil
	for _, n := range infos {
		for _, a := range n.GetIpAddresses() {
			if addr, err := netip.ParseAddr(a.GetIpAddress()); err == nil {
				t.Addrs = append(t.Addrs, addr.Unmap())
			}
		}
	}
}
