//go:build e2e && universe

package e2e

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// long is how long a service's plan may take on a busy machine.
const long = 10 * time.Minute

// universeCluster makes a cluster whose release brings packages of
// DCOS_UNIVERSE, which `make universe` makes.
func universeCluster(t *testing.T, name, cidr string, agents int, memory string, packages ...string) *cluster {
	t.Helper()
	dir := os.Getenv("DCOS_UNIVERSE")
	if dir == "" {
		t.Fatal("DCOS_UNIVERSE must name the directory of packages; `make e2e-universe` sets it")
	}
	c := newCluster(t, name, cidr, fmt.Sprintf(`
cluster %q {}

provider "local" {
  range = %q
}

node_group "master" {
  count  = 1
  cpus   = 1
  memory = "2GiB"
  disk   = "8GiB"
}

node_group "agent" {
  count  = %d
  cpus   = 1
  memory = %q
  disk   = "8GiB"
}
`, name, cidr, agents, memory))
	c.extended(t, os.Getenv("DCOS_BUNDLE"), "packages.bundle", universe{dir: dir}, packages...)
	c.install(t, "apply", "-auto-approve")
	c.print.look(t)
	c.setup(t)
	return c
}

// service is an installed service and its user.
type service struct {
	c    *cluster
	name string
}

// installService installs a package and waits until it is deployed.
func (c *cluster) installService(t *testing.T, pkg, profile string, options object, args ...string) *service {
	t.Helper()
	s := &service{c, pkg}
	began := time.Now()
	c.dcos(t, append([]string{"package", "install", pkg, "--yes", "--profile", profile, "--options", c.options(t, options)}, args...)...)
	s.await(t, "deploy", "COMPLETE")
	t.Logf("%s was installed in %v", pkg, time.Since(began).Round(100*time.Millisecond))
	return s
}

func (c *cluster) options(t *testing.T, options object) string {
	t.Helper()
	if options == nil {
		options = object{}
	}
	b, err := json.Marshal(options)
	must(t, err)
	file := filepath.Join(t.TempDir(), "options.json")
	must(t, os.WriteFile(file, b, 0o600))
	return file
}

func (s *service) path(rest string) string { return "/service/" + s.name + "/v1/" + rest }

// plan returns a plan's state, with its steps for messages.
func (s *service) plan(name string) (status, detail string, err error) {
	out, err := s.c.try("dcos", s.name, "plan", "status", name, "--json")
	if err != nil {
		return "", "", err
	}
	var p struct {
		Status string
		Phases []struct {
			Name  string
			Steps []struct{ Name, Status, Message string }
		}
	}
	if err := json.Unmarshal([]byte(out), &p); err != nil {
		return "", "", err
	}
	var steps []string
	for _, ph := range p.Phases {
		for _, st := range ph.Steps {
			steps = append(steps, fmt.Sprintf("%s %s %s", st.Name, st.Status, st.Message))
		}
	}
	return p.Status, strings.Join(steps, "; "), nil
}

// await waits until a plan has a status.
func (s *service) await(t *testing.T, plan, want string) {
	t.Helper()
	s.eventually(t, "plan "+plan+" is "+want, func() error {
		status, detail, err := s.plan(plan)
		if err == nil && status != want {
			err = fmt.Errorf("it is %s: %s", status, detail)
		}
		return err
	})
}

// eventually is for what services take their time for.
func (s *service) eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	began := time.Now()
	for {
		err := f()
		if err == nil {
			if took := time.Since(began); took > 3*time.Second {
				t.Logf("waited %v until %s", took.Round(100*time.Millisecond), what)
			}
			return
		}
		if interrupted.Err() != nil || time.Since(began) > long {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(250 * time.Millisecond)
	}
}

// update changes options, and waits until that is done.
func (s *service) update(t *testing.T, options object) {
	t.Helper()
	s.change(t, "--options", s.c.options(t, options))
}

// upgrade goes to another version of the package, with changed options; image is
// what its tasks are of then.
func (s *service) upgrade(t *testing.T, version string, options object, image string, pods ...string) {
	t.Helper()
	s.change(t, "--package-version", version, "--options", s.c.options(t, options))
	for _, pod := range pods {
		var info json.RawMessage
		must(t, s.c.call("GET", s.path("pod/"+pod+"/info"), nil, &info))
		if !strings.Contains(string(info), image) {
			t.Errorf("%s is not of %s after the upgrade: %s", pod, image, info)
		}
	}
}

func (s *service) change(t *testing.T, args ...string) {
	t.Helper()
	var before string
	must(t, s.c.call("GET", s.path("configurations/targetId"), nil, (*firstOf)(&before)))
	s.c.dcos(t, append([]string{s.name, "update", "start"}, args...)...)
	s.eventually(t, "the new configuration is the target", func() error {
		var after string
		if err := s.c.call("GET", s.path("configurations/targetId"), nil, (*firstOf)(&after)); err != nil {
			return err
		}
		if after == before {
			return fmt.Errorf("it still is %s", before)
		}
		return nil
	})
	s.await(t, "deploy", "COMPLETE")
}

// firstOf is a text, alone or in a list.
type firstOf string

func (f *firstOf) UnmarshalJSON(b []byte) error {
	var list []string
	if err := json.Unmarshal(b, &list); err == nil && len(list) > 0 {
		*f = firstOf(list[0])
		return nil
	}
	return json.Unmarshal(b, (*string)(f))
}

