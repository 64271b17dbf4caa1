//go:build e2e

package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

const vip = "http://hello.marathon.l4lb.thisdcos.directory/"

// hello is the demo app, with changes.
func hello(t *testing.T, changes object) object {
	t.Helper()
	b, err := os.ReadFile("../../demo/hello.json")
	must(t, err)
	var def object
	must(t, json.Unmarshal(b, &def))
	for k, v := range changes {
		def[k] = v
	}
	return def
}

// sleeper is a small app of a shell script.
func sleeper(id, script string, changes object) object {
	def := object{"id": id, "cmd": script, "cpus": 0.05, "mem": 32, "instances": 1}
	for k, v := range changes {
		def[k] = v
	}
	return def
}

// get asks from the machine.
func get(url string) (string, error) {
	client := http.Client{Timeout: patience}
	defer client.CloseIdleConnections()
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, b)
	}
	return string(b), err
}

// answers checks that some task of the app is what answers at url on a host.
func (c *cluster) answers(host, url string, a app) error {
	out, err := c.on(host, "curl -sS -f -m 5 "+url)
	if err != nil {
		return err
	}
	for _, id := range ids(a) {
		if strings.Contains(out, id) {
			return nil
		}
	}
	return fmt.Errorf("%s on %s answers %q, which is none of %v", url, host, out, ids(a))
}

// testHello: the app answers on every way that leads to it.
func (c *cluster) testHello(t *testing.T) {
	a := c.await(t, "/hello")
	if len(a.Tasks) != 2 {
		t.Fatalf("the demo app has %d tasks", len(a.Tasks))
	}
	for _, host := range []string{"master-1", "agent-1", "agent-2", "agent-3", "public-agent-1"} {
		eventually(t, "VIP on "+host, func() error { return c.answers(host, vip, a) })
	}
	for _, k := range a.Tasks {
		body, err := get(fmt.Sprintf("http://%s:%d/", k.Host, k.Ports[0]))
		must(t, err)
		if !strings.Contains(body, k.ID) {
			t.Errorf("host port of %s answers %q", k.ID, body)
		}
	}
	// Names: SRV has host and port of each task, A has the hosts.
	var srv []string
	for _, rr := range c.ask53(t, "_hello._tcp.marathon.mesos.", dns.TypeSRV) {
		s := rr.(*dns.SRV)
		for _, arr := range c.ask53(t, s.Target, dns.TypeA) {
			srv = append(srv, fmt.Sprintf("%s:%d", arr.(*dns.A).A, s.Port))
		}
	}
	var want []string
	for _, k := range a.Tasks {
		want = append(want, fmt.Sprintf("%s:%d", k.Host, k.Ports[0]))
	}
	slices.Sort(srv)
	slices.Sort(want)
	if !slices.Equal(srv, want) {
		t.Errorf("SRV records lead to %v, tasks are at %v", srv, want)
	}
	out, err := c.on("master-1", "getent ahostsv4 hello.marathon.mesos | awk '{print $1}' | sort -u")
	must(t, err)
	at := hosts(a)
	slices.Sort(at)
	if got := strings.Fields(out); !slices.Equal(got, slices.Compact(at)) {
		t.Errorf("hello.marathon.mesos is %v, tasks are on %v", got, at)
	}
}

// ask53 asks a master's DNS server.
func (c *cluster) ask53(t *testing.T, name string, qtype uint16) []dns.RR {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, qtype)
	answer, err := dns.Exchange(m, net.JoinHostPort(c.masters[0], "53"))
	must(t, err)
	if len(answer.Answer) == 0 {
		t.Fatalf("no answer for %s %s: %v", dns.TypeToString[qtype], name, answer)
	}
	return answer.Answer
}

// testCLI: what the README tells a user to type.
func (c *cluster) testCLI(t *testing.T) {
	a := c.await(t, "/hello")
	if out := c.dcos(t, "marathon", "app", "list"); !strings.Contains(out, "/hello") || !strings.Contains(out, "2/2") {
		t.Errorf("app list:\n%s", out)
	}
	var listed []string
	for _, k := range c.tasks(t, "hello") {
		listed = append(listed, k.ID)
	}
	if !slices.Equal(listed, ids(a)) {
		t.Errorf("task list shows %v, the app has %v", listed, ids(a))
	}
	_, err := get(fmt.Sprintf("http://%s:%d/", a.Tasks[0].Host, a.Tasks[0].Ports[0]))
	must(t, err)
	eventually(t, "the request is in the log", func() error {
		out := c.dcos(t, "task", "log", a.Tasks[0].ID)
		if !strings.Contains(out, "GET /") {
			return fmt.Errorf("log is %q", out)
		}
		return nil
	})
	s := c.deploy(t, sleeper("/cli", "sleep 1000", nil))
	out := c.dcos(t, "task", "exec", s.Tasks[0].ID, "sh", "-c", "echo $MARATHON_APP_ID; pwd")
	if !strings.HasPrefix(out, "/cli\n") {
		t.Errorf("exec prints %q", out)
	}
	if _, err := c.try("dcos", "task", "exec", s.Tasks[0].ID, "sh", "-c", "exit 7"); err == nil || !strings.Contains(err.Error(), "exit status 7") {
		t.Errorf("exec of `exit 7`: %v", err)
	}
}

