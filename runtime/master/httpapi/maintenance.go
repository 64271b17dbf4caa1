package httpapi

import (
	"encoding/json"
	"io"
	"net/http"

	"google.golang.org/protobuf/proto"

	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/maintenance"
	"dcos.example/dcos/runtime/api/wire"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/master/core"
	"dcos.example/dcos/runtime/master/legacy"
)

// Maintenance serves the maintenance endpoints from before the v1 API, by path.
// Changes are 403 for callers that mayChange refuses.
func Maintenance(c *core.Core, mayChange func(*http.Request) bool) map[string]http.Handler {
	change := func(f func(r *http.Request, body []byte) error) http.Handler {
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
			body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
			if err != nil {
				fail(w, http.StatusBadRequest, "Failed to read body: %v", err)
				return
			}
			done(w, f(r, body))
		})
	}
	machines := func(body []byte) ([]*mesos.MachineID, error) {
		var raw []json.RawMessage
		if err := json.Unmarshal(body, &raw); err != nil {
			return nil, fault.New("read machines", fault.Invalid, err)
		}
		out := make([]*mesos.MachineID, len(raw))
		for i, b := range raw {
			out[i] = new(mesos.MachineID)
			if err := wire.JSON.Unmarshal(b, out[i]); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	update := change(func(r *http.Request, body []byte) error {
		s := new(maintenance.Schedule)
		if err := wire.JSON.Unmarshal(body, s); err != nil {
			return err
		}
		return c.UpdateSchedule(r.Context(), s)
	})
	return map[string]http.Handler{
		"/maintenance/schedule": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet || r.Method == http.MethodHead {
				legacy.Write(w, r, message{c.Schedule()})
				return
			}
			update.ServeHTTP(w, r)
		}),
		"/maintenance/status": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			legacy.Write(w, r, message{c.MaintenanceStatus()})
		}),
		"/machine/down": change(func(r *http.Request, body []byte) error {
			ids, err := machines(body)
			if err != nil {
				return err
			}
			return c.StartMaintenance(r.Context(), ids)
		}),
		"/machine/up": change(func(r *http.Request, body []byte) error {
			ids, err := machines(body)
			if err != nil {
				return err
			}
			return c.StopMaintenance(r.Context(), ids)
		}),
	}
}

// message is a protobuf message in the spelling of the v1 JSON.
type message struct{ proto.Message }

// MarshalJSON makes a message part of what encoding/json writes.
func (m message) MarshalJSON() ([]byte, error) { return wire.JSON.Marshal(m.Message) }
