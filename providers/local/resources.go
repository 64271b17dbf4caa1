package local

import (
	"context"
	"net/netip"
	"path/filepath"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
	"golang.org/x/sys/unix"

	"dcos.example/dcos/providers"
	"dcos.example/dcos/providers/input"
	"dcos.example/dcos/providers/local/network"
	"dcos.example/dcos/providers/local/simhost"
	"dcos.example/dcos/runtime/fault"
)

func readNetwork(r *input.Reader) network.Info {
	n := network.Info{Cluster: name(r, "cluster"), Gateway: address(r, "gateway"), Uplink: r.Bool("uplink")}
	text := r.Text("cidr")
	if text == "" {
		return n
	}
	var err error
	if n.CIDR, err = netip.ParsePrefix(text); err != nil || !n.CIDR.Addr().Is4() {
		r.Fail("cidr", "%q is not an IPv4 range such as 198.18.0.0/24", text)
	} else if n.Gateway.IsValid() && !n.CIDR.Contains(n.Gateway) {
		r.Fail("gateway", "%s is not in %s", n.Gateway, n.CIDR)
	}
	return n
}

func networkOutputs(n network.Info, online bool) resource.PropertyMap {
	return resource.PropertyMap{
		"bridge": resource.NewProperty(n.Bridge), "cidr": resource.NewProperty(n.CIDR.String()),
		"gateway": fmtIP(n.Gateway), "online": resource.NewProperty(online),
	}
}

func previewNetwork(r *input.Reader, n network.Info) (plugin.CreateResponse, error) {
	n.Bridge = network.BridgeName(n.Cluster)
	out := networkOutputs(n, true)
	for key, from := range map[resource.PropertyKey]string{"bridge": "cluster", "cidr": "cidr", "gateway": "gateway"} {
		if r.Unknown(from) {
			out[key] = providers.Unknown()
		}
	}
	if !n.CIDR.IsValid() || r.Unknown("cluster") { // then nobody can tell our own range from another's
		return plugin.CreateResponse{Properties: out}, nil
	}
	return plugin.CreateResponse{Properties: out}, network.Clash(n.CIDR, n.Bridge)
}

// createNetwork makes a network anew. What an earlier attempt at the same one
// left with another range goes first.
func (p *Provider) createNetwork(ctx context.Context, n network.Info) (resource.PropertyMap, error) {
	old, err := p.networks.Load(n.Cluster)
	if err == nil && old.Owner != n.Owner {
		return nil, fault.Newf("make the network of cluster "+n.Cluster, fault.Exists, "there is one that another installation made; destroy that first")
	}
	if err == nil && (old.CIDR != n.CIDR || old.Gateway != n.Gateway) {
		if err := p.networks.Remove(n.Cluster); err != nil {
			return nil, err
		}
	}
	return p.ensureNetwork(ctx, n)
}

func (p *Provider) ensureNetwork(ctx context.Context, n network.Info) (resource.PropertyMap, error) {
	const step = "make network"
	done := providers.Step(ctx, step)
	if w := network.Filtered(); w != "" {
		providers.Note(ctx, step, w)
	}
	n.Stack = p.stack
	n, err := p.networks.Ensure(ctx, n)
	if done(err) != nil {
		return nil, err
	}
	return networkOutputs(n, true), nil
}

func (p *Provider) lookAtNetwork(ctx context.Context, req plugin.ReadRequest) (res plugin.ReadResponse, err error) {
	cluster := string(req.ID)
	if cluster == "" {
		cluster = input.Read(req.Inputs).OptionalText("cluster")
	}
	n, whole, err := p.networks.Inspect(cluster)
	if err != nil || n.Cluster == "" || req.ID == "" && n.Owner != providers.Token(ctx) {
		return res, err
	}
	res.ID = resource.ID(cluster)
	res.Inputs = resource.PropertyMap{
		"cluster": resource.NewProperty(n.Cluster), "cidr": resource.NewProperty(n.CIDR.String()),
		"gateway": fmtIP(n.Gateway), "uplink": resource.NewProperty(n.Uplink),
	}
	if _, given := req.Inputs["uplink"]; !given && !n.Uplink {
		delete(res.Inputs, "uplink")
	}
	res.Outputs = networkOutputs(n, whole)
	return res, nil
}

func hostID(cluster, name string) resource.ID { return resource.ID(cluster + "/" + name) }

