package spec

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"dcos.example/dcos/runtime/api/marathon"
	"dcos.example/dcos/runtime/placement"
)

// Labels with a meaning for the orchestrator.
const (
	labelSingle        = "MARATHON_SINGLE_INSTANCE_APP"
	labelMigrationAPI  = "DCOS_MIGRATION_API_VERSION"
	labelMigrationPath = "DCOS_MIGRATION_API_PATH"
	labelFrameworkName = "DCOS_PACKAGE_FRAMEWORK_NAME"
)

var (
	executorRE    = regexp.MustCompile(`^(//cmd)$|^(/?[^/]+(/[^/]+)*)$|^$`)
	portNameRE    = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)
	networkNameRE = regexp.MustCompile(`^[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?$`)
)

// validate checks a canonical app completely.
func validate(a *marathon.App, pol Policy) error {
	var p Problems
	checkIdentity(a, &p)
	checkNumbers(a, pol, &p)
	checkNetworks(a, &p)
	checkPorts(a, &p)
	checkContainer(a, &p)
	checkHealth(a, &p)
	checkReadiness(a, &p)
	checkScheduling(a, pol, &p)
	checkRefused(a, &p)
	return p.err()
}

func checkIdentity(a *marathon.App, p *Problems) {
	if text := checkID(a.ID); text != "" {
		p.add("/id", text)
	}
	p.check(strings.HasPrefix(a.ID, "/"), "/id", "Path needs to be absolute")
	id := AppID(a.ID)
	p.check(id != Root, "/", "must not be root")
	if segs := id.segments(); len(segs) > 0 {
		last := segs[len(segs)-1]
		if slices.Contains(reservedNames, last) {
			p.add("/id", fmt.Sprintf("must not be one of (%s)", strings.Join(reservedNames, ", ")))
		}
	}
	seen := make(map[string]bool)
	for i, d := range a.Dependencies {
		if text := checkID(d); text != "" {
			p.add(at("/dependencies", i), text)
		}
		p.check(!seen[d], "/dependencies", "Elements must be unique")
		seen[d] = true
	}
	hasImage := a.Container != nil && (a.Container.Docker != nil || a.Container.AppC != nil)
	hasCmd, hasArgs := a.Cmd != nil, len(a.Args) > 0
	p.check(hasCmd != hasArgs || !hasCmd && hasImage, "/",
		"AppDefinition must either contain one of 'cmd' or 'args', and/or a 'container'.")
	p.check(a.Cmd == nil || len(*a.Cmd) > 1, "/", "must not be an empty string")
	p.check(executorRE.MatchString(a.Executor), "/executor",
		"must fully match regular expression '^(//cmd)|(/?[^/]+(/[^/]+)*)|$'")
	for i, f := range a.Fetch {
		p.check(len(f.URI) > 0 && len(f.URI) <= 1024, at("/fetch", i)+"/uri", "must have between 1 and 1024 characters")
	}
	for name := range a.Env {
		p.check(name != "", "/env", "must not be empty")
	}
}

