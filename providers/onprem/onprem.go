// Package onprem is the provider of machines of one's own: machines that are
// there already and that one can log in to. It makes nothing and removes
// nothing. A host of it is a machine that was logged in to, recognised by its
// machine-id, with what it says of itself.
//
//	onprem:host:Host
//
// What logs in is passed in, so the package knows nothing of SSH.
package onprem

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"

	"dcos.example/dcos/providers"
	"dcos.example/dcos/providers/input"
	"dcos.example/dcos/runtime/fault"
)

// TypeHost is the type of the one kind of resource.
const TypeHost = tokens.Type("onprem:host:Host")

// Ask logs in to the machine that a connection leads to, runs a script in its
// shell as root, and returns what that printed. Name is the host's, for
// errors. fault.Unavailable: it cannot be reached; fault.NotFound: the machine
// with the key in hostKey is not there; fault.Denied: it is not known, or does
// not let us in.
type Ask func(ctx context.Context, name string, connection resource.PropertyMap, script string) (Answer, error)

// Answer is what a machine said.
type Answer struct {
	Text    string
	HostKey string // that it proved to have, as in authorized_keys; "" if it has none
}

// Provider knows machines of one's own.
type Provider struct {
	ask Ask

	mu    sync.Mutex
	taken map[string]string // machine-id → name of the host that it is
}

var _ providers.Provider = (*Provider)(nil)

// New returns a provider of one cluster's machines.
func New(ask Ask) *Provider { return &Provider{ask: ask, taken: map[string]string{}} }

func wrongType(t tokens.Type) error {
	return fault.Newf("use provider onprem", fault.Invalid, "there is no resource type %s, only %s", t, TypeHost)
}

// host are the inputs of a Host.
type host struct {
	name       string
	connection resource.PropertyMap // without the key of the machine; secrets marked
}

func read(m resource.PropertyMap) (host, *input.Reader) {
	r := input.Read(m)
	h := host{name: r.Text("name")}
	r.Text("cluster")
	r.Text("role")
	if a := r.Text("address"); a != "" {
		if ip, err := netip.ParseAddr(a); err != nil || !ip.Is4() {
			r.Fail("address", "%q is not an IPv4 address", a)
		}
	}
	c := r.Object("connection") // what else is in it whoever logs in knows
	if c.Text("address"); !c.Unknown() {
		if v, known := input.Plain(m["connection"]); known && v.IsObject() {
			h.connection = v.ObjectValue()
		}
	}
	return h, r
}

// Check implements providers.Provider.
func (p *Provider) Check(_ context.Context, req plugin.CheckRequest) (plugin.CheckResponse, error) {
	if req.Type != TypeHost {
		return plugin.CheckResponse{}, wrongType(req.Type)
	}
	_, r := read(req.News)
	return plugin.CheckResponse{Properties: req.News, Failures: r.Failures()}, nil
}

// Diff implements providers.Provider. When a host is to be reached at another
// place, it asks there who it is: the same machine with a new address is
// changed in place, another one takes its place.
func (p *Provider) Diff(ctx context.Context, req plugin.DiffRequest) (plugin.DiffResponse, error) {
	if req.Type != TypeHost {
		return plugin.DiffResponse{}, wrongType(req.Type)
	}
	d := providers.DiffInputs(req, "cluster", "name")
	next, r := read(req.NewInputs)
	if was, _ := read(req.OldInputs); !r.Unknown() && len(d.ReplaceKeys) == 0 && moved(was.connection, next.connection) {
		s, err := p.look(ctx, next, pinned(req.OldOutputs), true)
		if err != nil {
			return d, fault.Newf("find out whether "+next.name+" is the same machine at its new address", fault.KindOf(err), "%w", err)
		}
		if s.machine != text(req.OldOutputs["machineId"]) {
			d.ReplaceKeys = append(d.ReplaceKeys, "connection")
		}
	}
	if v := req.OldOutputs["online"]; v.IsBool() && !v.BoolValue() {
		d.Changes = plugin.DiffSome
		d.ChangedKeys = append(d.ChangedKeys, "online")
		if d.DetailedDiff == nil {
			d.DetailedDiff = map[string]plugin.PropertyDiff{}
		}
		d.DetailedDiff["online"] = plugin.PropertyDiff{Kind: plugin.DiffUpdate}
	}
	return d, nil
}

