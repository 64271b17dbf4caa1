// Package cli has the commands of dcos. A command reads arguments, asks the
// cluster, and prints: text for people, the API's JSON with --json.
//
// Exit codes: 0 done, 1 failed, 2 wrong usage or input. `dcos task exec` exits
// as the command in the task does.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"dcos.example/dcos/cmd/dcos/client"
	"dcos.example/dcos/cmd/dcos/profile"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
)

// Env is what a run of the program sees of the world.
type Env struct {
	Args           []string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Getenv         func(string) string
}

// exitStatus ends the program with the status of a command in a task.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// failure marks an error of a command that ran, to tell it from cobra's own
// errors, which are all about usage.
type failure struct{ error }

func (f failure) Unwrap() error { return f.error }

// Run executes one command line and returns the exit code.
func Run(ctx context.Context, env Env) int {
	a := &app{Env: env, log: slog.New(slog.DiscardHandler)}
	root := a.root()
	root.SetArgs(env.Args)
	root.SetIn(env.Stdin)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if status, ok := errors.AsType[exitStatus](err); ok {
		return int(status)
	}
	if ctx.Err() != nil {
		return 130 // interrupted, as shells say it: the user knows
	}
	fmt.Fprintln(env.Stderr, "dcos:", err)
	if _, ran := errors.AsType[failure](err); !ran || fault.Is(err, fault.Invalid) {
		return 2
	}
	return 1
}

// app is one run of the program.
type app struct {
	Env
	log *slog.Logger
}

func (a *app) root() *cobra.Command {
	var debug bool
	root := group("dcos", "Drive a DC/OS cluster")
	root.Long = `dcos drives a DC/OS cluster through its front door.

  dcos cluster setup https://ADDRESS    trust a cluster, log in, remember it
  dcos marathon app add app.json        run an app
  dcos marathon app list                what is wanted, and how it is
  dcos task list                        what runs, and where
  dcos task log -f TASK                 what a task says
  dcos task exec -it TASK sh            look inside

A TASK is an ID, or any part of an ID or name. --json prints what programs read.
Exit codes: 0 done, 1 failed, 2 wrong usage or input; task exec ends as its command does.
DCOS_DIR, DCOS_CLUSTER, DCOS_URL and DCOS_ACS_TOKEN stand above what is remembered.`
	root.Version = config.Version
	root.SilenceUsage, root.SilenceErrors = true, true
	root.PersistentFlags().BoolVar(&debug, "debug", false, "print requests to standard error")
	root.PersistentPreRun = func(*cobra.Command, []string) {
		if debug {
			a.log = slog.New(slog.NewTextHandler(a.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
		}
	}
	root.AddCommand(a.clusterCmd(), a.authCmd(), a.nodeCmd(), a.marathonCmd(), a.taskCmd(), a.serviceCmd(), a.configCmd())
	a.complete(root)
	return root
}

// group is a command that only has subcommands.
func group(use, short string, subs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.ArbitraryArgs, RunE: func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return fmt.Errorf("`%s` has no subcommand %q; see `%s --help`", cmd.CommandPath(), args[0], cmd.CommandPath())
		}
		return cmd.Help()
	}}
	cmd.AddCommand(subs...)
	return cmd
}

// command is one that does something.
func command(use, short string, args cobra.PositionalArgs, run func(ctx context.Context, args []string) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: args, RunE: func(cmd *cobra.Command, args []string) error {
		if err := run(cmd.Context(), args); err != nil {
			return failure{err}
		}
		return nil
	}}
}

// connect returns a client of the cluster that commands talk to.
func (a *app) connect() (*client.Client, error) {
	store, err := profile.Open(a.Getenv)
	if err != nil {
		return nil, err
	}
	c, err := store.Current()
	if err != nil {
		return nil, err
	}
	return client.New(c, a.log)
}

// table prints rows in columns.
func (a *app) table(header []string, rows [][]string) {
	tw := tabwriter.NewWriter(a.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, strings.Join(header, "\t"))
	for _, r := range rows {
		fmt.Fprintln(tw, strings.Join(r, "\t"))
	}
	_ = tw.Flush() // standard output is gone: nobody to tell
}

// json prints v for programs.
func (a *app) json(v any) error {
	enc := json.NewEncoder(a.Stdout)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// terminal returns the file descriptor of standard input if it is a terminal.
func (a *app) terminal() (int, bool) {
	f, ok := a.Stdin.(*os.File)
	if !ok {
		return 0, false
	}
	return int(f.Fd()), term.IsTerminal(int(f.Fd()))
}

// prompt asks a person; secret input is not shown.
func (a *app) prompt(question string, secret bool) (string, error) {
	fd, ok := a.terminal()
	if !ok {
		return "", fault.Newf("ask for "+strings.ToLower(question), fault.Invalid, "standard input is no terminal")
	}
	fmt.Fprint(a.Stderr, question+": ")
	if secret {
		b, err := term.ReadPassword(fd)
		fmt.Fprintln(a.Stderr)
		return string(b), err
	}
	// One byte at a time: what follows the line belongs to whoever reads next.
	var line []byte
	for b := make([]byte, 1); ; {
		n, err := a.Stdin.Read(b)
		if n == 1 && b[0] == '\n' {
			return strings.TrimRight(string(line), "\r"), nil
		}
		if err != nil {
			return "", fault.New("read answer", fault.Invalid, err)
		}
		line = append(line, b[:n]...)
	}
}

// input reads a file, or standard input when there is none or it is "-".
func (a *app) input(args []string) ([]byte, error) {
	if len(args) == 0 || args[0] == "-" {
		b, err := io.ReadAll(a.Stdin)
		if err != nil {
			return nil, fault.New("read standard input", fault.Invalid, err)
		}
		return b, nil
	}
	b, err := os.ReadFile(args[0])
	if err != nil {
		return nil, fault.New("read file", fault.Invalid, err)
	}
	return b, nil
}

// checkJSON says where a JSON text is broken before it is sent.
func checkJSON(name string, b []byte) error {
	var v any
	err := json.Unmarshal(b, &v)
	if err == nil {
		return nil
	}
	op := "read " + name
	if len(b) == 0 {
		return fault.Newf(op, fault.Invalid, "it is empty")
	}
	if se, ok := errors.AsType[*json.SyntaxError](err); ok {
		before := string(b[:min(int(se.Offset), len(b))])
		line := strings.Count(before, "\n") + 1
		column := len(before) - strings.LastIndex(before, "\n") - 1
		return fault.Newf(op, fault.Invalid, "line %d, column %d: %w", line, column, err)
	}
	return fault.New(op, fault.Invalid, err)
}
