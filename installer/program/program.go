// Package program says which resources a cluster is made of: it turns a
// topology and a release into the goals that the engine brings about. It is
// pure; what is known only when other resources exist is asked for through
// their outputs.
//
//	Network ──► Host (each) ──► Node (each) ──► Cluster
//	Secrets ────────────────────────┘
//
// The Cluster also needs the Secrets, to ask how it is, and the Hosts, to look
// at one that is not well. Which provider a Host is of decides how it comes
// about: a local one needs the Network, a machine of one's own is there. From
// its outputs on, all are alike: connection says how to reach it.
package program

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"

	"dcos.example/dcos/genconf"
	"dcos.example/dcos/installer/engine"
	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/installer/topology"
	"dcos.example/dcos/providers/input"
	"dcos.example/dcos/runtime/fault"
)

// Types of the resources of a cluster.
const (
	TypeSecrets    = tokens.Type("dcos:cluster:Secrets")
	TypeNetwork    = tokens.Type("local:network:Network") // of local hosts only
	TypeHost       = tokens.Type("local:host:Host")
	TypeOnPremHost = tokens.Type("onprem:host:Host")
	TypeNode       = tokens.Type("dcos:host:Node")
	TypeCluster    = tokens.Type("dcos:cluster:Cluster")
)

// IsHost reports whether resources of type t are hosts, of any provider.
func IsHost(t tokens.Type) bool { return t == TypeHost || t == TypeOnPremHost }

// HostKey names a host of a provider, of the kind in the provider block.
func HostKey(provider, name string) engine.Key {
	if provider == topology.OnPrem {
		return engine.Key{Type: TypeOnPremHost, Name: name}
	}
	return engine.Key{Type: TypeHost, Name: name}
}

// Release is what the hosts will run.
type Release struct {
	Version string // "0.1.0"
	Digest  string // of the bundle: what makes two releases the same
	Bundle  string // path of the archive on this machine
	// Programs changes with the release, unless only packages did: those are
	// taken up by daemons that run.
	Programs string
}

// SecretsKey names the resource that holds a cluster's secrets.
func SecretsKey(cluster string) engine.Key { return engine.Key{Type: TypeSecrets, Name: cluster} }

// ClusterKey names the resource that stands for a cluster as a whole.
func ClusterKey(cluster string) engine.Key { return engine.Key{Type: TypeCluster, Name: cluster} }

// Goals returns the resources of t running r. Their number grows with the
// number of hosts; a host's goals depend on no other host, so that one more
// host adds goals and, but for the cluster's own, changes none.
func Goals(t *topology.Topology, r Release) []engine.Goal {
	name := t.Cluster.Name
	secrets, cluster := SecretsKey(name), ClusterKey(name)
	network := engine.Key{Type: TypeNetwork, Name: name}
	goals := []engine.Goal{{Key: secrets, Inputs: engine.Constant(secretsInputs(t)),
		SecretOutputs: []resource.PropertyKey{"caKey", "joinToken", "sealKey", "adminPassword", "adminHash", "backupIdentity"}}}
	if t.Provider != topology.OnPrem {
		goals = append(goals, engine.Goal{Key: network, Inputs: engine.Constant(resource.PropertyMap{
			"cluster": resource.NewProperty(name),
			"cidr":    resource.NewProperty(t.Network.Range.String()),
			"gateway": resource.NewProperty(t.Network.Gateway.String()),
			"uplink":  resource.NewProperty(t.Network.Uplink),
		})})
	}
	needs := []engine.Key{secrets} // of the cluster
	for _, h := range t.Hosts {
		host, node := HostKey(t.Provider, h.Name), engine.Key{Type: TypeNode, Name: h.Name}
		needs = append(needs, host, node)
		goal := engine.Goal{Key: host, Dependencies: []engine.Key{network}, Inputs: hostInputs(name, h, network)}
		if t.Provider == topology.OnPrem {
			goal = engine.Goal{Key: host, Inputs: engine.Constant(ownHostInputs(name, h))}
		}
		goals = append(goals, goal, engine.Goal{Key: node, Dependencies: []engine.Key{secrets, host}, Inputs: nodeInputs(t, h, r, secrets, host)})
	}
	var masters []resource.PropertyValue
	for _, m := range t.Masters() {
		masters = append(masters, resource.NewProperty(m.Addr.String()))
	}
	return append(goals, engine.Goal{Key: cluster, Dependencies: needs, Inputs: func(o engine.Outputs) (resource.PropertyMap, error) {
		hosts := resource.PropertyMap{}
		for _, h := range t.Hosts {
			// After a host was started anew, the cluster is waited for again.
			hosts[resource.PropertyKey(h.Name)] = reach(o, HostKey(t.Provider, h.Name))
		}
		return resource.PropertyMap{
			"masters":      resource.NewProperty(masters),
			"agents":       resource.NewProperty(float64(t.Count(topology.RoleAgent))),
			"publicAgents": resource.NewProperty(float64(t.Count(topology.RolePublicAgent))),
			"caCert":       o.Get(secrets, "caCert"),
			"release":      resource.NewProperty(r.Digest),
			// To ask the cluster how it is, and to look at hosts when it is not
			// well.
			"adminUser":     resource.NewProperty(t.Cluster.AdminUser),
			"adminPassword": o.Get(secrets, "adminPassword"),
			"hosts":         resource.NewProperty(hosts),
		}, nil
	}})
}

