package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"dcos.example/dcos/installer/cli/view"
	"dcos.example/dcos/installer/engine"
	"dcos.example/dcos/installer/program"
	"dcos.example/dcos/installer/stack"
	"dcos.example/dcos/installer/topology"
	"dcos.example/dcos/runtime/fault"
)

func (r *run) rollbackCommand() *cobra.Command {
	var o changing
	var serial uint64
	c := &cobra.Command{
		Use:   "rollback [FILE]",
		Short: "Go back to how the cluster was before the last change",
		Long: `Show what it takes to bring the hosts, their files and their release back to the last
state that was reached without a failure and differs from this one, ask, and do it. Given
again, it goes further back; -to chooses the state. The FILE is not read, and still
describes what is left behind: the next apply goes forward to it again. Hosts change one after the other, as in the last apply; agents whose hosts
go away are emptied first.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			ctx, stop := r.interruptible(c.Context())
			defer stop()
			s, err := r.openExisting(args, "rollback")
			if err != nil {
				return err
			}
			if err := r.app.Allowed(s.meta.Provider); err != nil {
				return err
			}
			s.options.Refresh = true
			return r.rollback(ctx, s, serial, o)
		},
	}
	o.agreeing(c)
	c.Flags().Uint64Var(&serial, "to", 0, "`serial` of the state to go back to; history lists them")
	return r.withCluster(r.withParallel(c))
}

// rollback brings the cluster back to an earlier state: that of a serial, or
// with 0 the last good one that differs.
func (r *run) rollback(ctx context.Context, s *session, serial uint64, o changing) error {
	goals, plan, to, err := s.earlier(ctx, serial)
	if err != nil {
		return err
	}
	if plan == nil {
		return r.show(view.Message{What: "rollback", Text: "Nothing to do: no state is kept that differs from this one and was reached without a failure."})
	}
	roll := s.meta.Roll
	want, err := recordedHosts(goals)
	if err != nil {
		return err
	}
	rep, err := s.report(ctx, plan, want, roll.upgrade())
	if err != nil {
		return err
	}
	shown, err := s.planned(plan)
	if err != nil {
		return err
	}
	shown.Impact = rep
	if err := r.show(shown); err != nil {
		return err
	}
	if err := refuse(rep, o.force); err != nil {
		return err
	}
	if plan.HasChanges() && !o.approve {
		if err := r.confirm(ctx, "Go back?"); err != nil {
			return err
		}
	}
	start := time.Now()
	left, err := s.vacate(ctx, rep, o.grace)
	if err != nil {
		return err
	}
	if roll.Drain {
		s.options.Providers = s.drainingUpdates(plan, o.grace)
	}
	s.options.Plan, s.options.Operation = plan, "rollback"
	res, err := s.follow(ctx, func(o engine.Options) (*engine.Result, error) { return engine.Apply(ctx, s.stack, goals, o) })
	if err != nil && res.Plan == nil {
		return err
	}
	s.bury(ctx, left, err == nil)
	doc := s.result("rollback", res, err, start)
	if err != nil {
		doc.Resume = r.resume("rollback", nil)
		s.tryDeposit(ctx, nil)
		return errors.Join(r.show(doc), reported{exitOf(err)})
	}
	if b := bundleOf(goals); b != "" {
		s.meta.Bundle = b
	}
	s.meta.RolledTo = to
	if err := errors.Join(s.settle(), s.writeMeta(), r.show(doc)); err != nil {
		return err
	}
	return s.deposit(ctx, nil, false)
}

// earlier returns the goals of an earlier state, the plan that leads there, and
// the state's serial; or no plan when there is none to go back to. What an
// earlier rollback left behind is not gone back to unless its serial is given.
func (s *session) earlier(ctx context.Context, serial uint64) ([]engine.Goal, *engine.Plan, uint64, error) {
	for st, err := range s.stack.Earlier() {
		if err != nil {
			return nil, nil, 0, err
		}
		by, _ := st.By()
		if serial != 0 && st.Serial != serial ||
			serial == 0 && (by.Result != stack.Succeeded || st.Empty() || s.meta.RolledTo != 0 && st.Serial >= s.meta.RolledTo) {
			continue
		}
		goals := engine.Recorded(st)
		plan, err := engine.Preview(ctx, s.stack, goals, s.options)
		if err != nil {
			return nil, nil, 0, err
		}
		if plan.HasChanges() || serial != 0 {
			s.order(ctx, goals, plan, s.rolling(st))
			return goals, plan, st.Serial, nil
		}
	}
	if serial != 0 {
		return nil, nil, 0, fault.Newf("find the state to go back to", fault.NotFound, "no state of serial %d is kept; history lists those there were, and the last ten are kept", serial)
	}
	return nil, nil, 0, nil
}

// roll is how the last apply changed agents that worked.
type roll struct {
	MaxUnavailable int  `json:"maxUnavailable"`
	Drain          bool `json:"drain,omitempty"`
}

func rollOf(u topology.Upgrade) roll { return roll{MaxUnavailable: u.MaxUnavailable, Drain: u.Drain} }

func (r roll) upgrade() topology.Upgrade {
	return topology.Upgrade{MaxUnavailable: max(1, r.MaxUnavailable), Drain: r.Drain}
}

// rolling is how changes go through the hosts of a recorded state: as many
// agents at once as in the last apply.
func (s *session) rolling(st *stack.State) program.Rolling {
	r := program.Rolling{Agents: s.meta.Roll.upgrade().MaxUnavailable}
	for _, res := range st.Resources() {
		if k := engine.KeyOf(res.URN); k.Type == program.TypeNode && text(res.Inputs["role"]) == string(topology.RoleMaster) {
			r.Masters = append(r.Masters, k.Name)
		}
	}
	return r
}

// recordedHosts returns the hosts that recorded goals are about, as far as the
// record tells.
func recordedHosts(goals []engine.Goal) (*topology.Topology, error) {
	var t topology.Topology
	for _, g := range goals {
		if g.Type != program.TypeNode {
			continue
		}
		in, err := g.Inputs(engine.Outputs{})
		if err != nil {
			return nil, err
		}
		addr, err := netip.ParseAddr(text(in["address"]))
		if err != nil {
			return nil, fault.New("read the recorded address of "+g.Name, fault.Internal, err)
		}
		t.Hosts = append(t.Hosts, topology.Host{Name: g.Name, Role: topology.Role(text(in["role"])), Addr: addr})
	}
	return &t, nil
}

// bundleOf returns the archive that the nodes among goals are installed from.
func bundleOf(goals []engine.Goal) string {
	for _, g := range goals {
		if g.Type != program.TypeNode {
			continue
		}
		if in, err := g.Inputs(engine.Outputs{}); err == nil {
			return text(in["bundle"])
		}
	}
	return ""
}

// trial is a change that is undone unless somebody confirms it in time. It is
// a file in the stack's directory: whoever removes it has confirmed.
type trial struct {
	Serial   uint64    `json:"serial"` // of the state before the change
	Deadline time.Time `json:"deadline"`
	User     string    `json:"user,omitempty"`
}

const trialFile = "unconfirmed.json"

func (s *session) trialPath() string { return filepath.Join(s.stack.Dir(), trialFile) }

// trial returns the change that waits to be confirmed, if one does.
func (s *session) trial() (t trial, waits bool, err error) {
	b, err := os.ReadFile(s.trialPath())
	if errors.Is(err, fs.ErrNotExist) {
		return t, false, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &t)
	}
	if err != nil {
		return t, false, fault.New("read "+trialFile, fault.Internal, err)
	}
	return t, true, nil
}

// settle ends a trial.
func (s *session) settle() error {
	if err := os.Remove(s.trialPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.New("remove "+trialFile, fault.Denied, err)
	}
	return nil
}

// untried refuses to go on while an earlier change waits to be confirmed: what
// would be undone then would no longer be clear.
func (s *session) untried() error {
	t, waits, err := s.trial()
	if err != nil || !waits {
		return err
	}
	left := "is being undone, or its installer was stopped"
	if d := time.Until(t.Deadline); d > 0 {
		left = fmt.Sprintf("has %s left", d.Round(time.Second))
	}
	return fault.Newf("change the cluster", fault.Conflict, "the last change waits to be confirmed and %s.\nKeep it with: dcos-install confirm\nUndo it with: dcos-install rollback", left)
}

func (r *run) confirmCommand() *cobra.Command {
	return r.withCluster(&cobra.Command{
		Use:   "confirm [FILE]",
		Short: "Keep a change that was made with -confirm-within",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := r.openExisting(args, "confirm")
			if err != nil {
				return err
			}
			_, waits, err := s.trial()
			if err != nil {
				return err
			}
			if !waits {
				return r.show(view.Message{What: "confirm", Text: "Nothing waits to be confirmed."})
			}
			if err := s.settle(); err != nil {
				return err
			}
			return r.show(view.Message{What: "confirm", Text: "Confirmed: the change stays."})
		},
	})
}

// try holds a change that was just made on trial: it returns when somebody has
// confirmed it, and undoes it when nobody did in time, or when the operator
// interrupts.
func (r *run) try(ctx context.Context, s *session, before uint64, within, grace time.Duration) error {
	undo := changing{approve: true, force: true, grace: grace} // agreed to when the trial began
	t := trial{Serial: before, Deadline: time.Now().Add(within).UTC().Truncate(time.Second), User: r.env("USER")}
	b, err := json.Marshal(t)
	if err == nil {
		err = os.WriteFile(s.trialPath(), append(b, '\n'), 0o600)
	}
	if err != nil {
		return fault.New("write "+trialFile, fault.Denied, err)
	}
	if err := r.show(view.Message{What: "trial", Fields: map[string]string{"deadline": t.Deadline.Format(time.RFC3339)},
		Text: fmt.Sprintf("\nThe change is on trial until %s. Keep it with: dcos-install confirm\nWithout that it is undone, also when you press Ctrl-C here.", t.Deadline.Local().Format("15:04:05"))}); err != nil {
		return err
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	why := "nobody confirmed it in time"
	for waiting := true; waiting; {
		select {
		case <-tick.C:
			if _, waits, err := s.trial(); err == nil && !waits {
				return r.show(view.Message{What: "confirm", Text: "Confirmed: the change stays."})
			}
		case <-ctx.Done():
			why, waiting = "it was interrupted on trial", false
		case <-deadline.C:
			waiting = false
		}
	}
	if err := r.show(view.Message{What: "rollback", Text: "\nThe change is undone: " + why + "."}); err != nil {
		return err
	}
	if err := r.rollback(context.WithoutCancel(ctx), s, before, undo); err != nil {
		return err
	}
	return fault.Newf("keep the change", fault.Denied, "%s, and the cluster is as it was before", why)
}
