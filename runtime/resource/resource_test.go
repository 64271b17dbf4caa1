package resource_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/resource"
)

//lint:file-ignore SA1019 Tests the form before reservation refinement, too.

func scalar(name string, v float64, edit func(*mesos.Resource)) *mesos.Resource {
	p := &mesos.Resource{Name: proto.String(name), Type: mesos.Value_SCALAR.Enum(), Scalar: &mesos.Value_Scalar{Value: proto.Float64(v)}}
	if edit != nil {
		edit(p)
	}
	return p
}

func dynamic(role, principal string) func(*mesos.Resource) {
	return func(p *mesos.Resource) {
		p.Reservations = append(p.Reservations, &mesos.Resource_ReservationInfo{
			Type: mesos.Resource_ReservationInfo_DYNAMIC.Enum(), Role: proto.String(role), Principal: proto.String(principal)})
	}
}

func volume(id string, mb float64) *mesos.Resource {
	return scalar("disk", mb, func(p *mesos.Resource) {
		dynamic("db", "ops")(p)
		p.Disk = &mesos.Resource_DiskInfo{Persistence: &mesos.Resource_DiskInfo_Persistence{Id: proto.String(id)}}
	})
}

func must(t interface{ Fatal(...any) }, ps ...*mesos.Resource) resource.Resources {
	r, err := resource.FromProto(ps)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// gen draws Resources over few names and roles, so that entries often meet.
func gen(t *rapid.T, label string) resource.Resources {
	var ps []*mesos.Resource
	for i := range rapid.IntRange(0, 6).Draw(t, label+" n") {
		l := fmt.Sprintf("%s %d", label, i)
		var p *mesos.Resource
		switch rapid.IntRange(0, 3).Draw(t, l+" kind") {
		case 0, 1:
			p = scalar(rapid.SampledFrom([]string{"cpus", "mem", "disk"}).Draw(t, l+" name"), float64(rapid.IntRange(1, 5000).Draw(t, l+" v"))/1000, nil)
		case 2:
			p = &mesos.Resource{Name: proto.String("ports"), Type: mesos.Value_RANGES.Enum(), Ranges: &mesos.Value_Ranges{}}
			for k := range rapid.IntRange(1, 4).Draw(t, l+" ranges") {
				b := uint64(rapid.IntRange(0, 30).Draw(t, fmt.Sprint(l, k)))
				p.Ranges.Range = append(p.Ranges.Range, &mesos.Value_Range{Begin: &b, End: proto.Uint64(b + uint64(k))})
			}
		case 3:
			p = &mesos.Resource{Name: proto.String("s"), Type: mesos.Value_SET.Enum(), Set: &mesos.Value_Set{
				Item: rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c"}), 1, 3, rapid.ID).Draw(t, l+" set")}}
		}
		switch rapid.IntRange(0, 3).Draw(t, l+" meta") {
		case 0:
			dynamic("eng", "p")(p)
		case 1:
			dynamic("eng", "p")(p)
			dynamic("eng/web", "p")(p)
		case 2:
			if p.GetName() == "disk" {
				p = volume(rapid.SampledFrom([]string{"v1", "v2"}).Draw(t, l+" vol"), p.GetScalar().GetValue())
			}
		}
		ps = append(ps, p)
	}
	r, err := resource.FromProto(ps)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAlgebra(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := gen(t, "a"), gen(t, "b"), gen(t, "c")
		eq := func(law string, x, y resource.Resources) {
			if !x.Equal(y) {
				t.Fatalf("%s: %v != %v", law, x, y)
			}
		}
		eq("commutative", a.Add(b), b.Add(a))
		eq("associative", a.Add(b).Add(c), a.Add(b.Add(c)))
		eq("identity", a.Add(resource.Resources{}), a)
		eq("self", a.Sub(a), resource.Resources{})
		if !a.Add(b).Contains(a) {
			t.Fatalf("%v+%v does not contain the first", a, b)
		}
		if a.Contains(b) {
			// Ranges and sets are idempotent, so only the part taken must come back.
			eq("take and give back", a.Sub(b).Add(b), a)
		}
		if a.Contains(b) && b.Contains(c) && !a.Contains(c) {
			t.Fatal("Contains is not transitive")
		}
		if s := a.Add(b).Scalar("cpus"); s != a.Scalar("cpus")+b.Scalar("cpus") {
			t.Fatalf("cpus of a sum is %v", s)
		}
		eq("allocation round trip", a.Allocate("x").Unallocate(), a)
		eq("split by role", a.Reserved("").Add(a.Unreserved()), a)
		if !a.AllocatableTo("eng/web").Contains(a.AllocatableTo("eng")) {
			t.Fatal("a child may not use what its parent may")
		}
		back, err := resource.FromProto(a.Allocate("r").Proto())
		if err != nil {
			t.Fatal(err)
		}
		eq("wire round trip", back, a.Allocate("r"))
	})
}

func TestAssign(t *testing.T) {
	all := resource.MustParse("cpus:4;mem:1024;ports:[1-10];disk(slave_public):100")
	got, err := all.Assign(resource.AnyRole, "db", resource.MustParse("cpus:1.5;ports:[2-3]"))
	if want := resource.MustParse("cpus:2.5;cpus(db):1.5;mem:1024;ports:[1-1,4-10];ports(db):[2-3];disk(slave_public):100"); err != nil || !got.Equal(want) {
		t.Errorf("%s, %v", got, err)
	}
	got, err = got.Assign("slave_public", "db", resource.MustParse("disk:100"))
	if err != nil || got.Reserved("db").Scalar("disk") != 100*resource.Unit || got.Reserved("slave_public").Len() != 0 {
		t.Errorf("%s, %v", got, err)
	}
	for what, c := range map[string]struct{ from, role, part string }{
		"cpus:5 are not there for role 'db': left are 'cpus:4'": {"*", "db", "cpus:5;mem:1"},
		"disk:1 are not there":        {"*", "db", "disk:1"},
		"more than a quantity":        {"*", "db", "cpus(x):1"},
		"has them already":            {"*", "*", "cpus:1"},
		"Role name 'a b' is invalid:": {"*", "a b", "cpus:1"},
	} {
		if _, err := all.Assign(c.from, c.role, resource.MustParse(c.part)); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestRangesAgainstSets(t *testing.T) {
	draw := func(t *rapid.T, l string) (resource.Ranges, map[uint64]bool) {
		var rs []resource.Range
		set := map[uint64]bool{}
		for i := range rapid.IntRange(0, 5).Draw(t, l) {
			b := uint64(rapid.IntRange(0, 40).Draw(t, fmt.Sprint(l, "b", i)))
			e := b + uint64(rapid.IntRange(0, 5).Draw(t, fmt.Sprint(l, "e", i)))
			rs = append(rs, resource.Range{Begin: b, End: e})
			for n := b; n <= e; n++ {
				set[n] = true
			}
		}
		return resource.NewRanges(rs...), set
	}
	rapid.Check(t, func(t *rapid.T) {
		a, sa := draw(t, "a")
		b, sb := draw(t, "b")
		u, m, x := a.Union(b), a.Minus(b), a.Intersect(b)
		contains := true
		for n := range uint64(60) {
			if u.Has(n) != (sa[n] || sb[n]) || m.Has(n) != (sa[n] && !sb[n]) || x.Has(n) != (sa[n] && sb[n]) {
				t.Fatalf("a=%v b=%v: wrong at %d: union %v minus %v intersect %v", a, b, n, u, m, x)
			}
			contains = contains && (!sb[n] || sa[n])
		}
		if a.Contains(b) != contains {
			t.Fatalf("%v contains %v: want %v", a, b, contains)
		}
		if a.Count() != uint64(len(sa)) {
			t.Fatalf("%v has count %d, want %d", a, a.Count(), len(sa))
		}
		back, err := resource.ParseRanges(a.String())
		if err != nil || !back.Equal(a) {
			t.Fatalf("%v reads back as %v, %v", a, back, err)
		}
	})
}

func TestParse(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"cpus:4;mem:1024;ports:[1-5,7-7]", "cpus:4;mem:1024;ports:[1-5, 7-7]"},
		{"cpus(eng/web):0.1; cpus(eng/web):0.2", "cpus(eng/web):0.3"},
		{"cpus(*):1;cpus:0.0004", "cpus:1"},
		{"s:{b,a};ports:[3-4,1-2]", "ports:[1-4];s:{a, b}"},
		{`[{"name":"cpus","type":"SCALAR","scalar":{"value":2},"role":"db"}]`, "cpus(db):2"},
		{"", ""},
	} {
		r, err := resource.Parse(tc.in)
		if err != nil || r.String() != tc.want {
			t.Errorf("Parse(%q) = %q, %v; want %q", tc.in, r, err, tc.want)
		}
	}
	for _, bad := range []string{"cpus", "cpus:x", "cpus:-1", "cpus:NaN", "ports:[5-1]", "ports:[1", "s:{a", "cpus(a:1", "cpus(..):1", ":1", "gpus:1.5"} {
		if r, err := resource.Parse(bad); err == nil {
			t.Errorf("Parse(%q) = %q, want an error", bad, r)
		}
	}
}

func TestReservationFormats(t *testing.T) {
	old := []*mesos.Resource{
		scalar("cpus", 1, nil),
		scalar("cpus", 2, func(p *mesos.Resource) { p.Role = proto.String("web") }),
		scalar("cpus", 3, func(p *mesos.Resource) {
			p.Role = proto.String("web")
			p.Reservation = &mesos.Resource_ReservationInfo{Principal: proto.String("ops")}
		}),
	}
	r := must(t, old...)
	wantNew := []*mesos.Resource{
		scalar("cpus", 1, nil),
		scalar("cpus", 3, dynamic("web", "ops")),
		scalar("cpus", 2, func(p *mesos.Resource) {
			p.Reservations = []*mesos.Resource_ReservationInfo{{Type: mesos.Resource_ReservationInfo_STATIC.Enum(), Role: proto.String("web")}}
		}),
	}
	byCPU := protocmp.SortRepeated(func(a, b *mesos.Resource) bool { return a.GetScalar().GetValue() < b.GetScalar().GetValue() })
	if d := cmp.Diff(&mesos.Offer{Resources: wantNew}, &mesos.Offer{Resources: r.Proto()}, protocmp.Transform(), byCPU); d != "" {
		t.Error("refined form (-want +got):\n", d)
	}
	old[0].Role = proto.String("*")
	if d := cmp.Diff(&mesos.Offer{Resources: old}, &mesos.Offer{Resources: r.ProtoLegacy()}, protocmp.Transform(), byCPU); d != "" {
		t.Error("legacy form (-want +got):\n", d)
	}
	both := must(t, scalar("cpus", 1, dynamic("eng", "p"))).ProtoBoth()[0]
	if back := must(t, both); back.Len() != 1 || back.ReservedRoles()[0] != "eng" {
		t.Errorf("both forms read back as %v", back)
	}
	if both.GetRole() != "eng" || both.GetReservation().GetPrincipal() != "p" || len(both.Reservations) != 1 {
		t.Errorf("both forms: %v", both)
	}
	refined := must(t, scalar("cpus", 1, func(p *mesos.Resource) { dynamic("eng", "p")(p); dynamic("eng/web", "p")(p) }))
	if got := refined.ProtoLegacy(); len(got) != 0 {
		t.Errorf("a refined reservation has no legacy form, got %v", got)
	}
}

func TestInvalidProto(t *testing.T) {
	for name, p := range map[string]*mesos.Resource{
		"negative":      scalar("cpus", -1, nil),
		"no name":       scalar("", 1, nil),
		"half a gpu":    scalar("gpus", .5, nil),
		"star reserved": scalar("cpus", 1, dynamic("*", "")),
		"not refined":   scalar("cpus", 1, func(p *mesos.Resource) { dynamic("a", "")(p); dynamic("b", "")(p) }),
		"forms differ":  scalar("cpus", 1, func(p *mesos.Resource) { p.Role = proto.String("a"); dynamic("b", "")(p) }),
		"no scalar":     {Name: proto.String("cpus"), Type: mesos.Value_SCALAR.Enum()},
		"disk on cpus":  scalar("cpus", 1, func(p *mesos.Resource) { p.Disk = &mesos.Resource_DiskInfo{} }),
		"shared cpus":   scalar("cpus", 1, func(p *mesos.Resource) { p.Shared = &mesos.Resource_SharedInfo{} }),
	} {
		if r, err := resource.FromProto([]*mesos.Resource{p}); err == nil {
			t.Errorf("%s: accepted as %v", name, r)
		}
	}
}

func TestVolumesNeverMerge(t *testing.T) {
	v := must(t, volume("v1", 10))
	two := v.Add(v)
	if two.Len() != 2 || two.Sub(v).Len() != 1 {
		t.Errorf("two volumes: %v, less one: %v", two, two.Sub(v))
	}
	if v.Contains(must(t, volume("v1", 5))) {
		t.Error("half a volume was found in a volume")
	}
	if _, _, ok := v.Take("disk", 1); ok {
		t.Error("disk was drawn from a volume")
	}
	if back, want := v.WithoutVolumes(), must(t, scalar("disk", 10, dynamic("db", "ops"))); !back.Equal(want) {
		t.Errorf("destroyed volume is %v, want %v", back, want)
	}
}

func TestLabelsAreAMultiset(t *testing.T) {
	res := func(keys ...string) resource.Resources {
		ls := &mesos.Labels{}
		for _, k := range keys {
			ls.Labels = append(ls.Labels, &mesos.Label{Key: proto.String(k)})
		}
		return must(t, scalar("cpus", 1, func(p *mesos.Resource) { dynamic("r", "")(p); p.Reservations[0].Labels = ls }))
	}
	if !res("a", "b").Equal(res("b", "a")) {
		t.Error("order of labels matters")
	}
	if res("a").Equal(res("b")) {
		t.Error("labels do not matter")
	}
}

func TestPushPop(t *testing.T) {
	r := resource.MustParse("cpus:2")
	a, err := r.Push(resource.Reservation{Role: "eng", Principal: "p"})
	if err != nil {
		t.Fatal(err)
	}
	b, err := a.Push(resource.Reservation{Role: "eng/web"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Push(resource.Reservation{Role: "ops"}); err == nil {
		t.Error("ops refined eng")
	}
	if back, err := b.Pop(); err != nil || !back.Equal(a) {
		t.Errorf("pop: %v, %v", back, err)
	}
	if _, err := resource.MustParse("cpus(eng):1").Pop(); err == nil {
		t.Error("a static reservation was undone")
	}
	if !b.Flatten().Equal(r) {
		t.Errorf("flat: %v", b.Flatten())
	}
}

func TestTake(t *testing.T) {
	r := resource.MustParse("cpus(web):1;cpus:3;ports(web):[80-80];ports:[31000-31010]")
	taken, left, ok := r.Take("cpus", 2*resource.Unit, "web", "*")
	if !ok || taken.String() != "cpus:1;cpus(web):1" || left.Scalar("cpus") != 2*resource.Unit {
		t.Errorf("taken %v, left %v, %v", taken, left, ok)
	}
	if _, left, ok := r.Take("cpus", 2*resource.Unit, "web"); ok || !left.Equal(r) {
		t.Error("took more than is reserved to web")
	}
	taken, _, ok = r.TakePorts([]uint64{80, 31001}, "web", "*")
	if !ok || taken.String() != "ports:[31001-31001];ports(web):[80-80]" {
		t.Errorf("ports taken %v, %v", taken, ok)
	}
	for _, bad := range [][]uint64{{80, 80}, {90}} {
		if _, _, ok := r.TakePorts(bad); ok {
			t.Errorf("took ports %v", bad)
		}
	}
	if _, _, ok := r.TakePorts([]uint64{80}, "*"); ok {
		t.Error("took a port reserved to another role")
	}
}

func TestCheckRole(t *testing.T) {
	for _, ok := range []string{"*", "web", "a/b", "a.b", "a-b"} {
		if err := resource.CheckRole(ok); err != nil {
			t.Errorf("%q: %v", ok, err)
		}
	}
	for _, bad := range []string{"", ".", "..", "-a", "a b", "a/", "/a", "a//b", "a/*", "a/-b", "a\bb"} {
		if resource.CheckRole(bad) == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestAttributes(t *testing.T) {
	as, err := resource.Attributes(map[string]string{"rack": "r1", "n": "3", "p": "[1-2,4]"})
	if err != nil || len(as) != 3 {
		t.Fatal(as, err)
	}
	for i, want := range []string{"3", "[1-2, 4-4]", "r1"} { // by name
		if got := resource.AttributeText(as[i]); got != want {
			t.Errorf("attribute %d is %q, want %q", i, got, want)
		}
	}
	if _, err := resource.Attributes(map[string]string{"rack": "", "": "x"}); err == nil {
		t.Error("accepted attributes without name or value")
	}
}

func BenchmarkAddSub(b *testing.B) {
	total := resource.MustParse("cpus:24;mem:4096;disk:4096;ports:[31000-32000]")
	used := resource.MustParse("cpus:16;mem:1024;disk:1024;ports:[31000-31000,31002-31002,31004-31004]")
	b.ReportAllocs()
	for b.Loop() {
		free := total.Sub(used)
		if !free.Add(used).Contains(free) {
			b.Fatal("lost resources")
		}
	}
}

// TestVolumesAreTheirIDs: as in Mesos, a task may mount a volume where it likes.
func TestVolumesAreTheirIDs(t *testing.T) {
	at := func(path string, size float64) resource.Resources {
		p := volume("v", size)
		p.Disk.Volume = &mesos.Volume{ContainerPath: proto.String(path), Mode: mesos.Volume_RW.Enum()}
		p.Disk.Persistence.Principal = proto.String(path)
		return must(t, p)
	}
	a, b := at("a", 5), at("b", 5)
	if !a.Contains(b) || !a.Equal(b) || !a.Sub(b).Empty() {
		t.Errorf("%v and %v are the same volume", a, b)
	}
	if a.Contains(at("a", 6)) || a.Contains(must(t, volume("w", 5))) {
		t.Error("volumes of other sizes or ids are others")
	}
	for it := range a.Add(b).All() {
		if it.Disk().GetVolume().GetContainerPath() == "" {
			t.Errorf("%v is not mounted", it)
		}
	}
}

func TestDistinctAndConfigured(t *testing.T) {
	p := volume("v", 5)
	p.Shared = &mesos.Resource_SharedInfo{}
	one := must(t, p)
	plain := must(t, scalar("cpus", 1, dynamic("eng", "p")))
	twice := one.Add(one).Add(plain)
	if got := twice.Distinct(); !got.Equal(one.Add(plain)) {
		t.Errorf("distinct: %v", got)
	}
	if got := twice.Exclusive(); !got.Equal(plain) {
		t.Errorf("exclusive: %v", got)
	}
	if got := must(t, volume("v", 5), volume("v", 5)).Distinct(); got.Len() != 2 {
		t.Errorf("what is not shared stays: %v", got)
	}
	refined, err := resource.MustParse("mem(eng):7").Push(resource.Reservation{Role: "eng/web"})
	if err != nil {
		t.Fatal(err)
	}
	if got := one.Add(plain).Add(refined).Configured(); !got.Equal(resource.MustParse("disk:5;cpus:1;mem(eng):7")) {
		t.Errorf("configured: %v", got)
	}
}
