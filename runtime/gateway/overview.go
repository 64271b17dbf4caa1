package gateway

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/feed"
	"dcos.example/dcos/runtime/task"
)

const (
	// maxRows bounds each list of the page; the CLI and the APIs have them all.
	maxRows = 500
	// recent is how long a failure is worth a line after an app has recovered.
	recent = 10 * time.Minute
	// fresh is how long an app that has failed is not called well again.
	fresh = time.Minute
	// maxWhy bounds a message of a task, in characters.
	maxWhy = 160
	// askTimeout bounds what the page waits for: it must come soon even when
	// something does not answer.
	askTimeout = 3 * time.Second
)

// rank orders what people look at: the worst first.
type rank uint8

const (
	bad rank = iota
	warn
	fine
	idle
)

// String is the style class of a rank.
func (r rank) String() string { return [...]string{"bad", "warn", "ok", "idle"}[r] }

type homePage struct {
	Cluster, ClusterID, Release, UID, CSRF string
	Host                                   string // as the reader reached it
	Leader, Now                            string
	Notices                                []string // what could not be found out
	Verdict                                string
	Rank                                   rank
	Apps                                   []appRow
	Services                               []serviceRow
	Tasks                                  []taskRow
	Agents                                 []agentRow
	Frameworks                             []frameworkRow
	MoreApps, MoreTasks, MoreAgents        int
	AllApps, AllTasks, AllAgents, Masters  int
	FineApps, Running, ActiveAgents        int
	CPUs, Mem, Disk                        gauge
	Known                                  bool // whether the gauges are
}

// gauge is how much of something is in use.
type gauge struct{ Used, Total float64 }

// Full is a style class for what is nearly used up.
func (g gauge) Full() bool { return g.Total > 0 && g.Used > 0.9*g.Total }

type appRow struct {
	ID, State, Why, Link string
	Rank                 rank
	Instances, Running   int
	Checked              bool
	Healthy, Unhealthy   int
	CPUs, Mem            float64
}

type taskRow struct {
	ID, Name, State, Health, Agent, Framework string
	Rank                                      rank
	Stdout, Stderr                            string // links
}

type agentRow struct {
	ID, Hostname, Addr, Attributes string
	Active, Public                 bool
	Tasks                          int
	CPUs, Mem, Disk                gauge
}

type frameworkRow struct {
	ID, Name, Link string
	Active         bool
	Tasks          int
}

// overview gathers the page: what runs from the feed, what is wanted from the
// orchestrator, what is used from the master.
func (g *Gateway) overview(r *http.Request, uid, csrf string) homePage {
	view := g.cfg.View()
	now := time.Now()
	p := homePage{
		Cluster: g.cfg.Cluster.Name, ClusterID: g.cfg.Cluster.ID, Release: g.cfg.Cluster.Release, UID: uid, CSRF: csrf,
		Host: r.Host, Masters: len(g.cfg.Members()), Now: now.UTC().Format("2006-01-02 15:04:05 UTC"),
	}
	if addr, ok := g.cfg.Leader(); ok {
		p.Leader = addr.String()
	}
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	var (
		wg    sync.WaitGroup
		apps  []appAnswer
		queue map[string]queueItem
		usage map[string]agentUsage
		errs  [4]error
	)
	wg.Go(func() { apps, errs[0] = g.askApps(ctx) })
	wg.Go(func() { queue, errs[1] = g.askQueue(ctx) })
	wg.Go(func() { usage, errs[2] = g.askUsage(ctx) })
	wg.Go(func() { p.Services, errs[3] = g.askServices(ctx) })
	wg.Wait()
	for i, text := range []string{
		"The orchestrator does not answer right now, so apps are not shown.",
		"", // said with the first, or of little interest
		"The leading master does not answer right now, so what agents use is not shown.",
		"The operator does not answer right now, so services are not shown.",
	} {
		if errs[i] != nil {
			g.cfg.Log.Info("gather page", "err", errs[i])
			if text != "" {
				p.Notices = append(p.Notices, text)
			}
		}
	}
	table := g.services()
	for _, a := range apps {
		row := newAppRow(a, queue[a.ID], now)
		link := "/service" + a.ID + "/"
		if _, ok := table.Resolve(link); ok {
			row.Link = link
		}
		p.Apps = append(p.Apps, row)
	}
	on, of := p.addTasks(view)
	p.addAgents(view, on, usage)
	p.Known = errs[2] == nil
	for f := range view.Frameworks() {
		row := frameworkRow{ID: string(f.ID), Name: f.Name, Active: f.Active, Tasks: of[f.ID]}
		if _, ok := table.Resolve("/service/" + row.ID + "/"); ok && f.Name != "marathon" { // that one has an API, and this page
			row.Link = "/service/" + row.ID + "/"
		}
		p.Frameworks = append(p.Frameworks, row)
	}
	p.judge(errs[0] == nil)
	p.sort()
	return p
}

