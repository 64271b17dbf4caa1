package main

import (
	"strings"
	"testing"
	"time"
)

// A judge that finds nothing wrong with anything would be worth nothing.
func TestJudge(t *testing.T) {
	good := seen{samples: 100, fewest: 2, writes: 50, writeGap: time.Second, asked: 10, tasks: 4}
	for want, change := range map[string]func(*outcome){
		"":                     func(*outcome) {},
		"1 instances answered": func(o *outcome) { o.seen.fewest = 1 },
		"1 of 50 acknowledged": func(o *outcome) { o.seen.lost = 1 },
		"2 of 4 tasks":         func(o *outcome) { o.seen.restarted = 2 },
		"no write for 1m0s":    func(o *outcome) { o.seen.writeGap = time.Minute },
		"nothing was seen":     func(o *outcome) { o.seen.writes = 0 },
	} {
		o := outcome{drill: drill{dark: failover}, seen: good}
		change(&o)
		got := strings.Join(o.judge(), "; ")
		if (want == "") != (got == "") || !strings.HasPrefix(got, want) {
			t.Errorf("judged %q, want %q", got, want)
		}
	}
}
