// Package program says which resources a cluster is made of: it turns a
// topology and a release into the goals that the engine brings about. It is
// pure; what is known only when other resources exist is asked for through
// their outputs.
//
//	Network ──► Host (each) ──► Node (each) ──► Cluster
//	Secrets ────────────────────────┘
//
// The Cluster also needs the Secrets, to ask how it is, and the Hosts, to look
// at one that is not well.
package program

import (
	"maps"
	"slices"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"

	"dcos.example/dcos/genconf"
	"dcos.example/dcos/installer/engine"
	"dcos.example/dcos/installer/topology"
	"dcos.example/dcos/runtime/fault"
)

// Types of the resources of a cluster.
const (
	TypeSecrets = tokens.Type("dcos:cluster:Secrets")
	TypeNetwork = tokens.Type("local:network:Network")
	TypeHost    = tokens.Type("local:host:Host")
	TypeNode    = tokens.Type("dcos:host:Node")
	TypeCluster = tokens.Type("dcos:cluster:Cluster")
)

// Release is what the hosts will run.
type Release struct {
	Version string // "0.1.0"
	Digest  string // of the bundle: what makes two releases the same
	Bundle  string // path of the archive on this machine
}

// SecretsKey and ClusterKey name the resources whose outputs the installer
// shows.
func SecretsKey(cluster string) engine.Key { return engine.Key{Type: TypeSecrets, Name: cluster} }
func ClusterKey(cluster string) engine.Key { return engine.Key{Type: TypeCluster, Name: cluster} }

// Goals returns the resources of t running r. Their number grows with the
// number of hosts; a host's goals depend on no other host, so that one more
// host adds goals and, but for the cluster's own, changes none.
func Goals(t *topology.Topology, r Release) []engine.Goal {
	name := t.Cluster.Name
	secrets, cluster := SecretsKey(name), ClusterKey(name)
	network := engine.Key{Type: TypeNetwork, Name: name}
	goals := []engine.Goal{
		{Key: secrets, Inputs: engine.Constant(secretsInputs(t)),
			SecretOutputs: []resource.PropertyKey{"caKey", "joinToken", "sealKey", "adminPassword", "adminHash", "backupIdentity"}},
		{Key: network, Inputs: engine.Constant(resource.PropertyMap{
			"cluster": resource.NewProperty(name),
			"cidr":    resource.NewProperty(t.Network.Range.String()),
			"gateway": resource.NewProperty(t.Network.Gateway.String()),
			"uplink":  resource.NewProperty(t.Network.Uplink),
		})},
	}
	needs := []engine.Key{secrets} // of the cluster
	for _, h := range t.Hosts {
		host, node := engine.Key{Type: TypeHost, Name: h.Name}, engine.Key{Type: TypeNode, Name: h.Name}
		needs = append(needs, host, node)
		goals = append(goals,
			engine.Goal{Key: host, Dependencies: []engine.Key{network}, Inputs: hostInputs(name, h, network)},
			engine.Goal{Key: node, Dependencies: []engine.Key{secrets, host}, Inputs: nodeInputs(t, h, r, secrets, host)},
		)
	}
	var masters []resource.PropertyValue
	for _, m := range t.Masters() {
		masters = append(masters, resource.NewProperty(m.Addr.String()))
	}
	return append(goals, engine.Goal{Key: cluster, Dependencies: needs, Inputs: func(o engine.Outputs) (resource.PropertyMap, error) {
		var hosts []resource.PropertyValue
		for _, h := range t.Hosts {
			hosts = append(hosts, resource.NewProperty(resource.PropertyMap{
				"kind": resource.NewProperty("local"), "name": resource.NewProperty(h.Name),
				"dir": o.Get(engine.Key{Type: TypeHost, Name: h.Name}, "dir"),
				// After a host was started anew, the cluster is waited for again.
				"bootId": o.Get(engine.Key{Type: TypeHost, Name: h.Name}, "bootId"),
			}))
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

func nodeInputs(t *topology.Topology, h topology.Host, r Release, secrets, host engine.Key) engine.Inputs {
	return func(o engine.Outputs) (resource.PropertyMap, error) {
		s, known, err := readSecrets(o, secrets)
		if err != nil {
			return nil, err
		}
		out, err := genconf.Render(genconf.Input{Topology: t, Host: h, Release: r.Version, Secrets: s})
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
			"host": resource.NewProperty(resource.PropertyMap{
				"kind": resource.NewProperty("local"), "dir": o.Get(host, "dir"),
				// A host that was made anew, or started anew, has to be installed
				// or checked again.
				"bootId": o.Get(host, "bootId"),
			}),
			"name":    resource.NewProperty(h.Name),
			"role":    resource.NewProperty(string(h.Role)),
			"address": resource.NewProperty(h.Addr.String()),
			"release": resource.NewProperty(r.Digest),
			"bundle":  resource.NewProperty(r.Bundle),
			"files":   resource.NewProperty(files),
			"units":   resource.NewProperty(units),
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
		v := o.Get(key, name)
		for v.IsSecret() || v.IsOutput() {
			if v.IsSecret() {
				v = v.SecretValue().Element
				continue
			}
			if !v.OutputValue().Known {
				v = unknown()
				break
			}
			v = v.OutputValue().Element
		}
		switch {
		case v.IsString() && v.StringValue() != "":
			return v.StringValue()
		case v.IsComputed():
			known = false
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
	if len(missing) > 0 {
		return s, false, fault.Newf("read the secrets of the cluster", fault.Internal, "no %v in the outputs of %s", missing, key)
	}
	return s, known, nil
}
