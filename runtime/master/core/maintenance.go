package core

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/maintenance"
	"dcos.example/dcos/runtime/api/wire"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/master/registry"
	"dcos.example/dcos/runtime/task"

	"google.golang.org/protobuf/proto"
)

// machine is one entry of the maintenance schedule.
type machine struct {
	id             *mesos.MachineID
	unavailability *mesos.Unavailability
	down           bool
}

// machineKey is a machine's name and address. As a key of Core.machines one of
// them may be empty: the entry then is for machines with any.
type machineKey struct{ hostname, ip string }

func keyOfMachine(id *mesos.MachineID) machineKey {
	return machineKey{strings.ToLower(id.GetHostname()), id.GetIp()}
}

// machineText is a machine in messages.
func machineText(id *mesos.MachineID) string {
	b, err := wire.JSON.Marshal(id)
	if err != nil {
		return id.GetHostname() + " " + id.GetIp()
	}
	return string(b)
}

// machineAt returns the schedule's entry for a host, nil if there is none.
func (c *Core) machineAt(hostname, endpoint string) *machine {
	if len(c.machines) == 0 {
		return nil
	}
	k := machineKey{hostname: strings.ToLower(hostname)}
	if at, err := netip.ParseAddrPort(endpoint); err == nil {
		k.ip = at.Addr().String()
	}
	for _, key := range []machineKey{k, {k.hostname, ""}, {"", k.ip}} {
		if m := c.machines[key]; m != nil && key != (machineKey{}) {
			return m
		}
	}
	return nil
}

func (c *Core) machineOf(a *agent) *machine { return c.machineAt(a.info.GetHostname(), a.endpoint) }

// loadMaintenance makes the index of the stored schedule.
func (c *Core) loadMaintenance() {
	m := c.reg.Maintenance()
	c.machines = map[machineKey]*machine{}
	for _, w := range m.Schedule.Windows {
		for _, id := range w.MachineIds {
			c.machines[keyOfMachine(id)] = &machine{id: id, unavailability: w.Unavailability}
		}
	}
	for _, id := range m.Down {
		if x := c.machines[keyOfMachine(id)]; x != nil {
			x.down = true
		}
	}
}

// Schedule returns the maintenance schedule; it must not be changed.
func (c *Core) Schedule() *maintenance.Schedule { return c.reg.Maintenance().Schedule }

// checkMachine holds one machine of a request to the rules of Mesos.
func checkMachine(id *mesos.MachineID) error {
	if id.GetHostname() == "" && id.GetIp() == "" {
		return fault.Newf("check machine", fault.Invalid, "Both 'hostname' and 'ip' for a machine are empty")
	}
	if ip := id.GetIp(); ip != "" {
		if _, err := netip.ParseAddr(ip); err != nil {
			return fault.Newf("check machine", fault.Invalid, "Failed to parse the IP '%s'", ip)
		}
	}
	return nil
}

func checkMachines(ids []*mesos.MachineID) error {
	if len(ids) == 0 {
		return fault.Newf("check machines", fault.Invalid, "List of machines is empty")
	}
	seen := map[machineKey]bool{}
	for _, id := range ids {
		if err := checkMachine(id); err != nil {
			return err
		}
		if k := keyOfMachine(id); seen[k] {
			return fault.Newf("check machines", fault.Invalid, "Machine '%s' appears more than once in the schedule", machineText(id))
		} else {
			seen[k] = true
		}
	}
	return nil
}

func checkSchedule(s *maintenance.Schedule, down []*mesos.MachineID) error {
	const op = "check maintenance schedule"
	seen := map[machineKey]bool{}
	for _, w := range s.Windows {
		if len(w.MachineIds) == 0 {
			return fault.Newf(op, fault.Invalid, "List of machines in the maintenance window is empty")
		}
		if w.GetUnavailability().GetDuration().GetNanoseconds() < 0 {
			return fault.Newf(op, fault.Invalid, "Unavailability 'duration' is negative")
		}
		for _, id := range w.MachineIds {
			if err := checkMachine(id); err != nil {
				return err
			}
			if seen[keyOfMachine(id)] {
				return fault.Newf(op, fault.Invalid, "Machine '%s' appears more than once in the schedule", machineText(id))
			}
			seen[keyOfMachine(id)] = true
		}
	}
	for _, id := range down {
		if !seen[keyOfMachine(id)] {
			return fault.Newf(op, fault.Invalid, "Machine '%s' is deactivated and cannot be removed from the schedule", machineText(id))
		}
	}
	return nil
}

// UpdateSchedule replaces the maintenance schedule. Its machines are asked to
// be given up, by inverse offers and the unavailability in offers; nothing else
// happens until StartMaintenance.
func (c *Core) UpdateSchedule(ctx context.Context, s *maintenance.Schedule) error {
	err := c.reg.EditMaintenance(ctx, func(m registry.Maintenance) (registry.Maintenance, error) {
		return registry.Maintenance{Schedule: proto.CloneOf(s), Down: m.Down}, checkSchedule(s, m.Down)
	})
	if err != nil {
		return err
	}
	c.scheduleChanged()
	return nil
}

