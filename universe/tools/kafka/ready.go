package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// patience is how long one answer may take.
const patience = 8 * time.Second

// ready fails unless the cluster counts this broker among its own and no
// partition waits for it to catch up.
func ready(ctx context.Context, e environment) func(*kadm.Client) error {
	return func(c *kadm.Client) error {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		m, err := c.Metadata(ctx)
		if err != nil {
			return fmt.Errorf("ask broker %d: %w", e.index, err)
		}
		return judge(m, e.index)
	}
}

func judge(m kadm.Metadata, self int32) error {
	if !slices.ContainsFunc(m.Brokers, func(b kadm.BrokerDetail) bool { return b.NodeID == self }) {
		return fmt.Errorf("broker %d is not yet among those that serve", self)
	}
	behind, example := 0, ""
	for _, t := range m.Topics.Sorted() {
		for _, p := range t.Partitions.Sorted() {
			if slices.Contains(p.Replicas, self) && !slices.Contains(p.ISR, self) {
				behind++
				example = fmt.Sprintf("%s-%d", p.Topic, p.Partition)
			}
		}
	}
	if behind > 0 {
		return fmt.Errorf("broker %d has not caught up with %d partitions, among them %s", self, behind, example)
	}
	return nil
}

// exists succeeds when a controller that is not this one accepts connections.
func exists(ctx context.Context, e environment) error {
	port := e.controllerPort
	for i := range e.controllers {
		if int32(i) == e.index {
			continue
		}
		d := net.Dialer{Timeout: 2 * time.Second}
		conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(fmt.Sprintf("kafka-%d-broker.%s", i, e.host), port))
		if err == nil {
			_ = conn.Close()
			return nil
		}
	}
	return errors.New("no other controller answers")
}
