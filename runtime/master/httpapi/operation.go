package httpapi

import (
	"encoding/json"
	"net/http"

	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/master"
	"dcos.example/dcos/runtime/api/wire"
	"dcos.example/dcos/runtime/master/core"
	"dcos.example/dcos/runtime/task"
)

// operationOf returns the operation that the operator calls for, nil when the
// call is another one, and what is missing in it.
func operationOf(call *master.Call) (agent *mesos.AgentID, op *mesos.Offer_Operation, missing string) {
	op = &mesos.Offer_Operation{}
	present := true
	name := ""
	switch call.GetType() {
	case master.Call_RESERVE_RESOURCES:
		x := call.ReserveResources
		name, present, agent = "reserve_resources", x != nil, x.GetAgentId()
		op.Type, op.Reserve = mesos.Offer_Operation_RESERVE.Enum(), &mesos.Offer_Operation_Reserve{Source: x.GetSource(), Resources: x.GetResources()}
	case master.Call_UNRESERVE_RESOURCES:
		x := call.UnreserveResources
		name, present, agent = "unreserve_resources", x != nil, x.GetAgentId()
		op.Type, op.Unreserve = mesos.Offer_Operation_UNRESERVE.Enum(), &mesos.Offer_Operation_Unreserve{Resources: x.GetResources()}
	case master.Call_CREATE_VOLUMES:
		x := call.CreateVolumes
		name, present, agent = "create_volumes", x != nil, x.GetAgentId()
		op.Type, op.Create = mesos.Offer_Operation_CREATE.Enum(), &mesos.Offer_Operation_Create{Volumes: x.GetVolumes()}
	case master.Call_DESTROY_VOLUMES:
		x := call.DestroyVolumes
		name, present, agent = "destroy_volumes", x != nil, x.GetAgentId()
		op.Type, op.Destroy = mesos.Offer_Operation_DESTROY.Enum(), &mesos.Offer_Operation_Destroy{Volumes: x.GetVolumes()}
	case master.Call_GROW_VOLUME:
		x := call.GrowVolume
		name, present, agent = "grow_volume", x != nil, x.GetAgentId()
		op.Type, op.GrowVolume = mesos.Offer_Operation_GROW_VOLUME.Enum(), &mesos.Offer_Operation_GrowVolume{Volume: x.GetVolume(), Addition: x.GetAddition()}
	case master.Call_SHRINK_VOLUME:
		x := call.ShrinkVolume
		name, present, agent = "shrink_volume", x != nil, x.GetAgentId()
		op.Type, op.ShrinkVolume = mesos.Offer_Operation_SHRINK_VOLUME.Enum(), &mesos.Offer_Operation_ShrinkVolume{Volume: x.GetVolume(), Subtract: x.GetSubtract()}
	default:
		return nil, nil, ""
	}
	if !present {
		missing = "Expecting '" + name + "' to be present"
	}
	return agent, op, missing
}

// operated answers 202: the agent has been told.
func operated(w http.ResponseWriter, err error) {
	if err != nil {
		done(w, err)
		return
	}
	accepted(w)
}

// Operations serves the endpoints for reservations and volumes from before the
// v1 API, by path. They are 403 for callers that mayChange refuses.
func Operations(c *core.Core, mayChange func(*http.Request) bool) map[string]http.Handler {
	endpoint := func(field string, make func([]*mesos.Resource) *mesos.Offer_Operation) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodPost {
				w.Header().Set("Allow", http.MethodPost)
				fail(w, http.StatusMethodNotAllowed, "Expecting one of { 'POST' }, but received '%s'", r.Method)
				return
			}
			if !mayChange(r) {
				fail(w, http.StatusForbidden, "an agent's certificate does not allow changes")
				return
			}
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
			if err := r.ParseForm(); err != nil {
				fail(w, http.StatusBadRequest, "Unable to decode query string: %v", err)
				return
			}
			for _, name := range []string{"slaveId", field} {
				if !r.PostForm.Has(name) {
					fail(w, http.StatusBadRequest, "Missing '%s' query parameter in the request body", name)
					return
				}
			}
			rs, err := parseResources(r.PostForm.Get(field))
			if err != nil {
				fail(w, http.StatusBadRequest, "Error in parsing '%s' query parameter in the request body: %s", field, reason(err))
				return
			}
			operated(w, c.Operate(r.Context(), task.AgentID(r.PostForm.Get("slaveId")), make(rs)))
		})
	}
	return map[string]http.Handler{
		"/reserve": endpoint("resources", func(rs []*mesos.Resource) *mesos.Offer_Operation {
			return &mesos.Offer_Operation{Type: mesos.Offer_Operation_RESERVE.Enum(), Reserve: &mesos.Offer_Operation_Reserve{Resources: rs}}
		}),
		"/unreserve": endpoint("resources", func(rs []*mesos.Resource) *mesos.Offer_Operation {
			return &mesos.Offer_Operation{Type: mesos.Offer_Operation_UNRESERVE.Enum(), Unreserve: &mesos.Offer_Operation_Unreserve{Resources: rs}}
		}),
		"/create-volumes": endpoint("volumes", func(rs []*mesos.Resource) *mesos.Offer_Operation {
			return &mesos.Offer_Operation{Type: mesos.Offer_Operation_CREATE.Enum(), Create: &mesos.Offer_Operation_Create{Volumes: rs}}
		}),
		"/destroy-volumes": endpoint("volumes", func(rs []*mesos.Resource) *mesos.Offer_Operation {
			return &mesos.Offer_Operation{Type: mesos.Offer_Operation_DESTROY.Enum(), Destroy: &mesos.Offer_Operation_Destroy{Volumes: rs}}
		}),
	}
}

func parseResources(text string) ([]*mesos.Resource, error) {
	var raw []json.RawMessage
	if err := json.Unmarshal([]byte(text), &raw); err != nil {
		return nil, err
	}
	out := make([]*mesos.Resource, len(raw))
	for i, b := range raw {
		out[i] = new(mesos.Resource)
		if err := wire.JSON.Unmarshal(b, out[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}
