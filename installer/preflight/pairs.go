package preflight

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"dcos.example/dcos/installer/preflight/probe"
	"dcos.example/dcos/installer/topology"
	"dcos.example/dcos/runtime/config"
)

const (
	// goodLatency keeps changes of the cluster quick; each waits for a round
	// trip between masters.
	goodLatency = 10 * time.Millisecond
	// agentLatency is what an agent may be away: task updates are quick then.
	agentLatency = 100 * time.Millisecond
	// mostLost is what TCP bears without becoming slow, in percent.
	mostLost = 2
	// leastMTU is what every path on the Internet should take.
	leastMTU = 1280
	// pairSkew is how far clocks of two hosts may be apart: tokens and leases
	// live for minutes, logs are read together.
	pairSkew = 2 * time.Second

	noAnswer = "no answer"
)

// worstLatency is the interval of heartbeats between masters.
func worstLatency() time.Duration { return time.Duration(config.DefaultMaster().HeartbeatInterval) }

// needs lists the TCP ports on which from must reach to.
func needs(from, to Role) []int {
	m := topology.RoleMaster
	switch {
	case from == m && to == m:
		return []int{config.PortMaster, config.PortEtcdPeer, config.PortOrchestrator, config.PortGateway, config.PortRegistry}
	case to == m:
		return []int{config.PortMaster, config.PortRegistry}
	case from == m:
		return []int{config.PortAgent, taskPort}
	default:
		return []int{taskPort}
	}
}

// taskPort stands for the ports of tasks on agents: masters and other agents
// must reach them.
const taskPort = 31000

func portName(p int) string {
	if p == taskPort {
		return fmt.Sprintf("%d (for ports of tasks)", p)
	}
	return fmt.Sprint(p)
}

func pairChecks() []Check {
	between := func(id, title, limit, fix string, sev Severity, measures string, f func(pair, *Input) verdict) Check {
		return Check{ID: id, Title: title, Scope: ScopePair, Severity: sev, Measures: measures, Limit: limit, Fix: fix, pair: f}
	}
	latency := func(id, title string, sev Severity, most time.Duration, want func(pair) bool, percent string, of func(*probe.Link) time.Duration, fix string) Check {
		return between(id, title, "at most "+span(most), fix, sev, percent+" of round trips over TCP", func(p pair, _ *Input) verdict {
			switch {
			case !want(p):
				return verdict{}
			case p.link.Rounds == 0:
				return unmeasuredPair(p)
			case of(p.link) > most:
				return fail("%s %s", percent, span(of(p.link)))
			default:
				return pass("%s", span(of(p.link)))
			}
		})
	}
	both := func(p pair) bool { return isMaster(p.from) && isMaster(p.to) }
	one := func(p pair) bool { return isMaster(p.to) && !isMaster(p.from) }
	p50 := func(l *probe.Link) time.Duration { return l.P50 }
	p99 := func(l *probe.Link) time.Duration { return l.P99 }
	return []Check{
		between("mesh-tcp", "Hosts reach each other", "every port that the roles need",
			"open the ports between the hosts, in their firewalls and in what is between them (security groups, switches)", Error,
			"TCP connections to the ports of the other host", judgeMeshTCP),
		between("mesh-udp", "Datagrams get through", "an answer from UDP port 53", "open UDP port 53 between the hosts", Warning, "datagrams to port 53 of the other host", judgeMeshUDP),
		between("path-mtu", "Whole packets get through", fmt.Sprintf("packets as large as the smaller of both interfaces takes, at least %d", leastMTU),
			"let ICMP \"fragmentation needed\" pass, or set the MTU of the interfaces to what the path takes", Error,
			"32 KiB over TCP, and the MTU of the path as the kernel learns it", judgePathMTU),
		latency("latency-masters", "Masters are near each other", Warning, goodLatency, both, "p50", p50,
			"put the masters into one region or data centre: each change of the cluster waits for this"),
		latency("latency-masters-p99", "Heartbeats are in time", Error, worstLatency(), both, "p99", p99,
			"put the masters nearer to each other, or find what delays packets: beyond the interval of heartbeats, leaders change for no reason"),
		latency("latency-agents", "Agents are near the masters", Warning, agentLatency, one, "p50", p50,
			"put the agents nearer to the masters: starting a task takes several of these"),
		between("packet-loss", "No packets are lost", fmt.Sprintf("at most %d %% of 50 datagrams", mostLost),
			"look at the interfaces' counters (ip -s link) and at the switches between: cabling, duplex and overload lose packets", Warning,
			"datagrams to the other host that come back", judgeLoss),
		between("clock-skew", "Clocks agree", "at most "+span(pairSkew)+" apart",
			"keep both clocks right: timedatectl set-ntp true, or chronyc makestep", Error,
			"the other host's clock, from the quickest round trip", judgeSkew),
	}
}

