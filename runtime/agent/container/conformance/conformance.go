// Package conformance says what the agent relies on in a container driver.
// Every driver's tests run it. The image it is given has tiny, the test program
// of containerdtest, as its entrypoint and a user app with uid 1234.
package conformance

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"dcos.example/dcos/runtime/agent/container"
	"dcos.example/dcos/runtime/fault"
)

type execer interface {
	Exec(ctx context.Context, id string, c container.Command) (container.Process, error)
}

// Run runs the suite against a driver.
func Run(t *testing.T, d container.Driver, image string) {
	s := suite{d, image}
	for _, c := range []struct {
		name string
		f    func(*testing.T, suite)
	}{
		{"command of the image", testDefaults},
		{"arguments", testArguments},
		{"environment, user, directory, host name", testIdentity},
		{"exit statuses", testExits},
		{"two log files", testLogs},
		{"mounts", testMounts},
		{"memory limit", testMemory},
		{"CPU quota", testQuota},
		{"process limit", testPids},
		{"signals", testSignals},
		{"remove kills", testRemove},
		{"list", testList},
		{"wait again and late", testWaitAgain},
		{"refusals leave nothing", testRefusals},
		{"command on the host's root", testHost},
		{"further processes", testExec},
		{"two of one id", testTwice},
	} {
		t.Run(c.name, func(t *testing.T) { c.f(t, s) })
	}
}

type suite struct {
	d     container.Driver
	image string
}

// spec returns a container that runs tiny with args and logs to a directory
// of the test.
func (s suite) spec(t *testing.T, args ...string) container.Spec {
	t.Helper()
	dir := t.TempDir()
	out, errs := filepath.Join(dir, "stdout"), filepath.Join(dir, "stderr")
	for _, f := range []string{out, errs} {
		if err := os.WriteFile(f, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return container.Spec{ID: uuid.NewString(), Image: s.image, Cmd: args, Stdout: out, Stderr: errs, Labels: map[string]string{"test": "yes"}}
}

func (s suite) start(t *testing.T, sp container.Spec) container.Running {
	t.Helper()
	r, err := s.d.Start(t.Context(), sp)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.remove(t, sp.ID) })
	return r
}

func (s suite) remove(t *testing.T, id string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := s.d.Remove(ctx, id); err != nil {
		t.Error(err)
	}
}

