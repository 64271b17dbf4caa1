package workload

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"dcos.example/dcos/runtime/fault"
)

// operate makes a call of the master's v1 API that has no answer.
func (c *Cluster) operate(ctx context.Context, query, typ, field string, more map[string]any) error {
	return c.gateway.JSON(ctx, http.MethodPost, masterPath+"/api/v1"+query, map[string]any{"type": typ, field: more}, nil)
}

func agentID(id string) map[string]string { return map[string]string{"value": id} }

// Drain orders an agent to be emptied. A nil bound gives tasks all the time
// they need.
func (c *Cluster) Drain(ctx context.Context, id string, bound *time.Duration) error {
	more := map[string]any{"agent_id": agentID(id)}
	if bound != nil {
		more["max_grace_period"] = map[string]int64{"seconds": int64(*bound / time.Second), "nanos": int64(*bound % time.Second)}
	}
	return c.operate(ctx, "", "DRAIN_AGENT", "drain_agent", more)
}

// Find returns the agent of the host with that address as soon as the cluster
// knows it, and tells: after a fail-over both take a moment. It is
// fault.NotFound when there is none after patience.
func (c *Cluster) Find(ctx context.Context, address string, patience time.Duration) (Agent, error) {
	began := time.Now()
	for {
		a, err := c.AgentAt(ctx, address)
		settled := err == nil && a.State != Disconnected || err != nil && !fault.Is(err, fault.NotFound) && !fault.Is(err, fault.Unavailable)
		if settled || time.Since(began) >= patience {
			return a, err
		}
		select {
		case <-ctx.Done():
			return a, fault.New("find the agent at "+address, fault.Unavailable, context.Cause(ctx))
		case <-time.After(pollEvery):
		}
	}
}

// Reactivate has an agent used again, also one that is still draining.
func (c *Cluster) Reactivate(ctx context.Context, id string) error {
	return c.operate(ctx, "?cancel_drain=true", "REACTIVATE_AGENT", "reactivate_agent", map[string]any{"agent_id": agentID(id)})
}

// MarkGone says that an agent will not come back.
func (c *Cluster) MarkGone(ctx context.Context, id string) error {
	return c.operate(ctx, "", "MARK_AGENT_GONE", "mark_agent_gone", map[string]any{"agent_id": agentID(id)})
}

// Progress is how far a drain is.
type Progress struct {
	State string
	Tasks int // that are left
}

const (
	// pollEvery is how often a drain is looked at.
	pollEvery = 500 * time.Millisecond
	// absentFor is how long an agent may be unknown to the master before it
	// counts as gone: after a fail-over it needs a moment to be back, and one
	// that is silent is given up after 75 s.
	absentFor = 90 * time.Second
)

// WaitDrained waits until nothing is left on the agent, and tells of each
// step. An agent that has gone meanwhile is empty too. One whose drain was
// called off is fault.Conflict. ctx bounds the wait.
func (c *Cluster) WaitDrained(ctx context.Context, id string, report func(Progress)) error {
	op := "drain agent " + id
	last := Progress{Tasks: -1}
	seen := time.Now()
	for {
		p, err := c.progress(ctx, id)
		switch {
		case fault.Is(err, fault.NotFound):
			if time.Since(seen) >= absentFor {
				return nil
			}
		case err != nil && ctx.Err() == nil && fault.Is(err, fault.Unavailable):
			// A fail-over of the masters; the drain goes on.
		case err != nil && ctx.Err() == nil:
			return err
		case err == nil:
			seen = time.Now()
			if p != last {
				last = p
				report(p)
			}
			switch p.State {
			case Drained:
				return nil
			case Draining, Disconnected:
			default:
				return fault.Newf(op, fault.Conflict, "it is %s: somebody has called the drain off", p.State)
			}
		}
		select {
		case <-ctx.Done():
			return fault.New(op, fault.Unavailable, fmt.Errorf("%w: %d tasks are left", context.Cause(ctx), max(0, last.Tasks)))
		case <-time.After(pollEvery):
		}
	}
}

func (c *Cluster) progress(ctx context.Context, id string) (Progress, error) {
	all, err := c.Agents(ctx)
	if err != nil {
		return Progress{}, err
	}
	for _, a := range all {
		if a.ID == id {
			return Progress{State: a.State, Tasks: a.Tasks}, nil
		}
	}
	return Progress{}, fault.Newf("look at agent "+id, fault.NotFound, "the cluster has no such agent")
}
