package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/master"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/feed"
	"dcos.example/dcos/runtime/gateway"
	"dcos.example/dcos/runtime/identity"
	"dcos.example/dcos/runtime/password"
	"dcos.example/dcos/runtime/server"
	"dcos.example/dcos/runtime/state/memory"
)

var update = flag.Bool("update", false, "rewrite golden files")

var adminHash = sync.OnceValue(func() string {
	h, err := password.Hash("secret")
	if err != nil {
		panic(err)
	}
	return h
})

// store is shared, because making its signing key takes long.
var store = sync.OnceValue(memory.New)

// front is a gateway with the real identity service, over an in-memory
// network where tests put what answers at an address.
type front struct {
	*gateway.Gateway
	ids    *identity.Service
	token  string
	leader netip.Addr
	view   *feed.View
	net    map[string]http.Handler
	server *httptest.Server
}

func newFront(t *testing.T) *front {
	t.Helper()
	ids, err := identity.New(identity.Config{
		Store: store(), SealKey: make([]byte, 32), ClusterID: "cluster-1",
		First: identity.FirstUser{UID: "admin", PasswordHash: adminHash()}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = ids.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	f := &front{ids: ids, leader: netip.MustParseAddr("198.19.50.1"), view: feed.Of("https://198.19.50.1:5050", clusterState()), net: map[string]http.Handler{}}
	cfg := gateway.Config{
		Cluster: config.Cluster{ID: "cluster-1", Name: "test", Release: "0.1.0"},
		Members: func() []config.Member { return []config.Member{{Name: "m1", Addr: netip.MustParseAddr("198.19.50.1")}} },
		Host:    config.Host{Name: "m1", Addr: netip.MustParseAddr("198.19.50.1")},
		CAPEM:   []byte("-----BEGIN CERTIFICATE-----\n"),
		Auth:    ids, Identity: ids.Handler(),
		Leader: func() (netip.Addr, bool) { return f.leader, f.leader.IsValid() },
		View:   func() *feed.View { return f.view },
		DNS: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, "dns ", r.URL.Path, r.Header.Get("Authorization"))
		}),
		VIPs:     http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "vips ", r.URL.Path) }),
		Operated: func(name string) bool { return name == "web" || name == "prod/kafka" },
		Catalog: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "catalog %s %s auth=%q", r.Method, r.URL.Path, r.Header.Get("Authorization"))
		}),
		Admin:      "admin",
		Deposit:    http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "state ", r.Method) }),
		Membership: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "membership ", r.Method, " ", r.URL.Path) }),
		Components: map[string]string{"mesos": "1.11", "marathon": "1.11"},
		Log:        slog.New(slog.DiscardHandler),
	}
	via := f.transport(t)
	cfg.Masters, cfg.Agents = via, via
	if f.Gateway, err = gateway.New(cfg); err != nil {
		t.Fatal(err)
	}
	f.SetApps(via)
	f.server = httptest.NewServer(f)
	t.Cleanup(f.server.Close)
	// The signing key comes with first boot.
	deadline := time.Now().Add(10 * time.Second)
	for {
		if f.token, err = ids.Login(t.Context(), "admin", "secret", "198.19.50.9"); err == nil {
			return f
		}
		if !fault.Is(err, fault.Unavailable) || time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
}

