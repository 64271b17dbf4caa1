package health_test

import (
	"math"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/api/marathon"
	"dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/orchestrator/health"
)

func TestTranslate(t *testing.T) {
	decode := func(s string) marathon.HealthCheck {
		var h marathon.HealthCheck
		if err := h.UnmarshalJSON([]byte(s)); err != nil {
			t.Fatal(err)
		}
		return h
	}
	ports := []int64{8080, 9090}
	for name, tc := range map[string]struct {
		in   string
		want func(*mesos.HealthCheck)
	}{
		"http by index": {`{"portIndex":1,"path":"up"}`, func(m *mesos.HealthCheck) {
			m.Type = mesos.HealthCheck_HTTP.Enum()
			m.Http = &mesos.HealthCheck_HTTPCheckInfo{Protocol: mesos.NetworkInfo_IPv4.Enum(), Scheme: proto.String("http"), Port: proto.Uint32(9090), Path: proto.String("/up")}
		}},
		"https by number, never killing": {`{"protocol":"MESOS_HTTPS","port":443,"maxConsecutiveFailures":0}`, func(m *mesos.HealthCheck) {
			m.Type = mesos.HealthCheck_HTTP.Enum()
			m.ConsecutiveFailures = proto.Uint32(math.MaxUint32)
			m.Http = &mesos.HealthCheck_HTTPCheckInfo{Protocol: mesos.NetworkInfo_IPv4.Enum(), Scheme: proto.String("https"), Port: proto.Uint32(443), Path: proto.String("/")}
		}},
		"tcp over 6": {`{"protocol":"MESOS_TCP","portIndex":0,"ipProtocol":"IPv6"}`, func(m *mesos.HealthCheck) {
			m.Type = mesos.HealthCheck_TCP.Enum()
			m.Tcp = &mesos.HealthCheck_TCPCheckInfo{Protocol: mesos.NetworkInfo_IPv6.Enum(), Port: proto.Uint32(8080)}
		}},
		"command": {`{"protocol":"COMMAND","command":{"value":"true"}}`, func(m *mesos.HealthCheck) {
			m.Type = mesos.HealthCheck_COMMAND.Enum()
			m.Command = &mesos.CommandInfo{Shell: proto.Bool(true), Value: proto.String("true")}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			want := &mesos.HealthCheck{
				DelaySeconds: proto.Float64(15), IntervalSeconds: proto.Float64(60), TimeoutSeconds: proto.Float64(20),
				GracePeriodSeconds: proto.Float64(300), ConsecutiveFailures: proto.Uint32(3),
			}
			tc.want(want)
			got := health.Translate([]marathon.HealthCheck{decode(tc.in)}, ports)
			if len(got) != 1 || !proto.Equal(got[0], want) {
				t.Errorf("got  %v\nwant %v", got, want)
			}
		})
	}
}

func TestState(t *testing.T) {
	now := time.Unix(100, 0)
	var s health.State
	for i, step := range []struct {
		healthy  bool
		changed  bool
		failures int
	}{{false, true, 1}, {false, false, 2}, {true, true, 0}, {true, false, 0}, {false, true, 1}} {
		var changed bool
		if s, changed = s.Next(step.healthy, "why", now); changed != step.changed || s.Failures != step.failures || s.Alive != step.healthy {
			t.Errorf("step %d: %+v, changed %v", i, s, changed)
		}
	}
	if r := s.Result("i"); r.Alive || r.FirstSuccess == nil || *r.LastFailureCause != "why" {
		t.Errorf("%+v", r)
	}
}
