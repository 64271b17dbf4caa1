package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"

	"dcos.example/dcos/installer/cli/view"
	"dcos.example/dcos/installer/engine"
	"dcos.example/dcos/installer/program"
	"dcos.example/dcos/installer/topology"
	"dcos.example/dcos/installer/workload"
	"dcos.example/dcos/providers"
	"dcos.example/dcos/runtime/fault"
)

// draining is the provider of nodes, with which agents are emptied before they
// are updated and used again after, as `upgrade { drain = true }` asks. An
// agent that was out of use before stays so.
type draining struct {
	providers.Provider
	session *session
	bound   time.Duration         // that tasks have to leave
	quiet   map[resource.URN]bool // updates that restart nothing
}

// drainingUpdates returns the providers of the session with that of nodes
// replaced.
func (s *session) drainingUpdates(p *engine.Plan, bound time.Duration) providers.Set {
	set := maps.Clone(s.options.Providers)
	pkg := program.TypeNode.Package()
	d := draining{Provider: set[pkg], session: s, bound: bound, quiet: map[resource.URN]bool{}}
	for _, step := range p.Steps {
		if step.Type == string(program.TypeNode) {
			d.quiet[step.URN] = view.Quiet(step)
		}
	}
	set[pkg] = d
	return set
}

// findPatience is how long the cluster may take to know an agent again.
const findPatience = 30 * time.Second

// Update empties the agent, updates it, and has it used again, also when the
// update failed: a host that was put back works as before.
func (d draining) Update(ctx context.Context, req plugin.UpdateRequest) (plugin.UpdateResponse, error) {
	if req.Preview || req.Type != program.TypeNode || text(req.OldInputs["role"]) == string(topology.RoleMaster) || d.quiet[req.URN] {
		return d.Provider.Update(ctx, req)
	}
	c, done, err := d.session.workload()
	if err != nil {
		return plugin.UpdateResponse{}, err
	}
	defer done()
	id, err := d.empty(ctx, c, text(req.OldInputs["address"]))
	if err != nil {
		return plugin.UpdateResponse{}, errors.Join(err, d.use(ctx, c, id))
	}
	res, err := d.Provider.Update(ctx, req)
	return res, errors.Join(err, d.use(ctx, c, id))
}

// empty drains the agent at address and returns its id, or "" for one that was
// not in use.
func (d draining) empty(ctx context.Context, c *workload.Cluster, address string) (id string, err error) {
	step := providers.Step(ctx, "drain")
	defer func() { _ = step(err) }()
	// The masters change first: they may just be electing a leader.
	a, err := c.Find(ctx, address, findPatience)
	if fault.Is(err, fault.NotFound) || err == nil && a.State != workload.Active {
		return "", nil
	}
	if err == nil {
		err = c.Drain(ctx, a.ID, &d.bound)
	}
	if err != nil {
		return "", err
	}
	patience := d.bound + time.Minute
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("not empty after %s", patience))
	defer cancel()
	return a.ID, c.WaitDrained(ctx, a.ID, func(p workload.Progress) {
		providers.Note(ctx, "drain", fmt.Sprintf("tasks left: %d", p.Tasks))
	})
}

// use has the agent used again, also when the operator has stopped the apply.
func (d draining) use(ctx context.Context, c *workload.Cluster, id string) error {
	if id == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), snapshotTime)
	defer cancel()
	return c.Reactivate(ctx, id)
}
