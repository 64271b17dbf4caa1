// Package session is the outgoing half of a RecordIO stream: a bounded queue
// that never blocks who sends, and one writer that ends with the connection.
// A receiver that does not keep up is cut off; it knows how to subscribe again.
package session

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/api/wire"
	"dcos.example/dcos/runtime/fault"
)

// Record is a message on its way to any number of streams. It is encoded at
// most once for each format, by whoever writes it first. The message must not
// change any more.
type Record struct {
	make func() proto.Message
	once [2]sync.Once
	text [2][]byte
	err  [2]error
}

// NewRecord returns the record of m.
func NewRecord(m proto.Message) *Record { return &Record{make: func() proto.Message { return m }} }

// NewLazyRecord returns a record whose message is made when it is written, by
// the goroutine that writes it; f is called at most once a format.
func NewLazyRecord(f func() proto.Message) *Record { return &Record{make: f} }

func (r *Record) encode(f wire.Format) ([]byte, error) {
	i := 0
	if f == wire.Protobuf {
		i = 1
	}
	r.once[i].Do(func() { r.text[i], r.err[i] = f.Marshal(r.make()) })
	return r.text[i], r.err[i]
}

// writeTimeout is how long a receiver may take to make room for one batch.
const writeTimeout = 30 * time.Second

// Stream is one receiver.
type Stream struct {
	ID     string // the Mesos-Stream-Id
	Format wire.Format

	limit  int
	mu     sync.Mutex
	queue  []*Record
	closed bool
	reason string
	wake   chan struct{} // holds one token when there is something to do
}

// New returns a stream that holds at most limit records not yet written.
func New(f wire.Format, limit int) *Stream {
	return &Stream{ID: uuid.NewString(), Format: f, limit: limit, wake: make(chan struct{}, 1)}
}

// Send queues m. It never blocks; it reports false when the stream is closed,
// which a full queue does to it.
func (s *Stream) Send(m proto.Message) bool { return s.SendRecord(NewRecord(m)) }

// SendRecord is Send for a record that goes to several streams.
func (s *Stream) SendRecord(r *Record) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if len(s.queue) >= s.limit {
		s.closed, s.queue, s.reason = true, nil, "receiver is too slow"
		s.notify()
		return false
	}
	s.queue = append(s.queue, r)
	s.notify()
	return true
}

// Close ends the stream after what is queued has been written.
func (s *Stream) Close(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed, s.reason = true, reason
		s.notify()
	}
}

// Reason says why the stream was closed, "" when the receiver went away.
func (s *Stream) Reason() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reason
}

func (s *Stream) notify() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Stream) take() (batch []*Record, closed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	batch, s.queue = s.queue, nil
	return batch, s.closed
}

// Serve writes records to w until the stream is closed, the receiver leaves or
// ctx ends. It sends beat every interval. The headers must not have been
// written; Serve adds the stream's.
func (s *Stream) Serve(ctx context.Context, w http.ResponseWriter, interval time.Duration, beat proto.Message) error {
	defer s.Close("")
	h := w.Header()
	h.Set("Content-Type", s.Format.ContentType())
	h.Set(wire.HeaderStreamID, s.ID)
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	control := http.NewResponseController(w)
	if err := control.Flush(); err != nil {
		return fault.New("open stream", fault.Unavailable, err)
	}
	out := wire.NewRecordWriter(w)
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	beats := NewRecord(beat)
	for {
		batch, closed := s.take()
		if len(batch) > 0 {
			// Writers without deadlines exist in process; they cannot hang.
			_ = control.SetWriteDeadline(time.Now().Add(writeTimeout))
		}
		for _, r := range batch {
			b, err := r.encode(s.Format)
			if err != nil {
				return err
			}
			if err := out.Write(b); err != nil {
				return err
			}
		}
		if closed {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.wake:
		case <-ticker.C:
			s.SendRecord(beats)
		}
	}
}
