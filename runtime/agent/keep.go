package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"google.golang.org/protobuf/proto"

	mesos "dcos.example/dcos/runtime/api/mesos"

	"dcos.example/dcos/runtime/agent/life"
	"dcos.example/dcos/runtime/agent/volume"
	"dcos.example/dcos/runtime/api/agentlink"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/resource"
)

// kept is what the master entrusted to this agent: the document of the last
// CheckpointResources that is on disk.
type kept struct {
	resources  []*mesos.Resource
	operations []*mesos.Operation

	list    resource.Resources // resources as one value
	total   resource.Resources // of the agent, with the list in it
	volumes []volume.Volume    // of the list
}

// newKept reads a document; it must fit into what the agent has.
func (a *Agent) newKept(rs []*mesos.Resource, ops []*mesos.Operation) (k kept, err error) {
	k.resources, k.operations = rs, ops
	if k.list, err = resource.FromProto(rs); err != nil {
		return k, err
	}
	if k.volumes, err = a.volumes.All(k.list); err != nil {
		return k, err
	}
	k.total, err = total(a.resources, k.list)
	return k, err
}

// total is host with the reservations and volumes of list in it. All that does
// not fit is told at once.
func total(host, list resource.Resources) (resource.Resources, error) {
	var errs []error
	for it := range list.All() {
		now := resource.Of(it)
		was := bare(now)
		if !host.Contains(was) {
			what := fmt.Sprintf("%s of role %s", it.Name(), it.Role())
			if id := it.VolumeID(); id != "" {
				what = fmt.Sprintf("volume %s of role %s", id, it.Role())
			}
			left := host.Filter(func(i resource.Item) bool { return i.Name() == it.Name() && !i.Dynamic() })
			errs = append(errs, fmt.Errorf("%s: %s is taken, and what is left is %q", what, was, left))
			continue
		}
		host = host.Sub(was).Add(now)
	}
	return host, errors.Join(errs...)
}

// bare is what a resource was before it was reserved.
func bare(r resource.Resources) resource.Resources {
	for r = r.WithoutVolumes(); ; {
		for it := range r.All() {
			if !it.Dynamic() {
				return r
			}
		}
		popped, err := r.Pop()
		if err != nil {
			return r
		}
		r = popped
	}
}

// loadKept reads the checkpoint's document, which the host may no longer fit.
func (a *Agent) loadKept() error {
	const op = "take up reservations and volumes"
	var rs []*mesos.Resource
	var ops []*mesos.Operation
	for _, b := range a.self.Checkpointed {
		r := &mesos.Resource{}
		if err := proto.Unmarshal(b, r); err != nil {
			return fault.New(op, fault.Internal, err)
		}
		rs = append(rs, r)
	}
	for _, b := range a.self.Operations {
		o := &mesos.Operation{}
		if err := proto.Unmarshal(b, o); err != nil {
			return fault.New(op, fault.Internal, err)
		}
		ops = append(ops, o)
	}
	k, err := a.newKept(rs, ops)
	if err != nil {
		return fault.Newf(op, fault.Invalid, "this agent has less than frameworks have reserved on it:\n%w\n"+
			"Give it back what it had (resources and reservations in its configuration, its memory, its disks). "+
			"To give up all reservations, volumes and tasks of it instead, drain it and remove %s: it then comes back as a new agent, "+
			"and what is in its volumes is set aside in %s", err, filepath.Join(a.o.Config.WorkDir, "meta"), filepath.Join(a.o.Config.WorkDir, "volumes", "aside"))
	}
	a.kept = k
	return nil
}

// checkpointResources takes the master's document and answers for it.
func (a *Agent) checkpointResources(ctx context.Context, m *agentlink.CheckpointResources) error {
	answer := &agentlink.ResourcesCheckpointed{Version: proto.Uint64(m.GetVersion())}
	if err := a.keep(m.GetResources(), m.GetOperations()); err != nil {
		a.o.Log.Error("keep reservations and volumes", "version", m.GetVersion(), "error", err)
		answer.Error = proto.String(err.Error())
	}
	return a.link.Send(ctx, &agentlink.Uplink{ResourcesCheckpointed: answer})
}

