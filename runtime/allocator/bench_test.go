package allocator_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"dcos.example/dcos/runtime/allocator"
	"dcos.example/dcos/runtime/resource"
	"dcos.example/dcos/runtime/task"
)

// The benchmarks are those of Mesos' allocator with its parameters. The
// figures of Mesos beside them were measured with the unmodified allocator of
// apache/mesos c1b42f79d on the same kind of machine (2 shared cores, AMD
// EPYC); a cycle there is its CPU time.

const grid = "cpus:24;mem:4096;disk:4096;ports:[31000-32000]"

// fragmented are the 16 single ports that upstream's fragment() makes.
func fragmented() string {
	var parts []string
	for i := range 15 {
		parts = append(parts, fmt.Sprintf("%d-%d", 31000+2*i, 31000+2*i))
	}
	return "ports:[" + strings.Join(append(parts, "31030-32000"), ",") + "]"
}

func cluster(agents, frameworks int, used string) *allocator.Allocator {
	a := allocator.New(allocator.Options{})
	for i := range frameworks {
		a.AddFramework(framework(fmt.Sprintf("f%05d", i), "*"), true)
	}
	total, use := resource.MustParse(grid), resource.MustParse(used).Allocate("*")
	for i := range agents {
		id := task.AgentID(fmt.Sprintf("agent-%05d", i))
		a.AddAgent(allocator.Agent{ID: id, Total: total})
		a.Use(id, task.FrameworkID(fmt.Sprintf("f%05d", i%frameworks)), use)
	}
	return a
}

// figure reports the time of one cycle beside Mesos'.
func figure(b *testing.B, cycle, recover time.Duration, rounds int, mesos string) {
	n := time.Duration(max(1, rounds))
	b.ReportMetric(float64(cycle/n)/1e6, "ms/cycle")
	b.ReportMetric(float64(recover/n)/1e6, "ms/recover")
	b.Logf("figure %s: cycle %.1f ms, taking the offers back %.1f ms; Mesos: cycle %s",
		b.Name(), float64(cycle/n)/1e6, float64(recover/n)/1e6, mesos)
}

func BenchmarkDeclineOffers(b *testing.B) {
	for _, tc := range []struct {
		agents, frameworks, rounds int
		mesos                      string
	}{
		{1000, 50, 12, "34→55 ms"},
		{2000, 2000, 12, "123→198 ms"},
		{10000, 50, 12, "390→680 ms"},
		{10000, 1000, 12, "490→700 ms"},
		{1000, 50, 100, "300 ms when saturated"},
		{10000, 50, 100, "3,600–4,300 ms when saturated"},
	} {
		b.Run(fmt.Sprintf("%dx%dx%d", tc.agents, tc.frameworks, tc.rounds), func(b *testing.B) {
			var cycle, back time.Duration
			var last time.Duration
			var made int
			for b.Loop() {
				a := cluster(tc.agents, tc.frameworks, "cpus:16;mem:2014;disk:1024;"+fragmented())
				now := start
				offers, _ := a.Allocate(now)
				for range tc.rounds {
					t0 := time.Now()
					for _, o := range offers {
						a.Recover(now, o.Agent, o.Framework, o.Resources, allocator.Refusal{For: 365 * 24 * time.Hour, Pass: true})
					}
					t1 := time.Now()
					now = now.Add(time.Second)
					offers, _ = a.Allocate(now)
					last = time.Since(t1)
					cycle, back, made = cycle+last, back+t1.Sub(t0), len(offers)
				}
			}
			figure(b, cycle, back, b.N*tc.rounds, tc.mesos)
			b.Logf("figure %s: last cycle made %d offers in %v", b.Name(), made, last)
		})
	}
}

