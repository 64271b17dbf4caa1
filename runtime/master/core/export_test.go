package core

// CollectSnapshot is the part of Snapshot that holds the mutex.
func (c *Core) CollectSnapshot() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.snapshot()
}
