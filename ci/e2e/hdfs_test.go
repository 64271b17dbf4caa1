//go:build e2e && universe

package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestHDFS uses HDFS as clients outside the cluster do, over WebHDFS: a
// gigabyte is written, and read again after each loss.
func TestHDFS(t *testing.T) {
	c := universeCluster(t, "e2ehdfs", "198.19.133.0/24", 4, "1536MiB", "hdfs")
	s := c.installService(t, "hdfs", "small", nil)
	h := &hdfs{s: s, nodes: s.endpoint(t, "name-http")}
	if len(h.nodes) != 2 {
		t.Fatalf("name nodes: %v", h.nodes)
	}
	h.roles(t)
	const size = 1 << 30
	sum := h.write(t, "/data/random", size)
	read := func(t *testing.T) {
		t.Helper()
		if got := h.read(t, "/data/random"); got != sum {
			t.Errorf("what was read has the checksum %s, what was written %s", got, sum)
		}
	}
	read(t)

	t.Run("the active name node is killed", func(t *testing.T) {
		active := h.roles(t)
		task, err := s.task(fmt.Sprintf("name-%d-node", active))
		must(t, err)
		began := time.Now()
		c.killProcess(t, task.Host, "namenode.NameNode")
		h.until(t, "the other name node is active", func() error {
			if at, _, err := h.state(); err != nil || at != 1-active {
				return fmt.Errorf("active is %d: %w", at, err)
			}
			return nil
		})
		t.Logf("the other name node was active after %v", time.Since(began).Round(100*time.Millisecond))
		read(t)
		h.roles(t)
	})
	t.Run("the host of the active name node is lost", func(t *testing.T) {
		active := h.roles(t)
		task, err := s.task(fmt.Sprintf("name-%d-node", active))
		must(t, err)
		host := c.hostOf(t, task.Host)
		c.install(t, "host", "stop", "-now", host)
		began := time.Now()
		h.until(t, "the other name node is active", func() error {
			if at, _, err := h.state(); err != nil || at != 1-active {
				return fmt.Errorf("active is %d: %w", at, err)
			}
			return nil
		})
		t.Logf("the other name node was active after %v", time.Since(began).Round(100*time.Millisecond))
		read(t)
		c.install(t, "host", "start", host)
		s.await(t, "recovery", "COMPLETE")
		h.roles(t)
		h.whole(t, 3)
	})
	t.Run("a data node without its data", func(t *testing.T) {
		s.replace(t, "data-0", "node")
		h.nodes = s.endpoint(t, "name-http")
		h.whole(t, 3)
		read(t)
	})
	t.Run("a journal node without its data", func(t *testing.T) {
		s.replace(t, "journal-1", "node")
		h.write(t, "/data/after-journal", 1<<20)
		h.until(t, "it takes part in the journal", h.journalWhole(t))
	})
	t.Run("a name node without its data", func(t *testing.T) {
		standby := 1 - h.roles(t)
		s.replace(t, fmt.Sprintf("name-%d", standby), "node")
		h.nodes = s.endpoint(t, "name-http")
		h.roles(t)
		task, err := s.task(fmt.Sprintf("name-%d-node", 1-standby))
		must(t, err)
		c.killProcess(t, task.Host, "namenode.NameNode")
		h.until(t, "the new name node is active", func() error {
			if at, _, err := h.state(); err != nil || at != standby {
				return fmt.Errorf("active is %d: %w", at, err)
			}
			return nil
		})
		read(t)
		h.roles(t)
	})
	t.Run("another configuration and a fourth data node, while files are written", func(t *testing.T) {
		s.update(t, object{"data_node": object{"count": 4}, "hdfs": object{"trash_interval": 60}})
		h.nodes = s.endpoint(t, "name-http")
		h.roles(t)
		h.whole(t, 4)
		read(t)
	})
	t.Run("its own shell", func(t *testing.T) {
		out := c.dcos(t, "task", "exec", "name-0-node", "hdfs", "dfs", "-count", "/data")
		if f := strings.Fields(out); len(f) != 4 || f[1] != "2" {
			t.Errorf("hdfs dfs -count says %q", out)
		}
	})
	s.uninstall(t)
}

// hdfs is a client of the name nodes at nodes, addresses with ports.
type hdfs struct {
	s     *service
	nodes []string
}

func (h *hdfs) until(t *testing.T, what string, f func() error) {
	t.Helper()
	h.s.eventually(t, what, f)
}

// bean reads a bean of a daemon, as NameNode,name=NameNodeStatus, into v.
func (h *hdfs) bean(node, name string, v any) error {
	r, err := (&http.Client{Timeout: 5 * time.Second}).Get("http://" + node + "/jmx?qry=Hadoop:service=" + name)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	var all struct{ Beans []json.RawMessage }
	if err := json.NewDecoder(r.Body).Decode(&all); err != nil {
		return err
	}
	if len(all.Beans) == 0 {
		return fmt.Errorf("%s has no bean %s", node, name)
	}
	return json.Unmarshal(all.Beans[0], v)
}

// state is the number of the active name node, -1 if there is none, and how
// many stand by. Its error is that of a name node that does not answer, if
// none is active.
func (h *hdfs) state() (active, standby int, err error) {
	active = -1
	for i, node := range h.nodes {
		var status struct{ State string }
		if e := h.bean(node, "NameNode,name=NameNodeStatus", &status); e != nil {
			err = errors.Join(err, e)
			continue
		}
		switch status.State {
		case "active":
			active = i
		case "standby":
			standby++
		}
	}
	if active >= 0 {
		err = nil
	}
	return active, standby, err
}

