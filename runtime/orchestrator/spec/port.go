package spec

import (
	"fmt"
	"slices"

	"dcos.example/dcos/runtime/api/marathon"
	"dcos.example/dcos/runtime/fault"
)

// Service ports are assigned from this range, last one excluded.
const (
	FirstServicePort = 10000
	LastServicePort  = 20000
)

// servicePorts returns pointers to a's service ports, in order.
func servicePorts(a *marathon.App) []*int64 {
	var out []*int64
	switch {
	case a == nil:
	case OnHost(a):
		for i := range a.PortDefinitions {
			out = append(out, &a.PortDefinitions[i].Port)
		}
	case a.Container != nil:
		for i := range a.Container.PortMappings {
			out = append(out, &a.Container.PortMappings[i].ServicePort)
		}
	}
	return out
}

// ServicePorts lists a's service ports in order; nil a has none.
func ServicePorts(a *marathon.App) []int64 {
	ptrs := servicePorts(a)
	out := make([]int64, len(ptrs))
	for i, p := range ptrs {
		out[i] = *p
	}
	return out
}

// AssignPorts gives the apps of c service ports where they name none: first
// those of the app's previous definition that the new one does not name, then
// the lowest that no app has, before or after c.
func (t *Tree) AssignPorts(c Change) error {
	taken := map[int64]bool{}
	for _, a := range c.Apps {
		for _, p := range ServicePorts(a) {
			taken[p] = true
		}
	}
	next := int64(FirstServicePort)
	for _, id := range sortedIDs(c.Apps) {
		a := c.Apps[id]
		named := ServicePorts(a)
		reuse := slices.DeleteFunc(ServicePorts(t.apps[id]), func(p int64) bool {
			return p == 0 || slices.Contains(named, p)
		})
		for _, p := range servicePorts(a) {
			if *p != 0 {
				continue
			}
			if len(reuse) > 0 {
				*p, reuse = reuse[0], reuse[1:]
				taken[*p] = true
				continue
			}
			for next < LastServicePort && (t.ports[next] > 0 || taken[next]) {
				next++
			}
			if next == LastServicePort {
				return fault.New("assign service ports", fault.Internal, &PortsExhausted{})
			}
			*p = next
			taken[next] = true
		}
	}
	return nil
}

// PortsExhausted says that no service port is free.
type PortsExhausted struct{}

func (*PortsExhausted) Error() string {
	return fmt.Sprintf("All ports in the range [%d-%d) are already in use", FirstServicePort, LastServicePort)
}
