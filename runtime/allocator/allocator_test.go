package allocator_test

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"dcos.example/dcos/runtime/allocator"
	"dcos.example/dcos/runtime/resource"
	"dcos.example/dcos/runtime/task"
)

var start = time.Unix(1_700_000_000, 0)

func framework(id string, roles ...string) allocator.Framework {
	return allocator.Framework{ID: task.FrameworkID(id), Roles: roles}
}

func addAgents(a *allocator.Allocator, n int, total string) {
	for i := range n {
		a.AddAgent(allocator.Agent{ID: task.AgentID(fmt.Sprintf("a%d", i)), Total: resource.MustParse(total)})
	}
}

// byFramework counts the offers of each framework.
func byFramework(offers []allocator.Offer) map[task.FrameworkID]int {
	m := map[task.FrameworkID]int{}
	for _, o := range offers {
		m[o.Framework]++
	}
	return m
}

func TestEqualFrameworksShareEqually(t *testing.T) {
	a := allocator.New(allocator.Options{})
	for i := range 5 {
		a.AddFramework(framework(fmt.Sprint("f", i), "*"), true)
	}
	addAgents(a, 50, "cpus:4;mem:1024")
	offers, _ := a.Allocate(start)
	for id, n := range byFramework(offers) {
		if n != 10 {
			t.Errorf("%s got %d of 50 agents", id, n)
		}
	}
}

func TestWeightsAndHierarchy(t *testing.T) {
	a := allocator.New(allocator.Options{})
	a.AddFramework(framework("eng-web", "eng/web"), true)
	a.AddFramework(framework("eng-db", "eng/db"), true)
	a.AddFramework(framework("ops", "ops"), true)
	a.SetWeight("ops", 2)
	addAgents(a, 60, "cpus:1;mem:100")
	offers, _ := a.Allocate(start)
	got := byFramework(offers)
	if got["ops"] != 40 || got["eng-web"] != 10 || got["eng-db"] != 10 {
		t.Errorf("weight 2 for ops against 1 for eng/*: %v", got)
	}
}

func TestSmallerShareGoesFirst(t *testing.T) {
	a := allocator.New(allocator.Options{})
	addAgents(a, 2, "cpus:10;mem:1000")
	a.AddFramework(framework("rich", "r1"), false)
	a.AddFramework(framework("poor", "r2"), false)
	a.Use("a0", "rich", resource.MustParse("cpus:10;mem:1000").Allocate("r1"))
	a.SetActive("rich", true)
	a.SetActive("poor", true)
	offers, _ := a.Allocate(start)
	if len(offers) != 1 || offers[0].Framework != "poor" || offers[0].Agent != "a1" || offers[0].Role != "r2" {
		t.Errorf("%+v", offers)
	}
	if got := offers[0].Resources.AllocationRoles(); len(got) != 1 || got[0] != "r2" {
		t.Errorf("offered resources are allocated to %v", got)
	}
}

// TestDeclinerWaitsForOthers is the starvation of Mesos in small: the framework
// with the lower share keeps declining and the other must still be served.
func TestDeclinerWaitsForOthers(t *testing.T) {
	a := allocator.New(allocator.Options{})
	addAgents(a, 2, "cpus:10;mem:1000")
	a.AddFramework(framework("busy", "r1"), true)
	a.Use("a0", "busy", resource.MustParse("cpus:10;mem:1000").Allocate("r1"))
	a.AddFramework(framework("idle", "r2"), true)
	now := start
	offers, _ := a.Allocate(now)
	if len(offers) != 1 || offers[0].Framework != "idle" {
		t.Fatalf("first: %+v", offers)
	}
	a.Recover(now, "a1", "idle", offers[0].Resources, allocator.Refusal{Pass: true})
	offers, _ = a.Allocate(now)
	if len(offers) != 1 || offers[0].Framework != "busy" {
		t.Fatalf("after idle declined: %+v", offers)
	}
	// Both declined: nobody is offered anything until the agent has rested.
	a.Recover(now, "a1", "busy", offers[0].Resources, allocator.Refusal{Pass: true})
	offers, next := a.Allocate(now)
	if len(offers) != 0 || !next.Equal(now.Add(time.Second)) {
		t.Fatalf("after both declined: %+v, next %v", offers, next)
	}
	offers, _ = a.Allocate(next)
	if len(offers) != 1 || offers[0].Framework != "idle" {
		t.Fatalf("after the rest: %+v", offers)
	}
}