// testCommand: an app without image, with environment and artifacts.
func (c *cluster) testCommand(t *testing.T) {
	var archive bytes.Buffer
	zw := gzip.NewWriter(&archive)
	tw := tar.NewWriter(zw)
	script := "#!/bin/sh\necho \"$GREETING from $(cat plain.txt) $MESOS_TASK_ID\"\nexec sleep 1000\n"
	must(t, tw.WriteHeader(&tar.Header{Name: "pkg/run.sh", Mode: 0o755, Size: int64(len(script)), Typeflag: tar.TypeReg}))
	_, err := tw.Write([]byte(script))
	must(t, err)
	must(t, tw.Close())
	must(t, zw.Close())
	mux := http.NewServeMux()
	mux.HandleFunc("/pkg.tar.gz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(archive.Bytes()) })
	mux.HandleFunc("/plain.txt", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "e2e") })
	// The cluster's gateway is this machine.
	l, err := net.Listen("tcp", c.print.cidr.Addr().Next().String()+":0")
	must(t, err)
	srv := &http.Server{Handler: mux}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close(); <-served })
	base := "http://" + l.Addr().String()
	a := c.deploy(t, sleeper("/command", "./pkg/run.sh", object{
		"env": object{"GREETING": "hello"}, "fetch": []object{{"uri": base + "/pkg.tar.gz"}, {"uri": base + "/plain.txt"}},
	}))
	eventually(t, "output of the command", func() error {
		if out := c.dcos(t, "task", "log", a.Tasks[0].ID); !strings.Contains(out, "hello from e2e "+a.Tasks[0].ID) {
			return fmt.Errorf("log is %q", out)
		}
		return nil
	})
}

// testScale: more and fewer instances by the CLI; who stays is not restarted.
func (c *cluster) testScale(t *testing.T) {
	one := c.deploy(t, sleeper("/scale", "sleep 1000", nil))
	c.dcos(t, "marathon", "app", "update", "/scale", "instances=4")
	four := c.await(t, "/scale", has(4))
	if !slices.Contains(ids(four), one.Tasks[0].ID) {
		t.Errorf("scaling up replaced %s: %v", one.Tasks[0].ID, ids(four))
	}
	c.dcos(t, "marathon", "app", "scale", "/scale", "1")
	left := c.await(t, "/scale", has(1))
	if !slices.Contains(ids(four), left.Tasks[0].ID) {
		t.Errorf("scaling down left %s, which is none of %v", left.Tasks[0].ID, ids(four))
	}
}

func has(n int) func(app) error {
	return func(a app) error {
		if len(a.Tasks) != n {
			return fmt.Errorf("%s has %d tasks, wanted are %d", a.ID, len(a.Tasks), n)
		}
		return nil
	}
}

// testUpgrade: a new version takes over while a client asks; one that cannot
// work is rolled back.
func (c *cluster) testUpgrade(t *testing.T) {
	old := c.await(t, "/hello")
	p := c.probe(t, "public-agent-1", "upgrade", vip)
	c.dcos(t, "marathon", "deployment", "watch", c.update(t, "/hello", object{"env": object{"VERSION": "2"}}))
	upgraded := c.await(t, "/hello", has(2))
	for _, k := range upgraded.Tasks {
		if slices.Contains(ids(old), k.ID) || k.Version == old.Version {
			t.Errorf("task %s is of the old version", k.ID)
		}
	}
	p.more(t)
	out, err := c.on("agent-1", "curl -sS -f "+vip)
	must(t, err)
	if !strings.Contains(out, "version 2") {
		t.Errorf("the new version answers %q", out)
	}

	bad := c.update(t, "/hello", object{"env": object{"VERSION": "3"}, "args": []string{"-no-such-flag"}})
	eventually(t, "the bad version is tried", func() error {
		a, err := c.app("/hello")
		if err != nil {
			return err
		}
		if len(a.Pending) == 0 {
			t.Fatalf("the deployment of a version that cannot start has ended: %s", text(a))
		}
		var out struct {
			App struct{ LastTaskFailure struct{ Version string } }
		}
		if err := c.call("GET", marathon+"/apps/hello?embed=app.lastTaskFailure", nil, &out); err != nil {
			return err
		}
		if out.App.LastTaskFailure.Version != a.Version {
			return fmt.Errorf("no task of version %s has failed yet", a.Version)
		}
		return nil
	})
	c.dcos(t, "marathon", "deployment", "rollback", bad)
	back := c.await(t, "/hello", has(2))
	if !slices.ContainsFunc(back.Tasks, func(k task) bool { return slices.Contains(ids(upgraded), k.ID) }) {
		t.Errorf("after the roll-back runs %v, before the bad version ran %v; half of it should have stayed", ids(back), ids(upgraded))
	}
	p.more(t)
	p.unbroken(t)
}

