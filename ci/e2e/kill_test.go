//go:build e2e

package e2e

import (
	"bufio"
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"testing"
)

const smallCIDR = "198.19.130.0/24"

const small = `
cluster "e2ekill" {}

provider "local" {
  range = "` + smallCIDR + `"
}

node_group "master" {
  count  = 1
  cpus   = 1
  memory = "1GiB"
  disk   = "4GiB"
}

node_group "agent" {
  count  = 1
  cpus   = 1
  memory = "1GiB"
  disk   = "4GiB"
}
`

// ended is how a run of dcos-install ended.
type ended struct {
	code    int // -1: by a signal
	stopped bool
	output  string
}

// hit runs dcos-install and sends it the signals as soon as it has reported so
// many events.
func (c *cluster) hit(t *testing.T, events int, signals []os.Signal, args ...string) ended {
	t.Helper()
	cmd := c.command(interrupted, "dcos-install", append(args, "-json")...)
	out, err := cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	var end ended
	var all strings.Builder
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for n := 0; lines.Scan(); {
		all.Write(append(lines.Bytes(), '\n'))
		var doc struct {
			Kind    string
			Stopped bool
		}
		must(t, json.Unmarshal(lines.Bytes(), &doc))
		end.stopped = end.stopped || doc.Stopped
		if doc.Kind != "event" {
			continue
		}
		if n++; n != events {
			continue
		}
		for _, s := range signals {
			// It may have come to its end just now.
			if err := cmd.Process.Signal(s); err != nil && err != os.ErrProcessDone {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait() // the state says how it ended
	end.code, end.output = cmd.ProcessState.ExitCode(), all.String()
	return end
}

// whole checks that the cluster is as wanted: nothing to do, and its agent runs.
func (c *cluster) whole(t *testing.T) {
	t.Helper()
	if out := c.install(t, "apply", "-auto-approve"); !strings.Contains(out, "Nothing to do") {
		t.Errorf("after an apply that succeeded, another says\n%s", out)
	}
	c.setup(t)
	c.deploy(t, sleeper("/works", "sleep 1000", nil))
}

// TestInstallerKilled kills applies one after the other, each a bit later than
// the one before, until one is fast enough; then destroys in the same way.
func TestInstallerKilled(t *testing.T) {
	c := newCluster(t, "e2ekill", smallCIDR, small)
	kill := []os.Signal{syscall.SIGKILL}
	kills := 0
	for events := 1; ; events += 2 {
		end := c.hit(t, events, kill, "apply", "-auto-approve")
		if end.code == 0 {
			break
		}
		if kills++; end.code != -1 {
			t.Fatalf("apply after %d kills ended with %d:\n%s", kills, end.code, end.output)
		}
	}
	t.Logf("apply was killed %d times", kills)
	c.print.look(t)
	t.Run("works", c.whole)
	kills = 0
	for events := 1; ; events += 2 {
		end := c.hit(t, events, kill, "destroy", "-auto-approve")
		if end.code == 0 {
			break
		}
		if kills++; end.code != -1 {
			t.Fatalf("destroy after %d kills ended with %d:\n%s", kills, end.code, end.output)
		}
	}
	t.Logf("destroy was killed %d times", kills)
	c.print.gone(t)
}

// TestInstallerInterrupted presses Ctrl-C once, which ends in order, and
// twice, which ends at once; both can be gone on from.
func TestInstallerInterrupted(t *testing.T) {
	c := newCluster(t, "e2ekill", smallCIDR, small)
	end := c.hit(t, 8, []os.Signal{os.Interrupt}, "apply", "-auto-approve")
	if end.code != 1 || !end.stopped {
		t.Fatalf("one Ctrl-C ends with %d, stopped %v:\n%s", end.code, end.stopped, end.output)
	}
	end = c.hit(t, 8, []os.Signal{os.Interrupt, os.Interrupt}, "apply", "-auto-approve")
	if end.code != 130 && end.code != 1 { // the kernel may make one of two signals
		t.Fatalf("two Ctrl-C end with %d:\n%s", end.code, end.output)
	}
	c.install(t, "apply", "-auto-approve")
	c.print.look(t)
	t.Run("works", c.whole)
	end = c.hit(t, 3, []os.Signal{os.Interrupt}, "destroy", "-auto-approve")
	if end.code == 0 {
		t.Logf("destroy was done before it was stopped")
	}
	c.install(t, "destroy", "-auto-approve")
	c.print.gone(t)
}
