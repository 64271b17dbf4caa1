package registry

import (
	"context"
	"time"
)

// Sweep removes what nothing names as if it were now.
func (r *Registry) Sweep(ctx context.Context, now time.Time) error { return r.replica.Sweep(ctx, now) }

// Import takes in the current release at once.
func (r *Registry) Import(ctx context.Context) (int, error) { return r.release.Import(ctx) }
