package validate_test

import (
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/master/validate"
	"dcos.example/dcos/runtime/resource"
)

func launch() validate.Launch {
	return validate.Launch{
		AgentID: "S0", Framework: &mesos.FrameworkInfo{Id: &mesos.FrameworkID{Value: proto.String("F")}}, Role: "web",
		Available: resource.MustParse("cpus:4;mem:1024").Allocate("web"),
	}
}

func good() *mesos.TaskInfo {
	return &mesos.TaskInfo{
		Name: proto.String("t"), TaskId: &mesos.TaskID{Value: proto.String("t")}, AgentId: &mesos.AgentID{Value: proto.String("S0")},
		Resources: resource.MustParse("cpus:1").Proto(), Command: &mesos.CommandInfo{Value: proto.String("true")},
	}
}

func executor(cpus string) *mesos.ExecutorInfo {
	return &mesos.ExecutorInfo{ExecutorId: &mesos.ExecutorID{Value: proto.String("e")}, Command: &mesos.CommandInfo{}, Resources: resource.MustParse(cpus).Proto()}
}

func TestTask(t *testing.T) {
	use, _, err := validate.Task(good(), launch())
	if err != nil || !use.Equal(resource.MustParse("cpus:1").Allocate("web")) {
		t.Fatalf("%v, %v", use, err)
	}
	for says, spoil := range map[string]func(*mesos.TaskInfo, *validate.Launch){
		"Task ID is invalid":     func(x *mesos.TaskInfo, _ *validate.Launch) { x.TaskId.Value = proto.String("..") },
		"greater than 255":       func(x *mesos.TaskInfo, _ *validate.Launch) { x.TaskId.Value = proto.String(strings.Repeat("x", 256)) },
		"invalid agent":          func(x *mesos.TaskInfo, _ *validate.Launch) { x.AgentId.Value = proto.String("S1") },
		"but not both":           func(x *mesos.TaskInfo, _ *validate.Launch) { x.Command = nil },
		"uses no resources":      func(x *mesos.TaskInfo, _ *validate.Launch) { x.Resources = nil },
		"is more than available": func(x *mesos.TaskInfo, _ *validate.Launch) { x.Resources = resource.MustParse("cpus:5").Proto() },
		"allocated to role 'db'": func(x *mesos.TaskInfo, _ *validate.Launch) {
			x.Resources = resource.MustParse("cpus:1").Allocate("db").Proto()
		},
		"kill_policy": func(x *mesos.TaskInfo, _ *validate.Launch) {
			x.KillPolicy = &mesos.KillPolicy{GracePeriod: &mesos.DurationInfo{Nanoseconds: proto.Int64(-1)}}
		},
		"max_completion_time": func(x *mesos.TaskInfo, _ *validate.Launch) {
			x.MaxCompletionTime = &mesos.DurationInfo{Nanoseconds: proto.Int64(-1)}
		},
		"cannot be inferred": func(x *mesos.TaskInfo, _ *validate.Launch) { x.HealthCheck = &mesos.HealthCheck{} },
		"Expecting 'tcp'": func(x *mesos.TaskInfo, _ *validate.Launch) {
			x.HealthCheck = &mesos.HealthCheck{Type: mesos.HealthCheck_TCP.Enum()}
		},
		"must be non-negative": func(x *mesos.TaskInfo, _ *validate.Launch) {
			x.HealthCheck = &mesos.HealthCheck{TimeoutSeconds: proto.Float64(math.NaN())}
		},
		"'docker' is not set": func(x *mesos.TaskInfo, _ *validate.Launch) {
			x.Container = &mesos.ContainerInfo{Type: mesos.ContainerInfo_DOCKER.Enum()}
		},
		"below its request": func(x *mesos.TaskInfo, _ *validate.Launch) {
			x.Limits = map[string]*mesos.Value_Scalar{"cpus": {Value: proto.Float64(.5)}}
		},
		"Only cpus and mem": func(x *mesos.TaskInfo, _ *validate.Launch) {
			x.Limits = map[string]*mesos.Value_Scalar{"disk": {Value: proto.Float64(5)}}
		},
		"must lie in the sandbox": func(x *mesos.TaskInfo, _ *validate.Launch) {
			x.Command.Uris = []*mesos.CommandInfo_URI{{Value: proto.String("u"), OutputFile: proto.String("../x")}}
		},
		"mixes revocable": func(x *mesos.TaskInfo, _ *validate.Launch) {
			r := x.Resources[0]
			r2 := proto.CloneOf(r)
			r2.Revocable = &mesos.Resource_RevocableInfo{}
			x.Resources = append(x.Resources, r2)
		},
		"must not be set for 'DEFAULT'": func(x *mesos.TaskInfo, _ *validate.Launch) {
			x.Command, x.Executor = nil, executor("cpus:1")
			x.Executor.Type = mesos.ExecutorInfo_DEFAULT.Enum()
		},
		"invalid FrameworkID": func(x *mesos.TaskInfo, _ *validate.Launch) {
			x.Command, x.Executor = nil, executor("cpus:1")
			x.Executor.FrameworkId = &mesos.FrameworkID{Value: proto.String("G")}
		},
		"not compatible": func(x *mesos.TaskInfo, l *validate.Launch) {
			x.Command, x.Executor, l.Executor = nil, executor("cpus:1"), executor("cpus:2")
		},
	} {
		x, l := good(), launch()
		spoil(x, &l)
		if _, _, err := validate.Task(x, l); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("want an error with %q, got %v", says, err)
		}
	}
}

func TestExecutorResourcesCountOnce(t *testing.T) {
	x, l := good(), launch()
	x.Command, x.Executor = nil, executor("cpus:3")
	if _, use, err := validate.Task(x, l); err != nil || use.Scalar("cpus") != 3*resource.Unit {
		t.Errorf("first task: %v, %v", use, err)
	}
	l.Executor = executor("cpus:3")
	l.Executor.FrameworkId = l.Framework.Id
	if _, use, err := validate.Task(x, l); err != nil || !use.Empty() {
		t.Errorf("second task: %v, %v", use, err)
	}
}

func TestInferHealthCheck(t *testing.T) {
	h := &mesos.HealthCheck{Http: &mesos.HealthCheck_HTTPCheckInfo{Port: proto.Uint32(80)}}
	if validate.InferHealthCheck(h); h.GetType() != mesos.HealthCheck_HTTP {
		t.Errorf("%v", h)
	}
}
