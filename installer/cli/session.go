package cli

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"

	"dcos.example/dcos/installer/bundle"
	"dcos.example/dcos/installer/cli/view"
	"dcos.example/dcos/installer/engine"
	"dcos.example/dcos/installer/program"
	"dcos.example/dcos/installer/stack"
	"dcos.example/dcos/installer/topology"
	"dcos.example/dcos/runtime/fault"
)

// session is a cluster's stack opened for an operation, with what makes its
// resources.
type session struct {
	run     *run
	cluster string
	stack   *stack.Stack
	meta    meta
	made    ProviderOptions // what options.Providers were made from
	options engine.Options
}

// meta is what the installer remembers of a stack beside its state: enough to
// go on without the file. It holds no secrets.
type meta struct {
	Provider  string `json:"provider"`
	Dir       string `json:"dir,omitempty"` // of the provider
	File      string `json:"file"`          // absolute path of the cluster's file
	AdminUser string `json:"adminUser"`
	// Bundle is the release of the last apply: starting a host takes it.
	Bundle string `json:"bundle,omitempty"`
	// Roll is how the last apply changed agents: rollback does the same.
	Roll roll `json:"roll,omitzero"`
	// RolledTo is the serial of the state that a rollback went back to, 0 when
	// an apply came after: the next rollback goes further back.
	RolledTo uint64 `json:"rolledTo,omitempty"`
	// Versions are those of the releases that the cluster had, by their digests.
	Versions map[string]string `json:"versions,omitempty"`
	// Trust are public keys that were trusted by -trust-key or DCOS_TRUST_KEY
	// for this cluster's bundles, and still are.
	Trust []string `json:"trust,omitempty"`
	// PasswordShown says that the generated password has been shown.
	PasswordShown bool          `json:"passwordShown,omitempty"`
	Outputs       []view.Output `json:"outputs,omitempty"`
}

const metaFile = "installer.json"

func readMeta(dir string) (meta, error) {
	var m meta
	b, err := os.ReadFile(filepath.Join(dir, metaFile))
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil {
		return m, fault.New("read "+metaFile, fault.Internal, err)
	}
	return m, nil
}

func (s *session) writeMeta() error {
	const op = "write " + metaFile
	b, err := json.MarshalIndent(s.meta, "", "  ")
	if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	f, err := os.CreateTemp(s.stack.Dir(), ".meta-*")
	if err != nil {
		return fault.New(op, fault.Denied, err)
	}
	defer os.Remove(f.Name()) // nothing is there after the rename
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(s.stack.Dir(), metaFile))
	}
	if err != nil {
		return fault.New(op, fault.Denied, err)
	}
	return nil
}

// open opens the stack of a cluster in dir. What m leaves empty is as it was.
func (r *run) open(cluster, dir string, m meta, bundle, command string) (*session, error) {
	phrase, err := stack.PassphraseFromEnv()
	if err != nil {
		return nil, err
	}
	st, err := stack.Open(dir, stack.Options{Name: cluster, Passphrase: phrase})
	if err != nil {
		return nil, err
	}
	old, err := readMeta(dir)
	if err != nil {
		return nil, err
	}
	if m.Provider == "" {
		m = old
	}
	m.PasswordShown, m.Roll, m.RolledTo, m.Versions = old.PasswordShown, old.Roll, old.RolledTo, old.Versions
	if m.Outputs == nil {
		m.Outputs = old.Outputs
	}
	trust, err := r.trust(old)
	if err != nil {
		return nil, err
	}
	if m.Trust, err = r.remember(old); err != nil {
		return nil, err
	}
	made := ProviderOptions{Kind: m.Provider, StateDir: st.Dir(), Dir: m.Dir, Bundle: bundle, Trust: trust, Abandon: r.abandon, Destroy: command == "destroy"}
	set, err := r.app.Providers(made)
	if err != nil {
		return nil, err
	}
	if r.parallel < 0 {
		return nil, usageError{errors.New("-parallel must be positive")}
	}
	return &session{run: r, cluster: cluster, stack: st, meta: m, made: made, options: engine.Options{Providers: set, Parallel: r.parallel, Command: "dcos-install " + command}}, nil
}

