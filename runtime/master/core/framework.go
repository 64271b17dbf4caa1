package core

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/allocator"
	"dcos.example/dcos/runtime/api/agentlink"
	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/master"
	"dcos.example/dcos/runtime/api/mesos/scheduler"
	"dcos.example/dcos/runtime/api/wire"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/master/session"
	"dcos.example/dcos/runtime/master/validate"
	"dcos.example/dcos/runtime/resource"
	"dcos.example/dcos/runtime/task"
)

type framework struct {
	id         task.FrameworkID
	info       *mesos.FrameworkInfo
	roles      []string
	suppressed map[string]bool
	stream     *session.Stream // nil: not connected
	recovered  bool            // known from the registry, never connected in this term

	multiRole, refinement, partitionAware, shared bool

	mover bool // it moves its tasks off draining agents itself

	registered, reregistered, unregistered time.Time
	deadline                               time.Time // removed after, while not connected

	tasks  map[task.ID]*record
	done   []*mesos.Task // completed, oldest first
	offers map[task.OfferID]*offer

	operations map[string]*operation // by the id that the framework gave

	used, offered resource.Resources // scalars only: ranges of many agents do not add up
}

// scalars drops ranges and sets.
func scalars(r resource.Resources) resource.Resources {
	return r.Filter(func(i resource.Item) bool { return i.Kind() == resource.KindScalar })
}

func failoverTimeout(f *mesos.FrameworkInfo) time.Duration {
	return time.Duration(f.GetFailoverTimeout() * float64(time.Second))
}

// addFramework makes the record of a framework that is not connected.
func (c *Core) addFramework(id task.FrameworkID, info *mesos.FrameworkInfo, registered time.Time) *framework {
	f := &framework{id: id, recovered: true, registered: registered, tasks: map[task.ID]*record{}, offers: map[task.OfferID]*offer{}, suppressed: map[string]bool{}, operations: map[string]*operation{}}
	f.setInfo(info)
	c.frameworks[id] = f
	c.alloc.AddFramework(f.allocatorView(), false)
	return f
}

func (f *framework) setInfo(info *mesos.FrameworkInfo) {
	f.info = info
	f.roles, _ = validate.Roles(info) // checked before it got here
	f.multiRole = validate.HasCapability(info, mesos.FrameworkInfo_Capability_MULTI_ROLE)
	f.refinement = validate.HasCapability(info, mesos.FrameworkInfo_Capability_RESERVATION_REFINEMENT)
	f.partitionAware = validate.HasCapability(info, mesos.FrameworkInfo_Capability_PARTITION_AWARE)
	f.shared = validate.HasCapability(info, mesos.FrameworkInfo_Capability_SHARED_RESOURCES)
	f.mover = slices.ContainsFunc(info.GetLabels().GetLabels(), func(l *mesos.Label) bool {
		return l.GetKey() == wire.LabelMovesTasks && l.GetValue() == "true"
	})
}

func (f *framework) allocatorView() allocator.Framework {
	v := allocator.Framework{
		ID: f.id, Roles: f.roles, Refinement: f.refinement,
		Revocable:   validate.HasCapability(f.info, mesos.FrameworkInfo_Capability_REVOCABLE_RESOURCES),
		GPU:         validate.HasCapability(f.info, mesos.FrameworkInfo_Capability_GPU_RESOURCES),
		Shared:      f.shared,
		RegionAware: validate.HasCapability(f.info, mesos.FrameworkInfo_Capability_REGION_AWARE),
	}
	for _, r := range f.roles {
		if f.suppressed[r] {
			v.Suppressed = append(v.Suppressed, r)
		}
	}
	return v
}

// resources writes r as the framework understands it.
func (f *framework) resources(r resource.Resources) []*mesos.Resource {
	if !f.multiRole {
		r = r.Unallocate()
	}
	if f.refinement {
		return r.Proto()
	}
	return r.ProtoLegacy()
}

func (f *framework) send(e *scheduler.Event) bool {
	return f.stream != nil && f.stream.Send(e)
}

