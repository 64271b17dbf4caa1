//go:build root

package nft_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"dcos.example/dcos/runtime/balancer/nft"
	"dcos.example/dcos/runtime/balancer/ruleset"
)

// lab is a host with two backends on one container network, a client on
// another, and the outside world behind its uplink:
//
//	b1 .11 ─┐                       ┌─ client 198.19.1.2
//	        ├─ 198.19.0.1  host  198.19.1.1
//	b2 .12 ─┘          198.19.2.1 ──── outside 198.19.2.2
type lab struct {
	t                             *testing.T
	host, b1, b2, client, outside netns.NsHandle
}

var (
	vipRange = netip.MustParsePrefix("11.0.0.0/8")
	vip      = ruleset.Key{Addr: netip.MustParseAddr("11.1.2.3"), Port: 80, Protocol: ruleset.TCP}
	vipUDP   = ruleset.Key{Addr: netip.MustParseAddr("11.1.2.3"), Port: 80, Protocol: ruleset.UDP}
	first    = netip.MustParseAddrPort("198.19.0.11:8080")
	second   = netip.MustParseAddrPort("198.19.0.12:8080")
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// inside runs f on a thread that is in ns.
func inside(t testing.TB, ns netns.NsHandle, f func()) {
	t.Helper()
	var err error
	done, finished := make(chan struct{}), false
	go func() {
		defer close(done)      // also when f fails the test
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err = netns.Set(ns); err == nil {
			f()
		}
		finished = true
	}()
	<-done
	must(t, err)
	if !finished {
		t.FailNow()
	}
}

func newNS(t testing.TB, name string) netns.NsHandle {
	t.Helper()
	_ = netns.DeleteNamed(name) // what a killed run left
	done := make(chan error, 1)
	var ns netns.NsHandle
	go func() {
		runtime.LockOSThread()
		var err error
		ns, err = netns.NewNamed(name)
		done <- err
	}()
	must(t, <-done)
	t.Cleanup(func() {
		ns.Close()
		if err := netns.DeleteNamed(name); err != nil {
			t.Error(err)
		}
	})
	inside(t, ns, func() {
		lo, err := netlink.LinkByName("lo")
		must(t, err)
		must(t, netlink.LinkSetUp(lo))
	})
	return ns
}

// wire connects two namespaces, and sets a's end into bridge br if that is
// not "".
func wire(t testing.TB, a netns.NsHandle, aName, aAddr, br string, b netns.NsHandle, bAddr, gateway string) {
	t.Helper()
	up := func(name, addr string) {
		l, err := netlink.LinkByName(name)
		must(t, err)
		if addr != "" {
			parsed, err := netlink.ParseAddr(addr)
			must(t, err)
			must(t, netlink.AddrAdd(l, parsed))
		}
		must(t, netlink.LinkSetUp(l))
	}
	inside(t, a, func() {
		must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: aName}, PeerName: "eth0", PeerNamespace: netlink.NsFd(b)}))
		up(aName, aAddr)
		if br != "" {
			l, err := netlink.LinkByName(aName)
			must(t, err)
			m, err := netlink.LinkByName(br)
			must(t, err)
			must(t, netlink.LinkSetMaster(l, m))
			// With br_netfilter a container's way to itself stays within the
			// bridge, which sends nothing back to where it came from unless
			// told to. Container networks do that.
			must(t, netlink.LinkSetHairpin(l, true))
		}
	})
	inside(t, b, func() {
		up("eth0", bAddr)
		must(t, netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(gateway)}))
	})
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{t: t, host: newNS(t, "dct1host"), b1: newNS(t, "dct1b1"), b2: newNS(t, "dct1b2"), client: newNS(t, "dct1client"), outside: newNS(t, "dct1out")}
	inside(t, l.host, func() {
		must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "dct1br"}}))
		br, err := netlink.LinkByName("dct1br")
		must(t, err)
		addr, err := netlink.ParseAddr("198.19.0.1/24")
		must(t, err)
		must(t, netlink.AddrAdd(br, addr))
		must(t, netlink.LinkSetUp(br))
		must(t, os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644))
	})
	wire(t, l.host, "dct1v1", "", "dct1br", l.b1, "198.19.0.11/24", "198.19.0.1")
	wire(t, l.host, "dct1v2", "", "dct1br", l.b2, "198.19.0.12/24", "198.19.0.1")
	wire(t, l.host, "dct1vc", "198.19.1.1/24", "", l.client, "198.19.1.2/24", "198.19.1.1")
	wire(t, l.host, "dct1up", "198.19.2.1/24", "", l.outside, "198.19.2.2/24", "198.19.2.1")
	inside(t, l.host, func() {
		must(t, netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP("198.19.2.2")}))
	})
	// Whatever leaks to the outside finds somebody who answers.
	inside(t, l.outside, func() {
		lo, err := netlink.LinkByName("lo")
		must(t, err)
		_, dst, _ := net.ParseCIDR("11.0.0.0/8")
		must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: dst, Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST}))
	})
	l.serve(l.outside, "0.0.0.0:80", "outside")
	l.serve(l.b1, first.String(), "b1")
	l.serve(l.b2, second.String(), "b2")
	return l
}

