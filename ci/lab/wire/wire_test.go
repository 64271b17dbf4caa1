package wire_test

import (
	"context"
	"io"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dcos.example/dcos/ci/lab/wire"
)

// end is one end of a cable: what is sent to it arrives at the other.
type end struct {
	in     chan []byte
	closed chan struct{}
	once   sync.Once
	began  time.Time

	mu  sync.Mutex
	got []arrival
}

type arrival struct {
	frame string
	after time.Duration
}

func newEnd() *end {
	return &end{in: make(chan []byte), closed: make(chan struct{}), began: time.Now()}
}

func (e *end) Read(b []byte) (int, error) {
	select {
	case f := <-e.in:
		return copy(b, f), nil
	case <-e.closed:
		return 0, os.ErrClosed
	}
}

func (e *end) Write(b []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.got = append(e.got, arrival{string(b), time.Since(e.began)})
	return len(b), nil
}

func (e *end) arrived() []arrival {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.got
}

func (e *end) Close() error {
	e.once.Do(func() { close(e.closed) })
	return nil
}

var _ io.ReadWriteCloser = (*end)(nil)

func TestDelay(t *testing.T) {
	for name, jitter := range map[string]time.Duration{"even": 0, "jitter": 50 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const delay = 20 * time.Millisecond
				a, b := newEnd(), newEnd()
				ctx, stop := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- wire.Run(ctx, a, b, delay, jitter) }()
				for i := range 100 { // one a millisecond
					a.in <- []byte{byte(i)}
					time.Sleep(time.Millisecond)
				}
				b.in <- []byte("back")
				time.Sleep(time.Second)
				there, back := b.arrived(), a.arrived()
				if len(there) != 100 || len(back) != 1 {
					t.Fatalf("%d and %d frames arrived, want 100 and 1", len(there), len(back))
				}
				for i, f := range there {
					sent := time.Duration(i) * time.Millisecond
					late := f.after - sent
					if f.frame != string([]byte{byte(i)}) || late < delay || late > delay+jitter {
						t.Errorf("frame %d is %q and was under way for %s", i, f.frame, late)
					}
				}
				stop()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestEnds: a cable whose end fails is no cable.
func TestEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newEnd(), newEnd()
		done := make(chan error, 1)
		go func() { done <- wire.Run(t.Context(), a, b, time.Second, 0) }()
		a.in <- []byte("on the way")
		a.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
		<-b.closed
	})
}
