package marathon

import (
	"encoding/json"
	"time"
)

// TimeFormat is how the API writes times: UTC with milliseconds.
const TimeFormat = "2006-01-02T15:04:05.000Z"

// Time writes t as the API does.
func Time(t time.Time) string { return t.UTC().Format(TimeFormat) }

// ParseTime reads a time of the API.
func ParseTime(s string) (time.Time, error) { return time.Parse(time.RFC3339Nano, s) }

// DeploymentRef names a deployment.
type DeploymentRef struct {
	ID string `json:"id"`
}

// AppInfo is an App with what is known of its instances. A nil part was not
// asked for.
type AppInfo struct {
	App
	TasksStaged           *int               `json:"tasksStaged,omitempty"`
	TasksRunning          *int               `json:"tasksRunning,omitempty"`
	TasksHealthy          *int               `json:"tasksHealthy,omitempty"`
	TasksUnhealthy        *int               `json:"tasksUnhealthy,omitempty"`
	Deployments           []DeploymentRef    `json:"deployments,omitzero"`
	Tasks                 []Task             `json:"tasks,omitzero"`
	LastTaskFailure       *TaskFailure       `json:"lastTaskFailure,omitempty"`
	ReadinessCheckResults []ReadinessResult  `json:"readinessCheckResults,omitzero"`
	TaskStats             *TaskStatsByFilter `json:"taskStats,omitempty"`
}

// TaskFailure is the last failure of an app's task.
type TaskFailure struct {
	AppID     string `json:"appId"`
	Host      string `json:"host"`
	Message   string `json:"message"`
	State     string `json:"state"`
	TaskID    string `json:"taskId"`
	Timestamp string `json:"timestamp"`
	Version   string `json:"version"`
	SlaveID   string `json:"slaveId"`
}

// Task is a task of an app.
type Task struct {
	AppID              string         `json:"appId"`
	CheckResult        *struct{}      `json:"checkResult,omitempty"`
	HealthCheckResults []HealthResult `json:"healthCheckResults,omitempty"`
	Host               string         `json:"host"`
	ID                 string         `json:"id"`
	IPAddresses        []TaskAddress  `json:"ipAddresses"`
	Ports              []int64        `json:"ports"`
	Region             string         `json:"region,omitempty"`
	Role               string         `json:"role,omitempty"`
	ServicePorts       []int64        `json:"servicePorts,omitzero"`
	SlaveID            string         `json:"slaveId"`
	StagedAt           string         `json:"stagedAt"`
	StartedAt          string         `json:"startedAt,omitempty"`
	State              string         `json:"state"`
	Version            string         `json:"version"`
	Zone               string         `json:"zone,omitempty"`
}

// TaskAddress is an address of a task.
type TaskAddress struct {
	IPAddress string `json:"ipAddress"`
	Protocol  string `json:"protocol"`
}

// TaskStatsByFilter groups an app's instances in four ways.
type TaskStatsByFilter struct {
	StartedAfterLastScaling *TaskStats `json:"startedAfterLastScaling,omitempty"`
	WithLatestConfig        *TaskStats `json:"withLatestConfig,omitempty"`
	WithOutdatedConfig      *TaskStats `json:"withOutdatedConfig,omitempty"`
	TotalSummary            *TaskStats `json:"totalSummary,omitempty"`
}

// TaskStats wraps Stats as the API does.
type TaskStats struct {
	Stats Stats `json:"stats"`
}

// Stats counts instances and tells how long they have lived.
type Stats struct {
	Counts   Counts    `json:"counts"`
	LifeTime *LifeTime `json:"lifeTime,omitempty"`
}

// Counts are instances by condition.
type Counts struct {
	Staged    int `json:"staged"`
	Running   int `json:"running"`
	Healthy   int `json:"healthy"`
	Unhealthy int `json:"unhealthy"`
}

// LifeTime is seconds since tasks started.
type LifeTime struct {
	AverageSeconds float64 `json:"averageSeconds"`
	MedianSeconds  float64 `json:"medianSeconds"`
}

// Group is a group as clients write it. Apps, Groups and Dependencies nil mean
// "as they are".
type Group struct {
	ID           string            `json:"id"`
	Apps         []json.RawMessage `json:"apps,omitzero"`
	Groups       []Group           `json:"groups,omitzero"`
	Pods         []json.RawMessage `json:"pods,omitzero"`
	Dependencies []string          `json:"dependencies,omitzero"`
	EnforceRole  *bool             `json:"enforceRole,omitempty"`
	Version      string            `json:"version,omitempty"`
	ScaleBy      *float64          `json:"scaleBy,omitempty"`
}

