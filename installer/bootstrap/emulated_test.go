package bootstrap_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"

	"dcos.example/dcos/installer/bootstrap"
	"dcos.example/dcos/installer/bundle"
	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/installer/host/emulated"
	"dcos.example/dcos/providers"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
)

// bundler signs the bundles of these tests.
var bundler = func() bundle.Key {
	k, err := bundle.NewKey()
	if err != nil {
		panic(err)
	}
	return k
}()

// pack makes a bundle of programs, which are their own text.
func pack(t *testing.T, version string, programs map[string]string) (path, digest string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range programs {
		if err := os.WriteFile(filepath.Join(dir, "bin", name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var buf bytes.Buffer
	m, err := bundle.Write(&buf, bundle.Contents{Dir: dir, Version: version}, &bundler)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), version+".bundle")
	if err := os.WriteFile(path, buf.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path, m.Digest()
}

// site is one machine with what may be installed on it.
type site struct {
	*testing.T
	m        *emulated.Machine
	p        *bootstrap.Provider
	b1, d1   string
	b2, d2   string
	steps    []string
	messages []string
}

func newSite(t *testing.T) *site {
	s := &site{T: t, m: emulated.NewMachine("a1", "192.0.2.11")}
	s.b1, s.d1 = pack(t, "1.0.0", map[string]string{"dcosd": "dcosd 1", "containerd": "containerd 1", "runc": "runc 1"})
	s.b2, s.d2 = pack(t, "2.0.0", map[string]string{"dcosd": "dcosd 2", "containerd": "containerd 1", "runc": "runc 2"})
	s.use(s.m, t.TempDir())
	return s
}

// use puts another machine in place, and a provider that reaches it.
func (s *site) use(m *emulated.Machine, cache string) {
	s.m = m
	s.p = bootstrap.New(bootstrap.Options{Cache: cache, Trust: bundle.TrustKey(bundler.Public()), Open: emulated.NewWorld(m).Open,
		Dial: func(context.Context, string, string) (net.Conn, error) { c, _ := net.Pipe(); return c, nil }})
}

const siteToken = "00000000000000000000000000000007"

// process is a run of the installer: it ends when cancelled.
func (s *site) process() (context.Context, context.CancelFunc) {
	s.steps, s.messages = nil, nil
	ctx, cancel := context.WithCancel(s.Context())
	return providers.WithToken(providers.WithReporter(ctx, func(p providers.Progress) {
		if p.Message != "" {
			s.messages = append(s.messages, p.Message)
		} else if !p.Done {
			s.steps = append(s.steps, p.Step)
		}
	}), siteToken), cancel
}

// node is what is wanted. Conf is in a file of the agent's.
func (s *site) node(bundlePath, digest, conf string) resource.PropertyMap {
	file := func(text string, mode float64) resource.PropertyValue {
		return resource.NewProperty(resource.PropertyMap{"content": resource.NewProperty(text), "mode": resource.NewProperty(mode)})
	}
	str := func(s string) resource.PropertyValue { return resource.NewProperty(s) }
	return resource.PropertyMap{
		"host": resource.NewProperty(resource.PropertyMap{"kind": str("ssh"), "address": str("192.0.2.11"), "bootId": str("1")}),
		"name": str("a1"), "role": str("agent"), "address": str("192.0.2.11"), "release": str(digest), "bundle": str(bundlePath),
		"units": resource.NewProperty([]resource.PropertyValue{str("dcos-containerd.service"), str("dcos-agent.service")}),
		"files": resource.NewProperty(resource.PropertyMap{
			"/etc/systemd/system/dcos-containerd.service": file("[Service]\nExecStart=/opt/dcos/current/bin/containerd --config /etc/dcos/containerd.toml\n", 0o644),
			"/etc/systemd/system/dcos-agent.service":      file("[Service]\nEnvironment=PATH=/opt/dcos/current/bin\nExecStart=/opt/dcos/current/bin/dcosd agent -config /etc/dcos/agent.json\n", 0o644),
			"/etc/dcos/containerd.toml":                   file("root\n", 0o644),
			"/etc/dcos/agent.json":                        file(conf, 0o644),
			"/etc/dcos/pki/token":                         file("secret", 0o600),
			"/etc/resolv.conf":                            file("nameserver 198.51.100.1\n", 0o644),
			"/etc/systemd/resolved.conf.d/dcos.conf":      file("[Resolve]\n", 0o644),
		}),
	}
}

func (s *site) create(ctx context.Context, in resource.PropertyMap) (plugin.CreateResponse, error) {
	return s.p.Create(ctx, plugin.CreateRequest{URN: urn(bootstrap.TypeNode, "a1"), Type: bootstrap.TypeNode, Properties: in})
}

func (s *site) update(ctx context.Context, old, in resource.PropertyMap) error {
	_, err := s.p.Update(ctx, plugin.UpdateRequest{URN: urn(bootstrap.TypeNode, "a1"), Type: bootstrap.TypeNode, ID: "x", OldInputs: old, NewInputs: in})
	return err
}

func (s *site) delete(ctx context.Context, in resource.PropertyMap) error {
	_, err := s.p.Delete(ctx, plugin.DeleteRequest{URN: urn(bootstrap.TypeNode, "a1"), Type: bootstrap.TypeNode, ID: "x", Inputs: in})
	return err
}

func (s *site) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// state is a machine without what may differ between two ways to the same end.
func (s *site) state() map[string]string {
	p := s.m.Picture()
	delete(p, bootstrap.RecordPath)
	return p
}

// current leaves out releases that are only kept: after a change was complete,
// going back is another change.
func current(state map[string]string) map[string]string {
	out := maps.Clone(state)
	now := filepath.Base(state[config.CurrentLink])
	maps.DeleteFunc(out, func(p, what string) bool { return what == "release" && filepath.Base(p) != now })
	return out
}

// change is one operation on the site, from one condition to another.
type change struct {
	name   string
	before func(s *site)                            // brings the fresh machine to where it begins
	do     func(s *site, ctx context.Context) error // as often as wanted
	undo   func(s *site, ctx context.Context) error // back to before
}

func changes() []change {
	first := func(s *site) resource.PropertyMap { return s.node(s.b1, s.d1, "one") }
	installed := func(s *site) {
		ctx, cancel := s.process()
		defer cancel()
		_, err := s.create(ctx, first(s))
		s.must(err)
	}
	conf := func(s *site) resource.PropertyMap {
		in := s.node(s.b1, s.d1, "two")
		delete(in["files"].ObjectValue(), "/etc/dcos/pki/token")
		in["files"].ObjectValue()["/etc/dcos/more/x"] = in["files"].ObjectValue()["/etc/dcos/agent.json"]
		return in
	}
	release := func(s *site) resource.PropertyMap { return s.node(s.b2, s.d2, "two") }
	units := func(s *site) resource.PropertyMap {
		in := first(s)
		in["units"] = resource.NewProperty(in["units"].ArrayValue()[:1])
		delete(in["files"].ObjectValue(), "/etc/systemd/system/dcos-agent.service")
		return in
	}
	to := func(in func(*site) resource.PropertyMap) change {
		return change{before: installed,
			do:   func(s *site, ctx context.Context) error { return s.update(ctx, first(s), in(s)) },
			undo: func(s *site, ctx context.Context) error { return s.update(ctx, in(s), first(s)) }}
	}
	named := func(name string, c change) change { c.name = name; return c }
	return []change{
		{name: "first install", before: func(*site) {},
			do:   func(s *site, ctx context.Context) error { _, err := s.create(ctx, first(s)); return err },
			undo: func(s *site, ctx context.Context) error { return s.delete(ctx, first(s)) }},
		named("configuration", to(conf)),
		named("release", to(release)),
		named("units", to(units)),
		{name: "delete", before: installed,
			do:   func(s *site, ctx context.Context) error { return s.delete(ctx, first(s)) },
			undo: func(s *site, ctx context.Context) error { _, err := s.create(ctx, first(s)); return err }},
	}
}

var errKilled = errors.New("killed")

// The installer is killed at every point of every change: before and after
// every call of the host, and within those that have parts. Running it again
// ends as if nothing had happened, and so does going back.
func TestKilledAnywhere(t *testing.T) {
	for _, c := range changes() {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, cache := newSite(t), t.TempDir()
				fresh := func() { s.use(emulated.NewMachine("a1", "192.0.2.11"), cache); c.before(s) }
				run := func(f func(*site, context.Context) error) error {
					ctx, cancel := s.process()
					defer cancel()
					return f(s, ctx)
				}
				fresh()
				before, from := s.state(), s.m.Points()
				s.must(run(c.do))
				after, points := s.state(), s.m.Points()-from
				if points < 10 || cmp.Equal(before, after) {
					t.Fatalf("only %d points", points)
				}
				for n := 1; n <= points; n++ {
					for _, back := range []bool{false, true} {
						fresh()
						ctx, cancel := s.process()
						from, at := s.m.Points(), ""
						s.m.Fault = func(p emulated.Point) error {
							if p.N-from < n {
								return nil
							}
							if at == "" {
								at = p.What
							}
							cancel() // a dead installer does nothing more
							return errKilled
						}
						if err := c.do(s, ctx); err == nil {
							t.Fatalf("point %d: not killed", n)
						}
						s.m.Fault = nil
						want, again := after, c.do
						if back {
							want, again = before, c.undo
						}
						if err := run(again); err != nil {
							t.Fatalf("killed at point %d (%s), back=%t: then %v", n, at, back, err)
						}
						if d := cmp.Diff(current(want), current(s.state())); d != "" {
							t.Fatalf("killed at point %d (%s), back=%t:\n%s", n, at, back, d)
						}
					}
				}
			})
		})
	}
}

