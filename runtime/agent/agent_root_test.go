//go:build root

package agent_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	mesos "dcos.example/dcos/runtime/api/mesos"
	agentapi "dcos.example/dcos/runtime/api/mesos/agent"

	"dcos.example/dcos/runtime/agent"
	"dcos.example/dcos/runtime/agent/agenttest"
	"dcos.example/dcos/runtime/agent/container/containerdtest"
	"dcos.example/dcos/runtime/agent/network"
	"dcos.example/dcos/runtime/api/agentlink"
	"dcos.example/dcos/runtime/api/wire"
	"dcos.example/dcos/runtime/config"
)

// host is a machine for agents: an engine, a bridge and a work directory that
// outlive any one of them.
type host struct {
	t      testing.TB
	engine *containerdtest.Engine
	master *agenttest.Master
	net    network.Options
	config config.Agent
}

func newHost(t testing.TB, third int) *host {
	t.Helper()
	agenttest.Subnet(t, third)
	h := &host{t: t, engine: containerdtest.Start(t), master: agenttest.New(t), config: config.DefaultAgent()}
	h.config.WorkDir = filepath.Join(h.engine.Dir, "work")
	h.config.Host = config.Host{Name: "h", Addr: netip.MustParseAddr("127.0.0.1")}
	h.config.Resources = "cpus:2;mem:2048;disk:1000"
	if err := os.MkdirAll(h.config.WorkDir, 0o755); err != nil {
		t.Fatal(err)
	}
	h.net = network.Options{
		Bridge:   config.Bridge{Name: fmt.Sprintf("dct3b%d", third), Subnet: netip.MustParsePrefix(fmt.Sprintf("198.19.%d.0/24", third))},
		StateDir: filepath.Join(h.engine.Dir, "net"), Table: fmt.Sprintf("dct3_%d", third), Prefix: "dct3-", Log: slog.New(slog.DiscardHandler),
	}
	t.Cleanup(func() {
		m, err := network.New(h.net)
		if err == nil {
			err = m.Destroy(context.Background())
		}
		if err != nil {
			t.Error(err)
		}
	})
	return h
}

type running struct {
	*agent.Agent
	api  *httptest.Server
	stop func()
}

// up starts an agent on the host; stop leaves its tasks running.
func (h *host) up() *running {
	h.t.Helper()
	n, err := network.New(h.net)
	if err != nil {
		h.t.Fatal(err)
	}
	a, err := agent.New(agent.Options{
		Config: h.config, Masters: func() []string { return []string{h.master.URL} }, Client: http.DefaultClient, Log: slog.New(slog.NewTextHandler(h.t.Output(), nil)),
		Version: "0.1.0", Containers: h.engine.Driver(h.t), Networks: n, SecretsDir: filepath.Join(h.engine.Dir, "secrets"),
	})
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	r := &running{Agent: a, api: httptest.NewServer(a.Handler())}
	r.stop = sync.OnceFunc(func() {
		h.master.Drop()
		cancel()
		if err := <-done; err != nil {
			h.t.Errorf("agent: %v", err)
		}
		r.api.Close()
	})
	h.t.Cleanup(r.stop)
	return r
}

func (h *host) run(f *mesos.FrameworkInfo, t *mesos.TaskInfo) {
	h.master.Send(h.t, agenttest.Run(f, t))
}

// image makes a task run tiny in its image.
func image(ti *mesos.TaskInfo, args ...string) *mesos.TaskInfo {
	ti.Command = &mesos.CommandInfo{Shell: proto.Bool(false), Arguments: args}
	ti.Container = &mesos.ContainerInfo{
		Type:   mesos.ContainerInfo_DOCKER.Enum(),
		Docker: &mesos.ContainerInfo_DockerInfo{Image: proto.String(containerdtest.Image)},
	}
	return ti
}

func bridged(ti *mesos.TaskInfo, hostPort, port uint32) *mesos.TaskInfo {
	ti.Container.Docker.Network = mesos.ContainerInfo_DockerInfo_BRIDGE.Enum()
	ti.Container.Docker.PortMappings = []*mesos.ContainerInfo_DockerInfo_PortMapping{{HostPort: &hostPort, ContainerPort: &port}}
	return ti
}

