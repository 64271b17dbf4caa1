package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"dcos.example/dcos/ci/lab"
	"dcos.example/dcos/installer/gateway"
)

// field is a cluster on simulated hosts.
type field struct {
	s       settings
	dir     string // working directory of the installer
	lab     *lab.Lab
	masters []string
	agents  []string
	public  string
	api     *gateway.Client
}

// Sizes of the cluster.
const (
	masters = 3
	agents  = 3
	public  = 1
)

// newField makes hosts, installs a cluster and starts the app that is watched.
func newField(ctx context.Context, s settings) (_ *field, err error) {
	dir, err := os.MkdirTemp("", "dcos-drill-")
	if err != nil {
		return nil, err
	}
	f := &field{s: s, dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close(s.keep))
		}
	}()
	record := lab.Record{Name: s.name, Range: s.cidr, Hosts: lab.Hosts(s.cidr, masters+agents+public)}
	if f.lab, _, err = lab.Up(ctx, lab.Options{Program: s.program}, record); err != nil {
		return nil, err
	}
	names := f.hosts()
	f.masters, f.agents, f.public = names[:masters], names[masters:masters+agents], names[masters+agents]
	hcl, err := f.lab.HCL(lab.Roles{Masters: masters, Public: public, User: "root"})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(f.file(), []byte(hcl+shared), 0o600); err != nil {
		return nil, err
	}
	if _, err := f.install(ctx, "apply", "-auto-approve", "-bundle", s.bundle); err != nil {
		return nil, err
	}
	if err := f.connect(ctx); err != nil {
		return nil, err
	}
	return f, f.deploy(ctx)
}

// shared is what preflight finds of hosts that share two CPUs and a disk with
// whatever else their machine does.
const shared = `
preflight {
  ignore = { "latency-masters-p99" = "the hosts are one machine: what delays packets is its load" }
}
`

func (f *field) file() string { return filepath.Join(f.dir, "cluster.hcl") }

func (f *field) hosts() (names []string) {
	for _, h := range f.lab.Record.Hosts {
		names = append(names, h.Name)
	}
	return names
}

// address returns that of a host.
func (f *field) address(host string) netip.Addr {
	for _, h := range f.lab.Record.Hosts {
		if h.Name == host {
			return h.Address
		}
	}
	return netip.Addr{}
}

// close takes the hosts away, with the cluster on them.
func (f *field) close(keep bool) error {
	if f.api != nil {
		f.api.Close()
	}
	if keep {
		fmt.Fprintf(os.Stderr, "kept: lab %s, installer in %s; take it away with: lab down -name %s\n", f.s.name, f.dir, f.s.name)
		return nil
	}
	var err error
	if f.lab != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		err = f.lab.Down(ctx)
	}
	return errors.Join(err, os.RemoveAll(f.dir))
}

// install runs dcos-install on the cluster's file.
func (f *field) install(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 8*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(f.s.bin, "dcos-install"), args...)
	cmd.Dir = f.dir
	cmd.Env = append(os.Environ(), "HOME="+f.dir)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("dcos-install %s: %w\n%s", strings.Join(args, " "), err, tail(out.String(), 60))
	}
	return out.String(), nil
}

