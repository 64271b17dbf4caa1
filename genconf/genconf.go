// Package genconf renders everything that makes a machine a host of a cluster:
// the daemons' configuration, units, certificates and the few system files. It
// is pure: the same input gives the same bytes. What it writes for the daemons
// is built from the types that they read it into and checked by their own
// Validate.
//
// A host's files depend on the cluster, its masters and the host itself, never
// on other agents: adding an agent changes no other host.
package genconf

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"text/template"

	"dcos.example/dcos/installer/topology"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/resource"
)

// Input is what the files of one host are made of.
type Input struct {
	Topology *topology.Topology
	Host     topology.Host
	Release  string // version of the release that will run
	Secrets  Secrets
	// Machine is what was found on a machine of one's own. A local host has
	// none: all of it is ours.
	Machine *Machine
}

// Machine is a machine that has an owner: its name, its table of hosts and how
// it finds names stay theirs, as far as names of the cluster can be found.
type Machine struct {
	Resolved       bool         // systemd-resolved answers for it
	NetworkManager bool         // writes resolv.conf unless told not to
	Dhclient       bool         // likewise
	Resolvers      []netip.Addr // that it asked before us
	Search         string       // domains that it tries, as in resolv.conf
}

// Secrets are made once per cluster. Agents get the certificate of the CA and
// the join token only.
type Secrets struct {
	ClusterID string
	CACert    string // PEM
	CAKey     string // PEM
	JoinToken string
	SealKey   string // 32 bytes, base64
	AdminHash string // argon2id, in its usual text form
	// BackupRecipient is the age public key that backups are encrypted for.
	BackupRecipient string
	// Founders are the names of the masters that the cluster was made with;
	// none means all masters of the topology.
	Founders []string
}

// File is one file on a host.
type File struct {
	Content string
	Mode    fs.FileMode
	Secret  bool // the content must not be shown
}

// Rendered are the files of a host, by absolute path, and its units in the
// order in which they start.
type Rendered struct {
	Files map[string]File
	Units []string
}

//go:embed render/*.tmpl
var templates embed.FS

// Render returns the files of in.Host.
func Render(in Input) (Rendered, error) {
	out := Rendered{Files: map[string]File{
		config.CACertFile:    {Content: in.Secrets.CACert, Mode: 0o644},
		config.JoinTokenFile: {Content: line(in.Secrets.JoinToken), Mode: 0o600, Secret: true},
	}}
	system := map[string]string{}
	if in.Machine == nil {
		system["/etc/hosts"], system["/etc/hostname"], system[resolvConf] = hosts(in), line(in.Host.Name), ownResolver(nil, "")
	} else {
		resolver(*in.Machine, system)
	}
	for path, content := range system {
		out.Files[path] = File{Content: content, Mode: 0o644}
	}
	var err error
	if in.Host.Role == topology.RoleMaster {
		err = master(in, &out)
	} else {
		err = agent(in, &out)
	}
	if err == nil {
		err = putConfig(&out, config.MastersFile, masters(in))
	}
	if err != nil {
		return Rendered{}, err
	}
	for _, u := range out.Units {
		b, err := render(u+".tmpl", in.Machine != nil)
		if err != nil {
			return Rendered{}, err
		}
		out.Files[config.UnitDir+"/"+u] = File{Content: b, Mode: 0o644}
	}
	return out, nil
}

func cluster(in Input) config.Cluster {
	c := config.Cluster{ID: in.Secrets.ClusterID, Name: in.Topology.Cluster.Name, Release: in.Release}
	for _, r := range in.Topology.Cluster.Resolvers {
		c.Resolvers = append(c.Resolvers, r.String())
	}
	if m := in.Machine; m != nil && len(c.Resolvers) == 0 {
		for _, a := range m.Resolvers {
			c.Resolvers = append(c.Resolvers, netip.AddrPortFrom(a, config.PortDNS).String())
		}
	}
	return c
}

// masters is the list that daemons start with. What the cluster itself says
// later counts for more.
func masters(in Input) config.Masters {
	m := config.Masters{Founders: in.Secrets.Founders}
	for _, h := range in.Topology.Masters() {
		m.Masters = append(m.Masters, config.Member{Name: h.Name, Addr: h.Addr})
		if len(in.Secrets.Founders) == 0 {
			m.Founders = append(m.Founders, h.Name)
		}
	}
	return m
}

