package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dcos.example/dcos/cmd/dcos/client"
	"dcos.example/dcos/cmd/dcos/console"
	"dcos.example/dcos/runtime/api/marathon"
	"dcos.example/dcos/runtime/fault"
)

const marathonPath = "/service/marathon/v2"

func (a *app) marathonCmd() *cobra.Command {
	versions := console.Group("version", "Show earlier versions of an app", a.appVersions())
	return console.Group("marathon", "Deploy and manage apps",
		console.Group("app", "Manage apps", a.appAdd(), a.appList(), a.appShow(), a.appUpdate(), a.appScale(), a.appStart(), a.appStop(), a.appRestart(), a.appRemove(), versions),
		console.Group("deployment", "Follow and undo deployments", a.deploymentList(), a.deploymentRollback(), a.deploymentWatch()),
		console.Group("task", "Show the tasks of apps", a.appTasks()),
		a.debugCmd())
}

// appPath is where an app is, with its id's slashes as they are.
func appPath(id, rest string, force bool) string {
	segments := strings.Split(strings.Trim(id, "/"), "/")
	for i, s := range segments {
		segments[i] = url.PathEscape(s)
	}
	p := marathonPath + "/apps/" + strings.Join(segments, "/") + rest
	if force {
		p += "?force=true"
	}
	return p
}

// hint adds to the cluster's refusal what the operator can do about it.
func hint(err error) error {
	switch {
	case fault.Is(err, fault.NotFound):
		return fmt.Errorf("%w; `dcos marathon app list` shows what there is", err)
	case fault.Is(err, fault.Conflict):
		return fmt.Errorf("%w\nSee `dcos marathon deployment list`; --force replaces a deployment that is under way", err)
	}
	return err
}

// deployed reports what a change started.
func (a *app) deployed(id string) {
	if id != "" {
		fmt.Fprintln(a.Stdout, "Created deployment", id)
	}
}

func (a *app) appAdd() *cobra.Command {
	return console.Command("add [FILE]", "Add an app from a JSON file or standard input", cobra.MaximumNArgs(1), func(ctx context.Context, args []string) error {
		body, err := a.Input(args)
		if err != nil {
			return err
		}
		name := "standard input"
		if len(args) == 1 {
			name = args[0]
		}
		if err := console.CheckJSON(name, body); err != nil {
			return err
		}
		cl, err := a.Connect()
		if err != nil {
			return err
		}
		unknownFields(a.Stderr, body)
		var out marathon.AppInfo
		if err := cl.Send(ctx, "add app", http.MethodPost, marathonPath+"/apps", body, &out); err != nil {
			if fault.Is(err, fault.Conflict) {
				return fmt.Errorf("%w\n`dcos marathon app update` changes an app that exists", err)
			}
			return err
		}
		if len(out.Deployments) > 0 {
			a.deployed(out.Deployments[0].ID)
		}
		return nil
	})
}

func (a *app) appList() *cobra.Command {
	var asJSON, quiet bool
	var label string
	cmd := console.Command("list", "List apps", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		cl, err := a.Connect()
		if err != nil {
			return err
		}
		path := marathonPath + "/apps"
		if label != "" {
			path += "?label=" + url.QueryEscape(label)
		}
		const op = "list apps"
		var raw struct {
			Apps []json.RawMessage `json:"apps"`
		}
		if err := cl.Get(ctx, op, path, &raw); err != nil {
			return err
		}
		if asJSON {
			return a.JSON(raw.Apps)
		}
		apps := make([]marathon.AppInfo, len(raw.Apps))
		for i, b := range raw.Apps {
			if err := json.Unmarshal(b, &apps[i]); err != nil {
				return fault.New(op, fault.Internal, err)
			}
		}
		slices.SortFunc(apps, func(a, b marathon.AppInfo) int { return cmp.Compare(a.ID, b.ID) })
		if quiet {
			for _, app := range apps {
				fmt.Fprintln(a.Stdout, app.ID)
			}
			return nil
		}
		queue, err := readQueue(ctx, cl)
		if err != nil {
			return err
		}
		waiting := map[string]bool{}
		for _, q := range queue {
			waiting[q.App.ID] = q.waits()
		}
		actions, err := appActions(ctx, cl)
		if err != nil {
			return err
		}
		var rows [][]string
		for _, app := range apps {
			rows = append(rows, appCells(app, actions[app.ID], waiting[app.ID]))
		}
		a.Table([]string{"ID", "MEM", "CPUS", "TASKS", "HEALTH", "DEPLOYMENT", "WAITING", "CONTAINER", "CMD"}, rows)
		a.explainWaiting(queue, nil)
		return nil
	})
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print IDs only")
	cmd.Flags().StringVar(&label, "label", "", "only apps with this label selector")
	return cmd
}