func tail(s string, lines int) string {
	all := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// connect makes a client of the cluster. Every master is asked, so that it
// goes on without any of them.
func (f *field) connect(ctx context.Context) error {
	password, err := f.install(ctx, "output", "-raw", "-reveal", "admin_password")
	if err != nil {
		return err
	}
	ca, err := f.install(ctx, "output", "-raw", "ca_certificate")
	if err != nil {
		return err
	}
	c := gateway.Config{CA: ca, User: "admin", Password: strings.TrimSpace(password),
		Dial: (&net.Dialer{Timeout: time.Second}).DialContext}
	for _, m := range f.masters {
		c.Masters = append(c.Masters, f.address(m).String())
	}
	f.api, err = gateway.New(c)
	return err
}

// on runs a script as root on a host.
func (f *field) on(ctx context.Context, host, script string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return f.lab.Run(ctx, host, "root", script)
}

// leader returns the name of the leading master.
func (f *field) leader(ctx context.Context) (string, error) {
	var m struct {
		Leader string `json:"leader"`
	}
	err := f.until(ctx, time.Minute, "a leading master", func(ctx context.Context) error {
		if err := f.api.JSON(ctx, http.MethodGet, "/system/v1/members", nil, &m); err != nil {
			return err
		}
		if !slices.Contains(f.masters, m.Leader) {
			return fmt.Errorf("leader is %q", m.Leader)
		}
		return nil
	})
	return m.Leader, err
}

// followers returns the masters that do not lead.
func (f *field) followers(ctx context.Context) ([]string, error) {
	leader, err := f.leader(ctx)
	return slices.DeleteFunc(slices.Clone(f.masters), func(m string) bool { return m == leader }), err
}

// until calls try until it succeeds; each try has a few seconds.
func (f *field) until(ctx context.Context, most time.Duration, what string, try func(context.Context) error) error {
	deadline := time.Now().Add(most)
	for {
		one, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := try(one)
		cancel()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("%s: not within %s: %w", what, most, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// healthy waits until all masters vote, all agents are registered and the app
// has all its instances.
func (f *field) healthy(ctx context.Context) error {
	return f.until(ctx, 2*time.Minute, "a healthy cluster", func(ctx context.Context) error {
		var m struct {
			Members []struct {
				Name, Role string
				Healthy    bool
			} `json:"members"`
		}
		if err := f.api.JSON(ctx, http.MethodGet, "/system/v1/members", nil, &m); err != nil {
			return err
		}
		well := 0
		for _, x := range m.Members {
			if x.Healthy && x.Role == "voter" {
				well++
			}
		}
		if well != masters || len(m.Members) != masters {
			return fmt.Errorf("%d of %d masters vote and are well: %+v", well, masters, m.Members)
		}
		var list struct {
			Slaves []struct{ Active bool }
		}
		if err := f.api.JSON(ctx, http.MethodGet, "/mesos/slaves", nil, &list); err != nil {
			return err
		}
		active := 0
		for _, a := range list.Slaves {
			if a.Active {
				active++
			}
		}
		if active != agents+public {
			return fmt.Errorf("%d of %d agents are active", active, agents+public)
		}
		a, err := f.app(ctx)
		if err != nil {
			return err
		}
		if a.Healthy != instances || len(a.Deployments) > 0 {
			return fmt.Errorf("%d of %d instances are healthy, %d deployments", a.Healthy, instances, len(a.Deployments))
		}
		return nil
	})
}

// app is the part of the watched app's record that drills look at.
type app struct {
	Healthy     int   `json:"tasksHealthy"`
	Deployments []any `json:"deployments"`
	Tasks       []struct {
		ID    string `json:"id"`
		Host  string `json:"host"`
		Ports []int  `json:"ports"`
		State string `json:"state"`
	} `json:"tasks"`
}

const (
	watchedApp = "/web"
	instances  = 4
	least      = instances / 2 // by the app's own upgradeStrategy
)

func (f *field) app(ctx context.Context) (app, error) {
	var answer struct{ App app }
	err := f.api.JSON(ctx, http.MethodGet, "/service/marathon/v2/apps/"+watchedApp, nil, &answer)
	return answer.App, err
}

// deploy starts the app that is watched.
func (f *field) deploy(ctx context.Context) error {
	def := fmt.Sprintf(`{
  "id": %q, "instances": %d, "cpus": 0.05, "mem": 32,
  "container": {"type": "MESOS", "docker": {"image": "dcos/hello:0.1"},
    "portMappings": [{"containerPort": 8080, "hostPort": 0, "name": "http", "labels": {"VIP_0": "/web:80"}}]},
  "networks": [{"mode": "container/bridge"}],
  "constraints": [["hostname", "GROUP_BY"]],
  "healthChecks": [{"protocol": "MESOS_HTTP", "path": "/health", "portIndex": 0, "gracePeriodSeconds": 10, "intervalSeconds": 1, "timeoutSeconds": 1, "maxConsecutiveFailures": 3}],
  "unreachableStrategy": {"inactiveAfterSeconds": 0, "expungeAfterSeconds": 0},
  "upgradeStrategy": {"minimumHealthCapacity": 0.5, "maximumOverCapacity": 0.5}
}`, watchedApp, instances)
	if err := f.until(ctx, time.Minute, "deploy the app", func(ctx context.Context) error {
		return f.api.JSON(ctx, http.MethodPost, "/service/marathon/v2/apps", json.RawMessage(def), nil)
	}); err != nil {
		return err
	}
	return f.healthy(ctx)
}

// diagnose tells what the hosts say, after a drill that failed.
func (f *field) diagnose(ctx context.Context) string {
	var b strings.Builder
	for _, h := range f.hosts() {
		out, err := f.on(ctx, h, `systemctl --no-pager --plain --no-legend list-units 'dcos-*' --all; journalctl --no-pager -n 15 -o cat -u dcos-master -u dcos-agent`)
		fmt.Fprintf(&b, "== %s\n%s", h, out)
		if err != nil {
			fmt.Fprintf(&b, "%v\n", err)
		}
	}
	return b.String()
}

// answers reports whether an instance answers.
func answers(ctx context.Context, client *http.Client, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
	return err == nil && resp.StatusCode == http.StatusOK
}
