package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	mesos "dcos.example/dcos/runtime/api/mesos"

	"dcos.example/dcos/runtime/agent/check"
	"dcos.example/dcos/runtime/agent/checkpoint"
	"dcos.example/dcos/runtime/agent/container"
	"dcos.example/dcos/runtime/agent/fetch"
	"dcos.example/dcos/runtime/agent/life"
	"dcos.example/dcos/runtime/agent/network"
	"dcos.example/dcos/runtime/agent/status"
	"dcos.example/dcos/runtime/api/agentlink"
	"dcos.example/dcos/runtime/fault"
)

var errKilled = errors.New("the task was killed before it ran")

// launch accepts a task: from here on it is on disk, and its end is reported
// whatever happens.
func (a *Agent) launch(m *agentlink.RunTask) error {
	t, err := a.accept(m.GetFramework(), m.GetTask())
	if err != nil || t == nil {
		return err
	}
	if err := a.entrusted(t.info); err != nil {
		state := mesos.TaskState_TASK_LOST
		if t.partitionAware() {
			state = mesos.TaskState_TASK_DROPPED
		}
		t.move(life.Failed)
		a.finish(t, t.failed(state, mesos.TaskStatus_REASON_INVALID_OFFERS, err.Error()))
		return nil
	}
	a.start(func(ctx context.Context) { a.runNew(ctx, t) })
	return nil
}

// accept makes the record of a new task; nil if the task is here already,
// which happens when the master repeats itself.
func (a *Agent) accept(fw *mesos.FrameworkInfo, ti *mesos.TaskInfo) (*task, error) {
	k := status.Key{Framework: fw.GetId().GetValue(), Task: ti.GetTaskId().GetValue()}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.tasks[k] != nil {
		a.o.Log.Info("told twice to run a task", "task", k.Task)
		return nil, nil
	}
	id := uuid.NewString()
	l := checkpoint.Launch{ContainerID: id, Sandbox: a.layout.Run(a.self.ID, k.Framework, k.Task, id), Framework: fw, Task: ti}
	log, err := a.store.Begin(l)
	if err != nil {
		return nil, err
	}
	t := newTask(l, log, a.self.ID)
	a.tasks[k] = t
	a.updates.Open(k, log, nil)
	return t, nil
}

func newTask(l checkpoint.Launch, log *checkpoint.Log, agentID string) *task {
	return &task{
		key:  status.Key{Framework: l.Framework.GetId().GetValue(), Task: l.Task.GetTaskId().GetValue()},
		info: l.Task, framework: l.Framework, containerID: l.ContainerID, sandbox: l.Sandbox, agentID: agentID, log: log,
		kills: make(chan killRequest, 1), ended: make(chan struct{}), cancel: func() {},
	}
}

// start begins a task's session. It outlives the connection to the master and
// ends with the agent.
func (a *Agent) start(run func(context.Context)) {
	a.sessions.Go(func() { run(a.base) })
}

// refuseGroup answers a task group, whose executor this agent does not have.
func (a *Agent) refuseGroup(m *agentlink.RunTaskGroup) error {
	for _, ti := range m.GetTaskGroup().GetTasks() {
		t, err := a.accept(m.GetFramework(), ti)
		if err != nil || t == nil {
			return err
		}
		t.move(life.Failed)
		a.finish(t, t.failed(mesos.TaskState_TASK_FAILED, mesos.TaskStatus_REASON_CONTAINER_LAUNCH_FAILED,
			"This agent does not run task groups yet: launch the tasks one by one"))
	}
	return nil
}

// failed makes the terminal update of a task that did not come to run.
func (t *task) failed(st mesos.TaskState, reason mesos.TaskStatus_Reason, message string) *mesos.TaskStatus {
	s := t.status(st, mesos.TaskStatus_SOURCE_AGENT)
	s.Reason, s.Message = reason.Enum(), proto.String(message)
	return s
}

// push records an update and has it sent.
func (a *Agent) push(t *task, s *mesos.TaskStatus) {
	if err := a.updates.Push(t.key, s); err != nil {
		a.o.Log.Error("record status update", "task", t.key.Task, "state", s.GetState().String(), "error", err)
		return
	}
	t.remember(s)
}

// finish pushes the terminal update. Nothing of the task runs any more.
func (a *Agent) finish(t *task, s *mesos.TaskStatus) {
	a.push(t, s)
	a.mu.Lock()
	a.counts[s.GetState()]++
	a.mu.Unlock()
	a.o.Log.Info("task is done", "task", t.key.Task, "framework", t.key.Framework, "state", s.GetState().String(), "reason", s.GetMessage())
	close(t.ended)
}

