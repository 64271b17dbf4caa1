package topology_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"dcos.example/dcos/installer/blueprint"
	"dcos.example/dcos/installer/diag"
	"dcos.example/dcos/installer/topology"
)

var update = flag.Bool("update", false, "rewrite golden files")

func source(cidr string, masters, agents, public int) string {
	return fmt.Sprintf(`
cluster "demo" {}
provider "local" {
  range = %q
}
node_group "master" { count = %d }
node_group "agent" { count = %d }
node_group "public_agent" { count = %d }
`, cidr, masters, agents, public)
}

func load(t interface{ Fatalf(string, ...any) }, src string) (*blueprint.Blueprint, *topology.Topology, diag.List) {
	bp, l := blueprint.Parse(blueprint.Source{Name: "cluster.hcl", Text: []byte(src)}, blueprint.Values{})
	if l.HasErrors() {
		t.Fatalf("parse: %v", l)
	}
	top, l := topology.New(bp)
	return bp, top, l
}

func TestHosts(t *testing.T) {
	_, top, l := load(t, source("198.18.7.0/24", 3, 2, 2))
	if len(l) > 0 {
		t.Fatal(l)
	}
	var got []string
	for _, h := range top.Hosts {
		got = append(got, fmt.Sprintf("%s %s %s", h.Name, h.Role, h.Addr))
	}
	want := []string{
		"master-1 master 198.18.7.11", "master-2 master 198.18.7.12", "master-3 master 198.18.7.13",
		"agent-1 agent 198.18.7.21", "agent-2 agent 198.18.7.22",
		"public-agent-1 public_agent 198.18.7.254", "public-agent-2 public_agent 198.18.7.253",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if top.Network.Gateway != netip.MustParseAddr("198.18.7.1") {
		t.Errorf("gateway is %s", top.Network.Gateway)
	}
}

// Whatever grows or shrinks, a host that is in both clusters has the same
// address in both; no two hosts share one; all are inside the range, and none
// is the network, the gateway or the broadcast address.
func TestAddressesAreStable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bits := rapid.IntRange(20, 28).Draw(t, "bits")
		cidr := fmt.Sprintf("198.18.0.0/%d", bits)
		pre := netip.MustParsePrefix(cidr)
		size := 1 << (32 - bits)
		draw := func(what string) map[string]netip.Addr {
			m := rapid.SampledFrom([]int{1, 3, 5}).Draw(t, what+" masters")
			a := rapid.IntRange(0, min(size, 60)).Draw(t, what+" agents")
			p := rapid.IntRange(0, min(size, 60)).Draw(t, what+" public")
			_, top, l := load(t, source(cidr, m, a, p))
			if l.HasErrors() {
				if room := size - 2 - 20; a+p <= room && bits <= 26 || a+p <= size-2-6 && bits > 26 {
					t.Fatalf("%s with %d agents is refused: %v", cidr, a+p, l)
				}
				return nil
			}
			out, used := map[string]netip.Addr{}, map[netip.Addr]string{top.Network.Gateway: "gateway"}
			for _, h := range top.Hosts {
				if other, ok := used[h.Addr]; ok {
					t.Fatalf("%s and %s share %s", h.Name, other, h.Addr)
				}
				used[h.Addr] = h.Name
				out[h.Name] = h.Addr
				b := h.Addr.As4()
				last := int(b[2])<<8 | int(b[3])
				if !pre.Contains(h.Addr) || last == 0 || last == size-1 {
					t.Fatalf("%s has %s of %s", h.Name, h.Addr, pre)
				}
			}
			if len(out) != m+a+p {
				t.Fatalf("%d hosts, not %d", len(out), m+a+p)
			}
			return out
		}
		before, after := draw("before"), draw("after")
		for name, addr := range before {
			if other, ok := after[name]; ok && other != addr {
				t.Fatalf("%s moved from %s to %s", name, addr, other)
			}
		}
	})
}

func TestRangesRefused(t *testing.T) {
	var out bytes.Buffer
	for _, c := range []struct {
		cidr          string
		agents, publc int
	}{
		{"198.18.0.0/29", 1, 0}, {"10.0.0.0/7", 1, 0}, {"198.18.0.0/28", 6, 4}, {"198.18.0.0/24", 300, 0}, {"198.18.0.5/24", 1, 0},
		{"11.1.0.0/24", 1, 0}, {"9.0.0.0/24", 1, 0}, {"198.51.100.0/24", 1, 0}, {"172.31.0.0/16", 1, 0}, {"127.0.0.0/24", 1, 0},
		{"224.0.0.0/24", 1, 0}, {"fd00::/64", 1, 0}, {"0.0.0.0/24", 1, 0}, {"8.0.0.0/8", 1, 0},
	} {
		bp, top, l := load(t, source(c.cidr, 1, c.agents, c.publc))
		fmt.Fprintf(&out, "== %s with %d agents and %d public agents\n", c.cidr, c.agents, c.publc)
		if c.cidr == "8.0.0.0/8" {
			if len(l) != 0 || top == nil {
				t.Errorf("%s: %v", c.cidr, l)
			}
			continue
		}
		if !l.HasErrors() || top != nil {
			t.Errorf("%s is accepted", c.cidr)
		}
		if err := l.WriteText(&out, bp.Files(), 100, false); err != nil {
			t.Fatal(err)
		}
	}
	const path = "testdata/ranges.golden"
	if *update {
		if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(out.String(), "\n")); d != "" {
		t.Error(d)
	}
}