// moved reports whether two connections end at different places.
func moved(a, b resource.PropertyMap) bool {
	differ := func(a, b resource.PropertyMap) bool {
		for _, k := range []resource.PropertyKey{"address", "port"} {
			x, _ := input.Plain(a[k])
			y, _ := input.Plain(b[k])
			if !x.DeepEquals(y) {
				return true
			}
		}
		return false
	}
	through := func(m resource.PropertyMap) resource.PropertyMap {
		if v, known := input.Plain(m["bastion"]); known && v.IsObject() {
			return v.ObjectValue()
		}
		return nil
	}
	return differ(a, b) || differ(through(a), through(b))
}

// Create implements providers.Provider.
func (p *Provider) Create(ctx context.Context, req plugin.CreateRequest) (res plugin.CreateResponse, err error) {
	h, err := p.valid(req.Type, req.URN, req.Properties)
	if err != nil {
		return res, err
	}
	if req.Preview {
		res.Properties = resource.PropertyMap{"address": req.Properties["address"], "online": resource.NewProperty(true), "connection": foretold(h.connection)}
		return res, nil // the rest only the machine knows
	}
	s, err := p.logIn(ctx, h, "", false)
	if err != nil {
		return res, err
	}
	if err := p.take(h.name, s.machine); err != nil {
		return res, err
	}
	return plugin.CreateResponse{ID: id(s.machine), Properties: s.outputs(req.Properties, nil)}, nil
}

func id(machine string) resource.ID { return resource.ID("machine:" + machine) }

// foretold is a connection before the key of the machine is known.
func foretold(c resource.PropertyMap) resource.PropertyValue {
	if c == nil {
		return providers.Unknown()
	}
	c = c.Copy()
	c["hostKey"] = providers.Unknown()
	return resource.NewProperty(c)
}

func (p *Provider) valid(t tokens.Type, u resource.URN, m resource.PropertyMap) (host, error) {
	if t != TypeHost {
		return host{}, wrongType(t)
	}
	h, r := read(m)
	if fs := r.Failures(); len(fs) > 0 {
		return h, fault.Newf("log in to "+u.Name(), fault.Invalid, "%s %s", fs[0].Property, fs[0].Reason)
	}
	return h, nil
}

// Update implements providers.Provider.
func (p *Provider) Update(ctx context.Context, req plugin.UpdateRequest) (res plugin.UpdateResponse, err error) {
	h, err := p.valid(req.Type, req.URN, req.NewInputs)
	if err != nil {
		return res, err
	}
	was, _ := read(req.OldInputs)
	if req.Preview {
		res.Properties = req.OldOutputs.Copy()
		res.Properties["address"], res.Properties["online"] = req.NewInputs["address"], resource.NewProperty(true)
		delete(res.Properties, "problem")
		res.Properties["connection"] = foretold(h.connection)
		if k := pinned(req.OldOutputs); k != "" && h.connection != nil {
			res.Properties["connection"] = withKey(h.connection, k)
		}
		if v := req.OldOutputs["online"]; v.IsBool() && !v.BoolValue() { // whether it was started anew meanwhile
			res.Properties["bootId"] = providers.Unknown()
		}
		return res, nil
	}
	s, err := p.logIn(ctx, h, pinned(req.OldOutputs), moved(was.connection, h.connection))
	if err != nil {
		return res, err
	}
	if id(s.machine) != req.ID {
		return res, fault.Newf("log in to "+h.name, fault.Conflict, "it is another machine than before (machine-id %s, was %s); plan again", s.machine, text(req.OldOutputs["machineId"]))
	}
	if err := p.take(h.name, s.machine); err != nil {
		return res, err
	}
	return plugin.UpdateResponse{Properties: s.outputs(req.NewInputs, req.OldOutputs)}, nil
}

