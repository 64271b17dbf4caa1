package etcd

import (
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"

	"dcos.example/dcos/runtime/fault"
)

// Peer is one member of the ensemble.
type Peer struct {
	Name string
	Addr netip.AddrPort // where it listens for the other members
}

// Options configure a Member.
type Options struct {
	Self    Peer
	Peers   []Peer // all members, Self among them
	Token   string // the same on all members, different for each cluster
	DataDir string

	Heartbeat, Election time.Duration

	// Peers speak TLS with these files, read again at every handshake; both
	// sides show certificates, which must carry one of PeerNames. Without
	// CertFile peers speak in clear, which only tests do.
	CertFile, KeyFile, CAFile string
	PeerNames                 []string
}

// Member is an etcd member running in this process.
type Member struct {
	etcd     *embed.Etcd
	client   *clientv3.Client
	election time.Duration
	handing  sync.WaitGroup // of hand-overs that were given up
}

// Start runs a member and returns when it has joined: with three members,
// when two are up.
func Start(ctx context.Context, o Options) (*Member, error) {
	if err := os.MkdirAll(o.DataDir, 0o700); err != nil {
		return nil, fault.New("start etcd", fault.Internal, err)
	}
	e, err := embed.StartEtcd(configure(o))
	if err != nil {
		return nil, fault.New("start etcd", fault.Internal, err)
	}
	select {
	case <-e.Server.ReadyNotify():
	case err := <-e.Err():
		e.Server.HardStop()
		e.Close()
		return nil, fault.New("start etcd", fault.Internal, err)
	case <-ctx.Done():
		// Close alone waits for servers that start only when the member is ready.
		e.Server.HardStop()
		e.Close()
		return nil, fault.Newf("start etcd", fault.Unavailable, "not ready: fewer than %d of %d masters are up: %w", len(o.Peers)/2+1, len(o.Peers), ctx.Err())
	}
	return &Member{etcd: e, client: v3client.New(e.Server), election: o.Election}, nil
}

func configure(o Options) *embed.Config {
	scheme := "http"
	cfg := embed.NewConfig()
	if o.CertFile != "" {
		scheme = "https"
		cfg.PeerTLSInfo = transport.TLSInfo{
			CertFile: o.CertFile, KeyFile: o.KeyFile, TrustedCAFile: o.CAFile,
			ClientCertAuth: true, AllowedHostnames: o.PeerNames,
		}
	}
	at := func(p Peer) url.URL { return url.URL{Scheme: scheme, Host: p.Addr.String()} }
	var all []string
	for _, p := range o.Peers {
		u := at(p)
		all = append(all, p.Name+"="+u.String())
	}
	// A listener is mandatory; a socket that only root can open is the one
	// that gives nothing away, and it lets etcdctl in for emergencies.
	socket := []url.URL{{Scheme: "unix", Path: filepath.Join(o.DataDir, "client.sock")}}
	cfg.Name, cfg.Dir = o.Self.Name, filepath.Join(o.DataDir, "etcd")
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = socket, socket
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{at(o.Self)}, []url.URL{at(o.Self)}
	cfg.InitialCluster, cfg.InitialClusterToken = strings.Join(all, ","), o.Token
	cfg.TickMs, cfg.ElectionMs = uint(o.Heartbeat.Milliseconds()), uint(o.Election.Milliseconds())
	cfg.MaxTxnOps, cfg.MaxRequestBytes = 1024, 4<<20
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = embed.CompactorModePeriodic, "10m"
	cfg.QuotaBackendBytes = 4 << 30
	cfg.LogLevel, cfg.Logger = "error", "zap"
	return cfg
}

// Client talks to the member in process.
func (m *Member) Client() *clientv3.Client { return m.client }

// Leads reports whether this member is the raft leader.
func (m *Member) Leads() bool { return m.etcd.Server.Leader() == m.etcd.Server.MemberID() }

// LeaderChanged returns a channel that is closed at the next change of the
// raft leader. A leader that lost its quorum does not close it: ask Leads.
func (m *Member) LeaderChanged() <-chan struct{} { return m.etcd.Server.LeaderChangedNotify() }

// Abdicate hands raft leadership to another member, if there is one. It gives
// up after an election timeout, as raft does: etcd itself would wait for five
// seconds more for a member that went down just before.
func (m *Member) Abdicate() error {
	const op = "hand leadership over"
	done := make(chan error, 1)
	m.handing.Go(func() { done <- m.etcd.Server.TryTransferLeadershipOnShutdown() })
	select {
	case err := <-done:
		if err != nil {
			return fault.New(op, fault.Unavailable, err)
		}
		return nil
	case <-time.After(m.election):
		return fault.Newf(op, fault.Unavailable, "no member took it within %s", m.election)
	}
}

// Failed yields the error that ended the member, if one does.
func (m *Member) Failed() <-chan error { return m.etcd.Err() }

// Close stops the member, handing leadership over first.
func (m *Member) Close() error {
	err := m.client.Close()
	_ = m.Abdicate() // without it the others elect a leader a moment later
	m.etcd.Server.HardStop()
	m.etcd.Close() // has nothing left to hand over
	m.handing.Wait()
	if err != nil && err != context.Canceled {
		return fault.New("stop etcd", fault.Internal, fmt.Errorf("close client: %w", err))
	}
	return nil
}
