package view_test

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"dcos.example/dcos/installer/cli/view"
	"dcos.example/dcos/installer/preflight"
	"dcos.example/dcos/installer/topology"
)

func TestPreflight(t *testing.T) {
	host := func(name string, role preflight.Role, addr string) *preflight.Host {
		return &preflight.Host{Name: name, Role: role, Addr: netip.MustParseAddr(addr), Facts: preflight.Facts{}}
	}
	hosts := []*preflight.Host{host("m1", topology.RoleMaster, "10.0.0.11"), host("m2", topology.RoleMaster, "10.0.0.12"), host("a1", topology.RoleAgent, "10.0.0.21"), host("a2", topology.RoleAgent, "10.0.0.22")}
	hosts[2].Facts = nil
	hosts[3].Facts, hosts[3].Absent = nil, "it is not made yet"
	result := func(check, host, peer string, s preflight.State, sev preflight.Severity, measured, limit, fix, reason string) preflight.Result {
		return preflight.Result{Check: check, Host: host, Peer: peer, State: s, Severity: sev, Measured: measured, Limit: limit, Fix: fix, Reason: reason}
	}
	const e, w = preflight.Error, preflight.Warning
	results := []preflight.Result{
		result("swap", "m1", "", preflight.Failed, w, "/dev/sda3 (2047 MiB)", "none", "swapoff -a, and take the swap lines out of /etc/fstab: a swapped master misses its heartbeats, and swapped tasks escape their memory limits", ""),
		result("ports", "m1", "", preflight.Failed, e, "nginx (pid 812) on port 443 (for the gateway)", "nobody but the cluster", "on m1, stop what listens on 443, or give it another port", ""),
		result("mesh-tcp", "m1", "m2", preflight.Failed, e, "no answer on port 2380", "TCP port 2380 of m2 (10.0.0.12) reached", "let m1 (10.0.0.11) reach m2 (10.0.0.12) on TCP port 2380", ""),
		result("kernel", "m1", "", preflight.Passed, e, "6.1.0-18-amd64", "", "", ""),
		result("swap", "m2", "", preflight.Failed, w, "/dev/sda3 (2047 MiB)", "none", "swapoff -a, and take the swap lines out of /etc/fstab: a swapped master misses its heartbeats, and swapped tasks escape their memory limits", ""),
		result("fsync", "m2", "", preflight.Unknown, w, "", "", "", "dcos-probe could not be brought there"),
		result("time-zone", "m2", "", preflight.Ignored, w, "+0200 on m2, and +0000 on the others", "one for all", "timedatectl", "it moves next week"),
		result("mesh-tcp", "m2", "m1", preflight.Failed, e, "no answer on port 2380", "TCP port 2380 of m1 (10.0.0.11) reached", "let m2 (10.0.0.12) reach m1 (10.0.0.11) on TCP port 2380", ""),
		result("memory", "m1", "", preflight.Failed, e, "128 MiB", "at least 512 MiB", "give m1 at least 512 MiB", ""),
		result("memory", "m2", "", preflight.Failed, e, "256 MiB", "at least 512 MiB", "give m2 at least 512 MiB", ""),
		result("reach", "a1", "", preflight.Failed, e, "log in to 10.0.0.21:22: connection refused", "a login within 5 s", "start the host", ""),
		result("reach", "a2", "", preflight.Skipped, e, "", "", "", "it is not made yet"),
		result("dup-host-key", "m1, m2", "", preflight.Failed, w, "m1 and m2 have the same SSH host key, ssh-ed25519 AAAA", "each host its own", "m1, m2: make new ones", ""),
	}
	d := view.NewPreflight("demo", hosts, results)
	d.Elapsed = 1900 * time.Millisecond
	if !d.Stops() {
		t.Error("errors do not stop")
	}
	all := d
	all.All = true
	before := d
	before.Before, before.Note = "apply", "Release 0.1.0 has no dcos-probe: the hosts do not measure each other."
	none := view.NewPreflight("demo", nil, nil)
	for name, doc := range map[string]view.Preflight{"preflight.golden": d, "preflight-all.golden": all, "preflight-before.golden": before, "preflight-none.golden": none} {
		var b bytes.Buffer
		doc.WriteText(&view.Printer{W: &b, Width: 100})
		golden(t, name, b.String())
	}
	var b bytes.Buffer
	if err := view.WriteJSON(&b, d, true); err != nil {
		t.Fatal(err)
	}
	golden(t, "preflight.json", b.String())
}
