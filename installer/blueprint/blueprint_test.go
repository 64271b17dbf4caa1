package blueprint_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/zclconf/go-cty/cty"

	"dcos.example/dcos/installer/blueprint"
	"dcos.example/dcos/installer/diag"
)

var update = flag.Bool("update", false, "rewrite golden files")

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s (-want +got):\n%s", path, d)
	}
}

func parse(t *testing.T, path string, v blueprint.Values) (*blueprint.Blueprint, diag.List) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return blueprint.Parse(blueprint.Source{Name: filepath.Base(path), Text: b}, v)
}

func text(t *testing.T, bp *blueprint.Blueprint, l diag.List) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := l.WriteText(&b, bp.Files(), 100, false); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Every file is something that a new user may well write.
func TestWrong(t *testing.T) {
	files, err := filepath.Glob("testdata/wrong/*.hcl")
	if err != nil || len(files) < 10 {
		t.Fatalf("found %d files: %v", len(files), err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			bp, l := parse(t, f, blueprint.Values{})
			if !l.HasErrors() {
				t.Error("no error is reported")
			}
			golden(t, strings.TrimSuffix(f, ".hcl")+".golden", text(t, bp, l))
		})
	}
}

func TestGood(t *testing.T) {
	values := blueprint.Values{
		Env:   []string{"HOME=/root", "DCOS_VAR_password=correct-horse", "DCOS_VAR_agents=7", "DCOS_VAR_unknown=1"},
		Files: []blueprint.Source{{Name: "a.hcl", Text: []byte("agents = 5\ntags = { zone = \"z\" }\n")}, {Name: "b.json", Text: []byte(`{"agents": 4}`)}},
		Flags: []string{"agents=3", `shape={cpus = 1.5}`},
	}
	bp, l := parse(t, "testdata/good/full.hcl", values)
	if len(l) > 0 {
		t.Fatalf("findings:\n%s", text(t, bp, l))
	}
	got, err := json.MarshalIndent(bp, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/good/full.golden", append(got, '\n'))

	bp, l = parse(t, "testdata/good/minimal.hcl", blueprint.Values{})
	if l.HasErrors() || len(l) != 1 || l[0].Summary != "No agents" {
		t.Errorf("minimal:\n%s", text(t, bp, l))
	}
	if got := bp.Group(blueprint.RoleMaster).Nodes[0].Memory.Value; got != blueprint.GiB {
		t.Errorf("default memory is %s", got)
	}
}

func TestOnPrem(t *testing.T) {
	bp, l := parse(t, "testdata/good/onprem.hcl", blueprint.Values{Dir: "/srv/demo", Env: []string{"DCOS_VAR_sudo=s3cret", "DCOS_VAR_s3_secret=k3y"}})
	if len(l) > 0 {
		t.Fatalf("findings:\n%s", text(t, bp, l))
	}
	got, err := json.MarshalIndent(struct {
		OnPrem    *blueprint.OnPrem
		Groups    []blueprint.NodeGroup
		Preflight blueprint.Preflight
		Upgrade   blueprint.Upgrade
		Backup    *blueprint.Backup
	}{bp.Provider.OnPrem, bp.Groups, bp.Preflight, bp.Upgrade, bp.Backup}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/good/onprem.golden", append(values(t, got), '\n'))
}

// values leaves the places out of a blueprint's JSON form: a field is its
// value.
func values(t *testing.T, b []byte) []byte {
	t.Helper()
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	var strip func(v any) any
	strip = func(v any) any {
		switch v := v.(type) {
		case []any:
			for i := range v {
				v[i] = strip(v[i])
			}
		case map[string]any:
			if x, ok := v["Value"]; ok && len(v) == 3 {
				return strip(x)
			}
			delete(v, "Range")
			for k := range v {
				v[k] = strip(v[k])
			}
		}
		return v
	}
	out, err := json.MarshalIndent(strip(v), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestWindow(t *testing.T) {
	at := func(s string) time.Time {
		v, err := time.Parse("Mon 2006-01-02 15:04", s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, c := range []struct{ window, now, next string }{
		{"Sat,Sun 02:00-06:00", "Fri 2026-05-01 12:00", "Sat 2026-05-02 02:00"},
		{"Sat,Sun 02:00-06:00", "Sat 2026-05-02 05:59", ""},
		{"Sat,Sun 02:00-06:00", "Sat 2026-05-02 06:00", "Sun 2026-05-03 02:00"},
		{"Sat,Sun 02:00-06:00", "Sun 2026-05-03 06:00", "Sat 2026-05-09 02:00"},
		{"fri-mon 22:00-04:00 UTC", "Tue 2026-05-05 03:59", ""},
		{"fri-mon 22:00-04:00 UTC", "Tue 2026-05-05 04:00", "Fri 2026-05-08 22:00"},
		{"02:00-24:00", "Tue 2026-05-05 23:59", ""},
		{"02:00-24:00", "Wed 2026-05-06 01:00", "Wed 2026-05-06 02:00"},
		{"Tuesday 00:00-24:00", "Wed 2026-05-06 00:00", "Tue 2026-05-12 00:00"},
	} {
		w, err := blueprint.ParseWindow(c.window)
		if err != nil {
			t.Errorf("%s: %v", c.window, err)
			continue
		}
		if open := w.Open(at(c.now)); open != (c.next == "") {
			t.Errorf("%s at %s: open %t", c.window, c.now, open)
		}
		want := at(c.now)
		if c.next != "" {
			want = at(c.next)
		}
		if next := w.Next(at(c.now)); !next.Equal(want) {
			t.Errorf("%s at %s: next %s, want %s", c.window, c.now, next, want)
		}
	}
	for _, bad := range []string{"", "Sat", "Sat 02:00", "25:00-26:00", "Sat,Xyz 02:00-03:00", "02:00-02:00", "Sat Sun 02:00-03:00", "24:01-03:00"} {
		if w, err := blueprint.ParseWindow(bad); err == nil {
			t.Errorf("%q is taken for %+v", bad, w)
		}
	}
	if w := (blueprint.Window{}); !w.Open(at("Fri 2026-05-01 12:00")) {
		t.Error("no window is always open")
	}
}

func TestOutputs(t *testing.T) {
	bp, l := parse(t, "testdata/good/full.hcl", blueprint.Values{Env: []string{"DCOS_VAR_password=correct-horse"}})
	if len(l) > 0 {
		t.Fatalf("findings:\n%s", text(t, bp, l))
	}
	find := func(vs []blueprint.OutputValue, name string) blueprint.OutputValue {
		for _, v := range vs {
			if v.Name == name {
				return v
			}
		}
		t.Fatalf("no output %s", name)
		return blueprint.OutputValue{}
	}
	before, l := bp.Evaluate(blueprint.Applied{})
	if len(l) > 0 || find(before, "url").Value.IsKnown() {
		t.Errorf("before apply: %v %v", before, l)
	}
	after, l := bp.Evaluate(blueprint.Applied{URL: "https://198.18.4.11", Hosts: map[string]blueprint.HostInfo{"agent-1": {Address: "198.18.4.21", Role: "agent"}}})
	if len(l) > 0 {
		t.Fatal(l)
	}
	if v := find(after, "url").Value; !v.RawEquals(cty.StringVal("https://198.18.4.11")) {
		t.Errorf("url is %#v", v)
	}
	if v := find(after, "first").Value; !v.RawEquals(cty.StringVal("198.18.4.21")) {
		t.Errorf("first is %#v", v)
	}
	if v := find(after, "secret"); !v.Sensitive || v.Value.IsMarked() {
		t.Errorf("secret is %#v", v)
	}
	if _, l := bp.Evaluate(blueprint.Applied{Hosts: map[string]blueprint.HostInfo{"master-1": {}}}); !l.HasErrors() {
		t.Error("an output may refer to a host that does not exist")
	}
}

func TestWrongValues(t *testing.T) {
	src := `
variable "agents" { type = number }
variable "list" {
  type    = list(string)
  default = []
}
variable "secret" {
  type      = list(string)
  sensitive = true
}
cluster "demo" {}
provider "local" {}
node_group "master" {}
node_group "agent" { count = var.agents }
`
	bp, l := blueprint.Parse(blueprint.Source{Name: "cluster.hcl", Text: []byte(src)}, blueprint.Values{
		Env:   []string{`DCOS_VAR_secret=["s3cr3t-token`},
		Files: []blueprint.Source{{Name: "prod.hcl", Text: []byte("agnets = 3\nlist = \"x\"\n")}, {Name: "bad.hcl", Text: []byte("secret = [s3cr3t-token\n")}},
		Flags: []string{"agents=many", "lits=[]", "novalue"},
	})
	got := text(t, bp, l)
	if bytes.Contains(got, []byte("s3cr3t")) {
		t.Error("a secret is shown")
	}
	golden(t, "testdata/values.golden", got)
	raw, err := json.Marshal(l.JSON())
	if err != nil || bytes.Contains(raw, []byte("s3cr3t")) {
		t.Errorf("JSON form: %v\n%s", err, raw)
	}
}

// No message about a sensitive value shows it, whatever an expression does
// with it.
func TestSecretsStayHidden(t *testing.T) {
	const secret = "Sw0rdfish-9"
	for _, expr := range []string{
		`var.s`, `tonumber(var.s)`, `parseint(var.s, 10)`, `jsondecode(var.s)`, `regex("x", var.s)`, `{ a = 1 }[var.s]`, `[1, 2][var.s]`,
		`formatdate(var.s, var.s)`, `timeadd(var.s, "1h")`, `csvdecode("${var.s},${var.s}\n1,2")`, `var.s.x`, `var.s + 1`, `var.s ? 1 : 2`,
		`{ (var.s) = 1 }`, `[for x in var.s : x]`, `format("%d", var.s)`, `substr(var.s, 100, var.s)`, `element([], var.s)`, `local.l`, `upper(local.l)`,
		`file(var.s)`, `convert(var.s, number)`, `lookup({}, var.s)`, `range(var.s)`, `index(["a"], var.s)`, `"${[var.s]}"`, `coalesce(var.s...)`,
	} {
		for _, attr := range []string{"release", "admin_user", "admin_password", "resolvers"} {
			src := "variable \"s\" {\n  sensitive = true\n  type = string\n}\nlocals {\n  l = \"<${var.s}>\"\n}\ncluster \"c\" {\n  " + attr + " = " + expr + "\n}\n"
			bp, l := blueprint.Parse(blueprint.Source{Name: "c.hcl", Text: []byte(src)}, blueprint.Values{Env: []string{"DCOS_VAR_s=" + secret}})
			raw, err := json.Marshal(l.JSON())
			if err != nil {
				t.Fatal(err)
			}
			for form, out := range map[string][]byte{"text": text(t, bp, l), "JSON": raw} {
				if bytes.Contains(bytes.ToLower(out), []byte(strings.ToLower(secret))) {
					t.Errorf("%s = %s shows the secret in %s:\n%s", attr, expr, form, out)
				}
			}
		}
	}
}

func TestResolvers(t *testing.T) {
	bp, l := parse(t, "testdata/good/full.hcl", blueprint.Values{Env: []string{"DCOS_VAR_password=correct-horse"}})
	if len(l) > 0 {
		t.Fatal(l)
	}
	want := []netip.AddrPort{netip.MustParseAddrPort("9.9.9.9:53"), netip.MustParseAddrPort("192.0.2.1:5353")}
	if d := cmp.Diff(want, bp.Cluster.Resolvers.Value, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
		t.Error(d)
	}
}
