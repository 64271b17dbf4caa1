//go:build root

package agent_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"google.golang.org/protobuf/proto"

	mesos "dcos.example/dcos/runtime/api/mesos"

	"dcos.example/dcos/runtime/agent/agenttest"
	"dcos.example/dcos/runtime/agent/container/containerdtest"
	"dcos.example/dcos/runtime/config"
)

// disk is a persistent volume of role db.
func disk(id, path string, mode mesos.Volume_Mode, shared bool) *mesos.Resource {
	r := &mesos.Resource{
		Name: proto.String("disk"), Type: mesos.Value_SCALAR.Enum(), Scalar: &mesos.Value_Scalar{Value: proto.Float64(64)},
		Reservations: []*mesos.Resource_ReservationInfo{{Type: mesos.Resource_ReservationInfo_DYNAMIC.Enum(), Role: proto.String("db")}},
		Disk: &mesos.Resource_DiskInfo{
			Persistence: &mesos.Resource_DiskInfo_Persistence{Id: &id},
			Volume:      &mesos.Volume{ContainerPath: &path, Mode: &mode},
		},
	}
	if shared {
		r.Shared = &mesos.Resource_SharedInfo{}
	}
	return r
}

// with makes a task use resources of role db.
func with(ti *mesos.TaskInfo, rs ...*mesos.Resource) *mesos.TaskInfo {
	for _, r := range rs {
		r = proto.CloneOf(r)
		r.AllocationInfo = &mesos.Resource_AllocationInfo{Role: proto.String("db")}
		ti.Resources = append(ti.Resources, r)
	}
	return ti
}

func as(user string, ti *mesos.TaskInfo) *mesos.TaskInfo {
	ti.Command.User = &user
	return ti
}

