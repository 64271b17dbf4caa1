package match_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"dcos.example/dcos/runtime/placement"
	"dcos.example/dcos/runtime/resource"
	"dcos.example/dcos/runtime/service/match"
	"dcos.example/dcos/runtime/service/spec"
)

const role = "kafka-role"

func amount(cpus, mem float64) spec.Amount {
	return spec.Amount{CPUs: resource.Float(cpus), Mem: resource.Float(mem)}
}

func agent(n int, res string) match.Agent {
	id := fmt.Sprint("a", n)
	return match.Agent{ID: id, Place: placement.Place{Host: "h" + id[1:]}, Resources: resource.MustParse(res)}
}

func want(n int) match.Want {
	return match.Want{
		Name: fmt.Sprintf("kafka-%d", n), Pod: "kafka", Reservation: fmt.Sprint("r", n), Need: amount(1, 100),
		Ports:   []match.Port{{Key: "broker/main", Fixed: 9092}, {Key: "broker/jmx"}},
		Volumes: []match.Volume{{Name: "data", ID: fmt.Sprint("v", n), Path: "/data", Size: resource.Float(50)}},
		Tasks:   []match.Task{{Name: "broker", Amount: amount(1, 100), Ports: []string{"broker/main", "broker/jmx"}}},
	}
}

func settings(wants ...match.Want) match.Settings {
	s := match.Settings{Role: role, Rules: map[string]placement.Rules{}, Load: map[string]int{}, Known: map[string]bool{}, Claimed: map[string]bool{}, Random: func(uint64) uint64 { return 0 }}
	for _, w := range wants {
		s.Known[w.Reservation] = true
	}
	return s
}

func reasons(o match.Outcome) string {
	var out []string
	for _, r := range o.Reasons {
		mark := "-"
		if r.Passes {
			mark = "+"
		}
		out = append(out, mark+r.Name+": "+r.Text)
	}
	return strings.Join(out, "\n")
}

type fataler interface {
	Helper()
	Fatalf(string, ...any)
}

// apply does what a Use asks, as a master would, and fails if it would refuse.
func apply(t fataler, total, offered resource.Resources, u match.Use) (newTotal, left resource.Resources) {
	t.Helper()
	convert := func(what string, from, to resource.Resources) {
		t.Helper()
		if !offered.Contains(from) {
			t.Fatalf("%s %v, but only %v is there", what, from, offered)
		}
		total, offered = total.Sub(from).Add(to), offered.Sub(from).Add(to)
	}
	pop := func(rs resource.Resources) resource.Resources {
		t.Helper()
		out, err := rs.Pop()
		if err != nil {
			t.Fatalf("%v", err)
		}
		return out
	}
	convert("destroy", u.Destroy, u.Destroy.WithoutVolumes())
	convert("unreserve", u.Unreserve, pop(u.Unreserve))
	convert("reserve", pop(u.Reserve), u.Reserve)
	convert("create", u.Create.WithoutVolumes(), u.Create)
	for _, p := range u.Placed {
		for _, res := range p.Tasks {
			if !offered.Contains(res) {
				t.Fatalf("launch with %v, but only %v is there", res, offered)
			}
			offered = offered.Sub(res.Filter(func(it resource.Item) bool { return !it.Shared() }))
		}
	}
	return total, offered
}

func TestDeployRestartAndGiveBack(t *testing.T) {
	w := want(0)
	a := agent(0, "cpus:4;mem:1000;disk:1000;ports:[9000-9100]")
	uses, outcomes := match.Match([]match.Agent{a}, []match.Want{w}, settings(w))
	if len(uses) != 1 || len(outcomes) != 1 || !outcomes[0].Passes {
		t.Fatalf("%+v\n%s", uses, reasons(outcomes[0]))
	}
	p := uses[0].Placed[0]
	if d := cmp.Diff(map[string]int{"broker/main": 9092, "broker/jmx": 9000}, p.Ports); d != "" {
		t.Error(d)
	}
	total, _ := apply(t, a.Resources, a.Resources, uses[0])
	reserved := total.Reserved(role)
	if got := reserved.Scalar("cpus"); got != resource.Float(1) || !reserved.Contains(p.Tasks[0]) {
		t.Errorf("reserved %v for %v", reserved, p.Tasks[0])
	}

	// The task ends: everything is offered again, and it goes back there with
	// the same ports, its volume, and no operation at all.
	w.Agent, w.Ports[1].Had, w.Volumes[0].Exists = "a0", 9000, true
	a.Resources = total
	uses, outcomes = match.Match([]match.Agent{a}, []match.Want{w}, settings(w))
	if len(uses) != 1 || !uses[0].Reserve.Empty() || !uses[0].Create.Empty() || !uses[0].Unreserve.Empty() || !uses[0].Placed[0].Tasks[0].Equal(p.Tasks[0]) {
		t.Fatalf("%+v\n%s", uses, reasons(outcomes[0]))
	}

	// It needs less now, and another port.
	w.Need, w.Tasks[0].Amount = amount(0.5, 200), amount(0.5, 200)
	w.Ports[0].Fixed = 9050
	uses, outcomes = match.Match([]match.Agent{a}, []match.Want{w}, settings(w))
	if len(uses) != 1 {
		t.Fatal(reasons(outcomes[0]))
	}
	if got := uses[0].Unreserve.Flatten().String(); got != "cpus:0.5;ports:[9092-9092]" {
		t.Error(got)
	}
	if got := uses[0].Reserve.Flatten().String(); got != "mem:100;ports:[9050-9050]" {
		t.Error(got)
	}
	total, _ = apply(t, a.Resources, a.Resources, uses[0])

	// Nobody knows of it: it is left alone. It is claimed: all is given back.
	a.Resources = total
	set := settings()
	if uses, _ = match.Match([]match.Agent{a}, nil, set); len(uses) > 0 {
		t.Errorf("%+v", uses)
	}
	set.Claimed["r0"] = true
	uses, _ = match.Match([]match.Agent{a}, nil, set)
	if len(uses) != 1 || !cmp.Equal(uses[0].Leaks, []string{"r0"}) {
		t.Fatalf("%+v", uses)
	}
	if total, _ = apply(t, total, total, uses[0]); !total.Equal(resource.MustParse("cpus:4;mem:1000;disk:1000;ports:[9000-9100]")) {
		t.Error(total)
	}
}