func secretsInputs(t *topology.Topology) resource.PropertyMap {
	in := resource.PropertyMap{"clusterName": resource.NewProperty(t.Cluster.Name), "adminUser": resource.NewProperty(t.Cluster.AdminUser)}
	var founders []resource.PropertyValue // if the cluster is made now
	for _, m := range t.Masters() {
		founders = append(founders, resource.NewProperty(m.Name))
	}
	in["founders"] = resource.NewProperty(founders)
	if t.Cluster.AdminPassword != "" {
		in["adminPassword"] = resource.MakeSecret(resource.NewProperty(t.Cluster.AdminPassword))
	}
	return in
}

func hostInputs(cluster string, h topology.Host, network engine.Key) engine.Inputs {
	return func(o engine.Outputs) (resource.PropertyMap, error) {
		return resource.PropertyMap{
			"cluster":   resource.NewProperty(cluster),
			"name":      resource.NewProperty(h.Name),
			"role":      resource.NewProperty(string(h.Role)),
			"address":   resource.NewProperty(h.Addr.String()),
			"cpus":      resource.NewProperty(h.CPUs),
			"memoryMiB": resource.NewProperty(float64(h.Memory.MiB())),
			"diskMiB":   resource.NewProperty(float64(h.Disk.MiB())),
			"network":   o.Get(network, "bridge"),
		}, nil
	}
}

// ownHostInputs are those of a machine of one's own.
func ownHostInputs(cluster string, h topology.Host) resource.PropertyMap {
	c := h.Connection
	ref := host.Ref{Kind: host.KindSSH, Name: h.Name, SSH: host.SSH{Login: login(c.Login), Sudo: host.SudoPasswordless, SudoPassword: c.SudoPassword, Timeout: c.Timeout}}
	switch {
	case c.User == "root":
		ref.SSH.Sudo = host.SudoNone
	case c.SudoPassword != "":
		ref.SSH.Sudo = host.SudoPassword
	}
	if c.Bastion != nil {
		l := login(*c.Bastion)
		ref.SSH.Bastion = &l
	}
	return resource.PropertyMap{
		"cluster": resource.NewProperty(cluster), "name": resource.NewProperty(h.Name), "role": resource.NewProperty(string(h.Role)),
		"address": resource.NewProperty(h.Addr.String()), "connection": ref.Property(),
	}
}

func login(l topology.Login) host.Login {
	return host.Login{Address: l.Address, Port: l.Port, User: l.User, KeyFile: l.KeyFile, UseAgent: l.Agent, Password: l.Password,
		KnownHosts: l.KnownHosts, TrustOnFirstUse: l.TrustOnFirstUse}
}

// reach is how a host is reached: its connection, and what tells when it is
// another machine, or the same one started anew.
func reach(o engine.Outputs, key engine.Key) resource.PropertyValue {
	c, known := input.Plain(o.Get(key, "connection"))
	if known && c.IsNull() { // in the state of an earlier installer, which knew local hosts only
		c = resource.NewProperty(resource.PropertyMap{"kind": resource.NewProperty(string(host.KindLocal)), "dir": o.Get(key, "dir")})
	}
	if !known || !c.IsObject() {
		return unknown()
	}
	m := c.ObjectValue().Copy()
	m["bootId"] = o.Get(key, "bootId")
	if key.Type == TypeOnPremHost {
		m["machineId"] = o.Get(key, "machineId")
	}
	return resource.NewProperty(m)
}

