package preflight

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"dcos.example/dcos/runtime/config"
)

// ports are what a role listens on, with what for.
func ports(r Role) map[int]string {
	if slices.Contains(agents, r) {
		return map[int]string{config.PortAgent: "the agent"}
	}
	return map[int]string{config.PortGateway: "the gateway", config.PortGatewayPlain: "its redirect", config.PortMaster: "the master",
		config.PortOrchestrator: "apps", config.PortEtcdPeer: "etcd", config.PortRegistry: "images"}
}

// onLoopback are the ports that are served in clear on loopback, too.
var onLoopback = []int{config.PortMaster, config.PortAgent, config.PortOrchestrator}

func networkChecks() []Check {
	overlap := func(id, what, fix string, prefix netip.Prefix, roles []Role) Check {
		return Check{ID: id, Title: "Nothing is where " + what + " go", Scope: ScopeHost, Roles: roles, Severity: Error, Machine: true,
			Measures: "addresses and routes of the host within " + prefix.String(), Limit: "none", Fix: fix,
			host: func(h *Host, _ *Input) verdict { return judgeOverlap(h, prefix, fix) }}
	}
	bridge := config.DefaultAgent().Bridge.Subnet
	return []Check{
		{ID: "ports", Title: "The cluster's ports are free", Scope: ScopeHost, Severity: Error,
			Measures: "who listens on TCP ports of the host's role", Limit: "nobody but the cluster",
			Fix: "stop what listens there, or move it to another port: systemctl disable --now UNIT", host: judgePorts},
		{ID: "port-dns", Title: "The port of DNS is free", Scope: ScopeHost, Severity: Error,
			Measures: "who listens on port 53 of the host's address, of " + config.DNSAddr + " or of all addresses", Limit: "nobody but the cluster; 127.0.0.53 is nobody's business",
			Fix: "stop it, or bind it to loopback only: interface=lo and bind-interfaces in dnsmasq.conf, listen-on { 127.0.0.1; } in named.conf", host: judgeDNSPort},
		{ID: "address", Title: "The host has its address", Scope: ScopeHost, Severity: Error,
			Measures: "addresses of the host against the one in the file", Limit: "it is among them",
			Fix: "write the address that the host has itself into the file, not that of a NAT or floating in front; ssh_address is for the way in", host: judgeAddress},
		overlap("cidr-vip", "virtual addresses of apps", "renumber that network, or take the route away; apps' VIPs are in "+config.VIPRange+", and would hide it from the cluster", netip.MustParsePrefix(config.VIPRange), nil),
		overlap("cidr-overlay", "addresses of overlay networks", "renumber that network, or take the route away", netip.MustParsePrefix(config.OverlayRange), nil),
		overlap("cidr-bridge", "containers' addresses", "renumber that network, or take the route away; containers have "+bridge.String()+" on every agent", bridge, agents),
		overlap("cidr-dns", "addresses of the DNS server", "renumber that network, or take the route away; every host answers for names on "+config.DNSAddr, netip.PrefixFrom(netip.MustParseAddr(config.DNSAddr), 32), nil),
		{ID: "firewall", Title: "A firewall lets the cluster in", Scope: ScopeHost, Severity: Warning,
			Measures: "firewalld, ufw and chains that drop what comes in, against the ports that other hosts reached", Limit: "none, or all ports of the role open to the cluster",
			Fix: "open the role's ports to the other hosts", host: judgeFirewall},
		{ID: "firewall-forward", Title: "A firewall lets containers through", Scope: ScopeHost, Roles: agents, Severity: Error,
			Measures: "firewalld, ufw and chains that drop what is forwarded", Limit: "none",
			Fix: "let packets of the bridge dcos0 pass: nothing from or to containers gets through", host: judgeForward},
		{ID: "ip-forward", Title: "Forwarding stays on", Scope: ScopeHost, Roles: agents, Severity: Warning, Machine: true,
			Measures: "lines of /etc/sysctl.conf and /etc/sysctl.d that turn net.ipv4.ip_forward off", Limit: "none; the agent turns it on",
			Fix: "take the line away: the next boot or sysctl --system would cut containers off",
			host: func(h *Host, _ *Input) verdict {
				if l := h.Facts["sysctl-file"]; len(l) > 0 {
					return fail("%s", strings.Join(l, ", "))
				}
				n, _ := h.Facts.sysctl("net/ipv4/ip_forward")
				return pass("none, and now it is %d", n)
			}},
		{ID: "rp-filter", Title: "Answers may come another way", Scope: ScopeHost, Severity: Warning, Machine: true,
			Measures: "net.ipv4.conf.all.rp_filter, where the host has more than one network", Limit: "0 or 2 with several networks",
			Fix: "sysctl -w net.ipv4.conf.all.rp_filter=2 net.ipv4.conf.default.rp_filter=2, and the same in /etc/sysctl.d/50-dcos.conf: the strict filter drops what comes in by another interface than the answer goes out", host: judgeReversePath},
		{ID: "mtu-interface", Title: "The interface takes whole packets", Scope: ScopeHost, Severity: Warning,
			Measures: "the MTU of the interface with the host's address", Limit: "at least 1280", Fix: "raise it: ip link set IFACE mtu 1500, and in the network's configuration", host: judgeMTU},
		{ID: "hostname", Title: "The host finds its own name", Scope: ScopeHost, Severity: Warning, Machine: true,
			Measures: "whether /etc/hosts or nss-myhostname answers for the host's name", Limit: "one of them", Fix: "add the host's address and name to /etc/hosts: sudo and others wait for DNS otherwise", host: judgeHostname},
		{ID: "resolv-conf", Title: "Nobody else writes resolv.conf", Scope: ScopeHost, Severity: Warning, Machine: true,
			Measures: "what /etc/resolv.conf is, and programs that write it", Limit: "nothing but systemd-resolved, NetworkManager or dhclient, which the installer tells what to do",
			Fix: "tell it to leave the file alone", host: judgeResolvConf},
		{ID: "resolvers", Title: "The cluster's resolvers answer", Scope: ScopeHost, Severity: Warning,
			Measures: "a question for the root to each resolver in the file", Limit: "an answer from each within 1 s",
			Fix: "check the addresses under resolvers in the file, and that UDP port 53 to them is open", host: judgeResolvers},
	}
}

