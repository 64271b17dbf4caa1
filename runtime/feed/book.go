package feed

import (
	"net/netip"
	"net/url"
	"time"

	"dcos.example/dcos/runtime/api/mesos/master"
	"dcos.example/dcos/runtime/task"
)

// book is the view being written, by one goroutine. Every event costs O(1)
// plus the copying that shards describes; a snapshot costs its own size, and
// the removal of an agent or a framework one pass over all tasks.
type book struct {
	leader     string
	leaderAddr netip.Addr
	agents     shards[task.AgentID, *Agent]
	frameworks shards[task.FrameworkID, *Framework]
	tasks      shards[TaskKey, *Task]

	// waiting are tasks of the view before the last snapshot that the new
	// leader has not confirmed, by their agent.
	waiting map[task.AgentID]*wait
}

// wait is for one agent to come back with its tasks.
type wait struct {
	tasks map[TaskKey]struct{}
	// deadline is when the tasks are dropped; zero while the master itself
	// waits for the agent.
	deadline time.Time
	// absent is set while the agent is only in the view for its tasks' sake,
	// which would have no address without it.
	absent bool
}

func newBook() *book { return &book{waiting: map[task.AgentID]*wait{}} }

func (b *book) publish(revision uint64) *View {
	return &View{
		revision: revision, leader: b.leader, leaderAddr: b.leaderAddr,
		agents: b.agents.freeze(), frameworks: b.frameworks.freeze(), tasks: b.tasks.freeze(),
	}
}

// lead notes the base URL of the master that the events come from.
func (b *book) lead(base string) {
	b.leader, b.leaderAddr = base, netip.Addr{}
	if u, err := url.Parse(base); err == nil {
		b.leaderAddr, _ = netip.ParseAddr(u.Hostname())
	}
}

// apply takes over one event and returns whether anything changed.
func (b *book) apply(e *master.Event, now time.Time, confirm, unlisted time.Duration) bool {
	switch e.GetType() {
	case master.Event_SUBSCRIBED:
		b.snapshot(e.GetSubscribed().GetGetState(), now, unlisted)
	case master.Event_TASK_ADDED:
		b.addTask(newTask(e.GetTaskAdded().GetTask()))
	case master.Event_TASK_UPDATED:
		return b.updateTask(e.GetTaskUpdated())
	case master.Event_AGENT_ADDED:
		a := newAgent(e.GetAgentAdded().GetAgent())
		b.agents.set(a.ID, a)
		if w := b.waiting[a.ID]; w != nil {
			w.absent, w.deadline = false, now.Add(confirm)
		}
	case master.Event_AGENT_REMOVED:
		b.removeAgent(task.AgentID(e.GetAgentRemoved().GetAgentId().GetValue()))
	case master.Event_FRAMEWORK_ADDED:
		fw := e.GetFrameworkAdded().GetFramework()
		b.addFramework(newFramework(fw.GetFrameworkInfo(), fw.GetActive()))
	case master.Event_FRAMEWORK_UPDATED:
		fw := e.GetFrameworkUpdated().GetFramework()
		b.addFramework(newFramework(fw.GetFrameworkInfo(), fw.GetActive()))
	case master.Event_FRAMEWORK_REMOVED:
		b.removeFramework(task.FrameworkID(e.GetFrameworkRemoved().GetFrameworkInfo().GetId().GetValue()))
	default: // heartbeats, and events of a newer protocol
		return false
	}
	return true
}

// snapshot replaces everything but the tasks of agents that the master waits
// for.
func (b *book) snapshot(s *master.Response_GetState, now time.Time, unlisted time.Duration) {
	old := *b
	*b = *newBook()
	b.leader, b.leaderAddr = old.leader, old.leaderAddr
	registered, recovered := map[task.AgentID]bool{}, map[task.AgentID]bool{}
	for _, a := range s.GetGetAgents().GetAgents() {
		agent := newAgent(a)
		registered[agent.ID] = true
		b.agents.set(agent.ID, agent)
	}
	for _, a := range s.GetGetAgents().GetRecoveredAgents() {
		recovered[task.AgentID(a.GetId().GetValue())] = true
	}
	for _, fw := range s.GetGetFrameworks().GetFrameworks() {
		b.addFramework(newFramework(fw.GetFrameworkInfo(), fw.GetActive()))
	}
	for _, t := range s.GetGetTasks().GetTasks() {
		b.addTask(newTask(t))
	}
	for _, t := range s.GetGetTasks().GetUnreachableTasks() {
		b.addTask(newTask(t))
	}
	for k, t := range old.tasks.all() {
		if _, known := b.tasks.get(k); known || registered[t.Agent] {
			continue // in the second case its agent came without it
		}
		deadline := time.Time{}
		if !recovered[t.Agent] {
			deadline = now.Add(unlisted)
			if was := old.waiting[t.Agent]; was != nil && !was.deadline.IsZero() && was.deadline.Before(deadline) {
				deadline = was.deadline // a second fail-over does not start the clock anew
			}
		}
		b.keep(t, deadline, &old)
	}
}

