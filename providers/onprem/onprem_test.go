package onprem_test

import (
	"context"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"

	"dcos.example/dcos/providers"
	"dcos.example/dcos/providers/conformance"
	"dcos.example/dcos/providers/onprem"
	"dcos.example/dcos/runtime/fault"
)

// machine is one in the fake world.
type machine struct {
	id, boot, key string
	off           bool
	say           string // further lines
}

func (m machine) text() string {
	return fmt.Sprintf(`uid 0
init systemd
systemd yes
os ID=debian
os VERSION_ID="12"
os PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
machine %s
boot %s
arch x86_64
kernel Linux 6.1.0
cpus 4
memory 8388608
disk 26214400 4096
hostname box
nameserver 10.0.0.2
%s`, m.id, m.boot, m.say)
}

// world is machines by address, and what the operator knows of their keys.
type world struct {
	mu       sync.Mutex
	machines map[string]*machine
	known    map[string]string // address → key
	asked    []string          // "name address with hostKey"
}

func newWorld() *world {
	id := func(c string) string { return strings.Repeat(c, 32) }
	return &world{
		machines: map[string]*machine{
			"10.0.0.11": {id: id("a"), boot: "b1", key: "ssh-ed25519 AAAAa"},
			"10.0.0.12": {id: id("b"), boot: "b1", key: "ssh-ed25519 AAAAb"},
		},
		known: map[string]string{"10.0.0.11": "ssh-ed25519 AAAAa", "10.0.0.12": "ssh-ed25519 AAAAb"},
	}
}

func (w *world) ask(ctx context.Context, name string, c resource.PropertyMap, script string) (onprem.Answer, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return onprem.Answer{}, fault.New("connect", fault.Unavailable, context.Cause(ctx))
	}
	addr, pin := c["address"].StringValue(), ""
	if v := c["hostKey"]; v.IsString() {
		pin = v.StringValue()
	}
	w.asked = append(w.asked, strings.TrimSpace(name+" "+addr+" "+pin))
	m := w.machines[addr]
	if m == nil || m.off {
		return onprem.Answer{}, fault.Newf("connect to "+addr, fault.Unavailable, "no route")
	}
	switch {
	case pin != "" && pin != m.key:
		return onprem.Answer{}, fault.Newf("connect to "+addr, fault.NotFound, "it is not the machine that it was")
	case pin == "" && w.known[addr] != m.key && (w.known[addr] != "" || !c["trustOnFirstUse"].IsBool()):
		return onprem.Answer{}, fault.Newf("connect to "+addr, fault.Denied, "it shows another key")
	case pin == "":
		w.known[addr] = m.key
	}
	if !strings.Contains(script, "machine-id") {
		return onprem.Answer{}, fault.Newf("run", fault.Internal, "what is this?")
	}
	return onprem.Answer{Text: m.text(), HostKey: m.key}, nil
}

func inputs(name, addr string) resource.PropertyMap {
	return resource.PropertyMap{
		"cluster": resource.NewProperty("demo"), "name": resource.NewProperty(name), "role": resource.NewProperty("agent"), "address": resource.NewProperty(addr),
		"connection": resource.NewProperty(resource.PropertyMap{
			"kind": resource.NewProperty("ssh"), "address": resource.NewProperty(addr), "port": resource.NewProperty(22.0),
			"password": resource.MakeSecret(resource.NewProperty("s3cret")),
		}),
	}
}

func with(m resource.PropertyMap, key string, v resource.PropertyValue) resource.PropertyMap {
	m = m.Copy()
	at, name, nested := strings.Cut(key, ".")
	if !nested {
		m[resource.PropertyKey(key)] = v
		return m
	}
	sub := maps.Clone(m[resource.PropertyKey(at)].ObjectValue())
	sub[resource.PropertyKey(name)] = v
	m[resource.PropertyKey(at)] = resource.NewProperty(sub)
	return m
}

func TestConforms(t *testing.T) {
	conformance.Run(t, func(t *testing.T) conformance.Subject {
		w := newWorld()
		return conformance.Subject{
			Provider: onprem.New(w.ask), Type: onprem.TypeHost, Name: "a1",
			Inputs:  inputs("a1", "10.0.0.11"),
			Update:  with(inputs("a1", "10.0.0.11"), "connection.user", resource.NewProperty("admin")),
			Replace: inputs("a1", "10.0.0.12"),
			// It makes nothing, so there is nothing to count. Another machine at
			// the same place is how one vanishes.
			Vanish: func(*testing.T, resource.ID) {
				m := &machine{id: strings.Repeat("c", 32), boot: "b9", key: "ssh-ed25519 AAAAc"}
				w.machines["10.0.0.11"], w.known["10.0.0.11"] = m, m.key
			},
		}
	})
}

