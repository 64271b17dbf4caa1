// Package supervise runs units: it starts them in order, watches and restarts
// them, and stops them. One goroutine, Run, owns all state and is the only one
// that forks and reaps, so that an ended process is never taken for a younger
// one with the same id. Everyone else sends it work.
package supervise

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"dcos.example/dcos/providers/local/control"
	"dcos.example/dcos/providers/local/unit"
	"dcos.example/dcos/runtime/fault"
)

// wants holds a link per unit that starts at boot, as in systemd.
const wants = "multi-user.target.wants"

const (
	maxBackoff  = 5 * time.Second  // the longest growing pause between restarts
	stableAfter = 10 * time.Second // a service that ran this long starts over with short pauses
)

// Process is what a launcher is asked to start.
type Process struct {
	Service string // names the cgroup and the log; "" for a one-off command
	Argv    []string
	Env     []string
	Dir     string
	Limits  map[string]uint64
	Discard bool        // no log
	Files   [3]*os.File // for a one-off command
}

// launcher is how processes are made and unmade.
type launcher interface {
	Start(Process) (pid int, err error)
	// Signal sends sig to pid, or with all to every process of the service.
	Signal(service string, pid int, all bool, sig syscall.Signal)
	// Left reports whether processes of the service are alive.
	Left(service string) bool
	// Reap returns an ended child, and false when there is none.
	Reap() (pid int, status syscall.WaitStatus, ok bool)
	// NotifySocket returns the socket on which the service says that it is
	// ready; ready is called for each such message.
	NotifySocket(service string, ready func()) (string, error)
}

// Options configure a Supervisor.
type Options struct {
	UnitDir string
	LogDir  string
	Env     []string // of every service, over which units set theirs
	Log     *slog.Logger
}

// Supervisor runs the units of one host.
type Supervisor struct {
	opts     Options
	l        launcher
	calls    chan func()
	children <-chan os.Signal
	done     chan struct{}

	// Owned by Run.
	services map[string]*service
	pids     map[int]func(syscall.WaitStatus)
}

type service struct {
	unit     unit.Unit
	state    State
	since    time.Time
	pid      int // main process or the ExecStartPre under way; 0: none
	pre      int // next ExecStartPre
	restarts int
	quick    int // restarts in a row without a stable run
	lastExit string
	timer    *time.Timer
	epoch    int // counts timers, so that a late one is recognised
	waiters  []chan State
}

// New returns a supervisor over l. children delivers SIGCHLD, or whatever
// tells that l.Reap has something.
func New(opts Options, l launcher, children <-chan os.Signal) *Supervisor {
	return &Supervisor{
		opts: opts, l: l, children: children, calls: make(chan func()), done: make(chan struct{}),
		services: map[string]*service{}, pids: map[int]func(syscall.WaitStatus){},
	}
}

// Run owns the services until ctx ends. It does not stop them.
func (s *Supervisor) Run(ctx context.Context) {
	defer close(s.done)
	for {
		select {
		case f := <-s.calls:
			f()
		case <-s.children:
			for pid, st, ok := s.l.Reap(); ok; pid, st, ok = s.l.Reap() {
				if f := s.pids[pid]; f != nil { // others are orphans of services
					delete(s.pids, pid)
					f(st)
				}
			}
		case <-ctx.Done():
			for _, sv := range s.services {
				sv.disarm()
			}
			return
		}
	}
}

// post hands f to Run, and reports false when Run has ended.
func (s *Supervisor) post(f func()) bool {
	select {
	case s.calls <- f:
		return true
	case <-s.done:
		return false
	}
}

// call runs f in Run and waits for it.
func (s *Supervisor) call(f func()) error {
	ran := make(chan struct{})
	if !s.post(func() { f(); close(ran) }) {
		return fault.New("supervise", fault.Unavailable, errors.New("the host is going down"))
	}
	<-ran
	return nil
}

// load reads a unit file anew. The running process of a service keeps the
// unit it was started with in effect until the next start.
func (s *Supervisor) load(name string) (unit.Unit, error) {
	if name == "" || name != filepath.Base(name) {
		return unit.Unit{}, fault.Newf("load unit", fault.Invalid, "%q is not a unit name", name)
	}
	b, err := os.ReadFile(filepath.Join(s.opts.UnitDir, name))
	if err != nil {
		return unit.Unit{}, fault.New("load unit "+name, fault.NotFound, err)
	}
	u, err := unit.Parse(name, string(b))
	for _, w := range u.Warnings {
		s.opts.Log.Warn("unit directive ignored", "unit", name, "what", w)
	}
	return u, err
}

