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
package service

import (
	"context"
	"log/slog"
	"net/http"
	"sync"

	"dcos.example/dcos/runtime/api/service"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/service/engine"
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
	opt Options

	mu      sync.Mutex
	engines map[string]*engine.Engine // by name; nil while not leading
}

// New checks opt and returns a Service that does not lead.
func New(opt Options) (*Service, error) {
	const op = "configure service operator"
	if opt.Client == nil || opt.Log == nil || opt.Master == "" {
		return nil, fault.Newf(op, fault.Invalid, "master, client and logger are needed")
	}
	if len(opt.SealKey) != 32 {
		return nil, fault.Newf(op, fault.Invalid, "the sealing key has %d bytes, 32 are needed", len(opt.SealKey))
	}
	return &Service{opt: opt}, nil
}

// Run leads with store, which should be fenced on this term, until ctx ends.
func (s *Service) Run(ctx context.Context, store state.Backend) error {
	<-ctx.Done()
	return nil
}

// Leading reports whether the state is loaded and requests are answered here.
func (s *Service) Leading() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.engines != nil
}

var errNotLeading = fault.Newf("ask the service operator", fault.Unavailable, "this master does not lead")

// List returns all services, by name.
func (s *Service) List() (service.List, error) { return service.List{}, errNotLeading }

// Find returns an installed service: NotFound, or Unavailable.
func (s *Service) Find(name string) (*engine.Engine, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.engines == nil {
		return nil, errNotLeading
	}
	e := s.engines[name]
	if e == nil {
		return nil, fault.Newf("find service", fault.NotFound, "there is no service %q", name)
	}
	return e, nil
}

// Put installs or updates the service name and returns when that is stored;
// created tells which. Errors: Invalid with service.Problems in its chain,
// Exists if createOnly, Conflict if an update is under way or the service is
// being uninstalled.
func (s *Service) Put(ctx context.Context, name string, r service.Request, createOnly bool) (d service.Detail, created bool, err error) {
	return d, false, errNotLeading
}

// Check says what Put would refuse, and starts nothing. The name is the spec's.
func (s *Service) Check(ctx context.Context, r service.Request) error { return errNotLeading }

// Delete begins to uninstall. Conflict: other services require it, and force
// is not set.
func (s *Service) Delete(ctx context.Context, name string, force bool) error { return errNotLeading }
