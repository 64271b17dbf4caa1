package membership

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"iter"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/state"
)

const (
	// lookAgain is how often the seed file is looked at.
	lookAgain = 2 * time.Second
	// patience is how long a master may keep a question open. News comes at
	// once; this bounds how long one master is believed that has none.
	patience = time.Minute
	// A host that reaches no master asks again after pauses between these.
	firstPause, lastPause = time.Second, 10 * time.Second
)

// SourceConfig says what a Source follows.
type SourceConfig struct {
	Cluster string     // config.Cluster.ID: lists of other clusters are not believed
	Self    netip.Addr // of a master, which does not ask itself; invalid on agents
	Seed    string     // file: config.MastersFile
	Saved   string     // file where what was learned outlives a restart
	// Ask returns a master's list as soon as that is newer than after, and
	// after wait anyway. A zero list says that the master knows of none.
	Ask func(ctx context.Context, master netip.Addr, after List, wait time.Duration) (List, error)
	Log *slog.Logger
}

// Current is what a Source knows at one moment.
type Current struct {
	// Masters are those to turn to: the voters of List, else the seed's.
	Masters []config.Member
	List    List // zero: none known
	Seed    config.Masters
}

// Source follows the list of masters. What the cluster says counts; the seed
// file, which the installer writes, counts until the cluster has said
// something, and after that only as a place to ask.
type Source struct {
	cfg SourceConfig

	mu      sync.Mutex
	current Current
	changed chan struct{} // closed and replaced with current
}

// NewSource reads both files.
func NewSource(cfg SourceConfig) (*Source, error) {
	seed, err := config.Load(cfg.Seed, config.Masters{})
	if err != nil {
		return nil, err
	}
	s := &Source{cfg: cfg, changed: make(chan struct{})}
	list, err := load(cfg.Saved)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil: // it is only a memory
		cfg.Log.Warn("remembered list of masters is unusable", "file", cfg.Saved, "err", err)
	case list.Cluster == cfg.Cluster:
		s.current.List = list
	}
	s.current.Seed = seed
	s.current.Masters = choose(s.current)
	return s, nil
}

func load(file string) (l List, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return l, err
	}
	return l, json.Unmarshal(b, &l)
}

func choose(c Current) []config.Member {
	if voters := c.List.Voters(); len(voters) > 0 {
		return voters
	}
	return c.Seed.Masters
}

// Current returns what is known now.
func (s *Source) Current() Current {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

// Masters returns the masters to turn to now.
func (s *Source) Masters() []config.Member { return s.Current().Masters }

// Addrs returns the addresses of Masters.
func (s *Source) Addrs() (out []netip.Addr) {
	for _, m := range s.Masters() {
		out = append(out, m.Addr)
	}
	return out
}

// Changes yields what is known now and each time it has changed, until ctx
// ends.
func (s *Source) Changes(ctx context.Context) iter.Seq[Current] {
	return func(yield func(Current) bool) {
		for {
			s.mu.Lock()
			c, changed := s.current, s.changed
			s.mu.Unlock()
			if !yield(c) {
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-changed:
			}
		}
	}
}

// update replaces what f changes.
func (s *Source) update(f func(*Current)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.current)
	s.current.Masters = choose(s.current)
	close(s.changed)
	s.changed = make(chan struct{})
}

// Learn takes over a list that is newer than the one known, and reports whether
// it was. It is on the disk when Learn returns.
func (s *Source) Learn(l List) bool {
	if l.Cluster != s.cfg.Cluster || !l.Known() {
		return false
	}
	learned := false
	s.update(func(c *Current) {
		if learned = l.Newer(c.List); !learned {
			return
		}
		c.List = l
		// Under the lock, so that an older one is never written later.
		if err := save(s.cfg.Saved, l); err != nil {
			s.cfg.Log.Error("remember the list of masters", "file", s.cfg.Saved, "err", err)
		}
	})
	if learned {
		s.cfg.Log.Info("masters", "generation", l.Generation, "rev", l.Revision, "members", names(l))
	}
	return learned
}

func names(l List) (out []string) {
	for _, m := range l.Members {
		out = append(out, m.Name+"="+m.Addr.String()+" "+string(m.Role))
	}
	return out
}

