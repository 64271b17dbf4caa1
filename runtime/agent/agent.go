// Package agent runs tasks on one host. It offers the host's resources to the
// leading master, runs what the master sends in containers, watches their
// health, and reports every change until it is acknowledged. Containers and
// their logs live outside this process: an agent that stops, crashes or is
// upgraded finds its tasks again.
//
// Each task has one goroutine, its session, which walks the states of package
// life and ends when the task is done or the agent stops. Everything a session
// has promised is in package checkpoint before it is promised.
package agent

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	mesos "dcos.example/dcos/runtime/api/mesos"

	"dcos.example/dcos/runtime/agent/checkpoint"
	"dcos.example/dcos/runtime/agent/container"
	"dcos.example/dcos/runtime/agent/fetch"
	"dcos.example/dcos/runtime/agent/files"
	"dcos.example/dcos/runtime/agent/httpapi"
	"dcos.example/dcos/runtime/agent/link"
	"dcos.example/dcos/runtime/agent/network"
	"dcos.example/dcos/runtime/agent/sandbox"
	"dcos.example/dcos/runtime/agent/secret"
	"dcos.example/dcos/runtime/agent/status"
	"dcos.example/dcos/runtime/agent/volume"
	"dcos.example/dcos/runtime/api/agentlink"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/resource"
)

// ErrShutdown ends Run when the master has sent the agent away: its id is gone
// for good and its tasks were killed. Started again, the agent registers anew.
var ErrShutdown = errors.New("the master has removed this agent")

// containers is what the agent needs of a container driver.
type containers interface {
	container.Driver
	Exec(ctx context.Context, id string, c container.Command) (container.Process, error)
	Stats(ctx context.Context, id string) (container.Stats, error)
}

// networks is what the agent needs of the host's container networks.
type networks interface {
	Attach(context.Context, network.Request) (network.Attachment, error)
	Detach(ctx context.Context, id string) error
	Get(id string) (network.Attachment, bool)
	IDs() []string
}

// Options configure an Agent.
type Options struct {
	Config config.Agent
	// Masters returns the base URLs of all masters, "https://10.0.0.1:5050", as
	// they are now.
	Masters func() []string
	Client  *http.Client // presents the agent's certificate to masters
	Log     *slog.Logger
	Version string // of this software
	Port    int    // of the agent's API, default config.PortAgent

	// Containers and Networks replace what the host offers: containerd at
	// Config.Containerd, and the bridge of Config.Bridge.
	Containers containers
	Networks   networks
	// ImagesDir holds OCI archives that are loaded at start, default
	// /opt/dcos/current/images. PlainHTTP lists registries without TLS.
	ImagesDir string
	PlainHTTP []string
	// SecretsDir is where tasks' secrets are while they run, in memory; default
	// config.RunDir + "/agent/secrets".
	SecretsDir string
	// Fetch downloads URIs of tasks.
	Fetch fetch.Fetcher
}

// Agent runs the tasks of one host. Make it with New, then call Run once.
type Agent struct {
	o         Options
	started   time.Time
	resources resource.Resources
	attrs     []*mesos.Attribute
	boot      string
	layout    sandbox.Layout
	volumes   volume.Layout
	meter     volume.Meter
	secrets   secret.Store
	store     *checkpoint.Store
	updates   *status.Manager
	files     *files.Tree
	link      *link.Link
	handler   http.Handler

	driver containers
	nets   networks

	// Set by Run before anything uses them. Sessions live under base, as they
	// outlive the connection that brought their task.
	base     context.Context
	unlink   context.CancelCauseFunc
	sessions sync.WaitGroup

	mu     sync.Mutex
	self   checkpoint.Agent
	kept   kept
	tasks  map[status.Key]*task
	done   []*task // finished ones, oldest first
	counts map[mesos.TaskState]int
}

// maxDone is how many finished tasks the agent still shows.
const maxDone = 150

