// Package rolepackage installs hosts that nobody may log in to: what a host
// needs is put together once, and the host fetches it and installs itself, as
// the hosts of DC/OS did with dcos_install.sh.
//
// A Directory holds the script, this program, the release bundle, and a package
// for each host and for each role whose hosts need not be named. Packages hold
// secrets. A Server hands them out over TLS, for a token, each to one host.
// Install does on a host what the installer does over SSH: the same goals, the
// same steps, the same record, so that later the installer can take it over.
package rolepackage

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"

	"dcos.example/dcos/installer/topology"
	"dcos.example/dcos/providers/input"
	"dcos.example/dcos/runtime/fault"
)

// format is that of packages.
const format = 1

// Package is what makes a machine a host of a cluster, besides the release.
// That of a role has no Host.Name.
type Package struct {
	Format  int           `json:"format"`
	Release Release       `json:"release"`
	Host    topology.Host `json:"host"`
	// Cluster is what the host has to know of it: no other agents.
	Cluster topology.Topology `json:"cluster"`
	Secrets Secrets           `json:"secrets"`
	// Trust are the public keys whose bundles are taken.
	Trust []string `json:"trust"`
}

// Release is what the host will run.
type Release struct {
	Version string `json:"version"`
	Digest  string `json:"digest"`
	Bundle  string `json:"bundle"` // name of the file
}

// Secrets are those of the cluster. Agents get no more than they need: what is
// empty was withheld.
type Secrets struct {
	ClusterID       string   `json:"clusterId"`
	CACert          string   `json:"caCert"`
	JoinToken       string   `json:"joinToken"`
	Founders        []string `json:"founders,omitempty"`
	BackupRecipient string   `json:"backupRecipient,omitempty"`

	CAKey     string `json:"caKey,omitempty"`
	SealKey   string `json:"sealKey,omitempty"`
	AdminHash string `json:"adminHash,omitempty"`
	S3Secret  string `json:"s3Secret,omitempty"`
}

// ReadSecrets takes the secrets of a cluster from the outputs of its resource.
func ReadSecrets(outputs resource.PropertyMap, t *topology.Topology) (Secrets, error) {
	var missing []string
	get := func(name resource.PropertyKey) string {
		v, known := input.Plain(outputs[name])
		if !known || !v.IsString() || v.StringValue() == "" {
			missing = append(missing, string(name))
			return ""
		}
		return v.StringValue()
	}
	s := Secrets{ClusterID: get("clusterId"), CACert: get("caCert"), JoinToken: get("joinToken"), CAKey: get("caKey"), SealKey: get("sealKey"), AdminHash: get("adminHash")}
	if len(missing) > 0 {
		return s, fault.Newf("read the secrets of the cluster", fault.Internal, "no %s in the state", strings.Join(missing, ", "))
	}
	if v, known := input.Plain(outputs["backupRecipient"]); known && v.IsString() {
		s.BackupRecipient = v.StringValue()
	}
	if v, known := input.Plain(outputs["founders"]); known && v.IsArray() {
		for _, f := range v.ArrayValue() {
			s.Founders = append(s.Founders, f.StringValue())
		}
	}
	if t.Backup != nil && t.Backup.S3 != nil {
		s.S3Secret = t.Backup.S3.SecretKey
	}
	return s, nil
}

// properties are the secrets as the outputs that goals ask for.
func (s Secrets) properties() resource.PropertyMap {
	text := func(t string) resource.PropertyValue {
		if t == "" {
			t = "withheld" // nothing that this host gets is made of it
		}
		return resource.NewProperty(t)
	}
	m := resource.PropertyMap{
		"clusterId": text(s.ClusterID), "caCert": text(s.CACert), "joinToken": text(s.JoinToken),
		"caKey": text(s.CAKey), "sealKey": text(s.SealKey), "adminHash": text(s.AdminHash),
	}
	if s.BackupRecipient != "" {
		m["backupRecipient"] = resource.NewProperty(s.BackupRecipient)
	}
	if len(s.Founders) > 0 {
		var list []resource.PropertyValue
		for _, f := range s.Founders {
			list = append(list, resource.NewProperty(f))
		}
		m["founders"] = resource.NewProperty(list)
	}
	return m
}

// For returns the package of a host of t; a host without a name stands for all
// of its role that t does not name.
func For(t *topology.Topology, h topology.Host, r Release, s Secrets, trust []string) Package {
	p := Package{Format: format, Release: r, Host: bare(h), Secrets: s, Trust: trust}
	p.Cluster = topology.Topology{Provider: topology.OnPrem, Cluster: t.Cluster, Preflight: t.Preflight}
	p.Cluster.Cluster.AdminPassword = ""
	for _, m := range t.Masters() {
		p.Cluster.Hosts = append(p.Cluster.Hosts, bare(m))
	}
	if h.Role == topology.RoleMaster {
		p.Cluster.Backup = t.Backup
		return p
	}
	p.Secrets.CAKey, p.Secrets.SealKey, p.Secrets.AdminHash, p.Secrets.S3Secret = "", "", "", ""
	p.Cluster.Cluster.AdminUser = ""
	return p
}

// bare is a host without how to log in to it.
func bare(h topology.Host) topology.Host {
	h.Connection, h.PricePerHour = nil, 0
	return h
}

