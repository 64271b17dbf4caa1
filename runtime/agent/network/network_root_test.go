//go:build root

package network_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"dcos.example/dcos/runtime/agent/agenttest"
	"dcos.example/dcos/runtime/agent/network"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
)

func options(t testing.TB, third int) network.Options {
	t.Helper()
	agenttest.Subnet(t, third)
	return network.Options{
		Bridge:   config.Bridge{Name: fmt.Sprintf("dct3b%d", third), Subnet: netip.MustParsePrefix(fmt.Sprintf("198.19.%d.0/24", third))},
		StateDir: t.TempDir(), Table: fmt.Sprintf("dct3_%d", third), Prefix: fmt.Sprintf("dct3-%d-", third), Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

func open(t testing.TB, o network.Options) *network.Manager {
	t.Helper()
	m, err := network.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func destroy(t testing.TB, o network.Options) {
	t.Cleanup(func() {
		m, err := network.New(o)
		if err == nil {
			err = m.Destroy(context.Background())
		}
		if err != nil {
			t.Error(err)
		}
	})
}

func attach(t testing.TB, m *network.Manager, id string, ports ...network.Port) network.Attachment {
	t.Helper()
	a, err := m.Attach(t.Context(), network.Request{ID: id, Ports: ports})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// serve answers every connection inside a namespace with the client's address.
func serve(t *testing.T, ns, address string) {
	t.Helper()
	ready := make(chan net.Listener)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread stays in the namespace
		h, err := netns.GetFromPath(ns)
		if err == nil {
			err = netns.Set(h)
		}
		if err != nil {
			t.Error(err)
			close(ready)
			return
		}
		defer h.Close()
		l, err := net.Listen("tcp4", address)
		if err != nil {
			t.Error(err)
			close(ready)
			return
		}
		ready <- l
	}()
	l := <-ready
	if l == nil {
		t.FailNow()
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			_, _ = io.WriteString(c, host)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
}

// ask connects from a namespace, "" for the host's, and returns who the
// server saw.
func ask(t *testing.T, ns, address string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	c, err := network.Dial(ctx, ns, "tcp4", address)
	if err != nil {
		return "", err
	}
	defer c.Close()
	b, err := io.ReadAll(c)
	return string(b), err
}

func TestBridge(t *testing.T) {
	o := options(t, 30)
	destroy(t, o)
	m := open(t, o)
	web := attach(t, m, "web", network.Port{Host: 24080, Container: 8080, Protocol: "tcp"})
	other := attach(t, m, "other")
	serve(t, web.Netns, ":8080")
	ip := web.IPs[0].String()
	if web.Gateway.String() != "198.19.30.1" || ip != "198.19.30.2" || other.IPs[0].String() != "198.19.30.3" {
		t.Errorf("addresses %v %v, gateway %v", web.IPs, other.IPs, web.Gateway)
	}
	host := hostAddress(t)
	for _, c := range []struct{ what, ns, address, sees string }{
		{"the host, by the container's address", "", ip + ":8080", "198.19.30.1"},
		{"the host, by loopback and mapped port", "", "127.0.0.1:24080", "198.19.30.1"},
		{"the host, by its address and mapped port", "", host + ":24080", host},
		{"another container, directly", other.Netns, ip + ":8080", "198.19.30.3"},
		{"another container, by the host's mapped port", other.Netns, host + ":24080", "198.19.30.1"},
		{"another container, by the gateway's mapped port", other.Netns, "198.19.30.1:24080", "198.19.30.1"},
		{"the container itself, by the host's mapped port", web.Netns, host + ":24080", "198.19.30.1"},
		{"the container itself, by its loopback", web.Netns, "127.0.0.1:8080", "127.0.0.1"},
	} {
		got, err := ask(t, c.ns, c.address)
		if err != nil || got != c.sees {
			t.Errorf("%s: %q, %v; want %q", c.what, got, err, c.sees)
		}
	}
	if err := m.Detach(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	if got, err := ask(t, "", "127.0.0.1:24080"); err == nil {
		t.Errorf("a detached container answers %q", got)
	}
	if err := m.Detach(t.Context(), "web"); err != nil {
		t.Errorf("a second detach: %v", err)
	}
}

// hostAddress gives the host an address in a test subnet, so that the test
// does not depend on the machine having any.
func hostAddress(t *testing.T) string {
	t.Helper()
	agenttest.Subnet(t, 39)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "dct3up"
	up := &netlink.Bridge{LinkAttrs: attrs}
	if err := netlink.LinkAdd(up); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netlink.LinkDel(up); err != nil {
			t.Error(err)
		}
	})
	addr, err := netlink.ParseAddr("198.19.39.1/24")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(up, addr); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(up); err != nil {
		t.Fatal(err)
	}
	return "198.19.39.1"
}

// Containers must not reach what listens on the host's loopback only.
func TestLoopbackIsGuarded(t *testing.T) {
	o := options(t, 31)
	destroy(t, o)
	m := open(t, o)
	a := attach(t, m, "c")
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	h, err := netns.GetFromPath(a.Netns)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	nl, err := netlink.NewHandleAt(h)
	if err != nil {
		t.Fatal(err)
	}
	defer nl.Close()
	lo, err := nl.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := nl.LinkSetDown(lo); err != nil { // so that 127/8 may be routed out
		t.Fatal(err)
	}
	eth, err := nl.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	_, dst, _ := net.ParseCIDR("127.0.0.0/8")
	if err := nl.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Dst: dst, Gw: net.ParseIP("198.19.31.1").To4(), Flags: int(netlink.FLAG_ONLINK)}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if c, err := network.Dial(ctx, a.Netns, "tcp4", l.Addr().String()); err == nil {
		c.Close()
		t.Error("a container reached the host's loopback")
	}
}

// A restarted agent finds its attachments; a reboot takes them away.
func TestRestart(t *testing.T) {
	o := options(t, 32)
	destroy(t, o)
	m := open(t, o)
	a := attach(t, m, "stays", network.Port{Host: 24081, Container: 80, Protocol: "tcp"})
	gone := attach(t, m, "gone", network.Port{Host: 24082, Container: 80, Protocol: "tcp"})
	if out, err := exec.Command("umount", gone.Netns).CombinedOutput(); err != nil { // as a reboot does
		t.Fatalf("%v: %s", err, out)
	}
	m = open(t, o)
	if ids := m.IDs(); len(ids) != 1 || ids[0] != "stays" {
		t.Fatalf("found %v, want only the one that stays", ids)
	}
	serve(t, a.Netns, ":80")
	if got, err := ask(t, "", "127.0.0.1:24081"); err != nil {
		t.Errorf("the mapped port after a restart: %q, %v", got, err)
	}
	if b := attach(t, m, "new"); b.IPs[0] == a.IPs[0] {
		t.Errorf("address %v was given twice", b.IPs[0])
	}
	_, err := m.Attach(t.Context(), network.Request{ID: "thief", Ports: []network.Port{{Host: 24081, Container: 80, Protocol: "tcp"}}})
	if !fault.Is(err, fault.Conflict) {
		t.Errorf("a taken port: %v, want conflict", err)
	}
}

// TestForwarding: a host that did not forward before does not afterwards.
func TestForwarding(t *testing.T) {
	const file = "/proc/sys/net/ipv4/ip_forward"
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlock: the thread ends with its namespace
		ns, err := netns.New()
		if err != nil {
			t.Error(err)
			return
		}
		defer ns.Close()
		is := func() string {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Error(err)
			}
			return strings.TrimSpace(string(b))
		}
		o := network.Options{
			Bridge:   config.Bridge{Name: "dct3fwd", Subnet: netip.MustParsePrefix("198.19.39.0/24")},
			StateDir: t.TempDir(), Table: "dct3_fwd", Prefix: "dct3-fwd-", Log: slog.New(slog.DiscardHandler),
		}
		for _, before := range []string{"0", "1"} {
			if err := os.WriteFile(file, []byte(before), 0); err != nil {
				t.Error(err)
			}
			for range 2 { // the second time it finds what is there
				if _, err := network.New(o); err != nil {
					t.Error(err)
				}
			}
			if is() != "1" {
				t.Errorf("the host does not forward")
			}
			if err := network.Remove(o); err != nil {
				t.Error(err)
			}
			if is() != before {
				t.Errorf("forwarding is %s afterwards, was %s before", is(), before)
			}
		}
	}()
	<-done
}

