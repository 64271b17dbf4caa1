package agent

import (
	"strings"
	"testing"

	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
	"dcos.example/dcos/runtime/resource"
)

func TestReservations(t *testing.T) {
	c := config.DefaultAgent()
	c.WorkDir = t.TempDir()
	c.Resources = "cpus:4;mem:4096;disk:1000;ports:[1-100]"
	c.Reservations = map[string]string{"db": "cpus:1;mem:1024;ports:[10-19]", "web": "cpus:0.5"}
	got, err := resources(c)
	want := resource.MustParse("cpus:2.5;cpus(db):1;cpus(web):0.5;mem:3072;mem(db):1024;disk:1000;ports:[1-9,20-100];ports(db):[10-19]")
	if err != nil || !got.Equal(want) {
		t.Errorf("%s, %v", got, err)
	}
	c.Resources, c.Reservations = "", map[string]string{"db": "disk:1"} // of what is found
	if got, err = resources(c); err != nil || got.Reserved("db").Scalar("disk") != resource.Unit {
		t.Errorf("%s, %v", got, err)
	}
	c.Public = true
	if got, err = resources(c); err != nil || got.Reserved("db").Scalar("disk") != resource.Unit || got.Unreserved().Len() != 0 {
		t.Errorf("a public agent: %s, %v", got, err)
	}
	c.Resources, c.Public, c.Reservations = "cpus:1;mem:1;disk:1;ports:[1-1]", false, map[string]string{"a": "cpus:0.6", "b": "cpus:0.6", "c d": "mem:1", "e": "mem"}
	_, err = resources(c)
	if !fault.Is(err, fault.Invalid) {
		t.Fatal(err)
	}
	for _, want := range []string{"reservations of b: ", "left are 'cpus:0.4'", "reservations of c d: ", "reservations of e: "} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}