func checkNumbers(a *marathon.App, pol Policy, p *Problems) {
	atLeast := func(path string, v, low float64) {
		p.check(v >= low, path, fmt.Sprintf("got %s, expected %s or more", number(v), number(low)))
	}
	between := func(path string, v float64) {
		atLeast(path, v, 0)
		p.check(v <= 1, path, "is greater than 1")
	}
	atLeast("/cpus", a.CPUs, 0.001)
	atLeast("/mem", a.Mem, 0)
	atLeast("/disk", a.Disk, 0)
	atLeast("/gpus", float64(a.GPUs), 0)
	atLeast("/instances", float64(a.Instances), 0)
	atLeast("/backoffSeconds", float64(a.BackoffSeconds), 0)
	atLeast("/backoffFactor", a.BackoffFactor, 1)
	atLeast("/maxLaunchDelaySeconds", float64(a.MaxLaunchDelaySeconds), 0)
	if a.TaskKillGracePeriodSeconds != nil {
		atLeast("/taskKillGracePeriodSeconds", float64(*a.TaskKillGracePeriodSeconds), 0)
	}
	if u := a.UpgradeStrategy; u != nil {
		between("/upgradeStrategy/minimumHealthCapacity", u.MinimumHealthCapacity)
		between("/upgradeStrategy/maximumOverCapacity", u.MaximumOverCapacity)
		if a.Labels[labelSingle] == "true" {
			p.check(u.MinimumHealthCapacity == 0, "/upgradeStrategy/minimumHealthCapacity",
				fmt.Sprintf("got %s, expected 0.0", number(u.MinimumHealthCapacity)))
			p.check(u.MaximumOverCapacity == 0, "/upgradeStrategy/maximumOverCapacity",
				fmt.Sprintf("got %s, expected 0.0", number(u.MaximumOverCapacity)))
		}
	}
	p.check(a.Labels[labelSingle] != "true" || a.Instances <= 1, "/", "Single instance app may only have one instance")
	if u := a.UnreachableStrategy; u != nil && !u.Disabled {
		atLeast("/unreachableStrategy/inactiveAfterSeconds", float64(u.InactiveAfterSeconds), 0)
		p.check(u.InactiveAfterSeconds <= u.ExpungeAfterSeconds, "/unreachableStrategy",
			"inactiveAfterSeconds must be less or equal to expungeAfterSeconds")
	}
	if l := a.ResourceLimits; l != nil {
		p.check(l.CPUs == nil || l.CPUs.Unlimited || l.CPUs.Value >= a.CPUs, "/resourceLimits/cpus", "must be greater than or equal to requested cpus")
		p.check(l.Mem == nil || l.Mem.Unlimited || l.Mem.Value >= a.Mem, "/resourceLimits/mem", "must be greater than or equal to requested mem")
	}
	p.check(a.Role == pol.Role, "/role", fmt.Sprintf("got %s, expected one of: [%s]", a.Role, pol.Role))
	p.check(a.KillSelection == marathon.YoungestFirst || a.KillSelection == marathon.OldestFirst,
		"/killSelection", "error.unknown.enum.literal")
}

func checkNetworks(a *marathon.App, p *Problems) {
	var host, bridge, container int
	names := make(map[string]bool)
	for i, n := range a.Networks {
		switch n.Mode {
		case marathon.ModeHost:
			host++
			p.check(n.Name == "" && len(n.Labels) == 0, "/networks", "Host networks may not have names or labels")
		case marathon.ModeBridge:
			bridge++
			p.check(n.Name == "", "/networks", "Bridge networks may not have names")
		case marathon.ModeContainer:
			container++
			p.check(n.Name != "", "/networks", "Network name must be specified when container network is selected.")
			p.check(n.Name == "" || networkNameRE.MatchString(n.Name), at("/networks", i)+"/name",
				"must fully match regular expression '"+networkNameRE.String()+"'")
			p.check(n.Name == "" || !names[n.Name], "/networks", "Duplicate networks are not allowed")
			names[n.Name] = true
		default:
			p.add(at("/networks", i)+"/mode", "error.unknown.enum.literal")
		}
	}
	if host > 1 || bridge > 1 || host+bridge > 1 || host+bridge > 0 && container > 0 {
		p.add("/networks", "May specify a single host network, single bridge network, or else 1-to-n container networks")
	}
	if a.Container != nil && a.Container.Type == marathon.Docker {
		p.check(container <= 1, "/", "may only specify a single container network when using the Docker container engine")
	}
	if a.Container != nil {
		p.check(host == 0 || len(a.Container.PortMappings) == 0, "/", "portMappings are not allowed with host-networking")
		for i, m := range a.Container.PortMappings {
			path := at("/container/portMappings", i)
			p.check(container <= 1 || m.HostPort == nil || len(m.NetworkNames) == 1, path,
				"networkNames must be a single item list when hostPort is specified and more than 1 container network is defined")
			for j, name := range m.NetworkNames {
				p.check(names[name], at(path+"/networkNames", j), "is not the name of one of the app's networks")
			}
		}
	}
	p.check(host > 0 || len(a.PortDefinitions) == 0, "/", "portDefinitions are only allowed with host-networking")
}

