// Package validate says what is wrong with what frameworks send, in the words
// of Mesos where clients may show them. It is pure.
package validate

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/resource"
)

//lint:file-ignore SA1019 Frameworks without MULTI_ROLE have one role, in the older field.

// ID checks an identifier that ends up in paths.
func ID(id string) error {
	switch {
	case id == "":
		return errors.New("ID must not be empty")
	case len(id) > 255:
		return errors.New("ID must not be greater than 255 characters")
	case id == "." || id == "..":
		return fmt.Errorf("'%s' is disallowed", id)
	}
	if i := strings.IndexFunc(id, func(r rune) bool { return r == '/' || r == '\\' || r < 0x20 || r == 0x7f }); i >= 0 {
		return fmt.Errorf("'%s' contains invalid characters", id)
	}
	return nil
}

// Roles returns the roles of a framework, by either spelling, and what is
// wrong with them.
func Roles(f *mesos.FrameworkInfo) ([]string, error) {
	multi := HasCapability(f, mesos.FrameworkInfo_Capability_MULTI_ROLE)
	if !multi {
		if len(f.Roles) > 0 {
			return nil, errors.New("'FrameworkInfo.roles' must not be set without the MULTI_ROLE capability")
		}
		return []string{f.GetRole()}, resource.CheckRole(f.GetRole())
	}
	if f.Role != nil {
		return nil, errors.New("'FrameworkInfo.role' must not be set with the MULTI_ROLE capability")
	}
	for i, r := range f.Roles {
		if err := resource.CheckRole(r); err != nil {
			return nil, err
		}
		if slices.Contains(f.Roles[:i], r) {
			return nil, fmt.Errorf("'FrameworkInfo.roles' contains duplicate role '%s'", r)
		}
	}
	return f.Roles, nil
}

// HasCapability reports whether f has the capability.
func HasCapability(f *mesos.FrameworkInfo, t mesos.FrameworkInfo_Capability_Type) bool {
	return slices.ContainsFunc(f.Capabilities, func(c *mesos.FrameworkInfo_Capability) bool { return c.GetType() == t })
}

// Framework checks a FrameworkInfo as a framework subscribes with it.
func Framework(f *mesos.FrameworkInfo, suppressed []string) error {
	roles, err := Roles(f)
	if err != nil {
		return err
	}
	if t := f.GetFailoverTimeout(); math.IsNaN(t) || t < 0 || t > 1e9 {
		return fmt.Errorf("The framework failover_timeout (%v) is invalid", t)
	}
	if id := f.GetId().GetValue(); id != "" {
		if err := ID(id); err != nil {
			return fmt.Errorf("invalid framework ID: %w", err)
		}
	}
	for _, r := range suppressed {
		if !slices.Contains(roles, r) {
			return fmt.Errorf("suppressed role '%s' is not contained in the list of roles", r)
		}
	}
	return nil
}

// Launch is what a task is checked against.
type Launch struct {
	AgentID   string
	Framework *mesos.FrameworkInfo
	Role      string             // that the offer is allocated to
	Available resource.Resources // of the offers, allocated to Role
	// Executor is the ExecutorInfo that already runs under the task's executor
	// id on this agent, nil when none does.
	Executor *mesos.ExecutorInfo
}

