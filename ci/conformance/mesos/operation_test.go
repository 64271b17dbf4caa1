//go:build e2e

package mesos_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"dcos.example/dcos/ci/conformance/target"
)

const serviceInfo = `"user":"root","name":"conformance-service","principal":"conformance","roles":["conformance-service"],"failover_timeout":60,"checkpoint":true,
	"capabilities":[{"type":"MULTI_ROLE"},{"type":"RESERVATION_REFINEMENT"},{"type":"PARTITION_AWARE"}]`

// service is a framework with reservations of its own.
type service struct{ *framework }

func registerService(t *testing.T) *service {
	t.Helper()
	f := &framework{stream: subscribe(t, schedulerAPI, asJSON, `{"type":"SUBSCRIBE","subscribe":{"framework_info":{`+serviceInfo+`}}}`)}
	f.id = f.until(t, "SUBSCRIBED", nil).Subscribed.FrameworkID.Value
	t.Cleanup(func() {
		f.stream.end()
		c.Ask(t, "POST", operatorAPI, `{"type":"TEARDOWN","teardown":{"framework_id":{"value":"`+f.id+`"}}}`, "Content-Type", asJSON)
	})
	return &service{f}
}

func scalarOf(name string, value float64, more string) string {
	return fmt.Sprintf(`{"name":%q,"type":"SCALAR","scalar":{"value":%g}%s}`, name, value, more)
}

const stack = `,"reservations":[{"type":"DYNAMIC","role":"conformance-service","principal":"conformance"}]`

func volumeOf(size float64) string {
	return scalarOf("disk", size, stack+`,"disk":{"persistence":{"id":"conformance","principal":"conformance"},"volume":{"container_path":"data","mode":"RW"}}`)
}

func operation(kind, id, field, list string) string {
	return fmt.Sprintf(`{"type":%q,"id":{"value":%q},%q:{%q:[%s]}}`, strings.ToUpper(kind), id, kind, field, list)
}

func (s *service) launchOp(id, command string, resources ...string) string {
	return fmt.Sprintf(`{"type":"LAUNCH","launch":{"task_infos":[{"name":"t","task_id":{"value":%q},"agent_id":{"value":%q},"command":{"value":%q},"resources":[%s]}]}}`,
		id, s.agent, command, strings.Join(resources, ","))
}

// rawOffer is an offer with its resources as they are written.
type rawOffer struct {
	ID        struct{ Value string }
	AgentID   struct{ Value string } `json:"agent_id"`
	Resources json.RawMessage
}

// offer waits for one that ok accepts; others are declined for a moment.
func (s *service) offer(t *testing.T, ok func(rawOffer) bool) rawOffer {
	t.Helper()
	for {
		var e struct {
			Type   string
			Offers struct{ Offers []rawOffer }
		}
		if err := json.Unmarshal(s.next(t), &e); err != nil {
			t.Fatal(err)
		}
		var found *rawOffer
		for _, o := range e.Offers.Offers {
			if found == nil && ok(o) {
				found = &o
				continue
			}
			s.call(t, fmt.Sprintf(`{"type":"DECLINE","decline":{"offer_ids":[{"value":%q}],"filters":{"refuse_seconds":1}}}`, o.ID.Value))
		}
		if found != nil {
			s.agent = found.AgentID.Value
			return *found
		}
	}
}

func (s *service) accept(t *testing.T, o rawOffer, operations ...string) {
	t.Helper()
	s.call(t, fmt.Sprintf(`{"type":"ACCEPT","accept":{"offer_ids":[{"value":%q}],"filters":{"refuse_seconds":0},"operations":[%s]}}`, o.ID.Value, strings.Join(operations, ",")))
}

type operationStatus struct {
	OperationID struct{ Value string } `json:"operation_id"`
	AgentID     struct{ Value string } `json:"agent_id"`
	State       string
	Message     string
	UUID        struct{ Value string }
}

// operations waits for the statuses of operations, and acknowledges them.
func (s *service) operations(t *testing.T, want map[string]string) {
	t.Helper()
	for len(want) > 0 {
		var e struct {
			Type                  string
			UpdateOperationStatus struct{ Status operationStatus } `json:"update_operation_status"`
		}
		if err := json.Unmarshal(s.next(t), &e); err != nil {
			t.Fatal(err)
		}
		if e.Type != "UPDATE_OPERATION_STATUS" {
			continue
		}
		st := e.UpdateOperationStatus.Status
		if state, ok := want[st.OperationID.Value]; !ok || state != st.State {
			t.Fatalf("status %+v, want %v", st, want)
		}
		delete(want, st.OperationID.Value)
		if st.UUID.Value != "" {
			s.call(t, fmt.Sprintf(`{"type":"ACKNOWLEDGE_OPERATION_STATUS","acknowledge_operation_status":{"agent_id":{"value":%q},"operation_id":{"value":%q},"uuid":%q}}`,
				st.AgentID.Value, st.OperationID.Value, st.UUID.Value))
		}
	}
}

func reservedOn(t *testing.T, agent string) string {
	t.Helper()
	var state struct {
		Slaves []struct {
			Reserved json.RawMessage `json:"reserved_resources"`
		}
	}
	c.Ask(t, "GET", "/mesos/slaves?slave_id="+agent, "").JSON(t, &state)
	return string(state.Slaves[0].Reserved)
}

