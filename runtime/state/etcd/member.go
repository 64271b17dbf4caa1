package etcd

import (
	"context"
	"errors"
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
	Peers   []Peer // all members, Self among them; without meaning once there is data
	Token   string // the same on all members, different for each cluster
	DataDir string
	// Join: the ensemble exists, and Self was added to it (AddLearner).
	// Otherwise a member without data founds one, together with all Peers.
	Join bool

	Heartbeat, Election time.Duration

	// Peers speak TLS with these files, read again at every handshake; both
	// sides show certificates, which must carry one of PeerNames. Without
	// CertFile peers speak in clear, which only tests do.
	CertFile, KeyFile, CAFile string
	PeerNames                 []string
}

// ErrRemoved is why a member stops that the others have removed. Its data is of
// no more use.
var ErrRemoved = errors.New("the others have removed this member from their ensemble")

// maxLearners is more than a cluster has masters.
const maxLearners = 5

// Member is an etcd member running in this process.
type Member struct {
	etcd     *embed.Etcd
	client   *clientv3.Client
	election time.Duration
	scheme   string         // of peers' addresses
	handing  sync.WaitGroup // of hand-overs that were given up
}

// Start runs a member and returns when it has joined: with three members,
// when two are up.
func Start(ctx context.Context, o Options) (*Member, error) {
	m, err := Launch(o)
	if err != nil {
		return nil, err
	}
	if err := m.Ready(ctx); err != nil {
		m.abort()
		return nil, err
	}
	return m, nil
}

// Launch runs a member and does not wait until it has joined: see Ready. A
// member that joins asks the others first, which takes up to ten seconds for
// each that does not answer.
func Launch(o Options) (*Member, error) { return launch(o, configure(o)) }

func launch(o Options, cfg *embed.Config) (*Member, error) {
	if err := os.MkdirAll(o.DataDir, 0o700); err != nil {
		return nil, fault.New("start etcd", fault.Internal, err)
	}
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, fault.New("start etcd", fault.Internal, err)
	}
	return &Member{etcd: e, client: v3client.New(e.Server), election: o.Election, scheme: o.scheme()}, nil
}

// Ready waits until the member has joined. When it returns an error the member
// still runs: Close ends it.
func (m *Member) Ready(ctx context.Context) error {
	select {
	case <-m.etcd.Server.ReadyNotify():
		return nil
	case <-m.etcd.Server.StopNotify():
		return m.ended()
	case err := <-m.etcd.Err():
		return m.failed(err)
	case <-ctx.Done():
		n := 0
		for _, i := range m.Members() {
			if !i.Learner {
				n++
			}
		}
		return fault.Newf("start etcd", fault.Unavailable, "not ready: fewer than %d of %d masters are up: %w", n/2+1, n, ctx.Err())
	}
}

// abort stops a member that may not have joined. Close of etcd alone waits for
// servers that start only when the member is ready.
func (m *Member) abort() {
	_ = m.client.Close() // in process: ends its watches only
	m.etcd.Server.HardStop()
	m.etcd.Close()
}

func (o Options) scheme() string {
	if o.CertFile == "" {
		return "http"
	}
	return "https"
}

func configure(o Options) *embed.Config {
	cfg := embed.NewConfig()
	if o.CertFile != "" {
		cfg.PeerTLSInfo = transport.TLSInfo{
			CertFile: o.CertFile, KeyFile: o.KeyFile, TrustedCAFile: o.CAFile,
			ClientCertAuth: true, AllowedHostnames: o.PeerNames,
		}
	}
	at := func(p Peer) url.URL { return url.URL{Scheme: o.scheme(), Host: p.Addr.String()} }
	var all []string
	for _, p := range o.Peers {
		u := at(p)
		all = append(all, p.Name+"="+u.String())
	}
	// A listener is mandatory; a socket that only root can open is the one
	// that gives nothing away, and it lets etcdctl in for emergencies.
	socket := []url.URL{{Scheme: "unix", Path: filepath.Join(o.DataDir, "client.sock")}}
	cfg.Name, cfg.Dir = o.Self.Name, dir(o.DataDir)
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = socket, socket
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{at(o.Self)}, []url.URL{at(o.Self)}
	cfg.InitialCluster, cfg.InitialClusterToken = strings.Join(all, ","), o.Token
	cfg.TickMs, cfg.ElectionMs = uint(o.Heartbeat.Milliseconds()), uint(o.Election.Milliseconds())
	cfg.MaxTxnOps, cfg.MaxRequestBytes = 1024, 4<<20
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = embed.CompactorModePeriodic, "10m"
	cfg.QuotaBackendBytes = 4 << 30
	cfg.LogLevel, cfg.Logger = "error", "zap"
	if o.Join {
		cfg.ClusterState = embed.ClusterStateFlagExisting
	}
	// A learner that died would keep others from joining if it were the only
	// one allowed.
	cfg.MaxLearners = maxLearners
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

// Wait returns when the member has stopped by itself, with the reason, and nil
// when ctx ends, which must be before Close. The reason is ErrRemoved when the others have removed it.
func (m *Member) Wait(ctx context.Context) error {
	select {
	case err := <-m.etcd.Err():
		return m.failed(err)
	case <-m.etcd.Server.StopNotify():
		return m.ended()
	case <-ctx.Done():
		return nil
	}
}

// failed is what an error of a listener means: those of a server that stops
// follow from that.
func (m *Member) failed(err error) error {
	select {
	case <-m.etcd.Server.StoppingNotify():
		return m.ended()
	default:
		return fault.New("run etcd", fault.Internal, err)
	}
}

// ended is why the member stopped by itself. The only reasons that etcd has are
// that it was removed, or that another member told it so.
func (m *Member) ended() error { return fault.New("run etcd", fault.NotFound, ErrRemoved) }

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
