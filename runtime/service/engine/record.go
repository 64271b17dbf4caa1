package engine

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/service"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/placement"
	"dcos.example/dcos/runtime/service/plan"
	"dcos.example/dcos/runtime/service/spec"
	"dcos.example/dcos/runtime/state"
	"dcos.example/dcos/runtime/task"
)

// The kinds of records. All but the first have ids that begin with the
// service's name and an "@", which no name holds.
const (
	kindService state.Kind = "service"        // what is wanted
	kindStatus  state.Kind = "service-status" // how far it is
	kindConfig  state.Kind = "service-config" // by id: specs, the target and those that instances still have
	kindPod     state.Kind = "service-pod"    // by instance: its place, its volumes, its tasks
	kindPlan    state.Kind = "service-plan"   // by plan: what people told it, and how far it is if they started it
	kindClaim   state.Kind = "service-claim"  // by reservation: what is still to be given back
)

// Kinds are all kinds that the operator writes.
func Kinds() []state.Kind {
	return []state.Kind{kindService, kindStatus, kindConfig, kindPod, kindPlan, kindClaim}
}

// keptConfigs is how many configurations are kept though no instance has them.
const keptConfigs = 10

type serviceRecord struct {
	Target    string    `json:"target"` // id of a configuration
	Created   time.Time `json:"created"`
	Uninstall bool      `json:"uninstall,omitempty"`
	Force     bool      `json:"force,omitempty"` // give up what cannot be reached
}

type statusRecord struct {
	Framework string    `json:"framework,omitempty"`
	First     string    `json:"first,omitempty"`    // the first configuration that was deployed whole
	Deployed  string    `json:"deployed,omitempty"` // and the last
	Replaced  time.Time `json:"replaced,omitzero"`  // when an instance was last replaced by itself
}

// configRecord is one configuration. The values of secrets are sealed.
type configRecord struct {
	ID      string            `json:"id"`
	At      time.Time         `json:"at"`
	Spec    *service.Spec     `json:"spec"`
	Package service.Package   `json:"package"`
	Secrets map[string][]byte `json:"secrets,omitempty"`
	// Prints tell two values of a secret apart.
	Prints map[string]string `json:"prints,omitempty"`
}

// podRecord is one instance.
type podRecord struct {
	Config string `json:"config"`         // it is at, or on its way to
	Step   string `json:"step,omitempty"` // id of the step of deploy that is being worked on
	// Done are steps of deploy that are complete, each with what it was
	// complete for.
	Done map[string]string `json:"done,omitempty"`
	// Agent is where it has its place, "" before.
	Agent       string                  `json:"agent,omitempty"`
	Place       placement.Place         `json:"place,omitzero"`
	Address     string                  `json:"address,omitempty"`
	Away        time.Time               `json:"away,omitzero"` // since when the agent cannot be reached
	Reservation string                  `json:"reservation"`
	Volumes     map[string]volumeRecord `json:"volumes,omitempty"`
	Ports       map[string]int          `json:"ports,omitempty"` // by task and name
	Tasks       map[string]*taskRecord  `json:"tasks,omitempty"`
	Paused      map[string]bool         `json:"paused,omitempty"` // tasks
	// Replace is why it is to be given up, with its volumes.
	Replace string `json:"replace,omitempty"`
	// Anew: it is made again elsewhere, though deployed before.
	Anew         bool `json:"anew,omitempty"`
	Decommission bool `json:"decommission,omitempty"`
	// Replaced is the address that it had before it was made anew, where it
	// last was deployed whole.
	Replaced string `json:"replaced,omitempty"`
}

type volumeRecord struct {
	ID string `json:"id"`
	// Made: a task has run with it.
	Made bool `json:"made,omitempty"`
}

// taskRecord is the latest run of one task.
type taskRecord struct {
	ID      string    `json:"id"`
	Config  string    `json:"config"`          // it was launched with
	State   string    `json:"state,omitempty"` // TASK_*; "" until it is heard of
	Since   time.Time `json:"since"`
	Healthy *bool     `json:"healthy,omitempty"`
	Token   string    `json:"token"`             // what it reaches its goal for
	Reached string    `json:"reached,omitempty"` // what a run of the task last did for
	Stop    string    `json:"stop,omitempty"`    // why it is to end
	Idle    bool      `json:"idle,omitempty"`    // launched as paused
	// Failures in a row, and when it may be launched again.
	Failures int       `json:"failures,omitempty"`
	Retry    time.Time `json:"retry,omitzero"`
	Message  string    `json:"message,omitempty"`
	Address  string    `json:"address,omitempty"`
}