// serve answers every TCP line and UDP packet with name and the peer's address.
func (l *lab) serve(ns netns.NsHandle, addr, name string) {
	l.t.Helper()
	inside(l.t, ns, func() {
		ln, err := net.Listen("tcp4", addr)
		must(l.t, err)
		pc, err := net.ListenPacket("udp4", addr)
		must(l.t, err)
		l.t.Cleanup(func() { ln.Close(); pc.Close() })
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					buf := make([]byte, 64)
					for {
						if _, err := c.Read(buf); err != nil {
							return
						}
						fmt.Fprintf(c, "%s %s\n", name, c.RemoteAddr())
					}
				}()
			}
		}()
		go func() {
			buf := make([]byte, 64)
			for {
				_, from, err := pc.ReadFrom(buf)
				if err != nil {
					return
				}
				_, _ = pc.WriteTo(fmt.Appendf(nil, "%s %s\n", name, from), from)
			}
		}()
	})
}

func (l *lab) applier(t testing.TB) *nft.Applier {
	t.Helper()
	a, err := nft.New(nft.Config{
		Table: "dct1_l4lb", Range: vipRange, Self: netip.MustParseAddr("198.19.2.1"),
		Subnets: []netip.Prefix{netip.MustParsePrefix("198.19.0.0/24")}, NetNS: int(l.host),
	})
	must(t, err)
	return a
}

func rules(backends ...netip.AddrPort) ruleset.Rules {
	return ruleset.Rules{VIPs: []ruleset.VIP{{Key: vip, Backends: backends}, {Key: vipUDP, Backends: backends}}}
}

func dial(t testing.TB, ns netns.NsHandle, network string, to netip.AddrPort, timeout time.Duration) (c net.Conn, err error) {
	t.Helper()
	inside(t, ns, func() { c, err = net.DialTimeout(network, to.String(), timeout) })
	return c, err
}

// talk sends one line and returns who answered, and whom they saw.
func talk(c net.Conn) (who, seen string, err error) {
	if err = c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return "", "", err
	}
	if _, err = io.WriteString(c, "x"); err != nil {
		return "", "", err
	}
	buf := make([]byte, 128)
	n, err := c.Read(buf)
	who, seen, _ = strings.Cut(strings.TrimSpace(string(buf[:n])), " ")
	host, _, _ := net.SplitHostPort(seen)
	return who, host, err
}

// poll connects n times and returns who answered, sorted, and as whom the
// client was seen.
func (l *lab) poll(ns netns.NsHandle, network string, n int) (who, seen []string) {
	l.t.Helper()
	for range n {
		c, err := dial(l.t, ns, network, netip.AddrPortFrom(vip.Addr, vip.Port), 5*time.Second)
		must(l.t, err)
		w, s, err := talk(c)
		c.Close()
		must(l.t, err)
		who, seen = append(who, w), append(seen, s)
	}
	slices.Sort(who)
	slices.Sort(seen)
	return slices.Compact(who), slices.Compact(seen)
}