// One call fails, at every point of every change of a host that works: the
// host is what it was before, and says so. When all calls fail from there on,
// the next run ends well.
func TestFailsAnywhere(t *testing.T) {
	for _, c := range changes()[1:4] {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, cache := newSite(t), t.TempDir()
				fresh := func() { s.use(emulated.NewMachine("a1", "192.0.2.11"), cache); c.before(s) }
				fresh()
				before, from := s.state(), s.m.Points()
				ctx, cancel := s.process()
				s.must(c.do(s, ctx))
				cancel()
				after, points := s.state(), s.m.Points()-from
				for n := 1; n <= points; n++ {
					for _, lasting := range []bool{false, true} {
						fresh()
						ctx, cancel := s.process()
						from, at := s.m.Points(), ""
						s.m.Fault = func(p emulated.Point) error {
							if k := p.N - from; k == n || lasting && k > n {
								if at == "" {
									at = p.What
								}
								return fault.Newf("write", fault.Internal, "input/output error")
							}
							return nil
						}
						err := c.do(s, ctx)
						cancel()
						if err == nil {
							t.Fatalf("point %d: no error", n)
						}
						if !lasting && at != "open" {
							if !providers.IsUntouched(err) {
								t.Fatalf("point %d (%s): not taken back: %v", n, at, err)
							}
							if d := cmp.Diff(before, s.state()); d != "" {
								t.Fatalf("point %d (%s): not as before:\n%s", n, at, d)
							}
						}
						s.m.Fault = nil
						ctx, cancel = s.process()
						if err := c.do(s, ctx); err != nil {
							t.Fatalf("point %d (%s): again: %v", n, at, err)
						}
						cancel()
						if d := cmp.Diff(after, s.state()); d != "" {
							t.Fatalf("point %d (%s): again:\n%s", n, at, d)
						}
					}
				}
			})
		})
	}
}

func TestFirstInstallThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		initial := s.m.Picture()
		s.m.Breaks = func(unit, _ string, read func(string) string) string {
			if unit == "dcos-agent.service" && read("/etc/dcos/agent.json") == "bad" {
				return "cannot open the gates"
			}
			return ""
		}
		ctx, cancel := s.process()
		defer cancel()
		res, err := s.create(ctx, s.node(s.b1, s.d1, "bad"))
		ie := new(plugin.InitError)
		if !errors.As(err, &ie) || res.ID == "" || res.Properties["active"].BoolValue() {
			t.Fatalf("%+v, %v", res, err)
		}
		for _, want := range []string{"install host a1: verify: start dcos-agent.service", "exit status 3", "cannot open the gates", "go on:", "undo:", "dcos-install destroy", "see:"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("no %q in %v", want, err)
			}
		}
		// The repaired configuration goes on; what was done is not done again.
		if err := s.update(ctx, s.node(s.b1, s.d1, "bad"), s.node(s.b1, s.d1, "good")); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(map[string]int{"dcos-containerd.service": 1, "dcos-agent.service": 2}, s.m.Starts()); d != "" {
			t.Error(d)
		}
		if slices.Contains(s.steps, "check host") && !slices.Contains(s.steps[:1], "check host") {
			t.Error(s.steps)
		}
		// Deleting leaves nothing at all.
		s.must(s.delete(ctx, s.node(s.b1, s.d1, "good")))
		if d := cmp.Diff(initial, s.m.Picture()); d != "" {
			t.Error(d)
		}
	})
}

func TestUpdateThatFailsIsTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.m.Breaks = func(unit, _ string, read func(string) string) string {
			if unit == "dcos-agent.service" && read("/etc/dcos/agent.json") == "bad" {
				return "cannot open the gates"
			}
			return ""
		}
		ctx, cancel := s.process()
		defer cancel()
		old := s.node(s.b1, s.d1, "good")
		_, err := s.create(ctx, old)
		s.must(err)
		before, starts := s.state(), s.m.Starts()
		err = s.update(ctx, old, s.node(s.b2, s.d2, "bad"))
		if !providers.IsUntouched(err) {
			t.Fatal(err)
		}
		for _, want := range []string{"install host a1: verify", "cannot open the gates", "Host a1 was taken back to what it was, and works as before"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("no %q in %v", want, err)
			}
		}
		if d := cmp.Diff(before, s.state()); d != "" {
			t.Error(d)
		}
		// containerd is the same in both releases: it ran through all of it.
		starts["dcos-agent.service"] += 2
		if d := cmp.Diff(starts, s.m.Starts()); d != "" {
			t.Error(d)
		}
		// A host that leaves the cluster for it is taken back, too.
		lost := false
		s.m.Command = func(argv []string) (host.Output, bool) {
			if strings.Join(argv[1:], " ") == "status" && lost {
				return host.Output{Code: 1, Stderr: "dcosd: not registered with a master\n"}, true
			}
			return host.Output{}, false
		}
		s.m.Breaks = func(_, _ string, read func(string) string) string {
			lost = read("/etc/dcos/agent.json") == "lonely"
			return ""
		}
		start := time.Now()
		err = s.update(ctx, old, s.node(s.b1, s.d1, "lonely"))
		if !providers.IsUntouched(err) || !strings.Contains(err.Error(), "not within 1m0s: not registered with a master") || time.Since(start) > 2*time.Minute {
			t.Error(err)
		}
		if d := cmp.Diff(before, s.state()); d != "" {
			t.Error(d)
		}
	})
}

// What is written is written where docs/hosts.md says.
func TestWritesOnlyWhereDocumented(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		ctx, cancel := s.process()
		defer cancel()
		in := s.node(s.b1, s.d1, "one")
		_, err := s.create(ctx, in)
		s.must(err)
		s.must(s.update(ctx, in, s.node(s.b2, s.d2, "two")))
		s.must(s.delete(ctx, in))
		doc, err := os.ReadFile("../../docs/hosts.md")
		s.must(err)
		var documented []string
		for l := range strings.Lines(string(doc)) {
			if cell, ok := strings.CutPrefix(l, "| `/"); ok {
				path, _, _ := strings.Cut(cell, "`")
				documented = append(documented, "/"+path)
			}
		}
		for _, p := range s.m.Written() {
			if !slices.ContainsFunc(documented, func(d string) bool {
				pattern, dir := strings.CutSuffix(d, "/")
				ok, _ := filepath.Match(pattern, p)
				return ok || dir && (p == pattern || strings.HasPrefix(p, d))
			}) {
				t.Errorf("%s is written, and docs/hosts.md does not say so (%q)", p, documented)
			}
		}
	})
}

// Removing from a machine that others use too.
func TestDeleteLeavesWhatIsNotOurs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		theirs := func(at string) { s.m.Put(at, host.File{Data: []byte("theirs"), Mode: 0o640, UID: 5, GID: 6}) }
		for _, p := range []string{"/etc/dcos/agent.json", "/etc/dcos/site.conf", config.VarDir + "/lost+found/x", "/opt/dcos/their-tool", config.UnitDir + "/dcos-agent.service"} {
			theirs(p)
		}
		initial := s.m.Picture()
		ctx, cancel := s.process()
		defer cancel()
		in := s.node(s.b1, s.d1, "one")
		_, err := s.create(ctx, in)
		s.must(err)
		theirs("/etc/systemd/resolved.conf.d/theirs.conf")
		theirs("/etc/dcos/pki/daemon-made")
		s.must(s.delete(ctx, in))
		want := maps.Clone(initial)
		want["/etc/systemd/resolved.conf.d"] = "directory 755"
		want["/etc/systemd/resolved.conf.d/theirs.conf"] = `file 640 5:6 "theirs"`
		if d := cmp.Diff(want, s.m.Picture()); d != "" {
			t.Error(d)
		}
		if n := strings.Count(strings.Join(s.m.Ran(), "\n"), "try-reload-or-restart systemd-resolved.service"); n != 2 {
			t.Errorf("resolved was told %d times", n)
		}
	})
}

func TestDeleteOfAMachineThatDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		ctx, cancel := s.process()
		defer cancel()
		in := s.node(s.b1, s.d1, "one")
		_, err := s.create(ctx, in)
		s.must(err)
		s.m.Power(false)
		err = s.delete(ctx, in)
		if !fault.Is(err, fault.Unavailable) {
			t.Fatal(err)
		}
		for _, want := range []string{"remove from host a1", "left behind", "-abandon a1", "systemctl disable --now dcos-agent.service dcos-containerd.service", "rm -rf /etc/dcos"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("no %q in %v", want, err)
			}
		}
		p := bootstrap.New(bootstrap.Options{Open: emulated.NewWorld(s.m).Open, Abandon: func(name string) bool { return name == "a1" }})
		if _, err := p.Delete(ctx, plugin.DeleteRequest{URN: urn(bootstrap.TypeNode, "a1"), Type: bootstrap.TypeNode, ID: "x", Inputs: in}); err != nil || !strings.Contains(fmt.Sprint(s.messages), "given up") {
			t.Error(err, s.messages)
		}
		// A local host that is down goes with its directory.
		in["host"] = resource.NewProperty(resource.PropertyMap{"kind": resource.NewProperty("local"), "dir": resource.NewProperty("/d")})
		s.must(s.delete(ctx, in))
		// Another machine in its place is left alone.
		s.m.Power(true)
		in["host"] = resource.NewProperty(resource.PropertyMap{"kind": resource.NewProperty("ssh"), "address": resource.NewProperty("192.0.2.11"), "machineId": resource.NewProperty("ffff")})
		before := s.m.Picture()
		s.must(s.delete(ctx, in))
		if d := cmp.Diff(before, s.m.Picture()); d != "" || !strings.Contains(fmt.Sprint(s.messages), "another machine answers") {
			t.Error(d, s.messages)
		}
		if err := s.update(ctx, in, in); err == nil || !strings.Contains(err.Error(), "another machine answers") {
			t.Error(err)
		}
	})
}

// How one logs in does not matter to what is installed; where does.
func TestDiffOfHosts(t *testing.T) {
	s := newSite(t)
	with := func(changes map[string]any) resource.PropertyMap {
		h := resource.NewPropertyMapFromMap(map[string]any{"kind": "ssh", "address": "192.0.2.11", "port": 22, "user": "root", "keyFile": "/k", "bootId": "1", "machineId": "m"})
		for k, v := range resource.NewPropertyMapFromMap(changes) {
			h[k] = v
		}
		in := s.node("b", "d", "one")
		in["host"] = resource.NewProperty(h)
		return in
	}
	for name, c := range map[string]struct {
		change           map[string]any
		changes, replace bool
	}{
		"nothing":               {nil, false, false},
		"another user and key":  {map[string]any{"user": "admin", "keyFile": "/l", "sudo": "passwordless", "hostKey": "k"}, false, false},
		"started anew":          {map[string]any{"bootId": "2"}, true, false},
		"the same, elsewhere":   {map[string]any{"address": "192.0.2.99"}, true, false},
		"another, in its place": {map[string]any{"machineId": "n"}, true, true},
		"one not known yet":     {map[string]any{"machineId": providers.Unknown()}, true, false},
	} {
		d, err := s.p.Diff(t.Context(), plugin.DiffRequest{URN: urn(bootstrap.TypeNode, "a1"), Type: bootstrap.TypeNode, OldInputs: with(nil), NewInputs: with(c.change)})
		if err != nil || (d.Changes == plugin.DiffSome) != c.changes || (len(d.ReplaceKeys) > 0) != c.replace {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
	}
}

// The number of calls decides how long hosts far away take.
func TestCallsPerHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		ctx, cancel := s.process()
		defer cancel()
		in := s.node(s.b1, s.d1, "one")
		count := func() int {
			n := 0
			for _, c := range s.m.Calls() {
				n += c
			}
			return n
		}
		_, err := s.create(ctx, in)
		s.must(err)
		first := count()
		s.must(s.update(ctx, in, s.node(s.b1, s.d1, "two")))
		second := count() - first
		if _, err := s.p.Read(ctx, plugin.ReadRequest{URN: urn(bootstrap.TypeNode, "a1"), Type: bootstrap.TypeNode, ID: "x", Inputs: s.node(s.b1, s.d1, "two")}); err != nil {
			t.Fatal(err)
		}
		third := count() - first - second
		t.Logf("first install %d, one file %d, look %d: %v", first, second, third, s.m.Calls())
		if first > 32 || second > 26 || third > 1 {
			t.Errorf("first install %d, one file %d, look %d: %v", first, second, third, s.m.Calls())
		}
	})
}
