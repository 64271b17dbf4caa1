package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/spf13/cobra"

	"dcos.example/dcos/installer/cli/view"
	"dcos.example/dcos/installer/engine"
	"dcos.example/dcos/installer/program"
	"dcos.example/dcos/installer/stack"
	"dcos.example/dcos/runtime/fault"
)

func (r *run) statusCommand() *cobra.Command {
	var look bool
	c := &cobra.Command{
		Use:   "status [FILE]",
		Short: "Show the cluster's hosts, and what has changed from outside",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			ctx, stop := r.interruptible(c.Context())
			defer stop()
			name, dir, err := r.find(args)
			if err != nil {
				return err
			}
			if dir == "" {
				return r.show(view.Status{Cluster: name, State: "absent", StateDir: r.stateRoot(r.file(args)), Hosts: []view.HostStatus{}})
			}
			s, err := r.open(name, dir, meta{}, "", "status")
			if err != nil {
				return err
			}
			doc, err := s.status(ctx, look)
			if err != nil {
				return err
			}
			return r.show(doc)
		},
	}
	c.Flags().BoolVar(&look, "refresh", true, "look at the machines")
	return r.withCluster(r.withParallel(c))
}

func (s *session) status(ctx context.Context, look bool) (view.Status, error) {
	doc := view.Status{Cluster: s.cluster, StateDir: s.stack.Dir(), Hosts: []view.HostStatus{}}
	st, err := s.stack.State()
	if err != nil {
		return doc, err
	}
	doc.Serial = st.Serial
	runs, err := s.stack.History()
	if err != nil {
		return doc, err
	}
	if len(runs) > 0 {
		last := runOf(runs[len(runs)-1])
		doc.LastRun = &last
	}
	if look && !st.Empty() {
		if err := s.run.app.Allowed(s.meta.Provider); err != nil {
			doc.Unchecked = err.Error()
		} else if doc.Drift, err = s.drift(ctx); err != nil {
			doc.Unchecked = err.Error()
		}
	}
	for _, p := range st.Pending() {
		k := engine.KeyOf(p.URN)
		doc.Pending = append(doc.Pending, view.PendingStatus{Type: string(k.Type), Name: k.Name, Op: string(p.Op), Error: p.Error, Step: p.Step, StepDone: p.StepEnded})
	}
	complete := false
	for _, res := range st.Resources() {
		switch engine.KeyOf(res.URN) {
		case program.ClusterKey(s.cluster):
			doc.URL, complete = text(res.Outputs["url"]), true
		case program.SecretsKey(s.cluster):
			doc.ID = text(res.Outputs["clusterId"])
		}
	}
	doc.Hosts = s.hosts(st, doc.Drift, look && doc.Unchecked == "")
	if look && complete {
		doc.Backup = s.lastBackup(ctx)
	}
	switch {
	case st.Empty():
		doc.State = "absent"
	case !complete || len(doc.Pending) > 0:
		doc.State = "partial"
	case len(doc.Drift) > 0:
		doc.State = "drifted"
	default:
		doc.State = "complete"
	}
	return doc, nil
}

// drift looks at every resource and changes nothing.
func (s *session) drift(ctx context.Context) ([]engine.Drift, error) {
	o := s.options
	o.Refresh = true
	p, err := engine.Preview(ctx, s.stack, nil, o)
	if err != nil {
		return nil, err
	}
	return p.Drift, nil
}

// isDown recognises the output with which a provider says that a host does not
// run.
func isDown(c engine.Change) bool { return c.Path == "output online" && c.New == "false" }

var roleOrder = []string{"master", "agent", "public_agent"}

func (s *session) hosts(st *stack.State, drift []engine.Drift, looked bool) []view.HostStatus {
	differs := map[engine.Key]engine.Drift{}
	for _, d := range drift {
		differs[engine.KeyOf(d.URN)] = d
	}
	out := []view.HostStatus{}
	for _, res := range st.Resources() {
		k := engine.KeyOf(res.URN)
		if !program.IsHost(k.Type) {
			continue
		}
		h := view.HostStatus{Name: k.Name, Role: text(res.Inputs["role"]), Address: text(res.Inputs["address"]), State: "recorded"}
		nodeKey := engine.Key{Type: program.TypeNode, Name: k.Name}
		node := st.Live(nodeKey.URN(s.stack.Name()))
		if looked {
			h.State = "ready"
		}
		if node == nil || len(res.InitErrors) > 0 || len(node.InitErrors) > 0 {
			h.State = "unfinished"
		}
		if node != nil {
			h.Release = text(node.Outputs["release"])
			h.Version = s.meta.Versions[h.Release]
		}
		for _, key := range []engine.Key{nodeKey, k} {
			d, ok := differs[key]
			switch {
			case !ok:
			case d.Gone:
				h.State = "gone"
			case slices.ContainsFunc(d.Changes, isDown):
				h.State = "down"
			case h.State != "gone":
				h.State = "changed"
			}
		}
		out = append(out, h)
	}
	slices.SortStableFunc(out, func(a, b view.HostStatus) int { // by role; by number within it
		if a.Role != b.Role {
			return slices.Index(roleOrder, a.Role) - slices.Index(roleOrder, b.Role)
		}
		if len(a.Name) != len(b.Name) {
			return len(a.Name) - len(b.Name)
		}
		return strings.Compare(a.Name, b.Name)
	})
	return out
}

