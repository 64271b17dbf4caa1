// Package keeper changes the ensemble: it lets masters in, gives them their
// vote and takes them out, one at a time, and only as far as those that remain
// can decide without them. It runs on the leading master, and writes down who
// the masters are for everyone to follow.
package keeper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/membership"
	"dcos.example/dcos/runtime/state"
	"dcos.example/dcos/runtime/state/etcd"
)

const (
	// drift is how often the record is compared with the ensemble: somebody
	// may have changed that with etcd's own tools.
	drift = 2 * time.Second
	// settle is how long a change is tried again that etcd does not allow yet,
	// because another has just happened: it wants five seconds of calm.
	settle = 10 * time.Second
	retry  = 200 * time.Millisecond
	// behind is how many entries of the log a learner may lack to be promoted.
	behind = 1000
	// grace is how long a learner that was let in may take to start.
	grace = 30 * time.Second
	// kept is how many ids of removed members are remembered.
	kept = 100
)

// Config says what a Keeper keeps.
type Config struct {
	Cluster string
	Member  *etcd.Member
	Port    uint16 // where members reach each other
	// View asks a master about itself.
	View func(context.Context, netip.Addr) (membership.View, error)
	// Learn is told of every list that was written.
	Learn func(membership.List) bool
	Log   *slog.Logger
}

// Keeper changes the ensemble while Run runs.
type Keeper struct {
	cfg Config
	// turn holds the term while nobody changes anything: one change at a time.
	// It is empty while this master does not lead.
	turn chan *term
}

// term is one time of leading.
type term struct {
	ctx   context.Context
	store state.Backend
	list  membership.List
	rev   state.Rev

	last   string    // id of the member that was let in last
	lastAt time.Time // when
}

// New returns a Keeper.
func New(cfg Config) *Keeper { return &Keeper{cfg: cfg, turn: make(chan *term, 1)} }

// Run keeps the record while this master leads: until ctx ends. The store must
// refuse what is written after that.
func (k *Keeper) Run(ctx context.Context, store state.Backend) {
	t := k.begin(ctx, store)
	if t == nil {
		return
	}
	k.turn <- t
	tick := time.NewTicker(drift)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			<-k.turn // after the change that is under way
			return
		case <-tick.C:
		}
		select {
		case t := <-k.turn:
			if err := k.write(t, k.actual(t)); err != nil && ctx.Err() == nil {
				k.cfg.Log.Warn("write the list of masters", "err", err)
			}
			k.turn <- t
		default:
		}
	}
}

// begin reads the record and brings it up to date. It returns nil when ctx ends.
func (k *Keeper) begin(ctx context.Context, store state.Backend) *term {
	for {
		list, rev, err := membership.Read(ctx, store)
		if err == nil || fault.Is(err, fault.NotFound) {
			t := &term{ctx: ctx, store: store, list: list, rev: rev}
			if err = k.write(t, k.actual(t)); err == nil {
				return t
			}
		}
		k.cfg.Log.Warn("write the list of masters", "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retry):
		}
	}
}

// take waits for its turn to change something, until done is called. The
// context that it returns ends with the term.
func (k *Keeper) take(ctx context.Context) (_ context.Context, t *term, done func(), err error) {
	wait, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	select {
	case t = <-k.turn:
	case <-wait.Done():
		return nil, nil, nil, fault.Newf("change the masters", fault.Unavailable, "this master does not lead yet, or another change takes long")
	}
	ctx, end := context.WithCancel(ctx)
	stop := context.AfterFunc(t.ctx, end)
	return ctx, t, func() {
		stop()
		end()
		k.turn <- t
	}, nil
}

