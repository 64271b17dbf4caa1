package preflight_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/installer/preflight"
	"dcos.example/dcos/installer/preflight/probe"
	"dcos.example/dcos/installer/topology"
	"dcos.example/dcos/runtime/fault"
)

// machine answers with the facts of a system, and with a report as dcos-probe
// would write it.
type machine struct {
	host.Host // what is not used
	facts     string
	noise     string
	silent    bool   // never answers
	broken    string // what dcos-probe says when it fails

	mu    sync.Mutex
	files map[string]host.File
	specs []probe.Spec
}

func (m *machine) Run(ctx context.Context, argv ...string) (host.Output, error) {
	if m.silent {
		<-ctx.Done()
		return host.Output{}, ctx.Err()
	}
	if argv[0] == "/bin/sh" {
		return host.Output{Stdout: m.facts, Noise: m.noise}, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if f, ok := m.files[argv[0]]; !ok || f.Mode != 0o700 {
		return host.Output{Code: 127, Stderr: argv[0] + ": not found"}, nil
	}
	if m.broken != "" {
		return host.Output{Code: 1, Stderr: m.broken}, nil
	}
	if argv[1] == "-rm" {
		delete(m.files, argv[0])
	}
	var s probe.Spec
	if err := json.Unmarshal([]byte(argv[len(argv)-1]), &s); err != nil {
		return host.Output{}, err
	}
	m.specs = append(m.specs, s)
	b, err := json.Marshal(probe.Report{Interface: probe.Interface{Name: s.Name, MTU: 1500}})
	return host.Output{Stdout: string(b)}, err
}

func (m *machine) WriteFile(_ context.Context, path string, f host.File) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files[path] = f
	return nil
}

func (m *machine) Remove(_ context.Context, path string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.files, path)
	return nil
}

// program is something built for this machine, as dcos-probe is.
func program(t *testing.T) []byte {
	t.Helper()
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	return b[:min(len(b), 4<<20)]
}

type world map[string]*machine

func (w world) open(_ context.Context, ref host.Ref) (host.Host, error) {
	m := w[ref.Name]
	if m == nil {
		return nil, fault.Newf("reach "+ref.Name, fault.Unavailable, "connection refused")
	}
	return m, nil
}

func newWorld(t *testing.T) (world, preflight.Options) {
	t.Helper()
	b, err := os.ReadFile("testdata/debian-12.facts")
	if err != nil {
		t.Fatal(err)
	}
	w := world{}
	o := preflight.Options{Open: w.open, Probe: program(t), ProbePath: "/opt/dcos/releases/x/bin/dcos-probe", Parallel: 2}
	facts := strings.Replace(string(b), "x86_64", preflight.Arch(o.Probe), 1)
	for i, n := range []string{"m1", "m2", "m3", "a1", "a2", "a3"} {
		role, addr := topology.RoleMaster, netip.AddrFrom4([4]byte{10, 0, 0, byte(11 + i)})
		if n[0] == 'a' {
			role = topology.RoleAgent
		}
		w[n] = &machine{facts: facts, files: map[string]host.File{}}
		o.Targets = append(o.Targets, preflight.Target{Name: n, Role: role, Addr: addr, Ref: host.Ref{Name: n}})
	}
	return w, o
}

// Every host is asked and measures; nothing is left on it; masters are
// measured by all, agents by masters and one neighbour.
func TestCollect(t *testing.T) {
	w, o := newWorld(t)
	w["m1"].noise = "Welcome!"
	hosts := preflight.Collect(t.Context(), o)
	measured := map[string][]string{}
	for _, h := range hosts {
		if h.Unreached != nil || h.NoProbe != "" || h.Probe == nil || h.Probe.Interface.Name != h.Name || h.Received.Before(h.Sent) {
			t.Errorf("%s: %v %q %+v", h.Name, h.Unreached, h.NoProbe, h.Probe)
		}
		m := w[h.Name]
		if len(m.files) > 0 || len(m.specs) != 1 {
			t.Fatalf("%s: %d files are left, %d runs", h.Name, len(m.files), len(m.specs))
		}
		s := m.specs[0]
		for _, p := range s.Peers {
			measured[p.Name] = append(measured[p.Name], h.Name)
			if peer := w[p.Name].specs[0]; !slices.Contains(peer.Expect, h.Name) || p.UDP != peer.UDP || slices.ContainsFunc(p.Ports, func(n int) bool { return !slices.Contains(peer.Listen, n) }) {
				t.Errorf("%s calls %+v, which offers %+v", h.Name, p, peer)
			}
		}
		if s.Nonce == "" || s.Nonce != w["m1"].specs[0].Nonce || s.Fsync != (h.Role == topology.RoleMaster) {
			t.Errorf("%+v", s)
		}
	}
	for n, want := range map[string]int{"m1": 5, "m2": 5, "m3": 5, "a1": 4, "a2": 4, "a3": 4} {
		if len(measured[n]) != want {
			t.Errorf("%s is measured by %v", n, measured[n])
		}
	}
	if hosts[0].Noise != "Welcome!" {
		t.Errorf("noise %q", hosts[0].Noise)
	}
}

