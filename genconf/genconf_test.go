package genconf_test

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dcos.example/dcos/genconf"
	"dcos.example/dcos/installer/topology"
	"dcos.example/dcos/providers/local/unit"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
)

var update = flag.Bool("update", false, "rewrite golden files")

func host(name string, role topology.Role, addr string) topology.Host {
	return topology.Host{Name: name, Role: role, Addr: netip.MustParseAddr(addr), CPUs: 1.5, Memory: 2 * topology.GiB, Disk: 10 * topology.GiB}
}

func input(h topology.Host, others ...topology.Host) genconf.Input {
	top := &topology.Topology{
		Cluster: topology.Cluster{Name: "demo", AdminUser: "admin", Resolvers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:53")}},
		Network: topology.Network{Range: netip.MustParsePrefix("198.18.0.0/24")},
		Hosts:   append([]topology.Host{host("master-1", topology.RoleMaster, "198.18.0.11"), h}, others...),
	}
	if h.Role == topology.RoleMaster {
		top.Hosts = top.Hosts[1:]
	}
	return genconf.Input{Topology: top, Host: h, Release: "0.1.0", Secrets: genconf.Secrets{
		ClusterID: "0b9c1b1e-5a0a-4c8e-9a54-8a3f6a3a7f11", CACert: "-----BEGIN CERTIFICATE-----\nCA\n-----END CERTIFICATE-----\n",
		CAKey: "-----BEGIN PRIVATE KEY-----\nKEY\n-----END PRIVATE KEY-----\n", JoinToken: "JOIN", SealKey: "SEAL", AdminHash: "$argon2id$HASH"}}
}

func TestRender(t *testing.T) {
	agent := host("agent-1", topology.RoleAgent, "198.18.0.21")
	agent.Attributes = map[string]string{"rack": "r1", "disk": "ssd"}
	agent.Reservations = map[string]string{"db-role": "cpus:0.5;mem:512;ports:[9000-9009]"}
	for _, h := range []topology.Host{
		host("master-1", topology.RoleMaster, "198.18.0.11"), agent, host("public-agent-1", topology.RolePublicAgent, "198.18.0.254"),
	} {
		t.Run(h.Name, func(t *testing.T) { golden(t, h.Name, input(h)) })
	}
}

// Machines of one's own, as they are found with the distributions' own
// settings.
func TestRenderOwned(t *testing.T) {
	addrs := func(as ...string) (out []netip.Addr) {
		for _, a := range as {
			out = append(out, netip.MustParseAddr(a))
		}
		return out
	}
	machines := map[string]*genconf.Machine{
		"debian12":   {Dhclient: true, Resolvers: addrs("10.0.0.2", "10.0.0.3"), Search: "corp.example"},
		"ubuntu2404": {Resolved: true, Resolvers: addrs("10.0.0.2")},
		"rhel9":      {NetworkManager: true, Resolvers: addrs("10.0.0.2")},
		"sles15":     {},
	}
	own := func(name string, r topology.Role, addr string) topology.Host {
		return topology.Host{Name: name, Role: r, Addr: netip.MustParseAddr(addr)}
	}
	for os, m := range machines {
		master, agent, public := own("m1", topology.RoleMaster, "10.0.0.11"), own("a1", topology.RoleAgent, "10.0.0.21"), own("p1", topology.RolePublicAgent, "10.0.0.31")
		public.CPUs, public.Memory = 1.5, 512*topology.MiB
		for _, h := range []topology.Host{master, agent, public} {
			in := input(h)
			in.Topology.Provider, in.Topology.Network, in.Topology.Cluster.Resolvers = topology.OnPrem, topology.Network{}, nil
			in.Topology.Hosts[0] = master
			in.Topology.Backup = &topology.Backup{Every: 24 * time.Hour, Keep: 3, Recipients: []string{"age1me"}, S3: &topology.S3{
				Endpoint: "https://s3.example.com", Bucket: "b", AccessKey: "AKIA0", SecretKey: "S3SECRET"}}
			in.Secrets.BackupRecipient, in.Secrets.Founders = "age1cluster", []string{"m0"}
			in.Machine = m
			if h.Role == topology.RoleMaster || os == "debian12" {
				t.Run(os+" "+h.Name, func(t *testing.T) { golden(t, os+"-"+h.Name, in) })
			}
			r, err := genconf.Render(in)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range []string{"/etc/hosts", "/etc/hostname"} {
				if _, ok := r.Files[p]; ok {
					t.Errorf("%s %s: %s is the owner's", os, h.Name, p)
				}
			}
			for p, f := range r.Files {
				if h.Role != topology.RoleMaster && strings.Contains(f.Content, "S3SECRET") {
					t.Errorf("%s of %s holds a key of the store", p, h.Name)
				}
			}
		}
	}
}

// Units of machines are read by the first process of local hosts too.
func TestUnitsAreRead(t *testing.T) {
	for _, owned := range []*genconf.Machine{nil, {}} {
		for _, h := range []topology.Host{host("master-1", topology.RoleMaster, "198.18.0.11"), host("agent-1", topology.RoleAgent, "198.18.0.21")} {
			in := input(h)
			in.Machine = owned
			r, err := genconf.Render(in)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range r.Units {
				u, err := unit.Parse(name, r.Files[config.UnitDir+"/"+name].Content)
				if err != nil || len(u.Warnings) > 0 {
					t.Errorf("%s: %v %v", name, err, u.Warnings)
				}
				for _, pre := range u.StartPre {
					if owned == nil || !pre.IgnoreFailure {
						t.Errorf("%s: %v", name, pre)
					}
				}
			}
		}
	}
}

// golden compares all files of a host.
func golden(t *testing.T, name string, in genconf.Input) {
	t.Helper()
	r, err := genconf.Render(in)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "units: %s\n", strings.Join(r.Units, " "))
	for _, path := range slices.Sorted(maps.Keys(r.Files)) {
		f := r.Files[path]
		fmt.Fprintf(&b, "\n==== %s %04o secret=%t\n%s", path, f.Mode, f.Secret, f.Content)
		if f.Secret != (f.Mode == 0o600) {
			t.Errorf("%s: secret files, and no others, are for root alone", path)
		}
		if f.Content == "" || !strings.HasSuffix(f.Content, "\n") {
			t.Errorf("%s is empty or does not end with a newline", path)
		}
	}
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), b.String()); d != "" {
		t.Error(d)
	}
}

