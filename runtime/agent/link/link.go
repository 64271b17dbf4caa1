// Package link keeps the agent connected to the leading master: it finds the
// leader among the masters, subscribes with everything the agent knows, answers
// pings, and begins again, quickly at first, when the connection is lost or
// silent. Tasks do not notice.
package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	mesos "dcos.example/dcos/runtime/api/mesos"

	"dcos.example/dcos/runtime/api/agentlink"
	"dcos.example/dcos/runtime/api/wire"
	"dcos.example/dcos/runtime/fault"
)

const (
	subscribePath = "/agentlink/v1/subscribe"
	callPath      = "/agentlink/v1/call"
	streamHeader  = "Mesos-Stream-Id"

	maxRecord    = 64 << 20
	callTimeout  = 10 * time.Second
	maxRedirects = 5

	// A fail-over takes a second or two. Retries in that time are cheap and
	// frequent; a cluster without a leader for longer is not hammered.
	firstRetry  = 100 * time.Millisecond
	quickRetry  = 400 * time.Millisecond
	slowRetry   = 5 * time.Second
	quickPeriod = 15 * time.Second

	// How long a master may take to answer a subscription, and how many of
	// its pings may be missing after that. Subscribing again is cheap, so this
	// is less than what makes the agent unreachable to the master.
	answerTimeout = 5 * time.Second
	silentPings   = 3
	minSilence    = 2 * time.Second
)

// Options configure a Link.
type Options struct {
	// Masters returns base URLs, "https://10.0.0.1:5050". It is asked before
	// each attempt.
	Masters func() []string
	Client  *http.Client // with the agent's certificate; redirects are handled here
	Log     *slog.Logger
	// Subscribe returns the message to register with, at each attempt.
	Subscribe func() *agentlink.Subscribe
	// Handle takes each record after it has arrived, in order, the first
	// being Registered. An error ends the connection.
	Handle func(context.Context, *agentlink.Downlink) error
}

// Link is the connection to whichever master leads.
type Link struct {
	o      Options
	client http.Client

	mu     sync.Mutex
	leader string // base URL while registered
	stream string
	agent  *mesos.AgentID
}

// New returns a link; Run connects it.
func New(o Options) *Link {
	l := &Link{o: o, client: *o.Client}
	l.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return l
}

// Leader returns the base URL of the master the agent is registered with, and
// "" while it is not.
func (l *Link) Leader() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leader
}

// Run keeps the agent registered until ctx ends.
func (l *Link) Run(ctx context.Context) {
	lost := time.Now()
	pause := firstRetry
	for next := 0; ctx.Err() == nil; next++ {
		was, err := l.try(ctx, next)
		if ctx.Err() != nil {
			return
		}
		if was {
			l.o.Log.Warn("lost the leading master", "error", err)
			lost, pause = time.Now(), firstRetry
		} else {
			l.o.Log.Debug("no leading master yet", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause/2 + rand.N(pause)):
		}
		limit := quickRetry
		if time.Since(lost) > quickPeriod {
			limit = slowRetry
		}
		pause = min(pause*2, limit)
	}
}

// try is one attempt: with the next master of the list as it is now.
func (l *Link) try(ctx context.Context, next int) (registered bool, err error) {
	masters := l.o.Masters()
	if len(masters) == 0 {
		return false, fault.Newf("subscribe to master", fault.Unavailable, "no master is known")
	}
	return l.session(ctx, masters[next%len(masters)])
}