func TestExhausted(t *testing.T) {
	o := options(t, 33)
	o.Bridge.Subnet = netip.MustParsePrefix("198.19.33.0/29")
	destroy(t, o)
	m := open(t, o)
	for i := range 5 {
		attach(t, m, fmt.Sprint("c", i))
	}
	if _, err := m.Attach(t.Context(), network.Request{ID: "one-more"}); !fault.Is(err, fault.Exhausted) {
		t.Errorf("a full subnet: %v, want exhausted", err)
	}
	if err := m.Detach(t.Context(), "c2"); err != nil {
		t.Fatal(err)
	}
	if a := attach(t, m, "again"); a.IPs[0].String() != "198.19.33.4" {
		t.Errorf("got %v, want the address that became free", a.IPs)
	}
}

func TestCNI(t *testing.T) {
	bin := filepath.Join(os.Getenv("DCOS_RUNTIME_BIN"), "..", "cni")
	if _, err := os.Stat(filepath.Join(bin, "ptp")); err != nil {
		t.Fatalf("no CNI plugins beside DCOS_RUNTIME_BIN: %v", err)
	}
	o := options(t, 34)
	o.CNIBin, o.CNIConf = bin, t.TempDir()
	conf := `{"cniVersion":"1.0.0","name":"dct3net","plugins":[{"type":"ptp","ipam":{"type":"host-local","subnet":"198.19.35.0/24","dataDir":"` + t.TempDir() + `"}}]}`
	if err := os.WriteFile(filepath.Join(o.CNIConf, "10.conflist"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	destroy(t, o)
	m := open(t, o)
	a, err := m.Attach(t.Context(), network.Request{ID: "c", Network: "dct3net"})
	if err != nil {
		t.Fatal(err)
	}
	if len(a.IPs) != 1 || !strings.HasPrefix(a.IPs[0].String(), "198.19.35.") || !a.Gateway.IsValid() {
		t.Errorf("addresses %v, gateway %v", a.IPs, a.Gateway)
	}
	serve(t, a.Netns, ":80")
	if _, err := ask(t, "", a.IPs[0].String()+":80"); err != nil {
		t.Error(err)
	}
	if err := m.Detach(t.Context(), "c"); err != nil {
		t.Error(err)
	}
	_, err = m.Attach(t.Context(), network.Request{ID: "d", Network: "nowhere"})
	if !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "dct3net") {
		t.Errorf("an unknown network: %v, want not found and what there is", err)
	}
}

func BenchmarkAttachDetach(b *testing.B) {
	o := options(b, 36)
	destroy(b, o)
	m := open(b, o)
	for b.Loop() {
		attach(b, m, "c", network.Port{Host: 24083, Container: 80, Protocol: "tcp"})
		if err := m.Detach(b.Context(), "c"); err != nil {
			b.Fatal(err)
		}
	}
}
