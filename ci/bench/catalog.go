package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"dcos.example/dcos/runtime/api/cosmos"
	"dcos.example/dcos/runtime/catalog"
	"dcos.example/dcos/runtime/state"
	"dcos.example/dcos/runtime/state/memory"
)

// The catalog runs as a process of its own, without a cluster around it; asked
// are search, describe and render, which need none. Its floors are
//
//   - for an answer: a server that has the bytes of the same answer ready, asked
//     by the same client, and what decoding them as plain JSON takes on top;
//   - for memory: the same process with the repository decoded as plain JSON.
//
// This program is its own helper: it starts itself under these names.
const (
	catalogServer = "catalog-server"
	floorAnswers  = "floor-answers"
	floorDecoded  = "floor-decoded"
)

// question is one request.
type question struct {
	call cosmos.Call
	body string
}

func benchCatalog(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("catalog", flag.ContinueOnError)
	universe := f.String("universe", "runtime/catalog/testdata/universe-up-to-1.8.json.gz", "a repository, compressed")
	runs := f.Int("runs", 5, "runs of everything that has a median")
	n := f.Int("n", 2000, "requests of each kind in a run")
	if err := f.Parse(args); err != nil {
		return err
	}
	machine()
	path, err := filepath.Abs(*universe)
	if err != nil {
		return err
	}
	if err := catalogSizes(ctx, path, *runs); err != nil {
		return err
	}
	server, err := startAnswerer(ctx, catalogServer, path)
	if err != nil {
		return err
	}
	defer server.stop()
	kinds, err := questions(ctx, server)
	if err != nil {
		return err
	}
	for _, kind := range []string{"search", "describe", "render"} {
		if err := answerTimes(ctx, server, kind, kinds[kind], *runs, *n); err != nil {
			return err
		}
	}
	after, err := rss(server.cmd.Process.Pid)
	if err != nil {
		return err
	}
	fmt.Printf("# the catalog's process after all that: %s MiB\n", number(after))
	load("end")
	return nil
}

// catalogSizes measures what a catalog, and the same as plain JSON, add to a
// process that has neither.
func catalogSizes(ctx context.Context, universe string, runs int) error {
	twice, err := os.CreateTemp("", "universe-*.json.gz")
	if err != nil {
		return err
	}
	defer os.Remove(twice.Name())
	if err := repeat(universe, twice, 1235); err != nil {
		return err
	}
	size := func(helper, path string) (idle, busy float64, err error) {
		h, err := startAnswerer(ctx, helper, path)
		if err != nil {
			return 0, 0, err
		}
		defer h.stop()
		if idle, err = rss(h.cmd.Process.Pid); err != nil || helper != catalogServer || path == "" {
			return idle, idle, err
		}
		kinds, err := questions(ctx, h)
		if err != nil {
			return 0, 0, err
		}
		for _, q := range kinds["describe"] { // the others were asked to find what to ask
			if _, _, err := h.ask(ctx, q); err != nil {
				return 0, 0, err
			}
		}
		busy, err = rss(h.cmd.Process.Pid)
		return idle, busy, err
	}
	mib, peer := series{name: "catalog_mib", unit: "MiB"}, series{name: "catalog_mib.peer", unit: "MiB"}
	var resting, more, moreResting series
	for range runs {
		bare, _, err := size(catalogServer, "")
		if err != nil {
			return err
		}
		for _, one := range []struct {
			busy, idle   *series
			helper, path string
		}{{&mib, &resting, catalogServer, universe}, {&peer, &series{}, floorDecoded, universe}, {&more, &moreResting, catalogServer, twice.Name()}} {
			idle, busy, err := size(one.helper, one.path)
			if err != nil {
				return err
			}
			one.idle.add(idle - bare)
			one.busy.add(busy - bare)
		}
	}
	mib.print()
	peer.print()
	fmt.Printf("# catalog_mib is after everything was asked once; just loaded: %s MiB\n", number(median(resting.values)))
	fmt.Printf("# with 1235 revisions, made by repeating: %s MiB, just loaded %s MiB\n", number(median(more.values)), number(median(moreResting.values)))
	return nil
}

