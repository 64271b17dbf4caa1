package engine

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"dcos.example/dcos/runtime/api/marathon"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/orchestrator/launch"
	"dcos.example/dcos/runtime/orchestrator/spec"
	"dcos.example/dcos/runtime/resource"
	"dcos.example/dcos/runtime/task"
)

// Embed says which parts of apps to add.
type Embed struct {
	Tasks, Counts, Deployments, Readiness, LastTaskFailure, TaskStats bool
}

// App returns one app.
func (e *Engine) App(id spec.AppID, em Embed) (marathon.AppInfo, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	a := e.tree.App(id)
	if a == nil {
		return marathon.AppInfo{}, appMissing(id)
	}
	return e.appInfo(a, em), nil
}

// Apps returns the apps below group that keep accepts, in order of their ids.
func (e *Engine) Apps(group spec.AppID, em Embed, keep func(*marathon.App) bool) []marathon.AppInfo {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := []marathon.AppInfo{}
	for _, id := range e.tree.AppsBelow(group) {
		if a := e.tree.App(id); keep(a) {
			out = append(out, e.appInfo(a, em))
		}
	}
	return out
}

// appInfo costs O(1) without tasks, stats and readiness, O(instances) with.
func (e *Engine) appInfo(a *marathon.App, em Embed) marathon.AppInfo {
	id := spec.AppID(a.ID)
	st := e.app(id)
	info := marathon.AppInfo{App: *a}
	if em.Counts {
		c := st.counts
		info.TasksStaged, info.TasksRunning = &c.Staged, &c.Running
		info.TasksHealthy, info.TasksUnhealthy = &c.Healthy, &c.Unhealthy
	}
	if em.Deployments {
		info.Deployments = []marathon.DeploymentRef{}
		if d := e.lockedBy[id]; d != "" {
			info.Deployments = append(info.Deployments, marathon.DeploymentRef{ID: d})
		}
	}
	if em.Tasks {
		info.Tasks = []marathon.Task{}
		for _, i := range st.instances {
			info.Tasks = append(info.Tasks, e.task(i))
		}
		slices.SortFunc(info.Tasks, byTaskID)
	}
	if em.LastTaskFailure {
		info.LastTaskFailure = st.lastFailure
	}
	if em.Readiness {
		info.ReadinessCheckResults = st.readiness()
	}
	if em.TaskStats {
		info.TaskStats = e.stats(a, st, time.Now())
	}
	return info
}

func byTaskID(a, b marathon.Task) int { return cmp.Compare(a.ID, b.ID) }

func (a *app) readiness() []marathon.ReadinessResult {
	out := []marathon.ReadinessResult{}
	for _, i := range a.instances {
		if i.probed != nil {
			out = append(out, *i.probed)
		}
	}
	slices.SortFunc(out, func(a, b marathon.ReadinessResult) int { return cmp.Compare(a.TaskID, b.TaskID) })
	return out
}

// task is i as the API shows it.
func (e *Engine) task(i *instance) marathon.Task {
	t := marathon.Task{
		AppID: string(i.rec.App), Host: i.rec.Place.Host, ID: i.rec.Task, SlaveID: i.rec.Agent,
		Region: i.rec.Place.Region, Zone: i.rec.Place.Zone, Role: e.cfg.Policy.Role,
		IPAddresses: nonNil(i.st.Addresses), Ports: []int64{}, StagedAt: marathon.Time(i.rec.Launched),
		State: i.state().String(), Version: i.rec.Version,
	}
	for _, p := range i.rec.HostPorts {
		if p != 0 {
			t.Ports = append(t.Ports, p)
		}
	}
	if !i.st.Started.IsZero() {
		t.StartedAt = marathon.Time(i.st.Started)
	}
	if i.stopping() && task.Live(i.state()) {
		t.State = task.Killing.String()
	}
	if i.st.Health.Known {
		t.HealthCheckResults = []marathon.HealthResult{i.st.Health.Result(i.rec.ID)}
	}
	return t
}

