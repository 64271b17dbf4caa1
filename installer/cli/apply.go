package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	ctyjson "github.com/zclconf/go-cty/cty/json"

	"dcos.example/dcos/installer/blueprint"
	"dcos.example/dcos/installer/cli/view"
	"dcos.example/dcos/installer/engine"
	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/installer/program"
	"dcos.example/dcos/installer/stack"
	"dcos.example/dcos/runtime/fault"
)

func (r *run) applyCommand() *cobra.Command {
	var o changing
	var refresh bool
	c := &cobra.Command{
		Use:   "apply [FILE|PLAN]",
		Short: "Make the cluster as the file says",
		Long: `Show the plan, ask, and carry it out. What is done is recorded at each step: after a
failure, a crash or Ctrl-C, run apply again and it does the rest. A PLAN that plan -out
wrote is carried out without asking, and refused if anything has changed since.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			ctx, stop := r.interruptible(c.Context())
			defer stop()
			var w *work
			var err error
			if r.isPlan(args) {
				w, err = r.prepareSaved(args[0])
			} else {
				w, err = r.prepare(args, "apply")
			}
			if err != nil {
				return err
			}
			w.session.options.Refresh = refresh
			o.approve = o.approve || w.plan != nil
			return r.apply(ctx, w, o, args)
		},
	}
	c.Flags().BoolVar(&refresh, "refresh", true, "look at the machines for changes from outside, and repair them")
	return r.withChanging(r.withRelease(r.withVariables(c)), &o)
}

func (r *run) apply(ctx context.Context, w *work, o changing, args []string) error {
	s := w.session
	if err := errors.Join(s.untried(), w.restored()); err != nil {
		return err
	}
	if w.plan == nil {
		p, err := engine.Preview(ctx, s.stack, w.goals, s.options)
		if err != nil {
			return err
		}
		w.plan = p
	}
	if err := w.keepsMasters(w.plan); err != nil {
		return err
	}
	rep, err := s.report(ctx, w.plan, w.input.topology, w.input.topology.Upgrade)
	if err != nil {
		return err
	}
	shown, err := s.planned(w.plan)
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
	if !o.now {
		if err := w.inWindow(w.plan, time.Now()); err != nil {
			return err
		}
	}
	if err := r.preflightBefore(ctx, w, "apply"); err != nil {
		return err
	}
	if w.plan.HasChanges() && !o.approve {
		if err := r.confirm(ctx, "Carry out this plan?"); err != nil {
			return err
		}
	}
	s.meta.Roll, s.meta.RolledTo = rollOf(w.input.topology.Upgrade), 0
	// Before anything is made: destroy must find its way without the file.
	if err := s.writeMeta(); err != nil {
		return err
	}
	if w.write != nil {
		if err := w.write(); err != nil {
			return err
		}
	}
	start := time.Now()
	left, err := s.vacate(ctx, rep, o.grace)
	if err != nil {
		return err
	}
	if w.input.topology.Upgrade.Drain {
		s.options.Providers = s.drainingUpdates(w.plan, o.grace)
	}
	s.order(ctx, w.goals, w.plan, w.rolling())
	s.options.Plan = w.plan
	res, err := s.follow(ctx, func(o engine.Options) (*engine.Result, error) { return engine.Apply(ctx, s.stack, w.goals, o) })
	if err != nil && res.Plan == nil {
		return err // refused before anything began
	}
	s.bury(ctx, left, err == nil)
	doc := s.result(cmp.Or(s.options.Operation, "apply"), res, err, start)
	if err == nil {
		if err := s.finish(w, res, &doc); err != nil {
			return err
		}
	} else {
		doc.Resume = r.resume("apply", args)
		if w.restore != "" {
			doc.Resume = r.resume("restore "+quoted(w.restore), args)
		}
		if n := w.plan.Counts(); n[engine.OpUpdate]+n[engine.OpReplace]+n[engine.OpDelete] > 0 {
			doc.Back = r.resume("rollback", args)
		}
	}
	if serr := r.show(doc); serr != nil {
		return serr
	}
	if err != nil {
		s.tryDeposit(ctx, w.input)
		return reported{exitOf(err)}
	}
	if err := errors.Join(s.writeMeta(), w.endRestore()); err != nil {
		return err
	}
	if err := s.deposit(ctx, w.input, w.restore != ""); err != nil {
		return err
	}
	if o.within > 0 && w.plan.HasChanges() {
		return r.try(ctx, s, w.plan.Serial, o.within, o.grace)
	}
	return nil
}

// resume is the command line that goes on: the same file and variables. A plan
// is stale once part of it was carried out.
func (r *run) resume(command string, args []string) string {
	words := []string{"dcos-install"}
	flag := func(name, value string) {
		if value != "" {
			words = append(words, "-"+name, quoted(value))
		}
	}
	flag("chdir", r.chdir)
	words = append(words, command)
	if len(args) > 0 && !r.isPlan(args) {
		words = append(words, quoted(args[0]))
	}
	flag("cluster", r.cluster)
	flag("bundle", r.bundle)
	flag("state", r.state)
	for _, f := range r.varFiles {
		flag("var-file", f)
	}
	for _, v := range r.vars {
		flag("var", v)
	}
	return strings.Join(words, " ")
}

// quoted is s as a word of a shell.
func quoted(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./=:,@%+", r))
	}) {
		return host.Quote(s)
	}
	return s
}

func exitOf(err error) int {
	if fault.Is(err, fault.Invalid) {
		return exitInvalid
	}
	return exitFailed
}

// finish fills in what a person needs to go on, and keeps the outputs.
func (s *session) finish(w *work, res *engine.Result, doc *view.Result) error {
	cluster := res.Outputs[program.ClusterKey(s.cluster)]
	secrets := res.Outputs[program.SecretsKey(s.cluster)]
	doc.URL, doc.AdminUser = text(cluster["url"]), s.meta.AdminUser
	if flag(secrets["generatedPassword"]) && !s.meta.PasswordShown && !s.run.json {
		doc.Password = text(secrets["adminPassword"])
		s.meta.PasswordShown = true
	}
	applied := blueprint.Applied{ClusterID: text(secrets["clusterId"]), URL: doc.URL, CACert: text(secrets["caCert"]), Hosts: map[string]blueprint.HostInfo{}}
	for _, h := range w.input.topology.Hosts {
		applied.Hosts[h.Name] = blueprint.HostInfo{Address: h.Addr.String(), Role: string(h.Role)}
	}
	for _, m := range w.input.topology.Masters() {
		applied.Masters = append(applied.Masters, m.Addr.String())
	}
	values, l := w.input.blueprint.Evaluate(applied)
	if err := s.run.findings(l, w.input); err != nil {
		return err
	}
	outs := []view.Output{}
	for _, v := range values {
		o := view.Output{Name: v.Name, Description: v.Description, Sensitive: v.Sensitive, Known: v.Value.IsWhollyKnown()}
		if !o.Sensitive && o.Known {
			b, err := json.Marshal(ctyjson.SimpleJSONValue{Value: v.Value})
			if err != nil {
				return fault.New("write output "+v.Name, fault.Internal, err)
			}
			o.Value = b
		}
		outs = append(outs, o)
	}
	s.meta.Outputs, doc.Outputs = outs, outs
	return nil
}

func (r *run) destroyCommand() *cobra.Command {
	var approve bool
	var id, address string
	var v via
	c := &cobra.Command{
		Use:   "destroy [FILE]",
		Short: "Undo everything apply made",
		Long: `Show what goes, ask, and remove the cluster with everything on it. The file is not needed:
-cluster names the cluster. With neither file nor state, give the cluster's id and a master's
address as for adopt: -cluster-id ID -via ADDRESS.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			ctx, stop := r.interruptible(c.Context())
			defer stop()
			if address != "" || id != "" {
				if len(args) > 0 || address == "" {
					return usageError{errors.New("-cluster-id and -via go together, and need no FILE")}
				}
				return r.destroyVia(ctx, id, address, v, approve)
			}
			return r.destroy(ctx, args, approve)
		},
	}
	c.Flags().BoolVar(&approve, "auto-approve", false, "do not ask")
	c.Flags().StringVar(&id, "cluster-id", "", "the `id` of a cluster whose state is not here")
	c.Flags().StringVar(&address, "via", "", "the `address` of one of its masters, as for adopt")
	v.flags(c)
	return r.withCluster(r.withParallel(c))
}

