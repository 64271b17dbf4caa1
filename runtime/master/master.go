// Package master is the leader's half of the kernel: it admits agents, offers
// their resources to frameworks and keeps count of tasks, over the HTTP APIs
// of Mesos. One Master lives as long as the process; each Run is one term of
// leadership. Outside of a term the same handler sends clients to the leader.
//
// Of the operations on resources, frameworks (ACCEPT) and operators
// (RESERVE_RESOURCES and the like, and /reserve, /unreserve, /create-volumes,
// /destroy-volumes) have RESERVE, also with source, UNRESERVE, CREATE, DESTROY,
// GROW_VOLUME and SHRINK_VOLUME, on disks of the sandbox's file system and of
// PATH and MOUNT sources as far as the agent serves them. Static reservations are
// the agents' configuration; refined and shared ones need the capability of the
// framework that Mesos asks for. There are no resource providers: CREATE_DISK and
// DESTROY_DISK are refused. Quota and weights cannot be set.
package master

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/leader"
	"dcos.example/dcos/runtime/master/about"
	"dcos.example/dcos/runtime/master/core"
	"dcos.example/dcos/runtime/master/httpapi"
	"dcos.example/dcos/runtime/master/legacy"
	"dcos.example/dcos/runtime/master/registry"
	"dcos.example/dcos/runtime/state"
)

// Options are what a Master is made of.
type Options struct {
	Config config.Master
	Log    *slog.Logger
	// Leader names the master that leads, if one is known.
	Leader func() (leader.Info, bool)
	// Now is the clock; nil is the system's.
	Now func() time.Time
	// PlainAgents lets agents in over connections without TLS. Only tests
	// want that: the link can do everything to an agent's tasks.
	PlainAgents bool
}

// Master serves the Mesos master APIs.
type Master struct {
	opt     Options
	self    about.About
	leading atomic.Bool // a term has begun; it serves once term is set
	term    atomic.Pointer[term]
}

// term is one period of leadership.
type term struct {
	core   *core.Core
	routes map[string]http.Handler
}

// New returns a Master that does not lead yet.
func New(opt Options) *Master {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Leader == nil {
		opt.Leader = func() (leader.Info, bool) { return leader.Info{}, false }
	}
	cfg := opt.Config
	return &Master{opt: opt, self: about.About{
		Release: cfg.Cluster.Release, Cluster: cfg.Cluster.Name, Started: opt.Now(), Now: opt.Now,
		Flags: []about.Flag{
			{Name: "agent_ping_timeout", Value: seconds(cfg.AgentPing)},
			{Name: "max_agent_ping_timeouts", Value: strconv.Itoa(cfg.AgentMissedPings)},
			{Name: "agent_reregister_timeout", Value: seconds(cfg.AgentReregister)},
			{Name: "cluster", Value: cfg.Cluster.Name},
			{Name: "hostname", Value: cfg.Host.Name},
			{Name: "ip", Value: cfg.Host.Addr.String()},
			{Name: "port", Value: strconv.Itoa(config.PortMaster)},
			{Name: "work_dir", Value: cfg.DataDir},
		},
	}}
}

// seconds writes d as Mesos writes durations.
func seconds(d config.Duration) string {
	return strconv.FormatFloat(time.Duration(d).Seconds(), 'f', -1, 64) + "secs"
}

// Run leads until ctx ends, over a store that refuses writes of a master that
// does not lead any more. It returns nil when ctx ended.
func (m *Master) Run(ctx context.Context, store state.Backend) error {
	m.leading.Store(true)
	defer m.leading.Store(false)
	reg, err := load(ctx, store)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	cfg := m.opt.Config
	c := core.New(core.Config{
		Info: m.info(), Ping: time.Duration(cfg.AgentPing), Missed: cfg.AgentMissedPings,
		Reregister: time.Duration(cfg.AgentReregister), Now: m.opt.Now,
	}, reg, m.opt.Log)
	t := &term{core: c, routes: map[string]http.Handler{
		"/api/v1/scheduler":       notForAgents(httpapi.Scheduler(c)),
		"/api/v1":                 httpapi.Operator(c, m.self, mayChange),
		"/agentlink/v1/subscribe": m.agentsOnly(httpapi.AgentSubscribe(c, time.Duration(cfg.AgentPing))),
		"/agentlink/v1/call":      m.agentsOnly(httpapi.AgentCall(c)),
	}}
	for _, more := range []map[string]http.Handler{httpapi.Maintenance(c, mayChange), httpapi.Operations(c, mayChange)} {
		maps.Copy(t.routes, more)
	}
	for path, view := range legacy.Views() {
		t.routes[path] = view.Handler(c, m.self)
	}
	m.term.Store(t)
	defer m.term.Store(nil)
	m.opt.Log.Info("master leads", "id", c.Info.GetId())
	c.Run(ctx)
	return nil
}

