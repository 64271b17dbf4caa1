//go:build root

package simhost_test

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"dcos.example/dcos/providers/local/boot"
	"dcos.example/dcos/providers/local/cgroup"
	"dcos.example/dcos/providers/local/control"
	"dcos.example/dcos/providers/local/network"
	"dcos.example/dcos/providers/local/simhost"
	"dcos.example/dcos/runtime/fault"
)

var initPath string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "dct8-init")
	if err != nil {
		panic(err)
	}
	initPath = filepath.Join(dir, "dcos-init")
	cmd := exec.Command("go", "build", "-o", initPath, "dcos.example/dcos/providers/local/cmd/dcos-init")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// lab is a cluster's network with hosts, taken down at the end of the test.
type lab struct {
	*testing.T
	m       simhost.Machine
	n       network.Networks
	cluster string
	info    network.Info
}

func newLab(t *testing.T, cluster, cidr string) *lab {
	t.Helper()
	dir := t.TempDir()
	l := &lab{T: t, m: simhost.Machine{Dir: dir, Init: initPath}, n: network.Networks{Dir: dir}, cluster: cluster}
	p := netip.MustParsePrefix(cidr)
	l.Cleanup(func() {
		ctx := context.Background()
		hosts, err := l.m.Hosts(cluster)
		if err != nil {
			t.Error(err)
		}
		for _, h := range hosts {
			if err := l.m.Remove(ctx, cluster, h); err != nil {
				t.Error(err)
			}
		}
		if err := l.n.Remove(cluster); err != nil {
			t.Error(err)
		}
	})
	var err error
	if l.info, err = l.n.Ensure(t.Context(), network.Info{Cluster: cluster, CIDR: p, Gateway: p.Addr().Next()}); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *lab) host(name string, last byte) simhost.Host {
	a := l.info.CIDR.Addr().As4()
	a[3] = last
	return simhost.Host{Cluster: l.cluster, Name: name, Address: netip.AddrFrom4(a).String(), CPUs: 0.5, MemoryMiB: 96, DiskMiB: 256}
}

func (l *lab) ensure(h simhost.Host) simhost.State {
	l.Helper()
	began := time.Now()
	st, err := l.m.Ensure(l.Context(), h)
	if err != nil {
		console, _ := os.ReadFile(filepath.Join(l.m.Dir, l.cluster, h.Name, boot.ConsoleFile))
		l.Fatalf("%v\n%s", err, console)
	}
	l.Logf("host %s up after %s", h.Name, time.Since(began).Round(time.Millisecond))
	return st
}

// run runs a shell script in the host and returns its exit code and output.
func (l *lab) run(st simhost.State, script string) (int, string) {
	l.Helper()
	r, err := control.Client{Dir: st.Dir}.Do(l.Context(), control.Request{Op: control.OpExec, Argv: []string{"/bin/sh", "-c", script}, Timeout: 20 * time.Second})
	if err != nil {
		l.Fatal(err)
	}
	return r.Exec.Code, string(r.Exec.Stdout) + string(r.Exec.Stderr)
}

func (l *lab) must(st simhost.State, script, want string) {
	l.Helper()
	code, out := l.run(st, script)
	if code != 0 || !strings.Contains(out, want) {
		l.Errorf("%s: exit %d, output %q, want %q", script, code, out, want)
	}
}

