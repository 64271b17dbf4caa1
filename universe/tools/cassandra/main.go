// Command cassandractl is what a Cassandra service asks of its own nodes
// without starting a Java machine for it, and its backups: it keeps the schema
// and the files of snapshots in a bucket of an S3-compatible store, and brings
// them back to a cluster of any size.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/apache/cassandra-gocql-driver/v2"
)

const usage = `cassandractl ready            does this node serve clients?
cassandractl snapshot         takes the snapshot SNAPSHOT_NAME on this node
cassandractl upload           puts it into a bucket, and from node 0 the schema
cassandractl clear            removes it from this node
cassandractl restore-schema   makes the keyspaces and tables of a backup
cassandractl restore          loads what this node once had`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	e := fromEnvironment(os.Getenv)
	if len(args) != 1 {
		return errors.New(usage)
	}
	switch args[0] {
	case "ready":
		return ready(ctx, e)
	case "snapshot":
		if err := e.named(); err != nil {
			return err
		}
		return tool(ctx, "nodetool", "snapshot", "-t", e.snapshot)
	case "clear":
		if err := e.named(); err != nil {
			return err
		}
		return tool(ctx, "nodetool", "clearsnapshot", "-t", e.snapshot)
	case "upload":
		return upload(ctx, e)
	case "restore-schema":
		return restoreSchema(ctx, e)
	case "restore":
		return restore(ctx, e)
	}
	return errors.New(usage)
}

// environment is what a task of the service knows.
type environment struct {
	index    int
	service  string
	address  string // of this node
	port     string // of its native transport
	tls      bool
	joined   string // marks that this node once served
	data     string // folder of the keyspaces
	scratch  string // folder for what is being restored
	user     string
	password string
	snapshot string
	bucket   bucket
}

func fromEnvironment(get func(string) string) environment {
	data := get("CASSANDRA_DATA")
	if data == "" {
		data = "/data"
	}
	index, _ := strconv.Atoi(get("POD_INSTANCE_INDEX"))
	return environment{
		index: index, service: get("FRAMEWORK_NAME"), address: get("MESOS_CONTAINER_IP"), port: get("PORT_NATIVE"),
		tls: get("CASSANDRA_TLS") != "", joined: filepath.Join(data, "joined"), data: filepath.Join(data, "data"),
		scratch: filepath.Join(data, "restore"), user: get("CQL_USER"), password: get("CQL_PASSWORD"), snapshot: get("SNAPSHOT_NAME"),
		bucket: bucket{
			endpoint: get("S3_ENDPOINT_URL"), region: get("AWS_REGION"), name: get("S3_BUCKET_NAME"),
			id: get("AWS_ACCESS_KEY_ID"), secret: get("AWS_SECRET_ACCESS_KEY"), token: get("AWS_SESSION_TOKEN"),
		},
	}
}

// named fails unless there is a name for the snapshot that is safe in paths.
func (e environment) named() error {
	if e.snapshot == "" {
		return errors.New("SNAPSHOT_NAME is not set: start the plan with -p SNAPSHOT_NAME=…")
	}
	for _, r := range e.snapshot {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_') {
			return fmt.Errorf("SNAPSHOT_NAME %q has a %q; letters, digits, hyphens and underscores are possible", e.snapshot, r)
		}
	}
	return nil
}

// certificates trusts the cluster's authority, under whatever address a node
// was found.
func (e environment) certificates() (*tls.Config, error) {
	const file = "/etc/tls/client.ca"
	ca, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%s holds no certificate", file)
	}
	return &tls.Config{InsecureSkipVerify: true, VerifyConnection: func(s tls.ConnectionState) error {
		between := x509.NewCertPool()
		for _, c := range s.PeerCertificates[1:] {
			between.AddCert(c)
		}
		_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: pool, Intermediates: between})
		return err
	}}, nil
}

// tool runs one of Cassandra's own.
func tool(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %v: %w", name, args, err)
	}
	return nil
}

// options is the request of the native protocol that is answered before
// anybody says who they are.
var options = []byte{4, 0, 0, 0, 5, 0, 0, 0, 0}

// supported is the code of its answer.
const supported = 6

// ready asks this node for what it supports. Nodes listen only once they have
// joined, and so the first time leaves a mark: a node with it may count itself
// among the seeds.
func ready(ctx context.Context, e environment) error {
	ctx, cancel := context.WithTimeout(ctx, 8*time.Second)
	defer cancel()
	var conn net.Conn
	var err error
	address := net.JoinHostPort(e.address, e.port)
	if e.tls {
		config, err := e.certificates()
		if err != nil {
			return err
		}
		conn, err = (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
	} else if conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", address); err != nil {
		return err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := conn.Write(options); err != nil {
		return err
	}
	head := make([]byte, len(options))
	if _, err := io.ReadFull(conn, head); err != nil {
		return fmt.Errorf("ask %s for its options: %w", address, err)
	}
	if head[4] != supported {
		return fmt.Errorf("%s answers with message %d, where %d was due", address, head[4], supported)
	}
	if _, err := os.Stat(e.joined); err == nil {
		return nil
	}
	return os.WriteFile(e.joined, nil, 0o600)
}

// session speaks CQL to this node.
func (e environment) session() (*gocql.Session, error) {
	cluster := gocql.NewCluster(net.JoinHostPort(e.address, e.port))
	cluster.Timeout, cluster.ConnectTimeout = time.Minute, 10*time.Second
	cluster.Consistency = gocql.Quorum
	cluster.DisableInitialHostLookup = true
	cluster.ProtoVersion = 4
	if e.user != "" {
		cluster.Authenticator = gocql.PasswordAuthenticator{Username: e.user, Password: e.password}
	}
	if e.tls {
		config, err := e.certificates()
		if err != nil {
			return nil, err
		}
		cluster.SslOpts = &gocql.SslOptions{Config: config}
	}
	return cluster.CreateSession()
}
