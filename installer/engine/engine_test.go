package engine_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"

	"dcos.example/dcos/installer/engine"
	"dcos.example/dcos/installer/stack"
	"dcos.example/dcos/providers/providertest"
	"dcos.example/dcos/runtime/fault"
)

type m = map[string]any

func TestCreateUpdateReplaceDelete(t *testing.T) {
	f := newFixture(t)
	goals := []engine.Goal{following("b", false, m{"size": 1}, "a"), thing("a", m{"zone": "x"})}
	if got, want := ops(f.preview(goals...)), "create a, create b"; got != want {
		t.Errorf("first plan %q, want %q", got, want)
	}
	f.wantObjects()
	f.apply(goals...)
	f.wantObjects("a", "b")
	if got, want := f.calls(), "create a, create b"; got != want {
		t.Errorf("calls %q, want %q", got, want)
	}

	serial := f.state().Serial
	if p := f.preview(goals...); p.HasChanges() {
		t.Errorf("second plan %s", ops(p))
	}
	f.apply(goals...)
	if got := f.calls(); got != "" || f.state().Serial != serial {
		t.Errorf("second apply called %q, serial %d → %d", got, serial, f.state().Serial)
	}

	goals[0] = following("b", false, m{"size": 2}, "a")
	p := f.preview(goals...)
	if got, want := ops(p), "same a, update b"; got != want {
		t.Errorf("plan %q, want %q", got, want)
	}
	if d := cmp.Diff([]engine.Change{{Path: "size", Old: "1", New: "2"}}, p.Steps[1].Changes); d != "" {
		t.Error(d)
	}
	f.apply(goals...)
	if got, want := f.calls(), "update b"; got != want {
		t.Errorf("calls %q, want %q", got, want)
	}

	goals[1] = thing("a", m{"zone": "y"})
	p = f.preview(goals...)
	if got, want := ops(p), "replace a, update b"; got != want {
		t.Errorf("plan %q, want %q", got, want)
	}
	if c := p.Steps[1].Changes; len(c) != 1 || c[0].New != "[unknown]" {
		t.Errorf("b changes %+v", c)
	}
	f.apply(goals...)
	if got, want := f.calls(), "create a, update b, delete a"; got != want {
		t.Errorf("calls %q, want %q", got, want)
	}
	f.wantObjects("a", "b")

	r := f.apply(thing("a", m{"zone": "y"}))
	f.wantObjects("a")
	if r.Done[engine.OpDelete] != 1 {
		t.Errorf("done %v", r.Done)
	}
	f.calls()
	f.apply(thing("a", m{"zone": "y"}), thing("c", nil, "a"), thing("d", nil, "c"))
	f.calls()
	if _, err := engine.Destroy(context.Background(), f.stack, f.opts); err != nil {
		t.Fatal(err)
	}
	if got, want := f.calls(), "delete d, delete c, delete a"; got != want {
		t.Errorf("calls %q, want %q", got, want)
	}
	if f.wantObjects(); !f.state().Empty() {
		t.Error("state is not empty after destroy")
	}
}

// A slot is deleted before it is replaced, and what depends on it and must be
// replaced with it goes before it; what need not be stays.
func TestDeleteBeforeReplaceTakesDependentsAlong(t *testing.T) {
	f := newFixture(t)
	goals := func(zone string) []engine.Goal {
		return []engine.Goal{
			thing("slot", m{"zone": zone}),
			following("host", true, nil, "slot"),            // address is its zone: replaced
			following("guest", true, nil, "host"),           // replaced with the host
			following("watch", false, nil, "slot", "guest"), // updated
		}
	}
	f.apply(goals("x")...)
	f.calls()
	if err := f.prov.Edit("slot", func(o *providertest.Object) { o.Address = "elsewhere" }); err != nil {
		t.Fatal(err)
	}
	p := f.preview(goals("y")...)
	if got, want := ops(p), "replace slot, replace host, replace guest, update watch"; got != want {
		t.Fatalf("plan %q, want %q", got, want)
	}
	if !p.Steps[1].DeleteFirst || !p.Steps[2].DeleteFirst {
		t.Errorf("host and guest are not deleted first: %+v", p.Steps[1:3])
	}
	r := f.apply(goals("y")...)
	if got, want := f.calls(), "delete guest, delete host, delete slot, create slot, create host, create guest, update watch"; got != want {
		t.Errorf("calls %q\nwant  %q", got, want)
	}
	if d := cmp.Diff(map[engine.Op]int{engine.OpReplace: 3, engine.OpUpdate: 1}, r.Done); d != "" {
		t.Error(d)
	}
	f.wantObjects("guest", "host", "slot", "watch")
}

