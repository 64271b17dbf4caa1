// Package marathon is the wire schema of Marathon's v2 API: JSON names,
// defaults and shapes, and the strict reading of what clients send. It knows
// no rules between fields; those are orchestrator/spec's.
package marathon

import (
	"bytes"
	"encoding/json"
	"strconv"
)

// App is an app as clients write it and as the API shows it. Fields that only
// older clients write (uris, ports, ipAddress, container.docker.network …) are
// empty in a canonical App.
type App struct {
	ID                         string               `json:"id"`
	AcceptedResourceRoles      []string             `json:"acceptedResourceRoles,omitempty"`
	Args                       []string             `json:"args,omitempty"`
	BackoffFactor              float64              `json:"backoffFactor"`
	BackoffSeconds             int64                `json:"backoffSeconds"`
	Check                      json.RawMessage      `json:"check,omitempty"`
	Cmd                        *string              `json:"cmd,omitempty"`
	Constraints                [][]string           `json:"constraints,omitempty"`
	Container                  *Container           `json:"container,omitempty"`
	CPUs                       float64              `json:"cpus"`
	Dependencies               []string             `json:"dependencies,omitempty"`
	Disk                       float64              `json:"disk"` // MB
	Env                        map[string]EnvValue  `json:"env,omitempty"`
	Executor                   string               `json:"executor"`
	ExecutorResources          json.RawMessage      `json:"executorResources,omitempty"`
	Fetch                      []Fetch              `json:"fetch,omitempty"`
	GPUs                       int64                `json:"gpus"`
	HealthChecks               []HealthCheck        `json:"healthChecks,omitempty"`
	Instances                  int64                `json:"instances"`
	IPAddress                  *IPAddress           `json:"ipAddress,omitempty"` // deprecated
	KillSelection              string               `json:"killSelection"`
	Labels                     map[string]string    `json:"labels"`
	MaxLaunchDelaySeconds      int64                `json:"maxLaunchDelaySeconds"`
	Mem                        float64              `json:"mem"` // MB
	Networks                   []Network            `json:"networks"`
	PortDefinitions            []PortDefinition     `json:"portDefinitions,omitempty"`
	Ports                      []int64              `json:"ports,omitempty"` // deprecated
	ReadinessChecks            []ReadinessCheck     `json:"readinessChecks,omitempty"`
	RequirePorts               bool                 `json:"requirePorts"`
	Residency                  *Residency           `json:"residency,omitempty"`
	ResourceLimits             *ResourceLimits      `json:"resourceLimits,omitempty"`
	Role                       string               `json:"role,omitempty"`
	Secrets                    map[string]Secret    `json:"secrets,omitempty"`
	StoreURLs                  []string             `json:"storeUrls,omitempty"` // deprecated
	TaskKillGracePeriodSeconds *int64               `json:"taskKillGracePeriodSeconds,omitempty"`
	TTY                        *bool                `json:"tty,omitempty"`
	UnreachableStrategy        *UnreachableStrategy `json:"unreachableStrategy,omitempty"`
	UpgradeStrategy            *UpgradeStrategy     `json:"upgradeStrategy,omitempty"`
	URIs                       []string             `json:"uris,omitempty"` // deprecated
	User                       *string              `json:"user,omitempty"`
	Version                    string               `json:"version,omitempty"`
	VersionInfo                *VersionInfo         `json:"versionInfo,omitempty"`
}

// NewApp returns an App with the defaults of the fields that have one by
// themselves.
func NewApp() *App {
	return &App{
		BackoffFactor: 1.15, BackoffSeconds: 1, CPUs: 1, Mem: 128, Instances: 1,
		KillSelection: YoungestFirst, MaxLaunchDelaySeconds: 300,
	}
}

// Kill selections.
const (
	YoungestFirst = "YOUNGEST_FIRST"
	OldestFirst   = "OLDEST_FIRST"
)

// VersionInfo tells when an app was scaled and when reconfigured last.
type VersionInfo struct {
	LastScalingAt      string `json:"lastScalingAt"`
	LastConfigChangeAt string `json:"lastConfigChangeAt"`
}

// EnvValue is a value, or a reference to a secret.
type EnvValue struct {
	Value  string
	Secret string // name in App.Secrets; "" for a plain value
}

