// Package engine is the orchestrator while it leads: it owns all apps, their
// instances and deployments, and is the only writer of their records.
//
// Everything is in memory, indexed by app, agent and task. One mutex guards
// it; whoever holds it changes memory, stages the records that changed and the
// calls to make, and lets go. The outbox then commits the records and, only
// when they are stored, makes the calls: an instance is stored before it is
// launched, a status before it is acknowledged. Memory is thus ahead of the
// store by what is in flight; a leader that takes over repeats at most that.
//
// One loop evaluates the apps that something happened to, many events at once,
// and matches held offers. It is level-triggered: it asks the pure deciders
// what to do about the state as it is.
package engine

import (
	"context"
	"errors"
	"log/slog"
	mrand "math/rand/v2"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/api/marathon"
	"dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/scheduler"
	"dcos.example/dcos/runtime/api/wire"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/framework"
	"dcos.example/dcos/runtime/orchestrator/event"
	"dcos.example/dcos/runtime/orchestrator/spec"
	"dcos.example/dcos/runtime/outbox"
	"dcos.example/dcos/runtime/state"
)

// FrameworkName is the name users, DNS and the routes know the orchestrator by.
const FrameworkName = "marathon"

// failoverTimeout is how long the master keeps tasks without a framework.
const failoverTimeout = 7 * 24 * time.Hour

// Config is what an Engine needs.
type Config struct {
	Store  state.Backend // fenced on this term
	Master string        // base URL of the master
	Client *http.Client  // reaches Master
	Probe  *http.Client  // for readiness checks
	Policy spec.Policy
	// DefaultRoles are the roles whose resources apps use that do not say.
	DefaultRoles []string
	Hostname     string // of this master, shown with the framework
	WebUI        string // base URL of the API, shown with the framework
	Log          *slog.Logger
}

// Engine leads for one term. Its methods are safe for concurrent use once Run
// has loaded, which Loaded tells.
type Engine struct {
	cfg    Config
	log    *slog.Logger
	Events *event.Bus
	client *framework.Client
	loaded chan struct{}
	wake   chan struct{}
	out    *outbox.Box
	probes sync.WaitGroup
	ctx    context.Context // of Run, for what outlives a call: probes; it tells failure from the end

	mu          sync.Mutex
	tree        *spec.Tree
	apps        map[spec.AppID]*app
	history     history
	instances   map[string]*instance // by instance id
	tasks       map[string]*instance // by task id
	deployments map[string]*running
	lockedBy    map[spec.AppID]string
	dirty       map[spec.AppID]struct{}
	later       []spec.AppID // dirty again after this turn
	offers      map[string]*heldOffer
	departures  map[string]*departure // by agent
	wants       map[spec.AppID]*app   // that have instances to launch
	flow        flow
	timers      timers
	lookAt      time.Time // when to look again at the latest; of one turn
	frameworkID string
	homeRegion  string
	lastStamp   time.Time
}

// New returns an Engine that has not loaded anything.
func New(cfg Config) *Engine {
	return &Engine{
		cfg: cfg, log: cfg.Log, Events: event.New(),
		loaded: make(chan struct{}), wake: make(chan struct{}, 1), out: outbox.New(cfg.Store, "store orchestrator state", cfg.Log),
		tree: spec.NewTree(), apps: map[spec.AppID]*app{}, history: history{},
		instances: map[string]*instance{}, tasks: map[string]*instance{},
		deployments: map[string]*running{}, lockedBy: map[spec.AppID]string{}, dirty: map[spec.AppID]struct{}{},
		offers: map[string]*heldOffer{}, wants: map[spec.AppID]*app{}, departures: map[string]*departure{},
	}
}

// Loaded is closed when the engine has read its state and may be asked.
func (e *Engine) Loaded() <-chan struct{} { return e.loaded }

// FrameworkID returns the id the master gave us, "" before the first time.
func (e *Engine) FrameworkID() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.frameworkID
}