func TestReasons(t *testing.T) {
	w := want(0)
	small := agent(0, "cpus:0.5;mem:50;disk:10;ports:[1-2]")
	_, outcomes := match.Match([]match.Agent{small}, []match.Want{w}, settings(w))
	want := `-cpus: 1 more needed, 0.5 offered
-mem: 100 more needed, 50 offered
-disk: 50 more needed, 10 offered
-ports: port 9092 for broker/main is not free on the agent`
	if d := cmp.Diff(want, reasons(outcomes[0])); d != "" {
		t.Error(d)
	}
	w.Agent, w.Volumes[0].Exists = "a0", true
	_, outcomes = match.Match([]match.Agent{agent(0, "cpus:5;mem:500;disk:100;ports:[9000-9100]")}, []match.Want{w}, settings(w))
	want = `-volume data: the agent does not offer volume v0, with the data of kafka-0; if it is lost for good, replace the pod
+cpus: 1 of 5 offered
+mem: 100 of 500 offered
+ports: 2 ports`
	if d := cmp.Diff(want, reasons(outcomes[0])); d != "" {
		t.Error(d)
	}
}

func TestPlacementSpreadsAndRefuses(t *testing.T) {
	agents := []match.Agent{agent(0, "cpus:9;mem:900;disk:900;ports:[9000-9100]"), agent(1, "cpus:4;mem:900;disk:900;ports:[9000-9100]"), agent(2, "cpus:4;mem:900;disk:900;ports:[9000-9100]")}
	agents[2].Unavailable = true
	wants := []match.Want{want(0), want(1), want(2)}
	for i := range wants {
		wants[i].Ports = nil
		wants[i].Tasks[0].Ports = nil
	}
	set := settings(wants...)
	uses, _ := match.Match(agents, wants, set)
	if len(uses) != 2 || len(uses[0].Placed) != 2 || len(uses[1].Placed) != 1 {
		t.Errorf("not spread: %+v", uses)
	}
	set.Rules["kafka"] = placement.Compile([][]string{{"hostname", "UNIQUE"}}, []placement.Place{{Host: "h0"}})
	uses, outcomes := match.Match(agents, wants, set)
	if len(uses) != 1 || uses[0].Agent != 1 || len(uses[0].Placed) != 1 {
		t.Errorf("%+v", uses)
	}
	last := outcomes[len(outcomes)-2]
	if last.Agent != 1 || !strings.Contains(reasons(last), `-placement: hostname UNIQUE: it is "h1", with 1 instances there`) {
		t.Error(reasons(last))
	}
}

// A task beside those that run takes what they leave of the reservation.
func TestBesideRunning(t *testing.T) {
	w := want(0)
	w.Need = amount(1.5, 150)
	w.Volumes[0].Shared = true
	a := agent(0, "cpus:2;mem:200;disk:50;ports:[9000-9100]")
	uses, _ := match.Match([]match.Agent{a}, []match.Want{w}, settings(w))
	total, left := apply(t, a.Resources, a.Resources, uses[0])
	w.Agent, w.Volumes[0].Exists, w.Ports[1].Had = "a0", true, 9000
	w.InUse = uses[0].Placed[0].Tasks[0]
	w.Tasks = []match.Task{{Name: "backup", Amount: amount(0.5, 50)}}
	a.Resources = left
	uses, outcomes := match.Match([]match.Agent{a}, []match.Want{w}, settings(w))
	if len(uses) != 1 || !uses[0].Reserve.Empty() || !uses[0].Unreserve.Empty() {
		t.Fatalf("%+v\n%s", uses, reasons(outcomes[0]))
	}
	apply(t, total, left, uses[0])
	w.Tasks[0].Amount.Mem = resource.Float(60)
	_, outcomes = match.Match([]match.Agent{a}, []match.Want{w}, settings(w))
	if got := reasons(outcomes[0]); !strings.Contains(got, "-mem: 60 for task backup, but others of kafka-0 hold the rest of its reservation; 50 is left") {
		t.Error(got)
	}
}

