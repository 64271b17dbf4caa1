// Package etcd is the state.Backend of a cluster: an etcd member embedded in
// every master, reached in process. No client port is opened.
package etcd

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/state"
)

// prefix holds everything we store; the version is that of the layout.
const prefix = "/dcos/v1/"

// page bounds one range request of List, so that a long list does not become
// one huge reply.
const page = 2000

// Backend stores records under prefix + kind + "/" + id.
type Backend struct{ client *clientv3.Client }

// New returns a Backend over client, which the caller closes.
func New(client *clientv3.Client) *Backend { return &Backend{client} }

func path(k state.Key) string { return prefix + string(k.Kind) + "/" + k.ID }

func parse(path string) (state.Key, bool) {
	kind, id, ok := strings.Cut(strings.TrimPrefix(path, prefix), "/")
	return state.Key{Kind: state.Kind(kind), ID: id}, ok
}

// Get implements state.Backend.
func (b *Backend) Get(ctx context.Context, key state.Key) (state.Record, error) {
	res, err := b.client.Get(ctx, path(key))
	if err != nil {
		return state.Record{}, classify("read "+key.String(), err)
	}
	if len(res.Kvs) == 0 {
		return state.Record{}, fault.New("read "+key.String(), fault.NotFound, nil)
	}
	kv := res.Kvs[0]
	return state.Record{Key: key, Rev: state.Rev(kv.ModRevision), Value: kv.Value}, nil
}

// List implements state.Backend. All pages are read at the first one's
// revision.
func (b *Backend) List(ctx context.Context, kind state.Kind) ([]state.Record, state.Rev, error) {
	from := prefix + string(kind) + "/"
	end := clientv3.GetPrefixRangeEnd(from)
	var recs []state.Record
	rev := int64(0)
	for {
		res, err := b.client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(page), clientv3.WithRev(rev))
		if err != nil {
			return nil, 0, classify("list "+string(kind), err)
		}
		if rev == 0 {
			rev = res.Header.Revision
		}
		for _, kv := range res.Kvs {
			key, _ := parse(string(kv.Key))
			recs = append(recs, state.Record{Key: key, Rev: state.Rev(kv.ModRevision), Value: kv.Value})
		}
		if !res.More {
			return recs, state.Rev(rev), nil
		}
		from = string(res.Kvs[len(res.Kvs)-1].Key) + "\x00"
	}
}

// Commit implements state.Backend.
func (b *Backend) Commit(ctx context.Context, ops ...state.Op) (state.Rev, error) {
	if err := state.CheckOps(ops); err != nil {
		return 0, err
	}
	conds := make([]clientv3.Cmp, len(ops))
	writes := make([]clientv3.Op, 0, len(ops))
	for i, op := range ops {
		key := path(op.Key)
		conds[i] = clientv3.Compare(clientv3.ModRevision(key), "=", int64(op.IfRev))
		switch {
		case op.Check:
		case op.Value == nil:
			writes = append(writes, clientv3.OpDelete(key))
		default:
			writes = append(writes, clientv3.OpPut(key, string(op.Value)))
		}
	}
	res, err := b.client.Txn(ctx).If(conds...).Then(writes...).Commit()
	if err != nil {
		return 0, classify("commit "+describe(ops), err)
	}
	if !res.Succeeded {
		return 0, fault.New("commit "+describe(ops), fault.Conflict, errors.New("the object was changed meanwhile"))
	}
	return state.Rev(res.Header.Revision), nil
}

func describe(ops []state.Op) string {
	if len(ops) == 0 {
		return "nothing"
	}
	if len(ops) == 1 {
		return ops[0].Key.String()
	}
	return fmt.Sprintf("%s and %d more", ops[0].Key, len(ops)-1)
}

// Watch implements state.Backend.
func (b *Backend) Watch(ctx context.Context, from state.Rev, kinds ...state.Kind) iter.Seq2[state.Change, error] {
	root := prefix
	if len(kinds) == 1 {
		root += string(kinds[0]) + "/"
	}
	return func(yield func(state.Change, error) bool) {
		ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
		defer cancel()
		for res := range b.client.Watch(ctx, root, clientv3.WithPrefix(), clientv3.WithRev(int64(from)+1)) {
			if err := res.Err(); err != nil {
				if ctx.Err() == nil {
					yield(state.Change{}, fault.New("watch", fault.Unavailable, err))
				}
				return
			}
			for _, ev := range res.Events {
				c, ok := change(ev.Kv, ev.Type == mvccpb.Event_DELETE)
				if ok && slices.Contains(kinds, c.Key.Kind) && !yield(c, nil) {
					return
				}
			}
		}
		if ctx.Err() == nil {
			yield(state.Change{}, fault.New("watch", fault.Unavailable, errors.New("the stream ended")))
		}
	}
}

func change(kv *mvccpb.KeyValue, deleted bool) (state.Change, bool) {
	key, ok := parse(string(kv.Key))
	c := state.Change{Key: key, Rev: state.Rev(kv.ModRevision), Value: kv.Value}
	if deleted {
		c.Value = nil
	}
	return c, ok
}

// classify maps etcd's errors: too large can never succeed; everything else is
// a store that is away, has no leader, or lost the race against a deadline.
func classify(op string, err error) error {
	kind := fault.Unavailable
	for _, never := range []error{rpctypes.ErrRequestTooLarge, rpctypes.ErrTooManyOps, rpctypes.ErrEmptyKey} {
		if errors.Is(err, never) {
			kind = fault.Invalid
		}
	}
	if errors.Is(err, rpctypes.ErrNoSpace) {
		kind = fault.Exhausted
	}
	return fault.New(op, kind, err)
}
