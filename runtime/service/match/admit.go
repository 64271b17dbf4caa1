package match

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"dcos.example/dcos/runtime/placement"
	"dcos.example/dcos/runtime/resource"
)

// Shortage is why a pod's instances do not all find a place.
type Shortage struct {
	Pod  string
	Text string
}

// Admit says which pods would not find a place for all their instances on the
// agents as they are, and why, with numbers. Wants are whole instances, without
// tasks; those that have a place come with their agent. constraints are those
// of each pod. It costs what Match does.
func Admit(agents []Agent, wants []Want, constraints map[string][][]string, set Settings) []Shortage {
	set.Rules = map[string]placement.Rules{}
	wants = slices.Clone(wants)
	// Those with a place keep it.
	slices.SortStableFunc(wants, func(a, b Want) int { return cmp.Compare(unplaced(a), unplaced(b)) })
	place := map[string]placement.Place{}
	for _, a := range agents {
		place[a.ID] = a.Place
	}
	for pod, cs := range constraints {
		var placed []placement.Place
		for _, w := range wants {
			if p, ok := place[w.Agent]; w.Pod == pod && ok {
				placed = append(placed, p)
			}
		}
		set.Rules[pod] = placement.Compile(cs, placed)
	}
	uses, outcomes := Match(agents, wants, set)
	got := map[int]bool{}
	for _, u := range uses {
		for _, p := range u.Placed {
			got[p.Want] = true
		}
	}
	var out []Shortage
	told := map[string]bool{}
	for n, w := range wants {
		if got[n] || told[w.Pod] || w.Agent != "" && place[w.Agent].Host == "" {
			continue // an instance whose agent is away now does not keep a service from changing
		}
		told[w.Pod] = true
		out = append(out, Shortage{w.Pod, shortage(agents, wants, n, got, constraints[w.Pod], outcomes)})
	}
	return out
}

func unplaced(w Want) int {
	if w.Agent == "" {
		return 1
	}
	return 0
}

// shortage explains the first want of a pod that has no place.
func shortage(agents []Agent, wants []Want, n int, got map[int]bool, constraints [][]string, outcomes []Outcome) string {
	w := wants[n]
	total, have := 0, 0
	for k, o := range wants {
		if o.Pod == w.Pod {
			total++
			if got[k] {
				have++
			}
		}
	}
	if len(agents) == 0 {
		return fmt.Sprintf("%d instances find no place: there is no agent in the cluster", total)
	}
	if room := roomFor(agents, constraints, total); room < total {
		return fmt.Sprintf("too few agents for the placement rule: %s has room for %d of %d instances on %d agents; add agents, or have fewer instances, or another rule",
			ruleText(constraints), room, total, len(agents))
	}
	var why []string
	for _, o := range outcomes {
		if o.Want != n || o.Passes {
			continue
		}
		var parts []string
		for _, r := range o.Reasons {
			if !r.Passes {
				parts = append(parts, r.Name+": "+r.Text)
			}
		}
		why = append(why, agents[o.Agent].Host+" ("+strings.Join(parts, "; ")+")")
	}
	if len(why) > 5 {
		why = append(why[:5], fmt.Sprintf("and %d agents more", len(why)-5))
	}
	return fmt.Sprintf("%d of %d instances find a place; %s, which needs %s, does not: %s", have, total, w.Name, needText(w), strings.Join(why, ", "))
}

// roomFor is how many of so many instances the rules alone let on the agents.
func roomFor(agents []Agent, constraints [][]string, total int) int {
	rules := placement.Compile(constraints, nil)
	room := 0
	for placed := true; placed && room < total; {
		placed = false
		for _, a := range agents {
			if room < total && !a.Unavailable && rules.Accept(a.Place) {
				rules.Add(a.Place)
				room, placed = room+1, true
			}
		}
	}
	return room
}

func ruleText(constraints [][]string) string {
	var parts []string
	for _, c := range constraints {
		parts = append(parts, strings.Join(c, " "))
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

// needText says what an instance reserves as a whole.
func needText(w Want) string {
	disk := w.Need.Disk
	for _, v := range w.Volumes {
		disk += v.Size
	}
	parts := []string{"cpus " + w.Need.CPUs.String(), "mem " + w.Need.Mem.String() + " MiB"}
	if disk > 0 {
		parts = append(parts, "disk "+disk.String()+" MiB")
	}
	if w.Need.GPUs > 0 {
		parts = append(parts, "gpus "+w.Need.GPUs.String())
	}
	var fixed []string
	free := 0
	for _, p := range w.Ports {
		if p.Fixed > 0 {
			fixed = append(fixed, fmt.Sprint(p.Fixed))
		} else {
			free++
		}
	}
	if len(fixed) > 0 {
		parts = append(parts, "ports "+strings.Join(fixed, " "))
	}
	if free > 0 {
		parts = append(parts, fmt.Sprintf("%d ports", free))
	}
	return strings.Join(parts, ", ")
}

// Free is what of an agent's resources instances may have: what nobody uses,
// and the reservations that are known, which their tasks use now and will again.
func Free(total, used resource.Resources, role string, known map[string]bool) resource.Resources {
	plainTotal := total.Filter(func(it resource.Item) bool { return !it.Reserved() })
	own := total.Filter(func(it resource.Item) bool { return it.Role() == role && known[ReservationOf(it)] })
	return plainTotal.Sub(used.Filter(func(it resource.Item) bool { return !it.Reserved() })).Add(own)
}
