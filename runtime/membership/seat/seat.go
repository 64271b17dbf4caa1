// Package seat gives a master its place in the ensemble and keeps it there: it
// looks at the data on this host and at the other masters, founds, joins or
// starts as package entry decides, and becomes a voter. Everything that serves
// on a master begins when Take returns.
package seat

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/membership"
	"dcos.example/dcos/runtime/membership/entry"
	"dcos.example/dcos/runtime/membership/keeper"
	"dcos.example/dcos/runtime/state/etcd"
)

const (
	// again is the pause between two looks at the other masters.
	again = 250 * time.Millisecond
	// check bounds the question whether there is a majority.
	check = time.Second
	// lone is how long a member may be without a majority, while others have
	// gone on without it, before it gives its place up.
	lone = 3 * time.Second
)

// others is how a Seat asks other masters: membership.Client.
type others interface {
	View(context.Context, netip.Addr) (membership.View, error)
	Join(context.Context, netip.Addr, membership.JoinRequest) (membership.JoinReply, error)
}

// Config says whose seat it is.
type Config struct {
	Cluster string
	Self    config.Member
	Release string
	// Etcd is how the member is started. Self in it is this master's.
	Etcd   etcd.Options
	Source *membership.Source
	Others others
	Log    *slog.Logger
}

// Seat is this master's place.
type Seat struct {
	cfg     Config
	recover chan struct{} // closed when the operator wants it to go on alone

	mu     sync.Mutex
	stage  membership.Stage
	id     string // of the data on the disk
	reason string
	member *etcd.Member
}

// New returns a Seat. It looks at nothing yet.
func New(cfg Config) *Seat {
	return &Seat{cfg: cfg, recover: make(chan struct{}), stage: membership.Empty, reason: "this master starts"}
}

// Marks in the data directory outlive a restart.
const (
	markFounding = "founding" // an ensemble is founded that has had no majority yet
	markPrevious = "previous" // holds the id of the member whose data was set aside
	markRecover  = "recover"  // the operator wants this master to go on alone
)

func (s *Seat) mark(name string) string { return filepath.Join(s.cfg.Etcd.DataDir, name) }

func (s *Seat) marked(name string) (text string, ok bool) {
	b, err := os.ReadFile(s.mark(name))
	return strings.TrimSpace(string(b)), err == nil
}

func (s *Seat) setMark(name, text string) error {
	if err := os.MkdirAll(s.cfg.Etcd.DataDir, 0o700); err != nil {
		return fault.New("note "+name, fault.Internal, err)
	}
	if err := os.WriteFile(s.mark(name), []byte(text+"\n"), 0o600); err != nil {
		return fault.New("note "+name, fault.Internal, err)
	}
	return nil
}

func (s *Seat) dropMark(name string) error {
	if err := os.Remove(s.mark(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.New("forget "+name, fault.Internal, err)
	}
	return nil
}

func (s *Seat) set(stage membership.Stage, id, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if reason != s.reason && reason != "" {
		s.cfg.Log.Info("this master is not in its place yet", "stage", stage, "reason", reason)
	}
	s.stage, s.id, s.reason = stage, id, reason
}

func (s *Seat) hold(m *etcd.Member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.member = m
}

// Reason says why this master does not serve, "" when it does.
func (s *Seat) Reason() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reason
}

// View is what this master tells others about itself.
func (s *Seat) View(ctx context.Context) membership.View {
	s.mu.Lock()
	c := s.cfg.Source.Current()
	v := membership.View{
		Cluster: s.cfg.Cluster, Name: s.cfg.Self.Name, Addr: s.cfg.Self.Addr, Stage: s.stage, ID: s.id,
		Founders: entry.Text(c.Seed), Release: s.cfg.Release, Reason: s.reason, List: c.List,
	}
	m := s.member
	s.mu.Unlock()
	if m == nil {
		return v
	}
	ctx, cancel := context.WithTimeout(ctx, check)
	defer cancel()
	v.Majority = m.Check(ctx) == nil
	v.Index = m.Progress().Index
	return v
}

