package service_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"dcos.example/dcos/runtime/api/mesos"
	api "dcos.example/dcos/runtime/api/service"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/service"
	"dcos.example/dcos/runtime/service/engine"
	"dcos.example/dcos/runtime/state"
	"dcos.example/dcos/runtime/state/memory"
)

// rig is the operator of one master process, in virtual time.
type rig struct {
	t     *testing.T
	m     *master
	store state.Backend
	s     *service.Service
	stop  func()
}

func newRig(t *testing.T, m *master, store state.Backend) *rig {
	t.Helper()
	r := &rig{t: t, m: m, store: store}
	s, err := service.New(service.Options{
		Master: "http://master", Client: m.mem.Client(), SealKey: []byte(strings.Repeat("k", 32)), Hostname: "m1",
		Log: slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		t.Fatal(err)
	}
	r.s = s
	r.start()
	t.Cleanup(func() { r.stop() })
	return r
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

func (r *rig) start() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.s.Run(ctx, r.store); err != nil {
			r.t.Error(err)
		}
	}()
	r.stop = func() { cancel(); <-done; r.stop = func() {} }
	synctest.Wait()
}

func (r *rig) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func request(spec string) api.Request {
	b, _ := json.Marshal(spec)
	return api.Request{Spec: b, Package: api.Package{Name: "kafka", Version: "1"}}
}

func (r *rig) put(spec string) {
	r.t.Helper()
	s, _, err := api.Parse([]byte(spec))
	if err != nil {
		r.t.Fatal(err)
	}
	if _, _, err := r.s.Put(r.t.Context(), s.Name, request(spec), false); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) find(name string) *engine.Engine {
	r.t.Helper()
	e, err := r.s.Find(name)
	if err != nil {
		r.t.Fatal(err)
	}
	return e
}

// plan is a plan's status with those of its steps, in short.
func (r *rig) plan(name string) string {
	r.t.Helper()
	p, err := r.find("kafka").Plan(name)
	if err != nil {
		r.t.Fatal(err)
	}
	out := string(p.Status)
	for _, ph := range p.Phases {
		for _, st := range ph.Steps {
			out += fmt.Sprintf(" %s=%s", st.Name, st.Status)
		}
	}
	return out
}

// until waits for something, at most d.
func (r *rig) until(what string, d time.Duration, f func() bool) {
	r.t.Helper()
	for range int(d / (100 * time.Millisecond)) {
		if f() {
			return
		}
		r.after(100 * time.Millisecond)
	}
	plans := ""
	if e, err := r.s.Find("kafka"); err == nil {
		for _, d := range e.DebugPlans() {
			plans += fmt.Sprintf("\n%+v", d)
		}
		for _, d := range e.DebugTasks() {
			plans += fmt.Sprintf("\n%+v", d)
		}
	}
	r.t.Fatalf("not within %s: %s; runs: %v%s", d, what, r.m.where(), plans)
}

func (r *rig) untilPlan(name string, status api.PlanStatus, d time.Duration) {
	r.t.Helper()
	r.until("plan "+name+" is "+string(status), d, func() bool {
		p, err := r.find("kafka").Plan(name)
		return err == nil && p.Status == status
	})
}

// records counts what is stored.
func (r *rig) records() string {
	out := ""
	for _, k := range engine.Kinds() {
		recs, _, err := r.store.List(r.t.Context(), k)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, rec := range recs {
			out += rec.Key.String() + "\n"
		}
	}
	return out
}

const kafka = `
name: kafka
pods:
  kafka:
    count: 3
    image: registry.dcos/kafka:1
    placement: [[hostname, UNIQUE]]
    allow-decommission: true
    volumes: {data: {path: /data, size: 100}}
    secrets: {admin: {env-key: PASSWORD, file: /secret}}
    tasks:
      format: {goal: ONCE, cmd: ./format, cpus: 0.5, memory: 100}
      broker:
        cpus: 0.5
        memory: 100
        env: {VERSION: "1"}
        ports: {broker: {port: 9092, advertise: true, vip: {prefix: broker, port: 9092}}, jmx: {port: 0}}
        configs: {server: {template: server, dest: /etc/server.properties}}
        readiness-check: {tcp: {port: broker}}
plans:
  deploy: {phases: {brokers: {pod: kafka, steps: [[default, [format]], [default, [broker]]]}}}
templates: {server: "id={{POD_INSTANCE_INDEX}} port={{PORT_BROKER}} password={{PASSWORD}}"}
secrets: {admin: {generate: 16}}
`

