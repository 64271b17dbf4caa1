// Package launch writes the tasks of services as the master wants them: their
// environment, their files rendered from templates, their checks, ports and
// addresses. It is pure; keys and certificates are passed in.
//
// Tasks have their share of the cpu and no quota: what nobody else uses they
// may use, as a service that starts needs more than one that runs.
package launch

import (
	"fmt"
	"maps"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/service"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/mustache"
	"dcos.example/dcos/runtime/placement"
	"dcos.example/dcos/runtime/resource"
	"dcos.example/dcos/runtime/service/plan"
	"dcos.example/dcos/runtime/service/spec"
)

// bridge is the network of pods that do not share their host's.
const bridge = "mesos-bridge"

// never is how many failures in a row a readiness check may have: it ends
// nothing.
const never = math.MaxUint32

// pause does nothing until it is told to end.
const pause = "trap 'exit 0' TERM INT; while :; do sleep 3600 & wait $!; done"

// Task is one to be launched.
type Task struct {
	Spec     *service.Spec
	Instance plan.Instance
	Name     string // of the task in its pod
	ID       string
	ConfigID string
	Agent    string
	Place    placement.Place
	Address  string         // of the agent
	Ports    map[string]int // of the instance, by "task/port"
	// Resources it gets.
	Resources resource.Resources
	// Secrets are the values, by name.
	Secrets map[string]string
	// Env are further variables, of a plan's start.
	Env map[string]string
	// Paused starts a process that does nothing in place of the task's own.
	Paused bool
	// Replaced is the address of the instance that this one was made anew for,
	// without its data; "" for the first.
	Replaced string
	// Files are added to those of the spec: keys and certificates.
	Files []File
}

// File is one that the task finds in its container.
type File struct {
	Path string
	Data []byte
}

// FullName is the name of a task, in Mesos and in DNS.
func FullName(i plan.Instance, task string) string { return i.String() + "-" + task }

// PortKey names a port of an instance.
func PortKey(task, port string) string { return task + "/" + port }

// Info writes the task. It is Invalid if a template cannot be rendered.
func Info(t Task) (*mesos.TaskInfo, error) {
	pod := t.Spec.Pods.Get(t.Instance.Pod)
	def := pod.Tasks.Get(t.Name)
	env := Environment(t)
	files, err := files(t, pod, def, env)
	if err != nil {
		return nil, err
	}
	name := FullName(t.Instance, t.Name)
	role := spec.Role(t.Spec.Name)
	info := &mesos.TaskInfo{
		Name: proto.String(name), TaskId: &mesos.TaskID{Value: proto.String(t.ID)},
		AgentId: &mesos.AgentID{Value: proto.String(t.Agent)}, Resources: t.Resources.Allocate(role).Proto(),
		Command: command(t, pod, def, env), Container: container(t, pod, def, files),
		Discovery: discovery(t, def, name), Labels: taskLabels(t, def),
		Limits:     map[string]*mesos.Value_Scalar{resource.CPUs: {Value: proto.Float64(math.Inf(1))}},
		KillPolicy: &mesos.KillPolicy{GracePeriod: &mesos.DurationInfo{Nanoseconds: proto.Int64(int64(*def.KillGrace) * int64(time.Second))}},
	}
	if !t.Paused {
		checks(t, def, info)
	}
	return info, nil
}

// Environment is what the task's process sees, but for secrets. What the spec
// says goes before what the operator says, and what the plan's start said
// before both.
func Environment(t Task) map[string]string {
	s := t.Spec
	def := s.Pods.Get(t.Instance.Pod).Tasks.Get(t.Name)
	env := map[string]string{
		"FRAMEWORK_NAME":         s.Name,
		"FRAMEWORK_HOST":         spec.Domain(s.Name),
		"FRAMEWORK_VIP_HOST":     spec.VIPDomain(s.Name),
		"SCHEDULER_API_HOSTNAME": "leader.mesos",
		"TASK_NAME":              FullName(t.Instance, t.Name),
		"POD_NAME":               t.Instance.Pod,
		"POD_INSTANCE_INDEX":     strconv.Itoa(t.Instance.Index),
		"HOST":                   t.Place.Host,
		"HOST_IP":                t.Address,
		"MESOS_CONTAINER_IP":     t.Address,
		"ZONE":                   t.Place.Zone,
		"REGION":                 t.Place.Region,
		"TASK_CPUS":              strconv.FormatFloat(def.CPUs, 'f', -1, 64),
		"TASK_MEMORY":            strconv.FormatFloat(def.Memory, 'f', -1, 64),
	}
	if t.Replaced != "" {
		env["POD_REPLACED"] = t.Replaced
	}
	for name, p := range def.Ports.All() {
		env[p.EnvKey] = strconv.Itoa(t.Ports[PortKey(t.Name, name)])
	}
	maps.Copy(env, def.Env)
	maps.Copy(env, t.Env)
	return env
}

