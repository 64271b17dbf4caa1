// Package legacy serves the JSON endpoints that Mesos had before its v1 API
// and that dashboards, DNS servers and scripts still read. Everything is
// rendered from a snapshot, outside the master's lock.
package legacy

import (
	"cmp"
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"

	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/master/about"
	"dcos.example/dcos/runtime/master/core"
)

func portOf(m *mesos.MasterInfo) string { return strconv.FormatUint(uint64(m.GetPort()), 10) }

// Write answers v as JSON, or as a call of the function that ?jsonp= names.
func Write(w http.ResponseWriter, r *http.Request, v any) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET")
		http.Error(w, "Expecting one of { 'GET' }, but received '"+r.Method+"'", http.StatusMethodNotAllowed)
		return
	}
	b, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if name := r.URL.Query().Get("jsonp"); name != "" {
		if !identifier.MatchString(name) {
			http.Error(w, "'jsonp' must name a function", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "text/javascript")
		b = append(append([]byte(name+"("), b...), ");"...)
	} else {
		w.Header().Set("Content-Type", "application/json")
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	_, _ = w.Write(b) // the client is gone when this fails
}

// identifier keeps ?jsonp= from carrying a script.
var identifier = regexp.MustCompile(`^[A-Za-z_$][\w$.]*$`)

// View renders one endpoint.
type View func(c *core.Core, self about.About, q url.Values) (any, error)

// Views are the endpoints that only the leader answers, by path.
func Views() map[string]View {
	return map[string]View{
		"/state": state, "/state.json": state, "/state-summary": summary, "/slaves": slaves, "/tasks": tasks,
		"/tasks.json": tasks, "/frameworks": frameworks, "/roles": roles, "/roles.json": roles,
	}
}

// Handler serves v of c.
func (v View) Handler(c *core.Core, self about.About) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out, err := v(c, self, r.URL.Query())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		Write(w, r, out)
	})
}

// Version is what /version shows.
func Version(self about.About) map[string]any {
	return map[string]any{"version": about.MesosVersion, "git_tag": self.Release, "build_date": "", "build_time": 0, "build_user": ""}
}

// Flags is what /flags shows.
func Flags(self about.About) map[string]any { return map[string]any{"flags": flags(self)} }

func flags(self about.About) map[string]string {
	out := map[string]string{}
	for _, f := range self.Flags {
		out[f.Name] = f.Value
	}
	return out
}

func state(c *core.Core, self about.About, q url.Values) (any, error) {
	s := c.Snapshot()
	active := 0
	list := make([]slaveFull, len(s.Agents))
	for i, a := range s.Agents {
		list[i] = newSlaveFull(a)
		if a.Active {
			active++
		}
	}
	return map[string]any{
		"version": about.MesosVersion, "git_tag": self.Release, "build_date": "", "build_time": 0, "build_user": "",
		"start_time": seconds(self.Started), "elected_time": seconds(s.Elected),
		"id": s.Info.GetId(), "pid": masterPID(s.Info), "hostname": s.Info.GetHostname(),
		"capabilities":     leaderInfo(s.Info)["capabilities"],
		"activated_slaves": active, "deactivated_slaves": len(s.Agents) - active, "unreachable_slaves": s.Unreachable,
		"leader": masterPID(s.Info), "leader_info": leaderInfo(s.Info), "cluster": self.Cluster, "flags": flags(self),
		"slaves": list, "recovered_slaves": recovered(s),
		"frameworks": pick(s.Frameworks, q), "completed_frameworks": pick(s.Completed, q),
		"orphan_tasks": []any{}, "unregistered_frameworks": []any{},
	}, nil
}

func recovered(s *core.Snapshot) []map[string]any {
	out := make([]map[string]any, len(s.Recovered))
	for i, a := range s.Recovered {
		out[i] = map[string]any{
			"id": a.GetId().GetValue(), "hostname": a.GetHostname(), "port": a.GetPort(),
			"attributes": attributes(a.Attributes), "resources": fromProto(a.Resources),
		}
	}
	return out
}

func pick(fs []core.FrameworkView, q url.Values) []framework {
	out := []framework{}
	for _, f := range fs {
		if isIn(q.Get("framework_id"), f.Info.GetId().GetValue()) {
			out = append(out, newFramework(f))
		}
	}
	return out
}

