package gateway

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/feed"
	"dcos.example/dcos/runtime/task"
)

//go:embed pages
var files embed.FS

// csrfCookie holds the secret that a form must repeat. The __Host- prefix
// keeps pages of other origins of this host from planting one.
const csrfCookie = "__Host-dcos-csrf"

// maxRows bounds each list of the page; the CLI and the APIs have them all.
const maxRows = 500

// pages are the gateway's own HTML pages. They need no script.
type pages struct {
	t   *template.Template
	csp string
}

func newPages() (*pages, error) {
	const op = "read pages"
	style, err := files.ReadFile("pages/style.css")
	if err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	script, err := files.ReadFile("pages/401.js")
	if err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	hash := func(b []byte) string {
		sum := sha256.Sum256(b)
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	t, err := template.New("").Funcs(template.FuncMap{
		"style":  func() template.CSS { return template.CSS(style) }, //nolint:gosec // embedded
		"script": func() template.JS { return template.JS(script) },  //nolint:gosec // embedded
	}).ParseFS(files, "pages/*.html")
	if err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	return &pages{t: t, csp: "default-src 'none'; style-src " + hash(style) + "; script-src " + hash(script) +
		"; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"}, nil
}

func (p *pages) write(w http.ResponseWriter, status int, name string, data any) {
	var b bytes.Buffer
	if err := p.t.ExecuteTemplate(&b, name, data); err != nil {
		http.Error(w, "the page cannot be made: "+err.Error(), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", p.csp)
	h.Set("Referrer-Policy", "same-origin")
	h.Set("X-Frame-Options", "DENY")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // the connection is gone: nobody to tell
}

type loginPage struct {
	Cluster, CSRF, Next, UID, Error string
}

// home shows what runs, or the login form to who is not known.
func (g *Gateway) home(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	uid, err := g.cfg.Auth.Authenticate(r)
	switch {
	case fault.Is(err, fault.Denied):
		g.showLogin(w, r, http.StatusOK, loginPage{Next: "/"})
	case err != nil:
		g.refuse(w, r, http.StatusServiceUnavailable, "The cluster's store cannot be reached, so nobody can be recognized right now.")
	default:
		g.pages.write(w, http.StatusOK, "home.html", g.overview(r.Context(), uid, g.csrf(w, r)))
	}
}

// login shows the form and takes it.
func (g *Gateway) login(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if r.Method != http.MethodPost {
		g.showLogin(w, r, http.StatusOK, loginPage{Next: localPath(r.URL.Query().Get("next"))})
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, 8<<10)
	page := loginPage{Next: localPath(r.PostFormValue("next")), UID: r.PostFormValue("uid")}
	if !g.formIsOurs(r) {
		page.Error = "The form was too old, or cookies are off. Please try again."
		g.showLogin(w, r, http.StatusForbidden, page)
		return
	}
	token, err := g.cfg.Auth.Login(r.Context(), page.UID, r.PostFormValue("password"), r.RemoteAddr)
	switch {
	case fault.Is(err, fault.Denied):
		page.Error = "User ID or password is wrong."
		g.showLogin(w, r, http.StatusUnauthorized, page)
	case fault.Is(err, fault.Exhausted):
		page.Error = "Too many failed logins. Please wait a few seconds."
		g.showLogin(w, r, http.StatusTooManyRequests, page)
	case err != nil:
		g.cfg.Log.Warn("log in", "err", err)
		page.Error = "The cluster's store cannot be reached. Please try again."
		g.showLogin(w, r, http.StatusServiceUnavailable, page)
	default:
		for _, c := range g.cfg.Auth.LoginCookies(page.UID, token, true) {
			http.SetCookie(w, c)
		}
		w.Header().Set("Location", page.Next)
		w.WriteHeader(http.StatusSeeOther)
	}
}

func (g *Gateway) logout(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if r.Method != http.MethodPost || !g.formIsOurs(r) {
		g.refuse(w, r, http.StatusForbidden, "Log out by the button on the first page.")
		return
	}
	for _, c := range g.cfg.Auth.LogoutCookies(true) {
		http.SetCookie(w, c)
	}
	w.Header().Set("Location", "/")
	w.WriteHeader(http.StatusSeeOther)
}

func (g *Gateway) showLogin(w http.ResponseWriter, r *http.Request, status int, page loginPage) {
	page.Cluster, page.CSRF = g.cfg.Cluster.Name, g.csrf(w, r)
	g.pages.write(w, status, "login.html", page)
}

// csrf returns the form secret of this browser and makes one if needed.
func (g *Gateway) csrf(w http.ResponseWriter, r *http.Request) string {
	if c, err := r.Cookie(csrfCookie); err == nil && len(c.Value) >= 26 {
		return c.Value
	}
	secret := rand.Text()
	http.SetCookie(w, &http.Cookie{Name: csrfCookie, Value: secret, Path: "/", HttpOnly: true, Secure: true, SameSite: http.SameSiteStrictMode})
	return secret
}

// formIsOurs reports whether a form was filled in on a page of this gateway:
// it repeats the secret that only this origin could read and set.
func (g *Gateway) formIsOurs(r *http.Request) bool {
	if g.cross.Check(r) != nil {
		return false
	}
	c, err := r.Cookie(csrfCookie)
	return err == nil && c.Value != "" && subtle.ConstantTimeCompare([]byte(c.Value), []byte(r.PostFormValue("csrf"))) == 1
}

// localPath returns text if it is a path of this host, else "/".
func localPath(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "" || u.Host != "" || !strings.HasPrefix(text, "/") || strings.HasPrefix(text, "//") || strings.ContainsAny(text, "\\\r\n\t") {
		return "/"
	}
	return text
}

type homePage struct {
	Cluster, ClusterID, Release, UID, CSRF string
	Leader, Now                            string
	Notice                                 string // what could not be found out
	Apps                                   []appRow
	Tasks                                  []taskRow
	Agents                                 []agentRow
	Frameworks                             []*feed.Framework
	MoreApps, MoreTasks, MoreAgents        int
	AllApps, AllAgents, Running, Unhealthy int
}

type appRow struct {
	ID, State                             string
	Instances, Running, Healthy, Unhealth int
	CPUs, Mem                             float64
	Link                                  string
}

type taskRow struct {
	Name, State, Health, Agent, Framework string
}

type agentRow struct {
	ID, Hostname, Addr string
	Active, Public     bool
	Tasks              int
}

// overview gathers the page from the feed and, for what is wanted rather than
// what runs, from the orchestrator.
func (g *Gateway) overview(ctx context.Context, uid, csrf string) homePage {
	view := g.cfg.View()
	p := homePage{
		Cluster: g.cfg.Cluster.Name, ClusterID: g.cfg.Cluster.ID, Release: g.cfg.Cluster.Release, UID: uid, CSRF: csrf,
		Now: time.Now().UTC().Format("2006-01-02 15:04:05 UTC"),
	}
	if addr, ok := g.cfg.Leader(); ok {
		p.Leader = addr.String()
	}
	on := make(map[task.AgentID]int)
	for t := range view.Tasks() {
		on[t.Agent]++
		if t.State == task.Running {
			p.Running++
		}
		health := ""
		switch t.Health {
		case feed.Healthy:
			health = "healthy"
		case feed.Unhealthy:
			health = "unhealthy"
			p.Unhealthy++
		}
		row := taskRow{Name: string(t.Task), State: strings.ToLower(strings.TrimPrefix(t.State.String(), "TASK_")), Health: health, Framework: t.FrameworkName}
		if a, ok := view.Agent(t.Agent); ok {
			row.Agent = a.Hostname
		}
		p.Tasks = append(p.Tasks, row)
	}
	for a := range view.Agents() {
		p.Agents = append(p.Agents, agentRow{ID: string(a.ID), Hostname: a.Hostname, Addr: a.Addr.String(), Active: a.Active, Public: slices.Contains(a.Roles, "slave_public"), Tasks: on[a.ID]})
	}
	p.Frameworks = slices.SortedFunc(view.Frameworks(), func(a, b *feed.Framework) int { return cmp.Compare(a.Name, b.Name) })
	var err error
	if p.Apps, err = g.appRows(ctx); err != nil {
		g.cfg.Log.Info("read apps for the page", "err", err)
		p.Notice = "The orchestrator does not answer right now, so apps are not shown."
	}
	table := g.services()
	for i := range p.Apps {
		link := "/service" + p.Apps[i].ID + "/"
		if _, ok := table.Resolve(link); ok {
			p.Apps[i].Link = link
		}
	}
	slices.SortFunc(p.Tasks, func(a, b taskRow) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(p.Agents, func(a, b agentRow) int { return cmp.Compare(a.Hostname, b.Hostname) })
	p.AllApps, p.AllAgents = len(p.Apps), len(p.Agents)
	p.Apps, p.MoreApps = cap500(p.Apps)
	p.Tasks, p.MoreTasks = cap500(p.Tasks)
	p.Agents, p.MoreAgents = cap500(p.Agents)
	return p
}

func cap500[T any](list []T) ([]T, int) {
	if len(list) <= maxRows {
		return list, 0
	}
	return list[:maxRows], len(list) - maxRows
}

// appRows asks the orchestrator; the page must come soon even when it does not.
func (g *Gateway) appRows(ctx context.Context) ([]appRow, error) {
	const op = "read apps"
	addr, ok := g.cfg.Leader()
	if !ok {
		return nil, fault.Newf(op, fault.Unavailable, "no master leads")
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("https://%s:%d/v2/apps", addr, config.PortOrchestrator), nil)
	if err != nil {
		return nil, fault.New(op, fault.Internal, err)
	}
	req.Header.Set("Accept", "application/json")
	resp, err := g.cfg.Masters.RoundTrip(req)
	if err != nil {
		return nil, fault.New(op, fault.Unavailable, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fault.Newf(op, fault.Unavailable, "%s", resp.Status)
	}
	var list struct {
		Apps []struct {
			ID             string            `json:"id"`
			Instances      int               `json:"instances"`
			CPUs           float64           `json:"cpus"`
			Mem            float64           `json:"mem"`
			TasksRunning   int               `json:"tasksRunning"`
			TasksStaged    int               `json:"tasksStaged"`
			TasksHealthy   int               `json:"tasksHealthy"`
			TasksUnhealthy int               `json:"tasksUnhealthy"`
			Deployments    []json.RawMessage `json:"deployments"`
			HealthChecks   []json.RawMessage `json:"healthChecks"`
		} `json:"apps"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 256<<20)).Decode(&list); err != nil {
		return nil, fault.New(op, fault.Unavailable, err)
	}
	rows := make([]appRow, 0, len(list.Apps))
	for _, a := range list.Apps {
		row := appRow{ID: a.ID, Instances: a.Instances, Running: a.TasksRunning, Healthy: a.TasksHealthy, Unhealth: a.TasksUnhealthy, CPUs: a.CPUs, Mem: a.Mem}
		switch {
		case len(a.Deployments) > 0:
			row.State = "deploying"
		case a.TasksUnhealthy > 0:
			row.State = "unhealthy"
		case a.Instances == 0:
			row.State = "suspended"
		case a.TasksRunning < a.Instances:
			row.State = "waiting"
		case len(a.HealthChecks) > 0:
			row.State = "healthy"
		default:
			row.State = "running"
		}
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b appRow) int { return cmp.Compare(a.ID, b.ID) })
	return rows, nil
}
