package preflight

import (
	_ "embed"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"dcos.example/dcos/installer/preflight/probe"
	"dcos.example/dcos/runtime/config"
)

//go:embed facts.sh
var factsScript string

// marker is the first line that the script writes; what comes before it is
// from a shell's profile.
const marker = "dcos-facts 1"

// script returns the shell script that prints the facts of a host. Of
// listeners it names those on our ports only.
func script() string {
	var ports []string
	for _, p := range allPorts {
		ports = append(ports, fmt.Sprintf("%04X", p))
	}
	return "PORTS='" + strings.Join(ports, " ") + "'\n" + factsScript
}

var allPorts = []int{config.PortGateway, config.PortGatewayPlain, config.PortMaster, config.PortAgent, config.PortOrchestrator, config.PortEtcdPeer, config.PortDNS, config.PortRegistry}

// Facts is what a host told of itself: by key, the values in the order they
// came. facts.sh says what there is.
type Facts map[string][]string

// parseFacts reads what the script wrote, and returns what else came with it.
func parseFacts(stdout string) (f Facts, noise string, ok bool) {
	before, after, ok := strings.Cut(stdout, marker+"\n")
	if !ok {
		return nil, stdout, false
	}
	f = Facts{}
	for l := range strings.Lines(after) {
		k, v, _ := strings.Cut(strings.TrimRight(l, "\n"), " ")
		if k != "" {
			f[k] = append(f[k], strings.TrimSpace(v))
		}
	}
	return f, strings.TrimSpace(before), true
}

// one returns the first value of a key.
func (f Facts) one(key string) (string, bool) {
	if v := f[key]; len(v) > 0 && v[0] != "" {
		return v[0], true
	}
	return "", false
}

func (f Facts) text(key string) string { v, _ := f.one(key); return v }

func (f Facts) has(key, value string) bool { return slices.Contains(f[key], value) }

// number returns the number that a value begins with.
func (f Facts) number(key string) (int64, bool) {
	v, _ := f.one(key)
	first, _, _ := strings.Cut(v, " ")
	n, err := strconv.ParseInt(first, 10, 64)
	return n, err == nil
}

// named returns the value of a key that begins with a name, without it.
func (f Facts) named(key, name string) (string, bool) {
	for _, v := range f[key] {
		if rest, ok := strings.CutPrefix(v, name+" "); ok {
			return strings.TrimSpace(rest), true
		}
	}
	return "", false
}

func (f Facts) sysctl(name string) (int64, bool) {
	v, ok := f.named("sysctl", name)
	if !ok {
		return 0, false
	}
	first, _, _ := strings.Cut(v, " ")
	n, err := strconv.ParseInt(first, 10, 64)
	return n, err == nil
}

// disk is the file system that a path lies on.
type disk struct {
	path, dir     string // what is wanted, and the nearest directory that is there
	free          int64  // bytes
	inodes, total int64
	device, mount string
	kind          string // "ext4"; empty when it is not among the mounts
	options       []string
}

func (f Facts) disk(path string) (disk, bool) {
	for _, v := range f["disk"] {
		w := strings.Fields(v)
		if len(w) < 8 || w[0] != path {
			continue
		}
		d := disk{path: path, dir: w[1], device: w[6], mount: w[7]}
		var n [4]int64
		for i := range n {
			var err error
			if n[i], err = strconv.ParseInt(w[2+i], 10, 64); err != nil {
				return disk{}, false
			}
		}
		d.free, d.inodes, d.total = n[0]*n[1], n[2], n[3]
		if len(w) >= 10 {
			d.kind, d.options = w[8], strings.Split(w[9], ",")
		}
		return d, true
	}
	return disk{}, false
}

// listener is a program that listens on one of our ports.
type listener struct {
	proto string // "tcp", "udp"
	at    netip.AddrPort
	who   string // "nginx (pid 812)", empty when nobody could tell
	ours  bool
}

func (f Facts) listeners() []listener {
	type process struct{ pid, name string }
	by := map[string]process{}
	for _, v := range f["socket"] {
		if w := strings.SplitN(v, " ", 3); len(w) == 3 {
			if old, ok := by[w[0]]; !ok || old.name == "systemd" { // a socket unit's is shared
				by[w[0]] = process{w[1], w[2]}
			}
		}
	}
	var out []listener
	for _, v := range f["listen"] {
		w := strings.Fields(v)
		if len(w) != 3 {
			continue
		}
		at, ok := hexAddrPort(w[1])
		if !ok {
			continue
		}
		l := listener{proto: strings.TrimSuffix(w[0], "6"), at: at}
		if p, ok := by[w[2]]; ok {
			l.who, l.ours = fmt.Sprintf("%s (pid %s)", p.name, p.pid), p.name == "dcosd"
		}
		out = append(out, l)
	}
	return out
}

