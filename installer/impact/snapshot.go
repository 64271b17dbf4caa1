package impact

import "time"

// Snapshot is what runs on a cluster at one moment, as far as it says.
type Snapshot struct {
	Agents  []Agent
	Tasks   []Task
	Apps    []App
	Volumes []Volume
	// Members are the masters; nil when the cluster does not tell.
	Members []Member
}

// Resources are amounts by name: cpus, gpus, mem (MiB), disk (MiB).
type Resources map[string]float64

// Agent is one agent that is registered.
type Agent struct {
	ID         string
	Host       string // name of the host in the plan; "" for one that is not in it
	Address    string
	Hostname   string
	Attributes map[string]string
	Public     bool // its resources are kept for public apps
	Offered    bool // connected, and neither deactivated nor draining
	Total      Resources
	Used       Resources
}

// Task is one task that has not ended.
type Task struct {
	ID        string
	Agent     string // id
	Framework string // name
	App       string // id of the app, "" for tasks of other frameworks
	Resources Resources
	Ready     bool // running, and healthy if that is checked
}

// App is one app of the orchestrator.
type App struct {
	ID           string
	Instances    int
	MinimumShare float64 // upgradeStrategy.minimumHealthCapacity
	OverShare    float64 // upgradeStrategy.maximumOverCapacity
	Constraints  []Constraint
	// Startup is how long its instances took from launch to ready; zero: not
	// known.
	Startup time.Duration
	Grace   time.Duration // that an instance has to stop
}

// Constraint is one placement rule of Marathon.
type Constraint struct{ Field, Operator, Value string }

// Volume is a persistent volume that a framework made on an agent.
type Volume struct {
	ID    string
	Agent string
	Role  string
	MiB   float64
}

// Member is one master in the ensemble.
type Member struct {
	Name    string
	Voter   bool
	Healthy bool
}
