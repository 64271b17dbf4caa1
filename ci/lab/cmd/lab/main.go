// Command lab makes simulated hosts on this machine and breaks them on
// purpose; see package lab, and ci/lab/README.md for how to use it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"dcos.example/dcos/ci/lab"
	"dcos.example/dcos/runtime/fault"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "lab:", err)
		if fault.Is(err, fault.Invalid) {
			os.Exit(2)
		}
		os.Exit(1)
	}
}

// command is one of the program's. Those without a description are how the lab
// starts its own processes.
type command struct {
	name, args, about string
	run               func(*invocation) error
}

var commands = []command{
	{"up", "[-n N] [-range CIDR]", "make a lab; returns when one can log into every host", (*invocation).up},
	{"add", "[-n N]", "make more hosts", (*invocation).add},
	{"down", "", "take the lab away, or what is left of it", (*invocation).down},
	{"list", "", "show the hosts and what is broken", (*invocation).list},
	{"hcl", "[-masters N] [-public N] [-user U]", "print a cluster.hcl for the hosts", (*invocation).hcl},
	{"ssh", "[-user U] HOST [COMMAND...]", "log into a host, or run a command there", (*invocation).ssh},
	{"power-off", "HOST...", "pull the plug; the disk stays", each((*lab.Lab).PowerOff)},
	{"power-on", "HOST...", "boot", booting((*lab.Lab).PowerOn)},
	{"reboot", "HOST...", "have the host reboot", booting((*lab.Lab).Reboot)},
	{"shutdown", "HOST...", "have the host power off", each((*lab.Lab).Shutdown)},
	{"renew", "HOST...", "put a new machine in its place: empty disk, other SSH key, off", each((*lab.Lab).Renew)},
	{"freeze", "HOST...", "stop all processes of a host", each((*lab.Lab).Freeze)},
	{"thaw", "HOST...", "let them go on", each((*lab.Lab).Thaw)},
	{"partition", "[-one-way] A,B... [C,D...]", "cut the first hosts off from the second, or from all others; \"machine\" is this machine", (*invocation).partition},
	{"heal", "[HOST...]", "undo partitions of these hosts, or all", (*invocation).heal},
	{"loss", "HOST PERCENT", "drop packets, both ways; 0 undoes it", (*invocation).loss},
	{"delay", "[-jitter D] HOST DURATION", "delay packets, each way; 0 undoes it", (*invocation).delay},
	{"slow-disk", "[-iops N] [-bps N] HOST", "bound what a host may ask of its disk; no flag undoes it", (*invocation).slowDisk},
	{"fill-disk", "[-leave BYTES] HOST", "take the free space of a host's disk", (*invocation).fillDisk},
	{"free-disk", "HOST...", "give it back", each((*lab.Lab).FreeDisk)},
	{"asked", "", "show what hosts tried to reach outside of the lab", (*invocation).asked},
	{"switch", "DIR", "", (*invocation).doSwitch},
	{"supervise", "DIR HOST", "", (*invocation).doSupervise},
	{"wire", "DIR HOST DELAY JITTER", "", (*invocation).doWire},
	{"slow", "DIR HOST IOPS BPS", "", (*invocation).doSlow},
}

func usage(w io.Writer) {
	fmt.Fprint(w, "lab COMMAND [-name LAB] [-dir DIR] ...: simulated hosts on this machine\n\n")
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range commands {
		if c.about != "" {
			fmt.Fprintf(tw, "  %s %s\t%s\n", c.name, c.args, c.about)
		}
	}
	tw.Flush()
}

// invocation is one command with its flags and arguments.
type invocation struct {
	ctx  context.Context
	out  io.Writer
	args []string

	name, dir    string
	json, oneWay bool
	n            int
	cidr, user   string
	roles        lab.Roles
	host         lab.Host
	jitter       time.Duration
	disk         lab.Disk
	leave        int64
	program      string
}

// flagsOf names the flags of each command besides -name and -dir.
var flagsOf = map[string][]string{
	"up": {"n", "range", "cpus", "memory", "disk", "json"}, "add": {"n", "json"}, "list": {"json"}, "hcl": {"masters", "public", "spare", "user"},
	"ssh": {"user"}, "partition": {"one-way"}, "delay": {"jitter"}, "slow-disk": {"iops", "bps"}, "fill-disk": {"leave"},
}

