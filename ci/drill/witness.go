package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// witness watches the cluster during one drill.
type witness struct {
	f     *field
	stop  context.CancelFunc
	group sync.WaitGroup

	mu sync.Mutex
	// Instances, asked one by one on the ports that the cluster last told.
	tasks   map[string]string // URL by task
	samples int
	fewest  int
	// The ledger: small apps, whose names are what was written.
	acked    []string
	lastAck  time.Time
	writeGap time.Duration
	tries    int
	// Requests through the VIP, from a host, by clients that never try twice.
	asked, unanswered int
	outage            time.Duration
	firstMiss         time.Time

	before map[string]string // host by task
}

const (
	sampleEvery = 250 * time.Millisecond
	writeEvery  = 200 * time.Millisecond
	ledger      = "/ledger"
	// twice is how often in a row fewer instances must answer to count: a sample
	// that was taken with an old list of tasks says little.
	twice = 2
)

// watch begins. from is the host whose requests through the VIP count, "" for
// none.
func (f *field) watch(ctx context.Context, from string) (*witness, error) {
	a, err := f.app(ctx)
	if err != nil {
		return nil, err
	}
	w := &witness{f: f, fewest: instances, tasks: map[string]string{}, before: map[string]string{}, lastAck: time.Now()}
	for _, t := range a.Tasks {
		w.before[t.ID] = t.Host
	}
	ctx, w.stop = context.WithCancel(ctx)
	w.learn(a)
	w.group.Go(func() { w.list(ctx) })
	w.group.Go(func() { w.sample(ctx) })
	w.group.Go(func() { w.write(ctx) })
	if from != "" {
		w.group.Go(func() { w.ask(ctx, from) })
	}
	return w, nil
}

func (w *witness) learn(a app) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := map[string]string{}
	for _, t := range a.Tasks {
		if len(t.Ports) > 0 && t.State == "TASK_RUNNING" {
			now[t.ID] = fmt.Sprintf("http://%s:%d/health", t.Host, t.Ports[0])
		}
	}
	// Those that the list no longer has may still run: during a fail-over it
	// is shorter than the truth.
	for id, url := range w.tasks {
		if now[id] == "" && len(now) < instances {
			now[id] = url
		}
	}
	w.tasks = now
}

// list keeps the addresses of instances up to date.
func (w *witness) list(ctx context.Context) {
	every(ctx, sampleEvery, func() {
		one, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		if a, err := w.f.app(one); err == nil {
			w.learn(a)
		}
	})
}

// sample counts the instances that answer.
func (w *witness) sample(ctx context.Context) {
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	few, lowest := 0, instances
	every(ctx, sampleEvery, func() {
		w.mu.Lock()
		var urls []string
		for _, u := range w.tasks {
			urls = append(urls, u)
		}
		w.mu.Unlock()
		up := make([]bool, len(urls))
		var g sync.WaitGroup
		for i, u := range urls {
			g.Go(func() { up[i] = answers(ctx, client, u) })
		}
		g.Wait()
		if ctx.Err() != nil {
			return
		}
		n := 0
		for _, ok := range up {
			if ok {
				n++
			}
		}
		n = min(n, instances)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.samples++
		if n >= w.fewest {
			few, lowest = 0, instances
			return
		}
		few, lowest = few+1, max(n, min(lowest, n))
		if few >= twice {
			w.fewest, few = lowest, 0
		}
	})
}

// write adds to the ledger, one entry after the other.
func (w *witness) write(ctx context.Context) {
	every(ctx, writeEvery, func() {
		w.mu.Lock()
		w.tries++
		id := fmt.Sprintf("%s/n%d", ledger, w.tries)
		w.mu.Unlock()
		one, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		err := w.f.api.JSON(one, http.MethodPost, "/service/marathon/v2/apps",
			map[string]any{"id": id, "cmd": "true", "instances": 0, "cpus": 0.01, "mem": 1}, nil)
		if err != nil {
			return
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		now := time.Now()
		w.writeGap = max(w.writeGap, now.Sub(w.lastAck))
		w.lastAck = now
		w.acked = append(w.acked, id)
	})
}

// asking asks the VIP ten times a second and says a dot or an x for each.
const asking = `export LC_ALL=C; while :; do
  if timeout 2 bash -c 'exec 3<>/dev/tcp/web.marathon.l4lb.thisdcos.directory/80 && printf "GET / HTTP/1.0\r\n\r\n" >&3 && read -r l <&3 && [[ $l == *200* ]]' 2>/dev/null; then printf .; else printf x; fi
  sleep 0.1
done`

// ask counts requests from a host; while the host itself is away there are none.
func (w *witness) ask(ctx context.Context, from string) {
	for ctx.Err() == nil {
		// The stream ends with the host, or with ctx.
		_ = w.f.stream(ctx, from, asking, func(b byte) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.asked++
			if b == '.' {
				w.firstMiss = time.Time{}
				return
			}
			w.unanswered++
			if w.firstMiss.IsZero() {
				w.firstMiss = time.Now()
			}
			w.outage = max(w.outage, time.Since(w.firstMiss)+100*time.Millisecond)
		})
		select {
		case <-ctx.Done():
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// seen is what a witness saw.
type seen struct {
	samples, fewest   int
	writes, lost      int
	writeGap, outage  time.Duration
	asked, unanswered int
	tasks, restarted  int
}

// end stops watching, waits for a healthy cluster and counts. Tasks on the
// given hosts may have been restarted.
func (w *witness) end(ctx context.Context, touched []string) (seen, error) {
	w.stop()
	w.group.Wait()
	s := seen{samples: w.samples, fewest: w.fewest, writes: len(w.acked), asked: w.asked, unanswered: w.unanswered,
		writeGap: w.writeGap, outage: w.outage, tasks: len(w.before)}
	if err := w.f.healthy(ctx); err != nil {
		return s, err
	}
	var group struct {
		Apps []struct{ ID string }
	}
	if err := w.f.until(ctx, time.Minute, "read the ledger", func(ctx context.Context) error {
		return w.f.api.JSON(ctx, http.MethodGet, "/service/marathon/v2/groups/"+ledger+"?embed=group.apps", nil, &group)
	}); err != nil && len(w.acked) > 0 {
		return s, err
	}
	have := map[string]bool{}
	for _, a := range group.Apps {
		have[a.ID] = true
	}
	for _, id := range w.acked {
		if !have[id] {
			s.lost++
		}
	}
	a, err := w.f.app(ctx)
	if err != nil {
		return s, err
	}
	now := map[string]bool{}
	for _, t := range a.Tasks {
		now[t.ID] = true
	}
	var addresses []string
	for _, h := range touched {
		addresses = append(addresses, w.f.address(h).String())
	}
	for id, host := range w.before {
		if !now[id] && !slices.Contains(addresses, host) {
			s.restarted++
		}
	}
	return s, w.f.clear(ctx)
}

// clear removes the ledger.
func (f *field) clear(ctx context.Context) error {
	return f.until(ctx, time.Minute, "clear the ledger", func(ctx context.Context) error {
		err := f.api.JSON(ctx, http.MethodDelete, "/service/marathon/v2/groups/"+ledger+"?force=true", nil, nil)
		if err != nil && strings.Contains(err.Error(), "status 404") {
			return nil
		}
		return err
	})
}

// every calls f at once and then at most once in each d, until ctx ends.
func every(ctx context.Context, d time.Duration, f func()) {
	t := time.NewTicker(d)
	defer t.Stop()
	for ctx.Err() == nil {
		f()
		select {
		case <-ctx.Done():
		case <-t.C:
		}
	}
}
