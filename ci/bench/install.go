package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// limit ends a part that hangs.
const limit = 10 * time.Minute

// many is how many instances launch_per_s starts.
const many = 100

type bench struct {
	s     settings
	work  string
	floor *floor
}

func newBench(ctx context.Context, s settings, work string) (*bench, error) {
	f, err := newFloor(ctx, s, work)
	if err != nil {
		return nil, fmt.Errorf("prepare floors: %w", err)
	}
	return &bench{s: s, work: work, floor: f}, nil
}

func (b *bench) wants(part string) bool {
	return b.s.only == "" || slices.Contains(strings.Split(b.s.only, ","), part)
}

func (b *bench) run(ctx context.Context) error {
	if slices.ContainsFunc([]string{"up", "idle", "app", "vip", "launch", "churn"}, b.wants) {
		if err := b.one(ctx); err != nil {
			return err
		}
	}
	if b.wants("ha") {
		return b.three(ctx)
	}
	return nil
}

// tidy destroys a cluster whatever happened before, and says so if it cannot.
func tidy(c *cluster, err *error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	*err = errors.Join(*err, c.destroy(ctx))
}

// one measures a cluster with one master.
func (b *bench) one(ctx context.Context) (err error) {
	c, err := newCluster(b.s, b.work, 1)
	if err != nil {
		return err
	}
	defer tidy(c, &err)
	if b.wants("up") {
		if err := b.updown(ctx, c); err != nil {
			return err
		}
	}
	if _, err := b.up(ctx, c); err != nil {
		return err
	}
	for _, part := range []struct {
		name string
		do   func(context.Context, *cluster) error
	}{{"app", b.oneApp}, {"vip", b.vip}, {"launch", b.manyApps}, {"idle", b.idle}, {"churn", b.churn}} {
		if !b.wants(part.name) {
			continue
		}
		load(part.name)
		pctx, cancel := context.WithTimeout(ctx, limit)
		err := part.do(pctx, c)
		cancel()
		if err != nil {
			return fmt.Errorf("measure %s: %w", part.name, err)
		}
	}
	return nil
}

// up applies the blueprint, deploys the demo app and returns how long it took
// until the app was healthy.
func (b *bench) up(ctx context.Context, c *cluster) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	start := time.Now()
	if err := c.apply(ctx); err != nil {
		return 0, err
	}
	if err := c.login(ctx); err != nil {
		return 0, err
	}
	hello := app("/hello", 2, map[string]any{
		"cpus": 0.1, "mem": 64,
		"healthChecks": []any{map[string]any{"protocol": "MESOS_HTTP", "path": "/health", "portIndex": 0, "delaySeconds": 0, "intervalSeconds": 2, "timeoutSeconds": 2}},
	})
	if err := c.marathon(ctx, "POST", "/apps", hello, nil); err != nil {
		return 0, err
	}
	if err := c.healthy(ctx, "/hello", 2); err != nil {
		return 0, err
	}
	return time.Since(start), nil
}

// updown measures making, keeping and destroying a cluster. The floor of
// making it is what stands one behind the other: bare hosts, a store that takes
// a write, a container. That of keeping it is the start of the program, and
// that of destroying it is the end of the bare hosts' processes.
func (b *bench) updown(ctx context.Context, c *cluster) error {
	up, upFloor := series{name: "local_up_s", unit: "s"}, series{name: "local_up_s.peer", unit: "s"}
	noop, noopFloor := series{name: "local_noop_s", unit: "s"}, series{name: "local_noop_s.peer", unit: "s"}
	down, downFloor := series{name: "local_down_s", unit: "s"}, series{name: "local_down_s.peer", unit: "s"}
	// The bundle is in the machine's cache from the first run on.
	if err := c.apply(ctx); err != nil {
		return err
	}
	if err := c.destroy(ctx); err != nil {
		return err
	}
	for range b.s.runs {
		load("up")
		took, err := b.up(ctx, c)
		if err != nil {
			return err
		}
		up.seconds(took)
		start := time.Now()
		if err := c.apply(ctx); err != nil {
			return err
		}
		noop.seconds(time.Since(start))
		start = time.Now()
		if err := c.destroy(ctx); err != nil {
			return err
		}
		down.seconds(time.Since(start))

		start = time.Now()
		if err := exec.CommandContext(ctx, filepath.Join(b.s.bin, "dcos-install"), "version").Run(); err != nil {
			return err
		}
		noopFloor.seconds(time.Since(start))
		if err := b.bareUp(ctx, 1, 4, &upFloor, &downFloor); err != nil {
			return err
		}
	}
	for _, s := range []*series{&up, &upFloor, &noop, &noopFloor, &down, &downFloor} {
		s.print()
	}
	return nil
}