func httpCheck(port uint32, path string) *mesos.HealthCheck {
	return &mesos.HealthCheck{
		Type: mesos.HealthCheck_HTTP.Enum(), Http: &mesos.HealthCheck_HTTPCheckInfo{Port: &port, Path: &path},
		DelaySeconds: proto.Float64(0), IntervalSeconds: proto.Float64(0.1), TimeoutSeconds: proto.Float64(2),
		ConsecutiveFailures: proto.Uint32(3), GracePeriodSeconds: proto.Float64(10),
	}
}

func get(t testing.TB, url string) (int, []byte) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, b
}

// owner is who owns a file.
func owner(fi os.FileInfo) (uid, gid uint32) {
	st := fi.Sys().(*syscall.Stat_t)
	return st.Uid, st.Gid
}

func containerID(s *mesos.TaskStatus) string {
	return s.GetContainerStatus().GetContainerId().GetValue()
}

func TestTasks(t *testing.T) {
	h := newHost(t, 37)
	h.up()
	f := agenttest.Framework(mesos.FrameworkInfo_Capability_TASK_KILLING_STATE)

	t.Run("command", func(t *testing.T) {
		h.run(f, agenttest.Task("cmd", `echo "$MESOS_TASK_ID in $(pwd)" > out; test "$PWD" = "$MESOS_SANDBOX"`))
		s := h.master.State(t, "cmd", mesos.TaskState_TASK_FINISHED)
		if s.GetMessage() != "Command exited with status 0" || s.GetSource() != mesos.TaskStatus_SOURCE_EXECUTOR {
			t.Errorf("status %v", s)
		}
		run := h.master.State(t, "cmd", mesos.TaskState_TASK_RUNNING)
		if ip := run.GetContainerStatus().GetNetworkInfos()[0].GetIpAddresses()[0].GetIpAddress(); ip != "127.0.0.1" {
			t.Errorf("on the host's network the address is %s", ip)
		}
	})
	t.Run("failure", func(t *testing.T) {
		h.run(f, agenttest.Task("bad", "exit 3"))
		if s := h.master.State(t, "bad", mesos.TaskState_TASK_FAILED); s.GetMessage() != "Command exited with status 3" {
			t.Errorf("message %q", s.GetMessage())
		}
	})
	t.Run("out of memory", func(t *testing.T) {
		h.run(f, image(agenttest.Task("oom", ""), "eat", "300"))
		if s := h.master.State(t, "oom", mesos.TaskState_TASK_FAILED); s.GetReason() != mesos.TaskStatus_REASON_CONTAINER_LIMITATION_MEMORY || s.GetLimitation() == nil {
			t.Errorf("status %v", s)
		}
	})
	t.Run("missing image", func(t *testing.T) {
		ti := image(agenttest.Task("noimage", ""))
		ti.Container.Docker.Image = proto.String("127.0.0.1:1/none:1")
		h.run(f, ti)
		s := h.master.State(t, "noimage", mesos.TaskState_TASK_FAILED)
		if s.GetReason() != mesos.TaskStatus_REASON_CONTAINER_LAUNCH_FAILED || !strings.Contains(s.GetMessage(), "does not answer") {
			t.Errorf("status %v", s)
		}
	})
	t.Run("fetch", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "tool")
		if err := os.WriteFile(file, []byte("#!/bin/sh\necho fetched"), 0o644); err != nil {
			t.Fatal(err)
		}
		ti := agenttest.Task("fetch", "./tool | grep -q fetched")
		ti.Command.Uris = []*mesos.CommandInfo_URI{{Value: proto.String("file://" + file), Executable: proto.Bool(true)}}
		h.run(f, ti)
		h.master.State(t, "fetch", mesos.TaskState_TASK_FINISHED)
		ti = agenttest.Task("nofetch", "true")
		ti.Command.Uris = []*mesos.CommandInfo_URI{{Value: proto.String("/does/not/exist")}}
		h.run(f, ti)
		s := h.master.State(t, "nofetch", mesos.TaskState_TASK_FAILED)
		if s.GetReason() != mesos.TaskStatus_REASON_CONTAINER_LAUNCH_FAILED || !strings.Contains(s.GetMessage(), "Failed to fetch all URIs") {
			t.Errorf("status %v", s)
		}
	})
	t.Run("behind a VIP", func(t *testing.T) {
		ti := agenttest.Task("vip", "sleep 1000")
		ti.Discovery = &mesos.DiscoveryInfo{Visibility: mesos.DiscoveryInfo_CLUSTER.Enum(), Ports: &mesos.Ports{Ports: []*mesos.Port{{
			Number: proto.Uint32(24095), Labels: &mesos.Labels{Labels: []*mesos.Label{{Key: proto.String("VIP_0"), Value: proto.String("/vip:80")}}},
		}}}}
		h.run(f, ti)
		h.master.State(t, "vip", mesos.TaskState_TASK_RUNNING)
		asked := time.Now()
		h.master.Send(t, agenttest.Kill(f, "vip", 10*time.Second))
		h.master.State(t, "vip", mesos.TaskState_TASK_KILLING)
		h.master.State(t, "vip", mesos.TaskState_TASK_KILLED)
		if d := time.Since(asked); d < 500*time.Millisecond {
			t.Errorf("it ended %v after it was asked to, before the hosts knew", d)
		}
	})
	t.Run("bridge, health and kill", func(t *testing.T) {
		ti := bridged(image(agenttest.Task("web", ""), "serve", "8080"), 24090, 8080)
		ti.HealthCheck = httpCheck(8080, "/health")
		ti.KillPolicy = &mesos.KillPolicy{GracePeriod: &mesos.DurationInfo{Nanoseconds: proto.Int64(int64(10 * time.Second))}}
		h.run(f, ti)
		run := h.master.State(t, "web", mesos.TaskState_TASK_RUNNING)
		if ip := run.GetContainerStatus().GetNetworkInfos()[0].GetIpAddresses()[0].GetIpAddress(); !strings.HasPrefix(ip, "198.19.37.") {
			t.Errorf("address %s", ip)
		}
		h.master.Wait(t, "web", "is healthy", func(s *mesos.TaskStatus) bool {
			return s.GetHealthy() && s.GetReason() == mesos.TaskStatus_REASON_TASK_HEALTH_CHECK_STATUS_UPDATED
		})
		if code, _ := get(t, "http://127.0.0.1:24090/"); code != 200 {
			t.Errorf("the mapped port answers %d", code)
		}
		get(t, "http://127.0.0.1:24090/sick")
		h.master.Wait(t, "web", "is unhealthy", func(s *mesos.TaskStatus) bool { return s.Healthy != nil && !s.GetHealthy() })
		s := h.master.State(t, "web", mesos.TaskState_TASK_KILLED)
		if s.GetHealthy() || !strings.Contains(s.GetMessage(), "Health checks failed too often") {
			t.Errorf("status %v", s)
		}
		if len(h.master.Updates("web")) < 5 { // running, healthy, unhealthy x3, killing, killed
			t.Errorf("updates %v", h.master.Updates("web"))
		}
	})
	t.Run("kill with grace", func(t *testing.T) {
		h.run(f, image(agenttest.Task("stubborn", ""), "ignore"))
		id := containerID(h.master.State(t, "stubborn", mesos.TaskState_TASK_RUNNING))
		h.master.Until(t, "it ignores SIGTERM", func() bool {
			b, err := os.ReadFile(filepath.Join(h.config.WorkDir, "slaves", agenttest.AgentID, "frameworks/fw-1/executors/stubborn/runs", id, "stdout"))
			return err == nil && strings.Contains(string(b), "ready")
		})
		start := time.Now()
		h.master.Send(t, agenttest.Kill(f, "stubborn", 300*time.Millisecond))
		h.master.State(t, "stubborn", mesos.TaskState_TASK_KILLING)
		h.master.State(t, "stubborn", mesos.TaskState_TASK_KILLED)
		if d := time.Since(start); d < 300*time.Millisecond {
			t.Errorf("killed after %s, before the grace period was over", d)
		}
	})
	t.Run("maximum completion time", func(t *testing.T) {
		ti := agenttest.Task("long", "sleep 1000")
		ti.MaxCompletionTime = &mesos.DurationInfo{Nanoseconds: proto.Int64(int64(200 * time.Millisecond))}
		h.run(f, ti)
		if s := h.master.State(t, "long", mesos.TaskState_TASK_FAILED); s.GetReason() != mesos.TaskStatus_REASON_MAX_COMPLETION_TIME_REACHED {
			t.Errorf("status %v", s)
		}
	})
	t.Run("command check", func(t *testing.T) {
		ti := image(agenttest.Task("cmdcheck", ""), "sleep", "1000")
		ti.HealthCheck = &mesos.HealthCheck{
			Type: mesos.HealthCheck_COMMAND.Enum(), DelaySeconds: proto.Float64(0),
			Command: &mesos.CommandInfo{Shell: proto.Bool(false), Arguments: []string{"/tiny", "exit", "0"}},
		}
		h.run(f, ti)
		h.master.Wait(t, "cmdcheck", "is healthy", func(s *mesos.TaskStatus) bool { return s.GetHealthy() })
		h.master.Send(t, &agentlink.Downlink{ShutdownFramework: &agentlink.ShutdownFramework{FrameworkId: f.GetId()}})
		if s := h.master.State(t, "cmdcheck", mesos.TaskState_TASK_KILLED); s.GetReason() != mesos.TaskStatus_REASON_FRAMEWORK_REMOVED {
			t.Errorf("status %v", s)
		}
	})
	t.Run("nothing is left", func(t *testing.T) {
		list, err := h.engine.Driver(t).List(t.Context())
		if err != nil || len(list) != 0 {
			t.Errorf("containers %v, %v", list, err)
		}
		if files, _ := filepath.Glob(filepath.Join(h.net.StateDir, "*")); len(files) != 0 {
			t.Errorf("attachments %v", files)
		}
	})
}

