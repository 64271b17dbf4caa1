package spec_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dcos.example/dcos/runtime/api/service"
	"dcos.example/dcos/runtime/resource"
	"dcos.example/dcos/runtime/service/spec"
)

func read(t testing.TB, text string) (*service.Spec, service.Lines) {
	t.Helper()
	s, lines, err := service.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	spec.Normalize(s)
	return s, lines
}

const good = `
name: /prod/kafka
pods:
  kafka:
    count: 3
    image: registry.dcos/kafka:1
    placement: [[hostname, unique]]
    volumes: {data: {path: /data, size: 100}}
    secrets: {admin: {env-key: PASSWORD}}
    tasks:
      format: {goal: ONCE, cmd: ./format, cpus: 1, memory: 900}
      broker:
        cpus: 0.5
        memory: 512
        ports: {broker: {port: 9092, vip: {prefix: broker, port: 9092}}, jmx-1: {port: 0}}
        configs: {c: {template: t.mustache, dest: /etc/c}}
        readiness-check: {tcp: {port: broker}}
        transport-encryption: [{name: node, type: TLS}]
plans:
  deploy: {phases: {brokers: {pod: kafka, steps: [[default, [format]], [default, [broker]]]}}}
templates: {t.mustache: "a={{A}}"}
secrets: {admin: {generate: 20}}
`

func TestGood(t *testing.T) {
	s, lines := read(t, good)
	if ps := spec.Validate(s, lines); len(ps) > 0 {
		t.Fatal(ps)
	}
	b := s.Pods.Get("kafka").Tasks.Get("broker")
	for _, c := range []struct{ got, want any }{
		{s.Name, "prod/kafka"},
		{spec.Role(s.Name), "prod__kafka-role"},
		{spec.Domain(s.Name), "prodkafka.autoip.dcos.thisdcos.directory"},
		{b.Ports.Get("jmx-1").EnvKey, "PORT_JMX_1"},
		{b.Goal, service.Running},
		{*b.KillGrace, 3},
		{b.Readiness.Interval, 10.0},
		{spec.Need(s, "kafka"), spec.Amount{CPUs: resource.Float(1), Mem: resource.Float(900)}},
	} {
		if d := cmp.Diff(c.want, c.got); d != "" {
			t.Error(d)
		}
	}
}

