package httpapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"dcos.example/dcos/runtime/api/marathon"
	"dcos.example/dcos/runtime/orchestrator/engine"
	"dcos.example/dcos/runtime/orchestrator/spec"
)

// apps routes /v2/apps and everything below.
func (c *call) apps(segs []string) {
	n := len(segs)
	switch {
	case n == 0:
		c.appList()
	case segs[n-1] == "*" && c.reads():
		group := id(segs[:n-1])
		c.json(http.StatusOK, map[string]any{"*": c.e.Apps(group, c.embed(everything), all)})
	case segs[n-1] == "restart" && n > 1:
		c.only(http.MethodPost, func() {
			r, err := c.e.RestartApp(c.r.Context(), id(segs[:n-1]), c.flag("force", false))
			c.changed(http.StatusOK, r, err)
		})
	case segs[n-1] == "versions" && n > 1:
		c.only(http.MethodGet, func() { c.versions(id(segs[:n-1])) })
	case n > 2 && segs[n-2] == "versions" && c.reads():
		a, err := c.e.Version(c.r.Context(), id(segs[:n-2]), segs[n-1])
		if err != nil {
			c.fail(err)
			return
		}
		c.json(http.StatusOK, a)
	case segs[n-1] == "tasks" && n > 1:
		c.appTasks(segs[:n-1])
	case n > 2 && segs[n-2] == "tasks" && c.r.Method == http.MethodDelete:
		c.deleteTask(id(segs[:n-2]), segs[n-1])
	default:
		c.app(id(segs))
	}
}

func id(segs []string) spec.AppID { return spec.ParseID(strings.Join(segs, "/"), spec.Root) }

func all(*marathon.App) bool { return true }

func (c *call) reads() bool { return c.r.Method == http.MethodGet || c.r.Method == http.MethodHead }

func (c *call) changed(status int, r marathon.DeploymentResult, err error) {
	if err != nil {
		c.fail(err)
		return
	}
	c.result(status, r)
}

func (c *call) appList() {
	switch c.r.Method {
	case http.MethodGet, http.MethodHead:
		keep, err := filter(c.r.URL.Query())
		if err != nil {
			c.message(http.StatusUnprocessableEntity, err.Error())
			return
		}
		em := c.embed(engine.Embed{Counts: true, Deployments: true})
		c.json(http.StatusOK, map[string]any{"apps": c.e.Apps(spec.Root, em, keep)})
	case http.MethodPost:
		body, ok := c.body()
		if !ok {
			return
		}
		info, deployment, err := c.e.CreateApp(c.r.Context(), body, c.flag("force", false), c.caller())
		if err != nil {
			c.fail(err)
			return
		}
		c.w.Header().Set("Location", info.ID)
		c.w.Header().Set("Marathon-Deployment-Id", deployment)
		c.json(http.StatusCreated, info)
	case http.MethodPut, http.MethodPatch:
		body, ok := c.body()
		if !ok {
			return
		}
		var docs []json.RawMessage
		if err := marathon.Decode(body, &docs); err != nil {
			c.fail(err)
			return
		}
		bodies := make([][]byte, len(docs))
		for i, d := range docs {
			bodies[i] = d
		}
		r, err := c.e.UpdateApps(c.r.Context(), bodies, c.updateOptions())
		c.changed(http.StatusOK, r, err)
	default:
		c.methods("GET", "POST", "PUT", "PATCH")
	}
}

func (c *call) updateOptions() engine.UpdateOptions {
	patch := c.r.Method == http.MethodPatch
	return engine.UpdateOptions{
		Force: c.flag("force", false), Partial: patch || c.flag("partialUpdate", true), Create: !patch, By: c.caller(),
	}
}

// everything is what a single app is shown with.
var everything = engine.Embed{Tasks: true, Counts: true, Deployments: true, LastTaskFailure: true}

