package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// churn deploys and removes apps and prints what grew meanwhile.
func (b *bench) churn(ctx context.Context, c *cluster) error {
	if err := b.cycles(ctx, c, 20); err != nil { // caches fill, pools grow
		return err
	}
	before, err := left(c.s.name)
	if err != nil {
		return err
	}
	if err := b.cycles(ctx, c, b.s.churn); err != nil {
		return err
	}
	if err := pause(ctx, 10*time.Second); err != nil {
		return err
	}
	after, err := left(c.s.name)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(after)) {
		fmt.Printf("figure churn_%s %s %s\n", name, number(after[name]-before[name]), "more")
		fmt.Printf("# churn_%s: %s before, %s after %d apps\n", name, number(before[name]), number(after[name]), b.s.churn)
	}
	return nil
}

// cycles deploys and removes n apps, four at a time.
func (b *bench) cycles(ctx context.Context, c *cluster, n int) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for i := range n {
		g.Go(func() error {
			ctx := gctx
			id := fmt.Sprintf("/churn-%d", i)
			if err := c.marathon(ctx, "POST", "/apps", app(id, 1, nil), nil); err != nil {
				return err
			}
			for {
				var a struct{ App struct{ TasksRunning int } }
				if err := c.marathon(ctx, "GET", "/apps/"+id, nil, &a); err != nil {
					return err
				}
				if a.App.TasksRunning == 1 {
					break
				}
				if err := pause(ctx, 50*time.Millisecond); err != nil {
					return err
				}
			}
			return c.marathon(ctx, "DELETE", "/apps"+id, nil, nil)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for {
		var d []struct{}
		if err := c.marathon(ctx, "GET", "/deployments", nil, &d); err != nil || len(d) == 0 {
			return err
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// left counts what apps could leave behind on the hosts.
func left(cluster string) (map[string]float64, error) {
	all, err := processes(cluster)
	if err != nil {
		return nil, err
	}
	n := map[string]float64{
		"shims": float64(len(find(all, "containerd-shim"))),
		"tasks": float64(len(find(all, "/hello"))),
	}
	for _, d := range []struct{ kind, text string }{{"master", "dcosd master"}, {"agent", "dcosd agent"}, {"containerd", "bin/containerd --config"}} {
		for _, p := range find(all, d.text) {
			m, err := rss(p.pid)
			if err != nil {
				return nil, err
			}
			n[d.kind+"_rss_mib"] += m
			fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.pid))
			if err != nil {
				return nil, err
			}
			n[d.kind+"_fds"] += float64(len(fds))
			threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", p.pid))
			if err != nil {
				return nil, err
			}
			n[d.kind+"_threads"] += float64(len(threads))
			if d.kind == "agent" {
				if err := onHost(p.pid, n); err != nil {
					return nil, err
				}
			}
		}
	}
	return n, nil
}

// onHost adds what one agent's host has of mounts, links, namespaces and cgroups.
func onHost(pid int, n map[string]float64) error {
	root := fmt.Sprintf("/proc/%d/root", pid)
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		return err
	}
	n["mounts"] += float64(strings.Count(string(mounts), "\n"))
	links, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", pid))
	if err != nil {
		return err
	}
	n["links"] += float64(strings.Count(string(links), "\n"))
	for name, pattern := range map[string]string{
		"netns":      root + "/run/netns/dcos-*",
		"snapshots":  root + "/var/lib/dcos/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/*",
		"checkpoint": root + "/var/lib/dcos/agent/meta/*/*/*",
		"cgroups":    root + "/sys/fs/cgroup/memory/dcos/*/cgroup.procs",
	} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		n[name] += float64(len(found))
	}
	return nil
}
