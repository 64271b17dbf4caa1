//go:build root

package network_test

import (
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"dcos.example/dcos/providers/local/network"
	"dcos.example/dcos/runtime/fault"
)

func info(cluster, cidr string) network.Info {
	p := netip.MustParsePrefix(cidr)
	return network.Info{Cluster: cluster, CIDR: p, Gateway: p.Addr().Next()}
}

// output returns what a program says about this thread's network namespace.
func output(t *testing.T, argv ...string) string {
	t.Helper()
	b, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", argv, err, b)
	}
	return string(b)
}

// routes leaves out whether a link has a carrier yet, which comes in its own
// time.
func routes(t *testing.T) string {
	return strings.ReplaceAll(output(t, "ip", "-4", "route", "show", "table", "all"), " linkdown", "")
}

func TestTwoNetworksSideBySide(t *testing.T) {
	n := network.Networks{Dir: t.TempDir()}
	for _, c := range []string{"dct8neta", "dct8netb"} {
		t.Cleanup(func() { // also after a failure
			if err := n.Remove(c); err != nil {
				t.Error(err)
			}
		})
	}
	for range 2 { // the second time nothing is missing
		for c, cidr := range map[string]string{"dct8neta": "198.19.85.0/24", "dct8netb": "198.19.86.0/24"} {
			if _, err := n.Ensure(t.Context(), info(c, cidr)); err != nil {
				t.Fatal(err)
			}
			if got, whole, err := n.Inspect(c); err != nil || !whole || got.CIDR.String() != cidr {
				t.Fatalf("%s: %+v, whole %v, %v", c, got, whole, err)
			}
		}
	}
	if got := output(t, "ip", "route", "get", "198.19.85.7"); !strings.Contains(got, network.BridgeName("dct8neta")) {
		t.Errorf("on the bridge: %s", got)
	}

	// Without its bridge a range leads nowhere, and the network is not whole.
	br, err := netlink.LinkByName(network.BridgeName("dct8neta"))
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkDel(br); err != nil {
		t.Fatal(err)
	}
	if b, err := exec.Command("ip", "route", "get", "198.19.85.7").CombinedOutput(); err == nil {
		t.Errorf("without the bridge packets go somewhere: %s", b)
	}
	if _, whole, err := n.Inspect("dct8neta"); err != nil || whole {
		t.Errorf("without its bridge: whole %v, %v", whole, err)
	}
	if _, err := n.Ensure(t.Context(), info("dct8neta", "198.19.85.0/24")); err != nil {
		t.Fatal(err)
	}

	// A third that overlaps is refused, with what it overlaps and what to do.
	_, err = n.Ensure(t.Context(), info("dct8netc", "198.19.86.128/25"))
	if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "198.19.86.1/24") || !strings.Contains(err.Error(), `"range"`) {
		t.Errorf("overlapping range: %v", err)
	}
	if _, err := n.Ensure(t.Context(), info("dct8neta", "198.19.87.0/24")); !fault.Is(err, fault.Exists) {
		t.Errorf("other range: %v", err)
	}
	for range 2 {
		if err := n.Remove("dct8neta"); err != nil {
			t.Fatal(err)
		}
	}
	if got := routes(t); strings.Contains(got, "198.19.85.") {
		t.Errorf("left behind:\n%s", got)
	}
	// By name alone: the record is lost.
	if err := os.RemoveAll(n.Dir + "/dct8netb"); err != nil {
		t.Fatal(err)
	}
	if err := n.Remove("dct8netb"); err != nil {
		t.Fatal(err)
	}
	if got := routes(t); strings.Contains(got, "198.19.86.") {
		t.Errorf("left behind:\n%s", got)
	}
}