// planRecord is what people told a plan, and how far one is that they started.
type planRecord struct {
	plan.Control
	For string            `json:"for,omitempty"` // deploy: the configuration it was told for
	Run string            `json:"run,omitempty"` // id of the run, "" if it is not started
	Env map[string]string `json:"env,omitempty"`
	// Begun and Done are its steps.
	Begun map[string]bool `json:"begun,omitempty"`
	Done  map[string]bool `json:"done,omitempty"`
}

// claimRecord is a reservation that is to be given back.
type claimRecord struct {
	Pod          string    `json:"pod"`
	Agent        string    `json:"agent"`
	Host         string    `json:"host"`
	Task         string    `json:"task,omitempty"` // a task id to ask the master by
	Since        time.Time `json:"since"`
	Decommission bool      `json:"decommission,omitempty"`
}

// state is the task's state in Mesos.
func (t *taskRecord) state() mesos.TaskState {
	s, ok := mesos.TaskState_value[t.State]
	if !ok {
		return task.Staging
	}
	return mesos.TaskState(s)
}

// live reports whether the task runs or may run where it can be reached.
func (t *taskRecord) live() bool {
	return t != nil && t.ID != "" && !task.Terminal(t.state()) && t.state() != task.Unreachable
}

// away reports whether the task is on an agent that cannot be reached.
func (t *taskRecord) away() bool { return t != nil && t.ID != "" && t.state() == task.Unreachable }

// Saved is what is stored of one service.
type Saved struct {
	Name    string
	service serviceRecord
	status  statusRecord
	configs map[string]configRecord
	pods    map[plan.Instance]podRecord
	plans   map[string]planRecord
	claims  map[string]claimRecord
	revs    map[state.Key]state.Rev
}

// Load reads all services, by name. Its cost is that of all records, once per
// term.
func Load(ctx context.Context, store state.Backend) (map[string]*Saved, error) {
	all := map[string]*Saved{}
	services, _, err := state.NewTable[serviceRecord](store, kindService).List(ctx)
	if err != nil {
		return nil, err
	}
	for _, o := range services {
		all[o.ID] = newSaved(o.ID)
		all[o.ID].service = o.Spec
		all[o.ID].revs[state.Key{Kind: kindService, ID: o.ID}] = o.Rev
	}
	for _, part := range []func() error{
		func() error {
			return each(ctx, store, kindStatus, all, func(s *Saved, _ string, r statusRecord) { s.status = r })
		},
		func() error {
			return each(ctx, store, kindConfig, all, func(s *Saved, id string, r configRecord) { s.configs[id] = r })
		},
		func() error {
			return each(ctx, store, kindPod, all, func(s *Saved, id string, r podRecord) {
				if i, ok := plan.Parse(id); ok {
					s.pods[i] = r
				}
			})
		},
		func() error {
			return each(ctx, store, kindPlan, all, func(s *Saved, id string, r planRecord) { s.plans[id] = r })
		},
		func() error {
			return each(ctx, store, kindClaim, all, func(s *Saved, id string, r claimRecord) { s.claims[id] = r })
		},
	} {
		if err := part(); err != nil {
			return nil, err
		}
	}
	for name, s := range all {
		if _, ok := s.configs[s.service.Target]; !ok {
			return nil, fault.Newf("load service "+name, fault.Internal, "its configuration %s is not stored", s.service.Target)
		}
	}
	return all, nil
}

func newSaved(name string) *Saved {
	return &Saved{
		Name: name, configs: map[string]configRecord{}, pods: map[plan.Instance]podRecord{},
		plans: map[string]planRecord{}, claims: map[string]claimRecord{}, revs: map[state.Key]state.Rev{},
	}
}

// each hands the records of a kind to their services.
func each[T any](ctx context.Context, store state.Backend, kind state.Kind, all map[string]*Saved, put func(*Saved, string, T)) error {
	objs, _, err := state.NewTable[T](store, kind).List(ctx)
	for _, o := range objs {
		name, id, _ := strings.Cut(o.ID, "@")
		s := all[name]
		if s == nil {
			continue // a claim that a service left behind: that of the next of its name
		}
		put(s, id, o.Spec)
		s.revs[state.Key{Kind: kind, ID: o.ID}] = o.Rev
	}
	return err
}

// config is one configuration with what is computed of it.
type config struct {
	configRecord
	hash map[string]string // of each pod
}

func newConfig(r configRecord) *config {
	c := &config{configRecord: r, hash: map[string]string{}}
	for pod := range r.Spec.Pods.All() {
		c.hash[pod] = spec.Hash(r.Spec, pod, r.Prints)
	}
	return c
}

// newest orders configurations, the newest first.
func newest(configs map[string]*config) []*config {
	out := make([]*config, 0, len(configs))
	for _, c := range configs {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b *config) int { return cmp.Or(b.At.Compare(a.At), cmp.Compare(a.ID, b.ID)) })
	return out
}
