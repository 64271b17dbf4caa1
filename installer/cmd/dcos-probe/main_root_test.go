//go:build root

package main

import (
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"dcos.example/dcos/installer/preflight/probe"
)

// network is three namespaces: hosts a and b, and a switch between them that
// rules can be given to.
type network struct {
	t       *testing.T
	program string
}

func sh(t *testing.T, script string) string {
	t.Helper()
	out, err := exec.Command("sh", "-ec", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

func newNetwork(t *testing.T) network {
	n := network{t, filepath.Join(t.TempDir(), "dcos-probe")}
	sh(t, "CGO_ENABLED=0 go build -o "+n.program+" .")
	t.Cleanup(func() { exec.Command("sh", "-c", "ip netns del dct5a; ip netns del dct5b; ip netns del dct5s").Run() })
	sh(t, `
ip netns add dct5a; ip netns add dct5b; ip netns add dct5s
ip -n dct5s link add br0 type bridge; ip -n dct5s link set br0 up
for h in a:198.19.51.1 b:198.19.51.2; do
  n=${h%%:*}
  ip -n dct5s link add port$n type veth peer name eth0 netns dct5$n
  ip -n dct5s link set port$n master br0 up
  ip -n dct5$n link set lo up; ip -n dct5$n link set eth0 up
  ip -n dct5$n addr add ${h#*:}/24 dev eth0
done`)
	return n
}

// run runs the probes of both hosts.
func (n network) run(a, b probe.Spec) (ra, rb probe.Report) {
	n.t.Helper()
	var wg sync.WaitGroup
	one := func(name string, s probe.Spec, r *probe.Report) {
		s.Nonce, s.Wait, s.Meet = "n", 10*time.Second, 2*time.Second
		text, err := json.Marshal(s)
		if err != nil {
			n.t.Error(err)
			return
		}
		out, err := exec.Command("ip", "netns", "exec", "dct5"+name, n.program, string(text)).Output()
		if err == nil {
			err = json.Unmarshal(out, r)
		}
		if err != nil {
			n.t.Errorf("%s: %v", name, err)
		}
	}
	wg.Go(func() { one("a", a, &ra) })
	wg.Go(func() { one("b", b, &rb) })
	wg.Wait()
	return ra, rb
}

func specs() (a, b probe.Spec) {
	at, bt := netip.MustParseAddr("198.19.51.1"), netip.MustParseAddr("198.19.51.2")
	a = probe.Spec{Name: "a", Addr: at, Listen: []int{5050, 2380}, UDP: 53, Expect: []string{"b"}, Peers: []probe.Peer{{Name: "b", Addr: bt, Ports: []int{5050}, UDP: 53, Rounds: 20}}}
	b = probe.Spec{Name: "b", Addr: bt, Listen: []int{5050}, UDP: 53, Expect: []string{"a"}, Peers: []probe.Peer{{Name: "a", Addr: at, Ports: []int{5050, 2380}, UDP: 53, Rounds: 20}}}
	return a, b
}

func TestOpenNetwork(t *testing.T) {
	n := newNetwork(t)
	a, b := specs()
	a.Kernel, a.StateDir, a.Fsync = true, t.TempDir(), true
	ra, rb := n.run(a, b)
	if l := ra.Links[0]; l.Ports[5050] != probe.Open || l.UDP != probe.Open || l.Lost > 0 || l.MTU != 1500 || l.Stalled || l.Rounds != 20 {
		t.Errorf("a: %+v", l)
	}
	if l := rb.Links[0]; l.Ports[2380] != probe.Open || l.Rounds != 20 {
		t.Errorf("b: %+v", l)
	}
	if ra.Interface != (probe.Interface{Name: "eth0", MTU: 1500}) {
		t.Errorf("%+v", ra.Interface)
	}
	for _, f := range []string{"bridge", "veth", "vxlan", "nf_tables", "namespaces"} {
		if ra.Kernel[f] != probe.Works {
			t.Errorf("%s: %q", f, ra.Kernel[f])
		}
	}
	if ra.Overlay != probe.Works || ra.Fsync == nil || ra.Fsync.Writes == 0 {
		t.Errorf("overlay %q, fsync %+v", ra.Overlay, ra.Fsync)
	}
	if es, err := os.ReadDir(a.StateDir); err != nil || len(es) > 0 {
		t.Errorf("left: %v %v", es, err)
	}
	if links := sh(t, "ip -n dct5a -o link"); strings.Contains(links, "probe") {
		t.Errorf("left: %s", links)
	}
}

// What a firewall drops is told by port, and does not hold up what passes.
func TestFirewall(t *testing.T) {
	n := newNetwork(t)
	sh(t, `ip netns exec dct5a nft 'add table ip f; add chain ip f c { type filter hook input priority 0; }; add rule ip f c tcp dport 2380 drop; add rule ip f c udp dport 53 drop'`)
	a, b := specs()
	ra, rb := n.run(a, b)
	if l := rb.Links[0]; l.Ports[2380] != "no answer" || l.Ports[5050] != probe.Open || l.UDP != "no answer" || l.Lost != l.Sent || l.Rounds != 20 {
		t.Errorf("b: %+v", l)
	}
	if l := ra.Links[0]; l.Ports[5050] != probe.Open || l.Rounds != 20 {
		t.Errorf("a: %+v", l)
	}
}

// A path that swallows whole packets without a word is found, and which do get
// through.
func TestBlackHole(t *testing.T) {
	n := newNetwork(t)
	sh(t, `ip netns exec dct5s nft 'add table bridge f; add chain bridge f c { type filter hook forward priority 0; }; add rule bridge f c meta length > 1430 drop'`)
	// Segments are dropped whole, so nothing may join them on the way.
	sh(t, `for n in a b; do ip netns exec dct5$n ethtool -K eth0 tso off gso off gro off 2>/dev/null || ip -n dct5$n link set eth0 gso_max_segs 1; done`)
	a, b := specs()
	ra, _ := n.run(a, b)
	if l := ra.Links[0]; !l.Stalled || l.MTU != 1400 || l.Ports[5050] != probe.Open {
		t.Errorf("%+v", l)
	}
}
