package preflight

import (
	"fmt"
	"strconv"
	"strings"

	"dcos.example/dcos/installer/preflight/probe"
)

// leastKernel is that of the oldest system that is still kept (RHEL 8); nft
// maps for the balancer and seccomp as runc uses it are in it.
var leastKernel = [2]int{4, 18}

func kernelChecks() []Check {
	feature := func(id, title string, sev Severity, roles []Role, module, fix string) Check {
		return Check{ID: id, Title: title, Scope: ScopeHost, Roles: roles, Severity: sev,
			Measures: "whether the kernel does it when tried, or else has the module " + module, Limit: "it works", Fix: fix,
			host: func(h *Host, _ *Input) verdict { return judgeFeature(h, module, fix) }}
	}
	return []Check{
		{ID: "kernel", Title: "The kernel is new enough", Scope: ScopeHost, Severity: Error, Machine: true,
			Measures: "the release of the kernel", Limit: fmt.Sprintf("at least %d.%d", leastKernel[0], leastKernel[1]), Fix: "upgrade the distribution, or its kernel, and reboot", host: judgeKernel},
		{ID: "architecture", Title: "The release is for this processor", Scope: ScopeHost, Severity: Error,
			Measures: "the machine's architecture against that of the bundle", Limit: "the same", Fix: "use the bundle for this architecture, or hosts of the bundle's", host: judgeArch},
		feature("kernel-overlay", "The kernel has overlay file systems", Error, agents, "overlay", "modprobe overlay, and echo overlay > /etc/modules-load.d/dcos.conf"),
		feature("kernel-veth", "The kernel has virtual network cables", Error, agents, "veth", "modprobe veth; cloud kernels have it in linux-modules-extra-$(uname -r) (Ubuntu) or kernel-modules-extra (RHEL)"),
		feature("kernel-bridge", "The kernel has bridges", Error, agents, "bridge", "modprobe bridge, and echo bridge >> /etc/modules-load.d/dcos.conf"),
		feature("kernel-nftables", "The kernel has nftables with address translation", Error, nil, "nf_tables", "modprobe nf_tables nft_chain_nat; the load balancer of each host is made of it"),
		feature("kernel-conntrack", "The kernel tracks connections", Error, nil, "nf_conntrack", "modprobe nf_conntrack; address translation needs it"),
		feature("kernel-vxlan", "The kernel has VXLAN", Warning, agents, "vxlan", "modprobe vxlan: overlay networks between hosts will need it"),
		{ID: "kernel-br-netfilter", Title: "What crosses a bridge is not filtered away", Scope: ScopeHost, Roles: agents, Severity: Warning,
			Measures: "net.bridge.bridge-nf-call-iptables, and whether a firewall drops what is forwarded", Limit: "0, or a firewall that lets forwarded packets pass",
			Fix:  "sysctl -w net.bridge.bridge-nf-call-iptables=0, or let forwarded packets of the bridge dcos0 pass: containers of one host would not reach each other",
			host: judgeBridged},
		{ID: "kernel-namespaces", Title: "The kernel has namespaces", Scope: ScopeHost, Roles: agents, Severity: Error,
			Measures: "kinds of namespaces, and whether new ones can be made", Limit: "mnt, pid, net, ipc and uts; none limited to 0",
			Fix: "use a distribution's own kernel, and take user.max_mnt_namespaces=0 and its like out of /etc/sysctl.d", host: judgeNamespaces},
		{ID: "kernel-seccomp", Title: "The kernel filters system calls", Scope: ScopeHost, Roles: agents, Severity: Warning,
			Measures: "actions of seccomp", Limit: "there are some", Fix: "use a kernel with CONFIG_SECCOMP_FILTER: containers run without a filter for system calls",
			host: func(h *Host, _ *Input) verdict {
				if _, ok := h.Facts.one("seccomp"); !ok {
					return fail("none")
				}
				return pass("there")
			}},
		{ID: "user-namespaces", Title: "User namespaces are not shut off", Scope: ScopeHost, Roles: agents, Severity: Warning, Machine: true,
			Measures: "user.max_user_namespaces", Limit: "more than 0", Fix: "sysctl -w user.max_user_namespaces=15000: images that build images or run sandboxes (browsers, bubblewrap) need them",
			host: func(h *Host, _ *Input) verdict { return atLeast(h, 1, "user/max_user_namespaces") }},
	}
}

