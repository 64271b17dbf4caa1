package reassign_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"dcos.example/dcos/universe/tools/kafka/reassign"
)

// TestPlan: what Plan promises, whatever there is.
func TestPlan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := []int32{0, 1, 2, 3, 4, 5, 6}
		to := all[:rapid.IntRange(3, len(all)).Draw(t, "brokers")]
		if rapid.Bool().Draw(t, "without the first") {
			to = to[1:]
		}
		var before []reassign.Partition
		for i := range rapid.IntRange(0, 60).Draw(t, "partitions") {
			replicas := rapid.Permutation(all).Draw(t, "replicas")[:rapid.IntRange(1, min(3, len(to))).Draw(t, "factor")]
			before = append(before, reassign.Partition{Topic: "t", ID: int32(i), Replicas: replicas})
		}
		given := clone(before)
		changed, err := reassign.Plan(before, to)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(given, before); diff != "" {
			t.Fatalf("what was given is changed:\n%s", diff)
		}
		after := clone(before)
		for _, p := range changed {
			after[p.ID] = p
		}
		count := map[int32]int{}
		for i, p := range after {
			if len(p.Replicas) != len(before[i].Replicas) {
				t.Fatalf("%v became %v", before[i], p)
			}
			sorted := slices.Sorted(slices.Values(p.Replicas))
			if len(slices.Compact(sorted)) != len(p.Replicas) {
				t.Fatalf("%v is on one broker twice", p)
			}
			for _, r := range p.Replicas {
				if !slices.Contains(to, r) {
					t.Fatalf("%v is on broker %d, which is not among %v", p, r, to)
				}
				count[r]++
			}
		}
		least, most := count[to[0]], 0
		for _, id := range to {
			least, most = min(least, count[id]), max(most, count[id])
		}
		if most-least > 1 {
			t.Fatalf("brokers have from %d to %d replicas", least, most)
		}
		if again, err := reassign.Plan(after, to); err != nil || len(again) != 0 {
			t.Fatalf("a second plan changes %v (%v)", again, err)
		}
	})
}

func clone(partitions []reassign.Partition) []reassign.Partition {
	out := slices.Clone(partitions)
	for i := range out {
		out[i].Replicas = slices.Clone(out[i].Replicas)
	}
	return out
}

// TestGrow: three brokers become five, and only what must moves.
func TestGrow(t *testing.T) {
	var before []reassign.Partition
	for i := range int32(10) {
		before = append(before, reassign.Partition{Topic: "t", ID: i, Replicas: []int32{i % 3, (i + 1) % 3, (i + 2) % 3}})
	}
	changed, err := reassign.Plan(before, []int32{0, 1, 2, 3, 4})
	if err != nil {
		t.Fatal(err)
	}
	moved := 0
	for _, p := range changed {
		for _, r := range p.Replicas {
			if r > 2 {
				moved++
			}
		}
	}
	if moved != 12 {
		t.Errorf("%d replicas moved; 30 on five brokers are 6 on each, so 12 must", moved)
	}
}

func TestTooFew(t *testing.T) {
	_, err := reassign.Plan([]reassign.Partition{{Topic: "t", Replicas: []int32{0, 1, 2}}}, []int32{0, 1})
	if err == nil || err.Error() != "t-0 has 3 replicas, and there are only 2 brokers for them" {
		t.Error(err)
	}
}
