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
	"fmt"
	"io/fs"
	"math"
	"net/netip"
	"slices"
	"strings"
	"text/template"

	"dcos.example/dcos/installer/topology"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
)

// Input is what the files of one host are made of.
type Input struct {
	Topology *topology.Topology
	Host     topology.Host
	Release  string // version of the release that will run
	Secrets  Secrets
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
		"/etc/hosts":         {Content: hosts(in), Mode: 0o644},
		"/etc/hostname":      {Content: line(in.Host.Name), Mode: 0o644},
		"/etc/resolv.conf":   {Content: resolvConf(), Mode: 0o644},
	}}
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
		b, err := render(u + ".tmpl")
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
	if r := in.Secrets.BackupRecipient; r != "" {
		c.Backup.Recipients = []string{r}
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

// adminUser is the content of config.AdminHashFile.
type adminUser struct {
	UID          string `json:"uid"`
	PasswordHash string `json:"password_hash"`
}

func agent(in Input, out *Rendered) error {
	c := config.DefaultAgent()
	c.Cluster, c.Host = cluster(in), config.Host{Name: in.Host.Name, Addr: in.Host.Addr}
	c.Public = in.Host.Role == topology.RolePublicAgent
	c.Attributes = in.Host.Attributes
	c.Resources = resources(in.Host)
	toml, err := render("containerd.toml.tmpl")
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
// host keeps no more than half for itself. Which ports there are the agent
// knows best.
func resources(h topology.Host) string {
	role := ""
	if h.Role == topology.RolePublicAgent {
		role = "(" + publicRole + ")"
	}
	left := func(all, own topology.Size) int { return max(all-min(own, all), all/2).MiB() }
	return fmt.Sprintf("cpus%[1]s:%[2]s;mem%[1]s:%[3]d;disk%[1]s:%[4]d", role, number(h.CPUs), left(h.Memory, ownMemory), left(h.Disk, ownDisk))
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

func resolvConf() string {
	return "# The host's own DNS server answers for the cluster and asks the resolvers of\n# the cluster for everything else.\nnameserver " +
		config.DNSAddr + "\noptions timeout:2 attempts:2\n"
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
}

func render(name string) (string, error) {
	t, err := template.ParseFS(templates, "render/"+name)
	if err != nil {
		return "", fault.New("read template "+name, fault.Internal, err)
	}
	var b bytes.Buffer
	err = t.Execute(&b, paths{
		Current: config.CurrentLink, Bin: config.CurrentLink + "/bin", MasterFile: config.MasterFile, AgentFile: config.AgentFile,
		VarDir: config.VarDir, RunDir: config.RunDir, LogDir: config.LogDir,
		ContainerdConf: config.ContainerdConf, ContainerdSock: config.ContainerdSock, UnitContainerd: config.UnitContainerd,
	})
	if err != nil {
		return "", fault.New("render "+name, fault.Internal, err)
	}
	return b.String(), nil
}
