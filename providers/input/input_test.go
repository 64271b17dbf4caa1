package input_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"

	"dcos.example/dcos/providers"
	"dcos.example/dcos/providers/input"
)

func TestReader(t *testing.T) {
	r := input.Read(resource.PropertyMap{
		"name": resource.MakeSecret(resource.NewProperty("n")), "count": resource.NewProperty("many"), "later": providers.Unknown(),
		"empty": resource.NewProperty(""), "colour": resource.NewProperty("red"),
		"host":  resource.NewProperty(resource.PropertyMap{"dir": resource.NewProperty(1.0), "extra": resource.NewProperty(true)}),
		"where": providers.Unknown(),
	})
	if got := r.Text("name"); got != "n" {
		t.Errorf("secret reads as %q", got)
	}
	r.Number("count")
	r.Number("cpus")
	r.Text("later")
	r.Text("empty")
	if r.Bool("absent") || r.OptionalText("absent") != "" || r.List("absent") != nil {
		t.Error("what is not there is something")
	}
	h := r.Object("host")
	h.Text("dir")
	h.Close()
	r.Object("where").Text("inside") // unknown as a whole: nothing is missing
	var got []string
	for _, f := range r.Failures() {
		got = append(got, string(f.Property)+" "+f.Reason)
	}
	want := []string{
		"count must be a number, not string", "cpus is missing", "empty is empty", "host.dir must be a string, not number",
		"host.extra is not a property of this resource", "colour is not a property of this resource",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if !r.Unknown() || !r.Unknown("later") || r.Unknown("name") {
		t.Error("unknown values are not told apart")
	}
}
