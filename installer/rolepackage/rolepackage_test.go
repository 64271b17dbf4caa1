package rolepackage_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"

	"dcos.example/dcos/installer/rolepackage"
	"dcos.example/dcos/installer/topology"
	"dcos.example/dcos/runtime/fault"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// cluster has one master, one agent and one public agent.
func cluster() *topology.Topology {
	login := &topology.Connection{Login: topology.Login{Address: "10.0.0.1", User: "admin", Password: "l0gin-secret"}, SudoPassword: "sud0-secret"}
	return &topology.Topology{
		Provider: topology.OnPrem,
		Cluster:  topology.Cluster{Name: "prod", AdminUser: "admin", AdminPassword: "adm1n-secret"},
		Hosts: []topology.Host{
			{Name: "m1", Role: topology.RoleMaster, Addr: addr("10.0.0.11"), Connection: login},
			{Name: "a1", Role: topology.RoleAgent, Addr: addr("10.0.0.21"), Connection: login, Attributes: map[string]string{"zone": "a"}},
			{Name: "p1", Role: topology.RolePublicAgent, Addr: addr("10.0.0.31"), Connection: login},
		},
		Backup: &topology.Backup{S3: &topology.S3{Endpoint: "s3.example", Bucket: "b", AccessKey: "key", SecretKey: "s3-secret"}},
	}
}

func outputs() resource.PropertyMap {
	secret := func(s string) resource.PropertyValue { return resource.MakeSecret(resource.NewProperty(s)) }
	return resource.PropertyMap{
		"clusterId": resource.NewProperty("0b9c1b1e-5a0a-4c8e-9a54-8a3f6a3a7f11"), "caCert": resource.NewProperty("CERT"), "joinToken": secret("j0in-secret"),
		"caKey": secret("cakey-secret"), "sealKey": secret("seal-secret"), "adminHash": secret("hash-secret"),
		"founders": resource.NewProperty([]resource.PropertyValue{resource.NewProperty("m1")}), "backupRecipient": resource.NewProperty("age1x"),
	}
}

func packages(t *testing.T) []rolepackage.Package {
	t.Helper()
	c := cluster()
	s, err := rolepackage.ReadSecrets(outputs(), c)
	if err != nil {
		t.Fatal(err)
	}
	return rolepackage.All(c, rolepackage.Release{Version: "0.1.0", Digest: "d", Bundle: "x.bundle"}, s, []string{"RWkey"})
}

