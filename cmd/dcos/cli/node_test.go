package cli

import (
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/master"
)

func TestNodesAfterFailover(t *testing.T) {
	str := func(s string) *string { return &s }
	yes := true
	agent := func(id, hostname string) *mesos.AgentInfo {
		return &mesos.AgentInfo{Id: &mesos.AgentID{Value: str(id)}, Hostname: str(hostname)}
	}
	agents := &master.Response_GetAgents{
		Agents:          []*master.Response_GetAgents_Agent{{AgentInfo: agent("S1", "10.0.0.21"), Active: &yes, Pid: str("slave(1)@10.0.0.21:5051")}},
		RecoveredAgents: []*mesos.AgentInfo{agent("S2", "10.0.0.22"), agent("S3", "10.0.0.23")},
	}
	leader := &mesos.MasterInfo{Id: str("M"), Address: &mesos.Address{Ip: str("10.0.0.12")}}
	// The gateway still lists one of the two agents that have not come back.
	hosts := []listedHost{{"10.0.0.11", "m1"}, {"10.0.0.12", "m2"}, {"10.0.0.21", "10.0.0.21"}, {"10.0.0.22", "10.0.0.22"}}
	want := []node{
		{Hostname: "m1", IP: "10.0.0.11", Type: "master", Status: "JOINED"},
		{Hostname: "m2", IP: "10.0.0.12", ID: "M", Type: "master (leader)", Status: "JOINED"},
		{Hostname: "10.0.0.21", IP: "10.0.0.21", ID: "S1", Type: "agent (private)", Status: "ACTIVE"},
		{Hostname: "10.0.0.22", IP: "10.0.0.22", ID: "S2", Type: "agent (private)", Status: "RECOVERING"},
		{Hostname: "10.0.0.23", ID: "S3", Type: "agent (private)", Status: "RECOVERING"},
	}
	if diff := gocmp.Diff(want, nodesOf(agents, leader, hosts)); diff != "" {
		t.Errorf("nodes (-want +got):\n%s", diff)
	}
}
