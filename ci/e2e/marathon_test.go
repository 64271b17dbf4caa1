//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// task is what the Marathon API says of a task.
type task struct {
	ID        string
	Host      string
	Ports     []int
	State     string
	StartedAt string
	Version   string
	Health    []struct{ Alive bool } `json:"healthCheckResults"`
}

// app is what the Marathon API says of an app.
type app struct {
	ID        string
	Instances int
	Version   string
	Healthy   int `json:"tasksHealthy"`
	Tasks     []task
	Checks    []any                 `json:"healthChecks"`
	Pending   []struct{ ID string } `json:"deployments"`
}

type object = map[string]any

const marathon = "/service/marathon/v2"

func (c *cluster) app(id string) (app, error) {
	var out struct{ App app }
	err := c.call("GET", marathon+"/apps"+id, nil, &out)
	slices.SortFunc(out.App.Tasks, func(a, b task) int { return strings.Compare(a.ID, b.ID) })
	return out.App, err
}

// settled returns the app when nothing is being changed, and exactly the
// wanted tasks run, of its present version, and are healthy.
func (c *cluster) settled(id string) (app, error) {
	a, err := c.app(id)
	if err != nil {
		return a, err
	}
	if len(a.Pending) > 0 || len(a.Tasks) != a.Instances || len(a.Checks) > 0 && a.Healthy != a.Instances {
		return a, fmt.Errorf("app %s is not settled: %s", id, text(a))
	}
	for _, k := range a.Tasks {
		if k.State != "TASK_RUNNING" {
			return a, fmt.Errorf("app %s is not settled: %s", id, text(a))
		}
	}
	return a, nil
}

// await waits until the app is settled and what else is asked of it holds.
func (c *cluster) await(t *testing.T, id string, more ...func(app) error) app {
	t.Helper()
	var a app
	eventually(t, "app "+id+" is settled", func() (err error) {
		if a, err = c.settled(id); err != nil {
			return err
		}
		for _, f := range more {
			err = errors.Join(err, f(a))
		}
		return err
	})
	return a
}

// deploy adds an app and waits for it; it is removed when the test ends.
func (c *cluster) deploy(t *testing.T, def object) app {
	t.Helper()
	id := def["id"].(string)
	must(t, c.call("POST", marathon+"/apps", def, nil))
	c.removed(t, id)
	return c.await(t, id)
}

// removed has the app removed when the test ends.
func (c *cluster) removed(t *testing.T, id string) {
	t.Cleanup(func() {
		if interrupted.Err() != nil || t.Failed() {
			return // the cluster goes as a whole, with what explains the failure
		}
		must(t, c.call("DELETE", marathon+"/apps"+id+"?force=true", nil, nil))
		eventually(t, "tasks of "+id+" are gone", func() error {
			for _, k := range c.tasks(t) {
				if "/"+k.Name == id {
					return fmt.Errorf("%s is there", k.ID)
				}
			}
			return nil
		})
	})
}

// update changes an app and returns the id of the deployment.
func (c *cluster) update(t *testing.T, id string, change object) string {
	t.Helper()
	var out struct {
		DeploymentID string `json:"deploymentId"`
	}
	must(t, c.call("PUT", marathon+"/apps"+id, change, &out))
	return out.DeploymentID
}

// cliTask is a line of `dcos task list`.
type cliTask struct{ Name, Host, State, ID string }

func (c *cluster) tasks(t *testing.T, args ...string) []cliTask {
	t.Helper()
	var list []cliTask
	must(t, json.Unmarshal([]byte(c.dcos(t, append([]string{"task", "list", "--json"}, args...)...)), &list))
	return list
}

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func ids(a app) []string {
	var list []string
	for _, k := range a.Tasks {
		list = append(list, k.ID)
	}
	return list
}

func hosts(a app) []string {
	var list []string
	for _, k := range a.Tasks {
		list = append(list, k.Host)
	}
	return list
}
