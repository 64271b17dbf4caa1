package core

import (
	"fmt"

	"dcos.example/dcos/runtime/api/agentlink"
	"dcos.example/dcos/runtime/resource"
	"dcos.example/dcos/runtime/task"
)

// CollectSnapshot is the part of Snapshot that holds the mutex.
func (c *Core) CollectSnapshot() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.snapshot()
}

// AllocateNow makes the offers that Run would make.
func (c *Core) AllocateNow() { c.allocate() }

// SweepOperations is what Run does each second.
func (c *Core) SweepOperations() { c.sweepOperations() }

// ToKeep is the last document sent to the agent.
func (c *Core) ToKeep(id task.AgentID) *agentlink.CheckpointResources {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.agents[id].toKeep()
}

// CheckBooks reports where the books of master and allocator do not add up.
func (c *Core) CheckBooks() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, a := range c.agents {
		var used, offered resource.Resources
		for _, r := range a.tasks {
			if r.held {
				used = used.Add(r.res)
			}
		}
		for _, e := range a.executors {
			used = used.Add(e.res)
		}
		for _, o := range a.offers {
			offered = offered.Add(o.res)
		}
		if !used.Equal(a.used) || !offered.Equal(a.offered) {
			return fmt.Errorf("agent %s: used %v, by tasks %v; offered %v, in offers %v", id, a.used, used, a.offered, offered)
		}
		free, _ := c.alloc.Free(id)
		if sum := free.Add(used.Unallocate().Exclusive()).Add(offered.Unallocate().Exclusive()); !sum.Equal(a.total) {
			return fmt.Errorf("agent %s: free %v, used %v and offered %v make\n%v of\n%v", id, free, used, offered, sum, a.total)
		}
		for _, o := range a.operations {
			if f := c.frameworks[o.framework]; o.id != "" && (f == nil || f.operations[o.id] != o) {
				return fmt.Errorf("agent %s: operation %q is not with its framework", id, o.id)
			}
		}
	}
	for _, f := range c.frameworks {
		for id, o := range f.operations {
			if a := c.agents[task.AgentID(o.agent.GetValue())]; a == nil || a.operations[o.uuid] != o {
				return fmt.Errorf("framework %s: operation %q is not with its agent", f.id, id)
			}
		}
	}
	return nil
}
