package entry_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/membership"
	"dcos.example/dcos/runtime/membership/entry"
)

func addr(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}) }

func master(n int) config.Member { return config.Member{Name: "m" + strconv.Itoa(n), Addr: addr(n)} }

// seed lists masters 1 to n, of which the first f are founders.
func seed(n, f int) (s config.Masters) {
	for i := range n {
		s.Masters = append(s.Masters, master(i+1))
		if i < f {
			s.Founders = append(s.Founders, master(i+1).Name)
		}
	}
	return s
}

// list is of generation g and has members with the ids given.
func list(g int64, ids ...int) membership.List {
	l := membership.List{Cluster: "c", Generation: g, Revision: 7}
	for _, n := range ids {
		l.Members = append(l.Members, membership.Member{Name: master(n).Name, Addr: addr(n), ID: id(n), Role: membership.Voter})
	}
	return l
}

func id(n int) string { return fmt.Sprintf("%d%d", n, n) }

type views map[int]membership.View

func empty(s config.Masters) membership.View {
	return membership.View{Stage: membership.Empty, Founders: entry.Text(s)}
}

func founding(s config.Masters, n int) membership.View {
	return membership.View{Stage: membership.Founding, Founders: entry.Text(s), ID: id(n)}
}

func serving(l membership.List, n int) membership.View {
	return membership.View{Stage: membership.Serving, ID: id(n), Majority: true, List: l}
}

func starting(l membership.List, n int) membership.View {
	return membership.View{Stage: membership.Starting, ID: id(n), List: l}
}

// situation is that of master 1.
func situation(s config.Masters, vs views) entry.Situation {
	sit := entry.Situation{Cluster: "c", Self: master(1), Seed: s, Views: map[netip.Addr]membership.View{}, Port: 2380}
	for n, v := range vs {
		v.Cluster, v.Name, v.Addr = "c", master(n).Name, addr(n)
		sit.Views[addr(n)] = v
	}
	return sit
}