// An agent that stops and comes back has lost nothing: not the tasks that ran
// on, not the exits it did not see, not the updates nobody acknowledged.
func TestRecovery(t *testing.T) {
	h := newHost(t, 38)
	a := h.up()
	f := agenttest.Framework()
	live := bridged(image(agenttest.Task("live", ""), "serve", "8080"), 24091, 8080)
	live.HealthCheck = httpCheck(8080, "/health")
	h.run(f, live)
	h.run(f, agenttest.Task("short", "sleep 0.5; exit 4"))
	id := containerID(h.master.State(t, "live", mesos.TaskState_TASK_RUNNING))
	h.master.Wait(t, "live", "is healthy", func(s *mesos.TaskStatus) bool { return s.GetHealthy() })
	h.master.State(t, "short", mesos.TaskState_TASK_RUNNING)
	a.stop()
	if code, _ := get(t, "http://127.0.0.1:24091/"); code != 200 {
		t.Errorf("without an agent the task answers %d", code)
	}
	time.Sleep(700 * time.Millisecond) // in which "short" ends unseen
	h.up()
	if s := h.master.State(t, "short", mesos.TaskState_TASK_FAILED); s.GetMessage() != "Command exited with status 4" {
		t.Errorf("the unseen exit: %q", s.GetMessage())
	}
	subs := h.master.Subscriptions()
	last := subs[len(subs)-1]
	if last.GetAgent().GetId().GetValue() != agenttest.AgentID || len(last.GetTasks()) == 0 || len(last.GetFrameworks()) != 1 {
		t.Errorf("registered again with %v", last)
	}
	get(t, "http://127.0.0.1:24091/sick") // the checks go on
	s := h.master.Wait(t, "live", "is killed", func(s *mesos.TaskStatus) bool { return s.GetState() == mesos.TaskState_TASK_KILLED })
	if containerID(s) != id {
		t.Errorf("the container is %s, was %s", containerID(s), id)
	}
}

