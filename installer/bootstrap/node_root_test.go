//go:build root

package bootstrap_test

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"

	"dcos.example/dcos/installer/bootstrap"
	"dcos.example/dcos/installer/bundle"
	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/providers"
	"dcos.example/dcos/providers/local"
	"dcos.example/dcos/runtime/fault"
)

var initPath string

func TestMain(m *testing.M) {
	if _, asked := os.LookupEnv("SQUAT"); asked { // on a host, see TestSquatter
		os.Exit(m.Run())
	}
	dir, err := os.MkdirTemp("", "dct8-init")
	if err != nil {
		panic(err)
	}
	initPath = filepath.Join(dir, "dcos-init")
	cmd := exec.Command("go", "build", "-o", initPath, "dcos.example/dcos/providers/local/cmd/dcos-init")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		panic(string(out))
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// signer signs the bundles of these tests.
var signer = func() bundle.Key {
	k, err := bundle.NewKey()
	if err != nil {
		panic(err)
	}
	return k
}()

// release packs a program that stays up and one that does not.
func release(t *testing.T, version string) (path, digest string) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"bin/daemon": "#!/bin/sh\necho daemon of " + version + " has $(cat /etc/dcos/daemon.conf)\nexec sleep 1000\n",
		"bin/broken": "#!/bin/sh\necho cannot open the gates >&2\nexit 3\n",
	} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var buf bytes.Buffer
	m, err := bundle.Write(&buf, bundle.Contents{Dir: dir, Version: version}, &signer)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), version+".bundle")
	if err := os.WriteFile(path, buf.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path, m.Digest()
}

type world struct {
	*testing.T
	local *local.Provider
	dcos  *bootstrap.Provider
	dir   string // of the host
	steps []string
}

func newWorld(t *testing.T) *world {
	base := t.TempDir()
	cache := filepath.Join(base, "bundles")
	lp, err := local.New(local.Options{Dir: filepath.Join(base, "hosts"), Init: initPath, Cache: cache})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, local: lp, dcos: bootstrap.New(bootstrap.Options{Cache: cache, Trust: bundle.TrustKey(signer.Public()), Poll: 5 * time.Millisecond})}
	t.Cleanup(func() {
		if err := lp.Destroy(context.Background(), "dct8boot"); err != nil {
			t.Error(err)
		}
	})
	w.create(lp, local.TypeNetwork, resource.PropertyMap{
		"cluster": str("dct8boot"), "cidr": str("198.19.87.0/24"), "gateway": str("198.19.87.1"), "uplink": resource.NewProperty(false)})
	out := w.create(lp, local.TypeHost, resource.PropertyMap{
		"cluster": str("dct8boot"), "name": str("agent-1"), "role": str("agent"), "address": str("198.19.87.11"), "network": str("b"),
		"cpus": resource.NewProperty(1.0), "memoryMiB": resource.NewProperty(128.0), "diskMiB": resource.NewProperty(256.0)})
	w.dir = text(t, out.Properties, "dir")
	return w
}

func str(s string) resource.PropertyValue { return resource.NewProperty(s) }

func (w *world) ctx() context.Context {
	w.steps = nil
	return providers.WithToken(providers.WithReporter(w.Context(), func(p providers.Progress) {
		if p.Message == "" && !p.Done {
			w.steps = append(w.steps, p.Step)
		}
	}), "00000000000000000000000000000001")
}

func (w *world) create(p providers.Provider, typ tokens.Type, in resource.PropertyMap) plugin.CreateResponse {
	w.Helper()
	r, err := p.Create(w.ctx(), plugin.CreateRequest{URN: urn(typ, "x"), Type: typ, Properties: in})
	if err != nil {
		w.Fatal(err)
	}
	return r
}

func (w *world) host() host.Host {
	w.Helper()
	h, err := host.OpenLocal(w.Context(), host.Ref{Kind: "local", Dir: w.dir, Name: "agent-1"})
	if err != nil {
		w.Fatal(err)
	}
	return h
}

