package httpapi

import (
	"net/http"

	"dcos.example/dcos/runtime/api/mesos/scheduler"
	"dcos.example/dcos/runtime/api/wire"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/master/core"
	"dcos.example/dcos/runtime/task"
)

// Scheduler serves POST /api/v1/scheduler.
func Scheduler(c *core.Core) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		call := new(scheduler.Call)
		if _, ok := decode(w, r, call); !ok {
			return
		}
		if msg := checkSchedulerCall(call); msg != "" {
			fail(w, http.StatusBadRequest, "Failed to validate scheduler::Call: %s", msg)
			return
		}
		if call.GetType() == scheduler.Call_SUBSCRIBE {
			subscribe(c, w, r, call)
			return
		}
		id := task.FrameworkID(call.GetFrameworkId().GetValue())
		streamID := r.Header.Get(wire.HeaderStreamID)
		switch s := c.CheckSession(id, streamID); {
		case s == core.SessionUnknown:
			fail(w, http.StatusBadRequest, "Framework cannot be found")
		case s == core.SessionDisconnected:
			fail(w, http.StatusForbidden, "Framework is not subscribed")
		case streamID == "":
			fail(w, http.StatusBadRequest, "All non-subscribe calls should include the 'Mesos-Stream-Id' header")
		case s == core.SessionStale:
			fail(w, http.StatusBadRequest, "The stream ID '%s' included in this request didn't match the stream ID currently associated with framework ID '%s'", streamID, id)
		default:
			dispatch(c, w, r, id, call)
		}
	})
}

// checkSchedulerCall returns what is wrong with the call's shape.
func checkSchedulerCall(call *scheduler.Call) string {
	missing := func(present bool, name string) string {
		if present {
			return ""
		}
		return "Expecting '" + name + "' to be present"
	}
	if call.Type == nil {
		return missing(false, "type")
	}
	if call.GetType() == scheduler.Call_SUBSCRIBE {
		if call.Subscribe == nil {
			return missing(false, "subscribe")
		}
		if a, b := call.GetFrameworkId().GetValue(), call.Subscribe.GetFrameworkInfo().GetId().GetValue(); a != "" && a != b {
			return "'framework_id' differs from 'subscribe.framework_info.id'"
		}
		return ""
	}
	if call.FrameworkId == nil {
		return missing(false, "framework_id")
	}
	switch call.GetType() {
	case scheduler.Call_TEARDOWN, scheduler.Call_REVIVE, scheduler.Call_SUPPRESS:
		return ""
	case scheduler.Call_ACCEPT:
		return missing(call.Accept != nil, "accept")
	case scheduler.Call_DECLINE:
		return missing(call.Decline != nil, "decline")
	case scheduler.Call_ACCEPT_INVERSE_OFFERS:
		return missing(call.AcceptInverseOffers != nil, "accept_inverse_offers")
	case scheduler.Call_DECLINE_INVERSE_OFFERS:
		return missing(call.DeclineInverseOffers != nil, "decline_inverse_offers")
	case scheduler.Call_KILL:
		return missing(call.Kill != nil, "kill")
	case scheduler.Call_SHUTDOWN:
		return missing(call.Shutdown != nil, "shutdown")
	case scheduler.Call_ACKNOWLEDGE:
		if call.Acknowledge != nil && len(call.Acknowledge.GetUuid()) != 16 {
			return "'acknowledge.uuid' is not a valid UUID"
		}
		return missing(call.Acknowledge != nil, "acknowledge")
	case scheduler.Call_ACKNOWLEDGE_OPERATION_STATUS:
		a := call.AcknowledgeOperationStatus
		if a != nil && len(a.GetUuid()) != 16 {
			return "'acknowledge_operation_status.uuid' is not a valid UUID"
		}
		if a != nil && a.ResourceProviderId != nil && a.AgentId == nil {
			return "Expecting 'agent_id' to be present with 'resource_provider_id'"
		}
		return missing(a != nil, "acknowledge_operation_status")
	case scheduler.Call_RECONCILE:
		return missing(call.Reconcile != nil, "reconcile")
	case scheduler.Call_RECONCILE_OPERATIONS:
		return missing(call.ReconcileOperations != nil, "reconcile_operations")
	case scheduler.Call_MESSAGE:
		return missing(call.Message != nil, "message")
	case scheduler.Call_REQUEST:
		return missing(call.Request != nil, "request")
	case scheduler.Call_UPDATE_FRAMEWORK:
		if call.UpdateFramework != nil && call.UpdateFramework.GetFrameworkInfo().GetId().GetValue() != call.GetFrameworkId().GetValue() {
			return "'framework_id' differs from 'update_framework.framework_info.id'"
		}
		return missing(call.UpdateFramework != nil, "update_framework")
	}
	return "Unknown call type"
}