// Read implements providers.Provider. A host at whose place another machine is
// found is gone; one that does not answer, or not us, is there, but offline.
func (p *Provider) Read(ctx context.Context, req plugin.ReadRequest) (res plugin.ReadResponse, err error) {
	if req.Type != TypeHost {
		return res, wrongType(req.Type)
	}
	if req.ID == "" {
		return res, nil // a Create leaves nothing that the next one would not find
	}
	h, err := p.valid(req.Type, req.URN, req.Inputs)
	if err != nil {
		return res, err
	}
	s, err := p.look(ctx, h, pinned(req.State), false)
	res.ReadResult = plugin.ReadResult{ID: req.ID, Inputs: req.Inputs, Outputs: req.State}
	switch {
	case fault.Is(err, fault.Unavailable) || fault.Is(err, fault.Denied):
		// Not an error: the file may say meanwhile how to log in, and others
		// must not wait for this one.
		res.Outputs = req.State.Copy()
		if res.Outputs == nil {
			res.Outputs = resource.PropertyMap{}
		}
		res.Outputs["online"], res.Outputs["problem"] = resource.NewProperty(false), resource.NewProperty(err.Error())
	case err != nil:
		return plugin.ReadResponse{}, err
	case id(s.machine) != req.ID:
		return plugin.ReadResponse{}, nil
	default:
		p.know(h.name, s.machine)
		res.Outputs = s.outputs(req.Inputs, req.State)
	}
	return res, nil
}

// Delete implements providers.Provider. The machine stays as it is.
func (p *Provider) Delete(_ context.Context, req plugin.DeleteRequest) (plugin.DeleteResponse, error) {
	if req.Type != TypeHost {
		return plugin.DeleteResponse{}, wrongType(req.Type)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if m := strings.TrimPrefix(string(req.ID), "machine:"); p.taken[m] == req.URN.Name() {
		delete(p.taken, m)
	}
	return plugin.DeleteResponse{}, nil
}

// take notes that a machine is the host called name, unless it is another one
// already.
func (p *Provider) take(name, machine string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if other, ok := p.taken[machine]; ok && other != name {
		a, b := min(name, other), max(name, other)
		return fault.Newf("log in to "+name, fault.Invalid, "%s and %s are the same machine (machine-id %s).\n"+
			"If both names lead to one machine, take one of them out of the file. If %s is its new name, apply once without it, and then with it.\n"+
			"If one is a copy of the other's disk, give it an identity of its own and apply again:\n"+
			"  rm -f /etc/machine-id /var/lib/dbus/machine-id && systemd-machine-id-setup && reboot", a, b, machine, name)
	}
	p.taken[machine] = name
	return nil
}

// know is take for a host that was accepted before.
func (p *Provider) know(name, machine string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.taken[machine]; !ok {
		p.taken[machine] = name
	}
}

// logIn is look as a step that is shown.
func (p *Provider) logIn(ctx context.Context, h host, key string, moved bool) (sight, error) {
	step := "log in"
	done := providers.Step(ctx, step)
	s, err := p.look(ctx, h, key, moved)
	if err == nil {
		providers.Note(ctx, step, s.String())
		err = s.unfit()
	}
	return s, done(err)
}

// look asks a machine what it is. The key that it had last time counts first,
// then those that the operator knows. Where it was expected to be the same
// machine, another key is not trusted on sight.
func (p *Provider) look(ctx context.Context, h host, key string, moved bool) (sight, error) {
	c := h.connection
	if key != "" {
		c = withKey(h.connection, key).ObjectValue()
	}
	a, err := p.ask(ctx, h.name, c, script)
	if key != "" && fault.Is(err, fault.NotFound) {
		c = h.connection.Copy()
		if !moved {
			delete(c, "trustOnFirstUse")
		}
		a, err = p.ask(ctx, h.name, c, script)
	}
	if err != nil {
		return sight{}, err
	}
	s, err := parse(a.Text)
	if err != nil {
		return s, fault.New("look at host "+h.name, fault.Invalid, err)
	}
	s.key = a.HostKey
	return s, nil
}

func withKey(c resource.PropertyMap, key string) resource.PropertyValue {
	c = c.Copy()
	if key != "" {
		c["hostKey"] = resource.NewProperty(key)
	}
	return resource.NewProperty(c)
}

// pinned is the key that a machine had when it was last logged in to.
func pinned(outputs resource.PropertyMap) string {
	v, known := input.Plain(outputs["connection"])
	if !known || !v.IsObject() {
		return ""
	}
	return text(v.ObjectValue()["hostKey"])
}

func text(v resource.PropertyValue) string {
	if v, known := input.Plain(v); known && v.IsString() {
		return v.StringValue()
	}
	return ""
}

func (s sight) String() string {
	parts := []string{s.Name, s.arch, fmt.Sprintf("%d CPUs, %d MiB of memory", s.cpus, s.memoryMiB)}
	if f := fingerprint(s.key); f != "" {
		parts = append(parts, "key "+f)
	}
	return strings.Join(parts, ", ")
}