func master(in Input, out *Rendered) error {
	c := config.DefaultMaster()
	c.Cluster, c.Host = cluster(in), config.Host{Name: in.Host.Name, Addr: in.Host.Addr}
	if err := backups(in, &c.Backup, out); err != nil {
		return err
	}
	admin, err := json.Marshal(adminUser{UID: in.Topology.Cluster.AdminUser, PasswordHash: in.Secrets.AdminHash})
	if err != nil {
		return fault.New("render first user", fault.Internal, err)
	}
	out.Files[config.CAKeyFile] = File{Content: in.Secrets.CAKey, Mode: 0o600, Secret: true}
	out.Files[config.SealKeyFile] = File{Content: line(in.Secrets.SealKey), Mode: 0o600, Secret: true}
	out.Files[config.AdminHashFile] = File{Content: line(string(admin)), Mode: 0o600, Secret: true}
	out.Units = []string{config.UnitMaster}
	return putConfig(out, config.MasterFile, c)
}

// backups says when and where to the cluster is backed up. The cluster's own
// key comes first among those that can read them.
func backups(in Input, c *config.Backup, out *Rendered) error {
	if r := in.Secrets.BackupRecipient; r != "" {
		c.Recipients = []string{r}
	}
	b := in.Topology.Backup
	if b == nil {
		return nil
	}
	c.Every, c.Keep = config.Duration(b.Every), b.Keep
	c.Recipients = append(c.Recipients, b.Recipients...)
	if b.Dir != "" {
		c.Dir = b.Dir
	}
	if b.S3 == nil {
		return nil
	}
	c.S3 = &config.S3{Endpoint: b.S3.Endpoint, Bucket: b.S3.Bucket, Prefix: b.S3.Prefix, Region: b.S3.Region}
	keys, err := json.Marshal(config.S3Keys{AccessKey: b.S3.AccessKey, SecretKey: b.S3.SecretKey})
	if err != nil {
		return fault.New("render "+config.BackupKeysFile, fault.Internal, err)
	}
	out.Files[config.BackupKeysFile] = File{Content: line(string(keys)), Mode: 0o600, Secret: true}
	return nil
}

// adminUser is the content of config.AdminHashFile.
type adminUser struct {
	UID          string `json:"uid"`
	PasswordHash string `json:"password_hash"`
}

func agent(in Input, out *Rendered) error {
	c := config.DefaultAgent()
	c.Cluster, c.Host = cluster(in), config.Host{Name: in.Host.Name, Addr: in.Host.Addr}
	c.Public = in.Host.Role == topology.RolePublicAgent
	c.Attributes, c.Reservations = in.Host.Attributes, in.Host.Reservations
	c.Resources = resources(in.Host, in.Machine != nil)
	if err := reservable(c); err != nil {
		return err
	}
	toml, err := render("containerd.toml.tmpl", in.Machine != nil)
	if err != nil {
		return err
	}
	out.Files[config.ContainerdConf] = File{Content: toml, Mode: 0o644}
	out.Units = []string{config.UnitContainerd, config.UnitAgent}
	return putConfig(out, config.AgentFile, c)
}

// own is the memory that a host keeps for its daemons, and the disk for
// releases and images that are not counted against a task.
const (
	ownMemory = 256 * topology.MiB
	ownDisk   = 2 * topology.GiB
)

// publicRole is whom the resources of public agents are for.
const publicRole = "slave_public"

// resources is what an agent offers of its host, in Mesos' text form. A small
// host keeps no more than half for itself. What is not said, and which ports
// there are, the agent finds out. Of a machine with an owner it offers what
// they say.
func resources(h topology.Host, owned bool) string {
	role := ""
	if h.Role == topology.RolePublicAgent {
		role = "(" + publicRole + ")"
	}
	left := func(all, own topology.Size) int {
		if owned {
			return all.MiB()
		}
		return max(all-min(own, all), all/2).MiB()
	}
	var parts []string
	if h.CPUs > 0 {
		parts = append(parts, fmt.Sprintf("cpus%s:%s", role, number(h.CPUs)))
	}
	if h.Memory > 0 {
		parts = append(parts, fmt.Sprintf("mem%s:%d", role, left(h.Memory, ownMemory)))
	}
	if h.Disk > 0 {
		parts = append(parts, fmt.Sprintf("disk%s:%d", role, left(h.Disk, ownDisk)))
	}
	return strings.Join(parts, ";")
}

// reservable refuses reservations that the agent would not start with, as far
// as what it offers is known here.
func reservable(c config.Agent) error {
	op := "render agent " + c.Host.Name
	have, err := resource.Parse(c.Resources)
	if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	from := resource.AnyRole
	if c.Public {
		from = publicRole
	}
	known := map[string]bool{}
	for it := range have.All() {
		known[it.Name()] = true
	}
	var errs []error
	for _, role := range slices.Sorted(maps.Keys(c.Reservations)) {
		part, err := resource.Parse(c.Reservations[role])
		var next resource.Resources
		if err == nil {
			next, err = have.Assign(from, role, part.Filter(func(i resource.Item) bool { return known[i.Name()] }))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("reservations of %s: %w", role, err))
			continue
		}
		have = next
	}
	if err := errors.Join(errs...); err != nil {
		return fault.New(op, fault.Invalid, err)
	}
	return nil
}

