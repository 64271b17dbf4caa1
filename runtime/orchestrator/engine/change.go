package engine

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/google/uuid"

	"dcos.example/dcos/runtime/api/marathon"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/orchestrator/deployment"
	"dcos.example/dcos/runtime/orchestrator/event"
	"dcos.example/dcos/runtime/orchestrator/launch"
	"dcos.example/dcos/runtime/orchestrator/spec"
)

// maxDeployments is how many deployments may run at once.
const maxDeployments = 100

// Locked says that running deployments have hold of what should change.
type Locked struct{ Deployments []string }

func (*Locked) Error() string {
	return "App is locked by one or more deployments. Override with the option '?force=true'. View details at '/v2/deployments/<DEPLOYMENT_ID>'."
}

// change is a change of the tree on its way to a deployment.
type change struct {
	spec.Change
	force    bool
	restart  map[spec.AppID]bool // replaced although the definition is the same
	restored bool                // definitions keep the versions they had
	version  string
	caller   Caller
}

// Caller is who asked for a change, as events tell it.
type Caller struct{ IP, URI string }

func newChange(version string, force bool) *change {
	return &change{Change: spec.NewChange(), force: force, restart: map[spec.AppID]bool{}, version: version}
}

func appMissing(id spec.AppID) error {
	return fault.New("find app", fault.NotFound, fmt.Errorf("App '%s' does not exist", id))
}

func groupMissing(id spec.AppID) error {
	return fault.New("find group", fault.NotFound, fmt.Errorf("Group '%s' does not exist", id))
}

// alter makes a change under the lock and waits until it is stored.
func (e *Engine) alter(ctx context.Context, force bool, build func(*change) error) (marathon.DeploymentResult, error) {
	e.mu.Lock()
	c := newChange(e.stamp(), force)
	var r marathon.DeploymentResult
	err := build(c)
	if err == nil {
		r, err = e.deploy(c)
	}
	done := e.out.Flushed()
	e.mu.Unlock()
	if err != nil {
		return r, err
	}
	e.nudge()
	return r, e.out.Wait(ctx, done)
}

// settle drops from c what changes nothing and stamps the rest. It returns
// what the planner must know.
func (e *Engine) settle(c *change) ([]deployment.Change, error) {
	if err := e.tree.Check(c.Change); err != nil {
		return nil, err
	}
	if !c.restored {
		if err := e.tree.AssignPorts(c.Change); err != nil {
			return nil, err
		}
	}
	var out []deployment.Change
	for _, id := range slices.Sorted(maps.Keys(c.Apps)) {
		old, now := e.tree.App(id), c.Apps[id]
		d := deployment.Change{App: id, Was: old != nil, Is: now != nil, Changed: true}
		switch {
		case old == nil && now == nil:
			delete(c.Apps, id)
			continue
		case now == nil:
		case old == nil:
			d.Instances = now.Instances
			if !c.restored {
				spec.Stamp(now, nil, spec.Config, c.version)
			}
		default:
			diff := spec.Diff(old, now)
			if c.restart[id] {
				diff = spec.Config
			}
			if diff == spec.Same && (!c.restored || old.Version == now.Version) {
				delete(c.Apps, id)
				continue
			}
			if !c.restored {
				spec.Stamp(now, old, diff, c.version)
			}
			d.Instances = now.Instances
			d.Replaces = old.VersionInfo.LastConfigChangeAt != now.VersionInfo.LastConfigChangeAt || e.mixed(id, now)
		}
		out = append(out, d)
	}
	return out, nil
}

// mixed reports whether a cancelled or running deployment has left instances
// of another configuration than a's.
func (e *Engine) mixed(id spec.AppID, a *marathon.App) bool {
	if e.lockedBy[id] == "" {
		return false
	}
	for _, i := range e.app(id).instances {
		if i.rec.Config != a.VersionInfo.LastConfigChangeAt {
			return true
		}
	}
	return false
}

