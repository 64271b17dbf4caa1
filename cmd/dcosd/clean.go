package main

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dcos.example/dcos/runtime/agent/network"
	"dcos.example/dcos/runtime/balancer/nft"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/dns"
	"dcos.example/dcos/runtime/fault"
)

// killTime is how long processes may take to vanish after they were killed.
const killTime = 10 * time.Second

// clean ends what outlives the daemons of this host by design: containers,
// their networks and mounts, rules and addresses. The daemons must have been
// stopped; the host is not to come back as it was.
func clean() error {
	var errs []error
	var groups []string
	for _, u := range []string{config.UnitMaster, config.UnitAgent, config.UnitContainerd} {
		groups = append(groups, groupsOf(u)...)
	}
	groups = append(groups, controllers("dcos")...)
	errs = append(errs, end(groups), unmount(config.VarDir, config.RunDir),
		network.Remove(network.Options{Bridge: config.Bridge{Name: bridgeName()}}), rules(), dns.RemoveLoopback(netip.MustParseAddr(config.DNSAddr)))
	if err := errors.Join(errs...); err != nil {
		return fault.New("clean up", fault.Internal, err)
	}
	return nil
}

const cgroupRoot = "/sys/fs/cgroup"

// controllers returns the cgroup of that path in every hierarchy there is.
func controllers(path string) []string {
	out := []string{filepath.Join(cgroupRoot, path)}
	if dirs, err := os.ReadDir(cgroupRoot); err == nil {
		for _, d := range dirs {
			out = append(out, filepath.Join(cgroupRoot, d.Name(), path))
		}
	}
	return slices.DeleteFunc(out, func(dir string) bool {
		_, err := os.Stat(filepath.Join(dir, "cgroup.procs"))
		return err != nil
	})
}

// groupsOf returns the cgroups that systemd made for a unit: what it started
// and left is in them.
func groupsOf(unit string) []string { return controllers("system.slice/" + unit) }

func procs(dir string) (pids []int) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return nil
	}
	for _, f := range bytes.Fields(b) {
		if pid, err := strconv.Atoi(string(f)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// end kills every process in the cgroups and below, and removes them.
func end(groups []string) error {
	for deadline := time.Now().Add(killTime); ; time.Sleep(20 * time.Millisecond) {
		left := 0
		var all []string
		for _, g := range groups {
			filepath.WalkDir(g, func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					all = append(all, path)
					for _, pid := range procs(path) {
						if pid != os.Getpid() {
							left++
							unix.Kill(pid, unix.SIGKILL)
						}
					}
				}
				return nil // what vanishes meanwhile is what is wanted
			})
		}
		if left == 0 {
			for _, dir := range slices.Backward(all) { // those below first
				os.Remove(dir)
			}
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d processes do not end", left)
		}
	}
}

// unmount takes away the mounts below dirs, the last made first.
func unmount(dirs ...string) error {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var at []string
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		f := strings.Fields(s.Text())
		if len(f) < 5 {
			continue
		}
		point, err := strconv.Unquote(`"` + f[4] + `"`) // blanks are \040
		if err != nil {
			point = f[4]
		}
		if slices.ContainsFunc(dirs, func(d string) bool { return strings.HasPrefix(point, d+"/") }) {
			at = append(at, point)
		}
	}
	slices.SortStableFunc(at, func(a, b string) int { return cmp.Compare(strings.Count(b, "/"), strings.Count(a, "/")) })
	var errs []error
	for _, point := range at {
		if err := unix.Unmount(point, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", point, err))
		}
	}
	return errors.Join(errs...)
}

// bridgeName is that of the agent's configuration, or the usual one.
func bridgeName() string {
	if c, err := config.Load(config.AgentFile, config.DefaultAgent()); err == nil && c.Bridge.Name != "" {
		return c.Bridge.Name
	}
	return network.BridgeName
}

// rules removes the balancer's table and its route.
func rules() error {
	a, err := nft.New(nft.Config{Range: netip.MustParsePrefix(config.VIPRange), Self: netip.MustParseAddr(config.DNSAddr)})
	if err != nil {
		return err
	}
	return a.Close()
}
