// Package framework is the client side of the Mesos v1 scheduler API: it keeps
// one subscription to whichever master leads, hands its events over in order
// and sends calls. It knows nothing of offers or tasks beyond the protocol.
//
// A subscription is a session: it starts with SUBSCRIBE, ends with its
// connection (or with too many missed heartbeats), and a new one follows under
// the same framework id after a backoff.
//
//	      ┌──────────── connection lost, master gone ───────────┐
//	      ▼                                                     │
//	disconnected ──SUBSCRIBE──▶ connecting ──SUBSCRIBED──▶ subscribed
//	      │                          │                          │
//	      └── context ends ──┬───────┴── refused, ERROR event ──┘
//	                         ▼
//	                       ended
package framework

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/scheduler"
	"dcos.example/dcos/runtime/api/wire"
	"dcos.example/dcos/runtime/fault"
)

// Path is where masters serve the scheduler API.
const Path = "/api/v1/scheduler"

// Config says who subscribes, where, and who listens.
type Config struct {
	// Masters are base URLs ("https://10.0.0.1:5050"), tried in turn. Any
	// master will do as a start: followers redirect to the leader.
	Masters []string
	// Client sends the requests. Its Timeout must be zero, since a
	// subscription never ends by itself.
	Client *http.Client
	Format wire.Format
	// Info describes the framework. Without an id the master assigns one,
	// which FrameworkID then returns and later subscriptions keep.
	Info *mesos.FrameworkInfo
	// SuppressedRoles are roles for which no offers are wanted at first.
	SuppressedRoles []string
	// Handle gets every event, heartbeats included, one at a time and in the
	// order of the stream. The stream waits while it runs.
	Handle func(context.Context, *scheduler.Event)
	// Disconnected, if set, is called between two subscriptions, with what
	// ended the first, from the goroutine that calls Handle.
	Disconnected func(error)
	Log          *slog.Logger

	// MissedHeartbeats is how many heartbeats may fail to arrive before the
	// connection counts as dead; 0 means 3.
	MissedHeartbeats int
	// AttemptTimeout is how long one master may take to answer SUBSCRIBE;
	// 0 means 5 s.
	AttemptTimeout time.Duration
	// MaxBackoff is the longest pause between two attempts; 0 means 5 s.
	MaxBackoff time.Duration
	// MaxRecord is the longest event in bytes; 0 means 64 MiB.
	MaxRecord int
}

// Client keeps a framework subscribed while Run runs. Its other methods may be
// called from any goroutine, from Handle too.
type Client struct {
	cfg  Config
	http *http.Client

	mu         sync.Mutex
	info       *mesos.FrameworkInfo
	suppressed []string
	session    *session // nil while not subscribed
	last       *url.URL // of the master that led last, to be tried first
}

// session is one subscription.
type session struct {
	master *url.URL
	stream string // Mesos-Stream-Id
	end    context.CancelCauseFunc
}

// New checks cfg and returns a client that is not subscribed yet.
func New(cfg Config) (*Client, error) {
	const op = "configure framework"
	switch {
	case len(cfg.Masters) == 0:
		return nil, fault.Newf(op, fault.Invalid, "no masters")
	case cfg.Client == nil || cfg.Handle == nil || cfg.Log == nil:
		return nil, fault.Newf(op, fault.Invalid, "client, handler and logger are needed")
	case cfg.Client.Timeout != 0:
		return nil, fault.Newf(op, fault.Invalid, "the client's timeout would end subscriptions")
	}
	for _, m := range cfg.Masters {
		if u, err := url.Parse(m); err != nil || u.Host == "" {
			return nil, fault.Newf(op, fault.Invalid, "master %q is not a URL", m)
		}
	}
	if err := proto.CheckInitialized(cfg.Info); err != nil {
		return nil, fault.New(op, fault.Invalid, err)
	}
	setDefault(&cfg.MissedHeartbeats, 3)
	setDefault(&cfg.AttemptTimeout, 5*time.Second)
	setDefault(&cfg.MaxBackoff, 5*time.Second)
	setDefault(&cfg.MaxRecord, 64<<20)
	return &Client{
		cfg: cfg, http: NoRedirects(cfg.Client),
		info: proto.CloneOf(cfg.Info), suppressed: cfg.SuppressedRoles,
	}, nil
}

func setDefault[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

// FrameworkID returns the framework's id, or "" before the first SUBSCRIBED.
func (c *Client) FrameworkID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.info.GetId().GetValue()
}

// Leader returns the base URL of the master that the framework is subscribed
// to, or "" while it is not.
func (c *Client) Leader() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session == nil {
		return ""
	}
	return c.session.master.String()
}

