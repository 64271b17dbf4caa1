package agent

import (
	"context"
	"errors"
	"time"

	mesos "dcos.example/dcos/runtime/api/mesos"

	"dcos.example/dcos/runtime/agent/checkpoint"
	"dcos.example/dcos/runtime/agent/container"
	"dcos.example/dcos/runtime/agent/life"
	taskstate "dcos.example/dcos/runtime/task"
)

// recover finds the tasks of a former run of the agent. A task whose container
// is still there goes on; one that never came to run is begun again; one that
// the host's reboot has ended is reported lost. What belongs to no task is
// removed.
func (a *Agent) recover(ctx context.Context) error {
	found, warnings, err := a.store.Load()
	if err != nil {
		return err
	}
	for _, w := range warnings {
		a.o.Log.Warn("damaged checkpoint", "error", w)
	}
	running, err := a.driver.List(ctx)
	if err != nil {
		return err
	}
	a.mu.Lock()
	rebooted := a.self.BootID != "" && a.self.BootID != a.boot
	agentID := a.self.ID
	a.mu.Unlock()
	byID := make(map[string]container.Running, len(running))
	for _, r := range running {
		byID[r.ID] = r
	}
	if err := a.tidyVolumes(); err != nil {
		return err
	}
	known := make(map[string]bool, len(found))
	for _, f := range found {
		known[f.ContainerID] = true
		r, exists := byID[f.ContainerID]
		a.readopt(newTask(f.Launch, f.Log, agentID), f, r, exists, rebooted)
	}
	if err := a.removeOrphans(ctx, running, known); err != nil {
		return err
	}
	if len(found) > 0 {
		a.o.Log.Info("recovered", "tasks", len(found), "containers", len(running), "rebooted", rebooted)
	}
	return nil
}

// readopt enters one task and continues where its session was.
func (a *Agent) readopt(t *task, f checkpoint.Task, r container.Running, exists, rebooted bool) {
	a.mu.Lock()
	a.tasks[t.key] = t
	a.mu.Unlock()
	a.updates.Open(t.key, f.Log, f.Pending)
	if f.Last != nil {
		t.statuses = []*mesos.TaskStatus{f.Last}
		t.healthy = f.Last.Healthy
	}
	if at, ok := a.nets.Get(t.containerID); ok {
		t.attachment = &at
	} else {
		t.attachment = a.hostAttachment()
	}
	ran := f.Last != nil
	switch {
	case ran && taskstate.Terminal(f.Last.GetState()):
		t.state = life.Done
		close(t.ended)
		a.start(func(ctx context.Context) {
			if err := a.cleanUp(ctx, t); err != nil && ctx.Err() == nil {
				a.o.Log.Error("clean up after task", "task", t.key.Task, "error", err)
			}
		})
	case exists && !rebooted:
		t.state = life.Running
		t.pid, t.started = r.PID, r.Started
		if !ran {
			a.push(t, t.status(mesos.TaskState_TASK_RUNNING, mesos.TaskStatus_SOURCE_EXECUTOR))
		}
		if f.Last.GetState() == mesos.TaskState_TASK_KILLING {
			t.kill(killRequest{grace: graceOf(t.info.GetKillPolicy())})
		}
		a.start(func(ctx context.Context) { a.supervise(ctx, t) })
	case !ran && !rebooted:
		a.start(func(ctx context.Context) {
			if err := a.cleanUp(ctx, t); err != nil {
				if ctx.Err() == nil {
					t.move(life.Failed)
					a.finish(t, t.failed(mesos.TaskState_TASK_FAILED, mesos.TaskStatus_REASON_CONTAINER_LAUNCH_FAILED, err.Error()))
				}
				return
			}
			a.runNew(ctx, t)
		})
	default:
		t.state = life.Running
		a.start(func(ctx context.Context) { a.lose(ctx, t, rebooted) })
	}
}

// lose ends a task whose container did not survive.
func (a *Agent) lose(ctx context.Context, t *task, rebooted bool) {
	if err := a.cleanUp(ctx, t); err != nil {
		if ctx.Err() != nil {
			return
		}
		a.o.Log.Error("clean up after task", "task", t.key.Task, "error", err)
	}
	t.move(life.Exited)
	if !rebooted {
		a.finish(t, t.failed(mesos.TaskState_TASK_FAILED, mesos.TaskStatus_REASON_EXECUTOR_TERMINATED, "The container was gone when the agent came back"))
		return
	}
	state := mesos.TaskState_TASK_LOST
	if t.partitionAware() {
		state = mesos.TaskState_TASK_GONE
	}
	a.finish(t, t.failed(state, mesos.TaskStatus_REASON_AGENT_RESTARTED, "The agent's host was restarted"))
}

// removeOrphans removes containers and networks that belong to no task, which
// a crash between a task's end and its clean-up leaves behind.
func (a *Agent) removeOrphans(ctx context.Context, running []container.Running, known map[string]bool) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var errs []error
	for _, r := range running {
		if !known[r.ID] {
			a.o.Log.Warn("removing a container of no task", "container", r.ID)
			errs = append(errs, a.driver.Remove(ctx, r.ID))
		}
	}
	for _, id := range a.nets.IDs() {
		if !known[id] {
			errs = append(errs, a.nets.Detach(ctx, id))
		}
	}
	secrets, err := a.secrets.Containers()
	errs = append(errs, err)
	for _, id := range secrets {
		if !known[id] {
			errs = append(errs, a.secrets.Remove(id))
		}
	}
	return errors.Join(errs...)
}