func save(file string, l List) error {
	b, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".masters-*")
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// Run follows the file and the masters until ctx ends.
func (s *Source) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { s.watchSeed(ctx) })
	s.ask(ctx)
}

func (s *Source) watchSeed(ctx context.Context) {
	var last os.FileInfo
	for pause(ctx, lookAgain) {
		now, err := os.Stat(s.cfg.Seed)
		if err != nil || last != nil && os.SameFile(last, now) && last.ModTime().Equal(now.ModTime()) && last.Size() == now.Size() {
			continue // without the file the last one counts
		}
		last = now
		seed, err := config.Load(s.cfg.Seed, config.Masters{})
		if err != nil {
			s.cfg.Log.Warn("read list of masters", "err", err)
			continue
		}
		if old := s.Current().Seed; !slices.Equal(old.Masters, seed.Masters) || !slices.Equal(old.Founders, seed.Founders) {
			s.cfg.Log.Info("list of masters was changed", "file", s.cfg.Seed)
			s.update(func(c *Current) { c.Seed = seed })
		}
	}
}

// ask keeps one question open to one master, another one each time.
func (s *Source) ask(ctx context.Context) {
	wait := firstPause
	for ctx.Err() == nil {
		heard := false
		for _, addr := range s.candidates() {
			have := s.Current().List
			l, err := s.cfg.Ask(ctx, addr, have, patience)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				s.cfg.Log.Debug("ask for the masters", "master", addr, "err", err)
				continue
			}
			if l.Known() {
				// Without news it is another's turn, after a moment in case it
				// did not keep the question open.
				heard = s.Learn(l) || pause(ctx, firstPause)
				break
			}
		}
		if heard {
			wait = firstPause
			continue
		}
		if !pause(ctx, wait/2+rand.N(wait)) {
			return
		}
		wait = min(2*wait, lastPause)
	}
}

// candidates are all masters that anybody has named, in random order.
func (s *Source) candidates() (out []netip.Addr) {
	c := s.Current()
	for _, m := range c.List.Members {
		out = append(out, m.Addr)
	}
	for _, m := range c.Seed.Masters {
		out = append(out, m.Addr)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	out = slices.DeleteFunc(slices.Compact(out), func(a netip.Addr) bool { return a == s.cfg.Self })
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// FollowStore learns from a store until ctx ends. Masters use it that have one.
func (s *Source) FollowStore(ctx context.Context, b state.Backend) {
	for ctx.Err() == nil {
		l, rev, err := Read(ctx, b)
		if err != nil && !fault.Is(err, fault.NotFound) {
			pause(ctx, firstPause)
			continue
		}
		s.Learn(l)
		for c, err := range b.Watch(ctx, rev, Record.Kind) {
			if err != nil {
				pause(ctx, firstPause)
				break
			}
			if l, err := decode(state.Record(c)); err != nil {
				s.cfg.Log.Error("read the list of masters", "err", err)
			} else {
				s.Learn(l)
			}
		}
	}
}

// Read returns the list in a store and its revision there, fault.NotFound when
// it has none.
func Read(ctx context.Context, b state.Backend) (List, state.Rev, error) {
	rec, err := b.Get(ctx, Record)
	if err != nil {
		return List{}, 0, err
	}
	l, err := decode(rec)
	return l, rec.Rev, err
}

func decode(rec state.Record) (l List, err error) {
	if rec.Value == nil {
		return l, nil
	}
	if err := json.Unmarshal(rec.Value, &l); err != nil {
		return l, fault.New("read the list of masters", fault.Internal, err)
	}
	l.Revision = int64(rec.Rev)
	return l, nil
}

// Write stores l, conditional on rev, and returns it as it now is.
func Write(ctx context.Context, b state.Backend, rev state.Rev, l List) (List, state.Rev, error) {
	l.Revision = 0 // the store says it
	v, err := json.Marshal(l)
	if err != nil {
		return l, 0, fault.New("write the list of masters", fault.Internal, err)
	}
	rev, err = b.Commit(ctx, state.Op{Key: Record, IfRev: rev, Value: v})
	l.Revision = int64(rev)
	return l, rev, err
}

func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
