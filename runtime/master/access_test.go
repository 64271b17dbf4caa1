package master_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/api/agentlink"
	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/master"
	"dcos.example/dcos/runtime/api/wire"
	dcosmaster "dcos.example/dcos/runtime/master"
	"dcos.example/dcos/runtime/pki"
	"dcos.example/dcos/runtime/state/memory"
)

// as sends a request over a connection on which a certificate of role at addr
// was verified.
func as(t *testing.T, c *cluster, role pki.Role, addr, method, path, contentType string, body []byte) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	leaf := &x509.Certificate{Subject: pkix.Name{CommonName: "x", OrganizationalUnit: []string{string(role)}}, IPAddresses: []net.IP{net.ParseIP(addr)}}
	r := httptest.NewRequestWithContext(ctx, method, path, bytes.NewReader(body))
	r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{leaf}}}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	w := httptest.NewRecorder()
	c.master.Handler().ServeHTTP(w, r)
	b, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Code, string(b)
}

func TestAgentsReadAndDoNotChange(t *testing.T) {
	c := lead(t, memory.New(), testConfig(), func(o *dcosmaster.Options) { o.PlainAgents = false })
	operator := func(call *master.Call) []byte { return mustMarshal(t, call) }
	gone := operator(&master.Call{Type: master.Call_MARK_AGENT_GONE.Enum(), MarkAgentGone: &master.Call_MarkAgentGone{AgentId: &mesos.AgentID{Value: proto.String("x")}}})
	teardown := operator(&master.Call{Type: master.Call_TEARDOWN.Enum(), Teardown: &master.Call_Teardown{FrameworkId: &mesos.FrameworkID{Value: proto.String("x")}}})
	drain := operator(&master.Call{Type: master.Call_DRAIN_AGENT.Enum(), DrainAgent: &master.Call_DrainAgent{AgentId: &mesos.AgentID{Value: proto.String("x")}}})
	unknown := operator(&master.Call{Type: master.Call_UPDATE_QUOTA.Enum()})
	cases := []struct {
		name          string
		method, path  string
		body          []byte
		agent, master int
	}{
		{"view", "GET", "/state", nil, 200, 200},
		{"view below the actor", "GET", "/master/state-summary", nil, 200, 200},
		{"read", "POST", "/api/v1", operator(&master.Call{Type: master.Call_GET_STATE.Enum()}), 200, 200},
		{"mark gone", "POST", "/api/v1", gone, 403, 404},
		{"mark gone, other path", "POST", "/master/api/v1/", gone, 403, 404},
		{"drain", "POST", "/api/v1", drain, 403, 400},
		{"maintenance schedule", "GET", "/maintenance/schedule", nil, 200, 200},
		{"maintenance", "POST", "/maintenance/schedule", []byte("{}"), 403, 200},
		{"machine down", "POST", "/master/machine/down", []byte("[]"), 403, 400},
		{"machine up", "POST", "/machine/up", []byte("[]"), 403, 400},
		{"teardown", "POST", "/api/v1", teardown, 403, 400},
		{"a change of a later release", "POST", "/api/v1", unknown, 403, 501},
		{"scheduler", "POST", "/api/v1/scheduler", []byte{}, 403, 400},
		{"link", "POST", "/agentlink/v1/call", mustMarshal(t, &agentlink.Uplink{AgentId: &mesos.AgentID{Value: proto.String("x")}}), 409, 403},
	}
	for _, tc := range cases {
		for role, want := range map[pki.Role]int{pki.RoleAgent: tc.agent, pki.RoleMaster: tc.master} {
			if got, body := as(t, c, role, "198.19.176.21", tc.method, tc.path, wire.TypeProtobuf, tc.body); got != want {
				t.Errorf("%s as %s: %d %s, want %d", tc.name, role, got, body, want)
			}
		}
	}
}

// An agent speaks for its own address only, and keeps to the address at which
// its id was registered.
func TestAgentsCannotTakeOver(t *testing.T) {
	c := lead(t, memory.New(), testConfig(), func(o *dcosmaster.Options) { o.PlainAgents = false })
	subscribe := func(addr, endpoint, id string) (int, string) {
		info := &mesos.AgentInfo{Hostname: proto.String("a")}
		if id != "" {
			info.Id = &mesos.AgentID{Value: proto.String(id)}
		}
		b := mustMarshal(t, &agentlink.Subscribe{Agent: info, Endpoint: proto.String(endpoint)})
		return as(t, c, pki.RoleAgent, addr, "POST", "/agentlink/v1/subscribe", wire.TypeProtobuf, b)
	}
	if code, body := subscribe("198.19.176.21", "198.19.176.22:5051", ""); code != http.StatusForbidden || !strings.Contains(body, "certificate") {
		t.Errorf("with another's endpoint: %d %s", code, body)
	}
	done := make(chan struct{})
	go func() { // until the master stops, or the agent is given up
		defer close(done)
		subscribe("198.19.176.22", "198.19.176.22:5051", "victim")
	}()
	t.Cleanup(func() { <-done })
	eventually(t, "victim is registered", func() bool {
		_, body, _ := c.get("/slaves")
		return strings.Contains(body, `"victim"`)
	})
	if code, body := subscribe("198.19.176.21", "198.19.176.21:5051", "victim"); code != http.StatusForbidden || !strings.Contains(body, "another address") {
		t.Errorf("with another's id: %d %s", code, body)
	}
	c.stop()
}