// hexAddrPort reads an address of /proc/net/tcp: 32-bit words in the order of
// the machine's bytes, which is little endian wherever a release runs.
func hexAddrPort(s string) (netip.AddrPort, bool) {
	a, p, ok := strings.Cut(s, ":")
	ip, err := hex.DecodeString(a)
	port, perr := strconv.ParseUint(p, 16, 16)
	if !ok || err != nil || perr != nil || len(ip)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(ip); i += 4 {
		slices.Reverse(ip[i : i+4])
	}
	addr, ok := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(addr.Unmap(), uint16(port)), ok
}

// route is a range of addresses that a host sends out of an interface.
type route struct {
	dev    string
	prefix netip.Prefix
}

// routes returns the routes but the default one.
func (f Facts) routes() []route {
	var out []route
	for _, v := range f["route"] {
		w := strings.Fields(v)
		if len(w) != 3 {
			continue
		}
		dst, err := strconv.ParseUint(w[1], 16, 32)
		mask, merr := strconv.ParseUint(w[2], 16, 32)
		if err != nil || merr != nil || mask == 0 {
			continue
		}
		var ip, m [4]byte
		binary.LittleEndian.PutUint32(ip[:], uint32(dst))
		binary.LittleEndian.PutUint32(m[:], uint32(mask))
		bits := 0
		for _, b := range m {
			for ; b&0x80 != 0; b <<= 1 {
				bits++
			}
		}
		out = append(out, route{w[0], netip.PrefixFrom(netip.AddrFrom4(ip), bits).Masked()})
	}
	return out
}

func (f Facts) addresses() []netip.Addr {
	var out []netip.Addr
	for _, v := range f["address"] {
		if a, err := netip.ParseAddr(v); err == nil && !a.IsLoopback() && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// link is a network interface.
type link struct {
	name, mac string
	mtu       int
}

// links returns the interfaces that lead to other machines: none that
// software makes for containers, whose addresses repeat from host to host.
func (f Facts) links() []link {
	var out []link
	for _, v := range f["link"] {
		w := strings.Fields(v)
		if len(w) < 4 || slices.ContainsFunc([]string{"lo", "dcos", "dcv", "docker", "veth", "br-", "cni", "virbr", "cali", "flannel", "vxlan", "tun", "ifb", "dummy", "sit"}, func(p string) bool { return strings.HasPrefix(w[0], p) }) {
			continue
		}
		mtu, err := strconv.Atoi(w[2])
		if err != nil {
			continue
		}
		out = append(out, link{w[0], w[1], mtu})
	}
	return out
}

// process is a program of interest that runs on a host.
type process struct{ name, pid, exe string }

// processes returns those of interest that are not of an installation of ours.
func (f Facts) processes(names ...string) []process {
	var out []process
	for _, v := range f["process"] {
		w := strings.SplitN(v, " ", 3)
		if len(w) < 2 || !slices.Contains(names, w[0]) {
			continue
		}
		p := process{name: w[0], pid: w[1]}
		if len(w) == 3 {
			p.exe = w[2]
		}
		if !strings.HasPrefix(p.exe, "/opt/dcos/") && !strings.HasPrefix(p.exe, config.VarDir) {
			out = append(out, p)
		}
	}
	return out
}

// Host is one host of the cluster as it is to be, and what was found out
// about it. It is filled by Collect, or by a test.
type Host struct {
	Name string
	Role Role
	Addr netip.Addr
	// Shared says that the host shares kernel, clock and hardware with others
	// on one machine; checks of those are not made.
	Shared bool
	// Known says that this stack has installed the host, or begun to.
	Known bool
	// Witness says that nothing is to be changed on the host: it is looked at
	// for the sake of those where something is.
	Witness bool
	// Absent says why the host is not looked at, if it is not made yet.
	Absent string

	// Unreached is why nothing is known about the host.
	Unreached error
	Facts     Facts
	Noise     string // what a shell's profile wrote before the facts
	Stderr    string
	// Sent and Received are the installer's clock around the question.
	Sent, Received time.Time
	// Probe is what dcos-probe measured; nil with the reason in NoProbe.
	Probe   *probe.Report
	NoProbe string
}

// Cluster is the id of the cluster that the host belongs to by its own files;
// empty: none, or nothing is known.
func (h *Host) Cluster() string { return h.Facts.text("cluster-id") }

// installed says that units of the cluster are on the host: they may listen,
// or begin to at any moment.
func (h *Host) installed() bool {
	return h.Known && (h.Facts.has("path", config.UnitDir+"/"+config.UnitMaster) || h.Facts.has("path", config.UnitDir+"/"+config.UnitAgent))
}

// reached says that the host answered.
func (h *Host) reached() bool { return h.Absent == "" && h.Unreached == nil && h.Facts != nil }
