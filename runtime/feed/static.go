package feed

import (
	"time"

	"dcos.example/dcos/runtime/api/mesos/master"
)

// Of returns the view that a master's state makes, for tests and tools that
// have no master to subscribe to. Its Revision is 1.
func Of(leader string, state *master.Response_GetState) *View {
	b := newBook()
	b.lead(leader)
	b.snapshot(state, time.Time{}, 0)
	return b.publish(1)
}

// Empty returns the view before any master has answered. Its Revision is 0.
func Empty() *View { return newBook().publish(0) }