func appCells(app marathon.AppInfo, action string, waiting bool) []string {
	count := func(n *int) int {
		if n == nil {
			return 0
		}
		return *n
	}
	health := "N/A"
	if len(app.HealthChecks) > 0 {
		health = fmt.Sprintf("%d/%d", count(app.TasksHealthy), count(app.TasksHealthy)+count(app.TasksUnhealthy))
	}
	container := "N/A"
	if app.Container != nil {
		container = app.Container.Type
	}
	command := "N/A"
	switch {
	case app.Cmd != nil && *app.Cmd != "":
		command = strings.Join(strings.Fields(*app.Cmd), " ")
	case len(app.Args) > 0:
		command = strings.Join(app.Args, " ")
	}
	if r := []rune(command); len(r) > 60 {
		command = string(r[:59]) + "…"
	}
	wait := "False"
	if waiting {
		wait = "True"
	}
	return []string{
		app.ID, number(app.Mem), number(app.CPUs), fmt.Sprintf("%d/%d", count(app.TasksRunning), app.Instances),
		health, cmp.Or(action, "N/A"), wait, container, command,
	}
}

// verbs are how the CLI of DC/OS calls what a deployment does.
var verbs = map[string]string{
	"StartApplication": "start", "ScaleApplication": "scale", "StopApplication": "stop", "RestartApplication": "restart",
	"StartPod": "start", "ScalePod": "scale", "StopPod": "stop", "RestartPod": "restart",
}

func appActions(ctx context.Context, cl *client.Client) (map[string]string, error) {
	list, err := deployments(ctx, cl)
	if err != nil {
		return nil, err
	}
	m := map[string]string{}
	for _, d := range list {
		for _, id := range d.AffectedApps {
			m[id] = "True"
		}
		for _, act := range d.CurrentActions {
			m[act.App] = cmp.Or(verbs[act.Action], act.Action)
		}
	}
	return m, nil
}

func deployments(ctx context.Context, cl *client.Client) ([]marathon.Deployment, error) {
	var list []marathon.Deployment
	err := cl.Get(ctx, "list deployments", marathonPath+"/deployments", &list)
	return list, err
}

func (a *app) appShow() *cobra.Command {
	var version string
	cmd := console.Command("show ID", "Show an app as JSON", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		cl, err := a.Connect()
		if err != nil {
			return err
		}
		op := "show app " + args[0]
		if version != "" {
			var app json.RawMessage
			if err := cl.Get(ctx, op, appPath(args[0], "/versions/"+url.PathEscape(version), false), &app); err != nil {
				return hint(err)
			}
			return a.JSON(app)
		}
		var out struct {
			App json.RawMessage `json:"app"`
		}
		if err := cl.Get(ctx, op, appPath(args[0], "", false), &out); err != nil {
			return hint(err)
		}
		return a.JSON(out.App)
	})
	cmd.Flags().StringVar(&version, "app-version", "", "show this version instead of the present one")
	return cmd
}