// session is one connection, from subscribing to its end. registered says
// whether it got as far as a registration.
func (l *Link) session(ctx context.Context, master string) (registered bool, err error) {
	const op = "subscribe to master"
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	body, err := proto.Marshal(l.o.Subscribe())
	if err != nil {
		return false, fault.New(op, fault.Internal, err)
	}
	// Nothing but the watchdog bounds the wait for an answer.
	silence := answerTimeout
	watchdog := time.AfterFunc(silence, func() { cancel(errors.New("the master is silent")) })
	defer watchdog.Stop()
	resp, base, err := l.post(ctx, master, subscribePath, body)
	if err != nil {
		return false, fault.New(op, fault.Unavailable, cause(ctx, err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return false, fault.Newf(op, fault.Unavailable, "%s answered %s: %s", base, resp.Status, text(resp.Body))
	}
	l.mu.Lock()
	l.stream = resp.Header.Get(streamHeader)
	l.mu.Unlock()
	defer l.set("", nil)
	records := wire.NewRecordReader(resp.Body, maxRecord)
	for {
		rec, err := records.Read()
		if err != nil {
			return registered, fault.New("read from master", fault.Unavailable, cause(ctx, err))
		}
		watchdog.Reset(silence)
		d := &agentlink.Downlink{}
		if err := proto.Unmarshal(rec, d); err != nil {
			return registered, fault.New("read from master", fault.Invalid, err)
		}
		switch r := d.GetRegistered(); {
		case r != nil:
			if s := r.GetPingSeconds(); s > 0 {
				silence = max(minSilence, time.Duration(silentPings*s*float64(time.Second)))
			}
			watchdog.Reset(silence)
			l.set(base, r.GetAgentId())
			registered = true
		case !registered:
			return false, fault.Newf(op, fault.Invalid, "%s did not begin with a registration", base)
		case d.GetPing() != nil:
			if err := l.Send(ctx, &agentlink.Uplink{Pong: &agentlink.Pong{}}); err != nil {
				return true, err
			}
			continue
		}
		if err := l.o.Handle(ctx, d); err != nil {
			return registered, err
		}
	}
}

func (l *Link) set(leader string, agent *mesos.AgentID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leader, l.agent = leader, agent
}

// Send delivers one message to the leader. It fails with Unavailable while
// there is none.
func (l *Link) Send(ctx context.Context, u *agentlink.Uplink) error {
	const op = "send to master"
	l.mu.Lock()
	base, stream, agent := l.leader, l.stream, l.agent
	l.mu.Unlock()
	if base == "" {
		return fault.Newf(op, fault.Unavailable, "not registered with a master")
	}
	u.AgentId, u.StreamId = agent, proto.String(stream)
	body, err := proto.Marshal(u)
	if err != nil {
		return fault.New(op, fault.Invalid, err)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, _, err := l.post(ctx, base, callPath, body)
	if err != nil {
		return fault.New(op, fault.Unavailable, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		return fault.Newf(op, fault.Unavailable, "%s answered %s: %s", base, resp.Status, text(resp.Body))
	}
	return nil
}

// post sends a body and follows redirects to the leader, "//host:port/path".
// It returns the base URL that answered.
func (l *Link) post(ctx context.Context, base, path string, body []byte) (*http.Response, string, error) {
	for range maxRedirects {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+path, bytes.NewReader(body))
		if err != nil {
			return nil, "", err
		}
		req.Header.Set("Content-Type", wire.Protobuf.ContentType())
		req.Header.Set("Accept", wire.Protobuf.ContentType())
		resp, err := l.client.Do(req)
		if err != nil {
			return nil, "", err
		}
		if resp.StatusCode != http.StatusTemporaryRedirect {
			return resp, base, nil
		}
		to, err := req.URL.Parse(resp.Header.Get("Location"))
		if err := errors.Join(err, resp.Body.Close()); err != nil {
			return nil, "", err
		}
		base = (&url.URL{Scheme: to.Scheme, Host: to.Host}).String()
	}
	return nil, "", fmt.Errorf("the masters point at each other: more than %d redirects", maxRedirects)
}

// cause replaces the error of a cancelled request by why it was.
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil {
		return c
	}
	return err
}

func text(r io.Reader) string {
	b, err := io.ReadAll(io.LimitReader(r, 512))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b))
}
