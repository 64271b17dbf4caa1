package agent

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	mesos "dcos.example/dcos/runtime/api/mesos"

	"dcos.example/dcos/runtime/agent/container"
	"dcos.example/dcos/runtime/agent/network"
	"dcos.example/dcos/runtime/agent/volume"
	"dcos.example/dcos/runtime/api/wire"
	"dcos.example/dcos/runtime/fault"
)

const box = "/work/box"

var vols = volume.Layout{Work: "/work"}

// read makes a task from the JSON of the v1 API, which is what frameworks see.
func read(t *testing.T, text string) *mesos.TaskInfo {
	t.Helper()
	ti := &mesos.TaskInfo{}
	if err := wire.JSON.Unmarshal([]byte(`{"name":"n","task_id":{"value":"t"},"agent_id":{"value":"a"},`+text+`}`), ti); err != nil {
		t.Fatal(err)
	}
	return ti
}

const docker = `"container":{"type":"DOCKER","docker":{"image":"nginx"`

func TestCommandForms(t *testing.T) {
	for _, c := range []struct {
		name, task      string
		entrypoint, cmd []string
	}{
		{"shell", `"command":{"value":"echo $X"}`, []string{"/bin/sh", "-c"}, []string{"echo $X"}},
		{"program", `"command":{"shell":false,"value":"/bin/ls","arguments":["ls","-l"]}`, []string{"/bin/ls"}, []string{"-l"}},
		{"docker shell", `"command":{"value":"run"},` + docker + `}}`, []string{"/bin/sh", "-c"}, []string{"run"}},
		{"docker image's own", `"command":{"shell":false},` + docker + `}}`, nil, nil},
		{"docker arguments", `"command":{"shell":false,"arguments":["-g","x"]},` + docker + `}}`, nil, []string{"-g", "x"}},
		{"docker command", `"command":{"shell":false,"value":"nginx","arguments":["-g"]},` + docker + `}}`, nil, []string{"nginx", "-g"}},
		{"image of mesos", `"command":{"shell":false,"value":"/app","arguments":["app","-v"]},"container":{"type":"MESOS","mesos":{"image":{"type":"DOCKER","docker":{"name":"redis"}}}}`,
			[]string{"/app"}, []string{"-v"}},
	} {
		d, err := describe(read(t, c.task), "id", box, vols)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if diff := cmp.Diff(c.entrypoint, d.spec.Entrypoint) + cmp.Diff(c.cmd, d.spec.Cmd); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

func TestDescribe(t *testing.T) {
	d, err := describe(read(t, `"command":{"shell":false,"user":"app","environment":{"variables":[{"name":"A","value":"1"}]}},
		"resources":[{"name":"cpus","type":"SCALAR","scalar":{"value":0.5}},{"name":"mem","type":"SCALAR","scalar":{"value":128}}],
		"container":{"type":"DOCKER","hostname":"h","docker":{"image":"nginx","force_pull_image":true,"network":"BRIDGE",
			"port_mappings":[{"host_port":31000,"container_port":80},{"host_port":31001,"container_port":53,"protocol":"udp,tcp"}],
			"parameters":[{"key":"env","value":"B=2"},{"key":"cap-add","value":"NET_ADMIN"},{"key":"ulimit","value":"nofile=10:20"},{"key":"volume","value":"/x:/y:ro"}]},
			"volumes":[{"mode":"RO","container_path":"/etc/conf","host_path":"/conf"},{"mode":"RW","container_path":"data","host_path":"d"}]}`), "id", box, vols)
	if err != nil {
		t.Fatal(err)
	}
	want := described{
		spec: container.Spec{
			ID: "id", Image: "nginx", ForcePull: true, Env: []string{"A=1", "B=2"}, User: "app", Hostname: "h",
			Mounts: []container.Mount{
				{Source: box, Target: "/mnt/mesos/sandbox", Give: container.GiveAll}, {Source: "/conf", Target: "/etc/conf", ReadOnly: true},
				{Source: box + "/d", Target: "/mnt/mesos/sandbox/data"}, {Source: "/x", Target: "/y", ReadOnly: true},
			},
			Stdout: box + "/stdout", Stderr: box + "/stderr",
			Limits:  container.Limits{CPUs: 0.5, CPUQuota: 0.5, Memory: 128 << 20, Pids: maxPids},
			Rlimits: []container.Rlimit{{Type: "RLIMIT_NOFILE", Soft: 10, Hard: 20}}, CapAdd: []string{"NET_ADMIN"},
		},
		network: &network.Request{ID: "id", Ports: []network.Port{
			{Host: 31000, Container: 80, Protocol: "tcp"}, {Host: 31001, Container: 53, Protocol: "udp"}, {Host: 31001, Container: 53, Protocol: "tcp"},
		}},
	}
	if diff := cmp.Diff(want, d, cmp.AllowUnexported(described{})); diff != "" {
		t.Error(diff)
	}
}

// disk is the JSON of a persistent volume.
func disk(id, path, more string) string {
	return `{"name":"disk","type":"SCALAR","scalar":{"value":1},"reservations":[{"type":"DYNAMIC","role":"db/kafka"}],"disk":{"persistence":{"id":"` + id +
		`"},"volume":{"mode":"RW","container_path":"` + path + `"}` + more + `}}`
}

// Volumes of all kinds that a task may have, in an image and on the host.
func TestVolumes(t *testing.T) {
	secret := func(path string) string {
		return `{"mode":"RO","container_path":"` + path + `","source":{"type":"SECRET","secret":{"type":"VALUE","value":{"data":"aGlkZGVu"}}}}`
	}
	command := `"command":{"value":"x","environment":{"variables":[{"name":"S","type":"SECRET","secret":{"type":"VALUE","value":{"data":"aGlkZGVu"}}}]}}`
	in, err := describe(read(t, command+`,"resources":[`+disk("p", "/data", "")+`,`+disk("q", "logs", `,"source":{"type":"PATH","path":{"root":"/disk1"}}`)+`,`+
		disk("r", "/whole", `,"source":{"type":"MOUNT","mount":{"root":"/disk2"}}`)+`],"container":{"type":"MESOS","mesos":{"image":{"type":"DOCKER","docker":{"name":"redis"}}},"volumes":[`+
		secret("/etc/key")+`,{"mode":"RW","container_path":"/host","source":{"type":"HOST_PATH","host_path":{"path":"/srv","mount_propagation":{"mode":"HOST_TO_CONTAINER"}}}}]}`), "id", box, vols)
	if err != nil {
		t.Fatal(err)
	}
	want := []container.Mount{
		{Source: box, Target: sandboxMount, Give: container.GiveAll},
		{Source: "/work/volumes/roles/db kafka/p", Target: "/data", Give: container.GiveEmpty},
		{Source: "/disk1/volumes/roles/db kafka/q", Target: sandboxMount + "/logs", Give: container.GiveEmpty},
		{Source: "/disk2", Target: "/whole", Give: container.GiveEmpty},
		{Source: "/srv", Target: "/host", Follow: true},
	}
	if diff := cmp.Diff(want, in.spec.Mounts); diff != "" || len(in.volumes) != 3 {
		t.Errorf("%d volumes: %s", len(in.volumes), diff)
	}
	if diff := cmp.Diff([]secretFile{{[]byte("hidden"), "/etc/key", true}}, in.secrets, cmp.AllowUnexported(secretFile{})); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"S=hidden"}, in.spec.Env); diff != "" {
		t.Error(diff)
	}
	on, err := describe(read(t, command+`,"resources":[`+disk("p", "data", "")+`],"container":{"type":"MESOS","volumes":[`+secret("key")+`]}`), "id", box, vols)
	if err != nil {
		t.Fatal(err)
	}
	if m := on.spec.Mounts[1]; m.Target != box+"/data" || on.secrets[0].target != box+"/key" {
		t.Errorf("on the host: %v, %v", m, on.secrets)
	}
}