func TestFilters(t *testing.T) {
	a := allocator.New(allocator.Options{})
	addAgents(a, 1, "cpus:10;mem:1000")
	a.AddFramework(framework("f", "*"), true)
	now := start
	refuse := func(d time.Duration) {
		t.Helper()
		offers, _ := a.Allocate(now)
		if len(offers) != 1 {
			t.Fatalf("offers: %+v", offers)
		}
		a.Recover(now, "a0", "f", offers[0].Resources, allocator.Refusal{For: d, Pass: true})
	}
	refuse(5 * time.Second)
	if offers, next := a.Allocate(now.Add(4 * time.Second)); len(offers) != 0 || !next.Equal(now.Add(5*time.Second)) {
		t.Errorf("filtered for 5 s: %v, next %v", offers, next)
	}
	now = now.Add(5 * time.Second)
	refuse(time.Hour)
	a.Revive("f")
	refuse(time.Hour)
	// More than was refused breaks the filter.
	a.UpdateAgent("a0", resource.MustParse("cpus:11;mem:1000"))
	refuse(time.Hour)
	a.Suppress("f")
	now = now.Add(2 * time.Hour)
	if offers, _ := a.Allocate(now); len(offers) != 0 {
		t.Errorf("suppressed: %+v", offers)
	}
	a.Revive("f", "*")
	refuse(0)
	a.SetActive("f", false)
	if offers, _ := a.Allocate(now.Add(time.Hour)); len(offers) != 0 {
		t.Errorf("inactive: %+v", offers)
	}
}

func TestFilterBreaksWhenTaskEnds(t *testing.T) {
	a := allocator.New(allocator.Options{})
	addAgents(a, 1, "cpus:10;mem:1000")
	a.AddFramework(framework("f", "*"), true)
	used := resource.MustParse("cpus:4;mem:10").Allocate("*")
	a.Use("a0", "f", used)
	offers, _ := a.Allocate(start)
	a.Recover(start, "a0", "f", offers[0].Resources, allocator.Refusal{For: time.Hour, Pass: true})
	a.Recover(start, "a0", "f", used, allocator.Refusal{})
	offers, _ = a.Allocate(start)
	if len(offers) != 1 || offers[0].Resources.Scalar("cpus") != 10*resource.Unit {
		t.Errorf("more is free than was refused: %+v", offers)
	}
}

func TestReservationsAndCapabilities(t *testing.T) {
	a := allocator.New(allocator.Options{})
	addAgents(a, 1, "cpus(web):2;mem(web):64;cpus:3;mem:100;ports:[1-2]")
	a.AddAgent(allocator.Agent{ID: "gpu", Total: resource.MustParse("cpus:1;mem:64;gpus:1")})
	a.AddAgent(allocator.Agent{ID: "far", Total: resource.MustParse("cpus:1;mem:64"), Remote: true})
	a.AddFramework(framework("other", "other"), true)
	offers, _ := a.Allocate(start)
	if len(offers) != 1 || !offers[0].Resources.Unallocate().Equal(resource.MustParse("cpus:3;mem:100;ports:[1-2]")) {
		t.Fatalf("other: %+v", offers)
	}
	f := framework("web", "web/front")
	f.GPU, f.RegionAware = true, true
	a.AddFramework(f, true)
	offers, _ = a.Allocate(start)
	if len(offers) != 3 || !offers[0].Resources.Unallocate().Equal(resource.MustParse("cpus(web):2;mem(web):64")) {
		t.Fatalf("web: %+v", offers)
	}
}

func TestRemovals(t *testing.T) {
	a := allocator.New(allocator.Options{})
	addAgents(a, 2, "cpus:1;mem:100")
	a.AddFramework(framework("f", "*"), true)
	if offers, _ := a.Allocate(start); len(offers) != 2 {
		t.Fatal(offers)
	}
	a.RemoveAgent("a0")
	a.AddFramework(framework("g", "*"), true)
	a.RemoveFramework("f")
	offers, _ := a.Allocate(start)
	if len(offers) != 1 || offers[0].Agent != "a1" || offers[0].Framework != "g" {
		t.Errorf("after removals: %+v", offers)
	}
	s := a.Stats()
	if s.Total["cpus"] != 1000 || s.Used["cpus"] != 1000 || s.Shares["*"] != 1 {
		t.Errorf("stats: %+v", s)
	}
}