// load reads the registry, again while the store is away.
func load(ctx context.Context, store state.Backend) (*registry.Registry, error) {
	for {
		reg, err := registry.Load(ctx, state.Restrict(store, registry.Kinds()...))
		if !fault.Is(err, fault.Unavailable) {
			return reg, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (m *Master) info() *mesos.MasterInfo {
	host := m.opt.Config.Host
	var ip uint32
	if host.Addr.Is4() {
		b := host.Addr.As4()
		ip = binary.LittleEndian.Uint32(b[:]) // as Mesos: the bytes in network order
	}
	addr := host.Addr.String()
	return &mesos.MasterInfo{
		Ip: proto.Uint32(ip), Port: proto.Uint32(config.PortMaster), Hostname: proto.String(host.Name),
		Pid:     proto.String(fmt.Sprintf("master@%s:%d", addr, config.PortMaster)),
		Version: proto.String(about.MesosVersion),
		Capabilities: []*mesos.MasterInfo_Capability{
			{Type: mesos.MasterInfo_Capability_AGENT_UPDATE.Enum()}, {Type: mesos.MasterInfo_Capability_AGENT_DRAINING.Enum()},
		},
		Address: &mesos.Address{Hostname: proto.String(host.Name), Ip: proto.String(addr), Port: proto.Int32(config.PortMaster)},
	}
}

// Handler serves every route of the master, bare and below /master, whether it
// leads or not.
func (m *Master) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := r.URL.Path
		if rest, ok := strings.CutPrefix(path, "/master"); ok && strings.HasPrefix(rest, "/") {
			path = rest
		}
		if path != "/" {
			path = strings.TrimSuffix(path, "/")
		}
		switch path {
		case "/health":
			w.WriteHeader(http.StatusOK)
		case "/version":
			legacy.Write(w, r, legacy.Version(m.self))
		case "/flags":
			legacy.Write(w, r, legacy.Flags(m.self))
		case "/metrics/snapshot":
			legacy.Write(w, r, m.metrics())
		case "/redirect":
			m.redirect(w, r, "")
		default:
			m.serve(w, r, path)
		}
	})
}

func (m *Master) metrics() map[string]float64 {
	if t := m.term.Load(); t != nil {
		return m.self.Metrics(t.core)
	}
	return map[string]float64{"master/elected": 0, "master/uptime_secs": m.opt.Now().Sub(m.self.Started).Seconds()}
}

func (m *Master) serve(w http.ResponseWriter, r *http.Request, path string) {
	t := m.term.Load()
	switch {
	case t != nil:
		h := t.routes[path]
		if h == nil {
			http.NotFound(w, r)
			return
		}
		h.ServeHTTP(w, r)
	case m.leading.Load():
		http.Error(w, "Master has not finished recovery", http.StatusServiceUnavailable)
	default:
		m.redirect(w, r, r.URL.RequestURI())
	}
}

// redirect sends the client to the leader, in Mesos' form without a scheme.
func (m *Master) redirect(w http.ResponseWriter, _ *http.Request, uri string) {
	l, ok := m.opt.Leader()
	if !ok && m.leading.Load() {
		l, ok = leader.Info{Name: m.opt.Config.Host.Name, Addr: m.opt.Config.Host.Addr}, true
	}
	if !ok {
		http.Error(w, "No leader elected", http.StatusServiceUnavailable)
		return
	}
	if !m.leading.Load() && l.Addr == m.opt.Config.Host.Addr { // elected, not started: no loop of redirects
		http.Error(w, "Master has not finished recovery", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Location", fmt.Sprintf("//%s:%d%s", l.Addr, config.PortMaster, uri))
	w.WriteHeader(http.StatusTemporaryRedirect)
}