func BenchmarkSuppressOffers(b *testing.B) {
	for _, tc := range []struct {
		agents, frameworks, upfront int // upfront: percent suppressed before
		mesos                       string
	}{
		{1000, 100, 0, "29 ms unsuppressed"},
		{10000, 1000, 0, "440–670 ms; all suppressed 44 ms"},
		{10000, 6000, 0, "1,000→710 ms; all suppressed 37 ms"},
		{20000, 2000, 0, "1,150–1,300 ms unsuppressed"},
		{10000, 1000, 99, "350–480 ms"},
		{10000, 6000, 99, "360–480 ms"},
	} {
		b.Run(fmt.Sprintf("%dx%d-%d%%", tc.agents, tc.frameworks, tc.upfront), func(b *testing.B) {
			var cycle, back time.Duration
			for b.Loop() {
				a := cluster(tc.agents, tc.frameworks, "cpus:16;mem:1024;disk:1024;"+fragmented())
				suppressed := tc.frameworks * tc.upfront / 100
				for i := range suppressed {
					a.Suppress(task.FrameworkID(fmt.Sprintf("f%05d", i)))
				}
				now := start
				offers, _ := a.Allocate(now)
				for range 5 {
					t0 := time.Now()
					for _, o := range offers {
						a.Recover(now, o.Agent, o.Framework, o.Resources, allocator.Refusal{})
					}
					back += time.Since(t0)
					if tc.upfront == 0 {
						for range tc.frameworks / 5 {
							a.Suppress(task.FrameworkID(fmt.Sprintf("f%05d", suppressed)))
							suppressed++
						}
					}
					now = now.Add(time.Second)
					t0 = time.Now()
					offers, _ = a.Allocate(now)
					cycle += time.Since(t0)
				}
			}
			figure(b, cycle, back, 5*b.N, tc.mesos)
		})
	}
}

// job is one framework of BenchmarkMultiFrameworkAllocations.
type job struct {
	tasks, perOffer int
	need            resource.Resources
}

// runJobs plays upstream's MultiFrameworkAllocations until all tasks run, or
// limit rounds. It returns tasks launched, offers made and rounds.
func runJobs(limit int) (launched, offers, rounds int) {
	a := allocator.New(allocator.Options{})
	jobs := map[task.FrameworkID]*job{}
	add := func(id, role string, tasks, perOffer int, need string) {
		jobs[task.FrameworkID(id)] = &job{tasks, perOffer, resource.MustParse(need)}
		a.AddFramework(framework(id, role), true)
	}
	for i := range 4 {
		add(fmt.Sprint("marathon-", i), fmt.Sprint("roleA-", i), 4000, 100, "cpus:0.07;mem:400")
	}
	for i := range 500 {
		add(fmt.Sprint("jenkins-", i), "roleB", 5, 1, "cpus:0.1;mem:4000")
	}
	for i := range 50 {
		add(fmt.Sprint("spark-", i), fmt.Sprint("roleC-", i), 20, 5, "cpus:1;mem:1000")
	}
	addAgents(a, 80, "cpus:64;mem:488000")
	now := start
	for rounds = 0; rounds < limit && launched < 19500; rounds++ {
		made, _ := a.Allocate(now)
		offers += len(made)
		for _, o := range made {
			j := jobs[o.Framework]
			rest, need := o.Resources, j.need.Allocate(o.Role)
			n := 0
			for n < j.perOffer && j.tasks > 0 && rest.Contains(need) {
				rest = rest.Sub(need)
				j.tasks--
				n++
			}
			launched += n
			a.Recover(now, o.Agent, o.Framework, rest, allocator.Refusal{Pass: n == 0})
		}
		now = now.Add(time.Second)
	}
	return launched, offers, rounds
}

func TestMultiFrameworkAllocationsFinish(t *testing.T) {
	launched, offers, rounds := runJobs(14518)
	if launched != 19500 {
		t.Fatalf("launched %d of 19,500 tasks in %d rounds with %d offers", launched, rounds, offers)
	}
	t.Logf("19,500 tasks in %d rounds with %d offers; Mesos: 5,132 tasks in 14,518 rounds with 1.16 M offers, then stuck", rounds, offers)
}

