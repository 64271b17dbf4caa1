package providertest_test

import (
	"testing"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"

	"dcos.example/dcos/providers/conformance"
	"dcos.example/dcos/providers/providertest"
)

func TestConformance(t *testing.T) {
	for _, typ := range []tokens.Type{providertest.Thing, providertest.Slot} {
		for name, dir := range map[string]func(*testing.T) string{
			"memory": func(*testing.T) string { return "" },
			"files":  func(t *testing.T) string { return t.TempDir() },
		} {
			t.Run(string(typ.Name())+" in "+name, func(t *testing.T) {
				conformance.Run(t, func(t *testing.T) conformance.Subject { return subject(typ, dir(t)) })
			})
		}
	}
}

func subject(typ tokens.Type, dir string) conformance.Subject {
	p := providertest.New(dir)
	in := func(zone string, size float64) resource.PropertyMap {
		return resource.PropertyMap{
			"zone": resource.NewProperty(zone), "size": resource.NewProperty(size),
			"password": resource.MakeSecret(resource.NewProperty("do not tell")),
		}
	}
	return conformance.Subject{
		Provider: p, Type: typ, Name: "one",
		Inputs: in("x", 1), Update: in("x", 2), Replace: in("y", 1),
		Count: func(t *testing.T, u resource.URN) int {
			all, err := p.World()
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, o := range all {
				if o.URN == u {
					n++
				}
			}
			return n
		},
		Vanish: func(t *testing.T, id resource.ID) {
			if err := p.Remove(id); err != nil {
				t.Fatal(err)
			}
		},
	}
}
