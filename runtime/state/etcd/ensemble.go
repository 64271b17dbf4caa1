package etcd

import (
	"context"
	"errors"
	"net/netip"
	"net/url"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"dcos.example/dcos/runtime/fault"
)

// ID names a member for its whole life. A master that loses its data comes back
// as another member.
type ID uint64

// Info is what the ensemble knows of a member.
type Info struct {
	ID      ID
	Name    string         // "" until the member has joined for the first time
	Addr    netip.AddrPort // where the others reach it
	Learner bool           // receives everything, has no vote yet
}

// ID returns this member's own.
func (m *Member) ID() ID { return ID(m.etcd.Server.MemberID()) }

// Ensemble identifies the ensemble. One that was restored from a snapshot is
// another.
func (m *Member) Ensemble() ID { return ID(m.etcd.Server.Cluster().ID()) }

// Learner reports whether this member has no vote yet.
func (m *Member) Learner() bool { return m.etcd.Server.IsLearner() }

// Leader is the raft leader as this member sees it, 0 when there is none.
func (m *Member) Leader() ID { return ID(m.etcd.Server.Leader()) }

// Members lists the ensemble as this member knows it, by ID.
func (m *Member) Members() []Info {
	var all []Info
	for _, mm := range m.etcd.Server.Cluster().Members() {
		all = append(all, Info{ID: ID(mm.ID), Name: mm.Name, Addr: addrOf(mm.PeerURLs), Learner: mm.IsLearner})
	}
	return all
}

func addrOf(urls []string) (a netip.AddrPort) {
	for _, text := range urls {
		if u, err := url.Parse(text); err == nil {
			a, _ = netip.ParseAddrPort(u.Host)
		}
	}
	return a
}

// Progress tells how far a member is, in entries of the raft log.
type Progress struct {
	Index   uint64 // the last that it knows to be committed
	Applied uint64
}

// Progress of this member.
func (m *Member) Progress() Progress {
	return Progress{Index: m.etcd.Server.CommittedIndex(), Applied: m.etcd.Server.AppliedIndex()}
}

// Check returns nil when this member takes part in a majority: it reads what
// can only be read with one.
func (m *Member) Check(ctx context.Context) error {
	if _, err := m.client.Get(ctx, prefix, clientv3.WithCountOnly()); err != nil {
		return classify("check the store", err)
	}
	return nil
}

// reshapeTime bounds one change of the ensemble. Two at the same time are one
// too many: the second is dropped without a word.
const reshapeTime = 3 * time.Second

// AddLearner adds a member at addr, which then starts with Join.
func (m *Member) AddLearner(ctx context.Context, addr netip.AddrPort) (ID, error) {
	ctx, cancel := context.WithTimeout(ctx, reshapeTime)
	defer cancel()
	res, err := m.client.MemberAddAsLearner(ctx, []string{m.url(addr)})
	if err != nil {
		return 0, reshape("add a member at "+addr.String(), err)
	}
	return ID(res.Member.ID), nil
}

// Promote gives a learner its vote. It is fault.Conflict while the learner has
// not caught up.
func (m *Member) Promote(ctx context.Context, id ID) error {
	ctx, cancel := context.WithTimeout(ctx, reshapeTime)
	defer cancel()
	_, err := m.client.MemberPromote(ctx, uint64(id))
	return reshape("promote a member", err)
}

// Remove takes a member out of the ensemble. It is fault.Conflict when the rest
// could lose its majority by it.
func (m *Member) Remove(ctx context.Context, id ID) error {
	ctx, cancel := context.WithTimeout(ctx, reshapeTime)
	defer cancel()
	_, err := m.client.MemberRemove(ctx, uint64(id))
	return reshape("remove a member", err)
}

// Readdress tells the ensemble where a member is reached from now on.
func (m *Member) Readdress(ctx context.Context, id ID, addr netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(ctx, reshapeTime)
	defer cancel()
	_, err := m.client.MemberUpdate(ctx, uint64(id), []string{m.url(addr)})
	return reshape("change the address of a member", err)
}

// HandOver makes another member the raft leader. Only the leader can.
func (m *Member) HandOver(ctx context.Context, to ID) error {
	if _, err := m.client.MoveLeader(ctx, uint64(to)); err != nil {
		return fault.New("hand leadership over", fault.Unavailable, err)
	}
	return nil
}

// Compact makes the raft log start anew soon. After a change of addresses this
// keeps old ones from being read out of it at the next start.
//
// etcd sets the flag behind it without a lock, because its own caller is the
// loop that reads it. Set from here, it is seen with the next entry or the one
// after, and lost only while a snapshot is being made, which is what it asks
// for.
func (m *Member) Compact() { m.etcd.Server.ForceSnapshot() }

func (m *Member) url(addr netip.AddrPort) string {
	return (&url.URL{Scheme: m.scheme, Host: addr.String()}).String()
}

// reshape maps the errors of membership changes. What etcd refuses for the
// safety of the ensemble may be possible later.
func reshape(op string, err error) error {
	if err == nil {
		return nil
	}
	for known, kind := range map[error]fault.Kind{
		rpctypes.ErrMemberNotFound: fault.NotFound, rpctypes.ErrMemberNotLearner: fault.Exists, rpctypes.ErrPeerURLExist: fault.Exists,
		rpctypes.ErrMemberLearnerNotReady: fault.Conflict, rpctypes.ErrMemberNotEnoughStarted: fault.Conflict,
		rpctypes.ErrUnhealthy: fault.Conflict, rpctypes.ErrTooManyLearners: fault.Conflict,
	} {
		if errors.Is(err, known) {
			return fault.New(op, kind, err)
		}
	}
	return fault.New(op, fault.Unavailable, err)
}