func (w *world) node(path, digest, conf, program string) resource.PropertyMap {
	file := func(s string, mode float64) resource.PropertyValue {
		return resource.NewProperty(resource.PropertyMap{"content": str(s), "mode": resource.NewProperty(mode)})
	}
	return resource.PropertyMap{
		"host": resource.NewProperty(resource.PropertyMap{"kind": str("local"), "dir": str(w.dir), "bootId": str("1")}),
		"name": str("agent-1"), "role": str("agent"), "address": str("198.19.87.11"), "release": str(digest), "bundle": str(path),
		"units": resource.NewProperty([]resource.PropertyValue{str("dcos-daemon.service"), str("dcos-second.service")}),
		"files": resource.NewProperty(resource.PropertyMap{
			"/etc/systemd/system/dcos-daemon.service": file("[Service]\nExecStart=/opt/dcos/current/bin/"+program+"\n# /etc/dcos/daemon.conf\nRestart=always\nRestartSec=50ms\n", 0o644),
			"/etc/systemd/system/dcos-second.service": file("[Unit]\nRequires=dcos-daemon.service\nAfter=dcos-daemon.service\n[Service]\nExecStart=/bin/sleep 1000\n", 0o644),
			"/etc/dcos/daemon.conf":                   file(conf, 0o600),
			"/etc/hosts":                              file("127.0.0.1 localhost\n", 0o644),
		}),
	}
}

func (w *world) update(old, in resource.PropertyMap) error {
	_, err := w.dcos.Update(w.ctx(), plugin.UpdateRequest{URN: urn(bootstrap.TypeNode, "agent-1"), Type: bootstrap.TypeNode, ID: "x", OldInputs: old, NewInputs: in})
	return err
}

func (w *world) since(unit string) time.Time {
	w.Helper()
	st, err := w.host().UnitStatus(w.Context(), unit, 0)
	if err != nil || !st.Active {
		w.Fatalf("%s: %+v, %v", unit, st, err)
	}
	return st.Since
}