// New prepares an agent. It reads the configuration and the agent's own
// checkpoint and does nothing else yet.
func New(o Options) (*Agent, error) {
	const op = "set up agent"
	if o.Masters == nil || o.Client == nil || o.Log == nil {
		return nil, fault.Newf(op, fault.Invalid, "masters, client and log must be given")
	}
	if o.Port == 0 {
		o.Port = config.PortAgent
	}
	if o.ImagesDir == "" {
		o.ImagesDir = config.CurrentLink + "/images"
	}
	if o.SecretsDir == "" {
		o.SecretsDir = config.RunDir + "/agent/secrets"
	}
	store, err := checkpoint.Open(filepath.Join(o.Config.WorkDir, "meta"))
	if err != nil {
		return nil, err
	}
	a := &Agent{
		o: o, started: time.Now(), store: store, layout: sandbox.Layout{Work: o.Config.WorkDir}, files: files.New(),
		volumes: volume.Layout{Work: o.Config.WorkDir}, secrets: secret.Store{Dir: o.SecretsDir},
		tasks: make(map[status.Key]*task), counts: make(map[mesos.TaskState]int),
	}
	var errs [5]error
	a.resources, errs[0] = resources(o.Config)
	a.attrs, errs[1] = attributes(o.Config)
	a.boot, errs[2] = bootID()
	a.self, _, errs[3] = store.LoadAgent()
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fault.New(op, fault.KindOf(err), err)
	}
	if err := a.loadKept(); err != nil {
		return nil, err
	}
	a.updates = status.New(a.deliver, o.Log)
	a.link = link.New(link.Options{
		Masters: o.Masters, Client: o.Client, Log: o.Log, Subscribe: a.subscription,
		Handle: a.handle,
	})
	if o.Config.LogFile != "" {
		a.files.Attach("/slave/log", o.Config.LogFile)
	}
	a.handler = httpapi.New(a, a.files, o.Log)
	return a, nil
}

// Handler serves the agent's API, from New on.
func (a *Agent) Handler() http.Handler { return a.handler }

// LocalHandler is the part of it for callers on this host that nobody vouches
// for.
func (a *Agent) LocalHandler() http.Handler { return httpapi.Views(a.handler) }

// Run runs the agent until ctx ends, and then leaves all tasks running. It
// returns ErrShutdown when the master removed the agent.
func (a *Agent) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	a.base = ctx
	closeDriver, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer closeDriver()
	defer a.sessions.Wait()
	if err := a.recover(ctx); err != nil {
		cancel(err)
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { a.updates.Run(ctx) })
	wg.Go(func() {
		c := sandbox.Collector{Layout: a.layout, Log: a.o.Log, Live: a.inUse}
		c.Run(ctx, time.Minute)
	})
	if s, ok := a.driver.(imageStore); ok {
		wg.Go(func() { a.collectImages(ctx, s) })
	}
	lctx, unlink := context.WithCancelCause(ctx)
	defer unlink(nil)
	a.unlink = unlink
	a.link.Run(lctx)
	if errors.Is(context.Cause(lctx), ErrShutdown) {
		err = a.leave(ctx)
	}
	cancel(err)
	return err
}

