package preflight

import (
	"bytes"
	"context"
	"crypto/rand"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/installer/preflight/probe"
	"dcos.example/dcos/installer/topology"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
)

const (
	// answerTime is how long a host may take to let the installer in and to
	// tell its facts.
	answerTime = 20 * time.Second
	// bringTime is how long it may take to bring dcos-probe to it.
	bringTime = 20 * time.Second
	// meetTime and probeTime bound the measuring, which takes less than a second
	// where hosts are near and reach each other; eachHost is added for every
	// host, as they do not all begin at once.
	meetTime  = time.Second
	probeTime = 8 * time.Second
	eachHost  = 10 * time.Millisecond

	masterRounds = 100
	agentRounds  = 20
)

// Target is a host to look at.
type Target struct {
	Name string
	Role Role
	Addr netip.Addr
	// Shared, Known, Witness and Absent are as in Host.
	Shared, Known, Witness bool
	Absent                 string
	Ref                    host.Ref
}

// Options is what Collect needs.
type Options struct {
	Targets   []Target
	Open      host.Opener
	Resolvers []netip.AddrPort
	// Probe is the program dcos-probe; without it nothing is measured between
	// hosts. ProbePath is where a host that has the release has it.
	Probe     []byte
	ProbePath string
	// Parallel bounds how many hosts are asked at once.
	Parallel int
}

// Collect asks every target for its facts, and lets those that answer measure
// each other. It sends nothing to others than the targets and, from them, the
// resolvers. On a host it makes at most one file, dcos-probe, which removes
// itself. It takes seconds at most, however many hosts do not answer.
func Collect(ctx context.Context, o Options) []*Host {
	c := &collection{o: o, hosts: make([]*Host, len(o.Targets)), hands: make([]host.Host, len(o.Targets)), at: make([]string, len(o.Targets))}
	var g errgroup.Group
	g.SetLimit(max(o.Parallel, 1))
	for i, t := range o.Targets {
		c.hosts[i] = &Host{Name: t.Name, Role: t.Role, Addr: t.Addr, Shared: t.Shared, Known: t.Known, Witness: t.Witness, Absent: t.Absent}
		if t.Absent == "" {
			g.Go(func() error {
				c.ask(ctx, i)
				c.bring(ctx, i)
				return nil
			})
		}
	}
	g.Wait()
	c.measure(ctx)
	return c.hosts
}

type collection struct {
	o     Options
	hosts []*Host
	hands []host.Host // of those that answered
	at    []string    // path of dcos-probe there, empty when there is none
}

// ask gets the facts of a host.
func (c *collection) ask(ctx context.Context, i int) {
	h := c.hosts[i]
	ctx, cancel := context.WithTimeoutCause(ctx, answerTime, fmt.Errorf("no answer within %s", answerTime))
	defer cancel()
	hand, err := c.o.Open(ctx, c.o.Targets[i].Ref)
	if err != nil {
		h.Unreached = because(ctx, h, err)
		return
	}
	h.Sent = time.Now()
	out, err := hand.Run(ctx, "/bin/sh", "-c", "PROBE="+host.Quote(c.o.ProbePath)+"\n"+script())
	h.Received = time.Now()
	if err != nil {
		h.Unreached = because(ctx, h, err)
		return
	}
	h.Stderr = out.Stderr
	h.Facts, h.Noise, _ = parseFacts(out.Stdout)
	h.Noise = strings.TrimSpace(out.Noise + h.Noise)
	if h.Facts != nil {
		c.hands[i] = hand
	}
}

// because says that the time was up, if that is why.
func because(ctx context.Context, h *Host, err error) error {
	if ctx.Err() != nil && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(ctx))) {
		return fault.New("reach host "+h.Name, fault.Unavailable, context.Cause(ctx))
	}
	return err
}

// bring puts dcos-probe onto a host that does not have it.
func (c *collection) bring(ctx context.Context, i int) {
	h := c.hosts[i]
	if c.hands[i] == nil {
		return
	}
	if at, ok := h.Facts.one("probe"); ok {
		c.at[i] = at
		return
	}
	arch := Arch(c.o.Probe)
	_, have, _ := strings.Cut(h.Facts.text("uname"), " ")
	switch {
	case len(c.o.Probe) == 0:
		h.NoProbe = "the release has no dcos-probe"
		return
	case have != arch:
		h.NoProbe = fmt.Sprintf("dcos-probe is for %s, the host is %s", arch, have)
		return
	case h.Facts.text("uid") != "0":
		h.NoProbe = "commands do not run as root"
		return
	}
	dir, ok := h.place(int64(len(c.o.Probe)))
	if !ok {
		h.NoProbe = "there is no room for dcos-probe: /tmp, /var/tmp and " + config.VarDir + " are full, or mounted noexec or read-only"
		return
	}
	ctx, cancel := context.WithTimeoutCause(ctx, bringTime, fmt.Errorf("not there within %s", bringTime))
	defer cancel()
	path := dir + "/dcos-probe-" + rand.Text()[:10]
	if err := c.hands[i].WriteFile(ctx, path, host.File{Data: c.o.Probe, Mode: fs.FileMode(0o700)}); err != nil {
		h.NoProbe = cut("dcos-probe could not be brought there: "+because(ctx, h, err).Error(), 200)
		return
	}
	c.at[i] = path
}

// place is a directory where a program of n bytes can lie and run.
func (h *Host) place(n int64) (string, bool) {
	for _, p := range []string{"/tmp", "/var/tmp", config.VarDir} {
		d, ok := h.Facts.disk(p)
		if ok && d.free > 2*n && d.inodes != 0 || ok && d.total == 0 && d.free > 2*n {
			if !slices.Contains(d.options, "noexec") && !slices.Contains(d.options, "ro") {
				return d.dir, true
			}
		}
	}
	return "", false
}

