// Package backup saves the cluster: the leading master takes a consistent copy
// of the store, puts it with the cluster's keys, the masters' configuration and
// the installer's state into one encrypted file, proves that the written file
// can be opened and started from, and keeps it where the configuration says.
//
// Proof means: the file is decrypted with a key that exists for this purpose
// only and is forgotten afterwards, its snapshot is started as a member that
// nobody can reach, and what that member holds is compared with the living
// store at the same revision. A backup without proof is not kept.
//
// A backup costs two reads of the whole store and, in the data directory, about
// three times its size for the time it takes.
package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"filippo.io/age"

	"dcos.example/dcos/runtime/backup/archive"
	"dcos.example/dcos/runtime/backup/target"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/deposit"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/state"
	"dcos.example/dcos/runtime/state/etcd"
)

// KindStatus is what this package stores: how the last backup went.
const KindStatus state.Kind = "backup-status"

// kindAgent is master/registry's. It is read for the list of agents, and
// written once, before there is a master, when a cluster is restored.
const kindAgent state.Kind = "agent"

const statusID = "last"

// source is the living store: an etcd.Member.
type source interface {
	Snapshot(ctx context.Context, w io.Writer) (int64, error)
	Contents(ctx context.Context, rev int64) (etcd.Contents, error)
}

// place keeps backups.
type place interface {
	Put(ctx context.Context, e archive.Entry, path string) error
	List(ctx context.Context) ([]archive.Entry, error)
	Open(ctx context.Context, id string) (io.ReadCloser, error)
	Remove(ctx context.Context, id string) error
}

// Config is what a Service is made from.
type Config struct {
	Cluster config.Cluster
	Host    config.Host
	Backup  config.Backup
	// Work is a directory for what lies in clear while a backup is made. Its
	// path is short enough for sockets.
	Work    string
	Store   source
	Deposit *deposit.Deposit
	// Root is put before the paths of the masters' files; tests have their own.
	Root string
	// Masters are those of now, and Peers reaches their backup API.
	Masters func() []config.Member
	Peers   http.RoundTripper
	Log     *slog.Logger
	Now     func() time.Time // nil: time.Now
}

// Service makes backups on one master.
type Service struct {
	cfg   Config
	dir   target.Dir // on this master
	place place      // where backups go: dir, or a bucket
	asks  chan chan<- outcome

	mu   sync.Mutex
	term *term // nil while this master does not lead
}

// term is one time of leading.
type term struct {
	status state.Table[Status]
	over   <-chan struct{}
}

type outcome struct {
	entry archive.Entry
	err   error
}

// Status tells how the last backup went. It is in the store, so that a new
// leader knows.
type Status struct {
	At    time.Time `json:"at"`              // of the last try
	ID    string    `json:"id,omitempty"`    // of the backup, when it was made
	Error string    `json:"error,omitempty"` // when it was not
	TookS float64   `json:"took_s"`
	Asked bool      `json:"asked,omitempty"` // by a person, not by the schedule
}

// New returns the service of a master.
func New(cfg Config) (*Service, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Service{cfg: cfg, dir: target.Dir{Path: cfg.Root + cfg.Backup.Dir}, asks: make(chan chan<- outcome)}
	s.place = s.dir
	if cfg.Backup.S3 != nil {
		keys, err := config.Load(cfg.Root+config.BackupKeysFile, config.S3Keys{})
		if err != nil {
			return nil, err
		}
		if s.place, err = target.NewS3(*cfg.Backup.S3, keys); err != nil {
			return nil, err
		}
	}
	if _, err := archive.Recipients(cfg.Backup.Recipients); err != nil {
		return nil, err
	}
	return s, nil
}

// retry is how long after a failed backup the next is tried, unless the
// schedule is denser.
const retry = 10 * time.Minute

// Run makes backups, by the schedule and when asked, while this master leads;
// store is that of the term.
func (s *Service) Run(ctx context.Context, store state.Backend) error {
	t := &term{status: state.NewTable[Status](state.Restrict(store, KindStatus), KindStatus), over: ctx.Done()}
	s.lead(t)
	defer s.lead(nil)
	if err := os.RemoveAll(s.cfg.Work); err != nil { // of a process that died in the middle
		s.cfg.Log.Warn("remove the rest of a backup", "err", err)
	}
	for {
		var scheduled <-chan time.Time
		wait := time.NewTimer(s.due(ctx, t))
		if s.cfg.Backup.Every != 0 {
			scheduled = wait.C
		}
		var answer chan<- outcome
		select {
		case <-ctx.Done():
			wait.Stop()
			return nil
		case answer = <-s.asks:
		case <-scheduled:
		}
		wait.Stop()
		made, err := s.try(ctx, t, answer != nil)
		if answer != nil {
			answer <- outcome{made, err} // has room for it
		} else if err != nil && ctx.Err() == nil {
			s.cfg.Log.Error("back the cluster up", "err", err)
		}
	}
}

func (s *Service) lead(t *term) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.term = t
}

