package program

import (
	"slices"

	"dcos.example/dcos/installer/engine"
)

// Rolling says how changes go through hosts that work.
type Rolling struct {
	Masters []string // names; one of them at a time
	Leader  string   // the leading one goes last; "" when it is not known
	Agents  int      // how many of the others change at once
}

// Roll orders the changes of goals' nodes: masters first, one by one, the
// leader last among them, so that leadership moves once, and to a master that
// has been changed. Then agents, a few at a time. A roll ends at the first host
// that fails.
func Roll(goals []engine.Goal, r Rolling) {
	rank := map[string]int{}
	for _, m := range r.Masters {
		if m != r.Leader {
			rank[m] = len(rank)
		}
	}
	last := len(rank)
	for i := range goals {
		g := &goals[i]
		if g.Type != TypeNode {
			continue
		}
		g.Roll = engine.Roll{Name: "hosts", Rank: last + 1, Max: r.Agents}
		if slices.Contains(r.Masters, g.Name) {
			g.Roll.Rank, g.Roll.Max = last, 1
			if at, follows := rank[g.Name]; follows {
				g.Roll.Rank = at
			}
		}
	}
}
