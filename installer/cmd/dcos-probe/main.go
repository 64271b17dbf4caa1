// Command dcos-probe measures a host and its way to others, as preflight asks
// it to: it reads what to do from its only argument and writes what it found
// to standard output, both in JSON. With -rm before it, the program's own file
// is removed first.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"dcos.example/dcos/installer/preflight/probe"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "dcos-probe:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 2 && args[0] == "-rm" {
		if err := os.Remove(os.Args[0]); err != nil {
			return err
		}
		args = args[1:]
	}
	if len(args) != 1 {
		return fmt.Errorf("usage: dcos-probe [-rm] SPEC")
	}
	var s probe.Spec
	if err := json.Unmarshal([]byte(args[0]), &s); err != nil {
		return fmt.Errorf("read the specification: %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer stop()
	return json.NewEncoder(os.Stdout).Encode(probe.Run(ctx, s))
}
