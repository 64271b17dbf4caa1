// Command redis-member keeps one node of a Redis cluster in its place: it
// starts the server, joins it to the others when it is new or was made anew,
// and hands its slots over before it stops. It also founds the cluster, and
// moves slots when there are more nodes.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("redis-member: ")
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	commands := map[string]func(context.Context, *ring) error{"run": run, "ready": ready, "found": found, "rebalance": rebalance}
	if len(os.Args) != 2 || commands[os.Args[1]] == nil {
		log.Fatal("usage: redis-member run|ready|found|rebalance")
	}
	r := newRing(os.Getenv)
	err := commands[os.Args[1]](ctx, r)
	r.close()
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		os.Exit(max(ended.ExitCode(), 1))
	}
	if err != nil {
		log.Fatal(err)
	}
}

// run starts the server, and ends with it.
func run(ctx context.Context, r *ring) error {
	config := os.Getenv("REDIS_CONFIG")
	if config == "" {
		config = "/etc/redis/redis.conf"
	}
	server := exec.Command("redis-server", config)
	server.Stdout, server.Stderr = os.Stdout, os.Stderr
	// A signal to the group is for us to pass on.
	server.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := server.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	kept := make(chan struct{})
	keeping, stop := context.WithCancel(ctx)
	go func() {
		defer close(kept)
		keep(keeping, r)
	}()
	defer func() { stop(); <-kept }()
	select {
	case err := <-ended:
		if err == nil {
			err = errors.New("the server ended by itself")
		}
		return err
	case <-ctx.Done():
	}
	stop()
	<-kept
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 8*time.Second)
	defer cancel()
	if err := handOver(grace, r); err != nil {
		log.Printf("hand over: %v", err)
	}
	if err := server.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return <-ended
}

const (
	beat    = 2 * time.Second
	patient = 15 * time.Second // between looks once the node is in its place
)

// keep joins the node to the others as often as it is alone.
func keep(ctx context.Context, r *ring) {
	alone := 0
	for wait := beat; ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		peer, err := r.missing(ctx)
		switch {
		case err != nil:
			wait = beat // it starts, or loads its data
		case peer == "":
			alone, wait = 0, patient
			if !r.joined(ctx) {
				wait = beat
			}
		// Twice, so that whoever founds the cluster is not disturbed.
		case alone == 0:
			alone, wait = 1, beat
		default:
			if err := r.join(ctx, peer); err != nil && ctx.Err() == nil {
				log.Printf("join: %v", err)
			}
			wait = beat
		}
	}
}

// handOver makes a replica the master in this node's place.
func handOver(ctx context.Context, r *ring) error {
	info, err := r.info(ctx, r.self, "replication")
	if err != nil || info["role"] != "master" {
		return err
	}
	for i := 0; ; i++ {
		said, ok := info[fmt.Sprintf("slave%d", i)]
		if !ok {
			return nil // there is nobody to hand over to
		}
		f := fields(said, ",", "=")
		if f["state"] != "online" {
			continue
		}
		to := f["ip"] + ":" + f["port"]
		if err := r.do(ctx, to, "CLUSTER", "FAILOVER").Err(); err != nil {
			log.Printf("hand over to %s: %v", to, err)
			continue
		}
		return until(ctx, 100*time.Millisecond, func() error {
			info, err := r.info(ctx, r.self, "replication")
			if err == nil && info["role"] == "master" {
				err = fmt.Errorf("%s did not take over", to)
			}
			return err
		})
	}
}

// ready reports whether the node has its data and its place.
func ready(ctx context.Context, r *ring) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	info, err := r.info(ctx, r.self, "replication")
	if err != nil {
		return err
	}
	if info["role"] == "slave" && (info["master_link_status"] != "up" || info["master_sync_in_progress"] != "0") {
		return errors.New("it copies its master's data")
	}
	switch peer, err := r.missing(ctx); {
	case err != nil:
		return err
	case peer != "":
		return fmt.Errorf("it is not in the cluster of %s yet", peer)
	}
	if !r.joined(ctx) {
		return nil // there is no cluster yet
	}
	c, err := r.clusterInfo(ctx, r.self)
	if err == nil && c["cluster_state"] != "ok" {
		err = errors.New("to it, the cluster is not whole")
	}
	return err
}

// until repeats f until it succeeds; at ctx's end it returns f's last error.
func until(ctx context.Context, every time.Duration, f func() error) error {
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(every):
		}
	}
}

// fields reads "a=1,b=2", or the lines of INFO.
func fields(s, between, is string) map[string]string {
	m := map[string]string{}
	for _, f := range strings.Split(s, between) {
		if k, v, ok := strings.Cut(strings.TrimSpace(f), is); ok {
			m[k] = v
		}
	}
	return m
}
