package main

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sync/errgroup"

	"dcos.example/dcos/runtime/agent"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/pki"
	"dcos.example/dcos/runtime/server"
)

// runAgent runs `dcosd agent` until ctx ends. Tasks outlive it.
func runAgent(ctx context.Context, cfg config.Agent, log *slog.Logger) error {
	log = log.With("agent", cfg.Host.Name)
	ca, err := os.ReadFile(config.CACertFile)
	if err != nil {
		return fault.New("read cluster CA", fault.NotFound, err)
	}
	token, err := readSecret(config.JoinTokenFile)
	if err != nil {
		return err
	}
	list, err := config.Load(config.MastersFile, config.Masters{})
	if err != nil {
		return err
	}
	var masters []string
	for _, m := range list.Masters {
		masters = append(masters, at(m.Addr, config.PortMaster))
	}
	creds, err := pki.Join(ctx, pki.JoinConfig{
		CAPEM: ca, Token: token, Name: cfg.Host.Name, Addr: cfg.Host.Addr,
		Masters: masters, File: config.VarDir + "/pki/host.pem",
	}, log)
	if err != nil {
		return err
	}
	a, err := agent.New(agent.Options{
		Config: cfg, Masters: masterURLs(list.Masters), Client: masterClient(creds),
		Log: log, Version: config.Version,
	})
	if err != nil {
		return err
	}
	edge, err := newEdge(ctx, place{cluster: cfg.Cluster, masters: list.Masters, host: cfg.Host, creds: creds, bridge: &cfg.Bridge}, log)
	if err != nil {
		return err
	}
	public, private, err := listenTwice(ctx, cfg.Host.Addr, config.PortAgent)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return creds.Run(ctx) })
	g.Go(func() error { return a.Run(ctx) })
	edge.start(ctx, g)
	g.Go(func() error {
		return server.Run(ctx, log,
			server.Endpoint{Name: "agent", Listener: public, TLS: creds.ServerTLS(true), Handler: pki.RequireRole(a.Handler(), pki.RoleMaster)},
			server.Endpoint{Name: "agent loopback", Listener: private, Handler: a.LocalHandler()},
		)
	})
	return g.Wait()
}

// listenTwice opens port on the host's address, for mutual TLS, and on
// loopback, in clear.
func listenTwice(ctx context.Context, addr netip.Addr, port int) (public, private net.Listener, err error) {
	if public, err = server.Listen(ctx, at(addr, port)); err != nil {
		return nil, nil, err
	}
	if private, err = server.Listen(ctx, at(netip.MustParseAddr("127.0.0.1"), port)); err != nil {
		public.Close()
	}
	return public, private, err
}

func readSecret(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fault.New("read secret", fault.NotFound, err)
	}
	return strings.TrimSpace(string(b)), nil
}
