package balancer_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/master"
	"dcos.example/dcos/runtime/balancer"
	"dcos.example/dcos/runtime/balancer/ruleset"
	"dcos.example/dcos/runtime/feed"
)

func view(vips ...string) *feed.View {
	s := &master.Response_GetState{
		GetAgents: &master.Response_GetAgents{Agents: []*master.Response_GetAgents_Agent{{
			AgentInfo: &mesos.AgentInfo{Id: &mesos.AgentID{Value: proto.String("S0")}, Hostname: proto.String("10.0.0.11")},
		}}},
		GetFrameworks: &master.Response_GetFrameworks{Frameworks: []*master.Response_GetFrameworks_Framework{{
			FrameworkInfo: &mesos.FrameworkInfo{Name: proto.String("marathon"), Id: &mesos.FrameworkID{Value: proto.String("f")}},
		}}},
		GetTasks: &master.Response_GetTasks{},
	}
	for _, v := range vips {
		s.GetTasks.Tasks = append(s.GetTasks.Tasks, &mesos.Task{
			TaskId: &mesos.TaskID{Value: proto.String(v)}, FrameworkId: &mesos.FrameworkID{Value: proto.String("f")},
			AgentId: &mesos.AgentID{Value: proto.String("S0")}, State: mesos.TaskState_TASK_RUNNING.Enum(),
			Discovery: &mesos.DiscoveryInfo{Ports: &mesos.Ports{Ports: []*mesos.Port{{
				Number: proto.Uint32(31000), Labels: &mesos.Labels{Labels: []*mesos.Label{{Key: proto.String("VIP_0"), Value: proto.String(v)}}},
			}}}},
		})
	}
	return feed.Of("https://10.0.0.1:5050", s)
}

func options() ruleset.Options { return ruleset.Options{Range: netip.MustParsePrefix("11.0.0.0/8")} }

// kernel stands for the applier: it remembers what it has, and can lose it or
// refuse.
type kernel struct {
	sync.Mutex
	has     int
	applies int
	broken  bool
	lost    bool
}

func (k *kernel) Apply(r ruleset.Rules) error {
	k.Lock()
	defer k.Unlock()
	k.applies++
	if k.broken {
		return errors.New("refused")
	}
	k.has, k.lost = len(r.VIPs), false
	return nil
}

func (k *kernel) Intact() (bool, error) {
	k.Lock()
	defer k.Unlock()
	return !k.lost, nil
}

func (k *kernel) Close() error { return nil }

func (k *kernel) set(lost, broken bool) {
	k.Lock()
	defer k.Unlock()
	k.lost, k.broken = lost, broken
}

func TestLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		views, k, done := make(chan *feed.View), &kernel{}, make(chan struct{})
		go func() {
			defer close(done)
			balancer.Loop(ctx, views, k, options, slog.New(slog.DiscardHandler))
		}()
		expect := func(what string, has, applies int) {
			t.Helper()
			synctest.Wait()
			k.Lock()
			defer k.Unlock()
			if k.has != has || k.applies != applies {
				t.Errorf("%s: %d VIPs after %d applies, want %d after %d", what, k.has, k.applies, has, applies)
			}
		}
		time.Sleep(time.Minute)
		expect("before the first view", 0, 0)
		views <- view("/a:80")
		expect("one VIP", 1, 1)
		time.Sleep(time.Minute)
		expect("nothing changes", 1, 1)
		k.set(true, false)
		time.Sleep(11 * time.Second)
		expect("rules were flushed", 1, 2)
		k.set(false, true)
		views <- view("/a:80", "/b:80")
		expect("refused", 1, 3)
		k.set(false, false)
		time.Sleep(1100 * time.Millisecond)
		expect("tried again", 2, 4)
		cancel()
		<-done
	})
}

func TestVIPList(t *testing.T) {
	w := httptest.NewRecorder()
	balancer.Handler(static{view("/a:80", "198.51.100.7:53")}, options).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1/vips", nil))
	want := `[{"vip":"a.marathon.l4lb.thisdcos.directory:80","protocol":"tcp","backend":[{"ip":"10.0.0.11","port":31000}]},` +
		`{"vip":"198.51.100.7:53","protocol":"tcp","backend":[{"ip":"10.0.0.11","port":31000}]}]`
	if got := strings.TrimSpace(w.Body.String()); got != want {
		t.Errorf("got %s", got)
	}
}

type static struct{ v *feed.View }

func (s static) View() *feed.View { return s.v }