func (r *run) destroy(ctx context.Context, args []string, approved bool) error {
	name, dir, err := r.find(args)
	if err != nil {
		return err
	}
	if dir == "" {
		if was, err := r.destroyStray(ctx, args, name, "", approved); was || err != nil {
			return err
		}
		return r.show(view.Message{What: "destroy", Text: fmt.Sprintf("Nothing to do: cluster %s was never applied from here.", name)})
	}
	s, err := r.open(name, dir, meta{}, "", "destroy")
	if err != nil {
		return err
	}
	st, err := s.stack.State()
	if err != nil {
		return err
	}
	if st.Empty() {
		if was, err := r.destroyStray(ctx, args, name, dir, approved); was || err != nil {
			return err
		}
		return r.show(view.Message{What: "destroy", Text: fmt.Sprintf("Nothing to do: nothing of cluster %s is left.", name)})
	}
	if err := r.app.Allowed(s.meta.Provider); err != nil {
		return err
	}
	if err := s.rememberKey(); err != nil {
		return err
	}
	p, err := s.previewDestroy(ctx)
	if err != nil {
		return err
	}
	doc, err := s.planned(p)
	if err != nil {
		return err
	}
	doc.Destroy = true
	if err := r.show(doc); err != nil {
		return err
	}
	if !approved {
		if err := r.confirm(ctx, fmt.Sprintf("Destroy cluster %s with everything on it? This cannot be undone.", name)); err != nil {
			return err
		}
	}
	start := time.Now()
	res, err := s.follow(ctx, func(o engine.Options) (*engine.Result, error) { return engine.Destroy(ctx, s.stack, o) })
	if err != nil && res.Plan == nil {
		return err
	}
	d := s.result("destroy", res, err, start)
	if err != nil {
		d.Resume = r.resume("destroy", args)
		return errors.Join(r.show(d), reported{exitOf(err)})
	}
	// A cluster made anew has another password and other outputs.
	s.meta.PasswordShown, s.meta.Outputs = false, []view.Output{}
	return errors.Join(r.show(d), s.writeMeta())
}