// repeat writes a repository with so many revisions, by giving packages other
// names.
func repeat(universe string, to io.WriteCloser, want int) error {
	packages, err := readUniverse(universe)
	if err != nil {
		return err
	}
	var all []map[string]any
	for i := 0; len(all) < want; i++ {
		p := map[string]any{}
		for k, v := range packages[i%len(packages)] {
			p[k] = v
		}
		if round := i / len(packages); round > 0 {
			p["name"] = fmt.Sprintf("%s-%d", p["name"], round)
		}
		all = append(all, p)
	}
	z := gzip.NewWriter(to)
	if err := json.NewEncoder(z).Encode(map[string]any{"packages": all}); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return to.Close()
}

func readUniverse(path string) ([]map[string]any, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	var all struct {
		Packages []map[string]any `json:"packages"`
	}
	return all.Packages, json.NewDecoder(z).Decode(&all)
}

// questions are all that can be asked: every name and some words, every version,
// every version that renders with what it has by itself.
func questions(ctx context.Context, h *answerer) (map[string][]question, error) {
	kinds := map[string][]question{"search": {{cosmos.Search, `{}`}, {cosmos.Search, `{"query":"data"}`}, {cosmos.Search, `{"query":"*a*"}`}}}
	text, status, err := h.ask(ctx, kinds["search"][0])
	if err != nil || status != http.StatusOK {
		return nil, fmt.Errorf("search: status %d, %w", status, err)
	}
	var found cosmos.SearchResponse
	if err := json.Unmarshal(text, &found); err != nil {
		return nil, err
	}
	for _, p := range found.Packages {
		kinds["search"] = append(kinds["search"], question{cosmos.Search, `{}`}, question{cosmos.Search, fmt.Sprintf(`{"query":%q}`, p.Name)})
		for v := range p.Versions {
			body := fmt.Sprintf(`{"packageName":%q,"packageVersion":%q}`, p.Name, v)
			kinds["describe"] = append(kinds["describe"], question{cosmos.Describe, body})
			q := question{cosmos.Render, body}
			if _, status, err := h.ask(ctx, q); err != nil {
				return nil, err
			} else if status == http.StatusOK {
				kinds["render"] = append(kinds["render"], q)
			}
		}
	}
	return kinds, nil
}

// answerTimes asks one question after the other and prints the time within which 99 of
// 100 were answered, beside the floor's.
func answerTimes(ctx context.Context, h *answerer, kind string, all []question, runs, n int) error {
	ready, err := startAnswerer(ctx, floorAnswers, h.url)
	if err != nil {
		return err
	}
	defer ready.stop()
	for _, q := range all { // both have seen each question
		for _, one := range []*answerer{h, ready} {
			if _, _, err := one.ask(ctx, q); err != nil {
				return err
			}
		}
	}
	name := "catalog_" + kind + "_p99_ms"
	ours, peer := series{name: name, unit: "ms"}, series{name: name + ".peer", unit: "ms"}
	var half, decoded []float64
	for run := range runs {
		var took, floor []time.Duration
		for i := range n {
			q := all[(i*7919+run)%len(all)]
			begin := time.Now()
			if _, status, err := h.ask(ctx, q); err != nil || status != http.StatusOK {
				return fmt.Errorf("%s %s: status %d, %w", kind, q.body, status, err)
			}
			took = append(took, time.Since(begin))
			begin = time.Now()
			text, _, err := ready.ask(ctx, q)
			if err != nil {
				return err
			}
			floor = append(floor, time.Since(begin))
			begin = time.Now()
			var v any
			if err := json.Unmarshal(text, &v); err != nil {
				return err
			}
			decoded = append(decoded, float64(time.Since(begin).Microseconds())/1000)
		}
		ours.millis(percentile(took, 99))
		peer.millis(percentile(floor, 99))
		half = append(half, float64(percentile(took, 50).Microseconds())/1000)
	}
	ours.print()
	peer.print()
	slices.Sort(decoded)
	fmt.Printf("# %s: half of them within %s ms; to decode an answer as plain JSON takes up to %s ms in 99 of 100; %d questions\n",
		name, number(median(half)), number(decoded[len(decoded)*99/100]), len(all))
	return nil
}

// percentile returns the time within which so many of 100 lie.
func percentile(times []time.Duration, of int) time.Duration {
	slices.Sort(times)
	return times[min(len(times)*of/100, len(times)-1)]
}

// answerer is this program as another process, which answers.
type answerer struct {
	cmd   *exec.Cmd
	stdin io.Closer
	url   string
}

