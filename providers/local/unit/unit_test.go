package unit_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"dcos.example/dcos/providers/local/unit"
)

const containerd = `# rendered
[Unit]
Description=container runtime
After=network-online.target dcos-net.service
Requires=dcos-net.service

[Service]
Type=notify
Environment=PATH=/opt/dcos/current/bin:/usr/bin "GREETING=hello world"
EnvironmentFile=-/etc/default/dcos
ExecStartPre=-/bin/mkdir -p "/var/lib/with space"
ExecStart=/opt/dcos/current/bin/containerd \
    --config /etc/dcos/containerd.toml \
    --log-level=100%%
Restart=always
RestartSec=500ms
TimeoutStopSec=1min 30s
KillMode=process
LimitNOFILE=infinity
LimitNPROC=64:128
Delegate=yes
PrivateTmp=yes

[Install]
WantedBy=multi-user.target
`

func TestParse(t *testing.T) {
	got, err := unit.Parse("dcos-containerd.service", containerd)
	if err != nil {
		t.Fatal(err)
	}
	want := unit.Unit{
		Name: "dcos-containerd.service", Description: "container runtime",
		After: []string{"network-online.target", "dcos-net.service"}, Requires: []string{"dcos-net.service"},
		WantedBy: []string{"multi-user.target"}, Type: unit.Notify,
		Environment:     []string{"PATH=/opt/dcos/current/bin:/usr/bin", "GREETING=hello world"},
		EnvironmentFile: []string{"-/etc/default/dcos"},
		StartPre:        []unit.Command{{Argv: []string{"/bin/mkdir", "-p", "/var/lib/with space"}, IgnoreFailure: true}},
		Start:           unit.Command{Argv: []string{"/opt/dcos/current/bin/containerd", "--config", "/etc/dcos/containerd.toml", "--log-level=100%"}},
		Restart:         unit.RestartAlways, RestartDelay: 500 * time.Millisecond,
		StartTimeout: 90 * time.Second, StopTimeout: 90 * time.Second, Kill: unit.KillProcess,
		Limits:   map[string]uint64{"NOFILE": unit.Unlimited, "NPROC": 64},
		Warnings: []string{"line 22: PrivateTmp is not honoured on a local host"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestParseReportsEveryProblem(t *testing.T) {
	_, err := unit.Parse("x.service", strings.Join([]string{
		"[Service]", "Type=forking", "Restart=sometimes", "ExecStart=relative", "RestartSec=soon",
		"LimitNOFILE=many", "User=nobody", "what is this", `Environment="open`, "ExecStartPre=/bin/echo %H",
	}, "\n"))
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"x.service:2: Type=forking", "x.service:3: Restart", "x.service:4: command", "x.service:5: RestartSec",
		"x.service:6: LimitNOFILE", "x.service:7: User", "x.service:8", "x.service:9: Environment", "x.service:10: command"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in:\n%v", want, err)
		}
	}
}

func TestExpand(t *testing.T) {
	env := []string{"A=first", "LIST=x  y", "A=last"}
	got := unit.Expand([]string{"/bin/echo", "${A}/z", "$LIST", "$$A", "$NONE", "p=${LIST}"}, env)
	want := []string{"/bin/echo", "last/z", "x", "y", "$A", "p=x  y"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// Whatever the dependencies, every unit comes out once, and without a cycle
// each comes after everything it names.
func TestOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 8).Draw(t, "n")
		units := make([]unit.Unit, n)
		for i := range units {
			units[i].Name = string(rune('a' + i))
			for range rapid.IntRange(0, 2).Draw(t, "deps") {
				dep := string(rune('a' + rapid.IntRange(0, n).Draw(t, "dep"))) // may be unknown
				if rapid.Bool().Draw(t, "requires") {
					units[i].Requires = append(units[i].Requires, dep)
				} else {
					units[i].After = append(units[i].After, dep)
				}
			}
		}
		got, cycle := unit.Order(units)
		if len(got) != n {
			t.Fatalf("%d units became %d", n, len(got))
		}
		at := map[string]int{}
		for i, u := range got {
			at[u.Name] = i
		}
		if len(at) != n {
			t.Fatal("a unit came twice")
		}
		if cycle != nil {
			return
		}
		for i, u := range got {
			for _, dep := range slices.Concat(u.After, u.Requires) {
				if j, ok := at[dep]; ok && j > i {
					t.Fatalf("%s starts before %s", u.Name, dep)
				}
			}
		}
	})
}
