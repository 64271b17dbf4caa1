package httpapi

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"dcos.example/dcos/runtime/api/marathon"
	"dcos.example/dcos/runtime/orchestrator/engine"
	"dcos.example/dcos/runtime/orchestrator/event"
	"dcos.example/dcos/runtime/orchestrator/spec"
)

// groups routes /v2/groups and everything below.
func (c *call) groups(segs []string) {
	n := len(segs)
	switch {
	case n > 0 && segs[n-1] == "versions" && c.reads():
		vs, err := c.e.GroupVersions(id(segs[:n-1]))
		if err != nil {
			c.fail(err)
			return
		}
		c.json(http.StatusOK, vs)
	case n > 1 && segs[n-2] == "versions" && c.reads():
		g, err := c.e.GroupVersion(c.r.Context(), id(segs[:n-2]), segs[n-1])
		if err != nil {
			c.fail(err)
			return
		}
		c.json(http.StatusOK, g)
	case n > 0 && segs[n-1] == "apps" && c.reads():
		g, err := c.e.Group(id(segs[:n-1]), engine.GroupEmbed{Apps: true, App: c.embed(engine.Embed{Counts: true, Deployments: true})})
		if err != nil {
			c.fail(err)
			return
		}
		c.json(http.StatusOK, g.Apps)
	default:
		c.group(id(segs))
	}
}

func (c *call) group(group spec.AppID) {
	force := c.flag("force", false)
	switch c.r.Method {
	case http.MethodGet, http.MethodHead:
		g, err := c.e.Group(group, c.groupEmbed())
		if err != nil {
			c.fail(err)
			return
		}
		c.json(http.StatusOK, g)
	case http.MethodPost:
		body, ok := c.body()
		if !ok {
			return
		}
		made, r, err := c.e.CreateGroup(c.r.Context(), group, body, force)
		if err == nil {
			c.w.Header().Set("Location", string(made))
		}
		c.changed(http.StatusCreated, r, err)
	case http.MethodPut:
		body, ok := c.body()
		if !ok {
			return
		}
		dry := c.flag("dryRun", false)
		r, steps, err := c.e.UpdateGroup(c.r.Context(), group, body, force, dry)
		if dry && err == nil {
			if steps == nil {
				steps = []marathon.Step{}
			}
			c.json(http.StatusOK, map[string]any{"steps": steps})
			return
		}
		c.changed(http.StatusOK, r, err)
	case http.MethodPatch:
		c.patchGroup(group)
	case http.MethodDelete:
		r, err := c.e.DeleteGroup(c.r.Context(), group, force)
		c.changed(http.StatusOK, r, err)
	default:
		c.methods("GET", "POST", "PUT", "PATCH", "DELETE")
	}
}

func (c *call) patchGroup(group spec.AppID) {
	body, ok := c.body()
	if !ok {
		return
	}
	var in struct {
		EnforceRole bool `json:"enforceRole" need:"true"`
	}
	if err := marathon.Decode(body, &in); err != nil {
		c.fail(err)
		return
	}
	if group == spec.Root || group.Parent() != spec.Root {
		c.message(http.StatusUnprocessableEntity, "enforceRole can only be set on top-level groups")
		return
	}
	if in.EnforceRole {
		c.message(http.StatusUnprocessableEntity, "enforceRole=true is not supported: all apps run under the orchestrator's own role")
		return
	}
	if err := c.e.EnforceRole(c.r.Context(), group, in.EnforceRole); err != nil {
		c.fail(err)
		return
	}
	c.w.WriteHeader(http.StatusOK)
}

func (c *call) groupEmbed() engine.GroupEmbed {
	asked := c.r.URL.Query()["embed"]
	if len(asked) == 0 {
		return engine.GroupEmbed{Groups: true, Apps: true, Pods: true}
	}
	em := engine.GroupEmbed{App: c.embed(engine.Embed{})}
	for _, v := range asked {
		switch {
		case v == "group.groups":
			em.Groups = true
		case v == "group.pods" || strings.HasPrefix(v, "group.pods."):
			em.Pods = true
		case v == "group.apps" || strings.HasPrefix(v, "group.apps."):
			em.Apps = true
		}
	}
	return em
}

func (c *call) deployments(segs []string) {
	switch len(segs) {
	case 0:
		c.only(http.MethodGet, func() { c.json(http.StatusOK, c.e.Deployments()) })
	case 1:
		c.only(http.MethodDelete, func() {
			r, err := c.e.CancelDeployment(c.r.Context(), segs[0], c.flag("force", false))
			switch {
			case err != nil:
				c.fail(err)
			case r == nil:
				c.w.WriteHeader(http.StatusAccepted)
			default:
				c.result(http.StatusOK, *r)
			}
		})
	default:
		c.notFound()
	}
}

func (c *call) queue(segs []string) {
	n := len(segs)
	switch {
	case n == 0:
		c.only(http.MethodGet, func() {
			offers := false
			for _, v := range c.r.URL.Query()["embed"] {
				offers = offers || v == "lastUnusedOffers"
			}
			c.json(http.StatusOK, map[string]any{"queue": c.e.Queue(offers)})
		})
	case n > 1 && segs[n-1] == "delay":
		c.only(http.MethodDelete, func() {
			if err := c.e.ResetDelay(id(segs[:n-1])); err != nil {
				c.fail(err)
				return
			}
			c.w.WriteHeader(http.StatusNoContent)
		})
	default:
		c.notFound()
	}
}