func (a *app) appUpdate() *cobra.Command {
	var force bool
	cmd := console.Command("update ID [NAME=VALUE…]", "Change an app by properties, or by JSON from standard input", cobra.MinimumNArgs(1), func(ctx context.Context, args []string) error {
		var body []byte
		var err error
		if len(args) == 1 {
			if body, err = a.Input(nil); err == nil {
				err = console.CheckJSON("standard input", body)
			}
		} else {
			body, err = properties(args[1:])
		}
		if err != nil {
			return err
		}
		op := "update app " + args[0]
		cl, err := a.Connect()
		if err != nil {
			return err
		}
		if err := mustExist(ctx, cl, op, args[0]); err != nil {
			return hint(err)
		}
		unknownFields(a.Stderr, body)
		return a.change(ctx, op, http.MethodPut, appPath(args[0], "", force), body)
	})
	cmd.Flags().BoolVarP(&force, "force", "f", false, "replace a deployment that is under way")
	return cmd
}

// textProperties are strings even when they look like numbers.
var textProperties = []string{"cmd", "user", "executor", "id", "role", "killSelection"}

func properties(list []string) ([]byte, error) {
	m := map[string]any{}
	for _, p := range list {
		name, value, ok := strings.Cut(p, "=")
		if !ok || name == "" {
			return nil, fault.Newf("read properties", fault.Invalid, "%q is not of the form NAME=VALUE", p)
		}
		var v any
		dec := json.NewDecoder(strings.NewReader(value))
		dec.UseNumber()
		if slices.Contains(textProperties, name) || dec.Decode(&v) != nil || dec.More() {
			v = value
		}
		if known := fieldNames(reflect.TypeFor[marathon.App]()); !slices.Contains(known, name) {
			return nil, fault.Newf("read properties", fault.Invalid, "apps have no property %q.%s", name, console.Similar(name, known))
		}
		m[name] = v
	}
	return json.Marshal(m)
}

// change sends a change and reports the deployment that carries it out.
func (a *app) change(ctx context.Context, op, method, path string, body []byte) error {
	cl, err := a.Connect()
	if err != nil {
		return err
	}
	r := client.Request{Method: method, Path: path}
	if body != nil {
		r.Body = bytes.NewReader(body)
	}
	var out marathon.DeploymentResult
	if err := cl.Call(ctx, op, r, &out); err != nil {
		return hint(err)
	}
	a.deployed(out.DeploymentID)
	return nil
}

func (a *app) scaleTo(ctx context.Context, id string, n int, force bool) error {
	return a.change(ctx, fmt.Sprintf("scale app %s to %d", id, n), http.MethodPut, appPath(id, "", force), fmt.Appendf(nil, `{"instances":%d}`, n))
}

func instances(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return 0, fault.Newf("read number of instances", fault.Invalid, "%q is no number from 0", s)
	}
	return n, nil
}

func (a *app) appScale() *cobra.Command {
	var force bool
	cmd := console.Command("scale ID INSTANCES", "Change how many instances an app has", cobra.ExactArgs(2), func(ctx context.Context, args []string) error {
		n, err := instances(args[1])
		if err != nil {
			return err
		}
		return a.scaleTo(ctx, args[0], n, force)
	})
	cmd.Flags().BoolVarP(&force, "force", "f", false, "replace a deployment that is under way")
	return cmd
}

func (a *app) appStart() *cobra.Command {
	var force bool
	cmd := console.Command("start ID [INSTANCES]", "Start a stopped app, with one instance or more", cobra.RangeArgs(1, 2), func(ctx context.Context, args []string) error {
		n := 1
		if len(args) == 2 {
			var err error
			if n, err = instances(args[1]); err != nil {
				return err
			}
		}
		cl, err := a.Connect()
		if err != nil {
			return err
		}
		var out struct {
			App marathon.App `json:"app"`
		}
		if err := cl.Get(ctx, "start app "+args[0], appPath(args[0], "", false), &out); err != nil {
			return hint(err)
		}
		if out.App.Instances > 0 {
			return fault.Newf("start app "+args[0], fault.Conflict, "it has %d instances already; `dcos marathon app scale` changes that", out.App.Instances)
		}
		return a.scaleTo(ctx, args[0], n, force)
	})
	cmd.Flags().BoolVarP(&force, "force", "f", false, "replace a deployment that is under way")
	return cmd
}