func startAnswerer(ctx context.Context, name, arg string) (*answerer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	h := &answerer{cmd: exec.CommandContext(ctx, self, name, arg)}
	h.cmd.Stderr = os.Stderr
	in, err := h.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := h.cmd.Start(); err != nil {
		return nil, err
	}
	h.stdin = in
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		h.stop()
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	h.url = strings.TrimSpace(line)
	return h, nil
}

// stop ends the helper, which lives as long as its input.
func (h *answerer) stop() {
	_ = h.stdin.Close()
	_ = h.cmd.Wait() // it was asked to end
}

func (h *answerer) ask(ctx context.Context, q question) ([]byte, int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url+q.call.Path, strings.NewReader(q.body))
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("Content-Type", q.call.Request)
	req.Header.Set("Accept", q.call.Accept[0])
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return text, resp.StatusCode, err
}

// serveUntil tells the parent where h is and serves until it lets go.
func serveUntil(ctx context.Context, h http.Handler) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	// Loading left garbage; an idle process gives it back, sooner or later.
	debug.FreeOSMemory()
	fmt.Println("http://" + l.Addr().String())
	_, err = io.Copy(io.Discard, os.Stdin)
	_ = s.Close() // nobody asks any more
	<-ended
	return err
}

// runCatalogServer serves a catalog with one repository, or none.
func runCatalogServer(ctx context.Context, args []string) error {
	dir, err := os.MkdirTemp("", "dcos-bench-catalog-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	store := memory.New()
	list := []cosmos.Repository{}
	if args[0] != "" {
		list = append(list, cosmos.Repository{Name: "Universe", URI: "file:" + args[0]})
	}
	table := state.NewTable[[]cosmos.Repository](store, "package-repositories")
	if _, err := table.Write(ctx, state.Object[[]cosmos.Repository]{ID: "list", Spec: list}); err != nil {
		return err
	}
	nobody := catalog.Endpoint{URL: "http://127.0.0.1:1", Client: http.DefaultClient}
	c, err := catalog.New(catalog.Options{
		Store: store, Dir: dir, Release: "bench", Orchestrator: nobody, Master: nobody, Services: nobody,
		HasImage: func(context.Context, string) (bool, error) { return true, nil },
		Log:      slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	for !ready(c.Handler()) {
		time.Sleep(10 * time.Millisecond)
	}
	err = serveUntil(ctx, c.Handler())
	cancel()
	<-ended
	return err
}

// ready reports whether a catalog answers.
func ready(h http.Handler) bool {
	w := &held{header: http.Header{}, status: http.StatusOK}
	r, err := http.NewRequest(http.MethodPost, cosmos.Search.Path, strings.NewReader(`{}`))
	if err != nil {
		return false
	}
	r.Header.Set("Content-Type", cosmos.Search.Request)
	r.Header.Set("Accept", cosmos.Search.Accept[0])
	h.ServeHTTP(w, r)
	return w.status == http.StatusOK
}

// held is an answer in memory.
type held struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (h *held) Header() http.Header         { return h.header }
func (h *held) WriteHeader(status int)      { h.status = status }
func (h *held) Write(b []byte) (int, error) { return h.body.Write(b) }

// runFloorAnswers answers each question with what the catalog at an address
// said to it the first time.
func runFloorAnswers(ctx context.Context, args []string) error {
	type answer struct {
		kind string
		body []byte
	}
	said := map[string]answer{} // one question at a time is asked
	return serveUntil(ctx, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		question, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		key := r.URL.Path + " " + string(question)
		a, ok := said[key]
		if !ok {
			req, err := http.NewRequestWithContext(r.Context(), r.Method, args[0]+r.URL.Path, bytes.NewReader(question))
			if err != nil {
				return
			}
			req.Header = r.Header
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				return
			}
			defer resp.Body.Close()
			a.kind = resp.Header.Get("Content-Type")
			if a.body, err = io.ReadAll(resp.Body); err != nil {
				return
			}
			said[key] = a
		}
		w.Header().Set("Content-Type", a.kind)
		_, _ = w.Write(a.body) // whoever asked is there, or it does not matter
	}))
}

// runFloorDecoded keeps a repository as plain JSON.
func runFloorDecoded(ctx context.Context, args []string) error {
	packages, err := readUniverse(args[0])
	if err != nil {
		return err
	}
	return serveUntil(ctx, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, len(packages)) }))
}