// transport reaches the handlers in f.net by "host:port". TLS is pki's test's
// business: here the connection is taken to be encrypted already.
func (f *front) transport(t *testing.T) *http.Transport {
	var mu sync.Mutex
	open := map[string]*server.Memory{}
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		mu.Lock()
		h, ok := f.net[addr]
		l, up := open[addr]
		if ok && !up {
			l = server.NewMemory()
			open[addr] = l
			srv := &http.Server{Handler: h}
			done := make(chan struct{})
			go func() { defer close(done); _ = srv.Serve(l) }()
			t.Cleanup(func() { _ = srv.Close(); <-done })
		}
		mu.Unlock()
		if !ok {
			return nil, fmt.Errorf("dial %s: connection refused", addr)
		}
		return l.DialContext(ctx, network, addr)
	}
	tr := &http.Transport{DialContext: dial, DialTLSContext: dial, DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

func str(s string) *string { return &s }

func clusterState() *master.Response_GetState {
	agent := func(id, ip string) *master.Response_GetAgents_Agent {
		return &master.Response_GetAgents_Agent{
			AgentInfo: &mesos.AgentInfo{Id: &mesos.AgentID{Value: &id}, Hostname: str(id + ".host")},
			Active:    proto.Bool(true), Version: str("1"), Pid: str("slave(1)@" + ip + ":5051"),
		}
	}
	app := func(id, name, agentID, service, ports string) *mesos.Task {
		begin := uint64(31000)
		return &mesos.Task{
			Name: &name, TaskId: &mesos.TaskID{Value: &id}, FrameworkId: &mesos.FrameworkID{Value: str("fw")},
			AgentId: &mesos.AgentID{Value: &agentID}, State: mesos.TaskState_TASK_RUNNING.Enum(),
			Labels: &mesos.Labels{Labels: []*mesos.Label{
				{Key: str("DCOS_SERVICE_NAME"), Value: &service}, {Key: str("DCOS_SERVICE_SCHEME"), Value: str("http")}, {Key: str("DCOS_SERVICE_PORT_INDEX"), Value: str("0")},
			}},
			Resources: []*mesos.Resource{{Name: str("ports"), Type: mesos.Value_RANGES.Enum(), Ranges: &mesos.Value_Ranges{Range: []*mesos.Value_Range{{Begin: &begin, End: &begin}}}}},
		}
	}
	return &master.Response_GetState{
		GetAgents: &master.Response_GetAgents{Agents: []*master.Response_GetAgents_Agent{agent("agent-1", "198.19.50.21"), agent("agent-2", "198.19.50.22")}},
		GetFrameworks: &master.Response_GetFrameworks{Frameworks: []*master.Response_GetFrameworks_Framework{{
			FrameworkInfo: &mesos.FrameworkInfo{User: str("root"), Name: str("marathon"), Id: &mesos.FrameworkID{Value: str("fw")}},
			Active:        proto.Bool(true), Connected: proto.Bool(true), Recovered: proto.Bool(false),
		}}},
		GetTasks: &master.Response_GetTasks{Tasks: []*mesos.Task{app("web.1", "web", "agent-1", "web", "")}},
	}
}

// ask sends a request to the gateway's handler without following redirects.
func (f *front) ask(t *testing.T, method, path string, body io.Reader, header ...string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, f.server.URL+path, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

func text(t *testing.T, resp *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func (f *front) auth() []string { return []string{"Authorization", "token=" + f.token} }

func TestFrontDoorGolden(t *testing.T) {
	got := newFront(t).Table()
	const file = "testdata/frontdoor.golden"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

// What is kept for the administrator is not for other users, nor to be reached
// by another way.
func TestAdmins(t *testing.T) {
	f := newFront(t)
	f.net["198.19.50.1:5050"] = echo("master")
	create := f.ask(t, "PUT", "/acs/api/v1/users/ann", strings.NewReader(`{"password":"long enough"}`), append(f.auth(), "Content-Type", "application/json")...)
	if create.StatusCode != 201 {
		t.Fatal(create.Status, text(t, create))
	}
	ann, err := f.ids.Login(t.Context(), "ann", "long enough", "198.19.50.9")
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/system/v1/backups":         `master POST /backups host=198.19.50.1:5050 auth="" cookie="" prefix="/system/v1" body=""`,
		"/system/v1/backups/x":       `master POST /backups/x host=198.19.50.1:5050 auth="" cookie="" prefix="/system/v1" body=""`,
		"/system/v1/installer-state": "state POST",
		"/system/v1/members":         "membership POST /members",
		"/system/v1/members/m1":      "membership POST /members/m1",
		"/package/repository/add":    `catalog POST /package/repository/add auth=""`,
		"/package/repository/delete": `catalog POST /package/repository/delete auth=""`,
	} {
		if resp := f.ask(t, "POST", path, nil, f.auth()...); text(t, resp) != want {
			t.Errorf("%s: %s", path, resp.Status)
		}
		if resp := f.ask(t, "POST", path, nil, "Authorization", "token="+ann); resp.StatusCode != 403 {
			t.Errorf("%s as another user: %s", path, resp.Status)
		}
	}
	for _, path := range []string{"/mesos/backups", "/mesos/backups/x", "/mesos//backups", "/mesos/%62ackups", "/mesos/backup-copies/x", "/mesos/membership/leave", "/mesos/backups%2Fx", "/mesos/services/", "/package/repository/add/", "/package//repository/add"} {
		if resp := f.ask(t, "GET", path, nil, f.auth()...); resp.StatusCode != 404 {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
}

// Everything that is not meant for everyone is a 401 without a token, also
// what does not exist and however the path is spelled.
func TestTokenNeeded(t *testing.T) {
	f := newFront(t)
	for _, path := range []string{
		"/mesos/state", "/mesos/api/v1", "/service/marathon/v2/apps", "/marathon/v2/apps", "/service/web/", "/agent/agent-1/state", "/slave/agent-1/state",
		"/acs/api/v1/users", "/acs/api/v1/users/admin", "/acs/api/v1/auth", "/metadata", "/pkgpanda/active.buildinfo.full.json", "/mesos_dns/v1/version", "/net/v1/nodes", "/net/v1/vips", "/net/x",
		"/system/v1/backups", "/system/v1/backups/x", "/system/v1/installer-state", "/system/v1/members", "/system/v1/members/m1", "/system/v1/x",
		"/package/search", "/package/repository/list", "/cosmos/service/describe", "/capabilities", "/services/", "/services/kafka", "/service/kafka/v1/plans",
		"/nothing", "//", "//mesos/state", "/mesos//state", "/acs/api/v1//users", "/login/x", "/service//x",
	} {
		resp := f.ask(t, "GET", path, nil)
		body := text(t, resp)
		if resp.StatusCode != 401 || resp.Header.Get("WWW-Authenticate") != "oauthjwt" || !strings.Contains(body, "window.location") || !strings.Contains(body, "<html") {
			t.Errorf("%s: %s %v %.80q", path, resp.Status, resp.Header["Www-Authenticate"], body)
		}
		if resp = f.ask(t, "HEAD", path, nil); resp.StatusCode != 401 {
			t.Errorf("HEAD %s: %s", path, resp.Status)
		}
		if resp = f.ask(t, "GET", path, nil, "Authorization", "token=x", "Accept", "application/json"); resp.StatusCode != 401 || !json.Valid([]byte(text(t, resp))) {
			t.Errorf("%s with a wrong token: %s", path, resp.Status)
		}
	}
	for _, path := range []string{
		"/acs/api/v1/auth/../users", "/acs/api/v1/auth/%2e%2e/users", "/acs/api/v1/auth/..%2fusers", `/acs/api/v1/auth/..%5cusers`,
		"/mesos%2Fstate", "/%6desos/state",
	} {
		if resp := f.ask(t, "GET", path, nil); resp.StatusCode != 400 {
			t.Errorf("%s: %s, want 400", path, resp.Status)
		}
	}
}

func TestOwnAnswers(t *testing.T) {
	f := newFront(t)
	for _, tc := range []struct{ path, want string }{
		{"/dcos-metadata/dcos-version.json", `"version":"0.1.0"`},
		{"/dcos-metadata/ui-config.json", `"id":"cluster-1"`},
		{"/ca/dcos-ca.crt", "BEGIN CERTIFICATE"},
		{"/acs/api/v1/auth/providers", "dcos-uid-password"},
		{"/acs/api/v1/auth/jwks", `"alg":"RS256"`},
		{"/acs/api/v1/users", `"uid":"admin"`},
		{"/metadata", `"CLUSTER_ID":"cluster-1"`},
		{"/pkgpanda/active.buildinfo.full.json", `"mesos":{"name":"mesos","version":"1.11"}`},
		{"/net/v1/nodes", `{"private_ip":"198.19.50.21","public_ips":[],"hostname":"agent-1.host"`},
		{"/net/v1/vips", "vips /v1/vips"},
		{"/mesos_dns/v1/version", "dns /v1/version"},
		{"/capabilities", `catalog GET /capabilities auth=""`},
		{"/cosmos/service/describe", `catalog GET /cosmos/service/describe auth=""`},
	} {
		resp := f.ask(t, "GET", tc.path, nil, f.auth()...)
		if body := text(t, resp); resp.StatusCode != 200 || !strings.Contains(body, tc.want) {
			t.Errorf("%s: %s %s; want %s", tc.path, resp.Status, body, tc.want)
		}
	}
	if resp := f.ask(t, "GET", "/nothing", nil, f.auth()...); resp.StatusCode != 404 {
		t.Errorf("/nothing with a token: %s", resp.Status)
	}
	if resp := f.ask(t, "HEAD", "/", nil); resp.StatusCode != 200 {
		t.Errorf("HEAD /: %s", resp.Status)
	}
}

// Redirects name no host: a forged Host header leads nowhere.
func TestRedirects(t *testing.T) {
	f := newFront(t)
	f.net["198.19.50.1:5050"] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "//198.19.50.1:5050")
		w.WriteHeader(307)
	})
	for path, want := range map[string]string{
		"/marathon": "307 /marathon/", "/mesos": "301 /mesos/", "/mesos_dns": "301 /mesos_dns/", "/net": "301 /net/",
		"/service/marathon": "301 /service/marathon/", "/service/test-service": "301 /service/test-service/",
		"/services":  "301 /services/",
		"/mesos?x=1": "301 /mesos/?x=1", "/agent/agent-1": "301 /agent/agent-1/",
		"/mesos/master/redirect": "307 /mesos/",
	} {
		resp := f.ask(t, "GET", path, nil, append(f.auth(), "Host", "bad.host")...)
		if got := fmt.Sprint(resp.StatusCode, " ", resp.Header.Get("Location")); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

func echo(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s host=%s auth=%q cookie=%q prefix=%q body=%q", name, r.Method, r.URL.RequestURI(), r.Host,
			r.Header.Get("Authorization"), r.Header.Get("Cookie"), r.Header.Get("X-Forwarded-Prefix"), b)
	})
}

// Who answers sees the path below its prefix and none of the caller's secrets.
func TestPassOn(t *testing.T) {
	f := newFront(t)
	f.net["198.19.50.1:5050"] = echo("master")
	f.net["198.19.50.1:8080"] = echo("marathon")
	f.net["198.19.50.21:5051"] = echo("agent")
	f.net["198.19.50.21:31000"] = echo("web")
	cookies := "a=1; dcos-acs-auth-cookie=" + f.token + "; dcos-acs-info-cookie=x; b=2"
	for _, tc := range []struct{ path, want string }{
		{"/mesos/master/state?x=1", `master POST /master/state?x=1 host=198.19.50.1:5050 auth="" cookie="a=1; b=2" prefix="/mesos" body="hi"`},
		{"/marathon/v2/apps", `marathon POST /v2/apps host=198.19.50.1:8080 auth="" cookie="a=1; b=2" prefix="/marathon" body="hi"`},
		{"/service/marathon/v2/apps//a/b?force=true", `marathon POST /v2/apps//a/b?force=true host=198.19.50.1:8080 auth="" cookie="a=1; b=2" prefix="/service/marathon" body="hi"`},
		{"/agent/agent-1/files/read?path=%2Fx", `agent POST /files/read?path=%2Fx host=198.19.50.21:5051 auth="" cookie="a=1; b=2" prefix="/agent/agent-1" body="hi"`},
		{"/slave/agent-1/api/v1", `agent POST /api/v1 host=198.19.50.21:5051 auth="" cookie="a=1; b=2" prefix="/slave/agent-1" body="hi"`},
		{"/service/web/x%2Fy", `web POST /x%2Fy host=front.door auth="" cookie="a=1; b=2" prefix="/service/web" body="hi"`},
		{"/services/prod%2Fkafka/v1/pod?x=1", `master POST /services/prod%2Fkafka/v1/pod?x=1 host=198.19.50.1:5050 auth="" cookie="a=1; b=2" prefix="" body="hi"`},
		{"/service/web/v1/plans/deploy?x=1", `master POST /services/web/v1/plans/deploy?x=1 host=198.19.50.1:5050 auth="" cookie="a=1; b=2" prefix="/service/web" body="hi"`},
		{"/service/prod/kafka/v1/plans", `master POST /services/prod%2Fkafka/v1/plans host=198.19.50.1:5050 auth="" cookie="a=1; b=2" prefix="/service/prod/kafka" body="hi"`},
	} {
		for _, header := range [][]string{f.auth(), {"Origin", "https://front.door"}} {
			resp := f.ask(t, "POST", tc.path, strings.NewReader("hi"), append(header, "Cookie", cookies, "Host", "front.door")...)
			if got := text(t, resp); got != tc.want {
				t.Errorf("%s:\n got %s\nwant %s", tc.path, got, tc.want)
			}
		}
	}
	for path, want := range map[string]int{
		"/agent/ghost/state": 404, "/agent/agent-2/state": 502, "/service/ghost/": 404, "/service/marathon%2Fv2": 400,
	} {
		if resp := f.ask(t, "GET", path, nil, f.auth()...); resp.StatusCode != want {
			t.Errorf("%s: %s, want %d", path, resp.Status, want)
		}
	}
	f.leader = netip.Addr{}
	if resp := f.ask(t, "GET", "/mesos/state", nil, f.auth()...); resp.StatusCode != 503 {
		t.Errorf("without a leader: %s", resp.Status)
	}
}

// What apps answer stays below their prefix and cannot touch the session.
func TestAppAnswers(t *testing.T) {
	f := newFront(t)
	f.net["198.19.50.21:31000"] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", r.URL.Query().Get("to"))
		w.Header().Add("Set-Cookie", "session=1; Path=/")
		w.Header().Add("Set-Cookie", "dcos-acs-auth-cookie=evil; Path=/")
		w.WriteHeader(302)
	})
	for to, want := range map[string]string{
		"/login": "/service/web/login", "http://198.19.50.21:31000/a?b=c#d": "/service/web/a?b=c#d",
		"https://elsewhere.example/x": "https://elsewhere.example/x", "next": "next", "/service/web/x": "/service/web/x",
	} {
		resp := f.ask(t, "GET", "/service/web/?to="+url.QueryEscape(to), nil, f.auth()...)
		if got := resp.Header.Get("Location"); got != want {
			t.Errorf("%s: %s, want %s", to, got, want)
		}
		if d := cmp.Diff([]string{"session=1; Path=/"}, resp.Header.Values("Set-Cookie")); d != "" {
			t.Error(d)
		}
	}
}

