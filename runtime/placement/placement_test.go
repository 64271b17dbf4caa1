package placement_test

import (
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/placement"
)

func on(rack string) placement.Place {
	return placement.Place{Host: "x", Attributes: map[string]string{"rack": rack}}
}

func TestConstraints(t *testing.T) {
	bare := placement.Place{Host: "y"}
	for name, tc := range map[string]struct {
		constraint []string
		placed     []placement.Place
		at         placement.Place
		want       string
	}{
		"unique, free":             {[]string{"rack", "UNIQUE"}, nil, on("a"), ""},
		"unique, taken":            {[]string{"rack", "UNIQUE"}, []placement.Place{on("a")}, on("a"), `rack UNIQUE: it is "a", with 1 instances there`},
		"unique, no such thing":    {[]string{"rack", "UNIQUE"}, nil, bare, "rack UNIQUE: the agent has no rack"},
		"cluster with value":       {[]string{"rack", "CLUSTER", "b"}, nil, on("a"), `rack CLUSTER b: it is "a", with 0 instances there`},
		"cluster follows":          {[]string{"rack", "CLUSTER"}, []placement.Place{on("b")}, on("b"), ""},
		"cluster does not part":    {[]string{"rack", "CLUSTER"}, []placement.Place{on("b")}, on("a"), `rack CLUSTER: it is "a", with 0 instances there`},
		"cluster picks one":        {[]string{"@hostname", "CLUSTER"}, nil, on("a"), ""},
		"group by, new":            {[]string{"rack", "GROUP_BY"}, []placement.Place{on("a")}, on("b"), ""},
		"group by, uneven":         {[]string{"rack", "GROUP_BY"}, []placement.Place{on("a"), on("a"), on("b")}, on("a"), `rack GROUP_BY: it is "a", with 2 instances there`},
		"group by, few groups":     {[]string{"rack", "GROUP_BY", "3"}, []placement.Place{on("a"), on("b")}, on("a"), `rack GROUP_BY 3: it is "a", with 1 instances there`},
		"like":                     {[]string{"rack", "LIKE", "[ac]"}, nil, on("ab"), `rack LIKE [ac]: it is "ab", with 0 instances there`},
		"unlike":                   {[]string{"rack", "UNLIKE", "a"}, nil, on("a"), `rack UNLIKE a: it is "a", with 0 instances there`},
		"unlike takes the bare":    {[]string{"rack", "UNLIKE", "a"}, nil, bare, ""},
		"max per":                  {[]string{"rack", "MAX_PER", "2"}, []placement.Place{on("a"), on("a")}, on("a"), `rack MAX_PER 2: it is "a", with 2 instances there`},
		"max per, room":            {[]string{"rack", "MAX_PER", "2"}, []placement.Place{on("a")}, on("a"), ""},
		"is":                       {[]string{"rack", "IS", "1.0"}, nil, on("1"), ""},
		"is, in another region":    {[]string{"@region", "IS", "r"}, nil, placement.Place{Region: "s"}, `@region IS r: it is "s", with 0 instances there`},
		"zone of an agent without": {[]string{"@zone", "UNIQUE"}, nil, bare, "@zone UNIQUE: the agent has no @zone"},
	} {
		got := placement.Compile([][]string{tc.constraint}, tc.placed).Against(tc.at)
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestCheck(t *testing.T) {
	for _, tc := range []struct {
		constraint []string
		want       string
	}{
		{[]string{"hostname"}, "Each constraint must have either 2 or 3 fields"},
		{[]string{"", "UNIQUE"}, "Missing field and operator"},
		{[]string{"hostname", "UNIQUE", "x"}, "UNIQUE does not accept a value"},
		{[]string{"r", "GROUP_BY", "x"}, "Value was specified but is not a number"},
		{[]string{"r", "GROUP_BY", ""}, ""},
		{[]string{"r", "LIKE"}, "A regular expression value must be provided"},
		{[]string{"r", "LIKE", "("}, "'(' is not a valid regular expression"},
		{[]string{"r", "MAX_PER", "x"}, "Value was not specified or is not a number"},
		{[]string{"r", "IS"}, "IS requires a value"},
		{[]string{"r", "NEAR"}, "operator must be one of the following UNIQUE, CLUSTER, GROUP_BY, LIKE, MAX_PER, UNLIKE or IS"},
	} {
		if got := placement.Check(tc.constraint); got != tc.want {
			t.Errorf("%v: %q, want %q", tc.constraint, got, tc.want)
		}
	}
}

// TestLimitsHold: however instances are added, as long as the rules accept
// each, the limits of UNIQUE and MAX_PER are never passed, and GROUP_BY keeps
// the groups that it knows within one of each other.
func TestLimitsHold(t *testing.T) {
	racks := []string{"a", "b", "c"}
	rapid.Check(t, func(t *rapid.T) {
		op := rapid.SampledFrom([]string{placement.Unique, placement.MaxPer, placement.GroupBy}).Draw(t, "op")
		c := []string{"rack", op}
		if op != placement.Unique {
			c = append(c, "2")
		}
		rs := placement.Compile([][]string{c}, nil)
		count := map[string]int{}
		if op == placement.GroupBy {
			for _, rack := range racks {
				rs.Add(on(rack))
				count[rack]++
			}
		}
		for range rapid.IntRange(0, 20).Draw(t, "tries") {
			rack := rapid.SampledFrom(racks).Draw(t, "rack")
			if rs.Accept(on(rack)) {
				rs.Add(on(rack))
				count[rack]++
			}
		}
		least, most := 1<<30, 0
		for _, n := range count {
			least, most = min(least, n), max(most, n)
		}
		switch {
		case op == placement.Unique && most > 1, op == placement.MaxPer && most > 2,
			op == placement.GroupBy && most > least+1:
			t.Fatal(op, count)
		}
	})
}

func TestAttributesAsConstraintsSeeThem(t *testing.T) {
	p := placement.Of("h", nil, []*mesos.Attribute{
		{Name: proto.String("n"), Type: mesos.Value_SCALAR.Enum(), Scalar: &mesos.Value_Scalar{Value: proto.Float64(1.25)}},
		{Name: proto.String("w"), Type: mesos.Value_SCALAR.Enum(), Scalar: &mesos.Value_Scalar{Value: proto.Float64(3)}},
		{Name: proto.String("s"), Type: mesos.Value_SET.Enum(), Set: &mesos.Value_Set{Item: []string{"b", "a"}}},
		{Name: proto.String("r"), Type: mesos.Value_RANGES.Enum(), Ranges: &mesos.Value_Ranges{Range: []*mesos.Value_Range{
			{Begin: proto.Uint64(5), End: proto.Uint64(9)}, {Begin: proto.Uint64(1), End: proto.Uint64(3)},
		}}},
		{Name: proto.String("t"), Type: mesos.Value_TEXT.Enum(), Text: &mesos.Value_Text{Value: proto.String("v")}},
		{Name: proto.String("t"), Type: mesos.Value_TEXT.Enum(), Text: &mesos.Value_Text{Value: proto.String("second")}},
	})
	want := map[string]string{"n": "1.25", "w": "3", "s": "{a,b}", "r": "[1-3,5-9]", "t": "v"}
	if !maps.Equal(p.Attributes, want) {
		t.Error(cmp.Diff(want, p.Attributes))
	}
}
