package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"dcos.example/dcos/installer/engine"
	"dcos.example/dcos/installer/program"
	"dcos.example/dcos/runtime/fault"
)

// rolling is how changes go through the hosts of the file.
func (w *work) rolling() program.Rolling {
	r := program.Rolling{Agents: w.input.topology.Upgrade.MaxUnavailable}
	for _, m := range w.input.topology.Masters() {
		r.Masters = append(r.Masters, m.Name)
	}
	return r
}

// changing is how an apply goes about what already works.
type changing struct {
	now     bool          // also outside the window
	within  time.Duration // undo it unless it is confirmed in this time; 0: it stays
	approve bool
	force   bool          // also if it takes down what runs
	grace   time.Duration // that tasks have to leave an agent whose host goes away
}

func (r *run) withChanging(c *cobra.Command, o *changing) *cobra.Command {
	r.withIgnore(c)
	o.agreeing(c)
	c.Flags().BoolVar(&o.now, "now", false, "change running hosts also outside the window of the upgrade block")
	c.Flags().DurationVar(&o.within, "confirm-within", 0, "undo the whole change unless dcos-install confirm is run within this `time`")
	return c
}

// agreeing adds the flags that say how far a change of what runs may go.
func (o *changing) agreeing(c *cobra.Command) {
	c.Flags().BoolVar(&o.approve, "auto-approve", false, "do not ask")
	c.Flags().BoolVar(&o.force, "force", false, "also if an app would be down or below its minimum, or the masters lose their quorum")
	c.Flags().DurationVar(&o.grace, "max-grace", usualGrace, "`time` that tasks have to leave an agent whose host goes away; then they are killed")
}

func (r *run) upgradeCommand() *cobra.Command {
	var o changing
	var to string
	c := &cobra.Command{
		Use:   "upgrade [FILE] -to BUNDLE",
		Short: "Bring another release to all hosts, one after the other",
		Long: `Show the plan, ask, and carry it out: masters one by one, the leading one last, then
agents, as many at once as the upgrade block allows. Each host has to work again before
the next one is touched. One that does not is put back to its former release, and the
roll ends there. Tasks run on all the while. The same happens when apply meets a new
bundle; an older release goes back the same way.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if to == "" {
				return usageError{errors.New("-to BUNDLE is missing: the release to go to")}
			}
			ctx, stop := r.interruptible(c.Context())
			defer stop()
			r.bundle = to
			w, err := r.prepare(args, "upgrade")
			if err != nil {
				return err
			}
			if st, err := w.session.stack.State(); err != nil {
				return err
			} else if st.Empty() {
				return fault.Newf("upgrade the cluster", fault.NotFound, "there is no cluster %s yet; make it with: dcos-install apply", w.session.cluster)
			}
			w.session.options.Refresh, w.session.options.Operation = true, "upgrade"
			return r.apply(ctx, w, o, args)
		},
	}
	c.Flags().StringVar(&to, "to", "", "`path` of the release bundle to go to")
	r.withTrust(c)
	return r.withChanging(r.withParallel(r.withVariables(c)), &o)
}

// inWindow refuses to change running hosts at a time that the file rules out.
func (w *work) inWindow(p *engine.Plan, at time.Time) error {
	window := w.input.topology.Upgrade.Window
	if window.Open(at) {
		return nil
	}
	for _, s := range p.Steps {
		if s.Type == string(program.TypeNode) && (s.Op == engine.OpUpdate || s.Op == engine.OpReplace) {
			where := w.input.blueprint.Upgrade.Window.Range
			next := window.Next(at)
			return fault.Newf("change running hosts", fault.Denied, "%s:%d allows that only %s; the window opens again on %s, in %s.\nGive -now to do it all the same.",
				where.Filename, where.Start.Line, window, next.Format("Mon 2 Jan 15:04"), short(next.Sub(at)))
		}
	}
	return nil
}

// short is a duration as people say it.
func short(d time.Duration) string {
	if d >= time.Hour {
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dm", int(d.Minutes()))
}
