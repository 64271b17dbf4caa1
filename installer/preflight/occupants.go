package preflight

import (
	"fmt"
	"strings"

	"dcos.example/dcos/runtime/config"
)

func occupantChecks() []Check {
	return []Check{
		{ID: "previous-dcos", Title: "No DC/OS of old", Scope: ScopeHost, Severity: Error, Machine: true,
			Measures: "/opt/mesosphere and /etc/mesosphere", Limit: "neither",
			Fix:  "remove it first: /opt/mesosphere/bin/pkgpanda uninstall, then rm -rf /opt/mesosphere /etc/mesosphere /var/lib/mesosphere; both would claim the same ports and addresses",
			host: func(h *Host, _ *Input) verdict { return paths(h, "/opt/mesosphere", "/etc/mesosphere") }},
		{ID: "other-cluster", Title: "Not a host of another cluster", Scope: ScopeHost, Severity: Error,
			Measures: "the cluster that /etc/dcos on the host names, against this one", Limit: "none, or this one", Fix: "take the host out of the other cluster first", host: judgeOther},
		{ID: "leftovers", Title: "Nothing is left of an earlier installation", Scope: ScopeHost, Severity: Error, Machine: true,
			Measures: "files of ours, against what this installer's state knows of the host", Limit: "none that it does not know",
			Fix: "remove them", host: judgeLeftovers},
		{ID: "schedulers", Title: "No other orchestrator", Scope: ScopeHost, Severity: Error, Machine: true,
			Measures: "processes of Kubernetes, Mesos, Marathon, ZooKeeper and Nomad", Limit: "none", Fix: "stop and disable it", host: judgeSchedulers},
		{ID: "runtimes", Title: "No other container runtime", Scope: ScopeHost, Roles: agents, Severity: Warning, Machine: true,
			Measures: "processes of Docker, containerd, CRI-O and Podman", Limit: "none beside the agent's own",
			Fix: "systemctl disable --now docker docker.socket containerd, if nothing else needs it: what it runs takes memory and processors that the agent offers, and Docker sets the firewall to drop what is forwarded", host: judgeRuntimes},
	}
}

func paths(h *Host, names ...string) verdict {
	var there []string
	for _, n := range names {
		if h.Facts.has("path", n) {
			there = append(there, n)
		}
	}
	if len(there) > 0 {
		return fail("%s", strings.Join(there, ", "))
	}
	return pass("none")
}

func judgeOther(h *Host, in *Input) verdict {
	id, ok := h.Facts.one("cluster-id")
	switch {
	case !ok:
		return pass("none")
	case id == in.ClusterID:
		return pass("this one")
	}
	name := h.Facts.text("cluster-name")
	return fail("cluster %s (%s)", name, id).
		do("take %s out of cluster %s with the installer's state of that cluster (remove it from its file and apply, or destroy the cluster); if that state is lost: dcos-install adopt. Only if nothing of it is needed any more, on the host: %s", h.Name, name, wipe)
}

// wipe removes an installation by hand.
const wipe = "systemctl disable --now dcos-agent dcos-containerd dcos-master; rm -rf /etc/dcos /var/lib/dcos /var/log/dcos /opt/dcos /etc/systemd/system/dcos-*.service; systemctl daemon-reload"

func judgeLeftovers(h *Host, in *Input) verdict {
	if h.Known || in.ClusterID != "" && h.Facts.text("cluster-id") == in.ClusterID {
		if h.Facts.has("path", recordFile) {
			return pass("installed by this cluster")
		}
		return pass("none")
	}
	if _, other := h.Facts.one("cluster-id"); other {
		return pass("it is another cluster's") // other-cluster says it
	}
	var there []string
	for _, p := range []string{recordFile, config.EtcDir, config.VarDir + "/master", config.VarDir + "/agent", config.VarDir + "/containerd",
		config.UnitDir + "/" + config.UnitMaster, config.UnitDir + "/" + config.UnitAgent, optDir} {
		if h.Facts.has("path", p) {
			there = append(there, p)
		}
	}
	if len(there) == 0 {
		return pass("none")
	}
	what := "left over"
	if h.Facts.has("path", recordFile) {
		what = "half installed"
	}
	return fail("%s: %s", what, strings.Join(there, ", ")).
		do("if this installer began it, run it with the state it used then (-state), and it goes on; otherwise, on %s: %s", h.Name, wipe)
}

// recordFile is where bootstrap keeps what it did.
const recordFile = config.VarDir + "/bootstrap.json"

func judgeSchedulers(h *Host, _ *Input) verdict {
	ps := h.Facts.processes("kubelet", "k3s", "k3s-server", "k3s-agent", "rke2", "mesos-master", "mesos-slave", "mesos-agent", "zookeeper", "marathon", "nomad")
	if len(ps) == 0 {
		return pass("none")
	}
	return fail("%s", names(ps)).do("on %s: systemctl disable --now %s; it would compete for the same processors, memory and ports", h.Name, ps[0].name)
}

func judgeRuntimes(h *Host, _ *Input) verdict {
	ps := h.Facts.processes("dockerd", "containerd", "crio", "podman")
	if len(ps) == 0 {
		return pass("none")
	}
	return fail("%s", names(ps))
}

func names(ps []process) string {
	var out []string
	for _, p := range ps {
		out = append(out, fmt.Sprintf("%s (pid %s)", p.name, p.pid))
	}
	return strings.Join(out, ", ")
}
