package probe_test

import (
	"context"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"dcos.example/dcos/installer/preflight/probe"
)

// Addresses of two hosts on loopback.
var one, two = netip.MustParseAddr("127.5.0.1"), netip.MustParseAddr("127.5.0.2")

// free returns ports that nothing listens on.
func free(t *testing.T, n int) (out []int) {
	for range n {
		l, err := net.Listen("tcp", one.String()+":0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		out = append(out, l.Addr().(*net.TCPAddr).Port)
	}
	return out
}

func run(t *testing.T, specs ...probe.Spec) []probe.Report {
	t.Helper()
	out := make([]probe.Report, len(specs))
	var wg sync.WaitGroup
	for i, s := range specs {
		s.Nonce = "n"
		if s.Wait == 0 {
			s.Wait = 10 * time.Second // they end when they are done
		}
		wg.Go(func() { out[i] = probe.Run(t.Context(), s) })
	}
	wg.Wait()
	return out
}

func TestTwoHosts(t *testing.T) {
	p := free(t, 3)
	start := time.Now()
	rs := run(t,
		probe.Spec{Name: "a", Addr: one, Meet: 5 * time.Second, Listen: p[:2], UDP: p[2], Expect: []string{"b"}, Peers: []probe.Peer{{Name: "b", Addr: two, Ports: p[:1], UDP: p[2], Rounds: 20}}},
		probe.Spec{Name: "b", Addr: two, Meet: 5 * time.Second, Listen: p[:1], UDP: p[2], Expect: []string{"a"}, Peers: []probe.Peer{{Name: "a", Addr: one, Ports: p[:2], UDP: p[2], Rounds: 50}}})
	if took := time.Since(start); took > 8*time.Second {
		t.Errorf("they did not end when they were done but after %s", took)
	}
	for i, r := range rs {
		if len(r.Links) != 1 {
			t.Fatalf("%+v", r)
		}
		l := r.Links[0]
		if l.UDP != probe.Open || l.Sent != 50 || l.MTU < 1280 || l.Stalled || l.P50 <= 0 || l.Min > l.P50 || l.P50 > l.P99 || l.Ahead.Abs() > time.Second {
			t.Errorf("%d: %+v", i, l)
		}
		for port, got := range l.Ports {
			if got != probe.Open {
				t.Errorf("%d: port %d: %s", i, port, got)
			}
		}
	}
	if rs[0].Links[0].Rounds != 20 || rs[1].Links[0].Rounds != 50 || len(rs[1].Links[0].Ports) != 2 {
		t.Errorf("%+v", rs)
	}
	if rs[0].Interface.Name != "" { // 127.5.0.1 is no address of an interface of its own
		t.Errorf("%+v", rs[0].Interface)
	}
}

// What is not a probe of this run, or not the one that was called, is no way
// to a host.
func TestOthersAnswer(t *testing.T) {
	web, err := net.Listen("tcp", two.String()+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer web.Close()
	go func() {
		for {
			c, err := web.Accept()
			if err != nil {
				return
			}
			c.Write([]byte("HTTP/1.0 400 Bad Request\r\n\r\n"))
			c.Close()
		}
	}()
	at := web.Addr().(*net.TCPAddr).Port
	p := free(t, 2)
	rs := run(t,
		probe.Spec{Name: "a", Addr: one, Meet: 300 * time.Millisecond, Peers: []probe.Peer{
			{Name: "web", Addr: two, Ports: []int{at}}, {Name: "busy", Addr: two, Busy: []int{at, p[1]}}, {Name: "c", Addr: two, Ports: p[:1]}}},
		probe.Spec{Name: "b", Addr: two, Listen: append(p[:1:1], at), Expect: []string{"nobody"}, Wait: 2 * time.Second})
	for i, want := range []map[int]string{{at: "something else answers there"}, {at: probe.Open, p[1]: "connection refused"}, {p[0]: "host b answers there"}} {
		for port, text := range want {
			if got := rs[0].Links[i].Ports[port]; got != text {
				t.Errorf("%s: port %d: %q, want %q", rs[0].Links[i].Peer, port, got, text)
			}
		}
		if rs[0].Links[i].Rounds != 0 {
			t.Errorf("measured: %+v", rs[0].Links[i])
		}
	}
	if got := rs[1].Bind[at]; got != "address already in use" {
		t.Errorf("bind: %q", got)
	}
}

// A probe does not answer who does not know the nonce, on either protocol.
func TestStrangersGetNoAnswer(t *testing.T) {
	p := free(t, 2)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan probe.Report)
	go func() {
		done <- probe.Run(ctx, probe.Spec{Nonce: "secret", Name: "a", Addr: one, Listen: p[:1], UDP: p[1], Expect: []string{"b"}, Wait: time.Minute})
	}()
	var c net.Conn
	for {
		var err error
		if c, err = net.Dial("tcp", netip.AddrPortFrom(one, uint16(p[0])).String()); err == nil {
			break
		}
	}
	defer c.Close()
	c.Write([]byte("dcos-probe guess b\ned"))
	if n, err := c.Read(make([]byte, 100)); n > 0 || err == nil {
		t.Errorf("%d bytes for a stranger, %v", n, err)
	}
	u, err := net.Dial("udp", netip.AddrPortFrom(one, uint16(p[1])).String())
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	u.Write([]byte("dcos-probe guess b 1"))
	u.Write([]byte("dcos-probe secret b 2")) // the only one that is answered
	b := make([]byte, 100)
	if n, err := u.Read(b); err != nil || string(b[:n]) != "dcos-probe secret b 2" {
		t.Errorf("%q %v", b[:n], err)
	}
	cancel()
	<-done
}

func TestResolvers(t *testing.T) {
	pc, err := net.ListenPacket("udp", one.String()+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	go func() {
		b := make([]byte, 512)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			b[2] |= 0x80 // an answer
			pc.WriteTo(b[:n], from)
		}
	}()
	good := pc.LocalAddr().(*net.UDPAddr).AddrPort()
	rs := run(t, probe.Spec{Name: "a", Addr: one, Resolvers: []netip.AddrPort{good, netip.AddrPortFrom(one, 1)}})
	if r := rs[0].Resolvers; r[0].Error != "" || r[0].Took <= 0 || r[1].Error != "connection refused" {
		t.Errorf("%+v", r)
	}
}

// Nothing is left of what was written.
func TestFsync(t *testing.T) {
	dir := t.TempDir()
	rs := run(t, probe.Spec{Name: "a", Addr: one, StateDir: dir + "/not/there", Fsync: true})
	f := rs[0].Fsync
	if f == nil || f.Error != "" || f.Writes == 0 || f.P50 > f.P99 || f.Measured != dir {
		t.Errorf("%+v", f)
	}
	if es, err := os.ReadDir(dir); err != nil || len(es) > 0 {
		t.Errorf("left: %v %v", es, err)
	}
	if strings.Contains(rs[0].Clock.Error, "\n") {
		t.Errorf("%+v", rs[0].Clock)
	}
}
