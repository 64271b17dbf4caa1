// Package workload is the installer's view of what runs on a cluster, and its
// hand on agents: it reads a snapshot for package impact, and drains agents,
// all through the gateway as an administrator. Every question is bounded in
// time by its context; nothing is kept.
package workload

import (
	"cmp"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"dcos.example/dcos/installer/impact"
	"dcos.example/dcos/runtime/fault"
)

// asker is the cluster's gateway.
type asker interface {
	JSON(ctx context.Context, method, path string, in, out any) error
}

// Cluster is a running cluster.
type Cluster struct{ gateway asker }

// New returns the cluster behind the gateway.
func New(g asker) *Cluster { return &Cluster{g} }

// Agent is one agent as the master has it.
type Agent struct {
	ID         string
	Address    string // of its host
	Hostname   string
	Attributes map[string]string
	Release    string
	Public     bool
	Connected  bool // as far as can be told: an agent that is deactivated is taken to be
	State      string
	Drain      *Drain
	Total      impact.Resources
	Used       impact.Resources
	Volumes    []impact.Volume // of a Snapshot only
	Tasks      int             // that run or are about to
}

// States of an agent.
const (
	Active       = "active"
	Deactivated  = "deactivated"
	Draining     = "draining"
	Drained      = "drained"
	Disconnected = "disconnected"
)

// Drain is an agent's drain.
type Drain struct {
	Since    time.Time
	MaxGrace *time.Duration
	MarkGone bool
}

// state is what is read of the master's /state, or /state-summary, which counts
// tasks instead of listing them.
type state struct {
	Slaves []struct {
		ID          string            `json:"id"`
		Hostname    string            `json:"hostname"`
		PID         string            `json:"pid"`
		Version     string            `json:"version"`
		Active      bool              `json:"active"`
		Deactivated bool              `json:"deactivated"`
		Attributes  map[string]any    `json:"attributes"`
		Resources   map[string]any    `json:"resources"`
		Used        map[string]any    `json:"used_resources"`
		Reserved    map[string]any    `json:"reserved_resources"`
		Full        map[string][]item `json:"reserved_resources_full"`
		Staging     int               `json:"TASK_STAGING"`
		Starting    int               `json:"TASK_STARTING"`
		Running     int               `json:"TASK_RUNNING"`
		Killing     int               `json:"TASK_KILLING"`
		Start       int64             `json:"estimated_drain_start_time_seconds"`
		DrainInfo   *struct {
			State  string `json:"state"`
			Config struct {
				MaxGrace *struct {
					Nanoseconds int64 `json:"nanoseconds"`
				} `json:"max_grace_period"`
				MarkGone bool `json:"mark_gone"`
			} `json:"config"`
		} `json:"drain_info"`
	} `json:"slaves"`
	Frameworks []struct {
		ID    string `json:"id"`
		Name  string `json:"name"`
		Tasks []struct {
			ID        string         `json:"id"`
			Slave     string         `json:"slave_id"`
			State     string         `json:"state"`
			Resources map[string]any `json:"resources"`
		} `json:"tasks"`
	} `json:"frameworks"`
}

type item struct {
	Role   string `json:"role"`
	Scalar struct {
		Value float64 `json:"value"`
	} `json:"scalar"`
	Disk struct {
		Persistence struct {
			ID string `json:"id"`
		} `json:"persistence"`
	} `json:"disk"`
}

const (
	masterPath       = "/mesos"
	orchestratorPath = "/service/marathon"
	membersPath      = "/system/v1/members"
	// publicRole is the role that public agents keep their resources for.
	publicRole = "slave_public"
)

// Agents lists the registered agents, by id. It costs the master one pass over
// its tasks.
func (c *Cluster) Agents(ctx context.Context) ([]Agent, error) {
	var s state
	if err := c.gateway.JSON(ctx, http.MethodGet, masterPath+"/state-summary", nil, &s); err != nil {
		return nil, err
	}
	return s.agents(), nil
}

