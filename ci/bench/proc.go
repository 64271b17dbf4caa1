package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// process is a program of a host, seen from the machine.
type process struct {
	pid  int
	host string
	args string
}

// processes lists what runs on the hosts of a cluster.
func processes(cluster string) ([]process, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var all []process
	for _, d := range dirs {
		groups, err := os.ReadFile(filepath.Join(d, "cgroup"))
		if err != nil {
			continue // it has ended
		}
		_, after, ok := strings.Cut(string(groups), "/dcos-local/"+cluster+"/")
		if !ok {
			continue
		}
		args, err := os.ReadFile(filepath.Join(d, "cmdline"))
		if err != nil {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(d))
		if err != nil {
			return nil, err
		}
		end := strings.IndexAny(after, "/\n")
		all = append(all, process{pid: pid, host: after[:end], args: strings.ReplaceAll(strings.TrimRight(string(args), "\x00"), "\x00", " ")})
	}
	return all, nil
}

// find returns the processes whose command line contains text.
func find(all []process, text string) (found []process) {
	for _, p := range all {
		if strings.Contains(p.args, text) {
			found = append(found, p)
		}
	}
	return found
}

// rss is a process's resident memory in MiB.
func rss(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(string(text), "VmRSS:")
	f := strings.Fields(after)
	if len(f) == 0 {
		return 0, fmt.Errorf("process %d has no VmRSS", pid)
	}
	kib, err := strconv.ParseFloat(f[0], 64)
	return kib / 1024, err
}

// ticks is the kernel's USER_HZ, fixed on Linux for user space.
const ticks = 100

// cpu is what a process has used so far.
func cpu(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	user, err := strconv.Atoi(f[11])
	if err != nil {
		return 0, err
	}
	system, err := strconv.Atoi(f[12])
	return time.Duration(user+system) * time.Second / ticks, err
}

// used is the CPU time of a control group and all below it, since it was made.
func used(group string) (time.Duration, error) {
	const root = "/sys/fs/cgroup"
	if text, err := os.ReadFile(filepath.Join(root, "cpuacct", group, "cpuacct.usage")); err == nil {
		ns, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		return time.Duration(ns), err
	}
	text, err := os.ReadFile(filepath.Join(root, group, "cpu.stat"))
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(string(text), "usage_usec ")
	line, _, _ := strings.Cut(after, "\n")
	us, err := strconv.ParseInt(line, 10, 64)
	return time.Duration(us) * time.Microsecond, err
}
