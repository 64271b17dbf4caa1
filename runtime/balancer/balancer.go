// Package balancer keeps a host's virtual addresses in step with the feed: for
// each view it computes the rules (ruleset) and has them applied (nft).
package balancer

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"time"

	"dcos.example/dcos/runtime/balancer/ruleset"
	"dcos.example/dcos/runtime/feed"
)

const (
	retry = time.Second      // after the kernel refused rules
	check = 10 * time.Second // between looks whether the rules are still there
)

// applier makes the kernel follow rules.
type applier interface {
	Apply(ruleset.Rules) error
	Intact() (bool, error)
	Close() error
}

// source is where views come from.
type source interface {
	View() *feed.View
}

// Run applies the rules of every view, with the options as they are then, until
// ctx ends. Then it leaves them in
// the kernel, so that apps find each other while their host's daemon restarts;
// the next Run takes over. Errors are logged and tried again.
func Run(ctx context.Context, f *feed.Feed, a applier, o func() ruleset.Options, log *slog.Logger) {
	views := make(chan *feed.View)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for v := range f.Changes(ctx) {
			select {
			case views <- v:
			case <-ctx.Done():
				return
			}
		}
	}()
	loop(ctx, views, a, o, log)
	<-done
}

func loop(ctx context.Context, views <-chan *feed.View, a applier, o func() ruleset.Options, log *slog.Logger) {
	var latest *feed.View
	var refused []string
	apply := func() time.Duration {
		if latest == nil {
			return check
		}
		began := time.Now()
		rules := ruleset.Plan(latest, o())
		if !slices.Equal(rules.Refused, refused) {
			refused = rules.Refused
			log.Warn("VIP labels refused", "labels", refused)
		}
		if err := a.Apply(rules); err != nil {
			log.Error("VIPs not applied", "err", err)
			return retry
		}
		log.Debug("VIPs applied", "vips", len(rules.VIPs), "rev", latest.Revision(), "took", time.Since(began))
		return check
	}
	next := time.NewTimer(check)
	defer next.Stop()
	failed := false
	for {
		select {
		case <-ctx.Done():
			return
		case latest = <-views:
			wait := apply()
			failed = wait == retry
			next.Reset(wait)
		case <-next.C:
			intact := false
			if !failed {
				var err error
				if intact, err = a.Intact(); err != nil {
					log.Warn("VIPs not checked", "err", err)
					intact = true // look again later
				}
			}
			wait := check
			if !intact {
				wait = apply()
				failed = wait == retry
			}
			next.Reset(wait)
		}
	}
}

type (
	vip struct {
		VIP      string    `json:"vip"`
		Protocol string    `json:"protocol"`
		Backend  []backend `json:"backend"`
	}
	backend struct {
		IP   string `json:"ip"`
		Port uint16 `json:"port"`
	}
)

// Handler serves the list of VIPs as dcos-net does under /v1/vips.
func Handler(f source, o func() ruleset.Options) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/vips", func(w http.ResponseWriter, _ *http.Request) {
		out := []vip{}
		for _, v := range ruleset.Plan(f.View(), o()).VIPs {
			name := v.Name
			if name == "" {
				name = v.Addr.String()
			}
			entry := vip{VIP: name + ":" + strconv.Itoa(int(v.Port)), Protocol: string(v.Protocol), Backend: []backend{}}
			for _, b := range v.Backends {
				entry.Backend = append(entry.Backend, backend{b.Addr().String(), b.Port()})
			}
			out = append(out, entry)
		}
		b, err := json.Marshal(out)
		if err != nil { // the types above always marshal
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(append(b, '\n'))
	})
	return mux
}