// instance is one of the model's.
type instance struct {
	match.Want
	live  bool
	tasks resource.Resources
	lost  bool // given up: its reservation is a leak
}

// TestNothingLeaks plays rounds of offers in which calls get lost, tasks end
// and instances are given up. A master would refuse nothing that is asked; no
// instance is ever launched twice at once; one that was placed fits again on
// its agent as soon as its tasks end; and when all is given up, the agents are
// as they were.
func TestNothingLeaks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const whole = "cpus:4;mem:400;disk:400;ports:[1-20]"
		total := map[string]resource.Resources{}
		names := []string{"a0", "a1", "a2"}[:rapid.IntRange(1, 3).Draw(t, "agents")]
		for _, n := range names {
			total[n] = resource.MustParse(whole)
		}
		var is []*instance
		next := 0
		add := func() {
			w := match.Want{
				Name: fmt.Sprint("p-", next), Pod: "p", Reservation: fmt.Sprint("r", next),
				Need: amount(float64(rapid.IntRange(1, 8).Draw(t, "cpus"))/4, 100),
			}
			w.Tasks = []match.Task{{Name: "t", Amount: w.Need}}
			for k := range rapid.IntRange(0, 2).Draw(t, "ports") {
				w.Ports = append(w.Ports, match.Port{Key: fmt.Sprint("t/", k)})
				w.Tasks[0].Ports = append(w.Tasks[0].Ports, fmt.Sprint("t/", k))
			}
			for k := range rapid.IntRange(0, 2).Draw(t, "volumes") {
				w.Volumes = append(w.Volumes, match.Volume{Name: fmt.Sprint(k), ID: fmt.Sprintf("v%d-%d", next, k), Path: fmt.Sprint("/", k), Size: resource.Float(20), Shared: rapid.Bool().Draw(t, "shared")})
			}
			is = append(is, &instance{Want: w})
			next++
		}
		free := func(agent string) resource.Resources {
			rs := total[agent]
			for _, i := range is {
				if i.live && i.Agent == agent {
					rs = rs.Sub(i.tasks.Filter(func(it resource.Item) bool { return !it.Shared() }))
				}
			}
			return rs
		}
		round := func(lossy bool) {
			var agents []match.Agent
			for _, n := range names {
				if !lossy || rapid.IntRange(0, 3).Draw(t, "offers") > 0 {
					agents = append(agents, match.Agent{ID: n, Place: placement.Place{Host: n}, Resources: free(n)})
				}
			}
			var wants []match.Want
			var of []*instance
			set := settings()
			set.Random = func(n uint64) uint64 { return rapid.Uint64Range(0, n-1).Draw(t, "port") }
			for _, i := range is {
				if i.lost {
					set.Claimed[i.Reservation] = true
				} else {
					set.Known[i.Reservation] = true
				}
				if !i.lost && !i.live {
					wants, of = append(wants, i.Want), append(of, i)
				}
			}
			uses, outcomes := match.Match(agents, wants, set)
			placed := map[int]bool{}
			for _, u := range uses {
				a := agents[u.Agent]
				newTotal, _ := apply(t, total[a.ID], a.Resources, u)
				lost := lossy && rapid.IntRange(0, 4).Draw(t, "call is lost") == 0
				if !lost {
					total[a.ID] = newTotal
				}
				for _, p := range u.Placed {
					if placed[p.Want] {
						t.Fatalf("want %d is launched twice", p.Want)
					}
					placed[p.Want] = true
					i := of[p.Want]
					i.Agent = a.ID // stored before the call is made
					for k := range i.Ports {
						i.Ports[k].Had = p.Ports[i.Ports[k].Key]
					}
					if !lost {
						i.live, i.tasks = true, p.Tasks[0]
						for k := range i.Volumes {
							i.Volumes[k].Exists = true
						}
					}
				}
			}
			for _, o := range outcomes {
				i := of[o.Want]
				// What was launched once has everything reserved, so it fits.
				if !o.Passes && i.Agent == agents[o.Agent].ID && !i.tasks.Empty() {
					t.Fatalf("%s does not fit again on its agent: %s", i.Name, reasons(o))
				}
			}
		}
		for range rapid.IntRange(0, 4).Draw(t, "instances") {
			add()
		}
		for range rapid.IntRange(0, 25).Draw(t, "rounds") {
			for _, i := range is {
				switch rapid.IntRange(0, 9).Draw(t, "fate") {
				case 0, 1, 2:
					i.live = false // its task ends
				case 3:
					i.live, i.lost = false, true // replaced or decommissioned
				}
			}
			if rapid.IntRange(0, 3).Draw(t, "another") == 0 {
				add()
			}
			round(true)
		}
		for _, i := range is {
			i.live, i.lost = false, true
		}
		round(false)
		for n, rs := range total {
			if !rs.Equal(resource.MustParse(whole)) {
				t.Fatalf("%s is left with %v", n, rs)
			}
		}
	})
}
