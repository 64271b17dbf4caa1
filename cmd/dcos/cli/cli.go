// Package cli has the commands of dcos. A command reads arguments, asks the
// cluster, and prints: text for people, the API's JSON with --json.
//
// Exit codes: 0 done, 1 failed, 2 wrong usage or input. `dcos task exec` exits
// as the command in the task does.
package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"dcos.example/dcos/cmd/dcos/catalog"
	"dcos.example/dcos/cmd/dcos/console"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
)

// Env is what a run of the program sees of the world.
type Env = console.Env

// exitStatus ends the program with the status of a command in a task.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// Run executes one command line and returns the exit code.
func Run(ctx context.Context, env Env) int {
	a := &app{console.Console{Env: env, Log: slog.New(slog.DiscardHandler)}}
	root := a.root()
	a.addService(ctx, root)
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
	if !console.Ran(err) || fault.Is(err, fault.Invalid) {
		return 2
	}
	return 1
}

// app is one run of the program.
type app struct{ console.Console }

func (a *app) root() *cobra.Command {
	var debug bool
	root := console.Group("dcos", "Drive a DC/OS cluster")
	root.Long = `dcos drives a DC/OS cluster through its front door.

  dcos cluster setup https://ADDRESS    trust a cluster, log in, remember it
  dcos marathon app add app.json        run an app
  dcos marathon app list                what is wanted, and how it is
  dcos task list                        what runs, and where
  dcos task log -f TASK                 what a task says
  dcos task exec -it TASK sh            look inside
  dcos package install kafka            install a package
  dcos kafka plan status                what a service does: dcos NAME COMMAND

A TASK is an ID, or any part of an ID or name. --json prints what programs read.
Exit codes: 0 done, 1 failed, 2 wrong usage or input; task exec ends as its command does.
DCOS_DIR, DCOS_CLUSTER, DCOS_URL and DCOS_ACS_TOKEN stand above what is remembered.`
	root.Version = config.Version
	root.SilenceUsage, root.SilenceErrors = true, true
	root.PersistentFlags().BoolVar(&debug, "debug", false, "print requests to standard error")
	root.PersistentPreRun = func(*cobra.Command, []string) {
		if debug {
			a.Log = slog.New(slog.NewTextHandler(a.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
		}
	}
	root.AddCommand(a.clusterCmd(), a.authCmd(), a.nodeCmd(), a.marathonCmd(), a.taskCmd(), catalog.Command(&a.Console), a.serviceCmd(), a.configCmd())
	a.complete(root)
	return root
}
