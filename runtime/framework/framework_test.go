package framework_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/scheduler"
	"dcos.example/dcos/runtime/api/wire"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/framework"
)

// master speaks the scheduler API of a leading master: it hands out ids and
// stream ids, checks them on calls, and sends what the test tells it to.
type master struct {
	mu        sync.Mutex
	redirect  string // answer 307 to there
	status    int    // answer this instead
	beat      float64
	subs      int
	stream    string
	frameIDs  []string
	calls     []*scheduler.Call
	events    chan *scheduler.Event // nil event: close the stream
	heartbeat bool
}

func newMaster() *master { return &master{beat: 15, events: make(chan *scheduler.Event, 16)} }

func (m *master) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	redirect, status := m.redirect, m.status
	m.mu.Unlock()
	if r.URL.Path != framework.Path || r.Method != http.MethodPost {
		http.Error(w, "unknown "+r.Method+" "+r.URL.String(), http.StatusNotFound)
		return
	}
	if redirect != "" {
		w.Header().Set("Location", redirect)
		w.WriteHeader(http.StatusTemporaryRedirect)
		return
	}
	if status != 0 {
		http.Error(w, "as told", status)
		return
	}
	format, ok := wire.ParseFormat(r.Header.Get("Content-Type"))
	body, _ := io.ReadAll(r.Body)
	call := &scheduler.Call{}
	if err := format.Unmarshal(body, call); !ok || err != nil {
		http.Error(w, fmt.Sprint(err), http.StatusBadRequest)
		return
	}
	if call.GetType() == scheduler.Call_SUBSCRIBE {
		m.subscribe(w, r, format, call)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case call.GetFrameworkId() == nil:
		http.Error(w, "no framework_id", http.StatusBadRequest)
	case r.Header.Get(wire.HeaderStreamID) != m.stream:
		http.Error(w, "Framework is not subscribed", http.StatusForbidden)
	default:
		m.calls = append(m.calls, call)
		w.WriteHeader(http.StatusAccepted)
	}
}

func (m *master) subscribe(w http.ResponseWriter, r *http.Request, format wire.Format, call *scheduler.Call) {
	m.mu.Lock()
	m.subs++
	id := call.GetFrameworkId().GetValue()
	if got := call.GetSubscribe().GetFrameworkInfo().GetId().GetValue(); got != id || r.Header.Get(wire.HeaderStreamID) != "" {
		m.mu.Unlock()
		http.Error(w, "ids differ", http.StatusBadRequest)
		return
	}
	m.frameIDs = append(m.frameIDs, id)
	if id == "" {
		id = "f-0001"
	}
	m.stream = fmt.Sprintf("stream-%d", m.subs)
	w.Header().Set(wire.HeaderStreamID, m.stream)
	m.mu.Unlock()
	w.Header().Set("Content-Type", format.ContentType())
	out := wire.NewRecordWriter(w)
	send := func(e *scheduler.Event) {
		b, err := format.Marshal(e)
		if err == nil {
			err = out.Write(b)
		}
		if err != nil {
			panic(http.ErrAbortHandler)
		}
	}
	send(&scheduler.Event{Type: scheduler.Event_SUBSCRIBED.Enum(), Subscribed: &scheduler.Event_Subscribed{
		FrameworkId: &mesos.FrameworkID{Value: &id}, HeartbeatIntervalSeconds: &m.beat,
	}})
	for {
		var tick <-chan time.Time
		if m.heartbeat {
			tick = time.After(time.Duration(m.beat * float64(time.Second)))
		}
		select {
		case e := <-m.events:
			if e == nil {
				return
			}
			send(e)
		case <-tick:
			send(&scheduler.Event{Type: scheduler.Event_HEARTBEAT.Enum()})
		case <-r.Context().Done():
			return
		}
	}
}

func (m *master) set(f func(*master)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(m)
}

func (m *master) snapshot() (subs int, ids []string, calls []*scheduler.Call) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.subs, m.frameIDs, m.calls
}

