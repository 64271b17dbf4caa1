package validate

import (
	"google.golang.org/protobuf/proto"

	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/resource"
)

// sameExecutor reports whether a and b are the same but for how resources are
// written and whether the framework's id was filled in.
func sameExecutor(a, b *mesos.ExecutorInfo) bool {
	ra, errA := resource.FromProto(a.Resources)
	rb, errB := resource.FromProto(b.Resources)
	if errA != nil || errB != nil || !ra.Unallocate().Equal(rb.Unallocate()) {
		return false
	}
	a, b = proto.CloneOf(a), proto.CloneOf(b)
	a.Resources, b.Resources = nil, nil
	a.FrameworkId, b.FrameworkId = nil, nil
	return proto.Equal(a, b)
}