func TestUnacknowledged(t *testing.T) {
	h := newHost(t, 38)
	h.master.AutoAck = false
	a := h.up()
	h.run(agenttest.Framework(), agenttest.Task("one", "true"))
	h.master.State(t, "one", mesos.TaskState_TASK_RUNNING)
	h.master.Until(t, "its container is gone", func() bool {
		list, err := h.engine.Driver(t).List(t.Context())
		return err == nil && len(list) == 0
	})
	a.stop()
	h.master.AutoAck = true
	h.up()
	h.master.State(t, "one", mesos.TaskState_TASK_FINISHED)
	h.master.Until(t, "the checkpoint is removed", func() bool {
		logs, err := filepath.Glob(filepath.Join(h.config.WorkDir, "meta", "tasks", "*"))
		return err == nil && len(logs) == 0
	})
}

// After a reboot the tasks are gone, and the agent is still itself.
func TestReboot(t *testing.T) {
	h := newHost(t, 38)
	a := h.up()
	h.run(agenttest.Framework(), agenttest.Task("lost", "sleep 1000"))
	gone := agenttest.Framework(mesos.FrameworkInfo_Capability_PARTITION_AWARE)
	gone.Id.Value = proto.String("fw-2")
	h.run(gone, agenttest.Task("gone", "sleep 1000"))
	h.master.State(t, "lost", mesos.TaskState_TASK_RUNNING)
	h.master.State(t, "gone", mesos.TaskState_TASK_RUNNING)
	a.stop()
	file := filepath.Join(h.config.WorkDir, "meta", "agent.json")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var self map[string]any
	if err := json.Unmarshal(b, &self); err != nil {
		t.Fatal(err)
	}
	self["boot_id"] = "the boot before"
	if b, err = json.Marshal(self); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	h.up()
	if s := h.master.State(t, "lost", mesos.TaskState_TASK_LOST); s.GetReason() != mesos.TaskStatus_REASON_AGENT_RESTARTED {
		t.Errorf("status %v", s)
	}
	h.master.State(t, "gone", mesos.TaskState_TASK_GONE)
	subs := h.master.Subscriptions()
	if id := subs[len(subs)-1].GetAgent().GetId().GetValue(); id != agenttest.AgentID {
		t.Errorf("the agent's id is now %q", id)
	}
}