func TestLimits(t *testing.T) {
	ti := read(t, `"command":{"value":"x"},"resources":[{"name":"cpus","type":"SCALAR","scalar":{"value":1}},{"name":"mem","type":"SCALAR","scalar":{"value":8}}]`)
	d, err := describe(ti, "id", box, vols)
	if err != nil || d.spec.Limits.Memory != minMemory {
		t.Errorf("little memory: %+v, %v", d.spec.Limits, err)
	}
	ti.Limits = map[string]*mesos.Value_Scalar{"cpus": {Value: proto.Float64(2)}, "mem": {Value: proto.Float64(math.Inf(1))}}
	d, err = describe(ti, "id", box, vols)
	if l := d.spec.Limits; err != nil || l.CPUs != 1 || l.CPUQuota != 2 || l.Memory != 0 {
		t.Errorf("with limits: %+v, %v", l, err)
	}
}

func TestNetworks(t *testing.T) {
	mesosNet := func(infos string) string {
		return `"command":{"value":"x"},"container":{"type":"MESOS","network_infos":[` + infos + `]}`
	}
	for _, c := range []struct {
		name, task string
		want       *network.Request
	}{
		{"none asked", `"command":{"value":"x"}`, nil},
		{"docker host", `"command":{"shell":false},` + docker + `,"network":"HOST"}}`, nil},
		{"docker bridge", `"command":{"shell":false},` + docker + `,"network":"BRIDGE"}}`, &network.Request{ID: "id"}},
		{"docker user", `"command":{"shell":false},"container":{"type":"DOCKER","docker":{"image":"i","network":"USER"},"network_infos":[{"name":"net"}]}`, &network.Request{ID: "id", Network: "net"}},
		{"mesos bridge", mesosNet(`{"name":"mesos-bridge","port_mappings":[{"host_port":1,"container_port":2}]}`),
			&network.Request{ID: "id", Network: "mesos-bridge", Ports: []network.Port{{Host: 1, Container: 2, Protocol: "tcp"}}}},
		{"mesos nameless", mesosNet(`{}`), nil},
	} {
		d, err := describe(read(t, c.task), "id", box, vols)
		if diff := cmp.Diff(c.want, d.network); err != nil || diff != "" {
			t.Errorf("%s: %v %s", c.name, err, diff)
		}
	}
}

