package service

import "encoding/json"

// Status is how a service fares as a whole.
type Status string

// The states of a service.
const (
	StatusRunning      Status = "RUNNING"
	StatusDeploying    Status = "DEPLOYING"
	StatusUpdating     Status = "UPDATING"
	StatusUninstalling Status = "UNINSTALLING"
	StatusError        Status = "ERROR"
)

// Package is the package a service was installed from.
type Package struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	// Definition and Options are the catalog's own; the operator keeps them.
	Definition json.RawMessage   `json:"definition,omitempty"`
	Options    json.RawMessage   `json:"options,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
}

// Request installs or updates a service: PUT /services/{name}, POST
// /services/check.
type Request struct {
	// Spec as JSON or, in a text, as YAML. Objects whose order matters must not
	// pass through a map on their way here.
	Spec    json.RawMessage `json:"spec"`
	Package Package         `json:"package"`
	// Force installs what the cluster has no room for now, and updates although
	// an update is under way.
	Force bool `json:"force,omitempty"`
}

// ErrorBody is the answer to what cannot be done.
type ErrorBody struct {
	Message string    `json:"message"`
	Errors  []Problem `json:"errors,omitempty"`
}

// List is the answer of GET /services/.
type List struct {
	Services []Summary `json:"services"`
}

// Summary is a service in a list.
type Summary struct {
	ID      string         `json:"id"` // "/" + name
	Name    string         `json:"name"`
	Package PackageVersion `json:"package"`
	Status  Status         `json:"status"`
	// Message says why, if the status is ERROR or nothing happens although
	// something should.
	Message string       `json:"message,omitempty"`
	Pods    []PodSummary `json:"pods"`
}

// PackageVersion names a package.
type PackageVersion struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// PodSummary counts the instances of a pod.
type PodSummary struct {
	Name    string `json:"name"`
	Count   int    `json:"count"`   // wanted
	Running int    `json:"running"` // with all tasks up
	Ready   int    `json:"ready"`   // and serving, as far as checks tell
}

// Detail is the answer of GET and PUT /services/{name}. Values of secrets are
// left out.
type Detail struct {
	Summary
	Package     Package `json:"package"`
	Spec        *Spec   `json:"spec"` // of the target configuration
	TargetID    string  `json:"targetId"`
	FrameworkID string  `json:"frameworkId,omitempty"`
	Role        string  `json:"role"`
}

// PlanStatus is the state of a plan, phase or step.
type PlanStatus string

// The states, as in the SDK.
const (
	Error      PlanStatus = "ERROR"       // cannot go on without a change
	Waiting    PlanStatus = "WAITING"     // interrupted, or a canary: until somebody continues
	Pending    PlanStatus = "PENDING"     // not begun
	Prepared   PlanStatus = "PREPARED"    // waits for offers, or for what runs to end
	Starting   PlanStatus = "STARTING"    // launched
	Started    PlanStatus = "STARTED"     // runs, and is not ready yet
	Complete   PlanStatus = "COMPLETE"    // done
	InProgress PlanStatus = "IN_PROGRESS" // some of its parts are done or begun
	Delayed    PlanStatus = "DELAYED"     // failed before, and waits to be tried again
)

// Plans is the answer of GET /v1/plans.
type Plans []string

// PlanInfo is the answer of GET /v1/plans/{plan}.
type PlanInfo struct {
	Name     string      `json:"name,omitempty"`
	Phases   []PhaseInfo `json:"phases"`
	Errors   []string    `json:"errors"`
	Status   PlanStatus  `json:"status"`
	Strategy string      `json:"strategy"`
}

// PhaseInfo is a phase of a plan.
type PhaseInfo struct {
	ID       string     `json:"id"`
	Name     string     `json:"name"`
	Steps    []StepInfo `json:"steps"`
	Strategy string     `json:"strategy"`
	Status   PlanStatus `json:"status"`
}

// StepInfo is a step of a phase.
type StepInfo struct {
	ID      string     `json:"id"`
	Name    string     `json:"name"` // "kafka-0:[broker]"
	Status  PlanStatus `json:"status"`
	Message string     `json:"message,omitempty"`
}

// CommandResult answers what was told to a plan.
type CommandResult struct {
	Message string `json:"message"`
}

// PodResult answers what was told to an instance of a pod.
type PodResult struct {
	Pod   string   `json:"pod"`
	Tasks []string `json:"tasks"`
}

// PodsStatus is the answer of GET /v1/pod/status.
type PodsStatus struct {
	Service string      `json:"service"`
	Pods    []PodStatus `json:"pods"`
}

// PodStatus is a pod with its instances.
type PodStatus struct {
	Name      string           `json:"name"`
	Instances []InstanceStatus `json:"instances"`
}

// InstanceStatus is the answer of GET /v1/pod/{instance}/status.
type InstanceStatus struct {
	Name  string       `json:"name"` // "kafka-0"
	Tasks []TaskStatus `json:"tasks"`
	// Agent and host where the instance has its reservation.
	Agent string `json:"agent,omitempty"`
	Host  string `json:"host,omitempty"`
}

// TaskStatus is a task as the operator sees it.
type TaskStatus struct {
	Name   string `json:"name"` // "kafka-0-broker"
	ID     string `json:"id"`   // the Mesos task id, "" before the first launch
	Status string `json:"status"`
	Ready  bool   `json:"ready"`
	// ConfigID is the configuration it was launched with.
	ConfigID string `json:"configId,omitempty"`
	Message  string `json:"message,omitempty"`
}

// States of a task beside those of Mesos without "TASK_".
const (
	TaskPaused  = "PAUSED"
	TaskPausing = "PAUSING"
	TaskNone    = "PENDING" // never launched
)

// TaskInfo is an element of the answer of GET /v1/pod/{instance}/info: the
// task as launched and its last status, both as Mesos writes them, values of
// secrets left out.
type TaskInfo struct {
	Info   json.RawMessage `json:"info,omitempty"`
	Status json.RawMessage `json:"status,omitempty"`
}

// Endpoint is the answer of GET /v1/endpoints/{name}.
type Endpoint struct {
	Address []string `json:"address"` // "10.0.0.1:9092"
	DNS     []string `json:"dns"`     // "kafka-0-broker.kafka.autoip.dcos.thisdcos.directory:9092"
	VIP     string   `json:"vip,omitempty"`
}

// Health is the answer of GET /v1/health: Status is RUNNING when all is well.
type Health struct {
	Status  Status `json:"status"`
	Message string `json:"message,omitempty"`
}

// OfferOutcome is what became of an offer: an element of GET /v1/debug/offers.
type OfferOutcome struct {
	Time    string        `json:"timestamp"`
	OfferID string        `json:"offer-id"`
	Agent   string        `json:"agent-id"`
	Host    string        `json:"hostname"`
	Pod     string        `json:"pod-instance-name"`
	Outcome string        `json:"outcome"` // "pass" or "fail"
	Offered string        `json:"offer"`   // its resources
	Reasons []OfferReason `json:"explanation"`
}

// OfferReason is one thing looked at in an offer.
type OfferReason struct {
	Passes bool   `json:"passes"`
	Name   string `json:"name"` // "cpus", "placement"
	Reason string `json:"reason"`
}

// DebugOffers is the answer of GET /v1/debug/offers.
type DebugOffers struct {
	Outcomes []OfferOutcome `json:"outcomes"`
	// Rejections counts failed offers by what failed first.
	Rejections map[string]int `json:"rejected"`
}

// DebugReservation is an element of GET /v1/debug/reservations.
type DebugReservation struct {
	Pod         string   `json:"pod"` // "" for what is being given back
	Agent       string   `json:"agent"`
	Host        string   `json:"host"`
	Reservation string   `json:"reservation"`
	Volumes     []string `json:"volumes,omitempty"`
	Resources   string   `json:"resources"`
	Note        string   `json:"note,omitempty"`
}

// DebugPlan is an element of GET /v1/debug/plans: why nothing happens.
type DebugPlan struct {
	Plan    string     `json:"plan"`
	Phase   string     `json:"phase"`
	Step    string     `json:"step"`
	Status  PlanStatus `json:"status"`
	Message string     `json:"message,omitempty"`
}
