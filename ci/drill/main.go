// Command drill breaks a cluster of simulated machines on purpose, while it
// works, and watches that it keeps its promises: `make drill` runs all drills
// and writes docs/reliability.md. Needs root.
//
// A drill takes hosts away, cuts them off, fills their disks, changes their
// release or kills what runs on them, through the lab (package ci/lab) and
// dcos-install. Witnesses look on from outside, through public APIs alone:
// whether instances answer, whether what the cluster acknowledged is still
// there, whether tasks run on that nothing was done to. What they saw is the
// report; a promise that was not kept is a failure.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// settings are the flags.
type settings struct {
	bin     string // where dcos-install is
	bundle  string // the release that is installed first
	next    string // a later one
	program string // the lab command
	cidr    netip.Prefix
	name    string // of the lab and the cluster
	only    []string
	report  string // file; "" for none
	keep    bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "drill:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	s := settings{}
	f := flag.NewFlagSet("drill", flag.ContinueOnError)
	f.StringVar(&s.bin, "bin", "build/bin", "`directory` of dcos-install")
	f.StringVar(&s.program, "lab", "build/next/lab", "the lab `command`")
	f.StringVar(&s.bundle, "bundle", "", "release `bundle` to install")
	f.StringVar(&s.next, "next", "", "a later release `bundle`")
	f.StringVar(&s.name, "name", "drill", "`name` of the lab")
	cidr := f.String("range", "198.19.240.0/24", "addresses of the hosts")
	only := f.String("only", "", "comma-separated drills; all when empty")
	f.StringVar(&s.report, "report", "", "write what was seen to a `file`")
	f.BoolVar(&s.keep, "keep", false, "leave the hosts of a failed drill for looking at them")
	list := f.Bool("list", false, "list the drills")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *list {
		for _, d := range drills {
			fmt.Fprintf(out, "%-20s %s\n", d.name, d.what)
		}
		return nil
	}
	var err error
	if s.cidr, err = netip.ParsePrefix(*cidr); err != nil {
		return err
	}
	for _, p := range []*string{&s.bin, &s.program, &s.bundle, &s.next} {
		if *p == "" {
			return errors.New("-bundle and -next are needed")
		}
		if *p, err = filepath.Abs(*p); err != nil {
			return err
		}
	}
	if *only != "" {
		s.only = strings.Split(*only, ",")
	}
	return all(ctx, s, out)
}

// all runs the drills on one cluster, which each of them must leave healthy.
// After one that did not, the next gets a new cluster.
func all(ctx context.Context, s settings, out io.Writer) (err error) {
	var chosen []drill
	for _, d := range drills {
		if len(s.only) == 0 || slices.Contains(s.only, d.name) {
			chosen = append(chosen, d)
		}
	}
	if len(chosen) == 0 || len(s.only) > 0 && len(chosen) != len(s.only) {
		return fmt.Errorf("unknown drill among %q; -list shows them", s.only)
	}
	var f *field
	defer func() {
		if f != nil {
			err = errors.Join(err, f.close(s.keep && err != nil))
		}
	}()
	var seen []outcome
	failed := 0
	for _, d := range chosen {
		if ctx.Err() != nil {
			break
		}
		if f == nil {
			start := time.Now()
			if f, err = newField(ctx, s); err != nil {
				return err
			}
			fmt.Fprintf(out, "%d hosts with a cluster in %s\n", len(f.hosts()), time.Since(start).Round(100*time.Millisecond))
		}
		o := f.run(ctx, d)
		seen = append(seen, o)
		fmt.Fprintln(out, o.line())
		if o.err == nil {
			continue
		}
		failed++
		if s.keep {
			break
		}
		fmt.Fprintf(out, "%s\n", f.diagnose(context.WithoutCancel(ctx)))
		err := f.close(false)
		if f = nil; err != nil {
			return err
		}
	}
	if s.report != "" {
		if err := writeReport(s.report, seen); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "%d drills, %d failed\n", len(seen), failed)
	if failed > 0 {
		return fmt.Errorf("%d of %d drills failed", failed, len(seen))
	}
	return ctx.Err()
}
