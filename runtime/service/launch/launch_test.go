package launch_test

import (
	"flag"
	"os"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"

	"dcos.example/dcos/runtime/api/service"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/placement"
	"dcos.example/dcos/runtime/resource"
	"dcos.example/dcos/runtime/service/launch"
	"dcos.example/dcos/runtime/service/plan"
	"dcos.example/dcos/runtime/service/spec"
)

var update = flag.Bool("update", false, "rewrite golden files")

const text = `
name: prod/kafka
user: nobody
pods:
  kafka:
    count: 2
    image: registry.dcos/kafka:1
    network: container
    secrets: {admin: {env-key: PASSWORD, file: /etc/secret}}
    tasks:
      broker:
        cmd: exec ./run
        user: kafka
        cpus: 0.5
        memory: 512
        env: {HEAP: 256m, TLS: "true", HOST_IP: mine}
        ports: {broker: {port: 9092, vip: {prefix: broker, port: 19092}}, jmx: {port: 0, env-key: JMX}}
        configs: {server: {template: server, dest: /etc//server.properties}}
        health-check: {cmd: ./alive, interval: 5, grace-period: 60, max-consecutive-failures: 4}
        readiness-check: {http: {port: broker, path: /ready}, delay: 2}
        kill-grace-period: 30
        labels: {team: data}
      init: {goal: ONCE, cpus: 0.1, memory: 32}
templates:
  server: |
    id={{POD_INSTANCE_INDEX}}
    {{#TLS}}tls, {{PASSWORD}}{{/TLS}}
secrets: {admin: {value: x}}
`

func task(t *testing.T, name string) launch.Task {
	t.Helper()
	s, lines, err := service.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	spec.Normalize(s)
	if ps := spec.Validate(s, lines); len(ps) > 0 {
		t.Fatal(ps)
	}
	return launch.Task{
		Spec: s, Instance: plan.Instance{Pod: "kafka", Index: 1}, Name: name, ID: "prod.kafka__kafka-1-" + name + "__1", ConfigID: "c1",
		Agent: "a1", Place: placement.Place{Host: "h1", Zone: "z", Region: "r"}, Address: "198.19.60.1",
		Ports:     map[string]int{"broker/broker": 9092, "broker/jmx": 31000},
		Resources: resource.MustParse("cpus:0.5;mem:512;ports:[9092-9092,31000-31000]"), Secrets: map[string]string{"admin": "hidden"},
		Env: map[string]string{"HEAP": "1g"},
	}
}

func TestInfo(t *testing.T) {
	for _, name := range []string{"broker", "init", "paused"} {
		lt := task(t, strings.Replace(name, "paused", "broker", 1))
		lt.Paused = name == "paused"
		if name == "broker" {
			lt.Files = []launch.File{{Path: "/etc/tls/node.key", Data: []byte("key")}}
			lt.Replaced = "198.19.60.9"
		}
		info, err := launch.Info(lt)
		if err != nil {
			t.Fatal(err)
		}
		got, err := prototext.MarshalOptions{Multiline: true}.Marshal(info)
		if err != nil {
			t.Fatal(err)
		}
		// The library varies its spaces on purpose.
		got = []byte(strings.ReplaceAll(string(got), ":  ", ": "))
		file := "testdata/" + name + ".golden"
		if *update {
			if err := os.WriteFile(file, got, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Errorf("%s differs from its golden file:\n%s", name, got)
		}
		if _, err := protojson.Marshal(info); err != nil {
			t.Errorf("%s cannot be shown: %v", name, err)
		}
	}
}

// What a template asks for and nobody says is told with its place.
func TestTemplateError(t *testing.T) {
	lt := task(t, "broker")
	lt.Spec.Templates["server"] = "a\n{{NOBODY}}"
	_, err := launch.Info(lt)
	if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "render config server of kafka-1-broker: server: render template: line 2: there is no value for NOBODY") {
		t.Error(err)
	}
}
