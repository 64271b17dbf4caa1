package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// knocker is the mode of this program that knocks at an address.
	knocker = "vip-knock"
	// vipAddress is the VIP of the measured app.
	vipAddress = "11.200.0.1:80"
	// patience is how long one knock may take: a packet to a VIP without
	// backends is dropped, so this is how exact the figure is.
	patience = 50 * time.Millisecond
	// silence without a failed knock means that the dead backend is out.
	silence = time.Second
)

// vip measures from what an agent says of a task to what a client on another
// host meets at the VIP: from healthy to the first connection, and from dead to
// the last connection that failed. The floor is one rule for one address, put
// into the kernel by nft.
func (b *bench) vip(ctx context.Context, c *cluster) error {
	up, down := series{name: "vip_up_ms", unit: "ms"}, series{name: "vip_down_ms", unit: "ms"}
	bare := series{name: "vip_up_ms.peer", unit: "ms"}
	for i := range b.s.runs {
		k, err := c.knock(ctx)
		if err != nil {
			return err
		}
		err = c.oneVIP(ctx, fmt.Sprintf("/vip-%d", i), k, &up, &down)
		if err := errors.Join(err, k.stop()); err != nil {
			return err
		}
		took, err := bareRule(ctx)
		if err != nil {
			return err
		}
		bare.millis(took)
	}
	up.print()
	bare.print()
	down.print()
	return nil
}

func (c *cluster) oneVIP(ctx context.Context, id string, k *knocks, up, down *series) error {
	others, err := processes(c.s.name)
	if err != nil {
		return err
	}
	text := app(id, 1, map[string]any{"container": map[string]any{
		"type": "MESOS", "docker": map[string]any{"image": "dcos/hello:0.1"},
		"portMappings": []any{map[string]any{"containerPort": 8080, "hostPort": 0, "labels": map[string]string{"VIP_0": vipAddress}}},
	}, "healthChecks": []any{map[string]any{"protocol": "MESOS_HTTP", "path": "/health", "portIndex": 0, "delaySeconds": 0, "intervalSeconds": 1, "timeoutSeconds": 1}}})
	if err := c.marathon(ctx, "POST", "/apps", text, nil); err != nil {
		return err
	}
	healthy, err := c.told(ctx, id, "TASK_RUNNING", 1)
	if err != nil {
		return err
	}
	first, err := k.first(ctx)
	if err != nil {
		return err
	}
	up.millis(max(first.Sub(healthy), 0))

	// A second instance keeps the VIP alive when the first dies.
	all, err := processes(c.s.name)
	if err != nil {
		return err
	}
	victims := find(all, "/hello")
	victims = slices.DeleteFunc(victims, func(p process) bool { return slices.Contains(others, p) })
	if len(victims) == 0 {
		return fmt.Errorf("no process of %s was found", id)
	}
	if err := c.marathon(ctx, "PUT", "/apps/"+id, []byte(`{"instances":2}`), nil); err != nil {
		return err
	}
	if _, err := c.told(ctx, id, "TASK_RUNNING", 2); err != nil {
		return err
	}
	if err := pause(ctx, silence); err != nil { // both are behind the VIP
		return err
	}
	for _, p := range victims {
		if err := unix.Kill(p.pid, unix.SIGKILL); err != nil {
			return fmt.Errorf("kill %s: %w", p.args, err)
		}
	}
	dead, err := c.told(ctx, id, "TASK_FAILED", 1)
	if err != nil {
		return err
	}
	last, err := k.lastMiss(ctx)
	if err != nil {
		return err
	}
	down.millis(max(last.Sub(dead), 0))
	return c.remove(ctx, id)
}

// told waits until agents have reported status of n tasks of the app, and of
// those that run that they are healthy, and returns when the last of them did.
func (c *cluster) told(ctx context.Context, id, status string, n int) (time.Time, error) {
	for {
		var doc struct {
			Tasks []struct {
				Name     string
				Statuses []struct {
					State     string
					Healthy   bool
					Timestamp float64
				}
			}
		}
		if err := c.call(ctx, c.urls[0], "GET", "/mesos/tasks?limit=100000", nil, &doc); err != nil {
			return time.Time{}, err
		}
		var at []float64
		for _, t := range doc.Tasks {
			if t.Name != strings.TrimPrefix(id, "/") {
				continue
			}
			for _, s := range t.Statuses {
				if s.State == status && (s.Healthy || status != "TASK_RUNNING") {
					at = append(at, s.Timestamp)
					break
				}
			}
		}
		if len(at) >= n {
			return time.UnixMicro(int64(slices.Max(at) * 1e6)), nil
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return time.Time{}, fmt.Errorf("wait for %s of %s: %w", status, id, err)
		}
	}
}

