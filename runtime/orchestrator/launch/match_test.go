package launch_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"dcos.example/dcos/runtime/api/marathon"
	"dcos.example/dcos/runtime/orchestrator/launch"
	"dcos.example/dcos/runtime/orchestrator/spec"
	"dcos.example/dcos/runtime/placement"
	"dcos.example/dcos/runtime/resource"
)

var settings = launch.Settings{DefaultRoles: []string{"*"}, Random: func(uint64) uint64 { return 0 }}

func app(t testing.TB, fields string) *marathon.App {
	t.Helper()
	a, err := spec.ParseApp([]byte(`{"id":"/a","cmd":"xx","cpus":1,"mem":100,`+fields+`}`), spec.Root, spec.Policy{Role: "slave_public"})
	if err != nil {
		t.Fatal(err)
	}
	spec.Stamp(a, nil, spec.Config, "2020-01-01T00:00:00.000Z")
	return a
}

func offer(n int, res string, attrs ...string) launch.Offer {
	o := launch.Offer{
		ID: fmt.Sprint("o", n), Agent: fmt.Sprint("a", n), Resources: resource.MustParse(res),
		Place: placement.Place{Host: fmt.Sprint("h", n), Attributes: map[string]string{}},
	}
	for _, a := range attrs {
		k, v, _ := strings.Cut(a, "=")
		o.Attributes[k] = v
	}
	return o
}

func place(offers []launch.Offer, a *marathon.App, n int, placed ...placement.Place) (map[string]int, launch.Verdict) {
	ls, vs := launch.Match(offers, []launch.Want{{App: a, Count: n, Placed: placed}}, settings)
	got := map[string]int{}
	for _, l := range ls {
		got[offers[l.Offer].Host]++
	}
	return got, vs[0]
}