// What is wrong with one host is told of it, and the others are looked at.
func TestCollectInSpiteOf(t *testing.T) {
	w, o := newWorld(t)
	delete(w, "m1")
	w["m2"].broken = "segmentation fault"
	w["m3"].facts = "This account is not available.\n"
	w["a1"].facts = strings.ReplaceAll(w["a1"].facts, "rw,relatime", "rw,noexec")
	w["a2"].facts = strings.Replace(w["a2"].facts, preflight.Arch(o.Probe), "mips", 1)
	o.Targets[5].Absent = "it is not made yet"
	hosts := preflight.Collect(t.Context(), o)
	if err := hosts[0].Unreached; !fault.Is(err, fault.Unavailable) {
		t.Errorf("m1: %v", err)
	}
	for i, want := range []string{"", "dcos-probe ended with 1: segmentation fault", "", "there is no room for dcos-probe", "the host is mips", ""} {
		if got := hosts[i].NoProbe; !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("%s: %q, want %q", hosts[i].Name, got, want)
		}
	}
	if len(w["m2"].files) > 0 {
		t.Error("what could not run was left on m2")
	}
	if h := hosts[2]; h.Facts != nil || h.Noise != "This account is not available." {
		t.Errorf("m3: %+v", h)
	}
	rs := preflight.Judge(preflight.Input{Hosts: hosts})
	for _, n := range []string{"m1", "m3"} {
		if !slices.ContainsFunc(rs, func(r preflight.Result) bool { return r.Host == n && r.Check == "reach" && r.Stops() }) {
			t.Errorf("%s is reached", n)
		}
	}
}

// Hosts that never answer cost their time once, all together.
func TestCollectIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, o := newWorld(t)
		for _, m := range w {
			m.silent = true
		}
		o.Parallel = 10
		start := time.Now()
		for _, h := range preflight.Collect(t.Context(), o) {
			if h.Unreached == nil || !strings.Contains(h.Unreached.Error(), "no answer within 20s") {
				t.Errorf("%s: %v", h.Name, h.Unreached)
			}
		}
		if took := time.Since(start); took > 21*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

// A host that has the release runs the release's dcos-probe, and nothing is
// brought to it; one that runs the cluster is not listened on.
func TestCollectInstalled(t *testing.T) {
	w, o := newWorld(t)
	o.Targets = o.Targets[:2]
	o.Targets[0].Known = true
	w["m1"].facts = strings.Replace(w["m1"].facts, "end ", "path /etc/systemd/system/dcos-master.service\nprobe "+o.ProbePath+"\nlisten tcp 0B00000A:13BA 77\nsocket 77 300 dcosd\nlisten udp 0B00000A:0035 78\nsocket 78 300 dcosd\nend ", 1)
	w["m1"].files[o.ProbePath] = host.File{Mode: 0o700}
	hosts := preflight.Collect(t.Context(), o)
	if hosts[0].Probe == nil || len(w["m1"].files) != 1 {
		t.Fatalf("%q, %d files", hosts[0].NoProbe, len(w["m1"].files))
	}
	s1, s2 := w["m1"].specs[0], w["m2"].specs[0]
	if len(s1.Listen) > 0 || s1.UDP != 0 || len(s1.Expect) > 0 || s1.Kernel {
		t.Errorf("m1: %+v", s1)
	}
	if p := s2.Peers[0]; !slices.Equal(p.Busy, []int{5050}) || len(p.Ports) > 0 || !p.DNS {
		t.Errorf("m2 calls %+v", p)
	}
	if p := s1.Peers[0]; len(p.Ports) != 5 {
		t.Errorf("m1 calls %+v", p)
	}
}

// The script runs in the shells that hosts have, and what it says is read.
func TestScript(t *testing.T) {
	for _, shell := range [][]string{{"sh"}, {"bash", "--posix"}} {
		t.Run(shell[0], func(t *testing.T) {
			cmd := exec.Command(shell[0], append(shell[1:], "-c", "PROBE=/bin/sh\n"+preflight.Script())...)
			var errs strings.Builder
			cmd.Stderr = &errs
			out, err := cmd.Output()
			if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || !exit.Success()) {
				t.Fatalf("%v: %s", err, errs.String())
			}
			f, noise, ok := preflight.ParseFacts(string(out))
			if !ok || noise != "" {
				t.Fatalf("%q", out)
			}
			if s := errs.String(); s != "" {
				t.Errorf("it complains: %s", s)
			}
			for _, key := range []string{"now", "end", "zone", "uid", "uname", "hostname", "boot-id", "init", "tool", "cpus", "memory", "namespace", "disk", "link", "address", "sysctl", "probe"} {
				if len(f[key]) == 0 {
					t.Errorf("no %s", key)
				}
			}
			if len(f["disk"]) != 6 {
				t.Errorf("disks: %q", f["disk"])
			}
		})
	}
}