// output is what a task wrote until it has ended well.
func (h *host) output(task string) string {
	h.t.Helper()
	id := containerID(h.master.State(h.t, task, mesos.TaskState_TASK_FINISHED))
	b, err := os.ReadFile(filepath.Join(h.config.WorkDir, "slaves", agenttest.AgentID, "frameworks/fw-1/executors", task, "runs", id, "stdout"))
	if err != nil {
		h.t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// What a task writes to its volume outlives the task and the agent, and ends
// when the volume is destroyed.
func TestPersistentVolumes(t *testing.T) {
	h := newHost(t, 15)
	a := h.up()
	f := agenttest.Framework(mesos.FrameworkInfo_Capability_PARTITION_AWARE)
	data, shared := disk("data", "/data", mesos.Volume_RW, false), disk("shared", "/shared", mesos.Volume_RW, true)
	path := filepath.Join(h.config.WorkDir, "volumes", "roles", "db", "data")

	h.run(f, with(image(agenttest.Task("early", ""), "print"), data))
	if s := h.master.State(t, "early", mesos.TaskState_TASK_DROPPED); s.GetReason() != mesos.TaskStatus_REASON_INVALID_OFFERS {
		t.Errorf("before the volume is there: %v", s)
	}
	if answer := h.master.Keep(t, data, shared); answer != "" {
		t.Fatal(answer)
	}
	h.run(f, as("app", with(image(agenttest.Task("write", ""), "write", "/data/file", "kept"), data)))
	h.master.State(t, "write", mesos.TaskState_TASK_FINISHED)
	if fi, err := os.Stat(filepath.Join(path, "file")); err != nil {
		t.Fatal(err)
	} else if uid, gid := owner(fi); uid != 1234 || gid != 1234 {
		t.Errorf("written by %d:%d, not by the image's user", uid, gid)
	}
	a.stop()
	a = h.up()
	h.master.Until(t, "the agent is back", func() bool { return len(h.master.Subscriptions()) == 2 })
	if last := h.master.Subscriptions()[1].GetCheckpointedResources(); len(last) != 2 || !proto.Equal(last[0], data) || !proto.Equal(last[1], shared) {
		t.Errorf("after a restart the agent tells of %v", last)
	}
	h.run(f, with(image(agenttest.Task("read", ""), "cat", "/data/file"), data))
	if got := h.output("read"); got != "kept" {
		t.Errorf("read %q", got)
	}
	// On the host's root the volume is in the sandbox, under any name.
	sandboxed := disk("data", "inner", mesos.Volume_RO, false)
	if answer := h.master.Keep(t, sandboxed, shared); answer != "" {
		t.Fatal(answer)
	}
	h.run(f, with(agenttest.Task("host", "cat inner/file; echo; touch inner/new || echo read only"), sandboxed))
	if got := h.output("host"); got != "kept\nread only" {
		t.Errorf("on the host's root: %q", got)
	}

	// A shared volume is for several tasks at once.
	h.run(f, as("app", with(image(agenttest.Task("holder", ""), "serve", "127.0.0.1:24110"), shared)))
	h.master.State(t, "holder", mesos.TaskState_TASK_RUNNING)
	h.run(f, as("app", with(image(agenttest.Task("other", ""), "write", "/shared/x", "both"), shared)))
	h.master.State(t, "other", mesos.TaskState_TASK_FINISHED)
	h.run(f, as("app", with(image(agenttest.Task("third", ""), "cat", "/shared/x"), shared)))
	if got := h.output("third"); got != "both" {
		t.Errorf("shared: %q", got)
	}
	if code, b := get(t, a.api.URL+"/monitor/statistics"); code != 200 || !strings.Contains(string(b), `"disk_statistics":[{`) || !strings.Contains(string(b), `"used_bytes":`) {
		t.Errorf("statistics: %d %s", code, b)
	}
	if code, b := get(t, a.api.URL+"/state"); code != 200 || !strings.Contains(string(b), `"reserved_resources":{"db":{`) {
		t.Errorf("state: %d %s", code, b)
	}
	if answer := h.master.Keep(t, sandboxed); !strings.Contains(answer, "used by task holder") {
		t.Errorf("destroyed under a task: %q", answer)
	}
	h.master.Send(t, agenttest.Kill(f, "holder", 0))
	h.master.State(t, "holder", mesos.TaskState_TASK_KILLED)
	if answer := h.master.Keep(t); answer != "" {
		t.Errorf("destroy: %s", answer)
	}
	h.master.Until(t, "no data is left", func() bool {
		left, err := filepath.Glob(filepath.Join(h.config.WorkDir, "volumes", "*", "*"))
		return err == nil && len(left) == 0
	})
}

// A task whose volume is lost does not begin anew on an empty one.
func TestLostVolume(t *testing.T) {
	h := newHost(t, 15)
	h.up()
	f := agenttest.Framework()
	data := disk("data", "/data", mesos.Volume_RW, false)
	if answer := h.master.Keep(t, data); answer != "" {
		t.Fatal(answer)
	}
	if err := os.RemoveAll(filepath.Join(h.config.WorkDir, "volumes", "roles", "db", "data")); err != nil {
		t.Fatal(err)
	}
	h.run(f, with(image(agenttest.Task("lost", ""), "print"), data))
	if s := h.master.State(t, "lost", mesos.TaskState_TASK_FAILED); !strings.Contains(s.GetMessage(), "is gone, and its data with it") {
		t.Errorf("status %v", s)
	}
}

func secretVolume(path, value string) *mesos.Volume {
	return &mesos.Volume{Mode: mesos.Volume_RO.Enum(), ContainerPath: &path, Source: &mesos.Volume_Source{
		Type: mesos.Volume_Source_SECRET.Enum(), Secret: &mesos.Secret{Type: mesos.Secret_VALUE.Enum(), Value: &mesos.Secret_Value{Data: []byte(value)}},
	}}
}

func TestSecrets(t *testing.T) {
	h := newHost(t, 15)
	a := h.up()
	f := agenttest.Framework()
	secret := func(id string, args ...string) *mesos.TaskInfo {
		ti := as("app", image(agenttest.Task(id, ""), args...))
		ti.Container.Volumes = []*mesos.Volume{secretVolume("/etc/app/key", "hidden"), secretVolume("config", "also hidden")}
		return ti
	}
	h.run(f, secret("read", "cat", "/etc/app/key"))
	if got := h.output("read"); got != "hidden" {
		t.Errorf("the secret is %q", got)
	}
	h.run(f, secret("stat", "stat", "/etc/app/key"))
	if got := h.output("stat"); got != "440 1234 1234" {
		t.Errorf("the file is %s", got)
	}
	h.run(f, secret("relative", "cat", "/mnt/mesos/sandbox/config"))
	if got := h.output("relative"); got != "also hidden" {
		t.Errorf("the secret in the sandbox is %q", got)
	}
	ti := agenttest.Task("host", "cat key; stat -c ' %a %u' key; echo $S")
	ti.Container = &mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum(), Volumes: []*mesos.Volume{secretVolume("key", "mine")}}
	ti.Command.Environment = &mesos.Environment{Variables: []*mesos.Environment_Variable{{
		Name: proto.String("S"), Type: mesos.Environment_Variable_SECRET.Enum(), Secret: &mesos.Secret{Type: mesos.Secret_VALUE.Enum(), Value: &mesos.Secret_Value{Data: []byte("in env")}},
	}}}
	h.run(f, ti)
	if got := h.output("host"); got != "mine 440 0\nin env" {
		t.Errorf("on the host's root: %q", got)
	}

	h.run(f, secret("run", "sleep", "1000"))
	id := containerID(h.master.State(t, "run", mesos.TaskState_TASK_RUNNING))
	dir := filepath.Join(h.engine.Dir, "secrets")
	if b, err := os.ReadFile(filepath.Join(dir, id, "0")); string(b) != "hidden" {
		t.Errorf("while it runs: %q, %v", b, err)
	}
	for _, path := range []string{"/state", "/tasks", "/containers"} {
		if _, b := get(t, a.api.URL+path); strings.Contains(string(b), "aGlkZGVu") || strings.Contains(string(b), "hidden") || !strings.Contains(string(b), "run") {
			t.Errorf("%s shows %s", path, b)
		}
	}
	h.master.Send(t, agenttest.Kill(f, "run", 0))
	h.master.State(t, "run", mesos.TaskState_TASK_KILLED)
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	// In the sandbox is where it was, not what.
	if _, err := os.Stat(filepath.Join(dir, id)); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// A container on the host's network finds itself and the cluster's names.
func TestHostNetwork(t *testing.T) {
	h := newHost(t, 15)
	serveDNS(t, "kafka-0-broker.kafka.autoip.dcos.thisdcos.directory.", "198.19.15.7")
	h.up()
	f := agenttest.Framework()
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for id, c := range map[string]struct{ name, want string }{
		"cluster": {"kafka-0-broker.kafka.autoip.dcos.thisdcos.directory", "[198.19.15.7]"}, "self": {name, "["},
	} {
		h.run(f, image(agenttest.Task(id, ""), "resolve", c.name))
		if got := h.output(id); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s is %s", c.name, got)
		}
	}
	ti := image(agenttest.Task("added", ""), "resolve", "elsewhere")
	ti.Container.Docker.Parameters = []*mesos.Parameter{{Key: proto.String("add-host"), Value: proto.String("elsewhere:198.19.15.8")}}
	h.run(f, ti)
	if got := h.output("added"); got != "[198.19.15.8]" {
		t.Errorf("elsewhere is %s", got)
	}
}

// serveDNS answers for one name where every host's DNS server does.
func serveDNS(t *testing.T, name, addr string) {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	ip := &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(config.DNSAddr), Mask: net.CIDRMask(32, 32)}}
	if err := netlink.AddrAdd(lo, ip); err != nil {
		t.Fatalf("%v: run this test in a network of its own (ci/alone)", err)
	}
	t.Cleanup(func() {
		if err := netlink.AddrDel(lo, ip); err != nil {
			t.Error(err)
		}
	})
	up := make(chan struct{})
	s := &dns.Server{Addr: net.JoinHostPort(config.DNSAddr, "53"), Net: "udp", NotifyStartedFunc: func() { close(up) }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		if m.Question[0].Name != name {
			m.Rcode = dns.RcodeNameError
		} else if m.Question[0].Qtype == dns.TypeA {
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}, A: net.ParseIP(addr)}}
		}
		_ = w.WriteMsg(m) // the client has gone
	})}
	done := make(chan error, 1)
	go func() { done <- s.ListenAndServe() }()
	select {
	case <-up:
	case err := <-done:
		t.Fatal(err)
	case <-time.After(10 * time.Second):
		t.Fatal("the DNS server does not start")
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := errors.Join(s.ShutdownContext(ctx), <-done); err != nil {
			t.Error(err)
		}
	})
}

