//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/moby/sys/mountinfo"
	"github.com/vishvananda/netlink"
)

// machine is what a cluster could leave behind, as a list of lines.
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
	spaces, err := filepath.Glob("/run/netns/*")
	must(t, err)
	for _, s := range spaces {
		add("netns %s", s)
	}
	conn, err := nftables.New()
	must(t, err)
	tables, err := conn.ListTables()
	must(t, err)
	for _, table := range tables {
		add("nft table %s", table.Name)
	}
	mounts, err := mountinfo.GetMounts(nil)
	must(t, err)
	for _, m := range mounts {
		add("mount %s", m.Mountpoint)
	}
	groups, err := filepath.Glob("/sys/fs/cgroup/*/*/")
	must(t, err)
	for _, g := range groups {
		add("cgroup %s", g)
	}
	loops, err := exec.Command("losetup", "--all", "--noheadings", "--output", "BACK-FILE").Output()
	must(t, err)
	for _, l := range strings.Fields(string(loops)) {
		add("loop %s", l)
	}
	for _, p := range processes(t) {
		add("process %s", p)
	}
	sort.Strings(lines)
	return lines
}

// processes lists the programs of a release that run on this machine.
func processes(t *testing.T) []string {
	t.Helper()
	exes, err := filepath.Glob("/proc/[0-9]*/exe")
	must(t, err)
	var found []string
	for _, exe := range exes {
		target, err := os.Readlink(exe)
		if err != nil {
			continue // it has ended, or is a kernel thread
		}
		switch base := filepath.Base(target); base {
		case "dcosd", "dcos-init", "containerd", "containerd-shim-runc-v2", "runc", "hello":
			found = append(found, target)
		}
	}
	return found
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// nothingLeft compares the machine with what it was before.
func nothingLeft(t *testing.T, before []string) {
	t.Helper()
	if diff := cmp.Diff(before, machine(t)); diff != "" {
		t.Errorf("the machine is not as it was before (-before +after):\n%s", diff)
	}
}
