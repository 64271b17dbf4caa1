//go:build root

package lab_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"dcos.example/dcos/ci/lab"
	"dcos.example/dcos/providers/local/boot"
	"dcos.example/dcos/runtime/fault"
)

var program string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "dct2-lab")
	if err != nil {
		panic(err)
	}
	program = filepath.Join(dir, "lab")
	out, err := exec.Command("go", "build", "-o", program, "dcos.example/dcos/ci/lab/cmd/lab").CombinedOutput()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// traces are what a lab leaves on the machine, in any namespace.
func traces(t *testing.T, dir, name string, r netip.Prefix) []string {
	t.Helper()
	var out []string
	links, err := netlink.LinkList()
	must(t, err)
	for _, l := range links {
		if a := l.Attrs(); a.Name == name || strings.HasSuffix(a.Alias, " "+name) {
			out = append(out, "link "+a.Name)
		}
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	must(t, err)
	for _, route := range routes {
		if route.Dst != nil && r.Contains(netip.MustParseAddr(route.Dst.IP.String())) {
			out = append(out, "route "+route.Dst.String())
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup/*/dcos-lab/" + name, "/sys/fs/cgroup/dcos-lab/" + name, filepath.Join(dir, "*")} {
		paths, err := filepath.Glob(pattern)
		must(t, err)
		out = append(out, paths...)
	}
	images, err := filepath.Glob(filepath.Join(dir, name, "hosts", "*", "disk.img"))
	must(t, err)
	for _, image := range images {
		loops, err := boot.Attached(image)
		must(t, err)
		out = append(out, loops...)
	}
	procs, err := filepath.Glob("/proc/[0-9]*")
	must(t, err)
	for _, p := range procs {
		if p == "/proc/"+strconv.Itoa(os.Getpid()) {
			continue
		}
		for file, has := range map[string]string{"cgroup": "dcos-lab/" + name, "mountinfo": dir, "cmdline": dir} {
			b, err := os.ReadFile(filepath.Join(p, file))
			if err == nil && strings.Contains(string(b), has) {
				out = append(out, "process "+filepath.Base(p)+" by its "+file)
			}
		}
	}
	return out
}

// subject is a lab under test.
type subject struct {
	*lab.Lab
	t   *testing.T
	dir string
	r   netip.Prefix
}

// gone checks that nothing of the lab is left. A process that was only starting
// when the lab went finds nothing to do, and ends a moment later.
func (s *subject) gone(name string) {
	s.t.Helper()
	var left []string
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		left = traces(s.t, s.dir, name, s.r)
		starting := slices.ContainsFunc(left, func(l string) bool { return strings.HasPrefix(l, "process ") })
		if !starting || time.Now().After(deadline) {
			break
		}
	}
	if diff := cmp.Diff([]string(nil), left); diff != "" {
		s.t.Errorf("left behind:\n%s", diff)
	}
}

func options(dir string) lab.Options { return lab.Options{Dir: dir, Program: program} }

func up(t *testing.T, name, cidr string, n int) *subject {
	t.Helper()
	s := &subject{t: t, dir: t.TempDir(), r: netip.MustParsePrefix(cidr)}
	t.Cleanup(func() {
		if err := lab.Down(context.Background(), options(s.dir), name); err != nil {
			t.Error(err)
		}
		s.gone(name)
	})
	l, booted, err := lab.Up(t.Context(), options(s.dir), lab.Record{Name: name, Range: s.r, Hosts: lab.Hosts(s.r, n)})
	must(t, err)
	s.Lab = l
	for _, b := range booted {
		t.Logf("%s: %.2f s to the first login, %.0f MiB", b.Host, b.Seconds, b.MemoryMiB)
		if b.Seconds <= 0 || b.MemoryMiB <= 0 {
			t.Errorf("not measured: %+v", b)
		}
	}
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// on runs a script that must succeed.
func (s *subject) on(host, user, script string) string {
	s.t.Helper()
	out, err := s.Run(s.t.Context(), host, user, script)
	must(s.t, err)
	return strings.TrimSpace(out)
}

func (s *subject) want(host, user, script, want string) {
	s.t.Helper()
	if got := s.on(host, user, script); got != want {
		s.t.Errorf("%s on %s: %q, want %q", script, host, got, want)
	}
}

// reaches reports whether host gets an answer from another.
func (s *subject) reaches(host, address string) bool {
	s.t.Helper()
	out, err := s.Run(s.t.Context(), host, "root", "ping -c 4 -i 0.05 -W 2 "+address+" >/dev/null && echo yes || echo no")
	must(s.t, err)
	return strings.TrimSpace(out) == "yes"
}

func (s *subject) booted(b lab.Booted, err error) {
	s.t.Helper()
	must(s.t, err)
	s.t.Logf("%s: %.2f s", b.Host, b.Seconds)
}

func TestHosts(t *testing.T) {
	s := up(t, "dct2hosts", "198.19.21.0/24", 2)

	s.want("h1", "root", "cat /proc/1/comm; hostname; id -u", "systemd\nh1\n0")
	s.want("h1", "admin", "id -u; sudo -n id -u", "1000\n0")
	s.want("h1", "ops", "sudo -n true 2>/dev/null || echo asks", "asks")
	s.want("h1", "ops", `printf '%s\n' "pa\$\$ word's" | sudo -S -p '' id -u`, "0")
	s.want("h1", "root", "findmnt -no FSTYPE /var; ls -l /dev/fuse /dev/net/tun | wc -l", "ext4\n2")
	s.want("h1", "root", "which python3 || echo none", "none")
	if a, b := s.on("h1", "root", "cat /etc/machine-id"), s.on("h2", "root", "cat /etc/machine-id"); a == b {
		t.Errorf("both hosts are %s", a)
	}
	// What a host can break is its own.
	s.want("h1", "root", "date -s 2001-01-01 >/dev/null 2>&1 && echo set || echo refused", "refused")
	s.want("h1", "root", "nft add table ip mine && sysctl -qw net.ipv4.ip_forward=1 && nft list tables", "table ip mine")
	s.want("h2", "root", "nft list tables; cat /proc/sys/net/ipv4/ip_forward", "0")

	// Limits: those of a unit, and those of the host around it.
	s.want("h1", "root", `systemd-run -q --wait -P -p MemoryMax=32M -p CPUQuota=20% sh -c '
		cd /sys/fs/cgroup; g() { sed -n "s/.*:$1://p" /proc/self/cgroup; }
		cat memory$(g memory)/memory.limit_in_bytes cpu$(g cpu)/cpu.cfs_quota_us'`, "33554432\n20000")
	s.want("h1", "root", "head -c 1200m /dev/zero | tail -c 1200m >/dev/null 2>&1 && echo had || echo killed", "killed")
	s.want("h1", "root", "systemctl is-system-running", "running")

	// No way out, and nothing unseen.
	for _, c := range []struct{ script, asked string }{
		{"echo > /dev/tcp/192.0.2.1/443", "tcp 192.0.2.1:443"},
		{"echo > /dev/udp/203.0.113.9/123", "udp 203.0.113.9:123"},
		{"getent hosts outside.invalid", "dns outside.invalid A"},
	} {
		asked, err := s.Asked()
		must(t, err)
		if slices.Contains(asked, c.asked) {
			t.Errorf("asked before anybody did: %q", asked)
		}
		s.on("h1", "root", "! bash -c '"+c.script+"' 2>/dev/null || true")
		asked, err = s.Asked()
		must(t, err)
		if !slices.Contains(asked, c.asked) {
			t.Errorf("after %s: %q", c.script, asked)
		}
	}
	// Not through the machine either, whatever it forwards.
	s.want("h1", "root", "ip route add 192.0.2.0/24 via "+s.Machine().String()+"; timeout 0.5 bash -c 'cat </dev/tcp/192.0.2.2/80' 2>/dev/null || echo no", "no")
	if _, err := s.Run(t.Context(), "h9", "root", "true"); !fault.Is(err, fault.NotFound) {
		t.Errorf("a host that there is not: %v", err)
	}

	s.want("h1", "root", "getent ahostsv4 h2 | awk '{print $1}' | uniq", "198.19.21.12")
	s.booted(one(s.Add(t.Context(), 1)))
	s.want("h1", "root", "getent ahostsv4 h3 | awk '{print $1}' | uniq", "198.19.21.13")
	s.want("h3", "admin", "hostname", "h3")
	if !s.reaches("h3", "198.19.21.11") {
		t.Error("h3 does not reach h1")
	}
}

func one(b []lab.Booted, err error) (lab.Booted, error) {
	if err != nil || len(b) != 1 {
		return lab.Booted{}, errors.Join(err, fmt.Errorf("%d hosts", len(b)))
	}
	return b[0], nil
}

func TestPower(t *testing.T) {
	s := up(t, "dct2power", "198.19.22.0/24", 2)
	ctx := t.Context()
	power := func(want lab.Power) {
		t.Helper()
		states, err := s.States()
		must(t, err)
		if states[0].Power != want || states[1].Power != lab.On {
			t.Errorf("power: %s and %s, want %s and on", states[0].Power, states[1].Power, want)
		}
	}
	boot := func() string { return s.on("h1", "root", "cat /proc/sys/kernel/random/boot_id") }
	first := boot()
	s.on("h1", "root", "echo kept | tee /kept /var/lib/kept; nft add table ip mine")
	key, err := s.HostKey("h1")
	must(t, err)

	s.booted(s.Reboot(ctx, "h1"))
	second := boot()
	s.want("h1", "root", "cat /kept /var/lib/kept; nft list tables", "kept\nkept")

	must(t, s.PowerOff(ctx, "h1"))
	must(t, s.PowerOff(ctx, "h1"))
	power(lab.Off)
	if s.reaches("h2", "198.19.22.11") {
		t.Error("a host without power answers")
	}
	if err := s.Freeze(ctx, "h1"); !fault.Is(err, fault.Conflict) {
		t.Errorf("freeze without power: %v", err)
	}
	s.booted(s.PowerOn(ctx, "h1"))
	third := boot()
	s.want("h1", "root", "cat /kept /var/lib/kept", "kept\nkept")
	if first == second || second == third || first == third {
		t.Errorf("boots are not told apart: %s %s %s", first, second, third)
	}

	// Whoever powers off from inside is off.
	s.Run(ctx, "h1", "root", "systemctl poweroff --no-block") // may take the connection along
	eventually(t, func() bool {
		states, err := s.States()
		must(t, err)
		return states[0].Power == lab.Off
	})
	s.booted(s.PowerOn(ctx, "h1"))
	must(t, s.Shutdown(ctx, "h1"))
	power(lab.Off)
	s.booted(s.PowerOn(ctx, "h1"))

	// Frozen: the kernel answers, nobody else does.
	must(t, s.Freeze(ctx, "h1"))
	power(lab.Frozen)
	if !s.reaches("h2", "198.19.22.11") {
		t.Error("the kernel of a frozen host does not answer")
	}
	s.want("h2", "root", "timeout 0.5 bash -c 'head -c 3 </dev/tcp/198.19.22.11/22' || echo silent", "silent")
	must(t, s.Thaw(ctx, "h1"))
	s.want("h1", "root", "cat /kept", "kept")
	must(t, s.Freeze(ctx, "h1"))
	must(t, s.PowerOff(ctx, "h1")) // the frozen can die

	must(t, s.Renew(ctx, "h1"))
	power(lab.Off)
	s.booted(s.PowerOn(ctx, "h1"))
	s.want("h1", "root", "ls /kept 2>/dev/null || echo new", "new")
	if again, err := s.HostKey("h1"); err != nil || again == key {
		t.Errorf("a new machine has the old key (%v)", err)
	}
	b, err := os.ReadFile(s.KnownHosts())
	must(t, err)
	if again, _ := s.HostKey("h1"); !strings.Contains(string(b), again) || strings.Contains(string(b), key) {
		t.Errorf("known_hosts after renew:\n%s", b)
	}
}

// eventually waits for f with a bound that only a hang reaches.
func eventually(t *testing.T, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not happen")
		}
	}
}

func TestFaults(t *testing.T) {
	s := up(t, "dct2fault", "198.19.23.0/24", 3)
	ctx := t.Context()
	const a1, a2, a3 = "198.19.23.11", "198.19.23.12", "198.19.23.13"

	// One way: what h1 sends h2 is lost, what h2 sends arrives. Answers do not.
	must(t, s.Partition(ctx, []string{"h1"}, []string{"h2"}, true))
	if s.reaches("h1", a2) || s.reaches("h2", a1) || !s.reaches("h1", a3) {
		t.Error("cut in one direction")
	}
	s.on("h1", "root", "ip neigh replace "+a2+" lladdr 02:00:c6:13:17:0c dev eth0")
	s.on("h2", "root", "ip neigh replace "+a1+" lladdr 02:00:c6:13:17:0b dev eth0; nft 'add table ip c; add chain ip c in { type filter hook input priority 0; }; add rule ip c in ip saddr "+a1+" counter'")
	s.on("h1", "root", "nft 'add table ip c; add chain ip c in { type filter hook input priority 0; }; add rule ip c in ip saddr "+a2+" counter'")
	s.reaches("h1", a2)
	s.reaches("h2", a1)
	s.want("h2", "root", "nft list table ip c | grep -o 'packets [0-9]*'", "packets 0")
	if s.on("h1", "root", "nft list table ip c | grep -o 'packets [0-9]*'") == "packets 0" {
		t.Error("the other direction is cut as well")
	}
	// Partitions add up, and outlive a reboot.
	must(t, s.Partition(ctx, []string{"h3", "machine"}, []string{"h2"}, false))
	s.booted(s.Reboot(ctx, "h1"))
	if s.reaches("h1", a2) {
		t.Error("a reboot healed a partition")
	}
	if _, err := s.Run(ctx, "h2", "root", "true"); err == nil {
		t.Error("the machine reaches a host that it is cut off from")
	}
	must(t, s.Heal(ctx, "machine"))
	if s.reaches("h3", a2) {
		t.Error("all is healed")
	}
	must(t, s.Heal(ctx))
	// Whoever asked for an address in vain may take seconds to ask again.
	eventually(t, func() bool { return s.reaches("h1", a2) && s.reaches("h3", a2) })
	must(t, s.Partition(ctx, []string{"h1"}, nil, false))
	if s.reaches("h1", a2) || s.reaches("h1", a3) {
		t.Error("alone, and still in touch")
	}
	must(t, s.Heal(ctx))
	eventually(t, func() bool { return s.reaches("h2", a1) })

	// A fifth lost each way: 64 % come back. The bounds are ten standard
	// deviations away.
	must(t, s.Loss(ctx, "h1", 20))
	received := func() int {
		out := s.on("h2", "root", "ping -q -c 500 -i 0.002 -W 1 "+a1+" || true")
		n, err := strconv.Atoi(regexp.MustCompile(`(\d+) received`).FindStringSubmatch(out)[1])
		must(t, err)
		return n
	}
	if n := received(); n < 210 || n > 430 {
		t.Errorf("%d of 500 came back", n)
	}
	must(t, s.Loss(ctx, "h1", 0))
	if n := received(); n < 490 {
		t.Errorf("%d of 500 came back without loss", n)
	}

	// Late: never earlier than asked for.
	least := func(from, to string) float64 {
		out := s.on(from, "root", "ping -q -c 10 -i 0.02 -W 2 "+to)
		ms, err := strconv.ParseFloat(regexp.MustCompile(`= ([\d.]+)/`).FindStringSubmatch(out)[1], 64)
		must(t, err)
		return ms
	}
	must(t, s.Delay(ctx, "h1", lab.Delay{Delay: 30 * time.Millisecond, Jitter: 10 * time.Millisecond}))
	s.booted(s.Reboot(ctx, "h1"))
	if ms := min(least("h1", a2), least("h2", a1)); ms < 60 {
		t.Errorf("there and back in %g ms", ms)
	}
	if sum := s.on("h1", "root", "head -c 5000000 /dev/zero | sha256sum"); s.on("h2", "root", "echo") != "" || sum == "" {
		t.Error("no connection through the wire")
	}
	must(t, s.Partition(ctx, []string{"h1"}, []string{"h2"}, false))
	if s.reaches("h1", a2) {
		t.Error("delayed packets cross a partition")
	}
	must(t, s.Heal(ctx))
	must(t, s.Delay(ctx, "h1", lab.Delay{}))
	eventually(t, func() bool { return s.reaches("h1", a2) })
	if ms := least("h1", a2); ms >= 60 {
		t.Errorf("there and back in %g ms without delay", ms)
	}

	// Disks. Ten flushes at ten operations a second take a second at least.
	flush := func() time.Duration {
		began := time.Now()
		s.on("h3", "root", "dd if=/dev/zero of=/var/lib/t bs=4k count=10 oflag=dsync 2>&1")
		return time.Since(began)
	}
	must(t, s.SlowDisk(ctx, "h3", lab.Disk{IOPS: 10}))
	if took := flush(); took < time.Second {
		t.Errorf("ten flushes took %s", took)
	}
	// Also what is in a cgroup of its own, made since, after a power cycle.
	must(t, s.PowerOff(ctx, "h3"))
	s.booted(s.PowerOn(ctx, "h3"))
	s.on("h3", "root", "mkdir /sys/fs/cgroup/blkio/own")
	eventually(t, func() bool {
		return s.on("h3", "root", "cat /sys/fs/cgroup/blkio/own/blkio.throttle.write_iops_device | cut -d' ' -f2") == "10"
	})
	if took := flush(); took < time.Second {
		t.Errorf("ten flushes after a power cycle took %s", took)
	}
	must(t, s.SlowDisk(ctx, "h3", lab.Disk{}))
	s.want("h3", "root", "cat /sys/fs/cgroup/blkio/blkio.throttle.*device /sys/fs/cgroup/blkio/own/blkio.throttle.*device", "")
	t.Logf("ten flushes without bound: %s", flush())

	s.want("h3", "root", "echo x >/var/lib/y && rm /var/lib/y && echo room", "room")
	must(t, s.FillDisk(ctx, "h3", 0))
	s.want("h3", "root", "head -c 100000 /dev/zero >/var/lib/y 2>/dev/null && echo room || echo full", "full")
	s.want("h3", "root", "head -c 100000 /dev/zero >/root/y 2>/dev/null && echo room || echo full", "full")
	must(t, s.FreeDisk(ctx, "h3"))
	must(t, s.FillDisk(ctx, "h3", 64<<20))
	s.want("h3", "root", "head -c 40000000 /dev/zero >/var/lib/y && echo room", "room")
	s.want("h3", "root", "head -c 80000000 /dev/zero >/var/lib/z 2>/dev/null && echo room || echo full", "full")
	must(t, s.FreeDisk(ctx, "h3"))

	f, err := s.Faults()
	must(t, err)
	if len(f.Cuts)+len(f.Loss)+len(f.Delay)+len(f.Disk) != 0 {
		t.Errorf("left broken: %+v", f)
	}
	if err := s.Loss(ctx, "h4", 10); !fault.Is(err, fault.NotFound) {
		t.Errorf("loss of a host that there is not: %v", err)
	}
}

// TestDownAfterDeath: whatever died, Down finds the rest.
func TestDownAfterDeath(t *testing.T) {
	s := up(t, "dct2dead", "198.19.24.0/24", 2)
	if len(traces(t, s.dir, "dct2dead", s.r)) < 8 {
		t.Fatal("traces sees nothing of a lab that is up")
	}
	if _, _, err := lab.Up(t.Context(), options(s.dir), s.Record); !fault.Is(err, fault.Exists) {
		t.Errorf("a second lab of the name: %v", err)
	}
	other := s.Record
	other.Name = "dct2dead2"
	if _, _, err := lab.Up(t.Context(), options(s.dir), other); !fault.Is(err, fault.Invalid) {
		t.Errorf("a second lab of the range: %v", err)
	}
	must(t, s.Freeze(t.Context(), "h1"))
	must(t, s.Delay(t.Context(), "h2", lab.Delay{Delay: time.Millisecond}))
	// The switch dies, and with it the network; one supervisor dies, and its
	// host stays behind.
	for _, part := range []string{"switch", "h2/power"} {
		files, err := filepath.Glob("/sys/fs/cgroup/*/dcos-lab/dct2dead/" + part + "/cgroup.procs")
		must(t, err)
		b, err := os.ReadFile(files[0])
		must(t, err)
		pid, err := strconv.Atoi(strings.Fields(string(b))[0])
		must(t, err)
		p, err := os.FindProcess(pid)
		must(t, err)
		must(t, p.Kill())
	}
	if _, err := s.Reboot(t.Context(), "h1"); err == nil {
		t.Error("a host reboots without a network")
	}
	must(t, s.Down(t.Context()))
	s.gone("dct2dead")
	must(t, s.Down(t.Context()))
	if _, err := lab.Open(options(s.dir), "dct2dead"); !fault.Is(err, fault.NotFound) {
		t.Errorf("a lab that is down: %v", err)
	}
}

// TestInterruptedUp kills the program, and cancels it, at every stage of
// making a lab. Afterwards nothing is left.
func TestInterruptedUp(t *testing.T) {
	const name, cidr = "dct2int", "198.19.25.0/24"
	s := &subject{t: t, dir: t.TempDir(), r: netip.MustParsePrefix(cidr)}
	t.Cleanup(func() { lab.Down(context.Background(), options(s.dir), name) })
	stages := []string{"lab.json", "known_hosts", "hosts/h1/console.log", "hosts/h2/disk.img", "hosts/h1/root"}
	for _, stage := range stages {
		for _, sig := range []os.Signal{os.Kill, os.Interrupt} {
			cmd := exec.Command(program, "up", "-dir", s.dir, "-name", name, "-range", cidr, "-n", "2")
			stderr, err := cmd.StderrPipe()
			must(t, err)
			must(t, cmd.Start())
			reached := false
			eventually(t, func() bool {
				_, err := os.Stat(filepath.Join(s.dir, name, stage))
				reached = err == nil
				return reached || !errors.Is(err, fs.ErrNotExist)
			})
			must(t, cmd.Process.Signal(sig))
			said, _ := bufio.NewReader(stderr).ReadString(0)
			if err := cmd.Wait(); err == nil {
				t.Errorf("%v at %s came too late", sig, stage)
			}
			if sig == os.Interrupt { // it cleans up itself
				if !strings.Contains(said, "interrupt") {
					t.Errorf("interrupted at %s, it says %q", stage, said)
				}
				s.gone(name)
				continue
			}
			out, err := exec.Command(program, "down", "-dir", s.dir, "-name", name).CombinedOutput()
			if err != nil {
				t.Errorf("down after a kill at %s: %v\n%s", stage, err, out)
			}
			s.gone(name)
		}
	}
}
