package allocator_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"dcos.example/dcos/runtime/allocator"
	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/resource"
	"dcos.example/dcos/runtime/task"
)

// volume is the reserved disk d as a volume.
func volume(t interface{ Fatal(...any) }, d resource.Resources, id string, shared bool) resource.Resources {
	ps := d.Proto()
	for i, p := range ps {
		p = proto.CloneOf(p)
		p.Disk = &mesos.Resource_DiskInfo{Persistence: &mesos.Resource_DiskInfo_Persistence{Id: proto.String(id)}}
		if shared {
			p.Shared = &mesos.Resource_SharedInfo{}
		}
		ps[i] = p
	}
	r, err := resource.FromProto(ps)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func reserved(t interface{ Fatal(...any) }, text, role string) resource.Resources {
	r, err := resource.MustParse(text).Push(resource.Reservation{Role: role})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func named(r resource.Resources, name string) resource.Resources {
	return r.Filter(func(i resource.Item) bool { return i.Name() == name })
}

func TestReservedAreForTheirSubtree(t *testing.T) {
	a := allocator.New(allocator.Options{})
	total := reserved(t, "cpus:1;mem:64", "eng").Add(reserved(t, "cpus:2;mem:64", "eng/db"))
	a.AddAgent(allocator.Agent{ID: "a0", Total: total})
	for _, role := range []string{"ops", "*", "engine", "en"} {
		a.AddFramework(framework(role, role), true)
	}
	if offers, _ := a.Allocate(start); len(offers) != 0 {
		t.Fatalf("offered to others: %+v", offers)
	}
	a.AddFramework(framework("eng", "eng"), true)
	offers, _ := a.Allocate(start)
	if len(offers) != 1 || !offers[0].Resources.Unallocate().Equal(reserved(t, "cpus:1;mem:64", "eng")) {
		t.Fatalf("eng: %+v", offers)
	}
	a.Recover(start, "a0", "eng", offers[0].Resources, allocator.Refusal{For: time.Hour, Pass: true})
	a.AddFramework(framework("db", "eng/db"), true)
	if offers, _ = a.Allocate(start); len(offers) != 1 || !offers[0].Resources.Unallocate().Equal(total) {
		t.Fatalf("eng/db may use eng's, too: %+v", offers)
	}
}

// TestCrumbsOfReservationsAreOffered: who reserved a disk must be able to give
// it up though all cpus and memory of the agent are in use.
func TestCrumbsOfReservationsAreOffered(t *testing.T) {
	a := allocator.New(allocator.Options{})
	a.AddFramework(framework("other", "other"), true)
	a.AddAgent(allocator.Agent{ID: "a0", Total: resource.MustParse("cpus:1;mem:64").Add(volume(t, reserved(t, "disk:10", "db"), "v", false))})
	if offers, _ := a.Allocate(start); len(offers) != 1 || offers[0].Resources.Scalar("disk") != 0 {
		t.Fatalf("%+v", offers)
	}
	a.AddFramework(framework("db", "db"), true)
	offers, _ := a.Allocate(start)
	if len(offers) != 1 || offers[0].Framework != "db" || offers[0].Resources.Scalar("disk") != 10*resource.Unit {
		t.Fatalf("%+v", offers)
	}
}

func TestRefusalsSurviveOperationsOfOthers(t *testing.T) {
	a := allocator.New(allocator.Options{})
	addAgents(a, 1, "cpus:4;mem:100")
	a.AddFramework(framework("f", "f"), true)
	offers, _ := a.Allocate(start)
	a.Recover(start, "a0", "f", offers[0].Resources, allocator.Refusal{For: time.Hour, Pass: true})
	a.AddFramework(framework("g", "g"), true)
	offers, _ = a.Allocate(start)
	if len(offers) != 1 || offers[0].Framework != "g" {
		t.Fatalf("%+v", offers)
	}
	from := resource.MustParse("cpus:1").Allocate("g")
	a.Replace("a0", "g", from, reserved(t, "cpus:1", "g").Allocate("g"))
	a.Recover(start, "a0", "g", offers[0].Resources.Sub(from).Add(reserved(t, "cpus:1", "g").Allocate("g")), allocator.Refusal{For: time.Hour, Pass: true})
	if offers, _ = a.Allocate(start); len(offers) != 0 {
		t.Errorf("f has turned down more than this: %+v", offers)
	}
	if a.Convert("a0", resource.MustParse("cpus:4"), reserved(t, "cpus:4", "f")) {
		t.Error("what is not free was converted")
	}
	if !a.Convert("a0", resource.MustParse("cpus:1"), reserved(t, "cpus:1", "f")) {
		t.Fatal("what is free was not converted")
	}
	if offers, _ = a.Allocate(start); len(offers) != 1 || offers[0].Framework != "f" {
		t.Errorf("f has not seen its reservation: %+v", offers)
	}
}

func TestSharedVolumesAreOfferedWhileInUse(t *testing.T) {
	a := allocator.New(allocator.Options{})
	v := volume(t, reserved(t, "disk:10", "db"), "v", true)
	a.AddAgent(allocator.Agent{ID: "a0", Total: resource.MustParse("cpus:4;mem:256").Add(v)})
	f := framework("f", "db")
	f.Shared = true
	a.AddFramework(f, true)
	offers, _ := a.Allocate(start)
	use := resource.MustParse("cpus:1").Add(v).Allocate("db")
	a.Use("a0", "f", v.Allocate("db")) // a task beside the offer
	a.Recover(start, "a0", "f", offers[0].Resources.Sub(resource.MustParse("cpus:1").Allocate("db")), allocator.Refusal{})
	offers, _ = a.Allocate(start)
	if len(offers) != 1 || !offers[0].Resources.Contains(v.Allocate("db")) || offers[0].Resources.Scalar("cpus") != 3*resource.Unit {
		t.Fatalf("while in use: %+v", offers)
	}
	a.Recover(start, "a0", "f", offers[0].Resources, allocator.Refusal{})
	a.Recover(start, "a0", "f", use, allocator.Refusal{})
	if free, _ := a.Free("a0"); !free.Equal(resource.MustParse("cpus:4;mem:256").Add(v)) {
		t.Errorf("free at the end: %v", free)
	}
	if s := a.Stats(); s.Used["disk"] != 0 || s.Used["cpus"] != 0 {
		t.Errorf("used at the end: %v", s.Used)
	}
	g := framework("g", "db")
	a.AddFramework(g, true)
	a.Suppress("f")
	if offers, _ = a.Allocate(start); len(offers) != 1 || offers[0].Resources.Scalar("disk") != 0 {
		t.Errorf("without the capability: %+v", offers)
	}
}

// books is the model beside the allocator in TestOperations.
type books struct {
	a      *allocator.Allocator
	totals map[task.AgentID]resource.Resources
	offers []allocator.Offer
	tasks  []allocator.Offer // what they use
	nextID int
}

const operationsBase = "cpus:4;mem:1000;disk:100;ports:[1-9];cpus(r):1"

// operate converts a random part of an offer, as ACCEPT does, and returns what
// is left of it.
func (b *books) operate(t *rapid.T, o allocator.Offer) allocator.Offer {
	items := slices.Collect(o.Resources.All())
	it := items[rapid.IntRange(0, len(items)-1).Draw(t, "item")]
	from := resource.Of(it)
	if it.Kind() == resource.KindScalar && it.VolumeID() == "" && rapid.Bool().Draw(t, "half") {
		if half, _, ok := from.Take(it.Name(), max(1, it.Scalar()/2)); ok {
			from = half
		}
	}
	var to resource.Resources
	var err error
	switch {
	case it.VolumeID() != "":
		if it.Shared() && b.users(o.Agent, it.VolumeID()) > 1 {
			return o // in use
		}
		to = from.WithoutVolumes()
	case it.Dynamic() && it.Name() == resource.Disk && rapid.Bool().Draw(t, "create"):
		b.nextID++
		to = volume(t, from, fmt.Sprint("v", b.nextID), rapid.Bool().Draw(t, "shared"))
	case it.Dynamic() && rapid.Bool().Draw(t, "unreserve"):
		to, err = from.Pop()
	default:
		if to, err = from.Push(resource.Reservation{Role: o.Role}); err != nil {
			return o // reserved to that role already
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	b.a.Replace(o.Agent, o.Framework, from, to)
	b.totals[o.Agent] = b.totals[o.Agent].Sub(from.Unallocate()).Add(to.Unallocate())
	o.Resources = o.Resources.Sub(from).Add(to)
	return o
}

// users counts who has the volume, offers included.
func (b *books) users(ag task.AgentID, id string) (n int) {
	for _, o := range slices.Concat(b.offers, b.tasks) {
		for it := range o.Resources.All() {
			if o.Agent == ag && it.VolumeID() == id {
				n++
			}
		}
	}
	return n
}

func (b *books) remove(gone func(allocator.Offer) bool) {
	b.offers, b.tasks = slices.DeleteFunc(b.offers, gone), slices.DeleteFunc(b.tasks, gone)
}

func (b *books) check(t *rapid.T, made []allocator.Offer, refinement map[task.FrameworkID]bool) {
	for _, o := range made {
		for it := range o.Resources.All() {
			if !it.AllocatableTo(o.Role) || it.Refined() && !refinement[o.Framework] {
				t.Fatalf("%s is offered to %s in role %s", it, o.Framework, o.Role)
			}
		}
	}
	var sum resource.Resources
	for ag, total := range b.totals {
		free, _ := b.a.Free(ag)
		got := free.Exclusive()
		for _, o := range slices.Concat(b.offers, b.tasks) {
			if o.Agent == ag {
				got = got.Add(o.Resources.Unallocate().Exclusive())
			}
		}
		if !got.Equal(total.Exclusive()) {
			t.Fatalf("agent %s: free, offered and used make\n%v of\n%v", ag, got, total.Exclusive())
		}
		if shared := free.Filter(resource.Item.Shared); !shared.Equal(total.Filter(resource.Item.Shared)) {
			t.Fatalf("agent %s: shared volumes free %v of %v", ag, shared, total)
		}
		if total.Scalar("disk") != 100*resource.Unit || total.Scalar("cpus") != 5*resource.Unit {
			t.Fatalf("agent %s has %v", ag, total)
		}
		sum = sum.Add(got.Sub(free.Exclusive()))
	}
	for _, name := range []string{"cpus", "mem", "disk"} {
		if used := b.a.Stats().Used[name]; used != sum.Scalar(name) {
			t.Fatalf("stats say %v of %s are used, should be %v", used, name, sum.Scalar(name))
		}
	}
}

// TestOperations drives reservations, volumes, tasks, the operator, and agents
// that come back with less than was decided.
func TestOperations(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := &books{a: allocator.New(allocator.Options{}), totals: map[task.AgentID]resource.Resources{}}
		refinement := map[task.FrameworkID]bool{}
		for i, role := range []string{"r", "r/x", "s", "s"} {
			f := framework(fmt.Sprint("f", i), role)
			f.Shared, f.Refinement = i%2 == 0, i != 3
			refinement[f.ID] = f.Refinement
			b.a.AddFramework(f, true)
		}
		for i := range 2 {
			id := task.AgentID(fmt.Sprint("a", i))
			b.totals[id] = resource.MustParse(operationsBase)
			b.a.AddAgent(allocator.Agent{ID: id, Total: b.totals[id]})
		}
		now := start
		for range rapid.IntRange(1, 60).Draw(t, "events") {
			pick := func() allocator.Offer {
				i := rapid.IntRange(0, len(b.offers)-1).Draw(t, "offer")
				o := b.offers[i]
				b.offers = slices.Delete(b.offers, i, i+1)
				return o
			}
			back := func(o allocator.Offer) {
				ref := allocator.Refusal{Pass: rapid.Bool().Draw(t, "pass"), For: time.Duration(rapid.IntRange(0, 3).Draw(t, "for")) * time.Second}
				b.a.Recover(now, o.Agent, o.Framework, o.Resources, ref)
			}
			switch event := rapid.IntRange(0, 9).Draw(t, "event"); {
			case event <= 4 && len(b.offers) > 0: // an ACCEPT with operations
				o := pick()
				for range rapid.IntRange(1, 3).Draw(t, "operations") {
					b.offers = append(b.offers, o) // users counts it
					next := b.operate(t, o)
					b.offers = b.offers[:len(b.offers)-1]
					o = next
				}
				back(o)
			case event <= 6 && len(b.offers) > 0: // an ACCEPT with a task
				o := pick()
				items := slices.Collect(o.Resources.All())
				use := resource.Of(items[rapid.IntRange(0, len(items)-1).Draw(t, "used")])
				x := o
				x.Resources = use
				b.tasks = append(b.tasks, x)
				b.a.Use(o.Agent, o.Framework, use.Filter(resource.Item.Shared))
				o.Resources = o.Resources.Sub(use.Exclusive())
				back(o)
			case event == 7 && len(b.tasks) > 0:
				i := rapid.IntRange(0, len(b.tasks)-1).Draw(t, "task")
				x := b.tasks[i]
				b.tasks = slices.Delete(b.tasks, i, i+1)
				b.a.Recover(now, x.Agent, x.Framework, x.Resources, allocator.Refusal{})
			case event == 8: // the operator reserves what is free
				id := task.AgentID(fmt.Sprint("a", rapid.IntRange(0, 1).Draw(t, "agent")))
				free, _ := b.a.Free(id)
				from := named(free.Unreserved(), rapid.SampledFrom([]string{"cpus", "disk", "ports"}).Draw(t, "name"))
				to, err := from.Push(resource.Reservation{Role: rapid.SampledFrom([]string{"r", "r/x", "s"}).Draw(t, "role")})
				if err != nil || !b.a.Convert(id, from, to) {
					t.Fatal(err)
				}
				b.totals[id] = b.totals[id].Sub(from).Add(to)
			case event == 9: // the agent is back and knows of nothing
				id := task.AgentID(fmt.Sprint("a", rapid.IntRange(0, 1).Draw(t, "agent")))
				here := func(o allocator.Offer) bool { return o.Agent == id }
				if k := slices.IndexFunc(b.tasks, here); k >= 0 && rapid.Bool().Draw(t, "before") {
					x := b.tasks[k]
					b.tasks = slices.Delete(b.tasks, k, k+1)
					b.a.Recover(now, x.Agent, x.Framework, x.Resources, allocator.Refusal{})
				}
				b.totals[id] = resource.MustParse(operationsBase)
				b.a.UpdateAgent(id, b.totals[id])
				for _, o := range slices.Concat(b.offers, b.tasks) {
					if here(o) {
						b.a.Recover(now, o.Agent, o.Framework, o.Resources, allocator.Refusal{})
					}
				}
				b.remove(here)
			}
			now = now.Add(time.Duration(rapid.IntRange(0, 2000).Draw(t, "ms")) * time.Millisecond)
			made, next := b.a.Allocate(now)
			if !next.IsZero() && !next.After(now) {
				t.Fatalf("wants to run again at %v, in the past", next)
			}
			b.offers = append(b.offers, made...)
			b.check(t, made, refinement)
		}
		if err := b.a.CheckOrder(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestOverCommittedAgentsRecover: an agent comes back with less than its tasks
// use; what they give back is free only as far as there is something.
func TestOverCommittedAgentsRecover(t *testing.T) {
	for _, shrinksFirst := range []bool{true, false} {
		a := allocator.New(allocator.Options{})
		a.AddFramework(framework("f", "*"), false)
		small, one, two := resource.MustParse("cpus:8"), resource.MustParse("cpus:8").Allocate("*"), resource.MustParse("cpus:2").Allocate("*")
		a.AddAgent(allocator.Agent{ID: "a0", Total: resource.MustParse("cpus:10")})
		if shrinksFirst {
			a.UpdateAgent("a0", small)
		}
		a.Use("a0", "f", one)
		a.Use("a0", "f", two)
		a.UpdateAgent("a0", small)
		a.Recover(start, "a0", "f", two, allocator.Refusal{})
		if free, _ := a.Free("a0"); !free.Empty() {
			t.Errorf("free %v, and 8 of 8 are in use", free)
		}
		a.Recover(start, "a0", "f", one, allocator.Refusal{})
		if free, _ := a.Free("a0"); !free.Equal(small) {
			t.Errorf("free at the end: %v", free)
		}
	}
}
