package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/spf13/cobra"

	"dcos.example/dcos/installer/bundle"
	"dcos.example/dcos/installer/cli/view"
	"dcos.example/dcos/installer/engine"
	"dcos.example/dcos/installer/program"
	"dcos.example/dcos/installer/rolepackage"
	"dcos.example/dcos/installer/topology"
	"dcos.example/dcos/runtime/fault"
)

// genconfDir is where genconf writes, as DC/OS's did.
const genconfDir = "genconf"

func (r *run) genconfCommand() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:   "genconf [FILE]",
		Short: "Put together what hosts need to install themselves, where SSH is forbidden",
		Long: `Write a directory with dcos_install.sh, this program, the release, and a package for each host of
FILE (provider onprem) and for agents that it does not name. Hosts install themselves from it: by
genconf serve, or from a copy. The cluster's secrets are made, or taken from its state.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			ctx, stop := r.interruptible(c.Context())
			defer stop()
			return r.genconf(ctx, args, out)
		},
	}
	c.Flags().StringVar(&out, "out", genconfDir, "`directory` to write")
	r.withRelease(r.withVariables(c))
	c.AddCommand(r.genconfServe(), r.genconfInstall(), r.genconfUninstall())
	for _, sub := range c.Commands() {
		r.strictArgs(sub)
	}
	return c
}

func (r *run) genconf(ctx context.Context, args []string, out string) error {
	in, err := r.load(r.file(args))
	if err != nil {
		return err
	}
	if err := r.check(in); err != nil {
		return err
	}
	if in.topology.Provider != topology.OnPrem {
		return fault.Newf("put together what hosts need", fault.Invalid, "%s has provider %s, whose hosts the installer makes and installs itself; genconf is for provider onprem", in.path, in.topology.Provider)
	}
	rel, err := r.release(in)
	if err != nil {
		return err
	}
	s, err := r.openInput(in, rel, "genconf")
	if err != nil {
		return err
	}
	secrets, err := s.secrets(ctx, in, rel)
	if err != nil {
		return err
	}
	if err := s.writeMeta(); err != nil {
		return err
	}
	trust, err := r.trust(s.meta)
	if err != nil {
		return err
	}
	m, signature, err := bundle.Verify(rel.Bundle, trust)
	if err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return fault.New("find this program", fault.Internal, err)
	}
	packages := rolepackage.All(in.topology, rolepackage.Release{Version: m.Version, Digest: m.Digest(), Bundle: filepath.Base(rel.Bundle)}, secrets, []string{trust.Line(signature.KeyID)})
	dir := rolepackage.Directory{Path: r.abs(out)}
	if err := dir.Write(rolepackage.Contents{Packages: packages, Program: program, Bundle: rel.Bundle}); err != nil {
		return err
	}
	doc := view.Genconf{Cluster: in.topology.Cluster.Name, Dir: out, Release: m.Release(), Hosts: []view.GenconfHost{}}
	for _, h := range in.topology.Hosts {
		doc.Hosts = append(doc.Hosts, view.GenconfHost{Name: h.Name, Role: rolepackage.RoleName(h.Role), Address: h.Addr.String()})
	}
	return r.show(doc)
}

// secrets returns the cluster's secrets, and makes them if nothing was applied
// yet. They stay in the state: an apply takes the hosts over.
func (s *session) secrets(ctx context.Context, in *input, rel program.Release) (rolepackage.Secrets, error) {
	key := program.SecretsKey(s.cluster)
	read := func() (resource.PropertyMap, bool, error) {
		st, err := s.stack.State()
		if err != nil {
			return nil, false, err
		}
		if res := st.Live(key.URN(s.stack.Name())); res != nil {
			return res.Outputs, true, nil
		}
		return nil, st.Empty(), nil
	}
	outputs, ok, err := read()
	if err != nil {
		return rolepackage.Secrets{}, err
	}
	if outputs == nil {
		if !ok {
			return rolepackage.Secrets{}, fault.Newf("read the secrets of the cluster", fault.Conflict, "an operation on cluster %s did not get to its end; finish it with apply, or destroy the cluster", s.cluster)
		}
		goals := program.Goals(in.topology, rel)
		if _, err := engine.Apply(ctx, s.stack, goals[:1], s.options); err != nil {
			return rolepackage.Secrets{}, err
		}
		if outputs, _, err = read(); err != nil {
			return rolepackage.Secrets{}, err
		}
	}
	return rolepackage.ReadSecrets(outputs, in.topology)
}

func (r *run) genconfServe() *cobra.Command {
	var dir, listen string
	var lifetime time.Duration
	c := &cobra.Command{
		Use:   "serve",
		Short: "Hand out what genconf wrote: the bootstrap server",
		Long: `Serve the directory that genconf wrote, HTTP and HTTPS on one port, and show what to run on the