func (a *app) appStop() *cobra.Command {
	var force bool
	cmd := console.Command("stop ID", "Stop all instances of an app and keep the app", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		return a.scaleTo(ctx, args[0], 0, force)
	})
	cmd.Flags().BoolVarP(&force, "force", "f", false, "replace a deployment that is under way")
	return cmd
}

func (a *app) appRestart() *cobra.Command {
	var force bool
	cmd := console.Command("restart ID", "Replace all instances of an app, few at a time", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		return a.change(ctx, "restart app "+args[0], http.MethodPost, appPath(args[0], "/restart", force), nil)
	})
	cmd.Flags().BoolVarP(&force, "force", "f", false, "replace a deployment that is under way")
	return cmd
}

func (a *app) appRemove() *cobra.Command {
	var force bool
	cmd := console.Command("remove ID", "Stop an app and remove it with its versions", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		// The API's own default is to force.
		path := appPath(args[0], "", false) + "?force=" + strconv.FormatBool(force)
		return a.change(ctx, "remove app "+args[0], http.MethodDelete, path, nil)
	})
	cmd.Flags().BoolVarP(&force, "force", "f", false, "replace a deployment that is under way")
	return cmd
}

func (a *app) appVersions() *cobra.Command {
	var limit int
	cmd := console.Command("list ID", "List the versions of an app, newest first", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		cl, err := a.Connect()
		if err != nil {
			return err
		}
		var out struct {
			Versions []string `json:"versions"`
		}
		if err := cl.Get(ctx, "list versions of app "+args[0], appPath(args[0], "/versions", false), &out); err != nil {
			return hint(err)
		}
		if limit > 0 && len(out.Versions) > limit {
			out.Versions = out.Versions[:limit]
		}
		return a.JSON(out.Versions)
	})
	cmd.Flags().IntVar(&limit, "max-count", 0, "show at most so many")
	return cmd
}

func (a *app) deploymentList() *cobra.Command {
	var asJSON, quiet bool
	cmd := console.Command("list [APP]", "List deployments that are under way", cobra.MaximumNArgs(1), func(ctx context.Context, args []string) error {
		cl, err := a.Connect()
		if err != nil {
			return err
		}
		list, err := deployments(ctx, cl)
		if err != nil {
			return err
		}
		if len(args) == 1 {
			id := "/" + strings.Trim(args[0], "/")
			list = slices.DeleteFunc(list, func(d marathon.Deployment) bool { return !slices.Contains(d.AffectedApps, id) })
		}
		switch {
		case asJSON:
			return a.JSON(append([]marathon.Deployment{}, list...))
		case quiet:
			for _, d := range list {
				fmt.Fprintln(a.Stdout, d.ID)
			}
			return nil
		}
		var rows [][]string
		for _, d := range list {
			var acts []string
			for _, act := range d.CurrentActions {
				acts = append(acts, cmp.Or(verbs[act.Action], act.Action))
			}
			rows = append(rows, []string{
				console.OrDash(strings.Join(d.AffectedApps, " ")), console.OrDash(strings.Join(d.AffectedPods, " ")), console.OrDash(strings.Join(acts, " ")),
				fmt.Sprintf("%d/%d", d.CurrentStep, d.TotalSteps), d.ID,
			})
		}
		a.Table([]string{"APP", "POD", "ACTION", "PROGRESS", "ID"}, rows)
		queue, err := readQueue(ctx, cl)
		if err != nil {
			return err
		}
		a.explainWaiting(queue, func(id string) bool {
			return slices.ContainsFunc(list, func(d marathon.Deployment) bool { return slices.Contains(d.AffectedApps, id) })
		})
		return nil
	})
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print IDs only")
	return cmd
}

