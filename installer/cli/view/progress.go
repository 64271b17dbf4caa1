package view

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"dcos.example/dcos/installer/engine"
)

// Event wraps one event of the engine for the JSON form.
type Event struct {
	Event engine.Event `json:"event"`
}

func (Event) Kind() string       { return "event" }
func (Event) WriteText(*Printer) {}

// events is the part of the engine's log that is read here.
type events interface {
	Events(ctx context.Context, from int) iter.Seq[engine.Event]
}

// FollowJSON writes each event on a line until the log is closed.
func FollowJSON(ctx context.Context, p *Printer, log events) {
	for e := range log.Events(ctx, 0) {
		if p.Err == nil {
			p.Err = WriteJSON(p.W, Event{e}, false)
		}
	}
}

// verb pairs of operations: while and after.
var doing = map[engine.Op][2]string{
	engine.OpCreate: {"creating", "created"}, engine.OpUpdate: {"changing", "changed"}, engine.OpReplace: {"replacing", "replaced"},
	engine.OpDelete: {"deleting", "deleted"}, engine.OpForget: {"forgetting", "forgotten"},
}

// FollowPlain writes a line for everything that starts and ends.
func FollowPlain(ctx context.Context, p *Printer, log events) {
	for e := range log.Events(ctx, 0) {
		if line := plainLine(e); line != "" {
			p.Printf("%s\n", line)
		}
	}
}

func plainLine(e engine.Event) string {
	var name string
	if e.URN != "" { // events of the operation as a whole have none
		name = engine.KeyOf(e.URN).String()
	}
	switch e.Kind {
	case engine.EventResourceStart:
		return fmt.Sprintf("%s: %s", name, doing[e.Op][0])
	case engine.EventStepEnd:
		if e.Error != "" {
			return fmt.Sprintf("%s: %s: failed (%s)", name, e.Step, short(e.Elapsed)) // why is in the result
		}
		return fmt.Sprintf("%s: %s (%s)", name, e.Step, short(e.Elapsed))
	case engine.EventResourceEnd:
		if e.Error != "" {
			return fmt.Sprintf("%s: failed (%s)", name, short(e.Elapsed))
		}
		return fmt.Sprintf("%s: %s (%s)", name, doing[e.Op][1], short(e.Elapsed))
	case engine.EventSkipped:
		return fmt.Sprintf("%s: not tried: %s", name, e.Message)
	case engine.EventNotice:
		if name != "" && !strings.HasPrefix(e.Message, name) {
			return name + ": " + e.Message
		}
		return e.Message
	}
	return ""
}

// FollowLive keeps a picture of what runs at the bottom of a terminal and
// leaves a line for everything that has ended. Each redraw costs the number of
// running resources.
func FollowLive(ctx context.Context, p *Printer, log events, now func() time.Time) {
	in := make(chan engine.Event)
	go func() { // ends when the log is closed, and is read to the end below
		defer close(in)
		for e := range log.Events(ctx, 0) {
			in <- e
		}
	}()
	l := &live{p: p, now: now, start: now(), at: map[string]*running{}}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case e, ok := <-in:
			if !ok {
				l.clear()
				return
			}
			l.event(e)
		case <-tick.C:
			l.clear()
			l.draw()
		}
	}
}

// running is a resource that is being worked on, or waits for its turn.
type running struct {
	key     engine.Key
	op      engine.Op
	since   time.Time // zero: waits
	waiting []string
	steps   []string // open steps, the newest last
	note    string
}

type live struct {
	p           *Printer
	now         func() time.Time
	start       time.Time
	at          map[string]*running
	order       []string
	lines       int
	total, done int
}

func (l *live) event(e engine.Event) {
	id := string(e.URN)
	r := l.at[id]
	if r == nil && e.URN != "" && e.Kind != engine.EventResourceEnd && e.Kind != engine.EventSkipped && e.Kind != engine.EventNotice {
		r = &running{key: engine.KeyOf(e.URN), op: e.Op}
		l.at[id] = r
		l.order = append(l.order, id)
	}
	switch e.Kind {
	case engine.EventPlan:
		for op, n := range e.Counts {
			if op != engine.OpSame {
				l.total += n
			}
		}
	case engine.EventWaiting:
		r.waiting = e.Waiting
	case engine.EventResourceStart:
		r.op, r.since, r.waiting = e.Op, l.now(), nil
	case engine.EventStepStart:
		r.steps, r.note = append(r.steps, e.Step), ""
	case engine.EventStepNote:
		r.note = e.Message
	case engine.EventStepEnd:
		r.steps, r.note = slices.DeleteFunc(r.steps, func(s string) bool { return s == e.Step }), ""
		if e.Error != "" {
			l.print(plainLine(e))
		}
	case engine.EventResourceEnd, engine.EventSkipped:
		delete(l.at, id)
		l.order = slices.DeleteFunc(l.order, func(s string) bool { return s == id })
		l.done++
		mark := l.p.paint(green, "✓")
		if e.Error != "" || e.Kind == engine.EventSkipped {
			mark = l.p.paint(red, "✗")
		}
		l.print(mark + " " + plainLine(e))
	case engine.EventNotice:
		l.print(plainLine(e))
	}
}

func (l *live) print(line string) {
	l.clear()
	l.p.Printf("%s\n", line)
	l.draw()
}

// clear removes the picture: up over its lines, then erase to the end.
func (l *live) clear() {
	if l.lines > 0 {
		l.p.Printf("\x1b[%dA\x1b[J", l.lines)
	}
	l.lines = 0
}

// maxLive bounds the picture, so that it never scrolls.
const maxLive = 15

func (l *live) draw() {
	var waiting, active []string
	for _, id := range l.order {
		if r := l.at[id]; r.since.IsZero() {
			waiting = append(waiting, fmt.Sprintf("  · %s waits for %s", r.key, some(r.waiting)))
		} else {
			active = append(active, l.line(r))
		}
	}
	lines := append(active, waiting...)
	if len(lines) > maxLive {
		lines = append(lines[:maxLive], fmt.Sprintf("    … and %d more", len(lines)-maxLive))
	}
	lines = append(lines, l.p.paint(dim, fmt.Sprintf("  %d of %d done, %d running, %s", l.done, l.total, len(active), short(l.now().Sub(l.start)))))
	for _, s := range lines {
		l.p.Printf("%s\n", l.p.fit(s, 0))
	}
	l.lines = len(lines)
}

func (l *live) line(r *running) string {
	s := fmt.Sprintf("  %s %s  %s", l.p.paint(colors[r.op], symbols[r.op]), r.key, short(l.now().Sub(r.since)))
	if len(r.steps) > 0 {
		s += "  " + r.steps[len(r.steps)-1]
	}
	if r.note != "" {
		s += ": " + r.note
	}
	return s
}

func some(names []string) string {
	if len(names) > 3 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:3], ", "), len(names)-3)
	}
	return strings.Join(names, ", ")
}
