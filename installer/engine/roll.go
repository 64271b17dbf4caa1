package engine

import "fmt"

// Roll makes changes to resources that already work go through them a few at
// a time: the order of an upgrade. New resources are not held up, and neither
// are deletions of what is wanted no more.
//
// A member of a higher rank waits until every changing member of the lower
// ranks is done. After a failure nothing that has not begun is begun: what is
// changed stays changed, the rest stays as it was.
type Roll struct {
	Name string // members of one roll share it; "" is no roll
	Rank int    // lower ranks first
	Max  int    // members of this rank changing at any moment; at least 1
}

// lane is one rank of a roll that changes something in this run.
type lane struct {
	slots chan struct{}
	roll  *rolling
}

// rolling is what the ranks of a roll share. Guarded by executor.mu.
type rolling struct{ failed string }

// turn is the place of one member in its lane. A replacement takes it for the
// deletion and keeps it until the new object stands.
type turn struct {
	lane *lane
	held bool // by the tasks of this member, which never run at the same time
}

// checkRolls reports members that their own dependencies wait for. Nodes come
// with dependencies first.
func checkRolls(nodes []*node, problem func(string, ...any)) {
	highest := make(map[*node]map[string]int, len(nodes)) // rank by roll, among a node and what it needs
	for _, n := range nodes {
		below := map[string]int{}
		for _, d := range n.deps {
			for name, rank := range highest[d] {
				below[name] = max(below[name], rank)
			}
		}
		if r := n.goal.Roll; r.Name != "" {
			if below[r.Name] > r.Rank {
				problem("%s has rank %d in roll %s and depends on a resource of rank %d", n.goal.Key, r.Rank, r.Name, below[r.Name])
			}
			below[r.Name] = max(below[r.Name], r.Rank)
		}
		highest[n] = below
	}
}

// rolls puts the tasks of everything that rolls in this run into lanes, and
// lets the ranks wait for each other.
func (x *executor) rolls(ensure map[*node]*task, removals map[*removal]*task) {
	type place struct {
		roll string
		rank int
	}
	lanes, shared := map[place]*lane{}, map[string]*rolling{}
	members := map[string][]*node{}
	for _, n := range x.plan.nodes {
		r := n.goal.Roll
		if op := n.decision.op; r.Name == "" || op != OpUpdate && op != OpReplace {
			continue
		}
		if shared[r.Name] == nil {
			shared[r.Name] = &rolling{}
		}
		at := place{r.Name, r.Rank}
		if lanes[at] == nil {
			lanes[at] = &lane{slots: make(chan struct{}, max(r.Max, 1)), roll: shared[r.Name]}
		}
		members[r.Name] = append(members[r.Name], n)
		ensure[n].turn = &turn{lane: lanes[at]}
	}
	for r, t := range removals {
		if r.first && r.node != nil {
			t.turn = ensure[r.node].turn
		}
	}
	// Quadratic in the changing members of different ranks, of which there are
	// few: a rank for followers, one for the leader, one for agents.
	for _, all := range members {
		for _, n := range all {
			for _, before := range all {
				if before.goal.Roll.Rank < n.goal.Roll.Rank {
					ensure[n].needs = append(ensure[n].needs, ensure[before])
				}
			}
		}
	}
	for r, t := range removals {
		if t.turn == nil {
			continue
		}
		for _, before := range members[r.node.goal.Roll.Name] {
			if before.goal.Roll.Rank < r.node.goal.Roll.Rank {
				t.needs = append(t.needs, ensure[before])
			}
		}
	}
}

// take waits for t's turn. It returns why t must not begin, or "".
func (x *executor) take(t *task) string {
	if t.turn == nil || t.turn.held {
		return ""
	}
	select {
	case t.turn.lane.slots <- struct{}{}:
		t.turn.held = true
	case <-x.stop.Done():
		return "stopped before it began"
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if by := t.turn.lane.roll.failed; by != "" {
		return fmt.Sprintf("%s, so nothing more is changed one after the other", by)
	}
	return ""
}

// give ends t's turn, unless the rest of a replacement follows.
func (x *executor) give(t *task) {
	if t.turn == nil {
		return
	}
	if t.outcome == failed {
		x.mu.Lock()
		t.turn.lane.roll.failed = t.reason
		x.mu.Unlock()
	}
	if t.turn.held && (!t.removes || t.outcome == failed) {
		t.turn.held = false
		<-t.turn.lane.slots
	}
}