// readMachine returns what a Host found on a machine of one's own. Before it
// was looked at the second result is false, and what is returned serves to
// find out which files there will be.
func readMachine(o engine.Outputs, key engine.Key) (*genconf.Machine, bool, error) {
	v, known := input.Plain(o.Get(key, "facts"))
	if !known {
		return &genconf.Machine{}, false, nil
	}
	if !v.IsObject() {
		return nil, false, fault.Newf("read what "+key.Name+" is", fault.Internal, "no facts in the outputs of %s", key)
	}
	r := input.Read(v.ObjectValue())
	m := &genconf.Machine{Resolved: r.OptionalText("resolver") == "resolved", NetworkManager: r.Bool("networkManager"), Dhclient: r.Bool("dhclient"), Search: r.OptionalText("search")}
	for _, a := range r.List("resolvers") {
		ip, err := netip.ParseAddr(a.StringValue())
		if err != nil {
			return nil, false, fault.New("read what "+key.Name+" is", fault.Internal, err)
		}
		m.Resolvers = append(m.Resolvers, ip)
	}
	return m, !r.Unknown(), nil
}

func nodeInputs(t *topology.Topology, h topology.Host, r Release, secrets, host engine.Key) engine.Inputs {
	return func(o engine.Outputs) (resource.PropertyMap, error) {
		s, known, err := readSecrets(o, secrets)
		if err != nil {
			return nil, err
		}
		var machine *genconf.Machine
		if host.Type == TypeOnPremHost {
			m, seen, err := readMachine(o, host)
			if err != nil {
				return nil, err
			}
			machine, known = m, known && seen
		}
		out, err := genconf.Render(genconf.Input{Topology: t, Host: h, Release: r.Version, Secrets: s, Machine: machine})
		if err != nil {
			return nil, err
		}
		files := resource.PropertyMap{}
		for _, path := range slices.Sorted(maps.Keys(out.Files)) {
			f := out.Files[path]
			content := resource.NewProperty(f.Content)
			if !known {
				content = unknown()
			}
			if f.Secret {
				content = resource.MakeSecret(content)
			}
			files[resource.PropertyKey(path)] = resource.NewProperty(resource.PropertyMap{"content": content, "mode": resource.NewProperty(float64(f.Mode.Perm()))})
		}
		var units []resource.PropertyValue
		for _, u := range out.Units {
			units = append(units, resource.NewProperty(u))
		}
		return resource.PropertyMap{
			// A host that was made anew, or started anew, has to be installed or
			// checked again.
			"host":    reach(o, host),
			"name":    resource.NewProperty(h.Name),
			"role":    resource.NewProperty(string(h.Role)),
			"address": resource.NewProperty(h.Addr.String()),
			"release": resource.NewProperty(r.Digest),
			"bundle":  resource.NewProperty(r.Bundle),
			// What tells whether daemons start anew, before any host is asked.
			"programs": resource.NewProperty(r.Programs),
			"files":    resource.NewProperty(files),
			"units":    resource.NewProperty(units),
		}, nil
	}
}

func unknown() resource.PropertyValue { return resource.MakeComputed(resource.NewProperty("")) }

// readSecrets returns the secrets of the cluster. In a preview of a new
// cluster there are none yet: the second result is false, and what is returned
// serves to find out which files there will be.
func readSecrets(o engine.Outputs, key engine.Key) (genconf.Secrets, bool, error) {
	known := true
	var missing []string
	get := func(name resource.PropertyKey) string {
		v, seen := input.Plain(o.Get(key, name))
		switch {
		case !seen:
			known = false
		case v.IsString() && v.StringValue() != "":
			return v.StringValue()
		default:
			missing = append(missing, string(name))
		}
		return "unknown"
	}
	s := genconf.Secrets{ClusterID: get("clusterId"), CACert: get("caCert"), CAKey: get("caKey"), JoinToken: get("joinToken"),
		SealKey: get("sealKey"), AdminHash: get("adminHash")}
	if v := o.Get(key, "backupRecipient"); v.HasValue() { // not in the state of an earlier installer
		s.BackupRecipient = get("backupRecipient")
	}
	founders, seen := input.Plain(o.Get(key, "founders"))
	known = known && seen
	if seen && founders.IsArray() { // likewise
		for _, m := range founders.ArrayValue() {
			s.Founders = append(s.Founders, m.StringValue())
		}
	}
	if len(missing) > 0 {
		return s, false, fault.Newf("read the secrets of the cluster", fault.Internal, "no %v in the outputs of %s", missing, key)
	}
	return s, known, nil
}
