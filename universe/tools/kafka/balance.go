package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"dcos.example/dcos/universe/tools/kafka/reassign"
)

// batch is how many partitions move at once, so that clients still get their
// share of the disks and the network.
const batch = 20

// balance spreads partitions and waits until they are where they belong.
func balance(ctx context.Context, e environment) func(*kadm.Client) error {
	return func(c *kadm.Client) error {
		m, err := c.Metadata(ctx)
		if err != nil {
			return fmt.Errorf("ask for the partitions: %w", err)
		}
		brokers, err := remaining(m, e.without)
		if err != nil {
			return err
		}
		changed, err := reassign.Plan(partitions(m), brokers)
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "%d partitions move, to brokers %v\n", len(changed), brokers)
		for part := range slices.Chunk(changed, batch) {
			if err := move(ctx, c, part); err != nil {
				return err
			}
		}
		// Leaders follow by themselves after some minutes; this is sooner. None
		// to elect is no error.
		results, err := c.ElectLeaders(ctx, kadm.ElectPreferredReplica, nil)
		if err != nil {
			return fmt.Errorf("elect leaders: %w", err)
		}
		fmt.Fprintf(os.Stderr, "done; leaders looked at in %d topics\n", len(results))
		return nil
	}
}

// remaining are the brokers that serve, without those whose numbers are listed.
func remaining(m kadm.Metadata, without string) ([]int32, error) {
	serve := map[int32]bool{}
	for _, b := range m.Brokers {
		serve[b.NodeID] = true
	}
	for _, text := range strings.FieldsFunc(without, func(r rune) bool { return r == ',' || r == ' ' }) {
		id, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("WITHOUT=%q: %q is no number of a broker", without, text)
		}
		delete(serve, int32(id))
	}
	return slices.Sorted(maps.Keys(serve)), nil
}

func partitions(m kadm.Metadata) []reassign.Partition {
	var all []reassign.Partition
	for _, t := range m.Topics.Sorted() {
		for _, p := range t.Partitions.Sorted() {
			all = append(all, reassign.Partition{Topic: p.Topic, ID: p.Partition, Replicas: p.Replicas})
		}
	}
	return all
}

// move has partitions moved and waits for the end of it.
func move(ctx context.Context, c *kadm.Client, part []reassign.Partition) error {
	var req kadm.AlterPartitionAssignmentsReq
	set := kadm.TopicsSet{}
	for _, p := range part {
		req.Assign(p.Topic, p.ID, p.Replicas)
		set.Add(p.Topic, p.ID)
	}
	answers, err := c.AlterPartitionAssignments(ctx, req)
	if err == nil {
		err = answers.Error()
	}
	if err != nil {
		return fmt.Errorf("reassign partitions: %w", err)
	}
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		left, err := c.ListPartitionReassignments(ctx, set)
		if err != nil {
			return fmt.Errorf("follow the reassignment: %w", err)
		}
		n := len(left.Sorted())
		if n == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