hosts. Anybody may fetch the script, the program and the release. Packages, which hold secrets, are
given over HTTPS for the token of their role, each to one address. Tokens are made at every start.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := r.interruptible(c.Context())
			defer stop()
			return r.serve(ctx, rolepackage.Directory{Path: r.abs(dir)}, listen, lifetime)
		},
	}
	c.Flags().StringVar(&dir, "dir", genconfDir, "`directory` that genconf wrote")
	c.Flags().StringVar(&listen, "listen", ":8080", "`address` and port to listen on")
	c.Flags().DurationVar(&lifetime, "for", 24*time.Hour, "how `long` packages are handed out")
	return c
}

func (r *run) serve(ctx context.Context, dir rolepackage.Directory, listen string, lifetime time.Duration) error {
	if lifetime <= 0 {
		return usageError{errors.New("-for must be positive")}
	}
	log := slog.New(slog.NewTextHandler(r.app.Stderr, nil))
	s, err := rolepackage.NewServer(dir, rolepackage.ServerOptions{For: lifetime, Log: log})
	if err != nil {
		return err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
	if err != nil {
		return fault.New("listen on "+listen, fault.Unavailable, err)
	}
	defer l.Close()
	address, err := reachable(ctx, l, s.Master())
	if err != nil {
		return err
	}
	doc := view.GenconfServe{Cluster: s.Cluster(), URL: "https://" + address, Pin: s.Pin(), Until: time.Now().Add(lifetime), TokensFile: filepath.Join(dir.Path, "tokens")}
	var lines strings.Builder
	for _, role := range []topology.Role{topology.RoleMaster, topology.RoleAgent, topology.RolePublicAgent} {
		if token := s.Token(role); token != "" {
			doc.Tokens = append(doc.Tokens, view.GenconfToken{Role: rolepackage.RoleName(role), Token: token})
			fmt.Fprintf(&lines, "%s %s\n", rolepackage.RoleName(role), token)
		}
	}
	if err := os.WriteFile(doc.TokensFile, []byte(lines.String()), 0o600); err != nil {
		return fault.New("write the tokens", fault.Denied, err)
	}
	defer os.Remove(doc.TokensFile)
	if err := r.show(doc); err != nil {
		return err
	}
	return s.Serve(ctx, l)
}

// reachable is the address of l as hosts can use it.
func reachable(ctx context.Context, l net.Listener, master netip.Addr) (string, error) {
	at, err := netip.ParseAddrPort(l.Addr().String())
	if err != nil || !at.Addr().IsUnspecified() {
		return l.Addr().String(), nil
	}
	own, err := rolepackage.Addresses(ctx, master)
	if err != nil || len(own) == 0 {
		return at.String(), err
	}
	return netip.AddrPortFrom(own[0], at.Port()).String(), nil
}

// installFlags are those of genconf install, which dcos_install.sh runs.
type installFlags struct {
	from, pin, role, file, address, name string
	only, disabled                       bool
}

func (r *run) genconfInstall() *cobra.Command {
	var f installFlags
	c := &cobra.Command{
		Use:   "install -from URL|DIR -role ROLE",
		Short: "Make this machine a host; dcos_install.sh runs it",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := r.interruptible(c.Context())
			defer stop()
			return r.installHere(ctx, f)
		},
	}
	c.Flags().StringVar(&f.from, "from", "", "`URL` of genconf serve, or a copy of the directory that genconf wrote")
	c.Flags().StringVar(&f.pin, "pin", "", "SHA-256 of the server's public `key`, base64")
	c.Flags().StringVar(&f.role, "role", "", "master, slave or slave_public")
	c.Flags().StringVar(&f.file, "package", "", "`file` with this host's package, instead of asking for it")
	c.Flags().StringVar(&f.address, "address", "", "`address` of this machine that other hosts use")
	c.Flags().StringVar(&f.name, "name", "", "`name` of an agent that the cluster's file does not name")
	c.Flags().BoolVar(&f.only, "preflight-only", false, "look at the machine, and change nothing")
	c.Flags().BoolVar(&f.disabled, "disable-preflight", false, "do not look at the machine before")
	return r.withIgnore(r.withTrust(c))
}