// GroupInfo is a group as the API shows it. A nil part was not asked for.
type GroupInfo struct {
	ID           string      `json:"id"`
	Apps         []AppInfo   `json:"apps,omitzero"`
	Groups       []GroupInfo `json:"groups,omitzero"`
	Pods         []struct{}  `json:"pods,omitzero"`
	Dependencies []string    `json:"dependencies"`
	EnforceRole  bool        `json:"enforceRole,omitempty"` // clients older than roles refuse it
	Version      string      `json:"version"`
}

// DeploymentResult answers every change.
type DeploymentResult struct {
	Version      string `json:"version"`
	DeploymentID string `json:"deploymentId"`
}

// Action is what a deployment does to one app.
type Action struct {
	Action                string            `json:"action"`
	App                   string            `json:"app"`
	ReadinessCheckResults []ReadinessResult `json:"readinessCheckResults,omitzero"`
}

// Step is a set of actions carried out at once.
type Step struct {
	Actions []Action `json:"actions"`
}

// Deployment is a running deployment.
type Deployment struct {
	ID             string   `json:"id"`
	Version        string   `json:"version"`
	AffectedApps   []string `json:"affectedApps"`
	AffectedPods   []string `json:"affectedPods"`
	Steps          []Step   `json:"steps"`
	CurrentActions []Action `json:"currentActions"`
	CurrentStep    int      `json:"currentStep"` // from 1
	TotalSteps     int      `json:"totalSteps"`
}

// Plan is a deployment in events, in the light format.
type Plan struct {
	ID      string `json:"id"`
	Version string `json:"version"`
	Steps   []Step `json:"steps"`
}

// QueueItem is an app that waits for offers.
type QueueItem struct {
	App                    App           `json:"app"`
	Count                  int           `json:"count"`
	Role                   string        `json:"role"`
	Delay                  QueueDelay    `json:"delay"`
	Since                  string        `json:"since"`
	ProcessedOffersSummary OffersSummary `json:"processedOffersSummary"`
	LastUnusedOffers       []UnusedOffer `json:"lastUnusedOffers,omitzero"`
}

// QueueDelay is how long a launch is put off.
type QueueDelay struct {
	TimeLeftSeconds int64 `json:"timeLeftSeconds"`
	Overdue         bool  `json:"overdue"`
}

// OffersSummary tells what became of the offers an app has seen.
type OffersSummary struct {
	ProcessedOffersCount       int      `json:"processedOffersCount"`
	UnusedOffersCount          int      `json:"unusedOffersCount"`
	LastUnusedOfferAt          *string  `json:"lastUnusedOfferAt,omitempty"`
	LastUsedOfferAt            *string  `json:"lastUsedOfferAt,omitempty"`
	RejectSummaryLastOffers    []Reject `json:"rejectSummaryLastOffers"`
	RejectSummaryLaunchAttempt []Reject `json:"rejectSummaryLaunchAttempt"`
}

// Reject is one row of the funnel: of Processed offers that came this far,
// Declined were refused for Reason.
type Reject struct {
	Reason    string `json:"reason"`
	Declined  int    `json:"declined"`
	Processed int    `json:"processed"`
}

// UnusedOffer is an offer an app could not use, and why.
type UnusedOffer struct {
	Offer     QueueOffer `json:"offer"`
	Reason    []string   `json:"reason"`
	Timestamp string     `json:"timestamp"`
}

// QueueOffer is an offer as the queue shows it.
type QueueOffer struct {
	ID         string           `json:"id"`
	Hostname   string           `json:"hostname"`
	AgentID    string           `json:"agentId"`
	Resources  []OfferResource  `json:"resources"`
	Attributes []OfferAttribute `json:"attributes"`
}

// OfferResource is a resource of a QueueOffer.
type OfferResource struct {
	Name   string       `json:"name"`
	Role   string       `json:"role"`
	Scalar *float64     `json:"scalar,omitempty"`
	Ranges []OfferRange `json:"ranges,omitempty"`
	Set    []string     `json:"set,omitempty"`
}

// OfferRange is a range of numbers, both ends included.
type OfferRange struct {
	Begin uint64 `json:"begin"`
	End   uint64 `json:"end"`
}

// OfferAttribute is an attribute of a QueueOffer.
type OfferAttribute struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

// Info answers /v2/info.
type Info struct {
	Name            string         `json:"name"`
	Version         string         `json:"version"`
	BuildRef        string         `json:"buildref"`
	Elected         bool           `json:"elected"`
	Leader          *string        `json:"leader"`
	FrameworkID     *string        `json:"frameworkId"`
	MarathonConfig  map[string]any `json:"marathon_config"`
	ZookeeperConfig map[string]any `json:"zookeeper_config"`
	HTTPConfig      map[string]any `json:"http_config"`
}

// Message is the body of errors and of some answers.
type Message struct {
	Message     string          `json:"message"`
	Details     any             `json:"details,omitempty"` // string or []Detail
	Deployments []DeploymentRef `json:"deployments,omitempty"`
}
