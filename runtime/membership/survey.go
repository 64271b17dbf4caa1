package membership

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"dcos.example/dcos/runtime/fault"
)

// answerTime is how long a master may take to say how it is.
const answerTime = 2 * time.Second

// Look asks masters about themselves, all at once. Who does not answer in time
// is in the second result.
func Look(ctx context.Context, masters []netip.Addr, view func(context.Context, netip.Addr) (View, error)) (map[netip.Addr]View, map[netip.Addr]error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	views, errs := map[netip.Addr]View{}, map[netip.Addr]error{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, a := range masters {
		wg.Go(func() {
			v, err := view(ctx, a)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs[a] = err
			} else {
				views[a] = v
			}
		})
	}
	wg.Wait()
	return views, errs
}

// Survey tells how every master of a list is.
func Survey(ctx context.Context, l List, leader string, view func(context.Context, netip.Addr) (View, error)) Status {
	var addrs []netip.Addr
	for _, m := range l.Members {
		addrs = append(addrs, m.Addr)
	}
	views, errs := Look(ctx, addrs, view)
	s := Status{Leader: leader, Generation: l.Generation, Revision: l.Revision, Members: []MemberStatus{}}
	for _, m := range l.Members {
		ms := MemberStatus{Member: m}
		v, ok := views[m.Addr]
		ms.Index, ms.Version = v.Index, v.Release
		switch {
		case !ok:
			ms.Reason = "does not answer: " + cause(errs[m.Addr])
		case v.ID != m.ID:
			ms.Reason = "has no data of this ensemble; it is " + string(v.Stage)
		case !v.Majority:
			ms.Reason = "takes part in no majority; it is " + string(v.Stage)
		default:
			ms.Healthy = true
		}
		s.Members = append(s.Members, ms)
	}
	return s
}

// cause is an error without what was being done, which the reader knows.
func cause(err error) string {
	if e, ok := err.(*fault.Error); ok && e.Err != nil {
		return e.Err.Error()
	}
	return err.Error()
}
