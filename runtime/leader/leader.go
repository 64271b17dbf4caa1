// Package leader decides which master leads, and tells everyone who does.
//
// Leadership follows the raft leader of the embedded etcd: the master whose
// member leads writes its name into the store, and its components run with a
// store fenced on that very record. A master that lost raft leadership without
// noticing can therefore write nothing more. There is no lease to wait for, so
// fail-over takes as long as a raft election (ADR 0005).
package leader

import (
	"context"
	"encoding/json"
	"iter"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/state"
)

// Record is where the leader's Info is stored.
var record = state.Key{Kind: "leader", ID: "master"}

// Info names a leader.
type Info struct {
	Name    string     `json:"name"`
	Addr    netip.Addr `json:"addr"`
	Elected time.Time  `json:"elected"`
}

// Raft is this process's view of the consensus below the store.
type Raft interface {
	Leads() bool
	LeaderChanged() <-chan struct{}
}

// Elector follows leadership for one master.
type Elector struct {
	store state.Backend
	raft  Raft
	self  Info
	log   *slog.Logger

	mu      sync.Mutex
	current Info          // zero: unknown
	changed chan struct{} // closed and replaced when current changes
}

// poll is how often the raft role is looked at without a notice: losing the
// quorum gives none.
const poll = 50 * time.Millisecond

// New returns an Elector for the master name at addr.
func New(store state.Backend, raft Raft, name string, addr netip.Addr, log *slog.Logger) *Elector {
	return &Elector{store: store, raft: raft, self: Info{Name: name, Addr: addr}, log: log, changed: make(chan struct{})}
}

// Current returns the leader, if one is known.
func (e *Elector) Current() (Info, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.current, e.current.Name != ""
}

// Changes yields the leader now and at every change, until ctx ends. Info is
// zero while there is none.
func (e *Elector) Changes(ctx context.Context) iter.Seq[Info] {
	return func(yield func(Info) bool) {
		for {
			e.mu.Lock()
			info, changed := e.current, e.changed
			e.mu.Unlock()
			if !yield(info) {
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

func (e *Elector) set(info Info) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if info == e.current {
		return
	}
	e.current = info
	close(e.changed)
	e.changed = make(chan struct{})
}

// Run follows leadership until ctx ends. While this master leads it runs lead
// with a store that only works for this term; lead's context ends when the term
// does, and Run waits for lead to return before it may lead again. An error of
// lead while it still leads ends Run.
func (e *Elector) Run(ctx context.Context, lead func(context.Context, state.Backend) error) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { e.follow(ctx) })
	defer wg.Wait()
	defer cancel()
	for e.until(ctx, true) {
		if err := e.term(ctx, lead); err != nil {
			return err
		}
	}
	return nil
}

// term leads once. It returns nil when the term is over.
func (e *Elector) term(ctx context.Context, lead func(context.Context, state.Backend) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	info := e.self
	info.Elected = time.Now().UTC().Truncate(time.Millisecond)
	rev, err := e.claim(ctx, info)
	if err != nil {
		e.log.Warn("claim leadership", "err", err)
		sleep(ctx, poll)
		return nil
	}
	e.log.Info("leading", "rev", rev)
	e.set(info)
	done := make(chan error, 1)
	go func() { done <- lead(ctx, state.Fence(e.store, record, rev)) }()
	over := make(chan struct{})
	go func() { defer close(over); e.until(ctx, false) }()
	select {
	case err = <-done:
		lost := ctx.Err() != nil || !e.raft.Leads()
		cancel()
		<-over
		if lost {
			return nil
		}
		return err
	case <-over:
		e.log.Info("not leading any more")
		cancel()
		<-done
		return nil
	}
}

func (e *Elector) claim(ctx context.Context, info Info) (state.Rev, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	old, err := e.store.Get(ctx, record)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return 0, err
	}
	value, err := json.Marshal(info)
	if err != nil {
		return 0, fault.New("claim leadership", fault.Internal, err)
	}
	return e.store.Commit(ctx, state.Op{Key: record, IfRev: old.Rev, Value: value})
}

// until returns true when the raft role is as wanted, false when ctx ends.
func (e *Elector) until(ctx context.Context, want bool) bool {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		changed := e.raft.LeaderChanged()
		if ctx.Err() != nil {
			return false
		}
		if e.raft.Leads() == want {
			return true
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-tick.C:
		}
	}
}

// follow keeps Current up to date from the store. While the store is away the
// last leader stays: whoever asks finds out by calling it.
func (e *Elector) follow(ctx context.Context) {
	for ctx.Err() == nil {
		rec, err := e.store.Get(ctx, record)
		switch {
		case err == nil:
			e.learn(rec.Value)
		case !fault.Is(err, fault.NotFound):
			sleep(ctx, poll)
			continue
		}
		for c, err := range e.store.Watch(ctx, rec.Rev, record.Kind) {
			if err != nil {
				sleep(ctx, poll)
				break
			}
			e.learn(c.Value)
		}
	}
}

func (e *Elector) learn(value []byte) {
	var info Info
	if err := json.Unmarshal(value, &info); err != nil {
		e.log.Error("read the leader's record", "err", err)
		return
	}
	e.set(info)
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
