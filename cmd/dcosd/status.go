package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/membership"
)

// statusTime bounds one look at this host.
const statusTime = 5 * time.Second

// hostStatus says what this host lacks to be part of its cluster, nil when it
// is: an agent is registered with the leading master; a master is a healthy
// voter, and its gateway accepts connections.
func hostStatus(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, statusTime)
	defer cancel()
	if _, err := os.Stat(config.MasterFile); err == nil {
		return masterStatus(ctx)
	}
	return agentStatus(ctx)
}

func masterStatus(ctx context.Context) error {
	const op = "look at this master"
	cfg, err := masterConfig()
	if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	s, err := loopback().Status(ctx, loopbackAddr)
	if err != nil {
		return fault.Newf(op, fault.Unavailable, "%v", err)
	}
	found := false
	for _, m := range s.Members {
		if m.Name != cfg.Host.Name {
			continue
		}
		found = true
		if m.Role != membership.Voter || !m.Healthy {
			return fault.Newf(op, fault.Unavailable, "it is a %s; %s", m.Role, m.Reason)
		}
	}
	if !found {
		return fault.Newf(op, fault.Unavailable, "it is not among the masters yet")
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(cfg.Host.Addr.String(), strconv.Itoa(config.PortGateway)))
	if err != nil {
		return fault.Newf(op, fault.Unavailable, "its gateway does not answer: %v", err)
	}
	return conn.Close()
}

func agentStatus(ctx context.Context) error {
	const op = "look at this agent"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/metrics/snapshot", config.PortAgent), nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fault.Newf(op, fault.Unavailable, "it does not answer: %v", err)
	}
	defer resp.Body.Close()
	var m map[string]float64
	if err := json.NewDecoder(resp.Body).Decode(&m); err != nil {
		return fault.Newf(op, fault.Unavailable, "its metrics cannot be read: %v", err)
	}
	if m["slave/registered"] != 1 {
		return fault.Newf(op, fault.Unavailable, "it is not registered with a master")
	}
	return nil
}
