//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dcos.example/dcos/runtime/api/wire"
)

const (
	cidr      = "198.19.128.0/24"
	blueprint = `
cluster "e2e" {}

provider "local" {
  range = "` + cidr + `"
}

node_group "master" {
  count  = 3
  cpus   = 1
  memory = "1GiB"
  disk   = "4GiB"
}

node_group "agent" {
  count  = 3
  cpus   = 1
  memory = "1GiB"
  disk   = "4GiB"

  attributes = {
    rack = "r${count.index % 3}"
  }
}

node_group "public_agent" {
  count  = 1
  cpus   = 1
  memory = "1GiB"
  disk   = "4GiB"
}
`
)

// TestCluster takes one cluster through its life. Steps build on each other's
// cluster, not on each other's apps; only the demo app stays throughout.
func TestCluster(t *testing.T) {
	c := newCluster(t, "e2e", cidr, blueprint)
	c.install(t, "apply", "-auto-approve")
	c.print.look(t)
	c.setup(t)
	c.dcos(t, "marathon", "app", "add", c.write(t, "hello.json", text(hello(t, nil))))

	step := func(name string, f func(*testing.T)) {
		if !t.Run(name, f) {
			t.FailNow() // later steps would only drown the cause
		}
	}
	step("second apply changes nothing", c.testSecondApply)
	step("hello", c.testHello)
	step("apps", func(t *testing.T) {
		for name, f := range map[string]func(*testing.T){
			"cli": c.testCLI, "command": c.testCommand, "scale": c.testScale, "constraints": c.testConstraints,
			"health": c.testHealth, "crash loop": c.testCrashLoop,
			"framework JSON":     func(t *testing.T) { c.runFramework(t, wire.JSON) },
			"framework protobuf": func(t *testing.T) { c.runFramework(t, wire.Protobuf) },
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel() // they mostly wait
				f(t)
			})
		}
	})
	step("upgrade", c.testUpgrade)
	step("agent restarts", c.testAgentRestart)
	step("leader is killed", func(t *testing.T) {
		c.testFailover(t, func(leader string) {
			_, err := c.on(leader, "kill -9 $(pidof dcosd)")
			must(t, err)
		})
	})
	step("leader's host stops", func(t *testing.T) {
		stopped := ""
		c.testFailover(t, func(leader string) {
			stopped = leader
			c.install(t, "host", "stop", "-now", leader)
		})
		c.install(t, "host", "start", stopped)
		eventually(t, stopped+" is back", func() error {
			address := c.address(t, stopped)
			again, err := c.ask(address, "GET", marathon+"/leader", nil, nil)
			if again {
				return fmt.Errorf("%s: %w", address, err)
			}
			return err
		})
	})
	step("agent's host stops", c.testHostStops)
	step("agent is cut off", c.testCutOff)
	step("destroy", func(t *testing.T) {
		c.install(t, "destroy", "-auto-approve")
		c.print.gone(t)
	})
}

