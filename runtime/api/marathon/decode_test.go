package marathon_test

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dcos.example/dcos/runtime/api/marathon"
)

func TestDecodeListsEveryTypeError(t *testing.T) {
	var te *marathon.TypeError
	err := marathon.Decode([]byte(`{
		"id": true, "cpus": "1", "instances": 1.5, "env": {"A": null, "B": {"secret": "s"}, "C": 7}, "labels": [],
		"constraints": [["a", 1]], "unreachableStrategy": "never", "resourceLimits": {"cpus": "lots"},
		"fetch": [{"extract": "yes"}], "unknown": {"is": "ignored"}
	}`), marathon.NewApp())
	if !errors.As(err, &te) {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, d := range te.Details {
		got[d.Path] = d.Errors[0]
	}
	want := map[string]string{
		"/id": "error.expected.jsstring", "/cpus": "error.expected.jsnumber", "/instances": "error.expected.int",
		"/env/A": "error.expected.jsstring", "/env/C": "error.expected.jsstring", "/labels": "error.expected.jsobject",
		"/constraints(0)(1)": "error.expected.jsstring", "/unreachableStrategy": "error.expected.jsobject",
		"/resourceLimits/cpus": "error.expected.jsnumber", "/fetch(0)/uri": "error.path.missing", "/fetch(0)/extract": "error.expected.jsboolean",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestDecodeSyntax(t *testing.T) {
	for _, body := range []string{"", "{", `{"id":"/a"} {}`, "<xml/>"} {
		var se *marathon.SyntaxError
		if err := marathon.Decode([]byte(body), marathon.NewApp()); !errors.As(err, &se) {
			t.Errorf("%q: %v", body, err)
		}
	}
}

func TestUnionsAndDefaults(t *testing.T) {
	a := marathon.NewApp()
	body := `{"id":"/a","env":{"A":"x","B":{"secret":"s"}},"unreachableStrategy":"disabled",
		"resourceLimits":{"cpus":"unlimited","mem":5},"healthChecks":[{}],"networks":[{}],"upgradeStrategy":{"minimumHealthCapacity":0}}`
	if err := marathon.Decode([]byte(body), a); err != nil {
		t.Fatal(err)
	}
	if a.CPUs != 1 || a.Mem != 128 || a.HealthChecks[0].IntervalSeconds != 60 || a.Networks[0].Mode != "container" ||
		a.UpgradeStrategy.MaximumOverCapacity != 1 || !a.UnreachableStrategy.Disabled || !a.ResourceLimits.CPUs.Unlimited {
		t.Errorf("%+v", a)
	}
	b, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	again := marathon.NewApp()
	if err := marathon.Decode(b, again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(a, again); diff != "" {
		t.Error(diff)
	}
}