func user(t Task, pod *service.Pod, def *service.Task) *string {
	for _, u := range []string{def.User, pod.User, t.Spec.User} {
		if u != "" {
			return proto.String(u)
		}
	}
	return nil
}

func command(t Task, pod *service.Pod, def *service.Task, env map[string]string) *mesos.CommandInfo {
	c := &mesos.CommandInfo{Environment: &mesos.Environment{}, User: user(t, pod, def)}
	for _, k := range slices.Sorted(maps.Keys(env)) {
		c.Environment.Variables = append(c.Environment.Variables, &mesos.Environment_Variable{Name: proto.String(k), Value: proto.String(env[k])})
	}
	for _, key := range slices.Sorted(maps.Keys(pod.Secrets)) {
		if f := pod.Secrets[key]; f.EnvKey != "" {
			c.Environment.Variables = append(c.Environment.Variables, &mesos.Environment_Variable{
				Name: proto.String(f.EnvKey), Type: mesos.Environment_Variable_SECRET.Enum(), Secret: secret([]byte(t.Secrets[f.Secret])),
			})
		}
	}
	switch {
	case t.Paused:
		c.Shell, c.Value = proto.Bool(true), proto.String(pause)
	case def.Cmd != "":
		c.Shell, c.Value = proto.Bool(true), proto.String(def.Cmd)
	default:
		c.Shell = proto.Bool(false) // the image's entry point
	}
	return c
}

func secret(data []byte) *mesos.Secret {
	return &mesos.Secret{Type: mesos.Secret_VALUE.Enum(), Value: &mesos.Secret_Value{Data: data}}
}

// maxFile bounds a rendered template.
const maxFile = 1 << 20

// files renders the task's templates and adds secrets and what was passed in.
func files(t Task, pod *service.Pod, def *service.Task, env map[string]string) ([]File, error) {
	var out []File
	data := Values(t, pod, env)
	for name, c := range def.Configs.All() {
		text, err := Render(t.Spec.Templates[c.Template], data)
		if err != nil {
			return nil, fault.Newf("render config "+name+" of "+FullName(t.Instance, t.Name), fault.Invalid, "%s: %w", c.Template, err)
		}
		out = append(out, File{c.Dest, []byte(text)})
	}
	for _, key := range slices.Sorted(maps.Keys(pod.Secrets)) {
		if f := pod.Secrets[key]; f.File != "" {
			out = append(out, File{f.File, []byte(t.Secrets[f.Secret])})
		}
	}
	return append(out, t.Files...), nil
}

// Values are what templates see: the environment with the secrets in it. true
// and false are what sections ask for.
func Values(t Task, pod *service.Pod, env map[string]string) map[string]any {
	data := make(map[string]any, len(env)+len(pod.Secrets))
	for k, v := range env {
		switch strings.ToLower(v) {
		case "true":
			data[k] = true
		case "false":
			data[k] = false
		default:
			data[k] = v
		}
	}
	for _, f := range pod.Secrets {
		if f.EnvKey != "" {
			data[f.EnvKey] = t.Secrets[f.Secret]
		}
	}
	return data
}

// Render renders a template; a name that is nowhere is an error.
func Render(text string, data map[string]any) (string, error) {
	tmpl, err := mustache.Parse(text)
	if err != nil {
		return "", err
	}
	return tmpl.Render(data, mustache.Options{Strict: true, MaxBytes: maxFile})
}

func container(t Task, pod *service.Pod, def *service.Task, files []File) *mesos.ContainerInfo {
	c := &mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum()}
	if pod.Image != "" {
		c.Mesos = &mesos.ContainerInfo_MesosInfo{Image: &mesos.Image{
			Type: mesos.Image_DOCKER.Enum(), Docker: &mesos.Image_Docker{Name: proto.String(pod.Image)}, Cached: proto.Bool(true),
		}}
	}
	for _, f := range files {
		c.Volumes = append(c.Volumes, &mesos.Volume{
			Mode: mesos.Volume_RO.Enum(), ContainerPath: proto.String(path.Clean(f.Path)),
			Source: &mesos.Volume_Source{Type: mesos.Volume_Source_SECRET.Enum(), Secret: secret(f.Data)},
		})
	}
	if pod.Network == service.NetworkContainer {
		n := &mesos.NetworkInfo{Name: proto.String(bridge)}
		for name := range def.Ports.All() {
			number := uint32(t.Ports[PortKey(t.Name, name)])
			n.PortMappings = append(n.PortMappings, &mesos.NetworkInfo_PortMapping{
				HostPort: proto.Uint32(number), ContainerPort: proto.Uint32(number), Protocol: proto.String("tcp"),
			})
		}
		c.NetworkInfos = []*mesos.NetworkInfo{n}
	}
	return c
}

