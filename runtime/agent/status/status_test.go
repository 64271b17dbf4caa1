package status_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	mesos "dcos.example/dcos/runtime/api/mesos"

	"dcos.example/dcos/runtime/agent/status"
	"dcos.example/dcos/runtime/api/agentlink"
	"dcos.example/dcos/runtime/fault"
)

var key = status.Key{Framework: "f", Task: "t"}

type journal struct{ lines []string }

func (j *journal) Update(s *mesos.TaskStatus) error {
	j.lines = append(j.lines, "update "+string(s.GetUuid()))
	return nil
}
func (j *journal) Ack(uuid []byte) error { j.lines = append(j.lines, "ack "+string(uuid)); return nil }
func (j *journal) Remove() error         { j.lines = append(j.lines, "remove"); return nil }

func update(uuid string, st mesos.TaskState) *mesos.TaskStatus {
	return &mesos.TaskStatus{TaskId: &mesos.TaskID{Value: proto.String("t")}, State: st.Enum(), Uuid: []byte(uuid)}
}

// sent records what was sent when.
type sent struct {
	mu    sync.Mutex
	start time.Time
	log   []string
	err   error
}

func (s *sent) send(_ context.Context, us []*agentlink.StatusUpdate) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range us {
		s.log = append(s.log, string(u.GetStatus().GetUuid())+" "+u.GetLatestState().String()+" "+time.Since(s.start).String())
	}
	return s.err
}

// lines is what was sent so far.
func (s *sent) lines() []string {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.log...)
}

func start(t *testing.T) (*status.Manager, *sent) {
	s := &sent{start: time.Now()}
	m := status.New(s.send, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); m.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return m, s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, s := start(t)
		j := &journal{}
		m.Open(key, j, nil)
		must(t, m.Push(key, update("1", mesos.TaskState_TASK_RUNNING)))
		must(t, m.Push(key, update("2", mesos.TaskState_TASK_FINISHED)))
		synctest.Wait()
		if err := m.Push(key, update("3", mesos.TaskState_TASK_FAILED)); !fault.Is(err, fault.Conflict) {
			t.Errorf("an update after the last: %v, want conflict", err)
		}
		for _, uuid := range []string{"2", "?", "1"} { // only the outstanding one counts
			if done, err := m.Acknowledge(key, []byte(uuid)); done || err != nil {
				t.Errorf("acknowledge %s: %t, %v", uuid, done, err)
			}
		}
		synctest.Wait()
		if done, err := m.Acknowledge(key, []byte("2")); !done || err != nil {
			t.Errorf("the terminal acknowledgement: %t, %v", done, err)
		}
		if done, err := m.Acknowledge(key, []byte("2")); done || err != nil {
			t.Errorf("it again: %t, %v", done, err)
		}
		if diff := cmp.Diff([]string{"1 TASK_FINISHED 0s", "2 TASK_FINISHED 0s"}, s.lines()); diff != "" {
			// the first may have been sent before the second was known
			if diff2 := cmp.Diff([]string{"1 TASK_RUNNING 0s", "2 TASK_FINISHED 0s"}, s.lines()); diff2 != "" {
				t.Error(diff)
			}
		}
		if diff := cmp.Diff([]string{"update 1", "update 2", "ack 1", "ack 2", "remove"}, j.lines); diff != "" {
			t.Error(diff)
		}
		if err := m.Push(key, update("4", mesos.TaskState_TASK_LOST)); !fault.Is(err, fault.NotFound) {
			t.Errorf("an update without a stream: %v, want not found", err)
		}
	})
}

func TestRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, s := start(t)
		s.err = errors.New("no master")
		m.Open(key, &journal{}, []*mesos.TaskStatus{update("1", mesos.TaskState_TASK_RUNNING)})
		time.Sleep(30 * time.Minute)
		want := []string{
			"1 TASK_RUNNING 0s", "1 TASK_RUNNING 10s", "1 TASK_RUNNING 30s", "1 TASK_RUNNING 1m10s", "1 TASK_RUNNING 2m30s",
			"1 TASK_RUNNING 5m10s", "1 TASK_RUNNING 10m30s", "1 TASK_RUNNING 20m30s",
		}
		if diff := cmp.Diff(want, s.lines()); diff != "" {
			t.Error(diff)
		}
		m.Resend() // a new master is told at once, and the pauses begin anew
		time.Sleep(11 * time.Second)
		if diff := cmp.Diff([]string{"1 TASK_RUNNING 30m0s", "1 TASK_RUNNING 30m10s"}, s.lines()[len(want):]); diff != "" {
			t.Error(diff)
		}
		if m.Pending() != 1 {
			t.Errorf("%d pending", m.Pending())
		}
	})
}
