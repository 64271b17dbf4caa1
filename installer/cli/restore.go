package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/spf13/cobra"

	"dcos.example/dcos/installer/cli/view"
	"dcos.example/dcos/installer/engine"
	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/installer/program"
	"dcos.example/dcos/installer/recovery"
	"dcos.example/dcos/installer/stack"
	"dcos.example/dcos/installer/topology"
	"dcos.example/dcos/runtime/backup/archive"
	"dcos.example/dcos/runtime/fault"
)

func resourceKey(s string) resource.PropertyKey { return resource.PropertyKey(s) }

type restoreFlags struct {
	identityFile, passphraseFile string
}

func (r *run) restoreCommand() *cobra.Command {
	var f restoreFlags
	var o changing
	c := &cobra.Command{
		Use:   "restore BACKUP [FILE]",
		Short: "Bring a cluster back from a backup, onto new or the same hosts",
		Long: `Make the cluster of FILE as the BACKUP has it: its apps, users, certificates and ids. The first
master starts from the backup, the others join it. Agents on hosts that are still there go on
with their tasks; the tasks of others are started anew. What happened after the backup is lost;
the stores of masters that are there are moved aside, not deleted.

The key that opens the backup is taken from the state; where that is lost, give -identity with
the file that 'dcos-install backup key -reveal' wrote, or -passphrase-file.`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			ctx, stop := r.interruptible(c.Context())
			defer stop()
			return r.restore(ctx, args[0], args[1:], f, o)
		},
	}
	c.Flags().StringVar(&f.identityFile, "identity", "", "`file` with the key that opens the backup")
	c.Flags().StringVar(&f.passphraseFile, "passphrase-file", "", "`file` with the passphrase that opens the backup")
	return r.withChanging(r.withRelease(r.withVariables(c)), &o)
}

// identities returns the keys that may open a backup: those given, and those
// that the stack has kept.
func (r *run) identities(s *session, f restoreFlags) ([]age.Identity, error) {
	var out []age.Identity
	if f.passphraseFile != "" {
		phrase, err := r.firstLine(f.passphraseFile)
		if err != nil {
			return nil, err
		}
		id, err := age.NewScryptIdentity(phrase)
		if err != nil {
			return nil, fault.New("read "+f.passphraseFile, fault.Invalid, err)
		}
		return []age.Identity{id}, nil // age wants it alone
	}
	if f.identityFile != "" {
		in, err := os.Open(r.abs(f.identityFile))
		if err != nil {
			return nil, fault.New("read "+f.identityFile, fault.Invalid, err)
		}
		defer in.Close()
		ids, err := age.ParseIdentities(in)
		if err != nil {
			return nil, fault.Newf("read "+f.identityFile, fault.Invalid, "it holds no age key (AGE-SECRET-KEY-1…): %v", err)
		}
		return ids, nil
	}
	if s != nil {
		keys, err := s.stack.Kept(keptKeys)
		if err != nil {
			return nil, err
		}
		for _, v := range keys {
			id, err := age.ParseX25519Identity(text(v))
			if err != nil {
				return nil, fault.New("read the kept keys of backups", fault.Internal, err)
			}
			out = append(out, id)
		}
	}
	if len(out) == 0 {
		return nil, fault.Newf("open the backup", fault.Invalid, "no key is known here that could open it; give -identity FILE or -passphrase-file FILE")
	}
	return out, nil
}

// openBackup opens and checks the file; done removes what it unpacked.
func openBackup(file string, ids []age.Identity) (b *archive.Backup, done func(), err error) {
	in, err := os.Open(file)
	if err != nil {
		return nil, nil, fault.New("open the backup", fault.Invalid, err)
	}
	defer in.Close()
	dir, err := os.MkdirTemp("", "dcos-restore-")
	if err != nil {
		return nil, nil, fault.New("open the backup", fault.Internal, err)
	}
	done = func() { _ = os.RemoveAll(dir) } // a rest in the temporary directory is no reason to fail
	if b, err = archive.Open(in, ids, dir); err != nil {
		done()
		return nil, nil, fault.New(filepath.Base(file), fault.KindOf(err), err)
	}
	return b, done, nil
}

