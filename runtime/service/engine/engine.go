// Package engine is one service while this master leads: it owns the service's
// framework, instances, tasks and plans, and is the only writer of their
// records.
//
// It is one loop. Whatever happens, a status, an offer, a request, changes
// memory under the engine's lock and wakes the loop, which looks at the service
// as it is: how far each plan is (plan.Evaluate), which instances are to be
// started, ended, made anew or given up, and which offers serve them
// (match.Match). A turn costs O(instances + steps), and with offers held
// O(instances to launch × agents); many events share one. Nothing depends on
// what an earlier turn remembered, so a new leader goes on where the last one
// was.
//
// Records are stored before calls are made (package outbox): an instance knows
// its reservation, its volumes and its task before the master hears of them,
// and a status is stored before it is acknowledged.
package engine

import (
	"context"
	"log/slog"
	"maps"
	mrand "math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/scheduler"
	"dcos.example/dcos/runtime/api/service"
	"dcos.example/dcos/runtime/api/wire"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/framework"
	"dcos.example/dcos/runtime/outbox"
	"dcos.example/dcos/runtime/placement"
	"dcos.example/dcos/runtime/resource"
	"dcos.example/dcos/runtime/service/plan"
	"dcos.example/dcos/runtime/service/spec"
	"dcos.example/dcos/runtime/state"
)

// failoverTimeout is how long the master keeps tasks without a framework.
const failoverTimeout = 7 * 24 * time.Hour

// CA issues certificates of the cluster's authority to tasks.
type CA interface {
	// Issue returns a key and its chain of certificates, and the cluster's
	// root, all in PEM, for the DNS names given.
	Issue(ctx context.Context, names []string, life time.Duration) (key, chain, root []byte, err error)
}

// Agent is what the master says of an agent.
type Agent struct {
	ID string
	placement.Place
	Total resource.Resources // reservations and volumes included
	Used  resource.Resources // by tasks
	// Leaving: it is drained or was deactivated, and takes nothing new.
	Leaving bool
}

// Config is what engines share.
type Config struct {
	Store  state.Backend // fenced on this term
	Master string        // base URL of the master
	Client *http.Client  // reaches Master
	CA     CA
	Vault  *Vault
	// Agents returns the agents that are registered now.
	Agents func(context.Context) ([]Agent, error)
	// Orphan returns the id of a framework of that name and role that nobody is
	// connected as, "" if there is none.
	Orphan   func(ctx context.Context, name, role string) (string, error)
	Hostname string
	WebUI    string
	Log      *slog.Logger
}

// Engine is one service. Its methods are safe for concurrent use. Those that
// change something return when the change is stored. Errors: NotFound for what
// is not there, Invalid, Conflict for what cannot be done now, Unavailable
// when this master ceases to lead.
type Engine struct {
	cfg    Config
	name   string
	role   string
	log    *slog.Logger
	out    *outbox.Box
	client atomic.Pointer[framework.Client] // set before anything is connected
	wake   chan struct{}
	over   chan struct{}   // closed when the service is uninstalled
	ctx    context.Context // of Run, for what outlives a call; it tells failure from the end

	mu         sync.Mutex
	rec        serviceRecord
	status     statusRecord
	configs    map[string]*config
	instances  map[plan.Instance]*instance
	order      []*instance     // the instances, sorted; nil when they have changed
	tasks      map[string]*run // by task id: the latest run of each task
	plans      map[string]*planRecord
	strange    map[string]claimRecord // reservations of which nothing is known, by id
	problem    string                 // why the master refuses the framework
	swept      bool                   // uninstalling: no agent has anything of ours
	claims     map[string]*claim
	offers     map[string]*mesos.Offer
	heldSince  time.Time
	flow       flow
	lookAt     time.Time // when to look again at the latest; of one turn
	lastAudit  time.Time
	soon       bool // something was given back: ask soon
	auditing   bool
	teardown   bool      // asked for
	teardownAt time.Time // no sooner
	finished   bool      // the records are being dropped
	pending    map[string]*operation
	debug      debug
	deploying  cachedPlan
}