// scheduleChanged lets offers and inverse offers follow the schedule.
func (c *Core) scheduleChanged() {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := map[task.AgentID]*mesos.Unavailability{}
	for id := range c.agents {
		was[id] = c.unavailability(id)
	}
	c.loadMaintenance()
	for id, a := range c.agents {
		if proto.Equal(was[id], c.unavailability(id)) {
			continue
		}
		for _, o := range a.offers {
			c.rescind(o) // offered anew with what is true now
		}
		c.syncInverse(id)
	}
	c.changed()
}

// mode is the state of a scheduled machine, "" for one that is not scheduled.
func modeOf(m registry.Maintenance, id *mesos.MachineID) string {
	is := func(x *mesos.MachineID) bool { return keyOfMachine(x) == keyOfMachine(id) }
	if slices.ContainsFunc(m.Down, is) {
		return "DOWN"
	}
	for _, w := range m.Schedule.Windows {
		if slices.ContainsFunc(w.MachineIds, is) {
			return "DRAINING"
		}
	}
	return ""
}

// StartMaintenance takes scheduled machines down: their agents are shut off
// and may not come back until StopMaintenance.
func (c *Core) StartMaintenance(ctx context.Context, ids []*mesos.MachineID) error {
	const op = "start maintenance"
	if err := checkMachines(ids); err != nil {
		return err
	}
	err := c.reg.EditMaintenance(ctx, func(m registry.Maintenance) (registry.Maintenance, error) {
		for _, id := range ids {
			switch modeOf(m, id) {
			case "":
				return m, fault.Newf(op, fault.Invalid, "Machine '%s' is not part of a maintenance schedule", machineText(id))
			case "DOWN":
				return m, fault.Newf(op, fault.Invalid, "Machine '%s' is not in DRAINING mode and cannot be brought down", machineText(id))
			}
		}
		return registry.Maintenance{Schedule: m.Schedule, Down: slices.Concat(m.Down, ids)}, nil
	})
	if err != nil {
		return err
	}
	c.scheduleChanged()
	return c.shutDown(ctx)
}

// shutDown removes the agents of machines that are down.
func (c *Core) shutDown(ctx context.Context) error {
	c.mu.Lock()
	var off []task.AgentID
	for id, a := range c.agents {
		if m := c.machineOf(a); m != nil && m.down {
			off = append(off, id)
		}
	}
	c.mu.Unlock()
	if err := c.reg.SetStanding(ctx, c.cfg.Now(), registry.Gone, off...); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range off {
		c.retire(id, task.Gone, mesos.TaskStatus_REASON_AGENT_REMOVED, "Operator initiated 'Machine DOWN'")
	}
	return nil
}

// StopMaintenance lets machines that are down come up again, and takes them
// out of the schedule.
func (c *Core) StopMaintenance(ctx context.Context, ids []*mesos.MachineID) error {
	const op = "stop maintenance"
	if err := checkMachines(ids); err != nil {
		return err
	}
	listed := func(x *mesos.MachineID) bool {
		return slices.ContainsFunc(ids, func(id *mesos.MachineID) bool { return keyOfMachine(id) == keyOfMachine(x) })
	}
	err := c.reg.EditMaintenance(ctx, func(m registry.Maintenance) (registry.Maintenance, error) {
		for _, id := range ids {
			switch modeOf(m, id) {
			case "":
				return m, fault.Newf(op, fault.Invalid, "Machine '%s' is not part of a maintenance schedule", machineText(id))
			case "DRAINING":
				return m, fault.Newf(op, fault.Invalid, "Machine '%s' is not in DOWN mode and cannot be brought up", machineText(id))
			}
		}
		next := registry.Maintenance{Schedule: proto.CloneOf(m.Schedule), Down: slices.DeleteFunc(slices.Clone(m.Down), listed)}
		for _, w := range next.Schedule.Windows {
			w.MachineIds = slices.DeleteFunc(w.MachineIds, listed)
		}
		next.Schedule.Windows = slices.DeleteFunc(next.Schedule.Windows, func(w *maintenance.Window) bool { return len(w.MachineIds) == 0 })
		return next, nil
	})
	if err != nil {
		return err
	}
	c.scheduleChanged()
	return nil
}

// MaintenanceStatus tells which machines are draining or down, and what
// frameworks answered to inverse offers.
func (c *Core) MaintenanceStatus() *maintenance.ClusterStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := &maintenance.ClusterStatus{}
	on := map[*machine][]task.AgentID{}
	for id, a := range c.agents {
		if m := c.machineOf(a); m != nil {
			on[m] = append(on[m], id)
		}
	}
	for _, m := range c.machines {
		if m.down {
			out.DownMachines = append(out.DownMachines, m.id)
			continue
		}
		d := &maintenance.ClusterStatus_DrainingMachine{Id: m.id}
		for _, id := range on[m] {
			d.Statuses = append(d.Statuses, c.inverseStatuses(id)...)
		}
		out.DrainingMachines = append(out.DrainingMachines, d)
	}
	slices.SortFunc(out.DownMachines, compareMachines)
	slices.SortFunc(out.DrainingMachines, func(a, b *maintenance.ClusterStatus_DrainingMachine) int { return compareMachines(a.Id, b.Id) })
	return out
}

func compareMachines(a, b *mesos.MachineID) int {
	return strings.Compare(a.GetHostname()+" "+a.GetIp(), b.GetHostname()+" "+b.GetIp())
}
