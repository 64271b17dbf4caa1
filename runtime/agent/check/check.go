// Package check runs the health checks of one task and says when the task's
// health changes and when it must be killed. A task is healthy while all of
// its checks pass. Where a probe goes is the caller's business: this package
// knows time and rules, Prober knows networks and containers.
package check

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/fault"
)

// Report is news of a task's health.
type Report struct {
	Healthy bool
	Kill    bool   // too many failures in a row
	Message string // why it is not healthy
}

// prober makes one attempt; nil means that the check passed. The context ends
// at the check's timeout.
type prober interface {
	Probe(ctx context.Context, h *mesos.HealthCheck) error
}

// Validate returns everything that is wrong with the checks.
func Validate(checks []*mesos.HealthCheck) error {
	var errs []error
	for i, h := range checks {
		bad := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("health check %d: %s", i+1, fmt.Sprintf(format, args...)))
		}
		switch Kind(h) {
		case mesos.HealthCheck_HTTP:
			if h.GetHttp() == nil {
				bad("is of type HTTP and has no http")
			} else if s := h.GetHttp().GetScheme(); s != "" && s != "http" && s != "https" {
				bad("scheme %q is neither http nor https", s)
			}
		case mesos.HealthCheck_TCP:
			if h.GetTcp() == nil {
				bad("is of type TCP and has no tcp")
			}
		case mesos.HealthCheck_COMMAND:
			if h.GetCommand() == nil {
				bad("is of type COMMAND and has no command")
			}
		default:
			bad("has no type")
		}
	}
	if len(errs) > 0 {
		return fault.New("check health checks", fault.Invalid, errors.Join(errs...))
	}
	return nil
}

// Kind is the type of a check; without one it follows from what is set.
func Kind(h *mesos.HealthCheck) mesos.HealthCheck_Type {
	switch {
	case h.GetType() != mesos.HealthCheck_UNKNOWN:
		return h.GetType()
	case h.GetCommand() != nil:
		return mesos.HealthCheck_COMMAND
	case h.GetHttp() != nil:
		return mesos.HealthCheck_HTTP
	case h.GetTcp() != nil:
		return mesos.HealthCheck_TCP
	}
	return mesos.HealthCheck_UNKNOWN
}

// Run probes until ctx ends, calling report for the first known health, each
// change, each failure that counts, and once with Kill; after that it probes
// no more. Calls of report do not overlap. started is when the task began to
// run, also after the agent has restarted in between; healthy is what was
// last reported, nil for nothing.
func Run(ctx context.Context, checks []*mesos.HealthCheck, p prober, started time.Time, healthy *bool, report func(Report)) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a := &all{known: make([]*bool, len(checks)), last: healthy, report: report, stop: cancel}
	var wg sync.WaitGroup
	for i, h := range checks {
		wg.Go(func() { a.loop(ctx, i, h, p, started) })
	}
	wg.Wait()
}

// all joins the verdicts of a task's checks.
type all struct {
	mu     sync.Mutex
	known  []*bool
	last   *bool
	report func(Report)
	stop   context.CancelFunc
	killed bool
}

func (a *all) loop(ctx context.Context, i int, h *mesos.HealthCheck, p prober, started time.Time) {
	pr := progress{policy: PolicyOf(h)}
	wait := pr.policy.Delay - time.Since(started)
	timer := time.NewTimer(max(0, wait))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		err := probe(ctx, p, h, pr.policy.Timeout)
		if ctx.Err() != nil {
			return
		}
		now := time.Now()
		a.take(i, pr.observe(err == nil, now, now.Sub(started)), err)
		timer.Reset(pr.pause())
	}
}

func probe(ctx context.Context, p prober, h *mesos.HealthCheck, timeout time.Duration) error {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %s", timeout))
		defer cancel()
	}
	err := p.Probe(ctx, h)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return context.Cause(ctx)
	}
	return err
}

// take joins one verdict to the others and reports what is news.
func (a *all) take(i int, v verdict, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !v.report || a.killed {
		return
	}
	a.known[i] = &v.healthy
	healthy := true
	for _, k := range a.known {
		if k == nil {
			if v.healthy {
				return // a check has not spoken yet
			}
			continue
		}
		healthy = healthy && *k
	}
	if v.healthy && a.last != nil && *a.last == healthy {
		return
	}
	if v.healthy && !healthy {
		return // another check still fails and has said so
	}
	a.last = &healthy
	r := Report{Healthy: healthy, Kill: v.kill}
	if err != nil {
		r.Message = fmt.Sprintf("health check %d: %v", i+1, err)
	}
	a.report(r)
	if v.kill {
		a.killed = true
		a.stop()
	}
}
