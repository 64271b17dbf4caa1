package engine

import (
	"context"
	"strings"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/api/marathon"
	"dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/scheduler"
	"dcos.example/dcos/runtime/orchestrator/deployment"
	"dcos.example/dcos/runtime/orchestrator/event"
	"dcos.example/dcos/runtime/orchestrator/launch"
	"dcos.example/dcos/runtime/orchestrator/spec"
	"dcos.example/dcos/runtime/task"
)

// Times after which the engine insists.
const (
	killRetry     = 30 * time.Second // a kill that was not confirmed is sent again
	launchTimeout = 5 * time.Minute  // an instance still staging is given up
)

// app is what is known of one app beside its wanted definition. It outlives
// the definition while instances are being stopped.
type app struct {
	id          spec.AppID
	active      *marathon.App // the definition in effect now; nil: none
	mode        mode
	instances   map[string]*instance
	onAgent     map[string]int
	counts      marathon.Counts
	old         deployment.Tally // instances of other configurations than active's
	current     deployment.Tally // instances of active's
	leaving     int              // instances on agents to be unavailable
	moveCheck   time.Time        // when it is looked at whether replacements found no place
	rested      time.Time        // the next decision that costs much is made no sooner
	lastFailure *marathon.TaskFailure
	delay       launch.Delay
	queue       queued
}

// app returns the app id, making room for it.
func (e *Engine) app(id spec.AppID) *app {
	a := e.apps[id]
	if a == nil {
		a = &app{id: id, instances: map[string]*instance{}, onAgent: map[string]int{}}
		e.apps[id] = a
	}
	return a
}

// instance is one living instance.
type instance struct {
	rec      instanceRecord
	st       instanceStatusRecord
	inactive bool // unreachable for so long that it is being replaced
	silent   bool // not heard of since this term's subscription
	probing  bool // a readiness probe runs
	probed   *marathon.ReadinessResult
	counted  marathon.Counts  // its part of the app's counts
	tallied  deployment.Tally // and of its tallies
	isOld    bool             // which of the two
	left     bool             // counts as leaving
}

func (i *instance) state() mesos.TaskState {
	s, ok := mesos.TaskState_value[i.st.State]
	if !ok {
		return task.Staging
	}
	return mesos.TaskState(s)
}

func (i *instance) stopping() bool { return i.rec.Stop != "" }

// ready reports whether i serves as a's definition asks.
func (i *instance) ready(a *marathon.App) bool {
	if i.state() != task.Running {
		return false
	}
	if a != nil && len(a.HealthChecks) > 0 && i.rec.Config == a.VersionInfo.LastConfigChangeAt && !i.st.Health.Alive {
		return false
	}
	if i.st.Health.Known && !i.st.Health.Alive {
		return false
	}
	return i.st.Ready || a == nil || len(a.ReadinessChecks) == 0 || i.rec.Config != a.VersionInfo.LastConfigChangeAt
}

func (i *instance) condition() deployment.Condition {
	switch i.state() {
	case task.Unreachable:
		return deployment.Unreachable
	case task.Starting:
		return deployment.Starting
	case task.Running, task.Killing:
		return deployment.Running
	}
	return deployment.Staging
}

// newInstance names an instance of id as Marathon does.
func newInstance(id spec.AppID) (instanceID, taskID string) {
	u, err := uuid.NewUUID() // version 1, as clients expect
	if err != nil {
		u = uuid.New()
	}
	instanceID = id.Flat() + ".instance-" + u.String()
	return instanceID, instanceID + "._app.1"
}

// index adds i to every index.
func (e *Engine) index(i *instance) {
	a := e.app(i.rec.App)
	e.instances[i.rec.ID] = i
	e.tasks[i.rec.Task] = i
	a.instances[i.rec.ID] = i
	a.onAgent[i.rec.Agent]++
	e.count(i)
}

// count brings the app's counts up to date with i, in O(1).
func (e *Engine) count(i *instance) {
	a := e.app(i.rec.App)
	var now marathon.Counts
	switch i.state() {
	case task.Staging, task.Starting:
		now.Staged = 1
	case task.Running:
		now.Running = 1
		if i.st.Health.Known {
			if i.st.Health.Alive {
				now.Healthy = 1
			} else {
				now.Unhealthy = 1
			}
		}
	}
	a.counts.Staged += now.Staged - i.counted.Staged
	a.counts.Running += now.Running - i.counted.Running
	a.counts.Healthy += now.Healthy - i.counted.Healthy
	a.counts.Unhealthy += now.Unhealthy - i.counted.Unhealthy
	i.counted = now
	a.tally(i)
}