// What the agent cannot do is refused by name, all of it at once.
func TestRefusals(t *testing.T) {
	for what, task := range map[string]string{
		"has no executor API":              `"executor":{"executor_id":{"value":"e"},"command":{"value":"x"}}`,
		"neither an image nor a command":   `"command":{}`,
		"without an image":                 `"command":{"value":"x"},"container":{"type":"DOCKER"}`,
		"parse image reference":            `"command":{"value":"x"},"container":{"type":"DOCKER","docker":{"image":"No Image"}}`,
		"general checks are not supported": `"command":{"value":"x"},"check":{"type":"TCP","tcp":{"port":1}}`,
		"secret by reference":              `"command":{"value":"x","environment":{"variables":[{"name":"S","type":"SECRET","secret":{"type":"REFERENCE","reference":{"name":"n"}}}]}}`,
		"docker parameter device is not":   `"command":{"value":"x"},` + docker + `,"parameters":[{"key":"device","value":"/dev/x"}]}}`,
		"network NONE":                     `"command":{"value":"x"},` + docker + `,"network":"NONE"}}`,
		"joins 2 networks":                 `"command":{"value":"x"},"container":{"type":"MESOS","network_infos":[{"name":"a"},{"name":"b"}]}`,
		"which is not a port mapping":      `"command":{"value":"x"},` + docker + `,"network":"BRIDGE","port_mappings":[{"host_port":0,"container_port":80}]}}`,
		"leaves the sandbox":               `"command":{"value":"x"},"container":{"type":"MESOS","volumes":[{"mode":"RW","container_path":"../x","host_path":"/y"}]}`,
		"of type DOCKER_VOLUME":            `"command":{"value":"x"},"container":{"type":"MESOS","volumes":[{"mode":"RW","container_path":"/x","source":{"type":"DOCKER_VOLUME","docker_volume":{"name":"v"}}}]}`,
		"is reserved to no role":           `"command":{"value":"x"},"resources":[{"name":"disk","type":"SCALAR","scalar":{"value":1},"disk":{"persistence":{"id":"p"},"volume":{"mode":"RW","container_path":"d"}}}]`,
		"not the name of a directory":      `"command":{"value":"x"},"resources":[` + disk("../p", "d", "") + `]`,
		"of type BLOCK":                    `"command":{"value":"x"},"resources":[` + disk("p", "d", `,"source":{"type":"BLOCK"}`) + `]`,
		"on the host itself":               `"command":{"value":"x"},"resources":[` + disk("p", "/d", "") + `]`,
		"two volumes at /d":                `"command":{"shell":false},"resources":[` + disk("p", "/d", "") + `,` + disk("q", "/d/", "") + `],` + docker + `}}`,
		"in place of all its files":        `"command":{"shell":false},"resources":[` + disk("p", "/", "") + `],` + docker + `}}`,
		"zero byte":                        `"command":{"value":"x","environment":{"variables":[{"name":"S","type":"SECRET","secret":{"type":"VALUE","value":{"data":"AA=="}}}]}}`,
		"has no parent":                    `"command":{"value":"x"},"container":{"type":"MESOS","volumes":[{"mode":"RW","container_path":"x","source":{"type":"SANDBOX_PATH","sandbox_path":{"type":"PARENT","path":"y"}}}]}`,
		"BIDIRECTIONAL":                    `"command":{"value":"x"},"container":{"type":"MESOS","volumes":[{"mode":"RW","container_path":"x","source":{"type":"HOST_PATH","host_path":{"path":"/y","mount_propagation":{"mode":"BIDIRECTIONAL"}}}}]}`,
		"only cpus and mem have limits":    `"command":{"value":"x"},"limits":{"disk":{"value":1}}`,
		"health check 1: has no type":      `"command":{"value":"x"},"health_check":{}`,
	} {
		_, err := describe(read(t, task), "id", box, vols)
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := describe(read(t, `"command":{},"limits":{"disk":{"value":1}},"check":{"type":"TCP"}`), "id", box, vols)
	if err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("three problems are %v", err)
	}
}
