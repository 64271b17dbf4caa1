package cli_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"dcos.example/dcos/runtime/server"
)

// fakeCluster answers as a cluster's gateway. What runs on it is in the file
// cluster.json of its directory, and what was ordered is added to orders.log.
// Without that file nothing answers.
type fakeCluster struct{ dir string }

// fakeFile is cluster.json.
type fakeFile struct {
	Masters []string   `json:"masters"` // healthy ones; a name with "!" is not
	Agents  []string   `json:"agents"`  // addresses
	Free    float64    `json:"free"`    // cpus that each agent has beside its tasks
	Apps    []fakeApp  `json:"apps"`
	Others  []fakeTask `json:"others"` // tasks of framework kafka
	Drained []string   `json:"drained"`
	Gone    []string   `json:"gone"`
}

type fakeApp struct {
	ID   string   `json:"id"`
	Min  float64  `json:"min"`
	Over float64  `json:"over"`
	On   []string `json:"on"` // the addresses of its instances' agents
}

type fakeTask struct {
	ID string `json:"id"`
	On string `json:"on"`
}

func (f fakeCluster) path(name string) string { return filepath.Join(f.dir, name) }

func (f fakeCluster) read() (fakeFile, bool) {
	var c fakeFile
	b, err := os.ReadFile(f.path("cluster.json"))
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		panic(err)
	}
	return c, err == nil
}

func (f fakeCluster) write(c fakeFile) {
	b, err := json.Marshal(c)
	if err == nil {
		err = os.WriteFile(f.path("cluster.json"), b, 0o600)
	}
	if err != nil {
		panic(err)
	}
}

// certificate returns the certificate of the cluster, which is its own CA, and
// makes it when it is asked for first.
func (f fakeCluster) certificate() tls.Certificate {
	path := f.path("gateway.pem")
	if b, err := os.ReadFile(path); err == nil {
		c, err := tls.X509KeyPair(b, b)
		if err != nil {
			panic(err)
		}
		return c
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.ParseIP("198.18.0.11"), net.ParseIP("10.0.0.11")}}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		panic(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	b := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})...)
	if err := errors.Join(os.MkdirAll(f.dir, 0o700), os.WriteFile(path, b, 0o600)); err != nil {
		panic(err)
	}
	return f.certificate()
}

// ca is what clients trust.
func (f fakeCluster) ca() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.certificate().Certificate[0]}))
}

// dial connects to a gateway that lives as long as the process.
func (f fakeCluster) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if _, there := f.read(); !there {
		return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
	}
	mem := server.NewMemory()
	srv := &http.Server{Handler: f.handler()}
	go func() {
		_ = srv.Serve(tls.NewListener(mem, &tls.Config{Certificates: []tls.Certificate{f.certificate()}}))
	}()
	return mem.DialContext(ctx, network, address)
}

func id(address string) string { return "agent-at-" + address }

func (f fakeCluster) handler() http.Handler {
	answer := func(w http.ResponseWriter, v any) { _ = json.NewEncoder(w).Encode(v) }
	mux := http.NewServeMux()
	mux.HandleFunc("POST /acs/api/v1/auth/login", func(w http.ResponseWriter, _ *http.Request) { answer(w, map[string]string{"token": "T"}) })
	state := func(w http.ResponseWriter, _ *http.Request) { c, _ := f.read(); answer(w, c.state()) }
	mux.HandleFunc("GET /mesos/state", state)
	mux.HandleFunc("GET /mesos/state-summary", state)
	mux.HandleFunc("GET /service/marathon/v2/apps", func(w http.ResponseWriter, _ *http.Request) { c, _ := f.read(); answer(w, c.apps()) })
	mux.HandleFunc("GET /system/v1/members", func(w http.ResponseWriter, _ *http.Request) {
		c, _ := f.read()
		members := []map[string]any{}
		for i, m := range c.Masters {
			name, sick := strings.CutSuffix(m, "!")
			members = append(members, map[string]any{"name": name, "addr": fmt.Sprintf("198.18.0.%d", 11+i), "role": "voter", "healthy": !sick})
		}
		answer(w, map[string]any{"leader": "master-1", "members": members})
	})
	mux.HandleFunc("POST /mesos/api/v1", f.order)
	mux.HandleFunc("PUT /system/v1/installer-state", func(w http.ResponseWriter, _ *http.Request) { answer(w, map[string]string{}) })
	return mux
}

