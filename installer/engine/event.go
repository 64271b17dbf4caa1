package engine

import (
	"context"
	"iter"
	"sync"
	"time"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
)

// EventKind says what an event reports.
type EventKind string

// Events of one operation come in this order: EventStart, EventPlan, then for
// each resource that changes EventWaiting, EventResourceStart, any number of
// step events, EventResourceEnd; EventSkipped for a resource not reached;
// EventEnd last. Unchanged resources appear in the plan only.
const (
	EventStart         EventKind = "start"
	EventPlan          EventKind = "plan"
	EventWaiting       EventKind = "waiting"
	EventResourceStart EventKind = "resource-start"
	EventStepStart     EventKind = "step-start"
	EventStepNote      EventKind = "step-note"
	EventStepEnd       EventKind = "step-end"
	EventResourceEnd   EventKind = "resource-end"
	EventSkipped       EventKind = "skipped"
	EventNotice        EventKind = "notice" // something the operator should know
	EventEnd           EventKind = "end"
)

// Event is one thing that happened in an operation. Its JSON form is stable:
// fields are added, never renamed. Secrets are masked before it gets here.
type Event struct {
	Seq  int       `json:"seq"` // from 0, without gaps
	Time time.Time `json:"time"`
	Kind EventKind `json:"kind"`

	Operation string `json:"operation,omitempty"` // EventStart, EventEnd: preview, apply, refresh, destroy

	URN  resource.URN `json:"urn,omitempty"`
	Type string       `json:"type,omitempty"`
	Name string       `json:"name,omitempty"`
	Op   Op           `json:"op,omitempty"`
	// Waiting names what this resource still waits for (EventWaiting).
	Waiting []string `json:"waiting,omitempty"`
	// Step is the provider's name of the step, Message a detail, a reason for
	// EventSkipped, or the text of a notice.
	Step    string `json:"step,omitempty"`
	Message string `json:"message,omitempty"`
	// Elapsed since the start of the step, resource or operation that ends.
	Elapsed time.Duration `json:"elapsedNanos,omitempty"`
	Error   string        `json:"error,omitempty"`

	// Counts of changes: planned (EventPlan) or done (EventEnd).
	Counts map[Op]int `json:"counts,omitempty"`
}

// Log is the event stream of one operation: append-only, replayed from any
// position to any number of readers, each at its own pace. A slow reader never
// holds up the engine. It is kept in memory whole and grows with the number of
// events, about 300 bytes each and ten to thirty per changed resource.
type Log struct {
	mu     sync.Mutex
	events []Event
	closed bool
	more   chan struct{} // closed and replaced when something is added
}

// NewLog returns an empty log.
func NewLog() *Log { return &Log{more: make(chan struct{})} }

// append adds e with the next number and the time.
func (l *Log) append(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	e.Seq, e.Time = len(l.events), time.Now().UTC()
	l.events = append(l.events, e)
	close(l.more)
	l.more = make(chan struct{})
}

// Close ends the stream for all readers once they have read everything. The
// owner of the log closes it, after the last operation that writes to it.
func (l *Log) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.closed = true
		close(l.more)
	}
}

// Len returns the number of events so far.
func (l *Log) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.events)
}

// Events yields every event from number from on, waits for new ones, and ends
// when the log is closed or ctx is done.
func (l *Log) Events(ctx context.Context, from int) iter.Seq[Event] {
	return func(yield func(Event) bool) {
		for i := max(from, 0); ; {
			l.mu.Lock()
			batch, more, closed := l.events[min(i, len(l.events)):], l.more, l.closed
			l.mu.Unlock()
			for _, e := range batch {
				if ctx.Err() != nil || !yield(e) {
					return
				}
				i++
			}
			if len(batch) > 0 {
				continue
			}
			if closed {
				return
			}
			select {
			case <-more:
			case <-ctx.Done():
				return
			}
		}
	}
}