func (f *framework) sendOffers(offers []*mesos.Offer) {
	f.send(&scheduler.Event{Type: scheduler.Event_OFFERS.Enum(), Offers: &scheduler.Event_Offers{Offers: offers}})
}

func (f *framework) sendRescind(id task.OfferID) {
	f.send(&scheduler.Event{Type: scheduler.Event_RESCIND.Enum(), Rescind: &scheduler.Event_Rescind{OfferId: &mesos.OfferID{Value: proto.String(string(id))}}})
}

func (f *framework) sendUpdate(s *mesos.TaskStatus) {
	if got := task.ForFramework(s.GetState(), f.partitionAware); got != s.GetState() {
		s = proto.CloneOf(s)
		s.State = got.Enum()
	}
	f.send(&scheduler.Event{Type: scheduler.Event_UPDATE.Enum(), Update: &scheduler.Event_Update{Status: s}})
}

// ErrorEvent is how a subscription that makes no sense is answered.
func ErrorEvent(message string) *scheduler.Event {
	return &scheduler.Event{Type: scheduler.Event_ERROR.Enum(), Error: &scheduler.Event_Error{Message: proto.String(message)}}
}

// HeartbeatEvent is what a scheduler's stream repeats.
func HeartbeatEvent() *scheduler.Event {
	return &scheduler.Event{Type: scheduler.Event_HEARTBEAT.Enum()}
}

