// Package registry keeps what must outlive a leading master: which agents are
// admitted, unreachable or gone, which are drained, which frameworks exist, and
// the maintenance schedule. It is the only writer of the kinds "agent",
// "framework" and "maintenance"; everything else the master knows is rebuilt
// from agents and frameworks after a fail-over.
//
// Writes block on the store and are ordered per object; callers must not hold
// locks that serve requests.
package registry

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/master/drain"
	"dcos.example/dcos/runtime/state"
	"dcos.example/dcos/runtime/task"
)

// The kinds of the store that this package writes.
const (
	KindAgent     state.Kind = "agent"
	KindFramework state.Kind = "framework"
	// KindMaintenance has one record.
	KindMaintenance state.Kind = "maintenance"
)

// Kinds are all kinds that this package writes.
func Kinds() []state.Kind { return []state.Kind{KindAgent, KindFramework, KindMaintenance} }

// Standing is whether an agent may act under its id.
type Standing string

const (
	Admitted    Standing = "admitted"
	Unreachable Standing = "unreachable" // may come back
	Gone        Standing = "gone"        // may not come back
)

// Agent is the stored form of an agent.
type Agent struct {
	Standing Standing         `json:"standing"`
	Since    time.Time        `json:"since"` // of Standing
	Info     *mesos.AgentInfo `json:"-"`
	RawInfo  json.RawMessage  `json:"info"`
	Version  string           `json:"version,omitempty"`
	Drain    Drain            `json:"drain,omitzero"`
}

// Drain is what an operator wants of an agent.
type Drain struct {
	State drain.State `json:"state,omitempty"`
	Since time.Time   `json:"since,omitzero"` // of the call that led to State
	// MaxGrace bounds how long tasks may take to end, if Bounded.
	MaxGrace time.Duration `json:"maxGrace,omitempty"`
	Bounded  bool          `json:"bounded,omitempty"`
	// MarkGone says that the agent is gone once it is drained.
	MarkGone bool `json:"markGone,omitempty"`
}

// Drains reports whether an operator has asked for a drain that was not
// cancelled: it goes on or is over.
func (d Drain) Drains() bool { return d.State == drain.Draining || d.State == drain.Drained }

// Framework is the stored form of a framework. A removed one stays as a
// tombstone: its id may never be used again.
type Framework struct {
	Info       *mesos.FrameworkInfo `json:"-"`
	RawInfo    json.RawMessage      `json:"info"`
	Registered time.Time            `json:"registered"`
	Removed    *time.Time           `json:"removed,omitempty"`
}

// How many agents that are not admitted, and how many removed frameworks, are
// remembered: the oldest beyond that are forgotten when a master starts to lead.
const (
	keepAgents     = 10_000
	keepFrameworks = 1_000
)

// Registry is the typed, cached access to both kinds.
type Registry struct {
	store      state.Backend
	agents     table[Agent]
	frameworks table[Framework]
	upkeep     table[Maintenance]
}

// table caches one kind with its revisions. Readers never wait for the store.
type table[T any] struct {
	state.Table[T]
	writing sync.Mutex // held over a write
	mu      sync.Mutex // guards objs
	objs    map[string]state.Object[T]
}

// Load reads the registry, and forgets the oldest tombstones beyond its bounds.
func Load(ctx context.Context, store state.Backend) (*Registry, error) {
	r := &Registry{store: store}
	r.agents.Table = state.NewTable[Agent](store, KindAgent)
	r.frameworks.Table = state.NewTable[Framework](store, KindFramework)
	r.upkeep.Table = state.NewTable[Maintenance](store, KindMaintenance)
	if err := r.upkeep.load(ctx, store, 1, func(m *Maintenance) (time.Time, bool, error) {
		return time.Time{}, false, m.open()
	}); err != nil {
		return nil, err
	}
	if err := r.agents.load(ctx, store, keepAgents, func(a *Agent) (time.Time, bool, error) {
		a.Info = new(mesos.AgentInfo)
		return a.Since, a.Standing != Admitted, decode(a.RawInfo, a.Info)
	}); err != nil {
		return nil, err
	}
	return r, r.frameworks.load(ctx, store, keepFrameworks, func(f *Framework) (time.Time, bool, error) {
		f.Info = new(mesos.FrameworkInfo)
		err := decode(f.RawInfo, f.Info)
		if f.Removed == nil {
			return f.Registered, false, err
		}
		return *f.Removed, true, err
	})
}

func (t *table[T]) load(ctx context.Context, store state.Backend, keep int, open func(*T) (time.Time, bool, error)) error {
	objs, _, err := t.List(ctx)
	if err != nil {
		return err
	}
	t.objs = make(map[string]state.Object[T], len(objs))
	type old struct {
		obj  state.Object[T]
		when time.Time
	}
	var olds []old
	for _, o := range objs {
		when, tombstone, err := open(&o.Spec)
		if err != nil {
			return err
		}
		t.objs[o.ID] = o
		if tombstone {
			olds = append(olds, old{o, when})
		}
	}
	slices.SortFunc(olds, func(a, b old) int { return cmp.Compare(b.when.UnixNano(), a.when.UnixNano()) })
	for len(olds) > keep {
		var ops []state.Op
		for _, o := range olds[keep:min(len(olds), keep+100)] {
			ops = append(ops, t.Drop(o.obj))
			delete(t.objs, o.obj.ID)
		}
		if _, err := store.Commit(ctx, ops...); err != nil {
			return err
		}
		olds = slices.Delete(olds, keep, keep+len(ops))
	}
	return nil
}

