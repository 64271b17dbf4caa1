package engine

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"dcos.example/dcos/runtime/api/marathon"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/orchestrator/deployment"
	"dcos.example/dcos/runtime/orchestrator/health"
	"dcos.example/dcos/runtime/orchestrator/spec"
	"dcos.example/dcos/runtime/placement"
	"dcos.example/dcos/runtime/state"
)

// The kinds of records. What is wanted and what is seen are apart.
const (
	kindApp              state.Kind = "app"               // the wanted definition, by app id
	kindAppStatus        state.Kind = "app-status"        // its last failure
	kindAppVersion       state.Kind = "app-version"       // every definition it had, by app id @ time
	kindGroup            state.Kind = "group"             // by group id
	kindGroupVersion     state.Kind = "group-version"     // when anything changed, by time
	kindDeployment       state.Kind = "deployment"        // by deployment id
	kindDeploymentStatus state.Kind = "deployment-status" // how far it is
	kindInstance         state.Kind = "instance"          // by instance id
	kindInstanceStatus   state.Kind = "instance-status"   // what the agent said of it
	kindFramework        state.Kind = "framework-id"
)

// Kinds are all kinds that the orchestrator writes.
func Kinds() []state.Kind {
	return []state.Kind{
		kindApp, kindAppStatus, kindAppVersion, kindGroup, kindGroupVersion,
		kindDeployment, kindDeploymentStatus, kindInstance, kindInstanceStatus, kindFramework,
	}
}

// keptVersions is how many definitions of an app, and how many changes of the
// root, can be gone back to (Marathon's zk_max_versions).
const keptVersions = 50

type frameworkRecord struct {
	ID string `json:"id"`
}

type appStatusRecord struct {
	LastFailure *marathon.TaskFailure `json:"lastFailure,omitempty"`
}

// versionRecord is a definition that became the wanted one at time At; App nil
// is a deletion.
type versionRecord struct {
	At  string        `json:"at"`
	App *marathon.App `json:"app,omitempty"`
}

type groupVersionRecord struct {
	At string `json:"at"`
}

// deploymentRecord names definitions by the time they became wanted.
type deploymentRecord struct {
	ID      string                    `json:"id"`
	Version string                    `json:"version"`
	Steps   []deployment.Step         `json:"steps"`
	Apps    map[spec.AppID]transition `json:"apps"`
	Groups  map[spec.AppID]regroup    `json:"groups,omitempty"`
}

type transition struct {
	From string `json:"from,omitempty"` // time in app-version, "" for none
	To   string `json:"to,omitempty"`
}

type regroup struct {
	From *spec.Group `json:"from,omitempty"`
	To   *spec.Group `json:"to,omitempty"`
}

type deploymentStatusRecord struct {
	Step int `json:"step"` // from 0
}

type instanceRecord struct {
	ID        string          `json:"id"`
	Task      string          `json:"task"`
	App       spec.AppID      `json:"app"`
	Version   string          `json:"version"` // of the app at launch
	Config    string          `json:"config"`  // its configuration: lastConfigChangeAt at launch
	Agent     string          `json:"agent"`
	Place     placement.Place `json:"place"`
	HostPorts []int64         `json:"hostPorts,omitempty"`
	Ports     []int64         `json:"ports,omitempty"` // where they are reached
	Launched  time.Time       `json:"launched"`
	Stop      string          `json:"stop,omitempty"`    // why it shall stop, "" to keep
	Leaving   bool            `json:"leaving,omitempty"` // its agent is to be unavailable
}

type instanceStatusRecord struct {
	State       string                 `json:"state"` // TASK_*
	Since       time.Time              `json:"since"`
	Started     time.Time              `json:"started,omitzero"`
	Unreachable time.Time              `json:"unreachable,omitzero"`
	Health      health.State           `json:"health,omitzero"`
	Ready       bool                   `json:"ready,omitempty"` // passed its readiness check
	Addresses   []marathon.TaskAddress `json:"addresses,omitempty"`
}

// entry is one past definition: when it became wanted, and its version; no
// version is a deletion.
type entry struct{ at, version string }

// history lists past definitions by app, oldest first, and the times of
// changes under the root.
type history map[spec.AppID][]entry

