//go:build e2e

package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const lostCIDR = "198.19.70.0/24"

const lost = `
variable "admin_password" {
  type      = string
  sensitive = true
}

cluster "e2elost" {
  admin_password = var.admin_password
}

provider "local" {
  range = "` + lostCIDR + `"
}

node_group "master" {
  count  = 3
  cpus   = 1
  memory = "1GiB"
  disk   = "4GiB"
}

node_group "agent" {
  count  = 2
  cpus   = 1
  memory = "1GiB"
  disk   = "4GiB"
}

backup {
  every = "24h"
  keep  = 3
}
`

const lostPassword = "Pa55-for-lost"

// TestRecovery loses one thing after the other, and brings it back: the
// installer's state, the majority, what happened since a backup, everything.
func TestRecovery(t *testing.T) {
	t.Setenv("DCOS_VAR_admin_password", lostPassword)
	t.Setenv("DCOS_ADMIN_PASSWORD", lostPassword)
	c := newCluster(t, "e2elost", lostCIDR, lost)
	c.install(t, "apply", "-auto-approve")
	c.print.look(t)
	c.login(t)
	must(t, c.call("POST", marathon+"/apps", sleeper("/kept", "sleep 100000", object{"instances": 3}), nil))
	must(t, c.call("PUT", "/acs/api/v1/users/ann", object{"password": "ann-has-one", "description": "Ann"}, nil))
	before := c.await(t, "/kept")

	step := func(name string, f func(*testing.T)) {
		if !t.Run(name, f) {
			t.FailNow()
		}
	}
	step("adopt", c.testAdopt)
	step("majority lost", func(t *testing.T) { c.testMajorityLost(t, before) })
	file := filepath.Join(c.dir, "saved.backup")
	step("backup", func(t *testing.T) {
		out := c.install(t, "backup", "-out", file, "-verify")
		if !strings.Contains(out, "Verified in the cluster") || !strings.Contains(out, "all in it is as written") {
			t.Errorf("backup says\n%s", out)
		}
		must(t, c.call("POST", marathon+"/apps", sleeper("/later", "sleep 100000", nil), nil))
		c.await(t, "/later")
	})
	step("restore in place", func(t *testing.T) {
		before := c.await(t, "/kept")
		c.install(t, "restore", file, "-auto-approve")
		same(t, before, c.await(t, "/kept"))
		c.forgotten(t, "/later")
	})
	key := c.install(t, "backup", "key", "-reveal")
	ca, id := c.install(t, "output", "-raw", "ca_certificate"), c.install(t, "output", "-raw", "cluster_id")
	step("restore onto new hosts", func(t *testing.T) {
		c.install(t, "destroy", "-auto-approve")
		c.print.gone(t)
		must(t, os.RemoveAll(filepath.Join(c.dir, ".dcos")))
		keyFile := c.write(t, "key.txt", key)
		c.install(t, "restore", file, "-identity", keyFile, "-auto-approve")
		c.print.look(t)
		c.login(t)
		if c.install(t, "output", "-raw", "ca_certificate") != ca || c.install(t, "output", "-raw", "cluster_id") != id {
			t.Error("the cluster has another id or CA than before")
		}
		c.voters(t)
		after := c.await(t, "/kept")
		if slices.Equal(ids(before), ids(after)) {
			t.Error("tasks of hosts that are gone are said to run")
		}
		c.forgotten(t, "/later")
		must(t, c.call("POST", "/acs/api/v1/auth/login", object{"uid": "ann", "password": "ann-has-one"}, nil))
		if out := c.install(t, "plan"); !strings.Contains(out, "Nothing to do") {
			t.Errorf("the plan after a restore says\n%s", out)
		}
	})
	step("support bundle", c.testSupportBundle)
	step("destroy by id", func(t *testing.T) {
		elsewhere := t.TempDir()
		_, err := c.try("dcos-install", "-chdir", elsewhere, "destroy", "-cluster-id", "another", "-via", c.masters[1], "-ca-fingerprint", c.fingerprint(t), "-auto-approve")
		if err == nil || !strings.Contains(err.Error(), "nothing was changed") {
			t.Errorf("with another id: %v", err)
		}
		c.install(t, "-chdir", elsewhere, "destroy", "-cluster-id", strings.TrimSpace(id), "-via", c.masters[1], "-ca-fingerprint", c.fingerprint(t), "-auto-approve")
		c.print.gone(t)
		must(t, os.RemoveAll(filepath.Join(c.dir, ".dcos"))) // it tells of what is gone
	})
}

// login is setup without the CLI.
func (c *cluster) login(t *testing.T) {
	t.Helper()
	c.token, c.masters, c.next = "", nil, 0
	c.client(t)
	var session struct{ Token string }
	must(t, c.call("POST", "/acs/api/v1/auth/login", object{"uid": "admin", "password": lostPassword}, &session))
	c.token = session.Token
}

func (c *cluster) forgotten(t *testing.T, id string) {
	t.Helper()
	eventually(t, id+" is not known", func() error {
		if _, err := c.app(id); err == nil || !strings.Contains(err.Error(), "404") {
			return fmt.Errorf("asked for it: %v", err)
		}
		return nil
	})
}