// AgentAt returns the agent of the host with that address. There is none:
// fault.NotFound.
func (c *Cluster) AgentAt(ctx context.Context, address string) (Agent, error) {
	all, err := c.Agents(ctx)
	if err != nil {
		return Agent{}, err
	}
	for _, a := range all {
		if a.Address == address {
			return a, nil
		}
	}
	return Agent{}, fault.Newf("find the agent at "+address, fault.NotFound, "the cluster has no agent there")
}

func (s state) agents() []Agent {
	out := make([]Agent, 0, len(s.Slaves))
	for _, x := range s.Slaves {
		a := Agent{
			ID: x.ID, Hostname: x.Hostname, Release: x.Version, Connected: x.Active || x.Deactivated, State: Active,
			Tasks: x.Staging + x.Starting + x.Running + x.Killing,
			Total: amounts(x.Resources), Used: amounts(x.Used), Attributes: map[string]string{},
		}
		_, at, _ := strings.Cut(x.PID, "@")
		if host, _, err := net.SplitHostPort(at); err == nil {
			a.Address = host
		}
		for k, v := range x.Attributes {
			if text, ok := v.(string); ok {
				a.Attributes[k] = text
			} else if b, err := json.Marshal(v); err == nil {
				a.Attributes[k] = string(b)
			}
		}
		_, a.Public = x.Reserved[publicRole]
		for _, items := range x.Full {
			for _, it := range items {
				if id := it.Disk.Persistence.ID; id != "" {
					a.Volumes = append(a.Volumes, impact.Volume{ID: id, Agent: x.ID, Role: it.Role, MiB: it.Scalar.Value})
				}
			}
		}
		switch {
		case x.DrainInfo != nil:
			a.State = strings.ToLower(x.DrainInfo.State)
			a.Drain = &Drain{Since: time.Unix(x.Start, 0), MarkGone: x.DrainInfo.Config.MarkGone}
			if g := x.DrainInfo.Config.MaxGrace; g != nil {
				a.Drain.MaxGrace = new(time.Duration(g.Nanoseconds))
			}
		case x.Deactivated:
			a.State = Deactivated
		case !x.Active:
			a.State = Disconnected
		}
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b Agent) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// amounts reads the scalars of resources as the master writes them.
func amounts(m map[string]any) impact.Resources {
	out := impact.Resources{}
	for _, n := range []string{"cpus", "gpus", "mem", "disk"} {
		if v, ok := m[n].(float64); ok && v != 0 {
			out[n] = v
		}
	}
	return out
}

// app is what is read of an app.
type app struct {
	ID          string     `json:"id"`
	Instances   int        `json:"instances"`
	Constraints [][]string `json:"constraints"`
	Grace       int        `json:"taskKillGracePeriodSeconds"`
	Strategy    struct {
		Minimum float64 `json:"minimumHealthCapacity"`
		Over    float64 `json:"maximumOverCapacity"`
	} `json:"upgradeStrategy"`
	Checks []json.RawMessage `json:"healthChecks"`
	Tasks  []struct {
		ID      string    `json:"id"`
		State   string    `json:"state"`
		Staged  time.Time `json:"stagedAt"`
		Started time.Time `json:"startedAt"`
		Health  []struct {
			Alive        bool      `json:"alive"`
			FirstSuccess time.Time `json:"firstSuccess"`
		} `json:"healthCheckResults"`
	} `json:"tasks"`
}

// Snapshot reads what runs. hosts names the hosts by their addresses.
func (c *Cluster) Snapshot(ctx context.Context, hosts map[string]string) (impact.Snapshot, error) {
	var out impact.Snapshot
	var s state
	if err := c.gateway.JSON(ctx, http.MethodGet, masterPath+"/state", nil, &s); err != nil {
		return out, err
	}
	var apps struct {
		Apps []app `json:"apps"`
	}
	if err := c.gateway.JSON(ctx, http.MethodGet, orchestratorPath+"/v2/apps?embed=apps.tasks", nil, &apps); err != nil {
		return out, err
	}
	masters, err := c.Masters(ctx)
	if err != nil {
		return out, err
	}
	if masters != nil {
		out.Members = []impact.Member{}
	}
	for _, m := range masters {
		out.Members = append(out.Members, impact.Member{Name: m.Name, Voter: m.Role == "voter", Healthy: m.Healthy})
	}
	for _, a := range s.agents() {
		out.Agents = append(out.Agents, impact.Agent{
			ID: a.ID, Host: hosts[a.Address], Address: a.Address, Hostname: a.Hostname, Attributes: a.Attributes, Public: a.Public,
			Offered: a.State == Active, Total: a.Total, Used: a.Used,
		})
		out.Volumes = append(out.Volumes, a.Volumes...)
	}
	appOf, ready := map[string]string{}, map[string]bool{}
	for _, a := range apps.Apps {
		out.Apps = append(out.Apps, a.view())
		for _, t := range a.Tasks {
			appOf[t.ID] = a.ID
			ready[t.ID] = t.State == "TASK_RUNNING" && (len(a.Checks) == 0 || len(t.Health) > 0 && t.Health[0].Alive)
		}
	}
	for _, f := range s.Frameworks {
		for _, t := range f.Tasks {
			if ended(t.State) {
				continue
			}
			x := impact.Task{ID: t.ID, Agent: t.Slave, Framework: f.Name, App: appOf[t.ID], Resources: amounts(t.Resources)}
			x.Ready = ready[t.ID] || x.App == "" && t.State == "TASK_RUNNING"
			out.Tasks = append(out.Tasks, x)
		}
	}
	return out, nil
}

// ended reports whether a task of the master's list only waits to be
// acknowledged.
func ended(state string) bool {
	switch state {
	case "TASK_STAGING", "TASK_STARTING", "TASK_RUNNING", "TASK_KILLING":
		return false
	}
	return true
}

func (a app) view() impact.App {
	v := impact.App{ID: a.ID, Instances: a.Instances, MinimumShare: a.Strategy.Minimum, OverShare: a.Strategy.Over, Grace: time.Duration(a.Grace) * time.Second}
	for _, c := range a.Constraints {
		if len(c) >= 2 {
			k := impact.Constraint{Field: c[0], Operator: c[1]}
			if len(c) > 2 {
				k.Value = c[2]
			}
			v.Constraints = append(v.Constraints, k)
		}
	}
	var took []time.Duration
	for _, t := range a.Tasks {
		up := t.Started
		if len(a.Checks) > 0 && len(t.Health) > 0 {
			up = t.Health[0].FirstSuccess
		}
		if !t.Staged.IsZero() && up.After(t.Staged) {
			took = append(took, up.Sub(t.Staged))
		}
	}
	if len(took) > 0 {
		slices.Sort(took)
		v.Startup = took[len(took)/2]
	}
	return v
}

// Master is one master as the ensemble has it.
type Master struct {
	Name, Address, Release string
	Role                   string // voter or learner
	Healthy, Leads         bool
}

// Masters lists the masters, nil if this cluster's release does not tell.
func (c *Cluster) Masters(ctx context.Context) ([]Master, error) {
	var doc struct {
		Leader  string `json:"leader"`
		Members []struct {
			Name    string `json:"name"`
			Addr    string `json:"addr"`
			Role    string `json:"role"`
			Healthy bool   `json:"healthy"`
			Version string `json:"version"`
		} `json:"members"`
	}
	err := c.gateway.JSON(ctx, http.MethodGet, membersPath, nil, &doc)
	if fault.Is(err, fault.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := []Master{}
	for _, m := range doc.Members {
		out = append(out, Master{Name: m.Name, Address: m.Addr, Release: m.Version, Role: m.Role, Healthy: m.Healthy, Leads: m.Name == doc.Leader})
	}
	return out, nil
}
