//go:build e2e && universe

package e2e

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// TestZooKeeper writes and reads through the loss of the leader, a member made
// anew, and another configuration.
func TestZooKeeper(t *testing.T) {
	c := universeCluster(t, "e2ezk", "198.19.134.0/24", 4, "768MiB", "zookeeper")
	s := c.installService(t, "zookeeper", "small", nil)
	z := zookeeper{s}
	z.modes(t, 3)
	z.cli(t, 0, "create", "/kept", "first")
	read := func(t *testing.T, server int, want string) {
		t.Helper()
		s.eventually(t, fmt.Sprintf("member %d has what was written", server), func() error {
			out, err := z.try(server, "get", "/kept")
			if err == nil && !strings.Contains(out, want) {
				err = fmt.Errorf("it is %q, not %q", out, want)
			}
			return err
		})
	}
	read(t, 2, "first")
	t.Run("the leader is killed", func(t *testing.T) {
		leader := z.modes(t, 3)
		task, err := s.task(fmt.Sprintf("zookeeper-%d-server", leader))
		must(t, err)
		c.killProcess(t, task.Host, "QuorumPeerMain")
		other := (leader + 1) % 3
		s.eventually(t, "the others take what is written", func() error {
			_, err := z.try(other, "set", "/kept", "second")
			return err
		})
		z.modes(t, 3)
		read(t, leader, "second")
	})
	t.Run("a member without its data", func(t *testing.T) {
		s.replace(t, "zookeeper-1", "server")
		z.modes(t, 3)
		read(t, 1, "second")
	})
	t.Run("another configuration, one member at a time", func(t *testing.T) {
		s.update(t, object{"zookeeper": object{"sync_limit": 7}})
		z.modes(t, 3)
		read(t, 0, "second")
		z.cli(t, 2, "set", "/kept", "third")
		read(t, 1, "third")
	})
	s.uninstall(t)
}

type zookeeper struct{ s *service }

func (z zookeeper) try(server int, args ...string) (string, error) {
	return z.s.c.try("dcos", append([]string{"task", "exec", fmt.Sprintf("zookeeper-%d-server", server), "/opt/zookeeper/bin/server", "cli"}, args...)...)
}

func (z zookeeper) cli(t *testing.T, server int, args ...string) {
	t.Helper()
	_, err := z.try(server, args...)
	must(t, err)
}

// modes waits until one of n members leads and all others follow, and returns
// the leader's number.
func (z zookeeper) modes(t *testing.T, n int) int {
	t.Helper()
	leader := -1
	z.s.eventually(t, fmt.Sprintf("one of %d members leads", n), func() error {
		at := z.s.endpoint(t, "client")
		leader = -1
		followers := 0
		for i, address := range at {
			conn, err := net.DialTimeout("tcp", address, 5*time.Second)
			if err != nil {
				return err
			}
			_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
			_, err = io.WriteString(conn, "srvr")
			answer, _ := io.ReadAll(conn)
			_ = conn.Close()
			if err != nil {
				return err
			}
			if strings.Contains(string(answer), "Mode: leader") {
				leader = i
			} else if strings.Contains(string(answer), "Mode: follower") {
				followers++
			}
		}
		if leader < 0 || followers != n-1 {
			return fmt.Errorf("leader %d, %d followers, at %v", leader, followers, at)
		}
		return nil
	})
	return leader
}
