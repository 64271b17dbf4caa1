package deployment

import (
	"cmp"
	"math"
	"slices"
)

// Condition is how far an instance is. The order is that in which instances
// are given up when there are too many.
type Condition uint8

const (
	Unreachable Condition = iota
	Staging
	Starting
	Running
)

// Instance is one living copy of an app.
type Instance struct {
	ID        string
	Condition Condition
	Ready     bool   // running, healthy if that is checked, and ready if that is
	Killing   bool   // asked to stop, and still there
	Sick      bool   // not ready any more, after it was
	Since     int64  // when it was launched, in any unit
	Spread    string // its value of the app's GROUP_BY constraint
}

// View is what a decision about one app is made on. Current are instances of
// the wanted configuration, Old those of any other.
type View struct {
	Target      int     // instances wanted
	MinHealth   float64 // share of Target that must stay ready while replacing
	MaxOver     float64 // share of Target by which there may be more while replacing
	OldestFirst bool    // which of equals to give up
	Stuck       bool    // what Move wants to launch has found no place for long
	Old         []Instance
	Current     []Instance
}

// Decision is what to do now.
type Decision struct {
	Launch int // how many instances to launch beyond those that live
	Kill   []string
	Done   bool // nothing is left to do or to wait for
}

// bounds are the limits of a rolling replacement (Marathon's upgradeStrategy).
func (v View) bounds() (minReady, capacity int) {
	n := float64(v.Target)
	minReady = int(math.Ceil(n * v.MinHealth))
	capacity = int(math.Floor(n * (1 + v.MaxOver)))
	if capacity <= minReady {
		// Without room to move nothing could be replaced: allow one more.
		capacity = minReady + 1
	}
	return minReady, capacity
}

// Tally counts instances, so that most decisions need no list of them.
type Tally struct {
	Total  int // there, being killed or not
	Living int // not being killed
	Ready  int // living and ready
}

// Plus adds two tallies.
func (t Tally) Plus(o Tally) Tally {
	return Tally{t.Total + o.Total, t.Living + o.Living, t.Ready + o.Ready}
}

// QuickReplace decides what Replace would, from counts alone; ok is false when
// something must be killed and the list is needed to choose. v's lists are not
// looked at.
func QuickReplace(v View, old, current Tally) (d Decision, ok bool) {
	minReady, capacity := v.bounds()
	spare := old.Ready + current.Ready - minReady
	if old.Living > old.Ready || old.Living > 0 && spare > 0 || current.Living > v.Target {
		return d, false
	}
	d.Launch = max(0, min(v.Target-current.Living, capacity-old.Total-current.Total))
	d.Done = old.Total == 0 && current.Total == v.Target && current.Ready == v.Target
	return d, true
}

// QuickResize decides what Resize would, as QuickReplace does for Replace.
func QuickResize(v View, all Tally) (d Decision, ok bool) {
	if all.Living > v.Target {
		return d, false
	}
	d.Launch = v.Target - all.Living
	d.Done = all.Total == v.Target && all.Ready == v.Target
	return d, true
}

// Replace decides a RestartApplication: instances of other configurations give
// way to current ones, within the bounds. What is not ready goes first, since
// nobody relies on it.
func Replace(v View) Decision {
	minReady, capacity := v.bounds()
	var d Decision
	spare := -minReady // ready instances that may be given up
	for _, list := range [][]Instance{v.Old, v.Current} {
		for _, i := range list {
			if i.Ready && !i.Killing {
				spare++
			}
		}
	}
	take := func(i Instance) {
		if i.Ready {
			spare--
		}
		d.Kill = append(d.Kill, i.ID)
	}
	victims := v.order(v.Old)
	for _, i := range victims {
		if !i.Ready || spare > 0 {
			take(i)
		}
	}
	// Current instances beyond the target, left over from a larger one.
	surplus := living(v.Current) - v.Target
	for _, i := range v.order(v.Current) {
		if surplus > 0 && (!i.Ready || spare > 0) {
			take(i)
			surplus--
		}
	}
	// What is being killed still takes its place until it is gone.
	room := capacity - len(v.Old) - len(v.Current)
	d.Launch = max(0, min(v.Target-living(v.Current), room))
	d.Done = len(v.Old) == 0 && len(v.Current) == v.Target && allReady(v.Current)
	return d
}

