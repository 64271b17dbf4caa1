// Package orchestrator keeps apps running: Marathon's API in front, a Mesos
// framework behind. Every master serves the API; the leading one runs the
// engine, the others hand requests to it.
//
//	spec        what users wrote, in one canonical form
//	deployment  pure: which steps, what to launch and kill now
//	launch      pure: which offer, which task
//	health      pure: checks for agents, verdicts from agents
//	event       who listens to what happens
//	engine      the state while leading, its only writer
//	httpapi     Marathon's routes, codes and texts
package orchestrator

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"dcos.example/dcos/runtime/api/marathon"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/orchestrator/engine"
	"dcos.example/dcos/runtime/orchestrator/httpapi"
	"dcos.example/dcos/runtime/orchestrator/spec"
	"dcos.example/dcos/runtime/state"
)

// Version is the Marathon version whose API this is.
const Version = "1.11.24"

// DefaultRole is the framework's role, as in DC/OS: public agents reserve
// their resources for it.
const DefaultRole = "slave_public"

// Options configure an Orchestrator.
type Options struct {
	// Master is the base URL of the master's scheduler API, and Client what
	// reaches it; its Timeout must be zero.
	Master string
	Client *http.Client
	// Leader returns the base URL of the leading master's orchestrator API,
	// such as "http://10.0.0.1:8080"; ok is false while nobody leads.
	Leader func() (base string, ok bool)
	// Transport reaches the leader's API from a master that does not lead.
	Transport http.RoundTripper
	// Advertise is the base URL of this master's own API.
	Advertise string
	// Abdicate, if set, makes this master give leadership up.
	Abdicate func()
	// Role is the framework's role; DefaultRole if empty.
	Role string
	// DefaultRoles are the roles whose resources apps use that do not say
	// acceptedResourceRoles; "*" if empty.
	DefaultRoles []string
	// DefaultNetwork is the container network of apps that name none.
	DefaultNetwork string
	// Probe makes readiness checks; nil means one that trusts any certificate,
	// since those of apps are their own affair.
	Probe *http.Client
	// Hostname of this master, shown with the framework.
	Hostname string
	Log      *slog.Logger
}

// Orchestrator serves the API at all times, and leads while Run runs.
type Orchestrator struct {
	opt    Options
	self   string // host:port of Advertise
	engine atomic.Pointer[engine.Engine]
}

// New checks opt and returns an Orchestrator that does not lead.
func New(opt Options) (*Orchestrator, error) {
	const op = "configure orchestrator"
	if opt.Client == nil || opt.Leader == nil || opt.Log == nil || opt.Master == "" {
		return nil, fault.Newf(op, fault.Invalid, "master, client, leader and logger are needed")
	}
	u, err := url.Parse(opt.Advertise)
	if err != nil || u.Host == "" {
		return nil, fault.Newf(op, fault.Invalid, "advertised address %q is not a URL", opt.Advertise)
	}
	if opt.Role == "" {
		opt.Role = DefaultRole
	}
	if len(opt.DefaultRoles) == 0 {
		opt.DefaultRoles = []string{"*"}
	}
	if opt.Probe == nil {
		opt.Probe = &http.Client{
			Transport:     &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	if opt.Transport == nil {
		opt.Transport = http.DefaultTransport
	}
	return &Orchestrator{opt: opt, self: u.Host}, nil
}

// restartPause is how long a term that failed is followed by nothing.
const restartPause = time.Second

// Run leads with store, which should be fenced on this term, until ctx ends.
// When the state in memory may no longer be what is stored, it is read anew.
func (o *Orchestrator) Run(ctx context.Context, store state.Backend) error {
	for {
		err := o.term(ctx, store)
		if ctx.Err() != nil {
			return nil
		}
		o.opt.Log.Error("orchestrator stopped, starting over", "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(restartPause):
		}
	}
}

func (o *Orchestrator) term(ctx context.Context, store state.Backend) error {
	e := engine.New(engine.Config{
		Store: state.Restrict(store, engine.Kinds()...), Master: o.opt.Master, Client: o.opt.Client,
		Policy:       spec.Policy{Role: o.opt.Role, DefaultNetwork: o.opt.DefaultNetwork},
		DefaultRoles: o.opt.DefaultRoles, Hostname: o.opt.Hostname, WebUI: o.opt.Advertise, Log: o.opt.Log,
		Probe: o.opt.Probe,
	})
	o.engine.Store(e)
	defer o.engine.CompareAndSwap(e, nil)
	return e.Run(ctx)
}

// leading returns the engine once it has its state.
func (o *Orchestrator) leading() *engine.Engine {
	e := o.engine.Load()
	if e == nil {
		return nil
	}
	select {
	case <-e.Loaded():
		return e
	default:
		return nil
	}
}

// patience is how long requests wait for a leader to appear.
const patience = 5 * time.Second

// Handler serves /v2/…, /ping and /metrics.
func (o *Orchestrator) Handler() http.Handler {
	api := httpapi.New(httpapi.Config{
		Engine: o.leading, Leader: o.leader, Info: o.info, Abdicate: o.opt.Abdicate, Log: o.opt.Log,
	})
	return &httpapi.Proxy{
		Self: o.self, Local: api, Transport: o.opt.Transport, Patience: patience, Log: o.opt.Log,
		Leading: func() bool { return o.leading() != nil },
		Leader: func() string {
			base, ok := o.opt.Leader()
			if u, err := url.Parse(base); !ok || err != nil || u.Host == o.self || o.engine.Load() != nil {
				return "" // nobody, or ourselves before the state is loaded
			}
			return base
		},
	}
}

// leader is host:port of the leading API.
func (o *Orchestrator) leader() string {
	base, ok := o.opt.Leader()
	if u, err := url.Parse(base); ok && err == nil {
		return u.Host
	}
	return ""
}

// info is the part of /v2/info that does not change.
func (o *Orchestrator) info() marathon.Info {
	return marathon.Info{
		Name: engine.FrameworkName, Version: Version, BuildRef: "unknown",
		MarathonConfig: map[string]any{
			"master": o.opt.Master, "failover_timeout": 604800, "framework_name": engine.FrameworkName, "ha": true,
			"checkpoint": true, "local_port_min": spec.FirstServicePort, "local_port_max": spec.LastServicePort,
			"executor": "//cmd", "hostname": o.opt.Hostname, "webui_url": o.opt.Advertise, "mesos_role": o.opt.Role,
			"default_accepted_resource_roles": o.opt.DefaultRoles, "task_launch_timeout": 300000,
			"reconciliation_initial_delay": 0, "reconciliation_interval": 600000, "mesos_user": "root",
			"leader_proxy_connection_timeout_ms": 5000, "leader_proxy_read_timeout_ms": 10000,
			"features": []string{"vips", "task_killing", "gpu_resources"}, "mesos_leader_ui_url": "/mesos",
			"max_running_deployments": 100,
		},
		// There is no ZooKeeper; clients read the section without using it.
		ZookeeperConfig: map[string]any{},
		HTTPConfig:      map[string]any{"http_port": 8080, "https_port": 8443},
	}
}