// openInput opens the stack of the cluster that in describes. The release is
// the one that it is to have.
func (r *run) openInput(in *input, rel program.Release, command string) (*session, error) {
	dir := r.providerDir(in.path, in.blueprint)
	name := in.blueprint.Cluster.Name.Value
	s, err := r.open(name, filepath.Join(r.stateRoot(in.path), name), meta{
		Provider: in.blueprint.Provider.Kind.Value, Dir: dir, File: r.abs(in.path), AdminUser: in.blueprint.Cluster.AdminUser.Value, Bundle: rel.Bundle}, rel.Bundle, command)
	if err == nil {
		known := map[string]string{rel.Digest: rel.Version}
		maps.Copy(known, s.meta.Versions)
		s.meta.Versions = known
	}
	return s, err
}

// release reads the bundle and holds it to the version that the file wants.
func (r *run) release(in *input) (program.Release, error) {
	old, err := readMeta(filepath.Join(r.stateRoot(in.path), in.topology.Cluster.Name))
	if err != nil {
		return program.Release{}, err
	}
	trust, err := r.trust(old)
	if err != nil {
		return program.Release{}, err
	}
	path, m, err := r.app.Bundle(r.bundlePath(), trust)
	if err != nil {
		return program.Release{}, err
	}
	if want := in.topology.Cluster.Release; want != "" && want != m.Version {
		at := in.blueprint.Cluster.Release.Range
		return program.Release{}, fault.Newf("choose the release", fault.Invalid, "%s:%d wants release %s, and %s is release %s", at.Filename, at.Start.Line, want, path, m.Version)
	}
	return program.Release{Version: m.Version, Digest: m.Digest(), Bundle: path, Programs: m.Programs()}, nil
}

func (r *run) bundlePath() string {
	p := r.bundle
	if p == "" {
		p = r.env("DCOS_BUNDLE")
	}
	if p == "" {
		return ""
	}
	return r.abs(p)
}

// FindBundle returns the only release bundle next to the program at exe, or
// one folder above, where a build leaves it.
func FindBundle(exe string) (string, error) {
	const op = "find the release bundle"
	for _, dir := range []string{filepath.Dir(exe), filepath.Dir(filepath.Dir(exe))} {
		found, err := filepath.Glob(filepath.Join(dir, "dcos-*.bundle"))
		if err != nil {
			return "", fault.New(op, fault.Invalid, err)
		}
		switch len(found) {
		case 1:
			return found[0], nil
		case 0:
		default:
			return "", fault.Newf(op, fault.Invalid, "there are several: %s; choose with -bundle", strings.Join(found, ", "))
		}
	}
	return "", fault.Newf(op, fault.Invalid, "there is none next to %s; name it with -bundle or DCOS_BUNDLE, or build it with: make bundle", exe)
}

// ReadBundle reads the manifest of the bundle at path, or of the one that
// FindBundle finds. It must be signed by a key of t.
func ReadBundle(path string, t bundle.Trust) (string, bundle.Manifest, error) {
	if path == "" {
		exe, err := os.Executable()
		if err != nil {
			return "", bundle.Manifest{}, fault.New("find the release bundle", fault.Internal, err)
		}
		if path, err = FindBundle(exe); err != nil {
			return "", bundle.Manifest{}, err
		}
	}
	if _, err := os.Stat(path); err != nil {
		return "", bundle.Manifest{}, fault.New("read the release bundle", fault.Invalid, err)
	}
	m, err := bundle.ReadManifest(path, t)
	return path, m, err
}

// configHash stands for everything that goals are made of but the password: a
// hash of it would let its holder try passwords.
func configHash(t *topology.Topology, rel program.Release) (string, error) {
	c := *t
	c.Cluster.AdminPassword = ""
	b, err := json.Marshal(struct {
		Topology *topology.Topology
		Release  string
	}{&c, rel.Digest})
	if err != nil {
		return "", fault.New("hash the configuration", fault.Internal, err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// interruptible returns a context that the operator's first Ctrl-C ends. The
// second aborts the process; the journal makes even that safe.
func (r *run) interruptible(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-done:
				return
			case <-r.app.Interrupts:
			}
			if n > 0 {
				r.app.Abort()
				return
			}
			fmt.Fprintln(r.app.Stderr, "\nStopping: what has begun is finished first. Press Ctrl-C again to stop at once.")
			cancel()
		}
	})
	return ctx, func() { close(done); wg.Wait(); cancel() }
}