// summary counts tasks by agent and framework in one pass over all tasks.
func summary(c *core.Core, self about.About, _ url.Values) (any, error) {
	s := c.Snapshot()
	type agentSums struct {
		counts     counts
		frameworks map[string]bool
	}
	byAgent := make(map[string]*agentSums, len(s.Agents))
	for _, a := range s.Agents {
		byAgent[a.Info.GetId().GetValue()] = &agentSums{newCounts(), map[string]bool{}}
	}
	fs := []json.RawMessage{}
	for _, f := range s.Frameworks {
		sum, ids := newCounts(), map[string]bool{}
		for i, list := range [][]*mesos.Task{f.Tasks, f.Unreachable, f.Done} {
			sum.add(list)
			for _, t := range list {
				a := byAgent[t.GetAgentId().GetValue()]
				if a == nil {
					continue
				}
				a.counts[t.GetState().String()]++
				if i == 0 {
					a.frameworks[f.Info.GetId().GetValue()] = true
					ids[t.GetAgentId().GetValue()] = true
				}
			}
		}
		m, err := inline(newFrameworkSummary(f), sum.object(), map[string]any{"slave_ids": keys(ids)})
		if err != nil {
			return nil, err
		}
		fs = append(fs, m)
	}
	as := []json.RawMessage{}
	for _, a := range s.Agents {
		sums := byAgent[a.Info.GetId().GetValue()]
		m, err := inline(newSlave(a), sums.counts.object(), map[string]any{"framework_ids": keys(sums.frameworks)})
		if err != nil {
			return nil, err
		}
		as = append(as, m)
	}
	return map[string]any{"hostname": s.Info.GetHostname(), "cluster": self.Cluster, "slaves": as, "frameworks": fs}, nil
}

func (c counts) object() map[string]any {
	out := make(map[string]any, len(c))
	for k, v := range c {
		out[k] = v
	}
	return out
}

func keys(set map[string]bool) []string {
	out := make([]string, 0, len(set))
	for k := range set {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

func slaves(c *core.Core, _ about.About, q url.Values) (any, error) {
	s := c.Snapshot()
	list := []slaveFull{}
	for _, a := range s.Agents {
		if isIn(q.Get("slave_id"), a.Info.GetId().GetValue()) {
			list = append(list, newSlaveFull(a))
		}
	}
	return map[string]any{"slaves": list, "recovered_slaves": recovered(s)}, nil
}

func frameworks(c *core.Core, _ about.About, q url.Values) (any, error) {
	s := c.Snapshot()
	return map[string]any{
		"frameworks": pick(s.Frameworks, q), "completed_frameworks": pick(s.Completed, q), "unregistered_frameworks": []any{},
	}, nil
}

func roles(c *core.Core, _ about.About, _ url.Values) (any, error) {
	out := []map[string]any{}
	for _, v := range about.Roles(c.Snapshot()) {
		m, err := roleModel(v)
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return map[string]any{"roles": out}, nil
}

// tasks pages through all tasks, newest first unless order=asc.
func tasks(c *core.Core, _ about.About, q url.Values) (any, error) {
	limit, err := number(q.Get("limit"), 100)
	if err != nil {
		return nil, err
	}
	offset, err := number(q.Get("offset"), 0)
	if err != nil {
		return nil, err
	}
	type entry struct {
		t *mesos.Task
		f core.FrameworkView
	}
	var all []entry
	s := c.Snapshot()
	for _, f := range slices.Concat(s.Frameworks, s.Completed) {
		if !isIn(q.Get("framework_id"), f.Info.GetId().GetValue()) {
			continue
		}
		for _, t := range slices.Concat(f.Tasks, f.Unreachable, f.Done) {
			if isIn(q.Get("task_id"), t.GetTaskId().GetValue()) {
				all = append(all, entry{t, f})
			}
		}
	}
	first := func(t *mesos.Task) float64 { // a task without a status is the newest
		if len(t.Statuses) == 0 {
			return 1e18
		}
		return t.Statuses[0].GetTimestamp()
	}
	slices.SortStableFunc(all, func(a, b entry) int {
		if q.Get("order") == "asc" {
			return cmp.Compare(first(a.t), first(b.t))
		}
		return cmp.Compare(first(b.t), first(a.t))
	})
	all = all[min(offset, len(all)):]
	out := []taskModel{}
	for _, e := range all[:min(limit, len(all))] {
		out = append(out, newTask(e.t, e.f))
	}
	return map[string]any{"tasks": out}, nil
}

func number(s string, unset int) (int, error) {
	if s == "" {
		return unset, nil
	}
	n, err := strconv.ParseUint(s, 10, 31)
	return int(n), err
}
