package feed

import (
	"iter"
	"net/netip"

	"dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/task"
)

// View is what one moment of the cluster looked like. It never changes; what
// its methods return must not be changed either. Iteration is in no order.
type View struct {
	revision   uint64
	leader     string
	leaderAddr netip.Addr
	agents     *shards[task.AgentID, *Agent]
	frameworks *shards[task.FrameworkID, *Framework]
	tasks      *shards[TaskKey, *Task]
}

// TaskKey names a task in the cluster: ids are unique per framework only.
type TaskKey struct {
	Framework task.FrameworkID
	Task      task.ID
}

// Agent is a registered agent.
type Agent struct {
	ID         task.AgentID
	Hostname   string
	Addr       netip.Addr // the address that other hosts use; invalid when the master did not say
	Port       uint16     // of the agent's own API
	PID        string     // as Mesos spells it, "slave(1)@ip:port"
	Active     bool       // connected and not deactivated
	Attributes []*mesos.Attribute
	// Roles are the roles that agent resources are reserved for, sorted;
	// slave_public marks a public agent.
	Roles  []string
	Domain *mesos.DomainInfo
}

// Framework is a framework that the master knows.
type Framework struct {
	ID     task.FrameworkID
	Name   string
	WebUI  string
	Host   string // as the framework wrote it: a name or an address
	Active bool
}

// Health is what the last status said of a task's health.
type Health uint8

const (
	HealthUnknown Health = iota
	Healthy
	Unhealthy
)

// Task is a task that is not terminal. Unreachable ones are included.
type Task struct {
	TaskKey
	Name          string
	FrameworkName string
	Executor      task.ExecutorID
	Agent         task.AgentID
	State         mesos.TaskState
	Health        Health
	// Checked is set when the task has a health check, so that HealthUnknown
	// means "not healthy yet".
	Checked   bool
	Discovery *mesos.DiscoveryInfo
	Labels    []*mesos.Label
	// Addrs are the addresses of the task's own network; none when it shares
	// its host's.
	Addrs []netip.Addr
	// HostPorts are the ports that the task holds on its host, in order.
	HostPorts []uint16
	Mappings  []PortMapping
}

// PortMapping leads a port of the host to one of the container.
type PortMapping struct {
	Host, Container uint16
	Protocol        string // "tcp" or "udp"
}

// Serving reports whether t should get traffic: it runs, no check says that it
// is unhealthy, and if it is checked at all a check has passed.
func (t *Task) Serving() bool {
	return t.State == task.Running && t.Health != Unhealthy && (!t.Checked || t.Health == Healthy)
}

// Revision grows with every view of one feed; 0 is the empty view before the
// first answer of a master.
func (v *View) Revision() uint64 { return v.revision }

// Leader returns the base URL of the master that this view comes from, and its
// address when the URL names one.
func (v *View) Leader() (string, netip.Addr) { return v.leader, v.leaderAddr }

// Agent returns an agent by id.
func (v *View) Agent(id task.AgentID) (*Agent, bool) { return v.agents.get(id) }

// Framework returns a framework by id.
func (v *View) Framework(id task.FrameworkID) (*Framework, bool) { return v.frameworks.get(id) }

// Task returns a task by key.
func (v *View) Task(k TaskKey) (*Task, bool) { return v.tasks.get(k) }

// Agents returns all agents.
func (v *View) Agents() iter.Seq[*Agent] { return values(v.agents) }

// Frameworks returns all frameworks.
func (v *View) Frameworks() iter.Seq[*Framework] { return values(v.frameworks) }

// Tasks returns all tasks that are not terminal.
func (v *View) Tasks() iter.Seq[*Task] { return values(v.tasks) }

// Counts returns how many agents, frameworks and tasks the view has.
func (v *View) Counts() (agents, frameworks, tasks int) {
	return v.agents.n, v.frameworks.n, v.tasks.n
}

func values[K comparable, V any](s *shards[K, V]) iter.Seq[V] {
	return func(yield func(V) bool) {
		for _, v := range s.all() {
			if !yield(v) {
				return
			}
		}
	}
}