func TestReplaceReserves(t *testing.T) {
	a := allocator.New(allocator.Options{})
	addAgents(a, 1, "cpus:4;mem:100")
	a.AddFramework(framework("f", "db"), true)
	offers, _ := a.Allocate(start)
	from := resource.MustParse("cpus:2").Allocate("db")
	to, err := from.Push(resource.Reservation{Role: "db"})
	if err != nil {
		t.Fatal(err)
	}
	a.Replace("a0", "f", from, to)
	a.Recover(start, "a0", "f", offers[0].Resources.Sub(from).Add(to), allocator.Refusal{})
	a.RemoveFramework("f")
	a.AddFramework(framework("g", "other"), true)
	offers, _ = a.Allocate(start)
	if len(offers) != 1 || offers[0].Resources.Scalar("cpus") != 2*resource.Unit {
		t.Errorf("reserved cpus are offered to another role: %+v", offers)
	}
}

// TestNothingIsLostOrDoubled drives the allocator with random events and holds
// the books beside it.
func TestNothingIsLostOrDoubled(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := allocator.New(allocator.Options{})
		now := start
		total := resource.MustParse("cpus:4;mem:1000;cpus(r1):1;mem(r1):64;ports:[1-9]")
		var offers []allocator.Offer
		agents, frameworks := map[task.AgentID]bool{}, map[task.FrameworkID]bool{}
		suppressed := map[task.FrameworkID]bool{}
		id := func(kind string, n int) string {
			return fmt.Sprint(kind, rapid.IntRange(0, n).Draw(t, kind))
		}
		drop := func(gone func(allocator.Offer) bool) {
			var keep []allocator.Offer
			for _, o := range offers {
				if !gone(o) {
					keep = append(keep, o)
				}
			}
			offers = keep
		}
		for range rapid.IntRange(1, 60).Draw(t, "events") {
			switch rapid.IntRange(0, 7).Draw(t, "event") {
			case 0:
				ag := task.AgentID(id("a", 3))
				if !agents[ag] {
					agents[ag] = true
					a.AddAgent(allocator.Agent{ID: ag, Total: total})
				}
			case 1:
				ag := task.AgentID(id("a", 3))
				delete(agents, ag)
				a.RemoveAgent(ag)
				drop(func(o allocator.Offer) bool { return o.Agent == ag })
			case 2:
				f := task.FrameworkID(id("f", 4))
				if !frameworks[f] {
					frameworks[f], suppressed[f] = true, false
					a.AddFramework(framework(string(f), rapid.SampledFrom([]string{"r1", "r2", "r1/x"}).Draw(t, "role")), true)
				}
			case 3:
				f := task.FrameworkID(id("f", 4))
				delete(frameworks, f)
				a.RemoveFramework(f)
				drop(func(o allocator.Offer) bool { return o.Framework == f })
			case 4:
				f := task.FrameworkID(id("f", 4))
				suppressed[f] = true
				a.Suppress(f)
			case 5:
				f := task.FrameworkID(id("f", 4))
				suppressed[f] = false
				a.Revive(f)
			default:
				if len(offers) > 0 {
					i := rapid.IntRange(0, len(offers)-1).Draw(t, "offer")
					o := offers[i]
					ref := allocator.Refusal{Pass: rapid.Bool().Draw(t, "pass"), For: time.Duration(rapid.IntRange(0, 3).Draw(t, "for")) * time.Second}
					offers = append(offers[:i], offers[i+1:]...)
					a.Recover(now, o.Agent, o.Framework, o.Resources, ref)
				}
			}
			now = now.Add(time.Duration(rapid.IntRange(0, 2000).Draw(t, "ms")) * time.Millisecond)
			made, next := a.Allocate(now)
			for _, o := range made {
				if suppressed[o.Framework] || !frameworks[o.Framework] || !agents[o.Agent] {
					t.Fatalf("offer nobody should get: %+v", o)
				}
				if !o.Resources.Unallocate().Equal(o.Resources.Unallocate().AllocatableTo(o.Role)) {
					t.Fatalf("offer of another role's reservation: %+v", o)
				}
			}
			if !next.IsZero() && !next.After(now) {
				t.Fatalf("wants to run again at %v, in the past", next)
			}
			offers = append(offers, made...)
			for ag := range agents {
				free, _ := a.Free(ag)
				sum := free
				for _, o := range offers {
					if o.Agent == ag {
						sum = sum.Add(o.Resources.Unallocate())
					}
				}
				if !sum.Equal(total) {
					t.Fatalf("agent %s: free and offered make %v of %v", ag, sum, total)
				}
			}
		}
		if err := a.CheckOrder(); err != nil {
			t.Fatal(err)
		}
	})
}
