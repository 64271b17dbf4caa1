package launch

import (
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/api/marathon"
	"dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/orchestrator/health"
	"dcos.example/dcos/runtime/orchestrator/spec"
	"dcos.example/dcos/runtime/resource"
)

// bridge is the CNI network that stands for "container/bridge" in the Mesos
// containerizer.
const bridge = "mesos-bridge"

// Task is one instance about to be launched.
type Task struct {
	App       *marathon.App
	ID        string
	Agent     string
	Host      string
	HostPorts []int64
	Resources resource.Resources
}

// port is one port of a task, seen from all sides.
type port struct {
	name      string
	protocols []string
	labels    map[string]string
	declared  int64 // port or containerPort as written in the app
	host      int64 // on the agent, 0 for none
	container int64 // in the task's own network
}

// outside is where others reach the port.
func (p port) outside() int64 {
	if p.host != 0 {
		return p.host
	}
	return p.container
}

func ports(a *marathon.App, host []int64) []port {
	var out []port
	at := func(i int) int64 {
		if i < len(host) {
			return host[i]
		}
		return 0
	}
	if spec.OnHost(a) {
		for i, d := range a.PortDefinitions {
			out = append(out, port{d.Name, strings.Split(d.Protocol, ","), d.Labels, d.Port, at(i), at(i)})
		}
		return out
	}
	if a.Container == nil {
		return nil
	}
	for i, m := range a.Container.PortMappings {
		p := port{m.Name, strings.Split(m.Protocol, ","), m.Labels, m.ContainerPort, at(i), m.ContainerPort}
		if p.container == 0 {
			p.container = p.host
		}
		out = append(out, p)
	}
	return out
}

// Reached lists where a task's ports are reached from outside, by index: on
// the agent if they are mapped, else at the task's own address.
func Reached(a *marathon.App, hostPorts []int64) []int64 {
	out := []int64{}
	for _, p := range ports(a, hostPorts) {
		out = append(out, p.outside())
	}
	return out
}

// Info writes the task as the master wants it.
func Info(t Task) *mesos.TaskInfo {
	a := t.App
	ps := ports(a, t.HostPorts)
	inner := make([]int64, len(ps))
	for i, p := range ps {
		inner[i] = p.container
	}
	name := spec.AppID(a.ID).Hostname()
	info := &mesos.TaskInfo{
		Name: proto.String(name), TaskId: &mesos.TaskID{Value: proto.String(t.ID)},
		AgentId: &mesos.AgentID{Value: proto.String(t.Agent)}, Resources: t.Resources.Proto(),
		Command: command(t, ps), Container: container(a, ps), Discovery: discovery(a, name, ps),
		Labels: labels(a.Labels), Limits: limits(a.ResourceLimits),
	}
	if checks := health.Translate(a.HealthChecks, inner); len(checks) > 0 {
		info.HealthCheck, info.MoreHealthChecks = checks[0], checks[1:]
	}
	if g := a.TaskKillGracePeriodSeconds; g != nil {
		info.KillPolicy = &mesos.KillPolicy{GracePeriod: &mesos.DurationInfo{
			Nanoseconds: proto.Int64(*g * int64(time.Second)),
		}}
	}
	return info
}

func command(t Task, ps []port) *mesos.CommandInfo {
	a := t.App
	c := &mesos.CommandInfo{Environment: environment(t, ps), User: a.User}
	for _, f := range a.Fetch {
		u := &mesos.CommandInfo_URI{
			Value: proto.String(f.URI), Extract: proto.Bool(f.Extract),
			Executable: proto.Bool(f.Executable), Cache: proto.Bool(f.Cache),
		}
		if f.DestPath != "" {
			u.OutputFile = proto.String(f.DestPath)
		}
		c.Uris = append(c.Uris, u)
	}
	if a.Cmd != nil {
		c.Shell, c.Value = proto.Bool(true), a.Cmd
		return c
	}
	c.Shell, c.Arguments = proto.Bool(false), a.Args
	if len(a.Args) > 0 && (a.Container == nil || a.Container.Docker == nil) {
		c.Value = proto.String(a.Args[0]) // no image whose entry point could run
	}
	return c
}

