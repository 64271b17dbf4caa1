// Package probe measures from inside a host what cannot be read from files:
// whether other hosts are reached on the ports that the cluster uses and how
// fast, how soon the disk keeps what it is given, and whether the kernel does
// what containers need. It is what dcos-probe runs.
//
// The probes of all hosts run at the same time. Each answers on those of the
// cluster's ports that are free on its host, and calls the hosts that it is to
// measure; it ends when those that measure it have said that they are done, or
// when its time is up. It answers only to who knows the run's nonce, sends to
// nobody but its peers and the resolvers it is given, and leaves nothing
// behind.
package probe

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Spec says what to measure.
type Spec struct {
	Nonce string     `json:"nonce"` // of the run: peers know each other by it
	Name  string     `json:"name"`
	Addr  netip.Addr `json:"addr"`
	// Listen are the TCP ports to answer on, UDP the UDP port, 0 for none.
	Listen []int  `json:"listen,omitempty"`
	UDP    int    `json:"udp,omitempty"`
	Peers  []Peer `json:"peers,omitempty"`
	// Expect are the names of those that measure this host.
	Expect []string `json:"expect,omitempty"`
	// Wait bounds the whole run; Meet, how long peers may take to begin.
	Wait time.Duration `json:"wait"`
	Meet time.Duration `json:"meet"`

	Resolvers []netip.AddrPort `json:"resolvers,omitempty"`
	// StateDir is where the runtime keeps its state, or will.
	StateDir string `json:"stateDir,omitempty"`
	Fsync    bool   `json:"fsync,omitempty"`
	Kernel   bool   `json:"kernel,omitempty"`
}

// Peer is a host to measure.
type Peer struct {
	Name  string     `json:"name"`
	Addr  netip.Addr `json:"addr"`
	Ports []int      `json:"ports,omitempty"` // where its probe answers
	Busy  []int      `json:"busy,omitempty"`  // where something of ours already does
	UDP   int        `json:"udp,omitempty"`   // where its probe answers
	DNS   bool       `json:"dns,omitempty"`   // a DNS server of ours answers there
	// Rounds is how many round trips to measure.
	Rounds int `json:"rounds,omitempty"`
}

// Report is what was measured. Fields of what was not asked for are empty.
type Report struct {
	Interface Interface         `json:"interface"`
	Bind      map[int]string    `json:"bind,omitempty"` // port → why it could not be listened on
	Links     []Link            `json:"links,omitempty"`
	Resolvers []Resolver        `json:"resolvers,omitempty"`
	Clock     Clock             `json:"clock"`
	Fsync     *Fsync            `json:"fsync,omitempty"`
	Overlay   string            `json:"overlay,omitempty"` // "works", or why not
	Kernel    map[string]string `json:"kernel,omitempty"`  // feature → "works", or why not
}

// Interface is the one with the host's address; no name: none has it.
type Interface struct {
	Name string `json:"name,omitempty"`
	MTU  int    `json:"mtu,omitempty"`
}

// Link is what one host saw of another.
type Link struct {
	Peer  string         `json:"peer"`
	Ports map[int]string `json:"ports,omitempty"` // TCP port → "open", or why not
	// UDP is "open", why not, or empty when it was not tried.
	UDP string `json:"udp,omitempty"`
	// Round trips, 0 when none was measured.
	Rounds int           `json:"rounds,omitempty"`
	Min    time.Duration `json:"min,omitempty"`
	P50    time.Duration `json:"p50,omitempty"`
	P99    time.Duration `json:"p99,omitempty"`
	// Ahead is how far the peer's clock is ahead of the host's, give or take
	// half of Min.
	Ahead time.Duration `json:"ahead,omitempty"`
	// Sent and Lost count datagrams.
	Sent int `json:"sent,omitempty"`
	Lost int `json:"lost,omitempty"`
	// MTU is that of the path as the kernel knows it. When whole packets do not
	// get through although they should, Stalled is set and MTU is the largest
	// of some sizes that does, 0 if none.
	MTU     int  `json:"mtu,omitempty"`
	Stalled bool `json:"stalled,omitempty"`
}

// Open is the text of a port that is reached.
const Open = "open"

// Works is the text of what works.
const Works = "works"

// Resolver is what a resolver said.
type Resolver struct {
	Addr  netip.AddrPort `json:"addr"`
	Took  time.Duration  `json:"took,omitempty"`
	Error string         `json:"error,omitempty"`
}

// Clock is the kernel's view of the host's clock.
type Clock struct {
	Synchronised bool          `json:"synchronised"`
	MaxError     time.Duration `json:"maxError,omitempty"`
	Error        string        `json:"error,omitempty"`
}

// Fsync is how long the disk takes to keep a small append.
type Fsync struct {
	Writes   int           `json:"writes"`
	P50      time.Duration `json:"p50"`
	P99      time.Duration `json:"p99"`
	Error    string        `json:"error,omitempty"`
	Measured string        `json:"measured"` // the directory
}

// Run measures. It takes at most a little longer than s.Wait.
func Run(ctx context.Context, s Spec) Report {
	ctx, cancel := context.WithTimeout(ctx, s.Wait)
	defer cancel()
	r := Report{Interface: interfaceOf(s.Addr), Clock: clock(), Links: make([]Link, len(s.Peers)), Resolvers: make([]Resolver, len(s.Resolvers))}
	begun := time.Now()
	srv := serve(ctx, s)
	r.Bind = srv.failed
	var wg sync.WaitGroup
	for i, p := range s.Peers {
		wg.Go(func() { r.Links[i] = (&caller{s: s, p: p}).measure(ctx) })
	}
	for i, a := range s.Resolvers {
		wg.Go(func() { r.Resolvers[i] = ask(ctx, a, root) })
	}
	if s.Kernel {
		wg.Go(func() { r.Kernel = kernel() })
	}
	if s.StateDir != "" {
		wg.Go(func() {
			if s.Kernel {
				r.Overlay = overlay(s.StateDir)
			}
			if s.Fsync {
				r.Fsync = fsync(ctx, s.StateDir)
			}
		})
	}
	wg.Wait()
	srv.wait(ctx, begun)
	return r
}

func interfaceOf(addr netip.Addr) Interface {
	ifs, err := net.Interfaces()
	if err != nil {
		return Interface{}
	}
	for _, i := range ifs {
		as, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range as {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Unmap() == addr {
				return Interface{i.Name, i.MTU}
			}
		}
	}
	return Interface{}
}

// percentile returns the value that p percent of sorted are not above.
func percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min((len(sorted)*p+99)/100, len(sorted))-1]
}

// nearest returns path, or the nearest directory above it that is there.
func nearest(path string) string {
	for path != "/" {
		if fi, err := os.Stat(path); err == nil && fi.IsDir() {
			return path
		}
		path = filepath.Dir(path)
	}
	return path
}