// traces are what a cluster leaves in the machine.
func (l *lab) traces() map[string]string {
	l.Helper()
	out := map[string]string{}
	links, err := netlink.LinkList()
	if err != nil {
		l.Fatal(err)
	}
	for _, k := range links {
		if k.Attrs().Name == network.LinkName("dv", "h1", l.cluster, "h1") || k.Attrs().Name == network.BridgeName(l.cluster) {
			out["link "+k.Attrs().Name] = k.Attrs().Alias
		}
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		l.Fatal(err)
	}
	for _, r := range routes {
		if r.Dst != nil && l.info.CIDR.Contains(netip.MustParseAddr(r.Dst.IP.String())) {
			out["route "+r.String()] = ""
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		l.Fatal(err)
	}
	if bytes.Contains(mounts, []byte(l.m.Dir)) {
		out["mounts"] = l.m.Dir
	}
	layout, err := cgroup.Detect()
	if err != nil {
		l.Fatal(err)
	}
	if layout.Group("dcos-local/" + l.cluster).Exists() {
		out["cgroup"] = l.cluster
	}
	return out
}

func TestHostsAreIsolated(t *testing.T) {
	l := newLab(t, "dct8iso", "198.19.80.0/24")
	var sts [2]simhost.State
	var wg sync.WaitGroup
	for i := range sts {
		wg.Go(func() { sts[i] = l.ensure(l.host(fmt.Sprintf("h%d", i+1), byte(11+i))) })
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	a, b := sts[0], sts[1]

	l.must(a, "hostname", "h1")
	l.must(a, "cat /etc/hosts", "198.19.80.11 h1")
	l.must(a, "cat /proc/1/cmdline | tr '\\0' ' '", "dcos-init init")
	l.must(a, "ps ax | wc -l | awk '$1 < 12 {print \"few\"}'", "few")
	// Nobody listens: a refusal comes from the other end.
	for _, dst := range []string{"198.19.80.12", "198.19.80.1"} {
		if _, out := l.run(a, "bash -c 'echo > /dev/tcp/"+dst+"/9'"); !strings.Contains(out, "refused") {
			t.Errorf("%s from h1: %s", dst, out)
		}
	}
	l.must(a, "cat /sys/class/net/eth0/address", "02:00:c6:13:50:0b")
	l.must(a, "test ! -e /root/go && test ! -e "+l.m.Dir+" && ls /dev | grep -c vda || echo hidden", "hidden")
	l.must(a, "findmnt -no FSTYPE /var/lib/dcos || grep ' /var/lib/dcos ' /proc/self/mountinfo", "ext4")
	l.must(a, "test -z \"$(ls /etc/systemd/system)\" && echo cleared", "cleared")

	// No way out: neither a default route, nor named VIPs.
	for _, dst := range []string{"192.0.2.1", "11.0.0.1", "9.0.0.1"} {
		if _, out := l.run(a, "bash -c 'echo > /dev/tcp/"+dst+"/9'"); !strings.Contains(out, "unreachable") && !strings.Contains(out, "No route") {
			t.Errorf("%s from the host: %s", dst, out)
		}
	}

	// What one host writes neither the other nor the machine sees.
	l.must(a, "echo mine > /usr/bin/dct8 && echo mine > /var/lib/dcos/dct8 && cat /usr/bin/dct8", "mine")
	l.must(b, "test ! -e /usr/bin/dct8 && test ! -e /var/lib/dcos/dct8 && echo clean", "clean")
	if _, err := os.Stat("/usr/bin/dct8"); err == nil {
		t.Error("a host wrote to the machine")
	}

	// Limits. Anonymous memory: what fills a tmpfs counts as well.
	if code, _ := l.run(a, "head -c 200m /dev/zero | tail -c 200m > /dev/null"); code == 0 {
		t.Error("200 MiB of memory in a host of 96 MiB")
	}
	if code, out := l.run(a, "dd if=/dev/zero of=/var/lib/dcos/big bs=1M count=400 2>&1; rm /var/lib/dcos/big"); !strings.Contains(out, "No space left") {
		t.Errorf("400 MiB on a disk of 256: exit %d, %s", code, out)
	}
	layout, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	pids, err := layout.Group("dcos-local/dct8iso/h1").Procs()
	if err != nil || !slices.Contains(pids, a.PID) {
		t.Errorf("host's processes %v, %v; want its init %d among them", pids, err, a.PID)
	}
	l.must(a, "cat /sys/fs/cgroup/*/pids.max /sys/fs/cgroup/pids.max 2>/dev/null; cat /proc/self/cgroup", ":pids:/exec")

	// The machine has no part in it.
	for k := range l.traces() {
		if strings.HasPrefix(k, "mounts") {
			t.Errorf("on the machine: %s", k)
		}
	}
}

func TestPowerOffAndOn(t *testing.T) {
	l := newLab(t, "dct8pow", "198.19.81.0/24")
	h := l.host("h1", 11)
	a := l.ensure(h)
	l.must(a, `mkdir -p /etc/systemd/system && cat > /etc/systemd/system/tick.service <<EOF
[Service]
ExecStart=/bin/sh -c 'echo started with ulimit \$\$(ulimit -n); exec sleep 1000'
LimitNOFILE=infinity
Restart=always
[Install]
WantedBy=multi-user.target
EOF
echo kept > /kept`, "")
	do := func(dir string, op control.Op) control.Response {
		t.Helper()
		r, err := control.Client{Dir: dir}.Do(t.Context(), control.Request{Op: op, Unit: "tick.service", Tail: 1000})
		if err != nil {
			t.Fatal(op, err)
		}
		return r
	}
	do(a.Dir, control.OpEnable)
	do(a.Dir, control.OpStart)
	st := do(a.Dir, control.OpStatus).Units[0]
	if st.State != "active" || !st.Enabled || st.PID == 0 {
		t.Fatalf("unit: %+v", st)
	}
	l.must(a, fmt.Sprintf("cat /proc/%d/cgroup", st.PID), ":/tick.service")
	if again := l.ensure(h); again.PID != a.PID {
		t.Error("a running host was restarted")
	}

	if err := l.m.PowerOff(t.Context(), l.cluster, "h1"); err != nil {
		t.Fatal(err)
	}
	if err := l.m.PowerOff(t.Context(), l.cluster, "h1"); err != nil {
		t.Fatal(err)
	}
	got, err := l.m.Inspect(l.cluster, "h1")
	if err != nil || got.Running {
		t.Fatalf("after power-off: %+v, %v", got, err)
	}
	if _, err := (control.Client{Dir: a.Dir}).Do(t.Context(), control.Request{Op: control.OpPing}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("ping of a dead host: %v", err)
	}
	// The address is still the bridge's: what is sent there gets lost here.
	routes, err := netlink.RouteGet([]byte{198, 19, 81, 11})
	if err != nil || len(routes) != 1 {
		t.Fatal(routes, err)
	}
	if link, _ := netlink.LinkByIndex(routes[0].LinkIndex); link == nil || link.Attrs().Name != l.info.Bridge {
		t.Errorf("packets to a dead host go to %v", link)
	}

	b := l.ensure(h)
	if b.Boot == a.Boot || b.PID == a.PID {
		t.Errorf("not a new boot: %+v", b)
	}
	l.must(b, "cat /kept", "kept")
	poll(t, func() bool {
		st = do(b.Dir, control.OpStatus).Units[0]
		return st.State == "active" && strings.Count(st.Log, "started") == 2
	})

	if err := l.m.Shutdown(t.Context(), l.cluster, "h1"); err != nil {
		t.Fatal(err)
	}
	if got, err := l.m.Inspect(l.cluster, "h1"); err != nil || got.Running {
		t.Fatalf("after shutdown: %+v, %v", got, err)
	}
}

// poll waits for f with a bound that only a hang reaches.
func poll(t *testing.T, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not happen")
		}
	}
}