func container(a *marathon.App, ps []port) *mesos.ContainerInfo {
	c := a.Container
	tty := a.TTY != nil && *a.TTY
	if c == nil && !tty {
		return nil
	}
	out := &mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum()}
	if tty {
		out.TtyInfo = &mesos.TTYInfo{}
	}
	if c == nil {
		return out
	}
	for _, v := range c.Volumes {
		mode := mesos.Volume_RW
		if v.Mode == "RO" {
			mode = mesos.Volume_RO
		}
		out.Volumes = append(out.Volumes, &mesos.Volume{
			Mode: mode.Enum(), ContainerPath: proto.String(v.ContainerPath), HostPath: proto.String(v.HostPath),
		})
	}
	if c.Type == marathon.Docker {
		docker(a, out, ps)
		return out
	}
	if d := c.Docker; d != nil {
		out.Mesos = &mesos.ContainerInfo_MesosInfo{Image: &mesos.Image{
			Type: mesos.Image_DOCKER.Enum(), Docker: &mesos.Image_Docker{Name: proto.String(d.Image)},
			Cached: proto.Bool(!d.ForcePullImage),
		}}
	}
	for i, n := range a.Networks {
		if n.Mode == marathon.ModeHost {
			continue
		}
		info := &mesos.NetworkInfo{Name: proto.String(n.Name), Labels: labels(n.Labels)}
		if n.Mode == marathon.ModeBridge {
			info.Name = proto.String(bridge)
		}
		for j, p := range ps {
			names := c.PortMappings[j].NetworkNames
			if p.host == 0 || len(names) > 0 && !slices.Contains(names, n.Name) || len(names) == 0 && i > 0 {
				continue
			}
			for _, proto1 := range p.protocols {
				info.PortMappings = append(info.PortMappings, &mesos.NetworkInfo_PortMapping{
					HostPort: proto.Uint32(uint32(p.host)), ContainerPort: proto.Uint32(uint32(p.container)), Protocol: proto.String(proto1),
				})
			}
		}
		out.NetworkInfos = append(out.NetworkInfos, info)
	}
	return out
}

// docker fills the part of a container that the DOCKER type has of its own.
func docker(a *marathon.App, out *mesos.ContainerInfo, ps []port) {
	d := a.Container.Docker
	out.Type = mesos.ContainerInfo_DOCKER.Enum()
	out.Docker = &mesos.ContainerInfo_DockerInfo{
		Image: proto.String(d.Image), Privileged: proto.Bool(d.Privileged),
		ForcePullImage: proto.Bool(d.ForcePullImage), Network: mesos.ContainerInfo_DockerInfo_HOST.Enum(),
	}
	for _, p := range d.Parameters {
		out.Docker.Parameters = append(out.Docker.Parameters, &mesos.Parameter{Key: proto.String(p.Key), Value: proto.String(p.Value)})
	}
	if spec.OnHost(a) {
		return
	}
	out.Docker.Network = mesos.ContainerInfo_DockerInfo_BRIDGE.Enum()
	if n := a.Networks[0]; n.Mode == marathon.ModeContainer {
		out.Docker.Network = mesos.ContainerInfo_DockerInfo_USER.Enum()
		out.NetworkInfos = []*mesos.NetworkInfo{{Name: proto.String(n.Name), Labels: labels(n.Labels)}}
	}
	for _, p := range ps {
		if p.host == 0 {
			continue
		}
		for _, proto1 := range p.protocols {
			out.Docker.PortMappings = append(out.Docker.PortMappings, &mesos.ContainerInfo_DockerInfo_PortMapping{
				HostPort: proto.Uint32(uint32(p.host)), ContainerPort: proto.Uint32(uint32(p.container)), Protocol: proto.String(proto1),
			})
		}
	}
}

// discovery is what DNS and load balancers learn of the task.
func discovery(a *marathon.App, name string, ps []port) *mesos.DiscoveryInfo {
	d := &mesos.DiscoveryInfo{
		Visibility: mesos.DiscoveryInfo_FRAMEWORK.Enum(), Name: proto.String(name), Ports: &mesos.Ports{},
	}
	for i, p := range ps {
		if p.outside() == 0 {
			continue
		}
		ls := maps.Clone(p.labels)
		if ls == nil {
			ls = map[string]string{}
		}
		ls["network-scope"] = "host"
		if p.host == 0 {
			ls["network-scope"] = "container"
			ls["network-name"] = a.Networks[0].Name
			if names := a.Container.PortMappings[i].NetworkNames; len(names) > 0 {
				ls["network-name"] = names[0]
			}
		}
		for _, proto1 := range p.protocols {
			out := &mesos.Port{Number: proto.Uint32(uint32(p.outside())), Protocol: proto.String(proto1), Labels: labels(ls)}
			if p.name != "" {
				out.Name = proto.String(p.name)
			}
			d.Ports.Ports = append(d.Ports.Ports, out)
		}
	}
	return d
}

func labels(m map[string]string) *mesos.Labels {
	if len(m) == 0 {
		return nil
	}
	out := &mesos.Labels{}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out.Labels = append(out.Labels, &mesos.Label{Key: proto.String(k), Value: proto.String(m[k])})
	}
	return out
}

func limits(l *marathon.ResourceLimits) map[string]*mesos.Value_Scalar {
	if l == nil {
		return nil
	}
	out := map[string]*mesos.Value_Scalar{}
	put := func(name string, v *marathon.Limit) {
		if v == nil {
			return
		}
		n := v.Value
		if v.Unlimited {
			n = math.Inf(1)
		}
		out[name] = &mesos.Value_Scalar{Value: proto.Float64(n)}
	}
	put(resource.CPUs, l.CPUs)
	put(resource.Mem, l.Mem)
	return out
}
