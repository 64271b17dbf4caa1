//go:build e2e

package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/moby/sys/mountinfo"
	"github.com/vishvananda/netlink"

	"dcos.example/dcos/providers/local"
	"dcos.example/dcos/providers/local/network"
)

// machine is what a cluster could leave behind, as a sorted list of lines.
func machine(t *testing.T) []string {
	t.Helper()
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	links, err := netlink.LinkList()
	must(t, err)
	for _, l := range links {
		add("link %s", l.Attrs().Name)
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	must(t, err)
	for _, r := range routes {
		add("route %s", r)
	}
	mounts, err := mountinfo.GetMounts(nil)
	must(t, err)
	for _, m := range mounts {
		add("mount %s", m.Mountpoint)
	}
	for kind, pattern := range map[string]string{
		"netns": "/run/netns/*", "directory": local.DefaultDir + "/*",
		// Version 1 and 2, one file of each cluster: a pattern that ends in a
		// slash matches nothing.
		"cgroup": "/sys/fs/cgroup/*/dcos-local/*/cgroup.procs", "cgroup2": "/sys/fs/cgroup/dcos-local/*/cgroup.procs",
	} {
		paths, err := filepath.Glob(pattern)
		must(t, err)
		for _, p := range paths {
			add("%s %s", kind, p)
		}
	}
	conn, err := nftables.New()
	must(t, err)
	tables, err := conn.ListTables()
	must(t, err)
	for _, table := range tables {
		add("nft %s", table.Name)
	}
	loops, err := exec.Command("losetup", "--all", "--noheadings", "--output", "BACK-FILE").Output()
	must(t, err)
	for _, l := range strings.Fields(string(loops)) {
		add("loop %s", l)
	}
	for _, p := range processes(t) {
		add("process %s", p)
	}
	slices.Sort(lines)
	return lines
}

// processes lists the processes that run on local hosts, by their cgroup.
func processes(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cgroup")
	must(t, err)
	var found []string
	for _, file := range files {
		groups, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		for l := range strings.Lines(string(groups)) {
			if _, group, ok := strings.Cut(strings.TrimSpace(l), "/dcos-local/"); ok {
				exe, _ := os.Readlink(filepath.Join(filepath.Dir(file), "exe")) // empty for one that is just ending
				found = append(found, group+" "+exe)
				break
			}
		}
	}
	return found
}

// footprint tells what belongs to one cluster from what others did to the
// machine meanwhile.
type footprint struct {
	cluster string
	cidr    netip.Prefix
	before  []string
	links   map[string]bool
	alone   bool // no other cluster was there before
}

func newFootprint(t *testing.T, cluster string, cidr netip.Prefix) *footprint {
	t.Helper()
	f := &footprint{cluster: cluster, cidr: cidr, links: map[string]bool{}}
	f.before = machine(t)
	f.alone = alone(t, cluster)
	return f
}

// alone reports whether no other local cluster is on this machine. Then
// everything that changes on it is compared, else what bears the cluster's
// name. DCOS_E2E_SHARED says that others work here who have no cluster.
func alone(t *testing.T, cluster string) bool {
	t.Helper()
	others, err := filepath.Glob(local.DefaultDir + "/*")
	must(t, err)
	others = slices.DeleteFunc(others, func(dir string) bool { return filepath.Base(dir) == cluster })
	return len(others) == 0 && os.Getenv("DCOS_E2E_SHARED") == ""
}

// look notes the links of the cluster; their names do not say whose they are.
func (f *footprint) look(t *testing.T) {
	t.Helper()
	bridge, err := netlink.LinkByName(network.BridgeName(f.cluster))
	must(t, err)
	f.links[bridge.Attrs().Name] = true
	links, err := netlink.LinkList()
	must(t, err)
	for _, l := range links {
		if l.Attrs().MasterIndex == bridge.Attrs().Index {
			f.links[l.Attrs().Name] = true
		}
	}
	if mine := slices.DeleteFunc(machine(t), func(l string) bool { return !f.owns(l) }); len(mine) < 5 {
		t.Fatalf("a running cluster must be seen on the machine; seen is only %q", mine)
	}
}

// owns reports whether a line of machine bears the cluster's name.
func (f *footprint) owns(line string) bool {
	kind, rest, _ := strings.Cut(line, " ")
	switch kind {
	case "link":
		return f.links[rest]
	case "route":
		return strings.Contains(rest, f.cidr.String())
	case "nft":
		return strings.HasSuffix(rest, "-"+f.cluster)
	case "process":
		return strings.HasPrefix(rest, f.cluster+"/")
	}
	return slices.Contains(strings.Split(rest, "/"), f.cluster)
}

// gone checks that the machine is as it was before the cluster.
func (f *footprint) gone(t *testing.T) {
	t.Helper()
	// The kernel takes mounts and loop devices down a moment after the last
	// process that used them.
	eventually(t, "the machine is as before", func() error {
		after, before := machine(t), f.before
		if !f.alone || !alone(t, f.cluster) {
			foreign := func(l string) bool { return !f.owns(l) }
			after, before = slices.DeleteFunc(after, foreign), slices.DeleteFunc(slices.Clone(before), foreign)
		}
		if diff := cmp.Diff(before, after); diff != "" {
			return fmt.Errorf("(-before +after):\n%s", diff)
		}
		return nil
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
