package engine_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"

	"dcos.example/dcos/installer/engine"
	"dcos.example/dcos/providers/providertest"
)

// benchGoals is a cluster of n resources: machines, each with a network and a
// security group in common, and host steps that use the machine's address.
func benchGoals(n int) []engine.Goal {
	goals := []engine.Goal{thing("net", m{"zone": "x"}), thing("group", m{"rules": []any{"a", "b"}}, "net")}
	for i := 0; len(goals) < n; i++ {
		name := fmt.Sprintf("m%d", i/2)
		if i%2 == 0 {
			goals = append(goals, thing(name, m{"zone": "x", "image": "i", "type": "large", "tags": m{"cluster": "c", "role": "agent"}}, "net", "group"))
			continue
		}
		g := following("boot-"+name, false, m{"version": "1"}, name)
		goals = append(goals, g)
	}
	return goals[:n]
}

// figures prints the median duration of f over at least five runs, in the form
// that the project's reports collect.
func figures(b *testing.B, name string, f func()) {
	var took []time.Duration
	for b.Loop() {
		start := time.Now()
		f()
		took = append(took, time.Since(start))
	}
	for len(took) < 5 {
		start := time.Now()
		f()
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	ms := float64(took[len(took)/2]) / float64(time.Millisecond)
	b.ReportMetric(ms, "median-ms")
	fmt.Printf("figure %s %.2f ms\n", name, ms)
}

func benchFixture(b *testing.B) *fixture {
	f := newFixture(b)
	f.prov = providertest.New("") // memory: the engine is measured, not the provider
	f.opts.Providers = f.prov.Set()
	f.opts.Parallel = 10
	return f
}

// BenchmarkPreview measures a preview of nothing built yet, of what is built and
// unchanged, and of a change that replaces the network below everything. Bounds:
// 500 resources 100 ms, 2,000 resources 300 ms.
func BenchmarkPreview(b *testing.B) {
	for _, n := range []int{500, 2000} {
		goals := benchGoals(n)
		changed := slices.Clone(goals)
		changed[0] = thing("net", m{"zone": "y"})
		b.Run(fmt.Sprintf("new-%d", n), func(b *testing.B) {
			f := benchFixture(b)
			figures(b, fmt.Sprintf("plan%d_ms", n), func() { f.preview(goals...) })
		})
		b.Run(fmt.Sprintf("same-%d", n), func(b *testing.B) {
			f := benchFixture(b)
			f.apply(goals...)
			figures(b, fmt.Sprintf("plan%d_same_ms", n), func() { f.preview(goals...) })
		})
		b.Run(fmt.Sprintf("replace-%d", n), func(b *testing.B) {
			f := benchFixture(b)
			f.apply(goals...)
			figures(b, fmt.Sprintf("plan%d_replace_ms", n), func() { f.preview(changed...) })
		})
	}
}

// BenchmarkApply measures an apply with nothing to do, and one that makes and
// one that removes everything, with real fsyncs.
func BenchmarkApply(b *testing.B) {
	for _, n := range []int{500, 2000} {
		goals := benchGoals(n)
		b.Run(fmt.Sprintf("noop-%d", n), func(b *testing.B) {
			f := benchFixture(b)
			f.apply(goals...)
			figures(b, fmt.Sprintf("apply%d_noop_ms", n), func() { f.apply(goals...) })
		})
		b.Run(fmt.Sprintf("create-%d", n), func(b *testing.B) {
			f := benchFixture(b)
			figures(b, fmt.Sprintf("apply%d_create_destroy_ms", n), func() {
				f.apply(goals...)
				if _, err := engine.Destroy(context.Background(), f.stack, f.opts); err != nil {
					b.Fatal(err)
				}
			})
		})
	}
}

// BenchmarkSecrets measures the preview of 500 resources with a secret each.
func BenchmarkSecrets(b *testing.B) {
	goals := benchGoals(500)
	for i := range goals {
		inner := goals[i].Inputs
		secret := resource.MakeSecret(resource.NewProperty(fmt.Sprintf("password number %d", i)))
		goals[i].Inputs = func(o engine.Outputs) (resource.PropertyMap, error) {
			in, err := inner(o)
			in = in.Copy()
			in["password"] = secret
			return in, err
		}
	}
	f := benchFixture(b)
	f.apply(goals...)
	figures(b, "plan500_secrets_ms", func() { f.preview(goals...) })
}