// Events pass one by one, and a caller can send while it receives.
func TestStreams(t *testing.T) {
	f := newFront(t)
	next := make(chan string)
	f.net["198.19.50.1:8080"] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for e := range next {
			fmt.Fprintf(w, "data: %s\n\n", e)
			w.(http.Flusher).Flush()
		}
	})
	resp := make(chan *http.Response, 1)
	go func() { next <- "one"; next <- "two"; close(next) }()
	resp <- f.ask(t, "GET", "/service/marathon/v2/events", nil, f.auth()...)
	lines := bufio.NewScanner((<-resp).Body)
	var got []string
	for lines.Scan() {
		if lines.Text() != "" {
			got = append(got, lines.Text())
		}
	}
	if d := cmp.Diff([]string{"data: one", "data: two"}, got); d != "" {
		t.Error(d)
	}

	f.net["198.19.50.21:5051"] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		in := bufio.NewScanner(r.Body)
		for in.Scan() {
			fmt.Fprintf(w, "echo %s\n", in.Text())
			w.(http.Flusher).Flush()
		}
	})
	pr, pw := io.Pipe()
	defer pw.Close()
	go func() { _, _ = io.WriteString(pw, "first\n") }()
	both := f.ask(t, "POST", "/agent/agent-1/api/v1", pr, f.auth()...)
	out := bufio.NewReader(both.Body)
	for _, line := range []string{"first", "second"} {
		if s, err := out.ReadString('\n'); s != "echo "+line+"\n" {
			t.Fatalf("got %q, %v", s, err)
		}
		if line == "first" {
			go func() { _, _ = io.WriteString(pw, "second\n") }()
		}
	}
}

