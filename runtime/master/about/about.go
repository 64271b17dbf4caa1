// Package about holds what a master says of itself on read-only endpoints, and
// its metrics.
package about

import (
	"runtime"
	"strings"
	"time"

	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/master/core"
	"dcos.example/dcos/runtime/resource"
	"dcos.example/dcos/runtime/task"
)

// MesosVersion is the level of the Mesos APIs that this master speaks. Clients
// compare it; our own release is in the field git_tag.
const MesosVersion = "1.11.0"

// About describes the process.
type About struct {
	Release string // of this software
	Cluster string
	Started time.Time
	Flags   []Flag // in the spelling of Mesos
	Now     func() time.Time
}

// Flag is one setting.
type Flag struct{ Name, Value string }

// Metrics returns what /metrics/snapshot shows, by name. It costs O(tasks).
func (a About) Metrics(c *core.Core) map[string]float64 {
	s, st, counters := c.Snapshot(), c.Stats(), c.Counters()
	m := map[string]float64{
		"master/elected": 1, "master/uptime_secs": a.Now().Sub(a.Started).Seconds(),
		"master/outstanding_offers": float64(s.Offers), "master/operator_event_stream_subscribers": float64(s.Subscribers),
		"master/slaves_unreachable": float64(s.Unreachable), "system/cpus_total": float64(runtime.NumCPU()),
		"allocator/mesos/allocation_runs": float64(st.Runs), "registrar/log/recovered": 1,
	}
	for _, name := range []string{
		"slave_registrations", "slave_reregistrations", "slave_removals", "slave_removals/reason_registered",
		"slave_removals/reason_unhealthy", "slave_removals/reason_unregistered", "slave_unreachable_completed",
		"recovery_slave_removals", "messages_register_framework", "messages_unregister_framework", "messages_launch_tasks",
		"messages_decline_offers", "messages_revive_offers", "messages_kill_task", "messages_status_update",
		"messages_status_update_acknowledgement", "messages_reconcile_tasks", "messages_exited_executor",
		"messages_framework_to_executor", "messages_executor_to_framework", "messages_unregister_slave",
		"valid_status_updates", "invalid_status_updates", "valid_status_update_acknowledgements",
		"invalid_status_update_acknowledgements", "valid_framework_to_executor_messages",
		"invalid_framework_to_executor_messages", "valid_executor_to_framework_messages",
		"invalid_executor_to_framework_messages", "task_lost/source_master/reason_invalid_offers",
	} {
		m["master/"+name] = float64(counters[name])
	}
	for name, n := range counters {
		if strings.HasPrefix(name, "operations/") || strings.Contains(name, "operation_status_update") || name == "messages_reconcile_operations" {
			m["master/"+name] = float64(n)
		}
	}
	m["master/operations/pending"] = 0
	for _, o := range s.Operations {
		if o.GetLatestStatus().GetState() == mesos.OperationState_OPERATION_PENDING {
			m["master/operations/pending"]++
		}
	}
	for _, n := range []string{"staging", "starting", "running", "killing", "unreachable"} {
		m["master/tasks_"+n] = 0
	}
	for n, st := range map[string]task.State{"finished": task.Finished, "failed": task.Failed, "killed": task.Killed, "lost": task.Lost,
		"error": task.Error, "dropped": task.Dropped, "gone": task.Gone, "gone_by_operator": task.GoneByOperator} {
		m["master/tasks_"+n] = float64(counters["tasks/"+st.String()])
	}
	live := map[task.State]string{task.Staging: "staging", task.Starting: "starting", task.Running: "running", task.Killing: "killing"}
	for _, f := range s.Frameworks {
		for _, t := range f.Tasks {
			if n := live[t.GetState()]; n != "" {
				m["master/tasks_"+n]++
			}
		}
		m["master/tasks_unreachable"] += float64(len(f.Unreachable))
		count(m, "master/frameworks_", f.Connected)
	}
	for _, n := range []string{"connected", "disconnected", "active", "inactive"} {
		m["master/slaves_"+n] += 0
		m["master/frameworks_"+n] += 0
	}
	var total, used resource.Resources
	for _, v := range s.Agents {
		m["master/slaves_"+word(v.Connected, "connected", "disconnected")]++
		m["master/slaves_"+word(v.Active, "active", "inactive")]++
		total = total.Add(bare(v.Total))
		used = used.Add(bare(v.Used))
	}
	for _, n := range []string{resource.CPUs, resource.GPUs, resource.Mem, resource.Disk} {
		t, u := total.Scalar(n), used.Scalar(n)
		m["master/"+n+"_total"], m["master/"+n+"_used"], m["master/"+n+"_percent"] = t.Float(), u.Float(), 0
		if t > 0 {
			m["master/"+n+"_percent"] = float64(u) / float64(t)
		}
		if _, ok := st.Total[n]; ok {
			m["allocator/mesos/resources/"+n+"/total"] = st.Total[n].Float()
			m["allocator/mesos/resources/"+n+"/offered_or_allocated"] = st.Used[n].Float()
		}
	}
	for role, share := range st.Shares {
		m["allocator/mesos/roles/"+role+"/shares/dominant"] = share
	}
	for role, n := range st.Filters {
		m["allocator/mesos/offer_filters/roles/"+role+"/active"] = float64(n)
	}
	return m
}

// bare is r's scalars alone, whoever they are reserved to.
func bare(r resource.Resources) resource.Resources {
	return r.Filter(func(i resource.Item) bool { return i.Kind() == resource.KindScalar }).Flatten()
}

func word(is bool, yes, no string) string {
	if is {
		return yes
	}
	return no
}

func count(m map[string]float64, prefix string, up bool) {
	if up {
		m[prefix+"connected"]++
		m[prefix+"active"]++
	} else {
		m[prefix+"disconnected"]++
		m[prefix+"inactive"]++
	}
}

// RoleView is one role with what its frameworks use.
type RoleView struct {
	Name                                string
	Weight                              float64
	Frameworks                          []*mesos.FrameworkID
	Allocated, Offered, Reserved, Whole resource.Resources // Whole: allocated and offered
}