// What databases ask of a container: limits, shared memory, a user of theirs
// that may write to its sandbox.
func TestDatabaseNeeds(t *testing.T) {
	h := newHost(t, 15)
	h.up()
	f := agenttest.Framework()
	ti := agenttest.Task("nofile", "ulimit -Sn; ulimit -Hn")
	ti.Container = &mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum(), RlimitInfo: &mesos.RLimitInfo{Rlimits: []*mesos.RLimitInfo_RLimit{
		{Type: mesos.RLimitInfo_RLimit_RLMT_NOFILE.Enum(), Soft: proto.Uint64(1000), Hard: proto.Uint64(2000)},
		{Type: mesos.RLimitInfo_RLimit_RLMT_MEMLOCK.Enum()}, // as much as the host allows
	}}}
	h.run(f, ti)
	if got := h.output("nofile"); got != "1000\n2000" {
		t.Errorf("open files: %s", got)
	}
	ti = image(agenttest.Task("shm", ""), "room", "/dev/shm")
	ti.Container.LinuxInfo = &mesos.LinuxInfo{ShmSize: proto.Uint32(200)}
	h.run(f, ti)
	if got := h.output("shm"); got != fmt.Sprint(200<<20) {
		t.Errorf("/dev/shm has %s bytes", got)
	}
	ti = image(agenttest.Task("sandbox", ""), "stat", "/mnt/mesos/sandbox")
	ti.Container.Type, ti.Container.Docker = mesos.ContainerInfo_MESOS.Enum(), nil
	ti.Container.Mesos = &mesos.ContainerInfo_MesosInfo{Image: &mesos.Image{Type: mesos.Image_DOCKER.Enum(), Docker: &mesos.Image_Docker{Name: proto.String(containerdtest.Image)}}}
	ti.Command = &mesos.CommandInfo{Shell: proto.Bool(false), Value: proto.String("/tiny"), Arguments: []string{"tiny", "stat", "/mnt/mesos/sandbox"}}
	h.run(f, as("app", ti))
	if got := h.output("sandbox"); got != "755 1234 1234" {
		t.Errorf("the sandbox of the image's user is %s", got)
	}
}
