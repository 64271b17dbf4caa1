package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"

	"dcos.example/dcos/installer/bootstrap"
	"dcos.example/dcos/installer/bundle"
	"dcos.example/dcos/installer/cli"
	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/installer/host/emulated"
	"dcos.example/dcos/providers"
	"dcos.example/dcos/providers/onprem"
)

// emulate is the name under which this program installs emulated hosts.
const emulate = "emulate"

// emulation is what one such install took.
type emulation struct {
	Seconds, Again, CPU, MiB float64
}

// runEmulate is the installer as it is, from the command line to the steps of
// each host, with hosts in memory: each call on one takes what a command over
// SSH takes on a good network, and the copy of the release a second. They live
// in this process, so their memory counts as the installer's. Preflight is left
// out: it has nothing to measure on such hosts.
func runEmulate(ctx context.Context, args []string) error {
	f := flag.NewFlagSet(emulate, flag.ContinueOnError)
	n := f.Int("n", 10, "hosts")
	path := f.String("bundle", "", "release")
	latency := f.Duration("latency", 5*time.Millisecond, "of each call on a host")
	copying := f.Duration("copy", time.Second, "of the release to a host")
	if err := f.Parse(args); err != nil {
		return err
	}
	work, err := os.MkdirTemp("/var/tmp", "dcos-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	trust, err := bundle.FindTrust(os.Getenv)
	if err != nil {
		return err
	}
	var machines []*emulated.Machine
	var groups [3]strings.Builder // masters, agents, public agents
	for i := range *n {
		name, address := fmt.Sprintf("h%d", i+1), fmt.Sprintf("198.19.%d.%d", 128+i/250, i%250+1)
		m := emulated.NewMachine(name, address)
		m.Latency, m.Copy = *latency, *copying
		machines = append(machines, m)
		group := 1
		switch {
		case i < 3:
			group = 0
		case i%50 == 3:
			group = 2
		}
		fmt.Fprintf(&groups[group], "    %s = %q\n", name, address)
	}
	hcl := "cluster \"many\" {}\nprovider \"onprem\" {\n  agent    = true\n  parallel = 50\n}\n"
	for i, role := range []string{"master", "agent", "public_agent"} {
		hcl += fmt.Sprintf("node_group %q {\n  hosts = {\n%s  }\n}\n", role, &groups[i])
	}
	if err := os.WriteFile(filepath.Join(work, "cluster.hcl"), []byte(hcl), 0o600); err != nil {
		return err
	}
	world := emulated.NewWorld(machines...)
	defer world.Close()
	ask := func(ctx context.Context, name string, connection resource.PropertyMap, _ string) (a onprem.Answer, err error) {
		ref, err := host.ReadRef(name, connection)
		if err == nil {
			a.Text, err = world.Ask(ctx, ref)
		}
		return a, err
	}
	var said bytes.Buffer
	app := func() *cli.App {
		return &cli.App{
			Stdin: strings.NewReader(""), Stdout: &said, Stderr: &said, Env: os.Environ(), Dir: work,
			Providers: func(o cli.ProviderOptions) (providers.Set, error) {
				return providers.Set{
					"onprem": onprem.New(ask),
					"dcos":   bootstrap.New(bootstrap.Options{Trust: trust, Open: world.Open, Dial: world.Dial, Destroy: o.Destroy}),
				}, nil
			},
			Open: world.Open, Dial: world.Dial,
			Bundle:  func(string, bundle.Trust) (string, bundle.Manifest, error) { return cli.ReadBundle(*path, trust) },
			Allowed: func(string) error { return nil },
			Abort:   func() { os.Exit(130) },
		}
	}
	var e emulation
	for _, into := range []*float64{&e.Seconds, &e.Again} {
		start := time.Now()
		if code := app().Run(ctx, []string{"apply", "-auto-approve"}); code != 0 {
			return fmt.Errorf("apply ended with %d\n%s", code, &said)
		}
		*into = time.Since(start).Seconds()
		said.Reset()
	}
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		return err
	}
	e.CPU = time.Duration(used.Utime.Nano() + used.Stime.Nano()).Seconds()
	e.MiB = float64(used.Maxrss) / 1024 // in KiB on Linux
	return json.NewEncoder(os.Stdout).Encode(e)
}