// Start starts the unit and what it requires, in order, and returns when each
// is started or one could not be.
func (s *Supervisor) Start(ctx context.Context, name string) error {
	units, err := s.closure(name)
	if err != nil {
		return err
	}
	for _, u := range units {
		if err := s.startOne(ctx, u); err != nil {
			return err
		}
	}
	return nil
}

// closure returns the unit and all it requires, in start order.
func (s *Supervisor) closure(name string) ([]unit.Unit, error) {
	var units []unit.Unit
	seen := map[string]bool{}
	for todo := []string{name}; len(todo) > 0; todo = todo[1:] {
		n := todo[0]
		if seen[n] || !strings.HasSuffix(n, ".service") && n != name {
			continue // targets, sockets and mounts of the real systemd
		}
		seen[n] = true
		u, err := s.load(n)
		if err != nil {
			return nil, err
		}
		units = append(units, u)
		todo = append(todo, u.Requires...)
	}
	ordered, cycle := unit.Order(units)
	if cycle != nil {
		return nil, fault.New("order units", fault.Invalid, cycle)
	}
	return ordered, nil
}

func (s *Supervisor) startOne(ctx context.Context, u unit.Unit) error {
	settled := make(chan State, 1)
	if err := s.call(func() {
		sv := s.services[u.Name]
		if sv == nil {
			sv = &service{unit: u, state: Inactive, since: time.Now()}
			s.services[u.Name] = sv
		}
		switch sv.state {
		case Active:
			settled <- Active
			return
		case Starting:
		default:
			if _, ok := next(sv.state, start); !ok { // stopping
				settled <- sv.state
				return
			}
			sv.unit, sv.quick = u, 0
			s.begin(sv, start)
		}
		sv.waiters = append(sv.waiters, settled)
		s.settle(sv)
	}); err != nil {
		return err
	}
	select {
	case st := <-settled:
		if st == Active || st == Inactive && u.Type == unit.Oneshot {
			return nil
		}
		return fault.New("start "+u.Name, fault.Unavailable, errors.New(s.describe(u.Name, st)))
	case <-ctx.Done():
		return fault.New("start "+u.Name, fault.Unavailable, context.Cause(ctx))
	}
}

// describe says in which state a service is, how it ended and what it wrote
// last.
func (s *Supervisor) describe(name string, st State) string {
	msg := "it is " + string(st)
	s.call(func() {
		if sv := s.services[name]; sv != nil && sv.lastExit != "" {
			msg += ": " + sv.lastExit
		}
	})
	if tail := strings.TrimSpace(s.tail(name, 2<<10)); tail != "" {
		msg += "; the end of its log:\n" + tail
	}
	return msg
}

// Stop stops the unit and returns when it has.
func (s *Supervisor) Stop(ctx context.Context, name string) error {
	stopped := make(chan State, 1)
	if err := s.call(func() {
		sv := s.services[name]
		if sv == nil {
			stopped <- Inactive
			return
		}
		s.end(sv)
		sv.waiters = append(sv.waiters, stopped)
		s.settle(sv)
	}); err != nil {
		return err
	}
	select {
	case <-stopped:
		return nil
	case <-ctx.Done():
		return fault.New("stop "+name, fault.Unavailable, context.Cause(ctx))
	}
}

// Boot starts every enabled unit, each after those it names. One that does
// not start is logged and does not keep the others from starting: its
// Restart= rule may bring it up later.
func (s *Supervisor) Boot(ctx context.Context) {
	var units []unit.Unit
	for _, name := range s.enabled() {
		u, err := s.load(name)
		if err != nil {
			s.opts.Log.Error("unit not started", "unit", name, "error", err)
			continue
		}
		units = append(units, u)
	}
	units, cycle := unit.Order(units)
	if cycle != nil {
		s.opts.Log.Warn("units are ordered in a circle", "error", cycle)
	}
	for _, u := range units {
		if err := s.startOne(ctx, u); err != nil {
			s.opts.Log.Error("unit did not start", "unit", u.Name, "error", err)
		}
	}
}

// Shutdown stops every unit in reverse order, and kills what does not stop
// before ctx ends.
func (s *Supervisor) Shutdown(ctx context.Context) {
	var units []unit.Unit
	s.call(func() {
		for _, sv := range s.services {
			units = append(units, sv.unit)
		}
	})
	slices.SortFunc(units, func(a, b unit.Unit) int { return cmp.Compare(a.Name, b.Name) })
	units, _ = unit.Order(units)
	for _, u := range slices.Backward(units) {
		if err := s.Stop(ctx, u.Name); err != nil {
			s.opts.Log.Warn("unit did not stop in time", "unit", u.Name, "error", err)
		}
	}
}