// testConstraints: UNIQUE bounds the app to the agents there are; LIKE picks
// an agent by its attribute.
func (c *cluster) testConstraints(t *testing.T) {
	must(t, c.call("POST", marathon+"/apps", sleeper("/unique", "sleep 1000", object{"instances": 4, "constraints": [][]string{{"hostname", "UNIQUE"}}}), nil))
	c.removed(t, "/unique")
	eventually(t, "three of four run, one waits", func() error {
		a, err := c.app("/unique")
		if err != nil {
			return err
		}
		at := hosts(a)
		slices.Sort(at)
		var q struct {
			Queue []struct {
				Count int
				App   struct{ ID string }
			}
		}
		if err := c.call("GET", marathon+"/queue", nil, &q); err != nil {
			return err
		}
		for _, item := range q.Queue {
			if item.App.ID == "/unique" && item.Count == 1 && len(slices.Compact(at)) == 3 {
				return nil
			}
		}
		return fmt.Errorf("on %v, queue %s", at, text(q))
	})
	like := c.deploy(t, sleeper("/like", "sleep 1000", object{"instances": 2, "constraints": [][]string{{"rack", "LIKE", "r[1]"}}}))
	address := c.address(t, "agent-2")
	if at := hosts(like); at[0] != address || at[1] != address {
		t.Errorf("rack r1 is %s, tasks are on %v", address, at)
	}
}

// testHealth: an instance that fails its check is killed and replaced.
func (c *cluster) testHealth(t *testing.T) {
	sick := c.deploy(t, sleeper("/sick", "touch alive; sleep 1000", object{"healthChecks": []object{{
		"protocol": "COMMAND", "command": object{"value": "test -e $MESOS_SANDBOX/alive"},
		"delaySeconds": 0, "intervalSeconds": 1, "gracePeriodSeconds": 5, "timeoutSeconds": 5, "maxConsecutiveFailures": 2,
	}}}))
	c.dcos(t, "task", "exec", sick.Tasks[0].ID, "sh", "-c", "rm $MESOS_SANDBOX/alive")
	c.await(t, "/sick", func(a app) error {
		if len(a.Tasks) == 1 && a.Tasks[0].ID == sick.Tasks[0].ID {
			return fmt.Errorf("%s still runs", a.Tasks[0].ID)
		}
		return nil
	})
}

// testCrashLoop: launches of what keeps failing are delayed more and more.
func (c *cluster) testCrashLoop(t *testing.T) {
	must(t, c.call("POST", marathon+"/apps", sleeper("/crash", "echo oh no >&2; exit 3", object{"backoffSeconds": 1, "backoffFactor": 3, "maxLaunchDelaySeconds": 60}), nil))
	c.removed(t, "/crash")
	eventually(t, "the delay has grown", func() error {
		var q struct {
			Queue []struct {
				App   struct{ ID string }
				Delay struct {
					TimeLeftSeconds int
					Overdue         bool
				}
			}
		}
		if err := c.call("GET", marathon+"/queue", nil, &q); err != nil {
			return err
		}
		for _, item := range q.Queue {
			if item.App.ID == "/crash" && item.Delay.TimeLeftSeconds > 2 {
				return nil
			}
		}
		return fmt.Errorf("queue: %s", text(q))
	})
	var out struct {
		App struct {
			LastTaskFailure struct{ State, Message string }
		}
	}
	must(t, c.call("GET", marathon+"/apps/crash?embed=app.lastTaskFailure", nil, &out))
	if f := out.App.LastTaskFailure; f.State != "TASK_FAILED" || !strings.Contains(f.Message, "3") {
		t.Errorf("the last failure reads %q, %q; it should tell the exit status", f.State, f.Message)
	}
}