// discovery is what DNS and load balancers learn of the task.
func discovery(t Task, def *service.Task, name string) *mesos.DiscoveryInfo {
	d := &mesos.DiscoveryInfo{Visibility: mesos.DiscoveryInfo_CLUSTER.Enum(), Name: proto.String(name), Ports: &mesos.Ports{}}
	for port, p := range def.Ports.All() {
		out := &mesos.Port{
			Number: proto.Uint32(uint32(t.Ports[PortKey(t.Name, port)])), Name: proto.String(port), Protocol: proto.String("tcp"),
			Labels: labels(map[string]string{"network-scope": "host"}),
		}
		if v := p.VIP; v != nil {
			out.Labels.Labels = append(out.Labels.Labels, label("VIP_0", fmt.Sprintf("/%s:%d", v.Prefix, v.Port)))
		}
		d.Ports.Ports = append(d.Ports.Ports, out)
	}
	return d
}

func label(k, v string) *mesos.Label {
	return &mesos.Label{Key: proto.String(k), Value: proto.String(v)}
}

func labels(m map[string]string) *mesos.Labels {
	out := &mesos.Labels{}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out.Labels = append(out.Labels, label(k, m[k]))
	}
	return out
}

// taskLabels are the task's own with those of the SDK.
func taskLabels(t Task, def *service.Task) *mesos.Labels {
	all := map[string]string{
		"index": strconv.Itoa(t.Instance.Index), "task_type": t.Instance.Pod, "goal_state": string(def.Goal), "target_configuration": t.ConfigID,
	}
	maps.Copy(all, def.Labels)
	return labels(all)
}

// checks translates the task's checks. Both run on the agent, as health checks
// (ADR 6); the readiness check is one that ends nothing and whose failures do
// not count before it has passed once.
func checks(t Task, def *service.Task, info *mesos.TaskInfo) {
	var all []*mesos.HealthCheck
	if k := def.Health; k != nil {
		h := check(t, k)
		h.GracePeriodSeconds, h.ConsecutiveFailures = proto.Float64(k.Grace), proto.Uint32(uint32(k.Failures))
		all = append(all, h)
	}
	if k := def.Readiness; k != nil {
		h := check(t, k)
		h.GracePeriodSeconds, h.ConsecutiveFailures = proto.Float64(1e9), proto.Uint32(never)
		all = append(all, h)
	}
	if len(all) > 0 {
		info.HealthCheck, info.MoreHealthChecks = all[0], all[1:]
	}
}

func check(t Task, k *service.Check) *mesos.HealthCheck {
	h := &mesos.HealthCheck{
		DelaySeconds: proto.Float64(k.Delay), IntervalSeconds: proto.Float64(k.Interval), TimeoutSeconds: proto.Float64(k.Timeout),
	}
	port := func(name string) *uint32 { return proto.Uint32(uint32(t.Ports[PortKey(t.Name, name)])) }
	switch {
	case k.TCP != nil:
		h.Type, h.Tcp = mesos.HealthCheck_TCP.Enum(), &mesos.HealthCheck_TCPCheckInfo{Port: port(k.TCP.Port)}
	case k.HTTP != nil:
		h.Type, h.Http = mesos.HealthCheck_HTTP.Enum(), &mesos.HealthCheck_HTTPCheckInfo{
			Port: port(k.HTTP.Port), Path: proto.String(k.HTTP.Path), Scheme: proto.String("http"),
		}
		if k.HTTP.HTTPS {
			h.Http.Scheme = proto.String("https")
		}
	default:
		h.Type = mesos.HealthCheck_COMMAND.Enum()
		h.Command = &mesos.CommandInfo{Shell: proto.Bool(true), Value: proto.String(k.Cmd)}
	}
	return h
}

// Checked reports whether a task's state alone does not tell that it is ready.
func Checked(def *service.Task) bool { return def.Health != nil || def.Readiness != nil }
