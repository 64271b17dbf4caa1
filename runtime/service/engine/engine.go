// Package engine is one service while this master leads: it owns the service's
// framework, instances, tasks and plans, and is the only writer of their
// records.
package engine

import (
	"context"
	"time"

	"dcos.example/dcos/runtime/api/service"
	"dcos.example/dcos/runtime/fault"
)

// CA issues certificates of the cluster's authority to tasks.
type CA interface {
	// Issue returns a key and its chain of certificates, and the cluster's
	// root, all in PEM, for the DNS names given.
	Issue(ctx context.Context, names []string, life time.Duration) (key, chain, root []byte, err error)
}

// Engine is one service. Its methods are safe for concurrent use. Those that
// change something return when the change is stored. Errors: NotFound for what
// is not there, Invalid, Conflict for what cannot be done now, Unavailable
// when this master ceases to lead.
type Engine struct{ name string }

var errNotLeading = fault.Newf("ask the service operator", fault.Unavailable, "this master does not lead")

// Name is the service's name.
func (e *Engine) Name() string { return e.name }

// Detail is the service as a whole.
func (e *Engine) Detail() service.Detail { return service.Detail{} }

// Health sums it up: RUNNING when all is well.
func (e *Engine) Health() service.Health { return service.Health{} }

// Plans lists the plans by name, deploy (or update), recovery and decommission
// first.
func (e *Engine) Plans() []string { return nil }

// Plan returns a plan; "update" and "deploy" are one.
func (e *Engine) Plan(plan string) (service.PlanInfo, error) {
	return service.PlanInfo{}, errNotLeading
}

// StartPlan starts a plan of the spec's other than deploy, with variables for
// its tasks; Conflict while it runs.
func (e *Engine) StartPlan(ctx context.Context, plan string, env map[string]string) error {
	return errNotLeading
}

// StopPlan ends such a plan and kills its tasks.
func (e *Engine) StopPlan(ctx context.Context, plan string) error { return errNotLeading }

// Interrupt keeps a plan, or one phase of it by name or id, from beginning
// further steps; changed is false if that is so already (HTTP 208).
func (e *Engine) Interrupt(ctx context.Context, plan, phase string) (changed bool, err error) {
	return false, errNotLeading
}

// Continue undoes Interrupt, and lets a canary go on.
func (e *Engine) Continue(ctx context.Context, plan, phase string) (changed bool, err error) {
	return false, errNotLeading
}

// ForceComplete takes a step (by name or id), a phase (step "") or a plan
// (phase "") for done; changed is false if it is.
func (e *Engine) ForceComplete(ctx context.Context, plan, phase, step string) (changed bool, err error) {
	return false, errNotLeading
}

// Restart does a plan, phase or step again.
func (e *Engine) Restart(ctx context.Context, plan, phase, step string) error { return errNotLeading }

// Pods lists the instances: "kafka-0".
func (e *Engine) Pods() []string { return nil }

// PodsStatus shows all instances and tasks.
func (e *Engine) PodsStatus() service.PodsStatus { return service.PodsStatus{} }

// Pod shows one instance.
func (e *Engine) Pod(instance string) (service.InstanceStatus, error) {
	return service.InstanceStatus{}, errNotLeading
}

// PodInfo shows its tasks as launched.
func (e *Engine) PodInfo(instance string) ([]service.TaskInfo, error) { return nil, errNotLeading }

// RestartPod restarts an instance where it is.
func (e *Engine) RestartPod(ctx context.Context, instance string) (service.PodResult, error) {
	return service.PodResult{}, errNotLeading
}

// ReplacePod gives an instance up, with its volumes, and makes it anew
// elsewhere.
func (e *Engine) ReplacePod(ctx context.Context, instance string) (service.PodResult, error) {
	return service.PodResult{}, errNotLeading
}

// PausePod replaces the commands of an instance's tasks (all if none is named)
// by one that does nothing; Conflict if they are.
func (e *Engine) PausePod(ctx context.Context, instance string, tasks []string) (service.PodResult, error) {
	return service.PodResult{}, errNotLeading
}

// ResumePod undoes PausePod.
func (e *Engine) ResumePod(ctx context.Context, instance string, tasks []string) (service.PodResult, error) {
	return service.PodResult{}, errNotLeading
}

// Endpoints lists the names of advertised ports and VIPs.
func (e *Engine) Endpoints() []string { return nil }

// Endpoint tells where one is reached.
func (e *Engine) Endpoint(name string) (service.Endpoint, error) {
	return service.Endpoint{}, errNotLeading
}

// FrameworkID is "" before the first subscription.
func (e *Engine) FrameworkID() string { return "" }

// Properties lists what is kept beside the records of pods and plans.
func (e *Engine) Properties() []string { return nil }

// Property returns one of them.
func (e *Engine) Property(key string) (string, error) { return "", errNotLeading }

// Configurations lists the ids of the configurations kept.
func (e *Engine) Configurations() []string { return nil }

// Configuration returns one, without secrets.
func (e *Engine) Configuration(id string) (*service.Spec, error) { return nil, errNotLeading }

// TargetID is the id of the configuration aimed at.
func (e *Engine) TargetID() string { return "" }

// Template returns the text of a config of a task in a configuration.
func (e *Engine) Template(configID, pod, task, config string) (string, error) {
	return "", errNotLeading
}

// DebugOffers tells what became of the latest offers.
func (e *Engine) DebugOffers() service.DebugOffers { return service.DebugOffers{} }

// DebugReservations lists what is reserved, and what is to be given back.
func (e *Engine) DebugReservations() []service.DebugReservation { return nil }

// DebugPlans lists the steps that are not complete, with what they wait for.
func (e *Engine) DebugPlans() []service.DebugPlan { return nil }

// DebugTasks shows the tasks with their last status.
func (e *Engine) DebugTasks() []service.TaskStatus { return nil }
