package engine_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"

	"dcos.example/dcos/installer/engine"
	"dcos.example/dcos/installer/stack"
	"dcos.example/dcos/providers/providertest"
)

// The environment of the child that kills itself.
const (
	crashDir   = "ENGINE_CRASH_DIR"
	crashPhase = "ENGINE_CRASH_PHASE"
	crashAt    = "ENGINE_CRASH_AT"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		at, err := strconv.ParseInt(os.Getenv(crashAt), 10, 64)
		if err == nil {
			err = crashChild(dir, os.Getenv(crashPhase), at)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// crashGoals are what each phase wants, coming from the phase before. Together
// they have every kind of step: create, update, replace by making the new one
// first and by deleting the old one first with a dependent, delete, and keep.
func crashGoals(phase string) []engine.Goal {
	switch phase {
	case "create":
		return []engine.Goal{
			thing("net", m{"zone": "x"}),
			thing("slot", m{"zone": "x"}, "net"),
			following("guest", true, m{"size": 1}, "slot"),
			following("gone", false, nil, "net"),
		}
	case "change":
		return []engine.Goal{
			thing("net", m{"zone": "y"}),
			thing("slot", m{"zone": "y"}, "net"),
			following("guest", true, m{"size": 2}, "slot"),
			thing("new", nil, "guest"),
		}
	}
	return nil // destroy
}

func crashChild(dir, phase string, at int64) error {
	var n atomic.Int64
	observe := func(string) {
		if n.Add(1) == at {
			// SIGKILL cannot be caught: nothing of this process runs after it.
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	s, err := stack.Open(filepath.Join(dir, "stack"), stack.Options{Name: "s", Observe: observe})
	if err != nil {
		return err
	}
	p := providertest.New(filepath.Join(dir, "world"))
	p.Hook = observe
	_, err = engine.Apply(context.Background(), s, crashGoals(phase), engine.Options{Providers: p.Set(), Parallel: 2})
	return err
}

// runCrash runs the child and reports whether it was killed.
func runCrash(t *testing.T, dir, phase string, at int) bool {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), crashDir+"="+dir, crashPhase+"="+phase, crashAt+"="+strconv.Itoa(at))
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return true
	}
	if err != nil {
		t.Fatalf("%s at %d: %v\n%s", phase, at, err, out)
	}
	return false
}

// TestKillAtEveryPoint kills an apply at every point at which something is
// written or a provider acts, and then goes on, goes back, or destroys. Each
// time the world must hold exactly what is wanted.
func TestKillAtEveryPoint(t *testing.T) {
	prior := map[string]string{"create": "change", "change": "create", "destroy": "change"}
	for _, phase := range []string{"create", "change", "destroy"} {
		t.Run(phase, func(t *testing.T) {
			t.Parallel()
			base := memoryDir(t)
			for _, before := range map[string][]string{"create": nil, "change": {"create"}, "destroy": {"create", "change"}}[phase] {
				resume(t, base, before, "prepare")
			}
			at := 1
			for ; ; at++ {
				dir := filepath.Join(memoryDir(t), "crashed")
				copyDir(t, base, dir)
				if !runCrash(t, dir, phase, at) {
					break
				}
				// On, back (from create: on to something else), and away.
				for _, next := range slices.Compact([]string{phase, prior[phase], "destroy"}) {
					fork := filepath.Join(memoryDir(t), "fork")
					copyDir(t, dir, fork)
					resume(t, fork, next, fmt.Sprintf("%s killed at %d, then %s", phase, at, next))
				}
				if at%5 == 0 { // and once more while it recovers
					runCrash(t, dir, phase, at/2+1)
					resume(t, dir, phase, fmt.Sprintf("%s killed at %d and %d", phase, at, at/2+1))
				}
			}
			if at < 20 {
				t.Errorf("only %d points", at)
			}
			t.Logf("%d points", at-1)
		})
	}
}

func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// resume applies the goals of phase and checks world and state.
func resume(t *testing.T, dir, phase, what string) {
	t.Helper()
	p := providertest.New(filepath.Join(dir, "world"))
	s := openStack(t, dir)
	opts := engine.Options{Providers: p.Set(), Parallel: 2}
	goals := crashGoals(phase)
	planned, err := engine.Preview(context.Background(), s, goals, opts)
	if err != nil {
		t.Fatalf("%s: preview: %v", what, err)
	}
	r, err := engine.Apply(context.Background(), s, goals, opts)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if a, b := ops(planned), ops(r.Plan); a != b {
		t.Fatalf("%s: previewed %q, applied %q", what, a, b)
	}
	objects, err := p.World()
	if err != nil {
		t.Fatal(err)
	}
	st, err := s.State()
	if err != nil {
		t.Fatal(err)
	}
	if len(st.Pending())+len(st.Doomed()) > 0 {
		t.Fatalf("%s: pending %+v, doomed %+v", what, st.Pending(), st.Doomed())
	}
	if len(objects) != len(goals) || len(st.Resources()) != len(goals) {
		t.Fatalf("%s: %d objects, %d resources, want %d\n%+v", what, len(objects), len(st.Resources()), len(goals), objects)
	}
	slices.SortFunc(objects, func(a, b providertest.Object) int { return cmp.Compare(a.URN, b.URN) })
	for i, res := range st.Resources() {
		o := objects[i]
		if o.URN != res.URN || o.ID != res.ID || !o.Complete {
			t.Fatalf("%s: object %+v, recorded %s %s", what, o, res.URN, res.ID)
		}
		if !resource.NewPropertyMapFromMap(o.Inputs).DeepEquals(res.Inputs) {
			t.Fatalf("%s: object %+v has inputs %v, recorded %v", what, o.URN, o.Inputs, res.Inputs)
		}
	}
	if again, err := engine.Preview(context.Background(), s, goals, opts); err != nil || again.HasChanges() {
		t.Fatalf("%s: still to do: %v %v", what, err, again)
	}
}

// memoryDir is a temporary directory that is in memory where that is possible:
// what a killed process wrote is kept by the kernel, so the disk adds nothing
// to these tests but time.
func memoryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "engine-crash-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