func TestRemoveLeavesNothing(t *testing.T) {
	l := newLab(t, "dct8rem", "198.19.82.0/24")
	h := l.host("h1", 11)
	l.ensure(h)
	if len(l.traces()) == 0 {
		t.Fatal("traces sees nothing of a running host")
	}
	for range 2 {
		if err := l.m.Remove(t.Context(), l.cluster, "h1"); err != nil {
			t.Fatal(err)
		}
	}
	l.ensure(h) // again, from nothing
	if err := l.m.Remove(t.Context(), l.cluster, "h1"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := l.n.Remove(l.cluster); err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff(map[string]string{}, l.traces()); d != "" {
		t.Error(d)
	}
	entries, err := os.ReadDir(l.m.Dir)
	if err != nil || len(entries) != 0 {
		t.Errorf("left on disk: %v, %v", entries, err)
	}
}

// A process that got the id of a dead host's init is not taken for it.
func TestForeignProcessIsSafe(t *testing.T) {
	l := newLab(t, "dct8for", "198.19.83.0/24")
	st := l.ensure(l.host("h1", 11))
	other := exec.Command("sleep", "1000")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Process.Kill(); other.Wait() })
	if err := l.m.PowerOff(t.Context(), l.cluster, "h1"); err != nil {
		t.Fatal(err)
	}
	pidFile := filepath.Join(st.Dir, "pid.json")
	b, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	b = bytes.Replace(b, fmt.Appendf(nil, `"pid": %d`, st.PID), fmt.Appendf(nil, `"pid": %d`, other.Process.Pid), 1)
	if err := os.WriteFile(pidFile, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.m.Remove(t.Context(), l.cluster, "h1"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d/exe", other.Process.Pid)); err != nil {
		t.Error("a stranger was killed:", err)
	}
}

func TestBrokenHostLeavesNothingRunning(t *testing.T) {
	l := newLab(t, "dct8bro", "198.19.83.0/24")
	h := l.host("h1", 11)
	h.Address = "10.1.2.3"
	if _, err := l.m.Ensure(t.Context(), h); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "198.19.83.0/24") {
		t.Errorf("address outside the network: %v", err)
	}
	if pids, _ := exec.Command("pgrep", "-f", "dcos-init init "+filepath.Join(l.m.Dir, l.cluster, "h1")).Output(); len(pids) > 0 {
		t.Errorf("left running: %s", pids)
	}
	h = l.host("h1", 11)
	l.ensure(h)
	h.DiskMiB *= 2
	if _, err := l.m.Ensure(t.Context(), h); !fault.Is(err, fault.Exists) {
		t.Errorf("other disk size: %v", err)
	}
}