func (in *invocation) flags(name string) *flag.FlagSet {
	all := flag.NewFlagSet(name, flag.ContinueOnError)
	all.StringVar(&in.name, "name", "lab", "name of the lab, and of its interface on this machine")
	all.StringVar(&in.dir, "dir", lab.DefaultDir, "where labs are kept")
	all.BoolVar(&in.json, "json", false, "print JSON")
	all.IntVar(&in.n, "n", 5, "how many hosts")
	all.StringVar(&in.cidr, "range", "198.18.200.0/24", "addresses of the hosts; the first is this machine's")
	all.Float64Var(&in.host.CPUs, "cpus", 0, "CPUs of each host; 0: all of the machine's")
	all.Int64Var(&in.host.MemoryMiB, "memory", lab.DefaultMemoryMiB, "memory of each host in MiB")
	all.Int64Var(&in.host.DiskMiB, "disk", lab.DefaultDiskMiB, "disk of each host in MiB, taken as it is used")
	all.StringVar(&in.user, "user", "admin", "root, admin (sudo without password) or ops (sudo asks for "+strconv.Quote(lab.OpsPassword)+")")
	all.IntVar(&in.roles.Masters, "masters", 0, "how many of the hosts are masters; 0: 3, or 1 of fewer than five")
	all.IntVar(&in.roles.Public, "public", 1, "how many of the hosts are public agents")
	all.IntVar(&in.roles.Spare, "spare", 0, "how many of the hosts are left out")
	all.BoolVar(&in.oneWay, "one-way", false, "only what the first hosts send is lost")
	all.DurationVar(&in.jitter, "jitter", 0, "delay up to so much more")
	all.Int64Var(&in.disk.IOPS, "iops", 0, "operations a second")
	all.Int64Var(&in.disk.BytesPerSecond, "bps", 0, "bytes a second")
	all.Int64Var(&in.leave, "leave", 0, "bytes that stay free")
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	all.VisitAll(func(f *flag.Flag) {
		if f.Name == "name" || f.Name == "dir" || slices.Contains(flagsOf[name], f.Name) {
			fs.Var(f.Value, f.Name, f.Usage)
		}
	})
	return fs
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		usage(os.Stderr)
		return flag.ErrHelp
	}
	i := slices.IndexFunc(commands, func(c command) bool { return c.name == args[0] })
	if i < 0 {
		usage(os.Stderr)
		return flag.ErrHelp
	}
	in := &invocation{ctx: ctx, out: out}
	fs := in.flags(args[0])
	// Flags may follow arguments, but for those of a command on a host.
	for rest := args[1:]; ; {
		if err := fs.Parse(rest); err != nil {
			return flag.ErrHelp
		}
		rest = fs.Args()
		if len(rest) == 0 || args[0] == "ssh" {
			in.args = append(in.args, rest...)
			break
		}
		in.args, rest = append(in.args, rest[0]), rest[1:]
	}
	// `go run` removes its program when it ends; the lab's processes outlive it,
	// since a program that runs does not need its file.
	var err error
	if in.program, err = os.Executable(); err != nil {
		return err
	}
	return commands[i].run(in)
}

func (in *invocation) options() lab.Options { return lab.Options{Dir: in.dir, Program: in.program} }

func (in *invocation) open() (*lab.Lab, error) { return lab.Open(in.options(), in.name) }

// want checks the number of arguments; most below 0 is any.
func (in *invocation) want(least, most int) error {
	if len(in.args) < least || most >= 0 && len(in.args) > most {
		return fault.Newf("read the arguments", fault.Invalid, "there are %d; run without any for the usage", len(in.args))
	}
	return nil
}

// each does something to every host named.
func each(f func(*lab.Lab, context.Context, string) error) func(*invocation) error {
	return func(in *invocation) error {
		if err := in.want(1, -1); err != nil {
			return err
		}
		l, err := in.open()
		if err != nil {
			return err
		}
		for _, host := range in.args {
			if err := f(l, in.ctx, host); err != nil {
				return err
			}
		}
		return nil
	}
}

func booting(f func(*lab.Lab, context.Context, string) (lab.Booted, error)) func(*invocation) error {
	return func(in *invocation) error {
		return each(func(l *lab.Lab, ctx context.Context, host string) error {
			b, err := f(l, ctx, host)
			if err == nil {
				fmt.Fprintf(in.out, "%s is up after %.1f s\n", b.Host, b.Seconds)
			}
			return err
		})(in)
	}
}

