package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"dcos.example/dcos/installer/blueprint"
	"dcos.example/dcos/installer/cli/view"
	"dcos.example/dcos/installer/edit"
	"dcos.example/dcos/installer/topology"
	"dcos.example/dcos/runtime/fault"
)

// fileChange edits the file of a cluster whose hosts are was, and says which
// hosts there are to be.
type fileChange func(in *input) (src []byte, want []string, err error)

func names(t *topology.Topology) []string {
	var out []string
	for _, h := range t.Hosts {
		out = append(out, h.Name)
	}
	return out
}

func hostOf(t *topology.Topology, name string) (topology.Host, bool) {
	i := slices.IndexFunc(t.Hosts, func(h topology.Host) bool { return h.Name == name })
	if i < 0 {
		return topology.Host{}, false
	}
	return t.Hosts[i], true
}

func noHost(op, name string, t *topology.Topology) error {
	return fault.Newf(op, fault.NotFound, "the file has no host %s; it has %s", name, strings.Join(names(t), ", "))
}

// localName is the name of the n-th host of a role with provider local.
func localName(role string, n int) string {
	return strings.ReplaceAll(role, "_", "-") + "-" + fmt.Sprint(n)
}

// adding adds machines, or with provider local so many hosts.
func adding(role string, targets []target, count int) fileChange {
	return func(in *input) (src []byte, want []string, err error) {
		src, want = in.source.Text, names(in.topology)
		local := in.topology.Provider == topology.Local
		switch {
		case local && len(targets) > 0:
			return nil, nil, usageError{fmt.Errorf(`provider "local" names its hosts and gives them addresses itself: say -count instead`)}
		case !local && len(targets) == 0:
			return nil, nil, usageError{fmt.Errorf("name the machines: NAME=ADDRESS")}
		case local && count < 1:
			return nil, nil, usageError{fmt.Errorf("-count must be at least 1")}
		}
		if local {
			have := in.topology.Count(topology.Role(role))
			for i := range count {
				want = append(want, localName(role, have+i+1))
			}
			src, err = edit.Count(src, role, have+count)
			return src, want, err
		}
		for _, t := range targets {
			if _, is := hostOf(in.topology, t.name); is {
				return nil, nil, fault.Newf("add node "+t.name, fault.Exists, "the file has a host of that name")
			}
			want = append(want, t.name)
			if src, err = edit.Add(src, role, t.name, t.address); err != nil {
				return nil, nil, err
			}
		}
		return src, want, nil
	}
}

// removing takes hosts out. With provider local only the last ones of a role
// can go: the others are what their number says.
func removing(gone []string) fileChange {
	return func(in *input) (src []byte, want []string, err error) {
		src, want = in.source.Text, names(in.topology)
		less := map[topology.Role]int{}
		for _, name := range gone {
			op := "remove node " + name
			h, is := hostOf(in.topology, name)
			if !is || !slices.Contains(want, name) {
				return nil, nil, noHost(op, name, in.topology)
			}
			want = slices.DeleteFunc(want, func(n string) bool { return n == name })
			if in.topology.Provider == topology.Local {
				less[h.Role]++
				continue
			}
			if src, err = edit.Remove(src, name); err != nil {
				return nil, nil, err
			}
		}
		for role, n := range less {
			have := in.topology.Count(role)
			for i := range n {
				if last := localName(string(role), have-i); !slices.Contains(gone, last) {
					return nil, nil, fault.Newf("remove nodes", fault.Invalid, "provider \"local\" numbers its hosts, so the last one of a role goes first: %s. To make another one anew: dcos-install node replace NAME", last)
				}
			}
			if src, err = edit.Count(src, string(role), have-n); err != nil {
				return nil, nil, err
			}
		}
		return src, want, nil
	}
}

// moving gives a machine's name to the one at another address.
func moving(name, address string) fileChange {
	return func(in *input) ([]byte, []string, error) {
		op := "replace node " + name
		if _, is := hostOf(in.topology, name); !is {
			return nil, nil, noHost(op, name, in.topology)
		}
		if in.topology.Provider == topology.Local {
			return nil, nil, usageError{fmt.Errorf(`provider "local" gives its hosts their addresses: leave -address out`)}
		}
		src, err := edit.Address(in.source.Text, name, address)
		return src, names(in.topology), err
	}
}

// changeFile edits the cluster's file, shows what that does, and writes and
// applies it once that is agreed to. A file that would then mean something
// else than was asked for is left alone.
func (r *run) changeFile(ctx context.Context, command string, o changing, change fileChange) error {
	in, err := r.load(r.file(nil))
	if err != nil {
		return err
	}
	if err := r.check(in); err != nil {
		return err
	}
	src, want, err := change(in)
	if err != nil {
		return err
	}
	path := r.abs(in.path)
	next := in.again(src)
	if err := r.check(next); err != nil {
		return err
	}
	got := names(next.topology)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		return fault.Newf(command, fault.Invalid, "%s decides its hosts in a way that cannot be changed at one place: it would have %s, and should have %s. Change it by hand, and apply",
			in.path, strings.Join(got, ", "), strings.Join(want, ", "))
	}
	w, err := r.prepareInput(next, command)
	if err != nil {
		return err
	}
	w.write = func() error {
		now, err := os.ReadFile(path)
		if err != nil {
			return fault.New("write "+in.path, fault.Denied, err)
		}
		if string(now) != string(in.source.Text) {
			return fault.Newf("write "+in.path, fault.Conflict, "somebody has changed it meanwhile; nothing was done")
		}
		if err := replace(path, src); err != nil {
			return fault.New("write "+in.path, fault.Denied, err)
		}
		return nil
	}
	w.session.options.Refresh = true
	return r.apply(ctx, w, o, nil)
}

// again is the input with another text of the file.
func (in *input) again(text []byte) *input {
	return evaluate(in.path, blueprint.Source{Name: in.source.Name, Text: text}, in.values)
}

// makeAnew deletes a host and makes it again, as the file has it.
func (r *run) makeAnew(ctx context.Context, name string, o changing) error {
	op := "replace node " + name
	in, err := r.load(r.file(nil))
	if err != nil {
		return err
	}
	if err := r.check(in); err != nil {
		return err
	}
	h, is := hostOf(in.topology, name)
	switch {
	case !is:
		return noHost(op, name, in.topology)
	case in.topology.Provider != topology.Local:
		return usageError{fmt.Errorf("say which machine takes the name over: -address. If the machine at %s was installed anew, apply does what is needed", h.Addr)}
	case h.Role == topology.RoleMaster && len(in.topology.Masters()) == 1:
		return fault.Newf(op, fault.Invalid, "it is the only master, and the cluster's state is on it")
	}
	less := *in
	t := *in.topology
	t.Hosts = slices.DeleteFunc(slices.Clone(t.Hosts), func(h topology.Host) bool { return h.Name == name })
	less.topology = &t
	w, err := r.prepareInput(&less, "node replace")
	if err != nil {
		return err
	}
	if err := r.show(view.Message{What: "replace", Text: fmt.Sprintf("%s goes first, and is then made anew as %s has it.\n", name, filepath.Base(in.path)),
		Fields: map[string]string{"host": name}}); err != nil {
		return err
	}
	w.session.options.Refresh = true
	if err := r.apply(ctx, w, o, nil); err != nil {
		return err
	}
	if w, err = r.prepareInput(in, "node replace"); err != nil {
		return err
	}
	w.session.options.Refresh = true
	o.approve = true
	return r.apply(ctx, w, o, nil)
}
