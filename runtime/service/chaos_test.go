package service_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dcos.example/dcos/runtime/api/mesos"
	api "dcos.example/dcos/runtime/api/service"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/state/memory"
)

var chaos = flag.Uint64("chaos", 6, "how many random histories to play")

// TestChaos plays random histories: tasks crash, hosts come and go, calls get
// lost, leaders change, people update, replace, restart and scale. The fake
// master fails the test whenever it would have to refuse an operation, or a
// task is launched while it runs. When calm returns everything serves, in its
// place and with as many instances as asked for; and after the uninstallation
// nothing is left anywhere.
func TestChaos(t *testing.T) {
	for seed := range *chaos {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { history(t, seed) })
		})
	}
}

func history(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	m := newMaster(t, 6, room)
	r := newRig(t, m, memory.New())
	spec := kafka
	count, version, memoryOf := 3, 1, 100
	write := func() string {
		s := edit(spec, "count: 3", fmt.Sprintf("count: %d", count))
		s = edit(s, `VERSION: "1"`, fmt.Sprintf("VERSION: %q", fmt.Sprint(version)))
		return edit(s, "memory: 100\n        env", fmt.Sprintf("memory: %d\n        env", memoryOf))
	}
	r.put(write())
	away := map[string]bool{}
	pick := func() string { return fmt.Sprint("host-", rnd.IntN(6)) }
	pod := func() string { return fmt.Sprint("kafka-", rnd.IntN(count)) }
	var log []string
	defer func() {
		if t.Failed() {
			t.Log(strings.Join(log, ", "))
		}
	}()
	for range 40 {
		what := rnd.IntN(12)
		log = append(log, fmt.Sprint(what))
		switch what {
		case 0:
			m.crash(pod() + "-broker")
		case 1:
			m.crash(pod() + "-format")
		case 2:
			if h := pick(); len(away) < 2 && !away[h] {
				away[h] = true
				m.leave(h)
			}
		case 3:
			for h := range away {
				delete(away, h)
				m.comeBack(h)
				break
			}
		case 4:
			r.stop()
			if rnd.IntN(2) == 0 {
				m.crash(pod() + "-broker")
			}
			r = newRig(t, m, r.store)
		case 5:
			m.cutAll()
		case 6:
			version++
			memoryOf = 80 + rnd.IntN(100)
			r.force(write())
		case 7:
			count = 1 + rnd.IntN(4)
			r.force(write())
		case 8:
			if e, err := r.s.Find("kafka"); err == nil {
				_, _ = e.ReplacePod(t.Context(), pod())
			}
		case 9:
			if e, err := r.s.Find("kafka"); err == nil {
				_, _ = e.RestartPod(t.Context(), pod())
			}
		case 10:
			m.mu.Lock()
			left := rnd.IntN(4)
			m.lose = func() bool { left--; return left >= 0 }
			m.mu.Unlock()
		case 11:
			m.mu.Lock()
			sick := rnd.IntN(2) == 0
			m.fate = func(info *mesos.TaskInfo) fate {
				return fate{sick: sick && strings.HasSuffix(info.GetName(), "1-broker"), stubborn: sick}
			}
			m.mu.Unlock()
		}
		r.after(time.Duration(rnd.IntN(6000)) * time.Millisecond)
	}
	m.mu.Lock()
	m.fate, m.lose = nil, nil
	m.mu.Unlock()
	for h := range away {
		m.comeBack(h)
	}
	r.after(3 * time.Minute)
	for n := range count { // those that were launched sick stay so until somebody looks
		_, _ = r.find("kafka").RestartPod(t.Context(), fmt.Sprint("kafka-", n))
	}
	r.after(3 * time.Minute)
	for _, p := range []string{"deploy", "recovery", "decommission"} {
		r.untilPlan(p, api.Complete, 5*time.Minute)
	}
	where := m.where()
	hosts := map[string]bool{}
	for name, h := range where {
		if hosts[h] || !strings.HasSuffix(name, "-broker") {
			t.Errorf("placement: %v", where)
		}
		hosts[h] = true
	}
	if len(where) != count {
		t.Errorf("%d run, %d are wanted: %v", len(where), count, where)
	}
	if h := r.find("kafka").Health(); h != (api.Health{Status: api.StatusRunning}) {
		t.Error(h)
	}
	r.after(2 * time.Minute)
	if n := strings.Count(m.leftovers(), "host-"); n != count {
		t.Errorf("%d hosts have reservations for %d instances:\n%s", n, count, m.leftovers())
	}
	if err := r.s.Delete(t.Context(), "kafka", false); err != nil {
		t.Fatal(err)
	}
	r.until("it is gone", 2*time.Minute, func() bool { _, err := r.s.Find("kafka"); return fault.Is(err, fault.NotFound) })
	if left := m.leftovers() + r.records(); left != "" || len(m.tasks) > 0 || len(m.frameworks) > 0 {
		t.Errorf("left: %s%d tasks, %d frameworks", left, len(m.tasks), len(m.frameworks))
	}
}

// force updates although the cluster may have no room now.
func (r *rig) force(spec string) {
	r.t.Helper()
	req := request(spec)
	req.Force = true
	if _, _, err := r.s.Put(r.t.Context(), "kafka", req, false); err != nil {
		r.t.Fatal(err)
	}
}
