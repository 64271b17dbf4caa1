package legacy

// Limit is how a limit is written.
type Limit = limit
