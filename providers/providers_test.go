package providers_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"

	"dcos.example/dcos/providers"
	"dcos.example/dcos/runtime/fault"
)

func TestSetFor(t *testing.T) {
	s := providers.Set{"b": nil, "a": nil}
	if _, err := s.For("b:m:T"); err != nil {
		t.Error(err)
	}
	if _, err := s.For("c:m:T"); !fault.Is(err, fault.Invalid) || !strings.HasSuffix(err.Error(), `no package "c"; known: a, b`) {
		t.Errorf("error %v", err)
	}
}

func TestSteps(t *testing.T) {
	var got []providers.Progress
	ctx := providers.WithReporter(context.Background(), func(p providers.Progress) { got = append(got, p) })
	boom := errors.New("boom")
	done := providers.Step(ctx, "start etcd")
	providers.Note(ctx, "start etcd", "waiting for a leader")
	if err := done(boom); err != boom {
		t.Errorf("done returned %v", err)
	}
	want := []providers.Progress{{Step: "start etcd"}, {Step: "start etcd", Message: "waiting for a leader"}, {Step: "start etcd", Done: true, Err: boom}}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v", got)
	}
	if err := providers.Step(context.Background(), "unheard")(nil); err != nil {
		t.Error(err)
	}
}

func TestToken(t *testing.T) {
	if got := providers.Token(context.Background()); got != "" {
		t.Errorf("token %q", got)
	}
	if got := providers.Token(providers.WithToken(context.Background(), "t")); got != "t" {
		t.Errorf("token %q", got)
	}
}

func TestDiffInputs(t *testing.T) {
	old := resource.NewPropertyMapFromMap(map[string]any{"zone": "x", "size": 1, "tags": map[string]any{"a": "b"}})
	with := func(k resource.PropertyKey, v resource.PropertyValue) resource.PropertyMap {
		m := old.Copy()
		m[k] = v
		return m
	}
	for name, tc := range map[string]struct {
		in      resource.PropertyMap
		ignore  []string
		changed []resource.PropertyKey
		replace []resource.PropertyKey
	}{
		"same":            {in: old.Copy()},
		"update":          {in: with("size", resource.NewProperty(2.0)), changed: []resource.PropertyKey{"size"}},
		"replace":         {in: with("zone", resource.NewProperty("y")), changed: []resource.PropertyKey{"zone"}, replace: []resource.PropertyKey{"zone"}},
		"unknown":         {in: with("zone", providers.Unknown()), changed: []resource.PropertyKey{"zone"}, replace: []resource.PropertyKey{"zone"}},
		"unknown inside":  {in: with("tags", resource.NewProperty(resource.PropertyMap{"a": providers.Unknown()})), changed: []resource.PropertyKey{"tags"}},
		"ignored":         {in: with("size", resource.NewProperty(2.0)), ignore: []string{"size"}},
		"secret now":      {in: with("size", resource.MakeSecret(resource.NewProperty(1.0))), changed: []resource.PropertyKey{"size"}},
		"added and added": {in: with("new", resource.NewProperty("z")), changed: []resource.PropertyKey{"new"}},
	} {
		d := providers.DiffInputs(plugin.DiffRequest{OldInputs: old, NewInputs: tc.in, IgnoreChanges: tc.ignore}, "zone")
		if (d.Changes == plugin.DiffSome) != (len(tc.changed) > 0) || !slices.Equal(d.ChangedKeys, tc.changed) || !slices.Equal(d.ReplaceKeys, tc.replace) {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

func TestPartialIsAnInitError(t *testing.T) {
	var ie *plugin.InitError
	if err := providers.Partial(errors.New("a"), errors.New("b")); !errors.As(err, &ie) || !slices.Equal(ie.Reasons, []string{"a", "b"}) {
		t.Errorf("error %#v", err)
	}
}
