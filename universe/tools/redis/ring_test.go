package main

import (
	"testing"
)

const nodes = `aa 10.0.0.1:7000@17000,redis-0-node.x,shard-id=1 myself,master - 0 0 1 connected 0-5460 [77->-bb]
bb 10.0.0.2:7000@17000,redis-1-node.x master - 0 0 2 connected 5461-10922
cc 10.0.0.3:7000@17000,redis-2-node.x master,fail - 0 0 3 disconnected 10923-16383
dd 10.0.0.2:7001@17001,redis-3-node.x slave aa 0 0 1 connected
`

// TestMembers: who is there, and whom a new node replicates.
func TestMembers(t *testing.T) {
	all := parse(nodes)
	if len(all) != 4 || !all[0].myself || all[0].host != "redis-0-node.x" || all[0].bus != "17000" || len(all[0].slots) != 1 || !all[2].failed || all[3].of != "aa" {
		t.Errorf("read %+v", all)
	}
	if !formed(all) || formed(all[:1]) {
		t.Error("a cluster is several nodes with slots")
	}
	for _, c := range []struct{ host, want string }{
		{"10.0.0.9", "bb"}, // aa has a replica, cc is lost
		{"10.0.0.2", "bb"}, // rather on the same host than without a replica
	} {
		if got := fewest(all, c.host); got != c.want {
			t.Errorf("a node on %s replicates %s, want %s", c.host, got, c.want)
		}
	}
	more := append(all, parse("ee 10.0.0.3:7001@17001,redis-4-node.x slave bb 0 0 1 connected\n")...)
	if got := fewest(more, "10.0.0.1"); got != "bb" {
		t.Errorf("replicates %s, which is on its own host", got)
	}
}
