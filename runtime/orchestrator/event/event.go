// Package event hands what happens in the orchestrator to those who listen on
// /v2/events. A listener that does not keep up is cut off, never waited for.
package event

import (
	"encoding/json"
	"slices"
	"sync"
	"time"

	"dcos.example/dcos/runtime/api/marathon"
)

// Fields are an event's own fields; the bus adds eventType and timestamp.
type Fields map[string]any

// Event is an event ready to be sent.
type Event struct {
	ID   uint64 // grows by one per event of this bus
	Type string
	Data []byte
}

const (
	backlog = 1024 // events a listener may be behind (event_stream_max_outstanding_messages)
	recent  = 4096 // events kept for listeners that come back
)

// Bus is one term's events. The zero value is not usable; call New.
type Bus struct {
	mu     sync.Mutex
	last   uint64
	ring   []Event // the last events, oldest first
	subs   map[*Listener]struct{}
	closed bool
}

// New returns a Bus without listeners.
func New() *Bus { return &Bus{subs: map[*Listener]struct{}{}} }

// Listener receives events of some types until it closes or falls behind.
type Listener struct {
	C     <-chan Event // closed when the listener is cut off
	ch    chan Event
	types []string
}

// Publish sends an event to all listeners. Encoding costs once per event.
func (b *Bus) Publish(typ string, f Fields, now time.Time) {
	f["eventType"] = typ
	f["timestamp"] = marathon.Time(now)
	data, err := json.Marshal(f)
	if err != nil {
		panic("event: fields of " + typ + " do not marshal: " + err.Error())
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last++
	e := Event{ID: b.last, Type: typ, Data: data}
	if len(b.ring) == recent {
		b.ring = slices.Delete(b.ring, 0, recent/4)
	}
	b.ring = append(b.ring, e)
	for l := range b.subs {
		b.send(l, e)
	}
}

// send must be called with b.mu held.
func (b *Bus) send(l *Listener, e Event) {
	if len(l.types) > 0 && !slices.Contains(l.types, e.Type) {
		return
	}
	select {
	case l.ch <- e:
	default:
		delete(b.subs, l)
		close(l.ch)
	}
}

// Listen returns a listener for types, all if none are named. With after > 0
// it first gets the events after that id that are still kept.
func (b *Bus) Listen(after uint64, types ...string) *Listener {
	ch := make(chan Event, backlog)
	l := &Listener{C: ch, ch: ch, types: types}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		close(ch)
		return l
	}
	b.subs[l] = struct{}{}
	if after > 0 {
		for _, e := range b.ring {
			if _, on := b.subs[l]; on && e.ID > after {
				b.send(l, e)
			}
		}
	}
	return l
}

// Leave ends l.
func (b *Bus) Leave(l *Listener) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.subs[l]; ok {
		delete(b.subs, l)
		close(l.ch)
	}
}

// Close ends all listeners: this process leads no more.
func (b *Bus) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for l := range b.subs {
		delete(b.subs, l)
		close(l.ch)
	}
}