func checkPorts(a *marathon.App, p *Problems) {
	names := make(map[string]bool)
	ports := make(map[int64]bool)
	port := func(path string, n int64) {
		p.check(n >= 0 && n <= 65535, path, fmt.Sprintf("got %d, expected between 0 and 65535", n))
	}
	common := func(list, path, name, protocol string) {
		p.check(name == "" || portNameRE.MatchString(name), path+"/name", "must fully match regular expression '"+portNameRE.String()+"'")
		p.check(name == "" || !names[name], list, "Port names must be unique.")
		names[name] = true
		p.check(protocol == "tcp" || protocol == "udp" || protocol == "udp,tcp", path+"/protocol", "error.unknown.enum.literal")
	}
	for i, d := range a.PortDefinitions {
		path := at("/portDefinitions", i)
		common("/portDefinitions", path, d.Name, d.Protocol)
		port(path+"/port", d.Port)
		p.check(d.Port == 0 || !ports[d.Port], "/portDefinitions", "Ports must be unique.")
		ports[d.Port] = true
	}
	if a.Container == nil {
		return
	}
	for i, m := range a.Container.PortMappings {
		path := at("/container/portMappings", i)
		common("/container/portMappings", path, m.Name, m.Protocol)
		port(path+"/containerPort", m.ContainerPort)
		port(path+"/servicePort", m.ServicePort)
		if m.HostPort != nil {
			port(path+"/hostPort", *m.HostPort)
		}
	}
}

func checkContainer(a *marathon.App, p *Problems) {
	c := a.Container
	if c == nil {
		return
	}
	switch c.Type {
	case marathon.Docker:
		p.check(c.Docker != nil, "/container/docker", "not defined")
		p.check(a.GPUs == 0, "/", "GPU resources only work with the Mesos containerizer")
	case marathon.Mesos:
		p.check(c.AppC == nil || c.Docker == nil, "/container", "mesos containers should specify, at most, a single image type")
	default:
		p.add("/container/type", "error.unknown.enum.literal")
	}
	if d := c.Docker; d != nil {
		p.check(d.Image != "", "/container/docker/image", "must not be empty")
		if d.PullConfig != nil {
			text := "pullConfig is not supported with Docker containerizer"
			if c.Type == marathon.Mesos {
				text = notEnabled("secrets")
			}
			p.add("/container/docker/pullConfig", text)
		}
	}
	p.check(c.AppC == nil, "/container/appc", "AppC images are not supported, use container.docker.image")
	p.check(c.LinuxInfo == nil, "/container/linuxInfo", "linuxInfo is not supported")
	for i, v := range c.Volumes {
		path := at("/container/volumes", i)
		switch {
		case v.Persistent != nil:
			p.add(path, "persistent volumes are not supported by this version")
		case v.External != nil:
			p.add(path, notEnabled("external_volumes"))
		case v.Secret != "":
			p.add(path, notEnabled("secrets"))
		default:
			p.check(v.ContainerPath != "", path+"/containerPath", "must not be empty")
			p.check(v.HostPath != "", path+"/hostPath", "must not be empty")
			p.check(v.Mode == "RW" || v.Mode == "RO", path+"/mode", "error.unknown.enum.literal")
		}
	}
}

func checkHealth(a *marathon.App, p *Problems) {
	mesosChecks := 0
	docker := a.Container != nil && a.Container.Type == marathon.Docker
	for i, h := range a.HealthChecks {
		path := at("/healthChecks", i)
		switch h.Protocol {
		case marathon.HTTP, marathon.HTTPS, marathon.TCP, marathon.MesosHTTP, marathon.MesosHTTPS, marathon.MesosTCP:
			portOK := h.Port != nil || h.PortIndex != nil && *h.PortIndex >= 0 && *h.PortIndex < int64(portCount(a))
			p.check(portOK, path, "Health check port indices must address an element of the ports array or container port mappings.")
			p.check(h.Command == nil, path+"/command", "is only allowed with the COMMAND protocol")
			if h.ByAgentOnly() {
				mesosChecks++
			}
		case marathon.Command:
			p.check(h.Command != nil && h.Command.Value != "", path+"/command", "not defined")
			p.check(h.Path == nil, path+"/path", "must be empty")
			p.check(h.Port == nil && h.PortIndex == nil, path, "a COMMAND health check has no port")
		default:
			p.add(path+"/protocol", "error.unknown.enum.literal")
		}
		for _, n := range []struct {
			name string
			v    int64
		}{
			{"gracePeriodSeconds", h.GracePeriodSeconds}, {"maxConsecutiveFailures", h.MaxConsecutiveFailures},
			{"delaySeconds", h.DelaySeconds}, {"intervalSeconds", h.IntervalSeconds}, {"timeoutSeconds", h.TimeoutSeconds},
		} {
			p.check(n.v >= 0, path+"/"+n.name, fmt.Sprintf("got %d, expected 0 or more", n.v))
		}
		if h.Port != nil {
			p.check(*h.Port > 0 && *h.Port <= 65535, path+"/port", fmt.Sprintf("got %d, expected between 1 and 65535", *h.Port))
		}
		switch h.IPProtocol {
		case "IPv4":
		case "IPv6":
			p.check(docker && h.ByAgentOnly() && h.Protocol != marathon.Command, path,
				"IPv6 can only be used for container type DOCKER and Mesos http/https/tcp health checks")
		default:
			p.add(path+"/ipProtocol", "error.unknown.enum.literal")
		}
	}
	p.check(mesosChecks <= 1, "/", "AppDefinition can contain at most one Mesos health check")
}