// tally brings the tallies up to date with i, in O(1).
func (a *app) tally(i *instance) {
	a.untally(i)
	i.isOld = a.active == nil || i.rec.Config != a.active.VersionInfo.LastConfigChangeAt
	if i.rec.Leaving && i.state() != task.Unreachable { // who is away leaves when back
		i.left, i.isOld = true, true
		a.leaving++
	}
	if i.inactive && a.active != nil {
		return // it is being replaced
	}
	i.tallied.Total = 1
	if !i.stopping() {
		i.tallied.Living = 1
		if i.ready(a.active) {
			i.tallied.Ready = 1
		}
	}
	t := a.part(i)
	*t = t.Plus(i.tallied)
}

func (a *app) untally(i *instance) {
	t := a.part(i)
	*t = t.Plus(deployment.Tally{Total: -i.tallied.Total, Living: -i.tallied.Living, Ready: -i.tallied.Ready})
	i.tallied = deployment.Tally{}
	if i.left {
		i.left = false
		a.leaving--
	}
}

func (a *app) part(i *instance) *deployment.Tally {
	if i.isOld {
		return &a.old
	}
	return &a.current
}

// activate changes the definition in effect. It costs O(instances).
func (a *app) activate(def *marathon.App) {
	if a.active == def {
		return
	}
	a.active = def
	for _, i := range a.instances {
		a.tally(i)
	}
}

// remove forgets an instance that has ended.
func (e *Engine) remove(i *instance) {
	a := e.app(i.rec.App)
	a.counts.Staged -= i.counted.Staged
	a.counts.Running -= i.counted.Running
	a.counts.Healthy -= i.counted.Healthy
	a.counts.Unhealthy -= i.counted.Unhealthy
	a.untally(i)
	delete(a.instances, i.rec.ID)
	if a.onAgent[i.rec.Agent]--; a.onAgent[i.rec.Agent] <= 0 {
		delete(a.onAgent, i.rec.Agent)
	}
	delete(e.instances, i.rec.ID)
	delete(e.tasks, i.rec.Task)
	e.drop(kindInstance, i.rec.ID)
	e.drop(kindInstanceStatus, i.rec.ID)
	e.markDirty(i.rec.App)
}

func (e *Engine) alive(i *instance) bool { return e.instances[i.rec.ID] == i }

// update takes a task's status. Its cost does not depend on how many instances
// there are.
func (e *Engine) update(s *mesos.TaskStatus) {
	now := time.Now()
	i := e.tasks[s.GetTaskId().GetValue()]
	if i == nil {
		e.stranger(s)
	} else {
		i.silent = false
		e.updateInstance(i, s, now)
	}
	if len(s.GetUuid()) == 0 {
		return
	}
	e.out.After(func(ctx context.Context) {
		if err := e.client.Acknowledge(ctx, s); err != nil && e.ctx.Err() == nil {
			e.log.Warn("acknowledge status", "task", s.GetTaskId().GetValue(), "err", err)
		}
	})
}

// stranger handles the status of a task that is no instance: one that was
// given up while its agent was away, or whose launch we were told had failed.
func (e *Engine) stranger(s *mesos.TaskStatus) {
	if !task.Live(s.GetState()) || s.GetState() == task.Killing {
		return
	}
	e.log.Info("killing a task that is no instance", "task", s.GetTaskId().GetValue(), "agent", s.GetAgentId().GetValue())
	e.call(killCall(s.GetTaskId().GetValue(), s.GetAgentId().GetValue()))
}

func killCall(taskID, agentID string) *scheduler.Call {
	k := &scheduler.Call_Kill{TaskId: &mesos.TaskID{Value: proto.String(taskID)}}
	if agentID != "" {
		k.AgentId = &mesos.AgentID{Value: proto.String(agentID)}
	}
	return &scheduler.Call{Type: scheduler.Call_KILL.Enum(), Kill: k}
}

