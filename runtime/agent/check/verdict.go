package check

import (
	"time"

	mesos "dcos.example/dcos/runtime/api/mesos"
)

// Policy is how results of one check become a verdict.
type Policy struct {
	Delay    time.Duration // before the first probe
	Interval time.Duration // between the end of a probe and the next
	Timeout  time.Duration // of one probe
	Grace    time.Duration // since the start, in which failures before the first success do not count
	Failures int           // consecutive failures after which the task is killed; 0: the first
}

// PolicyOf reads a check's policy. Absent fields have Mesos' defaults.
func PolicyOf(h *mesos.HealthCheck) Policy {
	return Policy{
		Delay:    seconds(h.GetDelaySeconds()),
		Interval: max(seconds(h.GetIntervalSeconds()), time.Millisecond),
		Timeout:  seconds(h.GetTimeoutSeconds()),
		Grace:    seconds(h.GetGracePeriodSeconds()),
		Failures: int(h.GetConsecutiveFailures()),
	}
}

func seconds(s float64) time.Duration { return time.Duration(max(0, s) * float64(time.Second)) }

// Probes before the first success come fast, as nearly every task becomes
// healthy soon after its start and clients wait for that moment.
const (
	firstProbe = 100 * time.Millisecond
	lastProbe  = 500 * time.Millisecond
)

// progress folds the results of one check.
type progress struct {
	policy    Policy
	succeeded bool
	failures  int
	fast      time.Duration // pause of the last fast probe
	counted   time.Time     // when a failure last counted
}

// verdict is what one result means.
type verdict struct {
	report  bool // the task's health is known or confirmed by this result
	healthy bool
	kill    bool
}

// observe takes one result; since is the time since the checks began. Extra
// fast probes never count as failures: only as many count as the interval
// would have seen.
func (p *progress) observe(ok bool, now time.Time, since time.Duration) verdict {
	if ok {
		p.succeeded, p.failures = true, 0
		return verdict{report: true, healthy: true}
	}
	if !p.succeeded {
		if since < p.policy.Delay+p.policy.Grace {
			return verdict{}
		}
		if !p.counted.IsZero() && now.Sub(p.counted) < p.policy.Interval {
			return verdict{}
		}
	}
	p.counted = now
	p.failures++
	return verdict{report: true, kill: p.failures >= p.policy.Failures}
}

// pause is how long to wait before the next probe.
func (p *progress) pause() time.Duration {
	if p.succeeded || p.policy.Delay > 0 {
		return p.policy.Interval
	}
	if p.fast == 0 {
		p.fast = firstProbe
	} else {
		p.fast = min(p.fast*3/2, lastProbe)
	}
	return min(p.fast, p.policy.Interval)
}
