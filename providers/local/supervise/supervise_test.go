package supervise_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"dcos.example/dcos/providers/local/control"
	"dcos.example/dcos/providers/local/supervise"
	"dcos.example/dcos/runtime/fault"
)

// Every pair of state and event, as one line per state.
func TestTransitions(t *testing.T) {
	var got []string
	for _, s := range supervise.States {
		line := string(s) + ":"
		for _, e := range supervise.Events {
			if to, ok := supervise.Next(s, e); ok {
				line += fmt.Sprintf(" %s→%s", e, to)
			}
		}
		got = append(got, line)
	}
	want := []string{
		"inactive: start→starting",
		"starting: ready→active ended→inactive broke→failed again→backoff stop→stopping",
		"active: ended→inactive broke→failed again→backoff stop→stopping",
		"stopping: ended→inactive",
		"backoff: start→starting elapsed→starting stop→inactive",
		"failed: start→starting stop→inactive",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// world is a launcher whose processes run until the test or a signal ends
// them.
type world struct {
	mu       sync.Mutex
	next     int
	running  map[int]supervise.Process
	ended    [][2]int // pid, status
	ready    map[string]func()
	starts   []string
	stubborn bool // ignores SIGTERM
	children chan os.Signal
}

func (w *world) Start(p supervise.Process) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next++
	w.running[w.next] = p
	w.starts = append(w.starts, strings.Join(p.Argv, " "))
	return w.next, nil
}

func (w *world) end(pid int, status int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.running[pid]; ok {
		delete(w.running, pid)
		w.ended = append(w.ended, [2]int{pid, status})
		select {
		case w.children <- syscall.SIGCHLD:
		default:
		}
	}
}

func (w *world) Signal(_ string, pid int, _ bool, sig syscall.Signal) {
	if sig == syscall.SIGTERM && w.stubborn {
		return
	}
	go w.end(pid, int(sig)) // low bits: killed by
}

func (w *world) Left(string) bool { return false }

func (w *world) Reap() (int, syscall.WaitStatus, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.ended) == 0 {
		return 0, 0, false
	}
	e := w.ended[0]
	w.ended = w.ended[1:]
	return e[0], syscall.WaitStatus(e[1]), true
}

func (w *world) NotifySocket(service string, ready func()) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ready[service] = ready
	return "/run/notify/" + service, nil
}

// pid returns the only process that runs.
func (w *world) pid(t *testing.T) int {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.running) != 1 {
		t.Fatalf("%d processes run", len(w.running))
	}
	for pid := range w.running {
		return pid
	}
	return 0
}

const exit1 = 1 << 8 // as wait(2) reports it

// with runs f against a supervisor of the given units, in virtual time.
func with(t *testing.T, units map[string]string, f func(*testing.T, *world, *supervise.Supervisor)) {
	dir := t.TempDir()
	for name, text := range units {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		w := &world{running: map[int]supervise.Process{}, ready: map[string]func(){}, children: make(chan os.Signal, 1)}
		s := supervise.New(supervise.Options{UnitDir: dir, LogDir: dir, Log: slog.New(slog.DiscardHandler)}, supervise.Launcher(w), w.children)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); s.Run(ctx) }()
		f(t, w, s)
		cancel()
		<-done
	})
}

func status(t *testing.T, s *supervise.Supervisor, name string) control.UnitStatus {
	t.Helper()
	synctest.Wait()
	st, err := s.Status(name, 0)
	if err != nil || len(st) != 1 {
		t.Fatal(st, err)
	}
	return st[0]
}

func TestRestartWithGrowingPauses(t *testing.T) {
	with(t, map[string]string{"a.service": "[Service]\nExecStart=/a\nRestart=always\nRestartSec=1"}, func(t *testing.T, w *world, s *supervise.Supervisor) {
		if err := s.Start(t.Context(), "a.service"); err != nil {
			t.Fatal(err)
		}
		var pauses []time.Duration
		for range 5 {
			w.end(w.pid(t), exit1)
			if st := status(t, s, "a.service"); st.State != "backoff" || st.LastExit != "ended with status 1" {
				t.Fatalf("%+v", st)
			}
			began := time.Now()
			for status(t, s, "a.service").State != "active" {
				time.Sleep(100 * time.Millisecond)
			}
			pauses = append(pauses, time.Since(began).Round(time.Second))
		}
		if d := cmp.Diff([]time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 5 * time.Second, 5 * time.Second}, pauses); d != "" {
			t.Error(d)
		}
		time.Sleep(time.Minute) // a stable run: short pauses again
		w.end(w.pid(t), exit1)
		synctest.Wait()
		time.Sleep(1100 * time.Millisecond)
		if st := status(t, s, "a.service"); st.State != "active" || st.Restarts != 6 {
			t.Errorf("%+v", st)
		}
	})
}