// MarshalJSON writes a string or {"secret": name}.
func (v EnvValue) MarshalJSON() ([]byte, error) {
	if v.Secret != "" {
		return json.Marshal(map[string]string{"secret": v.Secret})
	}
	return json.Marshal(v.Value)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (v *EnvValue) UnmarshalJSON(b []byte) error {
	if bytes.HasPrefix(b, []byte("{")) {
		var ref struct{ Secret string }
		if err := json.Unmarshal(b, &ref); err != nil {
			return err
		}
		*v = EnvValue{Secret: ref.Secret}
		return nil
	}
	*v = EnvValue{}
	return json.Unmarshal(b, &v.Value)
}

// CheckJSON implements checker.
func (EnvValue) CheckJSON(v any) string {
	switch v := v.(type) {
	case string:
		return ""
	case map[string]any:
		if _, ok := v["secret"].(string); ok {
			return ""
		}
	}
	return expectedString
}

// Secret names a value in the secret store.
type Secret struct {
	Source string `json:"source" need:"true"`
}

// Fetch is a file to put into the sandbox.
type Fetch struct {
	URI        string `json:"uri" need:"true"`
	Extract    bool   `json:"extract"`
	Executable bool   `json:"executable"`
	Cache      bool   `json:"cache"`
	DestPath   string `json:"destPath,omitempty"`
}

// UnmarshalJSON reads f over its defaults.
func (f *Fetch) UnmarshalJSON(b []byte) error {
	type plain Fetch
	d := plain{Extract: true}
	err := json.Unmarshal(b, &d)
	*f = Fetch(d)
	return err
}

// Network modes.
const (
	ModeHost      = "host"
	ModeBridge    = "container/bridge"
	ModeContainer = "container"
)

// Network is one network of an app.
type Network struct {
	Labels map[string]string `json:"labels,omitempty"`
	Mode   string            `json:"mode"`
	Name   string            `json:"name,omitempty"`
}

// UnmarshalJSON reads n over its defaults.
func (n *Network) UnmarshalJSON(b []byte) error {
	type plain Network
	d := plain{Mode: ModeContainer}
	err := json.Unmarshal(b, &d)
	*n = Network(d)
	return err
}

// PortDefinition is a port of an app in host mode.
type PortDefinition struct {
	Labels   map[string]string `json:"labels,omitempty"`
	Name     string            `json:"name,omitempty"`
	Port     int64             `json:"port"`
	Protocol string            `json:"protocol"`
}

// UnmarshalJSON reads p over its defaults.
func (p *PortDefinition) UnmarshalJSON(b []byte) error {
	type plain PortDefinition
	d := plain{Protocol: "tcp"}
	err := json.Unmarshal(b, &d)
	*p = PortDefinition(d)
	return err
}

// PortMapping is a port of an app on a bridge or container network.
type PortMapping struct {
	ContainerPort int64             `json:"containerPort"`
	HostPort      *int64            `json:"hostPort,omitempty"` // nil: none; 0: any
	Labels        map[string]string `json:"labels,omitempty"`
	Name          string            `json:"name,omitempty"`
	NetworkNames  []string          `json:"networkNames,omitempty"`
	Protocol      string            `json:"protocol"`
	ServicePort   int64             `json:"servicePort"`
}

// UnmarshalJSON reads p over its defaults.
func (p *PortMapping) UnmarshalJSON(b []byte) error {
	type plain PortMapping
	d := plain{Protocol: "tcp"}
	err := json.Unmarshal(b, &d)
	*p = PortMapping(d)
	return err
}

// Container types.
const (
	Docker = "DOCKER"
	Mesos  = "MESOS"
)

// Container is how an app is contained. PortMappings nil means the default
// mapping, empty means none.
type Container struct {
	Docker       *DockerContainer `json:"docker,omitempty"`
	AppC         json.RawMessage  `json:"appc,omitempty"` // always refused
	LinuxInfo    json.RawMessage  `json:"linuxInfo,omitempty"`
	PortMappings []PortMapping    `json:"portMappings,omitzero"`
	Type         string           `json:"type"`
	Volumes      []Volume         `json:"volumes"`
}

// UnmarshalJSON reads c over its defaults.
func (c *Container) UnmarshalJSON(b []byte) error {
	type plain Container
	d := plain{Type: Docker, Volumes: []Volume{}}
	err := json.Unmarshal(b, &d)
	*c = Container(d)
	return err
}

// DockerContainer is the image part of a Container.
type DockerContainer struct {
	Credential     json.RawMessage `json:"credential,omitempty"` // deprecated
	ForcePullImage bool            `json:"forcePullImage"`
	Image          string          `json:"image" need:"true"`
	Network        string          `json:"network,omitempty"` // deprecated
	Parameters     []Parameter     `json:"parameters"`
	PortMappings   []PortMapping   `json:"portMappings,omitzero"` // deprecated
	Privileged     bool            `json:"privileged"`
	PullConfig     json.RawMessage `json:"pullConfig,omitempty"`
}

// UnmarshalJSON reads d over its defaults.
func (d *DockerContainer) UnmarshalJSON(b []byte) error {
	type plain DockerContainer
	v := plain{Parameters: []Parameter{}}
	err := json.Unmarshal(b, &v)
	*d = DockerContainer(v)
	return err
}

// Parameter is an option of the container engine.
type Parameter struct {
	Key   string `json:"key" need:"true"`
	Value string `json:"value" need:"true"`
}

// Volume is one of: host (hostPath), persistent, external, secret.
type Volume struct {
	ContainerPath string          `json:"containerPath"`
	External      json.RawMessage `json:"external,omitempty"`
	HostPath      string          `json:"hostPath,omitempty"`
	Mode          string          `json:"mode,omitempty"`
	Persistent    json.RawMessage `json:"persistent,omitempty"`
	Secret        string          `json:"secret,omitempty"`
}

// UpgradeStrategy bounds a rolling restart, as fractions of instances.
type UpgradeStrategy struct {
	MaximumOverCapacity   float64 `json:"maximumOverCapacity"`
	MinimumHealthCapacity float64 `json:"minimumHealthCapacity"`
}

// UnmarshalJSON reads u over its defaults.
func (u *UpgradeStrategy) UnmarshalJSON(b []byte) error {
	type plain UpgradeStrategy
	d := plain{1, 1}
	err := json.Unmarshal(b, &d)
	*u = UpgradeStrategy(d)
	return err
}

// UnreachableStrategy says when an instance on a lost agent is replaced and
// when it is given up.
type UnreachableStrategy struct {
	Disabled             bool
	InactiveAfterSeconds int64
	ExpungeAfterSeconds  int64
}

type unreachableFields struct {
	InactiveAfterSeconds int64 `json:"inactiveAfterSeconds"`
	ExpungeAfterSeconds  int64 `json:"expungeAfterSeconds"`
}

// MarshalJSON writes "disabled" or an object.
func (u UnreachableStrategy) MarshalJSON() ([]byte, error) {
	if u.Disabled {
		return []byte(`"disabled"`), nil
	}
	return json.Marshal(unreachableFields{u.InactiveAfterSeconds, u.ExpungeAfterSeconds})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (u *UnreachableStrategy) UnmarshalJSON(b []byte) error {
	if bytes.HasPrefix(b, []byte(`"`)) {
		*u = UnreachableStrategy{Disabled: true}
		return nil
	}
	var f unreachableFields
	err := json.Unmarshal(b, &f)
	*u = UnreachableStrategy{InactiveAfterSeconds: f.InactiveAfterSeconds, ExpungeAfterSeconds: f.ExpungeAfterSeconds}
	return err
}

// CheckJSON implements checker.
func (UnreachableStrategy) CheckJSON(v any) string {
	switch v := v.(type) {
	case string:
		if v == "disabled" {
			return ""
		}
	case map[string]any:
		for _, k := range []string{"inactiveAfterSeconds", "expungeAfterSeconds"} {
			n, given := v[k]
			if !given {
				continue
			}
			num, ok := n.(json.Number)
			if !ok {
				return expectedNumber
			}
			if _, err := num.Int64(); err != nil {
				return expectedInt
			}
		}
		return ""
	}
	return expectedObject
}

// Residency belongs to apps with persistent volumes.
type Residency struct {
	RelaunchEscalationTimeoutSeconds int64  `json:"relaunchEscalationTimeoutSeconds"`
	TaskLostBehavior                 string `json:"taskLostBehavior"`
}

// Limit is a resource limit: a number, or unlimited.
type Limit struct {
	Unlimited bool
	Value     float64
}

// MarshalJSON writes a number or "unlimited".
func (l Limit) MarshalJSON() ([]byte, error) {
	if l.Unlimited {
		return []byte(`"unlimited"`), nil
	}
	return strconv.AppendFloat(nil, l.Value, 'g', -1, 64), nil
}

// UnmarshalJSON reads what MarshalJSON writes.
func (l *Limit) UnmarshalJSON(b []byte) error {
	if bytes.HasPrefix(b, []byte(`"`)) {
		*l = Limit{Unlimited: true}
		return nil
	}
	*l = Limit{}
	return json.Unmarshal(b, &l.Value)
}

// CheckJSON implements checker.
func (Limit) CheckJSON(v any) string {
	switch v := v.(type) {
	case json.Number:
		return ""
	case string:
		if v == "unlimited" {
			return ""
		}
	}
	return expectedNumber
}

// ResourceLimits lets tasks use more than they asked for.
type ResourceLimits struct {
	CPUs *Limit `json:"cpus,omitempty"`
	Mem  *Limit `json:"mem,omitempty"`
}

// IPAddress is the deprecated form of a container network.
type IPAddress struct {
	Discovery   *IPDiscovery      `json:"discovery,omitempty"`
	Groups      []string          `json:"groups,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	NetworkName string            `json:"networkName,omitempty"`
}

// IPDiscovery lists the ports of an IPAddress.
type IPDiscovery struct {
	Ports []DiscoveryPort `json:"ports,omitempty"`
}

// DiscoveryPort is one port of an IPDiscovery.
type DiscoveryPort struct {
	Labels   map[string]string `json:"labels,omitempty"`
	Name     string            `json:"name" need:"true"`
	Number   int64             `json:"number" need:"true"`
	Protocol string            `json:"protocol"`
}
