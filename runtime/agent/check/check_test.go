package check_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	mesos "dcos.example/dcos/runtime/api/mesos"

	"dcos.example/dcos/runtime/agent/check"
	"dcos.example/dcos/runtime/fault"
)

type probe func(ctx context.Context, h *mesos.HealthCheck) error

func (p probe) Probe(ctx context.Context, h *mesos.HealthCheck) error { return p(ctx, h) }

func tcp(delay, interval, timeout, grace float64, failures uint32) *mesos.HealthCheck {
	return &mesos.HealthCheck{
		Type: mesos.HealthCheck_TCP.Enum(), Tcp: &mesos.HealthCheck_TCPCheckInfo{Port: proto.Uint32(1)},
		DelaySeconds: &delay, IntervalSeconds: &interval, TimeoutSeconds: &timeout, GracePeriodSeconds: &grace, ConsecutiveFailures: &failures,
	}
}

var errSick = errors.New("sick")

// watch runs checks in virtual time for a while; p is asked with the time
// since the start. It returns the reports, "seconds healthy|unhealthy [kill]".
func watch(t *testing.T, checks []*mesos.HealthCheck, healthy *bool, p func(h *mesos.HealthCheck, since time.Duration) error, d time.Duration) (out []string) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		ask := probe(func(ctx context.Context, h *mesos.HealthCheck) error { return p(h, time.Since(start)) })
		check.Run(ctx, checks, ask, start, healthy, func(r check.Report) {
			s := fmt.Sprintf("%g %t", time.Since(start).Seconds(), r.Healthy)
			if r.Kill {
				s += " kill"
			}
			out = append(out, s)
		})
	})
	return out
}

func TestReports(t *testing.T) {
	yes := true
	after := func(s float64) func(*mesos.HealthCheck, time.Duration) error {
		return func(_ *mesos.HealthCheck, since time.Duration) error {
			if since.Seconds() < s {
				return errSick
			}
			return nil
		}
	}
	until := func(s float64) func(*mesos.HealthCheck, time.Duration) error {
		return func(_ *mesos.HealthCheck, since time.Duration) error {
			if since.Seconds() >= s {
				return errSick
			}
			return nil
		}
	}
	for _, c := range []struct {
		name    string
		check   *mesos.HealthCheck
		healthy *bool
		probe   func(*mesos.HealthCheck, time.Duration) error
		want    []string
	}{
		{"healthy at once is said once", tcp(0, 10, 1, 10, 3), nil, after(0), []string{"0 true"}},
		{"the delay is kept", tcp(5, 10, 1, 10, 3), nil, after(0), []string{"5 true"}},
		{"the first probes come fast", tcp(0, 10, 1, 10, 3), nil, after(0.2), []string{"0.25 true"}},
		{"failures within grace say nothing", tcp(0, 10, 1, 20, 3), nil, after(15), []string{"15.105859 true"}},
		{"failures after grace count by the interval", tcp(0, 10, 1, 0, 3), nil, after(1000), []string{"0 false", "10.105859 false", "20.211718 false kill"}},
		{"a change for the worse kills", tcp(0, 10, 1, 10, 2), nil, until(15), []string{"0 true", "20 false", "30 false kill"}},
		{"zero failures kill at the first, as in Mesos", tcp(0, 10, 1, 10, 0), nil, until(15), []string{"0 true", "20 false kill"}},
		{"so many failures never kill", tcp(0, 10, 1, 10, math.MaxUint32), nil, until(15), []string{"0 true", "20 false", "30 false", "40 false", "50 false"}},
		{"what was reported before is not news", tcp(0, 10, 1, 10, 3), &yes, after(0), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := watch(t, []*mesos.HealthCheck{c.check}, c.healthy, c.probe, 55*time.Second)
			if diff := cmp.Diff(c.want, got, cmp.Comparer(near)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// near compares reports whose times differ by less than half a second, which
// is how long the fast probes are apart.
func near(a, b string) bool {
	x, restA, _ := strings.Cut(a, " ")
	y, restB, _ := strings.Cut(b, " ")
	m, err1 := strconv.ParseFloat(x, 64)
	n, err2 := strconv.ParseFloat(y, 64)
	return err1 == nil && err2 == nil && restA == restB && m-n < 0.5 && n-m < 0.5
}

func TestSeveral(t *testing.T) {
	one, two := tcp(0, 10, 1, 100, 3), tcp(0, 10, 1, 100, 3)
	got := watch(t, []*mesos.HealthCheck{one, two}, nil, func(h *mesos.HealthCheck, since time.Duration) error {
		s := since.Seconds()
		if h == one && s < 5 || h == two && s > 12 && s < 32 {
			return errSick
		}
		return nil
	}, 55*time.Second)
	// healthy when both are, sick when one is, healthy again when both are
	if diff := cmp.Diff([]string{"5.2 true", "20 false", "30 false", "40 true"}, got, cmp.Comparer(near)); diff != "" {
		t.Error(diff)
	}
}

func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 12*time.Second)
		defer cancel()
		var reports []check.Report
		hang := probe(func(ctx context.Context, _ *mesos.HealthCheck) error { <-ctx.Done(); return ctx.Err() })
		check.Run(ctx, []*mesos.HealthCheck{tcp(0, 5, 2, 0, 3)}, hang, time.Now(), nil, func(r check.Report) { reports = append(reports, r) })
		if len(reports) != 2 || !strings.Contains(reports[0].Message, "no answer within 2s") {
			t.Errorf("reports %+v", reports)
		}
	})
}