func TestWebsocket(t *testing.T) {
	f := newFront(t)
	f.net["198.19.50.21:31000"] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Upgrade", "websocket")
		w.Header().Set("Connection", "Upgrade")
		w.WriteHeader(http.StatusSwitchingProtocols)
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		s, _ := rw.ReadString('\n')
		_, _ = io.WriteString(conn, "echo "+s)
	})
	upgrade := []string{"Connection", "Upgrade", "Upgrade", "websocket"}
	resp := f.ask(t, "GET", "/service/web/ws", nil, append(f.auth(), upgrade...)...)
	if resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(resp.Status)
	}
	conn := resp.Body.(io.ReadWriteCloser)
	_, _ = io.WriteString(conn, "hello\n")
	if s, err := bufio.NewReader(conn).ReadString('\n'); s != "echo hello\n" {
		t.Errorf("%q, %v", s, err)
	}
	// A page of another origin may not open one with the user's cookie.
	cookie := []string{"Cookie", "dcos-acs-auth-cookie=" + f.token, "Host", "front.door"}
	if resp := f.ask(t, "GET", "/service/web/ws", nil, append(cookie, append(upgrade, "Origin", "https://evil.example")...)...); resp.StatusCode != 403 {
		t.Errorf("websocket from another origin: %s", resp.Status)
	}
}

