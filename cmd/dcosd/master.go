package main

import (
	"context"
	"encoding/base64"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	"dcos.example/dcos/runtime/backup"
	"dcos.example/dcos/runtime/backup/archive"
	"dcos.example/dcos/runtime/balancer"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/gateway"
	"dcos.example/dcos/runtime/identity"
	"dcos.example/dcos/runtime/leader"
	"dcos.example/dcos/runtime/master"
	"dcos.example/dcos/runtime/master/about"
	"dcos.example/dcos/runtime/membership"
	"dcos.example/dcos/runtime/membership/httpapi"
	"dcos.example/dcos/runtime/membership/keeper"
	"dcos.example/dcos/runtime/membership/seat"
	"dcos.example/dcos/runtime/orchestrator"
	"dcos.example/dcos/runtime/pki"
	"dcos.example/dcos/runtime/server"
	"dcos.example/dcos/runtime/state"
	"dcos.example/dcos/runtime/state/etcd"
)

// runMaster runs `dcosd master` until ctx ends.
func runMaster(ctx context.Context, cfg config.Master, log *slog.Logger) error {
	log = log.With("master", cfg.Host.Name)
	authority, err := pki.LoadAuthority(config.CACertFile, config.CAKeyFile)
	if err != nil {
		return err
	}
	token, err := readSecret(config.JoinTokenFile)
	if err != nil {
		return err
	}
	certFile := config.VarDir + "/pki/host.pem"
	creds, err := pki.SelfIssue(authority, pki.MasterRequest(cfg.Host.Name, cfg.Host.Addr), certFile, log)
	if err != nil {
		return err
	}
	client := membership.Client{HTTP: masterClient(creds)}
	masters, err := newSource(cfg.Cluster.ID, cfg.Host.Addr, &client, log)
	if err != nil {
		return err
	}
	m := &masterHost{cfg: cfg, masters: masters, log: log, creds: creds, authority: authority}
	m.seat = seat.New(seat.Config{
		Cluster: cfg.Cluster.ID, Self: config.Member{Name: cfg.Host.Name, Addr: cfg.Host.Addr}, Release: config.Version,
		Etcd: ensemble(cfg, certFile), Source: masters, Others: client, Log: log.With("part", "membership"),
	})
	m.members = httpapi.New(httpapi.Config{Self: cfg.Host.Addr, Seat: m.seat, Source: masters, Client: client, Log: log.With("part", "membership")})
	for _, l := range []*later{&m.mesos, &m.marathon, &m.gateway, &m.plain, &m.saved, &m.images, &m.services} {
		l.reason = m.seat.Reason
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return creds.Run(ctx) })
	g.Go(func() error {
		masters.Run(ctx)
		return nil
	})

	// Agents may join while the masters still find each other.
	if err := m.serve(ctx, g, pki.SignHandler(authority, token, log.With("part", "pki"))); err != nil {
		return err
	}
	if m.edge, err = newEdge(ctx, place{cluster: cfg.Cluster, masters: masters, host: cfg.Host, creds: creds}, log); err != nil {
		return err
	}
	m.edge.start(ctx, g)
	var member *etcd.Member
	g.Go(func() (err error) {
		order, err := backup.Begin(config.RestoreDir, ensemble(cfg, certFile))
		if err != nil {
			return err
		}
		if member, err = m.seat.Take(ctx, order != nil); err != nil {
			return err
		}
		g.Go(func() error { return m.seat.Keep(ctx, member) })
		return m.start(ctx, g, member, order)
	})
	err = g.Wait()
	if member != nil {
		if err := member.Close(); err != nil {
			log.Warn("stop etcd", "err", err)
		}
	}
	return err
}

func ensemble(cfg config.Master, certFile string) etcd.Options {
	return etcd.Options{
		Self:  etcd.Peer{Name: cfg.Host.Name, Addr: netip.AddrPortFrom(cfg.Host.Addr, config.PortEtcdPeer)},
		Token: cfg.Cluster.ID, DataDir: cfg.DataDir,
		Heartbeat: time.Duration(cfg.HeartbeatInterval), Election: time.Duration(cfg.ElectionTimeout),
		CertFile: certFile, KeyFile: certFile, CAFile: config.CACertFile,
		PeerNames: []string{pki.MasterName},
	}
}

// masterHost wires the components of one master.
type masterHost struct {
	cfg     config.Master
	masters *membership.Source
	seat    *seat.Seat
	members *httpapi.Server
	edge    *edge
	log     *slog.Logger
	creds   *pki.Credentials
	// authority is the cluster's CA.
	authority *pki.Authority

	mesos, marathon, gateway, plain, saved, images, services later
}

