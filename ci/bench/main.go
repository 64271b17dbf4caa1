// Command bench measures what docs/performance.md reports, on a real local
// cluster, through the programs and public APIs that a user has:
//
//	bench install -bin build/bin -bundle build/dcos-0.1.0.bundle
//	bench catalog    # the catalog alone, without a cluster
//
// For each result it prints `figure NAME VALUE UNIT`, and with
// `figure NAME.peer VALUE UNIT` what the bare parts cost on the same machine at
// the same time: floor.go says for each which parts. Values are medians; lines
// that begin with # tell the machine, its load and the single runs. Needs root.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("say what to measure: install")
	}
	switch args[0] {
	case "install":
		return install(ctx, args[1:])
	case "onprem":
		return site(ctx, args[1:])
	case "catalog":
		return benchCatalog(ctx, args[1:])
	case catalogServer:
		return runCatalogServer(ctx, args[1:])
	case floorAnswers:
		return runFloorAnswers(ctx, args[1:])
	case floorDecoded:
		return runFloorDecoded(ctx, args[1:])
	case emulate:
		return runEmulate(ctx, args[1:])
	case floorStore:
		return runFloorStore(ctx, args[1:])
	case floorServer:
		return runFloorServer(ctx, args[1:])
	case knocker:
		return runKnock(ctx, args[1:])
	case floorHost:
		return runFloorHost(args[1:])
	}
	return fmt.Errorf("unknown benchmark %q: there are install, onprem and catalog", args[0])
}

// settings of a run, from its flags.
type settings struct {
	bin, bundle, blueprint, addresses, name string
	runs, apps, churn                       int
	idle                                    time.Duration
	only                                    string
}

func install(ctx context.Context, args []string) error {
	var s settings
	f := flag.NewFlagSet("install", flag.ContinueOnError)
	f.StringVar(&s.bin, "bin", "build/bin", "directory of dcos-install")
	f.StringVar(&s.bundle, "bundle", "", "the release bundle")
	f.StringVar(&s.blueprint, "blueprint", "blueprints/local/cluster.hcl", "what to install")
	f.StringVar(&s.addresses, "range", "198.18.250.0/24", "addresses of the hosts")
	f.StringVar(&s.name, "name", "bench", "name of the cluster")
	f.IntVar(&s.runs, "runs", 5, "runs of everything that has a median")
	f.IntVar(&s.apps, "apps", 20, "apps deployed for app_running_ms")
	f.IntVar(&s.churn, "churn", 200, "apps deployed and removed to look for leaks")
	f.DurationVar(&s.idle, "idle", time.Minute, "rest before memory is read")
	f.StringVar(&s.only, "only", "", "comma-separated parts of it: up,idle,app,vip,launch,churn,ha")
	if err := f.Parse(args); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("needs root: it makes hosts")
	}
	work, err := os.MkdirTemp("/var/tmp", "dcos-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if s.bundle, err = filepath.Abs(s.bundle); err != nil {
		return err
	}
	if s.bin, err = filepath.Abs(s.bin); err != nil {
		return err
	}
	machine()
	b, err := newBench(ctx, s, work)
	if err != nil {
		return err
	}
	return b.run(ctx)
}

// machine says where the figures were measured.
func machine() {
	var u unix.Utsname
	_ = unix.Uname(&u) // cannot fail
	fmt.Printf("# machine: %d CPUs, kernel %s, %s, %s\n", runtime.NumCPU(), unix.ByteSliceToString(u.Release[:]), runtime.Version(), time.Now().Format(time.DateOnly))
	load("start")
}

// load says what else the machine does: the share of the last ten seconds in
// which something waited for a CPU.
func load(what string) {
	avg, _ := os.ReadFile("/proc/loadavg")
	psi, _ := os.ReadFile("/proc/pressure/cpu")
	pressure := ""
	if f := strings.Fields(string(psi)); len(f) > 1 {
		pressure = ", CPU pressure " + f[1]
	}
	fmt.Printf("# %s: load %s%s\n", what, strings.Join(strings.Fields(string(avg))[:1], " "), pressure)
}

// series are the single runs of a figure.
type series struct {
	name, unit string
	values     []float64
}

func (s *series) add(v float64) { s.values = append(s.values, v) }

func (s *series) seconds(d time.Duration) { s.add(d.Seconds()) }

func (s *series) millis(d time.Duration) { s.add(float64(d.Microseconds()) / 1000) }

// print prints the median and, for judging it, the runs.
func (s *series) print() {
	if len(s.values) == 0 {
		return
	}
	fmt.Printf("figure %s %s %s\n", s.name, number(median(s.values)), s.unit)
	var runs []string
	for _, v := range s.values {
		runs = append(runs, number(v))
	}
	fmt.Printf("# %s: runs %s\n", s.name, strings.Join(runs, " "))
}

func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// median of a non-empty list; of an even number, the mean of the middle two.
func median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2
}