// With a cookie, changes are accepted from pages of this origin only.
func TestCrossOrigin(t *testing.T) {
	f := newFront(t)
	f.net["198.19.50.1:8080"] = echo("marathon")
	cookie := []string{"Cookie", "dcos-acs-auth-cookie=" + f.token, "Host", "front.door"}
	for name, tc := range map[string]struct {
		header []string
		want   int
	}{
		"same origin":            {append(cookie, "Sec-Fetch-Site", "same-origin"), 200},
		"another site":           {append(cookie, "Sec-Fetch-Site", "cross-site"), 403},
		"another port":           {append(cookie, "Sec-Fetch-Site", "same-site"), 403},
		"old browser, other":     {append(cookie, "Origin", "https://evil.example"), 403},
		"no browser":             {cookie, 200},
		"token from another one": {append(f.auth(), "Origin", "https://ui.example", "Host", "front.door"), 200},
	} {
		if resp := f.ask(t, "POST", "/service/marathon/v2/apps", nil, tc.header...); resp.StatusCode != tc.want {
			t.Errorf("%s: %s, want %d", name, resp.Status, tc.want)
		}
	}
}

var csrfField = regexp.MustCompile(`name="csrf" value="([^"]+)"`)

func TestLoginForm(t *testing.T) {
	f := newFront(t)
	page := f.ask(t, "GET", "/login?next=/service/web/", nil, "Accept", "text/html")
	body := text(t, page)
	secret := csrfField.FindStringSubmatch(body)
	var csrf *http.Cookie
	for _, c := range page.Cookies() {
		csrf = c
	}
	if secret == nil || csrf == nil || !csrf.HttpOnly || !csrf.Secure || csrf.SameSite != http.SameSiteStrictMode || !strings.Contains(body, `value="/service/web/"`) {
		t.Fatalf("cookie %+v, page %s", csrf, body)
	}
	if csp := page.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") {
		t.Errorf("CSP = %q", csp)
	}
	form := func(pw, csrf, next string) io.Reader {
		return strings.NewReader(url.Values{"uid": {"admin"}, "password": {pw}, "csrf": {csrf}, "next": {next}}.Encode())
	}
	const kind = "application/x-www-form-urlencoded"
	with := csrf.Name + "=" + csrf.Value
	for name, tc := range map[string]struct {
		body   io.Reader
		header []string
		want   int
		says   string
	}{
		"no cookie":      {form("secret", secret[1], "/"), []string{"Content-Type", kind}, 403, "too old"},
		"no field":       {form("secret", "", "/"), []string{"Content-Type", kind, "Cookie", with}, 403, "too old"},
		"wrong field":    {form("secret", "x", "/"), []string{"Content-Type", kind, "Cookie", with}, 403, "too old"},
		"other origin":   {form("secret", secret[1], "/"), []string{"Content-Type", kind, "Cookie", with, "Sec-Fetch-Site", "cross-site"}, 403, "too old"},
		"wrong password": {form("x", secret[1], "/"), []string{"Content-Type", kind, "Cookie", with}, 401, "wrong"},
	} {
		resp := f.ask(t, "POST", "/login", tc.body, tc.header...)
		if body := text(t, resp); resp.StatusCode != tc.want || !strings.Contains(body, tc.says) || strings.Contains(body, "secret") {
			t.Errorf("%s: %s %s", name, resp.Status, body)
		}
	}
	for next, want := range map[string]string{"/service/web/": "/service/web/", "//evil.example": "/", "https://evil.example": "/", `/\evil.example`: "/", "": "/"} {
		resp := f.ask(t, "POST", "/login", form("secret", secret[1], next), "Content-Type", kind, "Cookie", with)
		if resp.StatusCode != 303 || resp.Header.Get("Location") != want {
			t.Errorf("next %q: %s %s", next, resp.Status, resp.Header.Get("Location"))
		}
		var session *http.Cookie
		for _, c := range resp.Cookies() {
			if c.Name == identity.AuthCookie {
				session = c
			}
		}
		if session == nil || !session.HttpOnly || !session.Secure || session.SameSite != http.SameSiteLaxMode {
			t.Fatalf("session cookie %+v", session)
		}
		home := f.ask(t, "GET", "/", nil, "Cookie", session.Name+"="+session.Value)
		if body := text(t, home); !strings.Contains(body, "Log out") {
			t.Errorf("home after login: %s", body)
		}
	}
}

