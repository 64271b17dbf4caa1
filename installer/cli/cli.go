// Package cli is dcos-install's commands: arguments become an operation, and
// what came of it becomes a document that package view shows to people or to
// programs. Nothing here exits the process or reads global state; the caller
// passes in streams, environment and what makes machines.
package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"dcos.example/dcos/installer/bundle"
	"dcos.example/dcos/installer/cli/view"
	"dcos.example/dcos/installer/diag"
	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/installer/preflight"
	"dcos.example/dcos/installer/stack"
	"dcos.example/dcos/installer/topology"
	"dcos.example/dcos/providers"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
)

// Exit codes.
const (
	exitDone    = 0
	exitFailed  = 1
	exitInvalid = 2
	exitChanges = 3
)

// App is one run of the program.
type App struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Terminal and Columns describe Stdout; Interactive says that a person can
	// answer on Stdin.
	Terminal    bool
	Interactive bool
	Columns     int
	Env         []string // as of os.Environ
	Dir         string   // working directory
	Version     string

	// Providers returns what makes the resources of a cluster.
	Providers func(ProviderOptions) (providers.Set, error)
	// Hosts returns power over single hosts; nil, also as its answer: there is
	// none.
	Hosts func(ProviderOptions) (HostControl, error)
	// Open reaches hosts of every kind. What it holds open is the caller's.
	Open host.Opener
	// Leftovers finds what is left of clusters whose state is lost; nil: it
	// cannot be found.
	Leftovers func(ProviderOptions) (Leftovers, error)
	// Bundle finds and reads the release, which must be signed by a key that
	// counts. An empty path: the default place.
	Bundle func(path string, t bundle.Trust) (string, bundle.Manifest, error)
	// Here is this machine itself, called name; nil: it is not changed.
	Here func(ctx context.Context, name string) (host.Host, error)
	// Preflight looks at hosts before they are changed; nil: nobody does.
	Preflight func(context.Context, preflight.Options) []*preflight.Host
	// Dial reaches the cluster's gateways; nil means the network.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Allowed says whether machines of a kind may be made by this process.
	Allowed func(providerKind string) error
	// Interrupts delivers the operator's Ctrl-C. The first stops softly.
	Interrupts <-chan os.Signal
	// Abort ends the process at once, on the second.
	Abort func()
}

// ProviderOptions is what providers need to know of a run.
type ProviderOptions struct {
	Kind     string       // of the provider block: "local"
	StateDir string       // directory of the stack
	Dir      string       // the provider block's dir; empty: the provider's default
	Bundle   string       // path of the release bundle; empty: nothing will be made
	Trust    bundle.Trust // whose bundles are taken
	// Abandon names hosts that may be given up when they cannot be reached;
	// Destroy says that the whole cluster goes.
	Abandon []string
	Destroy bool
	Open    host.Opener // how hosts are reached; nil: as the program does anyway
}

// run is the state of one command: shared flags and the view.
type run struct {
	app *App

	json     bool
	noColor  bool
	vars     []string
	varFiles []string
	bundle   string
	trusted  []string // files of public keys
	ignore   []string // preflight checks
	state    string
	cluster  string
	parallel int
	abandon  []string
	dir      string // working directory
	chdir    string // as given

	exit int
}

// Run executes the command line and returns the exit code.
func (a *App) Run(ctx context.Context, args []string) int {
	if a.Version == "" {
		a.Version = config.Version
	}
	r := &run{app: a, dir: a.Dir}
	root := r.root()
	root.SetArgs(longFlags(args))
	root.SetIn(a.Stdin)
	root.SetOut(a.Stdout)
	root.SetErr(a.Stderr)
	if err := root.ExecuteContext(ctx); err != nil {
		return r.fail(err)
	}
	return r.exit
}

// longFlags lets flags be written with one hyphen, -auto-approve, as well as
// with two.
func longFlags(args []string) []string {
	if len(args) > 0 && strings.HasPrefix(args[0], "__complete") {
		return args
	}
	out := make([]string, len(args))
	rest := false
	for i, s := range args {
		rest = rest || s == "--"
		if !rest && len(s) > 2 && s[0] == '-' && s[1] != '-' {
			s = "-" + s
		}
		out[i] = s
	}
	return out
}

// usageError is a wrong command line.
type usageError struct{ error }

// reported is an error whose document has been shown.
type reported struct{ code int }

func (e reported) Error() string { return fmt.Sprintf("exit %d", e.code) }

// fail shows err and returns its exit code: the one place where kinds become
// exit codes.
func (r *run) fail(err error) int {
	if rep, ok := errors.AsType[reported](err); ok {
		return rep.code
	}
	p := view.Problem{Error: err.Error(), ErrorKind: fault.KindOf(err).String(), ExitCode: exitFailed, Hint: hint(err)}
	if _, ok := errors.AsType[usageError](err); ok {
		p.ExitCode, p.ErrorKind, p.Hint = exitInvalid, fault.Invalid.String(), "dcos-install help shows the commands, dcos-install help COMMAND its flags."
	} else if fault.Is(err, fault.Invalid) {
		p.ExitCode = exitInvalid
	}
	r.showOn(r.app.Stderr, p)
	return p.ExitCode
}

func hint(err error) string {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "The state belongs to the user who ran the first apply: run it as that user, or with sudo."
	case errors.As(err, new(*stack.LockedError)):
		return "Wait for that run to end, then give the command again. Nothing was changed."
	}
	return ""
}

