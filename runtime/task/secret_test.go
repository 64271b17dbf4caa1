package task_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/task"
)

func TestWithoutSecrets(t *testing.T) {
	plain := &mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum(), Volumes: []*mesos.Volume{{Mode: mesos.Volume_RO.Enum(), ContainerPath: proto.String("/a"), HostPath: proto.String("/b")}}}
	if task.WithoutSecrets(plain) != plain || task.WithoutSecrets(nil) != nil {
		t.Error("a container without secrets is not itself")
	}
	with := proto.CloneOf(plain)
	with.Volumes = append(with.Volumes, &mesos.Volume{Mode: mesos.Volume_RO.Enum(), ContainerPath: proto.String("/key"), Source: &mesos.Volume_Source{
		Type: mesos.Volume_Source_SECRET.Enum(), Secret: &mesos.Secret{Type: mesos.Secret_VALUE.Enum(), Value: &mesos.Secret_Value{Data: []byte("hidden")}},
	}})
	shown := task.WithoutSecrets(with)
	if got := shown.Volumes[1].GetSource().GetSecret().GetValue(); got == nil || len(got.Data) != 0 || shown.Volumes[1].GetContainerPath() != "/key" {
		t.Errorf("shown is %v", shown)
	}
	if string(with.Volumes[1].GetSource().GetSecret().GetValue().Data) != "hidden" {
		t.Error("the task has lost its secret")
	}
	if _, err := proto.Marshal(shown); err != nil {
		t.Error(err)
	}
}