// keep takes t over from an old view until deadline.
func (b *book) keep(t *Task, deadline time.Time, old *book) {
	b.tasks.set(t.TaskKey, t)
	w := b.waiting[t.Agent]
	if w == nil {
		w = &wait{tasks: map[TaskKey]struct{}{}, deadline: deadline}
		b.waiting[t.Agent] = w
		if a, ok := old.agents.get(t.Agent); ok {
			away := *a
			away.Active, w.absent = false, true
			b.agents.set(a.ID, &away)
		}
	}
	w.tasks[t.TaskKey] = struct{}{}
	if fw, ok := old.frameworks.get(t.Framework); ok {
		if _, known := b.frameworks.get(fw.ID); !known {
			b.frameworks.set(fw.ID, fw)
		}
	}
}

// confirm notes that the leader knows a task, and returns whether it was
// waited for.
func (b *book) confirm(agent task.AgentID, k TaskKey) bool {
	w := b.waiting[agent]
	if w == nil {
		return false
	}
	_, waited := w.tasks[k]
	delete(w.tasks, k)
	return waited
}

func (b *book) addTask(t *Task) {
	b.confirm(t.Agent, t.TaskKey)
	if task.Terminal(t.State) {
		b.tasks.delete(t.TaskKey)
		return
	}
	if fw, ok := b.frameworks.get(t.Framework); ok {
		t.FrameworkName = fw.Name
	}
	b.tasks.set(t.TaskKey, t)
}

func (b *book) updateTask(u *master.Event_TaskUpdated) bool {
	s := u.GetStatus()
	k := TaskKey{task.FrameworkID(u.GetFrameworkId().GetValue()), task.ID(s.GetTaskId().GetValue())}
	old, ok := b.tasks.get(k)
	if !ok {
		return false
	}
	b.confirm(old.Agent, k)
	if task.Terminal(u.GetState()) {
		b.tasks.delete(k)
		return true
	}
	t := *old // published views share the old one
	t.State = u.GetState()
	t.report(s)
	b.tasks.set(k, &t)
	return true
}

func (b *book) removeAgent(id task.AgentID) {
	b.agents.delete(id)
	defer delete(b.waiting, id)
	for k, t := range b.tasks.all() {
		if t.Agent != id {
			continue
		}
		if b.confirm(id, k) { // the old view knew it, the leader does not
			b.tasks.delete(k)
			continue
		}
		lost := *t // until the master says what became of it
		lost.State = task.Unreachable
		b.tasks.set(k, &lost)
	}
}

// addFramework also renames the tasks that came before their framework.
func (b *book) addFramework(fw *Framework) {
	old, known := b.frameworks.get(fw.ID)
	b.frameworks.set(fw.ID, fw)
	if known && old.Name == fw.Name || b.tasks.n == 0 {
		return
	}
	for k, t := range b.tasks.all() {
		if t.Framework == fw.ID && t.FrameworkName != fw.Name {
			renamed := *t
			renamed.FrameworkName = fw.Name
			b.tasks.set(k, &renamed)
		}
	}
}

func (b *book) removeFramework(id task.FrameworkID) {
	b.frameworks.delete(id)
	for k, t := range b.tasks.all() {
		if t.Framework == id {
			b.confirm(t.Agent, k)
			b.tasks.delete(k)
		}
	}
}

// sweep drops tasks that were waited for long enough, and agents that were in
// the view only for their sake. It returns the next deadline, zero when there
// is none.
func (b *book) sweep(now time.Time) (dropped bool, next time.Time) {
	for id, w := range b.waiting {
		expired := !w.deadline.IsZero() && !w.deadline.After(now)
		if !expired && len(w.tasks) > 0 {
			if !w.deadline.IsZero() && (next.IsZero() || w.deadline.Before(next)) {
				next = w.deadline
			}
			continue
		}
		for k := range w.tasks {
			b.tasks.delete(k)
		}
		if w.absent {
			b.agents.delete(id)
		}
		dropped = dropped || w.absent || len(w.tasks) > 0
		delete(b.waiting, id)
	}
	return dropped, next
}