// bareUp measures the floor of making and destroying a cluster.
func (b *bench) bareUp(ctx context.Context, masters, hosts int, up, down *series) error {
	start := time.Now()
	off, err := b.floor.hosts(hosts)
	if err != nil {
		return err
	}
	store, err := b.floor.store(masters)
	if err != nil {
		off()
		return err
	}
	remove, _, err := b.floor.container(ctx)
	up.seconds(time.Since(start))
	store.kill()
	start = time.Now()
	off()
	if down != nil {
		down.seconds(time.Since(start))
	}
	if err != nil {
		return err
	}
	return remove()
}

// idle measures what a cluster at rest costs. The floor of a master is a
// process with the store alone, that of an agent one that answers HTTPS.
func (b *bench) idle(ctx context.Context, c *cluster) error {
	store, err := b.floor.store(1)
	if err != nil {
		return err
	}
	defer store.kill()
	bare, err := startHelper(floorServer, nil)
	if err != nil {
		return err
	}
	defer bare.kill()
	if _, err := bare.line(); err != nil {
		return err
	}
	all, err := processes(c.s.name)
	if err != nil {
		return err
	}
	watched := []struct {
		name string
		of   []process
	}{
		{"master", find(all, "dcosd master")}, {"agent", find(all, "dcosd agent")},
		{"containerd", find(all, "bin/containerd --config")}, {"init", find(all, "dcos-init")},
		{"master.peer", []process{{pid: store[0].cmd.Process.Pid}}}, {"agent.peer", []process{{pid: bare.cmd.Process.Pid}}},
	}
	used := make(map[int]time.Duration)
	for _, w := range watched {
		for _, p := range w.of {
			if used[p.pid], err = cpu(p.pid); err != nil {
				return err
			}
		}
	}
	if err := pause(ctx, b.s.idle); err != nil {
		return err
	}
	for _, w := range watched {
		name, peer := strings.CutSuffix(w.name, ".peer")
		suffix := ""
		if peer {
			suffix = ".peer"
		}
		memory := series{name: name + "_rss_mib" + suffix, unit: "MiB"}
		busy := series{name: name + "_idle_cpu" + suffix, unit: "%"}
		for _, p := range w.of {
			m, err := rss(p.pid)
			if err != nil {
				return err
			}
			now, err := cpu(p.pid)
			if err != nil {
				return err
			}
			memory.add(m)
			busy.add(100 * (now - used[p.pid]).Seconds() / b.s.idle.Seconds())
		}
		memory.print()
		busy.print()
	}
	return nil
}

// oneApp measures from the POST to the first TASK_RUNNING, and `runc run`.
func (b *bench) oneApp(ctx context.Context, c *cluster) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, err := c.events(ctx)
	if err != nil {
		return err
	}
	ours, bare := series{name: "app_running_ms", unit: "ms"}, series{name: "app_running_ms.peer", unit: "ms"}
	for i := range b.s.apps {
		id := fmt.Sprintf("/one-%d", i)
		start := time.Now()
		if err := c.marathon(ctx, "POST", "/apps", app(id, 1, nil), nil); err != nil {
			return err
		}
		at, err := await(ctx, events, id, "TASK_RUNNING", 1)
		if err != nil {
			return err
		}
		ours.millis(at.Sub(start))
		if err := c.remove(ctx, id); err != nil {
			return err
		}
		remove, took, err := b.floor.container(ctx)
		if err != nil {
			return err
		}
		bare.millis(took)
		if err := remove(); err != nil {
			return err
		}
	}
	ours.print()
	bare.print()
	return nil
}

// manyApps measures how fast one agent starts instances, and how fast runc and
// containerd do with as many at once. It also measures the CPU time that one start takes
// on all hosts together, which depends less on what else the machine does.
func (b *bench) manyApps(ctx context.Context, c *cluster) (err error) {
	var agents struct {
		Slaves []struct{ Hostname string }
	}
	if err := c.call(ctx, c.urls[0], "GET", "/mesos/slaves", nil, &agents); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, err := c.events(ctx)
	if err != nil {
		return err
	}
	group := "dcos-local/" + c.s.name
	var target string // the first agent that is not public
	for _, a := range agents.Slaves {
		if target == "" || a.Hostname < target {
			target = a.Hostname
		}
	}
	ours, bare := series{name: "launch_per_s", unit: "1/s"}, series{name: "launch_per_s.peer", unit: "1/s"}
	plain := series{name: "launch_per_s.containerd", unit: "1/s"}
	cost, bareCost := series{name: "launch_cpu_ms", unit: "ms"}, series{name: "launch_cpu_ms.peer", unit: "ms"}
	engine, err := startEngine(ctx, b.floor)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, engine.stop()) }()
	for i := range b.s.runs {
		id := fmt.Sprintf("/many-%d", i)
		text := app(id, many, map[string]any{"constraints": [][]string{{"hostname", "LIKE", target}}})
		load("launch")
		before, err := used(group)
		if err != nil {
			return err
		}
		start := time.Now()
		if err := c.marathon(ctx, "POST", "/apps", text, nil); err != nil {
			return err
		}
		at, err := await(ctx, events, id, "TASK_RUNNING", many)
		if err != nil {
			return err
		}
		ours.add(many / at.Sub(start).Seconds())
		after, err := used(group)
		if err != nil {
			return err
		}
		cost.millis((after - before) / many)
		if err := c.remove(ctx, id); err != nil {
			return err
		}
		b.floor.cpu.Store(0)
		rate, err := b.floor.containers(ctx, many, 8)
		if err != nil {
			return err
		}
		bare.add(rate)
		bareCost.millis(time.Duration(b.floor.cpu.Load()) / many)
		if rate, err = engine.containers(ctx, many, 8); err != nil {
			return err
		}
		plain.add(rate)
	}
	for _, s := range []*series{&ours, &bare, &plain, &cost, &bareCost} {
		s.print()
	}
	return nil
}