func TestPartialFailureKeepsIndependentBranches(t *testing.T) {
	f := newFixture(t)
	goals := []engine.Goal{
		thing("a", nil), thing("b", nil, "a"), thing("c", nil, "b"), thing("x", nil), thing("y", nil, "x"),
	}
	f.prov.Fail(providertest.OpCreate, "b", providertest.Fault{Err: fault.Newf("create", fault.Exhausted, "no capacity")})
	r, err := f.applyFails(goals...)
	if !fault.Is(err, fault.Exhausted) || !strings.Contains(err.Error(), "1 failed, 1 not tried") ||
		!strings.Contains(err.Error(), "no capacity") {
		t.Errorf("error %v", err)
	}
	f.wantObjects("a", "x", "y")
	want := []engine.Skip{{URN: key("c").URN("s"), Op: engine.OpCreate, Reason: "Thing b failed"}}
	if d := cmp.Diff(want, r.Skipped); d != "" {
		t.Error(d)
	}
	f.calls()
	f.prov.Fail(providertest.OpCreate, "b", providertest.Fault{})
	p := f.preview(goals...)
	if !strings.Contains(p.Steps[1].Reason, "an earlier create failed: ") {
		t.Errorf("reason %q", p.Steps[1].Reason)
	}
	f.apply(goals...)
	if got, want := f.calls(), "create b, create c"; got != want {
		t.Errorf("calls %q, want %q", got, want)
	}
}

// A create that made something and then failed keeps it, and the next apply
// finishes it in place; so does one whose error came too late.
func TestUnfinishedObjectsAreFinished(t *testing.T) {
	boom := errors.New("boom")
	for name, tc := range map[string]struct {
		op     providertest.Op
		fault  providertest.Fault
		left   string
		finish string
	}{
		"partial create": {providertest.OpCreate, providertest.Fault{Err: boom, Partial: true}, "a!", "update a"},
		"late create":    {providertest.OpCreate, providertest.Fault{Err: boom, After: true}, "a", "create a"},
		"panic":          {providertest.OpCreate, providertest.Fault{Panic: true}, "", "create a"},
		"partial update": {providertest.OpUpdate, providertest.Fault{Err: boom, Partial: true}, "a!", "update a"},
		"late update":    {providertest.OpUpdate, providertest.Fault{Err: boom, After: true}, "a", "update a"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			if tc.op == providertest.OpUpdate {
				f.apply(thing("a", m{"size": 1}))
			}
			f.prov.Fail(tc.op, "a", tc.fault)
			f.applyFails(thing("a", m{"size": 2}))
			if tc.left == "" {
				f.wantObjects()
			} else {
				f.wantObjects(tc.left)
			}
			f.prov.Fail(tc.op, "a", providertest.Fault{})
			f.calls()
			f.apply(thing("a", m{"size": 2}))
			f.wantObjects("a")
			if got := f.calls(); got != tc.finish {
				t.Errorf("calls %q, want %q", got, tc.finish)
			}
			if p := f.preview(thing("a", m{"size": 2})); p.HasChanges() {
				t.Errorf("still to do: %s", ops(p))
			}
		})
	}
}

// What a failed create left is cleaned up when it is wanted no more.
func TestLeftoverOfUnwantedCreateIsDeleted(t *testing.T) {
	f := newFixture(t)
	f.prov.Fail(providertest.OpCreate, "a", providertest.Fault{Err: errors.New("boom"), After: true, Times: 1})
	f.prov.Fail(providertest.OpCreate, "b", providertest.Fault{Err: errors.New("boom"), Times: 1})
	f.applyFails(thing("a", nil), thing("b", nil))
	f.wantObjects("a")
	if got, want := ops(f.preview()), "delete a"; got != want {
		t.Errorf("plan %q, want %q", got, want)
	}
	f.apply()
	if f.wantObjects(); !f.state().Empty() {
		t.Errorf("pending: %+v", f.state().Pending())
	}
}