// Leader is the master that leads, as this one sees it.
func (s *Seat) Leader() (m config.Member, self, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.member == nil {
		return m, false, false
	}
	id := s.member.Leader()
	l, ok := s.cfg.Source.Current().List.Find(text(id))
	return config.Member{Name: l.Name, Addr: l.Addr}, ok && id == s.member.ID(), ok
}

func text(id etcd.ID) string { return fmt.Sprintf("%x", uint64(id)) }

// Take returns when this master is a voter of its ensemble, whose member the
// caller then closes. It waits for as long as that takes. With restored set the
// data was just made from a backup, and counts whatever the others say.
func (s *Seat) Take(ctx context.Context, restored bool) (*etcd.Member, error) {
	if restored {
		m, err := s.start(ctx, entry.Decision{})
		if err == nil {
			s.set(membership.Serving, text(m.ID()), "")
		}
		return m, err
	}
	began, said := time.Now(), ""
	for {
		if err := s.recoverIfAsked(ctx); err != nil {
			return nil, err
		}
		d, err := s.decide(ctx, time.Since(began))
		if err != nil {
			return nil, err
		}
		var m *etcd.Member
		switch d.Do {
		case entry.Found:
			m, err = s.found(ctx, d)
		case entry.Start:
			m, err = s.start(ctx, d)
		case entry.Join:
			m, err = s.join(ctx, d)
		case entry.Rejoin:
			s.cfg.Log.Warn("data is set aside", "reason", d.Reason)
			err = s.setAside()
		case entry.Leave:
			s.set(membership.Gone, "", d.Reason)
			<-ctx.Done()
			return nil, ctx.Err()
		}
		if m != nil && err == nil {
			s.set(membership.Serving, text(m.ID()), "")
			return m, nil
		}
		if err != nil && !retryable(err) {
			return nil, err
		}
		if err != nil && err.Error() != said {
			said = err.Error() // once: it may be the same four times a second
			s.cfg.Log.Warn("take this master's place", "do", d.Do, "err", err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-s.recover:
			return nil, errRecover
		case <-time.After(again):
		}
	}
}

// errRecover ends the process; with the mark that was set it goes on alone
// when it starts again.
var errRecover = fault.Newf("keep this master's place", fault.Unavailable, "it starts anew to go on alone, as the operator asked")

func retryable(err error) bool {
	switch fault.KindOf(err) {
	case fault.Unavailable, fault.Conflict, fault.Exists, fault.NotFound, fault.Denied:
		return true
	}
	return false
}

// decide looks at the disk and the others.
func (s *Seat) decide(ctx context.Context, waited time.Duration) (d entry.Decision, err error) {
	c := s.cfg.Source.Current()
	sit := entry.Situation{
		Cluster: s.cfg.Cluster, Self: s.cfg.Self, Seed: c.Seed, Known: c.List, Waited: waited, Port: s.cfg.Etcd.Self.Addr.Port(),
	}
	disk, err := etcd.Inspect(s.cfg.Etcd.DataDir)
	switch {
	case err == nil:
		_, founding := s.marked(markFounding)
		sit.Data = &entry.Data{ID: text(disk.ID), Founding: founding, Addrs: map[string]netip.AddrPort{}}
		for _, m := range disk.Members {
			sit.Data.Addrs[text(m.ID)] = m.Addr
		}
		stage := membership.Starting
		if founding {
			stage = membership.Founding
		}
		s.set(stage, sit.Data.ID, s.Reason())
	case fault.Is(err, fault.NotFound):
		sit.Previous, _ = s.marked(markPrevious)
	default:
		return d, err
	}
	sit.Views, _ = membership.Look(ctx, s.addrs(c, disk), s.cfg.Others.View)
	for _, v := range sit.Views {
		if v.Cluster == s.cfg.Cluster {
			s.cfg.Source.Learn(v.List)
		}
	}
	d = entry.Decide(sit)
	if d.Do == entry.Wait {
		s.mu.Lock()
		stage, id := s.stage, s.id
		s.mu.Unlock()
		s.set(stage, id, d.Reason)
	}
	return d, nil
}

// addrs are all masters that anybody has named.
func (s *Seat) addrs(c membership.Current, disk etcd.Disk) (out []netip.Addr) {
	seen := map[netip.Addr]bool{s.cfg.Self.Addr: true}
	add := func(a netip.Addr) {
		if a.IsValid() && !seen[a] {
			seen[a] = true
			out = append(out, a)
		}
	}
	for _, m := range c.Seed.Masters {
		add(m.Addr)
	}
	for _, m := range c.List.Members {
		add(m.Addr)
	}
	for _, m := range disk.Members {
		add(m.Addr.Addr())
	}
	return out
}

func (s *Seat) setAside() error {
	disk, err := etcd.Inspect(s.cfg.Etcd.DataDir)
	if err != nil {
		return err
	}
	if err := s.setMark(markPrevious, text(disk.ID)); err != nil {
		return err
	}
	to, err := etcd.SetAside(s.cfg.Etcd.DataDir, time.Now())
	if err != nil {
		return err
	}
	s.cfg.Log.Warn("the data of a former ensemble was kept", "in", to)
	s.set(membership.Empty, "", "its data was set aside, because the others went on without it")
	return s.dropMark(markFounding)
}

func (s *Seat) found(ctx context.Context, d entry.Decision) (*etcd.Member, error) {
	o := s.cfg.Etcd
	o.Peers = nil
	for _, m := range d.With {
		o.Peers = append(o.Peers, etcd.Peer{Name: m.Name, Addr: netip.AddrPortFrom(m.Addr, o.Self.Addr.Port())})
	}
	if err := s.setMark(markFounding, ""); err != nil {
		return nil, err
	}
	s.cfg.Log.Info("found an ensemble", "with", o.Peers)
	s.set(membership.Founding, "", "the founders are waited for")
	return s.run(ctx, o)
}

func (s *Seat) start(ctx context.Context, d entry.Decision) (*etcd.Member, error) {
	o := s.cfg.Etcd
	o.Peers = []etcd.Peer{o.Self} // without meaning: there is data
	if len(d.Addrs) > 0 {
		to := map[etcd.ID]netip.AddrPort{}
		for id, a := range d.Addrs {
			var n uint64
			_, _ = fmt.Sscanf(id, "%x", &n) // we wrote it
			to[etcd.ID(n)] = a
		}
		s.cfg.Log.Info("masters have moved", "to", d.Addrs)
		if err := etcd.Relocate(o, to); err != nil {
			return nil, err
		}
	}
	return s.run(ctx, o)
}

// join asks for a place, takes it, and becomes a voter.
func (s *Seat) join(ctx context.Context, d entry.Decision) (*etcd.Member, error) {
	previous, _ := s.marked(markPrevious)
	req := membership.JoinRequest{Name: s.cfg.Self.Name, Addr: s.cfg.Self.Addr, Previous: previous}
	r, err := s.request(ctx, d.Ask, req)
	if err != nil {
		s.mu.Lock()
		s.reason = err.Error()
		s.mu.Unlock()
		return nil, err
	}
	s.cfg.Source.Learn(r.List)
	o := s.cfg.Etcd
	o.Join, o.Peers = true, nil
	for _, m := range r.List.Members {
		p := etcd.Peer{Name: m.Name, Addr: netip.AddrPortFrom(m.Addr, o.Self.Addr.Port())}
		if m.ID != r.ID && m.Name == s.cfg.Self.Name {
			p.Name += "-" + m.ID // etcd wants them different here
		}
		o.Peers = append(o.Peers, p)
	}
	s.set(membership.Joining, r.ID, "it receives the cluster's state")
	m, err := s.run(ctx, o)
	if fault.Is(err, fault.Internal) {
		// It asked a master that had not heard of it yet.
		err = fault.New("join the masters", fault.Unavailable, err)
	}
	return m, err
}

// request asks the masters in turn.
func (s *Seat) request(ctx context.Context, masters []netip.Addr, req membership.JoinRequest) (r membership.JoinReply, err error) {
	errs := []error{fault.Newf("join the masters", fault.Unavailable, "none is known")}
	for i, a := range masters {
		if r, err = s.cfg.Others.Join(ctx, a, req); err == nil {
			return r, nil
		}
		if i == 0 {
			errs = nil
		}
		errs = append(errs, err)
	}
	return r, errors.Join(errs...)
}

// run starts the member and returns when it is a voter.
func (s *Seat) run(ctx context.Context, o etcd.Options) (*etcd.Member, error) {
	m, err := etcd.Launch(o)
	if err != nil {
		return nil, err
	}
	if err := s.settle(ctx, m); err != nil {
		s.hold(nil)
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

func (s *Seat) settle(ctx context.Context, m *etcd.Member) error {
	s.hold(m)
	s.mu.Lock()
	if s.reason == "" || s.stage == membership.Starting {
		s.reason = "a majority of the masters is waited for"
	}
	s.id = text(m.ID())
	s.mu.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	wg.Go(func() {
		if err := s.watch(ctx, m); err != nil {
			cancel(err)
		}
	})
	if err := m.Ready(ctx); err != nil {
		return because(ctx, err)
	}
	if err := s.dropMark(markFounding); err != nil {
		return err
	}
	if err := s.vote(ctx, m); err != nil {
		return because(ctx, err)
	}
	return s.dropMark(markPrevious)
}

func because(ctx context.Context, err error) error {
	if why := context.Cause(ctx); why != nil && !errors.Is(why, context.Canceled) {
		return why
	}
	return err
}

// vote asks for this member's vote until it has it.
func (s *Seat) vote(ctx context.Context, m *etcd.Member) error {
	for m.Learner() {
		s.set(membership.Joining, text(m.ID()), "it has no vote yet")
		var ask []netip.Addr
		if l, _, ok := s.Leader(); ok {
			ask = append(ask, l.Addr)
		}
		for _, v := range s.cfg.Source.Current().List.Voters() {
			ask = append(ask, v.Addr)
		}
		_, err := s.request(ctx, ask, membership.JoinRequest{
			Name: s.cfg.Self.Name, Addr: s.cfg.Self.Addr, ID: text(m.ID()), Index: m.Progress().Applied,
		})
		if err != nil {
			s.cfg.Log.Debug("ask for a vote", "err", err)
		}
		select {
		case <-ctx.Done():
			return fault.New("join the masters", fault.Unavailable, context.Cause(ctx))
		case <-time.After(again):
		}
	}
	return nil
}

// Keep watches over the place that Take returned until ctx ends: it tells the
// ensemble when this master has moved, and ends with an error when the others
// went on without it. The process then starts anew.
func (s *Seat) Keep(ctx context.Context, m *etcd.Member) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { s.announce(ctx, m) })
	return s.watch(ctx, m)
}

// watch ends with an error when m is of no more use.
func (s *Seat) watch(ctx context.Context, m *etcd.Member) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { ended <- m.Wait(ctx) })
	for {
		tick := time.NewTimer(lone)
		select {
		case <-ctx.Done():
		case err := <-ended:
			tick.Stop()
			return err
		case <-s.recover:
			tick.Stop()
			return errRecover
		case <-tick.C:
		}
		tick.Stop()
		if ctx.Err() != nil {
			return nil
		}
		l := s.cfg.Source.Current().List
		if _, member := l.Find(text(m.ID())); member || !l.Known() || s.majority(ctx, m) {
			continue
		}
		return fault.New("keep this master's place", fault.NotFound, etcd.ErrRemoved)
	}
}

