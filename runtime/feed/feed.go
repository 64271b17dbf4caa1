// Package feed keeps a view of the cluster's agents, frameworks and tasks from
// the event stream of the leading master's operator API (v1 SUBSCRIBE). DNS,
// VIPs and routes are computed from it on every host.
//
// The view outlives the stream: while no master can be reached the last one
// stays as it is, so that apps find each other through a fail-over. A new
// leader's first answer replaces it at once, except for tasks on agents that
// have not registered with that leader yet: those are kept until their agent
// registers and does not bring them, or is removed.
package feed

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"dcos.example/dcos/runtime/api/mesos/master"
	"dcos.example/dcos/runtime/api/wire"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/framework"
)

// Path is where masters serve the operator API.
const Path = "/api/v1"

// Config says where to subscribe. Zero durations mean their default.
type Config struct {
	// Masters returns base URLs ("https://10.0.0.1:5050"), tried in turn. It
	// is asked again before each round of attempts.
	Masters func() []string
	// Client sends the requests. Its Timeout must be zero.
	Client *http.Client
	Log    *slog.Logger

	// AttemptTimeout is how long one master may take to answer; 5 s.
	AttemptTimeout time.Duration
	// MaxBackoff is the longest pause between two rounds of attempts; 2 s.
	MaxBackoff time.Duration
	// Confirm is how long an agent that registered with a new leader may
	// take to bring back a task of the old view; 10 s.
	Confirm time.Duration
	// Unlisted is how long tasks are kept whose agent a new leader does not
	// list at all, neither registered nor recovered; 1 min.
	Unlisted time.Duration
}

const (
	missedHeartbeats = 3
	maxRecord        = 1 << 30 // bytes: the first record has all tasks
	// burst bounds how many events one view may collect, so that a stream
	// that never pauses still makes views.
	burst = 512
)

// Feed keeps the view while Run runs. View and Changes may be called from any
// goroutine, before, during and after Run.
type Feed struct {
	cfg    Config
	client *http.Client

	mu      sync.Mutex
	view    *View
	changed chan struct{} // closed when view is replaced
}

// New checks cfg and returns a feed with an empty view.
func New(cfg Config) (*Feed, error) {
	const op = "configure feed"
	switch {
	case cfg.Masters == nil || cfg.Client == nil || cfg.Log == nil:
		return nil, fault.Newf(op, fault.Invalid, "masters, client and logger are needed")
	case cfg.Client.Timeout != 0:
		return nil, fault.Newf(op, fault.Invalid, "the client's timeout would end subscriptions")
	}
	for v, to := range map[*time.Duration]time.Duration{
		&cfg.AttemptTimeout: 5 * time.Second, &cfg.MaxBackoff: 2 * time.Second,
		&cfg.Confirm: 10 * time.Second, &cfg.Unlisted: time.Minute,
	} {
		if *v == 0 {
			*v = to
		}
	}
	return &Feed{
		cfg: cfg, client: framework.NoRedirects(cfg.Client),
		view: Empty(), changed: make(chan struct{}),
	}, nil
}

// View returns the latest view. Its Revision is 0 until a master has answered.
func (f *Feed) View() *View {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.view
}

// Leader returns the base URL of the master that the latest view comes from,
// or "" if there was none. It may have stopped to lead since.
func (f *Feed) Leader() string {
	url, _ := f.View().Leader()
	return url
}

// Changes returns the latest view, as soon as there is one, and then each time
// there is a newer one the newest, until ctx ends. A consumer that is slow
// skips views.
func (f *Feed) Changes(ctx context.Context) iter.Seq[*View] {
	return func(yield func(*View) bool) {
		for seen := uint64(0); ; {
			f.mu.Lock()
			view, changed := f.view, f.changed
			f.mu.Unlock()
			if view.revision > seen {
				seen = view.revision
				if !yield(view) {
					return
				}
				continue
			}
			select {
			case <-ctx.Done():
				return
			case <-changed:
			}
		}
	}
}

// Again makes a newer view of the same, for consumers that depend on something
// else too, which has changed. Before there is a view it does nothing.
func (f *Feed) Again() {
	f.replace(func(v View) *View {
		if v.revision == 0 {
			return nil
		}
		return &v
	})
}

// replace makes what next returns from the present view the next one, if it
// returns one.
func (f *Feed) replace(next func(View) *View) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := next(*f.view)
	if v == nil {
		return
	}
	v.revision = f.view.revision + 1
	f.view = v
	close(f.changed)
	f.changed = make(chan struct{})
}