// The same for a replacement that the user takes back after it failed.
func TestLeftoverOfRevertedReplacement(t *testing.T) {
	f := newFixture(t)
	f.apply(thing("a", m{"zone": "x"}))
	f.prov.Fail(providertest.OpCreate, "a", providertest.Fault{Err: errors.New("boom"), After: true, Times: 1})
	f.applyFails(thing("a", m{"zone": "y"}))
	f.wantObjects("a", "a")
	if got, want := ops(f.preview(thing("a", m{"zone": "x"}))), "same a, delete a"; got != want {
		t.Errorf("plan %q, want %q", got, want)
	}
	f.apply(thing("a", m{"zone": "x"}))
	f.wantObjects("a")
	if all, _ := f.prov.World(); all[0].Inputs["zone"] != "x" {
		t.Errorf("the wrong one was deleted: %+v", all)
	}
}

// A deletion that failed leaves nobody knowing what is there: when the resource
// is wanted again it is looked at, not deleted.
func TestFailedDeletionWantedAgain(t *testing.T) {
	for _, gone := range []bool{false, true} {
		f := newFixture(t)
		f.apply(thing("a", m{"size": 1}))
		f.prov.Fail(providertest.OpDelete, "a", providertest.Fault{Err: errors.New("in use"), After: gone, Times: 1})
		f.applyFails()
		f.calls()
		want := "update a"
		if gone {
			want = "create a"
		}
		if got := ops(f.preview(thing("a", m{"size": 1}))); got != want {
			t.Errorf("gone %v: plan %q, want %q", gone, got, want)
		}
		f.apply(thing("a", m{"size": 1}))
		if got := f.calls(); got != want {
			t.Errorf("gone %v: calls %q, want %q", gone, got, want)
		}
		f.wantObjects("a")
	}
}

func TestRefreshFindsAndRepairsDrift(t *testing.T) {
	f := newFixture(t)
	goals := []engine.Goal{thing("slota", m{"size": 1}), thing("slotb", nil), thing("slotc", nil)}
	f.apply(goals...)
	if err := f.prov.Edit("slota", func(o *providertest.Object) { o.Inputs["size"] = 7.0 }); err != nil {
		t.Fatal(err)
	}
	if err := f.prov.Remove("slotb"); err != nil {
		t.Fatal(err)
	}
	if p := f.preview(goals...); p.HasChanges() {
		t.Errorf("without refresh: %s", ops(p))
	}
	f.opts.Refresh = true
	p := f.preview(goals...)
	if got, want := ops(p), "update slota, create slotb, same slotc"; got != want {
		t.Errorf("plan %q, want %q", got, want)
	}
	if p.Steps[0].Reason != "changed outside" || p.Steps[1].Reason != "vanished outside" || len(p.Drift) != 2 || !p.Drift[1].Gone {
		t.Errorf("reasons %q %q, drift %+v", p.Steps[0].Reason, p.Steps[1].Reason, p.Drift)
	}
	f.apply(goals...)
	f.wantObjects("slota", "slotb", "slotc")
	if all, _ := f.prov.World(); all[0].Inputs["size"] != 1.0 {
		t.Errorf("not repaired: %v", all[0].Inputs)
	}
	if p := f.preview(goals...); p.HasChanges() || len(p.Drift) > 0 {
		t.Errorf("after repair: %s %v", ops(p), p.Drift)
	}

	// Refresh alone records and repairs nothing.
	if err := f.prov.Remove("slotc"); err != nil {
		t.Fatal(err)
	}
	r, err := engine.Refresh(context.Background(), f.stack, f.opts)
	if err != nil || len(r.Plan.Drift) != 1 || f.state().Live(key("slotc").URN("s")) != nil {
		t.Errorf("refresh: %v, drift %+v", err, r.Plan.Drift)
	}
	f.opts.Refresh = false
	if got, want := ops(f.preview(goals...)), "same slota, same slotb, create slotc"; got != want {
		t.Errorf("plan %q, want %q", got, want)
	}
}

func TestProtectAndRetain(t *testing.T) {
	f := newFixture(t)
	a, b := thing("a", m{"zone": "x"}), thing("b", nil)
	a.Protect, b.Retain = true, true
	f.apply(a, b)
	for what, goals := range map[string][]engine.Goal{"delete": {b}, "replace (zone changed)": {func() engine.Goal {
		g := thing("a", m{"zone": "y"})
		g.Protect = true
		return g
	}(), b}} {
		_, err := engine.Preview(context.Background(), f.stack, goals, f.opts)
		if !fault.Is(err, fault.Denied) || !strings.Contains(err.Error(), what+" Thing a: it is protected") {
			t.Errorf("%s: %v", what, err)
		}
	}
	f.calls()
	a.Protect = false
	f.apply(a, b) // nothing to do but to remember that
	if p := f.preview(); ops(p) != "forget b, delete a" {
		t.Errorf("plan %q", ops(p))
	}
	f.apply()
	f.wantObjects("b")
	if got, want := f.calls(), "delete a"; got != want {
		t.Errorf("calls %q, want %q", got, want)
	}
}