// deploy turns a change into a running deployment.
func (e *Engine) deploy(c *change) (marathon.DeploymentResult, error) {
	changes, err := e.settle(c)
	if err != nil {
		return marathon.DeploymentResult{}, err
	}
	ids := make([]spec.AppID, len(changes))
	for i, ch := range changes {
		ids[i] = ch.App
	}
	conflicts := deployment.Overlap(e.lockedBy, ids)
	if len(conflicts) > 0 && !c.force {
		return marathon.DeploymentResult{}, fault.New("deploy", fault.Conflict, &Locked{conflicts})
	}
	if len(e.deployments)-len(conflicts) >= maxDeployments {
		return marathon.DeploymentResult{}, fault.New("deploy", fault.Denied, fmt.Errorf(
			"Max number (%d) of running deployments is achieved. Wait for existing deployments to complete or cancel one using force=true parameter. You can increase max deployment number by using --max_running_deployments parameter but be advised that this can have negative effects on the performance.", maxDeployments))
	}
	d := &running{
		rec: deploymentRecord{
			ID: uuid.NewString(), Version: c.version, Apps: map[spec.AppID]transition{}, Groups: map[spec.AppID]regroup{},
			Steps: deployment.Plan(changes, e.tree.Dependencies(c.Change)),
		},
		from: map[spec.AppID]*marathon.App{}, to: map[spec.AppID]*marathon.App{}, step: -1,
	}
	for _, id := range conflicts {
		e.cancel(e.deployments[id], "The upgrade has been cancelled")
	}
	for _, id := range ids {
		d.from[id], d.to[id] = e.tree.App(id), c.Apps[id]
		tr := transition{From: e.since(id)}
		e.record(id, c.version, c.Apps[id])
		if c.Apps[id] != nil {
			tr.To = c.version
		}
		d.rec.Apps[id] = tr
	}
	for id, g := range c.Groups {
		var from *spec.Group
		if old, ok := e.tree.Group(id); ok {
			from = &old
		}
		d.rec.Groups[id] = regroup{from, g}
	}
	e.adopt(c, d)
	return marathon.DeploymentResult{Version: c.version, DeploymentID: d.rec.ID}, nil
}

// adopt makes c the wanted state and starts its deployment.
func (e *Engine) adopt(c *change, d *running) {
	if len(d.rec.Steps) > 0 {
		e.put(kindDeployment, d.rec.ID, d.rec)
	}
	for g := range c.Groups {
		if g != spec.Root && c.Groups[g] == nil {
			e.drop(kindGroup, string(g))
		}
	}
	if len(c.Apps)+len(c.Groups) > 0 {
		c.Groups[spec.Root] = e.rootAt(c)
		e.recordRoot(c.version)
	}
	for id, a := range c.Apps {
		if a == nil {
			e.drop(kindApp, string(id))
			continue
		}
		e.put(kindApp, string(id), a)
		for g := id.Parent(); g != spec.Root; g = g.Parent() {
			if _, ok := e.tree.Group(g); !ok && c.Groups[g] == nil {
				c.Groups[g] = &spec.Group{Version: c.version}
			}
		}
	}
	for id, g := range c.Groups {
		if g != nil {
			e.put(kindGroup, string(id), *g)
		}
	}
	e.tree.Apply(c.Change, c.version)
	if c.caller.URI != "" {
		for _, a := range c.Apps {
			e.publish("api_post_event", event.Fields{"clientIp": c.caller.IP, "uri": c.caller.URI, "appDefinition": a})
		}
	}
	e.publish("group_change_success", event.Fields{"groupId": spec.Root, "version": c.version})
	e.begin(d)
}

func (e *Engine) rootAt(c *change) *spec.Group {
	root, _ := e.tree.Group(spec.Root)
	if g := c.Groups[spec.Root]; g != nil {
		root = *g
	}
	root.Version = c.version
	return &root
}

// CreateApp adds an app that does not exist yet.
func (e *Engine) CreateApp(ctx context.Context, body []byte, force bool, by Caller) (marathon.AppInfo, string, error) {
	a, err := spec.ParseApp(body, spec.Root, e.cfg.Policy)
	if err != nil {
		return marathon.AppInfo{}, "", err
	}
	id := spec.AppID(a.ID)
	r, err := e.alter(ctx, force, func(c *change) error {
		if e.tree.App(id) != nil {
			return fault.New("create app", fault.Exists, fmt.Errorf("An app with id [%s] already exists.", id))
		}
		c.Apps[id], c.caller = a, by
		return nil
	})
	if err != nil {
		return marathon.AppInfo{}, "", err
	}
	zero := func() *int { return new(int) }
	return marathon.AppInfo{
		App: *a, TasksStaged: zero(), TasksRunning: zero(), TasksHealthy: zero(), TasksUnhealthy: zero(),
		Deployments: []marathon.DeploymentRef{{ID: r.DeploymentID}}, Tasks: []marathon.Task{},
	}, r.DeploymentID, nil
}