func (a *app) deploymentRollback() *cobra.Command {
	return console.Command("rollback ID", "Undo a deployment that is under way", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		cl, err := a.Connect()
		if err != nil {
			return err
		}
		var out marathon.DeploymentResult
		op := "roll back deployment " + args[0]
		if err := cl.Call(ctx, op, client.Request{Method: http.MethodDelete, Path: marathonPath + "/deployments/" + url.PathEscape(args[0])}, &out); err != nil {
			return err
		}
		return a.JSON(out)
	})
}

func (a *app) deploymentWatch() *cobra.Command {
	var limit int
	var interval time.Duration
	cmd := console.Command("watch ID", "Wait until a deployment has ended", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		cl, err := a.Connect()
		if err != nil {
			return err
		}
		op := "watch deployment " + args[0]
		if interval <= 0 {
			return fault.Newf(op, fault.Invalid, "the interval must be positive")
		}
		last, said := "", ""
		for n := 1; ; n++ {
			list, err := deployments(ctx, cl)
			if err != nil {
				return err
			}
			at := slices.IndexFunc(list, func(d marathon.Deployment) bool { return d.ID == args[0] })
			if at < 0 {
				fmt.Fprintf(a.Stdout, "Deployment %s has ended.\n", args[0])
				return nil
			}
			now := fmt.Sprintf("Deployment %s: step %d of %d", args[0], list[at].CurrentStep, list[at].TotalSteps)
			if now != last {
				fmt.Fprintln(a.Stdout, now)
				last = now
			}
			if n%5 == 2 { // soon, and now and then: what it waits for may change
				queue, err := readQueue(ctx, cl)
				if err != nil {
					return err
				}
				for _, q := range queue {
					if why := q.why(); q.waits() && why != said && slices.Contains(list[at].AffectedApps, q.App.ID) {
						fmt.Fprintln(a.Stdout, why+".")
						said = why
					}
				}
			}
			if limit > 0 && n >= limit {
				return fault.Newf(op, fault.Unavailable, "it has not ended after %d looks", n)
			}
			if err := console.Pause(ctx, interval); err != nil {
				return err
			}
		}
	})
	cmd.Flags().IntVar(&limit, "max-count", 0, "give up after so many looks")
	cmd.Flags().DurationVar(&interval, "interval", time.Second, "how often to look")
	return cmd
}

func (a *app) appTasks() *cobra.Command {
	var asJSON, quiet bool
	cmd := console.Command("list [APP]", "List the tasks of one app or all", cobra.MaximumNArgs(1), func(ctx context.Context, args []string) error {
		cl, err := a.Connect()
		if err != nil {
			return err
		}
		path := marathonPath + "/tasks"
		if len(args) == 1 {
			path = appPath(args[0], "/tasks", false)
		}
		var out struct {
			Tasks []marathon.Task `json:"tasks"`
		}
		if err := cl.Get(ctx, "list tasks", path, &out); err != nil {
			return hint(err)
		}
		slices.SortFunc(out.Tasks, func(a, b marathon.Task) int {
			return cmp.Or(cmp.Compare(a.AppID, b.AppID), cmp.Compare(a.ID, b.ID))
		})
		switch {
		case asJSON:
			return a.JSON(append([]marathon.Task{}, out.Tasks...))
		case quiet:
			for _, t := range out.Tasks {
				fmt.Fprintln(a.Stdout, t.ID)
			}
			return nil
		}
		var rows [][]string
		for _, t := range out.Tasks {
			healthy := "True"
			for _, h := range t.HealthCheckResults {
				if !h.Alive {
					healthy = "False"
				}
			}
			rows = append(rows, []string{t.AppID, healthy, console.OrDash(t.StartedAt), t.Host, t.ID})
		}
		a.Table([]string{"APP", "HEALTHY", "STARTED", "HOST", "ID"}, rows)
		return nil
	})
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print IDs only")
	return cmd
}
