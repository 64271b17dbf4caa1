// Package names knows which services are installed, on every master: the
// gateway asks for each request below /service/, so the answer is in memory
// and follows the store.
package names

import (
	"context"
	"maps"
	"sync/atomic"
	"time"

	"dcos.example/dcos/runtime/state"
)

// kind has a record per service, by its name. The operator alone writes it.
const kind state.Kind = "service"

// retry is the pause after the store could not be read. What was known before
// is still answered.
const retry = time.Second

// Names is a set of names. The zero value is empty.
type Names struct {
	set atomic.Pointer[map[string]bool]
}

// Has reports whether there is a service of that name.
func (n *Names) Has(name string) bool {
	set := n.set.Load()
	return set != nil && (*set)[name]
}

// Follow keeps the set as the store has it until ctx ends.
func (n *Names) Follow(ctx context.Context, b state.Backend) {
	for ctx.Err() == nil {
		if records, rev, err := b.List(ctx, kind); err == nil {
			set := make(map[string]bool, len(records))
			for _, r := range records {
				set[r.Key.ID] = true
			}
			n.set.Store(&set)
			for change, err := range b.Watch(ctx, rev, kind) {
				if err != nil {
					break
				}
				set = maps.Clone(set) // readers have the former
				if set[change.Key.ID] = true; change.Value == nil {
					delete(set, change.Key.ID)
				}
				n.set.Store(&set)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(retry):
		}
	}
}