func (r *run) historyCommand() *cobra.Command {
	verbose := false
	c := &cobra.Command{
		Use:   "history [FILE]",
		Short: "List what was done to the cluster",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			_, dir, err := r.find(args)
			if err != nil {
				return err
			}
			doc := view.History{Runs: []view.Run{}, Verbose: verbose}
			if dir != "" {
				s, err := r.openExisting(args, "history")
				if err != nil {
					return err
				}
				recs, err := s.stack.History()
				if err != nil {
					return err
				}
				for _, rec := range recs {
					doc.Runs = append(doc.Runs, runOf(rec))
				}
			}
			return r.show(doc)
		},
	}
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "also where hosts were when an operation was interrupted")
	return r.withCluster(c)
}

func runOf(rec stack.Record) view.Run {
	run := view.Run{ID: rec.ID, Operation: rec.Kind, User: rec.User, Host: rec.Host, Start: rec.Start, End: rec.End,
		Result: string(rec.Result), Counts: rec.Counts, Serial: rec.Serial}
	for _, u := range rec.Open {
		k := engine.KeyOf(u.URN)
		run.Unfinished = append(run.Unfinished, view.PendingStatus{Type: string(k.Type), Name: k.Name, Op: string(u.Op), Error: u.Error, Step: u.Step, StepDone: u.Ended})
	}
	return run
}