func TestConstraints(t *testing.T) {
	racks := []launch.Offer{
		offer(0, "cpus:10;mem:1000;ports:[1-99]", "rack=a"), offer(1, "cpus:10;mem:1000;ports:[1-99]", "rack=a"),
		offer(2, "cpus:10;mem:1000;ports:[1-99]", "rack=b"), offer(3, "cpus:10;mem:1000;ports:[1-99]"),
	}
	on := func(rack string) placement.Place {
		return placement.Place{Host: "x", Attributes: map[string]string{"rack": rack}}
	}
	for name, tc := range map[string]struct {
		constraint string
		n          int
		placed     []placement.Place
		want       map[string]int
	}{
		"none spreads":            {`[]`, 8, nil, map[string]int{"h0": 2, "h1": 2, "h2": 2, "h3": 2}},
		"unique host":             {`[["hostname","UNIQUE"]]`, 8, nil, map[string]int{"h0": 1, "h1": 1, "h2": 1, "h3": 1}},
		"unique rack, one placed": {`[["rack","UNIQUE"]]`, 8, []placement.Place{on("a")}, map[string]int{"h2": 1}},
		"cluster with value":      {`[["rack","CLUSTER","b"]]`, 2, nil, map[string]int{"h2": 2}},
		"cluster follows":         {`[["rack","CLUSTER"]]`, 2, []placement.Place{on("b")}, map[string]int{"h2": 2}},
		"cluster picks one":       {`[["@hostname","CLUSTER"]]`, 3, nil, map[string]int{"h0": 3}},
		"group by":                {`[["rack","GROUP_BY"]]`, 6, nil, map[string]int{"h0": 2, "h1": 1, "h2": 3}},
		"group by, uneven before": {`[["rack","GROUP_BY","2"]]`, 2, []placement.Place{on("a"), on("a")}, map[string]int{"h2": 2}},
		"like":                    {`[["rack","LIKE","[ac]"]]`, 2, nil, map[string]int{"h0": 1, "h1": 1}},
		"unlike takes the bare":   {`[["rack","UNLIKE","a"]]`, 2, nil, map[string]int{"h2": 1, "h3": 1}},
		"max per":                 {`[["rack","MAX_PER","2"]]`, 9, []placement.Place{on("b")}, map[string]int{"h0": 1, "h1": 1, "h2": 1}},
		"is":                      {`[["rack","IS","b"]]`, 1, nil, map[string]int{"h2": 1}},
	} {
		t.Run(name, func(t *testing.T) {
			got, _ := place(racks, app(t, `"constraints":`+tc.constraint), tc.n, tc.placed...)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRolesPortsAndReasons(t *testing.T) {
	public := offer(0, "cpus(slave_public):4;mem(slave_public):1000;ports(slave_public):[80-81]")
	got, v := place([]launch.Offer{public}, app(t, `"instances":1`), 1)
	if len(got) != 0 || v.Refusals[0].Reasons[0] != launch.UnfulfilledRole {
		t.Errorf("%v %v", got, v)
	}
	fixed := app(t, `"acceptedResourceRoles":["slave_public"],"requirePorts":true,"portDefinitions":[{"port":80},{"port":0}]`)
	ls, vs := launch.Match([]launch.Offer{public}, []launch.Want{{App: fixed, Count: 2}}, settings)
	if len(ls) != 1 || !cmp.Equal(ls[0].HostPorts, []int64{80, 81}) {
		t.Fatalf("%+v", ls)
	}
	if vs[0].Used != 1 {
		t.Errorf("%+v", vs)
	}
	full := offer(0, "cpus:0.5;mem:50;ports:[1-1]")
	_, v = place([]launch.Offer{full}, app(t, `"disk":5,"ports":[0,0]`), 1)
	want := []launch.Reason{launch.InsufficientCpus, launch.InsufficientMemory, launch.InsufficientDisk, launch.InsufficientPorts}
	if diff := cmp.Diff(want, v.Refusals[0].Reasons); diff != "" {
		t.Error(diff)
	}
}

// TestMatchNeverOverdraws: whatever is launched on an offer fits in it, no host
// port is given twice, and nothing that fits is left out.
func TestMatchNeverOverdraws(t *testing.T) {
	apps := []*marathon.App{app(t, `"ports":[0]`), app(t, `"ports":[0,0]`), app(t, `"constraints":[["hostname","UNIQUE"]]`), app(t, `"ports":[]`)}
	rapid.Check(t, func(t *rapid.T) {
		var offers []launch.Offer
		for i := range rapid.IntRange(0, 5).Draw(t, "offers") {
			offers = append(offers, offer(i, fmt.Sprintf("cpus:%d;mem:%d;ports:[1-%d]",
				rapid.IntRange(0, 6).Draw(t, "cpus"), rapid.IntRange(0, 600).Draw(t, "mem"), rapid.IntRange(1, 5).Draw(t, "ports"))))
		}
		var wants []launch.Want
		for range rapid.IntRange(1, 3).Draw(t, "wants") {
			wants = append(wants, launch.Want{App: rapid.SampledFrom(apps).Draw(t, "app"), Count: rapid.IntRange(0, 6).Draw(t, "n")})
		}
		set := settings
		set.Random = func(n uint64) uint64 { return rapid.Uint64Range(0, n-1).Draw(t, "port") }
		ls, _ := launch.Match(offers, wants, set)
		left := map[int]resource.Resources{}
		count := map[int]int{}
		ports := map[string]bool{}
		for i, o := range offers {
			left[i] = o.Resources
		}
		for _, l := range ls {
			if !left[l.Offer].Contains(l.Resources) {
				t.Fatalf("offer %d has no %v left", l.Offer, l.Resources)
			}
			left[l.Offer] = left[l.Offer].Sub(l.Resources)
			count[l.Want]++
			for _, p := range l.HostPorts {
				key := fmt.Sprint(l.Offer, ":", p)
				if ports[key] {
					t.Fatalf("port %s twice", key)
				}
				ports[key] = true
			}
		}
		for w, want := range wants {
			if count[w] > want.Count {
				t.Fatalf("want %d: %d launched of %d", w, count[w], want.Count)
			}
			if len(want.App.Constraints) > 0 || count[w] == want.Count {
				continue
			}
			for i := range offers {
				one := launch.Want{App: want.App, Count: 1}
				o := offers[i]
				o.Resources = left[i]
				if more, _ := launch.Match([]launch.Offer{o}, []launch.Want{one}, settings); len(more) > 0 && w == len(wants)-1 {
					t.Fatalf("offer %d would hold one more of want %d", i, w)
				}
			}
		}
	})
}

func TestDelay(t *testing.T) {
	a := app(t, `"backoffSeconds":10,"backoffFactor":2,"maxLaunchDelaySeconds":30`)
	now := time.Unix(1000, 0)
	var d launch.Delay
	for i, want := range []time.Duration{10, 20, 30, 30} {
		if d = d.Failed(a, now); d.Left(a, now) != want*time.Second {
			t.Errorf("after failure %d: %v, want %ds", i+1, d.Left(a, now), want)
		}
	}
	if now = now.Add(31 * time.Second); d.Left(a, now) != 0 {
		t.Error("the delay does not end")
	}
	if d = d.Failed(a, now); d.Left(a, now) != 10*time.Second {
		t.Errorf("not forgotten: %v", d.Left(a, now))
	}
	other := *a
	other.VersionInfo = &marathon.VersionInfo{LastConfigChangeAt: "2021-01-01T00:00:00.000Z"}
	if d.Left(&other, now) != 0 {
		t.Error("another configuration inherits the delay")
	}
}
