package bootstrap

import (
	"context"
	"slices"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"

	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/providers"
	"dcos.example/dcos/providers/input"
	"dcos.example/dcos/runtime/fault"
)

// nodes is TypeNode.
type nodes struct{ p *Provider }

func (nodes) check(req plugin.CheckRequest) plugin.CheckResponse {
	_, r := readNode(req.News)
	return plugin.CheckResponse{Properties: req.News, Failures: r.Failures()}
}

func (nodes) diff(req plugin.DiffRequest) plugin.DiffResponse {
	// The same release from another place is the same release.
	if _, known := input.Plain(req.NewInputs["bundle"]); known {
		req.IgnoreChanges = append(slices.Clone(req.IgnoreChanges), "bundle")
	}
	// Another way to log in to the same machine changes nothing there.
	if sameHost(req.OldInputs, req.NewInputs) {
		req.IgnoreChanges = append(slices.Clone(req.IgnoreChanges), "host")
	}
	d := providers.DiffInputs(req, "name", "role")
	if moved(req.OldInputs, req.NewInputs) {
		d.ReplaceKeys = append(d.ReplaceKeys, "host")
	}
	d.DeleteBeforeReplace = len(d.ReplaceKeys) > 0
	if v := req.OldOutputs["active"]; v.IsBool() && !v.BoolValue() {
		d.Changes = plugin.DiffSome
		d.ChangedKeys = append(d.ChangedKeys, "active")
		if d.DetailedDiff == nil {
			d.DetailedDiff = map[string]plugin.PropertyDiff{}
		}
		d.DetailedDiff["active"] = plugin.PropertyDiff{Kind: plugin.DiffUpdate}
	}
	return d
}

// sameHost reports whether both are known to be about the same host, not
// started anew meanwhile.
func sameHost(before, after resource.PropertyMap) bool {
	a, ra := readNode(before)
	b, rb := readNode(after)
	for _, r := range []*input.Reader{ra, rb} {
		if r.Unknown("host", "host.kind", "host.dir", "host.address", "host.port", "host.machineId", "host.bootId") {
			return false
		}
	}
	return a.ref.Identity() == b.ref.Identity() && a.machine == b.machine && a.boot == b.boot
}

// moved reports whether the new inputs are those of another host.
func moved(before, after resource.PropertyMap) bool {
	a, ra := readNode(before)
	b, rb := readNode(after)
	if ra.Unknown("host", "host.kind", "host.dir", "host.address") || rb.Unknown("host", "host.kind", "host.dir", "host.address") {
		return false
	}
	if a.machine != "" && b.machine != "" {
		return a.machine != b.machine
	}
	return a.ref.Identity() != b.ref.Identity()
}

func outputs(in resource.PropertyMap, active bool) resource.PropertyMap {
	return resource.PropertyMap{"release": in["release"], "address": in["address"], "active": resource.NewProperty(active)}
}

func nodeID(n node) resource.ID { return resource.ID(n.ref.Identity()) }

func (k nodes) create(ctx context.Context, req plugin.CreateRequest) (plugin.CreateResponse, error) {
	res := plugin.CreateResponse{Properties: outputs(req.Properties, true)}
	if req.Preview {
		return res, nil
	}
	n, _ := readNode(req.Properties)
	res.ID = nodeID(n)
	h, err := k.p.o.Open(ctx, n.ref)
	if err != nil {
		return plugin.CreateResponse{}, err
	}
	how, err := k.p.install(ctx, h, n, providers.Token(ctx))
	if err == nil {
		return res, nil
	}
	if how == asBefore {
		return plugin.CreateResponse{}, err
	}
	res.Properties["active"] = resource.NewProperty(false)
	return res, providers.Partial(err)
}

func (k nodes) update(ctx context.Context, req plugin.UpdateRequest) (plugin.UpdateResponse, error) {
	res := plugin.UpdateResponse{Properties: outputs(req.NewInputs, true)}
	if req.Preview {
		return res, nil
	}
	n, _ := readNode(req.NewInputs)
	h, err := k.p.o.Open(ctx, n.ref)
	if err != nil { // an earlier attempt may have left it half changed
		return plugin.UpdateResponse{}, err
	}
	how, err := k.p.install(ctx, h, n, "")
	if err == nil {
		return res, nil
	}
	if how == asBefore {
		return plugin.UpdateResponse{}, providers.Untouched(err)
	}
	res.Properties["active"] = resource.NewProperty(false)
	return res, providers.Partial(err)
}

func (k nodes) read(ctx context.Context, req plugin.ReadRequest) (res plugin.ReadResponse, err error) {
	n, _ := readNode(req.Inputs)
	h, err := k.p.o.Open(ctx, n.ref)
	if fault.Is(err, fault.NotFound) {
		return res, nil
	}
	if fault.Is(err, fault.Unavailable) || fault.Is(err, fault.Denied) { // down, or lets us in no more: there, but not working
		if req.ID == "" {
			return res, nil // then nothing can have been begun that still counts
		}
		return plugin.ReadResponse{ReadResult: plugin.ReadResult{ID: req.ID, Inputs: req.Inputs, Outputs: outputs(req.Inputs, false)}}, nil
	}
	if err != nil {
		return res, err
	}
	v, r, err := observe(ctx, h, n)
	if err != nil {
		return res, err
	}
	if !r.found || req.ID == "" && r.Owner != providers.Token(ctx) {
		return res, nil
	}
	files, err := filesAsRead(ctx, h, n, v.Files)
	if err != nil {
		return res, err
	}
	in := req.Inputs.Copy()
	in["release"] = resource.NewProperty(releaseOn(v, r))
	if releaseOn(v, r) != n.digest {
		in["programs"] = resource.NewProperty("") // which it has, nobody knows
	}
	in["files"] = resource.NewProperty(files)
	up := r.Changing == ""
	for _, u := range n.units {
		up = up && v.Units[u].Active && r.Units[u] == unitDigest(n, u, r.Programs)
	}
	id := req.ID // of a host that has moved, it is the place where it began
	if id == "" {
		id = nodeID(n)
	}
	res.ReadResult = plugin.ReadResult{ID: id, Inputs: in, Outputs: outputs(in, up)}
	return res, nil
}

// filesAsRead are the wanted files as they are on the host. Only of those that
// differ the content is fetched.
func filesAsRead(ctx context.Context, h host.Host, n node, have map[string]host.Entry) (resource.PropertyMap, error) {
	var differ []string
	for p, f := range n.files {
		if e, ok := have[p]; ok && seen(e) != fingerprintOf(f) {
			differ = append(differ, p)
		}
	}
	var there map[string]host.Entry
	if len(differ) > 0 {
		v, err := h.Look(ctx, host.Query{Content: differ})
		if err != nil {
			return nil, err
		}
		there = v.Files
	}
	m := resource.PropertyMap{}
	for p, f := range n.files {
		if _, ok := have[p]; !ok {
			continue
		}
		if e, ok := there[p]; ok {
			f = e.File
		}
		if f.Link != "" {
			f.Data = []byte("(a link to " + f.Link + ")")
		}
		m[resource.PropertyKey(p)] = resource.NewProperty(resource.PropertyMap{
			"content": resource.NewProperty(string(f.Data)), "mode": resource.NewProperty(float64(f.Mode.Perm())),
		})
	}
	return m, nil
}

func (k nodes) delete(ctx context.Context, req plugin.DeleteRequest) error {
	n, _ := readNode(req.Inputs)
	return k.p.uninstall(ctx, n)
}
