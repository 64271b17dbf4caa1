package engine

import "dcos.example/dcos/installer/stack"

// Recorded returns goals that ask for exactly what a state holds: with them an
// apply goes back to it. What the inputs once took from outputs of other
// resources is as it was then.
func Recorded(st *stack.State) []Goal {
	var goals []Goal
	for _, r := range st.Resources() {
		g := Goal{Key: KeyOf(r.URN), Inputs: Constant(r.Inputs), Protect: r.Protect, Retain: r.Retain,
			SecretOutputs: r.SecretOutputs, Timeouts: r.Timeouts}
		for _, u := range r.Dependencies {
			g.Dependencies = append(g.Dependencies, KeyOf(u))
		}
		goals = append(goals, g)
	}
	return goals
}