func (r *run) restore(ctx context.Context, file string, args []string, f restoreFlags, o changing) error {
	w, err := r.prepare(args, "restore")
	if err != nil {
		return err
	}
	s := w.session
	if err := s.rememberKey(); err != nil {
		return err
	}
	ids, err := r.identities(s, f)
	if err != nil {
		return err
	}
	b, done, err := openBackup(r.abs(file), ids)
	if err != nil {
		return err
	}
	defer done()
	if err := w.suits(b.Manifest); err != nil {
		return err
	}
	st, err := s.stack.State()
	if err != nil {
		return err
	}
	secrets := st.Live(program.SecretsKey(s.cluster).URN(s.stack.Name()))
	if secrets != nil && text(secrets.Outputs["clusterId"]) != b.Manifest.ClusterID {
		return fault.Newf("restore cluster "+s.cluster, fault.Conflict, "the state here is of a cluster %s with the id %s, the backup of one with %s.\n"+
			"Destroy that one first, or give -state with another directory", s.cluster, text(secrets.Outputs["clusterId"]), b.Manifest.ClusterID)
	}
	m := b.Manifest
	if err := r.show(view.Message{What: "restore", Fields: map[string]string{"backup": m.ID, "created": m.Created.Format(time.RFC3339), "cluster": m.ClusterName, "clusterId": m.ClusterID},
		Text: fmt.Sprintf("Backup %s of cluster %s, made at %s: %d keys at revision %d, %d agents.", m.ID, m.ClusterName, m.Created.Local().Format(time.DateTime), m.Store.Keys, m.Store.Revision, len(m.Agents))}); err != nil {
		return err
	}
	if !o.approve {
		if err := r.confirm(ctx, fmt.Sprintf("Restore it? What happened to cluster %s after %s is lost.", s.cluster, m.Created.Local().Format(time.DateTime))); err != nil {
			return err
		}
	}
	// Before anything is stopped.
	if err := r.app.Allowed(s.meta.Provider); err != nil {
		return err
	}
	if err := s.beginRestore(file); err != nil {
		return err
	}
	taken, err := w.takeOver(b, ids, st)
	if err != nil {
		return err
	}
	if err := errors.Join(s.rememberKey(), s.halt(ctx, taken)); err != nil {
		return err
	}
	first := w.input.topology.Masters()[0].Name
	seed := &recovery.Seed{Host: first, Snapshot: b.Snapshot, Order: archive.Order{Backup: m.ID, ClusterID: m.ClusterID,
		ForgetAgents: recovery.Forget(m.Agents, w.agents(ctx, taken))}}
	for _, f := range m.Files {
		if f.Name == archive.SnapshotName {
			seed.Order.SHA256 = f.SHA256
		}
	}
	s.made.Open = seed.Open(r.app.Open)
	if s.options.Providers, err = r.app.Providers(s.made); err != nil {
		return err
	}
	s.options.Refresh = true
	o.approve, o.now = true, true
	w.restore = file
	return r.apply(ctx, w, o, args)
}

// A restore that was begun is noted until it has ended: an apply in between
// could let the first master begin with nothing.
const keptRestore = "restore"

func (s *session) beginRestore(file string) error {
	return s.stack.Keep(keptRestore, resource.PropertyMap{"backup": resource.NewProperty(s.run.abs(file))})
}

// restored refuses to apply in the middle of a restore.
func (w *work) restored() error {
	kept, err := w.session.stack.Kept(keptRestore)
	if err != nil || w.restore != "" || text(kept["backup"]) == "" {
		return err
	}
	return fault.Newf("make the cluster", fault.Conflict, "a restore was begun and has not ended; run it again: dcos-install restore %s", quoted(text(kept["backup"])))
}

func (w *work) endRestore() error {
	if w.restore == "" {
		return nil
	}
	return w.session.stack.Keep(keptRestore, resource.PropertyMap{})
}

// suits refuses a backup that the file and the release cannot become.
func (w *work) suits(m archive.Manifest) error {
	const op = "restore the backup"
	if name := w.input.topology.Cluster.Name; m.ClusterName != name {
		return fault.Newf(op, fault.Invalid, "it is of cluster %s, the file is about %s; certificates and ids are those of %s. Set the name in the file", m.ClusterName, name, m.ClusterName)
	}
	if older(w.release.Version, m.Release) {
		return fault.Newf(op, fault.Invalid, "it was made by release %s, the bundle is release %s, which may not read it; give -bundle with that release or a later one", m.Release, w.release.Version)
	}
	return nil
}

