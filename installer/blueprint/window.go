package blueprint

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Window is when running hosts may be changed. The zero value is always.
type Window struct {
	Days     [7]bool       // by time.Weekday, those on which it opens
	From, To time.Duration // of the day; not after From: it closes on the next day
	UTC      bool          // otherwise in the time zone of whoever asks
	Text     string        // as it was written; empty: always
}

func (w Window) String() string {
	if w.Text == "" {
		return "any time"
	}
	return w.Text
}

// Open reports whether t is inside the window.
func (w Window) Open(t time.Time) bool {
	if w.Text == "" {
		return true
	}
	t = w.in(t)
	for _, back := range []int{0, -1} { // one that opened yesterday may be open still
		from, to := w.on(t.AddDate(0, 0, back))
		if w.Days[from.Weekday()] && !t.Before(from) && t.Before(to) {
			return true
		}
	}
	return false
}

// Next returns when the window is open next: t itself if it is open.
func (w Window) Next(t time.Time) time.Time {
	if w.Open(t) {
		return t
	}
	t = w.in(t)
	for ahead := range 8 {
		if from, _ := w.on(t.AddDate(0, 0, ahead)); w.Days[from.Weekday()] && !from.Before(t) {
			return from
		}
	}
	return t // a window has a day
}

func (w Window) in(t time.Time) time.Time {
	if w.UTC {
		return t.UTC()
	}
	return t
}

// on returns when the window of the day of t opens and closes, by the clock on
// the wall.
func (w Window) on(t time.Time) (from, to time.Time) {
	y, m, d := t.Date()
	at := func(day int, of time.Duration) time.Time {
		return time.Date(y, m, day, int(of/time.Hour), int(of%time.Hour/time.Minute), 0, 0, t.Location())
	}
	if w.To <= w.From {
		return at(d, w.From), at(d+1, w.To)
	}
	return at(d, w.From), at(d, w.To)
}

var weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// ParseWindow reads "Sat,Sun 02:00-06:00", "Mon-Fri 22:00-04:00 UTC" or
// "02:00-04:00", which is every day.
func ParseWindow(text string) (Window, error) {
	w := Window{Text: strings.Join(strings.Fields(text), " ")}
	words := strings.Fields(text)
	if n := len(words); n > 1 && strings.EqualFold(words[n-1], "UTC") {
		w.UTC, words = true, words[:n-1]
	}
	switch len(words) {
	case 1:
		w.Days = [7]bool{true, true, true, true, true, true, true}
	case 2:
		if err := w.days(words[0]); err != nil {
			return w, err
		}
		words = words[1:]
	default:
		return w, fmt.Errorf("%q has %d parts, not days and hours", text, len(words))
	}
	from, to, ok := strings.Cut(words[0], "-")
	if !ok {
		return w, fmt.Errorf("%q is not a span of hours", words[0])
	}
	var err error
	if w.From, err = clock(from); err != nil {
		return w, err
	}
	if w.To, err = clock(to); err != nil {
		return w, err
	}
	if w.From == w.To {
		return w, fmt.Errorf("it opens and closes at %s", from)
	}
	return w, nil
}

func (w *Window) days(text string) error {
	for _, part := range strings.Split(text, ",") {
		first, last, span := strings.Cut(part, "-")
		a, err := weekday(first)
		if err != nil {
			return err
		}
		b := a
		if span {
			if b, err = weekday(last); err != nil {
				return err
			}
		}
		for d := a; ; d = (d + 1) % 7 {
			w.Days[d] = true
			if d == b {
				break
			}
		}
	}
	return nil
}

func weekday(s string) (int, error) {
	low := strings.ToLower(s)
	i := slices.IndexFunc(weekdays, func(d string) bool {
		return low == d || low == strings.ToLower(time.Weekday(slices.Index(weekdays, d)).String())
	})
	if i < 0 {
		return 0, fmt.Errorf("%q is not a day of the week (Mon, Tue, Wed, Thu, Fri, Sat, Sun)", s)
	}
	return i, nil
}

// clock reads a time of the day, up to 24:00, which is the end of it.
func clock(s string) (time.Duration, error) {
	if s == "24:00" {
		return 24 * time.Hour, nil
	}
	t, err := time.Parse("15:04", s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a time of the day (00:00 to 24:00)", s)
	}
	return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute, nil
}