func TestNotifyAndOrder(t *testing.T) {
	with(t, map[string]string{
		"a.service": "[Service]\nType=notify\nExecStartPre=/pre\nExecStart=/a\nTimeoutStartSec=5",
		"b.service": "[Unit]\nRequires=a.service\nAfter=a.service\n[Service]\nExecStart=/b",
	}, func(t *testing.T, w *world, s *supervise.Supervisor) {
		started := make(chan error, 1)
		go func() { started <- s.Start(t.Context(), "b.service") }()
		synctest.Wait()
		w.end(w.pid(t), 0)
		if st := status(t, s, "a.service"); st.State != "starting" {
			t.Fatalf("before it is ready: %+v", st)
		}
		w.ready["a.service"]()
		if err := <-started; err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff([]string{"/pre", "/a", "/b"}, w.starts); d != "" {
			t.Error(d)
		}

		// Not ready in time: killed, failed, and whoever needs it hears why.
		if err := s.Stop(t.Context(), "a.service"); err != nil {
			t.Fatal(err)
		}
		if err := s.Stop(t.Context(), "b.service"); err != nil {
			t.Fatal(err)
		}
		go func() { started <- s.Start(t.Context(), "b.service") }()
		synctest.Wait()
		w.end(w.pid(t), 0)
		if err := <-started; !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "a.service") || !strings.Contains(err.Error(), "not ready within 5s") {
			t.Errorf("%v", err)
		}
		if st := status(t, s, "a.service"); st.State != "failed" {
			t.Errorf("%+v", st)
		}
	})
}

func TestStop(t *testing.T) {
	with(t, map[string]string{"a.service": "[Service]\nExecStart=/a\nRestart=always\nTimeoutStopSec=3"}, func(t *testing.T, w *world, s *supervise.Supervisor) {
		if err := s.Stop(t.Context(), "a.service"); err != nil {
			t.Error("stop of what never ran:", err)
		}
		if err := s.Start(t.Context(), "a.service"); err != nil {
			t.Fatal(err)
		}
		w.stubborn = true
		began := time.Now()
		if err := s.Stop(t.Context(), "a.service"); err != nil || time.Since(began) != 3*time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		if st := status(t, s, "a.service"); st.State != "inactive" || st.Restarts != 0 {
			t.Errorf("%+v", st)
		}
		// A restart that is pending is called off.
		if err := s.Start(t.Context(), "a.service"); err != nil {
			t.Fatal(err)
		}
		w.end(w.pid(t), exit1)
		synctest.Wait()
		if err := s.Stop(t.Context(), "a.service"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if st := status(t, s, "a.service"); st.State != "inactive" {
			t.Errorf("%+v", st)
		}
	})
}

func TestOneshotAndOnFailure(t *testing.T) {
	with(t, map[string]string{
		"once.service": "[Service]\nType=oneshot\nExecStart=/once\nRemainAfterExit=yes",
		"fail.service": "[Service]\nExecStart=/f\nRestart=on-failure\nRestartSec=1",
	}, func(t *testing.T, w *world, s *supervise.Supervisor) {
		started := make(chan error, 1)
		go func() { started <- s.Start(t.Context(), "once.service") }()
		synctest.Wait()
		w.end(w.pid(t), 0)
		if err := <-started; err != nil || status(t, s, "once.service").State != "active" {
			t.Error(err)
		}
		if err := s.Start(t.Context(), "fail.service"); err != nil {
			t.Fatal(err)
		}
		w.end(w.pid(t), 0)
		if st := status(t, s, "fail.service"); st.State != "inactive" {
			t.Errorf("after success: %+v", st)
		}
		if err := s.Start(t.Context(), "fail.service"); err != nil {
			t.Fatal(err)
		}
		w.end(w.pid(t), int(syscall.SIGSEGV))
		if st := status(t, s, "fail.service"); st.State != "backoff" || !strings.Contains(st.LastExit, "segmentation") {
			t.Errorf("after a crash: %+v", st)
		}
	})
}

func TestBootStartsWhatIsEnabled(t *testing.T) {
	with(t, map[string]string{
		"a.service": "[Unit]\nAfter=z.service\n[Service]\nExecStart=/a",
		"z.service": "[Service]\nExecStart=/z",
		"o.service": "[Service]\nExecStart=/o",
	}, func(t *testing.T, w *world, s *supervise.Supervisor) {
		for _, u := range []string{"a.service", "z.service", "a.service", "o.service"} {
			if err := s.Enable(u, true); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			if err := s.Enable("o.service", false); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Enable("none.service", true); !fault.Is(err, fault.NotFound) {
			t.Error(err)
		}
		s.Boot(t.Context())
		if d := cmp.Diff([]string{"/z", "/a"}, w.starts); d != "" {
			t.Error(d)
		}
		s.Shutdown(t.Context())
		if len(w.running) != 0 {
			t.Errorf("after shutdown: %v", w.running)
		}
	})
}
