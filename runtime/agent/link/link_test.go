package link_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	mesos "dcos.example/dcos/runtime/api/mesos"

	"dcos.example/dcos/runtime/agent/agenttest"
	"dcos.example/dcos/runtime/agent/link"
	"dcos.example/dcos/runtime/api/agentlink"
	"dcos.example/dcos/runtime/fault"
)

type inbox struct {
	mu  sync.Mutex
	got []*agentlink.Downlink
}

func (i *inbox) handle(_ context.Context, d *agentlink.Downlink) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.got = append(i.got, d)
	return nil
}

func (i *inbox) count(f func(*agentlink.Downlink) bool) (n int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, d := range i.got {
		if f(d) {
			n++
		}
	}
	return n
}

func registered(d *agentlink.Downlink) bool { return d.GetRegistered() != nil }

func start(t *testing.T, masters ...string) (*link.Link, *inbox) {
	t.Helper()
	in := &inbox{}
	l := link.New(link.Options{
		Masters: func() []string { return masters }, Client: http.DefaultClient, Log: slog.New(slog.DiscardHandler), Handle: in.handle,
		Subscribe: func() *agentlink.Subscribe {
			return &agentlink.Subscribe{Agent: &mesos.AgentInfo{Hostname: proto.String("h")}}
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); l.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return l, in
}

// follower answers as a master that does not lead.
func follower(t *testing.T, leader string) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", strings.TrimPrefix(leader, "http:")+r.URL.Path)
		w.WriteHeader(http.StatusTemporaryRedirect)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

func TestFollowsLeader(t *testing.T) {
	m := agenttest.New(t)
	l, in := start(t, follower(t, m.URL))
	m.Until(t, "the agent is registered", func() bool { return l.Leader() == m.URL && in.count(registered) == 1 })
	m.Until(t, "pings are answered", func() bool { return m.Pongs() >= 2 })
	if n := in.count(func(d *agentlink.Downlink) bool { return d.GetPing() != nil }); n != 0 {
		t.Errorf("%d pings were handed on", n)
	}
	m.Send(t, agenttest.Kill(agenttest.Framework(), "t", time.Second))
	m.Until(t, "a message arrived", func() bool { return in.count(func(d *agentlink.Downlink) bool { return d.GetKillTask() != nil }) == 1 })
	up := &agentlink.StatusUpdate{
		FrameworkId: &mesos.FrameworkID{Value: proto.String("f")},
		Status:      &mesos.TaskStatus{TaskId: &mesos.TaskID{Value: proto.String("t")}, State: mesos.TaskState_TASK_RUNNING.Enum(), Uuid: []byte("1")},
	}
	if err := l.Send(t.Context(), &agentlink.Uplink{StatusUpdates: []*agentlink.StatusUpdate{up}}); err != nil {
		t.Error(err)
	}
	if len(m.Updates("t")) != 1 {
		t.Errorf("updates %v", m.Updates("t"))
	}
}

func TestComesBack(t *testing.T) {
	m := agenttest.New(t)
	l, in := start(t, m.URL)
	for n := range 3 {
		m.Until(t, "the agent is registered", func() bool { return in.count(registered) == n+1 && l.Leader() != "" })
		lost := time.Now()
		m.Drop()
		m.Until(t, "the agent is registered again", func() bool { return in.count(registered) == n+2 })
		if d := time.Since(lost); d > 3*time.Second {
			t.Errorf("it took %s", d)
		}
	}
}

// A dead master and one that is alone do not keep the agent from the leader.
func TestTriesAll(t *testing.T) {
	m := agenttest.New(t)
	dead := httptest.NewServer(nil)
	dead.Close()
	alone := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no leader elected", http.StatusServiceUnavailable)
	}))
	defer alone.Close()
	l, _ := start(t, dead.URL, alone.URL, m.URL)
	if err := l.Send(t.Context(), &agentlink.Uplink{}); err != nil && !fault.Is(err, fault.Unavailable) {
		t.Errorf("send without a master: %v, want unavailable", err)
	}
	m.Until(t, "the agent is registered", func() bool { return l.Leader() == m.URL })
}
