package orchestrator_test

import (
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/scheduler"
	"dcos.example/dcos/runtime/state/memory"
	"dcos.example/dcos/runtime/task"
)

// counted is running for those who do not hold mu.
func (m *master) counted() (running, all int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.running()
}

// running is how many tasks run, and how many are there at all. The caller
// holds mu.
func (m *master) running() (running, all int) {
	for _, t := range m.tasks {
		all++
		if t.state == task.Running {
			running++
		}
	}
	return running, all
}

// release lets held tasks run.
func (m *master) release() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range m.tasks {
		if t.state == task.Starting {
			m.report(t, task.Running, nil, "")
		}
	}
}

func (m *master) on(host string) int { return m.spread()[host] }

func TestSingleInstanceMovesNewFirst(t *testing.T) {
	virtual(t, 2, big, func(t *testing.T, r *rig) {
		r.must(201, "POST", "/v2/apps", `{"id":"/one","cmd":"serve","cpus":1,"mem":32,"instances":1}`)
		var from string
		r.m.each(func(_ string, tk *mtask) { from = tk.agent.host })
		r.m.mu.Lock()
		r.m.hold = func(*mesos.TaskInfo) bool { return true }
		r.m.ended = func(*mtask) {
			if running, _ := r.m.running(); running < 1 {
				t.Error("nothing runs")
			}
		}
		r.m.mu.Unlock()
		r.m.drain(from)
		r.after(20 * time.Second)
		if s := r.m.spread(); s[from] != 1 || len(s) != 2 {
			t.Fatalf("while the new one starts: %v", s)
		}
		if n := r.m.called(scheduler.Call_ACCEPT_INVERSE_OFFERS); n != 1 {
			t.Errorf("%d answers to the inverse offer", n)
		}
		r.m.release()
		r.settle()
		if s := r.m.spread(); s[from] != 0 || len(s) != 1 {
			t.Errorf("after the move: %v", s)
		}
		// Nothing moves back when the agent is there again.
		launched := r.m.launches()
		r.m.undrain(from)
		r.after(time.Minute)
		if r.m.launches() != launched || r.m.on(from) != 0 {
			t.Error("moved again")
		}
	})
}

func TestWithoutOverCapacityTheOldGoesFirst(t *testing.T) {
	virtual(t, 2, big, func(t *testing.T, r *rig) {
		r.must(201, "POST", "/v2/apps", `{"id":"/one","cmd":"serve","cpus":1,"mem":32,"instances":1,
			"upgradeStrategy":{"minimumHealthCapacity":0,"maximumOverCapacity":0}}`)
		var from string
		r.m.each(func(_ string, tk *mtask) { from = tk.agent.host })
		most := 0
		r.m.mu.Lock()
		r.m.hold = func(*mesos.TaskInfo) bool { _, n := r.m.running(); most = max(most, n); return false }
		r.m.mu.Unlock()
		r.m.drain(from)
		r.settle()
		if s := r.m.spread(); s[from] != 0 || len(s) != 1 || most != 1 {
			t.Errorf("%v, at most %d at once", s, most)
		}
	})
}

// With no room elsewhere an app goes as low as it allows, and no lower.
func TestNoRoomElsewhere(t *testing.T) {
	virtual(t, 2, "cpus:2;mem:16384;disk:1000;ports:[31000-31100]", func(t *testing.T, r *rig) {
		r.must(201, "POST", "/v2/apps", `{"id":"/half","cmd":"serve","cpus":0.5,"mem":32,"instances":4,
			"upgradeStrategy":{"minimumHealthCapacity":0.75,"maximumOverCapacity":1}}`)
		r.must(201, "POST", "/v2/apps", `{"id":"/whole","cmd":"serve","cpus":0.5,"mem":32,"instances":4}`)
		if s := r.m.spread(); s["host-0"] != 4 || s["host-1"] != 4 {
			t.Fatal(s)
		}
		r.m.drain("host-0")
		r.after(25 * time.Second)
		if _, n := r.m.counted(); n != 8 {
			t.Fatalf("%d instances while a place is looked for", n)
		}
		r.after(time.Minute)
		if half, whole := *r.app("/half").TasksRunning, *r.app("/whole").TasksRunning; half != 3 || whole != 4 {
			t.Errorf("/half has %d, want 3 of 4; /whole has %d, want 4", half, whole)
		}
		// Room comes, and the move goes on.
		r.m.mu.Lock()
		r.m.addAgent("host-2", big)
		r.m.allocate()
		r.m.mu.Unlock()
		r.after(10 * time.Second)
		if s := r.m.spread(); s["host-0"] != 0 || s["host-1"]+s["host-2"] != 8 {
			t.Errorf("%v", s)
		}
	})
}

// What other agents' tasks do does not move: an unreachable instance is left to
// its own strategy.
func TestUnreachableInstancesKeepTheirStrategy(t *testing.T) {
	virtual(t, 2, big, func(t *testing.T, r *rig) {
		r.must(201, "POST", "/v2/apps", `{"id":"/db","cmd":"serve","cpus":1,"mem":32,"instances":1,"unreachableStrategy":"disabled"}`)
		var lost *mtask
		r.m.each(func(_ string, tk *mtask) { lost = tk })
		r.m.mu.Lock()
		lost.state, lost.agent.away = task.Unreachable, true
		r.m.emit(&scheduler.Event{Type: scheduler.Event_UPDATE.Enum(), Update: &scheduler.Event_Update{Status: &mesos.TaskStatus{
			TaskId: lost.info.GetTaskId(), State: task.Unreachable.Enum(), AgentId: lost.info.GetAgentId(),
		}}})
		r.m.mu.Unlock()
		r.m.drain(lost.agent.host)
		r.after(time.Minute)
		if n := r.m.launches(); n != 1 {
			t.Fatalf("%d launches", n)
		}
		r.m.mu.Lock()
		lost.agent.away = false
		r.m.report(lost, task.Running, nil, "")
		r.m.mu.Unlock()
		r.settle()
		if s := r.m.spread(); s[lost.agent.host] != 0 || len(s) != 1 {
			t.Errorf("back, and not moved: %v", s)
		}
	})
}