func TestDecide(t *testing.T) {
	one, three, five := seed(1, 1), seed(3, 3), seed(5, 5)
	grown := seed(3, 1)
	long := 2 * entry.Patience
	with := func(s entry.Situation, change func(*entry.Situation)) entry.Situation { change(&s); return s }
	data := func(n int) *entry.Data { return &entry.Data{ID: id(n)} }
	for name, c := range map[string]struct {
		in   entry.Situation
		want entry.Action
		why  string
	}{
		"a lone founder":                  {situation(one, nil), entry.Found, "agree"},
		"three at once":                   {situation(three, views{2: empty(three), 3: empty(three)}), entry.Found, "agree"},
		"three, the others have begun":    {situation(three, views{2: founding(three, 2), 3: founding(three, 3)}), entry.Found, "agree"},
		"three, one is late":              {situation(three, views{2: empty(three)}), entry.Wait, "for a moment: m3"},
		"three, one is away":              {with(situation(three, views{2: empty(three)}), func(s *entry.Situation) { s.Waited = long }), entry.Found, "agree"},
		"three, two are away":             {with(situation(three, nil), func(s *entry.Situation) { s.Waited = long }), entry.Wait, "needs 2 of 3 founders: m2 (10.0.0.2) does not answer; m3"},
		"five at once":                    {situation(five, views{2: empty(five), 3: founding(five, 3), 4: empty(five), 5: empty(five)}), entry.Found, "agree"},
		"five, two are away":              {with(situation(five, views{2: empty(five), 3: empty(five)}), func(s *entry.Situation) { s.Waited = long }), entry.Found, "agree"},
		"five, three are away":            {with(situation(five, views{2: empty(five)}), func(s *entry.Situation) { s.Waited = long }), entry.Wait, "needs 3 of 5"},
		"told of other founders":          {situation(three, views{2: empty(one), 3: empty(three)}), entry.Wait, "m2 was told of other founders (m1=10.0.0.1)"},
		"all told of other founders":      {with(situation(three, views{2: empty(one), 3: empty(one)}), func(s *entry.Situation) { s.Waited = long }), entry.Wait, "needs 2 of 3"},
		"another cluster at the address":  {with(situation(three, views{2: empty(three), 3: empty(three)}), other), entry.Wait, "needs 2 of 3"},
		"no founder, nobody there":        {with(situation(grown, nil), func(s *entry.Situation) { s.Self = master(2) }), entry.Wait, "may not found"},
		"no founder, others empty":        {with(situation(grown, views{3: empty(grown)}), func(s *entry.Situation) { s.Self = master(2) }), entry.Wait, "may not found"},
		"1 → 3 before the first is there": {situation(grown, views{2: empty(grown)}), entry.Found, "agree"},
		"a new one joins": {with(situation(grown, nil), func(s *entry.Situation) {
			s.Self = master(2)
			s.Views = situation(grown, views{3: serving(list(5, 1, 3), 3)}).Views
		}), entry.Join, "has masters"},
		"grown, founder replaced":            {situation(grown, views{2: serving(list(5, 1, 2, 3), 2), 3: serving(list(5, 1, 2, 3), 3)}), entry.Join, "has masters"},
		"grown, founder replaced, one there": {situation(grown, views{2: starting(list(5, 1, 2, 3), 2)}), entry.Wait, "none of them that has a majority"},
		"grown, founder replaced, all away":  {with(situation(grown, nil), func(s *entry.Situation) { s.Waited = long }), entry.Wait, "may know an ensemble: m2"},
		"replaced, others away":              {with(situation(three, nil), func(s *entry.Situation) { s.Waited = long }), entry.Wait, "needs 2 of 3"},
		"replaced, one empty too, one away":  {with(situation(three, views{2: empty(three)}), func(s *entry.Situation) { s.Known = list(5, 1, 2, 3); s.Waited = long }), entry.Wait, "none of them that has a majority"},
		"replaced, one has data":             {with(situation(three, views{2: empty(three), 3: starting(membership.List{}, 3)}), func(s *entry.Situation) { s.Waited = long }), entry.Wait, "m3 (10.0.0.3) has data"},
		"replaced, one remembers":            {situation(three, views{2: {Stage: membership.Empty, Founders: entry.Text(three), List: list(5, 1, 2, 3)}, 3: empty(three)}), entry.Wait, "none of them that has a majority"},
		"an ensemble without a record yet":   {situation(three, views{2: serving(membership.List{}, 2), 3: empty(three)}), entry.Join, "m2 is in an ensemble"},
		"set aside, nobody there":            {with(situation(one, nil), func(s *entry.Situation) { s.Previous = "f" }), entry.Wait, "no master answers"},
		"removed on purpose":                 {with(situation(grown, views{2: serving(left(list(5, 2, 3), "f"), 2)}), func(s *entry.Situation) { s.Previous = "f" }), entry.Leave, "removed"},
		"removed by a recovery":              {with(situation(grown, views{2: serving(list(6, 2), 2)}), func(s *entry.Situation) { s.Previous = "f" }), entry.Join, "has masters"},

		"restart":                              {with(situation(three, nil), func(s *entry.Situation) { s.Data = data(1); s.Known = list(5, 1, 2, 3) }), entry.Start, "has data"},
		"restart while founding":               {with(situation(three, nil), func(s *entry.Situation) { s.Data = data(1); s.Data.Founding = true }), entry.Start, "has data"},
		"restart, removed on purpose":          {with(situation(three, nil), func(s *entry.Situation) { s.Data = data(1); s.Known = left(list(5, 2, 3), id(1)) }), entry.Leave, "removed"},
		"forgotten, survivor there":            {with(situation(three, views{3: serving(list(6, 3), 3)}), func(s *entry.Situation) { s.Data = data(1); s.Known = list(5, 1, 2, 3) }), entry.Rejoin, "went on without"},
		"forgotten, survivor away":             {with(situation(three, views{2: starting(list(5, 1, 2, 3), 2)}), func(s *entry.Situation) { s.Data = data(1); s.Known = list(6, 3) }), entry.Wait, "went on without"},
		"forgotten, survivor has no majority":  {with(situation(three, views{3: starting(list(6, 3), 3)}), func(s *entry.Situation) { s.Data = data(1); s.Known = list(5, 1, 2, 3) }), entry.Wait, "went on without"},
		"another generation, own has majority": {with(situation(three, views{2: serving(list(5, 1, 2, 3), 2), 3: serving(list(6, 3), 3)}), func(s *entry.Situation) { s.Data = data(1) }), entry.Start, "m2 is in the ensemble of its data"},
		"founded by others without this one":   {with(situation(three, views{2: serving(list(5, 2, 3), 2)}), func(s *entry.Situation) { s.Data = data(1); s.Data.Founding = true }), entry.Rejoin, "went on without"},
	} {
		t.Run(name, func(t *testing.T) {
			d := entry.Decide(c.in)
			if d.Do != c.want || !strings.Contains(d.Reason, c.why) {
				t.Errorf("%s: %s; want %s: %s", d.Do, d.Reason, c.want, c.why)
			}
			if d.Do == entry.Join && len(d.Ask) == 0 || d.Do == entry.Found && len(d.With) != len(c.in.Seed.Founders) {
				t.Errorf("%+v", d)
			}
		})
	}
}