func TestHTTP(t *testing.T) {
	h := newHost(t, 38)
	a := h.up()
	f := agenttest.Framework()
	h.run(f, image(agenttest.Task("shell", ""), "print", "hello from the task"))
	h.master.State(t, "shell", mesos.TaskState_TASK_FINISHED)
	h.run(f, image(agenttest.Task("api", ""), "sleep", "1000"))
	id := containerID(h.master.State(t, "api", mesos.TaskState_TASK_RUNNING))

	code, b := get(t, a.api.URL+"/slave(1)/state")
	var state struct {
		Frameworks []struct {
			Executors []struct {
				Directory string
				Tasks     []struct{ State string }
			}
		}
	}
	if err := json.Unmarshal(b, &state); err != nil || code != 200 || len(state.Frameworks) != 1 || len(state.Frameworks[0].Executors) != 1 {
		t.Fatalf("state: %d %v %s", code, err, b)
	}
	if st := state.Frameworks[0].Executors[0].Tasks[0].State; st != "TASK_RUNNING" {
		t.Errorf("task state %s", st)
	}
	for _, path := range []string{state.Frameworks[0].Executors[0].Directory, "/frameworks/fw-1/executors/api/runs/latest"} {
		if code, b = get(t, a.api.URL+"/files/browse?path="+path); code != 200 || !strings.Contains(string(b), "/stdout") {
			t.Errorf("browse %s: %d %s", path, code, b)
		}
	}
	if code, b = get(t, a.api.URL+"/files/download?path=/frameworks/fw-1/executors/shell/runs/latest/stdout"); string(b) != "hello from the task\n" {
		t.Errorf("download: %d %q", code, b)
	}
	if code, b = get(t, a.api.URL+"/containers"); code != 200 || !strings.Contains(string(b), "mem_rss_bytes") {
		t.Errorf("containers: %d %s", code, b)
	}
	testSession(t, a.api.URL+"/api/v1", id)
}