// three measures a cluster with three masters: making it, and how long nobody
// can deploy when the leader is killed, and when its host is. The floor of a
// fail-over is that of a bare store with the same settings.
func (b *bench) three(ctx context.Context) (err error) {
	c, err := newCluster(b.s, b.work, 3)
	if err != nil {
		return err
	}
	defer tidy(c, &err)
	up, upFloor := series{name: "local_up_3m_s", unit: "s"}, series{name: "local_up_3m_s.peer", unit: "s"}
	killed, bare := series{name: "failover_api_s", unit: "s"}, series{name: "failover_api_s.peer", unit: "s"}
	off := series{name: "failover_host_s", unit: "s"}
	for range b.s.runs {
		load("3 masters")
		took, err := b.up(ctx, c)
		if err != nil {
			return err
		}
		up.seconds(took)
		took, err = b.failOver(ctx, c, func(p process) error { return unix.Kill(p.pid, unix.SIGKILL) })
		if err != nil {
			return fmt.Errorf("kill the leader: %w", err)
		}
		killed.seconds(took)
		took, err = b.failOver(ctx, c, func(p process) error {
			for _, init := range find(mustProcesses(c.s.name), "dcos-init") {
				if init.host == p.host {
					return unix.Kill(init.pid, unix.SIGKILL)
				}
			}
			return fmt.Errorf("host %s does not run", p.host)
		})
		if err != nil {
			return fmt.Errorf("cut the leader's power: %w", err)
		}
		off.seconds(took)
		if err := c.destroy(ctx); err != nil {
			return err
		}
		if err := b.bareUp(ctx, 3, 6, &upFloor, nil); err != nil {
			return err
		}
		store, err := b.floor.store(3)
		if err != nil {
			return err
		}
		took, err = store.failOver()
		store.kill()
		if err != nil {
			return err
		}
		bare.seconds(took)
	}
	for _, s := range []*series{&up, &upFloor, &killed, &off, &bare} {
		s.print()
	}
	return nil
}

func mustProcesses(cluster string) []process {
	all, _ := processes(cluster) // a process that cannot be read has ended
	return all
}

// failOver strikes the leading master and returns how long it takes until
// another one accepts an app.
func (b *bench) failOver(ctx context.Context, c *cluster, strike func(process) error) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	addr, err := c.complete(ctx)
	if err != nil {
		return 0, err
	}
	index := slices.IndexFunc(c.urls, func(u string) bool { return strings.TrimPrefix(u, "https://") == addr })
	if index < 0 {
		return 0, fmt.Errorf("the leader %q is none of %v", addr, c.urls)
	}
	host := fmt.Sprintf("master-%d", index+1)
	all, err := processes(c.s.name)
	if err != nil {
		return 0, err
	}
	var victim process
	for _, p := range find(all, "dcosd master") {
		if p.host == host {
			victim = p
		}
	}
	if victim.pid == 0 {
		return 0, fmt.Errorf("no dcosd on %s", host)
	}
	others := slices.Delete(slices.Clone(c.urls), index, index+1)
	start := time.Now()
	if err := strike(victim); err != nil {
		return 0, err
	}
	c.client.CloseIdleConnections()
	for n := 0; ; n++ {
		try, cancel := context.WithTimeout(ctx, time.Second)
		err := c.call(try, others[n%len(others)], "POST", "/marathon/v2/apps", app(fmt.Sprintf("/after-%d", time.Now().UnixNano()), 0, nil), nil)
		cancel()
		if err == nil {
			return time.Since(start), nil
		}
		if e := pause(ctx, 20*time.Millisecond); e != nil {
			return 0, fmt.Errorf("no master answers: %w", err)
		}
	}
}

// complete waits until every master answers and returns the leader's address.
func (c *cluster) complete(ctx context.Context) (leader string, err error) {
	for i := 0; i < len(c.urls); {
		var l struct{ Leader string }
		try, cancel := context.WithTimeout(ctx, time.Second)
		err := c.call(try, c.urls[i], "GET", "/marathon/v2/leader", nil, &l)
		cancel()
		if err == nil {
			leader, _, _ = strings.Cut(l.Leader, ":")
			i++
			continue
		}
		if e := pause(ctx, 100*time.Millisecond); e != nil {
			return "", fmt.Errorf("wait for all masters: %w", err)
		}
	}
	return leader, nil
}