func (r *run) outputCommand() *cobra.Command {
	var raw, reveal bool
	c := &cobra.Command{
		Use:   "output [NAME]",
		Short: "Show what the last apply made known",
		Long: `Show the outputs of the blueprint and those that every cluster has: url, admin_user,
cluster_id, ca_certificate, and admin_password if it was generated. The password is shown
only by name and with -reveal.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := r.openExisting(nil, "output")
			if err != nil {
				return err
			}
			outs, err := s.outputs()
			if err != nil {
				return err
			}
			if len(args) == 0 {
				if raw || reveal {
					return usageError{fmt.Errorf("-raw and -reveal need the NAME of an output")}
				}
				return r.show(view.Outputs{Outputs: outs})
			}
			return r.oneOutput(s, outs, args[0], raw, reveal)
		},
	}
	c.Flags().BoolVar(&raw, "raw", false, "print the text alone, for scripts")
	c.Flags().BoolVar(&reveal, "reveal", false, "show a sensitive output")
	return r.withCluster(c)
}

func (r *run) oneOutput(s *session, outs []view.Output, name string, raw, reveal bool) error {
	op := "show output " + name
	i := slices.IndexFunc(outs, func(o view.Output) bool { return o.Name == name })
	if i < 0 {
		var names []string
		for _, o := range outs {
			names = append(names, o.Name)
		}
		return fault.Newf(op, fault.NotFound, "there is no such output; there are: %s", strings.Join(names, ", "))
	}
	o := outs[i]
	if o.Sensitive {
		if !reveal {
			return fault.Newf(op, fault.Denied, "it is sensitive; give -reveal to show it")
		}
		secret, err := s.revealed(name)
		if err != nil {
			return err
		}
		if o.Value, err = json.Marshal(secret); err != nil {
			return fault.New(op, fault.Internal, err)
		}
		o.Sensitive = false
	}
	if !raw || r.json {
		return r.show(view.Outputs{Outputs: []view.Output{o}})
	}
	var t string
	if err := json.Unmarshal(o.Value, &t); err != nil {
		t = string(o.Value) // numbers, lists: as JSON
	}
	_, err := fmt.Fprintln(r.app.Stdout, t)
	return err
}

const passwordOutput = "admin_password"

// outputs are those of the blueprint and those of every cluster; the former
// win.
func (s *session) outputs() ([]view.Output, error) {
	st, err := s.stack.State()
	if err != nil {
		return nil, err
	}
	get := func(k engine.Key) resource.PropertyMap {
		if r := st.Live(k.URN(s.stack.Name())); r != nil {
			return r.Outputs
		}
		return nil
	}
	secrets, cluster := get(program.SecretsKey(s.cluster)), get(program.ClusterKey(s.cluster))
	out := slices.Clone(s.meta.Outputs)
	add := func(name, description, value string) {
		if value == "" || slices.ContainsFunc(out, func(o view.Output) bool { return o.Name == name }) {
			return
		}
		b, err := json.Marshal(value)
		if err == nil {
			out = append(out, view.Output{Name: name, Description: description, Known: true, Value: b})
		}
	}
	add("url", "Console and API.", text(cluster["url"]))
	if len(secrets) > 0 {
		add("admin_user", "The administrator.", s.meta.AdminUser)
	}
	add("cluster_id", "", text(secrets["clusterId"]))
	add("ca_certificate", "What clients verify the cluster with.", text(secrets["caCert"]))
	if flag(secrets["generatedPassword"]) {
		out = append(out, view.Output{Name: passwordOutput, Description: "The generated password of the administrator.", Sensitive: true, Known: true})
	}
	return out, nil
}

// revealed returns the generated password. Other sensitive outputs are made of
// variables that whoever set them knows; their values are not kept.
func (s *session) revealed(name string) (string, error) {
	op := "reveal output " + name
	if name != passwordOutput {
		return "", fault.Newf(op, fault.NotFound, "values of sensitive outputs are not kept; only the generated %s can be shown", passwordOutput)
	}
	st, err := s.stack.State()
	if err != nil {
		return "", err
	}
	r := st.Live(program.SecretsKey(s.cluster).URN(s.stack.Name()))
	if r == nil || text(r.Outputs["adminPassword"]) == "" {
		return "", fault.Newf(op, fault.NotFound, "none is recorded")
	}
	return text(r.Outputs["adminPassword"]), nil
}