// actual is the list as the ensemble has it now.
func (k *Keeper) actual(t *term) membership.List {
	l := membership.List{Cluster: k.cfg.Cluster, Generation: t.list.Generation, Ensemble: hex(k.cfg.Member.Ensemble())}
	if l.Ensemble != t.list.Ensemble {
		l.Generation = NextGeneration(t.list, time.Now())
	}
	for _, i := range k.cfg.Member.Members() {
		m := membership.Member{Name: i.Name, Addr: i.Addr.Addr(), ID: hex(i.ID), Role: membership.Voter}
		if i.Learner {
			m.Role = membership.Learner
		}
		if m.Name == "" { // it has not started yet; who let it in knows the name
			old, _ := t.list.Find(m.ID)
			m.Name = cmp.Or(old.Name, m.Addr.String())
		}
		l.Members = append(l.Members, m)
	}
	slices.SortFunc(l.Members, func(a, b membership.Member) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	l.Left = slices.DeleteFunc(slices.Clone(t.list.Left), func(id string) bool { // a removal that did not happen
		_, still := l.Find(id)
		return still
	})
	return l
}

// NextGeneration is the one after that of l.
func NextGeneration(l membership.List, now time.Time) int64 { return max(l.Generation+1, now.Unix()) }

// write stores l when it is not what is stored.
func (k *Keeper) write(t *term, l membership.List) error {
	l.Revision = t.list.Revision
	if same(l, t.list) {
		return nil
	}
	l, rev, err := membership.Write(t.ctx, t.store, t.rev, l)
	if err != nil {
		return err
	}
	t.list, t.rev = l, rev
	k.cfg.Learn(l)
	return nil
}

func same(a, b membership.List) bool {
	return a.Generation == b.Generation && a.Ensemble == b.Ensemble && a.Cluster == b.Cluster &&
		slices.Equal(a.Members, b.Members) && slices.Equal(a.Left, b.Left)
}

func hex(id etcd.ID) string { return fmt.Sprintf("%x", uint64(id)) }

func number(id string) (n etcd.ID) {
	_, _ = fmt.Sscanf(id, "%x", (*uint64)(&n)) // 0 is nobody
	return n
}

// Join lets a master in, or gives it its vote. It is called again until the
// answer says that the master is a voter. fault.Conflict means later.
func (k *Keeper) Join(ctx context.Context, req membership.JoinRequest) (r membership.JoinReply, err error) {
	op := "let " + req.Name + " in"
	if req.Name == "" || !req.Addr.Is4() {
		return r, fault.Newf(op, fault.Invalid, "a name and an IPv4 address are needed")
	}
	ctx, t, done, err := k.take(ctx)
	if err != nil {
		return r, err
	}
	defer done()
	if req.ID != "" {
		return k.promote(ctx, t, req)
	}
	if req.Previous != "" && slices.Contains(t.list.Left, req.Previous) {
		return r, fault.Newf(op, fault.Denied, "it was removed from the cluster; to have it back, remove its data and start it anew")
	}
	if m, ok := find(t.list, func(m membership.Member) bool { return m.Addr == req.Addr }); ok {
		switch {
		case k.unstarted(m): // it was let in before, and did not hear of it
			return k.granted(t, m.ID, req)
		case m.Name != req.Name:
			return r, fault.Newf(op, fault.Exists, "%s is the address of master %s", req.Addr, m.Name)
		}
	}
	if m, ok := find(t.list, func(m membership.Member) bool { return m.Name == req.Name }); ok {
		if err := k.replace(ctx, t, m, req); err != nil {
			return r, err
		}
	}
	for _, m := range t.list.Members {
		if m.Role == membership.Learner && (m.ID == t.last && time.Since(t.lastAt) < grace || k.lives(ctx, m)) {
			return r, fault.Newf(op, fault.Conflict, "%s is joining at this moment; one at a time", m.Name)
		}
	}
	var id etcd.ID
	if err := k.calm(ctx, func() (err error) {
		id, err = k.cfg.Member.AddLearner(ctx, netip.AddrPortFrom(req.Addr, k.cfg.Port))
		return err
	}); err != nil {
		return r, err
	}
	t.last, t.lastAt = hex(id), time.Now()
	k.cfg.Log.Info("master let in", "name", req.Name, "addr", req.Addr, "id", hex(id))
	return k.granted(t, hex(id), req)
}

// granted notes the name of a member that has not started, which only its
// request says, and answers that.
func (k *Keeper) granted(t *term, id string, req membership.JoinRequest) (r membership.JoinReply, err error) {
	t.list.Members = slices.DeleteFunc(slices.Clone(t.list.Members), func(m membership.Member) bool { return m.ID == id })
	t.list.Members = append(t.list.Members, membership.Member{Name: req.Name, Addr: req.Addr, ID: id})
	if err := k.write(t, k.actual(t)); err != nil {
		return r, err
	}
	return membership.JoinReply{ID: id, Role: membership.Learner, List: t.list}, nil
}

func find(l membership.List, f func(membership.Member) bool) (membership.Member, bool) {
	i := slices.IndexFunc(l.Members, f)
	if i < 0 {
		return membership.Member{}, false
	}
	return l.Members[i], true
}

// unstarted reports whether m is a learner that never ran.
func (k *Keeper) unstarted(m membership.Member) bool {
	return slices.ContainsFunc(k.cfg.Member.Members(), func(i etcd.Info) bool { return hex(i.ID) == m.ID && i.Learner && i.Name == "" })
}

// lives reports whether m runs where the list says.
func (k *Keeper) lives(ctx context.Context, m membership.Member) bool {
	views, _ := membership.Look(ctx, []netip.Addr{m.Addr}, k.cfg.View)
	v, ok := views[m.Addr]
	return ok && v.ID == m.ID
}

// replace removes the member that has the name of the one that asks.
func (k *Keeper) replace(ctx context.Context, t *term, m membership.Member, req membership.JoinRequest) error {
	op := "let " + req.Name + " in"
	if m.Addr != req.Addr && k.lives(ctx, m) {
		return fault.Newf(op, fault.Exists, "a master of that name is alive at %s", m.Addr)
	}
	if m.Role == membership.Voter {
		if err := k.enough(ctx, t, m, op); err != nil {
			return err
		}
	}
	k.cfg.Log.Info("master replaced", "name", m.Name, "addr", m.Addr, "id", m.ID)
	return k.remove(ctx, t, m)
}

// enough refuses a change after which those that remain could not decide.
func (k *Keeper) enough(ctx context.Context, t *term, without membership.Member, op string) error {
	rest := t.list
	rest.Members = slices.DeleteFunc(slices.Clone(rest.Members), func(m membership.Member) bool {
		return m.ID == without.ID || m.Role != membership.Voter
	})
	need := len(rest.Members)/2 + 1
	healthy, down := 0, []string{}
	for _, m := range membership.Survey(ctx, rest, "", k.cfg.View).Members {
		if m.Healthy {
			healthy++
		} else {
			down = append(down, m.Name+" ("+m.Addr.String()+") "+m.Reason)
		}
	}
	if len(rest.Members) == 0 {
		return fault.Newf(op, fault.Conflict, "%s is the only master with a vote: nobody would have the cluster's state", without.Name)
	}
	if healthy < need {
		return fault.Newf(op, fault.Conflict, "without %s, %d of %d masters must be healthy and %d are: %s", without.Name, need, len(rest.Members), healthy, strings.Join(down, "; "))
	}
	return nil
}

// remove takes m out. That it was on purpose is written down before, so that it
// is known however this ends.
func (k *Keeper) remove(ctx context.Context, t *term, m membership.Member) error {
	l := t.list
	l.Left = append(slices.Clone(l.Left), m.ID)
	l.Left = l.Left[max(0, len(l.Left)-kept):]
	if err := k.write(t, l); err != nil {
		return err
	}
	if err := k.calm(ctx, func() error { return k.cfg.Member.Remove(ctx, number(m.ID)) }); err != nil && !fault.Is(err, fault.NotFound) {
		return errors.Join(err, k.write(t, k.actual(t)))
	}
	return k.write(t, k.actual(t))
}

// calm tries f again while etcd finds that too much has changed just now.
func (k *Keeper) calm(ctx context.Context, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	for {
		err := f()
		if !fault.Is(err, fault.Conflict) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(retry):
		}
	}
}

