package stack_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"

	"dcos.example/dcos/installer/stack"
	"dcos.example/dcos/runtime/fault"
)

func open(t testing.TB, dir string, o stack.Options) *stack.Stack {
	t.Helper()
	if o.Name == "" {
		o.Name = "s"
	}
	s, err := stack.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func begin(t testing.TB, s *stack.Stack) *stack.Operation {
	t.Helper()
	op, err := s.Begin("apply", "test")
	if err != nil {
		t.Fatal(err)
	}
	return op
}

func state(t testing.TB, s *stack.Stack) *stack.State {
	t.Helper()
	st, err := s.State()
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func res(name, id string, in resource.PropertyMap) *stack.Resource {
	return &stack.Resource{URN: resource.URN("urn:pulumi:s::dcos::t:m:T::" + name), ID: resource.ID(id), Type: "t:m:T",
		Inputs: in, Outputs: resource.PropertyMap{"id": resource.NewProperty(id)}}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestRoundTrip(t *testing.T) {
	dir := memoryDir(t)
	s := open(t, dir, stack.Options{})
	in := resource.PropertyMap{
		"s": resource.NewProperty("text"), "n": resource.NewProperty(1.5), "b": resource.NewProperty(true), "null": resource.NewNullProperty(),
		"list":   resource.NewProperty([]resource.PropertyValue{resource.NewProperty("x"), resource.MakeSecret(resource.NewProperty("inner"))}),
		"secret": resource.MakeSecret(resource.NewProperty(resource.PropertyMap{"k": resource.NewProperty("hidden text")})),
	}
	a := res("a", "1", in)
	a.Protect, a.Retain, a.InitErrors = true, true, []string{"half"}
	a.Dependencies = []resource.URN{"urn:pulumi:s::dcos::t:m:T::z"}
	a.SecretOutputs = []resource.PropertyKey{"k"}
	a.Timeouts.Create = 3
	op := begin(t, s)
	must(t, op.Begin(stack.OpCreate, a, "tok"))
	must(t, op.Done(stack.OpCreate, a))
	must(t, op.Begin(stack.OpCreate, res("b", "", in), "tok2"))
	must(t, op.Failed(stack.OpCreate, res("b", "", nil), "no luck"))
	check := func(st *stack.State) {
		t.Helper()
		if d := cmp.Diff(a, st.Live(a.URN)); d != "" {
			t.Error(d)
		}
		p, ok := st.PendingFor(res("b", "", nil).URN, "")
		if !ok || p.Token != "tok2" || p.Error != "no luck" || !p.Inputs.DeepEquals(in) {
			t.Errorf("pending %+v", p)
		}
		if st.Serial != 1 {
			t.Errorf("serial %d", st.Serial)
		}
	}
	check(state(t, s)) // from the journal
	must(t, op.End(stack.Failed, map[string]int{"create": 1}))
	check(state(t, open(t, dir, stack.Options{}))) // from the file
	raw, err := os.ReadFile(filepath.Join(dir, "state.json"))
	if must(t, err); strings.Contains(string(raw), "hidden") || strings.Contains(string(raw), "inner") {
		t.Error("state.json holds a secret in clear")
	}
	if err := op.Done(stack.OpDelete, a); err == nil {
		t.Error("an operation that has ended takes an entry")
	}
	h, err := s.History()
	if err != nil || len(h) != 1 || h[0].Result != stack.Failed || h[0].Serial != 1 || h[0].Counts["create"] != 1 || h[0].End.Before(h[0].Start) {
		t.Errorf("history %+v %v", h, err)
	}
	for _, f := range []string{"state.json", "stack.json", "key", "history.jsonl", "lock"} {
		if fi, err := os.Stat(filepath.Join(dir, f)); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", f, err, fi)
		}
	}
	if fi, _ := os.Stat(dir); fi.Mode().Perm() != 0o700 {
		t.Errorf("directory has mode %v", fi.Mode())
	}
}

func TestNothingChangedNothingWritten(t *testing.T) {
	dir := memoryDir(t)
	s := open(t, dir, stack.Options{})
	op := begin(t, s)
	must(t, op.End(stack.Succeeded, nil))
	if err := op.Done(stack.OpRecord, res("a", "1", nil)); err == nil {
		t.Error("an operation that has ended takes an entry")
	}
	if _, err := os.Stat(filepath.Join(dir, "state.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("state.json: %v", err)
	}
	if h, err := s.History(); err != nil || len(h) != 1 {
		t.Errorf("history %v %v", h, err)
	}
}

// A journal cut off at any byte is the journal up to some entry.
func TestJournalCutAnywhere(t *testing.T) {
	dir := memoryDir(t)
	s := open(t, dir, stack.Options{})
	op := begin(t, s)
	a, b := res("a", "1", nil), res("b", "2", nil)
	b.Dependencies = []resource.URN{a.URN}
	states := []*stack.State{stateOf(op)}
	for _, step := range []func() error{
		func() error { return op.Begin(stack.OpCreate, a, "t1") },
		func() error { return op.Done(stack.OpCreate, a) },
		func() error { return op.Begin(stack.OpCreate, b, "t2") },
		func() error { return op.Done(stack.OpCreate, b) },
		func() error { return op.Begin(stack.OpDelete, b, "") },
		func() error { return op.Done(stack.OpDelete, b) },
	} {
		must(t, step())
		states = append(states, stateOf(op))
	}
	path := filepath.Join(dir, "journal")
	raw, err := os.ReadFile(path)
	must(t, err)
	lines := strings.SplitAfter(string(raw), "\n")
	for n := range len(raw) + 1 {
		must(t, os.WriteFile(path, raw[:n], 0o600))
		whole := strings.Count(string(raw[:n]), "\n")
		got := state(t, s)
		want := states[max(whole-1, 0)]
		if d := cmp.Diff(summary(want), summary(got)); d != "" {
			t.Fatalf("cut at %d of %d (%d lines): %s", n, len(raw), whole, d)
		}
	}
	// Damage in the middle is not a crash, and nobody may guess over it.
	must(t, os.WriteFile(path, []byte(lines[0]+"x"+lines[1]+lines[2]), 0o600))
	if _, err := s.State(); !fault.Is(err, fault.Internal) || !strings.Contains(err.Error(), "line 2 is damaged") {
		t.Errorf("error %v", err)
	}
}

func stateOf(op *stack.Operation) *stack.State { return op.State() }

func summary(st *stack.State) map[string]any {
	out := map[string]any{}
	for _, r := range st.Resources() {
		out["live "+string(r.URN)] = string(r.ID)
	}
	for _, r := range st.Doomed() {
		out["doomed "+string(r.URN)] = string(r.ID)
	}
	for _, p := range st.Pending() {
		out["pending "+string(p.URN)+string(p.ID)] = p.Token
	}
	return out
}

// What a killed operation left becomes part of the state of the next one, also
// when it died between writing the state and removing the journal.
func TestRecovery(t *testing.T) {
	for _, point := range []string{"", "state committed", "history written"} {
		t.Run("after "+point, func(t *testing.T) {
			dir := memoryDir(t)
			frozen := filepath.Join(memoryDir(t), "frozen")
			s := open(t, dir, stack.Options{Observe: func(at string) {
				if at == point {
					must(t, os.CopyFS(frozen, os.DirFS(dir)))
				}
			}})
			op := begin(t, s)
			must(t, op.Done(stack.OpCreate, res("a", "1", nil)))
			must(t, op.Begin(stack.OpCreate, res("b", "", nil), "t"))
			if point == "" {
				must(t, os.CopyFS(frozen, os.DirFS(dir)))
			}
			must(t, op.End(stack.Succeeded, nil))

			s = open(t, frozen, stack.Options{})
			want := summary(state(t, s))
			op = begin(t, s)
			if d := cmp.Diff(want, summary(op.State())); d != "" {
				t.Error(d)
			}
			if op.State().Serial != 1 || len(want) != 2 {
				t.Errorf("serial %d, state %v", op.State().Serial, want)
			}
			must(t, op.End(stack.Succeeded, nil))
			h, err := s.History()
			wantResult := stack.Succeeded
			if point == "" {
				wantResult = stack.Interrupted
			}
			if err != nil || len(h) != 2 || h[0].Result != wantResult {
				t.Errorf("history %+v %v", h, err)
			}
			if _, err := os.Stat(filepath.Join(frozen, "journal")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("journal: %v", err)
			}
		})
	}
}

func TestPassphrase(t *testing.T) {
	dir := memoryDir(t)
	s := open(t, dir, stack.Options{Passphrase: "one"})
	op := begin(t, s)
	must(t, op.Done(stack.OpCreate, res("a", "1", resource.PropertyMap{"k": resource.MakeSecret(resource.NewProperty("v"))})))
	must(t, op.End(stack.Succeeded, nil))
	if _, err := os.Stat(filepath.Join(dir, "key")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a key file with a passphrase: %v", err)
	}
	for phrase, want := range map[string]string{"": "set DCOS_PASSPHRASE", "two": "wrong passphrase"} {
		s := open(t, dir, stack.Options{Passphrase: phrase})
		if _, err := s.State(); !fault.Is(err, fault.Denied) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", phrase, err)
		}
		if _, err := s.Begin("apply", ""); !fault.Is(err, fault.Denied) {
			t.Errorf("%q: begin: %v", phrase, err)
		}
	}
	if v := state(t, open(t, dir, stack.Options{Passphrase: "one"})).Resources()[0].Inputs["k"]; v.SecretValue().Element.StringValue() != "v" {
		t.Errorf("read back %v", v)
	}
}

func TestPassphraseFromEnv(t *testing.T) {
	file := filepath.Join(memoryDir(t), "p")
	must(t, os.WriteFile(file, []byte("from file\r\nrest"), 0o600))
	for _, tc := range []struct{ env, file, want string }{{"", "", ""}, {"x", file, "x"}, {"", file, "from file"}} {
		t.Setenv("DCOS_PASSPHRASE", tc.env)
		t.Setenv("DCOS_PASSPHRASE_FILE", tc.file)
		if got, err := stack.PassphraseFromEnv(); err != nil || got != tc.want {
			t.Errorf("%+v: %q %v", tc, got, err)
		}
	}
	t.Setenv("DCOS_PASSPHRASE_FILE", file+".none")
	if _, err := stack.PassphraseFromEnv(); !fault.Is(err, fault.Invalid) {
		t.Errorf("error %v", err)
	}
}

func TestLostKey(t *testing.T) {
	dir := memoryDir(t)
	s := open(t, dir, stack.Options{})
	must(t, os.Remove(filepath.Join(dir, "key")))
	if _, err := s.Begin("apply", ""); !fault.Is(err, fault.Denied) || !strings.Contains(err.Error(), "cannot be decrypted without it") {
		t.Errorf("error %v", err)
	}
}

func TestNames(t *testing.T) {
	dir := memoryDir(t)
	open(t, dir, stack.Options{Name: "prod"})
	s, err := stack.Open(dir, stack.Options{})
	if must(t, err); s.Name() != "prod" {
		t.Errorf("name %q", s.Name())
	}
	for _, name := range []string{"test", "a b", "::"} {
		if _, err := stack.Open(dir, stack.Options{Name: name}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestUnknownValuesAreRefused(t *testing.T) {
	s := open(t, memoryDir(t), stack.Options{})
	op := begin(t, s)
	r := res("a", "1", resource.PropertyMap{"k": resource.MakeComputed(resource.NewProperty(""))})
	if err := op.Done(stack.OpCreate, r); err == nil || !strings.Contains(err.Error(), "k: a value of type") {
		t.Errorf("error %v", err)
	}
	must(t, op.End(stack.Failed, nil))
}

func TestBackupsAreKeptAndBounded(t *testing.T) {
	dir := memoryDir(t)
	s := open(t, dir, stack.Options{})
	for range 13 {
		op := begin(t, s)
		must(t, op.Done(stack.OpCreate, res("a", "1", nil)))
		must(t, op.End(stack.Succeeded, nil))
	}
	files, err := filepath.Glob(filepath.Join(dir, "backup", "*"))
	if err != nil || len(files) != 10 {
		t.Errorf("%d backups, %v", len(files), err)
	}
}

// Entries that arrive together share an fsync.
func TestGroupCommit(t *testing.T) {
	syncs := 0
	release := make(chan struct{})
	s := open(t, memoryDir(t), stack.Options{Observe: func(point string) {
		if point == "journal queued" {
			if syncs++; syncs == 1 {
				<-release // until all the others have queued
			}
		}
	}})
	op := begin(t, s)
	const n = 50
	var wg, queued sync.WaitGroup
	for i := range n {
		queued.Add(1)
		wg.Go(func() {
			r := res(string(rune('A'+i)), "1", nil)
			queued.Done()
			if err := op.Done(stack.OpRecord, r); err != nil {
				t.Error(err)
			}
		})
	}
	queued.Wait()
	for len(op.State().Resources()) < n { // folded when queued
		runtime.Gosched()
	}
	close(release)
	wg.Wait()
	if syncs != 2 {
		t.Errorf("%d fsyncs for %d entries, want 2", syncs, n)
	}
	must(t, op.End(stack.Succeeded, nil))
}

// memoryDir is a temporary directory that is in memory where that is possible:
// nobody pulls the plug here, so fsync costs time and shows nothing.
func memoryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "stack-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