func (s *Service) leading() (*term, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.term == nil {
		return nil, fault.Newf("ask for backups", fault.Unavailable, "this master does not lead")
	}
	return s.term, nil
}

// due is how long it is until the next scheduled backup.
func (s *Service) due(ctx context.Context, t *term) time.Duration {
	every := time.Duration(s.cfg.Backup.Every)
	last, err := t.last(ctx)
	if err != nil {
		return min(every, time.Minute) // nothing was made yet, or the store is away
	}
	if last.Error != "" {
		every = min(every, retry)
	}
	return max(0, last.At.Add(every).Sub(s.cfg.Now()))
}

func (t *term) last(ctx context.Context) (Status, error) {
	obj, err := t.status.Get(ctx, statusID)
	return obj.Spec, err
}

// Last returns how the last backup went; fault.NotFound before the first.
func (s *Service) Last(ctx context.Context) (Status, error) {
	t, err := s.leading()
	if err != nil {
		return Status{}, err
	}
	return t.last(ctx)
}

// Make makes a backup now, or after the one that is being made. It goes on when
// ctx ends.
func (s *Service) Make(ctx context.Context) (archive.Entry, error) {
	const op = "back the cluster up"
	t, err := s.leading()
	if err != nil {
		return archive.Entry{}, err
	}
	answer := make(chan outcome, 1)
	select {
	case s.asks <- answer:
	case <-t.over:
		return archive.Entry{}, fault.Newf(op, fault.Unavailable, "this master leads no more")
	case <-ctx.Done():
		return archive.Entry{}, fault.New(op, fault.Unavailable, context.Cause(ctx))
	}
	select {
	case o := <-answer:
		return o.entry, o.err
	case <-ctx.Done():
		return archive.Entry{}, fault.Newf(op, fault.Unavailable, "not waited for any longer; it goes on: %w", context.Cause(ctx))
	}
}

// try makes a backup and notes how it went.
func (s *Service) try(ctx context.Context, t *term, asked bool) (archive.Entry, error) {
	start := s.cfg.Now()
	e, err := s.make(ctx, start)
	st := Status{At: start.UTC(), ID: e.ID, TookS: s.cfg.Now().Sub(start).Seconds(), Asked: asked}
	if err != nil {
		st.ID, st.Error = "", err.Error()
	} else {
		s.cfg.Log.Info("the cluster is backed up", "id", e.ID, "bytes", e.Size, "keys", e.Store.Keys, "rev", e.Store.Revision)
	}
	obj, gerr := t.status.Get(ctx, statusID)
	if gerr == nil || fault.Is(gerr, fault.NotFound) {
		obj.ID, obj.Spec = statusID, st
		_, gerr = t.status.Write(ctx, obj)
	}
	if gerr != nil && ctx.Err() == nil {
		s.cfg.Log.Warn("note how the backup went", "err", gerr)
	}
	return e, err
}

// make writes, proves, keeps, and clears away.
func (s *Service) make(ctx context.Context, now time.Time) (e archive.Entry, err error) {
	const op = "back the cluster up"
	if err := os.MkdirAll(s.cfg.Work, 0o700); err != nil {
		return e, fault.New(op, fault.Internal, err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(s.cfg.Work)) }()
	to, err := archive.Recipients(s.cfg.Backup.Recipients)
	if err != nil {
		return e, err
	}
	if len(to) == 0 {
		return e, fault.Newf(op, fault.Invalid, "this cluster has no key for backups yet: dcos-install apply makes one")
	}
	// For the proof only: it is never written down, and gone when we return.
	proof, err := age.GenerateX25519Identity()
	if err != nil {
		return e, fault.New(op, fault.Internal, err)
	}
	m := archive.Manifest{
		ID: archive.ID(s.cfg.Cluster.Name, s.cfg.Cluster.ID, now), Created: now.UTC().Truncate(time.Second),
		ClusterID: s.cfg.Cluster.ID, ClusterName: s.cfg.Cluster.Name, Release: s.cfg.Cluster.Release, Master: s.cfg.Host.Name,
	}
	sources, serial, err := s.collect(ctx, &m)
	if err != nil {
		return e, err
	}
	file := filepath.Join(s.cfg.Work, archive.FileName(m.ID))
	e = archive.Entry{
		ID: m.ID, Created: m.Created, ClusterID: m.ClusterID, ClusterName: m.ClusterName, Release: m.Release, Master: m.Master,
		Store: m.Store, Agents: len(m.Agents), InstallerSerial: serial,
	}
	if e.Size, e.SHA256, err = write(file, append(to, proof.Recipient()), m, sources); err != nil {
		return e, err
	}
	if e.Verified, err = s.prove(ctx, file, proof, m); err != nil {
		return e, err
	}
	if err := s.place.Put(ctx, e, file); err != nil {
		return e, err
	}
	if s.cfg.Backup.S3 == nil {
		e.Copies = append([]string{s.cfg.Host.Name}, s.copyToPeers(ctx, e, file)...)
	}
	s.prune(ctx)
	return e, nil
}