// Tasks returns the tasks of all apps below group, with service ports.
func (e *Engine) Tasks(group spec.AppID, keep func(marathon.Task) bool) []marathon.Task {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := []marathon.Task{}
	for _, i := range e.instances {
		if !i.rec.App.Within(group) {
			continue
		}
		t := e.task(i)
		t.ServicePorts = nonNil(spec.ServicePorts(e.tree.App(i.rec.App)))
		if keep(t) {
			out = append(out, t)
		}
	}
	slices.SortFunc(out, byTaskID)
	return out
}

// AppTasks returns the tasks of one app.
func (e *Engine) AppTasks(id spec.AppID) ([]marathon.Task, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	a := e.tree.App(id)
	if a == nil {
		return nil, appMissing(id)
	}
	out := []marathon.Task{}
	for _, i := range e.app(id).instances {
		t := e.task(i)
		t.ServicePorts = nonNil(spec.ServicePorts(a))
		out = append(out, t)
	}
	slices.SortFunc(out, byTaskID)
	return out, nil
}

// AppOf returns the app that a task belongs to, by the task's or the
// instance's id.
func (e *Engine) AppOf(taskID string) (spec.AppID, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if i := e.tasks[taskID]; i != nil {
		return i.rec.App, true
	}
	if i := e.instances[taskID]; i != nil {
		return i.rec.App, true
	}
	return "", false
}

// AppIDs returns the ids of all apps below group.
func (e *Engine) AppIDs(group spec.AppID) []spec.AppID {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.tree.AppsBelow(group)
}

// Versions lists an app's versions, the newest first.
func (e *Engine) Versions(id spec.AppID) ([]string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.tree.App(id) == nil {
		return nil, appMissing(id)
	}
	out := []string{}
	for _, en := range slices.Backward(e.living(id)) {
		if !slices.Contains(out, en.version) {
			out = append(out, en.version)
		}
	}
	return out, nil
}

// Version returns an app as it was.
func (e *Engine) Version(ctx context.Context, id spec.AppID, version string) (*marathon.App, error) {
	if t, err := marathon.ParseTime(version); err == nil {
		version = marathon.Time(t)
	}
	return e.past(ctx, id, version)
}

// GroupEmbed says which parts of groups to add.
type GroupEmbed struct {
	Groups, Apps, Pods bool
	App                Embed
}

// Group returns a group with what it holds.
func (e *Engine) Group(id spec.AppID, em GroupEmbed) (marathon.GroupInfo, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, ok := e.tree.Group(id); !ok {
		return marathon.GroupInfo{}, groupMissing(id)
	}
	return e.group(id, em), nil
}

func (e *Engine) group(id spec.AppID, em GroupEmbed) marathon.GroupInfo {
	g, _ := e.tree.Group(id)
	out := marathon.GroupInfo{ID: string(id), Dependencies: []string{}, EnforceRole: g.EnforceRole, Version: g.Version}
	for _, d := range g.Dependencies {
		out.Dependencies = append(out.Dependencies, string(d))
	}
	if em.Apps {
		out.Apps = []marathon.AppInfo{}
		for _, a := range e.tree.AppsOf(id) {
			out.Apps = append(out.Apps, e.appInfo(e.tree.App(a), em.App))
		}
	}
	if em.Pods {
		out.Pods = []struct{}{}
	}
	if em.Groups {
		out.Groups = []marathon.GroupInfo{}
		for _, sub := range e.tree.GroupsOf(id) {
			out.Groups = append(out.Groups, e.group(sub, em))
		}
	}
	return out
}

// GroupVersions lists the root's versions, the newest first.
func (e *Engine) GroupVersions(id spec.AppID) ([]string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, ok := e.tree.Group(id); !ok {
		return nil, groupMissing(id)
	}
	out := []string{}
	for _, en := range slices.Backward(e.history[spec.Root]) {
		out = append(out, en.version)
	}
	return out, nil
}

