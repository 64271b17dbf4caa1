package service_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dcos.example/dcos/runtime/api/service"
)

const kafka = `
name: kafka
user: 1000
requires: [hdfs]
pods:
  zk:
    count: 1
    tasks: {node: {cpus: 1, memory: 128}}
  kafka:
    count: 3
    image: registry.dcos/kafka:4.1.0-1
    placement: '[["hostname","UNIQUE"]]'
    allow-decommission: true
    volumes: {data: {path: /data, size: 1024, type: ROOT}}
    tasks:
      format: {goal: ONCE, cmd: ./format, cpus: 0.5, memory: 512}
      broker:
        essential: false
        cpus: 0.5
        memory: 512
        env: {A: b, N: 1, YES: true, D: 1.50}
        ports:
          broker: {port: 9092, env-key: PORT_BROKER, advertise: true, vip: {prefix: broker, port: 9092}}
          admin: {port: 0}
        configs: {server: {template: server.properties.mustache, dest: /etc/kafka/server.properties}}
        readiness-check: {tcp: {port: broker}, interval: 5}
        transport-encryption: [{name: node, type: TLS}]
plans:
  deploy:
    strategy: serial
    phases:
      zookeeper: {pod: zk, steps: [[default, [node]]]}
      brokers: {pod: kafka, strategy: parallel, steps: [[0, [format]], {0: [[broker]]}, {default: [[format], [broker]]}]}
`

func TestParse(t *testing.T) {
	s, lines, err := service.Parse([]byte(kafka))
	if err != nil {
		t.Fatal(err)
	}
	if got := []string{s.Pods[0].Name, s.Pods[1].Name}; !cmp.Equal(got, []string{"zk", "kafka"}) {
		t.Errorf("pods in order %v", got)
	}
	pod := s.Pods.Get("kafka")
	broker := pod.Tasks.Get("broker")
	for _, c := range []struct{ got, want any }{
		{s.User, "1000"},
		{pod.Placement, service.Constraints{{"hostname", "UNIQUE"}}},
		{broker.Env, map[string]string{"A": "b", "N": "1", "YES": "true", "D": "1.50"}},
		{broker.IsEssential(), false},
		{pod.Tasks.Get("format").IsEssential(), true},
		{broker.Ports.Get("broker").VIP, &service.VIP{Prefix: "broker", Port: 9092}},
		{s.Plans.Get("deploy").Phases.Get("brokers").Steps, service.Steps{
			{Instance: 0, Tasks: []string{"format"}}, {Instance: 0, Tasks: []string{"broker"}},
			{Instance: service.EveryInstance, Tasks: []string{"format"}}, {Instance: service.EveryInstance, Tasks: []string{"broker"}},
		}},
		{lines.Of("pods.kafka.tasks.broker.memory"), 20},
		{lines.Of("pods.kafka.tasks.broker.nothing.here"), 18},
	} {
		if d := cmp.Diff(c.want, c.got); d != "" {
			t.Error(d)
		}
	}
}

// What is written as JSON reads back the same, strictly and from the store.
func TestRoundTrip(t *testing.T) {
	s, _, err := service.Parse([]byte(kafka))
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	again, _, err := service.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	var stored service.Spec
	if err := json.Unmarshal(b, &stored); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(s, again); d != "" {
		t.Error("strictly:", d)
	}
	if d := cmp.Diff(s, &stored); d != "" {
		t.Error("from the store:", d)
	}
}

func TestProblems(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"all at once": {`name: x
pods:
  a:
    count: two
    imagee: y
    tasks:
      t: {cpus: [1], memory: 5, cmd: {}, env: {A: [1]}}
  a: {}
plans: 7
`, `line 4: pods.a.count: "two" where a whole number is wanted
line 5: pods.a.imagee: there is no such key; did you mean image?
line 7: pods.a.tasks.t.cpus: a list where a number is wanted
line 7: pods.a.tasks.t.cmd: an object where a text is wanted
line 7: pods.a.tasks.t.env.A: a list where a text is wanted
line 8: pods.a: the key is there already, in line 3
line 9: plans: 7 where an object is wanted`},
		"JSON": {"{\"name\": \"x\",\n \"pods\": {\"a\": {\n  \"count\": 1.5, \"count\": 2}}}",
			"line 3: pods.a.count: 1.5 where a whole number is wanted\nline 3: pods.a.count: the key is there already, in line 3"},
		"empty":     {"", "the spec is empty"},
		"no syntax": {"a: b\n c: [", "line 2: this is neither YAML nor JSON: mapping values are not allowed in this context"},
		"two":       {"name: a\n---\nname: b\n", "line 2: there is a second document, and a spec is one"},
		"steps": {"plans: {p: {phases: {q: {pod: x, steps: [[a, [b]], 3, {-1: [[b]]}, [0, b]]}}}}",
			`line 1: plans.p.phases.q.steps[0]: "a" where the number of an instance or default is wanted
line 1: plans.p.phases.q.steps[1]: a step is written [0, [task]] or [default, [task]]
line 1: plans.p.phases.q.steps[2]: -1 where the number of an instance or default is wanted
line 1: plans.p.phases.q.steps[3][1]: "b" where a list is wanted`},
		"constraints": {"pods: {a: {placement: 'hostname:UNIQUE'}}",
			`line 1: pods.a.placement: "hostname:UNIQUE" is no list of constraints; one is written [["hostname","UNIQUE"]]`},
		"a bomb": {"name: x\nrequires: &a [a,a,a,a,a,a,a,a,a]\nuser: *a\n", "line 2: user: a list where a text is wanted"},
	} {
		_, _, err := service.Parse([]byte(c.text))
		var ps service.Problems
		if !errors.As(err, &ps) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if d := cmp.Diff(c.want, ps.Error()); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

// Aliases that grow without end are refused, not followed.
func TestAliasesAreBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString("x0: &x0 [[a, b], [a, b], [a, b], [a, b], [a, b], [a, b], [a, b], [a, b], [a, b]]\n")
	b.WriteString("pods: {p: {placement: [")
	for range 50_000 {
		b.WriteString("*x0, ")
	}
	b.WriteString("]}}\n")
	_, _, err := service.Parse([]byte(b.String()))
	var ps service.Problems
	if !errors.As(err, &ps) || !strings.Contains(err.Error(), "more than 200000 values") {
		t.Errorf("%d problems", len(ps))
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(kafka))
	f.Add([]byte(`{"name":"x","pods":{"a":{"count":1,"tasks":{"t":{}}}}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, _, err := service.Parse(text)
		if err != nil {
			return
		}
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		again, _, err := service.Parse(b)
		if err != nil {
			t.Fatalf("what was read as a spec is none when written: %v\n%s", err, b)
		}
		if c, _ := json.Marshal(again); string(b) != string(c) {
			t.Fatalf("%s\nbecame\n%s", b, c)
		}
	})
}