// Task checks t and returns what it and, when not running yet, its executor
// use, allocated to the offer's role.
func Task(t *mesos.TaskInfo, l Launch) (use, executor resource.Resources, err error) {
	none := resource.Resources{}
	if err := ID(t.GetTaskId().GetValue()); err != nil {
		return none, none, fmt.Errorf("Task ID is invalid: %w", err)
	}
	if t.GetAgentId().GetValue() != l.AgentID {
		return none, none, fmt.Errorf("Task uses invalid agent %s while agent %s is expected", t.GetAgentId().GetValue(), l.AgentID)
	}
	if (t.Executor == nil) == (t.Command == nil) {
		return none, none, errors.New("Task should have at least one (but not both) of CommandInfo or ExecutorInfo present")
	}
	use, err = resources("Task", t.Resources, l.Role)
	if err != nil {
		return none, none, err
	}
	if use.Empty() {
		return none, none, errors.New("Task uses no resources")
	}
	for _, check := range []error{
		command(t.Command), killPolicy(t.KillPolicy), healthCheck(t.HealthCheck), container(t.Container), limits(t, use),
	} {
		if check != nil {
			return none, none, check
		}
	}
	if d := t.MaxCompletionTime; d != nil && d.GetNanoseconds() < 0 {
		return none, none, errors.New("Task's `max_completion_time` must be non-negative")
	}
	if t.Executor != nil {
		if executor, err = checkExecutor(t.Executor, l); err != nil {
			return none, none, err
		}
	}
	if total := use.Add(executor).Distinct(); !l.Available.Distinct().Contains(total) {
		return none, none, fmt.Errorf("Total resources %s required by task and its executor is more than available %s",
			total.Unallocate(), l.Available.Unallocate())
	}
	return use, executor, nil
}

func checkExecutor(e *mesos.ExecutorInfo, l Launch) (resource.Resources, error) {
	none := resource.Resources{}
	if err := ID(e.GetExecutorId().GetValue()); err != nil {
		return none, fmt.Errorf("Executor ID is invalid: %w", err)
	}
	if id := e.GetFrameworkId().GetValue(); id != "" && id != l.Framework.GetId().GetValue() {
		return none, fmt.Errorf("ExecutorInfo has an invalid FrameworkID (Actual: %s vs Expected: %s)", id, l.Framework.GetId().GetValue())
	}
	if e.GetType() == mesos.ExecutorInfo_DEFAULT && e.Command != nil {
		return none, errors.New("'ExecutorInfo.command' must not be set for 'DEFAULT' executor")
	}
	if e.GetType() != mesos.ExecutorInfo_DEFAULT && e.Command == nil {
		return none, errors.New("'ExecutorInfo.command' must be set for 'CUSTOM' executor")
	}
	if err := command(e.Command); err != nil {
		return none, err
	}
	if err := container(e.Container); err != nil {
		return none, err
	}
	if l.Executor != nil {
		if !sameExecutor(l.Executor, e) {
			return none, fmt.Errorf("ExecutorInfo is not compatible with existing ExecutorInfo with same ExecutorID '%s'", e.GetExecutorId().GetValue())
		}
		return none, nil
	}
	return resources("Executor", e.Resources, l.Role)
}

// resources reads resources of a launch and marks those without allocation as
// allocated to role.
func resources(what string, ps []*mesos.Resource, role string) (resource.Resources, error) {
	r, err := resource.FromProto(ps)
	if err != nil {
		return r, fmt.Errorf("%s uses invalid resources: %w", what, err)
	}
	for _, a := range r.AllocationRoles() {
		if a != role {
			return r, fmt.Errorf("%s uses resources allocated to role '%s' while the offer is allocated to role '%s'", what, a, role)
		}
	}
	kinds := map[string]bool{}
	volumes := map[string]bool{}
	for it := range r.All() {
		if rev, seen := kinds[it.Name()]; seen && rev != it.Revocable() {
			return r, fmt.Errorf("%s mixes revocable and non-revocable %s", what, it.Name())
		}
		kinds[it.Name()] = it.Revocable()
		if id := it.VolumeID(); id != "" {
			if volumes[id] {
				return r, fmt.Errorf("%s uses persistence ID '%s' twice", what, id)
			}
			volumes[id] = true
		}
	}
	return r.Allocate(role), nil
}