// serve opens the ports. What needs the store answers 503 until start.
func (m *masterHost) serve(ctx context.Context, g *errgroup.Group, sign http.Handler) error {
	mesosTLS, mesosPlain, err := listenTwice(ctx, m.cfg.Host.Addr, config.PortMaster)
	if err != nil {
		return err
	}
	marathonTLS, marathonPlain, err := listenTwice(ctx, m.cfg.Host.Addr, config.PortOrchestrator)
	if err != nil {
		return err
	}
	front, err := server.Listen(ctx, at(m.cfg.Host.Addr, config.PortGateway))
	if err != nil {
		return err
	}
	plain, err := server.Listen(ctx, at(m.cfg.Host.Addr, config.PortGatewayPlain))
	if err != nil {
		return err
	}
	images, err := server.Listen(ctx, at(m.cfg.Host.Addr, config.PortRegistry))
	if err != nil {
		return err
	}
	inside := http.NewServeMux()
	inside.Handle(pki.SignPath, sign) // a joining host has no certificate yet
	serveBackups(inside, &m.saved)
	readers := pki.RequireRole(m.members.Readers(), pki.RoleMaster, pki.RoleAgent)
	inside.Handle(membership.PathStatus, readers)
	inside.Handle(membership.PathList, readers)
	inside.Handle(membership.PathStatus+"/", pki.RequireRole(m.members.Masters(), pki.RoleMaster))
	inside.Handle("/services/", pki.RequireRole(&m.services, pki.RoleMaster))
	inside.Handle("/", pki.RequireRole(&m.mesos, pki.RoleMaster, pki.RoleAgent))
	local := http.NewServeMux()
	local.Handle(membership.PathStatus, m.members.Local())
	local.Handle(membership.PathStatus+"/", m.members.Local())
	local.Handle("/services/", &m.services)
	local.Handle("/", &m.mesos)
	g.Go(func() error {
		return server.Run(ctx, m.log,
			server.Endpoint{Name: "mesos", Listener: mesosTLS, TLS: m.creds.ServerTLS(false), Handler: inside},
			server.Endpoint{Name: "mesos loopback", Listener: mesosPlain, Handler: local},
			server.Endpoint{Name: "marathon", Listener: marathonTLS, TLS: m.creds.ServerTLS(true), Handler: pki.RequireRole(&m.marathon, pki.RoleMaster)},
			server.Endpoint{Name: "marathon loopback", Listener: marathonPlain, Handler: &m.marathon},
			server.Endpoint{Name: "gateway", Listener: front, TLS: m.creds.PublicServerTLS(), Handler: &m.gateway},
			server.Endpoint{Name: "gateway plain", Listener: plain, Handler: &m.plain},
			server.Endpoint{Name: "registry", Listener: images, TLS: m.creds.ServerTLS(false), Handler: &m.images},
		)
	})
	return nil
}

