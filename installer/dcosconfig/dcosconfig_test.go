package dcosconfig_test

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"

	"dcos.example/dcos/installer/blueprint"
	"dcos.example/dcos/installer/dcosconfig"
	"dcos.example/dcos/installer/topology"
)

var update = flag.Bool("update", false, "rewrite golden files")

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Error(diff)
	}
}

// given are the hosts that a file does not name.
var given = map[string]dcosconfig.Options{
	"2.2-enterprise": {
		Masters: []netip.Addr{netip.MustParseAddr("192.0.2.11"), netip.MustParseAddr("192.0.2.12"), netip.MustParseAddr("192.0.2.13")},
		Agents:  []netip.Addr{netip.MustParseAddr("192.0.2.21")},
		Beside:  []string{"ip-detect", "license.txt"},
	},
}

func convert(t *testing.T, file string) (dcosconfig.Result, string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	name := strings.TrimSuffix(filepath.Base(file), ".yaml")
	res, l := dcosconfig.Convert(dcosconfig.Source{Name: filepath.Base(file), Text: text}, given[name])
	var b strings.Builder
	if err := l.WriteText(&b, map[string]*hcl.File{filepath.Base(file): {Bytes: text}}, 100, false); err != nil {
		t.Fatal(err)
	}
	if l.HasErrors() != (res.HCL == nil) {
		t.Errorf("errors %v, but a file of %d bytes", l.HasErrors(), len(res.HCL))
	}
	return res, b.String()
}

// TestConvert: what is written means what was asked for, and is said.
func TestConvert(t *testing.T) {
	files, err := filepath.Glob("testdata/good/*.yaml")
	if err != nil || len(files) < 4 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			res, said := convert(t, f)
			var report strings.Builder
			for _, e := range res.Entries {
				fmt.Fprintf(&report, "%d %s = %s: %s", e.Line, e.Key, strings.ReplaceAll(e.Value, "\n", `\n`), e.Status)
				for _, s := range []string{e.Became, e.Note} {
					if s != "" {
						fmt.Fprintf(&report, "; %s", s)
					}
				}
				report.WriteByte('\n')
			}
			golden(t, strings.TrimSuffix(f, ".yaml")+".golden", string(res.HCL)+"==== report\n"+report.String()+"==== findings\n"+said)
			b, l := blueprint.Parse(blueprint.Source{Name: "cluster.hcl", Text: res.HCL}, blueprint.Values{})
			if l.HasErrors() {
				t.Fatalf("it is not valid: %v", l)
			}
			if _, l := topology.New(b); l.HasErrors() {
				t.Errorf("no cluster can be made of it: %v", l)
			}
			for _, secret := range []string{"s3cr3t-licence", "wJalrXUtnFEMI", "super:secret", "secret1", "c2VjcmV0", "$6$"} {
				if strings.Contains(string(res.HCL)+report.String()+said, secret) {
					t.Errorf("%s is shown", secret)
				}
			}
		})
	}
}

func TestConvertRefuses(t *testing.T) {
	files, err := filepath.Glob("testdata/wrong/*.yaml")
	if err != nil || len(files) < 5 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			res, said := convert(t, f)
			if res.HCL != nil {
				t.Error("a file was written")
			}
			golden(t, strings.TrimSuffix(f, ".yaml")+".golden", said)
		})
	}
}

// TestEveryKeyIsKnown: testdata/keys.txt are the keys that DC/OS 1.7 to 2.2
// document, have a default for, or compute.
func TestEveryKeyIsKnown(t *testing.T) {
	text, err := os.ReadFile("testdata/keys.txt")
	if err != nil {
		t.Fatal(err)
	}
	keys := strings.Fields(string(text))
	if len(keys) < 200 {
		t.Fatalf("%d keys", len(keys))
	}
	for _, k := range keys {
		res, l := dcosconfig.Convert(dcosconfig.Source{Name: "config.yaml", Text: []byte(k + ": x\n")}, dcosconfig.Options{})
		for _, d := range l {
			if d.Summary == "Unknown key" {
				t.Error(d.Detail)
			}
		}
		for _, e := range res.Entries {
			if e.Status != dcosconfig.Mapped && e.Became == "" && e.Note == "" {
				t.Errorf("%s: nothing says what became of it", k)
			}
		}
	}
}
