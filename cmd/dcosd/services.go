package main

import (
	"context"
	"net/http"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	"dcos.example/dcos/runtime/catalog"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/leader"
	"dcos.example/dcos/runtime/pki"
	"dcos.example/dcos/runtime/registry"
	"dcos.example/dcos/runtime/server"
	"dcos.example/dcos/runtime/service"
	"dcos.example/dcos/runtime/service/httpapi"
	"dcos.example/dcos/runtime/service/names"
	"dcos.example/dcos/runtime/state"
)

// taskCA issues what tasks of services may have.
type taskCA struct{ *pki.Authority }

func (c taskCA) Issue(_ context.Context, names []string, life time.Duration) (key, chain, root []byte, err error) {
	return c.IssueTask(names, life)
}

// operator runs services. It speaks to the master of this process as any
// framework does, only that the connection never leaves memory.
func (m *masterHost) operator(ctx context.Context, g *errgroup.Group, elector *leader.Elector) (*service.Service, error) {
	seal, err := readSealKey()
	if err != nil {
		return nil, err
	}
	log := m.log.With("part", "operator")
	s, err := service.New(service.Options{
		Master: "http://master", Client: m.inMemory(ctx, g, "mesos for services", &m.mesos),
		CA: taskCA{m.authority}, SealKey: seal, Hostname: m.cfg.Host.Name, Log: log,
	})
	if err != nil {
		return nil, err
	}
	base := func(addr netip.Addr) string { return "https://" + at(addr, config.PortMaster) }
	m.services.set(httpapi.New(httpapi.Config{
		Service: s, Self: at(m.cfg.Host.Addr, config.PortMaster),
		Leader: func() (string, bool) {
			info, ok := elector.Current()
			return base(info.Addr), ok
		},
		Transport: server.Transport(m.creds.ClientTLS(pki.RoleMaster)), Log: log,
	}))
	return s, nil
}

// operated tells whether a service of that name is installed.
func (m *masterHost) operated(ctx context.Context, g *errgroup.Group, store state.Backend) func(name string) bool {
	var known names.Names
	g.Go(func() error {
		known.Follow(ctx, store)
		return nil
	})
	return known.Has
}

// packages is the catalog. It asks the orchestrator and the operator as
// everybody does, within this process; they find the leader themselves.
func (m *masterHost) packages(ctx context.Context, g *errgroup.Group, store state.Backend, elector *leader.Elector, images *registry.Registry) (*catalog.Catalog, error) {
	c, err := catalog.New(catalog.Options{
		Store: store, Dir: config.VarDir + "/catalog", Release: m.cfg.Cluster.Release,
		Orchestrator: catalog.Endpoint{URL: "http://orchestrator", Client: m.inMemory(ctx, g, "orchestrator for the catalog", &m.marathon)},
		Services:     catalog.Endpoint{URL: "http://operator", Client: m.inMemory(ctx, g, "operator for the catalog", &m.services)},
		Master: catalog.Endpoint{URL: "https://leader", Client: &http.Client{
			Transport: toLeader{elector, server.Transport(m.creds.ClientTLS(pki.RoleMaster))},
		}},
		HasImage: images.Has, Log: m.log.With("part", "catalog"),
	})
	if err != nil {
		return nil, err
	}
	g.Go(func() error { return c.Run(ctx) })
	return c, nil
}

// inMemory is a client of h, served in this process until ctx ends.
func (m *masterHost) inMemory(ctx context.Context, g *errgroup.Group, name string, h http.Handler) *http.Client {
	inside := server.NewMemory()
	g.Go(func() error {
		return server.Run(ctx, m.log, server.Endpoint{Name: name, Listener: inside, Handler: h})
	})
	return inside.Client()
}

// toLeader sends requests to the Mesos API of whoever leads when they are
// made.
type toLeader struct {
	elector *leader.Elector
	via     http.RoundTripper
}

func (t toLeader) RoundTrip(r *http.Request) (*http.Response, error) {
	info, ok := t.elector.Current()
	if !ok {
		return nil, fault.Newf("reach the leading master", fault.Unavailable, "nobody leads")
	}
	out := r.Clone(r.Context())
	out.URL.Scheme, out.URL.Host, out.Host = "https", at(info.Addr, config.PortMaster), ""
	return t.via.RoundTrip(out)
}
