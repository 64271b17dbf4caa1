package preflight

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"dcos.example/dcos/runtime/config"
)

const (
	// leastSystemd is what the oldest system that is still kept has (RHEL 8).
	leastSystemd = 239
	// leastMemory is what the daemons of a host run in; goodMemory leaves room
	// for the state of a few thousand tasks, or for tasks at all.
	leastMemory      = 512 << 20
	goodMasterMemory = 2 << 30
	goodAgentMemory  = 1 << 30
	// unitFiles is LimitNOFILE of the units.
	unitFiles    = 1 << 20
	leastEntropy = 256
)

func systemChecks() []Check {
	return []Check{
		{ID: "init", Title: "systemd is the init", Scope: ScopeHost, Severity: Error, Machine: true,
			Measures: "the name of process 1 and its state", Limit: "systemd, not about to stop",
			Fix: "use a distribution with systemd; after a rescue or emergency boot: systemctl default", host: judgeInit},
		{ID: "systemd", Title: "systemd is new enough", Scope: ScopeHost, Severity: Error, Machine: true,
			Measures: "the version of systemd", Limit: fmt.Sprintf("at least %d", leastSystemd), Fix: "upgrade the distribution", host: judgeSystemd},
		{ID: "cpus", Title: "Enough processors", Scope: ScopeHost, Roles: masters, Severity: Warning, Machine: true,
			Measures: "processors online", Limit: "at least 2 on masters", Fix: "give the host more processors", host: judgeCPUs},
		{ID: "memory", Title: "Memory for the daemons", Scope: ScopeHost, Severity: Error, Machine: true,
			Measures: "memory of the host", Limit: "at least " + size(leastMemory), Fix: "give the host more memory",
			host: func(h *Host, _ *Input) verdict { return judgeMemory(h, leastMemory) }},
		{ID: "memory-comfort", Title: "Memory for work", Scope: ScopeHost, Severity: Warning, Machine: true,
			Measures: "memory of the host", Limit: "at least " + size(goodMasterMemory) + " on masters, " + size(goodAgentMemory) + " on agents",
			Fix: "give the host more memory", host: judgeComfort},
		{ID: "swap", Title: "No swap", Scope: ScopeHost, Severity: Warning, Machine: true,
			Measures: "swap space in use by the kernel", Limit: "none",
			Fix: "swapoff -a, and take the swap lines out of /etc/fstab (zram: dnf remove zram-generator-defaults): a swapped master misses its heartbeats, and swapped tasks escape their memory limits", host: judgeSwap},
		{ID: "cgroup", Title: "Control groups can limit tasks", Scope: ScopeHost, Roles: agents, Severity: Error,
			Measures: "the version of control groups and their controllers", Limit: "cpu, memory and pids",
			Fix: "enable the controllers: take cgroup_disable= out of the kernel's command line, add cgroup_enable=memory (Raspberry Pi, old Debian), and reboot", host: judgeCgroup},
		{ID: "cgroup-version", Title: "Control groups version 2", Scope: ScopeHost, Roles: agents, Severity: Warning, Machine: true,
			Measures: "the version of control groups", Limit: "2",
			Fix: "boot with systemd.unified_cgroup_hierarchy=1 on the kernel's command line; version 1 works, and containerd drops it in 2029",
			host: func(h *Host, _ *Input) verdict {
				switch v := h.Facts.text("cgroup"); v {
				case "":
					return unknown("no control groups are mounted at /sys/fs/cgroup")
				case "v2":
					return pass("2")
				default:
					return fail("%s", map[string]string{"v1": "1", "hybrid": "1, with 2 beside it"}[v])
				}
			}},
		{ID: "nofile", Title: "Enough open files", Scope: ScopeHost, Severity: Error, Machine: true,
			Measures: "fs.nr_open, the most that a unit may be given, and fs.file-max", Limit: fmt.Sprintf("at least %d, as the units ask for", unitFiles),
			Fix: fmt.Sprintf("sysctl -w fs.nr_open=%d fs.file-max=%d, and the same in /etc/sysctl.d/50-dcos.conf", unitFiles, 2*unitFiles), host: judgeFiles},
		{ID: "pid-max", Title: "Enough process ids", Scope: ScopeHost, Roles: agents, Severity: Warning, Machine: true,
			Measures: "kernel.pid_max and kernel.threads-max", Limit: "at least 32768 each", Fix: "sysctl -w kernel.pid_max=4194304 kernel.threads-max=256000, and the same in /etc/sysctl.d/50-dcos.conf",
			host: func(h *Host, _ *Input) verdict { return atLeast(h, 32768, "kernel/pid_max", "kernel/threads-max") }},
		{ID: "inotify", Title: "Enough inotify watches", Scope: ScopeHost, Roles: agents, Severity: Warning, Machine: true,
			Measures: "fs.inotify.max_user_watches and max_user_instances", Limit: "at least 8192 and 128",
			Fix: "sysctl -w fs.inotify.max_user_watches=524288 fs.inotify.max_user_instances=1024, and the same in /etc/sysctl.d/50-dcos.conf",
			host: func(h *Host, _ *Input) verdict {
				if v := atLeast(h, 8192, "fs/inotify/max_user_watches"); v.state != Passed {
					return v
				}
				return atLeast(h, 128, "fs/inotify/max_user_instances")
			}},
		{ID: "entropy", Title: "Random numbers are ready", Scope: ScopeHost, Severity: Warning, Machine: true,
			Measures: "kernel.random.entropy_avail", Limit: fmt.Sprintf("at least %d", leastEntropy),
			Fix:  "install rng-tools or haveged, or give the virtual machine a virtio-rng device: keys would take long to make",
			host: func(h *Host, _ *Input) verdict { return atLeast(h, leastEntropy, "kernel/random/entropy_avail") }},
		{ID: "clock-synchronised", Title: "Something keeps the clock right", Scope: ScopeHost, Severity: Warning, Machine: true,
			Measures: "whether the kernel's clock is disciplined, and which program does it", Limit: "synchronised",
			Fix: "timedatectl set-ntp true, or install chrony: apt install chrony; dnf install chrony && systemctl enable --now chronyd", host: judgeSynchronised},
		{ID: "reboot", Title: "No reboot is due", Scope: ScopeHost, Severity: Warning, Machine: true,
			Measures: "the distribution's mark that a reboot is due, and whether the running kernel's modules are still there", Limit: "none due",
			Fix: "reboot the host now rather than later with tasks on it", host: judgeReboot},
		{ID: "selinux", Title: "SELinux lets the runtime work", Scope: ScopeHost, Severity: Warning, Machine: true,
			Measures: "the mode and policy of SELinux", Limit: "disabled, permissive, or enforcing the targeted policy",
			Fix: "set SELINUX=permissive in /etc/selinux/config and setenforce 0: only the targeted policy lets programs in /opt/dcos run as they must", host: judgeSELinux},
		{ID: "apparmor", Title: "AppArmor lets the runtime work", Scope: ScopeHost, Severity: Warning, Machine: true,
			Measures: "AppArmor profiles that name /opt/dcos", Limit: "none in enforce mode",
			Fix: "aa-complain the profile, or remove it from /etc/apparmor.d and run apparmor_parser -R on it", host: judgeAppArmor},
	}
}

