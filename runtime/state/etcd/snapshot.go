package etcd

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"

	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/state"
)

// Contents identifies what a store holds at a revision.
type Contents struct {
	Revision int64  `json:"revision"`
	Keys     int    `json:"keys"`
	Digest   string `json:"digest"` // SHA-256 over every key, its revisions and its value
}

// Snapshot writes a consistent copy of the whole store to w, in etcd's own
// format with its checksum at the end, and returns the number of bytes.
func (m *Member) Snapshot(ctx context.Context, w io.Writer) (int64, error) {
	const op = "take a snapshot of the store"
	r, err := m.client.Snapshot(ctx)
	if err != nil {
		return 0, fault.New(op, fault.Unavailable, err)
	}
	n, err := io.Copy(w, r)
	if cerr := r.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return n, fault.New(op, fault.Unavailable, err)
	}
	return n, nil
}

// Contents reads the whole store as it was at revision rev; 0: as it is. Its
// cost grows with the size of the store.
func (m *Member) Contents(ctx context.Context, rev int64) (Contents, error) {
	return contents(ctx, m.client, rev)
}

func contents(ctx context.Context, c *clientv3.Client, rev int64) (Contents, error) {
	h, out := sha256.New(), Contents{Revision: rev}
	from := "\x00"
	for {
		// An end of one zero byte stands for all keys from there on.
		res, err := c.Get(ctx, from, clientv3.WithRange("\x00"), clientv3.WithLimit(page), clientv3.WithRev(out.Revision))
		if err != nil {
			return out, classify(fmt.Sprintf("read the store at revision %d", rev), err)
		}
		if out.Revision == 0 {
			out.Revision = res.Header.Revision
		}
		for _, kv := range res.Kvs {
			out.Keys++
			hashBytes(h, kv.Key)
			hashBytes(h, kv.Value)
			hashNumbers(h, kv.CreateRevision, kv.ModRevision, kv.Version)
		}
		if !res.More {
			out.Digest = hex.EncodeToString(h.Sum(nil))
			return out, nil
		}
		from = string(res.Kvs[len(res.Kvs)-1].Key) + "\x00"
	}
}

func hashBytes(h hash.Hash, b []byte) {
	hashNumbers(h, int64(len(b)))
	h.Write(b)
}

func hashNumbers(h hash.Hash, ns ...int64) {
	var b [8]byte
	for _, n := range ns {
		binary.BigEndian.PutUint64(b[:], uint64(n))
		h.Write(b[:])
	}
}

// Restore makes the data of a new ensemble, of which o.Self is the only member,
// from the snapshot in file. There must be no data yet. The member itself is
// started with Start. The ensemble is another than the one that the snapshot is
// of, whose members, if there still are any, cannot be mistaken for its own.
func Restore(o Options, file string) error {
	o.Peers = []Peer{o.Self}
	o.Token += " restored " + time.Now().UTC().Format(time.RFC3339Nano)
	return restore(configure(o), file)
}

func restore(cfg *embed.Config, file string) error {
	const op = "restore the store"
	var peers []string
	for _, u := range cfg.AdvertisePeerUrls {
		peers = append(peers, u.String())
	}
	// A crash in the middle must not leave what looks like a store.
	tmp := cfg.Dir + ".restoring"
	if err := os.RemoveAll(tmp); err != nil {
		return fault.New(op, fault.Internal, err)
	}
	if _, err := os.Stat(cfg.Dir); err == nil {
		return fault.Newf(op, fault.Exists, "%s holds a store already", cfg.Dir)
	}
	err := snapshot.NewV3(zap.NewNop()).Restore(snapshot.RestoreConfig{
		SnapshotPath: file, Name: cfg.Name, OutputDataDir: tmp, PeerURLs: peers,
		InitialCluster: cfg.InitialCluster, InitialClusterToken: cfg.InitialClusterToken,
	})
	if err != nil {
		return fault.New(op, fault.Invalid, err)
	}
	if err := os.Rename(tmp, cfg.Dir); err != nil {
		return fault.New(op, fault.Internal, err)
	}
	return nil
}

// Scratch starts a member from the snapshot in file that nobody can reach, lets
// look read it, and removes it again. Its files are made below dir, whose path
// must be short: sockets lie there.
func Scratch(ctx context.Context, file, dir string, look func(context.Context, state.Backend, Contents) error) (err error) {
	const op = "start a scratch member"
	dir, err = os.MkdirTemp(dir, "scratch-")
	if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	defer os.RemoveAll(dir)
	cfg := configure(Options{Self: Peer{Name: "scratch"}, DataDir: dir, Heartbeat: 100 * time.Millisecond, Election: time.Second})
	socket := []url.URL{{Scheme: "unix", Path: filepath.Join(dir, "peer.sock")}}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = socket, socket
	cfg.InitialCluster, cfg.InitialClusterToken = "scratch="+socket[0].String(), "scratch"
	// What it writes is thrown away, and it compacts nothing that is to be read.
	cfg.UnsafeNoFsync = true
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	cfg.AutoCompactionRetention = "0"
	if err := restore(cfg, file); err != nil {
		return err
	}
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	client := v3client.New(e.Server)
	defer func() {
		_ = client.Close() // in process: ends its watches only
		e.Server.HardStop()
		e.Close()
	}()
	select {
	case <-e.Server.ReadyNotify():
	case err := <-e.Err():
		return fault.New(op, fault.Internal, err)
	case <-ctx.Done():
		return fault.New(op, fault.Unavailable, context.Cause(ctx))
	}
	has, err := contents(ctx, client, 0)
	if err != nil {
		return err
	}
	return look(ctx, New(client), has)
}