func unmeasuredPair(p pair) verdict {
	for _, port := range sortedPorts(p.link.Ports) {
		if p.link.Ports[port] != probe.Open {
			return unknown("port %d: %s", port, p.link.Ports[port])
		}
	}
	return verdict{} // the cluster runs there already
}

func sortedPorts(m map[int]string) []int { return slices.Sorted(maps.Keys(m)) }

func judgeMeshTCP(p pair, _ *Input) verdict {
	var shut, open []string
	why := map[string][]string{}
	for _, port := range sortedPorts(p.link.Ports) {
		got := p.link.Ports[port]
		// What the other end could not listen on says nothing of the way there.
		if p.to.Probe != nil && p.to.Probe.Bind[port] != "" && got != noAnswer {
			continue
		}
		if got == probe.Open {
			open = append(open, fmt.Sprint(port))
			continue
		}
		why[got] = append(why[got], portName(port))
		shut = append(shut, fmt.Sprint(port))
	}
	if len(shut) > 0 && len(open) > 0 && lossy(p.link) {
		return unknown("packets get lost, and port %s did not answer for that or another reason", strings.Join(shut, ", "))
	}
	if len(shut) == 0 {
		if len(open) == 0 {
			return unknown("other programs are on these ports of %s", p.to.Name)
		}
		return pass("%s", strings.Join(open, ", "))
	}
	var text []string
	for _, w := range slices.Sorted(maps.Keys(why)) {
		text = append(text, fmt.Sprintf("%s on port %s", w, strings.Join(why[w], ", ")))
	}
	v := fail("%s", strings.Join(text, "; ")).over("TCP port %s of %s (%s) reached", strings.Join(shut, ", "), p.to.Name, p.to.Addr)
	if len(p.to.Facts.drops("input")) > 0 {
		return v.do("%s", openPorts(p.to))
	}
	return v.do("let %s (%s) reach %s (%s) on TCP port %s: look at security groups and firewalls between them", p.from.Name, p.from.Addr, p.to.Name, p.to.Addr, strings.Join(shut, ", "))
}

func judgeMeshUDP(p pair, _ *Input) verdict {
	switch {
	case p.link.UDP == "":
		return verdict{}
	case p.link.UDP == probe.Open:
		return pass("open")
	default:
		return fail("%s", p.link.UDP).do("let %s (%s) reach %s (%s) on UDP port 53", p.from.Name, p.from.Addr, p.to.Name, p.to.Addr)
	}
}

func judgePathMTU(p pair, _ *Input) verdict {
	l := p.link
	if l.Rounds == 0 {
		return unmeasuredPair(p)
	}
	want := leastMTU
	if p.from.Probe != nil && p.to.Probe != nil && p.from.Probe.Interface.MTU > 0 && p.to.Probe.Interface.MTU > 0 {
		want = min(p.from.Probe.Interface.MTU, p.to.Probe.Interface.MTU)
	}
	switch {
	case l.Stalled && lossy(l):
		return unknown("packets get lost whatever their size")
	case l.Stalled && l.MTU == 0:
		return fail("32 KiB did not get through in any size of packets").over("packets of %d", want)
	case l.Stalled:
		return fail("packets of %d get through, those of %d do not, and nobody says so", l.MTU, want).over("packets of %d", want).
			do("on the way from %s to %s, let ICMP \"fragmentation needed\" pass and raise the smallest MTU, or set the interfaces of both to it: ip link set %s mtu %d", p.from.Name, p.to.Name, p.from.device(), l.MTU)
	case l.MTU > 0 && l.MTU < leastMTU:
		return fail("%d", l.MTU).over("at least %d", leastMTU)
	default:
		return pass("%d", l.MTU)
	}
}

func (h *Host) device() string {
	if h.Probe != nil && h.Probe.Interface.Name != "" {
		return h.Probe.Interface.Name
	}
	return "IFACE"
}

func lossy(l *probe.Link) bool { return l.Lost*100 > l.Sent*mostLost }

func judgeLoss(p pair, _ *Input) verdict {
	l := p.link
	switch {
	case l.Sent == 0 || l.Lost == l.Sent:
		return verdict{} // mesh-udp says it
	case lossy(l):
		return fail("%d of %d lost", l.Lost, l.Sent)
	default:
		return pass("%d of %d lost", l.Lost, l.Sent)
	}
}

func judgeSkew(p pair, _ *Input) verdict {
	l := p.link
	switch {
	case p.from.Shared:
		return verdict{} // one clock
	case l.Rounds == 0:
		return unmeasuredPair(p)
	case (l.Ahead.Abs() - l.Min/2) > pairSkew:
		return fail("%s is %s", p.to.Name, ahead(l.Ahead)).do("set the clock that is wrong, of %s or of %s, and keep it right: timedatectl set-ntp true, or chronyc makestep", p.from.Name, p.to.Name)
	default:
		return pass("%s", ahead(l.Ahead))
	}
}
