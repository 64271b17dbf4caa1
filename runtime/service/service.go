// Package service keeps stateful services: it is what the SDK's schedulers
// were, one operator inside the platform instead of a process per service.
// Every installed service is a Mesos framework of its own, with pods that keep
// their place, their resources and their data.
//
//	spec      pure: what may be asked for, and what may change
//	plan      pure: phases and steps, what to work on next
//	match     pure: which offer, which reservations and volumes
//	launch    pure: the task as the master wants it
//	engine    one service while this master leads, its only writer
//	httpapi   the SDK's routes
//
// The store has everything a new leader needs; running tasks notice nothing of
// a change of leaders.
//
// Cost: a service that rests costs its subscription, a heartbeat and no offers.
// An event of one service costs O(its instances), an offer O(its instances to
// launch), whatever other services there are. Memory is O(instances).
package service

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"dcos.example/dcos/runtime/api/service"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/service/engine"
	"dcos.example/dcos/runtime/service/spec"
	"dcos.example/dcos/runtime/state"
)

// Options configure a Service.
type Options struct {
	// Master is the base URL of the master's scheduler and operator API, and
	// Client what reaches it; its Timeout must be zero.
	Master string
	Client *http.Client
	// CA issues the certificates of tasks; nil refuses specs that want any.
	CA engine.CA
	// SealKey encrypts secrets in the store: 32 bytes.
	SealKey []byte
	// Hostname of this master and WebUI, the base URL of the cluster's gateway,
	// are shown with the frameworks.
	Hostname string
	WebUI    string
	Log      *slog.Logger
}

// Service is the operator. Its methods may be called at any time; while Run
// does not lead, they are Unavailable.
type Service struct {
	opt   Options
	vault *engine.Vault

	mu   sync.Mutex
	term *term // nil while not leading
}

// term is one time of leading.
type term struct {
	cfg     engine.Config
	group   *errgroup.Group
	ctx     context.Context // of the term: engines outlive the request that makes them
	engines map[string]*engine.Engine
	putting sync.Mutex // one installation or update at a time
}

// New checks opt and returns a Service that does not lead.
func New(opt Options) (*Service, error) {
	const op = "configure service operator"
	if opt.Client == nil || opt.Log == nil || opt.Master == "" {
		return nil, fault.Newf(op, fault.Invalid, "master, client and logger are needed")
	}
	if opt.Client.Timeout != 0 {
		return nil, fault.Newf(op, fault.Invalid, "the client's timeout would end subscriptions")
	}
	if len(opt.SealKey) != 32 {
		return nil, fault.Newf(op, fault.Invalid, "the sealing key has %d bytes, 32 are needed", len(opt.SealKey))
	}
	vault, err := engine.NewVault(opt.SealKey)
	if err != nil {
		return nil, err
	}
	return &Service{opt: opt, vault: vault}, nil
}

// restartPause is how long a term that failed is followed by nothing.
const restartPause = time.Second

// Run leads with store, which should be fenced on this term, until ctx ends.
// When the state in memory may no longer be what is stored, it is read anew.
func (s *Service) Run(ctx context.Context, store state.Backend) error {
	for {
		err := s.lead(ctx, store)
		if ctx.Err() != nil {
			return nil
		}
		s.opt.Log.Error("service operator stopped, starting over", "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(restartPause):
		}
	}
}

func (s *Service) lead(ctx context.Context, store state.Backend) error {
	store = state.Restrict(store, engine.Kinds()...)
	saved, err := engine.Load(ctx, store)
	if err != nil {
		return err
	}
	group, gctx := errgroup.WithContext(ctx)
	t := &term{group: group, ctx: gctx, engines: map[string]*engine.Engine{}}
	t.cfg = engine.Config{
		Store: store, Master: s.opt.Master, Client: s.opt.Client, CA: s.opt.CA, Vault: s.vault, Agents: s.agents, Orphan: s.orphan,
		Hostname: s.opt.Hostname, WebUI: s.opt.WebUI, Log: s.opt.Log,
	}
	for name, r := range saved {
		t.engines[name] = engine.New(t.cfg, r)
	}
	group.Go(func() error { <-gctx.Done(); return nil }) // the group lives although there is no service
	s.mu.Lock()
	for _, e := range t.engines {
		s.start(t, e)
	}
	s.term = t
	s.mu.Unlock()
	s.opt.Log.Info("service operator leads", "services", len(saved))
	err = group.Wait()
	s.mu.Lock()
	s.term = nil
	s.mu.Unlock()
	return err
}

// start runs an engine until the term or the service ends.
func (s *Service) start(t *term, e *engine.Engine) {
	t.group.Go(func() error {
		done, err := e.Run(t.ctx)
		if done {
			s.mu.Lock()
			delete(t.engines, e.Name())
			s.mu.Unlock()
			return nil
		}
		return err
	})
}

// Leading reports whether the state is loaded and requests are answered here.
func (s *Service) Leading() bool {
	_, err := s.leading()
	return err == nil
}

func (s *Service) leading() (*term, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.term == nil {
		return nil, fault.Newf("ask the service operator", fault.Unavailable, "this master does not lead")
	}
	return s.term, nil
}

// engine returns a service, nil if it is not installed.
func (s *Service) engine(t *term, name string) *engine.Engine {
	s.mu.Lock()
	defer s.mu.Unlock()
	return t.engines[name]
}

