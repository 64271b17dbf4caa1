package dns_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"

	mdns "github.com/miekg/dns"
	"google.golang.org/protobuf/proto"

	"dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/api/mesos/master"
	"dcos.example/dcos/runtime/dns"
	"dcos.example/dcos/runtime/dns/zone"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/feed"
)

// cluster returns a state with n instances of app web, each on an agent of its
// own, with one discovery port.
func cluster(n int) *master.Response_GetState {
	s := &master.Response_GetState{GetAgents: &master.Response_GetAgents{}, GetTasks: &master.Response_GetTasks{}, GetFrameworks: &master.Response_GetFrameworks{}}
	id := func(v string) *mesos.FrameworkID { return &mesos.FrameworkID{Value: &v} }
	s.GetFrameworks.Frameworks = []*master.Response_GetFrameworks_Framework{{
		FrameworkInfo: &mesos.FrameworkInfo{User: proto.String("root"), Name: proto.String("marathon"), Id: id("f")},
	}}
	for i := range n {
		agent, task := fmt.Sprintf("m-S%d", i), fmt.Sprintf("web.%d", i)
		s.GetAgents.Agents = append(s.GetAgents.Agents, &master.Response_GetAgents_Agent{
			AgentInfo: &mesos.AgentInfo{Hostname: proto.String(fmt.Sprintf("10.1.0.%d", i)), Id: &mesos.AgentID{Value: &agent}},
		})
		s.GetTasks.Tasks = append(s.GetTasks.Tasks, &mesos.Task{
			Name: proto.String("web"), TaskId: &mesos.TaskID{Value: &task}, FrameworkId: id("f"), AgentId: &mesos.AgentID{Value: &agent},
			State: mesos.TaskState_TASK_RUNNING.Enum(),
			Discovery: &mesos.DiscoveryInfo{Visibility: mesos.DiscoveryInfo_CLUSTER.Enum(), Ports: &mesos.Ports{
				Ports: []*mesos.Port{{Number: proto.Uint32(31000), Name: proto.String("http"), Protocol: proto.String("tcp")}},
			}},
		})
	}
	return s
}