// fingerprint of the cluster's CA, as an operator reads it on a master.
func (c *cluster) fingerprint(t *testing.T) string {
	t.Helper()
	_, err := c.try("dcos-install", "-chdir", t.TempDir(), "adopt", c.masters[0])
	_, rest, ok := strings.Cut(fmt.Sprint(err), "-ca-fingerprint ")
	if !ok {
		t.Fatalf("adopt does not show the fingerprint: %v", err)
	}
	return strings.Fields(rest)[0]
}

// testAdopt: who has nothing but an address and the password goes on where the
// lost machine stopped.
func (c *cluster) testAdopt(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("DCOS_VAR_admin_password", "") // it comes with the state
	dir := filepath.Join(home, "work")
	must(t, os.Mkdir(dir, 0o700))
	print := c.fingerprint(t)
	c.install(t, "-chdir", dir, "adopt", c.masters[2], "-ca-fingerprint", print)
	want, err := os.ReadFile(filepath.Join(c.dir, "cluster.hcl"))
	must(t, err)
	got, err := os.ReadFile(filepath.Join(dir, "cluster.hcl"))
	must(t, err)
	if !bytes.Equal(want, got) {
		t.Errorf("the file is\n%s", got)
	}
	if out := c.install(t, "-chdir", dir, "plan", "-var-file", "cluster.vars.json"); !strings.Contains(out, "Nothing to do") {
		t.Errorf("the plan of who adopted says\n%s", out)
	}
	// Two have the state now. Who works on finds out about the other.
	c.install(t, "-chdir", dir, "apply", "-auto-approve", "-var-file", "cluster.vars.json")
}

// voters waits until all masters take their full part.
func (c *cluster) voters(t *testing.T) {
	t.Helper()
	eventually(t, "three masters vote", func() error {
		var m struct {
			Members []struct {
				Role    string
				Healthy bool
			}
		}
		if err := c.call(http.MethodGet, "/system/v1/members", nil, &m); err != nil {
			return err
		}
		for _, one := range m.Members {
			if one.Role != "voter" || !one.Healthy || len(m.Members) != 3 {
				return fmt.Errorf("members are %+v", m.Members)
			}
		}
		return nil
	})
}

// testMajorityLost: two of three masters are gone for good.
func (c *cluster) testMajorityLost(t *testing.T, before app) {
	if _, err := c.try("dcos-install", "recover", "-auto-approve"); err == nil || !strings.Contains(err.Error(), "nothing to recover") {
		t.Errorf("recover of a cluster that is well: %v", err)
	}
	for _, m := range []string{"master-1", "master-2"} {
		c.install(t, "host", "stop", "-now", m)
	}
	c.install(t, "recover", "-auto-approve")
	c.masters = []string{c.address(t, "master-3")}
	same(t, before, c.await(t, "/kept"))
	must(t, c.call("POST", marathon+"/apps", sleeper("/alone", "sleep 100000", nil), nil))
	c.await(t, "/alone")
	c.install(t, "apply", "-auto-approve") // the others come back, empty
	c.login(t)
	c.voters(t)
	same(t, before, c.await(t, "/kept"))
}

// testSupportBundle: it tells of every host, also of one that is down, and no
// secrets.
func (c *cluster) testSupportBundle(t *testing.T) {
	c.install(t, "host", "stop", "-now", "agent-2")
	var doc struct {
		Hosts       []string
		Unreachable map[string]string
	}
	file := filepath.Join(c.dir, "support.tar.gz")
	must(t, json.Unmarshal([]byte(c.install(t, "support-bundle", "-out", file, "-json")), &doc))
	if len(doc.Hosts) != 4 || doc.Unreachable["agent-2"] == "" {
		t.Errorf("%+v", doc)
	}
	token, err := c.on("master-1", "cat /etc/dcos/pki/join-token")
	must(t, err)
	all := unpack(t, file)
	for _, hidden := range []string{strings.TrimSpace(token), lostPassword, "PRIVATE KEY", "AGE-SECRET-KEY"} {
		for name, text := range all {
			if strings.Contains(text, hidden) {
				t.Errorf("%s shows %.12s…", name, hidden)
			}
		}
	}
	for _, want := range []string{"hosts/master-1/nft.txt", "hosts/agent-1/logs.txt", "hosts/agent-2/unreachable.txt", "cluster/members.json", "installer/history.json"} {
		if !slices.ContainsFunc(keys(all), func(k string) bool { return strings.HasSuffix(k, want) }) {
			t.Errorf("there is no %s in %v", want, keys(all))
		}
	}
	c.install(t, "host", "start", "agent-2")
}

func keys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

// unpack reads a compressed tar.
func unpack(t *testing.T, file string) map[string]string {
	t.Helper()
	f, err := os.Open(file)
	must(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	must(t, err)
	out := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return out
		}
		must(t, err)
		b, err := io.ReadAll(r)
		must(t, err)
		out[h.Name] = string(b)
	}
}
