package main

import (
	"context"

	"golang.org/x/sync/errgroup"

	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/identity"
	"dcos.example/dcos/runtime/pki"
	"dcos.example/dcos/runtime/registry"
	"dcos.example/dcos/runtime/server"
	"dcos.example/dcos/runtime/state"
)

// registry serves the cluster's images and keeps this master's copies of them.
func (m *masterHost) registry(ctx context.Context, g *errgroup.Group, store state.Backend, users *identity.Service, admin string) (*registry.Registry, error) {
	r, err := registry.New(registry.Options{
		Dir: config.RegistryDir, Current: config.CurrentLink, Self: m.cfg.Host.Name, Store: store, Users: users, Admin: admin,
		Masters: m.masters.Masters, Transport: server.Transport(m.creds.ClientTLS(pki.RoleMaster)), Log: m.log.With("part", "registry"),
	})
	if err != nil {
		return nil, err
	}
	m.images.set(r.Handler())
	g.Go(func() error { return r.Run(ctx) })
	return r, nil
}
