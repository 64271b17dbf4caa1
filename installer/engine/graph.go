package engine

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"

	"dcos.example/dcos/installer/stack"
	"dcos.example/dcos/providers"
	"dcos.example/dcos/runtime/fault"
)

// node is a goal in the graph of a run.
type node struct {
	goal     Goal
	urn      resource.URN
	provider providers.Provider
	deps     []*node

	old      *stack.Resource // what exists, or nil
	decision decision
	step     *Step
	blocked  bool // it or a dependency could not be planned
	out      outputs
}

// buildGraph checks the goals and returns them with dependencies first, in the
// given order where dependencies allow. All problems are reported together.
// Linear in goals and dependencies.
func buildGraph(stackName string, goals []Goal, set providers.Set) ([]*node, error) {
	byKey := make(map[Key]*node, len(goals))
	nodes := make([]*node, 0, len(goals))
	var problems []error
	problem := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	for _, g := range goals {
		n := &node{goal: g, urn: g.URN(stackName)}
		switch {
		case g.Name == "" || strings.Contains(g.Name, "::"):
			problem("%q is no name for a %s", g.Name, g.Type)
			continue
		case byKey[g.Key] != nil:
			problem("%s (%s) is wanted twice", g.Key, g.Type)
			continue
		}
		p, err := set.For(g.Type)
		if err != nil {
			problem("%s: %w", g.Key, err)
		}
		n.provider = p
		byKey[g.Key] = n
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		seen := map[Key]bool{}
		for _, k := range n.goal.Dependencies {
			d := byKey[k]
			if d == nil {
				problem("%s depends on %s (%s), which is not part of the goals", n.goal.Key, k, k.Type)
			} else if !seen[k] {
				n.deps = append(n.deps, d)
			}
			seen[k] = true
		}
	}
	order, cycle := sortNodes(nodes)
	if cycle != nil {
		problem("resources depend on each other in a circle: %s", strings.Join(cycle, " → "))
	}
	checkRolls(order, problem)
	if len(problems) > 0 {
		return nil, fault.New("plan", fault.Invalid, errors.Join(problems...))
	}
	return order, nil
}

// sortNodes returns nodes with dependencies first, or the names along a cycle.
func sortNodes(nodes []*node) (order []*node, cycle []string) {
	const (
		unseen = iota
		open
		done
	)
	mark := make(map[*node]int, len(nodes))
	var path []*node
	var visit func(n *node) bool
	visit = func(n *node) bool {
		switch mark[n] {
		case done:
			return true
		case open:
			for _, p := range append(path[slices.Index(path, n):], n) {
				cycle = append(cycle, p.goal.Key.String())
			}
			return false
		}
		mark[n] = open
		path = append(path, n)
		for _, d := range n.deps {
			if !visit(d) {
				return false
			}
		}
		path = path[:len(path)-1]
		mark[n] = done
		order = append(order, n)
		return true
	}
	for _, n := range nodes {
		if !visit(n) {
			return nil, cycle
		}
	}
	return order, nil
}
