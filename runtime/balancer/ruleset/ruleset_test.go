package ruleset_test

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/master"
	"dcos.example/dcos/runtime/balancer/ruleset"
	"dcos.example/dcos/runtime/feed"
)

var update = flag.Bool("update", false, "rewrite the golden files")

type job struct {
	agent     int // 10.0.0.11 + agent
	state     mesos.TaskState
	healthy   *bool
	checked   bool
	own       string // address of its own
	hostPort  uint32
	container uint32 // behind hostPort
	vip, key  string
	protocol  string
	scope     string
}

func view(jobs ...job) *feed.View {
	id := func(v string) *mesos.FrameworkID { return &mesos.FrameworkID{Value: &v} }
	s := &master.Response_GetState{
		GetAgents: &master.Response_GetAgents{}, GetTasks: &master.Response_GetTasks{},
		GetFrameworks: &master.Response_GetFrameworks{Frameworks: []*master.Response_GetFrameworks_Framework{{
			FrameworkInfo: &mesos.FrameworkInfo{Name: proto.String("marathon"), Id: id("f")},
		}}},
	}
	for i := range 3 {
		s.GetAgents.Agents = append(s.GetAgents.Agents, &master.Response_GetAgents_Agent{AgentInfo: &mesos.AgentInfo{
			Id: &mesos.AgentID{Value: proto.String(fmt.Sprint("S", i))}, Hostname: proto.String(fmt.Sprintf("10.0.0.%d", 11+i)),
		}})
	}
	for i, j := range jobs {
		if j.key == "" {
			j.key = "VIP_0"
		}
		labels := []*mesos.Label{{Key: &j.key, Value: &j.vip}}
		if j.scope != "" {
			labels = append(labels, &mesos.Label{Key: proto.String("network-scope"), Value: &j.scope})
		}
		number := j.hostPort
		if j.scope == "container" {
			number = j.container
		}
		t := &mesos.Task{
			Name: proto.String("t"), TaskId: &mesos.TaskID{Value: proto.String(fmt.Sprint("t", i))}, FrameworkId: id("f"),
			AgentId: &mesos.AgentID{Value: proto.String(fmt.Sprint("S", j.agent))}, State: &j.state,
			Discovery: &mesos.DiscoveryInfo{Visibility: mesos.DiscoveryInfo_CLUSTER.Enum(), Ports: &mesos.Ports{
				Ports: []*mesos.Port{{Number: &number, Protocol: &j.protocol, Labels: &mesos.Labels{Labels: labels}}},
			}},
		}
		status := &mesos.TaskStatus{TaskId: t.TaskId, State: t.State, Healthy: j.healthy}
		if j.own != "" {
			status.ContainerStatus = &mesos.ContainerStatus{NetworkInfos: []*mesos.NetworkInfo{{IpAddresses: []*mesos.NetworkInfo_IPAddress{{IpAddress: &j.own}}}}}
			if j.hostPort != 0 {
				t.Container = &mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum(), NetworkInfos: []*mesos.NetworkInfo{{
					PortMappings: []*mesos.NetworkInfo_PortMapping{{HostPort: &j.hostPort, ContainerPort: &j.container, Protocol: proto.String("tcp")}},
				}}}
			}
		}
		t.Statuses = []*mesos.TaskStatus{status}
		if j.checked {
			t.HealthCheck = &mesos.HealthCheck{}
		}
		s.GetTasks.Tasks = append(s.GetTasks.Tasks, t)
	}
	return feed.Of("https://10.0.0.1:5050", s)
}

func options() ruleset.Options {
	return ruleset.Options{
		Range: netip.MustParsePrefix("11.0.0.0/8"), Self: netip.MustParseAddr("10.0.0.11"),
		Reserved: []netip.Addr{netip.MustParseAddr("10.0.0.1")},
	}
}

const running = mesos.TaskState_TASK_RUNNING