func BenchmarkMultiFrameworkAllocations(b *testing.B) {
	var launched, offers, rounds int
	for b.Loop() {
		launched, offers, rounds = runJobs(math.MaxInt)
	}
	b.ReportMetric(float64(rounds), "rounds")
	b.ReportMetric(float64(offers), "offers")
	b.Logf("figure %s: %d tasks in %d rounds, %d offers, %.0f ms; Mesos: 5,132 of 19,500 tasks, then stuck for 14,518 rounds (30 s)",
		b.Name(), launched, rounds, offers, float64(b.Elapsed().Milliseconds())/float64(b.N))
}

func BenchmarkRevive(b *testing.B) {
	a := cluster(10000, 1000, "cpus:16;mem:1024;disk:1024")
	offers, _ := a.Allocate(start)
	for _, o := range offers {
		a.Recover(start, o.Agent, o.Framework, o.Resources, allocator.Refusal{})
	}
	i := 0
	for b.Loop() {
		a.Revive(task.FrameworkID(fmt.Sprintf("f%05d", i%1000)))
		i++
	}
	b.Logf("figure %s: 1,000 revives over 10,000 agents %.1f ms; Mesos: 1,900 ms", b.Name(), float64(b.Elapsed())/float64(b.N)*1000/1e6)
}

// BenchmarkPersistentVolumes is upstream's: everything is reserved to one role,
// a part of it in use, and every agent has a volume.
func BenchmarkPersistentVolumes(b *testing.B) {
	const total, used = "cpus(test):24;mem(test):4096;disk(test):3072;ports(test):[31000-32000]", "cpus(test):16;mem(test):1024;disk(test):1024"
	for _, kind := range []string{"regular", "shared", "mixed"} {
		b.Run("1000x50-"+kind, func(b *testing.B) {
			var cycle, back time.Duration
			for b.Loop() {
				a := allocator.New(allocator.Options{})
				for i := range 50 {
					f := framework(fmt.Sprintf("f%05d", i), "test")
					f.Shared = true
					a.AddFramework(f, true)
				}
				use := resource.MustParse(used).Allocate("test")
				for i := range 1000 {
					disk := resource.MustParse("disk(test):1024")
					v := volume(b, disk, "v", kind == "shared" || kind == "mixed" && i%2 == 0)
					id := task.AgentID(fmt.Sprintf("agent-%05d", i))
					a.AddAgent(allocator.Agent{ID: id, Total: resource.MustParse(total).Add(v)})
					a.Use(id, task.FrameworkID(fmt.Sprintf("f%05d", i%50)), use)
				}
				now := start
				offers, _ := a.Allocate(now)
				for range 6 {
					t0 := time.Now()
					for _, o := range offers {
						a.Recover(now, o.Agent, o.Framework, o.Resources, allocator.Refusal{Pass: true})
					}
					t1 := time.Now()
					now = now.Add(time.Second)
					offers, _ = a.Allocate(now)
					cycle, back = cycle+time.Since(t1), back+t1.Sub(t0)
				}
				if len(offers) != 1000 {
					b.Fatalf("%d offers", len(offers))
				}
			}
			figure(b, cycle, back, b.N*6, "not measured")
		})
	}
}

// BenchmarkReplace is upstream's UpdateAllocation: one agent with a reservation
// for each of many roles; one framework unreserves and reserves its own.
func BenchmarkReplace(b *testing.B) {
	for _, roles := range []int{50, 200} {
		b.Run(fmt.Sprint(roles), func(b *testing.B) {
			a := allocator.New(allocator.Options{})
			var total resource.Resources
			for i := range roles {
				role := fmt.Sprintf("role-%036d", i)
				a.AddFramework(framework(role, role), true)
				total = total.Add(reserved(b, fmt.Sprintf("cpus:100;mem:100;disk:100;ports:[%d-%d]", i, i), role))
			}
			a.AddAgent(allocator.Agent{ID: "a0", Total: total})
			offers, _ := a.Allocate(start)
			o := offers[roles/2]
			with := o.Resources
			without, err := with.Pop()
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				a.Replace("a0", o.Framework, with, without)
				a.Replace("a0", o.Framework, without, with)
			}
			b.Logf("figure %s: unreserve and reserve %.2f ms", b.Name(), float64(b.Elapsed())/float64(b.N)/1e6)
		})
	}
}
