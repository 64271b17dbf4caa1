package identity

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
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
	by map[string]*rate.Limiter
}

func newLimits() *limits { return &limits{by: map[string]*rate.Limiter{}} }

// attempt reports whether uid may try from addr now. release gives the attempt
// back: a login that worked does not count.
func (l *limits) attempt(uid, addr string) (ok bool, release func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.by) > maxTracked {
		l.sweep()
	}
	var taken []*rate.Reservation
	release = func() {
		for _, r := range taken {
			r.Cancel()
		}
	}
	for _, lim := range []*rate.Limiter{
		l.get("a "+addr, addrEvery, addrBurst),
		l.get("p "+addr+" "+uid, pairEvery, pairBurst),
	} {
		r := lim.Reserve()
		taken = append(taken, r)
		if r.Delay() > 0 {
			release()
			return false, func() {}
		}
	}
	return true, release
}

func (l *limits) get(key string, every time.Duration, burst int) *rate.Limiter {
	lim, ok := l.by[key]
	if !ok {
		lim = rate.NewLimiter(rate.Every(every), burst)
		l.by[key] = lim
	}
	return lim
}

// sweep forgets limits that are full again. If an attacker keeps them all in
// use, all are forgotten: memory matters more than the limit then.
func (l *limits) sweep() {
	for k, lim := range l.by {
		if lim.Tokens() >= float64(lim.Burst()) {
			delete(l.by, k)
		}
	}
	if len(l.by) > maxTracked {
		clear(l.by)
	}
}