func TestNode(t *testing.T) {
	w := newWorld(t)
	b1, d1 := release(t, "1.0.0")
	hostsBefore, err := w.host().ReadFile(t.Context(), "/etc/hosts")
	if err != nil {
		t.Fatal(err)
	}
	first := w.node(b1, d1, "one", "daemon")
	made := w.create(w.dcos, bootstrap.TypeNode, first)
	wantSteps := []string{"check host", "stage release 1.0.0-" + d1[:12], "write files", "switch to release 1.0.0-" + d1[:12], "start units", "verify"}
	if d := cmp.Diff(wantSteps, w.steps); d != "" {
		t.Error(d)
	}
	out, err := w.host().Run(t.Context(), "/bin/sh", "-c", "cat /var/log/dcos/dcos-daemon.log; readlink -f /opt/dcos/current; stat -c %a /etc/dcos/daemon.conf")
	if err != nil || !strings.Contains(out.Stdout, "daemon of 1.0.0 has one\n") || !strings.Contains(out.Stdout, "/bundles/1.0.0-") || !strings.Contains(out.Stdout, "600") {
		t.Errorf("%+v, %v", out, err)
	}

	// The same again does nothing but look.
	daemon, second := w.since("dcos-daemon.service"), w.since("dcos-second.service")
	if err := w.update(first, first); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"verify"}, w.steps); d != "" {
		t.Error(d)
	}

	// One file: one unit.
	changed := w.node(b1, d1, "two", "daemon")
	if err := w.update(first, changed); err != nil {
		t.Fatal(err)
	}
	if w.since("dcos-daemon.service").Equal(daemon) || !w.since("dcos-second.service").Equal(second) {
		t.Error("not exactly the unit concerned was restarted")
	}

	// What somebody breaks on the host is seen and repaired.
	if _, err := w.host().Run(t.Context(), "/bin/rm", "/etc/dcos/daemon.conf"); err != nil {
		t.Fatal(err)
	}
	if err := w.host().StopUnit(t.Context(), "dcos-second.service"); err != nil {
		t.Fatal(err)
	}
	req := plugin.ReadRequest{URN: urn(bootstrap.TypeNode, "agent-1"), Type: bootstrap.TypeNode, ID: made.ID, Inputs: changed, State: made.Properties}
	seen, err := w.dcos.Read(w.ctx(), req)
	if err != nil || seen.Outputs["active"].BoolValue() || seen.Inputs["files"].ObjectValue().HasValue("/etc/dcos/daemon.conf") {
		t.Errorf("read: %+v, %v", seen, err)
	}
	if err := w.update(seen.Inputs, changed); err != nil {
		t.Fatal(err)
	}
	if seen, err = w.dcos.Read(w.ctx(), req); err != nil || !seen.Outputs["active"].BoolValue() || !seen.Inputs.DeepEquals(changed) {
		t.Errorf("after repair: %+v, %v", seen, err)
	}

	// Another release that does not come up: the error names step, unit and log
	// (the engine adds the host); the next apply goes on.
	b2, d2 := release(t, "2.0.0")
	err = w.update(changed, w.node(b2, d2, "two", "broken"))
	for _, want := range []string{"verify: start dcos-daemon.service", "cannot open the gates", "apply again"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
	if err := w.update(changed, w.node(b2, d2, "two", "daemon")); err != nil {
		t.Fatal(err)
	}
	if out, err := w.host().Run(t.Context(), "/bin/sh", "-c", "tail -n1 /var/log/dcos/dcos-daemon.log"); err != nil || out.Stdout != "daemon of 2.0.0 has two\n" {
		t.Errorf("%+v, %v", out, err)
	}

	// A full disk is named as such.
	if _, err := w.host().Run(t.Context(), "/bin/sh", "-c", "head -c 400m /dev/zero > /fill; head -c 4m /dev/zero >> /fill; true"); err != nil {
		t.Fatal(err)
	}
	err = w.update(changed, w.node(b2, d2, strings.Repeat("x", 1<<20), "daemon"))
	if err == nil || !strings.Contains(err.Error(), "host agent-1") || !strings.Contains(err.Error(), "of 2") || !strings.Contains(err.Error(), "MiB free on the host") {
		t.Errorf("full disk: %v", err)
	}
	if _, err := w.host().Run(t.Context(), "/bin/rm", "/fill"); err != nil {
		t.Fatal(err)
	}

	// Power comes back with the units that were enabled.
	if err := w.local.Machine().PowerOff(t.Context(), "dct8boot", "agent-1"); err != nil {
		t.Fatal(err)
	}
	if seen, err = w.dcos.Read(w.ctx(), req); err != nil || seen.ID == "" || seen.Outputs["active"].BoolValue() {
		t.Errorf("read of a dead host: %+v, %v", seen, err)
	}
	if err := w.update(changed, changed); err == nil || !strings.Contains(err.Error(), "down") {
		t.Errorf("update of a dead host: %v", err)
	}
	st, err := w.local.Machine().Inspect("dct8boot", "agent-1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.local.Machine().Ensure(t.Context(), st.Host); err != nil {
		t.Fatal(err)
	}
	if err := w.update(changed, w.node(b2, d2, "three", "daemon")); err != nil {
		t.Fatal(err)
	}

	// Delete puts everything back, and again.
	for range 2 {
		if _, err := w.dcos.Delete(w.ctx(), plugin.DeleteRequest{URN: urn(bootstrap.TypeNode, "agent-1"), Type: bootstrap.TypeNode, ID: made.ID, Inputs: changed}); err != nil {
			t.Fatal(err)
		}
	}
	for path := range changed["files"].ObjectValue() {
		if _, err := w.host().ReadFile(t.Context(), string(path)); path != "/etc/hosts" && !fault.Is(err, fault.NotFound) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if f, err := w.host().ReadFile(t.Context(), "/etc/hosts"); err != nil || string(f.Data) != string(hostsBefore.Data) {
		t.Errorf("/etc/hosts is %q, %v", f.Data, err)
	}
	if out, err := w.host().Run(t.Context(), "/bin/sh", "-c", "ps ax | grep -c '[s]leep 1000'; ls /opt/dcos/releases /etc/systemd/system/*.wants"); err != nil || !strings.HasPrefix(out.Stdout, "0\n") || strings.Contains(out.Stdout, "dcos-") {
		t.Errorf("left on the host: %+v, %v", out, err)
	}
	if seen, err = w.dcos.Read(w.ctx(), req); err != nil || seen.ID != "" {
		t.Errorf("read after delete: %+v, %v", seen, err)
	}
}

func TestPortInUseIsFound(t *testing.T) {
	w := newWorld(t)
	b, d := release(t, "1.0.0")
	if err := w.host().WriteFile(t.Context(), "/etc/systemd/system/squat.service", host.File{Mode: 0o644, Data: fmt.Appendf(nil,
		"[Service]\nExecStart=%s -test.run=TestSquatter -test.v\nEnvironment=SQUAT=%s\n", "/tmp/squat", netip.MustParseAddrPort("0.0.0.0:5051"))}); err != nil {
		t.Fatal(err)
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.host().WriteFile(t.Context(), "/tmp/squat", host.File{Data: self, Mode: 0o755}); err != nil {
		t.Fatal(err)
	}
	if err := w.host().StartUnit(t.Context(), "squat.service"); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		st, err := w.host().UnitStatus(t.Context(), "squat.service", 1000)
		if err == nil && strings.Contains(st.Log, "listening") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(st, err)
		}
	}
	_, err = w.dcos.Create(w.ctx(), plugin.CreateRequest{URN: urn(bootstrap.TypeNode, "agent-1"), Type: bootstrap.TypeNode, Properties: w.node(b, d, "one", "daemon")})
	if err == nil || !strings.Contains(err.Error(), "port 5051") {
		t.Errorf("%v", err)
	}
}