func (s suite) wait(t *testing.T, id string) container.Exit {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	e, err := s.d.Wait(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// output runs a container to its end and returns its stdout.
func (s suite) output(t *testing.T, sp container.Spec) string {
	t.Helper()
	s.start(t, sp)
	if e := s.wait(t, sp.ID); e.Code != 0 {
		t.Fatalf("exit %+v, stderr %q", e, read(t, sp.Stderr))
	}
	s.remove(t, sp.ID) // has all output written
	return strings.TrimSpace(read(t, sp.Stdout))
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// until waits for a condition that another process brings about.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func equal(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s is %q, want %q", what, got, want)
	}
}

func testDefaults(t *testing.T, s suite) {
	equal(t, "output", s.output(t, s.spec(t)), "default")
}

func testArguments(t *testing.T, s suite) {
	equal(t, "output with arguments", s.output(t, s.spec(t, "print", "a b", "c")), "a b c")
	sp := s.spec(t, "print over")
	sp.Entrypoint = []string{"/bin/sh", "-c"}
	equal(t, "output with an entrypoint", s.output(t, sp), "over")
}

func testIdentity(t *testing.T, s suite) {
	sp := s.spec(t, "env", "FROM_IMAGE")
	equal(t, "the image's environment", s.output(t, sp), "yes")
	sp = s.spec(t, "env", "FROM_IMAGE")
	sp.Env = []string{"FROM_IMAGE=no"}
	equal(t, "the task's environment", s.output(t, sp), "no")
	sp = s.spec(t, "id")
	sp.User = "app"
	equal(t, "the user", s.output(t, sp), "1234 1234 [77 1234]")
	sp = s.spec(t, "pwd")
	sp.Cwd = "/tmp"
	equal(t, "the directory", s.output(t, sp), "/tmp")
	sp = s.spec(t, "hostname")
	sp.Hostname = "inside"
	equal(t, "the host name", s.output(t, sp), "inside")
}

func testExits(t *testing.T, s suite) {
	for _, c := range []struct {
		args []string
		want container.Exit
	}{
		{[]string{"exit", "0"}, container.Exit{}},
		{[]string{"exit", "7"}, container.Exit{Code: 7}},
		{[]string{"kill", "9"}, container.Exit{Code: 137, Signal: syscall.SIGKILL}},
	} {
		sp := s.spec(t, c.args...)
		if c.args[0] == "kill" { // the first process of a pid namespace cannot kill itself
			sp = s.spec(t, "sleep", "60")
		}
		s.start(t, sp)
		if c.args[0] == "kill" {
			if err := s.d.Signal(t.Context(), sp.ID, syscall.SIGKILL, false); err != nil {
				t.Fatal(err)
			}
		}
		got := s.wait(t, sp.ID)
		if got.At.IsZero() {
			t.Error("the exit has no time")
		}
		got.At = time.Time{}
		if got != c.want {
			t.Errorf("%v: exit %+v, want %+v", c.args, got, c.want)
		}
	}
}

func testLogs(t *testing.T, s suite) {
	sp := s.spec(t, "complain", "oh")
	if err := os.WriteFile(sp.Stderr, []byte("before\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	equal(t, "stdout", s.output(t, sp), "")
	equal(t, "stderr", read(t, sp.Stderr), "before\noh\n")
}

func testMounts(t *testing.T, s suite) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "in"), []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	sp := s.spec(t, "cat", "/data/in")
	sp.Mounts = []container.Mount{{Source: dir, Target: "/data", ReadOnly: true}}
	equal(t, "a mounted file", s.output(t, sp), "hello")
	sp = s.spec(t, "write", "/data/out", "x")
	sp.Mounts = []container.Mount{{Source: dir, Target: "/data", ReadOnly: true}}
	s.start(t, sp)
	if e := s.wait(t, sp.ID); e.Code == 0 {
		t.Error("wrote to a read-only mount")
	}
	sp = s.spec(t, "write", "/data/out", "x")
	sp.Mounts = []container.Mount{{Source: dir, Target: "/data"}}
	s.output(t, sp)
	equal(t, "the written file", read(t, filepath.Join(dir, "out")), "x")
}

func testMemory(t *testing.T, s suite) {
	sp := s.spec(t, "eat", "200")
	sp.Limits.Memory = 64 << 20
	s.start(t, sp)
	if e := s.wait(t, sp.ID); !e.OOM || e.Signal != syscall.SIGKILL {
		t.Errorf("exit %+v, want an OOM kill", e)
	}
	sp = s.spec(t, "eat", "10")
	sp.Limits.Memory = 64 << 20
	equal(t, "what fits", s.output(t, sp), "10")
}

func testQuota(t *testing.T, s suite) {
	sp := s.spec(t, "spin", "2")
	sp.Limits.CPUs, sp.Limits.CPUQuota = 0.2, 0.2
	var ms int
	if _, err := fmt.Sscan(s.output(t, sp), &ms); err != nil {
		t.Fatal(err)
	}
	// 0.2 CPUs for 2 s are 400 ms; what it got before the quota was set and a
	// busy machine blur that, a full CPU would be 2,000.
	if ms > 900 {
		t.Errorf("used %d ms of CPU in 2 s under a quota of 0.2", ms)
	}
}

func testPids(t *testing.T, s suite) {
	sp := s.spec(t, "fork", "200")
	sp.Limits.Pids = 50
	s.start(t, sp)
	if e := s.wait(t, sp.ID); e.Code == 0 {
		t.Error("made 200 threads under a limit of 50")
	}
}

func testSignals(t *testing.T, s suite) {
	for _, all := range []bool{false, true} {
		sp := s.spec(t, "graceful")
		s.start(t, sp)
		until(t, "the program is ready", func() bool { return strings.Contains(read(t, sp.Stdout), "ready") })
		if err := s.d.Signal(t.Context(), sp.ID, syscall.SIGTERM, all); err != nil {
			t.Fatal(err)
		}
		if e := s.wait(t, sp.ID); e.Code != 0 {
			t.Errorf("all=%t: exit %+v, want 0", all, e)
		}
		if err := s.d.Signal(t.Context(), sp.ID, syscall.SIGTERM, all); err != nil {
			t.Errorf("all=%t: a signal to what has ended: %v", all, err)
		}
	}
	deaf := s.spec(t, "deaf") // the first process of a namespace, and ends all the same
	s.start(t, deaf)
	until(t, "the program is ready", func() bool { return strings.Contains(read(t, deaf.Stdout), "ready") })
	if err := s.d.Signal(t.Context(), deaf.ID, syscall.SIGTERM, false); err != nil {
		t.Fatal(err)
	}
	if e := s.wait(t, deaf.ID); e.Signal != syscall.SIGKILL {
		t.Errorf("exit %+v, want killed", e)
	}
	sp := s.spec(t, "ignore")
	s.start(t, sp)
	until(t, "the program is ready", func() bool { return strings.Contains(read(t, sp.Stdout), "ready") })
	if err := s.d.Signal(t.Context(), sp.ID, syscall.SIGKILL, true); err != nil {
		t.Fatal(err)
	}
	if e := s.wait(t, sp.ID); e.Signal != syscall.SIGKILL || e.OOM {
		t.Errorf("exit %+v, want killed", e)
	}
}

func testRemove(t *testing.T, s suite) {
	sp := s.spec(t, "ignore")
	r := s.start(t, sp)
	s.remove(t, sp.ID)
	if err := syscall.Kill(r.PID, 0); err != syscall.ESRCH {
		t.Errorf("process %d is still there: %v", r.PID, err)
	}
	s.remove(t, sp.ID)
	if _, err := s.d.Wait(t.Context(), sp.ID); !fault.Is(err, fault.NotFound) {
		t.Errorf("wait for a removed container: %v, want not found", err)
	}
}

func testList(t *testing.T, s suite) {
	live, done := s.spec(t, "sleep", "60"), s.spec(t, "exit", "3")
	pid := s.start(t, live).PID
	s.start(t, done)
	s.wait(t, done.ID)
	list, err := s.d.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	find := func(id string) container.Running {
		i := slices.IndexFunc(list, func(r container.Running) bool { return r.ID == id })
		if i < 0 {
			t.Fatalf("%s is not in %v", id, list)
		}
		return list[i]
	}
	if r := find(live.ID); r.PID != pid || r.Labels["test"] != "yes" || r.Started.IsZero() {
		t.Errorf("the running container is %+v, want pid %d and its labels", r, pid)
	}
	if r := find(done.ID); r.PID != 0 {
		t.Errorf("the ended container has pid %d", r.PID)
	}
}

func testWaitAgain(t *testing.T, s suite) {
	sp := s.spec(t, "exit", "5")
	s.start(t, sp)
	for range 3 {
		if e := s.wait(t, sp.ID); e.Code != 5 {
			t.Fatalf("exit %+v, want 5", e)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	long := s.spec(t, "sleep", "60")
	s.start(t, long)
	if _, err := s.d.Wait(ctx, long.ID); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a wait that was given up: %v, want unavailable", err)
	}
}

func testRefusals(t *testing.T, s suite) {
	missing := s.spec(t)
	missing.Entrypoint = []string{"/no/such/program"}
	stranger := s.spec(t)
	stranger.User = "nobody-knows"
	noNet := s.spec(t)
	noNet.Netns = "/run/netns/does-not-exist"
	for what, sp := range map[string]container.Spec{"a missing program": missing, "an unknown user": stranger, "a missing network": noNet} {
		if _, err := s.d.Start(t.Context(), sp); err == nil {
			t.Errorf("%s: started", what)
		}
		list, err := s.d.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(list, func(r container.Running) bool { return r.ID == sp.ID }) {
			t.Errorf("%s: the container is still listed", what)
		}
	}
}

func testHost(t *testing.T, s suite) {
	dir := t.TempDir()
	sp := s.spec(t)
	sp.Image, sp.Entrypoint, sp.Cmd = "", []string{"/bin/sh", "-c"}, []string{"pwd; echo $GREETING; echo x > made; kill -TERM $$"}
	sp.Cwd, sp.Env = dir, []string{"GREETING=hi"}
	sp.Mounts = []container.Mount{{Source: dir, Target: dir}}
	sp.Limits = container.Limits{CPUs: 0.5, Memory: 64 << 20, Pids: 50}
	s.start(t, sp)
	if e := s.wait(t, sp.ID); e.Signal != syscall.SIGTERM {
		t.Errorf("exit %+v, want terminated; stderr %q", e, read(t, sp.Stderr))
	}
	s.remove(t, sp.ID)
	equal(t, "stdout", read(t, sp.Stdout), dir+"\nhi\n")
	equal(t, "the file", read(t, filepath.Join(dir, "made")), "x\n")

	tree := s.spec(t)
	tree.Image, tree.Entrypoint, tree.Cmd = "", []string{"/bin/sh", "-c"}, []string{"sleep 1000 & echo $!; wait"}
	s.start(t, tree)
	var child int
	until(t, "the child runs", func() bool { n, _ := fmt.Sscan(read(t, tree.Stdout), &child); return n == 1 })
	if err := s.d.Signal(t.Context(), tree.ID, syscall.SIGKILL, true); err != nil {
		t.Fatal(err)
	}
	s.wait(t, tree.ID)
	until(t, "the child is gone", func() bool { return syscall.Kill(child, 0) == syscall.ESRCH })
}

func testExec(t *testing.T, s suite) {
	d, ok := s.d.(execer)
	if !ok {
		t.Fatal("the driver runs no further processes")
	}
	sp := s.spec(t, "sleep", "60")
	s.start(t, sp)
	run := func(c container.Command) (string, int) {
		t.Helper()
		var out bytes.Buffer
		c.Stdout = &out
		p, err := d.Exec(t.Context(), sp.ID, c)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		code, err := p.Wait(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
		return strings.TrimSpace(out.String()), code
	}
	if out, code := run(container.Command{Args: []string{"/tiny", "cat"}, Stdin: strings.NewReader("through")}); out != "through" || code != 0 {
		t.Errorf("cat: %q, %d", out, code)
	}
	if out, _ := run(container.Command{Args: []string{"/tiny", "env", "X"}, Env: []string{"X=1"}}); out != "1" {
		t.Errorf("environment: %q", out)
	}
	if out, _ := run(container.Command{Args: []string{"/tiny", "print", "tty"}, TTY: true, Rows: 24, Cols: 80}); out != "tty" {
		t.Errorf("on a terminal: %q", out)
	}
	if _, code := run(container.Command{Args: []string{"/tiny", "exit", "9"}}); code != 9 {
		t.Errorf("exit status %d, want 9", code)
	}
	if _, err := d.Exec(t.Context(), sp.ID, container.Command{Args: []string{"/none"}}); err == nil {
		t.Error("a missing program was started")
	}
	if _, err := d.Exec(t.Context(), "no-such", container.Command{Args: []string{"/tiny"}}); !fault.Is(err, fault.NotFound) {
		t.Errorf("in an unknown container: %v, want not found", err)
	}
}

func testTwice(t *testing.T, s suite) {
	sp := s.spec(t, "sleep", "60")
	s.start(t, sp)
	if _, err := s.d.Start(t.Context(), sp); !fault.Is(err, fault.Exists) {
		t.Errorf("a second start: %v, want exists", err)
	}
	if e, err := s.d.List(t.Context()); err != nil || !slices.ContainsFunc(e, func(r container.Running) bool { return r.ID == sp.ID && r.PID != 0 }) {
		t.Errorf("the first container is gone: %v %v", e, err)
	}
}