// majority reports whether m takes part in one.
func (s *Seat) majority(ctx context.Context, m *etcd.Member) bool {
	ctx, cancel := context.WithTimeout(ctx, lone)
	defer cancel()
	return m.Check(ctx) == nil
}

// announce tells the ensemble where this master is, when it knows it elsewhere,
// and has old addresses forgotten.
func (s *Seat) announce(ctx context.Context, m *etcd.Member) {
	old := map[string]netip.Addr{}
	for c := range s.cfg.Source.Changes(ctx) {
		s.tell(ctx, m)
		for _, lm := range c.List.Members {
			if a, ok := old[lm.ID]; ok && a != lm.Addr {
				m.Compact()
			}
			old[lm.ID] = lm.Addr
		}
	}
}

// tell tries until the ensemble has the address of this master.
func (s *Seat) tell(ctx context.Context, m *etcd.Member) {
	to := s.cfg.Etcd.Self.Addr
	for ctx.Err() == nil {
		all := m.Members()
		i := slices.IndexFunc(all, func(i etcd.Info) bool { return i.ID == m.ID() })
		if i < 0 || all[i].Addr == to {
			return
		}
		s.cfg.Log.Info("tell the masters that this one has moved", "from", all[i].Addr, "to", to)
		if err := m.Readdress(ctx, m.ID(), to); err != nil {
			s.cfg.Log.Warn("tell the masters that this one has moved", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(again):
		}
	}
}

// Recover makes this master go on alone when it starts the next time, which is
// at once: the caller's Take or Keep ends.
func (s *Seat) Recover(ctx context.Context, req membership.RecoverRequest) error {
	const op = "go on without the other masters"
	v := s.View(ctx)
	switch {
	case v.Majority:
		return fault.Newf(op, fault.Conflict, "the masters have a majority; remove those that are gone with: dcosd members remove NAME")
	case v.ID == "":
		return fault.Newf(op, fault.Conflict, "this master has no data; choose one that has")
	case !req.Force:
		return fault.Newf(op, fault.Invalid, "what the others hold and this one (at entry %d of the log) does not is lost; say -force to do it", v.Index)
	}
	if err := s.setMark(markRecover, ""); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.recover:
	default:
		close(s.recover)
	}
	return nil
}