// SubscribeFramework opens or takes over a framework's stream. A fault.Invalid
// or fault.Denied is for the scheduler to read in an ERROR event.
func (c *Core) SubscribeFramework(ctx context.Context, sub *scheduler.Call_Subscribe, format wire.Format) (task.FrameworkID, *session.Stream, error) {
	const op = "subscribe framework"
	info := proto.CloneOf(sub.GetFrameworkInfo())
	if err := validate.Framework(info, sub.SuppressedRoles); err != nil {
		return "", nil, fault.New(op, fault.Invalid, err)
	}
	accepts, err := compileConstraints(sub.GetOfferConstraints())
	if err != nil {
		return "", nil, fault.New(op, fault.Invalid, err)
	}
	now := c.cfg.Now()
	id := task.FrameworkID(info.GetId().GetValue())
	if id == "" {
		id = c.newFrameworkID()
		info.Id = &mesos.FrameworkID{Value: proto.String(string(id))}
	} else if old, found := c.reg.Framework(id); found && old.Removed == nil {
		if old.Info.GetPrincipal() != info.GetPrincipal() {
			return "", nil, fault.Newf(op, fault.Invalid, "Changing framework's principal is not allowed.")
		}
		info.User, info.Checkpoint = old.Info.User, old.Info.Checkpoint
	}
	if err := c.reg.PutFramework(ctx, now, info); err != nil {
		return "", nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.ended(op); err != nil {
		return "", nil, err
	}
	if stored, _ := c.reg.Framework(id); stored.Removed != nil { // meanwhile
		return "", nil, fault.Newf(op, fault.Denied, "Framework has been removed")
	}
	c.counters["messages_register_framework"]++
	f := c.frameworks[id]
	added := f == nil
	if added {
		f = c.addFramework(id, info, now)
	} else {
		f.reregistered = now
		if f.stream != nil {
			f.stream.Send(ErrorEvent("Framework failed over"))
			f.stream.Close("framework failed over")
			f.stream = nil
		}
		c.recoverOffers(f)
		c.dropInverses(f)
	}
	f.setInfo(info)
	f.recovered = false
	clear(f.suppressed)
	for _, r := range sub.SuppressedRoles {
		f.suppressed[r] = true
	}
	f.stream = session.New(format, frameworkQueue)
	f.send(&scheduler.Event{Type: scheduler.Event_SUBSCRIBED.Enum(), Subscribed: &scheduler.Event_Subscribed{
		FrameworkId: info.Id, HeartbeatIntervalSeconds: proto.Float64(Heartbeat.Seconds()), MasterInfo: c.Info,
	}})
	f.send(HeartbeatEvent())
	for _, r := range f.tasks {
		if r.unacked != nil {
			f.sendUpdate(r.unacked)
		}
	}
	c.tellOperations(f)
	c.syncInversesOf(f)
	view := f.allocatorView()
	if accepts != nil {
		view.Accepts = func(role string, id task.AgentID) bool { return accepts(role, c.agents[id].info) }
	}
	c.alloc.AddFramework(view, true)
	if added {
		c.publish(&master.Event{Type: master.Event_FRAMEWORK_ADDED.Enum(), FrameworkAdded: &master.Event_FrameworkAdded{Framework: f.summary().Proto()}})
	} else {
		c.frameworkUpdated(f)
		for _, a := range c.agentsOf(f) {
			a.send(&agentlink.Downlink{UpdateFramework: &agentlink.UpdateFramework{Framework: info}})
		}
	}
	c.log.Info("framework subscribed", "framework", id, "name", info.GetName(), "roles", f.roles, "new", added)
	c.changed()
	return id, f.stream, nil
}

func (c *Core) newFrameworkID() task.FrameworkID {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := task.FrameworkID(fmt.Sprintf("%s-%04d", c.Info.GetId(), c.numbers.framework))
	c.numbers.framework++
	return id
}

func (c *Core) frameworkUpdated(f *framework) {
	c.publish(&master.Event{Type: master.Event_FRAMEWORK_UPDATED.Enum(), FrameworkUpdated: &master.Event_FrameworkUpdated{Framework: f.summary().Proto()}})
}

// UpdateFramework changes what a subscribed framework says of itself.
func (c *Core) UpdateFramework(ctx context.Context, id task.FrameworkID, call *scheduler.Call_UpdateFramework) error {
	const op = "update framework"
	info := proto.CloneOf(call.GetFrameworkInfo())
	if err := validate.Framework(info, call.SuppressedRoles); err != nil {
		return fault.New(op, fault.Invalid, err)
	}
	accepts, err := compileConstraints(call.GetOfferConstraints())
	if err != nil {
		return fault.New(op, fault.Invalid, err)
	}
	old, found := c.reg.Framework(id)
	switch {
	case !found || old.Removed != nil:
		return fault.Newf(op, fault.Conflict, "framework %s has been removed", id)
	case info.GetPrincipal() != old.Info.GetPrincipal(), info.GetUser() != old.Info.GetUser(), info.GetCheckpoint() != old.Info.GetCheckpoint():
		return fault.Newf(op, fault.Invalid, "Updating 'FrameworkInfo.user', '.checkpoint' or '.principal' is unsupported")
	}
	info.Id = old.Info.Id
	if err := c.reg.PutFramework(ctx, c.cfg.Now(), info); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.frameworks[id]
	if f == nil {
		return fault.Newf(op, fault.Conflict, "framework %s has been removed", id)
	}
	f.setInfo(info)
	clear(f.suppressed)
	for _, r := range call.SuppressedRoles {
		f.suppressed[r] = true
	}
	for _, o := range f.offers {
		if !slices.Contains(f.roles, o.role) {
			c.rescind(o)
		}
	}
	c.syncInversesOf(f)
	view := f.allocatorView()
	if accepts != nil {
		view.Accepts = func(role string, id task.AgentID) bool { return accepts(role, c.agents[id].info) }
	}
	c.alloc.AddFramework(view, f.stream != nil)
	for _, a := range c.agentsOf(f) {
		a.send(&agentlink.Downlink{UpdateFramework: &agentlink.UpdateFramework{Framework: info}})
	}
	c.frameworkUpdated(f)
	c.changed()
	return nil
}

// recoverOffers takes back all offers of a framework that will not answer.
func (c *Core) recoverOffers(f *framework) {
	for _, o := range f.offers {
		c.dropOffer(o)
		c.alloc.Recover(c.cfg.Now(), o.agent.id, f.id, o.res, allocator.Refusal{})
	}
}

// agentsOf returns the agents with tasks or executors of f.
func (c *Core) agentsOf(f *framework) []*agent {
	seen := map[task.AgentID]bool{}
	var out []*agent
	for _, r := range f.tasks {
		if a := c.agents[r.agent]; a != nil && !seen[r.agent] {
			seen[r.agent] = true
			out = append(out, a)
		}
	}
	return out
}

// FrameworkDisconnected notes that stream has ended. Another stream of the
// same framework is not touched.
func (c *Core) FrameworkDisconnected(id task.FrameworkID, stream *session.Stream) {
	c.mu.Lock()
	f := c.frameworks[id]
	if f == nil || f.stream != stream {
		c.mu.Unlock()
		return
	}
	timeout := failoverTimeout(f.info)
	f.stream = nil
	f.deadline = c.cfg.Now().Add(timeout)
	c.alloc.SetActive(id, false)
	c.recoverOffers(f)
	c.dropInverses(f)
	c.frameworkUpdated(f)
	c.log.Info("framework disconnected", "framework", id, "reason", stream.Reason(), "failover_timeout", timeout)
	c.changed()
	c.mu.Unlock()
}

// RemoveFramework ends a framework for good: its tasks are killed and its id is
// never accepted again.
func (c *Core) RemoveFramework(ctx context.Context, id task.FrameworkID) error {
	now := c.cfg.Now()
	c.mu.Lock()
	known := c.frameworks[id] != nil
	c.mu.Unlock()
	if !known {
		return fault.Newf("tear down framework", fault.NotFound, "No framework found with specified ID")
	}
	if err := c.reg.RemoveFramework(ctx, now, id); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.frameworks[id]
	if f == nil {
		return nil
	}
	c.log.Info("framework removed", "framework", id, "name", f.info.GetName(), "tasks", len(f.tasks))
	c.counters["messages_unregister_framework"]++
	for _, a := range c.agents {
		if a.hasFramework(id) {
			a.send(&agentlink.Downlink{ShutdownFramework: &agentlink.ShutdownFramework{FrameworkId: f.info.Id}})
		}
	}
	for _, r := range f.tasks {
		if !task.Terminal(r.state) {
			c.setState(f, r, c.status(r.key.id, r.agent, task.Killed, mesos.TaskStatus_REASON_FRAMEWORK_REMOVED, "Framework "+string(id)+" removed"))
		}
		c.forget(f, r)
	}
	for _, a := range c.agents {
		for key := range a.executors {
			if key.framework == id {
				c.removeExecutor(a, key)
			}
		}
	}
	c.recoverOffers(f)
	c.dropInverses(f)
	for _, o := range f.operations {
		c.forgetOperation(o)
	}
	c.alloc.RemoveFramework(id)
	if f.stream != nil {
		f.stream.Close("framework removed")
		f.stream = nil
	}
	f.unregistered = now
	delete(c.frameworks, id)
	if c.completed = append(c.completed, f); len(c.completed) > maxCompleted {
		c.completed = c.completed[1:]
	}
	c.publish(&master.Event{Type: master.Event_FRAMEWORK_REMOVED.Enum(), FrameworkRemoved: &master.Event_FrameworkRemoved{FrameworkInfo: f.info}})
	c.changed()
	return nil
}

// Suppress and Revive stop and start offers for roles, or all roles.
func (c *Core) Suppress(id task.FrameworkID, roles []string) { c.suppress(id, roles, true) }
func (c *Core) Revive(id task.FrameworkID, roles []string)   { c.suppress(id, roles, false) }

func (c *Core) suppress(id task.FrameworkID, roles []string, on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.frameworks[id]
	if f == nil {
		return
	}
	if len(roles) == 0 {
		roles = f.roles
	}
	for _, r := range roles {
		f.suppressed[r] = on
	}
	if on {
		c.alloc.Suppress(id, roles...)
	} else {
		c.counters["messages_revive_offers"]++
		c.alloc.Revive(id, roles...)
	}
	c.changed()
}

// Session says what stands between a scheduler and its calls.
type Session int

const (
	SessionOK Session = iota
	SessionUnknown
	SessionDisconnected
	SessionStale
)

// CheckSession reports whether a call with streamID may act for framework id.
func (c *Core) CheckSession(id task.FrameworkID, streamID string) Session {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.frameworks[id]
	switch {
	case f == nil:
		return SessionUnknown
	case f.stream == nil:
		return SessionDisconnected
	case f.stream.ID != streamID:
		return SessionStale
	}
	c.counters["frameworks/"+string(id)+"/calls"]++
	return SessionOK
}

// compileConstraints turns offer constraints into a predicate; nil accepts all.
func compileConstraints(oc *scheduler.OfferConstraints) (func(role string, a *mesos.AgentInfo) bool, error) {
	if len(oc.GetRoleConstraints()) == 0 {
		return nil, nil
	}
	compiled := map[string][][]func(*mesos.AgentInfo) bool{}
	for role, rc := range oc.RoleConstraints {
		if len(rc.Groups) == 0 {
			return nil, fmt.Errorf("offer constraints of role '%s' have no groups", role)
		}
		for _, g := range rc.Groups {
			var all []func(*mesos.AgentInfo) bool
			for _, ac := range g.AttributeConstraints {
				p, err := compileConstraint(ac)
				if err != nil {
					return nil, fmt.Errorf("offer constraints of role '%s': %w", role, err)
				}
				all = append(all, p)
			}
			if len(all) == 0 {
				return nil, fmt.Errorf("offer constraints of role '%s' have an empty group", role)
			}
			compiled[role] = append(compiled[role], all)
		}
	}
	return func(role string, a *mesos.AgentInfo) bool {
		groups, ok := compiled[role]
		return !ok || slices.ContainsFunc(groups, func(all []func(*mesos.AgentInfo) bool) bool {
			return !slices.ContainsFunc(all, func(p func(*mesos.AgentInfo) bool) bool { return !p(a) })
		})
	}, nil
}

func compileConstraint(ac *scheduler.AttributeConstraint) (func(*mesos.AgentInfo) bool, error) {
	test := func(string, bool) bool { return true } // value, and whether it is there
	switch p := ac.GetPredicate(); {
	case p.GetExists() != nil:
		test = func(_ string, ok bool) bool { return ok }
	case p.GetNotExists() != nil:
		test = func(_ string, ok bool) bool { return !ok }
	case p.GetTextEquals() != nil:
		test = func(v string, ok bool) bool { return ok && v == p.GetTextEquals().GetValue() }
	case p.GetTextNotEquals() != nil:
		test = func(v string, ok bool) bool { return !ok || v != p.GetTextNotEquals().GetValue() }
	case p.GetTextMatches() != nil, p.GetTextNotMatches() != nil:
		want, text := true, p.GetTextMatches().GetRegex()
		if p.GetTextNotMatches() != nil {
			want, text = false, p.GetTextNotMatches().GetRegex()
		}
		re, err := regexp.Compile("^(?:" + text + ")$")
		if err != nil {
			return nil, err
		}
		test = func(v string, ok bool) bool { return (ok && re.MatchString(v)) == want }
	default:
		return nil, fmt.Errorf("predicate is not set or not known")
	}
	sel := ac.GetSelector()
	if name := sel.GetAttributeName(); name != "" {
		return func(a *mesos.AgentInfo) bool {
			for _, at := range a.Attributes {
				if at.GetName() == name {
					return at.GetType() != mesos.Value_TEXT || test(at.GetText().GetValue(), true)
				}
			}
			return test("", false)
		}, nil
	}
	domain := func(a *mesos.AgentInfo) *mesos.DomainInfo_FaultDomain { return a.GetDomain().GetFaultDomain() }
	switch sel.GetPseudoattributeType() {
	case scheduler.AttributeConstraint_Selector_HOSTNAME:
		return func(a *mesos.AgentInfo) bool { return test(a.GetHostname(), true) }, nil
	case scheduler.AttributeConstraint_Selector_REGION:
		return func(a *mesos.AgentInfo) bool { return test(domain(a).GetRegion().GetName(), domain(a) != nil) }, nil
	case scheduler.AttributeConstraint_Selector_ZONE:
		return func(a *mesos.AgentInfo) bool { return test(domain(a).GetZone().GetName(), domain(a) != nil) }, nil
	}
	return nil, fmt.Errorf("selector is not set or not known")
}