func judgePorts(h *Host, _ *Input) verdict {
	want := ports(h.Role)
	var taken []string
	var numbers []string
	ours := 0
	for _, l := range h.Facts.listeners() {
		what, ok := want[int(l.at.Port())]
		at := []netip.Addr{h.Addr}
		if slices.Contains(onLoopback, int(l.at.Port())) {
			at = append(at, netip.AddrFrom4([4]byte{127, 0, 0, 1}))
		}
		if !ok || l.proto != "tcp" || !clashes(l.at.Addr(), at...) {
			continue
		}
		if l.ours {
			ours++
			continue
		}
		who := l.who
		if who == "" {
			who = "a program"
		}
		taken = append(taken, fmt.Sprintf("%s on port %d (for %s)", who, l.at.Port(), what))
		numbers = append(numbers, fmt.Sprint(l.at.Port()))
	}
	taken, numbers = compact(taken), compact(numbers)
	switch {
	case len(taken) > 0:
		return fail("%s", strings.Join(taken, ", ")).do("on %s, stop what listens on %s, or give it another port: ss -ltnp shows it, systemctl disable --now UNIT stops it", h.Name, strings.Join(numbers, ", "))
	case ours > 0:
		return pass("the cluster's own listen")
	default:
		return pass("free")
	}
}

// clashes says whether a listener on at keeps others from listening on any of
// the addresses.
func clashes(at netip.Addr, addrs ...netip.Addr) bool {
	return at.IsUnspecified() || slices.Contains(addrs, at)
}

func judgeDNSPort(h *Host, _ *Input) verdict {
	for _, l := range h.Facts.listeners() {
		if int(l.at.Port()) != config.PortDNS || l.ours || !clashes(l.at.Addr(), h.Addr, netip.MustParseAddr(config.DNSAddr)) {
			continue
		}
		who := l.who
		if who == "" {
			who = "a program"
		}
		return fail("%s on %s (%s)", who, l.at, l.proto).do("on %s, stop %s or bind it to loopback only: interface=lo and bind-interfaces in dnsmasq.conf, listen-on { 127.0.0.1; } in named.conf", h.Name, who)
	}
	return pass("free")
}

func judgeAddress(h *Host, _ *Input) verdict {
	have := h.Facts.addresses()
	switch {
	case len(have) == 0:
		return unknown("/proc/net/fib_trie cannot be read")
	case slices.Contains(have, h.Addr):
		return pass("%s", h.Addr)
	}
	var text []string
	for _, a := range have {
		if !a.Is6() && !a.IsLinkLocalUnicast() && !strings.HasSuffix(a.String(), ".0") {
			text = append(text, a.String())
		}
	}
	return fail("%s", strings.Join(text, ", ")).over("%s is among them", h.Addr).
		do("in the file, give host %s the address that it has itself, such as %s; if that is not the way in from here, add ssh_address = %q", h.Name, firstOf(text), h.Addr)
}

