package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"

	"dcos.example/dcos/installer/cli/view"
	"dcos.example/dcos/installer/engine"
	"dcos.example/dcos/installer/impact"
	"dcos.example/dcos/installer/program"
	"dcos.example/dcos/installer/stack"
	"dcos.example/dcos/installer/topology"
	"dcos.example/dcos/installer/workload"
	"dcos.example/dcos/runtime/fault"
)

// usualGrace is the time that tasks have to leave an agent whose host goes away.
const usualGrace = 5 * time.Minute

// snapshotTime bounds reading what runs on the cluster.
const snapshotTime = 10 * time.Second

// workload returns the running cluster, and what ends the connection.
func (s *session) workload() (*workload.Cluster, func(), error) {
	c, err := s.gateway()
	if err != nil {
		return nil, nil, err
	}
	return workload.New(c), c.Close, nil
}

// plannedHost is what a plan does to one host.
type plannedHost struct {
	impact.Change
	was      bool
	host, at engine.Op // of the host, and of what is installed on it
	quiet    bool      // nothing is restarted
}

// changesOf reads from a plan what happens to hosts. drained says that agents
// are emptied before they are updated.
func changesOf(p *engine.Plan, st *stack.State, t *topology.Topology, drained bool) []impact.Change {
	byName := map[string]*plannedHost{}
	var order []string
	for _, step := range p.Steps {
		typ := tokens.Type(step.Type)
		if !program.IsHost(typ) && typ != program.TypeNode {
			continue
		}
		h := byName[step.Name]
		if h == nil {
			h = &plannedHost{Change: impact.Change{Host: step.Name}, host: engine.OpSame, at: engine.OpSame}
			byName[step.Name] = h
			order = append(order, step.Name)
		}
		if old := st.Live(step.URN); old != nil {
			h.was = true
			h.Role, h.Address = text(old.Inputs["role"]), text(old.Inputs["address"])
		}
		if typ == program.TypeNode {
			h.at, h.quiet = step.Op, view.Quiet(step)
		} else {
			h.host = step.Op
		}
	}
	if t != nil {
		for _, want := range t.Hosts {
			if h := byName[want.Name]; h != nil && !h.was {
				h.Role, h.Address = string(want.Role), want.Addr.String()
			}
		}
	}
	out := []impact.Change{}
	for _, name := range order {
		if h := byName[name]; h.classify(drained) {
			out = append(out, h.Change)
		}
	}
	return out
}

// classify names the change; false if the host does not change.
func (h *plannedHost) classify(drained bool) bool {
	ops := []engine.Op{h.host, h.at}
	has := func(op engine.Op) bool { return slices.Contains(ops, op) }
	switch {
	case !h.was:
		h.Kind = impact.Create
	case h.host == engine.OpDelete, h.host == engine.OpForget, h.host == engine.OpSame && h.at == engine.OpDelete:
		h.Kind = impact.Remove
	case has(engine.OpReplace):
		h.Kind = impact.Replace
	case has(engine.OpCreate):
		h.Kind = impact.Create // what was there is gone already
	case has(engine.OpUpdate) && !h.quiet:
		h.Kind, h.Drained = impact.Update, drained && h.Role != string(topology.RoleMaster)
	default:
		return false
	}
	return true
}

// report says what p does to what runs on the cluster, and how long about it
// takes; roll is how it goes through agents, and t has the hosts that are wanted. It asks the cluster only if something may be moved.
func (s *session) report(ctx context.Context, p *engine.Plan, t *topology.Topology, roll topology.Upgrade) (*impact.Report, error) {
	if !p.HasChanges() {
		return nil, nil
	}
	st, err := s.stack.State()
	if err != nil {
		return nil, err
	}
	changes := changesOf(p, st, t, roll.Drain)
	rep := impact.Report{Effects: []impact.Effect{}}
	if st.Live(program.ClusterKey(s.cluster).URN(s.stack.Name())) != nil && impact.Matters(changes) {
		rep = s.effects(ctx, st, changes)
	}
	var moving []time.Duration
	for _, e := range rep.Effects {
		moving = append(moving, e.Moving)
	}
	past, err := s.past()
	if err != nil {
		return nil, err
	}
	rep.Expected = impact.Expect(stepsOf(p, st, t), past, s.options.Parallel, roll.MaxUnavailable, moving)
	return &rep, nil
}

// effects plays changes on what the cluster says that it runs.
func (s *session) effects(ctx context.Context, st *stack.State, changes []impact.Change) impact.Report {
	ctx, cancel := context.WithTimeout(ctx, snapshotTime)
	defer cancel()
	c, done, err := s.workload()
	if err != nil {
		return impact.Blind(changes, err.Error())
	}
	defer done()
	snap, err := c.Snapshot(ctx, hostNames(st))
	if err != nil {
		return impact.Blind(changes, err.Error())
	}
	return impact.Of(snap, changes)
}

// hostNames names the recorded hosts by their addresses.
func hostNames(st *stack.State) map[string]string {
	out := map[string]string{}
	for _, res := range st.Resources() {
		if k := engine.KeyOf(res.URN); k.Type == program.TypeNode {
			out[text(res.Inputs["address"])] = k.Name
		}
	}
	return out
}

