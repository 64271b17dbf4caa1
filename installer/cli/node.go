package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dcos.example/dcos/installer/cli/view"
	"dcos.example/dcos/installer/engine"
	"dcos.example/dcos/installer/impact"
	"dcos.example/dcos/installer/program"
	"dcos.example/dcos/installer/stack"
	"dcos.example/dcos/installer/topology"
	"dcos.example/dcos/installer/workload"
	"dcos.example/dcos/runtime/fault"
)

func (r *run) nodeCommand() *cobra.Command {
	parent := &cobra.Command{
		Use:   "node",
		Short: "List, add, drain, replace and remove hosts of the cluster",
		Long: `List the hosts with what the cluster makes of them, empty agents, and add, replace or
remove hosts. Changes edit cluster.hcl in place, show the same plan as an apply of the
edited file, and carry it out.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	for _, c := range []*cobra.Command{r.nodeList(), r.nodeDrain(), r.nodeUndrain(), r.nodeAdd(), r.nodeRemove(), r.nodeReplace()} {
		r.strictArgs(c)
		parent.AddCommand(c)
	}
	return parent
}

func (r *run) nodeList() *cobra.Command {
	return r.withCluster(&cobra.Command{
		Use:   "list",
		Short: "List the hosts, and how they do in the cluster",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := r.openExisting(nil, "node list")
			if err != nil {
				return err
			}
			doc, err := s.nodes(c.Context())
			if err != nil {
				return err
			}
			return r.show(doc)
		},
	})
}

// unknownState is the state of a node when the cluster does not tell.
const unknownState = "unknown"

func (s *session) nodes(ctx context.Context) (view.Nodes, error) {
	doc := view.Nodes{Cluster: s.cluster, Nodes: []view.Node{}}
	st, err := s.stack.State()
	if err != nil {
		return doc, err
	}
	for _, h := range s.hosts(st, nil, false) {
		n := view.Node{Name: h.Name, Role: h.Role, Address: h.Address, Release: h.Release, Version: h.Version, State: unknownState}
		if h.State == "unfinished" {
			n.State = "recorded"
		}
		doc.Nodes = append(doc.Nodes, n)
	}
	ctx, cancel := context.WithTimeout(ctx, snapshotTime)
	defer cancel()
	if err := s.askAbout(ctx, &doc); err != nil {
		doc.Unasked = err.Error()
	}
	return doc, nil
}

// askAbout fills in what the cluster knows of the nodes.
func (s *session) askAbout(ctx context.Context, doc *view.Nodes) error {
	c, done, err := s.workload()
	if err != nil {
		return err
	}
	defer done()
	agents, err := c.Agents(ctx)
	if err != nil {
		return err
	}
	masters, err := c.Masters(ctx)
	if err != nil {
		return err
	}
	at := map[string]int{}
	for i, n := range doc.Nodes {
		at[n.Address] = i
		if n.State == unknownState && (n.Role != string(topology.RoleMaster) || masters != nil) {
			doc.Nodes[i].State = "absent"
		}
	}
	node := func(role, name, address string) *view.Node {
		i, ok := at[address]
		if !ok {
			doc.Nodes = append(doc.Nodes, view.Node{Name: name, Role: role, Address: address, Stray: true})
			i = len(doc.Nodes) - 1
		}
		return &doc.Nodes[i]
	}
	for _, m := range masters {
		n := node(string(topology.RoleMaster), m.Name, m.Address)
		switch {
		case !m.Healthy:
			n.State = "unhealthy"
		case m.Role == "learner":
			n.State = m.Role
		case m.Leads:
			n.State = "leader"
		default:
			n.State = "follower"
		}
	}
	for _, a := range agents {
		role := string(topology.RoleAgent)
		if a.Public {
			role = string(topology.RolePublicAgent)
		}
		n := node(role, a.Hostname, a.Address)
		n.State, n.Agent, n.Tasks = a.State, a.ID, a.Tasks
		if d := a.Drain; d != nil {
			n.Drain = &view.Drain{Since: d.Since.UTC().Format(time.RFC3339)}
			if d.MaxGrace != nil {
				n.Drain.MaxGrace = d.MaxGrace.String()
			}
		}
	}
	return nil
}

// agentOf finds the agent of a recorded host.
func (s *session) agentOf(ctx context.Context, c *workload.Cluster, name string) (workload.Agent, *stack.State, error) {
	op := "find node " + name
	st, err := s.stack.State()
	if err != nil {
		return workload.Agent{}, nil, err
	}
	res := st.Live(engine.Key{Type: program.TypeNode, Name: name}.URN(s.stack.Name()))
	if res == nil {
		return workload.Agent{}, st, fault.Newf(op, fault.NotFound, "cluster %s has no such node; dcos-install node list shows them", s.cluster)
	}
	if role := text(res.Inputs["role"]); role == string(topology.RoleMaster) {
		return workload.Agent{}, st, fault.Newf(op, fault.Invalid, "it is a master: no tasks run on it, so there is nothing to drain")
	}
	a, err := c.AgentAt(ctx, text(res.Inputs["address"]))
	return a, st, err
}

func (r *run) nodeDrain() *cobra.Command {
	var o changing
	var bound time.Duration
	var wait bool
	c := &cobra.Command{
		Use:   "drain NAME",
		Short: "Empty an agent, and keep it empty until node undrain",
		Long: `Move everything off an agent: apps by their upgradeStrategy, a new instance serving
before the old one stops where that is allowed; tasks of other frameworks are killed at
once, with the time to stop that they ask for. With -max-grace, what is left after that
time is killed too. The drain goes on when this command ends; -wait waits for it.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			ctx, stop := r.interruptible(c.Context())
			defer stop()
			var limit *time.Duration
			if c.Flags().Changed("max-grace") {
				limit = &bound
			}
			return r.drain(ctx, args[0], limit, wait, o)
		},
	}
	c.Flags().DurationVar(&bound, "max-grace", 0, "kill what is left after this `time`; 0: everything at once (default: no limit)")
	c.Flags().BoolVar(&wait, "wait", false, "wait until nothing is left")
	c.Flags().BoolVar(&o.approve, "auto-approve", false, "do not ask")
	c.Flags().BoolVar(&o.force, "force", false, "also if an app would be down or below its minimum")
	return r.withCluster(c)
}