// keep replaces the document: all of it, or, after an error, nothing.
func (a *Agent) keep(rs []*mesos.Resource, ops []*mesos.Operation) (err error) {
	next, err := a.newKept(rs, ops)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	made, gone := without(next.volumes, a.kept.volumes), without(a.kept.volumes, next.volumes)
	if err := a.unused(gone); err != nil {
		return err
	}
	for i, v := range made {
		aside, merr := v.Make()
		if aside != "" {
			a.o.Log.Warn("data of no known volume was in the way", "volume", v.String(), "now", aside)
		}
		if merr != nil {
			return errors.Join(merr, unmake(made[:i]))
		}
	}
	self := a.self
	self.Checkpointed, err = marshal(rs)
	if err == nil {
		self.Operations, err = marshal(ops)
	}
	if err == nil {
		err = a.store.SaveAgent(self)
	}
	if err != nil {
		return errors.Join(err, unmake(made))
	}
	a.self, a.kept = self, next
	for _, v := range made {
		a.o.Log.Info("made volume", "volume", v.ID, "role", v.Role, "path", v.Path)
	}
	for _, v := range gone {
		left, err := v.Retire()
		if err != nil { // done, all the same: the next start tries again
			a.o.Log.Error("destroy volume", "volume", v.ID, "role", v.Role, "error", err)
			continue
		}
		a.o.Log.Info("destroyed volume", "volume", v.ID, "role", v.Role)
		if left != "" {
			a.start(func(ctx context.Context) { a.discard(ctx, left) })
		}
	}
	return nil
}

// discard removes data that was destroyed.
func (a *Agent) discard(ctx context.Context, dir string) {
	if err := volume.Remove(ctx, dir); err != nil {
		a.o.Log.Error("remove destroyed volume", "path", dir, "error", err)
	}
}

func marshal[M proto.Message](ms []M) (out [][]byte, err error) {
	for _, m := range ms {
		b, err := proto.Marshal(m)
		if err != nil {
			return nil, fault.New("checkpoint resources", fault.Invalid, err)
		}
		out = append(out, b)
	}
	return out, nil
}

func unmake(vs []volume.Volume) error {
	var errs []error
	for _, v := range vs {
		errs = append(errs, v.Unmake())
	}
	return errors.Join(errs...)
}

// without returns the volumes of a that b has not.
func without(a, b []volume.Volume) (out []volume.Volume) {
	have := make(map[string]bool, len(b))
	for _, v := range b {
		have[v.Path] = true
	}
	for _, v := range a {
		if !have[v.Path] {
			out = append(out, v)
		}
	}
	return out
}

// unused refuses to destroy volumes that a task has; a.mu is held.
func (a *Agent) unused(vs []volume.Volume) error {
	if len(vs) == 0 {
		return nil
	}
	var errs []error
	for k, t := range a.tasks {
		t.mu.Lock()
		done := t.state == life.Done
		t.mu.Unlock()
		if done {
			continue
		}
		used, err := resource.FromProto(t.info.GetResources())
		if err != nil {
			continue // it can not have been launched with these
		}
		for it := range used.All() {
			u, _, _ := a.volumes.Of(it) // an error means no volume
			for _, v := range vs {
				if u.Path == v.Path {
					errs = append(errs, fmt.Errorf("%s is used by task %s", v, k.Task))
				}
			}
		}
	}
	if len(errs) > 0 {
		return fault.New("destroy volumes", fault.Conflict, errors.Join(errs...))
	}
	return nil
}

// entrusted reports what of a task's reserved resources the agent does not
// have, which means that the reservation or volume did not come about.
func (a *Agent) entrusted(ti *mesos.TaskInfo) error {
	rs, err := resource.FromProto(ti.GetResources())
	if err != nil {
		return nil // describe says so
	}
	want := rs.Unallocate().Checkpointed()
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.kept.list.Contains(want) {
		return fault.Newf("check resources of task", fault.Conflict, "the task uses %s, and this agent has %s", want, a.kept.list)
	}
	return nil
}

// tidyVolumes brings the disks in line with the checkpoint at the start.
func (a *Agent) tidyVolumes() error {
	a.mu.Lock()
	known, volumes := a.self.ID != "", a.kept.volumes
	a.mu.Unlock()
	if !known { // without a memory nothing here can be told from what is wanted
		return a.setVolumesAside()
	}
	for _, v := range volumes {
		if err := v.Ready(); err != nil {
			a.o.Log.Error("a volume is lost; tasks with it will fail", "error", err)
		}
	}
	left, err := a.volumes.Tidy(a.resources, volumes)
	for _, dir := range left {
		a.start(func(ctx context.Context) { a.discard(ctx, dir) })
	}
	return err
}

func (a *Agent) setVolumesAside() error {
	moved, err := a.volumes.SetAside(a.resources)
	for _, dir := range moved {
		a.o.Log.Warn("volumes of a former agent are set aside; look at them, then remove them", "path", dir)
	}
	return err
}