// connect reaches the host's containers and networks. containerd may start
// after the agent, so it is awaited.
func (a *Agent) connect(ctx context.Context) (func(), error) {
	a.setDriver(a.o.Containers)
	a.nets = a.o.Networks
	if a.nets == nil {
		n, err := network.New(network.Options{
			Bridge: a.o.Config.Bridge, StateDir: filepath.Join(a.o.Config.WorkDir, "meta", "network"), Log: a.o.Log,
		})
		if err != nil {
			return nil, err
		}
		a.nets = n
	}
	if a.driver != nil {
		return func() {}, nil
	}
	for waited := false; ; waited = true {
		d, err := container.NewContainerd(ctx, container.Options{
			Socket: a.o.Config.Containerd, PlainHTTP: a.o.PlainHTTP, Log: a.o.Log,
			Hide:     []string{config.VarDir + "/containerd", config.RunDir},
			Registry: container.Registry{Host: config.RegistryHost, Endpoints: a.registries, Client: a.o.Client},
		})
		if err == nil {
			a.setDriver(d)
			names, err := d.Import(ctx, a.o.ImagesDir)
			if err != nil {
				a.o.Log.Error("load images", "dir", a.o.ImagesDir, "error", err)
			}
			a.o.Log.Info("images are ready", "dir", a.o.ImagesDir, "count", len(names))
			return func() {
				if err := d.Close(); err != nil {
					a.o.Log.Debug("close containerd client", "error", err)
				}
			}, nil
		}
		if !fault.Is(err, fault.Unavailable) || ctx.Err() != nil {
			return nil, err
		}
		if !waited {
			a.o.Log.Warn("waiting for containerd", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// setDriver is seen by views, which may ask before the agent is connected.
func (a *Agent) setDriver(d containers) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.driver = d
}

// leave kills everything and forgets the agent's id.
func (a *Agent) leave(ctx context.Context) error {
	a.o.Log.Error("the master has removed this agent: killing its tasks")
	a.mu.Lock()
	var live []*task
	for _, t := range a.tasks {
		live = append(live, t)
	}
	a.mu.Unlock()
	for _, t := range live {
		t.kill(killRequest{message: "The agent was removed from the cluster", grace: noGrace})
	}
	for _, t := range live {
		select {
		case <-t.ended:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := t.log.Remove(); err != nil {
			return err
		}
	}
	a.mu.Lock()
	a.self, a.kept = checkpoint.Agent{BootID: a.boot}, kept{total: a.resources}
	err := a.store.SaveAgent(a.self)
	a.mu.Unlock()
	return errors.Join(ErrShutdown, err, a.setVolumesAside())
}

// info is the agent as the master knows it.
func (a *Agent) info() *mesos.AgentInfo {
	info := &mesos.AgentInfo{
		Hostname:   proto.String(a.o.Config.Host.Addr.String()),
		Port:       proto.Int32(int32(a.o.Port)),
		Resources:  a.resources.Proto(),
		Attributes: a.attrs,
	}
	if a.self.ID != "" {
		info.Id = &mesos.AgentID{Value: proto.String(a.self.ID)}
	}
	return info
}

// endpoint is where the agent's API is.
func (a *Agent) endpoint() string {
	return a.o.Config.Host.Addr.String() + ":" + strconv.Itoa(a.o.Port)
}

// subscription is everything a new leader must know.
func (a *Agent) subscription() *agentlink.Subscribe {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := &agentlink.Subscribe{
		Agent: a.info(), Version: proto.String(a.o.Version), BootId: proto.String(a.boot), Endpoint: proto.String(a.endpoint()),
		Capabilities: capabilities(),
	}
	frameworks := map[string]*mesos.FrameworkInfo{}
	for k, t := range a.tasks {
		frameworks[k.Framework] = t.fw()
		s.Tasks = append(s.Tasks, t.proto())
	}
	for _, f := range frameworks {
		s.Frameworks = append(s.Frameworks, f)
	}
	s.CheckpointedResources, s.Operations = a.kept.resources, a.kept.operations
	return s
}

func capabilities() (out []*mesos.AgentInfo_Capability) {
	for _, c := range []mesos.AgentInfo_Capability_Type{
		mesos.AgentInfo_Capability_MULTI_ROLE, mesos.AgentInfo_Capability_HIERARCHICAL_ROLE,
		mesos.AgentInfo_Capability_RESERVATION_REFINEMENT, mesos.AgentInfo_Capability_AGENT_DRAINING,
		mesos.AgentInfo_Capability_TASK_RESOURCE_LIMITS, mesos.AgentInfo_Capability_AGENT_OPERATION_FEEDBACK,
	} {
		out = append(out, &mesos.AgentInfo_Capability{Type: c.Enum()})
	}
	return out
}

// deliver sends status updates to the leader.
func (a *Agent) deliver(ctx context.Context, batch []*agentlink.StatusUpdate) error {
	return a.link.Send(ctx, &agentlink.Uplink{StatusUpdates: batch})
}

// handle takes one message of the master.
func (a *Agent) handle(ctx context.Context, d *agentlink.Downlink) error {
	switch {
	case d.GetRegistered() != nil:
		return a.registered(d.GetRegistered())
	case d.GetRunTask() != nil:
		return a.launch(d.GetRunTask())
	case d.GetRunTaskGroup() != nil:
		return a.refuseGroup(d.GetRunTaskGroup())
	case d.GetKillTask() != nil:
		k := d.GetKillTask()
		a.kill(status.Key{Framework: k.GetFrameworkId().GetValue(), Task: k.GetTaskId().GetValue()}, k.GetKillPolicy())
	case d.GetAcknowledge() != nil:
		return a.acknowledge(d.GetAcknowledge())
	case d.GetShutdownFramework() != nil:
		a.killFramework(d.GetShutdownFramework().GetFrameworkId().GetValue())
	case d.GetUpdateFramework() != nil:
		f := d.GetUpdateFramework().GetFramework()
		a.mu.Lock()
		for k, t := range a.tasks {
			if k.Framework == f.GetId().GetValue() {
				t.setFramework(f)
			}
		}
		a.mu.Unlock()
	case d.GetCheckpointResources() != nil:
		return a.checkpointResources(ctx, d.GetCheckpointResources())
	case d.GetShutdown() != nil:
		a.unlink(ErrShutdown)
		return fault.New("follow master", fault.Denied, ErrShutdown)
	case d.GetShutdownExecutor() != nil, d.GetFrameworkMessage() != nil:
		a.o.Log.Warn("dropped a message for an executor: this agent has none")
	}
	return nil
}

func (a *Agent) registered(r *agentlink.Registered) error {
	a.mu.Lock()
	id := r.GetAgentId().GetValue()
	if a.self.ID != id || a.self.BootID != a.boot {
		a.self.ID, a.self.BootID = id, a.boot
		if err := a.store.SaveAgent(a.self); err != nil {
			a.mu.Unlock()
			return err
		}
	}
	a.mu.Unlock()
	a.files.Attach("/frameworks", filepath.Join(a.layout.Agent(id), "frameworks"))
	a.files.Attach(a.layout.Agents(), a.layout.Agents())
	a.o.Log.Info("registered", "id", id, "master", a.link.Leader())
	a.updates.Resend()
	return nil
}

func (a *Agent) acknowledge(m *agentlink.Acknowledge) error {
	k := status.Key{Framework: m.GetFrameworkId().GetValue(), Task: m.GetTaskId().GetValue()}
	done, err := a.updates.Acknowledge(k, m.GetUuid())
	if err != nil || !done {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if t := a.tasks[k]; t != nil {
		delete(a.tasks, k)
		a.done = append(a.done, t)
		if n := len(a.done) - maxDone; n > 0 {
			a.done = a.done[n:]
		}
	}
	return nil
}

func (a *Agent) kill(k status.Key, p *mesos.KillPolicy) {
	a.mu.Lock()
	t := a.tasks[k]
	a.mu.Unlock()
	if t == nil {
		a.o.Log.Info("asked to kill a task that is not here", "framework", k.Framework, "task", k.Task)
		return
	}
	r := killRequest{grace: graceOf(t.info.GetKillPolicy())}
	if p.GetGracePeriod() != nil {
		r.grace = graceOf(p)
	}
	t.kill(r)
}

func (a *Agent) killFramework(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for k, t := range a.tasks {
		if k.Framework == id {
			t.kill(killRequest{grace: graceOf(t.info.GetKillPolicy()), reason: mesos.TaskStatus_REASON_FRAMEWORK_REMOVED.Enum(), message: "The framework was removed"})
		}
	}
}

// inUse reports whether a container's task is not finished.
func (a *Agent) inUse(containerID string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range a.tasks {
		if t.containerID == containerID {
			return true
		}
	}
	return false
}
