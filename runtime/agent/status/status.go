// Package status delivers task status updates reliably: per task in order, one
// at a time, each on disk before it is sent and sent again with growing pauses
// until the framework has acknowledged it.
package status

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/api/agentlink"
	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/task"
)

// Pauses between sends of one update: the first and the longest. They double
// in between, as Mesos agents do it.
const (
	FirstPause = 10 * time.Second
	LastPause  = 10 * time.Minute
)

// Key names a task.
type Key struct{ Framework, Task string }

// journal keeps a stream's updates over a restart of the agent.
type journal interface {
	Update(*mesos.TaskStatus) error
	Ack(uuid []byte) error
	Remove() error
}

// send hands updates to the master. An error means that none was taken.
type send func(context.Context, []*agentlink.StatusUpdate) error

// Manager holds the streams of all tasks.
type Manager struct {
	send send
	log  *slog.Logger
	wake chan struct{}

	mu      sync.Mutex
	streams map[Key]*stream
}

type stream struct {
	journal journal
	queue   []*mesos.TaskStatus // the first is outstanding
	latest  mesos.TaskState
	due     time.Time // when to send the first again; zero: now
	pause   time.Duration
	closed  bool // the last queued update is terminal
}

// New returns a manager that delivers through s while Run runs.
func New(s func(context.Context, []*agentlink.StatusUpdate) error, log *slog.Logger) *Manager {
	return &Manager{send: s, log: log, wake: make(chan struct{}, 1), streams: make(map[Key]*stream)}
}

// Open begins the stream of a task with updates that a former run of the agent
// left unacknowledged.
func (m *Manager) Open(k Key, j journal, pending []*mesos.TaskStatus) {
	s := &stream{journal: j, queue: pending}
	if n := len(pending); n > 0 {
		s.latest = pending[n-1].GetState()
		s.closed = task.Terminal(s.latest)
	}
	m.mu.Lock()
	m.streams[k] = s
	m.mu.Unlock()
	m.poke()
}

// Push queues an update after those before it, once it is on disk. Updates
// after a terminal one are refused.
func (m *Manager) Push(k Key, st *mesos.TaskStatus) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.streams[k]
	switch {
	case s == nil:
		return fault.Newf("queue status update", fault.NotFound, "task %s has no stream", k.Task)
	case s.closed:
		return fault.Newf("queue status update", fault.Conflict, "task %s is already %s", k.Task, s.latest)
	}
	if err := s.journal.Update(st); err != nil {
		return err
	}
	s.queue = append(s.queue, st)
	s.latest, s.closed = st.GetState(), task.Terminal(st.GetState())
	if len(s.queue) == 1 {
		s.due, s.pause = time.Time{}, 0
		m.poke()
	}
	return nil
}

// Acknowledge takes the outstanding update off its stream. done says that it
// was the task's terminal one, and the stream and its journal are gone. An
// acknowledgement of anything else is ignored: it answers a repeated send.
func (m *Manager) Acknowledge(k Key, uuid []byte) (done bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.streams[k]
	if s == nil || len(s.queue) == 0 || !bytes.Equal(s.queue[0].GetUuid(), uuid) {
		return false, nil
	}
	if err := s.journal.Ack(uuid); err != nil {
		return false, err
	}
	s.queue = s.queue[1:]
	s.due, s.pause = time.Time{}, 0
	if len(s.queue) == 0 && s.closed {
		delete(m.streams, k)
		return true, s.journal.Remove()
	}
	m.poke()
	return false, nil
}

// Resend sends every outstanding update now: a new master knows none of them.
func (m *Manager) Resend() {
	m.mu.Lock()
	for _, s := range m.streams {
		s.due, s.pause = time.Time{}, 0
	}
	m.mu.Unlock()
	m.poke()
}

// Pending returns the number of updates that wait for an acknowledgement.
func (m *Manager) Pending() (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.streams {
		n += len(s.queue)
	}
	return n
}

func (m *Manager) poke() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Run delivers until ctx ends. One pass looks at every stream, so it grows
// with the number of tasks on this agent.
func (m *Manager) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.wake:
		case <-timer.C:
		}
		batch, next := m.collect(time.Now())
		if len(batch) > 0 {
			if err := m.send(ctx, batch); err != nil {
				m.log.Debug("status updates wait for a master", "count", len(batch), "error", err)
			}
		}
		timer.Reset(next)
	}
}

// collect returns what is due and how long until something else is.
func (m *Manager) collect(now time.Time) (batch []*agentlink.StatusUpdate, next time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	next = LastPause
	for k, s := range m.streams {
		if len(s.queue) == 0 {
			continue
		}
		if !s.due.After(now) {
			batch = append(batch, &agentlink.StatusUpdate{
				FrameworkId: &mesos.FrameworkID{Value: proto.String(k.Framework)},
				Status:      s.queue[0],
				LatestState: s.latest.Enum(),
			})
			s.pause = min(max(2*s.pause, FirstPause), LastPause)
			s.due = now.Add(s.pause)
		}
		next = min(next, s.due.Sub(now))
	}
	return batch, next
}