func start(t *testing.T, resolvers ...string) (*dns.Server, string) {
	t.Helper()
	s, err := dns.New(t.Context(), dns.Config{
		Listen: []string{"127.0.0.1:0"}, Resolvers: resolvers, Log: slog.New(slog.DiscardHandler),
		Options: func() zone.Options {
			return zone.Options{Masters: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, MasterPort: 5050, AgentPort: 5051}
		},
		VIPs: func(*feed.View) map[string]netip.Addr {
			return map[string]netip.Addr{"web.marathon.l4lb.thisdcos.directory": netip.MustParseAddr("11.1.2.3")}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	f, err := feed.New(feed.Config{Masters: func() []string { return []string{"http://127.0.0.1:1"} }, Client: &http.Client{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, f) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s, s.Addrs()[0]
}

func ask(t *testing.T, addr, network, name string, qtype uint16, edns uint16) *mdns.Msg {
	t.Helper()
	q := new(mdns.Msg).SetQuestion(name, qtype)
	if edns > 0 {
		q.SetEdns0(edns, false)
	}
	c := &mdns.Client{Net: network, UDPSize: 65535}
	m, _, err := c.ExchangeContext(t.Context(), q, addr)
	if err != nil {
		t.Fatalf("%s %s: %v", network, name, err)
	}
	return m
}

func addrs(m *mdns.Msg) (out []string) {
	for _, rr := range m.Answer {
		if a, ok := rr.(*mdns.A); ok {
			out = append(out, a.A.String())
		}
	}
	slices.Sort(out)
	return out
}

func TestServer(t *testing.T) {
	s, addr := start(t)
	for name, want := range map[string]int{"ready.spartan.": mdns.RcodeSuccess, "master.mesos.": mdns.RcodeSuccess, "web.marathon.mesos.": mdns.RcodeServerFailure} {
		if m := ask(t, addr, "udp", name, mdns.TypeA, 0); m.Rcode != want {
			t.Errorf("before the first view %s gives %s", name, mdns.RcodeToString[m.Rcode])
		}
	}
	s.Update(feed.Of("http://10.0.0.1:5050", cluster(3)))
	for _, network := range []string{"udp", "tcp"} {
		m := ask(t, addr, network, "WEB.marathon.MESOS.", mdns.TypeA, 0)
		if got := addrs(m); !slices.Equal(got, []string{"10.1.0.0", "10.1.0.1", "10.1.0.2"}) || m.Answer[0].Header().Name != "WEB.marathon.MESOS." || m.Answer[0].Header().Ttl > 5 || !m.Authoritative {
			t.Errorf("%s: %s", network, m)
		}
	}
	firsts := map[string]bool{}
	for range 200 {
		firsts[ask(t, addr, "udp", "web.marathon.mesos.", mdns.TypeA, 0).Answer[0].String()] = true
	}
	if len(firsts) != 3 { // 200 draws of 3 miss one with probability 3·(2/3)^200
		t.Errorf("%d of 3 addresses ever came first", len(firsts))
	}
	m := ask(t, addr, "udp", "_http._web._tcp.marathon.mesos.", mdns.TypeSRV, 1232)
	if srv, ok := m.Answer[0].(*mdns.SRV); len(m.Answer) != 3 || !ok || srv.Port != 31000 || len(m.Extra) != 4 {
		t.Errorf("SRV: %s", m)
	}
	if m := ask(t, addr, "udp", "web.marathon.l4lb.thisdcos.directory.", mdns.TypeA, 0); !slices.Equal(addrs(m), []string{"11.1.2.3"}) {
		t.Errorf("VIP: %s", m)
	}
	for _, c := range []struct {
		name  string
		qtype uint16
		rcode int
		ns    int
	}{
		{"nope.marathon.mesos.", mdns.TypeA, mdns.RcodeNameError, 1},
		{"web.marathon.mesos.", mdns.TypeAAAA, mdns.RcodeSuccess, 1},
		{"marathon.l4lb.thisdcos.directory.", mdns.TypeA, mdns.RcodeSuccess, 1},
		{"mesos.", mdns.TypeSOA, mdns.RcodeSuccess, 0},
		{"example.com.", mdns.TypeA, mdns.RcodeRefused, 0},
	} {
		m := ask(t, addr, "udp", c.name, c.qtype, 0)
		if m.Rcode != c.rcode || len(m.Ns) != c.ns {
			t.Errorf("%s: %s", c.name, m)
		}
	}
}

func TestTruncation(t *testing.T) {
	s, addr := start(t)
	s.Update(feed.Of("http://10.0.0.1:5050", cluster(200)))
	for _, c := range []struct {
		network string
		edns    uint16
		limit   int
		all     bool
	}{{"udp", 0, 512, false}, {"udp", 4096, 1232, false}, {"tcp", 0, 65535, true}} {
		m := ask(t, addr, c.network, "web.marathon.mesos.", mdns.TypeA, c.edns)
		m.Compress = true
		if m.Truncated == c.all || m.Len() > c.limit || (len(addrs(m)) == 200) != c.all || len(m.Answer) == 0 {
			t.Errorf("%s with EDNS size %d: %d answers in %d bytes, truncated %v", c.network, c.edns, len(m.Answer), m.Len(), m.Truncated)
		}
	}
}

func TestForwarding(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	up := &mdns.Server{PacketConn: pc, Handler: mdns.HandlerFunc(func(w mdns.ResponseWriter, q *mdns.Msg) {
		m := new(mdns.Msg).SetReply(q)
		m.Answer = []mdns.RR{&mdns.A{Hdr: mdns.RR_Header{Name: q.Question[0].Name, Rrtype: mdns.TypeA, Class: mdns.ClassINET, Ttl: 60}, A: net.IPv4(192, 0, 2, 1)}}
		_ = w.WriteMsg(m)
	})}
	started := make(chan struct{})
	up.NotifyStartedFunc = func() { close(started) }
	done := make(chan error, 1)
	go func() { done <- up.ActivateAndServe() }()
	<-started
	t.Cleanup(func() { _ = up.Shutdown(); <-done })

	// A resolver that is not there is passed over.
	_, addr := start(t, "127.0.0.1:1", pc.LocalAddr().String())
	for range 10 {
		if m := ask(t, addr, "udp", "example.com.", mdns.TypeA, 0); !slices.Equal(addrs(m), []string{"192.0.2.1"}) {
			t.Fatalf("forwarded: %s", m)
		}
	}
	_, dead := start(t, "127.0.0.1:1")
	if m := ask(t, dead, "udp", "example.com.", mdns.TypeA, 0); m.Rcode != mdns.RcodeServerFailure {
		t.Errorf("without a living resolver: %s", m)
	}
}

func TestHTTP(t *testing.T) {
	s, _ := start(t)
	s.Update(feed.Of("http://10.0.0.1:5050", cluster(2)))
	h := s.Handler("0.1.0")
	get := func(path string, into any) string {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
		if err := json.Unmarshal(w.Body.Bytes(), into); err != nil {
			t.Error(err)
		}
		return strings.TrimSpace(w.Body.String())
	}
	var any any
	for path, want := range map[string]string{
		"/v1/version":                    `{"Service":"Mesos-DNS","Version":"0.1.0","URL":"https://github.com/mesosphere/mesos-dns"}`,
		"/v1/hosts/leader.mesos":         `[{"host":"leader.mesos.","ip":"10.0.0.1"}]`,
		"/v1/hosts/nope.mesos":           `[{"host":"","ip":""}]`,
		"/v1/services/_nope._tcp.mesos.": `[{"service":"","host":"","ip":"","port":""}]`,
	} {
		if got := get(path, &any); got != want {
			t.Errorf("%s gives %s", path, got)
		}
	}
	var services []struct{ Service, Host, IP, Port string }
	get("/v1/services/_web._tcp.marathon.mesos", &services)
	if len(services) != 2 || services[0].Port != "31000" || !strings.HasPrefix(services[0].IP, "10.1.0.") {
		t.Errorf("services %+v", services)
	}
	var all struct {
		Frameworks []struct {
			Name  string
			Tasks []struct {
				ID      string
				Records []struct{ Name, Host, RType string }
			}
		}
	}
	get("/v1/enumerate", &all)
	if len(all.Frameworks) != 1 || len(all.Frameworks[0].Tasks) != 2 || len(all.Frameworks[0].Tasks[0].Records) < 5 {
		t.Errorf("enumeration %+v", all)
	}
}

// An address that the host does not have yet can be listened on.
func TestListenBeforeAddressExists(t *testing.T) {
	s, err := dns.New(t.Context(), dns.Config{Listen: []string{"198.19.9.9:5399"}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	f, err := feed.New(feed.Config{Masters: func() []string { return []string{"http://127.0.0.1:1"} }, Client: &http.Client{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx, f); err != nil {
		t.Error(err)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, cfg := range []dns.Config{
		{Listen: []string{"127.0.0.1:5300"}, Resolvers: []string{"127.0.0.1:5300"}}, {Resolvers: []string{"resolver"}},
	} {
		if _, err := dns.New(t.Context(), cfg); !fault.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}
