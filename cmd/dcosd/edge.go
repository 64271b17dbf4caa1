package main

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"

	"golang.org/x/sync/errgroup"

	"dcos.example/dcos/runtime/balancer"
	"dcos.example/dcos/runtime/balancer/nft"
	"dcos.example/dcos/runtime/balancer/ruleset"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/dns"
	"dcos.example/dcos/runtime/dns/zone"
	"dcos.example/dcos/runtime/feed"
	"dcos.example/dcos/runtime/membership"
	"dcos.example/dcos/runtime/pki"
	"dcos.example/dcos/runtime/server"
)

// edge is what every host runs besides its role: the view of the cluster, and
// what makes names and VIPs work on this host.
type edge struct {
	feed    *feed.Feed
	dns     *dns.Server
	nft     *nft.Applier
	self    netip.Addr
	masters *membership.Source
	log     *slog.Logger
}

// place says where the edge is.
type place struct {
	cluster config.Cluster
	masters *membership.Source
	host    config.Host
	creds   *pki.Credentials
	// bridge is the container network of the host, if it has one.
	bridge *config.Bridge
}

func newEdge(ctx context.Context, p place, log *slog.Logger) (*edge, error) {
	e := &edge{log: log, self: p.host.Addr, masters: p.masters}
	var err error
	if e.feed, err = feed.New(feed.Config{
		Masters: masterURLs(p.masters), Client: masterClient(p.creds), Log: log.With("part", "feed"),
	}); err != nil {
		return nil, err
	}
	listen := []string{at(netip.MustParseAddr(config.DNSAddr), config.PortDNS), at(p.host.Addr, config.PortDNS)}
	kernel := nft.Config{Range: e.rules().Range, Self: p.host.Addr}
	if p.bridge != nil {
		listen = append(listen, at(p.bridge.Subnet.Masked().Addr().Next(), config.PortDNS))
		kernel.Subnets = []netip.Prefix{p.bridge.Subnet}
	}
	if err := dns.AddLoopback(netip.MustParseAddr(config.DNSAddr)); err != nil {
		return nil, err
	}
	if e.dns, err = dns.New(ctx, dns.Config{
		Listen: listen, Resolvers: p.cluster.Resolvers, Log: log.With("part", "dns"), Options: e.zone,
		VIPs: func(v *feed.View) map[string]netip.Addr { return ruleset.Plan(v, e.rules()).Names() },
	}); err != nil {
		return nil, err
	}
	e.nft, err = nft.New(kernel)
	return e, err
}

// rules and zone follow the masters, as everything else follows the feed.
func (e *edge) rules() ruleset.Options {
	return ruleset.Options{Range: netip.MustParsePrefix(config.VIPRange), Self: e.self, Reserved: e.masters.Addrs()}
}

func (e *edge) zone() zone.Options {
	return zone.Options{Masters: e.masters.Addrs(), MasterPort: config.PortMaster, AgentPort: config.PortAgent}
}

// start runs the edge in g until ctx ends.
func (e *edge) start(ctx context.Context, g *errgroup.Group) {
	g.Go(func() error {
		e.feed.Run(ctx)
		return nil
	})
	g.Go(func() error {
		for range e.masters.Changes(ctx) {
			e.feed.Again()
		}
		return nil
	})
	g.Go(func() error { return e.dns.Run(ctx, e.feed) })
	g.Go(func() error {
		balancer.Run(ctx, e.feed, e.nft, e.rules, e.log.With("part", "balancer"))
		return nil
	})
}

func at(addr netip.Addr, port int) string { return net.JoinHostPort(addr.String(), strconv.Itoa(port)) }

// masterURLs returns where the masters are at the time of the call.
func masterURLs(masters *membership.Source) func() []string {
	return func() (urls []string) {
		for _, a := range masters.Addrs() {
			urls = append(urls, "https://"+at(a, config.PortMaster))
		}
		return urls
	}
}

// masterClient reaches masters, and nobody else who holds a certificate of the
// cluster. It has no timeout: its users open streams.
func masterClient(creds *pki.Credentials) *http.Client {
	return &http.Client{Transport: server.Transport(creds.ClientTLS(pki.RoleMaster))}
}
