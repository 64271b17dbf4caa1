// Package reassign decides where the replicas of partitions are to be, so that
// every broker has its share and as few as possible move. It is pure.
package reassign

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// Partition is one partition and the brokers that hold it; the first is to lead.
type Partition struct {
	Topic    string
	ID       int32
	Replicas []int32
}

// Plan returns the partitions whose replicas change, with the new ones. Only
// brokers are used; on each of them are as many replicas as on any other, give
// or take one, and likewise as many that are to lead as the replicas' places
// allow. It fails when a partition has more replicas than there are brokers.
//
// Its cost is the number of moves times the number of partitions of a broker.
func Plan(partitions []Partition, brokers []int32) ([]Partition, error) {
	if len(brokers) == 0 {
		return nil, fmt.Errorf("there are no brokers to place partitions on")
	}
	b := board{held: map[int32]map[int]bool{}, now: make([][]int32, len(partitions))}
	for _, id := range brokers {
		b.held[id] = map[int]bool{}
	}
	b.brokers = slices.Sorted(maps.Keys(b.held))
	for i, p := range partitions {
		if len(p.Replicas) > len(b.brokers) {
			return nil, fmt.Errorf("%s-%d has %d replicas, and there are only %d brokers for them", p.Topic, p.ID, len(p.Replicas), len(b.brokers))
		}
		b.now[i] = slices.Clone(p.Replicas)
		for _, r := range p.Replicas {
			if b.held[r] != nil {
				b.held[r][i] = true
			}
		}
	}
	b.evict()
	b.level()
	b.lead()
	var changed []Partition
	for i, p := range partitions {
		if !slices.Equal(p.Replicas, b.now[i]) {
			changed = append(changed, Partition{p.Topic, p.ID, b.now[i]})
		}
	}
	return changed, nil
}

// board is where replicas are, from both sides.
type board struct {
	brokers []int32
	now     [][]int32              // by partition
	held    map[int32]map[int]bool // partitions by broker
}

// move puts a replica of partition i elsewhere, in the same place of the order.
func (b *board) move(i int, from, to int32) {
	b.now[i][slices.Index(b.now[i], from)] = to
	delete(b.held[from], i)
	b.held[to][i] = true
}

// evict moves replicas off brokers that are not to have any.
func (b *board) evict() {
	for i, replicas := range b.now {
		for _, r := range slices.Clone(replicas) {
			if b.held[r] == nil {
				b.move(i, r, b.least(func(id int32) bool { return !b.held[id][i] }))
			}
		}
	}
}

// least is the broker with the fewest replicas among those that may be chosen;
// there is one.
func (b *board) least(may func(int32) bool) int32 {
	var best int32
	found := false
	for _, id := range b.brokers {
		if may(id) && (!found || len(b.held[id]) < len(b.held[best])) {
			best, found = id, true
		}
	}
	return best
}

// level moves replicas from the broker with the most to the one with the
// fewest until they differ by no more than one. There always is a partition to
// move: the broker with more has one that the other lacks.
func (b *board) level() {
	for {
		most := slices.MaxFunc(b.brokers, func(x, y int32) int { return cmp.Compare(len(b.held[x]), len(b.held[y])) })
		least := b.least(func(int32) bool { return true })
		if len(b.held[most])-len(b.held[least]) <= 1 {
			return
		}
		first := -1
		for i := range b.held[most] {
			if !b.held[least][i] && (first < 0 || i < first) {
				first = i
			}
		}
		b.move(first, most, least)
	}
}

// lead reorders replicas so that each broker is the first of about as many as
// the others: partitions in turn are led by the one of their replicas that
// leads the fewest, and by the present one if it leads no more than that.
func (b *board) lead() {
	leads := map[int32]int{}
	for _, replicas := range b.now {
		if len(replicas) > 0 {
			leads[replicas[0]]++
		}
	}
	for changed := true; changed; {
		changed = false
		for _, replicas := range b.now {
			for k := 1; k < len(replicas); k++ {
				if leads[replicas[0]]-leads[replicas[k]] > 1 {
					leads[replicas[0]]--
					leads[replicas[k]]++
					replicas[0], replicas[k] = replicas[k], replicas[0]
					changed = true
				}
			}
		}
	}
}