// roles waits until one name node is active and the other stands by, and
// returns the former.
func (h *hdfs) roles(t *testing.T) int {
	t.Helper()
	var active int
	h.until(t, "one name node is active and one stands by", func() error {
		var standby int
		var err error
		if active, standby, err = h.state(); err == nil && (active < 0 || standby != 1) {
			err = fmt.Errorf("active is %d, %d stand by", active, standby)
		}
		return err
	})
	return active
}

// info is what the active name node says of the file system.
func (h *hdfs) info(name string, v any) error {
	active, _, err := h.state()
	if err != nil {
		return err
	}
	if active < 0 {
		return errors.New("no name node is active")
	}
	return h.bean(h.nodes[active], "NameNode,name="+name, v)
}

// whole waits until so many data nodes live and all blocks have their replicas.
func (h *hdfs) whole(t *testing.T, nodes int) {
	t.Helper()
	h.until(t, "all blocks have their replicas", func() error {
		var fs struct{ NumLiveDataNodes, UnderReplicatedBlocks, PendingReplicationBlocks, MissingBlocks int }
		if err := h.info("FSNamesystem*", &fs); err != nil {
			return err
		}
		if fs.NumLiveDataNodes != nodes || fs.UnderReplicatedBlocks+fs.PendingReplicationBlocks+fs.MissingBlocks > 0 {
			return fmt.Errorf("%+v", fs)
		}
		return nil
	})
}

// journalWhole fails unless all three journal nodes have the same last change.
func (h *hdfs) journalWhole(t *testing.T) func() error {
	return func() error {
		nodes := h.s.endpoint(t, "journal-http")
		last := map[int64]int{}
		for _, node := range nodes {
			var j struct{ LastWrittenTxId int64 }
			if err := h.bean(node, "JournalNode,name=Journal-hdfs", &j); err != nil {
				return err
			}
			last[j.LastWrittenTxId]++
		}
		if len(nodes) != 3 || len(last) != 1 || last[0] > 0 {
			return fmt.Errorf("last changes, and how many of %v have them: %v", nodes, last)
		}
		return nil
	}
}

// url is that of an operation on a file at the active name node.
func (h *hdfs) url(path, op string) (string, error) {
	active, _, err := h.state()
	if err != nil {
		return "", err
	}
	if active < 0 {
		return "", errors.New("no name node is active")
	}
	return "http://" + h.nodes[active] + "/webhdfs/v1" + path + "?user.name=hdfs&op=" + op, nil
}

// write makes a file of size random bytes and returns its checksum.
func (h *hdfs) write(t *testing.T, path string, size int64) string {
	t.Helper()
	at, err := h.url(path, "CREATE&overwrite=true&noredirect=true")
	must(t, err)
	var where struct{ Location string }
	must(t, request("PUT", at, nil, func(r io.Reader) error { return json.NewDecoder(r).Decode(&where) }))
	sum := sha256.New()
	began := time.Now()
	must(t, request("PUT", where.Location, io.TeeReader(io.LimitReader(rand.NewChaCha8([32]byte{1}), size), sum), func(io.Reader) error { return nil }))
	t.Logf("%d MiB were written in %v", size>>20, time.Since(began).Round(100*time.Millisecond))
	return hex.EncodeToString(sum.Sum(nil))
}

// read returns the checksum of a file.
func (h *hdfs) read(t *testing.T, path string) string {
	t.Helper()
	began := time.Now()
	sum := sha256.New()
	h.until(t, path+" is read", func() error {
		at, err := h.url(path, "OPEN")
		if err != nil {
			return err
		}
		sum.Reset()
		return request("GET", at, nil, func(r io.Reader) error { _, err := io.Copy(sum, r); return err })
	})
	t.Logf("%s was read in %v", path, time.Since(began).Round(100*time.Millisecond))
	return hex.EncodeToString(sum.Sum(nil))
}

// request makes a request and passes the body of a good answer to f.
func request(method, url string, body io.Reader, f func(io.Reader) error) error {
	q, err := http.NewRequestWithContext(interrupted, method, url, body)
	if err != nil {
		return err
	}
	r, err := http.DefaultClient.Do(q)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if r.StatusCode > 299 {
		b, _ := io.ReadAll(io.LimitReader(r.Body, 1<<12))
		return fmt.Errorf("%s %s: %s: %s", method, url, r.Status, b)
	}
	return f(r.Body)
}

// killProcess kills, on the agent at address, the processes that have word in
// their command.
func (c *cluster) killProcess(t *testing.T, address, word string) {
	t.Helper()
	out, err := c.on(c.hostOf(t, address), fmt.Sprintf(`for p in /proc/[0-9]*; do
		if [ "$(cat "$p/comm" 2>/dev/null)" = java ] && tr '\0' ' ' <"$p/cmdline" | grep -qF %q; then kill -KILL "${p#/proc/}" && echo "${p#/proc/}"; fi
	done`, word))
	must(t, err)
	if strings.TrimSpace(out) == "" {
		t.Fatalf("no process at %s has %s in its command", address, word)
	}
}