// GroupVersion returns a group with its apps as they were. Groups without apps
// are not kept.
func (e *Engine) GroupVersion(ctx context.Context, id spec.AppID, version string) (marathon.GroupInfo, error) {
	apps, err := e.groupAt(ctx, id, version)
	if err != nil {
		return marathon.GroupInfo{}, err
	}
	tree := spec.NewTree()
	tree.PutGroup(id, spec.Group{Version: version})
	for _, a := range apps {
		tree.Apply(spec.Change{Apps: map[spec.AppID]*marathon.App{spec.AppID(a.ID): a}}, version)
	}
	var build func(spec.AppID) marathon.GroupInfo
	build = func(id spec.AppID) marathon.GroupInfo {
		g := marathon.GroupInfo{
			ID: string(id), Apps: []marathon.AppInfo{}, Groups: []marathon.GroupInfo{}, Pods: []struct{}{},
			Dependencies: []string{}, Version: version,
		}
		for _, a := range tree.AppsOf(id) {
			g.Apps = append(g.Apps, marathon.AppInfo{App: *tree.App(a)})
		}
		for _, sub := range tree.GroupsOf(id) {
			g.Groups = append(g.Groups, build(sub))
		}
		return g
	}
	return build(id), nil
}

// Deployments lists what is running, the oldest first.
func (e *Engine) Deployments() []marathon.Deployment {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := []marathon.Deployment{}
	for _, d := range e.deployments {
		w := marathon.Deployment{
			ID: d.rec.ID, Version: d.rec.Version, AffectedApps: []string{}, AffectedPods: []string{},
			Steps: wireSteps(d.rec.Steps), CurrentStep: d.step + 1, TotalSteps: len(d.rec.Steps),
		}
		for id := range d.rec.Apps {
			w.AffectedApps = append(w.AffectedApps, string(id))
		}
		slices.Sort(w.AffectedApps)
		w.CurrentActions = stepOf(d).Actions
		for n := range w.CurrentActions {
			act := &w.CurrentActions[n]
			act.ReadinessCheckResults = e.app(spec.AppID(act.App)).readiness()
		}
		out = append(out, w)
	}
	slices.SortFunc(out, func(a, b marathon.Deployment) int {
		return cmp.Or(cmp.Compare(a.Version, b.Version), cmp.Compare(a.ID, b.ID))
	})
	return out
}

// Queue lists the apps that wait for offers, and why.
func (e *Engine) Queue(lastOffers bool) []marathon.QueueItem {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	out := []marathon.QueueItem{}
	for _, a := range e.wants {
		if a.active == nil {
			continue
		}
		q := &a.queue
		left := a.delay.Left(a.active, now)
		item := marathon.QueueItem{
			App: *a.active, Count: q.want, Role: e.cfg.Policy.Role, Since: marathon.Time(q.since),
			Delay: marathon.QueueDelay{TimeLeftSeconds: int64(math.Ceil(left.Seconds())), Overdue: left == 0},
			ProcessedOffersSummary: marathon.OffersSummary{
				ProcessedOffersCount: q.processed, UnusedOffersCount: q.unused,
				LastUnusedOfferAt: timeOrNil(q.lastNot), LastUsedOfferAt: timeOrNil(q.lastUsed),
				RejectSummaryLaunchAttempt: rows(q.funnel),
			},
		}
		var last [launch.Reasons]marathon.Reject
		for _, agent := range slices.Sorted(maps.Keys(q.last)) {
			r := q.last[agent]
			funnel(&last, r.reasons)
			if lastOffers {
				item.LastUnusedOffers = append(item.LastUnusedOffers, unusedOffer(r))
			}
		}
		if lastOffers {
			item.LastUnusedOffers = nonNil(item.LastUnusedOffers)
		}
		item.ProcessedOffersSummary.RejectSummaryLastOffers = rows(last)
		out = append(out, item)
	}
	slices.SortFunc(out, func(a, b marathon.QueueItem) int { return cmp.Compare(a.App.ID, b.App.ID) })
	return out
}

func timeOrNil(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	s := marathon.Time(t)
	return &s
}

func rows(f [launch.Reasons]marathon.Reject) []marathon.Reject {
	for r := range f {
		f[r].Reason = launch.Reason(r).String()
	}
	return f[:]
}