func judgeKernel(h *Host, _ *Input) verdict {
	release, _, _ := strings.Cut(h.Facts.text("uname"), " ")
	w := strings.SplitN(release, ".", 3)
	if len(w) < 2 {
		return unknown("its release is %q", release)
	}
	major, err := strconv.Atoi(w[0])
	minor, merr := strconv.Atoi(strings.TrimRight(w[1], "-+abcdefghijklmnopqrstuvwxyz"))
	if err != nil || merr != nil {
		return unknown("its release is %q", release)
	}
	if major < leastKernel[0] || major == leastKernel[0] && minor < leastKernel[1] {
		return fail("%s", release)
	}
	return pass("%s", release)
}

func judgeArch(h *Host, in *Input) verdict {
	_, have, _ := strings.Cut(h.Facts.text("uname"), " ")
	switch {
	case have == "" || in.Release.Arch == "":
		return unknown("the architecture of the host or the bundle is not known")
	case have != in.Release.Arch:
		return fail("%s", have).over("%s, as release %s", in.Release.Arch, in.Release.Name).do("use a bundle for %s on %s, or a host of %s", have, h.Name, in.Release.Arch)
	default:
		return pass("%s", have)
	}
}

// judgeFeature believes what was tried most, then what is there, then what
// could be loaded. Without any sign, a kernel with neither modules nor a list
// of them may still have it built in.
func judgeFeature(h *Host, module, fix string) verdict {
	if h.Probe != nil {
		switch got := h.Probe.Kernel[module]; got {
		case "":
		case probe.Works:
			return pass("works")
		default:
			return fail("%s", got)
		}
	}
	switch {
	case module == "overlay" && h.Facts.has("filesystem", "overlay"):
		return pass("there")
	case module == "nf_conntrack" && hasSysctl(h, "net/netfilter/nf_conntrack_max"):
		return pass("there")
	case h.Facts.has("module", module):
		return pass("there as a module")
	case h.installed():
		return verdict{} // the cluster runs on it
	case len(h.Facts["modules"]) == 0:
		return unknown("the kernel has no list of modules, and it could not be tried: %s", h.unmeasured())
	default:
		return fail("kernel %s has no %s", strings.Fields(h.Facts.text("uname") + " ?")[0], module).do("on %s: %s", h.Name, fix)
	}
}

func hasSysctl(h *Host, name string) bool {
	_, ok := h.Facts.named("sysctl", name)
	return ok
}

func judgeBridged(h *Host, _ *Input) verdict {
	n, ok := h.Facts.sysctl("net/bridge/bridge-nf-call-iptables")
	drops := h.Facts.drops("forward")
	switch {
	case !ok:
		return pass("br_netfilter is not loaded")
	case n == 1 && len(drops) > 0:
		return fail("1, and %s", strings.Join(drops, ", "))
	default:
		return pass("%d", n)
	}
}

func judgeNamespaces(h *Host, _ *Input) verdict {
	var missing []string
	for _, n := range []string{"mnt", "pid", "net", "ipc", "uts"} {
		if !h.Facts.has("namespace", n) {
			missing = append(missing, n)
		}
		if max, ok := h.Facts.sysctl("user/max_" + n + "_namespaces"); ok && max == 0 {
			missing = append(missing, n+" (limited to 0)")
		}
	}
	if len(missing) > 0 {
		return fail("without %s", strings.Join(missing, ", "))
	}
	if h.Probe != nil {
		if got := h.Probe.Kernel["namespaces"]; got != "" && got != probe.Works {
			return fail("%s", got)
		}
	}
	return pass("all there")
}