// older compares versions number by number.
func older(a, b string) bool {
	num := func(s string) (out []int) {
		for part := range strings.SplitSeq(strings.SplitN(s, "-", 2)[0], ".") {
			n := 0
			for _, c := range part {
				if c < '0' || c > '9' {
					break
				}
				n = n*10 + int(c-'0')
			}
			out = append(out, n)
		}
		return out
	}
	return slices.Compare(num(a), num(b)) < 0
}

// takeOver writes into the stack what the backup says: the secrets, and those
// hosts of the file that the installer knew at that time, when the stack has
// none. It returns the state after that.
func (w *work) takeOver(b *archive.Backup, ids []age.Identity, st *stack.State) (*stack.State, error) {
	const op = "take the cluster over from the backup"
	s := w.session
	known := st
	if st.Empty() {
		var err error
		if known, err = w.recorded(b); err != nil {
			return nil, err
		}
	}
	secretsURN := program.SecretsKey(s.cluster).URN(s.stack.Name())
	var outputs resource.PropertyMap
	if res := known.Live(secretsURN); res != nil {
		outputs = res.Outputs
	}
	outputs, err := recovery.Secrets(b, outputs, usable(ids), w.input.topology.Masters()[0].Name)
	if err != nil {
		return nil, err
	}
	var inputs resource.PropertyMap
	for _, g := range w.goals {
		if g.Key == program.SecretsKey(s.cluster) {
			if inputs, err = g.Inputs(engine.Outputs{}); err != nil {
				return nil, err
			}
		}
	}
	o, err := s.stack.Begin("restore", s.options.Command)
	if err != nil {
		return nil, err
	}
	now := time.Now().UTC()
	res := []*stack.Resource{{URN: secretsURN, ID: resource.ID(b.Manifest.ClusterID), Type: program.TypeSecrets, Inputs: inputs, Outputs: outputs, Created: now, Modified: now,
		SecretOutputs: []resource.PropertyKey{"caKey", "joinToken", "sealKey", "adminPassword", "adminHash", "backupIdentity"}}}
	if st.Empty() {
		res = append(res, w.sameHosts(known)...)
	}
	var errs []error
	if old := st.Live(program.ClusterKey(s.cluster).URN(s.stack.Name())); old != nil {
		errs = append(errs, o.Done(stack.OpForget, old)) // it is waited for as if it were new
	}
	for _, r := range res {
		errs = append(errs, o.Done(stack.OpCreate, r))
	}
	result := stack.Succeeded
	if err := errors.Join(errs...); err != nil {
		result = stack.Failed
	}
	if err := errors.Join(append(errs, o.End(result, map[string]int{"restore": len(res)}))...); err != nil {
		return nil, fault.New(op, fault.KindOf(err), err)
	}
	return s.stack.State()
}

func usable(ids []age.Identity) age.Identity {
	if len(ids) == 1 {
		return ids[0]
	}
	return nil // those of the stack: it has kept them already
}

// recorded is the installer's state that is in the backup, empty if there is
// none or if it cannot be opened: what matters most is in other files too.
func (w *work) recorded(b *archive.Backup) (*stack.State, error) {
	const op = "read the installer's state in the backup"
	dir, err := os.MkdirTemp("", "dcos-restore-")
	if err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	defer os.RemoveAll(dir)
	none := func(why error) (*stack.State, error) {
		empty, err := stack.Open(filepath.Join(dir, "none"), stack.Options{Name: w.session.cluster})
		if err != nil {
			return nil, err
		}
		if why != nil {
			if err := w.session.run.showOn(w.session.run.app.Stderr, view.Message{What: "warning", Fields: map[string]string{"error": why.Error()},
				Text: fmt.Sprintf("Warning: the installer's state in the backup cannot be used: %v\nHosts that are there already are not known; if there are any, destroy them first.", why)}); err != nil {
				return nil, err
			}
		}
		return empty.State()
	}
	content, ok := b.Files[archive.DepositName]
	if !ok {
		return none(nil)
	}
	c, err := recovery.Unpack(content)
	if err != nil {
		return none(err)
	}
	at := filepath.Join(dir, c.Cluster)
	if err := stack.Import(at, c.Files, metaFile); err != nil {
		return none(err)
	}
	phrase, err := stack.PassphraseFromEnv()
	if err != nil {
		return nil, err
	}
	old, err := stack.Open(at, stack.Options{Passphrase: phrase})
	if err != nil {
		return none(err)
	}
	st, err := old.State()
	if err != nil {
		return none(err)
	}
	return st, nil
}