func want(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func TestVIP(t *testing.T) {
	for _, netfilter := range []string{"0", "1"} {
		t.Run("br_netfilter="+netfilter, func(t *testing.T) {
			l := newLab(t)
			const knob = "/proc/sys/net/bridge/bridge-nf-call-iptables"
			inside(t, l.host, func() {
				if err := os.WriteFile(knob, []byte(netfilter), 0o644); errors.Is(err, os.ErrNotExist) {
					t.Logf("no br_netfilter on this machine: same as 0")
				} else {
					must(t, err)
				}
			})
			testVIP(t, l)
		})
	}
}

func testVIP(t *testing.T, l *lab) {
	a := l.applier(t)
	must(t, a.Apply(rules(first, second)))
	both := []string{"b1", "b2"}
	for _, network := range []string{"tcp4", "udp4"} {
		who, seen := l.poll(l.host, network, 40) // missing one of two: 2^-39
		want(t, network+" from the host", who, both)
		want(t, network+" source of the host", seen, []string{"198.19.2.1"})
		who, seen = l.poll(l.client, network, 40)
		want(t, network+" from a container", who, both)
		want(t, network+" source of a container", seen, []string{"198.19.1.2"})
		who, seen = l.poll(l.b1, network, 40)
		want(t, network+" from a backend, itself included", who, both)
		want(t, network+" source of a backend", seen, []string{"198.19.0.1"})
	}

	// What is no VIP is refused at once, and does not leave the host.
	for _, ns := range []netns.NsHandle{l.host, l.client} {
		for _, to := range []string{"11.1.2.3:81", "11.200.0.1:80"} {
			began := time.Now()
			_, err := dial(t, ns, "tcp4", netip.MustParseAddrPort(to), 5*time.Second)
			if !errors.Is(err, unix.ECONNREFUSED) || time.Since(began) > time.Second {
				t.Errorf("TCP to %s: %v after %s", to, err, time.Since(began))
			}
			c, err := dial(t, ns, "udp4", netip.MustParseAddrPort(to), 5*time.Second)
			must(t, err)
			// The kernel reports a rejected packet of the host's own as EPERM.
			if who, _, err := talk(c); !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.EPERM) {
				t.Errorf("UDP to %s: %q, %v", to, who, err)
			}
			c.Close()
		}
	}

	// Close leaves nothing; a second one neither fails.
	must(t, a.Close())
	must(t, a.Close())
	inside(t, l.host, func() {
		out, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
		must(t, err)
		routes, err := exec.Command("ip", "route", "show", "11.0.0.0/8").CombinedOutput()
		must(t, err)
		if len(out)+len(routes) > 0 {
			t.Errorf("left: %s%s", out, routes)
		}
	})
}

func TestBackendRemoval(t *testing.T) {
	l := newLab(t)
	a := l.applier(t)
	must(t, a.Apply(rules(first, second)))
	to := netip.AddrPortFrom(vip.Addr, vip.Port)
	// An established connection to b1 and a UDP flow to it.
	hold := func(network string) net.Conn {
		for {
			c, err := dial(t, l.client, network, to, 5*time.Second)
			must(t, err)
			who, _, err := talk(c)
			must(t, err)
			if who == "b1" {
				t.Cleanup(func() { c.Close() })
				return c
			}
			c.Close()
		}
	}
	tcp, udp := hold("tcp4"), hold("udp4")
	must(t, a.Apply(rules(second)))
	who, _ := l.poll(l.client, "tcp4", 20)
	want(t, "after removal, TCP", who, []string{"b2"})
	if who, _, err := talk(tcp); who != "b1" || err != nil {
		t.Errorf("the established connection: %q, %v", who, err)
	}
	if who, _, err := talk(udp); who != "b2" || err != nil {
		t.Errorf("the UDP flow: %q, %v", who, err)
	}

	// A connection that hangs in its first SYN to a dead backend gets to a
	// living one once the dead one is removed.
	must(t, a.Apply(rules(netip.MustParseAddrPort("198.19.0.99:8080"))))
	result := make(chan string, 1)
	var started sync.WaitGroup
	started.Add(1)
	go func() {
		started.Done()
		c, err := dial(t, l.client, "tcp4", to, 10*time.Second)
		if err != nil {
			result <- err.Error()
			return
		}
		defer c.Close()
		who, _, _ := talk(c)
		result <- who
	}()
	started.Wait()
	l.awaitFlow()
	must(t, a.Apply(rules(second)))
	if got := <-result; got != "b2" {
		t.Errorf("the hanging connection: %s", got)
	}

	// No backend left: refused.
	must(t, a.Apply(ruleset.Rules{}))
	if _, err := dial(t, l.client, "tcp4", to, 5*time.Second); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("without backends: %v", err)
	}
	must(t, a.Close())
}

// awaitFlow waits until the host tracks a connection to the dead backend.
func (l *lab) awaitFlow() {
	l.t.Helper()
	h, err := netlink.NewHandleAt(l.host, unix.NETLINK_NETFILTER)
	must(l.t, err)
	defer h.Close()
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		flows, err := h.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
		must(l.t, err)
		for _, f := range flows {
			if f.Reverse.SrcIP.String() == "198.19.0.99" {
				return
			}
		}
	}
	l.t.Fatal("the host tracks no connection to the dead backend")
}

