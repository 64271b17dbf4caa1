// Command dcos-install makes clusters: it turns an HCL file into machines that
// run DC/OS, and keeps them as the file says.
package main

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.org/x/term"

	"dcos.example/dcos/installer/bootstrap"
	"dcos.example/dcos/installer/bundle"
	"dcos.example/dcos/installer/cli"
	"dcos.example/dcos/providers"
	"dcos.example/dcos/providers/local"
)

func main() {
	dir, err := os.Getwd()
	if err != nil {
		dir = "."
	}
	interrupts := make(chan os.Signal, 2)
	signal.Notify(interrupts, os.Interrupt, syscall.SIGTERM)
	out := int(os.Stdout.Fd())
	app := cli.App{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Terminal: term.IsTerminal(out), Interactive: term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(out),
		Env: os.Environ(), Dir: dir,
		Providers: machines, Hosts: hosts, Leftovers: leftovers, Bundle: cli.ReadBundle, Allowed: allowed,
		Interrupts: interrupts,
		Abort:      func() { os.Exit(130) }, // the shell's code for death by Ctrl-C
	}
	if w, _, err := term.GetSize(out); err == nil {
		app.Columns = w
	}
	os.Exit(app.Run(context.Background(), os.Args[1:]))
}

// allowed says why this process cannot make machines of a kind.
func allowed(kind string) error {
	if kind == "local" && os.Geteuid() != 0 {
		return cli.NotRoot()
	}
	return nil
}

// machines returns the providers of a cluster.
func machines(o cli.ProviderOptions) (providers.Set, error) {
	p, err := localProvider(o)
	if err != nil {
		return nil, err
	}
	return providers.Set{"local": p, "dcos": bootstrap.New(bootstrap.Options{Trust: o.Trust})}, nil
}

func localProvider(o cli.ProviderOptions) (*local.Provider, error) {
	var initProgram string
	if o.Bundle != "" {
		release, _, err := bundle.Unpack(o.Bundle, bundle.CacheDir, o.Trust)
		if err != nil {
			return nil, err
		}
		initProgram = filepath.Join(release, "bin", "dcos-init")
	}
	return local.New(local.Options{Dir: o.Dir, Init: initProgram, Stack: o.StateDir})
}