func TestGoalProblemsAreReportedTogether(t *testing.T) {
	f := newFixture(t)
	_, err := engine.Preview(context.Background(), f.stack, []engine.Goal{
		thing("a", nil, "b"), thing("b", nil, "c"), thing("c", nil, "a"), thing("d", nil, "nowhere"), thing("d", nil),
		{Key: engine.Key{Type: "cloud:x:Y", Name: "e"}}, thing("", nil),
	}, f.opts)
	if !fault.Is(err, fault.Invalid) {
		t.Fatalf("error %v", err)
	}
	for _, want := range []string{"circle: Thing a → Thing b → Thing c → Thing a", "Thing nowhere (test:object:Thing), which is not part",
		"Thing d (test:object:Thing) is wanted twice", `no package "cloud"; known: test`, "is no name for"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in:\n%v", want, err)
		}
	}
	_, err = engine.Preview(context.Background(), f.stack, []engine.Goal{thing("a", m{"bad": 1}), thing("b", m{"bad": 2}),
		{Key: key("c"), Inputs: func(o engine.Outputs) (resource.PropertyMap, error) { o.Get(key("a"), "x"); return nil, nil }}}, f.opts)
	for _, want := range []string{"Thing a: check: bad: is not allowed", "Thing b: check: bad", "without declaring it as a dependency"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in:\n%v", want, err)
		}
	}
	f.wantObjects()
}