// cachedPlan is the deployment of a target; making it costs as much as all of
// a turn.
type cachedPlan struct {
	target    string
	installed bool
	plan      plan.Plan
	ids       map[string]bool // of its steps
}

// run is one run of a task.
type run struct {
	of   *instance
	name string
	rec  *taskRecord
}

// New returns the engine of what is stored.
func New(cfg Config, s *Saved) *Engine {
	e := &Engine{
		cfg: cfg, name: s.Name, role: spec.Role(s.Name), log: cfg.Log.With("service", s.Name),
		wake: make(chan struct{}, 1), over: make(chan struct{}),
		rec: s.service, status: s.status, configs: map[string]*config{}, instances: map[plan.Instance]*instance{},
		tasks: map[string]*run{}, plans: map[string]*planRecord{}, claims: map[string]*claim{},
		strange: map[string]claimRecord{}, offers: map[string]*mesos.Offer{}, pending: map[string]*operation{},
	}
	e.out = outbox.New(cfg.Store, "store service "+s.Name, e.log)
	for key, rev := range s.revs {
		e.out.Known(key, rev)
	}
	for id, r := range s.configs {
		e.configs[id] = newConfig(r)
	}
	for id, r := range s.plans {
		e.plans[id] = &r
	}
	for id, r := range s.claims {
		e.claims[id] = &claim{claimRecord: r}
	}
	for id, r := range s.pods {
		e.adopt(&instance{id: id, rec: r})
	}
	return e
}

// Install returns the engine of a service that is not stored yet; Run stores
// it. What a service of that name left on agents that could not be reached is
// its to give back.
func Install(ctx context.Context, cfg Config, s *service.Spec, p service.Package, now time.Time) (*Engine, error) {
	saved := newSaved(s.Name)
	err := each(ctx, cfg.Store, kindClaim, map[string]*Saved{s.Name: saved}, func(s *Saved, id string, r claimRecord) { s.claims[id] = r })
	if err != nil {
		return nil, err
	}
	r, err := newRecord(cfg.Vault, s, p, nil, now)
	if err != nil {
		return nil, err
	}
	saved.configs[r.ID] = r
	saved.service = serviceRecord{Target: r.ID, Created: now}
	e := New(cfg, saved)
	e.put(kindConfig, r.ID, r)
	e.putService()
	return e, nil
}

// adopt takes an instance in.
func (e *Engine) adopt(i *instance) {
	e.instances[i.id], e.order = i, nil
	if i.rec.Tasks == nil {
		i.rec.Tasks = map[string]*taskRecord{}
	}
	for name, t := range i.rec.Tasks {
		if t.ID != "" {
			e.tasks[t.ID] = &run{i, name, t}
		}
	}
}

// Run leads until ctx ends, the term is lost, or the service is uninstalled,
// which done tells.
func (e *Engine) Run(ctx context.Context) (done bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, gctx := errgroup.WithContext(ctx)
	e.mu.Lock()
	e.ctx = gctx
	e.mu.Unlock()
	group.Go(func() error { return e.out.Run(gctx) })
	group.Go(func() error { e.work(gctx); return nil })
	group.Go(func() error { return e.connect(gctx) })
	group.Go(func() error {
		select {
		case <-gctx.Done():
		case <-e.over:
			cancel()
		}
		return nil
	})
	err = group.Wait()
	select {
	case <-e.over:
		return true, nil
	default:
	}
	return false, err
}

// refusedPause is how long after the master refused the framework it is asked
// again.
const refusedPause = 5 * time.Second

// connect keeps the framework subscribed until ctx ends or the service is
// uninstalled. What one service is refused does not concern the others.
func (e *Engine) connect(ctx context.Context) error {
	for {
		if err := e.inherit(ctx); err != nil {
			return nil // the term has ended
		}
		client, err := framework.New(framework.Config{
			Masters: []string{e.cfg.Master}, Client: e.cfg.Client, Format: wire.Protobuf, Info: e.info(),
			SuppressedRoles: []string{e.role}, Handle: e.handle, Disconnected: e.disconnected, Log: e.log,
		})
		if err != nil {
			return err
		}
		e.client.Store(client)
		err = client.Run(ctx)
		if ctx.Err() != nil {
			return nil
		}
		e.log.Error("the master refuses the framework", "err", err)
		if done, stored := e.refused(err); done {
			return nil
		} else if err := e.out.Wait(ctx, stored); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(refusedPause):
		}
	}
}

