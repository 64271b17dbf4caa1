package marathon

import "encoding/json"

// Health check protocols.
const (
	HTTP       = "HTTP"
	HTTPS      = "HTTPS"
	TCP        = "TCP"
	Command    = "COMMAND"
	MesosHTTP  = "MESOS_HTTP"
	MesosHTTPS = "MESOS_HTTPS"
	MesosTCP   = "MESOS_TCP"
)

// HealthCheck tells how to see that an instance is well. Times are seconds.
type HealthCheck struct {
	Command                *CheckCommand `json:"command,omitempty"`
	DelaySeconds           int64         `json:"delaySeconds"`
	GracePeriodSeconds     int64         `json:"gracePeriodSeconds"`
	IgnoreHTTP1xx          *bool         `json:"ignoreHttp1xx,omitempty"`
	IntervalSeconds        int64         `json:"intervalSeconds"`
	IPProtocol             string        `json:"ipProtocol"`
	MaxConsecutiveFailures int64         `json:"maxConsecutiveFailures"`
	Path                   *string       `json:"path,omitempty"`
	Port                   *int64        `json:"port,omitempty"`
	PortIndex              *int64        `json:"portIndex,omitempty"`
	Protocol               string        `json:"protocol"`
	TimeoutSeconds         int64         `json:"timeoutSeconds"`
}

// CheckCommand is the command of a COMMAND check.
type CheckCommand struct {
	Value string `json:"value" need:"true"`
}

// UnmarshalJSON reads h over its defaults.
func (h *HealthCheck) UnmarshalJSON(b []byte) error {
	type plain HealthCheck
	d := plain{
		DelaySeconds: 15, GracePeriodSeconds: 300, IntervalSeconds: 60, IPProtocol: "IPv4",
		MaxConsecutiveFailures: 3, Protocol: HTTP, TimeoutSeconds: 20,
	}
	err := json.Unmarshal(b, &d)
	*h = HealthCheck(d)
	return err
}

// ByAgentOnly reports whether Mesos' agents ran this check in Marathon too.
func (h HealthCheck) ByAgentOnly() bool {
	switch h.Protocol {
	case Command, MesosHTTP, MesosHTTPS, MesosTCP:
		return true
	}
	return false
}

// ReadinessCheck gates a deployment on a new instance's own word. Times are
// seconds.
type ReadinessCheck struct {
	HTTPStatusCodesForReady []int64 `json:"httpStatusCodesForReady"`
	IntervalSeconds         int64   `json:"intervalSeconds"`
	Name                    string  `json:"name"`
	Path                    string  `json:"path"`
	PortName                string  `json:"portName"`
	PreserveLastResponse    bool    `json:"preserveLastResponse"`
	Protocol                string  `json:"protocol"`
	TimeoutSeconds          int64   `json:"timeoutSeconds"`
}

// UnmarshalJSON reads r over its defaults.
func (r *ReadinessCheck) UnmarshalJSON(b []byte) error {
	type plain ReadinessCheck
	d := plain{
		HTTPStatusCodesForReady: []int64{200}, IntervalSeconds: 30, Name: "readinessCheck",
		Path: "/", PortName: "http-api", Protocol: HTTP, TimeoutSeconds: 10,
	}
	err := json.Unmarshal(b, &d)
	*r = ReadinessCheck(d)
	return err
}

// ReadinessResult is what the last readiness check of a task saw.
type ReadinessResult struct {
	Name         string             `json:"name"`
	TaskID       string             `json:"taskId"`
	Ready        bool               `json:"ready"`
	LastResponse *ReadinessResponse `json:"lastResponse,omitempty"`
}

// ReadinessResponse is kept when preserveLastResponse is set.
type ReadinessResponse struct {
	Status      int    `json:"status"`
	ContentType string `json:"contentType"`
	Body        string `json:"body"`
}

// HealthResult is the state of a task's health.
type HealthResult struct {
	Alive               bool    `json:"alive"`
	ConsecutiveFailures int     `json:"consecutiveFailures"`
	FirstSuccess        *string `json:"firstSuccess"`
	InstanceID          string  `json:"instanceId"`
	LastFailure         *string `json:"lastFailure"`
	LastFailureCause    *string `json:"lastFailureCause"`
	LastSuccess         *string `json:"lastSuccess"`
}
