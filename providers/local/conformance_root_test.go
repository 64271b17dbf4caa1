//go:build root

package local_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
	"github.com/vishvananda/netlink"

	"dcos.example/dcos/providers"
	"dcos.example/dcos/providers/conformance"
	"dcos.example/dcos/providers/local"
	"dcos.example/dcos/providers/local/network"
	"dcos.example/dcos/runtime/fault"
)

var initPath string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "dct8-init")
	if err != nil {
		panic(err)
	}
	initPath = filepath.Join(dir, "dcos-init")
	cmd := exec.Command("go", "build", "-o", initPath, "dcos.example/dcos/providers/local/cmd/dcos-init")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		panic(string(out))
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

const cluster = "dct8conf"

func provider(t *testing.T) *local.Provider {
	base := t.TempDir()
	p, err := local.New(local.Options{Dir: filepath.Join(base, "hosts"), Init: initPath, Cache: filepath.Join(base, "bundles")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Destroy(context.Background(), cluster); err != nil {
			t.Error(err)
		}
	})
	return p
}

func str(s string) resource.PropertyValue { return resource.NewProperty(s) }

func netInputs(cidr, gateway string) resource.PropertyMap {
	return resource.PropertyMap{"cluster": str(cluster), "cidr": str(cidr), "gateway": str(gateway), "uplink": resource.NewProperty(false)}
}

func TestNetworkConforms(t *testing.T) {
	conformance.Run(t, func(t *testing.T) conformance.Subject {
		return conformance.Subject{
			Provider: provider(t), Type: local.TypeNetwork, Name: cluster,
			Inputs:  netInputs("198.19.84.0/24", "198.19.84.1"),
			Replace: netInputs("198.19.84.128/25", "198.19.84.129"),
			Count: func(t *testing.T, _ resource.URN) int {
				if _, err := netlink.LinkByName(network.BridgeName(cluster)); err != nil {
					return 0
				}
				return 1
			},
		}
	})
}

func hostInputs(memory float64, address string) resource.PropertyMap {
	return resource.PropertyMap{
		"cluster": str(cluster), "name": str("h1"), "role": str("agent"), "address": str(address), "network": str(network.BridgeName(cluster)),
		"cpus": resource.NewProperty(0.5), "memoryMiB": resource.NewProperty(memory), "diskMiB": resource.NewProperty(128.0),
	}
}

func makeNetwork(t *testing.T, p providers.Provider) {
	t.Helper()
	if _, err := p.Create(t.Context(), plugin.CreateRequest{URN: resource.NewURN("s", "p", "", local.TypeNetwork, cluster), Type: local.TypeNetwork,
		Properties: netInputs("198.19.84.0/24", "198.19.84.1")}); err != nil {
		t.Fatal(err)
	}
}

func TestHostConforms(t *testing.T) {
	conformance.Run(t, func(t *testing.T) conformance.Subject {
		p := provider(t)
		makeNetwork(t, p)
		return conformance.Subject{
			Provider: p, Type: local.TypeHost, Name: "h1",
			Inputs: hostInputs(96, "198.19.84.11"), Update: hostInputs(128, "198.19.84.11"), Replace: hostInputs(96, "198.19.84.12"),
			Count: func(t *testing.T, _ resource.URN) int {
				hosts, err := p.Machine().Hosts(cluster)
				if err != nil {
					t.Fatal(err)
				}
				return len(hosts)
			},
			Vanish: func(t *testing.T, _ resource.ID) {
				if err := p.Machine().Remove(t.Context(), cluster, "h1"); err != nil {
					t.Fatal(err)
				}
			},
		}
	})
}

// A network or host that does not work is drift, and an update repairs it
// without touching what works.
func TestDriftIsRepaired(t *testing.T) {
	p := provider(t)
	makeNetwork(t, p)
	in := hostInputs(96, "198.19.84.11")
	hostURN := resource.NewURN("s", "p", "", local.TypeHost, "h1")
	made, err := p.Create(t.Context(), plugin.CreateRequest{URN: hostURN, Type: local.TypeHost, Properties: in})
	if err != nil {
		t.Fatal(err)
	}
	look := func() plugin.ReadResponse {
		t.Helper()
		r, err := p.Read(t.Context(), plugin.ReadRequest{URN: hostURN, Type: local.TypeHost, ID: made.ID, Inputs: in, State: made.Properties})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	repair := func(want string) resource.PropertyMap {
		t.Helper()
		r := look()
		if r.ID == "" || r.Outputs["online"].BoolValue() {
			t.Fatalf("%s: not seen: %v", want, r)
		}
		d, err := p.Diff(t.Context(), plugin.DiffRequest{URN: hostURN, Type: local.TypeHost, OldInputs: r.Inputs, OldOutputs: r.Outputs, NewInputs: in})
		if err != nil || d.Changes != plugin.DiffSome || len(d.ReplaceKeys) > 0 {
			t.Fatalf("%s: diff %+v, %v", want, d, err)
		}
		u, err := p.Update(t.Context(), plugin.UpdateRequest{URN: hostURN, Type: local.TypeHost, ID: made.ID, OldInputs: r.Inputs, OldOutputs: r.Outputs, NewInputs: in})
		if err != nil || !u.Properties["online"].BoolValue() || !look().Outputs.DeepEquals(u.Properties) {
			t.Fatalf("%s: update %v, %v", want, u.Properties, err)
		}
		return u.Properties
	}

	br, err := netlink.LinkByName(network.BridgeName(cluster))
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkDel(br); err != nil {
		t.Fatal(err)
	}
	netURN := resource.NewURN("s", "p", "", local.TypeNetwork, cluster)
	n, err := p.Read(t.Context(), plugin.ReadRequest{URN: netURN, Type: local.TypeNetwork, ID: cluster})
	if err != nil || n.ID == "" || n.Outputs["online"].BoolValue() {
		t.Fatalf("network without its bridge: %+v, %v", n, err)
	}
	if _, err := p.Update(t.Context(), plugin.UpdateRequest{URN: netURN, Type: local.TypeNetwork, ID: cluster, NewInputs: n.Inputs}); err != nil {
		t.Fatal(err)
	}
	if out := repair("host cut off"); !out["bootId"].DeepEquals(made.Properties["bootId"]) {
		t.Error("a host that was only cut off was restarted")
	}

	if err := p.Machine().PowerOff(t.Context(), cluster, "h1"); err != nil {
		t.Fatal(err)
	}
	if out := repair("dead host"); out["bootId"].DeepEquals(made.Properties["bootId"]) {
		t.Error("a dead host has its old boot id")
	}

	// Somebody else's host of that name is left alone.
	ctx := providers.WithToken(t.Context(), "33333333333333333333333333333333")
	if _, err := p.Create(ctx, plugin.CreateRequest{URN: hostURN, Type: local.TypeHost, Properties: in}); !fault.Is(err, fault.Exists) {
		t.Errorf("create over another's host: %v", err)
	}
}