func (f fakeCluster) order(w http.ResponseWriter, r *http.Request) {
	var call struct {
		Type  string
		Drain struct {
			ID struct{ Value string } `json:"agent_id"`
		} `json:"drain_agent"`
		Reactivate struct {
			ID struct{ Value string } `json:"agent_id"`
		} `json:"reactivate_agent"`
		Gone struct {
			ID struct{ Value string } `json:"agent_id"`
		} `json:"mark_agent_gone"`
	}
	if err := json.NewDecoder(r.Body).Decode(&call); err != nil {
		panic(err)
	}
	who := call.Drain.ID.Value + call.Reactivate.ID.Value + call.Gone.ID.Value
	log, err := os.OpenFile(f.path("orders.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	defer log.Close()
	fmt.Fprintln(log, call.Type, who)
	c, _ := f.read()
	switch call.Type {
	case "DRAIN_AGENT":
		c.Drained = append(c.Drained, who)
		for i := range c.Apps {
			c.Apps[i].On = slices.DeleteFunc(c.Apps[i].On, func(a string) bool { return id(a) == who })
		}
		c.Others = slices.DeleteFunc(c.Others, func(t fakeTask) bool { return id(t.On) == who })
	case "REACTIVATE_AGENT":
		c.Drained = slices.DeleteFunc(c.Drained, func(x string) bool { return x == who })
	case "MARK_AGENT_GONE":
		c.Gone = append(c.Gone, who)
	}
	f.write(c)
}

func (c fakeFile) state() map[string]any {
	type task = map[string]any
	small := map[string]any{"cpus": 1.0, "mem": 128.0}
	used := map[string]float64{}
	ours, theirs := []task{}, []task{}
	for _, a := range c.Apps {
		for i, on := range a.On {
			used[on]++
			ours = append(ours, task{"id": fmt.Sprintf("%s.%d", a.ID, i), "slave_id": id(on), "state": "TASK_RUNNING", "resources": small})
		}
	}
	for _, t := range c.Others {
		used[t.On]++
		theirs = append(theirs, task{"id": t.ID, "slave_id": id(t.On), "state": "TASK_RUNNING", "resources": small})
	}
	slaves := []map[string]any{}
	for _, a := range c.Agents {
		if slices.Contains(c.Gone, id(a)) {
			continue
		}
		s := map[string]any{
			"id": id(a), "hostname": a, "pid": "slave(1)@" + a + ":5051", "version": "0.1.0", "active": true, "TASK_RUNNING": used[a],
			"resources": map[string]any{"cpus": used[a] + c.Free, "mem": 4096.0}, "used_resources": map[string]any{"cpus": used[a], "mem": 128 * used[a]},
		}
		if slices.Contains(c.Drained, id(a)) {
			s["active"], s["deactivated"] = false, true
			s["drain_info"] = map[string]any{"state": "DRAINED", "config": map[string]any{"mark_gone": false}}
			s["estimated_drain_start_time_seconds"] = 1_700_000_000
		}
		slaves = append(slaves, s)
	}
	return map[string]any{"slaves": slaves, "frameworks": []any{
		map[string]any{"id": "f1", "name": "marathon", "tasks": ours}, map[string]any{"id": "f2", "name": "kafka", "tasks": theirs}}}
}

func (c fakeFile) apps() map[string]any {
	apps := []map[string]any{}
	for _, a := range c.Apps {
		tasks := []map[string]any{}
		for i := range a.On {
			tasks = append(tasks, map[string]any{"id": fmt.Sprintf("%s.%d", a.ID, i), "state": "TASK_RUNNING",
				"stagedAt": "2026-01-01T00:00:00.000Z", "startedAt": "2026-01-01T00:00:07.000Z"})
		}
		apps = append(apps, map[string]any{"id": a.ID, "instances": len(a.On), "tasks": tasks,
			"upgradeStrategy": map[string]float64{"minimumHealthCapacity": a.Min, "maximumOverCapacity": a.Over}})
	}
	return map[string]any{"apps": apps}
}
