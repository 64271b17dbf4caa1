package cli

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"dcos.example/dcos/installer/blueprint"
	"dcos.example/dcos/installer/cli/view"
	"dcos.example/dcos/installer/engine"
	"dcos.example/dcos/installer/program"
	"dcos.example/dcos/runtime/fault"
)

// savedPlan is a plan with what it was made from. It holds no secret: values
// of sensitive variables are asked for again when it is carried out.
type savedPlan struct {
	Format    int             `json:"format"`
	Kind      string          `json:"kind"` // "saved-plan"
	File      string          `json:"file"` // absolute path
	Source    string          `json:"source"`
	Variables json.RawMessage `json:"variables"`
	Sensitive []string        `json:"sensitive,omitempty"`
	State     string          `json:"state"` // directory of all stacks
	Bundle    string          `json:"bundle"`
	Plan      *engine.Plan    `json:"plan"`
}

const savedKind = "saved-plan"

func (r *run) planCommand() *cobra.Command {
	var out string
	var detailed, refresh, destroy bool
	c := &cobra.Command{
		Use:   "plan [FILE]",
		Short: "Show what an apply would do; change nothing",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			ctx, stop := r.interruptible(c.Context())
			defer stop()
			var doc view.Plan
			if destroy {
				if out != "" {
					return usageError{errors.New("-out and -destroy do not go together")}
				}
				s, err := r.openExisting(args, "plan -destroy")
				if err != nil {
					return err
				}
				p, err := s.previewDestroy(ctx)
				if err != nil {
					return err
				}
				if doc, err = s.planned(p); err != nil {
					return err
				}
				doc.Destroy = true
			} else {
				w, err := r.prepare(args, "plan")
				if err != nil {
					return err
				}
				w.session.options.Refresh = refresh
				p, err := engine.Preview(ctx, w.session.stack, w.goals, w.session.options)
				if err != nil {
					return err
				}
				if err := w.keepsMasters(p); err != nil {
					return err
				}
				if doc, err = w.session.planned(p); err != nil {
					return err
				}
				if doc.Impact, err = w.session.report(ctx, p, w.input.topology, w.input.topology.Upgrade); err != nil {
					return err
				}
				if out != "" {
					if err := r.save(out, w, p); err != nil {
						return err
					}
					doc.Saved = out
				}
			}
			if err := r.show(doc); err != nil {
				return err
			}
			if detailed && doc.HasChanges() {
				return reported{exitChanges}
			}
			return nil
		},
	}
	c.Flags().StringVar(&out, "out", "", "write the plan to a `file` that apply carries out")
	c.Flags().BoolVar(&detailed, "detailed-exitcode", false, "exit with 3 when there are changes")
	c.Flags().BoolVar(&refresh, "refresh", true, "look at the machines for changes from outside")
	c.Flags().BoolVar(&destroy, "destroy", false, "show what destroy would do")
	return r.withCluster(r.withRelease(r.withVariables(c)))
}

// work is everything an apply needs.
type work struct {
	input   *input
	session *session
	release program.Release
	goals   []engine.Goal
	plan    *engine.Plan // a saved one, or nil
	write   func() error // writes the file that the plan is made from, once it is agreed to; or nil
	restore string       // the backup from which the cluster is restored, or ""
}

// prepare reads the file, the bundle and the stack.
func (r *run) prepare(args []string, command string) (*work, error) {
	in, err := r.load(r.file(args))
	if err != nil {
		return nil, err
	}
	return r.prepareInput(in, command)
}

func (r *run) prepareInput(in *input, command string) (*work, error) {
	if err := r.check(in); err != nil {
		return nil, err
	}
	if err := r.app.Allowed(in.blueprint.Provider.Kind.Value); err != nil {
		return nil, err
	}
	rel, err := r.release(in)
	if err != nil {
		return nil, err
	}
	s, err := r.openInput(in, rel, command)
	if err != nil {
		return nil, err
	}
	if err := r.stray(s); err != nil {
		return nil, err
	}
	s.options.Parallel = r.parallelism(in.topology)
	if s.options.ConfigHash, err = configHash(in.topology, rel); err != nil {
		return nil, err
	}
	return &work{input: in, session: s, release: rel, goals: program.Goals(in.topology, rel)}, nil
}

func (r *run) save(path string, w *work, p *engine.Plan) error {
	const op = "save the plan"
	vars, sensitive, err := w.input.blueprint.Variables()
	if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	b, err := json.MarshalIndent(savedPlan{Format: view.Format, Kind: savedKind, File: r.abs(w.input.path), Source: string(w.input.source.Text),
		Variables: vars, Sensitive: sensitive, State: r.stateRoot(w.input.path), Bundle: w.release.Bundle, Plan: p}, "", " ")
	if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	// The file's text may hold a password that its author wrote there.
	if err := os.WriteFile(r.abs(path), append(b, '\n'), 0o600); err != nil {
		return fault.New(op, fault.Denied, err)
	}
	return nil
}

// prepareSaved reads a plan file and everything it was made from.
func (r *run) prepareSaved(path string) (*work, error) {
	const op = "read the plan"
	src, err := r.read(path)
	if err != nil {
		return nil, err
	}
	var sp savedPlan
	if err := json.Unmarshal(src.Text, &sp); err != nil || sp.Kind != savedKind || sp.Plan == nil {
		return nil, fault.Newf(op, fault.Invalid, "%s is neither a cluster's file (they end in .hcl) nor a plan that plan -out wrote", path)
	}
	if sp.Format != view.Format {
		return nil, fault.Newf(op, fault.Invalid, "%s has format %d, this program reads %d", path, sp.Format, view.Format)
	}
	if len(r.vars) > 0 {
		return nil, usageError{errors.New("a plan has its variables; only sensitive ones are set again, in the environment or a -var-file")}
	}
	values := blueprint.Values{Dir: filepath.Dir(sp.File), Env: r.app.Env}
	for _, f := range r.varFiles {
		s, err := r.read(f)
		if err != nil {
			return nil, err
		}
		values.Files = append(values.Files, s)
	}
	values.Files = append(values.Files, blueprint.Source{Name: path + " (variables).json", Text: sp.Variables})
	if r.state == "" {
		r.state = sp.State
	}
	if r.bundle == "" {
		r.bundle = sp.Bundle
	}
	in := evaluate(sp.File, blueprint.Source{Name: sp.File, Text: []byte(sp.Source)}, values)
	w, err := r.prepareInput(in, "apply "+filepath.Base(path))
	if err != nil {
		return nil, err
	}
	w.plan = sp.Plan
	return w, nil
}

// isPlan reports whether the argument of apply names a plan: blueprints end in
// .hcl.
func (r *run) isPlan(args []string) bool {
	if len(args) == 0 || strings.HasSuffix(args[0], ".hcl") {
		return false
	}
	fi, err := os.Stat(r.abs(args[0]))
	return err == nil && !fi.IsDir()
}

// openExisting opens the stack of a cluster that was applied before.
func (r *run) openExisting(args []string, command string) (*session, error) {
	name, dir, err := r.find(args)
	if err != nil {
		return nil, err
	}
	if dir == "" {
		return nil, fault.Newf("open the cluster", fault.NotFound, "there is no state of cluster %s; it was never applied from here", name)
	}
	return r.open(name, dir, meta{}, "", command)
}

func (s *session) previewDestroy(ctx context.Context) (*engine.Plan, error) {
	return engine.Preview(ctx, s.stack, nil, s.options)
}