// knocks is a program on another host that connects to the VIP all the time.
type knocks struct {
	cmd *exec.Cmd

	mu     sync.Mutex
	opened time.Time // the first connection
	missed time.Time // the last that failed after it
}

// knock starts on the public agent, which runs no instances of the app.
func (c *cluster) knock(ctx context.Context) (*knocks, error) {
	all, err := processes(c.s.name)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(p process) bool {
		return strings.HasPrefix(p.host, "public") && strings.Contains(p.args, "dcosd agent")
	})
	if i < 0 {
		return nil, fmt.Errorf("the cluster has no public agent")
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	k := &knocks{cmd: exec.CommandContext(ctx, "nsenter", "-t", strconv.Itoa(all[i].pid), "-n", self, knocker, vipAddress)}
	k.cmd.Stderr = os.Stderr
	out, err := k.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := k.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			word, at, _ := strings.Cut(lines.Text(), " ")
			ns, err := strconv.ParseInt(at, 10, 64)
			if err != nil {
				continue
			}
			k.mu.Lock()
			switch {
			case word == "open" && k.opened.IsZero():
				k.opened = time.Unix(0, ns)
			case word == "miss" && !k.opened.IsZero():
				k.missed = time.Unix(0, ns)
			}
			k.mu.Unlock()
		}
	}()
	return k, nil
}

func (k *knocks) stop() error {
	err := k.cmd.Process.Kill()
	_ = k.cmd.Wait() // it was killed
	return err
}

func (k *knocks) first(ctx context.Context) (time.Time, error) {
	for {
		k.mu.Lock()
		at := k.opened
		k.mu.Unlock()
		if !at.IsZero() {
			return at, nil
		}
		if err := pause(ctx, patience); err != nil {
			return at, fmt.Errorf("wait for the VIP to answer: %w", err)
		}
	}
}

// lastMiss waits until knocks have not failed for a while. Without any that
// failed it is the zero time.
func (k *knocks) lastMiss(ctx context.Context) (time.Time, error) {
	start := time.Now()
	for {
		k.mu.Lock()
		at := k.missed
		k.mu.Unlock()
		if time.Since(at) > silence && time.Since(start) > silence {
			return at, nil
		}
		if err := pause(ctx, patience); err != nil {
			return at, fmt.Errorf("wait for the VIP to leave the dead backend out: %w", err)
		}
	}
}

// runKnock is the program: a line for the first connection and one for each
// that fails, with the time at which it began.
func runKnock(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errors.New("say where to knock")
	}
	d := net.Dialer{Timeout: patience}
	for opened := false; ctx.Err() == nil; {
		at := time.Now()
		conn, err := d.DialContext(ctx, "tcp", args[0])
		switch {
		case err != nil && opened:
			fmt.Println("miss", at.UnixNano())
		case err == nil:
			if !opened {
				fmt.Println("open", time.Now().UnixNano())
			}
			opened = true
			_ = conn.Close() // nothing was sent
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

// bareRule is how long nft takes to put one rule into an empty namespace.
func bareRule(ctx context.Context) (time.Duration, error) {
	const script = `
nft add table ip floor
nft add chain ip floor out '{ type nat hook output priority -100; }'
date +%s%N
nft add rule ip floor out ip daddr 11.200.0.1 tcp dport 80 dnat to 192.0.2.1:8080
date +%s%N`
	out, err := exec.CommandContext(ctx, "unshare", "-n", "sh", "-ec", script).Output()
	if err != nil {
		return 0, fmt.Errorf("put a rule into the kernel: %w", err)
	}
	f := strings.Fields(string(out))
	if len(f) != 2 {
		return 0, fmt.Errorf("put a rule into the kernel: it said %q", out)
	}
	from, err := strconv.ParseInt(f[0], 10, 64)
	if err != nil {
		return 0, err
	}
	to, err := strconv.ParseInt(f[1], 10, 64)
	return time.Duration(to - from), err
}