const room = "cpus:2;mem:1000;disk:1000;ports:[9000-9100]"

func edit(spec, old, new string) string {
	if !strings.Contains(spec, old) {
		panic("there is no " + old)
	}
	return strings.Replace(spec, old, new, 1)
}

func TestDeploy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMaster(t, 3, room)
		r := newRig(t, m, memory.New())
		r.put(kafka)
		r.after(500 * time.Millisecond)
		if got := r.plan("deploy"); got != "IN_PROGRESS kafka-0:[format]=STARTED kafka-0:[broker]=PENDING kafka-1:[format]=PENDING kafka-1:[broker]=PENDING kafka-2:[format]=PENDING kafka-2:[broker]=PENDING" {
			t.Error(got)
		}
		if got := r.find("kafka").Health(); got.Status != api.StatusDeploying {
			t.Error(got)
		}
		r.untilPlan("deploy", api.Complete, 20*time.Second)
		if got := r.find("kafka").Health(); got != (api.Health{Status: api.StatusRunning}) {
			t.Error(got)
		}
		if d := cmp.Diff([]string{"host-0", "host-1", "host-2"}, slices.Sorted(maps.Values(m.where()))); d != "" {
			t.Error(d)
		}
		broker, format := m.last("kafka-1-broker"), m.last("kafka-1-format")
		if volumeOf(broker) == "" || volumeOf(broker) != volumeOf(format) {
			t.Errorf("volumes %q and %q", volumeOf(format), volumeOf(broker))
		}
		files := map[string]string{}
		for _, v := range broker.GetContainer().GetVolumes() {
			files[v.GetContainerPath()] = string(v.GetSource().GetSecret().GetValue().GetData())
		}
		if len(files["/secret"]) != 16 || files["/etc/server.properties"] != "id=1 port=9092 password="+files["/secret"] {
			t.Errorf("%v", files)
		}
		// Nothing more is wanted: no offers are.
		if f := m.frameworks["fw-0000"]; !f.suppressed || f.info.GetName() != "kafka" || f.role() != "kafka-role" {
			t.Errorf("%v suppressed=%v", f.info, f.suppressed)
		}
		ep, err := r.find("kafka").Endpoint("broker")
		if err != nil || len(ep.Address) != 3 || ep.VIP != "broker.kafka.l4lb.thisdcos.directory:9092" ||
			ep.DNS[0] != "kafka-0-broker.kafka.autoip.dcos.thisdcos.directory:9092" {
			t.Errorf("%+v %v", ep, err)
		}
		if recs, _, _ := r.store.List(t.Context(), "service-config"); strings.Contains(string(recs[0].Value), files["/secret"]) {
			t.Error("the secret is stored in clear")
		}
		sum := r.find("kafka").Summary()
		if d := cmp.Diff([]api.PodSummary{{Name: "kafka", Count: 3, Running: 3, Ready: 3}}, sum.Pods); d != "" {
			t.Error(d)
		}
	})
}

// watchdog fails if more than limit of the brokers that were up are down at
// once.
func (r *rig) watchdog(limit int) (stop func()) {
	up := map[string]bool{}
	check := func() {
		now := map[string]bool{}
		for _, t := range r.m.tasks {
			if t.up && strings.HasSuffix(t.info.GetName(), "-broker") {
				now[t.info.GetName()] = true
				up[t.info.GetName()] = true
			}
		}
		if down := len(up) - len(now); down > limit {
			r.t.Errorf("%d are down at once: only %v of %v are up", down, now, up)
		}
	}
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	r.m.ended = func(*mtask) { check() }
	r.m.live = check
	check()
	return func() {
		r.m.mu.Lock()
		defer r.m.mu.Unlock()
		r.m.ended, r.m.live = nil, nil
	}
}

func TestUpdateOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMaster(t, 3, room)
		r := newRig(t, m, memory.New())
		r.put(kafka)
		r.untilPlan("deploy", api.Complete, 20*time.Second)
		before := m.where()
		volume, port := volumeOf(m.last("kafka-2-broker")), fmt.Sprint(m.last("kafka-2-broker").GetDiscovery().GetPorts().GetPorts()[1].GetNumber())
		password := m.last("kafka-2-broker").GetContainer().GetVolumes()[1].GetSource().GetSecret().GetValue().GetData()
		defer r.watchdog(1)()
		r.put(edit(edit(kafka, `VERSION: "1"`, `VERSION: "2"`), "memory: 100\n        env", "memory: 150\n        env"))
		if got := r.find("kafka").Health(); got.Status != api.StatusUpdating {
			t.Error(got)
		}
		r.untilPlan("deploy", api.Complete, 30*time.Second)
		if d := cmp.Diff(before, m.where()); d != "" {
			t.Error("they moved:", d)
		}
		last := m.last("kafka-2-broker")
		if volumeOf(last) != volume || fmt.Sprint(last.GetDiscovery().GetPorts().GetPorts()[1].GetNumber()) != port {
			t.Error("another volume or port")
		}
		if got := last.GetContainer().GetVolumes()[1].GetSource().GetSecret().GetValue().GetData(); string(got) != string(password) {
			t.Error("another generated secret")
		}
		if m.launches("kafka-2-format") != 2 || m.launches("kafka-2-broker") != 2 {
			t.Error("a task of goal ONCE runs once for each configuration")
		}
		// A change of the count alone starts what is new and nothing else.
		m.mu.Lock()
		m.add(room)
		m.mu.Unlock()
		r.put(edit(edit(edit(kafka, `VERSION: "1"`, `VERSION: "2"`), "memory: 100\n        env", "memory: 150\n        env"), "count: 3", "count: 4"))
		r.untilPlan("deploy", api.Complete, 30*time.Second)
		if m.launches("kafka-2-broker") != 2 || m.where()["kafka-3-broker"] != "host-3" {
			t.Errorf("%v", m.where())
		}
	})
}

func TestDecommission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMaster(t, 3, room)
		r := newRig(t, m, memory.New())
		r.put(kafka)
		r.untilPlan("deploy", api.Complete, 20*time.Second)
		r.put(edit(kafka, "count: 3", "count: 1"))
		r.until("two are gone", 20*time.Second, func() bool { return len(m.where()) == 1 })
		r.untilPlan("decommission", api.Complete, 20*time.Second)
		if got := m.where(); got["kafka-0-broker"] == "" || strings.Count(m.leftovers(), "host") != 1 {
			t.Errorf("%v\n%s", got, m.leftovers())
		}
		if m.launches("kafka-0-broker") != 1 {
			t.Error("the one that stays was restarted")
		}
	})
}

func TestCrashRestartsInPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMaster(t, 3, room)
		r := newRig(t, m, memory.New())
		r.put(kafka)
		r.untilPlan("deploy", api.Complete, 20*time.Second)
		host, volume := m.where()["kafka-1-broker"], volumeOf(m.last("kafka-1-broker"))
		m.crash("kafka-1-broker")
		r.after(50 * time.Millisecond)
		if got := r.plan("recovery"); got != "DELAYED kafka-1:[broker]=DELAYED" {
			t.Error(got)
		}
		if got := r.plan("deploy"); !strings.HasPrefix(got, "COMPLETE") {
			t.Error(got)
		}
		r.untilPlan("recovery", api.Complete, 10*time.Second)
		if m.where()["kafka-1-broker"] != host || volumeOf(m.last("kafka-1-broker")) != volume || m.launches("kafka-1-format") != 1 {
			t.Error("not in place")
		}
		// It fails again and again: pauses grow, and others are left alone.
		m.mu.Lock()
		m.fate = func(info *mesos.TaskInfo) fate { return fate{fails: time.Second} }
		m.mu.Unlock()
		m.crash("kafka-1-broker")
		before := m.launches("kafka-1-broker")
		r.after(10 * time.Minute)
		if n := m.launches("kafka-1-broker") - before; n < 8 || n > 15 {
			t.Errorf("%d launches in ten minutes", n)
		}
		if m.launches("kafka-0-broker") != 1 {
			t.Error("others were restarted")
		}
	})
}

func TestFailOverTouchesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMaster(t, 3, room)
		r := newRig(t, m, memory.New())
		r.put(kafka)
		r.after(3 * time.Second) // in the middle of the deployment
		r.stop()
		r.after(time.Second)
		r = newRig(t, m, r.store)
		r.untilPlan("deploy", api.Complete, 20*time.Second)
		for _, name := range []string{"kafka-0-broker", "kafka-0-format", "kafka-1-broker", "kafka-2-format", "kafka-2-broker"} {
			if n := m.launches(name); n != 1 {
				t.Errorf("%s was launched %d times", name, n)
			}
		}
		r.stop()
		m.crash("kafka-2-broker") // while nobody leads
		r = newRig(t, m, r.store)
		r.until("it is back", 20*time.Second, func() bool { return m.where()["kafka-2-broker"] != "" })
		r.untilPlan("recovery", api.Complete, 20*time.Second)
		if m.launches("kafka-0-broker") != 1 || m.launches("kafka-2-broker") != 2 {
			t.Error("launches too many")
		}
		m.cutAll() // the connection alone
		r.after(10 * time.Second)
		if m.launches("kafka-0-broker") != 1 || !strings.HasPrefix(r.plan("deploy"), "COMPLETE") {
			t.Error("a lost connection changed something")
		}
	})
}

func TestAgentAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMaster(t, 4, room)
		r := newRig(t, m, memory.New())
		r.put(kafka)
		r.untilPlan("deploy", api.Complete, 20*time.Second)
		host := m.where()["kafka-1-broker"]
		m.leave(host)
		r.after(30 * time.Minute)
		if m.launches("kafka-1-broker") != 1 {
			t.Error("an instance with data was replaced by itself")
		}
		if got := r.find("kafka").Health(); got.Status != api.StatusRunning || !strings.Contains(got.Message, "it is waited for until somebody replaces the pod") {
			t.Error(got)
		}
		m.comeBack(host)
		r.untilPlan("recovery", api.Complete, 5*time.Second)
		if m.launches("kafka-1-broker") != 1 {
			t.Error("it was there and was launched again")
		}

		// The same with a time after which it is given up.
		r.put(kafka + "replacement-failure-policy: {permanent-failure-timeout: 600}\n")
		m.leave(host)
		r.after(9 * time.Minute)
		if m.launches("kafka-1-broker") != 1 {
			t.Error("too soon")
		}
		r.after(2 * time.Minute)
		r.untilPlan("recovery", api.Complete, 10*time.Second)
		if got := m.where()["kafka-1-broker"]; got == "" || got == host || m.launches("kafka-1-format") != 2 {
			t.Errorf("it is at %q", got)
		}
		if m.launches("kafka-0-broker") != 1 {
			t.Error("others were restarted")
		}
		// Its host comes back: the old task is killed and all is given back.
		m.comeBack(host)
		r.after(time.Minute)
		if strings.Contains(m.leftovers(), host) {
			t.Error(m.leftovers())
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		if len(m.tasks) != 3 {
			t.Errorf("%d tasks", len(m.tasks))
		}
	})
}

// variable is one of a task's environment.
func variable(info *mesos.TaskInfo, name string) string {
	for _, v := range info.GetCommand().GetEnvironment().GetVariables() {
		if v.GetName() == name {
			return v.GetValue()
		}
	}
	return ""
}

func TestReplaceAndGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMaster(t, 5, room)
		r := newRig(t, m, memory.New())
		r.put(kafka)
		r.untilPlan("deploy", api.Complete, 20*time.Second)
		volume, address := volumeOf(m.last("kafka-0-broker")), variable(m.last("kafka-0-broker"), "MESOS_CONTAINER_IP")
		if got := variable(m.last("kafka-0-broker"), "POD_REPLACED"); got != "" {
			t.Errorf("the first of all is told that it is made anew for %s", got)
		}
		if _, err := r.find("kafka").ReplacePod(t.Context(), "kafka-0"); err != nil {
			t.Fatal(err)
		}
		r.until("it is elsewhere", 20*time.Second, func() bool { return m.launches("kafka-0-broker") == 2 })
		r.untilPlan("recovery", api.Complete, 10*time.Second)
		if volumeOf(m.last("kafka-0-broker")) == volume || m.launches("kafka-0-format") != 2 {
			t.Error("not made anew")
		}
		if got := variable(m.last("kafka-0-broker"), "POD_REPLACED"); got != address || got == "" {
			t.Errorf("it is told that it is made anew for %q, which was at %q", got, address)
		}
		if strings.Contains(m.leftovers(), volume) {
			t.Error(m.leftovers())
		}
		if !strings.HasPrefix(r.plan("deploy"), "COMPLETE") {
			t.Error(r.plan("deploy"))
		}
		dead := m.where()["kafka-2-broker"]
		m.die(dead)
		r.until("it is elsewhere", 30*time.Second, func() bool { h := m.where()["kafka-2-broker"]; return h != "" && h != dead })
		r.untilPlan("recovery", api.Complete, 10*time.Second)
		r.after(time.Minute)
		if recs, _, _ := r.store.List(t.Context(), "service-claim"); len(recs) != 0 {
			t.Errorf("%d claims are left: %s", len(recs), recs[0].Value)
		}
	})
}

func TestUninstallLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMaster(t, 3, room)
		r := newRig(t, m, memory.New())
		r.put(kafka)
		r.untilPlan("deploy", api.Complete, 20*time.Second)
		if err := r.s.Delete(t.Context(), "/kafka", false); err != nil {
			t.Fatal(err)
		}
		if got := r.find("kafka").Health(); got.Status != api.StatusUninstalling {
			t.Error(got)
		}
		r.until("it is gone", 30*time.Second, func() bool { _, err := r.s.Find("kafka"); return fault.Is(err, fault.NotFound) })
		if left := m.leftovers() + r.records(); left != "" || len(m.tasks) > 0 || len(m.frameworks) > 0 {
			t.Errorf("left: %s%d tasks, %d frameworks", left, len(m.tasks), len(m.frameworks))
		}
		// The name is free again, and with an agent away.
		r.put(kafka)
		r.untilPlan("deploy", api.Complete, 20*time.Second)
		m.leave("host-1")
		if err := r.s.Delete(t.Context(), "kafka", false); err != nil {
			t.Fatal(err)
		}
		r.after(time.Hour)
		if got := r.find("kafka").Health(); got.Status != api.StatusUninstalling || !strings.Contains(got.Message, "host-1 cannot be reached") {
			t.Error(got)
		}
		r.stop()
		r = newRig(t, m, r.store) // another leader remembers
		r.after(time.Minute)
		m.comeBack("host-1")
		r.until("it is gone", 2*time.Minute, func() bool { _, err := r.s.Find("kafka"); return fault.Is(err, fault.NotFound) })
		if left := m.leftovers() + r.records(); left != "" || len(m.tasks) > 0 || len(m.frameworks) > 0 {
			t.Errorf("left: %s%d tasks, %d frameworks", left, len(m.tasks), len(m.frameworks))
		}
		// And with one that never returns.
		r.put(kafka)
		r.untilPlan("deploy", api.Complete, 20*time.Second)
		m.leave("host-2")
		_ = r.s.Delete(t.Context(), "kafka", false)
		r.after(time.Minute)
		m.die("host-2")
		r.until("it is gone", 2*time.Minute, func() bool { _, err := r.s.Find("kafka"); return fault.Is(err, fault.NotFound) })
		if left := m.leftovers() + r.records(); left != "" || len(m.frameworks) > 0 {
			t.Errorf("left: %s", left)
		}
	})
}

func TestRefusedBeforeAnythingStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMaster(t, 2, room)
		r := newRig(t, m, memory.New())
		for name, c := range map[string]struct{ spec, want string }{
			"too few agents": {kafka, "line 5: pods.kafka: too few agents for the placement rule: hostname UNIQUE has room for 2 of 3 instances on 2 agents; add agents, or have fewer instances, or another rule"},
			"too little memory": {edit(edit(kafka, "count: 3", "count: 2"), "memory: 100\n        env", "memory: 2000\n        env"),
				"line 5: pods.kafka: 0 of 2 instances find a place; kafka-0, which needs cpus 0.5, mem 2000 MiB, disk 100 MiB, ports 9092, 1 ports, does not: host-0 (mem: 2000 more needed, 1000 offered), host-1 (mem: 2000 more needed, 1000 offered)"},
			"a port that nobody has": {edit(edit(kafka, "count: 3", "count: 1"), "port: 9092, adv", "port: 80, adv"),
				"line 5: pods.kafka: 0 of 1 instances find a place; kafka-0, which needs cpus 0.5, mem 100 MiB, disk 100 MiB, ports 80, 1 ports, does not: host-0 (ports: port 80 for broker/broker is not free on the agent), host-1 (ports: port 80 for broker/broker is not free on the agent)"},
			"a name in a template": {edit(kafka, "{{PORT_BROKER}}", "{{PORT_BROKR}}"),
				"line 18: pods.kafka.tasks.broker.configs.server: template server: "},
			"what it requires": {edit(edit(kafka, "count: 3", "count: 1"), "name: kafka", "name: kafka\nrequires: [hdfs]"),
				"line 3: requires[0]: service hdfs is required and is not installed; install it first"},
		} {
			err := r.s.Check(t.Context(), request(c.spec))
			ps, ok := errors.AsType[api.Problems](err)
			if !fault.Is(err, fault.Invalid) || !ok || !strings.HasPrefix(ps.Error(), c.want) {
				t.Errorf("%s:\n%v", name, err)
			}
		}
		if got := r.records(); got != "" || len(m.frameworks) != 0 {
			t.Errorf("something was started: %s", got)
		}
		forced := request(kafka)
		forced.Force = true
		if _, created, err := r.s.Put(t.Context(), "kafka", forced, true); err != nil || !created {
			t.Fatal(err)
		}
		if _, _, err := r.s.Put(t.Context(), "kafka", forced, true); !fault.Is(err, fault.Exists) {
			t.Error(err)
		}
		r.until("two of three", 20*time.Second, func() bool { return len(m.where()) == 2 && m.launches("kafka-1-broker") == 1 })
		r.after(5 * time.Second)
		p, _ := r.find("kafka").Plan("deploy")
		if st := p.Phases[0].Steps[4]; st.Status != api.Prepared || !strings.Contains(st.Message, `no offer fits: host-0: placement: hostname UNIQUE: it is "host-0", with 1 instances there`) {
			t.Errorf("%+v", st)
		}
		if d := r.find("kafka").DebugOffers(); d.Rejections["placement"] == 0 || d.Outcomes[0].Outcome != "fail" {
			t.Errorf("%+v", d)
		}
		// A third host comes, and it goes on.
		m.mu.Lock()
		m.add(room)
		m.allocate()
		m.mu.Unlock()
		r.untilPlan("deploy", api.Complete, 20*time.Second)
	})
}

