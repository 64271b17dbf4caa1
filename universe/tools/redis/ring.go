package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

const slots = 16384

// near is how many nodes, from the first on, are asked for a cluster to join.
const near = 16

// ring is the cluster as one node sees it.
type ring struct {
	self, name string // the node's address on its own host, and what it announces itself as
	password   string
	domain     string   // in which nodes have their service records
	peers      []string // addresses, in place of service records
	clients    map[string]*redis.Client
}

func newRing(env func(string) string) *ring {
	domain, _ := strings.CutSuffix(env("FRAMEWORK_HOST"), ".autoip.dcos.thisdcos.directory")
	r := &ring{
		self: "127.0.0.1:" + env("PORT_REDIS"), password: env("REDIS_PASSWORD"), domain: domain,
		name: env("TASK_NAME") + "." + env("FRAMEWORK_HOST"), clients: map[string]*redis.Client{},
	}
	if env("PORT_REDIS") == "" { // a task beside the node's
		r.self = "" // found by its service record, when it is needed
	}
	if p := env("REDIS_PEERS"); p != "" {
		r.peers = strings.Split(p, ",")
	}
	return r
}

func (r *ring) close() {
	for _, c := range r.clients {
		_ = c.Close() // nothing is to be written
	}
}

// address of a node, from its service record.
func (r *ring) address(ctx context.Context, index int) (string, error) {
	if r.peers != nil {
		if index >= len(r.peers) {
			return "", errors.New("there is no such node")
		}
		return r.peers[index], nil
	}
	_, records, err := net.DefaultResolver.LookupSRV(ctx, "", "", fmt.Sprintf("_redis._redis-%d-node._tcp.%s.mesos.", index, r.domain))
	if err != nil {
		return "", err
	}
	if len(records) != 1 {
		return "", fmt.Errorf("node %d has %d addresses", index, len(records))
	}
	ips, err := net.DefaultResolver.LookupIP(ctx, "ip4", records[0].Target)
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(ips[0].String(), fmt.Sprint(records[0].Port)), nil
}

func (r *ring) do(ctx context.Context, addr string, args ...any) *redis.Cmd {
	c := r.clients[addr]
	if c == nil {
		c = redis.NewClient(&redis.Options{
			Addr: addr, Password: r.password, Protocol: 2, DisableIdentity: true, MaxRetries: -1, PoolSize: 1,
			DialTimeout: time.Second, ReadTimeout: 3 * time.Second,
		})
		r.clients[addr] = c
	}
	return c.Do(ctx, args...)
}

func (r *ring) info(ctx context.Context, addr, section string) (map[string]string, error) {
	text, err := r.do(ctx, addr, "INFO", section).Text()
	return fields(text, "\n", ":"), err
}

func (r *ring) clusterInfo(ctx context.Context, addr string) (map[string]string, error) {
	text, err := r.do(ctx, addr, "CLUSTER", "INFO").Text()
	return fields(text, "\n", ":"), err
}

// member is a node as another one sees it.
type member struct {
	id, addr, bus, host string
	myself, master      bool
	failed, linked      bool
	of                  string // a replica's master
	slots               []string
}

// parse reads CLUSTER NODES.
func parse(text string) []member {
	var all []member
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 8 {
			continue
		}
		at, host, _ := strings.Cut(f[1], ",")
		host, _, _ = strings.Cut(host, ",")
		addr, bus, _ := strings.Cut(at, "@")
		flags := strings.Split(f[2], ",")
		m := member{
			id: f[0], addr: addr, bus: bus, host: host, linked: f[7] == "connected",
			myself: slices.Contains(flags, "myself"), master: slices.Contains(flags, "master"),
			failed: slices.Contains(flags, "fail") || slices.Contains(flags, "noaddr"),
		}
		if f[3] != "-" {
			m.of = f[3]
		}
		for _, s := range f[8:] {
			if !strings.HasPrefix(s, "[") { // slots that are being moved
				m.slots = append(m.slots, s)
			}
		}
		all = append(all, m)
	}
	return all
}

func (r *ring) members(ctx context.Context, addr string) ([]member, error) {
	text, err := r.do(ctx, addr, "CLUSTER", "NODES").Text()
	return parse(text), err
}

// formed reports whether these members are a cluster with keys to keep.
func formed(all []member) bool {
	return len(all) > 1 && slices.ContainsFunc(all, func(m member) bool { return len(m.slots) > 0 })
}