func (e *Engine) updateInstance(i *instance, s *mesos.TaskStatus, now time.Time) {
	heard := s.GetState()
	if heard == task.Unknown {
		heard = task.Gone // the master has no such agent: it will not come back
	}
	old := i.state()
	if heard != old && !task.Follows(old, heard) {
		return // late
	}
	changed := heard != old || i.st.State == ""
	if changed {
		i.st.State, i.st.Since = heard.String(), now
	}
	if task.Terminal(heard) {
		e.ended(i, s, now)
		return
	}
	if !changed && s.Healthy == nil && s.GetReason() == mesos.TaskStatus_REASON_RECONCILIATION {
		return
	}
	if addrs := addresses(s); len(addrs) > 0 {
		i.st.Addresses = addrs
	}
	a := e.app(i.rec.App)
	if heard == task.Running {
		if i.st.Started.IsZero() {
			i.st.Started = now
			a.delay = a.delay.Alive(now)
		}
		i.inactive = false
		i.st.Unreachable = time.Time{}
		if s.Healthy != nil {
			changed = e.healthReported(i, s, now) || changed
		}
	}
	if heard == task.Unreachable && changed {
		i.st.Unreachable = now
		if t := s.GetUnreachableTime(); t != nil {
			i.st.Unreachable = time.Unix(0, t.GetNanoseconds())
		}
	}
	e.put(kindInstanceStatus, i.rec.ID, i.st)
	e.count(i)
	if changed {
		e.announce(i, s)
		e.watchInstance(i)
		e.markDirty(i.rec.App)
	}
}

// healthReported records an agent's verdict and reports whether it is new.
func (e *Engine) healthReported(i *instance, s *mesos.TaskStatus, now time.Time) bool {
	next, changed := i.st.Health.Next(s.GetHealthy(), s.GetMessage(), now)
	i.st.Health = next
	if !s.GetHealthy() {
		e.publish("failed_health_check_event", event.Fields{
			"appId": i.rec.App, "taskId": i.rec.Task, "instanceId": i.rec.ID, "healthCheck": e.firstCheck(i),
		})
	}
	if changed {
		e.publish("health_status_changed_event", event.Fields{
			"appId": i.rec.App, "instanceId": i.rec.ID, "taskId": i.rec.Task, "version": i.rec.Version, "alive": next.Alive,
		})
		e.publish("instance_health_changed_event", event.Fields{
			"instanceId": i.rec.ID, "runSpecId": i.rec.App, "healthy": next.Alive, "runSpecVersion": i.rec.Version,
		})
	}
	return changed
}

func (e *Engine) firstCheck(i *instance) any {
	if a := e.app(i.rec.App).active; a != nil && len(a.HealthChecks) > 0 {
		return a.HealthChecks[0]
	}
	return nil
}

// ended handles a terminal status.
func (e *Engine) ended(i *instance, s *mesos.TaskStatus, now time.Time) {
	a := e.app(i.rec.App)
	state := s.GetState()
	unhealthy := state == task.Killed && !i.stopping() && s.Healthy != nil && !s.GetHealthy()
	if unhealthy {
		e.publish("unhealthy_instance_kill_event", event.Fields{
			"appId": i.rec.App, "taskId": i.rec.Task, "instanceId": i.rec.ID, "version": i.rec.Version,
			"reason": s.GetMessage(), "host": i.rec.Place.Host, "slaveId": i.rec.Agent,
		})
	}
	failed := unhealthy
	switch state {
	case task.Dropped: // its agent may have begun to leave before it got there
		failed = !i.stopping() && !e.departs(i.rec.Agent)
	case task.Failed, task.Error, task.Finished, task.Gone, task.Lost:
		failed = failed || !i.stopping()
	case task.Killed:
	}
	if failed {
		if a.active != nil && i.rec.Config == a.active.VersionInfo.LastConfigChangeAt {
			a.delay = a.delay.Failed(a.active, now)
		}
		if state != task.Finished {
			a.lastFailure = &marathon.TaskFailure{
				AppID: string(i.rec.App), Host: i.rec.Place.Host, Message: s.GetMessage(), State: state.String(),
				TaskID: i.rec.Task, Timestamp: marathon.Time(now), Version: i.rec.Version, SlaveID: i.rec.Agent,
			}
			e.put(kindAppStatus, string(i.rec.App), appStatusRecord{a.lastFailure})
		}
	}
	e.announce(i, s)
	e.remove(i)
}