func (c *cluster) write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(c.dir, name)
	must(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

// address of a host.
func (c *cluster) address(t *testing.T, host string) string {
	t.Helper()
	if c.hosts[host] == "" {
		t.Fatalf("there is no host %s among %v", host, c.hosts)
	}
	return c.hosts[host]
}

func (c *cluster) testSecondApply(t *testing.T) {
	out := c.install(t, "apply", "-auto-approve")
	if !strings.Contains(out, "Nothing to do") {
		t.Errorf("the second apply says\n%s", out)
	}
	if out := c.install(t, "plan", "-detailed-exitcode"); strings.Contains(out, "create") {
		t.Errorf("the plan after an apply says\n%s", out)
	}
}

// same checks that no task was restarted.
func same(t *testing.T, before, after app) {
	t.Helper()
	start := func(a app) map[string]string {
		m := map[string]string{}
		for _, k := range a.Tasks {
			m[k.ID] = k.StartedAt
		}
		return m
	}
	if diff := cmp.Diff(start(before), start(after)); diff != "" {
		t.Errorf("tasks of %s were restarted (-before +after):\n%s", before.ID, diff)
	}
}

// leader returns the name of the leading master.
func (c *cluster) leader(t *testing.T) string {
	t.Helper()
	var out struct{ Leader string }
	eventually(t, "a master leads", func() error { return c.call("GET", marathon+"/leader", nil, &out) })
	address, _, _ := strings.Cut(out.Leader, ":")
	for i := range c.masters {
		if name := fmt.Sprintf("master-%d", i+1); c.address(t, name) == address {
			return name
		}
	}
	t.Fatalf("the leader %q is no master of %v", out.Leader, c.masters)
	return ""
}

// testFailover: apps do not notice that the leading master is lost, and the
// next leader takes over.
func (c *cluster) testFailover(t *testing.T, lose func(leader string)) {
	before := c.await(t, "/hello")
	leader := c.leader(t)
	p := c.probe(t, "public-agent-1", "failover", vip)
	lose(leader)
	eventually(t, "the API answers", func() error {
		_, err := c.app("/hello")
		return err
	})
	a := c.deploy(t, sleeper("/after", "sleep 1000", nil))
	if len(a.Tasks) != 1 {
		t.Errorf("the new app has %d tasks", len(a.Tasks))
	}
	same(t, before, c.await(t, "/hello"))
	p.more(t)
	p.unbroken(t)
}

// testAgentRestart: tasks outlive their agent's daemon, which takes new ones
// when it is back.
func (c *cluster) testAgentRestart(t *testing.T) {
	before := c.await(t, "/hello")
	p := c.probe(t, "public-agent-1", "agent", vip)
	victim := c.hostAt(t, before.Tasks[0].Host)
	_, err := c.on(victim, "kill -9 $(pidof dcosd)")
	must(t, err)
	c.deploy(t, sleeper("/pinned", "sleep 1000", object{"constraints": [][]string{{"hostname", "CLUSTER", before.Tasks[0].Host}}}))
	same(t, before, c.await(t, "/hello"))
	if out := c.dcos(t, "task", "log", "--lines", "100000", before.Tasks[0].ID); !strings.Contains(out, "listening") {
		t.Errorf("the log of a recovered task is %q", out)
	}
	p.more(t)
	p.unbroken(t)
}

// hostAt returns the name of the agent at an address.
func (c *cluster) hostAt(t *testing.T, address string) string {
	t.Helper()
	for _, name := range []string{"agent-1", "agent-2", "agent-3"} {
		if c.address(t, name) == address {
			return name
		}
	}
	t.Fatalf("no agent is at %s", address)
	return ""
}

// elsewhere waits until the app runs whole, and nowhere on the lost address.
func (c *cluster) elsewhere(t *testing.T, lost string) app {
	t.Helper()
	a := c.await(t, "/hello", has(2), func(a app) error {
		if slices.Contains(hosts(a), lost) {
			return fmt.Errorf("still on %s: %v", lost, hosts(a))
		}
		return nil
	})
	eventually(t, "VIP answers", func() error { return c.answers("public-agent-1", vip, a) })
	return a
}

// returned waits until the agent at the address runs tasks again, and the app
// has its two instances and no more.
func (c *cluster) returned(t *testing.T, address string) {
	t.Helper()
	c.deploy(t, sleeper("/returned", "sleep 1000", object{"constraints": [][]string{{"hostname", "CLUSTER", address}}}))
	a := c.await(t, "/hello", has(2))
	eventually(t, "no task too many", func() error {
		var listed []string
		for _, k := range c.tasks(t, "hello") {
			listed = append(listed, k.ID)
		}
		if !slices.Equal(listed, ids(a)) {
			return fmt.Errorf("the cluster runs %v, the app has %v", listed, ids(a))
		}
		return nil
	})
	p := c.probe(t, "public-agent-1", "returned", vip)
	p.more(t)
	p.unbroken(t)
}

// testHostStops: what ran on a lost host runs elsewhere; the host comes back.
func (c *cluster) testHostStops(t *testing.T) {
	before := c.await(t, "/hello")
	lost := before.Tasks[0].Host
	c.install(t, "host", "stop", "-now", c.hostAt(t, lost))
	c.elsewhere(t, lost)
	c.install(t, "host", "start", c.hostAt(t, lost))
	c.returned(t, lost)
}

// testCutOff: an agent that loses its network and finds it again still has its
// tasks; those that were replaced end.
func (c *cluster) testCutOff(t *testing.T) {
	before := c.await(t, "/hello")
	lost := before.Tasks[0].Host
	_, err := c.on(c.hostAt(t, lost), "ip link set dev eth0 down")
	must(t, err)
	c.elsewhere(t, lost)
	_, err = c.on(c.hostAt(t, lost), "ip link set dev eth0 up")
	must(t, err)
	c.returned(t, lost)
}