// Run loads the state and leads until ctx ends or the term is lost.
func (e *Engine) Run(ctx context.Context) error {
	defer e.Events.Close()
	if err := e.load(ctx); err != nil {
		return err
	}
	client, err := framework.New(framework.Config{
		Masters: []string{e.cfg.Master}, Client: e.cfg.Client, Format: wire.Protobuf, Info: e.info(),
		SuppressedRoles: []string{e.cfg.Policy.Role}, Handle: e.handle, Disconnected: e.disconnected, Log: e.log,
	})
	if err != nil {
		return err
	}
	e.client = client
	group, gctx := errgroup.WithContext(ctx)
	e.ctx = gctx
	close(e.loaded)
	group.Go(func() error { return e.out.Run(gctx) })
	group.Go(func() error { e.work(gctx); return nil })
	group.Go(func() error {
		err := client.Run(gctx)
		if fault.Is(err, fault.NotFound) {
			err = errors.Join(err, e.forgetFramework(gctx))
		}
		return err
	})
	err = group.Wait()
	e.probes.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (e *Engine) info() *mesos.FrameworkInfo {
	info := &mesos.FrameworkInfo{
		User: proto.String("root"), Name: proto.String(FrameworkName), Roles: []string{e.cfg.Policy.Role},
		FailoverTimeout: proto.Float64(failoverTimeout.Seconds()), Checkpoint: proto.Bool(true),
	}
	info.Labels = &mesos.Labels{Labels: []*mesos.Label{{Key: proto.String(wire.LabelMovesTasks), Value: proto.String("true")}}}
	if e.cfg.Hostname != "" {
		info.Hostname = proto.String(e.cfg.Hostname)
	}
	if e.cfg.WebUI != "" {
		info.WebuiUrl = proto.String(e.cfg.WebUI)
	}
	if e.frameworkID != "" {
		info.Id = &mesos.FrameworkID{Value: proto.String(e.frameworkID)}
	}
	for _, c := range []mesos.FrameworkInfo_Capability_Type{
		mesos.FrameworkInfo_Capability_PARTITION_AWARE, mesos.FrameworkInfo_Capability_TASK_KILLING_STATE,
		mesos.FrameworkInfo_Capability_MULTI_ROLE, mesos.FrameworkInfo_Capability_RESERVATION_REFINEMENT,
		mesos.FrameworkInfo_Capability_REGION_AWARE, mesos.FrameworkInfo_Capability_GPU_RESOURCES,
	} {
		info.Capabilities = append(info.Capabilities, &mesos.FrameworkInfo_Capability{Type: c.Enum()})
	}
	return info
}

// handle takes one event of the master.
func (e *Engine) handle(_ context.Context, ev *scheduler.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch ev.GetType() {
	case scheduler.Event_SUBSCRIBED:
		e.subscribed(ev.GetSubscribed())
	case scheduler.Event_OFFERS:
		e.offered(ev.GetOffers().GetOffers())
	case scheduler.Event_RESCIND:
		delete(e.offers, ev.GetRescind().GetOfferId().GetValue())
	case scheduler.Event_UPDATE:
		e.update(ev.GetUpdate().GetStatus())
	case scheduler.Event_INVERSE_OFFERS:
		e.asked(ev.GetInverseOffers().GetInverseOffers(), time.Now())
	case scheduler.Event_RESCIND_INVERSE_OFFER:
		e.askedNoMore(ev.GetRescindInverseOffer().GetInverseOfferId().GetValue())
	case scheduler.Event_MESSAGE:
		m := ev.GetMessage()
		e.publish("framework_message_event", event.Fields{
			"executorId": m.GetExecutorId().GetValue(), "slaveId": m.GetAgentId().GetValue(), "message": m.GetData(),
		})
	case scheduler.Event_FAILURE:
		e.log.Info("agent or executor failed", "agent", ev.GetFailure().GetAgentId().GetValue())
	}
	e.nudge()
}

func (e *Engine) subscribed(s *scheduler.Event_Subscribed) {
	id := s.GetFrameworkId().GetValue()
	master := s.GetMasterInfo().GetHostname()
	e.homeRegion = s.GetMasterInfo().GetDomain().GetFaultDomain().GetRegion().GetName()
	if e.frameworkID == "" {
		e.publish("scheduler_registered_event", event.Fields{"frameworkId": id, "master": master})
	} else {
		e.publish("scheduler_reregistered_event", event.Fields{"master": master})
	}
	if e.frameworkID != id {
		e.frameworkID = id
		e.put(kindFramework, FrameworkName, frameworkRecord{id})
	}
	clear(e.offers)
	e.flow = flow{epoch: e.flow.epoch + 1, connected: true}
	e.confirmDepartures()
	e.reconcile()
	for _, i := range e.instances {
		if i.stopping() {
			e.call(killCall(i.rec.Task, i.rec.Agent))
		}
	}
	e.dirtyAll()
}

func (e *Engine) disconnected(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.log.Warn("connection to the master lost", "err", err)
	clear(e.offers)
	e.flow = flow{epoch: e.flow.epoch}
	e.publish("scheduler_disconnected_event", event.Fields{})
}

// forgetFramework drops an id that the master has removed for good, so that
// the next term subscribes as a new framework.
func (e *Engine) forgetFramework(ctx context.Context) error {
	e.log.Error("the master has removed the framework, its tasks are gone", "framework", e.FrameworkID())
	e.mu.Lock()
	e.drop(kindFramework, FrameworkName)
	done := e.out.Flushed()
	e.mu.Unlock()
	return e.out.Wait(ctx, done)
}

// work evaluates what changed until ctx ends.
func (e *Engine) work(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.wake:
		case <-timer.C:
		}
		e.mu.Lock()
		next := e.turn(time.Now())
		e.mu.Unlock()
		timer.Reset(next)
	}
}

// turn does everything that is due and returns when to look again at the
// latest.
func (e *Engine) turn(now time.Time) time.Duration {
	e.lookAt = now.Add(time.Hour)
	e.timers.run(now)
	e.evaluateDirty(now)
	e.matchHeld(now)
	e.steer(now)
	return max(0, min(e.timers.next(now), e.lookAt.Sub(now)))
}

// lookAgain makes the loop look at t at the latest.
func (e *Engine) lookAgain(t time.Time) {
	if t.Before(e.lookAt) {
		e.lookAt = t
	}
}

// nudge makes the loop look.
func (e *Engine) nudge() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

func (e *Engine) markDirty(id spec.AppID) { e.dirty[id] = struct{}{} }

func (e *Engine) dirtyAll() {
	for id := range e.apps {
		e.markDirty(id)
	}
}

// call makes a call once everything staged so far is stored.
func (e *Engine) call(c *scheduler.Call) {
	e.out.After(func(ctx context.Context) {
		if err := e.client.Call(ctx, c); err != nil && e.ctx.Err() == nil {
			// What was to be told to the master is told again by
			// reconciliation, by kill retries, or with the next revive.
			e.log.Warn("call to the master", "call", c.GetType().String(), "err", err)
		}
	})
}

func (e *Engine) publish(typ string, f event.Fields) { e.Events.Publish(typ, f, time.Now()) }

// stamp returns a new version: now, and later than any before.
func (e *Engine) stamp() string {
	now := time.Now().UTC().Truncate(time.Millisecond)
	if !now.After(e.lastStamp) {
		now = e.lastStamp.Add(time.Millisecond)
	}
	e.lastStamp = now
	return marathon.Time(now)
}

func random(n uint64) uint64 { return mrand.Uint64N(n) }