// runNew takes a task from its first file to its end.
func (a *Agent) runNew(ctx context.Context, t *task) {
	lctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	t.mu.Lock()
	t.cancel = func() { cancel(errKilled) }
	if t.killing {
		cancel(errKilled)
	}
	t.mu.Unlock()
	d, err := describe(t.info, t.containerID, t.sandbox, a.volumes)
	if err != nil {
		t.move(life.Failed)
		a.finish(t, t.failed(mesos.TaskState_TASK_ERROR, mesos.TaskStatus_REASON_TASK_INVALID, err.Error()))
		return
	}
	if err := a.prepare(lctx, t, &d); err != nil {
		a.giveUp(ctx, lctx, t, err)
		return
	}
	t.move(life.Fetched)
	if err := a.begin(lctx, t, d); err != nil {
		a.giveUp(ctx, lctx, t, err)
		return
	}
	t.move(life.Launched)
	a.push(t, t.status(mesos.TaskState_TASK_RUNNING, mesos.TaskStatus_SOURCE_EXECUTOR))
	a.supervise(ctx, t)
}

// giveUp ends a task that did not come to run. When the agent itself is
// stopping, the task is left for its next run.
func (a *Agent) giveUp(ctx, lctx context.Context, t *task, err error) {
	if ctx.Err() != nil {
		return
	}
	cctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if cerr := a.cleanUp(cctx, t); cerr != nil {
		a.o.Log.Error("clean up after task", "task", t.key.Task, "error", cerr)
	}
	if errors.Is(context.Cause(lctx), errKilled) {
		r := <-t.kills
		if t.state == life.Starting {
			t.move(life.Killed)
			t.move(life.Failed)
		} else {
			t.move(life.Killed)
		}
		reason, message := mesos.TaskStatus_REASON_TASK_KILLED_DURING_LAUNCH, "Killed before the task ran"
		if r.reason != nil {
			reason, message = *r.reason, r.message
		}
		a.finish(t, t.failed(mesos.TaskState_TASK_KILLED, reason, message))
		return
	}
	t.move(life.Failed)
	state, reason := mesos.TaskState_TASK_FAILED, mesos.TaskStatus_REASON_CONTAINER_LAUNCH_FAILED
	a.finish(t, t.failed(state, reason, err.Error()))
}

// prepare makes the sandbox and fetches into it.
func (a *Agent) prepare(ctx context.Context, t *task, d *described) error {
	owner, err := a.owner(t, d)
	if err != nil {
		return err
	}
	a.mu.Lock()
	agent := a.self.ID
	a.mu.Unlock()
	if t.agentID != "" {
		agent = t.agentID
	}
	if _, err := a.layout.Create(agent, t.key.Framework, t.key.Task, t.containerID, owner.UID, owner.GID); err != nil {
		return err
	}
	for _, v := range d.volumes {
		if err := v.Ready(); err != nil {
			return err
		}
	}
	if err := a.writeSecrets(t, d); err != nil {
		return err
	}
	// A volume of the sandbox's own is made if it is not there.
	for _, m := range d.spec.Mounts {
		if rel, err := filepath.Rel(t.sandbox, m.Source); err == nil && filepath.IsLocal(rel) && rel != "." {
			if err := os.MkdirAll(m.Source, 0o755); err != nil {
				return fault.New("make sandbox volume", fault.Internal, err)
			}
		}
	}
	uris := t.info.GetCommand().GetUris()
	if len(uris) == 0 {
		return nil
	}
	out, err := os.OpenFile(filepath.Join(t.sandbox, "stderr"), os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fault.New("open sandbox log", fault.Internal, err)
	}
	defer out.Close()
	if err := a.o.Fetch.Fetch(ctx, uris, t.sandbox, owner, out); err != nil {
		return fault.Newf("fetch URIs", fault.KindOf(err), "Failed to fetch all URIs for container '%s': %w", t.containerID, err)
	}
	return nil
}

// writeSecrets puts secrets where the container finds them.
func (a *Agent) writeSecrets(t *task, d *described) error {
	if len(d.secrets) == 0 {
		return nil
	}
	var all [][]byte
	for _, s := range d.secrets {
		all = append(all, s.data)
	}
	files, err := a.secrets.Write(t.containerID, all)
	if err != nil {
		return err
	}
	for i, s := range d.secrets {
		d.spec.Mounts = append(d.spec.Mounts, container.Mount{Source: files[i], Target: s.target, ReadOnly: s.readOnly, Give: container.GiveAll})
	}
	return nil
}

