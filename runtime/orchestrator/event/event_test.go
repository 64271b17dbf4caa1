package event_test

import (
	"testing"
	"time"

	"dcos.example/dcos/runtime/orchestrator/event"
)

func TestListeners(t *testing.T) {
	b := event.New()
	one := b.Listen(0, "a")
	for range 3 {
		b.Publish("a", event.Fields{}, time.Unix(0, 0))
		b.Publish("b", event.Fields{}, time.Unix(0, 0))
	}
	if n := len(one.C); n != 3 {
		t.Errorf("%d events of type a", n)
	}
	if e := <-one.C; e.ID != 1 || string(e.Data) != `{"eventType":"a","timestamp":"1970-01-01T00:00:00.000Z"}` {
		t.Errorf("%d %s", e.ID, e.Data)
	}
	again := b.Listen(4)
	if n := len(again.C); n != 2 {
		t.Errorf("%d events after the fourth", n)
	}
	for range 2000 {
		b.Publish("a", event.Fields{}, time.Unix(0, 0))
	}
	n := 0
	for range one.C { // ends: it was cut off
		n++
	}
	if n > 1024 {
		t.Errorf("%d events kept for a listener that does not read", n)
	}
	b.Leave(one) // once more is harmless
	b.Close()
	for range b.Listen(0).C {
		t.Error("an event after the end")
	}
}
