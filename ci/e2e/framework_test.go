//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"testing"

	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/scheduler"
	"dcos.example/dcos/runtime/api/wire"
)

// framework is a small scheduler that speaks the Mesos v1 API through a
// gateway, written against the protocol alone.
type framework struct {
	c      *cluster
	format wire.Format
	stream string
	id     *mesos.FrameworkID
}

func (f *framework) post(ctx context.Context, call *scheduler.Call) (*http.Response, error) {
	call.FrameworkId = f.id
	body, err := f.format.Marshal(call)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, "POST", "https://"+f.c.masters[0]+"/mesos/api/v1/scheduler", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", f.format.ContentType())
	req.Header.Set("Accept", f.format.ContentType())
	req.Header.Set("Authorization", "token="+f.c.token)
	if f.stream != "" {
		req.Header.Set(wire.HeaderStreamID, f.stream)
	}
	return f.c.http.Do(req)
}

func (f *framework) call(t *testing.T, ctx context.Context, call *scheduler.Call) {
	t.Helper()
	resp, err := f.post(ctx, call)
	must(t, err)
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusAccepted {
		t.Fatalf("%s: %s: %s", call.GetType(), resp.Status, b)
	}
}

// runFramework registers a framework, which runs one task to its end.
func (c *cluster) runFramework(t *testing.T, format wire.Format) {
	ctx, cancel := context.WithTimeout(interrupted, patience)
	defer cancel()
	f := &framework{c: c, format: format}
	resp, err := f.post(ctx, &scheduler.Call{Type: scheduler.Call_SUBSCRIBE.Enum(), Subscribe: &scheduler.Call_Subscribe{
		FrameworkInfo: &mesos.FrameworkInfo{User: proto.String("root"), Name: proto.String("e2e-" + t.Name()), Roles: []string{"e2e"},
			Capabilities: []*mesos.FrameworkInfo_Capability{{Type: mesos.FrameworkInfo_Capability_MULTI_ROLE.Enum()}}},
	}})
	must(t, err)
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(resp.Body)
		t.Fatalf("SUBSCRIBE: %s: %s", resp.Status, b)
	}
	f.stream = resp.Header.Get(wire.HeaderStreamID)
	records := wire.NewRecordReader(resp.Body, 1<<20)
	launched := false
	var states []mesos.TaskState
	for {
		record, err := records.Read()
		must(t, err)
		event := &scheduler.Event{}
		must(t, format.Unmarshal(record, event))
		switch event.GetType() {
		case scheduler.Event_SUBSCRIBED:
			f.id = event.GetSubscribed().GetFrameworkId()
		case scheduler.Event_OFFERS:
			for _, o := range event.GetOffers().GetOffers() {
				f.answer(t, ctx, o, launched)
				launched = true
			}
		case scheduler.Event_UPDATE:
			s := event.GetUpdate().GetStatus()
			states = append(states, s.GetState())
			if s.Uuid != nil {
				f.call(t, ctx, &scheduler.Call{Type: scheduler.Call_ACKNOWLEDGE.Enum(), Acknowledge: &scheduler.Call_Acknowledge{
					AgentId: s.GetAgentId(), TaskId: s.GetTaskId(), Uuid: s.GetUuid()}})
			}
			switch s.GetState() {
			case mesos.TaskState_TASK_STARTING, mesos.TaskState_TASK_RUNNING:
			case mesos.TaskState_TASK_FINISHED:
				f.call(t, ctx, &scheduler.Call{Type: scheduler.Call_TEARDOWN.Enum()})
				if len(states) < 2 || states[len(states)-2] != mesos.TaskState_TASK_RUNNING {
					t.Errorf("the task went through %v", states)
				}
				return
			default:
				t.Fatalf("the task went through %v: %v", states, s)
			}
		case scheduler.Event_ERROR, scheduler.Event_FAILURE:
			t.Fatalf("event: %v", event)
		}
	}
}

// answer launches the task on the first offer and declines the others.
func (f *framework) answer(t *testing.T, ctx context.Context, o *mesos.Offer, decline bool) {
	t.Helper()
	if decline {
		f.call(t, ctx, &scheduler.Call{Type: scheduler.Call_DECLINE.Enum(), Decline: &scheduler.Call_Decline{OfferIds: []*mesos.OfferID{o.GetId()}}})
		return
	}
	scalar := func(name string, v float64) *mesos.Resource {
		return &mesos.Resource{Name: &name, Type: mesos.Value_SCALAR.Enum(), Scalar: &mesos.Value_Scalar{Value: &v},
			AllocationInfo: &mesos.Resource_AllocationInfo{Role: proto.String("e2e")}}
	}
	info := &mesos.TaskInfo{
		Name: proto.String("e2e"), TaskId: &mesos.TaskID{Value: proto.String(fmt.Sprintf("e2e-%d", f.format))}, AgentId: o.GetAgentId(),
		Resources: []*mesos.Resource{scalar("cpus", 0.1), scalar("mem", 32)},
		Command:   &mesos.CommandInfo{Value: proto.String("test \"$WORD\" = word"), Environment: &mesos.Environment{Variables: []*mesos.Environment_Variable{{Name: proto.String("WORD"), Value: proto.String("word")}}}},
	}
	f.call(t, ctx, &scheduler.Call{Type: scheduler.Call_ACCEPT.Enum(), Accept: &scheduler.Call_Accept{
		OfferIds: []*mesos.OfferID{o.GetId()}, Operations: []*mesos.Offer_Operation{{
			Type: mesos.Offer_Operation_LAUNCH.Enum(), Launch: &mesos.Offer_Operation_Launch{TaskInfos: []*mesos.TaskInfo{info}}}},
	}})
}