// printer returns the printer of standard output.
func (r *run) printer(w io.Writer) *view.Printer {
	p := &view.Printer{W: w}
	if r.app.Terminal {
		p.Width, p.Color = r.app.Columns, !r.noColor && r.env("NO_COLOR") == "" && r.env("TERM") != "dumb"
	}
	return p
}

func (r *run) env(name string) string {
	for _, kv := range r.app.Env {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

// show writes d to standard output in the form that was asked for.
func (r *run) show(d view.Document) error { return r.showOn(r.app.Stdout, d) }

func (r *run) showOn(text io.Writer, d view.Document) error {
	if r.json { // one stream for programs
		return view.WriteJSON(r.app.Stdout, d, false)
	}
	p := r.printer(text)
	d.WriteText(p)
	return p.Err
}

// findings writes diagnostics for people; programs get them in a document.
func (r *run) findings(l diag.List, in *input) error {
	if r.json || len(l) == 0 {
		return nil
	}
	p := r.printer(r.app.Stderr)
	width := uint(100)
	if p.Width > 0 {
		width = uint(p.Width)
	}
	return l.WriteText(r.app.Stderr, in.blueprint.Files(), width, p.Color)
}

func (r *run) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "dcos-install",
		Short: "Make a cluster from a file, and keep it as the file says",
		Long: `dcos-install turns an HCL file into machines and a running cluster.

  dcos-install init                 write a commented cluster.hcl
  dcos-install plan                 show what would be done
  dcos-install apply                do it
  dcos-install destroy              undo all of it

FILE is cluster.hcl in this directory if left out.
Exit codes: 0 done, 1 failed, 2 wrong usage or input, 3 the plan has changes (with -detailed-exitcode).`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			var names []string
			for _, sub := range c.Commands() {
				names = append(names, sub.Name())
			}
			return usageError{fmt.Errorf("there is no command %q. %s", args[0], diag.DidYouMean(args[0], names))}
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		if r.chdir == "" {
			return nil
		}
		dir := r.abs(r.chdir)
		if fi, err := os.Stat(dir); err != nil || !fi.IsDir() {
			return usageError{fmt.Errorf("-chdir: %s is not a directory", r.chdir)}
		}
		r.dir = dir
		return nil
	}
	f := root.PersistentFlags()
	f.StringVar(&r.chdir, "chdir", "", "work as if started in a `directory`")
	f.BoolVar(&r.json, "json", false, "answer in JSON, one document a line")
	f.BoolVar(&r.noColor, "no-color", false, "no colours")
	f.StringVar(&r.state, "state", "", "state `directory` (default .dcos next to FILE)")
	root.AddCommand(r.initCommand(), r.validateCommand(), r.planCommand(), r.applyCommand(), r.statusCommand(), r.outputCommand(),
		r.upgradeCommand(), r.confirmCommand(), r.rollbackCommand(), r.destroyCommand(), r.historyCommand(), r.nodeCommand(), r.hostCommand(), r.fmtCommand(), r.versionCommand())
	root.AddCommand(r.bundleCommand(), r.preflightCommand())
	root.AddCommand(r.importCommand(), r.genconfCommand())
	root.AddCommand(r.backupCommand(), r.restoreCommand(), r.recoverCommand(), r.adoptCommand(), r.supportCommand())
	for _, c := range root.Commands() {
		r.strictArgs(c)
	}
	// Flags are shown the way they are mostly written, with one hyphen.
	cobra.AddTemplateFunc("oneHyphen", func(s string) string { return strings.ReplaceAll(s, "--", " -") })
	root.SetUsageTemplate(strings.NewReplacer(
		".LocalFlags.FlagUsages", "(oneHyphen .LocalFlags.FlagUsages)",
		".InheritedFlags.FlagUsages", "(oneHyphen .InheritedFlags.FlagUsages)",
		"--help", "-help").Replace(root.UsageTemplate()))
	return root
}

// strictArgs makes a wrong number of arguments a usage error.
func (r *run) strictArgs(c *cobra.Command) {
	check := c.Args
	c.Args = func(c *cobra.Command, args []string) error {
		if check == nil {
			return nil
		}
		if err := check(c, args); err != nil {
			return usageError{err}
		}
		return nil
	}
}

// withVariables adds the flags of commands that evaluate the file.
func (r *run) withVariables(c *cobra.Command) *cobra.Command {
	c.Flags().StringArrayVar(&r.vars, "var", nil, "set a variable: `name=value`; not for secrets, use DCOS_VAR_name for those")
	c.Flags().StringArrayVar(&r.varFiles, "var-file", nil, "read variables from a `file`")
	return c
}

// withRelease adds the flags of commands that work on machines.
func (r *run) withRelease(c *cobra.Command) *cobra.Command {
	c.Flags().StringVar(&r.bundle, "bundle", "", "`path` of the release bundle (default DCOS_BUNDLE, or next to this program)")
	r.withTrust(c)
	return r.withParallel(c)
}

func (r *run) withParallel(c *cobra.Command) *cobra.Command {
	c.Flags().StringSliceVar(&r.abandon, "abandon", nil, "`hosts` that are given up if they are to be removed and cannot be reached; all means all")
	c.Flags().IntVar(&r.parallel, "parallel", 0, "how many hosts to work on at once (default 10, or parallel of the provider block)")
	return c
}

// parallelism is how much of t is worked on at once.
func (r *run) parallelism(t *topology.Topology) int { return cmp.Or(r.parallel, t.Parallel, 10) }

// withCluster adds the flag of commands that need no file.
func (r *run) withCluster(c *cobra.Command) *cobra.Command {
	c.Flags().StringVar(&r.cluster, "cluster", "", "`name` of the cluster, when there is no FILE to tell")
	return c
}