func TestTakeOverAndRepair(t *testing.T) {
	l := newLab(t)
	old := l.applier(t)
	must(t, old.Apply(rules(first)))
	to := netip.AddrPortFrom(vip.Addr, vip.Port)
	c, err := dial(t, l.host, "tcp4", to, 5*time.Second)
	must(t, err)
	defer c.Close()
	a := l.applier(t) // the daemon after a restart
	if ok, err := a.Intact(); ok || err != nil {
		t.Errorf("before the first Apply: intact %v, %v", ok, err)
	}
	must(t, a.Apply(rules(second)))
	who, _ := l.poll(l.host, "tcp4", 10)
	want(t, "after take-over", who, []string{"b2"})
	if who, _, err := talk(c); who != "b1" || err != nil {
		t.Errorf("the connection from before: %q, %v", who, err)
	}
	for _, damage := range [][]string{{"nft", "flush", "ruleset"}, {"nft", "flush", "table", "ip", "dct1_l4lb"}, {"ip", "route", "del", "11.0.0.0/8"}} {
		if ok, err := a.Intact(); !ok || err != nil {
			t.Fatalf("before %v: intact %v, %v", damage, ok, err)
		}
		inside(t, l.host, func() {
			out, err := exec.Command(damage[0], damage[1:]...).CombinedOutput()
			if err != nil {
				t.Errorf("%v: %v %s", damage, err, out)
			}
		})
		if damage[0] == "nft" { // the route alone must keep packets on the host
			if c, err := dial(t, l.host, "tcp4", to, 300*time.Millisecond); err == nil {
				who, _, _ := talk(c)
				t.Errorf("without rules the host reached %q", who)
			}
		}
		if ok, err := a.Intact(); ok || err != nil {
			t.Errorf("after %v: intact %v, %v", damage, ok, err)
		}
		must(t, a.Apply(rules(second)))
		who, _ := l.poll(l.host, "tcp4", 5)
		want(t, "after repair", who, []string{"b2"})
	}
	must(t, a.Close())
}

// many returns n VIPs with two backends each; the one with number changed has
// other backends.
func many(n, changed int) ruleset.Rules {
	var r ruleset.Rules
	for i := range n {
		k := ruleset.Key{Addr: netip.AddrFrom4([4]byte{11, 2, byte(i >> 8), byte(i)}), Port: 80, Protocol: ruleset.TCP}
		bs := []netip.AddrPort{first, second}
		if i == changed {
			bs = []netip.AddrPort{second}
		}
		r.VIPs = append(r.VIPs, ruleset.VIP{Key: k, Backends: bs})
	}
	return r
}

// TestUpdateCost prints what writing all and changing one of many VIPs costs.
func TestUpdateCost(t *testing.T) {
	l := newLab(t)
	for _, n := range []int{1000, 10000} {
		var full, one []time.Duration
		for i := range 5 {
			a, before, after := l.applier(t), many(n, -1), many(n, i)
			began := time.Now()
			must(t, a.Apply(before))
			full = append(full, time.Since(began))
			began = time.Now()
			must(t, a.Apply(after))
			one = append(one, time.Since(began))
			inside(t, l.host, func() {
				for _, set := range []struct {
					name string
					want int
				}{{"vips", n}, {"backends", 2*n - 1}} {
					out, err := exec.Command("nft", "list", "map", "ip", "dct1_l4lb", set.name).CombinedOutput()
					must(t, err)
					if got := bytes.Count(out, []byte(" . tcp . ")); got != set.want {
						t.Errorf("%s has %d elements, want %d", set.name, got, set.want)
					}
				}
			})
			must(t, a.Close())
		}
		slices.Sort(full)
		slices.Sort(one)
		fmt.Printf("figure vip_write_%d_ms %.1f ms\nfigure vip_change_of_%d_ms %.2f ms\n", n, full[2].Seconds()*1e3, n, one[2].Seconds()*1e3)
	}
}

// The kernel's own listing, as an operator reads it.
func TestListing(t *testing.T) {
	l := newLab(t)
	a := l.applier(t)
	must(t, a.Apply(rules(first, second)))
	inside(t, l.host, func() {
		out, err := exec.Command("nft", "list", "table", "ip", "dct1_l4lb").CombinedOutput()
		must(t, err)
		for _, line := range []string{"11.1.2.3 . tcp . 80", "198.19.0.11 . 8080", "goto pick-2", "masquerade", "reject with tcp reset"} {
			if !bytes.Contains(out, []byte(line)) {
				t.Errorf("no %q in\n%s", line, out)
			}
		}
		t.Logf("%s", out)
	})
	must(t, a.Close())
}
