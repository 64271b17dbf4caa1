// Command dcos is the operator's command line: it sets up access to clusters
// and drives them through their front door, with the verbs of the CLI of
// DC/OS. Its packages: profile (what is remembered on disk), client (HTTP to
// one cluster), cli (commands).
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"dcos.example/dcos/cmd/dcos/cli"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return cli.Run(ctx, cli.Env{
		Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv,
	})
}