// owner is who owns the sandbox: the task's user if the host knows it. The
// users of an image are the image's business.
func (a *Agent) owner(t *task, d *described) (fetch.Owner, error) {
	name := d.spec.User
	if name == "" && d.spec.Image == "" {
		name = t.fw().GetUser()
		d.spec.User = name
	}
	name, _, _ = strings.Cut(name, ":")
	if name == "" {
		return fetch.Owner{}, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		u, err = user.LookupId(name)
	}
	if err != nil {
		if d.spec.Image != "" {
			return fetch.Owner{}, nil
		}
		return fetch.Owner{}, fault.Newf("find user", fault.Invalid, "user %q does not exist on this host", name)
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	if err := errors.Join(err1, err2); err != nil {
		return fetch.Owner{}, fault.New("find user", fault.Internal, err)
	}
	return fetch.Owner{UID: uid, GID: gid}, nil
}

// begin gives the container its network and starts it.
func (a *Agent) begin(ctx context.Context, t *task, d described) error {
	address := a.o.Config.Host.Addr.String()
	if d.network != nil {
		at, err := a.nets.Attach(ctx, *d.network)
		if err != nil {
			return err
		}
		t.mu.Lock()
		t.attachment = &at
		t.mu.Unlock()
		d.spec.Netns = at.Netns
		if len(at.IPs) > 0 {
			address = at.IPs[0].String()
		}
	} else {
		t.mu.Lock()
		t.attachment = a.hostAttachment()
		t.mu.Unlock()
	}
	if err := a.networkFiles(t, &d); err != nil {
		return err
	}
	d.spec.Env = append(a.environment(t, d, address), d.spec.Env...)
	d.spec.Labels = map[string]string{
		"dcos/framework": t.key.Framework, "dcos/task": t.key.Task, "dcos/name": t.info.GetName(),
	}
	r, err := a.driver.Start(ctx, d.spec)
	if err != nil {
		return err
	}
	t.mu.Lock()
	t.pid, t.started = r.PID, r.Started
	t.mu.Unlock()
	return nil
}

// hostAttachment describes the host's own network.
func (a *Agent) hostAttachment() *network.Attachment {
	return &network.Attachment{IPs: []netip.Addr{a.o.Config.Host.Addr}}
}

// environment is what Mesos tells every task about itself.
func (a *Agent) environment(t *task, d described, address string) []string {
	inside := t.sandbox
	if d.spec.Image != "" {
		inside = sandboxMount
	}
	role := ""
	for _, r := range t.info.GetResources() {
		if role = r.GetAllocationInfo().GetRole(); role != "" {
			break
		}
	}
	return []string{
		"MESOS_SANDBOX=" + inside, "MESOS_DIRECTORY=" + t.sandbox,
		"MESOS_TASK_ID=" + t.key.Task, "MESOS_EXECUTOR_ID=" + t.key.Task,
		"MESOS_FRAMEWORK_ID=" + t.key.Framework, "MESOS_SLAVE_ID=" + t.agentID,
		"MESOS_SLAVE_PID=slave(1)@" + a.endpoint(), "MESOS_AGENT_ENDPOINT=" + a.endpoint(),
		"MESOS_CONTAINER_NAME=mesos-" + t.containerID, "MESOS_CONTAINER_IP=" + address,
		"MESOS_ALLOCATION_ROLE=" + role, "LIBPROCESS_IP=" + address,
	}
}

// cleanUp removes what a task has on the host beside its sandbox. It may be
// repeated.
func (a *Agent) cleanUp(ctx context.Context, t *task) error {
	return errors.Join(
		a.driver.Remove(ctx, t.containerID),
		a.nets.Detach(ctx, t.containerID),
		os.RemoveAll(filepath.Join(a.o.Config.WorkDir, "meta", "etc", t.containerID)),
		a.secrets.Remove(t.containerID),
	)
}

// supervise watches a task that runs until it has ended.
func (a *Agent) supervise(ctx context.Context, t *task) {
	sctx, stop := context.WithCancel(ctx)
	defer stop()
	exits := make(chan outcome, 1)
	go func() {
		e, err := a.driver.Wait(sctx, t.containerID)
		exits <- outcome{e, err}
	}()
	reports := make(chan check.Report)
	checked := make(chan struct{})
	go func() {
		defer close(checked)
		a.check(sctx, t, reports)
	}()
	defer func() { stop(); <-checked }()

	var deadline, quiet, hard <-chan time.Time
	if d := t.info.GetMaxCompletionTime(); d != nil {
		deadline = time.After(time.Duration(d.GetNanoseconds()) - time.Since(t.started))
	}
	var last killRequest
	killed := false
	for {
		select {
		case <-ctx.Done():
			<-exits // of this session; the container runs on
			return
		case o := <-exits:
			stop()
			a.end(ctx, t, o, killed, last)
			return
		case r := <-t.kills:
			var pause time.Duration
			if !killed {
				t.move(life.Killed)
				if r.state == nil && a.announceKill(t, r) && behindVIP(t.info) {
					pause = min(lull, r.grace/2)
				}
				last = r
			}
			killed = true
			if pause > 0 {
				last.grace -= pause
				quiet = time.After(pause)
				continue
			}
			quiet = nil
			hard = a.terminate(ctx, t, r)
		case <-quiet:
			hard = a.terminate(ctx, t, last)
		case <-hard:
			a.signal(ctx, t, syscall.SIGKILL)
			hard = time.After(defaultGrace) // again, if the engine was away
		case <-deadline:
			t.kill(killRequest{
				grace: graceOf(t.info.GetKillPolicy()), state: mesos.TaskState_TASK_FAILED.Enum(),
				reason:  mesos.TaskStatus_REASON_MAX_COMPLETION_TIME_REACHED.Enum(),
				message: "Task ran longer than its maximum completion time",
			})
		case r := <-reports:
			if !killed {
				a.health(t, r)
			}
		}
	}
}

type outcome struct {
	container.Exit
	err error
}

// lull is how long a task behind a VIP runs on after it was announced that it
// ends: in that time the hosts stop sending it connections. It is part of the
// task's grace period, and at most half of it.
const lull = 500 * time.Millisecond

// behindVIP reports whether a port of the task has a VIP.
func behindVIP(info *mesos.TaskInfo) bool {
	for _, p := range info.GetDiscovery().GetPorts().GetPorts() {
		for _, l := range p.GetLabels().GetLabels() {
			if strings.HasPrefix(l.GetKey(), "VIP") {
				return true
			}
		}
	}
	return false
}

// announceKill tells a framework that wants to know that the task is ending,
// and reports whether it does.
func (a *Agent) announceKill(t *task, r killRequest) bool {
	for _, c := range t.fw().GetCapabilities() {
		if c.GetType() == mesos.FrameworkInfo_Capability_TASK_KILLING_STATE {
			s := t.status(mesos.TaskState_TASK_KILLING, mesos.TaskStatus_SOURCE_EXECUTOR)
			if r.message != "" {
				s.Message = proto.String(r.message)
			}
			a.push(t, s)
			return true
		}
	}
	return false
}

// terminate asks the task to end and returns when it must have.
func (a *Agent) terminate(ctx context.Context, t *task, r killRequest) <-chan time.Time {
	if r.grace < 0 {
		a.signal(ctx, t, syscall.SIGKILL)
		return time.After(defaultGrace)
	}
	a.signal(ctx, t, syscall.SIGTERM)
	return time.After(r.grace)
}

// signal reaches every process of the task, except for SIGTERM to an image's
// own program, which as in Docker goes to that program alone.
func (a *Agent) signal(ctx context.Context, t *task, sig syscall.Signal) {
	c := t.info.GetCommand()
	shell := c.GetShell() && c.GetValue() != ""
	all := sig == syscall.SIGKILL || shell || !isDocker(t.info)
	if err := a.driver.Signal(ctx, t.containerID, sig, all); err != nil {
		a.o.Log.Warn("signal task", "task", t.key.Task, "signal", sig.String(), "error", err)
	}
}

// health reports a change of health, and kills a task that failed too often.
func (a *Agent) health(t *task, r check.Report) {
	t.mu.Lock()
	t.healthy = &r.Healthy
	t.mu.Unlock()
	s := t.status(mesos.TaskState_TASK_RUNNING, mesos.TaskStatus_SOURCE_EXECUTOR)
	s.Reason = mesos.TaskStatus_REASON_TASK_HEALTH_CHECK_STATUS_UPDATED.Enum()
	if r.Message != "" {
		s.Message = proto.String(r.Message)
	}
	a.push(t, s)
	if r.Kill {
		t.kill(killRequest{grace: graceOf(t.info.GetKillPolicy()), message: "Health checks failed too often in a row: " + r.Message})
	}
}

// check runs the task's health checks.
func (a *Agent) check(ctx context.Context, t *task, out chan<- check.Report) {
	checks := checksOf(t.info)
	if len(checks) == 0 {
		return
	}
	t.mu.Lock()
	at, started, healthy := *t.attachment, t.started, t.healthy
	t.mu.Unlock()
	p := &check.Prober{
		Dial: func(ctx context.Context, nw, address string) (net.Conn, error) {
			return network.Dial(ctx, at.Netns, nw, address)
		},
		Exec: func(ctx context.Context, c *mesos.CommandInfo) (int, error) { return a.execCheck(ctx, t, c) },
	}
	if len(at.IPs) > 0 {
		p.Address = at.IPs[0].String()
	}
	check.Run(ctx, checks, p, started, healthy, func(r check.Report) {
		select {
		case out <- r:
		case <-ctx.Done():
		}
	})
}

// execCheck runs the command of a health check in the container.
func (a *Agent) execCheck(ctx context.Context, t *task, c *mesos.CommandInfo) (int, error) {
	args := []string{"/bin/sh", "-c", c.GetValue()}
	if !c.GetShell() {
		args = c.GetArguments()
		if len(args) == 0 {
			args = []string{c.GetValue()}
		}
	}
	var env []string
	for _, v := range c.GetEnvironment().GetVariables() {
		env = append(env, v.GetName()+"="+v.GetValue())
	}
	p, err := a.driver.Exec(ctx, t.containerID, container.Command{Args: args, Env: env})
	if err != nil {
		return 0, err
	}
	code, err := p.Wait(ctx)
	return code, errors.Join(err, p.Close(context.WithoutCancel(ctx)))
}

// end reports how a task has ended, after nothing of it is left.
func (a *Agent) end(ctx context.Context, t *task, o outcome, killed bool, r killRequest) {
	if ctx.Err() != nil { // the agent stops: what it did not see yet it finds when it is back
		return
	}
	// What has begun is finished, or a restart in the middle would report a
	// task whose container is half gone.
	cctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if err := a.cleanUp(cctx, t); err != nil {
		a.o.Log.Error("clean up after task", "task", t.key.Task, "error", err)
	}
	t.move(life.Exited)
	s := t.status(mesos.TaskState_TASK_FAILED, mesos.TaskStatus_SOURCE_EXECUTOR)
	s.Healthy = t.healthy
	switch {
	case o.OOM && !killed:
		s.Reason = mesos.TaskStatus_REASON_CONTAINER_LIMITATION_MEMORY.Enum()
		s.Message = proto.String(fmt.Sprintf("Memory limit exceeded: the kernel killed the task; it may use %s", memoryOf(t.info)))
		s.Source = mesos.TaskStatus_SOURCE_AGENT.Enum()
		for _, res := range t.info.GetResources() {
			if res.GetName() == "mem" {
				s.Limitation = &mesos.TaskResourceLimitation{Resources: []*mesos.Resource{res}}
			}
		}
	case killed:
		s.State = mesos.TaskState_TASK_KILLED.Enum()
		if r.state != nil {
			s.State = r.state
		}
		s.Reason = r.reason
		s.Message = proto.String(exitText(o.Exit))
		if r.message != "" {
			s.Message = proto.String(r.message)
		}
	case o.err != nil:
		s.Reason = mesos.TaskStatus_REASON_EXECUTOR_TERMINATED.Enum()
		s.Message = proto.String("The container vanished: " + o.err.Error())
	case o.Lost:
		s.Reason = mesos.TaskStatus_REASON_EXECUTOR_TERMINATED.Enum()
		s.Message = proto.String("The container ended and its exit status is lost")
	case o.Code == 0:
		s.State = mesos.TaskState_TASK_FINISHED.Enum()
		s.Message = proto.String(exitText(o.Exit))
	default:
		s.Reason = mesos.TaskStatus_REASON_COMMAND_EXECUTOR_FAILED.Enum()
		s.Message = proto.String(exitText(o.Exit))
	}
	a.finish(t, s)
}

func memoryOf(ti *mesos.TaskInfo) string {
	for _, r := range ti.GetResources() {
		if r.GetName() == "mem" {
			return fmt.Sprintf("%g MiB", r.GetScalar().GetValue())
		}
	}
	return "no memory"
}

// exitText words an exit as Mesos does.
func exitText(e container.Exit) string {
	if e.Signal != 0 {
		return fmt.Sprintf("Command terminated with signal %s", e.Signal)
	}
	return fmt.Sprintf("Command exited with status %d", e.Code)
}