// run starts a plan and waits for its end.
func (s *service) run(t *testing.T, plan string, params ...string) {
	t.Helper()
	args := []string{s.name, "plan", "start", plan}
	for _, p := range params {
		args = append(args, "-p", p)
	}
	s.c.dcos(t, args...)
	s.await(t, plan, "COMPLETE")
}

// task is one of the service's, as it was last launched.
type serviceTask struct{ Name, ID, Status, Agent, Host string }

// task returns a task by its name, as "kafka-0-broker".
func (s *service) task(name string) (serviceTask, error) {
	pod := name[:strings.LastIndex(name, "-")]
	var p struct {
		Agent, Host string
		Tasks       []struct{ Name, ID, Status string }
	}
	if err := s.c.call("GET", s.path("pod/"+pod+"/status"), nil, &p); err != nil {
		return serviceTask{}, err
	}
	for _, t := range p.Tasks {
		if t.Name == name {
			return serviceTask{t.Name, t.ID, t.Status, p.Agent, p.Host}, nil
		}
	}
	return serviceTask{}, fmt.Errorf("there is no task %s in %+v", name, p)
}

// replace makes an instance anew and waits until it runs with another task.
func (s *service) replace(t *testing.T, pod, task string) {
	t.Helper()
	before, err := s.task(pod + "-" + task)
	must(t, err)
	s.c.dcos(t, s.name, "pod", "replace", pod)
	s.eventually(t, pod+" is another", func() error {
		now, err := s.task(pod + "-" + task)
		if err == nil && (now.ID == before.ID || now.Status != "RUNNING") {
			err = fmt.Errorf("%+v", now)
		}
		return err
	})
	s.await(t, "recovery", "COMPLETE")
	s.await(t, "deploy", "COMPLETE")
}

// endpoint returns the addresses of an endpoint.
func (s *service) endpoint(t *testing.T, name string) []string {
	t.Helper()
	var e struct{ Address []string }
	must(t, s.c.call("GET", s.path("endpoints/"+name), nil, &e))
	return e.Address
}

// hostOf is the name of the host with an address.
func (c *cluster) hostOf(t *testing.T, address string) string {
	t.Helper()
	for name, a := range c.hosts {
		if a == address {
			return name
		}
	}
	t.Fatalf("no host has the address %s", address)
	return ""
}

// uninstall removes the service, and looks for what it leaves.
func (s *service) uninstall(t *testing.T) {
	t.Helper()
	names := s.names(t)
	s.c.dcos(t, "package", "uninstall", s.name, "--yes")
	s.eventually(t, s.name+" is gone", func() error {
		var list struct {
			Services []struct{ Name, Status string }
		}
		if err := s.c.call("GET", "/services/", nil, &list); err != nil {
			return err
		}
		if len(list.Services) > 0 {
			return fmt.Errorf("%v", list.Services)
		}
		return nil
	})
	var state struct {
		Frameworks []struct{ Name string }
		Slaves     []struct {
			Hostname string
			Reserved json.RawMessage `json:"reserved_resources"`
		}
	}
	must(t, s.c.call("GET", "/mesos/state", nil, &state))
	for _, f := range state.Frameworks {
		if f.Name == s.name {
			t.Errorf("framework %s is still there", f.Name)
		}
	}
	for _, a := range state.Slaves {
		if strings.Contains(string(a.Reserved), "-role") {
			t.Errorf("agent %s has reservations: %s", a.Hostname, a.Reserved)
		}
	}
	for host := range s.c.hosts {
		if !strings.HasPrefix(host, "agent") {
			continue
		}
		s.eventually(t, host+" has no volumes", func() error {
			out, err := s.c.on(host, "find /var/lib/dcos -path '*/volumes/roles/*' -type f | head -3; find /var/lib/dcos -path '*/volumes/roles/*/*' -type d | head -3")
			if err == nil && strings.TrimSpace(out) != "" {
				err = fmt.Errorf("%s", out)
			}
			return err
		})
	}
	for _, name := range names {
		s.eventually(t, name+" is no name", func() error {
			found, err := s.c.lookup(name)
			if err == nil && len(found) > 0 {
				err = fmt.Errorf("it is %v", found)
			}
			return err
		})
	}
}

// names are those that the service has in DNS now.
func (s *service) names(t *testing.T) []string {
	t.Helper()
	var endpoints []string
	must(t, s.c.call("GET", s.path("endpoints"), nil, &endpoints))
	var all []string
	for _, e := range endpoints {
		var info struct {
			DNS []string
			VIP string
		}
		must(t, s.c.call("GET", s.path("endpoints/"+e), nil, &info))
		for _, at := range append(info.DNS, info.VIP) {
			name, _, err := net.SplitHostPort(at)
			must(t, err)
			all = append(all, name)
		}
	}
	slices.Sort(all)
	for _, name := range all {
		s.eventually(t, name+" is a name", func() error {
			found, err := s.c.lookup(name)
			if err == nil && len(found) == 0 {
				err = fs.ErrNotExist
			}
			return err
		})
	}
	return all
}

// lookup asks an agent's DNS.
func (c *cluster) lookup(name string) ([]string, error) {
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), dns.TypeA)
	r, err := dns.ExchangeContext(interrupted, m, net.JoinHostPort(c.masters[0], "53"))
	if err != nil {
		return nil, err
	}
	var all []string
	for _, rr := range r.Answer {
		if a, ok := rr.(*dns.A); ok {
			all = append(all, a.A.String())
		}
	}
	return all, nil
}