// number writes thousandths, the precision that Mesos has.
func number(f float64) string {
	s := fmt.Sprintf("%.3f", math.Round(f*1000)/1000)
	return strings.TrimRight(strings.TrimRight(s, "0"), ".")
}

func putConfig[T interface{ Validate() error }](out *Rendered, path string, c T) error {
	if err := c.Validate(); err != nil {
		return err
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(c); err != nil {
		return fault.New("render "+path, fault.Internal, err)
	}
	out.Files[path] = File{Content: b.String(), Mode: 0o644}
	return nil
}

// hosts names the host itself and the masters, which must be found before DNS
// is up. Everything else is in DNS.
func hosts(in Input) string {
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	type entry struct {
		addr netip.Addr
		name string
	}
	var es []entry
	for _, m := range in.Topology.Masters() {
		es = append(es, entry{m.Addr, m.Name})
	}
	if self := (entry{in.Host.Addr, in.Host.Name}); !slices.Contains(es, self) {
		es = append(es, self)
	}
	for _, e := range es {
		fmt.Fprintf(&b, "%s\t%s\n", e.addr, e.name)
	}
	return b.String()
}

// Files that decide how a machine finds names, and the domains of the cluster.
const (
	resolvConf     = "/etc/resolv.conf"
	resolvedDropIn = "/etc/systemd/resolved.conf.d/dcos.conf"
	managerDropIn  = "/etc/NetworkManager/conf.d/90-dcos.conf"
	dhclientHook   = "/etc/dhcp/dhclient-enter-hooks.d/dcos"

	domains = "mesos thisdcos.directory dcos.directory"
)

// resolver makes the machine find the names of the cluster. Where
// systemd-resolved answers, it is told whom to ask for them, and all else
// stays. Otherwise resolv.conf is ours, and those who would write it over are
// told so.
func resolver(m Machine, files map[string]string) {
	if m.Resolved {
		routes := strings.Fields(domains)
		for i := range routes {
			routes[i] = "~" + routes[i]
		}
		files[resolvedDropIn] = "# Names of the cluster are asked for at the DNS server that DC/OS runs on this\n# machine.\n[Resolve]\nDNS=" +
			config.DNSAddr + "\nDomains=" + strings.Join(routes, " ") + "\n"
		return
	}
	files[resolvConf] = ownResolver(m.Resolvers, m.Search)
	if m.NetworkManager {
		files[managerDropIn] = "# DC/OS writes /etc/resolv.conf.\n[main]\ndns=none\n"
	}
	if m.Dhclient {
		files[dhclientHook] = "# DC/OS writes /etc/resolv.conf.\nmake_resolv_conf() { :; }\n"
	}
}

// ownResolver is a resolv.conf that asks our DNS server first, and those that
// were there before while it is down.
func ownResolver(then []netip.Addr, search string) string {
	var b strings.Builder
	b.WriteString("# The host's own DNS server answers for the cluster and asks ")
	if len(then) == 0 {
		b.WriteString("the resolvers of\n# the cluster for everything else.\n")
	} else {
		b.WriteString("others for\n# everything else. The rest is for when it is down.\n")
	}
	fmt.Fprintf(&b, "nameserver %s\n", config.DNSAddr)
	for _, a := range then {
		fmt.Fprintf(&b, "nameserver %s\n", a)
	}
	if search != "" {
		fmt.Fprintf(&b, "search %s\n", search)
	}
	b.WriteString("options timeout:2 attempts:2\n")
	return b.String()
}

func line(s string) string {
	if strings.HasSuffix(s, "\n") {
		return s
	}
	return s + "\n"
}

// paths is what templates may name.
type paths struct {
	Current, Bin, MasterFile, AgentFile, VarDir, RunDir, LogDir string
	ContainerdConf, ContainerdSock, UnitContainerd              string
	Owned                                                       bool // a machine that is not all ours
}

func render(name string, owned bool) (string, error) {
	t, err := template.ParseFS(templates, "render/"+name)
	if err != nil {
		return "", fault.New("read template "+name, fault.Internal, err)
	}
	var b bytes.Buffer
	err = t.Execute(&b, paths{
		Current: config.CurrentLink, Bin: config.CurrentLink + "/bin", MasterFile: config.MasterFile, AgentFile: config.AgentFile,
		VarDir: config.VarDir, RunDir: config.RunDir, LogDir: config.LogDir,
		ContainerdConf: config.ContainerdConf, ContainerdSock: config.ContainerdSock, UnitContainerd: config.UnitContainerd, Owned: owned,
	})
	if err != nil {
		return "", fault.New("render "+name, fault.Internal, err)
	}
	return b.String(), nil
}
