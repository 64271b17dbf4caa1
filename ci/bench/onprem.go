package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"dcos.example/dcos/ci/lab"
	"dcos.example/dcos/installer/bundle"
)

// site measures installs on machines of one's own. A few are simulated hosts
// with systemd and sshd; hundreds are emulated in the installer's process
// (many.go), which measures the installer alone.
//
// The floor beside onprem5_s is the part that no installer can do without: the
// release's files on the wire, copied to all hosts at once by plain ssh and
// tar.
func site(ctx context.Context, args []string) error {
	var s siteSettings
	f := flag.NewFlagSet("onprem", flag.ContinueOnError)
	f.StringVar(&s.bin, "bin", "build/bin", "directory of dcos-install")
	f.StringVar(&s.bundle, "bundle", "", "the release bundle")
	f.StringVar(&s.lab, "lab", "build/next/lab", "the lab command")
	f.StringVar(&s.addresses, "range", "198.19.242.0/24", "addresses of the hosts")
	f.IntVar(&s.runs, "runs", 5, "runs of everything that has a median")
	only := f.String("only", "", "comma-separated parts of it: five,many")
	if err := f.Parse(args); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("needs root: it makes hosts")
	}
	for _, p := range []*string{&s.bin, &s.bundle, &s.lab} {
		var err error
		if *p, err = filepath.Abs(*p); err != nil {
			return err
		}
	}
	machine()
	part := func(name string) bool { return *only == "" || strings.Contains(","+*only+",", ","+name+",") }
	if part("five") {
		if err := s.five(ctx); err != nil {
			return err
		}
	}
	if part("many") {
		return s.many(ctx)
	}
	return nil
}

type siteSettings struct {
	bin, bundle, lab, addresses string
	runs                        int
}

// five is an install on 3 masters, an agent and a public agent, a second apply,
// and one more agent.
func (s siteSettings) five(ctx context.Context) (err error) {
	work, err := os.MkdirTemp("/var/tmp", "dcos-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	cidr, err := netip.ParsePrefix(s.addresses)
	if err != nil {
		return err
	}
	l, _, err := lab.Up(ctx, lab.Options{Program: s.lab}, lab.Record{Name: "dctbench", Range: cidr, Hosts: lab.Hosts(cidr, 6)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Down(context.WithoutCancel(ctx))) }()
	five, err := l.HCL(lab.Roles{Masters: 3, Public: 1, Spare: 1, User: "root"})
	if err != nil {
		return err
	}
	spare := l.Record.Hosts[5]
	const group = "node_group \"agent\" {\n"
	six := strings.Replace(five, group, group+fmt.Sprintf("  host %q { address = %q }\n", spare.Name, spare.Address), 1)
	install := func(hcl string, args ...string) (time.Duration, error) {
		if err := os.WriteFile(filepath.Join(work, "cluster.hcl"), []byte(hcl), 0o600); err != nil {
			return 0, err
		}
		cmd := exec.CommandContext(ctx, filepath.Join(s.bin, "dcos-install"), args...)
		cmd.Dir = work
		start := time.Now()
		if out, err := cmd.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("dcos-install %s: %w\n%s", strings.Join(args, " "), err, out)
		}
		return time.Since(start), nil
	}
	up, add := series{name: "onprem5_s", unit: "s"}, series{name: "onprem_add_s", unit: "s"}
	noop, bare := series{name: "onprem_noop_s", unit: "s"}, series{name: "onprem5_s.peer", unit: "s"}
	apply := []string{"apply", "-auto-approve", "-bundle", s.bundle}
	load("five hosts")
	for range s.runs {
		for _, step := range []struct {
			into *series
			hcl  string
			args []string
		}{{&up, five, apply}, {&noop, five, apply}, {&add, six, apply}, {nil, six, []string{"destroy", "-auto-approve"}}} {
			d, err := install(step.hcl, step.args...)
			if err != nil {
				return err
			}
			if step.into != nil {
				step.into.seconds(d)
			}
		}
		d, err := s.copyAll(ctx, l, work)
		if err != nil {
			return err
		}
		bare.seconds(d)
	}
	for _, x := range []*series{&up, &bare, &noop, &add} {
		x.print()
	}
	return nil
}

// copyAll brings the release's files to the first five hosts with ssh and tar.
func (s siteSettings) copyAll(ctx context.Context, l *lab.Lab, work string) (time.Duration, error) {
	release := filepath.Join(work, "release")
	if _, err := os.Stat(release); err != nil {
		trust, err := bundle.FindTrust(os.Getenv)
		if err != nil {
			return 0, err
		}
		if release, _, err = bundle.Unpack(s.bundle, filepath.Join(work, "cache"), trust); err != nil {
			return 0, err
		}
		if err := os.Symlink(release, filepath.Join(work, "release")); err != nil {
			return 0, err
		}
	}
	start := time.Now()
	g, all := errgroup.WithContext(ctx)
	for _, h := range l.Record.Hosts[:5] {
		g.Go(func() error {
			const script = `tar -C "$0" -chf - . | ssh -i "$1" -o UserKnownHostsFile="$2" -o BatchMode=yes "root@$3" 'rm -rf /var/tmp/floor && mkdir /var/tmp/floor && tar -C /var/tmp/floor -xf -'`
			out, err := exec.CommandContext(all, "bash", "-o", "pipefail", "-c", script, release, l.KeyFile(), l.KnownHosts(), h.Address.String()).CombinedOutput()
			if err != nil {
				return fmt.Errorf("copy to %s: %w\n%s", h.Name, err, out)
			}
			return nil
		})
	}
	err := g.Wait()
	took := time.Since(start)
	for _, h := range l.Record.Hosts[:5] {
		if _, rerr := l.Run(ctx, h.Name, "root", "rm -rf /var/tmp/floor"); err == nil && rerr != nil {
			err = rerr
		}
	}
	return took, err
}

// many installs hundreds of emulated hosts, each time in a process of its own.
func (s siteSettings) many(ctx context.Context) error {
	all := series{name: "onprem350_s", unit: "s"}
	peak := series{name: "installer_rss_mib", unit: "MiB"}
	load("emulated hosts")
	for _, n := range []int{10, 50, 150, 350} {
		runs := 1
		if n == 350 {
			runs = s.runs
		}
		for range runs {
			e, err := s.emulate(ctx, n)
			if err != nil {
				return err
			}
			fmt.Printf("# %d emulated hosts: apply %.1f s, CPU %.1f s, memory %.0f MiB, second apply %.2f s\n", n, e.Seconds, e.CPU, e.MiB, e.Again)
			if n == 350 {
				all.add(e.Seconds)
				peak.add(e.MiB)
			} else {
				fmt.Printf("figure onprem%d_s %s s\n", n, number(e.Seconds))
			}
		}
	}
	all.print()
	peak.print()
	return nil
}

func (s siteSettings) emulate(ctx context.Context, n int) (e emulation, err error) {
	self, err := os.Executable()
	if err != nil {
		return e, err
	}
	cmd := exec.CommandContext(ctx, self, emulate, "-n", strconv.Itoa(n), "-bundle", s.bundle)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return e, fmt.Errorf("install %d emulated hosts: %w", n, err)
	}
	return e, json.Unmarshal(out, &e)
}
