package launch

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/api/mesos"
)

// maxLabel bounds the labels that become variables.
const maxLabel = 512

// environment is the task's variables: what Marathon tells every task, under
// what the user wrote.
func environment(t Task, ps []port) *mesos.Environment {
	a := t.App
	env := map[string]string{
		"MESOS_TASK_ID":                   t.ID,
		"MARATHON_APP_ID":                 a.ID,
		"MARATHON_APP_VERSION":            a.Version,
		"MARATHON_APP_RESOURCE_CPUS":      decimal(a.CPUs),
		"MARATHON_APP_RESOURCE_MEM":       decimal(a.Mem),
		"MARATHON_APP_RESOURCE_DISK":      decimal(a.Disk),
		"MARATHON_APP_RESOURCE_GPUS":      strconv.FormatInt(a.GPUs, 10),
		"MARATHON_APP_ENFORCE_GROUP_ROLE": "FALSE",
		"HOST":                            t.Host,
	}
	if a.Container != nil && a.Container.Docker != nil {
		env["MARATHON_APP_DOCKER_IMAGE"] = a.Container.Docker.Image
	}
	var names []string
	for _, k := range slices.Sorted(maps.Keys(a.Labels)) {
		v := a.Labels[k]
		if len(k) >= maxLabel || len(v) >= maxLabel {
			continue
		}
		name := variable(k)
		names = append(names, name)
		env["MARATHON_APP_LABEL_"+name] = v
	}
	env["MARATHON_APP_LABELS"] = strings.Join(names, " ")
	var all []string
	for i, p := range ps {
		if p.outside() == 0 {
			continue
		}
		n := strconv.FormatInt(p.outside(), 10)
		all = append(all, n)
		env["PORT"+strconv.Itoa(i)] = n
		if p.declared != 0 {
			env["PORT_"+strconv.FormatInt(p.declared, 10)] = n
		}
		if p.name != "" {
			env["PORT_"+variable(p.name)] = n
		}
	}
	if len(all) > 0 {
		env["PORT"] = all[0]
		env["PORTS"] = strings.Join(all, ",")
	}
	for k, v := range a.Env {
		env[k] = v.Value
	}
	out := &mesos.Environment{}
	for _, k := range slices.Sorted(maps.Keys(env)) {
		out.Variables = append(out.Variables, &mesos.Environment_Variable{Name: proto.String(k), Value: proto.String(env[k])})
	}
	return out
}

// variable makes a name usable in a shell: upper case, the rest "_".
func variable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, s)
}

// decimal writes a number as Scala does: "1.0".
func decimal(v float64) string {
	s := strconv.FormatFloat(v, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}