// The uplink is tried in a namespace of its own, so that nothing can leave.
// TestKilledBeforeNaming: the bridge is made and named in two calls, and the
// installer may be killed between them.
func TestKilledBeforeNaming(t *testing.T) {
	n := network.Networks{Dir: t.TempDir()}
	in := info("dct8netk", "198.19.87.0/24")
	t.Cleanup(func() {
		if err := n.Remove(in.Cluster); err != nil {
			t.Error(err)
		}
	})
	unnamed := func() {
		t.Helper()
		if _, err := n.Ensure(t.Context(), in); err != nil {
			t.Fatal(err)
		}
		br, err := netlink.LinkByName(network.BridgeName(in.Cluster))
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkDel(br); err != nil {
			t.Fatal(err)
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name = network.BridgeName(in.Cluster)
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			t.Fatal(err)
		}
	}
	unnamed()
	if _, err := n.Ensure(t.Context(), in); err != nil {
		t.Error(err)
	}
	if _, whole, err := n.Inspect(in.Cluster); err != nil || !whole {
		t.Errorf("after the second try: whole %v, %v", whole, err)
	}
	unnamed()
	if err := n.Remove(in.Cluster); err != nil {
		t.Error(err)
	}
	if _, err := netlink.LinkByName(network.BridgeName(in.Cluster)); err == nil {
		t.Error("the bridge is still there")
	}
}

func TestUplink(t *testing.T) {
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	n := network.Networks{Dir: t.TempDir()}
	a, b := info("dct8upa", "198.19.88.0/24"), info("dct8upb", "198.19.89.0/24")
	a.Uplink, b.Uplink = true, true
	if _, err := n.Ensure(t.Context(), a); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "default route") {
		t.Fatalf("without a default route: %v", err)
	}
	for _, c := range [][]string{
		{"link", "add", "up0", "type", "veth", "peer", "name", "up1"}, {"addr", "add", "10.0.0.2/24", "dev", "up0"},
		{"link", "set", "up0", "mtu", "1400", "up"}, {"link", "set", "up1", "up"}, {"route", "add", "default", "via", "10.0.0.1"},
	} {
		output(t, append([]string{"ip"}, c...)...)
	}
	before := routes(t)
	// A new namespace takes it over from the machine.
	if err := os.WriteFile("/proc/sys/net/ipv4/conf/up0/forwarding", []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	fwd := func() string {
		return strings.TrimSpace(output(t, "cat", "/proc/sys/net/ipv4/conf/up0/forwarding"))
	}
	if fwd() != "0" {
		t.Fatal("the test's uplink forwards already")
	}
	for _, i := range []network.Info{a, b} {
		got, err := n.Ensure(t.Context(), i)
		if err != nil {
			t.Fatal(err)
		}
		if got.MTU != 1400 {
			t.Errorf("MTU %d, the uplink has 1400", got.MTU)
		}
	}
	table := output(t, "nft", "list", "table", "ip", "dcos-local-dct8upa")
	for _, want := range []string{"ip saddr 198.19.88.0/24", "masquerade", "ip daddr 11.0.0.0/8", "ip daddr 9.0.0.0/8", "drop"} {
		if !strings.Contains(table, want) {
			t.Errorf("no %q in\n%s", want, table)
		}
	}
	if fwd() != "1" {
		t.Error("the uplink does not forward")
	}
	a.Uplink = false
	if _, err := n.Ensure(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if tables := output(t, "nft", "list", "tables"); strings.Contains(tables, "dct8upa") || !strings.Contains(tables, "dct8upb") {
		t.Errorf("tables: %s", tables)
	}
	if fwd() != "1" {
		t.Error("forwarding was switched off while another cluster needs it")
	}
	for _, c := range []string{"dct8upb", "dct8upa"} {
		if err := n.Remove(c); err != nil {
			t.Fatal(err)
		}
	}
	if fwd() != "0" {
		t.Error("forwarding was left on")
	}
	if after := routes(t); after != before {
		t.Errorf("routes before:\n%s\nafter:\n%s", before, after)
	}
	if tables := output(t, "nft", "list", "tables"); strings.Contains(tables, "dcos") {
		t.Errorf("left behind: %s", tables)
	}
}