// user does to a provider what the engine does.
type user struct {
	*testing.T
	p *onprem.Provider
}

func urn(name string) resource.URN { return resource.NewURN("s", "p", "", onprem.TypeHost, name) }

func (u user) create(name string, in resource.PropertyMap) (plugin.CreateResponse, error) {
	return u.p.Create(u.Context(), plugin.CreateRequest{URN: urn(name), Type: onprem.TypeHost, Properties: in})
}

func (u user) made(name string, in resource.PropertyMap) plugin.CreateResponse {
	u.Helper()
	c, err := u.create(name, in)
	if err != nil {
		u.Fatal(err)
	}
	return c
}

func (u user) read(name string, c plugin.CreateResponse, in resource.PropertyMap) plugin.ReadResponse {
	u.Helper()
	r, err := u.p.Read(u.Context(), plugin.ReadRequest{URN: urn(name), Type: onprem.TypeHost, ID: c.ID, Inputs: in, State: c.Properties})
	if err != nil {
		u.Fatal(err)
	}
	return r
}

func (u user) diff(name string, old, out, next resource.PropertyMap) (plugin.DiffResponse, error) {
	return u.p.Diff(u.Context(), plugin.DiffRequest{URN: urn(name), Type: onprem.TypeHost, OldInputs: old, OldOutputs: out, NewInputs: next})
}

func TestOutputs(t *testing.T) {
	w := newWorld()
	u := user{t, onprem.New(w.ask)}
	c := u.made("a1", inputs("a1", "10.0.0.11"))
	conn := c.Properties["connection"].ObjectValue()
	if conn["hostKey"].StringValue() != "ssh-ed25519 AAAAa" || !conn["password"].IsSecret() || conn["kind"].StringValue() != "ssh" {
		t.Errorf("connection is %v", conn)
	}
	f := c.Properties["facts"].ObjectValue()
	got := fmt.Sprint(f["family"].StringValue(), f["osVersion"].StringValue(), f["cpus"].NumberValue(), f["memoryMiB"].NumberValue(), f["diskMiB"].NumberValue(), f["resolver"].StringValue(), f["resolvers"])
	if want := "debian124 8192 102400file{[{10.0.0.2}]}"; strings.ReplaceAll(got, " ", "") != strings.ReplaceAll(want, " ", "") {
		t.Errorf("facts: %s, want %s", got, want)
	}

	// A reboot is seen; other resolvers are not taken over.
	w.machines["10.0.0.11"].boot, w.machines["10.0.0.11"].say = "b2", "nameserver 10.9.9.9"
	r := u.read("a1", c, inputs("a1", "10.0.0.11"))
	if r.Outputs["bootId"].StringValue() != "b2" || !r.Outputs["facts"].DeepEquals(c.Properties["facts"]) {
		t.Errorf("after a reboot: %v", r.Outputs)
	}
	if last := w.asked[len(w.asked)-1]; last != "a1 10.0.0.11 ssh-ed25519 AAAAa" {
		t.Errorf("the key of the last time is not asked for: %s", last)
	}
}

func TestTwoNamesOneMachine(t *testing.T) {
	w := newWorld()
	w.machines["10.0.0.12"].id = w.machines["10.0.0.11"].id
	u := user{t, onprem.New(w.ask)}
	c := u.made("m1", inputs("m1", "10.0.0.11"))
	_, err := u.create("a2", inputs("a2", "10.0.0.12"))
	if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "a2 and m1 are the same machine") {
		t.Errorf("a copy of a disk: %v", err)
	}
	// Of two that meet at the same time, one is told.
	u = user{t, onprem.New(w.ask)}
	errs := make([]error, 2)
	var wg sync.WaitGroup
	for i, in := range []resource.PropertyMap{inputs("m1", "10.0.0.11"), inputs("a2", "10.0.0.12")} {
		wg.Go(func() { _, errs[i] = u.create([]string{"m1", "a2"}[i], in) })
	}
	wg.Wait()
	if n := len(slices.DeleteFunc(errs, func(e error) bool { return e == nil })); n != 1 {
		t.Errorf("%d of 2 are refused", n)
	}
	// One that was looked at in this run counts too; one that was removed does not.
	u = user{t, onprem.New(w.ask)}
	u.read("m1", c, inputs("m1", "10.0.0.11"))
	if _, err := u.create("a2", inputs("a2", "10.0.0.12")); err == nil {
		t.Error("a copy of a recorded host is accepted")
	}
	if _, err := u.p.Delete(t.Context(), plugin.DeleteRequest{URN: urn("m1"), Type: onprem.TypeHost, ID: c.ID}); err != nil {
		t.Fatal(err)
	}
	u.made("a2", inputs("a2", "10.0.0.12"))
}