// TestVolume writes into a volume in one call with its reservation, and reads it
// with another task; then nothing is left.
func TestVolume(t *testing.T) {
	s := registerService(t)
	cpus, mem, disk := scalarOf("cpus", 0.1, stack), scalarOf("mem", 32, stack), scalarOf("disk", 16, stack)
	all := cpus + "," + mem + "," + disk
	o := s.offer(t, func(rawOffer) bool { return true })
	s.accept(t, o, operation("reserve", "r", "resources", all), operation("create", "c", "volumes", volumeOf(16)),
		s.launchOp("writes", "echo kept > data/file; sleep 1000", cpus, mem, volumeOf(16)))
	s.operations(t, map[string]string{"r": "OPERATION_FINISHED", "c": "OPERATION_FINISHED"})
	s.call(t, `{"type":"RECONCILE_OPERATIONS","reconcile_operations":{"operations":[{"operation_id":{"value":"never"},"agent_id":{"value":"never"}}]}}`)
	s.operations(t, map[string]string{"never": "OPERATION_UNKNOWN"})
	// While it is in use, it cannot be destroyed.
	body := `{"type":"DESTROY_VOLUMES","destroy_volumes":{"agent_id":{"value":"` + s.agent + `"},"volumes":[` + volumeOf(16) + `]}}`
	c.Ask(t, "POST", operatorAPI, body, "Content-Type", asJSON).Is(t, 409, "is in use")
	s.call(t, `{"type":"RECONCILE","reconcile":{"tasks":[]}}`)
	s.state(t, "writes", "TASK_RUNNING")
	s.call(t, `{"type":"KILL","kill":{"task_id":{"value":"writes"}}}`)
	s.state(t, "writes", "TASK_KILLED")

	withVolume := func(o rawOffer) bool { return strings.Contains(string(o.Resources), `"id":"conformance"`) }
	agent := s.agent
	o = s.offer(t, withVolume)
	if s.agent != agent {
		t.Errorf("the volume moved from %s to %s", agent, s.agent)
	}
	s.accept(t, o, operation("unreserve", "early", "resources", disk), s.launchOp("reads", "grep kept data/file", cpus, mem, volumeOf(16)))
	s.operations(t, map[string]string{"early": "OPERATION_ERROR"})
	s.state(t, "reads", "TASK_FINISHED")

	o = s.offer(t, withVolume)
	s.accept(t, o, operation("destroy", "d", "volumes", volumeOf(16)), operation("unreserve", "u", "resources", all))
	s.operations(t, map[string]string{"d": "OPERATION_FINISHED", "u": "OPERATION_FINISHED"})
	if left := reservedOn(t, agent); strings.Contains(left, "conformance-service") {
		t.Errorf("left: %s", left)
	}
}

// TestOperatorsOperations reserves and frees by the operator's calls, new and old.
func TestOperatorsOperations(t *testing.T) {
	var state struct {
		Slaves []struct{ ID, Hostname string }
	}
	c.Ask(t, "GET", "/mesos/slaves", "").JSON(t, &state)
	id := state.Slaves[0].ID
	disk := scalarOf("disk", 8, `,"reservations":[{"type":"DYNAMIC","role":"conformance-operator"}]`)
	volume := scalarOf("disk", 8, `,"reservations":[{"type":"DYNAMIC","role":"conformance-operator"}],"disk":{"persistence":{"id":"operator"},"volume":{"container_path":"x","mode":"RW"}}`)
	say := func(typ, field, list, agent string, code int, says ...string) {
		t.Helper()
		call := fmt.Sprintf(`{"type":%q,%q:{"agent_id":{"value":%q},%q:[%s]}}`, typ, strings.ToLower(typ), agent, field, list)
		c.Ask(t, "POST", operatorAPI, call, "Content-Type", asJSON).Is(t, code, says...)
	}
	c.Ask(t, "POST", operatorAPI, `{"type":"RESERVE_RESOURCES"}`, "Content-Type", asJSON).Is(t, 400, "Expecting 'reserve_resources' to be present")
	say("RESERVE_RESOURCES", "resources", disk, "none", 400, "No agent found with specified ID")
	say("RESERVE_RESOURCES", "resources", scalarOf("disk", 8, ""), id, 400)
	say("RESERVE_RESOURCES", "resources", scalarOf("disk", 8e9, stack), id, 409)
	say("UNRESERVE_RESOURCES", "resources", disk, id, 409)
	say("RESERVE_RESOURCES", "resources", disk, id, 202)
	if left := reservedOn(t, id); !strings.Contains(left, `"conformance-operator":{"cpus":0,"gpus":0,"mem":0,"disk":8}`) {
		t.Errorf("reserved: %s", left)
	}
	say("CREATE_VOLUMES", "volumes", volume, id, 202)
	say("CREATE_VOLUMES", "volumes", volume, id, 400, "is in use")
	target.Eventually(t, "the agent has it", func() error {
		if a := c.Ask(t, "POST", operatorAPI, `{"type":"GET_OPERATIONS"}`, "Content-Type", asJSON).Is(t, 200); strings.Contains(a.Body, id) {
			return fmt.Errorf("%s", a.Body)
		}
		return nil
	})
	form := func(path, field, list string, code int) {
		t.Helper()
		q := url.Values{"slaveId": {id}, field: {"[" + list + "]"}}
		c.Ask(t, "POST", "/mesos/master"+path, q.Encode(), "Content-Type", "application/x-www-form-urlencoded").Is(t, code)
	}
	form("/destroy-volumes", "volumes", volume, 202)
	form("/create-volumes", "volumes", volume, 202)
	form("/destroy-volumes", "volumes", volume, 202)
	form("/unreserve", "resources", disk, 202)
	form("/reserve", "resources", disk, 202)
	form("/unreserve", "resources", disk, 202)
	form("/unreserve", "resources", disk, 409)
	if left := reservedOn(t, id); strings.Contains(left, "conformance-operator") {
		t.Errorf("left: %s", left)
	}
}