func judgeInit(h *Host, _ *Input) verdict {
	name, ok := h.Facts.one("init")
	if !ok {
		return unknown("/proc/1/comm cannot be read")
	}
	state := h.Facts.text("systemd-state")
	switch {
	case name != "systemd" && name != "init" || state == "offline":
		return fail("%s", name)
	case state == "maintenance" || state == "stopping":
		return fail("systemd is in state %s", state).do("bring %s up: systemctl default; journalctl -b -p err tells why it is not", h.Name)
	default:
		return pass("systemd, %s", state)
	}
}

func judgeSystemd(h *Host, _ *Input) verdict {
	v, ok := h.Facts.one("systemd")
	if !ok {
		return fail("systemctl is not there")
	}
	// "252", "255.4-1ubuntu8", "250~rc1"
	digits := v[:len(v)-len(strings.TrimLeft(v, "0123456789"))]
	n, err := strconv.Atoi(digits)
	if err != nil {
		return unknown("its version is %q", v)
	}
	if n < leastSystemd {
		return fail("%d", n)
	}
	return pass("%d", n)
}

func judgeCPUs(h *Host, _ *Input) verdict {
	n, ok := h.Facts.number("cpus")
	if !ok {
		return unknown("neither getconf nor nproc is there")
	}
	if n < 2 {
		return fail("%d", n)
	}
	return pass("%d", n)
}

func judgeMemory(h *Host, least int64) verdict {
	kib, ok := h.Facts.number("memory")
	if !ok {
		return unknown("/proc/meminfo has no MemTotal")
	}
	// A little of what the machine has is the kernel's own.
	if kib<<10 < least-least/8 {
		return fail("%s", size(kib<<10)).over("at least %s", size(least)).do("give %s at least %s of memory", h.Name, size(least))
	}
	return pass("%s", size(kib<<10))
}