func TestMoves(t *testing.T) {
	w := newWorld()
	u := user{t, onprem.New(w.ask)}
	old, next := inputs("a1", "10.0.0.11"), inputs("a1", "10.0.0.99")
	c := u.made("a1", old)

	if _, err := u.diff("a1", old, c.Properties, next); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "same machine") {
		t.Errorf("to where nothing answers: %v", err)
	}
	// The same machine: its key is known, though not at that address.
	w.machines["10.0.0.99"] = w.machines["10.0.0.11"]
	d, err := u.diff("a1", old, c.Properties, next)
	if err != nil || d.Changes != plugin.DiffSome || len(d.ReplaceKeys) > 0 {
		t.Fatalf("a new address: %+v %v", d, err)
	}
	up, err := u.p.Update(t.Context(), plugin.UpdateRequest{URN: urn("a1"), Type: onprem.TypeHost, ID: c.ID, OldInputs: old, OldOutputs: c.Properties, NewInputs: next})
	if err != nil || up.Properties["connection"].ObjectValue()["address"].StringValue() != "10.0.0.99" {
		t.Fatalf("%v %v", up, err)
	}
	// Another machine takes its place. Planned in place and found to be another,
	// nothing is done.
	next = inputs("a1", "10.0.0.12")
	if d, err = u.diff("a1", old, c.Properties, next); err != nil || !slices.Equal(d.ReplaceKeys, []resource.PropertyKey{"connection"}) || d.DeleteBeforeReplace {
		t.Errorf("another machine: %+v %v", d, err)
	}
	if _, err := u.p.Update(t.Context(), plugin.UpdateRequest{URN: urn("a1"), Type: onprem.TypeHost, ID: c.ID, OldInputs: old, OldOutputs: c.Properties, NewInputs: next}); !fault.Is(err, fault.Conflict) {
		t.Errorf("update onto another machine: %v", err)
	}
	// Another way to log in asks nobody.
	before := len(w.asked)
	if d, err := u.diff("a1", old, c.Properties, with(old, "connection.user", resource.NewProperty("x"))); err != nil || d.Changes != plugin.DiffSome || len(d.ReplaceKeys) > 0 || len(w.asked) != before {
		t.Errorf("another user: %+v %v", d, err)
	}
}

func TestDownAndBack(t *testing.T) {
	w := newWorld()
	u := user{t, onprem.New(w.ask)}
	in := inputs("a1", "10.0.0.11")
	c := u.made("a1", in)
	w.machines["10.0.0.11"].off = true
	r := u.read("a1", c, in)
	if r.ID != c.ID || r.Outputs["online"].BoolValue() || r.Outputs["bootId"].StringValue() != "b1" {
		t.Fatalf("off: %+v", r)
	}
	d, err := u.diff("a1", in, r.Outputs, in)
	if err != nil || d.Changes != plugin.DiffSome || len(d.ReplaceKeys) > 0 {
		t.Fatalf("off: %+v %v", d, err)
	}
	update := func() (plugin.UpdateResponse, error) {
		return u.p.Update(t.Context(), plugin.UpdateRequest{URN: urn("a1"), Type: onprem.TypeHost, ID: c.ID, OldInputs: in, OldOutputs: r.Outputs, NewInputs: in})
	}
	if _, err := update(); !fault.Is(err, fault.Unavailable) {
		t.Errorf("still off: %v", err)
	}
	w.machines["10.0.0.11"].off, w.machines["10.0.0.11"].boot = false, "b2"
	if up, err := update(); err != nil || !up.Properties["online"].BoolValue() || up.Properties["bootId"].StringValue() != "b2" {
		t.Errorf("back: %+v %v", up, err)
	}
}