func (s *Service) all(t *term) []*engine.Engine {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Values(t.engines), func(a, b *engine.Engine) int { return cmp.Compare(a.Name(), b.Name()) })
}

// List returns all services, by name.
func (s *Service) List() (service.List, error) {
	out := service.List{Services: []service.Summary{}}
	t, err := s.leading()
	if err != nil {
		return out, err
	}
	for _, e := range s.all(t) {
		out.Services = append(out.Services, e.Summary())
	}
	return out, nil
}

// Find returns an installed service: NotFound, or Unavailable.
func (s *Service) Find(name string) (*engine.Engine, error) {
	t, err := s.leading()
	if err != nil {
		return nil, err
	}
	e := s.engine(t, strings.Trim(name, "/"))
	if e == nil {
		return nil, fault.Newf("find service", fault.NotFound, "there is no service %q", name)
	}
	return e, nil
}

// maxStored bounds a configuration: the store takes requests of 1.5 MiB.
const maxStored = 1 << 20

// Put installs or updates the service name and returns when that is stored;
// created tells which. Errors: Invalid with service.Problems in its chain,
// Exists if createOnly, Conflict if the service is being uninstalled.
func (s *Service) Put(ctx context.Context, name string, r service.Request, createOnly bool) (d service.Detail, created bool, err error) {
	name = strings.Trim(name, "/")
	t, err := s.leading()
	if err != nil {
		return d, false, err
	}
	t.putting.Lock()
	defer t.putting.Unlock()
	e := s.engine(t, name)
	if e != nil && createOnly {
		return d, false, fault.Newf("install service", fault.Exists, "there is a service %q already", name)
	}
	sp, err := s.check(ctx, t, r)
	if err != nil {
		return d, false, err
	}
	if n := len(r.Spec) + len(r.Package.Definition) + len(r.Package.Options); n > maxStored {
		return d, false, invalid("install service", service.Problems{{
			Message: fmt.Sprintf("spec, package definition and options are %d bytes together; at most %d can be stored", n, maxStored),
		}})
	}
	if sp.Name != name {
		return d, false, invalid("install service", service.Problems{{Path: "name", Message: "the service is to be called " + name + ", its spec says " + sp.Name}})
	}
	if e != nil {
		if err := e.Update(ctx, sp, r.Package); err != nil {
			return d, false, err
		}
		return e.Detail(), false, nil
	}
	e, err = engine.Install(ctx, t.cfg, sp, r.Package, time.Now())
	if err != nil {
		return d, false, err
	}
	s.mu.Lock()
	t.engines[name] = e
	s.start(t, e)
	s.mu.Unlock()
	s.opt.Log.Info("installing", "service", name, "package", r.Package.Name, "version", r.Package.Version)
	if err := e.Stored(ctx); err != nil {
		return d, false, err
	}
	return e.Detail(), true, nil
}

// Check says what Put would refuse, and starts nothing. The name is the spec's.
func (s *Service) Check(ctx context.Context, r service.Request) error {
	t, err := s.leading()
	if err != nil {
		return err
	}
	_, err = s.check(ctx, t, r)
	return err
}

// Delete begins to uninstall. Conflict: other services require it, and force
// is not set. With force, what is on agents that cannot be reached is given up.
func (s *Service) Delete(ctx context.Context, name string, force bool) error {
	t, err := s.leading()
	if err != nil {
		return err
	}
	e, err := s.Find(name)
	if err != nil {
		return err
	}
	var users []string
	for _, other := range s.all(t) {
		if slices.Contains(other.Target().Requires, e.Name()) && !other.Leaving() {
			users = append(users, other.Name())
		}
	}
	if len(users) > 0 && !force {
		return fault.Newf("uninstall service", fault.Conflict, "service %s is required by %s; uninstall those first, or force it", e.Name(), strings.Join(users, ", "))
	}
	return e.Uninstall(ctx, force)
}

// invalid is the error of a spec with problems.
func invalid(op string, ps service.Problems) error { return fault.New(op, fault.Invalid, ps) }

// check reads and judges a request.
func (s *Service) check(ctx context.Context, t *term, r service.Request) (*service.Spec, error) {
	const op = "check service spec"
	text, err := specText(r)
	if err != nil {
		return nil, err
	}
	sp, lines, err := service.Parse(text)
	if err != nil {
		return nil, fault.New(op, fault.Invalid, err)
	}
	spec.Normalize(sp)
	ps := spec.Validate(sp, lines)
	e := s.engine(t, sp.Name)
	if e != nil && len(ps) == 0 {
		ps = append(ps, spec.Compare(e.Target(), sp, lines)...)
	}
	if len(ps) == 0 {
		ps = append(ps, render(sp, lines)...)
	}
	for i, name := range sp.Requires {
		if s.engine(t, name) == nil && !r.Force {
			at := fmt.Sprintf("requires[%d]", i)
			ps = append(ps, service.Problem{Path: at, Line: lines.Of(at), Message: "service " + name + " is required and is not installed; install it first"})
		}
	}
	if s.opt.CA == nil {
		ps = append(ps, wantsCA(sp, lines)...)
	}
	if len(ps) == 0 && !r.Force {
		short, err := s.admit(ctx, e, sp)
		if err != nil {
			return nil, err
		}
		for _, sh := range short {
			at := "pods." + sh.Pod
			ps = append(ps, service.Problem{Path: at, Line: lines.Of(at), Message: sh.Text})
		}
	}
	if len(ps) > 0 {
		return nil, invalid(op, ps)
	}
	return sp, nil
}
