// Package httpapi serves the agent's HTTP API with the paths and shapes of
// Mesos agents: the read-only JSON endpoints, the files of sandboxes, and the
// v1 operator API with container sessions. It changes nothing by itself; what
// it shows and does is its Source's.
package httpapi

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	mesos "dcos.example/dcos/runtime/api/mesos"

	"dcos.example/dcos/runtime/agent/container"
	"dcos.example/dcos/runtime/agent/files"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/resource"
)

// View is the agent at one moment.
type View struct {
	Agent          *mesos.AgentInfo
	Version        string
	Endpoint       string // ip:port of this API
	MasterHost     string // of the leading master, "" while there is none
	Registered     bool
	Started        time.Time
	Uptime         time.Duration
	Resources      resource.Resources
	Operations     []*mesos.Operation // that frameworks have still to hear of
	Flags          map[string]string
	Tasks          []Task
	Terminal       map[string]int // finished tasks since the start, by state
	PendingUpdates int
}

// Task is one task of a View.
type Task struct {
	Info        *mesos.TaskInfo
	Framework   *mesos.FrameworkInfo
	Task        *mesos.Task
	ContainerID string
	Sandbox     string
	Running     bool
	Done        bool
	Status      *mesos.ContainerStatus
}

// Source is the agent behind the API.
type Source interface {
	View() View
	Usage(ctx context.Context, containerID string) (*mesos.ResourceStatistics, error)
	Exec(ctx context.Context, containerID string, c container.Command) (container.Process, error)
	Signal(ctx context.Context, containerID string, sig syscall.Signal) error
	// Ended returns the terminal status once the container's task has ended.
	Ended(ctx context.Context, containerID string) (*mesos.TaskStatus, error)
	Images(context.Context) ([]container.Image, error)
	RemoveImage(ctx context.Context, name string) error
	// PruneImages removes all images that nobody uses, except for keep.
	PruneImages(ctx context.Context, keep []string) error
}

type api struct {
	src      Source
	files    *files.Tree
	log      *slog.Logger
	sessions *sessions
}

