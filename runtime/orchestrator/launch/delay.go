package launch

import (
	"time"

	"dcos.example/dcos/runtime/api/marathon"
)

// Delay puts off launches of an app whose instances fail: each failure
// multiplies it, up to the app's maximum, and it is forgotten when nothing
// failed for that long.
type Delay struct {
	config string // configuration version it belongs to
	length time.Duration
	until  time.Time
	last   time.Time // of the last failure or launch
}

// Failed returns the delay after a failure of an instance of a.
func (d Delay) Failed(a *marathon.App, now time.Time) Delay {
	config := a.VersionInfo.LastConfigChangeAt
	longest := time.Duration(a.MaxLaunchDelaySeconds) * time.Second
	next := time.Duration(a.BackoffSeconds) * time.Second
	if d.config == config && d.length > 0 && now.Sub(d.last) <= longest {
		next = time.Duration(float64(d.length) * a.BackoffFactor)
	}
	next = min(next, longest)
	return Delay{config: config, length: next, until: now.Add(next), last: now}
}

// Alive returns the delay after an instance of a showed life: it does not grow,
// and is remembered from now.
func (d Delay) Alive(now time.Time) Delay {
	if d.length > 0 {
		d.last = now
	}
	return d
}

// Left is how long launches of a must still wait.
func (d Delay) Left(a *marathon.App, now time.Time) time.Duration {
	if a.VersionInfo == nil || d.config != a.VersionInfo.LastConfigChangeAt {
		return 0
	}
	return max(0, d.until.Sub(now))
}
