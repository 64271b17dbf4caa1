package task

// Identifiers, typed where they cross functions. They are opaque: nothing may
// be read out of one.
type (
	ID          string // chosen by the framework, unique among its live tasks
	AgentID     string // chosen by the master: <master-uuid>-S<n>
	FrameworkID string // chosen by the master: <master-uuid>-<nnnn>
	OfferID     string // chosen by the master: <master-uuid>-O<n>
	ExecutorID  string // chosen by the framework
)
