package engine

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/scheduler"
	"dcos.example/dcos/runtime/api/service"
	"dcos.example/dcos/runtime/placement"
	"dcos.example/dcos/runtime/service/launch"
	"dcos.example/dcos/runtime/service/plan"
	"dcos.example/dcos/runtime/task"
)

const (
	killRetry     = 30 * time.Second // a kill that was not confirmed is sent again
	firstBackoff  = time.Second      // after the first failure in a row; it doubles
	lastBackoff   = 2 * time.Minute
	backoffForget = 10 * time.Minute // a task that ran so long has not failed in a row
)

func newID() string { return uuid.NewString() }

// instance is one instance of a pod.
type instance struct {
	id  plan.Instance
	rec podRecord
	// What is not stored:
	asked  map[string]time.Time // when a task was last told to end, by task id
	active bool                 // recovery has begun
	reason string               // why it is not launched
	fault  string               // what only another configuration mends
	wanted time.Time            // since when it waits for offers
}

// config is the configuration the instance is at or on its way to.
func (e *Engine) configOf(i *instance) *config { return e.configs[i.rec.Config] }

// hash is what the instance is made of, in c; "" if c has no such pod.
func (i *instance) hash(c *config) string { return c.hash[i.id.Pod] }

// pod is the instance's pod in its configuration.
func (e *Engine) podOf(i *instance) *service.Pod { return e.configOf(i).Spec.Pods.Get(i.id.Pod) }

