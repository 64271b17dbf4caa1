package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/spf13/cobra"

	"dcos.example/dcos/installer/bundle"
	"dcos.example/dcos/installer/cli/view"
	"dcos.example/dcos/installer/diag"
	"dcos.example/dcos/installer/engine"
	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/installer/preflight"
	"dcos.example/dcos/installer/program"
	"dcos.example/dcos/installer/stack"
	"dcos.example/dcos/installer/topology"
	"dcos.example/dcos/runtime/fault"
)

// probeFile is the program that hosts measure each other with, in a release.
const probeFile = "bin/dcos-probe"

func (r *run) preflightCommand() *cobra.Command {
	var all, list bool
	c := &cobra.Command{
		Use:   "preflight [FILE]",
		Short: "Look at the hosts for what would stop an apply",
		Long: `Ask every host of the file for facts, let the hosts measure each other, and say what
would stop an installation, with the fix. Nothing is changed. Apply does the same before
it makes or changes hosts. Ends with 1 when a check of severity error fails.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if list {
				return r.show(view.Checks{Checks: preflight.Checks()})
			}
			ctx, stop := r.interruptible(c.Context())
			defer stop()
			return r.preflight(ctx, args, all)
		},
	}
	c.Flags().BoolVar(&all, "all", false, "show what passed, too")
	c.Flags().BoolVar(&list, "list", false, "list the checks instead of making them")
	return r.withIgnore(r.withRelease(r.withVariables(c)))
}

// withIgnore adds the flag of commands that make preflight checks.
func (r *run) withIgnore(c *cobra.Command) *cobra.Command {
	c.Flags().StringArrayVar(&r.ignore, "ignore", nil, "go on although the preflight check `ID` fails")
	return c
}

func (r *run) preflight(ctx context.Context, args []string, all bool) error {
	in, err := r.load(r.file(args))
	if err != nil {
		return err
	}
	if err := r.check(in); err != nil {
		return err
	}
	if err := r.app.Allowed(in.topology.Provider); err != nil {
		return err
	}
	f := flight{run: r, in: in}
	name := in.topology.Cluster.Name
	dir := filepath.Join(r.stateRoot(in.path), name)
	f.dir = dir
	if _, err := os.Stat(dir); err == nil { // a stack is not made for a look
		s, err := r.open(name, dir, meta{}, "", "preflight")
		if err != nil {
			return err
		}
		if f.state, err = s.stack.State(); err != nil {
			return err
		}
		f.stack = s.stack.Name()
	}
	rel, err := r.release(in)
	switch {
	case err == nil:
		if err := f.read(rel.Bundle); err != nil {
			return err
		}
	case r.bundlePath() == "" && fault.Is(err, fault.Invalid) && in.topology.Cluster.Release == "":
		f.note = "Without a release bundle the hosts do not measure each other; name one with -bundle."
	default:
		return err
	}
	f.goals = program.Goals(in.topology, rel)
	targets, err := f.everyone()
	if err != nil {
		return err
	}
	doc, err := f.fly(ctx, targets)
	if err != nil {
		return err
	}
	doc.All = all
	if err := r.show(doc); err != nil {
		return err
	}
	if doc.Stops() {
		return reported{exitFailed}
	}
	return nil
}

// preflightBefore makes the checks for a plan that makes or changes hosts, and
// refuses it when one of severity error fails. Masters are looked at, too:
// what is changed has to reach them. Other hosts are left alone.
func (r *run) preflightBefore(ctx context.Context, w *work, operation string) error {
	if r.app.Preflight == nil {
		return nil
	}
	changed := map[string]bool{}
	for _, s := range w.plan.Steps {
		t := s.Key().Type
		if (program.IsHost(t) || t == program.TypeNode) && (s.Op == engine.OpCreate || s.Op == engine.OpUpdate || s.Op == engine.OpReplace) {
			changed[s.Name] = true
		}
	}
	if len(changed) == 0 {
		return nil
	}
	s := w.session
	f := flight{run: r, in: w.input, goals: w.goals, stack: s.stack.Name(), before: operation, dir: s.stack.Dir()}
	var err error
	if f.state, err = s.stack.State(); err != nil {
		return err
	}
	targets, err := f.everyone()
	if err != nil {
		return err
	}
	targets = slices.DeleteFunc(targets, func(t preflight.Target) bool { return t.Role != topology.RoleMaster && !changed[t.Name] })
	if !slices.ContainsFunc(targets, func(t preflight.Target) bool { return t.Absent == "" && changed[t.Name] }) {
		return nil // the provider makes all of them
	}
	for i := range targets {
		targets[i].Witness = !changed[targets[i].Name]
	}
	if err := f.read(w.release.Bundle); err != nil {
		return err
	}
	doc, err := f.fly(ctx, targets)
	if err != nil {
		return err
	}
	if err := r.show(doc); err != nil {
		return err
	}
	if doc.Stops() {
		return reported{exitFailed}
	}
	return nil
}

// flight is one preflight.
type flight struct {
	run    *run
	in     *input
	dir    string // of the stack
	goals  []engine.Goal
	state  *stack.State // nil: nothing was applied yet
	stack  string
	before string

	probe    []byte
	manifest bundle.Manifest
	note     string
}

// read takes from the bundle what goes to the hosts and what is held against
// them.
func (f *flight) read(path string) error {
	old, err := readMeta(f.dir)
	if err != nil {
		return err
	}
	trust, err := f.run.trust(old)
	if err != nil {
		return err
	}
	if _, f.manifest, err = f.run.app.Bundle(path, trust); err != nil {
		return err
	}
	f.probe, err = bundle.ReadFile(path, probeFile, trust)
	if fault.Is(err, fault.NotFound) {
		f.note = "Release " + f.manifest.Version + " has no " + filepath.Base(probeFile) + ": the hosts do not measure each other."
		return nil
	}
	return err
}

// everyone are all hosts of the file.
func (f *flight) everyone() ([]preflight.Target, error) {
	var out []preflight.Target
	local := f.in.topology.Provider != topology.OnPrem
	for _, h := range f.in.topology.Hosts {
		t := preflight.Target{Name: h.Name, Role: h.Role, Addr: h.Addr, Shared: local, Known: f.knows(h.Name)}
		var err error
		if t.Ref, err = f.reference(h.Name); fault.Is(err, fault.NotFound) {
			t.Absent = "it is not made yet"
		} else if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}

// knows says whether the host was installed from here, or begun to be.
func (f *flight) knows(name string) bool {
	if f.state == nil {
		return false
	}
	urn := engine.Key{Type: program.TypeNode, Name: name}.URN(f.stack)
	return f.state.Live(urn) != nil || slices.ContainsFunc(f.state.Pending(), func(p stack.Pending) bool { return p.URN == urn })
}

// reference is how to reach a host: as the file says, with the key that the
// machine had; or as its provider said when it was made.
func (f *flight) reference(name string) (host.Ref, error) {
	key := program.HostKey(f.in.topology.Provider, name)
	var res *stack.Resource
	if f.state != nil {
		res = f.state.Live(key.URN(f.stack))
	}
	if f.in.topology.Provider != topology.OnPrem {
		if res == nil {
			return host.Ref{}, fault.Newf("reach host "+name, fault.NotFound, "it is not made yet")
		}
		return reference(name, res.Outputs)
	}
	i := slices.IndexFunc(f.goals, func(g engine.Goal) bool { return g.Key == key })
	if i < 0 {
		return host.Ref{}, fault.Newf("reach host "+name, fault.Internal, "it is not among the resources of cluster %s", f.in.topology.Cluster.Name)
	}
	in, err := f.goals[i].Inputs(engine.Outputs{})
	if err != nil {
		return host.Ref{}, err
	}
	ref, err := host.ReadRef(name, object(in["connection"]))
	if err == nil && res != nil {
		if was, err := reference(name, res.Outputs); err == nil && was.SSH.HostKey != "" {
			ref.SSH.HostKey = was.SSH.HostKey
			// Another key at the same place is not trusted on sight.
			ref.SSH.TrustOnFirstUse = ref.SSH.TrustOnFirstUse && was.SSH.Endpoint() != ref.SSH.Endpoint()
		}
	}
	return ref, err
}

// openAnew opens a host that may be another machine than it was: then, as in
// the plan, one whose key is known without asking.
func (r *run) openAnew(ctx context.Context, ref host.Ref) (host.Host, error) {
	h, err := r.app.Open(ctx, ref)
	if ref.SSH.HostKey != "" && fault.Is(err, fault.NotFound) {
		ref.SSH.HostKey = ""
		return r.app.Open(ctx, ref)
	}
	return h, err
}

func object(v resource.PropertyValue) resource.PropertyMap {
	for v.IsSecret() {
		v = v.SecretValue().Element
	}
	if v.IsObject() {
		return v.ObjectValue()
	}
	return nil
}

// fly makes the checks on targets.
func (f *flight) fly(ctx context.Context, targets []preflight.Target) (view.Preflight, error) {
	r, top := f.run, f.in.topology
	ignore, err := r.ignored(top.Preflight.Ignore)
	if err != nil {
		return view.Preflight{}, err
	}
	if r.app.Open == nil || r.app.Preflight == nil {
		return view.Preflight{}, fault.Newf("check the hosts", fault.Invalid, "provider %s has no way to reach its hosts", top.Provider)
	}
	start := time.Now()
	hosts := r.app.Preflight(ctx, preflight.Options{Targets: targets, Open: r.openAnew, Resolvers: top.Cluster.Resolvers,
		Probe: f.probe, ProbePath: host.ReleasePath(f.manifest.Release()) + "/" + probeFile, Parallel: r.parallelism(top)})
	if err := ctx.Err(); err != nil {
		return view.Preflight{}, fault.New("check the hosts", fault.Unavailable, context.Cause(ctx))
	}
	for _, h := range hosts { // the provider starts local hosts that are down, and makes those that are gone
		switch {
		case !h.Shared:
		case fault.Is(h.Unreached, fault.Unavailable):
			h.Absent = "it is down; an apply starts it"
		case fault.Is(h.Unreached, fault.NotFound):
			h.Absent = "it is gone; an apply makes it anew"
		}
	}
	id := f.clusterID()
	for _, h := range hosts { // one that installed itself is ours, too
		h.Known = h.Known || id != "" && h.Cluster() == id
	}
	in := preflight.Input{Hosts: hosts, Resolvers: top.Cluster.Resolvers, Ignore: ignore, ClusterID: id,
		Release: preflight.Release{Name: f.manifest.Release(), Arch: preflight.Arch(f.probe)}}
	in.Release.Bytes = f.manifest.Share(false).Size()
	in.Release.Packages = f.manifest.Share(true).Size() - in.Release.Bytes
	doc := view.NewPreflight(top.Cluster.Name, hosts, preflight.Judge(in))
	doc.Elapsed, doc.Before, doc.Note = time.Since(start), f.before, f.note
	return doc, nil
}

// clusterID returns the id of the cluster, empty before it is made.
func (f *flight) clusterID() string {
	if f.state == nil {
		return ""
	}
	if res := f.state.Live(program.SecretsKey(f.in.topology.Cluster.Name).URN(f.stack)); res != nil {
		return text(res.Outputs["clusterId"])
	}
	return ""
}

// ignored adds the checks of the command line to those of the file.
func (r *run) ignored(file map[string]string) (map[string]string, error) {
	out := map[string]string{}
	for id, why := range file {
		out[id] = why
	}
	ids := preflight.IDs()
	for _, id := range r.ignore {
		if !slices.Contains(ids, id) {
			return nil, usageError{errors.New(strings.TrimSpace(fmt.Sprintf("-ignore: there is no check %q. %s", id, diag.DidYouMean(id, ids))))}
		}
		if _, ok := out[id]; !ok {
			out[id] = "-ignore was given"
		}
	}
	return out, nil
}

// unknownChecks finds checks to ignore that do not exist.
func unknownChecks(in *input) (l diag.List) {
	ids := preflight.IDs()
	for _, i := range in.blueprint.Preflight.Ignore {
		if !slices.Contains(ids, i.ID) {
			hint := diag.DidYouMean(i.ID, ids)
			if hint == "" {
				hint = "dcos-install preflight -list shows the ids."
			}
			at := hcl.Range(i.Range)
			l.Add(diag.Diagnostic{Summary: "Unknown check", Detail: fmt.Sprintf("There is no preflight check %q.", i.ID), Hint: hint, Range: &at})
		}
	}
	return l
}