func TestSecretsStaySecret(t *testing.T) {
	f := newFixture(t)
	f.prov.Leak = true
	const secret = "correct horse battery"
	g := thing("slotdb", nil)
	g.Inputs = engine.Constant(resource.PropertyMap{"password": resource.MakeSecret(resource.NewProperty(secret)), "size": resource.NewProperty(1.0)})
	user := following("user", false, nil, "slotdb")
	user.Inputs = func(o engine.Outputs) (resource.PropertyMap, error) {
		return resource.PropertyMap{"url": o.Get(key("slotdb"), "url")}, nil
	}
	f.prov.Fail(providertest.OpCreate, "slotx", providertest.Fault{Err: errors.New("cannot log in with " + secret)})
	log := engine.NewLog()
	f.opts.Events = log
	r, err := f.applyFails(g, user, thing("slotx", nil))
	log.Close()
	if strings.Contains(err.Error(), secret) || !strings.Contains(err.Error(), "cannot log in with [secret]") {
		t.Errorf("error %v", err)
	}
	if v := r.Outputs[key("slotdb")]["url"]; !v.IsSecret() || !strings.Contains(v.SecretValue().Element.StringValue(), secret) {
		t.Errorf("url is %v", v)
	}
	for e := range log.Events(context.Background(), 0) {
		if strings.Contains(e.Error+e.Message+e.Step, secret) {
			t.Errorf("event %+v", e)
		}
	}
	for _, goals := range [][]engine.Goal{{g, user}, nil} {
		p := f.preview(goals...)
		path := filepath.Join(f.dir, "stack", "plan")
		if err := p.Save(path); err != nil {
			t.Fatal(err)
		}
	}
	err = filepath.WalkDir(filepath.Join(f.dir, "stack"), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		if strings.Contains(string(raw), secret) {
			t.Errorf("%s holds the secret", path)
		}
		if info, _ := d.Info(); info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	// Read back, it is the same, and drift does not unmask it.
	f.opts.Refresh = true
	f.prov.Fail(providertest.OpCreate, "slotx", providertest.Fault{})
	f.apply(g, user, thing("slotx", nil))
	if p := f.preview(g, user, thing("slotx", nil)); p.HasChanges() || len(p.Drift) > 0 {
		t.Errorf("plan %s, drift %+v", ops(p), p.Drift)
	}
}

func TestSavedPlan(t *testing.T) {
	f := newFixture(t)
	f.opts.ConfigHash = "h1"
	goals := []engine.Goal{thing("slota", m{"size": 1})}
	path := filepath.Join(t.TempDir(), "plan")
	save := func() *engine.Plan {
		t.Helper()
		if err := f.preview(goals...).Save(path); err != nil {
			t.Fatal(err)
		}
		p, err := engine.LoadPlan(path)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	f.opts.Plan = save()
	f.apply(goals...)
	f.wantObjects("slota")
	_, err := f.applyFails(goals...)
	if !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "made on state 0 and the stack is at 1") {
		t.Errorf("stale serial: %v", err)
	}
	f.opts.Plan = save()
	f.opts.ConfigHash = "h2"
	if _, err := f.applyFails(goals...); !strings.Contains(err.Error(), "configuration has changed") {
		t.Errorf("stale configuration: %v", err)
	}
	f.opts.ConfigHash, f.opts.Refresh = "h1", true
	f.opts.Plan = save()
	if err := f.prov.Remove("slota"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.applyFails(goals...); !strings.Contains(err.Error(), "Thing slota: now takes a create") && !strings.Contains(err.Error(), "Slot slota: now takes a create") {
		t.Errorf("world moved: %v", err)
	}
	f.wantObjects()
}

func TestStopDrainsRunningCalls(t *testing.T) {
	f := newFixture(t)
	f.opts.Parallel = 2
	ctx, cancel := context.WithCancel(context.Background())
	f.prov.Hook = func(point string) {
		if point == "create b half" {
			cancel()
		}
	}
	f.prov.Latency = time.Millisecond
	goals := []engine.Goal{thing("a", nil), thing("b", nil, "a"), thing("c", nil, "b"), thing("d", nil, "c")}
	r, err := engine.Apply(ctx, f.stack, goals, f.opts)
	if err == nil || !r.Stopped || !strings.Contains(err.Error(), "stopped by the operator") {
		t.Fatalf("error %v, result %+v", err, r)
	}
	f.wantObjects("a", "b")
	if len(r.Skipped) != 2 || r.Skipped[0].Reason != "stopped before it began" {
		t.Errorf("skipped %+v", r.Skipped)
	}
	if n := len(f.state().Pending()); n != 0 {
		t.Errorf("%d pending", n)
	}
	h, err := f.stack.History()
	if err != nil || len(h) != 1 || h[0].Result != stack.Stopped || h[0].Counts["create"] != 2 {
		t.Errorf("history %+v, %v", h, err)
	}
	f.apply(goals...)
	f.wantObjects("a", "b", "c", "d")
}

// A call that ignores the stop is told to end when the drain is over; its
// object is adopted by the next apply.
func TestDrainIsBounded(t *testing.T) {
	f := newFixture(t)
	f.opts.Drain = time.Millisecond
	f.prov.Latency = time.Hour
	ctx, cancel := context.WithCancel(context.Background())
	log := engine.NewLog()
	f.opts.Events = log
	go func() {
		for e := range log.Events(context.Background(), 0) {
			if e.Kind == engine.EventResourceStart {
				cancel()
			}
		}
	}()
	_, err := engine.Apply(ctx, f.stack, []engine.Goal{thing("a", nil)}, f.opts)
	log.Close()
	if err == nil || len(f.state().Pending()) != 1 {
		t.Fatalf("error %v, pending %+v", err, f.state().Pending())
	}
	f.prov.Latency, f.opts.Events = 0, nil
	f.apply(thing("a", nil))
	f.wantObjects("a")
}

func TestParallelLimit(t *testing.T) {
	f := newFixture(t)
	f.opts.Parallel = 3
	f.prov.Latency = 2 * time.Millisecond
	var goals []engine.Goal
	for _, n := range strings.Split("abcdefghijkl", "") {
		goals = append(goals, thing(n, nil))
	}
	f.apply(goals...)
	if p := f.prov.Peak(); p > 3 {
		t.Errorf("%d calls at once, limit 3", p)
	}
}

func TestTimeout(t *testing.T) {
	f := newFixture(t)
	f.prov.Latency = time.Hour
	g := thing("a", nil)
	g.Timeouts.Create = 0.01
	if _, err := f.applyFails(g); !strings.Contains(err.Error(), "deadline exceeded") {
		t.Errorf("error %v", err)
	}
}

func TestIgnoreChanges(t *testing.T) {
	f := newFixture(t)
	f.apply(thing("a", m{"image": "1"}))
	g := thing("a", m{"image": "2"})
	g.IgnoreChanges = []string{"image"}
	if p := f.preview(g); p.HasChanges() {
		t.Errorf("plan %s", ops(p))
	}
}

// A dependency whose update returns something the preview did not foresee makes
// its dependents follow in the same apply, but never be replaced unplanned.
func TestUnforeseenOutputs(t *testing.T) {
	for _, replace := range []bool{false, true} {
		f := newFixture(t)
		goals := func(size int) []engine.Goal {
			return []engine.Goal{thing("slot", m{"size": size}), following("dep", replace, nil, "slot")}
		}
		f.apply(goals(1)...)
		if err := f.prov.Edit("slot", func(o *providertest.Object) { o.Address = "moved" }); err != nil {
			t.Fatal(err)
		}
		if got, want := ops(f.preview(goals(2)...)), "update slot, same dep"; got != want {
			t.Fatalf("plan %q, want %q", got, want)
		}
		f.calls()
		r, err := engine.Apply(context.Background(), f.stack, goals(2), f.opts)
		if !replace {
			if got, want := f.calls(), "update slot, update dep"; err != nil || got != want || r.Done[engine.OpUpdate] != 2 {
				t.Errorf("calls %q, want %q (%v, %v)", got, want, err, r.Done)
			}
			continue
		}
		if !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "planned: same; now that its dependencies are in place it takes a replace") {
			t.Errorf("error %v", err)
		}
		f.apply(goals(2)...) // known now, so planned now
		f.wantObjects("dep", "slot")
	}
}

func TestEvents(t *testing.T) {
	f := newFixture(t)
	log := engine.NewLog()
	f.opts.Events, f.opts.Parallel = log, 1
	f.prov.Fail(providertest.OpCreate, "b", providertest.Fault{Err: errors.New("boom")})
	f.applyFails(thing("a", nil), thing("b", nil, "a"), thing("c", nil, "b"))
	log.Close()
	read := func(from int) (out []string) {
		for e := range log.Events(context.Background(), from) {
			out = append(out, strings.TrimSpace(strings.Join([]string{string(e.Kind), e.Name, e.Step, strings.Join(e.Waiting, "+")}, " ")))
		}
		return out
	}
	want := []string{
		"start", "plan", "waiting a", "waiting b  Thing a", "waiting c  Thing b",
		"resource-start a", "step-start a allocate", "step-end a allocate", "step-start a finish", "step-end a finish", "resource-end a",
		"resource-start b", "resource-end b", "skipped c", "end",
	}
	got := read(0)
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if !slices.Equal(read(7), got[7:]) {
		t.Error("a late reader sees another stream")
	}
}

func TestLockedStack(t *testing.T) {
	f := newFixture(t)
	op, err := f.stack.Begin("apply", "dcos-install apply")
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.applyFails(thing("a", nil))
	var locked *stack.LockedError
	if !fault.Is(err, fault.Conflict) || !errors.As(err, &locked) || locked.Holder.PID != os.Getpid() ||
		!strings.Contains(err.Error(), `locked by "dcos-install apply" of `) {
		t.Errorf("error %v", err)
	}
	f.preview(thing("a", nil)) // needs no lock
	if err := op.End(stack.Succeeded, nil); err != nil {
		t.Fatal(err)
	}
	f.apply(thing("a", nil))
}

// An object whose deletion is outstanding goes before one of the same name is
// made: with names for IDs the deletion would otherwise hit the new one.
func TestOutstandingDeletionComesFirst(t *testing.T) {
	f := newFixture(t)
	f.prov.Fail(providertest.OpCreate, "slot", providertest.Fault{Err: errors.New("lost"), After: true})
	f.applyFails(thing("slot", nil))
	f.prov.Fail(providertest.OpDelete, "slot", providertest.Fault{Err: errors.New("busy")})
	f.applyFails()
	f.prov.Fail(providertest.OpDelete, "slot", providertest.Fault{})
	f.prov.Fail(providertest.OpCreate, "slot", providertest.Fault{})
	if doomed := f.state().Doomed(); len(doomed) != 1 {
		t.Fatalf("doomed %v", doomed)
	}
	f.apply(thing("slot", nil))
	f.wantObjects("slot")
	if st := f.state(); len(st.Resources()) != 1 || len(st.Doomed()) != 0 {
		t.Errorf("resources %v, doomed %v", st.Resources(), st.Doomed())
	}
}
