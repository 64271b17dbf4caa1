// Package service holds the wire types of stateful services: the spec that
// says what a service is, read strictly from YAML or JSON, and the JSON of the
// API that tells how it fares (the one of the DC/OS SDK).
package service

// Spec describes one service. Keys and their meaning are those of the SDK's
// svc.yml, as far as both have them.
type Spec struct {
	// Name is the service's name, and its framework's; with slashes if it is in
	// a group ("prod/kafka").
	Name string `json:"name"`
	// User runs the tasks; the image's own if empty.
	User string `json:"user,omitempty"`
	// Requires names services that must stay while this one lives.
	Requires []string     `json:"requires,omitempty"`
	Pods     Ordered[Pod] `json:"pods"`
	// Plans without one called "deploy" get one: a phase per pod, in order.
	Plans Ordered[Plan] `json:"plans,omitempty"`
	// Templates are the texts that configs name.
	Templates map[string]string `json:"templates,omitempty"`
	// Secrets are values that tasks get and nobody is shown.
	Secrets     map[string]Secret `json:"secrets,omitempty"`
	Replacement *Replacement      `json:"replacement-failure-policy,omitempty"`
}

// Secret is a value, or how to make one.
type Secret struct {
	Value string `json:"value,omitempty"`
	// Generate makes a random text of so many characters when the service is
	// installed; it stays the same over updates.
	Generate int `json:"generate,omitempty"`
}

// Replacement says when an instance that cannot be reached is given up, in
// seconds.
type Replacement struct {
	// Timeout is how long an agent may be away before its instances are made
	// anew elsewhere, without their data. Nil: instances with volumes never
	// are, others after DefaultReplaceAfter.
	Timeout *int `json:"permanent-failure-timeout,omitempty"`
	// Pause is the least time between two such replacements.
	Pause int `json:"min-replace-delay,omitempty"`
}

// DefaultReplaceAfter is the time in seconds after which an instance without
// volumes is replaced if its agent cannot be reached.
const DefaultReplaceAfter = 300

// Pod is a kind of instance: tasks that share an agent, volumes and a
// reservation. Instances are numbered from 0.
type Pod struct {
	Count     int         `json:"count"`
	Image     string      `json:"image,omitempty"`
	User      string      `json:"user,omitempty"`
	Placement Constraints `json:"placement,omitempty"`
	// Network is NetworkHost or NetworkContainer.
	Network           string `json:"network,omitempty"`
	AllowDecommission bool   `json:"allow-decommission,omitempty"`
	// ShareVolumes lets several tasks of an instance use its volumes at once.
	ShareVolumes bool                  `json:"share-volumes,omitempty"`
	Volumes      Ordered[Volume]       `json:"volumes,omitempty"`
	Secrets      map[string]SecretFile `json:"secrets,omitempty"`
	Tasks        Ordered[Task]         `json:"tasks"`
}

// Networks of a pod.
const (
	NetworkHost      = "host"
	NetworkContainer = "container"
)

// SecretFile is how the tasks of a pod see a secret.
type SecretFile struct {
	// Secret names one of the spec's secrets; the key itself if empty.
	Secret string `json:"secret,omitempty"`
	EnvKey string `json:"env-key,omitempty"`
	File   string `json:"file,omitempty"` // absolute path in the container
}

// Volume is a persistent volume of each instance of a pod, mounted in every
// task of it.
type Volume struct {
	Path string `json:"path"` // in the container
	Size int    `json:"size"` // MiB
	Type string `json:"type,omitempty"`
}

// VolumeRoot is a volume on the agent's own disk.
const VolumeRoot = "ROOT"

// Goal is what a task is to reach.
type Goal string

// Goals.
const (
	Running Goal = "RUNNING" // runs for ever
	Once    Goal = "ONCE"    // runs to its end once for each instance and configuration
	Finish  Goal = "FINISH"  // runs to its end whenever a plan's step is reached
)