// Move decides how instances leave agents that are being drained, within the
// bounds of a replacement. Old are those that have to leave, Current are
// elsewhere; configurations do not matter. Where there may be more instances
// than the target, each that leaves is given up once the one for it is ready.
// Where there may not, or when no place is found for the new ones, as many are
// given up first as the bounds allow.
func Move(v View) Decision {
	minReady, capacity := v.bounds()
	var d Decision
	spare := -minReady
	for _, i := range slices.Concat(v.Old, v.Current) {
		if i.Ready && !i.Killing {
			spare++
		}
	}
	if capacity > v.Target && !v.Stuck {
		// Nobody waits for those that fell ill or are away.
		keep := v.Target
		for _, i := range v.Current {
			if (i.Sick || i.Condition == Unreachable) && !i.Ready && !i.Killing {
				keep--
			}
		}
		spare = min(spare, spare+minReady-keep)
	}
	give := func(i Instance) {
		if i.Ready {
			spare--
		}
		d.Kill = append(d.Kill, i.ID)
	}
	for _, i := range v.order(v.Old) {
		if !i.Ready || spare > 0 {
			give(i)
		}
	}
	surplus := living(v.Current) - v.Target
	for _, i := range v.order(v.Current) {
		if surplus > 0 && (!i.Ready || spare > 0) {
			give(i)
			surplus--
		}
	}
	room := capacity - len(v.Old) - len(v.Current)
	d.Launch = max(0, min(v.Target-living(v.Current), room))
	all := slices.Concat(v.Old, v.Current)
	d.Done = len(all) == v.Target && allReady(all)
	return d
}

// Resize decides a ScaleApplication, and what keeps an app without deployment
// at its size: too many are killed, too few are launched. Configurations do
// not matter.
func Resize(v View) Decision {
	all := slices.Concat(v.Old, v.Current)
	var d Decision
	n := living(all)
	if n > v.Target {
		for _, i := range v.order(all)[:n-v.Target] {
			d.Kill = append(d.Kill, i.ID)
		}
	}
	d.Launch = max(0, v.Target-n)
	d.Done = len(all) == v.Target && allReady(all)
	return d
}

// End decides a StopApplication.
func End(v View) Decision {
	all := slices.Concat(v.Old, v.Current)
	d := Decision{Done: len(all) == 0}
	for _, i := range all {
		if !i.Killing {
			d.Kill = append(d.Kill, i.ID)
		}
	}
	return d
}

func living(is []Instance) int {
	n := 0
	for _, i := range is {
		if !i.Killing {
			n++
		}
	}
	return n
}

func allReady(is []Instance) bool {
	return !slices.ContainsFunc(is, func(i Instance) bool { return !i.Ready || i.Killing })
}

// order returns the instances that could be killed, first the ones to kill
// first: what is not ready before what is, then by keeping the GROUP_BY groups
// even, then by condition, then by age.
func (v View) order(is []Instance) []Instance {
	left := slices.DeleteFunc(slices.Clone(is), func(i Instance) bool { return i.Killing })
	slices.SortFunc(left, func(a, b Instance) int {
		if c := cmp.Compare(rank(a.Ready), rank(b.Ready)); c != 0 {
			return c
		}
		if c := cmp.Compare(a.Condition, b.Condition); c != 0 {
			return c
		}
		age := cmp.Compare(b.Since, a.Since)
		if v.OldestFirst {
			age = -age
		}
		return cmp.Or(age, cmp.Compare(a.ID, b.ID))
	})
	groups := map[string]int{}
	for _, i := range left {
		groups[i.Spread]++
	}
	if len(groups) < 2 {
		return left
	}
	return even(left, groups)
}

// even reorders left so that each next one comes from a largest group, the
// ready ones after the others. It runs once per kill with groups few.
func even(left []Instance, groups map[string]int) []Instance {
	queues := map[string][]Instance{}
	for _, i := range left {
		queues[i.Spread] = append(queues[i.Spread], i)
	}
	names := make([]string, 0, len(queues))
	for g := range queues {
		names = append(names, g)
	}
	slices.Sort(names)
	out := make([]Instance, 0, len(left))
	for len(out) < len(left) {
		best := ""
		found := false
		for _, g := range names {
			q := queues[g]
			if len(q) == 0 {
				continue
			}
			if !found || better(q[0], groups[g], queues[best][0], groups[best]) {
				best, found = g, true
			}
		}
		out = append(out, queues[best][0])
		queues[best] = queues[best][1:]
		groups[best]--
	}
	return out
}

func better(a Instance, na int, b Instance, nb int) bool {
	if a.Ready != b.Ready {
		return !a.Ready
	}
	return na > nb
}

func rank(ready bool) int {
	if ready {
		return 1
	}
	return 0
}