func TestProblems(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"much at once": {`
name: Kafka_1
requires: [Kafka_1]
pods:
  p:
    count: -1
    network: overlay
    placement: [[hostname]]
    volumes: {v: {path: "", size: 0, type: MOUNT}}
    tasks:
      T: {goal: ALWAYS, cpus: 0, memory: 1}
`, `line 2: name: "Kafka_1" is no name of a service: lower-case letters, digits and hyphens, in groups separated by slashes
line 3: requires[0]: "Kafka_1" is no name of a service
line 3: requires[0]: a service cannot require itself
line 6: pods.p.count: -1 instances; 0 to 1000 are possible
line 7: pods.p.network: "overlay" is no network of a pod: host or container
line 8: pods.p.placement[0]: Each constraint must have either 2 or 3 fields
line 9: pods.p.volumes.v.size: a volume of 0 MiB; at least 1 is needed
line 9: pods.p.volumes.v.type: volumes of type "MOUNT" are not possible yet, only ROOT
line 9: pods.p.volumes.v.path: a path in the container is needed
line 11: pods.p.tasks.T: "T" is no name of a task: lower-case letters, digits and hyphens
line 11: pods.p.tasks.T.goal: "ALWAYS" is no goal: RUNNING, ONCE or FINISH
line 11: pods.p.tasks.T.cmd: a task needs a cmd if its pod has no image
line 11: pods.p.tasks.T.cpus: a task needs at least 0.01 cpus, not 0
line 11: pods.p.tasks.T.memory: a task needs at least 4 MiB of memory, not 1`},
		"no pods": {"name: check", `line 1: name: the name "check" is taken by the operator's own API
line 1: pods: a service needs at least one pod`},
		"plans": {`
name: a
pods: {p: {count: 1, tasks: {t: {cmd: x, cpus: 1, memory: 10}, u: {cmd: x, cpus: 1, memory: 10}}}, q: {count: 1, tasks: {t: {cmd: x, cpus: 1, memory: 10}}}}
plans:
  deploy: {strategy: fast, phases: {x: {pod: p, steps: [[1, [t]], [0, [v]], [0, []]]}}}
  recovery: {phases: {y: {pod: z}}}
`, `line 5: plans.deploy.strategy: "fast" is no strategy: serial, parallel, canary, serial-canary, parallel-canary
line 5: plans.deploy.phases.x.steps[0]: pod p has no instance 1, only 1
line 5: plans.deploy.phases.x.steps[1]: pod p has no task "v"
line 5: plans.deploy.phases.x.steps[2]: a step needs at least one task
line 5: plans.deploy.phases: no step starts task u of pod p
line 5: plans.deploy.phases: no phase deploys pod q
line 6: plans.recovery: the plan recovery is the operator's own
line 6: plans.recovery.phases.y.pod: there is no pod "z"`},
		"volumes at once": {`
name: a
pods: {p: {count: 1, image: i, volumes: {v: {path: /v, size: 1}}, tasks: {t: {cpus: 1, memory: 10}, u: {goal: FINISH, cpus: 1, memory: 10}}}}
plans: {backup: {phases: {x: {pod: p, steps: [[default, [u]]]}}}}
`, `line 3: pods.p.share-volumes: tasks t and u would use the volumes at the same time; set share-volumes: true if they may`},
		"checks, ports and places": {`
name: a
pods:
  p:
    count: 1
    volumes: {v: {path: /v, size: 1}}
    tasks:
      t:
        cmd: x
        cpus: 1
        memory: 10
        ports: {a: {port: 80}, b: {port: 80}, c: {port: 0, env-key: PORT_A}}
        health-check: {cmd: x, tcp: {port: z}, interval: -1}
        readiness-check: {http: {port: a, path: x}}
        configs: {c: {template: no, dest: v}, d: {template: no, dest: ../x}}
`, `line 6: pods.p.volumes.v.path: "/v" would be on the host itself, as the pod has no image; write it without a slash in front, then it is in the sandbox
line 12: pods.p.tasks.t.ports.b.port: port 80 is that of t.a already
line 12: pods.p.tasks.t.ports.c.env-key: the variable PORT_A is set at pods.p.tasks.t.ports.a.env-key already
line 13: pods.p.tasks.t.health-check.tcp.port: the task has no port "z"
line 13: pods.p.tasks.t.health-check: a check is exactly one of cmd, tcp and http; this has 2 of them
line 13: pods.p.tasks.t.health-check.interval: it cannot be negative
line 14: pods.p.tasks.t.readiness-check.http.path: "x" does not begin with a slash
line 15: pods.p.tasks.t.configs.c.template: there is no template "no"
line 15: pods.p.tasks.t.configs.d.template: there is no template "no"
line 15: pods.p.tasks.t.configs.d.dest: "../x" is no place for a file or volume`},
		"secrets and templates": {`
name: a
pods: {p: {count: 1, secrets: {x: {}, y: {secret: k, env-key: "1"}}, tasks: {t: {cmd: x, cpus: 1, memory: 10}}}}
secrets: {k: {value: v, generate: 3}}
templates: {t: "{{#a}}"}
replacement-failure-policy: {permanent-failure-timeout: 1}
`, `line 3: pods.p.secrets.x: there is no secret "x" under secrets
line 3: pods.p.secrets.x: the secret goes nowhere: give it an env-key, a file, or both
line 3: pods.p.secrets.y.env-key: "1" is no name of an environment variable
line 4: secrets.k: a secret has a value or is generated, not both
line 4: secrets.k.generate: 3 characters are too few to be a secret; at least 8
line 5: templates.t: parse template: line 1: the section a is never closed
line 6: replacement-failure-policy.permanent-failure-timeout: at least 30 s, or an agent that restarts costs the data on it`},
	} {
		s, lines := read(t, c.text)
		if d := cmp.Diff(c.want, spec.Validate(s, lines).Error()); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

func TestCompare(t *testing.T) {
	for name, c := range map[string]struct {
		old, new string // replaced in good
		want     string
	}{
		"more instances":   {"count: 3", "count: 5", ""},
		"fewer instances":  {"count: 3", "count: 2", "pods.kafka.count: 3 instances cannot become 2, as those beyond would lose their volumes; set allow-decommission: true if the service can do without them"},
		"fewer, allowed":   {"count: 3", "count: 2\n    allow-decommission: true", ""},
		"memory":           {"memory: 512", "memory: 600", ""},
		"volume size":      {"size: 100", "size: 200", "pods.kafka.volumes.data.size: the size of a volume cannot change from 100 MiB to 200: instances have it already; keep it, or install a second service with larger volumes and move the data"},
		"volume path":      {"path: /data", "path: /other", "pods.kafka.volumes.data.path: the path of a volume cannot change from /data: the service would not find its data"},
		"user":             {"name: /prod/kafka", "name: /prod/kafka\nuser: x", `user: the user cannot change from "": the files in the volumes belong to it; keep it, or install a second service and move the data`},
		"name":             {"name: /prod/kafka", "name: kafka", `name: a service cannot be renamed from "prod/kafka": its volumes and addresses belong to that name; install a second one`},
		"another volume":   {"size: 100}", "size: 100}, log: {path: /log, size: 1}", "pods.kafka.volumes.log: the 3 instances that exist cannot get a further volume; add another pod with it, or install a second service and move the data"},
		"volume goes":      {"volumes: {data: {path: /data, size: 100}}", "volumes: {}", "pods.kafka.volumes.data: a volume cannot be removed from instances that exist, its data would be lost; keep it"},
		"sharing":          {"image:", "share-volumes: true\n    image:", "pods.kafka.share-volumes: volumes that exist cannot begin or cease to be shared; install a second service and move the data"},
		"pod goes":         {"  kafka:\n    count", "  broker:\n    count", "pods.kafka: pod kafka cannot be removed, it would take its 3 instances and their volumes with it; set allow-decommission: true for it first, in an update of its own"},
		"placement":        {"[[hostname, unique]]", "[]", ""},
		"another template": {"a={{A}}", "b={{A}}", ""},
	} {
		from, _ := read(t, good)
		to, lines := read(t, strings.Replace(good, c.old, c.new, 1))
		got := spec.Compare(from, to, lines)
		for i := range got {
			got[i].Line = 0
		}
		if d := cmp.Diff(c.want, got.Error()); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

// What restarts an instance, and what does not.
func TestHash(t *testing.T) {
	s, _ := read(t, good)
	base := spec.Hash(s, "kafka", map[string]string{"admin": "1"})
	for name, c := range map[string]struct {
		old, new string
		same     bool
	}{
		"count":            {"count: 3", "count: 5", true},
		"placement":        {"[[hostname, unique]]", "[]", true},
		"decommission":     {"image:", "allow-decommission: true\n    image:", true},
		"memory":           {"memory: 512", "memory: 600", false},
		"template":         {"a={{A}}", "b={{A}}", false},
		"unused template":  {`t.mustache: "a`, `u: "", t.mustache: "a`, true},
		"user":             {"name: /prod/kafka", "name: /prod/kafka\nuser: x", false},
		"nothing":          {"count: 3", "count: 3", true},
		"plan":             {"phases: {brokers", "strategy: parallel, phases: {brokers", true},
		"explicit default": {"goal: ONCE, cmd", "goal: ONCE, kill-grace-period: 3, cmd", true},
	} {
		to, _ := read(t, strings.Replace(good, c.old, c.new, 1))
		if got := spec.Hash(to, "kafka", map[string]string{"admin": "1"}); (got == base) != c.same {
			t.Errorf("%s: the same: %v", name, got == base)
		}
	}
	if spec.Hash(s, "kafka", map[string]string{"admin": "2"}) == base {
		t.Error("another secret is the same")
	}
}