// joined reports whether the node knows of others.
func (r *ring) joined(ctx context.Context) bool {
	all, err := r.members(ctx, r.self)
	return err == nil && len(all) > 1
}

// missing returns the address of a node in a cluster that this one should be in
// and is not; "" if there is none.
func (r *ring) missing(ctx context.Context) (string, error) {
	own, err := r.members(ctx, r.self)
	if err != nil || len(own) != 1 || len(own[0].slots) > 0 {
		return "", err
	}
	for i := range near {
		addr, err := r.address(ctx, i)
		if err != nil {
			continue // it is not there, or on its way
		}
		all, err := r.members(ctx, addr)
		if err == nil && formed(all) && !slices.ContainsFunc(all, func(m member) bool { return m.id == own[0].id }) {
			return addr, nil
		}
	}
	return "", nil
}

// join makes this empty node one of the cluster that peer is in. What was there
// under its name is forgotten; if that was a master for whom nobody stood in,
// its slots are this node's from now on, and their keys are gone.
func (r *ring) join(ctx context.Context, peer string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	all, err := r.members(ctx, peer)
	if err != nil {
		return err
	}
	var vacant []string
	for _, m := range all {
		if m.host != r.name {
			continue
		}
		log.Printf("the cluster forgets %s, which was here before", m.id)
		vacant = append(vacant, m.slots...)
		for _, other := range all {
			if other.id == m.id || other.failed {
				continue
			}
			if err := r.do(ctx, reach(other, peer), "CLUSTER", "FORGET", m.id).Err(); err != nil && !strings.Contains(err.Error(), "Unknown node") {
				return fmt.Errorf("forget %s on %s: %w", m.id, other.addr, err)
			}
		}
	}
	all = slices.DeleteFunc(all, func(m member) bool { return m.host == r.name })
	var via member
	for _, m := range all {
		if m.myself {
			via = m
		}
	}
	host, port, err := net.SplitHostPort(reach(via, peer))
	if err != nil {
		return err
	}
	if err := r.do(ctx, r.self, "CLUSTER", "MEET", host, port, via.bus).Err(); err != nil {
		return fmt.Errorf("meet %s: %w", via.addr, err)
	}
	if err := until(ctx, 200*time.Millisecond, func() error {
		now, err := r.members(ctx, r.self)
		if err == nil && len(slices.DeleteFunc(now, func(m member) bool { return !m.linked })) < len(alive(all))+1 {
			err = errors.New("it does not reach all of the others")
		}
		return err
	}); err != nil {
		return err
	}
	if len(vacant) > 0 {
		return r.take(ctx, vacant)
	}
	master := fewest(all, host)
	log.Printf("joined the cluster of %s; %s is the master", peer, master)
	return r.do(ctx, r.self, "CLUSTER", "REPLICATE", master).Err()
}

func alive(all []member) []member {
	return slices.DeleteFunc(slices.Clone(all), func(m member) bool { return m.failed })
}

// reach is the address of a member; its own may be unknown to it.
func reach(m member, asked string) string {
	if m.myself {
		return asked
	}
	return m.addr
}

// take makes slots without a master this node's.
func (r *ring) take(ctx context.Context, vacant []string) error {
	log.Printf("nobody stood in for what was here: the keys of slots %s are gone", strings.Join(vacant, " "))
	args := []any{"CLUSTER", "ADDSLOTSRANGE"}
	for _, s := range vacant {
		from, to, ok := strings.Cut(s, "-")
		if !ok {
			to = from
		}
		args = append(args, from, to)
	}
	if err := r.do(ctx, r.self, args...).Err(); err != nil {
		return err
	}
	return r.do(ctx, r.self, "CLUSTER", "BUMPEPOCH").Err()
}

// fewest is the id of the master with the fewest replicas, if possible on
// another host than ours.
func fewest(all []member, ours string) string {
	best, least := "", 0
	for _, m := range all {
		if !m.master || m.failed || len(m.slots) == 0 {
			continue
		}
		n := 2 * count(all, m.id)
		if host, _, _ := strings.Cut(m.addr, ":"); host == ours {
			n++
		}
		if best == "" || n < least {
			best, least = m.id, n
		}
	}
	return best
}

// count is how many replicas a master has.
func count(all []member, master string) int {
	n := 0
	for _, m := range all {
		if m.of == master && !m.failed {
			n++
		}
	}
	return n
}
