// Package local is the provider that makes hosts on the installer's own
// machine: networks (package network) and hosts (package simhost) as
// resources. Objects are found by the cluster's and the host's name, so that
// they can be removed without any record of the installer.
//
//	local:network:Network  cluster, cidr, gateway, uplink → bridge, cidr, gateway, online
//	local:host:Host        cluster, name, role, address, cpus, memoryMiB, diskMiB, network
//	                       → dir, pid, address, bootId, online
//
// A host or network that exists but does not work has "online" false, which a
// later Diff reports as something to repair: a host that is down is started
// again, with its disk as it was.
package local

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"

	"dcos.example/dcos/installer/bundle"
	"dcos.example/dcos/providers"
	"dcos.example/dcos/providers/input"
	"dcos.example/dcos/providers/local/network"
	"dcos.example/dcos/providers/local/simhost"
	"dcos.example/dcos/runtime/fault"
)

// Types of the resources.
const (
	TypeNetwork = tokens.Type("local:network:Network")
	TypeHost    = tokens.Type("local:host:Host")
)

// Options configure the provider.
type Options struct {
	// Dir holds the hosts' disks and records; "" means DefaultDir.
	Dir string
	// Init is the dcos-init program, as a release bundle holds it.
	Init string
	// Stack is the directory of the installer's state. Hosts see it empty, and
	// it is written down with the network: see Origin.
	Stack string
	// Cache is where bundles are unpacked; hosts see it read-only, so that a
	// release need not be copied into each. "" means bundle.CacheDir.
	Cache string
}

// DefaultDir is where hosts live unless told otherwise.
const DefaultDir = simhost.DefaultDir + "/local"

// Provider makes local hosts.
type Provider struct {
	machine  simhost.Machine
	networks network.Networks
	stack    string
}

var _ providers.Provider = (*Provider)(nil)

// New returns a provider. It touches nothing yet.
func New(o Options) (*Provider, error) {
	if o.Dir == "" {
		o.Dir = DefaultDir
	}
	if o.Cache == "" {
		o.Cache = bundle.CacheDir
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fault.New("find directory of local hosts", fault.Invalid, err)
	}
	var hide []string
	if o.Stack != "" {
		hide = []string{o.Stack}
	}
	return &Provider{
		machine:  simhost.Machine{Dir: dir, Init: o.Init, Hide: hide, Show: []string{o.Cache}},
		networks: network.Networks{Dir: dir},
		stack:    o.Stack,
	}, nil
}

// Machine returns the machine that holds this provider's hosts.
func (p *Provider) Machine() simhost.Machine { return p.machine }

// Destroy removes every host of the cluster and its network, by name alone.
func (p *Provider) Destroy(ctx context.Context, cluster string) error {
	hosts, err := p.machine.Hosts(cluster)
	if err != nil {
		return err
	}
	for _, h := range hosts {
		if err := p.machine.Remove(ctx, cluster, h); err != nil {
			return err
		}
	}
	return p.networks.Remove(cluster)
}

// Origin returns what is on this machine of a cluster, by name alone: its
// hosts, and the directory of the state that it was made from ("" if that is
// not known). Found is false when there is nothing.
func (p *Provider) Origin(cluster string) (stack string, hosts []string, found bool, err error) {
	if hosts, err = p.machine.Hosts(cluster); err != nil {
		return "", nil, false, err
	}
	n, err := p.networks.Load(cluster)
	if fault.Is(err, fault.NotFound) {
		return "", hosts, len(hosts) > 0, nil
	}
	return n.Stack, hosts, err == nil, err
}

func wrongType(t tokens.Type) error {
	return fault.Newf("use provider local", fault.Invalid, "there is no resource type %s, only %s and %s", t, TypeNetwork, TypeHost)
}

// Check implements providers.Provider.
func (p *Provider) Check(_ context.Context, req plugin.CheckRequest) (plugin.CheckResponse, error) {
	r := input.Read(req.News)
	switch req.Type {
	case TypeNetwork:
		readNetwork(r)
	case TypeHost:
		readHost(r)
	default:
		return plugin.CheckResponse{}, wrongType(req.Type)
	}
	return plugin.CheckResponse{Properties: req.News, Failures: r.Failures()}, nil
}

// offline reports whether the outputs say that the object does not work.
func offline(outputs resource.PropertyMap) bool {
	v := outputs["online"]
	return v.IsBool() && !v.BoolValue()
}

// Diff implements providers.Provider.
func (p *Provider) Diff(_ context.Context, req plugin.DiffRequest) (plugin.DiffResponse, error) {
	var d plugin.DiffResponse
	switch req.Type {
	case TypeNetwork:
		d = providers.DiffInputs(req, "cluster", "cidr", "gateway")
	case TypeHost:
		d = providers.DiffInputs(req, "cluster", "name", "address", "diskMiB")
	default:
		return d, wrongType(req.Type)
	}
	d.DeleteBeforeReplace = len(d.ReplaceKeys) > 0 // old and new would have one name
	if offline(req.OldOutputs) {
		d.Changes = plugin.DiffSome
		d.ChangedKeys = append(d.ChangedKeys, "online")
		if d.DetailedDiff == nil {
			d.DetailedDiff = map[string]plugin.PropertyDiff{}
		}
		d.DetailedDiff["online"] = plugin.PropertyDiff{Kind: plugin.DiffUpdate}
	}
	return d, nil
}

