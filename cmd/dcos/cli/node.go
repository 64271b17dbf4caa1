package cli

import (
	"cmp"
	"context"
	"net"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"dcos.example/dcos/cmd/dcos/client"
	"dcos.example/dcos/cmd/dcos/console"
	"dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/master"
)

func (a *app) nodeCmd() *cobra.Command {
	return console.Group("node", "Show the hosts of the cluster", a.nodeList())
}

// node is one host of a listing.
type node struct {
	Hostname string `json:"hostname"`
	IP       string `json:"ip"`
	ID       string `json:"id"`
	Type     string `json:"type"`
	Status   string `json:"status"`
	Region   string `json:"region,omitempty"`
	Zone     string `json:"zone,omitempty"`
}

func (a *app) nodeList() *cobra.Command {
	var asJSON bool
	cmd := console.Command("list", "List masters and agents", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		cl, err := a.Connect()
		if err != nil {
			return err
		}
		nodes, err := listNodes(ctx, cl)
		if err != nil {
			return err
		}
		if asJSON {
			return a.JSON(nodes)
		}
		var rows [][]string
		for _, n := range nodes {
			rows = append(rows, []string{n.Hostname, console.OrDash(n.IP), console.OrDash(n.ID), n.Type, n.Status, console.OrDash(n.Region), console.OrDash(n.Zone)})
		}
		a.Table([]string{"HOSTNAME", "IP", "ID", "TYPE", "STATUS", "REGION", "ZONE"}, rows)
		return nil
	})
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func listNodes(ctx context.Context, cl *client.Client) ([]node, error) {
	const op = "list nodes"
	agents, err := cl.Master(ctx, op, &master.Call{Type: master.Call_GET_AGENTS.Enum()})
	if err != nil {
		return nil, err
	}
	leader, err := cl.Master(ctx, op, &master.Call{Type: master.Call_GET_MASTER.Enum()})
	if err != nil {
		return nil, err
	}
	var hosts []listedHost
	if err := cl.Get(ctx, op, "/net/v1/nodes", &hosts); err != nil {
		return nil, err
	}
	return nodesOf(agents.GetGetAgents(), leader.GetGetMaster().GetMasterInfo(), hosts), nil
}

// listedHost is a master or an agent as the gateway lists them.
type listedHost struct {
	IP       string `json:"private_ip"`
	Hostname string `json:"hostname"`
}

// nodesOf puts together what the leading master and the gateway know. Hosts
// that are no agents are masters. After a fail-over agents come back one by
// one; until then the master has them only from its registry, and the gateway
// still from the last leader.
func nodesOf(agents *master.Response_GetAgents, leader *mesos.MasterInfo, hosts []listedHost) []node {
	nodes := []node{}
	isAgent := map[string]bool{} // by address and by host name
	for _, ag := range agents.GetAgents() {
		n := agentNode(ag)
		isAgent[n.IP] = true
		nodes = append(nodes, n)
	}
	for _, info := range agents.GetRecoveredAgents() {
		n := agentNode(&master.Response_GetAgents_Agent{AgentInfo: info, TotalResources: info.GetResources()})
		n.IP, n.Status = "", "RECOVERING"
		isAgent[n.Hostname] = true
		for _, h := range hosts {
			if h.Hostname == n.Hostname {
				n.IP = h.IP
			}
		}
		nodes = append(nodes, n)
	}
	for _, h := range hosts {
		if isAgent[h.IP] || isAgent[h.Hostname] {
			continue
		}
		n := node{Hostname: h.Hostname, IP: h.IP, Type: "master", Status: "JOINED"}
		if h.IP == leader.GetAddress().GetIp() {
			n.Type = "master (leader)"
			n.ID = leader.GetId()
		}
		nodes = append(nodes, n)
	}
	slices.SortFunc(nodes, func(a, b node) int {
		return cmp.Or(-cmp.Compare(a.Type[:1], b.Type[:1]), cmp.Compare(a.Hostname, b.Hostname))
	})
	return nodes
}

func agentNode(ag *master.Response_GetAgents_Agent) node {
	info := ag.GetAgentInfo()
	n := node{Hostname: info.GetHostname(), IP: pidIP(ag.GetPid()), ID: info.GetId().GetValue(), Type: "agent (private)", Status: "ACTIVE"}
	n.Region, n.Zone = domain(info.GetDomain())
	public := func(r *mesos.Resource) bool {
		//lint:ignore SA1019 a master may answer in the form before reservation refinement
		return r.GetRole() == "slave_public" || slices.ContainsFunc(r.GetReservations(), func(res *mesos.Resource_ReservationInfo) bool { return res.GetRole() == "slave_public" })
	}
	attribute := func(at *mesos.Attribute) bool {
		return at.GetName() == "public_ip" && at.GetText().GetValue() == "true"
	}
	if slices.ContainsFunc(ag.GetTotalResources(), public) || slices.ContainsFunc(info.GetAttributes(), attribute) {
		n.Type = "agent (public)"
	}
	switch {
	case ag.GetDrainInfo() != nil:
		n.Status = ag.GetDrainInfo().GetState().String()
	case ag.GetDeactivated():
		n.Status = "DEACTIVATED"
	case !ag.GetActive():
		n.Status = "DISCONNECTED"
	}
	return n
}

// pidIP reads the address of "slave(1)@10.0.0.1:5051".
func pidIP(pid string) string {
	_, at, _ := strings.Cut(pid, "@")
	host, _, err := net.SplitHostPort(at)
	if err != nil {
		return at
	}
	return host
}

func domain(d *mesos.DomainInfo) (region, zone string) {
	return d.GetFaultDomain().GetRegion().GetName(), d.GetFaultDomain().GetZone().GetName()
}