// AskRecover sets the mark for a master that does not run.
func AskRecover(dataDir string) error {
	if _, err := etcd.Inspect(dataDir); err != nil {
		return err
	}
	return (&Seat{cfg: Config{Etcd: etcd.Options{DataDir: dataDir}}}).setMark(markRecover, "")
}

func (s *Seat) recoverIfAsked(ctx context.Context) error {
	if _, asked := s.marked(markRecover); !asked {
		return nil
	}
	s.cfg.Log.Warn("this master goes on alone with the data it has")
	err := etcd.Recover(ctx, s.cfg.Etcd, func(ctx context.Context, m *etcd.Member) error {
		b := etcd.New(m.Client())
		l, rev, err := membership.Read(ctx, b)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
		// Whoever was forgotten may come back, without its data.
		l = membership.List{
			Cluster: s.cfg.Cluster, Generation: keeper.NextGeneration(l, time.Now()), Ensemble: text(m.Ensemble()), Left: l.Left,
			Members: []membership.Member{{Name: s.cfg.Self.Name, Addr: s.cfg.Self.Addr, ID: text(m.ID()), Role: membership.Voter}},
		}
		if l, _, err = membership.Write(ctx, b, rev, l); err != nil {
			return err
		}
		s.cfg.Source.Learn(l)
		return nil
	})
	if err != nil {
		return err
	}
	return s.dropMark(markRecover)
}
