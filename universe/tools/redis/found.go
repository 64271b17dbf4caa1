package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"time"
)

// found makes the nodes a cluster, unless they are one. It may be run again
// after it was interrupted.
func found(ctx context.Context, r *ring) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	masters, err := number("REDIS_MASTERS", 3)
	if err != nil {
		return err
	}
	replicas, err := number("REDIS_REPLICAS", 0)
	if err != nil {
		return err
	}
	nodes := make([]string, masters*(1+replicas))
	for i := range nodes {
		if err := until(ctx, time.Second, func() error {
			nodes[i], err = r.address(ctx, i)
			if err == nil {
				err = r.do(ctx, nodes[i], "PING").Err()
			}
			return err
		}); err != nil {
			return fmt.Errorf("wait for node %d of %d: %w", i, len(nodes), err)
		}
	}
	switch whole, err := r.whole(ctx, nodes); {
	case err != nil:
		return err
	case whole:
		log.Print("there is a cluster")
		return nil
	}
	if err := r.blank(ctx, nodes); err != nil {
		return err
	}
	if err := r.cli(ctx, append(append([]string{"--cluster", "create"}, nodes...), "--cluster-replicas", strconv.Itoa(replicas), "--cluster-yes")...); err != nil {
		return fmt.Errorf("create the cluster: %w", err)
	}
	return until(ctx, 500*time.Millisecond, func() error {
		whole, err := r.whole(ctx, nodes)
		if err == nil && !whole {
			err = errors.New("the cluster does not become whole")
		}
		return err
	})
}

func number(name string, least int) (int, error) {
	n, err := strconv.Atoi(os.Getenv(name))
	if err != nil || n < least {
		return 0, fmt.Errorf("%s is %q, and should be a number of at least %d", name, os.Getenv(name), least)
	}
	return n, nil
}

// whole reports whether all nodes are in a cluster that has all slots.
func (r *ring) whole(ctx context.Context, nodes []string) (bool, error) {
	for _, addr := range nodes {
		c, err := r.clusterInfo(ctx, addr)
		if err != nil {
			return false, err
		}
		if c["cluster_slots_assigned"] != strconv.Itoa(slots) || c["cluster_state"] != "ok" {
			return false, nil
		}
	}
	return true, nil
}

// blank undoes what is left of an attempt that was interrupted. It touches no
// node that has keys.
func (r *ring) blank(ctx context.Context, nodes []string) error {
	for _, addr := range nodes {
		keys, err := r.do(ctx, addr, "DBSIZE").Int()
		if err != nil {
			return err
		}
		if keys > 0 {
			return fmt.Errorf("%s has %d keys, and its cluster is not whole: look at it with redis-cli --cluster check", addr, keys)
		}
	}
	for _, addr := range nodes {
		if err := r.do(ctx, addr, "CLUSTER", "RESET", "HARD").Err(); err != nil {
			return err
		}
	}
	return nil
}

func (r *ring) cli(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "redis-cli", args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if r.password != "" {
		cmd.Env = append(os.Environ(), "REDISCLI_AUTH="+r.password)
	}
	return cmd.Run()
}

// rebalance gives every master its share of the slots. If there are fewer than
// MASTERS, replicas of masters that have several become masters first.
func rebalance(ctx context.Context, r *ring) error {
	ctx, cancel := context.WithTimeout(ctx, 6*time.Hour)
	defer cancel()
	at, err := r.address(ctx, 0)
	if err != nil {
		return err
	}
	if os.Getenv("MASTERS") != "" {
		want, err := number("MASTERS", 3)
		if err != nil {
			return err
		}
		if err := r.promote(ctx, at, want); err != nil {
			return err
		}
	}
	if err := r.cli(ctx, "--cluster", "rebalance", at, "--cluster-use-empty-masters"); err != nil {
		return err
	}
	return r.spread(ctx, at)
}

// promote makes masters of replicas until there are so many.
func (r *ring) promote(ctx context.Context, at string, want int) error {
	for {
		all, err := r.members(ctx, at)
		if err != nil {
			return err
		}
		masters := 0
		for _, m := range all {
			if m.master && !m.failed {
				masters++
			}
		}
		if masters >= want {
			return nil
		}
		spare := r.spare(all)
		if spare == nil {
			return fmt.Errorf("there are %d masters, and no replica can be spared: each master is to keep one; install more nodes first", masters)
		}
		log.Printf("%s becomes a master", spare.addr)
		addr := reach(*spare, at)
		// A replica that is reset is an empty master that knows nobody.
		for _, m := range all {
			if m.id != spare.id && !m.failed {
				if err := r.do(ctx, reach(m, at), "CLUSTER", "FORGET", spare.id).Err(); err != nil {
					return err
				}
			}
		}
		if err := r.do(ctx, addr, "CLUSTER", "RESET", "HARD").Err(); err != nil {
			return err
		}
		via := all[slices.IndexFunc(all, func(m member) bool { return m.master && !m.failed })]
		host, port, err := net.SplitHostPort(reach(via, at))
		if err != nil {
			return err
		}
		if err := r.do(ctx, addr, "CLUSTER", "MEET", host, port, via.bus).Err(); err != nil {
			return err
		}
		if err := until(ctx, 500*time.Millisecond, func() error {
			now, err := r.members(ctx, at)
			if err == nil && len(now) < len(all) {
				err = errors.New("it is not back")
			}
			return err
		}); err != nil {
			return err
		}
	}
}

// spare is a replica whose master has others.
func (r *ring) spare(all []member) *member {
	for i := range slices.Backward(all) {
		if m := &all[i]; m.of != "" && !m.failed && count(all, m.of) > 1 {
			return m
		}
	}
	return nil
}

// spread moves replicas from masters that have several to those that have none.
func (r *ring) spread(ctx context.Context, at string) error {
	for {
		all, err := r.members(ctx, at)
		if err != nil {
			return err
		}
		bare := slices.IndexFunc(all, func(m member) bool { return m.master && !m.failed && len(m.slots) > 0 && count(all, m.id) == 0 })
		spare := r.spare(all)
		if bare < 0 || spare == nil {
			return nil
		}
		if err := r.do(ctx, reach(*spare, at), "CLUSTER", "REPLICATE", all[bare].id).Err(); err != nil {
			return err
		}
		if err := until(ctx, 500*time.Millisecond, func() error {
			now, err := r.members(ctx, at)
			if err == nil && count(now, all[bare].id) == 0 {
				err = errors.New("the replica did not move")
			}
			return err
		}); err != nil {
			return err
		}
	}
}