func versionID(id spec.AppID, at string) string { return string(id) + "@" + at }

// load reads everything. Its cost is that of all records, once per term.
func (e *Engine) load(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	start := time.Now()
	for _, part := range []func(context.Context) error{
		e.loadFramework, e.loadGroups, e.loadApps, e.loadHistory, e.loadInstances, e.loadDeployments,
	} {
		if err := part(ctx); err != nil {
			return fault.New("load orchestrator state", fault.KindOf(err), err)
		}
	}
	e.dirtyAll()
	e.log.Info("orchestrator state loaded", "apps", e.tree.Len(), "instances", len(e.instances),
		"deployments", len(e.deployments), "took", time.Since(start))
	return nil
}

// list reads a kind and remembers the revisions its records are at.
func list[T any](ctx context.Context, e *Engine, kind state.Kind) ([]state.Object[T], error) {
	objs, _, err := state.NewTable[T](e.cfg.Store, kind).List(ctx)
	for _, o := range objs {
		e.out.Known(state.Key{Kind: kind, ID: o.ID}, o.Rev)
	}
	return objs, err
}

func (e *Engine) loadFramework(ctx context.Context) error {
	objs, err := list[frameworkRecord](ctx, e, kindFramework)
	for _, o := range objs {
		e.frameworkID = o.Spec.ID
	}
	return err
}

func (e *Engine) loadGroups(ctx context.Context) error {
	objs, err := list[spec.Group](ctx, e, kindGroup)
	for _, o := range objs {
		e.tree.PutGroup(spec.AppID(o.ID), o.Spec)
		e.saw(o.Spec.Version)
	}
	return err
}

func (e *Engine) loadApps(ctx context.Context) error {
	objs, err := list[marathon.App](ctx, e, kindApp)
	if err != nil {
		return err
	}
	for _, o := range objs {
		e.tree.PutApp(&o.Spec)
		e.app(spec.AppID(o.ID)).activate(&o.Spec)
		e.saw(o.Spec.Version)
	}
	status, err := list[appStatusRecord](ctx, e, kindAppStatus)
	for _, o := range status {
		if e.tree.App(spec.AppID(o.ID)) != nil {
			e.app(spec.AppID(o.ID)).lastFailure = o.Spec.LastFailure
		}
	}
	return err
}

func (e *Engine) loadHistory(ctx context.Context) error {
	objs, err := list[versionRecord](ctx, e, kindAppVersion)
	if err != nil {
		return err
	}
	for _, o := range objs {
		id, at, _ := strings.Cut(o.ID, "@")
		en := entry{at: at}
		if o.Spec.App != nil {
			en.version = o.Spec.App.Version
		}
		e.history[spec.AppID(id)] = append(e.history[spec.AppID(id)], en)
		e.saw(at)
	}
	groups, err := list[groupVersionRecord](ctx, e, kindGroupVersion)
	for _, o := range groups {
		e.history[spec.Root] = append(e.history[spec.Root], entry{at: o.ID, version: o.ID})
	}
	for _, h := range e.history {
		slices.SortFunc(h, func(a, b entry) int { return cmp.Compare(a.at, b.at) })
	}
	if err == nil {
		e.forgetDeleted()
	}
	return err
}

// forgetDeleted drops the past of apps deleted before every change that can
// still be gone back to.
func (e *Engine) forgetDeleted() {
	root := e.history[spec.Root]
	if len(root) < keptVersions {
		return
	}
	for id, h := range e.history {
		if last := h[len(h)-1]; last.version != "" || last.at >= root[0].at {
			continue
		}
		for _, en := range h {
			e.drop(kindAppVersion, versionID(id, en.at))
		}
		delete(e.history, id)
	}
}

func (e *Engine) loadInstances(ctx context.Context) error {
	objs, err := list[instanceRecord](ctx, e, kindInstance)
	if err != nil {
		return err
	}
	status, err := list[instanceStatusRecord](ctx, e, kindInstanceStatus)
	if err != nil {
		return err
	}
	seen := make(map[string]instanceStatusRecord, len(status))
	for _, o := range status {
		seen[o.ID] = o.Spec
	}
	for _, o := range objs {
		i := &instance{rec: o.Spec, st: seen[o.ID]}
		if i.rec.Leaving { // until the master says otherwise
			e.departures[i.rec.Agent] = &departure{active: true}
		}
		e.index(i)
		e.watchInstance(i)
		if i.rec.Stop != "" {
			e.retryKill(i, 0)
		}
	}
	return nil
}

