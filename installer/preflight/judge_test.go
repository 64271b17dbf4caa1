package preflight_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"dcos.example/dcos/installer/preflight"
	"dcos.example/dcos/installer/preflight/probe"
	"dcos.example/dcos/installer/topology"
	"dcos.example/dcos/runtime/fault"
)

// facts reads the facts of a system as the script writes them there.
func facts(t testing.TB, system, name string, addr netip.Addr, n int) preflight.Facts {
	t.Helper()
	b, err := os.ReadFile("testdata/" + system + ".facts")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("@NAME@", name, "@ADDR@", addr.String(), "@N@", fmt.Sprintf("%02d", n)).Replace(string(b))
	f, noise, ok := preflight.ParseFacts(text)
	if !ok || noise != "" {
		t.Fatalf("the facts of %s cannot be read", system)
	}
	return f
}

// cluster is one of five good hosts.
func cluster(t testing.TB, system string) *preflight.Input {
	t.Helper()
	in := &preflight.Input{ClusterID: "c-1", Release: preflight.Release{Name: "0.1.0-abc", Bytes: 150 << 20, Arch: "x86_64"},
		Resolvers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53")}}
	for i, h := range []struct {
		name string
		role preflight.Role
	}{{"m1", topology.RoleMaster}, {"m2", topology.RoleMaster}, {"m3", topology.RoleMaster}, {"a1", topology.RoleAgent}, {"p1", topology.RolePublicAgent}} {
		addr := netip.AddrFrom4([4]byte{10, 0, 0, byte(11 + i)})
		in.Hosts = append(in.Hosts, &preflight.Host{Name: h.name, Role: h.role, Addr: addr, Facts: facts(t, system, h.name, addr, 11+i),
			Sent: time.Unix(1760000000, 0).Add(-10 * time.Millisecond), Received: time.Unix(1760000000, 0).Add(150 * time.Millisecond)})
	}
	specs := preflight.Plan(in.Hosts, func(int) bool { return true }, in.Resolvers)
	for i, h := range in.Hosts {
		r := &probe.Report{Interface: probe.Interface{Name: "eth0", MTU: 1500}, Overlay: probe.Works, Clock: probe.Clock{Synchronised: true},
			Kernel:    map[string]string{"bridge": probe.Works, "veth": probe.Works, "vxlan": probe.Works, "nf_tables": probe.Works, "namespaces": probe.Works},
			Resolvers: []probe.Resolver{{Addr: in.Resolvers[0], Took: 900 * time.Microsecond}}}
		if h.Role == topology.RoleMaster {
			r.Fsync = &probe.Fsync{Writes: 100, P50: 400 * time.Microsecond, P99: 2 * time.Millisecond, Measured: "/var/lib"}
		}
		for _, p := range specs[i].Peers {
			l := probe.Link{Peer: p.Name, Ports: map[int]string{}, UDP: probe.Open, Rounds: p.Rounds, Min: 80 * time.Microsecond, P50: 120 * time.Microsecond, P99: 700 * time.Microsecond,
				Ahead: time.Millisecond, Sent: 50, MTU: 1500}
			for _, port := range p.Ports {
				l.Ports[port] = probe.Open
			}
			r.Links = append(r.Links, l)
		}
		h.Probe = r
	}
	return in
}

// set replaces the values of a fact.
func set(key string, values ...string) func(*preflight.Input) {
	return on("m1", func(h *preflight.Host) { h.Facts[key] = values })
}

// setAgent is set on an agent.
func setAgent(key string, values ...string) func(*preflight.Input) {
	return on("a1", func(h *preflight.Host) { h.Facts[key] = values })
}

// without takes the facts away that contain text.
func without(host, key, text string) func(*preflight.Input) {
	return on(host, func(h *preflight.Host) {
		h.Facts[key] = slices.DeleteFunc(h.Facts[key], func(v string) bool { return strings.Contains(v, text) })
	})
}

// change replaces text in the facts of a key.
func change(host, key, from, to string) func(*preflight.Input) {
	return on(host, func(h *preflight.Host) {
		for i, v := range h.Facts[key] {
			h.Facts[key][i] = strings.ReplaceAll(v, from, to)
		}
	})
}

func on(name string, f func(*preflight.Host)) func(*preflight.Input) {
	return func(in *preflight.Input) {
		for _, h := range in.Hosts {
			if h.Name == name {
				f(h)
			}
		}
	}
}

// link changes what one host saw of another.
func link(from, to string, f func(*probe.Link)) func(*preflight.Input) {
	return on(from, func(h *preflight.Host) {
		for i := range h.Probe.Links {
			if h.Probe.Links[i].Peer == to {
				f(&h.Probe.Links[i])
			}
		}
	})
}

func all(fs ...func(*preflight.Input)) func(*preflight.Input) {
	return func(in *preflight.Input) {
		for _, f := range fs {
			f(in)
		}
	}
}

// listening is a program that listens on a port of m1 or a1.
func listening(host, at, who string) func(*preflight.Input) {
	return on(host, func(h *preflight.Host) {
		h.Facts["listen"] = append(h.Facts["listen"], at+" 4711")
		h.Facts["socket"] = append(h.Facts["socket"], "4711 812 "+who)
	})
}

// failing has for each check what makes it fail, on which host, and what must
// be in the answer.
var failing = []struct {
	id     string
	break_ func(*preflight.Input)
	host   string
	say    []string // in what was measured, the limit and the fix together
}{
	{"reach", on("a1", func(h *preflight.Host) {
		h.Facts, h.Unreached = nil, errors.New("dial tcp 10.0.0.14:22: no route to host")
	}), "a1", []string{"no route to host", "address, port, user and key"}},
	{"reach", on("a1", func(h *preflight.Host) {
		h.Facts, h.Unreached = nil, fault.Newf("log in to 10.0.0.14:22", fault.Denied, "the key is not accepted")
	}), "a1", []string{"the key is not accepted", "let in", "ssh USER@10.0.0.14"}},
	{"reach", on("a1", func(h *preflight.Host) { h.Facts, h.Noise = nil, "This account is not available." }), "a1", []string{"This account is not available", "chsh"}},
	{"sudo", set("uid", "1000"), "m1", []string{"uid 1000", "sudoers"}},
	{"shell-noise", on("m1", func(h *preflight.Host) { h.Noise = "Welcome to m1!" }), "m1", []string{"Welcome to m1!", "bashrc"}},
	{"locale", set("locale", "missing de_DE.UTF-8"), "m1", []string{"de_DE.UTF-8", "dpkg-reconfigure"}},
	{"tools", without("m1", "tool", "tar"), "m1", []string{"missing: tar", "install tar on m1"}},
	{"clock-installer", all(set("now", "1760000600000000000"), set("end", "1760000600100000000")), "m1", []string{"10m0s ahead", "1m0s", "timedatectl"}},
	{"clock-installer", all(set("now", "1759999400000000000"), set("end", "1759999400100000000")), "m1", []string{"10m0s behind"}},
	{"init", set("init", "runit"), "m1", []string{"runit", "systemd"}},
	{"init", set("systemd-state", "maintenance"), "m1", []string{"maintenance", "systemctl default"}},
	{"systemd", set("systemd", "219"), "m1", []string{"219", "239"}},
	{"systemd", set("systemd"), "m1", []string{"systemctl is not there"}},
	{"cpus", set("cpus", "1"), "m1", []string{"1", "2 on masters"}},
	{"memory", set("memory", "262144"), "m1", []string{"256 MiB", "512 MiB"}},
	{"memory-comfort", set("memory", "1048576"), "m1", []string{"1024 MiB", "2048 MiB"}},
	{"swap", set("swap", "/dev/sda3 2097148"), "m1", []string{"/dev/sda3 (2047 MiB)", "swapoff -a"}},
	{"cgroup", without("a1", "controller", "memory"), "a1", []string{"v2 without memory", "cgroup_enable=memory"}},
	{"cgroup", setAgent("cgroup"), "a1", []string{"none"}},
	{"cgroup-version", setAgent("cgroup", "hybrid"), "a1", []string{"1, with 2 beside it", "unified_cgroup_hierarchy=1"}},
	{"nofile", change("m1", "sysctl", "fs/nr_open 1073741816", "fs/nr_open 65536"), "m1", []string{"fs.nr_open is 65536", "1048576"}},
	{"pid-max", change("a1", "sysctl", "kernel/pid_max 4194304", "kernel/pid_max 4096"), "a1", []string{"kernel.pid_max is 4096", "32768"}},
	{"inotify", change("a1", "sysctl", "max_user_instances 128", "max_user_instances 16"), "a1", []string{"max_user_instances is 16", "128"}},
	{"inotify", change("a1", "sysctl", "max_user_watches 65000", "max_user_watches 1000"), "a1", []string{"max_user_watches is 1000", "8192"}},
	{"entropy", change("m1", "sysctl", "entropy_avail 256", "entropy_avail 60"), "m1", []string{"entropy_avail is 60", "rng-tools"}},
	{"clock-synchronised", on("m1", func(h *preflight.Host) { h.Probe.Clock.Synchronised = false; h.Facts["process"] = nil }), "m1", []string{"no time service runs", "set-ntp"}},
	{"reboot", set("path", "/run/reboot-required"), "m1", []string{"/run/reboot-required"}},
	{"reboot", all(set("modules"), set("modules-of", "6.1.0-20-amd64")), "m1", []string{"6.1.0-18-amd64 runs", "6.1.0-20-amd64"}},
	{"selinux", all(set("selinux", "1"), set("selinux-type", "mls")), "m1", []string{`"mls"`, "permissive"}},
	{"apparmor", set("apparmor-profile", "/opt/dcos/** (enforce)"), "m1", []string{"(enforce)", "aa-complain"}},
	{"kernel", set("uname", "3.10.0-1160.el7.x86_64 x86_64"), "m1", []string{"3.10.0", "4.18"}},
	{"architecture", set("uname", "6.1.0-18-arm64 aarch64"), "m1", []string{"aarch64", "x86_64, as release 0.1.0-abc"}},
	{"kernel-overlay", without("a1", "module", "overlay"), "a1", []string{"has no overlay", "modprobe overlay"}},
	{"kernel-veth", on("a1", func(h *preflight.Host) { h.Probe.Kernel["veth"] = "operation not supported" }), "a1", []string{"operation not supported", "linux-modules-extra"}},
	{"kernel-bridge", on("a1", func(h *preflight.Host) { h.Probe.Kernel["bridge"] = "operation not supported" }), "a1", []string{"modprobe bridge"}},
	{"kernel-nftables", on("m1", func(h *preflight.Host) { h.Probe.Kernel["nf_tables"] = "protocol not supported" }), "m1", []string{"nft_chain_nat"}},
	{"kernel-conntrack", without("m1", "module", "nf_conntrack"), "m1", []string{"nf_conntrack"}},
	{"kernel-vxlan", on("a1", func(h *preflight.Host) { h.Probe.Kernel["vxlan"] = "operation not supported" }), "a1", []string{"modprobe vxlan"}},
	{"kernel-br-netfilter", on("a1", func(h *preflight.Host) {
		h.Facts["sysctl"] = append(h.Facts["sysctl"], "net/bridge/bridge-nf-call-iptables 1")
		h.Facts["chain-drops"] = []string{"forward priority filter; policy drop;|ip filter FORWARD"}
	}), "a1", []string{"ip filter FORWARD drops", "bridge-nf-call-iptables=0"}},
	{"kernel-namespaces", change("a1", "sysctl", "max_net_namespaces 31667", "max_net_namespaces 0"), "a1", []string{"net (limited to 0)"}},
	{"kernel-namespaces", without("a1", "namespace", "pid"), "a1", []string{"without pid"}},
	{"kernel-namespaces", on("a1", func(h *preflight.Host) { h.Probe.Kernel["namespaces"] = "unshare: operation not permitted" }), "a1", []string{"not permitted"}},
	{"kernel-seccomp", setAgent("seccomp"), "a1", []string{"CONFIG_SECCOMP_FILTER"}},
	{"user-namespaces", change("a1", "sysctl", "max_user_namespaces 31667", "max_user_namespaces 0"), "a1", []string{"user.max_user_namespaces is 0"}},
	{"disk-release", all(change("m1", "disk", "/opt/dcos /opt 9000000 4096 2400000 2600000 65025 /", "/opt/dcos /opt 1000 4096 2400000 2600000 7 /opt")), "m1", []string{"3 MiB free on /opt", "187 MiB"}},
	{"disk-state", change("m1", "disk", " 9000000 4096", " 300000 4096"), "m1", []string{"1171 MiB free on /", "2555 MiB for /var/lib/dcos, /opt/dcos, /var/log/dcos, /tmp together", "free at least 1383 MiB on / of m1"}},
	{"disk-log", change("m1", "disk", "/var/log/dcos /var/log 9000000 4096 2400000 2600000 65025 /", "/var/log/dcos /var/log 100 4096 2400000 2600000 8 /var/log"), "m1", []string{"0 MiB free on /var/log", "256 MiB"}},
	{"disk-tmp", change("m1", "disk", "/tmp /tmp 9000000 4096 2400000 2600000 65025 /", "/tmp /tmp 100 4096 2400000 2600000 9 /tmp"), "m1", []string{"0 MiB free on /tmp", "64 MiB"}},
	{"inodes", change("m1", "disk", " 2400000 2600000", " 12 2600000"), "m1", []string{"12 of 2600000 on /", "20000"}},
	{"mount-read-only", change("m1", "disk", "rw,relatime,errors=remount-ro", "ro,relatime"), "m1", []string{"/ of /opt/dcos is mounted ro", "remount,rw /"}},
	{"mount-noexec", change("m1", "disk", "rw,relatime", "rw,noexec,relatime"), "m1", []string{"noexec", "remount,exec /"}},
	{"mount-nodev", change("a1", "disk", "rw,relatime", "rw,nodev,relatime"), "a1", []string{"nodev", "remount,dev /"}},
	{"mount-nodev", change("a1", "disk", "rw,relatime", "rw,nosuid,relatime"), "a1", []string{"nosuid", "remount,suid /"}},
	{"file-system", change("m1", "disk", "ext4", "nfs4"), "m1", []string{"nfs4, of a network"}},
	{"file-system", change("m1", "disk", "ext4", "tmpfs"), "m1", []string{"lost at a reboot"}},
	{"file-system", change("a1", "disk", "ext4", "overlay"), "a1", []string{"on which no other can lie"}},
	{"overlay", on("a1", func(h *preflight.Host) { h.Probe.Overlay = "mount: invalid argument" }), "a1", []string{"mount: invalid argument on ext4", "ftype=1"}},
	{"fsync", on("m1", func(h *preflight.Host) { h.Probe.Fsync.P99 = 23 * time.Millisecond }), "m1", []string{"p50 400µs, p99 23ms in /var/lib", "10ms", "SSD"}},
	{"fsync-slow", on("m1", func(h *preflight.Host) { h.Probe.Fsync.P50 = 230 * time.Millisecond }), "m1", []string{"p50 230ms", "100ms, the interval of heartbeats"}},
	{"fsync-slow", on("m1", func(h *preflight.Host) { h.Probe.Fsync.Writes = 0 }), "m1", []string{"no append"}},
	{"ports", listening("m1", "tcp 00000000:01BB", "nginx"), "m1", []string{"nginx (pid 812) on port 443 (for the gateway)", "on m1, stop what listens on 443"}},
	{"ports", listening("a1", "tcp6 00000000000000000000000000000000:13BB", "python3"), "a1", []string{"python3 (pid 812) on port 5051"}},
	{"ports", listening("m1", "tcp 0100007F:1F90", "java"), "m1", []string{"java (pid 812) on port 8080 (for apps)"}},
	{"port-dns", listening("m1", "udp 0B00000A:0035", "dnsmasq"), "m1", []string{"dnsmasq (pid 812) on 10.0.0.11:53 (udp)", "bind-interfaces"}},
	{"address", on("m1", func(h *preflight.Host) { h.Addr = netip.MustParseAddr("203.0.113.9") }), "m1", []string{"10.0.0.11", "203.0.113.9 is among them", "ssh_address"}},
	{"cidr-vip", set("route", "eth1 0000000B 000000FF"), "m1", []string{"route 11.0.0.0/8 on eth1", "11.0.0.0/8"}},
	{"cidr-vip", set("address", "10.0.0.11", "11.1.2.3"), "m1", []string{"address 11.1.2.3"}},
	{"cidr-overlay", set("route", "eth1 00010009 0000FFFF"), "m1", []string{"route 9.0.0.0/16 on eth1"}},
	{"cidr-bridge", setAgent("route", "eth1 00001FAC 0000FFFF"), "a1", []string{"route 172.31.0.0/16 on eth1", "172.31.254.0/24"}},
	{"cidr-dns", set("route", "eth1 006433C6 00FFFFFF"), "m1", []string{"route 198.51.100.0/24 on eth1", "198.51.100.1"}},
	{"firewall", all(set("firewall", "firewalld"), link("m2", "m1", func(l *probe.Link) { l.Ports[5050] = "no answer" })), "m1", []string{"firewalld is active; ports 5050 are shut", "firewall-cmd --permanent --add-port=80/tcp --add-port=443/tcp --add-port=2380/tcp"}},
	{"firewall", all(set("chain-drops", "input priority filter; policy drop;|inet filter input"), func(in *preflight.Input) {
		for _, h := range in.Hosts {
			h.Probe = nil
		}
	}), "m1", []string{"chain inet filter input drops by default", "not measured"}},
	{"firewall", all(set("firewall", "ufw"), link("m2", "m1", func(l *probe.Link) { l.Ports[5050] = "no answer" })), "m1", []string{"ufw allow"}},
	{"firewall-forward", setAgent("chain-drops", "forward priority filter; policy drop;|ip filter FORWARD"), "a1", []string{"chain ip filter FORWARD drops by default", "iptables -P FORWARD ACCEPT"}},
	{"firewall-forward", setAgent("firewall", "firewalld"), "a1", []string{"--add-interface=dcos0 --add-source=172.31.254.0/24"}},
	{"firewall-forward", setAgent("firewall", "ufw"), "a1", []string{"ufw route allow in on dcos0"}},
	{"ip-forward", setAgent("sysctl-file", "net.ipv4.ip_forward = 0"), "a1", []string{"net.ipv4.ip_forward = 0"}},
	{"rp-filter", all(change("m1", "sysctl", "all/rp_filter 0", "all/rp_filter 1"), set("link", "eth0 52:54:00:00:00:01 1500 up", "eth1 52:54:00:00:00:02 1500 up"),
		set("route", "eth0 0000000A 00FFFFFF", "eth1 0001000A 00FFFFFF")), "m1", []string{"1, with networks on eth0, eth1", "rp_filter=2"}},
	{"mtu-interface", on("m1", func(h *preflight.Host) { h.Probe.Interface.MTU = 576 }), "m1", []string{"576 on eth0", "1280"}},
	{"hostname", set("resolves-self"), "m1", []string{"m1 is in neither", "echo '10.0.0.11 m1' >> /etc/hosts"}},
	{"resolv-conf", set("process", "dhcpcd 842 /usr/sbin/dhcpcd"), "m1", []string{"dhcpcd writes it", "nohook"}},
	{"resolv-conf", set("process", "dhclient 842 /usr/sbin/dhclient"), "m1", []string{"dhclient writes it", "make_resolv_conf"}},
	{"resolv-conf", set("resolv-conf", "link /run/netconfig/resolv.conf"), "m1", []string{"netconfig"}},
	{"resolv-conf", set("resolv-conf", "link /run/resolvconf/resolv.conf"), "m1", []string{"resolvconf"}},
	{"resolvers", on("m1", func(h *preflight.Host) { h.Probe.Resolvers[0].Error = "no answer" }), "m1", []string{"192.0.2.53:53: no answer", "resolvers in the file"}},
	{"mesh-tcp", link("m1", "m2", func(l *probe.Link) { l.Ports[2380] = "no answer" }), "m1", []string{"no answer on port 2380", "TCP port 2380 of m2 (10.0.0.12) reached", "let m1 (10.0.0.11) reach m2"}},
	{"mesh-tcp", all(on("a1", func(h *preflight.Host) { h.Facts["firewall"] = []string{"firewalld"} }), link("m1", "a1", func(l *probe.Link) { l.Ports[31000] = "no answer" })), "m1", []string{"31000 (for ports of tasks)", "on a1: firewall-cmd"}},
	{"mesh-tcp", link("m1", "m2", func(l *probe.Link) { l.Ports[5050] = "host m3 answers there" }), "m1", []string{"host m3 answers there on port 5050"}},
	{"mesh-udp", link("m1", "m2", func(l *probe.Link) { l.UDP = "no answer" }), "m1", []string{"no answer", "UDP port 53"}},
	{"path-mtu", link("m1", "m2", func(l *probe.Link) { l.Stalled, l.MTU = true, 1400 }), "m1", []string{"packets of 1400 get through, those of 1500 do not", "ip link set eth0 mtu 1400"}},
	{"path-mtu", link("m1", "m2", func(l *probe.Link) { l.Stalled, l.MTU = true, 0 }), "m1", []string{"any size"}},
	{"path-mtu", link("m1", "m2", func(l *probe.Link) { l.MTU = 600 }), "m1", []string{"600", "1280"}},
	{"latency-masters", link("m1", "m2", func(l *probe.Link) { l.P50 = 31 * time.Millisecond }), "m1", []string{"p50 31ms", "10ms"}},
	{"latency-masters-p99", link("m1", "m2", func(l *probe.Link) { l.P99 = 310 * time.Millisecond }), "m1", []string{"p99 310ms", "100ms"}},
	{"latency-agents", link("a1", "m2", func(l *probe.Link) { l.P50 = 310 * time.Millisecond }), "a1", []string{"p50 310ms", "100ms"}},
	{"packet-loss", link("m1", "m2", func(l *probe.Link) { l.Lost = 4 }), "m1", []string{"4 of 50 lost", "2 %"}},
	{"clock-skew", link("m1", "m2", func(l *probe.Link) { l.Ahead = -10 * time.Minute }), "m1", []string{"m2 is 10m0s behind", "2s", "of m1 or of m2"}},
	{"previous-dcos", set("path", "/opt/mesosphere"), "m1", []string{"/opt/mesosphere", "pkgpanda uninstall"}},
	{"other-cluster", all(set("cluster-id", "c-2"), set("cluster-name", "old")), "m1", []string{"cluster old (c-2)", "take m1 out of cluster old"}},
	{"leftovers", set("path", "/var/lib/dcos/bootstrap.json", "/opt/dcos"), "m1", []string{"half installed: /var/lib/dcos/bootstrap.json, /opt/dcos", "-state"}},
	{"leftovers", set("path", "/etc/dcos"), "m1", []string{"left over: /etc/dcos", "rm -rf /etc/dcos"}},
	{"schedulers", set("process", "kubelet 700 /usr/bin/kubelet"), "m1", []string{"kubelet (pid 700)", "systemctl disable --now kubelet"}},
	{"runtimes", setAgent("process", "dockerd 701 /usr/bin/dockerd", "containerd 702 /usr/bin/containerd"), "a1", []string{"dockerd (pid 701), containerd (pid 702)"}},
	{"same-machine", on("m2", func(h *preflight.Host) { h.Facts["boot-id"] = []string{"0d4ba5f6-71f6-4b43-9f0a-2d8f0f3f0111"} }), "m1, m2", []string{"m1 and m2 are one machine", "10.0.0.11 and 10.0.0.12"}},
	{"dup-hostname", on("m2", func(h *preflight.Host) { h.Facts["hostname"] = []string{"m1"} }), "m1, m2", []string{"m1 and m2 have the same host name, m1", "hostnamectl"}},
	{"dup-machine-id", on("m2", func(h *preflight.Host) { h.Facts["machine-id"] = []string{"4c4c4544004210378051c2c04f383911"} }), "m1, m2", []string{"same machine id", "systemd-machine-id-setup"}},
	{"dup-host-key", on("m2", func(h *preflight.Host) { h.Facts["host-key"] = []string{"ssh-ed25519 AAAAssh-ed11"} }), "m1, m2", []string{"same SSH host key", "ssh-keygen -A"}},
	{"dup-mac", on("m2", func(h *preflight.Host) { h.Facts["link"] = []string{"ens3 52:54:00:12:34:11 1500 up"} }), "m1, m2", []string{"52:54:00:12:34:11", "hypervisor"}},
	{"dup-address", on("m2", func(h *preflight.Host) { h.Addr = netip.MustParseAddr("10.0.0.11") }), "m1, m2", []string{"m1 and m2 have address 10.0.0.11"}},
	{"dup-address", on("m2", func(h *preflight.Host) { h.Facts["address"] = []string{"10.0.0.12", "10.0.0.14"} }), "m2, a1", []string{"m2 has 10.0.0.14, the address of a1"}},
	{"time-zone", set("zone", "+0200 CEST"), "m1", []string{"+0200 on m1, and +0000 on the others", "set-timezone"}},
}

func of(rs []preflight.Result, id string) (out []preflight.Result) {
	for _, r := range rs {
		if r.Check == id {
			out = append(out, r)
		}
	}
	return out
}

// A good cluster fails nothing, and passes every check there is.
func TestGoodCluster(t *testing.T) {
	rs := preflight.Judge(*cluster(t, "debian-12"))
	for _, r := range rs {
		if r.State != preflight.Passed {
			t.Errorf("%+v", r)
		}
		if r.Measured == "" {
			t.Errorf("nothing was measured: %+v", r)
		}
	}
	for _, id := range preflight.IDs() {
		if len(of(rs, id)) == 0 {
			t.Errorf("%s was not made", id)
		}
	}
}

// Every check fails for its cause, says what, how much is right and what to
// do; and a reason makes it no longer count.
func TestEachCheckFails(t *testing.T) {
	tried := map[string]bool{}
	severity := map[string]preflight.Severity{}
	for _, c := range preflight.Checks() {
		severity[c.ID] = c.Severity
	}
	for _, test := range failing {
		tried[test.id] = true
		t.Run(test.id, func(t *testing.T) {
			in := cluster(t, "debian-12")
			test.break_(in)
			var got *preflight.Result
			for _, r := range of(preflight.Judge(*in), test.id) {
				if r.State == preflight.Failed {
					if got != nil && got.Host == r.Host && got.Peer == r.Peer {
						t.Errorf("told twice: %+v", r)
					}
					if r.Host == test.host {
						got = &r
					}
				}
			}
			if got == nil {
				t.Fatalf("it does not fail on %s: %+v", test.host, of(preflight.Judge(*in), test.id))
			}
			text := got.Measured + "\n" + got.Limit + "\n" + got.Fix
			for _, s := range test.say {
				if !strings.Contains(text, s) {
					t.Errorf("%q is not in:\n%s", s, text)
				}
			}
			if got.Measured == "" || got.Limit == "" || got.Fix == "" {
				t.Errorf("not all is said: %+v", got)
			}
			if got.Stops() != (severity[test.id] == preflight.Error) {
				t.Errorf("stops: %t, severity %s", got.Stops(), severity[test.id])
			}
			in.Ignore = map[string]string{test.id: "we know"}
			for _, r := range of(preflight.Judge(*in), test.id) {
				if r.State == preflight.Failed || r.State == preflight.Ignored && r.Reason != "we know" {
					t.Errorf("not ignored: %+v", r)
				}
			}
		})
	}
	for _, id := range preflight.IDs() {
		if !tried[id] {
			t.Errorf("no test makes %s fail", id)
		}
	}
	if n := len(preflight.IDs()); n < 40 {
		t.Errorf("%d checks", n)
	}
}

// The table is complete and its ids are unique.
func TestTable(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range preflight.Checks() {
		if seen[c.ID] {
			t.Errorf("%s is there twice", c.ID)
		}
		seen[c.ID] = true
		if c.ID == "" || c.Title == "" || c.Measures == "" || c.Limit == "" || c.Fix == "" || c.Severity == "" || c.Scope == "" {
			t.Errorf("not all is said: %+v", c)
		}
	}
}

// What the four systems are by default: these fail, and nothing else does.
func TestSystems(t *testing.T) {
	for system, want := range map[string][]string{
		"debian-12":    nil,
		"ubuntu-24.04": nil,
		"rhel-9":       {"firewall-forward"},
		"sles-15":      {"cgroup-version", "firewall-forward", "resolv-conf", "swap"},
	} {
		t.Run(system, func(t *testing.T) {
			got := map[string]bool{}
			for _, r := range preflight.Judge(*cluster(t, system)) {
				if r.State == preflight.Failed {
					got[r.Check] = true
				} else if r.State == preflight.Unknown {
					t.Errorf("unknown: %+v", r)
				}
			}
			if len(got) != len(want) {
				t.Errorf("failed: %v, want %v", got, want)
			}
			for _, id := range want {
				if !got[id] {
					t.Errorf("%s did not fail", id)
				}
			}
		})
	}
}

// A host that runs the cluster already is fine as it is.
func TestInstalled(t *testing.T) {
	in := cluster(t, "debian-12")
	for _, h := range in.Hosts {
		h.Known = true
		h.Facts["path"] = []string{"/opt/dcos", "/etc/dcos", "/var/lib/dcos/bootstrap.json", "/etc/systemd/system/dcos-master.service"}
		h.Facts["cluster-id"] = []string{"c-1"}
		h.Facts["listen"] = []string{"tcp 0B00000A:01BB 1", "tcp 0B00000A:13BA 2", "tcp 0100007F:13BA 3", "udp 0B00000A:0035 4", "udp 016433C6:0035 5"}
		h.Facts["socket"] = []string{"1 300 dcosd", "2 300 dcosd", "3 300 dcosd", "4 300 dcosd", "5 300 dcosd"}
		h.Facts["process"] = append(h.Facts["process"], "containerd 301 /opt/dcos/releases/0.1.0-abc/bin/containerd", "dcosd 300 /opt/dcos/releases/0.1.0-abc/bin/dcosd")
		h.Facts["route"] = append(h.Facts["route"], "dcos0 00FE1FAC 00FFFFFF", "lo 0000000B 000000FF")
		h.Facts["address"] = append(h.Facts["address"], "198.51.100.1", "172.31.254.1")
	}
	for _, r := range preflight.Judge(*in) {
		if r.State == preflight.Failed {
			t.Errorf("%+v", r)
		}
	}
}

// One host that is not there keeps no other from being judged; one that is not
// made yet is skipped.
func TestHostsThatAreNotThere(t *testing.T) {
	in := cluster(t, "debian-12")
	in.Hosts[0].Facts, in.Hosts[0].Probe, in.Hosts[0].Unreached = nil, nil, errors.New("connection refused")
	in.Hosts[1].Facts, in.Hosts[1].Probe, in.Hosts[1].Absent = nil, nil, "it is not made yet"
	byHost := map[string]map[preflight.State]int{}
	for _, r := range preflight.Judge(*in) {
		if byHost[r.Host] == nil {
			byHost[r.Host] = map[preflight.State]int{}
		}
		byHost[r.Host][r.State]++
	}
	if n := byHost["m1"]; len(n) != 1 || n[preflight.Failed] != 1 {
		t.Errorf("m1: %v", n)
	}
	if n := byHost["m2"]; len(n) != 1 || n[preflight.Skipped] != 1 {
		t.Errorf("m2: %v", n)
	}
	if n := byHost["m3"]; n[preflight.Passed] < 40 || n[preflight.Failed] > 0 {
		t.Errorf("m3: %v", n)
	}
}

// Hosts that are only looked at for others are judged by what concerns those.
func TestWitnesses(t *testing.T) {
	in := cluster(t, "debian-12")
	for _, h := range in.Hosts[:3] {
		h.Witness = true
	}
	all(set("swap", "/dev/sda3 2097148"), listening("m1", "tcp 00000000:01BB", "nginx"),
		link("m1", "a1", func(l *probe.Link) { l.Ports[5051] = "no answer" }),
		on("m2", func(h *preflight.Host) { h.Facts["hostname"] = []string{"m1"} }),
		on("p1", func(h *preflight.Host) { h.Facts["machine-id"] = []string{"4c4c4544004210378051c2c04f383911"} }),
		on("m3", func(h *preflight.Host) { h.Facts, h.Probe, h.Unreached = nil, nil, errors.New("no route to host") }))(in)
	got := map[string]bool{}
	for _, r := range preflight.Judge(*in) {
		if r.State == preflight.Failed {
			got[r.Check+" "+r.Host] = true
		}
		if r.Host == "m3" && r.State != preflight.Unknown {
			t.Errorf("%+v", r)
		}
	}
	if len(got) != 2 || !got["mesh-tcp m1"] || !got["dup-machine-id m1, p1"] {
		t.Errorf("failed: %v", got)
	}
	specs := preflight.Plan(in.Hosts, func(i int) bool { return i != 2 }, nil)
	if s := specs[0]; s.Fsync || s.Kernel || s.StateDir != "" || len(s.Peers) != 2 {
		t.Errorf("m1: %+v", s)
	}
}

// Where packets get lost, that is told and nothing that may follow from it.
func TestLossIsToldOnce(t *testing.T) {
	in := cluster(t, "debian-12")
	link("m1", "m2", func(l *probe.Link) { l.Lost, l.Stalled, l.MTU, l.Ports[443] = 10, true, 0, "no answer" })(in)
	for _, r := range preflight.Judge(*in) {
		if r.State == preflight.Failed && r.Check != "packet-loss" {
			t.Errorf("%+v", r)
		}
	}
}

// Hosts that share a machine are not asked for what is the machine's.
func TestSharedMachine(t *testing.T) {
	in := cluster(t, "debian-12")
	for _, h := range in.Hosts {
		h.Shared = true
		h.Facts["boot-id"], h.Facts["host-key"] = []string{"same"}, []string{"same"}
		h.Facts["init"], h.Facts["swap"] = []string{"dcos-init"}, []string{"/dev/sda3 1000"}
	}
	for _, r := range preflight.Judge(*in) {
		if r.State == preflight.Failed {
			t.Errorf("%+v", r)
		}
		if slices.Contains([]string{"swap", "systemd", "clock-skew", "same-machine"}, r.Check) {
			t.Errorf("made on a shared machine: %+v", r)
		}
	}
}

func BenchmarkJudge350(b *testing.B) {
	in := cluster(b, "debian-12")
	for i := range 345 {
		addr := netip.AddrFrom4([4]byte{10, 0, 1, byte(i)})
		h := *in.Hosts[3]
		h.Name, h.Addr = fmt.Sprintf("b%d", i), addr
		h.Facts = facts(b, "debian-12", h.Name, addr, 100+i)
		in.Hosts = append(in.Hosts, &h)
	}
	for b.Loop() {
		preflight.Judge(*in)
	}
}
