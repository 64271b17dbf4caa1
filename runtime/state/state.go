// Package state is the cluster's typed, watchable store.
//
// A Backend moves bytes; a Table gives one kind of object its Go type. Every
// write names the revision it was decided on, so a decision made on stale data
// fails with fault.Conflict instead of overwriting a newer one.
package state

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"slices"

	"dcos.example/dcos/runtime/fault"
)

// Rev is a store revision. Revisions only grow; zero is "absent".
type Rev int64

// Kind names a table, for example "app". It holds no slash.
type Kind string

// Key names one object. ID may hold slashes.
type Key struct {
	Kind Kind
	ID   string
}

func (k Key) String() string { return string(k.Kind) + " " + k.ID }

// Record is one object as stored. Value belongs to the receiver.
type Record struct {
	Key   Key
	Rev   Rev
	Value []byte
}

// Change is one committed write. Value is nil when the object was deleted.
type Change struct {
	Key   Key
	Rev   Rev
	Value []byte
}

// Op is one conditional write: it applies only while Key is still at IfRev
// (zero: only if absent). A nil Value deletes. With Check set nothing is
// written: the condition alone must hold.
type Op struct {
	Key   Key
	IfRev Rev
	Value []byte
	Check bool
}

// Backend stores bytes. state/conformance tests every implementation.
type Backend interface {
	// Get returns the record at key, or fault.NotFound.
	Get(ctx context.Context, key Key) (Record, error)
	// List returns all records of kind in id order, and the revision they
	// are current at.
	List(ctx context.Context, kind Kind) ([]Record, Rev, error)
	// Commit applies all ops or none and returns the revision that every
	// written key now has. A failed condition is fault.Conflict. Two ops on
	// one key are fault.Invalid.
	Commit(ctx context.Context, ops ...Op) (Rev, error)
	// Watch yields changes of kinds after from, in order, until ctx ends.
	// If from is compacted away, or the stream breaks, it yields
	// fault.Unavailable once and stops: the caller lists again.
	Watch(ctx context.Context, from Rev, kinds ...Kind) iter.Seq2[Change, error]
}

// Object is a stored value with its identity and revision.
type Object[T any] struct {
	ID   string
	Rev  Rev
	Spec T
}

// Table is the typed view of one kind; values are JSON, so that a person can
// read them.
type Table[T any] struct {
	b    Backend
	kind Kind
}

// NewTable returns the table of kind in b.
func NewTable[T any](b Backend, kind Kind) Table[T] { return Table[T]{b, kind} }

// Get returns the object id, or fault.NotFound.
func (t Table[T]) Get(ctx context.Context, id string) (Object[T], error) {
	rec, err := t.b.Get(ctx, Key{t.kind, id})
	if err != nil {
		return Object[T]{ID: id}, err
	}
	return Decode[T](rec)
}

// List returns every object and the revision they are current at.
func (t Table[T]) List(ctx context.Context) ([]Object[T], Rev, error) {
	recs, rev, err := t.b.List(ctx, t.kind)
	if err != nil {
		return nil, 0, err
	}
	objs := make([]Object[T], len(recs))
	for i, rec := range recs {
		if objs[i], err = Decode[T](rec); err != nil {
			return nil, 0, err
		}
	}
	return objs, rev, nil
}

// Put returns the op that writes obj, conditional on obj.Rev.
func (t Table[T]) Put(obj Object[T]) (Op, error) {
	v, err := json.Marshal(obj.Spec)
	if err != nil {
		return Op{}, fault.New("encode "+Key{t.kind, obj.ID}.String(), fault.Invalid, err)
	}
	return Op{Key: Key{t.kind, obj.ID}, IfRev: obj.Rev, Value: v}, nil
}

// Drop returns the op that deletes obj, conditional on obj.Rev.
func (t Table[T]) Drop(obj Object[T]) Op {
	return Op{Key: Key{t.kind, obj.ID}, IfRev: obj.Rev}
}

// Write commits obj alone and returns it at its new revision.
func (t Table[T]) Write(ctx context.Context, obj Object[T]) (Object[T], error) {
	op, err := t.Put(obj)
	if err != nil {
		return obj, err
	}
	obj.Rev, err = t.b.Commit(ctx, op)
	return obj, err
}

// Decode gives rec its type.
func Decode[T any](rec Record) (Object[T], error) {
	obj := Object[T]{ID: rec.Key.ID, Rev: rec.Rev}
	if err := json.Unmarshal(rec.Value, &obj.Spec); err != nil {
		return obj, fault.New("decode "+rec.Key.String(), fault.Internal, err)
	}
	return obj, nil
}

// Restrict returns b with writes limited to kinds. It is how a controller's
// declared outputs are enforced.
func Restrict(b Backend, kinds ...Kind) Backend { return restricted{b, kinds} }

type restricted struct {
	Backend
	kinds []Kind
}

func (r restricted) Commit(ctx context.Context, ops ...Op) (Rev, error) {
	for _, op := range ops {
		if !op.Check && !slices.Contains(r.kinds, op.Key.Kind) {
			return 0, fault.Newf("write "+op.Key.String(), fault.Internal, "%s is not among the kinds this component writes", op.Key.Kind)
		}
	}
	return r.Backend.Commit(ctx, ops...)
}

// Fence returns b with every Commit conditional on key being at rev: writes
// of a former leader fail with fault.Conflict however late they arrive.
func Fence(b Backend, key Key, rev Rev) Backend {
	return fenced{b, Op{Key: key, IfRev: rev, Check: true}}
}

type fenced struct {
	Backend
	guard Op
}

func (f fenced) Commit(ctx context.Context, ops ...Op) (Rev, error) {
	return f.Backend.Commit(ctx, append(slices.Clone(ops), f.guard)...)
}

// CheckOps returns fault.Invalid when two ops name one key; backends call it
// first, because stores differ in what they make of that.
func CheckOps(ops []Op) error {
	seen := make(map[Key]struct{}, len(ops))
	for _, op := range ops {
		if _, ok := seen[op.Key]; ok {
			return fault.New("commit", fault.Invalid, fmt.Errorf("two operations on %s", op.Key))
		}
		seen[op.Key] = struct{}{}
	}
	return nil
}
