// Command dcosd runs on every host of a cluster: `dcosd master` on masters,
// `dcosd agent` on agents. `dcosd members` looks at the masters and changes who
// they are. It wires components to each other and holds no
// logic of its own.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
)

const usage = `usage: dcosd master|agent [flags]
       dcosd members list|leave|remove|recover
       dcosd status   whether this host is part of its cluster
       dcosd clean    ends what the daemons left, before they are removed
       dcosd version
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	err := run(ctx, os.Args[1:])
	switch {
	case err == nil || ctx.Err() != nil && errors.Is(err, context.Canceled):
	case errors.Is(err, flag.ErrHelp):
	default:
		fmt.Fprintln(os.Stderr, "dcosd:", err)
		if fault.Is(err, fault.Invalid) || fault.Is(err, fault.NotFound) {
			os.Exit(2)
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case "master":
			return role(ctx, args, config.MasterFile, config.DefaultMaster(), runMaster)
		case "agent":
			return role(ctx, args, config.AgentFile, config.DefaultAgent(), runAgent)
		case "members":
			return members(ctx, args[1:], os.Stdout)
		case "status":
			return hostStatus(ctx)
		case "clean":
			return clean()
		case "version", "-version", "--version":
			fmt.Println(config.Version)
			return nil
		}
	}
	fmt.Fprint(os.Stderr, usage)
	return fault.Newf("start", fault.Invalid, "which role?")
}

// role runs one daemon from its configuration file.
func role[T interface{ Validate() error }](ctx context.Context, args []string, file string, defaults T, run func(context.Context, T, *slog.Logger) error) error {
	flags := flag.NewFlagSet("dcosd "+args[0], flag.ContinueOnError)
	flags.StringVar(&file, "config", file, "configuration file")
	check := flags.Bool("check", false, "check the configuration and exit")
	debug := flags.Bool("debug", false, "log more")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	cfg, err := config.Load(file, defaults)
	if err != nil || *check {
		return err
	}
	return run(ctx, cfg, logger(os.Stderr, *debug))
}

func logger(w io.Writer, debug bool) *slog.Logger {
	level := slog.LevelInfo
	if debug {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}