func command(c *mesos.CommandInfo) error {
	if c == nil {
		return nil
	}
	for _, v := range c.GetEnvironment().GetVariables() {
		switch v.GetType() {
		case mesos.Environment_Variable_SECRET:
			if v.Secret == nil {
				return fmt.Errorf("Environment variable '%s' of type 'SECRET' must have a secret set", v.GetName())
			}
		case mesos.Environment_Variable_VALUE:
			if v.Value == nil {
				return fmt.Errorf("Environment variable '%s' of type 'VALUE' must have a value set", v.GetName())
			}
		default:
			return errors.New("Environment variable of type 'UNKNOWN' is not allowed")
		}
	}
	for _, u := range c.Uris {
		if u.GetValue() == "" || strings.ContainsAny(u.GetValue(), `\'`+"\x00") {
			return fmt.Errorf("URI '%s' contains illegal characters or is empty", u.GetValue())
		}
		if o := u.GetOutputFile(); strings.HasPrefix(o, "/") || strings.Contains("/"+o+"/", "/../") {
			return fmt.Errorf("URI output file '%s' must lie in the sandbox", o)
		}
	}
	return nil
}

func killPolicy(k *mesos.KillPolicy) error {
	if k.GetGracePeriod().GetNanoseconds() < 0 {
		return errors.New("Task's 'kill_policy.grace_period' must be non-negative")
	}
	return nil
}

func healthCheck(h *mesos.HealthCheck) error {
	if h == nil {
		return nil
	}
	for _, v := range []float64{h.GetDelaySeconds(), h.GetIntervalSeconds(), h.GetTimeoutSeconds(), h.GetGracePeriodSeconds()} {
		if math.IsNaN(v) || v < 0 {
			return errors.New("Task uses invalid health check: durations must be non-negative")
		}
	}
	switch h.GetType() {
	case mesos.HealthCheck_COMMAND:
		if h.Command == nil {
			return errors.New("Task uses invalid health check: Expecting 'command' to be set for COMMAND health check")
		}
		return command(h.Command)
	case mesos.HealthCheck_HTTP:
		if h.Http == nil {
			return errors.New("Task uses invalid health check: Expecting 'http' to be set for HTTP health check")
		}
		if s := h.Http.GetScheme(); s != "" && s != "http" && s != "https" {
			return fmt.Errorf("Task uses invalid health check: Unsupported HTTP health check scheme: '%s'", s)
		}
		if p := h.Http.GetPath(); p != "" && p[0] != '/' {
			return fmt.Errorf("Task uses invalid health check: The path '%s' of HTTP health check must start with '/'", p)
		}
	case mesos.HealthCheck_TCP:
		if h.Tcp == nil {
			return errors.New("Task uses invalid health check: Expecting 'tcp' to be set for TCP health check")
		}
	default:
		return errors.New("Task uses invalid health check: 'type' is not set and cannot be inferred")
	}
	return nil
}

// InferHealthCheck sets the type of a health check that only has one of
// command, http and tcp, as old frameworks send it.
func InferHealthCheck(h *mesos.HealthCheck) {
	if h == nil || h.Type != nil {
		return
	}
	switch {
	case h.Command != nil && h.Http == nil:
		h.Type = mesos.HealthCheck_COMMAND.Enum()
	case h.Http != nil && h.Command == nil:
		h.Type = mesos.HealthCheck_HTTP.Enum()
	}
}

func container(c *mesos.ContainerInfo) error {
	if c == nil {
		return nil
	}
	if c.GetType() == mesos.ContainerInfo_DOCKER && c.GetDocker().GetImage() == "" {
		return errors.New("Invalid ContainerInfo: DockerInfo 'docker' is not set for DOCKER typed ContainerInfo")
	}
	for _, v := range c.Volumes {
		if v.GetContainerPath() == "" {
			return errors.New("Invalid ContainerInfo: volume without container_path")
		}
	}
	return nil
}

func limits(t *mesos.TaskInfo, use resource.Resources) error {
	for name, v := range t.Limits {
		if name != resource.CPUs && name != resource.Mem {
			return fmt.Errorf("Only cpus and mem can have limits, not %s", name)
		}
		if v.GetValue() < use.Scalar(name).Float() {
			return fmt.Errorf("Task %s limit %v is below its request %s", name, v.GetValue(), use.Scalar(name))
		}
	}
	return nil
}
