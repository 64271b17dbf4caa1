package core

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/api/agentlink"
	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/scheduler"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/master/registry"
	"dcos.example/dcos/runtime/master/validate"
	"dcos.example/dcos/runtime/resource"
	"dcos.example/dcos/runtime/task"
)

// An operation (reserve, create, …) is decided and booked here at once, so that
// what comes after it in the same call can use its result; it is FINISHED when
// the agent has it on disk.
//
//	PENDING ──agent answers──► FINISHED ──acknowledged──► forgotten
//	   ├──agent answers with an error───► FAILED
//	   ├──agent is back without it──────► DROPPED
//	   └──agent is unreachable, gone────► UNREACHABLE, GONE_BY_OPERATOR
//
// All that an agent keeps is one document: its reservations and volumes, and
// the operations that frameworks have still to hear of. It returns the document
// when it subscribes, which makes up what was lost with a master. The master
// never corrects an agent: whenever both may differ, the stream ends, and the
// document is what holds.

const (
	firstResend = 10 * time.Second // of a status that is not acknowledged
	lastResend  = 10 * time.Minute
)

var errNoOperations = errors.New("the agent runs a release that cannot keep reservations and volumes")

type operation struct {
	uuid      string
	framework task.FrameworkID // "" for the operator's
	id        string           // "" when nobody wants to hear of it
	agent     *mesos.AgentID
	info      *mesos.Offer_Operation
	version   uint64 // of the first document with it
	status    *mesos.OperationStatus
	finished  *mesos.OperationStatus // what status becomes when it is on disk
	due       time.Time              // of telling the framework again
	pause     time.Duration
}

// document is what the agent was last sent to keep.
type document struct {
	version uint64
	changed bool   // since it was sent
	failure string // why the agent could not keep the last
}

func (o *operation) pending() bool {
	return o.status.GetState() == mesos.OperationState_OPERATION_PENDING
}

// proto writes the operation with the status s. Nothing in it changes later.
func (o *operation) proto(s *mesos.OperationStatus) *mesos.Operation {
	p := &mesos.Operation{
		AgentId: o.agent, Info: o.info, LatestStatus: s, Statuses: []*mesos.OperationStatus{s},
		Uuid: &mesos.UUID{Value: []byte(o.uuid)},
	}
	if o.framework != "" {
		p.FrameworkId = &mesos.FrameworkID{Value: proto.String(string(o.framework))}
	}
	return p
}

func newUUID() *mesos.UUID {
	u := uuid.New()
	return &mesos.UUID{Value: u[:]}
}

// takesOperations reports whether the agent answers what it is sent to keep.
func (a *agent) takesOperations() bool {
	return slices.ContainsFunc(a.capabilities, func(c *mesos.AgentInfo_Capability) bool {
		return c.GetType() == mesos.AgentInfo_Capability_AGENT_OPERATION_FEEDBACK
	})
}

// usesVolume reports whether a task or executor on the agent has the volume.
func (a *agent) usesVolume(v resource.Item) bool {
	for it := range a.used.All() {
		if it.VolumeID() == v.VolumeID() && it.Role() == v.Role() {
			return true
		}
	}
	return false
}

// rescindShared takes back offers with shared volumes that are about to cease.
func (c *Core) rescindShared(a *agent, from resource.Resources) {
	shared := from.Unallocate().Filter(resource.Item.Shared)
	if shared.Empty() {
		return
	}
	for _, o := range a.offers {
		if has := o.res.Unallocate(); !has.Sub(shared).Equal(has) {
			c.rescind(o)
		}
	}
}

// operate books a checked operation, whose resources the allocator has converted
// already. f is nil for the cluster's operator. The agent is told by flush.
func (c *Core) operate(a *agent, f *framework, op *mesos.Offer_Operation, from, to resource.Resources) {
	a.total = a.total.Sub(from.Unallocate()).Add(to.Unallocate())
	a.document.changed = true
	id := uuid.New()
	o := &operation{
		uuid: string(id[:]), id: op.GetId().GetValue(), agent: a.info.Id, info: op, version: a.document.version + 1,
		status:   &mesos.OperationStatus{OperationId: op.Id, State: mesos.OperationState_OPERATION_PENDING.Enum(), AgentId: a.info.Id},
		finished: &mesos.OperationStatus{OperationId: op.Id, State: mesos.OperationState_OPERATION_FINISHED.Enum(), AgentId: a.info.Id, ConvertedResources: to.Proto(), Uuid: newUUID()},
	}
	if f != nil {
		o.framework = f.id
	}
	a.operations[o.uuid] = o
	if f != nil && o.id != "" {
		f.operations[o.id] = o
	}
	c.version++
}