func (c *call) app(app spec.AppID) {
	switch c.r.Method {
	case http.MethodGet, http.MethodHead:
		info, err := c.e.App(app, c.embed(everything))
		if err != nil {
			c.fail(err)
			return
		}
		c.json(http.StatusOK, map[string]any{"app": info})
	case http.MethodPut, http.MethodPatch:
		body, ok := c.body()
		if !ok {
			return
		}
		r, created, err := c.e.UpdateApp(c.r.Context(), app, body, c.updateOptions())
		status := http.StatusOK
		if created && err == nil {
			status = http.StatusCreated
			c.w.Header().Set("Location", string(app))
		}
		c.changed(status, r, err)
	case http.MethodDelete:
		r, err := c.e.DeleteApp(c.r.Context(), app, c.flag("force", true))
		c.changed(http.StatusOK, r, err)
	default:
		c.methods("GET", "PUT", "PATCH", "DELETE")
	}
}

func (c *call) versions(app spec.AppID) {
	vs, err := c.e.Versions(app)
	if err != nil {
		c.fail(err)
		return
	}
	c.json(http.StatusOK, map[string]any{"versions": vs})
}

// embed reads the embed parameters on top of what is always there.
func (c *call) embed(em engine.Embed) engine.Embed {
	for _, v := range c.r.URL.Query()["embed"] {
		for _, prefix := range []string{"group.apps.", "apps.", "app."} {
			if rest, ok := strings.CutPrefix(v, prefix); ok {
				v = rest
				break
			}
		}
		switch v {
		case "tasks":
			em.Tasks, em.Deployments = true, true
		case "counts":
			em.Counts = true
		case "deployments":
			em.Deployments = true
		case "readiness":
			em.Readiness = true
		case "lastTaskFailure":
			em.LastTaskFailure = true
		case "failures":
			em.Tasks, em.LastTaskFailure, em.Deployments = true, true, true
		case "taskStats":
			em.TaskStats = true
		}
	}
	return em
}

// filter reads the parameters cmd, id and label of an app list.
func filter(q url.Values) (func(*marathon.App) bool, error) {
	match, err := selector(q.Get("label"))
	if err != nil {
		return nil, err
	}
	contains := func(s, part string) bool { return strings.Contains(strings.ToLower(s), strings.ToLower(part)) }
	cmd, app := q.Get("cmd"), q.Get("id")
	return func(a *marathon.App) bool {
		if cmd != "" && (a.Cmd == nil || !contains(*a.Cmd, cmd)) {
			return false
		}
		return (app == "" || contains(a.ID, app)) && match(a.Labels)
	}, nil
}

// appTasks serves /v2/apps/{id}/tasks; id may end in "/*".
func (c *call) appTasks(segs []string) {
	group := segs[len(segs)-1] == "*"
	app := id(segs)
	if group {
		app = id(segs[:len(segs)-1])
	}
	switch c.r.Method {
	case http.MethodGet, http.MethodHead:
		var tasks []marathon.Task
		if group {
			tasks = c.e.Tasks(app, func(marathon.Task) bool { return true })
		} else {
			var err error
			if tasks, err = c.e.AppTasks(app); err != nil {
				c.fail(err)
				return
			}
		}
		c.taskList(tasks)
	case http.MethodDelete:
		if _, err := c.e.App(app, engine.Embed{}); err != nil && !group {
			c.fail(err)
			return
		}
		host := c.r.URL.Query().Get("host")
		apps := []spec.AppID{app}
		if group {
			apps = c.e.AppIDs(app)
		}
		c.kill(apps, func(t marathon.Task) bool { return host == "" || host == "*" || t.Host == host }, func(tasks []marathon.Task) any {
			return map[string]any{"tasks": tasks}
		})
	default:
		c.methods("GET", "DELETE")
	}
}

