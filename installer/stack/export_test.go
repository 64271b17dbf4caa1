package stack_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"

	"dcos.example/dcos/installer/stack"
	"dcos.example/dcos/runtime/fault"
)

// TestExport: another machine has the same state, secrets and history.
func TestExport(t *testing.T) {
	for _, phrase := range []string{"", "correct horse"} {
		here, err := stack.Open(filepath.Join(t.TempDir(), "prod"), stack.Options{Name: "prod", Passphrase: phrase})
		if err != nil {
			t.Fatal(err)
		}
		op, err := here.Begin("apply", "test")
		if err != nil {
			t.Fatal(err)
		}
		res := &stack.Resource{URN: "urn:pulumi:prod::dcos::t:t:T::x", ID: "x", Type: "t:t:T",
			Outputs: resource.PropertyMap{"key": resource.MakeSecret(resource.NewProperty("hidden"))}}
		if err := op.Done(stack.OpCreate, res); err != nil {
			t.Fatal(err)
		}
		if err := op.End(stack.Succeeded, nil); err != nil {
			t.Fatal(err)
		}
		if m, err := here.Kept("source"); m != nil || err != nil {
			t.Errorf("nothing kept: %v, %v", m, err)
		}
		if err := here.Keep("source", resource.PropertyMap{"file": resource.NewProperty("text"), "vars": resource.MakeSecret(resource.NewProperty("hush"))}); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(here.Dir(), "installer.json"), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
		files, err := here.Export("installer.json")
		if err != nil {
			t.Fatal(err)
		}
		for name, b := range files {
			if strings.Contains(string(b), "hush") || strings.Contains(string(b), "hidden") {
				t.Errorf("%s shows a secret", name)
			}
		}
		dir := filepath.Join(t.TempDir(), "elsewhere", "prod")
		if err := stack.Import(dir, files, "installer.json"); err != nil {
			t.Fatal(err)
		}
		if err := stack.Import(dir, files, "installer.json"); !fault.Is(err, fault.Exists) {
			t.Errorf("over another: %v", err)
		}
		there, err := stack.Open(dir, stack.Options{Name: "prod", Passphrase: phrase})
		if err != nil {
			t.Fatal(err)
		}
		st, err := there.State()
		if err != nil {
			t.Fatal(err)
		}
		if got := st.Live(res.URN); got == nil || got.Outputs["key"].SecretValue().Element.StringValue() != "hidden" {
			t.Errorf("the state there: %+v", got)
		}
		kept, err := there.Kept("source")
		if err != nil || kept["vars"].SecretValue().Element.StringValue() != "hush" || kept["file"].StringValue() != "text" {
			t.Errorf("kept there: %v, %v", kept, err)
		}
		if h, err := there.History(); err != nil || len(h) != 1 {
			t.Errorf("history there: %v, %v", h, err)
		}
		if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o700 {
			t.Errorf("mode %v, %v", fi.Mode(), err)
		}
	}
	for name, files := range map[string]map[string][]byte{
		"nothing": {}, "a path": {"state.json": nil, "stack.json": nil, "../x": nil}, "another file": {"state.json": nil, "stack.json": nil, "installer.json": nil},
	} {
		if err := stack.Import(filepath.Join(t.TempDir(), "x"), files); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