func checkReadiness(a *marathon.App, p *Problems) {
	p.check(len(a.ReadinessChecks) <= 1, "/readinessChecks", fmt.Sprintf("got %d, expected 1 or less", len(a.ReadinessChecks)))
	names := PortNames(a)
	for i, r := range a.ReadinessChecks {
		path := at("/readinessChecks", i)
		p.check(slices.Contains(names, r.PortName), path+"/portName", "No port definition reference for portName "+r.PortName)
		p.check(r.TimeoutSeconds < r.IntervalSeconds, path+"/timeoutSeconds",
			fmt.Sprintf("got %d, expected less than %d", r.TimeoutSeconds, r.IntervalSeconds))
		p.check(r.TimeoutSeconds > 0, path+"/timeoutSeconds", fmt.Sprintf("got %d, expected 1 or more", r.TimeoutSeconds))
		p.check(r.Protocol == marathon.HTTP || r.Protocol == marathon.HTTPS, path+"/protocol", "error.unknown.enum.literal")
		p.check(strings.HasPrefix(r.Path, "/"), path+"/path", "must start with '/'")
	}
}

func checkScheduling(a *marathon.App, pol Policy, p *Problems) {
	if a.AcceptedResourceRoles != nil {
		p.check(len(a.AcceptedResourceRoles) > 0, "/acceptedResourceRoles", "must not be empty")
		for _, r := range a.AcceptedResourceRoles {
			p.check(r == "*" || r == pol.Role, "/acceptedResourceRoles",
				fmt.Sprintf("acceptedResourceRoles can only contain * and %s", pol.Role))
		}
	}
	for i, c := range a.Constraints {
		if text := placement.Check(c); text != "" {
			p.add(at("/constraints", i), text)
		}
	}
	if a.Labels[labelMigrationAPI] != "" {
		ok := a.Labels[labelMigrationAPI] == "v1" && a.Labels[labelFrameworkName] != "" && a.Labels[labelMigrationPath] != ""
		p.check(ok, "/", "DCOS_PACKAGE_FRAMEWORK_NAME and DCOS_MIGRATION_API_PATH must be defined when using DCOS_MIGRATION_API_VERSION")
	}
}

// checkRefused names what this orchestrator cannot do.
func checkRefused(a *marathon.App, p *Problems) {
	p.check(len(a.Secrets) == 0, "/secrets", notEnabled("secrets"))
	for name, v := range a.Env {
		p.check(v.Secret == "", "/env/"+name, notEnabled("secrets"))
	}
	p.check(a.Executor == "" || a.Executor == "//cmd", "/executor", "custom executors are not supported")
	p.check(blank(a.ExecutorResources), "/executorResources", "executorResources is not supported: tasks have no executor of their own")
	p.check(blank(a.Check), "/check", "check is not supported, use healthChecks")
	p.check(a.Residency == nil, "/residency", "residency is not supported: it belongs to persistent volumes")
}

// blank reports whether raw says nothing; null does.
func blank(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

func notEnabled(feature string) string {
	return fmt.Sprintf("Feature %s is not enabled. Enable with --enable_features %s)", feature, feature)
}

func at(path string, i int) string { return path + "(" + strconv.Itoa(i) + ")" }

// number writes v as Scala does: whole numbers with ".0".
func number(v float64) string {
	s := strconv.FormatFloat(v, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}
