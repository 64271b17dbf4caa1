// Package memory is a state.Backend for tests and single-process use.
package memory

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"iter"
	"slices"
	"sync"

	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/state"
)

// Backend keeps all records, and their history since the last Compact.
type Backend struct {
	mu        sync.Mutex
	rev       state.Rev
	compacted state.Rev
	recs      map[state.Key]state.Record
	log       []state.Change
	grew      chan struct{} // closed and replaced on every commit
}

// New returns an empty Backend.
func New() *Backend {
	return &Backend{recs: map[state.Key]state.Record{}, grew: make(chan struct{})}
}

// Get implements state.Backend.
func (b *Backend) Get(ctx context.Context, key state.Key) (state.Record, error) {
	if err := ctx.Err(); err != nil {
		return state.Record{}, fault.New("read "+key.String(), fault.Unavailable, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	rec, ok := b.recs[key]
	if !ok {
		return rec, fault.New("read "+key.String(), fault.NotFound, nil)
	}
	rec.Value = bytes.Clone(rec.Value)
	return rec, nil
}

// List implements state.Backend.
func (b *Backend) List(ctx context.Context, kind state.Kind) ([]state.Record, state.Rev, error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, fault.New("list "+string(kind), fault.Unavailable, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var recs []state.Record
	for key, rec := range b.recs {
		if key.Kind == kind {
			rec.Value = bytes.Clone(rec.Value)
			recs = append(recs, rec)
		}
	}
	slices.SortFunc(recs, func(x, y state.Record) int { return cmp.Compare(x.Key.ID, y.Key.ID) })
	return recs, b.rev, nil
}

// Commit implements state.Backend.
func (b *Backend) Commit(ctx context.Context, ops ...state.Op) (state.Rev, error) {
	if err := ctx.Err(); err != nil {
		return 0, fault.New("commit", fault.Unavailable, err)
	}
	if err := state.CheckOps(ops); err != nil {
		return 0, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, op := range ops {
		if at := b.recs[op.Key].Rev; at != op.IfRev {
			return 0, fault.Newf("commit", fault.Conflict, "%s is at revision %d, not %d", op.Key, at, op.IfRev)
		}
	}
	b.rev++
	for _, op := range ops {
		switch {
		case op.Check:
			continue
		case op.Value == nil:
			delete(b.recs, op.Key)
		default:
			b.recs[op.Key] = state.Record{Key: op.Key, Rev: b.rev, Value: bytes.Clone(op.Value)}
		}
		b.log = append(b.log, state.Change{Key: op.Key, Rev: b.rev, Value: bytes.Clone(op.Value)})
	}
	close(b.grew)
	b.grew = make(chan struct{})
	return b.rev, nil
}

// Compact forgets history up to now: a Watch from an older revision fails.
func (b *Backend) Compact() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.compacted, b.log = b.rev, nil
}

// Watch implements state.Backend.
func (b *Backend) Watch(ctx context.Context, from state.Rev, kinds ...state.Kind) iter.Seq2[state.Change, error] {
	return func(yield func(state.Change, error) bool) {
		for {
			b.mu.Lock()
			if from < b.compacted {
				b.mu.Unlock()
				yield(state.Change{}, fault.New("watch", fault.Unavailable, errors.New("the revision is compacted")))
				return
			}
			first, _ := slices.BinarySearchFunc(b.log, from+1, func(c state.Change, r state.Rev) int { return cmp.Compare(c.Rev, r) })
			fresh, grew := slices.Clone(b.log[first:]), b.grew
			from = b.rev
			b.mu.Unlock()
			for _, c := range fresh {
				if slices.Contains(kinds, c.Key.Kind) && !yield(c, nil) {
					return
				}
			}
			select {
			case <-ctx.Done():
				return
			case <-grew:
			}
		}
	}
}