func firstOf(s []string) string {
	if len(s) == 0 {
		return "10.0.0.11"
	}
	return s[0]
}

func judgeOverlap(h *Host, prefix netip.Prefix, fix string) verdict {
	var there []string
	for _, r := range h.Facts.routes() {
		if r.prefix.Overlaps(prefix) && !oursIs(r.dev) && !(h.installed() && r.prefix == prefix) {
			there = append(there, fmt.Sprintf("route %s on %s", r.prefix, r.dev))
		}
	}
	for _, a := range h.Facts.addresses() {
		// An address of the bridge has its route; that of DNS is the cluster's.
		if prefix.Contains(a) && !h.installed() && a.String() != config.DNSAddr && len(there) == 0 {
			there = append(there, "address "+a.String())
		}
	}
	if len(there) > 0 {
		return fail("%s", strings.Join(there, ", ")).over("none in %s", prefix).do("on %s: %s", h.Name, fix)
	}
	return pass("none")
}

// oursIs says whether an interface is one that the runtime makes.
func oursIs(dev string) bool { return strings.HasPrefix(dev, "dcos") || strings.HasPrefix(dev, "dcv") }

// drops lists what drops packets at a hook by default.
func (f Facts) drops(hook string) []string {
	var out []string
	for _, v := range f["firewall"] {
		out = append(out, v+" is active")
	}
	for _, v := range f["chain-drops"] {
		at, name, _ := strings.Cut(v, "|")
		if strings.HasPrefix(strings.ToLower(at), hook) {
			out = append(out, "chain "+name+" drops by default")
		}
	}
	return out
}

func judgeFirewall(h *Host, in *Input) verdict {
	drops := h.Facts.drops("input")
	if len(drops) == 0 {
		return pass("none")
	}
	blocked, seen := reachedBy(h, in)
	switch {
	case len(blocked) > 0:
		return fail("%s; ports %s are shut", strings.Join(drops, ", "), strings.Join(blocked, ", ")).do("%s", openPorts(h))
	case !seen:
		return fail("%s; whether the ports are open was not measured", strings.Join(drops, ", ")).do("%s", openPorts(h))
	default:
		return pass("%s, the ports are open", strings.Join(drops, ", "))
	}
}

// reachedBy returns the ports of h that others did not reach, and whether any
// other tried.
func reachedBy(h *Host, in *Input) (shut []string, tried bool) {
	for _, o := range in.Hosts {
		if o.Probe == nil {
			continue
		}
		for _, l := range o.Probe.Links {
			if l.Peer != h.Name {
				continue
			}
			for _, p := range sortedPorts(l.Ports) {
				tried = true
				if l.Ports[p] == noAnswer || strings.Contains(l.Ports[p], "no route") {
					shut = append(shut, fmt.Sprint(p))
				}
			}
		}
	}
	slices.Sort(shut)
	return slices.Compact(shut), tried
}

// openPorts is the command that opens the ports of a host's role.
func openPorts(h *Host) string {
	list := []string{"1025-32000"} // of tasks, and the agent's own
	if isMaster(h) {
		list = nil
		for _, p := range slices.Sorted(maps.Keys(ports(h.Role))) {
			list = append(list, fmt.Sprint(p))
		}
	}
	switch {
	case h.Facts.has("firewall", "firewalld"):
		return fmt.Sprintf("on %s: firewall-cmd --permanent --add-port=%s/tcp --add-service=dns && firewall-cmd --reload", h.Name, strings.Join(list, "/tcp --add-port="))
	case h.Facts.has("firewall", "ufw"):
		return fmt.Sprintf("on %s: ufw allow proto tcp to any port %s && ufw allow 53", h.Name, strings.ReplaceAll(strings.Join(list, ","), "-", ":"))
	default:
		return fmt.Sprintf("on %s, accept TCP ports %s and UDP port 53 from the cluster's hosts before the chain drops", h.Name, strings.Join(list, ", "))
	}
}