// flush sends the agent its document if it has changed.
func (c *Core) flush(a *agent) {
	delete(c.stale, a.id)
	if !a.document.changed || a.stream == nil {
		return
	}
	a.document.changed = false
	a.document.version++
	a.send(&agentlink.Downlink{CheckpointResources: a.toKeep()})
}

// toKeep is the agent's document.
func (a *agent) toKeep() *agentlink.CheckpointResources {
	d := &agentlink.CheckpointResources{Resources: a.total.Checkpointed().Proto(), Version: proto.Uint64(a.document.version)}
	for _, o := range a.operations {
		if o.framework != "" && o.id != "" && (o.pending() || o.status == o.finished) {
			d.Operations = append(d.Operations, o.proto(o.finished))
		}
	}
	return d
}

// Checkpointed takes an agent's answer to a document.
func (c *Core) Checkpointed(id task.AgentID, r *agentlink.ResourcesCheckpointed) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.agents[id]
	if a == nil {
		return
	}
	if r.GetError() != "" {
		c.log.Error("an agent cannot keep its reservations and volumes", "agent", id, "version", r.GetVersion(), "err", r.GetError())
		a.document.failure = r.GetError()
		if a.stream != nil {
			a.stream.Close("the agent could not keep a change of its resources")
		}
		return
	}
	for _, o := range a.operations {
		if o.pending() && o.version <= r.GetVersion() {
			c.settleOperation(o, o.finished)
		}
	}
}

// settleOperation gives a pending operation its last state. Its framework is
// told until it acknowledges, or once when s has no uuid.
func (c *Core) settleOperation(o *operation, s *mesos.OperationStatus) {
	o.status = s
	c.version++
	c.countOperation(o.info, s.GetState())
	f := c.frameworks[o.framework]
	if f == nil || o.id == "" || s.Uuid == nil {
		if f != nil && o.id != "" {
			f.sendOperation(s)
		}
		c.forgetOperation(o)
		return
	}
	c.unacked[o] = true
	o.pause, o.due = firstResend, c.cfg.Now().Add(firstResend)
	f.sendOperation(s)
}

// countOperation notes the outcome of an operation for the metrics.
func (c *Core) countOperation(op *mesos.Offer_Operation, s mesos.OperationState) {
	kind := "operations/" + strings.ToLower(op.GetType().String())
	c.counters["operations/total"]++
	c.counters[kind+"/total"]++
	c.counters[kind+"/"+strings.ToLower(strings.TrimPrefix(s.String(), "OPERATION_"))]++
}

// forgetOperation drops all memory of an operation; the agent's comes with the
// next document.
func (c *Core) forgetOperation(o *operation) {
	delete(c.unacked, o)
	if f := c.frameworks[o.framework]; f != nil && f.operations[o.id] == o {
		delete(f.operations, o.id)
	}
	if a := c.agents[task.AgentID(o.agent.GetValue())]; a != nil && a.operations[o.uuid] == o {
		delete(a.operations, o.uuid)
		if o.id != "" && o.status == o.finished {
			a.document.changed = true
			c.stale[a.id] = true // many acknowledgements make one document
		}
	}
	c.version++
}

// operationError tells of an operation that never began, if the framework asked
// to be told.
func (c *Core) operationError(f *framework, op *mesos.Offer_Operation, err error) {
	c.log.Warn("operation is refused", "framework", f.id, "operation", op.GetType(), "err", err)
	c.countOperation(op, mesos.OperationState_OPERATION_ERROR)
	if op.Id != nil {
		f.sendOperation(&mesos.OperationStatus{OperationId: op.Id, State: mesos.OperationState_OPERATION_ERROR.Enum(), Message: proto.String(err.Error())})
	}
}