// directory writes the packages with stand-ins for the program and the bundle.
func directory(t *testing.T) rolepackage.Directory {
	t.Helper()
	src := t.TempDir()
	for name, text := range map[string]string{"program": "#!/bin/sh\necho ran \"$@\" token=$DCOS_TOKEN\n", "x.bundle": "bundle"} {
		if err := os.WriteFile(filepath.Join(src, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	d := rolepackage.Directory{Path: filepath.Join(t.TempDir(), "genconf")}
	if err := d.Write(rolepackage.Contents{Packages: packages(t), Program: filepath.Join(src, "program"), Bundle: filepath.Join(src, "x.bundle")}); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestWhoGetsWhichSecrets: agents get none by which they could be masters, and
// nobody gets how to log in.
func TestWhoGetsWhichSecrets(t *testing.T) {
	d := directory(t)
	masters := []string{"cakey-secret", "seal-secret", "hash-secret", "s3-secret"}
	for file, want := range map[string][]string{
		"m1": append(masters, "j0in-secret"), "a1": {"j0in-secret"}, "p1": {"j0in-secret"}, "any-slave": {"j0in-secret"}, "any-slave_public": {"j0in-secret"},
	} {
		path := filepath.Join(d.Path, "packages", file+".json")
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range append(masters, "j0in-secret", "l0gin-secret", "sud0-secret", "adm1n-secret") {
			wanted := false
			for _, w := range want {
				wanted = wanted || w == s
			}
			if strings.Contains(string(b), s) != wanted {
				t.Errorf("%s: holds %s: %t, want %t", file, s, !wanted, wanted)
			}
		}
		if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", file, fi.Mode(), err)
		}
		if file != "a1" && strings.Contains(string(b), "10.0.0.21") {
			t.Errorf("%s knows of another agent", file)
		}
	}
	if fi, err := os.Stat(d.Path); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("%v %v", fi.Mode(), err)
	}
}

func TestWriteReplaces(t *testing.T) {
	d := directory(t)
	for _, stale := range []string{"old.bundle", "packages/gone.json"} {
		if err := os.WriteFile(filepath.Join(d.Path, stale), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	err := d.Write(rolepackage.Contents{Packages: packages(t), Program: filepath.Join(d.Path, "dcos-install"), Bundle: filepath.Join(d.Path, "x.bundle")})
	if err != nil {
		t.Fatal(err)
	}
	all, err := d.Packages()
	if err != nil || len(all) != 5 {
		t.Errorf("%d packages, %v", len(all), err)
	}
	if _, err := os.Stat(filepath.Join(d.Path, "old.bundle")); err == nil {
		t.Error("the bundle of another release is still there")
	}
}

func TestTake(t *testing.T) {
	all := packages(t)
	byFile := func(i int) rolepackage.Package { return all[i] }
	machine := func(role topology.Role, name string, addrs ...string) rolepackage.Machine {
		m := rolepackage.Machine{Role: role, Name: name}
		for _, a := range addrs {
			m.Addrs = append(m.Addrs, addr(a))
		}
		return m
	}
	for name, test := range map[string]struct {
		p    rolepackage.Package
		m    rolepackage.Machine
		want string // host and address, or a part of the error
	}{
		"the host":              {byFile(0), machine(topology.RoleMaster, "x", "192.168.0.1", "10.0.0.11"), "m1 10.0.0.11"},
		"another host":          {byFile(0), machine(topology.RoleMaster, "x", "192.168.0.1"), "m1 10.0.0.11"},
		"the host, wrong role":  {byFile(0), machine(topology.RoleAgent, "x", "10.0.0.11"), "is to be master, not slave"},
		"any agent":             {byFile(3), machine(topology.RoleAgent, "rack-7", "10.0.0.77", "172.16.0.1"), "rack-7 10.0.0.77"},
		"any agent, no address": {byFile(3), machine(topology.RoleAgent, "rack-7"), "none of this machine's addresses"},
		"any agent, wrong role": {byFile(3), machine(topology.RolePublicAgent, "rack-7", "10.0.0.77"), "none of this machine's addresses"},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := test.p.Take(test.m)
			got := p.Host.Name + " " + p.Host.Addr.String()
			if err != nil {
				got = err.Error()
			}
			if !strings.Contains(got, test.want) {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	for name, text := range map[string]string{"no JSON": "x", "another file": "{}", "a newer format": `{"format":9,"secrets":{"clusterId":"x"}}`} {
		if _, err := rolepackage.Decode([]byte(text)); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := rolepackage.Read(filepath.Join(t.TempDir(), "none")); !fault.Is(err, fault.NotFound) {
		t.Errorf("no file: %v", err)
	}
	if _, err := (rolepackage.Directory{Path: t.TempDir()}).Packages(); !fault.Is(err, fault.NotFound) {
		t.Errorf("an empty directory: %v", err)
	}
	in := outputs()
	delete(in, "sealKey")
	if _, err := rolepackage.ReadSecrets(in, cluster()); err == nil || !strings.Contains(err.Error(), "sealKey") {
		t.Errorf("secrets without one: %v", err)
	}
}

func TestRoles(t *testing.T) {
	for text, want := range map[string]topology.Role{
		"master": topology.RoleMaster, "slave": topology.RoleAgent, "agent": topology.RoleAgent,
		"slave_public": topology.RolePublicAgent, "public_agent": topology.RolePublicAgent,
	} {
		if got, err := rolepackage.ParseRole(text); err != nil || got != want {
			t.Errorf("%s: %s %v", text, got, err)
		}
	}
	if _, err := rolepackage.ParseRole("minuteman"); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

func addrs(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range texts {
		out = append(out, addr(s))
	}
	return out
}