func TestGolden(t *testing.T) {
	yes, no := proto.Bool(true), proto.Bool(false)
	r := ruleset.Plan(view(
		job{agent: 0, state: running, hostPort: 31000, vip: "/web:80"},
		job{agent: 1, state: running, hostPort: 31005, vip: "/web:80", checked: true, healthy: yes},
		job{agent: 2, state: running, hostPort: 31006, vip: "/web:80", checked: true},
		job{agent: 2, state: running, hostPort: 31007, vip: "/web:80", healthy: no},
		job{agent: 2, state: mesos.TaskState_TASK_KILLING, hostPort: 31008, vip: "/web:80"},
		job{agent: 2, state: mesos.TaskState_TASK_STAGING, hostPort: 31009, vip: "/starting:80"},
		job{agent: 1, state: running, hostPort: 31010, vip: "/Group/db_1:5432", key: "vip_main", protocol: "tcp,udp"},
		job{agent: 0, state: running, hostPort: 31011, container: 8080, own: "172.31.254.7", vip: "/bridged:80"},
		job{agent: 1, state: running, hostPort: 31012, container: 8080, own: "172.31.254.8", vip: "/bridged:80", scope: "host"},
		job{agent: 2, state: running, container: 9000, own: "9.0.3.4", vip: "/overlay:80", scope: "container"},
		job{agent: 0, state: running, hostPort: 31013, vip: "198.51.100.9:53", protocol: "udp"},
		job{agent: 0, state: running, hostPort: 31014, vip: "10.0.0.1:5050"},
		job{agent: 0, state: running, hostPort: 31015, vip: "10.0.0.12:22"},
		job{agent: 0, state: running, hostPort: 31016, vip: "127.0.0.1:22"},
		job{agent: 0, state: running, hostPort: 31017, vip: "nothing"},
		job{agent: 0, state: running, hostPort: 31018, vip: "/web:0"},
		job{agent: 0, state: running, hostPort: 31019, vip: "/:80"},
		job{agent: 0, state: running, hostPort: 31020, vip: "fd01::1:80"},
		job{agent: 0, state: running, hostPort: 31021, vip: "no label of ours", key: "HAPROXY_0"},
	), options())
	var out strings.Builder
	for _, v := range r.VIPs {
		fmt.Fprintf(&out, "%s %s %v\n", v.Key, v.Name, v.Backends)
	}
	for _, s := range r.Refused {
		fmt.Fprintln(&out, s)
	}
	const path = "testdata/rules.golden"
	if *update {
		if err := os.WriteFile(path, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), out.String()); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

// named returns the addresses of VIPs /n0 … in a range so small that hashes
// collide often.
func named(names []int, bits int) map[string]netip.Addr {
	var jobs []job
	for _, n := range names {
		jobs = append(jobs, job{state: running, hostPort: 31000, vip: fmt.Sprintf("/n%04d:80", n)})
	}
	o := options()
	o.Range = netip.PrefixFrom(netip.MustParseAddr("11.0.0.0"), bits)
	return ruleset.Plan(view(jobs...), o).Names()
}

func TestAddresses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfNDistinct(rapid.IntRange(0, 999), 1, 100, rapid.ID).Draw(t, "names")
		got := named(names, 24)
		used := map[netip.Addr]bool{}
		for name, a := range got {
			if used[a] || !netip.MustParsePrefix("11.0.0.0/24").Contains(a) || a.As4()[3] == 0 || a.As4()[3] == 255 {
				t.Fatalf("%s has %s", name, a)
			}
			used[a] = true
		}
		if len(got) != len(names) {
			t.Fatalf("%d names have %d addresses", len(names), len(got))
		}
		// Any order of tasks gives the same addresses.
		shuffled := slices.Clone(names)
		slices.Reverse(shuffled)
		if d := cmp.Diff(got, named(shuffled, 24), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
			t.Fatal(d)
		}
		// A name that sorts last moves nobody.
		for name, a := range named(append(names, 1000), 24) {
			if was, ok := got[name]; ok && was != a {
				t.Fatalf("%s moved from %s to %s", name, was, a)
			}
		}
	})
	// In the real range a newcomer moves nobody, wherever it sorts.
	all := make([]int, 0, 1000)
	for i := range 1000 {
		all = append(all, i)
	}
	before, after := named(all[1:], 8), named(all, 8)
	for name, a := range before {
		if after[name] != a {
			t.Errorf("%s moved", name)
		}
	}
	if n := len(named(all[:300], 24)); n >= 255 || n < 200 {
		t.Errorf("%d names got one of 254 addresses", n)
	}
}

func BenchmarkPlan(b *testing.B) {
	var jobs []job
	for i := range 10000 {
		jobs = append(jobs, job{agent: i % 3, state: running, hostPort: uint32(1000 + i%60000), vip: fmt.Sprintf("/n%03d:80", i%1000)})
	}
	v := view(jobs...)
	for b.Loop() {
		ruleset.Plan(v, options())
	}
}