// Create implements providers.Provider.
func (p *Provider) Create(ctx context.Context, req plugin.CreateRequest) (plugin.CreateResponse, error) {
	r := input.Read(req.Properties)
	var res plugin.CreateResponse
	switch req.Type {
	case TypeNetwork:
		n := readNetwork(r)
		n.Owner = providers.Token(ctx)
		if err := refused(req.URN, r); err != nil {
			return res, err
		}
		if req.Preview {
			return previewNetwork(r, n)
		}
		out, err := p.createNetwork(ctx, n)
		return plugin.CreateResponse{ID: resource.ID(n.Cluster), Properties: out}, err
	case TypeHost:
		h := readHost(r)
		h.Owner = providers.Token(ctx)
		if err := refused(req.URN, r); err != nil {
			return res, err
		}
		if req.Preview {
			dir := filepath.Join(p.machine.Dir, h.Cluster, h.Name)
			res.Properties = resource.PropertyMap{
				"connection": connection(dir), "dir": resource.NewProperty(dir), "address": req.Properties["address"],
				"pid": providers.Unknown(), "bootId": providers.Unknown(), "online": resource.NewProperty(true),
			}
			if r.Unknown("cluster", "name") {
				res.Properties["dir"], res.Properties["connection"] = providers.Unknown(), providers.Unknown()
			}
			return res, p.machine.Preflight()
		}
		out, err := p.createHost(ctx, h)
		return plugin.CreateResponse{ID: hostID(h.Cluster, h.Name), Properties: out}, err
	}
	return res, wrongType(req.Type)
}

// refused returns what is wrong with inputs that were not checked.
func refused(urn resource.URN, r *input.Reader) error {
	fs := r.Failures()
	if len(fs) == 0 {
		return nil
	}
	return fault.Newf("make "+urn.Name(), fault.Invalid, "%s %s", fs[0].Property, fs[0].Reason)
}

// Update implements providers.Provider.
func (p *Provider) Update(ctx context.Context, req plugin.UpdateRequest) (plugin.UpdateResponse, error) {
	r := input.Read(req.NewInputs)
	var res plugin.UpdateResponse
	switch req.Type {
	case TypeNetwork:
		n := readNetwork(r)
		if err := refused(req.URN, r); err != nil {
			return res, err
		}
		if req.Preview {
			created, err := previewNetwork(r, n)
			return plugin.UpdateResponse{Properties: created.Properties}, err
		}
		if old, err := p.networks.Load(n.Cluster); err == nil {
			n.Owner = old.Owner
		}
		out, err := p.ensureNetwork(ctx, n)
		return plugin.UpdateResponse{Properties: out}, err
	case TypeHost:
		h := readHost(r)
		if err := refused(req.URN, r); err != nil {
			return res, err
		}
		if req.Preview {
			res.Properties = req.OldOutputs.Copy()
			res.Properties["online"] = resource.NewProperty(true)
			if pid := res.Properties["pid"]; !pid.IsNumber() || pid.NumberValue() == 0 { // it will be started
				res.Properties["pid"], res.Properties["bootId"] = providers.Unknown(), providers.Unknown()
			}
			return res, nil
		}
		if old, err := p.machine.Inspect(h.Cluster, h.Name); err == nil {
			h.Owner = old.Host.Owner
		}
		out, err := p.ensureHost(ctx, h)
		return plugin.UpdateResponse{Properties: out}, err
	}
	return res, wrongType(req.Type)
}

// Read implements providers.Provider.
func (p *Provider) Read(ctx context.Context, req plugin.ReadRequest) (plugin.ReadResponse, error) {
	switch req.Type {
	case TypeNetwork:
		return p.lookAtNetwork(ctx, req)
	case TypeHost:
		return p.lookAtHost(ctx, req)
	}
	return plugin.ReadResponse{}, wrongType(req.Type)
}

// Delete implements providers.Provider.
func (p *Provider) Delete(ctx context.Context, req plugin.DeleteRequest) (plugin.DeleteResponse, error) {
	switch req.Type {
	case TypeNetwork:
		return plugin.DeleteResponse{}, p.networks.Remove(string(req.ID))
	case TypeHost:
		cluster, name, ok := strings.Cut(string(req.ID), "/")
		if !ok {
			return plugin.DeleteResponse{}, fault.Newf("delete host", fault.Invalid, "%q is not the id of a local host", req.ID)
		}
		return plugin.DeleteResponse{}, p.machine.Remove(ctx, cluster, name)
	}
	return plugin.DeleteResponse{}, wrongType(req.Type)
}

// name reads what becomes a directory's and a link's name.
func name(r *input.Reader, key string) string {
	v := r.Text(key)
	if v != "" && (v != filepath.Base(v) || v[0] == '.' || len(v) > 63) {
		r.Fail(key, "%q cannot be a name: at most 63 characters, no slash, no dot in front", v)
	}
	return v
}

func address(r *input.Reader, key string) netip.Addr {
	text := r.Text(key)
	if text == "" {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(text)
	if err != nil || !a.Is4() {
		r.Fail(key, "%q is not an IPv4 address", text)
	}
	return a
}

func fmtIP(a netip.Addr) resource.PropertyValue { return resource.NewProperty(fmt.Sprint(a)) }
