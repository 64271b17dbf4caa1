package cli

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dcos.example/dcos/cmd/dcos/client"
	"dcos.example/dcos/cmd/dcos/console"
	"dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/master"
	"dcos.example/dcos/runtime/fault"
)

func (a *app) taskCmd() *cobra.Command {
	return console.Group("task", "Look at and into tasks", a.taskList(), a.taskLog(), a.taskExec())
}

// taskInfo is a task of any framework.
type taskInfo struct {
	Name      string `json:"name"`
	Host      string `json:"host"`
	User      string `json:"user"`
	State     string `json:"state"`
	ID        string `json:"id"`
	AgentID   string `json:"slave_id"`
	Framework string `json:"framework_id"`
	Executor  string `json:"executor_id"`
	Container string `json:"container_id,omitempty"`
	Region    string `json:"region,omitempty"`
	Zone      string `json:"zone,omitempty"`
	done      bool
}

func listTasks(ctx context.Context, cl *client.Client) ([]taskInfo, error) {
	const op = "list tasks"
	tasks, err := cl.Master(ctx, op, &master.Call{Type: master.Call_GET_TASKS.Enum()})
	if err != nil {
		return nil, err
	}
	agents, err := cl.Master(ctx, op, &master.Call{Type: master.Call_GET_AGENTS.Enum()})
	if err != nil {
		return nil, err
	}
	byID := map[string]*mesos.AgentInfo{}
	for _, ag := range agents.GetGetAgents().GetAgents() {
		byID[ag.GetAgentInfo().GetId().GetValue()] = ag.GetAgentInfo()
	}
	var all []taskInfo
	add := func(list []*mesos.Task, done bool) {
		for _, t := range list {
			agent := byID[t.GetAgentId().GetValue()]
			ti := taskInfo{
				Name: t.GetName(), Host: agent.GetHostname(), User: cmp.Or(t.GetUser(), "root"), State: t.GetState().String(),
				ID: t.GetTaskId().GetValue(), AgentID: t.GetAgentId().GetValue(), Framework: t.GetFrameworkId().GetValue(),
				Executor: cmp.Or(t.GetExecutorId().GetValue(), t.GetTaskId().GetValue()), done: done,
			}
			ti.Region, ti.Zone = domain(agent.GetDomain())
			for _, s := range t.GetStatuses() {
				if id := s.GetContainerStatus().GetContainerId().GetValue(); id != "" {
					ti.Container = id
				}
			}
			all = append(all, ti)
		}
	}
	add(tasks.GetGetTasks().GetTasks(), false)
	add(tasks.GetGetTasks().GetUnreachableTasks(), false)
	add(tasks.GetGetTasks().GetCompletedTasks(), true)
	slices.SortStableFunc(all, func(a, b taskInfo) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	return all, nil
}

// pick keeps tasks whose id or name has text in it; a full id wins alone.
func pick(all []taskInfo, text string, done bool) []taskInfo {
	var found []taskInfo
	for _, t := range all {
		if t.done && !done {
			continue
		}
		if t.ID == text {
			return []taskInfo{t}
		}
		if strings.Contains(t.ID, text) || strings.Contains(t.Name, text) {
			found = append(found, t)
		}
	}
	return found
}

func (a *app) taskList() *cobra.Command {
	var asJSON, quiet, completed, every bool
	cmd := console.Command("list [TASK]", "List tasks, or those with a text in their ID or name", cobra.MaximumNArgs(1), func(ctx context.Context, args []string) error {
		cl, err := a.Connect()
		if err != nil {
			return err
		}
		all, err := listTasks(ctx, cl)
		if err != nil {
			return err
		}
		text := ""
		if len(args) == 1 {
			text = args[0]
		}
		list := []taskInfo{}
		for _, t := range pick(all, text, completed || every) {
			if t.done || !completed || every {
				list = append(list, t)
			}
		}
		switch {
		case asJSON:
			return a.JSON(list)
		case quiet:
			for _, t := range list {
				fmt.Fprintln(a.Stdout, t.ID)
			}
			return nil
		}
		var rows [][]string
		for _, t := range list {
			state := strings.TrimPrefix(t.State, "TASK_")[:1]
			rows = append(rows, []string{t.Name, console.OrDash(t.Host), t.User, state, t.ID, t.AgentID, console.OrDash(t.Region), console.OrDash(t.Zone)})
		}
		a.Table([]string{"NAME", "HOST", "USER", "STATE", "ID", "AGENT ID", "REGION", "ZONE"}, rows)
		return nil
	})
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print IDs only")
	cmd.Flags().BoolVar(&completed, "completed", false, "tasks that have ended")
	cmd.Flags().BoolVar(&every, "all", false, "tasks that run and tasks that have ended")
	return cmd
}

func (a *app) taskLog() *cobra.Command {
	var follow, completed bool
	var lines int
	cmd := console.Command("log TASK [FILE]", "Print the end of a task's output: stdout, stderr or another file of its sandbox", cobra.RangeArgs(1, 2), func(ctx context.Context, args []string) error {
		cl, err := a.Connect()
		if err != nil {
			return err
		}
		if lines < 0 {
			return fault.Newf("read log", fault.Invalid, "--lines must not be negative")
		}
		all, err := listTasks(ctx, cl)
		if err != nil {
			return err
		}
		found := pick(all, args[0], completed)
		if len(found) == 0 {
			return fault.Newf("find task "+args[0], fault.NotFound, "no task has this in its ID or name; `dcos task list` shows what runs, --completed includes what has ended")
		}
		file := "stdout"
		if len(args) == 2 {
			file = args[1]
		}
		var logs []*logFile
		for _, t := range found {
			logs = append(logs, &logFile{cl: cl, task: t, name: file})
		}
		return a.printLogs(ctx, logs, lines, follow)
	})
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on as the file grows")
	cmd.Flags().IntVar(&lines, "lines", 10, "how many lines to begin with")
	cmd.Flags().BoolVar(&completed, "completed", false, "also tasks that have ended")
	return cmd
}

// printLogs prints the ends of files and, if asked, what is added to them.
// Several files are told apart by a heading whenever the source changes.
func (a *app) printLogs(ctx context.Context, logs []*logFile, lines int, follow bool) error {
	var last *logFile
	show := func(l *logFile, b []byte) {
		if len(b) == 0 {
			return
		}
		if len(logs) > 1 && l != last {
			fmt.Fprintf(a.Stdout, "===> %s (%s) <===\n", l.task.ID, l.name)
		}
		last = l
		_, _ = a.Stdout.Write(b) // standard output is gone: nobody to tell
	}
	for _, l := range logs {
		b, err := l.tail(ctx, lines)
		if err != nil {
			return err
		}
		show(l, b)
	}
	for follow {
		if err := console.Pause(ctx, time.Second); err != nil {
			return nil // interrupted, which is how following ends
		}
		for _, l := range logs {
			for {
				b, err := l.next(ctx, maxPiece)
				if err != nil {
					return err
				}
				show(l, b)
				if len(b) < maxPiece {
					break
				}
			}
		}
	}
	return nil
}

// logFile is a file in a task's sandbox, read in pieces from the agent.
type logFile struct {
	cl     *client.Client
	task   taskInfo
	name   string
	offset int64 // of the next byte that was not read
}

const maxPiece = 64 << 10

func (l *logFile) url() string {
	// Every sandbox is reachable by the names of what runs in it.
	virtual := path.Join("/frameworks", l.task.Framework, "executors", l.task.Executor, "runs/latest", path.Join("/", l.name))
	return "/agent/" + url.PathEscape(l.task.AgentID) + "/files/download?path=" + url.QueryEscape(virtual)
}

// tail returns the last lines of the file. It reads backward, so a long file
// costs no more than its end.
func (l *logFile) tail(ctx context.Context, lines int) ([]byte, error) {
	resp, err := l.ask(ctx, http.MethodHead, "")
	if err != nil {
		return nil, err
	}
	_ = resp.Body.Close()
	size := resp.ContentLength
	if size < 0 {
		return nil, fault.Newf("read "+l.name, fault.Unavailable, "the agent does not say how long it is")
	}
	l.offset = size
	if lines == 0 {
		return nil, nil
	}
	var end []byte
	for from := size; from > 0; {
		start := max(0, from-maxPiece)
		b, err := l.read(ctx, start, from-start)
		if err != nil {
			return nil, err
		}
		end, from = append(b, end...), start
		if at, ok := lastLines(end, lines); ok {
			return end[at:], nil
		}
	}
	return end, nil
}

// lastLines returns where the last n lines of b begin, and false when b may
// have fewer. A newline at the very end closes the last line.
func lastLines(b []byte, n int) (int, bool) {
	at := len(bytes.TrimSuffix(b, []byte("\n")))
	for range n {
		i := bytes.LastIndexByte(b[:at], '\n')
		if i < 0 {
			return 0, false
		}
		at = i
	}
	return at + 1, true
}

// next returns what was added, up to n bytes.
func (l *logFile) next(ctx context.Context, n int64) ([]byte, error) {
	b, err := l.read(ctx, l.offset, n)
	l.offset += int64(len(b))
	return b, err
}

func (l *logFile) read(ctx context.Context, start, n int64) ([]byte, error) {
	resp, err := l.ask(ctx, http.MethodGet, fmt.Sprintf("bytes=%d-%d", start, start+n-1))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusRequestedRangeNotSatisfiable:
		return nil, nil // nothing there yet
	case http.StatusPartialContent:
	default: // the whole file: an agent that knows no ranges
		if _, err := io.CopyN(io.Discard, resp.Body, start); err != nil {
			return nil, nil
		}
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, n))
	if err != nil {
		return nil, fault.New("read "+l.name, fault.Unavailable, err)
	}
	return b, nil
}

func (l *logFile) ask(ctx context.Context, method, byteRange string) (*http.Response, error) {
	r := client.Request{Method: method, Path: l.url(), Header: map[string]string{"Accept": "*/*"}}
	if byteRange != "" {
		r.Header["Range"] = byteRange
	}
	resp, err := l.cl.Do(ctx, r)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 == 2 || resp.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		return resp, nil
	}
	defer resp.Body.Close()
	op := "read " + l.name + " of task " + l.task.ID
	if resp.StatusCode == http.StatusNotFound {
		return nil, fault.Newf(op, fault.NotFound, "the sandbox has no such file, or was removed, or its agent is away")
	}
	return nil, l.cl.Refused(op, resp)
}