// start builds the components over the store of member and runs them in g. An
// order to restore is finished before they act.
func (m *masterHost) start(ctx context.Context, g *errgroup.Group, member *etcd.Member, order *archive.Order) error {
	store := etcd.New(member.Client())
	if err := state.CheckFormat(ctx, store, config.Version); err != nil {
		return err
	}
	elector := leader.New(store, member, m.cfg.Host.Name, m.cfg.Host.Addr, m.log.With("part", "leader"))
	mesos := master.New(master.Options{Config: m.cfg, Log: m.log.With("part", "master"), Leader: elector.Current})
	m.mesos.set(mesos.Handler())
	marathon, err := m.orchestrator(ctx, g, elector, member.Abdicate)
	if err != nil {
		return err
	}
	m.marathon.set(marathon.Handler())
	first, err := identity.LoadFirstUser(config.AdminHashFile)
	if err != nil {
		return err
	}
	users, err := m.identity(store, first)
	if err != nil {
		return err
	}
	saves, kept, err := m.backups(member, store, m.masters.Masters)
	if err != nil {
		return err
	}
	m.saved.set(saves.Handler())
	release, err := config.LoadRelease(config.ReleaseFile)
	if err != nil {
		return err
	}
	images, err := m.registry(ctx, g, store, users, first.UID)
	if err != nil {
		return err
	}
	services, err := m.operator(ctx, g, elector)
	if err != nil {
		return err
	}
	packages, err := m.packages(ctx, g, store, elector, images)
	if err != nil {
		return err
	}
	masters := server.Transport(m.creds.ClientTLS(pki.RoleMaster))
	door, err := gateway.New(gateway.Config{
		Cluster: m.cfg.Cluster, Host: m.cfg.Host, CAPEM: m.creds.CAPEM(),
		Auth: users, Identity: users.Handler(),
		Leader: func() (netip.Addr, bool) {
			info, ok := elector.Current()
			return info.Addr, ok
		},
		Members: m.masters.Masters,
		View:    m.edge.feed.View,
		Catalog: packages.Handler(), Operated: m.operated(ctx, g, store),
		Masters: masters,
		Agents:  server.Transport(m.creds.ClientTLS(pki.RoleAgent)),
		DNS:     m.edge.dns.Handler(m.cfg.Cluster.Release),
		VIPs:    balancer.Handler(m.edge.feed, m.edge.rules),
		Admin:   first.UID, Deposit: kept.Handler(), Membership: m.members.Gateway(),
		// To DC/OS's clients a cluster has these, with the levels of their APIs.
		Components: withAPIs(release.Components, map[string]string{"mesos": about.MesosVersion, "marathon": orchestrator.Version}),
		Log:        m.log.With("part", "gateway"),
	})
	if err != nil {
		return err
	}
	m.gateway.set(door)
	m.plain.set(door.Plain())
	g.Go(func() error { return users.Run(ctx) })
	g.Go(func() error {
		m.followDeposit(ctx, kept)
		return nil
	})
	g.Go(func() error {
		for range elector.Changes(ctx) {
			// Those to the former leader may lead nowhere.
			masters.CloseIdleConnections()
		}
		return nil
	})
	keep := keeper.New(keeper.Config{
		Cluster: m.cfg.Cluster.ID, Member: member, Port: config.PortEtcdPeer, View: m.members.View, Learn: m.masters.Learn,
		Log: m.log.With("part", "membership"),
	})
	m.members.SetKeeper(keep)
	g.Go(func() error {
		m.masters.FollowStore(ctx, store)
		return nil
	})
	g.Go(func() error {
		return elector.Run(ctx, func(ctx context.Context, store state.Backend) error {
			if err := state.ClaimFormat(ctx, store, config.Version); err != nil {
				return err
			}
			if order != nil {
				if err := backup.Finish(ctx, config.RestoreDir, order, store); err != nil {
					return err
				}
				m.log.Info("the cluster is restored", "backup", order.Backup)
				order = nil
			}
			g, ctx := errgroup.WithContext(ctx)
			g.Go(func() error {
				keep.Run(ctx, store)
				return nil
			})
			g.Go(func() error { return saves.Run(ctx, store) })
			g.Go(func() error { return mesos.Run(ctx, store) })
			g.Go(func() error { return marathon.Run(ctx, store) })
			g.Go(func() error { return services.Run(ctx, store) })
			return g.Wait()
		})
	})
	return nil
}

func withAPIs(components, apis map[string]string) map[string]string {
	all := maps.Clone(apis)
	maps.Copy(all, components)
	return all
}

// orchestrator speaks to the master of this process as any framework does, over
// HTTP, only that the connection never leaves memory.
func (m *masterHost) orchestrator(ctx context.Context, g *errgroup.Group, elector *leader.Elector, abdicate func() error) (*orchestrator.Orchestrator, error) {
	log := m.log.With("part", "orchestrator")
	inside := server.NewMemory()
	g.Go(func() error {
		return server.Run(ctx, m.log, server.Endpoint{Name: "mesos in process", Listener: inside, Handler: &m.mesos})
	})
	base := func(addr netip.Addr) string { return "https://" + at(addr, config.PortOrchestrator) }
	return orchestrator.New(orchestrator.Options{
		Master: "http://master", Client: inside.Client(),
		Leader: func() (string, bool) {
			info, ok := elector.Current()
			return base(info.Addr), ok
		},
		Transport: server.Transport(m.creds.ClientTLS(pki.RoleMaster)),
		Advertise: base(m.cfg.Host.Addr),
		Abdicate: func() {
			if err := abdicate(); err != nil {
				log.Warn("abdicate", "err", err)
			}
		},
		Hostname: m.cfg.Host.Name, Log: log,
	})
}

func (m *masterHost) identity(store state.Backend, first identity.FirstUser) (*identity.Service, error) {
	seal, err := readSealKey()
	if err != nil {
		return nil, err
	}
	return identity.New(identity.Config{
		Store: store, SealKey: seal, ClusterID: m.cfg.Cluster.ID, First: first, Log: m.log.With("part", "identity"),
	})
}

func readSealKey() ([]byte, error) {
	text, err := readSecret(config.SealKeyFile)
	if err != nil {
		return nil, err
	}
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, fault.New("read "+config.SealKeyFile, fault.Invalid, err)
	}
	return key, nil
}