// UpdateOptions say how updates apply.
type UpdateOptions struct {
	Force   bool
	Partial bool // absent fields stay as they are, instead of getting defaults
	Create  bool // apps that do not exist are made
	By      Caller
}

// UpdateApp changes one app; created tells that it did not exist.
func (e *Engine) UpdateApp(ctx context.Context, id spec.AppID, body []byte, o UpdateOptions) (r marathon.DeploymentResult, created bool, err error) {
	u, err := spec.ParseUpdate(body)
	if err != nil {
		return r, false, err
	}
	past, err := e.past(ctx, id, u.Rollback)
	if err != nil {
		return r, false, err
	}
	r, err = e.alter(ctx, o.Force, func(c *change) error {
		created = e.tree.App(id) == nil
		return e.addUpdate(c, id, u, past, o)
	})
	return r, created, err
}

// UpdateApps changes several apps in one deployment.
func (e *Engine) UpdateApps(ctx context.Context, bodies [][]byte, o UpdateOptions) (marathon.DeploymentResult, error) {
	updates := map[spec.AppID]spec.Update{}
	pasts := map[spec.AppID]*marathon.App{}
	for _, b := range bodies {
		u, err := spec.ParseUpdate(b)
		if err != nil {
			return marathon.DeploymentResult{}, err
		}
		if u.ID == "" {
			return marathon.DeploymentResult{}, fault.New("update apps", fault.Invalid, &spec.Problems{
				Details: []marathon.Detail{{Path: "/id", Errors: []string{"not defined"}}},
			})
		}
		id := spec.ParseID(u.ID, spec.Root)
		updates[id] = u
		if pasts[id], err = e.past(ctx, id, u.Rollback); err != nil {
			return marathon.DeploymentResult{}, err
		}
	}
	return e.alter(ctx, o.Force, func(c *change) error {
		for id, u := range updates {
			if err := e.addUpdate(c, id, u, pasts[id], o); err != nil {
				return err
			}
		}
		return nil
	})
}

func (e *Engine) addUpdate(c *change, id spec.AppID, u spec.Update, past *marathon.App, o UpdateOptions) error {
	c.caller = o.By
	old := e.tree.App(id)
	if old == nil && !o.Create {
		return appMissing(id)
	}
	var err error
	switch {
	case past != nil:
		c.Apps[id] = spec.Clone(past)
	case old != nil && o.Partial:
		c.Apps[id], err = u.Over(old, e.cfg.Policy)
	default:
		c.Apps[id], err = u.Complete(id, e.cfg.Policy)
	}
	return err
}

// past reads the definition that an app had at version, nil for version "".
func (e *Engine) past(ctx context.Context, id spec.AppID, version string) (*marathon.App, error) {
	if version == "" {
		return nil, nil
	}
	e.mu.Lock()
	at := ""
	for _, en := range e.living(id) {
		if en.version == version {
			at = en.at
		}
	}
	exists := e.tree.App(id) != nil
	e.mu.Unlock()
	switch {
	case !exists:
		return nil, appMissing(id)
	case at == "":
		return nil, fault.New("find app version", fault.NotFound, fmt.Errorf("App '%s' does not exist in version %s", id, version))
	}
	return e.definition(ctx, id, at)
}

// living are the past definitions of an app since it was created last.
func (e *Engine) living(id spec.AppID) []entry {
	h := e.history[id]
	for n := len(h) - 1; n >= 0; n-- {
		if h[n].version == "" {
			return h[n+1:]
		}
	}
	return h
}

// DeleteApp removes an app and its instances.
func (e *Engine) DeleteApp(ctx context.Context, id spec.AppID, force bool) (marathon.DeploymentResult, error) {
	return e.alter(ctx, force, func(c *change) error {
		if e.tree.App(id) == nil {
			return appMissing(id)
		}
		c.Apps[id] = nil
		return nil
	})
}