func unusedOffer(r refusal) marathon.UnusedOffer {
	o := marathon.UnusedOffer{
		Timestamp: marathon.Time(r.at), Reason: []string{},
		Offer: marathon.QueueOffer{
			ID: r.offer.ID, Hostname: r.offer.Host, AgentID: r.offer.Agent,
			Resources: []marathon.OfferResource{}, Attributes: []marathon.OfferAttribute{},
		},
	}
	for _, reason := range r.reasons {
		o.Reason = append(o.Reason, reason.String())
	}
	for it := range r.offer.Resources.All() {
		res := marathon.OfferResource{Name: it.Name(), Role: it.Role()}
		switch it.Kind() {
		case resource.KindScalar:
			v := it.Scalar().Float()
			res.Scalar = &v
		case resource.KindRanges:
			for _, rg := range it.Ranges() {
				res.Ranges = append(res.Ranges, marathon.OfferRange{Begin: rg.Begin, End: rg.End})
			}
		case resource.KindSet:
			res.Set = it.Set()
		}
		o.Offer.Resources = append(o.Offer.Resources, res)
	}
	for _, k := range slices.Sorted(maps.Keys(r.offer.Attributes)) {
		o.Offer.Attributes = append(o.Offer.Attributes, marathon.OfferAttribute{Name: k, Text: r.offer.Attributes[k]})
	}
	return o
}

// stats groups an app's instances as the API does.
func (e *Engine) stats(a *marathon.App, st *app, now time.Time) *marathon.TaskStatsByFilter {
	type sample struct {
		n     int
		c     marathon.Counts
		lives []float64
	}
	add := func(s *sample, i *instance) {
		s.n++
		s.c.Staged += i.counted.Staged
		s.c.Running += i.counted.Running
		s.c.Healthy += i.counted.Healthy
		s.c.Unhealthy += i.counted.Unhealthy
		if !i.st.Started.IsZero() {
			s.lives = append(s.lives, now.Sub(i.st.Started).Seconds())
		}
	}
	var scaled, latest, outdated, total sample
	for _, i := range st.instances {
		add(&total, i)
		if marathon.Time(i.rec.Launched) >= a.VersionInfo.LastScalingAt {
			add(&scaled, i)
		}
		if i.rec.Config == a.VersionInfo.LastConfigChangeAt {
			add(&latest, i)
		} else {
			add(&outdated, i)
		}
	}
	wrap := func(s sample) *marathon.TaskStats {
		if s.n == 0 {
			return nil
		}
		t := &marathon.TaskStats{Stats: marathon.Stats{Counts: s.c}}
		if len(s.lives) > 0 {
			slices.Sort(s.lives)
			var sum float64
			for _, l := range s.lives {
				sum += l
			}
			t.Stats.LifeTime = &marathon.LifeTime{AverageSeconds: sum / float64(len(s.lives)), MedianSeconds: s.lives[len(s.lives)/2]}
		}
		return t
	}
	return &marathon.TaskStatsByFilter{
		StartedAfterLastScaling: wrap(scaled), WithLatestConfig: wrap(latest), WithOutdatedConfig: wrap(outdated), TotalSummary: wrap(total),
	}
}

// Numbers are gauges for /metrics.
type Numbers struct {
	Apps, Instances, Staged, Running, Healthy, Unhealthy, Deployments, Queued int
}

// Numbers counts what the engine holds. It costs O(apps).
func (e *Engine) Numbers() Numbers {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := Numbers{Apps: e.tree.Len(), Instances: len(e.instances), Deployments: len(e.deployments)}
	for _, a := range e.apps {
		n.Staged += a.counts.Staged
		n.Running += a.counts.Running
		n.Healthy += a.counts.Healthy
		n.Unhealthy += a.counts.Unhealthy
		n.Queued += a.queue.want
	}
	return n
}

// TaskMissing is the error for a task that nobody knows.
func TaskMissing(id string) error {
	return fault.New("find task", fault.NotFound, fmt.Errorf("Task '%s' does not exist", id))
}