// promote gives a learner its vote when it has caught up.
func (k *Keeper) promote(ctx context.Context, t *term, req membership.JoinRequest) (r membership.JoinReply, err error) {
	op := "promote " + req.Name
	m, ok := t.list.Find(req.ID)
	if !ok || m.Name != req.Name {
		return r, fault.Newf(op, fault.NotFound, "%s is not its member any more", req.ID)
	}
	if m.Role == membership.Learner {
		if has := k.cfg.Member.Progress().Index; req.Index+behind < has {
			return r, fault.Newf(op, fault.Conflict, "it is at entry %d of %d", req.Index, has)
		}
		if err := k.cfg.Member.Promote(ctx, number(m.ID)); err != nil && !fault.Is(err, fault.Exists) {
			return r, err
		}
		k.cfg.Log.Info("master has its vote", "name", m.Name, "addr", m.Addr, "id", m.ID)
		if err := k.write(t, k.actual(t)); err != nil {
			return r, err
		}
	}
	return membership.JoinReply{ID: m.ID, Role: membership.Voter, List: t.list}, nil
}

// Leave removes a master. When that is this one it hands leadership over, and
// the request, which is fault.Unavailable then, is for its successor.
func (k *Keeper) Leave(ctx context.Context, req membership.LeaveRequest) (membership.List, error) {
	op := "remove " + req.Name
	ctx, t, done, err := k.take(ctx)
	if err != nil {
		return membership.List{}, err
	}
	defer done()
	m, ok := find(t.list, func(m membership.Member) bool { return m.Name == req.Name })
	if !ok {
		return t.list, fault.Newf(op, fault.NotFound, "there is no master of that name; there are %s", strings.Join(names(t.list), ", "))
	}
	if m.Role == membership.Voter {
		voters := t.list.Voters()
		if err := k.enough(ctx, t, m, op); err != nil && (!req.Force || len(voters) == 1) {
			return t.list, err
		}
	}
	if number(m.ID) == k.cfg.Member.ID() {
		return t.list, k.handOver(ctx, t, m)
	}
	k.cfg.Log.Info("master removed", "name", m.Name, "addr", m.Addr, "id", m.ID, "forced", req.Force)
	err = k.remove(ctx, t, m)
	return t.list, err
}

func names(l membership.List) (out []string) {
	for _, m := range l.Members {
		out = append(out, m.Name)
	}
	return out
}

// handOver makes the healthy voter that is furthest the leader.
func (k *Keeper) handOver(ctx context.Context, t *term, self membership.Member) error {
	var best membership.MemberStatus
	for _, m := range membership.Survey(ctx, t.list, "", k.cfg.View).Members {
		if m.ID != self.ID && m.Role == membership.Voter && m.Healthy && (best.ID == "" || m.Index > best.Index) {
			best = m
		}
	}
	if best.ID == "" {
		return fault.Newf("hand leadership over", fault.Conflict, "no other master is healthy")
	}
	// The next leader may need longer than etcd is willing to wait for it.
	if err := k.cfg.Member.HandOver(ctx, number(best.ID)); err != nil && k.cfg.Member.Leads() {
		return err
	}
	k.cfg.Log.Info("leadership handed over", "to", best.Name)
	return fault.Newf("remove "+self.Name, fault.Unavailable, "leadership was handed over first, to %s", best.Name)
}