// Run keeps the framework subscribed until ctx ends, and then returns nil. It
// returns an error only when trying again is pointless: the master refused the
// request (Invalid, Denied), another instance took the framework over
// (Conflict), or the framework was removed (NotFound).
func (c *Client) Run(ctx context.Context) error {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval = 50 * time.Millisecond
	pause.MaxInterval = c.cfg.MaxBackoff
	for attempt := 0; ; attempt++ {
		began := time.Now()
		subscribed, err := c.subscribe(ctx, c.candidate(attempt))
		if ctx.Err() != nil {
			return nil
		}
		if permanent(err) {
			return err
		}
		if subscribed {
			c.cfg.Log.Warn("subscription lost", "framework", c.FrameworkID(), "err", err)
			if c.cfg.Disconnected != nil {
				c.cfg.Disconnected(err)
			}
			attempt = -1
			if time.Since(began) > c.cfg.MaxBackoff {
				pause.Reset()
			}
		} else {
			c.cfg.Log.Debug("no subscription", "attempt", attempt, "err", err)
			if (attempt+1)%len(c.cfg.Masters) != 0 {
				continue // the whole list before a pause
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause.NextBackOff()):
		}
	}
}

// permanent reports whether err ends Run. Only the kinds that subscribe
// returns for a refusal are.
func permanent(err error) bool {
	switch fault.KindOf(err) {
	case fault.Invalid, fault.Denied, fault.Conflict, fault.NotFound:
		return true
	}
	return false
}

// candidate returns the master for an attempt: the last leader first, then the
// list in turn.
func (c *Client) candidate(attempt int) *url.URL {
	c.mu.Lock()
	defer c.mu.Unlock()
	if attempt == 0 && c.last != nil {
		return c.last
	}
	u, _ := url.Parse(c.cfg.Masters[attempt%len(c.cfg.Masters)]) // checked by New
	return u
}

// subscribe runs one session. The first result tells whether it was
// subscribed at all.
func (c *Client) subscribe(ctx context.Context, master *url.URL) (subscribed bool, err error) {
	const op = "subscribe framework"
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// One watch guards the whole session: the answer, then each record.
	patience := c.cfg.AttemptTimeout
	watch := time.AfterFunc(patience, func() { cancel(errors.New("master is silent")) })
	defer watch.Stop()

	c.mu.Lock()
	call := &scheduler.Call{
		Type: scheduler.Call_SUBSCRIBE.Enum(), FrameworkId: c.info.GetId(),
		Subscribe: &scheduler.Call_Subscribe{FrameworkInfo: proto.CloneOf(c.info), SuppressedRoles: c.suppressed},
	}
	c.mu.Unlock()
	resp, leader, err := c.post(ctx, master, call, "")
	if err != nil {
		return false, cause(ctx, op, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return false, Refusal(op, resp)
	}
	format, ok := wire.ParseFormat(resp.Header.Get("Content-Type"))
	if !ok {
		return false, fault.Newf(op, fault.Unavailable, "%s answers with %q", leader.Host, resp.Header.Get("Content-Type"))
	}
	s := &session{master: leader, stream: resp.Header.Get(wire.HeaderStreamID), end: cancel}
	defer c.leave(s)

	records := wire.NewRecordReader(resp.Body, c.cfg.MaxRecord)
	for {
		record, err := records.Read()
		if err != nil {
			return subscribed, cause(ctx, op, fault.New(op, fault.Unavailable, err))
		}
		watch.Stop() // our own slowness is not the master's silence
		event := &scheduler.Event{}
		if err := format.Unmarshal(record, event); err != nil {
			return subscribed, fault.New(op, fault.Unavailable, err)
		}
		if sub := event.GetSubscribed(); sub != nil {
			subscribed = true
			c.enter(s, sub.GetFrameworkId())
			if beat := sub.GetHeartbeatIntervalSeconds(); beat > 0 {
				patience = time.Duration(float64(c.cfg.MissedHeartbeats) * beat * float64(time.Second))
			}
		}
		c.cfg.Handle(ctx, event)
		if event.GetType() == scheduler.Event_ERROR {
			return subscribed, errorEvent(op, event.GetError().GetMessage())
		}
		if ctx.Err() != nil {
			return subscribed, cause(ctx, op, ctx.Err())
		}
		watch.Reset(patience)
	}
}

// enter makes s the session that calls go to.
func (c *Client) enter(s *session, id *mesos.FrameworkID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.session, c.last = s, s.master
	c.info.Id = proto.CloneOf(id)
	c.cfg.Log.Info("subscribed", "framework", id.GetValue(), "master", s.master.Host)
}

func (c *Client) leave(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session == s {
		c.session = nil
	}
}

// cause prefers what ended the context over the I/O error that followed.
func cause(ctx context.Context, op string, err error) error {
	if why := context.Cause(ctx); why != nil {
		return fault.New(op, fault.Unavailable, why)
	}
	return err
}