// made is what `up -json` and `add -json` print.
type made struct {
	Name    string       `json:"name"`
	Range   netip.Prefix `json:"range"`
	Seconds float64      `json:"seconds"`
	Hosts   []lab.Booted `json:"hosts"`
}

func (in *invocation) print(l *lab.Lab, began time.Time, booted []lab.Booted) error {
	took := time.Since(began)
	if in.json {
		return in.encode(made{l.Name, l.Range, float64(took.Milliseconds()) / 1000, booted})
	}
	tw := tabwriter.NewWriter(in.out, 0, 0, 2, ' ', 0)
	for _, b := range booted {
		fmt.Fprintf(tw, "%s\t%s\tup after %.1f s\t%.0f MiB\n", b.Host, b.Address, b.Seconds, b.MemoryMiB)
	}
	tw.Flush()
	_, err := fmt.Fprintf(in.out, "%d hosts in %.1f s. Key: %s\n", len(booted), took.Seconds(), l.KeyFile())
	return err
}

func (in *invocation) encode(v any) error {
	enc := json.NewEncoder(in.out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func (in *invocation) up() error {
	if err := in.want(0, 0); err != nil {
		return err
	}
	r, err := netip.ParsePrefix(in.cidr)
	if err != nil {
		return fault.New("read -range", fault.Invalid, err)
	}
	hosts := lab.Hosts(r, in.n)
	for i := range hosts {
		hosts[i].CPUs, hosts[i].MemoryMiB, hosts[i].DiskMiB = in.host.CPUs, in.host.MemoryMiB, in.host.DiskMiB
	}
	began := time.Now()
	l, booted, err := lab.Up(in.ctx, in.options(), lab.Record{Name: in.name, Range: r, Hosts: hosts})
	if err != nil {
		return err
	}
	return in.print(l, began, booted)
}

func (in *invocation) add() error {
	l, err := in.open()
	if err != nil {
		return err
	}
	began := time.Now()
	booted, err := l.Add(in.ctx, in.n)
	if err != nil {
		return err
	}
	return in.print(l, began, booted)
}

func (in *invocation) down() error {
	if err := in.want(0, 0); err != nil {
		return err
	}
	return lab.Down(in.ctx, in.options(), in.name)
}

// listed is what `list -json` prints.
type listed struct {
	Name   string       `json:"name"`
	Range  netip.Prefix `json:"range"`
	Dir    string       `json:"dir"`
	Hosts  []lab.State  `json:"hosts"`
	Faults lab.Faults   `json:"faults"`
}

func (in *invocation) list() error {
	l, err := in.open()
	if fault.Is(err, fault.NotFound) {
		if names, err2 := lab.List(in.options()); err2 == nil && len(names) > 0 {
			err = fmt.Errorf("%w; there are: %s", err, strings.Join(names, ", "))
		}
	}
	if err != nil {
		return err
	}
	states, err := l.States()
	if err != nil {
		return err
	}
	f, err := l.Faults()
	if err != nil {
		return err
	}
	if in.json {
		return in.encode(listed{l.Name, l.Range, l.Dir, states, f})
	}
	tw := tabwriter.NewWriter(in.out, 0, 0, 2, ' ', 0)
	for _, s := range states {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%.0f MiB\t%s\n", s.Name, s.Address, s.Power, s.MemoryMiB, faultsOf(f, s.Name))
	}
	return tw.Flush()
}

// faultsOf says what is broken at a host.
func faultsOf(f lab.Faults, host string) string {
	var out []string
	for _, c := range f.Cuts {
		if c.From == host {
			out = append(out, "does not reach "+c.To)
		}
	}
	if p := f.Loss[host]; p > 0 {
		out = append(out, fmt.Sprintf("loses %g %%", p))
	}
	if d, ok := f.Delay[host]; ok {
		out = append(out, fmt.Sprintf("delayed by %s+%s", d.Delay, d.Jitter))
	}
	if d, ok := f.Disk[host]; ok {
		out = append(out, fmt.Sprintf("slow disk: %d operations/s, %d bytes/s", d.IOPS, d.BytesPerSecond))
	}
	return strings.Join(out, "; ")
}

func (in *invocation) hcl() error {
	l, err := in.open()
	if err != nil {
		return err
	}
	if in.roles.Masters == 0 {
		in.roles.Masters = 3
		if len(l.Record.Hosts)-in.roles.Spare < 5 {
			in.roles.Masters = 1
		}
	}
	in.roles.User = in.user
	out, err := l.HCL(in.roles)
	if err != nil {
		return err
	}
	_, err = io.WriteString(in.out, out)
	return err
}

// ssh becomes OpenSSH's client.
func (in *invocation) ssh() error {
	if err := in.want(1, -1); err != nil {
		return err
	}
	l, err := in.open()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(l.Record.Hosts, func(h lab.Host) bool { return h.Name == in.args[0] })
	if i < 0 {
		return fault.Newf("find host", fault.NotFound, "lab %s has no host %q", l.Name, in.args[0])
	}
	const client = "/usr/bin/ssh"
	args := []string{
		client, "-F", "none", "-i", l.KeyFile(), "-o", "IdentitiesOnly=yes",
		"-o", "UserKnownHostsFile=" + strconv.Quote(filepath.Clean(l.KnownHosts())), "-o", "GlobalKnownHostsFile=none",
		in.user + "@" + l.Record.Hosts[i].Address.String(),
	}
	return syscall.Exec(client, append(args, in.args[1:]...), os.Environ())
}

func (in *invocation) partition() error {
	if err := in.want(1, 2); err != nil {
		return err
	}
	l, err := in.open()
	if err != nil {
		return err
	}
	var others []string
	if len(in.args) == 2 {
		others = strings.Split(in.args[1], ",")
	}
	return l.Partition(in.ctx, strings.Split(in.args[0], ","), others, in.oneWay)
}

func (in *invocation) heal() error {
	l, err := in.open()
	if err != nil {
		return err
	}
	return l.Heal(in.ctx, in.args...)
}

func (in *invocation) loss() error {
	if err := in.want(2, 2); err != nil {
		return err
	}
	percent, err := strconv.ParseFloat(strings.TrimSuffix(in.args[1], "%"), 64)
	if err != nil {
		return fault.New("read the percentage", fault.Invalid, err)
	}
	l, err := in.open()
	if err != nil {
		return err
	}
	return l.Loss(in.ctx, in.args[0], percent)
}

func (in *invocation) delay() error {
	if err := in.want(2, 2); err != nil {
		return err
	}
	d, err := time.ParseDuration(in.args[1])
	if err != nil {
		return fault.New("read the delay", fault.Invalid, err)
	}
	l, err := in.open()
	if err != nil {
		return err
	}
	return l.Delay(in.ctx, in.args[0], lab.Delay{Delay: d, Jitter: in.jitter})
}

func (in *invocation) slowDisk() error {
	return each(func(l *lab.Lab, ctx context.Context, host string) error { return l.SlowDisk(ctx, host, in.disk) })(in)
}

func (in *invocation) fillDisk() error {
	return each(func(l *lab.Lab, ctx context.Context, host string) error { return l.FillDisk(ctx, host, in.leave) })(in)
}

func (in *invocation) asked() error {
	l, err := in.open()
	if err != nil {
		return err
	}
	asked, err := l.Asked()
	if err != nil {
		return err
	}
	for _, a := range asked {
		fmt.Fprintln(in.out, a)
	}
	return nil
}

// ready is the file on which the lab's own processes say that they run.
func ready() *os.File { return os.NewFile(3, "ready") }

func (in *invocation) doSwitch() error { return lab.Switch(in.ctx, in.args[0], ready()) }

func (in *invocation) doSupervise() error {
	return lab.Supervise(in.ctx, in.args[0], in.args[1], ready())
}

func (in *invocation) doWire() error {
	delay, err := time.ParseDuration(in.args[2])
	if err != nil {
		return err
	}
	jitter, err := time.ParseDuration(in.args[3])
	if err != nil {
		return err
	}
	return lab.Wire(in.ctx, in.args[0], in.args[1], delay, jitter, ready())
}

func (in *invocation) doSlow() error {
	iops, err := strconv.ParseInt(in.args[2], 10, 64)
	if err != nil {
		return err
	}
	bps, err := strconv.ParseInt(in.args[3], 10, 64)
	if err != nil {
		return err
	}
	return lab.Slow(in.ctx, in.args[0], in.args[1], lab.Disk{IOPS: iops, BytesPerSecond: bps}, ready())
}