func readHost(r *input.Reader) simhost.Host {
	h := simhost.Host{Cluster: name(r, "cluster"), Name: name(r, "name"), Role: r.Text("role"), Network: r.Text("network")}
	if a := address(r, "address"); a.IsValid() {
		h.Address = a.String()
	}
	h.CPUs = r.Number("cpus")
	h.MemoryMiB, h.DiskMiB = int64(r.Number("memoryMiB")), int64(r.Number("diskMiB"))
	for key, c := range map[string]struct{ have, least float64 }{
		"cpus": {h.CPUs, simhost.MinCPUs}, "memoryMiB": {float64(h.MemoryMiB), simhost.MinMemoryMiB}, "diskMiB": {float64(h.DiskMiB), simhost.MinDiskMiB},
	} {
		if c.have < c.least && c.have != 0 || c.have < 0 {
			r.Fail(key, "must be at least %g, not %g", c.least, c.have)
		}
	}
	var si unix.Sysinfo_t
	if err := unix.Sysinfo(&si); err == nil {
		if total := int64(si.Totalram) * int64(si.Unit) >> 20; h.MemoryMiB > total {
			r.Fail("memoryMiB", "must be at most what this machine has, %d, not %d", total, h.MemoryMiB)
		}
	}
	return h
}

// connection is how the installer reaches the host whose directory is dir.
func connection(dir string) resource.PropertyValue {
	return resource.NewProperty(resource.PropertyMap{"kind": resource.NewProperty("local"), "dir": resource.NewProperty(dir)})
}

func hostOutputs(st simhost.State) resource.PropertyMap {
	return resource.PropertyMap{
		"connection": connection(st.Dir),
		"dir":        resource.NewProperty(st.Dir), "pid": resource.NewProperty(float64(st.PID)), "address": resource.NewProperty(st.Host.Address),
		"bootId": resource.NewProperty(st.Boot), "online": resource.NewProperty(st.Running && st.Connected),
	}
}

// createHost makes a host anew. What an earlier attempt at the same one left
// in another shape goes first.
func (p *Provider) createHost(ctx context.Context, h simhost.Host) (resource.PropertyMap, error) {
	old, err := p.machine.Inspect(h.Cluster, h.Name)
	if err != nil {
		return nil, err
	}
	if old.Host.Name != "" && old.Host.Owner != h.Owner {
		return nil, fault.Newf("make host "+h.Name, fault.Exists, "there is one in %s that another installation made; destroy that first", old.Dir)
	}
	if old.Host.Name != "" && (old.Host.Address != h.Address || old.Host.DiskMiB != h.DiskMiB) {
		if err := p.machine.Remove(ctx, h.Cluster, h.Name); err != nil {
			return nil, err
		}
	}
	done := providers.Step(ctx, "check machine")
	if err := done(p.machine.Preflight()); err != nil {
		return nil, err
	}
	return p.ensureHost(ctx, h)
}

func (p *Provider) ensureHost(ctx context.Context, h simhost.Host) (resource.PropertyMap, error) {
	done := providers.Step(ctx, "boot host")
	st, err := p.machine.Ensure(ctx, h)
	if done(err) != nil {
		return nil, err
	}
	return hostOutputs(st), nil
}

func (p *Provider) lookAtHost(ctx context.Context, req plugin.ReadRequest) (res plugin.ReadResponse, err error) {
	in := input.Read(req.Inputs)
	cluster, name := in.OptionalText("cluster"), in.OptionalText("name")
	if req.ID != "" {
		cluster, name = filepath.Split(string(req.ID))
		cluster = filepath.Clean(cluster)
	}
	st, err := p.machine.Inspect(cluster, name)
	if err != nil || st.Dir == "" || req.ID == "" && st.Host.Owner != providers.Token(ctx) {
		return res, err
	}
	h := st.Host
	res.ID = hostID(cluster, name)
	res.Inputs = resource.PropertyMap{
		"cluster": resource.NewProperty(h.Cluster), "name": resource.NewProperty(h.Name), "role": resource.NewProperty(h.Role),
		"address": resource.NewProperty(h.Address), "cpus": resource.NewProperty(h.CPUs),
		"memoryMiB": resource.NewProperty(float64(h.MemoryMiB)), "diskMiB": resource.NewProperty(float64(h.DiskMiB)),
		"network": resource.NewProperty(h.Network),
	}
	res.Outputs = hostOutputs(st)
	return res, nil
}
