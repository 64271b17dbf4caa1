//go:build e2e && universe

package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/cassandra-gocql-driver/v2"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
)

// TestCassandra uses Cassandra as its users do: rows are written at QUORUM
// while nodes are lost, changed and made anew, and all of them are there at the
// end, and once more after a restore.
func TestCassandra(t *testing.T) {
	const cidr = "198.19.133.0/24"
	c := universeCluster(t, "e2ecassandra", cidr, 4, "1280MiB", "cassandra:5.0.8-1", "cassandra:5.0.9-1")
	s := c.installService(t, "cassandra", "small", nil, "--package-version", "5.0.8-1")
	d := newCassandra(t, s)
	d.exec(t, "CREATE KEYSPACE shop WITH replication = {'class': 'NetworkTopologyStrategy', 'datacenter1': 3}")
	d.exec(t, "CREATE TABLE shop.orders (id int PRIMARY KEY, text text)")
	w := d.write(t)
	w.more(t, 100)

	t.Run("the loss of a host", func(t *testing.T) {
		task, err := s.task("cassandra-1-node")
		must(t, err)
		host := c.hostOf(t, task.Host)
		c.install(t, "host", "stop", "-now", host)
		w.more(t, 100)
		c.install(t, "host", "start", host)
		d.whole(t)
		after, err := s.task("cassandra-1-node")
		must(t, err)
		if after.Host != task.Host {
			t.Errorf("node 1 went from %s to %s, away from its data", task.Host, after.Host)
		}
		s.await(t, "recovery", "COMPLETE")
	})
	t.Run("another version and configuration, one node at a time", func(t *testing.T) {
		s.upgrade(t, "5.0.9-1", object{"cassandra": object{"slow_query_log_timeout": "700ms"}},
			"cassandra:5.0.9-1", "cassandra-0", "cassandra-1", "cassandra-2")
		w.more(t, 100)
		for i := range 3 {
			if got := d.setting(t, i, "slow_query_log_timeout"); got != "700ms" {
				t.Errorf("slow_query_log_timeout of node %d is %q", i, got)
			}
		}
		d.whole(t)
	})
	t.Run("a node without its data gets it from the others", func(t *testing.T) {
		for _, pod := range []string{"cassandra-2", "cassandra-0"} {
			s.replace(t, pod, "node")
			if n := d.members(t); n != 3 {
				t.Errorf("the ring has %d members after %s was replaced", n, pod)
			}
			d.streamed(t, pod)
			d.whole(t)
			w.more(t, 100)
		}
	})
	w.end(t)
	if n := d.count(t); n != len(w.acknowledged) {
		t.Errorf("there are %d rows, and %d were acknowledged", n, len(w.acknowledged))
	}
	t.Run("a backup", func(t *testing.T) {
		s.run(t, "backup-s3", d.bucket(t, cidr)...)
		d.exec(t, "DROP KEYSPACE shop")
		s.run(t, "restore-s3", d.parameters...)
		if n := d.count(t); n != len(w.acknowledged) {
			t.Errorf("there are %d rows after the restore, and %d were before", n, len(w.acknowledged))
		}
	})
	d.close()
	s.uninstall(t)
}

// cassandra is a client of a service's nodes.
type cassandra struct {
	s          *service
	session    *gocql.Session
	parameters []string // of backups
}

func newCassandra(t *testing.T, s *service) *cassandra {
	t.Helper()
	d := &cassandra{s: s}
	d.session = d.connect(t, s.endpoint(t, "native-client")...)
	t.Cleanup(d.close)
	return d
}

func (d *cassandra) connect(t *testing.T, hosts ...string) *gocql.Session {
	t.Helper()
	cluster := gocql.NewCluster(hosts...)
	cluster.Consistency = gocql.Quorum
	cluster.ProtoVersion = 4
	cluster.Timeout, cluster.ConnectTimeout = 5*time.Second, 5*time.Second
	cluster.ReconnectInterval = time.Second
	cluster.PoolConfig.HostSelectionPolicy = gocql.TokenAwareHostPolicy(gocql.RoundRobinHostPolicy())
	session, err := cluster.CreateSession()
	must(t, err)
	return session
}

func (d *cassandra) close() { d.session.Close() }

// exec carries out a statement and waits until all nodes know of it.
func (d *cassandra) exec(t *testing.T, statement string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(interrupted, patience)
	defer cancel()
	// A second try after a time-out may find it done.
	err := d.session.Query(statement).ExecContext(ctx)
	if err != nil && !strings.Contains(err.Error(), "already exists") && !strings.Contains(err.Error(), "doesn't exist") {
		t.Fatalf("%s: %v", statement, err)
	}
	must(t, d.session.AwaitSchemaAgreement(ctx))
}

// whole waits until all replicas of a row answer: those are all nodes.
func (d *cassandra) whole(t *testing.T) {
	t.Helper()
	d.s.eventually(t, "all replicas answer", func() error {
		ctx, cancel := context.WithTimeout(interrupted, 10*time.Second)
		defer cancel()
		var n int
		return d.session.Query("SELECT id FROM shop.orders WHERE id = 1").Consistency(gocql.All).ScanContext(ctx, &n)
	})
}