// confirm asks for a yes.
func (r *run) confirm(ctx context.Context, question string) error {
	if r.json || !r.app.Interactive {
		return usageError{errors.New("this needs a yes from a person at a terminal; give -auto-approve to go ahead without")}
	}
	if _, err := fmt.Fprintf(r.app.Stdout, "\n%s\nOnly 'yes' is taken for a yes: ", question); err != nil {
		return err
	}
	type answer struct {
		text string
		err  error
	}
	got := make(chan answer, 1)
	// A read from a terminal cannot be interrupted: when the operator presses
	// Ctrl-C instead, this ends with the process.
	go func() {
		s, err := bufio.NewReader(r.app.Stdin).ReadString('\n')
		got <- answer{s, err}
	}()
	select {
	case <-ctx.Done():
	case a := <-got:
		if strings.TrimSpace(a.text) == "yes" {
			return nil
		}
	}
	return fault.Newf("confirm", fault.Denied, "not confirmed; nothing was changed")
}

// planned is the document of a plan, with what the state knows of its hosts.
func (s *session) planned(p *engine.Plan) (view.Plan, error) {
	d := view.NewPlan(s.cluster, p)
	st, err := s.stack.State()
	if err != nil {
		return d, err
	}
	d.Roles, d.Versions = map[string]string{}, s.meta.Versions
	for _, res := range st.Resources() {
		if k := engine.KeyOf(res.URN); k.Type == program.TypeNode || program.IsHost(k.Type) {
			d.Roles[k.Name] = text(res.Inputs["role"])
		}
	}
	return d, nil
}

// follow runs f with an event log that is shown while it runs.
func (s *session) follow(ctx context.Context, f func(engine.Options) (*engine.Result, error)) (*engine.Result, error) {
	r := s.run
	log := engine.NewLog()
	opts := s.options
	opts.Events = log
	var wg sync.WaitGroup
	p := r.printer(r.app.Stdout)
	wg.Go(func() {
		// Shown to the end, also after an interrupt: the log is closed below.
		all := context.WithoutCancel(ctx)
		switch {
		case r.json:
			view.FollowJSON(all, p, log)
		case r.app.Terminal:
			view.FollowLive(all, p, log, time.Now)
		default:
			view.FollowPlain(all, p, log)
		}
	})
	res, err := f(opts)
	log.Close()
	wg.Wait()
	return res, errors.Join(err, p.Err)
}

// result turns what the engine did into a document.
func (s *session) result(operation string, res *engine.Result, err error, start time.Time) view.Result {
	d := view.Result{Operation: operation, Cluster: s.cluster, Success: err == nil, Elapsed: time.Since(start), Done: map[engine.Op]int{}}
	if res != nil {
		d.Stopped = res.Stopped
		d.Done = res.Done
		for _, f := range res.Failed {
			k := engine.KeyOf(f.URN)
			d.Failed = append(d.Failed, view.Failure{Type: string(k.Type), Name: k.Name, Op: f.Op, Error: f.Err.Error(), Kind: fault.KindOf(f.Err).String(), Kept: f.Kept})
		}
		for _, x := range res.Skipped {
			k := engine.KeyOf(x.URN)
			d.Skipped = append(d.Skipped, view.Skip{Type: string(k.Type), Name: k.Name, Op: x.Op, Reason: x.Reason})
		}
	}
	if err != nil {
		d.Error = err.Error()
	}
	return d
}

// text returns a property's text, also out of a secret.
func text(v resource.PropertyValue) string {
	for v.IsSecret() {
		v = v.SecretValue().Element
	}
	if v.IsString() {
		return v.StringValue()
	}
	return ""
}

func flag(v resource.PropertyValue) bool {
	for v.IsSecret() {
		v = v.SecretValue().Element
	}
	return v.IsBool() && v.BoolValue()
}