// other makes the masters that answer belong to another cluster.
func other(s *entry.Situation) {
	for a, v := range s.Views {
		v.Cluster = "d"
		s.Views[a] = v
	}
}

func left(l membership.List, ids ...string) membership.List {
	l.Left = ids
	return l
}

func TestMoved(t *testing.T) {
	s := situation(seed(3, 3), views{2: starting(list(5, 1, 2, 3), 2), 3: starting(list(5, 1, 2, 3), 3)})
	s.Known = list(5, 1, 2, 3)
	s.Data = &entry.Data{ID: id(1), Addrs: map[string]netip.AddrPort{
		id(1): netip.AddrPortFrom(addr(101), 2380), id(2): netip.AddrPortFrom(addr(102), 2380), id(3): netip.AddrPortFrom(addr(3), 2380),
	}}
	d := entry.Decide(s)
	if d.Do != entry.Start || len(d.Addrs) != 1 || d.Addrs[id(2)] != netip.AddrPortFrom(addr(2), 2380) {
		t.Errorf("%+v", d)
	}
}

// TestNeverTwoEnsembles: whatever part of the masters answers, in whatever
// state they are, an empty master founds only if no one that answers has ever
// been in an ensemble, and if a majority of founders and of masters answers.
// And founders that see each other found the same.
func TestNeverTwoEnsembles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.SampledFrom([]int{1, 3, 5}).Draw(t, "masters")
		f := rapid.SampledFrom([]int{1, 3, 5}).Filter(func(f int) bool { return f <= n }).Draw(t, "founders")
		s := seed(n, f)
		l := list(5, 1, 2, 3)
		existed := false
		vs := views{}
		for i := 2; i <= n; i++ {
			switch rapid.IntRange(0, 5).Draw(t, fmt.Sprint("view of ", i)) {
			case 1:
				vs[i] = empty(s)
			case 2:
				vs[i] = founding(s, i)
			case 3:
				vs[i], existed = serving(l, i), true
			case 4:
				vs[i], existed = starting(membership.List{}, i), true
			case 5:
				v := empty(s)
				v.List, existed = l, true
				vs[i] = v
			}
		}
		sit := situation(s, vs)
		sit.Waited = time.Duration(rapid.IntRange(0, 20).Draw(t, "waited")) * time.Second
		d := entry.Decide(sit)
		if d.Do != entry.Found {
			return
		}
		founders, answered := 1, 1
		for i := range vs {
			answered++
			if i <= f {
				founders++
			}
		}
		if existed || founders <= f/2 || answered <= n/2 {
			t.Fatalf("founds, although %+v", sit)
		}
		if !slices.Equal(d.With, entry.Founders(s)) {
			t.Fatalf("founds with %v", d.With)
		}
	})
}
