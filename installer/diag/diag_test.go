package diag_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"dcos.example/dcos/installer/diag"
)

const source = "a = 1\npassword = \"hunter2\"\n"

func files(t *testing.T) (map[string]*hcl.File, hcl.Attributes) {
	f, hd := hclsyntax.ParseConfig([]byte(source), "c.hcl", hcl.InitialPos)
	if hd.HasErrors() {
		t.Fatal(hd)
	}
	attrs, hd := f.Body.JustAttributes()
	if hd.HasErrors() {
		t.Fatal(hd)
	}
	return map[string]*hcl.File{"c.hcl": f}, attrs
}

func TestText(t *testing.T) {
	fs, attrs := files(t)
	var l diag.List
	l.Errorf(&attrs["a"].Range, "Odd", "a is %d.", 1)
	l.Add(diag.Diagnostic{Severity: diag.Warning, Summary: "Weak", Detail: "Too short.", Hint: "Take a long one.", Range: &attrs["password"].Range, Secret: true})
	l.Add(diag.Diagnostic{Summary: "Missing", Range: &hcl.Range{Filename: "c.hcl", Start: hcl.InitialPos, End: hcl.InitialPos}})
	l.Add(diag.Diagnostic{Summary: "Nowhere"})
	var b bytes.Buffer
	if err := l.WriteText(&b, fs, 40, false); err != nil {
		t.Fatal(err)
	}
	want := `Error: Odd

  on c.hcl line 1:
   1: a = 1

a is 1.

Warning: Weak

  on c.hcl line 2 (not shown: it may hold a secret)

Too short.

Hint: Take a long one.

Error: Missing

  in c.hcl

Error: Nowhere

`
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Error(d)
	}
	if errs, warns := l.Count(); errs != 3 || warns != 1 || !l.HasErrors() {
		t.Errorf("%d errors, %d warnings", errs, warns)
	}
}

func TestJSON(t *testing.T) {
	_, attrs := files(t)
	l := diag.List{{Severity: diag.Error, Summary: "Odd", Hint: "Even.", Range: &attrs["a"].NameRange}}
	b, err := json.Marshal(l.JSON())
	if err != nil {
		t.Fatal(err)
	}
	want := `[{"severity":"error","summary":"Odd","hint":"Even.","range":{"filename":"c.hcl","start":{"line":1,"column":1,"byte":0},"end":{"line":1,"column":2,"byte":1}}}]`
	if d := cmp.Diff(want, string(b)); d != "" {
		t.Error(d)
	}
	if b, err := json.Marshal(diag.List(nil).JSON()); err != nil || string(b) != "[]" {
		t.Errorf("no findings: %s %v", b, err)
	}
}

func TestSortDropsRepetitions(t *testing.T) {
	_, attrs := files(t)
	l := diag.List{{Summary: "b", Range: &attrs["password"].Range}, {Summary: "a", Range: &attrs["a"].Range}, {Summary: "a", Range: &attrs["a"].Range}, {Summary: "first"}}
	l.Sort()
	var got []string
	for _, d := range l {
		got = append(got, d.Summary)
	}
	if s := strings.Join(got, " "); s != "first a b" {
		t.Error(s)
	}
}

func TestNearest(t *testing.T) {
	names := []string{"memory", "cpus", "count", "disk"}
	for given, want := range map[string]string{"memroy": "memory", "CPUS": "cpus", "cpu": "cpus", "dsik": "disk", "bandwidth": "", "": "", "x": "", "conut": "count"} {
		if got := diag.Nearest(given, names); got != want {
			t.Errorf("%q: %q, not %q", given, got, want)
		}
	}
}
