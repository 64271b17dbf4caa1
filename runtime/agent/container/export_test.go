package container

import (
	"context"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// NotRunnable is for tests.
var NotRunnable = notRunnable

// OOMScore returns the score that a container's processes are given, nil for
// that of their parent.
func OOMScore(limited bool) *int {
	s := &specs.Spec{Process: &specs.Process{}}
	if err := (&Containerd{clamp: clamp{limited: limited}}).withOOMScore(context.Background(), nil, nil, s); err != nil {
		panic(err)
	}
	return s.Process.OOMScoreAdj
}