// The daemons read what is written, and nothing of it is unknown to them.
func TestDaemonsReadIt(t *testing.T) {
	dir := t.TempDir()
	write := func(h topology.Host, path string) string {
		r, err := genconf.Render(input(h))
		if err != nil {
			t.Fatal(err)
		}
		p := filepath.Join(dir, filepath.Base(path))
		if err := os.WriteFile(p, []byte(r.Files[path].Content), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	m, err := config.Load(write(host("master-1", topology.RoleMaster, "198.18.0.11"), config.MasterFile), config.Master{})
	if err != nil || m.Host.Name != "master-1" || m.Cluster.Resolvers[0] != "192.0.2.1:53" {
		t.Errorf("master: %+v %v", m, err)
	}
	for _, h := range []topology.Host{host("master-1", topology.RoleMaster, "198.18.0.11"), host("agent-1", topology.RoleAgent, "198.18.0.21")} {
		l, err := config.Load(write(h, config.MastersFile), config.Masters{})
		if err != nil || len(l.Masters) != 1 || l.Masters[0].Name != "master-1" || len(l.Founders) != 1 || l.Founders[0] != "master-1" {
			t.Errorf("masters on %s: %+v %v", h.Name, l, err)
		}
	}
	a, err := config.Load(write(host("public-agent-1", topology.RolePublicAgent, "198.18.0.254"), config.AgentFile), config.Agent{})
	if err != nil || !a.Public || a.Cluster.ID == "" || a.Resources != "cpus(slave_public):1.5;mem(slave_public):1792;disk(slave_public):8192" {
		t.Errorf("agent: %+v %v", a, err)
	}
}

// What the agent would refuse is refused before it is written.
func TestTooMuchReserved(t *testing.T) {
	for _, h := range []topology.Host{host("agent-1", topology.RoleAgent, "198.18.0.21"), host("public-agent-1", topology.RolePublicAgent, "198.18.0.254")} {
		h.Reservations = map[string]string{"db": "mem:1792;gpus:8", "web": "mem:1"}
		_, err := genconf.Render(input(h))
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), h.Name) || !strings.Contains(err.Error(), "mem:1 are not there for role 'web'") {
			t.Errorf("%s: %v", h.Name, err)
		}
	}
}

// Adding an agent must not touch the other hosts.
func TestAgentsDoNotKnowEachOther(t *testing.T) {
	a := host("agent-1", topology.RoleAgent, "198.18.0.21")
	for _, h := range []topology.Host{host("master-1", topology.RoleMaster, "198.18.0.11"), a} {
		alone, err := genconf.Render(input(h))
		if err != nil {
			t.Fatal(err)
		}
		more, err := genconf.Render(input(h, host("agent-2", topology.RoleAgent, "198.18.0.22")))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(alone, more); d != "" {
			t.Errorf("%s changes when agent-2 comes:\n%s", h.Name, d)
		}
	}
}

// Agents must not hold what would let them sign certificates, read secrets at
// rest or sign in.
func TestAgentsHoldNoKeys(t *testing.T) {
	r, err := genconf.Render(input(host("agent-1", topology.RoleAgent, "198.18.0.21")))
	if err != nil {
		t.Fatal(err)
	}
	for path, f := range r.Files {
		for _, secret := range []string{"KEY", "SEAL", "HASH"} {
			if strings.Contains(f.Content, secret) {
				t.Errorf("%s holds %s", path, secret)
			}
		}
	}
}

func TestRefusesWhatDaemonsWouldRefuse(t *testing.T) {
	in := input(host("agent-1", topology.RoleAgent, "198.18.0.21"))
	in.Secrets.ClusterID = ""
	if _, err := genconf.Render(in); fault.KindOf(err) != fault.Invalid || err == nil {
		t.Errorf("no cluster id: %v", err)
	}
}

func TestSmallHostsKeepHalf(t *testing.T) {
	h := host("agent-1", topology.RoleAgent, "198.18.0.21")
	h.Memory, h.Disk = 300*topology.MiB, topology.GiB
	r, err := genconf.Render(input(h))
	if err != nil {
		t.Fatal(err)
	}
	if c := r.Files[config.AgentFile].Content; !strings.Contains(c, "mem:150;disk:512\"") {
		t.Error(c)
	}
}

// Who founded the cluster stays the same, whoever is a master now.
func TestFounders(t *testing.T) {
	in := input(host("master-2", topology.RoleMaster, "198.18.0.12"), host("master-3", topology.RoleMaster, "198.18.0.13"))
	in.Secrets.Founders = []string{"master-1"}
	r, err := genconf.Render(in)
	if err != nil {
		t.Fatal(err)
	}
	if c := r.Files[config.MastersFile].Content; !strings.Contains(c, `"founders": [
    "master-1"
  ]`) || strings.Contains(c, `"name": "master-1"`) || !strings.Contains(c, `"name": "master-3"`) {
		t.Error(c)
	}
}
