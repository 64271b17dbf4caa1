package etcd

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/storage/backend"
	"go.etcd.io/etcd/server/v3/storage/schema"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/fault"
)

// Disk is what the data of a member that does not run says.
type Disk struct {
	ID, Ensemble ID
	Members      []Info // by ID; it may be old
}

// dir holds the data of etcd itself.
func dir(dataDir string) string { return filepath.Join(dataDir, "etcd") }

func database(dataDir string) string { return filepath.Join(dir(dataDir), "member", "snap", "db") }

// openLog opens the log of a stopped member where its last snapshot was taken.
// Without a log it is fault.NotFound.
func openLog(dataDir string, open func(*zap.Logger, string, *walpb.Snapshot) (*wal.WAL, error)) (*wal.WAL, error) {
	logs := filepath.Join(dir(dataDir), "member", "wal")
	op := "open the log in " + logs
	if !wal.Exist(logs) {
		return nil, fault.Newf(op, fault.NotFound, "%s holds no data", dir(dataDir))
	}
	lg := zap.NewNop()
	snaps, err := wal.ValidSnapshotEntries(lg, logs)
	if err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	if len(snaps) == 0 {
		return nil, fault.Newf(op, fault.Internal, "it has no beginning")
	}
	w, err := open(lg, logs, snaps[len(snaps)-1])
	if err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	return w, nil
}

// Inspect reads the data in dataDir. Without any it is fault.NotFound. It must
// not be called while the member runs.
func Inspect(dataDir string) (d Disk, err error) {
	const op = "read the store's files"
	lg := zap.NewNop()
	w, err := openLog(dataDir, wal.OpenForRead)
	if err != nil {
		return d, fault.New(op, fault.KindOf(err), err)
	}
	defer w.Close() // its error says only that there was nothing to write
	raw, _, _, err := w.ReadAll()
	if err != nil {
		return d, fault.New(op, fault.Internal, err)
	}
	var meta etcdserverpb.Metadata
	if err := proto.Unmarshal(raw, &meta); err != nil {
		return d, fault.New(op, fault.Internal, err)
	}
	d.ID, d.Ensemble = ID(meta.GetNodeID()), ID(meta.GetClusterID())
	err = withDatabase(dataDir, func(be backend.Backend) error {
		members, _ := schema.NewMembershipBackend(lg, be).MustReadMembersFromBackend()
		for id, m := range members {
			d.Members = append(d.Members, Info{ID: ID(id), Name: m.Name, Addr: addrOf(m.PeerURLs), Learner: m.IsLearner})
		}
		return nil
	})
	return d, err
}

// Relocate changes the addresses that a stopped member has for itself and the
// others, so that it finds them when it starts. The ensemble itself is told
// with Readdress, as soon as there is a majority.
func Relocate(o Options, to map[ID]netip.AddrPort) error {
	return withDatabase(o.DataDir, func(be backend.Backend) error {
		lg := zap.NewNop()
		table := schema.NewMembershipBackend(lg, be)
		members, _ := table.MustReadMembersFromBackend()
		for id, addr := range to {
			m := members[types.ID(id)]
			if m == nil || addrOf(m.PeerURLs) == addr {
				continue
			}
			m.PeerURLs = []string{(&url.URL{Scheme: o.scheme(), Host: addr.String()}).String()}
			table.MustSaveMemberToBackend(m)
		}
		return nil
	})
}

// withDatabase opens the database of a stopped member. A member that has not
// written one yet has nothing to say.
func withDatabase(dataDir string, f func(backend.Backend) error) error {
	const op = "open the store's files"
	path := database(dataDir)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	be := backend.NewDefaultBackend(zap.NewNop(), path)
	err := f(be)
	be.ForceCommit()
	return errors.Join(err, be.Close())
}

// SetAside moves the data away, so that the member starts without any, and
// returns where it is now. Nothing is deleted.
func SetAside(dataDir string, now time.Time) (string, error) {
	to := dir(dataDir) + ".aside-" + now.UTC().Format("20060102T150405Z")
	if err := os.Rename(dir(dataDir), to); err != nil {
		return "", fault.New("move the old store away", fault.Internal, err)
	}
	return to, nil
}

// agreeToAll marks everything in the log of a stopped member as agreed upon.
// Started alone, etcd would drop what the member has without having heard that
// a majority has it too, although the writer may have: a follower learns of
// the last agreement with the next message of the leader, and notes it on disk
// only with its next entry.
func agreeToAll(dataDir string) (err error) {
	const op = "agree to all of the log"
	w, err := openLog(dataDir, wal.Open)
	if err != nil {
		return fault.New(op, fault.KindOf(err), err)
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	_, hard, entries, err := w.ReadAll()
	if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	if len(entries) == 0 || entries[len(entries)-1].GetIndex() <= hard.GetCommit() {
		return nil
	}
	hard.Commit = entries[len(entries)-1].Index
	if err := w.Save(hard, nil); err != nil {
		return fault.New(op, fault.Internal, err)
	}
	if err := w.Sync(); err != nil {
		return fault.New(op, fault.Internal, err)
	}
	return nil
}

// Recover makes the stopped member o.Self the only one of its ensemble, with
// all that it holds. What it had not received is lost; what it had received
// and no majority had is kept. Then it runs alone, for write to note what
// happened.
func Recover(ctx context.Context, o Options, write func(context.Context, *Member) error) error {
	const op = "make this master the only one"
	if err := agreeToAll(o.DataDir); err != nil {
		return fault.New(op, fault.KindOf(err), err)
	}
	cfg := configure(o)
	cfg.ForceNewCluster = true
	// The others shall neither reach it nor be told anything now.
	sock, err := os.MkdirTemp("", "dcos-recover-")
	if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	defer os.RemoveAll(sock)
	cfg.ListenPeerUrls = []url.URL{{Scheme: "unix", Path: filepath.Join(sock, "peer")}}
	m, err := launch(o, cfg)
	if err != nil {
		return err
	}
	defer m.abort()
	if err := m.Ready(ctx); err != nil {
		return err
	}
	if all := m.Members(); len(all) != 1 || all[0].ID != m.ID() {
		return fault.Newf(op, fault.Internal, "there are still %d members", len(all))
	}
	if err := m.Readdress(ctx, m.ID(), o.Self.Addr); err != nil {
		return err
	}
	return write(ctx, m)
}
