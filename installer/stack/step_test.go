package stack_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"

	"dcos.example/dcos/installer/stack"
)

// What a killed installer was doing is known afterwards, host by host.
func TestStepsOutliveTheProcess(t *testing.T) {
	dir := t.TempDir()
	s, err := stack.Open(dir, stack.Options{Name: "s"})
	if err != nil {
		t.Fatal(err)
	}
	o, err := s.Begin("apply", "test")
	if err != nil {
		t.Fatal(err)
	}
	res := func(name string) *stack.Resource {
		return &stack.Resource{URN: resource.NewURN("s", "p", "", "dcos:host:Node", name), Type: "dcos:host:Node", Inputs: resource.PropertyMap{}}
	}
	a, b := res("a"), res("b")
	for _, r := range []*stack.Resource{a, b} {
		if err := o.Begin(stack.OpCreate, r, "t"); err != nil {
			t.Fatal(err)
		}
	}
	o.Step(stack.OpCreate, a, "write files", false)
	o.Step(stack.OpCreate, b, "write files", false)
	o.Step(stack.OpCreate, b, "write files", true)
	// The process dies here: nobody ends the operation, and its lock is free.
	copied := t.TempDir()
	for _, f := range []string{"journal", "stack.json", "key"} {
		raw, err := os.ReadFile(filepath.Join(dir, f))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(copied, f), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err = stack.Open(copied, stack.Options{Name: "s"})
	if err != nil {
		t.Fatal(err)
	}
	st, err := s.State()
	if err != nil {
		t.Fatal(err)
	}
	p, _ := st.PendingFor(a.URN, "")
	q, _ := st.PendingFor(b.URN, "")
	if p.Step != "write files" || p.StepEnded || q.Step != "write files" || !q.StepEnded {
		t.Errorf("%+v\n%+v", p, q)
	}
	o, err = s.Begin("apply", "test")
	if err != nil {
		t.Fatal(err)
	}
	if p, _ = o.State().PendingFor(a.URN, ""); p.Step != "write files" {
		t.Errorf("after it was folded: %+v", p)
	}
	h, err := s.History()
	if err != nil || len(h) != 1 || len(h[0].Open) != 2 || h[0].Open[1].Step != "write files" || !h[0].Open[1].Ended || h[0].Result != stack.Interrupted {
		t.Errorf("history: %+v, %v", h, err)
	}
	if err := o.End(stack.Failed, nil); err != nil {
		t.Fatal(err)
	}
}

// An update that was taken back leaves no trace in the state, and one in the
// journal.
func TestUndoneUpdate(t *testing.T) {
	dir := t.TempDir()
	s, err := stack.Open(dir, stack.Options{Name: "s"})
	if err != nil {
		t.Fatal(err)
	}
	o, err := s.Begin("apply", "test")
	if err != nil {
		t.Fatal(err)
	}
	r := &stack.Resource{URN: resource.NewURN("s", "p", "", "dcos:host:Node", "a"), ID: "1", Type: "dcos:host:Node",
		Inputs: resource.PropertyMap{"v": resource.NewProperty("old")}, Outputs: resource.PropertyMap{}}
	if err := o.Done(stack.OpRecord, r); err != nil {
		t.Fatal(err)
	}
	changed := *r
	changed.Inputs = resource.PropertyMap{"v": resource.NewProperty("new")}
	if err := o.Begin(stack.OpUpdate, &changed, ""); err != nil {
		t.Fatal(err)
	}
	if err := o.Undone(&changed, "it did not come up"); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "journal"))
	if err != nil || !strings.Contains(string(raw), "it did not come up") {
		t.Errorf("%s, %v", raw, err)
	}
	if err := o.End(stack.Failed, nil); err != nil {
		t.Fatal(err)
	}
	st, err := s.State()
	if err != nil || len(st.Pending()) > 0 || st.Live(r.URN).Inputs["v"].StringValue() != "old" {
		t.Errorf("%+v, %v", st.Live(r.URN), err)
	}
}
