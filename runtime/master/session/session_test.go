package session_test

import (
	"bytes"
	"context"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/wire"
	"dcos.example/dcos/runtime/master/session"
)

func id(s string) *mesos.TaskID { return &mesos.TaskID{Value: proto.String(s)} }

func read(t *testing.T, b []byte) (out []string) {
	r := wire.NewRecordReader(bytes.NewReader(b), 1<<20)
	for {
		rec, err := r.Read()
		if err != nil {
			return out
		}
		m := &mesos.TaskID{}
		if err := wire.JSON.Unmarshal(rec, m); err != nil {
			t.Fatal(err)
		}
		out = append(out, m.GetValue())
	}
}

func TestStreamEndsAfterWhatWasQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := session.New(wire.JSON, 10)
		w := httptest.NewRecorder()
		s.Send(id("a"))
		s.SendRecord(session.NewLazyRecord(func() proto.Message { return id("b") }))
		go func() {
			time.Sleep(25 * time.Second)
			s.Send(id("c"))
			s.Close("done")
		}()
		if err := s.Serve(t.Context(), w, 10*time.Second, id("beat")); err != nil {
			t.Error(err)
		}
		got := read(t, w.Body.Bytes())
		if want := []string{"a", "b", "beat", "beat", "c"}; !equal(got, want) {
			t.Errorf("written %v, want %v", got, want)
		}
		if w.Header().Get("Mesos-Stream-Id") != s.ID || w.Header().Get("Content-Type") != "application/json" || s.Reason() != "done" {
			t.Errorf("header %v, reason %q", w.Header(), s.Reason())
		}
		if s.Send(id("late")) {
			t.Error("sent on a closed stream")
		}
	})
}

func TestSlowReceiverIsCutOff(t *testing.T) {
	s := session.New(wire.Protobuf, 2)
	if !s.Send(id("a")) || !s.Send(id("b")) {
		t.Fatal("no room for two")
	}
	if s.Send(id("c")) || s.Send(id("d")) {
		t.Error("more is queued than the limit")
	}
	w := httptest.NewRecorder()
	if err := s.Serve(t.Context(), w, time.Hour, id("")); err != nil || w.Body.Len() != 0 {
		t.Errorf("%v, %d bytes written", err, w.Body.Len())
	}
}

func TestStreamEndsWithItsContext(t *testing.T) {
	s := session.New(wire.JSON, 2)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Serve(ctx, httptest.NewRecorder(), time.Hour, id("")); err != context.Canceled {
		t.Error(err)
	}
	if s.Send(id("x")) {
		t.Error("the stream lives on")
	}
}

func equal(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}
