package agent

import (
	"sync"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	mesos "dcos.example/dcos/runtime/api/mesos"

	"dcos.example/dcos/runtime/agent/checkpoint"
	"dcos.example/dcos/runtime/agent/life"
	"dcos.example/dcos/runtime/agent/network"
	"dcos.example/dcos/runtime/agent/status"
	taskstate "dcos.example/dcos/runtime/task"
)

// defaultGrace is how long a task may take to end before it is killed hard.
const defaultGrace = 5 * time.Second

// noGrace asks for a hard kill at once.
const noGrace = -1

func graceOf(p *mesos.KillPolicy) time.Duration {
	if p.GetGracePeriod() == nil {
		return defaultGrace
	}
	return max(0, time.Duration(p.GetGracePeriod().GetNanoseconds()))
}

// killRequest says how a task is to be ended.
type killRequest struct {
	grace   time.Duration // until SIGKILL; noGrace: at once
	state   *mesos.TaskState
	reason  *mesos.TaskStatus_Reason
	message string
}

// task is one task on this agent. Fields above mu do not change.
type task struct {
	key         status.Key
	info        *mesos.TaskInfo
	containerID string
	sandbox     string
	agentID     string
	log         *checkpoint.Log
	kills       chan killRequest // newest request wins
	cancel      func()           // ends fetching and starting
	ended       chan struct{}    // closed when nothing of it runs any more

	mu         sync.Mutex
	framework  *mesos.FrameworkInfo
	state      life.State
	killing    bool // somebody has asked
	statuses   []*mesos.TaskStatus
	healthy    *bool
	pid        int
	started    time.Time
	attachment *network.Attachment
}

// kill asks the session to end the task. It never blocks; of several requests
// that wait, the newest counts.
func (t *task) kill(r killRequest) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.killing = true
	select {
	case <-t.kills:
	default:
	}
	t.kills <- r
	if t.state == life.Fetching || t.state == life.Starting {
		t.cancel()
	}
}

func (t *task) fw() *mesos.FrameworkInfo {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.framework
}

func (t *task) setFramework(f *mesos.FrameworkInfo) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.framework = f
}

// move follows an event; what cannot happen is a bug in the session.
func (t *task) move(e life.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next, err := life.Next(t.state, e)
	if err != nil {
		panic("task " + t.key.Task + ": " + err.Error())
	}
	t.state = next
}

// status makes an update of the task's state with what is known of it.
func (t *task) status(st mesos.TaskState, source mesos.TaskStatus_Source) *mesos.TaskStatus {
	id := uuid.New()
	s := &mesos.TaskStatus{
		TaskId: t.info.GetTaskId(), State: st.Enum(), Source: source.Enum(),
		AgentId:    &mesos.AgentID{Value: proto.String(t.agentID)},
		ExecutorId: &mesos.ExecutorID{Value: t.info.GetTaskId().Value},
		Timestamp:  proto.Float64(float64(time.Now().UnixMicro()) / 1e6),
		Uuid:       id[:],
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s.Healthy = t.healthy
	s.ContainerStatus = t.containerStatus()
	return s
}

// containerStatus is called with the lock held.
func (t *task) containerStatus() *mesos.ContainerStatus {
	cs := &mesos.ContainerStatus{ContainerId: &mesos.ContainerID{Value: proto.String(t.containerID)}}
	if t.pid > 0 {
		cs.ExecutorPid = proto.Uint32(uint32(t.pid))
	}
	if t.attachment != nil {
		ni := &mesos.NetworkInfo{}
		if t.attachment.Network != "" {
			ni.Name = proto.String(t.attachment.Network)
		} else if infos := t.info.GetContainer().GetNetworkInfos(); len(infos) > 0 {
			ni.Name, ni.Labels = infos[0].Name, infos[0].Labels
		}
		for _, ip := range t.attachment.IPs {
			p := mesos.NetworkInfo_IPv4
			if ip.Is6() {
				p = mesos.NetworkInfo_IPv6
			}
			ni.IpAddresses = append(ni.IpAddresses, &mesos.NetworkInfo_IPAddress{Protocol: p.Enum(), IpAddress: proto.String(ip.String())})
		}
		for _, p := range t.attachment.Ports {
			ni.PortMappings = append(ni.PortMappings, &mesos.NetworkInfo_PortMapping{
				HostPort: proto.Uint32(uint32(p.Host)), ContainerPort: proto.Uint32(uint32(p.Container)), Protocol: proto.String(p.Protocol),
			})
		}
		cs.NetworkInfos = []*mesos.NetworkInfo{ni}
	}
	return cs
}

// partitionAware reports whether the framework knows more ways of being lost
// than one.
func (t *task) partitionAware() bool {
	for _, c := range t.fw().GetCapabilities() {
		if c.GetType() == mesos.FrameworkInfo_Capability_PARTITION_AWARE {
			return true
		}
	}
	return false
}

// remember keeps an update that was pushed: the first and latest of each
// state, as Mesos shows them.
func (t *task) remember(s *mesos.TaskStatus) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.statuses); n > 0 && t.statuses[n-1].GetState() == s.GetState() {
		t.statuses[n-1] = s
		return
	}
	t.statuses = append(t.statuses, s)
}

// latest is the newest state that was pushed.
func (t *task) latest() mesos.TaskState {
	if n := len(t.statuses); n > 0 {
		return t.statuses[n-1].GetState()
	}
	return mesos.TaskState_TASK_STAGING
}

// proto is the task as other components know it.
func (t *task) proto() *mesos.Task {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := &mesos.Task{
		Name: t.info.Name, TaskId: t.info.TaskId, FrameworkId: &mesos.FrameworkID{Value: proto.String(t.key.Framework)},
		AgentId: &mesos.AgentID{Value: proto.String(t.agentID)}, State: t.latest().Enum(), Resources: t.info.Resources,
		Statuses: append([]*mesos.TaskStatus(nil), t.statuses...), Labels: t.info.Labels, Discovery: t.info.Discovery, Container: taskstate.WithoutSecrets(t.info.Container),
		HealthCheck: t.info.HealthCheck, KillPolicy: t.info.KillPolicy, Limits: t.info.Limits,
	}
	if u := t.info.GetCommand().GetUser(); u != "" {
		out.User = proto.String(u)
	}
	if n := len(t.statuses); n > 0 {
		out.StatusUpdateState = t.statuses[n-1].State
		out.StatusUpdateUuid = t.statuses[n-1].Uuid
	}
	return out
}