// A machine that was installed anew has another key. It is believed only when
// the operator says so.
func TestAnotherKey(t *testing.T) {
	w := newWorld()
	u := user{t, onprem.New(w.ask)}
	in := with(inputs("a1", "10.0.0.11"), "connection.trustOnFirstUse", resource.NewProperty(true))
	c := u.made("a1", in)
	w.machines["10.0.0.11"].key = "ssh-ed25519 AAAAz"
	refused := func(when string) {
		t.Helper()
		r := u.read("a1", c, in)
		if r.ID != c.ID || r.Outputs["online"].BoolValue() || !strings.Contains(r.Outputs["problem"].StringValue(), "another key") {
			t.Errorf("%s: %+v", when, r)
		}
		if _, err := u.p.Update(t.Context(), plugin.UpdateRequest{URN: urn("a1"), Type: onprem.TypeHost, ID: c.ID, OldInputs: in, OldOutputs: r.Outputs, NewInputs: in}); !fault.Is(err, fault.Denied) {
			t.Errorf("%s: %v", when, err)
		}
	}
	refused("another key")
	delete(w.known, "10.0.0.11") // another operator, who knows no keys
	refused("another key must not be trusted on sight")
	w.known["10.0.0.11"] = "ssh-ed25519 AAAAz"
	r := u.read("a1", c, in)
	if !r.Outputs["online"].BoolValue() || r.Outputs["connection"].ObjectValue()["hostKey"].StringValue() != "ssh-ed25519 AAAAz" {
		t.Errorf("after the operator took the new key over: %+v", r)
	}
}

func TestUnfit(t *testing.T) {
	for say, want := range map[string]string{
		"kernel FreeBSD 14": "hosts run Linux",
		"machine ":          "systemd-machine-id-setup",
		"machine uninit":    "is none",
		"boot ":             "boot id",
	} {
		w := newWorld()
		w.machines["10.0.0.11"].say = say
		if _, err := (user{t, onprem.New(w.ask)}).create("a1", inputs("a1", "10.0.0.11")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", say, err)
		}
	}
}

func TestCheck(t *testing.T) {
	r, err := onprem.New(nil).Check(t.Context(), plugin.CheckRequest{Type: onprem.TypeHost, News: resource.PropertyMap{
		"name": resource.NewProperty("a1"), "role": resource.NewProperty("agent"), "address": resource.NewProperty("a1.example.com"),
		"connection": resource.NewProperty(resource.PropertyMap{}), "colour": resource.NewProperty("red"),
	}})
	var got []string
	for _, f := range r.Failures {
		got = append(got, string(f.Property)+" "+f.Reason)
	}
	slices.Sort(got)
	want := []string{`address "a1.example.com" is not an IPv4 address`, "cluster is missing", "colour is not a property of this resource", "connection.address is missing"}
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Error(err, d)
	}
}

func TestResolvers(t *testing.T) {
	base := (&machine{id: strings.Repeat("a", 32), boot: "b"}).text()
	for name, c := range map[string]struct{ say, want string }{
		"of its own":          {"nameserver fd00::53\nnameserver fe80::1%eth0\nnameserver 10.0.0.2", "file 10.0.0.2 fd00::53"},
		"ours":                {"nameserver 198.51.100.1\nnameserver 10.1.1.1\nnameserver 10.0.0.2", "file 10.0.0.2 10.1.1.1"},
		"of systemd-resolved": {"resolver resolved\nnameserver 198.51.100.1\nnameserver 10.0.0.3", "resolved 10.0.0.2 10.0.0.3"},
	} {
		got, err := onprem.Resolvers(base + c.say + "\n")
		if err != nil || got != c.want {
			t.Errorf("%s: %q %v, want %q", name, got, err, c.want)
		}
	}
}

// What runs on machines is the shell that POSIX has.
func TestScript(t *testing.T) {
	if out, err := exec.Command("sh", "-n", "-c", onprem.Script).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	out, err := exec.Command("sh", "-c", onprem.Script).Output()
	for _, key := range []string{"boot ", "arch ", "kernel Linux ", "cpus ", "memory ", "disk ", "hostname "} {
		if err != nil || !strings.Contains("\n"+string(out), "\n"+key) {
			t.Errorf("%v: no %q in\n%s", err, key, out)
		}
	}
}

var _ providers.Provider = (*onprem.Provider)(nil)
