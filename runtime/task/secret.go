package task

import (
	"google.golang.org/protobuf/proto"

	mesos "dcos.example/dcos/runtime/api/mesos"
)

// WithoutSecrets returns c as it may be shown: secrets in it that are given by
// value are empty. c itself is not changed; without secrets it is what comes
// back.
func WithoutSecrets(c *mesos.ContainerInfo) *mesos.ContainerInfo {
	has := false
	for _, v := range c.GetVolumes() {
		has = has || len(v.GetSource().GetSecret().GetValue().GetData()) > 0
	}
	if !has {
		return c
	}
	c = proto.CloneOf(c)
	for _, v := range c.GetVolumes() {
		if value := v.GetSource().GetSecret().GetValue(); value != nil {
			value.Data = []byte{}
		}
	}
	return c
}
