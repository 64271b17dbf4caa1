package identity

import (
	"sync"
	"time"
)

// Attempts that may fail: five at once and then one every five seconds for a
// user from one address, thirty and then one a second from one address. The
// limit on a user holds per address, so that nobody can lock another out.
const (
	pairBurst, addrBurst = 5, 30
	pairEvery, addrEvery = 5 * time.Second, time.Second
	// maxTracked bounds the memory for limits; idle ones go first.
	maxTracked = 20_000
)

type limits struct {
	mu sync.Mutex
	by map[string]*bucket
}

// bucket holds attempts, one more after each period, up to burst. It is not
// rate.Limiter because that cannot give an attempt back once time has passed.
type bucket struct {
	left   float64
	at     time.Time
	burst  float64
	period time.Duration
}

func (b *bucket) refill(now time.Time) {
	b.left = min(b.burst, b.left+float64(now.Sub(b.at))/float64(b.period))
	b.at = now
}

func newLimits() *limits { return &limits{by: map[string]*bucket{}} }

// attempt reports whether uid may try from addr now. release gives the attempt
// back: a login that worked does not count.
func (l *limits) attempt(uid, addr string) (ok bool, release func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if len(l.by) > maxTracked {
		l.sweep(now)
	}
	both := []*bucket{
		l.get("a "+addr, addrEvery, addrBurst, now),
		l.get("p "+addr+" "+uid, pairEvery, pairBurst, now),
	}
	for _, b := range both {
		b.refill(now)
		if b.left < 1 {
			return false, func() {}
		}
	}
	for _, b := range both {
		b.left--
	}
	return true, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, b := range both {
			b.left = min(b.burst, b.left+1)
		}
	}
}

func (l *limits) get(key string, period time.Duration, burst float64, now time.Time) *bucket {
	b, ok := l.by[key]
	if !ok {
		b = &bucket{left: burst, at: now, burst: burst, period: period}
		l.by[key] = b
	}
	return b
}

// sweep forgets limits that are full again. If an attacker keeps them all in
// use, all are forgotten: memory matters more than the limit then.
func (l *limits) sweep(now time.Time) {
	for k, b := range l.by {
		if b.refill(now); b.left >= b.burst {
			delete(l.by, k)
		}
	}
	if len(l.by) > maxTracked {
		clear(l.by)
	}
}
