package bootstrap_test

import (
	"context"
	"crypto/tls"
	"errors"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"

	"dcos.example/dcos/installer/bootstrap"
	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/providers"
	"dcos.example/dcos/providers/input"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/password"
	"dcos.example/dcos/runtime/pki"
)

func urn(t tokens.Type, name string) resource.URN { return resource.NewURN("s", "p", "", t, name) }

func text(t *testing.T, m resource.PropertyMap, key resource.PropertyKey) string {
	t.Helper()
	v, known := input.Plain(m[key])
	if !known || !v.IsString() {
		t.Fatalf("%s is %v", key, m[key])
	}
	return v.StringValue()
}

func TestSecrets(t *testing.T) {
	p := bootstrap.New(bootstrap.Options{})
	create := func(in resource.PropertyMap) resource.PropertyMap {
		r, err := p.Create(t.Context(), plugin.CreateRequest{URN: urn(bootstrap.TypeSecrets, "c"), Type: bootstrap.TypeSecrets, Properties: in})
		if err != nil {
			t.Fatal(err)
		}
		return r.Properties
	}
	in := resource.PropertyMap{"clusterName": resource.NewProperty("demo"), "adminUser": resource.NewProperty("admin")}
	out := create(in)
	for _, k := range []resource.PropertyKey{"caKey", "joinToken", "sealKey", "adminPassword", "adminHash"} {
		if !out[k].IsSecret() {
			t.Errorf("%s is not secret", k)
		}
	}
	if _, err := pki.ParseAuthority([]byte(text(t, out, "caCert")), []byte(text(t, out, "caKey"))); err != nil {
		t.Error(err)
	}
	pw := text(t, out, "adminPassword")
	if ok, err := password.Verify(text(t, out, "adminHash"), pw); !ok || err != nil {
		t.Errorf("hash does not match: %v", err)
	}
	if !out["generatedPassword"].BoolValue() || pw == text(t, create(in), "adminPassword") {
		t.Error("the password is not made up anew")
	}

	// Another password changes that and nothing else.
	given := in.Copy()
	given["adminPassword"] = resource.MakeSecret(resource.NewProperty("correct horse"))
	r, err := p.Update(t.Context(), plugin.UpdateRequest{URN: urn(bootstrap.TypeSecrets, "c"), Type: bootstrap.TypeSecrets, OldInputs: in, OldOutputs: out, NewInputs: given})
	if err != nil {
		t.Fatal(err)
	}
	if got := text(t, r.Properties, "adminPassword"); got != "correct horse" || r.Properties["generatedPassword"].BoolValue() {
		t.Errorf("password %q", got)
	}
	for _, k := range []resource.PropertyKey{"clusterId", "caKey", "joinToken", "sealKey"} {
		if text(t, r.Properties, k) != text(t, out, k) {
			t.Errorf("%s changed", k)
		}
	}
	c, err := p.Check(t.Context(), plugin.CheckRequest{Type: bootstrap.TypeSecrets, News: resource.PropertyMap{
		"adminUser": resource.NewProperty("admin"), "adminPassword": resource.NewProperty("short"), "colour": resource.NewProperty("red"),
	}})
	if err != nil || len(c.Failures) != 3 {
		t.Errorf("failures %v, %v", c.Failures, err)
	}
}

// Who founded a cluster is written down once, and never again.
func TestFoundersStay(t *testing.T) {
	p := bootstrap.New(bootstrap.Options{})
	names := func(ms ...string) resource.PropertyMap {
		in := resource.PropertyMap{"clusterName": resource.NewProperty("demo"), "adminUser": resource.NewProperty("admin")}
		var vs []resource.PropertyValue
		for _, m := range ms {
			vs = append(vs, resource.NewProperty(m))
		}
		if len(vs) > 0 {
			in["founders"] = resource.NewProperty(vs)
		}
		return in
	}
	u := urn(bootstrap.TypeSecrets, "c")
	step := func(oldIn, out, in resource.PropertyMap) (resource.PropertyMap, bool) {
		t.Helper()
		d, err := p.Diff(t.Context(), plugin.DiffRequest{URN: u, Type: bootstrap.TypeSecrets, OldInputs: oldIn, OldOutputs: out, NewInputs: in})
		if err != nil {
			t.Fatal(err)
		}
		r, err := p.Update(t.Context(), plugin.UpdateRequest{URN: u, Type: bootstrap.TypeSecrets, OldInputs: oldIn, OldOutputs: out, NewInputs: in})
		if err != nil {
			t.Fatal(err)
		}
		return r.Properties, d.Changes == plugin.DiffSome
	}
	made, err := p.Create(t.Context(), plugin.CreateRequest{URN: u, Type: bootstrap.TypeSecrets, Properties: names("m1")})
	if err != nil {
		t.Fatal(err)
	}
	out, changed := step(names("m1"), made.Properties, names("m1", "m2", "m3"))
	if changed || !out["founders"].DeepEquals(names("m1")["founders"]) {
		t.Errorf("more masters: changed %t, founders %v", changed, out["founders"])
	}
	old := made.Properties.Copy()
	delete(old, "founders")
	out, changed = step(names(), old, names("m1", "m2"))
	if !changed || !out["founders"].DeepEquals(names("m1", "m2")["founders"]) {
		t.Errorf("a state without founders: changed %t, founders %v", changed, out["founders"])
	}
	if _, changed = step(names("m1", "m2"), out, names("m1")); changed {
		t.Error("it is given founders more than once")
	}
}