// sameHosts are the hosts of the file that st knows under the same name at the
// same address, with what is installed on them. Others that st knows are left
// alone: they may be of a cluster that still runs.
func (w *work) sameHosts(st *stack.State) []*stack.Resource {
	at := map[string]string{}
	for _, h := range w.input.topology.Hosts {
		at[h.Name] = h.Addr.String()
	}
	var out []*stack.Resource
	for _, res := range st.Resources() {
		k := engine.KeyOf(res.URN)
		if (program.IsHost(k.Type) || k.Type == program.TypeNode) && at[k.Name] != "" && at[k.Name] == text(res.Inputs["address"]) || k.Type == program.TypeNetwork {
			out = append(out, res)
		}
	}
	return out
}

// refs are the hosts in st of the wanted roles, by name: how to reach them, and
// their addresses.
func (s *session) refs(st *stack.State, want func(role string) bool) (map[string]host.Ref, map[string]netip.Addr, error) {
	refs, addrs := map[string]host.Ref{}, map[string]netip.Addr{}
	for _, res := range st.Resources() {
		k := engine.KeyOf(res.URN)
		if !program.IsHost(k.Type) || !want(text(res.Inputs["role"])) {
			continue
		}
		ref, err := reference(k.Name, res.Outputs)
		if err != nil {
			return nil, nil, err
		}
		addr, err := netip.ParseAddr(text(res.Inputs["address"]))
		if err != nil {
			return nil, nil, fault.New("read the address of host "+k.Name, fault.Internal, err)
		}
		refs[k.Name], addrs[k.Name] = ref, addr
	}
	return refs, addrs, nil
}

func isMaster(role string) bool { return role == string(topology.RoleMaster) }

// halt stops the masters that are there and moves their stores aside. One that
// cannot be reached might come back with what the cluster was and is a reason
// not to begin.
func (s *session) halt(ctx context.Context, st *stack.State) error {
	refs, _, err := s.refs(st, isMaster)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(refs)) {
		h, err := s.run.app.Open(ctx, refs[name])
		if fault.Is(err, fault.NotFound) || fault.Is(err, fault.Unavailable) {
			if err := s.run.show(view.Message{What: "notice", Text: fmt.Sprintf("Master %s cannot be reached: %v", name, err), Fields: map[string]string{"host": name}}); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		aside, err := recovery.Halt(ctx, h, time.Now())
		if err != nil {
			return fault.New("stop master "+name, fault.KindOf(err), err)
		}
		if aside != "" {
			if err := s.run.show(view.Message{What: "notice", Text: fmt.Sprintf("Master %s is stopped; its store is in %s there.", name, aside), Fields: map[string]string{"host": name, "aside": aside}}); err != nil {
				return err
			}
		}
	}
	return nil
}

// agents looks which agents the hosts of the file have. Hosts that st does not
// know are new, and have none.
func (w *work) agents(ctx context.Context, st *stack.State) map[netip.Addr]recovery.Standing {
	refs, addrs, err := w.session.refs(st, func(role string) bool { return !isMaster(role) })
	if err != nil {
		refs = nil
	}
	byAddr := map[netip.Addr]host.Ref{}
	for name, ref := range refs {
		byAddr[addrs[name]] = ref
	}
	out := recovery.Agents(ctx, byAddr, w.session.run.app.Open)
	for _, h := range w.input.topology.Hosts {
		if _, ok := out[h.Addr]; !ok {
			out[h.Addr] = recovery.Standing{Known: true}
		}
	}
	return out
}