const ownMachines = `
variable "secret" {
  sensitive = true
  default   = "s3cret-Text"
}
cluster "demo" { admin_password = var.secret }
provider "onprem" {
  user          = "admin"
  port          = 2022
  agent         = true
  sudo_password = var.secret
  timeout       = "5s"
  bastion {
    address  = "jump"
    key_file = "/k/jump"
    password = var.secret
  }
}
%s
preflight { ignore = { swap = "we know" } }
upgrade {
  max_unavailable = 3
  window          = "Sat 02:00-06:00"
}
backup {
  s3 {
    endpoint   = "https://s3.example.com"
    bucket     = "b"
    access_key = "a"
    secret_key = var.secret
  }
}
`

func TestOnPrem(t *testing.T) {
	_, top, l := load(t, fmt.Sprintf(ownMachines, `
node_group "public_agent" { hosts = { p1 = "10.0.0.31" } }
node_group "agent" {
  hosts = { a10 = "10.0.0.30", a2 = "10.0.0.22" }
  host "a1" {
    address     = "10.0.0.21"
    ssh_address = "a1.example.com"
    user        = "root"
    key_file    = "/k/a1"
    cpus        = 2
    price_per_hour = 0.5
  }
}
node_group "master" { hosts = { m1 = "10.0.0.11" } }
`))
	if len(l) > 0 {
		t.Fatal(l)
	}
	var names []string
	for _, h := range top.Hosts {
		names = append(names, h.Name)
	}
	if d := cmp.Diff([]string{"m1", "a1", "a2", "a10", "p1"}, names); d != "" {
		t.Error(d)
	}
	jump := &topology.Login{Address: "jump", Port: 22, User: "admin", KeyFile: "/k/jump", Password: "s3cret-Text", KnownHosts: "~/.ssh/known_hosts"}
	want := []*topology.Connection{
		{Login: topology.Login{Address: "10.0.0.11", Port: 2022, User: "admin", Agent: true, KnownHosts: "~/.ssh/known_hosts"}, SudoPassword: "s3cret-Text", Timeout: 5 * time.Second, Bastion: jump},
		{Login: topology.Login{Address: "a1.example.com", Port: 2022, User: "root", KeyFile: "/k/a1", KnownHosts: "~/.ssh/known_hosts"}, Timeout: 5 * time.Second, Bastion: jump},
	}
	if d := cmp.Diff(want, []*topology.Connection{top.Hosts[0].Connection, top.Hosts[1].Connection}); d != "" {
		t.Error(d)
	}
	if h := top.Hosts[1]; h.CPUs != 2 || h.Memory != 0 || h.PricePerHour != 0.5 {
		t.Errorf("a1 is %+v", h)
	}
	if top.Parallel != 20 || top.Upgrade.MaxUnavailable != 3 || top.Upgrade.Window.Text == "" || top.Preflight.Ignore["swap"] != "we know" || top.Backup.S3.SecretKey != "s3cret-Text" {
		t.Errorf("settings: %+v", top)
	}
	b, err := json.Marshal(top)
	if err != nil || bytes.Contains(b, []byte("s3cret")) {
		t.Errorf("the JSON form shows a secret: %s %v", b, err)
	}
}

// The order of machines in the file, and in which of the two forms they are
// written, says nothing.
func TestOrderIsNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z][0-9]{1,3}`), 3, 12, func(s string) string { return s }).Draw(t, "names")
		write := func(what string) *topology.Topology {
			order := rapid.Permutation(names).Draw(t, what)
			short := rapid.IntRange(0, len(names)).Draw(t, what+" in short")
			var blocks, pairs strings.Builder
			for i, n := range order {
				at := fmt.Sprintf("10.0.1.%d", 1+slices.Index(names, n))
				if i < short {
					fmt.Fprintf(&pairs, "    %s = %q\n", n, at)
				} else {
					fmt.Fprintf(&blocks, "  host %q { address = %q }\n", n, at)
				}
			}
			_, top, l := load(t, fmt.Sprintf(ownMachines, "node_group \"master\" { hosts = { master = \"10.0.0.1\" } }\nnode_group \"agent\" {\n"+blocks.String()+"  hosts = {\n"+pairs.String()+"  }\n}\n"))
			if l.HasErrors() {
				t.Fatalf("%v", l)
			}
			return top
		}
		a, b := write("first"), write("second")
		if d := cmp.Diff(a, b, cmp.Comparer(func(x, y netip.Addr) bool { return x == y }), cmp.Comparer(func(x, y netip.Prefix) bool { return x == y }), cmp.Comparer(func(x, y netip.AddrPort) bool { return x == y })); d != "" {
			t.Fatal(d)
		}
	})
}

func TestAddressesRefused(t *testing.T) {
	for _, a := range []string{"9.1.2.3", "11.0.0.1", "198.51.100.7", "172.31.254.9", "127.0.0.1", "169.254.1.1", "224.0.0.1", "255.255.255.255", "0.0.0.0"} {
		bp, top, l := load(t, fmt.Sprintf(ownMachines, fmt.Sprintf("node_group \"master\" { hosts = { m1 = %q } }", a)))
		if top != nil || len(l) != 1 || l[0].Summary != "Address in use" || l[0].Range == nil || bp.Files()[l[0].Range.Filename] == nil {
			t.Errorf("%s: %v", a, l)
		}
	}
}