func TestPauseRestartAndPlans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMaster(t, 3, room)
		r := newRig(t, m, memory.New())
		spec := edit(edit(kafka, "volumes:", "share-volumes: true\n    volumes:"), "plans:\n", `plans:
  backup: {strategy: serial, phases: {all: {pod: kafka, steps: [[default, [backup]]]}}}
`)
		spec = edit(spec, "      format:", "      backup: {goal: FINISH, cmd: ./backup, cpus: 0.1, memory: 50}\n      format:")
		r.put(spec)
		r.untilPlan("deploy", api.Complete, 20*time.Second)
		e := r.find("kafka")
		if got := r.plan("backup"); !strings.HasPrefix(got, "WAITING") {
			t.Error(got)
		}
		if err := e.StartPlan(t.Context(), "backup", map[string]string{"TO": "s3"}); err != nil {
			t.Fatal(err)
		}
		r.after(100 * time.Millisecond)
		if err := e.StartPlan(t.Context(), "backup", nil); !fault.Is(err, fault.Conflict) {
			t.Error(err)
		}
		if got := r.plan("backup"); got != "IN_PROGRESS kafka-0:[backup]=STARTED kafka-1:[backup]=PENDING kafka-2:[backup]=PENDING" {
			t.Error(got)
		}
		r.untilPlan("backup", api.Complete, 20*time.Second)
		env := map[string]string{}
		for _, v := range m.last("kafka-2-backup").GetCommand().GetEnvironment().GetVariables() {
			env[v.GetName()] = v.GetValue()
		}
		if env["TO"] != "s3" || m.launches("kafka-2-broker") != 1 {
			t.Errorf("%v", env)
		}
		if err := e.StartPlan(t.Context(), "backup", nil); err != nil {
			t.Fatal(err)
		}
		if err := e.StopPlan(t.Context(), "backup"); err != nil {
			t.Fatal(err)
		}
		r.after(5 * time.Second)
		if got := r.plan("backup"); !strings.HasPrefix(got, "WAITING") || len(m.where()) != 3 {
			t.Error(got, m.where())
		}

		res, err := e.PausePod(t.Context(), "kafka-1", nil)
		if err != nil || !cmp.Equal(res.Tasks, []string{"kafka-1-broker"}) {
			t.Fatal(res, err)
		}
		r.until("it is paused", 10*time.Second, func() bool {
			p, _ := e.Pod("kafka-1")
			return p.Tasks[2].Status == api.TaskPaused
		})
		if got := m.last("kafka-1-broker"); !strings.HasPrefix(got.GetCommand().GetValue(), "trap") || got.GetHealthCheck() != nil {
			t.Error(got)
		}
		if _, err := e.PausePod(t.Context(), "kafka-1", nil); !fault.Is(err, fault.Conflict) {
			t.Error(err)
		}
		if _, err := e.ResumePod(t.Context(), "kafka-1", nil); err != nil {
			t.Fatal(err)
		}
		r.until("it serves again", 10*time.Second, func() bool { p, _ := e.Pod("kafka-1"); return p.Tasks[2].Ready })

		n := m.launches("kafka-2-broker")
		if _, err := e.RestartPod(t.Context(), "kafka-2"); err != nil {
			t.Fatal(err)
		}
		r.until("it is restarted", 10*time.Second, func() bool { return m.launches("kafka-2-broker") == n+1 })
		r.untilPlan("recovery", api.Complete, 10*time.Second)
		if _, err := e.RestartPod(t.Context(), "kafka-9"); !fault.Is(err, fault.NotFound) {
			t.Error(err)
		}
		// A step done again takes one instance at a time.
		defer r.watchdog(1)()
		n = m.launches("kafka-0-broker")
		if err := e.Restart(t.Context(), "deploy", "brokers", ""); err != nil {
			t.Fatal(err)
		}
		r.after(time.Second)
		r.untilPlan("deploy", api.Complete, 30*time.Second)
		if m.launches("kafka-0-broker") != n+1 {
			t.Error("not restarted")
		}
	})
}

func TestInterruptContinueForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMaster(t, 3, room)
		r := newRig(t, m, memory.New())
		canary := edit(kafka, "{pod: kafka, steps", "{pod: kafka, strategy: canary, steps")
		r.put(canary)
		r.after(5 * time.Second)
		if got := r.plan("deploy"); !strings.HasPrefix(got, "WAITING") || len(m.where()) != 0 {
			t.Error(got)
		}
		e := r.find("kafka")
		if ok, err := e.Continue(t.Context(), "deploy", ""); err != nil || !ok {
			t.Fatal(ok, err)
		}
		r.after(5 * time.Second)
		if m.launches("kafka-0-format") != 1 || m.launches("kafka-0-broker") != 0 {
			t.Error("the canary is one step")
		}
		_, _ = e.Continue(t.Context(), "deploy", "brokers")
		r.after(3500 * time.Millisecond)
		if ok, err := e.Interrupt(t.Context(), "deploy", ""); err != nil || !ok {
			t.Fatal(ok, err)
		}
		if ok, err := e.Interrupt(t.Context(), "deploy", ""); err != nil || ok {
			t.Fatal(ok, err)
		}
		r.after(time.Minute)
		n := len(m.where())
		if got := r.plan("deploy"); n == 3 || !strings.HasPrefix(got, "WAITING") {
			t.Error(n, got)
		}
		if _, err := e.Continue(t.Context(), "deploy", "nothing"); !fault.Is(err, fault.NotFound) {
			t.Error(err)
		}
		m.mu.Lock()
		m.fate = func(info *mesos.TaskInfo) fate { return fate{sick: strings.HasPrefix(info.GetName(), "kafka-2")} }
		m.mu.Unlock()
		_, _ = e.Continue(t.Context(), "deploy", "")
		r.after(time.Minute)
		if got := r.plan("deploy"); !strings.HasSuffix(got, "kafka-2:[broker]=STARTED") {
			t.Error(got)
		}
		if ok, err := e.ForceComplete(t.Context(), "deploy", "brokers", "kafka-2:[broker]"); err != nil || !ok {
			t.Error(ok, err)
		}
		r.untilPlan("deploy", api.Complete, time.Second)
	})
}
