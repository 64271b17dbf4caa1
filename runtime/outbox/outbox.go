// Package outbox writes the records of a component that keeps its state in
// memory, and makes its calls to others only when what they rest on is stored.
//
// The component holds its own lock while it changes memory and stages records
// and calls; the outbox commits many changes at once, and then makes the calls,
// in order. Memory is ahead of the store by what is in flight, and a leader that
// takes over repeats at most that.
package outbox

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/state"
)

// maxOps is how many records one commit writes: etcd's default limit is 128
// operations, and the term's fence needs one.
const maxOps = 100

// batch is what is staged between two commits. Several writes of one record
// become one.
type batch struct {
	ops   []state.Op // IfRev is set when the batch is committed
	index map[state.Key]int
	calls []func(context.Context)
	done  chan struct{} // closed when everything is stored
}

func newBatch() *batch { return &batch{index: map[state.Key]int{}, done: make(chan struct{})} }

// Box is the only writer of its component's records. Calls are made by a
// goroutine of their own, so that a slow master does not hold up the store.
type Box struct {
	store state.Backend
	op    string
	log   *slog.Logger
	wake  chan struct{}
	ring  chan struct{} // wakes the caller

	mu     sync.Mutex
	next   *batch
	due    []func(context.Context) // calls whose records are stored
	failed error                   // why nothing will be written any more
	broken chan struct{}           // closed with failed

	revs map[state.Key]state.Rev // as committed; used by Run alone once it runs
}

// New returns a Box over store; op says in errors what is being done ("store
// orchestrator state").
func New(store state.Backend, op string, log *slog.Logger) *Box {
	return &Box{
		store: store, op: op, log: log, wake: make(chan struct{}, 1), ring: make(chan struct{}, 1), next: newBatch(),
		broken: make(chan struct{}), revs: map[state.Key]state.Rev{},
	}
}

// Stage writes value to key with the next commit; nil deletes.
func (o *Box) Stage(key state.Key, value []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	op := state.Op{Key: key, Value: value}
	if i, ok := o.next.index[key]; ok {
		o.next.ops[i] = op
	} else {
		o.next.index[key] = len(o.next.ops)
		o.next.ops = append(o.next.ops, op)
	}
	o.signal()
}

// After runs f when everything staged so far is stored, in order.
func (o *Box) After(f func(context.Context)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.next.calls = append(o.next.calls, f)
	o.signal()
}

func (o *Box) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// Flushed is closed when everything staged so far is stored.
func (o *Box) Flushed() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.signal()
	return o.next.done
}

// Wait waits for done, or for the reason why it will never come.
func (o *Box) Wait(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case <-o.broken:
		return fault.New("store the change", fault.Unavailable, o.failed)
	case <-ctx.Done():
		return fault.New("store the change", fault.Unavailable, ctx.Err())
	}
}

// Run commits until ctx ends or a commit fails for good: another leader has
// written, or the store refuses.
func (o *Box) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var caller sync.WaitGroup
	caller.Go(func() { o.makeCalls(ctx) })
	err := o.loop(ctx)
	cancel()
	caller.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.failed = err
	if err == nil {
		o.failed = fault.Newf("store", fault.Unavailable, "this master leads no more")
	}
	close(o.broken)
	return err
}

func (o *Box) loop(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-o.wake:
		}
		o.mu.Lock()
		b := o.next
		o.next = newBatch()
		o.mu.Unlock()
		for ops := b.ops; len(ops) > 0; {
			n := min(len(ops), maxOps)
			if err := o.commit(ctx, ops[:n]); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return err
			}
			ops = ops[n:]
		}
		close(b.done)
		o.mu.Lock()
		o.due = append(o.due, b.calls...)
		o.mu.Unlock()
		select {
		case o.ring <- struct{}{}:
		default:
		}
	}
}

// callTimeout is how long the master may take to answer one call.
const callTimeout = 10 * time.Second

// makeCalls makes the calls that are due, in order, until ctx ends.
func (o *Box) makeCalls(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-o.ring:
		}
		o.mu.Lock()
		due := o.due
		o.due = nil
		o.mu.Unlock()
		for _, f := range due {
			if ctx.Err() != nil {
				return
			}
			call, cancel := context.WithTimeout(ctx, callTimeout)
			f(call)
			cancel()
		}
	}
}

func (o *Box) commit(ctx context.Context, ops []state.Op) error {
	kept := ops[:0]
	for _, op := range ops {
		op.IfRev = o.revs[op.Key]
		if op.Value == nil && op.IfRev == 0 {
			continue // made and dropped within one batch
		}
		kept = append(kept, op)
	}
	if len(kept) == 0 {
		return nil
	}
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 50*time.Millisecond, 2*time.Second
	for {
		rev, err := o.store.Commit(ctx, kept...)
		if err == nil {
			for _, op := range kept {
				if op.Value == nil {
					delete(o.revs, op.Key)
				} else {
					o.revs[op.Key] = rev
				}
			}
			return nil
		}
		// A commit whose answer got lost ends in Conflict here: the next term
		// reads what became of it.
		if !fault.Is(err, fault.Unavailable) || ctx.Err() != nil {
			return fault.New(o.op, fault.KindOf(err), err)
		}
		o.log.Warn("store unavailable, trying again", "err", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause.NextBackOff()):
		}
	}
}

// Known tells at which revision a record is that was read before Run.
func (o *Box) Known(key state.Key, rev state.Rev) { o.revs[key] = rev }

// Put stages a record. A value that does not marshal is a broken invariant.
func (o *Box) Put(kind state.Kind, id string, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic("outbox: a record of kind " + string(kind) + " does not marshal: " + err.Error())
	}
	o.Stage(state.Key{Kind: kind, ID: id}, b)
}

// Drop stages the deletion of a record.
func (o *Box) Drop(kind state.Kind, id string) { o.Stage(state.Key{Kind: kind, ID: id}, nil) }