// measure runs dcos-probe on all hosts at the same time: each needs the others
// to answer it.
func (c *collection) measure(ctx context.Context) {
	specs := plan(c.hosts, func(i int) bool { return c.at[i] != "" }, c.o.Resolvers)
	var wg sync.WaitGroup
	for i, s := range specs {
		if s != nil {
			wg.Go(func() { c.probe(ctx, i, *s) })
		}
	}
	wg.Wait()
}

func (c *collection) probe(ctx context.Context, i int, s probe.Spec) {
	h, hand := c.hosts[i], c.hands[i]
	limit := s.Wait + answerTime
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %s", limit))
	defer cancel()
	spec, err := json.Marshal(s)
	if err != nil {
		h.NoProbe = err.Error()
		return
	}
	argv := []string{c.at[i]}
	brought := c.at[i] != c.o.ProbePath
	if brought {
		argv = append(argv, "-rm")
	}
	out, err := hand.Run(ctx, append(argv, string(spec))...)
	var r probe.Report
	switch {
	case err != nil:
		h.NoProbe = cut(because(ctx, h, err).Error(), 200)
	case out.Code != 0:
		h.NoProbe = fmt.Sprintf("dcos-probe ended with %d: %s", out.Code, cut(strings.TrimSpace(out.Stderr), 200))
	default:
		text := out.Stdout
		if i := strings.IndexByte(text, '{'); i > 0 { // after what a shell's profile wrote
			text = text[i:]
		}
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			h.NoProbe = "dcos-probe wrote no report: " + err.Error()
			break
		}
		h.Probe = &r
	}
	if brought && h.Probe == nil { // it may not have come to remove itself
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTime)
		defer cancel()
		if err := hand.Remove(ctx, c.at[i]); err != nil {
			h.NoProbe += fmt.Sprintf("; %s is still there", c.at[i])
		}
	}
}

// plan decides who measures whom. Masters measure each other and every agent,
// agents measure every master and the next agent in the list: that costs
// hosts times masters, not the square of hosts. It is pure.
func plan(hosts []*Host, runs func(int) bool, resolvers []netip.AddrPort) []*probe.Spec {
	nonce := rand.Text()
	out := make([]*probe.Spec, len(hosts))
	var list []int
	for i := range hosts {
		if runs(i) {
			list = append(list, i)
		}
	}
	wait := time.Duration(len(list)) * eachHost
	for _, i := range list {
		h := hosts[i]
		out[i] = &probe.Spec{Nonce: nonce, Name: h.Name, Addr: h.Addr, Wait: probeTime + wait, Meet: meetTime + wait}
		if !h.Witness {
			out[i].Resolvers, out[i].StateDir, out[i].Fsync, out[i].Kernel = resolvers, config.VarDir, isMaster(h), !h.installed()
		}
	}
	link := func(i, j int) {
		if i == j || hosts[i].Addr == hosts[j].Addr || hosts[i].Witness && hosts[j].Witness {
			return
		}
		from, to := hosts[i], hosts[j]
		p := probe.Peer{Name: to.Name, Addr: to.Addr, Rounds: agentRounds}
		if isMaster(from) && isMaster(to) {
			p.Rounds = masterRounds
		}
		for _, port := range needs(from.Role, to.Role) {
			switch ours, taken := to.listens("tcp", port); {
			case ours:
				p.Busy = append(p.Busy, port)
			case !taken && !to.installed():
				p.Ports = append(p.Ports, port)
				if !slices.Contains(out[j].Listen, port) {
					out[j].Listen = append(out[j].Listen, port)
				}
			}
		}
		switch ours, taken := to.listens("udp", config.PortDNS); {
		case ours:
			p.DNS = true
		case !taken && !to.installed():
			p.UDP, out[j].UDP = config.PortDNS, config.PortDNS
		}
		if len(p.Ports) > 0 {
			out[j].Expect = append(out[j].Expect, from.Name)
		}
		if len(p.Ports)+len(p.Busy) > 0 {
			out[i].Peers = append(out[i].Peers, p)
		}
	}
	var others []int
	for _, i := range list {
		if !isMaster(hosts[i]) {
			others = append(others, i)
			continue
		}
		for _, j := range list {
			link(i, j)
		}
	}
	for n, i := range others {
		for _, j := range list {
			if hosts[j].Role == topology.RoleMaster {
				link(i, j)
			}
		}
		link(i, others[(n+1)%len(others)])
	}
	return out
}

// listens says whether something listens on a port of the host's address, and
// whether it is the cluster's own.
func (h *Host) listens(proto string, port int) (ours, taken bool) {
	for _, l := range h.Facts.listeners() {
		if l.proto == proto && int(l.at.Port()) == port && clashes(l.at.Addr(), h.Addr) {
			return l.ours, true
		}
	}
	return false, false
}

// Arch returns the architecture that a program is for, as uname -m says it;
// empty when it cannot be told.
func Arch(program []byte) string {
	const machine = 18 // where the header has it
	if len(program) < machine+2 || !bytes.HasPrefix(program, []byte(elf.ELFMAG)) {
		return ""
	}
	switch elf.Machine(binary.LittleEndian.Uint16(program[machine:])) {
	case elf.EM_X86_64:
		return "x86_64"
	case elf.EM_AARCH64:
		return "aarch64"
	case elf.EM_PPC64:
		return "ppc64le"
	case elf.EM_RISCV:
		return "riscv64"
	default:
		return ""
	}
}