func (f *framework) sendOperation(s *mesos.OperationStatus) {
	if len(s.ConvertedResources) > 0 && (!f.refinement || !f.multiRole) {
		if r, err := resource.FromProto(s.ConvertedResources); err == nil { // ours
			s = proto.CloneOf(s)
			s.ConvertedResources = f.resources(r)
		}
	}
	f.send(&scheduler.Event{Type: scheduler.Event_UPDATE_OPERATION_STATUS.Enum(), UpdateOperationStatus: &scheduler.Event_UpdateOperationStatus{Status: s}})
}

// tellOperations repeats to a framework what it has not acknowledged.
func (c *Core) tellOperations(f *framework) {
	for _, o := range f.operations {
		if c.unacked[o] {
			f.sendOperation(o.status)
		}
	}
}

// sweepOperations tells again what is due, and sends agents the documents that
// acknowledgements have made smaller. It costs O(statuses not acknowledged).
func (c *Core) sweepOperations() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.cfg.Now()
	for o := range c.unacked {
		if f := c.frameworks[o.framework]; f != nil && f.stream != nil && !now.Before(o.due) {
			f.sendOperation(o.status)
			o.pause = min(2*o.pause, lastResend)
			o.due = now.Add(o.pause)
		}
	}
	for id := range c.stale {
		if a := c.agents[id]; a != nil {
			c.flush(a)
		}
		delete(c.stale, id)
	}
}

// AcknowledgeOperation ends the repetition of a status.
func (c *Core) AcknowledgeOperation(id task.FrameworkID, ack *scheduler.Call_AcknowledgeOperationStatus) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counters["messages_operation_status_update_acknowledgement"]++
	f := c.frameworks[id]
	if f == nil {
		return
	}
	o := f.operations[ack.GetOperationId().GetValue()]
	if o == nil || !c.unacked[o] || string(o.status.GetUuid().GetValue()) != string(ack.GetUuid()) {
		c.counters["invalid_operation_status_update_acknowledgements"]++
		return
	}
	c.counters["valid_operation_status_update_acknowledgements"]++
	c.forgetOperation(o)
}

// ReconcileOperations answers with the latest status of the operations asked
// for, or of all, without uuid: they need no acknowledgement.
func (c *Core) ReconcileOperations(id task.FrameworkID, call *scheduler.Call_ReconcileOperations) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counters["messages_reconcile_operations"]++
	f := c.frameworks[id]
	if f == nil {
		return
	}
	if len(call.GetOperations()) == 0 {
		for _, o := range f.operations {
			f.sendOperation(o.latest())
		}
		return
	}
	for _, q := range call.Operations {
		if o := f.operations[q.GetOperationId().GetValue()]; o != nil {
			f.sendOperation(o.latest())
			continue
		}
		f.sendOperation(&mesos.OperationStatus{
			OperationId: q.OperationId, AgentId: q.AgentId, State: c.unknownOperation(task.AgentID(q.GetAgentId().GetValue())).Enum(),
			Message: proto.String("Reconciliation: Operation is unknown"),
		})
	}
}

func (o *operation) latest() *mesos.OperationStatus {
	s := proto.CloneOf(o.status)
	s.Uuid = nil
	return s
}

// unknownOperation is the state of an operation that nobody here remembers, of
// an agent or, when "", any.
func (c *Core) unknownOperation(agent task.AgentID) mesos.OperationState {
	if _, away := c.recovered[agent]; away || agent == "" && len(c.recovered) > 0 {
		return mesos.OperationState_OPERATION_RECOVERING
	}
	standing, _ := c.reg.Standing(agent)
	switch {
	case c.agents[agent] != nil:
	case standing == registry.Unreachable:
		return mesos.OperationState_OPERATION_UNREACHABLE
	case standing == registry.Gone:
		return mesos.OperationState_OPERATION_GONE_BY_OPERATOR
	}
	return mesos.OperationState_OPERATION_UNKNOWN
}