func judgeForward(h *Host, _ *Input) verdict {
	drops := h.Facts.drops("forward")
	if len(drops) == 0 {
		return pass("none")
	}
	fix := fmt.Sprintf("on %s, accept packets of the bridge dcos0 before the chain drops, or set its policy to accept: iptables -P FORWARD ACCEPT; docker sets it anew at its start", h.Name)
	switch {
	case h.Facts.has("firewall", "firewalld"):
		fix = fmt.Sprintf("on %s: firewall-cmd --permanent --zone=trusted --add-interface=dcos0 --add-source=%s && firewall-cmd --reload", h.Name, config.DefaultAgent().Bridge.Subnet)
	case h.Facts.has("firewall", "ufw"):
		fix = fmt.Sprintf("on %s: ufw route allow in on dcos0; ufw route allow out on dcos0", h.Name)
	}
	return fail("%s", strings.Join(drops, ", ")).do("%s", fix)
}

func judgeReversePath(h *Host, _ *Input) verdict {
	n, ok := h.Facts.sysctl("net/ipv4/conf/all/rp_filter")
	if !ok {
		return unknown("/proc/sys/net/ipv4/conf/all/rp_filter cannot be read")
	}
	var devs []string
	for _, r := range h.Facts.routes() {
		for _, l := range h.Facts.links() {
			if l.name == r.dev {
				devs = append(devs, r.dev)
			}
		}
	}
	devs = compact(devs)
	if n == 1 && len(devs) > 1 {
		return fail("1, with networks on %s", strings.Join(devs, ", "))
	}
	return pass("%d, %d networks", n, len(devs))
}

func judgeMTU(h *Host, _ *Input) verdict {
	if h.Probe == nil || h.Probe.Interface.Name == "" {
		return unknown("%s", h.unmeasured())
	}
	i := h.Probe.Interface
	if i.MTU < 1280 {
		return fail("%d on %s", i.MTU, i.Name)
	}
	return pass("%d on %s", i.MTU, i.Name)
}

func judgeHostname(h *Host, _ *Input) verdict {
	if by, ok := h.Facts.one("resolves-self"); ok {
		return pass("%s, by %s", h.Facts.text("hostname"), by)
	}
	return fail("%s is in neither", h.Facts.text("hostname")).do("on %s: echo '%s %s' >> /etc/hosts", h.Name, h.Addr, h.Facts.text("hostname"))
}

// judgeResolvConf knows what the installer tells to leave the file alone:
// NetworkManager by a drop-in, dhclient by a hook.
func judgeResolvConf(h *Host, _ *Input) verdict {
	v, ok := h.Facts.one("resolv-conf")
	if !ok {
		return unknown("there was no answer")
	}
	kind, what, _ := strings.Cut(v, " ")
	switch {
	case strings.HasPrefix(what, "/run/netconfig"):
		return fail("a link to %s, written by netconfig", what).do("on %s: set NETCONFIG_DNS_POLICY=\"\" in /etc/sysconfig/network/config and run netconfig update -f", h.Name)
	case strings.HasPrefix(what, "/run/resolvconf"):
		return fail("a link to %s, written by resolvconf", what).do("on %s: apt remove resolvconf, or resolvconf --disable-updates", h.Name)
	case len(h.Facts.processes("dhcpcd")) > 0:
		return fail("dhcpcd writes it").do("on %s: echo nohook resolv.conf >> /etc/dhcpcd.conf && systemctl restart dhcpcd", h.Name)
	case len(h.Facts.processes("dhclient")) > 0 && !h.Facts.has("path", "/etc/dhcp/dhclient-enter-hooks.d"):
		return fail("dhclient writes it, and reads no hooks").do("on %s: add make_resolv_conf() { :; } to /etc/dhclient-enter-hooks and chmod +x it", h.Name)
	case kind == "link":
		return pass("a link to %s", what)
	case kind == "none":
		return pass("none")
	default:
		return pass("a file")
	}
}

func judgeResolvers(h *Host, in *Input) verdict {
	if len(in.Resolvers) == 0 {
		return pass("the file names none")
	}
	if h.Probe == nil || len(h.Probe.Resolvers) == 0 {
		return unknown("%s", h.unmeasured())
	}
	var silent, fine []string
	for _, r := range h.Probe.Resolvers {
		if r.Error != "" {
			silent = append(silent, fmt.Sprintf("%s: %s", r.Addr, r.Error))
		} else {
			fine = append(fine, fmt.Sprintf("%s in %s", r.Addr, span(r.Took)))
		}
	}
	if len(silent) > 0 {
		return fail("%s", strings.Join(silent, ", "))
	}
	return pass("%s", strings.Join(fine, ", "))
}

// compact returns s in order without what is there twice.
func compact(s []string) []string {
	slices.Sort(s)
	return slices.Compact(s)
}
