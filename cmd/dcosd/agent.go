package main

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"dcos.example/dcos/runtime/agent"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/membership"
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
	// Asking who the masters are needs the certificate that they sign.
	var client membership.Client
	masters, err := newSource(cfg.Cluster.ID, netip.Addr{}, &client, log)
	if err != nil {
		return err
	}
	creds, err := pki.Join(ctx, pki.JoinConfig{
		CAPEM: ca, Token: token, Name: cfg.Host.Name, Addr: cfg.Host.Addr,
		Masters: func() (out []string) {
			for _, a := range masters.Addrs() {
				out = append(out, at(a, config.PortMaster))
			}
			return out
		},
		File: config.VarDir + "/pki/host.pem",
	}, log)
	if err != nil {
		return err
	}
	client.HTTP = masterClient(creds)
	a, err := agent.New(agent.Options{
		Config: cfg, Masters: masterURLs(masters), Client: masterClient(creds),
		Log: log, Version: config.Version,
	})
	if err != nil {
		return err
	}
	edge, err := newEdge(ctx, place{cluster: cfg.Cluster, masters: masters, host: cfg.Host, creds: creds, bridge: &cfg.Bridge}, log)
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
	g.Go(func() error {
		masters.Run(ctx)
		return nil
	})
	edge.start(ctx, g)
	g.Go(func() error {
		return server.Run(ctx, log,
			server.Endpoint{Name: "agent", Listener: public, TLS: creds.ServerTLS(true), Handler: pki.RequireRole(a.Handler(), pki.RoleMaster)},
			server.Endpoint{Name: "agent loopback", Listener: private, Handler: a.LocalHandler()},
		)
	})
	return g.Wait()
}

// newSource follows the list of masters. client is used from Run on.
func newSource(cluster string, self netip.Addr, client *membership.Client, log *slog.Logger) (*membership.Source, error) {
	return membership.NewSource(membership.SourceConfig{
		Cluster: cluster, Self: self, Seed: config.MastersFile, Saved: mastersSaved, Log: log.With("part", "membership"),
		Ask: func(ctx context.Context, master netip.Addr, after membership.List, wait time.Duration) (membership.List, error) {
			return client.List(ctx, master, after, wait)
		},
	})
}

// mastersSaved is where a host keeps what the cluster said of its masters.
const mastersSaved = config.VarDir + "/masters.json"

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