// collect takes the snapshot and everything else. It fills in what the manifest
// says of the store.
func (s *Service) collect(ctx context.Context, m *archive.Manifest) (sources []archive.Source, serial uint64, err error) {
	const op = "back the cluster up"
	db := filepath.Join(s.cfg.Work, "snapshot.db")
	f, err := os.OpenFile(db, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, 0, fault.New(op, fault.Internal, err)
	}
	_, err = s.cfg.Store.Snapshot(ctx, f)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, 0, err
	}
	// What is in the snapshot is known from a member started from it.
	err = etcd.Scratch(ctx, db, s.cfg.Work, func(ctx context.Context, store state.Backend, has etcd.Contents) error {
		live, err := s.cfg.Store.Contents(ctx, has.Revision)
		if err != nil {
			return err
		}
		if live != has {
			return fault.Newf(op, fault.Internal, "the snapshot holds %d keys at revision %d, the store %d, or they differ", has.Keys, has.Revision, live.Keys)
		}
		m.Store = archive.Contents(has)
		m.Agents, err = agents(ctx, store)
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	if sources, err = s.config(); err != nil {
		return nil, 0, err
	}
	switch h, content, err := s.cfg.Deposit.Get(ctx); {
	case err == nil:
		serial = h.Serial
		sources = append(sources, archive.Source{Name: archive.DepositName, Data: content})
	case !fault.Is(err, fault.NotFound):
		return nil, 0, err
	}
	return append(sources, archive.Source{Name: archive.SnapshotName, Path: db}), serial, nil
}

// config reads the masters' files and the manifest of the release.
func (s *Service) config() ([]archive.Source, error) {
	const op = "read the configuration for the backup"
	var out []archive.Source
	root := s.cfg.Root + config.EtcDir
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		out = append(out, archive.Source{Name: archive.ConfigDir + path[len(s.cfg.Root):], Data: b})
		return err
	})
	if err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	release, err := os.ReadFile(s.cfg.Root + config.ReleaseFile)
	if err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	return append(out, archive.Source{Name: archive.ReleaseName, Data: release}), nil
}

// agents lists the admitted ones. The records are those of master/registry,
// read as what they are on the disk: JSON.
func agents(ctx context.Context, store state.Backend) ([]archive.Agent, error) {
	recs, _, err := store.List(ctx, kindAgent)
	if err != nil {
		return nil, err
	}
	out := []archive.Agent{}
	for _, r := range recs {
		var a struct {
			Standing string `json:"standing"`
			Info     struct {
				Hostname string `json:"hostname"`
			} `json:"info"`
		}
		if err := json.Unmarshal(r.Value, &a); err != nil {
			return nil, fault.New("read agent "+r.Key.ID, fault.Internal, err)
		}
		if a.Standing == "gone" {
			continue
		}
		addr, _ := netip.ParseAddr(a.Info.Hostname)
		out = append(out, archive.Agent{ID: r.Key.ID, Hostname: a.Info.Hostname, Addr: addr})
	}
	return out, nil
}

func write(file string, to []age.Recipient, m archive.Manifest, sources []archive.Source) (size int64, sum string, err error) {
	const op = "write the backup"
	f, err := os.OpenFile(file, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, "", fault.New(op, fault.Internal, err)
	}
	h := sha256.New()
	err = archive.Write(io.MultiWriter(f, h), to, m, sources)
	st, serr := f.Stat()
	if err = errors.Join(err, serr, f.Sync(), f.Close()); err != nil {
		return 0, "", fault.New(op, fault.Internal, err)
	}
	return st.Size(), hex.EncodeToString(h.Sum(nil)), nil
}

// prove opens the written file and starts a member from what is in it.
func (s *Service) prove(ctx context.Context, file string, proof age.Identity, want archive.Manifest) (v archive.Verification, err error) {
	const op = "verify the backup"
	start := s.cfg.Now()
	dir, err := os.MkdirTemp(s.cfg.Work, "proof-")
	if err != nil {
		return v, fault.New(op, fault.Internal, err)
	}
	f, err := os.Open(file)
	if err != nil {
		return v, fault.New(op, fault.Internal, err)
	}
	defer f.Close()
	b, err := archive.Open(f, []age.Identity{proof}, dir)
	if err != nil {
		return v, fault.New(op, fault.Internal, err)
	}
	err = etcd.Scratch(ctx, b.Snapshot, s.cfg.Work, func(_ context.Context, _ state.Backend, has etcd.Contents) error {
		if v.Contents = archive.Contents(has); v.Contents != want.Store {
			return fmt.Errorf("a member started from it holds %d keys at revision %d, it was made of %d at %d, or they differ", has.Keys, has.Revision, want.Store.Keys, want.Store.Revision)
		}
		return nil
	})
	if err != nil {
		return v, fault.New(op, fault.Internal, err)
	}
	v.At, v.TookMS = s.cfg.Now().UTC().Truncate(time.Second), s.cfg.Now().Sub(start).Milliseconds()
	return v, nil
}