// network carries requests to handlers in memory, so that a test's clock can
// be virtual.
type network map[string]http.Handler

func (n network) RoundTrip(r *http.Request) (*http.Response, error) {
	h, ok := n[r.URL.Host]
	if !ok {
		return nil, errors.New("connection refused")
	}
	pr, pw := io.Pipe()
	w := &response{header: http.Header{}, pipe: pw, ready: make(chan struct{})}
	ctx, cancel := context.WithCancel(r.Context())
	go func() {
		defer func() {
			_ = recover() // http.ErrAbortHandler
			w.WriteHeader(http.StatusOK)
			cancel()
			pw.Close()
		}()
		h.ServeHTTP(w, r.WithContext(ctx))
	}()
	context.AfterFunc(r.Context(), func() { pr.CloseWithError(r.Context().Err()) })
	<-w.ready
	return &http.Response{StatusCode: w.status, Status: http.StatusText(w.status), Header: w.header, Body: pr, Request: r}, nil
}

type response struct {
	header http.Header
	pipe   *io.PipeWriter
	status int
	ready  chan struct{}
}

func (w *response) Header() http.Header { return w.header }
func (w *response) Flush()              {}
func (w *response) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
		close(w.ready)
	}
}

func (w *response) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.pipe.Write(b)
}

type recorder struct {
	mu     sync.Mutex
	events []string
	lost   []error
}

func (r *recorder) handle(_ context.Context, e *scheduler.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e.GetType().String())
}

func (r *recorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.events, " ")
}

func config(r *recorder, rt http.RoundTripper, masters ...string) framework.Config {
	return framework.Config{
		Masters: masters, Client: &http.Client{Transport: rt}, Format: wire.Protobuf,
		Info:   &mesos.FrameworkInfo{User: proto.String("root"), Name: proto.String("test")},
		Handle: r.handle, Disconnected: func(err error) { r.lost = append(r.lost, err) },
		Log: slog.New(slog.DiscardHandler),
	}
}

// start runs a client until the test ends.
func start(t *testing.T, cfg framework.Config) (*framework.Client, chan error) {
	t.Helper()
	c, err := framework.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return c, done
}

func kill(id string) *scheduler.Call {
	return &scheduler.Call{Type: scheduler.Call_KILL.Enum(), Kill: &scheduler.Call_Kill{TaskId: &mesos.TaskID{Value: &id}}}
}

func TestSubscribeCallAndFailOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newMaster(), newMaster()
		net := network{"a:5050": a, "b:5050": b}
		b.redirect = "//a:5050" + framework.Path
		r := &recorder{}
		c, _ := start(t, config(r, net, "https://b:5050", "https://a:5050"))
		synctest.Wait()
		if c.FrameworkID() != "f-0001" || c.Leader() != "https://a:5050" {
			t.Fatalf("id %q, leader %q", c.FrameworkID(), c.Leader())
		}
		if err := c.Call(t.Context(), kill("t1")); err != nil {
			t.Fatal(err)
		}
		if err := c.Acknowledge(t.Context(), &mesos.TaskStatus{}); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			a.events <- &scheduler.Event{Type: scheduler.Event_OFFERS.Enum()}
			a.events <- &scheduler.Event{Type: scheduler.Event_RESCIND.Enum()}
		}
		synctest.Wait()
		if got, want := r.String(), "SUBSCRIBED OFFERS RESCIND OFFERS RESCIND OFFERS RESCIND"; got != want {
			t.Fatalf("events %s", got)
		}
		// b takes over.
		b.set(func(m *master) { m.redirect = "" })
		a.set(func(m *master) { m.redirect = "//b:5050" + framework.Path })
		a.events <- nil
		time.Sleep(time.Second)
		synctest.Wait()
		if _, ids, _ := b.snapshot(); len(ids) != 1 || ids[0] != "f-0001" || c.Leader() != "https://b:5050" {
			t.Fatalf("b saw %v, leader %q", ids, c.Leader())
		}
		if len(r.lost) != 1 || !fault.Is(r.lost[0], fault.Unavailable) {
			t.Fatalf("lost: %v", r.lost)
		}
		if err := c.Call(t.Context(), kill("t2")); err != nil {
			t.Fatal(err)
		}
		if _, _, calls := b.snapshot(); len(calls) != 1 || calls[0].GetFrameworkId().GetValue() != "f-0001" {
			t.Fatalf("b's calls: %v", calls)
		}
	})
}

func TestSilentMasterIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMaster()
		r := &recorder{}
		start(t, config(r, network{"a:5050": m}, "http://a:5050"))
		time.Sleep(44 * time.Second)
		if subs, _, _ := m.snapshot(); subs != 1 {
			t.Fatalf("gave up after %d subscriptions in 44 s", subs)
		}
		time.Sleep(2 * time.Second)
		if subs, _, _ := m.snapshot(); subs != 2 {
			t.Fatalf("%d subscriptions after three missed heartbeats", subs)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		m := newMaster()
		m.heartbeat = true
		r := &recorder{}
		start(t, config(r, network{"a:5050": m}, "http://a:5050"))
		time.Sleep(time.Hour)
		if subs, _, _ := m.snapshot(); subs != 1 {
			t.Fatalf("%d subscriptions in an hour of heartbeats", subs)
		}
	})
	synctest.Test(t, func(t *testing.T) { // a slow handler is not a silent master
		m := newMaster()
		r := &recorder{}
		cfg := config(r, network{"a:5050": m}, "http://a:5050")
		cfg.Handle = func(context.Context, *scheduler.Event) { time.Sleep(time.Minute) }
		start(t, cfg)
		time.Sleep(61 * time.Second)
		if subs, _, _ := m.snapshot(); subs != 1 {
			t.Fatalf("%d subscriptions", subs)
		}
	})
}

func TestBackoffWhileNobodyLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries atomic.Int32
		h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			tries.Add(1)
			http.Error(w, "No leader elected", http.StatusServiceUnavailable)
		})
		loop := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "//c:5050"+framework.Path)
			w.WriteHeader(http.StatusTemporaryRedirect)
		})
		c, _ := start(t, config(&recorder{}, network{"a:5050": h, "c:5050": loop}, "http://a:5050", "http://gone:5050", "http://c:5050"))
		if err := c.Call(t.Context(), kill("t")); !fault.Is(err, fault.Unavailable) {
			t.Fatalf("call without subscription: %v", err)
		}
		time.Sleep(time.Minute)
		if n := tries.Load(); n < 8 || n > 60 {
			t.Fatalf("%d tries in a minute", n)
		}
	})
}

func TestRefusals(t *testing.T) {
	for status, kind := range map[int]fault.Kind{400: fault.Invalid, 401: fault.Denied, 403: fault.Denied, 415: fault.Invalid} {
		synctest.Test(t, func(t *testing.T) {
			m := newMaster()
			m.status = status
			_, done := start(t, config(&recorder{}, network{"a:5050": m}, "http://a:5050"))
			if err := <-done; !fault.Is(err, kind) || !strings.Contains(err.Error(), "as told") {
				t.Errorf("%d ended with %v, want %v", status, err, kind)
			}
		})
	}
	for message, kind := range map[string]fault.Kind{
		"Framework failed over": fault.Conflict, "Framework has been removed": fault.NotFound, "Role 'x' is invalid": fault.Invalid,
	} {
		synctest.Test(t, func(t *testing.T) {
			m := newMaster()
			r := &recorder{}
			_, done := start(t, config(r, network{"a:5050": m}, "http://a:5050"))
			m.events <- &scheduler.Event{Type: scheduler.Event_ERROR.Enum(), Error: &scheduler.Event_Error{Message: &message}}
			if err := <-done; !fault.Is(err, kind) || r.String() != "SUBSCRIBED ERROR" {
				t.Errorf("%s ended with %v after %s", message, err, r)
			}
		})
	}
	for status, kind := range map[int]fault.Kind{400: fault.Invalid, 409: fault.Conflict, 503: fault.Unavailable} {
		synctest.Test(t, func(t *testing.T) {
			m := newMaster()
			c, _ := start(t, config(&recorder{}, network{"a:5050": m}, "http://a:5050"))
			synctest.Wait()
			m.set(func(m *master) { m.status = status })
			if err := c.Call(t.Context(), kill("t")); !fault.Is(err, kind) {
				t.Errorf("call answered %d gave %v", status, err)
			}
			if err := c.Call(t.Context(), &scheduler.Call{Type: scheduler.Call_SUBSCRIBE.Enum()}); !fault.Is(err, fault.Invalid) {
				t.Errorf("SUBSCRIBE as a call gave %v", err)
			}
		})
	}
}

