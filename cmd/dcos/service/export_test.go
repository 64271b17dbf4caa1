package service

import (
	"context"
	"io"
	"time"

	"dcos.example/dcos/cmd/dcos/console"
	api "dcos.example/dcos/runtime/api/service"
)

// NewFollower returns what prints the news of a plan.
func NewFollower(w io.Writer) func(api.PlanInfo, time.Time) { return newFollower(w).see }

// Until waits as a command with these flags does.
func Until(ctx context.Context, con *console.Console, timeout time.Duration, done func(context.Context) (bool, error)) error {
	w := Wait{timeout: timeout}
	return w.until(ctx, con, "dcos x plan status", done)
}

// PrintPlan writes a plan as a tree.
var PrintPlan = printPlan