// adoptOperations makes the master's view of a's operations that of the agent,
// which has just subscribed. Those it does not have came to nothing.
func (c *Core) adoptOperations(a *agent, sub *agentlink.Subscribe) {
	failure := a.document.failure
	a.document = document{}
	kept := map[string]bool{}
	for _, p := range sub.Operations {
		id, f := string(p.GetUuid().GetValue()), c.frameworks[task.FrameworkID(p.GetFrameworkId().GetValue())]
		o := a.operations[id]
		if f == nil || p.GetInfo().GetId() == nil || o == nil && f.operations[p.GetInfo().GetId().GetValue()] != nil {
			a.document.changed = true
			c.stale[a.id] = true
			continue
		}
		kept[id] = true
		if o == nil { // of an earlier master, or acknowledged just before the agent was lost
			o = &operation{
				uuid: id, framework: f.id, id: p.GetInfo().GetId().GetValue(), agent: a.info.Id, info: p.GetInfo(),
				status: &mesos.OperationStatus{State: mesos.OperationState_OPERATION_PENDING.Enum()}, finished: p.GetLatestStatus(),
			}
			a.operations[id], f.operations[o.id] = o, o
		}
		if o.pending() {
			c.settleOperation(o, o.finished)
		}
	}
	for id, o := range a.operations {
		if kept[id] || !o.pending() {
			continue
		}
		state, message := mesos.OperationState_OPERATION_DROPPED, "The agent did not receive the operation"
		if failure != "" {
			state, message = mesos.OperationState_OPERATION_FAILED, failure
		}
		c.settleOperation(o, &mesos.OperationStatus{
			OperationId: o.info.Id, State: state.Enum(), AgentId: o.agent, Message: proto.String(message), Uuid: newUUID(),
		})
	}
}

// abandonOperations tells of pending operations on an agent that is removed.
// What it had on disk it will say if it ever returns.
func (c *Core) abandonOperations(a *agent, st task.State, message string) {
	state := mesos.OperationState_OPERATION_GONE_BY_OPERATOR
	if st == task.Unreachable {
		state = mesos.OperationState_OPERATION_UNREACHABLE
	}
	for _, o := range a.operations {
		if o.pending() {
			c.settleOperation(o, &mesos.OperationStatus{OperationId: o.info.Id, State: state.Enum(), AgentId: o.agent, Message: proto.String(message)})
		} else {
			c.forgetOperation(o)
		}
	}
	delete(c.stale, a.id)
}

// Operate applies an operation of the cluster's operator to resources of an
// agent, taking back offers that stand in its way. When it returns nil the
// agent has been told, and Snapshot has the operation until the agent answers.
func (c *Core) Operate(_ context.Context, id task.AgentID, op *mesos.Offer_Operation) error {
	const name = "operate on agent"
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.agents[id]
	switch {
	case a == nil:
		return fault.Newf(name, fault.Invalid, "No agent found with specified ID")
	case !a.connected:
		return fault.Newf(name, fault.Conflict, "Agent %s is not connected", id)
	case !a.takesOperations():
		return fault.New(name, fault.Conflict, errNoOperations)
	}
	from, to, err := validate.Conversion(op, validate.Asking{Refinement: true, Shared: true, Total: a.total, InUse: a.usesVolume})
	switch {
	case errors.Is(err, validate.ErrInUse):
		return fault.New(name, fault.Conflict, err)
	case err != nil:
		return fault.New(name, fault.Invalid, err)
	}
	if err := c.makeFree(a, from); err != nil {
		return fault.New(name, fault.Conflict, err)
	}
	c.rescindShared(a, from)
	if !c.alloc.Convert(id, from, to) {
		return fault.Newf(name, fault.Internal, "%s is not free on agent %s", from, id)
	}
	c.log.Info("an operator changed what an agent's resources are for", "agent", id, "operation", op.GetType(), "from", from, "to", to)
	c.operate(a, nil, op, from, to)
	c.flush(a)
	c.changed()
	return nil
}

// makeFree takes back as few offers of the agent as it needs for r to be free,
// or none when they do not suffice.
func (c *Core) makeFree(a *agent, r resource.Resources) error {
	free, _ := c.alloc.Free(a.id)
	if free.Contains(r) {
		return nil
	}
	all := free
	for _, o := range a.offers {
		all = all.Add(o.res.Unallocate().Exclusive())
	}
	if !all.Contains(r) {
		for it := range r.All() {
			if it.VolumeID() != "" && a.usesVolume(it) {
				return fmt.Errorf("Persistent volume '%s' %w", it.VolumeID(), validate.ErrInUse)
			}
		}
		return fmt.Errorf("%s is not contained in what the agent has free, %s", r, all)
	}
	need := r.Sub(free)
	for _, o := range a.offers {
		has := o.res.Unallocate()
		if left := need.Sub(has); !left.Equal(need) {
			need = left
			c.rescind(o)
		}
		if need.Empty() {
			break
		}
	}
	return nil
}
