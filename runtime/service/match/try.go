package match

import (
	"slices"

	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/resource"
	"dcos.example/dcos/runtime/service/spec"
)

// try lays w on an agent's offers, or says everything that stands against it.
func (m *matcher) try(w *Want, i int, f *fit) {
	left := m.states[i].left
	f.own = left.Filter(func(it resource.Item) bool { return it.Role() == m.set.Role && ReservationOf(it) == w.Reservation })
	have, missing := m.volumes(w, f)
	t := trial{
		want: w, fit: f, role: m.set.Role,
		pool: plain(f.own).Sub(f.surplus), used: plain(w.InUse),
		free: left.Filter(func(it resource.Item) bool { return !it.Reserved() && it.Disk() == nil }),
	}
	disk := w.Need.Disk
	for _, v := range missing {
		disk += v.Size
	}
	t.scalar(resource.CPUs, w.Need.CPUs)
	t.scalar(resource.Mem, w.Need.Mem)
	t.scalar(resource.Disk, disk)
	t.scalar(resource.GPUs, w.Need.GPUs)
	t.ports(m.set.Random)
	if f.failed {
		return
	}
	reserved, err := f.fresh.Push(reservation(m.set.Role, w.Reservation))
	if err != nil {
		f.fail("reservation", "%v", err)
		return
	}
	f.reserve = reserved
	t.pool = t.pool.Add(reserved)
	for _, v := range missing {
		made, ok := t.create(v)
		if !ok {
			f.fail("volume "+v.Name, "%s MiB cannot be made into a volume", v.Size)
			return
		}
		f.create = f.create.Add(made)
		have = append(have, made)
	}
	t.tasks(have)
}

// volumes sorts the want's volumes into those that are offered, and those to be
// made.
func (m *matcher) volumes(w *Want, f *fit) (have []resource.Resources, missing []Volume) {
	known := map[string]bool{}
	for _, v := range w.Volumes {
		known[v.ID] = true
		here := f.own.Filter(func(it resource.Item) bool { return it.VolumeID() == v.ID })
		switch {
		case !here.Empty():
			have = append(have, here)
			f.pass("volume "+v.Name, "volume %s is there", v.ID)
		case v.Exists:
			f.fail("volume "+v.Name, "the agent does not offer volume %s, with the data of %s; if it is lost for good, replace the pod", v.ID, w.Name)
		default:
			missing = append(missing, v)
		}
	}
	f.surplus = f.own.Filter(func(it resource.Item) bool { return it.VolumeID() != "" && !known[it.VolumeID()] })
	return have, missing
}

// plain is rs without volumes.
func plain(rs resource.Resources) resource.Resources {
	return rs.Filter(func(it resource.Item) bool { return it.VolumeID() == "" })
}

// trial is one want on one agent.
type trial struct {
	want *Want
	fit  *fit
	role string
	pool resource.Resources // reserved for the want and not in use
	used resource.Resources // reserved for it and in use
	free resource.Resources // unreserved
}

// scalar makes the reservation of one kind as large as it should be.
func (t *trial) scalar(name string, need resource.Fixed) {
	have := t.pool.Scalar(name) + t.used.Scalar(name)
	switch {
	case need > have:
		taken, rest, ok := t.free.Take(name, need-have, resource.AnyRole)
		if !ok {
			t.fit.fail(name, "%s more needed, %s offered", need-have, t.free.Scalar(name))
			return
		}
		t.free, t.fit.fresh = rest, t.fit.fresh.Add(taken)
		t.fit.pass(name, "%s of %s offered", need-have, taken.Add(rest).Scalar(name))
	case have > need:
		taken, rest, ok := t.pool.Take(name, min(have-need, t.pool.Scalar(name)), t.role)
		if ok {
			t.pool, t.fit.surplus = rest, t.fit.surplus.Add(taken)
		}
		fallthrough
	default:
		if need > 0 {
			t.fit.pass(name, "%s reserved", need)
		}
	}
}

