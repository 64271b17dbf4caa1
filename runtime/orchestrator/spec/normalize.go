package spec

import (
	"net/url"
	"strings"

	"dcos.example/dcos/runtime/api/marathon"
)

// Policy is what the cluster's operator decided for all apps.
type Policy struct {
	Role           string // role of the framework
	DefaultNetwork string // name of a container network that names none; "" for none
}

// extracted are the ends of file names that the deprecated uris unpack.
var extracted = []string{".tar", ".tar.gz", ".tar.bz2", ".tar.xz", ".gz", ".tgz", ".tbz2", ".txz", ".zip"}

// checkDeprecated checks the fields that only older clients write.
func checkDeprecated(a *marathon.App, p *Problems) {
	nonZero := make(map[int64]bool)
	for _, port := range a.Ports {
		if port != 0 && nonZero[port] {
			p.add("/", "ports must be unique")
			break
		}
		nonZero[port] = true
	}
	for _, u := range a.URIs {
		if _, err := url.Parse(u); err != nil || u == "" {
			p.add("/uris", "URI has invalid syntax.")
		}
	}
	p.check(len(a.URIs) == 0 || len(a.Fetch) == 0, "/uris", "may not be set in conjunction with fetch")
	p.check(len(a.StoreURLs) == 0, "/storeUrls", "storeUrls is no longer supported, use fetch")
	c := a.Container
	if ip := a.IPAddress; ip != nil {
		p.check(len(a.Networks) == 0, "/", "must not specify both networks and ipAddress")
		p.check(len(a.Ports) == 0 && len(a.PortDefinitions) == 0, "/", "cannot specify both an IP address and port")
		p.check(c == nil || c.Type != marathon.Docker || ip.Discovery == nil, "/ipAddress",
			"ipAddress/discovery is not allowed for Docker containers")
	}
	if len(a.Ports) > 0 && len(a.PortDefinitions) > 0 {
		same := len(a.Ports) == len(a.PortDefinitions)
		for i := 0; same && i < len(a.Ports); i++ {
			same = a.Ports[i] == a.PortDefinitions[i].Port
		}
		p.check(same, "/", "cannot specify both ports and port definitions")
	}
	if c == nil || c.Docker == nil {
		return
	}
	d := c.Docker
	p.check(d.Credential == nil, "/container/docker/credential", "must be empty")
	p.check(d.Network == "" || len(a.Networks) == 0, "/", "must not specify both container.docker.network and networks")
	p.check(d.PortMappings == nil || c.PortMappings == nil, "/container",
		"cannot specify both container.docker.portMappings and container.portMappings")
	if c.Type == marathon.Mesos {
		p.check(d.Network == "", "/container/docker/network", "must be empty")
		p.check(len(d.Parameters) == 0, "/container/docker/parameters", "must be empty")
		p.check(len(d.PortMappings) == 0, "/container/docker/portMappings", "must be empty")
		return
	}
	switch d.Network {
	case "", "HOST", "BRIDGE", "USER":
	case "NONE":
		p.add("/container/docker/network", "unsupported docker network type NONE")
	default:
		p.add("/container/docker/network", "error.unknown.enum.literal")
	}
}

// normalize brings a, which passed checkDeprecated, to canonical form.
func normalize(a *marathon.App, pol Policy) {
	normalizeNetworks(a, pol)
	normalizePorts(a)
	for _, u := range a.URIs {
		f := marathon.Fetch{URI: u}
		path := u
		if parsed, err := url.Parse(u); err == nil && parsed.Path != "" {
			path = parsed.Path
		}
		for _, end := range extracted {
			f.Extract = f.Extract || strings.HasSuffix(path, end)
		}
		a.Fetch = append(a.Fetch, f)
	}
	a.URIs, a.Ports, a.IPAddress, a.StoreURLs = nil, nil, nil, nil
	for i := range a.HealthChecks {
		h := &a.HealthChecks[i]
		if h.Protocol != marathon.Command && h.Port == nil && h.PortIndex == nil && portCount(a) > 0 {
			h.PortIndex = new(int64)
		}
	}
	for i, c := range a.Constraints {
		if len(c) > 1 {
			a.Constraints[i][1] = strings.ToUpper(c[1])
		}
	}
	if a.Labels == nil {
		a.Labels = map[string]string{}
	}
	if a.UpgradeStrategy == nil {
		a.UpgradeStrategy = &marathon.UpgradeStrategy{MaximumOverCapacity: 1, MinimumHealthCapacity: 1}
	}
	if a.UnreachableStrategy == nil {
		a.UnreachableStrategy = &marathon.UnreachableStrategy{}
	}
	if a.Role == "" {
		a.Role = pol.Role
	}
	if a.Container != nil {
		for i := range a.Container.Volumes {
			if v := &a.Container.Volumes[i]; v.Mode == "" {
				v.Mode = "RW"
			}
		}
	}
	dropEmpty(a)
}