func (d *cassandra) count(t *testing.T) (n int) {
	t.Helper()
	d.s.eventually(t, "rows are counted", func() error {
		ctx, cancel := context.WithTimeout(interrupted, 30*time.Second)
		defer cancel()
		return d.session.Query("SELECT count(*) FROM shop.orders").ScanContext(ctx, &n)
	})
	return n
}

// only speaks to one node.
func (d *cassandra) only(t *testing.T, pod string) *gocql.Session {
	t.Helper()
	task, err := d.s.task(pod + "-node")
	must(t, err)
	cluster := gocql.NewCluster(net.JoinHostPort(task.Host, "9042"))
	cluster.ProtoVersion, cluster.DisableInitialHostLookup = 4, true
	cluster.Timeout, cluster.ConnectTimeout = 10*time.Second, 10*time.Second
	cluster.Consistency = gocql.One
	session, err := cluster.CreateSession()
	must(t, err)
	t.Cleanup(session.Close)
	return session
}

// setting is what a node says of its own configuration.
func (d *cassandra) setting(t *testing.T, node int, name string) (value string) {
	t.Helper()
	must(t, d.only(t, fmt.Sprintf("cassandra-%d", node)).Query("SELECT value FROM system_views.settings WHERE name = ?", name).ScanContext(interrupted, &value))
	return value
}

// members counts the ring as its first node sees it.
func (d *cassandra) members(t *testing.T) int {
	t.Helper()
	var peers int
	must(t, d.only(t, "cassandra-0").Query("SELECT count(*) FROM system.peers_v2").ScanContext(interrupted, &peers))
	return peers + 1
}

// streamed looks for files of rows in a node's volume: what is written to it
// stays in memory for longer than this test takes, so that others sent them.
func (d *cassandra) streamed(t *testing.T, pod string) {
	t.Helper()
	task, err := d.s.task(pod + "-node")
	must(t, err)
	out, err := d.s.c.on(d.s.c.hostOf(t, task.Host), "find /var/lib/dcos -path '*/volumes/roles/*/data/shop/orders-*-Data.db'")
	must(t, err)
	if strings.TrimSpace(out) == "" {
		t.Errorf("%s has no rows of shop.orders on its disk", pod)
	}
}

// bucket serves an S3-compatible store from this machine, and returns what a
// backup must be told of it.
func (d *cassandra) bucket(t *testing.T, cidr string) []string {
	t.Helper()
	backend := s3mem.New()
	must(t, backend.CreateBucket("backups"))
	l, err := net.Listen("tcp", net.JoinHostPort(gateway(t, netip.MustParsePrefix(cidr)), "0"))
	must(t, err)
	server := &http.Server{Handler: gofakes3.New(backend).Server(), ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		must(t, server.Close())
		<-done
	})
	d.parameters = []string{
		"SNAPSHOT_NAME=monday", "S3_BUCKET_NAME=backups", "S3_ENDPOINT_URL=http://" + l.Addr().String(),
		"AWS_ACCESS_KEY_ID=someone", "AWS_SECRET_ACCESS_KEY=secret", "AWS_REGION=us-east-1",
	}
	return d.parameters
}

// gateway is this machine's own address in a network.
func gateway(t *testing.T, network netip.Prefix) string {
	t.Helper()
	all, err := net.InterfaceAddrs()
	must(t, err)
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil && network.Contains(p.Addr()) {
			return p.Addr().String()
		}
	}
	t.Fatalf("this machine has no address in %s", network)
	return ""
}

// rowWriter writes rows, one after the other, each until it is acknowledged.
type rowWriter struct {
	stop         context.CancelFunc
	wait         sync.WaitGroup
	mu           sync.Mutex
	acknowledged map[int]bool
	last         error
}

func (d *cassandra) write(t *testing.T) *rowWriter {
	t.Helper()
	ctx, stop := context.WithCancel(interrupted)
	w := &rowWriter{stop: stop, acknowledged: map[int]bool{}}
	text := strings.Repeat("some text ", 30)
	w.wait.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			err := d.session.Query("INSERT INTO shop.orders (id, text) VALUES (?, ?)", n, fmt.Sprintf("%d %s", n, text)).Idempotent(true).ExecContext(ctx)
			w.mu.Lock()
			if w.last = err; err == nil {
				w.acknowledged[n] = true
				n++
			}
			w.mu.Unlock()
		}
	})
	t.Cleanup(func() { w.finish() })
	return w
}

func (w *rowWriter) finish() {
	w.stop()
	w.wait.Wait()
}

// more waits until so many further rows are acknowledged.
func (w *rowWriter) more(t *testing.T, n int) {
	t.Helper()
	count := func() (int, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.acknowledged), w.last
	}
	first, _ := count()
	eventually(t, fmt.Sprintf("%d more rows are written", n), func() error {
		now, err := count()
		if now < first+n {
			return fmt.Errorf("%d are: %v", now-first, err)
		}
		return nil
	})
}

func (w *rowWriter) end(t *testing.T) {
	t.Helper()
	w.finish()
	t.Logf("%d rows were acknowledged", len(w.acknowledged))
}