// New returns the API's handler.
func New(src Source, tree *files.Tree, log *slog.Logger) http.Handler {
	a := &api{src: src, files: tree, log: log, sessions: newSessions(src)}
	mux := http.NewServeMux()
	mux.Handle("/files/", tree.Handler())
	actor := func(path string, h http.HandlerFunc) {
		mux.HandleFunc("GET "+path, h)
		mux.HandleFunc("GET /slave(1)"+path, h)
	}
	actor("/state", a.state)
	actor("/state.json", a.state)
	actor("/state-summary", a.summary)
	actor("/tasks", a.tasks)
	actor("/frameworks", a.frameworks)
	actor("/containers", a.containers)
	actor("/monitor/statistics", a.statistics)
	actor("/monitor/statistics.json", a.statistics)
	actor("/flags", a.flags)
	actor("/health", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	mux.HandleFunc("GET /images", a.images)
	mux.HandleFunc("DELETE /images", a.removeImage)
	mux.HandleFunc("GET /version", a.version)
	mux.HandleFunc("GET /metrics/snapshot", a.metrics)
	for _, p := range []string{"/api/v1", "/slave(1)/api/v1"} {
		mux.HandleFunc(p, a.operator)
		mux.HandleFunc(p+"/executor", a.executor)
	}
	return mux
}

// Views limits h to what anybody on the host may see, which includes tasks in
// the host's network: numbers and lists. Files of sandboxes, and the operator
// API, by which commands are run in any container, stay with those whom the
// cluster knows.
func Views(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reads := r.Method == http.MethodGet || r.Method == http.MethodHead
		if !reads || strings.HasPrefix(r.URL.Path, "/files/") {
			http.Error(w, "Loopback shows views only; the rest is behind the gateway, at /agent/<id>/, for users with a token.", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// executor answers the API that executors would use.
func (a *api) executor(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "This agent has no executor API: it runs commands and images itself.", http.StatusNotImplemented)
}

// statusOf is the one place where kinds become HTTP statuses.
func statusOf(err error) int {
	switch fault.KindOf(err) {
	case fault.Invalid:
		return http.StatusBadRequest
	case fault.NotFound:
		return http.StatusNotFound
	case fault.Exists, fault.Conflict:
		return http.StatusConflict
	case fault.Denied:
		return http.StatusForbidden
	case fault.Unavailable, fault.Exhausted:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

func fail(w http.ResponseWriter, err error) { http.Error(w, err.Error(), statusOf(err)) }

var callback = regexp.MustCompile(`^[A-Za-z_$][A-Za-z0-9_$.]*$`)

// reply writes a JSON document, or JavaScript for ?jsonp=.
func reply(w http.ResponseWriter, r *http.Request, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		fail(w, fault.New("encode reply", fault.Internal, err))
		return
	}
	kind := "application/json"
	if cb := r.URL.Query().Get("jsonp"); callback.MatchString(cb) {
		kind, b = "text/javascript", []byte(cb+"("+string(b)+");")
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	_, _ = w.Write(b) // the client went away: nothing to do
}

func (a *api) flags(w http.ResponseWriter, r *http.Request) {
	reply(w, r, map[string]any{"flags": a.src.View().Flags})
}

func (a *api) version(w http.ResponseWriter, r *http.Request) {
	reply(w, r, map[string]any{"version": a.src.View().Version})
}

// images lists the images of the host. Mesos has no such view, nor a way to
// remove one image.
func (a *api) images(w http.ResponseWriter, r *http.Request) {
	list, err := a.src.Images(r.Context())
	if err != nil {
		fail(w, err)
		return
	}
	reply(w, r, map[string]any{"images": list})
}

func (a *api) removeImage(w http.ResponseWriter, r *http.Request) {
	if err := a.src.RemoveImage(r.Context(), r.URL.Query().Get("name")); err != nil {
		fail(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (a *api) metrics(w http.ResponseWriter, r *http.Request) { reply(w, r, metrics(a.src.View())) }

// metrics are the snapshot's keys that a Mesos agent has as well.
func metrics(v View) map[string]float64 {
	used := allocated(v.Tasks)
	m := map[string]float64{
		"slave/registered": b2f(v.Registered), "slave/uptime_secs": v.Uptime.Seconds(),
		"slave/frameworks_active":      float64(len(byFramework(v.Tasks, func(t Task) bool { return !t.Done }))),
		"slave/status_updates_pending": float64(v.PendingUpdates),
	}
	for _, name := range []string{"cpus", "mem", "disk", "gpus"} {
		total, in := v.Resources.Scalar(name).Float(), used.Scalar(name).Float()
		m["slave/"+name+"_total"], m["slave/"+name+"_used"] = total, in
		m["slave/"+name+"_percent"] = 0
		if total > 0 {
			m["slave/"+name+"_percent"] = in / total
		}
	}
	for _, s := range []string{"staging", "starting", "running", "killing", "finished", "failed", "killed", "lost", "error", "gone", "dropped"} {
		m["slave/tasks_"+s] = float64(v.Terminal["TASK_"+strings.ToUpper(s)])
	}
	for _, t := range v.Tasks {
		if !t.Done {
			m["slave/tasks_"+strings.ToLower(strings.TrimPrefix(t.Task.GetState().String(), "TASK_"))]++
		}
	}
	m["slave/executors_running"] = m["slave/tasks_running"]
	return m
}

func b2f(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// allocated is what the tasks that are not done hold. What several of them
// share counts once.
func allocated(tasks []Task) (sum resource.Resources) {
	for _, t := range tasks {
		if t.Done {
			continue
		}
		if r, err := resource.FromProto(t.Info.GetResources()); err == nil {
			sum = sum.Add(r.Filter(func(i resource.Item) bool { return !i.Shared() || !sum.Contains(resource.Of(i)) }))
		}
	}
	return sum
}

type framework struct {
	info  *mesos.FrameworkInfo
	tasks []Task
}

// byFramework groups the tasks that keep accepts, in the order they come.
func byFramework(tasks []Task, keep func(Task) bool) (out []framework) {
	at := map[string]int{}
	for _, t := range tasks {
		if !keep(t) {
			continue
		}
		id := t.Framework.GetId().GetValue()
		i, ok := at[id]
		if !ok {
			i = len(out)
			at[id] = i
			out = append(out, framework{info: t.Framework})
		}
		out[i].tasks = append(out[i].tasks, t)
	}
	return out
}