// A master that forgot the subscription makes the client subscribe anew.
func TestForgottenSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMaster()
		c, _ := start(t, config(&recorder{}, network{"a:5050": m}, "http://a:5050"))
		synctest.Wait()
		m.set(func(m *master) { m.stream = "other" })
		if err := c.Call(t.Context(), kill("t")); !fault.Is(err, fault.Unavailable) {
			t.Fatalf("got %v", err)
		}
		time.Sleep(time.Second)
		if err := c.Call(t.Context(), kill("t")); err != nil {
			t.Fatal(err)
		}
		if subs, _, _ := m.snapshot(); subs != 2 {
			t.Fatalf("%d subscriptions", subs)
		}
		// What UPDATE_FRAMEWORK changed is said again when subscribing.
		call := &scheduler.Call{Type: scheduler.Call_UPDATE_FRAMEWORK.Enum(), UpdateFramework: &scheduler.Call_UpdateFramework{
			FrameworkInfo: &mesos.FrameworkInfo{User: proto.String("root"), Name: proto.String("new")},
		}}
		if err := c.Call(t.Context(), call); err != nil {
			t.Fatal(err)
		}
		if c.FrameworkID() != "f-0001" || call.GetUpdateFramework().GetFrameworkInfo().GetId().GetValue() != "f-0001" {
			t.Fatalf("id is %q, update carried %v", c.FrameworkID(), call)
		}
	})
}

// Over real connections, in JSON, with a redirect that has no scheme.
func TestOverTLS(t *testing.T) {
	leader, follower := newMaster(), newMaster()
	ls, fs := httptest.NewTLSServer(leader), httptest.NewTLSServer(follower)
	t.Cleanup(fs.Close)
	t.Cleanup(ls.Close)
	follower.redirect = strings.TrimPrefix(ls.URL, "https:") + framework.Path
	subscribed := make(chan struct{})
	cfg := config(&recorder{}, ls.Client().Transport, fs.URL)
	cfg.Format = wire.JSON
	cfg.Handle = func(context.Context, *scheduler.Event) { close(subscribed) }
	c, _ := start(t, cfg)
	<-subscribed
	if err := c.Call(t.Context(), kill("t")); err != nil {
		t.Fatal(err)
	}
	if c.Leader() != ls.URL {
		t.Fatalf("leader %s, want %s", c.Leader(), ls.URL)
	}
}

func TestNewRefuses(t *testing.T) {
	good := config(&recorder{}, network{}, "http://a:1")
	for name, spoil := range map[string]func(*framework.Config){
		"no masters":  func(c *framework.Config) { c.Masters = nil },
		"bad master":  func(c *framework.Config) { c.Masters = []string{"a:b:c"} },
		"no info":     func(c *framework.Config) { c.Info = nil },
		"no handler":  func(c *framework.Config) { c.Handle = nil },
		"has timeout": func(c *framework.Config) { c.Client = &http.Client{Timeout: 1} },
	} {
		cfg := good
		spoil(&cfg)
		if _, err := framework.New(cfg); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
