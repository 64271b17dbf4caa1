package httpapi_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/membership"
	"dcos.example/dcos/runtime/membership/httpapi"
)

// seat is a master's place in the way that a test wants it.
type seat struct {
	view      membership.View
	leader    config.Member
	recovered bool
}

func (s *seat) View(context.Context) membership.View { return s.view }
func (s *seat) Leader() (config.Member, bool, bool) {
	return s.leader, s.leader.Addr == self, s.leader.Name != ""
}
func (s *seat) Recover(context.Context, membership.RecoverRequest) error {
	s.recovered = true
	return nil
}

var self, other = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")

type world struct {
	seat   *seat
	source *membership.Source
	api    *httpapi.Server
	passed []string // requests that were passed to the other master
}

func newWorld(t *testing.T) *world {
	dir := t.TempDir()
	seed := filepath.Join(dir, "seed.json")
	if err := os.WriteFile(seed, []byte(`{"masters":[{"name":"m1","addr":"10.0.0.1"}],"founders":["m1"]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	w := &world{seat: &seat{view: membership.View{Name: "m1", ID: "1", Majority: true, Reason: "it waits for m2"}}}
	var err error
	w.source, err = membership.NewSource(membership.SourceConfig{Cluster: "c", Seed: seed, Saved: filepath.Join(dir, "saved.json"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	remote := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		w.passed = append(w.passed, r.URL.Path+" "+string(b))
		if r.URL.Path == membership.PathView {
			membership.Reply(rw, membership.View{Name: "m2", ID: "2", Stage: membership.Starting}, nil)
			return
		}
		membership.Reply(rw, membership.List{Cluster: "c", Generation: 1, Revision: 9}, nil)
	}))
	t.Cleanup(remote.Close)
	w.api = httpapi.New(httpapi.Config{
		Self: self, Seat: w.seat, Source: w.source, Log: slog.New(slog.DiscardHandler),
		Client: membership.Client{HTTP: remote.Client(), Base: func(netip.Addr) string { return remote.URL }},
	})
	return w
}

func (w *world) learn() {
	w.source.Learn(membership.List{Cluster: "c", Generation: 1, Revision: 5, Members: []membership.Member{
		{Name: "m1", Addr: self, ID: "1", Role: membership.Voter}, {Name: "m2", Addr: other, ID: "2", Role: membership.Voter},
	}})
}

func ask(h http.Handler, method, path, body string) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest(method, path, strings.NewReader(body)))
	return rec
}

// Who may ask what: agents read, masters ask each other, the operator on the
// host also for a recovery, users only by the gateway.
func TestWhoMayAsk(t *testing.T) {
	w := newWorld(t)
	w.learn()
	for path, wants := range map[string][4]int{ // agents, masters, host, gateway
		"GET /membership":            {200, 200, 200, 404},
		"GET /membership/list":       {200, 200, 200, 404},
		"GET /membership/view":       {404, 200, 200, 404},
		"POST /membership/join":      {404, 400, 400, 404},
		"POST /membership/leave":     {404, 400, 400, 404},
		"POST /membership/recover":   {404, 404, 400, 404},
		"GET /members":               {404, 404, 404, 200},
		"DELETE /members/m2?force=x": {404, 404, 404, 400},
	} {
		method, target, _ := strings.Cut(path, " ")
		for i, h := range []http.Handler{w.api.Readers(), w.api.Masters(), w.api.Local(), w.api.Gateway()} {
			if rec := ask(h, method, target, "no JSON"); rec.Code != wants[i] {
				t.Errorf("%s by %d: %d %s", path, i, rec.Code, rec.Body)
			}
		}
	}
	if w.seat.recovered {
		t.Error("a request that cannot be read recovers")
	}
	if ask(w.api.Local(), "POST", membership.PathRecover, `{"force":true}`); !w.seat.recovered {
		t.Error("not recovered")
	}
}

func TestStatus(t *testing.T) {
	w := newWorld(t)
	if rec := ask(w.api.Readers(), "GET", membership.PathStatus, ""); rec.Code != 503 || !strings.Contains(rec.Body.String(), "it waits for m2") {
		t.Errorf("before anything is known: %d %s", rec.Code, rec.Body)
	}
	w.learn()
	w.seat.leader = config.Member{Name: "m1", Addr: self}
	rec := ask(w.api.Gateway(), "GET", "/members", "")
	for _, want := range []string{`"leader":"m1"`, `"name":"m1","addr":"10.0.0.1","id":"1","role":"voter","healthy":true`, `"healthy":false`, "takes part in no majority; it is starting"} {
		if !strings.Contains(rec.Body.String(), want) {
			t.Errorf("no %s in %s", want, rec.Body)
		}
	}
}

// What changes the ensemble goes to who leads, once.
func TestPassedOn(t *testing.T) {
	w := newWorld(t)
	w.learn()
	w.seat.leader = config.Member{Name: "m2", Addr: other}
	if rec := ask(w.api.Masters(), "POST", membership.PathLeave, `{"name":"m3"}`); rec.Code != 200 {
		t.Fatal(rec.Code, rec.Body)
	}
	if rec := ask(w.api.Gateway(), "DELETE", "/members/m3?force=true", ""); rec.Code != 200 {
		t.Fatal(rec.Code, rec.Body)
	}
	w.seat.leader = config.Member{} // one that has no place itself asks any voter
	if rec := ask(w.api.Masters(), "POST", membership.PathJoin, `{"name":"m3","addr":"10.0.0.3"}`); rec.Code != 200 {
		t.Fatal(rec.Code, rec.Body)
	}
	want := []string{
		`/membership/leave {"name":"m3","passed":true}`, `/membership/leave {"name":"m3","force":true,"passed":true}`,
		`/membership/join {"name":"m3","addr":"10.0.0.3","passed":true}`,
	}
	if strings.Join(w.passed, "\n") != strings.Join(want, "\n") {
		t.Errorf("passed on:\n%s", strings.Join(w.passed, "\n"))
	}
	if rec := ask(w.api.Masters(), "POST", membership.PathLeave, `{"name":"m3","passed":true}`); rec.Code != 503 {
		t.Errorf("passed on twice: %d %s", rec.Code, rec.Body)
	}
}

// A question for news stays open until there is news.
func TestNewsComesAtOnce(t *testing.T) {
	w := newWorld(t)
	w.learn()
	srv := httptest.NewServer(w.api.Readers())
	defer srv.Close()
	c := membership.Client{HTTP: srv.Client(), Base: func(netip.Addr) string { return srv.URL }}
	have, err := c.List(t.Context(), self, membership.List{}, time.Hour)
	if err != nil || have.Revision != 5 {
		t.Fatal(have, err)
	}
	type answer struct {
		l   membership.List
		err error
	}
	got := make(chan answer)
	go func() {
		l, err := c.List(t.Context(), self, have, time.Hour)
		got <- answer{l, err}
	}()
	w.source.Learn(membership.List{Cluster: "c", Generation: 1, Revision: 6})
	if a := <-got; a.err != nil || a.l.Revision != 6 {
		t.Error(a)
	}
	if l, err := c.List(t.Context(), self, membership.List{Generation: 1, Revision: 6}, 0); err != nil || l.Revision != 6 {
		t.Errorf("without patience: %+v %v", l, err)
	}
	if rec := ask(w.api.Readers(), "GET", membership.PathList+"?revision=x", ""); rec.Code != 400 {
		t.Error(rec.Code)
	}
	if _, err := c.View(t.Context(), self); !fault.Is(err, fault.NotFound) {
		t.Errorf("an agent may not look: %v", err)
	}
}