func (r *run) drain(ctx context.Context, name string, bound *time.Duration, wait bool, o changing) error {
	if bound != nil && *bound < 0 {
		return usageError{errors.New("-max-grace must not be negative")}
	}
	s, err := r.openExisting(nil, "node drain")
	if err != nil {
		return err
	}
	c, done, err := s.workload()
	if err != nil {
		return err
	}
	defer done()
	a, st, err := s.agentOf(ctx, c, name)
	if err != nil {
		return err
	}
	change := impact.Change{Host: name, Role: string(topology.RoleAgent), Address: a.Address, Kind: impact.Drain}
	rep := s.effects(ctx, st, []impact.Change{change})
	if err := r.show(view.Impact{Report: &rep}); err != nil {
		return err
	}
	if err := refuse(&rep, o.force); err != nil {
		return err
	}
	if !o.approve {
		if err := r.confirm(ctx, "Drain "+name+"?"); err != nil {
			return err
		}
	}
	if err := c.Drain(ctx, a.ID, bound); err != nil {
		return err
	}
	if wait {
		return c.WaitDrained(ctx, a.ID, func(p workload.Progress) { s.tellDrain(name, a.ID, p) })
	}
	return r.show(view.Message{What: "drain", Text: name + " is being drained. dcos-install node list shows how far it is, dcos-install node undrain " + name + " calls it off.",
		Fields: map[string]string{"host": name, "agent": a.ID, "state": workload.Draining}})
}

