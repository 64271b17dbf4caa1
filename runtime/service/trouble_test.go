package service_test

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dcos.example/dcos/runtime/api/mesos/scheduler"
	api "dcos.example/dcos/runtime/api/service"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/state"
	"dcos.example/dcos/runtime/state/memory"
)

func TestRequires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMaster(t, 1, room)
		r := newRig(t, m, memory.New())
		const small = "name: zk\npods: {n: {count: 1, tasks: {t: {cmd: x, cpus: 0.1, memory: 10}}}}\n"
		r.put(small)
		r.put(strings.Replace(small, "zk", "kafka", 1) + "requires: [zk]\n")
		err := r.s.Delete(t.Context(), "zk", false)
		if !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "service zk is required by kafka; uninstall those first, or force it") {
			t.Error(err)
		}
		if err := r.s.Delete(t.Context(), "kafka", false); err != nil {
			t.Error(err)
		}
		if err := r.s.Delete(t.Context(), "zk", false); err != nil {
			t.Error(err)
		}
		r.until("both are gone", 10*time.Second, func() bool { l, _ := r.s.List(); return len(l.Services) == 0 })
		if m.leftovers()+r.records() != "" {
			t.Error(m.leftovers() + r.records())
		}
	})
}

// A leader that is gone refuses, and says so.
func TestNotLeading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMaster(t, 1, room)
		r := newRig(t, m, memory.New())
		r.stop()
		if _, err := r.s.List(); !fault.Is(err, fault.Unavailable) || r.s.Leading() {
			t.Error(err)
		}
		if _, _, err := r.s.Put(t.Context(), "kafka", request(kafka), false); !fault.Is(err, fault.Unavailable) {
			t.Error(err)
		}
	})
}

// TestFrameworkRemoved: a framework that somebody tore down is made anew; the
// instances keep their place and their data.
func TestFrameworkRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMaster(t, 3, room)
		r := newRig(t, m, memory.New())
		r.put(kafka)
		r.untilPlan("deploy", api.Complete, 20*time.Second)
		volume := volumeOf(m.last("kafka-1-broker"))
		m.mu.Lock()
		clear(m.tasks)
		f := m.frameworks["fw-0000"]
		delete(m.frameworks, "fw-0000")
		m.frameworks["fw-dead"] = &fw{calls: map[scheduler.Call_Type]int{}}
		close(f.cut)
		f.cut = nil
		m.mu.Unlock()
		r.until("they run again", 30*time.Second, func() bool { return len(m.where()) == 3 })
		r.untilPlan("recovery", api.Complete, 10*time.Second)
		if volumeOf(m.last("kafka-1-broker")) != volume {
			t.Error("without its data")
		}
	})
}

// TestForce: a forced removal leaves behind what is on an agent that cannot be
// reached. The next service of that name gives it back when the agent returns.
func TestForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMaster(t, 4, room)
		r := newRig(t, m, memory.New())
		r.put(kafka)
		r.untilPlan("deploy", api.Complete, 20*time.Second)
		host := m.where()["kafka-1-broker"]
		m.leave(host)
		if err := r.s.Delete(t.Context(), "kafka", true); err != nil {
			t.Fatal(err)
		}
		r.until("it is gone", 2*time.Minute, func() bool { _, err := r.s.Find("kafka"); return fault.Is(err, fault.NotFound) })
		r.put(kafka)
		r.untilPlan("deploy", api.Complete, 20*time.Second)
		m.comeBack(host)
		r.after(time.Minute)
		if strings.Contains(m.leftovers(), host) {
			t.Error(m.leftovers())
		}
	})
}

// TestUnknownReservations: what a restored backup knows nothing of is left
// alone and shown; when the service goes, it goes.
func TestUnknownReservations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMaster(t, 4, room)
		r := newRig(t, m, memory.New())
		r.put(kafka)
		r.untilPlan("deploy", api.Complete, 20*time.Second)
		r.stop()
		rec, err := r.store.Get(t.Context(), state.Key{Kind: "service-pod", ID: "kafka@kafka-1"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.store.Commit(t.Context(), state.Op{Key: rec.Key, IfRev: rec.Rev}); err != nil {
			t.Fatal(err)
		}
		before := volumeOf(m.last("kafka-1-broker"))
		r = newRig(t, m, r.store)
		r.untilPlan("deploy", api.Complete, time.Minute)
		r.after(time.Minute)
		if !strings.Contains(m.leftovers(), before) {
			t.Errorf("the data is gone:\n%s", m.leftovers())
		}
		all := r.find("kafka").DebugReservations()
		if last := all[len(all)-1]; len(all) != 4 || !strings.Contains(last.Note, "nothing is known of it") {
			t.Errorf("%+v", all)
		}
		if err := r.s.Delete(t.Context(), "kafka", false); err != nil {
			t.Fatal(err)
		}
		r.until("it is gone", 2*time.Minute, func() bool { _, err := r.s.Find("kafka"); return fault.Is(err, fault.NotFound) })
		if left := m.leftovers() + r.records(); left != "" {
			t.Error(left)
		}
	})
}

// TestRefusedFramework: a service whose framework the master does not want says
// so, and the others go on.
func TestRefusedFramework(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMaster(t, 3, room)
		m.refuse = "zk"
		r := newRig(t, m, memory.New())
		r.put("name: zk\npods: {n: {count: 1, tasks: {t: {cmd: x, cpus: 0.1, memory: 10}}}}\n")
		r.put(kafka)
		r.untilPlan("deploy", api.Complete, 20*time.Second)
		if h := r.find("zk").Health(); h.Status != api.StatusDeploying || !strings.Contains(h.Message, "Not authorized to use role") {
			t.Error(h)
		}
		m.mu.Lock()
		m.refuse = ""
		m.mu.Unlock()
		r.until("it runs too", 10*time.Second, func() bool { return r.find("zk").Health() == (api.Health{Status: api.StatusRunning}) })
	})
}

// TestTooMuch: what the store does not take is refused, and harms nobody.
func TestTooMuch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newMaster(t, 3, room), memory.New())
		req := request(kafka)
		req.Package.Definition, _ = json.Marshal(strings.Repeat("x", 2<<20))
		_, _, err := r.s.Put(t.Context(), "kafka", req, false)
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "at most 1048576 can be stored") {
			t.Error(err)
		}
		if got := r.records(); got != "" {
			t.Error(got)
		}
	})
}