// Enable makes the unit start at every boot, or no longer.
func (s *Supervisor) Enable(name string, on bool) error {
	if _, err := s.load(name); err != nil && on {
		return err
	}
	dir := filepath.Join(s.opts.UnitDir, wants)
	link := filepath.Join(dir, filepath.Base(name))
	if !on {
		if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fault.New("disable "+name, fault.Internal, err)
		}
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fault.New("enable "+name, fault.Internal, err)
	}
	if err := os.Symlink(filepath.Join("..", name), link); err != nil && !errors.Is(err, os.ErrExist) {
		return fault.New("enable "+name, fault.Internal, err)
	}
	return nil
}

// enabled returns the units that start at boot, in name order.
func (s *Supervisor) enabled() (names []string) {
	entries, _ := os.ReadDir(filepath.Join(s.opts.UnitDir, wants)) // missing: none
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// Status returns the state of the unit, or with "" of every one that was
// loaded or is enabled, in name order.
func (s *Supervisor) Status(name string, tail int) ([]control.UnitStatus, error) {
	on := s.enabled()
	names := on
	if name != "" {
		if _, err := s.load(name); err != nil {
			return nil, err
		}
		names = []string{name}
	}
	var out []control.UnitStatus
	if err := s.call(func() {
		if name == "" {
			for n := range s.services {
				names = append(names, n)
			}
		}
		slices.Sort(names)
		for _, n := range slices.Compact(names) {
			st := control.UnitStatus{Name: n, State: string(Inactive), Enabled: slices.Contains(on, n)}
			if sv := s.services[n]; sv != nil {
				st.State, st.PID, st.Since, st.Restarts, st.LastExit = string(sv.state), sv.pid, sv.since, sv.restarts, sv.lastExit
			}
			out = append(out, st)
		}
	}); err != nil {
		return nil, err
	}
	if tail > 0 {
		for i := range out {
			out[i].Log = s.tail(out[i].Name, tail)
		}
	}
	return out, nil
}

// LogPath is where the output of a unit goes.
func LogPath(dir, name string) string {
	return filepath.Join(dir, strings.TrimSuffix(name, ".service")+".log")
}

func (s *Supervisor) tail(name string, n int) string {
	b, _ := os.ReadFile(LogPath(s.opts.LogDir, name)) // none written yet: ""
	if len(b) > n {
		b = b[len(b)-n:]
	}
	return strings.ToValidUTF8(string(b), "?")
}

// Below: called in Run only.

// to moves the service on e, which must mean something in its state.
func (s *Supervisor) to(sv *service, e event) {
	st, ok := next(sv.state, e)
	if !ok {
		panic(fmt.Sprintf("supervise: %s while %s is %s", e, sv.unit.Name, sv.state)) // the callers below check
	}
	sv.state, sv.since = st, time.Now()
	sv.disarm()
	s.opts.Log.Info("unit", "unit", sv.unit.Name, "state", st, "why", sv.lastExit)
	s.settle(sv)
}

// settle tells those who wait that the service has come to rest. Backoff
// counts: whoever waits should hear of the failure now.
func (s *Supervisor) settle(sv *service) {
	if sv.state == Starting || sv.state == Stopping {
		return
	}
	for _, w := range sv.waiters {
		w <- sv.state
	}
	sv.waiters = nil
}

func (sv *service) disarm() {
	sv.epoch++
	if sv.timer != nil {
		sv.timer.Stop()
	}
}

// arm runs f in Run after d, unless the service changes state before.
func (s *Supervisor) arm(sv *service, d time.Duration, f func()) {
	sv.disarm()
	epoch := sv.epoch
	sv.timer = time.AfterFunc(d, func() {
		s.post(func() {
			if sv.epoch == epoch {
				f()
			}
		})
	})
}

func (s *Supervisor) begin(sv *service, e event) {
	sv.lastExit = ""
	s.to(sv, e)
	sv.pre = 0
	if d := sv.unit.StartTimeout; d > 0 {
		s.arm(sv, d, func() {
			sv.lastExit = fmt.Sprintf("not ready within %s", d)
			s.kill(sv)
			s.gone(sv, false)
		})
	}
	s.advance(sv)
}

// advance starts the next ExecStartPre, or the main process.
func (s *Supervisor) advance(sv *service) {
	cmd, main := sv.unit.Start, true
	if sv.pre < len(sv.unit.StartPre) {
		cmd, main = sv.unit.StartPre[sv.pre], false
	}
	pid, err := s.spawn(sv, cmd.Argv, main)
	if err != nil {
		sv.lastExit = err.Error()
		s.gone(sv, false)
		return
	}
	sv.pid = pid
	s.pids[pid] = func(st syscall.WaitStatus) { s.exited(sv, pid, cmd, main, st) }
	if main && sv.unit.Type == unit.Simple {
		s.to(sv, ready)
	}
}

func (s *Supervisor) spawn(sv *service, argv []string, main bool) (int, error) {
	u := sv.unit
	env := slices.Concat(s.opts.Env, u.Environment)
	for _, f := range u.EnvironmentFile {
		b, err := os.ReadFile(strings.TrimPrefix(f, "-"))
		if err != nil && !strings.HasPrefix(f, "-") {
			return 0, err
		}
		for l := range strings.Lines(string(b)) {
			if l = strings.TrimSpace(l); l != "" && l[0] != '#' {
				k, v, _ := strings.Cut(l, "=")
				env = append(env, k+"="+strings.Trim(v, `"'`))
			}
		}
	}
	if main && u.Type == unit.Notify {
		path, err := s.l.NotifySocket(u.Name, func() { s.post(func() { s.ready(sv) }) })
		if err != nil {
			return 0, err
		}
		env = append(env, "NOTIFY_SOCKET="+path)
	}
	return s.l.Start(Process{
		Service: u.Name, Argv: unit.Expand(argv, env), Env: env, Dir: u.WorkingDir, Limits: u.Limits, Discard: u.DiscardOutput,
	})
}

func (s *Supervisor) ready(sv *service) {
	if sv.state == Starting && sv.pre == len(sv.unit.StartPre) {
		s.to(sv, ready)
	}
}

// exited is called when a process of the service that we started has ended.
func (s *Supervisor) exited(sv *service, pid int, cmd unit.Command, main bool, st syscall.WaitStatus) {
	if sv.pid != pid {
		return // given up on, and already accounted for
	}
	sv.pid = 0
	ok := st.Exited() && st.ExitStatus() == 0
	if sv.state == Stopping {
		sv.lastExit = "stopped, " + exitText(st)
		s.stopped(sv)
		return
	}
	if !main && (ok || cmd.IgnoreFailure) {
		sv.pre++
		s.advance(sv)
		return
	}
	sv.lastExit = exitText(st)
	if !main {
		sv.lastExit = filepath.Base(cmd.Argv[0]) + " before start: " + sv.lastExit
	}
	if ok && sv.unit.Type == unit.Oneshot && sv.state == Starting && sv.unit.RemainAfterExit {
		s.to(sv, ready)
		return
	}
	if ok && sv.unit.Type == unit.Notify && sv.state == Starting {
		ok, sv.lastExit = false, "ended before it was ready"
	}
	s.gone(sv, ok || cmd.IgnoreFailure)
}

// gone decides what becomes of a service whose process is gone.
func (s *Supervisor) gone(sv *service, ok bool) {
	sv.pid = 0
	s.sweep(sv)
	restart := sv.unit.Restart == unit.RestartAlways || sv.unit.Restart == unit.RestartOnFailure && !ok
	switch {
	case restart:
		if sv.state == Active && time.Since(sv.since) >= stableAfter {
			sv.quick = 0
		}
		pause := max(sv.unit.RestartDelay, min(sv.unit.RestartDelay<<min(sv.quick, 10), maxBackoff))
		sv.quick++
		sv.restarts++
		s.to(sv, again)
		s.arm(sv, pause, func() { s.begin(sv, elapsed) })
	case ok:
		s.to(sv, ended)
	default:
		s.to(sv, broke)
	}
}

// sweep kills what a dead main process left behind, if its unit says so.
func (s *Supervisor) sweep(sv *service) {
	if sv.unit.Kill != unit.KillProcess && s.l.Left(sv.unit.Name) {
		s.l.Signal(sv.unit.Name, 0, true, syscall.SIGKILL)
	}
}

func (s *Supervisor) kill(sv *service) {
	if sv.pid != 0 {
		s.l.Signal(sv.unit.Name, sv.pid, sv.unit.Kill != unit.KillProcess, syscall.SIGKILL)
	}
}

// end asks the service to stop.
func (s *Supervisor) end(sv *service) {
	if _, ok := next(sv.state, stop); !ok {
		return
	}
	s.to(sv, stop)
	if sv.state != Stopping {
		return
	}
	if sv.pid == 0 { // oneshot that remains after its exit
		s.stopped(sv)
		return
	}
	s.l.Signal(sv.unit.Name, sv.pid, sv.unit.Kill == unit.KillGroup, syscall.SIGTERM)
	if d := sv.unit.StopTimeout; d > 0 {
		s.arm(sv, d, func() {
			sv.lastExit = fmt.Sprintf("killed, did not stop within %s", d)
			s.kill(sv)
		})
	}
}

func (s *Supervisor) stopped(sv *service) {
	s.sweep(sv)
	s.to(sv, ended)
}

func exitText(st syscall.WaitStatus) string {
	switch {
	case st.Signaled():
		return "killed by signal " + st.Signal().String()
	case st.ExitStatus() == exitExec:
		return "could not be executed"
	default:
		return fmt.Sprintf("ended with status %d", st.ExitStatus())
	}
}