func TestHomePage(t *testing.T) {
	f := newFront(t)
	f.net["198.19.50.1:8080"] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `{"apps":[{"id":"/web","instances":2,"cpus":0.5,"mem":64,"tasksRunning":1,"tasksUnhealthy":1},{"id":"/<b>x","instances":0}]}`)
	})
	body := text(t, f.ask(t, "GET", "/", nil, f.auth()...))
	for _, want := range []string{`<a href="/service/web/">/web</a>`, "1 of 2", "unhealthy", "/&lt;b&gt;x", "suspended", "agent-1.host", "web.1", `href="/agent/agent-1/state"`, `lang="en"`} {
		if !strings.Contains(body, want) {
			t.Errorf("page lacks %q", want)
		}
	}
	if strings.Contains(body, "<script") {
		t.Error("the page has a script")
	}
	delete(f.net, "198.19.50.1:8080")
	f2 := newFront(t)
	if body := text(t, f2.ask(t, "GET", "/", nil, f2.auth()...)); !strings.Contains(body, "orchestrator does not answer") || !strings.Contains(body, "agent-1.host") {
		t.Errorf("page without the orchestrator: %s", body)
	}
}

func TestPlain(t *testing.T) {
	f := newFront(t)
	for _, tc := range []struct{ host, path, want string }{
		{"cluster.example", "/a?b=c", "308 https://cluster.example/a?b=c"},
		{"cluster.example:80", "/", "308 https://cluster.example/"},
		{"bad host/x", "/", "308 https://198.19.50.1/"},
		{"", "/", "308 https://198.19.50.1/"},
	} {
		r := httptest.NewRequest("GET", tc.path, nil)
		r.Host = tc.host
		w := httptest.NewRecorder()
		f.Plain().ServeHTTP(w, r)
		if got := fmt.Sprint(w.Code, " ", w.Header().Get("Location")); got != tc.want {
			t.Errorf("%s%s: %s, want %s", tc.host, tc.path, got, tc.want)
		}
	}
	w := httptest.NewRecorder()
	f.Plain().ServeHTTP(w, httptest.NewRequest("GET", "/ca/dcos-ca.crt", nil))
	if w.Code != 200 || !bytes.Contains(w.Body.Bytes(), []byte("CERTIFICATE")) {
		t.Errorf("CA certificate: %d", w.Code)
	}
}

// A framework's web UI may have a name that leads to the master's loopback,
// where callers are trusted.
func TestNamesDoNotLeadHome(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	names := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg).SetReply(r)
		if q := r.Question[0]; q.Qtype == dns.TypeA {
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}, A: net.IPv4(127, 0, 0, 1)}}
		}
		_ = w.WriteMsg(m)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = names.ActivateAndServe() }()
	t.Cleanup(func() { _ = conn.Close(); <-done })
	dial := gateway.DialApps(&net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}})
	for _, host := range []string{"ui.example", "127.0.0.1", "::ffff:127.0.0.1", "169.254.169.254"} {
		c, err := dial(t.Context(), "tcp", net.JoinHostPort(host, port))
		if err == nil {
			_ = c.Close()
		}
		if !fault.Is(err, fault.Denied) {
			t.Errorf("%s: %v, want a refusal", host, err)
		}
	}
}