// dropEmpty makes absent what says nothing, so that equal apps are equal.
func dropEmpty(a *marathon.App) {
	if len(a.Args) == 0 {
		a.Args = nil
	}
	if len(a.Constraints) == 0 {
		a.Constraints = nil
	}
	if len(a.Dependencies) == 0 {
		a.Dependencies = nil
	}
	if len(a.Env) == 0 {
		a.Env = nil
	}
	if len(a.Fetch) == 0 {
		a.Fetch = nil
	}
	if len(a.HealthChecks) == 0 {
		a.HealthChecks = nil
	}
	if len(a.ReadinessChecks) == 0 {
		a.ReadinessChecks = nil
	}
	if len(a.Secrets) == 0 {
		a.Secrets = nil
	}
	if a.User != nil && *a.User == "" {
		a.User = nil
	}
}

func normalizeNetworks(a *marathon.App, pol Policy) {
	c := a.Container
	switch {
	case len(a.Networks) > 0:
	case a.IPAddress != nil:
		n := marathon.Network{Mode: marathon.ModeContainer, Name: a.IPAddress.NetworkName, Labels: a.IPAddress.Labels}
		if c != nil && c.Type == marathon.Docker && c.Docker != nil && c.Docker.Network == "BRIDGE" {
			n = marathon.Network{Mode: marathon.ModeBridge, Labels: n.Labels}
		}
		a.Networks = []marathon.Network{n}
		if d := a.IPAddress.Discovery; d != nil && len(d.Ports) > 0 {
			if c == nil {
				c = &marathon.Container{Type: marathon.Mesos, Volumes: []marathon.Volume{}}
				a.Container = c
			}
			for _, dp := range d.Ports {
				if dp.Protocol == "" {
					dp.Protocol = "tcp"
				}
				c.PortMappings = append(c.PortMappings, marathon.PortMapping{
					ContainerPort: dp.Number, Name: dp.Name, Protocol: dp.Protocol, Labels: dp.Labels,
				})
			}
		}
	case c != nil && c.Docker != nil && c.Docker.Network == "BRIDGE":
		a.Networks = []marathon.Network{{Mode: marathon.ModeBridge}}
	case c != nil && c.Docker != nil && c.Docker.Network == "USER":
		a.Networks = []marathon.Network{{Mode: marathon.ModeContainer}}
	default:
		a.Networks = []marathon.Network{{Mode: marathon.ModeHost}}
	}
	for i := range a.Networks {
		if n := &a.Networks[i]; n.Mode == marathon.ModeContainer && n.Name == "" {
			n.Name = pol.DefaultNetwork
		}
	}
}

func normalizePorts(a *marathon.App) {
	c := a.Container
	if c != nil && c.Docker != nil {
		if c.PortMappings == nil && c.Docker.PortMappings != nil {
			c.PortMappings = c.Docker.PortMappings
		}
		c.Docker.PortMappings, c.Docker.Network = nil, ""
	}
	if OnHost(a) {
		// Old clients send an empty list of mappings beside a host network.
		if c != nil && len(c.PortMappings) == 0 {
			c.PortMappings = nil
		}
		if a.PortDefinitions == nil && a.Ports != nil {
			a.PortDefinitions = []marathon.PortDefinition{}
			for _, p := range a.Ports {
				a.PortDefinitions = append(a.PortDefinitions, marathon.PortDefinition{Port: p, Protocol: "tcp"})
			}
		}
		if a.PortDefinitions == nil {
			a.PortDefinitions = []marathon.PortDefinition{{Protocol: "tcp", Name: "default"}}
		}
		return
	}
	if len(a.PortDefinitions) == 0 {
		a.PortDefinitions = nil
	}
	a.RequirePorts = false
	if c == nil {
		c = &marathon.Container{Type: marathon.Mesos, Volumes: []marathon.Volume{}}
		a.Container = c
	}
	if c.PortMappings == nil {
		m := marathon.PortMapping{Name: "default", Protocol: "tcp"}
		// Service ports of an old definition survive as those of its mappings.
		for i, p := range a.Ports {
			if i == 0 {
				m.ServicePort = p
			}
		}
		c.PortMappings = []marathon.PortMapping{m}
	} else {
		for i := range c.PortMappings {
			if i < len(a.Ports) && c.PortMappings[i].ServicePort == 0 {
				c.PortMappings[i].ServicePort = a.Ports[i]
			}
		}
	}
	for i := range c.PortMappings {
		if m := &c.PortMappings[i]; m.HostPort == nil && a.Networks[0].Mode == marathon.ModeBridge {
			m.HostPort = new(int64)
		}
	}
}

// OnHost reports whether a's tasks share the agent's network.
func OnHost(a *marathon.App) bool {
	return len(a.Networks) == 0 || a.Networks[0].Mode == marathon.ModeHost
}

func portCount(a *marathon.App) int {
	if OnHost(a) {
		return len(a.PortDefinitions)
	}
	if a.Container == nil {
		return 0
	}
	return len(a.Container.PortMappings)
}

// PortNames lists a's port names, "" for a port without.
func PortNames(a *marathon.App) []string {
	names := make([]string, 0, 4)
	if OnHost(a) {
		for _, d := range a.PortDefinitions {
			names = append(names, d.Name)
		}
	} else if a.Container != nil {
		for _, m := range a.Container.PortMappings {
			names = append(names, m.Name)
		}
	}
	return names
}