func (e *Engine) loadDeployments(ctx context.Context) error {
	objs, err := list[deploymentRecord](ctx, e, kindDeployment)
	if err != nil {
		return err
	}
	status, err := list[deploymentStatusRecord](ctx, e, kindDeploymentStatus)
	if err != nil {
		return err
	}
	step := map[string]int{}
	for _, o := range status {
		step[o.ID] = o.Spec.Step
	}
	slices.SortFunc(objs, func(a, b state.Object[deploymentRecord]) int { return cmp.Compare(a.Spec.Version, b.Spec.Version) })
	for _, o := range objs {
		d := &running{rec: o.Spec, from: map[spec.AppID]*marathon.App{}, to: map[spec.AppID]*marathon.App{}, step: step[o.ID] - 1}
		for id, tr := range o.Spec.Apps {
			if d.from[id], err = e.definition(ctx, id, tr.From); err != nil {
				return err
			}
			if d.to[id], err = e.definition(ctx, id, tr.To); err != nil {
				return err
			}
			e.retarget(id, d.to[id])
		}
		e.begin(d)
	}
	return nil
}

// retarget makes sure that the tree has what a stored deployment aims at: a
// change of very many apps is stored in several commits, the deployment first.
func (e *Engine) retarget(id spec.AppID, to *marathon.App) {
	have := e.tree.App(id)
	if (have == nil) == (to == nil) && (to == nil || have.Version == to.Version) {
		return
	}
	e.tree.Apply(spec.Change{Apps: map[spec.AppID]*marathon.App{id: to}}, e.stamp())
	if to == nil {
		e.drop(kindApp, string(id))
	} else {
		e.put(kindApp, string(id), to)
	}
}

// definition reads a past definition, nil for time "".
func (e *Engine) definition(ctx context.Context, id spec.AppID, at string) (*marathon.App, error) {
	if at == "" {
		return nil, nil
	}
	o, err := state.NewTable[versionRecord](e.cfg.Store, kindAppVersion).Get(ctx, versionID(id, at))
	return o.Spec.App, err
}

// saw keeps versions growing over restarts and clock changes.
func (e *Engine) saw(version string) {
	if t, err := marathon.ParseTime(version); err == nil && t.After(e.lastStamp) {
		e.lastStamp = t
	}
}

// record adds a past definition and forgets the oldest beyond keptVersions,
// unless a deployment still names it.
func (e *Engine) record(id spec.AppID, at string, a *marathon.App) {
	en := entry{at: at}
	if a != nil {
		en.version = a.Version
	}
	e.put(kindAppVersion, versionID(id, at), versionRecord{at, a})
	h := append(e.history[id], en)
	for len(h) > keptVersions && !e.namesVersion(id, h[0].at) {
		e.drop(kindAppVersion, versionID(id, h[0].at))
		h = h[1:]
	}
	e.history[id] = h
}

func (e *Engine) namesVersion(id spec.AppID, at string) bool {
	d := e.deployments[e.lockedBy[id]]
	return d != nil && (d.rec.Apps[id].From == at || d.rec.Apps[id].To == at)
}

// recordRoot notes that something under the root changed.
func (e *Engine) recordRoot(at string) {
	e.put(kindGroupVersion, at, groupVersionRecord{at})
	h := append(e.history[spec.Root], entry{at, at})
	for len(h) > keptVersions {
		e.drop(kindGroupVersion, h[0].at)
		h = h[1:]
	}
	e.history[spec.Root] = h
}

// since returns when the wanted definition of id became that, "" if unknown.
func (e *Engine) since(id spec.AppID) string {
	h := e.history[id]
	if len(h) == 0 || h[len(h)-1].version == "" {
		return ""
	}
	return h[len(h)-1].at
}

// put stages a record.
func (e *Engine) put(kind state.Kind, id string, v any) { e.out.Put(kind, id, v) }

// drop stages the deletion of a record.
func (e *Engine) drop(kind state.Kind, id string) { e.out.Drop(kind, id) }
