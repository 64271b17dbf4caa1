package topology_test

import (
	"bytes"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

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
