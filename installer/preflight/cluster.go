package preflight

import (
	"fmt"
	"slices"
	"strings"
)

func clusterChecks() []Check {
	unique := func(id, title, what, fix string, sev Severity, of func(*Host) []string) Check {
		return Check{ID: id, Title: title, Scope: ScopeCluster, Severity: sev, Machine: true,
			Measures: what + " of all hosts", Limit: "each host its own", Fix: fix,
			cluster: func(in *Input) []finding { return duplicates(in, what, fix, of) }}
	}
	fact := func(key string) func(*Host) []string {
		return func(h *Host) []string { return h.Facts[key] }
	}
	return []Check{
		{ID: "same-machine", Title: "Each host is a machine of its own", Scope: ScopeCluster, Severity: Error, Machine: true,
			Measures: "the id of the boot of all hosts", Limit: "each host its own", Fix: "two entries of the file lead to one machine: correct the address of one of them", cluster: judgeSameMachine},
		unique("dup-hostname", "Host names differ", "host name", "hostnamectl set-hostname another name on one of them", Warning, fact("hostname")),
		unique("dup-machine-id", "Machine ids differ", "machine id",
			"on all but one of them: rm -f /etc/machine-id /var/lib/dbus/machine-id && systemd-machine-id-setup, then reboot; the machines are copies of one image", Warning, fact("machine-id")),
		unique("dup-host-key", "SSH host keys differ", "SSH host key",
			"on all but one of them: rm /etc/ssh/ssh_host_*_key* && ssh-keygen -A && systemctl restart ssh, then remove the old key from known_hosts; whoever has one machine can pose as the other", Warning, fact("host-key")),
		unique("dup-mac", "Hardware addresses differ", "hardware address", "give one of the virtual machines another MAC address in its hypervisor: on one network they take each other's packets", Error,
			func(h *Host) []string {
				var out []string
				for _, l := range h.Facts.links() {
					if l.mac != "-" && l.mac != "00:00:00:00:00:00" {
						out = append(out, l.mac)
					}
				}
				return out
			}),
		{ID: "dup-address", Title: "Addresses differ", Scope: ScopeCluster, Severity: Error,
			Measures: "the address of all hosts in the file, and whether another host has it", Limit: "each host its own", Fix: "correct the address of one of them in the file", cluster: judgeAddresses},
		{ID: "time-zone", Title: "Time zones agree", Scope: ScopeCluster, Severity: Warning, Machine: true,
			Measures: "the offset from UTC of all hosts", Limit: "one for all", Fix: "timedatectl set-timezone Etc/UTC on all hosts: logs are read together", cluster: judgeZones},
	}
}

// machines are the hosts that are looked at and do not share one machine.
func machines(in *Input) []*Host {
	var out []*Host
	for _, h := range in.Hosts {
		if h.reached() && !h.Shared {
			out = append(out, h)
		}
	}
	return out
}

func nameList(hs []*Host) []string {
	var out []string
	for _, h := range hs {
		out = append(out, h.Name)
	}
	return out
}

// groups returns the hosts by value, and the values in order.
func groups(hs []*Host, of func(*Host) []string) (map[string][]*Host, []string) {
	by := map[string][]*Host{}
	var order []string
	for _, h := range hs {
		for _, v := range of(h) {
			if v == "" || slices.Contains(by[v], h) {
				continue
			}
			if by[v] == nil {
				order = append(order, v)
			}
			by[v] = append(by[v], h)
		}
	}
	return by, order
}

func boot(h *Host) []string { return h.Facts["boot-id"] }

func judgeSameMachine(in *Input) []finding {
	hs := machines(in)
	by, order := groups(hs, boot)
	var out []finding
	for _, v := range order {
		if same := by[v]; len(same) > 1 {
			out = append(out, finding{nameList(same), fail("%s are one machine, host name %s", strings.Join(nameList(same), " and "), same[0].Facts.text("hostname")).
				do("correct the address of one of %s in the file: %s lead to one machine", strings.Join(nameList(same), ", "), addressList(same))})
		}
	}
	if len(out) == 0 && len(hs) > 0 {
		return []finding{{nil, pass("%d machines", len(order))}}
	}
	return out
}

func addressList(hs []*Host) string {
	var out []string
	for _, h := range hs {
		out = append(out, h.Addr.String())
	}
	return strings.Join(out, " and ")
}

// duplicates returns what several machines have in common and should not.
// Entries that lead to one machine are told of elsewhere. One group of hosts
// is told of once, however many values they share.
func duplicates(in *Input, what, fix string, of func(*Host) []string) []finding {
	hs := machines(in)
	by, order := groups(hs, of)
	var out []finding
	seen := map[string]bool{}
	for _, v := range order {
		var same []*Host
		for _, h := range by[v] {
			if !slices.ContainsFunc(same, func(o *Host) bool { return h.Facts.text("boot-id") != "" && slices.Equal(boot(o), boot(h)) }) {
				same = append(same, h)
			}
		}
		key := strings.Join(nameList(same), ", ")
		if len(same) < 2 || seen[key] {
			continue
		}
		seen[key] = true
		out = append(out, finding{nameList(same), fail("%s have the same %s, %s", strings.Join(nameList(same), " and "), what, cut(v, 40)).do("%s: %s", key, fix)})
	}
	if len(out) == 0 && len(hs) > 0 {
		return []finding{{nil, pass("%d of %d hosts told", withAny(hs, of), len(hs))}}
	}
	return out
}

func withAny(hs []*Host, of func(*Host) []string) (n int) {
	for _, h := range hs {
		if len(of(h)) > 0 {
			n++
		}
	}
	return n
}

func judgeAddresses(in *Input) []finding {
	var out []finding
	by, order := groups(in.Hosts, func(h *Host) []string { return []string{h.Addr.String()} })
	for _, a := range order {
		if same := by[a]; len(same) > 1 {
			out = append(out, finding{nameList(same), fail("%s have address %s", strings.Join(nameList(same), " and "), a)})
		}
	}
	for _, h := range machines(in) {
		for _, a := range h.Facts.addresses() {
			for _, o := range by[a.String()] {
				if o != h && o.Addr != h.Addr && !slices.Equal(boot(o), boot(h)) {
					out = append(out, finding{[]string{h.Name, o.Name}, fail("%s has %s, the address of %s", h.Name, a, o.Name).
						do("take %s away from %s (ip address del), or correct the address of %s in the file", a, h.Name, o.Name)})
				}
			}
		}
	}
	if len(out) == 0 && len(in.Hosts) > 0 {
		return []finding{{nil, pass("%d addresses", len(order))}}
	}
	return out
}

func judgeZones(in *Input) []finding {
	hs := machines(in)
	by, order := groups(hs, func(h *Host) []string {
		offset, _, _ := strings.Cut(h.Facts.text("zone"), " ")
		return []string{offset}
	})
	if len(order) < 2 {
		if len(order) == 0 {
			return nil
		}
		return []finding{{nil, pass("%s", order[0])}}
	}
	// What most have is right; the others are told.
	common := slices.MaxFunc(order, func(a, b string) int { return len(by[a]) - len(by[b]) })
	var parts []string
	var odd []*Host
	for _, z := range order {
		if z != common {
			parts = append(parts, fmt.Sprintf("%s on %s", z, strings.Join(nameList(by[z]), ", ")))
			odd = append(odd, by[z]...)
		}
	}
	return []finding{{nameList(odd), fail("%s, and %s on the others", strings.Join(parts, "; "), common)}}
}