// announce tells listeners about a status.
func (e *Engine) announce(i *instance, s *mesos.TaskStatus) {
	state := s.GetState().String()
	e.publish("status_update_event", event.Fields{
		"slaveId": i.rec.Agent, "taskId": i.rec.Task, "taskStatus": state, "message": s.GetMessage(),
		"appId": i.rec.App, "host": i.rec.Place.Host, "ipAddresses": nonNil(i.st.Addresses),
		"ports": nonNil(i.rec.HostPorts), "version": i.rec.Version,
	})
	e.publish("instance_changed_event", event.Fields{
		"instanceId": i.rec.ID, "condition": condition(state), "runSpecId": i.rec.App, "agentId": i.rec.Agent,
		"host": i.rec.Place.Host, "runSpecVersion": i.rec.Version,
	})
}

// condition is a task state as instance events spell it: "Running".
func condition(state string) string {
	words := strings.Split(strings.ToLower(strings.TrimPrefix(state, "TASK_")), "_")
	for i, w := range words {
		words[i] = strings.ToUpper(w[:1]) + w[1:]
	}
	return strings.Join(words, "")
}

func nonNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

func addresses(s *mesos.TaskStatus) []marathon.TaskAddress {
	var out []marathon.TaskAddress
	for _, n := range s.GetContainerStatus().GetNetworkInfos() {
		for _, ip := range n.GetIpAddresses() {
			out = append(out, marathon.TaskAddress{IPAddress: ip.GetIpAddress(), Protocol: ip.GetProtocol().String()})
		}
	}
	return out
}

// watchInstance sets what time alone will do to i in its state.
func (e *Engine) watchInstance(i *instance) {
	switch i.state() {
	case task.Staging, task.Starting:
		since := i.rec.Launched
		e.timers.add(since.Add(launchTimeout), func(time.Time) {
			if s := i.state(); e.alive(i) && (s == task.Staging || s == task.Starting) {
				e.kill(i, "it did not start in time")
			}
		})
	case task.Unreachable:
		e.watchUnreachable(i)
	}
}

// watchUnreachable replaces and gives up an unreachable instance in time.
func (e *Engine) watchUnreachable(i *instance) {
	a := e.app(i.rec.App).active
	if a == nil || a.UnreachableStrategy == nil {
		e.expunge(i)
		return
	}
	u := *a.UnreachableStrategy
	if u.Disabled {
		return
	}
	away := i.st.Unreachable
	still := func() bool { return e.alive(i) && i.state() == task.Unreachable && i.st.Unreachable.Equal(away) }
	seconds := func(n int64) time.Time { return away.Add(time.Duration(n) * time.Second) }
	if u.ExpungeAfterSeconds == 0 {
		e.expunge(i)
		return
	}
	e.timers.add(seconds(u.InactiveAfterSeconds), func(time.Time) {
		if still() {
			i.inactive = true
			e.count(i)
			e.markDirty(i.rec.App)
		}
	})
	e.timers.add(seconds(u.ExpungeAfterSeconds), func(time.Time) {
		if still() {
			e.expunge(i)
		}
	})
}

// expunge gives up an instance that nobody can ask. Should its agent come
// back, the task is a stranger and is killed.
func (e *Engine) expunge(i *instance) {
	e.publish("unknown_instance_terminated_event", event.Fields{
		"instanceId": i.rec.ID, "runSpecId": i.rec.App, "condition": "Unreachable",
	})
	e.remove(i)
}

// kill stops an instance; reason is for people.
func (e *Engine) kill(i *instance, reason string) {
	if i.stopping() || !e.alive(i) {
		return
	}
	if i.state() == task.Unreachable {
		e.expunge(i)
		return
	}
	e.log.Info("killing", "task", i.rec.Task, "agent", i.rec.Agent, "why", reason)
	i.rec.Stop = reason
	e.count(i)
	e.put(kindInstance, i.rec.ID, i.rec)
	e.markDirty(i.rec.App)
	e.retryKill(i, 0)
}

// retryKill sends the kill after a pause, and again until i is gone.
func (e *Engine) retryKill(i *instance, pause time.Duration) {
	send := func(now time.Time) {
		if !e.alive(i) {
			return
		}
		if i.state() == task.Unreachable {
			e.expunge(i)
			return
		}
		if e.client != nil {
			e.call(killCall(i.rec.Task, i.rec.Agent))
		}
		e.retryKill(i, killRetry)
	}
	e.timers.add(time.Now().Add(pause), send)
}