// kill kills the chosen tasks of apps and answers with render, or with the
// deployment that makes the apps smaller.
func (c *call) kill(apps []spec.AppID, choose func(marathon.Task) bool, render func([]marathon.Task) any) {
	scale := c.flag("scale", false)
	if scale && c.flag("wipe", false) {
		c.message(http.StatusBadRequest, "You cannot use scale and wipe at the same time.")
		return
	}
	tasks, r, err := c.e.KillTasks(c.r.Context(), apps, choose, engine.KillOptions{Scale: scale, Force: c.flag("force", false)})
	switch {
	case err != nil:
		c.fail(err)
	case r != nil:
		c.result(http.StatusOK, *r)
	default:
		c.json(http.StatusOK, render(tasks))
	}
}

func (c *call) deleteTask(app spec.AppID, task string) {
	tasks, err := c.e.AppTasks(app)
	if err != nil {
		c.fail(err)
		return
	}
	if !slices.ContainsFunc(tasks, func(t marathon.Task) bool { return t.ID == task }) {
		c.fail(engine.TaskMissing(task))
		return
	}
	c.kill([]spec.AppID{app}, func(t marathon.Task) bool { return t.ID == task }, func(ts []marathon.Task) any {
		if len(ts) == 0 { // it was being killed already
			return map[string]any{}
		}
		return map[string]any{"task": ts[0]}
	})
}

// tasks serves /v2/tasks and /v2/tasks/delete.
func (c *call) tasks(segs []string) {
	switch {
	case len(segs) == 0:
		c.only(http.MethodGet, func() {
			q := c.r.URL.Query()
			want := append(q["status"], q["status[]"]...)
			c.taskList(c.e.Tasks(spec.Root, func(t marathon.Task) bool {
				if len(want) == 0 {
					return true
				}
				running := t.State == "TASK_RUNNING"
				staging := t.State == "TASK_STAGING" || t.State == "TASK_STARTING"
				return running && slices.Contains(want, "running") || staging && slices.Contains(want, "staging")
			}))
		})
	case len(segs) == 1 && segs[0] == "delete":
		c.only(http.MethodPost, c.deleteTasks)
	default:
		c.notFound()
	}
}

func (c *call) deleteTasks() {
	body, ok := c.body()
	if !ok {
		return
	}
	var in struct {
		IDs []string `json:"ids" need:"true"`
	}
	if err := marathon.Decode(body, &in); err != nil {
		c.fail(err)
		return
	}
	chosen := map[string]bool{}
	var apps []spec.AppID
	for _, t := range in.IDs {
		if !strings.Contains(t, ".") {
			c.message(http.StatusBadRequest, "Invalid task id '"+t+"'.")
			return
		}
		if app, ok := c.e.AppOf(t); ok {
			chosen[t] = true
			if !slices.Contains(apps, app) {
				apps = append(apps, app)
			}
		}
	}
	c.kill(apps, func(t marathon.Task) bool {
		instance, _, _ := strings.Cut(t.ID, "._app")
		return chosen[t.ID] || chosen[instance]
	}, func(ts []marathon.Task) any {
		return map[string]any{"tasks": ts}
	})
}

// taskList answers in JSON, or in the lines that load balancers read.
func (c *call) taskList(tasks []marathon.Task) {
	if !strings.HasPrefix(c.r.Header.Get("Accept"), "text/plain") {
		c.json(http.StatusOK, map[string]any{"tasks": tasks})
		return
	}
	type key struct {
		app  string
		port int64
	}
	lines := map[key][]string{}
	var order []key
	for _, t := range tasks {
		for i, p := range t.ServicePorts {
			k := key{t.AppID, p}
			if _, ok := lines[k]; !ok {
				order = append(order, k)
				lines[k] = nil
			}
			if t.State == "TASK_RUNNING" && i < len(t.Ports) {
				lines[k] = append(lines[k], fmt.Sprintf("%s:%d", t.Host, t.Ports[i]))
			}
		}
	}
	var b strings.Builder
	for _, k := range order {
		name := strings.ReplaceAll(strings.Trim(k.app, "/"), "/", "_")
		fmt.Fprintf(&b, "%s\t%d\t%s\n", name, k.port, strings.Join(lines[k], "\t"))
	}
	c.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = c.w.Write([]byte(b.String()))
}
