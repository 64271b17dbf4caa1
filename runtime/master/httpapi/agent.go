package httpapi

import (
	"net/http"
	"net/netip"
	"time"

	"dcos.example/dcos/runtime/api/agentlink"
	"dcos.example/dcos/runtime/api/wire"
	"dcos.example/dcos/runtime/master/core"
	"dcos.example/dcos/runtime/task"
)

// AgentSubscribe serves POST /agentlink/v1/subscribe; ping is the time between
// pings.
func AgentSubscribe(c *core.Core, ping time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sub := new(agentlink.Subscribe)
		if format, ok := decode(w, r, sub); !ok || !onlyProtobuf(w, format) {
			return
		}
		if !ownEndpoint(r, sub.GetEndpoint()) {
			fail(w, http.StatusForbidden, "endpoint %q is not at an address that the agent's certificate names", sub.GetEndpoint())
			return
		}
		id, stream, err := c.SubscribeAgent(r.Context(), sub)
		if err != nil {
			failWith(w, err)
			return
		}
		_ = stream.Serve(r.Context(), w, ping, core.PingDownlink()) // its end is what counts
		c.AgentDisconnected(id, stream)
	})
}

// ownEndpoint reports whether endpoint is the caller's own: masters connect to
// it, and an agent that returns at another's endpoint replaces that agent.
// Without TLS nothing is known; the caller of this package decides who may
// come so.
func ownEndpoint(r *http.Request, endpoint string) bool {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return true
	}
	at, err := netip.ParseAddrPort(endpoint)
	return err == nil && r.TLS.VerifiedChains[0][0].VerifyHostname(at.Addr().String()) == nil
}

// AgentCall serves POST /agentlink/v1/call.
func AgentCall(c *core.Core) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		up := new(agentlink.Uplink)
		if format, ok := decode(w, r, up); !ok || !onlyProtobuf(w, format) {
			return
		}
		id := task.AgentID(up.GetAgentId().GetValue())
		if !c.Seen(id, up.GetStreamId()) {
			fail(w, http.StatusConflict, "stream %q is not the current one of agent %s", up.GetStreamId(), id)
			return
		}
		for _, u := range up.StatusUpdates {
			c.Update(id, u)
		}
		if up.ExecutorExited != nil {
			c.ExecutorExited(id, up.ExecutorExited)
		}
		if up.ExecutorMessage != nil {
			c.MessageToFramework(id, up.ExecutorMessage)
		}
		if up.ResourcesCheckpointed != nil {
			c.Checkpointed(id, up.ResourcesCheckpointed)
		}
		if up.Unregister != nil {
			if err := c.UnregisterAgent(r.Context(), id); err != nil {
				failWith(w, err)
				return
			}
		}
		accepted(w)
	})
}

func onlyProtobuf(w http.ResponseWriter, f wire.Format) bool {
	if f != wire.Protobuf {
		fail(w, http.StatusUnsupportedMediaType, "Expecting 'Content-Type' of %s", wire.TypeProtobuf)
	}
	return f == wire.Protobuf
}
