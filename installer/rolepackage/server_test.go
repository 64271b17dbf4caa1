package rolepackage_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dcos.example/dcos/installer/rolepackage"
	"dcos.example/dcos/installer/topology"
	"dcos.example/dcos/runtime/fault"
)

// serve runs a server on loopback until the test ends.
func serve(t *testing.T, d rolepackage.Directory, now func() time.Time) (*rolepackage.Server, string) {
	t.Helper()
	s, err := rolepackage.NewServer(d, rolepackage.ServerOptions{For: time.Hour, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s, l.Addr().String()
}

func source(s *rolepackage.Server, at string, role topology.Role) rolepackage.Source {
	return rolepackage.Source{URL: "https://" + at, Pin: s.Pin(), Token: s.Token(role)}
}

func TestServerGivesPackages(t *testing.T) {
	s, at := serve(t, directory(t), nil)
	ctx := t.Context()
	p, err := source(s, at, topology.RoleMaster).Package(ctx, rolepackage.Machine{Role: topology.RoleMaster, Addrs: addrs("10.9.9.9", "10.0.0.11")})
	if err != nil || p.Host.Name != "m1" || p.Secrets.CAKey != "cakey-secret" {
		t.Fatalf("master: %+v, %v", p.Host, err)
	}
	agents := source(s, at, topology.RoleAgent)
	if p, err = agents.Package(ctx, rolepackage.Machine{Role: topology.RoleAgent, Name: "rack-7", Addrs: addrs("10.0.0.77")}); err != nil || p.Host.Name != "rack-7" || p.Host.Addr != addr("10.0.0.77") || p.Secrets.CAKey != "" {
		t.Fatalf("an agent that the file does not name: %+v, %v", p.Host, err)
	}
	for name, test := range map[string]struct {
		src  rolepackage.Source
		m    rolepackage.Machine
		want string
	}{
		"an agent's token for a master": {agents, rolepackage.Machine{Role: topology.RoleMaster, Addrs: addrs("10.0.0.11")}, "token is not that of role master"},
		"no token":                      {rolepackage.Source{URL: agents.URL, Pin: agents.Pin}, rolepackage.Machine{Role: topology.RoleAgent}, "there is no token"},
		"in clear":                      {rolepackage.Source{URL: "http://" + at, Pin: agents.Pin, Token: agents.Token}, rolepackage.Machine{Role: topology.RoleAgent}, "HTTPS only"},
		"another server":                {rolepackage.Source{URL: agents.URL, Pin: "AAAA", Token: agents.Token}, rolepackage.Machine{Role: topology.RoleAgent}, "another key"},
		"a name that is taken":          {agents, rolepackage.Machine{Role: topology.RoleAgent, Name: "a1", Addrs: addrs("10.0.0.78")}, "give this one another name"},
		"an address that is taken":      {agents, rolepackage.Machine{Role: topology.RoleAgent, Name: "rack-8", Addrs: addrs("10.0.0.77")}, "is that of host rack-7"},
		"a master that is not listed":   {source(s, at, topology.RoleMaster), rolepackage.Machine{Role: topology.RoleMaster, Addrs: addrs("10.0.0.12")}, "m1 10.0.0.11"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := test.src.Package(ctx, test.m); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// TestOneAddressOnly: a token that leaks after a host was installed does not
// give its package to others.
func TestOneAddressOnly(t *testing.T) {
	s, err := rolepackage.NewServer(directory(t), rolepackage.ServerOptions{For: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	for i, test := range []struct {
		from string
		want int
	}{{"10.0.0.11:40000", 200}, {"10.0.0.11:40001", 200}, {"10.6.6.6:1234", 409}} {
		r := httptest.NewRequest(http.MethodPost, "https://x"+rolepackage.PackagePath, strings.NewReader(`{"role":"master","addresses":["10.0.0.11"]}`))
		r.RemoteAddr = test.from
		r.Header.Set("Authorization", "Bearer "+s.Token(topology.RoleMaster))
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		if w.Code != test.want {
			t.Errorf("question %d from %s: %d %s", i, test.from, w.Code, w.Body)
		}
	}
}

func TestPackagesEnd(t *testing.T) {
	now := time.Now()
	s, at := serve(t, directory(t), func() time.Time { return now })
	now = now.Add(2 * time.Hour)
	_, err := source(s, at, topology.RoleAgent).Package(t.Context(), rolepackage.Machine{Role: topology.RoleAgent, Name: "x", Addrs: addrs("10.0.0.77")})
	if !fault.Is(err, fault.Denied) || !strings.Contains(err.Error(), "time") {
		t.Error(err)
	}
}

func TestPublicFiles(t *testing.T) {
	d := directory(t)
	s, at := serve(t, d, nil)
	get := func(path string) (int, string) {
		r, err := http.Get("http://" + at + path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return r.StatusCode, string(b)
	}
	if code, text := get("/dcos_install.sh"); code != 200 || !strings.Contains(text, "url='https://"+at+"'") || !strings.Contains(text, s.Pin()) {
		t.Errorf("script: %d\n%s", code, text)
	}
	for _, path := range []string{"/packages/m1.json", "/server.key", "/tokens", "/", "/..%2fserver.key"} {
		if code, text := get(path); code != 404 || strings.Contains(text, "secret") {
			t.Errorf("%s: %d %s", path, code, text)
		}
	}
	bundle, err := source(s, at, topology.RoleAgent).Bundle(t.Context(), rolepackage.Release{Bundle: "x.bundle"}, t.TempDir())
	if b, rerr := os.ReadFile(bundle); err != nil || rerr != nil || string(b) != "bundle" {
		t.Errorf("bundle: %q %v %v", b, err, rerr)
	}
	if _, err := source(s, at, topology.RoleAgent).Bundle(t.Context(), rolepackage.Release{Bundle: "../x"}, t.TempDir()); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
	// What a client says its server is called becomes part of a script.
	r := httptest.NewRequest(http.MethodGet, "/dcos_install.sh", nil)
	r.Host = "x';rm -rf /;'"
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	if w.Code != http.StatusBadRequest {
		t.Errorf("Host %q: %d", r.Host, w.Code)
	}
}

// TestKeyStays: hosts that have the script go on with a server started anew.
func TestKeyStays(t *testing.T) {
	d := directory(t)
	a, err := rolepackage.NewServer(d, rolepackage.ServerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := rolepackage.NewServer(d, rolepackage.ServerOptions{})
	if err != nil || a.Pin() != b.Pin() || a.Token(topology.RoleAgent) == b.Token(topology.RoleAgent) {
		t.Errorf("pins %s %s, %v", a.Pin(), b.Pin(), err)
	}
}

// script runs dcos_install.sh in a shell where it finds itself to be root, on
// the right machine, with a home that is the test's.
func script(t *testing.T, text, stdin string, args ...string) (string, error) {
	t.Helper()
	home := filepath.Join(t.TempDir(), "work.")
	bin := t.TempDir()
	for name, body := range map[string]string{"id": "echo 0", "uname": `[ "$1" = -m ] && echo x86_64 || echo Linux`} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	text = strings.NewReplacer("/opt/dcos-install.", home, "/run/systemd/system", bin).Replace(text)
	file := filepath.Join(t.TempDir(), "dcos_install.sh")
	if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	argv := append([]string{file}, args...)
	if stdin != "" {
		argv = append([]string{"-s", "--"}, args...)
	}
	cmd := exec.Command("bash", argv...)
	if stdin != "" {
		cmd.Stdin = strings.NewReader(text)
	}
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "DCOS_TOKEN=t0ken")
	out, err := cmd.CombinedOutput()
	if left, _ := filepath.Glob(home + "*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	return string(out), err
}

func TestScript(t *testing.T) {
	d := directory(t)
	s, at := serve(t, d, nil)
	text, err := os.ReadFile(filepath.Join(d.Path, rolepackage.ScriptName))
	if err != nil {
		t.Fatal(err)
	}
	local := string(text)
	served := strings.ReplaceAll(local, "url=''", "url='https://"+at+"'")
	served = strings.ReplaceAll(served, "pin=''", "pin='"+s.Pin()+"'")
	sum := local[strings.Index(local, "sum='")+5:][:64]
	for name, test := range map[string]struct {
		text, stdin string
		args        []string
		want        string
		fails       bool
	}{
		"from a server":   {served, "piped", []string{"slave"}, "ran genconf install -from https://" + at + " -pin " + s.Pin() + " -role slave token=t0ken", false},
		"every flag":      {served, "", []string{"-d", "--no-block-dcos-setup", "-a", "10.0.0.5", "-n", "x", "--ignore", "swap", "-t", "other", "slave_public"}, "-role slave_public -disable-preflight -address 10.0.0.5 -name x -ignore swap token=other", false},
		"preflight only":  {served, "", []string{"-p", "master"}, "-role master -preflight-only", false},
		"from a copy":     {local, "", []string{"--source", d.Path, "--package", "p.json", "master"}, "-from " + d.Path + " -pin  -role master -package p.json", false},
		"no source":       {local, "piped", []string{"master"}, "say where everything comes from", true},
		"no role":         {served, "", nil, "which role?", true},
		"a wrong role":    {served, "", []string{"minuteman"}, "there is no role minuteman", true},
		"two roles":       {served, "", []string{"master", "slave"}, "one role", true},
		"a wrong flag":    {served, "", []string{"--frobnicate"}, "there is no flag --frobnicate", true},
		"a missing value": {served, "", []string{"-t"}, "needs a token", true},
		"uninstall":       {served, "", []string{"--uninstall"}, "ran genconf uninstall", false},
		"not a role, too": {served, "", []string{"--uninstall", "master"}, "takes no role", true},
		"another program": {strings.ReplaceAll(served, sum, strings.Repeat("0", 64)), "", []string{"master"}, "is not what this script was made with", true},
		"cut off":         {strings.TrimSuffix(served, "main \"$@\"\n"), "", []string{"master"}, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := script(t, test.text, test.stdin, test.args...)
			if !strings.Contains(out, test.want) || (err != nil) != test.fails {
				t.Errorf("%v\n%s\nwant %q", err, out, test.want)
			}
			if name == "cut off" && out != "" {
				t.Errorf("it did something: %s", out)
			}
			if _, bad := errors.AsType[*exec.Error](err); bad {
				t.Fatal(err)
			}
		})
	}
}