func TestProber(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if code, err := strconv.Atoi(r.URL.Path[1:]); err == nil {
			w.WriteHeader(code)
		}
	}))
	defer srv.Close()
	_, text, err := net.SplitHostPort(srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	port := uint32(n)
	closed, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free := uint32(closed.Addr().(*net.TCPAddr).Port)
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	p := &check.Prober{
		Dial: (&net.Dialer{}).DialContext,
		Exec: func(_ context.Context, c *mesos.CommandInfo) (int, error) { return strconv.Atoi(c.GetValue()) },
	}
	web := func(path string, statuses ...uint32) *mesos.HealthCheck {
		return &mesos.HealthCheck{Http: &mesos.HealthCheck_HTTPCheckInfo{Port: &port, Path: &path, Statuses: statuses}}
	}
	cmd := func(v string) *mesos.HealthCheck { return &mesos.HealthCheck{Command: &mesos.CommandInfo{Value: &v}} }
	dial := func(port uint32) *mesos.HealthCheck {
		return &mesos.HealthCheck{Tcp: &mesos.HealthCheck_TCPCheckInfo{Port: &port}}
	}
	for _, c := range []struct {
		check *mesos.HealthCheck
		want  string // of the error; "" is a pass
	}{
		{web("/200"), ""}, {web("302"), ""}, {web("/404"), "GET /404 answered 404"}, {web("/500"), "answered 500"},
		{web("/404", 404), ""}, {web("/200", 204), "not one of [204]"},
		{dial(port), ""}, {dial(free), "refused"}, {cmd("0"), ""}, {cmd("3"), "exited with status 3"},
		{&mesos.HealthCheck{}, "no type"},
	} {
		err := p.Probe(t.Context(), c.check)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%v: %v, want %q", c.check, err, c.want)
		}
	}
}

func TestValidate(t *testing.T) {
	err := check.Validate([]*mesos.HealthCheck{
		tcp(0, 1, 1, 1, 1), {}, {Type: mesos.HealthCheck_HTTP.Enum()}, {Type: mesos.HealthCheck_TCP.Enum()}, {Type: mesos.HealthCheck_COMMAND.Enum()},
		{Http: &mesos.HealthCheck_HTTPCheckInfo{Port: proto.Uint32(1), Scheme: proto.String("ftp")}},
	})
	if !fault.Is(err, fault.Invalid) || strings.Count(err.Error(), "health check ") != 5 {
		t.Errorf("%v; want five problems", err)
	}
}