func (r *run) nodeUndrain() *cobra.Command {
	return r.withCluster(&cobra.Command{
		Use:   "undrain NAME",
		Short: "Use an agent again, drained or not yet",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := r.openExisting(nil, "node undrain")
			if err != nil {
				return err
			}
			c, done, err := s.workload()
			if err != nil {
				return err
			}
			defer done()
			a, _, err := s.agentOf(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			if a.State != workload.Active && a.State != workload.Disconnected {
				if err := c.Reactivate(cmd.Context(), a.ID); err != nil {
					return err
				}
			}
			return r.show(view.Message{What: "undrain", Text: args[0] + " is used again.", Fields: map[string]string{"host": args[0], "agent": a.ID, "state": workload.Active}})
		},
	})
}

// target is a host as the command line names it.
type target struct{ name, address string }

func parseTarget(s string) (target, error) {
	name, address, ok := strings.Cut(s, "=")
	if !ok || name == "" {
		return target{}, usageError{fmt.Errorf("%q is not NAME=ADDRESS", s)}
	}
	if _, err := netip.ParseAddr(address); err != nil {
		return target{}, usageError{fmt.Errorf("%q is not NAME=ADDRESS: %w", s, err)}
	}
	return target{name, address}, nil
}

func (r *run) nodeAdd() *cobra.Command {
	var o changing
	var role string
	var count int
	c := &cobra.Command{
		Use:   "add -role ROLE [NAME=ADDRESS…]",
		Short: "Add hosts: write them into the file, and apply it",
		Long: `Add machines by name and address. Provider local makes its hosts itself: there, -count
says how many more there shall be.`,
		RunE: func(c *cobra.Command, args []string) error {
			ctx, stop := r.interruptible(c.Context())
			defer stop()
			if !slices.Contains(roleOrder, role) {
				return usageError{fmt.Errorf("-role is %q; it is one of %s", role, strings.Join(roleOrder, ", "))}
			}
			var targets []target
			for _, a := range args {
				t, err := parseTarget(a)
				if err != nil {
					return err
				}
				targets = append(targets, t)
			}
			return r.changeFile(ctx, "node add", o, adding(role, targets, count))
		},
	}
	c.Flags().StringVar(&role, "role", string(topology.RoleAgent), "`role` of the hosts: "+strings.Join(roleOrder, ", "))
	c.Flags().IntVar(&count, "count", 1, "provider local: how many hosts to add")
	return r.withChanging(r.withRelease(r.withVariables(c)), &o)
}

func (r *run) nodeRemove() *cobra.Command {
	var o changing
	c := &cobra.Command{
		Use:   "remove NAME…",
		Short: "Remove hosts: drain them, take them out of the file, and apply it",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			ctx, stop := r.interruptible(c.Context())
			defer stop()
			return r.changeFile(ctx, "node remove", o, removing(args))
		},
	}
	return r.withChanging(r.withRelease(r.withVariables(c)), &o)
}

func (r *run) nodeReplace() *cobra.Command {
	var o changing
	var address string
	c := &cobra.Command{
		Use:   "replace NAME",
		Short: "Make a host anew, or move its name to another machine",
		Long: `Drain the host if it answers, and make it anew under its name: on the machine at
-address, which is written into the file; or, with provider local, in the place of the
old one.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			ctx, stop := r.interruptible(c.Context())
			defer stop()
			if address == "" {
				return r.makeAnew(ctx, args[0], o)
			}
			if _, err := netip.ParseAddr(address); err != nil {
				return usageError{fmt.Errorf("-address: %w", err)}
			}
			return r.changeFile(ctx, "node replace", o, moving(args[0], address))
		},
	}
	c.Flags().StringVar(&address, "address", "", "`address` of the machine that takes the name over")
	return r.withChanging(r.withRelease(r.withVariables(c)), &o)
}