// update writes what edit makes of the object id. found is false when there is
// none; edit returns false to leave everything as it is.
func (t *table[T]) update(ctx context.Context, id string, edit func(spec *T, found bool) bool) error {
	t.writing.Lock()
	defer t.writing.Unlock()
	t.mu.Lock()
	obj, found := t.objs[id]
	t.mu.Unlock()
	obj.ID = id
	if !edit(&obj.Spec, found) {
		return nil
	}
	written, err := t.Write(ctx, obj)
	if fault.Is(err, fault.Conflict) {
		// An earlier write whose answer was lost did arrive. Nobody else
		// writes, so its content is that of the cache: only take its revision.
		cur, gerr := t.Get(ctx, id)
		if gerr != nil {
			return errors.Join(err, gerr)
		}
		obj.Rev = cur.Rev
		written, err = t.Write(ctx, obj)
	}
	if err != nil {
		return err
	}
	t.mu.Lock()
	t.objs[id] = written
	t.mu.Unlock()
	return nil
}

func (t *table[T]) all() map[string]T {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make(map[string]T, len(t.objs))
	for id, o := range t.objs {
		out[id] = o.Spec
	}
	return out
}

func (t *table[T]) get(id string) (T, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	o, ok := t.objs[id]
	return o.Spec, ok
}

// encode and decode write messages as they are: the JSON of the Mesos APIs
// adds defaults, and a role that was never set is an error later.
func encode(m proto.Message) ([]byte, error) {
	b, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return nil, fault.New("encode registry entry", fault.Invalid, err)
	}
	return b, nil
}

func decode(b []byte, m proto.Message) error {
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(b, m); err != nil {
		return fault.New("decode registry entry", fault.Internal, err)
	}
	return nil
}

// Agents returns every agent by id.
func (r *Registry) Agents() map[string]Agent { return r.agents.all() }

// Frameworks returns every framework by id, removed ones too.
func (r *Registry) Frameworks() map[string]Framework { return r.frameworks.all() }

// Count returns how many agents are of standing s.
func (r *Registry) Count(s Standing) (n int) {
	r.agents.mu.Lock()
	defer r.agents.mu.Unlock()
	for _, o := range r.agents.objs {
		if o.Spec.Standing == s {
			n++
		}
	}
	return n
}

// Admit records that the agent info.id may act. An agent that is gone is
// fault.Denied.
func (r *Registry) Admit(ctx context.Context, now time.Time, info *mesos.AgentInfo, version string) error {
	raw, err := encode(info)
	if err != nil {
		return err
	}
	id := info.GetId().GetValue()
	denied := false
	err = r.agents.update(ctx, id, func(a *Agent, found bool) bool {
		if found && a.Standing == Gone {
			denied = true
			return false
		}
		if found && a.Standing == Admitted && a.Version == version && proto.Equal(a.Info, info) {
			return false
		}
		if !found || a.Standing != Admitted {
			a.Since = now
		}
		a.Standing, a.Info, a.RawInfo, a.Version = Admitted, info, raw, version
		return true
	})
	if denied {
		return fault.Newf("admit agent "+id, fault.Denied, "it was marked gone")
	}
	return err
}

// SetStanding moves agents to s. Unknown agents and those that are gone stay
// as they are.
func (r *Registry) SetStanding(ctx context.Context, now time.Time, s Standing, ids ...task.AgentID) error {
	for _, id := range ids {
		if err := r.agents.update(ctx, string(id), func(a *Agent, found bool) bool {
			if !found || a.Standing == Gone || a.Standing == s {
				return false
			}
			a.Standing, a.Since = s, now
			return true
		}); err != nil {
			return err
		}
	}
	return nil
}

// Standing returns the agent's standing, "" when it is not known.
func (r *Registry) Standing(id task.AgentID) (Standing, time.Time) {
	a, _ := r.agents.get(string(id))
	return a.Standing, a.Since
}

// PutFramework records info under its id. A removed framework is fault.Denied.
func (r *Registry) PutFramework(ctx context.Context, now time.Time, info *mesos.FrameworkInfo) error {
	raw, err := encode(info)
	if err != nil {
		return err
	}
	id := info.GetId().GetValue()
	denied := false
	err = r.frameworks.update(ctx, id, func(f *Framework, found bool) bool {
		if found && f.Removed != nil {
			denied = true
			return false
		}
		if found && proto.Equal(f.Info, info) {
			return false
		}
		if !found {
			f.Registered = now
		}
		f.Info, f.RawInfo = info, raw
		return true
	})
	if denied {
		return fault.Newf("subscribe framework "+id, fault.Denied, "Framework has been removed")
	}
	return err
}

// RemoveFramework turns the framework into a tombstone.
func (r *Registry) RemoveFramework(ctx context.Context, now time.Time, id task.FrameworkID) error {
	return r.frameworks.update(ctx, string(id), func(f *Framework, found bool) bool {
		if !found || f.Removed != nil {
			return false
		}
		f.Removed = &now
		return true
	})
}

// Framework returns one framework.
func (r *Registry) Framework(id task.FrameworkID) (Framework, bool) {
	return r.frameworks.get(string(id))
}