// sort puts the worst first, and cuts lists that are too long for a page.
func (p *homePage) sort() {
	slices.SortFunc(p.Apps, func(a, b appRow) int { return cmp.Or(cmp.Compare(a.Rank, b.Rank), cmp.Compare(a.ID, b.ID)) })
	slices.SortFunc(p.Tasks, func(a, b taskRow) int {
		return cmp.Or(cmp.Compare(a.Rank, b.Rank), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	slices.SortFunc(p.Agents, func(a, b agentRow) int {
		if a.Active != b.Active {
			return map[bool]int{false: -1, true: 1}[a.Active]
		}
		return cmp.Or(cmp.Compare(a.Hostname, b.Hostname), cmp.Compare(a.ID, b.ID))
	})
	slices.SortFunc(p.Frameworks, func(a, b frameworkRow) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	p.AllApps, p.AllTasks, p.AllAgents = len(p.Apps), len(p.Tasks), len(p.Agents)
	p.Apps, p.MoreApps = firstRows(p.Apps)
	p.Tasks, p.MoreTasks = firstRows(p.Tasks)
	p.Agents, p.MoreAgents = firstRows(p.Agents)
}

func firstRows[T any](list []T) ([]T, int) {
	if len(list) <= maxRows {
		return list, 0
	}
	return list[:maxRows], len(list) - maxRows
}

// judge says in a sentence how the cluster is.
func (p *homePage) judge(known bool) {
	var parts []string
	add := func(n int, one, many string, r rank) {
		switch n {
		case 0:
			return
		case 1:
			parts = append(parts, one)
		default:
			parts = append(parts, fmt.Sprintf(many, n))
		}
		p.Rank = min(p.Rank, r)
	}
	p.Rank = fine
	var broken, slow, away, ill, moving int
	for _, s := range p.Services {
		switch s.Rank {
		case bad:
			ill++
		case warn:
			moving++
		}
	}
	for _, a := range p.Apps {
		switch a.Rank {
		case bad:
			broken++
		case warn:
			slow++
		default:
			p.FineApps++
		}
	}
	for _, a := range p.Agents {
		if a.Active {
			p.ActiveAgents++
		} else {
			away++
		}
	}
	if p.Leader == "" {
		add(1, "no master leads", "", bad)
	}
	add(broken, "1 app is in trouble", "%d apps are in trouble", bad)
	add(ill, "1 service is in trouble", "%d services are in trouble", bad)
	add(away, "1 agent is away", "%d agents are away", bad)
	add(slow, "1 app is not where it should be yet", "%d apps are not where they should be yet", warn)
	add(moving, "1 service is not where it should be yet", "%d services are not where they should be yet", warn)
	switch text := strings.Join(parts, ", "); {
	case text != "":
		p.Verdict = strings.ToUpper(text[:1]) + text[1:] + "."
	case !known:
		p.Rank, p.Verdict = warn, "How apps are is not known right now."
	case len(p.Agents) == 0:
		p.Rank, p.Verdict = warn, "No agent is registered, so nothing can run."
	default:
		p.Verdict = "Everything is as it should be."
	}
}

// addTasks returns how many tasks there are on agents and of frameworks.
func (p *homePage) addTasks(view *feed.View) (on map[task.AgentID]int, of map[task.FrameworkID]int) {
	on, of = make(map[task.AgentID]int), make(map[task.FrameworkID]int)
	for t := range view.Tasks() {
		on[t.Agent]++
		of[t.Framework]++
		row := taskRow{
			ID: string(t.Task), Name: t.Name, Framework: t.FrameworkName, Rank: fine,
			State: strings.ToLower(strings.TrimPrefix(t.State.String(), "TASK_")),
		}
		switch {
		case t.State == task.Running:
			p.Running++
		case t.State == task.Unreachable:
			row.Rank = bad
		default:
			row.Rank = warn
		}
		switch {
		case t.Health == feed.Unhealthy:
			row.Health, row.Rank = "unhealthy", bad
		case t.Health == feed.Healthy:
			row.Health = "healthy"
		case t.Checked && t.State == task.Running:
			row.Health, row.Rank = "not yet healthy", warn
		}
		if a, ok := view.Agent(t.Agent); ok {
			row.Agent = a.Hostname
			if a.Active {
				row.Stdout, row.Stderr = sandboxFile(t, "stdout"), sandboxFile(t, "stderr")
			}
		}
		p.Tasks = append(p.Tasks, row)
	}
	return on, of
}

// sandboxFile links to a file of a task, by the names that every agent serves.
func sandboxFile(t *feed.Task, name string) string {
	executor := cmp.Or(string(t.Executor), string(t.Task))
	path := "/frameworks/" + string(t.Framework) + "/executors/" + executor + "/runs/latest/" + name
	return "/agent/" + url.PathEscape(string(t.Agent)) + "/files/download?path=" + url.QueryEscape(path)
}

func (p *homePage) addAgents(view *feed.View, on map[task.AgentID]int, usage map[string]agentUsage) {
	for a := range view.Agents() {
		row := agentRow{ID: string(a.ID), Hostname: a.Hostname, Active: a.Active, Public: slices.Contains(a.Roles, "slave_public"), Tasks: on[a.ID]}
		if addr := a.Addr.String(); a.Addr.IsValid() && addr != a.Hostname {
			row.Addr = addr
		}
		var attributes []string
		for _, at := range a.Attributes {
			if text := at.GetText(); text != nil {
				attributes = append(attributes, at.GetName()+"="+text.GetValue())
			}
		}
		row.Attributes = strings.Join(attributes, " ")
		if u, ok := usage[row.ID]; ok {
			row.CPUs, row.Mem, row.Disk = gauge{u.Used.CPUs, u.Total.CPUs}, gauge{u.Used.Mem, u.Total.Mem}, gauge{u.Used.Disk, u.Total.Disk}
			if a.Active {
				for sum, own := range map[*gauge]gauge{&p.CPUs: row.CPUs, &p.Mem: row.Mem, &p.Disk: row.Disk} {
					sum.Used, sum.Total = sum.Used+own.Used, sum.Total+own.Total
				}
			}
		}
		p.Agents = append(p.Agents, row)
	}
}

// newAppRow says how an app is, and why.
func newAppRow(a appAnswer, q queueItem, now time.Time) appRow {
	row := appRow{
		ID: a.ID, Instances: a.Instances, Running: a.TasksRunning, Checked: len(a.HealthChecks) > 0,
		Healthy: a.TasksHealthy, Unhealthy: a.TasksUnhealthy, CPUs: a.CPUs, Mem: a.Mem,
	}
	failure, age := a.failure(now)
	short := a.TasksRunning < a.Instances
	switch {
	case a.TasksUnhealthy > 0:
		row.State, row.Rank, row.Why = "unhealthy", bad, fmt.Sprintf("%d of %d instances fail their health checks", a.TasksUnhealthy, a.Instances)
	case short && failure != "":
		row.State, row.Rank, row.Why = "failing", bad, failure
		if q.Delay.TimeLeftSeconds > 0 {
			row.Why += fmt.Sprintf("; next try in %d s", q.Delay.TimeLeftSeconds)
		}
	case short && q.Count > 0 && q.reason() != "":
		row.State, row.Rank, row.Why = "waiting", warn, q.reason()
	case len(a.Deployments) > 0:
		row.State, row.Rank = "deploying", warn
		if !short && row.Checked && a.TasksHealthy < a.Instances {
			row.Why = fmt.Sprintf("%d of %d instances are healthy", a.TasksHealthy, a.Instances)
		}
	case a.Instances == 0:
		row.State, row.Rank = "suspended", idle
	case short:
		row.State, row.Rank = "waiting", warn
	case row.Checked && a.TasksHealthy < a.Instances:
		row.State, row.Rank, row.Why = "starting", warn, fmt.Sprintf("%d of %d instances are healthy", a.TasksHealthy, a.Instances)
	case failure != "" && age < fresh:
		row.State, row.Rank, row.Why = "recovering", warn, failure
	case row.Checked:
		row.State, row.Rank, row.Why = "healthy", fine, failure
	default:
		row.State, row.Rank, row.Why = "running", fine, failure
	}
	return row
}

// appAnswer is what the page reads of an app.
type appAnswer struct {
	ID              string            `json:"id"`
	Instances       int               `json:"instances"`
	CPUs            float64           `json:"cpus"`
	Mem             float64           `json:"mem"`
	TasksRunning    int               `json:"tasksRunning"`
	TasksHealthy    int               `json:"tasksHealthy"`
	TasksUnhealthy  int               `json:"tasksUnhealthy"`
	Deployments     []json.RawMessage `json:"deployments"`
	HealthChecks    []json.RawMessage `json:"healthChecks"`
	LastTaskFailure *struct {
		Host      string    `json:"host"`
		Message   string    `json:"message"`
		State     string    `json:"state"`
		Timestamp time.Time `json:"timestamp"`
	} `json:"lastTaskFailure"`
}

// failure says how an instance ended of late, and how long ago; it is empty
// when none has.
func (a appAnswer) failure(now time.Time) (string, time.Duration) {
	f := a.LastTaskFailure
	if f == nil || now.Sub(f.Timestamp) >= recent {
		return "", 0
	}
	age := max(0, now.Sub(f.Timestamp)).Round(time.Second)
	message := []rune(strings.Join(strings.Fields(f.Message), " "))
	if len(message) > maxWhy {
		message = append(message[:maxWhy-1], '…')
	}
	return fmt.Sprintf("%s %s ago on %s: %s", strings.ToLower(strings.TrimPrefix(f.State, "TASK_")), age, f.Host, string(message)), age
}

func (g *Gateway) askApps(ctx context.Context) ([]appAnswer, error) {
	var list struct {
		Apps []appAnswer `json:"apps"`
	}
	err := g.ask(ctx, config.PortOrchestrator, "/v2/apps?embed=apps.lastTaskFailure", &list)
	return list.Apps, err
}

// queueItem is what the page reads of an app that waits for offers.
type queueItem struct {
	App struct {
		ID string `json:"id"`
	} `json:"app"`
	Count int `json:"count"`
	Delay struct {
		TimeLeftSeconds int `json:"timeLeftSeconds"`
	} `json:"delay"`
	Summary struct {
		Last []rejected `json:"rejectSummaryLastOffers"`
	} `json:"processedOffersSummary"`
}

// rejected counts offers that were not used for one reason.
type rejected struct {
	Reason   string `json:"reason"`
	Declined int    `json:"declined"`
}

// missing is what the orchestrator's reasons for not using an offer mean.
var missing = map[string]string{
	"UnfulfilledRole":                 "reserved for another role",
	"UnfulfilledConstraint":           "constraints not met",
	"NoCorrespondingReservationFound": "not the reservation it needs",
	"AgentMaintenance":                "maintenance ahead",
	"InsufficientCpus":                "too few CPUs free",
	"InsufficientMemory":              "too little memory free",
	"InsufficientDisk":                "too little disk free",
	"InsufficientGpus":                "too few GPUs free",
	"InsufficientPorts":               "ports taken",
	"DeclinedScarceResources":         "kept for apps that need GPUs",
}

// reason is why no agent is good enough, the most frequent first.
func (q queueItem) reason() string {
	rows := slices.Clone(q.Summary.Last)
	slices.SortStableFunc(rows, func(a, b rejected) int { return b.Declined - a.Declined })
	var parts []string
	for _, r := range rows {
		if text := missing[r.Reason]; text != "" && r.Declined > 0 {
			parts = append(parts, fmt.Sprintf("%s on %d", text, r.Declined))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return "no agent fits: " + strings.Join(parts, ", ")
}

func (g *Gateway) askQueue(ctx context.Context) (map[string]queueItem, error) {
	var list struct {
		Queue []queueItem `json:"queue"`
	}
	if err := g.ask(ctx, config.PortOrchestrator, "/v2/queue", &list); err != nil {
		return nil, err
	}
	m := make(map[string]queueItem, len(list.Queue))
	for _, q := range list.Queue {
		m[q.App.ID] = q
	}
	return m, nil
}

type resources struct {
	CPUs float64 `json:"cpus"`
	Mem  float64 `json:"mem"`
	Disk float64 `json:"disk"`
}

type agentUsage struct {
	ID    string    `json:"id"`
	Total resources `json:"resources"`
	Used  resources `json:"used_resources"`
}

func (g *Gateway) askUsage(ctx context.Context) (map[string]agentUsage, error) {
	var list struct {
		Slaves []agentUsage `json:"slaves"`
	}
	if err := g.ask(ctx, config.PortMaster, "/state-summary", &list); err != nil {
		return nil, err
	}
	m := make(map[string]agentUsage, len(list.Slaves))
	for _, a := range list.Slaves {
		m[a.ID] = a
	}
	return m, nil
}

// ask reads JSON from a component on the leading master.
func (g *Gateway) ask(ctx context.Context, port int, path string, out any) error {
	op := "read " + path
	addr, ok := g.cfg.Leader()
	if !ok {
		return fault.Newf(op, fault.Unavailable, "no master leads")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("https://%s:%d%s", addr, port, path), nil)
	if err != nil {
		return fault.New(op, fault.Internal, err)
	}
	req.Header.Set("Accept", "application/json")
	resp, err := g.cfg.Masters.RoundTrip(req)
	if err != nil {
		return fault.New(op, fault.Unavailable, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fault.Newf(op, fault.Unavailable, "%s", resp.Status)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 256<<20)).Decode(out); err != nil {
		return fault.New(op, fault.Unavailable, err)
	}
	return nil
}

// number writes v with two decimals at most.
func number(v float64) string {
	return strconv.FormatFloat(math.Round(v*100)/100, 'f', -1, 64)
}

// size writes MiB as people read them.
func size(mib float64) string {
	if mib >= 1024 {
		return strconv.FormatFloat(math.Round(mib/1024*10)/10, 'f', -1, 64) + " GiB"
	}
	return number(mib) + " MiB"
}
