package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"dcos.example/dcos/installer/blueprint"
	"dcos.example/dcos/installer/cli/view"
	"dcos.example/dcos/installer/engine"
	"dcos.example/dcos/installer/program"
	"dcos.example/dcos/installer/stack"
	"dcos.example/dcos/runtime/fault"
)

// Leftovers finds and removes clusters by name, without any state.
type Leftovers interface {
	// Origin returns what there is of a cluster: its hosts, and the directory
	// of the state it was made from, "" if that is not known.
	Origin(cluster string) (stack string, hosts []string, found bool, err error)
	// Destroy removes all of it.
	Destroy(ctx context.Context, cluster string) error
}

// elsewhere returns an error when the cluster is there and belongs to another
// state than the one in dir, which is there too.
func elsewhere(op, cluster, origin, dir string) error {
	if origin == "" || origin == dir {
		return nil
	}
	if _, err := os.Stat(filepath.Join(origin, "state.json")); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fault.Newf(op, fault.Conflict, "cluster %s exists on this machine, and its state is in %s.\n"+
		"To work on that cluster, give -state %s. To make another one beside it, give it another name (cluster \"…\") and another range.",
		cluster, origin, filepath.Dir(origin))
}

// network reports whether the stack has the cluster's network, which every
// other part of it needs, and whether it once tried to make it.
func (s *session) network() (made, tried bool, err error) {
	st, err := s.stack.State()
	if err != nil {
		return false, false, err
	}
	u := engine.Key{Type: program.TypeNetwork, Name: s.cluster}.URN(s.stack.Name())
	made = st.Live(u) != nil || slices.ContainsFunc(st.Doomed(), func(r *stack.Resource) bool { return r.URN == u })
	_, tried = st.PendingFor(u, "")
	return made, tried, nil
}

// stray refuses to make a cluster of which something exists that this state
// knows nothing of.
func (r *run) stray(s *session) error {
	if r.app.Leftovers == nil || s.meta.Provider != blueprint.ProviderLocal {
		return nil // machines of one's own tell by themselves whose they are
	}
	made, tried, err := s.network()
	if made || err != nil {
		return err
	}
	left, err := r.app.Leftovers(ProviderOptions{Kind: s.meta.Provider, StateDir: s.stack.Dir(), Dir: s.meta.Dir})
	if err != nil || left == nil {
		return err
	}
	origin, hosts, found, err := left.Origin(s.cluster)
	if err != nil || !found {
		return err
	}
	const op = "make the cluster"
	if err := elsewhere(op, s.cluster, origin, s.stack.Dir()); err != nil {
		return err
	}
	if tried && origin == s.stack.Dir() {
		return nil // what an unfinished apply left; this one goes on with it
	}
	where := ""
	if origin != "" {
		where = " in " + origin
	}
	return fault.Newf(op, fault.Conflict, "%s of a cluster %s %s on this machine, but the state%s that knows them is gone.\n"+
		"If there is a copy of the state, put it back. Otherwise remove what is left with dcos-install destroy, and apply again.",
		plural(len(hosts), "host"), s.cluster, isAre(len(hosts)), where)
}

func plural(n int, what string) string {
	switch n {
	case 0:
		return "the network"
	case 1:
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func isAre(n int) string {
	if n > 1 {
		return "are"
	}
	return "is"
}

// destroyStray removes a cluster that no state is known of. It reports false
// when there is none.
func (r *run) destroyStray(ctx context.Context, args []string, name, dir string, approved bool) (bool, error) {
	if r.app.Leftovers == nil {
		return false, nil
	}
	o := ProviderOptions{Kind: "local", StateDir: dir}
	if o.StateDir == "" {
		o.StateDir = filepath.Join(r.stateRoot(r.file(args)), name)
	}
	if src, err := r.read(r.file(args)); err == nil {
		if b, l := blueprint.Parse(src, blueprint.Values{Env: r.app.Env}); !l.HasErrors() {
			o.Dir = r.providerDir(src.Name, b)
		}
	}
	left, err := r.app.Leftovers(o)
	if err != nil || left == nil {
		return false, err
	}
	origin, hosts, found, err := left.Origin(name)
	if err != nil || !found {
		return false, err
	}
	if err := r.app.Allowed(o.Kind); err != nil {
		return true, err
	}
	if err := elsewhere("destroy cluster "+name, name, origin, o.StateDir); err != nil {
		return true, err
	}
	what := plural(len(hosts), "host")
	if len(hosts) > 0 {
		what += " (" + strings.Join(hosts, ", ") + ")"
	}
	text := fmt.Sprintf("There is no state of cluster %s, but %s of it %s on this machine.", name, what, isAre(len(hosts)))
	if err := r.show(view.Message{What: "destroy", Text: text, Fields: map[string]string{"cluster": name, "hosts": strings.Join(hosts, " "), "lostState": origin}}); err != nil {
		return true, err
	}
	if !approved {
		if err := r.confirm(ctx, fmt.Sprintf("Destroy cluster %s with everything on it? This cannot be undone.", name)); err != nil {
			return true, err
		}
	}
	if err := left.Destroy(ctx, name); err != nil {
		return true, err
	}
	return true, r.show(view.Message{What: "destroy", Text: fmt.Sprintf("Cluster %s is gone.", name), Fields: map[string]string{"cluster": name}})
}

// providerDir is the directory of the provider block, relative to the file and
// not to where the command runs.
func (r *run) providerDir(file string, b *blueprint.Blueprint) string {
	dir := b.Provider.Local.Dir.Value
	if dir != "" && !filepath.IsAbs(dir) {
		dir = filepath.Join(filepath.Dir(r.abs(file)), dir)
	}
	return dir
}