func (c *call) info() {
	info := c.api.cfg.Info()
	info.Elected = true
	if l := c.api.cfg.Leader(); l != "" {
		info.Leader = &l
	}
	if fw := c.e.FrameworkID(); fw != "" {
		info.FrameworkID = &fw
	}
	c.json(http.StatusOK, info)
}

// abdicateAfter lets the answer reach the client first.
const abdicateAfter = 500 * time.Millisecond

func (c *call) leader() {
	switch c.r.Method {
	case http.MethodGet, http.MethodHead:
		l := c.api.cfg.Leader()
		if l == "" {
			c.message(http.StatusNotFound, "There is no leader")
			return
		}
		c.json(http.StatusOK, map[string]string{"leader": l})
	case http.MethodDelete:
		q := c.r.URL.Query()
		switch {
		case q.Get("backup") != "" || q.Get("restore") != "":
			c.message(http.StatusUnprocessableEntity, "backup and restore are not done by the orchestrator: its state is in the masters' etcd")
		case c.api.cfg.Abdicate == nil:
			c.message(http.StatusNotImplemented, "leadership follows the masters' raft leader and cannot be given up here")
		default:
			time.AfterFunc(abdicateAfter, c.api.cfg.Abdicate)
			c.message(http.StatusOK, "Leadership abdicated")
		}
	default:
		c.methods("GET", "DELETE")
	}
}

// pods says plainly that there are none yet. Clients probe with HEAD.
func (c *call) pods() {
	if c.r.Method == http.MethodHead {
		c.w.WriteHeader(http.StatusNotFound)
		return
	}
	c.message(http.StatusNotImplemented, "pods are not supported by this version; use /v2/apps")
}

// heartbeat is how often an idle event stream shows that it lives.
const heartbeat = 10 * time.Second

// events streams what happens. Ids let a client that comes back to the same
// leader continue with Last-Event-ID.
func (c *call) events() {
	flush := http.NewResponseController(c.w)
	q := c.r.URL.Query()
	after, _ := strconv.ParseUint(c.r.Header.Get("Last-Event-ID"), 10, 64)
	h := c.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Accel-Buffering", "no")
	// Listening comes first: what happens after the client has its answer
	// must reach it.
	l := c.e.Events.Listen(after, q["event_type"]...)
	c.w.WriteHeader(http.StatusOK)
	if err := flush.Flush(); err != nil {
		c.e.Events.Leave(l)
		return
	}
	remote := c.caller().IP
	c.e.Events.Publish("event_stream_attached", event.Fields{"remoteAddress": remote}, time.Now())
	defer func() {
		c.e.Events.Leave(l)
		c.e.Events.Publish("event_stream_detached", event.Fields{"remoteAddress": remote}, time.Now())
	}()
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	for {
		var err error
		select {
		case <-c.r.Context().Done():
			return
		case <-tick.C:
			_, err = c.w.Write([]byte("\r\n"))
		case ev, ok := <-l.C:
			if !ok {
				return // too slow, or not leading any more
			}
			err = writeEvent(c.w, ev)
			for more := true; more && err == nil; {
				select {
				case ev, ok = <-l.C:
					if !ok {
						return
					}
					err = writeEvent(c.w, ev)
				default:
					more = false
				}
			}
		}
		if err == nil {
			err = flush.Flush()
		}
		if err != nil {
			return
		}
	}
}

func writeEvent(w http.ResponseWriter, ev event.Event) error {
	_, err := fmt.Fprintf(w, "id: %d\r\nevent: %s\r\ndata: %s\r\n\r\n", ev.ID, ev.Type, ev.Data)
	return err
}

// metrics answers in JSON, or below /metrics/prometheus in that format. A
// process that does not lead has nothing to count.
func (c *call) metrics(segs []string) {
	var n engine.Numbers
	if c.e != nil {
		n = c.e.Numbers()
	}
	gauges := []struct {
		name  string
		value int
	}{
		{"marathon.apps.active.gauge", n.Apps}, {"marathon.deployments.active.gauge", n.Deployments},
		{"marathon.instances.staged.gauge", n.Staged}, {"marathon.instances.running.gauge", n.Running},
		{"marathon.instances.healthy.gauge", n.Healthy}, {"marathon.instances.unhealthy.gauge", n.Unhealthy},
		{"marathon.instances.gauge", n.Instances}, {"marathon.instances.queued.gauge", n.Queued},
	}
	if len(segs) > 0 && segs[0] == "prometheus" {
		c.w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		for _, g := range gauges {
			name := strings.ReplaceAll(strings.TrimSuffix(g.name, ".gauge"), ".", "_")
			_, _ = fmt.Fprintf(c.w, "# TYPE %s gauge\n%s %d\n", name, name, g.value)
		}
		return
	}
	out := map[string]any{}
	for _, g := range gauges {
		out[g.name] = map[string]int{"value": g.value}
	}
	c.json(http.StatusOK, map[string]any{
		"version": "4.0.0", "gauges": out, "counters": map[string]any{}, "histograms": map[string]any{}, "meters": map[string]any{}, "timers": map[string]any{},
	})
}