func subscribe(c *core.Core, w http.ResponseWriter, r *http.Request, call *scheduler.Call) {
	format, ok := accept(w, r)
	if !ok {
		return
	}
	if r.Header.Get(wire.HeaderStreamID) != "" {
		fail(w, http.StatusBadRequest, "Subscribe calls should not include the 'Mesos-Stream-Id' header")
		return
	}
	id, stream, err := c.SubscribeFramework(r.Context(), call.Subscribe, format)
	if fault.Is(err, fault.Invalid) || fault.Is(err, fault.Denied) {
		refuse(w, format, reason(err))
		return
	}
	if err != nil {
		failWith(w, err)
		return
	}
	_ = stream.Serve(r.Context(), w, core.Heartbeat, core.HeartbeatEvent()) // its end is what counts
	c.FrameworkDisconnected(id, stream)
}

// refuse answers a subscription with one ERROR event.
func refuse(w http.ResponseWriter, format wire.Format, message string) {
	b, err := format.Marshal(core.ErrorEvent(message))
	if err != nil {
		failWith(w, err)
		return
	}
	w.Header().Set("Content-Type", format.ContentType())
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush() // makes the reply chunked, as clients expect
	_ = wire.NewRecordWriter(w).Write(b)
}

func dispatch(c *core.Core, w http.ResponseWriter, r *http.Request, id task.FrameworkID, call *scheduler.Call) {
	switch call.GetType() {
	case scheduler.Call_TEARDOWN:
		if err := c.RemoveFramework(r.Context(), id); err != nil {
			failWith(w, err)
			return
		}
	case scheduler.Call_ACCEPT:
		c.Accept(id, call.Accept)
	case scheduler.Call_DECLINE:
		c.Decline(id, call.Decline)
	case scheduler.Call_REVIVE:
		c.Revive(id, call.GetRevive().GetRoles())
	case scheduler.Call_SUPPRESS:
		c.Suppress(id, call.GetSuppress().GetRoles())
	case scheduler.Call_KILL:
		c.Kill(id, call.Kill)
	case scheduler.Call_SHUTDOWN:
		c.Shutdown(id, call.Shutdown)
	case scheduler.Call_ACKNOWLEDGE:
		c.Acknowledge(id, call.Acknowledge)
	case scheduler.Call_RECONCILE:
		c.Reconcile(id, call.Reconcile)
	case scheduler.Call_MESSAGE:
		c.Message(id, call.Message)
	case scheduler.Call_UPDATE_FRAMEWORK:
		if err := c.UpdateFramework(r.Context(), id, call.UpdateFramework); err != nil {
			failWith(w, err)
			return
		}
		w.WriteHeader(http.StatusOK)
		return
	case scheduler.Call_ACCEPT_INVERSE_OFFERS:
		c.AnswerInverse(id, call.AcceptInverseOffers.InverseOfferIds, true)
	case scheduler.Call_DECLINE_INVERSE_OFFERS:
		c.AnswerInverse(id, call.DeclineInverseOffers.InverseOfferIds, false)
	case scheduler.Call_ACKNOWLEDGE_OPERATION_STATUS:
		c.AcknowledgeOperation(id, call.AcknowledgeOperationStatus)
	case scheduler.Call_RECONCILE_OPERATIONS:
		c.ReconcileOperations(id, call.ReconcileOperations)
	case scheduler.Call_REQUEST: // requests do not move the allocator
	default:
		fail(w, http.StatusNotImplemented, "%s is not supported by this release", call.GetType())
		return
	}
	accepted(w)
}