// stepsOf lists the steps of p that take time.
func stepsOf(p *engine.Plan, st *stack.State, t *topology.Topology) (out []impact.Step) {
	roles := map[string]string{}
	if t != nil {
		for _, h := range t.Hosts {
			roles[h.Name] = string(h.Role)
		}
	}
	for _, step := range p.Steps {
		if step.Op == engine.OpSame || step.Op == engine.OpForget {
			continue
		}
		x := impact.Step{Op: string(step.Op), Kind: string(step.Key().Type.Name())}
		if program.IsHost(tokens.Type(step.Type)) || step.Type == string(program.TypeNode) {
			x.Host, x.Role = step.Name, roles[step.Name]
			if old := st.Live(step.URN); old != nil {
				x.Role = text(old.Inputs["role"])
			}
		}
		out = append(out, x)
	}
	return out
}

// keptPast is how many of the last applies estimates are made from.
const keptPast = 7

// past is how long steps took in the stack's own history.
func (s *session) past() (impact.Past, error) {
	recs, err := s.stack.History()
	if err != nil {
		return nil, err
	}
	past := impact.Past{}
	n := 0
	for _, rec := range slices.Backward(recs) {
		if rec.Result != stack.Succeeded || len(rec.Took) == 0 {
			continue
		}
		if n++; n > keptPast {
			break
		}
		for class, t := range rec.Took {
			past[class] = append(past[class], t.Mean)
		}
	}
	return past, nil
}

// refuse is the error of a plan that would take something down, nil if there
// is none or it shall be done all the same.
func refuse(rep *impact.Report, force bool) error {
	if rep == nil || len(rep.Refusals) == 0 || force {
		return nil
	}
	return fault.Newf("carry out the plan", fault.Denied, "it would take down what runs:\n  %s\nGive -force to do it all the same.", strings.Join(rep.Refusals, "\n  "))
}

// vacated are agents that were emptied for a change of their hosts.
type vacated struct {
	host, id string
}

// vacate empties the agents whose hosts go away or are made anew, all at once,
// before anything is changed. An agent that does not answer cannot be emptied:
// it is marked gone, so that its tasks start elsewhere.
func (s *session) vacate(ctx context.Context, rep *impact.Report, bound time.Duration) ([]vacated, error) {
	if rep == nil || rep.Unknown != "" {
		return nil, nil
	}
	var hosts []impact.Effect
	for _, e := range rep.Effects {
		if e.Empties() && e.Kind != impact.Update && e.Known {
			hosts = append(hosts, e)
		}
	}
	if len(hosts) == 0 {
		return nil, nil
	}
	c, done, err := s.workload()
	if err != nil {
		return nil, err
	}
	defer done()
	var out []vacated
	for _, e := range hosts {
		a, err := c.AgentAt(ctx, e.Address)
		if fault.Is(err, fault.NotFound) {
			continue
		}
		if err != nil {
			return out, err
		}
		if a.State == workload.Disconnected {
			if err := s.run.show(view.Message{What: "drain", Text: e.Host + " does not answer; its tasks are started elsewhere.",
				Fields: map[string]string{"host": e.Host, "agent": a.ID, "state": "gone"}}); err != nil {
				return out, err
			}
			if err := c.MarkGone(ctx, a.ID); err != nil {
				return out, err
			}
			continue
		}
		if a.State != workload.Drained {
			if err := c.Drain(ctx, a.ID, &bound); err != nil {
				return out, err
			}
		}
		out = append(out, vacated{e.Host, a.ID})
	}
	return out, s.emptied(ctx, c, out, bound+time.Minute)
}

// emptied waits until all of agents are.
func (s *session) emptied(ctx context.Context, c *workload.Cluster, agents []vacated, patience time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("not empty after %s", patience))
	defer cancel()
	for _, a := range agents { // they empty at the same time; waiting for one after the other costs nothing
		err := c.WaitDrained(ctx, a.id, func(p workload.Progress) { s.tellDrain(a.host, a.id, p) })
		if err != nil {
			return fmt.Errorf("%w\nIts agent is not used until: dcos-install node undrain %s", err, a.host)
		}
	}
	return nil
}

// tellDrain shows how far a drain is; what cannot be written is no reason to
// stop it.
func (s *session) tellDrain(host, id string, p workload.Progress) {
	line := fmt.Sprintf("%s: %d tasks are left", host, p.Tasks)
	switch {
	case p.State == workload.Drained:
		line = host + " is drained."
	case p.Tasks == 1:
		line = host + ": 1 task is left"
	case p.Tasks == 0:
		line = host + ": no task is left"
	}
	_ = s.run.show(view.Message{What: "drain", Text: line, Fields: map[string]string{
		"host": host, "agent": id, "state": p.State, "tasks": fmt.Sprint(p.Tasks)}})
}

// bury marks the agents gone whose hosts are: all of them after an apply that
// was done, else those that the state does not have any more. What does not
// work is said, and does no harm: the cluster notices itself, later.
func (s *session) bury(ctx context.Context, agents []vacated, all bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), snapshotTime)
	defer cancel()
	err := func() error {
		st, err := s.stack.State()
		if err != nil || len(agents) == 0 {
			return err
		}
		c, done, err := s.workload()
		if err != nil {
			return err
		}
		defer done()
		for _, a := range agents {
			if !all && st.Live(engine.Key{Type: program.TypeNode, Name: a.host}.URN(s.stack.Name())) != nil {
				continue
			}
			if err := c.MarkGone(ctx, a.id); err != nil && !fault.Is(err, fault.NotFound) {
				return err
			}
		}
		return nil
	}()
	if err != nil {
		_ = s.run.show(view.Message{What: "notice", Text: "The cluster was not told that agents are gone for good: " + err.Error()})
	}
}