// ports reserves the ports: those fixed or had, and others by chance, so that a
// port is not reused at once.
func (t *trial) ports(random func(uint64) uint64) {
	own, used := t.pool.Ports(), t.used.Ports()
	free := t.free.PortsFor(resource.AnyRole)
	var take, keep []uint64
	choose, all := t.want.Ports[:0:0], true
	claim := func(key string, n uint64) {
		t.fit.placed.Ports[key] = int(n)
		free = free.Minus(resource.NewRanges(resource.Range{Begin: n, End: n}))
	}
	for _, p := range t.want.Ports {
		n := uint64(max(p.Fixed, p.Had))
		switch {
		case p.Fixed != 0:
			n = uint64(p.Fixed)
			fallthrough
		case n != 0 && (own.Has(n) || used.Has(n) || free.Has(n)):
			switch {
			case own.Has(n):
				keep = append(keep, n)
			case used.Has(n):
			case free.Has(n):
				take = append(take, n)
			default:
				t.fit.fail("ports", "port %d for %s is not free on the agent", n, p.Key)
				all = false
				continue
			}
			claim(p.Key, n)
		default:
			choose = append(choose, p)
		}
	}
	for k, p := range choose {
		count := free.Count()
		if count == 0 {
			t.fit.fail("ports", "no port is free for %s and %d others", p.Key, len(choose)-k-1)
			return
		}
		n := free.At(random(count))
		take = append(take, n)
		claim(p.Key, n)
	}
	taken, rest, ok := t.free.TakePorts(take, resource.AnyRole)
	if !ok { // two keys with one fixed port, which validation refuses
		t.fit.fail("ports", "ports are asked for twice")
		return
	}
	t.free, t.fit.fresh = rest, t.fit.fresh.Add(taken)
	var over []uint64
	for _, r := range own {
		for n := r.Begin; n <= r.End; n++ {
			if !slices.Contains(keep, n) {
				over = append(over, n)
			}
		}
	}
	if taken, rest, ok := t.pool.TakePorts(over, t.role); ok {
		t.pool, t.fit.surplus = rest, t.fit.surplus.Add(taken)
	}
	if len(t.want.Ports) > 0 && all {
		t.fit.pass("ports", "%d ports", len(t.want.Ports))
	}
}

// create makes a volume of disk in the pool.
func (t *trial) create(v Volume) (resource.Resources, bool) {
	taken, rest, ok := t.pool.Take(resource.Disk, v.Size, t.role)
	if !ok || taken.Len() != 1 {
		return resource.Resources{}, false
	}
	t.pool = rest
	p := proto.CloneOf(taken.Proto()[0])
	p.Disk = &mesos.Resource_DiskInfo{
		Persistence: &mesos.Resource_DiskInfo_Persistence{Id: proto.String(v.ID)},
		Volume:      &mesos.Volume{ContainerPath: proto.String(v.Path), Mode: mesos.Volume_RW.Enum()},
	}
	if v.Shared {
		p.Shared = &mesos.Resource_SharedInfo{}
	}
	made, err := resource.FromProto([]*mesos.Resource{p})
	return made, err == nil
}

// tasks gives each task its part of the pool, and all of them the volumes.
func (t *trial) tasks(volumes []resource.Resources) {
	for _, task := range t.want.Tasks {
		var own resource.Resources
		for _, need := range []struct {
			name   string
			amount resource.Fixed
		}{
			{resource.CPUs, task.Amount.CPUs}, {resource.Mem, task.Amount.Mem},
			{resource.Disk, task.Amount.Disk}, {resource.GPUs, task.Amount.GPUs},
		} {
			taken, rest, ok := t.pool.Take(need.name, need.amount, t.role)
			if !ok {
				t.fit.fail(need.name, "%s for task %s, but others of %s hold the rest of its reservation; %s is left", need.amount, task.Name, t.want.Name, t.pool.Scalar(need.name))
				return
			}
			t.pool, own = rest, own.Add(taken)
		}
		var ports []uint64
		for _, key := range task.Ports {
			ports = append(ports, uint64(t.fit.placed.Ports[key]))
		}
		taken, rest, ok := t.pool.TakePorts(ports, t.role)
		if !ok {
			t.fit.fail("ports", "the ports of task %s are in use by others of %s", task.Name, t.want.Name)
			return
		}
		t.pool, own = rest, own.Add(taken)
		for _, v := range volumes {
			own = own.Add(v)
		}
		t.fit.placed.Tasks = append(t.fit.placed.Tasks, own)
	}
}

// Reserved is what a task holds of the reservation id.
func Reserved(role, id string, a spec.Amount, ports []int) resource.Resources {
	var own []*mesos.Resource
	for _, need := range []struct {
		name   string
		amount resource.Fixed
	}{
		{resource.CPUs, a.CPUs}, {resource.Mem, a.Mem}, {resource.Disk, a.Disk}, {resource.GPUs, a.GPUs},
	} {
		if need.amount > 0 {
			own = append(own, &mesos.Resource{
				Name: proto.String(need.name), Type: mesos.Value_SCALAR.Enum(), Scalar: &mesos.Value_Scalar{Value: proto.Float64(need.amount.Float())},
			})
		}
	}
	var rs []resource.Range
	for _, p := range ports {
		if p > 0 {
			rs = append(rs, resource.Range{Begin: uint64(p), End: uint64(p)})
		}
	}
	if len(rs) > 0 {
		own = append(own, &mesos.Resource{Name: proto.String(resource.Ports), Type: mesos.Value_RANGES.Enum(), Ranges: resource.NewRanges(rs...).Proto()})
	}
	all, err := resource.FromProto(own)
	if err == nil {
		all, err = all.Push(reservation(role, id))
	}
	if err != nil {
		panic("match: what a task holds is no resource: " + err.Error()) // its parts were checked
	}
	return all
}