// testSession runs a command in a container as dcos task exec does.
func testSession(t *testing.T, url, id string) {
	t.Helper()
	nested := &mesos.ContainerID{Value: proto.String("n1"), Parent: &mesos.ContainerID{Value: &id}}
	post := func(kind, inner string, body io.Reader) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", kind)
		if inner != "" {
			req.Header.Set("Message-Content-Type", inner)
		}
		if kind != "application/recordio" {
			req.Header.Set("Accept", "application/recordio")
			req.Header.Set("Message-Accept", "application/x-protobuf")
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	marshal := func(m proto.Message) []byte {
		t.Helper()
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	launch := post("application/x-protobuf", "", bytes.NewReader(marshal(&agentapi.Call{
		Type: agentapi.Call_LAUNCH_NESTED_CONTAINER_SESSION.Enum(),
		LaunchNestedContainerSession: &agentapi.Call_LaunchNestedContainerSession{
			ContainerId: nested, Command: &mesos.CommandInfo{Shell: proto.Bool(false), Value: proto.String("/tiny"), Arguments: []string{"tiny", "cat"}},
		},
	})))
	defer launch.Body.Close()
	if launch.StatusCode != 200 || launch.Header.Get("Content-Type") != "application/recordio" || launch.Header.Get("Message-Content-Type") != "application/x-protobuf" {
		b, _ := io.ReadAll(launch.Body)
		t.Fatalf("launch: %s %v %s", launch.Status, launch.Header, b)
	}
	var in bytes.Buffer
	w := wire.NewRecordWriter(&in)
	input := func(c *agentapi.Call_AttachContainerInput) {
		t.Helper()
		if err := w.Write(marshal(&agentapi.Call{Type: agentapi.Call_ATTACH_CONTAINER_INPUT.Enum(), AttachContainerInput: c})); err != nil {
			t.Fatal(err)
		}
	}
	stdin := func(s string) *agentapi.Call_AttachContainerInput {
		return &agentapi.Call_AttachContainerInput{
			Type: agentapi.Call_AttachContainerInput_PROCESS_IO.Enum(),
			ProcessIo: &agentapi.ProcessIO{Type: agentapi.ProcessIO_DATA.Enum(), Data: &agentapi.ProcessIO_Data{
				Type: agentapi.ProcessIO_Data_STDIN.Enum(), Data: []byte(s),
			}},
		}
	}
	input(&agentapi.Call_AttachContainerInput{Type: agentapi.Call_AttachContainerInput_CONTAINER_ID.Enum(), ContainerId: nested})
	input(stdin("typed"))
	input(stdin(""))
	attach := post("application/recordio", "application/x-protobuf", &in)
	if b, _ := io.ReadAll(attach.Body); attach.StatusCode != 200 {
		t.Errorf("attach input: %s %s", attach.Status, b)
	}
	attach.Body.Close()
	var out strings.Builder
	for r := wire.NewRecordReader(launch.Body, 1<<20); ; {
		b, err := r.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		p := &agentapi.ProcessIO{}
		if err := proto.Unmarshal(b, p); err != nil {
			t.Fatal(err)
		}
		out.Write(p.GetData().GetData())
	}
	if out.String() != "typed" {
		t.Errorf("output %q", out.String())
	}
	resp, err := http.Post(url, "application/json", strings.NewReader(
		`{"type":"WAIT_CONTAINER","wait_container":{"container_id":{"value":"n1","parent":{"value":"`+id+`"}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); resp.StatusCode != 200 || !strings.Contains(string(b), `"exit_status":0`) {
		t.Errorf("wait: %s %s", resp.Status, b)
	}
}

// cpu is what this process's control group and the containers have used, a
// figure that other work on the machine does not blur. It is zero unless the
// benchmark runs in a cpuacct group of its own, DCOS_BENCH_CGROUP.
func (h *host) cpu() (sum time.Duration) {
	for _, g := range []string{os.Getenv("DCOS_BENCH_CGROUP"), "/sys/fs/cgroup/cpuacct" + h.engine.Options.CgroupParent} {
		b, err := os.ReadFile(filepath.Join(g, "cpuacct.usage"))
		if err != nil {
			return 0
		}
		var ns int64
		if _, err := fmt.Sscan(string(b), &ns); err != nil {
			return 0
		}
		sum += time.Duration(ns)
	}
	return sum
}

// BenchmarkLaunch is what a user waits for: from the message to the update.
func BenchmarkLaunch(b *testing.B) {
	h := newHost(b, 38)
	h.up()
	f := agenttest.Framework()
	warm := bridged(image(agenttest.Task("warm", ""), "sleep", "1000"), 24500, 80)
	h.run(f, warm)
	h.master.State(b, "warm", mesos.TaskState_TASK_RUNNING)
	b.Run("one", func(b *testing.B) {
		i := 0
		for b.Loop() {
			i++
			name := fmt.Sprintf("one-%d-%d", b.N, i)
			h.run(f, bridged(image(agenttest.Task(name, ""), "sleep", "1000"), 24501, 80))
			h.master.State(b, name, mesos.TaskState_TASK_RUNNING)
			b.StopTimer()
			h.master.Send(b, agenttest.Kill(f, name, 0))
			h.master.State(b, name, mesos.TaskState_TASK_KILLED)
			b.StartTimer()
		}
	})
	b.Run("hundred", func(b *testing.B) {
		const n = 100
		round := 0
		var cpu time.Duration
		for b.Loop() {
			round++
			before := h.cpu()
			for i := range n {
				h.run(f, bridged(image(agenttest.Task(fmt.Sprintf("h%d-%d", round, i), ""), "sleep", "1000"), uint32(25000+i), 80))
			}
			for i := range n {
				h.master.State(b, fmt.Sprintf("h%d-%d", round, i), mesos.TaskState_TASK_RUNNING)
			}
			b.StopTimer()
			cpu += h.cpu() - before
			for i := range n {
				h.master.Send(b, agenttest.Kill(f, fmt.Sprintf("h%d-%d", round, i), 0))
			}
			for i := range n {
				h.master.State(b, fmt.Sprintf("h%d-%d", round, i), mesos.TaskState_TASK_KILLED)
			}
			b.StartTimer()
		}
		b.ReportMetric(float64(cpu.Milliseconds())/float64(n*b.N), "cpu-ms/task")
		b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
	})
}