// Run keeps the feed subscribed until ctx ends. Whatever a master answers, it
// tries again: there is nothing else to do for a host.
func (f *Feed) Run(ctx context.Context) {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval = 50 * time.Millisecond
	pause.MaxInterval = f.cfg.MaxBackoff
	b := newBook()
	var last *url.URL // of the master that led, to be tried first
	for ctx.Err() == nil {
		began := time.Now()
		if last = f.round(ctx, b, last); last != nil && time.Since(began) > f.cfg.MaxBackoff {
			pause.Reset()
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause.NextBackOff()):
		}
	}
}

// round tries first, if that is set, and then all masters in turn, until one
// leads. It returns that one when its session has ended.
func (f *Feed) round(ctx context.Context, b *book, first *url.URL) *url.URL {
	targets := []*url.URL{}
	if first != nil {
		targets = append(targets, first)
	}
	for _, m := range f.cfg.Masters() {
		u, err := url.Parse(m)
		if err != nil || u.Host == "" {
			f.cfg.Log.Error("master is not a URL", "master", m)
			continue
		}
		targets = append(targets, u)
	}
	for _, target := range targets {
		leader, err := f.subscribe(ctx, b, target)
		switch {
		case ctx.Err() != nil:
			return nil
		case leader != nil:
			f.cfg.Log.Warn("feed lost", "master", leader.Host, "err", err)
			return leader
		}
		f.cfg.Log.Debug("no feed", "master", target.Host, "err", err)
	}
	return nil
}

// subscribe runs one session: one connection, its events, its end. It returns
// the master if that sent a snapshot.
func (f *Feed) subscribe(ctx context.Context, b *book, target *url.URL) (_ *url.URL, err error) {
	const op = "subscribe to master"
	ctx, cancel := context.WithCancelCause(ctx)
	watch := time.AfterFunc(f.cfg.AttemptTimeout, func() { cancel(errors.New("master is silent")) })
	defer watch.Stop()
	defer cancel(nil)

	call := &master.Call{Type: master.Call_SUBSCRIBE.Enum()}
	resp, leader, err := framework.Post(ctx, f.client, target, Path, wire.Protobuf, call, "")
	if err != nil {
		return nil, cause(ctx, op, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, framework.Refusal(op, resp)
	}
	if ct := resp.Header.Get("Content-Type"); ct != wire.TypeProtobuf {
		return nil, fault.Newf(op, fault.Unavailable, "%s answers with %q", leader.Host, ct)
	}

	events := make(chan *master.Event, burst)
	broken := make(chan error, 1)
	go func() {
		defer close(events)
		broken <- read(ctx, resp, events, watch, f.cfg.AttemptTimeout)
	}()
	synced := f.consume(b, leader, events)
	if err = cause(ctx, op, <-broken); synced {
		return leader, err
	}
	return nil, err
}

// read sends the stream's events on until it ends. The watch is reset for
// each.
func read(ctx context.Context, resp *http.Response, events chan<- *master.Event, watch *time.Timer, patience time.Duration) error {
	records := wire.NewRecordReader(resp.Body, maxRecord)
	for {
		record, err := records.Read()
		if err != nil {
			return err
		}
		event := &master.Event{}
		if err := wire.Protobuf.Unmarshal(record, event); err != nil {
			return err
		}
		if beat := event.GetSubscribed().GetHeartbeatIntervalSeconds(); beat > 0 {
			patience = time.Duration(missedHeartbeats * beat * float64(time.Second))
		}
		watch.Stop()
		select {
		case events <- event:
		case <-ctx.Done():
			return ctx.Err()
		}
		watch.Reset(patience)
	}
}

// consume turns events into views until they end. It returns whether there was
// a snapshot among them.
func (f *Feed) consume(b *book, leader *url.URL, events <-chan *master.Event) (synced bool) {
	var sweep <-chan time.Time
	for {
		dirty := false
		select {
		case event, open := <-events:
			if !open {
				return synced
			}
			for n := 1; open; n++ { // one view for all that is there already
				if event.GetType() == master.Event_SUBSCRIBED {
					b.lead(leader.String())
					synced = true
					f.cfg.Log.Info("feed subscribed", "master", leader.Host)
				}
				dirty = b.apply(event, time.Now(), f.cfg.Confirm, f.cfg.Unlisted) || dirty
				if n >= burst || len(events) == 0 {
					break
				}
				event, open = <-events
			}
		case <-sweep:
		}
		if !synced {
			continue // without a leader's word nothing is dropped
		}
		dropped, next := b.sweep(time.Now())
		if sweep = nil; !next.IsZero() {
			sweep = time.After(time.Until(next))
		}
		if dirty || dropped {
			f.replace(func(View) *View { return b.publish(0) })
		}
	}
}

// cause prefers what ended the context over the I/O error that followed.
func cause(ctx context.Context, op string, err error) error {
	if why := context.Cause(ctx); why != nil && !errors.Is(why, context.Canceled) {
		return fault.New(op, fault.Unavailable, why)
	}
	return fault.New(op, fault.Unavailable, err)
}
