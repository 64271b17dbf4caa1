// Command dcos-install makes clusters: it turns an HCL file into machines that
// run DC/OS, and keeps them as the file says.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/term"

	"dcos.example/dcos/installer/bootstrap"
	"dcos.example/dcos/installer/bundle"
	"dcos.example/dcos/installer/cli"
	"dcos.example/dcos/installer/host/ssh"
	"dcos.example/dcos/installer/preflight"
	"dcos.example/dcos/providers"
	"dcos.example/dcos/providers/local"
	"dcos.example/dcos/providers/onprem"
)

func main() {
	dir, err := os.Getwd()
	if err != nil {
		dir = "."
	}
	interrupts := make(chan os.Signal, 2)
	signal.Notify(interrupts, os.Interrupt, syscall.SIGTERM)
	out := int(os.Stdout.Fd())
	hosts := newReach(os.Getenv, os.Stderr)
	app := cli.App{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Terminal: term.IsTerminal(out), Interactive: term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(out),
		Env: os.Environ(), Dir: dir,
		Providers: hosts.providers, Hosts: power, Open: hosts.open, Here: ssh.Here, Leftovers: leftovers, Bundle: cli.ReadBundle, Preflight: preflight.Collect, Allowed: allowed,
		Interrupts: interrupts,
		Abort:      func() { os.Exit(130) }, // the shell's code for death by Ctrl-C
	}
	if w, _, err := term.GetSize(out); err == nil {
		app.Columns = w
	}
	code := app.Run(context.Background(), os.Args[1:])
	if err := hosts.pool.Close(); err != nil {
		fmt.Fprintln(os.Stderr, "close connections:", err)
	}
	os.Exit(code)
}

// allowed says why this process cannot make machines of a kind.
func allowed(kind string) error {
	if os.Geteuid() == 0 {
		return nil
	}
	switch kind {
	case "local":
		return cli.NotRoot()
	case "here":
		return cli.NotRootHere()
	}
	return nil
}

// providers returns what makes a cluster.
func (r reach) providers(o cli.ProviderOptions) (providers.Set, error) {
	if o.Open == nil {
		o.Open = r.open
	}
	set := providers.Set{"dcos": bootstrap.New(bootstrap.Options{Trust: o.Trust, Cache: bundle.Cache(os.Getuid(), os.Getenv), Open: o.Open, Destroy: o.Destroy, Abandon: func(name string) bool {
		return slices.Contains(o.Abandon, name) || slices.Contains(o.Abandon, "all")
	}})}
	if o.Kind == "onprem" {
		set["onprem"] = onprem.New(r.ask)
		return set, nil
	}
	p, err := localProvider(o)
	if err != nil {
		return nil, err
	}
	set["local"] = p
	return set, nil
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
