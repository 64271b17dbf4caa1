package zone_test

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dcos.example/dcos/runtime/api/mesos/master"
	"dcos.example/dcos/runtime/api/wire"
	"dcos.example/dcos/runtime/dns/zone"
	"dcos.example/dcos/runtime/feed"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func view(t *testing.T) *feed.View {
	t.Helper()
	b, err := os.ReadFile("testdata/state.json")
	if err != nil {
		t.Fatal(err)
	}
	state := &master.Response_GetState{}
	if err := wire.JSON.Unmarshal(b, state); err != nil {
		t.Fatal(err)
	}
	return feed.Of("https://10.0.0.1:5050", state)
}

func options() zone.Options {
	return zone.Options{
		Masters: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")}, MasterPort: 5050, AgentPort: 5051,
		VIPs: map[string]netip.Addr{"web.marathon.l4lb.thisdcos.directory": netip.MustParseAddr("11.1.2.3")},
	}
}

func TestGolden(t *testing.T) {
	var out strings.Builder
	z := zone.Build(view(t), options())
	for name, set := range z.All() {
		for _, a := range set.A {
			fmt.Fprintf(&out, "%s A %s\n", name, a)
		}
		for _, s := range set.SRV {
			fmt.Fprintf(&out, "%s SRV %s:%d\n", name, s.Target, s.Port)
		}
	}
	const path = "testdata/zone.golden"
	if *update {
		if err := os.WriteFile(path, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), out.String()); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

// The truth table of DC/OS' own integration tests, and names that must not be.
func TestAddresses(t *testing.T) {
	z := zone.Build(view(t), options())
	for name, want := range map[string]string{
		"web-shop.marathon.mesos.":                    "10.0.0.11 10.0.0.12",
		"web-shop.marathon.mesos.thisdcos.directory.": "10.0.0.11 10.0.0.12",
		"web-shop.marathon.mesos.thisdcos.global.":    "10.0.0.11 10.0.0.12",

		"bridged.marathon.agentip.dcos.thisdcos.directory.":     "10.0.0.11",
		"bridged.marathon.autoip.dcos.thisdcos.directory.":      "10.0.0.11",
		"bridged.marathon.containerip.dcos.thisdcos.directory.": "172.31.254.5",
		"overlay.marathon.agentip.dcos.thisdcos.directory.":     "10.0.0.12",
		"overlay.marathon.autoip.dcos.thisdcos.directory.":      "9.0.2.130",
		"overlay.marathon.containerip.dcos.thisdcos.directory.": "9.0.2.130",
		"overlay.marathon.slave.mesos.":                         "10.0.0.12",

		"broker-0.kafka.prod.mesos.":            "10.0.0.12",
		"kafka.prod.mesos.":                     "10.0.0.11",
		"marathon.mesos.":                       "10.0.0.1",
		"leader.mesos.":                         "10.0.0.1",
		"leader.dcos.thisdcos.directory.":       "10.0.0.1",
		"master.mesos.":                         "10.0.0.1 10.0.0.2",
		"master1.mesos.":                        "10.0.0.2",
		"slave.mesos.":                          "10.0.0.11 10.0.0.12",
		"ready.spartan.":                        "127.0.0.1",
		"web.marathon.l4lb.thisdcos.directory.": "11.1.2.3",
		"web.marathon.dclb.thisdcos.directory.": "11.1.2.3",
		"mesos.":                                "",
		"prod.mesos.":                           "",
		"web.marathon.mesos.":                   "NXDOMAIN",
		"shop.marathon.mesos.":                  "NXDOMAIN",
		"l4lb.thisdcos.directory.":              "",
	} {
		got := "NXDOMAIN"
		if set, ok := z.Lookup(name); ok {
			got = strings.Trim(fmt.Sprint(set.A), "[]")
		}
		if got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	empty := zone.Build(feed.Empty(), options())
	if _, ok := empty.Lookup("ready.spartan."); !ok || empty.Ready() {
		t.Error("before the first view ready.spartan must exist and the zone not be ready")
	}
}

func TestApex(t *testing.T) {
	for name, want := range map[string]string{"a.mesos.": "mesos.", "mesos.": "mesos.", "notmesos.": "", "example.com.": "", "x.y.thisdcos.directory.": "thisdcos.directory."} {
		if got, ok := zone.Apex(name); got != want || ok != (want != "") {
			t.Errorf("Apex(%s) = %q", name, got)
		}
	}
}

func TestTasks(t *testing.T) {
	z := zone.Build(view(t), options())
	var names []string
	for _, r := range z.Tasks() {
		names = append(names, r.Framework+" "+r.Name)
	}
	want := []string{"kafka.prod broker_0", "marathon bridged", "marathon overlay", "marathon web.shop", "marathon web.shop"}
	if !slices.Equal(names, want) {
		t.Errorf("got %q", names)
	}
}