// refused handles that the master does not have the framework: because it was
// removed, as was asked for, or by somebody else, and then it is made anew; or
// because it may not be. It returns what was staged.
func (e *Engine) refused(err error) (done bool, stored <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	clear(e.offers)
	e.flow = flow{epoch: e.flow.epoch}
	e.problem = err.Error()
	if fault.Is(err, fault.NotFound) {
		if e.rec.Uninstall {
			e.finish()
			return true, nil
		}
		e.status.Framework = ""
		e.putStatus()
		e.loseTasks()
	}
	e.nudge()
	return false, e.out.Flushed()
}

// inherit takes over the framework of a leader that ended before it had stored
// its id. Without one the tasks that are stored belong to nobody.
func (e *Engine) inherit(ctx context.Context) error {
	e.mu.Lock()
	known := e.status.Framework != ""
	e.mu.Unlock()
	if known {
		return nil
	}
	for {
		id, err := e.cfg.Orphan(ctx, e.name, e.role)
		if err == nil {
			e.mu.Lock()
			defer e.mu.Unlock()
			if e.status.Framework = id; id == "" {
				e.loseTasks()
				e.nudge()
			}
			return nil
		}
		e.log.Debug("ask for the framework", "err", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// Over is closed when the service is uninstalled and its records are gone.
func (e *Engine) Over() <-chan struct{} { return e.over }

func (e *Engine) info() *mesos.FrameworkInfo {
	e.mu.Lock()
	defer e.mu.Unlock()
	info := &mesos.FrameworkInfo{
		User: proto.String("root"), Name: proto.String(e.name), Roles: []string{e.role},
		FailoverTimeout: proto.Float64(failoverTimeout.Seconds()), Checkpoint: proto.Bool(true),
	}
	if e.cfg.Hostname != "" {
		info.Hostname = proto.String(e.cfg.Hostname)
	}
	if e.cfg.WebUI != "" {
		info.WebuiUrl = proto.String(e.cfg.WebUI + "/service/" + e.name)
	}
	if e.status.Framework != "" {
		info.Id = &mesos.FrameworkID{Value: proto.String(e.status.Framework)}
	}
	for _, c := range []mesos.FrameworkInfo_Capability_Type{
		mesos.FrameworkInfo_Capability_PARTITION_AWARE, mesos.FrameworkInfo_Capability_TASK_KILLING_STATE,
		mesos.FrameworkInfo_Capability_MULTI_ROLE, mesos.FrameworkInfo_Capability_RESERVATION_REFINEMENT,
		mesos.FrameworkInfo_Capability_REGION_AWARE, mesos.FrameworkInfo_Capability_SHARED_RESOURCES,
		mesos.FrameworkInfo_Capability_GPU_RESOURCES,
	} {
		info.Capabilities = append(info.Capabilities, &mesos.FrameworkInfo_Capability{Type: c.Enum()})
	}
	return info
}

// loseTasks takes all tasks for lost: there is no framework that has them.
func (e *Engine) loseTasks() {
	for _, i := range e.instances {
		for name, t := range i.rec.Tasks {
			if t.live() || t.away() {
				t.State, t.Stop = "TASK_LOST", ""
				t.Message = "the framework was removed"
				delete(e.tasks, t.ID)
				i.rec.Tasks[name] = t
				e.save(i)
			}
		}
	}
}

// handle takes one event of the master.
func (e *Engine) handle(_ context.Context, ev *scheduler.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	switch ev.GetType() {
	case scheduler.Event_SUBSCRIBED:
		e.subscribed(ev.GetSubscribed(), now)
	case scheduler.Event_OFFERS:
		for _, o := range ev.GetOffers().GetOffers() {
			if len(e.offers) == 0 {
				e.heldSince = now
			}
			e.offers[o.GetId().GetValue()] = o
		}
	case scheduler.Event_RESCIND:
		delete(e.offers, ev.GetRescind().GetOfferId().GetValue())
	case scheduler.Event_UPDATE:
		e.update(ev.GetUpdate().GetStatus(), now)
	case scheduler.Event_UPDATE_OPERATION_STATUS:
		e.operated(ev.GetUpdateOperationStatus().GetStatus(), now)
	case scheduler.Event_FAILURE:
		e.log.Info("agent or executor failed", "agent", ev.GetFailure().GetAgentId().GetValue())
	case scheduler.Event_HEARTBEAT:
		return
	}
	e.nudge()
}

func (e *Engine) subscribed(s *scheduler.Event_Subscribed, now time.Time) {
	e.status.Framework = s.GetFrameworkId().GetValue()
	e.putStatus()
	clear(e.offers)
	clear(e.pending)
	e.flow = flow{epoch: e.flow.epoch + 1, connected: true, since: now}
	e.teardown, e.problem = false, ""
	e.lastAudit = now
	for _, r := range e.tasks {
		r.of.asked = nil // kills are sent again
	}
	e.reconcile(now)
}

func (e *Engine) disconnected(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.log.Warn("connection to the master lost", "err", err)
	clear(e.offers)
	e.flow = flow{epoch: e.flow.epoch}
}

// work looks at the service whenever something changed, until ctx ends.
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

// The loop looks by itself no later than longest after it looked last, and
// unless woken no sooner than shortest.
const (
	longest  = 10 * time.Minute
	shortest = time.Millisecond
)

// turn does everything that is due and returns when to look again at the
// latest.
func (e *Engine) turn(now time.Time) time.Duration {
	e.lookAt = now.Add(longest)
	wants := e.decide(now)
	e.audit(now)
	e.matchHeld(now, wants)
	e.steer(now, len(wants) > 0)
	return max(shortest, e.lookAt.Sub(now))
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

// call makes a call once everything staged so far is stored.
func (e *Engine) call(c *scheduler.Call) {
	e.out.After(func(ctx context.Context) {
		if err := e.client.Load().Call(ctx, c); err != nil && e.ctx.Err() == nil {
			// It is told again by reconciliation, by kill retries, or with the
			// next revive.
			e.log.Warn("call to the master", "call", c.GetType().String(), "err", err)
		}
	})
}

// change runs f under the lock, and waits until what it staged is stored.
func (e *Engine) change(ctx context.Context, f func(now time.Time) error) error {
	e.mu.Lock()
	if err := f(time.Now()); err != nil {
		e.mu.Unlock()
		return err
	}
	stored := e.out.Flushed()
	e.nudge()
	e.mu.Unlock()
	return e.out.Wait(ctx, stored)
}

func (e *Engine) put(kind state.Kind, id string, v any) { e.out.Put(kind, e.name+"@"+id, v) }

func (e *Engine) drop(kind state.Kind, id string) { e.out.Drop(kind, e.name+"@"+id) }

func (e *Engine) putService() { e.out.Put(kindService, e.name, e.rec) }

func (e *Engine) putStatus() { e.put(kindStatus, "", e.status) }

func (e *Engine) save(i *instance) { e.put(kindPod, i.id.String(), i.rec) }

// target is the configuration aimed at.
func (e *Engine) target() *config { return e.configs[e.rec.Target] }

// sorted lists the instances in order. It must not be changed.
func (e *Engine) sorted() []*instance {
	if e.order == nil {
		e.order = slices.SortedFunc(maps.Values(e.instances), func(a, b *instance) int { return a.id.Compare(b.id) })
	}
	return e.order
}

func random(n uint64) uint64 { return mrand.Uint64N(n) }

// newRecord makes a configuration of a valid spec.
func newRecord(v *Vault, s *service.Spec, p service.Package, before *configRecord, now time.Time) (configRecord, error) {
	r := configRecord{ID: newID(), At: now, Spec: s, Package: p}
	var err error
	r.Secrets, r.Prints, err = v.hide(s, before)
	return r, err
}