// machine finds out who this machine is.
func (f installFlags) machine(ctx context.Context) (m rolepackage.Machine, err error) {
	if m.Role, err = rolepackage.ParseRole(f.role); err != nil {
		return m, err
	}
	if m.Name = strings.ToLower(f.name); m.Name == "" {
		if m.Name, err = rolepackage.Hostname(); err != nil {
			return m, err
		}
	}
	if f.address != "" {
		a, err := netip.ParseAddr(f.address)
		if err != nil || !a.Is4() {
			return m, usageError{fmt.Errorf("-address: %q is not an IPv4 address", f.address)}
		}
		m.Addrs = []netip.Addr{a}
		return m, nil
	}
	var to netip.Addr // whoever serves this is where the cluster is
	if u, err := url.Parse(f.from); err == nil {
		to, _ = netip.ParseAddr(u.Hostname()) // a name: the order is as good as any
	}
	m.Addrs, err = rolepackage.Addresses(ctx, to)
	return m, err
}

// packageOf returns this machine's package.
func (f installFlags) packageOf(ctx context.Context, m rolepackage.Machine, token string) (rolepackage.Package, rolepackage.Source, error) {
	src := rolepackage.Source{URL: f.from, Pin: f.pin, Token: token}
	if f.file == "" {
		p, err := src.Package(ctx, m)
		return p, src, err
	}
	p, err := rolepackage.Read(f.file)
	if err != nil {
		return p, src, err
	}
	p, err = p.Take(m)
	return p, src, err
}

func (r *run) installHere(ctx context.Context, f installFlags) error {
	start := time.Now()
	if f.from == "" || f.role == "" {
		return usageError{errors.New("-from and -role are needed")}
	}
	if f.only && f.disabled {
		return usageError{errors.New("-preflight-only and -disable-preflight do not go together")}
	}
	m, err := f.machine(ctx)
	if err != nil {
		return err
	}
	if err := r.asRoot(); err != nil {
		return err
	}
	work, end, err := rolepackage.Begin()
	if err != nil {
		return err
	}
	defer end() // what is left is removed the next time
	p, src, err := f.packageOf(ctx, m, r.env("DCOS_TOKEN"))
	if err != nil {
		return err
	}
	path, err := src.Bundle(ctx, p.Release, work)
	if err != nil {
		return err
	}
	here, err := r.app.Here(ctx, p.Host.Name)
	if err != nil {
		return err
	}
	trust, err := r.trust(meta{})
	if err != nil {
		return err
	}
	i := rolepackage.Installation{Package: p, Bundle: path, Trust: trust, Here: here, Cache: filepath.Join(work, "releases")}
	release, manifest, err := i.Unpack()
	if err != nil {
		return err
	}
	if !f.disabled {
		if err := r.preflightHere(ctx, i, release, manifest, f.only); err != nil || f.only {
			return err
		}
	}
	if err := i.Run(r.tell(ctx)); err != nil {
		return err
	}
	doc := view.Installed{Host: p.Host.Name, Role: rolepackage.RoleName(p.Host.Role), Address: p.Host.Addr.String(), Cluster: p.Cluster.Cluster.Name,
		Release: manifest.Release(), Elapsed: time.Since(start)}
	for _, h := range p.Cluster.Masters() {
		doc.Masters = append(doc.Masters, h.Addr.String())
	}
	return r.show(doc)
}

// asRoot says why this process cannot change this machine.
func (r *run) asRoot() error {
	if r.app.Here == nil {
		return fault.Newf("install this host", fault.Invalid, "this program cannot")
	}
	return r.app.Allowed(allowedHere)
}

// allowedHere asks App.Allowed whether this very machine may be changed.
const allowedHere = "here"

// NotRootHere is the error of App.Allowed for changes of this machine.
func NotRootHere() error {
	return fault.Newf("change this machine", fault.Denied, "that takes root; run it with sudo")
}

func (r *run) genconfUninstall() *cobra.Command {
	return &cobra.Command{
		Use:   "uninstall",
		Short: "Remove what dcos_install.sh installed on this machine",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := r.interruptible(c.Context())
			defer stop()
			if err := r.asRoot(); err != nil {
				return err
			}
			_, end, err := rolepackage.Begin()
			if err != nil {
				return err
			}
			defer end() // what is left is removed the next time
			name, err := rolepackage.Hostname()
			if err != nil {
				return err
			}
			here, err := r.app.Here(ctx, cmp.Or(name, "here"))
			if err != nil {
				return err
			}
			if err := rolepackage.Uninstall(r.tell(ctx), here); err != nil {
				return err
			}
			return r.show(view.Message{What: "uninstalled", Text: "This machine is as it was before.", Fields: map[string]string{"host": name}})
		},
	}
}
