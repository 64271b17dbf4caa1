package service

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"dcos.example/dcos/cmd/dcos/client"
	"dcos.example/dcos/cmd/dcos/console"
	"dcos.example/dcos/runtime/api/marathon"
	api "dcos.example/dcos/runtime/api/service"
	"dcos.example/dcos/runtime/fault"
)

const (
	look = 300 * time.Millisecond
	// A leader's fail-over takes seconds; a plan goes on after it.
	away = time.Minute
	// stuck is how long a step is where it is before its reason is printed.
	stuck = 3 * time.Second
)

// Follow prints each change of a plan until it is complete, fails, or the time
// to wait is over.
func (w *Wait) Follow(ctx context.Context, con *console.Console, cl *client.Client, name, plan string) error {
	s := &service{con, name}
	f := newFollower(con.Stdout)
	return w.until(ctx, con, "dcos "+name+" plan status "+plan, func(ctx context.Context) (bool, error) {
		var info api.PlanInfo
		if err := s.callBy(ctx, cl, "follow plan "+plan+" of "+name, http.MethodGet, planPath(plan, ""), nil, &info); err != nil {
			return false, err
		}
		f.see(info, time.Now())
		if len(info.Errors) > 0 {
			return false, fault.Newf("follow plan "+plan+" of "+name, fault.Conflict, "it cannot go on:\n  %s", strings.Join(info.Errors, "\n  "))
		}
		return info.Status == api.Complete, nil
	})
}

// Deployed follows a service until it is as its configuration says: with all
// that is to be, and without instances that are no longer wanted.
func (w *Wait) Deployed(ctx context.Context, con *console.Console, cl *client.Client, name string) error {
	if err := w.Follow(ctx, con, cl, name, "deploy"); err != nil {
		return err
	}
	err := w.Follow(ctx, con, cl, name, "decommission")
	if fault.Is(err, fault.NotFound) { // a scheduler that never does that
		return nil
	}
	return err
}

// Gone waits until there is no such service any more.
func (w *Wait) Gone(ctx context.Context, con *console.Console, cl *client.Client, name string) error {
	s := &service{con, name}
	f := newFollower(con.Stdout)
	return w.until(ctx, con, "dcos service list", func(ctx context.Context) (bool, error) {
		list, err := List(ctx, cl)
		if err != nil {
			return false, err
		}
		for _, x := range list {
			if x.Name != name {
				continue
			}
			var info api.PlanInfo // it may end between the two questions
			if s.callBy(ctx, cl, "follow uninstall of "+name, http.MethodGet, planPath("deploy", ""), nil, &info) == nil {
				f.see(info, time.Now())
			}
			return false, nil
		}
		return true, nil
	})
}

// App waits until an app that a package runs is deployed.
func (w *Wait) App(ctx context.Context, con *console.Console, cl *client.Client, id string) error {
	begin, last := time.Now(), ""
	return w.until(ctx, con, "dcos marathon app list", func(ctx context.Context) (bool, error) {
		var out struct {
			App marathon.AppInfo `json:"app"`
		}
		if err := cl.Get(ctx, "follow app "+id, Path("marathon", "/v2/apps/"+Name(id)), &out); err != nil {
			return false, err
		}
		count := func(n *int) int {
			if n == nil {
				return 0
			}
			return *n
		}
		now := fmt.Sprintf("%d of %d instances run", count(out.App.TasksRunning), out.App.Instances)
		if len(out.App.HealthChecks) > 0 {
			now += fmt.Sprintf(", %d healthy", count(out.App.TasksHealthy))
		}
		if now != last {
			fmt.Fprintf(con.Stdout, "%5.1fs  %s: %s\n", time.Since(begin).Seconds(), id, now)
			last = now
		}
		return len(out.App.Deployments) == 0, nil
	})
}

// until asks done again and again. Errors of a cluster that is about to find a
// new leader are waited out.
func (w *Wait) until(ctx context.Context, con *console.Console, later string, done func(context.Context) (bool, error)) error {
	limited := ctx
	if w.timeout > 0 {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeout(ctx, w.timeout)
		defer cancel()
	}
	over := func() error {
		if ctx.Err() == nil && limited.Err() != nil {
			return fault.Newf("wait", fault.Unavailable, "it is not done after %s, and goes on; `%s` shows how far it is", w.timeout, later)
		}
		fmt.Fprintf(con.Stderr, "\nIt goes on in the cluster; `%s` shows how far it is.\n", later)
		return ctx.Err()
	}
	var since time.Time
	for {
		ok, err := done(limited)
		switch {
		case limited.Err() != nil:
			return over()
		case fault.Is(err, fault.Unavailable) && (since.IsZero() || time.Since(since) < away):
			if since.IsZero() {
				since = time.Now()
			}
		case err != nil:
			return err
		case ok:
			return nil
		default:
			since = time.Time{}
		}
		if err := console.Pause(limited, look); err != nil {
			return over()
		}
	}
}

// follower prints what is new in a plan.
type follower struct {
	w     io.Writer
	begin time.Time
	seen  map[string]*seen
}

type seen struct {
	status api.PlanStatus
	since  time.Time
	said   string
}

func newFollower(w io.Writer) *follower {
	return &follower{w: w, begin: time.Now(), seen: map[string]*seen{}}
}

func (f *follower) see(p api.PlanInfo, now time.Time) {
	for _, phase := range p.Phases {
		for _, step := range phase.Steps {
			id := phase.Name + "\x00" + step.Name
			was, known := f.seen[id]
			if !known {
				// What is complete or has not begun at first sight is no news.
				was = &seen{status: step.Status, since: now}
				f.seen[id] = was
				if step.Status == api.Complete || step.Status == api.Pending {
					continue
				}
				f.say(now, "%s %s", step.Name, step.Status)
			}
			if was.status != step.Status {
				was.status, was.since = step.Status, now
				f.say(now, "%s %s", step.Name, step.Status)
			}
			if quiet := step.Status == api.Complete || step.Status == api.Pending; !quiet && step.Message != was.said && now.Sub(was.since) >= stuck {
				was.said, was.since = step.Message, now
				if step.Message != "" {
					f.say(now, "%s %s: %s", step.Name, step.Status, step.Message)
				}
			}
		}
	}
}

func (f *follower) say(now time.Time, format string, args ...any) {
	fmt.Fprintf(f.w, "%5.1fs  %s\n", now.Sub(f.begin).Seconds(), fmt.Sprintf(format, args...))
}
