package agent

import (
	"context"
	"net/url"
	"strconv"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	mesos "dcos.example/dcos/runtime/api/mesos"

	"dcos.example/dcos/runtime/agent/container"
	"dcos.example/dcos/runtime/agent/httpapi"
	"dcos.example/dcos/runtime/agent/life"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/resource"
)

// View implements httpapi.Source.
func (a *Agent) View() httpapi.View {
	a.mu.Lock()
	defer a.mu.Unlock()
	v := httpapi.View{
		Agent: a.info(), Version: a.o.Version, Endpoint: a.endpoint(), Started: a.started, Resources: a.kept.total, Operations: a.kept.operations,
		Flags: a.flags(), Registered: a.link.Leader() != "", Uptime: time.Since(a.started), Terminal: make(map[string]int),
		PendingUpdates: a.updates.Pending(),
	}
	if u, err := url.Parse(a.link.Leader()); err == nil {
		v.MasterHost = u.Hostname()
	}
	for s, n := range a.counts {
		v.Terminal[s.String()] = n
	}
	for _, t := range a.tasks {
		v.Tasks = append(v.Tasks, t.view())
	}
	for _, t := range a.done {
		v.Tasks = append(v.Tasks, t.view())
	}
	return v
}

func (t *task) view() httpapi.Task {
	p := t.proto()
	t.mu.Lock()
	defer t.mu.Unlock()
	return httpapi.Task{
		Info: t.info, Framework: t.framework, Task: p, ContainerID: t.containerID, Sandbox: t.sandbox,
		Running: t.state == life.Running || t.state == life.Killing, Done: t.state == life.Done, Status: t.containerStatus(),
	}
}

func (a *Agent) flags() map[string]string {
	c := a.o.Config
	return map[string]string{
		"work_dir": c.WorkDir, "resources": c.Resources, "hostname": c.Host.Addr.String(), "port": strconv.Itoa(a.o.Port),
		"containerizers": "mesos,docker", "isolation": "cgroups/cpu,cgroups/mem,cgroups/pids,filesystem/linux,network/bridge,network/cni",
		"bridge": c.Bridge.Name + " " + c.Bridge.Subnet.String(), "containerd": c.Containerd,
		"executor_shutdown_grace_period": "5secs", "gc_delay": "1weeks", "gc_disk_headroom": "0.1",
		"cgroups_enable_cfs": "true", "default_role": map[bool]string{true: publicRole, false: "*"}[c.Public],
	}
}

// running returns the task that runs in a container.
func (a *Agent) running(containerID string) (*task, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range a.tasks {
		if t.containerID == containerID {
			return t, nil
		}
	}
	return nil, fault.Newf("find container", fault.NotFound, "container %s cannot be found", containerID)
}

// Usage implements httpapi.Source.
func (a *Agent) Usage(ctx context.Context, containerID string) (*mesos.ResourceStatistics, error) {
	t, err := a.running(containerID)
	if err != nil {
		return nil, err
	}
	s, err := a.driver.Stats(ctx, containerID)
	if err != nil {
		return nil, err
	}
	r := &mesos.ResourceStatistics{
		Timestamp:             proto.Float64(float64(time.Now().UnixMicro()) / 1e6),
		CpusUserTimeSecs:      proto.Float64(s.CPUUser.Seconds()),
		CpusSystemTimeSecs:    proto.Float64(s.CPUSystem.Seconds()),
		CpusNrPeriods:         proto.Uint32(uint32(s.Periods)),
		CpusNrThrottled:       proto.Uint32(uint32(s.ThrottledPeriods)),
		CpusThrottledTimeSecs: proto.Float64(s.Throttled.Seconds()),
		MemTotalBytes:         proto.Uint64(s.MemoryTotal),
		MemRssBytes:           proto.Uint64(s.MemoryRSS),
		MemCacheBytes:         proto.Uint64(s.MemoryCache),
		Processes:             proto.Uint32(uint32(s.Pids)),
	}
	r.DiskStatistics = a.volumeStatistics(t)
	for _, res := range t.info.GetResources() {
		switch res.GetName() {
		case "cpus":
			r.CpusLimit = proto.Float64(r.GetCpusLimit() + res.GetScalar().GetValue())
		case "mem":
			r.MemLimitBytes = proto.Uint64(r.GetMemLimitBytes() + uint64(res.GetScalar().GetValue()*(1<<20)))
		}
	}
	return r, nil
}

// volumeStatistics is how full the task's volumes are.
func (a *Agent) volumeStatistics(t *task) (out []*mesos.DiskStatistics) {
	for _, res := range t.info.GetResources() {
		if res.GetDisk().GetPersistence() == nil {
			continue
		}
		rs, err := resource.FromProto([]*mesos.Resource{res})
		if err != nil {
			continue // the task has not got this far with it
		}
		for it := range rs.All() {
			v, ok, err := a.volumes.Of(it)
			if err != nil || !ok {
				continue
			}
			d := &mesos.DiskStatistics{
				Persistence: res.GetDisk().GetPersistence(), Source: res.GetDisk().GetSource(),
				LimitBytes: proto.Uint64(uint64(res.GetScalar().GetValue() * (1 << 20))),
			}
			if n, ok := a.meter.Usage(v, time.Now()); ok {
				d.UsedBytes = proto.Uint64(n)
			}
			out = append(out, d)
		}
	}
	return out
}

// Exec implements httpapi.Source.
func (a *Agent) Exec(ctx context.Context, containerID string, c container.Command) (container.Process, error) {
	t, err := a.running(containerID)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	state := t.state
	t.mu.Unlock()
	if state != life.Running && state != life.Killing {
		return nil, fault.Newf("run command in container", fault.Conflict, "task %s is %s", t.key.Task, state)
	}
	return a.driver.Exec(ctx, containerID, c)
}

// Signal implements httpapi.Source.
func (a *Agent) Signal(ctx context.Context, containerID string, sig syscall.Signal) error {
	if _, err := a.running(containerID); err != nil {
		return err
	}
	return a.driver.Signal(ctx, containerID, sig, sig == syscall.SIGKILL)
}

// Ended implements httpapi.Source.
func (a *Agent) Ended(ctx context.Context, containerID string) (*mesos.TaskStatus, error) {
	t, err := a.running(containerID)
	if err != nil {
		return nil, err
	}
	select {
	case <-t.ended:
		t.mu.Lock()
		defer t.mu.Unlock()
		return t.statuses[len(t.statuses)-1], nil
	case <-ctx.Done():
		return nil, fault.New("wait for container", fault.Unavailable, context.Cause(ctx))
	}
}