// All returns a package for each host of t, and one for each of the roles that
// unnamed hosts may have.
func All(t *topology.Topology, r Release, s Secrets, trust []string) []Package {
	var out []Package
	for _, h := range t.Hosts {
		out = append(out, For(t, h, r, s, trust))
	}
	for _, role := range []topology.Role{topology.RoleAgent, topology.RolePublicAgent} {
		out = append(out, For(t, topology.Host{Role: role}, r, s, trust))
	}
	return out
}

// Named returns the package of a role as that of one host.
func (p Package) Named(name string, addr netip.Addr) Package {
	p.Host.Name, p.Host.Addr = name, addr
	return p
}

// topology is the cluster with this host in it.
func (p Package) topology() *topology.Topology {
	t := p.Cluster
	t.Hosts = slices.Clone(t.Hosts)
	if !slices.ContainsFunc(t.Hosts, func(h topology.Host) bool { return h.Name == p.Host.Name }) {
		t.Hosts = append(t.Hosts, p.Host)
	}
	for i := range t.Hosts {
		t.Hosts[i].Connection = &topology.Connection{} // nobody logs in
	}
	if t.Backup != nil && t.Backup.S3 != nil {
		b, s3 := *t.Backup, *t.Backup.S3
		s3.SecretKey = p.Secrets.S3Secret
		b.S3 = &s3
		t.Backup = &b
	}
	return &t
}

func (p Package) encode() ([]byte, error) {
	b, err := json.MarshalIndent(p, "", " ")
	if err != nil {
		return nil, fault.New("write package", fault.Internal, err)
	}
	return append(b, '\n'), nil
}

// Decode reads a package.
func Decode(text []byte) (Package, error) {
	const op = "read package"
	var p Package
	if err := json.Unmarshal(text, &p); err != nil {
		return p, fault.New(op, fault.Invalid, err)
	}
	switch {
	case p.Format > format:
		return p, fault.Newf(op, fault.Invalid, "it has format %d, and this program reads up to %d; both come from the same directory", p.Format, format)
	case p.Format < 1 || p.Secrets.ClusterID == "" || len(p.Cluster.Hosts) == 0:
		return p, fault.Newf(op, fault.Invalid, "it is no package of dcos-install genconf")
	}
	return p, nil
}

// Read reads the package in a file.
func Read(path string) (Package, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		kind := fault.Denied
		if errors.Is(err, fs.ErrNotExist) {
			kind = fault.NotFound
		}
		return Package{}, fault.New("read package", kind, err)
	}
	return Decode(b)
}

// roles are the names of roles, DC/OS's first.
func roles() []struct {
	names []string
	role  topology.Role
} {
	return []struct {
		names []string
		role  topology.Role
	}{
		{[]string{"master"}, topology.RoleMaster},
		{[]string{"slave", "agent"}, topology.RoleAgent},
		{[]string{"slave_public", "public_agent"}, topology.RolePublicAgent},
	}
}

// ParseRole reads a role as dcos_install.sh took it, or as it is called here.
func ParseRole(s string) (topology.Role, error) {
	for _, r := range roles() {
		if slices.Contains(r.names, s) {
			return r.role, nil
		}
	}
	return "", fault.Newf("choose the role", fault.Invalid, "there is no role %q: it is master, slave or slave_public", s)
}

// RoleName is a role as dcos_install.sh takes it.
func RoleName(role topology.Role) string {
	for _, r := range roles() {
		if r.role == role {
			return r.names[0]
		}
	}
	return string(role)
}

// packageFile is where the package of a host, or of a role, lies in a
// Directory.
func packageFile(p Package) string {
	name := p.Host.Name
	if name == "" {
		name = "any-" + RoleName(p.Host.Role)
	}
	return filepath.Join(packagesDir, name+".json")
}

// Take returns the package as that of machine m, if it is for one like it.
func (p Package) Take(m Machine) (Package, error) {
	return choose([]Package{p}, m.Role, m.Addrs, m.Name)
}

// choose returns the package for a machine that wants to be role, has these
// addresses, and would be called name: that of the host with one of them, or
// that of the role with the first.
func choose(all []Package, role topology.Role, addrs []netip.Addr, name string) (Package, error) {
	const op = "find the host's package"
	var named []string
	for _, p := range all {
		if p.Host.Name == "" {
			continue
		}
		if slices.Contains(addrs, p.Host.Addr) {
			if p.Host.Role != role {
				return Package{}, fault.Newf(op, fault.Conflict, "%s is host %s, which is to be %s, not %s", p.Host.Addr, p.Host.Name, RoleName(p.Host.Role), RoleName(role))
			}
			return p, nil
		}
		if p.Host.Role == role {
			named = append(named, fmt.Sprintf("%s %s", p.Host.Name, p.Host.Addr))
		}
	}
	for _, p := range all {
		if p.Host.Name != "" || p.Host.Role != role || len(addrs) == 0 {
			continue
		}
		if i := slices.IndexFunc(all, func(o Package) bool { return o.Host.Name == name }); i >= 0 {
			return Package{}, fault.Newf(op, fault.Conflict, "there is a host %s already, with address %s; give this one another name: -n NAME", name, all[i].Host.Addr)
		}
		return p.Named(name, addrs[0]), nil
	}
	return Package{}, fault.Newf(op, fault.NotFound, "none of this machine's addresses (%s) is that of a %s in the file: %s", join(addrs), RoleName(role), strings.Join(named, ", "))
}

func join(addrs []netip.Addr) string {
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return strings.Join(out, ", ")
}