// A window of the schedule moves instances when it begins, not before.
func TestMaintenanceWindow(t *testing.T) {
	virtual(t, 2, big, func(t *testing.T, r *rig) {
		r.must(201, "POST", "/v2/apps", `{"id":"/one","cmd":"serve","cpus":1,"mem":32,"instances":1}`)
		var from *agent
		r.m.each(func(_ string, tk *mtask) { from = tk.agent })
		start := time.Now().Add(time.Hour)
		r.m.mu.Lock()
		r.m.emit(&scheduler.Event{Type: scheduler.Event_INVERSE_OFFERS.Enum(), InverseOffers: &scheduler.Event_InverseOffers{InverseOffers: []*mesos.InverseOffer{{
			Id: &mesos.OfferID{Value: proto.String("W1")}, FrameworkId: r.m.framework.GetId(), AgentId: &mesos.AgentID{Value: &from.id},
			Unavailability: &mesos.Unavailability{Start: &mesos.TimeInfo{Nanoseconds: proto.Int64(start.UnixNano())},
				Duration: &mesos.DurationInfo{Nanoseconds: proto.Int64(int64(time.Hour))}},
		}}}})
		r.m.mu.Unlock()
		r.after(59 * time.Minute)
		if r.m.on(from.host) != 1 {
			t.Fatal("moved too early")
		}
		r.after(2 * time.Minute)
		if r.m.on(from.host) != 0 || r.m.living() != 1 {
			t.Fatal("not moved")
		}
		// The window over, the agent may be used again.
		r.after(2 * time.Hour)
		r.must(200, "PUT", "/v2/apps/one", `{"instances":4}`)
		if r.m.on(from.host) == 0 {
			t.Errorf("%v", r.m.spread())
		}
	})
}

// Whatever sequence of agents is drained, undrained and taken over by other
// leaders: an app with four instances stays above its minimum, and where there
// may be more than four, four serve all the time.
func TestDrainsNeverGoBelowTheMinimum(t *testing.T) {
	const hosts, target = 4, 4
	rapid.Check(t, func(rt *rapid.T) {
		minHealth := rapid.SampledFrom([]float64{0, 0.25, 0.5, 0.75, 1}).Draw(rt, "minimumHealthCapacity")
		over := rapid.SampledFrom([]float64{0, 0.25, 0.5, 1}).Draw(rt, "maximumOverCapacity")
		held := rapid.Bool().Draw(rt, "start by hand")
		steps := rapid.SliceOfN(rapid.IntRange(0, 3*hosts+2), 1, 25).Draw(rt, "steps")
		failed := ""
		synctest.Test(t, func(t *testing.T) {
			m, store := newMaster(t, hosts, big), memory.New()
			r := newRig(t, m, store)
			r.must(201, "POST", "/v2/apps", fmt.Sprintf(`{"id":"/web","cmd":"serve","cpus":0.5,"mem":32,"instances":%d,
				"upgradeStrategy":{"minimumHealthCapacity":%g,"maximumOverCapacity":%g}}`, target, minHealth, over))
			floor := int(math.Ceil(target * minHealth))
			if math.Floor(target*(1+over)) > target {
				floor = target
			}
			m.mu.Lock()
			if held {
				m.hold = func(*mesos.TaskInfo) bool { return true }
			}
			m.ended = func(tk *mtask) {
				if running, _ := m.running(); tk.state == task.Killed && running < floor && failed == "" {
					failed = fmt.Sprintf("%d instances run, want at least %d", running, floor)
				}
			}
			m.mu.Unlock()
			drained := map[int]bool{}
			for _, s := range steps {
				switch {
				case s < 2*hosts && len(drained) < hosts-1: // one agent stays
					drained[s%hosts] = true
					m.drain(fmt.Sprintf("host-%d", s%hosts))
				case s < 3*hosts:
					delete(drained, s%hosts)
					m.undrain(fmt.Sprintf("host-%d", s%hosts))
				case s == 3*hosts:
					m.release()
				case s == 3*hosts+1:
					r.stop()
					m.cut()
					r = newRig(t, m, store)
				default:
					r.after(5 * time.Second)
				}
				r.settle()
			}
			for range 3 * target { // let all that was begun end
				m.release()
				r.after(2 * time.Second)
			}
			r.after(time.Minute)
			if s := m.spread(); failed == "" {
				for h := range drained {
					if s[fmt.Sprintf("host-%d", h)] != 0 {
						failed = fmt.Sprintf("host-%d is not empty: %v", h, s)
					}
				}
				if running, all := m.counted(); running != target || all != target {
					failed = fmt.Sprintf("%d of %d run at the end, want %d", running, all, target)
				}
			}
		})
		if failed != "" {
			rt.Fatal(failed)
		}
	})
}