// live lists the names of tasks that run, sorted.
func (i *instance) live() []string {
	var out []string
	for name, t := range i.rec.Tasks {
		if t.live() {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// stopping reports whether a task is on its way out.
func (i *instance) stopping() bool {
	for _, t := range i.rec.Tasks {
		if t.live() && t.Stop != "" {
			return true
		}
	}
	return false
}

// stop tells tasks of i to end; all of them if keep is nil.
func (e *Engine) stop(i *instance, why string, keep func(name string, t *taskRecord) bool) {
	changed := false
	for name, t := range i.rec.Tasks {
		if t.live() && t.Stop == "" && (keep == nil || !keep(name, t)) {
			t.Stop, changed = why, true
			e.log.Info("stopping", "task", t.ID, "reason", why)
		}
	}
	if changed {
		e.save(i)
	}
}

// pursue sends kills for what is stopping, again if they had no effect.
func (e *Engine) pursue(i *instance, now time.Time) {
	for _, t := range i.rec.Tasks {
		if !t.live() || t.Stop == "" {
			continue
		}
		if at, ok := i.asked[t.ID]; ok && now.Before(at.Add(killRetry)) {
			e.lookAgain(at.Add(killRetry))
			continue
		}
		if !e.flow.connected {
			continue
		}
		if i.asked == nil {
			i.asked = map[string]time.Time{}
		}
		i.asked[t.ID] = now
		e.lookAgain(now.Add(killRetry))
		e.call(killCall(t.ID, i.rec.Agent))
	}
}

func killCall(taskID, agentID string) *scheduler.Call {
	k := &scheduler.Call_Kill{TaskId: &mesos.TaskID{Value: proto.String(taskID)}}
	if agentID != "" {
		k.AgentId = &mesos.AgentID{Value: proto.String(agentID)}
	}
	return &scheduler.Call{Type: scheduler.Call_KILL.Enum(), Kill: k}
}

// ready reports whether a task serves.
func ready(def *service.Task, t *taskRecord) bool {
	if t == nil || t.state() != task.Running || t.Idle {
		return false
	}
	if t.Healthy != nil {
		return *t.Healthy
	}
	return def == nil || !launch.Checked(def)
}

// stale is the token of what is to be done again though nothing has changed.
const stale = "stale"

// token is what a task reaches its goal for in c: what its pod is made of there,
// or, if it runs to its end in each plan, the run of the plan, finish.
func token(c *config, pod, name, finish string) string {
	if def := c.Spec.Pods.Get(pod).Tasks.Get(name); def != nil && def.Goal == service.Finish {
		return finish
	}
	return "pod:" + c.hash[pod]
}

// reached reports whether a task has reached its goal for token.
func (i *instance) reached(name, token string) bool {
	t := i.rec.Tasks[name]
	return t != nil && t.Reached == token
}

// serves lists the tasks that run for ever and have done so in any
// configuration: the instance was in service with them.
func (e *Engine) serves(i *instance) []string {
	var out []string
	for name, def := range e.podOf(i).Tasks.All() {
		if t := i.rec.Tasks[name]; def.Goal == service.Running && t != nil && t.Reached != "" {
			out = append(out, name)
		}
	}
	return out
}

// down reports whether the instance was in service and is not now.
func (e *Engine) down(i *instance) bool {
	if i == nil {
		return false
	}
	if i.rec.Anew || i.rec.Replace != "" {
		return true
	}
	for _, name := range e.serves(i) {
		t := i.rec.Tasks[name]
		if t.Stop != "" || !ready(e.podOf(i).Tasks.Get(name), t) {
			return true
		}
	}
	return false
}

// update takes a task's status. It costs O(1).
func (e *Engine) update(s *mesos.TaskStatus, now time.Time) {
	id := s.GetTaskId().GetValue()
	switch r := e.tasks[id]; {
	case r != nil:
		e.updateRun(r, s, now)
	case e.answered(id, s.GetState(), now):
	case task.Live(s.GetState()) && s.GetState() != task.Killing && s.GetState() != task.Unreachable:
		e.log.Info("killing a task that is no instance's", "task", id, "agent", s.GetAgentId().GetValue())
		e.call(killCall(id, s.GetAgentId().GetValue()))
	}
	if len(s.GetUuid()) == 0 {
		return
	}
	e.out.After(func(ctx context.Context) {
		if err := e.client.Load().Acknowledge(ctx, s); err != nil && e.ctx.Err() == nil {
			e.log.Warn("acknowledge status", "task", id, "err", err)
		}
	})
}

func (e *Engine) updateRun(r *run, s *mesos.TaskStatus, now time.Time) {
	i, t := r.of, r.rec
	heard := s.GetState()
	if !t.live() && !t.away() {
		e.heardOfAgent(i, heard, now) // a question about an ended task is one about its agent
		return
	}
	gone := heard == task.Unknown || heard == task.GoneByOperator
	if heard == task.Unknown { // the master has no such agent
		heard = task.GoneByOperator
	}
	old, since := t.state(), t.Since
	if heard != old && !task.Follows(old, heard) {
		return // late
	}
	changed := heard != old || t.State == ""
	if changed {
		t.State, t.Since = heard.String(), now
		t.Message = s.GetMessage()
		e.log.Info("task", "task", t.ID, "state", t.State, "message", s.GetMessage())
	}
	if a := address(s); a != "" && a != t.Address {
		t.Address, changed = a, true
	}
	switch {
	case task.Terminal(heard):
		e.ended(i, r.name, t, s, now, now.Sub(since))
		if gone {
			e.agentGone(i)
		}
		return
	case heard == task.Unreachable:
		if i.rec.Away.IsZero() {
			i.rec.Away, changed = now, true
			if u := s.GetUnreachableTime(); u != nil {
				i.rec.Away = time.Unix(0, u.GetNanoseconds())
			}
		}
	case !i.rec.Away.IsZero():
		i.rec.Away, changed = time.Time{}, true
	}
	if s.Healthy != nil && (t.Healthy == nil || *t.Healthy != s.GetHealthy()) {
		t.Healthy, changed = proto.Bool(s.GetHealthy()), true
		if !s.GetHealthy() {
			t.Message = s.GetMessage()
		}
	}
	if heard == task.Running && e.came(i, r.name, t) {
		changed = true
	}
	if changed {
		e.save(i)
	}
}

// came notes what a running task proves, and whether that is news.
func (e *Engine) came(i *instance, name string, t *taskRecord) bool {
	news := false
	for v, rec := range i.rec.Volumes {
		if !rec.Made {
			rec.Made = true
			i.rec.Volumes[v] = rec
			news = true
		}
	}
	c := e.configs[t.Config]
	def := c.Spec.Pods.Get(i.id.Pod).Tasks.Get(name)
	if def.Goal == service.Running && t.Reached != t.Token && ready(def, t) {
		t.Reached, t.Message, news = t.Token, "", true
	}
	return news
}

func address(s *mesos.TaskStatus) string {
	for _, n := range s.GetContainerStatus().GetNetworkInfos() {
		for _, ip := range n.GetIpAddresses() {
			return ip.GetIpAddress()
		}
	}
	return ""
}

// ended handles a terminal status.
func (e *Engine) ended(i *instance, name string, t *taskRecord, s *mesos.TaskStatus, now time.Time, ran time.Duration) {
	c := e.configs[t.Config]
	def := c.Spec.Pods.Get(i.id.Pod).Tasks.Get(name)
	delete(i.asked, t.ID)
	meant := t.Stop != ""
	t.Healthy, t.Stop = nil, ""
	switch {
	case s.GetState() == task.Finished && def.Goal != service.Running && !t.Idle:
		t.Reached, t.Failures, t.Retry = t.Token, 0, time.Time{}
		e.came(i, name, t)
	case meant || t.Idle:
		t.Failures, t.Retry = 0, time.Time{}
	default:
		if ran > backoffForget {
			t.Failures = 0
		}
		t.Retry = now.Add(min(firstBackoff<<min(t.Failures, 10), lastBackoff))
		t.Failures++
		e.log.Warn("task failed", "task", t.ID, "state", t.State, "message", s.GetMessage(), "again", t.Retry)
		if def.IsEssential() && def.Goal == service.Running {
			e.stop(i, "task "+name+", which is essential, has failed", func(other string, _ *taskRecord) bool {
				d := c.Spec.Pods.Get(i.id.Pod).Tasks.Get(other)
				return d != nil && d.Goal != service.Running
			})
		}
	}
	e.save(i)
}

// reconcile asks the master about every task that may run, and for those we do
// not know.
func (e *Engine) reconcile(now time.Time) {
	var tasks []*scheduler.Call_Reconcile_Task
	for id, r := range e.tasks {
		if r.rec.live() || r.rec.away() {
			tasks = append(tasks, question(id, r.of.rec.Agent))
		}
	}
	for chunk := range slices.Chunk(tasks, 1000) {
		e.call(&scheduler.Call{Type: scheduler.Call_RECONCILE.Enum(), Reconcile: &scheduler.Call_Reconcile{Tasks: chunk}})
	}
	// Without tasks the master tells all it has.
	e.call(&scheduler.Call{Type: scheduler.Call_RECONCILE.Enum(), Reconcile: &scheduler.Call_Reconcile{}})
	e.flow.reconciled = now
}

func question(taskID, agentID string) *scheduler.Call_Reconcile_Task {
	return &scheduler.Call_Reconcile_Task{
		TaskId: &mesos.TaskID{Value: proto.String(taskID)}, AgentId: &mesos.AgentID{Value: proto.String(agentID)},
	}
}

// heardOfAgent takes an answer about an ended task for what it says of the
// instance's agent.
func (e *Engine) heardOfAgent(i *instance, s mesos.TaskState, now time.Time) {
	switch {
	case s == task.Unknown || s == task.GoneByOperator:
		e.agentGone(i)
	case s == task.Unreachable && i.rec.Away.IsZero():
		i.rec.Away = now
		e.save(i)
	case s != task.Unreachable && !i.rec.Away.IsZero():
		i.rec.Away = time.Time{}
		e.save(i)
	}
}

// agentGone gives an instance up whose agent never returns.
func (e *Engine) agentGone(i *instance) {
	if i.rec.Replace == "" && i.rec.Agent != "" {
		e.log.Warn("agent is gone for good, its instance is made anew", "pod", i.id.String(), "agent", i.rec.Agent)
		i.rec.Replace = "agent " + i.rec.Place.Host + " is gone for good"
		e.save(i)
	}
}

// giveUp turns what an instance has on its agent into a claim.
func (e *Engine) giveUp(i *instance, now time.Time) {
	if i.rec.Agent == "" {
		return
	}
	c := claimRecord{Pod: i.id.String(), Agent: i.rec.Agent, Host: i.rec.Place.Host, Since: now, Decommission: i.rec.Decommission}
	for _, name := range slices.Sorted(maps.Keys(i.rec.Tasks)) {
		if t := i.rec.Tasks[name]; t.ID != "" {
			c.Task = t.ID
			delete(e.tasks, t.ID)
		}
	}
	e.claims[i.rec.Reservation] = &claim{claimRecord: c}
	e.put(kindClaim, i.rec.Reservation, c)
}

// renew makes an instance one without a place. What its tasks have reached is
// forgotten with their data, but for what was of the plans.
func (e *Engine) renew(i *instance, now time.Time) {
	e.log.Info("instance is made anew", "pod", i.id.String(), "host", i.rec.Place.Host, "reason", i.rec.Replace)
	e.giveUp(i, now)
	if e.deployed(i) {
		if !i.rec.Anew {
			i.rec.Replaced = i.rec.Address
		}
		i.rec.Anew = true
	} else {
		i.rec.Done, i.rec.Step = nil, "" // deploy does it, from its first step
	}
	i.rec.Agent, i.rec.Place, i.rec.Address, i.rec.Away = "", placement.Place{}, "", time.Time{}
	i.rec.Reservation, i.rec.Volumes, i.rec.Ports, i.rec.Tasks = newID(), nil, nil, map[string]*taskRecord{}
	i.rec.Replace, i.reason, i.fault, i.active = "", "", "", false
	e.save(i)
}

// answered takes the answer to a question about a claim's agent.
func (e *Engine) answered(taskID string, s mesos.TaskState, now time.Time) bool {
	for id, c := range e.claims {
		if c.Task != taskID {
			continue
		}
		switch {
		case s == task.GoneByOperator || s == task.Unknown:
			e.log.Warn("what was reserved went with its agent", "pod", c.Pod, "agent", c.Agent)
			e.settle(id)
		case s == task.Unreachable:
			c.away = true
		case task.Live(s) && s != task.Killing:
			return false // it came back with its agent: it is a stranger, to be killed
		default:
			c.away = false
		}
		return true
	}
	return false
}

// taskID names a run as the SDK does.
func taskID(serviceName, task string) string {
	return strings.ReplaceAll(serviceName, "/", ".") + "__" + task + "__" + newID()
}