// Task is one process of a pod.
type Task struct {
	Goal Goal `json:"goal,omitempty"` // RUNNING if empty
	// Essential, the default, means that the failure of this task restarts all
	// tasks of its instance.
	Essential *bool  `json:"essential,omitempty"`
	Cmd       string `json:"cmd,omitempty"` // for /bin/sh -c; the image's entry point if empty
	User      string `json:"user,omitempty"`
	// CPUs, Memory (MiB) and Disk (MiB of sandbox) are reserved.
	CPUs      float64               `json:"cpus"`
	Memory    float64               `json:"memory"`
	Disk      float64               `json:"disk,omitempty"`
	GPUs      int                   `json:"gpus,omitempty"`
	Env       map[string]string     `json:"env,omitempty"`
	Ports     Ordered[Port]         `json:"ports,omitempty"`
	Configs   Ordered[Config]       `json:"configs,omitempty"`
	Health    *Check                `json:"health-check,omitempty"`
	Readiness *Check                `json:"readiness-check,omitempty"`
	KillGrace *int                  `json:"kill-grace-period,omitempty"` // seconds; 3 if nil
	TLS       []TransportEncryption `json:"transport-encryption,omitempty"`
	Labels    map[string]string     `json:"labels,omitempty"`
}

// IsEssential says whether the task's failure is its instance's.
func (t *Task) IsEssential() bool { return t.Essential == nil || *t.Essential }

// Port is a port that a task listens on.
type Port struct {
	Port      int    `json:"port"` // 0: one is chosen, and kept with the reservation
	EnvKey    string `json:"env-key,omitempty"`
	Advertise bool   `json:"advertise,omitempty"` // listed among the endpoints
	VIP       *VIP   `json:"vip,omitempty"`
}

// VIP is a stable address for a port of all instances:
// <prefix>.<service>.l4lb.thisdcos.directory:<port>.
type VIP struct {
	Prefix string `json:"prefix"`
	Port   int    `json:"port"`
}

// Config is a file rendered from a template over the task's environment.
type Config struct {
	Template string `json:"template"`
	Dest     string `json:"dest"` // absolute path in the container
}

// Check is a health or readiness check; exactly one of Cmd, TCP and HTTP.
// Times are in seconds. It runs on the task's agent, inside the container if
// it is a command.
type Check struct {
	Cmd     string     `json:"cmd,omitempty"`
	TCP     *TCPCheck  `json:"tcp,omitempty"`
	HTTP    *HTTPCheck `json:"http,omitempty"`
	Delay   float64    `json:"delay,omitempty"`
	Timeout float64    `json:"timeout,omitempty"` // 10 if 0
	// Interval is 10 if 0.
	Interval float64 `json:"interval,omitempty"`
	// Grace is for how long failures do not count; health checks only.
	Grace float64 `json:"grace-period,omitempty"`
	// Failures is how many in a row end the task; health checks only; 3 if 0.
	Failures int `json:"max-consecutive-failures,omitempty"`
}

// TCPCheck passes if the port accepts a connection.
type TCPCheck struct {
	Port string `json:"port"` // name of one of the task's ports
}

// HTTPCheck passes if the answer's status is 200 to 399.
type HTTPCheck struct {
	Port  string `json:"port"`
	Path  string `json:"path,omitempty"`
	HTTPS bool   `json:"https,omitempty"`
}

// TransportEncryption gives a task a key and a certificate of the cluster's CA.
type TransportEncryption struct {
	Name string `json:"name"`
	Type string `json:"type"`
	// Dir is where the files are, absolute; /etc/tls if empty.
	Dir string `json:"dir,omitempty"`
}

// Forms of transport encryption.
const (
	TLS      = "TLS"      // <name>.crt, <name>.key, <name>.ca in PEM
	Keystore = "KEYSTORE" // <name>.keystore, <name>.truststore in PKCS #12, password in <name>.password
)

// Plan is work in phases.
type Plan struct {
	Strategy string         `json:"strategy,omitempty"`
	Phases   Ordered[Phase] `json:"phases"`
}

// Phase is work on the instances of one pod.
type Phase struct {
	Pod      string `json:"pod"`
	Strategy string `json:"strategy,omitempty"`
	Steps    Steps  `json:"steps,omitempty"` // without: one step per instance with all its tasks
}

// Steps is a list of steps.
type Steps []Step

// EveryInstance as the Instance of a Step stands for every instance that no
// other step of the phase names ("default").
const EveryInstance = -1

// Step starts tasks of an instance together. In YAML it is [0, [broker]],
// [default, [broker]] or {default: [[format], [broker]]}.
type Step struct {
	Instance int
	Tasks    []string
}

// Constraints are placement rules in Marathon's form:
// [["hostname","UNIQUE"],["@zone","GROUP_BY","3"]]; also as a text that holds
// such JSON.
type Constraints [][]string
