package lab_test

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dcos.example/dcos/ci/lab"
	"dcos.example/dcos/installer/blueprint"
	"dcos.example/dcos/runtime/fault"
)

var update = flag.Bool("update", false, "rewrite golden files")

func record(n int) lab.Record {
	r := netip.MustParsePrefix("198.19.20.0/24")
	return lab.Record{Name: "dct2lab", Range: r, Hosts: lab.Hosts(r, n)}
}

func TestAddresses(t *testing.T) {
	r := record(3)
	got := []string{r.Machine().String(), r.Router().String()}
	for _, h := range r.Hosts {
		got = append(got, h.Name+" "+h.Address.String())
	}
	want := []string{"198.19.20.1", "198.19.20.254", "h1 198.19.20.11", "h2 198.19.20.12", "h3 198.19.20.13"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	r.Range = netip.MustParsePrefix("10.0.16.0/20")
	if r.Router() != netip.MustParseAddr("10.0.31.254") {
		t.Errorf("the router of a /20 is %s", r.Router())
	}
}

// TestCheck: everything wrong is said at once, before anything is made.
func TestCheck(t *testing.T) {
	r := record(3)
	r.Name = "Lab!"
	r.Hosts[0].Name = "machine"
	r.Hosts[1].Address = netip.MustParseAddr("198.19.20.254")
	r.Hosts[2].Address = netip.MustParseAddr("10.0.0.1")
	r.Hosts[2].DiskMiB = 1
	_, _, err := lab.Up(t.Context(), lab.Options{Dir: t.TempDir()}, r)
	if !fault.Is(err, fault.Invalid) {
		t.Fatal(err)
	}
	for _, want := range []string{`"Lab!"`, `"machine"`, "belongs to the router", "10.0.0.1 is not an address", "256 MiB of disk"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nlacks %q", err, want)
		}
	}
	for _, cidr := range []string{"198.19.20.1/24", "198.19.20.0/29", "fd00::/64"} {
		r := record(1)
		r.Range = netip.MustParsePrefix(cidr)
		if _, _, err := lab.Up(t.Context(), lab.Options{Dir: t.TempDir()}, r); !fault.Is(err, fault.Invalid) {
			t.Errorf("range %s: %v", cidr, err)
		}
	}
}

// TestHCL: the file is what the installer reads, for every user.
func TestHCL(t *testing.T) {
	l := &lab.Lab{Record: record(6), Dir: "/var/lib/dcos-lab/dct2lab"}
	for i := range l.Record.Hosts {
		l.Record.Hosts[i].MemoryMiB = lab.DefaultMemoryMiB
	}
	l.Record.Hosts[4].CPUs = 0.5
	for _, user := range []string{"admin", "ops"} {
		got, err := l.HCL(lab.Roles{Masters: 3, Public: 1, Spare: 1, User: user})
		if err != nil {
			t.Fatal(err)
		}
		golden := filepath.Join("testdata", user+".hcl")
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", golden, diff)
		}
		if _, found := blueprint.Parse(blueprint.Source{Name: "cluster.hcl", Text: []byte(got)}, blueprint.Values{Env: []string{"DCOS_VAR_sudo_password=x"}}); len(found) > 0 {
			t.Errorf("the installer says of %s: %v", golden, found)
		}
	}
	for _, r := range []lab.Roles{{Masters: 2}, {Masters: 7}, {Masters: 5, Public: 2}} {
		if _, err := l.HCL(r); !fault.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", r, err)
		}
	}
}