func TestRestarts(t *testing.T) {
	file := func(s string) host.File { return host.File{Data: []byte(s), Mode: 0o644} }
	base := bootstrap.Wanted{
		Programs: map[string]string{"bin/a": "1", "bin/b": "1", "bin/helper": "1", "share/x": "1"}, Units: []string{"a.service", "b.service"},
		Files: map[string]host.File{
			"/etc/systemd/system/a.service": file("Environment=PATH=/opt/dcos/current/bin:/bin\nExecStart=/opt/dcos/current/bin/a --config /etc/dcos/a.toml"),
			"/etc/systemd/system/b.service": file("ExecStart=/opt/dcos/current/bin/b -config /etc/dcos/b.json"),
			"/etc/dcos/a.toml":              file("a"), "/etc/dcos/b.json": file("x=/opt/dcos/current/share/x\n"),
			"/etc/dcos/pki/ca.crt": file("ca"), "/etc/hosts": file("hosts"),
		},
	}
	release := func(changed ...string) func(*bootstrap.Wanted) {
		return func(w *bootstrap.Wanted) {
			w.Programs = maps.Clone(base.Programs)
			for _, p := range changed {
				w.Programs[p] = "2"
			}
		}
	}
	for name, c := range map[string]struct {
		change func(*bootstrap.Wanted)
		want   []string
	}{
		"nothing":      {func(*bootstrap.Wanted) {}, nil},
		"a named file": {func(w *bootstrap.Wanted) { w.Files["/etc/dcos/a.toml"] = file("A") }, []string{"a.service"}},
		"a mode": {func(w *bootstrap.Wanted) {
			w.Files["/etc/dcos/b.json"] = host.File{Data: base.Files["/etc/dcos/b.json"].Data, Mode: 0o600}
		}, []string{"b.service"}},
		"the list of masters": {func(w *bootstrap.Wanted) { w.Files["/etc/dcos/masters.json"] = file("more") }, nil},
		"a file for all":      {func(w *bootstrap.Wanted) { w.Files["/etc/dcos/pki/ca.crt"] = file("CA") }, base.Units},
		"a file of the host":  {func(w *bootstrap.Wanted) { w.Files["/etc/hosts"] = file("more") }, nil},
		"a unit": {func(w *bootstrap.Wanted) {
			w.Files["/etc/systemd/system/b.service"] = file("ExecStart=/opt/dcos/current/bin/b -v -config /etc/dcos/b.json")
		}, []string{"b.service"}},
		"a program":            {release("bin/a"), []string{"a.service"}},
		"what a file names":    {release("share/x"), []string{"b.service"}},
		"what no unit names":   {release("bin/helper"), nil},
		"programs of them all": {release("bin/a", "bin/b"), base.Units},
		"a file less":          {func(w *bootstrap.Wanted) { delete(w.Files, "/etc/dcos/a.toml") }, []string{"a.service"}},
	} {
		t.Run(name, func(t *testing.T) {
			after := base
			after.Files = maps.Clone(base.Files)
			c.change(&after)
			if d := cmp.Diff(c.want, bootstrap.Restarts(base, after)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestPreflightFindsEverything(t *testing.T) {
	good := "listen 00000000:0016\ndisk 1000000 4096\nmemory 2000000\ncontroller cpu\ncontroller memory\ncontroller pids\nfilesystem overlay\n"
	if err := bootstrap.Judge(good, "agent", 1<<20, "1.0"); err != nil {
		t.Error(err)
	}
	bad := "listen 00000000:13BB\ndisk 10 4096\nmemory 1000\ncontroller cpu\n"
	err := bootstrap.Judge(bad, "agent", 1<<20, "1.0")
	if !fault.Is(err, fault.Invalid) {
		t.Fatal(err)
	}
	for _, want := range []string{"port 5051", "disk: 0 MiB free", "memory: 0 MiB", "controller memory", "controller pids", "overlay"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in\n%v", want, err)
		}
	}
}

// gateway is a master's front door with a cluster that comes up step by step.
func gateway(t *testing.T, ready *atomic.Int32) (ca string, dial func(context.Context, string, string) (net.Conn, error)) {
	a, err := pki.NewAuthority("demo")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := a.Issue(pki.MasterRequest("master-1", netip.MustParseAddr("198.19.80.5")))
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /acs/api/v1/auth/login", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(`{"token":"T"}`)) })
	mux.HandleFunc("GET /mesos/slaves", func(w http.ResponseWriter, r *http.Request) {
		switch n := ready.Add(1); {
		case r.Header.Get("Authorization") != "token=T":
			w.WriteHeader(http.StatusUnauthorized)
		case n < 3:
			w.WriteHeader(http.StatusServiceUnavailable)
		case n < 8:
			w.Write([]byte(`{"slaves":[{"active":true},{"active":false}]}`))
		default:
			w.Write([]byte(`{"slaves":[{"active":true},{"active":true}]}`))
		}
	})
	var asked atomic.Int32
	mux.HandleFunc("GET /system/v1/members", func(w http.ResponseWriter, r *http.Request) {
		switch asked.Add(1) {
		case 1:
			w.Write([]byte(`{"members":[]}`))
		case 2:
			w.Write([]byte(`{"members":[{"name":"m1","addr":"198.19.80.5","role":"learner","healthy":true}]}`))
		case 3:
			w.Write([]byte(`{"members":[{"name":"m1","addr":"198.19.80.5","role":"voter","healthy":false,"reason":"does not answer"}]}`))
		default:
			w.Write([]byte(`{"members":[{"name":"m1","addr":"198.19.80.5","role":"voter","healthy":true}]}`))
		}
	})
	mux.HandleFunc("GET /service/marathon/v2/info", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(`{}`)) })
	srv := httptest.NewUnstartedServer(mux)
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return string(a.CertPEM()), func(ctx context.Context, network, addr string) (net.Conn, error) {
		if addr != "198.19.80.5:443" {
			return nil, errors.New("no such address: " + addr)
		}
		return (&net.Dialer{}).DialContext(ctx, network, srv.Listener.Addr().String())
	}
}

func TestClusterIsWaitedFor(t *testing.T) {
	var ready atomic.Int32
	ca, dial := gateway(t, &ready)
	p := bootstrap.New(bootstrap.Options{Dial: dial, Poll: time.Millisecond, Patience: 20 * time.Second})
	in := resource.PropertyMap{
		"masters": resource.NewProperty([]resource.PropertyValue{resource.NewProperty("198.19.80.5")}),
		"agents":  resource.NewProperty(1.0), "publicAgents": resource.NewProperty(1.0), "caCert": resource.NewProperty(ca),
		"adminUser": resource.NewProperty("admin"), "adminPassword": resource.MakeSecret(resource.NewProperty("pw")),
	}
	var notes []string
	ctx := providers.WithReporter(t.Context(), func(pr providers.Progress) {
		if pr.Message != "" {
			notes = append(notes, pr.Message)
		}
	})
	r, err := p.Create(ctx, plugin.CreateRequest{URN: urn(bootstrap.TypeCluster, "c"), Type: bootstrap.TypeCluster, Properties: in})
	if err != nil {
		t.Fatal(err)
	}
	if got := text(t, r.Properties, "url"); got != "https://198.19.80.5" {
		t.Error(got)
	}
	want := []string{
		"waiting for a leading master (status 503: Service Unavailable)", "waiting for master 198.19.80.5, which has not joined the others yet",
		"waiting for master m1, which joins the others", "waiting for master m1, which does not answer", "waiting for agents: 1 of 2 are registered",
	}
	if d := cmp.Diff(want, notes); d != "" {
		t.Error(d)
	}

	// One that does not come up says what it lacks.
	in["agents"] = resource.NewProperty(7.0)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ctx = providers.WithReporter(ctx, func(pr providers.Progress) {
		if strings.Contains(pr.Message, "agents") {
			cancel()
		}
	})
	_, err = p.Create(ctx, plugin.CreateRequest{URN: urn(bootstrap.TypeCluster, "c"), Type: bootstrap.TypeCluster, Properties: in})
	if ie := new(plugin.InitError); !errors.As(err, &ie) || !strings.Contains(strings.Join(ie.Reasons, " "), "2 of 8 are registered") {
		t.Errorf("%v", err)
	}
}

// The operator's first Ctrl-C does not leave him waiting for a cluster.
func TestWaitEndsWhenAskedToStop(t *testing.T) {
	var ready atomic.Int32
	ca, dial := gateway(t, &ready)
	p := bootstrap.New(bootstrap.Options{Dial: dial, Poll: time.Millisecond, Patience: time.Hour})
	in := resource.PropertyMap{
		"masters": resource.NewProperty([]resource.PropertyValue{resource.NewProperty("198.19.80.5")}),
		"agents":  resource.NewProperty(7.0), "publicAgents": resource.NewProperty(1.0), "caCert": resource.NewProperty(ca),
		"adminUser": resource.NewProperty("admin"), "adminPassword": resource.MakeSecret(resource.NewProperty("pw")),
	}
	stopping := make(chan struct{})
	var once sync.Once
	ctx := providers.WithReporter(providers.WithStopping(t.Context(), stopping), func(pr providers.Progress) {
		if strings.Contains(pr.Message, "agents") {
			once.Do(func() { close(stopping) })
		}
	})
	_, err := p.Create(ctx, plugin.CreateRequest{URN: urn(bootstrap.TypeCluster, "c"), Type: bootstrap.TypeCluster, Properties: in})
	if ie := new(plugin.InitError); !errors.As(err, &ie) || !fault.Is(err, fault.Unavailable) {
		t.Fatalf("error %v", err)
	}
	for _, want := range []string{"wait for the cluster: not waited for any longer", "of 8 are registered", "apply again"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
}