func judgeComfort(h *Host, _ *Input) verdict {
	if isMaster(h) {
		return judgeMemory(h, goodMasterMemory)
	}
	return judgeMemory(h, goodAgentMemory)
}

func judgeSwap(h *Host, _ *Input) verdict {
	var on []string
	for _, v := range h.Facts["swap"] {
		dev, kib, _ := strings.Cut(v, " ")
		n, err := strconv.ParseInt(kib, 10, 64)
		if err == nil {
			on = append(on, fmt.Sprintf("%s (%s)", dev, size(n<<10)))
		}
	}
	if len(on) > 0 {
		return fail("%s", strings.Join(on, ", "))
	}
	return pass("none")
}

func judgeCgroup(h *Host, _ *Input) verdict {
	version, ok := h.Facts.one("cgroup")
	if !ok {
		return fail("none")
	}
	var missing []string
	for _, c := range []string{"cpu", "memory", "pids"} {
		if !h.Facts.has("controller", c) {
			missing = append(missing, c)
		}
	}
	if len(missing) > 0 {
		return fail("%s without %s", version, strings.Join(missing, ", "))
	}
	return pass("%s", version)
}

// atLeast holds kernel parameters to a limit.
func atLeast(h *Host, least int64, names ...string) verdict {
	var seen []string
	for _, name := range names {
		n, ok := h.Facts.sysctl(name)
		if !ok {
			return unknown("/proc/sys/%s cannot be read", name)
		}
		dotted := strings.ReplaceAll(name, "/", ".")
		if n < least {
			return fail("%s is %d", dotted, n).over("at least %d", least)
		}
		seen = append(seen, fmt.Sprintf("%s is %d", dotted, n))
	}
	return pass("%s", strings.Join(seen, ", "))
}

func judgeFiles(h *Host, _ *Input) verdict { return atLeast(h, unitFiles, "fs/nr_open", "fs/file-max") }

func judgeSynchronised(h *Host, _ *Input) verdict {
	if h.Probe == nil {
		return unknown("%s", h.unmeasured())
	}
	if h.Probe.Clock.Error != "" {
		return unknown("%s", h.Probe.Clock.Error)
	}
	by := h.Facts.processes("chronyd", "ntpd", "systemd-timesyn")
	with := "no time service runs"
	if len(by) > 0 {
		with = strings.Replace(by[0].name, "systemd-timesyn", "systemd-timesyncd", 1) + " runs"
	}
	if !h.Probe.Clock.Synchronised {
		return fail("not synchronised, %s", with)
	}
	return pass("synchronised, %s", with)
}

func judgeReboot(h *Host, _ *Input) verdict {
	for _, p := range []string{"/run/reboot-required", "/var/run/reboot-required", "/run/reboot-needed"} {
		if h.Facts.has("path", p) {
			return fail("%s is there", p)
		}
	}
	kernel, _, _ := strings.Cut(h.Facts.text("uname"), " ")
	if len(h.Facts["modules"]) == 0 && len(h.Facts["modules-of"]) > 0 {
		return fail("kernel %s runs, and only the modules of %s are there", kernel, strings.Join(h.Facts["modules-of"], ", "))
	}
	return pass("none due")
}

func judgeSELinux(h *Host, _ *Input) verdict {
	mode, ok := h.Facts.one("selinux")
	policy := h.Facts.text("selinux-type")
	switch {
	case !ok:
		return pass("disabled")
	case mode == "0":
		return pass("permissive")
	case policy == "targeted":
		return pass("enforcing, targeted")
	default:
		return fail("enforcing, policy %q", policy)
	}
}

func judgeAppArmor(h *Host, _ *Input) verdict {
	i := slices.IndexFunc(h.Facts["apparmor-profile"], func(p string) bool { return strings.Contains(p, "(enforce)") })
	switch {
	case i >= 0:
		return fail("%s", h.Facts["apparmor-profile"][i])
	case h.Facts.text("apparmor") == "Y":
		return pass("on, with no profile for %s", config.ReleaseDir)
	default:
		return pass("off")
	}
}

// unmeasured says why there is nothing of dcos-probe.
func (h *Host) unmeasured() string {
	if h.NoProbe != "" {
		return h.NoProbe
	}
	return "it was not measured"
}