// RestartApp replaces all instances under the same definition.
func (e *Engine) RestartApp(ctx context.Context, id spec.AppID, force bool) (marathon.DeploymentResult, error) {
	return e.alter(ctx, force, func(c *change) error {
		a := e.tree.App(id)
		if a == nil {
			return appMissing(id)
		}
		c.Apps[id], c.restart[id] = spec.Clone(a), true
		return nil
	})
}

// KillOptions say what becomes of killed tasks.
type KillOptions struct {
	Scale bool // the apps get smaller by what is killed
	Force bool
}

// KillTasks kills the tasks that choose accepts among those of apps. With
// Scale it returns the deployment, else the tasks.
func (e *Engine) KillTasks(ctx context.Context, apps []spec.AppID, choose func(marathon.Task) bool, o KillOptions) ([]marathon.Task, *marathon.DeploymentResult, error) {
	tasks := []marathon.Task{}
	var victims []*instance
	pick := func() map[spec.AppID]int {
		n := map[spec.AppID]int{}
		for _, id := range apps {
			a := e.apps[id]
			if a == nil {
				continue
			}
			for _, i := range a.instances {
				if t := e.task(i); !i.stopping() && choose(t) {
					victims, tasks = append(victims, i), append(tasks, t)
					n[id]++
				}
			}
		}
		slices.SortFunc(tasks, byTaskID)
		return n
	}
	kill := func() {
		for _, i := range victims {
			e.kill(i, "a user asked for it")
		}
	}
	if !o.Scale {
		e.mu.Lock()
		pick()
		kill()
		done := e.out.Flushed()
		e.mu.Unlock()
		e.nudge()
		return tasks, nil, e.out.Wait(ctx, done)
	}
	r, err := e.alter(ctx, o.Force, func(c *change) error {
		counts := pick()
		for id, n := range counts {
			if e.lockedBy[id] != "" && !o.Force {
				return fault.New("scale down", fault.Conflict, &Locked{[]string{e.lockedBy[id]}})
			}
			if a := e.tree.App(id); a != nil {
				b := spec.Clone(a)
				b.Instances = max(0, b.Instances-int64(n))
				c.Apps[id] = b
			}
		}
		kill()
		return nil
	})
	return tasks, &r, err
}

// CancelDeployment stops a deployment: with force where it is, else by a new
// one that undoes it.
func (e *Engine) CancelDeployment(ctx context.Context, id string, force bool) (*marathon.DeploymentResult, error) {
	missing := fault.New("find deployment", fault.NotFound, fmt.Errorf("DeploymentPlan %s does not exist", id))
	if force {
		e.mu.Lock()
		d := e.deployments[id]
		if d == nil {
			e.mu.Unlock()
			return nil, missing
		}
		e.cancel(d, "The deployment has been cancelled by the user")
		done := e.out.Flushed()
		e.mu.Unlock()
		e.nudge()
		return nil, e.out.Wait(ctx, done)
	}
	r, err := e.alter(ctx, true, func(c *change) error {
		d := e.deployments[id]
		if d == nil {
			return missing
		}
		c.restored = true
		for app, from := range d.from {
			c.Apps[app] = from
		}
		for g, tr := range d.rec.Groups {
			if g == spec.Root {
				continue
			}
			c.Groups[g] = tr.From
			if tr.From == nil && !e.emptyWithout(g, c) {
				delete(c.Groups, g)
			}
		}
		return nil
	})
	return &r, err
}

// emptyWithout reports whether group g holds nothing after c.
func (e *Engine) emptyWithout(g spec.AppID, c *change) bool {
	for _, id := range e.tree.AppsBelow(g) {
		if now, ok := c.Apps[id]; !ok || now != nil {
			return false
		}
	}
	return true
}

// ResetDelay lets an app in the queue launch at once.
func (e *Engine) ResetDelay(id spec.AppID) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	a := e.apps[id]
	if a == nil || a.queue.want == 0 {
		return fault.New("find queued app", fault.NotFound, fmt.Errorf("Application %s not found in tasks queue.", id))
	}
	a.delay = launch.Delay{}
	e.flow.again = true
	e.nudge()
	return nil
}
