// Package health turns an app's health checks into the ones agents run, and
// keeps what is known of one task's health. It is pure.
//
// Marathon ran HTTP, HTTPS and TCP checks from its leader; here every check
// runs on the task's agent (ADR 0006). An agent reports one verdict for all
// checks of a task, so a task has one result, not one per check.
package health

import (
	"math"
	"time"

	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/api/marathon"
	"dcos.example/dcos/runtime/api/mesos"
)

// Translate returns the checks an agent runs for an app. ports are where the
// app's ports are reached from inside the task's own network, by index.
func Translate(checks []marathon.HealthCheck, ports []int64) []*mesos.HealthCheck {
	out := make([]*mesos.HealthCheck, 0, len(checks))
	for _, c := range checks {
		out = append(out, translate(c, ports))
	}
	return out
}

func translate(c marathon.HealthCheck, ports []int64) *mesos.HealthCheck {
	m := &mesos.HealthCheck{
		DelaySeconds:        proto.Float64(float64(c.DelaySeconds)),
		IntervalSeconds:     proto.Float64(float64(c.IntervalSeconds)),
		TimeoutSeconds:      proto.Float64(float64(c.TimeoutSeconds)),
		GracePeriodSeconds:  proto.Float64(float64(c.GracePeriodSeconds)),
		ConsecutiveFailures: proto.Uint32(uint32(c.MaxConsecutiveFailures)),
	}
	if c.MaxConsecutiveFailures == 0 {
		// Zero means "never kill" to Marathon, "kill at once" to Mesos.
		m.ConsecutiveFailures = proto.Uint32(math.MaxUint32)
	}
	family := mesos.NetworkInfo_IPv4
	if c.IPProtocol == "IPv6" {
		family = mesos.NetworkInfo_IPv6
	}
	switch c.Protocol {
	case marathon.Command:
		m.Type = mesos.HealthCheck_COMMAND.Enum()
		m.Command = &mesos.CommandInfo{Shell: proto.Bool(true), Value: proto.String(c.Command.Value)}
	case marathon.TCP, marathon.MesosTCP:
		m.Type = mesos.HealthCheck_TCP.Enum()
		m.Tcp = &mesos.HealthCheck_TCPCheckInfo{Protocol: family.Enum(), Port: proto.Uint32(port(c, ports))}
	default:
		scheme := "http"
		if c.Protocol == marathon.HTTPS || c.Protocol == marathon.MesosHTTPS {
			scheme = "https"
		}
		path := "/"
		if c.Path != nil && *c.Path != "" {
			path = *c.Path
		}
		if path[0] != '/' {
			path = "/" + path
		}
		m.Type = mesos.HealthCheck_HTTP.Enum()
		m.Http = &mesos.HealthCheck_HTTPCheckInfo{
			Protocol: family.Enum(), Scheme: proto.String(scheme),
			Port: proto.Uint32(port(c, ports)), Path: proto.String(path),
		}
	}
	return m
}

func port(c marathon.HealthCheck, ports []int64) uint32 {
	if c.Port != nil {
		return uint32(*c.Port)
	}
	if c.PortIndex != nil && *c.PortIndex >= 0 && *c.PortIndex < int64(len(ports)) {
		return uint32(ports[*c.PortIndex])
	}
	return 0
}

// State is what an agent has said about one task's health.
type State struct {
	Known        bool      `json:"known,omitempty"`
	Alive        bool      `json:"alive,omitempty"`
	Failures     int       `json:"failures,omitempty"` // since the last success
	FirstSuccess time.Time `json:"firstSuccess,omitzero"`
	LastSuccess  time.Time `json:"lastSuccess,omitzero"`
	LastFailure  time.Time `json:"lastFailure,omitzero"`
	Cause        string    `json:"cause,omitempty"`
}

// Next returns the state after a report, and whether the verdict changed.
func (s State) Next(healthy bool, cause string, now time.Time) (State, bool) {
	changed := !s.Known || s.Alive != healthy
	s.Known, s.Alive = true, healthy
	if !healthy {
		s.Failures++
		s.LastFailure, s.Cause = now, cause
		return s, changed
	}
	s.Failures, s.LastSuccess = 0, now
	if s.FirstSuccess.IsZero() {
		s.FirstSuccess = now
	}
	return s, changed
}

// Result is s as the API shows it.
func (s State) Result(instance string) marathon.HealthResult {
	at := func(t time.Time) *string {
		if t.IsZero() {
			return nil
		}
		text := marathon.Time(t)
		return &text
	}
	r := marathon.HealthResult{
		Alive: s.Alive, ConsecutiveFailures: s.Failures, InstanceID: instance,
		FirstSuccess: at(s.FirstSuccess), LastSuccess: at(s.LastSuccess), LastFailure: at(s.LastFailure),
	}
	if s.Cause != "" {
		r.LastFailureCause = &s.Cause
	}
	return r
}
